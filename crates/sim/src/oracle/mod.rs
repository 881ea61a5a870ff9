//! The oracle: what must be true of a ledger, believed from its own small model of the rules and from what was
//! acknowledged, whatever the engine says.
//!
//! After every recovery, and again and again in between, it looks at all that is stored:
//!
//! * each chain is unbroken: sequence numbers, times, hashes made anew from the format's description, events closed
//!   oldest first; each event in effect is what the model leads to, and somebody asked for it;
//! * the transactions table, read by the readers' rule, says what the chains say; so do the heads and the sums;
//! * what somebody was told is there: each receipt is the event at its place; what a refusal rested on was not lost;
//! * no key of a request has two events in effect, and the table says of each which event has it;
//! * the rails' books agree: a rail acted for an event that is not aborted, refused one that is not done, and acted
//!   at most once for a transaction.
//!
//! Each answer is held against the history of its customer: there must be a moment between request and answer at which
//! it was true, in an order that agrees with the order of all answers given before the request (linearizability).
//! Whether *another* customer has an id may be seen at a moment of its own.

mod hashes;
pub mod rules;

use crate::bank::{BY_HAND, Bank, REASON};
use crate::scenario::{KEY_COUNT, Wanted};
use bursar_engine::Totals;
use bursar_engine::core::commit::{Answer, Outcome, Receipt, Terms as Conditions};
use bursar_engine::core::{
    AbortReason, Action, CurrencyIndex, CustomerId, EntryId, EventRef, EventStatus, Head, LedgerConfig, LinkedEvent,
    Rejection, Request, RequestKey, RequestKind, TransactionEntry, TransactionId, TransactionKind, TransactionState,
};
use bursar_engine::store::{ChainEntry, Chains, ReadRange, StoreError, Transactions};
use rules::{Ask, Item, Purse, Terms, Verb, judge};
use std::collections::{BTreeMap, BTreeSet};

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// All that a ledger's stores show.
#[derive(Debug)]
pub struct View {
    chains: BTreeMap<u128, Vec<ChainEntry>>,
    heads: BTreeMap<u128, Head>,
    table: BTreeMap<u128, TransactionEntry>,
    keys: BTreeMap<RequestKey, TransactionEntry>,
    totals: Totals,
}

impl View {
    /// Looks at everything: all chains, and the table's entries of these transactions.
    pub fn of(
        chains: &dyn Chains,
        transactions: &dyn Transactions,
        ids: impl Iterator<Item = u128>,
    ) -> Result<Self, StoreError> {
        let mut view = Self::of_chains(chains)?;
        let keys = (0..=KEY_COUNT).filter_map(|number| RequestKey::from_bits(u128::from(number)));
        let ids: Vec<EntryId> = ids.map(|id| TransactionId::new(id).into()).chain(keys.map(EntryId::Key)).collect();
        let mut entries = Vec::new();
        transactions.get(&ids, &mut entries)?;
        for (id, entry) in ids.iter().zip(entries) {
            match id {
                EntryId::Transaction(transaction) => drop(view.table.insert(transaction.bits(), entry)),
                EntryId::Key(key) => drop(view.keys.insert(*key, entry)),
            }
        }
        Ok(view)
    }

    /// Looks at the chains only.
    pub fn of_chains(chains: &dyn Chains) -> Result<Self, StoreError> {
        let mut listed = Vec::new();
        chains.list(None, usize::MAX, &mut listed)?;
        let totals = chains.totals()?;
        let (table, keys) = (BTreeMap::new(), BTreeMap::new());
        let mut view = Self { chains: BTreeMap::new(), heads: BTreeMap::new(), table, keys, totals };
        for found in listed {
            let mut entries = Vec::new();
            chains.read(found.customer, ReadRange::ALL, &mut entries)?;
            view.chains.insert(found.customer.bits(), entries);
            view.heads.insert(found.customer.bits(), found.head);
        }
        Ok(view)
    }

