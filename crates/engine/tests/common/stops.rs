//! A store that is cut off in the middle of its work.
#![allow(dead_code, unreachable_pub)] // each test uses a part

use bursar_engine::Totals;
use bursar_engine::core::commit::{Appended, Approval, Proposal, ProposeResult};
use bursar_engine::core::{CustomerId, EntryId, EventRef, EventStatus, Head, Record, TransactionEntry, TransactionId};
use bursar_engine::store::{
    ChainEntry, Chains, CustomerHead, ReadRange, SourceId, SourceMark, StoreError, Transactions,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A store that fails at a call, and ever after.
#[derive(Debug)]
pub struct Stops<S> {
    pub store: S,
    pub calls_left: AtomicU64,
}

impl<S> Stops<S> {
    pub fn new(store: S, calls: u64) -> Self {
        Self { store, calls_left: AtomicU64::new(calls) }
    }

    fn call(&self) -> Result<&S, StoreError> {
        let left = self.calls_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let error = || StoreError::Io {
            doing: "go on",
            path: "target".into(),
            error: Arc::new(std::io::Error::other("cut off")),
        };
        left.map(|_| &self.store).map_err(|_| error())
    }
}

impl<S: Chains> Chains for Stops<S> {
    fn whole_batches(&self) -> bool {
        self.store.whole_batches()
    }

    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        self.call()?.load(customers, heads)
    }

    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        self.call()?.append(records, results)
    }

    fn end_batch(&self, time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        self.call()?.end_batch(time_ms, mark)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.call()?.sync()
    }

    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        self.call()?.status(events, statuses)
    }

    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        self.call()?.read(customer, range, entries)
    }

    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError> {
        self.call()?.open_customers()
    }

    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError> {
        self.call()?.list(after, limit, heads)
    }

    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError> {
        self.call()?.source(source)
    }

    fn sources(&self) -> Result<Vec<SourceMark>, StoreError> {
        self.call()?.sources()
    }

    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError> {
        self.call()?.rejected_lines(source)
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.call()?.totals()
    }

    fn last_time_ms(&self) -> Result<u64, StoreError> {
        self.call()?.last_time_ms()
    }
}

impl<S: Transactions> Transactions for Stops<S> {
    fn get(&self, ids: &[EntryId], entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        self.call()?.get(ids, entries)
    }

    fn propose(&self, proposals: &[Proposal], results: &mut Vec<ProposeResult>) -> Result<(), StoreError> {
        self.call()?.propose(proposals, results)
    }

    fn approve(&self, approvals: &[Approval]) -> Result<(), StoreError> {
        self.call()?.approve(approvals)
    }

    fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, StoreError> {
        self.call()?.events_of(transaction)
    }
}
