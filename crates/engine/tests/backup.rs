//! Copying a ledger while it grows, and back: what is in the copy, what an interruption leaves, what is refused.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::core::{LedgerConfig, Request};
use bursar_engine::embedded::backup::{BackupError, Known, backup, backup_on, restore, restore_on};
use bursar_engine::embedded::disk::Disk;
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore, VerifyOptions, verify, verify_on};
use bursar_engine::store::StoreError;
use bursar_engine::{Ledger, LedgerOptions};
use common::disk::{Call, Fault, FaultyDisk};
use common::{audit, config, deposit, directory};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SMALL: EmbeddedOptions =
    EmbeddedOptions { segment_bytes: 2_500, memtable_entries_max: 12, heads_max: 3, background: false };

fn options() -> LedgerOptions {
    LedgerOptions { embedded: SMALL, ..LedgerOptions::default() }
}

fn requests(batch: u128) -> Vec<Request> {
    (0..8).map(|n| deposit((batch + n) % 5, batch * 100 + n, 10)).collect()
}

/// A ledger on a disk in memory, and up to where it is durable.
struct Source {
    disk: FaultyDisk,
    store: Arc<EmbeddedStore>,
    ledger: Ledger,
    batches: u128,
}

impl Source {
    fn new(config: &LedgerConfig) -> Self {
        let disk = FaultyDisk::new();
        let (store, _) = EmbeddedStore::create_on(Arc::new(disk.clone()), config, SMALL).unwrap();
        let store = Arc::new(store);
        let ledger = Ledger::with_stores(config.clone(), store.clone(), store.clone(), options()).unwrap();
        Self { disk, store, ledger, batches: 0 }
    }

    fn grow(&mut self, batches: u128) {
        for _ in 0..batches {
            let submitted = self.ledger.submit_batch(requests(self.batches)).unwrap();
            assert!(submitted.iter().all(Result::is_ok));
            self.batches += 1;
        }
    }

    fn event_count(&self) -> u64 {
        self.batches as u64 * 8
    }

    fn copy_to(&self, target: &dyn Disk) -> Result<bursar_engine::embedded::backup::BackupReport, BackupError> {
        backup_on(&self.disk, target, self.store.durable_position(), &mut |_, _| {})
    }
}

/// Restores a copy, verifies it, opens it; gives how many events it has.
fn events_of_the_restored(copy: &FaultyDisk) -> u64 {
    let restored = FaultyDisk::new();
    let manifest = restore_on(copy, &restored, &mut |_, _| {}).unwrap();
    let report = verify_on(Arc::new(restored.clone()), &VerifyOptions::default(), &mut |_| {}).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.journal_bytes, report.journal_digest), (manifest.journal_bytes(), manifest.digest()));
    let (store, opened) = EmbeddedStore::open_on(Arc::new(restored), SMALL).unwrap();
    assert_eq!(opened.cut_off, None);
    let store = Arc::new(store);
    let ledger = Ledger::with_stores(store.config().clone(), store.clone(), store, options()).unwrap();
    audit(&ledger);
    ledger.totals().unwrap().event_count
}

#[test]
fn only_what_is_new_is_copied_again() {
    let mut source = Source::new(&config());
    let copy = FaultyDisk::new();
    let empty = source.copy_to(&copy).unwrap();
    assert_eq!((empty.frames_copied, empty.manifest.journal_bytes()), (0, 0));
    assert_eq!(events_of_the_restored(&copy), 0);
    let mut frames = 0;
    for batches in [1, 3, 0, 20, 1] {
        source.grow(batches);
        let report = source.copy_to(&copy).unwrap();
        frames += report.frames_copied;
        assert_eq!(report.frames_copied == 0, batches == 0, "{report:?}");
        assert_eq!(frames, report.manifest.frame_number(), "each frame once");
        assert_eq!(report.manifest.digest(), source.store.journal_head().1);
        assert!(report.manifest.time_ms > 1_600_000_000_000);
        assert_eq!(events_of_the_restored(&copy), source.event_count());
    }
    let segments = copy.list().unwrap().iter().filter(|name| name.starts_with("journal-")).count();
    assert!(segments > 3, "{segments}");
}

