//! Fixed pieces of the hot path, to be counted by instruction under callgrind: `.ci/instructions`.
//!
//! Each has a preparation and a work. Run with `--times 0` and `--times 1`, the difference in instructions is the
//! work alone, whatever threads it takes. Inputs are fixed, nothing waits for a disk or a clock, and the seeds
//! that can be given are; the engine's own hash tables have random seeds, which moves counts by a small fraction of a
//! percent. Each work gives a number that follows from its result, and fails where the result is wrong.

use crate::cases::take_in_for_accounts;
use crate::failure::Failure;
use crate::workload::{Ids, Workload, deposit, transaction_id};
use bursar_core::commit::{Batch, Limits, Routes, Step as BatchStep};
use bursar_core::event::chain_start;
use bursar_core::rules::{Decision, Known, decide};
use bursar_core::{Currencies, CustomerState, EntryId, Event, LedgerConfig, Policy};
use bursar_engine::accounts_only::AccountsOnly;
use bursar_engine::csv::{RowBatch, RowReader};
use bursar_engine::driver::{Driver, SourceRow};
use bursar_engine::embedded::memory_disk::MemoryDisk;
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore, VerifyOptions, verify_on};
use bursar_engine::store::{Chains, MemoryStore, SourceId, SourceMark, Transactions};
use clap::ValueEnum;
use std::io::Write;
use std::sync::Arc;
use tempfile::NamedTempFile;

const SEED: u64 = 1;
/// How many units each work has, but for [`Step::unit_count`]'s exception; and how many rows or events there are.
const UNIT_COUNT: u64 = if cfg!(test) { 4000 } else { 100_000 };
const CUSTOMER_COUNT: u64 = UNIT_COUNT / 10;
/// The time of everything.
const NOW_MS: u64 = 1_700_000_000_000;
/// How many index files of transactions there are to look in, at least: so often is the memtable full.
const RUN_COUNT: u64 = 4;
const KEYS_AT_A_TIME: usize = 1024;

/// A piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    Parse,
    ParseUuid,
    AccountsOnly,
    AccountsOnlyUuid,
    Hash,
    DecideMemory,
    EmbeddedBatch,
    LookupKnown,
    LookupAbsent,
    LookupNew,
    Verify,
}

impl Step {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::ParseUuid => "parse-uuid",
            Self::AccountsOnly => "accounts-only",
            Self::AccountsOnlyUuid => "accounts-only-uuid",
            Self::Hash => "hash",
            Self::DecideMemory => "decide-memory",
            Self::EmbeddedBatch => "embedded-batch",
            Self::LookupKnown => "lookup-known",
            Self::LookupAbsent => "lookup-absent",
            Self::LookupNew => "lookup-new",
            Self::Verify => "verify",
        }
    }

    /// What is counted.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Parse => "row read from memory, ids rising",
            Self::ParseUuid => "row read from memory, UUIDs",
            Self::AccountsOnly => "row of a file taken in for its accounts only, ids rising",
            Self::AccountsOnlyUuid => "row of a file taken in for its accounts only, UUIDs",
            Self::Hash => "event encoded and hashed",
            Self::DecideMemory => "deposit through the commit protocol on the memory store",
            Self::EmbeddedBatch => "deposit through the commit protocol on the embedded store, disk in memory",
            Self::LookupKnown => "transaction looked up in index files that have it",
            Self::LookupAbsent => "transaction looked up in index files that have ids below and above it",
            Self::LookupNew => "transaction looked up whose id is larger than all in the index files",
            Self::Verify => "event verified",
        }
    }

    /// How many units the work has. Without the processor's CRC instructions, as callgrind runs it, finding a record
    /// takes so long that fewer must do.
    pub(crate) const fn unit_count(self) -> u64 {
        match self {
            Self::LookupKnown => UNIT_COUNT / 50,
            Self::Parse
            | Self::ParseUuid
            | Self::AccountsOnly
            | Self::AccountsOnlyUuid
            | Self::Hash
            | Self::DecideMemory
            | Self::EmbeddedBatch
            | Self::LookupAbsent
            | Self::LookupNew
            | Self::Verify => UNIT_COUNT,
        }
    }

    /// Prepares, and does the work so many times. Gives something that follows from the results.
    pub(crate) fn run(self, times: u64) -> Result<u64, Failure> {
        match self {
            Self::Parse => repeat(times, &rows_text(Ids::Rising)?, |text| parse(text)),
            Self::ParseUuid => repeat(times, &rows_text(Ids::Uuid)?, |text| parse(text)),
            Self::AccountsOnly => repeat(times, &rows_file(Ids::Rising)?, take_for_accounts),
            Self::AccountsOnlyUuid => repeat(times, &rows_file(Ids::Uuid)?, take_for_accounts),
            Self::Hash => repeat(times, &events()?, |events| Ok(hash(events))),
            Self::DecideMemory => repeat(times, &source_rows(1), |rows| {
                let store = Arc::new(MemoryStore::new(&config()));
                drive(&store, rows)
            }),
            Self::EmbeddedBatch => repeat(times, &source_rows(1), |rows| {
                let store = embedded(&Arc::new(MemoryDisk::new()), 1 << 20)?;
                drive(&store, rows)
            }),
            Self::LookupKnown => repeat(times, &(indexed()?, keys(2)), |(store, keys)| {
                look_up(store, &keys[..self.unit_count() as usize], true)
            }),
            Self::LookupAbsent => repeat(times, &(indexed()?, keys(1)), |(store, keys)| look_up(store, keys, false)),
            Self::LookupNew => {
                repeat(times, &(indexed()?, keys(2 * UNIT_COUNT + 1)), |(store, keys)| look_up(store, keys, false))
            }
            Self::Verify => repeat(times, &verifiable()?, verify),
        }
    }
}

