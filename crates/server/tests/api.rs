//! The interface: what is asked and what is answered.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_core::commit::{RailCall, Routes};
use bursar_core::{Amount, Currencies, CustomerId, Policy, RailId, Request, TransactionId};
use bursar_engine::chain_file::verify_chain_file;
use bursar_engine::{Ledger, LedgerOptions, Rail, RailReply, new_config};
use bursar_server::Limits;
use common::client::Client;
use common::{TestServer, about, deposit, two_currencies, unlock, withdrawal};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn a_request_is_answered_with_its_receipt() {
    let server = TestServer::new();
    let first = server.applied(&deposit(1, 7, "12.5"));
    assert_eq!(first["outcome"], "applied");
    let receipt = &first["receipt"];
    assert_eq!(receipt["customer"], "1");
    assert_eq!(receipt["seq"], 1);
    assert_eq!(receipt["available"], "12.5000");
    assert_eq!(receipt["held"], "0.0000");
    assert_eq!(receipt["total"], "12.5000");
    assert_eq!(receipt["locked"], false);
    assert!(receipt.get("currency").is_none());

    // A repeat tells what was told before, whatever came in between.
    server.applied(&deposit(1, 8, "1"));
    let again = server.applied(&deposit(1, 7, "12.50"));
    assert_eq!(again["outcome"], "already_applied");
    assert_eq!(&again["receipt"], receipt);

    let customer = server.get("/v1/customers/1").json();
    assert_eq!(customer["accounts"], json!([{"available": "13.5000", "held": "0.0000", "total": "13.5000"}]));
    assert_eq!(
        (&customer["seq"], &customer["locked"], &customer["open_events"]),
        (&json!(2), &json!(false), &json!(0))
    );
}

#[test]
fn a_refusal_is_422_with_the_rules_own_code_and_figures() {
    let server = TestServer::new();
    server.applied(&deposit(1, 1, "10"));
    server.applied(&deposit(3, 3, "10"));
    for kind in ["dispute", "chargeback"] {
        server.applied(&about(kind, 3, 3));
    }
    let table = [
        (deposit(1, 2, "0"), "amount_not_positive", json!({"asked": "0.0000"})),
        (unlock(9), "unknown_customer", Value::Null),
        (about("dispute", 1, 99), "unknown_transaction", Value::Null),
        (about("dispute", 2, 1), "other_customer", Value::Null),
        (
            deposit(1, 1, "11"),
            "transaction_id_taken",
            json!({"existing": {"customer": "1", "kind": "deposit", "amount": "10.0000", "state": "posted"}}),
        ),
        (
            r#"{"kind":"dispute","customer":"1","transaction":"1","amount":"5"}"#.to_owned(),
            "amount_mismatch",
            json!({"asked": "5.0000", "amount": "10.0000"}),
        ),
        (deposit(3, 30, "1"), "customer_locked", json!({"policy": "nothing"})),
        (about("resolve", 1, 1), "not_disputed", Value::Null),
        (unlock(1), "not_locked", Value::Null),
        (withdrawal(1, 5, "10.0001"), "insufficient_funds", json!({"asked": "10.0001", "available": "10.0000"})),
    ];
    for (request, code, figures) in table {
        let response = server.submit(&request);
        assert_eq!(response.problem(), (422, code.to_owned()), "{request}");
        assert_eq!(response.json()["figures"], figures, "{request}");
        let explained = server.get(&format!("/problems/{code}"));
        assert_eq!(explained.status, 200, "{code}");
    }
    // Nothing moved, and the id of what was refused is not used up.
    server.applied(&withdrawal(1, 5, "10"));
}

