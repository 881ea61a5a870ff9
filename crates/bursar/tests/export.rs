//! `bursar export` and `bursar verify --file`: one customer's chain, checked without the ledger.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod common;

use common::Sandbox;
use serde_json::Value;

#[test]
fn an_exported_chain_is_checked_without_the_ledger() {
    let sandbox = Sandbox::with_example();
    let text = sandbox.done(&["export", "--chain", "3"]);
    std::fs::write(sandbox.path("3.chain"), &text).expect("written");
    std::fs::rename(sandbox.path("bursar-data"), sandbox.path("elsewhere")).expect("moved");
    let report = |arguments: &[&str]| -> Value {
        let asked = [&["verify", "--output", "json", "--file", "3.chain"], arguments].concat();
        serde_json::from_str(&sandbox.done(&asked)).expect("JSON")
    };
    let found = report(&[]);
    assert_eq!((&found["sound"], &found["client"]), (&Value::from(true), &Value::from("3")));
    assert_eq!((&found["events"], &found["locked"]), (&Value::from(6), &Value::from(true)));
    assert_eq!(found["account"][0]["available"], "-999.5000");
    let head = found["head"].as_str().expect("a hash");
    assert_eq!(report(&["--receipt", head])["receipt_of_event"], 6);
    let other = "0".repeat(64);
    assert!(sandbox.fails(4, &["verify", "--file", "3.chain", "--receipt", &other]).contains("[other_receipt]"));
    assert!(sandbox.fails(2, &["verify", "--file", "3.chain", "--receipt", "12"]).contains("no receipt"));
}

#[test]
fn an_edited_chain_file_is_found_with_its_line_and_field() {
    let sandbox = Sandbox::with_example();
    sandbox.done(&["export", "--chain", "1", "--to", "1.chain"]);
    let text = std::fs::read_to_string(sandbox.path("1.chain")).expect("text");
    assert!(text.contains("40.25"), "{text}");
    std::fs::write(sandbox.path("1.chain"), text.replacen("40.25", "40.24", 1)).expect("written");
    let told = sandbox.fails(4, &["verify", "--file", "1.chain"]);
    assert!(told.starts_with("error[damage_found]: 1.chain, line 3, column "), "{told}");
    assert!(sandbox.fails(5, &["verify", "--file", "nothing"]).contains("cannot be read"));
    assert!(sandbox.fails(1, &["export", "--chain", "99", "--to", "99.chain"]).contains("[unknown_customer]"));
    assert!(!sandbox.path("99.chain").exists());
}
