//! Measures the service beside its limits, in one run:
//!
//! - durable single deposits over many connections, beside a bare handler of the same stack (hyper, axum, the same
//!   runtime, the same client), each in a process of its own, in turn;
//! - the median latency of one connection, beside the median of a bare write and `fdatasync` in the same directory.
//!
//! `cargo run --release -p bursar-server --example load -- DIRECTORY [CONNECTIONS] [SECONDS] [ROUNDS]`
//!
//! With `hanging` before the directory: what one customer whose rail does not answer costs all others, in rounds with
//! such a withdrawal and without one, in turn.
//!
//! What it makes in the directory is removed. Client and servers share the machine's processors, so that the client's
//! own work is part of every figure, of the bare handler's as well.

#![allow(clippy::unwrap_used, clippy::float_arithmetic, clippy::cast_precision_loss)] // a tool for people

use axum::Router;
use axum::routing::post;
use bursar_core::commit::{RailCall, Routes};
use bursar_core::{Currencies, Policy, RailId};
use bursar_engine::{Ledger, LedgerOptions, Rail, RailReply, new_config};
use bursar_server::keys::KeyFile;
use bursar_server::{Keys, Limits, Options, Server};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CUSTOMERS: u64 = 65_536;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["hello"] => hello(),
        ["serve", directory] => serve(Path::new(directory), LedgerOptions::default()),
        ["serve-rail", directory] => serve(Path::new(directory), with_silent_rail()),
        ["hanging", directory, rest @ ..] => {
            let number = |index: usize, otherwise| rest.get(index).map_or(otherwise, |text| text.parse().unwrap());
            compare_hanging(Path::new(directory), number(0, 64), number(1, 5), number(2, 7));
        }
        [directory, rest @ ..] => {
            let number = |index: usize, otherwise| rest.get(index).map_or(otherwise, |text| text.parse().unwrap());
            compare(Path::new(directory), number(0, 256), number(1, 5), number(2, 5));
        }
        [] => eprintln!("usage: load [hanging] DIRECTORY [CONNECTIONS] [SECONDS] [ROUNDS]"),
    }
}

/// A bare handler of the same stack.
fn hello() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/requests", post(async || "hello"));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let mut builder = http1::Builder::new();
                drop(builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
}

/// The service on a new ledger.
fn serve(directory: &Path, options: LedgerOptions) {
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let ledger = Ledger::create(directory, &config, options).unwrap();
    let keys = Keys::File(KeyFile::of(directory));
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let server =
        Server::bind(Options { listen, keys, limits: Limits::default(), heed_signals: true, webhooks: Vec::new() })
            .unwrap();
    let address = server.address();
    let ready = || {
        println!("{address}");
        Ok(())
    };
    server.run(ledger, ready).unwrap();
}

/// A rail that never answers.
#[derive(Debug, Default)]
struct Silent(Mutex<Vec<RailReply>>);

impl Rail for Silent {
    fn call(&self, _: RailCall, reply: RailReply) {
        self.0.lock().unwrap().push(reply);
    }
}

fn with_silent_rail() -> LedgerOptions {
    let id = RailId::new(1).unwrap();
    let routes = Routes { withdrawal: Some(id), ..Routes::default() };
    LedgerOptions { routes, ..LedgerOptions::default() }.with_rail(id, Arc::new(Silent::default()))
}

/// A server in a process of its own, ended with this.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim().parse().unwrap() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What a client saw.
#[derive(Default)]
struct Seen {
    micros: Vec<u64>,
    seconds: f64,
}

impl Seen {
    fn per_second(&self) -> f64 {
        self.micros.len() as f64 / self.seconds
    }

    fn percentile(&mut self, percent: usize) -> u64 {
        self.micros.sort_unstable();
        self.micros[(self.micros.len() - 1) * percent / 100]
    }
}

/// Sends deposits over so many connections, one after the other on each, for so long.
fn drive(address: SocketAddr, connections: u64, duration: Duration, next: &Rc<Cell<u64>>) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let started = Instant::now();
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                let next = next.clone();
                tokio::task::spawn_local(async move {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let (mut micros, mut request, mut buffer) = (Vec::new(), Vec::new(), vec![0; 4096]);
                    while started.elapsed() < duration {
                        let id = next.replace(next.get() + 1);
                        deposit(&mut request, id);
                        let sent = Instant::now();
                        stream.write_all(&request).await.unwrap();
                        answer(&mut stream, &mut buffer).await;
                        micros.push(u64::try_from(sent.elapsed().as_micros()).unwrap());
                    }
                    micros
                })
            })
            .collect();
        let mut seen = Seen::default();
        for client in clients {
            seen.micros.extend(client.await.unwrap());
        }
        seen.seconds = started.elapsed().as_secs_f64();
        seen
    })
}

fn deposit(request: &mut Vec<u8>, id: u64) {
    let customer = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) % CUSTOMERS;
    let body = format!(r#"{{"kind":"deposit","customer":"{customer}","transaction":"{id}","amount":"12.5"}}"#);
    request.clear();
    let length = body.len();
    write!(
        request,
        "POST /v1/requests HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
}

/// Reads one answer, which must be a success.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buffer[filled..]).await.unwrap();
        assert!(count > 0, "the server closed the connection");
        filled += count;
        let text = std::str::from_utf8(&buffer[..filled]).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            if body.len() == length.unwrap().parse::<usize>().unwrap() {
                return;
            }
        }
    }
}

/// A file that was written before, to write into.
struct RawFile {
    file: std::fs::File,
    path: std::path::PathBuf,
    count: u64,
}

impl RawFile {
    const BYTES: u64 = 8 << 20;
    const BLOCK_BYTES: u64 = 4096;

