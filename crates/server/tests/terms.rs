//! Terms of requests over HTTP: keys, conditions and dry runs.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_core::commit::{RailAnswer, RailCall, Routes};
use bursar_core::{Currencies, Policy, RailId};
use bursar_engine::{Ledger, LedgerOptions, Rail, RailReply, new_config};
use bursar_server::Limits;
use common::{TestServer, about, deposit, two_currencies, unlock, withdrawal};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, mpsc};

/// What a submission with these headers is answered: the status, and the body.
fn submit(server: &TestServer, header: Option<&str>, json: &str) -> (u16, Value) {
    let mut client = server.client();
    if let Some(key) = header {
        client = client.with(format!("Idempotency-Key: {key}"));
    }
    let answer = client.submit(json);
    (answer.status, answer.json())
}

/// The status and the outcome or code.
fn outcome(answer: &(u16, Value)) -> (u16, &str) {
    let (status, body) = answer;
    (*status, body["outcome"].as_str().or(body["code"].as_str()).unwrap())
}

#[test]
fn the_same_key_takes_effect_once() {
    let server = TestServer::new();
    server.applied(&deposit(1, 1, "5"));
    server.applied(&deposit(1, 2, "5"));
    server.applied(&deposit(2, 3, "5"));
    let first = submit(&server, Some("\"case 17\""), &about("dispute", 1, 1));
    assert_eq!(outcome(&first), (200, "applied"));
    // Meanwhile the dispute ends: without the key, asking again would open another.
    server.applied(&about("resolve", 1, 1));
    let again = submit(&server, Some("\"case 17\""), &about("dispute", 1, 1));
    assert_eq!(outcome(&again), (200, "already_applied"));
    assert_eq!(again.1["receipt"], first.1["receipt"], "the receipt of then");
    for (body, what) in [
        (about("dispute", 1, 2), "another transaction"),
        (about("dispute", 2, 3), "another customer"),
        (about("resolve", 1, 1), "another kind"),
        (r#"{"kind":"dispute","customer":"1","transaction":"1","amount":"4"}"#.to_owned(), "another amount"),
    ] {
        let answer = submit(&server, Some("\"case 17\""), &body);
        assert_eq!(outcome(&answer), (422, "idempotency_key_reused"), "{what}");
        assert_eq!(answer.1["figures"], json!({"customer": "1", "seq": 3}), "{what}");
    }
    // Another key is another request.
    assert_eq!(outcome(&submit(&server, Some("case-18"), &about("dispute", 1, 1))), (200, "applied"));
    assert_eq!(outcome(&submit(&server, Some("\"case-18\""), &about("dispute", 1, 1))), (200, "already_applied"));
    let in_body = r#"{"kind":"dispute","customer":"1","transaction":"1","idempotency_key":"case-18"}"#;
    assert_eq!(outcome(&submit(&server, None, in_body)), (200, "already_applied"));
    server.stop().unwrap();
}

#[test]
fn a_key_is_refused_where_it_cannot_be_one() {
    let server = TestServer::new();
    server.applied(&deposit(1, 1, "5"));
    for key in ["", "\"", "\"a\"b\"", "a b", "\"a\"; x", "\u{e9}"] {
        assert_eq!(
            outcome(&submit(&server, Some(key), &about("dispute", 1, 1))),
            (400, "bad_idempotency_key"),
            "{key}"
        );
    }
    let long = "x".repeat(256);
    assert_eq!(outcome(&submit(&server, Some(&long), &about("dispute", 1, 1))), (400, "bad_idempotency_key"));
    let two = server.client().with("Idempotency-Key: a").with("Idempotency-Key: a").submit(&about("dispute", 1, 1));
    assert_eq!(two.problem(), (400, "bad_idempotency_key".to_owned()));
    let both = r#"{"kind":"dispute","customer":"1","transaction":"1","idempotency_key":"a"}"#;
    assert_eq!(outcome(&submit(&server, Some("a"), both)), (400, "bad_idempotency_key"));
    for body in [deposit(1, 1, "5"), withdrawal(1, 2, "1")] {
        assert_eq!(outcome(&submit(&server, Some("a"), &body)), (400, "idempotency_key_not_allowed"));
    }
    // What was refused has used up nothing.
    assert_eq!(outcome(&submit(&server, Some("a"), &about("resolve", 1, 1))), (422, "not_disputed"));
    assert_eq!(outcome(&submit(&server, Some("a"), &about("dispute", 1, 1))), (200, "applied"));
    assert_eq!(outcome(&submit(&server, Some("a"), &unlock(1))), (422, "idempotency_key_reused"));
    server.stop().unwrap();
}

#[test]
fn conditions_refuse_with_figures() {
    let server = TestServer::new();
    let with = |body: &str, terms: &str| format!("{},{terms}}}", body.strip_suffix('}').unwrap());
    let first = submit(&server, None, &with(&deposit(1, 1, "5"), r#""expected_seq":0"#));
    assert_eq!(outcome(&first), (200, "applied"));
    let late = submit(&server, None, &with(&withdrawal(1, 2, "1"), r#""expected_seq":0"#));
    assert_eq!(outcome(&late), (422, "seq_mismatch"));
    assert_eq!(late.1["figures"], json!({"expected_seq": 0, "seq": 1}));
    let right = with(&withdrawal(1, 2, "1"), r#""expected_seq":1"#);
    assert_eq!(outcome(&submit(&server, None, &right)), (200, "applied"));
    assert_eq!(
        outcome(&submit(&server, None, &right)),
        (200, "already_applied"),
        "the condition is that of the change"
    );
    let low = submit(&server, None, &with(&withdrawal(1, 3, "3"), r#""minimum_available":"1.5""#));
    assert_eq!(outcome(&low), (422, "below_minimum"));
    assert_eq!(low.1["figures"], json!({"minimum": "1.5000", "available": "1.0000"}));
    let enough = with(&withdrawal(1, 3, "3"), r#""minimum_available":"1""#);
    assert_eq!(outcome(&submit(&server, None, &enough)), (200, "applied"));
    let dispute = with(&about("dispute", 1, 1), r#""minimum_available":"-4""#);
    assert_eq!(outcome(&submit(&server, None, &dispute)), (200, "applied"));
    server.stop().unwrap();

    let server = TestServer::of(two_currencies(), None, Limits::default());
    let missing = with(&about("dispute", 1, 1), r#""minimum_available":"1""#);
    assert_eq!(outcome(&submit(&server, None, &missing)), (400, "missing_currency"));
    server.stop().unwrap();
}

#[test]
fn a_dry_run_does_nothing() {
    let server = TestServer::new();
    server.applied(&deposit(1, 1, "5"));
    let run = |body: &str| {
        let answer = server.client().post("/v1/requests?dry_run=true", "application/json", body);
        (answer.status, answer.json())
    };
    let answer = run(&withdrawal(1, 2, "2"));
    let would = json!({
        "outcome": "would_apply",
        "would": {"customer": "1", "seq": 2, "available": "3.0000", "held": "0.0000", "total": "3.0000", "locked": false},
    });
    assert_eq!(answer, (200, would.clone()));
    assert_eq!(run(&withdrawal(1, 2, "2")), (200, would), "nothing was done");
    assert_eq!(outcome(&run(&withdrawal(1, 2, "6"))), (422, "insufficient_funds"));
    assert_eq!(outcome(&run(&deposit(1, 1, "5"))), (200, "already_applied"));
    assert_eq!(
        outcome(&run(r#"{"kind":"dispute","customer":"1","transaction":"1","expected_seq":2}"#)),
        (422, "seq_mismatch")
    );
    assert_eq!(outcome(&run("{")), (400, "malformed_json"));
    let seq = server.get("/v1/customers/1").json()["seq"].clone();
    assert_eq!(seq, json!(1));
    server.applied(&withdrawal(1, 2, "2"));
    for query in ["?dry_run=1", "?dry_run=true&dry_run=true", "?dry=true"] {
        let answer = server.client().post(&format!("/v1/requests{query}"), "application/json", deposit(1, 9, "1"));
        assert_eq!(answer.problem(), (400, "bad_parameter".to_owned()), "{query}");
    }
    server.stop().unwrap();
}

#[test]
fn lines_of_a_batch_have_terms() {
    let server = TestServer::new();
    let lines = [
        deposit(1, 1, "5"),
        r#"{"kind":"dispute","customer":"1","transaction":"1","idempotency_key":"a"}"#.to_owned(),
        r#"{"kind":"dispute","customer":"1","transaction":"1","idempotency_key":"a"}"#.to_owned(),
        r#"{"kind":"resolve","customer":"1","transaction":"1","expected_seq":1}"#.to_owned(),
        r#"{"kind":"resolve","customer":"1","transaction":"1","minimum_available":"5"}"#.to_owned(),
        r#"{"kind":"withdrawal","customer":"1","transaction":"2","amount":"1","minimum_available":"4.5"}"#.to_owned(),
        r#"{"kind":"dispute","customer":"1","transaction":"1","idempotency_key":""}"#.to_owned(),
    ];
    let answer = server.client().post("/v1/batches", "application/x-ndjson", lines.join("\n"));
    let answered = answer.lines();
    let told: Vec<_> = answered[..7]
        .iter()
        .map(|line| line["code"].as_str().or(line["outcome"].as_str()).unwrap().to_owned())
        .collect();
    let expected =
        ["applied", "applied", "already_applied", "seq_mismatch", "applied", "below_minimum", "bad_idempotency_key"];
    assert_eq!(told, expected);
    assert_eq!(answered[2]["receipt"], answered[1]["receipt"]);
    assert_eq!(answered[5]["figures"], json!({"minimum": "4.5000", "available": "4.0000"}));
    server.stop().unwrap();
}

/// A rail that says nothing until it is asked to.
#[derive(Debug)]
struct Silent(Mutex<mpsc::Sender<RailReply>>);

impl Rail for Silent {
    fn call(&self, _: RailCall, reply: RailReply) {
        self.0.lock().unwrap().send(reply).unwrap();
    }
}

/// While a request with a key waits for its customer's rail, the same one hears that it does; afterwards, what came of
/// it.
#[test]
fn a_key_that_waits_for_a_rail_is_in_progress() {
    let (called, calls) = mpsc::channel();
    let rail = RailId::new(1).unwrap();
    let options = LedgerOptions {
        routes: Routes { deposit: None, withdrawal: Some(rail) },
        ..LedgerOptions::default().with_rail(rail, Arc::new(Silent(Mutex::new(called))))
    };
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let server = TestServer::of(Ledger::in_memory(&config, options).unwrap(), None, Limits::default());
    server.applied(&deposit(1, 1, "5"));
    let dispute = about("dispute", 1, 1);
    std::thread::scope(|scope| {
        let paid = scope.spawn(|| submit(&server, None, &withdrawal(1, 2, "1")));
        let reply = calls.recv().unwrap();
        let (answered, answers) = mpsc::channel();
        for _ in 0..2 {
            let (answered, server, dispute) = (answered.clone(), &server, &dispute);
            scope.spawn(move || answered.send(submit(server, Some("a"), dispute)).unwrap());
        }
        // Whichever is decided first waits for the rail; the other is told so at once.
        assert_eq!(outcome(&answers.recv().unwrap()), (409, "request_in_progress"));
        reply.answer(RailAnswer::Done);
        assert_eq!(outcome(&answers.recv().unwrap()), (200, "applied"));
        assert_eq!(outcome(&paid.join().unwrap()), (200, "applied"));
    });
    assert_eq!(outcome(&submit(&server, Some("a"), &dispute)), (200, "already_applied"));
    server.stop().unwrap();
}
