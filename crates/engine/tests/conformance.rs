//! The stores of this crate against the suite that every store must pass.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_engine::conformance::{Ending, Home, Stores, Target, passes};
use bursar_engine::core::LedgerConfig;
use bursar_engine::embedded::{EmbeddedChains, EmbeddedOptions, EmbeddedStore};
use bursar_engine::store::{MemoryStore, StoreError};
use std::sync::Arc;
use tempfile::TempDir;

mod common;

#[derive(Debug)]
struct Memory {
    split: bool,
}

struct MemoryHome(Arc<MemoryStore>);

impl Target for Memory {
    fn fresh(&self, config: &LedgerConfig) -> Result<Box<dyn Home>, StoreError> {
        let store = MemoryStore::new(config);
        Ok(Box::new(MemoryHome(Arc::new(if self.split { store.with_split_batches() } else { store }))))
    }
}

impl Home for MemoryHome {
    fn stores(&self) -> Stores {
        Stores { chains: self.0.clone(), transactions: self.0.clone() }
    }

    fn reopen(&mut self, _ending: Ending) -> Result<bool, StoreError> {
        Ok(false)
    }
}

#[derive(Debug)]
struct Embedded(EmbeddedOptions);

struct EmbeddedHome {
    directory: TempDir,
    options: EmbeddedOptions,
    store: Option<Arc<EmbeddedStore>>,
}

impl Target for Embedded {
    fn fresh(&self, config: &LedgerConfig) -> Result<Box<dyn Home>, StoreError> {
        let directory = common::directory();
        let store = Some(Arc::new(EmbeddedStore::create(directory.path(), config, self.0)?));
        Ok(Box::new(EmbeddedHome { directory, options: self.0, store }))
    }
}

impl Home for EmbeddedHome {
    fn stores(&self) -> Stores {
        let store = self.store.clone().unwrap();
        Stores { chains: store.clone(), transactions: store }
    }

    fn reopen(&mut self, ending: Ending) -> Result<bool, StoreError> {
        let store = self.store.take().unwrap();
        match ending {
            Ending::Clean => store.close()?,
            // Nothing is written when the store is dropped.
            Ending::Crash => {}
        }
        drop(store);
        let (store, report) = EmbeddedStore::open(self.directory.path(), self.options)?;
        assert_eq!(report.index_rebuilt, None);
        self.store = Some(Arc::new(store));
        Ok(true)
    }
}

/// Chains alone in a directory, and the table in memory, which outlives them: it is the same process.
#[derive(Debug)]
struct Mixed(EmbeddedOptions);

struct MixedHome {
    directory: TempDir,
    options: EmbeddedOptions,
    chains: Option<Arc<EmbeddedChains>>,
    table: Arc<MemoryStore>,
}

impl Target for Mixed {
    fn fresh(&self, config: &LedgerConfig) -> Result<Box<dyn Home>, StoreError> {
        let directory = common::directory();
        let chains = Some(Arc::new(EmbeddedChains::create(directory.path(), config, self.0)?));
        let table = Arc::new(MemoryStore::new(config).with_split_batches());
        Ok(Box::new(MixedHome { directory, options: self.0, chains, table }))
    }
}

impl Home for MixedHome {
    fn stores(&self) -> Stores {
        Stores { chains: self.chains.clone().unwrap(), transactions: self.table.clone() }
    }

    fn reopen(&mut self, ending: Ending) -> Result<bool, StoreError> {
        let chains = self.chains.take().unwrap();
        match ending {
            Ending::Clean => chains.close()?,
            Ending::Crash => {}
        }
        drop(chains);
        let (chains, report) = EmbeddedChains::open(self.directory.path(), self.options)?;
        assert_eq!(report.index_rebuilt, None);
        self.chains = Some(Arc::new(chains));
        Ok(true)
    }
}

#[test]
fn the_memory_store_passes() {
    passes(&Memory { split: false });
}

#[test]
fn the_memory_store_passes_with_split_batches() {
    passes(&Memory { split: true });
}

#[test]
fn the_embedded_store_passes() {
    passes(&Embedded(EmbeddedOptions::default()));
}

/// Index files after every few events, merges all the time, many segments.
#[test]
fn the_embedded_store_passes_with_tiny_limits() {
    passes(&Embedded(EmbeddedOptions {
        segment_bytes: 4096,
        memtable_entries_max: 16,
        heads_max: 4,
        background: false,
    }));
}

#[test]
fn the_embedded_store_passes_with_tiny_limits_in_the_background() {
    passes(&Embedded(EmbeddedOptions {
        segment_bytes: 20_000,
        memtable_entries_max: 100,
        heads_max: 25,
        background: true,
    }));
}

#[test]
fn chains_alone_in_a_directory_and_transactions_in_memory_pass() {
    passes(&Mixed(EmbeddedOptions::default()));
}

#[test]
fn chains_alone_in_a_directory_pass_with_tiny_limits() {
    passes(&Mixed(EmbeddedOptions { segment_bytes: 4096, memtable_entries_max: 16, heads_max: 4, background: false }));
}

#[test]
fn chains_alone_in_a_directory_pass_with_tiny_limits_in_the_background() {
    passes(&Mixed(EmbeddedOptions {
        segment_bytes: 20_000,
        memtable_entries_max: 100,
        heads_max: 25,
        background: true,
    }));
}
