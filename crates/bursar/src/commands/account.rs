//! `bursar account`

use super::accounts::{AVAILABLE, CLIENT, HELD, LOCKED, TOTAL, print_rows};
use super::unknown_customer;
use crate::book::{Book, HeadView, Then, with_book};
use crate::checked::AsOf;
use crate::cli::Global;
use crate::exit::{Failure, FailureKind};
use crate::output::{Cell, Column, Format, Records, stdout};
use crate::shown::{CURRENCY, Money};
use bursar_core::{Account, CustomerId};
use std::io;

const SEQ: Column = Column::right("seq");
const HEAD: Column = Column::left("head");
const OPEN_EVENT: Column = Column::left("open_event");

const COLUMNS: &[Column] = &[CLIENT, CURRENCY, AVAILABLE, HELD, TOTAL, LOCKED, SEQ, HEAD, OPEN_EVENT];

/// Prints one customer's accounts, now or as they were.
pub(crate) fn run(global: &Global, customer: CustomerId, at: Option<AsOf>, format: Format) -> Result<(), Failure> {
    with_book(global, |book| match at {
        None => {
            let head = book.customer(customer)?.ok_or_else(|| unknown_customer(customer))?;
            print_now(Money(book.currencies()), customer, head, format).map_err(|error| Failure::stdout(&error))
        }
        Some(at) => print_then(book, customer, at, format),
    })
}

/// Prints the head of the chain: accounts, place, head hash, and what is open.
fn print_now(money: Money<'_>, customer: CustomerId, head: HeadView, format: Format) -> io::Result<()> {
    let columns = money.columns(COLUMNS);
    let mut records = Records::list(format, &columns, stdout())?;
    let mut accounts = head.accounts;
    if accounts.is_empty() {
        // The first event is open: there is no account yet, and still something to show.
        accounts.extend(head.open.map(|(_, currency)| (currency, Account::default())));
    }
    let open = head.open.map(|(id, _)| id);
    for (currency, account) in accounts {
        let [available, held, total] = money.account(currency, account);
        let mut cells = vec![Cell::Shown(&customer)];
        cells.extend(money.currency(currency));
        cells.extend([Cell::Shown(&available), Cell::Shown(&held), Cell::Shown(&total)]);
        cells.extend([Cell::Flag(head.locked), Cell::Count(head.seq), Cell::Shown(&head.link)]);
        cells.push(open.as_ref().map_or(Cell::Empty, |id| Cell::Shown(id)));
        records.row(&cells)?;
    }
    records.finish()
}

fn print_then(book: &Book<'_>, customer: CustomerId, at: AsOf, format: Format) -> Result<(), Failure> {
    let state = match book.customer_as_of(customer, at)? {
        Then::Was(state) => state,
        Then::NoAccount => {
            let sentence = format!("customer {customer} had no account then");
            return Err(Failure::new(FailureKind::NoAccountThen, sentence));
        }
        Then::Unknown => return Err(unknown_customer(customer)),
    };
    let rows = state.accounts.iter().map(|(currency, account)| (customer, currency, account, state.locked));
    print_rows(Money(book.currencies()), format, rows).map_err(|error| Failure::stdout(&error))
}
