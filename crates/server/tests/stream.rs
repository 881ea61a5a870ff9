//! The stream of events: everything once, from any position on, whoever cuts it off.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_core::commit::{RailAnswer, RailCall, Routes};
use bursar_core::{AbortReason, Currencies, Policy, RailId};
use bursar_engine::{Ledger, LedgerOptions, Rail, RailReply, new_config};
use bursar_server::Limits;
use common::client::Client;
use common::{TestServer, about, deposit, memory_ledger, withdrawal};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A block of a stream, read as the standard says: fields by line, comments dropped.
#[derive(Clone, Debug, Default, PartialEq)]
struct Block {
    id: Option<String>,
    event: Option<String>,
    data: Option<Value>,
}

/// A client of a stream.
struct Stream {
    client: Client,
    text: String,
    last_id: String,
}

impl Stream {
    fn open(server: &TestServer, query: &str) -> Self {
        Self::resume(server, query, "")
    }

    fn resume(server: &TestServer, query: &str, header: &str) -> Self {
        let mut client = server.client();
        client.raw(format!("GET /v1/events{query} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n").as_bytes()).unwrap();
        let head = client.head_of_answer().unwrap();
        assert_eq!((head.status, &*head.headers["content-type"]), (200, "text/event-stream"));
        let mut stream = Self { client, text: String::new(), last_id: String::new() };
        // The first block says where the stream begins.
        let first = stream.block().unwrap();
        assert!(first.id.is_some() && first.data.is_none(), "{first:?}");
        stream
    }

    /// The next block; `None` at the end of the stream.
    fn block(&mut self) -> Option<Block> {
        loop {
            if let Some((text, rest)) = self.text.split_once("\n\n") {
                let mut block = Block::default();
                for line in text.lines().filter(|line| !line.starts_with(':')) {
                    let (name, value) = line.split_once(": ").unwrap();
                    match name {
                        "id" => block.id = Some(value.to_owned()),
                        "event" => block.event = Some(value.to_owned()),
                        "data" => block.data = Some(serde_json::from_str(value).unwrap()),
                        "retry" => assert!(value.parse::<u32>().is_ok()),
                        _ => panic!("{line}"),
                    }
                }
                self.text = rest.to_owned();
                self.last_id = block.id.clone().unwrap_or(std::mem::take(&mut self.last_id));
                return Some(block);
            }
            self.text += std::str::from_utf8(&self.client.next_chunk().unwrap()?).unwrap();
        }
    }

    /// The next message with data.
    fn message(&mut self) -> Option<Value> {
        loop {
            let block = self.block()?;
            let Some(data) = block.data else { continue };
            assert_eq!(
                (block.id.as_deref(), block.event.as_deref()),
                (data["position"].as_str(), data["type"].as_str())
            );
            return Some(data);
        }
    }

    fn rest(mut self) -> (Vec<Value>, String) {
        let messages = std::iter::from_fn(|| self.message()).collect();
        (messages, self.last_id)
    }
}

fn all(server: &TestServer, query: &str) -> Vec<Value> {
    Stream::open(server, query).rest().0
}

/// Deposits of several customers, some disputed.
fn fill(server: &TestServer, from: u64, count: u64) {
    let mut client = server.client();
    for id in from..from + count {
        assert_eq!(client.submit(&deposit(id % 3, id, "1")).status, 200);
        if id.is_multiple_of(5) {
            assert_eq!(client.submit(&about("dispute", id % 3, id)).status, 200);
        }
    }
}

#[test]
fn every_event_is_there_once_as_in_its_chain() {
    let server = TestServer::new();
    fill(&server, 1, 40);
    let messages = all(&server, "?follow=false");
    assert_eq!(messages.len(), 48);
    let mut by_customer: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for message in &messages {
        assert_eq!(message["type"], "event.done");
        let event = &message["event"];
        by_customer.entry(event["customer"].as_str().unwrap().to_owned()).or_default().push(event.clone());
    }
    for (customer, events) in by_customer {
        let listed = server.get(&format!("/v1/customers/{customer}/events?order=oldest")).json();
        assert_eq!(listed["items"], json!(events));
    }
    // From each position on, by parameter or by header, exactly the rest.
    for (index, message) in messages.iter().enumerate() {
        let position = message["position"].as_str().unwrap();
        assert_eq!(all(&server, &format!("?follow=false&after={position}")), messages[index + 1..]);
        let header = format!("Last-Event-ID: {position}\r\n");
        // The header is newer than what the address says.
        let resumed = Stream::resume(&server, "?follow=false&after=latest", &header).rest().0;
        assert_eq!(resumed, messages[index + 1..]);
    }
}

