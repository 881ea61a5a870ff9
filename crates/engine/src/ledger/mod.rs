//! A ledger: the public face of the engine.
//!
//! Any number of threads submit and read at once. An outcome is given only after everything it rests on is
//! durable, and a reader sees only what is durable. One customer waits for its own open event; all others go on.

mod by_hand;
mod dry_run;
mod feed;
mod inbox;
mod read;
mod sync;
mod threads;

pub use by_hand::{LastAnswer, PendingEvent, SettleError, Settled};
pub use feed::FeedPage;
pub(crate) use inbox::Inbox;
pub use inbox::{RowsTaken, SubmitError, Submitted};
pub use read::{AsOf, ReadError, TransactionView};

use crate::driver::{Driver, EngineError, SourceRow};
use crate::embedded::{EmbeddedOptions, EmbeddedStore, OpenReport};
use crate::figures::{Figures, Observed};
use crate::rail::Rail;
use crate::store::{Chains, MemoryStore, SourceId, StoreError, Transactions};
use bursar_core::commit::{Limits, Routes, Terms};
use bursar_core::{Currencies, LedgerConfig, Policy, RailId, Request, RequestKey};
use inbox::{Done, Item, RowsDone};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};
use sync::mpsc::{channel, sync_channel};
use sync::thread::{self, JoinHandle};
use sync::{Condvar, Mutex};
use threads::{Deciding, Progress, Shared, answer, make_durable};

/// How a ledger runs. Nothing here is stored; what is stored is chosen by [`new_config`].
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// How many requests may be under way at once; more hear [`SubmitError::Busy`].
    pub queue_requests_max: usize,
    /// What bounds batches and open events.
    pub limits: Limits,
    /// What bounds the embedded store.
    pub embedded: EmbeddedOptions,
    /// Which kinds of request go through which rail.
    pub routes: Routes,
    /// The rails, by number. Also those of events that earlier runs left open.
    pub rails: BTreeMap<u8, Arc<dyn Rail>>,
    /// Where people read accounts, chains and transactions, if not in the stores themselves.
    pub readers: Option<Readers>,
}

/// Stores that [`Ledger::customer`], [`Ledger::chain`] and [`Ledger::transaction`] read, and nothing else does: a cache in
/// front of the ledger's own, or a copy that follows them. What is read there may be some time old, by how much is their
/// affair; nothing is ever decided on it. It must be durable.
#[derive(Clone, Debug)]
pub struct Readers {
    /// Where chains are read.
    pub chains: Arc<dyn Chains>,
    /// Where transactions are read.
    pub transactions: Arc<dyn Transactions>,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self {
            queue_requests_max: 1 << 16,
            limits: Limits::default(),
            embedded: EmbeddedOptions::default(),
            routes: Routes::default(),
            rails: BTreeMap::new(),
            readers: None,
        }
    }
}

impl LedgerOptions {
    /// Makes a rail known under a number.
    #[must_use]
    pub fn with_rail(mut self, id: RailId, rail: Arc<dyn Rail>) -> Self {
        self.rails.insert(id.number(), rail);
        self
    }
}

/// A new ledger's identity, with a random id.
pub fn new_config(policy: Policy, currencies: Currencies) -> Result<LedgerConfig, StoreError> {
    let mut ledger = [0; 16];
    getrandom::fill(&mut ledger).map_err(|error| StoreError::Io {
        doing: "get random bytes for the ledger's id",
        path: std::path::PathBuf::new(),
        error: Arc::new(std::io::Error::other(error.to_string())),
    })?;
    Ok(LedgerConfig { ledger, policy, currencies })
}

