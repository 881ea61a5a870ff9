//! A ledger in memory: both stores in two hash tables, gone when the process ends.

use super::{
    ChainEntry, Chains, CustomerHead, Feed, FeedError, FeedItem, FeedPosition, ReadRange, SourceId, SourceMark,
    StoreError, Transactions,
};
use crate::totals::Totals;
use bursar_core::commit::{Appended, Approval, Proposal, ProposeResult};
use bursar_core::{
    CustomerId, EntryId, EventRef, EventStatus, Hash, Head, LedgerConfig, LinkedEvent, Proposed, Record,
    TransactionEntry, TransactionId,
};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A store that keeps everything in memory and nothing else.
#[derive(Debug)]
pub struct MemoryStore {
    ledger_digest: Hash,
    whole_batches: bool,
    keeps_history: bool,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    chains: HashMap<CustomerId, MemoryChain, RandomState>,
    transactions: HashMap<EntryId, TransactionEntry, RandomState>,
    /// Events whose proposals were written over, oldest first.
    touched: HashMap<EntryId, Vec<EventRef>, RandomState>,
    sources: BTreeMap<SourceId, SourceMark>,
    rejected_lines: BTreeMap<SourceId, Vec<(u64, u8)>>,
    in_order: Option<BTreeSet<CustomerId>>,
    open_count: usize,
    last_time_ms: u64,
    totals: Totals,
    log: Log,
}

#[derive(Debug)]
struct MemoryChain {
    head: Head,
    entries: Vec<ChainEntry>,
    /// Where in the log the open events were started, oldest first.
    open_in_log: VecDeque<usize>,
}

/// The records in the order in which they came, for the feed.
#[derive(Debug, Default)]
struct Log {
    records: Vec<LogRecord>,
    /// Where the batch begins that is being made.
    batch_start: usize,
    /// So many records were there at the last sync.
    durable: usize,
}

/// A record by its event. What the event says is in its chain.
#[derive(Debug)]
struct LogRecord {
    customer: CustomerId,
    seq: u64,
    /// How the event ended; otherwise it was started.
    ends: bool,
}

impl MemoryStore {
    /// An empty store that keeps every event.
    pub fn new(config: &LedgerConfig) -> Self {
        let ledger_digest = config.digest();
        Self { ledger_digest, whole_batches: true, keeps_history: true, tables: Mutex::default() }
    }

    /// An empty store that keeps only accounts and transactions: chains read as empty. For jobs that want the
    /// balances and nothing else; requests with keys need the chains.
    pub fn without_history(config: &LedgerConfig) -> Self {
        Self { keeps_history: false, ..Self::new(config) }
    }

    /// Makes the store say that its batches are not whole, so that the protocol takes the way it takes with
    /// stores in different systems.
    #[must_use]
    pub fn with_split_batches(self) -> Self {
        Self { whole_batches: false, ..self }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Takes the end of an event that was started at a place of the log. One that is done in the batch that began it was
    /// never seen open: it has one record.
    fn close(&mut self, started: usize, event: &EventRef, status: &EventStatus) {
        if started >= self.batch_start && *status == EventStatus::Done {
            self.records[started].ends = true;
        } else {
            self.records.push(LogRecord { customer: event.customer, seq: event.seq, ends: true });
        }
    }
}

impl Tables {
    fn append_started(&mut self, ledger_digest: &Hash, keeps_history: bool, linked: &LinkedEvent) -> Appended {
        let event = &linked.event;
        if event.seq == 1 && !self.chains.contains_key(&event.customer) {
            let head = Head::start(ledger_digest, event.customer);
            self.chains.insert(event.customer, MemoryChain { head, entries: Vec::new(), open_in_log: VecDeque::new() });
            self.in_order = None;
        }
        let Some(chain) = self.chains.get_mut(&event.customer) else { return Appended::Conflict };
        if chain.head.seq + chain.head.open.len() as u64 + 1 != event.seq {
            return Appended::Conflict;
        }
        chain.head.open.push(linked.clone());
        self.totals.begun(event);
        if keeps_history {
            chain.entries.push(ChainEntry { linked: linked.clone(), status: EventStatus::Started });
            chain.open_in_log.push_back(self.log.records.len());
            self.log.records.push(LogRecord { customer: event.customer, seq: event.seq, ends: false });
        }
        self.open_count += 1;
        self.last_time_ms = self.last_time_ms.max(event.time_ms);
        Appended::Yes
    }

