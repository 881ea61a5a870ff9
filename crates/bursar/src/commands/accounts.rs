//! `bursar accounts`, and the report of `bursar ingest`: all accounts, ordered by client.

use crate::book::remote::Remote;
use crate::book::{Book, Then, with_book};
use crate::checked::AsOf;
use crate::cli::Global;
use crate::exit::Failure;
use crate::output::{Cell, Column, Format, Records, stdout};
use crate::shown::{CURRENCY, Money};
use bursar_core::{Account, Currencies, CurrencyIndex, CustomerId, CustomerState};
use bursar_engine::Ledger;
use bursar_engine::accounts_only::AccountsOnly;
use bursar_engine::csv::write_accounts;
use bursar_engine::store::CustomerHead;
use std::borrow::Borrow;
use std::vec;

/// How many customers are read at once.
const PAGE_CUSTOMERS: usize = 4096;

pub(super) const CLIENT: Column = Column::left("client");
pub(super) const AVAILABLE: Column = Column::right("available");
pub(super) const HELD: Column = Column::right("held");
pub(super) const TOTAL: Column = Column::right("total");
pub(super) const LOCKED: Column = Column::left("locked");

const COLUMNS: &[Column] = &[CLIENT, CURRENCY, AVAILABLE, HELD, TOTAL, LOCKED];

/// Prints all accounts, now or as they were.
pub(crate) fn run(global: &Global, at: Option<AsOf>, format: Format) -> Result<(), Failure> {
    with_book(global, |book| print(book, at, format))
}

/// Prints all accounts of a ledger.
pub(crate) fn print(book: &Book<'_>, at: Option<AsOf>, format: Format) -> Result<(), Failure> {
    let mut customers = Customers::new(book, at);
    print_customers(book.currencies(), format, customers.by_ref())?;
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
    let columns = money.columns(COLUMNS);
    let mut records = Records::list(format, &columns, stdout())?;
    for (customer, currency, account, locked) in rows {
        let [available, held, total] = money.account(currency, account);
        let amounts = [Cell::Shown(&available), Cell::Shown(&held), Cell::Shown(&total)];
        let mut cells = vec![Cell::Shown(&customer)];
        cells.extend(money.currency(currency));
        cells.extend(amounts);
        cells.push(Cell::Flag(locked));
        records.row(&cells)?;
    }
    records.finish()
}

/// The customers of a ledger in order, read page by page. Ends at the first error, which [`Customers::end`]
/// gives back.
pub(super) struct Customers<'a> {
    listed: Listed<'a>,
    failed: Option<Failure>,
}

impl<'a> Customers<'a> {
    /// All customers, with their state now or at a moment; who had none then is left out.
    pub(super) fn new(book: &'a Book<'_>, at: Option<AsOf>) -> Self {
        let now: Listed<'_> = match book {
            Book::Directory(ledger) => return Self::of(ledger, at),
            Book::Server(remote) => Box::new(Remote::customers(remote)),
        };
        let as_of = |customer, at| {
            Ok(match book.customer_as_of(customer, at)? {
                Then::Was(state) => Some(state),
                Then::NoAccount | Then::Unknown => None,
            })
        };
        Self { listed: then(now, at, as_of), failed: None }
    }

    /// The same for a ledger that is open.
    pub(super) fn of(ledger: &'a Ledger, at: Option<AsOf>) -> Self {
        let (page, last, ended) = (Vec::new().into_iter(), None, false);
        let listed = Box::new(Pages { ledger, page, last, ended });
        let as_of = |customer, at| Ok(ledger.customer_as_of(customer, super::as_of(at))?);
        Self { listed: then(listed, at, as_of), failed: None }
    }

    /// Whether all were given.
    pub(super) fn end(self) -> Result<(), Failure> {
        self.failed.map_or(Ok(()), Err)
    }
}

type Listed<'a> = Box<dyn Iterator<Item = Result<(CustomerId, CustomerState), Failure>> + 'a>;

/// The same customers as they were then.
fn then<'a>(
    now: Listed<'a>,
    at: Option<AsOf>,
    as_of: impl Fn(CustomerId, AsOf) -> Result<Option<CustomerState>, Failure> + 'a,
) -> Listed<'a> {
    let Some(at) = at else { return now };
    Box::new(now.filter_map(move |listed| {
        let state = listed.and_then(|(customer, _)| Ok(as_of(customer, at)?.map(|state| (customer, state))));
        state.transpose()
    }))
}

impl Iterator for Customers<'_> {
    type Item = (CustomerId, CustomerState);

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed.is_some() {
            return None;
        }
        match self.listed.next()? {
            Ok(listed) => Some(listed),
            Err(failure) => {
                self.failed = Some(failure);
                None
            }
        }
    }
}

struct Pages<'a> {
    ledger: &'a Ledger,
    page: vec::IntoIter<CustomerHead>,
    last: Option<CustomerId>,
    ended: bool,
}

impl Iterator for Pages<'_> {
    type Item = Result<(CustomerId, CustomerState), Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.len() == 0 && !self.ended {
            match self.ledger.customers(self.last, PAGE_CUSTOMERS) {
                Ok(page) => {
                    self.ended = page.len() < PAGE_CUSTOMERS;
                    self.last = page.last().map(|listed| listed.customer).or(self.last);
                    self.page = page.into_iter();
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error.into()));
                }
            }
        }
        self.page.next().map(|CustomerHead { customer, head }| Ok((customer, head.state)))
    }
}
