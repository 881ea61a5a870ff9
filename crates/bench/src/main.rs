//! `bursar-bench`: measures Bursar, every figure beside its limit or its peer, taken in the same run.
//!
//! ```text
//! cli ─► cases: (workload, engine) ⇄ (baseline, probe) ─► contest: rounds, medians ─► report: table, JSON, CSV
//!                                                 machine: where it ran ─────────────────┘
//! cli ─► steps: fixed pieces of work, to be counted under callgrind (`.ci/instructions`)
//! ```
//!
//! stdout carries results; progress goes to stderr. Exit codes: 0 everything was measured (whether or not a goal was
//! met), 1 something failed, or two that should agree do not, 2 the command line is wrong.
//!
//! What it does not do: assert a time. What each case compares is in `docs/performance.md`.

#![allow(clippy::float_arithmetic, clippy::cast_precision_loss)] // figures for people; there is no money in them

mod baseline;
mod cases;
mod cli;
mod contest;
mod failure;
mod machine;
mod probe;
mod report;
mod steps;
mod traced_disk;
mod workload;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(&cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