    fn append_closing(&mut self, whole_batches: bool, event: &EventRef, status: &EventStatus) -> Appended {
        let Some(chain) = self.chains.get_mut(&event.customer) else { return Appended::Conflict };
        if chain.head.open.first().is_some_and(|open| open.reference() == *event) {
            match (status, chain.head.open.first()) {
                (EventStatus::Done | EventStatus::DoneByHand(_), Some(open)) => {
                    self.totals.done(&open.event);
                    // Its event is the newest one on the transaction: nothing is left to be approved later.
                    for (id, state) in open.event.entries().filter(|_| whole_batches) {
                        if let Some(entry) = self.transactions.get_mut(&id) {
                            entry.approved = Some(state);
                        }
                    }
                }
                (_, None) | (EventStatus::Started | EventStatus::Aborted(_), _) => self.totals.aborted(),
            }
            chain.head.close(status);
            if let Some(started) = chain.open_in_log.pop_front() {
                self.log.close(started, event, status);
            }
            self.open_count -= 1;
            if let Some(entry) = chain.entries.get_mut((event.seq - 1) as usize) {
                entry.status.clone_from(status);
            }
            return Appended::Yes;
        }
        match self.status_of(event) {
            Some(status) => Appended::closed_already(&status).unwrap_or(Appended::Conflict),
            None => Appended::Conflict,
        }
    }

    fn status_of(&self, event: &EventRef) -> Option<EventStatus> {
        let chain = self.chains.get(&event.customer)?;
        if chain.head.open.iter().any(|open| open.reference() == *event) {
            return Some(EventStatus::Started);
        }
        let entry = chain.entries.get(usize::try_from(event.seq.checked_sub(1)?).ok()?)?;
        (entry.linked.id() == event.id).then(|| entry.status.clone())
    }

    fn propose(&mut self, proposal: &Proposal, keeps_history: bool) -> ProposeResult {
        let entry = self.transactions.entry(proposal.entry).or_default();
        let there = entry.proposed.map(|proposed| proposed.event.id);
        let mine = there == Some(proposal.event.id);
        if mine {
            return ProposeResult::Proposed;
        }
        // Approved meanwhile, as this proposal would have it, is as good as seen.
        let as_seen = [proposal.seen_approved, proposal.approved].contains(&entry.approved);
        if there != proposal.seen_proposed || !as_seen {
            return ProposeResult::Conflict;
        }
        if let Some(before) = entry.proposed.filter(|_| keeps_history) {
            self.touched.entry(proposal.entry).or_default().push(before.event);
        }
        let proposed = Proposed { state: proposal.state, event: proposal.event };
        *entry = TransactionEntry { approved: proposal.approved, proposed: Some(proposed) };
        ProposeResult::Proposed
    }
}

impl Chains for MemoryStore {
    fn whole_batches(&self) -> bool {
        self.whole_batches
    }

    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        let tables = self.lock();
        heads.extend(customers.iter().map(|customer| tables.chains.get(customer).map(|chain| chain.head.clone())));
        Ok(())
    }

    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        let mut tables = self.lock();
        let mut failed: Vec<CustomerId> = Vec::new();
        for record in records {
            let customer = record.customer();
            let rests_on_failed = !failed.is_empty() && failed.contains(&customer);
            let appended = match record {
                Record::Started(_) | Record::Done(_) | Record::DoneByHand(..) if rests_on_failed => Appended::Conflict,
                Record::Started(linked) => tables.append_started(&self.ledger_digest, self.keeps_history, linked),
                Record::Done(event) => tables.append_closing(self.whole_batches, event, &EventStatus::Done),
                Record::DoneByHand(event, reason) => {
                    tables.append_closing(self.whole_batches, event, &EventStatus::DoneByHand(reason.clone()))
                }
                Record::Aborted(event, reason) => {
                    tables.append_closing(self.whole_batches, event, &EventStatus::Aborted(reason.clone()))
                }
            };
            if !appended.is_as_wanted(record) {
                failed.push(customer);
            }
            results.push(appended);
        }
        Ok(())
    }

    fn end_batch(&self, _time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        let mut tables = self.lock();
        tables.log.batch_start = tables.log.records.len();
        if let Some(mark) = mark {
            tables.rejected_lines.entry(mark.source).or_default().extend_from_slice(&mark.rejected_lines);
            tables.sources.insert(mark.source, SourceMark { rejected_lines: Vec::new(), ..mark.clone() });
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let log = &mut self.lock().log;
        // What is being made may still change.
        log.durable = log.batch_start;
        Ok(())
    }

    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        let tables = self.lock();
        statuses.extend(events.iter().map(|event| tables.status_of(event)));
        Ok(())
    }

    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        let tables = self.lock();
        let Some(chain) = tables.chains.get(&customer) else { return Ok(()) };
        range.read(&chain.entries, entries);
        Ok(())
    }

    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError> {
        let tables = self.lock();
        if tables.open_count == 0 {
            return Ok(Vec::new());
        }
        let open = tables.chains.iter().filter(|(_, chain)| !chain.head.open.is_empty());
        let mut customers: Vec<CustomerId> = open.map(|(customer, _)| *customer).collect();
        customers.sort_unstable();
        Ok(customers)
    }

    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError> {
        use std::ops::Bound;
        let mut tables = self.lock();
        let Tables { chains, in_order, .. } = &mut *tables;
        let in_order = in_order.get_or_insert_with(|| chains.keys().copied().collect());
        let bound = after.map_or(Bound::Unbounded, Bound::Excluded);
        for customer in in_order.range((bound, Bound::Unbounded)).copied().take(limit) {
            if let Some(chain) = chains.get(&customer) {
                heads.push(CustomerHead { customer, head: chain.head.clone() });
            }
        }
        Ok(())
    }

    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError> {
        Ok(self.lock().sources.get(&source).cloned())
    }

    fn sources(&self) -> Result<Vec<SourceMark>, StoreError> {
        Ok(self.lock().sources.values().cloned().collect())
    }

    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError> {
        Ok(self.lock().rejected_lines.get(&source).cloned().unwrap_or_default())
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        Ok(self.lock().totals.clone())
    }

    fn last_time_ms(&self) -> Result<u64, StoreError> {
        Ok(self.lock().last_time_ms)
    }

    fn feed(&self) -> Option<&dyn Feed> {
        self.keeps_history.then_some(self)
    }
}

