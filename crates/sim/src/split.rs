//! Chains in one simulated system and the transactions table in another, each reached over a network that fails.
//!
//! * The *chains* show an append at once and keep it through a crash of theirs only once it was synced: each chain
//!   then keeps any first part of what it had. Their owners' connections end with the crash, and every later call on
//!   them fails.
//! * The *table* keeps what is proposed when the call returns. Approvals may be lost in a crash of the table.
//! * A *call* may fail before it takes effect or after, take effect in part, or be delayed: the caller hears an error,
//!   and the call takes effect later, at any moment before the store crashes.
//!
//! Both pass the suite that every store must pass (`tests/split.rs`). What this module does not do: decide when which
//! fault comes; see [`crate::world`].

use crate::random::Random;
use crate::witness::Witness;
use bursar_engine::Totals;
use bursar_engine::core::commit::{Appended, Approval, Proposal, ProposeResult};
use bursar_engine::core::planted::{Planted, is_planted};
use bursar_engine::core::{
    CustomerId, EntryId, EventRef, EventStatus, Hash, Head, Proposed, Record, TransactionEntry, TransactionId,
};
use bursar_engine::store::{
    ChainEntry, Chains, CustomerHead, ReadRange, SourceId, SourceMark, StoreError, Transactions,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A fault that hits a call over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetFault {
    /// The call fails, and has had no effect.
    Before,
    /// The call fails, and has had its effect.
    After,
    /// The call fails, and has had a part of its effect.
    Partly,
    /// The call fails, and has its effect later.
    Delayed,
}

impl NetFault {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Before, Self::After, Self::Partly, Self::Delayed];

    const fn name(self, system: System) -> &'static str {
        match (self, system) {
            (Self::Before, System::Chains) => "chains: a call fails before its effect",
            (Self::After, System::Chains) => "chains: a call fails after its effect",
            (Self::Partly, System::Chains) => "chains: a call fails half-way",
            (Self::Delayed, System::Chains) => "chains: a call of a dead owner arrives late",
            (Self::Before, System::Table) => "table: a call fails before its effect",
            (Self::After, System::Table) => "table: a call fails after its effect",
            (Self::Partly, System::Table) => "table: a call fails half-way",
            (Self::Delayed, System::Table) => "table: a call of a dead owner arrives late",
        }
    }
}

/// One of the two systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Where the chains are.
    Chains,
    /// Where the transactions table is.
    Table,
}

#[derive(Clone, Debug)]
struct Chain {
    records: Vec<Record>,
    synced: usize,
    entries: Vec<ChainEntry>,
    head: Head,
}

impl Chain {
    fn new(ledger_digest: &Hash, customer: CustomerId) -> Self {
        let head = Head::start(ledger_digest, customer);
        Self { records: Vec::new(), synced: 0, entries: Vec::new(), head }
    }

    fn append(&mut self, record: &Record) -> Appended {
        match record {
            Record::Started(linked) => {
                if linked.event.seq != self.entries.len() as u64 + 1 {
                    return Appended::Conflict;
                }
                self.entries.push(ChainEntry { linked: linked.clone(), status: EventStatus::Started });
                self.head.open.push(linked.clone());
            }
            Record::Done(event) => return self.close(record, event, &EventStatus::Done),
            Record::DoneByHand(event, reason) => {
                return self.close(record, event, &EventStatus::DoneByHand(reason.clone()));
            }
            Record::Aborted(event, reason) => {
                return self.close(record, event, &EventStatus::Aborted(reason.clone()));
            }
        }
        self.records.push(record.clone());
        Appended::Yes
    }

