//! Stores other than a directory: which ones `[store]` of `bursar.toml` names, and a ledger in them, created, opened or
//! brought up to date.
//!
//! ```text
//!  bursar.toml ──► settings: Stores ──► open: chains + transactions ──► bursar_engine::Ledger
//!                                   └──► copy: a whole ledger from one place to another
//! ```
//!
//! Which pairs there are is said once, by [`Stores`]. What a store needs is said by its own crate.

pub(crate) mod copy;
mod open;
mod settings;

pub(crate) use open::Opened;
pub(crate) use settings::{StoreSection, Stores};
