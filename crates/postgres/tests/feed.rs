//! The feed beside writers that overtake each other, through faults, and from server to server.
//!
//! `BURSAR_FAULT_ROUNDS=20` says how many rounds of faults, `BURSAR_FAULT_SEED` which.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
mod engines;
mod following;
mod history;

use bursar_engine::core::commit::Outcome;
use bursar_engine::core::{Amount, Currencies, CustomerId, EventStatus, LedgerConfig, Policy, Request, TransactionId};
use bursar_engine::store::{Chains, FeedError, FeedItem};
use bursar_engine::{Ledger, LedgerOptions, new_config};
use bursar_postgres::{PostgresConfig, PostgresStore, migrate};
use common::PostgresServer;
use engines::{Dice, Engine};
use following::{Following, all, check, read_on};
use history::History;
use std::sync::Arc;
use std::time::Duration;

/// Not a test of its own: the engine process, which another test starts.
#[test]
fn engine_process() {
    engines::engine_process();
}

fn ledger() -> LedgerConfig {
    new_config(Policy::default(), Currencies::default()).unwrap()
}

fn deposit(customer: u128, id: u128) -> Request {
    Request::deposit(CustomerId::new(customer), TransactionId::new(id), Amount::from_steps(1))
}

fn open(config: &PostgresConfig) -> (Arc<PostgresStore>, Ledger) {
    let store = Arc::new(PostgresStore::open(config).unwrap());
    let ledger = Ledger::with_stores(store.config().clone(), store.clone(), store.clone(), LedgerOptions::default());
    (store, ledger.unwrap())
}

fn apply(ledger: &Ledger, request: Request) {
    let outcome = ledger.submit(request).unwrap();
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
}

/// The transactions of records.
fn transactions(items: &[FeedItem]) -> Vec<u128> {
    items.iter().map(|item| item.entry.linked.event.transaction.unwrap().bits()).collect()
}

/// One engine's transaction has the smaller number and commits last. A reader that had gone on behind the other one's
/// record by then would never have seen it.
#[test]
fn a_record_never_turns_up_behind_a_position_that_was_given() {
    let server = PostgresServer::start();
    let config = server.fresh_schema();
    drop(PostgresStore::create(&config, &ledger()).unwrap());
    let ((store, slow), (_, fast)) = (open(&config), open(&config));
    apply(&slow, deposit(1, 1));
    let mut other = server.session();
    // What the first engine counts, so far the only one: its next statement waits in the middle.
    other.run("BEGIN");
    other.run(&format!("SELECT * FROM {}.sums FOR UPDATE", config.schema));
    let feed = store.feed().unwrap();
    let mut items = Vec::new();
    let mut position = read_on(feed, feed.start(), 10, &mut items).unwrap();
    assert_eq!(transactions(&items), [1]);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| apply(&slow, deposit(2, 2)));
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        server.wait_for(waiting, "1");
        for id in 3..6 {
            apply(&fast, deposit(id, id));
            position = read_on(feed, position, 10, &mut items).unwrap();
        }
        other.run("COMMIT");
        waits.join().unwrap();
    });
    read_on(feed, position, 10, &mut items).unwrap();
    assert_eq!(transactions(&items), [1, 2, 3, 4, 5]);
    assert_eq!(check(&*store, &items), Vec::<String>::new());
    assert_eq!(all(&*store, 2), items);
}

/// A transaction of somebody else that has written, anywhere on the server, holds the feed back as long as it lasts.
#[test]
fn a_foreign_transaction_holds_the_feed_back_and_nothing_is_lost() {
    let server = PostgresServer::start();
    let config = server.fresh_schema();
    drop(PostgresStore::create(&config, &ledger()).unwrap());
    let (store, ledger) = open(&config);
    let feed = store.feed().unwrap();
    let mut other = server.session();
    // One that only reads does not.
    other.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    other.run("SELECT count(*) FROM pg_class");
    apply(&ledger, deposit(1, 1));
    let mut items = Vec::new();
    let position = read_on(feed, feed.start(), 10, &mut items).unwrap();
    assert_eq!(transactions(&items), [1]);
    let before = feed.newest_mark().unwrap();
    other.run("SELECT pg_current_xact_id()");
    apply(&ledger, deposit(1, 2));
    assert_eq!(read_on(feed, position, 10, &mut items).unwrap(), position);
    assert_eq!((feed.newest_mark().unwrap(), feed.latest().unwrap()), (before, position));
    // It is in the chain all the same.
    assert_eq!(ledger.customer(CustomerId::new(1)).unwrap().unwrap().seq, 2);
    other.run("ROLLBACK");
    assert_ne!(feed.newest_mark().unwrap(), before);
    read_on(feed, position, 10, &mut items).unwrap();
    assert_eq!(transactions(&items), [1, 2]);
}

