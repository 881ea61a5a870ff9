//! Moving house: copies a whole ledger, event by event, from one pair of stores to another.
//!
//! The target has the same identity ([`bursar_core::LedgerConfig`]), so events keep their hashes and ids, and every
//! head hash that was ever handed out as a receipt stays good. Nothing is trusted on the way: each event must follow
//! from the one before by its hash, in the source and in the target.
//!
//! A copy can be repeated: what is there is left alone, what came since is added, and an event that was open is closed.
//! So it is resumed after any interruption, and a ledger that goes on being used is copied in two or more goes, the
//! last one, a short one, while nobody writes. The target is written to by nobody else meanwhile.
//!
//! What this module does not do: decide anything. It writes in the protocol's order (`Started`, the proposals, how the
//! events ended), so that what is there after a crash is what the commit machine expects to find.

use crate::store::{ChainEntry, Chains, ReadRange, SourceMark, StoreError, Transactions};
use bursar_core::commit::{Appended, Approval, Proposal, ProposeResult};
use bursar_core::{
    CustomerId, EntryId, EventId, EventRef, EventStatus, Hash, Head, LinkedEvent, Proposed, Record, TransactionEntry,
    TransactionState,
};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::fmt;

/// How many customers are looked at at once.
const CUSTOMERS_AT_ONCE: usize = 1024;
/// How many events of a chain are read at once.
const EVENTS_AT_ONCE: usize = 4096;
/// How many rejected rows of a source travel at once, so that they fit into any batch.
const REJECTED_LINES_AT_ONCE: usize = 1 << 16;

/// What is copied to: the two stores of a ledger, which may be one and the same.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its chains.
    pub chains: &'a dyn Chains,
    /// Its transactions table.
    pub transactions: &'a dyn Transactions,
}

/// What a copy has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Customers looked at.
    pub customers: u64,
    /// Events that the target did not have.
    pub events: u64,
    /// Events that were open in the target and are closed now.
    pub closed: u64,
    /// Events that are open in the source, and therefore in the target.
    pub open: u64,
}

/// Why a ledger was not copied. What was copied stays, and the copy can be begun again.
#[derive(Clone, Debug)]
pub enum CopyError {
    /// The source could not be read.
    Source(StoreError),
    /// The target could not be read or written.
    Target(StoreError),
    /// An event of the source does not follow from the one before: the source is damaged.
    Unsound {
        /// Whose chain.
        customer: CustomerId,
        /// The event's sequence number.
        seq: u64,
    },
    /// The target has another history than the source.
    Diverged {
        /// Whose chain.
        customer: CustomerId,
        /// The first sequence number at which that was seen.
        seq: u64,
    },
    /// The target refused what it should have taken: somebody else writes to it.
    Refused {
        /// Whose chain.
        customer: CustomerId,
        /// The event's sequence number.
        seq: u64,
    },
    /// The sums of source and target differ, although their chains do not: one of them counts wrong.
    SumsDiffer,
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => write!(f, "the source cannot be read: {error}"),
            Self::Target(error) => write!(f, "the target cannot be written: {error}"),
            Self::Unsound { customer, seq } => {
                write!(f, "event {seq} of customer {customer} does not follow from the one before; verify the source")
            }
            Self::Diverged { customer, seq } => write!(
                f,
                "customer {customer} has another history in the target, from event {seq} on; copy into an empty store"
            ),
            Self::Refused { customer, seq } => write!(
                f,
                "the target refused event {seq} of customer {customer}; nobody else may write to it during a copy"
            ),
            Self::SumsDiffer => f.write_str("the sums of source and target differ; verify both"),
        }
    }
}

impl std::error::Error for CopyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Source(error) | Self::Target(error) => Some(error),
            Self::Unsound { .. } | Self::Diverged { .. } | Self::Refused { .. } | Self::SumsDiffer => None,
        }
    }
}

