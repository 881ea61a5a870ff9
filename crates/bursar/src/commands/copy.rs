//! `bursar copy`: a whole ledger from one place to another.

use crate::checked::CopyLedger;
use crate::cli::Global;
use crate::exit::{Failure, FailureKind};
use crate::output::{Format, stdout};
use crate::pairs::{Entry, Value, print};
use crate::stores::copy::{Place, copy_ledger};

/// Copies, compares, and says what came of it.
pub(crate) fn run(global: &Global, asked: &CopyLedger, format: Format) -> Result<(), Failure> {
    let (from, to) = (Place::find(&asked.from)?, Place::find(&asked.to)?);
    let report = copy_ledger(global, &from, &to)?;
    let count = |count| Entry::One(Value::Count(count));
    let entries = [
        ("ledger", Entry::One(Value::Text(format!("{:032x}", u128::from_be_bytes(report.ledger))))),
        ("from", Entry::One(Value::shown(&from))),
        ("to", Entry::One(Value::shown(&to))),
        ("customers", count(report.copied.customers)),
        ("copied_events", count(report.copied.events)),
        ("closed_events", count(report.copied.closed)),
        ("open_events", count(report.copied.open)),
        ("rounds", count(report.rounds)),
        ("equal", Entry::One(Value::Flag(report.is_equal))),
    ];
    print(format, &entries, stdout()).map_err(|error| Failure::stdout(&error))?;
    if report.is_equal {
        return Ok(());
    }
    Err(Failure::new(FailureKind::CopyBehind, format!("{from} went on while it was copied")))
}
