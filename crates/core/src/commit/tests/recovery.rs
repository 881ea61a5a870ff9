//! Crashes at every step, with every loss that the stores' contract allows, and again during recovery.

use super::super::*;
use super::owner::{Did, Owner};
use super::world::{Verdict, World, config};
use crate::id::TransactionId;
use crate::policy::{DisputablePolicy, LockedPolicy};

const LINES: &str = "
    deposit 1 10 5
    deposit 2 20 7
    withdrawal 1 11 2
    dispute 1 10
    withdrawal 2 21 3
    dispute 2 20
    chargeback 2 20";

fn open_world() -> World {
    World::new(config(LockedPolicy::Nothing, DisputablePolicy::DepositsAndWithdrawals))
}

/// One step of the owner, or else of the rail, which always acts. False: nothing is left to do.
fn step(owner: &mut Owner, world: &mut World, now_ms: u64) -> bool {
    if owner.step(world, now_ms) != Did::Nothing {
        world.check();
        return true;
    }
    let Some(call) = world.calls.pop() else { return false };
    let answer = world.act(&call, Verdict::Acted);
    owner.machine.rail_answered(now_ms, call.event.id(), answer);
    true
}

fn run(owner: &mut Owner, world: &mut World, now_ms: u64) -> usize {
    (0..10_000).position(|_| !step(owner, world, now_ms)).expect("comes to rest")
}

/// All that lies unsynced is lost, kept, or cut somewhere.
const LOSSES: [fn(usize) -> usize; 4] = [|_| 0, |unsynced| unsynced, |unsynced| unsynced / 2, |_| 1];

fn every_crash(routes: Routes) {
    let mut uninterrupted = open_world();
    let mut owner = Owner::open(&uninterrupted, routes, false, 1);
    owner.submit_all(&mut uninterrupted, 1, LINES);
    let step_count = run(&mut owner, &mut uninterrupted, 1);
    assert_eq!(uninterrupted.open_customers(), []);
    let mut crash_count = 0;
    for crash_at in 0..step_count {
        for lose in LOSSES {
            // And again after so many steps of recovery, until it once gets through.
            for again_at in [usize::MAX, 0, 1, 2, 3, 4, 5, 6, 7] {
                let mut world = open_world();
                let mut owner = Owner::open(&world, routes, false, 1);
                owner.submit_all(&mut world, 1, LINES);
                (0..crash_at).for_each(|_| assert!(step(&mut owner, &mut world, 1)));
                let mut crash = |world: &mut World, owner: Owner, half: bool| {
                    let mut writes = 0;
                    owner.die_in_step(world, || {
                        writes += 1;
                        half && writes % 2 == 1
                    });
                    world.watched.clear();
                    world.calls.clear();
                    world.crash(lose);
                    world.check();
                    crash_count += 1;
                    Owner::open(world, routes, false, 2)
                };
                let mut owner = crash(&mut world, owner, false);
                for repeat in 0..3 {
                    if again_at < usize::MAX {
                        (0..again_at).take_while(|_| step(&mut owner, &mut world, 2)).for_each(drop);
                        owner = crash(&mut world, owner, repeat > 0);
                    }
                }
                run(&mut owner, &mut world, 3);
                assert_eq!(world.open_customers(), [], "nobody stays locked");
                // Whoever was not told asks again; what had taken effect does not do so twice.
                owner.submit_all(&mut world, 101, LINES);
                run(&mut owner, &mut world, 4);
                assert_eq!(world.model(), uninterrupted.model(), "crash before step {crash_at}");
            }
        }
    }
    assert!(crash_count > 1000, "{crash_count}");
}

#[test]
fn a_crash_at_any_step_leaves_exactly_one_outcome() {
    every_crash(Routes::default());
}

#[test]
fn a_crash_at_any_step_leaves_exactly_one_outcome_with_rails() {
    every_crash(Routes { deposit: RailId::new(2), withdrawal: RailId::new(1) });
}