    /// The events of a customer.
    pub fn chain(&self, customer: u128) -> &[ChainEntry] {
        self.chains.get(&customer).map_or(&[], Vec::as_slice)
    }

    /// An event in effect.
    fn done(&self, event: &EventRef) -> Option<&LinkedEvent> {
        let entry = self.chain(event.customer.bits()).get((event.seq as usize).wrapping_sub(1))?;
        (entry.status.is_done() && entry.linked.reference() == *event).then_some(&entry.linked)
    }

    /// The events in effect that have keys, by key.
    fn keyed(&self) -> impl Iterator<Item = (RequestKey, &LinkedEvent)> {
        let done = self.chains.values().flatten().filter(|entry| entry.status == EventStatus::Done);
        done.filter_map(|entry| Some((entry.linked.event.key?, &entry.linked)))
    }

    /// Whether some event is open.
    pub fn has_open(&self) -> bool {
        self.chains.values().flatten().any(|entry| entry.status == EventStatus::Started)
    }
}

/// A request somebody waits for.
#[derive(Clone, Debug)]
struct Asked {
    request: Request,
    under: Conditions,
    owner: usize,
    /// What had been told of each customer when it was asked.
    told_before: BTreeMap<u128, u64>,
}

/// The oracle.
#[derive(Debug)]
pub struct Oracle {
    config: LedgerConfig,
    terms: Terms,
    ledger_digest: [u8; 32],
    asked: BTreeMap<u64, Asked>,
    /// How often each thing was asked for in all.
    asked_counts: BTreeMap<Ask, u64>,
    /// The hashes of events by which somebody was told.
    receipts: BTreeMap<(u128, u64), [u8; 32]>,
    /// Up to where each chain must last.
    told: BTreeMap<u128, u64>,
}

macro_rules! ensure {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(Violation(format!($($what)+)));
        }
    };
}

/// A request in the oracle's words.
pub fn ask_of(request: &Request) -> Ask {
    let customer = request.customer.bits();
    let (verb, transaction, amount, currency) = match request.action {
        Action::Deposit(m) => (Verb::Deposit, m.transaction.bits(), Some(m.amount), Some(m.currency)),
        Action::Withdrawal(m) => (Verb::Withdraw, m.transaction.bits(), Some(m.amount), Some(m.currency)),
        Action::Dispute(r) => (Verb::Dispute, r.transaction.bits(), r.amount, r.currency),
        Action::Resolve(r) => (Verb::Resolve, r.transaction.bits(), r.amount, r.currency),
        Action::Chargeback(r) => (Verb::Chargeback, r.transaction.bits(), r.amount, r.currency),
        Action::Unlock => (Verb::Unlock, 0, None, None),
    };
    let amount = amount.map(|amount| i128::from(amount.steps()));
    Ask { customer, verb, transaction, amount, currency: currency.map(|currency| currency.0) }
}

/// What an event says was asked for.
fn ask_of_event(linked: &LinkedEvent) -> Ask {
    let event = &linked.event;
    let verb = match event.kind {
        RequestKind::Deposit => Verb::Deposit,
        RequestKind::Withdrawal => Verb::Withdraw,
        RequestKind::Dispute => Verb::Dispute,
        RequestKind::Resolve => Verb::Resolve,
        RequestKind::Chargeback => Verb::Chargeback,
        RequestKind::Unlock => Verb::Unlock,
    };
    let transaction = event.transaction.map_or(0, TransactionId::bits);
    let amount = Some(i128::from(event.amount.steps()));
    Ask { customer: event.customer.bits(), verb, transaction, amount, currency: Some(event.currency.0) }
}

/// What counts as the same thing being asked for: for disputes and what follows, whatever figures were given.
fn kind_of_ask(ask: Ask) -> Ask {
    match ask.verb {
        Verb::Deposit | Verb::Withdraw => ask,
        Verb::Dispute | Verb::Resolve | Verb::Chargeback | Verb::Unlock => Ask { amount: None, currency: None, ..ask },
    }
}

