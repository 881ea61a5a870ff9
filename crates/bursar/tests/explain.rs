//! `bursar explain`, and with it the three formats of output.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod common;

use bursar_core::Rejection;
use common::{code, run, stderr, stdout};

#[test]
fn all_codes_are_listed_rejections_first_and_in_order_of_precedence() {
    let output = run(&["explain"]);
    assert_eq!(code(&output), 0);
    let csv = stdout(&output);
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("code,origin,meaning,hint"));
    for info in Rejection::ALL {
        let line = lines.next().expect("a line per rejection");
        assert!(line.starts_with(&format!("{},request,", info.code)), "{line}");
    }
    let mut origins: Vec<&str> = lines.filter_map(|line| line.split(',').nth(1)).collect();
    origins.dedup();
    assert_eq!(origins, ["row", "header", "store", "engine", "verify", "service", "command"]);
}

#[test]
fn a_table_shows_code_meaning_and_hint() {
    let table = stdout(&run(&["explain", "--output", "table"]));
    for info in Rejection::ALL {
        let line = table.lines().find(|line| line.trim_start().starts_with(&format!("{} ", info.code)));
        let line = line.unwrap_or_else(|| panic!("{} is missing:\n{table}", info.code));
        assert!(line.contains(info.meaning) && line.contains(info.hint), "{line}");
    }
}

#[test]
fn json_is_read_back_as_an_array_or_one_object() {
    let all: serde_json::Value = serde_json::from_str(&stdout(&run(&["explain", "--output", "json"]))).expect("JSON");
    let all = all.as_array().expect("an array");
    assert!(all.len() > Rejection::ALL.len());
    for (value, info) in all.iter().zip(&Rejection::ALL) {
        assert_eq!(value["code"], info.code);
        assert_eq!(value["meaning"], info.meaning);
        assert_eq!(value["hint"], info.hint);
    }
    let one = stdout(&run(&["explain", "Insufficient-Funds", "--output", "json"]));
    let one: serde_json::Value = serde_json::from_str(&one).expect("JSON");
    assert_eq!(one["code"], "insufficient_funds");
}

#[test]
fn each_code_explains_itself() {
    for line in stdout(&run(&["explain"])).lines().skip(1) {
        let name = line.split(',').next().expect("a code");
        let output = run(&["explain", name, "--output", "table"]);
        assert_eq!(code(&output), 0, "{name}");
        assert!(stdout(&output).contains(name));
    }
}

#[test]
fn a_code_that_is_not_there_gets_its_neighbours() {
    let output = run(&["explain", "insuficient_fund"]);
    assert_eq!(code(&output), 2);
    let expected = "error[unknown_code]: there is no code 'insuficient_fund'\n  \
                    hint: Was it insufficient_funds? `bursar explain` lists all codes.\n";
    assert_eq!(stderr(&output), expected);
    assert!(stderr(&run(&["explain", "zzzzzzzzzz"])).ends_with("hint: `bursar explain` lists all codes.\n"));
}
