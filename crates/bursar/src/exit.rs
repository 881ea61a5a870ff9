//! How the program ends: its exit codes, and the failures that lead to them.
//!
//! | exit code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | it ran, but something asked for was refused, does not exist, or could not be read under `--strict` |
//! | 2 | wrong usage |
//! | 3 | the ledger cannot be opened or used, or is damaged |
//! | 4 | verification found damage |
//! | 5 | a file or a stream could not be read or written |
//! | 6 | the server could not be reached, did not decide, or did not answer to the end |
//! | 130 | interrupted; what was acknowledged is kept |
//!
//! A reader that goes away (`bursar accounts | head`) is no failure: the program ends quietly with 0.

use crate::codes::CodeInfo;
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All was done.
    Done,
    /// The job ran, but not all that was asked for could be granted, found, or read under `--strict`.
    Refused,
    /// The command line makes no sense.
    Usage,
    /// The ledger cannot be opened or used, or is damaged.
    Ledger,
    /// Verification found damage.
    Damage,
    /// A file or a stream could not be read or written.
    Io,
    /// The server could not be reached, did not decide, or did not answer to the end.
    Server,
    /// Stopped by a signal; what was acknowledged is kept.
    Interrupted,
}

impl Exit {
    /// All of them, by their code.
    pub(crate) const ALL: [Self; 8] =
        [Self::Done, Self::Refused, Self::Usage, Self::Ledger, Self::Damage, Self::Io, Self::Server, Self::Interrupted];

    /// The code that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Ledger => 3,
            Self::Damage => 4,
            Self::Io => 5,
            Self::Server => 6,
            Self::Interrupted => 130,
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "it ran, but something was refused, does not exist, or was unreadable under --strict",
            Self::Usage => "wrong usage",
            Self::Ledger => "the ledger cannot be opened or used, or is damaged",
            Self::Damage => "verification found damage",
            Self::Io => "a file or a stream could not be read or written",
            Self::Server => "the server could not be reached, did not decide, or did not answer to the end",
            Self::Interrupted => "interrupted; what was acknowledged is kept",
        }
    }

    /// The table for `--help` and the man page.
    pub(crate) fn help() -> String {
        Self::ALL.iter().fold(String::from("Exit codes:"), |mut text, exit| {
            // Writing to a `String` cannot fail; were it to, the line would be missing from a help text.
            if write!(text, "\n  {:<4} {}", exit.code(), exit.meaning()).is_err() {
                text.push('\n');
            }
            text
        })
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What the program itself can fail with. What the engine fails with has codes of its own; see
/// [`crate::codes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// A flag or an argument has a value that it cannot have.
    BadArgument,
    /// `bursar explain` does not know the code.
    UnknownCode,
    /// A file or a stream could not be read.
    CannotRead,
    /// A file or a stream could not be written.
    CannotWrite,
    /// A ledger is to be created in a directory that holds other things.
    DirectoryNotEmpty,
    /// The customer had no account at the time asked for.
    NoAccountThen,
    /// A row could not be read, and `--strict` was given.
    UnreadableRow,
    /// Verification found something wrong.
    DamageFound,
    /// The service cannot listen, or gets no threads.
    CannotServe,
    /// Other machines could reach the service, and there is no API key.
    KeysNeeded,
    /// Others can read the list of API keys.
    KeysOpen,
    /// The list of API keys is damaged.
    KeysDamaged,
    /// The certificate of the service cannot be used.
    TlsUnusable,
    /// There is no API key with this id.
    UnknownKey,
    /// A directory or a machine is not fit for a ledger.
    NotFit,
    /// `bursar.toml` is not as it must be.
    BadConfig,
    /// A store is older than the program.
    MigrationNeeded,
    /// A store has settings under which money can be lost.
    UnsafeSettings,
    /// The source of a copy went on.
    CopyBehind,
    /// The target of a copy has something else.
    CopyDiffers,
    /// Rails cannot be called.
    RailsUnready,
    /// No such event waits for a rail.
    NotPending,
    /// The event was closed otherwise.
    ClosedOtherwise,
    /// The command works on a directory, and `--server` was given.
    NeedsDirectory,
    /// The command works on a server, and none was given.
    NeedsServer,
    /// There is no API key to be used in what was given.
    BadKey,
    /// No connection could be made to the server.
    CannotReach,
    /// The server did not answer in time, or its answer was cut off.
    NoAnswer,
    /// What answered does not speak the interface.
    NotUnderstood,
    /// It is not known whether a request took effect.
    OutcomeUnknown,
    /// Rows of a batch were not decided.
    RowsUndecided,
}

