//! The transactions table: conditional proposals, approvals, and the events of a transaction.

use super::scene::{Scene, customer, deposit, dispute, resolve, withdrawal};
use super::{Case, Checked, equal, holds};
use bursar_core::commit::{Approval, Proposal, ProposeResult};
use bursar_core::{
    AbortReason, EventStatus, LinkedEvent, ReasonText, Record, TransactionEntry, TransactionId, TransactionState,
};

pub(super) const CASES: &[Case] = &[
    ("a_proposal_needs_what_it_saw", a_proposal_needs_what_it_saw),
    ("a_proposal_may_miss_an_approval", a_proposal_may_miss_an_approval),
    ("a_proposal_made_twice_is_made_once", a_proposal_made_twice),
    ("an_entry_does_not_come_back_to_what_a_slow_owner_saw", no_way_back),
    ("an_approval_of_another_event_does_nothing", a_stray_approval),
    ("the_proposal_of_an_aborted_event_does_not_count", an_aborted_proposal),
    ("a_second_proposal_within_a_batch_rests_on_the_first", twice_in_a_batch),
    ("the_events_of_a_transaction_are_found_oldest_first", events_of),
    ("unknown_transactions_have_empty_entries", unknown_transactions),
];

fn started(scene: &Scene, run: &[LinkedEvent]) -> Checked {
    scene.append_all(&run.iter().cloned().map(Record::Started).collect::<Vec<_>>())
}

fn posted(scene: &Scene, transaction: u128) -> Option<TransactionState> {
    scene.table.get(&TransactionId::new(transaction)).copied()
}

/// Closes what the batch began, ends it, and tells the model.
fn finish(scene: &mut Scene, run: Vec<LinkedEvent>) -> Checked {
    scene.append_all(&run.iter().map(|linked| Record::Done(linked.reference())).collect::<Vec<_>>())?;
    scene.stores.chains.end_batch(scene.time_ms, None)?;
    scene.approve(&run)?;
    for linked in run {
        scene.totals.begun(&linked.event);
        scene.note(linked, EventStatus::Done);
    }
    scene.check()
}

fn a_proposal_needs_what_it_saw(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10), deposit(2, 2, 10)])?;
    let run = scene.decide(&[dispute(1, 1)])?.events;
    started(scene, &run)?;
    let Some(right) = scene.proposal(&run[0])? else { return holds("a dispute proposes", false) };
    let other = posted(scene, 2);
    let another = scene.decide(&[deposit(2, 3, 10)])?.events[0].id();
    let nothing = Proposal { seen_approved: None, approved: None, ..right };
    let wrong = [
        ("something else approved", Proposal { seen_approved: other, approved: other, ..right }),
        ("something else proposed", Proposal { seen_proposed: Some(another), ..right }),
    ];
    // A table that puts approvals off says itself that nothing is approved yet.
    let is_approved = scene.entry(right.entry)?.approved.is_some();
    let nothing = is_approved.then_some(("nothing approved", nothing));
    for (what, proposal) in nothing.into_iter().chain(wrong) {
        let before = scene.entry(proposal.entry)?;
        equal(what, &scene.propose(&[proposal])?, &vec![ProposeResult::Conflict])?;
        equal(what, &scene.entry(proposal.entry)?, &before)?;
    }
    // Each is judged by itself, in order.
    let results = scene.propose(&[wrong[0].1, right, wrong[1].1])?;
    // The last one names the event that is there by then.
    let expected = vec![ProposeResult::Conflict, ProposeResult::Proposed, ProposeResult::Proposed];
    equal("one of three", &results, &expected)?;
    let entry = scene.entry(right.entry)?;
    equal("proposed", &entry.proposed.map(|proposed| proposed.state), &Some(right.state))?;
    equal("approved is kept", &entry.approved, &posted(scene, 1))?;
    finish(scene, run)
}

/// Whoever read the entry before somebody approved what it proposes has seen all there is.
fn a_proposal_may_miss_an_approval(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10)])?;
    let run = scene.decide(&[dispute(1, 1)])?.events;
    started(scene, &run)?;
    let Some(right) = scene.proposal(&run[0])? else { return holds("a dispute proposes", false) };
    let slow = Proposal { seen_approved: None, ..right };
    equal("approved meanwhile", &scene.propose(&[slow])?, &vec![ProposeResult::Proposed])?;
    let entry = scene.entry(right.entry)?;
    equal("approved", &entry.approved, &posted(scene, 1))?;
    finish(scene, run)
}

fn a_proposal_made_twice(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10)])?;
    let run = scene.decide(&[dispute(1, 1)])?.events;
    started(scene, &run)?;
    let Some(proposal) = scene.proposal(&run[0])? else { return holds("a dispute proposes", false) };
    scene.propose_all(&[proposal])?;
    let before = scene.entry(proposal.entry)?;
    // Whatever else it says: the entry proposes this event already, and nothing is written.
    scene.propose_all(&[proposal, Proposal { seen_approved: None, approved: None, ..proposal }])?;
    equal("the entry", &scene.entry(proposal.entry)?, &before)?;
    finish(scene, run)
}

