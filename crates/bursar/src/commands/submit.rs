//! `bursar submit`: one request, and its receipt.

use crate::book::{InEffect, Outlook, Under, Would, with_book};
use crate::checked::{Submit, bad};
use crate::cli::Global;
use crate::exit::Failure;
use crate::output::{Cell, Column, Format, Records, stdout};
use crate::shown::{CURRENCY, Money, Time};
use bursar_core::commit::{Minimum, Receipt};
use bursar_core::{
    Action, Amount, Currencies, CurrencyIndex, Movement, Reference, Rejection, Request, RequestKind, TransactionId,
};
use std::io;

const COLUMNS: &[Column] = &[
    Column::left("outcome"),
    Column::left("client"),
    Column::right("seq"),
    Column::left("time"),
    CURRENCY,
    Column::right("available"),
    Column::right("held"),
    Column::right("total"),
    Column::left("locked"),
    Column::left("id"),
    Column::left("hash"),
];

/// Submits a request and prints the receipt, which is durable then.
pub(crate) fn run(global: &Global, asked: &Submit, format: Format) -> Result<(), Failure> {
    with_book(global, |book| {
        let (request, under) = request(asked, book.currencies())?;
        let outlook = if asked.dry_run { Some(book.dry_run(request, &under)?) } else { None };
        let (outcome, receipt) = match outlook {
            None => {
                let InEffect { before, receipt } = book.submit(global, request, &under)?;
                (if before { "already_applied" } else { "applied" }, Shown::of(receipt))
            }
            Some(Outlook::InEffect(receipt)) => ("already_applied", Shown::of(receipt)),
            Some(Outlook::WouldApply(would)) => ("would_apply", Shown { would, made: None }),
        };
        print(Money(book.currencies()), outcome, &receipt, format).map_err(|error| Failure::stdout(&error))
    })
}

/// What is printed of an event: that of a dry run has neither time nor hash.
struct Shown {
    would: Would,
    made: Option<Receipt>,
}

impl Shown {
    fn of(receipt: Receipt) -> Self {
        let Receipt { currency, account, locked, .. } = receipt;
        let would = Would { customer: receipt.event.customer, seq: receipt.event.seq, currency, account, locked };
        Self { would, made: Some(receipt) }
    }
}

/// The request and what is set beside it, with amounts in the decimals of the ledger.
fn request(asked: &Submit, currencies: &Currencies) -> Result<(Request, Under), Failure> {
    let Submit { kind, customer, transaction, .. } = *asked;
    let currency = match asked.currency.as_deref() {
        None => None,
        Some(code) => {
            let found = currencies.find(code.as_bytes()).filter(|_| !code.is_empty());
            let unknown = bad("--currency", code, "the ledger has no such currency");
            Some(found.ok_or(unknown.with_hint(Rejection::ALL[1].hint))?)
        }
    };
    let of_amount = || currency.or(currencies.only());
    let read = |flag: &str, text: &str| -> Result<(Amount, CurrencyIndex), Failure> {
        let missing = || bad(flag, text, "the ledger has several currencies; say which with --currency");
        let currency = of_amount().ok_or_else(missing)?;
        let amount = Amount::parse(text.as_bytes(), currencies.decimals(currency));
        amount.map(|amount| (amount, currency)).map_err(|error| bad(flag, text, error.kind))
    };
    let amount = asked.amount.as_deref().map(|text| read("AMOUNT", text)).transpose()?;
    let minimum = asked.minimum_available.as_deref().map(|text| read("--minimum-available", text)).transpose()?;
    let under = Under {
        key: asked.idempotency_key.clone(),
        expected_seq: asked.expected_seq,
        minimum_available: minimum.map(|(amount, currency)| Minimum { currency, amount }),
    };
    // What is missing was refused when the command line was read.
    let transaction = transaction.unwrap_or_default();
    let movement = |transaction: TransactionId| {
        let (amount, currency) = amount.unwrap_or_default();
        Movement { transaction, amount, currency }
    };
    let reference = Reference { transaction, amount: amount.map(|(amount, _)| amount), currency };
    let action = match kind {
        RequestKind::Deposit => Action::Deposit(movement(transaction)),
        RequestKind::Withdrawal => Action::Withdrawal(movement(transaction)),
        RequestKind::Dispute => Action::Dispute(reference),
        RequestKind::Resolve => Action::Resolve(reference),
        RequestKind::Chargeback => Action::Chargeback(reference),
        RequestKind::Unlock => Action::Unlock,
    };
    Ok((Request { customer, action }, under))
}

fn print(money: Money<'_>, outcome: &str, shown: &Shown, format: Format) -> io::Result<()> {
    let columns = money.columns(COLUMNS);
    let mut records = Records::list(format, &columns, stdout())?;
    let Shown { would: Would { customer, seq, currency, account, locked }, made } = shown;
    let (time, account) = (made.as_ref().map(|made| Time(made.time_ms)), money.account(*currency, *account));
    let mut cells = vec![Cell::Text(outcome), Cell::Shown(customer), Cell::Count(*seq)];
    cells.push(time.as_ref().map_or(Cell::Empty, |time| Cell::Shown(time)));
    cells.extend(money.currency(*currency));
    cells.extend(account.iter().map(|amount| Cell::Shown(amount)));
    cells.push(Cell::Flag(*locked));
    match made {
        Some(made) => cells.extend([Cell::Shown(&made.event.id), Cell::Shown(&made.hash)]),
        None => cells.extend([Cell::Empty, Cell::Empty]),
    }
    records.row(&cells)?;
    records.finish()
}
