//! Two owners of one ledger: the sequence check on the chains and the conditions on the table decide.

use super::super::*;
use super::owner::{Did, Owner};
use super::world::{Random, Verdict, World, config};
use crate::chain::Head;
use crate::event::{ReasonText, Record};
use crate::id::TransactionId;
use crate::policy::{DisputablePolicy, LockedPolicy};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

fn open() -> (World, Owner, Owner) {
    let world = World::new(config(LockedPolicy::Nothing, DisputablePolicy::Deposits));
    let one = Owner::open(&world, Routes::default(), false, 1);
    let two = Owner::open(&world, Routes::default(), false, 2);
    (world, one, two)
}

fn both(one: &Owner, two: &Owner) -> (String, String) {
    (one.codes(), two.codes())
}

/// Whatever step the first has got to when the second goes through, each request has its own effect once.
#[test]
fn on_one_customer_the_loser_decides_anew() {
    for steps in 0..9 {
        let (mut world, mut one, mut two) = open();
        one.submit_all(&mut world, 1, "deposit 1 10 5\n withdrawal 1 11 6");
        (0..steps).for_each(|_| assert_ne!(one.step(&mut world, 1), Did::Nothing));
        two.submit_all(&mut world, 3, "deposit 1 12 4");
        two.run(&mut world, 1);
        one.run(&mut world, 1);
        two.run(&mut world, 1);
        let codes = one.codes();
        // The withdrawal has what it needs only if the other's deposit came before it was decided.
        let expected =
            if steps <= 1 || steps == 3 { "1 applied, 2 applied" } else { "1 applied, 2 insufficient_funds" };
        let either = ["1 applied, 2 applied", "1 applied, 2 insufficient_funds"];
        assert!(either.contains(&codes.as_str()), "{steps}: {codes}, {expected}");
        assert_eq!(two.codes(), "3 applied");
        let total = if codes.ends_with("funds") { "9 available" } else { "3 available" };
        assert!(world.story(1).starts_with(total), "{}", world.story(1));
        assert_eq!(world.open_customers(), []);
    }
}

#[test]
fn on_one_transaction_id_exactly_one_wins() {
    for steps in 0..9 {
        let (mut world, mut one, mut two) = open();
        one.submit_all(&mut world, 1, "deposit 1 10 5");
        (0..steps).take_while(|_| one.step(&mut world, 1) != Did::Nothing).for_each(drop);
        two.submit_all(&mut world, 2, "deposit 2 10 7");
        two.run(&mut world, 1);
        one.run(&mut world, 1);
        two.run(&mut world, 1);
        let codes = both(&one, &two);
        // From the proposal on the id is the first's, whoever rolls its event forward.
        let first = ("1 applied".into(), "2 transaction_id_taken".into());
        let second = ("1 transaction_id_taken".into(), "2 applied".into());
        assert_eq!(codes, if steps > 4 { first } else { second }, "after {steps} steps");
        assert_eq!(world.open_customers(), []);
    }
}

/// The second owner rolls the first's event forward; the first then finds it `Done`, and says so.
#[test]
fn an_event_rolled_forward_by_another_is_answered_as_applied() {
    for step in [Step::Propose, Step::AppendClosed] {
        let (mut world, mut one, mut two) = open();
        one.submit_all(&mut world, 1, "deposit 1 10 5\n deposit 1 11 1\n withdrawal 1 12 9");
        one.run_to(&mut world, 1, step);
        two.submit_all(&mut world, 4, "deposit 1 13 2");
        two.run(&mut world, 1);
        one.run(&mut world, 1);
        assert_eq!(both(&one, &two), ("1 applied, 2 applied, 3 insufficient_funds".into(), "4 applied".into()));
        assert_eq!(world.story(1), "8 available, 0 held: deposit 10 done, deposit 11 done, deposit 13 done");
    }
}

