//! The states of customers, by number.
//!
//! Nearly every customer has an account in one currency only, and little or nothing in dispute. Such a state takes 16
//! bytes, so that many are in the processor's cache; the others are kept whole, somewhere else.

use bursar_core::rules::Effect;
use bursar_core::{Account, Accounts, Amount, CurrencyIndex, CustomerState};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// All states.
#[derive(Debug, Default)]
pub(super) struct States {
    small: Vec<Small>,
    /// Those that are not small.
    whole: HashMap<u32, CustomerState, RandomState>,
}

/// The state of a customer with at most one account, in which not too much is held.
#[derive(Clone, Copy, Debug, Default)]
struct Small {
    available: Amount,
    /// In steps.
    held: u32,
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
    /// The state is not here.
    Whole,
}

impl Small {
    #[inline]
    const fn account(&self) -> Account {
        Account { available: self.available, held: Amount::from_steps(self.held as i64) }
    }
}

impl States {
    /// The state of the customer with this number.
    #[inline]
    pub(super) fn get(&self, customer: u32) -> CustomerState {
        let Some(small) = self.small.get(customer as usize) else { return CustomerState::default() };
        let mut accounts = Accounts::default();
        match small.form {
            Form::Empty => {}
            Form::One => accounts.set(small.currency, small.account()),
            Form::Whole => return self.whole.get(&customer).cloned().unwrap_or_default(),
        }
        CustomerState { locked: small.locked, accounts }
    }

    /// Whether a customer is locked, and the account in a currency; `None`: that takes [`States::get`].
    #[inline]
    pub(super) fn account(&self, customer: u32, currency: CurrencyIndex) -> Option<(bool, Account)> {
        let small = self.small.get(customer as usize)?;
        let is_here = small.form == Form::One && small.currency == currency;
        is_here.then(|| (small.locked, small.account()))
    }

    /// Whether a customer is locked, and the accounts.
    pub(super) fn accounts(&self, customer: u32) -> (bool, impl Iterator<Item = (CurrencyIndex, Account)>) {
        let small = self.small.get(customer as usize).copied().unwrap_or_default();
        let one = (small.form == Form::One).then(|| (small.currency, small.account()));
        let whole = if small.form == Form::Whole { self.whole.get(&customer) } else { None };
        let locked = whole.map_or(small.locked, |state| state.locked);
        (locked, one.into_iter().chain(whole.into_iter().flat_map(|state| state.accounts.iter())))
    }

    /// Reads where a state is; gives something that follows from it.
    #[inline]
    pub(super) fn warm(&self, customer: u32) -> bool {
        self.small.get(customer as usize).is_some_and(|small| small.locked)
    }

    /// Sets an account. A customer is locked or not as before.
    #[inline]
    pub(super) fn set_account(&mut self, customer: u32, currency: CurrencyIndex, account: Account) {
        let place = customer as usize;
        if self.small.len() <= place {
            self.small.resize(place + 1, Small::default());
        }
        let small = &mut self.small[place];
        let fits = match small.form {
            Form::Empty => true,
            Form::One => small.currency == currency,
            Form::Whole => false,
        };
        match u32::try_from(account.held.steps()) {
            Ok(held) if fits => {
                *small = Small { available: account.available, held, currency, form: Form::One, ..*small };
            }
            Ok(_) | Err(_) => self.set_whole(customer, currency, account),
        }
    }

    /// Makes a change.
    pub(super) fn apply(&mut self, customer: u32, effect: &Effect) {
        self.set_account(customer, effect.currency, effect.account);
        let small = &mut self.small[customer as usize];
        small.locked = effect.locked;
        if small.form == Form::Whole
            && let Some(state) = self.whole.get_mut(&customer)
        {
            state.locked = effect.locked;
        }
    }

    #[cold]
    fn set_whole(&mut self, customer: u32, currency: CurrencyIndex, account: Account) {
        let mut state = self.get(customer);
        state.accounts.set(currency, account);
        self.small[customer as usize].form = Form::Whole;
        self.whole.insert(customer, state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_core::RequestKind;

    #[test]
    fn states_come_back_as_they_were_made() {
        assert_eq!(size_of::<Small>(), 16);
        let mut states = States::default();
        let mut model = [CustomerState::default(), CustomerState::default(), CustomerState::default()];
        let much = i64::from(u32::MAX) + 1;
        let changes = [
            (2, 3, 10, 0, false),
            (0, 1, -5, 7, true),
            (2, 3, 7, much - 1, true),
            (2, 1, 8, 8, true),
            (2, 3, 9, much, false),
            (2, 0, 1, 1, true),
            (0, 1, i64::MIN, much, true),
            (0, 1, i64::MAX, 0, false),
            (1, 0, 4, much * 2, false),
        ];
        for (customer, currency, available, held, locked) in changes {
            let account = Account { available: Amount::from_steps(available), held: Amount::from_steps(held) };
            let (kind, currency) = (RequestKind::Deposit, CurrencyIndex(currency));
            let effect = Effect { kind, currency, amount: Amount::ZERO, transaction: None, account, locked };
            states.apply(customer, &effect);
            effect.apply(&mut model[customer as usize]);
            for (number, state) in (0..).zip(&model) {
                assert_eq!(states.get(number), *state, "{number}");
                let (locked, accounts) = states.accounts(number);
                assert!(locked == state.locked && accounts.eq(state.accounts.iter()), "{number}");
                for (currency, account) in state.accounts.iter() {
                    let found = states.account(number, currency);
                    assert!(found.is_none_or(|found| found == (state.locked, account)), "{number}");
                }
            }
        }
        assert_eq!(states.get(3), CustomerState::default());
    }
}
