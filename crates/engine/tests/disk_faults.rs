//! A disk that fails: for every call of a small workload, the first error stops the engine, nobody hears of
//! anything that is not safe, and after a restart on a sound disk everything acknowledged is there.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::core::commit::Outcome;
use bursar_engine::core::{LedgerConfig, Request};
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore, OpenReport};
use bursar_engine::store::{Chains, StoreError};
use bursar_engine::{EngineError, Ledger, LedgerOptions, SubmitError};
use common::disk::{Call, Fault, FaultyDisk};
use common::{audit, code, config, customer, deposit, dispute, transaction, withdrawal};
use std::io::ErrorKind;
use std::sync::Arc;

const BATCHES: u128 = 8;

const fn limits(background: bool) -> EmbeddedOptions {
    EmbeddedOptions { segment_bytes: 2_500, memtable_entries_max: 12, heads_max: 3, background }
}

fn requests(batch: u128) -> Vec<Request> {
    let base = batch * 100;
    let mut requests: Vec<Request> = (0..8).map(|n| deposit((batch + n) % 5, base + n, 10)).collect();
    requests.push(withdrawal(batch % 5, base + 50, 3));
    if batch > 2 {
        // An old one, by now in an index file.
        requests.push(dispute((batch - 3) % 5, (batch - 3) * 100));
    }
    requests
}

fn start(config: &LedgerConfig, store: EmbeddedStore) -> Ledger {
    let store = Arc::new(store);
    Ledger::with_stores(config.clone(), store.clone(), store, LedgerOptions::default()).unwrap()
}

fn open(disk: FaultyDisk, background: bool) -> Result<(EmbeddedStore, OpenReport), StoreError> {
    EmbeddedStore::open_on(Arc::new(disk), limits(background))
}

/// The error that lies at the bottom.
fn root(error: &StoreError) -> &StoreError {
    match error {
        StoreError::Poisoned { cause } => root(cause),
        StoreError::Io { .. }
        | StoreError::Damaged(_)
        | StoreError::InUse { .. }
        | StoreError::NotFound { .. }
        | StoreError::Exists { .. }
        | StoreError::Version { .. }
        | StoreError::OtherStores { .. }
        | StoreError::BatchTooLarge { .. }
        | StoreError::Database { .. } => error,
    }
}

fn expected_code(fault: Fault) -> &'static str {
    if fault.error == ErrorKind::StorageFull { "disk_full" } else { "io_error" }
}

fn assert_stopped(error: &SubmitError, fault: Fault) {
    let SubmitError::Stopped(stopped) = error else { panic!("{fault:?}: {error:?}") };
    let EngineError::Store(store) = &**stopped else { panic!("{fault:?}: {stopped:?}") };
    assert!(matches!(store.code(), "poisoned" | "disk_full" | "io_error"), "{fault:?}: {store:?}");
    assert_eq!(root(store).code(), expected_code(fault), "{fault:?}: {store:?}");
}

/// Submits the workload up to the first error; gives how many batches were acknowledged. After the error nothing
/// is acknowledged any more.
fn work(ledger: &Ledger, fault: Fault) -> u128 {
    let mut acknowledged = 0;
    let mut stopped = false;
    for batch in 0..BATCHES {
        match ledger.submit_batch(requests(batch)) {
            Ok(submitted) if submitted.iter().all(Result::is_ok) => {
                assert!(!stopped, "{fault:?}: acknowledged after an error");
                let codes: Vec<_> = submitted.iter().flatten().map(code).collect();
                assert!(codes.iter().all(|code| *code == "applied"), "{fault:?}, batch {batch}: {codes:?}");
                acknowledged += 1;
            }
            Ok(submitted) => {
                stopped = true;
                for one in submitted {
                    assert_stopped(&one.unwrap_err(), fault);
                }
            }
            Err(error) => {
                stopped = true;
                assert_stopped(&error, fault);
            }
        }
    }
    if stopped {
        assert!(ledger.customer(customer(1)).is_err(), "{fault:?}: a reader was told what may be lost");
    }
    acknowledged
}

