//! A cache that hangs, refuses, is full, restarts or tells nonsense: calls go on without it, and their answers are those
//! of the stores.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_cache::{CacheError, CacheSettings, Cached, wrap};
use bursar_engine::core::commit::Outcome;
use bursar_engine::core::{Amount, Currencies, CustomerId, LedgerConfig, Policy, Request, TransactionId};
use bursar_engine::store::MemoryStore;
use bursar_engine::{Ledger, LedgerOptions, new_config};
use common::RedisServer;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

struct World {
    ledger: Ledger,
    cached: Cached,
}

fn world(settings: &CacheSettings) -> World {
    world_of(&new_config(Policy::default(), Currencies::default()).unwrap(), settings)
}

fn world_of(config: &LedgerConfig, settings: &CacheSettings) -> World {
    let store = Arc::new(MemoryStore::new(config).with_split_batches());
    let cached = wrap(config, store.clone(), store, settings).unwrap();
    let options = LedgerOptions { readers: cached.readers.clone(), ..LedgerOptions::default() };
    let ledger =
        Ledger::with_stores(config.clone(), cached.chains.clone(), cached.transactions.clone(), options).unwrap();
    World { ledger, cached }
}

fn deposit(n: u128) -> Request {
    Request::deposit(CustomerId::new(n % 5), TransactionId::new(n), Amount::from_steps(100))
}

/// Does what ledgers do, for some transactions, and looks that everything is as it is without a cache.
fn live(world: &World, transactions: std::ops::Range<u128>) {
    for n in transactions {
        let before = world.ledger.customer(CustomerId::new(n % 5)).unwrap();
        let available = before.map_or(0, |head| head.state.accounts.first().unwrap().1.available.steps());
        let applied = world.ledger.submit(deposit(n)).unwrap();
        let Outcome::Applied(receipt) = applied else { panic!("{applied:?}") };
        assert!(receipt.account.available.steps() >= available + 100);
        assert_eq!(world.ledger.submit(deposit(n)).unwrap(), Outcome::AlreadyApplied(None));
        let view = world.ledger.transaction(TransactionId::new(n)).unwrap().unwrap();
        assert_eq!(view.events, [receipt.event]);
        let other = Request::deposit(CustomerId::new(n % 5), TransactionId::new(n), Amount::from_steps(7));
        assert!(matches!(world.ledger.submit(other).unwrap(), Outcome::Rejected(_)));
    }
}

fn failures(world: &World) -> u64 {
    world.cached.cache.as_ref().unwrap().figures().failures
}

