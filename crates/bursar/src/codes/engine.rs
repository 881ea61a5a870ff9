//! The codes of what goes wrong below the rules: headers of files, stores, the engine.

use super::CodeInfo;
use crate::exit::FailureKind;
use bursar_core::commit::Broken;
use bursar_engine::embedded::backup::BackupError;
use bursar_engine::store::StoreError;
use bursar_engine::{EngineError, SubmitError};
#[cfg(feature = "postgres")]
use bursar_postgres::OpenError;
use std::io;

/// The codes of [`bursar_engine::csv::HeaderError`].
pub(super) const HEADERS: [CodeInfo; 4] = [
    CodeInfo::header(
        "header_empty",
        "The file is empty: it has no header.",
        "The first row names the columns: type,client,tx,amount (in any order) and optionally currency.",
    ),
    CodeInfo::header(
        "header_column_missing",
        "The header lacks a column.",
        "The first row names the columns: type,client,tx,amount (in any order) and optionally currency.",
    ),
    CodeInfo::header("header_column_twice", "The header has a column twice.", "Rename or remove one of the two."),
    CodeInfo::header(
        "header_unreadable",
        "The header cannot be read as CSV.",
        "It is read like every other row: UTF-8, quotes in pairs.",
    ),
];

/// The codes of [`StoreError`].
pub(super) const STORES: [CodeInfo; 11] = [
    CodeInfo::store(
        "disk_full",
        "The disk is full.",
        "Make room on the disk and start again; everything acknowledged is safe.",
    ),
    CodeInfo::store(
        "io_error",
        "A file of the ledger could not be read or written.",
        "Check the disk and your rights, and start again; everything acknowledged is safe.",
    ),
    CodeInfo::store(
        "damaged",
        "Stored data is not what was stored.",
        "Nothing was changed. `bursar verify` says what is concerned; restore it from a backup.",
    ),
    CodeInfo::store(
        "in_use",
        "Another process has the ledger.",
        "A ledger belongs to one process at a time: wait for the other one, or stop it; a service is asked with `--server URL`.",
    ),
    CodeInfo::store(
        "no_ledger",
        "There is no ledger there.",
        "`--data DIR` and `[store]` of `bursar.toml` say where the ledger is; `bursar init` creates one.",
    ),
    CodeInfo::store(
        "ledger_exists",
        "There is a ledger there already.",
        "Choose another place; a ledger's policy and currencies never change.",
    ),
    CodeInfo::store(
        "unknown_version",
        "The ledger's format has a version that this program does not know.",
        "Use the version of bursar that wrote it, or a newer one.",
    ),
    CodeInfo::store(
        "batch_too_large",
        "A batch has more bytes than the store takes at once.",
        "Hand in fewer requests at once.",
    ),
    CodeInfo::store(
        "poisoned",
        "An earlier error stopped the store.",
        "Start again: everything acknowledged is safe, nothing else is certain.",
    ),
    CodeInfo::store(
        "database_error",
        "The database that holds the ledger could not do what was asked.",
        "Check that it runs and what its log says, and start again; everything acknowledged is safe.",
    ),
    CodeInfo::store(
        "other_stores",
        "The directory holds the chains alone, and not the transactions table, or the other way round.",
        "Open it together with the transactions table that it was created for.",
    ),
];

/// The codes of [`BackupError`] that are its own.
pub(super) const BACKUPS: [CodeInfo; 3] = [
    CodeInfo::store(
        "other_ledger",
        "What is there belongs to another ledger.",
        "Give each ledger, and the copies of each, a place of its own.",
    ),
    CodeInfo::store(
        "backup_diverged",
        "The copy and the ledger have gone different ways.",
        "One of them was written to on its own, or the ledger was restored from an older copy. Keep this copy until \
         that is understood, and begin a new one in another directory.",
    ),
    CodeInfo::store(
        "no_backup",
        "There is no whole copy of a ledger in the directory.",
        "`bursar backup --to DIR` makes one; one that was interrupted is completed by running it again.",
    ),
];

/// What is known about why a ledger could not be copied or restored.
pub(crate) fn backup_info(error: &BackupError) -> CodeInfo {
    match error {
        BackupError::Store(error) => *store_info(error),
        BackupError::OtherLedger { .. } => BACKUPS[0],
        BackupError::Diverged { .. } => BACKUPS[1],
        BackupError::NotABackup { .. } => BACKUPS[2],
        BackupError::NotEmpty { .. } => FailureKind::DirectoryNotEmpty.info(),
    }
}

