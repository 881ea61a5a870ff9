//! `bursar chain`: every event of a customer with its change, the resulting account, its id and its hash.

use super::unknown_customer;
use crate::book::{Entries, Entry, with_book};
use crate::checked::Chain;
use crate::cli::Global;
use crate::exit::Failure;
use crate::output::{Cell, Column, Format, Records, stdout};
use crate::shown::{CURRENCY, Money, Time};
use bursar_core::{Account, Accounts, RequestKind};
use std::collections::VecDeque;
use std::io::Write;

const COLUMNS: &[Column] = &[
    Column::right("seq"),
    Column::left("status"),
    Column::left("time"),
    Column::left("kind"),
    Column::left("tx"),
    CURRENCY,
    Column::right("amount"),
    Column::right("available_change"),
    Column::right("held_change"),
    Column::right("available"),
    Column::right("held"),
    Column::right("total"),
    Column::left("locked"),
    Column::left("id"),
    Column::left("hash"),
    Column::left("reason"),
];

/// Prints a chain, or a part of it.
pub(crate) fn run(global: &Global, chain: &Chain, format: Format) -> Result<(), Failure> {
    with_book(global, |book| {
        let customer = chain.customer;
        book.customer(customer)?.ok_or_else(|| unknown_customer(customer))?;
        let money = Money(book.currencies());
        let columns = money.columns(COLUMNS);
        let records = Records::list(format, &columns, stdout()).map_err(|error| Failure::stdout(&error))?;
        let (before, entries) = book.chain(customer, chain.from, chain.newest_first)?;
        let mut printer = Printer { money, records };
        let limit = chain.limit.unwrap_or(u64::MAX);
        if chain.newest_first {
            printer.newest_first(entries, limit)?;
        } else {
            printer.oldest_first(before, entries, limit)?;
        }
        printer.records.finish().map_err(|error| Failure::stdout(&error))
    })
}

struct Printer<'a, W: Write> {
    money: Money<'a>,
    records: Records<W>,
}

impl<W: Write> Printer<'_, W> {
    fn oldest_first(&mut self, mut before: Accounts, entries: Entries<'_>, limit: u64) -> Result<(), Failure> {
        for entry in entries.take(usize::try_from(limit).unwrap_or(usize::MAX)) {
            let entry = entry?;
            self.print(&entry, before.get(entry.currency))?;
            if let Some((account, _)) = entry.effect {
                before.set(entry.currency, account);
            }
        }
        Ok(())
    }

    /// The account before an event is that of an older one, which comes later: events wait for it, in their order. One
    /// event more than asked for is read as a rule; more where several currencies take turns, and the book tells one account with each event.
    fn newest_first(&mut self, entries: Entries<'_>, limit: u64) -> Result<(), Failure> {
        let mut waiting: VecDeque<(Entry, Option<Account>)> = VecDeque::new();
        let mut left = limit;
        for entry in entries {
            if left == 0 && waiting.is_empty() {
                return Ok(());
            }
            let entry = entry?;
            if let Some((account, _)) = entry.effect {
                for (newer, before) in waiting.iter_mut().filter(|(_, before)| before.is_none()) {
                    match &entry.accounts {
                        Some(accounts) => *before = Some(accounts.get(newer.currency)),
                        None if newer.currency == entry.currency => *before = Some(account),
                        None => {}
                    }
                }
            }
            if left > 0 {
                left -= 1;
                // Of one that was aborted, no change is shown.
                let before = entry.effect.is_none().then(Account::default);
                waiting.push_back((entry, before));
            }
            while let Some((entry, Some(before))) = waiting.pop_front_if(|(_, before)| before.is_some()) {
                self.print(&entry, before)?;
            }
        }
        for (entry, before) in waiting {
            self.print(&entry, before.unwrap_or_default())?;
        }
        Ok(())
    }

    fn print(&mut self, entry: &Entry, before: Account) -> Result<(), Failure> {
        let (money, currency) = (self.money, entry.currency);
        let (time, amount) = (Time(entry.time_ms), money.amount(currency, entry.amount));
        let is_unlock = entry.kind == RequestKind::Unlock;
        let account = entry.effect.map_or(before, |(account, _)| account);
        let (changes, account) = (money.change(currency, before, account), money.account(currency, account));

        let mut cells = vec![Cell::Count(entry.seq), Cell::Text(entry.status), Cell::Shown(&time)];
        cells.push(Cell::Text(entry.kind.name()));
        cells.push(entry.transaction.as_ref().map_or(Cell::Empty, |transaction| Cell::Shown(transaction)));
        cells.extend(money.currency(currency));
        cells.push(if is_unlock { Cell::Empty } else { Cell::Shown(&amount) });
        match entry.effect {
            // Its account never took effect, and nobody should take it for one.
            None => cells.extend([Cell::Empty; 6]),
            Some((_, locked)) => {
                cells.extend(changes.iter().chain(&account).map(|amount| Cell::Shown(amount)));
                cells.push(Cell::Flag(locked));
            }
        }
        cells.extend([Cell::Shown(&entry.id), Cell::Shown(&entry.hash)]);
        cells.push(entry.reason.as_deref().map_or(Cell::Empty, Cell::Text));
        self.records.row(&cells).map_err(|error| Failure::stdout(&error))
    }
}
