//! Finding: from a customer to the head of its chain, from a transaction to its newest event in effect, from a key of a
//! request to the event in effect that has it.
//!
//! Newest first: the memtable, the frozen memtable that is being written to index files, then the index files.
//! The index is derived and never the truth; a lookup that needs a transaction's state from an index file reads
//! the event itself in the journal.

use super::checkpoint::Checkpoint;
use super::heads::{HeadMut, HeadPlace, Heads, NewHeads};
use super::journal::Journal;
use super::ledger_file::Holds;
use super::memtable::{MemoryKey, MemoryTransaction, Memtable, OpenEvent, Table};
use super::record::StoredEvent;
use super::run::{CustomerRun, TransactionRun, fingerprint, key_fingerprint};
use crate::store::{CustomerHead, StoreError};
use bursar_core::{CustomerId, Head, RequestKey, TransactionId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// A memtable that no longer changes, and what will be true once it is in index files.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) memtable: Memtable,
    pub(super) heads: NewHeads,
    /// The checkpoint for its end, still without its index files.
    pub(super) checkpoint: Checkpoint,
}

/// The open index files, newest first, each kind by itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    pub(super) transactions: Vec<Arc<TransactionRun>>,
    pub(super) customers: Vec<Arc<CustomerRun>>,
}

/// Customers in order, made for listing.
#[derive(Debug)]
struct InOrder {
    customers: BTreeSet<CustomerId>,
    /// How many of those with new heads are in it.
    new_count: usize,
}

/// What was seen ahead of a request. True until the batch ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// What the request is about: its customer and its transaction.
    pub(super) about: (CustomerId, Option<TransactionId>),
    /// Where its customer's head lies; `None` where it is not in memory.
    pub(super) place: Option<HeadPlace>,
    /// No index file has its transaction.
    pub(super) not_in_files: bool,
}

/// The index of an open ledger.
#[derive(Debug)]
pub(super) struct Index {
    ledger: [u8; 16],
    /// Where the chains are alone, transactions and keys are looked up elsewhere, and nothing is kept of them.
    holds: Holds,
    active: Memtable,
    /// An empty one with the room of one that was frozen, so that memory need not be asked for again and again.
    spare: Memtable,
    /// Heads that changed since the memtable was begun, and others for speed. What is frozen stays in here until it is
    /// in index files.
    heads: Heads,
    heads_max: usize,
    /// How many records of chains alone came since the memtable was begun.
    records: usize,
    pub(super) frozen: Option<Arc<Frozen>>,
    pub(super) runs: Runs,
    /// What index files said during this batch, so that it is read once.
    fetched: Table<TransactionId, Option<MemoryTransaction>>,
    /// Customers that may be in no index file, in order; made for listing.
    in_order: Option<InOrder>,
    /// Kept for its room.
    hashes: Vec<u64>,
    /// As `hashes`: which requests have a transaction that some file may have, by its range.
    may_be_in_files: Vec<(usize, u64)>,
    positions: Vec<u64>,
    pub(super) lookups: Lookups,
}

/// How often something was looked for, and how often memory did not have it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lookups {
    pub(super) heads: u64,
    pub(super) heads_from_files: u64,
    pub(super) transactions: u64,
    pub(super) transactions_from_files: u64,
}

impl Index {
    /// `heads_max` is how many heads are kept in memory; those that no index file has stay in any case.
    pub(super) fn new(ledger: [u8; 16], holds: Holds, runs: Runs, heads_max: usize) -> Self {
        Self {
            ledger,
            holds,
            active: Memtable::default(),
            spare: Memtable::default(),
            heads: Heads::default(),
            heads_max,
            records: 0,
            frozen: None,
            runs,
            fetched: Table::default(),
            in_order: None,
            hashes: Vec::new(),
            may_be_in_files: Vec::new(),
            positions: Vec::new(),
            lookups: Lookups::default(),
        }
    }

    /// Reads the heads that are in memory, and does nothing with them; see [`Heads::touch`].
    pub(super) fn warm_heads(&mut self, customers: impl Iterator<Item = CustomerId>) {
        let Self { heads, hashes, .. } = self;
        hashes.clear();
        hashes.extend(customers.map(|customer| heads.hash(customer)));
        heads.touch(hashes);
    }

