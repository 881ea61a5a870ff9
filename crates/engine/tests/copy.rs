//! A ledger copied into another store is the same ledger: with the same hashes, table, open events and sums, whatever
//! interrupted the copy, and while the source went on.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

#[path = "common/stops.rs"]
mod stops;
mod support;

use bursar_engine::copy::{Copied, CopyError, Target, compare, copy};
use bursar_engine::core::commit::RailAnswer;
use bursar_engine::core::{
    EntryId, EventStatus, Hash, LedgerConfig, Record, Request, TransactionEntry, TransactionId, TransactionState,
};
use bursar_engine::embedded::EmbeddedStore;
use bursar_engine::embedded::memory_disk::MemoryDisk;
use bursar_engine::store::{Chains, MemoryStore, ReadRange, SourceId, Transactions};
use bursar_engine::{Ledger, LedgerOptions};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use stops::Stops;
use support::{
    Bench, LEDGER, OPTIONS, config, customer, deposit, movement, read_everything, small_ledger, transaction,
};

fn target<S: Chains + Transactions>(store: &S) -> Target<'_> {
    Target { chains: store, transactions: store }
}

fn copy_all<S: Chains + Transactions>(source: &EmbeddedStore, to: &S) -> Result<Copied, CopyError> {
    copy(&config(LEDGER).digest(), source, target(to), 7, |_| ())
}

fn embedded(disk: &Arc<MemoryDisk>) -> EmbeddedStore {
    EmbeddedStore::open_on(disk.clone(), OPTIONS).unwrap().0
}

fn empty_embedded() -> (Arc<MemoryDisk>, EmbeddedStore) {
    let disk = Arc::new(MemoryDisk::new());
    let store = EmbeddedStore::create_on(disk.clone(), &config(LEDGER), OPTIONS).unwrap().0;
    (disk, store)
}

#[test]
fn a_copy_is_the_same_ledger() {
    let source = embedded(&small_ledger(300, OPTIONS));
    let expected = read_everything(&source).unwrap();
    let events: u64 = expected.chains.iter().map(|chain| chain.len() as u64).sum();
    let (disk, to) = empty_embedded();
    let copied = copy_all(&source, &to).unwrap();
    let customers = expected.heads.len() as u64;
    assert_eq!(copied, Copied { customers, events, closed: 0, open: expected.open.len() as u64 });
    assert_eq!(compare(&source, &to).unwrap(), customers);
    assert_eq!(read_everything(&to).unwrap(), expected);
    assert_eq!(
        source.rejected_lines(SourceId([7; 32])).unwrap(),
        to.rejected_lines(SourceId([7; 32])).unwrap(),
        "rejected rows of the source of rows"
    );
    // Again: nothing is left to do, and nothing is done.
    assert_eq!(copy_all(&source, &to).unwrap(), Copied { events: 0, ..copied });
    drop(to);
    assert_eq!(read_everything(&embedded(&disk)).unwrap(), expected, "opened anew");
}

