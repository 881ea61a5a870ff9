//! Properties over random histories, by a generator that knows which transactions there are: two stores that have
//! nothing in common agree word for word, money is conserved, chains replay to the live state, and what is
//! submitted a second time changes nothing.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::core::commit::{
    Answer, Batch, Limits, Outcome, RailAnswer, RailCall, Routes, Step, Submission, Ticket,
};
use bursar_engine::core::{
    AbortReason, Action, Amount, Currencies, Currency, CurrencyIndex, CustomerId, Decimals, DisputablePolicy, EventId,
    LedgerConfig, LockedPolicy, Movement, Policy, RailId, ReasonText, Reference, Request, TransactionId,
    TransactionKind, TransactionStatus,
};
use bursar_engine::driver::Driver;
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore};
use bursar_engine::store::{Chains, MemoryStore, ReadRange, Transactions};
use bursar_engine::{Ledger, LedgerOptions};
use common::disk::FaultyDisk;
use common::{Audit, audit};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is asked for, with old transactions named by their place among those that were made.
#[derive(Clone, Debug)]
enum Ask {
    Deposit {
        of: u8,
        steps: i64,
        currency: u8,
    },
    Withdrawal {
        of: u8,
        steps: i64,
        currency: u8,
    },
    /// A transaction of before; seldom another customer's.
    Dispute(Old),
    Resolve(Old),
    Chargeback(Old),
    Unlock {
        of: u8,
    },
    /// Word for word what was asked for once.
    Repeat {
        which: prop::sample::Index,
    },
}

#[derive(Clone, Debug)]
struct Old {
    which: prop::sample::Index,
    /// A customer that need not be the transaction's.
    other: Option<u8>,
    /// An amount that need not be the transaction's.
    steps: Option<i64>,
}

#[derive(Clone, Debug)]
enum Act {
    Batch(Vec<Ask>),
    /// A rail's answer to one of the events that are open.
    Answer {
        which: prop::sample::Index,
        answer: u8,
    },
    Reopen {
        cleanly: bool,
    },
    /// Power goes, and comes back.
    PowerCut,
}

fn old() -> impl Strategy<Value = Old> {
    let other = prop_oneof![9 => Just(None), 1 => (0..6_u8).prop_map(Some)];
    let steps = prop_oneof![9 => Just(None), 1 => (1..50_i64).prop_map(Some)];
    (any::<prop::sample::Index>(), other, steps).prop_map(|(which, other, steps)| Old { which, other, steps })
}

