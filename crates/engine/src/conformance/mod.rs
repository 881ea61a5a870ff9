//! What every store must do, as a list of cases that run against any pair of [`Chains`] and [`Transactions`].
//!
//! A store's own tests make a [`Target`] and call [`passes`]:
//!
//! ```text
//!  Target::fresh ──► Home ──► Stores { chains, transactions } ──► cases ──► Failure { case, what }
//!                     └── reopen: after a crash, or cleanly, where the store outlives its process
//! ```
//!
//! Each case begins with stores of its own, does to them what the commit protocol does, keeps in a [`Scene`]
//! what must be there, and compares. What this module does not do: the rules and the protocol, which have
//! tests of their own in `bursar-core`; and faults of a medium, which are each store's own.
//!
//! Compiled only with the feature `conformance`, for tests.

mod append;
mod at_once;
mod durability;
mod feed;
mod keys;
mod parallel;
mod reading;
mod scale;
mod scene;
mod table;

pub use scene::Scene;

use crate::store::{Chains, StoreError, Transactions};
use bursar_core::{Currencies, Currency, Decimals, DisputablePolicy, LedgerConfig, LockedPolicy, Policy};
use std::fmt;
use std::sync::Arc;

/// A pair of stores of one ledger. They may be one and the same.
#[derive(Clone, Debug)]
pub struct Stores {
    /// The chains.
    pub chains: Arc<dyn Chains>,
    /// The transactions table.
    pub transactions: Arc<dyn Transactions>,
}

/// How stores come to their end before they are opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As they do when everything goes well.
    Clean,
    /// As they do when their process is killed.
    Crash,
}

/// Where a ledger's stores live, as long as it lives.
pub trait Home {
    /// The stores, as they were opened last.
    fn stores(&self) -> Stores;

    /// Ends the stores and opens them again; `false` if they do not outlive their process. All other handles
    /// on them have been dropped before.
    fn reopen(&mut self, ending: Ending) -> Result<bool, StoreError>;
}

/// A kind of stores to be checked.
pub trait Target {
    /// New stores for a ledger that nobody else has.
    fn fresh(&self, config: &LedgerConfig) -> Result<Box<dyn Home>, StoreError>;

    /// Whether the chains have a feed: one that is missing is not passed over.
    fn has_feed(&self) -> bool {
        true
    }
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The name of the case.
    pub case: &'static str,
    /// What was not as it should be.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.case, self.what)
    }
}

/// What a case found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong(String);

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Self {
        Self(format!("the store failed with `{}`: {error}", error.code()))
    }
}

type Checked = Result<(), Wrong>;

/// A case: its name, and the check.
type Case = (&'static str, fn(&mut Scene) -> Checked);

/// All cases, by name.
const CASES: &[&[Case]] = &[
    append::CASES,
    at_once::CASES,
    table::CASES,
    keys::CASES,
    reading::CASES,
    scale::CASES,
    durability::CASES,
    parallel::CASES,
    feed::CASES,
];

/// The names of all cases.
pub fn case_names() -> Vec<&'static str> {
    CASES.iter().copied().flatten().map(|(name, _)| *name).collect()
}

/// Runs all cases; gives those that failed.
pub fn run(target: &dyn Target) -> Vec<Failure> {
    let mut failures = Vec::new();
    for &(case, check) in CASES.iter().copied().flatten() {
        let checked = Scene::new(target).and_then(|mut scene| check(&mut scene));
        if let Err(Wrong(what)) = checked {
            failures.push(Failure { case, what });
        }
    }
    failures
}

/// Runs all cases, for a test: names every one that failed.
///
/// # Panics
///
/// If a case failed.
pub fn passes(target: &dyn Target) {
    let failures: Vec<String> = run(target).iter().map(ToString::to_string).collect();
    let count = case_names().len();
    assert!(failures.is_empty(), "{} of {count} cases failed:\n{}", failures.len(), failures.join("\n"));
}

/// The ledger that all cases play in: three currencies, and withdrawals that can be disputed.
fn config(ledger: [u8; 16]) -> Result<LedgerConfig, Wrong> {
    let currency = |code, decimals| {
        let decimals = Decimals::new(decimals).ok_or_else(|| Wrong("too many decimals".to_owned()))?;
        Currency::new(code, decimals).map_err(|error| Wrong(error.to_string()))
    };
    let list = vec![currency("EUR", 2)?, currency("JPY", 0)?, currency("GOLD", 9)?];
    let policy = Policy { locked: LockedPolicy::Nothing, disputable: DisputablePolicy::DepositsAndWithdrawals };
    let currencies = Currencies::named(list).map_err(|error| Wrong(error.to_string()))?;
    Ok(LedgerConfig { ledger, policy, currencies })
}

/// An error unless both are equal.
fn equal<T: PartialEq + fmt::Debug + ?Sized>(what: &str, got: &T, expected: &T) -> Checked {
    if got == expected { Ok(()) } else { Err(Wrong(format!("{what}: got {got:?}, expected {expected:?}"))) }
}

/// An error unless it holds.
fn holds(what: &str, condition: bool) -> Checked {
    if condition { Ok(()) } else { Err(Wrong(what.to_owned())) }
}
