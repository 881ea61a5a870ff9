//! What it costs to have the transactions table elsewhere: a whole ledger in a directory, and chains alone in a
//! directory with a table in memory, take the same deposits in turn.
//!
//! `cargo run --release -p bursar-engine --example pair`, with `-- ROUNDS` for more than five rounds. The table in memory
//! costs next to nothing, so that the difference is that of the way: four steps for each batch in place of one, two
//! records for each event in place of one. The machine's other work shows in both; the ratio is what counts.
#![allow(clippy::float_arithmetic, clippy::cast_precision_loss)] // figures for people; there is no money in them

use bursar_engine::core::{Amount, Currencies, CustomerId, LedgerConfig, Policy, Request, TransactionId};
use bursar_engine::embedded::EmbeddedChains;
use bursar_engine::store::MemoryStore;
use bursar_engine::{Ledger, LedgerOptions, new_config};
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

/// Requests of a call, and how many calls are under way at a time.
const REQUESTS_PER_CALL: u128 = 1_000;
const UNDER_WAY: usize = 16;
const CUSTOMERS: u128 = 50_000;

/// A directory that is gone when it is dropped.
struct Sandbox(std::path::PathBuf);

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}

fn pair(directory: &Path, config: &LedgerConfig) -> Result<Ledger, Box<dyn Error>> {
    let options = LedgerOptions::default();
    let chains = Arc::new(EmbeddedChains::create(directory, config, options.embedded)?);
    let table = Arc::new(MemoryStore::new(config).with_split_batches());
    Ok(Ledger::with_stores(config.clone(), chains, table, options)?)
}

/// Submits a round's deposits in so many calls; gives how many per second were durable and answered.
fn round(ledger: &Ledger, calls: u128, number: u128) -> Result<f64, Box<dyn Error>> {
    let started = Instant::now();
    let (told, answers) = channel();
    let mut under_way = 0;
    for call in 0..calls {
        let first = (number * calls + call) * REQUESTS_PER_CALL;
        let deposit = |n: u128| {
            let customer = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % CUSTOMERS;
            Request::deposit(CustomerId::new(customer), TransactionId::new(n), Amount::from_steps(100))
        };
        let requests = (first..first + REQUESTS_PER_CALL).map(deposit).collect();
        let told = told.clone();
        // If the receiver is gone, so is this round.
        ledger.submit_then(requests, move |submitted| drop(told.send(submitted)))?;
        under_way += 1;
        while under_way >= UNDER_WAY || (call + 1 == calls && under_way > 0) {
            for submitted in answers.recv()? {
                submitted?;
            }
            under_way -= 1;
        }
    }
    Ok((calls * REQUESTS_PER_CALL) as f64 / started.elapsed().as_secs_f64())
}

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: u128 = std::env::args().nth(1).map_or(Ok(5), |rounds| rounds.parse())?;
    let sandbox = Sandbox(std::env::current_dir()?.join(format!("pair-{}.tmp", std::process::id())));
    run(&sandbox.0, rounds, 100, &mut std::io::stdout())
}

pub(crate) fn run(directory: &Path, rounds: u128, calls: u128, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let config = new_config(Policy::default(), Currencies::default())?;
    let whole = Ledger::create(&directory.join("whole"), &config, LedgerOptions::default())?;
    let mixed = pair(&directory.join("chains"), &config)?;
    writeln!(out, "{} processors, debug assertions {}", std::thread::available_parallelism()?, cfg!(debug_assertions))?;
    let mut ratios = Vec::new();
    for number in 0..rounds {
        let (of_whole, of_mixed) = (round(&whole, calls, number)?, round(&mixed, calls, number)?);
        let ratio = of_mixed / of_whole;
        ratios.push(ratio);
        writeln!(out, "whole ledger {of_whole:>9.0}/s   chains alone, table in memory {of_mixed:>9.0}/s   {ratio:.2}")?;
    }
    ratios.sort_by(f64::total_cmp);
    let middle = ratios.get(ratios.len() / 2).ok_or("at least one round")?;
    let events = (rounds * calls * REQUESTS_PER_CALL) as f64;
    let bytes = |ledger: &Ledger| ledger.figures().store.map_or(0.0, |store| store.journal_bytes as f64 / events);
    writeln!(out, "median ratio {middle:.2}; journal bytes per event {:.0} and {:.0}", bytes(&whole), bytes(&mixed))?;
    whole.close()?;
    Ok(mixed.close()?)
}
