//! `bursar chain`: every event of a customer with its change, the resulting account, its id and its hash.

use super::unknown_customer;
use crate::checked::Chain;
use crate::cli::Global;
use crate::exit::Failure;
use crate::ledger_dir::with_ledger;
use crate::output::{Align, Cell, Column, Format, Records, stdout};
use crate::shown::{Money, Time};
use bursar_core::{CustomerId, CustomerState, EventStatus, RequestKind};
use bursar_engine::store::{ChainEntry, ReadRange};
use bursar_engine::{Ledger, ReadError};
use std::io::Write;

/// How many events are read at once.
const PAGE_EVENTS: usize = 4096;

const fn left(name: &'static str) -> Column {
    Column { name, align: Align::Left }
}

const fn right(name: &'static str) -> Column {
    Column { name, align: Align::Right }
}

const COLUMNS: &[Column] = &[
    right("seq"),
    left("status"),
    left("time"),
    left("kind"),
    left("tx"),
    right("amount"),
    right("available_change"),
    right("held_change"),
    right("available"),
    right("held"),
    right("total"),
    left("locked"),
    left("id"),
    left("hash"),
    left("reason"),
];

const COLUMNS_WITH_CURRENCY: &[Column] = &[
    right("seq"),
    left("status"),
    left("time"),
    left("kind"),
    left("tx"),
    left("currency"),
    right("amount"),
    right("available_change"),
    right("held_change"),
    right("available"),
    right("held"),
    right("total"),
    left("locked"),
    left("id"),
    left("hash"),
    left("reason"),
];

/// Prints a chain, or a part of it.
pub(crate) fn run(global: &Global, chain: &Chain, format: Format) -> Result<(), Failure> {
    with_ledger(global, |ledger| {
        let customer = chain.customer;
        ledger.customer(customer)?.ok_or_else(|| unknown_customer(customer))?;
        let money = Money(&ledger.config().currencies);
        let columns = if money.has_several() { COLUMNS_WITH_CURRENCY } else { COLUMNS };
        let records = Records::list(format, columns, stdout()).map_err(|error| Failure::stdout(&error))?;
        let mut printer = Printer { ledger, customer, money, records };
        if chain.newest_first {
            printer.newest_first(chain)?;
        } else {
            printer.oldest_first(chain)?;
        }
        printer.records.finish().map_err(|error| Failure::stdout(&error))
    })
}

struct Printer<'a, W: Write> {
    ledger: &'a Ledger,
    customer: CustomerId,
    money: Money<'a>,
    records: Records<W>,
}

impl<W: Write> Printer<'_, W> {
    fn oldest_first(&mut self, chain: &Chain) -> Result<(), Failure> {
        let mut left = chain.limit.unwrap_or(u64::MAX);
        let mut from_seq = chain.from.unwrap_or(1);
        let mut before = state_before(self.ledger, self.customer, from_seq)?;
        while left > 0 {
            let limit = usize::try_from(left).unwrap_or(usize::MAX).min(PAGE_EVENTS);
            let range = ReadRange { from_seq, to_seq: u64::MAX, limit, newest_first: false };
            let page = self.ledger.chain(self.customer, range)?;
            for entry in &page {
                self.print(entry, &before)?;
                if moves_on(entry) {
                    before.clone_from(&entry.linked.event.state);
                }
            }
            left -= page.len() as u64;
            match page.last().and_then(|last| last.linked.event.seq.checked_add(1)) {
                Some(next) if page.len() == limit => from_seq = next,
                Some(_) | None => break,
            }
        }
        Ok(())
    }

    fn newest_first(&mut self, chain: &Chain) -> Result<(), Failure> {
        let mut left = chain.limit.unwrap_or(u64::MAX);
        let mut to_seq = chain.from.unwrap_or(u64::MAX);
        while left > 0 && to_seq > 0 {
            let limit = usize::try_from(left).unwrap_or(usize::MAX).min(PAGE_EVENTS);
            let range = ReadRange { from_seq: 1, to_seq, limit, newest_first: true };
            let page = self.ledger.chain(self.customer, range)?;
            let Some(oldest) = page.last() else { break };
            let before_page = state_before(self.ledger, self.customer, oldest.linked.event.seq)?;
            for (index, entry) in page.iter().enumerate() {
                let older = page[index + 1..].iter().find(|older| moves_on(older));
                self.print(entry, older.map_or(&before_page, |older| &older.linked.event.state))?;
            }
            left -= page.len() as u64;
            to_seq = oldest.linked.event.seq - 1;
        }
        Ok(())
    }

    fn print(&mut self, entry: &ChainEntry, before: &CustomerState) -> Result<(), Failure> {
        let (event, currency) = (&entry.linked.event, entry.linked.event.currency);
        let money = self.money;
        let (time, amount, id) = (Time(event.time_ms), money.amount(currency, event.amount), entry.linked.id());
        let is_unlock = event.kind == RequestKind::Unlock;
        let changes = money.change(currency, before.accounts.get(currency), event.account());
        let account = money.account(currency, event.account());

        let mut cells = vec![Cell::Count(event.seq), Cell::Text(entry.status.name()), Cell::Shown(&time)];
        cells.push(Cell::Text(event.kind.name()));
        cells.push(event.transaction.as_ref().map_or(Cell::Empty, |transaction| Cell::Shown(transaction)));
        cells.extend(money.has_several().then(|| Cell::Text(money.code(currency))));
        cells.push(if is_unlock { Cell::Empty } else { Cell::Shown(&amount) });
        if let EventStatus::Aborted(_) = entry.status {
            // Its account never took effect, and nobody should take it for one.
            cells.extend([Cell::Empty; 6]);
        } else {
            cells.extend(changes.iter().chain(&account).map(|amount| Cell::Shown(amount)));
            cells.push(Cell::Flag(event.state.locked));
        }
        cells.extend([Cell::Shown(&id), Cell::Shown(&entry.linked.hash)]);
        let by_hand = entry.status.by_hand().map(|reason| format!("settled by an operator: {reason}"));
        cells.push(match &entry.status {
            EventStatus::Aborted(reason) => Cell::Shown(reason),
            EventStatus::DoneByHand(_) => Cell::Text(by_hand.as_deref().unwrap_or_default()),
            EventStatus::Started | EventStatus::Done => Cell::Empty,
        });
        self.records.row(&cells).map_err(|error| Failure::stdout(&error))
    }
}

/// Whether the next event was decided on the state of this one.
const fn moves_on(entry: &ChainEntry) -> bool {
    match entry.status {
        EventStatus::Started | EventStatus::Done | EventStatus::DoneByHand(_) => true,
        EventStatus::Aborted(_) => false,
    }
}

/// The state that the event at `seq` was decided on.
fn state_before(ledger: &Ledger, customer: CustomerId, seq: u64) -> Result<CustomerState, ReadError> {
    let mut to_seq = seq - 1;
    while to_seq > 0 {
        let range = ReadRange { from_seq: 1, to_seq, limit: 16, newest_first: true };
        let page = ledger.chain(customer, range)?;
        if let Some(found) = page.iter().find(|entry| moves_on(entry)) {
            return Ok(found.linked.event.state.clone());
        }
        to_seq = page.last().map_or(0, |oldest| oldest.linked.event.seq - 1);
    }
    Ok(CustomerState::default())
}
