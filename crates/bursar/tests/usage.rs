//! Help, wrong usage, exit codes, completions and the man page.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod common;

use common::{COMMANDS, code, command, run, stderr, stdout};
use std::io::Read;
use std::process::Stdio;

#[test]
fn every_command_has_help_with_its_usage() {
    let all = stdout(&run(&["--help"]));
    for name in COMMANDS {
        for arguments in [&[name, "--help"][..], &[name, "-h"], &["help", name]] {
            let output = run(arguments);
            assert_eq!(code(&output), 0, "{arguments:?}");
            let help = stdout(&output);
            assert!(help.contains(&format!("Usage: bursar {name}")), "{help}");
            assert!(output.stderr.is_empty());
        }
        assert!(all.contains(&format!("\n  {name} ")), "{name} is missing:\n{all}");
    }
}

#[test]
fn exit_codes_are_in_the_help() {
    let help = stdout(&run(&["--help"]));
    let table = help.split("Exit codes:").nth(1).expect("a table of exit codes");
    let codes: Vec<u8> = table.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 130]);
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(stdout(&run(&["--version"])), concat!("bursar ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_wrong() {
    let table: &[(&[&str], &str)] = &[
        (&[], "Usage:"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["no-such-command"], "no-such-command"),
        (&["explian"], "explain"),
        (&["info", "--output", "xml"], "xml"),
        (&["info", "--color", "sometimes"], "sometimes"),
        (&["ingest"], "<FILE>..."),
        (&["ingest", "-", "-"], "standard input can be read only once"),
        (&["init", "--locked", "sometimes"], "no_withdrawals"),
        (&["init", "--disputable", "all"], "deposits_and_withdrawals"),
        (&["init", "--currency", "EUR"], "its decimals are missing"),
        (&["init", "--currency", "EUR:2", "--currency", "eur:3"], "listed twice"),
        (&["account"], "<CLIENT>"),
        (&["account", "4x"], "an id is a whole number below 2^64, or a UUID"),
        (&["account", "18446744073709551616"], "must be below 2^64"),
        (&["account", "1", "--as-of", "soon"], "neither an event's number nor a time"),
        (&["accounts", "--as-of", "0"], "at least 1"),
        (&["chain", "1", "--from", "0"], "at least 1"),
        (&["chain", "1", "--limit", "many"], "no whole number"),
        (&["transaction", "00000000-0000-0000-0000-000000000001"], "reserved for numbers"),
        (&["verify", "1", "--file", "x"], "--file"),
        (&["export"], "--chain"),
        (&["generate", "--skew", "100.1"], "percentage"),
        (&["generate", "--rows", "many"], "no whole number"),
        (&["serve", "--listen", "7400"], "no address with a port"),
        (&["key"], "Usage: bursar key"),
        (&["key", "create", "--name", "shop"], "--role"),
        (&["key", "create", "--name", " ", "--role", "read"], "one line"),
        (&["key", "revoke", "bursar_x"], "not the key"),
        (&["completions", "tcl"], "tcl"),
        (&["explain", "no_such_code"], "no_such_code"),
    ];
    for (arguments, said) in table {
        let output = run(arguments);
        let text = stderr(&output);
        assert_eq!(code(&output), 2, "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?} wrote to standard output");
    }
    for name in COMMANDS {
        assert_eq!(code(&run(&[name, "--no-such-flag"])), 2, "{name}");
    }
}

#[test]
fn rejects_never_overwrite_what_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("payments.csv");
    std::fs::write(&file, "type,client,tx,amount\n").expect("written");
    let path = file.to_str().expect("a path in UTF-8");
    let output = run(&["ingest", path, "--rejects", path]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("would overwrite"), "{}", stderr(&output));
}

#[test]
fn colour_is_used_only_where_asked() {
    let colored = |arguments: &[&str]| run(arguments).stderr.contains(&0x1b);
    assert!(!colored(&["explain", "x"]));
    assert!(!colored(&["explain", "x", "--color", "never"]));
    assert!(colored(&["explain", "x", "--color", "always"]));
    assert!(colored(&["explain", "--no-such-flag", "--color=always"]));
    assert!(!colored(&["explain", "--no-such-flag"]));
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert_eq!(code(&output), 0);
        let script = stdout(&output);
        for name in COMMANDS {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

#[test]
fn there_is_a_man_page_for_every_command() {
    let page = stdout(&run(&["man"]));
    assert!(page.contains(".TH bursar 1"), "{page}");
    assert!(page.contains("Exit codes:"));
    let dir = tempfile::tempdir().expect("a directory");
    let pages = dir.path().join("share/man1");
    let output = run(&["man", "--to", pages.to_str().expect("a path in UTF-8")]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(pages.join("bursar.1").exists());
    for name in COMMANDS {
        let page = std::fs::read_to_string(pages.join(format!("bursar-{name}.1"))).expect(name);
        assert!(page.contains(name));
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    for arguments in [&["generate", "--rows", "10_000_000"][..], &["explain"], &["--help"], &["man"]] {
        let mut child =
            command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
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
fn output_that_cannot_be_written_ends_with_5() {
    let output = run(&["generate", "--rows", "1", "--to", "/dev/null/nothing"]);
    assert_eq!(code(&output), 5);
    assert!(stderr(&output).starts_with("error[cannot_write]: /dev/null/nothing cannot be written"));
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else { return };
    for arguments in [&["generate", "--rows", "10"][..], &["explain"], &["completions", "bash"], &["man"]] {
        let stream = full.try_clone().expect("a second handle");
        let output = command(arguments).stdout(stream).output().expect("the binary runs");
        assert_eq!(code(&output), 5, "{arguments:?}: {}", stderr(&output));
    }
}