/// The story of every interruption: the n-th call fails, and then the machine loses its power, or only the process
/// ends. What is there can be restored if a copy had come to its end, and holds all of that copy; and the next
/// attempt completes it.
#[test]
fn an_interrupted_copy_leaves_the_one_before_and_is_completed_by_the_next() {
    let ledger = config();
    let mut interrupted = 0;
    for call in Call::ALL {
        for nth in 0..400 {
            let mut source = Source::new(&ledger);
            source.grow(7);
            let copy = FaultyDisk::new();
            source.copy_to(&copy).unwrap();
            source.grow(9);
            copy.inject(Some(Fault { call, nth, error: ErrorKind::Other, lasts: true }));
            let first = source.copy_to(&copy);
            if copy.hit_count() == 0 {
                break;
            }
            interrupted += 1;
            let story = format!("{call:?} {nth}");
            let error = first.expect_err(&story);
            assert_eq!(error.code(), "io_error", "{story}: {error}");
            for left in [copy.after_power_cut(), copy.after_kill()] {
                let events = events_of_the_restored(&left);
                assert!([7 * 8, 16 * 8].contains(&events), "{story}: {events}");
                source.copy_to(&left).expect(&story);
                assert_eq!(events_of_the_restored(&left), source.event_count(), "{story}");
                let again = events_of_the_restored(&left.after_power_cut());
                assert_eq!(again, source.event_count(), "{story}: not durable");
            }
        }
    }
    assert!(interrupted > 30, "{interrupted}");
}

/// The same for the very first copy, of which nothing can be restored before its end.
#[test]
fn an_interrupted_first_copy_is_no_backup_and_is_completed_by_the_next() {
    let mut source = Source::new(&config());
    source.grow(9);
    let mut interrupted = 0;
    for call in Call::ALL {
        for nth in 0..400 {
            let copy = FaultyDisk::new();
            copy.inject(Some(Fault { call, nth, error: ErrorKind::Other, lasts: true }));
            let first = source.copy_to(&copy);
            if copy.hit_count() == 0 {
                break;
            }
            interrupted += 1;
            first.unwrap_err();
            for left in [copy.after_power_cut(), copy.after_kill()] {
                match restore_on(&left, &FaultyDisk::new(), &mut |_, _| {}) {
                    Err(BackupError::NotABackup { .. }) => {}
                    Ok(manifest) => assert_eq!(manifest.frame_number(), 9),
                    Err(error) => panic!("{call:?} {nth}: {error}"),
                }
                source.copy_to(&left).unwrap();
                assert_eq!(events_of_the_restored(&left), source.event_count(), "{call:?} {nth}");
            }
        }
    }
    assert!(interrupted > 20, "{interrupted}");
}

#[test]
fn an_interrupted_restore_is_no_ledger_and_is_begun_anew() {
    let mut source = Source::new(&config());
    source.grow(9);
    let copy = FaultyDisk::new();
    source.copy_to(&copy).unwrap();
    let mut interrupted = 0;
    for call in Call::ALL {
        for nth in 0..400 {
            let target = FaultyDisk::new();
            target.inject(Some(Fault { call, nth, error: ErrorKind::Other, lasts: true }));
            let restored = restore_on(&copy, &target, &mut |_, _| {});
            if target.hit_count() == 0 {
                break;
            }
            interrupted += 1;
            restored.unwrap_err();
            for left in [target.after_power_cut(), target.after_kill()] {
                let is_ledger = left.list().unwrap().iter().any(|name| name == "ledger.bursar");
                match restore_on(&copy, &left, &mut |_, _| {}) {
                    Ok(_) => assert!(!is_ledger),
                    // All but the mark of the attempt was in place.
                    Err(BackupError::NotEmpty { .. }) => assert!(is_ledger),
                    Err(error) => panic!("{call:?} {nth}: {error}"),
                }
                let (store, _) = EmbeddedStore::open_on(Arc::new(left), SMALL).unwrap();
                assert_eq!(store.journal_head(), source.store.journal_head());
            }
        }
    }
    assert!(interrupted > 20, "{interrupted}");
}