impl FailureKind {
    /// All of them.
    pub(crate) const ALL: [Self; 31] = [
        Self::BadArgument,
        Self::UnknownCode,
        Self::CannotRead,
        Self::CannotWrite,
        Self::DirectoryNotEmpty,
        Self::NoAccountThen,
        Self::UnreadableRow,
        Self::DamageFound,
        Self::CannotServe,
        Self::KeysNeeded,
        Self::KeysOpen,
        Self::KeysDamaged,
        Self::TlsUnusable,
        Self::UnknownKey,
        Self::NotFit,
        Self::BadConfig,
        Self::MigrationNeeded,
        Self::UnsafeSettings,
        Self::CopyBehind,
        Self::CopyDiffers,
        Self::RailsUnready,
        Self::NotPending,
        Self::ClosedOtherwise,
        Self::NeedsDirectory,
        Self::NeedsServer,
        Self::BadKey,
        Self::CannotReach,
        Self::NoAnswer,
        Self::NotUnderstood,
        Self::OutcomeUnknown,
        Self::RowsUndecided,
    ];

    /// How the program ends after it.
    const fn exit(self) -> Exit {
        match self {
            Self::BadArgument
            | Self::UnknownCode
            | Self::KeysNeeded
            | Self::BadConfig
            | Self::NeedsDirectory
            | Self::NeedsServer
            | Self::BadKey => Exit::Usage,
            Self::CannotReach | Self::NoAnswer | Self::NotUnderstood | Self::OutcomeUnknown | Self::RowsUndecided => {
                Exit::Server
            }
            Self::CannotRead | Self::CannotWrite | Self::CannotServe | Self::TlsUnusable | Self::RailsUnready => {
                Exit::Io
            }
            Self::DirectoryNotEmpty
            | Self::KeysOpen
            | Self::KeysDamaged
            | Self::NotFit
            | Self::MigrationNeeded
            | Self::UnsafeSettings
            | Self::CopyDiffers => Exit::Ledger,
            Self::NoAccountThen
            | Self::UnreadableRow
            | Self::UnknownKey
            | Self::NotPending
            | Self::ClosedOtherwise
            | Self::CopyBehind => Exit::Refused,
            Self::DamageFound => Exit::Damage,
        }
    }

