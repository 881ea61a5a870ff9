//! `bursar ingest --server`: rows are read here, sent as one batch for each source, and their outcomes read meanwhile.
//!
//! ```text
//!  source ─► RowReader ─► batch (a thread) ═► server
//!                │                              ║
//!                └─► rows on their way ─► here ◄╝ outcomes, in order ─► observer: rejects, progress
//! ```
//!
//! Rows are read by the same reader as for a directory, so that what cannot be read is told and counted alike; it is not
//! sent. Memory does not depend on the length: a few batches of rows are on their way, no more.
//!
//! A server does not remember how far a source got. Sent again, deposits and withdrawals are already applied.

use super::observer::Observer;
use crate::book::remote::{Remote, submission};
use crate::codes::all_codes;
use crate::exit::{Failure, FailureKind};
use crate::interrupt::Interrupt;
use crate::progress::grouped;
use bursar_client::blocking::{Outcomes, Sender};
use bursar_client::{Error, RowProblem, RowResult};
use bursar_core::Currencies;
use bursar_engine::csv::{OpenError, Position, Row, RowBatch, RowReader, Source};
use bursar_engine::ingest::{IngestError, IngestObserver, IngestOptions, IngestReport};
use bursar_engine::store::RowCounts;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Batches of rows that are sent ahead of their outcomes.
const BATCHES_AHEAD: usize = 4;

/// A server that takes in sources.
pub(crate) struct RemoteTarget<'a> {
    remote: &'a Remote,
    counts: RowCounts,
}

/// Why a source was not taken in to its end.
pub(crate) enum RemoteError {
    /// For a reason that a directory has as well.
    Local(IngestError),
    /// Because of the server.
    Server(Failure),
}

impl From<IngestError> for RemoteError {
    fn from(error: IngestError) -> Self {
        Self::Local(error)
    }
}

/// What may be done after an end before the end.
pub(crate) fn sent_again() -> &'static str {
    FailureKind::RowsUndecided.info().hint
}

/// What the thread that reads and sends says.
enum Sent {
    /// So many rows of this batch are on their way; those that cannot be read are not.
    Rows(Arc<RowBatch>, usize),
    /// The row at this place cannot be read, and nothing behind it is sent.
    StoppedAt(Arc<RowBatch>, usize),
    /// Somebody asked to stop.
    Interrupted,
    /// The source cannot be read any further.
    Failed(io::Error),
}

impl<'a> RemoteTarget<'a> {
    pub(crate) fn new(remote: &'a Remote) -> Self {
        Self { remote, counts: RowCounts::default() }
    }

    pub(crate) const fn currencies(&self) -> &Currencies {
        self.remote.currencies()
    }

    /// What became of the rows of all sources so far.
    pub(crate) const fn counts(&self) -> RowCounts {
        self.counts
    }

    /// Takes in a source.
    pub(crate) fn ingest(
        &mut self,
        source: Source,
        options: IngestOptions,
        observer: &mut Observer<'_>,
    ) -> Result<IngestReport, RemoteError> {
        let name = source.name().to_owned();
        let reader = RowReader::open(source, self.currencies()).map_err(|error| match error {
            OpenError::Read(error) => IngestError::Read { name: name.clone(), error },
            OpenError::Header(error) => IngestError::Header(error),
        })?;
        observer.opened(reader.header(), Position::START).map_err(IngestError::Observer)?;
        let begun = self.remote.client().batch();
        let (sender, outcomes) = begun.map_err(|error| RemoteError::Server(error.into()))?;
        let (to_here, sent) = sync_channel(BATCHES_AHEAD);
        let (currencies, interrupt) = (self.currencies().clone(), observer.interrupt().clone());
        let sending = Sending { reader, sender, to_here, currencies, strict: options.strict, interrupt };
        // Not waited for where the batch ends early: it may be reading a pipe that says nothing for hours.
        drop(std::thread::spawn(move || sending.run()));
        let (before, report) = (self.counts, IngestReport::default());
        let undecided = Undecided::default();
        let mut hearing = Hearing { name, outcomes, observer, report, row_count: 0, undecided, last_line: None };
        let heard = hearing.run(&sent);
        self.counts = before.plus(&hearing.report.counts);
        heard?;
        Ok(hearing.report)
    }
}

/// Reads rows and sends them, on a thread of its own.
struct Sending {
    reader: RowReader<Source>,
    sender: Sender,
    to_here: SyncSender<Sent>,
    currencies: Currencies,
    strict: bool,
    interrupt: Interrupt,
}

/// Nobody waits for rows any more.
struct Over;

impl Sending {
    fn run(mut self) {
        // Whoever hears of the outcomes knows why it was over.
        let Ok(()) = self.send_all() else { return };
        drop(self.sender.finish());
    }

    fn tell(&self, sent: Sent) -> Result<(), Over> {
        self.to_here.send(sent).map_err(|_| Over)
    }

    fn send_all(&mut self) -> Result<(), Over> {
        loop {
            let mut batch = RowBatch::new();
            match self.reader.next_batch(&mut batch) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return self.tell(Sent::Failed(error)),
            }
            if self.interrupt.is_asked() {
                return self.tell(Sent::Interrupted);
            }
            let batch = Arc::new(batch);
            let bad = batch.rows().iter().position(|row| row.content.is_err()).filter(|_| self.strict);
            let count = bad.unwrap_or(batch.rows().len());
            // As for a directory: what ends a strict ingest is told before the rows that come before it.
            if let Some(at) = bad {
                self.tell(Sent::StoppedAt(batch.clone(), at))?;
            }
            // Told first: the server goes on only while its outcomes are read.
            self.tell(Sent::Rows(batch.clone(), count))?;
            for request in batch.rows().iter().take(count).filter_map(|row| row.content.as_ref().ok()) {
                self.sender.send(&submission(request, &self.currencies)).map_err(|_| Over)?;
            }
            self.sender.flush().map_err(|_| Over)?;
            if bad.is_some() {
                return Ok(());
            }
        }
    }
}

