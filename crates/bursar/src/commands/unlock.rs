//! `bursar unlock`

use crate::book::{Under, with_book};
use crate::cli::Global;
use crate::exit::Failure;
use crate::output::{Cell, Column, Format, Records, stdout};
use crate::shown::Time;
use bursar_core::commit::Receipt;
use bursar_core::{CustomerId, Request};
use std::io;

const COLUMNS: &[Column] = &[
    Column::left("client"),
    Column::right("seq"),
    Column::left("time"),
    Column::left("locked"),
    Column::left("id"),
    Column::left("hash"),
];

/// Unlocks a customer and prints the receipt, which is durable then.
pub(crate) fn run(
    global: &Global,
    customer: CustomerId,
    idempotency_key: Option<String>,
    format: Format,
) -> Result<(), Failure> {
    let under = Under { key: idempotency_key, ..Under::default() };
    with_book(global, |book| {
        let receipt = book.submit(global, Request::unlock(customer), &under)?.receipt;
        print(&receipt, format).map_err(|error| Failure::stdout(&error))
    })
}

fn print(receipt: &Receipt, format: Format) -> io::Result<()> {
    let mut records = Records::list(format, COLUMNS, stdout())?;
    let Receipt { event, hash, time_ms, locked, .. } = receipt;
    records.row(&[
        Cell::Shown(&event.customer),
        Cell::Count(event.seq),
        Cell::Shown(&Time(*time_ms)),
        Cell::Flag(*locked),
        Cell::Shown(&event.id),
        Cell::Shown(hash),
    ])?;
    records.finish()
}
