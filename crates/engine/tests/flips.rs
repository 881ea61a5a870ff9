//! Every byte of a small ledger's directory is changed, one at a time. Whatever the change, opening and reading
//! everything either refuses or gives exactly what was there: never a wrong balance, never a lost event, never a
//! panic. And verification reports it, unless the byte means nothing.
//!
//! By default each byte of the ledger file, the journal and the checkpoint is changed in four ways, and each byte of
//! the index files, most of which is empty room, in one of the four. `BURSAR_FLIPS=all` changes all in four ways.

// What fails in a helper fails the test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use bursar_engine::embedded::memory_disk::MemoryDisk;
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore, VerifyOptions, verify_on};
use bursar_engine::store::StoreError;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Everything, read_everything, small_ledger};

const OPTIONS: EmbeddedOptions =
    EmbeddedOptions { segment_bytes: 4000, memtable_entries_max: 40, heads_max: 10, background: false };

/// How a byte is changed.
const CHANGES: [fn(u8) -> u8; 4] = [|byte| byte ^ 0x01, |byte| byte ^ 0x80, |byte| !byte, |_| 0];

/// What reading a changed directory led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Result {
    /// Opening, or reading something, was refused.
    Refused,
    /// All was there.
    Same,
}

/// The directory, with the room reserved behind the journal's end cut down to a few bytes.
fn directory() -> BTreeMap<String, Vec<u8>> {
    let disk = small_ledger(90, OPTIONS);
    let mut files = disk.files();
    let last = files.keys().filter(|name| name.starts_with("journal-")).max().unwrap().clone();
    let journal = files.get_mut(&last).unwrap();
    let end = journal.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    journal.truncate(end + 16);
    files
}

fn read(disk: Arc<MemoryDisk>) -> std::result::Result<Everything, StoreError> {
    read_everything(&EmbeddedStore::open_on(disk, OPTIONS)?.0)
}

/// Changes one byte, reads and verifies. Gives what came of it, and whether verification reported it.
fn flip(files: &BTreeMap<String, Vec<u8>>, name: &str, at: usize, to: u8, before: &Everything) -> (Result, bool) {
    let mut files = files.clone();
    files.get_mut(name).unwrap()[at] = to;
    let disk = Arc::new(MemoryDisk::with_files(files));
    let reported = match verify_on(disk.clone(), &VerifyOptions::default(), &mut |_| {}) {
        Ok(report) => !report.is_sound() || !report.notes.is_empty(),
        Err(StoreError::Version { .. }) => true,
        Err(error) => panic!("{name} byte {at} to {to}: verification failed: {error}"),
    };
    match read(disk) {
        Ok(after) => {
            assert_eq!(after, *before, "{name} byte {at} to {to}: silently something else");
            (Result::Same, reported)
        }
        Err(_) => (Result::Refused, reported),
    }
}

#[test]
fn no_byte_can_be_changed_with_silent_effect() {
    let files = directory();
    let before = read(Arc::new(MemoryDisk::with_files(files.clone()))).unwrap();
    assert!(files.keys().filter(|name| name.starts_with("journal-")).count() >= 2, "{:?}", files.keys());
    assert!(files.keys().filter(|name| name.starts_with("index-")).count() >= 3, "{:?}", files.keys());
    let all = std::env::var("BURSAR_FLIPS").is_ok_and(|value| value == "all");
    let mut jobs = Vec::new();
    for (name, bytes) in &files {
        for (at, &byte) in bytes.iter().enumerate() {
            let is_index = name.starts_with("index-");
            for (index, change) in CHANGES.iter().enumerate() {
                if change(byte) != byte && (all || !is_index || index == at % 4) {
                    jobs.push((name.as_str(), at, change(byte)));
                }
            }
        }
    }
    let end = |name: &str| files[name].iter().rposition(|&byte| byte != 0).unwrap();
    let next = AtomicUsize::new(0);
    let results: Vec<(usize, (Result, bool))> = std::thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(&(name, at, to)) = jobs.get(index) else { return done };
                done.push((index, flip(&files, name, at, to, &before)));
            }
        };
        let threads: Vec<_> =
            (0..std::thread::available_parallelism().unwrap().get()).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut counts: BTreeMap<(&str, Result), usize> = BTreeMap::new();
    for (index, (result, reported)) in results {
        let (name, at, to) = jobs[index];
        let kind = name.split('-').next().unwrap();
        *counts.entry((kind, result)).or_default() += 1;
        let is_reserved = kind == "journal" && at > end(name);
        assert!(reported || is_reserved, "{name} byte {at} to {to}: verification does not report it");
        // Only what is derived may be harmless.
        let is_derived = kind == "index" || kind == "checkpoint.bursar";
        assert!(result == Result::Refused || is_derived || is_reserved, "{name} byte {at} to {to}: taken as it is");
    }
    println!("{counts:?}");
}
