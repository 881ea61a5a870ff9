//! The command line: every command and every flag, with its help.
//!
//! Help texts, the man page and the completions all come from here. What is read here is *raw*: ids,
//! numbers, shares and times are still text. [`crate::checked`] turns them into the types of the engine
//! and says what is wrong with them; the commands see only what was checked.

use crate::config::Settings;
use crate::exit::Exit;
use bursar_core::{DisputablePolicy, LockedPolicy, RequestKind};
use bursar_engine::embedded::EmbeddedOptions;
use bursar_server::Rate;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use std::num::NonZeroUsize;
use std::path::PathBuf;

const ABOUT: &str = "A payment engine: one immutable chain of events per customer";

const EXAMPLES: &str = "\
Examples:
  bursar ingest payments.csv              apply a file and print all accounts
  bursar account 42                       one customer's accounts
  bursar chain 42 --newest-first          how they came about
  bursar verify                           recompute every hash, account and sum
  bursar generate --rows 1000000 | bursar ingest --in-memory -

`bursar help COMMAND` has more.";

/// The whole command line, as it was written.
#[derive(Debug, Parser)]
#[command(
    name = "bursar",
    version,
    about = ABOUT,
    long_about = "A payment engine: one immutable chain of events per customer.\n\n\
        Each customer's money is a chain of events, linked by hashes; a ledger is a directory that holds \
        them all. Data goes to standard output, everything else to standard error.",
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", Exit::help()),
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Directory of the ledger; where `[store]` of its settings names other stores, of its keys and settings
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "bursar-data",
        env = "BURSAR_DATA",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) data: PathBuf,

    /// Settings of stores, cache, rails and webhooks [default: `bursar.toml` in the ledger's directory, if it is there]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(env = "BURSAR_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// A server that has the ledger, in place of a directory: `http://HOST:PORT` or `https://HOST`; its key is taken from
    /// the environment variable `BURSAR_KEY`, or from --key-file
    #[arg(long, global = true, value_name = "URL", env = "BURSAR_SERVER", hide_env_values = true)]
    #[arg(value_hint = ValueHint::Url)]
    pub(crate) server: Option<String>,

    /// With --server: a file that holds the API key and nothing else
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key_file: Option<PathBuf>,

    /// With --server: trust it if these authorities have signed its certificate, and no others (PEM); with --forward-to, they
    /// count beside those of the system [default: those that the system trusts]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(env = "BURSAR_CA_FILE", hide_env_values = true)]
    pub(crate) ca_file: Option<PathBuf>,

    /// How data is printed; ids and amounts are strings in json [default: table on a terminal, otherwise csv]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) output: Option<OutputArg>,

    /// When to use colours; `auto` heeds `NO_COLOR`
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorArg,

    /// About how much memory the ledger's tables may take, at least 192M; K, M and G are powers of 1024 [default: 1G;
    /// `verify`: 2G]
    #[arg(long, global = true, value_name = "BYTES", env = "BURSAR_MEMORY", hide_env_values = true)]
    #[arg(value_parser = memory_bytes)]
    pub(crate) memory: Option<u64>,

    /// Print no progress, no notes and no summary; errors still
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,

    /// What `--config` names, or is in `--data`.
    #[arg(skip)]
    pub(crate) settings: Settings,
}

/// `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputArg {
    Table,
    Csv,
    Json,
}

/// `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorArg {
    Auto,
    Always,
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a ledger with a policy and currencies of its own
    #[command(after_help = "\
Policy and currencies are chosen once and never change. `bursar ingest` creates a ledger with the defaults \
if there is none.

Examples:
  bursar init
  bursar init --currency EUR:2 --currency JPY:0
  bursar --data ledger-eu init --locked frozen --disputable deposits_and_withdrawals")]
    Init(InitArgs),

    /// Apply files of transactions and print all accounts
    #[command(after_help = "\
Files are CSV with the header `type,client,tx,amount` in any order of columns, and optionally `currency`. \
Rows that cannot be read, or that are rejected, are reported and the rest goes on; the exit code is 0 all the same \
(--rejects has those rows, --strict ends at the first that cannot be read). Interrupted at any \
moment, the same command finishes the job: every row takes effect exactly once.

