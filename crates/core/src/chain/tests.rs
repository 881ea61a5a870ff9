//! Chains made by the rules are followed to their end; any single edit of one is found. And a golden chain, which
//! is the format in bytes.

use super::*;
use crate::amount::Amount;
use crate::currency::{Currencies, Currency, CurrencyIndex};
use crate::event::{RailId, ReasonText};
use crate::hash::{Domain, Hasher};
use crate::id::TransactionId;
use crate::policy::{DisputablePolicy, LockedPolicy, Policy};
use crate::request::{Action, Movement, Reference, Request, RequestKind};
use crate::transaction::{TransactionKind, TransactionStatus};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::fmt::Write;
use proptest::prelude::*;

const CUSTOMER: CustomerId = CustomerId::new(7);

fn config() -> LedgerConfig {
    let currency = |code, decimals| Currency::new(code, crate::Decimals::new(decimals).unwrap()).unwrap();
    let currencies = Currencies::named(alloc::vec![currency("EUR", 2), currency("JPY", 0)]).unwrap();
    let policy = Policy { locked: LockedPolicy::NoWithdrawals, disputable: DisputablePolicy::DepositsAndWithdrawals };
    LedgerConfig { ledger: [1; 16], policy, currencies }
}

type Events = Vec<(LinkedEvent, EventStatus)>;

/// A chain in the making.
struct Maker {
    config: LedgerConfig,
    head: Head,
    known: BTreeMap<TransactionId, TransactionState>,
    events: Events,
    time_ms: u64,
}

impl Maker {
    fn new() -> Self {
        let config = config();
        let head = Head::start(&config.digest(), CUSTOMER);
        Self { config, head, known: BTreeMap::new(), events: Vec::new(), time_ms: 1_700_000_000_000 }
    }

    /// The event of a request on top of a state and a link; `None` if it is rejected.
    fn event(
        &self,
        seq: u64,
        (state, link): (&CustomerState, &Hash),
        action: Action,
        rail: Option<RailId>,
    ) -> Option<LinkedEvent> {
        let known = action.transaction().and_then(|id| self.known.get(&id)).copied();
        let request = Request { customer: CUSTOMER, action };
        let decision = decide(&self.config, state, Known { state: known.as_ref(), reserved: false }, &request).ok()?;
        let Decision::Change(change) = decision else { return None };
        Some(LinkedEvent::new(Event::new(CUSTOMER, seq, self.time_ms, change, rail), link))
    }

    /// Adds an event that is closed at once; false if the rules reject it.
    fn add(&mut self, action: Action, status: EventStatus) -> bool {
        self.time_ms += 11;
        let rail = RailId::new(u8::from(matches!(status, EventStatus::Aborted(AbortReason::RailRefused(_)))));
        let on = (&self.head.state, &self.head.link);
        let Some(linked) = self.event(self.head.seq + 1, on, action, rail) else { return false };
        if let (true, Some(id), Some(state)) =
            (status.is_done(), linked.event.transaction, linked.event.transaction_state())
        {
            self.known.insert(id, state);
        }
        self.head.take(linked.clone(), &status);
        self.events.push((linked, status));
        true
    }

    /// Adds a run of deposits decided together, each on top of the one before: all with this status.
    fn add_run(&mut self, length: u8, status: &EventStatus) {
        let (mut state, mut link) = (self.head.state.clone(), self.head.link);
        for _ in 0..length {
            let seq = self.events.len() as u64 + 1;
            let action = Action::Deposit(movement(1000 + seq, 1, 0));
            let linked = self.event(seq, (&state, &link), action, None).unwrap();
            (state, link) = (linked.event.state.clone(), linked.hash);
            self.events.push((linked.clone(), status.clone()));
            self.head.take(linked, status);
        }
    }
}

fn movement(transaction: u64, steps: i64, currency: u8) -> Movement {
    let (amount, currency) = (Amount::from_steps(steps), CurrencyIndex(currency));
    Movement { transaction: TransactionId::new(u128::from(transaction)), amount, currency }
}

fn reference(transaction: u64) -> Reference {
    Reference { transaction: TransactionId::new(u128::from(transaction)), amount: None, currency: None }
}

/// Follows a whole chain; the head it ends in, or the event at fault.
fn follow(events: &[(LinkedEvent, EventStatus)]) -> Result<Head, (usize, ChainFault)> {
    let config = config();
    let mut check = ChainCheck::new(&config.digest(), CUSTOMER);
    let mut known = BTreeMap::new();
    for (place, (linked, status)) in events.iter().enumerate() {
        let before = linked.event.transaction.and_then(|id| known.get(&id).copied());
        let after = check.follow(&config, before, linked, status).map_err(|fault| (place, fault))?;
        if let Some((id, state)) = linked.event.transaction.zip(after) {
            known.insert(id, state);
        }
    }
    Ok(check.head().clone())
}

