//! The driver by itself, one call after the other: orders of steps that threads would only meet by chance.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_engine::core::commit::{Batch, Limits, Outcome, Routes, Step, Submission, Ticket};
use bursar_engine::core::{Amount, Currencies, CustomerId, LedgerConfig, Policy, RailId, Request, TransactionId};
use bursar_engine::driver::Driver;
use bursar_engine::embedded::memory_disk::MemoryDisk;
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore};
use bursar_engine::new_config;
use bursar_engine::store::{Chains, MemoryStore, Transactions};
use std::sync::Arc;

fn config() -> LedgerConfig {
    new_config(Policy::default(), Currencies::default()).unwrap()
}

fn driver(config: LedgerConfig, store: &Arc<MemoryStore>) -> Driver {
    Driver::new(config, Routes::default(), Limits::default(), store.clone(), store.clone(), 1).unwrap()
}

/// Decides and appends one request; its approval is left for later, as by a slow thread.
fn decide(driver: &mut Driver, ticket: u64, request: Request) -> Batch {
    let mut batch = Batch::new(1);
    driver.submit(Submission::new(Ticket(ticket), request));
    driver.run_batch(1_000 + ticket, &mut batch).unwrap();
    batch
}

fn outcome(batch: &mut Batch) -> Outcome {
    if batch.step() == Step::Sync {
        batch.synced();
    }
    assert_eq!(batch.step(), Step::Finish);
    let answers = batch.take_answers();
    assert_eq!(answers.len(), 1);
    answers[0].result.clone().unwrap()
}

fn deposit(transaction: u128) -> Request {
    Request::deposit(CustomerId::new(1), TransactionId::new(transaction), Amount::from_steps(10))
}

/// The approval of a batch is written by the thread that makes it durable, after the next batch has been decided.
/// A store that keeps no history cannot be asked then how the event stands that proposed the state.
#[test]
fn a_repeat_is_known_before_the_first_is_approved() {
    let config = config();
    for store in [MemoryStore::new(&config), MemoryStore::without_history(&config)] {
        let store = Arc::new(store);
        let mut driver = driver(config.clone(), &store);
        let mut first = decide(&mut driver, 0, deposit(7));
        assert!(matches!(outcome(&mut first), Outcome::Applied(_)));
        let mut second = decide(&mut driver, 1, deposit(7));
        assert_eq!(outcome(&mut second), Outcome::AlreadyApplied(None));
    }
}

/// Where batches are not whole, a batch that rests on a state not approved yet must be synced in its middle:
/// the driver used to stop there, and its callers never heard.
#[test]
fn a_split_batch_goes_on_behind_the_sync_in_its_middle() {
    let config = config();
    let store = Arc::new(MemoryStore::new(&config).with_split_batches());
    let mut driver = driver(config, &store);
    let mut first = decide(&mut driver, 0, deposit(7));
    let mut second = decide(&mut driver, 1, Request::dispute(CustomerId::new(1), TransactionId::new(7)));
    assert!(matches!(outcome(&mut first), Outcome::Applied(_)));
    assert!(matches!(outcome(&mut second), Outcome::Applied(_)));
    store.approve(first.approvals()).unwrap();
    store.approve(second.approvals()).unwrap();
    let mut third = decide(&mut driver, 2, Request::resolve(CustomerId::new(1), TransactionId::new(7)));
    assert!(matches!(outcome(&mut third), Outcome::Applied(_)));
    assert_eq!(store.totals().unwrap().event_count, 3);
}

/// The embedded store takes batches at once, so that this way is tested by whatever tests that store; beside an
/// open event it does not.
#[test]
fn the_embedded_store_decides_at_once_unless_something_is_open() {
    let config = config();
    let disk = Arc::new(MemoryDisk::new());
    let (store, _) = EmbeddedStore::create_on(disk, &config, EmbeddedOptions::default()).unwrap();
    let store = Arc::new(store);
    let routes = Routes { deposit: None, withdrawal: RailId::new(1) };
    let mut driver = Driver::new(config, routes, Limits::default(), store.clone(), store, 1).unwrap();
    let mut first_step = |ticket: u64, requests: &[Request]| {
        for (ticket, &request) in (ticket..).zip(requests) {
            driver.submit(Submission::new(Ticket(ticket), request));
        }
        let mut batch = Batch::new(1);
        driver.begin_batch(1_000, &mut batch);
        let step = batch.step();
        while driver.step_batch(&mut batch).unwrap() {}
        step
    };
    let withdrawal = Request::withdrawal(CustomerId::new(1), TransactionId::new(9), Amount::from_steps(1));
    assert_eq!(first_step(0, &[deposit(7)]), Step::AtOnce);
    assert_eq!(first_step(1, &[deposit(8), withdrawal]), Step::Load, "a withdrawal goes through a rail");
    let other = Request::deposit(CustomerId::new(2), TransactionId::new(10), Amount::from_steps(1));
    assert_eq!(first_step(3, &[other]), Step::Load, "an event is open");
}
