//! The embedded store: both store traits on one directory.
//!
//! ```text
//!   append, propose ──► the batch ──end_batch──► a frame in the journal ──sync──► durable
//!                                      └────────► memtable: heads, transactions (seen by the next batch)
//!   load, get ◄── memtable ◄── frozen memtable ◄── index files, newest first ◄── records in the journal
//! ```
//!
//! The batch becomes one frame, so it takes effect as a whole or not at all, with the transactions table: a
//! table entry is nothing but the newest event in effect on its transaction. Where a directory holds the chains alone,
//! each call's records become a frame at once ([`super::chains_alone`]). Opening is in [`super::open`], index files and
//! checkpoints are written by [`super::maintenance`].

use super::batch::{BatchEvent, OpenBatch};
use super::chain_walk::{Waymarks, read_event};
use super::checkpoint::{RunKind, RunName};
use super::disk::Disk;
use super::heads::HeadMut;
use super::index::Index;
use super::journal::Journal;
use super::ledger_file::Holds;
use super::maintenance::{Maintained, Maintenance};
use super::memtable::{MemoryKey, MemoryTransaction, OpenEvent, Table};
use super::record::Stored;
use crate::figures::StoreFigures;
use crate::store::{
    ChainEntry, Chains, CustomerHead, Feed, ReadRange, SourceId, SourceMark, StoreError, Transactions, WholeBatch,
};
use crate::totals::Totals;
use bursar_core::commit::{Appended, Approval, Proposal, ProposeResult};
use bursar_core::{
    CustomerId, EntryId, EventRef, EventStatus, Hash, Head, LedgerConfig, LinkedEvent, Proposed, Record,
    TransactionEntry, TransactionId,
};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What bounds the embedded store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// A segment of the journal is ended once it has this many bytes.
    pub segment_bytes: u64,
    /// The newest events are written to index files once they concern this many transactions or customers.
    /// Memory grows with it: about 200 bytes each.
    pub memtable_entries_max: usize,
    /// How many heads of chains are kept in memory, about 100 bytes each. Those of the newest events stay in any case.
    pub heads_max: usize,
    /// Write index files on a thread of their own. Otherwise within the call that fills the memory.
    pub background: bool,
}

/// What a store takes beside its memtables: buffers, frames on their way, index files being merged.
const MEMORY_BYTES_FIXED: u64 = 128 << 20;
/// What an entry costs at the most, counted once: a transaction and a customer, in the memtable and in the frozen one
/// that is being written meanwhile, with the room that hash tables keep, and an entry of the file being made.
const MEMORY_BYTES_PER_ENTRY: u64 = 896;
/// How many heads are kept for each of these entries; what they take is counted there.
const HEADS_PER_ENTRY: usize = 3;

impl EmbeddedOptions {
    /// No store can do with less, in bytes.
    pub const MEMORY_BYTES_MIN: u64 = 192 << 20;

    /// Bounds the store's memory to about so many bytes, at least [`Self::MEMORY_BYTES_MIN`]. What the default allows
    /// is 1 GiB. Not in it is what grows with the history, filters and first keys of index files: about 1.3 bytes
    /// for each entry, so 130 MB for 100 million transactions, and twice that while the largest files are merged.
    #[must_use]
    pub fn with_memory_bytes(mut self, bytes: u64) -> Self {
        let room = bytes.max(Self::MEMORY_BYTES_MIN) - MEMORY_BYTES_FIXED;
        self.memtable_entries_max = usize::try_from(room / MEMORY_BYTES_PER_ENTRY).unwrap_or(usize::MAX);
        self.heads_max = self.memtable_entries_max.saturating_mul(HEADS_PER_ENTRY);
        self
    }
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        let memtable_entries_max = 1 << 20;
        let heads_max = memtable_entries_max * HEADS_PER_ENTRY;
        Self { segment_bytes: 256 << 20, memtable_entries_max, heads_max, background: true }
    }
}

/// A ledger's store in one directory, owned by one process.
#[derive(Debug)]
pub struct EmbeddedStore {
    pub(super) shared: Arc<Shared>,
    pub(super) maintenance: Maintenance,
    pub(super) waymarks: Waymarks,
}

