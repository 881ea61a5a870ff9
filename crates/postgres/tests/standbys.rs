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

use bursar_engine::core::commit::{Appended, Outcome, Proposal, ProposeResult};
use bursar_engine::core::rules::{Decision, Known, decide};
use bursar_engine::core::{
    Amount, Currencies, CustomerId, Event, Head, LedgerConfig, LinkedEvent, Policy, Record, Request, TransactionId,
};
use bursar_engine::store::{Chains, Transactions};
use bursar_engine::{Ledger, LedgerOptions, new_config};
use bursar_postgres::{PostgresConfig, PostgresStore};
use common::PostgresServer;
use engines::{Dice, Engine};
use following::Following;
use history::{History, Told, check};
use std::path::Path;
use std::sync::Arc;
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

fn append(store: &PostgresStore, record: Record) -> Vec<Appended> {
    let mut results = Vec::new();
    store.append(&[record], &mut results).unwrap();
    results
}

/// A server that was started anew shows what it has committed and no standby has. Somebody's answer rests on that, and
/// waits for a commit that takes it to the standbys; that commit is made by another server, which has taken over without it.
fn nothing_is_answered_on_what_is_lost(next_waits_for_standbys: bool) {
    let mut cluster = Cluster::start(&[SYNCHRONOUS]);
    let (config, ledger) = ledger_in(&cluster);
    let config = PostgresConfig { retry_for_ms: 300_000, ..config };
    let store = Arc::new(PostgresStore::open(&config).unwrap());
    let engine = Ledger::with_stores(ledger.clone(), store.clone(), store, LedgerOptions::default()).unwrap();

    // A deposit is begun and proposed, and both standbys have that; they do not have its end.
    let customer = CustomerId::new(1);
    let request = Request::deposit(customer, TransactionId::new(1), Amount::from_steps(500));
    let head = Head::start(&ledger.digest(), customer);
    let Ok(Decision::Change(change)) = decide(&ledger, &head.state, Known::default(), &request) else {
        panic!("a deposit is always possible")
    };
    let begun = LinkedEvent::new(Event::new(customer, 1, 1_700_000_000_000, change, None), &head.link);
    let writer = PostgresStore::open(&PostgresConfig { retry_for_ms: 0, ..config.clone() }).unwrap();
    assert_eq!(append(&writer, Record::Started(begun.clone())), [Appended::Yes]);
    let mut proposed = Vec::new();
    for (entry, state) in begun.event.entries() {
        let event = begun.reference();
        let proposal = Proposal { entry, seen_approved: None, seen_proposed: None, approved: None, state, event };
        writer.propose(&[proposal], &mut proposed).unwrap();
    }
    assert_eq!(proposed, [ProposeResult::Proposed]);
    for standby in cluster.standbys() {
        let all_of_it = "SELECT bool_and(replay_lsn = pg_current_wal_lsn()) FROM pg_stat_replication";
        cluster.servers[cluster.primary].wait_for(all_of_it, "t");
        cluster.servers[standby].stop();
        let count = "SELECT count(*) FROM pg_stat_replication";
        cluster.servers[cluster.primary].wait_for(count, if standby == cluster.standbys()[1] { "0" } else { "1" });
    }
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    std::thread::scope(|scope| {
        let event = begun.reference();
        let writing = scope.spawn(move || writer.append(&[Record::Done(event)], &mut Vec::new()));
        let primary = &mut cluster.servers[cluster.primary];
        primary.wait_for(waits, "1");
        primary.kill();
        primary.run();
        assert!(writing.join().unwrap().is_err(), "nobody has acknowledged it");
        let asking = scope.spawn(|| engine.submit(request));
        // Whoever does not wait is found out below.
        while primary.psql(waits) != "1" && !asking.is_finished() {}
        // Somebody follows: they too would be shown an end that nobody else has.
        let follower = PostgresStore::open(&config).unwrap();
        let following = scope.spawn(move || {
            let (feed, mut items) = (follower.feed().unwrap(), Vec::new());
            feed.read(feed.start(), 10, &mut items).map(|_| items)
        });
        while primary.psql(waits) != "2" && !asking.is_finished() && !following.is_finished() {}
        primary.kill();
        for standby in cluster.standbys() {
            if !next_waits_for_standbys {
                cluster.servers[standby].without("synchronous_standby_names");
            }
            cluster.servers[standby].run();
        }
        cluster.fail_over();
        let told = asking.join().unwrap();
        let (next, mut heads) = (PostgresStore::open(&config).unwrap(), Vec::new());
        next.load(&[customer], &mut heads).unwrap();
        assert_eq!(heads[0].as_ref().unwrap().open, std::slice::from_ref(&begun), "the next one has not seen it end");
        assert!(told.is_err(), "told of what is gone: {told:?}");
        let shown = following.join().unwrap();
        assert!(matches!(&shown, Ok(items) if items.is_empty()), "shown what is gone: {shown:?}");
    });
    // Opened again, the ledger goes on with what is there.
    drop(engine);
    let store = Arc::new(PostgresStore::open(&config).unwrap());
    let engine = Ledger::with_stores(ledger, store.clone(), store, LedgerOptions::default()).unwrap();
    let told = engine.submit(Request::deposit(customer, TransactionId::new(2), Amount::from_steps(1)));
    assert!(matches!(told, Ok(Outcome::Applied(_))), "{told:?}");
    assert_eq!(engine.customer(customer).unwrap().unwrap().seq, 2);
}