/// Everything acknowledged is there, every batch whole or not at all, in order; and work goes on.
fn check(config: &LedgerConfig, disk: &FaultyDisk, acknowledged: u128, fault: Fault) {
    let (store, report) = open(disk.clone(), false).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
    assert_eq!(report.index_rebuilt, None, "{fault:?}");
    let ledger = start(config, store);
    let audit = audit(&ledger);
    let is_there = |batch: u128| {
        let ids = requests(batch).into_iter().filter_map(|request| match request.action.transaction() {
            Some(id) if id.bits() >= batch * 100 => Some(id),
            Some(_) | None => None,
        });
        let there: Vec<bool> = ids.map(|id| audit.transactions.contains_key(&id)).collect();
        assert!(there.iter().all(|known| *known == there[0]), "{fault:?}: batch {batch} is there in part");
        there[0]
    };
    let count = (0..BATCHES).take_while(|batch| is_there(*batch)).count() as u128;
    assert!((count..BATCHES).all(|batch| !is_there(batch)), "{fault:?}: a batch is missing between others");
    assert!(count >= acknowledged, "{fault:?}: {acknowledged} batches were acknowledged, {count} are there");
    for batch in 0..BATCHES {
        let submitted = ledger.submit_batch(requests(batch)).unwrap();
        let first = code(submitted[0].as_ref().unwrap());
        assert_eq!(first, if batch < count { "already_applied" } else { "applied" }, "{fault:?}, batch {batch}");
    }
}

fn run(fault: Fault, background: bool) -> bool {
    let config = config();
    let disk = FaultyDisk::new();
    let (store, _) = EmbeddedStore::create_on(Arc::new(disk.clone()), &config, limits(background)).unwrap();
    disk.inject(Some(fault));
    let ledger = start(&config, store);
    let acknowledged = work(&ledger, fault);
    drop(ledger);
    let hit = disk.hit_count() > 0;
    assert!(hit || acknowledged == BATCHES, "{fault:?}: {acknowledged} batches without any error");
    assert!(!disk.synced_again(), "{fault:?}: a failed sync was tried again");
    check(&config, &disk.after_power_cut(), acknowledged, fault);
    // Only the process has ended, and the disk has room again. What the next one finds must be on the disk before
    // anything is built on it: a power cut after opening takes nothing back.
    let disk = disk.after_kill();
    let (store, _) = open(disk.clone(), false).unwrap();
    let found = store.totals().unwrap();
    let left = disk.after_power_cut();
    drop(store);
    let (store, _) = open(left.clone(), false).unwrap();
    assert_eq!(store.totals().unwrap(), found, "{fault:?}");
    drop(store);
    check(&config, &left, acknowledged, fault);
    hit
}

/// Every call of every kind, once and for good.
fn sweep(calls: &[Call], error: ErrorKind, background: bool) {
    for &call in calls {
        for lasts in [false, true] {
            let mut hit_count = 0;
            // Reads are many and alike: every few of them.
            let step = if call == Call::Read { 17 } else { 1 };
            for nth in (0..).step_by(step) {
                if !run(Fault { call, nth, error, lasts }, background) {
                    break;
                }
                hit_count += 1;
            }
            assert!(hit_count > 0 || matches!(call, Call::Open | Call::SetLength), "{call:?} was never called");
        }
    }
}

#[test]
fn an_error_at_any_write_or_sync() {
    common::within_minutes(|| sweep(&[Call::Write, Call::Sync], ErrorKind::Other, false));
}

#[test]
fn an_error_at_any_write_or_sync_in_the_background() {
    common::within_minutes(|| sweep(&[Call::Write, Call::Sync], ErrorKind::Other, true));
}

#[test]
fn a_full_disk_at_any_call_that_needs_room() {
    let calls = [Call::Write, Call::Create, Call::Reserve];
    common::within_minutes(move || sweep(&calls, ErrorKind::StorageFull, false));
}

#[test]
fn a_full_disk_in_the_background() {
    let calls = [Call::Write, Call::Create, Call::Reserve];
    common::within_minutes(move || sweep(&calls, ErrorKind::StorageFull, true));
}

#[test]
fn an_error_at_any_other_call() {
    use Call::{Length, Open, Read, Remove, Rename, SetLength, SyncDirectory};
    let calls = [Rename, SyncDirectory, Remove, SetLength, Length, Open, Read];
    common::within_minutes(move || sweep(&calls, ErrorKind::Other, false));
}

