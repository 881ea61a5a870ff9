//! Runs: immutable, sorted index files from ids to what the journal says about them.
//!
//! ```text
//! memtable --frozen--> TransactionRun  (transaction id -> journal positions)  --+
//!                      CustomerRun     (customer id -> head and position)     --+-- merged in tiers --> larger runs
//! ```
//!
//! The journal is the truth. A run is derived from the part of it between two positions, and can be deleted and
//! built again. A lookup asks the memtable first and then the runs, newest first. Both kinds are laid out the
//! same way, see [`file`]: blocks of sorted entries on disk, and in memory the first key of each block and a
//! filter. So a lookup of an absent id mostly costs no read, and one of a present id costs one.
//! `docs/format.md`, "Index runs", has the files byte for byte.
//!
//! What this module does not do: it does not know which runs there are, nor when they are no longer needed; it
//! does not read the journal; and it starts no threads. A caller that opens a directory removes files whose name
//! ends in [`TEMPORARY_SUFFIX`]: a crash left them there.

mod customers;
mod entry;
mod file;
mod filter;
mod fingerprint;
mod merge;
#[cfg(test)]
mod tests;
mod tiers;
mod transactions;

pub(crate) use customers::CustomerRun;
pub(crate) use file::{IdRange, RunInfo, TEMPORARY_SUFFIX};
pub(crate) use fingerprint::{fingerprint, key_fingerprint};
pub(crate) use merge::{merge_customers, merge_transactions};
pub(crate) use tiers::{RunSize, next_merge};
pub(crate) use transactions::{TransactionRun, kept};

pub(crate) use customers::write as write_customers;
pub(crate) use transactions::write as write_transactions;