/// Copies what the target does not have yet. `batch_events` is how many events travel together, at least one;
/// `progress` is told after each batch.
pub fn copy(
    ledger_digest: &Hash,
    source: &dyn Chains,
    target: Target<'_>,
    batch_events: usize,
    mut progress: impl FnMut(&Copied),
) -> Result<Copied, CopyError> {
    let mut copied = Copied::default();
    let mut batch = Batch::default();
    let mut after = None;
    loop {
        let mut page = Vec::new();
        source.list(after, CUSTOMERS_AT_ONCE, &mut page).map_err(CopyError::Source)?;
        let Some(last) = page.last() else { break };
        after = Some(last.customer);
        let customers: Vec<CustomerId> = page.iter().map(|listed| listed.customer).collect();
        let mut heads = Vec::new();
        target.chains.load(&customers, &mut heads).map_err(CopyError::Target)?;
        for (&customer, head) in customers.iter().zip(heads) {
            let mut chain = Chain::new(customer, head.unwrap_or_else(|| Head::start(ledger_digest, customer)));
            while chain.read_on(source)? {
                for entry in std::mem::take(&mut chain.read) {
                    batch.add(&mut chain, entry)?;
                    if batch.steps.len() >= batch_events.max(1) {
                        batch.write(target, &mut copied)?;
                        progress(&copied);
                    }
                }
            }
            copied.customers += 1;
            copied.open += chain.at.open.len() as u64;
        }
    }
    batch.write(target, &mut copied)?;
    copy_marks(source, target.chains)?;
    progress(&copied);
    Ok(copied)
}

/// Compares two stores of one ledger: every head with its state and its open events, and the sums. Gives the count of
/// customers.
pub fn compare(source: &dyn Chains, target: &dyn Chains) -> Result<u64, CopyError> {
    let mut count = 0;
    let mut after = None;
    loop {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        source.list(after, CUSTOMERS_AT_ONCE, &mut left).map_err(CopyError::Source)?;
        target.list(after, CUSTOMERS_AT_ONCE, &mut right).map_err(CopyError::Target)?;
        let differs = left.iter().zip(&right).find(|(left, right)| left != right);
        if let Some((left, right)) = differs {
            let (customer, seq) = if left.customer <= right.customer {
                (left.customer, left.head.seq.min(right.head.seq) + 1)
            } else {
                (right.customer, 1)
            };
            return Err(CopyError::Diverged { customer, seq });
        }
        let shorter = left.len().min(right.len());
        if let Some(extra) = left.get(shorter).or(right.get(shorter)) {
            return Err(CopyError::Diverged { customer: extra.customer, seq: 1 });
        }
        let Some(last) = left.last() else { break };
        count += left.len() as u64;
        after = Some(last.customer);
    }
    let sums = source.totals().map_err(CopyError::Source)?;
    if sums != target.totals().map_err(CopyError::Target)? {
        return Err(CopyError::SumsDiffer);
    }
    Ok(count)
}

/// A chain on its way.
struct Chain {
    customer: CustomerId,
    /// The target's chain, with what the batch adds to it.
    at: Head,
    /// The sequence number of the target's newest event, open ones included, before the batch.
    known_seq: u64,
    /// The hash of the event before the next one, closed or open; an event may build on one that was aborted later.
    last_hash: Option<Hash>,
    /// What was read of the source and not gone through yet.
    read: Vec<ChainEntry>,
    next_seq: u64,
}

impl Chain {
    fn new(customer: CustomerId, at: Head) -> Self {
        let known_seq = at.seq + at.open.len() as u64;
        // From the newest closed one on, which tells whether both have the same history.
        let next_seq = at.seq.max(1);
        Self { customer, at, known_seq, last_hash: None, read: Vec::new(), next_seq }
    }

    /// Reads the next events of the source; `false` where there are no more.
    fn read_on(&mut self, source: &dyn Chains) -> Result<bool, CopyError> {
        let range = ReadRange { from_seq: self.next_seq, limit: EVENTS_AT_ONCE, ..ReadRange::ALL };
        source.read(self.customer, range, &mut self.read).map_err(CopyError::Source)?;
        self.next_seq += self.read.len() as u64;
        if self.read.is_empty() && self.next_seq <= self.known_seq {
            return Err(self.diverged(self.next_seq));
        }
        Ok(!self.read.is_empty())
    }

    const fn diverged(&self, seq: u64) -> CopyError {
        CopyError::Diverged { customer: self.customer, seq }
    }

    const fn unsound(&self, seq: u64) -> CopyError {
        CopyError::Unsound { customer: self.customer, seq }
    }

