//! What the embedded store keeps in memory of the newest events: transactions and keys, with positions. Heads of chains
//! are beside it ([`super::heads`]).
//!
//! Once it has grown to its limit it is frozen and written to index files ([`super::maintenance`]), and a new
//! one begins. Nothing here is the truth; all of it follows from the journal.

use crate::by_id::ById;
use bursar_core::{EventRef, LinkedEvent, RequestKey, TransactionState};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// A hash table with a seed of its own in every process.
pub(crate) type Table<K, V> = HashMap<K, V, RandomState>;

/// A transaction's state and what put it there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryTransaction {
    pub(crate) state: TransactionState,
    /// The position of the record by which its newest event took effect: the event's own, or the closing record
    /// of one that had been open. So it never lies before what the memtable covers.
    pub(crate) position: u64,
}

/// The event in effect that has a key, and what put it in effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryKey {
    pub(crate) event: EventRef,
    /// What the event proposed for the key's entry of the table.
    pub(crate) state: TransactionState,
    /// As that of a [`MemoryTransaction`].
    pub(crate) position: u64,
}

impl MemoryKey {
    pub(crate) fn of(linked: &LinkedEvent, position: u64) -> Self {
        Self { event: linked.reference(), state: linked.event.key_state(), position }
    }
}

/// An open event and where it lies.
#[derive(Clone, Debug)]
pub(crate) struct OpenEvent {
    pub(crate) linked: LinkedEvent,
    pub(crate) position: u64,
}

/// Transactions and keys of the newest events.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    pub(crate) transactions: ById<MemoryTransaction>,
    pub(crate) keys: Table<RequestKey, MemoryKey>,
}

impl Memtable {
    /// Without entries, but with the room for as many.
    pub(crate) fn emptied(mut self) -> Self {
        self.transactions.clear();
        self.keys.clear();
        self
    }
}
