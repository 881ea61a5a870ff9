//! Builds small ledgers on a disk in memory, step by step and always the same, for tests that damage them.

// A helper of tests: each uses a part of it, and a step that fails fails the test.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use bursar_engine::Totals;
use bursar_engine::core::commit::{Batch, Limits, Outcome, RailAnswer, Routes, Step, Submission, Terms, Ticket};
use bursar_engine::core::{
    Action, Amount, Currencies, Currency, CurrencyIndex, CustomerId, Decimals, DisputablePolicy, EntryId, EventId,
    LedgerConfig, Movement, Policy, RailId, Request, RequestKey, TransactionEntry, TransactionId,
};
use bursar_engine::driver::{Driver, SourceRow};
use bursar_engine::embedded::memory_disk::MemoryDisk;
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore, OpenReport};
use bursar_engine::store::{
    ChainEntry, Chains, CustomerHead, ReadRange, RowCounts, SourceId, SourceMark, StoreError, Transactions,
};
use std::sync::Arc;

/// Small enough that everything happens within a few hundred events.
pub(crate) const OPTIONS: EmbeddedOptions =
    EmbeddedOptions { segment_bytes: 6000, memtable_entries_max: 40, heads_max: 10, background: false };

pub(crate) const LEDGER: [u8; 16] = [0x5a; 16];

/// Two currencies, and everything can be disputed.
pub(crate) fn config(ledger: [u8; 16]) -> LedgerConfig {
    let currency = |code, decimals| Currency::new(code, Decimals::new(decimals).unwrap()).unwrap();
    let policy = Policy { disputable: DisputablePolicy::DepositsAndWithdrawals, ..Policy::default() };
    LedgerConfig {
        ledger,
        policy,
        currencies: Currencies::named(vec![currency("EUR", 2), currency("GOLD", 9)]).unwrap(),
    }
}

pub(crate) fn customer(number: u128) -> CustomerId {
    CustomerId::new(number)
}

pub(crate) fn transaction(number: u128) -> TransactionId {
    TransactionId::new(number)
}

pub(crate) fn movement(deposit: bool, of: u128, transaction: u128, steps: i64, currency: u8) -> Request {
    let currency = CurrencyIndex(currency);
    let movement =
        Movement { transaction: TransactionId::new(transaction), amount: Amount::from_steps(steps), currency };
    let action = if deposit { Action::Deposit(movement) } else { Action::Withdrawal(movement) };
    Request { customer: CustomerId::new(of), action }
}

pub(crate) fn deposit(of: u128, transaction: u128, steps: i64) -> Request {
    movement(true, of, transaction, steps, 0)
}

/// A store and a driver, taken step by step; withdrawals go through rail 1 where that is said.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) disk: Arc<MemoryDisk>,
    pub(crate) store: Arc<EmbeddedStore>,
    pub(crate) report: OpenReport,
    driver: Driver,
    batch: Batch,
    pub(crate) now_ms: u64,
}

impl Bench {
    pub(crate) fn create(ledger: [u8; 16], options: EmbeddedOptions) -> Self {
        let disk = Arc::new(MemoryDisk::new());
        let opened = EmbeddedStore::create_on(disk.clone(), &config(ledger), options).unwrap();
        Self::start(disk, opened)
    }

    pub(crate) fn open(disk: Arc<MemoryDisk>, options: EmbeddedOptions) -> Result<Self, StoreError> {
        let opened = EmbeddedStore::open_on(disk.clone(), options)?;
        Ok(Self::start(disk, opened))
    }

    fn start(disk: Arc<MemoryDisk>, (store, report): (EmbeddedStore, OpenReport)) -> Self {
        let store = Arc::new(store);
        let routes = Routes { deposit: None, withdrawal: RailId::new(1) };
        let config = store.config().clone();
        let driver = Driver::new(config, routes, Limits::default(), store.clone(), store.clone(), 1).unwrap();
        let now_ms = 1_800_000_000_000 + store.last_time_ms().unwrap() % 1_000_000;
        Self { disk, store, report, driver, batch: Batch::new(1), now_ms }
    }

