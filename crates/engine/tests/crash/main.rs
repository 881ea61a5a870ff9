//! Crashes at every call to the disk, with everything lost that was not synced: what was acknowledged is there,
//! what was not is there whole or not at all, and the engine goes on.
//!
//! Deterministic by seed. `BURSAR_CRASH_SEEDS=100000 cargo test --release --test crash` runs more seeds;
//! `BURSAR_CRASH_FIRST=N` begins with another one.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod disk;

use bursar_engine::core::commit::{Batch, Limits, Outcome, Receipt, Routes, Step, Submission, Ticket};
use bursar_engine::core::{
    Amount, ChainCheck, Currencies, CustomerId, EventStatus, LedgerConfig, Policy, Request, TransactionId,
    TransactionState,
};
use bursar_engine::driver::{Driver, EngineError, SourceRow};
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore};
use bursar_engine::store::{Chains, ReadRange, SourceId, SourceMark};
use disk::{CrashDisk, Random};
use std::collections::BTreeMap;
use std::sync::Arc;

const CUSTOMERS: u64 = 6;
const SOURCE: SourceId = SourceId([7; 32]);

fn config() -> LedgerConfig {
    LedgerConfig { ledger: [1; 16], policy: Policy::default(), currencies: Currencies::default() }
}

fn options(random: &mut Random) -> EmbeddedOptions {
    EmbeddedOptions {
        segment_bytes: 600 + random.below(4000),
        memtable_entries_max: 3 + random.below(40) as usize,
        background: false,
    }
}

fn request(random: &mut Random) -> Request {
    let customer = CustomerId::new(u128::from(1 + random.below(CUSTOMERS)));
    let transaction = TransactionId::new(u128::from(random.below(60)));
    let amount = Amount::from_steps(1 + random.below(3).cast_signed());
    match random.below(10) {
        0..=4 => Request::deposit(customer, transaction, amount),
        5 => Request::withdrawal(customer, transaction, amount),
        6 | 7 => Request::dispute(customer, transaction),
        8 => Request::resolve(customer, transaction),
        _ if random.below(4) == 0 => Request::chargeback(customer, transaction),
        _ => Request::unlock(customer),
    }
}

/// Rows in which the order matters and nothing carries an id of its own: dispute, resolve, dispute again.
fn rows(seed: u64) -> Vec<SourceRow> {
    let mut random = Random(seed ^ 0x5eed);
    (1..=40)
        .map(|line| {
            let customer = CustomerId::new(100 + u128::from(random.below(2)));
            let transaction = TransactionId::new(1000 + u128::from(random.below(4)));
            let request = match random.below(7) {
                0 | 1 => Request::deposit(customer, transaction, Amount::from_steps(5)),
                2..=4 => Request::dispute(customer, transaction),
                _ => Request::resolve(customer, transaction),
            };
            let request = (random.below(10) > 0).then_some(request);
            SourceRow { request, line, end_offset: line * 10, end_line_count: line }
        })
        .collect()
}

/// What the world outside knows.
#[derive(Default)]
struct Acknowledged {
    receipts: Vec<Receipt>,
    mark: Option<SourceMark>,
}

struct World {
    store: Arc<EmbeddedStore>,
    driver: Driver,
    batch: Batch,
    now_ms: u64,
}

impl World {
    fn open(disk: &CrashDisk, options: EmbeddedOptions, is_new: bool) -> Result<Self, EngineError> {
        let medium: Arc<CrashDisk> = Arc::new(disk.clone());
        let opened = if is_new {
            EmbeddedStore::create_on(medium, &config(), options)
        } else {
            EmbeddedStore::open_on(medium, options)
        };
        let store = Arc::new(opened?.0);
        let limits = Limits { batch_requests_max: 8, ..Limits::default() };
        let driver = Driver::new(config(), Routes::default(), limits, store.clone(), store.clone(), 1)?;
        Ok(Self { store, driver, batch: Batch::new(1), now_ms: 1_000_000 })
    }