#[test]
fn what_comes_later_is_sent_when_it_is_durable() {
    // No heartbeat, which would show it as well, only late.
    let limits = Limits { heartbeat: Duration::from_hours(1), ..Limits::default() };
    let server = TestServer::of(memory_ledger(), None, limits);
    fill(&server, 1, 3);
    let mut live = Stream::open(&server, "?after=latest");
    let mut late = Stream::open(&server, "");
    for id in 100..120 {
        let receipt = server.applied(&deposit(9, id, "2"))["receipt"].clone();
        let message = live.message().unwrap();
        assert_eq!(message["event"]["event"], receipt["event"]);
        assert_eq!(message["event"]["hash"], receipt["hash"]);
    }
    let ids: Vec<Value> = (0..23).map(|_| late.message().unwrap()["event"]["transaction"].clone()).collect();
    let expected: Vec<Value> = (1..4).chain(100..120).map(|id: u64| json!(id.to_string())).collect();
    assert_eq!(ids, expected);
    assert_eq!(live.last_id, late.last_id);
}

/// A bank that answers when it is told to.
#[derive(Debug, Default)]
struct Bank(Mutex<Vec<RailReply>>);

impl Rail for Bank {
    fn call(&self, _: RailCall, reply: RailReply) {
        self.0.lock().unwrap().push(reply);
    }
}

#[test]
fn an_event_that_waits_is_there_as_started_and_by_its_end() {
    let (bank, rail) = (Arc::new(Bank::default()), RailId::new(1).unwrap());
    let options =
        LedgerOptions { routes: Routes { withdrawal: Some(rail), ..Routes::default() }, ..LedgerOptions::default() };
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let ledger = Ledger::in_memory(&config, options.with_rail(rail, bank.clone())).unwrap();
    let server = TestServer::of(ledger, None, Limits::default());
    server.applied(&deposit(1, 1, "10"));
    let mut stream = Stream::open(&server, "");
    assert_eq!(stream.message().unwrap()["event"]["kind"], "deposit");
    for (id, answer, expected) in [
        (2, RailAnswer::Done, "event.done"),
        (3, RailAnswer::Refused(AbortReason::from_code(1, "closed").unwrap()), "event.aborted"),
    ] {
        let address = server.address;
        let asked = std::thread::spawn(move || Client::connect(address).submit(&withdrawal(1, id, "1")).status);
        let started = stream.message().unwrap();
        assert_eq!((&started["type"], &started["event"]["status"]), (&json!("event.started"), &json!("started")));
        let reply = std::iter::repeat_with(|| bank.0.lock().unwrap().pop()).flatten().next().unwrap();
        reply.answer(answer);
        let ended = stream.message().unwrap();
        assert_eq!(ended["type"], expected);
        assert_eq!(ended["event"]["event"], started["event"]["event"]);
        assert_eq!(asked.join().unwrap(), if id == 2 { 200 } else { 422 });
    }
}

#[test]
fn filters_leave_out_the_rest_and_still_move_on() {
    let server = TestServer::new();
    fill(&server, 1, 30);
    let messages = all(&server, "?follow=false");
    for (query, field, value) in [("customer=2", "customer", "2"), ("kind=dispute", "kind", "dispute")] {
        let expected: Vec<_> = messages.iter().filter(|message| message["event"][field] == value).cloned().collect();
        assert!(!expected.is_empty());
        let (found, last) = Stream::open(&server, &format!("?follow=false&{query}")).rest();
        assert_eq!(found, expected, "{query}");
        // What was passed over need not be read again.
        assert_eq!(last, messages.last().unwrap()["position"], "{query}");
    }
    assert!(all(&server, "?follow=false&status=aborted").is_empty());
    assert_eq!(all(&server, "?follow=false&status=done&kind=deposit").len(), 30);
}

