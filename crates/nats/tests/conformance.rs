//! Chains in a cluster, paired with a table in memory, against the suite that every store must pass.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::conformance::{Ending, Home, Stores, Target, passes};
use bursar_engine::core::LedgerConfig;
use bursar_engine::store::StoreError;
use bursar_nats::{NatsChains, NatsOptions};
use common::{Cluster, Sync, pair};

struct Nats {
    cluster: Cluster,
    change: fn(NatsOptions) -> NatsOptions,
}

struct NatsHome {
    config: LedgerConfig,
    options: NatsOptions,
    stores: Option<Stores>,
}

impl Target for Nats {
    fn fresh(&self, config: &LedgerConfig) -> Result<Box<dyn Home>, StoreError> {
        let options = (self.change)(self.cluster.options());
        let chains = NatsChains::create(config, options.clone())?;
        Ok(Box::new(NatsHome { config: config.clone(), options, stores: Some(pair(config, chains)?) }))
    }
}

impl Home for NatsHome {
    fn stores(&self) -> Stores {
        self.stores.clone().unwrap()
    }

    /// Nothing is done when a store is closed: both endings are the same.
    fn reopen(&mut self, _ending: Ending) -> Result<bool, StoreError> {
        self.stores = None;
        self.stores = Some(pair(&self.config, NatsChains::open(self.options.clone())?)?);
        Ok(true)
    }
}

#[test]
fn a_cluster_of_three_passes() {
    passes(&Nats { cluster: Cluster::start(3, Sync::Always), change: |options| options });
}

#[test]
fn a_server_alone_passes() {
    passes(&Nats { cluster: Cluster::start(1, Sync::Default), change: |options| options });
}

/// Runs of a customer in many messages, every message by itself, and hardly a head in memory.
#[test]
fn a_server_alone_passes_with_tiny_limits() {
    let change = |options| NatsOptions {
        cache_customers_max: 3,
        batch_messages_max: 1,
        message_bytes_max: 200,
        shard_count: 1,
        ..options
    };
    passes(&Nats { cluster: Cluster::start(1, Sync::Default), change });
}
