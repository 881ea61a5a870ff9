//! The two stores that the commit protocol writes to, and what each promises.
//!
//! **Chains** hold the events and decide; the **transactions** table points to them. They may live in different
//! systems: the protocol in [`bursar_core::commit`] is what keeps them in step. Both traits are small and
//! blocking, with one call per batch. The module `conformance` (a feature) checks an implementation against what is said here.

mod error;
mod feed;
mod memory;

pub use error::{Damage, StoreError};
pub use feed::{Feed, FeedError, FeedItem, FeedPosition};
pub use memory::MemoryStore;

use crate::embedded::EmbeddedStore;
use crate::figures::CacheFigures;
use crate::totals::Totals;
use bursar_core::commit::{Appended, Approval, Batch, Proposal, ProposeResult};
use bursar_core::{
    CustomerId, EntryId, EventRef, EventStatus, Head, LinkedEvent, Record, TransactionEntry, TransactionId,
    TransactionState,
};
use std::fmt;

/// An event of a chain and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainEntry {
    /// The event and its hash.
    pub linked: LinkedEvent,
    /// How it stands.
    pub status: EventStatus,
}

/// Which part of a chain to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// Oldest first: begin with this sequence number. Newest first: end before going below it. The first is 1.
    pub from_seq: u64,
    /// Do not go above this sequence number.
    pub to_seq: u64,
    /// How many events at the most.
    pub limit: usize,
    /// From the newest to the oldest.
    pub newest_first: bool,
}

impl ReadRange {
    /// A whole chain, oldest event first.
    pub const ALL: Self = Self { from_seq: 1, to_seq: u64::MAX, limit: usize::MAX, newest_first: false };

    /// Adds this part of a whole chain in memory, oldest event first, to `entries`.
    pub fn read(&self, chain: &[ChainEntry], entries: &mut Vec<ChainEntry>) {
        let within = |entry: &&ChainEntry| (self.from_seq..=self.to_seq).contains(&entry.linked.event.seq);
        if self.newest_first {
            entries.extend(chain.iter().rev().filter(within).take(self.limit).cloned());
        } else {
            entries.extend(chain.iter().filter(within).take(self.limit).cloned());
        }
    }
}

/// Names a source of rows: the SHA-256 of its content, or of what it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub [u8; 32]);

/// How far a source has been taken in. It becomes durable together with the events that its rows caused, so
/// that an interrupted ingest goes on exactly where its last durable batch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceMark {
    /// Which source.
    pub source: SourceId,
    /// The offset behind the last row that was taken in, in bytes of the (decompressed) source.
    pub offset: u64,
    /// How many lines lie before that offset.
    pub line_count: u64,
    /// Everything was taken in.
    pub finished: bool,
    /// What has become of the rows so far.
    pub counts: RowCounts,
    /// Rows of this batch that were rejected, by line and by place in [`bursar_core::Rejection::ALL`]. Not
    /// carried on from batch to batch.
    pub rejected_lines: Vec<(u64, u8)>,
}

impl SourceMark {
    /// The mark of a source of which nothing was taken in yet.
    pub const fn new(source: SourceId) -> Self {
        let counts = RowCounts { applied: 0, already_applied: 0, rejected: 0, unreadable: 0 };
        Self { source, offset: 0, line_count: 0, finished: false, counts, rejected_lines: Vec::new() }
    }
}

/// How many rows of a source became what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows that made an event.
    pub applied: u64,
    /// Rows that had made theirs before.
    pub already_applied: u64,
    /// Rows that were refused.
    pub rejected: u64,
    /// Rows that could not be read.
    pub unreadable: u64,
}

impl RowCounts {
    /// All rows.
    pub const fn total(&self) -> u64 {
        self.applied + self.already_applied + self.rejected + self.unreadable
    }

    /// The sums of two.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            applied: self.applied + other.applied,
            already_applied: self.already_applied + other.already_applied,
            rejected: self.rejected + other.rejected,
            unreadable: self.unreadable + other.unreadable,
        }
    }

    /// What came behind an earlier count of the same rows.
    #[must_use]
    pub const fn minus(&self, earlier: &Self) -> Self {
        Self {
            applied: self.applied.saturating_sub(earlier.applied),
            already_applied: self.already_applied.saturating_sub(earlier.already_applied),
            rejected: self.rejected.saturating_sub(earlier.rejected),
            unreadable: self.unreadable.saturating_sub(earlier.unreadable),
        }
    }
}

/// A customer with the head of its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerHead {
    /// Who.
    pub customer: CustomerId,
    /// The head.
    pub head: Head,
}

/// The store of chains.
///
/// What was appended is seen by every later call: at once, or, where batches are whole, as soon as the batch has
/// ended. It is durable after [`Chains::sync`], in order: if a record of a chain is lost in a crash, so are all
/// later ones of that chain. A customer without any event is not shown by any call. Results are added to what
/// the caller's lists hold already.
pub trait Chains: Send + Sync + fmt::Debug {
    /// Whether a batch (all calls up to [`Chains::end_batch`]) takes effect as a whole or not at all, also
    /// across a crash, together with the transactions table.
    fn whole_batches(&self) -> bool;

