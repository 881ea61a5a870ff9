//! Why a measurement could not be taken.

use bursar_engine::ingest::IngestError;
use bursar_engine::store::StoreError;
use bursar_engine::{EngineError, ReadError, SubmitError};
use std::fmt;
use std::io;

/// What went wrong.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A file or the disk.
    Io(io::Error),
    /// The engine, while it was measured.
    Engine(String),
    /// The peer-like baseline could not do its job.
    Baseline(String),
    /// Two that did the same job came to different results.
    Differs {
        /// What differs.
        what: &'static str,
        /// What the one says.
        left: String,
        /// What the other says.
        right: String,
    },
}

impl Failure {
    /// Fails unless both are equal.
    pub(crate) fn unless_equal<T: PartialEq + fmt::Debug>(what: &'static str, left: &T, right: &T) -> Result<(), Self> {
        if left == right {
            return Ok(());
        }
        Err(Self::Differs { what, left: format!("{left:?}"), right: format!("{right:?}") })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Engine(what) => write!(f, "the engine failed: {what}"),
            Self::Baseline(what) => write!(f, "the baseline failed: {what}"),
            Self::Differs { what, left, right } => write!(f, "{what} should be equal: {left} and {right}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<csv::Error> for Failure {
    fn from(error: csv::Error) -> Self {
        Self::Baseline(error.to_string())
    }
}

macro_rules! from_engine {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Engine(error.to_string())
            }
        }
    )*};
}

from_engine!(EngineError, StoreError, ReadError, SubmitError, IngestError, bursar_engine::csv::SourceError);
