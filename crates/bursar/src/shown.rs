//! How values of the engine are shown: times, amounts and currencies. One place, so that every command shows
//! them alike.

use crate::output::{Cell, Column};
pub(crate) use bursar_core::Time;
use bursar_core::amount::AmountDisplay;
use bursar_core::{Account, Amount, Currencies, Currency, CurrencyIndex, Sum};

/// In which currency amounts are: a column of ledgers with several.
pub(crate) const CURRENCY: Column = Column::left("currency");

/// Amounts in the decimals of their currencies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Money<'a>(pub(crate) &'a Currencies);

impl<'a> Money<'a> {
    /// Whether a currency must be named with every amount.
    fn has_several(self) -> bool {
        self.0.len() > 1
    }

    /// These columns; without [`CURRENCY`] where there is one currency only.
    pub(crate) fn columns(self, all: &[Column]) -> Vec<Column> {
        let is_shown = |column: &&Column| self.has_several() || column.name != CURRENCY.name;
        all.iter().filter(is_shown).copied().collect()
    }

    /// What stands in the column [`CURRENCY`], if there is one.
    pub(crate) fn currency(self, currency: CurrencyIndex) -> Option<Cell<'a>> {
        self.has_several().then(|| Cell::Text(self.code(currency)))
    }

    /// The code of a currency; empty for the one of a ledger that names none.
    pub(crate) fn code(self, currency: CurrencyIndex) -> &'a str {
        self.0.get(currency).map_or("", Currency::code)
    }

    /// An amount.
    pub(crate) fn amount(self, currency: CurrencyIndex, amount: Amount) -> AmountDisplay {
        amount.display(self.0.decimals(currency))
    }

    /// A sum of amounts.
    pub(crate) fn sum(self, currency: CurrencyIndex, sum: Sum) -> AmountDisplay {
        sum.display(self.0.decimals(currency))
    }

    /// `available`, `held` and `total` of an account. The total adds up always, also that of a broken account.
    pub(crate) fn account(self, currency: CurrencyIndex, account: Account) -> [AmountDisplay; 3] {
        let Account { available, held } = account;
        let total = Sum::ZERO.plus(available).plus(held);
        [self.amount(currency, available), self.amount(currency, held), self.sum(currency, total)]
    }

    /// How far `available` and `held` are from what they were.
    pub(crate) fn change(self, currency: CurrencyIndex, before: Account, after: Account) -> [AmountDisplay; 2] {
        let difference = |before, after| self.sum(currency, Sum::ZERO.plus(after).minus(before));
        [difference(before.available, after.available), difference(before.held, after.held)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_have_the_currencys_decimals() {
        let account =
            |available, held| Account { available: Amount::from_steps(available), held: Amount::from_steps(held) };
        let currencies = Currencies::default();
        let [available, held] = Money(&currencies).change(CurrencyIndex(0), account(i64::MAX, 0), account(i64::MIN, 5));
        assert_eq!((available.to_string(), held.to_string()), ("-1844674407370955.1615".into(), "0.0005".into()));
    }
}
