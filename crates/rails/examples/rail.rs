//! A rail to try things out with: a small payment service that keeps a book, and misbehaves as it is told.
//!
//! ```text
//! cargo run -p bursar-rails --example rail -- --hang-after-percent 10 --refuse-percent 5
//! ```
//!
//! It does what `docs/rails.md` asks of a rail: it verifies signatures, acts once for an event's id, writes down what it
//! did before it says so (a line in a file, synced), and says the same ever after. Its faults are those of the way there
//! and back, chosen anew for each call; whether it refuses is chosen once for each event. `GET /book` shows the book.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bursar_rails::Secret;
use clap::Parser;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A secret that everybody knows, for trying out.
const SECRET: &str = "whsec_YSByYWlsIHRvIHRyeSB0aGluZ3Mgb3V0IHdpdGg=";
/// How far a call's time may be from this machine's, in seconds.
const TOLERANCE_S: u64 = 300;

#[derive(Debug, Parser)]
#[command(about = "A rail to try Bursar out with")]
struct Options {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:7500")]
    listen: SocketAddr,
    /// The file of the book
    #[arg(long, default_value = "rail-book.ndjson")]
    book: PathBuf,
    /// What calls are signed with
    #[arg(long, env = "RAIL_SECRET", default_value = SECRET, hide_env_values = true)]
    secret: String,
    /// Refuses so many events in a hundred, for good
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    refuse_percent: u8,
    /// Does nothing, and does not answer
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    hang_before_percent: u8,
    /// Acts, and does not answer
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    hang_after_percent: u8,
    /// Acts, and answers 500
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    lose_answer_percent: u8,
    /// Sends its answer twice on the connection
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    answer_twice_percent: u8,
    /// Does nothing, and answers 503
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    down_percent: u8,
    /// Never answers about this customer
    #[arg(long)]
    hang_customer: Option<String>,
    /// Begins the random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What was done for an event, once and for all.
#[derive(Clone, Debug)]
struct Entry {
    /// The call that led to it.
    body: Value,
    refused: Option<String>,
}

/// The book: a file that only grows, and what is in it.
#[derive(Debug)]
struct Book {
    file: File,
    entries: BTreeMap<String, Entry>,
    /// How many calls came with a known key and another body.
    conflict_count: u64,
}

impl Book {
    fn open(path: &PathBuf) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        let mut entries = BTreeMap::new();
        let (mut reader, mut whole) = (BufReader::new(&file), 0);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            // A line that was never finished was never answered.
            let Ok(read) = serde_json::from_str::<Value>(&line) else { break };
            if !line.ends_with('\n') {
                break;
            }
            whole += line.len() as u64;
            let refused = read["refused"].as_str().map(str::to_owned);
            let key = read["key"].as_str().unwrap_or_default().to_owned();
            entries.insert(key, Entry { body: read["call"].clone(), refused });
            line.clear();
        }
        file.set_len(whole)?;
        file.seek(io::SeekFrom::End(0))?;
        file.sync_all()?;
        Ok(Self { file, entries, conflict_count: 0 })
    }

    /// Acts or refuses, unless it did so before for this key. `None`: the same key came with another call.
    fn act(&mut self, key: &str, body: &Value, refused: Option<String>) -> io::Result<Option<Entry>> {
        if let Some(entry) = self.entries.get(key) {
            if entry.body != *body {
                self.conflict_count += 1;
                return Ok(None);
            }
            return Ok(Some(entry.clone()));
        }
        let line = json!({ "key": key, "call": body, "refused": refused });
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.file.sync_data()?;
        let entry = Entry { body: body.clone(), refused };
        self.entries.insert(key.to_owned(), entry.clone());
        Ok(Some(entry))
    }
}

#[derive(Debug)]
struct Service {
    options: Options,
    secret: Secret,
    book: Mutex<Book>,
    calls: AtomicU64,
}

/// `SplitMix64`.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Service {
    /// A throw of a hundred, for this call.
    fn throw(&self) -> u8 {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        (mix(self.options.seed.wrapping_add(call << 8)) % 100) as u8
    }

    /// Whether an event is refused: always the same for the same event.
    fn refusal(&self, key: &str) -> Option<String> {
        let hash = key.bytes().fold(self.options.seed, |hash, byte| mix(hash ^ u64::from(byte)));
        (hash % 100 < u64::from(self.options.refuse_percent)).then(|| "the account is closed".to_owned())
    }

    /// The key of a call whose signature is right.
    fn key_of(&self, headers: &HeaderMap, body: &[u8]) -> Option<String> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let (id, timestamp) = (text("webhook-id")?, text("webhook-timestamp")?.parse().ok()?);
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let is_right = self.secret.verifies(text("webhook-signature")?, id, timestamp, body)
            && now_s.abs_diff(timestamp) <= TOLERANCE_S;
        is_right.then(|| id.to_owned())
    }
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

fn error(status: StatusCode, what: &str) -> Response {
    answer(status, &json!({ "error": what }))
}

