//! The ledger of `--data`: opened or created for one command, and closed after it. It is in that directory, or in the
//! stores that the settings name ([`crate::stores`]).
//!
//! Every command takes the lock of a ledger in a directory, also those that only read: it belongs to one process. A ledger
//! in other stores may be open many times.

use crate::cli::Global;
use crate::config::{self, FILE_NAME};
use crate::exit::{Failure, FailureKind, note};
use crate::progress::grouped;
use crate::stores::Opened;
use bursar_core::{Currencies, LedgerConfig, Policy};
use bursar_engine::embedded::disk::LOCK_NAME;
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore, OpenReport};
use bursar_engine::store::StoreError;
use bursar_engine::{Ledger, LedgerOptions, new_config};
use bursar_rails::Rails;
use bursar_rails::settings::Checked;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Opens the ledger, lets a command work on it, and closes it whatever became of that.
pub(crate) fn with_ledger<T>(global: &Global, work: impl FnOnce(&Ledger) -> Result<T, Failure>) -> Result<T, Failure> {
    let ledger = open(global)?;
    let done = work(&ledger);
    close(ledger);
    done
}

/// Closes the ledger after a command that has told its result. Everything told is durable by then; closing only
/// writes what is derived from it, so that failing to do so (on a full disk, say) is no failure of the command.
pub(crate) fn close(ledger: Ledger) {
    if let Err(error) = ledger.close() {
        note(&format_args!("warning: {error}\n  the next command will read more of the journal; nothing is lost"));
    }
}

/// Opens the ledger, and says on standard error if that was not as usual.
pub(crate) fn open(global: &Global) -> Result<Ledger, Failure> {
    let options = options(global)?;
    open_with(global, || Ok(options))
}

/// Opens the ledger for a service: its rails are called.
pub(crate) fn open_with_rails(global: &Global) -> Result<Ledger, Failure> {
    open_with(global, || with_rails(options(global)?, &config::with_secrets(global)?))
}

/// Opens a ledger that is there.
fn open_with(global: &Global, options: impl FnOnce() -> Result<LedgerOptions, Failure>) -> Result<Ledger, Failure> {
    if let Some(stores) = config::stores(global)? {
        let options = options()?;
        return start(global, stores.open(options.embedded)?, options);
    }
    // Opening would leave a lock file in a directory that is none of ours.
    if !EmbeddedStore::exists(&global.data) {
        return Err(StoreError::NotFound { path: global.data.clone() }.into());
    }
    let (ledger, report) = Ledger::open(&global.data, options()?)?;
    if !global.quiet {
        tell(&report);
    }
    Ok(ledger)
}

/// Lets an engine work on stores, and says on standard error if a directory among them was not as usual.
#[cfg_attr(not(feature = "cache"), expect(unused_mut, reason = "a cache changes what people read"))]
fn start(global: &Global, opened: Opened, mut options: LedgerOptions) -> Result<Ledger, Failure> {
    if let Some(report) = opened.report.as_ref().filter(|_| !global.quiet) {
        tell(report);
    }
    #[cfg(feature = "cache")]
    if let Some(settings) = config::cache(global)? {
        return opened.behind(&settings, &mut options)?.start(options);
    }
    opened.start(options)
}

/// The options with rails that are called.
pub(crate) fn with_rails(mut options: LedgerOptions, settings: &Checked) -> Result<LedgerOptions, Failure> {
    options.routes = settings.routes;
    for (id, rail) in Rails::start(settings.rails.clone())?.iter() {
        options = options.with_rail(id, rail);
    }
    Ok(options)
}

/// Creates a ledger and opens it. A directory is made if it does not exist; it must not hold other things.
pub(crate) fn create(global: &Global, config: &LedgerConfig) -> Result<Ledger, Failure> {
    if let Some(stores) = config::stores(global)? {
        let options = options(global)?;
        return start(global, stores.create(config, options.embedded)?, options);
    }
    check_empty(&global.data)?;
    Ok(Ledger::create(&global.data, config, options(global)?)?)
}

/// The usual bounds, but for the memory that was asked for, and the routes of the ledger's settings. What goes through a
/// rail stays open then: a command that is over in a moment calls nobody.
fn options(global: &Global) -> Result<LedgerOptions, Failure> {
    let routes = config::without_secrets(global)?.routes;
    Ok(LedgerOptions { embedded: embedded_options(global), routes, ..LedgerOptions::default() })
}

/// The usual bounds of the store, but for the memory that was asked for.
pub(crate) fn embedded_options(global: &Global) -> EmbeddedOptions {
    let options = EmbeddedOptions::default();
    global.memory.map_or(options, |bytes| options.with_memory_bytes(bytes))
}

/// Opens the ledger; where there is none, creates one with the usual policy and no named currency. Not in other stores:
/// a name that is mistyped in settings would make a ledger in a place that nobody looks at.
pub(crate) fn open_or_create(global: &Global) -> Result<Ledger, Failure> {
    if config::stores(global)?.is_some() || EmbeddedStore::exists(&global.data) {
        return open(global);
    }
    let ledger = create(global, &default_config()?)?;
    if !global.quiet {
        note(&format_args!("note: created a ledger in {}", global.data.display()));
    }
    Ok(ledger)
}

/// What a ledger is like if nobody says anything.
pub(crate) fn default_config() -> Result<LedgerConfig, Failure> {
    Ok(new_config(Policy::default(), Currencies::default())?)
}

/// A ledger's directory is the ledger's alone: unfinished files in it are removed when it is opened.
pub(crate) fn check_empty(directory: &Path) -> Result<(), Failure> {
    if EmbeddedStore::exists(directory) {
        return Err(StoreError::Exists { path: directory.to_owned() }.into());
    }
    let io_error = |error| {
        Failure::from(StoreError::Io {
            doing: "list the directory",
            path: directory.to_owned(),
            error: Arc::new(error),
        })
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(error)),
    };
    for entry in entries {
        let name = entry.map_err(io_error)?.file_name();
        // What a creation that was interrupted leaves behind, and settings for the ledger that is to be.
        if name != LOCK_NAME && name != "ledger.bursar.tmp" && name != FILE_NAME {
            let sentence = format!("{} holds {} and no ledger", directory.display(), name.to_string_lossy());
            return Err(Failure::new(FailureKind::DirectoryNotEmpty, sentence));
        }
    }
    Ok(())
}

fn tell(report: &OpenReport) {
    if let Some(cut_off) = &report.cut_off {
        note(&format_args!(
            "note: a write that never came to its end was cut off: {} bytes from byte {} of {}; it was never acknowledged",
            grouped(cut_off.bytes),
            cut_off.offset,
            cut_off.path.display()
        ));
    }
    if let Some(why) = report.index_rebuilt {
        note(&format_args!("note: the index was made anew from {} events: {why}", grouped(report.events_read)));
    }
}
