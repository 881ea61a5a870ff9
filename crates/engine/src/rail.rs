//! Rails: outside parties that must agree before an event is done.

use crate::ledger::Inbox;
use bursar_core::commit::{RailAnswer, RailCall, Schedule};
use bursar_core::{EventId, EventRef, EventStatus, LedgerConfig, RailId};
use std::fmt;
use std::sync::Weak;

/// An outside party: a bank, a processor, any service that acts on an event before it is done.
///
/// It is called only after the event's `Started` is durable, with the event's id as idempotency key: for the
/// same id it must act at most once and answer the same, however often it is asked. After a restart, and after
/// an [`RailAnswer::Unknown`], it is asked again.
pub trait Rail: Send + Sync + fmt::Debug {
    /// Takes a call and returns soon: the answer may be given later, from any thread. A reply that is dropped
    /// counts as [`RailAnswer::Unknown`].
    fn call(&self, call: RailCall, reply: RailReply);

    /// What people call it.
    fn name(&self) -> Option<&str> {
        None
    }

    /// The ledger that it serves is open; called before any [`Rail::call`], at every opening.
    fn opened(&self, _config: &LedgerConfig) {}

    /// An answer of this rail came too late, and says otherwise than the operator who settled the event. What it settled
    /// stays; somebody has to look. Returns soon.
    fn contradicted(&self, _contradiction: &Contradiction) {}

    /// When it is asked again after an [`RailAnswer::Unknown`], if not as [`bursar_core::commit::Limits`] say.
    fn schedule(&self) -> Option<Schedule> {
        None
    }
}

/// A rail's answer that contradicts how an operator has settled the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// Where the event is.
    pub event: EventRef,
    /// How it stands, with the operator's reason.
    pub settled: EventStatus,
    /// What the rail said afterwards: it acted although the event is aborted, or it refused although the event is done.
    pub answer: RailAnswer,
}

/// An answer on its way to the ledger.
#[derive(Debug)]
pub(crate) struct RailAnswered {
    pub(crate) event: EventId,
    pub(crate) rail: RailId,
    pub(crate) answer: RailAnswer,
    /// Of an unknown answer: what is known of it.
    pub(crate) said: String,
}

/// Takes a rail's answer.
#[derive(Debug)]
pub struct RailReply {
    event: EventId,
    rail: RailId,
    inbox: Weak<Inbox>,
    is_given: bool,
}

impl RailReply {
    pub(crate) const fn new(event: EventId, rail: RailId, inbox: Weak<Inbox>) -> Self {
        Self { event, rail, inbox, is_given: false }
    }

    /// Which event it is about.
    pub const fn event(&self) -> EventId {
        self.event
    }

    /// It cannot be told what became of the call, and this is what is known of it, for those who look after the event.
    pub fn unknown(mut self, said: String) {
        self.give(RailAnswer::Unknown, said);
    }

    /// Gives the answer. If the ledger was closed meanwhile, the rail is asked again when it is opened.
    pub fn answer(mut self, answer: RailAnswer) {
        self.give(answer, String::new());
    }

    fn give(&mut self, answer: RailAnswer, said: String) {
        self.is_given = true;
        if let Some(inbox) = self.inbox.upgrade() {
            inbox.rail_answered(RailAnswered { event: self.event, rail: self.rail, answer, said });
        }
    }
}

impl Drop for RailReply {
    fn drop(&mut self) {
        if !self.is_given {
            self.give(RailAnswer::Unknown, "the call was dropped".to_owned());
        }
    }
}
