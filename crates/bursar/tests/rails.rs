//! Rails from end to end: the real service, the real example rail over the network, and kills of both.
//!
//! The books are compared at the end: what the ledger says is done is in the rail's book exactly once, with the same
//! amount; what was aborted is refused there; and nothing else is in it.
//!
//! `BURSAR_RAIL_KILLS=100 cargo test --release -p bursar --test rails` makes 10,000 payments with 100 kills.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

#[path = "../../server/tests/common/client.rs"]
mod client;
mod common;
#[path = "common/service.rs"]
mod service;

use client::Client;
use common::{Random, Sandbox, stderr, stdout};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use service::Service;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const KILLS: u64 = 5;
const PAYMENTS_PER_KILL: u64 = 100;
const CUSTOMERS: u64 = 150;
const CLIENTS: usize = 24;
const SECRET: &str = "whsec_YSByYWlsIHRvIHRyeSB0aGluZ3Mgb3V0IHdpdGg=";

/// The example rail, built as everybody would build it. (Cargo tells tests of other packages nothing of examples.)
fn rail_program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet", "--package", "bursar-rails", "--example", "rail"]);
        command.args(["--message-format", "json-render-diagnostics"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let messages = String::from_utf8(output.stdout).unwrap();
        let messages = messages.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let built = messages.filter(|message| message["target"]["name"] == "rail");
        let path = built.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
        path.unwrap()
    })
}

/// The example rail in a process of its own.
struct RailServer {
    child: Child,
    address: SocketAddr,
}

