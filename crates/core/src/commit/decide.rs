//! The first half of a batch: what the stores say is taken in, and everything is decided: what rails have
//! answered, what recovery finds, and the requests.

use super::batch::{Batch, BatchEvent, Closing, Entry, Fate, Hold, Origin, Placed, Step};
use super::machine::{Machine, Waits, may_not_wait};
use super::terms::{decide_under, outcome_of_used};
use super::{Approval, Broken, Outcome, Proposal, Submission};
use crate::chain::Head;
use crate::event::{AbortReason, Event, EventStatus, LinkedEvent, RailId, Record};
use crate::hash::{EventId, Hash};
use crate::id::CustomerId;
use crate::key::RequestKey;
use crate::planted::{Planted, is_planted};
use crate::rejection::Rejection;
use crate::rules::{Change, Decision, Known, decide, keeps_invariants};
use crate::transaction::{EntryId, EventRef, Proposed, TransactionEntry, TransactionState};
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
                let event = batch.heads[place].open[open].event.clone();
                batch.place_event(&event);
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
            let mut entry =
                Entry { table, approved: table.approved, found_aborted: false, hold: Hold::Free, touched: false };
            if let Some(Proposed { event, .. }) = table.proposed.filter(|_| table.is_settled()) {
                entry.hold = hold_if_newer(batch, event);
                if entry.hold != Hold::Free {
                    self.doubted.push(event);
                }
            }
            batch.to_settle.extend(entry.asks_about(&batch.doubted).map(|proposed| proposed.event));
            batch.entries.push(entry);
        }
        batch.step = Step::Settle;
        if batch.to_settle.is_empty() {
            self.recall(batch)?;
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
            let entry = batch.entries[place];
            let Some(Proposed { event, state }) = entry.asks_about(&batch.doubted) else { continue };
            let found = statuses.next();
            if entry.table.is_settled() {
                // Its chain knows it and the head does not reach it yet: that is asked for again.
                if let Some(Some(_)) = found {
                    continue;
                }
                return Err(Broken::EventMissing { entry: batch.transactions[place], event });
            }
            let found = if is_planted(Planted::ProposedReadAsApproved) { Some(&IN_EFFECT) } else { found };
            match found {
                Some(Some(EventStatus::Done | EventStatus::DoneByHand(_))) => {
                    batch.entries[place].approved = Some(state);
                    batch.entries[place].hold = hold_if_newer(batch, event);
                    let entry = batch.transactions[place];
                    batch.approvals.push(Approval { entry, event: event.id, state });
                }
                Some(Some(EventStatus::Started)) => {
                    let known = self.open_events.contains_key(&event.id);
                    batch.entries[place].hold = if known { Hold::Reserved } else { Hold::Doubtful(event.customer) };
                }
                Some(Some(EventStatus::Aborted(_))) => batch.entries[place].found_aborted = true,
                Some(None) | None => {}
            }
        }
        self.recall(batch)
    }

    /// Goes on to the events that have keys of this batch, if there are any.
    fn recall(&mut self, batch: &mut Batch) -> Result<(), Broken> {
        if batch.has_keys {
            for (id, entry) in batch.transactions.iter().zip(&batch.entries) {
                match (id, entry.approved, entry.table.proposed) {
                    (EntryId::Key(_), Some(_), Some(Proposed { event, .. })) => batch.to_recall.push(event),
                    (EntryId::Key(_), Some(_), None) => {
                        return Err(Broken::Store { what: "a key is used, and its entry names no event" });
                    }
                    (EntryId::Key(_), None, _) | (EntryId::Transaction(_), ..) => {}
                }
            }
        }
        batch.step = Step::Recall;
        if batch.to_recall.is_empty() { self.decide_all(batch) } else { Ok(()) }
    }

    /// Takes the events of [`Batch::to_recall`], in that order.
    pub fn recalled(
        &mut self,
        batch: &mut Batch,
        events: impl IntoIterator<Item = Option<LinkedEvent>>,
    ) -> Result<(), Broken> {
        debug_assert_eq!(batch.step, Step::Recall);
        let mut events = events.into_iter();
        for reference in &batch.to_recall {
            let found = events.next().flatten().filter(|linked| linked.reference() == *reference);
            let Some(linked) = found else {
                let names = |entry: &Entry| entry.table.proposed.is_some_and(|proposed| proposed.event == *reference);
                let mut entries = batch.transactions.iter().zip(&batch.entries);
                let key = entries.find(|(id, entry)| matches!(id, EntryId::Key(_)) && names(entry));
                let (&entry, _) = key.ok_or(Broken::Store { what: "an event that no key's entry names" })?;
                return Err(Broken::EventMissing { entry, event: *reference });
            };
            let Some(key) = linked.event.key else {
                return Err(Broken::Store { what: "the event of a key has no key" });
            };
            batch.used.insert(key, linked);
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
        // Nor on a head that is known to be too old, or to be the end of a chain that has lost events: that is found out
        // first. The chain must not go on where it should have been.
        for place in 0..batch.entries.len() {
            let Entry { table, hold, .. } = batch.entries[place];
            if let (true, Hold::Doubtful(of)) = (table.is_settled(), hold)
                && let Some(&customer) = batch.customer_places.get(&of)
            {
                batch.put_off(customer, 0);
            }
        }
        for place in 0..batch.submissions.len() {
            let Placed { customer, transaction, key, fate, .. } = batch.submissions[place];
            let entry = batch.entries.get(transaction as usize);
            let (hold, touched) = entry.map_or((Hold::Free, false), |entry| (entry.hold, entry.touched));
            let key_entry = batch.entries.get(key as usize);
            let (key_hold, key_touched) = key_entry.map_or((Hold::Free, false), |entry| (entry.hold, entry.touched));
            if fate == Fate::PutOff {
                continue;
            }
            match self.wait_if_open(&batch.submissions[place].submission) {
                Waits::No => {}
                Waits::Yes => {
                    batch.submissions[place].fate = Fate::Waits;
                    continue;
                }
                waits @ (Waits::Busy | Waits::UnderWay) => {
                    let answer = may_not_wait(&batch.submissions[place].submission, waits);
                    batch.submissions[place].fate = Fate::Answered;
                    batch.outcomes.push((place as u32, answer.result));
                    continue;
                }
            }
            if (touched || key_touched) && !self.whole_batches {
                batch.rest.extend(batch.submissions.drain(place..).map(|placed| placed.submission));
                break;
            }
            let mut doubtful = false;
            for hold in [hold, key_hold] {
                if let Hold::Doubtful(of) = hold {
                    self.to_recover.push_back(of);
                    doubtful = true;
                }
            }
            if doubtful {
                batch.put_off(customer, place as u32);
                continue;
            }
            self.decide_one(batch, place as u32, hold, key_hold)?;
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
            let (proposal, key_proposal) = if stands { propose(batch, &linked) } else { (None, None) };
            batch.heads[customer as usize].close(&status);
            let reference = linked.reference();
            let origin = Origin::Recovered;
            batch.events.push(BatchEvent { reference, customer, origin, proposal, key_proposal, status, lost: false });
            if let Some(rail) = rail {
                self.hold_open(batch, linked, rail, None, 1);
                return;
            }
        }
    }

    /// Whether an open event is still what the rules lead to. It is not, if it builds on an event that was
    /// aborted; nor if it had not got as far as its proposals, and another event has taken the transaction or the key
    /// since. (With its proposals in the table nobody else can have, and its rail may have acted.)
    fn still_stands(&self, batch: &Batch, head: &Head, linked: &LinkedEvent) -> bool {
        if linked.event.hash(&head.link) != linked.hash {
            return false;
        }
        let entry_of =
            |id: EntryId| batch.transaction_places.get(&id).and_then(|&place| batch.entries.get(place as usize));
        let proposes = |entry: &Entry| entry.table.proposed.is_some_and(|mine| mine.event == linked.reference());
        let key = linked.event.key.and_then(|key| entry_of(key.into()));
        if key.is_some_and(|entry| !proposes(entry) && (entry.hold != Hold::Free || entry.approved.is_some())) {
            return false;
        }
        let entry = linked.event.transaction.and_then(|transaction| entry_of(transaction.into()));
        let Some(entry) = entry else { return true };
        if proposes(entry) {
            return true;
        }
        // Somebody else's proposal is never written over while its event is open.
        if entry.hold != Hold::Free {
            return false;
        }
        let known = Known { state: entry.approved.as_ref(), reserved: false };
        let request = linked.event.request();
        let decision = request.and_then(|request| decide(&self.config, &head.state, known, &request).ok());
        match decision {
            Some(Decision::Change(change)) => change.state == linked.event.state,
            Some(Decision::AlreadyApplied) | None => false,
        }
    }

    fn decide_one(&mut self, batch: &mut Batch, place: u32, hold: Hold, key_hold: Hold) -> Result<(), Broken> {
        let placed = &batch.submissions[place as usize];
        let Placed { transaction, customer, key, .. } = *placed;
        let Submission { request, terms, .. } = &placed.submission;
        let state = batch.entries.get(transaction as usize).and_then(|entry| entry.approved.as_ref());
        let known = Known { state, reserved: hold == Hold::Reserved };
        let head = &batch.heads[customer as usize];
        let outcome = if key_hold == Hold::Reserved {
            Outcome::Rejected(Rejection::RequestInProgress)
        } else if batch.entries.get(key as usize).is_some_and(|entry| entry.approved.is_some()) {
            let linked = placed.submission.key().and_then(|key| batch.used.get(&key));
            let linked = linked.ok_or(Broken::Store { what: "a key is used by an event that is not known" })?;
            outcome_of_used(linked, request)
        } else {
            match decide_under(&self.config, head, known, request, terms.as_deref()) {
                Ok(Decision::Change(change)) => return self.make_event(batch, place, change),
                Ok(Decision::AlreadyApplied) => Outcome::AlreadyApplied(None),
                Err(rejection) => Outcome::Rejected(rejection),
            }
        };
        batch.submissions[place as usize].fate = Fate::Answered;
        batch.outcomes.push((place, Ok(outcome)));
        Ok(())
    }

    fn make_event(&mut self, batch: &mut Batch, place: u32, change: Change) -> Result<(), Broken> {
        let placed = &batch.submissions[place as usize];
        let Placed { customer, transaction, key, .. } = *placed;
        let head = &batch.heads[customer as usize];
        let rail = self.routes.of(change.kind);
        let seen = [transaction, key].map(|place| {
            let seen = batch.entries.get(place as usize).and_then(|entry| entry.table.proposed);
            seen.map(|seen| seen.event.id)
        });
        let of = placed.submission.request.customer;
        let linked = extend(head, of, batch.time_ms, change, (rail, placed.submission.key()), seen)?;
        let asked = rail.map(|_| placed.submission.clone());
        let (proposal, key_proposal) = propose(batch, &linked);
        let status = match rail {
            None => {
                batch.heads[customer as usize].done(&linked);
                if let Some(key) = linked.event.key {
                    batch.used.insert(key, linked.clone());
                }
                EventStatus::Done
            }
            Some(rail) => {
                self.hold_open(batch, linked.clone(), rail, asked, 0);
                EventStatus::Started
            }
        };
        batch.submissions[place as usize].fate = Fate::Event;
        let reference = linked.reference();
        let origin = Origin::New { submission: place, started: batch.started.len() as u32 };
        batch.events.push(BatchEvent { reference, customer, origin, proposal, key_proposal, status, lost: false });
        batch.started.push(Record::Started(linked));
        Ok(())
    }

    /// Goes on to the proposals of what was appended, if there are any.
    pub(super) fn list_proposals(&self, batch: &mut Batch) {
        batch.proposals.extend(batch.events.iter().flat_map(BatchEvent::proposals));
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

/// The event that a change makes as the next one of a chain, decided at `time_ms`. `seen` are the events that the
/// transactions table names for its transaction and its key.
pub(super) fn extend(
    head: &Head,
    customer: CustomerId,
    time_ms: u64,
    change: Change,
    (rail, key): (Option<RailId>, Option<RequestKey>),
    seen: [Option<EventId>; 2],
) -> Result<LinkedEvent, Broken> {
    let before = head.state.accounts.get(change.currency);
    let mut event = Event::new(customer, head.seq + 1, time_ms.max(head.time_ms), change, rail);
    event.key = key;
    let after = event.account();
    if !keeps_invariants(event.kind, event.transaction_kind, event.amount, before, after) {
        return Err(Broken::Account { customer, before, after, amount: event.amount });
    }
    let mut linked = LinkedEvent::new(event, &head.link);
    // An event that was lost before it was durable can have left its proposal behind. Decided again at the same
    // time it would be the same event, whom others have seen to be gone. An id never comes back.
    while seen.contains(&Some(linked.id())) {
        let time_ms = linked.event.time_ms.saturating_add(1);
        linked = LinkedEvent::new(Event { time_ms, ..linked.event }, &head.link);
    }
    Ok(linked)
}

/// Doubtful, if the batch has this event's customer by a head that does not know the event yet: what the
/// event did to its transaction is known then, and what it did to its customer is not.
fn hold_if_newer(batch: &Batch, event: EventRef) -> Hold {
    match batch.customer_places.get(&event.customer) {
        Some(&place) if batch.loaded_seqs[place as usize] < event.seq => Hold::Doubtful(event.customer),
        Some(_) | None => Hold::Free,
    }
}

/// The proposals an event makes, for its transaction and for its key, noted in the batch's own view.
fn propose(batch: &mut Batch, linked: &LinkedEvent) -> (Option<Proposal>, Option<Box<Proposal>>) {
    let transaction = linked.event.transaction.zip(linked.event.transaction_state());
    let transaction = transaction.and_then(|(id, state)| propose_one(batch, id.into(), state, linked));
    let key = linked.event.key.filter(|_| !is_planted(Planted::KeyNotProposed));
    let key = key.and_then(|key| propose_one(batch, key.into(), linked.event.key_state(), linked));
    (transaction, key.map(Box::new))
}

fn propose_one(batch: &mut Batch, id: EntryId, state: TransactionState, linked: &LinkedEvent) -> Option<Proposal> {
    let event = linked.reference();
    let place = *batch.transaction_places.get(&id)?;
    let entry = &mut batch.entries[place as usize];
    let proposal = Proposal {
        entry: id,
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
    let Closing { customer, linked, asked, status } = closing;
    let head = &mut batch.heads[customer as usize];
    let was_open = head.open.first().is_some_and(|open| open.hash == linked.hash);
    if was_open {
        head.close(&status);
    }
    for (id, state) in linked.event.entries() {
        let Some(&place) = batch.transaction_places.get(&id) else { continue };
        let entry = &mut batch.entries[place as usize];
        entry.touched = true;
        if was_open {
            entry.hold = Hold::Free;
            if status.is_done() {
                entry.approved = Some(state);
            }
        }
    }
    if let Some(key) = linked.event.key.filter(|_| was_open && status.is_done()) {
        batch.used.insert(key, linked.clone());
    }
    let reference = linked.reference();
    let (asked, linked) = (asked.map(Box::new), Box::new(linked));
    let origin = Origin::Answered { asked, linked, was_open };
    let (proposal, key_proposal) = (None, None);
    batch.events.push(BatchEvent { reference, customer, origin, proposal, key_proposal, status, lost: false });
}
