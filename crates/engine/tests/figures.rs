//! What a ledger counts about itself is what happened.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore};
use bursar_engine::{Ledger, LedgerOptions, SubmitError};
use common::disk::{Call, Fault, FaultyDisk};
use common::{config, customer, deposit, directory, dispute};
use std::io::ErrorKind;
use std::sync::Arc;

fn options(memtable_entries_max: usize) -> LedgerOptions {
    let embedded = EmbeddedOptions {
        memtable_entries_max,
        heads_max: memtable_entries_max / 4,
        background: false,
        ..EmbeddedOptions::default()
    };
    LedgerOptions { embedded, ..LedgerOptions::default() }
}

#[test]
fn batches_and_syncs_are_counted_as_they_happen() {
    let sandbox = directory();
    let ledger = Ledger::create(&sandbox.path().join("data"), &config(), options(1 << 20)).unwrap();
    let before = ledger.figures();
    assert_eq!((before.batch_requests.count(), before.commit_us.count(), before.queue_requests), (0, 0, 0));
    for batch in 0..5_u128 {
        let requests = (0..10).map(|n| deposit(n, batch * 10 + n, 1)).collect();
        ledger.submit_batch(requests).unwrap();
    }
    ledger.submit(deposit(1, 1_000, 1)).unwrap();
    let figures = ledger.figures();
    assert_eq!((figures.batch_requests.count(), figures.batch_requests.sum), (6, 51));
    // Ten are at most 16, and one is one.
    assert_eq!((figures.batch_requests.counts[0], figures.batch_requests.counts[4]), (1, 5));
    assert_eq!(figures.commit_us.count(), 6);
    let store = figures.store.unwrap();
    assert_eq!(store.sync_us.count(), 6);
    assert!(figures.commit_us.sum >= store.sync_us.sum, "a commit takes its sync: {:?}", figures.commit_us);
    let end = ledger.embedded().unwrap().durable_position();
    assert_eq!((store.journal_bytes, store.is_poisoned, figures.is_stopped), (end, false, false));
    assert_eq!((store.heads_asked, store.transactions_asked), (51, 51));
    assert_eq!((store.heads_from_files, store.transactions_from_files, store.transaction_runs), (0, 0, 0));
    assert_eq!(store.memory_entries, 51 + 10);
}

#[test]
fn what_memory_has_not_is_counted_as_read_from_files() {
    let sandbox = directory();
    let data = sandbox.path().join("data");
    let ledger = Ledger::create(&data, &config(), options(64)).unwrap();
    for of in 0..200_u128 {
        ledger.submit(deposit(of, of, 1)).unwrap();
    }
    let full = ledger.figures().store.unwrap();
    assert!(full.index_writes >= 3 && full.transaction_runs >= 1 && full.customer_runs >= 1, "{full:?}");
    assert!(full.index_merges >= 1, "{full:?}");
    assert!(full.memory_entries < 200, "{full:?}");
    ledger.close().unwrap();
    let (ledger, _) = Ledger::open(&data, options(64)).unwrap();
    let before = ledger.figures().store.unwrap();
    ledger.submit(dispute(7, 7)).unwrap();
    let after = ledger.figures().store.unwrap();
    assert_eq!(after.heads_from_files - before.heads_from_files, 1);
    assert_eq!(after.transactions_from_files - before.transactions_from_files, 1);
    // Now both are in memory.
    assert!(ledger.customer(customer(7)).unwrap().is_some());
    ledger.submit(dispute(7, 7)).unwrap();
    let again = ledger.figures().store.unwrap();
    assert_eq!(again.heads_from_files, after.heads_from_files);
    assert_eq!(again.transactions_from_files, after.transactions_from_files);
    assert_eq!(again.heads_asked - before.heads_asked, 3);
}

#[test]
fn a_disk_that_fails_shows() {
    let (config, disk) = (config(), FaultyDisk::new());
    let (store, _) = EmbeddedStore::create_on(Arc::new(disk.clone()), &config, options(64).embedded).unwrap();
    let store = Arc::new(store);
    let ledger = Ledger::with_stores(config, store.clone(), store.clone(), options(64)).unwrap();
    ledger.submit(deposit(1, 1, 1)).unwrap();
    assert!(!ledger.figures().is_stopped && !store.figures().is_poisoned);
    disk.inject(Some(Fault { call: Call::Sync, nth: 0, error: ErrorKind::Other, lasts: true }));
    assert!(matches!(ledger.submit(deposit(1, 2, 1)), Err(SubmitError::Stopped(_))));
    let figures = store.figures();
    assert!(ledger.figures().is_stopped && figures.is_poisoned);
    assert_eq!(figures.sync_us.count(), 1, "a sync that failed took no time that says anything");
}
