//! Ledgers in other stores, through the binary, against real servers: every command, two services on one ledger, a killed
//! ingest, and a ledger that moves from store to store.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects")]

#[path = "../../server/tests/common/client.rs"]
mod client;
mod common;
#[path = "common/elsewhere.rs"]
mod elsewhere;
#[path = "../../nats/tests/common/servers.rs"]
mod nats;
#[path = "../../postgres/tests/common/mod.rs"]
mod postgres;
#[path = "../../cache/tests/common/mod.rs"]
mod redis_server;
#[path = "common/service.rs"]
mod service;

use bursar_cache::CacheSettings;
use common::{EXAMPLE, EXAMPLE_ACCOUNTS, Random, Sandbox, TRYING_ROWS, code, stderr, stdout, told};
use elsewhere::{in_both, in_postgres, sandbox_with, section};
use nats::{Cluster, Sync};
use postgres::PostgresServer;
use redis_server::RedisServer;
use rustix::process::Signal;
use service::Service;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What every command says of a ledger that holds the example.
fn every_command_works(sandbox: &Sandbox) {
    commands_work(sandbox, false);
}

fn commands_work(sandbox: &Sandbox, has_journal: bool) {
    assert!(sandbox.fails(3, &["accounts"]).contains("error[no_ledger]"));
    assert!(
        sandbox.fails(3, &["ingest", "payments.csv"]).contains("error[no_ledger]"),
        "nothing is created by mistake"
    );
    sandbox.done(&["init"]);
    assert!(sandbox.fails(3, &["init"]).contains("error[ledger_exists]"));
    sandbox.write("payments.csv", EXAMPLE);
    let accounts = sandbox.done(&["ingest", "payments.csv", "--quiet", "--output", "csv"]);
    assert_eq!(accounts, EXAMPLE_ACCOUNTS);
    assert_eq!(sandbox.done(&["accounts", "--output", "csv"]), EXAMPLE_ACCOUNTS);
    assert!(stderr(&sandbox.run(&["ingest", "payments.csv", "--no-report"])).contains("already in"));
    let piped = sandbox.run_with_input(&["ingest", "-", "--no-report"], EXAMPLE);
    assert!(stderr(&piped).contains("already in"), "{}", stderr(&piped));

    sandbox.done(&["submit", "deposit", "77", "9001", "12.5"]);
    let again = sandbox.done(&["submit", "deposit", "77", "9001", "12.5", "--output", "json"]);
    assert!(again.contains("already"), "{again}");
    assert!(sandbox.fails(1, &["submit", "withdrawal", "77", "9002", "13"]).contains("insufficient_funds"));
    sandbox.done(&["submit", "withdrawal", "77", "9003", "2", "--dry-run"]);
    sandbox.done(&["submit", "dispute", "77", "9001", "--idempotency-key", "case 17"]);
    sandbox.done(&["submit", "dispute", "77", "9001", "--idempotency-key", "case 17"]);
    sandbox.done(&["submit", "chargeback", "77", "9001"]);
    sandbox.done(&["unlock", "77"]);
    let chain = sandbox.done(&["chain", "77", "--output", "csv"]);
    assert_eq!(chain.lines().count(), 1 + 4, "{chain}");
    assert!(sandbox.done(&["transaction", "9001", "--output", "csv"]).contains("charged_back"));
    assert!(sandbox.done(&["account", "77", "--as-of", "1", "--output", "csv"]).contains("12.5"));
    sandbox.done(&["pending"]);
    assert!(
        sandbox
            .fails(1, &["settle", "6f1cf1f0-4f6e-8d53-9c3f-5a5d5f3c2b1a", "--as", "done", "--reason", "x"])
            .contains("not_pending")
    );
    sandbox.done(&["export", "--chain", "77", "--to", "77.chain"]);
    sandbox.done(&["verify", "--file", "77.chain"]);
    let verified = sandbox.done(&["verify", "--output", "csv"]);
    assert!(verified.contains("sound,true\n") && verified.contains("sums_compared,true\n"), "{verified}");
    sandbox.done(&["verify", "77"]);
    assert!(sandbox.fails(1, &["verify", "78"]).contains("unknown_customer"));
    let info = sandbox.done(&["info", "--output", "csv"]);
    assert!(info.contains("currency.unnamed.balanced,true\n") && info.contains("store.chains,"), "{info}");
    assert!(!info.contains("\ndirectory,"), "{info}");
    assert_eq!(info.contains("\njournal.bytes,"), has_journal, "{info}");
    sandbox.done(&["key", "create", "--name", "shop", "--role", "read"]);
    for arguments in [
        &["backup", "--to", "copy"][..],
        &["restore", "--from", "copy"],
        &["doctor"],
        &["ingest", "payments.csv", "--dry-run"],
    ] {
        let error = sandbox.fails(2, arguments);
        assert!(error.contains("error[needs_directory]") && error.contains("PostgreSQL"), "{error}");
    }
}

