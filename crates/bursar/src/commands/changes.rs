//! The report of `bursar ingest --dry-run`: the accounts that would change, as they would be, with by how much.

use super::accounts::Customers;
use crate::exit::Failure;
use crate::output::{Cell, Column, Format, Records, stdout};
use crate::shown::{CURRENCY, Money};
use bursar_core::{CustomerId, CustomerState};
use bursar_engine::Ledger;
use std::io::{self, Write};

const COLUMNS: &[Column] = &[
    Column::left("client"),
    CURRENCY,
    Column::right("available"),
    Column::right("held"),
    Column::right("total"),
    Column::left("locked"),
    Column::right("available_change"),
    Column::right("held_change"),
    Column::left("was_locked"),
];

/// Prints the accounts of a ledger that differ from those of the same ledger before. Without one before, all
/// are new.
pub(super) fn print_changes(before: Option<&Ledger>, after: &Ledger, format: Format) -> Result<(), Failure> {
    let money = Money(&after.config().currencies);
    let columns = money.columns(COLUMNS);
    let mut records = Records::list(format, &columns, stdout()).map_err(|error| Failure::stdout(&error))?;
    let mut customers_before = before.map(|ledger| Customers::of(ledger, None));
    let mut next_before = customers_before.as_mut().and_then(Iterator::next);
    let mut customers = Customers::of(after, None);
    for (customer, state) in customers.by_ref() {
        // Both are in order of id, and no customer is ever lost.
        let state_before = match next_before.take_if(|(other, _)| *other == customer) {
            Some((_, state)) => {
                next_before = customers_before.as_mut().and_then(Iterator::next);
                state
            }
            None => CustomerState::default(),
        };
        if state != state_before {
            let printed = print_customer(&mut records, money, customer, &state_before, &state);
            printed.map_err(|error| Failure::stdout(&error))?;
        }
    }
    customers.end()?;
    customers_before.map_or(Ok(()), Customers::end)?;
    records.finish().map_err(|error| Failure::stdout(&error))
}

fn print_customer<W: Write>(
    records: &mut Records<W>,
    money: Money<'_>,
    customer: CustomerId,
    before: &CustomerState,
    after: &CustomerState,
) -> io::Result<()> {
    for (currency, account) in after.accounts.iter() {
        let account_before = before.accounts.get(currency);
        if account == account_before && after.locked == before.locked {
            continue;
        }
        let shown = money.account(currency, account);
        let changes = money.change(currency, account_before, account);
        let mut cells = vec![Cell::Shown(&customer)];
        cells.extend(money.currency(currency));
        cells.extend(shown.iter().map(|amount| Cell::Shown(amount)));
        cells.push(Cell::Flag(after.locked));
        cells.extend(changes.iter().map(|amount| Cell::Shown(amount)));
        cells.push(Cell::Flag(before.locked));
        records.row(&cells)?;
    }
    Ok(())
}
