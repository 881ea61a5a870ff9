//! Appending: exactly the next sequence number, closing once, and what follows a record that was not taken.

use super::scene::{Scene, customer, deposit, dispute, withdrawal};
use super::{Case, Checked, equal, holds};
use crate::store::ReadRange;
use bursar_core::commit::Appended;
use bursar_core::{AbortReason, EventId, EventRef, EventStatus, Head, LinkedEvent, RailId, ReasonText, Record};

pub(super) const CASES: &[Case] = &[
    ("nothing_is_in_new_stores", nothing_is_in_new_stores),
    ("an_event_is_taken_only_at_exactly_the_next_place", next_place),
    ("what_follows_a_conflict_in_the_same_call_is_one_too", after_a_conflict),
    ("an_abort_is_judged_by_itself", an_abort_is_judged_by_itself),
    ("the_first_end_of_an_event_wins", the_first_end_wins),
    ("only_the_oldest_open_event_can_be_closed", only_the_oldest),
    ("runs_of_one_customer_are_taken_whole", runs),
    ("events_stay_open_until_they_are_closed", open_events),
    ("an_aborted_event_stays_and_the_next_one_links_to_it", aborted_events),
    ("results_are_added_to_what_the_caller_has", results_are_added),
    ("nobody_is_shown_without_an_event", nobody_without_an_event),
    ("where_batches_are_split_what_was_appended_is_seen_at_once", seen_at_once),
];

fn nothing_is_in_new_stores(scene: &mut Scene) -> Checked {
    scene.check()?;
    let mut heads = Vec::new();
    scene.stores.chains.load(&[customer(1), customer(2)], &mut heads)?;
    equal("heads", &heads, &vec![None, None])?;
    equal("sources", &scene.stores.chains.sources()?, &Vec::new())?;
    let mut entries = Vec::new();
    scene.stores.chains.read(customer(1), ReadRange::ALL, &mut entries)?;
    equal("a chain", &entries, &Vec::new())
}

/// Ends a batch in which nothing was taken.
fn end(scene: &Scene) -> Checked {
    Ok(scene.stores.chains.end_batch(scene.time_ms, None)?)
}

fn at_seq(scene: &Scene, head: &Head, seq: u64, transaction: u128) -> Result<LinkedEvent, super::Wrong> {
    let head = Head { seq: seq - 1, ..head.clone() };
    scene.event(&head, &deposit(1, transaction, 5), None)
}

fn next_place(scene: &mut Scene) -> Checked {
    let empty = scene.head(customer(1));
    for seq in [2, 3, u64::MAX] {
        let early = at_seq(scene, &empty, seq, 1)?;
        equal(
            "a first event that is not the first",
            &scene.append(&[Record::Started(early)])?,
            &vec![Appended::Conflict],
        )?;
    }
    end(scene)?;
    scene.check()?;
    scene.commit(&[deposit(1, 1, 10), deposit(1, 2, 10)])?;
    let head = scene.head(customer(1));
    for seq in [1, 2, 4, 5] {
        let wrong = at_seq(scene, &head, seq, 9)?;
        equal("an event at a wrong place", &scene.append(&[Record::Started(wrong)])?, &vec![Appended::Conflict])?;
    }
    end(scene)?;
    scene.check()?;
    let open = scene.open(&withdrawal(1, 3, 5))?;
    for seq in [3, 5] {
        let wrong = at_seq(scene, &head, seq, 9)?;
        let results = scene.append(&[Record::Started(wrong)])?;
        equal("an event at a wrong place behind an open one", &results, &vec![Appended::Conflict])?;
    }
    end(scene)?;
    scene.close(&open, &EventStatus::Done)?;
    scene.commit(&[deposit(1, 4, 10)])?;
    scene.check()
}

fn after_a_conflict(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10)])?;
    let head = scene.head(customer(1));
    // A run of three, the first of which comes too late: the second would fit on top of somebody else's event.
    let late: Vec<LinkedEvent> = [(1, 11), (2, 12), (3, 13)]
        .into_iter()
        .map(|(seq, id)| at_seq(scene, &head, seq, id))
        .collect::<Result<_, _>>()?;
    let other = scene.decide(&[deposit(2, 21, 5)])?.events.remove(0);
    let records = [
        Record::Started(late[0].clone()),
        Record::Started(other.clone()),
        Record::Started(late[1].clone()),
        Record::Started(late[2].clone()),
        Record::Done(late[1].reference()),
    ];
    let mut expected = vec![Appended::Conflict; 5];
    expected[1] = Appended::Yes;
    equal("a run that came too late", &scene.append(&records)?, &expected)?;
    scene.append_all(&[Record::Done(other.reference())])?;
    end(scene)?;
    scene.totals.begun(&other.event);
    scene.note(other, EventStatus::Done);
    // In the next call everything is judged anew.
    scene.commit(&[deposit(1, 12, 5)])?;
    let mut heads = Vec::new();
    scene.stores.chains.load(&[customer(1)], &mut heads)?;
    equal("the chain's length", &heads.pop().flatten().map(|head| head.seq), &Some(2))
}

