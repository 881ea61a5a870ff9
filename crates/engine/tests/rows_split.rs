//! Rows of a source over stores that keep its position apart from its events: cut off at every call, each row takes
//! effect once, also where the ledger goes on in another place.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
#[path = "common/stops.rs"]
mod stops;

use bursar_engine::copy::{Target, compare, copy};
use bursar_engine::core::commit::{Batch, Limits, Routes};
use bursar_engine::core::{CustomerState, LedgerConfig, Request, TransactionId};
use bursar_engine::driver::{Driver, EngineError, SourceRow};
use bursar_engine::store::{Chains, CustomerHead, MemoryStore, ReadRange, SourceId, SourceMark};
use bursar_engine::{Ledger, LedgerOptions};
use common::{audit, config, customer, deposit, dispute, withdrawal};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use stops::Stops;

const SOURCE: SourceId = SourceId([7; 32]);

/// Customer 1 goes through the same dispute three times, which nothing but a key can tell apart. Customer 2 is refused a
/// withdrawal, and could have made it a row later.
fn rows() -> Vec<SourceRow> {
    let resolve = |of, id| Some(Request::resolve(customer(of), TransactionId::new(id)));
    let requests = [
        Some(deposit(1, 11, 100)),
        Some(deposit(2, 21, 50)),
        Some(withdrawal(2, 22, 60)),
        Some(deposit(2, 23, 100)),
        Some(dispute(1, 11)),
        resolve(1, 11),
        None,
        Some(dispute(1, 11)),
        Some(dispute(2, 21)),
        resolve(1, 11),
        Some(deposit(1, 11, 100)),
        Some(dispute(1, 11)),
        Some(withdrawal(3, 31, 1)),
        resolve(1, 11),
        Some(withdrawal(1, 12, 30)),
    ];
    let row = |(request, line): (Option<Request>, u64)| SourceRow {
        request,
        line,
        end_offset: line * 10,
        end_line_count: line,
    };
    requests.into_iter().zip(2..).map(row).collect()
}

fn left<'a>(rows: &'a [SourceRow], mark: &SourceMark) -> &'a [SourceRow] {
    let taken = rows.iter().filter(|row| row.end_offset <= mark.offset).count();
    &rows[taken..]
}

/// Takes in what is left, in batches of few rows, until the stores fail.
fn take(config: &LedgerConfig, stores: &Arc<Stops<MemoryStore>>, rows: &[SourceRow]) -> Result<(), EngineError> {
    let limits = Limits { batch_requests_max: 4, ..Limits::default() };
    let mut driver = Driver::new(config.clone(), Routes::default(), limits, stores.clone(), stores.clone(), 1)?;
    let mut mark = stores.source(SOURCE)?.unwrap_or_else(|| SourceMark::new(SOURCE));
    let mut left = left(rows, &mark);
    while !mark.finished {
        let mut batch = Batch::new(1);
        let next = &left[..left.len().min(4)];
        let ends = next.len() == left.len();
        let taken = driver.run_rows(1_000, &mut batch, next, ends, &mut mark)?;
        stores.sync()?;
        left = &left[taken..];
    }
    Ok(())
}

/// Each customer's state, and by how many events it came about: a dispute and its resolve leave no other trace if they
/// take effect twice.
fn states(chains: &dyn Chains) -> Vec<(CustomerState, usize)> {
    let mut heads = Vec::new();
    chains.list(None, usize::MAX, &mut heads).unwrap();
    assert!(heads.iter().all(|of| of.head.open.is_empty()), "{heads:?}");
    let state = |of: CustomerHead| {
        let mut entries = Vec::new();
        chains.read(of.customer, ReadRange::ALL, &mut entries).unwrap();
        (of.head.state, entries.iter().filter(|entry| entry.status.is_done()).count())
    };
    heads.into_iter().map(state).collect()
}

fn stores(config: &LedgerConfig, calls: u64) -> Arc<Stops<MemoryStore>> {
    Arc::new(Stops::new(MemoryStore::new(config).with_split_batches(), calls))
}

#[test]
fn each_row_takes_effect_once_whatever_interrupts_it() {
    let (config, rows) = (config(), rows());
    let whole = stores(&config, u64::MAX);
    take(&config, &whole, &rows).unwrap();
    let expected = states(&whole.store);
    let mark = whole.store.source(SOURCE).unwrap().unwrap();
    let counts = (mark.counts.applied, mark.counts.already_applied, mark.counts.rejected, mark.counts.unreadable);
    assert_eq!(counts, (11, 1, 2, 1));
    let mut cut_count = 0;
    for first in 0.. {
        let cut = stores(&config, first);
        if take(&config, &cut, &rows).is_ok() {
            break;
        }
        cut_count += 1;
        for second in [3, 11, u64::MAX] {
            cut.calls_left.store(second, Ordering::Relaxed);
            if take(&config, &cut, &rows).is_ok() {
                break;
            }
        }
        let mark = cut.store.source(SOURCE).unwrap().unwrap();
        assert!(mark.finished);
        assert_eq!(mark.counts.total(), rows.len() as u64, "cut off at call {first}");
        assert_eq!(states(&cut.store), expected, "cut off at call {first}");
        let totals = cut.store.totals().unwrap();
        assert_eq!(totals.customer_count, 2);
        let mut lines = cut.store.rejected_lines(SOURCE).unwrap();
        lines.dedup();
        assert_eq!(lines.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 14], "cut off at call {first}");
    }
    assert!(cut_count > 30, "cut off {cut_count} times");
}

/// The position that was copied lies before rows that have taken effect, which the new place must find out.
#[test]
fn rows_that_took_effect_before_a_ledger_moved_do_not_again() {
    let (config, rows) = (config(), rows());
    let whole = stores(&config, u64::MAX);
    take(&config, &whole, &rows).unwrap();
    let expected = states(&whole.store);
    for first in 0.. {
        let cut = stores(&config, first);
        if take(&config, &cut, &rows).is_ok() {
            break;
        }
        let moved = Arc::new(MemoryStore::new(&config));
        let target = Target { chains: &*moved, transactions: &*moved };
        copy(&config.digest(), &cut.store, target, 3, |_| ()).unwrap();
        compare(&cut.store, &*moved).unwrap();
        let ledger =
            Ledger::with_stores(config.clone(), moved.clone(), moved.clone(), LedgerOptions::default()).unwrap();
        let mark = ledger.source(SOURCE).unwrap().unwrap_or_else(|| SourceMark::new(SOURCE));
        let (sender, taken) = channel();
        let left = left(&rows, &mark).to_vec();
        ledger.take_rows_then(SOURCE, left, true, move |taken| sender.send(taken).unwrap()).unwrap();
        taken.recv().unwrap().unwrap();
        assert_eq!(states(&*moved), expected, "cut off at call {first}");
        audit(&ledger);
        ledger.close().unwrap();
    }
}
