//! Reading a ledger while writes go on: accounts, chains, transactions, sources, sums.
//!
//! A read goes to the stores directly, then waits until everything it may have seen is durable. So nobody is
//! ever told what a crash could take back, and no read waits for a lock of the deciding thread for long.

use super::Ledger;
use crate::driver::EngineError;
use crate::store::{ChainEntry, CustomerHead, ReadRange, SourceId, SourceMark, StoreError};
use crate::totals::Totals;
use bursar_core::commit::Receipt;
use bursar_core::{
    CustomerId, CustomerState, EventRef, EventStatus, Head, LinkedEvent, Proposed, Request, TransactionId,
    TransactionState,
};
use std::fmt;
use std::sync::{Arc, PoisonError};

/// Events that are read at once where many may be needed.
const READ_AT_ONCE: usize = 1_024;

/// Why a ledger could not be read.
#[derive(Clone, Debug)]
pub enum ReadError {
    /// A store failed.
    Store(StoreError),
    /// The engine stopped before it was certain that what was read is durable.
    Stopped(Arc<EngineError>),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Stopped(error) => write!(f, "the engine stopped: {error}"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Stopped(error) => Some(error.as_ref()),
        }
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A point in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// After the event with this sequence number, or the last one before it.
    Seq(u64),
    /// At this time, in milliseconds since 1970: after the last event that is not later.
    TimeMs(u64),
}

/// A transaction as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionView {
    /// Its state in effect; `None` while its first event is open.
    pub state: Option<TransactionState>,
    /// What an open event would make of it.
    pub pending: Option<Proposed>,
    /// The events that touched it and are in effect or open, oldest first.
    pub events: Vec<EventRef>,
}