    /// As [`Index::warm_heads`], also for transactions; says what it has seen on the way.
    pub(super) fn expect(&mut self, requests: &[(CustomerId, Option<TransactionId>)], expected: &mut Vec<Expected>) {
        self.lookups.heads += requests.len() as u64;
        self.lookups.transactions += requests.len() as u64;
        self.warm_heads(requests.iter().map(|(customer, _)| *customer));
        let seen = |(&about, &hash): (&(CustomerId, _), &u64)| {
            let place = self.heads.place_of(about.0, hash);
            Expected { about, place, not_in_files: false }
        };
        expected.extend(requests.iter().zip(&self.hashes).map(seen));
        let transactions = requests.iter().filter_map(|(_, transaction)| *transaction);
        let memtables = [Some(&self.active), self.frozen.as_ref().map(|frozen| &frozen.memtable)];
        for memtable in memtables.into_iter().flatten() {
            let at_hand = transactions.clone().filter(|&transaction| memtable.transactions.is_at_hand(transaction));
            std::hint::black_box(at_hand.count());
        }
        self.look_in_files(expected);
    }

    /// Says of which requests the transaction is in no index file.
    fn look_in_files(&mut self, expected: &mut [Expected]) {
        let Self { runs: Runs { transactions: runs, .. }, ledger, may_be_in_files, .. } = self;
        may_be_in_files.clear();
        for (at, Expected { about: (_, transaction), not_in_files, .. }) in expected.iter_mut().enumerate() {
            *not_in_files = true;
            if let Some(id) = transaction.map(TransactionId::bits)
                && runs.iter().any(|run| run.ids().contains(id))
            {
                may_be_in_files.push((at, fingerprint(ledger, id)));
            }
        }
        // File by file: the answers do not depend on each other, so that the processor waits for many at once.
        for run in runs {
            for &(at, hash) in &*may_be_in_files {
                expected[at].not_in_files &= !run.may_contain(hash);
            }
        }
    }

    /// Whether index files may have a transaction; `false` is certain.
    fn may_be_in_files(&self, id: u128) -> bool {
        let mut runs = self.runs.transactions.iter().filter(|run| run.ids().contains(id)).peekable();
        if runs.peek().is_none() {
            return false;
        }
        let hash = fingerprint(&self.ledger, id);
        runs.any(|run| run.may_contain(hash))
    }