    /// Its code, meaning and hint.
    pub(crate) const fn info(self) -> CodeInfo {
        match self {
            Self::BadArgument => CodeInfo::command(
                "bad_argument",
                "A flag or an argument has a value that it cannot have.",
                "`bursar help COMMAND` says what each flag takes.",
            ),
            Self::UnknownCode => CodeInfo::command(
                "unknown_code",
                "There is no error or rejection with this code.",
                "`bursar explain` lists all codes.",
            ),
            Self::CannotRead => CodeInfo::command(
                "cannot_read",
                "A file or a stream could not be read.",
                "Check that it exists and that you may read it.",
            ),
            Self::CannotWrite => CodeInfo::command(
                "cannot_write",
                "A file or a stream could not be written.",
                "Check the directory, your rights, and the space that is left.",
            ),
            Self::DirectoryNotEmpty => CodeInfo::command(
                "directory_not_empty",
                "A ledger, or a copy of one, is to be put into a directory that holds other things.",
                "Give the ledger a directory of its own with `--data DIR`; it is made if it does not exist.",
            ),
            Self::NoAccountThen => CodeInfo::command(
                "no_account_then",
                "The customer had no account at the time asked for.",
                "`bursar chain CLIENT` shows when the customer's events were.",
            ),
            Self::UnreadableRow => CodeInfo::command(
                "unreadable_row",
                "A row could not be read, and `--strict` stops there.",
                "The rows before it are in the ledger. Correct the row, put it and those after it into a file of \
                 their own, and ingest that; or ingest the same file without `--strict`.",
            ),
            Self::DamageFound => CodeInfo::command(
                "damage_found",
                "Verification found something wrong.",
                "Each finding says what it is and where; restore the ledger from a backup.",
            ),
            Self::CannotServe => CodeInfo::command(
                "cannot_serve",
                "The service cannot listen on its address, or the system gives it no threads.",
                "Choose another address with `--listen ADDRESS:PORT`, or stop what listens there.",
            ),
            Self::KeysNeeded => CodeInfo::command(
                "keys_needed",
                "Other machines could reach the service, and there is no API key.",
                "Make one with `bursar key create --name NAME --role ROLE`, or listen on 127.0.0.1.",
            ),
            Self::KeysOpen => CodeInfo::command(
                "keys_open",
                "The list of API keys can be read or written by others than its owner.",
                "Run `chmod 600` on it. If somebody may have changed it, revoke all keys and make new ones.",
            ),
            Self::KeysDamaged => CodeInfo::command(
                "keys_damaged",
                "The list of API keys is not what was written.",
                "Restore it from a backup, or remove it and make new keys.",
            ),
            Self::UnknownKey => CodeInfo::command(
                "unknown_key",
                "There is no API key with this id.",
                "`bursar key list` shows the keys there are.",
            ),
            Self::TlsUnusable => CodeInfo::command(
                "tls_unusable",
                "The certificate of the service or its key cannot be used.",
                "Name PEM files that belong together with `--tls-cert` and `--tls-key`, readable by the service.",
            ),
            Self::NotFit => CodeInfo::command(
                "not_fit",
                "`bursar doctor` found something that a ledger should not live with.",
                "Each finding says what to do; docs/operations.md has more.",
            ),
            Self::BadConfig => CodeInfo::command(
                "bad_config",
                "The settings in `bursar.toml` are not as they must be.",
                "docs/operations.md lists the sections and where each is described. Nothing was done: what the settings mean must be \
                 certain.",
            ),
            Self::MigrationNeeded => CodeInfo::command(
                "migration_needed",
                "The ledger's database was made by an older version of the program.",
                "Stop the engines of that version, and run `bursar migrate`.",
            ),
            Self::UnsafeSettings => CodeInfo::command(
                "unsafe_settings",
                "The ledger's database has settings under which acknowledged money can be lost.",
                "Change them; docs/stores.md (PostgreSQL) and docs/nats.md (NATS) say why each is needed.",
            ),
            Self::CopyBehind => CodeInfo::command(
                "copy_behind",
                "The ledger went on while it was copied: the copy is sound, and behind.",
                "Stop all that write to the source, and run the same command again.",
            ),
            Self::CopyDiffers => CodeInfo::command(
                "copy_differs",
                "The target of a copy has another history, or somebody else writes to it.",
                "Copy into a place that is new. Nothing that was there is changed.",
            ),
            Self::RailsUnready => CodeInfo::command(
                "rails_unready",
                "Rails cannot be called: the system gives no threads, or what TLS needs is not there.",
                "Check `ca_file` and the system's certificates.",
            ),
            Self::NotPending => CodeInfo::command(
                "not_pending",
                "No event with this id waits for a rail.",
                "`bursar pending` shows those that do; `bursar chain CLIENT` shows how others ended.",
            ),
            Self::ClosedOtherwise => CodeInfo::command(
                "closed_otherwise",
                "The event was closed otherwise: its rail was first, or another operator.",
                "What counts is in the chain. If that is wrong, correct it by a transaction of its own.",
            ),
            Self::NeedsDirectory => CodeInfo::command(
                "needs_directory",
                "The command works on a ledger's directory, and a server or other stores were named.",
                "Run it where the directory is, without `--server` and `BURSAR_SERVER`. For a ledger in other stores, use \
                 their own tools, or `bursar copy` it into a directory.",
            ),
            Self::NeedsServer => CodeInfo::command(
                "needs_server",
                "What was asked for needs a server, and none was given.",
                "Say which with `--server URL` or `BURSAR_SERVER`; `bursar serve` starts one.",
            ),
            Self::BadKey => CodeInfo::command(
                "bad_key",
                "There is no API key to be used in what was given.",
                "Put the key, as `bursar key create` printed it, into `BURSAR_KEY`, or into the file of `--key-file`.",
            ),
            Self::CannotReach => CodeInfo::command(
                "cannot_reach",
                "No connection to the server could be made. Nothing was sent.",
                "Check the address and that the service runs there; `/readyz` says whether it can serve.",
            ),
            Self::NoAnswer => CodeInfo::command(
                "no_answer",
                "The server did not answer in time, or its answer was cut off.",
                "Run the same command again.",
            ),
            Self::NotUnderstood => CodeInfo::command(
                "not_understood",
                "What answered does not speak the interface of Bursar, or says something that makes no sense.",
                "Check the address, and that server and program are of versions that fit each other.",
            ),
            Self::OutcomeUnknown => CodeInfo::command(
                "outcome_unknown",
                "It is not known whether the request took effect.",
                "Run the same command again: a deposit or withdrawal takes effect once. For any other kind, look first \
                 with `bursar transaction TX` or `bursar chain CLIENT`.",
            ),
            Self::RowsUndecided => CodeInfo::command(
                "rows_undecided",
                "Rows were not decided, or it is not known whether they took effect.",
                "Send the same file again: deposits and withdrawals that took effect are already applied then. Look at \
                 disputes, resolves, chargebacks and unlocks first: they could apply again.",
            ),
        }
    }
}