    /// Several batches, then one sync: only what is synced is acknowledged.
    fn work(&mut self, random: &mut Random, seed: u64, known: &mut Acknowledged) -> Result<(), EngineError> {
        let mut answers = Vec::new();
        let mut mark = None;
        for _ in 0..=random.below(3) {
            self.now_ms += random.below(5);
            if random.below(3) == 0 {
                let mut position = self.store.source(SOURCE)?.unwrap_or_else(|| SourceMark::new(SOURCE));
                let all = rows(seed);
                let left = &all[position.line_count as usize..];
                let count = left.len().min(1 + random.below(8) as usize);
                self.driver.run_rows(
                    self.now_ms,
                    &mut self.batch,
                    &left[..count],
                    count == left.len(),
                    &mut position,
                )?;
                mark = Some(position);
            } else {
                for ticket in 0..=random.below(8) {
                    self.driver.submit(Submission { ticket: Ticket(ticket), request: request(random) });
                }
                self.driver.run_batch(self.now_ms, &mut self.batch)?;
            }
            answers.append(&mut self.batch.take_answers());
        }
        self.store.sync()?;
        if self.batch.step() == Step::Sync {
            self.batch.synced();
        }
        for answer in answers {
            if let Ok(Outcome::Applied(receipt)) = answer.result {
                known.receipts.push(receipt);
            }
        }
        known.mark = mark.or(known.mark.take());
        Ok(())
    }

    /// Everything acknowledged is there, and everything there is right.
    fn check(&self, known: &Acknowledged, story: &str) {
        let config = config();
        let mut listed = Vec::new();
        self.store.list(None, usize::MAX, &mut listed).unwrap();
        let mut transactions: BTreeMap<TransactionId, TransactionState> = BTreeMap::new();
        let mut hashes = BTreeMap::new();
        for customer in &listed {
            let mut entries = Vec::new();
            self.store.read(customer.customer, ReadRange::ALL, &mut entries).unwrap();
            let mut check = ChainCheck::new(&config.digest(), customer.customer);
            for entry in &entries {
                assert_eq!(entry.status, EventStatus::Done, "{story}");
                let transaction = entry.linked.event.transaction;
                let before = transaction.and_then(|id| transactions.get(&id).copied());
                let after = check.follow(&config, before, &entry.linked, &entry.status);
                let after = after.unwrap_or_else(|fault| panic!("{story}: {fault} in {:?}", entry.linked.event));
                if let Some((id, state)) = transaction.zip(after) {
                    transactions.insert(id, state);
                }
                hashes.insert((customer.customer, entry.linked.event.seq), entry.linked.hash);
            }
            assert_eq!(*check.head(), customer.head, "{story}");
        }
        for receipt in &known.receipts {
            let found = hashes.get(&(receipt.event.customer, receipt.event.seq));
            assert_eq!(found, Some(&receipt.hash), "{story}: an acknowledged event is gone");
        }
        let ids: Vec<TransactionId> = (0..2000).map(TransactionId::new).collect();
        let mut entries = Vec::new();
        bursar_engine::store::Transactions::get(&*self.store, &ids, &mut entries).unwrap();
        for (id, entry) in ids.iter().zip(entries) {
            assert_eq!(entry.approved, transactions.get(id).copied(), "{story}: transaction {id}");
        }
        let totals = self.store.totals().unwrap();
        assert!(totals.currencies().iter().all(bursar_engine::CurrencyTotals::is_balanced), "{story}");
        let total: i128 = listed
            .iter()
            .flat_map(|customer| customer.head.state.accounts.iter())
            .map(|(_, account)| i128::from(account.total().unwrap().steps()))
            .sum();
        assert_eq!(totals.currency(bursar_engine::core::CurrencyIndex(0)).total.steps(), total, "{story}");
        assert_eq!(totals.event_count, hashes.len() as u64, "{story}");
        let mark = self.store.source(SOURCE).unwrap();
        let offset = |mark: &Option<SourceMark>| mark.as_ref().map_or(0, |mark| mark.offset);
        assert!(offset(&mark) >= offset(&known.mark), "{story}: the source's position went back");
    }
}

