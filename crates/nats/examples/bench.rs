//! Whole transactions per second over a cluster, beside bare publishes of as many messages in the same run.
//!
//! ```text
//! cargo run --release -p bursar-nats --example bench -- "$(.ci/nats-server)" [COUNT [feed]]
//! ```
//!
//! The last runs have somebody who follows the ledger beside them, in turn with runs without; with `feed` there are only
//! these. After runs without, the feed is read twice: by the first who does, which puts it in order, and once more.
//!
//! Starts three servers on loopback with `sync_interval: always`, each in a temporary directory of its own, and a ledger
//! whose streams have three replicas. The transactions table is in memory: the figure is that of the chains and the
//! engine. With a table in another store the slower of the two sets the pace.
//!
//! Rates depend on what else the machine does; what a message or a transaction costs the processors hardly does, so it is
//! printed beside them (where there is `/proc`).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::float_arithmetic,
    clippy::cast_precision_loss
)] // figures for people

use bursar_engine::core::commit::{Limits, Outcome};
use bursar_engine::core::{Amount, Currencies, CustomerId, Policy, Request, TransactionId};
use bursar_engine::store::{Chains, FeedPosition, MemoryStore};
use bursar_engine::{Ledger, LedgerOptions, new_config};
use bursar_nats::{NatsChains, NatsOptions};
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

struct Servers(Vec<Child>, Vec<String>);

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// What processors have spent: for the servers, and for this process.
#[derive(Clone, Copy)]
struct Spent {
    servers_us: f64,
    here_us: f64,
}

impl Spent {
    fn so_far(servers: &Servers) -> Self {
        // User and system time are the 14th and 15th field, in hundredths of a second; the name before may have spaces.
        let of = |process: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
            fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * 10_000.0
        };
        let servers_us = servers.0.iter().map(|child| of(&child.id().to_string())).sum();
        Self { servers_us, here_us: of("self") }
    }

    fn since(before: Self, servers: &Servers, count: u64) -> String {
        let now = Self::so_far(servers);
        let each = |now: f64, before: f64| (now - before) / count as f64;
        let (servers_us, here_us) = (each(now.servers_us, before.servers_us), each(now.here_us, before.here_us));
        format!("{servers_us:>4.0} us of the servers and {here_us:>4.0} us here for each")
    }
}

fn servers(program: &str, directory: &Path) -> Servers {
    let listeners: Vec<TcpListener> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    drop(listeners);
    let routes: Vec<String> = (0..3).map(|index| format!("nats-route://127.0.0.1:{}", ports[2 * index + 1])).collect();
    let mut children = Vec::new();
    for index in 0..3 {
        let (port, route) = (ports[2 * index], ports[2 * index + 1]);
        let store = directory.join(format!("n{index}"));
        let mut text = format!("server_name: n{index}\nlisten: 127.0.0.1:{port}\n");
        writeln!(text, "jetstream {{ store_dir: {:?}, sync_interval: always }}", store.display().to_string()).unwrap();
        let routes = routes.join(", ");
        writeln!(text, "cluster {{ name: bench, listen: 127.0.0.1:{route}, routes: [{routes}] }}").unwrap();
        text.push_str("accounts { SYS { users: [{user: sys, password: sys}] }\n");
        text.push_str("BOOKS { jetstream: enabled, users: [{user: books, password: books}] } }\nsystem_account: SYS\n");
        let config = directory.join(format!("n{index}.conf"));
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(directory.join(format!("n{index}.log"))).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        children.push(command.spawn().unwrap());
    }
    let addresses = (0..3).map(|index| format!("127.0.0.1:{}", ports[2 * index])).collect();
    std::thread::sleep(Duration::from_secs(5));
    Servers(children, addresses)
}

/// As many messages as the ledger wrote, of the same size, in atomic batches, and nothing else.
fn bare(servers: &Servers, message_count: usize, bytes: usize, together: usize) {
    let before = Spent::so_far(servers);
    let rate = publish_bare(&servers.1, message_count, bytes, together);
    let spent = Spent::since(before, servers, message_count as u64);
    println!("bare: {rate:>8.0} messages/s of {bytes} bytes, one stream, atomic batches of {together}; {spent}");
}