/// What is known about an error of a store.
pub(crate) fn store_info(error: &StoreError) -> &'static CodeInfo {
    match error {
        StoreError::Io { error, .. } if error.kind() == io::ErrorKind::StorageFull => &STORES[0],
        StoreError::Io { .. } => &STORES[1],
        StoreError::Damaged(_) => &STORES[2],
        StoreError::InUse { .. } => &STORES[3],
        StoreError::NotFound { .. } => &STORES[4],
        StoreError::Exists { .. } => &STORES[5],
        StoreError::Version { .. } => &STORES[6],
        StoreError::BatchTooLarge { .. } => &STORES[7],
        StoreError::Poisoned { .. } => &STORES[8],
        StoreError::Database { .. } => &STORES[9],
        StoreError::OtherStores { .. } => &STORES[10],
    }
}

/// What is known about why a ledger in PostgreSQL could not be opened.
#[cfg(feature = "postgres")]
pub(crate) fn open_info(error: &OpenError) -> CodeInfo {
    match error {
        OpenError::Store(error) => *store_info(error),
        OpenError::Config { .. } => FailureKind::BadConfig.info(),
        OpenError::File { .. } => FailureKind::CannotRead.info(),
        OpenError::NoLedger { .. } => STORES[4],
        OpenError::Exists { .. } => STORES[5],
        OpenError::NewerSchema { .. } => STORES[6],
        OpenError::Server { .. } => STORES[9],
        OpenError::OtherLedger { .. } => BACKUPS[0],
        OpenError::OlderSchema { .. } => FailureKind::MigrationNeeded.info(),
        OpenError::UnsafeSettings { .. } => FailureKind::UnsafeSettings.info(),
    }
}

/// Why the engine stopped.
pub(super) const ENGINES: [CodeInfo; 4] = [
    CodeInfo::engine(
        "invariant_broken",
        "Money would have become wrong, and the engine stopped before that.",
        "Run `bursar verify`, and report this with the chain of the customer named.",
    ),
    CodeInfo::engine(
        "open_events",
        "Rows cannot be taken in while events wait for a rail, nor go through one.",
        "`bursar pending` lists what waits. Rows of a kind that goes through a rail are for a service: `--server URL`.",
    ),
    CodeInfo::engine(
        "panicked",
        "A part of the engine panicked.",
        "This is a fault in the program: report it. Everything acknowledged is safe.",
    ),
    CodeInfo::engine(
        "event_missing",
        "The transactions table has approved an event that its chain does not have. The engine stopped.",
        "The two stores are not of the same moment. Let nothing write to them. Restore both to one moment, or make a new \
         pair from the newest chains there are: `bursar copy`.",
    ),
];

/// What is known about why the engine stopped.
pub(crate) fn engine_info(error: &EngineError) -> &'static CodeInfo {
    match error {
        EngineError::Store(error) => store_info(error),
        EngineError::Broken(Broken::EventMissing { .. }) => &ENGINES[3],
        EngineError::Broken(Broken::Account { .. } | Broken::Store { .. }) => &ENGINES[0],
        EngineError::OpenEvents => &ENGINES[1],
        EngineError::Panicked => &ENGINES[2],
    }
}

/// The codes of [`SubmitError`].
pub(super) const SUBMITS: [CodeInfo; 5] = [
    CodeInfo::engine("busy", "Too much is under way. Nothing was decided.", "Try again later."),
    CodeInfo::engine(
        "customer_busy",
        "The customer's event waits for its rail, and so do too many requests. Nothing was decided.",
        "Try again when the rail has answered; `bursar pending` lists the open events.",
    ),
    CodeInfo::engine("too_many", "More requests at once than the queue could ever hold.", "Hand in fewer at once."),
    CodeInfo::engine("closed", "The ledger was closed before the request was decided.", "Open it again."),
    CodeInfo::engine(
        "stopped",
        "The engine stopped. Whether the request took effect shows when the ledger is opened again.",
        "The error that stopped it says what to do.",
    ),
];

/// What is known about why a request was not decided.
pub(crate) fn submit_info(error: &SubmitError) -> &'static CodeInfo {
    match error {
        SubmitError::Busy => &SUBMITS[0],
        SubmitError::CustomerBusy(_) => &SUBMITS[1],
        SubmitError::TooMany { .. } => &SUBMITS[2],
        SubmitError::OpenEvents => &ENGINES[1],
        SubmitError::Closed => &SUBMITS[3],
        SubmitError::Stopped(_) => &SUBMITS[4],
    }
}
