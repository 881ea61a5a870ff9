//! What a customer has: one account per currency, and whether the customer is locked.

use crate::amount::Amount;
use crate::currency::CurrencyIndex;
use alloc::vec::Vec;

/// A customer's balance in one currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// What can be withdrawn. Below zero when a deposit is disputed after its money was spent.
    pub available: Amount,
    /// What is held for open disputes. Never below zero.
    pub held: Amount,
}

impl Account {
    /// `available + held`; `None` only for an account that no chain can hold.
    pub const fn total(&self) -> Option<Amount> {
        self.available.checked_add(self.held)
    }
}

/// A customer's accounts, by currency. The first lies inline, so that a customer with one currency costs
/// no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    first: Option<(CurrencyIndex, Account)>,
    rest: Vec<(CurrencyIndex, Account)>,
}

impl Accounts {
    /// The account in `currency`; all zero where there is none yet.
    pub fn get(&self, currency: CurrencyIndex) -> Account {
        self.iter().find(|(c, _)| *c == currency).map_or(Account::default(), |(_, account)| account)
    }

    /// Sets the account in `currency`.
    pub fn set(&mut self, currency: CurrencyIndex, account: Account) {
        match &mut self.first {
            None => self.first = Some((currency, account)),
            Some((c, a)) if *c == currency => *a = account,
            Some(first) if currency < first.0 => {
                self.rest.insert(0, core::mem::replace(first, (currency, account)));
            }
            Some(_) => match self.rest.binary_search_by_key(&currency, |(c, _)| *c) {
                Ok(at) => self.rest[at].1 = account,
                Err(at) => self.rest.insert(at, (currency, account)),
            },
        }
    }

    /// All of them, in order of currency.
    pub fn iter(&self) -> impl Iterator<Item = (CurrencyIndex, Account)> {
        self.first.iter().chain(&self.rest).copied()
    }

    /// The one in the first currency of those that there are.
    pub fn first(&self) -> Option<&(CurrencyIndex, Account)> {
        self.first.as_ref()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

/// All that a customer is to the rules. The default is a customer without a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomerState {
    /// Locked by a chargeback, until an operator unlocks.
    pub locked: bool,
    /// The accounts. None: this customer has no chain yet.
    pub accounts: Accounts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_stay_in_order_of_currency() {
        let account = |steps| Account { available: Amount::from_steps(steps), held: Amount::ZERO };
        let mut accounts = Accounts::default();
        for currency in [3, 1, 2, 0, 1] {
            accounts.set(CurrencyIndex(currency), account(i64::from(currency)));
        }
        let got: Vec<_> = accounts.iter().map(|(c, a)| (c.0, a.available.steps())).collect();
        assert_eq!(got, [(0, 0), (1, 1), (2, 2), (3, 3)]);
        assert_eq!(accounts.len(), 4);
        assert_eq!(accounts.get(CurrencyIndex(9)), Account::default());
    }
}