fn repeat<T>(times: u64, prepared: &T, work: impl Fn(&T) -> Result<u64, Failure>) -> Result<u64, Failure> {
    (0..times).try_fold(0, |sum: u64, _| Ok(sum.wrapping_add(work(prepared)?)))
}

fn config() -> LedgerConfig {
    LedgerConfig { ledger: [7; 16], policy: Policy::default(), currencies: Currencies::default() }
}

fn wrong(what: &str) -> Failure {
    Failure::Engine(what.to_owned())
}

fn rows_text(ids: Ids) -> Result<Vec<u8>, Failure> {
    let workload = Workload { rows: UNIT_COUNT, customers: CUSTOMER_COUNT, ids, seed: SEED, with_faults: false };
    Ok(workload.bytes()?)
}

/// The same as a file.
fn rows_file(ids: Ids) -> Result<NamedTempFile, Failure> {
    let mut file = NamedTempFile::new()?;
    file.write_all(&rows_text(ids)?)?;
    Ok(file)
}

/// All of `bursar ingest --in-memory` but the writing of accounts.
fn take_for_accounts(file: &NamedTempFile) -> Result<u64, Failure> {
    let mut accounts = AccountsOnly::new(config());
    let counts = take_in_for_accounts(&mut accounts, file.path())?;
    Failure::unless_equal("the rows of a file and those taken in", &UNIT_COUNT, &counts.total())?;
    Ok(counts.applied)
}

fn parse(text: &[u8]) -> Result<u64, Failure> {
    let mut reader = RowReader::open(text, &Currencies::default()).map_err(|error| wrong(&error.to_string()))?;
    let mut batch = RowBatch::new();
    let mut row_count = 0;
    while reader.next_batch(&mut batch)? {
        row_count += batch.rows().iter().filter(|row| row.content.is_ok()).count() as u64;
    }
    Failure::unless_equal("the rows of a text and those read", &UNIT_COUNT, &row_count)?;
    Ok(row_count)
}

/// One deposit of a new customer each.
fn events() -> Result<Vec<Event>, Failure> {
    let event = |number| {
        let request = deposit(number, number);
        match decide(&config(), &CustomerState::default(), Known::default(), &request) {
            Ok(Decision::Change(change)) => Ok(Event::new(request.customer, 1, NOW_MS, change, None)),
            Ok(Decision::AlreadyApplied) | Err(_) => Err(wrong("a deposit was not accepted")),
        }
    };
    (1..=UNIT_COUNT).map(event).collect()
}

fn hash(events: &[Event]) -> u64 {
    let mut link =
        chain_start(&config().digest(), events.first().map_or_else(Default::default, |event| event.customer));
    for event in events {
        link = event.hash(&link);
    }
    u64::from(link.as_bytes()[0])
}

