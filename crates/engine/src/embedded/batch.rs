//! The batch being gathered, and its way into a frame.

use super::frame::{BODY_BYTES_MAX, HEADER_BYTES};
use super::index::Expected;
use super::memtable::{OpenEvent, Table};
use super::record::{Place, put_closing, put_event, put_mark};
use super::store::{Shared, State};
use crate::store::{SourceMark, StoreError};
use bursar_core::{CustomerId, EntryId, EventRef, EventStatus, LinkedEvent, RequestKind, TransactionState};

/// An event that the batch began, and how it stands so far.
#[derive(Debug)]
pub(super) struct BatchEvent {
    pub(super) linked: LinkedEvent,
    pub(super) status: EventStatus,
}

/// Everything since the last frame.
#[derive(Debug, Default)]
pub(super) struct OpenBatch {
    pub(super) started: Vec<BatchEvent>,
    /// Events that earlier frames began and this batch closes.
    pub(super) closings: Vec<(OpenEvent, EventStatus)>,
    /// Approved states by what was proposed within this batch.
    pub(super) proposed_approved: Table<EntryId, Option<TransactionState>>,
    /// Where the next closing probably belongs: they come in the order of the events.
    cursor: usize,
    /// Kept for its room; see [`super::at_once`].
    pub(super) expected: Vec<Expected>,
    /// What is in the batch's frame already.
    pub(super) frame: FrameBatch,
}

/// A frame being filled: room for its header, and records.
#[derive(Debug, Default)]
pub(super) struct FrameBatch {
    pub(super) bytes: Vec<u8>,
    pub(super) record_count: u32,
}

impl FrameBatch {
    pub(super) fn begin(&mut self) {
        self.record_count = 0;
        self.bytes.clear();
        self.bytes.resize(HEADER_BYTES, 0);
    }
}

impl OpenBatch {
    pub(super) fn is_empty(&self) -> bool {
        self.started.is_empty() && self.closings.is_empty() && self.frame.record_count == 0
    }

    /// The place of an event that this batch began and did not close yet.
    pub(super) fn find_started(&mut self, event: &EventRef) -> Option<usize> {
        let fits = |started: &BatchEvent| {
            started.status == EventStatus::Started
                && started.linked.event.seq == event.seq
                && started.linked.event.customer == event.customer
                && started.linked.id() == event.id
        };
        let count = self.started.len();
        let index = (self.cursor..count).chain(0..self.cursor.min(count)).find(|&index| fits(&self.started[index]))?;
        self.cursor = index + 1;
        Some(index)
    }
}

impl State {
    /// Writes the batch as a frame into the journal, and takes it into memory. Gives whether memory is full.
    pub(super) fn write_batch(
        &mut self,
        shared: &Shared,
        time_ms: u64,
        mark: Option<&SourceMark>,
    ) -> Result<bool, StoreError> {
        let mut started = std::mem::take(&mut self.batch.started);
        let closings = std::mem::take(&mut self.batch.closings);
        if self.batch.frame.record_count == 0 {
            self.batch.frame.begin();
        }
        let FrameBatch { mut bytes, mut record_count } = std::mem::take(&mut self.batch.frame);
        let frame = shared.journal.next_frame_position();
        // Where no event is left open, nothing is proposed any more; that is said once, and not for each event.
        if self.open.is_empty() && started.iter().all(|event| event.status != EventStatus::Started) {
            self.proposals.clear();
        }
        for (open, status) in &closings {
            self.write_closing(&mut bytes, frame, open, status);
            record_count += 1;
        }
        for BatchEvent { linked, status } in started.drain(..) {
            record_count += self.write_event(shared, &mut bytes, frame, time_ms, linked, &status)?;
        }
        if let Some(mark) = mark {
            let place = Place { frame, offset: bytes.len() as u64 };
            put_mark(&mut bytes, place, mark);
            let kept = SourceMark { rejected_lines: Vec::new(), ..mark.clone() };
            self.sources.insert(mark.source, kept);
            record_count += 1;
        }
        if record_count > 0 {
            if bytes.len() > BODY_BYTES_MAX {
                return Err(StoreError::BatchTooLarge { bytes: bytes.len() as u64, bytes_max: BODY_BYTES_MAX as u64 });
            }
            shared.journal.append(&mut bytes, time_ms, record_count);
        }
        self.batch.started = started;
        self.batch.frame.bytes = bytes;
        self.batch.cursor = 0;
        self.batch.proposed_approved.clear();
        self.index.forget_fetched();
        self.index.make_room();
        Ok(self.index.is_full(shared.options.memtable_entries_max))
    }

    /// Writes an event, with its end in a record of its own if it was aborted at once. Gives the count of
    /// records.
    fn write_event(
        &mut self,
        shared: &Shared,
        bytes: &mut Vec<u8>,
        frame: u64,
        time_ms: u64,
        linked: LinkedEvent,
        status: &EventStatus,
    ) -> Result<u32, StoreError> {
        let place = Place { frame, offset: bytes.len() as u64 };
        let position = place.position();
        let event = &linked.event;
        let transaction_previous = match (event.kind, event.transaction) {
            (RequestKind::Dispute | RequestKind::Resolve | RequestKind::Chargeback, Some(transaction)) => {
                self.index.transaction(&shared.journal, transaction)?.map(|found| found.position)
            }
            (_, _) => None,
        };
        let previous = self.move_newest(event.customer, position);
        let done = *status == EventStatus::Done;
        put_event(bytes, place, time_ms, &linked, done, previous, transaction_previous);
        self.last_time_ms = self.last_time_ms.max(event.time_ms);
        self.totals.begun(event);
        if done {
            self.take_effect(&linked, position);
            return Ok(1);
        }
        let open = OpenEvent { linked, position };
        if *status != EventStatus::Started {
            self.write_closing(bytes, frame, &open, status);
            return Ok(2);
        }
        self.open.entry(open.linked.event.customer).or_default().push_back(open);
        Ok(1)
    }

    fn write_closing(&mut self, bytes: &mut Vec<u8>, frame: u64, open: &OpenEvent, status: &EventStatus) {
        let place = Place { frame, offset: bytes.len() as u64 };
        let event = open.linked.reference();
        let previous = self.move_newest(event.customer, place.position()).unwrap_or(open.position);
        put_closing(bytes, place, &event, status, previous, open.position);
        self.take_closing(place.position(), open, status);
    }

    /// Takes the end of an open event, recorded at `position`, into memory.
    pub(super) fn take_closing(&mut self, position: u64, open: &OpenEvent, status: &EventStatus) {
        match status {
            EventStatus::Done | EventStatus::DoneByHand(_) => self.take_effect(&open.linked, position),
            EventStatus::Started | EventStatus::Aborted(_) => {
                self.totals.aborted();
                for (entry, _) in open.linked.event.entries() {
                    self.drop_proposal(entry, &open.linked);
                }
            }
        }
    }

    /// Notes where a chain's newest record lies now; gives where the one before lies.
    fn move_newest(&mut self, customer: CustomerId, position: u64) -> Option<u64> {
        self.index.count_record();
        self.index.loaded_head_mut(customer)?.move_newest(position)
    }
}
