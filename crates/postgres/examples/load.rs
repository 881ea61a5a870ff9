//! How fast whole transactions go into PostgreSQL, beside a bare load of the same rows, in alternating rounds.
//!
//! ```text
//! cargo run --release -p bursar-postgres --example load -- --transactions 200000 --batch 1024 --engines 2
//! ```
//!
//! Starts a server of its own with everything on that makes it durable. One round of the ledger: engines over one
//! schema, each with its share of the customers and many requests in flight; every outcome is waited for. One bare
//! round: the rows that the ledger left behind, read back, sent again in batches of the same size as plain
//! `INSERT … SELECT FROM unnest`, over as many connections, into the same tables of another schema.

#![allow(clippy::unwrap_used, clippy::panic, clippy::float_arithmetic, clippy::cast_precision_loss)] // prints figures

#[path = "../tests/common/mod.rs"]
mod common;

use bursar_engine::core::{Amount, Currencies, CustomerId, LedgerConfig, Policy, Request, TransactionId};
use bursar_engine::{Ledger, LedgerOptions, SubmitError, new_config};
use bursar_postgres::{Approve, PostgresConfig, PostgresStore};
use bytes::{BufMut, BytesMut};
use common::{PostgresServer, cpu_ticks};
use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};
use tokio_postgres::{Client, NoTls};

#[derive(Clone, Debug)]
struct Plan {
    transactions: u64,
    batch: usize,
    engines: u64,
    customers: u64,
    rounds: usize,
    /// Say where the server's time goes, by `pg_stat_statements`.
    statements: bool,
    approve: Approve,
    heads_kept: usize,
    feed: bool,
}

fn plan() -> Plan {
    let approve = Approve::Lazily;
    let (transactions, batch, engines, customers, rounds, statements) = (200_000, 1024, 2, 50_000, 3, false);
    let heads_kept = PostgresConfig::new("").heads_kept;
    let mut plan =
        Plan { transactions, batch, engines, customers, rounds, statements, approve, heads_kept, feed: true };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        if name == "--approve-at-once" {
            plan.approve = Approve::AtOnce;
            continue;
        }
        if name == "--without-feed" {
            plan.feed = false;
            continue;
        }
        if name == "--statements" {
            plan.statements = true;
            continue;
        }
        let value: u64 =
            args.next().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} needs a number"));
        match name.as_str() {
            "--transactions" => plan.transactions = value,
            "--batch" => plan.batch = value as usize,
            "--engines" => plan.engines = value,
            "--customers" => plan.customers = value,
            "--heads-kept" => plan.heads_kept = value as usize,
            "--rounds" => plan.rounds = value as usize,
            other => panic!("unknown flag {other}"),
        }
    }
    plan
}

fn main() {
    let plan = plan();
    let mut settings = vec!["shared_buffers=1GB", "max_wal_size=16GB", "checkpoint_timeout=30min", "wal_buffers=64MB"];
    if plan.statements {
        settings.push("shared_preload_libraries=pg_stat_statements");
    }
    let server = PostgresServer::start_with(&settings);
    if plan.statements {
        server.psql("CREATE EXTENSION pg_stat_statements");
    }
    println!("{plan:?}");
    println!("{}; {}", server.psql("SELECT version()"), settings.join(", "));
    println!("fsync {}, synchronous_commit {}", server.psql("SHOW fsync"), server.psql("SHOW synchronous_commit"));
    let ledger = new_config(Policy::default(), Currencies::default()).unwrap();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let (approve, heads_kept, feed) = (plan.approve, plan.heads_kept, plan.feed);
        let config = PostgresConfig { approve, heads_kept, feed, ..server.fresh_schema() };
        let used = || (cpu_ticks("self", false), server.cpu_ticks());
        let begun = used();
        ours.push(run_ledger(&plan, &config, &ledger, round as u64));
        let ours_used = per_transaction(&plan, begun, used());
        let rows = read_back(&config);
        // Bare rows have no places of a feed.
        let other = PostgresConfig { feed: false, ..server.fresh_schema() };
        drop(PostgresStore::create(&other, &ledger).unwrap());
        let begun = used();
        bare.push(run_bare(&plan, &other, rows));
        let bare_used = per_transaction(&plan, begun, used());
        server.psql("CHECKPOINT");
        let (ours, bare) = (ours[round], bare[round]);
        println!("round {round}: ledger {ours:.0}/s ({ours_used}), bare load {bare:.0}/s ({bare_used})");
    }
    if plan.statements {
        let by_time = "SELECT round(sum(total_exec_time)), sum(calls), sum(rows), left(query, 110) \
            FROM pg_stat_statements GROUP BY 4 ORDER BY 1 DESC LIMIT 12";
        println!("milliseconds of the server | calls | rows | statement\n{}", server.psql(by_time));
    }
    let mut ratios: Vec<f64> = ours.iter().zip(&bare).map(|(ours, bare)| 100.0 * ours / bare).collect();
    ratios.sort_by(f64::total_cmp);
    ours.sort_by(f64::total_cmp);
    bare.sort_by(f64::total_cmp);
    let (ours, bare) = (ours[plan.rounds / 2], bare[plan.rounds / 2]);
    let [least, middle, most] = [0, plan.rounds / 2, plan.rounds - 1].map(|at| ratios[at]);
    println!("median: ledger {ours:.0}/s, bare load {bare:.0}/s");
    println!("of the bare load, round by round: median {middle:.0}%, from {least:.0}% to {most:.0}%");
}

