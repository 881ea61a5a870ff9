//! The first half of a batch: what the stores say is taken in, and everything is decided: what rails have
//! answered, what recovery finds, and the requests.

use super::batch::{Batch, BatchEvent, Closing, Entry, Fate, Hold, Origin, Placed, Step};
use super::machine::{Machine, Waits, busy};
use super::{Approval, Broken, Outcome, Proposal};
use crate::chain::Head;
use crate::event::{AbortReason, Event, EventStatus, LinkedEvent, RailId, Record};
use crate::hash::{EventId, Hash};
use crate::id::CustomerId;
use crate::planted::{Planted, is_planted};
use crate::rules::{Change, Decision, Known, decide, keeps_invariants};
use crate::transaction::{EventRef, Proposed, TransactionEntry};
use alloc::boxed::Box;

/// What a planted bug takes every proposed state for.
static IN_EFFECT: Option<EventStatus> = Some(EventStatus::Done);

impl Machine {
    /// Takes the heads of [`Batch::customers`], in that order; `None` for a customer without a chain.
    pub fn loaded(
        &mut self,
        ledger_digest: &Hash,
        batch: &mut Batch,
        heads: impl IntoIterator<Item = Option<Head>>,
    ) -> Result<(), Broken> {
        debug_assert_eq!(batch.step, Step::Load);
        batch.heads.extend(
            heads
                .into_iter()
                .zip(&batch.customers)
                .map(|(head, &customer)| head.unwrap_or_else(|| Head::start(ledger_digest, customer))),
        );
        if batch.heads.len() != batch.customers.len() {
            return Err(Broken::Store { what: "fewer heads than customers" });
        }
        for place in 0..batch.heads.len() {
            for open in 0..batch.heads[place].open.len() {
                if let Some(transaction) = batch.heads[place].open[open].event.transaction {
                    batch.place_transaction(transaction);
                }
            }
        }
        let newest_seq = |head: &Head| head.open.last().map_or(head.seq, |open| open.event.seq);
        batch.loaded_seqs.extend(batch.heads.iter().map(newest_seq));
        batch.step = Step::Get;
        if batch.transactions.is_empty() {
            self.decide_all(batch)?;
        }
        Ok(())
    }

    /// Takes the table's entries of [`Batch::transactions`], in that order.
    pub fn found(&mut self, batch: &mut Batch, entries: &[TransactionEntry]) -> Result<(), Broken> {
        debug_assert_eq!(batch.step, Step::Get);
        if entries.len() != batch.transactions.len() {
            return Err(Broken::Store { what: "fewer entries than transactions" });
        }
        for &table in entries {
            let mut hold = Hold::Free;
            match table.proposed {
                Some(Proposed { event, .. }) if table.is_settled() => hold = hold_if_newer(batch, event),
                Some(Proposed { event, .. }) => batch.to_settle.push(event),
                None => {}
            }
            batch.entries.push(Entry { table, approved: table.approved, found_aborted: false, hold, touched: false });
        }
        batch.step = Step::Settle;
        if batch.to_settle.is_empty() {
            self.decide_all(batch)?;
        }
        Ok(())
    }

