//! `bursar transaction`: one row for every event that touched it, each with the transaction as it stands.

use crate::book::{TransactionView, with_book};
use crate::cli::Global;
use crate::engine_failure::not_there;
use crate::exit::Failure;
use crate::output::{Cell, Column, Format, Records, stdout};
use crate::shown::{CURRENCY, Money, Time};
use bursar_core::{Rejection, TransactionId};
use std::io;

const COLUMNS: &[Column] = &[
    Column::left("tx"),
    Column::left("client"),
    Column::left("kind"),
    CURRENCY,
    Column::right("amount"),
    Column::left("state"),
    Column::right("seq"),
    Column::left("status"),
    Column::left("time"),
    Column::left("event"),
    Column::left("id"),
    Column::left("hash"),
];

/// Prints a transaction.
pub(crate) fn run(global: &Global, transaction: TransactionId, format: Format) -> Result<(), Failure> {
    with_book(global, |book| {
        let view = book.transaction(transaction)?.ok_or_else(|| {
            let sentence = format!("no deposit or withdrawal with the id {transaction} was ever accepted");
            not_there(&Rejection::UnknownTransaction, sentence)
        })?;
        print(Money(book.currencies()), transaction, &view, format).map_err(|error| Failure::stdout(&error))
    })
}

fn print(money: Money<'_>, transaction: TransactionId, view: &TransactionView, format: Format) -> io::Result<()> {
    let columns = money.columns(COLUMNS);
    let mut records = Records::list(format, &columns, stdout())?;
    let amount = money.amount(view.currency, view.amount);
    for entry in &view.events {
        let time = Time(entry.time_ms);
        let mut cells = vec![Cell::Shown(&transaction), Cell::Shown(&view.customer), Cell::Text(&view.kind)];
        cells.extend(money.currency(view.currency));
        cells.push(Cell::Shown(&amount));
        cells.push(view.state.as_deref().map_or(Cell::Empty, Cell::Text));
        cells.extend([Cell::Count(entry.seq), Cell::Text(entry.status), Cell::Shown(&time)]);
        cells.extend([Cell::Text(entry.kind.name()), Cell::Shown(&entry.id), Cell::Shown(&entry.hash)]);
        records.row(&cells)?;
    }
    records.finish()
}