fn item_of(state: &TransactionState) -> Item {
    Item {
        customer: state.customer.bits(),
        is_deposit: state.kind == TransactionKind::Deposit,
        amount: i128::from(state.amount.steps()),
        currency: state.currency.0,
        standing: state.status.name(),
    }
}

/// A customer's money and transactions, followed event by event.
#[derive(Clone, Debug, Default)]
struct Ledger {
    purse: Purse,
    items: BTreeMap<u128, Item>,
}

impl Ledger {
    fn take(&mut self, terms: Terms, ask: &Ask) -> Result<(), &'static str> {
        let effect = judge(terms, &self.purse, self.items.get(&ask.transaction).copied(), ask)?;
        self.purse.take(&effect);
        self.items.extend(effect.item.map(|item| (ask.transaction, item)));
        Ok(())
    }
}

impl Oracle {
    /// An oracle for a ledger of which nobody was told anything yet.
    pub fn new(config: LedgerConfig) -> Self {
        let terms = Terms {
            locked: config.policy.locked.name(),
            withdrawals_disputable: config.policy.disputable.name() == "deposits_and_withdrawals",
            currency_count: config.currencies.len() as u8,
        };
        let ledger_digest = hashes::ledger(&config);
        Self {
            config,
            terms,
            ledger_digest,
            asked: BTreeMap::new(),
            asked_counts: BTreeMap::new(),
            receipts: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// The rules chosen.
    pub const fn terms(&self) -> Terms {
        self.terms
    }

    /// Somebody asks an owner for something.
    pub fn asks(&mut self, ticket: u64, owner: usize, wanted: Wanted) {
        let Wanted { request, under } = wanted;
        self.expects(&request);
        self.asked.insert(ticket, Asked { request, under, owner, told_before: self.told.clone() });
    }

    /// Something is asked for to which nobody waits for an answer.
    pub fn expects(&mut self, request: &Request) {
        *self.asked_counts.entry(kind_of_ask(ask_of(request))).or_default() += 1;
    }

    /// An owner is gone, and with it all hope for its answers. Gives what nobody will hear of.
    pub fn forget(&mut self, owner: usize) -> Vec<Wanted> {
        let (gone, left) = std::mem::take(&mut self.asked).into_iter().partition(|(_, asked)| asked.owner == owner);
        self.asked = left;
        let gone: BTreeMap<u64, Asked> = gone;
        gone.into_values().map(|Asked { request, under, .. }| Wanted { request, under }).collect()
    }

    /// How many wait for an answer.
    pub fn waiting_count(&self) -> usize {
        self.asked.len()
    }

    /// Holds an answer against the history of its customer.
    pub fn answered(&mut self, view: &View, bank: &Bank, answer: &Answer) -> Result<(), Violation> {
        let ticket = answer.ticket.0;
        let Some(asked) = self.asked.remove(&ticket) else {
            return Err(Violation(format!("request {ticket} is answered twice, or by somebody who was not asked")));
        };
        let request = asked.request;
        match &answer.result {
            Err(busy) => {
                ensure!(busy.customer == request.customer, "the wrong customer is busy: {busy:?}");
                Ok(())
            }
            Ok(Outcome::Applied(receipt)) => self.told_of_event(view, &asked, receipt),
            Ok(Outcome::AlreadyApplied(None)) => self.told_at_some_moment(view, &asked, "already_applied"),
            Ok(Outcome::AlreadyApplied(Some(receipt))) => {
                let found = self.told_of_key(view, &asked, &receipt.event)?;
                ensure!(Receipt::of(found) == *receipt, "{request:?} is told {receipt:?}, and the event is {found:?}");
                let is_same = kind_of_ask(ask_of_event(found)) == kind_of_ask(ask_of(&request));
                ensure!(is_same, "{request:?} is told of an event that is not its own: {found:?}");
                Ok(())
            }
            Ok(Outcome::Rejected(Rejection::IdempotencyKeyReused { event })) => {
                let ask = ask_of(&request);
                let of_event = ask_of_event(self.told_of_key(view, &asked, event)?);
                let fits = ask.amount.is_none_or(|amount| of_event.amount == Some(amount))
                    && ask.currency.is_none_or(|currency| of_event.currency == Some(currency));
                let is_same = fits && kind_of_ask(of_event) == kind_of_ask(ask);
                ensure!(!is_same, "{request:?} is told that its key is another's, and it is its own");
                Ok(())
            }
            Ok(Outcome::Rejected(Rejection::RequestInProgress)) => {
                let is_other =
                    |other: &Asked| (other.under.key, other.request.customer) == (asked.under.key, request.customer);
                ensure!(
                    self.asked.values().any(is_other),
                    "{request:?} is told of another with its key: there is none"
                );
                Ok(())
            }
            Ok(Outcome::Rejected(Rejection::RailRefused { reason })) => {
                let told_before = asked.told_before.get(&request.customer.bits()).copied().unwrap_or(0);
                let refused = view.chain(request.customer.bits()).iter().find(|entry| {
                    let text = match &entry.status {
                        EventStatus::Aborted(AbortReason::RailRefused(text)) if text.as_str() == REASON => text,
                        EventStatus::Aborted(AbortReason::Operator(text)) if text.as_str() == BY_HAND => text,
                        EventStatus::Started
                        | EventStatus::Done
                        | EventStatus::DoneByHand(_)
                        | EventStatus::Aborted(_) => return false,
                    };
                    entry.linked.event.seq > told_before
                        && ask_of_event(&entry.linked) == ask_of(&request)
                        && text.as_str() == reason
                        && bank.book().get(&entry.linked.id()).is_some_and(|deed| !deed.acted)
                });
                ensure!(refused.is_some(), "{request:?} is told a refusal that no rail gave");
                if let Some(entry) = refused {
                    self.must_last(request.customer.bits(), entry.linked.event.seq);
                }
                Ok(())
            }
            Ok(Outcome::Rejected(Rejection::TransactionPending)) => {
                let transaction = request.action.transaction();
                let reserved = view.chains.values().flatten().any(|entry| {
                    entry.linked.event.customer != request.customer && entry.linked.event.transaction == transaction
                });
                ensure!(reserved, "{request:?} is told that its id is reserved, and it is not");
                Ok(())
            }
            Ok(Outcome::Rejected(rejection)) => self.told_at_some_moment(view, &asked, rejection.code()),
        }
    }

    /// The event in effect that has the key of a request, by what somebody was told.
    fn told_of_key<'v>(
        &mut self,
        view: &'v View,
        asked: &Asked,
        event: &EventRef,
    ) -> Result<&'v LinkedEvent, Violation> {
        let found = view.done(event).filter(|linked| linked.event.key.is_some());
        let Some(linked) = found.filter(|linked| linked.event.key == asked.under.key) else {
            return Err(Violation(format!("{asked:?} is told of {event:?}, which is not there or has another key")));
        };
        self.must_last(event.customer.bits(), event.seq);
        Ok(linked)
    }