    fn new(directory: &Path) -> Self {
        let path = directory.join("syncs");
        let file = OpenOptions::new().create_new(true).write(true).open(&path).unwrap();
        file.write_all_at(&vec![0; Self::BYTES as usize], 0).unwrap();
        file.sync_all().unwrap();
        Self { file, path, count: 0 }
    }

    /// Microseconds of so many writes of 128 bytes, each with its `fdatasync`, and each into a block of its own: some
    /// disks take milliseconds for a block that was written a moment ago, which would flatter the service.
    fn sample(&mut self, count: u64, seen: &mut Seen) {
        for _ in 0..count {
            let started = Instant::now();
            self.file.write_all_at(&[0x5a; 128], self.count * Self::BLOCK_BYTES % Self::BYTES).unwrap();
            self.file.sync_data().unwrap();
            seen.micros.push(u64::try_from(started.elapsed().as_micros()).unwrap());
            self.count += 1;
        }
    }
}

impl Drop for RawFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Sends a request and does not wait for its answer.
fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> BufReader<std::net::TcpStream> {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    BufReader::new(stream)
}

/// The body of a success.
fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> serde_json::Value {
    let mut text = String::new();
    send(address, method, path, body).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Has a customer wait for its rail while `work` is done, and settles that afterwards.
fn while_one_hangs<T>(address: SocketAddr, transaction: u64, work: impl FnOnce() -> T) -> T {
    let of = r#""customer":"999999999""#;
    let body = format!(r#"{{"kind":"deposit",{of},"transaction":"{transaction}","amount":"5"}}"#);
    ask(address, "POST", "/v1/requests", &body);
    let body = format!(r#"{{"kind":"withdrawal",{of},"transaction":"{}","amount":"5"}}"#, transaction + 1);
    let waits = send(address, "POST", "/v1/requests", &body);
    let event = loop {
        let pending = ask(address, "GET", "/v1/pending", "");
        match pending["items"][0]["event"].as_str() {
            Some(event) => break event.to_owned(),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let done = work();
    let settle = r#"{"as":"aborted","reason":"only measured"}"#;
    ask(address, "POST", &format!("/v1/pending/{event}/settle"), settle);
    drop(waits);
    done
}

/// What one customer whose rail hangs costs the others.
fn compare_hanging(directory: &Path, connections: u64, seconds: u64, rounds: u64) {
    std::fs::create_dir_all(directory).unwrap();
    let ledger = directory.join("ledger");
    let service = Process::start(&["serve-rail", ledger.to_str().unwrap()]);
    let (address, next) = (service.address, Rc::new(Cell::new(1)));
    let run = || drive(address, connections, Duration::from_secs(seconds), &next);
    run();
    println!(
        "{connections} connections, {seconds} s each, in turn: deposits of others without and with a rail call hanging"
    );
    println!("round | without: /s  p50 us  p99 us | with: /s  p50 us  p99 us | p99 ratio");
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let hung = || while_one_hangs(address, (1 << 50) + 2 * round, run);
        // Which comes first changes, so that what grows over time meets both alike.
        let (mut without, mut with) = if round % 2 == 0 {
            (run(), hung())
        } else {
            let with = hung();
            (run(), with)
        };
        let ratio = with.percentile(99) as f64 / without.percentile(99).max(1) as f64;
        println!(
            "{round:5} | {:11.0} {:7} {:7} | {:8.0} {:7} {:7} | {ratio:9.3}",
            without.per_second(),
            without.percentile(50),
            without.percentile(99),
            with.per_second(),
            with.percentile(50),
            with.percentile(99),
        );
        ratios.push(ratio);
    }
    println!("median ratio of p99: {:.3}", median(ratios));
    drop(service);
    std::fs::remove_dir_all(ledger).unwrap();
}

fn compare(directory: &Path, connections: u64, seconds: u64, rounds: u64) {
    std::fs::create_dir_all(directory).unwrap();
    let ledger = directory.join("ledger");
    let bare = Process::start(&["hello"]);
    let service = Process::start(&["serve", ledger.to_str().unwrap()]);
    let next = Rc::new(Cell::new(1));
    let mut file = RawFile::new(directory);
    let duration = Duration::from_secs(seconds);
    for address in [bare.address, service.address] {
        drive(address, connections, Duration::from_secs(1), &next);
    }
    println!("{connections} connections, {seconds} s each, in turn; then one connection and bare syncs, in turn");
    println!("round  hello/s  deposits/s  share  p50 us  p99 us | one: p50 us  fdatasync p50 us  times");
    let (mut shares, mut times) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let hello = drive(bare.address, connections, duration, &next);
        let mut deposits = drive(service.address, connections, duration, &next);
        let share = deposits.per_second() / hello.per_second();
        // In turn and in small pieces, so that what else the disk does meets both alike.
        let (mut raw, mut alone) = (Seen::default(), Seen::default());
        for _ in 0..seconds * 5 {
            file.sample(100, &mut raw);
            alone.micros.extend(drive(service.address, 1, Duration::from_millis(100), &next).micros);
        }
        let (alone, raw) = (alone.percentile(50), raw.percentile(50));
        let ratio = alone as f64 / raw.max(1) as f64;
        println!(
            "{round:5} {:8.0} {:11.0} {:5.1}% {:7} {:7} | {alone:11} {raw:17} {ratio:6.2}",
            hello.per_second(),
            deposits.per_second(),
            share * 100.0,
            deposits.percentile(50),
            deposits.percentile(99),
        );
        shares.push(share);
        times.push(ratio);
    }
    println!("median share {:.1}%, median times {:.2}", median(shares) * 100.0, median(times));
    drop((bare, service));
    std::fs::remove_dir_all(ledger).unwrap();
}
