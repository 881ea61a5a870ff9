//! The simulator's own stores against the suite that every store must pass: what is simulated is a store, and its
//! faults are faults of a store that keeps its promises.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_engine::conformance::{Ending, Home, Stores, Target, case_names, run};
use bursar_engine::core::LedgerConfig;
use bursar_engine::store::StoreError;
use bursar_sim::random::Random;
use bursar_sim::split::{Connection, Network, System};
use bursar_sim::witness::Witness;
use std::sync::Arc;

struct Split;

struct SplitHome {
    network: Network,
    connection: Arc<Connection>,
    random: Random,
}

impl Target for Split {
    fn fresh(&self, config: &LedgerConfig) -> Result<Box<dyn Home>, StoreError> {
        let network = Network::new(config.digest(), Witness::default());
        let connection = Arc::new(network.connect());
        Ok(Box::new(SplitHome { network, connection, random: Random::of(1, 1) }))
    }

    fn has_feed(&self) -> bool {
        false
    }
}

impl Home for SplitHome {
    fn stores(&self) -> Stores {
        Stores { chains: self.connection.clone(), transactions: self.connection.clone() }
    }

    fn reopen(&mut self, ending: Ending) -> Result<bool, StoreError> {
        if ending == Ending::Crash {
            self.network.crash(System::Chains, &mut self.random);
            self.network.crash(System::Table, &mut self.random);
        }
        self.connection = Arc::new(self.network.connect());
        Ok(true)
    }
}

#[test]
fn the_simulated_stores_pass() {
    let failures: Vec<String> = run(&Split).iter().map(ToString::to_string).collect();
    let count = case_names().len();
    assert!(failures.is_empty(), "{} of {count} cases failed:\n{}", failures.len(), failures.join("\n"));
}
