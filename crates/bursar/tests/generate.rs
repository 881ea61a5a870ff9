//! `bursar generate` as a promise: the same flags give the same bytes, in every version.
//!
//! If one of these tests fails, workloads that people have measured with no longer exist. Change the
//! expected bytes only for a reason that is worth that, and say so in the changelog.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod common;

use common::{code, run, stderr, stdout};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

const GOLDEN_FLAGS: &[&str] = &[
    "--rows",
    "60",
    "--clients",
    "5",
    "--seed",
    "42",
    "--disputes",
    "20",
    "--resolves",
    "12",
    "--chargebacks",
    "4",
    "--repeats",
    "5",
];

fn generate(flags: &[&str]) -> Vec<u8> {
    let output = run(&[&["generate", "--quiet"], flags].concat());
    assert_eq!(code(&output), 0, "{flags:?}: {}", stderr(&output));
    assert!(output.stderr.is_empty());
    output.stdout
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes it");
        text
    })
}

#[test]
fn a_small_workload_is_the_golden_file() {
    let golden = include_str!("golden/generate.csv");
    assert_eq!(String::from_utf8(generate(GOLDEN_FLAGS)).expect("text"), golden);
}

#[test]
fn workloads_of_every_form_keep_their_digests() {
    let table: &[(&[&str], &str)] = &[
        (&["--rows", "100_000"], "579b305fb1d81c880a67a542d3468c3737b64e0f7e990f023a0ef1ec30b4bc0b"),
        (
            &["--rows", "100_000", "--seed", "18446744073709551615", "--skew", "80.5", "--ids", "random"],
            "ed596d798a6398e470331d460a28559bd4aeede6fe48c640440105c053bbd136",
        ),
        (
            &["--rows", "100_000", "--ids", "uuid", "--client-ids", "uuid", "--bad", "5", "--repeats", "2.125"],
            "f2f7f1cd2b1f4c65a3b10e2ec0c65575930e2919343428d8016b82033a7f463e",
        ),
        (
            &["--rows", "100_000", "--currency", "EUR:2", "--currency", "JPY:0", "--amounts", "70", "--disputes", "9"],
            "ebb9e49fdf2695893ec44cbbcda6605f93e24026196461fbfc67102dcd6d9156",
        ),
        (
            &["--rows", "100_000", "--decimals", "9", "--dispute-window", "3", "--chargebacks", "0.3"],
            "8b78c351b5ddae364cacf207b14c740d8e7d380dc9442539048dc09545cf807e",
        ),
    ];
    for (flags, expected) in table {
        assert_eq!(digest(&generate(flags)), *expected, "{flags:?}");
    }
}

#[test]
fn the_same_bytes_go_to_a_file_and_to_standard_output() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rows.csv");
    let to = ["--rows", "30_000", "--to", file.to_str().expect("a path in UTF-8")];
    assert!(generate(&to).is_empty());
    assert!(std::fs::read(&file).expect("the file") == generate(&to[..2]));
}

#[test]
fn a_longer_workload_begins_with_the_shorter_one() {
    let (short, long) = (generate(&["--rows", "1000"]), generate(&["--rows", "2000"]));
    assert!(long.starts_with(&short) && long.len() > short.len());
    assert_eq!(generate(&["--rows", "0"]), b"type,client,tx,amount\n");
}

#[test]
fn another_seed_is_another_workload() {
    assert_ne!(generate(&["--rows", "100", "--seed", "1"]), generate(&["--rows", "100", "--seed", "2"]));
}

#[test]
fn the_summary_counts_what_was_written() {
    let output = run(&["generate", "--rows", "20_000", "--disputes", "3", "--resolves", "1", "--chargebacks", "1"]);
    let (summary, text) = (stderr(&output), stdout(&output));
    for kind in ["deposit", "withdrawal", "dispute", "resolve", "chargeback"] {
        let count = text.lines().filter(|line| line.starts_with(&format!("{kind},"))).count().to_string();
        let shown = match count.len() {
            0..=3 => count,
            length => format!("{}_{}", &count[..length - 3], &count[length - 3..]),
        };
        assert!(summary.contains(&format!("{kind}s: {shown}")), "{kind} {shown}: {summary}");
    }
}