/// A position counts the records before it.
impl Feed for MemoryStore {
    fn start(&self) -> FeedPosition {
        FeedPosition::beginning(&self.ledger_digest)
    }

    fn latest(&self) -> Result<FeedPosition, FeedError> {
        Ok(FeedPosition { at: self.lock().log.durable as u64, ..self.start() })
    }

    fn read(&self, after: FeedPosition, limit: usize, items: &mut Vec<FeedItem>) -> Result<FeedPosition, FeedError> {
        let start = self.start();
        if (after.passed, after.check) != (start.passed, start.check) {
            return Err(FeedError::NotAPosition);
        }
        let tables = self.lock();
        let records = usize::try_from(after.at).ok().and_then(|at| tables.log.records[..tables.log.durable].get(at..));
        let Some(records) = records else { return Err(FeedError::BehindEnd) };
        let mut position = after;
        for record in records.iter().take(limit) {
            position.at += 1;
            let entries = tables.chains.get(&record.customer).map(|chain| chain.entries.as_slice());
            let Some(entry) = entries.and_then(|entries| entries.get(record.seq as usize - 1)) else { continue };
            let status = if record.ends { entry.status.clone() } else { EventStatus::Started };
            items.push(FeedItem { position, entry: ChainEntry { linked: entry.linked.clone(), status } });
        }
        Ok(position)
    }
}

impl Transactions for MemoryStore {
    fn get(&self, ids: &[EntryId], entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        let tables = self.lock();
        entries.extend(ids.iter().map(|id| tables.transactions.get(id).copied().unwrap_or_default()));
        Ok(())
    }

    fn propose(&self, proposals: &[Proposal], results: &mut Vec<ProposeResult>) -> Result<(), StoreError> {
        let mut tables = self.lock();
        results.extend(proposals.iter().map(|proposal| tables.propose(proposal, self.keeps_history)));
        Ok(())
    }

    fn approve(&self, approvals: &[Approval]) -> Result<(), StoreError> {
        let mut tables = self.lock();
        for approval in approvals {
            let Some(entry) = tables.transactions.get_mut(&approval.entry) else { continue };
            if entry.proposed.is_some_and(|proposed| proposed.event.id == approval.event) {
                entry.approved = Some(approval.state);
            }
        }
        Ok(())
    }

    fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, StoreError> {
        let tables = self.lock();
        if !self.keeps_history {
            return Ok(Vec::new());
        }
        let proposed = tables.transactions.get(&EntryId::from(transaction)).and_then(|entry| entry.proposed);
        let touched = tables.touched.get(&EntryId::from(transaction)).map(Vec::as_slice).unwrap_or_default();
        let mut events: Vec<EventRef> =
            touched.iter().copied().chain(proposed.map(|proposed| proposed.event)).collect();
        // What is known here of chains that are here; those that are elsewhere are asked by whoever asks.
        events.retain(|event| {
            !tables.chains.contains_key(&event.customer)
                || !matches!(tables.status_of(event), None | Some(EventStatus::Aborted(_)))
        });
        events.sort_by_key(|event| (event.customer, event.seq));
        Ok(events)
    }
}
