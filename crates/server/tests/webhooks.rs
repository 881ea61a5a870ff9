//! Webhooks, to real receivers on real ports: everything, in order, signed, until it is taken.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
#[path = "common/receiver.rs"]
mod receiver;

use bursar_core::{Currencies, Policy};
use bursar_engine::{Ledger, LedgerOptions, new_config};
use bursar_server::keys::{Key, KeyFile, KeySet, Role};
use bursar_server::webhooks::WebhookConfig;
use bursar_server::{Keys, Limits, Options, ServeError, Server};
use common::{TestServer, about, deposit, memory_ledger};
use receiver::{Received, Receiver, SECRET, hmac_sha256};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

fn webhook(name: &str, receiver: &Receiver, more: &str) -> WebhookConfig {
    let url = receiver.url();
    let fast = "retry_ms_min = 1\nretry_ms_max = 20\nfrom = \"beginning\"";
    toml::from_str(&format!("name = \"{name}\"\nurl = \"{url}\"\nsecret = \"{SECRET}\"\n{fast}\n{more}")).unwrap()
}

fn open(directory: &Path) -> Ledger {
    if directory.join("ledger.bursar").exists() {
        return Ledger::open(directory, LedgerOptions::default()).unwrap().0;
    }
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    Ledger::create(directory, &config, LedgerOptions::default()).unwrap()
}

fn ids(received: &[Received]) -> Vec<String> {
    received.iter().map(|received| received.id.clone()).collect()
}

fn one(server: &TestServer, name: &str) -> Value {
    let all = server.get("/v1/webhooks").json();
    all["items"].as_array().unwrap().iter().find(|item| item["name"] == name).unwrap().clone()
}

