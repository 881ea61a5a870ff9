//! CSV in and out: files of requests come in, accounts and rows that were not applied go out.
//!
//! ```text
//! file, standard input ── Source ── RowReader ── RowBatch ──> requests, for whoever applies them
//!   plain, .gz, .zst                   │             │
//!                                   Header      RowError ──> Diagnostic (a message with the text underlined)
//!                                      │             └─────> RejectWriter (rows to be corrected)
//!                                      └───────────────────>
//! accounts ── write_accounts ──> client,available,held,total,locked
//! ```
//!
//! What this module does not do: it applies nothing and knows no ledger but its currencies. A row that it
//! reads may still be refused by the rules ([`bursar_core::rules`]); an amount of zero, for example, is read.
//!
//! # How a file is read
//!
//! - The first row that is not blank is the header: `type,client,tx,amount` and optionally `currency`, in any
//!   order and letter case. Other columns are ignored; [`Header::ignored`] names them. The columns `line`,
//!   `code` and `reason`, which [`RejectWriter`] adds, are ignored without being named.
//! - A line ends with LF or CRLF; the last one may lack it. A byte-order mark is skipped, and so are lines of
//!   nothing but spaces and tabs. Spaces and tabs around a field do not count, inside quotes or outside.
//! - A field may be quoted (RFC 4180): a quote inside it is doubled, and it may contain commas and line ends.
//!   A quote in the middle of a field that did not begin with one is a character like any other.
//! - A row may leave out its last fields: they count as empty. It may not have more than the header has.
//! - `unlock` takes a client and nothing else.
//! - Every other row is unreadable, with a [`RowError`] that says where and why; reading goes on behind it.
//!   A fault of quotes costs one line: reading goes on with the line after the one where the row began, so
//!   that a forgotten quote cannot swallow a file.

mod accounts;
mod ahead;
mod diagnostic;
mod fast;
mod header;
mod plain;
mod reader;
mod rejects;
mod row;
mod row_error;
mod scan;
mod source;

pub use accounts::write_accounts;
pub use ahead::{Prepared, RowsAhead};
pub use diagnostic::Diagnostic;
pub use header::{Column, Header, HeaderError};
pub use reader::{Limits, OpenError, RowReader};
pub use rejects::RejectWriter;
pub use row::{Position, Row, RowBatch};
pub use row_error::{RowError, RowErrorInfo, RowErrorKind, Span};
pub use source::{Compression, Source, SourceDigest, SourceError};
