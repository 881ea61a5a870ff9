//! `bursar backup` and `bursar restore`: the real binary, on a ledger that is served and written to, killed at random.
//!
//! `BURSAR_BACKUP_KILLS=200 cargo test --release -p bursar --test backup` kills more often than the default.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

#[path = "../../server/tests/common/client.rs"]
mod client;
mod common;
#[path = "common/service.rs"]
mod service;

use client::Client;
use common::{Random, Sandbox, code, stderr};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use service::Service;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const KILLS: usize = 16;
const WRITERS: usize = 3;

/// How many deposits each customer was told of. Each has one writer, so that these are its chain's first ones.
type Acknowledged = [AtomicU64; WRITERS];

fn counts(acknowledged: &Acknowledged) -> [u64; WRITERS] {
    std::array::from_fn(|writer| acknowledged[writer].load(Ordering::SeqCst))
}

/// Deposits one after the other, until the service is gone or the test is over.
fn deposit_until_gone(address: SocketAddr, writer: usize, acknowledged: &AtomicU64, is_over: &AtomicBool) {
    let mut client = Client::connect(address);
    while !is_over.load(Ordering::Relaxed) {
        // What was not answered in the round before is asked again under its id, and takes effect once.
        let id = acknowledged.load(Ordering::SeqCst) * WRITERS as u64 + writer as u64;
        let body = format!(r#"{{"kind":"deposit","customer":"{writer}","transaction":"{id}","amount":"1"}}"#);
        match client.try_call("POST", "/v1/requests", "application/json", body.as_bytes()) {
            Ok(response) if response.status == 200 => acknowledged.fetch_add(1, Ordering::SeqCst),
            Ok(response) if response.status == 503 => return,
            Ok(response) => panic!("{}", response.text()),
            Err(_) => return,
        };
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Restores a copy and holds it against what was acknowledged before that copy was begun.
fn check_copy(sandbox: &Sandbox, copy: &str, name: &str, before: [u64; WRITERS]) {
    let restored = json(&sandbox.done(&["restore", "--from", copy, "--data", name, "--quiet", "--output", "json"]));
    assert_eq!(restored["verified"], true, "{restored}");
    for (writer, count) in before.iter().enumerate().filter(|(_, count)| **count > 0) {
        let account = sandbox.done(&["account", &writer.to_string(), "--data", name, "--output", "json"]);
        let account: Value = json(&account);
        let account = account.get(0).unwrap_or(&account);
        let total: u64 = account["total"].as_str().unwrap().strip_suffix(".0000").unwrap().parse().unwrap();
        assert!(total >= *count, "customer {writer}: {account}, {count} were acknowledged");
    }
    std::fs::remove_dir_all(sandbox.path(name)).unwrap();
}

#[test]
fn what_was_acknowledged_before_a_copy_is_in_it_whatever_is_killed() {
    let kills = std::env::var("BURSAR_BACKUP_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(KILLS);
    let sandbox = Sandbox::new();
    sandbox.done(&["init", "--quiet"]);
    let acknowledged: Acknowledged = Default::default();
    let mut random = Random(7);
    let (mut whole, mut interrupted) = (None, 0);
    for round in 0..kills {
        let mut service = Service::start(&sandbox, &["--quiet"]);
        let pid = Pid::from_child(&service.child);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (writer, count) in acknowledged.iter().enumerate() {
                let (address, is_over) = (service.address, &is_over);
                scope.spawn(move || deposit_until_gone(address, writer, count, is_over));
            }
            let pause = |random: &mut Random, end| std::thread::sleep(Duration::from_micros(random.below(end) as u64));
            pause(&mut random, 60_000);
            let before = counts(&acknowledged);
            let arguments = ["backup", "--to", "copy", "--quiet", "--output", "json"];
            let mut copying =
                sandbox.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            pause(&mut random, 14_000);
            match round % 4 {
                // Both go on to their end; the copy alone is killed; the service alone; both.
                0 => {}
                1 => copying.kill().unwrap(),
                2 => kill_process(pid, Signal::KILL).unwrap(),
                _ => {
                    kill_process(pid, Signal::KILL).unwrap();
                    copying.kill().unwrap();
                }
            }
            let output = copying.wait_with_output().unwrap();
            match output.status.code() {
                Some(0) => {
                    let told = json(std::str::from_utf8(&output.stdout).unwrap());
                    assert_eq!(told["verified"], true, "{told}");
                    if told["known_by"] != "frames" {
                        whole = Some(before);
                    }
                }
                None => interrupted += 1,
                Some(_) => panic!("round {round}: {}", stderr(&output)),
            }
            is_over.store(true, Ordering::Relaxed);
            if round % 4 < 2 {
                service.signal(Signal::TERM);
            }
        });
        service.end();
        if let Some(before) = whole {
            check_copy(&sandbox, "copy", &format!("restored-{round}"), before);
        }
    }
    assert!(whole.is_some() && interrupted > kills / 10, "{interrupted} of {kills} were interrupted");
    let all = counts(&acknowledged);
    assert!(all.iter().all(|count| *count > 20), "{all:?}");
    // Nobody serves it now: the copy is completed, and is the ledger.
    let told = json(&sandbox.done(&["backup", "--to", "copy", "--output", "json"]));
    assert_eq!((&told["known_by"], &told["verified"]), (&Value::from("unowned"), &Value::from(true)));
    check_copy(&sandbox, "copy", "restored", all);
    let info = json(&sandbox.done(&["info", "--output", "json"]));
    assert_eq!(info["journal"]["digest"], told["journal"]["digest"]);
}

#[test]
fn a_quiet_service_is_copied_to_its_last_event() {
    let sandbox = Sandbox::with_example();
    sandbox.done(&["key", "create", "--name", "shop", "--role", "operate", "--quiet"]);
    let service = Service::start(&sandbox, &["--quiet"]);
    let told = json(&sandbox.done(&["backup", "--to", "copies/monday", "--output", "json"]));
    assert_eq!((&told["known_by"], &told["keys"]), (&Value::from("owner"), &Value::from(1)));
    let again = json(&sandbox.done(&["backup", "--to", "copies/monday", "--output", "json"]));
    assert_eq!((&again["copied_frames"], &again["journal"]), (&Value::from(0), &told["journal"]));
    service.stop();
    assert!(!sandbox.path("bursar-data/owner.sock").exists());
    let output = sandbox.run(&["restore", "--from", "copies/monday", "--data", "again", "--output", "json"]);
    let restored = json(std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!((code(&output), &restored["journal"]), (0, &told["journal"]));
    assert!(stderr(&output).contains("revoke again what was revoked since"), "{}", stderr(&output));
    let accounts = ["accounts", "--output", "csv"];
    assert_eq!(sandbox.done(&accounts), sandbox.done(&[&accounts[..], &["--data", "again"]].concat()));
}

/// Hashes of keys are neither lost silently nor left where they are not wanted, and nobody else may read them.
#[test]
fn keys_are_copied_unless_they_are_not_wanted() {
    let sandbox = Sandbox::with_example();
    sandbox.done(&["key", "create", "--name", "shop", "--role", "operate", "--quiet"]);
    sandbox.done(&["backup", "--to", "copy"]);
    let keys = sandbox.path("copy/keys.json");
    assert_eq!(std::fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o600);
    sandbox.done(&["restore", "--from", "copy", "--data", "without", "--without-keys", "--quiet"]);
    assert!(!sandbox.path("without/keys.json").exists());
    sandbox.done(&["restore", "--from", "copy", "--data", "with", "--quiet"]);
    assert_eq!(sandbox.read("with/keys.json"), sandbox.read("bursar-data/keys.json"));
    sandbox.done(&["backup", "--to", "copy", "--without-keys"]);
    assert!(!keys.exists());
}

#[test]
fn what_is_refused_has_a_code_and_a_way_on() {
    let sandbox = Sandbox::with_example();
    sandbox.done(&["backup", "--to", "copy"]);
    sandbox.done(&["--data", "other", "init", "--quiet"]);
    let table: [(&[&str], &str); 6] = [
        (&["--data", "other", "backup", "--to", "copy"], "error[other_ledger]"),
        (&["--data", "nowhere", "backup", "--to", "copy"], "error[no_ledger]"),
        (&["backup", "--to", "bursar-data"], "error[in_use]"),
        (&["--data", "other", "restore", "--from", "copy"], "error[directory_not_empty]"),
        (&["--data", "new", "restore", "--from", "other"], "error[no_backup]"),
        (&["--data", "new", "restore", "--from", "nowhere"], "error[no_backup]"),
    ];
    for (arguments, expected) in table {
        let said = sandbox.fails(3, arguments);
        assert!(said.contains(expected) && said.contains("hint:"), "{arguments:?}: {said}");
    }
    assert!(!sandbox.path("new").exists());
    // Somebody took the copy for a ledger and wrote into it.
    sandbox.write("more.csv", "type,client,tx,amount\ndeposit,1,777001,1\n");
    sandbox.done(&["--data", "copy", "ingest", "--quiet", "--no-report", "more.csv"]);
    assert!(sandbox.fails(3, &["backup", "--to", "copy"]).contains("error[backup_diverged]"));
    // A byte of the copy was damaged.
    sandbox.done(&["backup", "--to", "second"]);
    let journal = sandbox.path("second/journal-00000000000000000000.bursar");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&journal, bytes).unwrap();
    assert!(sandbox.fails(3, &["--data", "new", "restore", "--from", "second"]).contains("error[damaged]"));
    assert!(sandbox.fails(3, &["--data", "new", "info"]).contains("error[no_ledger]"));
}
