//! Two engines with caches of their own write to one pair of stores, while somebody kills, pauses and empties the server
//! and puts lies, old entries and other customers' entries into it. What callers were told, and what is in the stores
//! afterwards, is the same as without a cache; and what people were shown was true, and not too long ago.
//!
//! `BURSAR_CACHE_FAULTS=500` makes a run longer.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
#[path = "../../postgres/tests/common/mod.rs"]
mod postgres;

use bursar_cache::{CacheFigures, CacheSettings, Cached, wrap};
use bursar_engine::core::commit::{Outcome, Receipt};
use bursar_engine::core::{
    Amount, ChainCheck, Currencies, CustomerId, CustomerState, EventStatus, LedgerConfig, Policy, Request,
    TransactionId, TransactionState,
};
use bursar_engine::store::{Chains, MemoryStore, ReadRange, Transactions};
use bursar_engine::{Ledger, LedgerOptions, new_config};
use bursar_postgres::PostgresStore;
use common::RedisServer;
use postgres::PostgresServer;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const WORKERS: u64 = 4;
const CUSTOMERS_EACH: u64 = 3;
/// Transactions that were made before the others began, by customers who do nothing else.
const TAKEN: u128 = 20;
const SHOWN_FOR_MS: u64 = 300;
/// The clock of entries counts whole milliseconds.
const CLOCK_MS: u64 = 3;

/// Numbers that look random, from a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Tells everybody to stop when it goes.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Two stores of one ledger.
struct Real {
    chains: Arc<dyn Chains>,
    transactions: Arc<dyn Transactions>,
}

/// An acknowledged state of a customer.
struct Told {
    receipt: Receipt,
    at: Instant,
}

/// What customers were told, by sequence number.
type Book = Mutex<HashMap<CustomerId, BTreeMap<u64, Told>>>;

fn customers_of(worker: u64) -> impl Iterator<Item = CustomerId> {
    (0..CUSTOMERS_EACH).map(move |n| CustomerId::new(u128::from(worker * CUSTOMERS_EACH + n + 1)))
}

fn request(dice: &mut Dice, worker: u64, made: &mut Vec<Request>) -> Request {
    let customer = CustomerId::new(u128::from(worker * CUSTOMERS_EACH + dice.below(CUSTOMERS_EACH) + 1));
    let old = if made.is_empty() { None } else { Some(made[dice.below(made.len() as u64) as usize]) };
    let newest = made.last().copied();
    let transaction_of = |request: Request| (request.customer, request.action.transaction().unwrap());
    match (dice.below(12), old) {
        // Repeats, of the newest and of old ones; another request with the same id.
        (0..=2, Some(old)) => old,
        (3, Some(_)) => newest.unwrap(),
        (4, Some(old)) => Request::deposit(old.customer, transaction_of(old).1, Amount::from_steps(12_345)),
        (5, Some(old)) => Request::dispute(old.customer, transaction_of(old).1),
        (6, Some(old)) => Request::resolve(old.customer, transaction_of(old).1),
        (7, Some(old)) if dice.below(8) == 0 => Request::chargeback(old.customer, transaction_of(old).1),
        (7, _) => Request::unlock(customer),
        (8, _) => {
            Request::deposit(customer, TransactionId::new(u128::from(dice.below(TAKEN as u64))), Amount::from_steps(5))
        }
        _ => {
            let transaction = TransactionId::new(u128::from((worker + 1) * 1_000_000 + made.len() as u64));
            let amount = Amount::from_steps(dice.below(90).cast_signed() + 1);
            let new = match dice.below(3) {
                0 => Request::withdrawal(customer, transaction, amount),
                _ => Request::deposit(customer, transaction, amount),
            };
            made.push(new);
            new
        }
    }
}

/// What a caller was told, but for times and hashes, which differ from run to run.
fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Applied(receipt) => format!("applied: {:?}, locked {}", receipt.account, receipt.locked),
        Outcome::AlreadyApplied(_) => "already applied".to_owned(),
        Outcome::Rejected(rejection) => format!("{rejection:?}"),
    }
}

