//! Verification of a real directory through the public interface, and its speed.

// What fails in a helper fails the test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use bursar_engine::embedded::disk::Disk;
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore, VerifyOptions, verify};
use bursar_engine::store::Chains;
use std::time::Instant;
use support::{Bench, OPTIONS, customer, deposit, small_ledger};

#[test]
fn progress_is_told_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in small_ledger(200, OPTIONS).files() {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let list = || {
        let entries = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.file_name() != "lock");
        let mut files: Vec<_> = files.map(|entry| (entry.path(), std::fs::read(entry.path()).unwrap())).collect();
        files.sort();
        files
    };
    let before = list();
    let mut told = Vec::new();
    let report = verify(directory.path(), &VerifyOptions::default(), &mut |progress| told.push(progress)).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    assert_eq!(list(), before);
    let last = told.last().unwrap();
    assert_eq!((last.bytes, last.pass), (report.journal_bytes, 1));
    let (store, _) = EmbeddedStore::open(directory.path(), OPTIONS).unwrap();
    assert_eq!(store.totals().unwrap(), report.totals);
    assert_eq!(store.journal_head(), (report.journal_bytes, report.journal_digest));
}

/// A power cut left the newest segment with its header and no frame. The ledger was opened, and its checkpoint
/// written: behind the header, where the next frame begins. Verification used to take that for a journal that is
/// too short, and, once frames had followed, for a checkpoint of another journal.
#[test]
fn a_checkpoint_behind_the_header_of_a_new_segment() {
    let disk = small_ledger(200, OPTIONS);
    let names: Vec<String> = disk.files().into_keys().collect();
    let last = names.iter().rfind(|name| name.starts_with("journal-")).unwrap();
    disk.edit(last, |bytes| bytes.truncate(96));
    for name in names.iter().filter(|name| name.starts_with("index-") || name.starts_with("checkpoint.")) {
        disk.remove(name).unwrap();
    }
    for batch in 0..2 {
        let mut bench = Bench::open(disk.clone(), OPTIONS).unwrap();
        if batch > 0 {
            bench.commit(&[deposit(3, 20_000 + batch, 1)]);
        } else {
            bench.store.close().unwrap();
        }
        let report = bursar_engine::embedded::verify_on(disk.clone(), &VerifyOptions::default(), &mut |_| ()).unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
        assert_eq!(bench.store.journal_head(), (report.journal_bytes, report.journal_digest));
    }
}

#[test]
fn one_customer_may_be_verified() {
    let disk = small_ledger(200, OPTIONS);
    let options = VerifyOptions { only: Some(customer(5)), ..VerifyOptions::default() };
    let report = bursar_engine::embedded::verify_on(disk, &options, &mut |_| ()).unwrap();
    assert!(report.is_sound());
    assert_eq!(report.totals.customer_count, 1);
}

/// How fast it is, on this machine, without reading from a disk:
/// `cargo test --release -p bursar-engine --test verify -- --ignored --nocapture`. `BURSAR_EVENTS` says how many.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::float_arithmetic, clippy::cast_precision_loss)] // a figure for people
fn speed() {
    let count = std::env::var("BURSAR_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000_000u128);
    let options = EmbeddedOptions { segment_bytes: 64 << 20, ..EmbeddedOptions::default() };
    let mut bench = Bench::create(support::LEDGER, options);
    let customers = count / 20 + 1;
    for batch in 0..count / 1000 {
        let first = batch * 1000;
        let spread = |number: u128| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % customers;
        let requests: Vec<_> = (first..first + 1000).map(|number| deposit(spread(number), number, 100)).collect();
        bench.run(&requests);
        bench.store.sync().unwrap();
    }
    bench.store.close().unwrap();
    let disk = bench.disk.clone();
    drop(bench);
    for (memory_bytes_max, only) in [(4 << 30, None), (64 << 20, None), (4 << 30, Some(customer(1)))] {
        let started = Instant::now();
        let options = VerifyOptions { memory_bytes_max, only, ..VerifyOptions::default() };
        let report = bursar_engine::embedded::verify_on(disk.clone(), &options, &mut |_| ()).unwrap();
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap().max(1);
        assert!(report.is_sound(), "{:?}", report.findings);
        println!(
            "{} events of {} customers, {} journal bytes, {} passes: {elapsed_ms} ms, {} events/s",
            report.event_count,
            report.totals.customer_count,
            report.journal_bytes,
            report.pass_count,
            report.event_count * 1000 / elapsed_ms
        );
    }
}
