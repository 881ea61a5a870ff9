//! A primary with two synchronous standbys, of which either must have what is acknowledged (`ANY 1`). While two engine
//! processes write, the primary is killed, the standby that is furthest ahead takes over, and the engines go on there.
//! Nothing acknowledged may be lost; that this would be noticed is shown by standbys that nobody waits for.
//!
//! `BURSAR_FAILOVERS=10` says how many times the primary is killed.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
mod engines;
mod following;
mod history;

use bursar_engine::core::{Currencies, LedgerConfig, Policy};
use bursar_engine::new_config;
use bursar_postgres::{PostgresConfig, PostgresStore};
use common::PostgresServer;
use engines::{Dice, Engine};
use following::Following;
use history::{History, Told, check};
use std::path::Path;
use std::time::Duration;

const SYNCHRONOUS: &str = "synchronous_standby_names=ANY 1 (standby_0, standby_1, standby_2)";

/// Not a test of its own: the engine process, which the other tests start.
#[test]
fn engine_process() {
    engines::engine_process();
}

/// Three servers, one of them the primary.
struct Cluster {
    servers: [PostgresServer; 3],
    primary: usize,
}

impl Cluster {
    fn start(settings: &[&str]) -> Self {
        let mut settings = settings.to_vec();
        settings.extend(["wal_keep_size=1GB", "wal_retrieve_retry_interval=100ms", "hot_standby=on"]);
        let first = PostgresServer::start_with(&settings);
        let mut cluster = Self {
            servers: [first, PostgresServer::without_data(&settings), PostgresServer::without_data(&settings)],
            primary: 0,
        };
        for standby in cluster.standbys() {
            cluster.follow_anew(standby);
        }
        cluster.wait_until_followed();
        cluster
    }

    fn standbys(&self) -> [usize; 2] {
        [(self.primary + 1) % 3, (self.primary + 2) % 3]
    }

    fn primary_and(&mut self, standby: usize) -> (&PostgresServer, &mut PostgresServer) {
        let [primary, standby] = self.servers.get_disjoint_mut([self.primary, standby]).unwrap();
        (primary, standby)
    }

    fn follow_anew(&mut self, standby: usize) {
        let (primary, server) = self.primary_and(standby);
        server.follow_anew(primary, &format!("standby_{standby}"));
    }

    fn wait_until_followed(&self) {
        let following = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        self.servers[self.primary].wait_for(following, "2");
    }

    fn config(&self) -> PostgresConfig {
        let servers: Vec<&PostgresServer> = self.servers.iter().collect();
        PostgresServer::config_of(&servers)
    }

    /// The primary was killed: the standby takes over that has received most. The other one follows that one, and
    /// the killed one comes back as a standby.
    fn fail_over(&mut self) {
        let received = |standby: usize| {
            let position = self.servers[standby].psql("SELECT pg_last_wal_receive_lsn() - '0/0'");
            (position.parse::<u64>().unwrap(), standby)
        };
        let killed = self.primary;
        let [(_, second), (_, furthest)] = {
            let mut both = self.standbys().map(received);
            both.sort_unstable();
            both
        };
        assert_eq!(self.servers[furthest].psql("SELECT pg_promote()"), "t");
        self.primary = furthest;
        self.servers[second].stop();
        let (primary, server) = self.primary_and(second);
        server.follow(primary, &format!("standby_{second}"));
        self.follow_anew(killed);
        self.wait_until_followed();
    }
}

fn ledger_in(cluster: &Cluster) -> (PostgresConfig, LedgerConfig) {
    let config = cluster.config();
    let ledger = new_config(Policy::default(), Currencies::default()).unwrap();
    drop(PostgresStore::create(&config, &ledger).unwrap());
    (config, ledger)
}

fn engines(config: &PostgresConfig, round: u64, dice: &mut Dice, logs: &Path) -> Vec<Engine> {
    let mut engine =
        |number: u64| Engine::start(config, round, dice.roll() >> 8, &logs.join(format!("{round}-{number}")));
    (0..2).map(&mut engine).collect()
}

/// Ends engines; what they were told is added to the history.
fn take(engines: Vec<Engine>, round: u64, logs: &Path, history: &mut History) {
    engines.into_iter().for_each(Engine::stop);
    for number in 0..2 {
        history.take(&std::fs::read_to_string(logs.join(format!("{round}-{number}"))).unwrap());
    }
}

fn applied(history: &History) -> usize {
    history.ended.values().filter(|end| matches!(end.told, Told::Applied { .. })).count()
}

#[test]
fn nothing_acknowledged_is_lost_with_the_primary() {
    let rounds: u64 = std::env::var("BURSAR_FAILOVERS").map_or(2, |text| text.parse().unwrap());
    let seed = std::env::var("BURSAR_FAULT_SEED").map_or(u64::from(std::process::id()), |text| text.parse().unwrap());
    println!("BURSAR_FAULT_SEED={seed}");
    let mut dice = Dice(seed);
    let mut cluster = Cluster::start(&[SYNCHRONOUS]);
    let (config, ledger) = ledger_in(&cluster);
    let (logs, mut history) = (tempfile::tempdir().unwrap(), History::default());
    // What a follower was shown is there after a failover too.
    let own = PostgresConfig { schema: config.schema.clone(), ..engines::impatient(&config.url) };
    let following = Following::start(move || PostgresStore::open(&own).ok());
    for round in 0..rounds {
        let before = applied(&history);
        let engines = engines(&config, round, &mut dice, logs.path());
        std::thread::sleep(Duration::from_millis(500));
        // One that lags behind must not be the one that takes over.
        let lagging = cluster.standbys()[dice.below(2) as usize];
        cluster.servers[lagging].pause(true);
        std::thread::sleep(Duration::from_millis(300 + dice.below(500)));
        cluster.servers[cluster.primary].kill();
        cluster.servers[lagging].pause(false);
        cluster.fail_over();
        std::thread::sleep(Duration::from_millis(700));
        take(engines, round, logs.path(), &mut history);
        let wrong = check(&config, &ledger, &history);
        assert!(wrong.is_empty(), "seed {seed}, round {round}:\n{}", wrong.join("\n"));
        assert!(applied(&history) > before + 20, "round {round}: too little was done");
    }
    let seen = following.finish();
    let wrong = following::check(&PostgresStore::open(&config).unwrap(), &seen);
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    println!(
        "{rounds} failovers: {} requests, {} answered, {} applied, {} records followed",
        history.begun.len(),
        history.ended.len(),
        applied(&history),
        seen.len()
    );
}

/// The story that the other test must be able to tell: nobody waits for the standbys, both lag, the primary is killed.
#[test]
fn the_check_sees_what_is_lost_without_synchronous_standbys() {
    let mut cluster = Cluster::start(&[]);
    let (config, ledger) = ledger_in(&cluster);
    let (logs, mut history) = (tempfile::tempdir().unwrap(), History::default());
    let first = engines(&config, 0, &mut Dice(1), logs.path());
    std::thread::sleep(Duration::from_millis(500));
    // Not only paused: what was sent to them already would still arrive.
    for standby in cluster.standbys() {
        cluster.servers[standby].stop();
    }
    std::thread::sleep(Duration::from_millis(700));
    take(first, 0, logs.path(), &mut history);
    cluster.servers[cluster.primary].kill();
    for standby in cluster.standbys() {
        cluster.servers[standby].run();
    }
    cluster.fail_over();
    let wrong = check(&config, &ledger, &history);
    assert!(wrong.iter().any(|what| what.contains("an event that is not there")), "{}", wrong.join("\n"));
}
