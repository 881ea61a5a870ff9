//! `bursar ingest`: what it applies, what it says, and that every row takes effect exactly once.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod common;

use common::{EXAMPLE, EXAMPLE_ACCOUNTS, Sandbox, code, stderr, stdout};
use std::io::Write;

/// The summary without its speed.
fn summary(output: &std::process::Output) -> String {
    let text = stderr(output);
    let lines = text.lines().map(|line| line.split("; ").next().unwrap_or(line).to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_example_leads_to_its_accounts() {
    let sandbox = Sandbox::new();
    sandbox.write("payments.csv", EXAMPLE);
    let output = sandbox.run(&["ingest", "payments.csv"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output), EXAMPLE_ACCOUNTS);
    let told = summary(&output);
    assert!(told.starts_with("note: created a ledger in bursar-data\nerror[bad_amount]: "), "{told}");
    assert!(told.contains("--> payments.csv:29:21\n"), "{told}");
    let expected = "\
payments.csv: 47 rows: 22 applied, 1 already applied, 17 rejected, 7 unreadable
  rejected: 1 already_disputed, 1 amount_mismatch, 2 amount_not_positive, 1 balance_overflow, \
1 customer_locked, 3 insufficient_funds, 1 not_disputable, 2 not_disputed, 1 not_locked, 1 other_customer, \
2 transaction_id_taken, 1 unknown_transaction
  unreadable: 3 bad_amount, 1 bad_id, 1 missing_amount, 1 too_many_fields, 1 unknown_kind
  `--rejects FILE` writes those rows to a file";
    assert!(told.ends_with(expected), "{told}");
    assert_eq!(sandbox.done(&["accounts"]), EXAMPLE_ACCOUNTS);
}

#[test]
fn a_file_is_taken_in_once_whatever_its_name_and_packing() {
    let sandbox = Sandbox::with_example();
    let before = sandbox.ledger_files();
    sandbox.write("copy.csv", EXAMPLE);
    for name in ["payments.csv", "copy.csv"] {
        let output = sandbox.run(&["ingest", name]);
        assert_eq!((code(&output), stdout(&output)), (0, EXAMPLE_ACCOUNTS.to_owned()));
        let expected = format!("{name}: already in: its 47 rows were taken in before; nothing was done\n");
        assert_eq!(stderr(&output), expected);
    }
    let output = sandbox.run_with_input(&["ingest", "-"], EXAMPLE);
    assert_eq!((code(&output), stdout(&output)), (0, EXAMPLE_ACCOUNTS.to_owned()));
    assert!(stderr(&output).starts_with("standard input: already in: "), "{}", stderr(&output));
    assert_eq!(sandbox.ledger_files(), before);
}

#[test]
fn again_applies_a_file_once_more() {
    let sandbox = Sandbox::new();
    sandbox.write("a.csv", "type,client,tx,amount\ndeposit,1,1,5\ndispute,1,1\nresolve,1,1\n");
    sandbox.done(&["ingest", "a.csv", "--quiet"]);
    for events in [5, 7] {
        let output = sandbox.run(&["ingest", "a.csv", "--again", "--no-report"]);
        assert_eq!(code(&output), 0);
        // A dispute has no id of its own by which it could be known.
        assert!(stderr(&output).contains("a.csv: 3 rows: 2 applied, 1 already applied"), "{}", stderr(&output));
        assert!(sandbox.done(&["info"]).contains(&format!("\nevents,{events}\n")));
    }
    let info = sandbox.done(&["info"]);
    assert!(info.contains("source.3.state,finished") && !info.contains("source.4"), "{info}");
    assert!(stderr(&sandbox.run(&["ingest", "a.csv"])).contains("already in"));
}

#[test]
fn sources_are_plain_packed_and_streamed_in_order() {
    let sandbox = Sandbox::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"type,client,tx,amount\ndeposit,1,1,1\n").expect("written");
    sandbox.write("a", gzip.finish().expect("packed"));
    let zstd = zstd::encode_all(&b"Amount,TX,Client,Type,memo\n4,2,1,DEPOSIT,hello\n"[..], 0).expect("packed");
    sandbox.write("b", zstd);
    let input = "type,client,tx,amount\nwithdrawal,1,3,5\n";
    for arguments in [&["ingest", "a", "b", "-"][..], &["ingest", "a", "b", "-", "--in-memory"]] {
        let output = sandbox.run_with_input(arguments, input);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert_eq!(stdout(&output), "client,available,held,total,locked\n1,0.0000,0.0000,0.0000,false\n");
        let told = summary(&output);
        assert!(told.contains("note: b: ignored columns: memo\n"), "{told}");
        assert!(told.ends_with("all files: 3 rows: 3 applied, 0 already applied, 0 rejected, 0 unreadable"), "{told}");
        std::fs::remove_dir_all(sandbox.path("bursar-data")).expect("a ledger, also before the one in memory");
        sandbox.done(&["init"]);
    }
    assert!(sandbox.done(&["info"]).contains("\nevents,0\n"), "a ledger in memory touches no other");
}

#[test]
fn the_report_follows_the_format_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.write("payments.csv", EXAMPLE);
    let ingest = |more: &[&str]| sandbox.run(&[&["ingest", "payments.csv", "--in-memory"], more].concat());
    let json: serde_json::Value = serde_json::from_str(&stdout(&ingest(&["--output", "json"]))).expect("JSON");
    assert_eq!(json[2]["available"], "-999.5000");
    assert_eq!(json[2]["locked"], true);
    assert!(stdout(&ingest(&["--output", "table"])).starts_with(" client "));
    assert_eq!(stdout(&ingest(&["--no-report"])), "");
    let quiet = ingest(&["--quiet"]);
    assert_eq!(stdout(&quiet), EXAMPLE_ACCOUNTS);
    assert!(!stderr(&quiet).contains("rows:"), "{}", stderr(&quiet));
    assert!(stderr(&quiet).starts_with("error[bad_amount]"), "errors are told still");
}

