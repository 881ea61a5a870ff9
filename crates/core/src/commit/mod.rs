//! The commit protocol: one sans-I/O machine for deciding, for committing, and for recovery.
//!
//! The machine takes inputs and gives effects; it reads no clock, touches no store and calls no rail. A driver
//! (the engine's, the simulator's, a model checker's) asks a [`Batch`] for its next [`Step`], does what it
//! says, and hands the result back. The order of steps is the protocol:
//!
//! ```text
//!  requests, answers of rails, customers to recover
//!        │  Machine::gather            lock: customers whose event is open keep their requests waiting
//!        ▼
//!      Load ──► Settle ──► (decide) ──► AppendStarted ──► Propose ──► AppendClosed ──► Sync ──► Finish
//!      heads    whose        rules       chains, at        table:      chains: Done     the one   answers,
//!      entries  proposed                 exactly the       proposed,   or Aborted       moment    calls to rails,
//!               states are               next seq          approved                     of        table: approved
//!               in effect                                  kept                         effect
//! ```
//!
//! * An event without a rail goes all the way in one batch. An event *with* a rail stops after `Sync` with its
//!   `Started` durable; only then is the rail called, and its answer closes the event in a later batch. In
//!   between its customer is locked: later requests of that customer wait in order, all others go on.
//! * Runs of events on one customer travel together; each is decided on the state that the one before leaves.
//! * Nothing is answered before what it rests on is durable, a refusal neither.
//! * Recovery is the same machine: [`Machine::recover`] puts customers with open events into a batch. An open
//!   event without a rail is rolled forward (proposed again, then `Done`); one with a rail is asked again.
//!   What had not got as far as its proposal, and whose transaction is another's by now, is `Aborted`.
//! * A proposal is never written over while its event is open. Whoever meets one that nobody here holds open
//!   recovers that event's customer first, and decides then.
//! * A lost race (another owner extended the chain, or took the transaction) is no error: the requests go back
//!   to the front of the queue, in order, and are decided anew. What was `Started` in vain is `Aborted`; what
//!   another owner has rolled forward meanwhile is answered as the `Done` event it is.
//! * An event that the table has approved, and that a head does not reach, may have come between the two reads: the next
//!   batch loads that customer again. If this head, asked for after the table had told, does not reach the event either,
//!   and no chain knows the event when asked for it by its id, the stores do not fit together, and the machine stops.
//! * Nothing is decided on top of an abort that is not written yet: the next batch does.
//! * Where the stores do not take whole batches, a batch touches each transaction once, and there is one more
//!   `Sync` before a `Propose` that makes a found state the approved one, or that writes over the proposal of an
//!   event that was found aborted.
//!
//! * Where stores take whole batches and no rail has a say, the steps from `Load` to `AppendClosed` are one, `AtOnce`:
//!   nobody could see what is between them.
//!
//! What callers hear is one history per customer: every answer is true of one moment between request and
//! answer. Whether *another* customer has taken a transaction id is seen at a moment of its own.
//!
//! * A request's key has an entry of the table as a transaction has, and goes the same way: its event proposes both, and
//!   is aborted if either was taken. A key in effect is looked up in the chain (`Recall`, behind `Settle`): the same
//!   request hears what it heard then, another one is refused.
//!
//! What this module does not do: threads, queues with limits, durability itself (see `bursar-engine`'s driver
//! and stores), and the rules (see [`crate::rules`]).

mod at_once;
mod batch;
mod conclude;
mod decide;
mod machine;
mod repeats;
mod terms;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Step};
pub use machine::{Asking, Limits, Machine, Pending, Routes, Schedule, Settling};
pub use terms::{Minimum, Terms};

use crate::account::Account;
use crate::amount::Amount;
use crate::currency::CurrencyIndex;
use crate::event::{AbortReason, EventStatus, LinkedEvent, RailId, ReasonText, Record};
use crate::hash::{EventId, Hash};
use crate::id::CustomerId;
use crate::key::RequestKey;
use crate::rejection::Rejection;
use crate::request::Request;
use crate::transaction::{EntryId, EventRef, TransactionState};
use alloc::boxed::Box;
use core::fmt;

