//! The ordinary way of a batch, with nobody in between.

use super::super::*;
use super::owner::{Did, Owner};
use super::world::{World, config};
use crate::id::TransactionId;
use crate::policy::{DisputablePolicy, LockedPolicy};
use alloc::vec::Vec;

fn open(whole_batches: bool) -> (World, Owner) {
    let world = World::new(config(LockedPolicy::Nothing, DisputablePolicy::Deposits));
    let owner = Owner::open(&world, Routes::default(), whole_batches, 1);
    (world, owner)
}

/// The steps of one batch, from gathering to its end.
fn steps(owner: &mut Owner, world: &mut World) -> Vec<Step> {
    assert_eq!(owner.step(world, 1), Did::Gathered);
    let mut steps = Vec::new();
    while let Some(step) = owner.next_step() {
        owner.step(world, 1);
        steps.push(step);
    }
    steps
}

#[test]
fn one_deposit_goes_all_the_way_in_one_batch() {
    let (mut world, mut owner) = open(false);
    owner.submit_all(&mut world, 1, "deposit 1 10 5");
    let steps = steps(&mut owner, &mut world);
    let names = alloc::format!("{steps:?}");
    assert_eq!(names, "[Load, Get, AppendStarted, Propose, AppendClosed, Sync, Finish]");
    world.check();
    assert_eq!(owner.codes(), "1 applied");
    assert_eq!(world.story(1), "5 available, 0 held: deposit 10 done");
    let entry = world.entry(TransactionId::new(10));
    assert_eq!(entry.approved, entry.proposed.map(|proposed| proposed.state), "approved at the end");
    assert!(!owner.machine.has_work() && owner.machine.open_events().count() == 0);
}

#[test]
fn a_batch_that_changes_nothing_is_synced_all_the_same() {
    let (mut world, mut owner) = open(false);
    owner.submit_all(&mut world, 1, "withdrawal 1 10 5");
    let steps = steps(&mut owner, &mut world);
    assert_eq!(steps, [Step::Load, Step::Get, Step::Sync, Step::Finish]);
    assert_eq!(owner.codes(), "1 insufficient_funds");
    assert!(world.chains.is_empty() && world.table.is_empty(), "a request that changes nothing leaves nothing");
}

#[test]
fn a_batch_without_requests_or_transactions_takes_no_needless_step() {
    let (mut world, mut owner) = open(false);
    owner.submit_all(&mut world, 1, "unlock 1");
    assert_eq!(steps(&mut owner, &mut world), [Step::Load, Step::Sync, Step::Finish]);
    assert_eq!(owner.codes(), "1 unknown_customer");
    owner.machine.gather(1, &mut owner.queue, &mut owner.batch);
    assert_eq!(owner.batch.step(), Step::Finish);
}

#[test]
fn a_run_of_events_on_one_customer_travels_together() {
    let (mut world, mut owner) = open(false);
    let lines = "
        deposit 1 10 5
        withdrawal 1 11 6
        deposit 1 12 3
        withdrawal 1 13 6
        deposit 2 14 1";
    owner.submit_all(&mut world, 1, lines);
    let steps = steps(&mut owner, &mut world);
    assert_eq!(steps.iter().filter(|step| **step == Step::Sync).count(), 1, "one sync serves all");
    world.check();
    assert_eq!(owner.codes(), "1 applied, 2 insufficient_funds, 3 applied, 4 applied, 5 applied");
    assert_eq!(world.story(1), "2 available, 0 held: deposit 10 done, deposit 12 done, withdrawal 13 done");
}

const TWICE: &str = "
    deposit 1 10 5
    deposit 2 11 1
    dispute 1 10
    deposit 2 12 1
    resolve 1 10
    dispute 1 10";