fn publish_bare(addresses: &[String], message_count: usize, bytes: usize, together: usize) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let connect = async_nats::ConnectOptions::with_user_and_password("books".into(), "books".into());
        let client = connect.connect(addresses).await.unwrap();
        let create = r#"{"name":"bare","subjects":["bare.*"],"num_replicas":3,"storage":"file","allow_atomic":true}"#;
        client.request("$JS.API.STREAM.CREATE.bare", create.into()).await.unwrap();
        let payload = bytes::Bytes::from(vec![7_u8; bytes]);
        let began = Instant::now();
        for (batch, first) in (0..message_count).step_by(together).enumerate() {
            let last = (first + together).min(message_count);
            for number in first..last {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Nats-Batch-Id", format!("{together}-{batch}"));
                headers.insert("Nats-Batch-Sequence", (number - first + 1).to_string());
                let subject = format!("bare.{}", number % 1000);
                if number + 1 < last {
                    client.publish_with_headers(subject, headers, payload.clone()).await.unwrap();
                } else {
                    headers.insert("Nats-Batch-Commit", "1");
                    let answer = client.request_with_headers(subject, headers, payload.clone()).await.unwrap();
                    let answer = String::from_utf8_lossy(&answer.payload).into_owned();
                    assert!(!answer.contains("error"), "{answer}");
                }
            }
        }
        message_count as f64 / began.elapsed().as_secs_f64()
    })
}

