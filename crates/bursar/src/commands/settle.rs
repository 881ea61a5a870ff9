//! `bursar settle`

use crate::checked::Settle;
use crate::cli::Global;
use crate::exit::Failure;
use crate::ledger_dir::with_ledger;
use crate::output::{Align, Cell, Column, Format, Records, stdout};
use bursar_engine::Settled;
use std::io;

const COLUMNS: &[Column] = &[
    Column { name: "client", align: Align::Left },
    Column { name: "seq", align: Align::Right },
    Column { name: "event", align: Align::Left },
    Column { name: "status", align: Align::Left },
    Column { name: "reason", align: Align::Left },
];

/// Settles an event by hand and prints how it stands, which is durable then.
pub(crate) fn run(global: &Global, settle: &Settle, format: Format) -> Result<(), Failure> {
    with_ledger(global, |ledger| {
        let settled = ledger.settle(settle.event, settle.settlement.clone())?;
        print(&settled, format).map_err(|error| Failure::stdout(&error))
    })
}

fn print(settled: &Settled, format: Format) -> io::Result<()> {
    let mut records = Records::list(format, COLUMNS, stdout())?;
    let Settled { event, status, .. } = settled;
    records.row(&[
        Cell::Shown(&event.customer),
        Cell::Count(event.seq),
        Cell::Shown(&event.id),
        Cell::Text(status.name()),
        Cell::Text(status.by_hand().unwrap_or_default()),
    ])?;
    records.finish()
}
