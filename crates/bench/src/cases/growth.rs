//! A long ingest: whether it becomes slower as history grows, and whether memory stays bounded.

use super::{Bench, FEW_CUSTOMERS, config, take_in};
use crate::contest::{Figure, Goal, Series};
use crate::failure::Failure;
use crate::machine::{forget_peak_memory, own_memory};
use crate::workload::{Ids, Workload};
use bursar_core::{Rejection, RejectionInfo};
use bursar_engine::csv::{Header, Position, RowError};
use bursar_engine::ingest::IngestObserver;
use bursar_engine::store::RowCounts;
use bursar_engine::{Ledger, LedgerOptions};
use std::io;
use std::time::Instant;

/// When how many rows were durable.
struct Clock {
    started: Instant,
    /// Seconds and rows, rising.
    seen: Vec<(f64, u64)>,
}

impl IngestObserver for Clock {
    fn opened(&mut self, _: &Header, _: Position) -> io::Result<()> {
        Ok(())
    }

    fn unreadable(&mut self, _: &[u8], _: u64, _: &RowError) -> io::Result<()> {
        Ok(())
    }

    fn rejected(&mut self, _: &[u8], _: u64, _: &Rejection) -> io::Result<()> {
        Ok(())
    }

    fn rejected_earlier(&mut self, _: &[u8], _: u64, _: &'static RejectionInfo) -> io::Result<()> {
        Ok(())
    }

    fn progress(&mut self, counts: &RowCounts) {
        self.seen.push((self.started.elapsed().as_secs_f64(), counts.total()));
    }

    fn should_stop(&self) -> bool {
        false
    }
}

impl Clock {
    /// Rows per second between two counts of rows.
    fn rate(&self, from: u64, to: u64) -> f64 {
        let first = self.seen.iter().find(|(_, rows)| *rows >= from);
        let last = self.seen.iter().rev().find(|(_, rows)| *rows <= to);
        match (first, last) {
            (Some((begin, from)), Some((end, to))) if end > begin => (to - from) as f64 / (end - begin),
            (_, _) => 0.0,
        }
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
    let counts = take_in(&ledger, &source, &mut clock)?;
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
