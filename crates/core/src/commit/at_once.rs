//! A batch in one pass, for stores that take batches whole and hand out their own heads.
//!
//! Where a batch is one write that takes effect as a whole, nobody can ever see an event of it that is `Started`
//! and not `Done`, or a state that is proposed and not approved. If no rail has a say, and nothing is open that
//! somebody might wait for or that is to be recovered, the long way through all [steps](super::Step) ends with
//! each event `Done`. Then the steps need not be gone through one by one: each request is decided on the head
//! as the store has it, and is in effect for the next one.
//!
//! What is decided, and what event it makes, is said by the same code as on the long way. What this module does
//! not do: anything about rails, other owners and open events.

use super::batch::{Batch, Step};
use super::decide::extend;
use super::machine::Machine;
use super::terms::decide_under;
use super::{Answer, Broken, Outcome, Receipt, Submission, Terms, Ticket};
use crate::chain::Head;
use crate::event::LinkedEvent;
use crate::request::Request;
use crate::rules::{Decision, Known};
use crate::transaction::TransactionState;

impl Machine {
    /// The machine for stores that take batches whole, and can give the heads and transactions of a batch one by
    /// one, in the middle of it: batches have [`Step::AtOnce`] where they can.
    #[must_use]
    pub const fn deciding_at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// Begins an empty batch to be decided at once, for a driver that has the requests elsewhere; none of them may
    /// go through a rail. Gives `false`, and does nothing, if there is something else to do or to wait for.
    pub fn begin_at_once(&mut self, now_ms: u64, batch: &mut Batch) -> bool {
        if !self.at_once || self.has_work() || !self.open.is_empty() {
            return false;
        }
        self.begin(now_ms, batch);
        batch.step = Step::AtOnce;
        true
    }

    /// Whether the submissions of a batch that has nothing else can be decided at once.
    pub(super) fn goes_at_once(&self, batch: &Batch) -> bool {
        self.at_once
            && self.open.is_empty()
            && batch.customers.is_empty()
            && !batch.submissions.is_empty()
            && !batch.has_keys
            && !batch.has_rails(self.routes)
    }

    /// Decides one request of a batch whose step is [`Step::AtOnce`], on the head of its customer's chain and the
    /// state in effect of its transaction. The event that it gives is in effect; it is to be appended, and the
    /// next request is decided on that. A request with a key is not decided here. `tell` says whether who asked is to hear of the event: a refusal is always
    /// among the answers.
    pub fn decide_at_once(
        &self,
        batch: &mut Batch,
        submission: (Ticket, &Request, Option<&Terms>),
        head: &Head,
        state: Option<&TransactionState>,
        tell: bool,
    ) -> Result<Option<LinkedEvent>, Broken> {
        debug_assert_eq!(batch.step, Step::AtOnce);
        let (ticket, request, terms) = submission;
        let known = Known { state, reserved: false };
        let (outcome, made) = match decide_under(&self.config, head, known, request, terms) {
            Ok(Decision::Change(change)) => {
                let linked = extend(head, request.customer, batch.time_ms, change, (None, None), [None; 2])?;
                if !tell {
                    return Ok(Some(linked));
                }
                (Outcome::Applied(Receipt::of(&linked)), Some(linked))
            }
            Ok(Decision::AlreadyApplied) => (Outcome::AlreadyApplied(None), None),
            Err(rejection) => (Outcome::Rejected(rejection), None),
        };
        batch.answers.push(Answer { ticket, result: Ok(outcome) });
        Ok(made)
    }
}

impl Batch {
    /// Takes the submissions of a batch to be decided at once out of it, in their order.
    pub fn take_submissions(&mut self) -> impl Iterator<Item = Submission> + use<> {
        core::mem::take(&mut self.submissions).into_iter().map(|placed| placed.submission)
    }

    /// Goes the long way with a batch that was to be decided at once: the stores cannot, after all.
    pub fn go_step_by_step(&mut self) {
        debug_assert_eq!(self.step, Step::AtOnce);
        self.step = self.place_all();
    }

    /// Tells that all was decided and appended: what is left is to make it durable.
    pub fn decided_at_once(&mut self) {
        debug_assert_eq!(self.step, Step::AtOnce);
        self.conclude();
    }
}
