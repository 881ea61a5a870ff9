//! What must be in the stores: a plain model that does to itself what it does to them, and compares.

use super::{Checked, Ending, Home, Stores, Target, Wrong, config, equal, holds};
use crate::store::{ChainEntry, CustomerHead, ReadRange};
use crate::totals::{CurrencyTotals, Totals};
use bursar_core::commit::{Appended, Approval, Proposal, ProposeResult};
use bursar_core::rules::{Decision, Known, decide};
use bursar_core::{
    Action, Amount, CurrencyIndex, CustomerId, EntryId, Event, EventRef, EventStatus, Hash, Head, LedgerConfig,
    LinkedEvent, Movement, Proposed, RailId, Record, Request, RequestKey, TransactionEntry, TransactionId,
    TransactionState,
};
use std::collections::BTreeMap;

/// Stores, and all that must be in them.
pub struct Scene {
    home: Box<dyn Home>,
    /// The stores, as they are open now.
    pub(super) stores: Stores,
    pub(super) config: LedgerConfig,
    pub(super) has_feed: bool,
    pub(super) digest: Hash,
    pub(super) heads: BTreeMap<CustomerId, Head>,
    pub(super) chains: BTreeMap<CustomerId, Vec<ChainEntry>>,
    pub(super) table: BTreeMap<TransactionId, TransactionState>,
    /// The event in effect that has each key.
    keys: BTreeMap<RequestKey, EventRef>,
    pub(super) totals: Totals,
    pub(super) time_ms: u64,
}

/// A batch that was decided, and not yet told to the model.
pub(super) struct Run {
    pub(super) events: Vec<LinkedEvent>,
}

pub(super) const fn customer(number: u128) -> CustomerId {
    CustomerId::new(number)
}

pub(super) fn deposit(of: u128, transaction: u128, steps: i64) -> Request {
    Request::deposit(CustomerId::new(of), TransactionId::new(transaction), Amount::from_steps(steps))
}

pub(super) fn withdrawal(of: u128, transaction: u128, steps: i64) -> Request {
    Request::withdrawal(CustomerId::new(of), TransactionId::new(transaction), Amount::from_steps(steps))
}

pub(super) fn deposit_in(currency: u8, of: u128, transaction: u128, steps: i64) -> Request {
    let (transaction, amount) = (TransactionId::new(transaction), Amount::from_steps(steps));
    let movement = Movement { transaction, amount, currency: CurrencyIndex(currency) };
    Request { customer: CustomerId::new(of), action: Action::Deposit(movement) }
}

pub(super) fn dispute(of: u128, transaction: u128) -> Request {
    Request::dispute(CustomerId::new(of), TransactionId::new(transaction))
}

pub(super) fn resolve(of: u128, transaction: u128) -> Request {
    Request::resolve(CustomerId::new(of), TransactionId::new(transaction))
}

impl Scene {
    /// Fresh stores with nothing in them.
    pub(super) fn new(target: &dyn Target) -> Result<Self, Wrong> {
        let mut ledger = [0; 16];
        getrandom::fill(&mut ledger).map_err(|error| Wrong(error.to_string()))?;
        let config = config(ledger)?;
        let home = target.fresh(&config)?;
        Ok(Self {
            stores: home.stores(),
            home,
            digest: config.digest(),
            has_feed: target.has_feed(),
            config,
            heads: BTreeMap::new(),
            chains: BTreeMap::new(),
            table: BTreeMap::new(),
            keys: BTreeMap::new(),
            totals: Totals::default(),
            time_ms: 1_700_000_000_000,
        })
    }

    /// Ends the stores and opens them again; `false` if they do not outlive their process.
    pub(super) fn reopened(&mut self, ending: Ending) -> Result<bool, Wrong> {
        // Handles must be gone before the stores are opened again: an empty pair takes their place.
        let empty = std::sync::Arc::new(crate::store::MemoryStore::new(&self.config));
        self.stores = Stores { chains: empty.clone(), transactions: empty };
        let lasts = self.home.reopen(ending)?;
        self.stores = self.home.stores();
        Ok(lasts)
    }

    /// Whether batches are whole.
    pub(super) fn is_whole(&self) -> bool {
        self.stores.chains.whole_batches()
    }

    pub(super) fn head(&self, customer: CustomerId) -> Head {
        self.heads.get(&customer).cloned().unwrap_or_else(|| Head::start(&self.digest, customer))
    }

    /// The event that a request makes on top of a head.
    pub(super) fn event(&self, head: &Head, request: &Request, rail: Option<RailId>) -> Result<LinkedEvent, Wrong> {
        let transaction = request.action.transaction();
        let state = transaction.and_then(|transaction| self.table.get(&transaction)).copied();
        self.event_on(head, state, request, rail)
    }

