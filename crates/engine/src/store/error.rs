//! What can go wrong in a store. The same enum for every store, so that the driver need not know which it has.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a store could not do what was asked.
#[derive(Clone, Debug)]
pub enum StoreError {
    /// A call to the operating system failed.
    Io {
        /// What was being done, as in "write the journal".
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// A database could not do what was asked.
    Database {
        /// What was being done, as in "append to the chains".
        doing: &'static str,
        /// Which database, without secrets.
        place: String,
        /// What went wrong, for people.
        what: String,
    },
    /// Stored data is not what was stored.
    Damaged(Damage),
    /// Another process has the directory.
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// There is no ledger here.
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is a ledger here already.
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// The ledger was written by a version that this one does not know.
    Version {
        /// Which file says so.
        path: PathBuf,
        /// The version it has.
        found: u32,
        /// The version known here.
        known: u32,
    },
    /// The directory holds the chains alone, and was to be opened as a whole ledger; or the other way round.
    OtherStores {
        /// Which directory.
        path: PathBuf,
        /// Whether it holds the chains alone.
        chains_alone: bool,
    },
    /// A batch has more bytes than a store takes at once.
    BatchTooLarge {
        /// How many it has.
        bytes: u64,
        /// How many the store takes.
        bytes_max: u64,
    },
    /// An earlier error has poisoned the store: nothing is acknowledged any more until it is opened again.
    Poisoned {
        /// That error.
        cause: Arc<StoreError>,
    },
}

/// Damage to stored data: where, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which file.
    pub path: PathBuf,
    /// Where in the file, in bytes from its beginning.
    pub offset: u64,
    /// What is wrong there, for people.
    pub what: String,
}

impl Damage {
    /// Whether it is in a file that is made anew from the journal when it is missing.
    pub fn is_derived(&self) -> bool {
        self.path.file_name().and_then(|name| name.to_str()).is_some_and(crate::embedded::is_index_file)
    }
}

impl StoreError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { error, .. } if error.kind() == io::ErrorKind::StorageFull => "disk_full",
            Self::Io { .. } => "io_error",
            Self::Database { .. } => "database_error",
            Self::Damaged(_) => "damaged",
            Self::InUse { .. } => "in_use",
            Self::NotFound { .. } => "no_ledger",
            Self::Exists { .. } => "ledger_exists",
            Self::Version { .. } => "unknown_version",
            Self::OtherStores { .. } => "other_stores",
            Self::BatchTooLarge { .. } => "batch_too_large",
            Self::Poisoned { .. } => "poisoned",
        }
    }

    /// What somebody can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { error, .. } if error.kind() == io::ErrorKind::StorageFull => {
                "make room on the disk and start again; everything acknowledged is safe"
            }
            Self::Io { .. } => "check the disk and the permissions, and start again; everything acknowledged is safe",
            Self::Database { .. } => {
                "check that the database runs and what its log says, and start again; everything acknowledged is safe"
            }
            Self::Damaged(damage) if damage.is_derived() => {
                "no event is concerned: this file is derived; delete it, and the next start makes it anew"
            }
            Self::Damaged(_) => {
                "nothing was changed; run `bursar verify` to see what is concerned, and restore from a backup"
            }
            Self::InUse { .. } => "a ledger belongs to one process at a time: stop the other one, or wait for it",
            Self::NotFound { .. } => "check the directory, or create a ledger there with `bursar init`",
            Self::Exists { .. } => "choose another directory; a ledger's policy and currencies never change",
            Self::Version { .. } => "use the version of bursar that wrote it, or a newer one",
            Self::OtherStores { .. } => "open it together with the transactions table that it was created for",
            Self::BatchTooLarge { .. } => "use smaller batches",
            Self::Poisoned { .. } => "start again: everything acknowledged is safe, nothing else is certain",
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged at byte {}: {}", self.path.display(), self.offset, self.what)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, path, error } => write!(f, "could not {doing} ({}): {error}", path.display()),
            Self::Database { doing, place, what } => write!(f, "could not {doing} ({place}): {what}"),
            Self::Damaged(damage) => damage.fmt(f),
            Self::InUse { path } => write!(f, "the ledger in {} is in use by another process", path.display()),
            Self::NotFound { path } => write!(f, "there is no ledger in {}", path.display()),
            Self::Exists { path } => write!(f, "there is a ledger in {} already", path.display()),
            Self::Version { path, found, known } => {
                write!(f, "{} has format version {found}; this program knows version {known}", path.display())
            }
            Self::OtherStores { path, chains_alone: true } => {
                write!(f, "{} holds the chains of a ledger alone: its transactions table is elsewhere", path.display())
            }
            Self::OtherStores { path, chains_alone: false } => {
                write!(f, "{} holds a whole ledger, with a transactions table of its own", path.display())
            }
            Self::BatchTooLarge { bytes, bytes_max } => {
                write!(f, "a batch has {bytes} bytes, and the store takes {bytes_max} at once")
            }
            Self::Poisoned { cause } => write!(f, "the store stopped after an earlier error: {cause}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error.as_ref()),
            Self::Poisoned { cause } => Some(cause.as_ref()),
            Self::Database { .. }
            | Self::Damaged(_)
            | Self::InUse { .. }
            | Self::NotFound { .. }
            | Self::Exists { .. }
            | Self::OtherStores { .. }
            | Self::BatchTooLarge { .. }
            | Self::Version { .. } => None,
        }
    }
}
