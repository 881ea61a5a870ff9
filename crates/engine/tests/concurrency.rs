//! Many threads at once: hot and cold customers, readers beside them, full queues, closing in the middle.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::core::commit::{Limits, Outcome, Receipt};
use bursar_engine::core::{AbortReason, Action, CustomerId, EventStatus, Request, RequestKind, TransactionId};
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore};
use bursar_engine::store::{Chains, MemoryStore, ReadRange};
use bursar_engine::{CurrencyTotals, Ledger, LedgerOptions, SubmitError};
use common::disk::FaultyDisk;
use common::{Audit, Choices, audit, config, customer, deposit, directory, dispute, transaction, withdrawal};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

const HOT_CUSTOMERS: u64 = 3;
const THREADS: u64 = 6;
const CALLS: u64 = 120;

fn tiny() -> LedgerOptions {
    let embedded =
        EmbeddedOptions { segment_bytes: 40_000, memtable_entries_max: 300, heads_max: 75, background: true };
    let limits = Limits { batch_requests_max: 64, ..Limits::default() };
    LedgerOptions { embedded, limits, ..LedgerOptions::default() }
}

/// Lets the others stop however a thread ends.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What one thread asked for and heard, in its order.
type History = Vec<(Request, Outcome)>;

/// A thread's next requests. Transactions are the thread's own but for some that all threads fight over.
fn requests(thread: u64, choices: &mut Choices, made: &mut Vec<(CustomerId, TransactionId)>) -> Vec<Request> {
    let count = 1 + choices.below(12);
    let mut requests = Vec::new();
    for _ in 0..count {
        let hot = choices.below(3) > 0;
        let of = if hot { choices.below(HOT_CUSTOMERS) } else { 100 + choices.below(4_000) };
        let id = if choices.below(20) == 0 {
            choices.below(30)
        } else {
            1_000 + (thread << 32) + made.len() as u64 + choices.below(3)
        };
        let (of, id) = (u128::from(of), u128::from(id));
        let old = (!made.is_empty()).then(|| made[choices.below(made.len() as u64) as usize]);
        requests.push(match (choices.below(10), old) {
            (0..=4, _) | (_, None) => deposit(of, id, 1 + choices.below(1_000).cast_signed()),
            (5, _) => withdrawal(of, id, 1 + choices.below(500).cast_signed()),
            (6 | 7, Some((of, id))) => Request::dispute(of, id),
            (8, Some((of, id))) => Request::resolve(of, id),
            (_, Some((of, _))) if choices.below(2) == 0 => Request::unlock(of),
            (_, Some((of, id))) => Request::chargeback(of, id),
        });
        if let Some(id) = requests.last().and_then(|request| request.action.transaction()) {
            made.push((requests[requests.len() - 1].customer, id));
        }
    }
    requests
}

fn submit_all(ledger: &Ledger, thread: u64) -> History {
    let (mut choices, mut made, mut history) = (Choices::new(thread), Vec::new(), History::new());
    for _ in 0..CALLS {
        let mut requests = requests(thread, &mut choices, &mut made);
        if let (Some((last, Outcome::Applied(_))), true) = (history.last(), choices.below(4) == 0) {
            requests.push(*last);
        }
        let outcomes = ledger.submit_batch(requests.clone()).unwrap();
        history.extend(requests.into_iter().zip(outcomes.into_iter().map(Result::unwrap)));
    }
    history
}

/// Reads until told to stop. Heads only ever grow, what is read by chain fits, and sums balance.
fn read_until(ledger: &Ledger, stopped: &AtomicBool, seed: u64) -> BTreeMap<CustomerId, u64> {
    let mut choices = Choices::new(seed);
    let mut seen: BTreeMap<CustomerId, u64> = BTreeMap::new();
    let mut see = |customer: CustomerId, seq: u64| {
        let before = seen.insert(customer, seq).unwrap_or(0);
        assert!(before <= seq, "the head of {customer} went back from {before} to {seq}");
    };
    while !stopped.load(Ordering::Acquire) {
        let of = customer(u128::from(choices.below(HOT_CUSTOMERS)));
        if let Some(head) = ledger.customer(of).unwrap() {
            see(of, head.seq);
            let range = ReadRange { from_seq: 1, to_seq: head.seq, limit: 1, newest_first: true };
            let newest = ledger.chain(of, range).unwrap().remove(0);
            assert_eq!(newest.linked.event.seq, head.seq);
            if newest.status == EventStatus::Done {
                assert_eq!((newest.linked.hash, &newest.linked.event.state), (head.link, &head.state));
            }
        }
        let after = customer(u128::from(choices.below(4_000)));
        for listed in ledger.customers(Some(after), 5).unwrap() {
            // A store in memory also shows an event that is open only until its batch ends.
            assert!(listed.head.seq > 0 || !listed.head.open.is_empty());
            assert!(listed.customer > after);
            see(listed.customer, listed.head.seq);
        }
        assert!(ledger.totals().unwrap().currencies().iter().all(CurrencyTotals::is_balanced));
    }
    seen
}

