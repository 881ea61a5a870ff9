//! Only the accounts that sources lead to: for jobs that want the balances and nothing else.
//!
//! ```text
//!  reading threads: source ──► rows ──► customers as numbers ──► (a few batches, in order) ──► caller's thread:
//!                                                                transactions ──► core: rules ──► accounts
//! ```
//!
//! The rules, their order, and what is said of each row are those of a ledger. What is left out is what a ledger
//! adds: there are no events, no hashes, no chains, nothing can be read back but the accounts, and nothing is kept.
//! So there is nothing to commit either, and the commit machine has no part in it. Tests hold the accounts, the
//! counts and every refusal against those of a ledger.
//!
//! Customers are numbered by the threads that read, in no order that means anything; states and transactions refer to
//! the numbers. Parsing is spread over threads ([`crate::csv::RowsAhead`]); deciding is not, so that it is made
//! short. What the processor would wait for, it is asked for some rows ahead: see `AccountsOnly::warm`.

mod customers;
mod states;
mod steps;
mod transactions;

use crate::csv::{OpenError, Position, Prepared, Row, RowError, RowReader, RowsAhead, Source};
use crate::driver::EngineError;
use crate::ingest::{IngestError, IngestObserver, IngestOptions, IngestReport, tell_earlier};
use crate::ledger::SubmitError;
use crate::store::{RowCounts, StoreError};
use bursar_core::commit::Broken;
use bursar_core::rules::{Known, decide_effect, keeps_invariants, moved};
use bursar_core::{
    Account, CurrencyIndex, CustomerId, CustomerState, LedgerConfig, Rejection, Request, RequestKind, TransactionKind,
    TransactionState,
};
use customers::Customers;
use states::States;
use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use steps::{Step, by_number, lock, prepare};
use transactions::{Stored, Transactions};

/// For how many rows, or customers, is asked ahead.
const WARM_ROWS: usize = 128;

/// The accounts of all sources taken in so far.
#[derive(Debug)]
pub struct AccountsOnly {
    config: LedgerConfig,
    /// Shared with the reading threads, which number the customers of the rows they read.
    customers: Arc<Mutex<Customers>>,
    states: States,
    transactions: Transactions,
    counts: RowCounts,
    /// The sources that are known by their content.
    sources: BTreeMap<[u8; 32], KnownSource>,
}

/// A source that was taken in to its end.
#[derive(Debug, Default)]
struct KnownSource {
    counts: RowCounts,
    /// The place behind its last row; `None` where there was none.
    end: Option<Position>,
    /// As [`crate::store::SourceMark::rejected_lines`].
    rejected_lines: Vec<(u64, u8)>,
}

/// What became of a row.
enum Taken {
    Applied,
    AlreadyApplied,
    Rejected(Rejection),
    /// The row could not be read.
    Unreadable(RowError),
}

impl AccountsOnly {
    /// No accounts yet, under these rules and currencies.
    pub fn new(config: LedgerConfig) -> Self {
        Self {
            config,
            customers: Arc::default(),
            states: States::default(),
            transactions: Transactions::default(),
            counts: RowCounts::default(),
            sources: BTreeMap::new(),
        }
    }

    /// The rules and currencies.
    pub const fn config(&self) -> &LedgerConfig {
        &self.config
    }

    /// What became of all rows so far.
    pub const fn counts(&self) -> RowCounts {
        self.counts
    }

    /// Takes in a source, as [`crate::ingest::ingest`] does with a ledger. With the option `again` its content is
    /// not looked at beforehand, and it will not be known again. A source that was stopped cannot be gone on with.
    pub fn ingest(
        &mut self,
        mut source: Source,
        options: IngestOptions,
        observer: &mut dyn IngestObserver,
    ) -> Result<IngestReport, IngestError> {
        let name = source.name().to_owned();
        let digest = if options.again { None } else { source.digest().map_err(IngestError::Source)? };
        let reader = RowReader::open(source, &self.config.currencies).map_err(|error| match error {
            OpenError::Read(error) => IngestError::Read { name: name.clone(), error },
            OpenError::Header(error) => IngestError::Header(error),
        })?;
        let content = digest.map(|digest| digest.sha256);
        if let Some(known) = content.and_then(|content| self.sources.get(&content)) {
            return known.tell(reader, options, observer);
        }
        observer.opened(reader.header(), reader.position()).map_err(IngestError::Observer)?;
        let customers = Arc::clone(&self.customers);
        let thread_count = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let ahead = RowsAhead::start(reader, thread_count, move |rows, steps| prepare(rows, &customers, steps));
        let mut ahead = ahead.map_err(|error| {
            let (doing, path) = ("start a thread", PathBuf::new());
            stopped(StoreError::Io { doing, path, error: Arc::new(error) }.into())
        })?;
        let read_error = |error| IngestError::Read { name: name.clone(), error };
        let mut report = IngestReport::default();
        let mut known = content.map(|_| KnownSource::default());
        let ended = self.take_all(&mut ahead, &read_error, options, observer, &mut report, &mut known)?;
        if let Some((content, known)) = content.zip(known).filter(|_| ended) {
            self.sources.insert(content, KnownSource { counts: report.counts, ..known });
        }
        Ok(report)
    }

