//! The list of keys on the disk: one small JSON file in the ledger's directory, readable by its owner only.
//!
//! It is replaced as a whole, under a lock of the directory, so that two commands at once lose nothing and a running
//! service reads one state or the other. The ledger itself need not be open: keys can be made and revoked while the
//! service runs.

use super::{KeyEntry, KeySet};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The file's name in the ledger's directory.
pub const FILE_NAME: &str = "keys.json";
const TEMPORARY_NAME: &str = "keys.json.tmp";
const FORMAT: &str = "bursar-keys";
const VERSION: u32 = 1;
/// No list is longer, in bytes.
const BYTES_MAX: u64 = 16 << 20;
const MODE: u32 = 0o600;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: String,
    version: u32,
    keys: Vec<KeyEntry>,
}

/// Why the list of keys could not be read or written.
#[derive(Debug)]
pub enum KeyFileError {
    /// The operating system said no.
    Io {
        /// What was being done.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others than its owner may read or write it.
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is not what was written.
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl KeyFileError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "cannot_write",
            Self::Open { .. } => "keys_open",
            Self::Damaged { .. } => "keys_damaged",
        }
    }
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, path, error } => write!(f, "could not {doing} ({}): {error}", path.display()),
            Self::Open { path, mode } => {
                write!(f, "{} can be read or written by others (mode {mode:03o})", path.display())
            }
            Self::Damaged { path, what } => write!(f, "{} is damaged: {what}", path.display()),
        }
    }
}

impl std::error::Error for KeyFileError {}

/// What tells one state of the file from another, without reading it.
pub(super) type Stamp = Option<(u64, u64, SystemTime)>;

/// The list of keys of one ledger.
#[derive(Clone, Debug)]
pub struct KeyFile {
    directory: PathBuf,
}

impl KeyFile {
    /// The list in a ledger's directory, whether it is there or not.
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE_NAME)
    }

    /// Reads it; `None` if there is none.
    pub fn read(&self) -> Result<Option<KeySet>, KeyFileError> {
        let path = self.path();
        let io_error = |error| KeyFileError::Io { doing: "read the keys", path: path.clone(), error };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io_error)?,
        };
        let mode = file.metadata().map_err(io_error)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Open { path, mode });
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(&file, BYTES_MAX), &mut bytes).map_err(io_error)?;
        let damaged = |what: String| KeyFileError::Damaged { path: path.clone(), what };
        let content: Content = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if content.format != FORMAT || content.version != VERSION {
            return Err(damaged(format!("it is {} {}, not {FORMAT} {VERSION}", content.format, content.version)));
        }
        let keys = KeySet::new(content.keys);
        keys.map(Some).ok_or_else(|| damaged("an id is there twice, or a field is not what it should be".to_owned()))
    }

    /// Changes it, or makes it. What is written is durable when this returns.
    pub fn change<T>(&self, change: impl FnOnce(&mut KeySet) -> T) -> Result<T, KeyFileError> {
        let io_error = |error: io::Error| KeyFileError::Io { doing: "write the keys", path: self.path(), error };
        let directory = File::open(&self.directory).map_err(io_error)?;
        flock(&directory, FlockOperation::LockExclusive).map_err(|error| io_error(error.into()))?;
        let mut keys = self.read()?.unwrap_or_default();
        let result = change(&mut keys);
        let content = Content { format: FORMAT.to_owned(), version: VERSION, keys: keys.0 };
        let mut bytes = serde_json::to_vec_pretty(&content).map_err(|error| io_error(error.into()))?;
        bytes.push(b'\n');
        let temporary = self.directory.join(TEMPORARY_NAME);
        // What an interrupted change left behind may have other permissions.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(MODE).open(&temporary).map_err(io_error)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io_error)?;
        std::fs::rename(&temporary, self.path()).and_then(|()| directory.sync_all()).map_err(io_error)?;
        Ok(result)
    }

    /// What tells this state of the file from another.
    pub(super) fn stamp(&self) -> Stamp {
        let metadata = std::fs::metadata(self.path()).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Key, Role};
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn entry() -> KeyEntry {
        Key::generate().unwrap().entry("somebody", Role::Submit, "2026-01-31T12:00:00Z".into())
    }

    #[test]
    fn keys_are_kept_for_their_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::of(directory.path());
        assert_eq!(file.read().unwrap(), None);
        let (first, second) = (entry(), entry());
        file.change(|keys| keys.add(first.clone())).unwrap();
        let stamp = file.stamp();
        file.change(|keys| keys.add(second.clone())).unwrap();
        assert_ne!(file.stamp(), stamp);
        assert_eq!(file.read().unwrap().unwrap().entries(), [first, second.clone()]);
        let path = directory.path().join(FILE_NAME);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(!std::fs::read_to_string(&path).unwrap().contains("bursar_"), "no key is kept, only its hash");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(file.read().unwrap_err().code(), "keys_open");
        assert_eq!(file.change(|keys| keys.revoke(&second.id)).unwrap_err().code(), "keys_open");
    }

    #[test]
    fn what_is_no_list_of_keys_lets_nobody_in() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::of(directory.path());
        file.change(|keys| keys.add(entry())).unwrap();
        let path = directory.path().join(FILE_NAME);
        let good = std::fs::read_to_string(&path).unwrap();
        for bad in [
            "",
            "{}",
            &good[1..],
            &good.replace("\"version\": 1", "\"version\": 2"),
            &good.replace("\"name\"", "\"nam\""),
        ] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(file.read().unwrap_err().code(), "keys_damaged", "{bad}");
        }
    }

    #[test]
    fn two_changes_at_once_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = KeyFile::of(directory.path());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10).for_each(|_| file.change(|keys| keys.add(entry())).unwrap()));
            }
        });
        assert_eq!(file.read().unwrap().unwrap().entries().len(), 80);
    }
}
