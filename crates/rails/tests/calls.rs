//! Calls over the network against a rail that answers whatever it is told: what is certain, what is not, and that one
//! rail that hangs holds up nobody else.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_core::commit::{Asking, Outcome};
use bursar_core::{Amount, Currencies, CustomerId, Policy, Rejection, Request, TransactionId};
use bursar_engine::{Ledger, LedgerOptions, PendingEvent, new_config};
use bursar_rails::settings::check;
use bursar_rails::{RailSettings, Rails, RouteSettings, Secret};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECRET: &str = "whsec_YSByYWlsIHRvIHRyeSB0aGluZ3Mgb3V0IHdpdGg=";

/// A request as a rail hears it.
#[derive(Clone, Debug)]
struct Heard {
    /// Method and path.
    line: String,
    /// Names in lower case.
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What a rail answers: bytes, after which it closes the connection; `None`: nothing, for ever.
type Script = dyn Fn(usize, &Heard) -> Option<String> + Send + Sync;

struct FakeRail {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl FakeRail {
    fn start(script: impl Fn(usize, &Heard) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let rail = Self { address: listener.local_addr().unwrap(), heard: Arc::default() };
        let (heard, script): (_, Arc<Script>) = (rail.heard.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (heard, script) = (heard.clone(), script.clone());
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let Some(request) = read(&mut reader) else { return };
                    let place = {
                        let mut heard = heard.lock().unwrap();
                        heard.push(request.clone());
                        heard.len() - 1
                    };
                    match script(place, &request) {
                        // The other side may have gone.
                        Some(answer) => drop(stream.write_all(answer.as_bytes())),
                        None => std::thread::sleep(Duration::from_hours(1)),
                    }
                });
            }
        });
        rail
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

fn read(reader: &mut impl BufRead) -> Option<Heard> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Heard { line: line.trim_end().to_owned(), headers, body })
}

#[allow(clippy::unnecessary_wraps)] // what a script gives
fn answer(status: &str, content_type: &str, body: &str) -> Option<String> {
    let length = body.len();
    Some(format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    ))
}

fn ok() -> Option<String> {
    answer("200 OK", "application/json", "{}")
}

#[derive(Deserialize)]
struct File {
    rails: BTreeMap<String, RailSettings>,
    routes: RouteSettings,
}

/// A ledger whose withdrawals go through a rail with these settings; so many customers have 100 each.
fn ledger(address: SocketAddr, more: &str, customers: u64) -> Ledger {
    let text = format!(
        "[rails.bank]\nnumber = 1\nurl = 'http://{address}/pay'\nsecret = '{SECRET}'\n\
         retry = {{ first = '5ms', factor = 1, max = '5ms' }}\n{more}\n[routes]\nwithdrawal = 'bank'\n"
    );
    let file: File = toml::from_str(&text).unwrap();
    let checked = check(&file.rails, &file.routes, Path::new("/"), true).unwrap();
    let mut options = LedgerOptions { routes: checked.routes, ..LedgerOptions::default() };
    for (id, rail) in Rails::start(checked.rails).unwrap().iter() {
        options = options.with_rail(id, rail);
    }
    let ledger = Ledger::in_memory(&new_config(Policy::default(), Currencies::default()).unwrap(), options).unwrap();
    let amount = Amount::from_steps(1_000_000);
    let deposits = (1..=customers).map(|of| Request::deposit(customer(of), transaction(of), amount));
    ledger.submit_batch(deposits.collect()).unwrap();
    ledger
}

fn customer(of: u64) -> CustomerId {
    CustomerId::new(u128::from(of))
}

fn transaction(id: u64) -> TransactionId {
    TransactionId::new(u128::from(id))
}

fn withdrawal(of: u64) -> Request {
    Request::withdrawal(customer(of), transaction(1_000_000 + of), Amount::from_steps(25_000))
}