/// An event was `Started` and its owner died before its proposal. Another customer then took the same
/// transaction id, and only after that the first customer was recovered: its event was rolled forward over
/// the other's transaction, so that one id named two deposits.
#[test]
fn an_open_event_whose_transaction_was_taken_since_is_aborted() {
    let mut world = open_world();
    let mut owner = Owner::open(&world, Routes::default(), false, 1);
    owner.submit_all(&mut world, 1, "deposit 1 10 5\n deposit 1 11 1");
    owner.run_to(&mut world, 1, Step::Propose);
    world.watched.clear();
    world.crash(|unsynced| unsynced);
    let mut owner = Owner::open(&World::new(world.config.clone()), Routes::default(), false, 2);
    owner.submit_all(&mut world, 3, "deposit 2 10 5");
    owner.run(&mut world, 2);
    owner.machine.recover(world.open_customers());
    owner.submit_all(&mut world, 4, "deposit 1 11 1");
    owner.run(&mut world, 3);
    assert_eq!(owner.codes(), "3 applied, 4 applied");
    assert_eq!(world.story(1), "1 available, 0 held: deposit 10 aborted, deposit 11 aborted, deposit 11 done");
    assert_eq!(world.story(2), "5 available, 0 held: deposit 10 done");
}

/// As above, but the proposal was made: then the id is the first customer's. Whoever meets the open event of
/// a customer that was not recovered yet recovers it, instead of refusing for the sake of a dead owner.
#[test]
fn an_open_event_met_by_another_customer_is_recovered_first() {
    for rail in [None, RailId::new(1)] {
        let routes = Routes { deposit: rail, withdrawal: None };
        let mut world = open_world();
        let mut owner = Owner::open(&world, routes, false, 1);
        owner.submit_all(&mut world, 1, "deposit 1 10 5");
        owner.run_to(&mut world, 1, if rail.is_some() { Step::Finish } else { Step::AppendClosed });
        drop(owner);
        world.watched.clear();
        let mut owner = Owner::open(&World::new(world.config.clone()), routes, false, 2);
        owner.submit_all(&mut world, 2, "deposit 2 10 5\n deposit 2 12 1");
        owner.run(&mut world, 2);
        let first = if rail.is_some() { "2 transaction_pending" } else { "2 transaction_id_taken, 3 applied" };
        assert_eq!(owner.codes(), first);
        run(&mut owner, &mut world, 3);
        assert_eq!(world.story(1), "5 available, 0 held: deposit 10 done");
    }
}

/// A run was cut by a conflict, so its second event was aborted with its proposal in the table. The proposal
/// of an event being aborted kept the transaction reserved: its own retry was refused as pending.
#[test]
fn an_aborted_proposal_does_not_reserve_its_transaction() {
    let mut world = open_world();
    let mut owner = Owner::open(&world, Routes::default(), false, 1);
    owner.submit_all(&mut world, 1, "deposit 1 10 5\n deposit 1 11 1");
    owner.run_to(&mut world, 1, Step::AppendClosed);
    // Somebody aborts the first event, and the owner dies.
    let Some(crate::event::Record::Done(event)) = owner.batch.closed().first().cloned() else { panic!("no record") };
    let aborted = crate::event::Record::Aborted(event, AbortReason::TransactionConflict);
    assert_eq!(world.append(&[aborted], |_| true), [Appended::Yes]);
    world.watched.clear();
    let mut owner = Owner::open(&world, Routes::default(), false, 2);
    owner.submit_all(&mut world, 3, "deposit 1 11 1\n deposit 1 10 5");
    owner.run(&mut world, 2);
    assert_eq!(owner.codes(), "3 applied, 4 applied");
    let expected = "6 available, 0 held: deposit 10 aborted, deposit 11 aborted, deposit 11 done, deposit 10 done";
    assert_eq!(world.story(1), expected);
}

/// A deposit was `Done` but not synced when its owner died. The next owner read it, disputed it, and wrote the
/// table durably: approved as posted. Then the power failed, and the chain lost the deposit that the table
/// now knew for good.
#[test]
fn the_table_never_keeps_what_the_chains_may_lose() {
    let mut world = open_world();
    let mut owner = Owner::open(&world, Routes::default(), false, 1);
    owner.submit_all(&mut world, 1, "deposit 1 10 5");
    owner.run_to(&mut world, 1, Step::Sync);
    world.watched.clear();
    let mut owner = Owner::open(&world, Routes::default(), false, 2);
    owner.submit_all(&mut world, 2, "dispute 1 10");
    owner.run_to(&mut world, 2, Step::AppendClosed);
    world.crash(|_| 0);
    world.watched.clear();
    world.check();
    assert_eq!(world.story(1).split(':').next(), Some("5 available, 0 held"));
}

