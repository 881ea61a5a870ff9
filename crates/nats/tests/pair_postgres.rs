//! Chains in a cluster and the transactions table in PostgreSQL, against the suite that every store must pass: two systems
//! that share no transaction.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

#[path = "../../postgres/tests/common/mod.rs"]
mod postgres;
#[path = "common/servers.rs"]
mod servers;

use bursar_engine::conformance::{Ending, Home, Stores, Target, passes};
use bursar_engine::core::LedgerConfig;
use bursar_engine::store::StoreError;
use bursar_nats::{NatsChains, NatsOptions};
use bursar_postgres::{PostgresConfig, PostgresStore};
use postgres::PostgresServer;
use servers::{Cluster, Sync};
use std::sync::{Arc, Mutex};

struct Pair {
    cluster: Cluster,
    server: Arc<Mutex<PostgresServer>>,
}

struct PairHome {
    server: Arc<Mutex<PostgresServer>>,
    options: NatsOptions,
    table: PostgresConfig,
    stores: Option<Stores>,
}

impl Target for Pair {
    fn fresh(&self, config: &LedgerConfig) -> Result<Box<dyn Home>, StoreError> {
        let (options, table) = (self.cluster.options(), self.server.lock().unwrap().fresh_schema());
        let chains = Arc::new(NatsChains::create(config, options.clone())?);
        let transactions = Arc::new(PostgresStore::create(&table, config).unwrap());
        let stores = Some(Stores { chains, transactions });
        Ok(Box::new(PairHome { server: self.server.clone(), options, table, stores }))
    }
}

impl Home for PairHome {
    fn stores(&self) -> Stores {
        self.stores.clone().unwrap()
    }

    /// A crash is one of the database, too.
    fn reopen(&mut self, ending: Ending) -> Result<bool, StoreError> {
        self.stores = None;
        if ending == Ending::Crash {
            let mut server = self.server.lock().unwrap();
            server.kill();
            server.run();
        }
        let chains = NatsChains::open(self.options.clone())?;
        let transactions = Arc::new(PostgresStore::open_same(&self.table, chains.config()).unwrap());
        self.stores = Some(Stores { chains: Arc::new(chains), transactions });
        Ok(true)
    }
}

/// One server, since what it shows is of the pair; `BURSAR_NATS_SERVERS=3` takes a cluster, and minutes.
#[test]
fn chains_in_a_cluster_and_transactions_in_postgresql_pass() {
    let servers = std::env::var("BURSAR_NATS_SERVERS").map_or(1, |count| count.parse().unwrap());
    let server = Arc::new(Mutex::new(PostgresServer::start()));
    passes(&Pair { cluster: Cluster::start(servers, Sync::Always), server });
}