Examples:
  bursar ingest payments.csv
  bursar ingest monday.csv.gz tuesday.csv.zst --rejects not-applied.csv
  zcat payments.csv.gz | bursar ingest --in-memory - > accounts.csv
  bursar ingest payments.csv --dry-run --output table")]
    Ingest(IngestArgs),

    /// Show the ledger's policy, currencies, size and position
    Info,

    /// Print all accounts, ordered by client
    #[command(after_help = "\
Examples:
  bursar accounts
  bursar accounts --output json
  bursar accounts --as-of 2026-01-31T12:00:00Z")]
    Accounts(AccountsArgs),

    /// Print one customer's accounts
    #[command(after_help = "\
Examples:
  bursar account 42
  bursar account 42 --as-of 17              after event 17 of this customer's chain
  bursar account 42 --as-of 2026-01-31      at the end of that day, UTC")]
    Account(AccountArgs),

    /// Print a customer's chain: every event with its change, account, id and hash
    #[command(after_help = "\
Examples:
  bursar chain 42
  bursar chain 42 --newest-first --limit 10
  bursar chain 42 --from 1000 --limit 50 --output json")]
    Chain(ChainArgs),

    /// Print a transaction's state and the events that touched it
    #[command(after_help = "\
Examples:
  bursar transaction 1001
  bursar transaction 6ba7b810-9dad-11d1-80b4-00c04fd430c8 --output json")]
    Transaction(TransactionArgs),

    /// Submit one request, and print its receipt
    #[command(after_help = "\
Answered only after the outcome is durable. A deposit or withdrawal takes effect once, however often it is \
submitted. Exit code 1: the rules refuse it, and nothing moved. Exit code 6, of a server only: it was not decided, or \
that is not known; the code says which.

Examples:
  bursar submit deposit 42 1001 12.5
  bursar submit withdrawal 42 1002 2.5 --currency EUR
  bursar submit dispute 42 1001 --idempotency-key 'case 17'
  bursar submit withdrawal 42 1004 5 --minimum-available 10 --expected-seq 3 --dry-run
  BURSAR_KEY=… bursar submit deposit 42 1003 1 --server https://bursar.example")]
    Submit(SubmitArgs),

    /// Unlock a customer whom a chargeback locked
    #[command(after_help = "\
The unlock is an event of the customer's chain, like every other change.

Example:
  bursar unlock 42")]
    Unlock(UnlockArgs),

    /// Print the events that wait for their rail
    #[command(after_help = "\
An event waits until its rail has agreed or refused; its customer waits with it, and all others go on. Only `bursar \
serve` calls rails. With --server, there is more: whether the rail is being asked, how often it was, what it said last.

Examples:
  bursar pending
  bursar pending --rail payouts --until 2026-01-31
  bursar pending --server http://127.0.0.1:7400 --output json")]
    Pending(PendingArgs),

    /// Settle an event by hand that waits for a rail that will never answer
    #[command(after_help = "\
Ask the rail first, by the event's id, which it has as idempotency key. Settle as `done` what it did, and as `aborted` \
what it did not do and never will: nobody can check this for you. The reason goes into the customer's chain.

Examples:
  bursar settle 6f1cf1f0-4f6e-8d53-9c3f-5a5d5f3c2b1a --as done --reason 'on the statement of 31 January'
  bursar settle 6f1cf1f0-4f6e-8d53-9c3f-5a5d5f3c2b1a --as aborted --reason 'cancelled by phone, ticket 17'")]
    Settle(SettleArgs),

    /// Recompute hashes, accounts and sums, and name the first byte that is wrong
    #[command(after_help = "\
Exit code 0: all is as it should be. Exit code 4: damage was found.

Examples:
  bursar verify                   the whole ledger
  bursar verify 42                one customer's chain
  bursar verify 42 --server URL   the same of a server: downloaded, and checked here
  bursar verify --file 42.chain   an exported chain, without any ledger")]
    Verify(VerifyArgs),

    /// Write one customer's chain to a file that `bursar verify --file` checks by itself
    #[command(after_help = "\
Examples:
  bursar export --chain 42 --to 42.chain
  bursar export --chain 42 > 42.chain")]
    Export(ExportArgs),

    /// Serve the ledger over HTTP until SIGTERM or Ctrl-C
    #[command(after_help = "\
The address is printed to standard output when the service listens; logs go to standard error. The interface is \
described at /openapi.json, and in docs/api.md. API keys are required as soon as other machines can reach the \
service, and whenever there are keys.

Examples:
  bursar serve
  bursar serve --dev
  bursar key create --name shop --role submit && bursar serve --listen 0.0.0.0:7400")]
    Serve(ServeArgs),

    /// Copy the ledger to another directory, also while it is served
    #[command(after_help = "\
