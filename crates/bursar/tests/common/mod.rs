//! Runs the real binary, away from the settings of whoever runs the tests.

#![allow(dead_code, reason = "each test file takes what it needs")]
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
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

/// The example that is shipped.
pub(crate) const EXAMPLE: &str = include_str!("../../../../examples/data/payments.csv");
/// The accounts that it leads to.
pub(crate) const EXAMPLE_ACCOUNTS: &str = include_str!("../../../../examples/data/payments.accounts.csv");

/// A directory of its own, in which commands run; the ledger lies in `bursar-data`.
pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    /// With a ledger that holds the example.
    pub(crate) fn with_example() -> Self {
        let sandbox = Self::new();
        sandbox.write("payments.csv", EXAMPLE);
        sandbox.done(&["ingest", "payments.csv", "--quiet", "--no-report"]);
        sandbox
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("written");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a text file")
    }

    /// A command that is about to run here.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.current_dir(self.directory.path());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }

    /// Runs a command with this on its standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().expect("the binary runs");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    }

    /// Runs a command that must end with 0; gives its standard output.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// Runs a command that must end with this code; gives its standard error.
    pub(crate) fn fails(&self, exit: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(code(&output), exit, "{arguments:?}: {}", stderr(&output));
        stderr(&output)
    }

    /// Every file of the ledger with its content.
    pub(crate) fn ledger_files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(self.path("bursar-data")).expect("a ledger");
        let content = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.expect("an entry");
            (entry.file_name().into_string().expect("UTF-8"), std::fs::read(entry.path()).expect("a file"))
        };
        entries.map(content).collect()
    }
}

/// Text with everything that differs from run to run made alike, of the same width: hashes, ids of events (UUIDs
/// of version 8) and of ledgers, times.
pub(crate) fn masked(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut word = String::new();
    for character in text.chars().chain(['\n']) {
        if character.is_ascii_alphanumeric() || matches!(character, '-' | ':' | '.') {
            word.push(character);
            continue;
        }
        masked.push_str(&masked_word(&word));
        masked.push(character);
        word.clear();
    }
    masked.pop();
    masked
}

fn masked_word(word: &str) -> String {
    let is_hex = |bytes: &[u8]| bytes.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    match word.as_bytes() {
        bytes if matches!(bytes.len(), 32 | 64) && is_hex(bytes) => "h".repeat(bytes.len()),
        bytes if bytes.len() == 36 && bytes[14] == b'8' && is_hex(bytes) => "e".repeat(36),
        bytes if bytes.len() == 24 && bytes[10] == b'T' && bytes[23] == b'Z' => "0000-00-00T00:00:00.000Z".to_owned(),
        _ => word.to_owned(),
    }
}
