//! Chains: what the end of one says, and the check that follows a chain event by event.
//!
//! A chain's *link* is what the next event builds on. After a `Done` event it is that event's hash; after an
//! `Aborted` one it fixes the abort and its reason as well ([`crate::event::aborted_link`]). The link of the
//! newest closed event is the chain's head hash: handed out as a receipt, it fixes the whole history.

use crate::account::CustomerState;
use crate::event::{AbortReason, Event, EventStatus, LinkedEvent, aborted_link, chain_start, done_by_hand_link};
use crate::hash::Hash;
use crate::id::CustomerId;
use crate::policy::LedgerConfig;
use crate::rejection::Rejection;
use crate::rules::{Decision, Known, decide};
use crate::transaction::TransactionState;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// What the end of a chain says: all that is needed to decide the customer's next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The sequence number of the newest closed event; 0 where there is none.
    pub seq: u64,
    /// What the next event builds on; also the chain's head hash.
    pub link: Hash,
    /// The time of the newest closed event, in milliseconds since 1970; 0 where there is none.
    pub time_ms: u64,
    /// The state by the newest `Done` event.
    pub state: CustomerState,
    /// Events that are `Started` and not closed, oldest first. Only the last may wait for a rail.
    pub open: Vec<LinkedEvent>,
}

impl Head {
    /// The head of a chain without events.
    pub fn start(ledger_digest: &Hash, customer: CustomerId) -> Self {
        Self {
            seq: 0,
            link: chain_start(ledger_digest, customer),
            time_ms: 0,
            state: CustomerState::default(),
            open: Vec::new(),
        }
    }

    /// Takes an event that is `Done`.
    pub fn done(&mut self, linked: &LinkedEvent) {
        self.seq = linked.event.seq;
        self.link = linked.hash;
        self.time_ms = linked.event.time_ms;
        self.state.clone_from(&linked.event.state);
    }

    /// Takes an event by how it stands: an open one joins the open ones, a closed one moves the head.
    pub fn take(&mut self, linked: LinkedEvent, status: &EventStatus) {
        match status {
            EventStatus::Started => self.open.push(linked),
            EventStatus::Done => self.done(&linked),
            EventStatus::DoneByHand(reason) => {
                let link = done_by_hand_link(&self.link, &linked.hash, reason);
                self.done(&linked);
                self.link = link;
            }
            EventStatus::Aborted(reason) => {
                self.link = aborted_link(&self.link, &linked.hash, reason);
                self.seq = linked.event.seq;
                self.time_ms = linked.event.time_ms;
            }
        }
    }

    /// Closes the oldest open event; does nothing where none is open.
    pub fn close(&mut self, status: &EventStatus) {
        if *status != EventStatus::Started && !self.open.is_empty() {
            let linked = self.open.remove(0);
            self.take(linked, status);
        }
    }
}

/// What is wrong with an event, found while following its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainFault {
    /// The event belongs to another customer.
    WrongCustomer,
    /// The sequence number is not the one before plus one.
    WrongSeq {
        /// What it should be.
        expected: u64,
    },
    /// The time is before that of the event before.
    TimeGoesBack,
    /// The hash is not that of this content on top of the link before.
    WrongHash {
        /// What it should be.
        expected: Hash,
    },
    /// An event is closed although one before it is still open (a chain's events are closed oldest first), or
    /// is `Done` although it was decided on top of one that was aborted.
    DoneAfterOpen,
    /// The request of the event would have been rejected.
    NotAllowed(Box<Rejection>),
    /// The transaction was made before; nothing should have happened.
    MadeBefore,
    /// The kind of the event and its transaction do not fit each other, or it has a key and should have none.
    Malformed,
    /// The resulting state is not what the rules give.
    WrongState {
        /// What it should be.
        expected: Box<CustomerState>,
    },
}

impl ChainFault {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::WrongCustomer => "wrong_customer",
            Self::WrongSeq { .. } => "wrong_seq",
            Self::TimeGoesBack => "time_goes_back",
            Self::WrongHash { .. } => "wrong_hash",
            Self::DoneAfterOpen => "done_after_open",
            Self::NotAllowed(_) => "not_allowed",
            Self::MadeBefore => "made_before",
            Self::Malformed => "malformed",
            Self::WrongState { .. } => "wrong_state",
        }
    }
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongCustomer => f.write_str("the event belongs to another customer"),
            Self::WrongSeq { expected } => write!(f, "the sequence number should be {expected}"),
            Self::TimeGoesBack => f.write_str("the time is before that of the event before"),
            Self::WrongHash { expected } => write!(f, "the hash should be {expected}"),
            Self::DoneAfterOpen => {
                f.write_str("the event is closed although one that it builds on is still open, or was aborted")
            }
            Self::NotAllowed(rejection) => write!(f, "the rules reject this request: {}", rejection.code()),
            Self::MadeBefore => f.write_str("the transaction was made before"),
            Self::Malformed => f.write_str("the kind of the event does not fit its transaction, or its key"),
            Self::WrongState { expected } => {
                f.write_str("the resulting account should be")?;
                for (currency, account) in expected.accounts.iter() {
                    let (available, held) = (account.available.steps(), account.held.steps());
                    write!(f, " [currency {}: {available} available, {held} held, in steps]", currency.0)?;
                }
                if expected.locked { f.write_str(", locked") } else { f.write_str(", not locked") }
            }
        }
    }
}