#[test]
fn every_command_works_on_postgresql() {
    let server = PostgresServer::start();
    let settings = in_postgres(&server);
    let sandbox = sandbox_with(&settings);
    every_command_works(&sandbox);

    // What somebody else writes into the table is found, and into the chains too.
    let schema = settings.rsplit("schema = '").next().unwrap().trim_end().trim_end_matches('\'').to_owned();
    let id = "00000000-0000-0000-0000-000000002329";
    let change = |text: &str| server.psql(&format!("SET search_path = {schema}; {text}"));
    change(&format!("UPDATE transactions SET amount = amount + 1 WHERE id = '{id}'"));
    let error = sandbox.run(&["verify", "--output", "csv"]);
    assert_eq!(code(&error), 4, "{}", stderr(&error));
    assert!(stdout(&error).contains("finding.1.code,table_differs\nfinding.1.what,"), "{}", stdout(&error));
    change("UPDATE events SET amount = amount - 1 WHERE seq = 1");
    let error = sandbox.run(&["verify", "--output", "csv"]);
    assert_eq!(code(&error), 4, "{}", stderr(&error));
    assert!(stdout(&error).contains("wrong_hash"), "{}", stdout(&error));
}

#[test]
fn every_command_works_on_a_pair_of_stores() {
    let (cluster, server) = (Cluster::start(1, Sync::Always), PostgresServer::start());
    let sandbox = Sandbox::new();
    let settings = in_both(&sandbox, &cluster, &server);
    let sandbox = {
        let other = sandbox_with(&settings);
        every_command_works(&other);
        other
    };
    // The chains of this ledger, and the table of nobody.
    let lost = settings.replace(
        &settings[settings.find("schema = '").unwrap()..settings.find("[store.nats]").unwrap()],
        "schema = 'nothing'\n",
    );
    sandbox.write("lost.toml", lost);
    assert!(sandbox.fails(3, &["--config", "lost.toml", "accounts"]).contains("error[no_ledger]"));
    assert!(sandbox.fails(3, &["--config", "lost.toml", "init"]).contains("error[ledger_exists]"));
}

/// Chains in a directory, and the table in PostgreSQL.
fn beside_a_directory(server: &PostgresServer) -> String {
    let chains = "[store.embedded]\ndirectory = 'chains'\n";
    format!("[store]\nchains = 'embedded'\ntransactions = 'postgres'\n{chains}{}", section(server))
}