/// Two engine processes, with a rail and keys; connections are cut, the server is killed and paused, engines die, and
/// others' transactions stay open for a while.
#[test]
fn a_follower_beside_several_engines_and_faults_sees_every_record_once() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let rounds = number("BURSAR_FAULT_ROUNDS", 5);
    let seed = number("BURSAR_FAULT_SEED", u64::from(std::process::id()));
    println!("BURSAR_FAULT_SEED={seed}");
    let mut dice = Dice(seed);
    let mut server = PostgresServer::start();
    let config = server.fresh_schema();
    let mine = ledger();
    drop(PostgresStore::create(&config, &mine).unwrap());
    let (logs, mut history) = (tempfile::tempdir().unwrap(), History::default());
    let own = PostgresConfig { schema: config.schema.clone(), ..engines::impatient(&config.url) };
    let following = Following::start(move || PostgresStore::open(&own).ok());
    for round in 0..rounds {
        let mut started = 0;
        let mut engine = |dice: &mut Dice| {
            started += 1;
            Engine::start(&config, round, dice.roll() >> 8, &logs.path().join(format!("{round}-{started}")))
        };
        let mut engines: Vec<Engine> = (0..2).map(|_| engine(&mut dice)).collect();
        std::thread::sleep(Duration::from_millis(300 + dice.below(300)));
        let mut other = server.session();
        other.run("BEGIN");
        other.run("SELECT pg_current_xact_id()");
        std::thread::sleep(Duration::from_millis(dice.below(300)));
        match round % 5 {
            0 => {
                let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name = 'bursar'";
                assert_ne!(server.psql(cut), "0");
            }
            1 => {
                server.kill();
                server.run();
            }
            2 => {
                server.pause(true);
                std::thread::sleep(Duration::from_millis([50, 500, 3_500][dice.below(3) as usize]));
                server.pause(false);
            }
            3 => {
                server.stop();
                server.run();
            }
            _ => {
                engines.remove(0).kill();
                engines.push(engine(&mut dice));
            }
        }
        drop(other);
        std::thread::sleep(Duration::from_millis(300 + dice.below(300)));
        engines.into_iter().for_each(Engine::stop);
        for number in 1..=started {
            history.take(&std::fs::read_to_string(logs.path().join(format!("{round}-{number}"))).unwrap());
        }
        // What was left open is closed here.
        let wrong = history::check(&config, &mine, &history);
        assert!(wrong.is_empty(), "seed {seed}, round {round}:\n{}", wrong.join("\n"));
    }
    let items = following.finish();
    let store = PostgresStore::open(&config).unwrap();
    let wrong = check(&store, &items);
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    assert_eq!(all(&store, 1_000), items);
    let waited = items.iter().filter(|item| item.entry.linked.event.rail.is_some()).count();
    println!("{rounds} rounds: {} records, {waited} of events that went through a rail", items.len());
    assert!(items.len() as u64 > 50 * rounds && waited > 10, "too little was done: {} and {waited}", items.len());
}

/// A batch is one transaction of the server: all of its records lie at one place, and pages end in the middle of it.
#[test]
fn large_batches_are_read_in_pages() {
    let server = PostgresServer::start();
    let config = server.fresh_schema();
    let store = Arc::new(PostgresStore::create(&config, &ledger()).unwrap());
    let ledger = Ledger::with_stores(store.config().clone(), store.clone(), store.clone(), LedgerOptions::default());
    let ledger = ledger.unwrap();
    for first in [0, 10_000] {
        ledger.submit_batch((first..first + 3_000).map(|id| deposit(id % 700, id)).collect()).unwrap();
    }
    let items = all(&*store, 5_000);
    assert_eq!(items.len(), 6_000);
    assert!(items.iter().any(|item| item.position.passed > 500), "no place has many records");
    assert_eq!(check(&*store, &items), Vec::<String>::new());
    assert_eq!(all(&*store, 97), items);
    for item in items.iter().step_by(271) {
        let mut page = Vec::new();
        store.feed().unwrap().read(item.position, 5, &mut page).unwrap();
        let at = items.iter().position(|other| other == item).unwrap();
        assert_eq!(page, items[at + 1..items.len().min(at + 6)]);
    }
}

