//! Verifying a ledger's directory: every byte that matters is read, and everything that can be recomputed is.
//!
//! ```text
//! walk     frames: checksums, numbers, digests; over damage to the next sound frame
//!   ├─► quick    records: hashes, accounts by the rules, sums, positions; checkpoint and heads in the index
//!   │     └─► effects   transactions, and where the index leads for them
//!   │
//!   └─► pass     if there is a doubt: the same again, to say what is wrong
//!         └─► chains, index
//! ```
//!
//! It is read twice at the most. The first reading is quick: it checks everything, and finds whether all is well. Only
//! where it is not, or cannot be told so, the second reading looks everything up event by event, to say what is wrong,
//! and where.
//!
//! Nothing is changed, and nothing is refused: a directory that cannot be opened is read as far as it goes. The
//! tables are bounded: where they would not fit into memory, each reading goes through the journal several times,
//! each time for a part of the customers and transactions. What each finding means is in `docs/format.md`, "Verification".

mod book;
mod chains;
mod effects;
mod index;
mod pass;
mod quick;
mod report;
#[cfg(test)]
mod tests;
mod walk;

pub use report::{Finding, FindingCode, Lost, LostEvents, Note, VerifyReport};

use super::checkpoint::{CHECKPOINT_NAME, Checkpoint, is_index_file};
use super::disk::Disk;
use super::ledger_file::{self, Holds, LEDGER_NAME, LedgerFile, read_whole};
use super::open::lock_directory;
use super::run::TEMPORARY_SUFFIX;
use super::scan::open_segments;
use crate::store::{Damage as StoreDamage, StoreError};
use book::CUSTOMER_BYTES;
use bursar_core::CustomerId;
use chains::Partition;
use effects::{Effects, Keys};
use index::Derived;
use pass::{Inputs, Pass, Ran, Sums};
use quick::{Gathers, QuickPass, Reading};
use report::Findings;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What to verify, and within which bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Follow only this customer's chain. All frames are checked all the same; what is left out is whether its
    /// transactions were made by others as well, and the sums of the ledger.
    pub only: Option<CustomerId>,
    /// About how much memory the tables may take, in bytes. Where it is not enough, the journal is read several
    /// times.
    pub memory_bytes_max: usize,
    /// How many findings are listed; all are counted.
    pub findings_max: usize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { only: None, memory_bytes_max: 2 << 30, findings_max: 1000 }
    }
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// How many bytes of the journal have been read in this round.
    pub bytes: u64,
    /// How many there are, reserved room included.
    pub bytes_total: u64,
    /// Which round this is, from 1: each reads the journal for a part of the customers.
    pub pass: u64,
    /// How many rounds are known to be needed.
    pub pass_count: u64,
}