/// What is copied while events are open, and then again after they were closed, is what would have been copied later.
#[test]
fn a_source_that_goes_on_is_copied_in_several_goes() {
    let mut bench = Bench::create(LEDGER, OPTIONS);
    let (_, to) = empty_embedded();
    let split = MemoryStore::new(&config(LEDGER)).with_split_batches();
    for round in 0..12u128 {
        let number = round * 100;
        bench.commit(&[deposit(1, number + 1, 5000), deposit(2, number + 2, 700), deposit(round + 3, number + 3, 1)]);
        let open = bench.commit(&[
            movement(false, 1, number + 4, 100, 0),
            movement(false, 2, number + 5, 5, 0),
            Request::dispute(customer(round + 3), transaction(number + 3)),
        ]);
        assert_eq!(open.len(), 2);
        for to in [&to as &dyn Chains, &split] {
            assert!(compare(&*bench.store, to).is_err(), "there is more to copy");
        }
        let copied = copy_all(&bench.store, &to).unwrap();
        assert_eq!((copied.open, copied.closed), (2, if round == 0 { 0 } else { 2 }));
        assert_eq!(copy_all(&bench.store, &split).unwrap(), copied);
        compare(&*bench.store, &to).unwrap();
        compare(&*bench.store, &split).unwrap();
        assert_eq!(read_everything(&to).unwrap(), read_everything(&bench.store).unwrap());
        let reason = bursar_engine::core::AbortReason::from_code(1, "no such account").unwrap();
        bench.answer(open[0], if round % 2 == 0 { RailAnswer::Done } else { RailAnswer::Refused(reason) });
        bench.answer(open[1], RailAnswer::Done);
        bench.commit(&[Request::resolve(customer(round + 3), transaction(number + 3))]);
    }
    copy_all(&bench.store, &to).unwrap();
    copy_all(&bench.store, &split).unwrap();
    assert_eq!(read_everything(&to).unwrap(), read_everything(&bench.store).unwrap());
    compare(&*bench.store, &split).unwrap();
    goes_on(&bench.store, split);
}

/// The target's table is in step with its chains: a ledger on it knows every transaction, and takes new requests.
fn goes_on(source: &EmbeddedStore, to: MemoryStore) {
    let (config, to): (LedgerConfig, _) = (config(LEDGER), Arc::new(to));
    let everything = read_everything(source).unwrap();
    let mut disputed = 0;
    let ledger = Ledger::with_stores(config.clone(), to.clone(), to, LedgerOptions::default()).unwrap();
    for event in everything.chains.iter().flatten().filter(|entry| entry.status == EventStatus::Done) {
        let event = &event.linked.event;
        let Some(id) = event.transaction else { continue };
        let view = ledger.transaction(id).unwrap().unwrap();
        assert_eq!(view.state.unwrap().customer, event.customer);
        let mut there = Vec::new();
        source.get(&[EntryId::Transaction(id)], &mut there).unwrap();
        assert_eq!(view.state, there[0].approved, "{id}");
        disputed += 1;
    }
    assert!(disputed > 40);
    let again = deposit(1, 1, 5000);
    let outcomes = ledger.submit_batch(vec![again, deposit(1, 1, 5001), deposit(77, 777, 1)]).unwrap();
    let names: Vec<String> = outcomes.iter().map(|outcome| format!("{outcome:?}")).collect();
    assert!(names[0].contains("AlreadyApplied") && names[1].contains("Rejected"), "{names:?}");
    assert!(names[2].contains("Applied("), "{names:?}");
    ledger.close().unwrap();
}

/// A copy that is cut off at any call to the target is completed by the next one, and is the same then.
#[test]
fn an_interrupted_copy_is_completed() {
    let source = embedded(&small_ledger(120, OPTIONS));
    let expected = read_everything(&source).unwrap();
    let mut whole = 0;
    for calls in 0.. {
        let (disk, to) = empty_embedded();
        let cut = Stops::new(to, calls);
        let is_whole = copy(&config(LEDGER).digest(), &source, target(&cut), 7, |_| ()).is_ok();
        drop(cut);
        let to = embedded(&Arc::new(disk.copy()));
        copy_all(&source, &to).unwrap();
        assert_eq!(read_everything(&to).unwrap(), expected, "cut off at call {calls}");
        if is_whole {
            whole = calls;
            break;
        }
    }
    assert!(whole > 60, "only {whole} calls");
    for calls in 0..whole {
        let cut = Stops::new(MemoryStore::new(&config(LEDGER)).with_split_batches(), calls);
        assert!(copy(&config(LEDGER).digest(), &source, target(&cut), 7, |_| ()).is_err(), "call {calls}");
        copy_all(&source, &cut.store).unwrap();
        compare(&source, &cut.store).unwrap();
        assert_eq!(states(&cut.store), states(&source), "cut off at call {calls}");
    }
}