/// An owner aborted a withdrawal that its rail had refused, and had not synced that. Another owner read the abort
/// and was about to give the transaction id to somebody else, when the store of the chains lost the abort. The
/// withdrawal was recovered, and then the slow proposal wrote over that of an event that was open again, whose
/// rail was just being called.
#[test]
fn a_proposal_is_not_written_over_for_the_sake_of_an_abort_that_may_be_lost() {
    let routes = Routes { deposit: None, withdrawal: RailId::new(1) };
    let mut world = open_world();
    let mut one = Owner::open(&world, routes, false, 1);
    one.submit_all(&mut world, 1, "deposit 1 9 9\n withdrawal 1 10 4");
    one.run(&mut world, 1);
    let call = world.calls.pop().unwrap();
    let answer = world.act(&call, Verdict::Refused("no"));
    one.machine.rail_answered(2, call.event.id(), answer);
    one.run_to(&mut world, 2, Step::Sync);
    let mut two = Owner::open(&world, routes, false, 2);
    two.submit_all(&mut world, 3, "deposit 2 10 5");
    two.run_to(&mut world, 2, Step::Propose);
    world.watched.clear();
    world.crash(|_| 0);
    let mut three = Owner::open(&world, routes, false, 3);
    while three.next_step() != Some(Step::Finish) && three.step(&mut world, 3) != Did::Nothing {}
    world.propose(two.batch.proposals());
    run(&mut three, &mut world, 3);
    assert_eq!(world.story(1), "9 available, 0 held: deposit 9 done, withdrawal 10 aborted");
}

/// A refusal came in together with the next request, whose event was `Started` on top of an abort that was
/// not written yet. After a crash in between, that event built on nothing the chain had.
#[test]
fn nothing_is_started_on_top_of_an_abort_that_is_not_written() {
    let routes = Routes { deposit: None, withdrawal: RailId::new(1) };
    let mut world = open_world();
    let mut owner = Owner::open(&world, routes, false, 1);
    owner.submit_all(&mut world, 1, "deposit 1 9 9\n withdrawal 1 10 4\n deposit 1 11 1");
    owner.run(&mut world, 1);
    let call = world.calls.pop().unwrap();
    let answer = world.act(&call, Verdict::Refused("no"));
    owner.machine.rail_answered(2, call.event.id(), answer);
    owner.run_to(&mut world, 2, Step::AppendClosed);
    world.watched.clear();
    world.crash(|unsynced| unsynced);
    world.check();
    assert_eq!(world.story(1), "9 available, 0 held: deposit 9 done, withdrawal 10 started");
    let mut owner = Owner::open(&world, routes, false, 2);
    run(&mut owner, &mut world, 3);
    assert_eq!(world.story(1), "9 available, 0 held: deposit 9 done, withdrawal 10 aborted");
}

#[test]
fn an_approval_that_was_lost_is_made_up_for() {
    let mut world = open_world();
    let mut owner = Owner::open(&world, Routes::default(), false, 1);
    owner.submit_all(&mut world, 1, "deposit 1 10 5");
    owner.run_to(&mut world, 1, Step::Finish);
    world.watched.clear();
    world.crash(|_| 0);
    let transaction = TransactionId::new(10);
    assert_eq!(world.entry(transaction).approved, None);
    let mut owner = Owner::open(&world, Routes::default(), false, 2);
    owner.submit_all(&mut world, 2, "deposit 1 10 5");
    owner.run(&mut world, 2);
    assert_eq!(owner.codes(), "2 already_applied");
    assert!(world.entry(transaction).approved.is_some());
}

/// A deposit was lost in a crash, and its proposal was not. One owner saw that its event is gone, and was about to
/// give the id to another customer. A second owner got the same deposit again, at the same millisecond: the same
/// event with the same id, whose proposal stood in the table already. The first then wrote over it.
#[test]
fn an_event_that_was_lost_does_not_come_back_under_its_id() {
    let mut world = open_world();
    let mut owner = Owner::open(&world, Routes::default(), false, 1);
    owner.submit_all(&mut world, 1, "deposit 1 10 5");
    owner.run_to(&mut world, 1, Step::AppendClosed);
    world.watched.clear();
    world.crash(|_| 0);
    let mut one = Owner::open(&world, Routes::default(), false, 2);
    let mut two = Owner::open(&world, Routes::default(), false, 3);
    one.submit_all(&mut world, 2, "deposit 2 10 7");
    one.run_to(&mut world, 1, Step::Propose);
    two.submit_all(&mut world, 3, "deposit 1 10 5");
    two.run_to(&mut world, 1, Step::Finish);
    one.run(&mut world, 1);
    two.run(&mut world, 1);
    assert_eq!((one.codes(), two.codes()), ("2 transaction_id_taken".into(), "3 applied".into()));
}
