//! Taking in a source of rows: read, decided, durable, and counted, each row exactly once.
//!
//! The caller's thread reads and parses; the ledger's threads decide and make durable, a few batches behind
//! ([`crate::Ledger`]). The source's position is part of every batch, so that an ingest that is interrupted at
//! any moment goes on behind the last row that is durable. A source is known by the SHA-256 of its raw content:
//! the same content is the same source, whatever its name, and is not taken in twice unless that is asked for.
//!
//! What cannot be read twice (standard input, a pipe) has no digest before its end. It is first copied to a file
//! in the ledger's directory, which is removed afterwards; that keeps "exactly once" true for it too.
//!
//! Over stores without whole batches the position follows the events, one batch late at the most. There, rows without an
//! id of their own go under keys ([`crate::driver::Driver::run_rows`]), so that each row takes effect once all the same.
//! Rows that are refused are written down before the events of their batch, and not decided again.

use crate::csv::{Header, OpenError, Position, RowBatch, RowError, RowReader, Source, SourceError};
use crate::driver::SourceRow;
use crate::ledger::{Ledger, ReadError, RowsTaken, SubmitError};
use crate::store::{RowCounts, SourceId, SourceMark};
use bursar_core::commit::Outcome;
use bursar_core::{Hash, Rejection, RejectionInfo};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// How an ingest is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IngestOptions {
    /// Stop before the first row that cannot be read.
    pub strict: bool,
    /// Take the source in although the ledger has it already.
    pub again: bool,
    /// If an earlier run took in a part of the source, tell the observer of the rows that it did not apply.
    pub tell_earlier: bool,
}

/// Hears of an ingest while it goes on. An error of its own stops the ingest at the next batch.
pub trait IngestObserver {
    /// The source was opened; rows are read from `start` on.
    fn opened(&mut self, header: &Header, start: Position) -> io::Result<()>;
    /// A row could not be read.
    fn unreadable(&mut self, text: &[u8], line: u64, error: &RowError) -> io::Result<()>;
    /// A row was refused; it is durable that it was.
    fn rejected(&mut self, text: &[u8], line: u64, rejection: &Rejection) -> io::Result<()>;
    /// An earlier run had refused a row.
    fn rejected_earlier(&mut self, text: &[u8], line: u64, rejection: &'static RejectionInfo) -> io::Result<()>;
    /// So many rows have been taken in by now.
    fn progress(&mut self, counts: &RowCounts);
    /// Whether to stop at the next batch.
    fn should_stop(&self) -> bool;
}

/// What became of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestReport {
    /// All of it was in the ledger before; nothing was done.
    pub already_in: bool,
    /// An earlier run took in the lines before this one.
    pub resumed_at_line: Option<u64>,
    /// It was stopped before its end; the same call goes on from there.
    pub interrupted: bool,
    /// The line of the row that ended a strict ingest.
    pub stopped_at_line: Option<u64>,
    /// What became of the rows by all runs together.
    pub counts: RowCounts,
    /// How many rows this run took in.
    pub row_count: u64,
    /// How many rows of this run were refused, by code.
    pub rejected: BTreeMap<&'static str, u64>,
    /// How many rows of this run could not be read, by code.
    pub unreadable: BTreeMap<&'static str, u64>,
}

/// Why an ingest ended before its time. What was taken in stays, and the same call goes on from there.
#[derive(Debug)]
pub enum IngestError {
    /// The source cannot be read.
    Source(SourceError),
    /// The source's header cannot be used.
    Header(crate::csv::HeaderError),
    /// Reading the source failed in its middle.
    Read {
        /// Which source.
        name: String,
        /// What went wrong.
        error: io::Error,
    },
    /// A source that can be read only once could not be copied into the ledger's directory.
    Spool {
        /// Where to.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// The ledger did not take the rows.
    Submit(SubmitError),
    /// The ledger could not be read.
    Ledger(ReadError),
    /// The observer failed.
    Observer(io::Error),
}

impl fmt::Display for IngestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => error.fmt(f),
            Self::Header(error) => error.fmt(f),
            Self::Read { name, error } => write!(f, "could not read {name}: {error}"),
            Self::Spool { path, error } => write!(f, "could not copy the input to {}: {error}", path.display()),
            Self::Submit(error) => error.fmt(f),
            Self::Ledger(error) => error.fmt(f),
            Self::Observer(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for IngestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Source(error) => Some(error),
            Self::Header(error) => Some(error),
            Self::Read { error, .. } | Self::Spool { error, .. } | Self::Observer(error) => Some(error),
            Self::Submit(error) => Some(error),
            Self::Ledger(error) => Some(error),
        }
    }
}

