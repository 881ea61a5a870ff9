//! What the fuzzers check, as plain functions: each takes any bytes and panics if something is wrong.
//!
//! `fuzz_targets/` runs them with libFuzzer, `tests/corpus.rs` with the inputs that are kept in this directory. How
//! to run them, and what each input means: `README.md`.
#![forbid(unsafe_code)]

mod chain_file;
mod csv_rows;
mod input;
mod ledger;
mod model;
mod open_directory;
mod record_frame;
mod requests;

pub use chain_file::chain_file;
pub use csv_rows::csv_rows;
pub use open_directory::open_directory;
pub use record_frame::record_frame;
pub use requests::requests;
