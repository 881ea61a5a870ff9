//! From text to types: the second step of reading the command line.
//!
//! [`crate::cli`] says which flags there are; here their values become the types of the rules, or an error
//! that names the flag, the value and what is wrong with it. Nothing outside of this module and
//! [`crate::generate`] reads a raw argument.

use crate::cli;
use crate::exit::{Failure, FailureKind};
use crate::generate::Plan;
use bursar_client::{After, PendingList, Subscription, TimeMs};
use bursar_core::commit::Settlement;
use bursar_core::event::REASON_BYTES_MAX;
use bursar_core::{
    Currencies, Currency, CustomerId, Decimals, EventId, Hash, IdError, KEY_TEXT_BYTES_MAX, Policy, ReasonText,
    RequestKey, RequestKind, TransactionId,
};
use bursar_server::keys::Role;
use bursar_server::{Rate, logging};
use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// What is to be done, with every value checked.
#[derive(Debug)]
pub(crate) enum Command {
    /// Something about a ledger.
    Ledger(LedgerCommand),
    /// `key`
    Key(Key),
    /// `explain`
    Explain {
        /// The code as written; `None`: all.
        code: Option<String>,
    },
    /// `generate`
    Generate {
        /// The workload.
        plan: Box<Plan>,
        /// Where to; `None`: standard output.
        to: Option<PathBuf>,
    },
    /// `completions`
    Completions(clap_complete::Shell),
    /// `man`
    Man {
        /// The directory for all pages; `None`: the main page to standard output.
        to: Option<PathBuf>,
    },
}

/// The commands that work on a ledger, or on a part of one.
#[derive(Debug)]
pub(crate) enum LedgerCommand {
    /// `init`
    Init(Init),
    /// `ingest`
    Ingest(Ingest),
    /// `info`
    Info,
    /// `accounts`
    Accounts {
        /// The moment asked for; `None`: now.
        as_of: Option<AsOf>,
    },
    /// `account`
    Account {
        /// Whose.
        customer: CustomerId,
        /// The moment asked for; `None`: now.
        as_of: Option<AsOf>,
    },
    /// `chain`
    Chain(Chain),
    /// `transaction`
    Transaction(TransactionId),
    /// `pending`
    Pending(PendingList),
    /// `settle`
    Settle(Settle),
    /// `submit`
    Submit(Submit),
    /// `listen`
    Listen(Listen),
    /// `top`
    Top {
        /// One snapshot.
        once: bool,
        /// Seconds between two looks, at least 1.
        every_s: u64,
    },
    /// `unlock`
    Unlock {
        /// Whom.
        customer: CustomerId,
        /// By which it takes effect once.
        idempotency_key: Option<String>,
    },
    /// `verify`
    Verify(Verify),
    /// `serve`
    Serve(Serve),
    /// `doctor`
    Doctor,
    /// `migrate`
    Migrate,
    /// `copy`
    CopyLedger(CopyLedger),
    /// `backup`
    Backup(Copy),
    /// `restore`
    Restore(Copy),
    /// `export`
    Export {
        /// Whose chain.
        customer: CustomerId,
        /// Where to; `None`: standard output.
        to: Option<PathBuf>,
    },
}

/// What a new ledger is to be like.
#[derive(Debug)]
pub(crate) struct Init {
    /// Its policy.
    pub(crate) policy: Policy,
    /// Its currencies.
    pub(crate) currencies: Currencies,
}

/// What is to be ingested, and how.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own, and any may stand with any")]
pub(crate) struct Ingest {
    /// In this order; at least one.
    pub(crate) sources: Vec<Source>,
    /// Keep nothing.
    pub(crate) in_memory: bool,
    /// Print the accounts at the end.
    pub(crate) report: bool,
    /// Where rows that were not applied go. Never one of the sources.
    pub(crate) rejects: Option<PathBuf>,
    /// Change nothing.
    pub(crate) dry_run: bool,
    /// Stop at the first row that cannot be read.
    pub(crate) strict: bool,
    /// Apply a source although the ledger has it already.
    pub(crate) again: bool,
    /// Show every row that cannot be read.
    pub(crate) all_errors: bool,
}

