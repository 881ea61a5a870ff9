//! A long ingest: whether it becomes slower as history grows, and whether memory stays bounded.

use super::{Bench, FEW_CUSTOMERS, OnProgress, config, take_in};
use crate::contest::{Figure, Goal, Series};
use crate::failure::Failure;
use crate::machine::{forget_peak_memory, own_memory};
use crate::workload::{Ids, Workload};
use bursar_engine::store::RowCounts;
use bursar_engine::{Ledger, LedgerOptions};
use std::time::Instant;

/// When how many rows were durable.
struct Clock {
    started: Instant,
    /// Seconds and rows, rising.
    seen: Vec<(f64, u64)>,
}

impl Clock {
    /// When so many rows were durable, in seconds, on a straight line between what was seen before and after.
    fn reached(&self, rows: u64) -> f64 {
        let mut before = (0.0, 0);
        for &(second, count) in &self.seen {
            if count >= rows {
                let share = (rows - before.1) as f64 / (count - before.1).max(1) as f64;
                return before.0 + share * (second - before.0);
            }
            before = (second, count);
        }
        before.0
    }

    /// Rows per second between two counts of rows.
    fn rate(&self, from: u64, to: u64) -> f64 {
        (to - from) as f64 / (self.reached(to) - self.reached(from))
    }
}

pub(super) fn growth(bench: &mut Bench) -> Result<Vec<Figure>, Failure> {
    let rows = bench.options.long_rows;
    let seed = bench.options.seed;
    let workload = Workload { rows, customers: FEW_CUSTOMERS, ids: Ids::Rising, seed, with_faults: false };
    let source = bench.source(workload)?;
    let directory = bench.ledger_directory("ledger")?;
    forget_peak_memory();
    let before = own_memory("VmRSS");
    let mut clock = Clock { started: Instant::now(), seen: Vec::new() };
    let ledger = Ledger::create(&directory, &config(), LedgerOptions::default())?;
    let mut observer = OnProgress(|counts: &RowCounts| {
        clock.seen.push((clock.started.elapsed().as_secs_f64(), counts.total()));
    });
    let counts = take_in(&ledger, &source, &mut observer)?;
    let peak = own_memory("VmHWM");
    Failure::unless_equal("the rows taken in and those of the file", &counts.total(), &rows)?;
    ledger.close()?;
    std::fs::remove_dir_all(&directory)?;
    // Around a million and over the last million; where there are too few rows for that, over a quarter each.
    let window = (rows / 4).min(1_000_000);
    let first = Series(vec![clock.rate(window / 2, window / 2 + window)]);
    let last = Series(vec![clock.rate(rows - window.max(rows / 10), rows)]);
    let what = format!("rate at the end of {rows} rows");
    let against = format!("rate between {} and {} rows", window / 2, window / 2 + window);
    let memory = |bytes: u64| Series(vec![bytes as f64 / 1e6]);
    Ok(vec![
        Figure::paired("growth", what, &last, "rows/s", against, &first).goal(Goal::RatioAtLeast(0.8)),
        Figure::new("growth", "highest memory use of the process", &memory(peak), "MB")
            .goal(Goal::AtMost(1_073.741_824)),
        Figure::new("growth", "memory use of the process before", &memory(before), "MB"),
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)] // exact by construction
    use super::*;

    #[test]
    fn a_rate_is_read_off_between_what_was_seen() {
        let clock = Clock { started: Instant::now(), seen: vec![(1.0, 100), (1.0, 200), (3.0, 400)] };
        assert_eq!(
            [0, 50, 100, 150, 200, 300, 400].map(|rows| clock.reached(rows)),
            [0.0, 0.5, 1.0, 1.0, 1.0, 2.0, 3.0]
        );
        assert_eq!(clock.rate(200, 400), 100.0);
        assert_eq!(clock.rate(0, 100), 100.0);
    }
}
