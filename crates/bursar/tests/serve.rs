//! `bursar serve` and `bursar key`: the real binary on a real port, killed, stopped, and started wrongly.
//!
//! The kill test takes the page cache along, as every kill does: that an answer is sent only after its sync is what the
//! engine's own tests of power cuts show. What this one shows is that no answer is sent before its event is in the
//! ledger, and that a client that repeats what was not answered moves its money once.
//!
//! `BURSAR_SERVE_KILLS=200 cargo test --release -p bursar --test serve` kills more often than the default.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

#[path = "../../server/tests/common/client.rs"]
mod client;
mod common;
#[path = "../../server/tests/common/receiver.rs"]
mod receiver;
#[path = "common/service.rs"]
mod service;
#[path = "common/stream.rs"]
mod stream;

use client::Client;
use common::{Random, Sandbox, code, stderr, stdout};
use receiver::{Received, Receiver, SECRET};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use service::Service;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use stream::follow;

const KILLS: u32 = 12;
const CUSTOMERS: u64 = 5;

fn ledger() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.done(&["init", "--quiet"]);
    sandbox
}

fn deposit(id: u64) -> String {
    let customer = id % CUSTOMERS;
    format!(r#"{{"kind":"deposit","customer":"{customer}","transaction":"{id}","amount":"1"}}"#)
}

/// What clients were told, and what they asked for.
#[derive(Default)]
struct Told {
    /// Receipts, by transaction.
    receipts: BTreeMap<u64, Value>,
    asked: Vec<u64>,
    /// An answer began and did not come to its end.
    torn: u64,
    /// Single requests that were not answered at all.
    unanswered: Vec<u64>,
}

/// How far clients and whoever ends the service are.
#[derive(Default)]
struct SoFar {
    is_over: AtomicBool,
    /// Somebody was told that something was applied.
    answered: AtomicBool,
}

/// Submits until the service is gone, one after the other; every third client as a batch without end.
fn submit_until_gone(address: SocketAddr, next: &AtomicU64, as_batch: bool, so_far: &SoFar) -> Told {
    let mut told = Told::default();
    let answered_one = || so_far.answered.store(true, Ordering::Relaxed);
    let take = |told: &mut Told| {
        let id = next.fetch_add(1, Ordering::Relaxed);
        told.asked.push(id);
        id
    };
    let mut client = Client::connect(address);
    if as_batch {
        client.begin("/v1/batches", "application/x-ndjson");
        if client.head_of_answer().is_err() {
            return told;
        }
        loop {
            let ids: Vec<u64> = (0..20).map(|_| take(&mut told)).collect();
            let rows: String = ids.iter().map(|id| deposit(*id) + "\n").collect();
            if client.chunk(rows.as_bytes()).is_err() {
                return told;
            }
            let mut answered = 0;
            while answered < ids.len() {
                let Ok(Some(chunk)) = client.next_chunk() else { return told };
                // A chunk is lines, and all of them whole.
                for line in std::str::from_utf8(&chunk).unwrap().lines() {
                    let line: Value = serde_json::from_str(line).unwrap();
                    if let Some(problem) = line.get("problem") {
                        assert_eq!(problem["code"], "stopping");
                        return told;
                    }
                    if line["outcome"] == "applied" {
                        told.receipts.insert(ids[answered], line["receipt"].clone());
                        answered_one();
                    }
                    answered += 1;
                }
            }
        }
    }
    while !so_far.is_over.load(Ordering::Relaxed) {
        let id = take(&mut told);
        let body = deposit(id);
        let length = body.len();
        let request = format!(
            "POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let Ok(head) = client.raw(request.as_bytes()).and_then(|()| client.head_of_answer()) else {
            told.unanswered.push(id);
            return told;
        };
        match client.rest(head) {
            Ok(response) if response.status == 200 => {
                told.receipts.insert(id, response.json()["receipt"].clone());
                answered_one();
            }
            Ok(response) => assert_eq!(response.status, 503, "{}", response.text()),
            Err(_) => {
                told.torn += 1;
                return told;
            }
        }
    }
    told
}

/// Runs clients against a service until `end` has ended it, which begins once one of them was told something; gives what
/// they were told.
fn under_load(service: &Service, next: &AtomicU64, end: impl FnOnce()) -> Told {
    let so_far = SoFar::default();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|index| {
                let (address, so_far) = (service.address, &so_far);
                scope.spawn(move || submit_until_gone(address, next, index % 3 == 0, so_far))
            })
            .collect();
        while !so_far.answered.load(Ordering::Relaxed)
            && !clients.iter().all(std::thread::ScopedJoinHandle::is_finished)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        end();
        so_far.is_over.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for client in clients {
            let told = client.join().unwrap();
            all.receipts.extend(told.receipts);
            all.asked.extend(told.asked);
            all.torn += told.torn;
            all.unanswered.extend(told.unanswered);
        }
        all
    })
}