/// As above, and the second has gone on with the transaction: the first's proposal comes too late, so it wanted
/// to abort its own event, found it `Done`, and told its caller about the retry: already disputed.
#[test]
fn an_event_taken_further_by_another_is_answered_as_applied() {
    let (mut world, mut one, mut two) = open();
    one.submit_all(&mut world, 1, "deposit 1 10 5");
    one.run(&mut world, 1);
    one.submit_all(&mut world, 2, "dispute 1 10\n deposit 1 11 1");
    one.run_to(&mut world, 2, Step::Propose);
    two.submit_all(&mut world, 4, "resolve 1 10\n chargeback 1 10");
    two.run(&mut world, 2);
    one.run(&mut world, 2);
    assert_eq!(both(&one, &two), ("1 applied, 2 applied, 3 applied".into(), "4 applied, 5 not_disputed".into()));
    assert!(world.story(1).starts_with("6 available, 0 held"), "{}", world.story(1));
}

/// A slow owner has its event `Started` and sees the transaction as posted. Meanwhile another rolls the dispute
/// forward, approves it, resolves it, and approves that: the entry reads posted again. The slow owner's proposal
/// then held, and the table said disputed of what the chain says is posted.
#[test]
fn a_slow_proposal_does_not_hold_when_the_entry_looks_as_it_did() {
    let (mut world, mut slow, mut other) = open();
    slow.submit_all(&mut world, 1, "deposit 1 10 5");
    slow.run(&mut world, 1);
    slow.submit_all(&mut world, 2, "dispute 1 10");
    slow.run_to(&mut world, 2, Step::Propose);
    other.submit_all(&mut world, 3, "resolve 1 10");
    other.run(&mut world, 2);
    slow.run(&mut world, 2);
    assert_eq!(both(&slow, &other), ("1 applied, 2 applied".into(), "3 applied".into()));
    world.check();
    assert!(world.story(1).starts_with("5 available, 0 held"));
}

/// A stale owner cannot overrule what recovery has decided: neither its `Done` nor its `Aborted` holds.
#[test]
fn a_stale_owner_cannot_overrule_a_recovery() {
    for step in [Step::AppendStarted, Step::Propose, Step::AppendClosed] {
        let (mut world, mut stale, mut taker) = open();
        taker.submit_all(&mut world, 9, "deposit 2 11 1");
        stale.submit_all(&mut world, 1, "deposit 1 10 5\n deposit 1 11 1");
        stale.run_to(&mut world, 1, step);
        taker.run(&mut world, 1);
        taker.machine.recover([CustomerId::new(1)]);
        taker.run(&mut world, 1);
        let before: BTreeMap<_, _> = world.chains.iter().map(|(c, chain)| (*c, chain.events())).collect();
        stale.run(&mut world, 1);
        for (customer, events) in before {
            let after = world.chains[&customer].events();
            assert_eq!(after[..events.len()], events[..], "at {step:?}, closed is closed");
        }
        assert_eq!(stale.answers.len(), 2);
        assert_eq!(world.open_customers(), []);
    }
}

/// Where the first of a run stands and the second does not, only the second is decided anew.
#[test]
fn a_run_cut_in_the_middle_keeps_what_stands() {
    let (mut world, mut owner, _) = open();
    owner.submit_all(&mut world, 1, "deposit 1 10 5\n deposit 1 11 1\n dispute 1 9\n deposit 1 12 1");
    owner.run_to(&mut world, 1, Step::AppendStarted);
    let results = world.append(&owner.batch.started()[..1], |_| true);
    assert_eq!(results, [Appended::Yes]);
    owner.machine.started(&mut owner.batch, &[Appended::Yes, Appended::Conflict, Appended::Conflict]).unwrap();
    owner.run(&mut world, 1);
    assert_eq!(owner.codes(), "1 applied, 2 applied, 3 unknown_transaction, 4 applied");
    assert_eq!(world.story(1), "7 available, 0 held: deposit 10 done, deposit 11 done, deposit 12 done");
}

