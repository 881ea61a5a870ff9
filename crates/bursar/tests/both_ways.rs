//! `--server`: every command that reads or submits prints the same for a directory and for the same ledger behind a
//! server, and says clearly what went wrong in between.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
#[path = "../../client/tests/common/wire.rs"]
mod wire;

use common::{EXAMPLE, Sandbox, code, masked, stderr, stdout};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Output, Stdio};
use wire::Wire;

/// The service in a process of its own, on the ledger of a sandbox.
struct Service {
    child: Child,
    url: String,
}

impl Service {
    fn start(sandbox: &Sandbox) -> Self {
        let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0", "--quiet", "--log", "error"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://"), "{url}");
        Self { child, url: url.trim().to_owned() }
    }

    fn run(&self, sandbox: &Sandbox, arguments: &[&str]) -> Output {
        sandbox.run(&[arguments, &["--server", &self.url]].concat())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

const SEVERAL: &str = "\
type,client,tx,amount,currency
deposit,1,1,10.50,EUR
deposit,1,2,900,JPY
deposit,2,3,7.25,EUR
withdrawal,1,4,0.50,EUR
dispute,1,2,,
withdrawal,1,5,1000,EUR
resolve,1,2,,
deposit,1,6,1.00,EUR
dispute,2,3,,
chargeback,2,3,,
deposit,2,7,1,EUR
deposit,00000000-0000-4000-8000-000000000001,8,2,JPY
";

fn sandboxes() -> Vec<Sandbox> {
    let several = Sandbox::new();
    several.write("several.csv", SEVERAL);
    several.done(&["init", "--currency", "EUR:2", "--currency", "JPY:0", "--quiet"]);
    several.done(&["ingest", "several.csv", "--quiet", "--no-report"]);
    vec![Sandbox::with_example(), several]
}

/// Copies a sandbox with its ledger, which nobody has open.
fn copy(sandbox: &Sandbox) -> Sandbox {
    let copy = Sandbox::new();
    std::fs::create_dir(copy.path("bursar-data")).unwrap();
    for (name, content) in sandbox.ledger_files() {
        copy.write(&format!("bursar-data/{name}"), content);
    }
    copy
}

#[test]
fn what_is_read_is_the_same_byte_for_byte() {
    const READS: &[&[&str]] = &[
        &["accounts"],
        &["accounts", "--as-of", "2"],
        &["accounts", "--as-of", "2001-01-01"],
        &["accounts", "--as-of", "2999-01-01"],
        &["account", "1"],
        &["account", "2"],
        &["account", "1", "--as-of", "1"],
        &["account", "1", "--as-of", "3"],
        &["account", "1", "--as-of", "2001-01-01"],
        &["account", "1", "--as-of", "2999-01-01"],
        &["account", "987654321"],
        &["chain", "1"],
        &["chain", "1", "--newest-first"],
        &["chain", "1", "--from", "3"],
        &["chain", "1", "--from", "3", "--limit", "2"],
        &["chain", "1", "--from", "4", "--newest-first"],
        &["chain", "1", "--newest-first", "--limit", "1"],
        &["chain", "1", "--limit", "0"],
        &["chain", "2"],
        &["chain", "987654321"],
        &["transaction", "1"],
        &["transaction", "2"],
        &["transaction", "987654321"],
        &["account", "987654321", "--as-of", "1"],
        &["settle", "00000000-0000-8000-8000-000000000000", "--as", "done", "--reason", "x"],
        &["export", "--chain", "1"],
        &["export", "--chain", "987654321"],
        &["verify", "987654321"],
    ];
    for sandbox in sandboxes() {
        let all: Vec<Vec<&str>> = READS
            .iter()
            .flat_map(|read| ["table", "csv", "json"].map(|format| [read, &["--output", format][..]].concat()))
            .collect();
        let of_directory: Vec<Output> = all.iter().map(|arguments| sandbox.run(arguments)).collect();
        assert!(of_directory.iter().filter(|output| code(output) == 0).count() > all.len() / 2);
        let info = sandbox.done(&["info", "--output", "csv"]);
        let head = sandbox.done(&["chain", "1", "--output", "csv", "--newest-first", "--limit", "1"]);

        let service = Service::start(&sandbox);
        for (arguments, expected) in all.iter().zip(&of_directory) {
            let output = service.run(&sandbox, arguments);
            assert_eq!(stdout(&output), stdout(expected), "{arguments:?}: {}", stderr(&output));
            assert_eq!((code(&output), stderr(&output)), (code(expected), stderr(expected)), "{arguments:?}");
        }
        // Of the ledger as a whole, a server tells all but its files and its sources.
        let told = stdout(&service.run(&sandbox, &["info", "--output", "csv"]));
        let (server, rest): (Vec<&str>, Vec<&str>) = told.lines().partition(|line| line.starts_with("server,"));
        assert_eq!(server, [format!("server,{}", service.url)]);
        let is_own =
            |line: &&str| ["directory,", "source.", "journal.", "disk."].iter().any(|key| line.starts_with(key));
        assert!(rest.into_iter().eq(info.lines().filter(|line| !is_own(line))), "{told}\n{info}");

        // A chain is downloaded and checked here, up to a receipt.
        let hash = head.lines().nth(1).unwrap().split(',').find(|field| field.len() == 64).unwrap();
        let verified = service.run(&sandbox, &["verify", "1", "--receipt", hash, "--output", "csv"]);
        assert_eq!(code(&verified), 0, "{}", stderr(&verified));
        assert!(stdout(&verified).contains("sound,true\n") && stdout(&verified).contains(&format!("head,{hash}\n")));
        let wrong = service.run(&sandbox, &["verify", "1", "--receipt", &"0".repeat(64)]);
        assert_eq!(code(&wrong), 4, "{}", stderr(&wrong));
        let exported = service.run(&sandbox, &["export", "--chain", "1", "--to", "1.chain"]);
        assert!(code(&exported) == 0 && stderr(&exported).contains(hash), "{}", stderr(&exported));
        sandbox.done(&["verify", "--file", "1.chain", "--receipt", hash]);
    }
}

#[test]
fn what_is_submitted_is_the_same_but_for_its_time() {
    const SUBMITS: &[&[&str]] = &[
        &["submit", "deposit", "1", "1001", "12.5"],
        &["submit", "deposit", "1", "1001", "12.5"],
        &["submit", "deposit", "1", "1001", "13"],
        &["submit", "withdrawal", "1", "1002", "99999999"],
        &["submit", "withdrawal", "1", "1003", "2.5", "--output", "json"],
        &["submit", "dispute", "1", "1001"],
        &["submit", "dispute", "1", "1001"],
        &["submit", "resolve", "1", "1001", "12.5"],
        &["submit", "resolve", "1", "1001"],
        &["submit", "dispute", "1", "1001", "1"],
        &["submit", "dispute", "1", "1001", "--output", "table"],
        &["submit", "chargeback", "1", "1001"],
        &["submit", "deposit", "1", "1004", "1"],
        &["unlock", "1"],
        &["unlock", "1"],
        &["submit", "unlock", "1"],
        &["submit", "unlock", "987654321"],
        &["submit", "deposit", "1", "1005", "1.00000001"],
        &["submit", "deposit", "1", "1005", "1", "--currency", "XXX"],
        &["submit", "deposit", "1", "1005"],
        &["submit", "dispute", "1"],
        &["submit", "unlock", "1", "7"],
        &["chain", "1"],
        &["accounts"],
    ];
    for (sandbox, currency) in sandboxes().iter().zip([&[][..], &["--currency", "EUR"]]) {
        let other = copy(sandbox);
        let service = Service::start(&other);
        let mut applied = 0;
        for arguments in SUBMITS {
            let moves = matches!(
                arguments,
                ["submit", "deposit" | "withdrawal", ..] | [_, "resolve" | "dispute", _, _, "1" | "12.5"]
            );
            let named = moves && !arguments.contains(&"--currency");
            let arguments = [*arguments, if named { currency } else { &[] }].concat();
            let (directory, server) = (sandbox.run(&arguments), service.run(&other, &arguments));
            assert_eq!(masked(&stdout(&server)), masked(&stdout(&directory)), "{arguments:?}: {}", stderr(&server));
            assert_eq!((code(&server), stderr(&server)), (code(&directory), stderr(&directory)), "{arguments:?}");
            applied += usize::from(code(&server) == 0);
        }
        assert_eq!(applied, 10);
    }
}

#[test]
fn once_only_if_and_what_if_are_the_same() {
    const KEY: &str = "case \"17\" \\ a";
    const SUBMITS: &[(&[&str], i32, &str)] = &[
        (&["submit", "deposit", "50", "1001", "12.5", "--expected-seq", "0", "--dry-run"], 0, "would_apply"),
        (&["submit", "deposit", "50", "1001", "12.5", "--expected-seq", "0"], 0, "applied"),
        (&["submit", "deposit", "50", "1001", "12.5", "--expected-seq", "0"], 0, "already_applied"),
        (&["submit", "deposit", "50", "1001", "12.5", "--dry-run", "--output", "json"], 0, "already_applied"),
        (&["submit", "deposit", "50", "1002", "1", "--expected-seq", "0"], 1, "seq_mismatch"),
        (&["submit", "withdrawal", "50", "1003", "2.5", "--minimum-available", "10.01"], 1, "below_minimum"),
        (
            &["submit", "withdrawal", "50", "1003", "2.5", "--minimum-available", "10.01", "--dry-run"],
            1,
            "below_minimum",
        ),
        (&["submit", "withdrawal", "50", "1003", "99", "--dry-run"], 1, "insufficient_funds"),
        (
            &["submit", "withdrawal", "50", "1003", "2.5", "--minimum-available", "10", "--expected-seq", "1"],
            0,
            "applied",
        ),
        (&["submit", "dispute", "50", "1001", "--minimum-available", "-2.50", "--dry-run"], 0, "would_apply"),
        (&["submit", "dispute", "50", "1001", "--minimum-available", "-2.49"], 1, "below_minimum"),
        (&["submit", "dispute", "50", "1001", "--idempotency-key", KEY], 0, "applied"),
        (&["submit", "dispute", "50", "1001", "--idempotency-key", KEY], 0, "already_applied"),
        (&["submit", "dispute", "50", "1001", "--idempotency-key", KEY, "--dry-run"], 0, "already_applied"),
        (&["submit", "dispute", "50", "1001"], 1, "already_disputed"),
        (&["submit", "resolve", "50", "1001", "--idempotency-key", KEY], 1, "idempotency_key_reused"),
        (&["submit", "chargeback", "50", "1001", "--idempotency-key", "c"], 0, "applied"),
        (&["unlock", "50", "--idempotency-key", "u"], 0, ""),
        (&["unlock", "50", "--idempotency-key", "u"], 0, ""),
        (&["unlock", "50"], 1, "not_locked"),
        (&["submit", "unlock", "50", "--idempotency-key", "u", "--dry-run"], 0, "already_applied"),
        (&["submit", "unlock", "50", "--minimum-available", "1"], 2, "bad_argument"),
        (&["submit", "deposit", "50", "1004", "1", "--idempotency-key", "k"], 2, "bad_argument"),
        (&["submit", "dispute", "50", "1001", "--idempotency-key", ""], 2, "bad_argument"),
        (&["submit", "dispute", "50", "1001", "--idempotency-key", "\u{e9}"], 2, "bad_argument"),
        (&["submit", "dispute", "50", "1001", "--expected-seq", "-1"], 2, "bad_argument"),
        (&["submit", "dispute", "50", "1001", "--minimum-available", "x"], 2, "bad_argument"),
        (&["chain", "50"], 0, ""),
    ];
    for (sandbox, currency) in sandboxes().iter().zip([&[][..], &["--currency", "EUR"]]) {
        let other = copy(sandbox);
        let service = Service::start(&other);
        for (arguments, exit, expected) in SUBMITS {
            let is_named = arguments[0] == "submit" && arguments[1] != "unlock";
            let arguments = [*arguments, if is_named { currency } else { &[] }].concat();
            let (directory, server) = (sandbox.run(&arguments), service.run(&other, &arguments));
            assert_eq!(masked(&stdout(&server)), masked(&stdout(&directory)), "{arguments:?}: {}", stderr(&server));
            assert_eq!((code(&server), stderr(&server)), (code(&directory), stderr(&directory)), "{arguments:?}");
            let told = stdout(&server) + &stderr(&server);
            let word = if told.contains("error[") { format!("error[{expected}]") } else { (*expected).to_owned() };
            assert!(code(&server) == *exit && told.contains(&word), "{arguments:?}: {told}");
        }
        // An event that would be made has no hash yet.
        let arguments = [&["submit", "deposit", "50", "1009", "1", "--dry-run", "--output", "csv"], currency].concat();
        let told = sandbox.done(&arguments);
        assert!(told.lines().count() == 2 && told.ends_with(",false,,\n"), "{told}");
    }
}

/// The summary without what depends on how fast it went.
fn summary(text: &str) -> String {
    text.lines()
        .map(|line| line.split(" rows/s").next().unwrap().rsplit_once("; ").map_or(line, |(start, _)| start))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn files_are_taken_in_alike() {
    let bad = format!("{EXAMPLE}deposit,1,x,1\nrefund,1,2,3\n\"deposit\",77,770001,\"5\"\nwithdrawal,77,770002,6\n");
    for strict in [false, true] {
        let sandbox = Sandbox::new();
        sandbox.done(&["init", "--quiet"]);
        let other = copy(&sandbox);
        for sandbox in [&sandbox, &other] {
            sandbox.write("a.csv", &bad);
            sandbox.write("b.csv", "type,client,tx,amount\ndeposit,5,900001,1\ndeposit,5,900001,1\n");
        }
        let mut arguments = vec!["ingest", "a.csv", "b.csv", "--rejects", "rejects.csv"];
        arguments.extend(strict.then_some("--strict"));
        let directory = sandbox.run(&arguments);
        let service = Service::start(&other);
        let server = service.run(&other, &arguments);
        assert_eq!(stdout(&server), stdout(&directory));
        assert_eq!(summary(&stderr(&server)), summary(&stderr(&directory)));
        assert_eq!(code(&server), code(&directory));
        assert_eq!(code(&server), i32::from(strict));
        assert_eq!(other.read("rejects.csv"), sandbox.read("rejects.csv"));
        assert!(strict || other.read("rejects.csv").lines().count() > 4);
        if !strict {
            // Sent again: what has an id of its own is in already.
            let again = service.run(&other, &["ingest", "b.csv", "--no-report"]);
            assert!(stderr(&again).contains("2 rows: 0 applied, 2 already applied"), "{}", stderr(&again));
            let empty = service.run(&other, &["ingest", "-"]);
            assert_eq!(code(&empty), 5, "{}", stderr(&empty));
            assert!(stderr(&empty).contains("header_empty"), "{}", stderr(&empty));
        }
    }
}

#[test]
fn a_long_file_takes_effect_once_and_whole() {
    let sandbox = Sandbox::new();
    sandbox.done(&["init", "--quiet"]);
    let other = copy(&sandbox);
    let generate =
        ["generate", "--rows", "60000", "--clients", "300", "--repeats", "2", "--bad", "1", "--disputes", "3"];
    other.done(&[&generate[..], &["--to", "long.csv", "--quiet"]].concat());
    let file = other.path("long.csv");
    let file = file.to_str().unwrap();
    let expected = sandbox.done(&["ingest", file, "--quiet"]);
    let service = Service::start(&other);
    let output = service.run(&other, &["ingest", file]);
    assert_eq!((code(&output), stdout(&output)), (0, expected), "{}", stderr(&output));
    assert!(stderr(&output).contains("60_000 rows"), "{}", stderr(&output));
    drop(service);
    other.done(&["verify"]);
}

#[test]
fn a_server_that_goes_away_in_the_middle_is_told_with_what_is_known() {
    let sandbox = Sandbox::new();
    sandbox.done(&["init", "--quiet"]);
    let service = Service::start(&sandbox);
    let arguments = ["ingest", "-", "--no-report", "--server", &service.url];
    let mut command = sandbox.command(&arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || {
        let mut row = 0_u64;
        let mut text = String::from("type,client,tx,amount\n");
        while stdin.write_all(text.as_bytes()).is_ok() {
            text.clear();
            for _ in 0..1_000 {
                row += 1;
                writeln!(text, "deposit,1,{row},1").unwrap();
            }
        }
    });
    // It is killed once it has taken in more than the buffers between the two can hold outcomes of: some were heard.
    let event_count = || -> u64 {
        let info = stdout(&service.run(&sandbox, &["info", "--output", "csv"]));
        info.lines().find_map(|line| line.strip_prefix("events,")?.parse().ok()).unwrap()
    };
    while event_count() < 40_000 {}
    drop(service);
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    let said = stderr(&output);
    assert_eq!(code(&output), 6, "{said}");
    assert!(said.contains("error[rows_undecided]") && said.contains("have their outcome"), "{said}");
    assert!(said.contains("Send the same file again"), "{said}");
    // What was told is kept: every line up to the one that is named.
    let line = said.split("up to line ").nth(1).unwrap().split(' ').next().unwrap().parse::<u64>().unwrap();
    let info = sandbox.done(&["info", "--output", "csv"]);
    let events = info.lines().find_map(|line| line.strip_prefix("events,")).unwrap().parse::<u64>().unwrap();
    assert!(events >= line - 1, "{events} {line}");
}

#[test]
fn each_failure_has_its_code_and_its_exit() {
    let sandbox = Sandbox::with_example();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["accounts", "--server", &nobody], 6, "cannot_reach"),
        (&["submit", "deposit", "1", "5000", "1", "--server", &nobody], 6, "cannot_reach"),
        (&["ingest", "payments.csv", "--server", &nobody], 6, "cannot_reach"),
        (&["listen", "--server", &nobody], 6, "cannot_reach"),
        (&["top", "--server", &nobody], 6, "cannot_reach"),
        (&["listen"], 2, "needs_server"),
        (&["top"], 2, "needs_server"),
        (&["accounts", "--server", "localhost"], 2, "bad_argument"),
        (&["accounts", "--server", "http://me:pw@localhost"], 2, "bad_argument"),
        (&["accounts", "--server", &nobody, "--data", "bursar-data"], 2, "bad_argument"),
        (&["accounts", "--server", &nobody, "--key-file", "none"], 2, "bad_key"),
        (&["verify", "1", "--receipt", &"0".repeat(64)], 2, "bad_argument"),
        (&["verify", "--receipt", &"0".repeat(64)], 2, "bad_argument"),
        (&["init", "--server", &nobody], 2, "needs_directory"),
        (&["verify", "--server", &nobody], 2, "needs_directory"),
        (&["serve", "--server", &nobody], 2, "needs_directory"),
        (&["pending", "--server", &nobody], 6, "cannot_reach"),
        (&["submit", "deposit", "1", "5000", "1", "--dry-run", "--server", &nobody], 6, "cannot_reach"),
        (&["key", "list", "--server", &nobody], 2, "needs_directory"),
        (&["ingest", "payments.csv", "--dry-run", "--server", &nobody], 2, "needs_directory"),
        (&["ingest", "payments.csv", "--in-memory", "--server", &nobody], 2, "needs_directory"),
        (&["ingest", "payments.csv", "--again", "--server", &nobody], 2, "needs_directory"),
    ];
    for (arguments, exit, expected) in cases {
        let said = sandbox.fails(*exit, arguments);
        assert!(said.contains(&format!("error[{expected}]")), "{arguments:?}: {said}");
    }
    // What needs neither is not disturbed, and a directory that is named counts more than the environment.
    for arguments in [&["explain", "busy"][..], &["accounts", "--data", "bursar-data"]] {
        let output = sandbox.command(arguments).env("BURSAR_SERVER", &nobody).output().unwrap();
        assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
    }
    let output = sandbox.command(&["accounts"]).env("BURSAR_SERVER", &nobody).output().unwrap();
    assert_eq!(code(&output), 6);

    // Keys.
    let key = sandbox.done(&["key", "create", "--name", "x", "--role", "submit", "--quiet"]);
    let service = Service::start(&sandbox);
    let said = stderr(&service.run(&sandbox, &["accounts"]));
    assert!(said.contains("error[key_needed]") && said.contains("into `BURSAR_KEY`"), "{said}");
    sandbox.write("key", &key);
    let accounts = service.run(&sandbox, &["accounts", "--key-file", "key"]);
    assert_eq!(code(&accounts), 0, "{}", stderr(&accounts));
    let with_key = |key: &str, arguments: &[&str]| {
        sandbox.command(&[arguments, &["--server", &service.url]].concat()).env("BURSAR_KEY", key).output().unwrap()
    };
    assert_eq!(code(&with_key(&key, &["accounts"])), 0);
    for (output, expected) in [
        (with_key("bursar_1_secret", &["accounts"]), "key_unknown"),
        (with_key("two words", &["accounts"]), "bad_key"),
        (with_key(&key, &["unlock", "1"]), "role_too_low"),
    ] {
        let said = stderr(&output);
        assert_eq!(code(&output), 2, "{said}");
        assert!(said.contains(&format!("error[{expected}]")), "{said}");
        assert!(!said.contains("secret") && !said.contains("two words") && !said.contains(key.trim()), "{said}");
    }
}