/// Writes a byte of a file on a disk in memory.
fn flip(disk: &FaultyDisk, name: &str, offset: u64) {
    let file = disk.open(name).unwrap();
    let mut byte = [0];
    assert_eq!(file.read_at(&mut byte, offset).unwrap(), 1);
    file.write_at(&[byte[0] ^ 1], offset).unwrap();
}

fn last_segment(disk: &FaultyDisk) -> String {
    disk.list().unwrap().into_iter().rfind(|name| name.starts_with("journal-")).unwrap()
}

#[test]
fn what_does_not_belong_together_is_refused_and_stays_as_it_is() {
    let ledger = config();
    let mut source = Source::new(&ledger);
    source.grow(5);
    let copy = FaultyDisk::new();
    source.copy_to(&copy).unwrap();

    let mut other = Source::new(&config());
    other.grow(1);
    assert_eq!(other.copy_to(&copy).unwrap_err().code(), "other_ledger");

    // The same ledger, as it would be after it was restored from an older copy and went on.
    let mut fork = Source::new(&ledger);
    fork.grow(20);
    assert_eq!(fork.copy_to(&copy).unwrap_err().code(), "backup_diverged");
    assert_eq!(events_of_the_restored(&copy), source.event_count());

    // Shorter than its copy.
    let young = Source::new(&ledger);
    assert_eq!(young.copy_to(&copy).unwrap_err().code(), "backup_diverged");

    // Somebody opened the copy and wrote into it.
    let written = copy.after_kill();
    let (store, _) = EmbeddedStore::open_on(Arc::new(written.clone()), SMALL).unwrap();
    let store = Arc::new(store);
    let served = Ledger::with_stores(ledger, store.clone(), store, options()).unwrap();
    served.submit(deposit(1, 999_999, 1)).unwrap();
    drop(served);
    assert_eq!(source.copy_to(&written).unwrap_err().code(), "backup_diverged");
    source.grow(3);
    assert_eq!(source.copy_to(&written).unwrap_err().code(), "backup_diverged");

    // Something else is there.
    let used = FaultyDisk::new();
    used.create("notes.txt").unwrap();
    assert_eq!(source.copy_to(&used).unwrap_err().code(), "directory_not_empty");
    assert_eq!(restore_on(&copy, &used, &mut |_, _| {}).unwrap_err().code(), "directory_not_empty");
    assert_eq!(restore_on(&used, &FaultyDisk::new(), &mut |_, _| {}).unwrap_err().code(), "no_backup");
    source.copy_to(&copy).unwrap();
}

#[test]
fn damage_is_neither_copied_nor_restored() {
    let mut source = Source::new(&config());
    source.grow(12);
    let whole = FaultyDisk::new();
    source.copy_to(&whole).unwrap();
    for name in whole.list().unwrap() {
        let length = whole.open(&name).unwrap().length().unwrap();
        for offset in (0..length).step_by(53) {
            let copy = whole.after_kill();
            flip(&copy, &name, offset);
            let restored = restore_on(&copy, &FaultyDisk::new(), &mut |_, _| {});
            match restored {
                Err(_) => {}
                // Spaces of the manifest, and the time in it, prove nothing.
                Ok(manifest) => {
                    assert_eq!(name, "backup.json", "byte {offset}");
                    assert_eq!(manifest.digest(), source.store.journal_head().1);
                }
            }
            if name.starts_with("journal-") {
                let damaged = source.disk.after_kill();
                flip(&damaged, &name, offset);
                let copied = backup_on(&damaged, &FaultyDisk::new(), source.store.durable_position(), &mut |_, _| {});
                let error = copied.expect_err(&format!("byte {offset} of {name}"));
                assert!(matches!(error.code(), "damaged" | "unknown_version"), "{error}");
            }
        }
    }
    // A copy that has lost its end says so when it is to go on, and when it is to be restored.
    let cut = whole.after_kill();
    let file = cut.open(&last_segment(&cut)).unwrap();
    file.set_length(file.length().unwrap() - 8).unwrap();
    assert_eq!(source.copy_to(&cut).unwrap_err().code(), "damaged");
    assert_eq!(restore_on(&cut, &FaultyDisk::new(), &mut |_, _| {}).unwrap_err().code(), "damaged");
}

