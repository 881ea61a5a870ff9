//! Sums over a whole ledger, kept event by event. They must fit each other; that is checked, not trusted.

use bursar_core::rules::total_delta;
use bursar_core::{CurrencyIndex, Event, RequestKind, Sum, TransactionKind};

/// The sums of one currency over all events in effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CurrencyTotals {
    /// All deposits, whatever became of them.
    pub deposits: Sum,
    /// All withdrawals, whatever became of them.
    pub withdrawals: Sum,
    /// Deposits charged back.
    pub deposits_charged_back: Sum,
    /// Withdrawals charged back.
    pub withdrawals_charged_back: Sum,
    /// Withdrawals in dispute: the credit given for the time being.
    pub provisional: Sum,
    /// What all accounts hold.
    pub held: Sum,
    /// The sum of all accounts' totals.
    pub total: Sum,
}

impl CurrencyTotals {
    /// The sum of what all accounts have available.
    pub const fn available(&self) -> Sum {
        Sum::from_steps(self.total.steps() - self.held.steps())
    }

    /// Whether the sums fit each other: the totals are deposits minus withdrawals, minus deposits charged back,
    /// plus withdrawals charged back or in dispute.
    pub const fn is_balanced(&self) -> bool {
        let moved = self.deposits.steps() - self.withdrawals.steps() - self.deposits_charged_back.steps()
            + self.withdrawals_charged_back.steps()
            + self.provisional.steps();
        moved == self.total.steps() && self.held.steps() >= 0
    }
}

/// The sums of a ledger, by currency, and its counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    currencies: Vec<CurrencyTotals>,
    /// Events in effect or aborted; open ones do not count yet.
    pub event_count: u64,
    /// Deposits and withdrawals accepted.
    pub transaction_count: u64,
    /// Chains.
    pub customer_count: u64,
}

impl Totals {
    /// The sums of one currency.
    pub fn currency(&self, currency: CurrencyIndex) -> CurrencyTotals {
        self.currencies.get(usize::from(currency.0)).copied().unwrap_or_default()
    }

    /// The sums of all currencies that have any, in order of index.
    pub fn currencies(&self) -> &[CurrencyTotals] {
        &self.currencies
    }

    /// Puts back what was kept, as by [`Totals::currencies`].
    pub fn set_currencies(&mut self, currencies: Vec<CurrencyTotals>) {
        self.currencies = currencies;
    }

    /// Adds the sums over other customers of the same ledger.
    pub fn add(&mut self, other: &Self) {
        let plus = |a: Sum, b: Sum| Sum::from_steps(a.steps() + b.steps());
        let count = self.currencies.len().max(other.currencies.len());
        self.currencies.resize(count, CurrencyTotals::default());
        for (sums, more) in self.currencies.iter_mut().zip(&other.currencies) {
            *sums = CurrencyTotals {
                deposits: plus(sums.deposits, more.deposits),
                withdrawals: plus(sums.withdrawals, more.withdrawals),
                deposits_charged_back: plus(sums.deposits_charged_back, more.deposits_charged_back),
                withdrawals_charged_back: plus(sums.withdrawals_charged_back, more.withdrawals_charged_back),
                provisional: plus(sums.provisional, more.provisional),
                held: plus(sums.held, more.held),
                total: plus(sums.total, more.total),
            };
        }
        self.event_count += other.event_count;
        self.transaction_count += other.transaction_count;
        self.customer_count += other.customer_count;
    }

    /// Counts an event that was begun: the first of a chain makes a customer.
    pub fn begun(&mut self, event: &Event) {
        self.customer_count += u64::from(event.seq == 1);
    }

    /// Counts an event that was aborted.
    pub fn aborted(&mut self) {
        self.event_count += 1;
    }

    /// Takes an event that is in effect.
    pub fn done(&mut self, event: &Event) {
        self.event_count += 1;
        let index = usize::from(event.currency.0);
        if self.currencies.len() <= index {
            self.currencies.resize(index + 1, CurrencyTotals::default());
        }
        let sums = &mut self.currencies[index];
        let amount = event.amount;
        let delta = total_delta(event.kind, event.transaction_kind) * i128::from(amount.steps());
        sums.total = Sum::from_steps(sums.total.steps() + delta);
        match (event.kind, event.transaction_kind) {
            (RequestKind::Deposit, _) => {
                self.transaction_count += 1;
                sums.deposits = sums.deposits.plus(amount);
            }
            (RequestKind::Withdrawal, _) => {
                self.transaction_count += 1;
                sums.withdrawals = sums.withdrawals.plus(amount);
            }
            (RequestKind::Dispute, kind) => {
                sums.held = sums.held.plus(amount);
                if kind == TransactionKind::Withdrawal {
                    sums.provisional = sums.provisional.plus(amount);
                }
            }
            (RequestKind::Resolve, kind) => {
                sums.held = sums.held.minus(amount);
                if kind == TransactionKind::Withdrawal {
                    sums.provisional = sums.provisional.minus(amount);
                }
            }
            (RequestKind::Chargeback, TransactionKind::Deposit) => {
                sums.held = sums.held.minus(amount);
                sums.deposits_charged_back = sums.deposits_charged_back.plus(amount);
            }
            (RequestKind::Chargeback, TransactionKind::Withdrawal) => {
                sums.held = sums.held.minus(amount);
                sums.provisional = sums.provisional.minus(amount);
                sums.withdrawals_charged_back = sums.withdrawals_charged_back.plus(amount);
            }
            (RequestKind::Unlock, _) => {}
        }
    }
}
