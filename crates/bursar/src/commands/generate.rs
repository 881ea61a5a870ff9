//! `bursar generate`

use crate::exit::{Failure, note};
use crate::generate::{Plan, write_rows};
use crate::progress::{Progress, grouped, rows_per_second};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Instant;

/// Writes a workload. A file that is there already is replaced.
pub(crate) fn run(plan: &Plan, to: Option<&Path>, quiet: bool) -> Result<(), Failure> {
    let started = Instant::now();
    // Rows on the same terminal and a progress line would tear each other apart.
    let quiet = quiet || (to.is_none() && io::stdout().is_terminal());
    let mut progress = Progress::new(None, quiet);
    let on_progress = |bytes, rows| progress.update(bytes, rows);
    let counts = match to {
        Some(path) => File::create(path)
            .and_then(|mut file| write_rows(plan, &mut file, on_progress))
            .map_err(|error| Failure::write(path, &error))?,
        None => write_rows(plan, &mut io::stdout().lock(), on_progress).map_err(|error| Failure::stdout(&error))?,
    };
    progress.finish();
    if !quiet {
        let rate = rows_per_second(plan.rows, started.elapsed());
        note(&format_args!("{} rows, {} rows/s; {}", grouped(plan.rows), grouped(rate), counts.sentence()));
    }
    Ok(())
}