fn copied(from: &Path, to: &Path) -> bursar_engine::embedded::backup::BackupReport {
    backup(from, to, SMALL, &mut |_, _| {}).unwrap()
}

#[test]
fn a_ledger_that_nobody_owns_is_copied_whole() {
    let sandbox = directory();
    let (data, copy, again) = (sandbox.path().join("data"), sandbox.path().join("copy"), sandbox.path().join("again"));
    let ledger = Ledger::create(&data, &config(), options()).unwrap();
    ledger.submit_batch(requests(0)).unwrap();
    drop(ledger);
    std::fs::write(data.join("notes.txt"), "kept apart").unwrap();
    let report = copied(&data, &copy);
    assert_eq!((report.known, report.left_out), (Known::Unowned, vec!["notes.txt".to_owned()]));
    let error = backup(&data, &data, SMALL, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, BackupError::Store(StoreError::InUse { .. })), "{error}");
    let manifest = restore(&copy, &again, &mut |_, _| {}).unwrap();
    assert_eq!(manifest, report.manifest);
    assert!(verify(&again, &VerifyOptions::default(), &mut |_| {}).unwrap().is_sound());
    assert_eq!(restore(&copy, &again, &mut |_, _| {}).unwrap_err().code(), "directory_not_empty");
    let missing = sandbox.path().join("missing");
    assert_eq!(restore(&data, &missing, &mut |_, _| {}).unwrap_err().code(), "no_backup");
    assert!(!missing.exists(), "nothing is made for a copy that is none");
    let (ledger, _) = Ledger::open(&again, options()).unwrap();
    assert_eq!(ledger.totals().unwrap().event_count, 8);
}

/// Without its owner's word, a running ledger is copied up to where its frames say that it was durable. While it is
/// written to, that is everything that was answered before.
#[test]
fn a_ledger_that_is_written_to_is_copied_with_all_that_was_answered() {
    let sandbox = directory();
    let data = sandbox.path().join("data");
    let large = EmbeddedOptions { segment_bytes: 20_000, ..SMALL };
    let options = LedgerOptions { embedded: large, ..LedgerOptions::default() };
    let ledger = Arc::new(Ledger::create(&data, &config(), options).unwrap());
    let (answered, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..2_u128)
        .map(|writer| {
            let (ledger, answered, stop) = (ledger.clone(), answered.clone(), stop.clone());
            std::thread::spawn(move || {
                for id in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    ledger.submit(deposit(writer, id * 2 + writer, 1)).unwrap().receipt_or_panic();
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let copy = sandbox.path().join("copy");
    let mut copies = 0;
    let mut newest = 0;
    while copies < 15 || newest < 2_000 {
        let before = answered.load(Ordering::SeqCst);
        let report = copied(&data, &copy);
        assert_eq!(report.known, Known::ByFrames { left_out: 0 });
        let verified = verify(&copy, &VerifyOptions::default(), &mut |_| {}).unwrap();
        assert!(verified.is_sound(), "{verified:?}");
        assert!(verified.event_count >= before, "{} events of {before}", verified.event_count);
        newest = verified.event_count;
        copies += 1;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    // Nobody writes any more, and nobody says whether the last frame is durable.
    let quiet = copied(&data, &copy);
    assert!(matches!(quiet.known, Known::ByFrames { left_out: 1.. }), "{quiet:?}");
}

trait Receipt {
    fn receipt_or_panic(&self);
}

impl Receipt for bursar_engine::core::commit::Outcome {
    fn receipt_or_panic(&self) {
        assert_eq!(common::code(self), "applied");
    }
}