/// Checks every receipt against the chains, by way of their files and without the service's own word.
fn check_receipts(service: &Service, receipts: &BTreeMap<u64, Value>) {
    let mut hashes: BTreeMap<(String, u64), String> = BTreeMap::new();
    for customer in 0..CUSTOMERS {
        let file = service.client().get(&format!("/v1/customers/{customer}/chain"));
        if file.status == 404 {
            continue;
        }
        bursar_engine::chain_file::verify_chain_file(file.body.as_slice(), None).unwrap();
        for line in file.text().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if let (Some(seq), Some(hash)) = (line["seq"].as_u64(), line["hash"].as_str()) {
                hashes.insert((customer.to_string(), seq), hash.to_owned());
            }
        }
    }
    for (id, receipt) in receipts {
        let place = (receipt["customer"].as_str().unwrap().to_owned(), receipt["seq"].as_u64().unwrap());
        assert_eq!(hashes.get(&place).map(String::as_str), receipt["hash"].as_str(), "the receipt of {id} is lost");
    }
}

#[test]
fn what_was_acknowledged_before_a_kill_is_in_the_chains() {
    let kills = std::env::var("BURSAR_SERVE_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(KILLS);
    let sandbox = ledger();
    let next = AtomicU64::new(1);
    let mut random = Random(5);
    let (mut receipts, mut asked) = (BTreeMap::new(), Vec::new());
    for round in 0..kills {
        let mut service = Service::start(&sandbox, &["--quiet"]);
        // All of them, which takes the longer the more there are; what was lost once stays lost until the end.
        if round % 8 == 1 {
            check_receipts(&service, &receipts);
        }
        let pid = Pid::from_child(&service.child);
        let told = under_load(&service, &next, || {
            std::thread::sleep(Duration::from_micros(20_000 + random.below(150_000) as u64));
            kill_process(pid, Signal::KILL).unwrap();
        });
        assert_eq!(service.end().0, None);
        receipts.extend(told.receipts);
        asked.extend(told.asked);
    }
    assert!(receipts.len() as u32 >= kills, "the clients were told something: {}", receipts.len());
    let service = Service::start(&sandbox, &["--quiet"]);
    check_receipts(&service, &receipts);
    // What was not answered is asked again, as a client would: it takes effect once, whatever became of it then.
    let mut client = service.client();
    for id in &asked {
        let response = client.post("/v1/requests", "application/json", deposit(*id));
        let again = response.json();
        assert_eq!(response.status, 200, "{again}");
        if let Some(receipt) = receipts.get(id) {
            assert_eq!((&again["outcome"], &again["receipt"]), (&json!("already_applied"), receipt));
        }
    }
    let ledger = client.get("/v1/ledger").json();
    assert_eq!(ledger["transactions"], asked.len());
    assert_eq!(ledger["currencies"][0]["deposits"], format!("{}.0000", asked.len()));
    service.stop();
    sandbox.done(&["verify"]);
}

#[test]
fn a_stop_in_the_middle_loses_no_answer_and_tears_none() {
    let sandbox = ledger();
    let next = AtomicU64::new(1);
    let (mut receipts, mut unanswered) = (BTreeMap::new(), Vec::new());
    for round in 0..6 {
        let mut service = Service::start(&sandbox, &[]);
        check_receipts(&service, &receipts);
        let pid = Pid::from_child(&service.child);
        let signal = if round % 2 == 0 { Signal::TERM } else { Signal::INT };
        let told = under_load(&service, &next, || {
            std::thread::sleep(Duration::from_millis(60));
            kill_process(pid, signal).unwrap();
        });
        let (exit, log) = service.end();
        assert_eq!(exit, Some(0), "{log}");
        assert!(log.contains("stopped") && !log.contains("ERROR"), "{log}");
        assert_eq!(told.torn, 0, "an answer began and was not finished");
        assert!(!told.receipts.is_empty());
        receipts.extend(told.receipts);
        unanswered.extend(told.unanswered);
    }
    let service = Service::start(&sandbox, &["--quiet"]);
    check_receipts(&service, &receipts);
    // What was decided was answered: a request that was cut off has left nothing behind.
    for id in unanswered {
        let found = service.client().get(&format!("/v1/transactions/{id}"));
        assert_eq!(found.status, 404, "{id} was decided and not answered");
    }
    service.stop();
    sandbox.done(&["verify"]);
}

#[test]
fn a_batch_under_way_is_told_that_the_service_stops() {
    let sandbox = ledger();
    for content_type in ["application/x-ndjson", "text/csv"] {
        let service = Service::start(&sandbox, &["--quiet"]);
        let mut client = service.client();
        client.begin("/v1/batches", content_type);
        let rows = if content_type == "text/csv" {
            "type,client,tx,amount\ndeposit,1,2,1\n".to_owned()
        } else {
            deposit(1) + "\n"
        };
        client.chunk(rows.as_bytes()).unwrap();
        let head = client.head_of_answer().unwrap();
        client.next_chunk().unwrap().unwrap();
        service.signal(Signal::TERM);
        let rest = client.rest(head).unwrap().lines();
        assert_eq!(rest.len(), 1, "{rest:?}");
        assert_eq!((&rest[0]["problem"]["code"], &rest[0]["summary"]["applied"]), (&json!("stopping"), &json!(1)));
        service.stop();
    }
}

/// A client that is still sending when the service stops used to lose answers: the connection was closed over what it
/// had sent, and reset.
#[test]
fn a_batch_that_is_still_being_sent_hears_its_end() {
    let sandbox = ledger();
    for round in 0..6 {
        let content_type = ["application/x-ndjson", "text/csv"][round % 2];
        let service = Service::start(&sandbox, &["--quiet"]);
        let mut client = service.client();
        client.begin("/v1/batches", content_type);
        let mut stream = client.stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            let mut rows =
                if content_type == "text/csv" { "type,client,tx,amount\n".to_owned() } else { String::new() };
            for id in 1_u64.. {
                if content_type == "text/csv" {
                    rows += "deposit,1,1,1\n";
                } else {
                    rows += &deposit(id);
                    rows += "\n";
                }
                if id % 100 == 0 {
                    let chunk = format!("{:x}\r\n{rows}\r\n", rows.len());
                    if stream.write_all(chunk.as_bytes()).is_err() {
                        return;
                    }
                    rows.clear();
                }
            }
        });
        let head = client.head_of_answer().unwrap();
        for _ in 0..20 {
            client.next_chunk().unwrap().unwrap();
        }
        service.signal(Signal::TERM);
        // Answers pile up that the client has not read when the service comes to its end.
        std::thread::sleep(Duration::from_millis(300));
        let rest = client.rest(head).unwrap().lines();
        assert_eq!(rest.last().unwrap()["problem"]["code"], "stopping", "round {round}");
        drop(client);
        service.stop();
        sending.join().unwrap();
    }
}

