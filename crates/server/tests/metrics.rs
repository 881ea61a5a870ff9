//! What `/metrics` says is what happened, in the form that Prometheus reads, under names that are documented.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_core::{Currencies, Policy};
use bursar_engine::{Ledger, LedgerOptions, new_config};
use bursar_server::Limits;
use common::{TestServer, deposit};
use std::collections::{BTreeMap, BTreeSet};

const MANUAL: &str = include_str!("../../../docs/operations.md");

/// The samples by name and labels.
fn samples(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"))).collect()
}

/// The names of all metrics, with their kinds.
fn kinds(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines.map(|line| line.split_once(' ').unwrap_or_else(|| panic!("{line}"))).collect()
}

#[test]
fn the_engine_says_what_it_did() {
    let sandbox = tempfile::tempdir().unwrap();
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let ledger = Ledger::create(&sandbox.path().join("data"), &config, LedgerOptions::default()).unwrap();
    let server = TestServer::of(ledger, None, Limits::default());
    for id in 1..=3 {
        server.applied(&deposit(id, id, "1"));
    }
    let answer = server.get("/metrics");
    let text = answer.text();
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1);
    let samples = samples(text);
    let table = [
        ("bursar_batch_size_requests_count", "3"),
        ("bursar_batch_size_requests_sum", "3.0"),
        ("bursar_batch_size_requests_bucket{le=\"1.0\"}", "3"),
        ("bursar_batch_size_requests_bucket{le=\"+Inf\"}", "3"),
        ("bursar_commit_seconds_count", "3"),
        ("bursar_journal_sync_seconds_count", "3"),
        ("bursar_journal_sync_seconds_bucket{le=\"+Inf\"}", "3"),
        ("bursar_lookups_total{table=\"heads\"}", "3"),
        ("bursar_lookup_misses_total{table=\"transactions\"}", "0"),
        ("bursar_index_files{table=\"customers\"}", "0"),
        ("bursar_index_jobs_total{job=\"write\"}", "0"),
        ("bursar_engine_queue_requests", "0"),
        ("bursar_engine_queue_requests_max", "65536"),
        ("bursar_engine_stopped", "0"),
        ("bursar_store_poisoned", "0"),
        ("bursar_open_event_oldest_age_seconds", "0"),
        ("bursar_rail_contradictions_total", "0"),
        ("bursar_memory_entries", "6"),
    ];
    for (name, expected) in table {
        assert_eq!(samples.get(name), Some(&expected), "{name}\n{text}");
    }
    let number = |name: &str| samples[name].parse::<u64>().unwrap();
    assert!(number("bursar_disk_free_bytes") > 0);
    assert!(number("bursar_disk_size_bytes") >= number("bursar_disk_free_bytes"));
    assert!(number("bursar_journal_size_bytes") > 3 * 50);
    // Buckets hold those before them, and the last one all.
    let buckets: Vec<u64> = text
        .lines()
        .filter(|line| line.starts_with("bursar_commit_seconds_bucket"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert!(buckets.len() > 20 && buckets.is_sorted() && buckets.last() == Some(&3), "{buckets:?}");
}

#[test]
fn every_metric_is_in_the_manual_and_the_manual_names_no_other() {
    let sandbox = tempfile::tempdir().unwrap();
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let ledger = Ledger::create(&sandbox.path().join("data"), &config, LedgerOptions::default()).unwrap();
    let server = TestServer::of(ledger, None, Limits::default());
    server.applied(&deposit(1, 1, "1"));
    assert_eq!(server.submit("{").status, 400);
    let text = server.get("/metrics").text().to_owned();
    // A counter is read under its name with `_total`.
    let suffix = |kind: &str| if kind == "counter" { "_total" } else { "" };
    let served: BTreeSet<String> =
        kinds(&text).into_iter().map(|(name, kind)| format!("{name}{}", suffix(kind))).collect();
    let rows = MANUAL.lines().filter_map(|line| line.strip_prefix("| `bursar_"));
    let listed: BTreeSet<String> = rows.filter_map(|row| Some(format!("bursar_{}", row.split_once('`')?.0))).collect();
    assert_eq!(served.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "not in docs/operations.md");
    assert_eq!(listed.difference(&served).collect::<Vec<_>>(), Vec::<&String>::new(), "not served");
    for (name, kind) in kinds(&text) {
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{name} is a {kind}");
        assert!(!name.ends_with("_total") && !name.contains("__"), "{name}");
    }
}