/// Verifies the ledger in a directory, which is locked meanwhile and not changed.
pub fn verify(
    directory: &Path,
    options: &VerifyOptions,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, StoreError> {
    verify_on(lock_directory(directory, false)?, options, progress)
}

/// Verifies a ledger on any medium.
pub fn verify_on(
    disk: Arc<dyn Disk>,
    options: &VerifyOptions,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, StoreError> {
    let mut early = Vec::new();
    let file = match ledger_file::read(&*disk) {
        Ok(file) => Some(file),
        Err(StoreError::Damaged(StoreDamage { path, offset, what })) => {
            early.push(Finding { code: FindingCode::LedgerFile, path, offset, what, event: None, lost: None });
            None
        }
        Err(error) => return Err(error),
    };
    let segments = open_segments(&*disk)?;
    let derived = match &file {
        Some(file) => open_derived(&disk, file, &mut early)?,
        None => None,
    };
    let mut report = VerifyReport::default();
    let has_table = file.as_ref().is_none_or(|file| file.holds == Holds::Everything);
    if !has_table {
        let what =
            "the chains of this ledger are alone here; its transactions table is elsewhere, and was not looked at";
        report.notes.push(Note { path: disk.path().join(LEDGER_NAME), offset: 0, what });
    }
    let config = file.map(|file| file.config);
    for name in disk.list().map_err(|error| io_error(&disk, error))? {
        note_file(&disk, &name, derived.as_ref(), &mut report)?;
    }
    let inputs = Inputs { disk, options: *options, config, has_table, segments, derived };
    if early.is_empty()
        && inputs.config.is_some()
        && options.only.is_none()
        && let Some(sound) = quickly(&inputs, report.clone(), progress)
    {
        return Ok(sound);
    }
    let sums = thoroughly(&inputs, &mut report, progress)?;
    Ok(concluded(sums, &inputs, early, report))
}

/// The thorough reading.
fn thoroughly(
    inputs: &Inputs,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<Sums, StoreError> {
    let threads = thread_count();
    // About as much memory as journal: a transaction takes about as much of both.
    let list = match inputs.options.only {
        Some(customer) => vec![Partition::Only(customer)],
        None => partitions(inputs, inputs.places().journal_end(), threads),
    };
    let memory_bytes_max = inputs.memory_bytes_max(threads.min(list.len()));
    let run = |partition, first, told: &mut dyn FnMut(u64, u64)| {
        Pass::new(inputs, partition, first, memory_bytes_max).run(told)
    };
    match all_passes(inputs, list, true, &run, report, progress)? {
        Passes::Done(sums) => Ok(sums),
        // Of a quick reading only.
        Passes::Doubtful | Passes::TooLarge => Ok(Sums::default()),
    }
}

/// The quick reading; `None` unless all is well. An error is met again by the thorough one, or was none for it.
fn quickly(inputs: &Inputs, report: VerifyReport, progress: &mut dyn FnMut(VerifyProgress)) -> Option<VerifyReport> {
    let threads = thread_count();
    let customers = inputs.derived.as_ref().map_or(0, |derived| derived.checkpoint.totals.customer_count);
    let needed = Effects::expected_bytes(inputs.places().journal_end());
    let list = partitions(inputs, needed.saturating_add(customers.saturating_mul(CUSTOMER_BYTES)), threads);
    let (list, gathers) = if list.len() > threads {
        (list, Gathers::OfItsPartition)
    } else {
        match quick_passes(inputs, list.clone(), Gathers::OfItsCustomers, report.clone(), progress)? {
            Ok(sound) => return Some(sound),
            Err(TooLarge) => (halved(&list)?, Gathers::OfItsPartition),
        }
    };
    quick_passes(inputs, list, gathers, report, progress)?.ok()
}

/// Passes that gather together cannot be divided one by one.
struct TooLarge;

fn quick_passes(
    inputs: &Inputs,
    list: Vec<Partition>,
    gathers: Gathers,
    mut report: VerifyReport,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Option<Result<VerifyReport, TooLarge>> {
    let (config, derived, threads) = (inputs.config.as_ref()?, inputs.derived.as_ref(), thread_count());
    let doubt = AtomicBool::new(false);
    let memory_bytes_max = inputs.memory_bytes_max(threads.min(list.len()));
    let reading = Reading { inputs, config, keys: Keys::new(), gathers, doubt: &doubt, memory_bytes_max };
    let divides = gathers == Gathers::OfItsPartition;
    let run = |partition, first, told: &mut dyn FnMut(u64, u64)| QuickPass::new(reading, partition, first).run(told);
    let mut sums = match all_passes(inputs, list, divides, &run, &mut report, progress).ok()? {
        Passes::Done(sums) => sums,
        Passes::Doubtful => return None,
        Passes::TooLarge => return Some(Err(TooLarge)),
    };
    let gathered: Vec<Effects> = sums.passes.iter_mut().filter_map(|pass| pass.effects.take()).collect();
    let matched_together = effects::check(gathered, derived, threads).ok()??;
    let matched = matched_together + sums.passes.iter().map(|pass| pass.index_matches).sum::<u64>();
    let runs = derived.into_iter().flat_map(|derived| &derived.transactions);
    let entry_count: u64 = runs.map(|(_, run)| run.entry_count()).sum();
    let report = concluded(sums, inputs, Vec::new(), report);
    // Every entry of the index files must lead to an event that took effect on the entry's transaction.
    (matched == entry_count && report.is_sound()).then_some(Ok(report))
}

fn concluded(sums: Sums, inputs: &Inputs, early: Vec<Finding>, mut report: VerifyReport) -> VerifyReport {
    let mut findings = Findings::new(inputs.options.findings_max);
    let (listed, late) = sums.conclude(inputs, &mut report, &mut findings);
    findings.append(listed);
    early.into_iter().chain(late).for_each(|finding| findings.push(finding));
    report.finding_count = findings.count;
    report.findings = findings.list;
    report
}

fn io_error(disk: &Arc<dyn Disk>, error: io::Error) -> StoreError {
    StoreError::Io { doing: "list the directory", path: disk.path().to_owned(), error: Arc::new(error) }
}

/// Reads the checkpoint and opens its index files. What is wrong with them is a finding.
fn open_derived(
    disk: &Arc<dyn Disk>,
    file: &LedgerFile,
    findings: &mut Vec<Finding>,
) -> Result<Option<Derived>, StoreError> {
    let config = &file.config;
    let path = disk.path().join(CHECKPOINT_NAME);
    let bytes = match read_whole(&**disk, CHECKPOINT_NAME) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::Io { doing: "read the checkpoint", path, error: Arc::new(error) }),
    };
    let (offset, what) = match Checkpoint::read(&bytes) {
        Ok(checkpoint) if checkpoint.ledger == config.ledger => {
            return Derived::open(&**disk, file, checkpoint, findings).map(Some);
        }
        Ok(_) => (16, "the checkpoint belongs to another ledger"),
        Err(malformed) => (malformed.offset as u64, "this is no sound checkpoint"),
    };
    let what = what.to_owned();
    findings.push(Finding { code: FindingCode::Checkpoint, path, offset, what, event: None, lost: None });
    Ok(None)
}

fn note_file(
    disk: &Arc<dyn Disk>,
    name: &str,
    derived: Option<&Derived>,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let length = disk.open(name).and_then(|file| file.length()).map_err(|error| io_error(disk, error))?;
    report.file_bytes += length;
    let named = derived.is_some_and(|derived| derived.checkpoint.runs.iter().any(|run| run.file_name() == name));
    let what = if name.ends_with(TEMPORARY_SUFFIX) {
        "a file that was never finished; the next opening removes it"
    } else if is_index_file(name) && !named {
        "an index file that no checkpoint names; the next opening removes it"
    } else {
        return Ok(());
    };
    report.notes.push(Note { path: disk.path().join(name), offset: 0, what });
    Ok(())
}

/// The partitions that the journal is read for: as many as memory asks for, and as threads can work on. A guess by
/// how many bytes tables will need; a pass that turns out too large is divided.
fn partitions(inputs: &Inputs, needed_bytes: u64, threads: usize) -> Vec<Partition> {
    // A number of threads that is no power of two would need a second round for a few of them.
    let together = 1 << threads.max(1).ilog2();
    let wanted = if inputs.places().journal_end() < PARALLEL_BYTES_MIN { 1 } else { together };
    let mut list = vec![Partition::ALL];
    while (list.len() as u64) < wanted || needed_bytes / list.len() as u64 > inputs.memory_bytes_max(threads) as u64 {
        let Some(more) = halved(&list) else { break };
        list = more;
    }
    list
}

fn halved(list: &[Partition]) -> Option<Vec<Partition>> {
    let halves: Option<Vec<[Partition; 2]>> = list.iter().map(|partition| partition.halves()).collect();
    Some(halves?.into_iter().flatten().collect())
}

/// A shorter journal is read by one thread.
const PARALLEL_BYTES_MIN: u64 = 16 << 20;

/// What came of all passes.
enum Passes {
    Done(Sums),
    /// Of quick ones: not all is well, or it cannot be told so.
    Doubtful,
    /// One was too large, and passes are not divided.
    TooLarge,
}

/// Reads the journal, and says how far it is.
type RunPass<'a> = dyn Fn(Partition, bool, &mut dyn FnMut(u64, u64)) -> Result<Ran, StoreError> + Sync + 'a;

/// Reads the journal for every partition, several at a time. Passes share nothing; the first one checks what is the
/// same for all.
fn all_passes(
    inputs: &Inputs,
    mut left: Vec<Partition>,
    divides: bool,
    run: &RunPass<'_>,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<Passes, StoreError> {
    let threads = thread_count();
    let mut sums = Sums::default();
    let mut round = 0;
    while !left.is_empty() {
        let now = left.split_off(left.len().saturating_sub(threads));
        round += 1;
        let rounds = round + left.len().div_ceil(threads) as u64;
        // Once that pass is done; where it was too large, its half goes on in its place.
        let first = !sums.passes.iter().any(|pass| pass.first);
        let passes = std::thread::scope(|scope| {
            let others: Vec<_> =
                now[1..].iter().map(|&partition| scope.spawn(move || run(partition, false, &mut |_, _| ()))).collect();
            let mut told = |bytes, bytes_total| {
                progress(VerifyProgress { bytes, bytes_total, pass: round, pass_count: rounds });
            };
            let mut passes = vec![run(now[0], first, &mut told)];
            passes.extend(others.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked(inputs)))));
            passes
        });
        report.pass_count += now.len() as u64;
        for (partition, pass) in now.into_iter().zip(passes) {
            match pass? {
                Ran::Done(done) => sums.passes.push(*done),
                Ran::TooLarge if !divides => return Ok(Passes::TooLarge),
                Ran::TooLarge => left.extend(partition.halves().into_iter().flatten()),
                Ran::Doubtful => return Ok(Passes::Doubtful),
            }
        }
    }
    Ok(Passes::Done(sums))
}

fn thread_count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(THREADS_MAX)
}

/// More threads than this wait for memory.
const THREADS_MAX: usize = 16;

fn panicked(inputs: &Inputs) -> StoreError {
    let error = Arc::new(io::Error::other("a thread panicked"));
    StoreError::Io { doing: "verify the journal", path: inputs.disk.path().to_owned(), error }
}