/// An open ledger.
///
/// Dropping it stops it without writing a checkpoint: nothing acknowledged is lost, and the next opening reads
/// what came after the last one. [`Ledger::close`] leaves nothing to be read.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    config: LedgerConfig,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Ledger {
    /// Creates a ledger in a directory, which is made if it does not exist, and opens it.
    pub fn create(directory: &Path, config: &LedgerConfig, options: LedgerOptions) -> Result<Self, EngineError> {
        let store = Arc::new(EmbeddedStore::create(directory, config, options.embedded)?);
        Self::with_stores(config.clone(), store.clone(), store, options)
    }

    /// Opens the ledger in a directory.
    pub fn open(directory: &Path, options: LedgerOptions) -> Result<(Self, OpenReport), EngineError> {
        let (store, report) = EmbeddedStore::open(directory, options.embedded)?;
        let store = Arc::new(store);
        let config = store.config().clone();
        Ok((Self::with_stores(config, store.clone(), store, options)?, report))
    }

    /// Opens a ledger in memory, which is gone when the process ends.
    pub fn in_memory(config: &LedgerConfig, options: LedgerOptions) -> Result<Self, EngineError> {
        let store = Arc::new(MemoryStore::new(config));
        Self::with_stores(config.clone(), store.clone(), store, options)
    }

    /// Opens a ledger on any two stores: one that takes whole batches is both; otherwise they may be any pair.
    pub fn with_stores(
        config: LedgerConfig,
        chains: Arc<dyn Chains>,
        transactions: Arc<dyn Transactions>,
        options: LedgerOptions,
    ) -> Result<Self, EngineError> {
        let mut seed = [0; 8];
        // A seed for hash tables; without randomness they still work, only predictably.
        let seed = getrandom::fill(&mut seed).map_or(0, |()| u64::from_le_bytes(seed));
        let LedgerOptions { routes, limits, .. } = options;
        for rail in options.rails.values() {
            rail.opened(&config);
        }
        let schedules = options.rails.iter().filter_map(|(&number, rail)| RailId::new(number).zip(rail.schedule()));
        let driver = Driver::new(config.clone(), routes, limits, chains.clone(), transactions.clone(), seed)?
            .with_schedules(schedules.collect());
        let own = Readers { chains: chains.clone(), transactions: transactions.clone() };
        let shared = Arc::new(Shared {
            inbox: Arc::new(Inbox::new(options.queue_requests_max)),
            chains,
            transactions,
            readers: options.readers.unwrap_or(own),
            rails: options.rails,
            calls: Mutex::default(),
            progress: Mutex::new(Progress::default()),
            progressed: Condvar::new(),
            batch_requests_max: limits.batch_requests_max,
            observed: Observed::default(),
            on_durable: OnceLock::new(),
        });
        let (decided, to_sync) = channel();
        let (used, reuse) = channel();
        let deciding = Deciding::new(shared.clone(), driver, decided, reuse, seed);
        let (durable, answering) = (shared.clone(), shared.clone());
        let (answered, to_tell) = channel();
        let threads = vec![
            spawn("bursar-decide", move || deciding.run())?,
            spawn("bursar-sync", move || make_durable(&durable, &to_sync, &answered, &used))?,
            spawn("bursar-answer", move || answer(&answering, &to_tell))?,
        ];
        Ok(Self { shared, config, threads: Mutex::new(threads) })
    }

    /// The ledger's identity, rules and currencies.
    pub const fn config(&self) -> &LedgerConfig {
        &self.config
    }

    /// The embedded store, if that is where the ledger's chains live.
    pub fn embedded(&self) -> Option<&EmbeddedStore> {
        self.shared.chains.embedded()
    }

    /// What the ledger has counted since it was opened, and how it stands. Waits for nothing but short locks.
    pub fn figures(&self) -> Figures {
        let Shared { inbox, observed, .. } = &*self.shared;
        let (queue, queue_max) = inbox.under_way();
        Figures {
            batch_requests: observed.batch_requests.figures(),
            commit_us: observed.commit.figures(),
            queue_requests: queue as u64,
            queue_requests_max: queue_max as u64,
            is_stopped: self.shared.lock_progress().stopped.is_some(),
            rail_contradictions: observed.rail_contradictions.load(Ordering::Relaxed),
            store: self.embedded().map(EmbeddedStore::figures),
            cache: self.shared.chains.cache_figures(),
        }
    }

    /// Submits a request and waits for its outcome, which is durable then.
    pub fn submit(&self, request: Request) -> Submitted {
        self.submit_batch(vec![request])?.pop().unwrap_or(Err(SubmitError::Closed))
    }

    /// As [`Ledger::submit`], under terms: once for a key, or only if something holds.
    pub fn submit_under(&self, request: Request, terms: Terms) -> Submitted {
        let (sender, outcomes) = sync_channel(1);
        // If the receiver is gone, nobody waits for the outcome.
        self.submit_under_then(vec![request], vec![(0, terms)], move |submitted| drop(sender.send(submitted)))?;
        let submitted = outcomes.recv().map_err(|_| SubmitError::Closed)?;
        submitted.into_iter().next().unwrap_or(Err(SubmitError::Closed))
    }

    /// The key of a request with this text, in this ledger; `None` for a text that is no key
    /// ([`RequestKey::of_text`]).
    pub fn key(&self, text: &[u8]) -> Option<RequestKey> {
        RequestKey::of_text(&self.config.digest(), text)
    }

    /// Submits requests to be decided in this order, and waits for their outcomes. They are taken whole or not
    /// at all ([`SubmitError::Busy`]); each has an outcome of its own.
    pub fn submit_batch(&self, requests: Vec<Request>) -> Result<Vec<Submitted>, SubmitError> {
        let (sender, outcomes) = sync_channel(1);
        // If the receiver is gone, nobody waits for the outcomes.
        self.submit_then(requests, move |submitted| drop(sender.send(submitted)))?;
        outcomes.recv().map_err(|_| SubmitError::Closed)
    }

    /// Submits requests and returns at once. `done` is called with their outcomes, in order, on a thread of the
    /// ledger: it must be short, must not wait for the ledger, and must not be the last to hold it, since dropping a
    /// ledger waits for its threads.
    pub fn submit_then(
        &self,
        requests: Vec<Request>,
        done: impl FnOnce(Vec<Submitted>) + Send + 'static,
    ) -> Result<(), SubmitError> {
        self.submit_under_then(requests, Vec::new(), done)
    }

    /// As [`Ledger::submit_then`], with the terms of some of the requests: by place, in order.
    pub fn submit_under_then(
        &self,
        requests: Vec<Request>,
        terms: Vec<(usize, Terms)>,
        done: impl FnOnce(Vec<Submitted>) + Send + 'static,
    ) -> Result<(), SubmitError> {
        let done: Done = Box::new(done);
        self.shared.inbox.put(Item::Requests { requests, terms, done }).map_err(|(error, _)| error)
    }

    /// Takes in rows of a source, in order, and its position with them: after a crash
    /// [`Ledger::source`] says behind which row to go on. Returns at once; `done` is called as in
    /// [`Ledger::submit_then`], with what became of the rows and the source's new position.
    /// `ends` says that the source ends behind these rows. What is not taken is given back.
    pub fn take_rows_then(
        &self,
        source: SourceId,
        rows: Vec<SourceRow>,
        ends: bool,
        done: impl FnOnce(Result<RowsTaken, SubmitError>) + Send + 'static,
    ) -> Result<(), (SubmitError, Vec<SourceRow>)> {
        let done: RowsDone = Box::new(done);
        self.shared.inbox.put(Item::Rows { source, rows, ends, done }).map_err(|(error, item)| match item {
            Item::Rows { rows, .. } => (error, rows),
            Item::Requests { .. } | Item::Settle { .. } | Item::Pending { .. } => (error, Vec::new()),
        })
    }

    /// Answers what was submitted, then stops, leaving everything durable and nothing to be read at the next
    /// opening. Requests that wait for a rail hear [`SubmitError::Closed`]; their events stay open.
    pub fn close(self) -> Result<(), EngineError> {
        self.stop_threads();
        if let Some(error) = &self.shared.lock_progress().stopped {
            return Err(EngineError::clone(error));
        }
        if let Some(store) = self.embedded() {
            store.close()?;
        }
        Ok(())
    }

    fn stop_threads(&self) {
        self.shared.inbox.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                self.shared.stop(EngineError::Panicked);
            }
        }
        let calls = self.shared.lock_calls().take_all();
        for call in calls {
            call.tell(&SubmitError::Closed);
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, EngineError> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|error| {
        let error = Arc::new(error);
        StoreError::Io { doing: "start a thread", path: std::path::PathBuf::new(), error }.into()
    })
}