/// One engine's part: every `engines`-th customer, and the transactions of those.
fn drive(ledger: &Ledger, which: u64, engines: u64, batch: usize, customers: u64, count: u64) -> u64 {
    let (sender, answers) = channel();
    let (mut next, mut under_way, mut applied) = (0, 0, 0);
    while next < count || under_way > 0 {
        while next < count && under_way < 4 {
            let ids = next..count.min(next + batch as u64);
            next = ids.end;
            let amount = Amount::from_steps(5);
            let of = |id: u64| CustomerId::new(u128::from(id % (customers / engines) * engines + which));
            let transaction = |id: u64| TransactionId::new(u128::from(id * engines + which));
            let requests = ids.map(|id| Request::deposit(of(id), transaction(id), amount));
            let sender = sender.clone();
            ledger.submit_then(requests.collect(), move |submitted| sender.send(submitted).unwrap()).unwrap();
            under_way += 1;
        }
        for submitted in answers.recv().unwrap() {
            assert!(matches!(submitted, Ok(Outcome::Applied(_))), "{submitted:?}");
            applied += 1;
        }
        under_way -= 1;
    }
    applied
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Reads what lies behind a position; gives how many records that are, and the position behind them.
fn read_on(chains: &NatsChains, after: FeedPosition) -> (u64, FeedPosition) {
    let (mut position, mut items, mut count) = (after, Vec::new(), 0);
    loop {
        let next = chains.feed().unwrap().read(position, 1_000, &mut items).unwrap();
        count += items.drain(..).count() as u64;
        if next == position {
            return (count, position);
        }
        position = next;
    }
}

/// Reads all records, by a store of its own.
fn follow(servers: &Servers, options: &NatsOptions, what: &str) -> u64 {
    let chains = NatsChains::open(options.clone()).unwrap();
    let (began, before) = (Instant::now(), Spent::so_far(servers));
    let (count, _) = read_on(&chains, chains.feed().unwrap().start());
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!("    feed, {what}: {rate:>8.0} records/s; {}", Spent::since(before, servers, count));
    count
}

/// With `follower`, somebody reads the feed all the while, with a store of its own.
#[allow(clippy::too_many_arguments)] // figures of a run
fn run(servers: &Servers, shards: u16, batch: usize, customers: u64, count: u64, engines: u64, follower: bool) {
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let options = NatsOptions {
        servers: servers.1.clone(),
        user: Some(("books".into(), "books".into())),
        system_user: Some(("sys".into(), "sys".into())),
        prefix: format!("bench-{shards}-{batch}-{customers}-{engines}-{}", hex(&config.ledger)),
        shard_count: shards,
        ..NatsOptions::default()
    };
    let first = Arc::new(NatsChains::create(&config, options.clone()).unwrap());
    let table = Arc::new(MemoryStore::new(&config).with_split_batches());
    let limits = Limits { batch_requests_max: batch, ..Limits::default() };
    let ledgers: Vec<Ledger> = (0..engines)
        .map(|which| {
            let chains = if which == 0 { first.clone() } else { Arc::new(NatsChains::open(options.clone()).unwrap()) };
            let options = LedgerOptions { limits, ..LedgerOptions::default() };
            Ledger::with_stores(config.clone(), chains, table.clone(), options).unwrap()
        })
        .collect();
    let others = follower.then(|| NatsChains::open(options.clone()).unwrap());
    let is_over = AtomicBool::new(false);
    let before = Spent::so_far(servers);
    let began = Instant::now();
    let mut ended = began;
    let applied: u64 = std::thread::scope(|scope| {
        let (others, is_over) = (others.as_ref(), &is_over);
        let following = others.map(|chains| {
            scope.spawn(move || {
                let (mut seen, mut position) = (0, chains.feed().unwrap().start());
                loop {
                    let last = is_over.load(Ordering::Acquire);
                    let (more, next) = read_on(chains, position);
                    (seen, position) = (seen + more, next);
                    if last {
                        return seen;
                    }
                    // As often as a service looks.
                    std::thread::sleep(Duration::from_millis(250));
                }
            })
        });
        let each = count / engines;
        let drivers: Vec<_> = (0..)
            .zip(&ledgers)
            .map(|(which, ledger)| scope.spawn(move || drive(ledger, which, engines, batch, customers, each)))
            .collect();
        let applied = drivers.into_iter().map(|driver| driver.join().unwrap()).sum();
        ended = Instant::now();
        is_over.store(true, Ordering::Release);
        if let Some(following) = following {
            let seen = following.join().unwrap();
            println!("followed, {:.2} s after the last commit: {seen} records", ended.elapsed().as_secs_f64());
            assert_eq!(seen, applied, "records of the feed");
        }
        applied
    });
    let seconds = (ended - began).as_secs_f64();
    let rate = applied as f64 / seconds;
    let spent = Spent::since(before, servers, applied);
    println!(
        "{engines} engine(s), {shards} stream(s), batches of {batch:>5}, {customers:>5} customers: {rate:>8.0} whole transactions/s ({applied} in {seconds:.1} s); {spent}"
    );
    assert_eq!(first.totals().unwrap().event_count, applied, "what the chains say");
    if !follower {
        for what in ["put in order and read", "read again"] {
            assert_eq!(follow(servers, &options, what), applied, "records of the feed");
        }
    }
}

fn writers_alone(servers: &Servers, count: u64) {
    bare(servers, 30_000, 310, 500);
    bare(servers, 30_000, 310, 1000);
    for (shards, batch) in [(1, 1024), (1, 4096), (4, 1024), (4, 4096), (4, 16_384)] {
        for engines in [1, 2] {
            run(servers, shards, batch, 1000, count, engines, false);
        }
    }
    // Nobody has two requests in one batch: each transaction takes two messages.
    for engines in [1, 2] {
        run(servers, 4, 4096, 20_000, count, engines, false);
    }
}

fn main() {
    let program = std::env::args().nth(1).unwrap_or_else(|| "nats-server".to_owned());
    let count = std::env::args().nth(2).map_or(60_000, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let servers = servers(&program, directory.path());
    println!(
        "three servers, R3, sync_interval: always; {} threads here",
        std::thread::available_parallelism().unwrap()
    );
    if std::env::args().nth(3).as_deref() != Some("feed") {
        writers_alone(&servers, count);
    }
    for follower in [false, true, false, true] {
        run(&servers, 1, 4096, 1000, count, 1, follower);
        run(&servers, 4, 4096, 20_000, count, 1, follower);
    }
    bare(&servers, 30_000, 310, 1000);
}
