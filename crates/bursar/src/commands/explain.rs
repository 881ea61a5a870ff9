//! `bursar explain`

use crate::codes::{CodeInfo, all_codes, near};
use crate::exit::{Failure, FailureKind};
use crate::output::{Cell, Column, Format, Records, stdout};
use std::io;

const COLUMNS: &[Column] =
    &[Column::left("code"), Column::left("origin"), Column::left("meaning"), Column::left("hint")];

/// Prints what a code means, or all codes.
pub(crate) fn run(code: Option<&str>, format: Format) -> Result<(), Failure> {
    let printed = match code {
        None => print_all(format),
        Some(written) => {
            // As people copy it: in brackets, with hyphens, in capitals.
            let wanted = written.trim_matches(['[', ']', '`', '\'', ' ']).to_ascii_lowercase().replace(['-', ' '], "_");
            match all_codes().find(|info| info.code == wanted) {
                Some(info) => print_one(&info, format),
                None => return Err(unknown(written, &wanted)),
            }
        }
    };
    printed.map_err(|error| Failure::stdout(&error))
}

fn print_all(format: Format) -> io::Result<()> {
    let mut records = Records::list(format, COLUMNS, stdout())?;
    all_codes().try_for_each(|info| records.row(&cells(&info)))?;
    records.finish()
}

fn print_one(info: &CodeInfo, format: Format) -> io::Result<()> {
    let mut records = Records::single(format, COLUMNS, stdout())?;
    records.row(&cells(info))?;
    records.finish()
}

const fn cells(info: &CodeInfo) -> [Cell<'static>; 4] {
    [Cell::Text(info.code), Cell::Text(info.origin.name()), Cell::Text(info.meaning), Cell::Text(info.hint)]
}

fn unknown(written: &str, wanted: &str) -> Failure {
    let failure = Failure::new(FailureKind::UnknownCode, format!("there is no code '{written}'"));
    match near(wanted).as_slice() {
        [] => failure,
        codes => failure.with_hint(format!("Was it {}? `bursar explain` lists all codes.", codes.join(", or "))),
    }
}