/// Submits for one worker until told to stop, through either engine; gives every request with what was told.
fn work(engines: &[Ledger; 2], worker: u64, seed: u64, stop: &AtomicBool, book: &Book) -> Vec<(Request, String)> {
    let (mut dice, mut made, mut history) = (Dice(seed + worker), Vec::new(), Vec::new());
    while !stop.load(Ordering::Acquire) {
        let run: Vec<Request> = (0..=dice.below(4)).map(|_| request(&mut dice, worker, &mut made)).collect();
        let outcomes = engines[dice.below(2) as usize].submit_batch(run.clone()).unwrap();
        for (request, outcome) in run.into_iter().zip(outcomes) {
            let outcome = outcome.unwrap();
            if let Outcome::Applied(receipt) = &outcome {
                let told = Told { receipt: receipt.clone(), at: Instant::now() };
                book.lock().unwrap().entry(request.customer).or_default().insert(receipt.event.seq, told);
            }
            history.push((request, told(&outcome)));
        }
    }
    history
}

/// Looks at customers until told to stop: what is shown was acknowledged so, and is not older than promised.
fn look(engine: &Ledger, seed: u64, stop: &AtomicBool, book: &Book) -> u64 {
    let (mut dice, mut looks) = (Dice(seed), 0);
    while !stop.load(Ordering::Acquire) {
        let customer = CustomerId::new(u128::from(dice.below(WORKERS * CUSTOMERS_EACH) + 1));
        let begun = Instant::now();
        let head = engine.customer(customer).unwrap();
        looks += 1;
        let Some(head) = head else { continue };
        let book = book.lock().unwrap();
        let Some(known) = book.get(&customer) else { continue };
        if let Some(Told { receipt, .. }) = known.get(&head.seq) {
            assert_eq!(receipt.hash, head.link, "customer {customer} is shown another history at {}", head.seq);
            assert_eq!(receipt.account, head.state.accounts.get(receipt.currency), "customer {customer}");
        }
        let old_enough = Duration::from_millis(SHOWN_FOR_MS + CLOCK_MS);
        let must_be_shown = known.iter().rev().find(|(_, told)| told.at + old_enough < begun);
        if let Some((seq, _)) = must_be_shown {
            assert!(*seq <= head.seq, "customer {customer} is shown {} and was told {seq} long ago", head.seq);
        }
    }
    looks
}

/// Does to the server and to what is in it what may happen to it.
fn trouble(redis: &mut RedisServer, dice: &mut Dice, saved: &mut Vec<(Vec<u8>, Vec<u8>)>) {
    match dice.below(9) {
        0 => redis.flush(),
        1 => {
            redis.kill();
            std::thread::sleep(Duration::from_millis(dice.below(60)));
            redis.run();
        }
        2 => {
            redis.pause(true);
            std::thread::sleep(Duration::from_millis(80 + dice.below(500)));
            redis.pause(false);
        }
        _ => lie(redis, dice, saved),
    }
}

/// Puts lies into the server: other entries' values, old ones, damaged ones, none of which ever expire.
fn lie(redis: &RedisServer, dice: &mut Dice, saved: &mut Vec<(Vec<u8>, Vec<u8>)>) {
    let mut connection = redis.connection().unwrap();
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("bursar:*").query(&mut connection).unwrap();
    if keys.is_empty() {
        return;
    }
    let values: Vec<Option<Vec<u8>>> = redis::cmd("MGET").arg(&keys).query(&mut connection).unwrap();
    let found: Vec<(Vec<u8>, Vec<u8>)> = keys.into_iter().zip(values).filter_map(|(k, v)| Some((k, v?))).collect();
    let mut pipe = redis::pipe();
    for (key, value) in &found {
        let mut value = value.clone();
        match dice.below(8) {
            _ if value.is_empty() => continue,
            0 => value.clone_from(&found[dice.below(found.len() as u64) as usize].1),
            1 => value.truncate(dice.below(value.len() as u64 + 1) as usize),
            2 => {
                let at = dice.below(value.len() as u64) as usize;
                value[at] ^= 1 << dice.below(8);
            }
            3 => value = (0..dice.below(300)).map(|_| dice.next() as u8).collect(),
            4 => {
                let older = saved.iter().filter(|(saved, _)| saved == key).map(|(_, value)| value);
                let older: Vec<&Vec<u8>> = older.collect();
                if older.is_empty() {
                    continue;
                }
                value.clone_from(older[dice.below(older.len() as u64) as usize]);
            }
            _ => continue,
        }
        pipe.cmd("SET").arg(key).arg(value).ignore();
    }
    if !pipe.is_empty() {
        pipe.exec(&mut connection).unwrap();
    }
    saved.extend(found.into_iter().filter(|_| dice.below(3) == 0));
    if saved.len() > 4_000 {
        saved.drain(..2_000);
    }
}

