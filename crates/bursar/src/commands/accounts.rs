//! `bursar accounts`, and the report of `bursar ingest`: all accounts, ordered by client.

use super::as_of;
use crate::checked::AsOf;
use crate::cli::Global;
use crate::exit::Failure;
use crate::ledger_dir::with_ledger;
use crate::output::{Align, Cell, Column, Format, Records, stdout};
use crate::shown::Money;
use bursar_core::{Account, Currencies, CurrencyIndex, CustomerId, CustomerState};
use bursar_engine::accounts_only::AccountsOnly;
use bursar_engine::csv::write_accounts;
use bursar_engine::store::CustomerHead;
use bursar_engine::{Ledger, ReadError};
use std::borrow::Borrow;
use std::vec;

/// How many customers are read at once.
const PAGE_CUSTOMERS: usize = 4096;

const CLIENT: Column = Column { name: "client", align: Align::Left };
const CURRENCY: Column = Column { name: "currency", align: Align::Left };
const AVAILABLE: Column = Column { name: "available", align: Align::Right };
const HELD: Column = Column { name: "held", align: Align::Right };
const TOTAL: Column = Column { name: "total", align: Align::Right };
const LOCKED: Column = Column { name: "locked", align: Align::Left };

const COLUMNS: &[Column] = &[CLIENT, AVAILABLE, HELD, TOTAL, LOCKED];
const COLUMNS_WITH_CURRENCY: &[Column] = &[CLIENT, CURRENCY, AVAILABLE, HELD, TOTAL, LOCKED];

/// Prints all accounts, now or as they were.
pub(crate) fn run(global: &Global, at: Option<AsOf>, format: Format) -> Result<(), Failure> {
    with_ledger(global, |ledger| print(ledger, at, format))
}

/// Prints all accounts of a ledger.
pub(crate) fn print(ledger: &Ledger, at: Option<AsOf>, format: Format) -> Result<(), Failure> {
    let mut customers = Customers::new(ledger, at);
    print_customers(&ledger.config().currencies, format, customers.by_ref())?;
    customers.end()
}

/// Prints accounts that belong to no ledger.
pub(super) fn print_only(accounts: &AccountsOnly, format: Format) -> Result<(), Failure> {
    print_all(&accounts.config().currencies, format, accounts.accounts())
}

fn print_customers<S: Borrow<CustomerState>>(
    currencies: &Currencies,
    format: Format,
    customers: impl Iterator<Item = (CustomerId, S)>,
) -> Result<(), Failure> {
    let rows = customers.flat_map(|(customer, state)| {
        let CustomerState { locked, accounts } = state.borrow();
        let row = |(currency, account)| (customer, currency, account, *locked);
        accounts.iter().map(row).collect::<Vec<Row>>()
    });
    print_all(currencies, format, rows)
}

fn print_all(currencies: &Currencies, format: Format, rows: impl Iterator<Item = Row>) -> Result<(), Failure> {
    let printed = match format {
        Format::Csv => write_accounts(stdout(), currencies, rows).map(drop),
        Format::Table | Format::Json => print_rows(Money(currencies), format, rows),
    };
    printed.map_err(|error| Failure::stdout(&error))
}

/// An account: whose, in which currency, and whether the customer is locked.
pub(super) type Row = (CustomerId, CurrencyIndex, Account, bool);

/// Prints accounts in any format.
pub(super) fn print_rows(money: Money<'_>, format: Format, rows: impl Iterator<Item = Row>) -> std::io::Result<()> {
    let columns = if money.has_several() { COLUMNS_WITH_CURRENCY } else { COLUMNS };
    let mut records = Records::list(format, columns, stdout())?;
    for (customer, currency, account, locked) in rows {
        let [available, held, total] = money.account(currency, account);
        let amounts = [Cell::Shown(&available), Cell::Shown(&held), Cell::Shown(&total)];
        let mut cells = vec![Cell::Shown(&customer)];
        cells.extend(money.has_several().then(|| Cell::Text(money.code(currency))));
        cells.extend(amounts);
        cells.push(Cell::Flag(locked));
        records.row(&cells)?;
    }
    records.finish()
}

/// The customers of a ledger in order, read page by page. Ends at the first error, which [`Customers::end`]
/// gives back.
pub(super) struct Customers<'a> {
    ledger: &'a Ledger,
    at: Option<AsOf>,
    page: vec::IntoIter<CustomerHead>,
    last: Option<CustomerId>,
    ended: bool,
    failed: Option<ReadError>,
}

impl<'a> Customers<'a> {
    /// All customers, with their state now or at a moment; who had none then is left out.
    pub(super) fn new(ledger: &'a Ledger, at: Option<AsOf>) -> Self {
        Self { ledger, at, page: Vec::new().into_iter(), last: None, ended: false, failed: None }
    }

    /// Whether all were given.
    pub(super) fn end(self) -> Result<(), Failure> {
        self.failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn read_next(&mut self) -> Result<Option<(CustomerId, CustomerState)>, ReadError> {
        loop {
            let Some(CustomerHead { customer, head }) = self.page.next() else {
                if self.ended {
                    return Ok(None);
                }
                let page = self.ledger.customers(self.last, PAGE_CUSTOMERS)?;
                self.ended = page.len() < PAGE_CUSTOMERS;
                self.last = page.last().map(|listed| listed.customer).or(self.last);
                self.page = page.into_iter();
                continue;
            };
            let state = match self.at {
                None => Some(head.state),
                Some(at) => self.ledger.customer_as_of(customer, as_of(at))?,
            };
            if let Some(state) = state {
                return Ok(Some((customer, state)));
            }
        }
    }
}

impl Iterator for Customers<'_> {
    type Item = (CustomerId, CustomerState);

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed.is_some() {
            return None;
        }
        self.read_next().unwrap_or_else(|error| {
            self.failed = Some(error);
            None
        })
    }
}
