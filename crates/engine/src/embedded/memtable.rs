//! What the embedded store keeps in memory of the newest events: chain heads and transactions, with positions.
//!
//! Once it has grown to its limit it is frozen and written to index files ([`super::maintenance`]), and a new
//! one begins. Nothing here is the truth; all of it follows from the journal.

use super::heads::Heads;
use crate::by_id::ById;
use bursar_core::{Head, LinkedEvent, TransactionState};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// A hash table with a seed of its own in every process.
pub(crate) type Table<K, V> = HashMap<K, V, RandomState>;

/// A chain's head and where its newest record lies.
#[derive(Clone, Debug)]
pub(crate) struct MemoryHead {
    /// Without open events; those are in the store's own list.
    pub(crate) head: Head,
    /// The position of the newest record of the chain; `None` before the first.
    pub(crate) newest: Option<u64>,
    /// The sequence number of the newest event, open ones and those of the batch included.
    pub(crate) last_seq: u64,
    /// Not in any index file yet.
    pub(crate) is_new: bool,
}

impl MemoryHead {
    /// Reads something of each of the processor's lines that the head lies in.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        let Head { seq, link, time_ms, state, open } = &self.head;
        let link = u64::from(link.as_bytes()[0] ^ link.as_bytes()[31]);
        let account = state.accounts.first().map_or(0, |(_, account)| account.available.steps() ^ account.held.steps());
        let newest = self.newest.unwrap_or_default() ^ u64::from(self.is_new);
        seq ^ link ^ time_ms ^ account.cast_unsigned() ^ open.len() as u64 ^ newest ^ self.last_seq
    }
}

/// A transaction's state and what put it there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryTransaction {
    pub(crate) state: TransactionState,
    /// The position of the record by which its newest event took effect: the event's own, or the closing record
    /// of one that had been open. So it never lies before what the memtable covers.
    pub(crate) position: u64,
}

/// An open event and where it lies.
#[derive(Clone, Debug)]
pub(crate) struct OpenEvent {
    pub(crate) linked: LinkedEvent,
    pub(crate) position: u64,
}

/// Heads and transactions of the newest events.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    pub(super) heads: Heads,
    pub(crate) transactions: ById<MemoryTransaction>,
}
