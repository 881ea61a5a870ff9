//! A batch on its way through the protocol: what it asks of the stores next, and what it has so far.

use super::{Answer, Approval, Busy, Outcome, Proposal, RailCall, Routes, Submission, Ticket};
use crate::chain::Head;
use crate::event::{Event, EventStatus, LinkedEvent, Record};
use crate::id::CustomerId;
use crate::key::RequestKey;
use crate::rejection::Rejection;
use crate::transaction::{EntryId, EventRef, Proposed, TransactionEntry, TransactionState};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// What a driver does next for a batch. Steps that would have nothing to do are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Decide the batch's submissions and append what they lead to, one by one ([`super::Machine::decide_at_once`]);
    /// then tell [`Batch::decided_at_once`]. Only where the machine was told that the stores can do so.
    AtOnce,
    /// Read the chain heads of [`Batch::customers`]; hand them to [`super::Machine::loaded`].
    Load,
    /// Read the table's entries of [`Batch::transactions`]; hand them to [`super::Machine::found`].
    Get,
    /// Ask the chains how the events in [`Batch::to_settle`] stand; hand that to [`super::Machine::settled`].
    Settle,
    /// Read the events [`Batch::to_recall`], which are in effect; hand them to [`super::Machine::recalled`]. Only where a
    /// request comes with a key that was used before.
    Recall,
    /// Append [`Batch::started`] to the chains; hand the results to [`super::Machine::started`].
    AppendStarted,
    /// Write [`Batch::proposals`] to the table; hand the results to [`super::Machine::proposed`].
    Propose,
    /// Append [`Batch::closed`] to the chains, as the last records of this batch; hand the results to
    /// [`super::Machine::closed`].
    AppendClosed,
    /// Make everything durable that was appended so far or read from the chains, by whomever it was written;
    /// then tell [`Batch::synced`].
    ///
    /// Comes before `Finish`. Where the stores do not take whole batches, it also comes before `Propose` if
    /// that makes a found state the approved one, or writes over the proposal of an event that was found aborted:
    /// the table must not keep what the chains may yet lose.
    Sync,
    /// Give the [`Batch::answers`], make the [`Batch::calls`], write the [`Batch::approvals`]. The batch is done.
    Finish,
}

/// Requests that are decided and committed together. Made by [`super::Machine::gather`]; a batch can be used
/// again once it is finished, and keeps its memory.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Batch {
    pub(super) step: Step,
    /// What follows the next `Sync`.
    pub(super) after_sync: Step,
    pub(super) time_ms: u64,
    pub(super) customers: Vec<CustomerId>,
    pub(super) customer_places: HashMap<CustomerId, u32, FixedState>,
    /// Which entries of the transactions table: of transactions, and of keys.
    pub(super) transactions: Vec<EntryId>,
    pub(super) transaction_places: HashMap<EntryId, u32, FixedState>,
    /// There are keys among them.
    pub(super) has_keys: bool,
    pub(super) submissions: Vec<Placed>,
    pub(super) closings: Vec<Closing>,
    pub(super) heads: Vec<Head>,
    /// The sequence number of each chain's newest event, open ones included, as it was loaded.
    pub(super) loaded_seqs: Vec<u64>,
    pub(super) entries: Vec<Entry>,
    /// Events that an earlier batch found approved, and beyond the heads it had.
    pub(super) doubted: Vec<EventRef>,
    pub(super) to_settle: Vec<EventRef>,
    pub(super) to_recall: Vec<EventRef>,
    /// The events in effect that have keys of this batch, by key.
    pub(super) used: HashMap<RequestKey, LinkedEvent, FixedState>,
    pub(super) events: Vec<BatchEvent>,
    /// A proposal rests on how another event was found to be closed, which nobody may have synced yet.
    pub(super) rests_on_found: bool,
    pub(super) started: Vec<Record>,
    pub(super) proposals: Vec<Proposal>,
    pub(super) closed: Vec<Record>,
    /// Which of `events` each record of `closed` closes.
    pub(super) closed_events: Vec<u32>,
    pub(super) approvals: Vec<Approval>,
    pub(super) answers: Vec<Answer>,
    pub(super) calls: Vec<RailCall>,
    /// How events that had waited for their rail ended.
    pub(super) ends: Vec<(EventRef, EventStatus)>,
    /// What requests that make no event lead to, by their place among the submissions.
    pub(super) outcomes: Vec<(u32, Result<Outcome, Busy>)>,
    /// Waited for an event that is not to be, and is of no place in this batch.
    pub(super) waited: Vec<Submission>,
    /// Decided in vain, or not at all: to be decided anew.
    pub(super) retry: Vec<Submission>,
    /// Cut off from this batch: to be decided next, after those of `retry`.
    pub(super) rest: Vec<Submission>,
}

/// A submission with the places of its customer, its transaction and its key in the batch.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) submission: Submission,
    pub(super) customer: u32,
    /// [`NOWHERE`] for an unlock.
    pub(super) transaction: u32,
    /// [`NOWHERE`] where it has none.
    pub(super) key: u32,
    pub(super) fate: Fate,
}

pub(super) const NOWHERE: u32 = u32::MAX;