/// What a transaction costs of the processors, here and in the server.
fn per_transaction(plan: &Plan, begun: (u64, u64), ended: (u64, u64)) -> String {
    let micros = |ticks: u64| ticks as f64 * 10_000.0 / plan.transactions as f64;
    format!("{:.1} + {:.1} us of a processor", micros(ended.0 - begun.0), micros(ended.1 - begun.1))
}

/// A scattered number: ids come in no order.
const fn scattered(number: u64) -> u128 {
    (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn run_ledger(plan: &Plan, config: &PostgresConfig, ledger: &LedgerConfig, round: u64) -> f64 {
    drop(PostgresStore::create(config, ledger).unwrap());
    let mut options = LedgerOptions { queue_requests_max: 1 << 20, ..LedgerOptions::default() };
    options.limits.batch_requests_max = plan.batch;
    let engines: Vec<Arc<Ledger>> = (0..plan.engines)
        .map(|_| {
            let store = Arc::new(PostgresStore::open(config).unwrap());
            Arc::new(Ledger::with_stores(ledger.clone(), store.clone(), store, options.clone()).unwrap())
        })
        .collect();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for (engine, number) in engines.iter().zip(0_u64..) {
            scope.spawn(move || feed(plan, engine, number, round));
        }
    });
    let took = begun.elapsed();
    plan.transactions as f64 / took.as_secs_f64()
}

/// Hands in an engine's share of the requests, four batches ahead, and waits for every outcome.
fn feed(plan: &Plan, engine: &Ledger, number: u64, round: u64) {
    let (told, outcomes) = sync_channel(1024);
    let mut in_flight = 0;
    let mine: Vec<u64> = (0..plan.transactions).filter(|n| n % plan.engines == number).collect();
    let check = |outcomes: Vec<_>| {
        for outcome in outcomes {
            let outcome: Result<_, SubmitError> = outcome;
            assert!(matches!(outcome, Ok(bursar_engine::core::commit::Outcome::Applied(_))), "{outcome:?}");
        }
    };
    for chunk in mine.chunks(plan.batch) {
        let request = |n: &u64| {
            let customer = scattered(n.wrapping_mul(7919) % (plan.customers / plan.engines) * plan.engines + number);
            let transaction = scattered(round << 40 | n);
            Request::deposit(CustomerId::new(customer), TransactionId::new(transaction), Amount::from_steps(100))
        };
        let told = told.clone();
        engine.submit_then(chunk.iter().map(request).collect(), move |done| drop(told.send(done))).unwrap();
        in_flight += 1;
        if in_flight == 4 {
            check(outcomes.recv().unwrap());
            in_flight -= 1;
        }
    }
    for _ in 0..in_flight {
        check(outcomes.recv().unwrap());
    }
}

#[derive(Clone, Copy, Debug)]
struct Uuid([u8; 16]);

impl ToSql for Uuid {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }
    accepts!(UUID);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Uuid {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }
    accepts!(UUID);
}