/// Follows one chain, oldest event first, and recomputes every link, every hash and every account.
#[derive(Clone, Debug)]
pub struct ChainCheck {
    customer: CustomerId,
    head: Head,
    /// The hash of the event before, if that is not the link behind it: later events of the same run build on it.
    tentative: Option<Hash>,
}

impl ChainCheck {
    /// Begins before the first event.
    pub fn new(ledger_digest: &Hash, customer: CustomerId) -> Self {
        Self { customer, head: Head::start(ledger_digest, customer), tentative: None }
    }

    /// Goes on behind a head that is taken as it is: after a part of the chain that cannot be followed.
    pub const fn behind(customer: CustomerId, head: Head) -> Self {
        Self { customer, head, tentative: None }
    }

    /// What the events followed so far say.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// Follows one event. `known` is the state of its transaction by the events before.
    ///
    /// Gives the state of the transaction afterwards, if the event is `Done`.
    pub fn follow(
        &mut self,
        config: &LedgerConfig,
        known: Option<TransactionState>,
        linked: &LinkedEvent,
        status: &EventStatus,
    ) -> Result<Option<TransactionState>, ChainFault> {
        let event = &linked.event;
        if event.customer != self.customer {
            return Err(ChainFault::WrongCustomer);
        }
        let (last_seq, last_time_ms) = match self.head.open.last() {
            Some(open) => (open.event.seq, open.event.time_ms),
            None => (self.head.seq, self.head.time_ms),
        };
        if last_seq.checked_add(1) != Some(event.seq) {
            return Err(ChainFault::WrongSeq { expected: last_seq.saturating_add(1) });
        }
        if event.time_ms < last_time_ms {
            return Err(ChainFault::TimeGoesBack);
        }
        let on_tentative = self.check_hash(linked)?;
        let after_open = *status != EventStatus::Started && !self.head.open.is_empty();
        if after_open || (status.is_done() && on_tentative) {
            return Err(ChainFault::DoneAfterOpen);
        }
        // What was aborted for another event's sake was right when it was decided, but not by what is known now.
        if !on_tentative && !matches!(status, EventStatus::Aborted(AbortReason::TransactionConflict)) {
            check_state(config, &self.head.state, known, event)?;
        }
        self.tentative = match status {
            EventStatus::Done => None,
            // Who took it for `Done` may have decided on top of it, in vain: the link is another one.
            EventStatus::Started | EventStatus::DoneByHand(_) | EventStatus::Aborted(_) => Some(linked.hash),
        };
        match status {
            EventStatus::Done => self.head.done(linked),
            EventStatus::Started | EventStatus::DoneByHand(_) | EventStatus::Aborted(_) => {
                self.head.take(linked.clone(), status);
            }
        }
        Ok(if status.is_done() { event.transaction_state() } else { None })
    }

    /// Whether the event builds on the hash of an event that is not in effect; an error if it builds on
    /// neither that nor the head's link.
    fn check_hash(&self, linked: &LinkedEvent) -> Result<bool, ChainFault> {
        let expected = linked.event.hash(&self.head.link);
        if self.head.open.is_empty() && expected == linked.hash {
            return Ok(false);
        }
        if let Some(hash) = &self.tentative {
            let on_tentative = linked.event.hash(hash);
            if on_tentative == linked.hash {
                return Ok(true);
            }
            if !self.head.open.is_empty() {
                return Err(ChainFault::WrongHash { expected: on_tentative });
            }
        }
        Err(ChainFault::WrongHash { expected })
    }
}

/// Whether the rules lead from `before` to the state the event carries.
fn check_state(
    config: &LedgerConfig,
    before: &CustomerState,
    known: Option<TransactionState>,
    event: &Event,
) -> Result<(), ChainFault> {
    let request = event.request().ok_or(ChainFault::Malformed)?;
    if event.key.is_some() && !request.action.takes_key() {
        return Err(ChainFault::Malformed);
    }
    let known = Known { state: known.as_ref(), reserved: false };
    match decide(config, before, known, &request) {
        Err(rejection) => Err(ChainFault::NotAllowed(Box::new(rejection))),
        Ok(Decision::AlreadyApplied) => Err(ChainFault::MadeBefore),
        Ok(Decision::Change(change)) if change.state != event.state => {
            Err(ChainFault::WrongState { expected: Box::new(change.state) })
        }
        Ok(Decision::Change(change)) => {
            let kind = change.transaction.map(|(_, state)| state.kind);
            let fits = change.currency == event.currency
                && change.amount == event.amount
                && kind.is_none_or(|kind| kind == event.transaction_kind);
            if fits { Ok(()) } else { Err(ChainFault::Malformed) }
        }
    }
}

#[cfg(test)]
mod tests;
