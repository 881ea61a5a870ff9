//! The embedded store: a ledger in one directory, owned by one process.
//!
//! ```text
//!            store ── both store traits; the batch becomes a frame
//!          ┌───┴────────────────┬──────────────────┐
//!        index                journal            maintenance
//!   memtable, run/        segments, frame,     checkpoint, index files,
//!   (derived)             record (the truth)   merges
//!          └───┬────────────────┴──────────────────┘
//!            disk ── six calls on files; real, or simulated
//! ```
//!
//! `chains_alone` opens a directory that holds no transactions table: it is in another store.
//!
//! `backup` copies a ledger's journal to another directory while it grows, and back.
//!
//! `open` goes from what is on the disk to a running store, with `tail` judging the journal's end. All formats:
//! `docs/format.md`.

mod at_once;
pub mod backup;
mod batch;
mod chain_walk;
mod chains_alone;
pub(crate) mod checkpoint;
pub(crate) mod codec;
pub mod disk;
mod feed;
pub(crate) mod frame;
mod heads;
mod index;
mod journal;
pub(crate) mod ledger_file;
mod maintenance;
pub mod memory_disk;
mod memtable;
mod open;
pub(crate) mod record;
mod run;
mod scan;
mod store;
#[cfg(test)]
#[path = "../../tests/support/mod.rs"]
mod support;
mod tail;
mod verify;

pub use chains_alone::EmbeddedChains;
pub(crate) use checkpoint::is_index_file;
pub use open::{CutOff, OpenReport};
pub use store::{EmbeddedOptions, EmbeddedStore};
pub use verify::{
    Finding, FindingCode, Lost, LostEvents, Note, VerifyOptions, VerifyProgress, VerifyReport, verify, verify_on,
};