/// The rows of some transactions, by columns.
#[derive(Default)]
struct Rows {
    uuids: [Vec<Uuid>; 3],
    numbers: [Vec<i64>; 5],
    small: [Vec<i16>; 2],
    flags: [Vec<bool>; 2],
    hashes: Vec<Vec<u8>>,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn connect(config: &PostgresConfig) -> Client {
    let client: tokio_postgres::Config = config.url.parse().unwrap();
    let (client, connection) = client.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute(&format!("SET search_path = {}; SET plan_cache_mode = force_generic_plan", config.schema))
        .await
        .unwrap();
    client
}

/// What the ledger has written, in the order in which it came.
fn read_back(config: &PostgresConfig) -> Rows {
    runtime().block_on(async {
        let client = connect(config).await;
        let columns = "customer, id, transaction, seq, time_ms, amount, available, held, kind, currency, withdrawal, locked, hash";
        let rows = client.query(&format!("SELECT {columns} FROM events ORDER BY time_ms, seq"), &[]).await.unwrap();
        let mut read = Rows::default();
        for row in rows {
            for (at, column) in read.uuids.iter_mut().enumerate() {
                column.push(row.get(at));
            }
            for (at, column) in read.numbers.iter_mut().enumerate() {
                column.push(row.get(3 + at));
            }
            for (at, column) in read.small.iter_mut().enumerate() {
                column.push(row.get(8 + at));
            }
            for (at, column) in read.flags.iter_mut().enumerate() {
                column.push(row.get(10 + at));
            }
            read.hashes.push(row.get(12));
        }
        read
    })
}

fn run_bare(plan: &Plan, config: &PostgresConfig, rows: Rows) -> f64 {
    let count = rows.hashes.len();
    let rows = Arc::new(rows);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..plan.engines as usize {
            let rows = rows.clone();
            scope.spawn(move || {
                runtime().block_on(async {
                    let client = connect(config).await;
                    for first in (0..count).step_by(plan.batch).skip(number).step_by(plan.engines as usize) {
                        load_batch(&client, &rows, first..count.min(first + plan.batch)).await;
                    }
                });
            });
        }
    });
    count as f64 / begun.elapsed().as_secs_f64()
}

const EVENTS: &str = "INSERT INTO events (customer, id, transaction, seq, time_ms, amount, available, held, kind, \
    currency, withdrawal, locked, hash) SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], \
    $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::smallint[], $10::smallint[], $11::boolean[], \
    $12::boolean[], $13::bytea[])";
const TRANSACTIONS: &str = "INSERT INTO transactions (id, customer, event_id, seq, amount, currency, status, withdrawal) \
    SELECT u.*, 1, false FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::smallint[]) u";
const STATUSES: &str =
    "INSERT INTO statuses (customer, seq, status) SELECT u.*, 1 FROM unnest($1::uuid[], $2::bigint[]) u";

async fn load_batch(client: &Client, rows: &Rows, part: std::ops::Range<usize>) {
    let [customers, ids, transactions] = rows.uuids.each_ref().map(|column| &column[part.clone()]);
    let [seqs, times, amounts, available, held] = rows.numbers.each_ref().map(|column| &column[part.clone()]);
    let [kinds, currencies] = rows.small.each_ref().map(|column| &column[part.clone()]);
    let [withdrawals, locked] = rows.flags.each_ref().map(|column| &column[part.clone()]);
    let hashes = &rows.hashes[part];
    let events = client.prepare(EVENTS).await.unwrap();
    let all: [&(dyn ToSql + Sync); 13] = [
        &customers,
        &ids,
        &transactions,
        &seqs,
        &times,
        &amounts,
        &available,
        &held,
        &kinds,
        &currencies,
        &withdrawals,
        &locked,
        &hashes,
    ];
    client.execute(&events, &all).await.unwrap();
    let table = client.prepare(TRANSACTIONS).await.unwrap();
    client.execute(&table, &[&transactions, &customers, &ids, &seqs, &amounts, &currencies]).await.unwrap();
    let statuses = client.prepare(STATUSES).await.unwrap();
    client.execute(&statuses, &[&customers, &seqs]).await.unwrap();
}