    fn close(&mut self, record: &Record, event: &EventRef, status: &EventStatus) -> Appended {
        let Some(entry) = self.entries.get_mut((event.seq as usize).wrapping_sub(1)) else { return Appended::Conflict };
        if entry.linked.id() != event.id {
            return Appended::Conflict;
        }
        if entry.status == EventStatus::Done && is_planted(Planted::StaleOwnerOverrules) {
            entry.status.clone_from(status);
            return Appended::Yes;
        }
        if let Some(already) = Appended::closed_already(&entry.status) {
            return already;
        }
        if self.head.open.first().is_none_or(|oldest| oldest.id() != event.id) {
            return Appended::Conflict;
        }
        entry.status.clone_from(status);
        self.head.close(status);
        self.records.push(record.clone());
        Appended::Yes
    }
}

#[derive(Debug)]
enum Late {
    Append(Vec<Record>),
    Propose(Vec<Proposal>),
    Approve(Vec<Approval>),
}

#[derive(Debug)]
struct State {
    ledger_digest: Hash,
    chains: BTreeMap<CustomerId, Chain>,
    table: BTreeMap<EntryId, TransactionEntry>,
    /// The entries as a crash of the table leaves them at the least.
    durable_table: BTreeMap<EntryId, TransactionEntry>,
    /// How far sources got, and how far durably so. Nothing keeps them together with the events.
    sources: BTreeMap<SourceId, SourceMark>,
    durable_sources: BTreeMap<SourceId, SourceMark>,
    /// Counted up by each crash: connections of before are gone.
    epochs: [u64; 2],
    armed: Vec<(System, NetFault, u64)>,
    late: Vec<Late>,
    was_hit: bool,
    random: Random,
    witness: Witness,
}

/// Both systems, and the network to them. Copies are the same.
#[derive(Clone, Debug)]
pub struct Network(Arc<Mutex<State>>);

/// A connection of one owner to both systems.
#[derive(Clone, Debug)]
pub struct Connection {
    network: Network,
    epochs: [u64; 2],
    is_faultless: bool,
}

fn unreachable_error(system: System, why: &'static str) -> StoreError {
    let path = match system {
        System::Chains => "chains",
        System::Table => "table",
    };
    StoreError::Io { doing: "reach a store", path: PathBuf::from(path), error: Arc::new(io::Error::other(why)) }
}

impl State {
    /// The armed fault that hits a call, if one does.
    fn call(&mut self, connection: &Connection, system: System) -> Result<Option<NetFault>, StoreError> {
        if connection.is_faultless {
            return Ok(None);
        }
        if connection.epochs[system as usize] != self.epochs[system as usize] {
            self.was_hit = true;
            return Err(unreachable_error(system, "the connection is gone"));
        }
        let mut hit = None;
        for (_, fault, left) in self.armed.iter_mut().filter(|armed| armed.0 == system) {
            if *left == 0 && hit.is_none() {
                hit = Some(*fault);
            }
            *left = left.saturating_sub(1);
        }
        if let Some(fault) = hit {
            self.armed.retain(|armed| (armed.0, armed.1) != (system, fault));
            self.witness.count(fault.name(system));
            self.was_hit = true;
        }
        Ok(hit)
    }

    /// A call that only reads, or whose effect nobody sees before it is asked for.
    fn simple(&mut self, connection: &Connection, system: System) -> Result<(), StoreError> {
        match self.call(connection, system)? {
            None => Ok(()),
            Some(_) => Err(unreachable_error(system, "timed out")),
        }
    }

    fn append(&mut self, records: &[Record]) -> Vec<Appended> {
        let mut failed: BTreeSet<CustomerId> = BTreeSet::new();
        let mut results = Vec::new();
        for record in records {
            let customer = record.customer();
            let rests = matches!(record, Record::Started(_) | Record::Done(_));
            let ledger_digest = self.ledger_digest;
            let result = if rests && failed.contains(&customer) {
                Appended::Conflict
            } else {
                let chain = self.chains.entry(customer).or_insert_with(|| Chain::new(&ledger_digest, customer));
                chain.append(record)
            };
            if !result.is_as_wanted(record) {
                failed.insert(customer);
            }
            results.push(result);
        }
        self.chains.retain(|_, chain| !chain.records.is_empty());
        results
    }

