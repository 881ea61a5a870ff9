//! Measures the service beside its limits, in one run:
//!
//! - durable single deposits over many connections, beside a bare handler of the same stack (hyper, axum, the same
//!   runtime, the same client), each in a process of its own, in turn;
//! - the median latency of one connection, beside the median of a bare write and `fdatasync` in the same directory (into
//!   a block of its own, and appended as a journal is), and beside a bare handler that appends and syncs, which also says
//!   how long its `fdatasync` took: some disks answer syncs that follow each other without a pause much later. The fastest
//!   of the three counts.
//!
//! `cargo run --release -p bursar-server --example load -- DIRECTORY [CONNECTIONS] [SECONDS] [ROUNDS]`
//!
//! With `hanging` before the directory: what one customer whose rail does not answer costs all others, in rounds with
//! such a withdrawal and without one, in turn.
//!
//! With `bulk` before the directory, then ROWS and ROUNDS: a CSV body streamed to `POST /v1/batches`, from the first byte to
//! the last outcome, beside `bursar ingest`'s own code on the same file, each into a new ledger, in turn.
//!
//! What it makes in the directory is removed. Client and servers share the machine's processors, so that the client's
//! own work is part of every figure, of the bare handler's as well.

#![allow(clippy::unwrap_used, clippy::float_arithmetic, clippy::cast_precision_loss)] // a tool for people

use axum::Router;
use axum::routing::post;
use bursar_core::commit::{RailCall, Routes};
use bursar_core::{Currencies, Policy, RailId, Rejection, RejectionInfo};
use bursar_engine::csv::{Header, Position, RowError, Source};
use bursar_engine::ingest::{IngestObserver, IngestOptions, ingest};
use bursar_engine::store::RowCounts;
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
const REQUESTS: &str = "/v1/requests";
const LAST_LINE_BYTES_MAX: usize = 1 << 12;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["hello", directory] => hello(Path::new(directory)),
        ["serve", directory] => serve(Path::new(directory), LedgerOptions::default()),
        ["serve-rail", directory] => serve(Path::new(directory), with_silent_rail()),
        ["hanging", directory, rest @ ..] => {
            let number = |index: usize, otherwise| rest.get(index).map_or(otherwise, |text| text.parse().unwrap());
            compare_hanging(Path::new(directory), number(0, 64), number(1, 5), number(2, 7));
        }
        ["bulk", directory, rest @ ..] => {
            let number = |index: usize, otherwise| rest.get(index).map_or(otherwise, |text| text.parse().unwrap());
            compare_bulk(Path::new(directory), number(0, 2_000_000), number(1, 5));
        }
        [directory, rest @ ..] => {
            let number = |index: usize, otherwise| rest.get(index).map_or(otherwise, |text| text.parse().unwrap());
            compare(Path::new(directory), number(0, 256), number(1, 5), number(2, 5));
        }
        [] => eprintln!(
            "usage: load [hanging] DIRECTORY [CONNECTIONS] [SECONDS] [ROUNDS]\n       load bulk DIRECTORY [ROWS] [ROUNDS]"
        ),
    }
}

/// A bare handler of the same stack; and one that appends and syncs before it answers, on the thread that it is on.
fn hello(directory: &Path) {
    let appended = Arc::new(Mutex::new((RawFile::reserved(directory, "appended-by-handler"), Seen::default())));
    let samples = appended.clone();
    let synced = async move || {
        tokio::task::block_in_place(|| {
            let (file, seen) = &mut *appended.lock().unwrap();
            seen.micros.push(file.append());
        });
        "hello"
    };
    // What the median write with its sync took since this was asked last.
    let took = async move || std::mem::take(&mut samples.lock().unwrap().1).percentile(50).to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let router =
            Router::new().route("/v1/requests", post(async || "hello")).route("/synced", post(synced).get(took));
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
        // Of nothing: 0.
        self.micros.get(self.micros.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0)
    }
}