/// Where rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// A moment in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsOf {
    /// After the event with this sequence number, at least 1.
    Seq(u64),
    /// At this time: all events up to it, itself included.
    Time(Timestamp),
}

/// Which part of a chain is to be printed, and in which order.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Whose.
    pub(crate) customer: CustomerId,
    /// The first event printed; `None`: the oldest, or the newest if that comes first.
    pub(crate) from: Option<u64>,
    /// How many events at the most.
    pub(crate) limit: Option<u64>,
    /// The newest event first.
    pub(crate) newest_first: bool,
}

/// One request. Its amount is read when the ledger's currencies are known.
#[derive(Debug)]
pub(crate) struct Submit {
    /// What is asked for.
    pub(crate) kind: RequestKind,
    /// Whose account is meant.
    pub(crate) customer: CustomerId,
    /// The transaction; `None` exactly for an unlock.
    pub(crate) transaction: Option<TransactionId>,
    /// There for a deposit or withdrawal; not there for an unlock.
    pub(crate) amount: Option<String>,
    /// A currency's code; not there for an unlock.
    pub(crate) currency: Option<String>,
    /// By which it takes effect once; not there for a deposit or withdrawal.
    pub(crate) idempotency_key: Option<String>,
    /// The place that the customer's newest event must have.
    pub(crate) expected_seq: Option<u64>,
    /// How much must be left; not there for an unlock. Read as the amount is.
    pub(crate) minimum_available: Option<String>,
    /// Change nothing.
    pub(crate) dry_run: bool,
}

/// Which events are to be printed or forwarded.
#[derive(Debug)]
pub(crate) struct Listen {
    /// Where they go; `None`: standard output.
    pub(crate) forward_to: Option<String>,
    /// Where the secret is.
    pub(crate) secret_file: Option<PathBuf>,
    /// What is asked of the server.
    pub(crate) subscription: Subscription,
    /// Where the position is kept.
    pub(crate) position_file: Option<PathBuf>,
}

/// How the service is to run.
#[derive(Debug)]
pub(crate) struct Serve {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Its certificate, if it speaks TLS.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<bursar_server::TlsFiles>,
    /// How many requests a key may make.
    pub(crate) rate_per_key: Option<Rate>,
    /// How many connections an address may have, if that was said.
    pub(crate) connections_per_address: Option<NonZeroUsize>,
    /// A ledger in memory, with sample data.
    pub(crate) dev: bool,
    /// How much is logged.
    pub(crate) log: logging::Level,
    /// How log lines look.
    pub(crate) log_format: logging::Format,
}

/// A copy of the ledger to be made, or to be put back.
#[derive(Debug)]
pub(crate) struct Copy {
    /// The directory of the copy.
    pub(crate) directory: PathBuf,
    /// With the list of API keys.
    pub(crate) keys: bool,
    /// Verify the whole of it at the end.
    pub(crate) verify: bool,
}

/// Which ledger is to be copied, and where to.
#[derive(Debug)]
pub(crate) struct CopyLedger {
    /// A directory, or a file that names stores.
    pub(crate) from: PathBuf,
    /// The same.
    pub(crate) to: PathBuf,
}

/// What is to be done with API keys.
#[derive(Debug)]
pub(crate) enum Key {
    /// Make one.
    Create {
        /// What its owner is called: one line that is not empty.
        name: String,
        /// What it allows.
        role: Role,
    },
    /// List them.
    List,
    /// Revoke the one with this id.
    Revoke {
        /// Twelve hexadecimal digits.
        id: String,
    },
}

/// Which event is to be settled, and how.
#[derive(Debug)]
pub(crate) struct Settle {
    /// Its id.
    pub(crate) event: EventId,
    /// How it ends, and why.
    pub(crate) settlement: Settlement,
}

/// What is to be verified.
#[derive(Debug)]
pub(crate) enum Verify {
    /// All of the ledger.
    Ledger,
    /// One customer's chain.
    Customer(CustomerId, Option<Hash>),
    /// An exported chain; the receipt must be a head hash that it had.
    File(PathBuf, Option<Hash>),
}

