//! `bursar info`: what a ledger is, how far it is, and what it costs on the disk.

use crate::book::remote::Remote;
use crate::cli::Global;
use crate::config;
use crate::exit::Failure;
use crate::ledger_dir::{close, open};
use crate::output::{Format, stdout};
use crate::pairs::{Entry, Group, Value, print};
use crate::shown::{Money, Time};
use bursar_core::{CurrencyIndex, LinkedEvent, RailId, Sum};
use bursar_engine::embedded::EmbeddedStore;
use bursar_engine::store::{SourceMark, StoreError};
use bursar_engine::{CurrencyTotals, Ledger, Totals};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Prints what is known about the ledger as a whole.
///
/// The disk is measured after the ledger is closed: by then, room reserved for what comes next is given back,
/// and index files are written for all there is.
pub(crate) fn run(global: &Global, format: Format) -> Result<(), Failure> {
    if let Some(remote) = global.remote()? {
        return print(format, &of_server(&remote)?, stdout()).map_err(|error| Failure::stdout(&error));
    }
    let ledger = open(global)?;
    let read = read(&ledger, global);
    close(ledger);
    let (mut entries, event_count, is_in_directory) = read?;
    if !is_in_directory {
        return print(format, &entries, stdout()).map_err(|error| Failure::stdout(&error));
    }
    let disk_bytes = bytes_on_disk(&global.data)?;
    let mut disk = vec![("bytes", Value::Count(disk_bytes))];
    if let Some(per_event) = tenths(disk_bytes, event_count) {
        disk.push(("bytes_per_event", Value::Text(per_event)));
    }
    entries.push(("disk", Entry::Group(disk)));
    print(format, &entries, stdout()).map_err(|error| Failure::stdout(&error))
}