/// Sends deposits over so many connections, one after the other on each, for so long.
fn drive(address: SocketAddr, path: &'static str, connections: u64, duration: Duration, next: &Rc<Cell<u64>>) -> Seen {
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
                        deposit(&mut request, path, id);
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

fn deposit(request: &mut Vec<u8>, path: &str, id: u64) {
    let customer = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) % CUSTOMERS;
    let body = format!(r#"{{"kind":"deposit","customer":"{customer}","transaction":"{id}","amount":"12.5"}}"#);
    request.clear();
    let length = body.len();
    write!(
        request,
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
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

/// A file to write into, with a sync after each write.
struct RawFile {
    file: std::fs::File,
    path: std::path::PathBuf,
    count: u64,
}

impl RawFile {
    const BYTES: u64 = 8 << 20;
    const BLOCK_BYTES: u64 = 4096;
    /// About what a deposit takes in the journal.
    const WRITE: [u8; 128] = [0x5a; 128];

    fn create(directory: &Path, name: &str) -> Self {
        let path = directory.join(name);
        let file = OpenOptions::new().create_new(true).write(true).open(&path).unwrap();
        Self { file, path, count: 0 }
    }

    /// Written before.
    fn written(directory: &Path) -> Self {
        let raw = Self::create(directory, "syncs");
        raw.file.write_all_at(&vec![0; Self::BYTES as usize], 0).unwrap();
        raw.file.sync_all().unwrap();
        raw
    }

    /// With room that is reserved and not written, as a journal's segment has.
    fn reserved(directory: &Path, name: &str) -> Self {
        let raw = Self::create(directory, name);
        rustix::fs::fallocate(&raw.file, rustix::fs::FallocateFlags::empty(), 0, Self::BYTES).unwrap();
        raw.file.sync_all().unwrap();
        raw
    }

    fn write_at(&mut self, offset: u64) -> u64 {
        let started = Instant::now();
        self.file.write_all_at(&Self::WRITE, offset % Self::BYTES).unwrap();
        self.file.sync_data().unwrap();
        self.count += 1;
        u64::try_from(started.elapsed().as_micros()).unwrap()
    }

    /// A write behind the one before, with its `fdatasync`; microseconds.
    fn append(&mut self) -> u64 {
        self.write_at(self.count * Self::WRITE.len() as u64)
    }

    /// A write into a block of its own, with its `fdatasync`: some disks take milliseconds for a block that was written a
    /// moment ago, others for one that was not. Microseconds.
    fn write_block(&mut self) -> u64 {
        self.write_at(self.count * Self::BLOCK_BYTES)
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
    let run = || drive(address, REQUESTS, connections, Duration::from_secs(seconds), &next);
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
    let bare = Process::start(&["hello", directory.to_str().unwrap()]);
    let service = Process::start(&["serve", ledger.to_str().unwrap()]);
    let next = Rc::new(Cell::new(1));
    let (mut blocks, mut appended) = (RawFile::written(directory), RawFile::reserved(directory, "appended"));
    let duration = Duration::from_secs(seconds);
    for address in [bare.address, service.address] {
        drive(address, REQUESTS, connections, Duration::from_secs(1), &next);
    }
    println!(
        "{connections} connections, {seconds} s each, in turn; then one connection and bare syncs, in turn: p50 in us"
    );
    println!(
        "round  hello/s  deposits/s  share  p50 us  p99 us | one: deposit  hello  synced | fdatasync: block  append  handler | \
         times  of synced"
    );
    let (mut shares, mut times, mut times_synced) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let hello = drive(bare.address, REQUESTS, connections, duration, &next);
        let mut deposits = drive(service.address, REQUESTS, connections, duration, &next);
        let share = deposits.per_second() / hello.per_second();
        // In turn and in small pieces, so that what else the disk does meets all alike.
        let mut seen: [Seen; 5] = std::array::from_fn(|_| Seen::default());
        ask(bare.address, "GET", "/synced", "");
        for _ in 0..seconds * 5 {
            let one = |address, path| drive(address, path, 1, Duration::from_millis(60), &next).micros;
            seen[0].micros.extend(one(service.address, REQUESTS));
            seen[1].micros.extend(one(bare.address, REQUESTS));
            seen[2].micros.extend(one(bare.address, "/synced"));
            seen[3].micros.extend((0..60).map(|_| blocks.write_block()));
            seen[4].micros.extend((0..60).map(|_| appended.append()));
        }
        let [alone, one_hello, synced, block, append] = seen.each_mut().map(|seen| seen.percentile(50).max(1));
        let handler = ask(bare.address, "GET", "/synced", "").as_u64().unwrap().max(1);
        let ratio = alone as f64 / block.min(append).min(handler) as f64;
        let of_synced = alone as f64 / synced as f64;
        println!(
            "{round:5} {:8.0} {:11.0} {:5.1}% {:7} {:7} | {alone:12} {one_hello:6} {synced:7} | {block:16} {append:7} {handler:8} | {ratio:5.2} {of_synced:10.2}",
            hello.per_second(),
            deposits.per_second(),
            share * 100.0,
            deposits.percentile(50),
            deposits.percentile(99),
        );
        shares.push(share);
        times.push(ratio);
        times_synced.push(of_synced);
    }
    println!(
        "median share {:.1}%, median times {:.2} of fdatasync, {:.2} of a bare handler that syncs",
        median(shares) * 100.0,
        median(times),
        median(times_synced)
    );
    // The first one leaves its file when it is killed.
    drop((bare, service));
    std::fs::remove_file(directory.join("appended-by-handler")).unwrap();
    std::fs::remove_dir_all(ledger).unwrap();
}

/// Nobody listens to an ingest that is only timed.
struct Unheard;

impl IngestObserver for Unheard {
    fn opened(&mut self, _: &Header, _: Position) -> std::io::Result<()> {
        Ok(())
    }

    fn unreadable(&mut self, _: &[u8], _: u64, _: &RowError) -> std::io::Result<()> {
        Ok(())
    }

    fn rejected(&mut self, _: &[u8], _: u64, _: &Rejection) -> std::io::Result<()> {
        Ok(())
    }

    fn rejected_earlier(&mut self, _: &[u8], _: u64, _: &'static RejectionInfo) -> std::io::Result<()> {
        Ok(())
    }

    fn progress(&mut self, _: &RowCounts) {}

    fn should_stop(&self) -> bool {
        false
    }
}

/// Rows of deposits, withdrawals, and disputes with their resolves.
fn write_rows(path: &Path, rows: u64) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    writeln!(file, "type,client,tx,amount").unwrap();
    for id in 1..=rows {
        let customer = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) % CUSTOMERS;
        match id % 16 {
            14 => writeln!(file, "withdrawal,{customer},{id},0.5").unwrap(),
            // Of a deposit shortly before.
            15 => {
                let (disputed, kind) = if id % 32 == 15 { (id - 7, "dispute") } else { (id - 23, "resolve") };
                let customer = disputed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % CUSTOMERS;
                writeln!(file, "{kind},{customer},{disputed},").unwrap();
            }
            _ => writeln!(file, "deposit,{customer},{id},12.5").unwrap(),
        }
    }
    file.flush().unwrap();
}

/// A file through `ingest`, until it is durable: how many rows were applied, and seconds.
fn ingest_file(directory: &Path, file: &Path) -> (u64, f64) {
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let ledger = Ledger::create(directory, &config, LedgerOptions::default()).unwrap();
    let started = Instant::now();
    let report = ingest(&ledger, Source::open(file).unwrap(), IngestOptions::default(), &mut Unheard).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    ledger.close().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    (report.counts.applied, seconds)
}

/// The same file as a streamed body, until its last outcome was read: how many rows were applied, and seconds.
fn stream_file(directory: &Path, file: &Path, outcomes: &'static str) -> (u64, f64) {
    let service = Process::start(&["serve", directory.to_str().unwrap()]);
    let mut stream = std::net::TcpStream::connect(service.address).unwrap();
    let mut body = std::fs::File::open(file).unwrap();
    let length = body.metadata().unwrap().len();
    let mut answer = BufReader::with_capacity(1 << 18, stream.try_clone().unwrap());
    let started = Instant::now();
    let sender = std::thread::spawn(move || {
        write!(
            stream,
            "POST /v1/batches?outcomes={outcomes} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/csv\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut piece = vec![0; 1 << 18];
        loop {
            let count = body.read(&mut piece).unwrap();
            if count == 0 {
                return;
            }
            stream.write_all(&piece[..count]).unwrap();
        }
    });
    // Every byte is taken; of the lines only the last is looked at, which says how many rows became what.
    let (mut piece, mut tail) = (vec![0; 1 << 18], Vec::new());
    loop {
        let count = answer.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        tail.extend_from_slice(&piece[count.saturating_sub(LAST_LINE_BYTES_MAX)..count]);
        tail.drain(..tail.len().saturating_sub(LAST_LINE_BYTES_MAX));
    }
    let seconds = started.elapsed().as_secs_f64();
    sender.join().unwrap();
    drop(service);
    std::fs::remove_dir_all(directory).unwrap();
    let tail = String::from_utf8_lossy(&tail);
    let end = tail.lines().rfind(|line| line.contains(r#""summary""#)).unwrap();
    let end: serde_json::Value = serde_json::from_str(end).unwrap();
    assert!(end["problem"].is_null(), "{end}");
    (end["summary"]["applied"].as_u64().unwrap(), seconds)
}

/// A streamed body beside an ingest of the same file.
fn compare_bulk(directory: &Path, rows: u64, rounds: u64) {
    std::fs::create_dir_all(directory).unwrap();
    let (file, ledger) = (directory.join("rows.csv"), directory.join("ledger"));
    write_rows(&file, rows);
    println!("{rows} rows, each way into a new ledger, in turn; rows/s");
    println!("round     ingest  streamed, an outcome each  share  streamed, outcomes of what is not applied  share");
    let (mut shares, mut shares_quiet) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let (applied, ingested) = ingest_file(&ledger, &file);
        let (all, streamed) = stream_file(&ledger, &file, "all");
        let (quiet, streamed_quiet) = stream_file(&ledger, &file, "not_applied");
        assert_eq!((all, quiet), (applied, applied), "not the same was applied");
        let per_second = |seconds: f64| rows as f64 / seconds;
        let (share, share_quiet) = (ingested / streamed, ingested / streamed_quiet);
        println!(
            "{round:5} {:10.0} {:26.0} {:5.1}% {:42.0} {:5.1}%",
            per_second(ingested),
            per_second(streamed),
            share * 100.0,
            per_second(streamed_quiet),
            share_quiet * 100.0
        );
        shares.push(share);
        shares_quiet.push(share_quiet);
    }
    println!("median shares {:.1}% and {:.1}%", median(shares) * 100.0, median(shares_quiet) * 100.0);
    std::fs::remove_file(file).unwrap();
}
