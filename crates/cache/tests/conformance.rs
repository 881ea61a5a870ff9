//! The suite that every store must pass, through the cache: over stores in memory, and over PostgreSQL; with a cache that
//! is there, and with one that is not.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
#[path = "../../postgres/tests/common/mod.rs"]
mod postgres;

use bursar_cache::{CacheSettings, wrap};
use bursar_engine::conformance::{Ending, Home, Stores, Target, case_names, run};
use bursar_engine::core::LedgerConfig;
use bursar_engine::store::{MemoryStore, StoreError};
use bursar_postgres::{PostgresConfig, PostgresStore};
use common::RedisServer;
use postgres::PostgresServer;
use std::sync::Arc;

struct Behind {
    settings: CacheSettings,
    server: Option<Arc<PostgresServer>>,
}

enum Real {
    Memory(Arc<MemoryStore>),
    Postgres(PostgresConfig),
}

struct BehindHome {
    ledger: LedgerConfig,
    settings: CacheSettings,
    real: Real,
    stores: Option<Stores>,
}

impl BehindHome {
    fn open(&mut self) {
        let cached = match &self.real {
            Real::Memory(store) => wrap(&self.ledger, store.clone(), store.clone(), &self.settings),
            Real::Postgres(config) => {
                let store = Arc::new(PostgresStore::open_same(config, &self.ledger).unwrap());
                wrap(&self.ledger, store.clone(), store, &self.settings)
            }
        };
        let cached = cached.unwrap();
        self.stores = Some(Stores { chains: cached.chains, transactions: cached.transactions });
    }
}

impl Target for Behind {
    fn fresh(&self, ledger: &LedgerConfig) -> Result<Box<dyn Home>, StoreError> {
        let real = match &self.server {
            None => Real::Memory(Arc::new(MemoryStore::new(ledger).with_split_batches())),
            Some(server) => {
                let config = server.fresh_schema();
                PostgresStore::create(&config, ledger).unwrap();
                Real::Postgres(config)
            }
        };
        let mut home = BehindHome { ledger: ledger.clone(), settings: self.settings.clone(), real, stores: None };
        home.open();
        Ok(Box::new(home))
    }
}

impl Home for BehindHome {
    fn stores(&self) -> Stores {
        self.stores.clone().unwrap()
    }

    fn reopen(&mut self, _: Ending) -> Result<bool, StoreError> {
        match self.real {
            Real::Memory(_) => Ok(false),
            Real::Postgres(_) => {
                self.stores = None;
                self.open();
                Ok(true)
            }
        }
    }
}

fn passes(settings: CacheSettings, server: Option<Arc<PostgresServer>>) {
    let failures = run(&Behind { settings, server });
    let failures: Vec<String> = failures.iter().map(ToString::to_string).collect();
    let count = case_names().len();
    assert!(failures.is_empty(), "{} of {count} cases failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn stores_in_memory_behind_a_cache_pass() {
    let redis = RedisServer::start();
    passes(redis.patient_settings(), None);
    redis.wait_for("bursar:", 1);
}

#[test]
fn stores_in_memory_behind_a_cache_that_is_not_there_pass() {
    let mut redis = RedisServer::start();
    redis.kill();
    passes(redis.settings(), None);
}

#[test]
fn postgresql_behind_a_cache_passes() {
    let redis = RedisServer::start();
    passes(redis.patient_settings(), Some(Arc::new(PostgresServer::start())));
    redis.wait_for("bursar:", 1);
}
