//! How failures of a cluster become errors of a store.

use bursar_engine::store::{Damage, StoreError};
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A call to the cluster that failed; `place` is a server, a stream or a subject.
pub(crate) fn failed(doing: &'static str, place: &str, error: impl Display) -> StoreError {
    io_at(doing, PathBuf::from(place), io::Error::other(error.to_string()))
}

/// A file that could not be read.
pub(crate) fn io(doing: &'static str, path: &Path, error: io::Error) -> StoreError {
    io_at(doing, path.to_owned(), error)
}

fn io_at(doing: &'static str, path: PathBuf, error: io::Error) -> StoreError {
    StoreError::Io { doing, path, error: Arc::new(error) }
}

/// A stream ends before what is known to have been stored in it.
pub(crate) fn has_lost(stream: &str, known: u64, seq: u64) -> StoreError {
    damaged(stream, seq, format!("the stream was at {known} and is at {seq} now: it has lost messages"))
}

/// Something in a stream is not what was stored; `seq` is its sequence there.
pub(crate) fn damaged(stream: &str, seq: u64, what: impl Into<String>) -> StoreError {
    StoreError::Damaged(Damage { path: PathBuf::from(stream), offset: seq, what: what.into() })
}
