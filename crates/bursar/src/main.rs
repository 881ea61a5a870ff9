//! The binary `bursar`: the command line over the engine.
//!
//! ```text
//! arguments → cli (raw) → checked (types) → commands → output (stdout)
//!                                              └────→ exit (code, and a sentence on stderr)
//! ```
//!
//! Nothing here decides about money or touches a ledger's files; that is the engine's.

mod book;
mod checked;
mod cli;
mod codes;
mod commands;
mod config;
mod engine_failure;
mod exit;
mod generate;
mod ingest;
mod interrupt;
mod ledger_dir;
#[cfg(all(test, feature = "cache", feature = "nats", feature = "tls"))] // the documents tell of all of it
mod manual;
mod output;
mod pairs;
mod progress;
mod server_failure;
mod shown;
mod stores;

use checked::{Command, LedgerCommand, Verify};
use clap::parser::ValueSource;
use clap::{ColorChoice, CommandFactory, FromArgMatches};
use cli::{Cli, ColorArg, Global};
use exit::{Exit, Failure, FailureKind};
use ingest::observer::Show;
use output::Format;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

fn main() -> ExitCode {
    let color = color_asked(std::env::args_os().skip(1));
    let choice = match color {
        ColorArg::Auto => ColorChoice::Auto,
        ColorArg::Always => ColorChoice::Always,
        ColorArg::Never => ColorChoice::Never,
    };
    let parsed = Cli::command().color(choice).try_get_matches().and_then(|matches| {
        let asked = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        Cli::from_arg_matches(&matches).map(|cli| (cli, Asked { data: asked("data"), server: asked("server") }))
    });
    let cli = match parsed {
        Ok((cli, asked)) => asked.settle(cli),
        Err(error) => return print_usage(&error).into(),
    };
    match cli.and_then(run) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print(colored(color, &io::stderr()));
            failure.exit().into()
        }
    }
}

/// What was written on the command line itself, which counts more than the environment.
struct Asked {
    data: bool,
    server: bool,
}

impl Asked {
    fn settle(&self, mut cli: Cli) -> Result<Cli, Failure> {
        if self.data && self.server {
            let sentence = "--data and --server each name a ledger; give one of them";
            return Err(Failure::new(FailureKind::BadArgument, sentence));
        }
        if self.data || cli.global.server.as_ref().is_some_and(String::is_empty) {
            cli.global.server = None;
        }
        Ok(cli)
    }
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let Cli { global, command } = cli;
    let done = match checked::command(command)? {
        Command::Ledger(command) => return ledger_command(&global, command),
        Command::Key(_) if global.server.is_some() => return Err(needs_directory("key")),
        Command::Key(key) => commands::key::run(&global, key, Format::choose(global.output)),
        Command::Explain { code } => commands::explain::run(code.as_deref(), Format::choose(global.output)),
        Command::Generate { plan, to } => commands::generate::run(&plan, to.as_deref(), global.quiet),
        Command::Completions(shell) => commands::completions::run(shell),
        Command::Man { to } => commands::man::run(to.as_deref()),
    };
    done.map(|()| Exit::Done)
}

/// The commands that need the engine.
fn ledger_command(global: &Global, command: LedgerCommand) -> Result<Exit, Failure> {
    let format = Format::choose(global.output);
    if global.server.is_some()
        && let Some(name) = not_of_a_server(&command)
    {
        return Err(needs_directory(name));
    }
    if let Some(name) = directory_only(&command)
        && let Some(stores) = config::stores(global)?
    {
        let sentence = format!("`bursar {name}` works on a directory, and the ledger is in other stores: {stores}");
        return Err(Failure::new(FailureKind::NeedsDirectory, sentence));
    }
    let done = match command {
        LedgerCommand::Init(init) => commands::init::run(global, init),
        LedgerCommand::Ingest(asked) => {
            let colored = colored(global.color, &io::stderr());
            let show = Show { colored, all_errors: asked.all_errors, quiet: global.quiet };
            return commands::ingest::run(global, &asked, show, format);
        }
        LedgerCommand::Info => commands::info::run(global, format),
        LedgerCommand::Accounts { as_of } => commands::accounts::run(global, as_of, format),
        LedgerCommand::Account { customer, as_of } => commands::account::run(global, customer, as_of, format),
        LedgerCommand::Chain(chain) => commands::chain::run(global, &chain, format),
        LedgerCommand::Transaction(transaction) => commands::transaction::run(global, transaction, format),
        LedgerCommand::Pending(list) => commands::pending::run(global, &list, format),
        LedgerCommand::Settle(settle) => commands::settle::run(global, &settle, format),
        LedgerCommand::Submit(submit) => commands::submit::run(global, &submit, format),
        LedgerCommand::Listen(listen) => commands::listen::run(global, listen),
        LedgerCommand::Top { once, every_s } => commands::top::run(global, once, every_s, format),
        LedgerCommand::Unlock { customer, idempotency_key } => {
            commands::unlock::run(global, customer, idempotency_key, format)
        }
        LedgerCommand::Verify(Verify::Ledger) => commands::verify::run(global, None, format),
        LedgerCommand::Verify(Verify::Customer(customer, receipt)) => match global.remote()? {
            Some(remote) => commands::verify_file::run_remote(&remote, customer, receipt, format),
            None if receipt.is_some() => {
                let sentence = "--receipt needs --file, or a customer of a server: export the chain first";
                Err(Failure::new(FailureKind::BadArgument, sentence))
            }
            None => commands::verify::run(global, Some(customer), format),
        },
        LedgerCommand::Verify(Verify::File(file, receipt)) => commands::verify_file::run(&file, receipt, format),
        LedgerCommand::Serve(serve) => commands::serve::run(global, &serve, colored(global.color, &io::stderr())),
        LedgerCommand::Doctor => commands::doctor::run(global, format),
        LedgerCommand::Migrate => commands::migrate::run(global, format),
        LedgerCommand::CopyLedger(copy) => commands::copy::run(global, &copy, format),
        LedgerCommand::Backup(copy) => commands::backup::run(global, &copy, format),
        LedgerCommand::Restore(copy) => commands::restore::run(global, &copy, format),
        LedgerCommand::Export { customer, to } => commands::export::run(global, customer, to.as_deref()),
    };
    done.map(|()| Exit::Done)
}

