//! What is seen of an ingest while it goes on: rows that cannot be read on standard error, progress, rejects.

use super::rejects::Rejects;
use crate::exit::note;
use crate::interrupt::Interrupt;
use crate::progress::{Progress, grouped};
use bursar_core::{Currencies, Rejection, RejectionInfo};
use bursar_engine::csv::{Diagnostic, Header, Position, RowError, Source};
use bursar_engine::ingest::IngestObserver;
use bursar_engine::store::RowCounts;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many rows that cannot be read are shown of all sources, unless all are asked for.
const ERRORS_SHOWN_MAX: u64 = 50;

/// How an ingest is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Show {
    /// Colours on standard error.
    pub(crate) colored: bool,
    /// Every row that cannot be read.
    pub(crate) all_errors: bool,
    /// No notes and no progress.
    pub(crate) quiet: bool,
}

/// Observes sources, one after the other.
pub(crate) struct Observer<'a> {
    show: Show,
    currencies: &'a Currencies,
    interrupt: &'a Interrupt,
    rejects: Option<Rejects>,
    name: String,
    /// Rows before this line were taken in by an earlier run.
    start_line: u64,
    progress: Progress,
    raw_read: Arc<AtomicU64>,
    error_count: u64,
}

impl<'a> Observer<'a> {
    /// An observer that has seen nothing yet.
    pub(crate) fn new(
        show: Show,
        currencies: &'a Currencies,
        interrupt: &'a Interrupt,
        rejects: Option<Rejects>,
    ) -> Self {
        let (name, raw_read) = (String::new(), Arc::default());
        let progress = Progress::new(None, true);
        Self { show, currencies, interrupt, rejects, name, start_line: 1, progress, raw_read, error_count: 0 }
    }

    /// The next source comes.
    pub(crate) fn begin(&mut self, source: &Source) {
        source.name().clone_into(&mut self.name);
        self.raw_read = source.raw_read();
        self.progress = Progress::new(source.raw_total(), self.show.quiet);
    }

    /// The source has come to its end.
    pub(crate) fn end(&mut self) {
        std::mem::replace(&mut self.progress, Progress::new(None, true)).finish();
    }

    /// Where rejects go that could not be written.
    pub(crate) fn rejects_path(&self) -> std::path::PathBuf {
        self.rejects.as_ref().map(Rejects::path).unwrap_or_default()
    }

    /// All sources have come to their ends.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        let more = self.error_count.saturating_sub(ERRORS_SHOWN_MAX);
        if more > 0 && !self.show.all_errors {
            note(&format_args!("... and {} more rows that cannot be read; `--all-errors` shows them", grouped(more)));
        }
        self.rejects.as_mut().map_or(Ok(()), Rejects::finish)
    }
}

impl Observer<'_> {
    /// Who asks to stop.
    pub(crate) const fn interrupt(&self) -> &Interrupt {
        self.interrupt
    }

    /// A server has refused a row.
    pub(crate) fn refused(&mut self, text: &[u8], line: u64, code: &str, reason: &str) -> io::Result<()> {
        let writer = self.rejects.as_mut().and_then(Rejects::writer);
        writer.map_or(Ok(()), |writer| writer.refused(text, line, code, &reason))
    }
}

impl IngestObserver for Observer<'_> {
    fn opened(&mut self, header: &Header, start: Position) -> io::Result<()> {
        self.start_line = start.line;
        if let ([_, ..], false) = (header.ignored(), self.show.quiet) {
            let columns = header.ignored().join(", ");
            self.progress.suspend(|| note(&format_args!("note: {}: ignored columns: {columns}", self.name)));
        }
        self.rejects.as_mut().map_or(Ok(()), |rejects| rejects.open(header))
    }

    fn unreadable(&mut self, text: &[u8], line: u64, error: &RowError) -> io::Result<()> {
        if line >= self.start_line {
            self.error_count += 1;
            if self.show.all_errors || self.error_count <= ERRORS_SHOWN_MAX {
                let diagnostic = Diagnostic::new(&self.name, line, text, error).colour(self.show.colored);
                self.progress.suspend(|| note(&format_args!("{diagnostic}\n")));
            }
        }
        let writer = self.rejects.as_mut().and_then(Rejects::writer);
        writer.map_or(Ok(()), |writer| writer.unreadable(text, line, error))
    }

    fn rejected(&mut self, text: &[u8], line: u64, rejection: &Rejection) -> io::Result<()> {
        let writer = self.rejects.as_mut().and_then(Rejects::writer);
        let sentence = rejection.sentence(self.currencies);
        writer.map_or(Ok(()), |writer| writer.refused(text, line, rejection.code(), &sentence))
    }

    fn rejected_earlier(&mut self, text: &[u8], line: u64, rejection: &'static RejectionInfo) -> io::Result<()> {
        let writer = self.rejects.as_mut().and_then(Rejects::writer);
        writer.map_or(Ok(()), |writer| writer.refused(text, line, rejection.code, &rejection.meaning))
    }

    fn progress(&mut self, counts: &RowCounts) {
        self.progress.update(self.raw_read.load(Ordering::Relaxed), counts.total());
    }

    fn should_stop(&self) -> bool {
        self.interrupt.is_asked()
    }
}