/// What the store shares with the thread that writes its index files.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) config: LedgerConfig,
    pub(super) ledger_digest: Hash,
    pub(super) holds: Holds,
    pub(super) options: EmbeddedOptions,
    pub(super) journal: Journal,
    pub(super) state: Mutex<State>,
    pub(super) poison: OnceLock<Arc<StoreError>>,
    pub(super) maintained: Maintained,
}

/// What changes with every batch.
#[derive(Debug)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) batch: OpenBatch,
    pub(super) open: BTreeMap<CustomerId, VecDeque<OpenEvent>>,
    /// What open events, and events of the batch, propose; nothing where the table is elsewhere.
    pub(super) proposals: Table<EntryId, Proposed>,
    pub(super) sources: BTreeMap<SourceId, SourceMark>,
    pub(super) totals: Totals,
    pub(super) last_time_ms: u64,
    /// The index files that are valid, oldest first of each kind.
    pub(super) runs: Vec<RunName>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.poison.get() {
            None => Ok(()),
            Some(cause) => Err(StoreError::Poisoned { cause: cause.clone() }),
        }
    }

    /// An error where the table is elsewhere: what is here would say that nothing was ever made.
    fn check_table(&self) -> Result<(), StoreError> {
        match self.holds {
            Holds::Everything => self.check(),
            Holds::ChainsAlone => {
                Err(StoreError::OtherStores { path: self.disk.path().to_owned(), chains_alone: true })
            }
        }
    }

    /// Keeps the first error that leaves it uncertain what is on the disk; nothing is acknowledged after it.
    pub(super) fn poisoned_by<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|error| {
            self.poison.get_or_init(|| Arc::new(error.clone()));
        })
    }
}

impl EmbeddedStore {
    /// The ledger's rules and currencies.
    pub fn config(&self) -> &LedgerConfig {
        &self.shared.config
    }

    /// The ledger's directory.
    pub fn path(&self) -> &Path {
        self.shared.disk.path()
    }

    /// What comes behind the end of a batch, which says whether memory is full.
    pub(super) fn batch_ended(&self, ended: Result<bool, StoreError>) -> Result<(), StoreError> {
        let full = self.shared.poisoned_by(ended)?;
        if full {
            let frozen = self.maintenance.freeze(&self.shared);
            self.shared.poisoned_by(frozen)?;
        }
        Ok(())
    }

    /// Everything before this position of the journal is durable.
    pub fn durable_position(&self) -> u64 {
        self.shared.journal.synced_position()
    }

    /// What the store has counted since it was opened.
    pub fn figures(&self) -> StoreFigures {
        let Shared { journal, options, maintained, poison, .. } = &*self.shared;
        let state = self.shared.lock();
        let lookups = state.index.lookups;
        let runs = |kind| state.runs.iter().filter(|run| run.kind == kind).count() as u64;
        let [index_writes, index_merges, index_ms] = maintained.counts();
        StoreFigures {
            sync_us: journal.sync_times(),
            journal_bytes: journal.synced_position(),
            is_poisoned: poison.get().is_some(),
            heads_asked: lookups.heads,
            heads_from_files: lookups.heads_from_files,
            transactions_asked: lookups.transactions,
            transactions_from_files: lookups.transactions_from_files,
            memory_entries: state.index.entry_count() as u64,
            memory_entries_max: options.memtable_entries_max as u64,
            transaction_runs: runs(RunKind::Transactions),
            customer_runs: runs(RunKind::Customers),
            index_writes,
            index_merges,
            index_ms,
        }
    }

    /// The length of the journal in bytes, and the digest of its newest frame, which fixes all of it.
    pub fn journal_head(&self) -> (u64, Hash) {
        let point = self.shared.journal.point();
        (point.position, point.digest)
    }
}

