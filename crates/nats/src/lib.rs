//! Chains of a ledger in a cluster of NATS `JetStream`. The asynchronous runtime is hidden inside: every call blocks.
//!
//! A chain is a subject in one of a few replicated streams; an append carries the sequence of the subject's last message,
//! and only that decides. Several engines can run over one cluster, each able to serve any customer: who comes second
//! is refused, and decides anew.
//!
//! ```text
//!  store (creating, opening) ──► settings
//!  Chains ──► chains ──► append ──► shard (barrier, catch up) ──► net ──► servers
//!                          │         └── follow (what is known of a chain's end; no I/O)
//!                          └── read (a chain's history, checked) ──► message, ledger, order (bytes)
//!  Feed ────► feed ──► entries ──► net
//! ```
//!
//! This crate has no transactions table: the ids of all transactions, kept in a cluster's streams, either cost memory
//! on every server for ever or are written again and again. They belong into a store that has an index; `docs/nats.md`
//! has the figures. The two stores share no transaction and need none.
//!
//! What this crate does not do: rules and the commit protocol (`bursar-core`), and running servers.

mod append;
mod bytes;
mod chains;
mod config;
mod entries;
mod error;
mod feed;
mod follow;
mod ledger;
mod message;
mod net;
mod options;
mod order;
mod read;
mod settings;
mod shard;
mod store;

pub use config::{ConfigError, NatsConfig};
pub use options::NatsOptions;
pub use settings::Weakness;
pub use store::{Finding, NatsChains, Prepared, prepare};
