//! A fuzzer of the interface: valid requests with bytes changed, cut, doubled and mixed, on real connections.
//!
//! Whatever comes in, the service answers without a 5xx of its own fault or closes the connection, serves the next client,
//! and what it did not accept leaves the books as they were: the sums are those of the answers that said `applied`.
//!
//! `BURSAR_FUZZ_CASES=100000 cargo test --release -p bursar-server --test fuzz_http` tries more than the default.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
#[path = "common/receiver.rs"]
mod receiver;

use bursar_server::Limits;
use common::{TestServer, memory_ledger};
use receiver::{Receiver, SECRET};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const CASES: u64 = 2_500;

/// A small generator with a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }

    fn one_of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

const PATHS: [&str; 24] = [
    "/v1/requests",
    "/v1/requests",
    "/v1/batches",
    "/v1/batches?outcomes=not_applied",
    "/v1/customers?limit=3&locked=true",
    "/v1/customers/1",
    "/v1/customers/1?seq=2",
    "/v1/customers/1?at=2026-01-31T12:00:00Z",
    "/v1/customers/1/events?order=oldest&kind=deposit&status=done&since=2026-01-31T12:00:00Z&limit=2",
    "/v1/customers/1/disputes?limit=1",
    "/v1/customers/1/chain",
    "/v1/disputes?limit=1",
    "/v1/transactions/1",
    "/v1/events?follow=false&after=latest&kind=deposit",
    "/v1/events?follow=false&after=0.0.00000000&customer=1",
    "/v1/pending?limit=1",
    "/v1/ledger",
    "/v1/webhooks",
    "/v1/webhooks/books/deliveries?limit=1",
    "/v1/webhooks/books/pause",
    "/v1/webhooks/books/resend",
    "/problems/busy",
    "/metrics",
    "/docs",
];
const BODIES: [&str; 9] = [
    r#"{"kind":"deposit","customer":"1","transaction":"T","amount":"12.5"}"#,
    r#"{"kind":"withdrawal","customer":"1","transaction":"T","amount":"0.0001"}"#,
    r#"{"kind":"dispute","customer":"1","transaction":"1"}"#,
    r#"{"kind":"resolve","customer":"1","transaction":"1","amount":"12.5"}"#,
    "{\"kind\":\"deposit\",\"customer\":\"1\",\"transaction\":\"T\",\"amount\":\"1\"}\n{\"kind\":\"unlock\",\"customer\":\"2\"}\n",
    "type,client,tx,amount\ndeposit,1,T,4\ndispute,1,T,\nresolve,1,T,\n",
    r#"{"after":"latest"}"#,
    r#"{"customer":"1","seq":1}"#,
    "",
];
const TYPES: [&str; 5] =
    ["application/json", "application/x-ndjson", "text/csv", "text/csv; charset=\"utf-8\"", "multipart/form-data"];
const FITTING: [(&str, &str, &str); 8] = [
    ("/v1/requests", TYPES[0], BODIES[0]),
    ("/v1/requests", TYPES[0], BODIES[1]),
    ("/v1/requests", TYPES[0], BODIES[2]),
    ("/v1/requests", TYPES[0], BODIES[3]),
    ("/v1/batches", TYPES[1], BODIES[4]),
    ("/v1/batches", TYPES[2], BODIES[5]),
    ("/v1/webhooks/books/resend", TYPES[0], BODIES[7]),
    (PATHS[8], TYPES[0], ""),
];
/// What tends to be read wrongly.
const TOKENS: [&[u8]; 22] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b"\xff\xfe",
    b"%00",
    b"%",
    b"&",
    b"=",
    b"\"",
    b"\\u0000",
    b"-1",
    b"18446744073709551616",
    b"1e400",
    b"null",
    b"{}",
    b"[[[[[[[[",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Expect: 100-continue\r\n",
    b"Last-Event-ID: 0.0.0\r\n",
    b"../",
    b"\xf0\x9f\x92\xb6",
];