/// Checks a command.
pub(crate) fn command(raw: cli::Command) -> Result<Command, Failure> {
    use cli::Command as Raw;
    Ok(match raw {
        Raw::Init(args) => {
            let policy = Policy { locked: args.locked, disputable: args.disputable };
            Command::Ledger(LedgerCommand::Init(Init { policy, currencies: currencies(&args.currencies)? }))
        }
        Raw::Ingest(args) => Command::Ledger(LedgerCommand::Ingest(ingest(args)?)),
        Raw::Info => Command::Ledger(LedgerCommand::Info),
        Raw::Accounts(args) => Command::Ledger(LedgerCommand::Accounts { as_of: as_of(args.as_of.as_deref())? }),
        Raw::Account(args) => Command::Ledger(LedgerCommand::Account {
            customer: customer(&args.client)?,
            as_of: as_of(args.as_of.as_deref())?,
        }),
        Raw::Chain(args) => Command::Ledger(LedgerCommand::Chain(Chain {
            customer: customer(&args.client)?,
            from: args.from.as_deref().map(|text| count_of("--from", text, 1)).transpose()?,
            limit: args.limit.as_deref().map(|text| count_of("--limit", text, 0)).transpose()?,
            newest_first: args.newest_first,
        })),
        Raw::Transaction(args) => Command::Ledger(LedgerCommand::Transaction(transaction(&args.transaction)?)),
        Raw::Pending(args) => Command::Ledger(LedgerCommand::Pending(pending(args)?)),
        Raw::Settle(args) => Command::Ledger(LedgerCommand::Settle(settle(&args)?)),
        Raw::Submit(args) => Command::Ledger(LedgerCommand::Submit(submit(args)?)),
        Raw::Listen(args) => Command::Ledger(LedgerCommand::Listen(listen(args)?)),
        Raw::Top(args) => Command::Ledger(LedgerCommand::Top { once: args.once, every_s: args.every.into() }),
        Raw::Unlock(args) => Command::Ledger(LedgerCommand::Unlock {
            customer: customer(&args.client)?,
            idempotency_key: args.idempotency_key.map(idempotency_key).transpose()?,
        }),
        Raw::Verify(args) => Command::Ledger(LedgerCommand::Verify(match (args.file, args.client) {
            (Some(file), _) => Verify::File(file, args.receipt.as_deref().map(receipt).transpose()?),
            (None, Some(client)) => {
                Verify::Customer(customer(&client)?, args.receipt.as_deref().map(receipt).transpose()?)
            }
            (None, None) if args.receipt.is_some() => {
                let sentence = "--receipt needs --file, or a customer of a server";
                return Err(Failure::new(FailureKind::BadArgument, sentence));
            }
            (None, None) => Verify::Ledger,
        })),
        Raw::Export(args) => Command::Ledger(LedgerCommand::Export { customer: customer(&args.chain)?, to: args.to }),
        Raw::Doctor => Command::Ledger(LedgerCommand::Doctor),
        Raw::Migrate => Command::Ledger(LedgerCommand::Migrate),
        Raw::Copy(args) => Command::Ledger(LedgerCommand::CopyLedger(CopyLedger { from: args.from, to: args.to })),
        Raw::Backup(args) => Command::Ledger(LedgerCommand::Backup(Copy {
            directory: args.to,
            keys: !args.without_keys,
            verify: !args.skip_verify,
        })),
        Raw::Restore(args) => Command::Ledger(LedgerCommand::Restore(Copy {
            directory: args.from,
            keys: !args.without_keys,
            verify: !args.skip_verify,
        })),
        Raw::Serve(args) => Command::Ledger(LedgerCommand::Serve(serve(&args)?)),
        Raw::Key(args) => Command::Key(key(args.command)?),
        Raw::Explain(args) => Command::Explain { code: args.code },
        Raw::Generate(args) => Command::Generate { plan: Box::new(Plan::check(&args)?), to: args.to },
        Raw::Completions(args) => Command::Completions(args.shell),
        Raw::Man(args) => Command::Man { to: args.to },
    })
}

