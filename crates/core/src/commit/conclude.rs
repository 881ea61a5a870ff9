//! The second half of a batch: what became of its writes, and what the callers hear of it.

use super::batch::{Batch, BatchEvent, Fate, Origin, Step};
use super::machine::Machine;
use super::{Answer, Appended, Approval, Broken, Outcome, Proposal, ProposeResult, Receipt, Submission};
use crate::event::{AbortReason, EventStatus, Record};
use crate::planted::{Planted, is_planted};
use crate::rejection::Rejection;
use alloc::string::ToString;
use alloc::vec::Vec;

impl Machine {
    /// Takes what became of [`Batch::started`], in that order. Where another owner was faster, the customer's
    /// requests are put off, to be decided anew on what the chain then says.
    pub fn started(&mut self, batch: &mut Batch, results: &[Appended]) -> Result<(), Broken> {
        debug_assert_eq!(batch.step, Step::AppendStarted);
        if results.len() != batch.started.len() {
            return Err(Broken::Store { what: "fewer results than records" });
        }
        for index in 0..batch.events.len() {
            let event = &batch.events[index];
            let stands = match event.origin {
                Origin::New { started, .. } => {
                    results[started as usize] == Appended::Yes || is_planted(Planted::AppendConflictIgnored)
                }
                Origin::Recovered | Origin::Answered { .. } => true,
            };
            if !stands && !event.lost {
                self.lose(batch, index);
            }
        }
        self.list_proposals(batch);
        Ok(())
    }

    /// Takes what became of [`Batch::proposals`], in that order. Where another event has taken the transaction or the key,
    /// the event is aborted, with those of its customer that were decided on top of it.
    pub fn proposed(&mut self, batch: &mut Batch, results: &[ProposeResult]) -> Result<(), Broken> {
        debug_assert_eq!(batch.step, Step::Propose);
        if results.len() != batch.proposals.len() {
            return Err(Broken::Store { what: "fewer results than proposals" });
        }
        if results.contains(&ProposeResult::Conflict) && !is_planted(Planted::ProposalConflictIgnored) {
            let mut results = results.iter();
            for index in 0..batch.events.len() {
                let count = batch.events[index].proposals().count();
                if results.by_ref().take(count).filter(|&&result| result == ProposeResult::Conflict).count() > 0 {
                    self.abort_from(batch, index);
                }
            }
        }
        if is_planted(Planted::DoneBeforeTable) {
            batch.step = Step::Sync;
            return Ok(());
        }
        batch.list_closed();
        Ok(())
    }

    /// Takes what became of [`Batch::closed`], in that order. `Done` or `Aborted` wins once; whoever comes
    /// second takes over what the first decided.
    pub fn closed(&mut self, batch: &mut Batch, results: &[Appended]) -> Result<(), Broken> {
        debug_assert_eq!(batch.step, Step::AppendClosed);
        if results.len() != batch.closed.len() {
            return Err(Broken::Store { what: "fewer results than records" });
        }
        for (place, result) in results.iter().enumerate() {
            let index = batch.closed_events[place] as usize;
            let event = &mut batch.events[index];
            if event.lost {
                continue;
            }
            match (result, &event.status) {
                (Appended::Yes, _) => {}
                (Appended::AlreadyDone, _) => event.status = EventStatus::Done,
                (Appended::AlreadyAborted(reason), status) => {
                    let is_on_top = may_be_built_on(status);
                    event.status = EventStatus::Aborted(reason.clone());
                    if is_on_top {
                        self.void_after(batch, index);
                    }
                }
                (Appended::AlreadyDoneByHand(reason), status) => {
                    let is_on_top = may_be_built_on(status);
                    event.status = EventStatus::DoneByHand(reason.clone());
                    if is_on_top {
                        self.void_after(batch, index);
                    }
                }
                (Appended::Conflict, _) => {
                    if let Origin::Answered { .. } = event.origin {
                        return Err(Broken::Store { what: "an event that waited for its rail is gone" });
                    }
                    self.to_recover.push_back(event.reference.customer);
                    self.lose(batch, index);
                }
            }
        }
        batch.conclude();
        if is_planted(Planted::DoneBeforeTable) && !batch.proposals.is_empty() {
            batch.step = Step::Propose;
        }
        Ok(())
    }

    /// Leaves out an event and those of its customer after it, and puts off the requests that led to them.
    fn lose(&mut self, batch: &mut Batch, first: usize) {
        let BatchEvent { customer, ref origin, .. } = batch.events[first];
        let from_submission = origin.submission().unwrap_or(0);
        batch.events_from(customer, first).for_each(|event| event.lost = true);
        batch.put_off(customer, from_submission);
        self.forget_open(batch, batch.customers[customer as usize]);
    }

    /// Aborts an event and those of its customer after it, and puts off the requests that led to them.
    fn abort_from(&mut self, batch: &mut Batch, first: usize) {
        let BatchEvent { customer, ref origin, .. } = batch.events[first];
        let from_submission = origin.submission().unwrap_or(0);
        let aborted = EventStatus::Aborted(AbortReason::TransactionConflict);
        batch.events_from(customer, first).for_each(|event| event.status.clone_from(&aborted));
        batch.put_off(customer, from_submission);
        self.forget_open(batch, batch.customers[customer as usize]);
    }

