//! Rows as the thread that decides wants them: small, and with their customers as numbers.
//!
//! Made by the threads that read. Most rows are deposits and withdrawals; all that these say is in 32 bytes, half of
//! a cache line. Of any other row only what is asked for ahead is here; the rest is in the batch.

use super::customers::Customers;
use super::transactions::Stored;
use crate::csv::RowBatch;
use bursar_core::{
    Action, Amount, CurrencyIndex, CustomerId, Movement, Request, TransactionId, TransactionKind, TransactionStatus,
};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The transaction it makes or refers to; means nothing where there is none.
    transaction: TransactionId,
    amount: Amount,
    /// The customer's number; means nothing where the row cannot be read.
    pub(super) customer: u32,
    currency: CurrencyIndex,
    sort: Sort,
}

#[derive(Clone, Copy, Debug)]
enum Sort {
    Deposit,
    Withdrawal,
    /// Refers to a transaction.
    Reference,
    /// An unlock, or a row that cannot be read.
    Other,
}

/// The id of a customer whose number stands for it: the rules only ask whether two customers are the same.
pub(super) const fn by_number(customer: u32) -> CustomerId {
    CustomerId::new(customer as u128)
}

impl Step {
    fn new(request: Option<&Request>) -> Self {
        let (transaction, amount, currency) = (TransactionId::default(), Amount::ZERO, CurrencyIndex(0));
        let none = Self { transaction, amount, customer: 0, currency, sort: Sort::Other };
        let movement = |movement: &Movement, sort| {
            let Movement { transaction, amount, currency } = *movement;
            Self { transaction, amount, customer: 0, currency, sort }
        };
        match request.map(|request| &request.action) {
            Some(Action::Deposit(deposit)) => movement(deposit, Sort::Deposit),
            Some(Action::Withdrawal(withdrawal)) => movement(withdrawal, Sort::Withdrawal),
            Some(Action::Dispute(reference) | Action::Resolve(reference) | Action::Chargeback(reference)) => {
                Self { transaction: reference.transaction, sort: Sort::Reference, ..none }
            }
            Some(Action::Unlock) | None => none,
        }
    }

    /// The transaction it makes or refers to.
    #[inline]
    pub(super) const fn transaction(&self) -> Option<TransactionId> {
        match self.sort {
            Sort::Deposit | Sort::Withdrawal | Sort::Reference => Some(self.transaction),
            Sort::Other => None,
        }
    }

    /// The transaction that a deposit or a withdrawal makes.
    #[inline]
    pub(super) const fn new_transaction(&self) -> Option<(TransactionId, Stored)> {
        let Self { transaction, amount, customer, currency, sort } = *self;
        let kind = match sort {
            Sort::Deposit => TransactionKind::Deposit,
            Sort::Withdrawal => TransactionKind::Withdrawal,
            Sort::Reference | Sort::Other => return None,
        };
        Some((transaction, Stored { customer, kind, amount, currency, status: TransactionStatus::Posted }))
    }

    /// The request, the customer's number in place of the customer, if all of it is here.
    #[inline]
    pub(super) const fn movement(&self) -> Option<Request> {
        let Self { transaction, amount, customer, currency, sort } = *self;
        let movement = Movement { transaction, amount, currency };
        let action = match sort {
            Sort::Deposit => Action::Deposit(movement),
            Sort::Withdrawal => Action::Withdrawal(movement),
            Sort::Reference | Sort::Other => return None,
        };
        Some(Request { customer: by_number(customer), action })
    }
}

/// Makes the steps of a batch.
pub(super) fn prepare(batch: &RowBatch, customers: &Mutex<Customers>, steps: &mut Vec<Step>) -> io::Result<()> {
    steps.clear();
    steps.extend(batch.rows().iter().map(|row| Step::new(row.content.as_ref().ok())));
    // A pass of its own, so that the customers are locked for a short time, and no number waits for the one before.
    let mut customers = lock(customers);
    for (step, row) in steps.iter_mut().zip(batch.rows()) {
        if let Ok(request) = &row.content {
            let number = customers.number(request.customer);
            step.customer = number.ok_or_else(|| io::Error::other("more than 4_294_967_295 clients"))?;
        }
    }
    Ok(())
}

/// The customers' numbers; a thread that panicked has left nothing half done in them that matters.
pub(super) fn lock(customers: &Mutex<Customers>) -> MutexGuard<'_, Customers> {
    customers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_half_a_cache_line() {
        assert_eq!(size_of::<Step>(), 32);
    }
}
