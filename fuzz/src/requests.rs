//! Sequences of requests, against a model of the rules: the same outcomes, accounts, transactions and sums in a
//! memory store with whole batches, one with split batches, and the embedded store, which is opened again now and
//! then.
//!
//! Input: policy, batch limit, sizes of the embedded store; then choices, see [`step`].

use crate::input::Input;
use crate::ledger::two_currencies;
use crate::model::{Model, Status};
use bursar_engine::core::commit::{Batch, Limits, Outcome, Routes, Step, Submission, Ticket};
use bursar_engine::core::{
    Action, Amount, CurrencyIndex, CustomerId, DisputablePolicy, EntryId, LedgerConfig, LockedPolicy, Movement, Policy,
    Reference, Request, Sum, TransactionEntry, TransactionId, TransactionKind, TransactionStatus,
};
use bursar_engine::driver::Driver;
use bursar_engine::embedded::memory_disk::MemoryDisk;
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore, VerifyOptions, verify_on};
use bursar_engine::store::{Chains, MemoryStore, Transactions};
use std::sync::Arc;

const CURRENCY_COUNT: u8 = 2;
/// Enough for everything that can be told apart; longer histories only cost time.
const STEPS_MAX: usize = 400;
const CUSTOMERS: [u128; 6] = [0, 1, 2, 3, u64::MAX as u128, u128::MAX];
const STEPS: [i64; 16] =
    [1, 2, 3, 5, 10, 100, 1000, 1 << 32, 0, -1, i64::MIN, i64::MAX, i64::MAX - 1, i64::MAX / 2, i64::MAX / 2 + 1, 7];

/// Runs one history.
pub fn requests(data: &[u8]) {
    let mut input = Input::new(data);
    let policy = Policy { locked: input.one_of(&LockedPolicy::ALL), disputable: input.one_of(&DisputablePolicy::ALL) };
    let config = LedgerConfig { ledger: [0x33; 16], policy, currencies: two_currencies() };
    let limits = Limits { batch_requests_max: input.one_of(&[1, 2, 3, 5, 8, 1024]), ..Limits::default() };
    let options = EmbeddedOptions {
        segment_bytes: input.one_of(&[500, 1000, 4000, 100_000]),
        memtable_entries_max: input.one_of(&[1, 3, 8, 1000]),
        heads_max: input.one_of(&[0, 1, 3, 1000]),
        background: false,
    };
    let mut world = World::new(config, limits, options);
    let mut queued = Vec::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match step(&mut input) {
            Act::Ask(request) => queued.push(request),
            Act::Decide => world.decide(&std::mem::take(&mut queued)),
            Act::Reopen { cleanly } => {
                world.decide(&std::mem::take(&mut queued));
                world.reopen(cleanly);
            }
        }
    }
    world.decide(&queued);
    world.reopen(true);
    world.verify();
}

enum Act {
    Ask(Request),
    /// Decides what was asked since the last time.
    Decide,
    Reopen {
        cleanly: bool,
    },
}

/// The first byte says what to do: its lowest four bits the kind, the others the customer. The next ones say which
/// transaction, which amount and which currency.
fn step(input: &mut Input<'_>) -> Act {
    let first = input.byte();
    let customer = CustomerId::new(CUSTOMERS[usize::from(first >> 4) % CUSTOMERS.len()]);
    let action = match first & 15 {
        0..=3 => Action::Deposit(movement(input)),
        4 | 5 => Action::Withdrawal(movement(input)),
        6 | 7 => Action::Dispute(reference(input)),
        8 | 9 => Action::Resolve(reference(input)),
        10 => Action::Chargeback(reference(input)),
        11 => Action::Unlock,
        12 | 13 => return Act::Decide,
        kind => return Act::Reopen { cleanly: kind == 14 },
    };
    Act::Ask(Request { customer, action })
}

/// Small ids, and some that are wide.
fn transaction(input: &mut Input<'_>) -> TransactionId {
    let byte = input.byte();
    let number = u128::from(byte & 63);
    TransactionId::new(if byte & 64 == 0 { number } else { number << 100 | 5 })
}

fn amount_and_currency(input: &mut Input<'_>) -> (Amount, CurrencyIndex) {
    let byte = input.byte();
    let steps = STEPS[usize::from(byte & 15)];
    // The last of them does not exist.
    let currency = [0, 0, 0, 1, 1, 1, 2, 255][usize::from(byte >> 4 & 7)];
    (Amount::from_steps(steps), CurrencyIndex(currency))
}

