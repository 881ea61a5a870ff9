//! Keys and conditions: what they let happen once, or not at all.

use super::super::*;
use super::owner::Owner;
use super::world::{World, config};
use crate::event::RailId;
use crate::policy::{DisputablePolicy, LockedPolicy};
use crate::transaction::EntryId;
use alloc::string::String;
use alloc::vec::Vec;

fn open_world() -> World {
    World::new(config(LockedPolicy::Nothing, DisputablePolicy::Deposits))
}

/// What happens to requests, each batch on lines of its own: after `before`, in stores of either kind.
fn outcomes(batches: &[&str]) -> [String; 3] {
    [(true, true), (true, false), (false, false)].map(|(whole_batches, at_once)| {
        let mut world = open_world();
        let mut owner = Owner::open(&world, Routes::default(), whole_batches, 1);
        if at_once {
            owner = owner.deciding_at_once();
        }
        let mut ticket = 1;
        for batch in batches {
            owner.submit_all(&mut world, ticket, batch);
            ticket += batch.lines().count() as u64;
            for _ in 0..1000 {
                if owner.step(&mut world, 1) == super::owner::Did::Nothing {
                    break;
                }
                if !whole_batches || !owner.in_batch {
                    world.check();
                }
            }
        }
        let mut answers: Vec<_> = owner.answers.iter().map(|a| (a.ticket.0, super::owner::code(&a.result))).collect();
        answers.sort_unstable();
        answers.into_iter().map(|(_, code)| code).collect::<Vec<_>>().join(" ")
    })
}

/// Each line: batches by `|`, requests by `;`, and what they hear.
#[test]
fn what_requests_with_terms_hear() {
    for line in "
        deposit 1 10 5; dispute 1 10 key=1; dispute 1 10 key=1 = applied applied already_applied
        deposit 1 10 5; dispute 1 10 key=1 | dispute 1 10 key=1 = applied applied already_applied
        deposit 1 10 5; dispute 1 10 key=1 | resolve 1 10 key=1 = applied applied idempotency_key_reused
        deposit 1 10 5; dispute 1 10 key=1; resolve 1 10 key=2; dispute 1 10 key=1 = applied applied applied already_applied
        deposit 1 10 5; deposit 1 11 5; dispute 1 10 key=1; dispute 1 11 key=1 = applied applied applied idempotency_key_reused
        deposit 1 10 5; deposit 2 11 5; dispute 1 10 key=1 | dispute 2 11 key=1 = applied applied applied idempotency_key_reused
        deposit 1 10 5; resolve 1 10 key=1; dispute 1 10 key=1 = applied not_disputed applied
        deposit 1 10 5; dispute 1 10; chargeback 1 10; unlock 1 key=3 | unlock 1 key=3; unlock 1 = applied applied applied applied already_applied not_locked
        deposit 1 10 5; dispute 1 10; chargeback 1 10; unlock 1 key=10 | deposit 2 11 5; dispute 2 11 key=10 = applied applied applied applied applied idempotency_key_reused
        deposit 1 10 5 key=1 = idempotency_key_not_allowed
        deposit 1 10 5; deposit 1 10 5 key=1; withdrawal 1 11 2 key=1 = applied idempotency_key_not_allowed idempotency_key_not_allowed
        deposit 1 10 5; dispute 1 10 key=10; withdrawal 1 10 5 = applied applied transaction_id_taken
        deposit 1 10 5; dispute 1 10 key=11 | deposit 1 11 7 = applied applied applied
        deposit 1 10 5 expect=0; deposit 1 11 5 expect=0; deposit 1 11 5 expect=1 = applied seq_mismatch applied
        deposit 1 10 5 expect=0 | deposit 1 10 5 expect=0 = applied already_applied
        deposit 1 10 5; withdrawal 1 11 9 expect=7 = applied insufficient_funds
        deposit 1 10 5; withdrawal 1 11 3 left=3; withdrawal 1 11 3 left=2 = applied below_minimum applied
        deposit 1 10 5 left=6; deposit 1 10 5 left=5 = below_minimum applied
        deposit 1 10 5; dispute 1 10 key=1 left=1; dispute 1 10 key=1 left=0 | dispute 1 10 key=1 left=9 = applied below_minimum applied already_applied
        deposit 1 10 5; withdrawal 1 11 3 expect=9 left=9 = applied seq_mismatch
    "
    .lines()
    .map(str::trim)
    .filter(|line| !line.is_empty())
    {
        let (requests, expected) = line.rsplit_once(" = ").unwrap();
        let batches: Vec<_> = requests.split('|').map(|batch| batch.replace(';', "\n")).collect();
        let batches: Vec<_> = batches.iter().map(String::as_str).collect();
        assert_eq!(outcomes(&batches), [expected, expected, expected], "{line}");
    }
}

/// A request with a key that is used takes one step more, and only that one.
#[test]
fn a_used_key_is_recalled_from_its_chain() {
    let mut world = open_world();
    let mut owner = Owner::open(&world, Routes::default(), false, 1);
    owner.submit_all(&mut world, 1, "deposit 1 10 5\n dispute 1 10 key=1");
    owner.run(&mut world, 1);
    owner.submit_all(&mut world, 3, "dispute 1 10 key=1");
    owner.run_to(&mut world, 1, Step::Recall);
    let event = owner.batch.to_recall()[0];
    assert_eq!((event.customer, event.seq), (CustomerId::new(1), 2));
    let mut broken = owner.clone();
    let result = broken.machine.recalled(&mut broken.batch, [None]);
    assert!(matches!(result, Err(Broken::EventMissing { entry: EntryId::Key(_), .. })), "{result:?}");
    owner.step(&mut world, 1);
    assert_eq!(owner.next_step(), Some(Step::Sync));
    owner.run(&mut world, 1);
    let Ok(Outcome::AlreadyApplied(Some(receipt))) = &owner.answers[2].result else {
        panic!("{:?}", owner.answers);
    };
    assert_eq!(receipt.event, event);
}