/// Until the cache answers again.
fn wait_until_asked_again(world: &World) {
    let hits = || world.cached.cache.as_ref().unwrap().figures().hits;
    let before = hits();
    for _ in 0..3_000 {
        world.ledger.customer(CustomerId::new(1)).unwrap();
        if hits() > before {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the cache is never asked again: {:?}", world.cached.cache);
}

fn impatient(settings: CacheSettings) -> CacheSettings {
    CacheSettings { pause_ms: 50, ..settings }
}

#[test]
fn a_cache_that_refuses_is_done_without() {
    let mut redis = RedisServer::start();
    redis.kill();
    let world = world(&redis.settings());
    live(&world, 0..20);
    let failed = failures(&world);
    assert!(failed > 0 && world.cached.cache.as_ref().unwrap().figures().is_left_alone);
    redis.run();
}

#[test]
fn a_cache_that_hangs_is_left_alone_and_asked_again_later() {
    let redis = RedisServer::start();
    let world = world(&impatient(redis.settings()));
    live(&world, 0..5);
    let before = failures(&world);
    redis.pause(true);
    live(&world, 5..40);
    assert!(failures(&world) > before);
    redis.pause(false);
    wait_until_asked_again(&world);
    live(&world, 40..45);
}

#[test]
fn a_cache_that_restarts_is_used_again() {
    let mut redis = RedisServer::start();
    let world = world(&impatient(redis.settings()));
    live(&world, 0..5);
    redis.kill();
    live(&world, 5..10);
    redis.run();
    wait_until_asked_again(&world);
    live(&world, 10..15);
}

#[test]
fn a_cache_without_room_is_done_without() {
    let redis = RedisServer::start_with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let world = world(&impatient(redis.settings()));
    live(&world, 0..20);
    assert!(redis.keys("bursar:").is_empty());
}

#[test]
fn a_cache_that_evicts_all_the_time_costs_no_answer() {
    let redis = RedisServer::start_with(&["--maxmemory", "1500kb", "--maxmemory-policy", "allkeys-random"]);
    let world = world(&impatient(redis.settings()));
    live(&world, 0..200);
}

/// It would refuse most keys, and be done without for ever.
#[test]
fn a_node_of_a_cluster_is_refused_with_what_to_do() {
    let redis = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let store = Arc::new(MemoryStore::new(&config).with_split_batches());
    let refused = wrap(&config, store.clone(), store.clone(), &redis.settings()).unwrap_err();
    let CacheError::Setting { field: "url", what } = &refused else { panic!("{refused}") };
    assert!(what.contains("cluster") && what.contains("cluster-enabled"), "{refused}");
    // One that does not tell is none, as far as anybody knows.
    redis.pause(true);
    let settings = CacheSettings { connect_timeout_ms: 100, ..redis.settings() };
    live(&world_of(&config, &settings), 0..5);
    redis.pause(false);
}

#[test]
fn a_wrong_password_is_done_without_and_the_right_one_is_not() {
    let redis = RedisServer::start_with(&["--requirepass", "let me in"]);
    live(&world(&redis.settings()), 0..5);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "let me in\n").unwrap();
    let settings = CacheSettings { password_file: Some(file.path().to_owned()), ..redis.settings() };
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let world = world_of(&config, &settings);
    live(&world, 0..5);
    wait_until_asked_again(&world);
}

/// The certificates of the service's tests: each vouches for itself, for `localhost` and 127.0.0.1.
#[test]
fn only_a_server_that_somebody_vouches_for_is_asked() {
    let file =
        |name: &str| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/tests/tls-files").join(name);
    let (certificate, key) = (file("one.cert.pem"), file("one.key.pem"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let tls = ["--tls-port", &port.to_string(), "--tls-auth-clients", "no", "--tls-cert-file"];
    let _redis = RedisServer::start_with(
        &[&tls[..], &[certificate.to_str().unwrap(), "--tls-key-file", key.to_str().unwrap()]].concat(),
    );
    let url = format!("rediss://127.0.0.1:{port}");
    let vouched = |by: std::path::PathBuf| impatient(CacheSettings { ca_file: Some(by), ..CacheSettings::new(&url) });
    let known = world(&vouched(certificate));
    live(&known, 0..5);
    wait_until_asked_again(&known);
    let unknown = world(&vouched(file("other.cert.pem")));
    live(&unknown, 0..5);
    let figures = unknown.cached.cache.as_ref().unwrap().figures();
    assert!(figures.failures > 0 && figures.hits == 0 && figures.misses == 0, "{figures:?}");
}

/// A server that answers whatever it is asked with the same bytes, slowly where asked, and never ends.
fn nonsense(bytes: &'static [u8], pause: Option<Duration>) -> CacheSettings {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut asked = vec![0; 65_536];
                while stream.read(&mut asked).is_ok_and(|count| count > 0) {
                    for piece in bytes.chunks(if pause.is_some() { 1 } else { bytes.len() }) {
                        pause.into_iter().for_each(std::thread::sleep);
                        if stream.write_all(piece).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    impatient(CacheSettings::new(&url))
}

#[test]
fn nonsense_is_not_believed() {
    let slow = Some(Duration::from_millis(20));
    let table: [(&'static [u8], Option<Duration>); 7] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", None),
        (b"+OK\r\n", None),
        (b"*1\r\n$3\r\nabc\r\n", None),
        (b"*1000000000\r\n", None),
        (b"$2000000000\r\nabc", None),
        (b"\x00\xff\xfe*-\r\n\r\n", None),
        (b"+OK\r\n+OK\r\n*1\r\n$3\r\nabc\r\n", slow),
    ];
    for (bytes, pause) in table {
        let world = world(&nonsense(bytes, pause));
        live(&world, 0..10);
        assert!(failures(&world) > 0 || bytes.starts_with(b"*1\r") || bytes.starts_with(b"+OK"), "{bytes:?}");
        assert_eq!(world.cached.cache.as_ref().unwrap().figures().hits, 0, "{bytes:?}");
    }
}

#[test]
fn ledgers_do_not_meet_in_one_cache() {
    let redis = RedisServer::start();
    let one = world(&redis.patient_settings());
    live(&one, 0..10);
    redis.wait_for(":m:", 10);
    let other = world(&redis.patient_settings());
    assert_eq!(other.ledger.customer(CustomerId::new(1)).unwrap(), None);
    live(&other, 0..10);
}

#[test]
fn settings_are_read_and_checked() {
    let read = |text: &str| toml::from_str::<CacheSettings>(text);
    let settings = read("url = 'rediss://cache.example:6380/2'\nshown_for_ms = 500\nrepeats = false").unwrap();
    assert_eq!(settings, {
        let url = "rediss://cache.example:6380/2".to_owned();
        CacheSettings { url, shown_for_ms: 500, repeats: false, ..CacheSettings::new("") }
    });
    assert!(read("url = 'redis://x'\nshown_for = 3").is_err());
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let store = Arc::new(MemoryStore::new(&config).with_split_batches());
    let wrapped = |settings: &CacheSettings| wrap(&config, store.clone(), store.clone(), settings).map(|_| ());
    let good = CacheSettings::new("redis://127.0.0.1:1");
    wrapped(&good).unwrap();
    let short = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(short.path(), "too short\n").unwrap();
    let wrong = [
        ("bad_setting", CacheSettings { url: "http://:secret@x".to_owned(), ..good.clone() }),
        ("bad_setting", CacheSettings { timeout_ms: 0, ..good.clone() }),
        ("bad_setting", CacheSettings { password_env: Some("BURSAR_NO_SUCH_VARIABLE".to_owned()), ..good.clone() }),
        ("bad_setting", CacheSettings { secret_file: Some(short.path().to_owned()), ..good.clone() }),
        ("unreadable_file", CacheSettings { ca_file: Some("/nowhere/ca.pem".into()), ..good.clone() }),
    ];
    for (code, settings) in wrong {
        let error = wrapped(&settings).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(!error.to_string().contains("secret@"), "{error}");
    }
}
