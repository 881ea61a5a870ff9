//! The simulator as a test: some seeds, the same bytes twice, every fault really injected, and the runs that once
//! found something.
//!
//! The long form is the program itself (`docs/testing.md`).
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_sim::run::{run_many, run_traced};
use bursar_sim::scenario::{Scenario, Stores};
use bursar_sim::shrink::shrink;

const SEEDS: u64 = 600;

/// What must have occurred in these seeds: a fault that is never injected is not tested.
const OCCURS: [&str; 45] = [
    "answer: already applied",
    "answer: a condition did not hold",
    "answer: already applied with this key",
    "answer: key reused",
    "answer: request in progress",
    "answer: applied",
    "answer: busy",
    "answer: rejected",
    "chains: a call fails after its effect",
    "chains: a call fails before its effect",
    "chains: a call fails half-way",
    "chains: a call of a dead owner arrives late",
    "chains: the system crashes",
    "client: asks again after a crash",
    "client: asks again with its key",
    "clock: jumps ahead",
    "clock: jumps back",
    "disk: a bit flips at rest",
    "disk: a sync fails, its pages are gone",
    "disk: a sync of the directory fails",
    "disk: a synced sector was not written",
    "disk: a synced sector was written elsewhere",
    "disk: another call fails",
    "disk: no space",
    "disk: reading fails",
    "disk: still no space",
    "disk: the power goes at a call",
    "disk: the power is cut",
    "disk: writing fails half-way",
    "operator: settles as aborted",
    "operator: settles as done",
    "owner: is killed",
    "rail: answers after its caller died",
    "rail: answers twice",
    "rail: refuses",
    "rail: times out after it acted",
    "rail: times out before it acts",
    "table: a call fails after its effect",
    "table: a call fails before its effect",
    "table: a call fails half-way",
    "table: a call of a dead owner arrives late",
    "table: the system crashes",
    "opening: cut off a torn write",
    "opening: made the index anew",
    "opening: was refused",
];

#[test]
fn nothing_is_found_and_every_fault_occurs() {
    let summary = run_many(0, SEEDS, None, 2, &|_| {});
    assert!(summary.found.is_none(), "{:?}", summary.found);
    assert_eq!(summary.runs, SEEDS);
    let missing: Vec<_> = OCCURS.iter().filter(|what| !summary.counts.contains_key(*what)).collect();
    assert!(missing.is_empty(), "never occurred: {missing:?}");
    let unknown: Vec<_> = summary.counts.keys().filter(|what| !OCCURS.contains(what)).collect();
    assert!(unknown.is_empty(), "occurred, and is not in the list of what must: {unknown:?}");
}

#[test]
fn a_seed_is_the_same_run_for_ever() {
    for seed in 0..30 {
        let scenario = Scenario::of(seed);
        let (one, counts, _) = run_traced(&scenario);
        let (two, counts_of_two, _) = run_traced(&scenario);
        assert!(one.len() > 1000, "seed {seed} has no story");
        assert!(one == two && counts == counts_of_two, "seed {seed} is not the same twice");
    }
}

/// Leaving out a step changes no other: what is left of a run is a part of it.
#[test]
fn a_run_shrinks_only_to_what_still_fails() {
    // Nothing fails here: nothing is left out.
    let scenario = Scenario::of(3);
    assert_eq!(shrink(&scenario, 20).steps(), scenario.steps());
}

/// Runs that once found something in the engine, or in the simulator itself, with their stories.
const REGRESSIONS: [(u64, Stores, &[u64], &str); 2] = [
    (
        1395,
        Stores::Embedded,
        &[66, 86, 92, 103, 104, 116, 117, 118],
        "An error of the disk while the index was opened was taken for damage: the index was made anew, and its sound \
     files were removed, while the checkpoint went on naming them. With the checkpoint unread, nobody knew any more up \
     to where the journal had been durable.",
    ),
    (
        17_792,
        Stores::Mixed,
        &[17, 18, 19, 22, 24, 29, 37, 39, 41, 42, 44, 45, 48, 50],
        "A fault of the simulated disk: it lost a write at the end of a segment, and then the name of the next segment with \
     the power. So the first was the journal's last one again, and nothing could tell that the write was missing. What \
     no store can notice is taken back; that was looked for in the segment whose name was still there.",
    ),
];

#[test]
fn what_was_once_found_is_not_found_again() {
    for (seed, stores, steps, story) in REGRESSIONS {
        let scenario = Scenario { seed, stores: Some(stores), steps: Some(steps.to_vec()) };
        let (trace, _, result) = run_traced(&scenario);
        assert_eq!(result, Ok(()), "seed {seed}: {story}\n{trace}");
    }
}
