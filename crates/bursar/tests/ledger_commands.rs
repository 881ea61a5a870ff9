//! The commands on a ledger, each in each format: golden files in `tests/golden`.
//!
//! To look at changes and take them over: `cargo insta review`, or run with `INSTA_UPDATE=always`.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod common;

use common::{Sandbox, code, masked, stderr, stdout};

const FORMATS: [&str; 3] = ["table", "csv", "json"];

/// Compares what a command prints in each format with its golden file.
fn check(sandbox: &Sandbox, name: &str, arguments: &[&str]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut all = String::new();
    for format in FORMATS {
        let printed = sandbox.done(&[arguments, &["--output", format]].concat());
        if format == "json" {
            serde_json::from_str::<serde_json::Value>(&printed).expect("JSON");
        }
        all.extend([&arguments.join(" "), " --output ", format, "\n\n", &masked(&printed), "\n"]);
    }
    settings.bind(|| insta::assert_snapshot!(name, all));
}

const SEVERAL: &str = "\
type,client,tx,amount,currency
deposit,1,1,10.5,EUR
deposit,1,2,1000,JPY
deposit,2,3,0.000000001,GOLD
withdrawal,1,4,0.25,eur
dispute,1,2,,
withdrawal,1,5,1,JPY
deposit,3,6,7,EUR
dispute,3,6,,
chargeback,3,6,,
";

fn with_several_currencies() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("several.csv", SEVERAL);
    let currencies = ["--currency", "EUR:2", "--currency", "JPY:0", "--currency", "GOLD:9"];
    sandbox.done(&[&["init"], &currencies[..], &["--disputable", "deposits_and_withdrawals"]].concat());
    sandbox.done(&["ingest", "several.csv", "--quiet", "--no-report"]);
    sandbox
}

#[test]
fn accounts() {
    check(&Sandbox::with_example(), "accounts", &["accounts"]);
}

#[test]
fn account() {
    check(&Sandbox::with_example(), "account", &["account", "3"]);
}

#[test]
fn chain() {
    check(&Sandbox::with_example(), "chain", &["chain", "3"]);
}

#[test]
fn a_part_of_a_chain_newest_event_first() {
    check(
        &Sandbox::with_example(),
        "chain_newest_first",
        &["chain", "7", "--newest-first", "--from", "4", "--limit", "3"],
    );
}

#[test]
fn transaction() {
    check(&Sandbox::with_example(), "transaction", &["transaction", "3"]);
}

#[test]
fn accounts_in_several_currencies() {
    check(&with_several_currencies(), "accounts_currencies", &["accounts"]);
}

#[test]
fn an_account_in_several_currencies() {
    check(&with_several_currencies(), "account_currencies", &["account", "1"]);
}

#[test]
fn a_chain_in_several_currencies() {
    check(&with_several_currencies(), "chain_currencies", &["chain", "1"]);
}

#[test]
fn a_transaction_in_one_of_several_currencies() {
    check(&with_several_currencies(), "transaction_currencies", &["transaction", "2"]);
}

#[test]
fn a_ledger_without_anything() {
    let sandbox = Sandbox::new();
    sandbox.done(&["init", "--locked", "frozen"]);
    check(&sandbox, "accounts_empty", &["accounts"]);
    let info = sandbox.done(&["info", "--output", "csv"]);
    assert!(info.contains("\npolicy.locked,frozen\n") && info.contains("\nevents,0\n"), "{info}");
    assert!(!info.contains("bytes_per_event"), "{info}");
    assert!(sandbox.fails(1, &["account", "1"]).starts_with("error[unknown_customer]: customer 1 has no chain"));
    assert!(sandbox.fails(1, &["chain", "1"]).starts_with("error[unknown_customer]"));
    assert!(sandbox.fails(1, &["transaction", "1"]).starts_with("error[unknown_transaction]"));
    assert!(sandbox.fails(1, &["unlock", "1"]).starts_with("error[unknown_customer]"));
}