#[test]
fn every_command_works_on_chains_in_a_directory_beside_postgresql() {
    let server = PostgresServer::start();
    let sandbox = sandbox_with(&beside_a_directory(&server));
    commands_work(&sandbox, true);
    // Alone it is not opened, nor as a whole ledger.
    let chains = sandbox.path("bursar-data/chains").display().to_string();
    assert!(sandbox.fails(3, &["--data", &chains, "accounts"]).contains("error[other_stores]"));
    // A ledger of one place moves there, and back.
    let other = Sandbox::with_example();
    other.write("pair.toml", beside_a_directory(&server));
    for (from, to) in [("bursar-data", "pair.toml"), ("pair.toml", "back")] {
        let copied = other.done(&["copy", "--from", from, "--to", to, "--output", "csv"]);
        assert!(copied.contains("equal,true\n"), "{copied}");
    }
    let accounts = other.done(&["accounts", "--output", "csv"]);
    for place in [&["--config", "pair.toml"][..], &["--data", "back"]] {
        assert_eq!(other.done(&[place, &["accounts", "--output", "csv"]].concat()), accounts);
    }
}

#[test]
fn every_command_works_behind_a_cache() {
    let (server, cache) = (PostgresServer::start(), RedisServer::start());
    let settings = format!("{}[cache]\nurl = '{}'\nshown_for_ms = 60000\n", in_postgres(&server), cache.settings().url);
    every_command_works(&sandbox_with(&settings));
    // One that is not there costs time, and nothing else.
    drop(cache);
    let gone = settings.replace("schema = '", "schema = 'gone_");
    every_command_works(&sandbox_with(&gone));
    let sandbox = sandbox_with("[cache]\nurl = 'redis://127.0.0.1'\n");
    assert!(sandbox.fails(2, &["init"]).contains("`[cache]` is for a ledger in other stores"));
}

/// What `/metrics` says of the cache is what happened, under names that are documented.
#[test]
fn a_cache_is_counted() {
    let (server, cache) = (PostgresServer::start(), RedisServer::start());
    let url = cache.settings().url;
    let settings = format!(
        "{}[cache]\nurl = '{url}'\ntimeout_ms = 10000\nconnect_timeout_ms = 10000\nkept_for_s = 600\n",
        in_postgres(&server)
    );
    let sandbox = sandbox_with(&settings);
    sandbox.done(&["init"]);
    let service = Service::start(&sandbox, &[]);
    let metrics = || service.client().get("/metrics").text().to_owned();
    let figure = |name: &str| {
        let text = metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("bursar_cache_{name} ")));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse::<u64>().unwrap()
    };
    for name in ["entries_total{result=\"hit\"}", "repeats_total", "failures_total", "dropped_total", "left_alone"] {
        assert_eq!(figure(name), 0, "{name}");
    }
    deposit(&service, 1, 1);
    assert!(figure("entries_total{result=\"miss\"}") >= 1);
    cache.wait_for(":m:", 1);
    deposit(&service, 1, 1);
    assert_eq!(figure("repeats_total"), 1);
    assert!(figure("entries_total{result=\"hit\"}") >= 1);
    drop(cache);
    deposit(&service, 1, 2);
    assert!(figure("failures_total") >= 1);
    let manual = include_str!("../../../docs/cache.md");
    let text = metrics();
    let kinds: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE bursar_cache_")).collect();
    assert_eq!(kinds.len(), 5, "{text}");
    for (name, kind) in kinds.iter().map(|line| line.split_once(' ').unwrap()) {
        let suffix = if kind == "counter" { "_total" } else { "" };
        assert!(manual.contains(&format!("| `bursar_cache_{name}{suffix}` | {kind} |")), "{name}");
    }
}