    /// Takes in rows up to the source's end, or until it is to stop; gives whether that was the end.
    fn take_all(
        &mut self,
        ahead: &mut RowsAhead<Vec<Step>>,
        read_error: &dyn Fn(io::Error) -> IngestError,
        options: IngestOptions,
        observer: &mut dyn IngestObserver,
        report: &mut IngestReport,
        known: &mut Option<KnownSource>,
    ) -> Result<bool, IngestError> {
        while let Some(batch) = ahead.next_batch().map_err(read_error)? {
            if observer.should_stop() {
                report.interrupted = true;
                return Ok(false);
            }
            let rows = batch.rows.rows();
            let first_unreadable = || rows.iter().position(|row| row.content.is_err());
            let stop_at = if options.strict { first_unreadable() } else { None };
            if let Some((row, Err(error))) = stop_at.map(|at| (&rows[at], &rows[at].content)) {
                let told = observer.unreadable(batch.rows.text_of(row), row.line, error);
                told.map_err(IngestError::Observer)?;
                *report.unreadable.entry(error.code()).or_default() += 1;
                report.stopped_at_line = Some(row.line);
            }
            let count = stop_at.unwrap_or(rows.len());
            self.take_rows(&batch, count, observer, report, known)?;
            observer.progress(&report.counts);
            if stop_at.is_some() {
                return Ok(false);
            }
            ahead.give_back(batch);
        }
        Ok(true)
    }

    fn take_rows(
        &mut self,
        batch: &Prepared<Vec<Step>>,
        count: usize,
        observer: &mut dyn IngestObserver,
        report: &mut IngestReport,
        known: &mut Option<KnownSource>,
    ) -> Result<(), IngestError> {
        let rows = &batch.rows.rows()[..count];
        let before = report.counts;
        for (rows, steps) in rows.chunks(WARM_ROWS).zip(batch.made[..count].chunks(WARM_ROWS)) {
            self.warm(steps);
            for (row, step) in rows.iter().zip(steps) {
                if self.take_simple(step) {
                    report.counts.applied += 1;
                    continue;
                }
                let told = match self.take(step, row)? {
                    Taken::Applied => {
                        report.counts.applied += 1;
                        continue;
                    }
                    Taken::AlreadyApplied => {
                        report.counts.already_applied += 1;
                        continue;
                    }
                    Taken::Rejected(rejection) => {
                        report.counts.rejected += 1;
                        *report.rejected.entry(rejection.code()).or_default() += 1;
                        if let Some(known) = known {
                            known.rejected_lines.push((row.line, rejection.precedence() as u8));
                        }
                        observer.rejected(batch.rows.text_of(row), row.line, &rejection)
                    }
                    Taken::Unreadable(error) => {
                        report.counts.unreadable += 1;
                        *report.unreadable.entry(error.code()).or_default() += 1;
                        observer.unreadable(batch.rows.text_of(row), row.line, &error)
                    }
                };
                told.map_err(IngestError::Observer)?;
            }
        }
        if let (Some(known), Some(last)) = (known, rows.last()) {
            known.end = Some(last.after);
        }
        report.row_count += count as u64;
        self.counts = self.counts.plus(&report.counts.minus(&before));
        Ok(())
    }

    /// Reads what the next rows will need, and does nothing with it. One row's reading does not depend on another's,
    /// so that the processor waits for many of them at once; when they are decided, one by one, it is all at hand.
    fn warm(&self, steps: &[Step]) {
        let mut seen = 0;
        for step in steps {
            seen += u32::from(self.states.warm(step.customer));
        }
        for step in steps {
            if let Some(transaction) = step.transaction() {
                seen += u32::from(self.transactions.is_at_hand(transaction));
            }
        }
        std::hint::black_box(seen);
    }