/// The name of a command that works on the files of a ledger's directory.
fn directory_only(command: &LedgerCommand) -> Option<&'static str> {
    match command {
        LedgerCommand::Doctor => Some("doctor"),
        LedgerCommand::Backup(_) => Some("backup"),
        LedgerCommand::Restore(_) => Some("restore"),
        LedgerCommand::Ingest(asked) if asked.dry_run && !asked.in_memory => Some("ingest --dry-run"),
        LedgerCommand::Ingest(_)
        | LedgerCommand::Init(_)
        | LedgerCommand::Info
        | LedgerCommand::Accounts { .. }
        | LedgerCommand::Account { .. }
        | LedgerCommand::Chain(_)
        | LedgerCommand::Transaction(_)
        | LedgerCommand::Pending(_)
        | LedgerCommand::Settle(_)
        | LedgerCommand::Submit(_)
        | LedgerCommand::Listen(_)
        | LedgerCommand::Top { .. }
        | LedgerCommand::Unlock { .. }
        | LedgerCommand::Verify(_)
        | LedgerCommand::Serve(_)
        | LedgerCommand::Migrate
        | LedgerCommand::CopyLedger(_)
        | LedgerCommand::Export { .. } => None,
    }
}

/// The name of a command that has no meaning for a server.
fn not_of_a_server(command: &LedgerCommand) -> Option<&'static str> {
    match command {
        LedgerCommand::Init(_) => Some("init"),
        LedgerCommand::Migrate => Some("migrate"),
        LedgerCommand::CopyLedger(_) => Some("copy"),
        LedgerCommand::Serve(_) => Some("serve"),
        LedgerCommand::Doctor => Some("doctor"),
        LedgerCommand::Backup(_) => Some("backup"),
        LedgerCommand::Restore(_) => Some("restore"),
        LedgerCommand::Verify(Verify::Ledger) => Some("verify"),
        LedgerCommand::Ingest(asked) if asked.in_memory => Some("ingest --in-memory"),
        LedgerCommand::Ingest(asked) if asked.dry_run => Some("ingest --dry-run"),
        LedgerCommand::Ingest(asked) if asked.again => Some("ingest --again"),
        LedgerCommand::Ingest(_)
        | LedgerCommand::Info
        | LedgerCommand::Accounts { .. }
        | LedgerCommand::Account { .. }
        | LedgerCommand::Chain(_)
        | LedgerCommand::Transaction(_)
        | LedgerCommand::Pending(_)
        | LedgerCommand::Settle(_)
        | LedgerCommand::Submit(_)
        | LedgerCommand::Listen(_)
        | LedgerCommand::Top { .. }
        | LedgerCommand::Unlock { .. }
        | LedgerCommand::Verify(Verify::Customer(..) | Verify::File(..))
        | LedgerCommand::Export { .. } => None,
    }
}

fn needs_directory(command: &str) -> Failure {
    Failure::new(FailureKind::NeedsDirectory, format!("`bursar {command}` works on a directory, not on a server"))
}

/// Prints help and version to standard output, and errors of usage to standard error.
fn print_usage(error: &clap::Error) -> Exit {
    match error.print() {
        Ok(()) if error.use_stderr() => Exit::Usage,
        Ok(()) => Exit::Done,
        Err(write_error) => Failure::stdout(&write_error).exit(),
    }
}

/// What `--color` says, before everything else is read, since an error of usage is coloured as well.
fn color_asked(mut arguments: impl Iterator<Item = impl AsRef<OsStr>>) -> ColorArg {
    let mut asked = ColorArg::Auto;
    while let Some(argument) = arguments.next() {
        let when = match argument.as_ref().to_str() {
            Some("--") => break,
            Some("--color") => arguments.next().and_then(|when| when.as_ref().to_str().map(str::to_owned)),
            Some(other) => other.strip_prefix("--color=").map(str::to_owned),
            None => None,
        };
        match when.as_deref() {
            Some("auto") => asked = ColorArg::Auto,
            Some("always") => asked = ColorArg::Always,
            Some("never") => asked = ColorArg::Never,
            Some(_) | None => {}
        }
    }
    asked
}

/// Whether to use colours on a stream. `NO_COLOR` counts if it is set to anything (<https://no-color.org>).
fn colored(asked: ColorArg, stream: &impl IsTerminal) -> bool {
    match asked {
        ColorArg::Always => true,
        ColorArg::Never => false,
        ColorArg::Auto => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            !no_color && !dumb && stream.is_terminal()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn colour_is_found_wherever_it_stands() {
        let table: &[(&[&str], ColorArg)] = &[
            (&[], ColorArg::Auto),
            (&["--color", "never", "info"], ColorArg::Never),
            (&["info", "--color=always"], ColorArg::Always),
            (&["info", "--color=sometimes"], ColorArg::Auto),
            (&["ingest", "--", "--color=always"], ColorArg::Auto),
            (&["--color"], ColorArg::Auto),
        ];
        for (arguments, expected) in table {
            assert_eq!(color_asked(arguments.iter()), *expected, "{arguments:?}");
        }
    }
}