fn refused(text: &str) -> EventStatus {
    EventStatus::Aborted(AbortReason::RailRefused(ReasonText::new(text)))
}

const CONFLICT: EventStatus = EventStatus::Aborted(AbortReason::TransactionConflict);

/// A chain by rough numbers; those that the rules reject are left out.
fn chain_for(shapes: &[(u8, u8, i64)], open_count: u8) -> Maker {
    let mut maker = Maker::new();
    for &(kind, transaction, steps) in shapes {
        let transaction = u64::from(transaction);
        let status = match kind / 16 {
            0 => refused("no"),
            1 => EventStatus::Aborted(AbortReason::Operator(ReasonText::new("by hand"))),
            2 => CONFLICT,
            3 => {
                maker.add_run(1 + kind % 3, &CONFLICT);
                continue;
            }
            4 => EventStatus::DoneByHand(ReasonText::new("by hand")),
            _ => EventStatus::Done,
        };
        let known = maker.known.get(&TransactionId::new(u128::from(transaction))).map(|known| known.status);
        let action = match (kind % 8, known) {
            (0, _) => Action::Unlock,
            (1, Some(_)) => Action::Chargeback(reference(transaction)),
            (_, Some(TransactionStatus::Posted)) => Action::Dispute(reference(transaction)),
            (_, Some(_)) => Action::Resolve(reference(transaction)),
            (1..3, None) => Action::Withdrawal(movement(transaction, steps, 0)),
            (3, None) => Action::Deposit(movement(transaction, steps, 1)),
            (_, None) => Action::Deposit(movement(transaction, steps + 5, 0)),
        };
        maker.add(action, status);
    }
    maker.add_run(open_count, &EventStatus::Started);
    maker
}

/// Every way to change one field of an event.
fn field_edits() -> Vec<(&'static str, fn(&mut LinkedEvent))> {
    alloc::vec![
        ("customer", |l| l.event.customer = CustomerId::new(8)),
        ("seq", |l| l.event.seq += 1),
        ("seq to 0", |l| l.event.seq = 0),
        ("time later", |l| l.event.time_ms += 1),
        ("time earlier", |l| l.event.time_ms -= 1_000_000),
        ("kind", |l| {
            let at = RequestKind::ALL.iter().position(|kind| *kind == l.event.kind).unwrap();
            l.event.kind = RequestKind::ALL[(at + 1) % 6];
        }),
        ("transaction", |l| {
            l.event.transaction = match l.event.transaction {
                Some(id) => Some(TransactionId::new(id.bits() + 1)),
                None => Some(TransactionId::new(0)),
            };
        }),
        ("no transaction", |l| l.event.transaction = None),
        ("transaction kind", |l| {
            l.event.transaction_kind = match l.event.transaction_kind {
                TransactionKind::Deposit => TransactionKind::Withdrawal,
                TransactionKind::Withdrawal => TransactionKind::Deposit,
            };
        }),
        ("amount", |l| l.event.amount = Amount::from_steps(l.event.amount.steps() + 1)),
        ("currency", |l| l.event.currency = CurrencyIndex(1 - l.event.currency.0)),
        ("rail", |l| l.event.rail = if l.event.rail.is_some() { None } else { RailId::new(1) }),
        ("locked", |l| l.event.state.locked ^= true),
        ("available", |l| {
            let mut account = l.event.state.accounts.get(CurrencyIndex(0));
            account.available = Amount::from_steps(account.available.steps() ^ 1);
            l.event.state.accounts.set(CurrencyIndex(0), account);
        }),
        ("held", |l| {
            let mut account = l.event.account();
            account.held = Amount::from_steps(account.held.steps() + 1);
            l.event.state.accounts.set(l.event.currency, account);
        }),
        ("one account more", |l| {
            let account = crate::Account { available: Amount::MAX, held: Amount::ZERO };
            l.event.state.accounts.set(CurrencyIndex(63), account);
        }),
        ("hash", |l| l.hash.0[31] ^= 1),
    ]
}

/// Every other status an event could be given.
fn other_statuses(status: &EventStatus) -> impl Iterator<Item = EventStatus> {
    let operator = EventStatus::Aborted(AbortReason::Operator(ReasonText::new("no")));
    let [by_hand, other] = ["no", "yes"].map(|text| EventStatus::DoneByHand(ReasonText::new(text)));
    let refusals = [refused("no"), refused("yes"), operator, CONFLICT];
    let all = [[EventStatus::Started, EventStatus::Done, by_hand, other], refusals].concat();
    let status = status.clone();
    all.into_iter().filter(move |other| *other != status)
}

