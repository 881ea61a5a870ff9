//! A file into the embedded store, beside raw synced appends of as many bytes in the same pieces.

use super::{Bench, config, take_in_quietly};
use crate::contest::{Figure, Goal, Series};
use crate::failure::Failure;
use crate::machine::STREAM_BYTES;
use crate::probe::{self, Room};
use crate::traced_disk::{Trace, TracedDisk};
use crate::workload::{Ids, Workload};
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore};
use bursar_engine::{Ledger, LedgerOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

pub(super) fn rising(bench: &mut Bench) -> Result<Vec<Figure>, Failure> {
    measure(bench, "durable-rising", Ids::Rising, 0.7)
}

pub(super) fn uuid(bench: &mut Bench) -> Result<Vec<Figure>, Failure> {
    measure(bench, "durable-uuid", Ids::Uuid, 0.35)
}

/// An ingest, and what the store asked of the disk for it.
struct Taken {
    /// To when the last row was durable.
    seconds: f64,
    /// To the end of a clean stop behind it.
    seconds_with_stop: f64,
    events: u64,
    /// The journal's synced writes, then all other bytes in large pieces.
    chunks: Vec<u64>,
    journal_bytes: u64,
    journal_syncs: u64,
    other_bytes: u64,
}

fn measure(bench: &mut Bench, case: &'static str, ids: Ids, goal: f64) -> Result<Vec<Figure>, Failure> {
    let workload = bench.workload(ids);
    let source = bench.source(workload)?;
    let raw_path = bench.directory().join("raw");
    let [mut engine, mut with_stop, mut raw, mut rate, mut stream, mut frame, mut per_event, mut index] =
        [const { Series(Vec::new()) }; 8];
    for _ in 0..bench.options.rounds {
        let directory = bench.ledger_directory("ledger")?;
        let taken = take_in_durably(&source, &directory, &workload)?;
        std::fs::remove_dir_all(&directory)?;
        let raw_seconds = probe::append(&raw_path, &taken.chunks, Room::Growing)?;
        let bytes = taken.journal_bytes + taken.other_bytes;
        let stream_chunks = vec![STREAM_BYTES; bytes.div_ceil(STREAM_BYTES) as usize];
        let stream_seconds = probe::append(&raw_path, &stream_chunks, Room::Growing)?;
        let (events, megabytes) = (taken.events as f64, bytes as f64 / 1e6);
        engine.push(events / taken.seconds);
        with_stop.push(events / taken.seconds_with_stop);
        raw.push(events / raw_seconds);
        rate.push(megabytes / taken.seconds);
        stream.push(megabytes / stream_seconds);
        frame.push(taken.journal_bytes as f64 / taken.journal_syncs.max(1) as f64);
        per_event.push(taken.journal_bytes as f64 / events);
        index.push(taken.other_bytes as f64 / events);
    }
    let same = "raw synced appends, same bytes, same pieces";
    let large = "raw synced appends, same bytes, 4 MiB pieces";
    Ok(vec![
        Figure::paired(case, "ingest, until durable", &engine, "events/s", same, &raw).goal(Goal::RatioAtLeast(goal)),
        Figure::paired(case, "ingest, until durable", &rate, "MB/s", large, &stream),
        Figure::paired(case, "ingest and a clean stop", &with_stop, "events/s", same, &raw),
        Figure::new(case, "journal bytes per sync", &frame, "bytes"),
        Figure::new(case, "journal bytes per event", &per_event, "bytes"),
        Figure::new(case, "other bytes written per event", &index, "bytes"),
    ])
}

fn take_in_durably(source: &Path, directory: &Path, workload: &Workload) -> Result<Taken, Failure> {
    let started = Instant::now();
    let (ledger, store, trace) = create_traced(directory)?;
    let counts = take_in_quietly(&ledger, source)?;
    let seconds = started.elapsed().as_secs_f64();
    let events = ledger.totals()?.event_count;
    ledger.close()?;
    store.close()?;
    let seconds_with_stop = started.elapsed().as_secs_f64();
    Failure::unless_equal("the rows taken in and those of the file", &counts.total(), &workload.rows)?;
    Failure::unless_equal("the events of the ledger and the rows applied", &events, &counts.applied)?;
    let mut chunks = trace.journal_chunks();
    let (journal_bytes, journal_syncs) = (chunks.iter().sum(), chunks.len() as u64);
    let other_bytes = trace.other_written();
    let mut left = other_bytes;
    while left > 0 {
        let chunk = left.min(STREAM_BYTES);
        chunks.push(chunk);
        left -= chunk;
    }
    Ok(Taken { seconds, seconds_with_stop, events, chunks, journal_bytes, journal_syncs, other_bytes })
}

/// A new ledger in a directory that notes what is asked of it. A clean stop closes both.
fn create_traced(directory: &Path) -> Result<(Ledger, Arc<EmbeddedStore>, Arc<Trace>), Failure> {
    let (disk, trace) = TracedDisk::open(directory, true)?;
    let (store, _) = EmbeddedStore::create_on(disk, &config(), EmbeddedOptions::default())?;
    let store = Arc::new(store);
    let ledger = Ledger::with_stores(config(), store.clone(), store.clone(), LedgerOptions::default())?;
    Ok((ledger, store, trace))
}

/// Takes a file into a new ledger and stops cleanly. Gives the count of events.
pub(super) fn make_ledger(source: &Path, directory: &Path) -> Result<u64, Failure> {
    let ledger = Ledger::create(directory, &config(), LedgerOptions::default())?;
    let counts = take_in_quietly(&ledger, source)?;
    ledger.close()?;
    Ok(counts.applied)
}

/// The sizes of the files in a directory whose names begin so.
pub(super) fn file_bytes(directory: &Path, prefix: &str) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

pub(super) fn disk(bench: &mut Bench) -> Result<Vec<Figure>, Failure> {
    let mut figures = Vec::new();
    for (ids, name) in [(Ids::Rising, "ids rising, 65,536 customers"), (Ids::Uuid, "UUIDs, many customers")] {
        let workload = bench.workload(ids);
        let source = bench.source(workload)?;
        let directory = bench.ledger_directory("ledger")?;
        let events = make_ledger(&source, &directory)? as f64;
        for (prefix, what) in [
            ("", "all files"),
            ("journal-", "journal"),
            ("index-t-", "index: transactions"),
            ("index-c-", "index: customers"),
        ] {
            let per_event = Series(vec![file_bytes(&directory, prefix)? as f64 / events]);
            let figure = Figure::new("disk", format!("{what}; {name}"), &per_event, "bytes/event");
            figures.push(if prefix.is_empty() { figure.goal(Goal::AtMost(96.0)) } else { figure });
        }
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(figures)
}