impl State {
    /// The head of a chain, brought into memory; `None` for a customer without a chain.
    pub(super) fn head_mut(&mut self, customer: CustomerId) -> Result<Option<HeadMut<'_>>, StoreError> {
        self.index.head_mut(customer, open_count(&self.open, customer))
    }

    fn append_started(&mut self, shared: &Shared, linked: &LinkedEvent) -> Result<Appended, StoreError> {
        let LinkedEvent { event, .. } = linked;
        match self.head_mut(event.customer)? {
            Some(mut head) if head.last_seq().checked_add(1) == Some(event.seq) => head.set_last_seq(event.seq),
            None if event.seq == 1 => {
                let head = Head::start(&shared.ledger_digest, event.customer);
                let place = self.index.begin_head(event.customer, &head);
                self.index.head_at(place).set_last_seq(1);
            }
            Some(_) | None => return Ok(Appended::Conflict),
        }
        self.batch.started.push(BatchEvent { linked: linked.clone(), status: EventStatus::Started });
        Ok(Appended::Yes)
    }

    fn append_closing(
        &mut self,
        shared: &Shared,
        event: &EventRef,
        status: EventStatus,
    ) -> Result<Appended, StoreError> {
        let Self { index, batch, open, .. } = self;
        let Some(mut head) = index.head_mut(event.customer, open_count(open, event.customer))? else {
            return Ok(Appended::Conflict);
        };
        if event.seq <= head.seq() {
            return Ok(match self.status_of(shared, event)? {
                Some(status) => Appended::closed_already(&status).unwrap_or(Appended::Conflict),
                None => Appended::Conflict,
            });
        }
        if event.seq != head.seq() + 1 {
            return Ok(Appended::Conflict);
        }
        if let Some(open) = open.get(&event.customer).and_then(VecDeque::front) {
            if open.linked.id() != event.id {
                return Ok(Appended::Conflict);
            }
            head.take(&open.linked, &status);
            self.close_open(event.customer, status);
            return Ok(Appended::Yes);
        }
        let Some(place) = batch.find_started(event) else { return Ok(Appended::Conflict) };
        let started = &mut batch.started[place];
        head.take(&started.linked, &status);
        started.status = status;
        Ok(Appended::Yes)
    }

    /// Moves the oldest open event of a customer into the batch, to be closed by it.
    fn close_open(&mut self, customer: CustomerId, status: EventStatus) {
        let Some(list) = self.open.get_mut(&customer) else { return };
        let oldest = list.pop_front();
        if list.is_empty() {
            self.open.remove(&customer);
        }
        self.batch.closings.extend(oldest.map(|open| (open, status)));
    }

    /// How an event stands, by reading its chain if need be.
    fn status_of(&mut self, shared: &Shared, event: &EventRef) -> Result<Option<EventStatus>, StoreError> {
        if let Some(status) = self.status_in_memory(event) {
            return Ok(Some(status));
        }
        let newest = self.head_mut(event.customer)?.and_then(|head| head.newest());
        let found = read_event(&shared.journal, newest, event.seq)?;
        Ok(found.filter(|entry| entry.linked.id() == event.id).map(|entry| entry.status))
    }

    /// How an event stands that is open, or of the batch.
    fn status_in_memory(&self, event: &EventRef) -> Option<EventStatus> {
        let open =
            self.open.get(&event.customer).into_iter().flatten().map(|open| (&open.linked, EventStatus::Started));
        let batch = self.batch.started.iter().map(|started| (&started.linked, started.status.clone()));
        let closing = self.batch.closings.iter().map(|(open, status)| (&open.linked, status.clone()));
        let found = open.chain(batch).chain(closing).find(|(linked, _)| linked.reference() == *event);
        found.map(|(_, status)| status)
    }

    fn entry(&mut self, shared: &Shared, entry: EntryId) -> Result<TransactionEntry, StoreError> {
        let proposed = self.proposals.get(&entry).copied();
        match entry {
            EntryId::Transaction(transaction) => {
                let approved = self.index.transaction(&shared.journal, transaction)?.map(|found| found.state);
                Ok(TransactionEntry { approved, proposed })
            }
            EntryId::Key(key) => {
                let found = self.index.key(&shared.journal, key)?;
                let approved = found.map(|found| found.state);
                let in_effect = found.map(|MemoryKey { event, state, .. }| Proposed { state, event });
                Ok(TransactionEntry { approved, proposed: in_effect.or(proposed) })
            }
        }
    }

    fn propose(&mut self, shared: &Shared, proposal: &Proposal) -> Result<ProposeResult, StoreError> {
        let entry = self.entry(shared, proposal.entry)?;
        let there = entry.proposed.map(|proposed| proposed.event.id);
        let mine = there == Some(proposal.event.id);
        let earlier = self.batch.proposed_approved.get(&proposal.entry).copied();
        let approved = earlier.unwrap_or(entry.approved);
        if mine {
            return Ok(ProposeResult::Proposed);
        }
        let as_seen = [proposal.seen_approved, proposal.approved].contains(&approved);
        if !as_seen || there != proposal.seen_proposed {
            return Ok(ProposeResult::Conflict);
        }
        if proposal.approved != approved {
            self.batch.proposed_approved.insert(proposal.entry, proposal.approved);
        }
        let proposed = Proposed { state: proposal.state, event: proposal.event };
        self.proposals.insert(proposal.entry, proposed);
        Ok(ProposeResult::Proposed)
    }

    /// Takes an event in effect into the table: its state is the approved one from here on, and its key is used.
    pub(super) fn take_effect(&mut self, linked: &LinkedEvent, position: u64) {
        self.totals.done(&linked.event);
        if let Some((transaction, state)) = linked.event.transaction.zip(linked.event.transaction_state()) {
            self.index.insert_transaction(transaction, MemoryTransaction { state, position });
            self.drop_proposal(transaction.into(), linked);
        }
        if let Some(key) = linked.event.key {
            self.index.insert_key(key, MemoryKey::of(linked, position));
            self.drop_proposal(key.into(), linked);
        }
    }

    pub(super) fn drop_proposal(&mut self, entry: EntryId, linked: &LinkedEvent) {
        let proposes = |proposed: &Proposed| proposed.event == linked.reference();
        if !self.proposals.is_empty() && self.proposals.get(&entry).is_some_and(proposes) {
            self.proposals.remove(&entry);
        }
    }
}

