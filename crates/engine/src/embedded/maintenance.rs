//! Writing index files and checkpoints, beside the running engine or within it.
//!
//! A memtable at its limit is frozen ([`Maintenance::freeze`]). Once the journal is durable up to where it
//! ends, it is written to two index files, a checkpoint makes them valid, and only then is it dropped from
//! memory. Index files that have become many are merged; a checkpoint makes the merged one valid before the old
//! ones are removed. A crash anywhere in between leaves files that no checkpoint names; opening removes them.

use super::checkpoint::{CHECKPOINT_NAME, Checkpoint, RunKind, RunName};
use super::index::{Frozen, Runs};
use super::ledger_file::{Holds, write_whole};
use super::run::{self, CustomerRun, IdRange, RunInfo, RunSize, TransactionRun, fingerprint, key_fingerprint};
use super::store::Shared;
use crate::store::StoreError;
use bursar_core::planted::{Planted, is_planted};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Index files smaller than this count as being of the same size when it is chosen what to merge.
const SMALLEST_RUN_BYTES: u64 = 4 << 20;

/// How many index files of about one size are merged. A customer's entry replaces those before, so that files of
/// customers shrink when they are merged: they are, as soon as there are two.
const fn merge_factor(kind: RunKind) -> u64 {
    match kind {
        RunKind::Transactions => 4,
        RunKind::Customers => 2,
    }
}

/// The one job that may be under way.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    job: Mutex<Option<Job>>,
}

impl Maintenance {
    /// Freezes the memtable, after the one frozen before has become index files.
    pub(super) fn freeze(&self, shared: &Arc<Shared>) -> Result<(), StoreError> {
        self.finish(shared)?;
        let mut state = shared.lock();
        // Somebody else may have frozen meanwhile; what is frozen must become index files first.
        if state.index.frozen.is_none() && state.index.has_news() {
            let checkpoint = state.checkpoint(&shared.config, shared.journal.point());
            state.index.freeze(checkpoint);
        }
        Ok(())
    }

    /// Begins to write the frozen memtable, if there is one and the journal is durable up to its end. Whoever
    /// waits for the job under way sees to the next one, too.
    pub(super) fn start_if_durable(&self, shared: &Arc<Shared>) -> Result<(), StoreError> {
        match self.job.try_lock() {
            Ok(mut job) => start(&mut job, shared),
            Err(TryLockError::Poisoned(job)) => start(&mut job.into_inner(), shared),
            Err(TryLockError::WouldBlock) => Ok(()),
        }
    }

    /// Waits until what is frozen has become index files.
    pub(super) fn finish(&self, shared: &Arc<Shared>) -> Result<(), StoreError> {
        // Held to the end: nobody may find the memtable still frozen, and no job that writes it.
        let mut job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        join(&mut job, shared)?;
        if shared.lock().index.frozen.is_some() {
            if !is_planted(Planted::CheckpointTooEarly) {
                shared.journal.sync()?;
            }
            start(&mut job, shared)?;
            join(&mut job, shared)?;
        }
        Ok(())
    }

    /// Waits for the job under way.
    pub(super) fn join(&self, shared: &Shared) -> Result<(), StoreError> {
        join(&mut self.job.lock().unwrap_or_else(PoisonError::into_inner), shared)
    }
}

/// What was done so far.
#[derive(Debug, Default)]
pub(super) struct Maintained {
    writes: AtomicU64,
    merges: AtomicU64,
    ms: AtomicU64,
}

impl Maintained {
    /// Memory written, files merged, and the milliseconds that both took.
    pub(super) fn counts(&self) -> [u64; 3] {
        [&self.writes, &self.merges, &self.ms].map(|count| count.load(Ordering::Relaxed))
    }
}

type Job = JoinHandle<Result<(), StoreError>>;

