//! Bursar as a library: open a ledger, submit requests from many threads, read while writes go on.
//!
//! ```text
//!  bytes ──► csv ──► request ──► ledger ──► driver ──► (core: commit machine, rules) ──► event
//!                                                                                         │
//!  disk ◄── embedded: journal ◄── frame ◄── record ◄───────────── store (two traits) ◄────┘
//! ```

#[cfg(feature = "conformance")]
pub mod conformance;

#[cfg(test)]
extern crate self as bursar_engine;

pub mod accounts_only;
mod by_id;
pub mod chain_file;
pub mod copy;
pub mod csv;
pub mod driver;
pub mod embedded;
pub mod figures;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod ingest;
mod ledger;
mod rail;
mod slots;
pub mod store;
mod totals;
pub mod verify_stores;

pub use bursar_core as core;
pub use driver::EngineError;
pub use ledger::{
    AsOf, FeedPage, LastAnswer, Ledger, LedgerOptions, PendingEvent, ReadError, Readers, RowsTaken, SettleError,
    Settled, SubmitError, Submitted, TransactionView, new_config,
};
pub use rail::{Contradiction, Rail, RailReply};
pub use totals::{CurrencyTotals, Totals};
