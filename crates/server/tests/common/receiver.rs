//! A receiver of webhooks on a real port, which checks every signature by code of its own and says what it got.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code
#![allow(dead_code, reason = "each test file takes what it needs")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};

/// The secret of the standard's own example.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// HMAC-SHA256 as RFC 2104 writes it down, for keys of up to 64 bytes.
pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad = |byte: u8| (0..64).map(|index| key.get(index).copied().unwrap_or(0) ^ byte).collect::<Vec<u8>>();
    let inner = Sha256::digest([pad(0x36), message.to_vec()].concat());
    Sha256::digest([pad(0x5c), inner.to_vec()].concat()).to_vec()
}

/// A message as it was received.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) headers: BTreeMap<String, String>,
    /// It was answered with a success.
    pub(crate) taken: bool,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The event's transaction, as a number.
    pub(crate) fn transaction(&self) -> u64 {
        self.json()["data"]["transaction"].as_str().unwrap().parse().unwrap()
    }

    fn check(&self, secret: &str) {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let timestamp = &self.headers["webhook-timestamp"];
        let signed = format!("{}.{timestamp}.{}", self.id, self.body);
        let expected = format!("v1,{}", STANDARD.encode(hmac_sha256(&key, signed.as_bytes())));
        let given: Vec<&str> = self.headers["webhook-signature"].split(' ').collect();
        assert!(given.contains(&expected.as_str()), "{given:?} has no {expected}");
        let age = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().abs_diff(timestamp.parse().unwrap());
        assert!(age < 300, "signed {age} s ago");
        assert!(!self.id.contains('.'));
        assert_eq!(self.headers["content-type"], "application/json");
    }
}

type Script = dyn Fn(usize, &Received) -> String + Send + Sync;

#[derive(Default)]
struct Books {
    received: Mutex<Vec<Received>>,
    came: Condvar,
}

/// A receiver that runs until its process ends.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    books: Arc<Books>,
}

impl Receiver {
    /// Takes everything.
    pub(crate) fn new() -> Self {
        Self::with(|_, _| "204 No Content".to_owned())
    }

    /// Answers with the status line that `script` gives for the message so many came before. An empty one: closes the
    /// connection without an answer.
    pub(crate) fn with(script: impl Fn(usize, &Received) -> String + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    pub(crate) fn on(
        listener: TcpListener,
        script: impl Fn(usize, &Received) -> String + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let books = Arc::new(Books::default());
        let (taking, script): (_, Arc<Script>) = (books.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (books, script) = (taking.clone(), script.clone());
                std::thread::spawn(move || serve(&stream, &books, &*script));
            }
        });
        Self { address, books }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/in?token=hush", self.address)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.books.received.lock().unwrap().clone()
    }

    /// Waits until so many have come.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Received> {
        let received = self.books.received.lock().unwrap();
        let patience = Duration::from_mins(1);
        let (received, wait) =
            self.books.came.wait_timeout_while(received, patience, |received| received.len() < count).unwrap();
        assert!(!wait.timed_out(), "only {} of {count} came", received.len());
        received.clone()
    }
}

/// Serves one connection until it is closed.
fn serve(stream: &TcpStream, books: &Books, script: &Script) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        assert_eq!(line, "POST /in?token=hush HTTP/1.1\r\n");
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (id, body) = (headers["webhook-id"].clone(), String::from_utf8(body).unwrap());
        let received = Received { id, body, headers, taken: false };
        received.check(SECRET);
        let count = {
            let mut all = books.received.lock().unwrap();
            all.push(received.clone());
            books.came.notify_all();
            all.len() - 1
        };
        let status = script(count, &received);
        books.received.lock().unwrap()[count].taken = status.starts_with('2');
        if status.is_empty() {
            return;
        }
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        let mut writer = stream;
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