    /// Takes how the events of [`Batch::to_settle`] stand, in that order; `None` for an event that no chain
    /// has. A proposed state counts only if its event is `Done`; then the table is brought up to date.
    pub fn settled(&mut self, batch: &mut Batch, statuses: &[Option<EventStatus>]) -> Result<(), Broken> {
        debug_assert_eq!(batch.step, Step::Settle);
        if statuses.len() != batch.to_settle.len() {
            return Err(Broken::Store { what: "fewer statuses than events" });
        }
        let mut statuses = statuses.iter();
        for place in 0..batch.entries.len() {
            let table = batch.entries[place].table;
            let Some(Proposed { event, state }) = table.proposed.filter(|_| !table.is_settled()) else { continue };
            let found = statuses.next();
            let found = if is_planted(Planted::ProposedReadAsApproved) { Some(&IN_EFFECT) } else { found };
            match found {
                Some(Some(EventStatus::Done | EventStatus::DoneByHand(_))) => {
                    batch.entries[place].approved = Some(state);
                    batch.entries[place].hold = hold_if_newer(batch, event);
                    let transaction = batch.transactions[place];
                    batch.approvals.push(Approval { transaction, event: event.id, state });
                }
                Some(Some(EventStatus::Started)) => {
                    let known = self.open_events.contains_key(&event.id);
                    batch.entries[place].hold = if known { Hold::Reserved } else { Hold::Doubtful(event.customer) };
                }
                Some(Some(EventStatus::Aborted(_))) => batch.entries[place].found_aborted = true,
                Some(None) | None => {}
            }
        }
        self.decide_all(batch)
    }

    /// Decides everything in the batch, in order: what rails have answered, what recovery finds, requests.
    fn decide_all(&mut self, batch: &mut Batch) -> Result<(), Broken> {
        for closing in core::mem::take(&mut batch.closings) {
            close_answered(batch, closing);
        }
        for place in 0..batch.heads.len() {
            if !batch.heads[place].open.is_empty() {
                self.recover_customer(batch, place as u32);
            }
        }
        // Nothing is decided on top of an event before its abort is written, or that it was settled by hand: the link
        // would rest on a reason that may yet turn out to be another one. Nor next to one that somebody else has closed, and nobody
        // here knows how: that is found out first.
        for index in 0..batch.events.len() {
            let event = &batch.events[index];
            let elsewhere = matches!(event.origin, Origin::Answered { was_open: false, .. });
            if elsewhere || matches!(event.status, EventStatus::Aborted(_) | EventStatus::DoneByHand(_)) {
                batch.put_off(event.customer, 0);
            }
        }
        for place in 0..batch.submissions.len() {
            let placed = batch.submissions[place];
            let entry = batch.entries.get(placed.transaction as usize);
            let (hold, touched) = entry.map_or((Hold::Free, false), |entry| (entry.hold, entry.touched));
            if placed.fate == Fate::PutOff {
                continue;
            }
            match self.wait_if_open(placed.submission) {
                Waits::No => {}
                Waits::Yes => {
                    batch.submissions[place].fate = Fate::Waits;
                    continue;
                }
                Waits::Busy => {
                    batch.submissions[place].fate = Fate::Answered;
                    batch.outcomes.push((place as u32, busy(placed.submission).result));
                    continue;
                }
            }
            if touched && !self.whole_batches {
                let rest = batch.submissions[place..].iter().map(|placed| placed.submission);
                batch.rest.extend(rest);
                batch.submissions.truncate(place);
                break;
            }
            if let Hold::Doubtful(customer) = hold {
                self.to_recover.push_back(customer);
                batch.put_off(placed.customer, place as u32);
                continue;
            }
            self.decide_one(batch, place as u32, placed, hold)?;
        }
        batch.step = Step::AppendStarted;
        if batch.started.is_empty() {
            self.list_proposals(batch);
        }
        Ok(())
    }

    /// Settles what a chain's end leaves open: rolls forward without a rail, asks again with one.
    fn recover_customer(&mut self, batch: &mut Batch, customer: u32) {
        let open = batch.heads[customer as usize].open.clone();
        for linked in open {
            let stands = self.still_stands(batch, &batch.heads[customer as usize], &linked);
            let stands = stands && !(linked.event.rail.is_some() && is_planted(Planted::RailNotAskedAgain));
            let rail = linked.event.rail.filter(|_| stands);
            let status = match rail {
                _ if !stands => EventStatus::Aborted(AbortReason::TransactionConflict),
                None => EventStatus::Done,
                Some(_) => EventStatus::Started,
            };
            let proposal = if stands { propose(batch, &linked) } else { None };
            batch.heads[customer as usize].close(&status);
            let reference = linked.reference();
            let origin = Origin::Recovered;
            batch.events.push(BatchEvent { reference, customer, origin, proposal, status, lost: false });
            if let Some(rail) = rail {
                self.hold_open(batch, linked, rail, None, 1);
                return;
            }
        }
    }

