//! A ledger in PostgreSQL: chains and transactions in tables, next to the tables of whoever trusts them there.
//!
//! ```text
//!  engine ──► chains        ──► append ──► one statement ──► server: pool, retries ──► PostgreSQL
//!         └─► transactions  ─────────────► for a step                                  events, statuses (customer, seq)
//!                                          of a batch                                  transactions (id)
//! ```
//!
//! Chains and table need not be here both: each may go together with another store. Batches are not whole; the
//! commit protocol ([`bursar_core::commit`]) keeps both in step, and several engines may work on one ledger.
//! What decides is a primary key, never an isolation level: all statements run under READ COMMITTED.
//!
//! What was appended or proposed is durable when the call returns: the server is asked whether it keeps what it
//! acknowledges, on every new connection. The runtime is hidden: all calls block, and may come from any thread that
//! may block.
//!
//! What this crate does not do: decide anything about money, hold locks between statements, answer from memory: what it
//! remembers of a chain's end is held against the chain before it is used (`known`).

mod append;
mod chains;
mod config;
mod durability;
mod error;
mod feed;
mod known;
mod replica;
mod schema;
mod server;
mod statements;
mod store;
mod transactions;
mod values;

pub use config::{Approve, PostgresConfig};
pub use error::{OpenError, UnsafeSetting};
pub use schema::SCHEMA_VERSION;
pub use store::{PostgresStore, migrate};
