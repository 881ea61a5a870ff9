//! Requests under terms, through the public interface: keys outlive the process, conditions refuse, and a dry run does
//! nothing.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_engine::core::commit::{Minimum, Outcome, RailAnswer, RailCall, Receipt, Routes, Terms};
use bursar_engine::core::{
    Amount, Currencies, CurrencyIndex, CustomerId, LedgerConfig, Policy, RailId, Rejection, Request, TransactionId,
};
use bursar_engine::store::{MemoryStore, ReadRange};
use bursar_engine::{Ledger, LedgerOptions, Rail, RailReply, SubmitError, new_config};
use std::sync::{Arc, Mutex, mpsc};

fn config() -> LedgerConfig {
    new_config(Policy::default(), Currencies::default()).unwrap()
}

fn deposit(of: u128, transaction: u128, steps: i64) -> Request {
    Request::deposit(CustomerId::new(of), TransactionId::new(transaction), Amount::from_steps(steps))
}

fn withdrawal(of: u128, transaction: u128, steps: i64) -> Request {
    Request::withdrawal(CustomerId::new(of), TransactionId::new(transaction), Amount::from_steps(steps))
}

fn dispute(of: u128, transaction: u128) -> Request {
    Request::dispute(CustomerId::new(of), TransactionId::new(transaction))
}

fn resolve(of: u128, transaction: u128) -> Request {
    Request::resolve(CustomerId::new(of), TransactionId::new(transaction))
}

fn keyed(ledger: &Ledger, text: &str) -> Terms {
    Terms { key: Some(ledger.key(text.as_bytes()).unwrap()), ..Terms::default() }
}

fn applied(ledger: &Ledger, request: Request, terms: Terms) -> Receipt {
    match ledger.submit_under(request, terms) {
        Ok(Outcome::Applied(receipt)) => receipt,
        other => panic!("{request:?}: {other:?}"),
    }
}

#[test]
fn a_key_outlives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let options = LedgerOptions::default;
    let ledger = Ledger::create(directory.path(), &config(), options()).unwrap();
    ledger.submit_batch(vec![deposit(1, 1, 5), deposit(2, 2, 5)]).unwrap();
    let receipt = applied(&ledger, dispute(1, 1), keyed(&ledger, "first"));
    applied(&ledger, resolve(1, 1), Terms::default());
    // The second opening finds the key in index files, the first in the journal alone.
    drop(ledger);
    for is_clean in [true, false] {
        let (ledger, _) = Ledger::open(directory.path(), options()).unwrap();
        let terms = keyed(&ledger, "first");
        let again = ledger.submit_under(dispute(1, 1), terms).unwrap();
        assert_eq!(again, Outcome::AlreadyApplied(Some(receipt.clone())), "{is_clean}");
        let other = ledger.submit_under(dispute(2, 2), terms).unwrap();
        assert_eq!(other, Outcome::Rejected(Rejection::IdempotencyKeyReused { event: receipt.event }), "{is_clean}");
        assert_eq!(ledger.customer(CustomerId::new(1)).unwrap().unwrap().seq, 3);
        if is_clean {
            ledger.close().unwrap();
        }
    }
}

