//! Terms: what a caller sets beside a request, and what becomes of it.
//!
//! They travel beside the request, not in it: a row of a source has none, and most requests neither. A key ends up in
//! the event that the request makes; conditions leave no trace.

use super::{Outcome, Receipt};
use crate::account::CustomerState;
use crate::amount::Amount;
use crate::chain::Head;
use crate::currency::CurrencyIndex;
use crate::event::LinkedEvent;
use crate::key::RequestKey;
use crate::policy::LedgerConfig;
use crate::rejection::Rejection;
use crate::request::{Action, Reference, Request};
use crate::rules::{Decision, Known, decide};

/// What a caller sets beside a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The request is to take effect once, however often it is asked with this key. Only for a dispute, a resolve, a
    /// chargeback and an unlock: a deposit and a withdrawal have the id of their transaction for that.
    pub key: Option<RequestKey>,
    /// Only if the newest event of the customer's chain, aborted ones included, has this sequence number; 0 for a
    /// customer without a chain.
    pub expected_seq: Option<u64>,
    /// Only if at least this much is left.
    pub minimum_available: Option<Minimum>,
}

/// What must be available on one of the customer's accounts once the request has taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minimum {
    /// Which account.
    pub currency: CurrencyIndex,
    /// How much; may be below zero, as what is available may.
    pub amount: Amount,
}

impl Terms {
    /// Whether they say nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the conditions hold for a request that would lead to this state, on top of the chain's newest event.
    fn hold(&self, head: &Head, after: &CustomerState) -> Result<(), Rejection> {
        if let Some(expected) = self.expected_seq.filter(|&expected| expected != head.seq) {
            return Err(Rejection::SeqMismatch { expected, seq: head.seq });
        }
        if let Some(Minimum { currency, amount }) = self.minimum_available {
            let available = after.accounts.get(currency).available;
            if available < amount {
                return Err(Rejection::BelowMinimum { currency, minimum: amount, available });
            }
        }
        Ok(())
    }
}

/// Decides a request by the rules and, where it would change something, by its conditions. What was done before is
/// still said to be done: the conditions are those of the change.
#[inline]
pub(super) fn decide_under(
    config: &LedgerConfig,
    head: &Head,
    known: Known<'_>,
    request: &Request,
    terms: Option<&Terms>,
) -> Result<Decision, Rejection> {
    let Some(terms) = terms else { return decide(config, &head.state, known, request) };
    if terms.key.is_some() && !request.action.takes_key() {
        return Err(Rejection::IdempotencyKeyNotAllowed);
    }
    let decision = decide(config, &head.state, known, request)?;
    if let Decision::Change(change) = &decision {
        terms.hold(head, &change.state)?;
    }
    Ok(decision)
}

/// What a request hears whose key is that of an event in effect: what the event's request heard, if it is the same
/// one.
pub(super) fn outcome_of_used(linked: &LinkedEvent, request: &Request) -> Outcome {
    if is_same(linked, request) {
        Outcome::AlreadyApplied(Some(Receipt::of(linked)))
    } else {
        Outcome::Rejected(Rejection::IdempotencyKeyReused { event: linked.reference() })
    }
}

/// Whether this is the request that led to an event. What it leaves open, amount and currency, may be anything.
fn is_same(linked: &LinkedEvent, request: &Request) -> bool {
    let event = &linked.event;
    let reference = match &request.action {
        Action::Dispute(reference) | Action::Resolve(reference) | Action::Chargeback(reference) => Some(reference),
        Action::Deposit(_) | Action::Withdrawal(_) | Action::Unlock => None,
    };
    let fits = |&Reference { amount, currency, .. }: &Reference| {
        amount.is_none_or(|amount| amount == event.amount) && currency.is_none_or(|currency| currency == event.currency)
    };
    event.customer == request.customer
        && event.kind == request.action.kind()
        && event.transaction == request.action.transaction()
        && reference.is_none_or(fits)
}
