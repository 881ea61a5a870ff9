//! Runs the real binary, away from the settings of whoever runs the tests.

#![allow(dead_code, reason = "each test file takes what it needs")]

use std::process::{Command, Output, Stdio};

/// Every command there is.
pub(crate) const COMMANDS: [&str; 14] = [
    "init",
    "ingest",
    "info",
    "accounts",
    "account",
    "chain",
    "transaction",
    "unlock",
    "verify",
    "export",
    "explain",
    "generate",
    "completions",
    "man",
];

/// The binary, with an empty standard input and nothing in the environment that changes its output.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command.args(arguments).stdin(Stdio::null()).env_remove("BURSAR_DATA").env_remove("NO_COLOR");
    command
}

/// Runs it to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary runs")
}

/// Its exit code.
pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("not ended by a signal")
}

/// Standard output as text.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// Standard error as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}