/// What the rows alone lead to, without any crash.
fn rows_without_a_crash(seed: u64) -> (Vec<String>, SourceMark) {
    let disk = CrashDisk::default();
    let mut world =
        World::open(&disk, EmbeddedOptions { background: false, ..EmbeddedOptions::default() }, true).unwrap();
    finish_rows(&mut world, seed).unwrap();
    source_chains(&world)
}

fn finish_rows(world: &mut World, seed: u64) -> Result<(), EngineError> {
    loop {
        let mut mark = world.store.source(SOURCE)?.unwrap_or_else(|| SourceMark::new(SOURCE));
        if mark.finished {
            return Ok(());
        }
        let all = rows(seed);
        let left = &all[mark.line_count as usize..];
        let count = left.len().min(7);
        world.driver.run_rows(world.now_ms, &mut world.batch, &left[..count], count == left.len(), &mut mark)?;
        world.store.sync()?;
    }
}

/// The events that the rows caused, by kind, transaction and resulting account; times and hashes differ.
fn source_chains(world: &World) -> (Vec<String>, SourceMark) {
    let mut events = Vec::new();
    for customer in [100, 101] {
        let mut entries = Vec::new();
        world.store.read(CustomerId::new(customer), ReadRange::ALL, &mut entries).unwrap();
        for entry in entries {
            let event = entry.linked.event;
            events.push(format!("{customer} {} {:?} {:?}", event.kind.name(), event.transaction, event.account()));
        }
    }
    (events, world.store.source(SOURCE).unwrap().unwrap())
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let mut known = Acknowledged::default();
    let mut disk = CrashDisk::default();
    let mut is_new = true;
    let crash_count = 1 + random.below(4);
    for crash in 0..=crash_count {
        let story = format!("seed {seed}, crash {crash}");
        // The last round runs to its end.
        if crash < crash_count {
            let soon = random.below(2) == 0;
            disk.die_after(1 + random.below(if soon { 40 } else { 400 }));
        }
        let opened = World::open(&disk, options(&mut random), is_new);
        match opened {
            Ok(mut world) => {
                is_new = false;
                if !disk.is_dead() && crash > 0 {
                    check_copy(&known, &story, &disk);
                }
                for _ in 0..20 {
                    if world.work(&mut random, seed, &mut known).is_err() {
                        assert!(disk.is_dead(), "{story}: the store failed although the disk did not");
                        break;
                    }
                }
                if crash == crash_count {
                    finish_rows(&mut world, seed).unwrap();
                    world.check(&known, &story);
                    assert_eq!(source_chains(&world), rows_without_a_crash(seed), "{story}");
                    world.store.close().unwrap();
                }
            }
            Err(error) => assert!(disk.is_dead(), "{story}: could not open: {error}"),
        }
        disk = disk.after_crash(&mut random);
        // A ledger whose creation never finished is created again.
        is_new = is_new && known.receipts.is_empty();
        if is_new {
            disk = if World::open(&disk.after_crash(&mut Random(0)), options(&mut random), false).is_ok() {
                is_new = false;
                disk
            } else {
                CrashDisk::default()
            };
        }
    }
}

/// Checks on a copy, so that reading does not use up the calls that are left until the crash.
fn check_copy(known: &Acknowledged, story: &str, disk: &CrashDisk) {
    let copy = disk.after_crash(&mut Random(1));
    let world = World::open(&copy, EmbeddedOptions { background: false, ..EmbeddedOptions::default() }, false);
    world.unwrap_or_else(|error| panic!("{story}: a copy cannot be opened: {error}")).check(known, story);
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_acknowledged_is_ever_lost() {
    let first = setting("BURSAR_CRASH_FIRST", 0);
    for seed in first..first + setting("BURSAR_CRASH_SEEDS", 300) {
        run(seed);
    }
}
