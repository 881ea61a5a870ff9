//! What is found when a ledger is opened, and what is decided then.

mod support;

use bursar_engine::core::Request;
use bursar_engine::core::commit::RailAnswer;
use bursar_engine::store::Transactions;
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
