//! Amounts of money: whole counts of a currency's smallest step, read and written exactly.
//!
//! No float, no rounding. What cannot be held exactly is an error that says where it went wrong.
//! Which currency an amount belongs to is not known here; see [`crate::currency`].

use crate::digits::Text;
use core::fmt;

/// The highest number of decimals a currency may have.
pub const DECIMALS_MAX: u8 = 9;

/// How many decimals a currency has: 0 to [`DECIMALS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimals(u8);

impl Decimals {
    /// Four decimals: what a ledger without named currencies uses.
    pub const FOUR: Self = Self(4);

    /// `None` if `count` is above [`DECIMALS_MAX`].
    pub const fn new(count: u8) -> Option<Self> {
        if count <= DECIMALS_MAX { Some(Self(count)) } else { None }
    }

    /// The number of decimals, 0 to [`DECIMALS_MAX`].
    pub const fn count(self) -> u8 {
        self.0
    }

    /// How many smallest steps make one whole unit: 10 to the power of the decimals.
    pub const fn steps_per_unit(self) -> u64 {
        10u64.pow(self.0 as u32)
    }
}

/// A sum of money, in smallest steps of its currency. The whole range of `i64`; every operation is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount.
    pub const MAX: Self = Self(i64::MAX);
    /// The smallest (most negative) amount.
    pub const MIN: Self = Self(i64::MIN);

    /// An amount of `steps` smallest steps.
    pub const fn from_steps(steps: i64) -> Self {
        Self(steps)
    }

    /// The count of smallest steps.
    pub const fn steps(self) -> i64 {
        self.0
    }

    /// `None` where the sum does not fit.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(steps) => Some(Self(steps)),
            None => None,
        }
    }

    /// `None` where the difference does not fit.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(steps) => Some(Self(steps)),
            None => None,
        }
    }

    /// Above zero.
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// Below zero.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// Reads a decimal number exactly: an optional `-`, digits, and optionally a point with more digits.
    ///
    /// Digits beyond `decimals` are accepted only if they are zeros. A number may begin with its point
    /// (`.5`) but not end with it: `5.` looks like a number cut off, and money is not guessed.
    /// No exponent, no thousands separator, no `+`, no white space.
    ///
    /// ```
    /// use bursar_core::{Amount, Decimals};
    /// assert_eq!(Amount::parse(b"-1.5", Decimals::FOUR), Ok(Amount::from_steps(-15_000)));
    /// assert!(Amount::parse(b"1.00001", Decimals::FOUR).is_err());
    /// ```
    pub fn parse(text: &[u8], decimals: Decimals) -> Result<Self, AmountError> {
        let error = |kind, at| Err(AmountError { kind, at });
        let (negative, digits_start) = match text.first() {
            None => return error(AmountErrorKind::Empty, 0),
            Some(b'-') => (true, 1),
            Some(_) => (false, 0),
        };
        let mut steps: u64 = 0;
        let mut digit_count = 0usize;
        let mut point: Option<usize> = None;
        let mut decimals_left = decimals.0;
        for (at, &byte) in text.iter().enumerate().skip(digits_start) {
            match byte {
                b'0'..=b'9' => {
                    digit_count += 1;
                    let digit = u64::from(byte - b'0');
                    if point.is_some() {
                        if decimals_left == 0 {
                            if digit != 0 {
                                return error(AmountErrorKind::TooManyDecimals { decimals }, at);
                            }
                            continue;
                        }
                        decimals_left -= 1;
                    }
                    let Some(sum) = steps.checked_mul(10).and_then(|tens| tens.checked_add(digit)) else {
                        return error(AmountErrorKind::TooLarge, at);
                    };
                    steps = sum;
                }
                b'.' if point.is_none() => point = Some(at),
                _ => return error(AmountErrorKind::NotANumber, at),
            }
        }
        if digit_count == 0 {
            return error(AmountErrorKind::NotANumber, digits_start.min(text.len().saturating_sub(1)));
        }
        if let Some(at) = point.filter(|&at| at + 1 == text.len()) {
            return error(AmountErrorKind::EndsWithPoint, at);
        }
        let scaled = steps.checked_mul(10u64.pow(u32::from(decimals_left)));
        let signed = scaled.map(i128::from).map(|steps| if negative { -steps } else { steps });
        match signed.and_then(|steps| i64::try_from(steps).ok()) {
            Some(steps) => Ok(Self(steps)),
            None => error(AmountErrorKind::TooLarge, digits_start),
        }
    }

    /// Writes the amount with all of the currency's decimals: `-0.5000`, never `-.5`.
    pub const fn display(self, decimals: Decimals) -> AmountDisplay {
        AmountDisplay { steps: self.0 as i128, decimals }
    }
}

/// A sum over many accounts, in smallest steps. Wide enough that 2^63 accounts cannot overflow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sum(i128);

impl Sum {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A sum of `steps` smallest steps.
    pub const fn from_steps(steps: i128) -> Self {
        Self(steps)
    }

    /// The count of smallest steps.
    pub const fn steps(self) -> i128 {
        self.0
    }

    /// Adds one amount. Cannot overflow in practice: it would take 2^64 of the largest amounts.
    #[must_use]
    pub const fn plus(self, amount: Amount) -> Self {
        Self(self.0 + amount.0 as i128)
    }

