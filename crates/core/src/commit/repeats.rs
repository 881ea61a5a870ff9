//! What a batch needs the transactions table for. Most requests make a transaction; if it was made before, all that is
//! needed is that it exists, and that never changes.
//!
//! What this module does not do: decide. A store may use what it says to spare itself a look; it need not.

use super::batch::{Batch, NOWHERE};
use crate::request::{Action, Movement};
use crate::transaction::{TransactionKind, TransactionState, TransactionStatus};
use alloc::vec::Vec;

impl Batch {
    /// What the requests of this batch would make of [`Batch::transactions`], in that order, if that is all they are
    /// about: each entry is a transaction's, and whoever names it asks for this very deposit or withdrawal. `None` where
    /// any entry is needed for more: a dispute and its end, a key, an event that is open, two different requests.
    ///
    /// If such a transaction exists as it is asked for, its requests are `already_applied`, and nothing else of its entry
    /// counts: neither how it stands, nor who wrote last. To be asked behind [`super::Step::Load`].
    pub fn only_makes(&self) -> Option<Vec<TransactionState>> {
        if self.has_keys || !self.closings.is_empty() || self.heads.iter().any(|head| !head.open.is_empty()) {
            return None;
        }
        let mut made: Vec<Option<TransactionState>> = alloc::vec![None; self.transactions.len()];
        for placed in self.submissions.iter().filter(|placed| placed.transaction != NOWHERE) {
            let request = &placed.submission.request;
            let (kind, Movement { amount, currency, .. }) = match request.action {
                Action::Deposit(movement) => (TransactionKind::Deposit, movement),
                Action::Withdrawal(movement) => (TransactionKind::Withdrawal, movement),
                Action::Dispute(_) | Action::Resolve(_) | Action::Chargeback(_) | Action::Unlock => return None,
            };
            let status = TransactionStatus::Posted;
            let state = TransactionState { customer: request.customer, kind, amount, currency, status };
            let slot = made.get_mut(placed.transaction as usize)?;
            if slot.is_some_and(|other| other != state) {
                return None;
            }
            *slot = Some(state);
        }
        made.into_iter().collect()
    }
}