/// How many open events follow the head of a chain.
fn open_count(open: &BTreeMap<CustomerId, VecDeque<OpenEvent>>, customer: CustomerId) -> u64 {
    if open.is_empty() { 0 } else { open.get(&customer).map_or(0, VecDeque::len) as u64 }
}

impl Chains for EmbeddedStore {
    fn whole_batches(&self) -> bool {
        match self.shared.holds {
            Holds::Everything => true,
            Holds::ChainsAlone => false,
        }
    }

    fn begin_whole(&self, time_ms: u64) -> Result<Option<Box<dyn WholeBatch + '_>>, StoreError> {
        self.shared.check()?;
        match self.shared.holds {
            Holds::Everything => Ok(self.begin_at_once(time_ms)),
            Holds::ChainsAlone => Ok(None),
        }
    }

    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        self.shared.check()?;
        let mut state = self.shared.lock();
        state.index.make_room();
        state.index.warm_heads(customers.iter().copied());
        state.index.lookups.heads += customers.len() as u64;
        for &customer in customers {
            let mut head = state.head_mut(customer)?.map(|found| found.head());
            if let (Some(head), false) = (&mut head, state.open.is_empty()) {
                let open = state.open.get(&customer).into_iter().flatten();
                head.open.extend(open.map(|open| open.linked.clone()));
            }
            // The first event of a chain may be one of the batch that is being gathered.
            heads.push(head.filter(|head| head.seq > 0 || !head.open.is_empty()));
        }
        Ok(())
    }

    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        self.shared.check()?;
        let mut state = self.shared.lock();
        let mut failed: Vec<CustomerId> = Vec::new();
        for record in records {
            let customer = record.customer();
            let rests_on_failed = !failed.is_empty() && failed.contains(&customer);
            let result = match record {
                Record::Started(_) | Record::Done(_) | Record::DoneByHand(..) if rests_on_failed => Appended::Conflict,
                Record::Started(linked) => state.append_started(&self.shared, linked)?,
                Record::Done(event) => state.append_closing(&self.shared, event, EventStatus::Done)?,
                Record::DoneByHand(event, reason) => {
                    state.append_closing(&self.shared, event, EventStatus::DoneByHand(reason.clone()))?
                }
                Record::Aborted(event, reason) => {
                    state.append_closing(&self.shared, event, EventStatus::Aborted(reason.clone()))?
                }
            };
            if !result.is_as_wanted(record) {
                failed.push(customer);
            }
            results.push(result);
        }
        match self.shared.holds {
            Holds::Everything => Ok(()),
            Holds::ChainsAlone => self.shared.poisoned_by(state.write_appended(&self.shared)),
        }
    }

    fn end_batch(&self, time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        self.shared.check()?;
        let ended = self.shared.lock().write_batch(&self.shared, time_ms, mark);
        self.batch_ended(ended)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.shared.check()?;
        let synced = self.shared.journal.sync();
        self.shared.poisoned_by(synced)?;
        let started = self.maintenance.start_if_durable(&self.shared);
        self.shared.poisoned_by(started)
    }

    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        self.shared.check()?;
        let mut state = self.shared.lock();
        for event in events {
            if let Some(status) = state.status_in_memory(event) {
                statuses.push(Some(status));
                continue;
            }
            let newest = state.head_mut(event.customer)?.and_then(|head| head.newest());
            let range = ReadRange { from_seq: event.seq, to_seq: event.seq, limit: 1, newest_first: true };
            let mut found = Vec::with_capacity(1);
            self.waymarks.read(&self.shared.journal, event.customer, newest, range, &mut found)?;
            let is_it = |entry: &ChainEntry| entry.linked.id() == event.id;
            statuses.push(found.pop().filter(is_it).map(|entry| entry.status));
        }
        Ok(())
    }

    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        self.shared.check()?;
        let newest = {
            let mut state = self.shared.lock();
            state.index.make_room();
            state.head_mut(customer)?.and_then(|head| head.newest())
        };
        self.waymarks.read(&self.shared.journal, customer, newest, range, entries).map(|_| ())
    }

    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError> {
        self.shared.check()?;
        Ok(self.shared.lock().open.keys().copied().collect())
    }

    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError> {
        self.shared.check()?;
        let mut state = self.shared.lock();
        let State { index, open, .. } = &mut *state;
        index.list(after, limit, open, heads)
    }

    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError> {
        self.shared.check()?;
        Ok(self.shared.lock().sources.get(&source).cloned())
    }

    fn sources(&self) -> Result<Vec<SourceMark>, StoreError> {
        self.shared.check()?;
        Ok(self.shared.lock().sources.values().cloned().collect())
    }

    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError> {
        self.shared.check()?;
        let mut lines = Vec::new();
        self.sync()?;
        self.shared.journal.for_each_frame(|frame| {
            for record in frame.records() {
                if let Ok((_, Stored::Mark(mark))) = record
                    && mark.source == source
                {
                    lines.extend(mark.rejected_lines);
                }
            }
        })?;
        Ok(lines)
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.shared.check()?;
        Ok(self.shared.lock().totals.clone())
    }

    fn last_time_ms(&self) -> Result<u64, StoreError> {
        self.shared.check()?;
        Ok(self.shared.lock().last_time_ms)
    }

    fn feed(&self) -> Option<&dyn Feed> {
        Some(self)
    }

    fn embedded(&self) -> Option<&EmbeddedStore> {
        Some(self)
    }
}