The copy holds everything that was durable when the command began, and is verified. Run again onto the same \
directory, only what is new is copied; interrupted, the same command completes it. Hashes of API keys are copied \
as well; the index is not: it is made anew from the journal.

Examples:
  bursar backup --to /backup/ledger
  bursar backup --to /backup/ledger --skip-verify    check only the bytes that are copied")]
    Backup(BackupArgs),

    /// Put a copy of a ledger into a new directory
    #[command(after_help = "\
Every frame is checked on the way, and the whole ledger afterwards. API keys come back as they were when the copy \
was taken, also those that were revoked since.

Example:
  bursar --data bursar-data restore --from /backup/ledger")]
    Restore(RestoreArgs),

    /// Copy a whole ledger from one place to another: a directory, PostgreSQL, NATS
    #[command(after_help = "\
A place is a ledger's directory, a copy that `bursar backup` made, or a `bursar.toml` that says in `[store]` where the \
ledger is. Events keep their hashes and ids. The target is created, or has a part of the same ledger: run again, the \
same command adds what is missing. In the end every head and every sum of both is compared. API keys and settings are \
not copied.

A ledger that is in use is copied as it stands. To move one: copy while it serves, stop all that write to it, and run \
the same command again.

Exit code 0: both are equal. 1: the source went on, and the target is behind it. 3: the target has something else. \
4: the source is not sound, or the sums of both differ.

Examples:
  bursar copy --from bursar-data --to bursar.toml
  bursar copy --from bursar.toml --to new-data --output json")]
    Copy(CopyLedgerArgs),

    /// Bring the stores that `[store]` names to this program's version
    #[command(after_help = "\
PostgreSQL: the schema is made, or migrated, each step in a transaction. NATS: the streams are made for a ledger that \
is to be, or checked. Nothing is done to a ledger in a directory: its files are of a version that opens, or of one that \
is refused.

Example:
  bursar migrate")]
    Migrate,

    /// Look whether the directory and the machine are fit for a ledger
    #[command(after_help = "\
Nothing is changed, and a service may be running; a small file is written to measure the disk, and removed. Each \
finding says what to do. Exit code 3: one of them is a failure.

Examples:
  bursar doctor
  bursar doctor --output json")]
    Doctor,
    /// Print a server's events as they happen, or forward each to an URL
    #[command(after_help = "\
Prints one JSON object per line, and goes on by itself where a connection was lost. With --forward-to, each event is \
posted, signed as Standard Webhooks has it, and the answer is printed; an event that is not taken (2xx) is posted \
again, with pauses, and none is passed over. The secret comes from --secret-file or from the environment variable \
BURSAR_WEBHOOK_SECRET; otherwise a new one is made and printed to standard error. Nothing is remembered but in the file \
of --position-file.

Examples:
  bursar listen --server http://127.0.0.1:7400
  bursar listen --server http://127.0.0.1:7400 --forward-to http://localhost:3000/hook
  bursar listen --after latest --customer 42 --position-file position")]
    Listen(ListenArgs),

    /// Show a server's load as it changes
    #[command(after_help = "\
On a terminal: a view that is drawn anew every second; q ends it. Elsewhere, or with --once: one snapshot as \
`key,value`. A figure that the server does not have is left out.

Examples:
  bursar top --server http://127.0.0.1:7400
  bursar top --server http://127.0.0.1:7400 --once")]
    Top(TopArgs),

    /// Create, list and revoke the API keys of `bursar serve`
    #[command(
        arg_required_else_help = true,
        after_help = "\
Only hashes of keys are kept, in the ledger's directory. A running service heeds changes within a second or two.

Examples:
  bursar key create --name shop --role submit
  bursar key list
  bursar key revoke 1f0c2a9b77de"
    )]
    Key(KeyArgs),

    /// Explain an error or rejection code; all of them if none is given
    #[command(after_help = "\
Examples:
  bursar explain insufficient_funds
  bursar explain --output csv")]
    Explain(ExplainArgs),

    /// Write a workload: rows of transactions that follow from a seed
    #[command(after_help = "\
The same flags and the same seed give the same bytes, on every machine and in every version. Shares are \
percentages of all rows with up to 3 decimals; what is left are deposits. A dispute, resolve, chargeback or \
repeat for which there is no transaction yet becomes a deposit.