/// Whom an answer is for; the driver gives it and gets it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A request with the ticket of whoever asked, and its terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Whom the answer is for.
    pub ticket: Ticket,
    /// What is asked for.
    pub request: Request,
    /// What was set beside it.
    pub terms: Option<Box<Terms>>,
}

impl Submission {
    /// A request without terms.
    pub const fn new(ticket: Ticket, request: Request) -> Self {
        Self { ticket, request, terms: None }
    }

    /// The key by which it takes effect once. One that its request does not take ([`crate::Action::takes_key`]) does not count;
    /// it is refused by the rules.
    pub fn key(&self) -> Option<RequestKey> {
        self.terms.as_ref()?.key.filter(|_| self.request.action.takes_key())
    }
}

/// What the caller hears of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect, as this event.
    Applied(Receipt),
    /// It took effect before; nothing moved now. A request with a key hears by which event it did.
    AlreadyApplied(Option<Receipt>),
    /// It was refused, and changed nothing.
    Rejected(Rejection),
}

/// Proof of an event in effect: with it, the whole history of its chain is fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Where the event is.
    pub event: EventRef,
    /// Its hash, which is the chain's head hash right after it (but for an event that an operator has settled).
    pub hash: Hash,
    /// When it was decided, in milliseconds since 1970.
    pub time_ms: u64,
    /// The currency of the account it changed.
    pub currency: CurrencyIndex,
    /// That account, as it is after it.
    pub account: Account,
    /// Whether the customer is locked after it.
    pub locked: bool,
}

impl Receipt {
    /// The receipt of an event in effect.
    pub fn of(linked: &LinkedEvent) -> Self {
        let LinkedEvent { event, hash } = linked;
        Self {
            event: linked.reference(),
            hash: *hash,
            time_ms: event.time_ms,
            currency: event.currency,
            account: event.account(),
            locked: event.state.locked,
        }
    }
}

/// An answer on its way to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whom it is for.
    pub ticket: Ticket,
    /// What happened; `Err` if nothing did, because too much waits for this customer already.
    pub result: Result<Outcome, Busy>,
}

/// Too many requests wait for a customer whose event is open. Nothing was decided; try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// Whose event is open.
    pub customer: CustomerId,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "customer {} waits for a rail, and so do too many requests; try again later", self.customer)
    }
}

/// What a rail says of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RailAnswer {
    /// It acted; the event is `Done`.
    Done,
    /// It definitely did not act, and will not; the event is `Aborted`.
    Refused(AbortReason),
    /// It cannot tell. The event stays open and the rail is asked again later.
    Unknown,
}

/// How an operator settles an event by hand, and why. The reason goes into the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The rail has acted: the event is done.
    Done(ReasonText),
    /// The rail has not acted, and never will: the event is aborted.
    Aborted(ReasonText),
}

impl Settlement {
    /// How the event stands then.
    pub fn status(&self) -> EventStatus {
        match self {
            Self::Done(reason) => EventStatus::DoneByHand(reason.clone()),
            Self::Aborted(reason) => EventStatus::Aborted(AbortReason::Operator(reason.clone())),
        }
    }
}

/// A call to a rail, to be made only after the batch it came with is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RailCall {
    /// Which rail.
    pub rail: RailId,
    /// The event, whose id is the idempotency key.
    pub event: LinkedEvent,
    /// The rail may have been called for this event before: 0 for the first call, then counted up. After a
    /// restart it begins at 1, since nobody knows.
    pub attempt: u32,
}

/// A write to the transactions table, to the entry of a transaction or of a key: set `proposed`, and keep as `approved` what is known to be in effect.
///
/// A conditional write: it is made only if the entry's proposed event is the one that was seen, and its approved
/// state is the one that was seen or (if somebody has approved that event meanwhile) already `approved`. If the
/// entry proposes this very event already, nothing is written, and the result is [`ProposeResult::Proposed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Which entry.
    pub entry: EntryId,
    /// The approved state the entry had when it was read.
    pub seen_approved: Option<TransactionState>,
    /// The event whose proposed state the entry had when it was read.
    pub seen_proposed: Option<EventId>,
    /// The state in effect: what was seen as approved, or as proposed by an event that is `Done`. By then that
    /// event is durably so ([`Step::Sync`]).
    pub approved: Option<TransactionState>,
    /// The new state.
    pub state: TransactionState,
    /// The event that proposes it.
    pub event: EventRef,
}