/// Posted, disputed, posted again: an owner that saw the first state must not find its condition met once more.
fn no_way_back(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10)])?;
    let slow = scene.decide(&[dispute(1, 1)])?.events;
    let Some(proposal) = scene.proposal(&slow[0])? else { return holds("a dispute proposes", false) };
    scene.commit(&[dispute(1, 1)])?;
    scene.commit(&[resolve(1, 1)])?;
    let entry = scene.entry(TransactionId::new(1))?;
    equal("the state is back", &scene.in_effect(&entry)?, &proposal.approved)?;
    if scene.is_whole() {
        // A store of one owner has no slow owners, and need not keep who wrote last.
        return scene.check();
    }
    equal("the slow owner", &scene.propose(&[proposal])?, &vec![ProposeResult::Conflict])?;
    scene.check()
}

fn a_stray_approval(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10)])?;
    let open = scene.open(&withdrawal(1, 2, 3))?;
    let Some(state) = open.event.transaction_state() else { return holds("a withdrawal has a state", false) };
    let stranger = scene.decide(&[deposit(2, 3, 10)])?.events[0].id();
    let stray = Approval { entry: TransactionId::new(2).into(), event: stranger, state };
    let unknown = Approval { entry: TransactionId::new(99).into(), event: stranger, state };
    scene.stores.transactions.approve(&[stray, unknown])?;
    let entry = scene.entry(TransactionId::new(2))?;
    equal("nothing is approved", &entry.approved, &None)?;
    equal("the proposal stands", &entry.proposed.map(|proposed| proposed.event), &Some(open.reference()))?;
    equal("an entry for nothing", &scene.entry(TransactionId::new(99))?, &TransactionEntry::default())?;
    scene.close(&open, &EventStatus::Done)?;
    // Approved twice is approved once.
    scene.approve(std::slice::from_ref(&open))?;
    scene.check()
}

fn an_aborted_proposal(scene: &mut Scene) -> Checked {
    let open = scene.open(&deposit(1, 1, 10))?;
    scene.close(&open, &EventStatus::Aborted(AbortReason::RailRefused(ReasonText::new("no"))))?;
    let entry = scene.entry(TransactionId::new(1))?;
    equal("in effect", &scene.in_effect(&entry)?, &None)?;
    equal("events", &scene.events_of(TransactionId::new(1))?, &Vec::new())?;
    // The id is free, also for somebody else.
    scene.commit(&[deposit(2, 1, 30)])?;
    equal("whose", &posted(scene, 1).map(|state| state.customer), &Some(customer(2)))?;
    scene.check()
}

fn twice_in_a_batch(scene: &mut Scene) -> Checked {
    if !scene.is_whole() {
        return Ok(());
    }
    scene.commit(&[deposit(1, 1, 10)])?;
    let run = scene.decide(&[dispute(1, 1), resolve(1, 1)])?.events;
    started(scene, &run)?;
    let (Some(first), Some(second)) = (scene.proposal(&run[0])?, scene.proposal(&run[1])?) else {
        return holds("both propose", false);
    };
    let resting = Proposal {
        seen_approved: first.approved,
        seen_proposed: Some(first.event.id),
        approved: Some(first.state),
        ..second
    };
    let results = scene.propose(&[first, second, resting])?;
    // The second without the first in view is a conflict.
    equal("results", &results[..2], &[ProposeResult::Proposed, ProposeResult::Conflict])?;
    equal("resting on the first", &results[2], &ProposeResult::Proposed)?;
    finish(scene, run)
}

fn events_of(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10), deposit(2, 2, 10)])?;
    for request in [dispute(1, 1), resolve(1, 1), dispute(1, 1), resolve(1, 1), dispute(1, 1)] {
        scene.commit(&[request, deposit(1, u128::from(scene.time_ms), 1)])?;
    }
    let events = scene.events_of(TransactionId::new(1))?;
    equal("their places", &events.iter().map(|event| event.seq).collect::<Vec<_>>(), &vec![1, 2, 4, 6, 8, 10])?;
    let open = scene.open(&withdrawal(2, 5, 3))?;
    equal("an open one", &scene.events_of(TransactionId::new(5))?, &vec![open.reference()])?;
    equal("none", &scene.events_of(TransactionId::new(77))?, &Vec::new())?;
    scene.check()
}

fn unknown_transactions(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 5, 10)])?;
    let ids = [4, 5, 6, 4].map(|id| TransactionId::new(id).into());
    let mut entries = Vec::new();
    scene.stores.transactions.get(&ids, &mut entries)?;
    equal("the count of entries", &entries.len(), &4)?;
    for index in [0, 2, 3] {
        equal("an unknown one", &entries[index], &TransactionEntry::default())?;
    }
    equal("the known one", &scene.in_effect(&entries[1])?, &posted(scene, 5))
}