    fn must_last(&mut self, customer: u128, seq: u64) {
        let told = self.told.entry(customer).or_default();
        *told = (*told).max(seq);
    }

    fn told_of_event(&mut self, view: &View, asked: &Asked, receipt: &Receipt) -> Result<(), Violation> {
        let request = &asked.request;
        let customer = request.customer.bits();
        let seq = receipt.event.seq;
        let found = view.chain(customer).get((seq as usize).wrapping_sub(1));
        let Some(ChainEntry { linked, status }) = found else {
            return Err(Violation(format!("{request:?} is told of event {seq}, which is not there")));
        };
        ensure!(status.is_done(), "{request:?} is told of event {seq}, which is {}", status.name());
        let is_it = linked.reference() == receipt.event
            && linked.hash == receipt.hash
            && linked.event.account() == receipt.account
            && linked.event.state.locked == receipt.locked
            && linked.event.time_ms == receipt.time_ms
            && linked.event.currency == receipt.currency;
        ensure!(is_it, "{request:?} is told {receipt:?}, and the event is {linked:?}");
        let is_asked = kind_of_ask(ask_of_event(linked)) == kind_of_ask(ask_of(request));
        ensure!(is_asked, "{request:?} is told of an event that is not its own: {linked:?}");
        ensure!(linked.event.key == asked.under.key, "{asked:?} is told of an event with another key: {linked:?}");
        let told_before = asked.told_before.get(&customer).copied().unwrap_or(0);
        ensure!(
            seq > told_before,
            "{request:?} is event {seq} of its chain, before event {told_before}, which was told before it was asked"
        );
        let before = self.receipts.insert((customer, seq), linked.hash.0);
        ensure!(before.is_none(), "event {seq} of customer {customer} is the answer to two requests");
        self.must_last(customer, seq);
        Ok(())
    }