fn ask() -> impl Strategy<Value = Ask> {
    // The ledger has two currencies.
    let currency = prop_oneof![12 => 0..2_u8, 1 => Just(2_u8)];
    let steps = prop_oneof![20 => 1..50_i64, 1 => Just(0_i64), 1 => Just(i64::MAX)];
    let movement = (0..6_u8, steps, currency);
    prop_oneof![
        6 => movement.clone().prop_map(|(of, steps, currency)| Ask::Deposit { of, steps, currency }),
        3 => movement.prop_map(|(of, steps, currency)| Ask::Withdrawal { of, steps, currency }),
        4 => old().prop_map(Ask::Dispute),
        2 => old().prop_map(Ask::Resolve),
        2 => old().prop_map(Ask::Chargeback),
        1 => (0..7_u8).prop_map(|of| Ask::Unlock { of }),
        2 => any::<prop::sample::Index>().prop_map(|which| Ask::Repeat { which }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => prop::collection::vec(ask(), 1..12).prop_map(Act::Batch),
        4 => (any::<prop::sample::Index>(), 0..4_u8).prop_map(|(which, answer)| Act::Answer { which, answer }),
        1 => any::<bool>().prop_map(|cleanly| Act::Reopen { cleanly }),
        1 => Just(Act::PowerCut),
    ]
}

fn config(locked: u8, disputable: u8) -> LedgerConfig {
    let policy = Policy {
        locked: LockedPolicy::from_code(locked).unwrap(),
        disputable: DisputablePolicy::from_code(disputable).unwrap(),
    };
    let currency = |code, decimals| Currency::new(code, Decimals::new(decimals).unwrap()).unwrap();
    let currencies = Currencies::named(vec![currency("EUR", 2), currency("GOLD", 9)]).unwrap();
    LedgerConfig { ledger: [7; 16], policy, currencies }
}

/// From what the generator says to requests, with all that were made so far.
#[derive(Default)]
struct Requests {
    made: Vec<Request>,
    transactions: Vec<(CustomerId, TransactionId)>,
}

impl Requests {
    fn movement(&mut self, of: u8, steps: i64, currency: u8) -> (CustomerId, Movement) {
        let customer = CustomerId::new(u128::from(of));
        let transaction = TransactionId::new(self.transactions.len() as u128 + 1);
        self.transactions.push((customer, transaction));
        (customer, Movement { transaction, amount: Amount::from_steps(steps), currency: CurrencyIndex(currency) })
    }

    fn reference(&self, old: &Old) -> Option<(CustomerId, Reference)> {
        if self.transactions.is_empty() {
            return None;
        }
        let (owner, transaction) = *old.which.get(&self.transactions);
        let customer = old.other.map_or(owner, |other| CustomerId::new(u128::from(other)));
        let amount = old.steps.map(Amount::from_steps);
        Some((customer, Reference { transaction, amount, currency: None }))
    }

    fn request(&mut self, ask: &Ask) -> Option<Request> {
        let (customer, action) = match ask {
            Ask::Deposit { of, steps, currency } => {
                let (customer, movement) = self.movement(*of, *steps, *currency);
                (customer, Action::Deposit(movement))
            }
            Ask::Withdrawal { of, steps, currency } => {
                let (customer, movement) = self.movement(*of, *steps, *currency);
                (customer, Action::Withdrawal(movement))
            }
            Ask::Dispute(old) => self.reference(old).map(|(of, reference)| (of, Action::Dispute(reference)))?,
            Ask::Resolve(old) => self.reference(old).map(|(of, reference)| (of, Action::Resolve(reference)))?,
            Ask::Chargeback(old) => self.reference(old).map(|(of, reference)| (of, Action::Chargeback(reference)))?,
            Ask::Unlock { of } => (CustomerId::new(u128::from(*of)), Action::Unlock),
            Ask::Repeat { .. } if self.made.is_empty() => return None,
            Ask::Repeat { which } => return Some(*which.get(&self.made)),
        };
        let request = Request { customer, action };
        self.made.push(request);
        Some(request)
    }
}

/// A driver on one pair of stores. Two of them, given the same, must say the same.
struct Side {
    config: LedgerConfig,
    routes: Routes,
    chains: Arc<dyn Chains>,
    transactions: Arc<dyn Transactions>,
    driver: Driver,
    batch: Batch,
    open: BTreeMap<EventId, RailCall>,
    /// The next request's. No two have the same: those that waited are answered with later ones.
    next_ticket: u64,
}

impl Side {
    fn new(
        config: &LedgerConfig,
        routes: Routes,
        chains: Arc<dyn Chains>,
        transactions: Arc<dyn Transactions>,
    ) -> Self {
        let limits = Limits { batch_requests_max: 7, ..Limits::default() };
        let driver = Driver::new(config.clone(), routes, limits, chains.clone(), transactions.clone(), 3).unwrap();
        let (batch, open, config) = (Batch::new(3), BTreeMap::new(), config.clone());
        Self { config, routes, chains, transactions, driver, batch, open, next_ticket: 0 }
    }

    /// Ends the driver and begins with another one on the same stores, as after a restart.
    fn restarted(self) -> Self {
        Self::new(&self.config, self.routes, self.chains, self.transactions)
    }

    /// Runs batches until nothing is left to do; gives all answers.
    fn run(&mut self, now_ms: u64, requests: &[Request]) -> Vec<Answer> {
        for (ticket, &request) in (self.next_ticket..).zip(requests) {
            self.driver.submit(Submission::new(Ticket(ticket), request));
        }
        self.next_ticket += requests.len() as u64;
        let mut answers = Vec::new();
        while self.driver.has_work() {
            self.driver.run_batch(now_ms, &mut self.batch).unwrap();
            self.chains.sync().unwrap();
            if self.batch.step() == Step::Sync {
                self.batch.synced();
            }
            assert_eq!(self.batch.step(), Step::Finish);
            answers.extend(self.batch.take_answers());
            self.open.extend(self.batch.calls().iter().map(|call| (call.event.id(), call.clone())));
            self.transactions.approve(self.batch.approvals()).unwrap();
        }
        answers.sort_by_key(|answer| answer.ticket);
        answers
    }

    fn answer(&mut self, now_ms: u64, event: EventId, answer: &RailAnswer) -> Vec<Answer> {
        self.driver.rail_answered(now_ms, event, answer.clone());
        if *answer != RailAnswer::Unknown {
            self.open.remove(&event);
        }
        self.run(now_ms, &[])
    }
}

struct Embedded {
    disk: FaultyDisk,
    options: EmbeddedOptions,
    store: Arc<EmbeddedStore>,
}

impl Embedded {
    fn create(config: &LedgerConfig, options: EmbeddedOptions) -> Self {
        let disk = FaultyDisk::new();
        let (store, _) = EmbeddedStore::create_on(Arc::new(disk.clone()), config, options).unwrap();
        Self { disk, options, store: Arc::new(store) }
    }

    fn open(disk: FaultyDisk, options: EmbeddedOptions) -> Self {
        let (store, report) = EmbeddedStore::open_on(Arc::new(disk.clone()), options).unwrap();
        assert_eq!((report.cut_off, report.index_rebuilt), (None, None));
        Self { disk, options, store: Arc::new(store) }
    }

    fn side(&self, config: &LedgerConfig, routes: Routes) -> Side {
        Side::new(config, routes, self.store.clone(), self.store.clone())
    }
}

/// Both stores, and all that was asked and answered.
struct World {
    config: LedgerConfig,
    routes: Routes,
    now_ms: u64,
    memory: Side,
    embedded: Embedded,
    side: Side,
    requests: Requests,
    /// Movements that took effect, for the second time.
    applied: Vec<Request>,
}

impl World {
    fn new(config: LedgerConfig, routes: Routes, options: EmbeddedOptions) -> Self {
        let store = Arc::new(MemoryStore::new(&config));
        let memory = Side::new(&config, routes, store.clone(), store);
        let embedded = Embedded::create(&config, options);
        let side = embedded.side(&config, routes);
        let (requests, applied) = (Requests::default(), Vec::new());
        Self { config, routes, now_ms: 1_000, memory, embedded, side, requests, applied }
    }

    fn act(mut self, act: &Act) -> Self {
        self.now_ms += 5;
        match act {
            Act::Batch(asks) => {
                let requests: Vec<Request> = asks.iter().filter_map(|ask| self.requests.request(ask)).collect();
                self.submit(&requests);
                self
            }
            Act::Answer { which, answer } => {
                if !self.memory.open.is_empty() {
                    let ids: Vec<EventId> = self.memory.open.keys().copied().collect();
                    let answer = match answer {
                        0 | 1 => RailAnswer::Done,
                        2 => RailAnswer::Refused(AbortReason::RailRefused(ReasonText::new("no"))),
                        _ => RailAnswer::Unknown,
                    };
                    let event = *which.get(&ids);
                    let expected = self.memory.answer(self.now_ms, event, &answer);
                    assert_eq!(self.side.answer(self.now_ms, event, &answer), expected);
                }
                self
            }
            Act::Reopen { cleanly } => self.reopen(*cleanly, false),
            Act::PowerCut => self.reopen(false, true),
        }
    }

    /// Submits to both, which must say the same, to the last bit.
    fn submit(&mut self, requests: &[Request]) -> Vec<Answer> {
        let first_ticket = self.memory.next_ticket;
        let expected = self.memory.run(self.now_ms, requests);
        assert_eq!(self.side.run(self.now_ms, requests), expected);
        for answer in &expected {
            // Those of requests that waited behind an event have tickets of an earlier batch.
            let Some(place) = answer.ticket.0.checked_sub(first_ticket) else { continue };
            let Some(request) = requests.get(place as usize) else { continue };
            let moves = matches!(request.action, Action::Deposit(_) | Action::Withdrawal(_));
            let of_this = |receipt: &bursar_engine::core::commit::Receipt| receipt.event.customer == request.customer;
            if moves && matches!(&answer.result, Ok(Outcome::Applied(receipt)) if of_this(receipt)) {
                self.applied.push(*request);
            }
        }
        expected
    }

    fn reopen(mut self, cleanly: bool, power_cut: bool) -> Self {
        let Embedded { disk, options, store } = self.embedded;
        drop(self.side);
        if cleanly {
            store.close().unwrap();
        }
        drop(store);
        let embedded = Embedded::open(if power_cut { disk.after_power_cut() } else { disk }, options);
        let mut side = embedded.side(&self.config, self.routes);
        self.memory = self.memory.restarted();
        // What was open is found, and its rail called again.
        assert_eq!(side.run(self.now_ms, &[]), self.memory.run(self.now_ms, &[]));
        assert_eq!(side.open, self.memory.open);
        Self { embedded, side, ..self }
    }
}

/// Money by the transactions alone: what came in, minus what went out, minus what was taken back.
fn conserved(audit: &Audit, ledger: &Ledger) {
    let mut expected: BTreeMap<CurrencyIndex, i128> = BTreeMap::new();
    for state in audit.transactions.values() {
        let steps = i128::from(state.amount.steps());
        let moved = match (state.kind, state.status) {
            (TransactionKind::Deposit, TransactionStatus::Posted | TransactionStatus::Disputed) => steps,
            (TransactionKind::Withdrawal, TransactionStatus::Posted) => -steps,
            // Taken back, or given back for the time being.
            (TransactionKind::Deposit, TransactionStatus::ChargedBack)
            | (TransactionKind::Withdrawal, TransactionStatus::Disputed | TransactionStatus::ChargedBack) => 0,
        };
        *expected.entry(state.currency).or_default() += moved;
    }
    let totals = ledger.totals().unwrap();
    for (currency, steps) in expected {
        assert_eq!(totals.currency(currency).total.steps(), steps);
    }
}

fn whole_history(acts: &[Act], config: LedgerConfig, routes: Routes, options: EmbeddedOptions) {
    let mut world = World::new(config, routes, options);
    for act in acts {
        world = world.act(act);
    }
    // Once more what took effect: nothing moves, whoever is asked.
    let before = heads(&world.side);
    let repeats: Vec<Request> = world.applied.iter().copied().filter(|request| !waits(&world, request)).collect();
    let answers = world.submit(&repeats);
    assert_eq!(answers.len(), repeats.len());
    assert!(answers.iter().all(|answer| answer.result == Ok(Outcome::AlreadyApplied(None))), "{answers:?}");
    assert_eq!(heads(&world.side), before);
    assert_eq!(before, heads(&world.memory));
    compare_chains(&world);
    // The chains followed from their beginnings lead to the live state, and money is conserved.
    let World { config, embedded, .. } = world;
    let (store, options) = (embedded.store, LedgerOptions::default());
    let ledger = Ledger::with_stores(config, store.clone(), store, options).unwrap();
    conserved(&audit(&ledger), &ledger);
}

/// Whether the customer's event is open: its requests wait.
fn waits(world: &World, request: &Request) -> bool {
    world.memory.open.values().any(|call| call.event.event.customer == request.customer)
}

fn heads(side: &Side) -> Vec<bursar_engine::store::CustomerHead> {
    let mut heads = Vec::new();
    side.chains.list(None, usize::MAX, &mut heads).unwrap();
    heads
}

fn compare_chains(world: &World) {
    let (embedded, memory) = (&world.side.chains, &world.memory.chains);
    for listed in heads(&world.memory) {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        embedded.read(listed.customer, ReadRange::ALL, &mut left).unwrap();
        memory.read(listed.customer, ReadRange::ALL, &mut right).unwrap();
        assert_eq!(left, right);
    }
    assert_eq!(embedded.totals().unwrap(), memory.totals().unwrap());
    assert_eq!(embedded.open_customers().unwrap(), memory.open_customers().unwrap());
    for (_, transaction) in &world.requests.transactions {
        let events = |side: &Side| side.transactions.events_of(*transaction).unwrap();
        assert_eq!(events(&world.side), events(&world.memory), "transaction {transaction}");
    }
}

fn options() -> impl Strategy<Value = EmbeddedOptions> {
    (prop_oneof![Just(1_500_u64), Just(20_000)], prop_oneof![Just(6_usize), Just(40), Just(10_000)], any::<bool>())
        .prop_map(|(segment_bytes, memtable_entries_max, background)| EmbeddedOptions {
            segment_bytes,
            memtable_entries_max,
            heads_max: memtable_entries_max / 4,
            background,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn two_stores_agree_to_the_last_bit(
        acts in prop::collection::vec(act(), 1..50),
        (locked, disputable) in (0..3_u8, 0..2_u8),
        options in options(),
    ) {
        whole_history(&acts, config(locked, disputable), Routes::default(), options);
    }

    #[test]
    fn two_stores_agree_to_the_last_bit_with_a_rail(
        acts in prop::collection::vec(act(), 1..50),
        (locked, disputable) in (0..3_u8, 0..2_u8),
        deposits_too in any::<bool>(),
        options in options(),
    ) {
        let rail = RailId::new(3);
        let routes = Routes { deposit: rail.filter(|_| deposits_too), withdrawal: rail };
        whole_history(&acts, config(locked, disputable), routes, options);
    }
}
