//! `bursar pending`

use crate::cli::Global;
use crate::config;
use crate::exit::Failure;
use crate::ledger_dir::with_ledger;
use crate::output::{Align, Cell, Column, Format, Records, stdout};
use crate::shown::{Money, Time};
use bursar_engine::PendingEvent;
use bursar_rails::settings::Checked;
use std::io;

const fn left(name: &'static str) -> Column {
    Column { name, align: Align::Left }
}

const COLUMNS: &[Column] = &[
    left("event"),
    left("client"),
    Column { name: "seq", align: Align::Right },
    left("kind"),
    left("tx"),
    left("currency"),
    Column { name: "amount", align: Align::Right },
    left("rail"),
    left("since"),
    left("deadline"),
];

/// Prints the events that wait for their rails, the oldest first. This process has called none of them.
pub(crate) fn run(global: &Global, format: Format) -> Result<(), Failure> {
    let settings = config::without_secrets(global)?;
    with_ledger(global, |ledger| {
        let money = Money(&ledger.config().currencies);
        print(&ledger.pending()?, &settings, money, format).map_err(|error| Failure::stdout(&error))
    })
}

fn print(pending: &[PendingEvent], settings: &Checked, money: Money<'_>, format: Format) -> io::Result<()> {
    let mut records = Records::list(format, COLUMNS, stdout())?;
    for waiting in pending {
        let linked = &waiting.pending.linked;
        let event = &linked.event;
        let rail = settings.rails.iter().find(|rail| rail.id == waiting.pending.rail);
        let number = waiting.pending.rail.number();
        let name = rail.map_or_else(|| format!("{number} (not in bursar.toml)"), |rail| rail.name.clone());
        let deadline_ms = rail.and_then(|rail| rail.schedule.deadline_ms);
        let deadline = deadline_ms.map(|deadline_ms| Time(event.time_ms.saturating_add(deadline_ms)));
        let (id, since) = (linked.id(), Time(event.time_ms));
        let amount = money.amount(event.currency, event.amount);
        records.row(&[
            Cell::Shown(&id),
            Cell::Shown(&event.customer),
            Cell::Count(event.seq),
            Cell::Text(event.kind.name()),
            event.transaction.as_ref().map_or(Cell::Empty, |transaction| Cell::Shown(transaction)),
            Cell::Text(money.code(event.currency)),
            Cell::Shown(&amount),
            Cell::Text(&name),
            Cell::Shown(&since),
            deadline.as_ref().map_or(Cell::Empty, |deadline| Cell::Shown(deadline)),
        ])?;
    }
    records.finish()
}