#[test]
fn rejects_can_be_corrected_and_ingested() {
    let sandbox = Sandbox::new();
    sandbox.write("payments.csv", EXAMPLE);
    sandbox.done(&["ingest", "payments.csv", "--rejects", "rejects.csv", "--no-report", "--quiet"]);
    let rejects = sandbox.read("rejects.csv");
    assert_eq!(rejects.lines().count(), 1 + 17 + 7, "{rejects}");
    assert!(rejects.starts_with("type,client,tx,amount,line,code,reason\n"), "{rejects}");
    let line = "withdrawal,2,6,60,7,insufficient_funds,\"asked for 60.0000, available are 50.5000\"\n";
    assert!(rejects.contains(line), "{rejects}");
    assert!(rejects.contains("deposit,5,13,1e3,31,bad_amount,"), "{rejects}");

    // The file is already in, and its rejects are told all the same.
    sandbox.done(&["ingest", "payments.csv", "--rejects", "told-again.csv", "--no-report", "--quiet"]);
    let cut = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.splitn(7, ',').take(6).collect::<Vec<_>>().join(",")).collect()
    };
    assert_eq!(cut(&sandbox.read("told-again.csv")), cut(&rejects));

    let corrected = rejects.replace("withdrawal,2,6,60,", "withdrawal,2,6,50,").replace(",1e3,", ",1000,");
    sandbox.write("rejects.csv", corrected);
    let accounts = sandbox.done(&["ingest", "rejects.csv", "--quiet"]);
    assert!(accounts.contains("\n2,0.5000,0.0000,0.5000,false\n"), "{accounts}");
    assert!(accounts.contains("\n5,1010.0000,0.0000,1010.0000,false\n"), "{accounts}");
}

#[test]
fn rejects_of_files_with_other_columns_go_to_a_file_of_their_own() {
    let sandbox = Sandbox::new();
    sandbox.write("a.csv", "type,client,tx,amount\nwithdrawal,1,1,1\n");
    sandbox.write("b.csv", "tx,type,client,amount\n2,withdrawal,1,1\n");
    sandbox.write("c.csv", "tx,type,client,amount\n3,withdrawal,1,1\n");
    let output = sandbox.run(&["ingest", "a.csv", "b.csv", "c.csv", "--rejects", "r.csv", "--no-report"]);
    assert!(stderr(&output).contains("note: rejects of files with other columns go to r-2.csv\n"));
    assert_eq!(sandbox.read("r.csv").lines().count(), 2);
    assert_eq!(sandbox.read("r-2.csv").lines().count(), 3);
    assert_eq!(sandbox.done(&["accounts"]), "client,available,held,total,locked\n", "no account was made");
}

#[test]
fn strict_stops_at_the_first_row_that_cannot_be_read() {
    let sandbox = Sandbox::new();
    sandbox
        .write("s.csv", "type,client,tx,amount\ndeposit,1,1,1\nwithdrawal,1,9,5\ndeposit,1,2,x\ndeposit,1,3,1\nbad\n");
    for _ in 0..2 {
        let output = sandbox.run(&["ingest", "s.csv", "--strict"]);
        assert_eq!(code(&output), 1);
        assert_eq!(stdout(&output), "");
        let told = stderr(&output);
        assert!(told.contains("error[unreadable_row]: s.csv: line 4 cannot be read"), "{told}");
        assert!(told.contains("--> s.csv:4:13\n") && !told.contains("s.csv:6"), "{told}");
        assert_eq!(sandbox.done(&["accounts"]).lines().last(), Some("1,1.0000,0.0000,1.0000,false"));
    }
    let output = sandbox.run(&["ingest", "s.csv"]);
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).contains("s.csv: resumed at line 4; "), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().last(), Some("1,2.0000,0.0000,2.0000,false"));
}

