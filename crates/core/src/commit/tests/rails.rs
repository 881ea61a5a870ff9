//! Events that wait for a rail: their customer is locked, and all others go on.

use super::super::*;
use super::owner::{Owner, submission};
use super::world::{Chain, Verdict, World, config};
use crate::event::{EventStatus, ReasonText, aborted_link, done_by_hand_link};
use crate::policy::{DisputablePolicy, LockedPolicy};
use alloc::vec::Vec;

/// A ledger whose withdrawals go through a rail; customer 1 has 10.
fn open() -> (World, Owner) {
    let mut world = World::new(config(LockedPolicy::Nothing, DisputablePolicy::DepositsAndWithdrawals));
    let mut owner = Owner::open(&world, routes(), false, 1);
    owner.submit(&mut world, submission(100, "deposit 1 100 10"));
    owner.run(&mut world, 1);
    owner.answers.clear();
    (world, owner)
}

fn routes() -> Routes {
    Routes { deposit: None, withdrawal: RailId::new(1) }
}

fn refusal(reason: &str) -> RailAnswer {
    RailAnswer::Refused(AbortReason::RailRefused(ReasonText::new(reason)))
}

/// The rail does as told with the one call made to it, and the owner hears of it.
fn rail(owner: &mut Owner, world: &mut World, now_ms: u64, verdict: Verdict) {
    let calls = core::mem::take(&mut world.calls);
    assert_eq!(calls.len(), 1);
    let answer = world.act(&calls[0], verdict);
    owner.machine.rail_answered(now_ms, calls[0].event.id(), answer);
}

#[test]
fn a_rail_is_called_only_when_its_event_is_durable_and_proposed() {
    let (mut world, mut owner) = open();
    owner.submit_all(&mut world, 1, "withdrawal 1 10 4");
    owner.run_to(&mut world, 2, Step::Finish);
    assert!(world.calls.is_empty());
    let chain = &world.chains[&CustomerId::new(1)];
    assert_eq!(chain.synced, chain.records.len(), "durable before the call");
    owner.run(&mut world, 2);
    assert_eq!((world.calls.len(), world.calls[0].attempt), (1, 0));
    assert_eq!(owner.codes(), "", "nobody is told before the rail has agreed");
    assert_eq!(world.story(1), "10 available, 0 held: deposit 100 done, withdrawal 10 started");
    rail(&mut owner, &mut world, 3, Verdict::Acted);
    owner.run(&mut world, 3);
    assert_eq!(owner.codes(), "1 applied");
    assert_eq!(world.story(1), "6 available, 0 held: deposit 100 done, withdrawal 10 done");
}

#[test]
fn requests_of_the_customer_wait_in_order_while_others_go_on() {
    let (mut world, mut owner) = open();
    owner.submit_all(&mut world, 1, "withdrawal 1 10 4\n deposit 1 11 1\n deposit 2 12 7");
    owner.run(&mut world, 2);
    owner.submit_all(&mut world, 4, "withdrawal 1 13 9\n deposit 1 14 3\n deposit 2 15 1");
    owner.run(&mut world, 2);
    assert_eq!(owner.codes(), "3 applied, 6 applied");
    assert_eq!(owner.machine.waiting_count(), 3);
    rail(&mut owner, &mut world, 3, Verdict::Acted);
    owner.run(&mut world, 3);
    // 10 - 4 + 1 are not 9: what waited was decided in the order it came, and nothing overtook.
    assert_eq!(owner.codes(), "1 applied, 2 applied, 3 applied, 4 insufficient_funds, 5 applied, 6 applied");
    let expected = "10 available, 0 held: deposit 100 done, withdrawal 10 done, deposit 11 done, deposit 14 done";
    assert_eq!(world.story(1), expected);
}

