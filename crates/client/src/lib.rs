//! A client of the HTTP interface of Bursar: typed, exact about money, and clear about what is known.
//!
//! ```text
//!  Submission ──► Client ──► server ──► Outcome, or SubmitError: refused · not taken · not decided · unknown
//! ```
//!
//! - [`Client`] for async programs, [`blocking::Client`] for all others.
//! - Amounts are [`Figure`]s: exact, never a float. Answers that do not add up are errors, not numbers.
//! - [`SubmitError`] says first whether money moved. What is safe to send again is sent again by itself, within a
//!   deadline, and nothing else is.
//! - Lists and chains are streams, batches go both ways at once, and the stream of events goes on where it was cut off.
//!
//! What it does not do: it keeps nothing, knows no rules of money, and does not check chains; `bursar_engine::chain_file`
//! does that with what [`Client::chain`] gives.

mod batch;
pub mod blocking;
mod chain;
mod client;
mod error;
mod events;
mod figure;
mod key;
mod types;
pub mod webhook;

pub use batch::{BatchEnded, BatchOutcomes, BatchSender, BatchSummary, RowOutcome, RowProblem, RowResult};
pub use chain::ChainDownload;
pub use client::{Client, EventList, Options, PendingList};
pub use error::{Error, Problem, SettleError, SubmitError};
pub use events::{After, EventStream, LedgerEvent, Subscription};
pub use figure::{BadFigure, Figure, TimeMs};
pub use key::{KEY_VARIABLE, Key, KeyError};
pub use types::{
    Account, Asking, CurrencyTotals, Customer, CustomerThen, Event, EventStatus, Figures, LastAnswer, Ledger, Moment,
    Outcome, Outlook, Pending, Policy, Receipt, Settled, Submission, Transaction, TransactionState, Waits, Would,
};