/// The error for a value that a flag or an argument cannot have.
pub(crate) fn bad(flag: &str, text: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::BadArgument, format!("{flag} cannot be '{text}': {why}"))
}

/// A whole number, at least `min`. Digits may be grouped with `_`.
pub(crate) fn count_of(flag: &str, text: &str, min: u64) -> Result<u64, Failure> {
    let grouped = text.starts_with(|first: char| first.is_ascii_digit()) && !text.ends_with('_');
    let digits = text.replace('_', "");
    if !grouped || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad(flag, text, "this is no whole number"));
    }
    match digits.parse::<u64>() {
        Ok(count) if count < min => Err(bad(flag, text, format_args!("it must be at least {min}"))),
        Ok(count) => Ok(count),
        Err(_) => Err(bad(flag, text, "it must be below 2^64")),
    }
}

/// Decimals of a currency.
pub(crate) fn decimals(flag: &str, text: &str) -> Result<Decimals, Failure> {
    let found = text.parse::<u8>().ok().and_then(Decimals::new);
    found.ok_or_else(|| bad(flag, text, format_args!("decimals are a number from 0 to {}", bursar_core::DECIMALS_MAX)))
}

fn settle(args: &cli::SettleArgs) -> Result<Settle, Failure> {
    let event = EventId::parse(args.event.as_bytes()).ok_or_else(|| {
        bad("EVENT", &args.event, "this is no id of an event").with_hint("`bursar pending` shows them.")
    })?;
    let reason = ReasonText::of_operator(&args.reason).ok_or_else(|| {
        bad("--reason", &args.reason, format_args!("a reason is one line of 1 to {REASON_BYTES_MAX} bytes"))
    })?;
    let settlement = match args.end {
        cli::EndArg::Done => Settlement::Done(reason),
        cli::EndArg::Aborted => Settlement::Aborted(reason),
    };
    Ok(Settle { event, settlement })
}

fn submit(args: cli::SubmitArgs) -> Result<Submit, Failure> {
    let cli::SubmitArgs { kind, client, transaction: tx, amount, currency, .. } = args;
    let expected_seq = args.expected_seq.as_deref().map(|text| count_of("--expected-seq", text, 0)).transpose()?;
    let (minimum_available, dry_run) = (args.minimum_available, args.dry_run);
    let missing = |what: &str| {
        let sentence = format!("{what} is missing: it belongs to every {}", kind.name());
        Failure::new(FailureKind::BadArgument, sentence)
    };
    match kind {
        RequestKind::Deposit | RequestKind::Withdrawal if tx.is_none() => return Err(missing("TX")),
        RequestKind::Deposit | RequestKind::Withdrawal if amount.is_none() => return Err(missing("AMOUNT")),
        RequestKind::Dispute | RequestKind::Resolve | RequestKind::Chargeback if tx.is_none() => {
            return Err(missing("TX"));
        }
        RequestKind::Deposit | RequestKind::Withdrawal if args.idempotency_key.is_some() => {
            let sentence = format!("a {} takes no --idempotency-key: its TX takes effect once", kind.name());
            return Err(Failure::new(FailureKind::BadArgument, sentence));
        }
        RequestKind::Unlock if tx.is_some() || currency.is_some() || minimum_available.is_some() => {
            return Err(Failure::new(FailureKind::BadArgument, "an unlock takes only a CLIENT"));
        }
        RequestKind::Deposit
        | RequestKind::Withdrawal
        | RequestKind::Dispute
        | RequestKind::Resolve
        | RequestKind::Chargeback
        | RequestKind::Unlock => {}
    }
    let transaction = tx.as_deref().map(transaction).transpose()?;
    let idempotency_key = args.idempotency_key.map(idempotency_key).transpose()?;
    let customer = customer(&client)?;
    Ok(Submit {
        kind,
        customer,
        transaction,
        amount,
        currency,
        idempotency_key,
        expected_seq,
        minimum_available,
        dry_run,
    })
}