    /// Checks that an event of the source is the next one here, and says what is to be done for it; `None`: it is
    /// there, and needs nothing.
    fn take(&mut self, entry: ChainEntry) -> Result<Option<Step>, CopyError> {
        let ChainEntry { linked, status } = entry;
        let (seq, hash) = (linked.event.seq, linked.hash);
        if seq <= self.at.seq {
            // The target's newest closed event. What it is built on is not known any more; what it is, is.
            if status == EventStatus::Done && self.at.link != hash {
                return Err(self.diverged(seq));
            }
            self.last_hash = Some(hash);
            return Ok(None);
        }
        let is_new = seq > self.known_seq;
        if is_new {
            let expected_seq = self.at.seq + self.at.open.len() as u64 + 1;
            let builds_on = |link: &Hash| linked.event.hash(link) == hash;
            if seq != expected_seq || linked.event.customer != self.customer {
                return Err(self.unsound(seq));
            }
            if !builds_on(&self.at.link) && !self.last_hash.as_ref().is_some_and(builds_on) {
                // With nothing of its own before it, the target may be the one that differs.
                return Err(if self.known_seq + 1 == seq && seq > 1 { self.diverged(seq) } else { self.unsound(seq) });
            }
        } else if self.at.open.iter().find(|open| open.event.seq == seq).is_none_or(|open| open.hash != hash) {
            return Err(self.diverged(seq));
        }
        self.last_hash = Some(hash);
        if is_new {
            self.at.take(linked.clone(), &EventStatus::Started);
        }
        if status == EventStatus::Started {
            return Ok(is_new.then_some(Step { linked, status, is_new }));
        }
        if self.at.open.first().is_none_or(|open| open.hash != hash) {
            // Closed, although one before it is open.
            return Err(self.unsound(seq));
        }
        self.at.close(&status);
        Ok(Some(Step { linked, status, is_new }))
    }
}

/// What is to be done for one event.
struct Step {
    linked: LinkedEvent,
    /// How it ends.
    status: EventStatus,
    /// The target does not have it at all.
    is_new: bool,
}

/// Events that are written together, in the protocol's order.
#[derive(Default)]
struct Batch {
    steps: Vec<Step>,
    /// The table's entries that they propose states for, as the target has them and as the batch leaves them.
    entries: HashMap<[u8; 17], TransactionEntry, RandomState>,
}

impl Batch {
    fn add(&mut self, chain: &mut Chain, entry: ChainEntry) -> Result<(), CopyError> {
        self.steps.extend(chain.take(entry)?);
        Ok(())
    }

    fn write(&mut self, target: Target<'_>, copied: &mut Copied) -> Result<(), CopyError> {
        if self.steps.is_empty() {
            return Ok(());
        }
        let chains = target.chains;
        self.read_entries(target)?;
        let new = self.steps.iter().filter(|step| step.is_new);
        append(chains, &new.map(|step| Record::Started(step.linked.clone())).collect::<Vec<_>>())?;
        if !chains.whole_batches() {
            // What a proposal rests on is never less durable than the proposal.
            chains.sync().map_err(CopyError::Target)?;
        }
        self.propose(target)?;
        append(chains, &self.steps.iter().filter_map(closing).collect::<Vec<_>>())?;
        let time_ms = self.steps.iter().map(|step| step.linked.event.time_ms).max().unwrap_or_default();
        chains.end_batch(time_ms, None).map_err(CopyError::Target)?;
        chains.sync().map_err(CopyError::Target)?;
        let approvals: Vec<Approval> = self.steps.iter().flat_map(approvals).collect();
        target.transactions.approve(&approvals).map_err(CopyError::Target)?;
        for step in self.steps.drain(..) {
            copied.events += u64::from(step.is_new);
            copied.closed += u64::from(!step.is_new);
        }
        Ok(())
    }

    /// Reads the table's entries that the events of the batch propose states for.
    fn read_entries(&mut self, target: Target<'_>) -> Result<(), CopyError> {
        self.entries.clear();
        let mut ids: Vec<EntryId> =
            self.steps.iter().flat_map(|step| step.linked.event.entries()).map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut entries = Vec::new();
        target.transactions.get(&ids, &mut entries).map_err(CopyError::Target)?;
        self.entries.extend(ids.into_iter().map(EntryId::to_bytes).zip(entries));
        Ok(())
    }