Examples:
  bursar generate --rows 1000000 --to million.csv
  bursar generate --clients 100000 --skew 50 --ids uuid
  bursar generate --rows 5000 --bad 2 --repeats 1.5 --seed 7
  bursar generate --currency EUR:2 --currency JPY:0 --amounts 500")]
    Generate(Box<GenerateArgs>),

    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  bursar completions bash > ~/.local/share/bash-completion/completions/bursar
  bursar completions zsh > ~/.zfunc/_bursar
  bursar completions fish > ~/.config/fish/completions/bursar.fish")]
    Completions(CompletionsArgs),

    /// Print the man page, or write one for every command
    #[command(after_help = "\
Examples:
  bursar man | man -l -
  bursar man --to /usr/local/share/man/man1")]
    Man(ManArgs),
}

/// `bursar init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// What a customer whom a chargeback locked may still do
    #[arg(long, value_name = "POLICY", default_value = LockedPolicy::Nothing.name(), value_parser = locked_policy())]
    pub(crate) locked: LockedPolicy,

    /// Which transactions can be disputed
    #[arg(long, value_name = "POLICY", default_value = DisputablePolicy::Deposits.name())]
    #[arg(value_parser = disputable_policy())]
    pub(crate) disputable: DisputablePolicy,

    /// A currency and its decimals, 0 to 9; give it once per currency [default: no name, 4 decimals]
    #[arg(long = "currency", value_name = "CODE:DECIMALS")]
    pub(crate) currencies: Vec<String>,
}

/// `bursar ingest`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct IngestArgs {
    /// Files, in this order; plain, .gz or .zst; `-` is standard input
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,

    /// Keep nothing: a ledger in memory, gone at the end
    #[arg(long)]
    pub(crate) in_memory: bool,

    /// Print no accounts at the end
    #[arg(long)]
    pub(crate) no_report: bool,

    /// Write every row that was not applied to this file, with its line, code and sentence
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) rejects: Option<PathBuf>,

    /// Show what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Stop at the first row that cannot be read, with exit code 1
    #[arg(long)]
    pub(crate) strict: bool,

    /// Apply a file again although the ledger has it already
    #[arg(long)]
    pub(crate) again: bool,

    /// Show every row that cannot be read, not only the first 50
    #[arg(long)]
    pub(crate) all_errors: bool,
}

/// `bursar accounts`.
#[derive(Debug, Args)]
pub(crate) struct AccountsArgs {
    /// The balances as they were: after event SEQ of each chain, or at a time (RFC 3339, UTC if no zone)
    #[arg(long, value_name = "SEQ|TIME")]
    pub(crate) as_of: Option<String>,
}

/// `bursar account`.
#[derive(Debug, Args)]
pub(crate) struct AccountArgs {
    /// The customer's id: a number below 2^64, or a UUID
    #[arg(value_name = "CLIENT")]
    pub(crate) client: String,

    /// The balance as it was: after event SEQ of the chain, or at a time (RFC 3339, UTC if no zone)
    #[arg(long, value_name = "SEQ|TIME")]
    pub(crate) as_of: Option<String>,
}

/// `bursar chain`.
#[derive(Debug, Args)]
pub(crate) struct ChainArgs {
    /// The customer's id: a number below 2^64, or a UUID
    #[arg(value_name = "CLIENT")]
    pub(crate) client: String,

    /// Begin at this event, counted from 1; with --newest-first: go down from it
    #[arg(long, value_name = "SEQ")]
    pub(crate) from: Option<String>,

    /// Print at most so many events
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<String>,

    /// Print the newest event first
    #[arg(long)]
    pub(crate) newest_first: bool,
}

/// `bursar transaction`.
#[derive(Debug, Args)]
pub(crate) struct TransactionArgs {
    /// The transaction's id: a number below 2^64, or a UUID
    #[arg(value_name = "TX")]
    pub(crate) transaction: String,
}