    /// Begins a batch whose requests are decided one by one on what the store has, each in effect for the next. Only
    /// for stores that take whole batches and are the transactions table as well. `None`: not here, or not while
    /// events are open. Nothing else may be asked of the store by the same thread before the batch is ended.
    fn begin_whole(&self, time_ms: u64) -> Result<Option<Box<dyn WholeBatch + '_>>, StoreError> {
        let _ = time_ms;
        Ok(None)
    }

    /// Reads the heads of these customers, in this order; `None` for one without a chain.
    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError>;

    /// Appends records, and says for each what became of it.
    ///
    /// A `Started` is appended only at exactly the next `seq` of its chain, open events included; otherwise it
    /// is a `Conflict`. A `Done` or `Aborted` closes the oldest open event of the chain if that is the one named;
    /// the first one to do so wins, and who comes later hears what it decided. After a record that hears
    /// anything but `Yes` or what it asked for, all later `Started` and `Done` records of that chain in this call
    /// are a `Conflict`; an `Aborted` is judged by itself ([`Appended`]).
    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError>;

    /// Ends a batch; `mark` says how far a source got with it.
    fn end_batch(&self, time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError>;

    /// Makes every ended batch durable. May run beside the other calls: batches that end meanwhile are made
    /// durable by the next call. After an error the store is poisoned: it is never tried again.
    fn sync(&self) -> Result<(), StoreError>;

    /// How these events stand, in this order; `None` for one that its chain does not have.
    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError>;

    /// Reads a part of a chain; adds the events to `entries`.
    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError>;

    /// Customers with an open event.
    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError>;

    /// The customers after `after` in order of id, up to `limit`, with their heads.
    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError>;

    /// How far a source has been taken in; `None` for one never seen.
    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError>;

    /// All sources ever seen, with how far they got.
    fn sources(&self) -> Result<Vec<SourceMark>, StoreError>;

    /// Every row of a source that was rejected, by line and by place in [`bursar_core::Rejection::ALL`], in
    /// order. May read all there is.
    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError>;

    /// The sums over the whole ledger.
    fn totals(&self) -> Result<Totals, StoreError>;

    /// The time of the newest event, in milliseconds since 1970; 0 where there is none.
    fn last_time_ms(&self) -> Result<u64, StoreError>;

    /// The records of all chains in one order; `None` for a store that cannot give them.
    fn feed(&self) -> Option<&dyn Feed> {
        None
    }

    /// The embedded store that the chains live in, if they do: for its figures, for an orderly end, and for whoever
    /// keeps files beside it. A store in front of another one hands on what that one says.
    fn embedded(&self) -> Option<&EmbeddedStore> {
        None
    }

    /// What a cache counts that is in front of the stores; `None` where there is none.
    fn cache_figures(&self) -> Option<CacheFigures> {
        None
    }
}

/// A batch that a store takes whole, while it is made.
pub trait WholeBatch {
    /// Says what [`WholeBatch::find`] will be asked for next, in this order, so that the store can bring it to hand.
    fn expect(&mut self, requests: &[(CustomerId, Option<TransactionId>)]);

    /// What a request is decided on: the head of a customer's chain, the beginning of one where there is none, and
    /// the state in effect of a transaction.
    fn find(
        &mut self,
        customer: CustomerId,
        transaction: Option<TransactionId>,
    ) -> Result<(&Head, Option<&TransactionState>), StoreError>;

    /// Appends an event, in effect at once, that was made for what was found last.
    fn append_done(&mut self, linked: &LinkedEvent) -> Result<(), StoreError>;

    /// Ends the batch, as [`Chains::end_batch`] does. A batch that is dropped instead leaves a store that must not be
    /// used any more.
    fn end(self: Box<Self>, mark: Option<&SourceMark>) -> Result<(), StoreError>;
}

/// The transactions table: an entry for each transaction, and for each key of a request. Both are written alike, and are
/// spaces of their own ([`EntryId`]).
///
/// What is proposed is durable when the call returns, or becomes durable with the chains' records of the same
/// batch and never after them.
pub trait Transactions: Send + Sync + fmt::Debug {
    /// Reads these entries, in this order; an empty entry for one that is unknown.
    fn get(&self, ids: &[EntryId], entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError>;

    /// As [`Transactions::get`], for the entries that a batch needs ([`Batch::transactions`]). A store that can tell of a
    /// transaction that it exists more cheaply than how it stands may look what the batch needs ([`Batch::only_makes`]).
    fn get_for(&self, batch: &Batch, entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        self.get(batch.transactions(), entries)
    }

    /// Writes proposed states, in order, each under its condition; says for each what became of it.
    fn propose(&self, proposals: &[Proposal], results: &mut Vec<ProposeResult>) -> Result<(), StoreError>;

    /// Turns proposed states into approved ones, where the entry proposes that very event. May be put off until the
    /// next proposal on the transaction, or lost in a crash: readers settle what is proposed. The entry goes on naming
    /// the event as its proposed one, unless batches are whole: then nobody else writes, and an event that is `Done`
    /// may be the approved state by itself. The entry of a key names its event in any case: who asks with the key hears
    /// what that event was.
    fn approve(&self, approvals: &[Approval]) -> Result<(), StoreError>;

    /// The events that touched a transaction, oldest first. Those that are aborted or unknown may be among them: the
    /// table does not know how an event stands, and who asks settles that with [`Chains::status`].
    fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, StoreError>;
}