    /// Decides requests as one frame, without making it durable; gives the events that their rail is called for.
    pub(crate) fn run(&mut self, requests: &[Request]) -> Vec<EventId> {
        for (ticket, &request) in requests.iter().enumerate() {
            self.driver.submit(Submission::new(Ticket(ticket as u64), request));
        }
        self.now_ms += 7;
        self.driver.run_batch(self.now_ms, &mut self.batch).unwrap();
        if self.batch.step() == Step::Sync {
            self.batch.synced();
        }
        let answers = self.batch.take_answers();
        for answer in &answers {
            assert!(matches!(answer.result, Ok(Outcome::Applied(_) | Outcome::Rejected(_))), "{answer:?}");
        }
        self.batch.calls().iter().map(|call| call.event.id()).collect()
    }

    /// Commits one request that comes with a key.
    pub(crate) fn commit_keyed(&mut self, request: Request, key: u128) {
        let terms = Terms { key: RequestKey::from_bits(key), ..Terms::default() };
        let submission = Submission { terms: Some(Box::new(terms)), ..Submission::new(Ticket(0), request) };
        self.driver.submit(submission);
        self.commit(&[]);
    }

    /// As [`Bench::run`], and makes it durable.
    pub(crate) fn commit(&mut self, requests: &[Request]) -> Vec<EventId> {
        let events = self.run(requests);
        self.store.sync().unwrap();
        events
    }

    /// Lets a rail answer, and commits what follows.
    pub(crate) fn answer(&mut self, event: EventId, answer: RailAnswer) {
        self.driver.rail_answered(self.now_ms, event, answer);
        self.commit(&[]);
    }

    /// Takes in a source with one row for each request.
    pub(crate) fn ingest(&mut self, source: [u8; 32], requests: &[Request]) {
        let row = |(index, &request): (usize, &Request)| SourceRow {
            request: Some(request),
            line: index as u64 + 2,
            end_offset: (index as u64 + 1) * 20,
            end_line_count: index as u64 + 2,
        };
        let rows: Vec<SourceRow> = requests.iter().enumerate().map(row).collect();
        let mut mark = SourceMark {
            source: SourceId(source),
            offset: 0,
            line_count: 0,
            finished: false,
            counts: RowCounts::default(),
            rejected_lines: Vec::new(),
        };
        self.now_ms += 7;
        let taken = self.driver.run_rows(self.now_ms, &mut self.batch, &rows, true, &mut mark).unwrap();
        assert_eq!(taken, rows.len());
        self.store.sync().unwrap();
    }
}

/// The ledger that most tests damage: 12 customers in two currencies with a few hundred events in several frames
/// and segments, index files, everything disputed once, an aborted event, an open event, a source's mark, and
/// frames behind the checkpoint.
pub(crate) fn small_ledger(events: u128, options: EmbeddedOptions) -> Arc<MemoryDisk> {
    let mut bench = Bench::create(LEDGER, options);
    let mut number = 0;
    bench.ingest([7; 32], &[deposit(1, 9001, 5000), deposit(2, 9002, 5000), deposit(2, 9001, 1)]);
    let refused = bench.commit(&[movement(false, 1, 9003, 700, 0)]);
    bench.answer(
        refused[0],
        RailAnswer::Refused(bursar_engine::core::AbortReason::from_code(1, "no such account").unwrap()),
    );
    let agreed = bench.commit(&[movement(false, 2, 9004, 800, 0)]);
    while number < events {
        let requests: Vec<Request> = (0..8).map(|_| next_request(&mut number)).collect();
        bench.commit(&requests);
        if number * 2 / events == 1 {
            bench.answer(agreed[0], RailAnswer::Done);
        }
    }
    bench.commit(&[Request::dispute(customer(2), transaction(9004))]);
    bench.commit(&[movement(false, 1, 9005, 600, 0)]);
    bench.store.close().unwrap();
    drop(bench.driver);
    drop(bench.store);
    let mut bench = Bench::open(bench.disk, options).unwrap();
    bench.commit(&[deposit(3, 9100, 1), deposit(1 << 100, 9101, 77)]);
    bench.commit(&[
        deposit(5, 9102, 1),
        Request::dispute(customer(5), transaction(9102)),
        Request::unlock(customer(4)),
    ]);
    bench.disk
}

