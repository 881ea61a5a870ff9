//! Taking in files, as the command line does it.
//!
//! ```text
//! commands/ingest ──► bursar_engine::ingest ──► observer: diagnostics, progress, rejects
//!        │                                      summary:  what became of the rows
//!        ├── remote: rows to a server, outcomes back (--server)
//!        └── trial: a ledger that reads its directory and writes elsewhere (--dry-run)
//! ```

pub(crate) mod observer;
pub(crate) mod rejects;
pub(crate) mod remote;
pub(crate) mod summary;
pub(crate) mod trial;
