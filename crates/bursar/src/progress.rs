//! How far a long job is, on standard error: bytes, rows per second, time left.
//!
//! Shown only on a terminal and only without `--quiet`; otherwise every call does nothing.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// How often the line is drawn at the most.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// A line on the terminal that says how far a job is. It vanishes when finished or dropped.
pub(crate) struct Progress {
    shown: Option<Shown>,
}

struct Shown {
    bar: ProgressBar,
    started: Instant,
    drawn: Instant,
}

impl Progress {
    /// Progress of a job that counts, without an end.
    pub(crate) fn counting(quiet: bool) -> Self {
        let progress = Self::new(None, quiet);
        if let (Some(shown), Ok(style)) = (&progress.shown, ProgressStyle::with_template("{spinner} {msg}  {elapsed}"))
        {
            shown.bar.set_style(style);
        }
        progress
    }

    /// Progress towards `total_bytes`, or without an end where the total is not known.
    pub(crate) fn new(total_bytes: Option<u64>, quiet: bool) -> Self {
        if quiet || !io::stderr().is_terminal() {
            return Self { shown: None };
        }
        let bar = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::stderr());
        let template = match total_bytes {
            Some(_) => "{wide_bar} {bytes}/{total_bytes}  {msg}  {eta} left",
            None => "{spinner} {bytes}  {msg}  {elapsed}",
        };
        // A template that cannot be read costs its looks, never the job.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self { shown: Some(Shown { bar, started: now, drawn: now }) }
    }

    /// Says how far the job is, counted from its beginning. Cheap enough to be called for every batch.
    pub(crate) fn update(&mut self, bytes: u64, rows: u64) {
        let Some(shown) = &mut self.shown else { return };
        let now = Instant::now();
        if now.duration_since(shown.drawn) < DRAW_EVERY {
            return;
        }
        shown.drawn = now;
        shown.bar.set_position(bytes);
        let rate = rows_per_second(rows, now.duration_since(shown.started));
        shown.bar.set_message(format!("{} rows  {} rows/s", grouped(rows), grouped(rate)));
        shown.bar.tick();
    }

    /// Says how far a job is that has no rows, and how far it has to go.
    pub(crate) fn update_bytes(&mut self, bytes: u64, bytes_total: u64) {
        let Some(shown) = &mut self.shown else { return };
        let now = Instant::now();
        if now.duration_since(shown.drawn) < DRAW_EVERY {
            return;
        }
        shown.drawn = now;
        shown.bar.set_length(bytes_total);
        shown.bar.set_position(bytes);
        shown.bar.tick();
    }

    /// Says how many there are so far, of a job whose end is not known.
    pub(crate) fn update_count(&mut self, count: u64, what: &str) {
        let Some(shown) = &mut self.shown else { return };
        let now = Instant::now();
        if now.duration_since(shown.drawn) < DRAW_EVERY {
            return;
        }
        shown.drawn = now;
        let rate = rows_per_second(count, now.duration_since(shown.started));
        shown.bar.set_message(format!("{} {what}  {} {what}/s", grouped(count), grouped(rate)));
        shown.bar.tick();
    }

    /// Takes the line off the terminal while something else is written to standard error.
    pub(crate) fn suspend(&self, write: impl FnOnce()) {
        match &self.shown {
            Some(shown) => shown.bar.suspend(write),
            None => write(),
        }
    }

    /// Takes the line off the terminal.
    pub(crate) fn finish(self) {
        if let Some(shown) = self.shown {
            shown.bar.finish_and_clear();
        }
    }
}

/// Whole rows per second.
pub(crate) fn rows_per_second(rows: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(rows) * 1_000_000 / elapsed.as_micros().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// A count with its thousands apart: `1_234_567`, as the flags take it.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_whole_and_readable() {
        let table = [(0, "0"), (999, "999"), (1_000, "1_000"), (1_234_567, "1_234_567"), (100_000, "100_000")];
        for (count, expected) in table {
            assert_eq!(grouped(count), expected);
        }
        assert_eq!(rows_per_second(500, Duration::from_millis(250)), 2_000);
        assert_eq!(rows_per_second(500, Duration::ZERO), 500_000_000);
        assert_eq!(rows_per_second(u64::MAX, Duration::ZERO), u64::MAX);
    }
}