impl Transactions for EmbeddedStore {
    fn get(&self, ids: &[EntryId], entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        self.shared.check_table()?;
        let mut state = self.shared.lock();
        state.index.lookups.transactions += ids.len() as u64;
        for &id in ids {
            entries.push(state.entry(&self.shared, id)?);
        }
        Ok(())
    }

    fn propose(&self, proposals: &[Proposal], results: &mut Vec<ProposeResult>) -> Result<(), StoreError> {
        self.shared.check_table()?;
        let mut state = self.shared.lock();
        for proposal in proposals {
            results.push(state.propose(&self.shared, proposal)?);
        }
        Ok(())
    }

    fn approve(&self, _approvals: &[Approval]) -> Result<(), StoreError> {
        // An event in effect is the approved state; there is nothing to catch up with.
        self.shared.check_table()
    }

    fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, StoreError> {
        self.shared.check_table()?;
        let (newest, proposed) = {
            let mut state = self.shared.lock();
            let found = state.index.transaction(&self.shared.journal, transaction)?;
            let proposed = state.proposals.get(&EntryId::from(transaction)).map(|proposed| proposed.event);
            (found.map(|found| found.position), proposed)
        };
        let mut events: Vec<EventRef> = proposed.into_iter().collect();
        let mut frame = None;
        let mut next = newest;
        while let Some(position) = next {
            let Some(event) = self.shared.journal.effect(position, &mut frame)? else { break };
            events.push(event.linked.reference());
            next = event.transaction_previous;
        }
        events.reverse();
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::EmbeddedOptions;

    #[test]
    fn the_default_is_a_gibibyte() {
        let default = EmbeddedOptions::default();
        assert_eq!(default.with_memory_bytes(1 << 30), default);
        let least = default.with_memory_bytes(0).memtable_entries_max;
        assert_eq!(least, default.with_memory_bytes(EmbeddedOptions::MEMORY_BYTES_MIN).memtable_entries_max);
        assert!((50_000..100_000).contains(&least), "{least}");
    }
}