#[test]
fn migrate_makes_what_is_missing_and_refuses_what_is_newer() {
    let (cluster, server) = (Cluster::start(1, Sync::Always), PostgresServer::start());
    let files = Sandbox::new();
    let sandbox = sandbox_with(&in_both(&files, &cluster, &server));
    let told = sandbox.done(&["migrate", "--output", "csv"]);
    let version = bursar_postgres::SCHEMA_VERSION;
    for line in ["nats.streams,2\n", "nats.has_ledger,false\n", "postgres.version_before,0\n"] {
        assert!(told.contains(line), "{told}");
    }
    assert!(told.contains(&format!("postgres.version,{version}\n")), "{told}");
    assert!(sandbox.fails(3, &["accounts"]).contains("error[no_ledger]"));
    sandbox.done(&["init", "--currency", "EUR:2"]);
    let told = sandbox.done(&["migrate", "--output", "csv"]);
    assert!(told.contains("nats.has_ledger,true\n"), "{told}");
    assert!(told.contains(&format!("postgres.version_before,{version}\n")), "{told}");
    let schema = told.lines().find_map(|line| line.strip_prefix("postgres.schema,")).unwrap().to_owned();
    server.psql(&format!("INSERT INTO {schema}.migrations VALUES (99, now())"));
    assert!(sandbox.fails(3, &["accounts"]).contains("error[unknown_version]"));
    assert!(sandbox.fails(3, &["migrate"]).contains("error[unknown_version]"));
    server.psql(&format!("DELETE FROM {schema}.migrations WHERE version = 99"));
    sandbox.done(&["accounts"]);
    // A directory has nothing to migrate.
    let directory = Sandbox::with_example();
    assert_eq!(directory.done(&["migrate"]), "");
}

/// A schema as the first version of the program made it: every command says what it needs, and `migrate` does it.
#[test]
fn an_older_schema_is_asked_to_be_migrated_and_then_is() {
    let (server, sandbox) = (PostgresServer::start(), Sandbox::new());
    let settings = in_postgres(&server);
    sandbox.write("older.toml", &settings);
    let schema = settings.rsplit("schema = '").next().unwrap().trim_end().trim_end_matches('\'').to_owned();
    // How views show ids is written out by the program; nothing here looks at views.
    let mut tables = String::new();
    let mut rest = include_str!("../../postgres/migrations/0001_tables.sql");
    while let Some((before, after)) = rest.split_once("{text:") {
        let (column, after) = after.split_once('}').unwrap();
        tables.extend([before, column, "::text"]);
        rest = after;
    }
    tables.push_str(rest);
    server.psql(&format!(
        "CREATE SCHEMA {schema}; SET search_path = {schema}; {tables};
         CREATE TABLE migrations (version integer PRIMARY KEY, applied_at timestamptz);
         INSERT INTO migrations VALUES (1, now())"
    ));
    let version = bursar_postgres::SCHEMA_VERSION;
    let on_older = |arguments: &[&str]| sandbox.fails(3, &[&["--config", "older.toml"], arguments].concat());
    for command in [&["accounts"][..], &["info"], &["verify"], &["submit", "deposit", "1", "1", "1"]] {
        let error = on_older(command);
        if version == 1 {
            // No version came before this one: the schema is the program's own, without a ledger.
            assert!(error.contains("error[no_ledger]"), "{error}");
        } else {
            assert!(error.contains("error[migration_needed]") && error.contains("bursar migrate"), "{error}");
        }
    }
    let told = sandbox.done(&["--config", "older.toml", "migrate", "--output", "csv"]);
    assert!(told.contains("postgres.version_before,1\n"), "{told}");
    assert!(told.contains(&format!("postgres.version,{version}\n")), "{told}");
    assert!(on_older(&["accounts"]).contains("error[no_ledger]"));
    sandbox.done(&["--config", "older.toml", "init"]);
    sandbox.done(&["--config", "older.toml", "submit", "deposit", "1", "1", "1"]);
}

