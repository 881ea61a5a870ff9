//! Running scenarios: one with its trace, or many on all cores.

use crate::oracle::Violation;
use crate::scenario::{Scenario, Stores};
use crate::witness::{Counts, Witness};
use crate::world;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A run that found something.
#[derive(Clone, Debug)]
pub struct Found {
    /// What was run.
    pub scenario: Scenario,
    /// What must never be.
    pub what: String,
}

/// Runs a scenario; a panic of the engine is a finding like any other.
pub fn run_once(scenario: &Scenario, witness: &Witness) -> Result<(), Violation> {
    let run = AssertUnwindSafe(|| world::run(scenario, witness));
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation(format!("a panic: {}", text.unwrap_or_default())))
    })
}

/// Runs a scenario with its trace.
pub fn run_traced(scenario: &Scenario) -> (String, Counts, Result<(), Violation>) {
    let witness = Witness::tracing();
    let result = run_once(scenario, &witness);
    let (trace, counts) = witness.take();
    (trace, counts, result)
}

/// What many runs saw.
#[derive(Debug, Default)]
pub struct Summary {
    /// How many runs there were.
    pub runs: u64,
    /// How often what occurred in them.
    pub counts: Counts,
    /// The finding with the lowest seed, if there was one.
    pub found: Option<Found>,
}

/// Runs the seeds from `first` on, on so many threads, until one finds something. `progress` hears how many are done.
pub fn run_many(
    first: u64,
    count: u64,
    stores: Option<Stores>,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Summary {
    let next = AtomicU64::new(first);
    let end = first.saturating_add(count);
    let summary = Mutex::new(Summary::default());
    let work = || {
        let mut mine = Counts::new();
        let mut runs = 0;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            let scenario = Scenario { stores, ..Scenario::of(seed) };
            let witness = Witness::default();
            let result = run_once(&scenario, &witness);
            runs += 1;
            for (what, count) in witness.take().1 {
                *mine.entry(what).or_default() += count;
            }
            progress(runs);
            if let Err(Violation(what)) = result {
                // No later seed is begun; earlier ones that are under way come to their end.
                next.fetch_max(end, Ordering::Relaxed);
                let mut all = summary.lock().unwrap_or_else(PoisonError::into_inner);
                if all.found.as_ref().is_none_or(|found| seed < found.scenario.seed) {
                    all.found = Some(Found { scenario, what });
                }
            }
        }
        let mut all = summary.lock().unwrap_or_else(PoisonError::into_inner);
        all.runs += runs;
        for (what, count) in mine {
            *all.counts.entry(what).or_default() += count;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}
