//! `bursar transaction`: one row for every event that touched it, each with the transaction as it stands.

use crate::cli::Global;
use crate::engine_failure::not_there;
use crate::exit::Failure;
use crate::ledger_dir::with_ledger;
use crate::output::{Align, Cell, Column, Format, Records, stdout};
use crate::shown::{Money, Time};
use bursar_core::{Rejection, TransactionId, TransactionState};
use bursar_engine::store::{ChainEntry, ReadRange};
use bursar_engine::{Ledger, TransactionView};
use std::io;

const fn left(name: &'static str) -> Column {
    Column { name, align: Align::Left }
}

const fn right(name: &'static str) -> Column {
    Column { name, align: Align::Right }
}

const COLUMNS: &[Column] = &[
    left("tx"),
    left("client"),
    left("kind"),
    right("amount"),
    left("state"),
    right("seq"),
    left("status"),
    left("time"),
    left("event"),
    left("id"),
    left("hash"),
];

const COLUMNS_WITH_CURRENCY: &[Column] = &[
    left("tx"),
    left("client"),
    left("kind"),
    left("currency"),
    right("amount"),
    left("state"),
    right("seq"),
    left("status"),
    left("time"),
    left("event"),
    left("id"),
    left("hash"),
];

/// Prints a transaction.
pub(crate) fn run(global: &Global, transaction: TransactionId, format: Format) -> Result<(), Failure> {
    with_ledger(global, |ledger| {
        let unknown = || {
            let sentence = format!("no deposit or withdrawal with the id {transaction} was ever accepted");
            not_there(&Rejection::UnknownTransaction, sentence)
        };
        let view = ledger.transaction(transaction)?.ok_or_else(unknown)?;
        let shown = view.state.or(view.pending.map(|pending| pending.state)).ok_or_else(unknown)?;
        let events = events_of(ledger, &view)?;
        let money = Money(&ledger.config().currencies);
        print(money, transaction, &shown, &view, &events, format).map_err(|error| Failure::stdout(&error))
    })
}

fn events_of(ledger: &Ledger, view: &TransactionView) -> Result<Vec<ChainEntry>, Failure> {
    let mut entries = Vec::with_capacity(view.events.len());
    for event in &view.events {
        let range = ReadRange { from_seq: event.seq, to_seq: event.seq, limit: 1, newest_first: true };
        entries.extend(ledger.chain(event.customer, range)?);
    }
    Ok(entries)
}

fn print(
    money: Money<'_>,
    transaction: TransactionId,
    shown: &TransactionState,
    view: &TransactionView,
    events: &[ChainEntry],
    format: Format,
) -> io::Result<()> {
    let columns = if money.has_several() { COLUMNS_WITH_CURRENCY } else { COLUMNS };
    let mut records = Records::list(format, columns, stdout())?;
    let amount = money.amount(shown.currency, shown.amount);
    for entry in events {
        let event = &entry.linked.event;
        let (time, id) = (Time(event.time_ms), entry.linked.id());
        let mut cells = vec![Cell::Shown(&transaction), Cell::Shown(&shown.customer), Cell::Text(shown.kind.name())];
        cells.extend(money.has_several().then(|| Cell::Text(money.code(shown.currency))));
        cells.push(Cell::Shown(&amount));
        // None while its first event is open: nothing of it is in effect.
        cells.push(view.state.map_or(Cell::Empty, |state| Cell::Text(state.status.name())));
        cells.extend([Cell::Count(event.seq), Cell::Text(entry.status.name()), Cell::Shown(&time)]);
        cells.extend([Cell::Text(event.kind.name()), Cell::Shown(&id), Cell::Shown(&entry.linked.hash)]);
        records.row(&cells)?;
    }
    records.finish()
}
