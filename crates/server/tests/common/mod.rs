//! A service on a real port, and a client of few lines that says what was sent and received, byte for byte.

#![allow(dead_code, reason = "each test file takes what it needs")]

pub(crate) mod client;

use bursar_core::{Currencies, Currency, Decimals, Policy};
use bursar_engine::{Ledger, LedgerOptions, new_config};
use bursar_server::keys::{Key, KeyFile, KeySet, Role};
use bursar_server::webhooks::WebhookConfig;
use bursar_server::{Keys, Limits, Options, ServeError, Server, Stopper};
use client::{Client, Response};
use std::net::SocketAddr;
use std::thread::JoinHandle;

/// A service in this process, stopped in the end.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) stopper: Stopper,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
    // Keeps the directory of keys.
    _directory: tempfile::TempDir,
}

impl TestServer {
    /// On a ledger in memory, without keys.
    pub(crate) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self::of(memory_ledger(), None, limits)
    }

    /// With a key of each role.
    pub(crate) fn with_keys() -> (Self, [String; 3]) {
        let mut set = KeySet::default();
        let keys = Role::ALL.map(|role| {
            let key = Key::generate().unwrap();
            set.add(key.entry(role.name(), role, String::new()));
            key.reveal()
        });
        (Self::of(memory_ledger(), Some(set), Limits::default()), keys)
    }

    pub(crate) fn of(ledger: Ledger, keys: Option<KeySet>, limits: Limits) -> Self {
        Self::start(ledger, keys, limits, Vec::new())
    }

    /// Without keys, with webhooks.
    pub(crate) fn with_webhooks(ledger: Ledger, webhooks: Vec<WebhookConfig>) -> Self {
        Self::start(ledger, None, Limits::default(), webhooks)
    }

    pub(crate) fn with_webhooks_and_limits(ledger: Ledger, webhooks: Vec<WebhookConfig>, limits: Limits) -> Self {
        Self::start(ledger, None, limits, webhooks)
    }

    fn start(ledger: Ledger, keys: Option<KeySet>, limits: Limits, webhooks: Vec<WebhookConfig>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keys = keys.map_or_else(|| Keys::File(KeyFile::of(directory.path())), Keys::Given);
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(Options { listen, keys, limits, heed_signals: false, webhooks }).unwrap();
        let (address, stopper) = (server.address(), server.stopper());
        let thread = Some(std::thread::spawn(move || server.run(ledger, || Ok(()))));
        Self { address, stopper, thread, _directory: directory }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.client().get(path)
    }

    /// Posts a request in JSON.
    pub(crate) fn submit(&self, json: &str) -> Response {
        self.client().submit(json)
    }

    /// Posts a request that must take effect.
    pub(crate) fn applied(&self, json: &str) -> serde_json::Value {
        let response = self.submit(json);
        assert_eq!(response.status, 200, "{json}: {}", response.text());
        response.json()
    }

    /// Stops it, and says how it ended.
    pub(crate) fn stop(mut self) -> Result<(), ServeError> {
        self.stopper.stop();
        self.ended()
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(&mut self) -> Result<(), ServeError> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Twice: no test waits for connections that it has left open.
            self.stopper.stop();
            self.stopper.stop();
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

pub(crate) fn memory_ledger() -> Ledger {
    Ledger::in_memory(&new_config(Policy::default(), Currencies::default()).unwrap(), LedgerOptions::default()).unwrap()
}

/// A ledger with euros and yen.
pub(crate) fn two_currencies() -> Ledger {
    let list = [("EUR", 2), ("JPY", 0)].map(|(code, n)| Currency::new(code, Decimals::new(n).unwrap()).unwrap());
    let config = new_config(Policy::default(), Currencies::named(list.into()).unwrap()).unwrap();
    Ledger::in_memory(&config, LedgerOptions::default()).unwrap()
}

pub(crate) fn deposit(customer: u64, transaction: u64, amount: &str) -> String {
    movement("deposit", customer, transaction, amount)
}

pub(crate) fn withdrawal(customer: u64, transaction: u64, amount: &str) -> String {
    movement("withdrawal", customer, transaction, amount)
}

fn movement(kind: &str, customer: u64, transaction: u64, amount: &str) -> String {
    format!(r#"{{"kind":"{kind}","customer":"{customer}","transaction":"{transaction}","amount":"{amount}"}}"#)
}

pub(crate) fn about(kind: &str, customer: u64, transaction: u64) -> String {
    format!(r#"{{"kind":"{kind}","customer":"{customer}","transaction":"{transaction}"}}"#)
}

pub(crate) fn unlock(customer: u64) -> String {
    format!(r#"{{"kind":"unlock","customer":"{customer}"}}"#)
}