/// Whoever is decided anew keeps its place before what the same customer asked later.
#[test]
fn what_is_decided_anew_keeps_the_order_of_each_customer() {
    let mut random = Random(5);
    for _ in 0..200 {
        let (mut world, mut one, mut two) = open();
        // Each request succeeds only after the one before.
        let lines = "
            deposit 1 10 1
            withdrawal 1 11 1
            deposit 1 12 2
            dispute 1 12
            resolve 1 12
            withdrawal 1 13 2
            deposit 1 14 3
            dispute 1 14
            chargeback 1 14
            unlock 1
            deposit 1 15 4";
        one.submit_all(&mut world, 1, lines);
        let mut ticket = 100;
        for _ in 0..300 {
            if random.one_in(3) {
                if random.one_in(9) && ticket < 112 {
                    ticket += 1;
                    let line = alloc::format!("deposit 2 {ticket} 1\n deposit 1 {} 0", ticket + 100);
                    two.submit_all(&mut world, ticket * 10, &line);
                    two.machine.recover([CustomerId::new(1)]);
                }
                two.step(&mut world, 1);
            } else {
                one.step(&mut world, 1);
            }
            world.check();
        }
        two.run(&mut world, 1);
        one.run(&mut world, 1);
        let all: Vec<_> = (1..=11).map(|ticket| alloc::format!("{ticket} applied")).collect();
        assert_eq!(one.codes(), all.join(", "));
    }
}

/// A rejection is a true statement about one moment: the customer by one head, and its transaction as that
/// head has it. (The other owner charges back between this one's two looks: the head says not locked, the
/// table says charged back. No moment was like that.)
#[test]
fn a_rejection_does_not_mix_two_moments() {
    let (mut world, mut one, mut two) = open();
    one.submit_all(&mut world, 1, "deposit 1 10 5");
    one.run(&mut world, 1);
    one.submit_all(&mut world, 2, "dispute 1 10");
    one.run(&mut world, 1);
    one.submit_all(&mut world, 3, "dispute 1 10");
    one.run_to(&mut world, 1, Step::Get);
    two.submit_all(&mut world, 4, "chargeback 1 10");
    two.run(&mut world, 1);
    one.run(&mut world, 1);
    assert_eq!(one.codes(), "1 applied, 2 applied, 3 customer_locked");
}

/// Runs an owner whose heads are those given, as long as there are any; everything else is as the stores have it.
/// Gives how many batches were begun.
fn run_with_heads(owner: &mut Owner, world: &mut World, heads: &mut Vec<Option<Head>>) -> Result<usize, Broken> {
    let mut begun = 0;
    loop {
        match owner.next_step() {
            Some(Step::Load) => {
                let given = |customer: &CustomerId| heads.pop().unwrap_or_else(|| world.head(*customer));
                let heads: Vec<_> = owner.batch.customers().iter().map(given).collect();
                owner.machine.loaded(&world.digest, &mut owner.batch, heads)?;
            }
            Some(Step::Settle) => {
                let statuses: Vec<_> = owner.batch.to_settle().iter().map(|event| world.status(event)).collect();
                owner.machine.settled(&mut owner.batch, &statuses)?;
            }
            Some(Step::Recall) => {
                let events: Vec<_> = owner.batch.to_recall().iter().map(|event| world.event(event)).collect();
                owner.machine.recalled(&mut owner.batch, events)?;
            }
            _ => match owner.step(world, 1) {
                Did::Gathered => begun += 1,
                Did::Stepped(_) => {}
                Did::Nothing => return Ok(begun),
            },
        }
        assert!(begun < 20, "it asks for ever");
    }
}

/// An older copy of the chains was put beside the table. The table has approved an event that the chain does not have;
/// its customer was loaded again and again, for ever.
#[test]
fn an_approved_event_that_the_chain_does_not_have_is_an_error() {
    // By the one who asks again, by one who disputes it, and by another customer of the same batch.
    let repeats = ["deposit 1 11 7", "dispute 1 11", "withdrawal 1 12 1\n deposit 2 11 7", "dispute 1 10 key=5"];
    for asked in repeats {
        let (mut world, mut one, _) = open();
        one.submit_all(&mut world, 1, "deposit 1 10 5\n deposit 1 9 1");
        one.run(&mut world, 1);
        let older = world.chains.clone();
        one.submit_all(&mut world, 3, "deposit 1 11 7\n dispute 1 10 key=5");
        one.run(&mut world, 1);
        world.chains = older;
        let mut two = Owner::open(&world, Routes::default(), false, 2);
        two.submit_all(&mut world, 5, asked);
        let result = run_with_heads(&mut two, &mut world, &mut Vec::new());
        let Err(Broken::EventMissing { entry, event }) = result else { panic!("{asked}: {result:?}") };
        let is_dispute = asked.starts_with("dispute 1 10");
        assert_eq!((event.customer, event.seq), (CustomerId::new(1), if is_dispute { 4 } else { 3 }), "{asked}");
        let transaction = if is_dispute { 10 } else { 11 };
        let of_key = is_dispute && matches!(entry, EntryId::Key(_));
        assert!(of_key || entry == TransactionId::new(transaction).into(), "{asked}: {entry}");
    }
}