impl Ledger {
    /// Waits until everything that a reader may have seen by now is durable.
    pub(super) fn wait_until_durable(&self) -> Result<(), ReadError> {
        let mut progress = self.shared.lock_progress();
        let seen = progress.begun;
        loop {
            if let Some(error) = &progress.stopped {
                return Err(ReadError::Stopped(error.clone()));
            }
            if progress.durable >= seen {
                return Ok(());
            }
            progress = self.shared.progressed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The head of a customer's chain: its accounts, whether it is locked, and any open event. `None` for a
    /// customer without a chain.
    pub fn customer(&self, customer: CustomerId) -> Result<Option<Head>, ReadError> {
        let mut heads = Vec::with_capacity(1);
        self.shared.readers.chains.load(&[customer], &mut heads)?;
        self.wait_until_durable()?;
        Ok(heads.pop().flatten())
    }

    /// The customers after `after` in order of id, up to `limit`, with their heads.
    pub fn customers(&self, after: Option<CustomerId>, limit: usize) -> Result<Vec<CustomerHead>, ReadError> {
        let mut heads = Vec::new();
        self.shared.chains.list(after, limit, &mut heads)?;
        self.wait_until_durable()?;
        Ok(heads)
    }

    /// A customer's state in the past; `None` if it had none yet.
    pub fn customer_as_of(&self, customer: CustomerId, as_of: AsOf) -> Result<Option<CustomerState>, ReadError> {
        let head = self.head_as_of(customer, as_of)?;
        Ok(head.map(|head| head.state).filter(|state| state.accounts.iter().next().is_some()))
    }

    /// The head of a customer's chain as it was; `None` if there was no event yet. An event counts from the time when it
    /// was begun, by how it stands now: one that was still open then, and is done now, is in effect.
    ///
    /// The chain is read from its newest event back to the one asked for.
    pub fn head_as_of(&self, customer: CustomerId, as_of: AsOf) -> Result<Option<Head>, ReadError> {
        let Some(now) = self.customer(customer)? else { return Ok(None) };
        let newest = now.seq + now.open.len() as u64;
        let to_seq = match as_of {
            AsOf::Seq(seq) => seq.min(newest),
            AsOf::TimeMs(time_ms) => self.first_after(customer, newest, time_ms)? - 1,
        };
        if to_seq == 0 {
            return Ok(None);
        }
        let mut head = Head::start(&self.config.digest(), customer);
        let mut range = ReadRange { from_seq: 1, to_seq, limit: 64, newest_first: true };
        let mut from_seq = 1;
        'back: loop {
            let entries = self.chain(customer, range)?;
            for entry in &entries {
                if entry.status == EventStatus::Done {
                    head.done(&entry.linked);
                    from_seq = entry.linked.event.seq + 1;
                    break 'back;
                }
            }
            match entries.last() {
                Some(oldest) if oldest.linked.event.seq > 1 => range.to_seq = oldest.linked.event.seq - 1,
                Some(_) | None => break,
            }
            range.limit = READ_AT_ONCE;
        }
        // What came behind it took no effect, but moved the head all the same.
        while from_seq <= to_seq {
            let range = ReadRange { from_seq, to_seq, limit: READ_AT_ONCE, newest_first: false };
            let entries = self.chain(customer, range)?;
            let Some(last) = entries.last() else { break };
            from_seq = last.linked.event.seq + 1;
            for entry in entries {
                head.take(entry.linked, &entry.status);
            }
        }
        Ok(Some(head))
    }

    /// The first event of a chain that is later than a time; one behind the newest if there is none. Times never go back
    /// along a chain. Steps back from the newest event, each time twice as far, so that it costs about what lies between.
    pub fn first_after(&self, customer: CustomerId, newest: u64, time_ms: u64) -> Result<u64, ReadError> {
        let is_later = |seq| -> Result<bool, ReadError> {
            let range = ReadRange { from_seq: seq, to_seq: seq, limit: 1, newest_first: false };
            Ok(self.chain(customer, range)?.first().is_some_and(|entry| entry.linked.event.time_ms > time_ms))
        };
        let (mut later, mut step) = (newest + 1, 1);
        let mut earlier = loop {
            let seq = later.saturating_sub(step);
            if seq == 0 || !is_later(seq)? {
                break seq;
            }
            (later, step) = (seq, step * 2);
        };
        while later - earlier > 1 {
            let middle = earlier + (later - earlier) / 2;
            if is_later(middle)? {
                later = middle;
            } else {
                earlier = middle;
            }
        }
        Ok(later)
    }

    /// A part of a customer's chain.
    pub fn chain(&self, customer: CustomerId, range: ReadRange) -> Result<Vec<ChainEntry>, ReadError> {
        let mut entries = Vec::new();
        self.shared.readers.chains.read(customer, range, &mut entries)?;
        self.wait_until_durable()?;
        Ok(entries)
    }

    /// The receipt of a deposit or withdrawal that took effect: of the event that made its transaction. `None` if there
    /// is no such transaction, or the request has none.
    pub fn receipt_of(&self, request: &Request) -> Result<Option<Receipt>, ReadError> {
        let Some(transaction) = request.action.transaction() else { return Ok(None) };
        let Some(view) = self.transaction(transaction)? else { return Ok(None) };
        let Some(&EventRef { customer, seq, .. }) = view.events.first() else { return Ok(None) };
        let range = ReadRange { from_seq: seq, to_seq: seq, limit: 1, newest_first: false };
        Ok(self.chain(customer, range)?.first().map(|entry| Receipt::of(&entry.linked)))
    }

    /// A transaction as it stands; `None` if nothing ever proposed it with effect.
    pub fn transaction(&self, transaction: TransactionId) -> Result<Option<TransactionView>, ReadError> {
        let super::Readers { chains, transactions } = &self.shared.readers;
        let mut entries = Vec::with_capacity(1);
        transactions.get(&[transaction.into()], &mut entries)?;
        let entry = entries.pop().unwrap_or_default();
        let (mut state, mut pending) = (entry.approved, None);
        if let Some(proposed) = entry.proposed {
            let mut statuses = Vec::with_capacity(1);
            chains.status(&[proposed.event], &mut statuses)?;
            match statuses.pop().flatten() {
                Some(EventStatus::Done | EventStatus::DoneByHand(_)) => state = Some(proposed.state),
                Some(EventStatus::Started) => pending = Some(proposed),
                Some(EventStatus::Aborted(_)) | None => {}
            }
        }
        let mut events = transactions.events_of(transaction)?;
        let mut statuses = Vec::with_capacity(events.len());
        chains.status(&events, &mut statuses)?;
        let mut in_effect_or_open = statuses.iter().map(|status| match status {
            Some(EventStatus::Started | EventStatus::Done | EventStatus::DoneByHand(_)) => true,
            Some(EventStatus::Aborted(_)) | None => false,
        });
        events.retain(|_| in_effect_or_open.next().unwrap_or(false));
        self.wait_until_durable()?;
        if state.is_none() && pending.is_none() {
            return Ok(None);
        }
        Ok(Some(TransactionView { state, pending, events }))
    }

    /// Events that are open, by customer.
    pub fn open_events(&self) -> Result<Vec<LinkedEvent>, ReadError> {
        let customers = self.shared.chains.open_customers()?;
        let mut heads = Vec::new();
        self.shared.chains.load(&customers, &mut heads)?;
        self.wait_until_durable()?;
        Ok(heads.into_iter().flatten().flat_map(|head| head.open).collect())
    }

    /// How far a source has been taken in; `None` for one never seen.
    pub fn source(&self, source: SourceId) -> Result<Option<SourceMark>, ReadError> {
        let mark = self.shared.chains.source(source)?;
        self.wait_until_durable()?;
        Ok(mark)
    }

    /// All sources ever seen, with how far they got.
    pub fn sources(&self) -> Result<Vec<SourceMark>, ReadError> {
        let marks = self.shared.chains.sources()?;
        self.wait_until_durable()?;
        Ok(marks)
    }

    /// Every row of a source that was rejected, by line and by place in [`bursar_core::Rejection::ALL`].
    pub fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, ReadError> {
        let lines = self.shared.chains.rejected_lines(source)?;
        self.wait_until_durable()?;
        Ok(lines)
    }

    /// The sums over the whole ledger.
    pub fn totals(&self) -> Result<Totals, ReadError> {
        let totals = self.shared.chains.totals()?;
        self.wait_until_durable()?;
        Ok(totals)
    }
}