/// Everybody's outcomes against the chains: each applied request is one event, each event somebody's request, in
/// an order that fits what each thread saw; what was refused was refused for a reason that once held.
fn agree(audit: &Audit, histories: &[History], is_split: bool) {
    let mut receipts: BTreeMap<(CustomerId, u64), (&Request, &Receipt)> = BTreeMap::new();
    for history in histories {
        let mut newest: BTreeMap<CustomerId, u64> = BTreeMap::new();
        for (request, outcome) in history {
            let Outcome::Applied(receipt) = outcome else { continue };
            let event = receipt.event;
            assert_eq!(event.customer, request.customer);
            let before = newest.insert(event.customer, event.seq).unwrap_or(0);
            assert!(before < event.seq, "a later request of one thread came before an earlier one");
            assert!(
                receipts.insert((event.customer, event.seq), (request, receipt)).is_none(),
                "one event, two answers"
            );
        }
    }
    let mut event_count = 0;
    for (customer, chain) in &audit.chains {
        for entry in chain {
            let event = &entry.linked.event;
            // Where batches are not whole, an approval can come between reading an entry and proposing a new
            // state for it: the event is aborted, and its request decided anew.
            if matches!(entry.status, EventStatus::Aborted(AbortReason::TransactionConflict)) && is_split {
                continue;
            }
            assert_eq!(entry.status, EventStatus::Done);
            event_count += 1;
            let (request, receipt) = receipts[&(*customer, event.seq)];
            assert_eq!((receipt.hash, receipt.account), (entry.linked.hash, event.account()));
            assert_eq!((request.action.kind(), request.action.transaction()), (event.kind, event.transaction));
        }
    }
    assert_eq!(event_count, receipts.len(), "an acknowledged event is missing");
    for (request, outcome) in histories.iter().flatten() {
        if let (Outcome::AlreadyApplied(_), Action::Deposit(movement) | Action::Withdrawal(movement)) =
            (outcome, request.action)
        {
            let state = audit.transactions[&movement.transaction];
            assert_eq!((state.customer, state.amount), (request.customer, movement.amount));
        }
    }
}

fn crowd(ledger: &Ledger, is_split: bool) {
    let stopped = AtomicBool::new(false);
    let (histories, seen) = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|seed| {
                scope.spawn({
                    let stopped = &stopped;
                    move || read_until(ledger, stopped, seed)
                })
            })
            .collect();
        let stop = StopAtEnd(&stopped);
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || submit_all(ledger, thread))).collect();
        let histories: Vec<History> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        drop(stop);
        (histories, readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>())
    });
    let audit = audit(ledger);
    agree(&audit, &histories, is_split);
    let kinds =
        |kind: RequestKind| audit.chains.values().flatten().filter(|entry| entry.linked.event.kind == kind).count();
    assert!(RequestKind::ALL.into_iter().all(|kind| kinds(kind) > 0), "the crowd did not do everything");
    for (customer, seq) in seen.into_iter().flatten() {
        assert!(audit.chains[&customer].len() as u64 >= seq);
    }
    // Once more, word for word: what makes a transaction was done before.
    for (request, outcome) in histories.iter().flatten().step_by(7) {
        let makes = matches!(request.action, Action::Deposit(_) | Action::Withdrawal(_));
        if let (Outcome::Applied(_), true) = (outcome, makes) {
            assert_eq!(ledger.submit(*request).unwrap(), Outcome::AlreadyApplied(None));
        }
    }
}

#[test]
fn a_crowd_on_the_memory_store() {
    common::within_minutes(|| crowd(&Ledger::in_memory(&config(), tiny()).unwrap(), false));
}

#[test]
fn a_crowd_on_split_stores() {
    common::within_minutes(|| {
        let config = config();
        let store = Arc::new(MemoryStore::new(&config).with_split_batches());
        crowd(&Ledger::with_stores(config, store.clone(), store, tiny()).unwrap(), true);
    });
}

#[test]
fn a_crowd_on_the_embedded_store() {
    common::within_minutes(|| {
        let directory = directory();
        let ledger = Ledger::create(directory.path(), &config(), tiny()).unwrap();
        crowd(&ledger, false);
        let before = audit(&ledger);
        ledger.close().unwrap();
        let (ledger, report) = Ledger::open(directory.path(), tiny()).unwrap();
        assert_eq!((report.events_read, report.cut_off, report.index_rebuilt), (0, None, None));
        assert_eq!(audit(&ledger).chains, before.chains);
    });
}

