//! Small ledgers on a disk in memory, built step by step and always the same.

use bursar_engine::core::commit::{Batch, Limits, Outcome, RailAnswer, Routes, Step, Submission, Ticket};
use bursar_engine::core::{
    AbortReason, Action, Amount, Currencies, Currency, CurrencyIndex, CustomerId, Decimals, DisputablePolicy, EntryId,
    EventId, LedgerConfig, Movement, Policy, RailId, ReasonText, Request, TransactionEntry, TransactionId,
};
use bursar_engine::driver::{Driver, SourceRow};
use bursar_engine::embedded::memory_disk::MemoryDisk;
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore};
use bursar_engine::store::{
    ChainEntry, Chains, CustomerHead, ReadRange, SourceId, SourceMark, StoreError, Transactions,
};
use bursar_engine::{Totals, core::EventRef};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Small enough that a few dozen events make several segments and index files.
pub(crate) const OPTIONS: EmbeddedOptions =
    EmbeddedOptions { segment_bytes: 900, memtable_entries_max: 8, heads_max: 2, background: false };

pub(crate) const RAIL: RailId = RailId::new(1).unwrap();

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn two_currencies() -> Currencies {
    let currency = |code, decimals| Currency::new(code, Decimals::new(decimals).unwrap()).unwrap();
    Currencies::named(vec![currency("EUR", 2), currency("GOLD", 9)]).unwrap()
}

pub(crate) fn config(ledger: u8) -> LedgerConfig {
    let policy = Policy { disputable: DisputablePolicy::DepositsAndWithdrawals, ..Policy::default() };
    LedgerConfig { ledger: [ledger; 16], policy, currencies: two_currencies() }
}

pub(crate) fn deposit(of: u128, transaction: u128, steps: i64, currency: u8) -> Request {
    Request { customer: CustomerId::new(of), action: Action::Deposit(movement(transaction, steps, currency)) }
}

/// Goes through the rail.
pub(crate) fn withdrawal(of: u128, transaction: u128, steps: i64) -> Request {
    Request { customer: CustomerId::new(of), action: Action::Withdrawal(movement(transaction, steps, 0)) }
}

fn movement(transaction: u128, steps: i64, currency: u8) -> Movement {
    let transaction = TransactionId::new(transaction);
    Movement { transaction, amount: Amount::from_steps(steps), currency: CurrencyIndex(currency) }
}

pub(crate) fn refused() -> RailAnswer {
    RailAnswer::Refused(AbortReason::RailRefused(ReasonText::new("no such account: ünknown")))
}

/// A store and a driver, taken step by step; withdrawals go through a rail.
pub(crate) struct Bench {
    pub(crate) disk: Arc<MemoryDisk>,
    pub(crate) store: Arc<EmbeddedStore>,
    driver: Driver,
    batch: Batch,
    now_ms: u64,
}

impl Bench {
    pub(crate) fn create(ledger: u8) -> Self {
        let disk = Arc::new(MemoryDisk::new());
        let (store, _) = EmbeddedStore::create_on(disk.clone(), &config(ledger), OPTIONS).unwrap();
        Self::start(disk, store, 1_800_000_000_000)
    }

    fn start(disk: Arc<MemoryDisk>, store: EmbeddedStore, now_ms: u64) -> Self {
        let store = Arc::new(store);
        let routes = Routes { deposit: None, withdrawal: Some(RAIL) };
        let config = store.config().clone();
        let driver = Driver::new(config, routes, Limits::default(), store.clone(), store.clone(), 1).unwrap();
        Self { disk, store, driver, batch: Batch::new(1), now_ms }
    }

    /// Opens the directory again, after a clean stop or without one.
    pub(crate) fn reopened(self, cleanly: bool) -> Self {
        let Self { disk, store, driver, now_ms, .. } = self;
        drop(driver);
        if cleanly {
            store.close().unwrap();
        }
        drop(store);
        let (store, _) = EmbeddedStore::open_on(disk.clone(), OPTIONS).unwrap();
        let mut bench = Self::start(disk, store, now_ms);
        bench.run(&[]);
        bench
    }