#[test]
fn a_second_event_for_a_rail_locks_the_customer_again() {
    let (mut world, mut owner) = open();
    owner.submit_all(&mut world, 1, "withdrawal 1 10 4\n withdrawal 1 11 5\n deposit 1 12 1");
    owner.run(&mut world, 2);
    rail(&mut owner, &mut world, 3, Verdict::Acted);
    owner.run(&mut world, 3);
    assert_eq!(owner.codes(), "1 applied");
    assert_eq!(owner.machine.waiting_count(), 1);
    rail(&mut owner, &mut world, 4, Verdict::Acted);
    owner.run(&mut world, 4);
    assert_eq!(owner.codes(), "1 applied, 2 applied, 3 applied");
    assert_eq!(world.story(1).split(':').next(), Some("2 available, 0 held"));
}

#[test]
fn a_refusal_aborts_the_event_and_the_next_one_links_to_that() {
    let (mut world, mut owner) = open();
    owner.submit_all(&mut world, 1, "withdrawal 1 10 4\n deposit 1 11 1\n withdrawal 1 10 3");
    owner.run(&mut world, 2);
    rail(&mut owner, &mut world, 3, Verdict::Refused("no"));
    owner.run(&mut world, 3);
    rail(&mut owner, &mut world, 4, Verdict::Acted);
    owner.run(&mut world, 4);
    let reasons: Vec<_> = owner.answers.iter().filter_map(|a| a.result.clone().ok()).collect();
    assert!(reasons.contains(&Outcome::Rejected(Rejection::RailRefused { reason: "no".into() })));
    assert_eq!(owner.codes(), "1 rail_refused, 2 applied, 3 applied", "a refused request does not use up its id");
    let expected = "8 available, 0 held: deposit 100 done, withdrawal 10 aborted, deposit 11 done, withdrawal 10 done";
    assert_eq!(world.story(1), expected);
    let events = world.chains[&CustomerId::new(1)].events();
    let EventStatus::Aborted(reason) = &events[1].1 else { panic!("not aborted") };
    let link = aborted_link(&events[0].0.hash, &events[1].0.hash, reason);
    assert_eq!(events[2].0.hash, events[2].0.event.hash(&link));
}

#[test]
fn a_rail_that_cannot_tell_is_asked_again_ever_more_slowly() {
    let (mut world, mut owner) = open();
    owner.submit_all(&mut world, 1, "withdrawal 1 10 4");
    owner.run(&mut world, 2);
    let id = world.calls.pop().unwrap().event.id();
    let mut now_ms = 1000;
    let mut waits = Vec::new();
    for attempt in 1..=6 {
        assert_eq!(owner.machine.next_due_ms(), None, "a call is under way");
        owner.machine.rail_answered(now_ms, id, RailAnswer::Unknown);
        // A second one, late, does not put the next question off.
        owner.machine.rail_answered(now_ms + 50, id, RailAnswer::Unknown);
        let due_ms = owner.machine.next_due_ms().unwrap();
        assert!(owner.machine.due_calls(due_ms - 1).is_empty());
        let calls = owner.machine.due_calls(due_ms);
        assert_eq!((calls.len(), calls[0].event.id(), calls[0].attempt), (1, id, attempt));
        waits.push(due_ms - now_ms);
        now_ms = due_ms;
    }
    assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
    assert_eq!(world.story(1), "10 available, 0 held: deposit 100 done, withdrawal 10 started");
    owner.machine.rail_answered(now_ms, id, RailAnswer::Done);
    assert_eq!(owner.machine.next_due_ms(), None);
    world.book.clear();
    owner.run(&mut world, now_ms);
    assert_eq!(owner.codes(), "1 applied");
}