fn engine(config: &LedgerConfig, real: &Real, settings: &CacheSettings) -> (Ledger, Cached) {
    let cached = wrap(config, real.chains.clone(), real.transactions.clone(), settings).unwrap();
    let options = LedgerOptions { readers: cached.readers.clone(), ..LedgerOptions::default() };
    let ledger = Ledger::with_stores(config.clone(), cached.chains.clone(), cached.transactions.clone(), options);
    (ledger.unwrap(), cached)
}

/// Makes the transactions whose ids the workers will find taken.
fn take_ids(ledger: &Ledger) {
    for id in 0..TAKEN {
        let request = Request::deposit(CustomerId::new(900 + id % 3), TransactionId::new(id), Amount::from_steps(5));
        assert!(matches!(ledger.submit(request).unwrap(), Outcome::Applied(_)));
    }
}

/// Follows every chain, and gives what customers have and how transactions stand by them.
fn by_the_chains(
    config: &LedgerConfig,
    real: &Real,
) -> (BTreeMap<CustomerId, CustomerState>, BTreeMap<TransactionId, TransactionState>) {
    let (mut heads, mut states, mut known) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    real.chains.list(None, usize::MAX, &mut heads).unwrap();
    for found in heads {
        let mut entries = Vec::new();
        real.chains.read(found.customer, ReadRange::ALL, &mut entries).unwrap();
        let mut check = ChainCheck::new(&config.digest(), found.customer);
        for entry in &entries {
            assert_ne!(entry.status, EventStatus::Started, "nothing is left open");
            let transaction = entry.linked.event.transaction;
            let before = transaction.and_then(|transaction| known.get(&transaction).copied());
            let after = check.follow(config, before, &entry.linked, &entry.status).unwrap();
            transaction.zip(after).into_iter().for_each(|(transaction, state)| {
                known.insert(transaction, state);
            });
        }
        assert_eq!(*check.head(), found.head);
        states.insert(found.customer, found.head.state);
    }
    (states, known)
}

