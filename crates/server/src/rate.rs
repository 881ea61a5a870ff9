//! How many requests a key may make: a bucket of tokens for each, filled at a steady rate.
//!
//! A call costs a token, and so does each row of a batch. A call without a token is refused; the rows of a batch wait
//! for theirs, so that a batch goes at the key's rate. Keys do not see each other's buckets. Without keys there is
//! nobody to tell apart, and no limit.

use crate::keys::KeyId;
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Requests of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many each second, in the long run.
    pub per_second: NonZeroU32,
    /// So many at once, after a pause.
    pub burst: NonZeroU32,
}

/// What a rate is written like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateError;

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a rate is written like 100/s, or 100/s:500 for at most 500 at once")
    }
}

impl std::error::Error for RateError {}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let (rate, burst) = text.split_once(':').map_or((text, None), |(rate, burst)| (rate, Some(burst)));
        let per_second = rate.strip_suffix("/s").and_then(|count| count.parse().ok()).ok_or(RateError)?;
        let burst = burst.map_or(Ok(per_second), str::parse).map_err(|_| RateError)?;
        Ok(Self { per_second, burst })
    }
}

/// The buckets of all keys that were seen.
///
/// A bucket is the moment at which it will be full again: each token taken moves it on by the time that a token takes
/// to come (the generic cell rate algorithm). So it needs no filling.
#[derive(Debug)]
pub(crate) struct Buckets {
    rate: Option<Rate>,
    full_at: Mutex<HashMap<KeyId, Instant>>,
}

impl Buckets {
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        Self { rate, full_at: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyId, Instant>> {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a token; if there is none, says when there will be one.
    pub(crate) fn take(&self, key: Option<KeyId>, now: Instant) -> Result<(), Duration> {
        let Some((rate, key)) = self.rate.zip(key) else { return Ok(()) };
        let mut buckets = self.lock();
        let full_at = buckets.entry(key).or_insert(now);
        wait(rate, *full_at, now).map_or(Ok(()), Err)?;
        *full_at = (*full_at).max(now) + token(rate);
        Ok(())
    }

    /// Whether there is a token.
    pub(crate) fn is_ready(&self, key: Option<KeyId>, now: Instant) -> bool {
        let Some((rate, key)) = self.rate.zip(key) else { return true };
        self.lock().get(&key).is_none_or(|&full_at| wait(rate, full_at, now).is_none())
    }

    /// Takes tokens for rows, more than there are if need be: what comes next waits the longer.
    pub(crate) fn charge(&self, key: Option<KeyId>, rows: usize, now: Instant) {
        let Some((rate, key)) = self.rate.zip(key) else { return };
        let mut buckets = self.lock();
        let full_at = buckets.entry(key).or_insert(now);
        *full_at = (*full_at).max(now) + token(rate) * u32::try_from(rows).unwrap_or(u32::MAX);
    }
}

/// The time in which a token comes.
fn token(rate: Rate) -> Duration {
    Duration::from_secs(1) / rate.per_second.get()
}

/// How long until there is a token in a bucket that will be full then; `None`: there is one.
fn wait(rate: Rate, full_at: Instant, now: Instant) -> Option<Duration> {
    let empty = token(rate) * (rate.burst.get() - 1);
    let missing = full_at.saturating_duration_since(now);
    missing.checked_sub(empty).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Option<KeyId> = Some(KeyId([1; 6]));
    const OTHER: Option<KeyId> = Some(KeyId([2; 6]));

    fn buckets(rate: &str) -> Buckets {
        Buckets::new(Some(rate.parse().unwrap()))
    }

    #[test]
    fn a_rate_is_read_in_one_way() {
        let rate = |text: &str| text.parse::<Rate>().map(|rate| (rate.per_second.get(), rate.burst.get()));
        assert_eq!(rate("100/s"), Ok((100, 100)));
        assert_eq!(rate("100/s:5"), Ok((100, 5)));
        for bad in ["", "100", "0/s", "5/s:0", "5/m", "-5/s", "5/s:", "5/s:x", "5.5/s", " 5/s", "4294967296/s"] {
            assert_eq!(rate(bad), Err(RateError), "{bad}");
        }
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (buckets, start) = (buckets("10/s:5"), Instant::now());
        for _ in 0..5 {
            assert_eq!(buckets.take(ONE, start), Ok(()));
        }
        assert_eq!(buckets.take(ONE, start), Err(Duration::from_millis(100)));
        assert_eq!(buckets.take(OTHER, start), Ok(()), "another key has a bucket of its own");
        assert_eq!(buckets.take(None, start), Ok(()), "without keys there is no limit");
        let mut taken = 0;
        for ms in 0..10_000 {
            taken += u32::from(buckets.take(ONE, start + Duration::from_millis(ms)).is_ok());
        }
        assert_eq!(taken, 99, "ten a second, and none before the first 100 ms");
        // A pause fills it to its brim and not further.
        let later = start + Duration::from_hours(1);
        assert_eq!((0..100).filter(|_| buckets.take(ONE, later).is_ok()).count(), 5);
    }

    #[test]
    fn rows_are_charged_whole_and_paid_for_by_waiting() {
        let (buckets, start) = (buckets("100/s:10"), Instant::now());
        assert!(buckets.is_ready(ONE, start));
        buckets.charge(ONE, 1_000, start);
        assert!(!buckets.is_ready(ONE, start + Duration::from_millis(9_900)));
        assert!(buckets.is_ready(ONE, start + Duration::from_millis(9_910)));
        assert_eq!(buckets.take(ONE, start), Err(Duration::from_millis(9_910)));
        assert!(buckets.is_ready(OTHER, start));
    }
}