/// How many batches of rows may be on their way through the ledger.
const BATCHES_IN_FLIGHT_MAX: usize = 8;

type Taken = Result<RowsTaken, SubmitError>;

/// Takes a source into a ledger.
pub fn ingest(
    ledger: &Ledger,
    source: Source,
    options: IngestOptions,
    observer: &mut dyn IngestObserver,
) -> Result<IngestReport, IngestError> {
    let (mut source, _spool) = spooled(ledger, source)?;
    let mark = find_mark(ledger, &mut source, options.again)?;
    let name = source.name().to_owned();
    let mut reader = RowReader::open(source, &ledger.config().currencies).map_err(|error| match error {
        OpenError::Read(error) => IngestError::Read { name: name.clone(), error },
        OpenError::Header(error) => IngestError::Header(error),
    })?;
    let read_error = |error| IngestError::Read { name: name.clone(), error };
    let mut report = IngestReport { counts: mark.counts, already_in: mark.finished, ..IngestReport::default() };
    let start = if mark.offset > 0 { position_of(&mark) } else { reader.position() };
    if mark.offset > 0 {
        report.resumed_at_line = Some(start.line);
    }
    observer.opened(reader.header(), start).map_err(IngestError::Observer)?;
    if options.tell_earlier && mark.offset > 0 {
        let rejected = ledger.rejected_lines(mark.source).map_err(IngestError::Ledger)?;
        tell_earlier(&rejected, &mut reader, mark.offset, observer)?;
    }
    if report.already_in {
        return Ok(report);
    }
    if mark.offset > 0 {
        reader.resume(start).map_err(read_error)?;
    }
    // Of a ledger in a directory that means reading all there is, as telling of earlier rows does anyway.
    let refused_ahead = if ledger.embedded().is_none() || options.tell_earlier {
        refused_ahead(ledger, &mark)?
    } else {
        BTreeMap::new()
    };
    let (sender, taken) = channel();
    let mut ingest = Ingest {
        ledger,
        source: mark.source,
        observer,
        options,
        report,
        sender,
        taken,
        in_flight: VecDeque::new(),
        spare: Vec::new(),
        refused_ahead,
    };
    ingest.run(&mut reader)?;
    Ok(ingest.report)
}

/// Where a mark says that reading goes on.
const fn position_of(mark: &SourceMark) -> Position {
    Position { offset: mark.offset, line: mark.line_count + 1 }
}

/// Rows behind a source's position that an earlier run had refused. They are there only where that run was over stores
/// without whole batches, and was interrupted.
fn refused_ahead(ledger: &Ledger, mark: &SourceMark) -> Result<BTreeMap<u64, &'static RejectionInfo>, IngestError> {
    // A new source has none: nobody has to read for it.
    if mark.finished || ledger.source(mark.source).map_err(IngestError::Ledger)?.is_none() {
        return Ok(BTreeMap::new());
    }
    let lines = ledger.rejected_lines(mark.source).map_err(IngestError::Ledger)?;
    let ahead = lines.into_iter().filter(|(line, _)| *line > mark.line_count);
    Ok(ahead.filter_map(|(line, index)| Some((line, Rejection::ALL.get(usize::from(index))?))).collect())
}

/// How far the ledger has this source; the mark of a new one if it is to be taken in again.
fn find_mark(ledger: &Ledger, source: &mut Source, again: bool) -> Result<SourceMark, IngestError> {
    let digest = source.digest().map_err(IngestError::Source)?;
    let content = digest.map_or_else(name_unread, |digest| digest.sha256);
    let mut id = SourceId(content);
    for round in 1u64.. {
        let mark = ledger.source(id).map_err(IngestError::Ledger)?;
        let mark = mark.unwrap_or_else(|| SourceMark::new(id));
        if !(again && mark.finished) {
            return Ok(mark);
        }
        // The same content once more is a source of its own, so that it too can be interrupted.
        let mut hasher = Sha256::new();
        hasher.update(content);
        hasher.update(round.to_be_bytes());
        id = SourceId(hasher.finalize().into());
    }
    Ok(SourceMark::new(id))
}