    /// Somebody else has aborted an event: what was decided on top of it is void, and the chain's end is
    /// settled anew.
    fn void_after(&mut self, batch: &mut Batch, index: usize) {
        let BatchEvent { customer, ref origin, .. } = batch.events[index];
        let from_submission = origin.submission().map_or(0, |submission| submission + 1);
        batch.events_from(customer, index + 1).for_each(|event| event.lost = true);
        batch.put_off(customer, from_submission);
        let customer = batch.customers[customer as usize];
        self.forget_open(batch, customer);
        self.to_recover.push_back(customer);
    }
}

impl Origin {
    const fn submission(&self) -> Option<u32> {
        match self {
            Self::New { submission, .. } => Some(*submission),
            Self::Recovered | Self::Answered { .. } => None,
        }
    }
}

impl Batch {
    /// Goes on to the records that close events, if there are any.
    pub(super) fn list_closed(&mut self) {
        for (index, event) in self.events.iter().enumerate().filter(|(_, event)| !event.lost) {
            let Some(record) = Record::closing(event.reference, &event.status) else { continue };
            self.closed.push(record);
            self.closed_events.push(index as u32);
        }
        self.step = Step::AppendClosed;
        if self.closed.is_empty() {
            self.conclude();
        }
    }

    /// All is written: what is to be approved, what the callers are to hear, and what is to be decided anew.
    pub(super) fn conclude(&mut self) {
        for index in 0..self.events.len() {
            if !self.events[index].lost {
                self.conclude_event(index);
            }
        }
        for (place, result) in self.outcomes.drain(..) {
            let Some(placed) = self.submissions.get(place as usize).filter(|p| p.fate == Fate::Answered) else {
                continue;
            };
            self.answers.push(Answer { ticket: placed.submission.ticket, result });
        }
        let put_off = self.submissions.iter().filter(|placed| placed.fate == Fate::PutOff);
        self.retry.extend(put_off.map(|placed| placed.submission.clone()));
        self.retry.append(&mut self.waited);
        self.step = Step::Sync;
        self.after_sync = Step::Finish;
        if is_planted(Planted::AnsweredBeforeSync)
            || (is_planted(Planted::RailCalledBeforeSync) && !self.calls.is_empty())
        {
            self.step = Step::Finish;
        }
    }

    /// How an event ended is the answer to whoever asked for it.
    fn conclude_event(&mut self, index: usize) {
        let event = &self.events[index];
        if event.status.is_done() {
            approve(event, &mut self.approvals);
        }
        let (linked, ticket) = match &event.origin {
            Origin::Recovered => return,
            Origin::New { submission, started } => {
                let Some(Record::Started(linked)) = self.started.get(*started as usize) else { return };
                let Some(placed) = self.submissions.get_mut(*submission as usize) else { return };
                placed.fate = if decides_anew(&event.status) { Fate::PutOff } else { Fate::Event };
                (linked, placed.submission.ticket)
            }
            Origin::Answered { asked, linked, .. } => {
                self.ends.push((event.reference, event.status.clone()));
                let Some(submission) = asked else { return };
                if decides_anew(&event.status) {
                    self.retry.push(Submission::clone(submission));
                }
                (&**linked, submission.ticket)
            }
        };
        let outcome = match &event.status {
            EventStatus::Started | EventStatus::Aborted(AbortReason::TransactionConflict) => return,
            EventStatus::Done | EventStatus::DoneByHand(_) => Outcome::Applied(Receipt::of(linked)),
            EventStatus::Aborted(reason) => {
                Outcome::Rejected(Rejection::RailRefused { reason: reason.text().to_string() })
            }
        };
        self.answers.push(Answer { ticket, result: Ok(outcome) });
    }
}

/// Whether a batch may have decided on top of an event that it means to close like this.
const fn may_be_built_on(status: &EventStatus) -> bool {
    match status {
        EventStatus::Started | EventStatus::Done => true,
        EventStatus::DoneByHand(_) | EventStatus::Aborted(_) => false,
    }
}

/// An event that another event was in the way of says nothing of its request yet.
const fn decides_anew(status: &EventStatus) -> bool {
    matches!(status, EventStatus::Aborted(AbortReason::TransactionConflict))
}

/// What an event in effect has proposed is to be approved.
fn approve(event: &BatchEvent, approvals: &mut Vec<Approval>) {
    match &event.origin {
        Origin::New { .. } | Origin::Recovered => {
            let approval =
                |&Proposal { entry, state, event, .. }: &Proposal| Approval { entry, event: event.id, state };
            approvals.extend(event.proposals().map(approval));
        }
        Origin::Answered { linked, .. } => {
            let approval = |(entry, state)| Approval { entry, event: event.reference.id, state };
            approvals.extend(linked.event.entries().map(approval));
        }
    }
}