/// `bursar submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// What is asked for
    #[arg(value_name = "KIND", value_parser = request_kind())]
    pub(crate) kind: RequestKind,

    /// The customer's id: a number below 2^64, or a UUID
    #[arg(value_name = "CLIENT")]
    pub(crate) client: String,

    /// The transaction's id: a number below 2^64, or a UUID; an unlock has none
    #[arg(value_name = "TX")]
    pub(crate) transaction: Option<String>,

    /// The amount of a deposit or withdrawal; otherwise, one that the transaction's must equal
    #[arg(value_name = "AMOUNT", allow_negative_numbers = true)]
    pub(crate) amount: Option<String>,

    /// Its currency; may be left out where the ledger has only one
    #[arg(long, value_name = "CODE")]
    pub(crate) currency: Option<String>,

    /// Not for a deposit or withdrawal: submitted again with the same key, the request takes effect once
    #[arg(long, value_name = "TEXT")]
    pub(crate) idempotency_key: Option<String>,

    /// Only if the customer's newest event has this place in the chain; 0: there is none yet
    #[arg(long, value_name = "SEQ")]
    pub(crate) expected_seq: Option<String>,

    /// Only if at least so much is available afterwards, in the currency of the request
    #[arg(long, value_name = "AMOUNT", allow_negative_numbers = true)]
    pub(crate) minimum_available: Option<String>,

    /// Show what would come of it, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `bursar pending`.
#[derive(Debug, Args)]
pub(crate) struct PendingArgs {
    /// Only events of this kind
    #[arg(long, value_name = "KIND", value_parser = request_kind())]
    pub(crate) kind: Option<RequestKind>,

    /// Only events that wait for this rail: its name in bursar.toml, or its number
    #[arg(long, value_name = "RAIL")]
    pub(crate) rail: Option<String>,

    /// Only events at or after this time; a date is its first moment, in UTC
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,

    /// Only events before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
}

/// `bursar listen`.
#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// Post each event to this URL, signed, instead of printing it
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) forward_to: Option<String>,

    /// With --forward-to: a file that holds the secret (whsec_…) and nothing else
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "forward_to")]
    pub(crate) secret_file: Option<PathBuf>,

    /// Begin behind this position, or with what comes from now on (`latest`) [default: with the first event]
    #[arg(long, value_name = "POSITION")]
    pub(crate) after: Option<String>,

    /// Only this customer's events
    #[arg(long, value_name = "CLIENT")]
    pub(crate) customer: Option<String>,

    /// Only events of this kind
    #[arg(long, value_name = "KIND", value_parser = request_kind())]
    pub(crate) kind: Option<RequestKind>,

    /// Keep the position of the last event that was printed or taken in this file, and begin behind it if it is there
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) position_file: Option<PathBuf>,
}

/// `bursar top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Print one snapshot, also on a terminal
    #[arg(long)]
    pub(crate) once: bool,

    /// Seconds between two looks, 1 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) every: u16,
}

/// `bursar unlock`.
#[derive(Debug, Args)]
pub(crate) struct UnlockArgs {
    /// The customer's id: a number below 2^64, or a UUID
    #[arg(value_name = "CLIENT")]
    pub(crate) client: String,

    /// Run again with the same key, it takes effect once
    #[arg(long, value_name = "TEXT")]
    pub(crate) idempotency_key: Option<String>,
}

/// `bursar settle`.
#[derive(Debug, Args)]
pub(crate) struct SettleArgs {
    /// The event's id, as `bursar pending` shows it
    #[arg(value_name = "EVENT")]
    pub(crate) event: String,

    /// How it ends
    #[arg(long = "as", value_name = "END")]
    pub(crate) end: EndArg,

    /// Why, in at most 255 bytes; it goes into the chain
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
}

/// `--as`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EndArg {
    /// The rail has acted
    Done,
    /// The rail has not acted, and never will
    Aborted,
}

/// `bursar verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Verify this customer's chain only
    #[arg(value_name = "CLIENT", conflicts_with = "file")]
    pub(crate) client: Option<String>,

    /// Verify an exported chain, without any ledger
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,

    /// With --file, or a customer of a server: a head hash that the chain must have had, as every outcome gives one
    #[arg(long, value_name = "HASH")]
    pub(crate) receipt: Option<String>,
}

/// `bursar export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The customer whose chain is written
    #[arg(long, value_name = "CLIENT")]
    pub(crate) chain: String,

    /// Where to write it [default: standard output]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) to: Option<PathBuf>,
}

