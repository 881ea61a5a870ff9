//! A file into memory and accounts out: the engine, the peer-like baseline, and a bare scan, in turn.

use super::{Bench, config, take_in_for_accounts};
use crate::baseline::{Baseline, Uuid};
use crate::contest::{Figure, Goal, Series};
use crate::failure::Failure;
use crate::probe;
use crate::workload::Ids;
use bursar_engine::accounts_only::AccountsOnly;
use bursar_engine::csv::write_accounts;
use bursar_engine::store::RowCounts;
use serde::Deserialize;
use std::fs::File;
use std::hash::Hash;
use std::io::{self, BufWriter};
use std::path::Path;
use std::time::Instant;

/// By customer: available and held in steps, and whether it is locked.
type Accounts = Vec<(u128, i64, i64, bool)>;

/// What a whole job came to.
#[derive(Debug)]
struct Job {
    seconds: f64,
    /// Of all threads together.
    processor_seconds: f64,
    counts: RowCounts,
    accounts: Accounts,
}

pub(super) fn rising(bench: &mut Bench) -> Result<Vec<Figure>, Failure> {
    let mut figures = measure::<u64>(bench, "memory-rising", Ids::Rising)?;
    if let [against_baseline, against_scan, ..] = &mut figures[..] {
        *against_baseline = against_baseline.clone().goal(Goal::RatioAtLeast(10.0));
        *against_scan = against_scan.clone().goal(Goal::RatioAtLeast(0.5));
    }
    Ok(figures)
}

pub(super) fn uuid(bench: &mut Bench) -> Result<Vec<Figure>, Failure> {
    let mut figures = measure::<Uuid>(bench, "memory-uuid", Ids::Uuid)?;
    if let [against_baseline, ..] = &mut figures[..] {
        *against_baseline = against_baseline.clone().goal(Goal::RatioAtLeast(5.0));
    }
    Ok(figures)
}

fn measure<Tx: for<'de> Deserialize<'de> + Eq + Hash + Copy>(
    bench: &mut Bench,
    case: &'static str,
    ids: Ids,
) -> Result<Vec<Figure>, Failure> {
    let workload = bench.workload(ids);
    let path = bench.source(workload)?;
    let rows = workload.rows as f64;
    let [mut engine, mut baseline, mut scan, mut our_processor, mut their_processor] =
        [const { Series(Vec::new()) }; 5];
    for _ in 0..bench.options.rounds {
        let ours = by_engine(&path)?;
        let theirs = by_baseline::<Tx>(&path)?;
        Failure::unless_equal("the rows taken in and those of the file", &ours.counts.total(), &workload.rows)?;
        agree(&ours, &theirs)?;
        engine.push(rows / ours.seconds);
        baseline.push(rows / theirs.seconds);
        our_processor.push(ours.processor_seconds * 1e9 / rows);
        their_processor.push(theirs.processor_seconds * 1e9 / rows);
        let started = Instant::now();
        let scanned = probe::scan(&path)?;
        scan.push(rows / started.elapsed().as_secs_f64());
        Failure::unless_equal("the lines of a file and those found in it", &(workload.rows + 1), &scanned.line_count)?;
    }
    Ok(vec![
        Figure::paired(case, "ingest --in-memory", &engine, "rows/s", "peer-like baseline", &baseline),
        Figure::paired(case, "ingest --in-memory", &engine, "rows/s", "bare scan", &scan),
        Figure::paired(case, "processor time", &our_processor, "ns/row", "peer-like baseline", &their_processor),
    ])
}

/// Fails unless both came to the same counts and accounts.
fn agree(ours: &Job, theirs: &Job) -> Result<(), Failure> {
    Failure::unless_equal("the engine's counts of rows and the baseline's", &ours.counts, &theirs.counts)?;
    let differing = ours.accounts.iter().zip(&theirs.accounts).find(|(our, their)| our != their);
    let (our, their) = differing.unzip();
    Failure::unless_equal("an account of the engine and of the baseline", &our, &their)?;
    let (our_count, their_count) = (ours.accounts.len(), theirs.accounts.len());
    Failure::unless_equal("the engine's count of accounts and the baseline's", &our_count, &their_count)
}

/// What `bursar ingest --in-memory` does: all of a file, and all accounts written as CSV.
fn by_engine(path: &Path) -> Result<Job, Failure> {
    let (started, processor) = (Instant::now(), probe::processor_seconds());
    let mut taken = AccountsOnly::new(config());
    let counts = take_in_for_accounts(&mut taken, path)?;
    write_accounts(BufWriter::new(io::sink()), &taken.config().currencies, taken.accounts())?;
    let seconds = started.elapsed().as_secs_f64();
    let processor_seconds = probe::processor_seconds() - processor;
    let accounts = taken.accounts().map(|(customer, _, account, locked)| {
        (customer.bits(), account.available.steps(), account.held.steps(), locked)
    });
    Ok(Job { seconds, processor_seconds, counts, accounts: accounts.collect() })
}

fn by_baseline<Tx: for<'de> Deserialize<'de> + Eq + Hash + Copy>(path: &Path) -> Result<Job, Failure> {
    let (started, processor) = (Instant::now(), probe::processor_seconds());
    let mut baseline = Baseline::<Tx>::new();
    let counts = baseline.apply(File::open(path)?)?;
    baseline.write_accounts(BufWriter::new(io::sink()))?;
    let seconds = started.elapsed().as_secs_f64();
    let processor_seconds = probe::processor_seconds() - processor;
    Ok(Job { seconds, processor_seconds, counts, accounts: baseline.accounts()? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::workload::Workload;

    /// The ratio to the baseline means something only if both do the same job: here with rows that are repeated,
    /// refused for every reason there is, or cannot be read.
    #[test]
    fn the_baseline_and_the_engine_agree() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows");
        for (ids, seed) in [(Ids::Rising, 1), (Ids::Rising, 2), (Ids::Uuid, 3), (Ids::Uuid, 4)] {
            let workload = Workload { rows: 30_000, customers: 300, ids, seed, with_faults: true };
            workload.write_file(&path).unwrap();
            let ours = by_engine(&path).unwrap();
            let theirs = match ids {
                Ids::Rising => by_baseline::<u64>(&path),
                Ids::Uuid => by_baseline::<Uuid>(&path),
            };
            agree(&ours, &theirs.unwrap()).unwrap();
            let RowCounts { applied, already_applied, rejected, unreadable } = ours.counts;
            let least = [(applied, 10_000), (already_applied, 100), (rejected, 1000), (unreadable, 1000)];
            assert!(least.iter().all(|(count, least)| count > least), "{:?}", ours.counts);
            assert!(ours.accounts.iter().any(|account| account.3), "nobody was locked");
        }
    }

    #[test]
    fn an_account_that_differs_is_found() {
        let counts = RowCounts::default();
        let job =
            |available| Job { seconds: 1.0, processor_seconds: 1.0, counts, accounts: vec![(1, available, 0, false)] };
        assert!(agree(&job(5), &job(5)).is_ok());
        assert!(agree(&job(5), &job(6)).is_err());
        assert!(agree(&job(5), &Job { accounts: Vec::new(), ..job(5) }).is_err());
        let other = RowCounts { applied: 1, ..counts };
        assert!(agree(&job(5), &Job { counts: other, ..job(5) }).is_err());
    }
}