/// The text of a key. Whether it is one does not depend on the ledger.
fn idempotency_key(text: String) -> Result<String, Failure> {
    if RequestKey::of_text(&Hash([0; 32]), text.as_bytes()).is_none() {
        let why = format!("a key has 1 to {KEY_TEXT_BYTES_MAX} visible ASCII characters or spaces");
        return Err(bad("--idempotency-key", &text, why));
    }
    Ok(text)
}

fn listen(args: cli::ListenArgs) -> Result<Listen, Failure> {
    let after = match args.after {
        None => After::Beginning,
        Some(after) if after == "latest" => After::Latest,
        Some(after) if after.is_empty() || !after.bytes().all(|byte| byte.is_ascii_graphic()) => {
            return Err(bad("--after", &after, "a position is one word, as `bursar listen` prints it"));
        }
        Some(position) => After::Position(position),
    };
    let customer = args.customer.as_deref().map(customer).transpose()?;
    Ok(Listen {
        forward_to: args.forward_to,
        secret_file: args.secret_file,
        subscription: Subscription { after, customer, kind: args.kind, status: None },
        position_file: args.position_file,
    })
}

fn serve(args: &cli::ServeArgs) -> Result<Serve, Failure> {
    let listen = args.listen.parse().map_err(|_| {
        bad("--listen", &args.listen, "this is no address with a port")
            .with_hint("Write 127.0.0.1:7400, or [::1]:7400, or 0.0.0.0:7400 for all addresses of this machine.")
    })?;
    let log = match args.log {
        cli::LogArg::Error => logging::Level::Error,
        cli::LogArg::Warn => logging::Level::Warn,
        cli::LogArg::Info => logging::Level::Info,
        cli::LogArg::Debug => logging::Level::Debug,
    };
    let log_format = match args.log_format {
        cli::LogFormatArg::Text => logging::Format::Text,
        cli::LogFormatArg::Json => logging::Format::Json,
    };
    #[cfg(feature = "tls")]
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    Ok(Serve {
        listen,
        #[cfg(feature = "tls")]
        tls: tls.map(|(certificate, key)| bursar_server::TlsFiles { certificate, key }),
        rate_per_key: args.rate_per_key,
        connections_per_address: args.connections_per_address,
        dev: args.dev,
        log,
        log_format,
    })
}

fn key(raw: cli::KeyCommand) -> Result<Key, Failure> {
    match raw {
        cli::KeyCommand::Create(args) => {
            const CHARS_MAX: usize = 100;
            let name = args.name.trim();
            if name.is_empty() || name.chars().any(char::is_control) || name.chars().count() > CHARS_MAX {
                return Err(bad(
                    "--name",
                    &args.name,
                    format_args!("it must be one line of 1 to {CHARS_MAX} characters"),
                ));
            }
            let role = match args.role {
                cli::RoleArg::Read => Role::Read,
                cli::RoleArg::Submit => Role::Submit,
                cli::RoleArg::Operate => Role::Operate,
            };
            Ok(Key::Create { name: name.to_owned(), role })
        }
        cli::KeyCommand::List => Ok(Key::List),
        cli::KeyCommand::Revoke(args) => {
            // A whole key is a secret, and has no place on a command line or in an error.
            if args.id.starts_with("bursar_") {
                return Err(Failure::new(FailureKind::BadArgument, "ID must be a key's id, not the key").with_hint(
                    "`bursar key list` shows the ids. This key is in your shell's history now: revoke it.",
                ));
            }
            Ok(Key::Revoke { id: args.id })
        }
    }
}

/// A head hash.
fn receipt(text: &str) -> Result<Hash, Failure> {
    Hash::parse(text.as_bytes()).ok_or_else(|| {
        let sentence = format!("`{text}` is no receipt: a head hash has 64 hexadecimal digits");
        Failure::new(FailureKind::BadArgument, sentence)
    })
}

