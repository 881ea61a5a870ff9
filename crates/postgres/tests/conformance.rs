//! The suite that every store must pass: chains and transactions in PostgreSQL, and each of them there alone.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::conformance::{Ending, Home, Stores, Target, case_names, run};
use bursar_engine::core::LedgerConfig;
use bursar_engine::store::{MemoryStore, StoreError};
use bursar_postgres::{Approve, PostgresConfig, PostgresStore};
use common::PostgresServer;
use std::sync::{Arc, Mutex};

/// What is in PostgreSQL; the rest is in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum There {
    Both,
    Chains,
    Transactions,
}

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
}

impl Target for Postgres {
    fn fresh(&self, ledger: &LedgerConfig) -> Result<Box<dyn Home>, StoreError> {
        // Where approvals come at once, nearly nothing is remembered, so that heads are found both ways.
        let heads_kept = if self.approve == Approve::AtOnce { 4 } else { 1_000 };
        let config = PostgresConfig { approve: self.approve, heads_kept, ..self.server.lock().unwrap().fresh_schema() };
        let store = Some(Arc::new(PostgresStore::create(&config, ledger).unwrap()));
        let memory = Arc::new(MemoryStore::new(ledger).with_split_batches());
        let (server, there, crashes) = (self.server.clone(), self.there, self.crashes);
        Ok(Box::new(PostgresHome { server, there, crashes, config, store, memory }))
    }
}

impl Home for PostgresHome {
    fn stores(&self) -> Stores {
        let store = self.store.clone().unwrap();
        match self.there {
            There::Both => Stores { chains: store.clone(), transactions: store },
            There::Chains => Stores { chains: store, transactions: self.memory.clone() },
            There::Transactions => Stores { chains: self.memory.clone(), transactions: store },
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
        // What is in memory outlives this: it is the same process.
        Ok(true)
    }
}

fn passes(there: There, approve: Approve, crashes: bool) {
    let server = Arc::new(Mutex::new(PostgresServer::start()));
    let failures = run(&Postgres { server, there, approve, crashes });
    let failures: Vec<String> = failures.iter().map(ToString::to_string).collect();
    let count = case_names().len();
    assert!(failures.is_empty(), "{} of {count} cases failed:\n{}", failures.len(), failures.join("\n"));
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