#[test]
fn an_error_at_any_other_call_in_the_background() {
    use Call::{Length, Remove, Rename, SetLength, SyncDirectory};
    let calls = [Rename, SyncDirectory, Remove, SetLength, Length];
    common::within_minutes(move || sweep(&calls, ErrorKind::Other, true));
}

/// Opening fails with an error that says so, or makes the index anew and says so; on a sound disk it then
/// succeeds, and nothing is lost.
#[test]
fn an_error_at_any_call_while_opening() {
    common::within_minutes(|| {
        let config = config();
        let disk = FaultyDisk::new();
        let (store, _) = EmbeddedStore::create_on(Arc::new(disk.clone()), &config, limits(false)).unwrap();
        let none = Fault { call: Call::Open, nth: u64::MAX, error: ErrorKind::Other, lasts: false };
        let ledger = start(&config, store);
        assert_eq!(work(&ledger, none), BATCHES);
        drop(ledger);
        for (call, lasts) in Call::ALL.into_iter().flat_map(|call| [(call, false), (call, true)]) {
            for nth in 0.. {
                let fault = Fault { call, nth, error: ErrorKind::Other, lasts };
                let tried = disk.after_kill();
                tried.inject(Some(fault));
                match open(tried.clone(), false) {
                    Ok((_, report)) => {
                        assert_eq!((tried.hit_count(), report.index_rebuilt), (0, None), "{fault:?}");
                    }
                    Err(error) => assert_eq!(error.code(), "io_error", "{fault:?}: {error}"),
                }
                if tried.hit_count() == 0 {
                    break;
                }
                for sound in [tried.after_kill(), tried.after_power_cut()] {
                    let (store, _) = open(sound, false).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
                    let ledger = start(&config, store);
                    let chains = audit(&ledger).chains;
                    assert_eq!(chains.len(), 5, "{fault:?}");
                    let id = transaction((BATCHES - 1) * 100);
                    assert!(ledger.transaction(id).unwrap().is_some(), "{fault:?}");
                }
            }
        }
    });
}

/// A ledger whose creation failed is created by trying again, or is there.
#[test]
fn an_error_at_any_call_while_creating() {
    let config = config();
    for call in Call::ALL {
        for nth in 0.. {
            let disk = FaultyDisk::new();
            let fault = Fault { call, nth, error: ErrorKind::StorageFull, lasts: true };
            disk.inject(Some(fault));
            match EmbeddedStore::create_on(Arc::new(disk.clone()), &config, limits(false)) {
                Ok(_) => break,
                Err(error) => assert_eq!(error.code(), "disk_full", "{fault:?}"),
            }
            for disk in [disk.after_kill(), disk.after_power_cut()] {
                let created = EmbeddedStore::create_on(Arc::new(disk.clone()), &config, limits(false));
                let (store, _) = match created {
                    Ok(created) => created,
                    Err(StoreError::Exists { .. }) => open(disk, false).unwrap(),
                    Err(error) => panic!("{fault:?}: {error}"),
                };
                let ledger = start(&config, store);
                assert!(matches!(ledger.submit(deposit(1, 1, 5)).unwrap(), Outcome::Applied(_)));
            }
        }
    }
}

/// A clean end that fails is told, and takes nothing back.
#[test]
fn an_error_at_any_call_while_closing() {
    common::within_minutes(|| {
        let config = config();
        for call in Call::ALL {
            for nth in 0.. {
                let disk = FaultyDisk::new();
                let (store, _) = EmbeddedStore::create_on(Arc::new(disk.clone()), &config, limits(true)).unwrap();
                let store = Arc::new(store);
                let options = LedgerOptions::default();
                let ledger = Ledger::with_stores(config.clone(), store.clone(), store.clone(), options).unwrap();
                let fault = Fault { call, nth, error: ErrorKind::Other, lasts: true };
                let none = Fault { nth: u64::MAX, ..fault };
                assert_eq!(work(&ledger, none), BATCHES);
                drop(ledger);
                disk.inject(Some(fault));
                let closed = store.close();
                drop(store);
                assert_eq!(closed.is_err(), disk.hit_count() > 0, "{fault:?}: {closed:?}");
                check(&config, &disk.after_power_cut(), BATCHES, fault);
                check(&config, &disk.after_kill(), BATCHES, fault);
                if closed.is_ok() {
                    break;
                }
            }
        }
    });
}