#[test]
fn what_says_nothing_is_400_and_says_where() {
    let server = TestServer::new();
    let table = [
        ("", "malformed_json", Value::Null, Value::Null),
        ("{", "malformed_json", Value::Null, Value::Null),
        (r#"{"kind":"unlock","customer":"1"}{}"#, "malformed_json", Value::Null, Value::Null),
        (r#"{"kind":"unlock","customer":1}"#, "bad_field", Value::Null, Value::Null),
        (r#"{"kind":"unlock","customer":"1","x":"1"}"#, "bad_field", Value::Null, Value::Null),
        (r#"{"kind":"unlock","customer":"1","kind":"unlock"}"#, "bad_field", Value::Null, Value::Null),
        (r#"{"kind":"refund","customer":"1"}"#, "unknown_kind", json!("kind"), Value::Null),
        (r#"{"kind":"unlock","customer":"12x"}"#, "bad_id", json!("customer"), json!(2)),
        (r#"{"kind":"dispute","customer":"1"}"#, "too_few_fields", json!("transaction"), Value::Null),
        (
            r#"{"kind":"deposit","customer":"1","transaction":"1","amount":"1.00001"}"#,
            "bad_amount",
            json!("amount"),
            json!(6),
        ),
        (
            r#"{"kind":"deposit","customer":"1","transaction":"1","amount":"1","currency":"EUR"}"#,
            "unknown_currency",
            json!("currency"),
            Value::Null,
        ),
    ];
    for (body, code, field, at) in table {
        let response = server.submit(body);
        assert_eq!(response.problem(), (400, code.to_owned()), "{body}");
        let document = response.json();
        assert_eq!((&document["field"], &document["at"]), (&field, &at), "{body}");
    }
    assert_eq!(server.get("/v1/ledger").json()["events"], 0);
}

#[test]
fn a_ledger_of_several_currencies_names_them() {
    let server = TestServer::of(two_currencies(), None, Limits::default());
    let euros = r#"{"kind":"deposit","customer":"1","transaction":"1","amount":"2.50","currency":"EUR"}"#;
    let yen = r#"{"kind":"deposit","customer":"1","transaction":"2","amount":"300","currency":"JPY"}"#;
    assert_eq!(server.applied(euros)["receipt"]["currency"], "EUR");
    assert_eq!(server.applied(yen)["receipt"]["available"], "300");
    let more = r#"{"kind":"withdrawal","customer":"1","transaction":"3","amount":"3","currency":"EUR"}"#;
    let refused = server.submit(more);
    assert_eq!(refused.problem().1, "insufficient_funds");
    assert_eq!(refused.json()["figures"], json!({"currency": "EUR", "asked": "3.00", "available": "2.50"}));
    let accounts = server.get("/v1/customers/1").json()["accounts"].clone();
    assert_eq!(
        accounts,
        json!([
            {"currency": "EUR", "available": "2.50", "held": "0.00", "total": "2.50"},
            {"currency": "JPY", "available": "300", "held": "0", "total": "300"},
        ])
    );
    let ledger = server.get("/v1/ledger").json();
    assert_eq!(ledger["currencies"][1]["deposits"], "300");
    assert_eq!(ledger["currencies"][0]["total"], "2.50");
}

/// All items of a list, page by page; checks that no page is longer than asked for.
fn all_pages(server: &TestServer, path: &str, limit: usize) -> Vec<Value> {
    let mut client = server.client();
    let separator = if path.contains('?') { '&' } else { '?' };
    let mut page = client.get(&format!("{path}{separator}limit={limit}")).json();
    let list = path.split('?').next().unwrap();
    let mut items = Vec::new();
    loop {
        let found = page["items"].as_array().unwrap();
        assert!(found.len() <= limit);
        items.extend(found.iter().cloned());
        let Some(next) = page["next"].as_str() else { return items };
        page = client.get(&format!("{list}?limit={limit}&cursor={next}")).json();
    }
}

#[test]
fn customers_are_listed_in_order_page_by_page() {
    let server = TestServer::new();
    for customer in [5, 3, 9, 1, 7] {
        server.applied(&deposit(customer, customer, "1"));
    }
    for kind in ["dispute", "chargeback"] {
        server.applied(&about(kind, 9, 9));
        server.applied(&about(kind, 3, 3));
    }
    let ids = |path: &str, limit| {
        let customers = all_pages(&server, path, limit);
        customers.iter().map(|customer| customer["customer"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for limit in 1..7 {
        assert_eq!(ids("/v1/customers", limit), ["1", "3", "5", "7", "9"], "{limit}");
        assert_eq!(ids("/v1/customers?locked=true", limit), ["3", "9"], "{limit}");
        assert_eq!(ids("/v1/customers?locked=false", limit), ["1", "5", "7"], "{limit}");
    }
    let page = server.get("/v1/customers?limit=2").json();
    // Written behind the cursor and before it: neither twice nor missing.
    server.applied(&deposit(2, 2, "1"));
    server.applied(&deposit(4, 4, "1"));
    let rest = server.get(&format!("/v1/customers?cursor={}", page["next"].as_str().unwrap())).json();
    let ids: Vec<_> = rest["items"].as_array().unwrap().iter().map(|item| item["customer"].as_str().unwrap()).collect();
    assert_eq!(ids, ["4", "5", "7", "9"]);
}

#[test]
fn events_are_listed_from_either_end_and_filtered() {
    let server = TestServer::new();
    for id in 1..=20 {
        server.applied(&deposit(1, id, "2"));
        if id % 4 == 0 {
            server.applied(&about("dispute", 1, id));
        }
    }
    let events = "/v1/customers/1/events";
    let seqs = |path: &str, limit| -> Vec<u64> {
        all_pages(&server, path, limit).iter().map(|event| event["seq"].as_u64().unwrap()).collect()
    };
    let up: Vec<u64> = (1..=25).collect();
    let down: Vec<u64> = (1..=25).rev().collect();
    for limit in [1, 2, 3, 24, 25, 26] {
        assert_eq!(seqs(events, limit), down, "{limit}");
        assert_eq!(seqs(&format!("{events}?order=oldest"), limit), up, "{limit}");
        assert_eq!(seqs(&format!("{events}?kind=dispute&order=oldest"), limit), [5, 10, 15, 20, 25], "{limit}");
        assert_eq!(seqs(&format!("{events}?kind=dispute&status=done"), limit), [25, 20, 15, 10, 5], "{limit}");
        assert_eq!(seqs(&format!("{events}?status=aborted"), limit), [0; 0], "{limit}");
    }
    // By time: whatever the clock says, what is before and what is from a moment on are everything, once.
    let all = all_pages(&server, &format!("{events}?order=oldest"), 1000);
    for event in &all {
        let time = event["time"].as_str().unwrap();
        let before = seqs(&format!("{events}?until={time}&order=oldest"), 4);
        let after = seqs(&format!("{events}?since={time}&order=oldest"), 4);
        assert_eq!([before.clone(), after].concat(), up, "{time}");
        let earlier = all.iter().filter(|other| other["time"].as_str().unwrap() < time).count();
        assert_eq!(before.len(), earlier, "{time}");
        let down_before = seqs(&format!("{events}?until={time}"), 3);
        assert_eq!(down_before, before.into_iter().rev().collect::<Vec<_>>());
    }
    // Newest first, what is written meanwhile does not move the pages.
    let page = server.get(&format!("{events}?limit=5")).json();
    server.applied(&deposit(1, 100, "1"));
    let rest = server.get(&format!("{events}?limit=1&cursor={}", page["next"].as_str().unwrap())).json();
    assert_eq!(rest["items"][0]["seq"], 20);
}

#[test]
fn a_cursor_is_taken_only_as_it_was_given() {
    let server = TestServer::new();
    for id in 1..=3 {
        server.applied(&deposit(id, id, "1"));
        server.applied(&deposit(id, id + 10, "1"));
    }
    let of = |path: &str| server.get(path).json()["next"].as_str().unwrap().to_owned();
    let customers = of("/v1/customers?limit=1");
    let events = of("/v1/customers/1/events?limit=1");
    let table = [
        (format!("/v1/customers?cursor={events}"), "bad_cursor"),
        (format!("/v1/customers/1/events?cursor={customers}"), "bad_cursor"),
        (format!("/v1/customers/2/events?cursor={events}"), "bad_cursor"),
        (format!("/v1/customers?cursor={}", &customers[1..]), "bad_cursor"),
        ("/v1/customers?cursor=".to_owned(), "bad_cursor"),
        (format!("/v1/customers?locked=true&cursor={customers}"), "bad_parameter"),
        (format!("/v1/customers/1/events?kind=deposit&cursor={events}"), "bad_parameter"),
        (format!("/v1/pending?cursor={events}"), "bad_cursor"),
        (format!("/v1/pending?kind=deposit&cursor={events}"), "bad_parameter"),
        ("/v1/pending?kind=refund".to_owned(), "bad_parameter"),
        ("/v1/pending?until=yesterday".to_owned(), "bad_parameter"),
        ("/v1/pending?status=started".to_owned(), "bad_parameter"),
        ("/v1/customers?limit=0".to_owned(), "bad_parameter"),
        ("/v1/customers?limit=1001".to_owned(), "bad_parameter"),
        ("/v1/customers?limit=%2B1".to_owned(), "bad_parameter"),
        ("/v1/customers?limit=1&limit=1".to_owned(), "bad_parameter"),
        ("/v1/customers?page=1".to_owned(), "bad_parameter"),
        ("/v1/customers?locked=yes".to_owned(), "bad_parameter"),
        ("/v1/customers/1/events?order=up".to_owned(), "bad_parameter"),
        ("/v1/customers/1/events?kind=refund".to_owned(), "bad_parameter"),
        ("/v1/customers/1/events?since=yesterday".to_owned(), "bad_parameter"),
        ("/v1/customers/1?x=1".to_owned(), "bad_parameter"),
        ("/v1/ledger?x=1".to_owned(), "bad_parameter"),
    ];
    for (path, code) in table {
        assert_eq!(server.get(&path).problem(), (400, code.to_owned()), "{path}");
    }
}

#[test]
fn what_is_not_there_is_404() {
    let server = TestServer::new();
    let table = [
        ("/v1/customers/1", 404, "unknown_customer"),
        ("/v1/customers/1/events", 404, "unknown_customer"),
        ("/v1/customers/1/chain", 404, "unknown_customer"),
        ("/v1/transactions/1", 404, "unknown_transaction"),
        ("/v1/customers/x", 400, "bad_id"),
        ("/v1/customers/%FF", 404, "no_such_path"),
        ("/v1/transactions/00000000-0000-0000-0000-000000000001", 400, "bad_id"),
        ("/v1/nothing", 404, "no_such_path"),
        ("/v1", 404, "no_such_path"),
        ("/v1/ledger/", 404, "no_such_path"),
        ("/problems/nothing", 404, "unknown_code"),
    ];
    for (path, status, code) in table {
        assert_eq!(server.get(path).problem(), (status, code.to_owned()), "{path}");
    }
    let mut client = server.client();
    for (method, path, allow) in [("DELETE", "/v1/ledger", "GET,HEAD"), ("GET", "/v1/requests", "POST")] {
        let response = client.call(method, path, "", b"");
        assert_eq!(response.problem(), (405, "method_not_allowed".to_owned()));
        assert_eq!(response.headers["allow"], allow);
    }
    assert_eq!(client.call("HEAD", "/v1/ledger", "", b"").status, 200);
}

#[test]
fn a_transaction_has_its_state_and_its_events() {
    let server = TestServer::new();
    server.applied(&deposit(1, 7, "5"));
    server.applied(&deposit(1, 8, "5"));
    for kind in ["dispute", "resolve", "dispute", "chargeback"] {
        server.applied(&about(kind, 1, 7));
    }
    let found = server.get("/v1/transactions/7").json();
    assert_eq!(
        found["current"],
        json!({"customer": "1", "kind": "deposit", "amount": "5.0000", "state": "charged_back"})
    );
    assert_eq!(found["event_count"], 5);
    let events = found["events"].as_array().unwrap();
    let kinds: Vec<_> =
        events.iter().map(|event| (event["seq"].as_u64().unwrap(), event["kind"].as_str().unwrap())).collect();
    assert_eq!(kinds, [(1, "deposit"), (3, "dispute"), (4, "resolve"), (5, "dispute"), (6, "chargeback")]);
}

#[test]
fn a_downloaded_chain_proves_itself_and_its_receipts() {
    let server = TestServer::new();
    let receipts: Vec<Value> = (1..=300).map(|id| server.applied(&deposit(1, id, "1.25"))["receipt"].clone()).collect();
    let file = server.get("/v1/customers/1/chain");
    assert_eq!(file.headers["content-disposition"], "attachment; filename=\"1.chain\"");
    for receipt in receipts.iter().step_by(37) {
        let hash = bursar_core::Hash::parse(receipt["hash"].as_str().unwrap().as_bytes());
        let report = verify_chain_file(file.body.as_slice(), hash).unwrap();
        assert_eq!(report.receipt_seq, receipt["seq"].as_u64());
        assert_eq!(report.event_count, 300);
    }
    let foreign = bursar_core::Hash::parse("0".repeat(64).as_bytes());
    assert!(verify_chain_file(file.body.as_slice(), foreign).is_err());
    let head = server.get("/v1/customers/1").json()["head"].clone();
    assert_eq!(head, receipts[299]["hash"]);
}

/// Keeps its calls and answers none.
/// A rail that never answers.
#[derive(Debug, Default)]
struct Hanging(Mutex<Vec<RailReply>>, Option<&'static str>);

impl Rail for Hanging {
    fn call(&self, _: RailCall, reply: RailReply) {
        self.0.lock().unwrap().push(reply);
    }

    fn name(&self) -> Option<&str> {
        self.1
    }
}

/// Sends a request whose answer comes only when its rail has answered.
fn hand_in(server: &TestServer, body: &str) -> Client {
    let mut client = server.client();
    let head = format!(
        "POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.raw(head.as_bytes()).unwrap();
    client
}

#[test]
fn what_waits_is_listed_by_kind_rail_and_age() {
    let [bank, desk] = [1, 2].map(|number| RailId::new(number).unwrap());
    let mut options = LedgerOptions::default()
        .with_rail(bank, Arc::new(Hanging(Mutex::default(), Some("bank"))))
        .with_rail(desk, Arc::new(Hanging::default()));
    options.routes = Routes { withdrawal: Some(bank), ..Routes::default() };
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::create(directory.path(), &config, options.clone()).unwrap();
    for customer in 1..=4 {
        let (customer, transaction) = (CustomerId::new(customer), TransactionId::new(customer));
        ledger.submit(Request::deposit(customer, transaction, Amount::from_steps(100_000))).unwrap();
    }
    drop(ledger);
    // Deposits wait as well, but go to the desk.
    options.routes.deposit = Some(desk);
    let server = TestServer::of(Ledger::open(directory.path(), options).unwrap().0, None, Limits::default());
    let mut waiting = Vec::new();
    let listed = |query: &str| {
        let items = all_pages(&server, &format!("/v1/pending{query}"), 2);
        items.into_iter().map(|item| item["customer"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let bodies = [withdrawal(1, 101, "4"), deposit(2, 102, "4"), withdrawal(3, 103, "4"), withdrawal(4, 104, "4")];
    for (count, body) in (1..).zip(&bodies) {
        waiting.push(hand_in(&server, body));
        while listed("").len() < count {}
        // So that each has a time of its own.
        std::thread::sleep(Duration::from_millis(2));
    }
    let all = server.get("/v1/pending").json();
    let time = |index: usize| all["items"][index]["time"].as_str().unwrap();
    let table = [
        (String::new(), "1 2 3 4"),
        ("?kind=withdrawal".to_owned(), "1 3 4"),
        ("?kind=deposit".to_owned(), "2"),
        ("?kind=unlock".to_owned(), ""),
        ("?rail=bank".to_owned(), "1 3 4"),
        ("?rail=1".to_owned(), "1 3 4"),
        ("?rail=2".to_owned(), "2"),
        ("?rail=nobody".to_owned(), ""),
        (format!("?since={}", time(2)), "3 4"),
        (format!("?until={}", time(2)), "1 2"),
        (format!("?since={}&until={}", time(1), time(3)), "2 3"),
        (format!("?since={}&kind=withdrawal&rail=bank&until={}", time(1), time(3)), "3"),
    ];
    for (query, expected) in table {
        assert_eq!(listed(&query).join(" "), expected, "{query}");
    }
    let page = server.get("/v1/pending?rail=bank&limit=1").json();
    let path = format!("/v1/pending?rail=bank&cursor={}", page["next"].as_str().unwrap());
    assert_eq!(server.get(&path).problem(), (400, "bad_parameter".to_owned()));
}

#[test]
fn events_that_wait_for_a_rail_are_pending_and_others_go_on() {
    let rail = RailId::new(1).unwrap();
    let mut options = LedgerOptions::default().with_rail(rail, Arc::new(Hanging::default()));
    options.routes = Routes { withdrawal: Some(rail), ..Routes::default() };
    options.limits.waiting_per_customer_max = 1;
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let server = TestServer::of(Ledger::in_memory(&config, options).unwrap(), None, Limits::default());
    for customer in 1..=3 {
        server.applied(&deposit(customer, customer, "10"));
    }
    assert_eq!(server.get("/v1/pending").json(), json!({"items": []}));
    let _waiting = [1, 2].map(|customer| hand_in(&server, &withdrawal(customer, 100 + customer, "4")));
    let pending = loop {
        let items = all_pages(&server, "/v1/pending", 1);
        if items.len() == 2 {
            break items;
        }
    };
    for (event, customer) in pending.iter().zip(1..) {
        assert_eq!(event["customer"], customer.to_string());
        assert_eq!(
            (&event["status"], &event["rail"], &event["amount"]),
            (&json!("started"), &json!(1), &json!("4.0000"))
        );
    }
    let found = server.get("/v1/transactions/101").json();
    assert!(found.get("current").is_none());
    assert_eq!(found["pending"]["state"], "posted");
    assert_eq!(server.get("/v1/customers/1").json()["open_events"], 1);
    // Others go on; of those behind the open event, one waits and the next hears that it is busy, not that it is poor.
    server.applied(&deposit(3, 30, "1"));
    let _behind = hand_in(&server, &deposit(1, 11, "1"));
    let busy = loop {
        // Until the one behind has taken its place, this one takes it; then it is told.
        let mut other = server.client();
        other.stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        if let Ok(response) = other.try_call("POST", "/v1/requests", "application/json", deposit(1, 12, "1").as_bytes())
        {
            break response;
        }
    };
    assert_eq!(busy.problem(), (503, "customer_busy".to_owned()));
    let metrics = server.get("/metrics");
    assert!(metrics.text().contains("\nbursar_open_events 2\n"), "{}", metrics.text());
}

#[test]
fn the_ledger_sums_up() {
    let server = TestServer::new();
    server.applied(&deposit(1, 1, "10"));
    server.applied(&deposit(2, 2, "7"));
    server.applied(&withdrawal(1, 3, "4"));
    server.applied(&about("dispute", 2, 2));
    server.applied(&about("chargeback", 2, 2));
    let ledger = server.get("/v1/ledger").json();
    assert_eq!(ledger["policy"], json!({"locked": "nothing", "disputable": "deposits"}));
    assert_eq!((&ledger["customers"], &ledger["transactions"], &ledger["events"]), (&json!(2), &json!(3), &json!(5)));
    assert_eq!(
        ledger["currencies"],
        json!([{
            "decimals": 4, "deposits": "17.0000", "withdrawals": "4.0000", "deposits_charged_back": "7.0000",
            "withdrawals_charged_back": "0.0000", "provisional": "0.0000", "available": "6.0000", "held": "0.0000",
            "total": "6.0000",
        }])
    );
}

#[test]
fn what_happens_is_counted() {
    let server = TestServer::new();
    server.applied(&deposit(1, 1, "10"));
    server.applied(&deposit(1, 1, "10"));
    server.submit(&withdrawal(1, 2, "11")).problem();
    server.submit("x").problem();
    let rows = "type,client,tx,amount\ndeposit,1,5,1\nwithdrawal,1,6,100\nnonsense,1,1,1\n";
    server.client().post("/v1/batches", "text/csv", rows);
    // A batch is over a moment after its last line was read.
    let mut text = server.get("/metrics").text().to_owned();
    for _ in 0..1000 {
        if text.contains("\nbursar_batches 0\n") {
            break;
        }
        text = server.get("/metrics").text().to_owned();
    }
    for line in [
        r#"bursar_requests_total{outcome="applied",code=""} 2"#,
        r#"bursar_requests_total{outcome="already_applied",code=""} 1"#,
        r#"bursar_requests_total{outcome="rejected",code="insufficient_funds"} 2"#,
        r#"bursar_requests_total{outcome="unreadable",code=""} 2"#,
        r#"bursar_problems_total{code="insufficient_funds"} 1"#,
        r#"bursar_http_responses_total{path="/v1/requests",status="2xx"} 2"#,
        r#"bursar_http_responses_total{path="/v1/requests",status="4xx"} 2"#,
        r#"bursar_http_request_seconds_count{path="/v1/requests"} 4"#,
        "bursar_queue_requests 0",
        "bursar_batches 0",
        "bursar_http_requests_in_flight 1",
        "bursar_events 2",
        "bursar_customers 1",
        "bursar_transactions 2",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} is missing:\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_request_has_the_id_that_its_client_gives_or_a_new_one() {
    let server = TestServer::new();
    let id_of = |given: &str| {
        server.client().with(format!("X-Request-Id: {given}")).get("/livez").headers["x-request-id"].clone()
    };
    assert_eq!(id_of("order-17.a_B"), "order-17.a_B");
    let made = [
        id_of("two words"),
        id_of(""),
        id_of(&"x".repeat(65)),
        id_of("<script>"),
        server.get("/livez").headers["x-request-id"].clone(),
    ];
    for (index, id) in made.iter().enumerate() {
        assert!(id.len() < 30 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'), "{id}");
        assert!(!made[..index].contains(id), "{made:?}");
    }
}

#[test]
fn a_customer_as_it_was() {
    let server = TestServer::new();
    for id in 1..=5 {
        server.applied(&deposit(1, id, "10"));
    }
    server.applied(&about("dispute", 1, 2));
    server.applied(&withdrawal(1, 9, "5"));
    let now = server.get("/v1/customers/1").json();
    let events = server.get("/v1/customers/1/events?order=oldest").json()["items"].clone();
    for event in events.as_array().unwrap() {
        let then = server.get(&format!("/v1/customers/1?seq={}", event["seq"])).json();
        for field in ["seq", "locked", "time"] {
            assert_eq!(then[field], event[field], "{field}");
        }
        assert_eq!(then["head"], event["hash"]);
        let account = json!([{"available": event["available"], "held": event["held"], "total": event["total"]}]);
        assert_eq!(then["accounts"], account);
    }
    assert_eq!(server.get("/v1/customers/1?seq=7").json(), now);
    assert_eq!(server.get("/v1/customers/1?seq=9223372036854775807").json(), now);
    let last = events[6]["time"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v1/customers/1?at={last}")).json(), now);
    assert_eq!(server.get("/v1/customers/1?at=2999-01-01T00:00:00Z").json(), now);
    let table = [
        ("1?at=1999-01-01T00:00:00Z", 404, "no_account_then"),
        ("9?seq=1", 404, "unknown_customer"),
        ("1?seq=0", 400, "bad_parameter"),
        ("1?seq=-1", 400, "bad_parameter"),
        ("1?seq=9223372036854775808", 400, "bad_parameter"),
        ("1?at=yesterday", 400, "bad_parameter"),
        ("1?seq=1&at=2026-01-01T00:00:00Z", 400, "bad_parameter"),
    ];
    for (query, status, code) in table {
        assert_eq!(server.get(&format!("/v1/customers/{query}")).problem(), (status, code.to_owned()), "{query}");
    }
}