/// `CODE:DECIMALS`; where `otherwise` is given, the decimals may be left out.
pub(crate) fn currency(text: &str, otherwise: Option<Decimals>) -> Result<Currency, Failure> {
    const FLAG: &str = "--currency";
    let (code, decimals_count) = match (text.split_once(':'), otherwise) {
        (Some((code, count)), _) => (code, decimals(FLAG, count)?),
        (None, Some(otherwise)) => (text, otherwise),
        (None, None) => {
            let hint = format!("Say how many decimals its amounts have: `--currency {text}:2`.");
            return Err(bad(FLAG, text, "its decimals are missing").with_hint(hint));
        }
    };
    Currency::new(code, decimals_count).map_err(|error| bad(FLAG, text, error))
}

fn currencies(texts: &[String]) -> Result<Currencies, Failure> {
    if texts.is_empty() {
        return Ok(Currencies::default());
    }
    let list = texts.iter().map(|text| currency(text, None)).collect::<Result<Vec<_>, _>>()?;
    Currencies::named(list).map_err(|error| bad("--currency", &texts.join(" "), error))
}

fn customer(text: &str) -> Result<CustomerId, Failure> {
    CustomerId::parse(text.as_bytes()).map_err(|error| bad_id("CLIENT", text, error))
}

fn transaction(text: &str) -> Result<TransactionId, Failure> {
    TransactionId::parse(text.as_bytes()).map_err(|error| bad_id("TX", text, error))
}

