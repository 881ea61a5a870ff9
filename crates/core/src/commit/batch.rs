//! A batch on its way through the protocol: what it asks of the stores next, and what it has so far.

use super::{Answer, Approval, Proposal, RailCall, Submission};
use crate::chain::Head;
use crate::event::{EventStatus, Record};
use crate::id::{CustomerId, TransactionId};
use crate::transaction::{EventRef, TransactionEntry, TransactionState};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// What a driver does next for a batch. Steps that would have nothing to do are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the chain heads of [`Batch::customers`]; hand them to [`super::Machine::loaded`].
    Load,
    /// Read the table's entries of [`Batch::transactions`]; hand them to [`super::Machine::found`].
    Get,
    /// Ask the chains how the events in [`Batch::to_settle`] stand; hand that to [`super::Machine::settled`].
    Settle,
    /// Append [`Batch::started`] to the chains; hand the results to [`super::Machine::started`].
    AppendStarted,
    /// Write [`Batch::proposals`] to the table; hand the results to [`super::Machine::proposed`].
    Propose,
    /// Append [`Batch::closed`] to the chains, as the last records of this batch; hand the results to
    /// [`super::Machine::closed`].
    AppendClosed,
    /// Make everything appended so far durable; then tell [`Batch::synced`].
    Sync,
    /// Give the [`Batch::answers`], make the [`Batch::calls`], write the [`Batch::approvals`]. The batch is done.
    Finish,
}

/// Requests that are decided and committed together. Made by [`super::Machine::gather`]; a batch can be used
/// again once it is finished, and keeps its memory.
#[derive(Debug)]
pub struct Batch {
    pub(super) step: Step,
    pub(super) time_ms: u64,
    pub(super) customers: Vec<CustomerId>,
    pub(super) customer_places: HashMap<CustomerId, u32, FixedState>,
    pub(super) transactions: Vec<TransactionId>,
    pub(super) transaction_places: HashMap<TransactionId, u32, FixedState>,
    pub(super) submissions: Vec<Placed>,
    pub(super) closings: Vec<Closing>,
    pub(super) heads: Vec<Head>,
    pub(super) entries: Vec<Entry>,
    pub(super) to_settle: Vec<EventRef>,
    pub(super) events: Vec<BatchEvent>,
    pub(super) started: Vec<Record>,
    pub(super) proposals: Vec<Proposal>,
    pub(super) closed: Vec<Record>,
    /// Which of `events` each record of `closed` closes.
    pub(super) closed_events: Vec<u32>,
    pub(super) approvals: Vec<Approval>,
    pub(super) answers: Vec<Answer>,
    pub(super) calls: Vec<RailCall>,
    /// Decided in vain, or not: to be decided anew.
    pub(super) retry: Vec<Submission>,
    /// Cut off from this batch: to be decided next, after those of `retry`.
    pub(super) rest: Vec<Submission>,
}

/// A submission with the places of its customer and its transaction in the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) submission: Submission,
    pub(super) customer: u32,
    /// [`NOWHERE`] for an unlock.
    pub(super) transaction: u32,
}

pub(super) const NOWHERE: u32 = u32::MAX;

/// An open event whose rail has answered.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) customer: u32,
    pub(super) linked: crate::event::LinkedEvent,
    pub(super) ticket: Option<super::Ticket>,
    pub(super) status: EventStatus,
}

/// A transaction as this batch sees it: settled, and with what the batch itself does to it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    /// The entry as it stands in the table, by what was read and what this batch proposes.
    pub(super) table: TransactionEntry,
    /// The state in effect.
    pub(super) approved: Option<TransactionState>,
    /// An open event proposes a state: the transaction is not to be touched by others.
    pub(super) reserved: bool,
    /// An event of this batch makes, changes or settles it.
    pub(super) touched: bool,
}

/// An event that this batch makes or closes.
#[derive(Debug)]
pub(super) struct BatchEvent {
    pub(super) reference: EventRef,
    pub(super) customer: u32,
    /// Its `Started` record in this batch; [`NOWHERE`] if it was appended before.
    pub(super) started: u32,
    /// Which submission led to it, by place in the batch; [`NOWHERE`] if none of this batch.
    pub(super) submission: u32,
    pub(super) proposal: Option<Proposal>,
    /// The proposal was made by an earlier batch and stands in the table.
    pub(super) proposed_before: bool,
    /// How it is to be closed; `Started` if it stays open for its rail.
    pub(super) status: EventStatus,
    pub(super) ticket: Option<super::Ticket>,
    /// Lost a race: to be left out of the steps that follow.
    pub(super) lost: bool,
}

