//! Finding: from a customer to the head of its chain, from a transaction to its newest event in effect, from a key of a
//! request to the event in effect that has it.
//!
//! Newest first: the memtable, the frozen memtable that is being written to index files, then the index files.
//! The index is derived and never the truth; a lookup that needs a transaction's state from an index file reads
//! the event itself in the journal.

use super::checkpoint::Checkpoint;
use super::heads::{HeadPlace, MemoryHead};
use super::journal::Journal;
use super::ledger_file::Holds;
use super::memtable::{MemoryKey, MemoryTransaction, Memtable, OpenEvent, Table};
use super::record::StoredEvent;
use super::run::{CustomerRun, TransactionRun, fingerprint, key_fingerprint};
use crate::store::{CustomerHead, StoreError};
use bursar_core::{CustomerId, RequestKey, TransactionId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// A memtable that no longer changes, and what will be true once it is in index files.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) memtable: Memtable,
    /// The checkpoint for its end, still without its index files.
    pub(super) checkpoint: Checkpoint,
}

/// The open index files, newest first, each kind by itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    pub(super) transactions: Vec<Arc<TransactionRun>>,
    pub(super) customers: Vec<Arc<CustomerRun>>,
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
    /// How many records of chains alone came since the memtable was begun.
    records: usize,
    pub(super) frozen: Option<Arc<Frozen>>,
    pub(super) runs: Runs,
    /// What index files said during this batch, so that it is read once.
    fetched: Table<TransactionId, Option<MemoryTransaction>>,
    /// Customers in memory in order, made for listing and dropped when there are new ones.
    in_order: Option<BTreeSet<CustomerId>>,
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
    pub(super) fn new(ledger: [u8; 16], holds: Holds, runs: Runs) -> Self {
        Self {
            ledger,
            holds,
            active: Memtable::default(),
            records: 0,
            frozen: None,
            runs,
            fetched: Table::default(),
            in_order: None,
            positions: Vec::new(),
            lookups: Lookups::default(),
        }
    }

    /// Reads the heads that are in memory, and does nothing with them. One does not depend on another, so that the
    /// processor waits for many at once; when they are used, one by one, they are at hand.
    pub(super) fn warm_heads(&self, customers: &[CustomerId]) {
        let heads = customers.iter().filter_map(|&customer| self.active.heads.get(customer));
        std::hint::black_box(heads.fold(0, |seen, head| seen ^ head.touch()));
    }

    /// As [`Index::warm_heads`], also for transactions; says what it has seen on the way.
    pub(super) fn expect(&mut self, requests: &[(CustomerId, Option<TransactionId>)], expected: &mut Vec<Expected>) {
        self.lookups.heads += requests.len() as u64;
        self.lookups.transactions += requests.len() as u64;
        let seen = |&about: &(CustomerId, _)| {
            let place = self.active.heads.place(about.0);
            Expected { about, place, not_in_files: false }
        };
        expected.extend(requests.iter().map(seen));
        let heads = expected.iter().filter_map(|expected| expected.place).map(|place| self.active.heads.at(place));
        std::hint::black_box(heads.fold(0, |seen, head| seen ^ head.touch()));
        let transactions = requests.iter().filter_map(|(_, transaction)| *transaction);
        let memtables = [Some(&self.active), self.frozen.as_ref().map(|frozen| &frozen.memtable)];
        for memtable in memtables.into_iter().flatten() {
            let at_hand = transactions.clone().filter(|&transaction| memtable.transactions.is_at_hand(transaction));
            std::hint::black_box(at_hand.count());
        }
        for Expected { about: (_, transaction), not_in_files, .. } in expected {
            *not_in_files = transaction.is_none_or(|transaction| !self.may_be_in_files(transaction.bits()));
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
    ) -> Result<Option<&mut MemoryHead>, StoreError> {
        let place = self.head_place(customer, open_count)?;
        Ok(place.map(|place| self.active.heads.at_mut(place)))
    }

    /// As [`Index::head_mut`]; gives where the head lies in memory until the batch ends.
    pub(super) fn head_place(
        &mut self,
        customer: CustomerId,
        open_count: u64,
    ) -> Result<Option<HeadPlace>, StoreError> {
        if let Some(place) = self.active.heads.place(customer) {
            return Ok(Some(place));
        }
        let frozen = self.frozen.as_ref().and_then(|frozen| frozen.memtable.heads.get(customer));
        let found = if let Some(head) = frozen {
            Some((head.head.clone(), head.newest))
        } else {
            self.lookups.heads_from_files += u64::from(!self.runs.customers.is_empty());
            find_head(&self.runs, customer)?
        };
        let Some((head, newest)) = found else { return Ok(None) };
        let last_seq = head.seq + open_count;
        Ok(Some(self.active.heads.insert(customer, MemoryHead { head, newest, last_seq, is_new: false })))
    }

    pub(super) fn head_at(&self, place: HeadPlace) -> &MemoryHead {
        self.active.heads.at(place)
    }

    pub(super) fn head_at_mut(&mut self, place: HeadPlace) -> &mut MemoryHead {
        self.active.heads.at_mut(place)
    }

    /// The head of a chain that is in memory already.
    pub(super) fn loaded_head_mut(&mut self, customer: CustomerId) -> Option<&mut MemoryHead> {
        self.active.heads.place(customer).map(|place| self.active.heads.at_mut(place))
    }

    pub(super) fn insert_head(&mut self, customer: CustomerId, head: MemoryHead) -> HeadPlace {
        self.in_order = None;
        self.active.heads.insert(customer, head)
    }

    /// The newest event in effect on a transaction.
    pub(super) fn transaction(
        &mut self,
        journal: &Journal,
        transaction: TransactionId,
    ) -> Result<Option<MemoryTransaction>, StoreError> {
        if let Some(found) = self.transaction_in_memory(transaction) {
            return Ok(Some(found));
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
    pub(super) fn transaction_in_memory(&self, transaction: TransactionId) -> Option<MemoryTransaction> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.memtable.transactions.get(transaction));
        self.active.transactions.get(transaction).or_else(frozen).copied()
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

    /// How many transactions and customers are in memory.
    pub(super) fn entry_count(&self) -> usize {
        let memtables = [Some(&self.active), self.frozen.as_ref().map(|frozen| &frozen.memtable)];
        memtables.into_iter().flatten().map(|memtable| memtable.transactions.len() + memtable.heads.len()).sum()
    }

    /// Forgets what index files said: the batch is over.
    pub(super) fn forget_fetched(&mut self) {
        if !self.fetched.is_empty() {
            self.fetched.clear();
        }
    }

    /// Whether the memtable is at its limit, even without the heads it only holds for speed.
    pub(super) fn is_full(&mut self, entries_max: usize) -> bool {
        if self.active.transactions.len() + self.active.keys.len() >= entries_max || self.records >= entries_max {
            return true;
        }
        if self.active.heads.len() < entries_max {
            return false;
        }
        self.active.heads.drop_clean();
        self.active.heads.len() >= entries_max / 2
    }

    /// Whether the memtable has anything that no index file has.
    pub(super) fn has_news(&self) -> bool {
        !self.active.transactions.is_empty()
            || !self.active.keys.is_empty()
            || self.active.heads.iter().any(|(_, head)| head.is_new)
    }

    /// Freezes the memtable and begins a new one. It keeps the heads if they are few: most will be wanted again.
    pub(super) fn freeze(&mut self, checkpoint: Checkpoint, heads_kept_max: usize) {
        let mut memtable = std::mem::take(&mut self.active);
        self.records = 0;
        if memtable.heads.len() <= heads_kept_max {
            self.active.heads = memtable.heads.as_written();
        }
        memtable.heads.drop_clean();
        self.in_order = None;
        self.frozen = Some(Arc::new(Frozen { memtable, checkpoint }));
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
        let frozen = self.frozen.as_ref();
        let in_order = self.in_order.get_or_insert_with(|| {
            let frozen = frozen.into_iter().flat_map(|frozen| frozen.memtable.heads.iter());
            self.active.heads.iter().chain(frozen).map(|(customer, _)| customer).collect()
        });
        let mut memory = in_order.range((bound, Bound::Unbounded)).copied().peekable();
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
            // Also for one that was not in memory when the order was made: it may have been brought there since.
            let active = self.active.heads.get(customer);
            let known = active.or_else(|| frozen.and_then(|frozen| frozen.memtable.heads.get(customer)));
            let mut found = known.map(|known| known.head.clone());
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

fn find_head(runs: &Runs, customer: CustomerId) -> Result<Option<(bursar_core::Head, Option<u64>)>, StoreError> {
    for run in &runs.customers {
        if let Some((head, newest)) = run.get(customer)? {
            return Ok(Some((head, Some(newest))));
        }
    }
    Ok(None)
}
