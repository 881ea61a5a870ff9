//! Traces, as a collector of the test's own decodes them: what arrives, what hangs on what, and what is never in it.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_server::keys::KeyFile;
use bursar_server::{Keys, Limits, Options, Server, TraceOptions};
use common::client::Client;
use common::{deposit, memory_ledger, withdrawal};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A field of a message in the encoding of protocol buffers: its number, and what is in it.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, as its specification writes them down.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for place in 0.. {
            let (first, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(first & 0x7f) << (7 * place);
            if first & 0x80 == 0 {
                break;
            }
        }
        value
    }
    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(count);
        *bytes = rest;
        taken
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
            2 => {
                let count = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, count))
            }
            5 => Field::Number(u64::from(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap()))),
            other => panic!("no wire type {other}"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

/// All fields of this number that hold bytes.
fn parts(message: &[u8], number: u64) -> Vec<&[u8]> {
    let all = fields(message).into_iter();
    let found = all.filter_map(|(found, field)| match field {
        Field::Bytes(bytes) if found == number => Some(bytes),
        Field::Bytes(_) | Field::Number(_) => None,
    });
    found.collect()
}

fn number(message: &[u8], number: u64) -> Option<u64> {
    let mut all = fields(message).into_iter();
    all.find_map(|(found, field)| match field {
        Field::Number(value) if found == number => Some(value),
        Field::Bytes(_) | Field::Number(_) => None,
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Attributes of a span or a resource: strings and whole numbers.
fn attributes(all: Vec<&[u8]>) -> BTreeMap<String, String> {
    let pair = |pair: &[u8]| {
        let value = parts(pair, 2)[0];
        let shown = parts(value, 1).first().map(|bytes| text(bytes));
        (text(parts(pair, 1)[0]), shown.or_else(|| number(value, 3).map(|value| value.to_string())).unwrap_or_default())
    };
    all.into_iter().map(pair).collect()
}

/// A span as it arrived (`opentelemetry/proto/trace/v1/trace.proto`).
#[derive(Clone, Debug)]
struct Span {
    service: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    kind: u64,
    took_ns: u64,
    attributes: BTreeMap<String, String>,
    /// 2: it failed.
    status: u64,
}

/// The spans of an `ExportTraceServiceRequest`.
fn spans(body: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in parts(body, 1) {
        let resource = attributes(parts(parts(of_resource, 1)[0], 1));
        for of_scope in parts(of_resource, 2) {
            for span in parts(of_scope, 2) {
                let bytes = |field| parts(span, field).first().map(|bytes| bytes.to_vec()).unwrap_or_default();
                spans.push(Span {
                    service: resource["service.name"].clone(),
                    trace: bytes(1),
                    id: bytes(2),
                    parent: bytes(4),
                    name: text(&bytes(5)),
                    kind: number(span, 6).unwrap(),
                    took_ns: number(span, 8).unwrap().checked_sub(number(span, 7).unwrap()).unwrap(),
                    attributes: attributes(parts(span, 9)),
                    status: parts(span, 15).first().and_then(|status| number(status, 3)).unwrap_or(0),
                });
            }
        }
    }
    spans
}

/// A collector of few lines.
struct Collector {
    address: SocketAddr,
    bodies: Receiver<Vec<u8>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, bodies): (Sender<Vec<u8>>, _) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, sender) = (stream.unwrap(), sender.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    loop {
                        let (mut line, mut headers) = (String::new(), BTreeMap::new());
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        assert_eq!(line, "POST /v1/traces HTTP/1.1\r\n");
                        loop {
                            let mut line = String::new();
                            reader.read_line(&mut line).unwrap();
                            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
                            headers.insert(name.to_ascii_lowercase(), value.to_owned());
                        }
                        assert_eq!(headers["content-type"], "application/x-protobuf");
                        let mut body = vec![0; headers["content-length"].parse().unwrap()];
                        reader.read_exact(&mut body).unwrap();
                        // Before the answer: the service may end with it. If nobody looks any more, the test is over.
                        drop(sender.send(body));
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                    }
                });
            }
        });
        Self { address, bodies }
    }

    /// All that came until the service ended.
    fn spans(&self) -> Vec<Span> {
        let first = self.bodies.recv_timeout(Duration::from_mins(1)).unwrap();
        let rest = std::iter::from_fn(|| self.bodies.try_recv().ok());
        std::iter::once(first).chain(rest).flat_map(|body| spans(&body)).collect()
    }
}