#[test]
fn answers_that_come_twice_or_late_change_nothing() {
    let (mut world, mut owner) = open();
    owner.submit_all(&mut world, 1, "withdrawal 1 10 4\n withdrawal 1 11 1");
    owner.run(&mut world, 2);
    let id = world.calls[0].event.id();
    rail(&mut owner, &mut world, 3, Verdict::Acted);
    owner.machine.rail_answered(3, id, RailAnswer::Done);
    owner.machine.rail_answered(3, id, refusal("no"));
    owner.machine.rail_answered(3, id, RailAnswer::Unknown);
    owner.run(&mut world, 3);
    for answer in [RailAnswer::Done, refusal("never"), RailAnswer::Unknown] {
        owner.machine.rail_answered(4, id, answer);
        assert!(!owner.machine.has_work());
    }
    rail(&mut owner, &mut world, 5, Verdict::Acted);
    owner.run(&mut world, 5);
    assert_eq!(owner.codes(), "1 applied, 2 applied");
    assert_eq!(world.story(1), "5 available, 0 held: deposit 100 done, withdrawal 10 done, withdrawal 11 done");
}

#[test]
fn too_many_that_wait_hear_busy_and_other_customers_do_not() {
    let (mut world, mut owner) = open();
    let lines = "
        withdrawal 1 10 4
        deposit 1 11 1
        deposit 1 12 1
        deposit 1 13 1
        deposit 1 14 1
        deposit 2 15 1";
    owner.submit_all(&mut world, 1, lines);
    owner.run(&mut world, 2);
    assert_eq!(owner.codes(), "5 busy, 6 applied");
    owner.submit_all(&mut world, 7, "deposit 1 16 1\n deposit 2 17 1");
    owner.run(&mut world, 2);
    assert_eq!(owner.codes(), "5 busy, 6 applied, 7 busy, 8 applied");
    rail(&mut owner, &mut world, 3, Verdict::Acted);
    owner.run(&mut world, 3);
    assert_eq!(owner.codes(), "1 applied, 2 applied, 3 applied, 4 applied, 5 busy, 6 applied, 7 busy, 8 applied");
}

#[test]
fn an_id_reserved_by_anothers_open_event_is_pending() {
    let (mut world, mut owner) = open();
    owner.submit_all(&mut world, 1, "withdrawal 1 10 4\n deposit 2 10 5");
    owner.run(&mut world, 2);
    assert_eq!(owner.codes(), "2 transaction_pending");
    rail(&mut owner, &mut world, 3, Verdict::Refused("no"));
    owner.submit_all(&mut world, 3, "deposit 2 10 5");
    owner.run(&mut world, 3);
    assert_eq!(owner.codes(), "1 rail_refused, 2 transaction_pending, 3 applied");
}

#[test]
fn after_a_restart_the_rail_is_asked_again_with_the_same_key() {
    for verdict in [Verdict::Acted, Verdict::Refused("no")] {
        let (mut world, mut owner) = open();
        owner.submit_all(&mut world, 1, "withdrawal 1 10 4");
        owner.run(&mut world, 2);
        let first = world.calls.pop().unwrap();
        world.act(&first, verdict.clone());
        drop(owner);
        world.watched.clear();
        world.crash(|_| 0);

        let mut owner = Owner::open(&world, routes(), false, 2);
        owner.submit_all(&mut world, 2, "deposit 1 11 1");
        owner.run(&mut world, 3);
        assert_eq!(world.calls.len(), 1);
        assert_eq!((world.calls[0].event.id(), world.calls[0].attempt), (first.event.id(), 1));
        assert_eq!(owner.codes(), "", "the customer stays locked until the rail has told");
        rail(&mut owner, &mut world, 4, Verdict::Refused("never"));
        owner.run(&mut world, 4);
        assert_eq!(owner.codes(), "2 applied");
        let balance = if verdict == Verdict::Acted { "7 available" } else { "11 available" };
        assert!(world.story(1).starts_with(balance), "{}", world.story(1));
    }
}

