//! `bursar doctor`: each thing that can be made wrong from here, is.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

#[path = "../../server/tests/common/client.rs"]
mod client;
mod common;
#[path = "common/service.rs"]
mod service;

use common::{Sandbox, code, stderr, stdout};
use serde_json::Value;
use service::Service;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

/// The exit code, and each check with its verdict and what was found.
fn doctor(sandbox: &Sandbox) -> (i32, Vec<(String, String, String)>) {
    let output = sandbox.run(&["doctor", "--output", "json"]);
    let findings: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let findings = findings.as_array().unwrap().iter().map(|finding| {
        assert_eq!(finding["verdict"] == "ok", finding["do"].is_null(), "{finding}");
        (text(finding, "check"), text(finding, "verdict"), text(finding, "found"))
    });
    let findings: Vec<_> = findings.collect();
    let failed = findings.iter().any(|(_, verdict, _)| verdict == "failure");
    assert_eq!(failed, stderr(&output).contains("error[not_fit]"), "{}", stderr(&output));
    (code(&output), findings)
}

fn verdict(sandbox: &Sandbox, check: &str) -> (String, String) {
    let (_, findings) = doctor(sandbox);
    let found = findings.into_iter().find(|(name, ..)| name == check);
    let (_, verdict, found) = found.unwrap_or_else(|| panic!("{check} was not looked at"));
    (verdict, found)
}

#[test]
fn a_sound_directory_is_fit_and_stays_as_it_is() {
    let sandbox = Sandbox::with_example();
    std::fs::set_permissions(sandbox.path("bursar-data"), Permissions::from_mode(0o700)).unwrap();
    let before = sandbox.ledger_files();
    let (exit, findings) = doctor(&sandbox);
    assert_eq!(sandbox.ledger_files(), before);
    let checks: Vec<&str> = findings.iter().map(|(check, ..)| check.as_str()).collect();
    let expected = [
        "ledger",
        "owner",
        "permissions",
        "lock",
        "keys",
        "leftovers",
        "clock",
        "file_system",
        "free_space",
        "sync",
        "open_files",
        "memory",
    ];
    assert_eq!(checks, expected);
    // What the machine is like is not this test's business.
    for (check, verdict, found) in &findings[..7] {
        assert_eq!(verdict, "ok", "{check}: {found}");
    }
    assert!(exit == 0 || findings[7..].iter().any(|(_, verdict, _)| verdict == "failure"), "{findings:?}");
}

#[test]
fn what_is_wrong_is_named() {
    let sandbox = Sandbox::with_example();
    let data = sandbox.path("bursar-data");
    let chmod = |path: &str, mode| std::fs::set_permissions(sandbox.path(path), Permissions::from_mode(mode)).unwrap();
    chmod("bursar-data", 0o777);
    assert_eq!(verdict(&sandbox, "permissions").0, "failure");
    chmod("bursar-data", 0o755);
    assert_eq!(verdict(&sandbox, "permissions").0, "warning");

    sandbox.done(&["key", "create", "--name", "shop", "--role", "read", "--quiet"]);
    assert!(verdict(&sandbox, "keys").1.starts_with("1 API keys"));
    chmod("bursar-data/keys.json", 0o644);
    assert_eq!(verdict(&sandbox, "keys").0, "failure");
    chmod("bursar-data/keys.json", 0o600);
    sandbox.write("bursar-data/keys.json", "[");
    assert_eq!(verdict(&sandbox, "keys").0, "failure");

    sandbox.write("bursar-data/index-x.tmp", "");
    assert_eq!(verdict(&sandbox, "leftovers"), ("warning".to_owned(), "index-x.tmp".to_owned()));
    sandbox.write("bursar.toml", "[rails");
    assert_eq!(verdict(&sandbox, "config").0, "failure");

    let ledger = data.join("ledger.bursar");
    let mut bytes = std::fs::read(&ledger).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&ledger, bytes).unwrap();
    assert_eq!(verdict(&sandbox, "ledger").0, "failure");
    std::fs::remove_file(&ledger).unwrap();
    let (exit, _) = doctor(&sandbox);
    assert_eq!((exit, verdict(&sandbox, "ledger").1), (3, "there is none".to_owned()));
    std::fs::remove_dir_all(&data).unwrap();
    assert_eq!((doctor(&sandbox).0, verdict(&sandbox, "directory").0), (3, "failure".to_owned()));
}

#[test]
fn who_has_the_ledger_is_named_and_not_disturbed() {
    let sandbox = Sandbox::with_example();
    let service = Service::start(&sandbox, &["--quiet"]);
    let (_, held) = verdict(&sandbox, "lock");
    assert_eq!(held, format!("process {} (bursar) has the ledger", service.child.id()));
    assert_eq!(service.client().get("/readyz").status, 200);
    service.stop();
    assert_eq!(verdict(&sandbox, "lock").1, "nobody has the ledger");
}