    /// Makes the change of what most rows are: a deposit or a withdrawal that is accepted, with an id that is new, of
    /// a customer with an account. `false`: it is something else, or the rules refuse it, and nothing has changed.
    #[inline]
    fn take_simple(&mut self, step: &Step) -> bool {
        let Some((transaction, stored)) = step.new_transaction() else { return false };
        let Stored { customer, kind, amount, currency, .. } = stored;
        let Some((locked, before)) = self.states.account(customer, currency) else { return false };
        // An account in this currency shows that the ledger has it.
        let after = moved(self.config.policy.locked, locked, before, kind, currency, amount);
        let request = match kind {
            TransactionKind::Deposit => RequestKind::Deposit,
            TransactionKind::Withdrawal => RequestKind::Withdrawal,
        };
        let Ok(after) = after else { return false };
        let is_sound = amount.is_positive() && keeps_invariants(request, kind, amount, before, after);
        let is_done = is_sound && self.transactions.put_new(transaction, stored);
        if is_done {
            self.states.set_account(customer, currency, after);
        }
        is_done
    }

    /// Decides a row and makes its change. `row` is looked at only where the step does not say all of it.
    fn take(&mut self, step: &Step, row: &Row) -> Result<Taken, IngestError> {
        let customer = step.customer;
        let request = match (step.movement(), &row.content) {
            (Some(request), _) => request,
            (None, Ok(request)) => Request { customer: by_number(customer), ..*request },
            (None, Err(error)) => return Ok(Taken::Unreadable(*error)),
        };
        let stored = step.transaction().and_then(|transaction| self.transactions.get(transaction));
        let state = self.states.get(customer);
        let stored = stored.map(|stored| stored.state(by_number(stored.customer)));
        let known = Known { state: stored.as_ref(), reserved: false };
        let effect = match decide_effect(&self.config, &state, known, &request) {
            Ok(Some(effect)) => effect,
            Ok(None) => return Ok(Taken::AlreadyApplied),
            Err(rejection) => return Ok(Taken::Rejected(self.named(rejection))),
        };
        let (before, after, amount) = (state.accounts.get(effect.currency), effect.account, effect.amount);
        let kind = effect.transaction.map_or(TransactionKind::Deposit, |(_, state)| state.kind);
        if !keeps_invariants(effect.kind, kind, amount, before, after) {
            let broken = Broken::Account { customer: lock(&self.customers).id(customer), before, after, amount };
            return Err(stopped(EngineError::Broken(broken)));
        }
        self.states.apply(customer, &effect);
        if let Some((transaction, TransactionState { kind, amount, currency, status, .. })) = effect.transaction {
            self.transactions.put(transaction, Stored { customer, kind, amount, currency, status });
        }
        Ok(Taken::Applied)
    }

    /// A rejection with the customer in place of the number, where it tells of one.
    fn named(&self, rejection: Rejection) -> Rejection {
        let Rejection::TransactionIdTaken { existing } = rejection else { return rejection };
        let customer = lock(&self.customers).id(existing.customer.bits() as u32);
        Rejection::TransactionIdTaken { existing: TransactionState { customer, ..existing } }
    }

    /// All accounts, with whose they are and whether the customer is locked, in order of customer and currency.
    pub fn accounts(&self) -> impl Iterator<Item = (CustomerId, CurrencyIndex, Account, bool)> {
        let in_order = lock(&self.customers).in_order();
        (0..in_order.len()).flat_map(move |at| {
            if at % WARM_ROWS == 0 {
                let next = in_order[at..].iter().take(WARM_ROWS);
                std::hint::black_box(next.filter(|(_, number)| self.states.warm(*number)).count());
            }
            let (customer, number) = in_order[at];
            let (locked, accounts) = self.states.accounts(number);
            accounts.map(move |(currency, account)| (customer, currency, account, locked))
        })
    }

    /// The customers that have accounts, in order of id.
    pub fn customers(&self) -> impl Iterator<Item = (CustomerId, CustomerState)> {
        let in_order = lock(&self.customers).in_order().into_iter();
        in_order.map(|(id, number)| (id, self.states.get(number))).filter(|(_, state)| !state.accounts.is_empty())
    }
}

impl KnownSource {
    /// Says that it was taken in before.
    fn tell(
        &self,
        mut reader: RowReader<Source>,
        options: IngestOptions,
        observer: &mut dyn IngestObserver,
    ) -> Result<IngestReport, IngestError> {
        let start = self.end.unwrap_or(reader.position());
        observer.opened(reader.header(), start).map_err(IngestError::Observer)?;
        if let Some(end) = self.end.filter(|_| options.tell_earlier) {
            tell_earlier(&self.rejected_lines, &mut reader, end.offset, observer)?;
        }
        let resumed_at_line = self.end.map(|end| end.line);
        Ok(IngestReport { already_in: true, resumed_at_line, counts: self.counts, ..IngestReport::default() })
    }
}

fn stopped(error: EngineError) -> IngestError {
    IngestError::Submit(SubmitError::Stopped(Arc::new(error)))
}
