//! What can be wrong with a cache's settings. A cache that cannot be reached is no error: nothing depends on it.

use std::fmt;
use std::path::PathBuf;

/// Why stores could not be put behind a cache.
#[derive(Debug)]
pub enum CacheError {
    /// A setting has no meaning.
    Setting {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A file could not be read.
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The threads that speak to the cache could not be started.
    Thread {
        /// What the system said.
        error: std::io::Error,
    },
}

impl CacheError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Setting { .. } => "bad_setting",
            Self::File { .. } => "unreadable_file",
            Self::Thread { .. } => "no_thread",
        }
    }
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { field, what } => write!(f, "the cache's setting `{field}`: {what}"),
            Self::File { path, error } => write!(f, "{}, for the cache: {error}", path.display()),
            Self::Thread { error } => write!(f, "the cache's threads cannot be started: {error}"),
        }
    }
}

impl std::error::Error for CacheError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Setting { .. } => None,
            Self::File { error, .. } | Self::Thread { error } => Some(error),
        }
    }
}
