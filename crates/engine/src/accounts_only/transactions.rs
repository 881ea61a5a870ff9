//! The transactions of accounts that are kept without a ledger, in 16 bytes each.

use crate::by_id::ById;
use bursar_core::{
    Amount, CurrencyIndex, CustomerId, TransactionId, TransactionKind, TransactionState, TransactionStatus,
};
use std::num::NonZeroU8;

/// A transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Whose, by number.
    pub(super) customer: u32,
    pub(super) kind: TransactionKind,
    pub(super) amount: Amount,
    pub(super) currency: CurrencyIndex,
    pub(super) status: TransactionStatus,
}

impl Stored {
    /// Its state, with the customer that its number stands for.
    #[inline]
    pub(super) const fn state(self, customer: CustomerId) -> TransactionState {
        let Self { kind, amount, currency, status, .. } = self;
        TransactionState { customer, kind, amount, currency, status }
    }
}

/// All transactions.
#[derive(Debug, Default)]
pub(super) struct Transactions(ById<Entry>);

impl Transactions {
    /// The transaction with this id.
    #[inline]
    pub(super) fn get(&self, transaction: TransactionId) -> Option<Stored> {
        self.0.get(transaction).map(|entry| entry.stored())
    }

    /// As [`ById::is_at_hand`].
    #[inline]
    pub(super) fn is_at_hand(&self, transaction: TransactionId) -> bool {
        self.0.is_at_hand(transaction)
    }

    /// Puts a new transaction in its place; gives whether it is new, and leaves another with its id as it is.
    #[inline]
    pub(super) fn put_new(&mut self, transaction: TransactionId, stored: Stored) -> bool {
        self.0.insert_new(transaction, Entry::new(stored))
    }

    /// Puts a transaction in its place, or another state in place of its own.
    pub(super) fn put(&mut self, transaction: TransactionId, stored: Stored) {
        self.0.insert(transaction, Entry::new(stored));
    }
}

/// A transaction in 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    amount: i64,
    customer: u32,
    currency: u8,
    /// Kind and status, never zero: so no entry takes no room of its own.
    marks: NonZeroU8,
}

const POSTED: NonZeroU8 = NonZeroU8::MIN;
const DISPUTED: u8 = 1 << 1;
const CHARGED_BACK: u8 = 1 << 2;
const WITHDRAWAL: u8 = 1 << 3;

impl Entry {
    #[inline]
    fn new(stored: Stored) -> Self {
        let Stored { customer, kind, amount, currency, status } = stored;
        let status = match status {
            TransactionStatus::Posted => 0,
            TransactionStatus::Disputed => DISPUTED,
            TransactionStatus::ChargedBack => CHARGED_BACK,
        };
        let kind = match kind {
            TransactionKind::Deposit => 0,
            TransactionKind::Withdrawal => WITHDRAWAL,
        };
        Self { amount: amount.steps(), customer, currency: currency.0, marks: POSTED | status | kind }
    }

    fn stored(self) -> Stored {
        let has = |mark: u8| self.marks.get() & mark != 0;
        let status = match (has(DISPUTED), has(CHARGED_BACK)) {
            (false, false) => TransactionStatus::Posted,
            (true, _) => TransactionStatus::Disputed,
            (false, true) => TransactionStatus::ChargedBack,
        };
        let kind = if has(WITHDRAWAL) { TransactionKind::Withdrawal } else { TransactionKind::Deposit };
        let (amount, currency) = (Amount::from_steps(self.amount), CurrencyIndex(self.currency));
        Stored { customer: self.customer, kind, amount, currency, status }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_comes_back_as_it_was_put() {
        use {TransactionKind as K, TransactionStatus as S};
        assert_eq!(size_of::<Option<Entry>>(), 16);
        for kind in [K::Deposit, K::Withdrawal] {
            for status in [S::Posted, S::Disputed, S::ChargedBack] {
                let (amount, currency) = (Amount::from_steps(-5), CurrencyIndex(200));
                let stored = Stored { customer: u32::MAX, kind, amount, currency, status };
                let mut transactions = Transactions::default();
                transactions.put(TransactionId::new(3), stored);
                assert_eq!(transactions.get(TransactionId::new(3)), Some(stored));
                assert_eq!(transactions.get(TransactionId::new(2)), None);
            }
        }
    }
}
