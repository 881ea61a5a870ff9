//! The states of customers, by number.
//!
//! Nearly every customer has accounts in one currency only. Such a state takes 24 bytes, so that many are in the
//! processor's cache; the others are kept whole, somewhere else.

use bursar_core::rules::Effect;
use bursar_core::{Account, Accounts, CurrencyIndex, CustomerState};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// All states.
#[derive(Debug, Default)]
pub(super) struct States {
    small: Vec<Small>,
    /// Those of customers with several currencies.
    whole: HashMap<u32, CustomerState, RandomState>,
}

/// The state of a customer with at most one account.
#[derive(Clone, Copy, Debug, Default)]
struct Small {
    account: Account,
    currency: CurrencyIndex,
    form: Form,
    locked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    /// No account yet.
    #[default]
    Empty,
    One,
    /// There are several accounts, which are not here.
    Several,
}

impl States {
    /// The state of the customer with this number.
    #[inline]
    pub(super) fn get(&self, customer: u32) -> CustomerState {
        let Some(small) = self.small.get(customer as usize) else { return CustomerState::default() };
        let mut accounts = Accounts::default();
        match small.form {
            Form::Empty => {}
            Form::One => accounts.set(small.currency, small.account),
            Form::Several => return self.whole.get(&customer).cloned().unwrap_or_default(),
        }
        CustomerState { locked: small.locked, accounts }
    }

    /// Whether a customer is locked, and the account in a currency; `None`: that takes [`States::get`].
    #[inline]
    pub(super) fn account(&self, customer: u32, currency: CurrencyIndex) -> Option<(bool, Account)> {
        let small = self.small.get(customer as usize)?;
        let is_here = small.form == Form::One && small.currency == currency;
        is_here.then_some((small.locked, small.account))
    }

    /// Sets an account that [`States::account`] gave.
    #[inline]
    pub(super) fn set_account(&mut self, customer: u32, account: Account) {
        if let Some(small) = self.small.get_mut(customer as usize) {
            small.account = account;
        }
    }

    /// Whether a customer is locked, and the accounts.
    pub(super) fn accounts(&self, customer: u32) -> (bool, impl Iterator<Item = (CurrencyIndex, Account)>) {
        let small = self.small.get(customer as usize).copied().unwrap_or_default();
        let one = (small.form == Form::One).then_some((small.currency, small.account));
        let whole = if small.form == Form::Several { self.whole.get(&customer) } else { None };
        let locked = whole.map_or(small.locked, |state| state.locked);
        (locked, one.into_iter().chain(whole.into_iter().flat_map(|state| state.accounts.iter())))
    }

    /// Reads where a state is; gives something that follows from it.
    #[inline]
    pub(super) fn warm(&self, customer: u32) -> bool {
        self.small.get(customer as usize).is_some_and(|small| small.locked)
    }

    /// Makes a change.
    #[inline]
    pub(super) fn apply(&mut self, customer: u32, effect: &Effect) {
        let place = customer as usize;
        if self.small.len() <= place {
            self.small.resize(place + 1, Small::default());
        }
        let small = &mut self.small[place];
        if small.form == Form::Several || small.form == Form::One && small.currency != effect.currency {
            self.apply_whole(customer, effect);
            return;
        }
        *small = Small { account: effect.account, currency: effect.currency, form: Form::One, locked: effect.locked };
    }

    #[cold]
    fn apply_whole(&mut self, customer: u32, effect: &Effect) {
        let mut state = self.get(customer);
        effect.apply(&mut state);
        self.small[customer as usize].form = Form::Several;
        self.whole.insert(customer, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_core::{Amount, RequestKind};

    #[test]
    fn states_come_back_as_they_were_made() {
        assert_eq!(size_of::<Small>(), 24);
        let mut states = States::default();
        let mut model = [CustomerState::default(), CustomerState::default(), CustomerState::default()];
        let changes =
            [(2, 3, 10, false), (0, 1, 5, true), (2, 3, 7, true), (2, 1, 8, true), (2, 3, 9, false), (2, 0, 1, true)];
        for (customer, currency, amount, locked) in changes {
            let amount = Amount::from_steps(amount);
            let account = Account { available: amount, held: amount };
            let (kind, currency) = (RequestKind::Deposit, CurrencyIndex(currency));
            let effect = Effect { kind, currency, amount, transaction: None, account, locked };
            states.apply(customer, &effect);
            effect.apply(&mut model[customer as usize]);
            for (number, state) in (0..).zip(&model) {
                assert_eq!(states.get(number), *state, "{number}");
            }
        }
        assert_eq!(states.get(3), CustomerState::default());
    }
}