/// `bursar serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7400", env = "BURSAR_LISTEN")]
    #[arg(hide_env_values = true)]
    pub(crate) listen: String,

    /// Try it out: a ledger in memory with sample data, a key of its own, and commands to try
    #[arg(long)]
    pub(crate) dev: bool,

    /// Speak TLS, with this certificate and those between it and the root, in PEM; read again when it changes
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "BURSAR_TLS_CERT", hide_env_values = true)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The private key of the certificate, in PEM
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "BURSAR_TLS_KEY", hide_env_values = true)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) tls_key: Option<PathBuf>,

    /// How many requests a key may make, and how many at once; a row of a batch is one [default: no limit]
    #[arg(long, value_name = "N/s[:BURST]", env = "BURSAR_RATE_PER_KEY", hide_env_values = true)]
    pub(crate) rate_per_key: Option<Rate>,

    /// How many connections an address may have at once; behind a proxy, all have the proxy's [default: 1024]
    #[arg(long, value_name = "N", env = "BURSAR_CONNECTIONS_PER_ADDRESS", hide_env_values = true)]
    pub(crate) connections_per_address: Option<NonZeroUsize>,

    /// How much to log
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log: LogArg,

    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormatArg,
}

/// `--log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogArg {
    Error,
    Warn,
    Info,
    Debug,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormatArg {
    Text,
    Json,
}

/// `bursar backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The directory of the copy: new, empty, or with an earlier copy of this ledger
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) to: PathBuf,

    /// Leave the API keys out; without it, their hashes are copied
    #[arg(long)]
    pub(crate) without_keys: bool,

    /// Do not verify the whole copy at the end; what is copied is checked all the same
    #[arg(long)]
    pub(crate) skip_verify: bool,
}

/// `bursar restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The directory of the copy
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) from: PathBuf,

    /// Leave the API keys of the copy out
    #[arg(long)]
    pub(crate) without_keys: bool,

    /// Do not verify the whole ledger at the end; what is copied is checked all the same
    #[arg(long)]
    pub(crate) skip_verify: bool,
}

/// `bursar copy`.
#[derive(Debug, Args)]
pub(crate) struct CopyLedgerArgs {
    /// The ledger that is copied: a directory, or a file as `bursar.toml`
    #[arg(long, value_name = "PLACE", value_hint = ValueHint::AnyPath)]
    pub(crate) from: PathBuf,

    /// Where to: a directory that is new, or a file as `bursar.toml`; or one that holds a part of the same ledger
    #[arg(long, value_name = "PLACE", value_hint = ValueHint::AnyPath)]
    pub(crate) to: PathBuf,
}

/// `bursar key`.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key and print it, this once
    Create(KeyCreateArgs),

    /// List the keys: their ids, names and roles
    List,

    /// Revoke a key
    Revoke(KeyRevokeArgs),
}

/// `bursar key create`.
#[derive(Debug, Args)]
pub(crate) struct KeyCreateArgs {
    /// What its owner is called, for people
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,

    /// What it allows; each role may do what the ones before it may
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: RoleArg,
}

/// `--role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Read customers, chains, transactions, totals and metrics
    Read,
    /// Also submit requests
    Submit,
    /// Also unlock customers, settle events by hand, and pause, resume and resend webhooks
    Operate,
}

/// `bursar key revoke`.
#[derive(Debug, Args)]
pub(crate) struct KeyRevokeArgs {
    /// The key's id, as `bursar key list` shows it; not the key
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `bursar explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A code as printed in an error, a report of rejects or a summary
    #[arg(value_name = "CODE")]
    pub(crate) code: Option<String>,
}

/// `bursar generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// How many rows, the header not counted
    #[arg(long, value_name = "N", default_value = "1_000_000")]
    pub(crate) rows: String,

    /// How many clients
    #[arg(long, value_name = "N", default_value = "1_000")]
    pub(crate) clients: String,