#[test]
fn a_quiet_stream_shows_that_it_lives_and_where_it_is() {
    let limits = Limits { heartbeat: Duration::from_millis(50), ..Limits::default() };
    let server = TestServer::of(memory_ledger(), None, limits);
    let mut stream = Stream::open(&server, "?kind=unlock");
    assert_eq!(stream.block().unwrap(), Block::default(), "a comment");
    fill(&server, 1, 3);
    let latest = all(&server, "?follow=false").last().unwrap()["position"].as_str().unwrap().to_owned();
    while stream.last_id != latest {
        assert_eq!(stream.block().unwrap().data, None);
    }
}

#[test]
fn what_cannot_be_followed_is_refused_before_the_stream() {
    let server = TestServer::new();
    fill(&server, 1, 2);
    let real = all(&server, "?follow=false")[1]["position"].as_str().unwrap().to_owned();
    let table = [
        ("after=", "bad_position"),
        ("after=x", "bad_position"),
        ("after=1.0.00000000", "bad_position"),
        ("after=ffffffffffffffff.0.00000000", "bad_position"),
        (&*format!("after={}", real.to_uppercase() + "0"), "bad_position"),
        ("after=latest&after=latest", "bad_parameter"),
        ("since=x", "bad_parameter"),
        ("kind=refund", "bad_parameter"),
        ("status=open", "bad_parameter"),
        ("follow=1", "bad_parameter"),
        ("customer=x", "bad_id"),
    ];
    for (query, code) in table {
        assert_eq!(server.get(&format!("/v1/events?{query}")).problem(), (400, code.to_owned()), "{query}");
    }
    let mut client = server.client().with("Last-Event-ID: nonsense");
    assert_eq!(client.get("/v1/events").problem(), (400, "bad_position".to_owned()));
    // Of another ledger.
    let other = TestServer::new();
    fill(&other, 1, 2);
    assert_eq!(other.get(&format!("/v1/events?after={real}")).problem(), (400, "bad_position".to_owned()));
}

#[test]
fn streams_are_limited_and_end_when_the_service_stops() {
    let limits = Limits { streams_max: 2, heartbeat: Duration::from_millis(20), ..Limits::default() };
    let server = TestServer::of(memory_ledger(), None, limits);
    let one = Stream::open(&server, "");
    let two = Stream::open(&server, "");
    assert_eq!(server.get("/v1/events").problem(), (503, "busy".to_owned()));
    drop(two);
    // The place is free once a heartbeat has shown that the client is gone.
    loop {
        let mut client = server.client();
        client.raw(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        if client.head_of_answer().unwrap().status == 200 {
            break;
        }
        std::thread::yield_now();
    }
    let stopping = std::thread::spawn(move || server.stop());
    assert_eq!(one.rest().0, Vec::<Value>::new(), "whole, not cut off");
    stopping.join().unwrap().unwrap();
}

/// A client that asks for much and reads nothing is cut off, and holds nothing up.
#[test]
fn a_client_that_takes_nothing_is_cut_off() {
    let limits = Limits { write_wait: Duration::from_millis(200), ..Limits::default() };
    let server = TestServer::of(memory_ledger(), None, limits);
    let rows: String = (0..40_000).map(|id| deposit(id % 100, id, "1") + "\n").collect();
    let answer = server.client().post("/v1/batches?outcomes=not_applied", "application/x-ndjson", rows);
    assert_eq!(answer.lines()[0]["summary"]["applied"], 40_000);
    let mut idle = server.client();
    idle.raw(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    // It has begun.
    assert_eq!(idle.head_of_answer().unwrap().status, 200);
    let gauge = || {
        let text = server.get("/metrics").text().to_owned();
        let line = text.lines().find(|line| line.starts_with("bursar_event_streams ")).unwrap().to_owned();
        line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    while gauge() > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(idle.is_closed());
    assert_eq!(all(&server, "?follow=false").len(), 40_000);
}