    /// There must be a moment between request and answer at which this was what the rules say.
    fn told_at_some_moment(&mut self, view: &View, asked: &Asked, code: &str) -> Result<(), Violation> {
        let ask = ask_of(&asked.request);
        let told_before = asked.told_before.get(&ask.customer).copied().unwrap_or(0);
        let others = items_of_others(view, &ask, &asked.told_before);
        let mut ledger = Ledger::default();
        let mut possible = BTreeSet::new();
        let mut seq = 0;
        let mut entries = view.chain(ask.customer).iter();
        // Whose key was used before anybody asked hears of that, and of no rule.
        let takes_key = !matches!(ask.verb, Verb::Deposit | Verb::Withdraw);
        let key = asked.under.key.filter(|_| takes_key);
        let is_used = view.keyed().any(|(used, linked)| {
            let told = asked.told_before.get(&linked.event.customer.bits()).copied().unwrap_or(0);
            Some(used) == key && linked.event.seq <= told
        });
        ensure!(!is_used, "{asked:?} is told {code}, and its key was used before it was asked");
        loop {
            if seq >= told_before {
                let own = ledger.items.get(&ask.transaction).copied();
                let candidates = if own.is_some() { vec![own] } else { others.clone() };
                let outcomes = candidates.into_iter().map(|item| {
                    let effect = judge(self.terms, &ledger.purse, item, &ask)?;
                    let mut purse = ledger.purse.clone();
                    purse.take(&effect);
                    hold(&asked.under, seq, &purse)
                });
                possible.extend(outcomes.map(|outcome| outcome.err().unwrap_or("applied")));
                if asked.under.key.is_some() && !takes_key {
                    possible = BTreeSet::from(["idempotency_key_not_allowed"]);
                }
                if possible.contains(code) {
                    self.must_last(ask.customer, seq);
                    return Ok(());
                }
            }
            let Some(entry) = entries.next() else { break };
            seq = entry.linked.event.seq;
            if entry.status.is_done() {
                // What does not follow is found by the check of everything.
                let _ignored: Result<(), &str> = ledger.take(self.terms, &ask_of_event(&entry.linked));
            }
        }
        Err(Violation(format!("{ask:?} is told {code}; at no moment since it was asked was that so, but {possible:?}")))
    }

