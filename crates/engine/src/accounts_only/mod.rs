//! Only the accounts that sources lead to: for jobs that want the balances and nothing else.
//!
//! ```text
//!  reading thread: source ──► rows ──► customers as numbers ──► (a few batches) ──► caller's thread:
//!                                                               transactions ──► core: rules ──► accounts
//! ```
//!
//! The rules, their order, and what is said of each row are those of a ledger. What is left out is what a ledger
//! adds: there are no events, no hashes, no chains, nothing can be read back but the accounts, and nothing is kept.
//! So there is nothing to commit either, and the commit machine has no part in it. Tests hold the accounts, the
//! counts and every refusal against those of a ledger.
//!
//! Customers are numbered in the order in which rows name them; states and transactions refer to the numbers. What
//! the processor would wait for, it is asked for some rows ahead: see `AccountsOnly::warm`.

mod customers;
mod reading;
mod transactions;

use crate::csv::{OpenError, Position, RowBatch, RowReader, Source};
use crate::driver::EngineError;
use crate::ingest::{IngestError, IngestObserver, IngestOptions, IngestReport, tell_earlier};
use crate::ledger::SubmitError;
use crate::store::RowCounts;
use bursar_core::commit::Broken;
use bursar_core::rules::{Known, decide_effect, keeps_invariants};
use bursar_core::{
    Account, CurrencyIndex, CustomerId, CustomerState, LedgerConfig, Rejection, Request, TransactionKind,
    TransactionState,
};
use customers::Customers;
use reading::{Numbered, Reading};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use transactions::{Stored, Transactions};

/// For how many rows is asked ahead.
const WARM_ROWS: usize = 32;

/// The accounts of all sources taken in so far.
#[derive(Debug)]
pub struct AccountsOnly {
    config: LedgerConfig,
    /// Shared with the reading thread, which numbers the customers of the rows it reads.
    customers: Arc<Mutex<Customers>>,
    /// By number: who, and the state.
    states: Vec<(CustomerId, CustomerState)>,
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

/// What became of a request.
enum Taken {
    Applied,
    AlreadyApplied,
    Rejected(Rejection),
}

impl AccountsOnly {
    /// No accounts yet, under these rules and currencies.
    pub fn new(config: LedgerConfig) -> Self {
        Self {
            config,
            customers: Arc::default(),
            states: Vec::new(),
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
        let mut reading = Reading::start(reader, name, self.customers.clone())?;
        let mut report = IngestReport::default();
        let mut known = content.map(|_| KnownSource::default());
        let ended = self.take_all(&mut reading, options, observer, &mut report, &mut known)?;
        if let Some((content, known)) = content.zip(known).filter(|_| ended) {
            self.sources.insert(content, KnownSource { counts: report.counts, ..known });
        }
        Ok(report)
    }

    /// Takes in rows up to the source's end, or until it is to stop; gives whether that was the end.
    fn take_all(
        &mut self,
        reading: &mut Reading,
        options: IngestOptions,
        observer: &mut dyn IngestObserver,
        report: &mut IngestReport,
        known: &mut Option<KnownSource>,
    ) -> Result<bool, IngestError> {
        while let Some(numbered) = reading.next()? {
            if observer.should_stop() {
                report.interrupted = true;
                return Ok(false);
            }
            let rows = numbered.batch.rows();
            let stop_at = rows.iter().position(|row| row.content.is_err()).filter(|_| options.strict);
            if let Some((row, Err(error))) = stop_at.map(|at| (&rows[at], &rows[at].content)) {
                let told = observer.unreadable(numbered.batch.text_of(row), row.line, error);
                told.map_err(IngestError::Observer)?;
                *report.unreadable.entry(error.code()).or_default() += 1;
                report.stopped_at_line = Some(row.line);
            }
            let count = stop_at.unwrap_or(rows.len());
            self.take_rows(&numbered, count, observer, report, known)?;
            observer.progress(&report.counts);
            if stop_at.is_some() {
                return Ok(false);
            }
            reading.give_back(numbered);
        }
        Ok(true)
    }

    fn take_rows(
        &mut self,
        numbered: &Numbered,
        count: usize,
        observer: &mut dyn IngestObserver,
        report: &mut IngestReport,
        known: &mut Option<KnownSource>,
    ) -> Result<(), IngestError> {
        let Numbered { batch, customers } = numbered;
        let before = report.counts;
        let mut at = 0;
        while at < count {
            let end = count.min(at + WARM_ROWS);
            self.warm(batch, customers, at, end);
            for (row, &customer) in batch.rows()[at..end].iter().zip(&customers[at..end]) {
                let told = match &row.content {
                    Err(error) => {
                        report.counts.unreadable += 1;
                        *report.unreadable.entry(error.code()).or_default() += 1;
                        observer.unreadable(batch.text_of(row), row.line, error)
                    }
                    Ok(request) => match self.take(request, customer)? {
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
                            observer.rejected(batch.text_of(row), row.line, &rejection)
                        }
                    },
                };
                told.map_err(IngestError::Observer)?;
            }
            at = end;
        }
        if let (Some(known), Some(last)) = (known, batch.rows()[..count].last()) {
            known.end = Some(last.after);
        }
        report.row_count += count as u64;
        self.counts = self.counts.plus(&report.counts.minus(&before));
        Ok(())
    }