fn movement(input: &mut Input<'_>) -> Movement {
    let transaction = transaction(input);
    let (amount, currency) = amount_and_currency(input);
    Movement { transaction, amount, currency }
}

fn reference(input: &mut Input<'_>) -> Reference {
    let byte = input.rest().first().copied().unwrap_or_default();
    let transaction = transaction(input);
    // Mostly neither amount nor currency is given.
    let (amount, currency) = if byte & 128 == 0 {
        (None, None)
    } else {
        let flags = input.byte();
        let (amount, currency) = amount_and_currency(input);
        ((flags & 1 != 0).then_some(amount), (flags & 2 != 0).then_some(currency))
    };
    Reference { transaction, amount, currency }
}

/// A driver on one pair of stores.
struct Side {
    name: &'static str,
    chains: Arc<dyn Chains>,
    transactions: Arc<dyn Transactions>,
    driver: Driver,
    batch: Batch,
}

impl Side {
    fn new<S: Chains + Transactions + 'static>(
        name: &'static str,
        config: &LedgerConfig,
        limits: Limits,
        store: Arc<S>,
    ) -> Self {
        let (chains, transactions): (Arc<dyn Chains>, Arc<dyn Transactions>) = (store.clone(), store);
        let driver =
            Driver::new(config.clone(), Routes::default(), limits, chains.clone(), transactions.clone(), 1).unwrap();
        Self { name, chains, transactions, driver, batch: Batch::new(1) }
    }

    /// Decides requests, batch by batch; gives the codes of their outcomes.
    fn decide(&mut self, now_ms: u64, requests: &[Request]) -> Vec<&'static str> {
        for (ticket, &request) in (0..).zip(requests) {
            self.driver.submit(Submission::new(Ticket(ticket), request));
        }
        let mut codes = vec![""; requests.len()];
        let mut batch_count = 0;
        while self.driver.has_work() {
            batch_count += 1;
            assert!(batch_count <= 2 * requests.len() + 2, "{}: requests are put off for ever", self.name);
            self.driver.run_batch(now_ms, &mut self.batch).unwrap();
            self.chains.sync().unwrap();
            if self.batch.step() == Step::Sync {
                self.batch.synced();
            }
            assert_eq!(self.batch.step(), Step::Finish);
            assert!(self.batch.calls().is_empty());
            for answer in self.batch.take_answers() {
                let code = match answer.result.unwrap() {
                    Outcome::Applied(receipt) => {
                        let request = &requests[answer.ticket.0 as usize];
                        assert_eq!(receipt.event.customer, request.customer);
                        assert_eq!(receipt.time_ms, now_ms);
                        "applied"
                    }
                    Outcome::AlreadyApplied(_) => "already_applied",
                    Outcome::Rejected(rejection) => rejection.code(),
                };
                let place = &mut codes[answer.ticket.0 as usize];
                assert!(place.is_empty(), "{}: answered twice", self.name);
                *place = code;
            }
            self.transactions.approve(self.batch.approvals()).unwrap();
        }
        codes
    }

    /// Compares all that the stores say with the model.
    fn check(&self, model: &Model) {
        let mut heads = Vec::new();
        self.chains.list(None, usize::MAX, &mut heads).unwrap();
        let listed: Vec<u128> = heads.iter().map(|listed| listed.customer.bits()).collect();
        assert_eq!(listed, model.customers.keys().copied().collect::<Vec<_>>(), "{}", self.name);
        for (listed, customer) in heads.iter().zip(model.customers.values()) {
            let head = &listed.head;
            let accounts = head.state.accounts.iter().map(|(currency, account)| {
                (currency.0, (i128::from(account.available.steps()), i128::from(account.held.steps())))
            });
            let said = (accounts.collect(), head.state.locked, head.seq, head.open.len());
            let expected = (customer.accounts.clone(), customer.is_locked, customer.event_count, 0);
            assert_eq!(said, expected, "{}: customer {}", self.name, listed.customer);
        }
        self.check_transactions(model);
        let totals = self.chains.totals().unwrap();
        let events: u64 = model.customers.values().map(|customer| customer.event_count).sum();
        let counts = (totals.event_count, totals.transaction_count, totals.customer_count);
        assert_eq!(counts, (events, model.transactions.len() as u64, model.customers.len() as u64), "{}", self.name);
        for currency in 0..CURRENCY_COUNT {
            let sums = totals.currency(CurrencyIndex(currency));
            assert!(sums.is_balanced(), "{}: {sums:?}", self.name);
            let said = [
                sums.deposits,
                sums.withdrawals,
                sums.deposits_charged_back,
                sums.withdrawals_charged_back,
                sums.provisional,
                sums.held,
                sums.total,
            ];
            assert_eq!(said.map(Sum::steps), model.sums(currency), "{}: currency {currency}", self.name);
        }
    }

    fn check_transactions(&self, model: &Model) {
        let mut ids: Vec<EntryId> = model.transactions.keys().map(|id| TransactionId::new(*id).into()).collect();
        // One that is not there.
        ids.push(TransactionId::new(u128::MAX).into());
        let mut entries: Vec<TransactionEntry> = Vec::new();
        self.transactions.get(&ids, &mut entries).unwrap();
        let last = entries.pop().unwrap();
        assert_eq!(last, TransactionEntry::default(), "{}", self.name);
        for (entry, (id, expected)) in entries.iter().zip(&model.transactions) {
            assert!(entry.is_settled(), "{}: transaction {id}: {entry:?}", self.name);
            let state = entry.approved.unwrap();
            let kind = if expected.is_deposit { TransactionKind::Deposit } else { TransactionKind::Withdrawal };
            let status = match expected.status {
                Status::Posted => TransactionStatus::Posted,
                Status::Disputed => TransactionStatus::Disputed,
                Status::ChargedBack => TransactionStatus::ChargedBack,
            };
            let said = (state.customer.bits(), state.kind, i128::from(state.amount.steps()), state.currency.0);
            assert_eq!(said, (expected.customer, kind, expected.steps, expected.currency), "{}: {id}", self.name);
            assert_eq!(state.status, status, "{}: transaction {id}", self.name);
        }
    }
}

