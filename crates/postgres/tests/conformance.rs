//! The suite that every store must pass: chains and transactions in PostgreSQL, and each of them there alone.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::conformance::{self, Ending, Home, Stores, Target};
use bursar_engine::core::LedgerConfig;
use bursar_engine::embedded::{EmbeddedChains, EmbeddedOptions};
use bursar_engine::store::{MemoryStore, StoreError};
use bursar_postgres::{Approve, PostgresConfig, PostgresStore};
use common::PostgresServer;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// What is in PostgreSQL; the rest is in memory, or in a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum There {
    Both,
    Chains,
    Transactions,
    /// The chains are alone in a directory.
    TransactionsBesideADirectory,
}

const SMALL: EmbeddedOptions =
    EmbeddedOptions { segment_bytes: 20_000, memtable_entries_max: 100, heads_max: 25, background: true };

struct Postgres {
    server: Arc<Mutex<PostgresServer>>,
    there: There,
    approve: Approve,
    /// A crash is one of the server too.
    crashes: bool,
}

struct PostgresHome {
    server: Arc<Mutex<PostgresServer>>,
    there: There,
    crashes: bool,
    config: PostgresConfig,
    store: Option<Arc<PostgresStore>>,
    memory: Arc<MemoryStore>,
    directory: TempDir,
    /// Only where the chains are there.
    chains: Option<Arc<EmbeddedChains>>,
}

impl Target for Postgres {
    fn fresh(&self, ledger: &LedgerConfig) -> Result<Box<dyn Home>, StoreError> {
        // Where approvals come at once, nearly nothing is remembered, so that heads are found both ways.
        let heads_kept = if self.approve == Approve::AtOnce { 4 } else { 1_000 };
        let config = PostgresConfig { approve: self.approve, heads_kept, ..self.server.lock().unwrap().fresh_schema() };
        let store = Some(Arc::new(PostgresStore::create(&config, ledger).unwrap()));
        let memory = Arc::new(MemoryStore::new(ledger).with_split_batches());
        let (server, there, crashes) = (self.server.clone(), self.there, self.crashes);
        let directory = tempfile::tempdir().unwrap();
        let chains = match there {
            There::Both | There::Chains | There::Transactions => None,
            There::TransactionsBesideADirectory => {
                Some(Arc::new(EmbeddedChains::create(directory.path(), ledger, SMALL)?))
            }
        };
        Ok(Box::new(PostgresHome { server, there, crashes, config, store, memory, directory, chains }))
    }
}

impl Home for PostgresHome {
    fn stores(&self) -> Stores {
        let store = self.store.clone().unwrap();
        match self.there {
            There::Both => Stores { chains: store.clone(), transactions: store },
            There::Chains => Stores { chains: store, transactions: self.memory.clone() },
            There::Transactions => Stores { chains: self.memory.clone(), transactions: store },
            There::TransactionsBesideADirectory => Stores { chains: self.chains.clone().unwrap(), transactions: store },
        }
    }

    fn reopen(&mut self, ending: Ending) -> Result<bool, StoreError> {
        let ledger = self.store.take().unwrap().config().clone();
        if self.crashes && ending == Ending::Crash {
            let mut server = self.server.lock().unwrap();
            server.kill();
            server.run();
        }
        self.store = Some(Arc::new(PostgresStore::open_same(&self.config, &ledger).unwrap()));
        if let Some(chains) = self.chains.take() {
            if ending == Ending::Clean {
                chains.close()?;
            }
            drop(chains);
            let (chains, report) = EmbeddedChains::open(self.directory.path(), SMALL)?;
            assert_eq!(report.index_rebuilt, None);
            self.chains = Some(Arc::new(chains));
        }
        // What is in memory outlives this: it is the same process.
        Ok(true)
    }
}

fn passes(there: There, approve: Approve, crashes: bool) {
    let server = Arc::new(Mutex::new(PostgresServer::start()));
    conformance::passes(&Postgres { server, there, approve, crashes });
}

#[test]
fn chains_and_transactions_in_postgresql_pass() {
    passes(There::Both, Approve::Lazily, true);
}

#[test]
fn chains_and_transactions_in_postgresql_pass_with_approvals_at_once() {
    passes(There::Both, Approve::AtOnce, false);
}

#[test]
fn chains_in_postgresql_and_transactions_in_memory_pass() {
    passes(There::Chains, Approve::Lazily, false);
}

#[test]
fn chains_in_memory_and_transactions_in_postgresql_pass() {
    passes(There::Transactions, Approve::Lazily, false);
}

#[test]
fn chains_in_a_directory_and_transactions_in_postgresql_pass() {
    passes(There::TransactionsBesideADirectory, Approve::Lazily, true);
}
