//! Bursar as a library: open a ledger, submit requests from many threads, read while writes go on.

pub mod csv;
pub mod driver;
pub mod embedded;
pub mod store;
mod totals;

pub use bursar_core as core;
pub use totals::{CurrencyTotals, Totals};
