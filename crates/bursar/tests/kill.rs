//! A real process, killed at random moments while it takes in a file, and started again with the same command:
//! in the end everything is as if it had never been killed. Accounts, chains, rejects and counts are compared.
//!
//! The rows hold sequences of dispute, resolve and dispute again, which carry no id of their own: taken in twice,
//! they would show. A kill leaves the page cache, so this says nothing about a missing sync; the test `power_cut`
//! does.
//!
//! `BURSAR_KILLS=2000 cargo test --release --test kill` kills more often than the default.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects")]

mod common;

use common::{Random, TRYING_ROWS, code, command, ok, run, stderr, told};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const KILLS: u32 = 200;

struct Ledger {
    data: PathBuf,
    rejects: PathBuf,
}

impl Ledger {
    fn new(directory: &Path, name: &str) -> Self {
        Self { data: directory.join(name), rejects: directory.join(format!("{name}.rejects.csv")) }
    }

    fn ingest_arguments<'a>(&'a self, file: &'a str) -> Vec<&'a str> {
        let (data, rejects) = (self.data.to_str().unwrap(), self.rejects.to_str().unwrap());
        vec!["ingest", "--quiet", "--no-report", "--data", data, "--rejects", rejects, file]
    }

    fn data(&self) -> &str {
        self.data.to_str().unwrap()
    }

    fn told(&self) -> Vec<String> {
        told(self.data(), &self.rejects, &["1", "7", "40"])
    }
}

/// Says the first difference, not the whole of both.
fn assert_same(got: &[String], expected: &[String], story: &str) {
    let pairs = got.iter().zip(expected).enumerate();
    if let Some((index, (got, expected))) = pairs.into_iter().find(|(_, (got, expected))| got != expected) {
        let lines = got.lines().zip(expected.lines()).find(|(got, expected)| got != expected);
        panic!(
            "{story}: part {index} differs: {lines:?} of {} and {} lines",
            got.lines().count(),
            expected.lines().count()
        );
    }
    assert_eq!(got.len(), expected.len(), "{story}");
}

#[test]
fn a_killed_ingest_continues_as_if_it_had_never_been_killed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rows.csv");
    let file = file.to_str().unwrap();
    ok(&[&["generate", "--rows", "60000", "--clients", "50", "--to", file], &TRYING_ROWS[..]].concat());
    let whole = Ledger::new(directory.path(), "whole");
    let output = run(&whole.ingest_arguments(file));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let expected = whole.told();

    let kill_count = std::env::var("BURSAR_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(KILLS);
    let mut random = Random(3);
    let (mut kills, mut round) = (0, 0);
    while kills < kill_count {
        round += 1;
        let killed = Ledger::new(directory.path(), &format!("killed-{round}"));
        loop {
            let mut child = command(&killed.ingest_arguments(file)).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(500 + random.below(60_000) as u64));
            // It may have come to its end by itself.
            if let Some(status) = child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(0), "round {round}");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            if kills >= kill_count {
                let output = run(&killed.ingest_arguments(file));
                assert_eq!(code(&output), 0, "{}", stderr(&output));
                break;
            }
        }
        assert_same(&killed.told(), &expected, &format!("round {round}, after {kills} kills"));
        assert!(stderr(&run(&["ingest", "--no-report", "--data", killed.data(), file])).contains("already in"));
        ok(&["verify", "--data", killed.data()]);
        std::fs::remove_dir_all(&killed.data).unwrap();
    }
}