/// A valid request with something wrong, or not.
fn case(random: &mut Random, number: u64) -> Vec<u8> {
    let (mut method, mut path) = (random.one_of(&["GET", "POST", "HEAD", "PUT", "OPTIONS"]), random.one_of(&PATHS));
    let (mut body, mut content_type) = (random.one_of(&BODIES), random.one_of(&TYPES));
    if random.below(3) > 0 {
        // What belongs together, so that what is changed afterwards gets far.
        (path, content_type, body) = FITTING[random.below(FITTING.len())];
        method = if body.is_empty() { "GET" } else { "POST" };
    }
    let body = body.replace('T', &(number + 1).to_string()).into_bytes();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
    head.extend_from_slice(format!("Content-Type: {content_type}\r\n").as_bytes());
    let mut bytes = if random.below(4) == 0 {
        head.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        let (first, second) = body.split_at(random.below(body.len() + 1));
        for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
            head.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            head.extend_from_slice(part);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"0\r\n\r\n");
        head
    } else {
        head.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        head.extend_from_slice(&body);
        head
    };
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.splice(at..at, random.one_of(&TOKENS).to_vec())),
            3 => drop(bytes.splice(at..(at + random.below(8)).min(bytes.len()), random.one_of(&TOKENS).to_vec())),
            4 => {
                let part = bytes[at..(at + random.below(60)).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
            _ => drop(bytes.drain(at..(at + random.below(12)).min(bytes.len()))),
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

#[test]
fn nothing_that_is_sent_breaks_the_service_or_its_books() {
    let cases = std::env::var("BURSAR_FUZZ_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(CASES);
    let receiver = Receiver::new();
    let webhook = format!("name = \"books\"\nurl = \"{}\"\nsecret = \"{SECRET}\"\n", receiver.url());
    let limits = Limits {
        // Requests that never end are given up soon.
        header_wait: Duration::from_millis(300),
        body_wait: Duration::from_millis(300),
        batch_wait: Duration::from_millis(300),
        ..Limits::default()
    };
    let webhooks = vec![toml::from_str(&webhook).unwrap()];
    let server = TestServer::with_webhooks_and_limits(memory_ledger(), webhooks, limits);
    let mut random = Random(42);
    let (mut answered, mut refused, mut applied) = (0u64, 0, 0);
    for number in 0..cases {
        let bytes = case(&mut random, number);
        let shown = || String::from_utf8_lossy(&bytes).into_owned();
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // The service may have answered and closed before all of it was sent.
        drop(stream.write_all(&bytes));
        drop(stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{number} hangs: {}", shown());
        }
        let text = String::from_utf8_lossy(&answer);
        for status in text.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)) {
            answered += 1;
            refused += usize::from(status.starts_with('4'));
            assert!(status < "500", "case {number} gave {status}:\n{}\n{text}", shown());
        }
        applied += text.matches("\"outcome\":\"applied\"").count();
    }
    assert!(answered > cases / 2 && refused > 100 && applied > 20, "{answered} {refused} {applied}");
    // It serves, and the books are whole: every customer's chain proves itself, and the sums are theirs.
    let ledger = server.get("/v1/ledger").json();
    assert!(ledger["events"].as_u64().unwrap() as usize >= applied);
    let mut events = 0;
    for customer in server.get("/v1/customers?limit=1000").json()["items"].as_array().unwrap() {
        let id = customer["customer"].as_str().unwrap();
        let chain = server.get(&format!("/v1/customers/{id}/chain"));
        bursar_engine::chain_file::verify_chain_file(chain.body.as_slice(), None).unwrap();
        events += customer["seq"].as_u64().unwrap();
    }
    assert_eq!(ledger["events"], events);
    let metrics = server.get("/metrics").text().to_owned();
    let count = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    // Nothing took effect that was not counted as applied: what is refused leaves no event.
    assert_eq!(count("bursar_requests_total{outcome=\"applied\""), events);
    server.stop().unwrap();
}