    /// Whether an open event is still what the rules lead to. It is not, if it builds on an event that was
    /// aborted; nor if it had not got as far as its proposal, and another event has taken the transaction
    /// since. (With its proposal in the table nobody else can have, and its rail may have acted.)
    fn still_stands(&self, batch: &Batch, head: &Head, linked: &LinkedEvent) -> bool {
        if linked.event.hash(&head.link) != linked.hash {
            return false;
        }
        let place = linked.event.transaction.and_then(|transaction| batch.transaction_places.get(&transaction));
        let Some(entry) = place.and_then(|&place| batch.entries.get(place as usize)) else { return true };
        if entry.table.proposed.is_some_and(|proposed| proposed.event == linked.reference()) {
            return true;
        }
        // Somebody else's proposal is never written over while its event is open.
        if entry.hold != Hold::Free {
            return false;
        }
        let known = Known { state: entry.approved, reserved: false };
        let request = linked.event.request();
        let decision = request.and_then(|request| decide(&self.config, &head.state, known, &request).ok());
        match decision {
            Some(Decision::Change(change)) => change.state == linked.event.state,
            Some(Decision::AlreadyApplied) | None => false,
        }
    }

    fn decide_one(&mut self, batch: &mut Batch, place: u32, placed: Placed, hold: Hold) -> Result<(), Broken> {
        let state = batch.entries.get(placed.transaction as usize).and_then(|entry| entry.approved);
        let known = Known { state, reserved: hold == Hold::Reserved };
        let head = &batch.heads[placed.customer as usize];
        let outcome = match decide(&self.config, &head.state, known, &placed.submission.request) {
            Ok(Decision::Change(change)) => return self.make_event(batch, place, placed, change),
            Ok(Decision::AlreadyApplied) => Outcome::AlreadyApplied,
            Err(rejection) => Outcome::Rejected(rejection),
        };
        batch.submissions[place as usize].fate = Fate::Answered;
        batch.outcomes.push((place, Ok(outcome)));
        Ok(())
    }

    fn make_event(&mut self, batch: &mut Batch, place: u32, placed: Placed, change: Change) -> Result<(), Broken> {
        let Placed { submission, customer, .. } = placed;
        let head = &batch.heads[customer as usize];
        let rail = self.routes.of(change.kind);
        let seen = batch.entries.get(placed.transaction as usize).and_then(|entry| entry.table.proposed);
        let seen = seen.map(|seen| seen.event.id);
        let linked = extend(head, submission.request.customer, batch.time_ms, change, rail, seen)?;
        let proposal = propose(batch, &linked);
        let status = match rail {
            None => {
                batch.heads[customer as usize].done(&linked);
                EventStatus::Done
            }
            Some(rail) => {
                self.hold_open(batch, linked.clone(), rail, Some(submission.ticket), 0);
                EventStatus::Started
            }
        };
        batch.submissions[place as usize].fate = Fate::Event;
        let reference = linked.reference();
        let origin = Origin::New { submission: place, started: batch.started.len() as u32 };
        batch.events.push(BatchEvent { reference, customer, origin, proposal, status, lost: false });
        batch.started.push(Record::Started(linked));
        Ok(())
    }

    /// Goes on to the proposals of what was appended, if there are any.
    pub(super) fn list_proposals(&self, batch: &mut Batch) {
        let proposals = batch.events.iter().filter(|event| event.proposes()).filter_map(|event| event.proposal);
        batch.proposals.extend(proposals);
        if batch.proposals.is_empty() || is_planted(Planted::DoneBeforeTable) {
            batch.list_closed();
        } else if batch.rests_on_found && !self.whole_batches && !is_planted(Planted::PromotedBeforeSync) {
            batch.step = Step::Sync;
            batch.after_sync = Step::Propose;
        } else {
            batch.step = Step::Propose;
        }
    }
}

