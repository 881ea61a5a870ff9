//! What is found when a ledger is opened, and what is decided then.

mod support;

use bursar_engine::core::Request;
use bursar_engine::core::commit::RailAnswer;
use bursar_engine::embedded::EmbeddedOptions;
use bursar_engine::embedded::disk::Disk;
use bursar_engine::store::Transactions;
use std::sync::Arc;
use support::{Bench, LEDGER, OPTIONS, customer, deposit, movement, read_everything, transaction};

/// A rail took its time: its event was written before the memory was last written to index files, and closed
/// after it. The next index files were refused, since the event lies before what they cover, and the store
/// stopped for good: each further opening came to the same point.
#[test]
fn an_event_may_be_closed_after_the_index_was_written() {
    let mut bench = Bench::create(LEDGER, OPTIONS);
    bench.commit(&[deposit(1, 1, 500)]);
    let event = bench.commit(&[movement(false, 1, 2, 200, 0)])[0];
    for number in 10..60 {
        bench.commit(&[deposit(2, number, 1)]);
    }
    assert!(bench.disk.files().keys().any(|name| name.starts_with("index-")));
    bench.answer(event, RailAnswer::Done);
    let before = read_everything(&bench.store).unwrap();
    bench.store.close().unwrap();
    let disk = bench.disk.clone();
    drop(bench);
    let mut bench = Bench::open(disk, OPTIONS).unwrap();
    assert_eq!(read_everything(&bench.store).unwrap(), before);
    bench.commit(&[Request::dispute(customer(1), transaction(2))]);
    let events = bench.store.events_of(transaction(2)).unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [2, 3]);
}

/// The checkpoint lay in a segment that was not the last one any more, as it does after most crashes, or was gone.
/// The place where a segment would be continued was computed for the last one all the same: a panic.
#[test]
fn a_checkpoint_may_be_segments_behind() {
    let options = EmbeddedOptions { segment_bytes: 3000, memtable_entries_max: 200, background: false };
    let mut bench = Bench::create(LEDGER, options);
    let mut number = 0;
    while bench.disk.files().keys().filter(|name| name.starts_with("journal-")).count() < 10 {
        number += 1;
        bench.commit(&[deposit(number % 5, number, 500)]);
    }
    let before = read_everything(&bench.store).unwrap();
    let disk = bench.disk.clone();
    drop(bench);
    for name in [None, Some("checkpoint.bursar")] {
        let copy = Arc::new(disk.copy());
        if let Some(name) = name {
            copy.remove(name).unwrap_or_default();
        }
        let bench = Bench::open(copy, options).unwrap();
        assert_eq!(read_everything(&bench.store).unwrap(), before);
    }
}
