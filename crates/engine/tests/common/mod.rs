//! What the tests of the engine share.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code
#![allow(dead_code, unreachable_pub)] // each test uses a part

pub mod disk;

use bursar_engine::core::commit::Outcome;
use bursar_engine::core::{
    Amount, ChainCheck, Currencies, CustomerId, EventStatus, LedgerConfig, Policy, Request, TransactionId,
    TransactionState,
};
use bursar_engine::store::{ChainEntry, ReadRange};
use bursar_engine::{Ledger, new_config};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use tempfile::TempDir;

/// A new directory; in memory where the machine has such a place, since these tests sync thousands of times.
pub fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if let Ok(directory) = tempfile::tempdir_in(memory) { directory } else { tempfile::tempdir().unwrap() }
}

pub fn config() -> LedgerConfig {
    new_config(Policy::default(), Currencies::default()).unwrap()
}

pub const fn customer(number: u128) -> CustomerId {
    CustomerId::new(number)
}

pub const fn transaction(number: u128) -> TransactionId {
    TransactionId::new(number)
}

pub const fn deposit(of: u128, id: u128, steps: i64) -> Request {
    Request::deposit(CustomerId::new(of), TransactionId::new(id), Amount::from_steps(steps))
}

pub const fn withdrawal(of: u128, id: u128, steps: i64) -> Request {
    Request::withdrawal(CustomerId::new(of), TransactionId::new(id), Amount::from_steps(steps))
}

pub const fn dispute(of: u128, id: u128) -> Request {
    Request::dispute(CustomerId::new(of), TransactionId::new(id))
}

/// The outcome's code: `applied`, `already_applied`, or that of the rejection.
pub fn code(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Applied(_) => "applied",
        Outcome::AlreadyApplied(_) => "already_applied",
        Outcome::Rejected(rejection) => rejection.code(),
    }
}

/// Runs a test that must come to its end: a deadlock fails it instead of stopping the whole run.
pub fn within_minutes(run: impl FnOnce() + Send + 'static) {
    let (ended, wait) = channel();
    let running = std::thread::spawn(move || {
        run();
        drop(ended);
    });
    match wait.recv_timeout(Duration::from_mins(5)) {
        Err(RecvTimeoutError::Disconnected) => running.join().unwrap(),
        Ok(()) | Err(RecvTimeoutError::Timeout) => panic!("this should have come to its end long ago"),
    }
}

/// All chains of a ledger, each checked event by event, and the transactions' states by them.
pub struct Audit {
    pub chains: BTreeMap<CustomerId, Vec<ChainEntry>>,
    pub transactions: BTreeMap<TransactionId, TransactionState>,
}

/// Follows every chain with the core's own check, and compares what it leads to with all that the ledger says:
/// heads, accounts, transactions, sums.
pub fn audit(ledger: &Ledger) -> Audit {
    let config = ledger.config();
    let digest = config.digest();
    let mut audit = Audit { chains: BTreeMap::new(), transactions: BTreeMap::new() };
    let (mut total, mut held, mut event_count) = (BTreeMap::new(), BTreeMap::new(), 0);
    for listed in ledger.customers(None, usize::MAX).unwrap() {
        let chain = ledger.chain(listed.customer, ReadRange::ALL).unwrap();
        let mut check = ChainCheck::new(&digest, listed.customer);
        for entry in &chain {
            let id = entry.linked.event.transaction;
            let known = id.and_then(|id| audit.transactions.get(&id)).copied();
            let state = check.follow(config, known, &entry.linked, &entry.status).unwrap();
            audit.transactions.extend(id.zip(state));
            event_count += u64::from(entry.status != EventStatus::Started);
        }
        assert_eq!(*check.head(), listed.head, "the head of {}", listed.customer);
        assert_eq!(ledger.customer(listed.customer).unwrap().as_ref(), Some(check.head()));
        for (currency, account) in listed.head.state.accounts.iter() {
            assert!(account.held.steps() >= 0);
            *total.entry(currency).or_insert(0) += i128::from(account.total().unwrap().steps());
            *held.entry(currency).or_insert(0) += i128::from(account.held.steps());
        }
        audit.chains.insert(listed.customer, chain);
    }
    for (id, state) in &audit.transactions {
        let view = ledger.transaction(*id).unwrap().unwrap();
        assert_eq!(view.state, Some(*state), "transaction {id}");
        assert!(view.events.iter().all(|event| event.customer == state.customer));
    }
    let totals = ledger.totals().unwrap();
    for (currency, steps) in total {
        let sums = totals.currency(currency);
        assert!(sums.is_balanced(), "{sums:?}");
        assert_eq!((sums.total.steps(), sums.held.steps()), (steps, held[&currency]));
    }
    assert_eq!((totals.event_count, totals.customer_count), (event_count, audit.chains.len() as u64));
    assert_eq!(totals.transaction_count, audit.transactions.len() as u64);
    audit
}

/// Copies a data directory as it is on the disk at this moment, as a kill would leave it.
pub fn copy_of(path: &Path) -> TempDir {
    let copy = directory();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        // A file that is renamed or removed meanwhile is one that may be missing after a kill, too.
        match std::fs::copy(entry.path(), copy.path().join(entry.file_name())) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
        }
    }
    copy
}

/// A small generator with a seed, for choices that must be the same every time.
pub struct Choices(u64);

impl Choices {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
