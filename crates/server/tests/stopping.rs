//! How a service comes to its end: asked to, or because its engine stopped.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_core::commit::{Appended, Approval, Proposal, ProposeResult};
use bursar_core::{
    Currencies, CustomerId, EntryId, EventRef, EventStatus, Head, LedgerConfig, Policy, Record, TransactionEntry,
    TransactionId,
};
use bursar_engine::store::{
    ChainEntry, Chains, CustomerHead, MemoryStore, ReadRange, SourceId, SourceMark, StoreError, Transactions,
};
use bursar_engine::{Ledger, LedgerOptions, Totals, new_config};
use bursar_server::{Limits, ServeError};
use common::{TestServer, deposit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A memory store whose syncs can be made to fail, as on a disk that is full.
#[derive(Debug)]
struct Failing {
    inner: MemoryStore,
    fails: Arc<AtomicBool>,
    /// As long as this is so, no call is answered.
    hangs: Arc<AtomicBool>,
    /// Somebody waits for that.
    is_waited_for: Arc<AtomicBool>,
}

impl Failing {
    fn over(config: &LedgerConfig) -> Arc<Self> {
        let (fails, hangs, is_waited_for) = Default::default();
        Arc::new(Self { inner: MemoryStore::new(config), fails, hangs, is_waited_for })
    }

    fn wait_for_answer(&self) {
        while self.hangs.load(Ordering::Relaxed) {
            self.is_waited_for.store(true, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Chains for Failing {
    fn whole_batches(&self) -> bool {
        self.inner.whole_batches()
    }
    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        self.wait_for_answer();
        self.inner.load(customers, heads)
    }
    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        self.inner.append(records, results)
    }
    fn end_batch(&self, time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        self.inner.end_batch(time_ms, mark)
    }
    fn sync(&self) -> Result<(), StoreError> {
        if self.fails.load(Ordering::Relaxed) {
            let error = Arc::new(std::io::ErrorKind::StorageFull.into());
            return Err(StoreError::Io { doing: "sync the journal", path: "/secret/place".into(), error });
        }
        self.inner.sync()
    }
    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        self.inner.status(events, statuses)
    }
    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        self.inner.read(customer, range, entries)
    }
    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError> {
        self.inner.open_customers()
    }
    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError> {
        self.inner.list(after, limit, heads)
    }
    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError> {
        self.inner.source(source)
    }
    fn sources(&self) -> Result<Vec<SourceMark>, StoreError> {
        self.inner.sources()
    }
    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError> {
        self.inner.rejected_lines(source)
    }
    fn totals(&self) -> Result<Totals, StoreError> {
        self.inner.totals()
    }
    fn last_time_ms(&self) -> Result<u64, StoreError> {
        self.inner.last_time_ms()
    }
}

impl Transactions for Failing {
    fn get(&self, ids: &[EntryId], entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        self.inner.get(ids, entries)
    }
    fn propose(&self, proposals: &[Proposal], results: &mut Vec<ProposeResult>) -> Result<(), StoreError> {
        self.inner.propose(proposals, results)
    }
    fn approve(&self, approvals: &[Approval]) -> Result<(), StoreError> {
        self.inner.approve(approvals)
    }
    fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, StoreError> {
        self.inner.events_of(transaction)
    }
}

/// The client hears that its outcome is not known, without a word about files; the service ends, and says why.
#[test]
fn a_service_whose_engine_stops_ends_with_its_error() {
    for as_batch in [false, true] {
        let config = new_config(Policy::default(), Currencies::default()).unwrap();
        let store = Failing::over(&config);
        let fails = store.fails.clone();
        let ledger = Ledger::with_stores(config, store.clone(), store, LedgerOptions::default()).unwrap();
        let mut server = TestServer::of(ledger, None, Limits::default());
        server.applied(&deposit(1, 1, "1"));
        fails.store(true, Ordering::Relaxed);
        let mut client = server.client();
        let text = if as_batch {
            let response = client.post("/v1/batches", "application/x-ndjson", deposit(1, 2, "1"));
            let lines = response.lines();
            assert_eq!((&lines[0]["outcome"], &lines[0]["code"]), (&"undecided".into(), &"stopped".into()));
            response.text().to_owned()
        } else {
            let response = client.submit(&deposit(1, 2, "1"));
            assert_eq!(response.problem(), (503, "stopped".to_owned()));
            response.text().to_owned()
        };
        assert!(!text.contains("secret"), "{text}");
        let error = server.ended().unwrap_err();
        assert!(matches!(&error, ServeError::Engine(_)), "{error}");
        assert!(error.to_string().contains("sync the journal"), "{error}");
    }
}

/// Stores that do not answer, as a database that is away: reads and writes wait for them, and the service ends all the same.
#[test]
fn stores_that_do_not_answer_hold_up_no_stop() {
    for (path, body) in [("/v1/customers/1", None), ("/v1/requests", Some(deposit(1, 2, "1")))] {
        let config = new_config(Policy::default(), Currencies::default()).unwrap();
        let store = Failing::over(&config);
        let (hangs, is_waited_for) = (store.hangs.clone(), store.is_waited_for.clone());
        let ledger = Ledger::with_stores(config, store.clone(), store, LedgerOptions::default()).unwrap();
        let server =
            TestServer::of(ledger, None, Limits { stop_wait: Duration::from_millis(200), ..Limits::default() });
        server.applied(&deposit(1, 1, "1"));
        hangs.store(true, Ordering::Relaxed);
        let mut client = server.client();
        let (ended, told) = std::sync::mpsc::channel();
        let asking = std::thread::spawn(move || match body {
            None => client.try_call("GET", path, "", b"").is_ok(),
            Some(body) => client.try_call("POST", path, "application/json", body.as_bytes()).is_ok(),
        });
        while !is_waited_for.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::spawn(move || ended.send(server.stop()));
        told.recv_timeout(Duration::from_mins(1)).unwrap_or_else(|_| panic!("{path}: it does not stop")).unwrap();
        assert!(!asking.join().unwrap(), "{path} was answered");
        hangs.store(false, Ordering::Relaxed);
    }
}

/// What is counted can be read, as often as one likes, while the stores do not answer; and again as it is when they do.
#[test]
fn metrics_are_told_while_the_stores_do_not_answer() {
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let store = Failing::over(&config);
    let (hangs, is_waited_for) = (store.hangs.clone(), store.is_waited_for.clone());
    let ledger = Ledger::with_stores(config, store.clone(), store, LedgerOptions::default()).unwrap();
    let server = TestServer::of(
        ledger,
        None,
        Limits { reads_max: 2, read_wait: Duration::from_millis(10), ..Limits::default() },
    );
    let has = |lines: [&str; 2]| {
        let answer = server.get("/metrics");
        assert_eq!(answer.status, 200);
        let is_there = |line: &str| answer.text().contains(&format!("\nbursar_{line}\n"));
        lines.iter().all(|line| is_there(line))
    };
    server.applied(&deposit(1, 1, "1"));
    assert!(has(["stores_answer 1", "events 1"]));
    hangs.store(true, Ordering::Relaxed);
    let mut client = server.client();
    let asking = std::thread::spawn(move || client.submit(&deposit(1, 2, "1")).status);
    while !is_waited_for.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..3 {
        assert!(has(["stores_answer 0", "events 1"]));
    }
    // Of two places one is taken, however often the metrics were read.
    let mut reader = server.client();
    let reading = std::thread::spawn(move || reader.get("/v1/transactions/1").status);
    std::thread::sleep(Duration::from_millis(500)); // Where it finds no place, it is told so by then.
    hangs.store(false, Ordering::Relaxed);
    assert_eq!((asking.join().unwrap(), reading.join().unwrap()), (200, 200));
    assert!(has(["stores_answer 1", "events 2"]));
}

/// Requests that were sent before the stop are answered after it; connections that are idle are closed; then the
/// service ends by itself.
#[test]
fn what_is_under_way_is_answered() {
    let server = TestServer::new();
    let mut idle = server.client();
    assert_eq!(idle.get("/livez").status, 200);
    let mut under_way = server.client();
    let body = deposit(1, 1, "1");
    let head = format!(
        "POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    under_way.raw(head.as_bytes()).unwrap();
    // Until its handler waits for the body.
    while !server.get("/metrics").text().contains("\nbursar_http_requests_in_flight 2\n") {
        std::thread::sleep(Duration::from_millis(5));
    }
    server.stopper.stop();
    assert!(idle.is_closed());
    under_way.raw(body.as_bytes()).unwrap();
    assert_eq!(under_way.answer().unwrap().json()["outcome"], "applied");
    assert!(under_way.is_closed());
    let address = server.address;
    server.stop().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
}

/// Somebody who does not let go does not keep the service: not for longer than the limit, nor after a second stop.
#[test]
fn who_does_not_let_go_is_left_behind() {
    let hold = |server: &TestServer| {
        let mut client = server.client();
        client.begin("/v1/requests", "application/json");
        client.chunk(b"{").unwrap();
        while !server.get("/metrics").text().contains("\nbursar_http_requests_in_flight 2\n") {
            std::thread::sleep(Duration::from_millis(5));
        }
        client
    };
    let patient = Limits { body_wait: Duration::from_hours(1), ..Limits::default() };
    let server = TestServer::with_limits(Limits { stop_wait: Duration::from_millis(200), ..patient.clone() });
    let mut client = hold(&server);
    server.stop().unwrap();
    assert!(client.is_closed());

    let server = TestServer::with_limits(Limits { stop_wait: Duration::from_hours(1), ..patient });
    let mut client = hold(&server);
    server.stopper.stop();
    server.stop().unwrap();
    assert!(client.is_closed());
}
