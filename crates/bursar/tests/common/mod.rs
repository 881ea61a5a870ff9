//! Runs the real binary, away from the settings of whoever runs the tests.

#![allow(dead_code, reason = "each test file takes what it needs")]
#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod random;

#[allow(unused_imports, reason = "each test file takes what it needs")]
pub(crate) use random::Random;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Every command there is.
pub(crate) const COMMANDS: [&str; 26] = [
    "init",
    "ingest",
    "info",
    "accounts",
    "account",
    "chain",
    "transaction",
    "submit",
    "unlock",
    "pending",
    "settle",
    "verify",
    "export",
    "copy",
    "migrate",
    "doctor",
    "backup",
    "restore",
    "serve",
    "listen",
    "top",
    "key",
    "explain",
    "generate",
    "completions",
    "man",
];

/// The binary, with an empty standard input and nothing in the environment that changes its output.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("BURSAR_DATA")
        .env_remove("BURSAR_CONFIG")
        .env_remove("NO_COLOR");
    command
        .env_remove("BURSAR_SERVER")
        .env_remove("BURSAR_CA_FILE")
        .env_remove("BURSAR_KEY")
        .env_remove("BURSAR_WEBHOOK_SECRET");
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

/// Runs it to its end, which must be a good one; gives its standard output.
pub(crate) fn ok(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

/// All that a ledger says of itself, of these clients and of its rejects, and that must not depend on when its ingest
/// was interrupted. Times, and with them hashes, do.
pub(crate) fn told(data: &str, rejects: &Path, clients: &[&str]) -> Vec<String> {
    let mut told = vec![ok(&["accounts", "--output", "csv", "--data", data])];
    let info = ok(&["info", "--output", "csv", "--data", data]);
    let stays = |line: &&str| {
        ["customers", "transactions", "events", "source.", "currency."].iter().any(|key| line.starts_with(key))
    };
    told.extend(info.lines().filter(stays).map(str::to_owned));
    for client in clients {
        let chain = ok(&["chain", client, "--output", "csv", "--data", data]);
        let mut rows = chain.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let header = rows.next().expect("a header");
        let kept: Vec<usize> =
            (0..header.len()).filter(|&column| !["time", "id", "hash"].contains(&header[column])).collect();
        told.extend(rows.map(|row| kept.iter().map(|&column| row[column]).collect::<Vec<_>>().join(",")));
    }
    let rejects = std::fs::read(rejects).expect("rejects");
    told.extend(String::from_utf8_lossy(&rejects).lines().map(without_reason));
    told
}

/// A reject's row, line and code. What was refused before an interruption is told without the figures of that moment.
fn without_reason(row: &str) -> String {
    let fields: Vec<&str> = row.split(',').collect();
    let is_line = |field: &str| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
    let is_code =
        |field: &str| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let code = (4..fields.len()).find(|&index| is_line(fields[index - 1]) && is_code(fields[index]));
    code.map_or_else(|| row.to_owned(), |code| fields[..=code].join(","))
}

/// What is generated to be taken in by a process that is killed: rows of all sorts, many without an id of their own.
pub(crate) const TRYING_ROWS: [&str; 14] = [
    "--seed",
    "11",
    "--disputes",
    "12",
    "--resolves",
    "9",
    "--chargebacks",
    "0.02",
    "--bad",
    "1",
    "--repeats",
    "1",
    "--dispute-window",
    "64",
];

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