impl RailServer {
    fn start(sandbox: &Sandbox, listen: &str, flags: &[&str]) -> Self {
        let mut command = Command::new(rail_program());
        command.args(["--listen", listen, "--secret", SECRET, "--book"]).arg(sandbox.path("book.ndjson"));
        let mut child = command.args(flags).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let address = url.trim().strip_prefix("http://").unwrap().parse().unwrap();
        Self { child, address }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn book(&self) -> Value {
        Client::connect(self.address).get("/book").json()
    }
}

impl Drop for RailServer {
    fn drop(&mut self) {
        // Killed before in many tests; then there is nobody left.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A ledger whose deposits and withdrawals go through two rails at this address.
fn ledger(address: SocketAddr, more: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.done(&["init", "--quiet"]);
    settings(&sandbox, address, more);
    sandbox
}

fn settings(sandbox: &Sandbox, address: SocketAddr, more: &str) {
    let usual = "timeout = '250ms'\nretry = { first = '20ms', factor = 2, max = '500ms' }";
    let text = format!(
        "[rails.payouts]\nnumber = 1\nurl = 'http://{address}/payments'\nsecret_file = 'rail.secret'\n\
         status_url = 'http://{address}/payments/{{event}}'\n{usual}\n{more}\n\
         [rails.charges]\nnumber = 2\nurl = 'http://{address}/payments'\nsecret_file = 'rail.secret'\n{usual}\n\n\
         [routes]\nwithdrawal = 'payouts'\ndeposit = 'charges'\n"
    );
    sandbox.write("bursar-data/rail.secret", SECRET);
    sandbox.write("bursar-data/bursar.toml", text);
}

/// The transaction of an id: every customer is paid in before it pays out.
fn request(id: u64) -> Value {
    let (round, customer) = (id / CUSTOMERS, id % CUSTOMERS);
    let (kind, amount) = if round.is_multiple_of(2) { ("deposit", "5.25") } else { ("withdrawal", "2.5") };
    json!({ "kind": kind, "customer": customer.to_string(), "transaction": (id + 1).to_string(), "amount": amount })
}

/// What clients were told: by transaction, the hash of an applied event, or the code of a refusal.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Applied(String),
    Refused(String),
}

/// Submits until the service is gone.
fn submit_until_gone(mut client: Client, next: &AtomicU64) -> Vec<(u64, Told)> {
    let mut told = Vec::new();
    loop {
        let id = next.fetch_add(1, Ordering::Relaxed);
        let body = request(id).to_string();
        let Ok(response) = client.try_call("POST", "/v1/requests", "application/json", body.as_bytes()) else {
            return told;
        };
        let answer = response.json();
        match response.status {
            200 => told.push((id + 1, Told::Applied(answer["receipt"]["hash"].as_str().unwrap().to_owned()))),
            422 => told.push((id + 1, Told::Refused(answer["code"].as_str().unwrap().to_owned()))),
            503 => return told,
            other => panic!("{other}: {answer}"),
        }
    }
}

/// Waits until nothing waits for a rail any more.
fn wait_until_settled(service: &Service) {
    let mut client = service.client();
    for _ in 0..6_000 {
        let pending = client.get("/v1/pending").json();
        if pending["items"].as_array().unwrap().is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{}", client.get("/v1/pending").text());
}

/// Compares the ledger with the rail's book, and with what clients were told.
fn compare(service: &Service, rail: &RailServer, told: &BTreeMap<u64, Told>) -> (u64, u64) {
    let book = rail.book();
    assert_eq!(book["conflicts"], 0, "a repeated key came with another call");
    let entries = book["entries"].as_array().unwrap();
    let mut left: BTreeMap<&str, &Value> =
        entries.iter().map(|entry| (entry["key"].as_str().unwrap(), entry)).collect();
    assert_eq!(left.len(), entries.len());
    let (mut done, mut aborted) = (0, 0);
    let mut found: BTreeMap<u64, Told> = BTreeMap::new();
    for customer in 0..CUSTOMERS {
        let file = service.client().get(&format!("/v1/customers/{customer}/chain"));
        if file.status == 404 {
            continue;
        }
        bursar_engine::chain_file::verify_chain_file(file.body.as_slice(), None).unwrap();
        for line in file.text().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let (Some(_), Some(hash)) = (line["rail"].as_u64(), line["hash"].as_str()) else { continue };
            let id = bursar_core::EventId::from_hash(&bursar_core::Hash::parse(hash.as_bytes()).unwrap()).to_string();
            let entry = left.remove(id.as_str()).unwrap_or_else(|| panic!("the rail does not know {line}"));
            let call = &entry["call"];
            assert_eq!((&call["event"], &call["kind"]), (&json!(id), &line["kind"]));
            assert_eq!((&call["customer"], &call["transaction"]), (&json!(customer.to_string()), &line["transaction"]));
            assert_eq!((&call["amount"], &call["seq"]), (&line["amount"], &line["seq"]));
            let transaction = line["transaction"].as_str().unwrap().parse().unwrap();
            match line["status"].as_str().unwrap() {
                "done" => {
                    assert_eq!(entry["refused"], Value::Null, "done, and refused by the rail: {line}");
                    let before = found.insert(transaction, Told::Applied(hash.to_owned()));
                    assert_eq!(before, None, "paid twice: {line}");
                    done += 1;
                }
                "aborted" => {
                    assert_eq!(entry["refused"], line["reason_text"], "aborted, and the rail has acted: {line}");
                    found.insert(transaction, Told::Refused("rail_refused".to_owned()));
                    aborted += 1;
                }
                other => panic!("{other}: {line}"),
            }
        }
    }
    assert!(left.is_empty(), "the rail has acted for events that no chain has: {left:?}");
    for (transaction, told) in told {
        match told {
            Told::Applied(_) => assert_eq!(found.get(transaction), Some(told), "transaction {transaction}"),
            Told::Refused(code) if code == "rail_refused" => {
                assert_eq!(found.get(transaction), Some(told), "transaction {transaction}");
            }
            Told::Refused(code) => {
                assert_eq!((code.as_str(), found.get(transaction)), ("insufficient_funds", None));
            }
        }
    }
    (done, aborted)
}

#[test]
fn not_one_payment_is_lost_or_doubled() {
    let kills = std::env::var("BURSAR_RAIL_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(KILLS);
    let faults = ["--refuse-percent=7", "--hang-before-percent=4", "--hang-after-percent=6", "--down-percent=6"];
    let faults = [&faults[..], &["--lose-answer-percent=6", "--answer-twice-percent=5"]].concat();
    let first = Sandbox::new();
    let mut rail = RailServer::start(&first, "127.0.0.1:0", &faults);
    let (listen, sandbox) = (rail.address.to_string(), ledger(rail.address, ""));
    let next = AtomicU64::new(0);
    let mut random = Random(11);
    let mut told = BTreeMap::new();
    let (mut killed_midway, mut rail_kills) = (0, 0);
    for life in 0..kills {
        let mut service = Service::start(&sandbox, &["--quiet", "--log", "error"]);
        let pid = Pid::from_child(&service.child);
        let clients: Vec<Client> = (0..CLIENTS).map(|_| service.client()).collect();
        let heard = std::thread::scope(|scope| {
            let clients: Vec<_> =
                clients.into_iter().map(|client| scope.spawn(|| submit_until_gone(client, &next))).collect();
            let half = life * PAYMENTS_PER_KILL + PAYMENTS_PER_KILL / 2;
            let wait_for = |count: u64| {
                while next.load(Ordering::Relaxed) < count {
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            wait_for(half);
            if life % 3 == 1 {
                rail.kill();
                std::thread::sleep(Duration::from_millis(random.below(60) as u64));
                rail = RailServer::start(&first, &listen, &faults);
                rail_kills += 1;
            }
            wait_for((life + 1) * PAYMENTS_PER_KILL);
            std::thread::sleep(Duration::from_micros(random.below(30_000) as u64));
            let open = service.client().get("/v1/pending").json()["items"].as_array().unwrap().len();
            kill_process(pid, Signal::KILL).unwrap();
            killed_midway += u64::from(open > 0);
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(service.end().0, None);
        told.extend(heard);
    }
    assert!(killed_midway * 2 > kills, "payments were under way at {killed_midway} of {kills} kills");
    let service = Service::start(&sandbox, &["--quiet", "--log", "error"]);
    wait_until_settled(&service);
    let (done, aborted) = compare(&service, &rail, &told);
    let asked = next.load(Ordering::Relaxed);
    eprintln!(
        "{asked} payments asked for, {kills} kills of the service ({killed_midway} with payments under way), \
         {rail_kills} of the rail: {done} done, {aborted} refused by the rail, {} answered",
        told.len()
    );
    assert!(done > asked / 2 && aborted > 0 && told.len() as u64 > asked / 2);
    service.stop();
    sandbox.done(&["verify"]);
}

fn field<'a>(pending: &'a Value, name: &str) -> &'a Value {
    &pending["items"][0]["waits"][name]
}

#[test]
fn an_operator_sees_what_waits_and_settles_it() {
    let first = Sandbox::new();
    let rail = RailServer::start(&first, "127.0.0.1:0", &["--hang-customer=7"]);
    let sandbox = ledger(rail.address, "deadline = '3s'");
    // Only withdrawals go through a rail, so that there is something to withdraw.
    let text = sandbox.read("bursar-data/bursar.toml").replace("deposit = 'charges'\n", "");
    sandbox.write("bursar-data/bursar.toml", text);
    let mut service = Service::start(&sandbox, &["--quiet"]);
    let mut client = service.client();
    let deposit = r#"{"kind":"deposit","customer":"7","transaction":"1","amount":"10"}"#;
    assert_eq!(client.submit(deposit).status, 200);
    let waiting: Vec<_> = ["2", "3"]
        .map(|id| {
            let mut client = service.client();
            std::thread::spawn(move || {
                let body = format!(r#"{{"kind":"withdrawal","customer":"7","transaction":"{id}","amount":"4"}}"#);
                client.try_call("POST", "/v1/requests", "application/json", body.as_bytes()).ok()
            })
        })
        .into_iter()
        .collect();
    let until = |what: &dyn Fn(&Value) -> bool| {
        for _ in 0..3_000 {
            let pending = service.client().get("/v1/pending").json();
            if what(&pending) {
                return pending;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{}", service.client().get("/v1/pending").text());
    };
    // It is asked, and asked again, and then flagged.
    let pending = until(&|pending| field(pending, "asking") == "stopped" && field(pending, "requests_behind") == 1);
    assert_eq!((field(&pending, "rail"), field(&pending, "configured")), (&json!("payouts"), &json!(true)));
    assert_eq!(field(&pending, "past_deadline"), true);
    assert!(field(&pending, "calls").as_u64().unwrap() > 1);
    assert!(field(&pending, "last_answer")["said"].as_str().unwrap().contains("no answer within 250ms"), "{pending}");
    let event = pending["items"][0]["event"].as_str().unwrap().to_owned();
    let path = format!("/v1/pending/{event}/settle");
    for (body, problem) in [
        (r#"{"as":"done"}"#, (400, "bad_field")),
        (r#"{"as":"paid","reason":"x"}"#, (400, "bad_field")),
        (r#"{"as":"done","reason":" "}"#, (400, "bad_field")),
        (r#"{"as":"done","reason":"x","who":"me"}"#, (400, "bad_field")),
        (r#"["done","x"]"#, (400, "bad_field")),
        (r#"{"as":"done""#, (400, "malformed_json")),
    ] {
        let (status, code) = client.post(&path, "application/json", body).problem();
        assert_eq!((status, code.as_str()), problem, "{body}");
    }
    let done = r#"{"as":"done","reason":"on the statement of today"}"#;
    let unknown = "/v1/pending/00000000-0000-8000-8000-000000000000/settle";
    assert_eq!(client.post(unknown, "application/json", done).problem(), (404, "not_pending".to_owned()));
    let settled = client.post(&path, "application/json", done).json();
    assert_eq!((&settled["status"], &settled["repeated"]), (&json!("done"), &json!(false)), "{settled}");
    let events = client.get("/v1/customers/7/events?status=done").json();
    let found = (&events["items"][0]["event"], &events["items"][0]["reason"]);
    assert_eq!(found, (&json!(event), &json!("on the statement of today")), "{events}");
    let again = client.post(&path, "application/json", r#"{"as":"done","reason":"once more"}"#).json();
    assert_eq!((&again["reason"], &again["repeated"]), (&json!("on the statement of today"), &json!(true)));
    let other = client.post(&path, "application/json", r#"{"as":"aborted","reason":"no"}"#);
    assert_eq!(other.problem(), (409, "closed_otherwise".to_owned()));
    // The commands say the same of a server: the end that counted, and its exit code.
    let url = format!("http://{}", service.address);
    let settle = |event: &str, end: &str| {
        ["settle", event, "--as", end, "--reason", "a third time", "--output", "csv", "--server", &url]
            .map(str::to_owned)
    };
    let run = |arguments: &[String]| sandbox.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let again = run(&settle(&event, "done"));
    assert!(stdout(&again).contains(&format!(",{event},done,on the statement of today")), "{}", stderr(&again));
    for (event, code) in [(event.as_str(), "closed_otherwise"), ("00000000-0000-8000-8000-000000000000", "not_pending")]
    {
        let refused = run(&settle(event, "aborted"));
        assert!(refused.status.code() == Some(1) && stderr(&refused).contains(&format!("error[{code}]")), "{code}");
    }
    // The one behind it goes to the rail now, and hangs as well. It is settled with the ledger's own command.
    let pending = until(&|pending| {
        let is_other = pending["items"][0]["event"].as_str().is_some_and(|id| id != event);
        is_other && field(pending, "asking") == "stopped"
    });
    let second = pending["items"][0]["event"].as_str().unwrap().to_owned();
    let of_server = sandbox.done(&["pending", "--output", "csv", "--server", &url]);
    let waits = &pending["items"][0]["waits"];
    let own = format!(",stopped,,{},", waits["calls"]);
    assert!(of_server.contains(&own) && of_server.contains("no answer within 250ms"), "{of_server}");
    assert!(of_server.contains(waits["deadline"].as_str().unwrap()), "{of_server}");
    let filters: [(&[&str], usize); 8] = [
        (&["--kind", "withdrawal"], 1),
        (&["--kind", "deposit"], 0),
        (&["--rail", "payouts"], 1),
        (&["--rail", "1"], 1),
        (&["--rail", "deskjob"], 0),
        (&["--since", "2026-01-31", "--until", "2999-12-31T12:00:00Z"], 1),
        (&["--since", "2999-12-31"], 0),
        (&["--until", "2026-01-31"], 0),
    ];
    let filtered = |more: &[&str]| {
        for (flags, count) in filters {
            let listed = sandbox.done(&[&["pending", "--output", "csv"][..], flags, more].concat());
            assert_eq!(listed.lines().count(), 1 + count, "{flags:?} {more:?}");
        }
    };
    filtered(&["--server", &url]);
    // Killed: to stop in order would wait for the client who waits for the rail.
    service.signal(Signal::KILL);
    let (_, log) = service.end();
    assert!(log.contains("a rail could not tell") && !log.contains(&SECRET[6..]), "{log}");
    let listed = sandbox.done(&["pending", "--output", "csv"]);
    assert!(listed.contains(&second) && listed.contains(",payouts,"), "{listed}");
    // What both know is the same.
    assert!(listed.lines().zip(of_server.lines()).all(|(own, served)| served.starts_with(own)), "{listed}{of_server}");
    assert_eq!(listed.lines().count(), 2);
    filtered(&[]);
    assert!(sandbox.fails(2, &["pending", "--since", "soon"]).contains("error[bad_argument]"));
    let settle = ["settle", &second, "--as", "aborted", "--reason", "cancelled by phone", "--output", "csv"];
    let told = sandbox.done(&settle);
    assert!(told.contains(",aborted,cancelled by phone"), "{told}");
    // Each process that says so is a new one: once more is no error, and otherwise is one.
    assert_eq!(sandbox.done(&settle), told);
    let otherwise = ["settle", &second, "--as", "done", "--reason", "no"];
    assert!(sandbox.fails(1, &otherwise).contains("error[closed_otherwise]"));
    let unknown = ["settle", "00000000-0000-8000-8000-000000000000", "--as", "done", "--reason", "no"];
    assert!(sandbox.fails(1, &unknown).contains("error[not_pending]"));
    assert!(sandbox.fails(2, &["settle", "7", "--as", "done", "--reason", "x"]).contains("error[bad_argument]"));
    assert_eq!(sandbox.done(&["pending", "--output", "csv"]).lines().count(), 1);
    let chain = sandbox.done(&["chain", "7", "--output", "csv"]);
    assert!(chain.contains("on the statement of today") && chain.contains("cancelled by phone"), "{chain}");
    sandbox.done(&["export", "--chain", "7", "--to", "7.chain"]);
    sandbox.done(&["verify", "--file", "7.chain"]);
    sandbox.done(&["verify"]);
    // The first one was told; the second was cut off with the service.
    let heard: Vec<_> = waiting.into_iter().filter_map(|one| one.join().unwrap()).collect();
    assert_eq!(heard.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200]);
}

/// A payment is settled as aborted while its rail is being called, and then the rail says that it has paid.
#[test]
fn a_rail_that_contradicts_an_operator_is_told_of() {
    let rail = TcpListener::bind("127.0.0.1:0").unwrap();
    let sandbox = ledger(rail.local_addr().unwrap(), "");
    let text = sandbox.read("bursar-data/bursar.toml").replace("deposit = 'charges'\n", "").replace("250ms", "60s");
    sandbox.write("bursar-data/bursar.toml", text);
    let service = Service::start(&sandbox, &["--quiet", "--log", "warn"]);
    let deposit = r#"{"kind":"deposit","customer":"7","transaction":"1","amount":"10"}"#;
    assert_eq!(service.client().submit(deposit).status, 200);
    let mut client = service.client();
    let payment = std::thread::spawn(move || {
        client.submit(r#"{"kind":"withdrawal","customer":"7","transaction":"2","amount":"4"}"#).status
    });
    let (mut call, _) = rail.accept().unwrap();
    let pending = service.client().get("/v1/pending").json();
    let event = pending["items"][0]["event"].as_str().unwrap().to_owned();
    let settle = format!("/v1/pending/{event}/settle");
    let aborted = r#"{"as":"aborted","reason":"the bank's line is dead"}"#;
    assert_eq!(service.client().post(&settle, "application/json", aborted).status, 200);
    assert_eq!(payment.join().unwrap(), 422);
    let counted = || {
        let metrics = service.client().get("/metrics").text().to_owned();
        let count = metrics.lines().find_map(|line| line.strip_prefix("bursar_rail_contradictions_total "));
        count.unwrap_or_else(|| panic!("{metrics}")).parse::<u64>().unwrap()
    };
    assert_eq!(counted(), 0);
    call.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    while counted() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let log = service.stop();
    let line = log.lines().find(|line| line.contains("a rail contradicts what an operator has settled"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for part in [event.as_str(), "customer=7", "seq=2", "aborted", "payouts", "Done"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// Only a service calls rails. A request on the directory that went through one was begun, and the command waited for ever;
/// so did any request about a customer whose event waited.
#[test]
fn what_would_wait_for_a_rail_is_left_to_a_service() {
    let rail = TcpListener::bind("127.0.0.1:0").unwrap();
    let sandbox = ledger(rail.local_addr().unwrap(), "");
    let deposit = ["submit", "deposit", "7", "1", "10", "--output", "csv"];
    let told = sandbox.fails(2, &deposit);
    assert!(told.contains("error[needs_server]: a deposit goes through the rail charges"), "{told}");
    assert!(sandbox.fails(1, &["submit", "deposit", "7", "1", "0"]).contains("error[amount_not_positive]"));
    assert_eq!(sandbox.done(&["pending", "--output", "csv"]).lines().count(), 1);
    let text = sandbox.read("bursar-data/bursar.toml");
    sandbox.write("bursar-data/bursar.toml", text.replace("deposit = 'charges'\n", ""));
    assert!(sandbox.done(&deposit).contains("\napplied,7,1,"));
    sandbox.write("bursar-data/bursar.toml", &text);
    assert!(sandbox.done(&deposit).contains("\nalready_applied,7,1,"));
    // The rail takes the call and says nothing; then the service is gone.
    let service = Service::start(&sandbox, &["--quiet", "--log", "error"]);
    let mut client = service.client();
    let payment = std::thread::spawn(move || {
        let body = br#"{"kind":"withdrawal","customer":"7","transaction":"2","amount":"4"}"#;
        client.try_call("POST", "/v1/requests", "application/json", body).is_err()
    });
    let call = rail.accept().unwrap();
    drop(service);
    assert!(payment.join().unwrap());
    drop(call);
    for arguments in [&["submit", "dispute", "7", "1"][..], &["unlock", "7"]] {
        let told = sandbox.fails(2, arguments);
        assert!(told.contains("error[needs_server]: an event of customer 7 waits for the rail payouts"), "{told}");
    }
    let pending = sandbox.done(&["pending", "--output", "csv"]);
    let event = pending.lines().nth(1).and_then(|line| line.split(',').next()).unwrap();
    sandbox.done(&["settle", event, "--as", "aborted", "--reason", "the rail was never reached"]);
    assert!(sandbox.done(&["submit", "dispute", "7", "1", "--output", "csv"]).contains("\napplied,7,3,"));
}

/// No command goes past the rails, and nobody starts with settings that may mean something else.
#[test]
fn the_same_settings_count_for_every_command() {
    let first = Sandbox::new();
    let rail = RailServer::start(&first, "127.0.0.1:0", &["--hang-customer=7"]);
    let sandbox = ledger(rail.address, "");
    sandbox.write("in.csv", "type,client,tx,amount\ndeposit,7,1,10\n");
    for arguments in [&["ingest", "in.csv"][..], &["ingest", "in.csv", "--dry-run"]] {
        assert!(sandbox.fails(1, arguments).contains("error[open_events]"), "{arguments:?}");
    }
    assert_eq!(sandbox.done(&["accounts", "--output", "csv"]).lines().count(), 1);
    let text = sandbox.read("bursar-data/bursar.toml");
    sandbox.write("bursar-data/bursar.toml", text.replace("deposit = 'charges'\n", ""));
    sandbox.done(&["ingest", "in.csv", "--no-report", "--quiet"]);
    // A withdrawal waits; its rail is then no longer in the settings.
    let service = Service::start(&sandbox, &["--quiet", "--log", "error"]);
    let mut client = service.client();
    let body = r#"{"kind":"withdrawal","customer":"7","transaction":"2","amount":"4"}"#;
    let head = format!(
        "POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.raw((head + body).as_bytes()).unwrap();
    while service.client().get("/v1/pending").json()["items"].as_array().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(service);
    sandbox.write("bursar-data/bursar.toml", "");
    let service = Service::start(&sandbox, &["--quiet", "--log", "warn"]);
    let pending = service.client().get("/v1/pending").json();
    assert_eq!((field(&pending, "configured"), &pending["items"][0]["rail"]), (&json!(false), &json!(1)));
    let log = service.stop();
    assert!(log.contains("a rail that is not in bursar.toml"), "{log}");
    assert!(sandbox.done(&["pending", "--output", "csv"]).contains("1 (not in bursar.toml)"));
    for (text, said) in [
        ("[rails.a]\nnumbr = 1\n", "bursar.toml:2:1: unknown field `numbr`"),
        ("[routes]\nwithdrawal = 'a'\n", "bursar.toml:2:14: withdrawal is to go through the rail `a`"),
    ] {
        sandbox.write("bursar-data/bursar.toml", text);
        for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["accounts"], &["ingest", "in.csv"]] {
            let told = sandbox.fails(2, arguments);
            assert!(told.contains("error[bad_config]") && told.contains(said), "{arguments:?}: {told}");
        }
    }
    sandbox.write("other.toml", "");
    sandbox.done(&["accounts", "--config", "other.toml"]);
    assert!(sandbox.fails(2, &["accounts", "--config", "gone.toml"]).contains("error[bad_config]"));
}