fn wait_until(server: &TestServer, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..6_000 {
        let webhook = one(server, name);
        if is_so(&webhook) {
            return webhook;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{}", one(server, name));
}

/// The receiver's own code, held against the test vectors of RFC 4231 (case 2) and of the standard.
#[test]
fn the_receiver_knows_how_to_check() {
    let mac = hmac_sha256(b"Jefe", b"what do ya want for nothing?");
    let number = |half: &[u8]| u128::from_be_bytes(half.try_into().unwrap());
    assert_eq!(number(&mac[..16]), 0x5bdc_c146_bf60_754e_6a04_2426_0895_75c7);
    assert_eq!(number(&mac[16..]), 0x5a00_3f08_9d27_3983_9dec_58b9_64ec_3843);
}

#[test]
fn every_event_comes_once_in_order_and_signed() {
    let receiver = Receiver::new();
    let server = TestServer::with_webhooks(memory_ledger(), vec![webhook("books", &receiver, "")]);
    let mut events = Vec::new();
    for id in 1..=30 {
        events.push(server.applied(&deposit(id % 3, id, "1"))["receipt"]["event"].clone());
    }
    server.applied(&about("dispute", 1, 1));
    let received = receiver.wait_for(31);
    for (received, event) in received.iter().zip(&events) {
        let message = received.json();
        assert_eq!(message["type"], "event.done");
        assert_eq!(message["data"]["event"], *event);
        assert_eq!(received.id, format!("{}_done", event.as_str().unwrap()));
        assert_eq!(message["timestamp"], message["data"]["time"]);
        // The event as the list has it, and where it is in the stream.
        let mut data = message["data"].clone();
        let position = data.as_object_mut().unwrap().remove("position").unwrap();
        let (customer, seq) = (data["customer"].as_str().unwrap(), data["seq"].as_u64().unwrap());
        let listed = server.get(&format!("/v1/customers/{customer}/events?order=oldest")).json();
        assert_eq!(listed["items"][seq as usize - 1], data);
        assert_eq!(server.get(&format!("/v1/events?follow=false&after={}", position.as_str().unwrap())).status, 200);
    }
    assert_eq!(received[30].json()["data"]["kind"], "dispute");
    let webhook = wait_until(&server, "books", |webhook| webhook["is_current"] == true);
    assert_eq!((&webhook["delivered"], &webhook["failed"]), (&json!(31), &json!(0)));
    assert!(!webhook.to_string().contains("hush"), "{webhook}");
    let deliveries = server.get("/v1/webhooks/books/deliveries?limit=2").json();
    assert_eq!(deliveries["items"][0]["event"], received[30].json()["data"]["event"]);
    assert_eq!(deliveries["items"].as_array().unwrap().len(), 2);
    let metrics = server.get("/metrics").text().to_owned();
    assert!(
        metrics.contains("bursar_webhook_deliveries_total{webhook=\"books\",outcome=\"delivered\"} 31"),
        "{metrics}"
    );
    assert!(metrics.contains("bursar_webhook_lag_seconds{webhook=\"books\"} 0"), "{metrics}");
}

#[test]
fn what_is_not_taken_is_sent_again_with_the_same_id_and_body_until_it_is() {
    // Errors, a redirect, no answer at all, before each third message is taken.
    let receiver = Receiver::with(|count, _| match count % 5 {
        0 => "500 Internal Server Error".to_owned(),
        1 => "302 Found\r\nLocation: http://127.0.0.1:1/".to_owned(),
        2 => String::new(),
        3 => "429 Too Many Requests\r\nRetry-After: 0".to_owned(),
        _ => "200 OK".to_owned(),
    });
    let server = TestServer::with_webhooks(memory_ledger(), vec![webhook("books", &receiver, "")]);
    for id in 1..=6 {
        server.applied(&deposit(1, id, "1"));
    }
    let received = receiver.wait_for(30);
    for (index, received) in received.iter().enumerate() {
        assert_eq!(received.transaction(), index as u64 / 5 + 1);
    }
    for same in received.chunks(5) {
        assert!(same.iter().all(|one| (&one.id, &one.body) == (&same[0].id, &same[0].body)));
    }
    let webhook = wait_until(&server, "books", |webhook| webhook["is_current"] == true);
    assert_eq!((&webhook["delivered"], &webhook["failed"]), (&json!(6), &json!(24)));
    assert_eq!(webhook["failures_in_a_row"], 0);
    assert!(webhook["last_failure"]["what"].as_str().unwrap().contains("429"));
}

#[test]
fn a_receiver_that_hangs_holds_nobody_up() {
    let hanging = Receiver::with(|_, _| {
        loop {
            std::thread::park();
        }
    });
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = Receiver::on(refusing.try_clone().unwrap(), |_, _| String::new());
    let good = Receiver::new();
    let webhooks = vec![
        webhook("hanging", &hanging, "timeout_ms = 100"),
        webhook("nobody", &nobody, ""),
        webhook("good", &good, "kinds = [\"deposit\"]\nstatuses = [\"done\"]"),
    ];
    let server = TestServer::with_webhooks(memory_ledger(), webhooks);
    for id in 1..=20 {
        server.applied(&deposit(1, id, "1"));
    }
    server.applied(&about("dispute", 1, 1));
    assert_eq!(good.wait_for(20).iter().map(Received::transaction).collect::<Vec<_>>(), (1..=20).collect::<Vec<u64>>());
    let webhook = wait_until(&server, "hanging", |webhook| webhook["failures_in_a_row"].as_u64() > Some(2));
    assert_eq!(webhook["is_current"], false);
    assert!(webhook["last_failure"]["what"].as_str().unwrap().contains("too long"), "{webhook}");
    assert!(webhook["next_attempt"].is_string() || webhook["failures_in_a_row"].as_u64() > Some(2));
    let first = server.get("/v1/customers/1/events?order=oldest&limit=1").json()["items"][0]["time"].clone();
    assert_eq!(webhook["oldest_undelivered"], first);
    assert_eq!(hanging.wait_for(1).iter().map(Received::transaction).max(), Some(1));
    wait_until(&server, "nobody", |webhook| webhook["failures_in_a_row"].as_u64() > Some(2));
    // Stopping does not wait for receivers that hang.
    server.stop().unwrap();
}

#[test]
fn gone_pauses_and_operators_pause_resume_and_send_again() {
    let receiver = Receiver::with(|count, _| if count == 2 { "410 Gone".to_owned() } else { "200 OK".to_owned() });
    let directory = tempfile::tempdir().unwrap();
    let webhooks = || vec![webhook("books", &receiver, "")];
    let server = TestServer::with_webhooks(open(directory.path()), webhooks());
    for id in 1..=5 {
        server.applied(&deposit(1, id, "1"));
    }
    let gone = wait_until(&server, "books", |webhook| webhook["paused"] == "gone");
    assert_eq!(receiver.received().len(), 3);
    assert_eq!(gone["is_current"], false);
    // That it is gone outlives the process.
    server.stop().unwrap();
    let server = TestServer::with_webhooks(open(directory.path()), webhooks());
    assert_eq!(one(&server, "books")["paused"], "gone");
    let resumed = server.client().post("/v1/webhooks/books/resume", "", "");
    assert_eq!((resumed.status, &resumed.json()["paused"]), (200, &Value::Null));
    let transactions = |received: &[Received]| received.iter().map(Received::transaction).collect::<Vec<_>>();
    assert_eq!(transactions(&receiver.wait_for(6)), [1, 2, 3, 3, 4, 5]);

    let paused = server.client().post("/v1/webhooks/books/pause", "", "");
    assert_eq!(paused.json()["paused"], "operator");
    server.applied(&deposit(1, 6, "1"));
    let resend = |body: &str| server.client().post("/v1/webhooks/books/resend", "application/json", body);
    // One event goes out by itself, also while the webhook is paused.
    assert_eq!(resend(r#"{"customer":"1","seq":2}"#).status, 202);
    let seventh = receiver.wait_for(7)[6].clone();
    assert_eq!(seventh.id, receiver.received()[1].id);
    let event = receiver.received()[0].json()["data"]["event"].as_str().unwrap().to_owned();
    assert_eq!(resend(&format!(r#"{{"event":"{event}"}}"#)).problem().1, "nothing_to_resend", "of an earlier run");
    let event = receiver.received()[5].json()["data"]["event"].as_str().unwrap().to_owned();
    assert_eq!(resend(&format!(r#"{{"event":"{event}"}}"#)).status, 202);
    assert_eq!(receiver.wait_for(8)[7].id, receiver.received()[5].id);

    // Everything behind the first, in order, with the same ids and bodies.
    let position = receiver.received()[0].json()["data"]["position"].as_str().unwrap().to_owned();
    assert_eq!(resend(&format!(r#"{{"after":"{position}"}}"#)).status, 202);
    server.client().post("/v1/webhooks/books/resume", "", "");
    let again = receiver.wait_for(13)[8..].to_vec();
    assert_eq!(transactions(&again), [2, 3, 4, 5, 6]);
    assert_eq!(again[0].body, receiver.received()[1].body);
    assert_eq!(resend(r#"{"after":"beginning"}"#).status, 202);
    assert_eq!(transactions(&receiver.wait_for(19)[13..]), [1, 2, 3, 4, 5, 6]);

    for (body, status, code) in [
        ("{}", 400, "bad_field"),
        (r#"{"after":"x"}"#, 400, "bad_position"),
        (r#"{"after":"latest","seq":1}"#, 400, "bad_field"),
        (r#"{"customer":"1"}"#, 400, "bad_field"),
        (r#"{"customer":"x","seq":1}"#, 400, "bad_id"),
        (r#"{"customer":"1","seq":99}"#, 404, "nothing_to_resend"),
        (r#"{"customer":"1","seq":0}"#, 404, "nothing_to_resend"),
        (r#"{"customer":"9","seq":1}"#, 404, "nothing_to_resend"),
        (r#"{"event":"x"}"#, 404, "nothing_to_resend"),
        (r#"{"x":1}"#, 400, "bad_field"),
        ("[", 400, "malformed_json"),
    ] {
        assert_eq!(resend(body).problem(), (status, code.to_owned()), "{body}");
    }
    for path in ["pause", "resume"] {
        let response = server.client().post(&format!("/v1/webhooks/other/{path}"), "", "");
        assert_eq!(response.problem(), (404, "unknown_webhook".to_owned()));
    }
    assert_eq!(server.get("/v1/webhooks/other/deliveries").problem().0, 404);
}

#[test]
fn a_new_webhook_begins_now_and_then_misses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    let webhooks = || vec![WebhookConfig { from: None, ..webhook("books", &receiver, "") }];
    let server = TestServer::of(open(directory.path()), None, Limits::default());
    server.applied(&deposit(1, 1, "1"));
    server.stop().unwrap();
    let server = TestServer::with_webhooks(open(directory.path()), webhooks());
    server.applied(&deposit(1, 2, "1"));
    receiver.wait_for(1);
    server.stop().unwrap();
    // Without it meanwhile.
    let server = TestServer::of(open(directory.path()), None, Limits::default());
    server.applied(&deposit(1, 3, "1"));
    server.stop().unwrap();
    let server = TestServer::with_webhooks(open(directory.path()), webhooks());
    server.applied(&deposit(1, 4, "1"));
    let received = receiver.wait_for(3);
    assert_eq!(received.iter().map(Received::transaction).collect::<Vec<_>>(), [2, 3, 4]);
    let unique: BTreeSet<String> = ids(&received).into_iter().collect();
    assert_eq!(unique.len(), 3, "stopped cleanly, nothing is sent twice");
}

/// Two services over stores that both reach would each go on where the other one is, if their places were the same files.
#[test]
fn a_directory_keeps_the_places_of_one_service() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    let start = || {
        let server = bind(directory.path(), vec![webhook("books", &receiver, "")]).unwrap();
        let server = server.with_directory(directory.path().join("places"));
        let (stopper, (ready, is_ready)) = (server.stopper(), std::sync::mpsc::channel());
        let run = move || {
            server.run(memory_ledger(), || {
                ready.send(()).unwrap();
                Ok(())
            })
        };
        (std::thread::spawn(run), is_ready, stopper)
    };
    for _ in 0..2 {
        let (running, is_ready, stopper) = start();
        is_ready.recv().unwrap();
        let (refused, is_ready, _) = start();
        let error = refused.join().unwrap().unwrap_err();
        assert!(matches!(&error, ServeError::Webhook(error) if error.name == "books"), "{error}");
        assert!(error.to_string().contains("another service") && error.to_string().contains("--data"), "{error}");
        assert!(is_ready.recv().is_err(), "it was never ready");
        stopper.stop();
        running.join().unwrap().unwrap();
        // A ledger in memory is another one each time, with places of its own.
        std::fs::remove_file(directory.path().join("places/webhook-books.json")).unwrap();
    }
}

fn bind(directory: &Path, webhooks: Vec<WebhookConfig>) -> Result<Server, ServeError> {
    let keys = Keys::File(KeyFile::of(directory));
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Server::bind(Options { listen, keys, limits: Limits::default(), heed_signals: false, webhooks })
}

#[test]
fn what_cannot_work_is_said_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::new();
    let twice = vec![webhook("a", &receiver, ""), webhook("a", &receiver, "")];
    let error = bind(directory.path(), twice).unwrap_err();
    assert!(matches!(&error, ServeError::Webhook(error) if error.name == "a"), "{error}");

    // A file that is damaged, and one of another ledger.
    let ledger = open(directory.path());
    ledger.submit(bursar_core::Request::unlock(bursar_core::CustomerId::new(1))).unwrap();
    let file = directory.path().join("webhook-a.json");
    std::fs::write(&file, "{").unwrap();
    let run = |ledger| {
        let server = bind(directory.path(), vec![webhook("a", &receiver, "")]).unwrap();
        server.run(ledger, || panic!("it must not serve")).unwrap_err().to_string()
    };
    let error = run(ledger);
    assert!(error.contains("damaged") && error.contains("webhook-a.json"), "{error}");
    std::fs::remove_file(&file).unwrap();
    let other = tempfile::tempdir().unwrap();
    let server = TestServer::with_webhooks(open(other.path()), vec![webhook("a", &receiver, "")]);
    server.applied(&deposit(1, 1, "1"));
    receiver.wait_for(1);
    server.stop().unwrap();
    std::fs::copy(other.path().join("webhook-a.json"), &file).unwrap();
    let error = run(open(directory.path()));
    assert!(error.contains("no place in this ledger"), "{error}");
}

#[test]
fn only_operators_change_webhooks() {
    let mut set = KeySet::default();
    let keys = Role::ALL.map(|role| {
        let key = Key::generate().unwrap();
        set.add(key.entry(role.name(), role, String::new()));
        key.reveal()
    });
    let server = TestServer::of(memory_ledger(), Some(set), Limits::default());
    for (key, role) in keys.iter().zip(Role::ALL) {
        for path in ["pause", "resume", "resend"] {
            let response =
                server.client().with_key(key).post(&format!("/v1/webhooks/x/{path}"), "application/json", "{}");
            let expected = if role == Role::Operate { 404 } else { 403 };
            assert_eq!(response.status, expected, "{path} {role:?}");
        }
        assert_eq!(server.client().with_key(key).get("/v1/webhooks").status, 200);
    }
    assert_eq!(server.get("/v1/webhooks").status, 401);
}