    fn event_on(
        &self,
        head: &Head,
        state: Option<TransactionState>,
        request: &Request,
        rail: Option<RailId>,
    ) -> Result<LinkedEvent, Wrong> {
        match decide(&self.config, &head.state, Known { state: state.as_ref(), reserved: false }, request) {
            Ok(Decision::Change(change)) => {
                let event = Event::new(request.customer, head.seq + 1, self.time_ms, change, rail);
                Ok(LinkedEvent::new(event, &head.link))
            }
            other => Err(Wrong(format!("the case itself is wrong: {request:?} leads to {other:?}"))),
        }
    }

    /// Decides requests one upon another.
    pub(super) fn decide(&mut self, requests: &[Request]) -> Result<Run, Wrong> {
        self.time_ms += 7;
        let mut heads: BTreeMap<CustomerId, Head> = BTreeMap::new();
        let mut table: BTreeMap<TransactionId, TransactionState> = BTreeMap::new();
        let mut events = Vec::new();
        for request in requests {
            let known = request.action.transaction();
            let state = known.and_then(|id| table.get(&id).or_else(|| self.table.get(&id))).copied();
            let start = self.head(request.customer);
            let head = heads.entry(request.customer).or_insert(start);
            let linked = self.event_on(head, state, request, None)?;
            head.done(&linked);
            table.extend(linked.event.transaction.zip(linked.event.transaction_state()));
            events.push(linked);
        }
        Ok(Run { events })
    }

    /// Decides one request that comes with a key.
    pub(super) fn decide_keyed(&mut self, request: &Request, key: RequestKey) -> Result<LinkedEvent, Wrong> {
        self.time_ms += 7;
        self.event_with_key(request, None, key)
    }

    fn event_with_key(&self, request: &Request, rail: Option<RailId>, key: RequestKey) -> Result<LinkedEvent, Wrong> {
        let head = self.head(request.customer);
        let linked = self.event(&head, request, rail)?;
        Ok(LinkedEvent::new(Event { key: Some(key), ..linked.event }, &head.link))
    }

    /// The proposal an event makes for its transaction, by what the table says now.
    pub(super) fn proposal(&self, linked: &LinkedEvent) -> Result<Option<Proposal>, Wrong> {
        let of_transaction = |proposal: &Proposal| proposal.entry.transaction().is_some();
        Ok(self.proposals(linked)?.into_iter().find(of_transaction))
    }

    /// All proposals an event makes, by what the table says now.
    pub(super) fn proposals(&self, linked: &LinkedEvent) -> Result<Vec<Proposal>, Wrong> {
        let mut proposals = Vec::new();
        for (id, state) in linked.event.entries() {
            let entry = self.entry(id)?;
            let approved = self.in_effect(&entry)?;
            let seen_proposed = entry.proposed.map(|proposed| proposed.event.id);
            let (seen_approved, event) = (entry.approved, linked.reference());
            proposals.push(Proposal { entry: id, seen_approved, seen_proposed, approved, state, event });
        }
        Ok(proposals)
    }

    /// The whole way of some requests: started, proposed, done, ended, approved.
    pub(super) fn commit(&mut self, requests: &[Request]) -> Checked {
        let run = self.decide(requests)?;
        self.commit_run(run)
    }

    /// The whole way of a request that comes with a key.
    pub(super) fn commit_keyed(&mut self, request: &Request, key: RequestKey) -> Checked {
        let linked = self.decide_keyed(request, key)?;
        self.commit_run(Run { events: vec![linked] })
    }

    fn commit_run(&mut self, run: Run) -> Checked {
        let started: Vec<Record> = run.events.iter().cloned().map(Record::Started).collect();
        self.append_all(&started)?;
        let mut seen: BTreeMap<EntryId, Proposal> = BTreeMap::new();
        let mut proposals = Vec::new();
        for linked in &run.events {
            for mut proposal in self.proposals(linked)? {
                if let Some(before) = seen.get(&proposal.entry) {
                    proposal.seen_approved = before.approved;
                    proposal.seen_proposed = Some(before.event.id);
                    proposal.approved = Some(before.state);
                }
                seen.insert(proposal.entry, proposal);
                proposals.push(proposal);
            }
        }
        self.propose_all(&proposals)?;
        let done: Vec<Record> = run.events.iter().map(|linked| Record::Done(linked.reference())).collect();
        self.append_all(&done)?;
        self.stores.chains.end_batch(self.time_ms, None)?;
        self.approve(&run.events)?;
        for linked in run.events {
            self.totals.begun(&linked.event);
            self.note(linked, EventStatus::Done);
        }
        Ok(())
    }

    /// Appends and proposes an event that waits for its rail.
    pub(super) fn open(&mut self, request: &Request) -> Result<LinkedEvent, Wrong> {
        self.time_ms += 7;
        let linked = self.event(&self.head(request.customer), request, RailId::new(9))?;
        self.begin(linked)
    }