/// Rows that the server did not decide.
#[derive(Default)]
struct Undecided {
    count: u64,
    /// The first of them.
    first: Option<(u64, RowProblem)>,
}

/// Reads outcomes, and tells the observer of them.
struct Hearing<'a, 'o> {
    name: String,
    outcomes: Outcomes,
    observer: &'a mut Observer<'o>,
    report: IngestReport,
    /// Rows that were sent and have their outcome.
    row_count: u64,
    undecided: Undecided,
    /// The line of the last row that has its outcome.
    last_line: Option<u64>,
}

impl Hearing<'_, '_> {
    fn run(&mut self, sent: &Receiver<Sent>) -> Result<(), RemoteError> {
        let mut failed = None;
        while let Ok(next) = sent.recv() {
            match next {
                Sent::Rows(batch, count) => {
                    for row in batch.rows().iter().take(count) {
                        self.hear(&batch, row)?;
                    }
                    self.observer.progress(&self.report.counts);
                }
                Sent::StoppedAt(batch, at) => {
                    let row = &batch.rows()[at];
                    self.unreadable(&batch, row, false)?;
                    self.report.stopped_at_line = Some(row.line);
                }
                Sent::Interrupted => self.report.interrupted = true,
                Sent::Failed(error) => failed = Some(error),
            }
        }
        match self.outcomes.next_in_time() {
            Ok(None) => {}
            Ok(Some(_)) => return Err(self.ended(&Error::NotUnderstood("there are more outcomes than rows".into()))),
            Err(error) => return Err(self.ended(&error)),
        }
        self.report.row_count = self.report.counts.total();
        if let Some(error) = failed {
            return Err(IngestError::Read { name: self.name.clone(), error }.into());
        }
        if let Some((line, problem)) = self.undecided.first.take() {
            let (count, name) = (grouped(self.undecided.count), &self.name);
            let sentence =
                format!("{name}: {count} rows were not decided, the first in line {line}: {}", problem.detail);
            return Err(RemoteError::Server(Failure::new(FailureKind::RowsUndecided, sentence)));
        }
        Ok(())
    }

    fn hear(&mut self, batch: &RowBatch, row: &Row) -> Result<(), RemoteError> {
        if row.content.is_err() {
            return self.unreadable(batch, row, true);
        }
        let outcome = match self.outcomes.next_in_time() {
            Ok(Some(outcome)) if outcome.row == self.row_count + 1 => outcome,
            Ok(Some(_) | None) => {
                return Err(self.ended(&Error::NotUnderstood("outcomes and rows do not fit each other".into())));
            }
            Err(error) => return Err(self.ended(&error)),
        };
        self.row_count += 1;
        self.last_line = Some(row.line);
        let counts = &mut self.report.counts;
        match outcome.result {
            RowResult::Applied(_) => counts.applied += 1,
            RowResult::AlreadyApplied => counts.already_applied += 1,
            RowResult::Refused(problem) => {
                counts.rejected += 1;
                *self.report.rejected.entry(known(&problem.code)).or_default() += 1;
                self.refused(batch, row, &problem)?;
            }
            // What could be read here: the key may not ask for it, or server and program read differently.
            RowResult::NotTaken(problem) => {
                counts.unreadable += 1;
                *self.report.unreadable.entry(known(&problem.code)).or_default() += 1;
                self.refused(batch, row, &problem)?;
            }
            RowResult::Undecided(problem) => {
                self.undecided.count += 1;
                self.refused(batch, row, &problem)?;
                self.undecided.first.get_or_insert((row.line, problem));
            }
        }
        Ok(())
    }

    fn refused(&mut self, batch: &RowBatch, row: &Row, problem: &RowProblem) -> Result<(), RemoteError> {
        let told = self.observer.refused(batch.text_of(row), row.line, &problem.code, &problem.detail);
        Ok(told.map_err(IngestError::Observer)?)
    }

    fn unreadable(&mut self, batch: &RowBatch, row: &Row, counts: bool) -> Result<(), RemoteError> {
        let Err(error) = &row.content else { return Ok(()) };
        if counts {
            self.report.counts.unreadable += 1;
        }
        *self.report.unreadable.entry(error.code()).or_default() += 1;
        Ok(self.observer.unreadable(batch.text_of(row), row.line, error).map_err(IngestError::Observer)?)
    }

    /// The batch has ended before its end.
    fn ended(&self, error: &Error) -> RemoteError {
        let name = &self.name;
        let reached = match self.last_line {
            Some(line) => format!("rows up to line {line} have their outcome; the rest may be in effect or not"),
            None => "no row has an outcome; they may be in effect or not".to_owned(),
        };
        RemoteError::Server(Failure::new(FailureKind::RowsUndecided, format!("{name}: {error}; {reached}")))
    }
}

/// A server's code as one that this program knows.
fn known(code: &str) -> &'static str {
    all_codes().find(|info| info.code == code).map_or("unknown_code", |info| info.code)
}