fn same_as_without(config: &LedgerConfig, real: &[Real; 2], trouble_count: u64, seed: u64) {
    let mut redis = RedisServer::start();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "a secret of the engines").unwrap();
    let secret_file = Some(secret.path().to_owned());
    let settings =
        CacheSettings { shown_for_ms: SHOWN_FOR_MS, pause_ms: 40, timeout_ms: 40, secret_file, ..redis.settings() };
    let [one, two] = real.each_ref().map(|real| engine(config, real, &settings));
    let (engines, caches) = ([one.0, two.0], [one.1, two.1]);
    take_ids(&engines[0]);
    let (stop, book, looks) = (AtomicBool::new(false), Book::default(), AtomicU64::new(0));
    let histories: Vec<Vec<(Request, String)>> = std::thread::scope(|scope| {
        let (stop, book, engines, looks) = (&stop, &book, &engines, &looks);
        // Whatever goes wrong here, the others come to their end.
        let stopping = Stop(stop);
        let workers: Vec<_> =
            (0..WORKERS).map(|worker| scope.spawn(move || work(engines, worker, seed, stop, book))).collect();
        for (engine, seed) in engines.iter().zip(seed..) {
            scope.spawn(move || looks.fetch_add(look(engine, seed, stop, book), Ordering::Relaxed));
        }
        let (mut dice, mut saved) = (Dice(seed), Vec::new());
        // On a slow machine it may take longer until everything has happened at least once.
        let (begun, patience) = (Instant::now(), Duration::from_mins(2));
        let mut count = 0;
        while count < trouble_count || (!took_part(figures(&caches)) && begun.elapsed() < patience) {
            count += 1;
            trouble(&mut redis, &mut dice, &mut saved);
            std::thread::sleep(Duration::from_millis(dice.below(120)));
        }
        drop(stopping);
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let request_count: usize = histories.iter().map(Vec::len).sum();

    let store = Arc::new(MemoryStore::new(config).with_split_batches());
    let without = Real { chains: store.clone(), transactions: store };
    let (chains, transactions) = (without.chains.clone(), without.transactions.clone());
    let reference = Ledger::with_stores(config.clone(), chains, transactions, LedgerOptions::default()).unwrap();
    take_ids(&reference);
    for (request, told_with_cache) in histories.iter().flatten() {
        let outcome = reference.submit(*request).unwrap();
        assert_eq!(&told(&outcome), told_with_cache, "seed {seed}: {request:?}");
    }
    assert_eq!(by_the_chains(config, &real[0]), by_the_chains(config, &without), "seed {seed}");
    let (_, states) = by_the_chains(config, &without);

    // What is shown is the same once nothing changes any more, whatever lies in the cache.
    std::thread::sleep(Duration::from_millis(SHOWN_FOR_MS + CLOCK_MS));
    lie(&redis, &mut Dice(seed), &mut Vec::new());
    for customer in (0..WORKERS).flat_map(customers_of) {
        let expected = reference.customer(customer).unwrap().map(|head| head.state);
        for _ in 0..2 {
            assert_eq!(engines[0].customer(customer).unwrap().map(|head| head.state), expected);
            assert_eq!(engines[1].customer(customer).unwrap().map(|head| head.state), expected);
        }
    }
    for (transaction, state) in states {
        for engine in &engines {
            assert_eq!(engine.transaction(transaction).unwrap().unwrap().state, Some(state), "{transaction}");
        }
    }
    let figures = figures(&caches);
    println!("seed {seed}: {request_count} requests, {} looks, {figures:?}", looks.into_inner());
    assert!(took_part(figures), "{figures:?}");
}

/// What the caches have counted together.
fn figures(caches: &[Cached; 2]) -> CacheFigures {
    let figures = caches.each_ref().map(|cached| cached.cache.as_ref().unwrap().figures());
    let sum = |of: fn(&CacheFigures) -> u64| figures.iter().map(of).sum::<u64>();
    CacheFigures {
        hits: sum(|figures| figures.hits),
        disbelieved: sum(|figures| figures.disbelieved),
        failures: sum(|figures| figures.failures),
        repeats: sum(|figures| figures.repeats),
        ..CacheFigures::default()
    }
}

fn trouble_count() -> u64 {
    std::env::var("BURSAR_CACHE_FAULTS").map_or(30, |text| text.parse().unwrap())
}

/// The cache took part, and so did its troubles.
const fn took_part(figures: CacheFigures) -> bool {
    let CacheFigures { hits, disbelieved, failures, repeats, .. } = figures;
    hits > 0 && disbelieved > 0 && failures > 0 && repeats > 0
}

#[test]
fn two_engines_in_memory_are_the_same_as_without_a_cache() {
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let store = Arc::new(MemoryStore::new(&config).with_split_batches());
    let real = || Real { chains: store.clone(), transactions: store.clone() };
    same_as_without(&config, &[real(), real()], trouble_count(), 1);
}

#[test]
fn two_engines_on_postgresql_are_the_same_as_without_a_cache() {
    let server = PostgresServer::start();
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let schema = server.fresh_schema();
    PostgresStore::create(&schema, &config).unwrap();
    let real = || {
        let store = Arc::new(PostgresStore::open_same(&schema, &config).unwrap());
        Real { chains: store.clone(), transactions: store }
    };
    same_as_without(&config, &[real(), real()], trouble_count(), 2);
}
