//! Verifying a directory, beside one pass of SHA-256 over the same bytes.

use super::{Bench, durable};
use crate::contest::{Figure, Goal, Series};
use crate::failure::Failure;
use crate::probe;
use crate::workload::Ids;
use bursar_engine::embedded::{self, VerifyOptions};
use std::time::Instant;

pub(super) fn verify(bench: &mut Bench) -> Result<Vec<Figure>, Failure> {
    let workload = bench.workload(Ids::Rising);
    let source = bench.source(workload)?;
    let directory = bench.ledger_directory("ledger")?;
    let events = durable::make_ledger(&source, &directory)?;
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&directory)? {
        paths.push(entry?.path());
    }
    let [mut ours, mut limit, mut our_processor, mut limit_processor] = [const { Series(Vec::new()) }; 4];
    for _ in 0..bench.options.rounds {
        let (started, processor) = (Instant::now(), probe::processor_seconds());
        let report = embedded::verify(&directory, &VerifyOptions::default(), &mut |_| ())?;
        ours.push(events as f64 / started.elapsed().as_secs_f64());
        our_processor.push((probe::processor_seconds() - processor) * 1e9 / events as f64);
        Failure::unless_equal("the findings of a sound ledger, and none", &report.finding_count, &0)?;
        Failure::unless_equal("the events verified and those made", &report.event_count, &events)?;
        let (started, processor) = (Instant::now(), probe::processor_seconds());
        for path in &paths {
            probe::sha256_file(path, u64::MAX)?;
        }
        limit.push(events as f64 / started.elapsed().as_secs_f64());
        limit_processor.push((probe::processor_seconds() - processor) * 1e9 / events as f64);
    }
    std::fs::remove_dir_all(&directory)?;
    let against = "SHA-256 of the same files, one thread";
    let figure = Figure::paired("verify", "bursar verify", &ours, "events/s", against, &limit);
    let processor = Figure::paired("verify", "processor time", &our_processor, "ns/event", against, &limit_processor);
    Ok(vec![figure.goal(Goal::AtLeast(3_000_000.0)), processor])
}
