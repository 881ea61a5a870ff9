//! Callers on one side, the cache's server on the other, and a few threads between them.
//!
//! ```text
//!  caller ──► bounded queue ──► a thread with its connection ──► server
//!     └── waits for the answer, up to a limit
//! ```
//!
//! No caller touches a socket, so none waits longer than it said, whatever the name service, the server or the network does.
//! After a failure the cache is left alone for a while; then one caller tries it, and the others go on without it.
//!
//! What this module does not do: look at what entries say.

use crate::error::CacheError;
use crate::link::{Failed, Link, Put};
use crate::settings::CacheSettings;
use bursar_engine::figures::CacheFigures;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Calls that may wait for a thread.
const QUEUED_ASKS_MAX: usize = 256;
/// Groups of entries that may wait to be put; more are dropped.
const QUEUED_PUTS_MAX: usize = 64;
/// For how long a mark keeps entries from being put where something has changed: longer than one that was read before the
/// change can be under way.
pub(crate) const MARK_FOR: Duration = Duration::from_secs(1);
/// By when an entry that was read from a store must be put, or not at all.
pub(crate) const PUT_WITHIN: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) disbelieved: AtomicU64,
    pub(crate) repeats: AtomicU64,
    failures: AtomicU64,
    dropped: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// Whether the cache is asked, or left alone after a failure.
#[derive(Debug)]
struct Breaker {
    since: Instant,
    pause_ms: u64,
    /// Until when it is left alone, in milliseconds behind `since`; 0: it is asked.
    until_ms: AtomicU64,
}

impl Breaker {
    fn new(pause_ms: u64) -> Self {
        Self { since: Instant::now(), pause_ms, until_ms: AtomicU64::new(0) }
    }

    fn now_ms(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }

    /// Whether this caller may ask. Of those who come when the pause is over, one may.
    fn may_ask(&self) -> bool {
        let until_ms = self.until_ms.load(Ordering::Acquire);
        if until_ms == 0 {
            return true;
        }
        let now_ms = self.now_ms();
        let next_ms = now_ms.saturating_add(self.pause_ms);
        now_ms >= until_ms
            && self.until_ms.compare_exchange(until_ms, next_ms, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn worked(&self) {
        self.until_ms.store(0, Ordering::Release);
    }

    fn failed(&self) {
        self.until_ms.store(self.now_ms().saturating_add(self.pause_ms), Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.until_ms.load(Ordering::Acquire) != 0
    }
}

type Values = Vec<Option<Vec<u8>>>;

/// What a thread is asked to do, and where its answer goes.
enum Ask {
    Get(Vec<Vec<u8>>, SyncSender<Result<Values, Failed>>),
    Mark(Vec<Vec<u8>>, SyncSender<Result<(), Failed>>),
}

struct Job {
    ask: Ask,
    /// Nobody waits for it any more.
    not_after: Instant,
}

enum Later {
    Put(Vec<Put>),
    Remove(Vec<Vec<u8>>),
}

/// The way to the cache.
#[derive(Debug)]
pub(crate) struct Client {
    asks: SyncSender<Job>,
    later: SyncSender<Later>,
    timeout: Duration,
    breaker: Breaker,
    putting: Arc<Breaker>,
    pub(crate) counts: Counts,
    /// See [`Client::may_show`].
    unsure_for_ms: u64,
    unsure_until_ms: AtomicU64,
}

impl Client {
    /// Starts the threads. Whether there is a server is found out later; one that is there, and is a node of a cluster, is
    /// refused.
    pub(crate) fn start(settings: &CacheSettings) -> Result<Self, CacheError> {
        let client = settings.client()?;
        let timeout = Duration::from_millis(settings.timeout_ms);
        let connect_timeout = Duration::from_millis(settings.connect_timeout_ms);
        let link = || Link::new(client.clone(), connect_timeout, timeout);
        refuse_cluster(link(), connect_timeout + timeout)?;
        let (asks, jobs) = sync_channel(QUEUED_ASKS_MAX);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..settings.connections {
            let (jobs, link) = (jobs.clone(), link());
            spawn("bursar-cache", move || answer(link, &jobs))?;
        }
        let (later, puts) = sync_channel(QUEUED_PUTS_MAX);
        let putting = Arc::new(Breaker::new(settings.pause_ms));
        let (breaker, link) = (putting.clone(), link());
        spawn("bursar-cache-put", move || put(link, &puts, &breaker))?;
        Ok(Self {
            asks,
            later,
            timeout,
            breaker: Breaker::new(settings.pause_ms),
            putting,
            counts: Counts::default(),
            unsure_for_ms: settings.shown_for_ms,
            unsure_until_ms: AtomicU64::new(0),
        })
    }

    /// The values of these keys, in this order; `None` if the cache does not tell.
    pub(crate) fn get(&self, keys: Vec<Vec<u8>>) -> Option<Values> {
        self.ask(|reply| Ask::Get(keys, reply))
    }

    /// Takes these entries away, and keeps others from being put there by somebody who has read before now what is to be
    /// put. Where that fails, nothing is shown from the cache until what is there must be gone.
    pub(crate) fn mark(&self, keys: Vec<Vec<u8>>) {
        if self.ask(|reply| Ask::Mark(keys, reply)).is_none() {
            let until_ms = self.breaker.now_ms().saturating_add(self.unsure_for_ms);
            self.unsure_until_ms.fetch_max(until_ms, Ordering::AcqRel);
        }
    }

    /// Whether this process may show what the cache says: not if an entry is there that it should have taken away.
    pub(crate) fn may_show(&self) -> bool {
        self.breaker.now_ms() >= self.unsure_until_ms.load(Ordering::Acquire)
    }

    /// Puts entries, some time later, or not at all.
    pub(crate) fn put_later(&self, puts: Vec<Put>) {
        let put_count = puts.len();
        self.do_later(Later::Put(puts), put_count);
    }

    /// Takes away entries that were not believed, some time later, or not at all.
    pub(crate) fn remove_later(&self, keys: Vec<Vec<u8>>) {
        let key_count = keys.len();
        self.do_later(Later::Remove(keys), key_count);
    }

    fn do_later(&self, later: Later, entry_count: usize) {
        if entry_count > 0 && self.later.try_send(later).is_err() {
            count(&self.counts.dropped, entry_count);
        }
    }

    fn ask<T>(&self, ask: impl FnOnce(SyncSender<Result<T, Failed>>) -> Ask) -> Option<T> {
        if !self.breaker.may_ask() {
            return None;
        }
        let (reply, answer) = sync_channel(1);
        let job = Job { ask: ask(reply), not_after: Instant::now() + self.timeout };
        let answered = match self.asks.try_send(job) {
            Ok(()) => answer.recv_timeout(self.timeout).ok(),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        };
        if let Some(Ok(found)) = answered {
            self.breaker.worked();
            return Some(found);
        }
        self.breaker.failed();
        count(&self.counts.failures, 1);
        None
    }

    pub(crate) fn figures(&self) -> CacheFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheFigures {
            hits: read(&self.counts.hits),
            misses: read(&self.counts.misses),
            disbelieved: read(&self.counts.disbelieved),
            failures: read(&self.counts.failures),
            repeats: read(&self.counts.repeats),
            dropped: read(&self.counts.dropped),
            is_left_alone: self.breaker.is_open() || self.putting.is_open(),
        }
    }
}

/// A node of a cluster would be asked for keys that others have, and be left alone as one that fails: for ever, and
/// nobody would know why. A server that does not tell in time is no error.
fn refuse_cluster(mut link: Link, wait: Duration) -> Result<(), CacheError> {
    let (reply, answer) = sync_channel(1);
    spawn("bursar-cache-first", move || drop(reply.send(link.is_cluster())))?;
    if let Ok(Ok(true)) = answer.recv_timeout(wait) {
        let what = "the server is a node of a Redis or Valkey cluster, and one server is spoken to here: give one that runs \
                    without `cluster-enabled`";
        return Err(CacheError::Setting { field: "url", what: what.to_owned() });
    }
    Ok(())
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), CacheError> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(run);
    // They end when nobody can ask them any more; nobody waits for that.
    started.map(drop).map_err(|error| CacheError::Thread { error })
}

fn answer(mut link: Link, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { ask, not_after }) = job else { return };
        if Instant::now() > not_after {
            continue;
        }
        // Who asked may not wait any more; then nobody wants the answer.
        match ask {
            Ask::Get(keys, reply) => drop(reply.send(link.get(&keys))),
            Ask::Mark(keys, reply) => drop(reply.send(link.mark(&keys, MARK_FOR))),
        }
    }
}

fn put(mut link: Link, later: &Receiver<Later>, breaker: &Breaker) {
    while let Ok(later) = later.recv() {
        if !breaker.may_ask() {
            continue;
        }
        let done = match later {
            Later::Put(puts) => link.put(&puts),
            Later::Remove(keys) => link.remove(&keys),
        };
        match done {
            Ok(()) => breaker.worked(),
            Err(Failed) => breaker.failed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_failed_is_left_alone_and_then_tried_by_one() {
        let breaker = Breaker::new(20);
        assert!(breaker.may_ask() && breaker.may_ask());
        breaker.failed();
        let alone_until = breaker.until_ms.load(Ordering::Acquire);
        while breaker.now_ms() < alone_until {
            assert!(!breaker.may_ask() || breaker.now_ms() >= alone_until);
            thread::sleep(Duration::from_millis(1));
        }
        breaker.until_ms.store(1, Ordering::Release);
        assert!(breaker.may_ask(), "one tries it");
        breaker.until_ms.store(u64::MAX, Ordering::Release);
        assert!(!breaker.may_ask(), "the others do not");
        breaker.worked();
        assert!(breaker.may_ask() && breaker.may_ask());
    }
}