/// The small ledger, and behind it events with keys: of customers 20 to 39, whose key is their number, before the
/// checkpoint for the first half of them and behind it for the others. Those of the first quarter have an unlock as well,
/// with their number and 100.
pub(crate) fn keyed_ledger(options: EmbeddedOptions) -> Arc<MemoryDisk> {
    let disk = small_ledger(200, options);
    for numbers in [20..30, 30..40] {
        let mut bench = Bench::open(disk.clone(), options).unwrap();
        for number in numbers.clone() {
            bench.commit(&[deposit(number, 9_200 + number, 10)]);
            bench.commit_keyed(Request::dispute(customer(number), transaction(9_200 + number)), number);
            if number < 25 {
                bench.commit(&[Request::chargeback(customer(number), transaction(9_200 + number))]);
                bench.commit_keyed(Request::unlock(customer(number)), 100 + number);
            }
        }
        if numbers.start == 20 {
            bench.store.close().unwrap();
        }
    }
    disk
}

/// Deposits in turn, with a dispute, a resolve or a chargeback of an earlier one now and then.
fn next_request(number: &mut u128) -> Request {
    *number += 1;
    let of = |number: u128| if number % 12 == 11 { 1 << 100 } else { number % 12 + 3 };
    match *number % 16 {
        5 => Request::dispute(customer(of(*number - 4)), transaction(100 + *number - 4)),
        9 => Request::resolve(customer(of(*number - 8)), transaction(100 + *number - 8)),
        13 if *number > 30 => Request::dispute(customer(of(*number - 12)), transaction(100 + *number - 12)),
        15 if *number > 40 && *number < 70 => {
            Request::chargeback(customer(of(*number - 14)), transaction(100 + *number - 14))
        }
        rest => movement(true, of(*number), 100 + *number, 1000 + *number as i64 * 3, u8::from(rest % 4 == 2)),
    }
}

/// All that a ledger says of itself.
#[derive(Debug, PartialEq)]
pub(crate) struct Everything {
    pub(crate) heads: Vec<CustomerHead>,
    pub(crate) chains: Vec<Vec<ChainEntry>>,
    pub(crate) transactions: Vec<TransactionEntry>,
    pub(crate) events_of: Vec<Vec<bursar_engine::core::EventRef>>,
    pub(crate) open: Vec<CustomerId>,
    pub(crate) sources: Vec<SourceMark>,
    pub(crate) totals: Totals,
    pub(crate) last_time_ms: u64,
}

/// Reads all of it; the transactions asked for are those of the events, and some that are unknown.
pub(crate) fn read_everything(store: &EmbeddedStore) -> Result<Everything, StoreError> {
    let mut heads = Vec::new();
    store.list(None, usize::MAX, &mut heads)?;
    let mut chains = Vec::new();
    let (mut ids, mut keys) = (vec![transaction(1), transaction(u128::MAX)], Vec::new());
    for listed in &heads {
        let mut entries = Vec::new();
        store.read(listed.customer, ReadRange::ALL, &mut entries)?;
        ids.extend(entries.iter().filter_map(|entry| entry.linked.event.transaction));
        keys.extend(entries.iter().filter_map(|entry| entry.linked.event.key));
        chains.push(entries);
    }
    keys.sort_unstable();
    keys.dedup();
    ids.sort_unstable();
    ids.dedup();
    let mut transactions = Vec::new();
    let all: Vec<EntryId> = ids.iter().copied().map(EntryId::from).chain(keys.into_iter().map(EntryId::from)).collect();
    store.get(&all, &mut transactions)?;
    let mut events_of = Vec::new();
    for &id in &ids {
        events_of.push(store.events_of(id)?);
    }
    let (open, sources) = (store.open_customers()?, store.sources()?);
    let (totals, last_time_ms) = (store.totals()?, store.last_time_ms()?);
    Ok(Everything { heads, chains, transactions, events_of, open, sources, totals, last_time_ms })
}
