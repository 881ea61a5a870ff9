//! Bursar as a library.

pub use bursar_core as core;

pub mod csv;
