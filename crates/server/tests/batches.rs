//! Batches: an outcome per row, in order, in memory that does not depend on the length.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_server::Limits;
use common::{TestServer, about, deposit, two_currencies, unlock, withdrawal};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";

fn told(lines: &[Value]) -> Vec<(u64, &str, &str)> {
    let rows = lines.iter().filter(|line| line.get("line").is_some());
    rows.map(|row| {
        (row["line"].as_u64().unwrap(), row["outcome"].as_str().unwrap(), row["code"].as_str().unwrap_or(""))
    })
    .collect()
}

#[test]
fn every_row_has_its_outcome_in_order() {
    let server = TestServer::new();
    let rows = [
        deposit(1, 1, "10"),
        String::new(),
        withdrawal(1, 2, "4"),
        withdrawal(1, 3, "40"),
        "nonsense".to_owned(),
        deposit(1, 1, "10"),
        r#"{"kind":"deposit","customer":"1","transaction":"9","amount":1}"#.to_owned(),
        about("dispute", 1, 1) + "\r",
        format!(r#"{{"kind":"{}"}}"#, "x".repeat(20_000)),
        unlock(1),
    ];
    let response = server.client().post("/v1/batches", NDJSON, rows.join("\n"));
    assert_eq!((response.status, response.headers["content-type"].as_str()), (200, NDJSON));
    let lines = response.lines();
    assert_eq!(
        told(&lines),
        [
            (1, "applied", ""),
            (3, "applied", ""),
            (4, "rejected", "insufficient_funds"),
            (5, "unreadable", "malformed_json"),
            (6, "already_applied", ""),
            (7, "unreadable", "bad_field"),
            (8, "applied", ""),
            (9, "unreadable", "row_too_long"),
            (10, "rejected", "not_locked"),
        ]
    );
    assert_eq!(lines[1]["receipt"]["available"], "6.0000");
    assert_eq!(lines[2]["figures"], json!({"asked": "40.0000", "available": "6.0000"}));
    let summary =
        json!({"rows": 9, "applied": 3, "already_applied": 1, "rejected": 2, "unreadable": 3, "undecided": 0});
    assert_eq!(lines.last().unwrap(), &json!({ "summary": summary }));
    // The receipts are those of the chain.
    let head = server.get("/v1/customers/1").json()["head"].clone();
    assert_eq!(lines[6]["receipt"]["hash"], head);
}

#[test]
fn csv_is_read_as_everywhere() {
    let server = TestServer::of(two_currencies(), None, Limits::default());
    let rows = "Tx,client, type ,amount,currency,note\n1,1,deposit,2.5,EUR,\"a\nb\"\n2,1,Withdrawal,1,JPY\n3,1,deposit,1\nx,1,dispute\n";
    let lines = server.client().post("/v1/batches", CSV, rows).lines();
    let expected = [
        (2, "applied", ""),
        (4, "rejected", "insufficient_funds"),
        (5, "unreadable", "missing_currency"),
        (6, "unreadable", "bad_id"),
    ];
    assert_eq!(told(&lines), expected);
    assert_eq!(lines[3]["field"], "tx");
    for (body, code) in [
        ("", "header_empty"),
        ("type,client\n", "header_column_missing"),
        ("type,client,tx,amount,tx\n", "header_column_twice"),
        ("\"type\n", "header_unreadable"),
    ] {
        let response = server.client().post("/v1/batches", CSV, body);
        assert_eq!(response.problem(), (400, code.to_owned()), "{body:?}");
        assert_eq!(server.get(&format!("/problems/{code}")).status, 200);
    }
}

#[test]
fn only_what_was_not_applied_is_told_if_asked_so() {
    let server = TestServer::new();
    let rows = [deposit(1, 1, "1"), withdrawal(1, 2, "5"), deposit(1, 1, "1")].join("\n");
    let mut client = server.client();
    let lines = client.post("/v1/batches?outcomes=not_applied", NDJSON, &rows).lines();
    assert_eq!(told(&lines), [(2, "rejected", "insufficient_funds")]);
    assert_eq!(lines[1]["summary"]["rows"], 3);
    assert_eq!(client.post("/v1/batches?outcomes=some", NDJSON, &rows).problem(), (400, "bad_parameter".to_owned()));
}

#[test]
fn other_types_are_refused() {
    let server = TestServer::new();
    let table = [
        ("/v1/batches", "application/json"),
        ("/v1/batches", ""),
        ("/v1/batches", "text/csv; charset=latin1"),
        ("/v1/requests", "text/plain"),
        ("/v1/requests", NDJSON),
        ("/v1/requests", "application/x-www-form-urlencoded"),
    ];
    for (path, content_type) in table {
        let response = server.client().post(path, content_type, deposit(1, 1, "1"));
        assert_eq!(response.problem(), (415, "unsupported_media_type".to_owned()), "{path} {content_type}");
    }
    let packed = server.client().with("Content-Encoding: gzip").submit(&deposit(1, 1, "1"));
    assert_eq!(packed.problem().1, "unsupported_media_type");
    let plain = server.client().post("/v1/requests", "Application/JSON; charset=UTF-8", deposit(1, 1, "1"));
    assert_eq!(plain.status, 200);
}

/// A row is answered before the next one is sent: nothing waits for more to come.
#[test]
fn rows_are_answered_as_they_come() {
    for content_type in [NDJSON, CSV] {
        let server = TestServer::new();
        let mut client = server.client();
        client.begin("/v1/batches", content_type);
        if content_type == CSV {
            client.chunk(b"type,client,tx,amount\n").unwrap();
        }
        assert_eq!(client.head_of_answer().unwrap().status, 200);
        for id in 1..=5 {
            let row = if content_type == CSV { format!("deposit,1,{id},1") } else { deposit(1, id, "1") };
            client.chunk(&row.as_bytes()[..7]).unwrap();
            client.chunk(&[&row.as_bytes()[7..], b"\n"].concat()).unwrap();
            let line: Value = serde_json::from_slice(&client.next_chunk().unwrap().unwrap()).unwrap();
            assert_eq!((&line["outcome"], &line["receipt"]["seq"]), (&json!("applied"), &json!(id)), "{content_type}");
        }
        client.end();
        let end: Value = serde_json::from_slice(&client.next_chunk().unwrap().unwrap()).unwrap();
        assert_eq!(end["summary"]["applied"], 5);
        assert!(client.next_chunk().unwrap().is_none());
    }
}

/// Far more rows than fit anywhere, sent without a pause and read at the same time.
#[test]
fn a_long_batch_streams_both_ways() {
    const ROWS: u64 = 60_000;
    for content_type in [NDJSON, CSV] {
        let server = TestServer::new();
        let mut client = server.client();
        client.begin("/v1/batches", content_type);
        let mut sender = client.stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            let mut body = Vec::new();
            let mut flush = |body: &mut Vec<u8>| {
                let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat();
                body.clear();
                sender.write_all(&chunk).unwrap();
            };
            if content_type == CSV {
                body.extend_from_slice(b"type,client,tx,amount\n");
            }
            for id in 1..=ROWS {
                let customer = id % 50;
                if content_type == CSV {
                    writeln!(body, "deposit,{customer},{id},1.5").unwrap();
                } else {
                    writeln!(body, "{}", deposit(customer, id, "1.5")).unwrap();
                }
                if body.len() > 50_000 {
                    flush(&mut body);
                }
            }
            flush(&mut body);
            sender.write_all(b"0\r\n\r\n").unwrap();
        });
        let lines = client.answer().unwrap().lines();
        sending.join().unwrap();
        let first_line = if content_type == CSV { 2 } else { 1 };
        for (row, line) in lines[..lines.len() - 1].iter().zip(first_line..) {
            assert_eq!((row["line"].as_u64(), &row["outcome"]), (Some(line), &json!("applied")));
        }
        assert_eq!(lines.last().unwrap()["summary"]["applied"], ROWS);
        assert_eq!(server.get("/v1/ledger").json()["transactions"], ROWS);
    }
}

