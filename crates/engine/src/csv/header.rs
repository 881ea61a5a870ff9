//! The header: which column of a file is which.

use super::diagnostic::visible;
use super::row_error::{RowError, RowErrorKind, Span};
use super::scan::Field;
use std::borrow::Cow;
use std::fmt;

/// The columns that mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The kind of request.
    Type,
    /// The customer.
    Client,
    /// The transaction.
    Tx,
    /// The amount.
    Amount,
    /// The currency. The only one of the five that a header may lack.
    Currency,
}

impl Column {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Type, Self::Client, Self::Tx, Self::Amount, Self::Currency];

    /// The name in the header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Client => "client",
            Self::Tx => "tx",
            Self::Amount => "amount",
            Self::Currency => "currency",
        }
    }

    const fn is_required(self) -> bool {
        match self {
            Self::Type | Self::Client | Self::Tx | Self::Amount => true,
            Self::Currency => false,
        }
    }
}

/// The columns that a file of rejects has at its end.
pub(super) const REJECT_COLUMNS: [&str; 3] = ["line", "code", "reason"];

/// What a column of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Column(Column),
    /// One of [`REJECT_COLUMNS`].
    Reject,
    Ignored,
}

/// A file's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    roles: Vec<Role>,
    /// The index of each of [`Column::ALL`].
    indexes: [Option<usize>; 5],
    /// The columns' names as they were written, quotes and blanks included.
    raw_names: Vec<Vec<u8>>,
    /// Whether it is `type,client,tx,amount` and nothing else.
    is_plain: bool,
    ignored: Vec<String>,
}

impl Header {
    /// How many columns it has.
    pub const fn column_count(&self) -> usize {
        self.roles.len()
    }

    /// The index of a column, counted from 0. `None` only of the currency.
    pub const fn index_of(&self, column: Column) -> Option<usize> {
        self.indexes[column as usize]
    }

    /// The names of the columns that mean nothing to the reader, to be told to the user once. Columns without a
    /// name, and those that a file of rejects adds, are ignored too but not listed. Control characters are
    /// shown as escapes.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    pub(super) fn roles(&self) -> &[Role] {
        &self.roles
    }

    pub(super) const fn is_plain(&self) -> bool {
        self.is_plain
    }

    pub(super) fn raw_names(&self) -> &[Vec<u8>] {
        &self.raw_names
    }

    /// What a reader has before it has read its header.
    pub(super) const fn nameless() -> Self {
        Self { roles: Vec::new(), indexes: [None; 5], raw_names: Vec::new(), is_plain: false, ignored: Vec::new() }
    }

    /// Reads a header from its row, as the scanner cut it.
    pub(super) fn parse(line: u64, text: &[u8], fields: &[Field]) -> Result<Self, HeaderError> {
        let unreadable = |error| HeaderError::Unreadable { line, text: text.to_vec(), error };
        if let Err(error) = std::str::from_utf8(text) {
            return Err(unreadable(not_utf8(text, error)));
        }
        let mut header = Self::nameless();
        for (index, field) in fields.iter().enumerate() {
            let name = unescaped(&text[field.value.clone()]);
            let name = name.trim_ascii();
            let column = Column::ALL.into_iter().find(|c| c.name().as_bytes().eq_ignore_ascii_case(name));
            let reject = REJECT_COLUMNS.iter().any(|c| c.as_bytes().eq_ignore_ascii_case(name));
            if let Some(column) = column {
                if header.indexes[column as usize].replace(index).is_some() {
                    return Err(HeaderError::Twice { line, column, header: visible(text) });
                }
            } else if !reject && !name.is_empty() {
                header.ignored.push(visible(name));
            }
            header.roles.push(match column {
                Some(column) => Role::Column(column),
                None if reject => Role::Reject,
                None => Role::Ignored,
            });
            header.raw_names.push(text[field.raw.clone()].to_vec());
        }
        header.is_plain = header.roles == [Column::Type, Column::Client, Column::Tx, Column::Amount].map(Role::Column);
        let missing = |c: &Column| c.is_required() && header.index_of(*c).is_none();
        let missing: Vec<Column> = Column::ALL.into_iter().filter(missing).collect();
        if missing.is_empty() {
            Ok(header)
        } else {
            Err(HeaderError::Missing { line, columns: missing, header: visible(text) })
        }
    }
}

/// A quoted field's value with its doubled quotes made single.
fn unescaped(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.contains(&b'"') {
        return Cow::Borrowed(value);
    }
    let mut plain = Vec::with_capacity(value.len());
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        plain.push(byte);
        if byte == b'"' {
            bytes.next_if_eq(&b'"');
        }
    }
    Cow::Owned(plain)
}

/// The error of a row that is no UTF-8, pointing at the first sequence that is not.
pub(super) fn not_utf8(text: &[u8], error: std::str::Utf8Error) -> RowError {
    let start = error.valid_up_to();
    let end = error.error_len().map_or(text.len(), |len| start + len);
    RowError { kind: RowErrorKind::NotUtf8, column: None, span: Span::new(start, end) }
}

/// Why a file has no header that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The file has no row at all.
    Empty,
    /// Columns are missing.
    Missing {
        /// The header's line, counted from 1.
        line: u64,
        /// Which ones.
        columns: Vec<Column>,
        /// The header, with control characters as escapes.
        header: String,
    },
    /// A column is there twice.
    Twice {
        /// The header's line, counted from 1.
        line: u64,
        /// Which one.
        column: Column,
        /// The header, with control characters as escapes.
        header: String,
    },
    /// The header cannot be read as CSV.
    Unreadable {
        /// The header's line, counted from 1.
        line: u64,
        /// Its raw text.
        text: Vec<u8>,
        /// What is wrong with it.
        error: RowError,
    },
}

impl HeaderError {
    /// The stable code used in files and interfaces.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "header_empty",
            Self::Missing { .. } => "header_column_missing",
            Self::Twice { .. } => "header_column_twice",
            Self::Unreadable { .. } => "header_unreadable",
        }
    }

    /// What somebody can do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Empty | Self::Missing { .. } => {
                "The first row names the columns: type,client,tx,amount (in any order) and optionally currency."
            }
            Self::Twice { .. } => "Rename or remove one of the two.",
            Self::Unreadable { error, .. } => error.hint(),
        }
    }
}

/// One sentence, in lower case and without a full stop.
impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the file is empty: it has no header"),
            Self::Missing { line, columns, header } => {
                f.write_str(if columns.len() == 1 {
                    "the header lacks the column "
                } else {
                    "the header lacks the columns "
                })?;
                for (index, column) in columns.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{}", column.name())?;
                }
                write!(f, "; line {line} is: {}", shortened(header))
            }
            Self::Twice { line, column, header } => {
                write!(f, "the header has the column {} twice; line {line} is: {}", column.name(), shortened(header))
            }
            Self::Unreadable { line, error, .. } => write!(f, "the header in line {line} cannot be read: {error}"),
        }
    }
}

impl std::error::Error for HeaderError {}

/// As much of a header as a message can bear.
fn shortened(header: &str) -> Cow<'_, str> {
    const CHARS_MAX: usize = 200;
    match header.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}...", &header[..end])),
        None => Cow::Borrowed(header),
    }
}