#[test]
fn info_has_everything() {
    for (sandbox, name) in [(Sandbox::with_example(), "info"), (with_several_currencies(), "info_currencies")] {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("golden");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        // How many bytes frames and index files take is not for this test.
        let json: serde_json::Value = serde_json::from_str(&sandbox.done(&["info", "--output", "json"])).expect("JSON");
        let sizes = [&json["journal"]["bytes"], &json["disk"]["bytes"], &json["disk"]["bytes_per_event"]];
        let sizes = sizes.map(|size| size.to_string().trim_matches('"').to_owned());
        let without_sizes = |text: &str| {
            let is_number = |character: char| character.is_ascii_digit() || character == '.';
            text.split_inclusive(|character| !is_number(character))
                .map(|word| {
                    let number = word.trim_end_matches(|character| !is_number(character));
                    if sizes.iter().any(|size| size == number) { word.replace(number, "#") } else { word.to_owned() }
                })
                .collect::<String>()
        };
        for format in FORMATS {
            let printed = sandbox.done(&["info", "--output", format]);
            settings.bind(|| insta::assert_snapshot!(format!("{name}_{format}"), without_sizes(&masked(&printed))));
        }
    }
}

#[test]
fn info_measures_the_whole_directory() {
    let sandbox = Sandbox::new();
    sandbox.done(&["generate", "--rows", "20_000", "--to", "rows.csv", "--quiet"]);
    sandbox.done(&["ingest", "rows.csv", "--no-report", "--quiet"]);
    let info = sandbox.done(&["info", "--output", "json"]);
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    let bytes: usize = sandbox.ledger_files().values().map(Vec::len).sum();
    assert_eq!(info["disk"]["bytes"].as_u64(), Some(bytes as u64));
    let per_event = info["disk"]["bytes_per_event"].as_str().expect("text");
    let whole: u64 = per_event.split('.').next().expect("a number").parse().expect("a number");
    assert!(whole < 128, "{per_event} bytes per event");
}

#[test]
fn unlock_is_an_event_with_a_receipt() {
    let sandbox = Sandbox::with_example();
    let receipt: serde_json::Value =
        serde_json::from_str(&sandbox.done(&["unlock", "3", "--output", "json"])).expect("JSON");
    assert_eq!(receipt[0]["client"], "3");
    assert_eq!(receipt[0]["locked"], false);
    let chain: serde_json::Value =
        serde_json::from_str(&sandbox.done(&["chain", "3", "--newest-first", "--limit", "1", "--output", "json"]))
            .expect("JSON");
    for key in ["seq", "id", "hash", "time"] {
        assert_eq!(chain[0][key], receipt[0][key]);
    }
    assert_eq!(chain[0]["kind"], "unlock");
    let told = sandbox.fails(1, &["unlock", "3"]);
    assert_eq!(told, "error[not_locked]: the customer is not locked\n  hint: There is nothing to do.\n");
}

#[test]
fn balances_as_they_were() {
    let sandbox = Sandbox::new();
    sandbox.write("monday.csv", "type,client,tx,amount\ndeposit,1,1,10\ndeposit,1,2,5\n");
    sandbox.write("tuesday.csv", "type,client,tx,amount\nwithdrawal,1,3,12\ndeposit,2,4,1\n");
    sandbox.done(&["ingest", "monday.csv", "--quiet"]);
    std::thread::sleep(std::time::Duration::from_millis(20));
    sandbox.done(&["ingest", "tuesday.csv", "--quiet"]);
    let chain: serde_json::Value =
        serde_json::from_str(&sandbox.done(&["chain", "1", "--output", "json"])).expect("JSON");
    let monday = chain[1]["time"].as_str().expect("a time");
    let tuesday = chain[2]["time"].as_str().expect("a time");
    let header = "client,available,held,total,locked\n";
    let (after_monday, after_tuesday) = ("1,15.0000,0.0000,15.0000,false\n", "1,3.0000,0.0000,3.0000,false\n");
    let table: &[(&[&str], &[&str])] = &[
        (&["account", "1", "--as-of", "1"], &["1,10.0000,0.0000,10.0000,false\n"]),
        (&["account", "1", "--as-of", "2"], &[after_monday]),
        (&["account", "1", "--as-of", "99"], &[after_tuesday]),
        (&["account", "1", "--as-of", monday], &[after_monday]),
        (&["account", "1", "--as-of", tuesday], &[after_tuesday]),
        (&["accounts", "--as-of", "1"], &["1,10.0000,0.0000,10.0000,false\n", "2,1.0000,0.0000,1.0000,false\n"]),
        (&["accounts", "--as-of", monday], &[after_monday]),
        (&["accounts", "--as-of", tuesday], &[after_tuesday, "2,1.0000,0.0000,1.0000,false\n"]),
        (&["accounts", "--as-of", "1970-01-02"], &[]),
        (&["accounts", "--as-of", "1950-01-02"], &[]),
    ];
    for (arguments, expected) in table {
        assert_eq!(sandbox.done(arguments), format!("{header}{}", expected.concat()), "{arguments:?}");
    }
    let told = sandbox.fails(1, &["account", "2", "--as-of", monday]);
    assert!(told.starts_with("error[no_account_then]: customer 2 had no account then\n"), "{told}");
}