/// Every chain that differs from this one by a single edit.
fn single_edits(events: &Events) -> Vec<(String, Events)> {
    let mut edited = Vec::new();
    let mut edit = |what: String, change: &dyn Fn(&mut Events)| {
        let mut copy = events.clone();
        change(&mut copy);
        if copy != *events {
            edited.push((what, copy));
        }
    };
    for place in 0..events.len() {
        for (name, change) in field_edits() {
            edit(format!("event {place}: {name}"), &|events| change(&mut events[place].0));
        }
        for status in other_statuses(&events[place].1) {
            edit(format!("event {place}: {status:?}"), &|events| events[place].1 = status.clone());
        }
        edit(format!("event {place} is gone"), &|events| drop(events.remove(place)));
        edit(format!("event {place} is there twice"), &|events| events.insert(place, events[place].clone()));
        if place > 0 {
            edit(format!("event {place} comes before the one before"), &|events| events.swap(place - 1, place));
        }
    }
    edited
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_single_edit_is_found(
        shapes in prop::collection::vec((0..128u8, 1..6u8, 1..4i64), 1..14),
        open_count in 0..3u8,
    ) {
        let maker = chain_for(&shapes, open_count);
        let head = follow(&maker.events).map_err(|(place, fault)| TestCaseError::fail(format!("{place}: {fault}")))?;
        prop_assert_eq!(&head, &maker.head);
        for (what, edited) in single_edits(&maker.events) {
            match follow(&edited) {
                Err(_) => {}
                // What only the end of a chain shows, the receipt shows: the head is another.
                Ok(other) => prop_assert_ne!(&other, &head, "{} is not found", what),
            }
        }
    }

    /// An edit by somebody who can compute hashes: the event's own hash fits, and then the next one's does not.
    #[test]
    fn an_edit_with_its_own_hash_made_to_fit_is_found(
        shapes in prop::collection::vec((0..128u8, 1..6u8, 1..4i64), 1..10),
    ) {
        let maker = chain_for(&shapes, 0);
        let mut head = Head::start(&config().digest(), CUSTOMER);
        for place in 0..maker.events.len() {
            for (name, change) in field_edits().into_iter().filter(|(name, _)| *name != "hash") {
                let mut edited = maker.events.clone();
                change(&mut edited[place].0);
                edited[place].0.hash = edited[place].0.event.hash(&head.link);
                if edited != maker.events && maker.events[place].0.event.hash(&head.link) == maker.events[place].0.hash {
                    let found = follow(&edited).map_or(true, |other| other != maker.head);
                    prop_assert!(found, "event {}: {}", place, name);
                }
            }
            let (linked, status) = maker.events[place].clone();
            head.take(linked, &status);
        }
    }
}

#[test]
fn faults_are_named() {
    let mut maker = Maker::new();
    assert!(maker.add(Action::Deposit(movement(1, 10, 0)), EventStatus::Done));
    assert!(maker.add(Action::Withdrawal(movement(2, 4, 0)), EventStatus::Done));
    let good = maker.events;
    let start = Head::start(&config().digest(), CUSTOMER).link;
    let code = |change: &dyn Fn(&mut Events)| {
        let mut events = good.clone();
        change(&mut events);
        follow(&events).map(|_| ()).map_err(|(place, fault)| (place, fault.code()))
    };
    let relinked = |events: &mut Events| events[0].0.hash = events[0].0.event.hash(&start);
    assert_eq!(code(&|_| {}), Ok(()));
    assert_eq!(code(&|e| e[0].0.event.customer = CustomerId::new(1)), Err((0, "wrong_customer")));
    assert_eq!(code(&|e| drop(e.remove(0))), Err((0, "wrong_seq")));
    assert_eq!(code(&|e| e[1].0.event.time_ms -= 12), Err((1, "time_goes_back")));
    assert_eq!(code(&|e| e[0].0.event.amount = Amount::from_steps(11)), Err((0, "wrong_hash")));
    assert_eq!(code(&|e| e[0].1 = EventStatus::Started), Err((1, "done_after_open")));
    assert_eq!(code(&|e| e[0].1 = CONFLICT), Err((1, "done_after_open")));
    let edit = |change: fn(&mut Event)| {
        code(&|events| {
            change(&mut events[0].0.event);
            relinked(events);
        })
    };
    assert_eq!(edit(|e| e.kind = RequestKind::Withdrawal), Err((0, "not_allowed")));
    assert_eq!(edit(|e| e.amount = Amount::from_steps(11)), Err((0, "wrong_state")));
    assert_eq!(edit(|e| e.transaction = None), Err((0, "malformed")));
    assert_eq!(edit(|e| e.transaction_kind = TransactionKind::Withdrawal), Err((0, "malformed")));
    let mut twice = Maker::new();
    assert!(twice.add(Action::Deposit(movement(1, 10, 0)), EventStatus::Done));
    twice.known.clear();
    assert!(twice.add(Action::Deposit(movement(1, 10, 0)), EventStatus::Done));
    assert_eq!(follow(&twice.events).map_err(|(place, fault)| (place, fault.code())), Err((1, "made_before")));
}