#[test]
fn a_dry_run_shows_what_would_change_and_changes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.write("payments.csv", EXAMPLE);
    let output = sandbox.run(&["ingest", "payments.csv", "--dry-run", "--no-report"]);
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).ends_with("nothing was changed: this was a dry run\n"));
    assert!(!sandbox.path("bursar-data").exists());

    let sandbox = Sandbox::with_example();
    let before = sandbox.ledger_files();
    let already = sandbox.run(&["ingest", "payments.csv", "--dry-run"]);
    assert!(stderr(&already).contains("already in"), "{}", stderr(&already));
    assert_eq!(stdout(&already).lines().count(), 1);
    let more = "type,client,tx,amount\ndeposit,1,100,1\ndeposit,2,101,2\nwithdrawal,2,102,2\nunlock,3\ndispute,5,12\n\
                deposit,9,103,3\ndeposit,3,104,1\n";
    sandbox.write("more.csv", more);
    let expected = "\
client,available,held,total,locked,available_change,held_change,was_locked
1,60.7500,0.0000,60.7500,false,1.0000,0.0000,false
3,-998.5000,0.0000,-998.5000,false,1.0000,0.0000,true
5,-2.3400,12.3400,10.0000,false,-12.3400,12.3400,false
9,3.0000,0.0000,3.0000,false,3.0000,0.0000,false
";
    for _ in 0..2 {
        assert_eq!(sandbox.done(&["ingest", "more.csv", "--dry-run"]), expected);
    }
    let piped = sandbox.run_with_input(&["ingest", "-", "--dry-run"], more);
    assert_eq!(stdout(&piped), expected);
    let known = sandbox.run_with_input(&["ingest", "-", "--dry-run"], EXAMPLE);
    assert!(stderr(&known).contains("standard input: already in"), "{}", stderr(&known));
    assert_eq!(sandbox.ledger_files(), before);
    assert_eq!(sandbox.done(&["accounts"]), EXAMPLE_ACCOUNTS);
}

#[test]
fn a_terminal_is_not_flooded() {
    let sandbox = Sandbox::new();
    let rows = "refund,1,1,1\n".repeat(120);
    sandbox.write("bad.csv", format!("type,client,tx,amount\n{rows}"));
    let shown = |more: &[&str]| {
        let told = stderr(&sandbox.run(&[&["ingest", "bad.csv", "--in-memory"], more].concat()));
        (told.matches("error[unknown_kind]").count(), told.contains("... and 70 more rows that cannot be read"))
    };
    assert_eq!(shown(&[]), (50, true));
    assert_eq!(shown(&["--quiet"]), (50, true));
    assert_eq!(shown(&["--all-errors"]), (120, false));
}

#[test]
fn sources_that_cannot_be_read_end_with_5() {
    let sandbox = Sandbox::new();
    sandbox.write("empty.csv", "");
    sandbox.write("header.csv", "type,client,tx\ndeposit,1,1\n");
    sandbox.write("quote.csv", "type,client,\"tx\"x,amount\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"type,client,tx,amount\ndeposit,1,1,1\n").expect("written");
    let mut packed = gzip.finish().expect("packed");
    packed.truncate(packed.len() - 9);
    sandbox.write("cut.csv.gz", packed);
    let table = [
        ("missing.csv", "error[cannot_read]: missing.csv: cannot be opened: "),
        ("empty.csv", "error[header_empty]: empty.csv: the file is empty"),
        ("header.csv", "error[header_column_missing]: header.csv: the header lacks the column amount"),
        ("quote.csv", "error[header_unreadable]: quote.csv: the header in line 1 cannot be read"),
        ("cut.csv.gz", "error[cannot_read]: "),
    ];
    for (name, expected) in table {
        let told = sandbox.fails(5, &["ingest", name]);
        assert!(told.contains(expected), "{name}: {told}");
    }
    let told = sandbox.fails(5, &["ingest", "header.csv", "--rejects", "/dev/null/nothing"]);
    assert!(told.contains("header_column_missing"), "{told}");
    sandbox.write("good.csv", "type,client,tx,amount\ndeposit,1,1,1\n");
    let told = sandbox.fails(5, &["ingest", "good.csv", "--rejects", "/dev/null/nothing"]);
    assert!(told.contains("error[cannot_write]: /dev/null/nothing cannot be written"), "{told}");
}

#[test]
fn several_currencies_are_read_and_reported() {
    let sandbox = Sandbox::new();
    sandbox.done(&["init", "--currency", "EUR:2", "--currency", "JPY:0"]);
    sandbox
        .write("c.csv", "type,client,tx,amount,currency\ndeposit,1,1,1.5,EUR\ndeposit,1,2,7,jpy\ndeposit,1,3,1,USD\n");
    let output = sandbox.run(&["ingest", "c.csv"]);
    let expected = "client,currency,available,held,total,locked\n1,EUR,1.50,0.00,1.50,false\n1,JPY,7,0,7,false\n";
    assert_eq!(stdout(&output), expected);
    assert!(stderr(&output).contains("error[unknown_currency]"), "{}", stderr(&output));
}
