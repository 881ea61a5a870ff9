//! `bursar ingest`

use super::accounts;
use super::changes::print_changes;
use crate::book::Book;
use crate::checked::{Ingest, Source};
use crate::cli::Global;
use crate::config;
use crate::exit::{Exit, Failure, FailureKind, note};
use crate::ingest::observer::{Observer, Show};
use crate::ingest::rejects::Rejects;
use crate::ingest::remote::{RemoteError, RemoteTarget, sent_again};
use crate::ingest::summary::{Summary, all_counts};
use crate::ingest::trial;
use crate::interrupt::Interrupt;
use crate::ledger_dir::{default_config, open_or_create};
use crate::output::Format;
use crate::progress::grouped;
use bursar_core::Currencies;
use bursar_core::commit::Routes;
use bursar_engine::accounts_only::AccountsOnly;
use bursar_engine::csv::{self, Diagnostic, HeaderError};
use bursar_engine::embedded::EmbeddedStore;
use bursar_engine::ingest::{IngestError, IngestOptions, IngestReport, ingest};
use bursar_engine::store::RowCounts;
use bursar_engine::{Ledger, LedgerOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;
use tempfile::NamedTempFile;

/// Applies files, and prints all accounts or what would change.
pub(crate) fn run(global: &Global, asked: &Ingest, show: Show, format: Format) -> Result<Exit, Failure> {
    let interrupt = Interrupt::listen();
    if asked.dry_run {
        return dry_run(global, asked, show, &interrupt, format);
    }
    if asked.in_memory {
        let mut accounts = AccountsOnly::new(default_config()?);
        let exit = take_all(&mut Target::AccountsOnly(&mut accounts), asked, show, &interrupt)?;
        if exit == Exit::Done && asked.report {
            accounts::print_only(&accounts, format)?;
        }
        return Ok(exit);
    }
    if let Some(remote) = global.remote()? {
        let exit = take_all(&mut Target::Server(RemoteTarget::new(&remote)), asked, show, &interrupt)?;
        if exit == Exit::Done && asked.report {
            accounts::print(&Book::Server(remote), None, format)?;
        }
        return Ok(exit);
    }
    let ledger = open_or_create(global)?;
    let done = take_all(&mut Target::Ledger(&ledger), asked, show, &interrupt).and_then(|exit| {
        if exit == Exit::Done && asked.report {
            accounts::print(&Book::Directory(&ledger), None, format)?;
        }
        Ok(exit)
    });
    let closed = ledger.close();
    let exit = done?;
    closed?;
    Ok(exit)
}

/// The same on a trial ledger; what has changed there is printed.
fn dry_run(
    global: &Global,
    asked: &Ingest,
    show: Show,
    interrupt: &Interrupt,
    format: Format,
) -> Result<Exit, Failure> {
    // Rows that would go through a rail are refused, as they would be.
    let options = |is_kept_nowhere: bool| -> Result<LedgerOptions, Failure> {
        let routes = if is_kept_nowhere { Routes::default() } else { config::without_secrets(global)?.routes };
        Ok(LedgerOptions { routes, ..LedgerOptions::default() })
    };
    let in_memory =
        || -> Result<Ledger, Failure> { Ok(Ledger::in_memory(&default_config()?, options(asked.in_memory)?)?) };
    let (before, ledger) = if asked.in_memory || !EmbeddedStore::exists(&global.data) {
        (None, in_memory()?)
    } else {
        let real = trial::lock(&global.data)?;
        (Some(trial::open(&real, options(false)?)?), trial::open(&real, options(false)?)?)
    };
    let exit = take_all(&mut Target::Ledger(&ledger), asked, show, interrupt)?;
    if exit == Exit::Done && asked.report {
        print_changes(before.as_ref(), &ledger, format)?;
    }
    if !global.quiet {
        note(&"nothing was changed: this was a dry run");
    }
    Ok(exit)
}

/// Where rows go.
enum Target<'a> {
    Ledger(&'a Ledger),
    /// With `--in-memory`, where nothing but the accounts is asked for.
    AccountsOnly(&'a mut AccountsOnly),
    /// With `--server`.
    Server(RemoteTarget<'a>),
}

impl Target<'_> {
    fn currencies(&self) -> &Currencies {
        match self {
            Self::Ledger(ledger) => &ledger.config().currencies,
            Self::AccountsOnly(accounts) => &accounts.config().currencies,
            Self::Server(remote) => remote.currencies(),
        }
    }

    /// Whether it copies what can be read only once.
    fn is_kept(&self) -> bool {
        match self {
            Self::Ledger(ledger) => ledger.embedded().is_some(),
            Self::AccountsOnly(_) | Self::Server(_) => false,
        }
    }

    fn counts(&self) -> Result<RowCounts, Failure> {
        match self {
            Self::Ledger(ledger) => Ok(all_counts(ledger)?),
            Self::AccountsOnly(accounts) => Ok(accounts.counts()),
            Self::Server(remote) => Ok(remote.counts()),
        }
    }

    fn ingest(
        &mut self,
        source: csv::Source,
        options: IngestOptions,
        observer: &mut Observer<'_>,
        show: Show,
    ) -> Result<IngestReport, Failure> {
        let name = source.name().to_owned();
        let taken = match self {
            Self::Ledger(ledger) => ingest(ledger, source, options, observer),
            Self::AccountsOnly(accounts) => accounts.ingest(source, options, observer),
            Self::Server(remote) => match remote.ingest(source, options, observer) {
                Ok(report) => Ok(report),
                Err(RemoteError::Local(error)) => Err(error),
                Err(RemoteError::Server(failure)) => return Err(failure),
            },
        };
        taken.map_err(|error| failure(error, &name, observer, show))
    }
}

/// Takes in all sources, in order. Ends with the first that fails, or when asked to stop.
fn take_all(target: &mut Target<'_>, asked: &Ingest, show: Show, interrupt: &Interrupt) -> Result<Exit, Failure> {
    let rejects = asked.rejects.clone().map(Rejects::new);
    let currencies = target.currencies().clone();
    let mut observer = Observer::new(show, &currencies, interrupt, rejects);
    let mut all = Summary::default();
    let taken = take_each(target, asked, show, &mut observer, &mut all);
    let finished = observer.finish();
    if !show.quiet {
        if asked.sources.len() > 1 {
            note(&format_args!("all files: {all}"));
        }
        if all.has_rejects() && asked.rejects.is_none() {
            note(&"  `--rejects FILE` writes those rows to a file; `bursar explain CODE` says what a code means");
        }
    }
    let exit = taken?;
    finished.map_err(|error| Failure::write(&observer.rejects_path(), &error))?;
    Ok(exit)
}

fn take_each(
    target: &mut Target<'_>,
    asked: &Ingest,
    show: Show,
    observer: &mut Observer<'_>,
    all: &mut Summary,
) -> Result<Exit, Failure> {
    for source in &asked.sources {
        let started = Instant::now();
        let before = target.counts()?;
        let (source, _spool) = open(target, asked, source)?;
        let name = source.name().to_owned();
        // What can be read only once, and is not copied first, is no source that could be known again. Nor need
        // the only one be known to accounts that are gone afterwards: that saves reading it twice.
        let is_only = asked.sources.len() == 1 && matches!(target, Target::AccountsOnly(_));
        let again = asked.again || is_only || !source.is_seekable() && !target.is_kept();
        let options = IngestOptions { strict: asked.strict, again, tell_earlier: asked.rejects.is_some() };
        observer.begin(&source);
        let taken = target.ingest(source, options, observer, show);
        observer.end();
        let report = taken?;
        let summary = Summary::new(&report, target.counts()?.minus(&before), started.elapsed());
        all.add(&summary);
        if !show.quiet {
            tell(&name, &report, &summary, matches!(target, Target::Server(_)));
        }
        if let Some(line) = report.stopped_at_line {
            let sentence = format!("{name}: line {line} cannot be read, and nothing from there on was applied");
            return Err(Failure::new(FailureKind::UnreadableRow, sentence));
        }
        if report.interrupted {
            return Ok(Exit::Interrupted);
        }
    }
    Ok(Exit::Done)
}

/// Opens a source. One that can be read only once is copied, so that it is known by its content: a ledger in a directory
/// does that itself, a trial and a ledger in other stores need it done here.
fn open(target: &Target<'_>, asked: &Ingest, source: &Source) -> Result<(csv::Source, Option<NamedTempFile>), Failure> {
    let path = match source {
        Source::Stdin => Path::new("-"),
        Source::File(path) => path,
    };
    let cannot_read = |error: &dyn std::fmt::Display| Failure::new(FailureKind::CannotRead, error.to_string());
    let mut source = csv::Source::open(path).map_err(|error| cannot_read(&error))?;
    let is_known_again = matches!(target, Target::Ledger(_)) && !target.is_kept() && !asked.in_memory;
    if source.is_seekable() || !is_known_again {
        return Ok((source, None));
    }
    let mut copy = || -> io::Result<NamedTempFile> {
        let mut file = NamedTempFile::new()?;
        io::copy(&mut source, &mut file)?;
        file.flush()?;
        Ok(file)
    };
    let file = copy().map_err(|error| cannot_read(&format_args!("could not copy the input: {error}")))?;
    let copied = csv::Source::open_as(file.path(), source.name().to_owned());
    Ok((copied.map_err(|error| cannot_read(&error))?, Some(file)))
}

fn tell(name: &str, report: &IngestReport, summary: &Summary, to_server: bool) {
    if report.already_in {
        let rows = grouped(report.counts.total());
        note(&format_args!("{name}: already in: its {rows} rows were taken in before; nothing was done"));
        return;
    }
    if let Some(line) = report.resumed_at_line {
        note(&format_args!("{name}: resumed at line {}; what lies before was taken in already", grouped(line)));
    }
    note(&format_args!("{name}: {summary}"));
    if report.interrupted && to_server {
        note(&format_args!("{name}: interrupted; a server does not remember how far it got: {}", sent_again()));
    } else if report.interrupted {
        note(&format_args!("{name}: interrupted; the same command goes on from there"));
    }
}

fn failure(error: IngestError, name: &str, observer: &Observer<'_>, show: Show) -> Failure {
    match error {
        IngestError::Header(error) => header_failure(&error, name, show),
        IngestError::Source(_) | IngestError::Read { .. } => Failure::new(FailureKind::CannotRead, error.to_string()),
        IngestError::Spool { .. } => Failure::new(FailureKind::CannotWrite, error.to_string()),
        IngestError::Submit(error) => error.into(),
        IngestError::Ledger(error) => error.into(),
        IngestError::Observer(error) => Failure::write(&observer.rejects_path(), &error),
    }
}

fn header_failure(error: &HeaderError, name: &str, show: Show) -> Failure {
    match error {
        HeaderError::Unreadable { line, text, error } => {
            let diagnostic = Diagnostic::new(name, *line, text, error).colour(show.colored);
            note(&format_args!("{diagnostic}\n"));
        }
        HeaderError::Empty | HeaderError::Missing { .. } | HeaderError::Twice { .. } => {}
    }
    Failure::Told {
        code: error.code().into(),
        exit: Exit::Io,
        sentence: format!("{name}: {error}"),
        hint: error.hint().into(),
    }
}
