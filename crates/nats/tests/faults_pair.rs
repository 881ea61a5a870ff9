//! Rounds of faults over the pair of two systems that share no transaction: chains in a cluster of `JetStream`, the
//! transactions table in PostgreSQL. To what `rounds` does to servers and engines comes what a database suffers: it is
//! killed and started again, paused, and its connections are broken.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
#[path = "../../postgres/tests/common/mod.rs"]
mod postgres;
mod rounds;

use bursar_engine::core::LedgerConfig;
use bursar_engine::store::Transactions;
use bursar_postgres::{PostgresConfig, PostgresStore};
use postgres::PostgresServer;
use rounds::load::Random;
use rounds::{FAULTS, Fault, Tables};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A database that each engine opens for itself.
struct InPostgres {
    server: Mutex<PostgresServer>,
    config: PostgresConfig,
}

impl fmt::Debug for InPostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table in PostgreSQL")
    }
}

impl InPostgres {
    fn new(config: &LedgerConfig) -> Self {
        let server = PostgresServer::start();
        // So that engines give up on answers, and now and then on the server, within a round.
        let impatient = PostgresConfig {
            statement_timeout_ms: 700,
            connect_timeout_ms: 700,
            retry_for_ms: 8_000,
            connections: 4,
            ..server.fresh_schema()
        };
        drop(PostgresStore::create(&impatient, config).unwrap());
        Self { server: Mutex::new(server), config: impatient }
    }
}

impl Tables for InPostgres {
    fn open(&self, config: &LedgerConfig) -> Option<Arc<dyn Transactions>> {
        Some(Arc::new(PostgresStore::open_same(&self.config, config).ok()?))
    }

    /// A round in two begins with one of the database's.
    fn faults(&self) -> Vec<Fault> {
        let own = [Fault::TableKilled, Fault::TablePaused, Fault::TableCutOff].into_iter().cycle();
        own.zip(FAULTS).flat_map(|(own, other)| [own, other]).collect()
    }

    fn suffer(&self, fault: Fault, random: &mut Random) {
        let mut server = self.server.lock().unwrap();
        match fault {
            Fault::TableKilled => {
                server.kill();
                // Sometimes longer than engines are patient.
                std::thread::sleep(Duration::from_millis([50, 1_000, 9_500][random.below(3) as usize]));
                server.run();
            }
            Fault::TablePaused => {
                server.pause(true);
                std::thread::sleep(Duration::from_millis([50, 500, 3_500][random.below(3) as usize]));
                server.pause(false);
            }
            Fault::TableCutOff => {
                for _ in 0..=random.below(5) {
                    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                               WHERE pid <> pg_backend_pid() AND application_name = 'bursar'";
                    server.psql(cut);
                    std::thread::sleep(Duration::from_millis(random.below(200)));
                }
            }
            Fault::LeaderAlone
            | Fault::AllKilled
            | Fault::EngineAsleep
            | Fault::LeaderPaused
            | Fault::OneWay
            | Fault::EngineParted
            | Fault::EngineDead
            | Fault::OneAway
            | Fault::ServerKilled
            | Fault::AllParted
            | Fault::TwoPaused
            | Fault::KilledInTurn
            | Fault::ServerPaused => panic!("{fault:?} is nothing that a table suffers"),
        }
    }
}

#[test]
fn two_systems_without_a_common_transaction_stay_in_step() {
    rounds::run(4, |config, _| Arc::new(InPostgres::new(config)));
}