/// A write to the transactions table: the proposed state of this event becomes the approved one. Does nothing
/// if the entry does not propose this event any more.
///
/// The entry goes on naming the event as its proposed one ([`TransactionEntry::proposed`]). If it were cleared,
/// an entry could come back to what a slow owner has seen (posted, disputed, posted again), and that owner's
/// proposal of long ago would hold once more.
///
/// [`TransactionEntry::proposed`]: crate::transaction::TransactionEntry::proposed
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Which entry.
    pub entry: EntryId,
    /// The event that proposed the state.
    pub event: EventId,
    /// The state to approve.
    pub state: TransactionState,
}

/// What became of one appended record.
///
/// The events of a chain are closed oldest first. Where a record did not come out as it was asked, later
/// `Started` and `Done` records of the same chain in the same call are a `Conflict`, whatever the chain holds
/// by then: they rest on it. (Of a run that came too late, the second event may well have the right sequence
/// number again, on top of somebody else's event.) `Aborted` records are judged by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It stands in the chain.
    Yes,
    /// Not appended. For a `Started`: the chain is longer than thought, or has another event there. For a
    /// closing record: no such event is there to be closed, or one before it is still open.
    Conflict,
    /// For a closing record: the event is `Done` already.
    AlreadyDone,
    /// For a closing record: an operator has settled the event as done already.
    AlreadyDoneByHand(ReasonText),
    /// For a closing record: the event is `Aborted` already.
    AlreadyAborted(AbortReason),
}

impl Appended {
    /// Whether the record stands in the chain, or what it asked for had been done before.
    pub const fn is_as_wanted(&self, record: &Record) -> bool {
        match (self, record) {
            (Self::Yes, _)
            | (Self::AlreadyDone, Record::Done(_))
            | (Self::AlreadyDoneByHand(_), Record::DoneByHand(..))
            | (Self::AlreadyAborted(_), Record::Aborted(..)) => true,
            (Self::AlreadyDone | Self::AlreadyDoneByHand(_) | Self::AlreadyAborted(_) | Self::Conflict, _) => false,
        }
    }

    /// What a closing record meets at an event that stands like this; `None` where it is open.
    pub fn closed_already(status: &EventStatus) -> Option<Self> {
        match status {
            EventStatus::Started => None,
            EventStatus::Done => Some(Self::AlreadyDone),
            EventStatus::DoneByHand(reason) => Some(Self::AlreadyDoneByHand(reason.clone())),
            EventStatus::Aborted(reason) => Some(Self::AlreadyAborted(reason.clone())),
        }
    }
}

/// What became of one proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeResult {
    /// It stands in the table.
    Proposed,
    /// The entry was not as thought; nothing was written.
    Conflict,
}

/// Money would have become wrong. The engine stops: wrong money is worse than no service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// An event would break an invariant of its account; see [`crate::rules::keeps_invariants`].
    Account {
        /// Whose.
        customer: CustomerId,
        /// The account before.
        before: Account,
        /// The account after.
        after: Account,
        /// The amount moved.
        amount: Amount,
    },
    /// The table has approved a state that an event proposed, and the event's chain does not have that event: one store
    /// is older than the other, or has lost what was durable.
    EventMissing {
        /// The entry that names it.
        entry: EntryId,
        /// The event.
        event: EventRef,
    },
    /// A store gave back something else than was asked of it.
    Store {
        /// What is wrong, for people.
        what: &'static str,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account { customer, before, after, amount } => write!(
                f,
                "an event of customer {customer} over {} steps would lead from {} available, {} held to {} available, {} held: an invariant of money is broken",
                amount.steps(),
                before.available.steps(),
                before.held.steps(),
                after.available.steps(),
                after.held.steps()
            ),
            Self::EventMissing { entry, event: EventRef { customer, seq, id } } => write!(
                f,
                "the transactions table has approved what event {id} did to {entry}, and the chain of customer {customer} \
                 does not have this event, which would be its number {seq}: the chains are older than the table, or \
                 have lost events"
            ),
            Self::Store { what } => write!(f, "a store gave back something else than was asked of it: {what}"),
        }
    }
}

impl core::error::Error for Broken {}
