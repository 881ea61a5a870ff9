//! `bursar unlock`

use crate::cli::Global;
use crate::engine_failure::rejected;
use crate::exit::Failure;
use crate::ledger_dir::with_ledger;
use crate::output::{Align, Cell, Column, Format, Records, stdout};
use crate::shown::Time;
use bursar_core::commit::{Outcome, Receipt};
use bursar_core::{CustomerId, Request};
use std::io;

const COLUMNS: &[Column] = &[
    Column { name: "client", align: Align::Left },
    Column { name: "seq", align: Align::Right },
    Column { name: "time", align: Align::Left },
    Column { name: "locked", align: Align::Left },
    Column { name: "id", align: Align::Left },
    Column { name: "hash", align: Align::Left },
];

/// Unlocks a customer and prints the receipt, which is durable then.
pub(crate) fn run(global: &Global, customer: CustomerId, format: Format) -> Result<(), Failure> {
    with_ledger(global, |ledger| match ledger.submit(Request::unlock(customer))? {
        Outcome::Applied(receipt) => print(&receipt, format).map_err(|error| Failure::stdout(&error)),
        // An unlock has no id of its own by which it could be known.
        Outcome::AlreadyApplied(_) => Ok(()),
        Outcome::Rejected(rejection) => Err(rejected(&rejection, &ledger.config().currencies)),
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