#[test]
fn what_cannot_be_served_says_why_with_its_exit_code() {
    let sandbox = ledger();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["serve", "--listen", &taken], 5, "error[cannot_serve]"),
        (&["serve", "--listen", "0.0.0.0:0"], 2, "error[keys_needed]"),
        (&["serve", "--listen", "127.0.0.1:0", "--data", "nowhere"], 3, "error[no_ledger]"),
        (&["key", "list", "--data", "nowhere"], 3, "error[no_ledger]"),
        (&["key", "revoke", "0123456789ab"], 1, "error[unknown_key]"),
    ];
    for (arguments, exit, said) in cases {
        let text = sandbox.fails(*exit, arguments);
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
    let service = Service::start(&sandbox, &["--quiet"]);
    let text = sandbox.fails(3, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(text.contains("error[in_use]"), "{text}");
    service.stop();

    sandbox.done(&["key", "create", "--name", "x", "--role", "read", "--quiet"]);
    let path = sandbox.path("bursar-data").join("keys.json");
    let good = std::fs::read(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
    assert!(sandbox.fails(3, &["serve", "--listen", "127.0.0.1:0"]).contains("error[keys_open]"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["key", "list"]] {
        assert!(sandbox.fails(3, arguments).contains("error[keys_damaged]"));
    }
}

#[test]
fn keys_are_shown_once_listed_and_revoked() {
    let sandbox = ledger();
    let made = sandbox.run(&["key", "create", "--name", "the shop", "--role", "submit"]);
    assert_eq!(code(&made), 0);
    let (key, note) = (stdout(&made).trim().to_owned(), stderr(&made));
    let id = key.split('_').nth(1).unwrap().to_owned();
    let secret = key.split('_').nth(2).unwrap().to_owned();
    assert!(note.contains(&id) && !note.contains(&secret), "{note}");
    // From here on nobody is let in without one, which whoever makes it should know; the second changes nothing.
    assert!(note.contains("the ledger's first key"), "{note}");
    let second = sandbox.run(&["key", "create", "--name", "another", "--role", "read"]);
    assert!(!stderr(&second).contains("first key"));
    sandbox.done(&["key", "revoke", stdout(&second).split('_').nth(1).unwrap()]);
    let list = sandbox.done(&["key", "list", "--output", "csv"]);
    assert!(list.starts_with("id,name,role,created\n") && list.contains(&format!("\n{id},the shop,submit,")), "{list}");
    assert!(!list.contains(&secret));

    let mut service = Service::start(&sandbox, &["--log", "debug"]);
    assert_eq!(service.client().get("/v1/ledger").status, 401);
    assert_eq!(service.client().with_key(&key).get("/v1/ledger").status, 200);
    assert_eq!(service.client().with_key(&(key.clone() + "0")).get("/v1/ledger").status, 401);
    // While it runs: the list is not the ledger's, and changes count.
    sandbox.done(&["key", "revoke", &id]);
    while service.client().with_key(&key).get("/v1/ledger").status != 401 {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(sandbox.done(&["key", "list", "--output", "csv"]), "id,name,role,created\n");
    service.signal(Signal::TERM);
    let (exit, log) = service.end();
    assert_eq!(exit, Some(0));
    assert!(log.contains("/v1/ledger") && log.contains("401"), "{log}");
    assert!(!log.contains(&secret), "a secret is in the log");
    // The ledger does not mind the list in its directory.
    sandbox.done(&["verify"]);
    sandbox.done(&["info"]);
    assert!(sandbox.path("bursar-data").join("keys.json").exists());
}

#[test]
fn a_ledger_can_be_tried_out_with_what_is_printed() {
    let sandbox = Sandbox::new();
    let mut service = Service::start(&sandbox, &["--dev", "--log", "error"]);
    service.signal(Signal::TERM);
    let (exit, text) = service.end();
    assert_eq!(exit, Some(0), "{text}");
    let key = text.lines().find_map(|line| line.trim().strip_prefix("export KEY=")).unwrap();
    assert!(key.starts_with("bursar_") && text.contains("curl -H"), "{text}");
    assert!(!sandbox.path("bursar-data").exists(), "it leaves nothing behind");

    let service = Service::start(&sandbox, &["--dev", "--quiet", "--log", "error"]);
    assert_eq!(service.client().get("/v1/ledger").status, 401);
    assert_eq!(service.client().get("/readyz").status, 200);
    assert_eq!(service.stop(), "");
}

/// The certificate is signed by an authority that no system trusts.
#[test]
fn a_server_is_trusted_by_the_authority_that_is_named() {
    let tls_file = |name: &str| format!("{}/../server/tests/tls-files/{name}", env!("CARGO_MANIFEST_DIR"));
    let [certificate, key, authority, other] =
        ["here.cert.pem", "here.key.pem", "authority.cert.pem", "other.cert.pem"].map(tls_file);
    let sandbox = ledger();
    let service = Service::start(&sandbox, &["--tls-cert", &certificate, "--tls-key", &key]);
    let url = format!("https://localhost:{}", service.address.port());
    let account = ["account", "1", "--server", &url];
    sandbox.done(&["submit", "deposit", "1", "77", "5", "--server", &url, "--ca-file", &authority]);
    for more in [&[][..], &["--ca-file", &other]] {
        let said = sandbox.fails(6, &[&account[..], more].concat());
        assert!(said.contains("UnknownIssuer"), "{said}");
    }
    let by_environment = sandbox.command(&account).env("BURSAR_CA_FILE", &authority).output().unwrap();
    assert!(stdout(&by_environment).contains('5'), "{}", stderr(&by_environment));
    sandbox.write("none.pem", "not a certificate\n");
    let said = sandbox.fails(2, &[&account[..], &["--ca-file", "none.pem"]].concat());
    assert!(said.contains("no certificate"), "{said}");
    let said = sandbox.fails(5, &[&account[..], &["--ca-file", "gone.pem"]].concat());
    assert!(said.contains("gone.pem"), "{said}");
    service.stop();
}

#[test]
fn logs_are_json_lines_if_asked_for() {
    let sandbox = ledger();
    let service = Service::start(&sandbox, &["--quiet", "--log", "debug", "--log-format", "json"]);
    service.client().with("X-Request-Id: mine-1").get("/v1/customers/7");
    let log = service.stop();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found = lines.iter().find(|line| line["request_id"] == "mine-1").unwrap();
    assert_eq!(
        (&found["status"], &found["code"], &found["path"]),
        (&json!(404), &json!("unknown_customer"), &json!("/v1/customers/{customer}"))
    );
}

/// The chain is the outbox: whatever a kill interrupts, a webhook leaves no event out and keeps their order, and a stream
/// that goes on where it was repeats nothing either.
#[test]
fn kills_leave_no_gap_in_webhooks_and_streams() {
    let kills = std::env::var("BURSAR_SERVE_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(KILLS);
    let sandbox = ledger();
    // Now and then it refuses for a while, so that most kills come between two attempts.
    let receiver = Receiver::with(|count, _| match count % 50 {
        0..10 => "503 Service Unavailable".to_owned(),
        _ => "200 OK".to_owned(),
    });
    let config = format!(
        "[[webhooks]]\nname = \"books\"\nurl = \"{}\"\nsecret = \"{SECRET}\"\nfrom = \"beginning\"\nretry_ms_min = 5\nretry_ms_max = 10\n",
        receiver.url()
    );
    sandbox.write("bursar-data/bursar.toml", &config);
    let next = AtomicU64::new(1);
    let mut random = Random(7);
    let (mut streamed, mut last_id) = (Vec::new(), String::new());
    for _ in 0..kills {
        let mut service = Service::start(&sandbox, &["--quiet"]);
        let (pid, address) = (Pid::from_child(&service.child), service.address);
        std::thread::scope(|scope| {
            let last_id = &mut last_id;
            let following = scope.spawn(move || follow(address, last_id, |_| false));
            under_load(&service, &next, || {
                std::thread::sleep(Duration::from_micros(20_000 + random.below(200_000) as u64));
                kill_process(pid, Signal::KILL).unwrap();
            });
            streamed.extend(following.join().unwrap());
        });
        assert_eq!(service.end().0, None);
    }
    let service = Service::start(&sandbox, &["--quiet"]);
    let count = service.client().get("/v1/ledger").json()["events"].as_u64().unwrap() as usize;
    let missing = count - streamed.len();
    streamed.extend(follow(service.address, &mut last_id, |seen| seen >= missing));
    let all = follow(service.address, &mut String::new(), |seen| seen >= count);
    assert_eq!(all.len(), count);
    assert!(count > 100, "{count}");
    assert!(streamed == all, "the stream has a gap or repeats something");

    let place = |id: &str| all.iter().position(|(_, known)| known == id);
    let places: BTreeMap<&str, usize> = all.iter().enumerate().map(|(index, (_, id))| (id.as_str(), index)).collect();
    assert_eq!(places.len(), count);
    let newest = all.last().unwrap().1.clone();
    while !receiver.received().iter().any(|received| received.taken && received.id == newest) {
        std::thread::sleep(Duration::from_millis(10));
    }
    // What was refused was not delivered.
    let received: Vec<Received> = receiver.received().into_iter().filter(|received| received.taken).collect();
    let mut reached = None;
    let (mut repeated, mut bodies) = (0, BTreeMap::new());
    for message in &received {
        let index = places[message.id.as_str()];
        let expected = reached.map_or(0, |reached: usize| reached + 1);
        assert!(index <= expected, "{index} comes before {expected}");
        repeated += usize::from(index < expected);
        reached = reached.max(Some(index));
        assert_eq!(*bodies.entry(&message.id).or_insert(&message.body), &message.body, "the same id, the same body");
    }
    assert_eq!(reached, place(&newest));
    println!("{count} events, {} deliveries, {repeated} of them again, {kills} kills", received.len());
    service.stop();
    sandbox.done(&["verify"]);
}

#[test]
fn a_configuration_that_says_nonsense_is_refused() {
    let sandbox = ledger();
    sandbox
        .write("bursar-data/bursar.toml", "[[webhooks]]\nname = \"a\"\nurl = \"ftp://x\"\nsecret = \"whsec_hush\"\n");
    let output = sandbox.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("error[bad_config]"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("hush"));
    // What others can read is warned of; here, a secret with which they could send events.
    let text = "[[webhooks]]\nname = \"a\"\nurl = \"http://127.0.0.1:1\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n";
    sandbox.write("bursar-data/bursar.toml", text);
    let warned = |mode| {
        let path = sandbox.path("bursar-data/bursar.toml");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        Service::start(&sandbox, &["--quiet", "--log", "warn"])
            .stop()
            .contains("holds a secret and can be read by others")
    };
    assert!(warned(0o644) && !warned(0o600));
    // Somewhere else, and not there.
    let output = sandbox.run(&["serve", "--listen", "127.0.0.1:0", "--config", "missing.toml"]);
    assert!(stderr(&output).contains("error[bad_config]"), "{}", stderr(&output));
}
