//! The cases: what is measured, beside what, how often.
//!
//! Each case runs the engine and its limit or peer in turn, round by round, on the same input; everything that is not
//! the job itself (making input, checking results, removing files) is outside of what is timed. A case fails if two
//! that did the same job do not agree.

mod durable;
mod growth;
mod memory;
mod opening;
mod submit;
mod verify;

use crate::contest::Figure;
use crate::failure::Failure;
use crate::workload::{Ids, Workload};
use bursar_core::{Currencies, LedgerConfig, Policy, Rejection, RejectionInfo};
use bursar_engine::Ledger;
use bursar_engine::accounts_only::AccountsOnly;
use bursar_engine::csv::{Header, Position, RowError, Source};
use bursar_engine::ingest::{IngestObserver, IngestOptions, ingest};
use bursar_engine::store::RowCounts;
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    MemoryRising,
    MemoryUuid,
    DurableRising,
    DurableUuid,
    Lone,
    Crowd,
    HotCustomer,
    Growth,
    Opening,
    Disk,
    Verify,
}

impl Case {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MemoryRising => "memory-rising",
            Self::MemoryUuid => "memory-uuid",
            Self::DurableRising => "durable-rising",
            Self::DurableUuid => "durable-uuid",
            Self::Lone => "lone",
            Self::Crowd => "crowd",
            Self::HotCustomer => "hot-customer",
            Self::Growth => "growth",
            Self::Opening => "opening",
            Self::Disk => "disk",
            Self::Verify => "verify",
        }
    }

    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::MemoryRising => {
                "a file into memory and accounts out, ids rising; beside the peer-like baseline and a bare scan"
            }
            Self::MemoryUuid => "the same with UUIDs and many customers",
            Self::DurableRising => "a file into the embedded store, ids rising; beside raw synced appends of as much",
            Self::DurableUuid => "the same with UUIDs and many customers",
            Self::Lone => "one request at a time from one thread; beside a raw write and fdatasync",
            Self::Crowd => "one request at a time from each of 64 threads; beside one thread",
            Self::HotCustomer => "64 threads on one customer; beside 64 threads on many",
            Self::Growth => "the rate at the end of a long ingest; beside the rate at a million rows; memory",
            Self::Opening => "opening after a clean stop and after a kill; beside reading and hashing as much",
            Self::Disk => "bytes on disk per event after a clean stop",
            Self::Verify => "verifying a directory; beside SHA-256 of the same bytes",
        }
    }

    pub(crate) fn measure(self, bench: &mut Bench) -> Result<Vec<Figure>, Failure> {
        match self {
            Self::MemoryRising => memory::rising(bench),
            Self::MemoryUuid => memory::uuid(bench),
            Self::DurableRising => durable::rising(bench),
            Self::DurableUuid => durable::uuid(bench),
            Self::Lone => submit::lone(bench),
            Self::Crowd => submit::crowd(bench),
            Self::HotCustomer => submit::hot_customer(bench),
            Self::Growth => growth::growth(bench),
            Self::Opening => opening::opening(bench),
            Self::Disk => durable::disk(bench),
            Self::Verify => verify::verify(bench),
        }
    }
}

/// How much is measured, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) rows: u64,
    /// For the case `growth`.
    pub(crate) long_rows: u64,
    /// Where there are many.
    pub(crate) customers: u64,
    pub(crate) rounds: u64,
    pub(crate) seed: u64,
    pub(crate) quick: bool,
}

/// How many customers there are where there are few.
const FEW_CUSTOMERS: u64 = 65_536;

/// What the cases share: the options, and a directory with files of rows that are made once.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) options: Options,
    directory: TempDir,
    sources: BTreeMap<Workload, PathBuf>,
}

impl Bench {
    pub(crate) fn new(options: Options, parent: &Path) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("bursar-bench-").tempdir_in(parent)?;
        Ok(Self { options, directory, sources: BTreeMap::new() })
    }

    /// A directory that is removed in the end.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A workload's file, made unless it is there.
    pub(crate) fn source(&mut self, workload: Workload) -> io::Result<PathBuf> {
        if let Some(path) = self.sources.get(&workload) {
            return Ok(path.clone());
        }
        let path = self.directory().join(format!("rows-{}.csv", self.sources.len()));
        workload.write_file(&path)?;
        self.sources.insert(workload, path.clone());
        Ok(path)
    }

    /// The workload of a case.
    fn workload(&self, ids: Ids) -> Workload {
        let customers = match ids {
            Ids::Rising => FEW_CUSTOMERS,
            Ids::Uuid => self.options.customers,
        };
        Workload { rows: self.options.rows, customers, ids, seed: self.options.seed, with_faults: false }
    }

    /// An empty directory for a ledger; what was there is removed.
    fn ledger_directory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.directory().join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir(&path)?;
        Ok(path)
    }
}

/// The same ledger every time.
fn config() -> LedgerConfig {
    LedgerConfig { ledger: [7; 16], policy: Policy::default(), currencies: Currencies::default() }
}

/// Hears how far an ingest is, and of nothing else.
struct OnProgress<F>(F);

impl<F: FnMut(&RowCounts)> IngestObserver for OnProgress<F> {
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
        (self.0)(counts);
    }

    fn should_stop(&self) -> bool {
        false
    }
}

/// Takes a whole file into a ledger.
fn take_in_quietly(ledger: &Ledger, path: &Path) -> Result<RowCounts, Failure> {
    take_in(ledger, path, &mut OnProgress(|_: &RowCounts| {}))
}

/// Takes a whole file in for its accounts only, as the only file: its content need not be known again.
pub(crate) fn take_in_for_accounts(accounts: &mut AccountsOnly, path: &Path) -> Result<RowCounts, Failure> {
    let options = IngestOptions { again: true, ..IngestOptions::default() };
    let report = accounts.ingest(Source::open(path)?, options, &mut OnProgress(|_: &RowCounts| {}))?;
    Failure::unless_equal("rows taken in for accounts, and those counted", &report.row_count, &report.counts.total())?;
    Ok(report.counts)
}

/// Takes a whole file into a ledger, and tells how far it is.
fn take_in(ledger: &Ledger, path: &Path, observer: &mut dyn IngestObserver) -> Result<RowCounts, Failure> {
    let report = ingest(ledger, Source::open(path)?, IngestOptions::default(), observer)?;
    Failure::unless_equal("rows taken in by this run and by all", &report.row_count, &report.counts.total())?;
    Ok(report.counts)
}