    /// Holds everything that is stored against everything that is known.
    pub fn check(&self, view: &View, bank: &Bank) -> Result<(), Violation> {
        let mut items: BTreeMap<u128, Item> = BTreeMap::new();
        let mut expected = Totals::default();
        let mut done_counts: BTreeMap<Ask, u64> = BTreeMap::new();
        for (&customer, entries) in &view.chains {
            let ledger = self.check_chain(customer, entries, &view.heads, bank, &mut expected)?;
            for (transaction, item) in ledger.items {
                let taken = items.insert(transaction, item);
                ensure!(taken.is_none(), "transaction {transaction} is two customers': {taken:?} and {item:?}");
            }
            for entry in entries.iter().filter(|entry| entry.status.is_done()) {
                *done_counts.entry(kind_of_ask(ask_of_event(&entry.linked))).or_default() += 1;
            }
        }
        for (ask, count) in &done_counts {
            let asked = self.asked_counts.get(ask).copied().unwrap_or(0);
            ensure!(*count <= asked, "{ask:?} took effect {count} times and was asked for {asked} times");
        }
        for (&customer, &seq) in &self.told {
            let length = view.chain(customer).len() as u64;
            ensure!(length >= seq, "customer {customer}: somebody was told of event {seq}, and {length} are left");
        }
        for (&(customer, seq), hash) in &self.receipts {
            let found = view.chain(customer).get(seq as usize - 1);
            let is_it = found.is_some_and(|entry| entry.linked.hash.0 == *hash && entry.status.is_done());
            ensure!(is_it, "customer {customer}: event {seq} was acknowledged; now it is {found:?}");
        }
        check_table(view, &items)?;
        check_keys(view)?;
        check_totals(view, &expected)?;
        check_book(view, bank)
    }

    fn check_chain(
        &self,
        customer: u128,
        entries: &[ChainEntry],
        heads: &BTreeMap<u128, Head>,
        bank: &Bank,
        totals: &mut Totals,
    ) -> Result<Ledger, Violation> {
        let mut ledger = Ledger::default();
        let mut link = hashes::chain_start(&self.ledger_digest, customer);
        // The hash of the event before, if that is open or aborted: what was decided together builds on it.
        let mut tentative: Option<[u8; 32]> = None;
        let (mut open_count, mut time_ms, mut closed) = (0, 0, (0, 0));
        ensure!(!entries.is_empty(), "customer {customer} is listed and has no event");
        for (place, ChainEntry { linked, status }) in entries.iter().enumerate() {
            let event = &linked.event;
            let at = || format!("customer {customer}, event {} ({})", place + 1, status.name());
            ensure!(event.customer == CustomerId::new(customer), "{}: is {}'s", at(), event.customer);
            ensure!(event.seq == place as u64 + 1, "{}: has number {}", at(), event.seq);
            ensure!(event.time_ms >= time_ms, "{}: time goes back", at());
            time_ms = event.time_ms;
            let on_link = open_count == 0 && hashes::event(&link, event) == linked.hash.0;
            let on_tentative = tentative.is_some_and(|before| hashes::event(&before, event) == linked.hash.0);
            ensure!(on_link || on_tentative, "{}: does not follow from what is before it", at());
            let ask = ask_of_event(linked);
            let asked = self.asked_counts.get(&kind_of_ask(ask)).copied().unwrap_or(0);
            ensure!(asked > 0, "{}: nobody asked for {ask:?}", at());
            totals.begun(event);
            match status {
                EventStatus::Started => open_count += 1,
                EventStatus::Done | EventStatus::DoneByHand(_) => {
                    ensure!(open_count == 0, "{}: closed behind an open one", at());
                    ensure!(on_link, "{}: rests on an event that is not in effect", at());
                    let taken = ledger.take(self.terms, &ask);
                    ensure!(taken.is_ok(), "{}: the rules say {taken:?} to {ask:?}", at());
                    let accounts = event.state.accounts.iter().map(|(currency, account)| {
                        (currency.0, (i128::from(account.available.steps()), i128::from(account.held.steps())))
                    });
                    let state = Purse { locked: event.state.locked, accounts: accounts.collect() };
                    ensure!(state == ledger.purse, "{}: leads to {state:?}, not {:?}", at(), ledger.purse);
                    let needs_deed = event.rail.is_some();
                    let acted = bank.book().get(&linked.id()).is_some_and(|deed| deed.acted);
                    ensure!(acted || !needs_deed, "{}: done, and its rail did not act", at());
                    link = match status.by_hand() {
                        Some(reason) => hashes::done_by_hand(&link, &linked.hash.0, reason),
                        None => linked.hash.0,
                    };
                    totals.done(event);
                }
                EventStatus::Aborted(reason) => {
                    ensure!(open_count == 0, "{}: closed behind an open one", at());
                    link = hashes::aborted(&link, &linked.hash.0, reason);
                    totals.aborted();
                }
            }
            if *status != EventStatus::Started {
                closed = (event.seq, event.time_ms);
            }
            tentative = (*status != EventStatus::Done).then_some(linked.hash.0);
        }
        let Some(head) = heads.get(&customer) else {
            return Err(Violation(format!("customer {customer} has no head")));
        };
        let is_head = (head.seq, head.time_ms) == closed && head.link.0 == link && head.open.len() == open_count;
        ensure!(is_head, "customer {customer}: the head {head:?} is not the end of its chain");
        let last_done = entries.iter().rfind(|entry| entry.status.is_done());
        let state = last_done.map(|entry| entry.linked.event.state.clone()).unwrap_or_default();
        ensure!(head.state == state, "customer {customer}: the head's state is {:?}, not {state:?}", head.state);
        Ok(ledger)
    }