#[test]
fn a_transaction_touched_twice_ends_the_batch_of_stores_that_can_tear() {
    let (mut world, mut owner) = open(false);
    owner.submit_all(&mut world, 1, TWICE);
    steps(&mut owner, &mut world);
    assert_eq!(owner.codes(), "1 applied, 2 applied");
    assert_eq!(owner.queue.iter().map(|s| s.ticket.0).collect::<Vec<_>>(), [3, 4, 5, 6], "in order");
    owner.run(&mut world, 1);
    assert_eq!(owner.codes(), "1 applied, 2 applied, 3 applied, 4 applied, 5 applied, 6 applied");
    let expected = "0 available, 5 held: deposit 10 done, dispute 10 done, resolve 10 done, dispute 10 done";
    assert_eq!(world.story(1), expected);
}

#[test]
fn a_transaction_may_be_touched_often_where_batches_are_whole() {
    let (mut world, mut owner) = open(true);
    owner.submit_all(&mut world, 1, TWICE);
    steps(&mut owner, &mut world);
    assert_eq!(owner.codes(), "1 applied, 2 applied, 3 applied, 4 applied, 5 applied, 6 applied");
    assert!(owner.queue.is_empty());
    world.check();
    let expected = "0 available, 5 held: deposit 10 done, dispute 10 done, resolve 10 done, dispute 10 done";
    assert_eq!(world.story(1), expected);
}

#[test]
fn a_repeat_is_already_applied_and_moves_nothing() {
    let (mut world, mut owner) = open(false);
    owner.submit_all(&mut world, 1, "deposit 1 10 5\n deposit 1 10 5\n deposit 1 10 4\n deposit 2 10 5");
    owner.run(&mut world, 1);
    let expected = "1 applied, 2 already_applied, 3 transaction_id_taken, 4 transaction_id_taken";
    assert_eq!(owner.codes(), expected);
    assert_eq!(world.story(1), "5 available, 0 held: deposit 10 done");
}

#[test]
fn a_batch_takes_no_more_than_its_limit_and_the_rest_waits_its_turn() {
    let (mut world, mut owner) = open(false);
    for number in 1..=20u64 {
        owner.submit(&mut world, super::owner::submission(number, &alloc::format!("deposit 1 {number} 1")));
    }
    steps(&mut owner, &mut world);
    assert_eq!((owner.answers.len(), owner.queue.len()), (8, 12));
    owner.run(&mut world, 1);
    assert_eq!(owner.answers.len(), 20);
}

#[test]
fn time_does_not_go_back_on_a_chain() {
    let (mut world, mut owner) = open(false);
    owner.submit_all(&mut world, 1, "deposit 1 10 5");
    owner.run(&mut world, 1000);
    let mut other = Owner::open(&world, Routes::default(), false, 2);
    other.submit_all(&mut world, 2, "deposit 1 11 5\n deposit 2 12 5");
    other.run(&mut world, 400);
    let head = |customer| world.head(CustomerId::new(customer)).unwrap();
    assert_eq!((head(1).time_ms, head(2).time_ms), (1000, 400));
}

#[test]
fn a_store_that_answers_for_fewer_than_asked_stops_the_engine() {
    let (mut world, mut owner) = open(false);
    owner.submit_all(&mut world, 1, "deposit 1 10 5");
    owner.run_to(&mut world, 1, Step::Load);
    let (machine, batch) = (&mut owner.machine, &mut owner.batch);
    assert!(matches!(machine.loaded(&world.digest, batch, []), Err(Broken::Store { .. })));
    let (mut world, mut owner) = open(false);
    owner.submit_all(&mut world, 1, "deposit 1 10 5");
    owner.run_to(&mut world, 1, Step::Get);
    assert!(matches!(owner.machine.found(&mut owner.batch, &[]), Err(Broken::Store { .. })));
    owner.run_to(&mut world, 1, Step::AppendStarted);
    assert!(matches!(owner.machine.started(&mut owner.batch, &[]), Err(Broken::Store { .. })));
    owner.run_to(&mut world, 1, Step::Propose);
    assert!(matches!(owner.machine.proposed(&mut owner.batch, &[]), Err(Broken::Store { .. })));
    owner.run_to(&mut world, 1, Step::AppendClosed);
    assert!(matches!(owner.machine.closed(&mut owner.batch, &[]), Err(Broken::Store { .. })));
}
