//! What became of the rows, for the end of an ingest.

use crate::progress::{grouped, rows_per_second};
use bursar_engine::ingest::IngestReport;
use bursar_engine::store::RowCounts;
use bursar_engine::{Ledger, ReadError};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What became of the rows of one source, or of several, in this run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    counts: RowCounts,
    rejected: BTreeMap<&'static str, u64>,
    unreadable: BTreeMap<&'static str, u64>,
    elapsed: Duration,
}

impl Summary {
    /// `counts` are those of this run alone; the report's are those of all runs on the source.
    pub(crate) fn new(report: &IngestReport, counts: RowCounts, elapsed: Duration) -> Self {
        let (rejected, unreadable) = (report.rejected.clone(), report.unreadable.clone());
        Self { counts, rejected, unreadable, elapsed }
    }

    /// Adds another source.
    pub(crate) fn add(&mut self, other: &Self) {
        self.counts = self.counts.plus(&other.counts);
        self.elapsed += other.elapsed;
        for (all, more) in [(&mut self.rejected, &other.rejected), (&mut self.unreadable, &other.unreadable)] {
            for (code, count) in more {
                *all.entry(code).or_default() += count;
            }
        }
    }

    /// Whether there are rows that were not applied.
    pub(crate) const fn has_rejects(&self) -> bool {
        self.counts.rejected + self.counts.unreadable > 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RowCounts { applied, already_applied, rejected, unreadable } = self.counts;
        let (applied, already) = (grouped(applied), grouped(already_applied));
        write!(f, "{} rows: {applied} applied, {already} already applied", grouped(self.counts.total()))?;
        write!(f, ", {} rejected, {} unreadable", grouped(rejected), grouped(unreadable))?;
        write!(f, "; {} rows/s", grouped(rows_per_second(self.counts.total(), self.elapsed)))?;
        for (what, codes) in [("rejected", &self.rejected), ("unreadable", &self.unreadable)] {
            if !codes.is_empty() {
                write!(f, "\n  {what}:")?;
            }
            for (index, (code, count)) in codes.iter().enumerate() {
                write!(f, "{} {} {code}", if index == 0 { "" } else { "," }, grouped(*count))?;
            }
        }
        Ok(())
    }
}

/// What became of all rows that the ledger ever took in. The difference of two is what a run did.
pub(crate) fn all_counts(ledger: &Ledger) -> Result<RowCounts, ReadError> {
    Ok(ledger.sources()?.into_iter().fold(RowCounts::default(), |sum, mark| sum.plus(&mark.counts)))
}
