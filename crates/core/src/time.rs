//! How a time is shown. Times come in as arguments: nothing here asks a clock.

use crate::digits::Text;
use core::fmt;

/// Milliseconds since 1970, shown as RFC 3339 in UTC with three decimals.
///
/// Beyond the year 9999, which only a clock reaches that is badly wrong, the last moment of that year is shown.
///
/// ```
/// assert_eq!(bursar_core::Time(1_769_860_800_007).to_string(), "2026-01-31T12:00:00.007Z");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

const DAY_MS: u64 = 86_400_000;
/// The last millisecond of the year 9999.
const LAST_MS: u64 = 253_402_300_799_999;

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time_ms = self.0.min(LAST_MS);
        let (year, month, day) = date(time_ms / DAY_MS);
        let of_day_ms = time_ms % DAY_MS;
        let (hours, minutes) = (of_day_ms / 3_600_000, of_day_ms / 60_000 % 60);
        let (seconds, ms) = (of_day_ms / 1_000 % 60, of_day_ms % 1_000);
        let mut text = Text::<24>::new();
        text.sign(b'Z');
        text.number(ms, 3);
        for (sign, number) in [(b'.', seconds), (b':', minutes), (b':', hours), (b'T', day), (b'-', month)] {
            text.sign(sign);
            text.number(number, 2);
        }
        text.sign(b'-');
        text.number(year, 4);
        text.show(f)
    }
}

/// Year, month and day, so many days after 1970-01-01. Years are counted from March, so that the day that is not in
/// all of them comes last: <https://howardhinnant.github.io/date_algorithms.html>, `civil_from_days`.
const fn date(days: u64) -> (u64, u64, u64) {
    // From 0000-03-01 on, in eras of 400 years, which are all alike.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let is_next_year = month >= 10;
    let year = era * 400 + year_of_era + if is_next_year { 1 } else { 0 };
    (year, if is_next_year { month - 9 } else { month + 3 }, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn times_are_in_utc_with_milliseconds() {
        let table = [
            (0, "1970-01-01T00:00:00.000Z"),
            (68_256_000_000 - 1, "1972-02-29T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_769_860_800_007, "2026-01-31T12:00:00.007Z"),
            (4_107_542_400_000 - 1, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (LAST_MS, "9999-12-31T23:59:59.999Z"),
            (LAST_MS + 1, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ];
        for (ms, expected) in table {
            assert_eq!(Time(ms).to_string(), expected);
        }
    }

    /// Every day up to the year 9999, counted one by one as a calendar does.
    #[test]
    fn every_day_is_the_one_after_the_day_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..=LAST_MS / DAY_MS {
            assert_eq!(date(days), (year, month, day), "{days}");
            let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if is_leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!((year, month, day), (10_000, 1, 1));
    }
}
