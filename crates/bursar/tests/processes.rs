//! More than one process, processes that are stopped, and readers that go away.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod common;

use common::{Sandbox, code, stderr, stdout};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An ingest of standard input that has begun: it holds the ledger until its input ends.
fn waiting_ingest(sandbox: &Sandbox) -> Child {
    let mut child = sandbox
        .command(&["ingest", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut line = String::new();
    let stderr = child.stderr.as_mut().expect("a pipe");
    BufReader::with_capacity(1, stderr).read_line(&mut line).expect("a line");
    assert_eq!(line, "note: created a ledger in bursar-data\n");
    child
}

#[test]
fn a_ledger_belongs_to_one_process() {
    let sandbox = Sandbox::new();
    let mut first = waiting_ingest(&sandbox);
    sandbox.write("a.csv", "type,client,tx,amount\ndeposit,1,2,1\n");
    let commands: [&[&str]; 10] = [
        &["init"],
        &["info"],
        &["accounts"],
        &["account", "1"],
        &["chain", "1"],
        &["transaction", "1"],
        &["unlock", "1"],
        &["verify"],
        &["ingest", "a.csv"],
        &["ingest", "a.csv", "--dry-run"],
    ];
    for arguments in commands {
        let told = sandbox.fails(3, arguments);
        let expected = match arguments {
            ["init"] => "error[ledger_exists]: there is a ledger in bursar-data already\n",
            _ => "error[in_use]: the ledger in bursar-data is in use by another process\n",
        };
        assert!(told.starts_with(expected), "{arguments:?}: {told}");
    }
    let mut input = first.stdin.take().expect("a pipe");
    input.write_all(b"type,client,tx,amount\ndeposit,1,1,1\n").expect("it reads");
    drop(input);
    let output = first.wait_with_output().expect("it ends");
    assert_eq!(stdout(&output), "client,available,held,total,locked\n1,1.0000,0.0000,1.0000,false\n");
    assert!(sandbox.done(&["ingest", "a.csv"]).ends_with("\n1,2.0000,0.0000,2.0000,false\n"));
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

fn rows(sandbox: &Sandbox, count: &str) {
    let arguments = ["generate", "--rows", count, "--clients", "100", "--disputes", "10", "--resolves", "9", "--quiet"];
    sandbox.done(&[&arguments[..], &["--repeats", "2", "--chargebacks", "0", "--to", "rows.csv"]].concat());
}

/// What an ingest says that nobody interrupts.
fn uninterrupted(sandbox: &Sandbox) -> String {
    sandbox.done(&["--data", "whole", "ingest", "rows.csv", "--quiet"])
}

#[test]
fn an_interrupted_ingest_is_finished_by_the_same_command() {
    let sandbox = Sandbox::new();
    rows(&sandbox, "400_000");
    let expected = uninterrupted(&sandbox);
    let mut interrupted_count = 0;
    for name in ["-INT", "-TERM", "-KILL"] {
        let child = sandbox
            .command(&["ingest", "rows.csv", "--no-report"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let journal = sandbox.path("bursar-data/journal-00000000000000000000.bursar");
        let (started, size) = (Instant::now(), std::fs::metadata(&journal).map_or(0, |found| found.len()));
        while std::fs::metadata(&journal).map_or(0, |found| found.len()) <= size {
            assert!(started.elapsed() < Duration::from_mins(1), "nothing is written");
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&child, name);
        let output = child.wait_with_output().expect("it ends");
        match (name, output.status.code()) {
            ("-KILL", None) => interrupted_count += 1,
            ("-INT" | "-TERM", Some(130)) => {
                interrupted_count += 1;
                assert!(stderr(&output).contains("rows.csv: interrupted; the same command goes on"));
            }
            // It was faster than the signal.
            (_, status) => assert_eq!(status, Some(0), "{}", stderr(&output)),
        }
    }
    assert!(interrupted_count > 0);
    assert_eq!(sandbox.done(&["ingest", "rows.csv"]), expected);
    let third = sandbox.run(&["ingest", "rows.csv"]);
    assert_eq!((code(&third), stdout(&third)), (0, expected));
    assert!(stderr(&third).contains("rows.csv: already in: its 400_000 rows"), "{}", stderr(&third));
}

/// Approvals are written by a thread of their own; a proposal that lost a race against one in the middle of a
/// batch was put off, and the rows behind it were decided twice: disputes that followed a resolve took effect
/// once too often.
#[test]
fn a_ledger_in_memory_comes_to_the_same_accounts() {
    let sandbox = Sandbox::new();
    rows(&sandbox, "300_000");
    let expected = uninterrupted(&sandbox);
    let output = sandbox.run(&["ingest", "rows.csv", "--in-memory"]);
    assert!(stderr(&output).contains("rows.csv: 300_000 rows: "), "{}", stderr(&output));
    assert_eq!(stdout(&output), expected);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let sandbox = Sandbox::new();
    sandbox.done(&["generate", "--rows", "50_000", "--clients", "20_000", "--to", "rows.csv", "--quiet"]);
    sandbox.done(&["ingest", "rows.csv", "--no-report", "--quiet"]);
    let commands: [&[&str]; 4] = [
        &["accounts"],
        &["accounts", "--output", "json"],
        &["ingest", "rows.csv", "--quiet"],
        &["ingest", "rows.csv", "--quiet", "--in-memory"],
    ];
    for arguments in commands {
        let mut child =
            sandbox.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let mut pipe = child.stdout.take().expect("a pipe");
        let mut first = [0; 1];
        pipe.read_exact(&mut first).expect("a byte");
        drop(pipe);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(code(&output), 0, "{arguments:?}");
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
}

#[test]
fn an_ingest_outlives_the_reader_of_its_messages() {
    let sandbox = Sandbox::new();
    let rows = "refund,1,1,1\n".repeat(5_000);
    sandbox.write("bad.csv", format!("type,client,tx,amount\n{rows}deposit,1,1,1\n"));
    let mut child = sandbox
        .command(&["ingest", "bad.csv", "--all-errors"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stderr.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(code(&output), 0);
    assert_eq!(stdout(&output), "client,available,held,total,locked\n1,1.0000,0.0000,1.0000,false\n");
}