#[test]
fn the_whole_chain_is_the_same_in_both_directions_and_in_parts() {
    let sandbox = Sandbox::with_example();
    let lines =
        |arguments: &[&str]| -> Vec<String> { sandbox.done(arguments).lines().skip(1).map(str::to_owned).collect() };
    let whole = lines(&["chain", "3"]);
    let mut reversed = lines(&["chain", "3", "--newest-first"]);
    reversed.reverse();
    assert_eq!(whole, reversed);
    for (index, line) in whole.iter().enumerate() {
        let seq = (index + 1).to_string();
        assert_eq!(lines(&["chain", "3", "--from", &seq, "--limit", "1"]), std::slice::from_ref(line));
        assert_eq!(
            lines(&["chain", "3", "--from", &seq, "--limit", "1", "--newest-first"]),
            std::slice::from_ref(line)
        );
        assert_eq!(lines(&["chain", "3", "--from", &seq]), whole[index..]);
    }
    assert!(lines(&["chain", "3", "--from", "100"]).is_empty());
    assert!(lines(&["chain", "3", "--limit", "0"]).is_empty());
}

#[test]
fn a_ledger_is_created_once_and_in_a_directory_of_its_own() {
    let sandbox = Sandbox::new();
    for arguments in [&["info"][..], &["accounts"], &["account", "1"], &["chain", "1"], &["transaction", "1"]] {
        let told = sandbox.fails(3, arguments);
        assert!(told.starts_with("error[no_ledger]: there is no ledger in bursar-data\n"), "{told}");
    }
    assert!(!sandbox.path("bursar-data").exists(), "a command that only reads makes no directory");
    let output = sandbox.run(&["init"]);
    assert_eq!((code(&output), stdout(&output)), (0, String::new()));
    assert_eq!(stderr(&output), "created a ledger in bursar-data\n");
    assert!(sandbox.fails(3, &["init"]).starts_with("error[ledger_exists]"));

    sandbox.write("draft.tmp", "mine");
    for arguments in [&["--data", ".", "init"][..], &["--data", ".", "ingest", "draft.tmp"]] {
        let told = sandbox.fails(3, arguments);
        assert!(told.starts_with("error[directory_not_empty]: . holds "), "{told}");
    }
    assert!(sandbox.fails(3, &["--data", ".", "info"]).starts_with("error[no_ledger]"));
    assert_eq!(sandbox.read("draft.tmp"), "mine");
    assert!(!sandbox.path("lock").exists());
}

#[test]
fn damage_is_named_and_nothing_is_guessed() {
    let sandbox = Sandbox::with_example();
    let journal = "bursar-data/journal-00000000000000000000.bursar";
    let mut bytes = std::fs::read(sandbox.path(journal)).expect("a journal");
    bytes.truncate(bytes.len() / 2);
    sandbox.write(journal, &bytes);
    let told = sandbox.fails(3, &["accounts"]);
    assert!(told.starts_with("error[damaged]: ") && told.contains("`bursar verify`"), "{told}");

    let sandbox = Sandbox::with_example();
    std::fs::remove_file(sandbox.path("bursar-data/checkpoint.bursar")).expect("removed");
    let before = sandbox.done(&["accounts", "--quiet"]);
    assert_eq!(before, common::EXAMPLE_ACCOUNTS);
    let ledger = "bursar-data/ledger.bursar";
    let mut bytes = std::fs::read(sandbox.path(ledger)).expect("a ledger file");
    bytes[20] ^= 1;
    sandbox.write(ledger, &bytes);
    assert!(sandbox.fails(3, &["info"]).starts_with("error[damaged]: bursar-data/ledger.bursar is damaged at byte 0"));
}