/// The event for the rail loses its transaction to another owner, so it is aborted before any call. An answer
/// for it can only come from a confused rail; the customer's next event must not count as answered by it.
#[test]
fn an_answer_to_an_event_given_up_does_not_close_the_next_one() {
    let (mut world, mut owner) = open();
    let mut other = Owner::open(&world, Routes::default(), false, 2);
    owner.submit_all(&mut world, 1, "withdrawal 1 10 4\n withdrawal 1 11 4");
    owner.run_to(&mut world, 2, Step::Propose);
    other.submit_all(&mut world, 3, "deposit 2 10 5");
    other.run(&mut world, 2);
    let id = owner.batch.proposals()[0].event.id;
    owner.machine.rail_answered(2, id, RailAnswer::Done);
    owner.run(&mut world, 2);
    owner.run(&mut world, 3);
    assert_eq!(owner.codes(), "1 transaction_id_taken");
    assert_eq!(Chain::events(&world.chains[&CustomerId::new(1)])[2].1, EventStatus::Started);
    rail(&mut owner, &mut world, 4, Verdict::Acted);
    owner.run(&mut world, 4);
    assert_eq!(owner.codes(), "1 transaction_id_taken, 2 applied");
}

/// Another owner (or an operator) closed the event while this one's rail was still thinking.
#[test]
fn what_somebody_else_has_closed_is_answered_as_it_was_closed() {
    let operator = AbortReason::Operator(ReasonText::new("by hand"));
    for (closed, expected) in [
        (EventStatus::Done, "1 applied, 2 applied"),
        (EventStatus::DoneByHand(ReasonText::new("by hand")), "1 applied, 2 applied"),
        (EventStatus::Aborted(operator), "1 rail_refused, 2 applied"),
        (EventStatus::Aborted(AbortReason::TransactionConflict), "again"),
    ] {
        let (mut world, mut owner) = open();
        owner.submit_all(&mut world, 1, "withdrawal 1 10 4\n deposit 1 11 1");
        owner.run(&mut world, 2);
        let call = world.calls.pop().unwrap();
        let event = call.event.reference();
        let record = crate::event::Record::closing(event, &closed).unwrap();
        assert_eq!(world.append(&[record], |_| true), [Appended::Yes]);
        owner.machine.rail_answered(3, event.id, RailAnswer::Done);
        world.watched.get_mut(&Ticket(1)).unwrap().possible.insert("rail_refused");
        let refused = Verdict::Refused("never");
        if expected.starts_with("1 rail_refused") {
            world.book.insert(event.id, (call.event.clone(), refused));
        }
        owner.run(&mut world, 3);
        if expected == "again" {
            assert_eq!(owner.codes(), "", "the event says nothing of its request, and who waits goes on waiting");
            rail(&mut owner, &mut world, 4, Verdict::Acted);
            owner.run(&mut world, 4);
            assert_eq!(owner.codes(), "1 applied, 2 applied");
        } else {
            assert_eq!(owner.codes(), expected);
        }
    }
}

/// An operator settles what the rail cannot tell; the reason is under the chain, and who waits goes on from there.
#[test]
fn an_event_is_settled_by_hand_once() {
    let reason = ReasonText::new("seen on the statement of today");
    for (settlement, codes, story) in [
        (
            Settlement::Done(reason.clone()),
            "1 applied, 2 applied",
            "7 available, 0 held: deposit 100 done, withdrawal 10 done, deposit 11 done",
        ),
        (
            Settlement::Aborted(reason.clone()),
            "1 rail_refused, 2 applied",
            "11 available, 0 held: deposit 100 done, withdrawal 10 aborted, deposit 11 done",
        ),
    ] {
        let (mut world, mut owner) = open();
        owner.submit_all(&mut world, 1, "withdrawal 1 10 4\n deposit 1 11 1");
        owner.run(&mut world, 2);
        let call = world.calls.pop().unwrap();
        let event = call.event.reference();
        let verdict = if codes.contains("refused") { Verdict::Refused("never") } else { Verdict::Acted };
        world.book.insert(event.id, (call.event.clone(), verdict));
        assert_eq!(owner.machine.settle(EventId::default(), &settlement), Settling::NotOpen);
        assert_eq!(owner.machine.settle(event.id, &settlement), Settling::Begun);
        // The rail's own answer comes too late, and so does a second settlement.
        owner.machine.rail_answered(3, event.id, refusal("never"));
        let other = Settlement::Aborted(ReasonText::new("another"));
        assert_eq!(owner.machine.settle(event.id, &other), Settling::CameFirst);
        world.watched.get_mut(&Ticket(1)).unwrap().possible.insert("rail_refused");
        owner.run_to(&mut world, 3, Step::Finish);
        assert_eq!(owner.batch.ends(), [(event, settlement.status())]);
        owner.run(&mut world, 3);
        owner.run(&mut world, 3);
        assert_eq!((owner.codes(), world.story(1)), (codes.into(), story.into()));
        assert_eq!(owner.machine.settle(event.id, &settlement), Settling::NotOpen);
        let events = world.chains[&CustomerId::new(1)].events();
        let (before, settled) = (&events[0].0.hash, &events[1].0.hash);
        let link = match &settlement {
            Settlement::Done(reason) => done_by_hand_link(before, settled, reason),
            Settlement::Aborted(reason) => aborted_link(before, settled, &AbortReason::Operator(reason.clone())),
        };
        assert_eq!(events[2].0.hash, events[2].0.event.hash(&link), "what follows covers the reason");
    }
}

