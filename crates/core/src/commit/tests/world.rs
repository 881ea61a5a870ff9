//! A small world for the machine: chains in one store, the transactions table in another, and a rail with its
//! own book.
//!
//! * A write is visible at once. A crash of the world loses any suffix of what each chain has not synced,
//!   independently per chain; the table is durable when a write returns.
//! * A `Started` is appended at exactly the next seq. Events are closed oldest first, and once. A `Started` or
//!   `Done` whose chain had a record that did not come out as asked, in the same call, is a conflict.
//! * The rail acts once per event id, and answers whatever its script says.
//! * The invariants of the whole are methods here, to be asked after every step.

use super::super::*;
use crate::account::CustomerState;
use crate::chain::{ChainCheck, Head};
use crate::event::ReasonText;
use crate::event::{EventStatus, Record};
use crate::id::TransactionId;
use crate::model::Model;
use crate::policy::{DisputablePolicy, LedgerConfig, LockedPolicy, Policy};
use crate::request::RequestKind;
use crate::transaction::{EntryId, Proposed, TransactionEntry, TransactionStatus};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt::Write;

/// `SplitMix64`: the smallest generator that is good enough, and the same everywhere.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

/// One chain: its records, and how many of them are synced.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    pub(super) records: Vec<Record>,
    pub(super) synced: usize,
}

impl Chain {
    pub(super) fn events(&self) -> Vec<(LinkedEvent, EventStatus)> {
        Self::events_of(&self.records)
    }

    fn events_of(records: &[Record]) -> Vec<(LinkedEvent, EventStatus)> {
        let mut events: Vec<(LinkedEvent, EventStatus)> = Vec::new();
        for record in records {
            match record {
                Record::Started(linked) => events.push((linked.clone(), EventStatus::Started)),
                Record::Done(event) => events[event.seq as usize - 1].1 = EventStatus::Done,
                Record::DoneByHand(event, reason) => {
                    events[event.seq as usize - 1].1 = EventStatus::DoneByHand(reason.clone());
                }
                Record::Aborted(event, reason) => {
                    events[event.seq as usize - 1].1 = EventStatus::Aborted(reason.clone());
                }
            }
        }
        events
    }

    fn append(&mut self, record: &Record) -> Appended {
        let events = self.events();
        let (event, closing) = match record {
            Record::Started(linked) => {
                if linked.event.seq != events.len() as u64 + 1 {
                    return Appended::Conflict;
                }
                self.records.push(record.clone());
                return Appended::Yes;
            }
            Record::Done(event) | Record::DoneByHand(event, _) | Record::Aborted(event, _) => (event, record),
        };
        let Some((_, status)) = events.iter().find(|(linked, _)| linked.reference() == *event) else {
            return Appended::Conflict;
        };
        if let Some(already) = Appended::closed_already(status) {
            return already;
        }
        let oldest_open = events.iter().find(|(_, status)| *status == EventStatus::Started);
        if oldest_open.is_some_and(|(linked, _)| linked.reference() != *event) {
            return Appended::Conflict;
        }
        self.records.push(closing.clone());
        Appended::Yes
    }
}

/// What the rail did for an event, once and for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Acted,
    Refused(&'static str),
}

/// A request somebody waits for, and every outcome that was true at some moment since it was asked.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) request: Request,
    pub(super) terms: Terms,
    /// The key by which it takes effect once.
    pub(super) key: Option<RequestKey>,
    pub(super) possible: BTreeSet<&'static str>,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) config: LedgerConfig,
    pub(super) digest: Hash,
    pub(super) chains: BTreeMap<CustomerId, Chain>,
    pub(super) table: BTreeMap<EntryId, TransactionEntry>,
    pub(super) book: BTreeMap<EventId, (LinkedEvent, Verdict)>,
    pub(super) calls: Vec<RailCall>,
    pub(super) watched: BTreeMap<Ticket, Watched>,
    /// Events by whose receipt somebody was told that a request took effect.
    pub(super) told: BTreeMap<EventId, Ticket>,
    pub(super) dirty: BTreeSet<CustomerId>,
}

