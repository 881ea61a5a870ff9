//! What the cache spares where PostgreSQL is at the end of a slow link, and what it costs where it is not:
//!
//! ```text
//! cargo run --release -p bursar-cache --example slow_link
//! ```
//!
//! It starts a PostgreSQL and a Redis server of its own. A proxy in front of PostgreSQL lets every byte wait, as a network
//! does; Redis is near. With and without a cache take turns. Times are medians in microseconds for each call.
#![allow(clippy::unwrap_used, clippy::panic)] // a measurement ends where something is wrong

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../../postgres/tests/common/mod.rs"]
mod postgres;

use bursar_cache::{CacheFigures, CacheSettings, wrap};
use bursar_engine::core::{Amount, Currencies, CustomerId, Policy, Request, TransactionId};
use bursar_engine::{Ledger, LedgerOptions, new_config};
use bursar_postgres::{PostgresConfig, PostgresStore};
use common::RedisServer;
use postgres::PostgresServer;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

const CALLS: u128 = 200;
const BATCH: u128 = 256;

/// Passes bytes on, each a while after it came.
fn pass_on(mut from: impl Read, mut to: impl Write + Send + 'static, delay: Duration) {
    let (sender, receiver) = channel::<(Instant, Vec<u8>)>();
    let writing = thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
    });
    let mut bytes = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if sender.send((Instant::now() + delay, bytes[..count].to_vec())).is_err() {
            break;
        }
    }
    drop(sender);
    writing.join().unwrap();
}

/// A way to the server over which a round trip takes `round_trip` longer.
fn slow_way(server: &PostgresServer, round_trip: Duration) -> PostgresConfig {
    let config = server.fresh_schema();
    let host = config.url.split(['@', '/']).nth(3).unwrap().replace("%2F", "/");
    let socket = format!("{host}/.s.PGSQL.5432");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgresql://bursar@{}/postgres", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming() {
            let client: TcpStream = client.unwrap();
            client.set_nodelay(true).unwrap();
            let server = UnixStream::connect(&socket).unwrap();
            let (client_in, server_in) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || pass_on(client_in, server, round_trip / 2));
            thread::spawn(move || pass_on(server_in, client, round_trip / 2));
        }
    });
    PostgresConfig { url, ..config }
}

fn deposit(n: u128) -> Request {
    Request::deposit(CustomerId::new(n % 64 + 1), TransactionId::new(n), Amount::from_steps(100))
}

/// The median time of a call, in microseconds.
fn median_us(calls: impl Iterator<Item = u128>, mut call: impl FnMut(u128)) -> u128 {
    let mut times: Vec<u128> = calls
        .map(|n| {
            let begun = Instant::now();
            call(n);
            begun.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Medians of: a new deposit, one of a batch, a repeat of long ago, of the customer's newest, one of a batch, an account, a
/// transaction.
fn measure(postgres: &PostgresConfig, settings: Option<&CacheSettings>) -> ([u128; 7], Option<CacheFigures>) {
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let store = Arc::new(PostgresStore::create(postgres, &config).unwrap());
    let cached = settings.map(|settings| wrap(&config, store.clone(), store.clone(), settings).unwrap());
    let options = LedgerOptions {
        readers: cached.as_ref().and_then(|cached| cached.readers.clone()),
        ..LedgerOptions::default()
    };
    let ledger = match &cached {
        Some(cached) => {
            Ledger::with_stores(config, cached.chains.clone(), cached.transactions.clone(), options).unwrap()
        }
        None => Ledger::with_stores(config, store.clone(), store, options).unwrap(),
    };
    let submit = |n| drop(ledger.submit(deposit(n)).unwrap());
    let batch = |first| {
        let requests = (first..first + BATCH).map(deposit).collect();
        assert!(ledger.submit_batch(requests).unwrap().into_iter().all(|outcome| outcome.is_ok()));
    };
    let batches = || (1_000..1_000 + 20 * BATCH).step_by(BATCH as usize);
    let new_batches = median_us(batches(), batch) / BATCH;
    let new = median_us(1..=CALLS, submit);
    // Entries are put in the background.
    thread::sleep(Duration::from_secs(2));
    let newest = median_us(CALLS - 63..=CALLS, submit);
    let old = median_us(1..=CALLS - 64, submit);
    let old_batches = median_us(batches(), batch) / BATCH;
    let account = |n| drop(ledger.customer(CustomerId::new(n % 64 + 1)).unwrap());
    let transaction = |n| drop(ledger.transaction(TransactionId::new(n % 20 + 1)).unwrap());
    (1..=64).for_each(account);
    (1..=20).for_each(transaction);
    let account = median_us(1..=CALLS, account);
    let transaction = median_us(1..=CALLS, transaction);
    let figures = cached.and_then(|cached| Some(cached.cache?.figures()));
    ([new, new_batches, old, newest, old_batches, account, transaction], figures)
}

fn main() {
    let (server, redis) = (PostgresServer::start(), RedisServer::start());
    let settings = CacheSettings { shown_for_ms: 60_000, ..redis.settings() };
    let columns = ["new", "new, of 256", "repeat", "repeat of newest", "repeat, of 256", "account", "transaction"];
    println!("round trip, cache | {}", columns.join(" | "));
    for round_trip_ms in [0, 2, 10] {
        for (name, settings) in [("without", None), ("with", Some(&settings))] {
            let way = slow_way(&server, Duration::from_millis(round_trip_ms));
            let (medians, figures) = measure(&way, settings);
            println!("{round_trip_ms} ms, {name} | {}", medians.map(|us| us.to_string()).join(" | "));
            if let Some(figures) = figures {
                println!("    {figures:?}");
            }
        }
    }
}