/// An event was taken as closed although the one before it was still open. Events are closed oldest first.
#[test]
fn an_event_is_not_closed_before_the_one_it_follows() {
    for status in [EventStatus::Done, CONFLICT, refused("no")] {
        let mut maker = Maker::new();
        maker.add_run(2, &EventStatus::Started);
        maker.events[1].1 = status.clone();
        let fault = follow(&maker.events).map_err(|(place, fault)| (place, fault.code()));
        assert_eq!(fault.map(|_| ()), Err((1, "done_after_open")), "{status:?}");
    }
}

/// An event's content by the table in `docs/format.md`, written a second time.
fn content(event: &Event) -> Vec<u8> {
    let mut bytes = Vec::new();
    let account = event.state.accounts.get(event.currency);
    let mut flags = 0;
    flags |= u8::from(event.state.locked);
    flags |= if event.transaction_kind == TransactionKind::Withdrawal { 2 } else { 0 };
    bytes.extend(event.customer.bits().to_be_bytes());
    bytes.extend(event.seq.to_be_bytes());
    bytes.extend(event.time_ms.to_be_bytes());
    bytes.extend([event.kind.code(), flags, event.currency.0, event.rail.map_or(0, RailId::number)]);
    bytes.extend(event.transaction.map_or(0, TransactionId::bits).to_be_bytes());
    for amount in [event.amount, account.available, account.held] {
        bytes.extend(amount.steps().to_be_bytes());
    }
    let others: Vec<_> = event.state.accounts.iter().filter(|(currency, _)| *currency != event.currency).collect();
    bytes.push(others.len() as u8);
    for (currency, account) in others {
        bytes.push(currency.0);
        bytes.extend(account.available.steps().to_be_bytes());
        bytes.extend(account.held.steps().to_be_bytes());
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Golden: these bytes are the format. A change here is a new version of the encoding.
/// `BURSAR_UPDATE_GOLDEN=1` writes the file anew.
#[test]
fn the_golden_chain_is_as_ever() {
    let mut maker = Maker::new();
    let done = EventStatus::Done;
    let steps = [
        (Action::Deposit(movement(1, 10_000, 0)), done.clone()),
        (Action::Deposit(movement(0xffff_ffff_ffff_ffff, 500, 1)), done.clone()),
        (Action::Withdrawal(movement(2, 2_500, 0)), refused("insufficient cover")),
        (Action::Withdrawal(movement(2, 2_500, 0)), done.clone()),
        (Action::Dispute(reference(1)), done.clone()),
        (Action::Resolve(reference(1)), done.clone()),
        (Action::Dispute(reference(2)), done.clone()),
        (Action::Chargeback(reference(2)), done.clone()),
        (Action::Unlock, EventStatus::Aborted(AbortReason::Operator(ReasonText::new("nicht jetzt: später")))),
        (Action::Unlock, done),
    ];
    for (action, status) in steps {
        assert!(maker.add(action, status.clone()), "{action:?}");
    }
    maker.add_run(2, &CONFLICT);
    maker.add_run(1, &EventStatus::Started);
    let digest = config().digest();
    let mut head = Head::start(&digest, CUSTOMER);
    let mut text = format!("ledger {digest}\nstart  {}\n", head.link);
    let mut tentative = head.link;
    for (linked, status) in &maker.events {
        let content = content(&linked.event);
        let link = if linked.event.hash(&head.link) == linked.hash { head.link } else { tentative };
        let mut hasher = Hasher::new(Domain::Event);
        hasher.update(link.as_bytes());
        hasher.update(&content);
        assert_eq!(hasher.finish(), linked.hash, "the encoding is what the table says");
        write!(text, "\n{} {} {}\n", linked.event.seq, linked.event.kind.name(), status.name()).unwrap();
        write!(text, "content {}\nhash    {}\nid      {}\n", hex(&content), linked.hash, linked.id()).unwrap();
        tentative = linked.hash;
        head.take(linked.clone(), status);
        writeln!(text, "link    {}", head.link).unwrap();
    }
    assert_eq!(follow(&maker.events), Ok(maker.head));
    if std::env::var_os("BURSAR_UPDATE_GOLDEN").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/chain/golden.txt"), &text).unwrap();
    } else {
        assert_eq!(text, include_str!("golden.txt"));
    }
}