fn an_abort_is_judged_by_itself(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10)])?;
    let open = scene.open(&withdrawal(1, 2, 5))?;
    let reason = AbortReason::Operator(ReasonText::new("it never left"));
    let stranger = EventRef { id: EventId::from_first_bits(77), ..open.reference() };
    let records =
        [Record::Done(stranger), Record::Done(open.reference()), Record::Aborted(open.reference(), reason.clone())];
    let results = scene.append(&records)?;
    equal("done, done, aborted", &results, &vec![Appended::Conflict, Appended::Conflict, Appended::Yes])?;
    end(scene)?;
    scene.note_closed(&open, &EventStatus::Aborted(reason));
    scene.check()
}

fn the_first_end_wins(scene: &mut Scene) -> Checked {
    let refused = AbortReason::RailRefused(ReasonText::new("no such account"));
    let conflict = AbortReason::TransactionConflict;
    let by_hand = ReasonText::new("seen in the bank's book");
    scene.commit(&[deposit(1, 1, 10), deposit(2, 2, 10), deposit(4, 10, 10)])?;
    let done = scene.open(&withdrawal(1, 3, 1))?;
    let aborted = scene.open(&withdrawal(2, 4, 1))?;
    let settled = scene.open(&withdrawal(4, 11, 1))?;
    scene.close(&settled, &EventStatus::DoneByHand(by_hand.clone()))?;
    scene.close(&done, &EventStatus::Done)?;
    scene.close(&aborted, &EventStatus::Aborted(refused.clone()))?;
    for later in [false, true] {
        if later {
            scene.commit(&[deposit(1, 5, 10), deposit(2, 6, 10), deposit(4, 12, 10)])?;
        }
        let (done, aborted, settled) = (done.reference(), aborted.reference(), settled.reference());
        let other = ReasonText::new("another");
        let table = [
            (Record::Done(done), Appended::AlreadyDone),
            (Record::Aborted(done, conflict.clone()), Appended::AlreadyDone),
            (Record::Done(aborted), Appended::AlreadyAborted(refused.clone())),
            (Record::Aborted(aborted, conflict.clone()), Appended::AlreadyAborted(refused.clone())),
            (Record::DoneByHand(done, other.clone()), Appended::AlreadyDone),
            (Record::DoneByHand(aborted, other.clone()), Appended::AlreadyAborted(refused.clone())),
            (Record::Done(settled), Appended::AlreadyDoneByHand(by_hand.clone())),
            (Record::DoneByHand(settled, other), Appended::AlreadyDoneByHand(by_hand.clone())),
            (Record::Aborted(settled, conflict.clone()), Appended::AlreadyDoneByHand(by_hand.clone())),
        ];
        for (record, expected) in table {
            equal("a second end", &scene.append(std::slice::from_ref(&record))?, &vec![expected])?;
            end(scene)?;
        }
        scene.check()?;
    }
    // Done in one batch with its beginning, and ended again in that batch and after it.
    let run = scene.decide(&[deposit(3, 7, 10)])?;
    let event = run.events[0].reference();
    scene.append_all(&[Record::Started(run.events[0].clone())])?;
    scene.append_all(&[Record::Done(event)])?;
    let again = [Record::Done(event), Record::Aborted(event, conflict)];
    let expected = vec![Appended::AlreadyDone, Appended::AlreadyDone];
    equal("a second end in the same batch", &scene.append(&again)?, &expected)?;
    end(scene)?;
    equal("a second end in the next batch", &scene.append(&again)?, &expected)?;
    end(scene)
}

fn only_the_oldest(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10)])?;
    let run = scene.decide(&[withdrawal(1, 2, 1), withdrawal(1, 3, 1)])?;
    let [first, second] = &run.events[..] else { return holds("two events", false) };
    scene.append_all(&[Record::Started(first.clone()), Record::Started(second.clone())])?;
    if !scene.is_whole() {
        end(scene)?;
    }
    let unknown = EventRef { seq: 9, ..second.reference() };
    for early in [Record::Done(second.reference()), Record::Done(unknown)] {
        equal("an end ahead of its turn", &scene.append(&[early])?, &vec![Appended::Conflict])?;
    }
    let stranger = EventRef { customer: customer(8), seq: 1, id: first.id() };
    equal("an end in no chain", &scene.append(&[Record::Done(stranger)])?, &vec![Appended::Conflict])?;
    scene.append_all(&[Record::Done(first.reference()), Record::Done(second.reference())])?;
    end(scene)?;
    for linked in run.events.clone() {
        scene.totals.begun(&linked.event);
        scene.totals.done(&linked.event);
    }
    let mut statuses = Vec::new();
    let events = [first.reference(), second.reference(), unknown, stranger];
    scene.stores.chains.status(&events, &mut statuses)?;
    let done = Some(EventStatus::Done);
    equal("how they stand", &statuses, &vec![done.clone(), done, None, None])
}

