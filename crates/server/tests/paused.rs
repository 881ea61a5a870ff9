//! A webhook that is paused asks the stores for nothing, which others write to as well and are looked at all the time.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
#[path = "common/receiver.rs"]
mod receiver;

use bursar_core::commit::Appended;
use bursar_core::{Currencies, CustomerId, EventRef, EventStatus, Head, Policy, Record};
use bursar_engine::store::{
    ChainEntry, Chains, CustomerHead, Feed, FeedError, FeedItem, FeedPosition, MemoryStore, ReadRange, SourceId,
    SourceMark, StoreError,
};
use bursar_engine::{Ledger, LedgerOptions, Totals, new_config};
use common::{TestServer, deposit};
use receiver::{Receiver, SECRET};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A memory store that somebody else may write to as well, for all that is known; it counts how often it is asked.
#[derive(Debug)]
struct Shared {
    inner: Arc<MemoryStore>,
    looks: AtomicU64,
}

impl Shared {
    fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }
}

impl Feed for Shared {
    fn start(&self) -> FeedPosition {
        self.inner.feed().unwrap().start()
    }
    fn latest(&self) -> Result<FeedPosition, FeedError> {
        self.inner.feed().unwrap().latest()
    }
    fn read(&self, after: FeedPosition, limit: usize, items: &mut Vec<FeedItem>) -> Result<FeedPosition, FeedError> {
        self.inner.feed().unwrap().read(after, limit, items)
    }
    fn newest_mark(&self) -> Result<Option<u64>, FeedError> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Ok(Some(0))
    }
}

impl Chains for Shared {
    fn whole_batches(&self) -> bool {
        self.inner.whole_batches()
    }
    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        self.inner.load(customers, heads)
    }
    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        self.inner.append(records, results)
    }
    fn end_batch(&self, time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        self.inner.end_batch(time_ms, mark)
    }
    fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync()
    }
    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        self.inner.status(events, statuses)
    }
    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        Chains::read(&*self.inner, customer, range, entries)
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
    fn feed(&self) -> Option<&dyn Feed> {
        Some(self)
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_paused_webhook_looks_for_nothing() {
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let inner = Arc::new(MemoryStore::new(&config));
    let store = Arc::new(Shared { inner: inner.clone(), looks: AtomicU64::new(0) });
    let ledger = Ledger::with_stores(config, store.clone(), inner, LedgerOptions::default()).unwrap();
    let receiver = Receiver::new();
    let webhook =
        format!("name = \"books\"\nurl = \"{}\"\nsecret = \"{SECRET}\"\nfrom = \"beginning\"", receiver.url());
    let server = TestServer::with_webhooks(ledger, vec![toml::from_str(&webhook).unwrap()]);
    let post = |path: &str| {
        let path = format!("/v1/webhooks/books/{path}");
        assert_eq!(server.client().post(&path, "", "").status, 200);
    };
    let looks_on = |what: &str| {
        let before = store.looks();
        wait_until(what, || store.looks() > before + 3);
    };
    server.applied(&deposit(1, 1, "1"));
    receiver.wait_for(1);
    looks_on("it follows");
    post("pause");
    // Eight times as long as from one look to the next.
    let is_quiet = || {
        let before = store.looks();
        std::thread::sleep(Duration::from_secs(2));
        store.looks() == before
    };
    wait_until("it is paused and looks on", is_quiet);
    server.applied(&deposit(1, 2, "1"));
    assert_eq!(receiver.received().len(), 1);
    post("resume");
    assert_eq!(receiver.wait_for(2)[1].transaction(), 2);
    looks_on("it follows again");
}
