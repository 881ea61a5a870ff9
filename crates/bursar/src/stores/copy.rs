//! A whole ledger from one place to another. What a copy is, and what makes it sound, is said by
//! [`bursar_engine::copy`]; here is where it is read and written, and how often.

use super::Stores;
use crate::cli::Global;
use crate::config::{self, FILE_NAME};
use crate::exit::{Failure, FailureKind, note};
use crate::ingest::trial;
use crate::ledger_dir::{check_empty, embedded_options};
use crate::progress::{Progress, grouped};
use bursar_core::LedgerConfig;
use bursar_engine::copy::{Copied, CopyError, Target, compare, copy};
use bursar_engine::embedded::EmbeddedStore;
use bursar_engine::embedded::backup::{Known, backup};
use bursar_engine::store::{Chains, StoreError, Transactions};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// How many events travel together.
const BATCH_EVENTS: usize = 1024;
/// How often a source that goes on is followed before its user is asked to stop it.
const ROUNDS_MAX: u64 = 8;

/// Where a ledger is, or is to be.
#[derive(Debug)]
pub(crate) enum Place {
    /// A directory of its own.
    Directory(PathBuf),
    /// Other stores.
    Stores(Box<Stores>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Stores(stores) => stores.fmt(f),
        }
    }
}

impl Place {
    /// What a path stands for: a file names stores, and so may one that lies in a directory.
    pub(crate) fn find(path: &Path) -> Result<Self, Failure> {
        if path.is_file() {
            let stores = config::stores_of(path)?.ok_or_else(|| {
                let sentence = format!("{} has no `[store]` that names other stores", path.display());
                Failure::new(FailureKind::BadConfig, sentence).with_hint("Name the ledger's directory instead.")
            })?;
            return Ok(Self::Stores(Box::new(stores)));
        }
        Ok(match config::stores_of(&path.join(FILE_NAME))? {
            Some(stores) => Self::Stores(Box::new(stores)),
            None => Self::Directory(path.to_owned()),
        })
    }
}

/// What is copied from.
struct Source {
    config: LedgerConfig,
    chains: Arc<dyn Chains>,
    /// A copy of a directory that another process has, kept while it is read.
    _snapshot: Option<TempDir>,
}

/// What is copied to.
struct Destination {
    config: LedgerConfig,
    chains: Arc<dyn Chains>,
    transactions: Arc<dyn Transactions>,
}

/// What a copy came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// Which ledger.
    pub(crate) ledger: [u8; 16],
    /// What all rounds have done; customers and open events are those of the last one.
    pub(crate) copied: Copied,
    /// How often the source was gone through.
    pub(crate) rounds: u64,
    /// Source and target were found equal; otherwise the source goes on.
    pub(crate) is_equal: bool,
}

/// Copies what the target does not have, and compares both.
pub(crate) fn copy_ledger(global: &Global, from: &Place, to: &Place) -> Result<Report, Failure> {
    let source = open_source(global, from)?;
    let target = open_target(global, to, &source.config)?;
    if target.config != source.config {
        let sentence = format!("{to} has another ledger: its id, policy or currencies differ");
        return Err(Failure::new(FailureKind::CopyDiffers, sentence));
    }
    let report = copy_rounds(global, &source, &target)?;
    // So that opening it costs nothing.
    if let Some(embedded) = target.chains.embedded() {
        embedded.close()?;
    }
    Ok(report)
}

fn copy_rounds(global: &Global, source: &Source, target: &Destination) -> Result<Report, Failure> {
    let digest = source.config.digest();
    let stores = Target { chains: &*target.chains, transactions: &*target.transactions };
    let mut report = Report { ledger: source.config.ledger, copied: Copied::default(), rounds: 0, is_equal: false };
    let mut idle_rounds = 0;
    while report.rounds < ROUNDS_MAX {
        report.rounds += 1;
        let before = report.copied;
        let mut progress = Progress::counting(global.quiet);
        let copied = copy(&digest, &*source.chains, stores, BATCH_EVENTS, |copied| {
            progress.update_count(before.events + copied.events, "events");
        });
        progress.finish();
        let copied = copied?;
        report.copied =
            Copied { events: before.events + copied.events, closed: before.closed + copied.closed, ..copied };
        let difference = match compare(&*source.chains, &*target.chains) {
            Ok(_) => return Ok(Report { is_equal: true, ..report }),
            Err(error @ (CopyError::Diverged { .. } | CopyError::SumsDiffer)) => error,
            Err(error) => return Err(error.into()),
        };
        // The source may have gone on since. If it does not, and there is nothing to copy, they do differ.
        idle_rounds = if copied.events + copied.closed == 0 { idle_rounds + 1 } else { 0 };
        if idle_rounds > 1 {
            return Err(difference.into());
        }
    }
    Ok(report)
}

/// Opens a place to read, and changes nothing there.
fn open_source(global: &Global, place: &Place) -> Result<Source, Failure> {
    let path = match place {
        Place::Stores(stores) => {
            let opened = stores.open(embedded_options(global))?;
            return Ok(Source { config: opened.config, chains: opened.chains, _snapshot: None });
        }
        Place::Directory(path) => path,
    };
    if !EmbeddedStore::exists(path) {
        return Err(StoreError::NotFound { path: path.clone() }.into());
    }
    let (disk, snapshot) = match trial::lock(path) {
        Ok(disk) => (disk, None),
        Err(StoreError::InUse { .. }) => {
            let snapshot = snapshot(global, path)?;
            (trial::lock(snapshot.path())?, Some(snapshot))
        }
        Err(error) => return Err(error.into()),
    };
    let store = trial::open_store(&disk, embedded_options(global))?;
    Ok(Source { config: store.config().clone(), chains: Arc::new(store), _snapshot: snapshot })
}

/// A copy of a directory that another process has, as `bursar backup` makes it.
fn snapshot(global: &Global, directory: &Path) -> Result<TempDir, Failure> {
    let made = tempfile::tempdir().map_err(|error| Failure::write(&std::env::temp_dir(), &error))?;
    if !global.quiet {
        note(&format_args!(
            "note: another process has {}; it is copied as it stands, by way of a backup in {}",
            directory.display(),
            made.path().display()
        ));
    }
    let mut progress = Progress::new(Some(0), global.quiet);
    let report = backup(directory, made.path(), embedded_options(global), &mut |bytes, total| {
        progress.update_bytes(bytes, total);
    });
    progress.finish();
    if let Known::ByFrames { left_out: frames @ 1.. } = report?.known {
        let frames = grouped(frames);
        note(&format_args!("warning: the newest {frames} frames are not copied: nobody says whether they are durable"));
    }
    Ok(made)
}

/// Opens a place to write, and makes a ledger there if there is none.
fn open_target(global: &Global, place: &Place, config: &LedgerConfig) -> Result<Destination, Failure> {
    let path = match place {
        Place::Stores(stores) => {
            let opened = stores.open_or_create(config, embedded_options(global))?;
            let (chains, transactions) = (opened.chains, opened.transactions);
            return Ok(Destination { config: opened.config, chains, transactions });
        }
        Place::Directory(path) => path,
    };
    let options = embedded_options(global);
    let store = if EmbeddedStore::exists(path) {
        EmbeddedStore::open(path, options)?.0
    } else {
        check_empty(path)?;
        EmbeddedStore::create(path, config, options)?
    };
    let store = Arc::new(store);
    let config = store.config().clone();
    Ok(Destination { config, chains: store.clone(), transactions: store })
}
