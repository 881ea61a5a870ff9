//! A private Redis server for a test: on a loopback port, in a temporary directory, gone when the test ends.

#![allow(dead_code, unreachable_pub)] // each test file uses a part of it

use crate::CacheSettings;
use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where the server's program is: Redis or Valkey, whichever is found first.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs = ["redis-server", "valkey-server"];
    let found = programs.iter().find_map(|name| {
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
    });
    found.unwrap_or_else(|| {
        panic!("these tests run a Redis server of their own: install it, as with `apt-get install redis-server`")
    })
}

/// A running server.
pub struct RedisServer {
    directory: TempDir,
    port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further settings, as on the server's command line.
    pub fn start_with(settings: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("bursar-redis").tempdir().unwrap();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { directory, port: 0, settings, child: None };
        // Somebody else may take the port in between; then another one is tried.
        for _ in 0..20 {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if server.try_run() {
                return server;
            }
        }
        panic!("{}", std::fs::read_to_string(server.directory.path().join("log")).unwrap_or_default());
    }

    /// Starts the server again, after its end, on the same port and empty.
    pub fn run(&mut self) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !self.try_run() {
            assert!(Instant::now() < deadline, "the server does not start again");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn try_run(&mut self) -> bool {
        let log = File::options().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        let mut server = Command::new(program());
        server.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]).arg(self.port.to_string());
        server.arg("--dir").arg(self.directory.path()).args(&self.settings);
        server.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = server.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            // Refused for want of a password is an answer too. Another server at that port would not have our directory.
            let asked = self.client().get_connection_with_timeout(Duration::from_secs(1));
            let listens = asked.as_ref().err().is_none_or(|error| error.code().is_some());
            if listens {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        false
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn settings(&self) -> CacheSettings {
        CacheSettings::new(&self.url())
    }

    /// Settings with which a slow machine is no fault of the cache.
    pub fn patient_settings(&self) -> CacheSettings {
        CacheSettings { timeout_ms: 10_000, connect_timeout_ms: 10_000, ..self.settings() }
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).unwrap()
    }

    /// A connection of the test's own.
    pub fn connection(&self) -> redis::RedisResult<redis::Connection> {
        let connection = self.client().get_connection_with_timeout(Duration::from_secs(2))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(connection)
    }

    pub fn flush(&self) {
        redis::cmd("FLUSHALL").exec(&mut self.connection().unwrap()).unwrap();
    }

    /// All keys that contain this.
    pub fn keys(&self, part: &str) -> Vec<Vec<u8>> {
        redis::cmd("KEYS").arg(format!("*{part}*")).query(&mut self.connection().unwrap()).unwrap()
    }

    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        redis::cmd("GET").arg(key).query(&mut self.connection().unwrap()).unwrap()
    }

    /// Puts a value that never expires.
    pub fn set(&self, key: &[u8], value: &[u8]) {
        redis::cmd("SET").arg(key).arg(value).exec(&mut self.connection().unwrap()).unwrap();
    }

    /// Waits until so many keys contain this: entries are put in the background.
    pub fn wait_for(&self, part: &str, count: usize) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let keys = self.keys(part);
            if keys.len() >= count {
                return keys;
            }
            assert!(Instant::now() < deadline, "{} of {count} keys with {part:?}", keys.len());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Repeats this until it has put an entry under this key: what people are shown is put in the background, and not by
    /// whoever was slow.
    pub fn put_by(&self, key: &[u8], read: impl Fn()) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.get(key).is_none_or(|value| value == b"-") {
            assert!(Instant::now() < deadline, "nothing is put under {}", String::from_utf8_lossy(key));
            read();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops the server where it is, or lets it go on.
    pub fn pause(&self, paused: bool) {
        use rustix::process::{Pid, Signal, kill_process};
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