    /// Of the records of each chain, a first part.
    fn first_parts(&mut self, records: &[Record]) -> Vec<Record> {
        let mut cut: BTreeSet<CustomerId> = BTreeSet::new();
        let mut kept = Vec::new();
        for record in records {
            if cut.contains(&record.customer()) || self.random.one_in(3) {
                cut.insert(record.customer());
            } else {
                kept.push(record.clone());
            }
        }
        kept
    }

    fn propose(&mut self, proposals: &[Proposal]) -> Vec<ProposeResult> {
        let mut results = Vec::new();
        for proposal in proposals {
            let mut entry = self.table.get(&proposal.entry).copied().unwrap_or_default();
            let there = entry.proposed.map(|proposed| proposed.event.id);
            let as_seen = there == proposal.seen_proposed
                && (entry.approved == proposal.seen_approved || entry.approved == proposal.approved);
            results.push(if there == Some(proposal.event.id) {
                ProposeResult::Proposed
            } else if as_seen {
                entry.approved = proposal.approved;
                entry.proposed = Some(Proposed { state: proposal.state, event: proposal.event });
                self.table.insert(proposal.entry, entry);
                self.durable_table.insert(proposal.entry, entry);
                ProposeResult::Proposed
            } else {
                ProposeResult::Conflict
            });
        }
        results
    }

    fn approve(&mut self, approvals: &[Approval]) {
        for approval in approvals {
            let Some(entry) = self.table.get_mut(&approval.entry) else { continue };
            if entry.proposed.is_some_and(|proposed| proposed.event.id == approval.event) {
                entry.approved = Some(approval.state);
            }
        }
    }
}