    /// What a list of requests leads to on customers and transactions that nothing else touches: the accepted ones.
    pub fn accepted(&self, requests: impl Iterator<Item = Request>) -> Vec<Ask> {
        let mut ledgers: BTreeMap<u128, Ledger> = BTreeMap::new();
        let mut items: BTreeMap<u128, Item> = BTreeMap::new();
        let mut accepted = Vec::new();
        for ask in requests.map(|request| ask_of(&request)) {
            let ledger = ledgers.entry(ask.customer).or_default();
            if let Ok(effect) = judge(self.terms, &ledger.purse, items.get(&ask.transaction).copied(), &ask) {
                ledger.purse.take(&effect);
                items.extend(effect.item.map(|item| (ask.transaction, item)));
                accepted.push(kind_of_ask(ask));
            }
        }
        accepted
    }

    /// The events of some customers, as what was asked for, each chain in order.
    pub fn asked_by_chains(view: &View, customers: impl Iterator<Item = u128>) -> Vec<Ask> {
        let entries = customers.flat_map(|customer| view.chain(customer));
        entries.map(|entry| kind_of_ask(ask_of_event(&entry.linked))).collect()
    }

    /// The ledger's configuration.
    pub const fn config(&self) -> &LedgerConfig {
        &self.config
    }
}

/// What may be seen of a transaction that another customer makes.
fn items_of_others(view: &View, ask: &Ask, told_before: &BTreeMap<u128, u64>) -> Vec<Option<Item>> {
    let mut seen = vec![None];
    for (&customer, entries) in view.chains.iter().filter(|(customer, _)| **customer != ask.customer) {
        for entry in entries.iter().filter(|entry| entry.status.is_done()) {
            let event = &entry.linked.event;
            let makes = matches!(event.kind, RequestKind::Deposit | RequestKind::Withdrawal);
            if !makes || event.transaction.map(TransactionId::bits) != Some(ask.transaction) {
                continue;
            }
            if event.seq <= told_before.get(&customer).copied().unwrap_or(0) {
                seen.clear();
            }
            seen.push(event.transaction_state().as_ref().map(item_of));
        }
    }
    seen
}

/// Whether the conditions of a request hold on top of event `seq`, if it leads to this.
fn hold(under: &Conditions, seq: u64, after: &Purse) -> Result<(), &'static str> {
    if under.expected_seq.is_some_and(|expected| expected != seq) {
        return Err("seq_mismatch");
    }
    let Some(least) = under.minimum_available else { return Ok(()) };
    let available = after.accounts.get(&least.currency.0).map_or(0, |(available, _)| *available);
    if available < i128::from(least.amount.steps()) { Err("below_minimum") } else { Ok(()) }
}