/// Writes a line to standard error. Where that cannot be written, nobody reads it, and the job goes on.
pub(crate) fn note(line: &dyn fmt::Display) {
    writeln!(io::stderr().lock(), "{line}").unwrap_or_default();
}

/// Why the program could not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Standard output was closed by its reader: nobody is left to tell.
    ReaderGone,
    /// An error for the person at the terminal.
    Told {
        /// The stable code.
        code: Cow<'static, str>,
        /// How the program ends after it.
        exit: Exit,
        /// What happened, and to which input.
        sentence: String,
        /// What to do.
        hint: Cow<'static, str>,
    },
}

impl Failure {
    /// A failure of the program itself, with the general hint of its kind.
    pub(crate) fn new(kind: FailureKind, sentence: impl Into<String>) -> Self {
        Self::coded(&kind.info(), kind.exit(), sentence)
    }

    /// A failure with any code, and the hint that belongs to it.
    pub(crate) fn coded(info: &CodeInfo, exit: Exit, sentence: impl Into<String>) -> Self {
        Self::Told { code: Cow::Borrowed(info.code), exit, sentence: sentence.into(), hint: Cow::Borrowed(info.hint) }
    }

    /// The same failure with a hint of its own.
    pub(crate) fn with_hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        match self {
            Self::ReaderGone => Self::ReaderGone,
            Self::Told { code, exit, sentence, .. } => Self::Told { code, exit, sentence, hint: hint.into() },
        }
    }

    /// The same failure with another end.
    pub(crate) fn ending_with(self, exit: Exit) -> Self {
        match self {
            Self::ReaderGone => Self::ReaderGone,
            Self::Told { code, sentence, hint, .. } => Self::Told { code, exit, sentence, hint },
        }
    }

    /// Standard output could not be written.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        Self::new(FailureKind::CannotWrite, format!("standard output cannot be written: {error}"))
    }

    /// A file could not be written.
    pub(crate) fn write(path: &Path, error: &io::Error) -> Self {
        Self::new(FailureKind::CannotWrite, format!("{} cannot be written: {error}", path.display()))
    }

    /// What happened, for a place where there is room for one line.
    pub(crate) fn sentence(self) -> String {
        match self {
            Self::ReaderGone => String::new(),
            Self::Told { sentence, .. } => sentence,
        }
    }

    /// How the program ends after it.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::ReaderGone => Exit::Done,
            Self::Told { exit, .. } => *exit,
        }
    }

    /// Prints it to standard error, if there is something to print.
    pub(crate) fn print(&self, colored: bool) {
        let Self::Told { code, sentence, hint, .. } = self else { return };
        let (red, bold, plain) = if colored { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let text = format!("{red}error[{code}]{plain}{bold}: {sentence}{plain}\n  {bold}hint:{plain} {hint}\n");
        // Where standard error cannot be written either, the exit code is all that is left to say.
        io::stderr().write_all(text.as_bytes()).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_differ_and_are_in_the_help() {
        let help = Exit::help();
        for (index, exit) in Exit::ALL.iter().enumerate() {
            assert!(help.contains(&format!("\n  {:<4} {}", exit.code(), exit.meaning())), "{help}");
            assert!(Exit::ALL[..index].iter().all(|other| other.code() < exit.code()));
        }
    }

    #[test]
    fn a_reader_that_goes_away_is_no_failure() {
        let gone = Failure::stdout(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(gone.exit(), Exit::Done);
        let full = Failure::stdout(&io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.exit(), Exit::Io);
    }
}