/// A rail is asked by its own schedule, and not of itself any more behind its deadline.
#[test]
fn a_rail_is_asked_by_its_schedule_until_its_deadline() {
    let (mut world, _) = open();
    let schedule = Schedule { first_ms: 10, factor: 3, max_ms: 50, deadline_ms: Some(150) };
    let schedules = [(RailId::new(1).unwrap(), schedule)];
    let mut owner = Owner::open(&world, routes(), false, 1);
    owner.machine = owner.machine.with_schedules(schedules.into());
    owner.submit_all(&mut world, 1, "withdrawal 1 10 4");
    owner.run(&mut world, 1000);
    let (mut now_ms, mut asked) = (1000, Vec::new());
    let call = world.calls.pop().unwrap();
    loop {
        owner.machine.rail_answered(now_ms, call.event.id(), RailAnswer::Unknown);
        let Some(due_ms) = owner.machine.next_due_ms() else { break };
        assert_eq!(owner.machine.due_calls(due_ms - 1), []);
        assert_eq!(owner.machine.due_calls(due_ms).len(), 1);
        now_ms = due_ms;
        asked.push(due_ms - 1000);
    }
    assert_eq!(asked, [10, 40, 90, 140, 150]);
    let pending: Vec<_> = owner.machine.pending().collect();
    assert_eq!((pending[0].asking, pending[0].call_count, pending[0].deadline_ms), (Asking::Stopped, 6, Some(1150)));
    // Nor only because the ledger is opened again; and an answer that comes all the same is taken.
    let mut owner = Owner::open(&world, routes(), false, 1);
    owner.machine = owner.machine.with_schedules(schedules.into());
    owner.run(&mut world, 1150);
    assert!(world.calls.is_empty());
    assert_eq!(owner.machine.pending().next().map(|pending| pending.asking), Some(Asking::Stopped));
    let answer = world.act(&call, Verdict::Acted);
    owner.machine.rail_answered(1151, call.event.id(), answer);
    owner.run(&mut world, 1151);
    assert_eq!(world.story(1), "6 available, 0 held: deposit 100 done, withdrawal 10 done");
}

#[test]
fn an_open_event_that_is_gone_stops_the_engine() {
    let (mut world, mut owner) = open();
    owner.submit_all(&mut world, 1, "withdrawal 1 10 4");
    owner.run(&mut world, 2);
    let id = world.calls.pop().unwrap().event.id();
    let chain = world.chains.get_mut(&CustomerId::new(1)).unwrap();
    chain.records.pop();
    owner.machine.rail_answered(3, id, RailAnswer::Done);
    owner.run_to(&mut world, 3, Step::AppendClosed);
    let results = world.append(owner.batch.closed(), |_| true);
    assert!(matches!(owner.machine.closed(&mut owner.batch, &results), Err(Broken::Store { .. })));
}