/// No key has two events in effect, and the table, read by the readers' rule, says which one has it.
fn check_keys(view: &View) -> Result<(), Violation> {
    let mut holders: BTreeMap<RequestKey, &LinkedEvent> = BTreeMap::new();
    for (key, linked) in view.keyed() {
        let other = holders.insert(key, linked);
        ensure!(other.is_none(), "key {key} has two events in effect: {other:?} and {linked:?}");
    }
    for (key, entry) in &view.keys {
        let proposed = entry.proposed.map(|proposed| proposed.event).filter(|event| view.done(event).is_some());
        let holder = holders.get(key).map(|linked| linked.reference());
        ensure!(proposed == holder, "key {key}: the table says {entry:?}, the chains {holder:?}");
        let is_used = proposed.is_some() || entry.approved.is_some();
        ensure!(is_used == holder.is_some(), "key {key}: the table says {entry:?}, the chains {holder:?}");
    }
    Ok(())
}

/// The table, read by the readers' rule, says what the chains say.
fn check_table(view: &View, items: &BTreeMap<u128, Item>) -> Result<(), Violation> {
    for (&transaction, entry) in &view.table {
        let in_effect = match &entry.proposed {
            Some(proposed) => {
                let chain = view.chain(proposed.event.customer.bits());
                let event = chain.get((proposed.event.seq as usize).wrapping_sub(1));
                let is_done =
                    event.is_some_and(|event| event.linked.id() == proposed.event.id && event.status.is_done());
                if is_done { Some(proposed.state) } else { entry.approved }
            }
            None => entry.approved,
        };
        let found = in_effect.as_ref().map(item_of);
        let item = items.get(&transaction).copied();
        ensure!(found == item, "transaction {transaction}: the table says {entry:?}, the chains {item:?}");
    }
    let unknown = items.keys().find(|transaction| !view.table.contains_key(transaction));
    ensure!(unknown.is_none(), "transaction {unknown:?} is of a kind that nobody asked for");
    Ok(())
}

fn check_totals(view: &View, expected: &Totals) -> Result<(), Violation> {
    let found = &view.totals;
    let counts = |totals: &Totals| (totals.event_count, totals.transaction_count, totals.customer_count);
    ensure!(counts(found) == counts(expected), "the sums count {found:?}, the chains {expected:?}");
    let mut sums: BTreeMap<u8, (i128, i128)> = BTreeMap::new();
    for head in view.heads.values() {
        for (currency, account) in head.state.accounts.iter() {
            let sum = sums.entry(currency.0).or_default();
            sum.0 += i128::from(account.available.steps()) + i128::from(account.held.steps());
            sum.1 += i128::from(account.held.steps());
        }
    }
    for (currency, (total, held)) in sums {
        let of_currency = found.currency(CurrencyIndex(currency));
        let is_it = of_currency == expected.currency(CurrencyIndex(currency))
            && (of_currency.total.steps(), of_currency.held.steps()) == (total, held);
        ensure!(
            is_it,
            "currency {currency}: the sums are {of_currency:?}, the accounts hold {total}, {held} of it held"
        );
    }
    Ok(())
}

/// The rails' book and the chains agree.
fn check_book(view: &View, bank: &Bank) -> Result<(), Violation> {
    let mut acted: BTreeSet<u128> = BTreeSet::new();
    for (id, deed) in bank.book() {
        let event = deed.linked.reference();
        let found = view.chain(event.customer.bits()).get(event.seq as usize - 1);
        let Some(entry) = found.filter(|entry| entry.linked.id() == *id) else {
            return Err(Violation(format!("a rail knows event {id}, and no chain has it: {:?}", deed.linked)));
        };
        let transaction = deed.linked.event.transaction.map_or(0, TransactionId::bits);
        match (&entry.status, deed.acted) {
            (EventStatus::Aborted(_), true) => {
                return Err(Violation(format!("a rail has acted for event {id}, which is aborted: {:?}", deed.linked)));
            }
            (EventStatus::Done | EventStatus::DoneByHand(_), false) => {
                return Err(Violation(format!("a rail has refused event {id}, which is done: {:?}", deed.linked)));
            }
            (_, true) => ensure!(acted.insert(transaction), "a rail has acted twice for transaction {transaction}"),
            (_, false) => {}
        }
    }
    Ok(())
}