/// All three, and the model.
struct World {
    config: LedgerConfig,
    limits: Limits,
    options: EmbeddedOptions,
    model: Model,
    memory: Arc<MemoryStore>,
    split: Arc<MemoryStore>,
    disk: Arc<MemoryDisk>,
    embedded: Arc<EmbeddedStore>,
    sides: Vec<Side>,
    now_ms: u64,
}

impl World {
    fn new(config: LedgerConfig, limits: Limits, options: EmbeddedOptions) -> Self {
        let disk = Arc::new(MemoryDisk::new());
        let (embedded, _) = EmbeddedStore::create_on(disk.clone(), &config, options).unwrap();
        let mut world = Self {
            model: Model::new(config.policy, CURRENCY_COUNT),
            memory: Arc::new(MemoryStore::new(&config)),
            split: Arc::new(MemoryStore::new(&config).with_split_batches()),
            disk,
            embedded: Arc::new(embedded),
            sides: Vec::new(),
            now_ms: 1_000,
            config,
            limits,
            options,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let Self { config, limits, .. } = self;
        self.sides = vec![
            Side::new("memory", config, *limits, self.memory.clone()),
            Side::new("split", config, *limits, self.split.clone()),
            Side::new("embedded", config, *limits, self.embedded.clone()),
        ];
    }

    fn decide(&mut self, requests: &[Request]) {
        self.now_ms += 3;
        let expected: Vec<&str> = requests.iter().map(|request| self.model.apply(request)).collect();
        for side in &mut self.sides {
            let codes = side.decide(self.now_ms, requests);
            assert_eq!(codes, expected, "{}: {requests:?}", side.name);
        }
    }

    /// New drivers on all stores, and the embedded one opened again.
    fn reopen(&mut self, cleanly: bool) {
        self.sides.clear();
        if cleanly {
            self.embedded.close().unwrap();
        }
        // The old one goes on living as long as it is not replaced, and writes nothing more.
        let (embedded, report) = EmbeddedStore::open_on(self.disk.clone(), self.options).unwrap();
        assert_eq!((&report.cut_off, report.index_rebuilt), (&None, None));
        assert!(!cleanly || report.events_read == 0, "{report:?}");
        self.embedded = Arc::new(embedded);
        self.start();
        for side in &self.sides {
            side.check(&self.model);
        }
    }

    fn verify(&self) {
        let report = verify_on(self.disk.clone(), &VerifyOptions::default(), &mut |_| ()).unwrap();
        assert!(report.is_sound() && report.notes.is_empty(), "{:?} {:?}", report.findings, report.notes);
        assert_eq!(report.totals, self.embedded.totals().unwrap());
    }
}
