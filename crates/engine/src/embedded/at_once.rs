//! A batch that is decided at once: each event goes into the frame, and into memory, as it is made.
//!
//! What is open stays out of it: whoever decides at once knows of no open event and of no proposal, and the batch is
//! not begun if there are some after all. The frame is ended as that of any other batch ([`super::batch`]), before
//! anybody else sees the store: heads in memory point into it already.

use super::batch::FrameBatch;
use super::heads::{HeadPlace, empty_head};
use super::index::Expected;
use super::memtable::MemoryTransaction;
use super::record::{Place, put_event};
use super::store::{EmbeddedStore, State};
use crate::store::{SourceMark, StoreError, WholeBatch};
use bursar_core::{CustomerId, Head, LinkedEvent, RequestKind, TransactionId, TransactionState};
use std::sync::MutexGuard;

/// The batch being made. Nobody else sees the store meanwhile.
#[derive(Debug)]
struct AtOnce<'a> {
    store: &'a EmbeddedStore,
    state: MutexGuard<'a, State>,
    time_ms: u64,
    /// Where the batch's frame will lie.
    frame: u64,
    /// What was seen ahead of the requests that come next, in their order.
    expected: Vec<Expected>,
    /// How many of them have come.
    came: usize,
    /// What was found last: the customer's head, and where the transaction's newest event in effect lies.
    found: Option<(HeadPlace, Option<u64>)>,
    /// That head.
    head: Head,
    /// The transaction that was looked for in index files last. What is found in memory is not copied.
    fetched: Option<MemoryTransaction>,
}

impl EmbeddedStore {
    /// Begins a batch to be decided at once; `None` where something is open.
    pub(super) fn begin_at_once(&self, time_ms: u64) -> Option<Box<dyn WholeBatch + '_>> {
        let shared = &*self.shared;
        let mut state = shared.lock();
        if !state.open.is_empty() || !state.batch.is_empty() {
            return None;
        }
        // Nothing is open: what was proposed is decided.
        state.proposals.clear();
        let frame = shared.journal.next_frame_position();
        state.batch.frame.begin();
        let mut expected = std::mem::take(&mut state.batch.expected);
        expected.clear();
        Some(Box::new(AtOnce {
            store: self,
            state,
            time_ms,
            frame,
            expected,
            came: 0,
            found: None,
            head: empty_head(),
            fetched: None,
        }))
    }
}

impl WholeBatch for AtOnce<'_> {
    fn expect(&mut self, requests: &[(CustomerId, Option<TransactionId>)]) {
        self.came = 0;
        self.expected.clear();
        self.state.index.expect(requests, &mut self.expected);
    }

    fn find(
        &mut self,
        customer: CustomerId,
        transaction: Option<TransactionId>,
    ) -> Result<(&Head, Option<&TransactionState>), StoreError> {
        let index = &mut self.state.index;
        let expected = self.expected.get(self.came).copied();
        let expected = expected.filter(|expected| expected.about == (customer, transaction));
        self.came += 1;
        let mut place = expected.and_then(|expected| expected.place);
        if place.is_none() {
            place = index.head_place(customer, 0)?;
        }
        let place = place.unwrap_or_else(|| {
            let head = Head::start(&self.store.shared.ledger_digest, customer);
            index.begin_head(customer, &head)
        });
        index.read_head(place, &mut self.head);
        let known = match transaction {
            Some(transaction) if expected.is_some_and(|expected| expected.not_in_files) => {
                index.transaction_in_memory(transaction)
            }
            Some(transaction) => {
                self.fetched = index.transaction(&self.store.shared.journal, transaction)?;
                self.fetched.as_ref()
            }
            None => None,
        };
        self.found = Some((place, known.map(|known| known.position)));
        Ok((&self.head, known.map(|known| &known.state)))
    }

    fn append_done(&mut self, linked: &LinkedEvent) -> Result<(), StoreError> {
        let Some((place, known_at)) = self.found.take() else {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "nothing was found for the event");
            let path = self.store.path().to_owned();
            return Err(StoreError::Io { doing: "append an event", path, error: std::sync::Arc::new(error) });
        };
        let event = &linked.event;
        let transaction_previous = match event.kind {
            RequestKind::Dispute | RequestKind::Resolve | RequestKind::Chargeback => known_at,
            RequestKind::Deposit | RequestKind::Withdrawal | RequestKind::Unlock => None,
        };
        let FrameBatch { bytes, record_count } = &mut self.state.batch.frame;
        let at = Place { frame: self.frame, offset: bytes.len() as u64 };
        *record_count += 1;
        let mut head = self.state.index.head_at(place);
        let previous = head.move_newest(at.position());
        head.done(linked);
        put_event(&mut self.state.batch.frame.bytes, at, self.time_ms, linked, true, previous, transaction_previous);
        self.state.last_time_ms = self.state.last_time_ms.max(event.time_ms);
        self.state.totals.begun(event);
        self.state.take_effect(linked, at.position());
        Ok(())
    }

    fn end(self: Box<Self>, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        let Self { store, mut state, time_ms, expected, .. } = *self;
        state.batch.expected = expected;
        let ended = state.write_batch(&store.shared, time_ms, mark);
        drop(state);
        store.batch_ended(ended)
    }
}