/// What a reader was told is on the disk: a power cut right afterwards does not take it back.
#[test]
fn what_is_read_is_durable() {
    common::within_minutes(|| {
        let (config, disk) = (config(), FaultyDisk::new());
        disk.slow_down();
        let (store, _) = EmbeddedStore::create_on(Arc::new(disk.clone()), &config, tiny().embedded).unwrap();
        let store = Arc::new(store);
        let ledger = Ledger::with_stores(config.clone(), store.clone(), store, tiny()).unwrap();
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..3_u128 {
                let (ledger, stopped) = (&ledger, &stopped);
                scope.spawn(move || {
                    for call in 0.. {
                        let first = thread << 64 | call << 8;
                        ledger.submit_batch((0..4).map(|n| deposit(1, first | n, 5)).collect()).unwrap();
                        if stopped.load(Ordering::Acquire) {
                            break;
                        }
                    }
                });
            }
            let _stop = StopAtEnd(&stopped);
            let mut newest = 0;
            let mut grown_count = 0;
            while grown_count < 60 {
                let seen = ledger.customer(customer(1)).unwrap().map_or(0, |head| head.seq);
                let left = disk.after_power_cut();
                if seen == newest {
                    continue;
                }
                (newest, grown_count) = (seen, grown_count + 1);
                let (store, _) = EmbeddedStore::open_on(Arc::new(left), tiny().embedded).unwrap();
                let mut heads = Vec::new();
                store.load(&[customer(1)], &mut heads).unwrap();
                let there = heads.pop().flatten().map_or(0, |head| head.seq);
                assert!(there >= seen, "a reader was told of event {seen}, and the disk has {there}");
            }
        });
    });
}

#[test]
fn a_full_queue_says_busy_and_takes_nothing() {
    common::within_minutes(|| {
        let options = LedgerOptions { queue_requests_max: 50, ..tiny() };
        let ledger = Ledger::in_memory(&config(), options).unwrap();
        // The door of the ledger's own thread: while it waits here, nothing is answered.
        let (open_door, door) = channel::<()>();
        ledger.submit_then(vec![deposit(1, 1, 5)], move |_| assert!(door.recv().is_err())).unwrap();
        let (told, outcomes) = channel();
        let count_max = 50 - 1;
        let all: Vec<Request> = (0..count_max).map(|n| deposit(2, 100 + n, 5)).collect();
        let sender = told.clone();
        ledger.submit_then(all, move |submitted| sender.send(submitted).unwrap()).unwrap();
        let refused = ledger.submit_batch(vec![deposit(3, 900, 5), deposit(3, 901, 5)]);
        assert!(matches!(refused, Err(SubmitError::Busy)), "{refused:?}");
        assert_eq!(refused.unwrap_err().code(), "busy");
        let refused = ledger.submit_batch((0..51).map(|n| deposit(3, 800 + n, 5)).collect());
        assert!(matches!(refused, Err(SubmitError::TooMany { count: 51, count_max: 50 })), "{refused:?}");
        drop(open_door);
        let submitted = outcomes.recv().unwrap();
        assert_eq!(submitted.len(), 49);
        assert!(submitted.iter().all(|one| matches!(one, Ok(Outcome::Applied(_)))));
        // There is room again, and nothing was taken of what was refused.
        loop {
            match ledger.submit_batch((0..50).map(|n| deposit(4, 2_000 + n, 5)).collect()) {
                Ok(submitted) => break assert_eq!(submitted.len(), 50),
                // The last answer is given just before its place is free.
                Err(SubmitError::Busy) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(ledger.customer(customer(3)).unwrap(), None);
        assert_eq!(ledger.transaction(transaction(900)).unwrap(), None);
        assert_eq!(ledger.submit_batch(Vec::new()).unwrap().len(), 0);
    });
}

/// Closing while others submit: every call is answered, and what was told to be done is done.
#[test]
fn closing_answers_everybody() {
    common::within_minutes(|| {
        for round in 0..8_u128 {
            let directory = directory();
            let ledger = Ledger::create(directory.path(), &config(), tiny()).unwrap();
            let (told, outcomes) = channel();
            let calls = Arc::new(AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for thread in 0..4_u128 {
                    let (ledger, told, calls) = (&ledger, told.clone(), calls.clone());
                    scope.spawn(move || {
                        for call in 0..60 + round * 20 {
                            let id = thread << 64 | call;
                            let told = told.clone();
                            let request = deposit(thread, id, 5);
                            calls.fetch_add(1, Ordering::AcqRel);
                            let taken = ledger.submit_then(vec![request, dispute(thread, id)], move |submitted| {
                                told.send((id, submitted)).unwrap();
                            });
                            assert!(taken.is_ok(), "{taken:?}");
                        }
                    });
                }
            });
            drop(told);
            // Much of it is still under way.
            ledger.close().unwrap();
            let heard: Vec<_> = outcomes.iter().collect();
            assert_eq!(heard.len(), calls.load(Ordering::Acquire));
            let (ledger, _) = Ledger::open(directory.path(), tiny()).unwrap();
            let audit = audit(&ledger);
            for (id, submitted) in heard {
                assert_eq!(submitted.len(), 2);
                assert!(submitted.iter().all(|one| matches!(one, Ok(Outcome::Applied(_)))), "{submitted:?}");
                assert!(audit.transactions.contains_key(&transaction(id)));
            }
        }
    });
}