/// Deposits for many customers, as rows of a source. Ids rise in steps of `stride`.
fn source_rows(stride: u64) -> Vec<SourceRow> {
    let row = |number| SourceRow {
        request: Some(deposit(number * stride, 1 + number % CUSTOMER_COUNT)),
        line: number + 1,
        end_offset: 100 + number,
        end_line_count: number + 1,
    };
    (1..=UNIT_COUNT).map(row).collect()
}

fn embedded(disk: &Arc<MemoryDisk>, memtable_entries_max: usize) -> Result<Arc<EmbeddedStore>, Failure> {
    // Without a thread of its own: what it does is then done in the same order every time.
    let options = EmbeddedOptions { memtable_entries_max, background: false, ..EmbeddedOptions::default() };
    Ok(Arc::new(EmbeddedStore::create_on(disk.clone(), &config(), options)?.0))
}

/// Takes rows through the commit protocol, each batch made durable before the next. Gives how many were applied.
fn drive<S: Chains + Transactions + 'static>(store: &Arc<S>, rows: &[SourceRow]) -> Result<u64, Failure> {
    let limits = Limits::default();
    let routes = Routes::default();
    let mut driver = Driver::new(config(), routes, limits, store.clone(), store.clone(), SEED)?;
    let mut batch = Batch::new(SEED);
    let mut mark = SourceMark::new(SourceId([1; 32]));
    let mut taken = 0;
    while taken < rows.len() {
        let end = rows.len().min(taken + limits.batch_requests_max);
        taken += driver.run_rows(NOW_MS, &mut batch, &rows[taken..end], end == rows.len(), &mut mark)?;
        store.sync()?;
        if batch.step() == BatchStep::Sync {
            batch.synced();
        }
        drop(batch.take_answers());
        store.approve(batch.approvals())?;
    }
    Failure::unless_equal("the deposits and those applied", &UNIT_COUNT, &mark.counts.applied)?;
    Ok(mark.counts.applied)
}

/// A store whose transactions, which have even numbers, are in index files.
fn indexed() -> Result<Arc<EmbeddedStore>, Failure> {
    let store = embedded(&Arc::new(MemoryDisk::new()), (UNIT_COUNT / RUN_COUNT) as usize)?;
    drive(&store, &source_rows(2))?;
    store.close()?;
    Ok(store)
}

/// Every other transaction from `first` on, in an order that is none.
fn keys(first: u64) -> Vec<EntryId> {
    let numbers = (0..UNIT_COUNT).map(|index| first + 2 * index);
    let mut keys: Vec<_> = numbers.map(|number| transaction_id(Ids::Rising, number)).collect();
    keys.sort_by_key(|id| (id.bits() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    keys.into_iter().map(EntryId::from).collect()
}

fn look_up(store: &EmbeddedStore, keys: &[EntryId], known: bool) -> Result<u64, Failure> {
    let mut entries = Vec::with_capacity(KEYS_AT_A_TIME);
    let keys_count = keys.len() as u64;
    let mut found_count = 0;
    for keys in keys.chunks(KEYS_AT_A_TIME) {
        entries.clear();
        store.get(keys, &mut entries)?;
        found_count += entries.iter().filter(|entry| entry.approved.is_some()).count() as u64;
    }
    Failure::unless_equal(
        "the transactions there and those found",
        &(if known { keys_count } else { 0 }),
        &found_count,
    )?;
    Ok(found_count)
}

fn verifiable() -> Result<Arc<MemoryDisk>, Failure> {
    let disk = Arc::new(MemoryDisk::new());
    let store = embedded(&disk, 1 << 20)?;
    drive(&store, &source_rows(1))?;
    store.close()?;
    Ok(disk)
}

fn verify(disk: &Arc<MemoryDisk>) -> Result<u64, Failure> {
    let report = verify_on(disk.clone(), &VerifyOptions::default(), &mut |_| ())?;
    let (sound, event_count) = (report.is_sound(), report.event_count);
    Failure::unless_equal(
        "a sound directory with all events, and what was found",
        &(true, UNIT_COUNT),
        &(sound, event_count),
    )?;
    Ok(event_count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A step that does nothing, or something else each time, would guard nothing.
    #[test]
    fn every_step_does_the_same_work_each_time() {
        for step in Step::value_variants() {
            let once = step.run(1).unwrap();
            assert_eq!(step.run(0).unwrap(), 0, "{step:?}");
            assert_eq!(step.run(2).unwrap(), 2 * once, "{step:?}");
        }
    }
}