#[test]
fn nothing_is_answered_on_what_the_next_primary_does_not_have() {
    nothing_is_answered_on_what_is_lost(true);
}

/// The same, where nobody has told the next primary to wait for standbys: it is the only server that is left, perhaps.
#[test]
fn nothing_is_answered_on_what_a_primary_without_standbys_does_not_have() {
    nothing_is_answered_on_what_is_lost(false);
}

/// The standbys are away, and commits wait for them. Whoever cancels a statement that waits makes the server say that it is
/// committed, with a warning; and settings may change under open connections. None of it makes an answer of it.
#[test]
fn a_wait_for_standbys_that_is_cancelled_is_no_acknowledgement() {
    let mut cluster = Cluster::start(&[SYNCHRONOUS]);
    let (config, ledger) = ledger_in(&cluster);
    let config = PostgresConfig { retry_for_ms: 2_000, connections: 1, ..config };
    let store = Arc::new(PostgresStore::open(&config).unwrap());
    let engine = Ledger::with_stores(ledger, store.clone(), store, LedgerOptions::default()).unwrap();
    let deposit = |id| Request::deposit(CustomerId::new(id), TransactionId::new(id), Amount::from_steps(1));
    assert!(matches!(engine.submit(deposit(1)), Ok(Outcome::Applied(_))));
    let primary = &cluster.servers[cluster.primary];
    primary.psql("ALTER SYSTEM SET synchronous_commit = 'local'");
    primary.psql("SELECT pg_reload_conf()");
    primary.wait_for("SHOW synchronous_commit", "local");
    for standby in cluster.standbys() {
        cluster.servers[standby].stop();
    }
    let primary = &cluster.servers[cluster.primary];
    primary.wait_for("SELECT count(*) FROM pg_stat_replication", "0");
    let mut cancelled = 0;
    let told = std::thread::scope(|scope| {
        let asking = scope.spawn(|| engine.submit(deposit(2)));
        while !asking.is_finished() {
            let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            cancelled += primary.psql(cancel).parse::<u32>().unwrap();
        }
        asking.join().unwrap()
    });
    assert!(told.is_err(), "told of what is on one machine: {told:?}");
    // The event, its proposal, its end, and what should make all of it certain.
    assert!(cancelled >= 4, "{cancelled}");
}