/// The same key, from many at once: one event, and everybody hears of it.
#[test]
fn a_crowd_with_one_key_makes_one_event() {
    for split in [false, true] {
        let config = config();
        let store = MemoryStore::new(&config);
        let store = Arc::new(if split { store.with_split_batches() } else { store });
        let ledger = Ledger::with_stores(config, store.clone(), store, LedgerOptions::default()).unwrap();
        applied(&ledger, deposit(1, 1, 5), Terms::default());
        let terms = keyed(&ledger, "crowd");
        let answers: Vec<_> = std::thread::scope(|scope| {
            let one = || ledger.submit_under(dispute(1, 1), terms).unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let receipts: Vec<&Receipt> = answers
            .iter()
            .map(|answer| match answer {
                Outcome::Applied(receipt) | Outcome::AlreadyApplied(Some(receipt)) => receipt,
                other @ (Outcome::AlreadyApplied(None) | Outcome::Rejected(_)) => panic!("{other:?}"),
            })
            .collect();
        assert!(receipts.iter().all(|receipt| *receipt == receipts[0]), "{receipts:?}");
        assert_eq!(answers.iter().filter(|answer| matches!(answer, Outcome::Applied(_))).count(), 1);
        assert_eq!(ledger.chain(CustomerId::new(1), ReadRange::ALL).unwrap().len(), 2);
    }
}

#[test]
fn terms_of_some_of_many_requests_are_theirs() {
    let ledger = Ledger::in_memory(&config(), LedgerOptions::default()).unwrap();
    let (sender, outcomes) = mpsc::channel();
    let requests = vec![deposit(1, 1, 5), deposit(1, 2, 5), withdrawal(1, 3, 4), withdrawal(1, 4, 4)];
    let least = |steps| Some(Minimum { currency: CurrencyIndex(0), amount: Amount::from_steps(steps) });
    let terms = vec![
        (1, Terms { expected_seq: Some(0), ..Terms::default() }),
        (3, Terms { minimum_available: least(-3), expected_seq: Some(2), key: None }),
    ];
    ledger.submit_under_then(requests, terms, move |answers| sender.send(answers).unwrap()).unwrap();
    let codes: Vec<_> = outcomes
        .recv()
        .unwrap()
        .into_iter()
        .map(|answer| match answer.unwrap() {
            Outcome::Applied(_) => "applied",
            Outcome::AlreadyApplied(_) => "already_applied",
            Outcome::Rejected(rejection) => rejection.code(),
        })
        .collect();
    assert_eq!(codes, ["applied", "seq_mismatch", "applied", "insufficient_funds"]);
}

#[test]
fn a_dry_run_says_what_would_be_and_does_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::create(directory.path(), &config(), LedgerOptions::default()).unwrap();
    let none = Terms::default();
    let cases = |ledger: &Ledger| -> Vec<(Request, Terms)> {
        let key = keyed(ledger, "dry");
        vec![
            (deposit(1, 1, 5), none),
            (withdrawal(1, 2, 3), none),
            (withdrawal(1, 3, 9), none),
            (deposit(1, 1, 5), none),
            (deposit(2, 1, 5), none),
            (dispute(1, 1), key),
            (dispute(1, 1), key),
            (resolve(1, 1), key),
            (deposit(1, 4, 1), Terms { expected_seq: Some(9), ..none }),
            (deposit(1, 4, 1), key),
            (Request::unlock(CustomerId::new(1)), none),
        ]
    };
    for (request, terms) in cases(&ledger) {
        let before = (ledger.totals().unwrap(), ledger.embedded().unwrap().journal_head());
        let dry = ledger.dry_run(request, terms).unwrap();
        assert_eq!(dry, ledger.dry_run(request, terms).map(|again| like(again, &dry)).unwrap(), "{request:?}");
        assert_eq!((ledger.totals().unwrap(), ledger.embedded().unwrap().journal_head()), before, "{request:?}");
        let real = ledger.submit_under(request, terms).unwrap();
        assert_eq!(like(dry, &real), real, "{request:?} {terms:?}");
    }
}

/// A dry run is of another moment, and so has another time and hash.
fn like(dry: Outcome, real: &Outcome) -> Outcome {
    match (dry, real) {
        (Outcome::Applied(dry), Outcome::Applied(real)) => {
            assert_eq!(dry.event.seq, real.event.seq);
            Outcome::Applied(Receipt { event: real.event, hash: real.hash, time_ms: real.time_ms, ..dry })
        }
        (other, _) => other,
    }
}

#[derive(Debug)]
struct Silent(Mutex<mpsc::Sender<RailReply>>);

impl Rail for Silent {
    fn call(&self, _: RailCall, reply: RailReply) {
        self.0.lock().unwrap().send(reply).unwrap();
    }
}

#[test]
fn a_dry_run_waits_for_no_rail() {
    let (called, calls) = mpsc::channel();
    let rail = RailId::new(1).unwrap();
    let routes = Routes { deposit: None, withdrawal: Some(rail) };
    let options =
        LedgerOptions { routes, ..LedgerOptions::default().with_rail(rail, Arc::new(Silent(Mutex::new(called)))) };
    let ledger = Ledger::in_memory(&config(), options).unwrap();
    applied(&ledger, deposit(1, 1, 5), Terms::default());
    std::thread::scope(|scope| {
        let paid = scope.spawn(|| ledger.submit(withdrawal(1, 2, 3)).unwrap());
        let reply = calls.recv().unwrap();
        let own = ledger.dry_run(deposit(1, 3, 1), Terms::default());
        assert!(matches!(own, Err(SubmitError::CustomerBusy(_))), "{own:?}");
        let same_id = ledger.dry_run(deposit(2, 2, 1), Terms::default()).unwrap();
        assert_eq!(same_id, Outcome::Rejected(Rejection::TransactionPending));
        let other = ledger.dry_run(withdrawal(2, 4, 1), Terms::default()).unwrap();
        assert!(matches!(other, Outcome::Rejected(Rejection::InsufficientFunds { .. })), "{other:?}");
        reply.answer(RailAnswer::Done);
        assert!(matches!(paid.join().unwrap(), Outcome::Applied(_)));
        assert!(calls.try_recv().is_err(), "nobody else was asked");
    });
}
