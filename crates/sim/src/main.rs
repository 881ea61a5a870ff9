//! `bursar-sim`: runs seeds, replays one, proves that runs are deterministic and that planted bugs are caught.
//!
//! stdout carries what was found and counted; progress goes to stderr. Exit codes: 0 nothing was found, 1 something
//! was, 2 the command line is wrong.

use bursar_sim::run::{run_many, run_once, run_traced};
use bursar_sim::scenario::{Scenario, Stores};
use bursar_sim::shrink::shrink;
use bursar_sim::witness::Witness;
use clap::{Parser, Subcommand, ValueEnum};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[derive(Debug, Parser)]
#[command(name = "bursar-sim", version, about = "The real engine in a world of faults, deterministic by seed")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Where {
    Embedded,
    Split,
    Mixed,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many seeds; stop at the first finding and shrink it
    Run {
        /// How many seeds
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first seed
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// Only runs with these stores
        #[arg(long)]
        stores: Option<Where>,
        /// How many threads; one per core, if not given
        #[arg(long)]
        threads: Option<usize>,
    },
    /// Run one seed and print its trace
    Replay {
        /// The seed
        #[arg(long)]
        seed: u64,
        /// Only with these stores
        #[arg(long)]
        stores: Option<Where>,
        /// Leave in only these steps of the time of faults
        #[arg(long, value_delimiter = ',')]
        steps: Option<Vec<u64>>,
    },
    /// Run each of many seeds twice and compare every byte of both traces
    Twice {
        /// How many seeds
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first seed
        #[arg(long, default_value_t = 0)]
        first: u64,
    },
    /// Prove that every planted bug is caught (needs the feature `planted`)
    #[cfg(feature = "planted")]
    Power {
        /// Within how many seeds each bug must be caught
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// Only the bugs whose names contain this
        #[arg(long)]
        only: Option<String>,
        /// Only runs with these stores
        #[arg(long)]
        stores: Option<Where>,
        /// How many threads; one per core, if not given
        #[arg(long)]
        threads: Option<usize>,
    },
}

fn stores(of: Option<Where>) -> Option<Stores> {
    of.map(|of| match of {
        Where::Embedded => Stores::Embedded,
        Where::Split => Stores::Split,
        Where::Mixed => Stores::Mixed,
    })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The shortest command that runs a scenario again.
fn replay_command(scenario: &Scenario) -> String {
    let stores = match scenario.stores {
        None => "",
        Some(Stores::Embedded) => " --stores embedded",
        Some(Stores::Split) => " --stores split",
        Some(Stores::Mixed) => " --stores mixed",
    };
    let steps = scenario.steps.as_ref().map_or(String::new(), |steps| {
        let steps: Vec<String> = steps.iter().map(u64::to_string).collect();
        format!(" --steps {}", if steps.is_empty() { "0".to_owned() } else { steps.join(",") })
    });
    format!("cargo run --profile sim -p bursar-sim -- replay --seed {}{stores}{steps}", scenario.seed)
}

fn main() -> ExitCode {
    // A panic of the engine is a finding; it is told with its run.
    std::panic::set_hook(Box::new(|_| {}));
    match Cli::parse().command {
        Command::Run { seeds, first, stores: of, threads } => {
            run_seeds(first, seeds, stores(of), threads.unwrap_or_else(cores))
        }
        Command::Replay { seed, stores: of, steps } => {
            let scenario = Scenario { seed, stores: stores(of), steps };
            let (trace, _, result) = run_traced(&scenario);
            print!("{trace}");
            match result {
                Ok(()) => {
                    println!("nothing was found");
                    ExitCode::SUCCESS
                }
                Err(violation) => {
                    println!("FOUND: {}", violation.0);
                    ExitCode::FAILURE
                }
            }
        }
        Command::Twice { seeds, first } => run_twice(first, seeds),
        #[cfg(feature = "planted")]
        Command::Power { seeds, only, stores: of, threads } => {
            power(seeds, only.as_deref(), stores(of), threads.unwrap_or_else(cores))
        }
    }
}

fn run_seeds(first: u64, seeds: u64, stores: Option<Stores>, threads: usize) -> ExitCode {
    let begun = Instant::now();
    let done = AtomicU64::new(0);
    let summary = run_many(first, seeds, stores, threads, &|_| {
        let count = done.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_multiple_of(10_000) {
            eprintln!("{count} seeds");
        }
    });
    for (what, count) in &summary.counts {
        println!("{count:>12}  {what}");
    }
    let seconds = begun.elapsed().as_secs().max(1);
    println!("{:>12}  seeds from {first} on, {} per second on {threads} threads", summary.runs, summary.runs / seconds);
    let Some(found) = summary.found else {
        println!("nothing was found");
        return ExitCode::SUCCESS;
    };
    println!("FOUND with seed {}: {}", found.scenario.seed, found.what);
    println!("  {}", replay_command(&found.scenario));
    eprintln!("shrinking");
    let short = shrink(&found.scenario, 2000);
    let (trace, _, result) = run_traced(&short);
    println!("{trace}");
    println!("{}", result.err().map_or_else(|| "it does not fail again".to_owned(), |violation| violation.0));
    println!("  {}", replay_command(&short));
    ExitCode::FAILURE
}

fn run_twice(first: u64, seeds: u64) -> ExitCode {
    let mut bytes = 0;
    for seed in first..first.saturating_add(seeds) {
        let scenario = Scenario::of(seed);
        let (one, _, _) = run_traced(&scenario);
        let (two, _, _) = run_traced(&scenario);
        if one != two {
            let line = one.lines().zip(two.lines()).position(|(one, two)| one != two).map_or(0, |line| line + 1);
            println!("seed {seed} is not the same twice; the traces differ from line {line} on");
            return ExitCode::FAILURE;
        }
        if run_once(&scenario, &Witness::default()).is_err() {
            println!("seed {seed} finds something");
            return ExitCode::FAILURE;
        }
        bytes += one.len();
    }
    println!("{seeds} seeds, each the same twice: {bytes} bytes of trace compared");
    ExitCode::SUCCESS
}

#[cfg(feature = "planted")]
fn power(seeds: u64, only: Option<&str>, stores: Option<Stores>, threads: usize) -> ExitCode {
    use bursar_engine::core::planted::Planted;
    let mut missed = 0;
    println!("{:<26} {:>6}  what was found", "planted", "seeds");
    for planted in Planted::ALL {
        let name = format!("{planted:?}");
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        if let Some((count, found)) = bursar_sim::power::catch(planted, seeds, stores, threads).found {
            let what: String = found.what.chars().take(110).collect();
            println!("{name:<26} {count:>6}  {what}");
        } else {
            missed += 1;
            println!("{name:<26} {:>6}  NOT CAUGHT within {seeds} seeds", "-");
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
