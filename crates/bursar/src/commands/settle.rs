//! `bursar settle`

use crate::book::{SettledView, with_book};
use crate::checked::Settle;
use crate::cli::Global;
use crate::exit::Failure;
use crate::output::{Cell, Column, Format, Records, stdout};
use std::io;

const COLUMNS: &[Column] = &[
    Column::left("client"),
    Column::right("seq"),
    Column::left("event"),
    Column::left("status"),
    Column::left("reason"),
];

/// Settles an event by hand and prints how it stands, which is durable then.
pub(crate) fn run(global: &Global, settle: &Settle, format: Format) -> Result<(), Failure> {
    with_book(global, |book| {
        let settled = book.settle(settle.event, &settle.settlement)?;
        print(&settled, format).map_err(|error| Failure::stdout(&error))
    })
}

fn print(settled: &SettledView, format: Format) -> io::Result<()> {
    let mut records = Records::list(format, COLUMNS, stdout())?;
    let SettledView { event, status, reason } = settled;
    records.row(&[
        Cell::Shown(&event.customer),
        Cell::Count(event.seq),
        Cell::Shown(&event.id),
        Cell::Text(status),
        Cell::Text(reason),
    ])?;
    records.finish()
}