    /// Takes one amount off; see [`Sum::plus`].
    #[must_use]
    pub const fn minus(self, amount: Amount) -> Self {
        Self(self.0 - amount.0 as i128)
    }

    /// As [`Amount::display`].
    pub const fn display(self, decimals: Decimals) -> AmountDisplay {
        AmountDisplay { steps: self.0, decimals }
    }
}

/// An amount ready to be written; made by [`Amount::display`] and [`Sum::display`].
#[derive(Clone, Copy, Debug)]
pub struct AmountDisplay {
    steps: i128,
    decimals: Decimals,
}

impl fmt::Display for AmountDisplay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (magnitude, per_unit) = (self.steps.unsigned_abs(), self.decimals.steps_per_unit());
        // Nearly all fit into 64 bits, where dividing takes a fraction of the time.
        let (whole, part) = match u64::try_from(magnitude) {
            Ok(magnitude) => (u128::from(magnitude / per_unit), magnitude % per_unit),
            Err(_) => (magnitude / u128::from(per_unit), (magnitude % u128::from(per_unit)) as u64),
        };
        // 39 digits, a point and a sign.
        let mut text = Text::<41>::new();
        let decimals = usize::from(self.decimals.count());
        if decimals > 0 {
            text.number(part, decimals);
            text.sign(b'.');
        }
        text.wide_number(whole);
        if self.steps < 0 {
            text.sign(b'-');
        }
        text.show(f)
    }
}

/// Why a text is no amount, and the index of the byte where that shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmountError {
    /// What is wrong.
    pub kind: AmountErrorKind,
    /// Index of the offending byte in the text.
    pub at: usize,
}

/// What is wrong with a text that should be an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmountErrorKind {
    /// There is no text.
    Empty,
    /// A byte that no decimal number has there.
    NotANumber,
    /// The number ends with its decimal point.
    EndsWithPoint,
    /// A digit other than zero that the currency's decimals cannot hold.
    TooManyDecimals {
        /// What the currency has.
        decimals: Decimals,
    },
    /// Beyond the range of 64 bits of smallest steps.
    TooLarge,
}

impl fmt::Display for AmountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl core::error::Error for AmountError {}

impl fmt::Display for AmountErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no amount is given"),
            Self::NotANumber => f.write_str("this is no decimal number"),
            Self::EndsWithPoint => f.write_str("the number ends with its decimal point"),
            Self::TooManyDecimals { decimals } => {
                write!(f, "the currency has {} decimals and this number needs more", decimals.count())
            }
            Self::TooLarge => f.write_str("the number is too large for an amount"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn reads_exactly_or_says_where() {
        use AmountErrorKind as K;
        let four = Decimals::FOUR;
        let table: &[(&str, Result<i64, (K, usize)>)] = &[
            ("0", Ok(0)),
            ("1", Ok(10_000)),
            ("1.5", Ok(15_000)),
            (".5", Ok(5_000)),
            ("-0.5", Ok(-5_000)),
            ("-0", Ok(0)),
            ("007.10", Ok(71_000)),
            ("2.00010000", Ok(20_001)),
            ("922337203685477.5807", Ok(i64::MAX)),
            ("-922337203685477.5808", Ok(i64::MIN)),
            ("922337203685477.5808", Err((K::TooLarge, 0))),
            ("-922337203685477.5809", Err((K::TooLarge, 1))),
            ("99999999999999999999999", Err((K::TooLarge, 19))),
            ("1.00001", Err((K::TooManyDecimals { decimals: four }, 6))),
            ("", Err((K::Empty, 0))),
            ("-", Err((K::NotANumber, 0))),
            (".", Err((K::NotANumber, 0))),
            ("5.", Err((K::EndsWithPoint, 1))),
            ("1e5", Err((K::NotANumber, 1))),
            ("+1", Err((K::NotANumber, 0))),
            ("1,5", Err((K::NotANumber, 1))),
            ("1.2.3", Err((K::NotANumber, 3))),
            ("NaN", Err((K::NotANumber, 0))),
            ("inf", Err((K::NotANumber, 0))),
            (" 1", Err((K::NotANumber, 0))),
            ("--1", Err((K::NotANumber, 1))),
        ];
        for (text, expected) in table {
            let got = Amount::parse(text.as_bytes(), four).map(Amount::steps).map_err(|e| (e.kind, e.at));
            assert_eq!(got, *expected, "{text:?}");
        }
    }

    #[test]
    fn writes_all_decimals_and_the_sign() {
        let table = [
            (0, 4, "0.0000"),
            (-1, 4, "-0.0001"),
            (15_000, 4, "1.5000"),
            (7, 0, "7"),
            (-5, 9, "-0.000000005"),
            (i64::MIN, 2, "-92233720368547758.08"),
        ];
        for (steps, decimals, expected) in table {
            let decimals = Decimals::new(decimals).unwrap();
            assert_eq!(Amount::from_steps(steps).display(decimals).to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(steps: i64, decimals in 0..=DECIMALS_MAX) {
            let decimals = Decimals::new(decimals).unwrap();
            let text = Amount::from_steps(steps).display(decimals).to_string();
            prop_assert_eq!(Amount::parse(text.as_bytes(), decimals), Ok(Amount::from_steps(steps)));
        }
    }
}
