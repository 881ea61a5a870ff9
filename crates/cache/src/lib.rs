//! A shared key-value cache (Redis, Valkey) in front of any stores that are not in this process: off unless it is asked for.
//!
//! ```text
//!  decisions ──► deciding ──► chains, table          one question, if an event that the chain confirms answers it
//!                   └── what has changed ──► client ──► threads ──► Redis
//!  people    ──► showing  ──► client; then chains, table
//! ```
//!
//! A lost, old, evicted or forged entry costs time, never money: nothing is decided on what the cache says unless the
//! chain says the same, and what is shown is at most as old as the settings allow. A cache that hangs, refuses, is full or
//! tells nonsense costs each call a bounded time, and is then left alone for a while. `docs/cache.md` argues it, call by call.
//!
//! What this crate does not do: keep anything that is not elsewhere; cache heads or states for decisions; look after
//! the server's memory (its `maxmemory` does).

mod client;
mod codec;
mod deciding;
mod error;
mod link;
mod seal;
mod settings;
mod shared;
mod showing;

pub use bursar_engine::figures::CacheFigures;
pub use error::CacheError;
pub use settings::CacheSettings;

use bursar_core::LedgerConfig;
use bursar_engine::Readers;
use bursar_engine::store::{Chains, Transactions};
use client::Client;
use deciding::{DecidingChains, DecidingTransactions};
use seal::Seal;
use shared::Shared;
use showing::{ShowingChains, ShowingTransactions};
use std::sync::Arc;

/// Stores behind a cache. Hand the first two to `Ledger::with_stores`, and `readers` to its options.
#[derive(Clone, Debug)]
pub struct Cached {
    /// The chains to decide on.
    pub chains: Arc<dyn Chains>,
    /// The transactions table to decide on.
    pub transactions: Arc<dyn Transactions>,
    /// What people are shown; `None` if that is all in the stores.
    pub readers: Option<Readers>,
    /// What the cache does; `None` where there is none.
    pub cache: Option<Cache>,
}

/// A cache at work.
#[derive(Clone, Debug)]
pub struct Cache(Arc<Shared>);

impl Cache {
    /// What it has done so far.
    pub fn figures(&self) -> CacheFigures {
        self.0.client.figures()
    }
}

/// Puts two stores of one ledger behind a cache. One that cannot be reached is no error: the stores work without it. One that
/// is a node of a cluster is refused.
///
/// Stores that take whole batches (the embedded one, with its own table) are given back as they are: they are in this
/// process, and nearer than any cache.
pub fn wrap(
    config: &LedgerConfig,
    chains: Arc<dyn Chains>,
    transactions: Arc<dyn Transactions>,
    settings: &CacheSettings,
) -> Result<Cached, CacheError> {
    let (ledger_digest, secret) = (config.digest(), settings.signing_secret()?);
    if chains.whole_batches() {
        settings.client()?;
        return Ok(Cached { chains, transactions, readers: None, cache: None });
    }
    let seal = Seal::new(&ledger_digest, secret.as_deref());
    let shared = Arc::new(Shared::new(Client::start(settings)?, seal, settings.clone(), ledger_digest));
    let deciding = Arc::new(DecidingChains { inner: chains.clone(), shared: shared.clone() });
    let transactions = DecidingTransactions { inner: transactions, chains, shared: shared.clone() };
    let transactions = Arc::new(transactions);
    let readers = settings.shows().then(|| Readers {
        chains: Arc::new(ShowingChains { deciding: deciding.clone() }),
        transactions: Arc::new(ShowingTransactions { deciding: transactions.clone() }),
    });
    Ok(Cached { chains: deciding, transactions, readers, cache: Some(Cache(shared)) })
}

#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod redis_server;
#[cfg(test)]
mod tests;