/// Waits until what waits is as it should be.
fn until(ledger: &Ledger, what: impl Fn(&[PendingEvent]) -> bool) -> Vec<PendingEvent> {
    for _ in 0..6_000 {
        let pending = ledger.pending().unwrap();
        if what(&pending) {
            return pending;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{:?}", ledger.pending());
}

#[test]
fn every_attempt_is_the_same_call_and_signed() {
    let rail = FakeRail::start(|place, _| if place < 3 { answer("503 No", "text/plain", "") } else { ok() });
    let ledger = ledger(rail.address, "", 1);
    assert!(matches!(ledger.submit(withdrawal(1)), Ok(Outcome::Applied(_))));
    let heard = rail.heard();
    assert_eq!(heard.len(), 4);
    let secret = Secret::parse(SECRET).unwrap();
    for (attempt, call) in heard.iter().enumerate() {
        assert_eq!(call.line, "POST /pay HTTP/1.1");
        assert_eq!(call.body, heard[0].body, "a repeated key comes with the same bytes");
        let header = |name: &str| call.headers[name].as_str();
        let event = call.json()["event"].as_str().unwrap().to_owned();
        assert_eq!([header("idempotency-key"), header("webhook-id")], [event.as_str(); 2]);
        assert_eq!(header("bursar-attempt"), attempt.to_string());
        let timestamp = header("webhook-timestamp").parse().unwrap();
        assert!(secret.verifies(header("webhook-signature"), &event, timestamp, &call.body));
    }
    let call = heard[0].json();
    let fields = ["kind", "customer", "transaction", "amount"].map(|field| call[field].as_str().unwrap());
    assert_eq!(fields, ["withdrawal", "1", "1000001", "2.5000"]);
    assert_eq!((&call["currency"], &call["seq"]), (&Value::Null, &Value::from(2)));
}

/// The customer is not told anything before something certain is said.
#[test]
fn what_is_not_certain_stays_open() {
    let refusal = r#"{"refused":"no such account"}"#;
    let long = format!(r#"{{"refused":"{}"}}"#, "x".repeat(70 << 10));
    let elsewhere = FakeRail::start(|_, _| ok());
    let there = format!("HTTP/1.1 307 There\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n", elsewhere.address);
    let unclear = vec![
        Some(there),
        answer("404 Not Found", "application/json", refusal),
        answer("409 Conflict", "application/json", refusal),
        answer("422 No", "text/html", "<h1>no</h1>"),
        answer("422 No", "application/json", &long),
        Some(format!("HTTP/1.1 422 No\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{refusal}")),
        Some("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}".to_owned()),
        Some("no HTTP at all\r\n\r\n".to_owned()),
        Some(String::new()),
        None,
        answer("422 No", "application/json; charset=utf-8", refusal),
    ];
    let count = unclear.len();
    let rail = FakeRail::start(move |place, _| unclear[place.min(unclear.len() - 1)].clone());
    // Longer than a slow machine takes for an answer, since one that comes too late is asked for again.
    let ledger = ledger(rail.address, "timeout = '3s'", 1);
    let refused = ledger.submit(withdrawal(1)).unwrap();
    assert_eq!(refused, Outcome::Rejected(Rejection::RailRefused { reason: "no such account".to_owned() }));
    assert_eq!((rail.heard().len(), elsewhere.heard().len()), (count, 0));
}

/// Called before, for all that is known: first asked, and only called where the rail says that it never heard of it.
#[test]
fn a_status_address_is_asked_before_a_call_is_repeated() {
    let rail = FakeRail::start(|place, heard| {
        let event = &heard.headers["webhook-id"];
        let json = |body: String| answer("200 OK", "application/json", &body);
        match place {
            1 => answer("404 Not Found", "application/json", "{}"),
            2 => json(format!(r#"{{"event":"{event}","status":"pending"}}"#)),
            3 => json(format!(r#"{{"event":"{event}","status":"unknown"}}"#)),
            5 => json(format!(r#"{{"event":"{event}","status":"done"}}"#)),
            _ => answer("500 Oops", "text/plain", ""),
        }
    });
    let ledger = ledger(rail.address, &format!("status_url = 'http://{}/pay/{{event}}'", rail.address), 1);
    assert!(matches!(ledger.submit(withdrawal(1)), Ok(Outcome::Applied(_))));
    let heard = rail.heard();
    let event = heard[0].json()["event"].as_str().unwrap().to_owned();
    let (call, ask) = ("POST /pay HTTP/1.1".to_owned(), format!("GET /pay/{event} HTTP/1.1"));
    let lines: Vec<_> = heard.iter().map(|heard| heard.line.clone()).collect();
    assert_eq!(lines, [call.clone(), ask.clone(), ask.clone(), ask.clone(), call, ask]);
    let secret = Secret::parse(SECRET).unwrap();
    let asked = &heard[1].headers;
    let timestamp = asked["webhook-timestamp"].parse().unwrap();
    assert!(secret.verifies(&asked["webhook-signature"], &event, timestamp, b""));
}

/// Calls that hang take up places; all others still have theirs.
#[test]
fn a_call_that_hangs_holds_up_no_other() {
    let rail = FakeRail::start(|_, heard| if heard.json()["customer"] == "1" { None } else { ok() });
    let ledger = ledger(rail.address, "timeout = '10m'", 200);
    ledger.submit_then(vec![withdrawal(1)], drop).unwrap();
    until(&ledger, |pending| pending.len() == 1);
    let others = ledger.submit_batch((2..=200).map(withdrawal).collect()).unwrap();
    assert!(others.iter().all(|one| matches!(one, Ok(Outcome::Applied(_)))));
    let pending = ledger.pending().unwrap();
    assert_eq!(pending.iter().map(|one| one.pending.asking).collect::<Vec<_>>(), [Asking::UnderWay]);
    assert_eq!(pending[0].rail_name.as_deref(), Some("bank"));
}

/// Nobody listens, and that is said where an operator looks.
#[test]
fn what_went_wrong_is_told_without_the_address() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ledger = ledger(gone, "", 1);
    ledger.submit_then(vec![withdrawal(1)], drop).unwrap();
    let pending = until(&ledger, |pending| pending.first().is_some_and(|one| one.last_answer.is_some()));
    let said = &pending[0].last_answer.as_ref().unwrap().said;
    assert!(said.starts_with("no connection") && !said.contains("127.0.0.1"), "{said}");
}
