//! Copying a ledger to another directory while it grows, and back.
//!
//! ```text
//!  source ── durable: up to where? ── copy: frame by frame, each checked ── manifest: up to here it is whole
//! ```
//!
//! A copy is the ledger file and the journal; what is derived is made anew by whoever opens it. The journal is only
//! appended to and its frames prove themselves, so that a reader needs no lock to copy it. What a reader cannot see is
//! whether the newest frames are durable: a page cache shows what a crash would take back. There are three ways to
//! know, and the module `durable` has them: nobody owns the directory (then it is opened, which leaves nothing uncertain), its
//! owner says so, or later frames do.
//!
//! Copying again onto the same directory goes on behind its manifest. Everything up to the manifest's point was
//! durable before the manifest was written and is not touched again, so that an interrupted copy leaves the one before
//! as it was.
//!
//! What this module does not do: follow chains ([`super::verify`] does), or copy anything else that lies in the
//! directory.

mod copy;
mod durable;
mod manifest;

use durable::by_frames;
pub use durable::{OWNER_SOCKET_NAME, owner_says};
pub use manifest::{MANIFEST_NAME, Manifest};

use super::disk::{Disk, LOCK_NAME, LockError, ReadOnlyDisk, RealDisk};
use super::journal::segment_start;
use super::ledger_file::{self, LEDGER_NAME, LedgerFile, read_whole, write_whole};
use super::open::lock_directory;
use super::store::{EmbeddedOptions, EmbeddedStore};
use crate::store::{Damage, StoreError};
use copy::{Ahead, Copied, copy_journal};
use durable::Durable;
use manifest::read_manifest;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Marks a directory that a ledger is being restored into.
const RESTORING_NAME: &str = "restoring.json";

/// Why a ledger could not be copied or restored.
#[derive(Clone, Debug)]
pub enum BackupError {
    /// A file could not be read or written, is damaged, or belongs to somebody else.
    Store(StoreError),
    /// The copy is of another ledger.
    OtherLedger {
        /// The copy.
        path: PathBuf,
    },
    /// The copy and the ledger have gone different ways.
    Diverged {
        /// The copy's file.
        path: PathBuf,
        /// The position of the journal from which on they differ.
        position: u64,
    },
    /// The directory holds other things.
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// One of them.
        name: String,
    },
    /// There is no whole copy of a ledger in the directory.
    NotABackup {
        /// The directory.
        path: PathBuf,
    },
}

impl BackupError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::OtherLedger { .. } => "other_ledger",
            Self::Diverged { .. } => "backup_diverged",
            Self::NotEmpty { .. } => "directory_not_empty",
            Self::NotABackup { .. } => "no_backup",
        }
    }
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::OtherLedger { path } => write!(f, "{} is of another ledger", path.display()),
            Self::Diverged { path, position } => {
                write!(f, "{} and the ledger differ from position {position} of the journal on", path.display())
            }
            Self::NotEmpty { path, name } => write!(f, "{} is not empty: it holds {name}", path.display()),
            Self::NotABackup { path } => write!(f, "{} holds no whole copy of a ledger", path.display()),
        }
    }
}

impl std::error::Error for BackupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::OtherLedger { .. } | Self::Diverged { .. } | Self::NotEmpty { .. } | Self::NotABackup { .. } => None,
        }
    }
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How it was known up to where the journal was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nobody owned the directory: it was opened for the copy.
    Unowned,
    /// Its owner said so.
    ByOwner,
    /// Later frames said so. So many frames behind them are not copied: whether they were durable, nobody said.
    ByFrames {
        /// How many.
        left_out: u64,
    },
}

impl Known {
    /// The name printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unowned => "unowned",
            Self::ByOwner => "owner",
            Self::ByFrames { .. } => "frames",
        }
    }
}

/// What was copied.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// How far the copy goes.
    pub manifest: Manifest,
    /// How that was known.
    pub known: Known,
    /// Frames that were copied this time.
    pub frames_copied: u64,
    /// Bytes of the journal that were copied this time.
    pub bytes_copied: u64,
    /// Files of the directory that belong to no ledger's truth and were left out: not what is derived.
    pub left_out: Vec<String>,
}