/// What has become of a submission so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Undecided,
    /// It makes no event; its answer is among [`Batch::outcomes`].
    Answered,
    /// It makes an event, whose end is its answer.
    Event,
    /// It waits for its customer's open event.
    Waits,
    /// It is to be decided anew, in a later batch.
    PutOff,
}

/// An open event whose rail has answered.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Closing {
    pub(super) customer: u32,
    pub(super) linked: LinkedEvent,
    /// What led to it, if somebody waits for the answer.
    pub(super) asked: Option<Submission>,
    pub(super) status: EventStatus,
}

/// A transaction, or a key, as this batch sees it: settled, and with what the batch itself does to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The entry as it stands in the table, by what was read and what this batch proposes.
    pub(super) table: TransactionEntry,
    /// The state in effect.
    pub(super) approved: Option<TransactionState>,
    /// The event that proposed last was found to be aborted.
    pub(super) found_aborted: bool,
    pub(super) hold: Hold,
    /// An event of this batch makes, changes or settles it.
    pub(super) touched: bool,
}

/// Whether a transaction, or a key, can be decided upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It can: its state in effect is known.
    Free,
    /// An event that waits for its rail proposes a state: not to be touched by others.
    Reserved,
    /// An event of this customer has touched it that is open, but not known to be; or that is newer than
    /// the customer's head in this batch. The customer is to be loaded (again) first.
    Doubtful(CustomerId),
}

impl Entry {
    /// What the chains are to be asked about: a state that is not approved; or one that is, by an event that heads do
    /// not reach although they were loaded after it had been approved.
    pub(super) fn asks_about(&self, doubted: &[EventRef]) -> Option<Proposed> {
        let is_doubted = |event: &EventRef| matches!(self.hold, Hold::Doubtful(_)) && doubted.contains(event);
        self.table.proposed.filter(|proposed| !self.table.is_settled() || is_doubted(&proposed.event))
    }
}

/// An event that this batch makes or closes.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct BatchEvent {
    pub(super) reference: EventRef,
    pub(super) customer: u32,
    pub(super) origin: Origin,
    /// The proposal that this batch makes for it.
    pub(super) proposal: Option<Proposal>,
    /// The one for its key.
    pub(super) key_proposal: Option<Box<Proposal>>,
    /// How it is to be closed, then how it was closed; `Started` if it stays open for its rail.
    pub(super) status: EventStatus,
    /// Lost a race: to be left out of the steps that follow.
    pub(super) lost: bool,
}

/// Where an event of a batch comes from.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum Origin {
    /// A submission of this batch, by its place; its record is at this place of [`Batch::started`].
    New { submission: u32, started: u32 },
    /// Found open at the end of a chain.
    Recovered,
    /// It waited for its rail, which has answered. Whether the chain, as loaded, still had it open.
    Answered { asked: Option<Box<Submission>>, linked: Box<LinkedEvent>, was_open: bool },
}

impl BatchEvent {
    /// The proposals that this batch is to make for it.
    pub(super) fn proposals(&self) -> impl Iterator<Item = &Proposal> {
        let all = self.proposal.iter().chain(self.key_proposal.as_deref());
        all.filter(|_| !self.lost)
    }
}

