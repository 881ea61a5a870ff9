//! `bursar doctor`: whether a directory and its machine are fit for a ledger, and what to do where they are not.
//!
//! It takes no lock, opens no ledger, and changes nothing but for a file of its own, which it removes: it can be run
//! beside a service. What the ledger holds is `bursar verify`'s.

mod directory;
mod disk;
mod machine;

use crate::cli::Global;
use crate::exit::{Failure, FailureKind};
use crate::output::{Cell, Column, Format, Records, stdout};
use std::io;

const COLUMNS: &[Column] = &[Column::left("check"), Column::left("verdict"), Column::left("found"), Column::left("do")];

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    Warning,
    Failure,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do; empty where nothing is to be done.
    todo: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), todo: String::new() }
    }

    fn warning(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, found: found.into(), todo: todo.into() }
    }

    fn failure(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Failure, found: found.into(), todo: todo.into() }
    }
}

/// Looks at everything, prints all findings, and fails if one is a failure.
pub(crate) fn run(global: &Global, format: Format) -> Result<(), Failure> {
    let data = &global.data;
    let mut findings = Vec::new();
    let is_there = directory::look(data, &mut findings);
    if is_there {
        disk::look(data, &mut findings);
    }
    machine::look(global.memory, &mut findings);
    print(format, &findings).map_err(|error| Failure::stdout(&error))?;
    let count = findings.iter().filter(|finding| finding.verdict == Verdict::Failure).count();
    if count == 0 {
        return Ok(());
    }
    let failures = if count == 1 { "1 failure".to_owned() } else { format!("{count} failures") };
    Err(Failure::new(FailureKind::NotFit, format!("{failures} in {}", data.display())))
}

fn print(format: Format, findings: &[Finding]) -> io::Result<()> {
    let mut records = Records::list(format, COLUMNS, stdout())?;
    for Finding { check, verdict, found, todo } in findings {
        let todo = if todo.is_empty() { Cell::Empty } else { Cell::Text(todo) };
        records.row(&[Cell::Text(check), Cell::Text(verdict.name()), Cell::Text(found), todo])?;
    }
    records.finish()
}

/// A size for people, rounded down.
fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}
