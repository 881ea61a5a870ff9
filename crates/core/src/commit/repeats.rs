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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{Limits, Machine, Routes, Submission, Terms, Ticket};
    use crate::{Amount, CustomerId, LedgerConfig, Policy, Request, RequestKey, TransactionId};
    use alloc::boxed::Box;
    use alloc::collections::VecDeque;

    fn request(make: fn(CustomerId, TransactionId, Amount) -> Request, id: u128, steps: i64) -> Request {
        make(CustomerId::new(7), TransactionId::new(id), Amount::from_steps(steps))
    }

    /// What a batch of these needs of the table: amounts of what it only makes.
    fn needs(requests: Vec<Submission>) -> Option<Vec<i64>> {
        let currencies = crate::Currencies::default();
        let config = LedgerConfig { ledger: [1; 16], policy: Policy::default(), currencies };
        let digest = config.digest();
        let mut machine = Machine::new(config, Routes::default(), Limits::default(), false, 0, 1);
        let mut batch = Batch::new(1);
        machine.gather(5, &mut VecDeque::from(requests), &mut batch);
        let heads: Vec<_> = batch.customers().iter().map(|_| None).collect();
        machine.loaded(&digest, &mut batch, heads).unwrap();
        Some(batch.only_makes()?.into_iter().map(|state| state.amount.steps()).collect())
    }

    #[test]
    fn a_batch_says_when_it_only_makes_transactions() {
        let plain = |request| Submission::new(Ticket(1), request);
        let (one, two) = (request(Request::deposit, 1, 5), request(Request::withdrawal, 2, 6));
        let dispute = Request::dispute(CustomerId::new(7), TransactionId::new(1));
        let unlock = Request::unlock(CustomerId::new(7));
        let terms = Terms { key: RequestKey::from_bits(9), ..Terms::default() };
        let keyed = Submission { terms: Some(Box::new(terms)), ..plain(dispute) };
        let table = [
            (alloc::vec![plain(one), plain(two)], Some(alloc::vec![5, 6])),
            (alloc::vec![plain(one), plain(two), plain(one)], Some(alloc::vec![5, 6])),
            (alloc::vec![plain(two), plain(unlock)], Some(alloc::vec![6])),
            (alloc::vec![plain(one), plain(request(Request::deposit, 1, 6))], None),
            (alloc::vec![plain(one), plain(request(Request::withdrawal, 1, 5))], None),
            (alloc::vec![plain(one), plain(dispute)], None),
            (alloc::vec![plain(dispute), plain(one)], None),
            (alloc::vec![plain(two), keyed], None),
        ];
        for (requests, expected) in table {
            assert_eq!(needs(requests.clone()), expected, "{requests:?}");
        }
    }
}