    /// Decides requests as one frame, without making it durable; gives the events that the rail is called for.
    pub(crate) fn run(&mut self, requests: &[Request]) -> Vec<EventId> {
        for (ticket, &request) in (0..).zip(requests) {
            self.driver.submit(Submission::new(Ticket(ticket), request));
        }
        self.now_ms += 7;
        self.driver.run_batch(self.now_ms, &mut self.batch).unwrap();
        if self.batch.step() == Step::Sync {
            self.batch.synced();
        }
        for answer in self.batch.take_answers() {
            assert!(matches!(answer.result, Ok(Outcome::Applied(_) | Outcome::Rejected(_))), "{answer:?}");
        }
        self.batch.calls().iter().map(|call| call.event.id()).collect()
    }

    /// As [`Bench::run`], and makes it durable.
    pub(crate) fn commit(&mut self, requests: &[Request]) -> Vec<EventId> {
        let events = self.run(requests);
        self.store.sync().unwrap();
        events
    }

    /// The rail answers, and what follows is committed.
    pub(crate) fn answer(&mut self, event: EventId, answer: RailAnswer) {
        self.driver.rail_answered(self.now_ms, event, answer);
        self.commit(&[]);
    }

    /// Takes in a source with one row for each request.
    pub(crate) fn ingest(&mut self, source: u8, requests: &[Request]) {
        let row = |(index, request): (u64, &Request)| SourceRow {
            request: Some(*request),
            line: index + 2,
            end_offset: (index + 1) * 20,
            end_line_count: index + 2,
        };
        let rows: Vec<SourceRow> = (0..).zip(requests).map(row).collect();
        let mut mark = SourceMark::new(SourceId([source; 32]));
        self.now_ms += 7;
        let taken = self.driver.run_rows(self.now_ms, &mut self.batch, &rows, true, &mut mark).unwrap();
        assert_eq!(taken, rows.len());
        self.store.sync().unwrap();
    }
}

/// All that a ledger says of itself.
#[derive(Debug, PartialEq)]
pub(crate) struct Everything {
    pub(crate) heads: Vec<CustomerHead>,
    pub(crate) chains: Vec<Vec<ChainEntry>>,
    pub(crate) transactions: Vec<TransactionEntry>,
    pub(crate) events_of: Vec<Vec<EventRef>>,
    pub(crate) open: Vec<CustomerId>,
    pub(crate) sources: Vec<SourceMark>,
    pub(crate) rejected_lines: Vec<Vec<(u64, u8)>>,
    pub(crate) totals: Totals,
    pub(crate) last_time_ms: u64,
}

/// Reads all of it; the transactions asked for are those of the events, and some that are unknown.
pub(crate) fn read_everything(store: &EmbeddedStore) -> Result<Everything, StoreError> {
    let mut heads = Vec::new();
    store.list(None, usize::MAX, &mut heads)?;
    let mut chains = Vec::new();
    let mut ids = vec![TransactionId::new(1), TransactionId::new(u128::MAX)];
    for listed in &heads {
        let mut entries = Vec::new();
        store.read(listed.customer, ReadRange::ALL, &mut entries)?;
        ids.extend(entries.iter().filter_map(|entry| entry.linked.event.transaction));
        chains.push(entries);
    }
    ids.sort_unstable();
    ids.dedup();
    let mut transactions = Vec::new();
    let entries: Vec<EntryId> = ids.iter().copied().map(EntryId::from).collect();
    store.get(&entries, &mut transactions)?;
    let events_of = ids.iter().map(|&id| store.events_of(id)).collect::<Result<_, _>>()?;
    let (open, sources) = (store.open_customers()?, store.sources()?);
    let rejected_lines = sources.iter().map(|mark| store.rejected_lines(mark.source)).collect::<Result<_, _>>()?;
    let (totals, last_time_ms) = (store.totals()?, store.last_time_ms()?);
    Ok(Everything { heads, chains, transactions, events_of, open, sources, rejected_lines, totals, last_time_ms })
}