impl BatchEvent {
    /// Whether its proposal is for this batch to make.
    pub(super) const fn proposes(&self) -> bool {
        self.proposal.is_some() && !self.proposed_before && !self.lost
    }
}

impl Batch {
    /// An empty batch; `seed` seeds its hash tables.
    pub fn new(seed: u64) -> Self {
        Self {
            step: Step::Finish,
            time_ms: 0,
            customers: Vec::new(),
            customer_places: HashMap::with_hasher(FixedState::with_seed(seed)),
            transactions: Vec::new(),
            transaction_places: HashMap::with_hasher(FixedState::with_seed(!seed)),
            submissions: Vec::new(),
            closings: Vec::new(),
            heads: Vec::new(),
            entries: Vec::new(),
            to_settle: Vec::new(),
            events: Vec::new(),
            started: Vec::new(),
            proposals: Vec::new(),
            closed: Vec::new(),
            closed_events: Vec::new(),
            approvals: Vec::new(),
            answers: Vec::new(),
            calls: Vec::new(),
            retry: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// Empties the batch and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.customers.clear();
        self.customer_places.clear();
        self.transactions.clear();
        self.transaction_places.clear();
        self.submissions.clear();
        self.closings.clear();
        self.heads.clear();
        self.entries.clear();
        self.to_settle.clear();
        self.events.clear();
        self.started.clear();
        self.proposals.clear();
        self.closed.clear();
        self.closed_events.clear();
        self.approvals.clear();
        self.answers.clear();
        self.calls.clear();
        self.retry.clear();
        self.rest.clear();
    }

    /// What to do next.
    pub const fn step(&self) -> Step {
        self.step
    }

    /// Whose heads are needed.
    pub fn customers(&self) -> &[CustomerId] {
        &self.customers
    }

    /// Which entries of the table are needed.
    pub fn transactions(&self) -> &[TransactionId] {
        &self.transactions
    }

    /// Events that propose a state somewhere, and may be decided already.
    pub fn to_settle(&self) -> &[EventRef] {
        &self.to_settle
    }

    /// Events to append, each at exactly the next place of its chain; those of one chain in order.
    pub fn started(&self) -> &[Record] {
        &self.started
    }

    /// States to propose, in order.
    pub fn proposals(&self) -> &[Proposal] {
        &self.proposals
    }

    /// Events to close, those of one chain in order.
    pub fn closed(&self) -> &[Record] {
        &self.closed
    }

    /// Tells that everything appended so far is durable.
    pub fn synced(&mut self) {
        debug_assert_eq!(self.step, Step::Sync);
        self.step = Step::Finish;
    }

    /// What the callers are to hear.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// Takes the answers out.
    pub fn take_answers(&mut self) -> Vec<Answer> {
        core::mem::take(&mut self.answers)
    }

    /// Which rails are to be called.
    pub fn calls(&self) -> &[RailCall] {
        &self.calls
    }

    /// Which proposed states are in effect now.
    pub fn approvals(&self) -> &[Approval] {
        &self.approvals
    }

    /// Puts the requests that were not decided, or not to an end, back to the front of the queue, ahead of
    /// everything submitted later. To be called when the batch needs a sync or is finished.
    pub fn give_back(&mut self, queue: &mut VecDeque<Submission>) {
        for submission in self.rest.drain(..).rev() {
            queue.push_front(submission);
        }
        for submission in self.retry.drain(..).rev() {
            queue.push_front(submission);
        }
    }

    pub(super) fn place_customer(&mut self, customer: CustomerId) -> u32 {
        *self.customer_places.entry(customer).or_insert_with(|| {
            self.customers.push(customer);
            (self.customers.len() - 1) as u32
        })
    }

    pub(super) fn place_transaction(&mut self, transaction: TransactionId) -> u32 {
        *self.transaction_places.entry(transaction).or_insert_with(|| {
            self.transactions.push(transaction);
            (self.transactions.len() - 1) as u32
        })
    }

    /// Puts off the submissions of one customer from one of them on: they are decided anew.
    pub(super) fn put_off(&mut self, customer: u32, from_submission: u32) {
        for (place, placed) in self.submissions.iter().enumerate() {
            if placed.customer != customer || (place as u32) < from_submission {
                continue;
            }
            let ticket = placed.submission.ticket;
            self.answers.retain(|answer| answer.ticket != ticket);
            if !self.retry.iter().any(|again| again.ticket == ticket) {
                self.retry.push(placed.submission);
            }
        }
    }
}