/// Runs `work` against a service that sends its traces there, and stops the service.
fn traced(collector: SocketAddr, work: impl FnOnce(SocketAddr)) {
    let directory = tempfile::tempdir().unwrap();
    let (listen, keys) = (SocketAddr::from(([127, 0, 0, 1], 0)), Keys::File(KeyFile::of(directory.path())));
    let options = Options { listen, keys, limits: Limits::default(), heed_signals: false, webhooks: Vec::new() };
    let endpoint = Some(format!("http://{collector}/v1/traces"));
    let traces = TraceOptions { endpoint, service_name: Some("till-7".to_owned()) };
    let server = Server::bind(options).unwrap().with_traces(traces);
    let (address, stopper) = (server.address(), server.stopper());
    let thread: JoinHandle<_> = std::thread::spawn(move || server.run(memory_ledger(), || Ok(())));
    work(address);
    stopper.stop();
    thread.join().unwrap().unwrap();
}

const CALLER: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLERS_SPAN: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}

#[test]
fn a_span_of_each_request_arrives_with_its_commit() {
    let collector = Collector::start();
    traced(collector.address, |address| {
        let mut client = Client::connect(address).with("X-Request-Id: mine-1");
        assert_eq!(client.submit(&deposit(4_242, 77_001, "10.5")).status, 200);
        let mut client = Client::connect(address)
            .with(format!("traceparent: 00-{CALLER}-{CALLERS_SPAN}-01"))
            .with("X-Request-Id: mine-2");
        assert_eq!(client.submit(&withdrawal(4_242, 77_002, "99")).status, 422);
        let mut client = Client::connect(address).with("X-Request-Id: mine-3");
        assert_eq!(client.get("/v1/customers/4242").status, 200);
    });
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.service == "till-7" && span.took_ns > 0), "{spans:?}");
    let of = |id: &str| {
        let mut found = spans.iter().filter(|span| span.attributes.get("bursar.request_id").is_some_and(|of| of == id));
        let first = found.next().unwrap_or_else(|| panic!("{id}: {spans:?}"));
        assert!(found.next().is_none());
        first
    };
    let commits = |span: &Span| spans.iter().filter(|other| other.parent == span.id).cloned().collect::<Vec<_>>();
    let table = [
        ("mine-1", "POST /v1/requests", "200", None),
        ("mine-2", "POST /v1/requests", "422", Some("insufficient_funds")),
        ("mine-3", "GET /v1/customers/{customer}", "200", None),
    ];
    for (id, name, status, code) in table {
        let span = of(id);
        // 2: a server's.
        assert_eq!((span.name.as_str(), span.kind, span.status), (name, 2, 0));
        let (method, route) = name.split_once(' ').unwrap();
        let attribute = |name: &str| span.attributes.get(name).map(String::as_str);
        assert_eq!((attribute("http.request.method"), attribute("http.route")), (Some(method), Some(route)));
        assert_eq!((attribute("http.response.status_code"), attribute("error.type")), (Some(status), code));
        let commits = commits(span);
        assert_eq!(commits.len(), usize::from(method == "POST"), "{id}");
        for commit in commits {
            assert_eq!((commit.name.as_str(), &commit.trace), ("commit", &span.trace));
            assert!(commit.took_ns <= span.took_ns && commit.attributes.is_empty());
        }
    }
    // Without a caller's header a trace of its own; with it a part of that one.
    assert_eq!(of("mine-1").parent, Vec::<u8>::new());
    assert_eq!((hex(&of("mine-2").trace), hex(&of("mine-2").parent)), (CALLER.to_owned(), CALLERS_SPAN.to_owned()));
    assert_eq!(spans.len(), 5);
    // Nothing of what was asked for.
    let told = format!("{spans:?}");
    for secret in ["4242", "77001", "77002", "10.5"] {
        assert!(!told.contains(secret), "{secret} is in {told}");
    }
}

/// Whoever collects may be gone: the service answers and stops as ever.
#[test]
fn a_collector_that_is_gone_holds_up_nothing() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    traced(gone, |address| {
        assert_eq!(Client::connect(address).submit(&deposit(1, 1, "1")).status, 200);
    });
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    traced(silent.local_addr().unwrap(), |address| {
        assert_eq!(Client::connect(address).submit(&deposit(1, 1, "1")).status, 200);
    });
}