pub(super) fn config(locked: LockedPolicy, disputable: DisputablePolicy) -> LedgerConfig {
    let policy = Policy { locked, disputable };
    LedgerConfig { ledger: [7; 16], policy, currencies: crate::Currencies::default() }
}

impl World {
    pub(super) fn new(config: LedgerConfig) -> Self {
        Self {
            digest: config.digest(),
            config,
            chains: BTreeMap::new(),
            table: BTreeMap::new(),
            book: BTreeMap::new(),
            calls: Vec::new(),
            watched: BTreeMap::new(),
            told: BTreeMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    pub(super) fn head(&self, customer: CustomerId) -> Option<Head> {
        let chain = self.chains.get(&customer).filter(|chain| !chain.records.is_empty())?;
        let mut head = Head::start(&self.digest, customer);
        for (linked, status) in chain.events() {
            head.take(linked, &status);
        }
        Some(head)
    }

    pub(super) fn status(&self, event: &EventRef) -> Option<EventStatus> {
        let events = self.chains.get(&event.customer)?.events();
        events.into_iter().find(|(linked, _)| linked.reference() == *event).map(|(_, status)| status)
    }

    /// An event in effect.
    pub(super) fn event(&self, event: &EventRef) -> Option<LinkedEvent> {
        let events = self.chains.get(&event.customer)?.events();
        let found = events.into_iter().find(|(linked, _)| linked.reference() == *event);
        found.filter(|(_, status)| *status == EventStatus::Done).map(|(linked, _)| linked)
    }

    pub(super) fn entry(&self, id: impl Into<EntryId>) -> TransactionEntry {
        self.table.get(&id.into()).copied().unwrap_or_default()
    }

    /// Appends in one call. `keep` says which records get to the store: a caller may die half-way.
    pub(super) fn append(&mut self, records: &[Record], mut keep: impl FnMut(CustomerId) -> bool) -> Vec<Appended> {
        let mut failed = BTreeSet::new();
        let mut cut = BTreeSet::new();
        let mut results = Vec::new();
        for record in records {
            let customer = match record {
                Record::Started(linked) => linked.event.customer,
                Record::Done(event) | Record::DoneByHand(event, _) | Record::Aborted(event, _) => event.customer,
            };
            if cut.contains(&customer) || !keep(customer) {
                cut.insert(customer);
                results.push(Appended::Conflict);
                continue;
            }
            let rests = !matches!(record, Record::Aborted(..));
            let result = if rests && failed.contains(&customer) {
                Appended::Conflict
            } else {
                self.chains.entry(customer).or_default().append(record)
            };
            if !result.is_as_wanted(record) {
                failed.insert(customer);
            }
            self.dirty.insert(customer);
            self.watch();
            results.push(result);
        }
        results
    }

    pub(super) fn propose(&mut self, proposals: &[Proposal]) -> Vec<ProposeResult> {
        let mut results = Vec::new();
        for proposal in proposals {
            let entry = self.table.entry(proposal.entry).or_default();
            let proposed = entry.proposed.map(|proposed| proposed.event.id);
            results.push(if proposed == Some(proposal.event.id) {
                ProposeResult::Proposed
            } else if proposed == proposal.seen_proposed
                && [proposal.seen_approved, proposal.approved].contains(&entry.approved)
            {
                entry.approved = proposal.approved;
                entry.proposed = Some(Proposed { state: proposal.state, event: proposal.event });
                ProposeResult::Proposed
            } else {
                ProposeResult::Conflict
            });
        }
        self.watch();
        results
    }

    /// The state of a transaction or a key, by the readers' rule.
    pub(super) fn in_effect(&self, id: impl Into<EntryId>) -> Option<TransactionState> {
        let entry = self.entry(id);
        match entry.proposed {
            Some(proposed) if self.status(&proposed.event).is_some_and(|status| status.is_done()) => {
                Some(proposed.state)
            }
            Some(_) | None => entry.approved,
        }
    }

    /// Takes an event that is in effect at once, with what it does to its transaction.
    pub(super) fn append_done(&mut self, linked: LinkedEvent) {
        let event = linked.reference();
        if let Some((transaction, state)) = linked.event.transaction.zip(linked.event.transaction_state()) {
            let approved = self.in_effect(transaction);
            let proposed = Some(Proposed { state, event });
            self.table.insert(transaction.into(), TransactionEntry { approved, proposed });
        }
        let chain = self.chains.entry(event.customer).or_default();
        for record in [Record::Started(linked), Record::Done(event)] {
            assert_eq!(chain.append(&record), Appended::Yes, "decided on a head that is not the chain's");
        }
        self.dirty.insert(event.customer);
        self.watch();
    }

    pub(super) fn approve(&mut self, approvals: &[Approval]) {
        for approval in approvals {
            let entry = self.table.entry(approval.entry).or_default();
            if entry.proposed.is_some_and(|proposed| proposed.event.id == approval.event) {
                entry.approved = Some(approval.state);
            }
        }
    }

    pub(super) fn sync(&mut self) {
        for chain in self.chains.values_mut() {
            chain.synced = chain.records.len();
        }
    }

    /// The power fails: of what is not synced, each chain keeps some first part.
    pub(super) fn crash(&mut self, mut keep: impl FnMut(usize) -> usize) {
        for (customer, chain) in &mut self.chains {
            let unsynced = chain.records.len() - chain.synced;
            chain.records.truncate(chain.synced + keep(unsynced).min(unsynced));
            chain.synced = chain.records.len();
            self.dirty.insert(*customer);
        }
        self.chains.retain(|_, chain| !chain.records.is_empty());
    }

    /// A rail gets a call. Its event must be durable, and the table must say that it is on its way.
    pub(super) fn call(&mut self, call: RailCall) {
        let event = call.event.reference();
        let chain = &self.chains[&event.customer];
        let synced = Chain::events_of(&chain.records[..chain.synced]);
        assert!(synced.iter().any(|(l, _)| l.reference() == event), "a rail is called before Started is durable");
        let transaction = call.event.event.transaction.expect("only deposits and withdrawals have rails");
        let proposed = self.entry(transaction).proposed;
        if self.status(&event) == Some(EventStatus::Started) {
            assert_eq!(proposed.map(|p| p.event), Some(event), "a rail is called for an event without a proposal");
        }
        self.calls.push(call);
    }

    /// The rail makes up its mind about a call, or says again what it did.
    pub(super) fn act(&mut self, call: &RailCall, verdict: Verdict) -> RailAnswer {
        let (_, verdict) = self.book.entry(call.event.id()).or_insert_with(|| (call.event.clone(), verdict));
        match verdict {
            Verdict::Acted => RailAnswer::Done,
            Verdict::Refused(reason) => RailAnswer::Refused(AbortReason::RailRefused(ReasonText::new(reason))),
        }
    }

    /// The ledger by the `Done` events of all chains.
    pub(super) fn model(&self) -> Model {
        Self::model_of(self.chains.values().map(Chain::events))
    }

    fn model_of(chains: impl Iterator<Item = Vec<(LinkedEvent, EventStatus)>>) -> Model {
        let mut model = Model::default();
        let config = config(LockedPolicy::NoWithdrawals, DisputablePolicy::DepositsAndWithdrawals);
        for (linked, status) in chains.flatten() {
            if status.is_done() {
                let request = linked.event.request().expect("well formed");
                // What was decided under a stricter policy is right under the mildest, which has one lock left.
                let code = model.apply(&config, &request);
                assert_eq!(code, "applied", "event in effect twice, or against the rules: {:?}", linked.event);
            }
        }
        model
    }

    /// Notes for every request somebody waits for what would be true of it now.
    ///
    /// Each customer's history is one line of moments. That another customer has taken an id is seen at a
    /// moment of its own: what would be true without that counts as well.
    pub(super) fn watch(&mut self) {
        if self.watched.is_empty() {
            return;
        }
        let model = self.model();
        let mut watched = core::mem::take(&mut self.watched);
        let waiting: Vec<_> = watched.iter().map(|(ticket, watched)| (*ticket, watched.key)).collect();
        for (ticket, Watched { request, terms, key, possible }) in &mut watched {
            if let Some(key) = *key {
                let others = waiting.iter().any(|(other, of)| other != ticket && *of == Some(key));
                let is_last = self.watch_key(key, request, others, possible);
                if is_last {
                    continue;
                }
            }
            possible.insert(self.outcome_under(&model, request, terms));
            let Some(transaction) = request.action.transaction() else { continue };
            let others = |owner: u128| owner != request.customer.bits();
            if model.transactions.get(&transaction.bits()).is_some_and(|known| others(known.customer)) {
                let mut without = model.clone();
                without.transactions.remove(&transaction.bits());
                possible.insert(self.outcome_under(&without, request, terms));
            }
            let proposed = self.entry(transaction).proposed.map(|proposed| proposed.event);
            if proposed
                .is_some_and(|event| others(event.customer.bits()) && self.status(&event) == Some(EventStatus::Started))
            {
                possible.insert("transaction_pending");
            }
        }
        self.watched = watched;
    }

    /// What is true of a request by its key. Gives whether nothing else is: that another customer's event has the key
    /// is seen at a moment of its own.
    fn watch_key(
        &self,
        key: RequestKey,
        request: &Request,
        others: bool,
        possible: &mut BTreeSet<&'static str>,
    ) -> bool {
        let mut is_last = false;
        for (linked, status) in self.chains.values().flat_map(Chain::events) {
            let event = &linked.event;
            if event.key != Some(key) {
                continue;
            }
            match status {
                EventStatus::Done | EventStatus::DoneByHand(_) => {
                    let same = (event.customer, event.kind, event.transaction)
                        == (request.customer, request.action.kind(), request.action.transaction());
                    possible.insert(if same { "already_applied" } else { "idempotency_key_reused" });
                    is_last |= event.customer == request.customer;
                }
                EventStatus::Started => drop(possible.insert("request_in_progress")),
                EventStatus::Aborted(_) => {}
            }
        }
        if others {
            possible.insert("request_in_progress");
        }
        is_last
    }

    /// What the model says of a request, and then what its conditions say.
    fn outcome_under(&self, model: &Model, request: &Request, terms: &Terms) -> &'static str {
        if terms.key.is_some() && matches!(request.action.kind(), RequestKind::Deposit | RequestKind::Withdrawal) {
            return "idempotency_key_not_allowed";
        }
        let code = model.outcome(&self.config, request);
        if code != "applied" || terms.is_empty() {
            return code;
        }
        let mut after = model.clone();
        after.apply(&self.config, request);
        let seq = self.head(request.customer).map_or(0, |head| head.seq);
        let account = after.customers.get(&request.customer.bits()).and_then(|customer| customer.accounts.get(&0));
        let available = account.map_or(0, |account| account.0);
        if terms.expected_seq.is_some_and(|expected| expected != seq) {
            "seq_mismatch"
        } else if terms.minimum_available.is_some_and(|least| available < i128::from(least.amount.steps())) {
            "below_minimum"
        } else {
            code
        }
    }

    pub(super) fn submitted(&mut self, submission: &Submission) {
        let terms = submission.terms.as_deref().copied().unwrap_or_default();
        let (request, key) = (submission.request, submission.key());
        let watched = Watched { request, terms, key, possible: BTreeSet::new() };
        self.watched.insert(submission.ticket, watched);
        self.watch();
    }

    /// Whether an answer is true, and durable.
    pub(super) fn answered(&mut self, answer: &Answer) {
        let ticket = answer.ticket;
        let watched = self.watched.remove(&ticket).unwrap_or_else(|| panic!("{ticket:?} is answered twice"));
        let request = watched.request;
        match &answer.result {
            Err(Busy { customer }) => assert_eq!(*customer, request.customer),
            Ok(Outcome::Applied(receipt)) => {
                let chain = &self.chains[&request.customer];
                let synced = Chain::events_of(&chain.records[..chain.synced]);
                let (linked, status) = &synced[receipt.event.seq as usize - 1];
                assert!(status.is_done(), "told before it is durable");
                assert_eq!((linked.reference(), linked.hash), (receipt.event, receipt.hash));
                assert_eq!(linked.event.account(), receipt.account);
                assert_eq!(linked.event.kind, request.action.kind());
                assert_eq!(linked.event.transaction, request.action.transaction());
                assert_eq!(linked.event.key, watched.key);
                let before = self.told.insert(receipt.event.id, ticket);
                assert_eq!(before, None, "one event is the answer to two requests");
            }
            Ok(Outcome::AlreadyApplied(receipt)) => {
                assert_eq!(receipt.is_some(), watched.key.is_some());
                if let Some(receipt) = receipt {
                    let chain = &self.chains[&request.customer];
                    let synced = Chain::events_of(&chain.records[..chain.synced]);
                    let (linked, status) = &synced[receipt.event.seq as usize - 1];
                    assert_eq!(*status, EventStatus::Done, "told before it is durable");
                    assert_eq!((linked.event.key, Receipt::of(linked)), (watched.key, receipt.clone()));
                }
                assert!(watched.possible.contains("already_applied"), "{request:?}: {:?}", watched.possible);
            }
            Ok(Outcome::Rejected(Rejection::RailRefused { reason })) => {
                let refused = self.book.values().any(|(linked, verdict)| {
                    linked.event.transaction == request.action.transaction()
                        && *verdict == Verdict::Refused(if reason == "no" { "no" } else { "never" })
                });
                assert!(refused, "{ticket:?}: no rail refused this");
            }
            Ok(Outcome::Rejected(rejection)) => assert!(
                watched.possible.contains(rejection.code()),
                "{ticket:?} {request:?} is told {rejection:?}, true were {:?}",
                watched.possible
            ),
        }
    }

    /// Everything that must hold at every moment.
    pub(super) fn check(&mut self) {
        let model = self.model();
        self.check_table(&model);
        self.check_keys();
        for customer in core::mem::take(&mut self.dirty) {
            self.check_chain(customer, &model);
        }
        let mut acted = BTreeSet::new();
        for (linked, verdict) in self.book.values() {
            let status = self.status(&linked.reference()).expect("a rail knows an event that no chain has");
            match (verdict, status) {
                (Verdict::Acted, EventStatus::Aborted(_)) => panic!("a rail has acted for an aborted event"),
                (Verdict::Refused(_), EventStatus::Done | EventStatus::DoneByHand(_)) => {
                    panic!("a rail has refused an event that is done")
                }
                (Verdict::Acted, _) => {
                    assert!(acted.insert(linked.event.transaction), "a rail has acted twice for a transaction");
                }
                (Verdict::Refused(_), _) => {}
            }
        }
    }

    /// The table, read by the readers' rule, says what the chains say.
    fn check_table(&self, model: &Model) {
        for (id, entry) in &self.table {
            let EntryId::Transaction(transaction) = id else { continue };
            let got = self.in_effect(*transaction).map(|state| {
                let status = match state.status {
                    TransactionStatus::Posted => "posted",
                    TransactionStatus::Disputed => "disputed",
                    TransactionStatus::ChargedBack => "charged_back",
                };
                (state.customer.bits(), i128::from(state.amount.steps()), status)
            });
            let known = model.transactions.get(&transaction.bits()).map(|t| (t.customer, t.amount, t.status));
            assert_eq!(got, known, "transaction {transaction}: table {entry:?}");
        }
        for transaction in model.transactions.keys() {
            let id = TransactionId::new(*transaction).into();
            assert!(self.table.contains_key(&id), "{transaction} is not in the table");
        }
    }

    /// No key has two events in effect, and the table says which one has it.
    fn check_keys(&self) {
        let mut used = BTreeMap::new();
        for (linked, status) in self.chains.values().flat_map(Chain::events) {
            if let (Some(key), EventStatus::Done) = (linked.event.key, status) {
                let other = used.insert(key, linked.reference());
                assert_eq!(other, None, "two events in effect have the key {key}");
            }
        }
        for (&key, event) in &used {
            let proposed = self.entry(key).proposed.map(|proposed| proposed.event);
            assert_eq!(proposed, Some(*event), "key {key}: the table does not say which event has it");
        }
        for id in self.table.keys() {
            let EntryId::Key(key) = *id else { continue };
            assert_eq!(self.in_effect(key).is_some(), used.contains_key(&key), "key {key}: {:?}", self.entry(key));
        }
    }

    /// The chain is unbroken, and its state is the replay of its `Done` events.
    fn check_chain(&self, customer: CustomerId, model: &Model) {
        let Some(chain) = self.chains.get(&customer) else { return };
        let mut check = ChainCheck::new(&self.digest, customer);
        let mut known = BTreeMap::new();
        for (linked, status) in chain.events() {
            let transaction = linked.event.transaction;
            let before = transaction.and_then(|id| known.get(&id).copied());
            let after = check.follow(&self.config, before, &linked, &status);
            let after = after.unwrap_or_else(|fault| panic!("customer {customer}, {linked:?} {status:?}: {fault}"));
            if let (Some(id), Some(state)) = (transaction, after) {
                known.insert(id, state);
            }
        }
        let CustomerState { locked, accounts } = &check.head().state;
        let replayed = model.customers.get(&customer.bits()).cloned().unwrap_or_default();
        let got = accounts.iter().map(|(currency, account)| {
            (currency.0, (i128::from(account.available.steps()), i128::from(account.held.steps())))
        });
        assert_eq!((*locked, got.collect::<BTreeMap<_, _>>()), (replayed.locked, replayed.accounts));
    }

    /// One customer's account and events, oldest first: `3 available, 2 held, locked: deposit 10 done, ...`.
    pub(super) fn story(&self, customer: u32) -> alloc::string::String {
        let customer = CustomerId::new(u128::from(customer));
        let head = self.head(customer).unwrap_or_else(|| Head::start(&self.digest, customer));
        let account = head.state.accounts.get(CurrencyIndex(0));
        let mut text = alloc::format!("{} available, {} held", account.available.steps(), account.held.steps());
        if head.state.locked {
            text.push_str(", locked");
        }
        let events = self.chains.get(&customer).map(Chain::events).unwrap_or_default();
        for (place, (linked, status)) in events.iter().enumerate() {
            let transaction = linked.event.transaction.map_or(0, TransactionId::bits);
            let kind = linked.event.kind.name();
            text.push_str(if place == 0 { ": " } else { ", " });
            write!(text, "{kind} {transaction} {}", status.name()).unwrap();
        }
        text
    }

    /// Customers whose chains end in an open event.
    pub(super) fn open_customers(&self) -> Vec<CustomerId> {
        let open = |chain: &Chain| chain.events().iter().any(|(_, status)| *status == EventStatus::Started);
        self.chains.iter().filter(|(_, chain)| open(chain)).map(|(customer, _)| *customer).collect()
    }
}