    /// The same, with a key.
    pub(super) fn open_keyed(&mut self, request: &Request, key: RequestKey) -> Result<LinkedEvent, Wrong> {
        self.time_ms += 7;
        let linked = self.event_with_key(request, RailId::new(9), key)?;
        self.begin(linked)
    }

    fn begin(&mut self, linked: LinkedEvent) -> Result<LinkedEvent, Wrong> {
        self.append_all(&[Record::Started(linked.clone())])?;
        self.propose_all(&self.proposals(&linked)?)?;
        self.stores.chains.end_batch(self.time_ms, None)?;
        self.totals.begun(&linked.event);
        self.note(linked.clone(), EventStatus::Started);
        Ok(linked)
    }

    /// Closes the oldest open event of a customer.
    pub(super) fn close(&mut self, linked: &LinkedEvent, status: &EventStatus) -> Checked {
        let event = linked.reference();
        let record = Record::closing(event, status);
        self.append_all(record.as_slice())?;
        self.stores.chains.end_batch(self.time_ms, None)?;
        if status.is_done() {
            self.approve(std::slice::from_ref(linked))?;
        }
        self.note_closed(linked, status);
        Ok(())
    }

    /// Appends records that must all be taken.
    pub(super) fn append_all(&self, records: &[Record]) -> Checked {
        let results = self.append(records)?;
        match results.iter().position(|result| *result != Appended::Yes) {
            None => equal("results", &results.len(), &records.len()),
            Some(at) => Err(Wrong(format!("{:?} came to {:?}", records[at], results[at]))),
        }
    }

    pub(super) fn append(&self, records: &[Record]) -> Result<Vec<Appended>, Wrong> {
        let mut results = Vec::new();
        self.stores.chains.append(records, &mut results)?;
        Ok(results)
    }

    pub(super) fn propose_all(&self, proposals: &[Proposal]) -> Checked {
        let results = self.propose(proposals)?;
        equal("proposals", &results, &vec![ProposeResult::Proposed; proposals.len()])
    }

    pub(super) fn propose(&self, proposals: &[Proposal]) -> Result<Vec<ProposeResult>, Wrong> {
        let mut results = Vec::new();
        self.stores.transactions.propose(proposals, &mut results)?;
        Ok(results)
    }

    pub(super) fn approve(&self, events: &[LinkedEvent]) -> Checked {
        let approvals = events.iter().flat_map(|linked| {
            linked.event.entries().map(|(entry, state)| Approval { entry, event: linked.id(), state })
        });
        Ok(self.stores.transactions.approve(&approvals.collect::<Vec<_>>())?)
    }

    pub(super) fn entry(&self, id: impl Into<EntryId>) -> Result<TransactionEntry, Wrong> {
        let mut entries = Vec::new();
        self.stores.transactions.get(&[id.into()], &mut entries)?;
        equal("entries", &entries.len(), &1)?;
        Ok(entries.pop().unwrap_or_default())
    }

    /// The state in effect, by what the table says and how the event stands that proposed last.
    pub(super) fn in_effect(&self, entry: &TransactionEntry) -> Result<Option<TransactionState>, Wrong> {
        let Some(Proposed { state, event }) = entry.proposed else { return Ok(entry.approved) };
        let mut statuses = Vec::new();
        self.stores.chains.status(&[event], &mut statuses)?;
        Ok(match statuses.pop().flatten() {
            Some(EventStatus::Done | EventStatus::DoneByHand(_)) => Some(state),
            Some(EventStatus::Started | EventStatus::Aborted(_)) | None => entry.approved,
        })
    }

    /// The events that touched a transaction and are in effect or open, by what table and chains say together.
    pub(super) fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, Wrong> {
        let mut events = self.stores.transactions.events_of(transaction)?;
        let mut statuses = Vec::new();
        self.stores.chains.status(&events, &mut statuses)?;
        equal("the count of statuses", &statuses.len(), &events.len())?;
        let mut stands = statuses.iter().map(|status| {
            matches!(status, Some(EventStatus::Started | EventStatus::Done | EventStatus::DoneByHand(_)))
        });
        events.retain(|_| stands.next().unwrap_or(false));
        Ok(events)
    }

    /// Tells the model of an event.
    pub(super) fn note(&mut self, linked: LinkedEvent, status: EventStatus) {
        let customer = linked.event.customer;
        let mut head = self.head(customer);
        head.take(linked.clone(), &status);
        self.heads.insert(customer, head);
        if status.is_done() {
            self.totals.done(&linked.event);
            self.table.extend(linked.event.transaction.zip(linked.event.transaction_state()));
            self.keys.extend(linked.event.key.map(|key| (key, linked.reference())));
        }
        self.chains.entry(customer).or_default().push(ChainEntry { linked, status });
    }

