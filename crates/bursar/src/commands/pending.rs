//! `bursar pending`

use crate::book::{Waiting, with_book};
use crate::cli::Global;
use crate::exit::Failure;
use crate::output::{Cell, Column, Format, Records, stdout};
use crate::shown::{Money, Time};
use bursar_client::{PendingList, Waits};
use std::io;

const COLUMNS: &[Column] = &[
    Column::left("event"),
    Column::left("client"),
    Column::right("seq"),
    Column::left("kind"),
    Column::left("tx"),
    Column::left("currency"),
    Column::right("amount"),
    Column::left("rail"),
    Column::left("since"),
    Column::left("deadline"),
    // From here on: what only the process knows that calls rails.
    Column::left("asking"),
    Column::left("next_call"),
    Column::right("calls"),
    Column::left("last_answer"),
    Column::right("behind"),
];

/// How many of the columns a directory has.
const COLUMNS_OF_DIRECTORY: usize = 10;

/// Prints the events that wait for their rails, the oldest first. This process has called none of them.
pub(crate) fn run(global: &Global, list: &PendingList, format: Format) -> Result<(), Failure> {
    with_book(global, |book| {
        let all = book.pending(global, list)?;
        let is_served = global.server.is_some();
        print(&all, is_served, Money(book.currencies()), format).map_err(|error| Failure::stdout(&error))
    })
}

fn print(all: &[Waiting], is_served: bool, money: Money<'_>, format: Format) -> io::Result<()> {
    let columns = if is_served { COLUMNS } else { &COLUMNS[..COLUMNS_OF_DIRECTORY] };
    let mut records = Records::list(format, columns, stdout())?;
    for waiting in all {
        let Waiting { event, kind, transaction, currency, amount, rail, since_ms, deadline_ms, waits } = waiting;
        let (since, deadline, amount) = (Time(*since_ms), deadline_ms.map(Time), money.amount(*currency, *amount));
        let next_call = waits.as_ref().and_then(|waits| waits.next_call);
        let mut cells = vec![
            Cell::Shown(&event.id),
            Cell::Shown(&event.customer),
            Cell::Count(event.seq),
            Cell::Text(kind.name()),
            transaction.as_ref().map_or(Cell::Empty, |transaction| Cell::Shown(transaction)),
            Cell::Text(money.code(*currency)),
            Cell::Shown(&amount),
            Cell::Text(rail),
            Cell::Shown(&since),
            deadline.as_ref().map_or(Cell::Empty, |deadline| Cell::Shown(deadline)),
        ];
        if let Some(Waits { asking, calls, last_answer, requests_behind, .. }) = waits {
            cells.extend([
                Cell::Text(asking.name()),
                next_call.as_ref().map_or(Cell::Empty, |time| Cell::Shown(time)),
                Cell::Count((*calls).into()),
                last_answer.as_ref().map_or(Cell::Empty, |answer| Cell::Text(&answer.said)),
                Cell::Count(*requests_behind),
            ]);
        }
        records.row(&cells)?;
    }
    records.finish()
}
