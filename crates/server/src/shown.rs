//! How values of the engine are written as JSON strings: ids, amounts, hashes, times. One place, without allocations,
//! since a batch writes them millions of times.

use bursar_core::amount::AmountDisplay;
use bursar_core::{Account, Amount, Currencies, CurrencyIndex, Hash, Sum};
use serde::{Serialize, Serializer};
use std::fmt;

/// Anything that is written as it is displayed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A hash in 64 hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashText(pub(crate) Hash);

impl Serialize for HashText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Writes bytes in hexadecimal digits. `digits` has twice their length.
pub(crate) fn hex<'a>(bytes: &[u8], digits: &'a mut [u8]) -> &'a str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    // Hexadecimal digits are ASCII.
    std::str::from_utf8(digits).unwrap_or_default()
}

/// Milliseconds since 1970, as RFC 3339 in UTC with three decimals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time(pub(crate) u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bursar_core::Time(self.0).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An amount in its currency's decimals.
pub(crate) fn money(currencies: &Currencies, currency: CurrencyIndex, amount: Amount) -> AmountDisplay {
    amount.display(currencies.decimals(currency))
}

/// A sum in its currency's decimals.
pub(crate) fn sum(currencies: &Currencies, currency: CurrencyIndex, sum: Sum) -> Shown<AmountDisplay> {
    Shown(sum.display(currencies.decimals(currency)))
}

/// `available`, `held` and `total` of an account. The total adds up always.
pub(crate) fn account(currencies: &Currencies, currency: CurrencyIndex, account: Account) -> [Shown<AmountDisplay>; 3] {
    let Account { available, held } = account;
    let total = Sum::ZERO.plus(available).plus(held);
    [
        Shown(money(currencies, currency, available)),
        Shown(money(currencies, currency, held)),
        sum(currencies, currency, total),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_strings_in_one_form() {
        let hash = Hash::parse("0123456789abcdef".repeat(4).as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&HashText(hash)).unwrap(), format!("\"{hash}\""));
        let table = [
            (0, "\"1970-01-01T00:00:00.000Z\""),
            (1_769_860_800_007, "\"2026-01-31T12:00:00.007Z\""),
            (u64::MAX, "\"9999-12-31T23:59:59.999Z\""),
        ];
        for (ms, expected) in table {
            assert_eq!(serde_json::to_string(&Time(ms)).unwrap(), expected);
        }
        let account = Account { available: Amount::from_steps(-5), held: Amount::from_steps(10) };
        let shown = super::account(&Currencies::default(), CurrencyIndex(0), account);
        assert_eq!(serde_json::to_string(&shown).unwrap(), r#"["-0.0005","0.0010","0.0005"]"#);
    }
}