    pub(super) fn note_closed(&mut self, linked: &LinkedEvent, status: &EventStatus) {
        if let Some(head) = self.heads.get_mut(&linked.event.customer) {
            head.close(status);
        }
        match status {
            EventStatus::Done | EventStatus::DoneByHand(_) => {
                self.totals.done(&linked.event);
                self.table.extend(linked.event.transaction.zip(linked.event.transaction_state()));
                self.keys.extend(linked.event.key.map(|key| (key, linked.reference())));
            }
            EventStatus::Started | EventStatus::Aborted(_) => self.totals.aborted(),
        }
        let entries = self.chains.entry(linked.event.customer).or_default();
        for entry in entries.iter_mut().filter(|entry| entry.linked.hash == linked.hash) {
            entry.status.clone_from(status);
        }
    }

    /// Compares everything in the stores with what must be there.
    pub(super) fn check(&self) -> Checked {
        self.check_table()?;
        self.check_keys()?;
        self.check_chains_and_sums()
    }

    /// Compares the chains, and all that follows from them alone.
    pub(super) fn check_chains_and_sums(&self) -> Checked {
        self.check_chains()?;
        let chains = &self.stores.chains;
        let mut listed = Vec::new();
        chains.list(None, usize::MAX, &mut listed)?;
        let expected: Vec<CustomerHead> =
            self.heads.iter().map(|(&customer, head)| CustomerHead { customer, head: head.clone() }).collect();
        equal("the list of customers", &listed, &expected)?;
        let open = self.heads.iter().filter(|(_, head)| !head.open.is_empty()).map(|(customer, _)| *customer);
        let mut found = chains.open_customers()?;
        found.sort_unstable();
        equal("customers with open events", &found, &open.collect())?;
        equal("totals", &chains.totals()?, &self.totals)?;
        holds("the sums do not fit each other", self.totals.currencies().iter().all(CurrencyTotals::is_balanced))?;
        let newest = self.chains.values().flatten().map(|entry| entry.linked.event.time_ms).max();
        equal("the newest event's time", &chains.last_time_ms()?, &newest.unwrap_or(0))
    }

    fn check_chains(&self) -> Checked {
        let customers: Vec<CustomerId> = self.heads.keys().copied().collect();
        let mut heads = Vec::new();
        self.stores.chains.load(&customers, &mut heads)?;
        let expected: Vec<Option<Head>> = self.heads.values().cloned().map(Some).collect();
        equal("heads", &heads, &expected)?;
        for (&customer, expected) in &self.chains {
            let mut entries = Vec::new();
            self.stores.chains.read(customer, ReadRange::ALL, &mut entries)?;
            equal("a chain", &entries, expected)?;
            let events: Vec<_> = expected.iter().map(|entry| entry.linked.reference()).collect();
            let mut statuses = Vec::new();
            self.stores.chains.status(&events, &mut statuses)?;
            let expected: Vec<_> = expected.iter().map(|entry| Some(entry.status.clone())).collect();
            equal("how events stand", &statuses, &expected)?;
        }
        Ok(())
    }

    /// The entry of every key names its event, and its state is in effect.
    fn check_keys(&self) -> Checked {
        for (&key, event) in &self.keys {
            let what = format!("key {key}");
            let entry = self.entry(key)?;
            equal(&what, &entry.proposed.map(|proposed| proposed.event), &Some(*event))?;
            let of_event = |entry: &&ChainEntry| entry.linked.reference() == *event;
            let linked = self.chains.get(&event.customer).and_then(|chain| chain.iter().find(of_event));
            let state = linked.map(|entry| entry.linked.event.key_state());
            equal(&what, &self.in_effect(&entry)?, &state)?;
        }
        Ok(())
    }

    fn check_table(&self) -> Checked {
        let transactions: Vec<TransactionId> = self.table.keys().copied().collect();
        let mut entries = Vec::new();
        let ids: Vec<EntryId> = transactions.iter().map(|&id| id.into()).collect();
        self.stores.transactions.get(&ids, &mut entries)?;
        equal("the count of entries", &entries.len(), &transactions.len())?;
        for (entry, (transaction, expected)) in entries.iter().zip(&self.table) {
            let what = format!("transaction {transaction}");
            equal(&what, &self.in_effect(entry)?, &Some(*expected))?;
            let touched = self.chains.get(&expected.customer).into_iter().flatten().filter(|entry| {
                let of_it = entry.linked.event.transaction == Some(*transaction);
                of_it && !matches!(entry.status, EventStatus::Aborted(_))
            });
            let touched: Vec<_> = touched.map(|entry| entry.linked.reference()).collect();
            equal(&what, &self.events_of(*transaction)?, &touched)?;
        }
        Ok(())
    }
}
