//! The command line, and what runs behind it.

use crate::cases::{Bench, Case, Options};
use crate::failure::Failure;
use crate::machine::Machine;
use crate::report::{self, Format};
use crate::steps::Step;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::io;
use std::path::PathBuf;

/// How many transactions `--long` takes.
const LONG_ROWS: u64 = 100_000_000;
const QUICK_ROWS: u64 = 20_000;

#[derive(Debug, Parser)]
#[command(name = "bursar-bench", version, about = "Measures Bursar, every figure beside its limit or its peer")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure cases, all of them if none is named
    Run(RunArgs),
    /// Say what the cases and the steps are
    List,
    /// Do one fixed piece of work, for an instruction counter around it (see `.ci/instructions`)
    Steps {
        /// Which piece
        #[arg(long, value_name = "NAME")]
        only: Step,
        /// How often; 0 only prepares, so that the difference is the work
        #[arg(long, value_name = "N", default_value_t = 1)]
        times: u64,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The cases; see `list`
    #[arg(value_name = "CASE")]
    cases: Vec<Case>,
    /// How many rows files have
    #[arg(long, value_name = "N", default_value = "4_000_000", value_parser = count)]
    rows: u64,
    /// How many customers there are where the case has many; otherwise one for five rows, 10 million at the most
    #[arg(long, value_name = "N", value_parser = count)]
    customers: Option<u64>,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value = "3", value_parser = count)]
    rounds: u64,
    /// What the workloads follow from
    #[arg(long, value_name = "N", default_value = "1", value_parser = seed)]
    seed: u64,
    /// Where to work; needs about 250 bytes per row. What is made there is removed
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// 100 million rows for the case `growth`
    #[arg(long)]
    long: bool,
    /// Tiny inputs and one round: tries out that everything works
    #[arg(long, conflicts_with_all = ["rows", "rounds", "long"])]
    quick: bool,
    /// How to print: a table on a terminal, otherwise CSV
    #[arg(long, value_name = "FORMAT")]
    output: Option<Format>,
}

fn seed(text: &str) -> Result<u64, String> {
    text.replace('_', "").parse().map_err(|error| format!("{error}"))
}

fn count(text: &str) -> Result<u64, String> {
    match seed(text)? {
        0 => Err("it must be at least 1".to_owned()),
        count => Ok(count),
    }
}

/// Does what was asked.
pub(crate) fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Run(args) => measure(args),
        Command::List => {
            for case in Case::value_variants() {
                println!("{:16} {}", case.name(), case.about());
            }
            println!();
            for step in Step::value_variants() {
                println!("steps --only {:16} {} × {}", step.name(), step.unit_count(), step.unit());
            }
            Ok(())
        }
        Command::Steps { only, times } => {
            let checked = only.run(*times)?;
            println!("{} {checked}", only.unit_count());
            Ok(())
        }
    }
}

fn measure(args: &RunArgs) -> Result<(), Failure> {
    let rows = if args.quick { QUICK_ROWS } else { args.rows };
    let options = Options {
        rows,
        long_rows: if args.long { LONG_ROWS } else { rows },
        customers: args.customers.unwrap_or((rows / 5).clamp(1, 10_000_000)),
        rounds: if args.quick { 1 } else { args.rounds },
        seed: args.seed,
        quick: args.quick,
    };
    let parent = args.directory.clone().unwrap_or_else(std::env::temp_dir);
    let mut bench = Bench::new(options, &parent)?;
    eprintln!("the machine …");
    let machine = Machine::measure(&mut bench)?;
    let cases = if args.cases.is_empty() { Case::value_variants() } else { &args.cases[..] };
    let mut figures = Vec::new();
    for case in cases {
        eprintln!("{} …", case.name());
        figures.extend(case.measure(&mut bench)?);
    }
    report::print(Format::choose(args.output), &machine, &figures, io::stdout().lock())
}