    /// The number from which everything follows
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) seed: String,

    /// Share of the rows that goes to the hottest 1% of the clients, within which the same holds again;
    /// 0: all clients alike
    #[arg(long, value_name = "PERCENT", default_value = "0")]
    pub(crate) skew: String,

    /// Share of withdrawals
    #[arg(long, value_name = "PERCENT", default_value = "30", help_heading = "Shares of the rows")]
    pub(crate) withdrawals: String,

    /// Share of disputes of a recent deposit
    #[arg(long, value_name = "PERCENT", default_value = "1", help_heading = "Shares of the rows")]
    pub(crate) disputes: String,

    /// Share of resolves of an open dispute
    #[arg(long, value_name = "PERCENT", default_value = "0.7", help_heading = "Shares of the rows")]
    pub(crate) resolves: String,

    /// Share of chargebacks of an open dispute; each locks its client
    #[arg(long, value_name = "PERCENT", default_value = "0.01", help_heading = "Shares of the rows")]
    pub(crate) chargebacks: String,

    /// Share of exact repeats of a recent deposit
    #[arg(long, value_name = "PERCENT", default_value = "0", help_heading = "Shares of the rows")]
    pub(crate) repeats: String,

    /// Share of bad rows, of seven sorts: bad amount, unknown kind, missing field, not UTF-8, negative
    /// amount, unknown transaction, another client's transaction
    #[arg(long, value_name = "PERCENT", default_value = "0", help_heading = "Shares of the rows")]
    pub(crate) bad: String,

    /// Transaction ids: counted from 1, numbers below 2^64 in no order, or UUIDs
    #[arg(long, value_name = "FORM", default_value = "rising")]
    pub(crate) ids: TransactionIdsArg,

    /// Client ids: counted from 1 with the hottest first, or UUIDs
    #[arg(long, value_name = "FORM", default_value = "number")]
    pub(crate) client_ids: ClientIdsArg,

    /// The largest amount
    #[arg(long, value_name = "MAX", default_value = "1000")]
    pub(crate) amounts: String,

    /// Decimals of the amounts, 0 to 9
    #[arg(long, value_name = "N", default_value = "4")]
    pub(crate) decimals: String,

    /// Add a column `currency` with this code, and these decimals if given; once per currency
    #[arg(long = "currency", value_name = "CODE[:DECIMALS]")]
    pub(crate) currencies: Vec<String>,

    /// How many recent deposits can be disputed or repeated, and how many disputes are kept open
    #[arg(long, value_name = "N", default_value = "4_096")]
    pub(crate) dispute_window: String,

    /// Where to write the rows [default: standard output]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) to: Option<PathBuf>,
}

/// `--ids`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransactionIdsArg {
    Rising,
    Random,
    Uuid,
}

/// `--client-ids`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClientIdsArg {
    Number,
    Uuid,
}

/// `bursar completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// `bursar man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page for every command into this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) to: Option<PathBuf>,
}

/// Reads a size of memory in bytes.
fn memory_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let shift = match &text[digits.len()..] {
        "" => Some(0),
        "K" => Some(10),
        "M" => Some(20),
        "G" => Some(30),
        _ => None,
    };
    let number = digits.replace('_', "").parse::<u64>().ok().zip(shift);
    let bytes = number.and_then(|(number, shift)| number.checked_mul(1 << shift));
    let least = EmbeddedOptions::MEMORY_BYTES_MIN;
    match bytes {
        None => Err("a number of bytes, or a number with K, M or G behind it, is needed".to_owned()),
        Some(bytes) if bytes < least => Err(format!("it must be at least {}M", least >> 20)),
        Some(bytes) => Ok(bytes),
    }
}

/// Reads the name of a kind of request.
fn request_kind() -> impl TypedValueParser<Value = RequestKind> {
    PossibleValuesParser::new(RequestKind::ALL.map(RequestKind::name)).try_map(|name| {
        let found = RequestKind::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or("no such kind")
    })
}

/// Reads the name of a policy for locked customers, straight into the type of the rules.
fn locked_policy() -> impl TypedValueParser<Value = LockedPolicy> {
    let help = |policy| match policy {
        LockedPolicy::Nothing => "Open disputes can be resolved or charged back, nothing else",
        LockedPolicy::NoWithdrawals => "Everything but withdrawals",
        LockedPolicy::Frozen => "Nothing at all, until an operator unlocks",
    };
    let values = LockedPolicy::ALL.map(|policy| PossibleValue::new(policy.name()).help(help(policy)));
    PossibleValuesParser::new(values).try_map(|name| {
        let found = LockedPolicy::ALL.into_iter().find(|policy| policy.name() == name);
        found.ok_or("no such policy")
    })
}

/// Reads the name of a policy for disputes, straight into the type of the rules.
fn disputable_policy() -> impl TypedValueParser<Value = DisputablePolicy> {
    let help = |policy| match policy {
        DisputablePolicy::Deposits => "Deposits only",
        DisputablePolicy::DepositsAndWithdrawals => "Also withdrawals, by way of a provisional credit",
    };
    let values = DisputablePolicy::ALL.map(|policy| PossibleValue::new(policy.name()).help(help(policy)));
    PossibleValuesParser::new(values).try_map(|name| {
        let found = DisputablePolicy::ALL.into_iter().find(|policy| policy.name() == name);
        found.ok_or("no such policy")
    })
}