impl Network {
    /// Empty systems for a ledger.
    pub fn new(ledger_digest: Hash, witness: Witness) -> Self {
        Self(Arc::new(Mutex::new(State {
            ledger_digest,
            chains: BTreeMap::new(),
            table: BTreeMap::new(),
            durable_table: BTreeMap::new(),
            sources: BTreeMap::new(),
            durable_sources: BTreeMap::new(),
            epochs: [0, 0],
            armed: Vec::new(),
            late: Vec::new(),
            was_hit: false,
            random: Random::of(0, 0),
            witness,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the network its dice for what comes.
    pub fn roll(&self, random: &mut Random) {
        self.lock().random = Random::of(random.number(), 2);
    }

    /// A connection for an owner.
    pub fn connect(&self) -> Connection {
        Connection { network: self.clone(), epochs: self.lock().epochs, is_faultless: false }
    }

    /// A connection that no fault hits, to look at what is there.
    pub fn inspect(&self) -> Connection {
        Connection { is_faultless: true, ..self.connect() }
    }

    /// The n-th call from now on to a system is hit, counted from 0.
    pub fn arm(&self, system: System, fault: NetFault, calls: u64) {
        self.lock().armed.push((system, fault, calls));
    }

    /// No fault is armed any more.
    pub fn disarm(&self) {
        self.lock().armed.clear();
    }

    /// Whether an error has a reason. Asking forgets it.
    pub fn take_excuse(&self) -> bool {
        std::mem::take(&mut self.lock().was_hit)
    }

    /// A system crashes and comes back.
    pub fn crash(&self, system: System, random: &mut Random) {
        let mut state = self.lock();
        state.epochs[system as usize] += 1;
        match system {
            System::Chains => {
                let ledger_digest = state.ledger_digest;
                for (customer, chain) in &mut state.chains {
                    let kept = chain.synced + random.place(chain.records.len() - chain.synced + 1);
                    let mut left = Chain::new(&ledger_digest, *customer);
                    for record in &chain.records[..kept] {
                        left.append(record);
                    }
                    left.synced = kept;
                    *chain = left;
                }
                state.chains.retain(|_, chain| !chain.records.is_empty());
                state.sources = state.durable_sources.clone();
                state.late.retain(|late| !matches!(late, Late::Append(_)));
                state.witness.count("chains: the system crashes");
            }
            System::Table => {
                let State { table, durable_table, .. } = &mut *state;
                for (transaction, entry) in table.iter_mut() {
                    if let Some(durable) = durable_table.get(transaction)
                        && random.one_in(2)
                    {
                        *entry = *durable;
                    }
                }
                durable_table.clone_from(table);
                state.late.retain(|late| matches!(late, Late::Append(_)));
                state.witness.count("table: the system crashes");
            }
        }
    }

    /// A call of long ago arrives. Gives whether there was one.
    pub fn deliver_late(&self, random: &mut Random) -> bool {
        let mut state = self.lock();
        if state.late.is_empty() {
            return false;
        }
        let at = random.place(state.late.len());
        let late = state.late.swap_remove(at);
        state.witness.say(|| format!("         late arrival: {late:?}"));
        match late {
            Late::Append(records) => drop(state.append(&records)),
            Late::Propose(proposals) => drop(state.propose(&proposals)),
            Late::Approve(approvals) => state.approve(&approvals),
        }
        true
    }
}

impl Connection {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.network.lock()
    }

    fn read_only(&self, system: System) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.lock();
        state.simple(self, system)?;
        Ok(state)
    }
}

impl Chains for Connection {
    fn whole_batches(&self) -> bool {
        false
    }

    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        let state = self.read_only(System::Chains)?;
        heads.extend(customers.iter().map(|customer| state.chains.get(customer).map(|chain| chain.head.clone())));
        Ok(())
    }

    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        let mut state = self.lock();
        match state.call(self, System::Chains)? {
            None => {
                let appended = state.append(records);
                results.extend(appended);
                return Ok(());
            }
            Some(NetFault::Before) => {}
            Some(NetFault::After) => drop(state.append(records)),
            Some(NetFault::Partly) => {
                let part = state.first_parts(records);
                state.append(&part);
            }
            Some(NetFault::Delayed) => state.late.push(Late::Append(records.to_vec())),
        }
        Err(unreachable_error(System::Chains, "timed out"))
    }

    fn end_batch(&self, _time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        let Some(mark) = mark else { return Ok(()) };
        let mut state = self.read_only(System::Chains)?;
        let earlier = state.sources.remove(&mark.source).map_or(Vec::new(), |earlier| earlier.rejected_lines);
        let rejected_lines = [&earlier[..], &mark.rejected_lines].concat();
        state.sources.insert(mark.source, SourceMark { rejected_lines, ..mark.clone() });
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        let hit = state.call(self, System::Chains)?;
        for chain in state.chains.values_mut().filter(|_| hit.is_none() || hit == Some(NetFault::After)) {
            chain.synced = chain.records.len();
        }
        if hit.is_none() || hit == Some(NetFault::After) {
            state.durable_sources = state.sources.clone();
        }
        if hit.is_none() { Ok(()) } else { Err(unreachable_error(System::Chains, "timed out")) }
    }

    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        let state = self.read_only(System::Chains)?;
        statuses.extend(events.iter().map(|event| {
            let entry = state.chains.get(&event.customer)?.entries.get((event.seq as usize).wrapping_sub(1))?;
            (entry.linked.id() == event.id).then(|| entry.status.clone())
        }));
        Ok(())
    }

    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        let state = self.read_only(System::Chains)?;
        let Some(chain) = state.chains.get(&customer) else { return Ok(()) };
        range.read(&chain.entries, entries);
        Ok(())
    }

    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError> {
        let state = self.read_only(System::Chains)?;
        let open = state.chains.iter().filter(|(_, chain)| !chain.head.open.is_empty());
        Ok(open.map(|(customer, _)| *customer).collect())
    }

    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError> {
        let state = self.read_only(System::Chains)?;
        let later = state.chains.iter().filter(|(customer, _)| after.is_none_or(|after| **customer > after));
        heads.extend(later.take(limit).map(|(&customer, chain)| CustomerHead { customer, head: chain.head.clone() }));
        Ok(())
    }

    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError> {
        let state = self.read_only(System::Chains)?;
        Ok(state.sources.get(&source).map(|mark| SourceMark { rejected_lines: Vec::new(), ..mark.clone() }))
    }

    fn sources(&self) -> Result<Vec<SourceMark>, StoreError> {
        let state = self.read_only(System::Chains)?;
        Ok(state.sources.values().map(|mark| SourceMark { rejected_lines: Vec::new(), ..mark.clone() }).collect())
    }

    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError> {
        let state = self.read_only(System::Chains)?;
        Ok(state.sources.get(&source).map_or(Vec::new(), |mark| mark.rejected_lines.clone()))
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        let state = self.read_only(System::Chains)?;
        let mut totals = Totals::default();
        for entry in state.chains.values().flat_map(|chain| &chain.entries) {
            totals.begun(&entry.linked.event);
            match entry.status {
                EventStatus::Started => {}
                EventStatus::Done | EventStatus::DoneByHand(_) => totals.done(&entry.linked.event),
                EventStatus::Aborted(_) => totals.aborted(),
            }
        }
        Ok(totals)
    }

    fn last_time_ms(&self) -> Result<u64, StoreError> {
        let state = self.read_only(System::Chains)?;
        let newest = state.chains.values().filter_map(|chain| chain.entries.last());
        Ok(newest.map(|entry| entry.linked.event.time_ms).max().unwrap_or(0))
    }
}