/// The event that a change makes as the next one of a chain, decided at `time_ms`. `seen` is the event that the
/// transactions table names for its transaction.
pub(super) fn extend(
    head: &Head,
    customer: CustomerId,
    time_ms: u64,
    change: Change,
    rail: Option<RailId>,
    seen: Option<EventId>,
) -> Result<LinkedEvent, Broken> {
    let before = head.state.accounts.get(change.currency);
    let event = Event::new(customer, head.seq + 1, time_ms.max(head.time_ms), change, rail);
    let after = event.account();
    if !keeps_invariants(event.kind, event.transaction_kind, event.amount, before, after) {
        return Err(Broken::Account { customer, before, after, amount: event.amount });
    }
    let linked = LinkedEvent::new(event, &head.link);
    if seen != Some(linked.id()) {
        return Ok(linked);
    }
    // An event that was lost before it was durable can have left its proposal behind. Decided again at the same
    // time it would be the same event, whom others have seen to be gone. An id never comes back.
    let time_ms = linked.event.time_ms.saturating_add(1);
    Ok(LinkedEvent::new(Event { time_ms, ..linked.event }, &head.link))
}

/// Doubtful, if the batch has this event's customer by a head that does not know the event yet: what the
/// event did to its transaction is known then, and what it did to its customer is not.
fn hold_if_newer(batch: &Batch, event: EventRef) -> Hold {
    match batch.customer_places.get(&event.customer) {
        Some(&place) if batch.loaded_seqs[place as usize] < event.seq => Hold::Doubtful(event.customer),
        Some(_) | None => Hold::Free,
    }
}

/// The proposal an event makes, noted in the batch's own view of the transaction.
fn propose(batch: &mut Batch, linked: &LinkedEvent) -> Option<Proposal> {
    let transaction = linked.event.transaction?;
    let state = linked.event.transaction_state()?;
    let event = linked.reference();
    let place = *batch.transaction_places.get(&transaction)?;
    let entry = &mut batch.entries[place as usize];
    let proposal = Proposal {
        transaction,
        seen_approved: entry.table.approved,
        seen_proposed: entry.table.proposed.map(|proposed| proposed.event.id),
        approved: entry.approved,
        state,
        event,
    };
    batch.rests_on_found |= entry.found_aborted || proposal.approved != proposal.seen_approved;
    entry.table = TransactionEntry { approved: entry.approved, proposed: Some(Proposed { state, event }) };
    entry.touched = true;
    entry.hold = if linked.event.rail.is_some() { Hold::Reserved } else { Hold::Free };
    if linked.event.rail.is_none() {
        entry.approved = Some(state);
    }
    Some(proposal)
}

/// Closes an event whose rail has answered, in the batch's own view.
fn close_answered(batch: &mut Batch, closing: Closing) {
    let Closing { customer, linked, ticket, status } = closing;
    let head = &mut batch.heads[customer as usize];
    let was_open = head.open.first().is_some_and(|open| open.hash == linked.hash);
    if was_open {
        head.close(&status);
    }
    let place = linked.event.transaction.and_then(|transaction| batch.transaction_places.get(&transaction)).copied();
    if let Some((place, state)) = place.zip(linked.event.transaction_state()) {
        let entry = &mut batch.entries[place as usize];
        entry.touched = true;
        if was_open {
            entry.hold = Hold::Free;
            if status.is_done() {
                entry.approved = Some(state);
            }
        }
    }
    let reference = linked.reference();
    let origin = Origin::Answered { ticket, linked: Box::new(linked), was_open };
    batch.events.push(BatchEvent { reference, customer, origin, proposal: None, status, lost: false });
}
