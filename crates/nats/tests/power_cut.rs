//! The power of a whole cluster goes at once: three real servers have their files on a file system that loses what was not
//! synced. When the power is back, everything that anybody was told is there.
//!
//! The same must fail where the servers sync now and then (their default); that it does is tested as well. The file
//! system is that of the binary's own test, `power_cut`; it makes names durable with the sync of any file, as ext4 and XFS
//! do. One that does so only with the sync of their directory was not tried. It is mounted by FUSE, and the test fails where that may not be.
//!
//! `BURSAR_NATS_POWER_CUTS=50` cuts more often than the default, `BURSAR_NATS_POWER_SEED=N` begins with another seed.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code
#![cfg(target_os = "linux")]

mod common;
#[path = "../../bursar/tests/power_cut/filesystem.rs"]
#[allow(dead_code)] // it has more for processes that come to their end by themselves
mod filesystem;
#[path = "../../bursar/tests/power_cut/medium.rs"]
#[allow(dead_code)]
mod medium;
#[path = "../../bursar/tests/common/random.rs"]
mod random;

use bursar_engine::core::commit::{Outcome, Receipt};
use bursar_engine::core::{Amount, CustomerId, LedgerConfig, Request, TransactionId};
use bursar_engine::store::{Chains, ReadRange};
use bursar_engine::{Ledger, LedgerOptions};
use bursar_nats::{NatsChains, NatsOptions};
use common::{Cluster, Node, PairTable, Sync, config};
use filesystem::PowerDisk;
use random::Random;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CUSTOMERS: u64 = 6;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// What callers were told, and the number of the next transaction.
#[derive(Default)]
struct Book {
    told: Mutex<Vec<Receipt>>,
    next: AtomicU64,
}

/// The ledger, with a table made anew from the chains. The cluster may still be choosing its leaders.
fn open(config: &LedgerConfig, options: &NatsOptions) -> Option<Ledger> {
    let chains = Arc::new(NatsChains::open(options.clone()).ok()?);
    let table = Arc::new(PairTable::rebuilt(config, chains.clone()).ok()?);
    Ledger::with_stores(config.clone(), chains, table, LedgerOptions::default()).ok()
}

/// Deposits until the ledger stops, or is told to.
fn write(ledger: &Ledger, book: &Book, stopped: &AtomicBool) {
    while !stopped.load(Ordering::Relaxed) {
        let requests = (0..8).map(|_| {
            let number = book.next.fetch_add(1, Ordering::Relaxed);
            let (customer, transaction) = (CustomerId::new((number % CUSTOMERS).into()), u128::from(number));
            Request::deposit(customer, TransactionId::new(transaction), Amount::from_steps(1))
        });
        let Ok(outcomes) = ledger.submit_batch(requests.collect()) else { return };
        let mut told = book.told.lock().unwrap();
        for outcome in outcomes {
            let Ok(outcome) = outcome else { return };
            let Outcome::Applied(receipt) = outcome else { panic!("{outcome:?}") };
            told.push(receipt);
        }
    }
}

/// What was told and is not there.
fn missing(options: &NatsOptions, book: &Book) -> Result<(), String> {
    // Whoever looks waits until the servers have found each other again.
    let until = Instant::now() + Duration::from_mins(1);
    let chains = loop {
        match NatsChains::open(options.clone()) {
            Ok(chains) => break chains,
            Err(error) if Instant::now() > until => return Err(format!("the ledger is gone: {error}")),
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    };
    let mut by_customer: HashMap<CustomerId, HashMap<u64, _>> = HashMap::new();
    for number in 0..CUSTOMERS {
        let (customer, mut entries) = (CustomerId::new(number.into()), Vec::new());
        chains.read(customer, ReadRange::ALL, &mut entries).map_err(|error| error.to_string())?;
        by_customer.insert(customer, entries.into_iter().map(|entry| (entry.linked.event.seq, entry)).collect());
    }
    for receipt in &*book.told.lock().unwrap() {
        let entry = by_customer[&receipt.event.customer].get(&receipt.event.seq);
        if entry.is_none_or(|entry| entry.linked.hash != receipt.hash || !entry.status.is_done()) {
            return Err(format!("{:?} was acknowledged, and there is {entry:?}", receipt.event));
        }
    }
    Ok(())
}

/// Gives how many receipts there were, or what was lost.
fn cut_again_and_again(sync: Sync, cuts: u64, seed: u64) -> Result<usize, String> {
    let disk = PowerDisk::mount();
    disk.sync_names_with_files();
    let mut random = Random(seed);
    let mut cluster = Cluster::start_on(&disk.path(), 3, sync);
    let config = config(11);
    let options =
        NatsOptions { patience: Duration::from_secs(20), allow_weak: sync == Sync::Default, ..cluster.options() };
    drop(NatsChains::create(&config, options.clone()).unwrap());
    let book = Book::default();
    for cut in 1..=cuts {
        let before = book.told.lock().unwrap().len();
        let until = Instant::now() + Duration::from_mins(1);
        let ledger = loop {
            match open(&config, &options) {
                Some(ledger) => break ledger,
                None if Instant::now() > until => return Err("the ledger does not open".to_owned()),
                None => std::thread::sleep(Duration::from_millis(500)),
            }
        };
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2).map(|_| scope.spawn(|| write(&ledger, &book, &stopped))).collect();
            // Of a few calls for each batch.
            disk.cut_at(200 + random.below(3_000));
            let is_cut = disk.wait_for_cut(Duration::from_mins(2));
            cluster.nodes.iter().for_each(Node::begin_to_kill);
            disk.let_die();
            cluster.nodes.iter_mut().for_each(Node::kill);
            stopped.store(true, Ordering::Relaxed);
            disk.restart(&mut random);
            cluster.nodes.iter_mut().for_each(Node::start);
            assert!(is_cut || std::thread::panicking(), "so few calls came that the power never went");
            for writer in writers {
                writer.join().unwrap();
            }
        });
        drop(ledger);
        cluster.wait_until_healthy();
        let told = book.told.lock().unwrap().len();
        missing(&options, &book).map_err(|what| format!("seed {seed}, cut {cut}, after {told} receipts: {what}"))?;
        eprintln!("cut {cut}: {told} receipts, {} of them since the last", told - before);
    }
    let told = book.told.lock().unwrap().len();
    Ok(told)
}

#[test]
fn what_a_cluster_acknowledged_outlives_the_loss_of_all_power() {
    let (cuts, seed) = (number("BURSAR_NATS_POWER_CUTS", 3), number("BURSAR_NATS_POWER_SEED", 1));
    let told = cut_again_and_again(Sync::Always, cuts, seed).unwrap();
    assert!(told as u64 > cuts * 20, "{told} receipts say little about {cuts} cuts");
}

/// With the servers' default, which syncs every two minutes, it is found out.
#[test]
fn servers_that_sync_now_and_then_are_caught() {
    let seed = number("BURSAR_NATS_POWER_SEED", 1);
    let lost = cut_again_and_again(Sync::Default, 6, seed).expect_err("nothing was missed");
    eprintln!("{lost}");
}