impl Batch {
    /// An empty batch; `seed` seeds its hash tables.
    pub fn new(seed: u64) -> Self {
        Self {
            step: Step::Finish,
            after_sync: Step::Finish,
            time_ms: 0,
            customers: Vec::new(),
            customer_places: HashMap::with_hasher(FixedState::with_seed(seed)),
            transactions: Vec::new(),
            transaction_places: HashMap::with_hasher(FixedState::with_seed(!seed)),
            has_keys: false,
            submissions: Vec::new(),
            closings: Vec::new(),
            heads: Vec::new(),
            loaded_seqs: Vec::new(),
            entries: Vec::new(),
            doubted: Vec::new(),
            to_settle: Vec::new(),
            to_recall: Vec::new(),
            used: HashMap::with_hasher(FixedState::with_seed(seed)),
            events: Vec::new(),
            rests_on_found: false,
            started: Vec::new(),
            proposals: Vec::new(),
            closed: Vec::new(),
            closed_events: Vec::new(),
            approvals: Vec::new(),
            answers: Vec::new(),
            calls: Vec::new(),
            ends: Vec::new(),
            outcomes: Vec::new(),
            waited: Vec::new(),
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
        self.has_keys = false;
        self.submissions.clear();
        self.closings.clear();
        self.heads.clear();
        self.loaded_seqs.clear();
        self.entries.clear();
        self.doubted.clear();
        self.to_settle.clear();
        self.to_recall.clear();
        self.used.clear();
        self.events.clear();
        self.rests_on_found = false;
        self.started.clear();
        self.proposals.clear();
        self.closed.clear();
        self.closed_events.clear();
        self.approvals.clear();
        self.answers.clear();
        self.calls.clear();
        self.ends.clear();
        self.outcomes.clear();
        self.waited.clear();
        self.retry.clear();
        self.rest.clear();
    }

    /// When it was decided, in milliseconds since 1970.
    pub const fn time_ms(&self) -> u64 {
        self.time_ms
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
    pub fn transactions(&self) -> &[EntryId] {
        &self.transactions
    }

    /// Events that propose a state somewhere, and may be decided already.
    pub fn to_settle(&self) -> &[EventRef] {
        &self.to_settle
    }

    /// Events in effect that have keys of this batch: what their requests were is to be known.
    pub fn to_recall(&self) -> &[EventRef] {
        &self.to_recall
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
        self.step = self.after_sync;
    }

    /// Whether it waits for a sync and has more to do behind it than to finish.
    pub const fn goes_on_after_sync(&self) -> bool {
        matches!(self.step, Step::Sync) && !matches!(self.after_sync, Step::Finish)
    }

    /// What the callers are to hear; complete once the step is [`Step::Finish`].
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// The requests that are refused as things stand, while the batch is on its way: before any of its events is
    /// written. Those of a customer for whom another owner turns out to be faster are decided anew.
    pub fn refused(&self) -> impl Iterator<Item = (Ticket, &Rejection)> {
        self.outcomes.iter().filter_map(|(place, result)| match result {
            Ok(Outcome::Rejected(rejection)) => {
                Some((self.submissions.get(*place as usize)?.submission.ticket, rejection))
            }
            Ok(Outcome::Applied(_) | Outcome::AlreadyApplied(_)) | Err(_) => None,
        })
    }

    /// Adds answers of an earlier batch that is to be made durable together with this one.
    pub fn add_answers(&mut self, earlier: Vec<Answer>) {
        self.answers.splice(0..0, earlier);
    }

    /// Leaves out the answers that only tell of an event: who asked does not want them.
    pub fn leave_out_applied(&mut self) {
        self.answers.retain(|answer| !matches!(answer.result, Ok(Outcome::Applied(_))));
    }

    /// Takes the answers out.
    pub fn take_answers(&mut self) -> Vec<Answer> {
        core::mem::take(&mut self.answers)
    }

    /// Which rails are to be called.
    pub fn calls(&self) -> &[RailCall] {
        &self.calls
    }

    /// How events that had waited for their rail ended; true once the step is [`Step::Finish`].
    pub fn ends(&self) -> &[(EventRef, EventStatus)] {
        &self.ends
    }

    /// Which proposed states are in effect now.
    pub fn approvals(&self) -> &[Approval] {
        &self.approvals
    }

    /// Puts the requests that were not decided, or not to an end, back to the front of the queue, ahead of
    /// everything submitted later. To be called before the next batch is gathered: once the batch is finished,
    /// or, by a driver whose stores take whole batches, as soon as it needs its sync.
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

    pub(super) fn place_entry(&mut self, entry: impl Into<EntryId>) -> u32 {
        let entry = entry.into();
        *self.transaction_places.entry(entry).or_insert_with(|| {
            self.transactions.push(entry);
            (self.transactions.len() - 1) as u32
        })
    }

    /// Makes room for the entries of the table that an event concerns.
    pub(super) fn place_event(&mut self, event: &Event) {
        if let Some(transaction) = event.transaction {
            self.place_entry(transaction);
        }
        if let Some(key) = event.key {
            self.has_keys = true;
            self.place_entry(key);
        }
    }

    pub(super) fn put(&mut self, submission: Submission) {
        self.has_keys |= submission.key().is_some();
        let (customer, transaction, key) = (NOWHERE, NOWHERE, NOWHERE);
        self.submissions.push(Placed { submission, customer, transaction, key, fate: Fate::Undecided });
    }

    /// Finds the places of all submissions. Gives the batch's next step.
    pub(super) fn place_all(&mut self) -> Step {
        for index in 0..self.submissions.len() {
            let submission = &self.submissions[index].submission;
            let Submission { request, .. } = *submission;
            let key = submission.key();
            let customer = self.place_customer(request.customer);
            let transaction = request.action.transaction().map_or(NOWHERE, |id| self.place_entry(id));
            let key = key.map_or(NOWHERE, |key| self.place_entry(key));
            let placed = &mut self.submissions[index];
            (placed.customer, placed.transaction, placed.key) = (customer, transaction, key);
        }
        if self.customers.is_empty() { Step::Finish } else { Step::Load }
    }

    /// Whether a submission goes through a rail.
    pub(super) fn has_rails(&self, routes: Routes) -> bool {
        let through_rail = |placed: &Placed| routes.of(placed.submission.request.action.kind()).is_some();
        routes != Routes::default() && self.submissions.iter().any(through_rail)
    }

    /// Puts off the submissions of one customer from one of them on: they are decided anew.
    pub(super) fn put_off(&mut self, customer: u32, from_submission: u32) {
        let from = self.submissions.iter_mut().skip(from_submission as usize);
        for placed in from.filter(|placed| placed.customer == customer) {
            placed.fate = Fate::PutOff;
        }
    }

    /// The events of one customer, from one of them on.
    pub(super) fn events_from(&mut self, customer: u32, first: usize) -> impl Iterator<Item = &mut BatchEvent> {
        self.events.iter_mut().skip(first).filter(move |event| event.customer == customer)
    }
}