/// Begins to write what is frozen. The caller holds the job, so that nothing is written twice.
fn start(job: &mut Option<Job>, shared: &Arc<Shared>) -> Result<(), StoreError> {
    if job.is_some() {
        return Ok(());
    }
    let Some(frozen) = shared.lock().index.frozen.clone() else { return Ok(()) };
    let is_durable = shared.journal.synced_position() >= frozen.checkpoint.point.position;
    if !is_durable && !is_planted(Planted::CheckpointTooEarly) {
        return Ok(());
    }
    if !shared.options.background {
        return write_index(shared, &frozen);
    }
    let of_thread = shared.clone();
    let builder = std::thread::Builder::new().name("bursar-index".to_owned());
    let spawned = builder.spawn(move || {
        let written = write_index(&of_thread, &frozen);
        if let Some(frozen) = Arc::into_inner(frozen) {
            let empty = frozen.memtable.emptied();
            of_thread.lock().index.keep_room_of(empty);
        }
        of_thread.poisoned_by(written)
    });
    let path = shared.disk.path().to_owned();
    let spawned = spawned.map_err(|error| StoreError::Io { doing: "start a thread", path, error: Arc::new(error) });
    *job = Some(spawned?);
    Ok(())
}

fn join(job: &mut Option<Job>, shared: &Shared) -> Result<(), StoreError> {
    let Some(job) = job.take() else { return Ok(()) };
    job.join().unwrap_or_else(|_| {
        let error = Arc::new(io::Error::other("the thread panicked"));
        Err(StoreError::Io { doing: "write index files", path: shared.disk.path().to_owned(), error })
    })
}

/// Writes a frozen memtable to index files, makes them valid, and merges where there are too many.
pub(super) fn write_index(shared: &Shared, frozen: &Frozen) -> Result<(), StoreError> {
    let begun = Instant::now();
    let written = write_and_merge(shared, frozen);
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    shared.maintained.writes.fetch_add(1, Ordering::Relaxed);
    shared.maintained.ms.fetch_add(ms, Ordering::Relaxed);
    written
}

fn write_and_merge(shared: &Shared, frozen: &Frozen) -> Result<(), StoreError> {
    let mut checkpoint = frozen.checkpoint.clone();
    let from = checkpoint.runs.iter().map(|run| run.to).max().unwrap_or(0);
    let to = checkpoint.point.position;
    let ledger = shared.config.ledger;
    let info = |kind| (RunName { kind, from, to }, RunInfo { ledger, from, to });

    if shared.holds == Holds::Everything {
        let (name, run_info) = info(RunKind::Transactions);
        write_transactions(shared, frozen, name, run_info)?;
        checkpoint.runs.push(name);
    }

    let (name, run_info) = info(RunKind::Customers);
    write_customers(shared, frozen, name, run_info)?;
    checkpoint.runs.push(name);

    let runs = open_runs(shared, &checkpoint)?;
    write_checkpoint(shared, &checkpoint)?;
    {
        let mut state = shared.lock();
        state.index.runs = runs;
        state.index.frozen = None;
        state.runs.clone_from(&checkpoint.runs);
    }
    merge_runs(shared, &mut checkpoint)
}

fn write_transactions(shared: &Shared, frozen: &Frozen, name: RunName, info: RunInfo) -> Result<(), StoreError> {
    let ledger = shared.config.ledger;
    let transactions = &frozen.memtable.transactions;
    let mut range = IdRange::EMPTY;
    let keys = &frozen.memtable.keys;
    let mut entries: Vec<(u64, u64)> = Vec::with_capacity(transactions.len() + keys.len());
    for (transaction, found) in transactions.iter() {
        range = range.with(transaction.bits());
        entries.push((fingerprint(&ledger, transaction.bits()), found.position));
    }
    entries.extend(keys.iter().map(|(key, found)| (key_fingerprint(&ledger, *key), found.position)));
    run::write_transactions(&*shared.disk, &name.file_name(), info, range, entries)
}

fn write_customers(shared: &Shared, frozen: &Frozen, name: RunName, info: RunInfo) -> Result<(), StoreError> {
    let heads = &frozen.heads;
    run::write_customers(&*shared.disk, &name.file_name(), info, heads.len(), heads.in_order())
}