/// Whoever repeats a request that still waits for somebody else's rail hears so, and the first goes its way.
#[test]
fn a_key_that_waits_is_in_progress() {
    let routes = Routes { deposit: None, withdrawal: RailId::new(1) };
    let mut world = open_world();
    let mut owner = Owner::open(&world, routes, false, 1);
    owner.submit_all(&mut world, 1, "deposit 1 10 5\n withdrawal 1 11 1\n dispute 1 10 key=1\n dispute 1 10 key=1");
    owner.run(&mut world, 1);
    assert_eq!(owner.codes(), "1 applied, 4 request_in_progress");
    owner.submit_all(&mut world, 5, "dispute 1 10 key=1\n dispute 1 10 key=2");
    owner.run(&mut world, 2);
    assert_eq!(owner.codes(), "1 applied, 4 request_in_progress, 5 request_in_progress");
    let call = world.calls.pop().unwrap();
    owner.machine.rail_answered(3, call.event.id(), RailAnswer::Done);
    owner.run(&mut world, 3);
    let expected = "1 applied, 2 applied, 3 applied, 4 request_in_progress, 5 request_in_progress, 6 already_disputed";
    assert_eq!(owner.codes(), expected);
}

/// Two owners want one key for two customers: the one whose proposal comes second gives its event up.
#[test]
fn on_one_key_exactly_one_wins() {
    let mut world = open_world();
    let mut one = Owner::open(&world, Routes::default(), false, 1);
    one.submit_all(&mut world, 1, "deposit 1 10 5\n deposit 2 20 5");
    one.run(&mut world, 1);
    let mut two = Owner::open(&world, Routes::default(), false, 2);
    one.submit_all(&mut world, 3, "dispute 1 10 key=1");
    two.submit_all(&mut world, 4, "dispute 2 20 key=1");
    one.run_to(&mut world, 2, Step::Propose);
    two.run_to(&mut world, 2, Step::Propose);
    two.run(&mut world, 2);
    one.run(&mut world, 2);
    assert_eq!(
        (one.codes(), two.codes()),
        ("1 applied, 2 applied, 3 idempotency_key_reused".into(), "4 applied".into())
    );
    assert_eq!(world.story(1), "5 available, 0 held: deposit 10 done, dispute 10 aborted");
}

/// An owner dies between the two proposals of an event, and another customer takes its key. Recovery sees that the
/// event, whose first proposal stands in the table, cannot take effect any more.
#[test]
fn an_event_with_half_its_proposals_gives_way() {
    for (kept, first) in [("transaction", "aborted"), ("key", "done")] {
        let mut world = open_world();
        let mut one = Owner::open(&world, Routes::default(), false, 1);
        one.submit_all(&mut world, 1, "deposit 1 10 5\n deposit 2 20 5");
        one.run(&mut world, 1);
        let mut two = Owner::open(&world, Routes::default(), false, 2);
        one.submit_all(&mut world, 3, "dispute 1 10 key=1");
        one.run_to(&mut world, 2, Step::Propose);
        let is_kept = |proposal: &&Proposal| matches!(proposal.entry, EntryId::Key(_)) == (kept == "key");
        let some: Vec<_> = one.batch.proposals().iter().filter(is_kept).copied().collect();
        assert_eq!(some.len(), 1);
        world.propose(&some);
        drop(one);
        world.watched.clear();
        two.submit_all(&mut world, 4, "dispute 2 20 key=1");
        two.run(&mut world, 3);
        let mut three = Owner::open(&world, Routes::default(), false, 3);
        three.run(&mut world, 4);
        let story = world.story(1);
        assert!(story.ends_with(&alloc::format!("dispute 10 {first}")), "{kept}: {story}");
        let expected = if first == "done" { "4 idempotency_key_reused" } else { "4 applied" };
        assert_eq!(two.codes(), expected, "{kept}");
        world.check();
    }
}

/// A key of an event that was lost with its chain is free again, and so is the id of the event.
#[test]
fn a_key_whose_event_was_lost_is_free() {
    let mut world = open_world();
    let mut owner = Owner::open(&world, Routes::default(), false, 1);
    owner.submit_all(&mut world, 1, "deposit 1 10 5\n dispute 1 10\n chargeback 1 10");
    owner.run(&mut world, 1);
    owner.submit_all(&mut world, 4, "unlock 1 key=1");
    owner.run_to(&mut world, 1, Step::AppendClosed);
    world.watched.clear();
    let lost = owner.batch.proposals()[0];
    world.crash(|_| 0);
    let mut owner = Owner::open(&world, Routes::default(), false, 2);
    owner.submit_all(&mut world, 5, "unlock 1 key=1");
    owner.run(&mut world, 1);
    assert_eq!(owner.codes(), "5 applied");
    let entry = world.entry(lost.entry);
    assert_ne!(entry.proposed.map(|proposed| proposed.event), Some(lost.event));
}