/// A ledger that was made without a feed, as all were before there was one, is given one: what is there is in it.
#[test]
fn a_ledger_without_a_feed_is_given_one() {
    let server = PostgresServer::start();
    let config = PostgresConfig { feed: false, ..server.fresh_schema() };
    drop(PostgresStore::create(&config, &ledger()).unwrap());
    let (store, old) = open(&config);
    assert!(store.feed().is_none() && matches!(old.feed_start(), Err(FeedError::Unavailable)));
    // More than one place takes.
    old.submit_batch((1..2_500).map(|id| deposit(id % 40, id)).collect()).unwrap();
    // As it was before this program knew of places, and some events had gone through a rail: those are two records each.
    let schema = &config.schema;
    server.psql(&format!(
        "SET search_path = {schema}; UPDATE events SET rail = 1 WHERE seq % 3 = 0; DROP TABLE feed; ALTER TABLE events DROP written; ALTER TABLE statuses DROP written; \
         DELETE FROM migrations WHERE version = 2"
    ));
    let with_feed = PostgresConfig { feed: true, ..config.clone() };
    assert!(PostgresStore::open(&config).is_err());
    assert_eq!(migrate(&with_feed).unwrap(), 1);
    // An engine that was there before does not write past the feed.
    assert!(old.submit(deposit(1, 9_000)).is_err());
    let (store, new) = open(&config);
    // What it had begun is closed.
    apply(&new, deposit(1, 9_001));
    let items = all(&*store, 77);
    assert_eq!(check(&*store, &items), Vec::<String>::new());
    let with_rail = items.iter().filter(|item| item.entry.status == EventStatus::Started).count();
    assert_eq!((with_rail, items.len()), (19 * 21 + 21 * 20, 2_499 + with_rail + 2));
    // Their ends were put right behind their beginnings, so that none begins before the one before it had ended.
    let is_split = |two: &&[FeedItem]| {
        two[0].entry.status == EventStatus::Started && two[0].entry.linked.id() != two[1].entry.linked.id()
    };
    assert_eq!(items.windows(2).filter(is_split).count(), 0);
    let places: std::collections::BTreeSet<u64> = items.iter().map(|item| item.position.at).collect();
    assert!(places.len() >= 4, "{places:?}");
    // A second time nothing changes.
    migrate(&with_feed).unwrap();
    assert_eq!(all(&*store, 500), items);
}

/// A ledger moves, with `pg_dump`, to a server whose transactions have lower numbers.
#[test]
fn a_restored_ledger_goes_on_behind_what_is_there() {
    let servers = [PostgresServer::start(), PostgresServer::start()];
    servers[0].psql("DO $$ BEGIN FOR i IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$");
    let config = servers[0].fresh_schema();
    drop(PostgresStore::create(&config, &ledger()).unwrap());
    let (store, first) = open(&config);
    for id in 1..20 {
        apply(&first, deposit(id % 3, id));
    }
    let before = all(&*store, 7);
    let dump = servers[0].dump(&config.schema);
    apply(&first, deposit(1, 100));
    let after = all(&*store, 7).pop().unwrap();
    let mut restoring = servers[1].session();
    restoring.run(&dump);
    let moved = PostgresConfig { schema: config.schema.clone(), ..servers[1].config() };
    let (store, ledger) = open(&moved);
    let feed = store.feed().unwrap();
    assert_eq!(all(&*store, 7), before);
    let lost = feed.read(after.position, 1, &mut Vec::new());
    assert!(matches!(lost, Err(FeedError::BehindEnd)), "{lost:?}");
    for id in 200..230 {
        apply(&ledger, deposit(id % 3, id));
    }
    let now = all(&*store, 7);
    assert_eq!(now[..before.len()], before);
    assert_eq!(now.len(), before.len() + 30);
    assert_eq!(check(&*store, &now), Vec::<String>::new());
    // Another record lies there now, or none; what was given out before the dump is good.
    let lost = feed.read(after.position, 1, &mut Vec::new());
    assert!(matches!(lost, Err(FeedError::BehindEnd | FeedError::NotAPosition)), "{lost:?}");
    let mut rest = Vec::new();
    read_on(feed, before.last().unwrap().position, 9, &mut rest).unwrap();
    assert_eq!(rest, now[before.len()..]);
    // A second engine, and the same one after the server was started anew, find nothing to mend.
    let base = || servers[1].psql(&format!("SELECT base FROM {}.feed", config.schema));
    let known = base();
    assert_ne!(known, "0");
    drop(open(&moved));
    assert_eq!(base(), known);
}