/// Told how many bytes of how many have been copied.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Copies the ledger in `from` to the directory `to`, which is made if it does not exist; if it holds an earlier copy,
/// only what is new. `options` are for a directory that nobody owns, which is opened for the copy.
///
/// Everything that was durable when this was called is in the copy, unless [`Known::ByFrames`] says what is not.
pub fn backup(
    from: &Path,
    to: &Path,
    options: EmbeddedOptions,
    progress: Progress<'_>,
) -> Result<BackupReport, BackupError> {
    if !EmbeddedStore::exists(from) {
        return Err(StoreError::NotFound { path: from.to_owned() }.into());
    }
    let opened = match lock_directory(from, false).and_then(|disk| {
        // Whatever it holds: a copy is of the journal.
        let file = ledger_file::read(&*disk)?;
        EmbeddedStore::open_file(disk, file, options)
    }) {
        Ok((store, _)) => Some(store),
        Err(StoreError::InUse { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let source = ReadOnlyDisk::new(from);
    let target = locked(to)?;
    let Durable { position, known } = match &opened {
        Some(store) => Durable { position: store.durable_position(), known: Known::Unowned },
        None => durable::of_a_running_ledger(&source, &ledger_file::read(&source)?.config)?,
    };
    Ok(BackupReport { known, ..backup_on(&source, &target, position, progress)? })
}

/// The time of the newest frame in a directory that anybody may own, in milliseconds since 1970; `None` where the
/// newest segment has none. Reads that segment.
pub fn newest_time_ms(directory: &Path) -> Result<Option<u64>, BackupError> {
    let source = ReadOnlyDisk::new(directory);
    Ok(by_frames(&source, &ledger_file::read(&source)?.config)?.newest_time_ms)
}

/// [`backup`] between any two media: up to a position of the journal that is known to be durable.
pub fn backup_on(
    source: &dyn Disk,
    target: &dyn Disk,
    position: u64,
    progress: Progress<'_>,
) -> Result<BackupReport, BackupError> {
    let file = ledger_file::read(source)?;
    let before = check_target(&file, target)?;
    let config = &file.config;
    let ahead = Ahead::of_target(source, target, config, before.as_ref())?;
    if !lists(target, LEDGER_NAME)? {
        put(target, LEDGER_NAME, &ledger_file::bytes_of(&file))?;
    }
    let Copied { point, time_ms, frames, bytes } = copy_journal(source, target, config, ahead, position, progress)?;
    let manifest = Manifest::new(config.ledger, point, time_ms);
    put(target, MANIFEST_NAME, &manifest.bytes())?;
    let left_out = names(source)?.into_iter().filter(|name| !is_of_the_ledger(name)).collect();
    Ok(BackupReport { manifest, known: Known::Unowned, frames_copied: frames, bytes_copied: bytes, left_out })
}

/// Puts a copy of a ledger into a directory that does not exist or is empty, up to its manifest's point. An attempt
/// that was interrupted is begun anew.
pub fn restore(from: &Path, to: &Path, progress: Progress<'_>) -> Result<Manifest, BackupError> {
    let source = ReadOnlyDisk::new(from);
    // Before a directory is made for it.
    read_whole_manifest(&source)?;
    restore_on(&source, &locked(to)?, progress)
}

/// [`restore`] between any two media.
pub fn restore_on(source: &dyn Disk, target: &dyn Disk, progress: Progress<'_>) -> Result<Manifest, BackupError> {
    let manifest = read_whole_manifest(source)?;
    let file = ledger_file::read(source)?;
    let config = &file.config;
    if config.ledger != manifest.ledger {
        return Err(BackupError::OtherLedger { path: source.path().join(LEDGER_NAME) });
    }
    clear_interrupted(target)?;
    put(target, RESTORING_NAME, &manifest.bytes())?;
    let ahead = Ahead::at_start(config);
    let Copied { point, .. } = copy_journal(source, target, config, ahead, manifest.point.position, progress)?;
    if point != manifest.point {
        let what = "the copied frames lead to another digest than this says".to_owned();
        return Err(StoreError::Damaged(Damage { path: source.path().join(MANIFEST_NAME), offset: 0, what }).into());
    }
    // From here on there is a ledger; without it, nobody takes the directory for one.
    put(target, LEDGER_NAME, &ledger_file::bytes_of(&file))?;
    remove(target, RESTORING_NAME)?;
    target.sync_directory().map_err(|error| io_error(target, "restore a ledger", "", error))?;
    Ok(manifest)
}

fn read_whole_manifest(source: &dyn Disk) -> Result<Manifest, BackupError> {
    read_manifest(source)?.ok_or_else(|| BackupError::NotABackup { path: source.path().to_owned() })
}

/// A directory to copy into, made if need be, for this process alone.
fn locked(directory: &Path) -> Result<RealDisk, BackupError> {
    let path = || directory.to_owned();
    RealDisk::open(directory, true).map_err(|error| match error {
        LockError::InUse => StoreError::InUse { path: path() }.into(),
        LockError::Io(error) => {
            StoreError::Io { doing: "open the directory", path: path(), error: Arc::new(error) }.into()
        }
    })
}

/// Whether `target` may be copied to: it is empty, or holds a copy of this ledger, whose manifest this gives.
fn check_target(file: &LedgerFile, target: &dyn Disk) -> Result<Option<Manifest>, BackupError> {
    let path = || target.path().join(LEDGER_NAME);
    if lists(target, LEDGER_NAME)? {
        if ledger_file::read(target)? != *file {
            return Err(BackupError::OtherLedger { path: path() });
        }
        let manifest = read_manifest(target)?;
        if manifest.as_ref().is_some_and(|manifest| manifest.ledger != file.config.ledger) {
            return Err(BackupError::OtherLedger { path: target.path().join(MANIFEST_NAME) });
        }
        return Ok(manifest);
    }
    // What a first attempt that was interrupted leaves before there is a ledger file.
    let unfinished = format!("{LEDGER_NAME}.tmp");
    match entries(target)?.into_iter().find(|name| *name != unfinished) {
        Some(name) => Err(BackupError::NotEmpty { path: target.path().to_owned(), name }),
        None => Ok(None),
    }
}

/// Empties a directory that a ledger was being restored into; refuses one with anything else in it.
fn clear_interrupted(target: &dyn Disk) -> Result<(), BackupError> {
    let found = entries(target)?;
    let not_empty = |name: &str| BackupError::NotEmpty { path: target.path().to_owned(), name: name.to_owned() };
    let was_begun = found.iter().any(|name| name == RESTORING_NAME);
    let is_own = |name: &str| {
        let own = [RESTORING_NAME, LEDGER_NAME].iter().any(|own| name.strip_prefix(own) == Some(".tmp"));
        own || (was_begun && (name == RESTORING_NAME || segment_start(name).is_some()))
    };
    if let Some(name) = found.iter().find(|name| !is_own(name)) {
        return Err(not_empty(name));
    }
    for name in &found {
        remove(target, name)?;
    }
    Ok(())
}

/// Everything in the directory but its lock: also what is no file.
fn entries(disk: &dyn Disk) -> Result<Vec<String>, BackupError> {
    let mut found = names(disk)?;
    if let Ok(entries) = std::fs::read_dir(disk.path()) {
        let others = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        found.extend(others.filter(|name| name != LOCK_NAME));
        found.sort_unstable();
        found.dedup();
    }
    Ok(found)
}

/// Whether a file is of the ledger itself, or can be made anew from it.
fn is_of_the_ledger(name: &str) -> bool {
    name == LEDGER_NAME
        || name == super::checkpoint::CHECKPOINT_NAME
        || segment_start(name).is_some()
        || super::is_index_file(name)
        || name == MANIFEST_NAME
        || Path::new(name).extension().is_some_and(|extension| extension == "tmp")
}

fn names(disk: &dyn Disk) -> Result<Vec<String>, BackupError> {
    Ok(disk.list().map_err(|error| io_error(disk, "list the directory", "", error))?)
}

fn lists(disk: &dyn Disk, name: &str) -> Result<bool, BackupError> {
    Ok(names(disk)?.iter().any(|found| found == name))
}

fn put(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<(), BackupError> {
    Ok(write_whole(disk, name, bytes).map_err(|error| io_error(disk, "write a small file", name, error))?)
}

fn remove(disk: &dyn Disk, name: &str) -> Result<(), BackupError> {
    Ok(disk.remove(name).map_err(|error| io_error(disk, "remove a file", name, error))?)
}

fn read(disk: &dyn Disk, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    match read_whole(disk, name) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(disk, "read a small file", name, error)),
    }
}

fn io_error(disk: &dyn Disk, doing: &'static str, name: &str, error: io::Error) -> StoreError {
    StoreError::Io { doing, path: disk.path().join(name), error: Arc::new(error) }
}