fn runs(scene: &mut Scene) -> Checked {
    scene.commit(&[
        deposit(1, 1, 100),
        deposit(2, 2, 100),
        withdrawal(1, 3, 30),
        deposit(1, 4, 1),
        withdrawal(2, 5, 9),
    ])?;
    scene.check()?;
    let run: Vec<_> =
        (0..200).map(|n| if n % 2 == 0 { deposit(1, 100 + n, 3) } else { withdrawal(1, 100 + n, 2) }).collect();
    scene.commit(&run)?;
    if scene.is_whole() {
        // A batch may touch one transaction several times.
        scene.commit(&[deposit(7, 900, 4), dispute(7, 900), super::scene::resolve(7, 900), dispute(7, 900)])?;
    }
    scene.check()
}

fn open_events(scene: &mut Scene) -> Checked {
    let first = scene.open(&deposit(1, 1, 10))?;
    let second = scene.open(&deposit(2, 2, 10))?;
    scene.commit(&[deposit(3, 3, 10)])?;
    scene.check()?;
    equal("its rail", &first.event.rail, &RailId::new(9))?;
    scene.close(&second, &EventStatus::Done)?;
    scene.check()?;
    scene.close(&first, &EventStatus::Aborted(AbortReason::RailRefused(ReasonText::new("né"))))?;
    scene.check()?;
    scene.commit(&[deposit(1, 1, 10), withdrawal(2, 4, 10)])?;
    scene.check()
}

fn aborted_events(scene: &mut Scene) -> Checked {
    let long = "x".repeat(255);
    let reasons = ["", "short", "ünïcödé", &long];
    for (number, text) in (0..).zip(reasons) {
        let open = scene.open(&deposit(1, number, 10))?;
        scene.close(&open, &EventStatus::Aborted(AbortReason::RailRefused(ReasonText::new(text))))?;
    }
    scene.check()?;
    for (number, text) in (0..).zip(reasons) {
        let open = scene.open(&deposit(2, 10 + number, 10))?;
        scene.close(&open, &EventStatus::DoneByHand(ReasonText::new(text)))?;
    }
    scene.check()?;
    scene.commit(&[deposit(1, 0, 10), withdrawal(2, 20, 35), dispute(2, 11)])?;
    equal("the chain's length", &scene.head(customer(1)).seq, &5)?;
    scene.check()
}

/// In the middle of a batch, a new customer is either not there yet or has its open event.
fn nobody_without_an_event(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10), deposit(3, 3, 10)])?;
    let run = scene.decide(&[deposit(2, 2, 10)])?.events;
    scene.append_all(&[Record::Started(run[0].clone())])?;
    let (mut heads, mut listed) = (Vec::new(), Vec::new());
    scene.stores.chains.load(&[customer(2)], &mut heads)?;
    scene.stores.chains.list(None, 2, &mut listed)?;
    let shown = heads.into_iter().flatten().chain(listed.iter().map(|listed| listed.head.clone()));
    holds("an empty chain is shown", shown.into_iter().all(|head| head.seq > 0 || head.open == run))?;
    equal("a page is full where there are enough", &listed.len(), &2)?;
    scene.append_all(&[Record::Done(run[0].reference())])?;
    end(scene)
}

/// Between any two calls of a batch, everything shows what was appended so far; in whole batches, once they have ended.
fn seen_at_once(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10), deposit(3, 3, 10)])?;
    let run = scene.decide(&[deposit(1, 4, 5), deposit(2, 2, 10), withdrawal(1, 5, 3)])?.events;
    for linked in &run {
        scene.append_all(&[Record::Started(linked.clone())])?;
        scene.totals.begun(&linked.event);
        scene.note(linked.clone(), EventStatus::Started);
        if !scene.is_whole() {
            scene.check_chains_and_sums()?;
        }
    }
    for linked in &run {
        if let Some(proposal) = scene.proposal(linked)? {
            scene.propose_all(&[proposal])?;
        }
    }
    for linked in &run {
        scene.append_all(&[Record::Done(linked.reference())])?;
        scene.note_closed(linked, &EventStatus::Done);
        if !scene.is_whole() {
            scene.check_chains_and_sums()?;
        }
    }
    end(scene)?;
    scene.approve(&run)?;
    scene.check()
}

fn results_are_added(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10)])?;
    scene.open(&deposit(2, 2, 10))?;
    let chains = &scene.stores.chains;
    let customers = [customer(1), customer(2)];
    let (mut heads, mut listed, mut entries, mut statuses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=2 {
        chains.load(&customers, &mut heads)?;
        chains.list(None, 10, &mut listed)?;
        chains.read(customer(2), ReadRange::ALL, &mut entries)?;
        let events: Vec<_> = entries.iter().map(|entry| entry.linked.reference()).take(1).collect();
        chains.status(&events, &mut statuses)?;
        let counts = (heads.len(), listed.len(), entries.len(), statuses.len());
        equal("counts", &counts, &(2 * round, 2 * round, round, round))?;
    }
    equal("the second list", &listed[..2], &listed[2..])?;
    equal("the second load", &heads[..2], &heads[2..])?;
    let mut table = Vec::new();
    scene.stores.transactions.get(&[], &mut table)?;
    equal("entries of nothing", &table.len(), &0)
}