    /// Reads what the next rows will need, and does nothing with it. One row's reading does not depend on another's,
    /// so that the processor waits for many of them at once; when they are decided, one by one, it is all at hand.
    fn warm(&self, batch: &RowBatch, customers: &[u32], from: usize, to: usize) {
        let mut seen = 0;
        for (row, &customer) in batch.rows()[from..to].iter().zip(&customers[from..to]) {
            let Ok(request) = &row.content else { continue };
            let state = self.states.get(customer as usize);
            seen += u32::from(state.is_some_and(|(_, state)| state.locked));
            if let Some(transaction) = request.action.transaction() {
                seen += u32::from(self.transactions.is_at_hand(transaction));
            }
        }
        std::hint::black_box(seen);
    }

    /// Decides a request and makes its change.
    fn take(&mut self, request: &Request, customer: u32) -> Result<Taken, IngestError> {
        let place = customer as usize;
        if self.states.len() <= place {
            self.states.resize(place + 1, (CustomerId::default(), CustomerState::default()));
        }
        let stored = request.action.transaction().and_then(|transaction| self.transactions.get(transaction));
        let existing = stored.map(|stored| TransactionState {
            customer: self.states[stored.customer as usize].0,
            kind: stored.kind,
            amount: stored.amount,
            currency: stored.currency,
            status: stored.status,
        });
        let known = Known { state: existing, reserved: false };
        let (id, state) = &mut self.states[place];
        *id = request.customer;
        let effect = match decide_effect(&self.config, state, known, request) {
            Ok(Some(effect)) => effect,
            Ok(None) => return Ok(Taken::AlreadyApplied),
            Err(rejection) => return Ok(Taken::Rejected(rejection)),
        };
        let (before, after, amount) = (state.accounts.get(effect.currency), effect.account, effect.amount);
        let kind = effect.transaction.map_or(TransactionKind::Deposit, |(_, state)| state.kind);
        if !keeps_invariants(effect.kind, kind, amount, before, after) {
            let broken = Broken::Account { customer: request.customer, before, after, amount };
            return Err(IngestError::Submit(SubmitError::Stopped(Arc::new(EngineError::Broken(broken)))));
        }
        effect.apply(state);
        if let Some((transaction, TransactionState { kind, amount, currency, status, .. })) = effect.transaction {
            self.transactions.put(transaction, Stored { customer, kind, amount, currency, status });
        }
        Ok(Taken::Applied)
    }

    /// All accounts, with whose they are and whether the customer is locked, in order of customer and currency.
    pub fn accounts(&self) -> impl Iterator<Item = (CustomerId, CurrencyIndex, Account, bool)> {
        self.customers().flat_map(|(customer, state)| {
            state.accounts.iter().map(move |(currency, account)| (customer, currency, account, state.locked))
        })
    }

    /// The customers that have accounts, in order of id.
    pub fn customers(&self) -> impl Iterator<Item = (CustomerId, &CustomerState)> {
        let with_accounts = self.states.iter().filter(|(_, state)| !state.accounts.is_empty());
        let mut in_order: Vec<_> = with_accounts.map(|(customer, state)| (*customer, state)).collect();
        in_order.sort_unstable_by_key(|(customer, _)| *customer);
        in_order.into_iter()
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

/// The customers' numbers; a thread that panicked has left nothing half done in them that matters.
fn lock(customers: &Mutex<Customers>) -> std::sync::MutexGuard<'_, Customers> {
    customers.lock().unwrap_or_else(PoisonError::into_inner)
}