impl Transactions for Connection {
    fn get(&self, ids: &[EntryId], entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        let state = self.read_only(System::Table)?;
        entries.extend(ids.iter().map(|id| state.table.get(id).copied().unwrap_or_default()));
        Ok(())
    }

    fn propose(&self, proposals: &[Proposal], results: &mut Vec<ProposeResult>) -> Result<(), StoreError> {
        let mut state = self.lock();
        match state.call(self, System::Table)? {
            None => {
                let proposed = state.propose(proposals);
                results.extend(proposed);
                return Ok(());
            }
            Some(NetFault::Before) => {}
            Some(NetFault::After) => drop(state.propose(proposals)),
            Some(NetFault::Partly) => {
                let part: Vec<Proposal> = proposals.iter().copied().filter(|_| state.random.one_in(2)).collect();
                state.propose(&part);
            }
            Some(NetFault::Delayed) => state.late.push(Late::Propose(proposals.to_vec())),
        }
        Err(unreachable_error(System::Table, "timed out"))
    }

    fn approve(&self, approvals: &[Approval]) -> Result<(), StoreError> {
        let mut state = self.lock();
        match state.call(self, System::Table)? {
            None => {
                state.approve(approvals);
                return Ok(());
            }
            Some(NetFault::Before) => {}
            Some(NetFault::After) => state.approve(approvals),
            Some(NetFault::Partly) => {
                let part: Vec<Approval> = approvals.iter().copied().filter(|_| state.random.one_in(2)).collect();
                state.approve(&part);
            }
            Some(NetFault::Delayed) => state.late.push(Late::Approve(approvals.to_vec())),
        }
        Err(unreachable_error(System::Table, "timed out"))
    }

    fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, StoreError> {
        let state = self.read_only(System::Chains)?;
        let entry = state.table.get(&transaction.into()).copied().unwrap_or_default();
        let customer = entry.approved.or(entry.proposed.map(|proposed| proposed.state)).map(|state| state.customer);
        let entries = customer.and_then(|customer| state.chains.get(&customer)).map(|chain| &chain.entries);
        let touches = |entry: &&ChainEntry| {
            !matches!(entry.status, EventStatus::Aborted(_)) && entry.linked.event.transaction == Some(transaction)
        };
        Ok(entries.into_iter().flatten().filter(touches).map(|entry| entry.linked.reference()).collect())
    }
}