/// A client that sends and does not read: the service stops reading from it, long before all is decided, and after a
/// while gives it up. Everybody else is served meanwhile.
#[test]
fn who_does_not_read_is_not_read_from() {
    let limits = Limits { write_wait: Duration::from_secs(2), ..Limits::default() };
    let server = TestServer::with_limits(limits);
    let mut client = server.client();
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    client.begin("/v1/batches", NDJSON);
    let mut sent = 0_u64;
    let stuck = loop {
        let rows: String = (0..500).map(|index| deposit(1, sent + index, "1") + "\n").collect();
        if client.chunk(rows.as_bytes()).is_err() {
            break true;
        }
        sent += 500;
        if sent >= 1_000_000 {
            break false;
        }
    };
    assert!(stuck, "the service read {sent} rows whose answers nobody read");
    let decided = || server.get("/v1/ledger").json()["transactions"].as_u64().unwrap();
    while decided() == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(decided() < 1_000_000);
    server.applied(&deposit(2, 2_000_000, "1"));
    // Its place is free again when it has been given up.
    let mut looks = 0;
    while !server.get("/metrics").text().contains("\nbursar_batches 0\n") {
        looks += 1;
        assert!(looks < 1_000, "the service kept a client that never reads");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_batch_that_brings_nothing_is_ended_with_what_is_done() {
    let limits = Limits { batch_wait: Duration::from_millis(300), ..Limits::default() };
    let server = TestServer::with_limits(limits);
    for content_type in [NDJSON, CSV] {
        let mut client = server.client();
        let row = if content_type == CSV {
            "type,client,tx,amount\ndeposit,1,1,1\nde".to_owned()
        } else {
            deposit(1, 1, "1") + "\n{"
        };
        // At once: nobody may be slow in between.
        let head = "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type:";
        client.raw(format!("{head} {content_type}\r\n\r\n{:x}\r\n{row}\r\n", row.len()).as_bytes()).unwrap();
        let lines = client.answer().unwrap().lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[1]["problem"]["code"], "too_slow");
        assert_eq!(lines[1]["summary"]["rows"], 1);
    }
}

#[test]
fn a_batch_whose_client_goes_away_keeps_what_was_done() {
    let server = TestServer::new();
    for content_type in [NDJSON, CSV] {
        let mut client = server.client();
        client.begin("/v1/batches", content_type);
        let row = if content_type == CSV {
            "type,client,tx,amount\ndeposit,1,1,1\n".to_owned()
        } else {
            deposit(1, 1, "1") + "\n"
        };
        client.chunk(row.as_bytes()).unwrap();
        client.head_of_answer().unwrap();
        client.next_chunk().unwrap().unwrap();
        drop(client);
    }
    while !server.get("/metrics").text().contains("\nbursar_batches 0\n") {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.get("/v1/ledger").json()["transactions"], 1);
}

#[test]
fn one_batch_too_many_hears_busy() {
    let server = TestServer::with_limits(Limits { batches_max: 2, ..Limits::default() });
    let mut open: Vec<_> = (0..2).map(|_| server.client()).collect();
    for client in &mut open {
        client.begin("/v1/batches", NDJSON);
        client.head_of_answer().unwrap();
    }
    let refused = server.client().post("/v1/batches", NDJSON, "");
    assert_eq!(refused.problem(), (503, "busy".to_owned()));
    assert_eq!(refused.headers["retry-after"], "1");
    open[0].end();
    while server.client().post("/v1/batches", NDJSON, "").status != 200 {
        std::thread::sleep(Duration::from_millis(10));
    }
}