/// All but the disk; how many events there are, open ones included; and whether there is a disk to be measured.
fn read(ledger: &Ledger, global: &Global) -> Result<(Vec<(&'static str, Entry)>, u64, bool), Failure> {
    let config = ledger.config();
    let (totals, open) = (ledger.totals()?, ledger.open_events()?);
    let sources = ledger.sources()?;
    let mut entries = vec![("ledger", Entry::One(Value::Text(format!("{:032x}", u128::from_be_bytes(config.ledger)))))];
    let stores = config::stores(global)?;
    match &stores {
        Some(stores) => {
            let [chains, transactions] = stores.places().map(Value::Text);
            entries.push(("store", Entry::Group(vec![("chains", chains), ("transactions", transactions)])));
        }
        None => entries.push(("directory", Entry::One(Value::shown(&global.data.display())))),
    }
    entries.extend([
        ("policy", policy(config.policy.locked.name(), config.policy.disputable.name())),
        ("currency", Entry::List(currencies(Money(&config.currencies), &totals))),
        ("customers", Entry::One(Value::Count(totals.customer_count))),
        ("transactions", Entry::One(Value::Count(totals.transaction_count))),
        ("events", Entry::One(Value::Count(totals.event_count))),
        ("open_event", numbered(open.iter().map(open_event).collect())),
        ("source", numbered(sources.iter().map(source).collect())),
    ]);
    let journal = ledger.embedded().map(EmbeddedStore::journal_head);
    if let Some((bytes, digest)) = journal {
        let journal = vec![("bytes", Value::Count(bytes)), ("digest", Value::shown(&digest))];
        entries.push(("journal", Entry::Group(journal)));
    }
    Ok((entries, totals.event_count + open.len() as u64, stores.is_none()))
}

/// The same of a ledger behind a server, which does not tell of its files and sources.
fn of_server(remote: &Remote) -> Result<Vec<(&'static str, Entry)>, Failure> {
    let ledger = remote.ledger();
    let mut open = Vec::new();
    for waiting in remote.client().pending(&bursar_client::PendingList::default()) {
        let event = waiting?.event;
        open.push(vec![
            ("client", Value::shown(&event.customer)),
            ("seq", Value::Count(event.seq)),
            ("kind", Value::shown(&event.kind.name())),
            ("time", Value::shown(&event.time)),
            ("rail", Value::Count(event.rail.unwrap_or_default().into())),
            ("id", Value::shown(&event.event)),
        ]);
    }
    let currency = |totals: &bursar_client::CurrencyTotals| {
        let code = totals.currency.as_deref().unwrap_or_default();
        let label = if code.is_empty() { "unnamed" } else { code };
        let mut group = vec![("code", Value::shown(&code)), ("decimals", Value::Count(totals.decimals.into()))];
        let named = [
            ("deposits", totals.deposits),
            ("withdrawals", totals.withdrawals),
            ("deposits_charged_back", totals.deposits_charged_back),
            ("withdrawals_charged_back", totals.withdrawals_charged_back),
            ("provisional", totals.provisional),
            ("available", totals.available),
            ("held", totals.held),
            ("total", totals.total),
        ];
        group.extend(named.map(|(name, figure)| (name, Value::shown(&figure))));
        group.push(("balanced", Value::Flag(is_balanced(totals))));
        (label.to_owned(), group)
    };
    Ok(vec![
        ("ledger", Entry::One(Value::shown(&ledger.ledger))),
        ("server", Entry::One(Value::shown(&remote.client().server()))),
        ("policy", policy(&ledger.policy.locked, &ledger.policy.disputable)),
        ("currency", Entry::List(ledger.currencies.iter().map(currency).collect())),
        ("customers", Entry::One(Value::Count(ledger.customers))),
        ("transactions", Entry::One(Value::Count(ledger.transactions))),
        ("events", Entry::One(Value::Count(ledger.events))),
        ("open_event", numbered(open)),
    ])
}

/// Whether the sums fit each other, by the same rule as the engine's: reckoned here, not believed.
fn is_balanced(totals: &bursar_client::CurrencyTotals) -> bool {
    let sums = CurrencyTotals {
        deposits: Sum::from_steps(totals.deposits.steps()),
        withdrawals: Sum::from_steps(totals.withdrawals.steps()),
        deposits_charged_back: Sum::from_steps(totals.deposits_charged_back.steps()),
        withdrawals_charged_back: Sum::from_steps(totals.withdrawals_charged_back.steps()),
        provisional: Sum::from_steps(totals.provisional.steps()),
        held: Sum::from_steps(totals.held.steps()),
        total: Sum::from_steps(totals.total.steps()),
    };
    let all = [sums.deposits, sums.withdrawals, sums.deposits_charged_back, sums.withdrawals_charged_back];
    let all = all.into_iter().chain([sums.provisional, sums.held, sums.total]);
    // Beyond what any ledger can sum up to, nothing is reckoned.
    let can_be = all.map(Sum::steps).all(|steps| steps.unsigned_abs() < 1 << 120);
    can_be && sums.is_balanced() && sums.available().steps() == totals.available.steps()
}

fn policy(locked: &str, disputable: &str) -> Entry {
    Entry::Group(vec![("locked", Value::shown(&locked)), ("disputable", Value::shown(&disputable))])
}

fn numbered(groups: Vec<Group>) -> Entry {
    Entry::List(groups.into_iter().enumerate().map(|(index, group)| ((index + 1).to_string(), group)).collect())
}

fn currencies(money: Money<'_>, totals: &Totals) -> Vec<(String, Group)> {
    let of = |(index, currency): (CurrencyIndex, &bursar_core::Currency)| {
        let label = if currency.code().is_empty() { "unnamed" } else { currency.code() };
        let mut group = vec![
            ("code", Value::shown(&currency.code())),
            ("decimals", Value::Count(currency.decimals().count().into())),
        ];
        let sums = totals.currency(index);
        let CurrencyTotals { deposits, withdrawals, held, total, .. } = sums;
        let named = [
            ("deposits", deposits),
            ("withdrawals", withdrawals),
            ("deposits_charged_back", sums.deposits_charged_back),
            ("withdrawals_charged_back", sums.withdrawals_charged_back),
            ("provisional", sums.provisional),
            ("available", sums.available()),
            ("held", held),
            ("total", total),
        ];
        group.extend(named.map(|(name, sum)| (name, Value::shown(&money.sum(index, sum)))));
        group.push(("balanced", Value::Flag(sums.is_balanced())));
        (label.to_owned(), group)
    };
    money.0.iter().map(of).collect()
}

fn open_event(linked: &LinkedEvent) -> Group {
    let event = &linked.event;
    vec![
        ("client", Value::shown(&event.customer)),
        ("seq", Value::Count(event.seq)),
        ("kind", Value::shown(&event.kind.name())),
        ("time", Value::shown(&Time(event.time_ms))),
        ("rail", Value::Count(event.rail.map_or(0, RailId::number).into())),
        ("id", Value::shown(&linked.id())),
    ]
}

fn source(mark: &SourceMark) -> Group {
    let counts = mark.counts;
    vec![
        ("digest", Value::shown(&mark.source)),
        ("state", Value::shown(&if mark.finished { "finished" } else { "interrupted" })),
        ("rows", Value::Count(counts.total())),
        ("applied", Value::Count(counts.applied)),
        ("already_applied", Value::Count(counts.already_applied)),
        ("rejected", Value::Count(counts.rejected)),
        ("unreadable", Value::Count(counts.unreadable)),
        ("lines", Value::Count(mark.line_count)),
        ("bytes", Value::Count(mark.offset)),
    ]
}

/// The lengths of all files of the directory.
fn bytes_on_disk(directory: &Path) -> Result<u64, Failure> {
    let measure = || -> io::Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(directory)? {
            bytes += entry?.metadata()?.len();
        }
        Ok(bytes)
    };
    measure().map_err(|error| {
        let (doing, path) = ("measure the directory", directory.to_owned());
        StoreError::Io { doing, path, error: Arc::new(error) }.into()
    })
}

/// A quotient with one decimal, rounded up; `None` where there is nothing to divide by.
fn tenths(bytes: u64, count: u64) -> Option<String> {
    let tenths = (u128::from(bytes) * 10).checked_div(u128::from(count))?;
    let up = u128::from(!(u128::from(bytes) * 10).is_multiple_of(u128::from(count)));
    let tenths = tenths + up;
    Some(format!("{}.{}", tenths / 10, tenths % 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotient_is_never_shown_smaller_than_it_is() {
        let table = [
            (0, 1, "0.0"),
            (128, 1, "128.0"),
            (1281, 10, "128.1"),
            (100, 3, "33.4"),
            (u64::MAX, 1, "18446744073709551615.0"),
        ];
        for (bytes, count, expected) in table {
            assert_eq!(tenths(bytes, count).as_deref(), Some(expected));
        }
        assert_eq!(tenths(5, 0), None);
    }
}
