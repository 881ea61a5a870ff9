//! Rounds of faults over chains in a cluster, with the transactions table in memory: what fails are the servers, what is
//! between them, and the engines. `rounds` has the story; `faults_pair.rs` has the table in a database that fails too.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
mod rounds;

use bursar_engine::core::LedgerConfig;
use bursar_engine::store::Transactions;
use common::PairTable;
use rounds::load::Random;
use rounds::{FAULTS, Fault, Tables};
use std::sync::Arc;

/// One table for all engines, which never fails.
#[derive(Debug)]
struct InMemory(Arc<PairTable>);

impl Tables for InMemory {
    fn open(&self, _: &LedgerConfig) -> Option<Arc<dyn Transactions>> {
        Some(self.0.clone())
    }

    fn faults(&self) -> Vec<Fault> {
        FAULTS.to_vec()
    }

    fn suffer(&self, fault: Fault, _: &mut Random) {
        panic!("memory does not suffer {fault:?}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_applied_twice() {
    rounds::run(4, |config, chains| Arc::new(InMemory(Arc::new(PairTable::new(config, chains)))));
}