fn bad_id(argument: &str, text: &str, error: IdError) -> Failure {
    bad(argument, text, error.kind)
        .with_hint(format!("Ids are written like 42 or like {}.", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"))
}

/// A sequence number if it is all digits, otherwise a time. A time without a zone is in UTC; a date alone
/// means its very end, which is what "the balance of 31 January" says.
fn as_of(text: Option<&str>) -> Result<Option<AsOf>, Failure> {
    const FLAG: &str = "--as-of";
    let Some(text) = text else { return Ok(None) };
    if text.starts_with(|first: char| first.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit() || b == b'_') {
        return count_of(FLAG, text, 1).map(|seq| Some(AsOf::Seq(seq)));
    }
    match moment(text, |date| date.at(23, 59, 59, 999_999_999)) {
        Some(time) => Ok(Some(AsOf::Time(time))),
        None => Err(bad(FLAG, text, "this is neither an event's number nor a time")
            .with_hint("Write 17, or 2026-01-31, or 2026-01-31T12:00:00Z.")),
    }
}

/// A time; in UTC where it names no zone. `of_date`: what a date alone means.
fn moment(text: &str, of_date: fn(civil::Date) -> civil::DateTime) -> Option<Timestamp> {
    const DATE_BYTES: usize = "2026-01-31".len();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let in_utc = if text.len() == DATE_BYTES { text.parse().map(of_date) } else { text.parse::<civil::DateTime>() };
    Some(in_utc.and_then(|local| local.to_zoned(TimeZone::UTC)).ok()?.timestamp())
}

fn pending(args: cli::PendingArgs) -> Result<PendingList, Failure> {
    let cli::PendingArgs { kind, rail, since, until } = args;
    let time = |flag, text: Option<String>| -> Result<Option<TimeMs>, Failure> {
        let Some(text) = text else { return Ok(None) };
        let time = moment(&text, |date| date.at(0, 0, 0, 0));
        let time = time.ok_or_else(|| {
            bad(flag, &text, "this is no time").with_hint("Write 2026-01-31, or 2026-01-31T12:00:00Z.")
        })?;
        // Rounded up: what is at or after a moment begins with the first whole millisecond that is.
        let ms = (time.as_nanosecond() + 999_999).div_euclid(1_000_000);
        Ok(Some(TimeMs(u64::try_from(ms).unwrap_or(0))))
    };
    Ok(PendingList { kind, rail, since: time("--since", since)?, until: time("--until", until)? })
}

fn ingest(args: cli::IngestArgs) -> Result<Ingest, Failure> {
    let source = |path: PathBuf| if path == Path::new("-") { Source::Stdin } else { Source::File(path) };
    let sources: Vec<Source> = args.files.into_iter().map(source).collect();
    if sources.iter().filter(|&source| *source == Source::Stdin).count() > 1 {
        return Err(bad("FILE", "-", "standard input can be read only once"));
    }
    if let Some(rejects) = &args.rejects {
        let same = |path: &Path| match (path.canonicalize(), rejects.canonicalize()) {
            (Ok(one), Ok(other)) => one == other,
            (Err(_), _) | (_, Err(_)) => false,
        };
        let overwritten = sources.iter().any(|source| match source {
            Source::Stdin => false,
            Source::File(path) => same(path),
        });
        if overwritten {
            return Err(bad("--rejects", &rejects.to_string_lossy(), "this would overwrite a file to be read"));
        }
    }
    Ok(Ingest {
        sources,
        in_memory: args.in_memory,
        report: !args.no_report,
        rejects: args.rejects,
        dry_run: args.dry_run,
        strict: args.strict,
        again: args.again,
        all_errors: args.all_errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(failure: Failure) -> String {
        match failure {
            Failure::ReaderGone => String::new(),
            Failure::Told { sentence, .. } => sentence,
        }
    }

    #[test]
    fn moments_are_numbers_times_or_dates() {
        let time = |text: &str| Ok(Some(AsOf::Time(text.parse().unwrap())));
        let table: &[(&str, Result<Option<AsOf>, &str>)] = &[
            ("1", Ok(Some(AsOf::Seq(1)))),
            ("1_000", Ok(Some(AsOf::Seq(1_000)))),
            ("0", Err("--as-of cannot be '0': it must be at least 1")),
            ("18446744073709551616", Err("--as-of cannot be '18446744073709551616': it must be below 2^64")),
            ("2026-01-31T12:00:00Z", time("2026-01-31T12:00:00Z")),
            ("2026-01-31T12:00:00+02:00", time("2026-01-31T10:00:00Z")),
            ("2026-01-31T12:00:00", time("2026-01-31T12:00:00Z")),
            ("2026-01-31 12:00", time("2026-01-31T12:00:00Z")),
            ("2026-01-31", time("2026-01-31T23:59:59.999999999Z")),
            ("2026-02-30", Err("--as-of cannot be '2026-02-30': this is neither an event's number nor a time")),
            ("yesterday", Err("--as-of cannot be 'yesterday': this is neither an event's number nor a time")),
            ("", Err("--as-of cannot be '': this is neither an event's number nor a time")),
        ];
        for (text, expected) in table {
            let got = as_of(Some(text)).map_err(sentence);
            assert_eq!(got, expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn counts_take_groups_of_digits() {
        let table: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("1_000_000", Some(1_000_000)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("_1", None),
            ("1_", None),
            ("-1", None),
            ("+1", None),
            ("1e6", None),
            ("1.0", None),
        ];
        for (text, expected) in table {
            assert_eq!(count_of("--rows", text, 0).ok(), *expected, "{text}");
        }
        assert_eq!(
            count_of("--rows", "0", 1).map_err(sentence),
            Err("--rows cannot be '0': it must be at least 1".to_owned())
        );
    }

    #[test]
    fn currencies_need_their_decimals() {
        let list = |texts: &[&str]| currencies(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        let good = list(&["eur:2", "JPY:0"]).unwrap();
        let shown: Vec<_> = good.iter().map(|(_, c)| (c.code().to_owned(), c.decimals().count())).collect();
        assert_eq!(shown, [("EUR".to_owned(), 2), ("JPY".to_owned(), 0)]);
        assert_eq!(list(&[]).unwrap(), Currencies::default());
        for bad in [&["EUR"][..], &["EUR:10"], &["EUR:x"], &[":2"], &["E R:2"], &["EUR:2", "eur:3"]] {
            assert!(list(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_are_checked() {
        assert_eq!(customer("42").unwrap(), CustomerId::new(42));
        let told = sentence(customer("4x").unwrap_err());
        assert_eq!(told, "CLIENT cannot be '4x': an id is a whole number below 2^64, or a UUID");
    }
}