/// The same table beside a chain that has the event, and whose heads are read too old for some time: no error, however
/// long it takes, and the right answer in the end.
#[test]
fn a_head_that_is_read_too_old_is_asked_for_again() {
    for lag in 1..8 {
        let (mut world, mut one, mut two) = open();
        one.submit_all(&mut world, 1, "deposit 1 10 5");
        one.run(&mut world, 1);
        let older = world.head(CustomerId::new(1));
        one.submit_all(&mut world, 2, "withdrawal 1 11 2");
        one.run(&mut world, 1);
        two.submit_all(&mut world, 3, "withdrawal 1 11 2\n withdrawal 1 12 4\n withdrawal 1 13 3");
        let begun = run_with_heads(&mut two, &mut world, &mut alloc::vec![older; lag]).unwrap();
        assert_eq!(begun, lag + 1);
        assert_eq!(two.codes(), "3 already_applied, 4 insufficient_funds, 5 applied");
        world.check();
    }
}

/// A recovering owner loaded a customer whose open dispute had not been proposed. Its true owner aborted that, and
/// disputed again: `Started` and proposed. The recovery then wrote its proposal over that one, so that the second
/// dispute moved money and the table fell back to posted.
#[test]
fn a_stale_recovery_does_not_write_over_a_proposal_that_is_open() {
    let (mut world, mut one, mut two) = open();
    one.submit_all(&mut world, 1, "deposit 1 10 5");
    one.run(&mut world, 1);
    one.submit_all(&mut world, 2, "dispute 1 10");
    one.run_to(&mut world, 1, Step::Propose);
    two.machine.recover([CustomerId::new(1)]);
    two.run_to(&mut world, 1, Step::Get);
    // As if the entry had changed and changed back: the dispute is aborted and decided anew.
    one.machine.proposed(&mut one.batch, &[ProposeResult::Conflict]).unwrap();
    for _ in 0..2 {
        one.run_to(&mut world, 1, Step::AppendClosed);
        if world.head(CustomerId::new(1)).unwrap().seq == 1 {
            one.step(&mut world, 1);
        }
    }
    two.run_to(&mut world, 1, Step::Finish);
    one.run(&mut world, 1);
    two.run(&mut world, 1);
    assert_eq!(both(&one, &two), ("1 applied, 2 applied".into(), String::new()));
    assert_eq!(world.story(1), "0 available, 5 held: deposit 10 done, dispute 10 aborted, dispute 10 done");
    world.check();
}

/// An operator aborts the first event of a run before its owner has closed it. What was decided on top of it is
/// void, a rejection too: its figures rest on money that never came.
#[test]
fn what_was_decided_on_top_of_an_event_aborted_by_another_is_void() {
    let (mut world, mut one, _) = open();
    one.submit_all(&mut world, 1, "deposit 1 10 5\n withdrawal 1 11 6\n deposit 1 12 1");
    one.run_to(&mut world, 1, Step::AppendClosed);
    let Some(Record::Done(event)) = one.batch.closed().first().cloned() else { panic!("no record") };
    let linked = world.chains[&event.customer].events()[0].0.clone();
    world.book.insert(event.id, (linked, Verdict::Refused("never")));
    let aborted = Record::Aborted(event, AbortReason::Operator(ReasonText::new("by hand")));
    assert_eq!(world.append(&[aborted], |_| true), [Appended::Yes]);
    one.run(&mut world, 1);
    assert_eq!(one.codes(), "1 rail_refused, 2 insufficient_funds, 3 applied");
    let steps = Amount::from_steps;
    let (currency, asked, available) = (CurrencyIndex(0), steps(6), steps(0));
    let rejection = Rejection::InsufficientFunds { currency, asked, available };
    assert!(one.answers.iter().any(|answer| answer.result == Ok(Outcome::Rejected(rejection.clone()))));
    assert_eq!(world.story(1), "1 available, 0 held: deposit 10 aborted, deposit 12 aborted, deposit 12 done");
}