/// Cut off twice: what the first copy could not approve any more, the second one builds on.
#[test]
fn the_table_never_falls_behind_the_chains() {
    let source = embedded(&small_ledger(40, OPTIONS));
    let mut last = 0;
    for calls in 0.. {
        for then in 0..9 {
            let cut = Stops::new(MemoryStore::new(&config(LEDGER)).with_split_batches(), calls);
            let mut is_whole = copy(&config(LEDGER).digest(), &source, target(&cut), 1, |_| ()).is_ok();
            cut.calls_left.store(then, Ordering::Relaxed);
            is_whole &= copy(&config(LEDGER).digest(), &source, target(&cut), 1, |_| ()).is_ok();
            let mut by_chains = BTreeMap::new();
            let mut heads = Vec::new();
            cut.store.list(None, usize::MAX, &mut heads).unwrap();
            for listed in heads {
                let mut entries = Vec::new();
                cut.store.read(listed.customer, ReadRange::ALL, &mut entries).unwrap();
                for entry in entries.iter().filter(|entry| entry.status == EventStatus::Done) {
                    let event = &entry.linked.event;
                    by_chains.extend(event.transaction.map(|id| (id, event.transaction_state())));
                }
            }
            assert_eq!(states(&cut.store), by_chains, "cut off at call {calls}, and then at {then}");
            last = if is_whole { calls } else { last };
        }
        if last == calls && calls > 0 {
            break;
        }
    }
    assert!(last > 100, "only {last} calls");
}

/// The state in effect of every transaction with a `Done` event, by the table: what was to be approved last can be
/// lost; whoever reads it settles it.
fn states<S: Chains + Transactions>(store: &S) -> BTreeMap<TransactionId, Option<TransactionState>> {
    let mut heads = Vec::new();
    store.list(None, usize::MAX, &mut heads).unwrap();
    let mut chain = Vec::new();
    for listed in heads {
        store.read(listed.customer, ReadRange::ALL, &mut chain).unwrap();
    }
    let done = chain.iter().filter(|entry| entry.status == EventStatus::Done);
    let ids: Vec<TransactionId> = done.filter_map(|entry| entry.linked.event.transaction).collect();
    let mut entries = Vec::new();
    store.get(&ids.iter().map(|&id| EntryId::Transaction(id)).collect::<Vec<_>>(), &mut entries).unwrap();
    let settled = |entry: &TransactionEntry| {
        let mut statuses = vec![None];
        let proposed = entry.proposed.filter(|_| !entry.is_settled());
        if let Some(proposed) = proposed {
            statuses.clear();
            store.status(&[proposed.event], &mut statuses).unwrap();
        }
        let is_done = statuses == [Some(EventStatus::Done)];
        proposed.filter(|_| is_done).map_or(entry.approved, |proposed| Some(proposed.state))
    };
    ids.into_iter().zip(entries.iter().map(settled)).collect()
}

/// An engine died with a run of a customer's events begun, and nobody has opened the ledger since. Both events are open in
/// the source, and after the first copy in the target; the second copy took the later one for another history.
#[test]
fn several_open_events_of_a_customer_are_the_same_in_both() {
    let mut bench = Bench::create(LEDGER, OPTIONS);
    bench.commit(&[deposit(5, 1, 10), deposit(5, 2, 20), deposit(5, 3, 30)]);
    let mut entries = Vec::new();
    bench.store.read(customer(5), ReadRange::ALL, &mut entries).unwrap();
    let source = MemoryStore::new(&config(LEDGER)).with_split_batches();
    let append = |records: Vec<Record>| source.append(&records, &mut Vec::new()).unwrap();
    append(vec![Record::Started(entries[0].linked.clone())]);
    append(vec![Record::Done(entries[0].linked.reference())]);
    append(entries[1..].iter().map(|entry| Record::Started(entry.linked.clone())).collect());
    let to = MemoryStore::new(&config(LEDGER)).with_split_batches();
    let copy = || copy(&config(LEDGER).digest(), &source, target(&to), 7, |_| ());
    let copied = Copied { customers: 1, events: 3, closed: 0, open: 2 };
    assert_eq!(copy().unwrap(), copied);
    assert_eq!(copy().unwrap(), Copied { events: 0, ..copied });
    compare(&source, &to).unwrap();
    append(vec![Record::Done(entries[1].linked.reference())]);
    assert_eq!(copy().unwrap(), Copied { events: 0, closed: 1, open: 1, ..copied });
    append(vec![Record::Done(entries[2].linked.reference())]);
    assert_eq!(copy().unwrap(), Copied { events: 0, closed: 1, open: 0, ..copied });
    compare(&source, &to).unwrap();
    assert_eq!(states(&to), states(bench.store.as_ref()));
}

