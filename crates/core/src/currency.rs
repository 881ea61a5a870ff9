//! The currencies of a ledger: a short fixed list, referred to by position.

use crate::amount::Decimals;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// How many currencies a ledger may have at the most.
pub const CURRENCIES_MAX: usize = 64;
/// How long a currency's code may be at the most, in bytes.
pub const CURRENCY_CODE_BYTES_MAX: usize = 12;

/// The place of a currency in its ledger's list, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CurrencyIndex(pub u8);

/// A currency: its code and its decimals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Currency {
    code: String,
    decimals: Decimals,
}

impl Currency {
    /// A currency with an ISO 4217 code or a name of one's own: 1 to [`CURRENCY_CODE_BYTES_MAX`] of
    /// `A` to `Z`, `0` to `9`, `_` and `-`; lower case is turned to upper case.
    pub fn new(code: &str, decimals: Decimals) -> Result<Self, CurrencyError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if code.is_empty() || code.len() > CURRENCY_CODE_BYTES_MAX || !code.bytes().all(good) {
            return Err(CurrencyError::BadCode);
        }
        Ok(Self { code: code.to_ascii_uppercase(), decimals })
    }

    /// The code; empty for the one currency of a ledger that names none.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// How many decimals its amounts have.
    pub const fn decimals(&self) -> Decimals {
        self.decimals
    }
}

/// The currencies of a ledger: either one without a name, or 1 to [`CURRENCIES_MAX`] with codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Currencies(Vec<Currency>);

impl Default for Currencies {
    /// One currency without a name, with four decimals.
    fn default() -> Self {
        Self(alloc::vec![Currency { code: String::new(), decimals: Decimals::FOUR }])
    }
}

impl Currencies {
    /// A list of named currencies, in the order given. Codes must differ.
    pub fn named(list: Vec<Currency>) -> Result<Self, CurrencyError> {
        if list.is_empty() || list.len() > CURRENCIES_MAX {
            return Err(CurrencyError::BadCount);
        }
        for (index, currency) in list.iter().enumerate() {
            if list[..index].iter().any(|other| other.code == currency.code) {
                return Err(CurrencyError::Twice);
            }
        }
        Ok(Self(list))
    }

    /// One currency without a name, with `decimals`.
    pub fn unnamed(decimals: Decimals) -> Self {
        Self(alloc::vec![Currency { code: String::new(), decimals }])
    }

    /// All of them, in order of their index.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (CurrencyIndex, &Currency)> {
        self.0.iter().enumerate().map(|(index, currency)| (CurrencyIndex(index as u8), currency))
    }

    /// How many there are; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The one at `index`, if the ledger has it.
    pub fn get(&self, index: CurrencyIndex) -> Option<&Currency> {
        self.0.get(usize::from(index.0))
    }

    /// The index of the currency with `code`, whatever its letter case.
    pub fn find(&self, code: &[u8]) -> Option<CurrencyIndex> {
        self.iter().find(|(_, c)| !c.code.is_empty() && c.code.as_bytes().eq_ignore_ascii_case(code)).map(|(i, _)| i)
    }

    /// The currency meant when none is said: there is one only if the ledger has just one.
    pub fn only(&self) -> Option<CurrencyIndex> {
        (self.0.len() == 1).then_some(CurrencyIndex(0))
    }

    /// The decimals of the currency at `index`; four where the ledger has no such currency.
    pub fn decimals(&self, index: CurrencyIndex) -> Decimals {
        self.get(index).map_or(Decimals::FOUR, Currency::decimals)
    }
}

/// Why a list of currencies cannot be a ledger's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CurrencyError {
    /// A code that is empty, too long, or has other characters than letters, digits, `_` and `-`.
    BadCode,
    /// No currency, or more than [`CURRENCIES_MAX`].
    BadCount,
    /// The same code twice.
    Twice,
}

impl fmt::Display for CurrencyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadCode => {
                write!(f, "a currency's code has 1 to {CURRENCY_CODE_BYTES_MAX} letters, digits, '_' or '-'")
            }
            Self::BadCount => write!(f, "a ledger has 1 to {CURRENCIES_MAX} currencies"),
            Self::Twice => f.write_str("a currency is listed twice"),
        }
    }
}

impl core::error::Error for CurrencyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_checked_and_found_in_any_case() {
        let eur = Currency::new("eur", Decimals::new(2).unwrap()).unwrap();
        assert_eq!(eur.code(), "EUR");
        for bad in ["", "A B", "ELEVENTWELVE1", "€"] {
            assert_eq!(Currency::new(bad, Decimals::FOUR), Err(CurrencyError::BadCode), "{bad}");
        }
        let list =
            Currencies::named(alloc::vec![eur.clone(), Currency::new("JPY", Decimals::new(0).unwrap()).unwrap()]);
        let list = list.unwrap();
        assert_eq!(list.find(b"jpy"), Some(CurrencyIndex(1)));
        assert_eq!(list.find(b""), None);
        assert_eq!(list.only(), None);
        assert_eq!(Currencies::named(alloc::vec![eur.clone(), eur]), Err(CurrencyError::Twice));
        assert_eq!(Currencies::default().find(b""), None);
    }
}
