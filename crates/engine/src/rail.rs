//! Rails: outside parties that must agree before an event is done.

use crate::ledger::Inbox;
use bursar_core::EventId;
use bursar_core::commit::{RailAnswer, RailCall};
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
}

/// Takes a rail's answer.
#[derive(Debug)]
pub struct RailReply {
    event: EventId,
    inbox: Weak<Inbox>,
    is_given: bool,
}

impl RailReply {
    pub(crate) const fn new(event: EventId, inbox: Weak<Inbox>) -> Self {
        Self { event, inbox, is_given: false }
    }

    /// Which event it is about.
    pub const fn event(&self) -> EventId {
        self.event
    }

    /// Gives the answer. If the ledger was closed meanwhile, the rail is asked again when it is opened.
    pub fn answer(mut self, answer: RailAnswer) {
        self.give(answer);
    }

    fn give(&mut self, answer: RailAnswer) {
        self.is_given = true;
        if let Some(inbox) = self.inbox.upgrade() {
            inbox.rail_answered(self.event, answer);
        }
    }
}

impl Drop for RailReply {
    fn drop(&mut self) {
        if !self.is_given {
            self.give(RailAnswer::Unknown);
        }
    }
}
