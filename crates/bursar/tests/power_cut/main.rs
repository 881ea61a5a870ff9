//! The real binary and the real store, with real system calls, on a file system that loses at a power cut what was
//! not synced: everything that anybody was told is there afterwards, and the work goes on as if nothing had
//! happened. So the simulated disk of the engine's test `crash` is not the only witness, and, other than where a
//! process is merely killed (the test `kill`), a sync that is missing shows.
//!
//! The same checks must fail on a disk that lies about syncs; that they do is tested as well.
//!
//! It mounts a file system by FUSE, and fails where it may not: it needs /dev/fuse and the right to mount.
//!
//! `BURSAR_POWER_CUTS=1000 cargo test --test power_cut` cuts more often than the default, `BURSAR_POWER_SEED=N`
//! begins with another seed. A seed fixes the requests, the call at which the power goes and the dice for what is
//! lost; threads may still come in another order.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "it has more for clusters of servers")]
mod filesystem;
mod ingest;
mod library;
mod medium;

use common::Random;
use filesystem::{Lies, PowerDisk};
use ingest::Rows;

/// How often the power goes, in each of the two tests.
const CUTS: usize = 60;
/// How many power cuts one ledger of a program sees.
const CUTS_PER_LEDGER: usize = 6;
/// Within how many ledgers a lie must be caught.
const LEDGERS_UNTIL_CAUGHT: usize = 10;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn cuts() -> usize {
    setting("BURSAR_POWER_CUTS", CUTS as u64) as usize
}

fn seeds() -> std::ops::RangeFrom<u64> {
    setting("BURSAR_POWER_SEED", 0)..
}

#[test]
fn what_a_program_was_told_outlives_a_power_cut() {
    let disk = PowerDisk::mount();
    let mut told = 0;
    for seed in seeds().take(cuts().div_ceil(CUTS_PER_LEDGER)) {
        told += library::cut_again_and_again(&disk, seed, CUTS_PER_LEDGER, Lies::default()).unwrap();
    }
    assert!(told > cuts(), "{told} receipts and calls say little about {} cuts", cuts());
}

#[test]
fn an_ingest_cut_by_power_again_and_again_ends_as_if_it_had_not_been() {
    let disk = PowerDisk::mount();
    let rows = Rows::new();
    let (mut count, mut told) = (0, 0);
    for seed in seeds() {
        let round = ingest::cut_until_done(&disk, &rows, seed, Lies::default()).unwrap();
        count += round.cuts;
        told += round.told;
        if count >= cuts() {
            break;
        }
    }
    assert!(told * 2 > count, "at {told} of {count} cuts there was something to lose");
}

#[test]
fn an_ingest_on_a_full_disk_goes_on_once_there_is_room() {
    let disk = PowerDisk::mount();
    let rows = Rows::new();
    let full: usize = seeds().take(3).map(|seed| ingest::full_until_done(&disk, &rows, seed)).sum();
    assert!(full >= 6, "the disk was full only {full} times");
}

/// Says at which ledger and cut a lie was caught.
fn must_be_caught(lies: Lies, mut miss: impl FnMut(u64) -> Result<(), String>) {
    let caught = seeds().take(LEDGERS_UNTIL_CAUGHT).find_map(|seed| miss(seed).err());
    println!("{lies:?}: {}", caught.unwrap_or_else(|| panic!("{lies:?}: nothing was missed")));
}

#[test]
fn a_disk_that_lies_to_a_program_is_caught() {
    let disk = PowerDisk::mount();
    for after_cuts in [0, 2] {
        for (files, directories) in [(true, false), (false, true)] {
            let lies = Lies { files, directories, after_cuts };
            must_be_caught(lies, |seed| library::cut_again_and_again(&disk, seed, CUTS_PER_LEDGER, lies).map(drop));
        }
    }
}

#[test]
fn a_disk_that_lies_to_an_ingest_is_caught() {
    let disk = PowerDisk::mount();
    let rows = Rows::new();
    // Once there is a ledger, an ingest of this size begins no further segment, and its directory's syncs concern
    // only what is derived.
    for (files, directories, after_cuts) in [(true, false, 0), (false, true, 0), (true, false, 2)] {
        let lies = Lies { files, directories, after_cuts };
        must_be_caught(lies, |seed| ingest::cut_until_done(&disk, &rows, seed, lies).map(drop));
    }
}
