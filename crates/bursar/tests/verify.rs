//! `bursar verify` on a ledger.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

mod common;

use common::{Sandbox, code, stderr, stdout};
use serde_json::Value;

const JOURNAL: &str = "bursar-data/journal-00000000000000000000.bursar";

fn verified(sandbox: &Sandbox, arguments: &[&str]) -> (i32, Value, String) {
    let output = sandbox.run(&[&["verify", "--output", "json"], arguments].concat());
    let report = serde_json::from_str(&stdout(&output)).unwrap_or(Value::Null);
    (code(&output), report, stderr(&output))
}

#[test]
fn a_sound_ledger_is_said_to_be_sound_and_not_changed() {
    let sandbox = Sandbox::with_example();
    let before = sandbox.ledger_files();
    let (exit, report, told) = verified(&sandbox, &[]);
    assert_eq!((exit, told.as_str()), (0, ""));
    assert_eq!(report["sound"], true);
    assert_eq!(report["events"], 22);
    assert_eq!(report["customers"], 8);
    let info: Value = serde_json::from_str(&sandbox.done(&["info", "--output", "json"])).expect("JSON");
    assert_eq!(report["journal"]["digest"], info["journal"]["digest"]);
    let (exit, report, _) = verified(&sandbox, &["3"]);
    assert_eq!((exit, &report["events"]), (0, &Value::from(6)));
    assert!(sandbox.done(&["verify", "--output", "table"]).contains(" sound "));
    assert!(sandbox.done(&["verify"]).starts_with("key,value\nsound,true\nfindings,0\n"));
    assert_eq!(sandbox.ledger_files(), before);
    assert!(sandbox.fails(1, &["verify", "99"]).starts_with("error[unknown_customer]"));
}

#[test]
fn an_edited_journal_is_found_with_its_place_and_its_customers() {
    let sandbox = Sandbox::with_example();
    let mut bytes = std::fs::read(sandbox.path(JOURNAL)).expect("a journal");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    sandbox.write(JOURNAL, bytes);
    let (exit, report, told) = verified(&sandbox, &[]);
    assert_eq!(exit, 4, "{told}");
    assert!(told.starts_with("error[damage_found]: "), "{told}");
    assert_eq!(report["sound"], false);
    let finding = &report["finding"][0];
    assert_eq!(finding["code"], "frame_unreadable");
    assert_eq!(finding["file"], JOURNAL);
    assert!(finding["offset"].as_u64().is_some_and(|offset| offset <= at as u64));
    assert_eq!(finding["lost_events"], 22);
    assert_eq!(finding["lost_customers"], 8);
    assert!(finding["lost"].as_str().is_some_and(|lost| lost.contains("3: 6 events from 1")), "{finding}");
    let explained = sandbox.done(&["explain", "frame_unreadable", "--output", "json"]);
    assert!(explained.contains("\"verify\""), "{explained}");
}

#[test]
fn a_wrong_index_concerns_no_account() {
    let sandbox = Sandbox::with_example();
    sandbox.write("bursar-data/checkpoint.bursar", "nothing");
    let (exit, report, told) = verified(&sandbox, &[]);
    assert_eq!((exit, &report["finding"][0]["code"]), (4, &Value::from("checkpoint")));
    assert!(told.contains("No event and no account is wrong."), "{told}");
    assert_eq!(sandbox.done(&["accounts", "--quiet"]), common::EXAMPLE_ACCOUNTS);
    assert_eq!(verified(&sandbox, &[]).0, 0, "opening made it anew");
}

#[test]
fn a_ledger_must_be_there_and_free() {
    let sandbox = Sandbox::new();
    assert!(sandbox.fails(3, &["verify"]).starts_with("error[no_ledger]"));
    assert!(!sandbox.path("bursar-data").exists());
}
