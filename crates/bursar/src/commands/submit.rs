//! `bursar submit`: one request, and its receipt.

use crate::book::{InEffect, with_book};
use crate::checked::{Submit, bad};
use crate::cli::Global;
use crate::exit::Failure;
use crate::output::{Align, Cell, Column, Format, Records, stdout};
use crate::shown::{Money, Time};
use bursar_core::{
    Action, Amount, Currencies, CurrencyIndex, Movement, Reference, Rejection, Request, RequestKind, TransactionId,
};
use std::io;

const fn left(name: &'static str) -> Column {
    Column { name, align: Align::Left }
}

const fn right(name: &'static str) -> Column {
    Column { name, align: Align::Right }
}

const COLUMNS: &[Column] = &[
    left("outcome"),
    left("client"),
    right("seq"),
    left("time"),
    right("available"),
    right("held"),
    right("total"),
    left("locked"),
    left("id"),
    left("hash"),
];

const COLUMNS_WITH_CURRENCY: &[Column] = &[
    left("outcome"),
    left("client"),
    right("seq"),
    left("time"),
    left("currency"),
    right("available"),
    right("held"),
    right("total"),
    left("locked"),
    left("id"),
    left("hash"),
];

/// Submits a request and prints the receipt, which is durable then.
pub(crate) fn run(global: &Global, asked: &Submit, format: Format) -> Result<(), Failure> {
    with_book(global, |book| {
        let in_effect = book.submit(request(asked, book.currencies())?)?;
        print(Money(book.currencies()), &in_effect, format).map_err(|error| Failure::stdout(&error))
    })
}

/// The request, with its amount in the decimals of the ledger.
fn request(asked: &Submit, currencies: &Currencies) -> Result<Request, Failure> {
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
    let amount = |text: &str| -> Result<(Amount, CurrencyIndex), Failure> {
        let missing = || bad("AMOUNT", text, "the ledger has several currencies; say which with --currency");
        let currency = of_amount().ok_or_else(missing)?;
        let amount = Amount::parse(text.as_bytes(), currencies.decimals(currency));
        amount.map(|amount| (amount, currency)).map_err(|error| bad("AMOUNT", text, error.kind))
    };
    let amount = asked.amount.as_deref().map(amount).transpose()?;
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
    Ok(Request { customer, action })
}

fn print(money: Money<'_>, in_effect: &InEffect, format: Format) -> io::Result<()> {
    let columns = if money.has_several() { COLUMNS_WITH_CURRENCY } else { COLUMNS };
    let mut records = Records::list(format, columns, stdout())?;
    let receipt = &in_effect.receipt;
    let (time, account) = (Time(receipt.time_ms), money.account(receipt.currency, receipt.account));
    let mut cells = vec![Cell::Text(if in_effect.before { "already_applied" } else { "applied" })];
    cells.extend([Cell::Shown(&receipt.event.customer), Cell::Count(receipt.event.seq), Cell::Shown(&time)]);
    cells.extend(money.has_several().then(|| Cell::Text(money.code(receipt.currency))));
    cells.extend(account.iter().map(|amount| Cell::Shown(amount)));
    cells.extend([Cell::Flag(receipt.locked), Cell::Shown(&receipt.event.id), Cell::Shown(&receipt.hash)]);
    records.row(&cells)?;
    records.finish()
}