/// A name of its own for a source that can be read only once: it is never known again. Whoever wants it to be, in a
/// ledger that outlives it, copies it first, as is done for a ledger with a directory.
fn name_unread() -> [u8; 32] {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut name = [0; 32];
    // Without randomness it is still another one than all before of this process.
    getrandom::fill(&mut name[8..]).unwrap_or_default();
    name[..8].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    name
}

/// A file that is removed in the end.
#[derive(Debug)]
struct Spool(PathBuf);

impl Drop for Spool {
    fn drop(&mut self) {
        // What stays behind is removed when the ledger is opened the next time.
        drop(fs::remove_file(&self.0));
    }
}

/// The source itself if it can be read twice, or there is no directory to copy it to; otherwise a copy.
fn spooled(ledger: &Ledger, mut source: Source) -> Result<(Source, Option<Spool>), IngestError> {
    let Some(store) = ledger.embedded().filter(|_| !source.is_seekable()) else { return Ok((source, None)) };
    let path = store.path().join(format!("input-{}.tmp", std::process::id()));
    let name = source.name().to_owned();
    let spool = Spool(path.clone());
    copy(&mut source, &path).map_err(|error| IngestError::Spool { path: path.clone(), error })?;
    let copy = Source::open_as(&path, name).map_err(IngestError::Source)?;
    Ok((copy, Some(spool)))
}

fn copy(source: &mut Source, path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    io::copy(source, &mut file)?;
    file.flush()
}

/// Tells of the rows that earlier runs did not apply, by reading the source's beginning again, up to `end_offset`.
pub(crate) fn tell_earlier(
    rejected_lines: &[(u64, u8)],
    reader: &mut RowReader<Source>,
    end_offset: u64,
    observer: &mut dyn IngestObserver,
) -> Result<(), IngestError> {
    let rejected: BTreeMap<u64, u8> = rejected_lines.iter().copied().collect();
    let mut batch = RowBatch::new();
    let name = reader.input().name().to_owned();
    while reader.position().offset < end_offset {
        let more = reader.next_batch(&mut batch);
        if !more.map_err(|error| IngestError::Read { name: name.clone(), error })? {
            break;
        }
        for row in batch.rows().iter().take_while(|row| row.after.offset <= end_offset) {
            let told = match (&row.content, rejected.get(&row.line)) {
                (Err(error), _) => observer.unreadable(batch.text_of(row), row.line, error),
                (Ok(_), Some(&index)) => match Rejection::ALL.get(usize::from(index)) {
                    Some(info) => observer.rejected_earlier(batch.text_of(row), row.line, info),
                    None => Ok(()),
                },
                (Ok(_), None) => Ok(()),
            };
            told.map_err(IngestError::Observer)?;
        }
    }
    Ok(())
}

struct Ingest<'a> {
    ledger: &'a Ledger,
    source: SourceId,
    observer: &'a mut dyn IngestObserver,
    options: IngestOptions,
    report: IngestReport,
    sender: Sender<Taken>,
    taken: Receiver<Taken>,
    /// Rows that the ledger has not answered yet, oldest first.
    in_flight: VecDeque<RowBatch>,
    spare: Vec<RowBatch>,
    /// Rows behind the position that an earlier run had refused, by line.
    refused_ahead: BTreeMap<u64, &'static RejectionInfo>,
}