/// What is in the target already must be the same history.
#[test]
fn another_history_is_not_added_to() {
    let build = |amounts: &[i64]| {
        let mut bench = Bench::create(LEDGER, OPTIONS);
        for (number, &steps) in (1..).zip(amounts) {
            bench.commit(&[deposit(5, number, steps)]);
        }
        bench
    };
    let (source, longer) = (build(&[10, 20, 30]), build(&[10, 20, 30, 40]));
    let copy = |to: &Bench| copy_all(&source.store, &*to.store);
    // The same requests at the same times are the same history.
    assert_eq!(copy(&build(&[10, 20])).unwrap().events, 1);
    for (other, expected_seq) in [(build(&[10, 21]), 2), (build(&[11]), 1), (longer, 4)] {
        let before = read_everything(&other.store).unwrap();
        let error = copy(&other);
        let differs =
            matches!(error, Err(CopyError::Diverged { customer: of, seq }) if of == customer(5) && seq == expected_seq);
        // A longer history shows when both are compared: the copy finds nothing to add.
        let is_longer = expected_seq == 4 && error.is_ok() && compare(&*source.store, &*other.store).is_err();
        assert!(differs || is_longer, "{error:?}, expected at {expected_seq}");
        assert_eq!(read_everything(&other.store).unwrap(), before, "nothing was added");
    }
    // An open event that is another one.
    let waiting = |steps: i64| {
        let mut bench = build(&[1000]);
        assert_eq!(bench.commit(&[movement(false, 5, 50, steps, 0)]).len(), 1);
        bench
    };
    let error = copy_all(&waiting(5).store, &*waiting(6).store);
    assert!(matches!(error, Err(CopyError::Diverged { customer: of, seq: 2 }) if of == customer(5)), "{error:?}");
    // A customer that only the target has.
    let mut other = build(&[10, 20, 30]);
    other.commit(&[deposit(4, 99, 1)]);
    copy(&other).unwrap();
    assert!(
        matches!(compare(&*source.store, &*other.store), Err(CopyError::Diverged { customer: of, .. }) if of == customer(4))
    );
}

/// A damaged source is noticed, and nothing of the damaged chain is written from there on.
#[test]
fn an_event_that_does_not_follow_is_not_copied() {
    let store = MemoryStore::new(&config(LEDGER));
    let bench = {
        let mut bench = Bench::create(LEDGER, OPTIONS);
        bench.commit(&[deposit(5, 1, 10), deposit(5, 2, 20)]);
        bench
    };
    let mut entries = Vec::new();
    bench.store.read(customer(5), ReadRange::ALL, &mut entries).unwrap();
    entries[1].linked.hash = Hash([9; 32]);
    for entry in &entries {
        let mut results = Vec::new();
        let records = [Record::Started(entry.linked.clone()), Record::Done(entry.linked.reference())];
        store.append(&records, &mut results).unwrap();
    }
    let (_, to) = empty_embedded();
    let error = copy(&config(LEDGER).digest(), &store, target(&to), 7, |_| ());
    assert!(matches!(error, Err(CopyError::Unsound { customer: of, seq: 2 }) if of == customer(5)), "{error:?}");
    assert!(read_everything(&to).unwrap().heads.is_empty());
}
