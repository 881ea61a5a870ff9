//! Exact decimal numbers and times, as they stand in answers. No float, no rounding.

use bursar_core::{Amount, Decimals, Sum};
use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;

/// An exact decimal number with its decimals: `-12.5000` is minus 125,000 smallest steps with 4 decimals.
///
/// ```
/// use bursar_client::Figure;
/// let figure: Figure = "12.50".parse()?;
/// assert_eq!((figure.steps(), figure.decimals().count()), (1_250, 2));
/// assert_eq!(figure.to_string(), "12.50");
/// # Ok::<(), bursar_client::BadFigure>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Figure {
    steps: i128,
    decimals: Decimals,
}

/// A text is no decimal number, has more than 9 decimals, or is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFigure;

impl fmt::Display for BadFigure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is no decimal number with at most 9 decimals")
    }
}

impl std::error::Error for BadFigure {}

impl Figure {
    /// A count of smallest steps of a currency with these decimals.
    pub const fn new(steps: i128, decimals: Decimals) -> Self {
        Self { steps, decimals }
    }

    /// The count of smallest steps.
    pub const fn steps(self) -> i128 {
        self.steps
    }

    /// How many digits stand behind the point.
    pub const fn decimals(self) -> Decimals {
        self.decimals
    }

    /// As an amount of the engine; `None` if it is a sum beyond what one account can have.
    pub fn amount(self) -> Option<Amount> {
        i64::try_from(self.steps).ok().map(Amount::from_steps)
    }
}

/// Digits, with a point between digits where there are decimals. No exponent, no `+`, no blanks.
impl FromStr for Figure {
    type Err = BadFigure;

    fn from_str(text: &str) -> Result<Self, BadFigure> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, part) = digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !part.is_none_or(is_digits) {
            return Err(BadFigure);
        }
        let part = part.unwrap_or("");
        let decimals = u8::try_from(part.len()).ok().and_then(Decimals::new).ok_or(BadFigure)?;
        let mut steps: i128 = 0;
        for byte in whole.bytes().chain(part.bytes()) {
            let tens = steps.checked_mul(10).ok_or(BadFigure)?;
            steps = tens.checked_add(i128::from(byte - b'0')).ok_or(BadFigure)?;
        }
        Ok(Self { steps: if negative { -steps } else { steps }, decimals })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Sum::from_steps(self.steps).display(self.decimals).fmt(f)
    }
}

/// A time in milliseconds since 1970. It is read and shown as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeMs(pub u64);

impl FromStr for TimeMs {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        // Nothing happened before 1970.
        Ok(Self(u64::try_from(text.parse::<Timestamp>()?.as_millisecond()).unwrap_or(0)))
    }
}

impl fmt::Display for TimeMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bursar_core::Time(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_exact_or_refused() {
        for text in ["0", "-0.5000", "12.5000", "170141183460469231731687303.715884105", "1.000000000"] {
            assert_eq!(text.parse::<Figure>().unwrap().to_string(), text);
        }
        let bad = ["", "-", ".5", "5.", "1.2.3", "+1", "1e3", " 1", "1,5", "0.1234567891", "١", "--1", "1.-5"];
        let huge = "9".repeat(60);
        for text in bad.into_iter().chain([huge.as_str()]) {
            assert_eq!(text.parse::<Figure>(), Err(BadFigure), "{text}");
        }
        let most = Figure::new(i128::from(i64::MAX) + 1, Decimals::FOUR);
        assert_eq!((most.amount(), "1.50".parse::<Figure>().unwrap().amount()), (None, Some(Amount::from_steps(150))));
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, ms) in [("1970-01-01T00:00:00.000Z", 0), ("2026-01-31T12:00:00.007Z", 1_769_860_800_007)] {
            assert_eq!((text.parse::<TimeMs>().unwrap(), TimeMs(ms).to_string().as_str()), (TimeMs(ms), text));
        }
        assert!("yesterday".parse::<TimeMs>().is_err());
    }
}