impl Ingest<'_> {
    fn run(&mut self, reader: &mut RowReader<Source>) -> Result<(), IngestError> {
        // Rows are handed over one batch late, so that the last one is known to be the last.
        let mut next = self.read(reader)?;
        let mut ended = false;
        while !ended {
            let Some(batch) = next.take() else {
                self.hand_over(RowBatch::new(), true)?;
                break;
            };
            let stop = self.observer.should_stop();
            if stop {
                self.report.interrupted = true;
                break;
            }
            if self.options.strict
                && let Some(at) = batch.rows().iter().position(|row| row.content.is_err())
            {
                self.stop_at(batch, at)?;
                break;
            }
            next = self.read(reader)?;
            ended = next.is_none();
            self.hand_over(batch, ended)?;
        }
        while !self.in_flight.is_empty() {
            self.hear()?;
        }
        Ok(())
    }

    fn read(&mut self, reader: &mut RowReader<Source>) -> Result<Option<RowBatch>, IngestError> {
        let mut batch = self.spare.pop().unwrap_or_default();
        match reader.next_batch(&mut batch) {
            Ok(true) => Ok(Some(batch)),
            Ok(false) => Ok(None),
            Err(error) => {
                while !self.in_flight.is_empty() {
                    self.hear()?;
                }
                Err(IngestError::Read { name: reader.input().name().to_owned(), error })
            }
        }
    }

    /// Ends a strict ingest before the row at `at`.
    fn stop_at(&mut self, batch: RowBatch, at: usize) -> Result<(), IngestError> {
        let row = batch.rows()[at];
        if let Err(error) = &row.content {
            let told = self.observer.unreadable(batch.text_of(&row), row.line, error);
            told.map_err(IngestError::Observer)?;
            *self.report.unreadable.entry(error.code()).or_default() += 1;
        }
        self.report.stopped_at_line = Some(row.line);
        let rows = source_rows(&batch, at);
        self.submit(rows, false, batch)
    }

    fn hand_over(&mut self, batch: RowBatch, ends: bool) -> Result<(), IngestError> {
        let rows = source_rows(&batch, batch.rows().len());
        self.submit(rows, ends, batch)
    }

    fn submit(&mut self, mut rows: Vec<SourceRow>, ends: bool, batch: RowBatch) -> Result<(), IngestError> {
        while self.in_flight.len() >= BATCHES_IN_FLIGHT_MAX {
            self.hear()?;
        }
        loop {
            let sender = self.sender.clone();
            // If the receiver is gone, the ingest has failed already.
            let submitted = self.ledger.take_rows_then(self.source, rows, ends, move |taken| drop(sender.send(taken)));
            match submitted {
                Ok(()) => break,
                // Other callers fill the queue: wait for what is ours in it, or let them go on.
                Err((SubmitError::Busy, given_back)) => {
                    rows = given_back;
                    if self.in_flight.is_empty() {
                        std::thread::yield_now();
                    } else {
                        self.hear()?;
                    }
                }
                Err((error, _)) => return Err(IngestError::Submit(error)),
            }
        }
        self.in_flight.push_back(batch);
        while let Ok(taken) = self.taken.try_recv() {
            self.take(taken)?;
        }
        Ok(())
    }

    /// Waits for the ledger's next answer.
    fn hear(&mut self) -> Result<(), IngestError> {
        let taken = self.taken.recv().unwrap_or(Err(SubmitError::Closed));
        self.take(taken)
    }

    fn take(&mut self, taken: Taken) -> Result<(), IngestError> {
        let RowsTaken { row_count, without_event, mark } = taken.map_err(IngestError::Submit)?;
        let Some(batch) = self.in_flight.pop_front() else { return Ok(()) };
        let mut without_event = without_event.iter().peekable();
        for (place, row) in batch.rows().iter().enumerate().take(row_count) {
            let outcome = without_event.next_if(|(other, _)| *other == place).map(|(_, outcome)| outcome);
            let told = match (&row.content, outcome) {
                (Err(error), _) => {
                    *self.report.unreadable.entry(error.code()).or_default() += 1;
                    self.observer.unreadable(batch.text_of(row), row.line, error)
                }
                (Ok(_), Some(Outcome::Rejected(rejection))) => {
                    *self.report.rejected.entry(rejection.code()).or_default() += 1;
                    self.observer.rejected(batch.text_of(row), row.line, rejection)
                }
                (Ok(_), Some(Outcome::Applied(_) | Outcome::AlreadyApplied(_))) => Ok(()),
                (Ok(_), None) => match self.refused_ahead.get(&row.line) {
                    Some(info) => self.observer.rejected_earlier(batch.text_of(row), row.line, info),
                    None => Ok(()),
                },
            };
            told.map_err(IngestError::Observer)?;
        }
        self.report.row_count += row_count as u64;
        self.report.counts = mark.counts;
        self.observer.progress(&mark.counts);
        self.spare.push(batch);
        Ok(())
    }
}

/// The first rows of a batch as the ledger takes them.
fn source_rows(batch: &RowBatch, count: usize) -> Vec<SourceRow> {
    let rows = batch.rows().iter().take(count);
    rows.map(|row| SourceRow {
        request: row.content.ok(),
        line: row.line,
        end_offset: row.after.offset,
        end_line_count: row.after.line - 1,
    })
    .collect()
}

/// The identity of a source, for people.
impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hash(self.0).fmt(f)
    }
}
