//! Opening what a crash has left, in all the shapes that tiny limits give it.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::core::commit::Outcome;
use bursar_engine::embedded::EmbeddedOptions;
use bursar_engine::{Ledger, LedgerOptions};
use common::{audit, config, deposit, directory, dispute, withdrawal};

fn options(segment_bytes: u64, memtable_entries_max: usize) -> LedgerOptions {
    let embedded =
        EmbeddedOptions { segment_bytes, memtable_entries_max, heads_max: memtable_entries_max / 4, background: false };
    LedgerOptions { embedded, ..LedgerOptions::default() }
}

fn fill(ledger: &Ledger, base: u128, batch_count: u128) {
    for batch in base..base + batch_count {
        let mut requests: Vec<_> = (0..20).map(|n| deposit(n % 7, batch * 100 + n, 10)).collect();
        requests.push(withdrawal(3, batch * 100 + 90, 5));
        requests.push(dispute(2, batch * 100 + 2));
        let submitted = ledger.submit_batch(requests).unwrap();
        assert!(submitted.into_iter().all(|one| matches!(one, Ok(Outcome::Applied(_)))));
    }
}

/// The checkpoint lies in an earlier segment than the journal's end. Opening used to panic there.
#[test]
fn a_checkpoint_several_segments_before_the_end() {
    let directory = directory();
    let many = 1 << 20;
    let ledger = Ledger::create(directory.path(), &config(), options(4_096, many)).unwrap();
    fill(&ledger, 0, 3);
    ledger.close().unwrap();
    let (ledger, _) = Ledger::open(directory.path(), options(4_096, many)).unwrap();
    fill(&ledger, 100, 20);
    let before = audit(&ledger).chains;
    drop(ledger);
    let (ledger, report) = Ledger::open(directory.path(), options(4_096, many)).unwrap();
    assert_eq!((report.events_read, report.index_rebuilt), (20 * 22, None));
    assert_eq!(audit(&ledger).chains, before);
}

/// No index at all, a long journal, little memory: index files are written while it is read.
#[test]
fn a_long_journal_is_read_with_little_memory() {
    let directory = directory();
    let ledger = Ledger::create(directory.path(), &config(), options(4_096, 1 << 20)).unwrap();
    fill(&ledger, 0, 40);
    let before = audit(&ledger).chains;
    drop(ledger);
    for round in 0..3 {
        let (ledger, report) = Ledger::open(directory.path(), options(4_096, 64)).unwrap();
        assert_eq!(report.index_rebuilt, None);
        let is_first = round == 0;
        assert_eq!(report.events_read == 40 * 22, is_first, "{report:?}");
        assert_eq!(audit(&ledger).chains, before);
        if is_first {
            continue;
        }
        let names = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().any(|name| name.to_string_lossy().starts_with("index-t-")));
    }
}

/// Limits may be different at every opening.
#[test]
fn limits_may_change_from_life_to_life() {
    let directory = directory();
    let mut ledger = Ledger::create(directory.path(), &config(), options(4_096, 64)).unwrap();
    for (life, (segment_bytes, entries_max)) in (1..).zip([(1, 8), (100_000, 1 << 20), (9_000, 16), (4_096, 500)]) {
        fill(&ledger, life * 1_000, 9);
        let before = audit(&ledger).chains;
        if life % 2 == 0 {
            ledger.close().unwrap();
        } else {
            drop(ledger);
        }
        ledger = Ledger::open(directory.path(), options(segment_bytes, entries_max)).unwrap().0;
        assert_eq!(audit(&ledger).chains, before);
    }
}