    /// Proposes the states of all events that are in effect or open, each on top of the one before.
    fn propose(&mut self, target: Target<'_>) -> Result<(), CopyError> {
        let ends: HashMap<EventId, bool, RandomState> =
            self.steps.iter().map(|step| (step.linked.id(), step.status.is_done())).collect();
        let mut proposals = Vec::new();
        for Step { linked, status, .. } in &self.steps {
            if matches!(status, EventStatus::Aborted(_)) {
                continue;
            }
            let event = linked.reference();
            for (id, state) in linked.event.entries() {
                let entry = self.entries.entry(id.to_bytes()).or_default();
                if entry.proposed.is_some_and(|proposed| proposed.event.id == event.id) {
                    continue;
                }
                let approved = in_effect(target.chains, entry, &ends)?;
                let seen_proposed = entry.proposed.map(|proposed| proposed.event.id);
                proposals.push(Proposal {
                    entry: id,
                    seen_approved: entry.approved,
                    seen_proposed,
                    approved,
                    state,
                    event,
                });
                *entry = TransactionEntry { approved, proposed: Some(Proposed { state, event }) };
            }
        }
        let mut results = Vec::new();
        target.transactions.propose(&proposals, &mut results).map_err(CopyError::Target)?;
        match proposals.iter().zip(&results).find(|(_, result)| **result != ProposeResult::Proposed) {
            Some((proposal, _)) => Err(refused(&proposal.event)),
            None => Ok(()),
        }
    }
}

/// The state of an entry before the next event on it: what is proposed counts if its event is `Done`, or will
/// be with this batch.
fn in_effect(
    chains: &dyn Chains,
    entry: &TransactionEntry,
    ends: &HashMap<EventId, bool, RandomState>,
) -> Result<Option<TransactionState>, CopyError> {
    let Some(proposed) = entry.proposed.filter(|_| !entry.is_settled()) else { return Ok(entry.approved) };
    let is_done = if let Some(&is_done) = ends.get(&proposed.event.id) {
        is_done
    } else {
        let mut statuses = Vec::new();
        chains.status(&[proposed.event], &mut statuses).map_err(CopyError::Target)?;
        statuses.iter().flatten().any(EventStatus::is_done)
    };
    Ok(if is_done { Some(proposed.state) } else { entry.approved })
}

fn closing(step: &Step) -> Option<Record> {
    Record::closing(step.linked.reference(), &step.status)
}

fn approvals(step: &Step) -> impl Iterator<Item = Approval> + use<> {
    let event = step.linked.id();
    let entries = step.status.is_done().then(|| step.linked.event.entries());
    entries.into_iter().flatten().map(move |(entry, state)| Approval { entry, event, state })
}

fn append(chains: &dyn Chains, records: &[Record]) -> Result<(), CopyError> {
    let mut results: Vec<Appended> = Vec::new();
    chains.append(records, &mut results).map_err(CopyError::Target)?;
    match records.iter().zip(&results).find(|(record, result)| !result.is_as_wanted(record)) {
        Some((Record::Started(linked), _)) => Err(refused(&linked.reference())),
        Some((Record::Done(event) | Record::DoneByHand(event, _) | Record::Aborted(event, _), _)) => {
            Err(refused(event))
        }
        None => Ok(()),
    }
}

const fn refused(event: &EventRef) -> CopyError {
    CopyError::Refused { customer: event.customer, seq: event.seq }
}

/// Copies how far sources were taken in, with the rows that were rejected, so that an ingest goes on in the new place.
fn copy_marks(source: &dyn Chains, target: &dyn Chains) -> Result<(), CopyError> {
    for mark in source.sources().map_err(CopyError::Source)? {
        let there = target.source(mark.source).map_err(CopyError::Target)?;
        let is_same = there.as_ref() == Some(&mark);
        if is_same && mark.finished {
            continue;
        }
        let lines = source.rejected_lines(mark.source).map_err(CopyError::Source)?;
        let known: BTreeSet<(u64, u8)> = match there {
            Some(_) => target.rejected_lines(mark.source).map_err(CopyError::Target)?.into_iter().collect(),
            None => BTreeSet::new(),
        };
        let new: Vec<(u64, u8)> = lines.into_iter().filter(|line| !known.contains(line)).collect();
        if is_same && new.is_empty() {
            continue;
        }
        let time_ms = source.last_time_ms().map_err(CopyError::Source)?;
        let mut pieces = new.chunks(REJECTED_LINES_AT_ONCE).peekable();
        loop {
            let rejected_lines = pieces.next().unwrap_or_default().to_vec();
            let is_last = pieces.peek().is_none();
            // Only with its last piece is the mark what it is to be.
            let mark = if is_last { mark.clone() } else { SourceMark::new(mark.source) };
            target.end_batch(time_ms, Some(&SourceMark { rejected_lines, ..mark })).map_err(CopyError::Target)?;
            if is_last {
                break;
            }
        }
        target.sync().map_err(CopyError::Target)?;
    }
    Ok(())
}