/// An older copy of the chains beside the table that went on: whoever asks about what came since hears which event is
/// missing, and the right directory goes on as if nothing had been.
#[test]
fn chains_that_are_older_than_their_table_are_found_out() {
    let server = PostgresServer::start();
    let settings = beside_a_directory(&server).replace("[store.postgres]\n", "[store.postgres]\napprove = 'at_once'\n");
    let sandbox = sandbox_with(&settings);
    sandbox.done(&["init"]);
    sandbox.done(&["submit", "deposit", "7", "100", "5"]);
    let (chains, older) = (sandbox.path("bursar-data/chains"), sandbox.path("older"));
    std::fs::create_dir(&older).unwrap();
    for file in std::fs::read_dir(&chains).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), older.join(file.file_name())).unwrap();
    }
    sandbox.done(&["submit", "deposit", "7", "101", "5"]);
    let wrong = settings.replace("directory = 'chains'", "directory = 'older'");
    sandbox.write("wrong.toml", wrong);
    for asked in [["deposit", "7", "101", "5"], ["withdrawal", "7", "101", "2"]] {
        let error = sandbox.fails(3, &[&["--config", "wrong.toml", "submit"], &asked[..]].concat());
        for part in ["error[event_missing]", "transaction 101", "customer 7", "its number 2", "bursar copy"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    assert!(sandbox.done(&["submit", "deposit", "7", "101", "5", "--output", "csv"]).contains("already_applied"));
    assert!(sandbox.done(&["verify", "--output", "csv"]).contains("sound,true\n"));
}

#[test]
fn settings_that_make_no_sense_are_refused_before_anything_is_done() {
    let table = [
        ("[store]\nchains = 'postgres'\n", "bursar.toml:1:1: missing field `transactions`"),
        ("[store]\nchains = 'postgre'\ntransactions = 'postgres'\n", "Did you mean `postgres`?"),
        ("[store]\nchains = 'postgres'\ntransactions = 'postgres'\n", "`[store.postgres]` is missing"),
        (
            "[store]\nchains = 'postgres'\ntransactions = 'postgres'\n[store.postgres]\nurl = 'hush:'\n",
            "it is not a URL as libpq reads it",
        ),
        (
            "[store]\nchains = 'embedded'\ntransactions = 'postgres'\n[store.postgres]\nurl = 'postgresql://x'\n",
            "`[store.embedded]` is missing",
        ),
    ];
    for (settings, expected) in table {
        let sandbox = sandbox_with(settings);
        let error = sandbox.fails(2, &["init"]);
        assert!(error.contains("error[bad_config]") && error.contains(expected), "{settings}: {error}");
        assert!(!error.contains("hush"), "{error}");
    }
    // Both embedded is the directory, as without the section.
    let sandbox = sandbox_with("[store]\nchains = 'embedded'\ntransactions = 'embedded'\n");
    sandbox.done(&["init"]);
    assert!(sandbox.path("bursar-data/ledger.bursar").exists());
}

/// The end of every chain, which is all of its history.
fn heads(sandbox: &Sandbox, arguments: &[&str]) -> Vec<String> {
    let accounts = sandbox.done(&[arguments, &["accounts", "--output", "csv"]].concat());
    let clients: Vec<&str> = accounts.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert!(clients.len() > 10);
    clients.iter().map(|client| sandbox.done(&[arguments, &["account", client, "--output", "csv"]].concat())).collect()
}

#[test]
fn a_ledger_moves_through_all_stores_and_back() {
    let (cluster, server) = (Cluster::start(1, Sync::Always), PostgresServer::start());
    let sandbox = Sandbox::new();
    let rows = ["--rows", "3000", "--clients", "40", "--disputes", "5", "--resolves", "3", "--seed", "5"];
    sandbox.done(&[&["generate", "--to", "rows.csv"], &rows[..]].concat());
    sandbox.done(&["ingest", "rows.csv", "--quiet", "--no-report"]);
    sandbox.write("postgres.toml", in_postgres(&server));
    sandbox.write("both.toml", in_both(&sandbox, &cluster, &server));
    let expected = heads(&sandbox, &[]);
    let before = sandbox.ledger_files();

    let places = ["bursar-data", "postgres.toml", "both.toml", "back"];
    for pair in places.windows(2) {
        let copied = sandbox.done(&["copy", "--from", pair[0], "--to", pair[1], "--output", "csv"]);
        assert!(copied.contains("equal,true\n") && copied.contains("rounds,1\n"), "{copied}");
        assert!(!copied.contains("copied_events,0\n"), "{copied}");
        let again = sandbox.done(&["copy", "--from", pair[0], "--to", pair[1], "--output", "csv"]);
        assert!(again.contains("equal,true\n") && again.contains("copied_events,0\n"), "{again}");
    }
    assert_eq!(sandbox.ledger_files(), before, "a source is not changed");
    for place in [&["--config", "postgres.toml"][..], &["--config", "both.toml"], &["--data", "back"]] {
        assert_eq!(heads(&sandbox, place), expected, "{place:?}");
        assert!(sandbox.done(&[place, &["verify", "--output", "csv"]].concat()).contains("sound,true\n"));
        // It knows the file, wherever it is.
        let again = sandbox.run(&[place, &["ingest", "rows.csv", "--no-report"]].concat());
        assert!(stderr(&again).contains("already in"), "{place:?}: {}", stderr(&again));
    }
    // Each goes on by itself from here, and then they are two.
    sandbox.done(&["submit", "deposit", "1", "900001", "1"]);
    sandbox.done(&["--config", "postgres.toml", "submit", "deposit", "1", "900002", "1"]);
    let error = sandbox.fails(3, &["copy", "--from", "bursar-data", "--to", "postgres.toml"]);
    assert!(error.contains("error[copy_differs]"), "{error}");
    // Another ledger is no target either.
    let other = Sandbox::with_example();
    let from = other.path("bursar-data").display().to_string();
    let error = sandbox.fails(3, &["copy", "--from", &from, "--to", "both.toml"]);
    assert!(error.contains("error[copy_differs]"), "{error}");
    assert!(sandbox.fails(3, &["copy", "--from", "nowhere", "--to", "both.toml"]).contains("error[no_ledger]"));
}

/// Gives the outcome.
fn deposit(service: &Service, customer: u64, transaction: u64) -> String {
    let body = format!(
        "{{\"kind\":\"deposit\",\"customer\":\"{customer}\",\"transaction\":\"{transaction}\",\"amount\":\"1\"}}"
    );
    let answer = service.client().submit(&body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["outcome"].as_str().unwrap().to_owned()
}

/// Copied while it serves, then stopped, then what came since: nothing is lost, and both are equal.
#[test]
fn a_directory_moves_while_it_is_served() {
    let server = PostgresServer::start();
    let sandbox = Sandbox::with_example();
    sandbox.write("postgres.toml", in_postgres(&server));
    let service = Service::start(&sandbox, &[]);
    for transaction in 0..5 {
        assert_eq!(deposit(&service, 500, 7000 + transaction), "applied");
    }
    let copied = sandbox.run(&["copy", "--from", "bursar-data", "--to", "postgres.toml", "--output", "csv"]);
    assert_eq!(code(&copied), 0, "{}", stderr(&copied));
    assert!(stderr(&copied).contains("another process has bursar-data"), "{}", stderr(&copied));
    assert!(stdout(&copied).contains("equal,true\n"));
    for transaction in 5..9 {
        assert_eq!(deposit(&service, 500, 7000 + transaction), "applied");
    }
    service.stop();
    let copied = sandbox.done(&["copy", "--from", "bursar-data", "--to", "postgres.toml", "--output", "csv"]);
    assert!(copied.contains("copied_events,4\n") && copied.contains("equal,true\n"), "{copied}");
    let account = ["account", "500", "--output", "csv"];
    assert_eq!(sandbox.done(&account), sandbox.done(&[&["--config", "postgres.toml"], &account[..]].concat()));
}

/// A source that never rests is copied again and again, until it is said to be faster; once it rests, the rest is little.
#[test]
fn a_copy_that_the_source_outruns_says_so_and_is_completed_later() {
    let (server, sandbox) = (PostgresServer::start(), Sandbox::new());
    let source = sandbox_with(&in_postgres(&server));
    source.done(&["init", "--quiet"]);
    let rows = ["generate", "--rows", "3000", "--clients", "1500", "--seed", "4", "--to", "rows.csv"];
    source.done(&rows);
    source.done(&["ingest", "rows.csv", "--quiet", "--no-report"]);
    let from = source.path("bursar-data/bursar.toml").display().to_string();
    let copy = ["copy", "--from", &from, "--to", "copied", "--output", "csv"];
    let service = Service::start(&source, &[]);
    let stopped = AtomicBool::new(false);
    let (copied, deposit_count) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (service, stopped) = (&service, &stopped);
                scope.spawn(move || {
                    let mut count = 0;
                    while !stopped.load(Ordering::Relaxed) {
                        assert_eq!(deposit(service, 1 + writer, 1_000_000 * (writer + 1) + count), "applied");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let copied = sandbox.run(&copy);
        stopped.store(true, Ordering::Relaxed);
        (copied, writers.into_iter().map(|writer| writer.join().unwrap()).sum::<u64>())
    });
    service.stop();
    assert_eq!(code(&copied), 1, "{}", stderr(&copied));
    assert!(stderr(&copied).contains("error[copy_behind]"), "{}", stderr(&copied));
    assert!(stdout(&copied).contains("equal,false\n") && stdout(&copied).contains("rounds,8\n"), "{}", stdout(&copied));
    let number = |told: &str, name: &str| -> u64 {
        told.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
    };
    let before = number(&stdout(&copied), "copied_events,");
    // What is there so far is sound, and lacks what came last.
    assert!(sandbox.done(&["--data", "copied", "verify", "--output", "csv"]).contains("sound,true\n"));
    let rest = sandbox.done(&copy);
    assert!(rest.contains("equal,true\n") && rest.contains("rounds,1\n"), "{rest}");
    let rest = number(&rest, "copied_events,");
    let all = number(&source.done(&["info", "--output", "csv"]), "events,");
    assert_eq!(before + rest, all, "{deposit_count} deposits came meanwhile");
    assert!(rest < deposit_count);
    let accounts = ["accounts", "--output", "csv"];
    assert_eq!(sandbox.done(&[&["--data", "copied"], &accounts[..]].concat()), source.done(&accounts));
}

/// A copy that is killed goes on where it was, however often.
#[test]
fn a_killed_copy_is_resumed() {
    let (server, sandbox) = (PostgresServer::start(), Sandbox::new());
    sandbox.done(&["generate", "--rows", "20000", "--clients", "300", "--seed", "6", "--to", "rows.csv"]);
    sandbox.done(&["ingest", "rows.csv", "--quiet", "--no-report"]);
    sandbox.write("postgres.toml", in_postgres(&server));
    let copy = ["copy", "--from", "bursar-data", "--to", "postgres.toml", "--quiet", "--output", "csv"];
    let (mut random, mut kills) = (Random(8), 0);
    let last = loop {
        let mut child = sandbox.command(&copy).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // At first so early that no machine is fast enough.
        let wait_ms = if kills == 0 { 20 } else { 200 + random.below(500) as u64 };
        std::thread::sleep(Duration::from_millis(wait_ms));
        if kills == 5 || child.try_wait().unwrap().is_some() {
            break child.wait_with_output().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    };
    assert!(last.status.success() && kills > 0, "killed {kills} times");
    assert!(stdout(&last).contains("equal,true\n"), "{}", stdout(&last));
    let accounts = ["accounts", "--output", "csv"];
    let moved = sandbox.done(&[&["--config", "postgres.toml"], &accounts[..]].concat());
    assert_eq!(moved, sandbox.done(&accounts));
    assert!(sandbox.done(&["--config", "postgres.toml", "verify", "--output", "csv"]).contains("sound,true\n"));
}

/// Two processes serve one ledger: both take requests for the same customers, and nothing happens twice.
#[test]
fn two_services_share_a_ledger() {
    let (cluster, server) = (Cluster::start(1, Sync::Always), PostgresServer::start());
    let files = Sandbox::new();
    for settings in [in_postgres(&server), in_both(&files, &cluster, &server)] {
        let (one, two) = (sandbox_with(&settings), sandbox_with(&settings));
        one.done(&["init", "--quiet"]);
        let services = [Service::start(&one, &[]), Service::start(&two, &[])];
        let sent: Vec<String> = std::thread::scope(|scope| {
            let senders: Vec<_> = services
                .iter()
                .map(|service| {
                    // The same transactions of the same customers through both, at the same time.
                    scope.spawn(move || (0..60).map(|id| deposit(service, 1 + id % 3, 100 + id)).collect::<Vec<_>>())
                })
                .collect();
            senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
        });
        let count = |outcome: &str| sent.iter().filter(|found| *found == outcome).count();
        assert_eq!(
            (count("applied"), count("already_applied")),
            (60, 60),
            "each is applied once and known once: {sent:?}"
        );
        let accounts = "client,available,held,total,locked\n1,20,0,20,false\n2,20,0,20,false\n3,20,0,20,false\n";
        assert_eq!(two.done(&["accounts", "--output", "csv"]).replace(".0000", ""), accounts);
        let [first, second] = services;
        first.signal(Signal::KILL);
        assert_eq!(deposit(&second, 1, 900), "applied", "one goes on alone");
        drop(first);
        second.stop();
        assert!(one.done(&["verify", "--output", "csv"]).contains("sound,true\n"));
    }
}

/// A file is taken in by a process that is killed again and again: each row takes effect once, as if it had never been.
#[test]
fn a_killed_ingest_over_two_stores_continues() {
    let (cluster, server) = (Cluster::start(1, Sync::Always), PostgresServer::start());
    let files = Sandbox::new();
    let file = files.path("rows.csv").display().to_string();
    files.done(&[&["generate", "--rows", "12000", "--clients", "30", "--to", &file], &TRYING_ROWS[..]].concat());
    let ingest = |sandbox: &Sandbox| {
        let mut command = sandbox.command(&["ingest", "--quiet", "--no-report", "--rejects", "rejects.csv", &file]);
        command.stderr(Stdio::null());
        command
    };
    let said = |sandbox: &Sandbox| {
        let data = sandbox.path("bursar-data").display().to_string();
        let mut said = told(&data, &sandbox.path("rejects.csv"), &["1", "7", "30"]);
        // Rows that took effect before their position was kept are counted as already applied.
        said.retain(|line| !line.contains("applied,"));
        said
    };
    let whole = Sandbox::new();
    assert!(ingest(&whole).status().unwrap().success());
    let expected = said(&whole);
    let mut random = Random(3);
    for settings in [in_postgres(&server), in_both(&files, &cluster, &server)] {
        let sandbox = sandbox_with(&settings);
        sandbox.done(&["init", "--quiet"]);
        let mut kills = 0;
        loop {
            let mut child = ingest(&sandbox).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(20 + random.below(700) as u64));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break;
            }
            if kills == 12 {
                assert!(child.wait().unwrap().success());
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        }
        assert!(kills > 2, "killed {kills} times");
        same(&said(&sandbox), &expected);
        assert!(sandbox.done(&["verify", "--output", "csv"]).contains("sound,true\n"));
        remove(&sandbox.path("rejects.csv"));
    }
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

/// Says the first difference, not the whole of both.
fn same(got: &[String], expected: &[String]) {
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        if got != expected {
            let lines = got.lines().zip(expected.lines()).find(|(got, expected)| got != expected);
            panic!("part {index} differs: {lines:?}");
        }
    }
    assert_eq!(got.len(), expected.len());
}