#[test]
fn an_answer_that_is_cut_off_is_no_result() {
    let sandbox = Sandbox::with_example();
    let service = Service::start(&sandbox);
    let expected = stdout(&service.run(&sandbox, &["export", "--chain", "1"]));
    // Every connection is cut in its second answer: the first says which ledger it is.
    let wire = Wire::to(service.url.strip_prefix("http://").unwrap().parse().unwrap(), &[1_400; 64]);
    let url = format!("http://{}", wire.address);
    let output = sandbox.run(&["export", "--chain", "1", "--server", &url]);
    assert_eq!(code(&output), 6, "{}", stderr(&output));
    assert!(stderr(&output).contains("error[no_answer]"), "{}", stderr(&output));
    assert!(expected.starts_with(&stdout(&output)) && stdout(&output).len() < expected.len());
    let output = sandbox.run(&["verify", "1", "--server", &url]);
    assert_eq!((code(&output), stdout(&output).as_str()), (6, ""), "{}", stderr(&output));
    assert!((2..=64).contains(&wire.connections()), "{}", wire.connections());
}

#[test]
fn a_snapshot_has_what_the_server_counts() {
    let sandbox = Sandbox::with_example();
    let service = Service::start(&sandbox);
    let output = service.run(&sandbox, &["top", "--output", "csv"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let told = stdout(&output);
    let info = stdout(&service.run(&sandbox, &["info", "--output", "csv"]));
    for (key, of_info) in [("ledger.events", "events"), ("ledger.customers", "customers")] {
        let count = info.lines().find_map(|line| line.strip_prefix(&format!("{of_info},"))).unwrap();
        assert!(told.lines().any(|line| line == format!("{key},{count}")), "{told}");
    }
    // Asking for them is a connection, and an answer a second.
    let connections = told.lines().find_map(|line| line.strip_prefix("now.connections,")).unwrap();
    // Those of the commands before may not be gone yet.
    assert!(connections.parse::<u32>().unwrap() >= 1, "{told}");
    assert!(told.lines().any(|line| line.starts_with("http.per_second.2xx,")), "{told}");
    assert!(!told.contains("requests.per_second"), "nothing was submitted: {told}");
    service.run(&sandbox, &["submit", "deposit", "1", "5000", "1"]);
    let told = stdout(&service.run(&sandbox, &["top", "--once"]));
    assert!(told.contains("requests.per_second.applied,") && told.contains("latency.requests.p99,"), "{told}");
}