/// For as long as anybody may wait.
async fn hang() {
    tokio::time::sleep(Duration::from_hours(24)).await;
}

async fn pay(State(service): State<Arc<Service>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(key) = service.key_of(&headers, &body) else {
        return error(StatusCode::UNAUTHORIZED, "the signature is not right");
    };
    let Ok(call) = serde_json::from_slice::<Value>(&body) else {
        return error(StatusCode::BAD_REQUEST, "the body is no JSON");
    };
    let is_its_key = headers.get("idempotency-key").is_some_and(|header| header.as_bytes() == key.as_bytes());
    if !is_its_key || call["event"] != key.as_str() {
        return error(StatusCode::BAD_REQUEST, "the keys are not one");
    }
    if service.options.hang_customer.as_deref().is_some_and(|customer| call["customer"] == customer) {
        hang().await;
    }
    let options = &service.options;
    let (throw, mut bound) = (service.throw(), 0);
    let mut falls = |percent: u8| {
        let is_here = (bound..bound + percent).contains(&throw);
        bound += percent;
        is_here
    };
    if falls(options.down_percent) {
        return error(StatusCode::SERVICE_UNAVAILABLE, "down for a moment");
    }
    if falls(options.hang_before_percent) {
        hang().await;
    }
    let (hangs_after, loses) = (falls(options.hang_after_percent), falls(options.lose_answer_percent));
    let booked = {
        let (service, key, refused) = (service.clone(), key.clone(), service.refusal(&key));
        tokio::task::spawn_blocking(move || {
            service.book.lock().unwrap_or_else(PoisonError::into_inner).act(&key, &call, refused)
        })
        .await
    };
    if hangs_after {
        hang().await;
    }
    match booked {
        _ if loses => error(StatusCode::INTERNAL_SERVER_ERROR, "lost its mind"),
        Ok(Ok(Some(Entry { refused: None, .. }))) => answer(StatusCode::OK, &json!({ "event": key })),
        Ok(Ok(Some(Entry { refused: Some(reason), .. }))) => {
            answer(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "event": key, "refused": reason }))
        }
        Ok(Ok(None)) => error(StatusCode::CONFLICT, "this key came with another call before"),
        Ok(Err(_)) | Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the book cannot be written"),
    }
}

async fn status(State(service): State<Arc<Service>>, Path(key): Path<String>, headers: HeaderMap) -> Response {
    if service.key_of(&headers, b"").as_ref() != Some(&key) {
        return error(StatusCode::UNAUTHORIZED, "the signature is not right");
    }
    if service.throw() < service.options.down_percent {
        return error(StatusCode::SERVICE_UNAVAILABLE, "down for a moment");
    }
    let book = service.book.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, reason) = match book.entries.get(&key) {
        None => ("unknown", None),
        Some(Entry { refused: None, .. }) => ("done", None),
        Some(Entry { refused: Some(reason), .. }) => ("refused", Some(reason)),
    };
    answer(StatusCode::OK, &json!({ "event": key, "status": status, "reason": reason }))
}

async fn show_book(State(service): State<Arc<Service>>) -> Response {
    let book = service.book.lock().unwrap_or_else(PoisonError::into_inner);
    let entries: Vec<Value> = book
        .entries
        .iter()
        .map(|(key, entry)| json!({ "key": key, "call": entry.body, "refused": entry.refused }))
        .collect();
    answer(StatusCode::OK, &json!({ "conflicts": book.conflict_count, "entries": entries }))
}

/// A connection on which some answers are sent twice.
#[derive(Debug)]
struct Twice {
    stream: TcpStream,
    service: Arc<Service>,
    written: Vec<u8>,
    /// What is sent once more before anything else.
    again: Vec<u8>,
}

impl AsyncRead for Twice {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Twice {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.written.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = std::mem::take(&mut self.written);
        if !written.is_empty() && self.service.throw() < self.service.options.answer_twice_percent {
            self.again.extend_from_slice(&written);
        }
        while !self.again.is_empty() {
            let this = &mut *self;
            let count = ready!(Pin::new(&mut this.stream).poll_write(cx, &this.again))?;
            this.again.drain(..count);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let percents =
        [options.down_percent, options.hang_before_percent, options.hang_after_percent, options.lose_answer_percent];
    if percents.iter().map(|percent| u32::from(*percent)).sum::<u32>() > 100 {
        return Err("faults of more than a hundred calls in a hundred".into());
    }
    let (secret, book) = (Secret::parse(&options.secret)?, Mutex::new(Book::open(&options.book)?));
    let listener = TcpListener::bind(options.listen).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let service = Arc::new(Service { options, secret, book, calls: AtomicU64::new(0) });
    let router = Router::new()
        .route("/payments", post(pay))
        .route("/payments/{key}", get(status))
        .route("/book", get(show_book))
        .with_state(service.clone());
    writeln!(io::stdout(), "{url}")?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let io = Twice { stream, service: service.clone(), written: Vec::new(), again: Vec::new() };
        let router = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            // A caller that has gone is none of the rail's business.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), router).await);
        });
    }
}