/// Merges index files as long as the policy asks for it.
fn merge_runs(shared: &Shared, checkpoint: &mut Checkpoint) -> Result<(), StoreError> {
    for kind in RunKind::ALL {
        loop {
            let names: Vec<RunName> = checkpoint.runs.iter().copied().filter(|run| run.kind == kind).collect();
            let open = shared.lock().index.runs.clone();
            let sizes: Vec<u64> = match kind {
                RunKind::Transactions => open.transactions.iter().rev().map(|run| run.file_bytes()).collect(),
                RunKind::Customers => open.customers.iter().rev().map(|run| run.file_bytes()).collect(),
            };
            let sized = names.iter().zip(sizes).map(|(run, size)| RunSize { from: run.from, to: run.to, size });
            let Some(range) = run::next_merge(&sized.collect::<Vec<_>>(), SMALLEST_RUN_BYTES, merge_factor(kind))
            else {
                break;
            };
            let merged = &names[range.clone()];
            let name = RunName { kind, from: merged[0].from, to: merged[merged.len() - 1].to };
            let newest_first = names.len() - range.end..names.len() - range.start;
            match kind {
                RunKind::Transactions => {
                    let inputs = &open.transactions[newest_first];
                    let inputs: Vec<&TransactionRun> = inputs.iter().rev().map(AsRef::as_ref).collect();
                    run::merge_transactions(&*shared.disk, &name.file_name(), &inputs)?;
                }
                RunKind::Customers => {
                    let inputs = &open.customers[newest_first];
                    let inputs: Vec<&CustomerRun> = inputs.iter().rev().map(AsRef::as_ref).collect();
                    run::merge_customers(&*shared.disk, &name.file_name(), &inputs)?;
                }
            }
            shared.maintained.merges.fetch_add(1, Ordering::Relaxed);
            let old: Vec<RunName> = merged.to_vec();
            checkpoint.runs.retain(|run| !old.contains(run));
            checkpoint.runs.push(name);
            checkpoint.runs.sort_by_key(|run| run.from);
            let runs = open_runs(shared, checkpoint)?;
            write_checkpoint(shared, checkpoint)?;
            {
                let mut state = shared.lock();
                state.index.runs = runs;
                state.runs.clone_from(&checkpoint.runs);
            }
            for run in old {
                let name = run.file_name();
                shared
                    .disk
                    .remove(&name)
                    .map_err(|error| io_error(shared, "remove an old index file", &name, error))?;
            }
        }
    }
    Ok(())
}

/// Opens the index files of a checkpoint, taking those that are open already.
fn open_runs(shared: &Shared, checkpoint: &Checkpoint) -> Result<Runs, StoreError> {
    open_named_runs(&*shared.disk, &shared.config.ledger, &checkpoint.runs)
}

/// Opens index files, newest first.
pub(super) fn open_named_runs(
    disk: &dyn super::disk::Disk,
    ledger: &[u8; 16],
    names: &[RunName],
) -> Result<Runs, StoreError> {
    let mut runs = Runs::default();
    for name in names.iter().rev() {
        match name.kind {
            RunKind::Transactions => {
                runs.transactions.push(Arc::new(TransactionRun::open(disk, &name.file_name(), ledger)?));
            }
            RunKind::Customers => {
                runs.customers.push(Arc::new(CustomerRun::open(disk, &name.file_name(), ledger)?));
            }
        }
    }
    Ok(runs)
}

fn write_checkpoint(shared: &Shared, checkpoint: &Checkpoint) -> Result<(), StoreError> {
    let written = write_whole(&*shared.disk, CHECKPOINT_NAME, &checkpoint.bytes());
    written.map_err(|error| io_error(shared, "write the checkpoint", CHECKPOINT_NAME, error))
}

fn io_error(shared: &Shared, doing: &'static str, name: &str, error: io::Error) -> StoreError {
    StoreError::Io { doing, path: shared.disk.path().join(name), error: Arc::new(error) }
}