    /// The head of a chain, brought into memory; `None` for a customer without a chain. `open_count` is how
    /// many open events follow the head.
    pub(super) fn head_mut(
        &mut self,
        customer: CustomerId,
        open_count: u64,
    ) -> Result<Option<HeadMut<'_>>, StoreError> {
        let place = self.head_place(customer, open_count)?;
        Ok(place.map(|place| self.heads.at(place)))
    }

    /// As [`Index::head_mut`]; gives where the head lies in memory until the batch ends.
    pub(super) fn head_place(
        &mut self,
        customer: CustomerId,
        open_count: u64,
    ) -> Result<Option<HeadPlace>, StoreError> {
        if let Some(place) = self.heads.place(customer) {
            return Ok(Some(place));
        }
        self.lookups.heads_from_files += u64::from(!self.runs.customers.is_empty());
        let Some((head, newest)) = find_head(&self.runs, customer)? else { return Ok(None) };
        let place = self.heads.insert(customer, &head, Some(newest), head.seq.saturating_add(open_count));
        Ok(Some(place))
    }

    /// Reads a head that is in memory, without open events.
    #[inline]
    pub(super) fn read_head(&self, place: HeadPlace, head: &mut Head) {
        self.heads.read(place, head);
    }

    #[inline]
    pub(super) fn head_at(&mut self, place: HeadPlace) -> HeadMut<'_> {
        self.heads.at(place)
    }

    /// The head of a chain that is in memory already.
    pub(super) fn loaded_head_mut(&mut self, customer: CustomerId) -> Option<HeadMut<'_>> {
        self.heads.place(customer).map(|place| self.heads.at(place))
    }

    /// Brings in the head of a chain that has none anywhere.
    pub(super) fn begin_head(&mut self, customer: CustomerId, head: &Head) -> HeadPlace {
        self.heads.insert(customer, head, None, head.seq)
    }

    /// Forgets heads where there are too many. Their places are good for somebody else's heads then.
    pub(super) fn make_room(&mut self) {
        // What is frozen is in no file yet, and not marked any more.
        if self.frozen.is_none() {
            self.heads.make_room(self.heads_max);
        }
    }

    /// The newest event in effect on a transaction.
    pub(super) fn transaction(
        &mut self,
        journal: &Journal,
        transaction: TransactionId,
    ) -> Result<Option<MemoryTransaction>, StoreError> {
        if let Some(found) = self.transaction_in_memory(transaction) {
            return Ok(Some(*found));
        }
        if let Some(found) = self.fetched.get(&transaction) {
            return Ok(*found);
        }
        if !self.may_be_in_files(transaction.bits()) {
            return Ok(None);
        }
        self.lookups.transactions_from_files += 1;
        let found = self.fetch(journal, transaction)?;
        self.fetched.insert(transaction, found);
        Ok(found)
    }

    /// As [`Index::transaction`], without what only index files have.
    pub(super) fn transaction_in_memory(&self, transaction: TransactionId) -> Option<&MemoryTransaction> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.memtable.transactions.get(transaction));
        self.active.transactions.get(transaction).or_else(frozen)
    }

    fn fetch(
        &mut self,
        journal: &Journal,
        transaction: TransactionId,
    ) -> Result<Option<MemoryTransaction>, StoreError> {
        let id = transaction.bits();
        let hash = fingerprint(&self.ledger, id);
        let of_it = |event: &StoredEvent| event.linked.event.transaction == Some(transaction);
        let found = self.fetch_event(journal, hash, |run| run.ids().contains(id), of_it)?;
        Ok(found.and_then(|(event, position)| {
            Some(MemoryTransaction { state: event.linked.event.transaction_state()?, position })
        }))
    }

    /// The newest event in effect that index files lead to and that is one of those meant.
    fn fetch_event(
        &mut self,
        journal: &Journal,
        hash: u64,
        covers: impl Fn(&TransactionRun) -> bool,
        is_meant: impl Fn(&StoredEvent) -> bool,
    ) -> Result<Option<(StoredEvent, u64)>, StoreError> {
        for run in &self.runs.transactions {
            if !covers(run) || !run.may_contain(hash) {
                continue;
            }
            self.positions.clear();
            run.candidates(hash, &mut self.positions)?;
            for &position in &self.positions {
                let event = journal.effect(position, &mut None)?;
                if let Some(event) = event.filter(|event| is_meant(event)) {
                    return Ok(Some((event, position)));
                }
            }
        }
        Ok(None)
    }

    /// The event in effect that has a key.
    pub(super) fn key(&mut self, journal: &Journal, key: RequestKey) -> Result<Option<MemoryKey>, StoreError> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.memtable.keys.get(&key));
        if let Some(found) = self.active.keys.get(&key).or_else(frozen) {
            return Ok(Some(*found));
        }
        let hash = key_fingerprint(&self.ledger, key);
        let has_it = |event: &StoredEvent| event.linked.event.key == Some(key);
        let found = self.fetch_event(journal, hash, |_| true, has_it)?;
        Ok(found.map(|(event, position)| MemoryKey::of(&event.linked, position)))
    }

    /// Whether transactions and keys are kept here.
    pub(super) const fn has_table(&self) -> bool {
        match self.holds {
            Holds::Everything => true,
            Holds::ChainsAlone => false,
        }
    }

    pub(super) fn insert_key(&mut self, key: RequestKey, found: MemoryKey) {
        if self.has_table() {
            self.active.keys.insert(key, found);
        }
    }

    pub(super) fn insert_transaction(&mut self, transaction: TransactionId, found: MemoryTransaction) {
        if self.has_table() {
            self.active.transactions.insert(transaction, found);
        }
    }

    /// Counts a record. Of chains alone nothing but heads stays in memory, which may be few for ever; so that an opening
    /// costs what came lately all the same, records fill the memtable.
    pub(super) const fn count_record(&mut self) {
        if !self.has_table() {
            self.records += 1;
        }
    }

    /// How many transactions and customers in memory are in no index file yet.
    pub(super) fn entry_count(&self) -> usize {
        let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.memtable.transactions.len() + frozen.heads.len());
        self.active.transactions.len() + self.heads.new_customers().len() + frozen
    }

    /// Forgets what index files said: the batch is over.
    pub(super) fn forget_fetched(&mut self) {
        if !self.fetched.is_empty() {
            self.fetched.clear();
        }
    }

    /// Whether the memtable is at its limit.
    pub(super) fn is_full(&self, entries_max: usize) -> bool {
        let table = self.active.transactions.len() + self.active.keys.len();
        table.max(self.records).max(self.heads.new_customers().len()) >= entries_max
    }

    /// Whether the memtable has anything that no index file has.
    pub(super) fn has_news(&self) -> bool {
        !self.active.transactions.is_empty() || !self.active.keys.is_empty() || self.heads.new_customers().len() > 0
    }

    /// Freezes the memtable and begins a new one.
    pub(super) fn freeze(&mut self, checkpoint: Checkpoint) {
        let memtable = std::mem::replace(&mut self.active, std::mem::take(&mut self.spare));
        self.records = 0;
        self.in_order = None;
        self.frozen = Some(Arc::new(Frozen { memtable, heads: self.heads.take_new(), checkpoint }));
    }

    /// Takes back the room of a memtable that is in index files by now.
    pub(super) fn keep_room_of(&mut self, empty: Memtable) {
        self.spare = empty;
    }

    /// The customers after `after`, in order, with their heads and open events: from memory and all index files.
    pub(super) fn list(
        &mut self,
        after: Option<CustomerId>,
        limit: usize,
        open: &BTreeMap<CustomerId, VecDeque<OpenEvent>>,
        heads: &mut Vec<CustomerHead>,
    ) -> Result<(), StoreError> {
        let bound = after.map_or(Bound::Unbounded, Bound::Excluded);
        let in_order = self.in_order.get_or_insert_with(|| InOrder {
            customers: self.frozen.iter().flat_map(|frozen| frozen.heads.customers()).collect(),
            new_count: 0,
        });
        in_order.customers.extend(self.heads.new_customers().skip(in_order.new_count));
        in_order.new_count = self.heads.new_customers().len();
        let mut memory = in_order.customers.range((bound, Bound::Unbounded)).copied().peekable();
        let mut runs = Vec::new();
        for run in &self.runs.customers {
            let mut iter = run.iter_from(after);
            let next = iter.next().transpose()?;
            runs.push((next, iter));
        }
        let count_max = heads.len().saturating_add(limit);
        while heads.len() < count_max {
            let in_runs = runs.iter().filter_map(|(next, _)| next.as_ref()).map(|(customer, ..)| *customer).min();
            let Some(customer) = memory.peek().copied().into_iter().chain(in_runs).min() else { break };
            memory.next_if_eq(&customer);
            let mut found = self.heads.get(customer);
            for (next, iter) in &mut runs {
                if let Some((_, head, _)) = next.take_if(|(other, ..)| *other == customer) {
                    found.get_or_insert(head);
                    *next = iter.next().transpose()?;
                }
            }
            let Some(mut head) = found else { continue };
            let open = open.get(&customer).into_iter().flatten();
            head.open.extend(open.map(|open| open.linked.clone()));
            // The first event of a chain may be one of the batch that is being gathered.
            if head.seq > 0 || !head.open.is_empty() {
                heads.push(CustomerHead { customer, head });
            }
        }
        Ok(())
    }
}

fn find_head(runs: &Runs, customer: CustomerId) -> Result<Option<(Head, u64)>, StoreError> {
    for run in &runs.customers {
        if let Some(found) = run.get(customer)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
