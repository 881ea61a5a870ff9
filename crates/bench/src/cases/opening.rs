//! Opening a ledger after a clean stop, and as a kill leaves it: nothing told to the store, no checkpoint written.
//!
//! The system is asked to forget the files first, so that they are read from the disk.

use super::{Bench, config, durable, take_in_quietly};
use crate::contest::{Figure, Goal, Series};
use crate::failure::Failure;
use crate::probe;
use crate::traced_disk::TracedDisk;
use crate::workload::Ids;
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore};
use bursar_engine::{Ledger, LedgerOptions};
use std::path::Path;
use std::time::Instant;

pub(super) fn opening(bench: &mut Bench) -> Result<Vec<Figure>, Failure> {
    let workload = bench.workload(Ids::Rising);
    let source = bench.source(workload)?;
    let stopped = bench.ledger_directory("stopped")?;
    let events = durable::make_ledger(&source, &stopped)?;
    let killed = bench.ledger_directory("killed")?;
    let ledger = Ledger::create(&killed, &config(), LedgerOptions::default())?;
    take_in_quietly(&ledger, &source)?;
    // Neither this nor a kill closes the store: the journal keeps its reserved room, and the newest events are only
    // there.
    drop(ledger);
    let mut figures = Vec::new();
    for (directory, what, goal) in [(&stopped, "after a clean stop", 1.0), (&killed, "after a kill", 5.0)] {
        let (bytes_read, events_read) = read_by_opening(directory)?;
        let [mut seconds, mut limit] = [const { Series(Vec::new()) }; 2];
        for _ in 0..bench.options.rounds {
            forget_all(directory)?;
            let started = Instant::now();
            let (ledger, _) = Ledger::open(directory, LedgerOptions::default())?;
            seconds.push(started.elapsed().as_secs_f64());
            Failure::unless_equal("the events found and those there", &ledger.totals()?.event_count, &events)?;
            drop(ledger);
            limit.push(read_and_hash(directory, bytes_read)?);
        }
        let against = format!("reading and hashing {bytes_read} bytes, as it does");
        let what = format!("{what}: {events} events, of which it reads {events_read}");
        figures.push(Figure::paired("opening", what, &seconds, "s", against, &limit).goal(Goal::AtMost(goal)));
    }
    std::fs::remove_dir_all(&stopped)?;
    std::fs::remove_dir_all(&killed)?;
    Ok(figures)
}

/// How many bytes and events an opening reads.
fn read_by_opening(directory: &Path) -> Result<(u64, u64), Failure> {
    let (disk, trace) = TracedDisk::open(directory, false)?;
    let (_store, report) = EmbeddedStore::open_on(disk, EmbeddedOptions::default())?;
    Ok((trace.bytes_read(), report.events_read))
}

fn forget_all(directory: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(directory)? {
        probe::forget(&entry?.path())?;
    }
    Ok(())
}

/// Reads so many bytes of the journal's newest segments, forgotten first, and hashes as many. Gives the seconds.
fn read_and_hash(directory: &Path, byte_count: u64) -> Result<f64, Failure> {
    forget_all(directory)?;
    let mut paths: Vec<_> =
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_, Failure>>()?;
    paths.sort_by_key(|path| std::cmp::Reverse(path.metadata().map_or(0, |metadata| metadata.len())));
    let mut left = byte_count;
    let started = Instant::now();
    for path in paths {
        left -= probe::sha256_file(&path, left)?;
    }
    Ok(started.elapsed().as_secs_f64())
}
