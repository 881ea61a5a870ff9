//! Why a row cannot be read: a closed list, with where in the row that shows.

use super::header::Column;
use bursar_core::{AmountError, AmountErrorKind, IdError, IdErrorKind, RequestKind};
use std::fmt;

/// A part of a row's raw text, in bytes: from `start` up to, but without, `end`. Both are at most the text's
/// length. Where nothing is there to point at (a field that is left out) the two are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// The byte behind the last.
    pub end: u32,
}

impl Span {
    /// A row's text is bounded far below 4 GiB, so that 32 bits hold every place in it.
    pub(super) const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }
}

/// Why a row cannot be read, and where that shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowError {
    /// What is wrong.
    pub kind: RowErrorKind,
    /// The column it is about, where it is about one.
    pub column: Option<Column>,
    /// What to underline in the row's raw text.
    pub span: Span,
}

/// What is wrong with a row. **The order of the variants is their precedence**: where two apply, the first is
/// reported; among fields, in the order type, client, tx, currency, amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowErrorKind {
    /// Longer than the reader's limit. Its text is what comes before the limit; the rest was skipped.
    RowTooLong {
        /// The limit.
        bytes_max: u32,
    },
    /// A quoted field does not end: not within the row limit, or only to be followed by other text on a later
    /// line. Only the first line counts as the row.
    UnclosedQuote,
    /// Something other than a comma or the line's end follows a closing quote.
    TextAfterQuote,
    /// Bytes that are no UTF-8.
    NotUtf8,
    /// More fields than the header has columns.
    TooManyFields {
        /// Fields in the row.
        fields: u32,
        /// Columns in the header.
        columns: u32,
    },
    /// The row ends before a field that must be there.
    TooFewFields,
    /// No kind of request has this name.
    UnknownKind {
        /// The kind with a name much like it.
        near: Option<RequestKind>,
    },
    /// The client or the tx is no id.
    BadId(IdErrorKind),
    /// An unlock row with something more than a client.
    UnlockTakesOnlyClient,
    /// The ledger has no such currency.
    UnknownCurrency,
    /// An amount without a currency, in a ledger that has several.
    MissingCurrency,
    /// A deposit or a withdrawal without an amount.
    MissingAmount,
    /// The amount is none, or one that its currency cannot hold.
    BadAmount(AmountErrorKind),
}

/// One line per [`RowErrorKind`] for tables and documents: its code, its meaning, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowErrorInfo {
    /// The stable code, as in [`RowErrorKind::code`].
    pub code: &'static str,
    /// What it means, in a sentence.
    pub meaning: &'static str,
    /// What somebody can do about it.
    pub hint: &'static str,
}

impl RowErrorKind {
    /// Every kind, in order of precedence.
    pub const ALL: [RowErrorInfo; 13] = [
        RowErrorInfo {
            code: "row_too_long",
            meaning: "The row is longer than a row may be; the rest of it was skipped.",
            hint: "Look for a missing line end, or remove columns that are not needed.",
        },
        RowErrorInfo {
            code: "unclosed_quote",
            meaning: "A field begins with a quote and does not end with one.",
            hint: "Close the quote, or double it if it belongs to the text. Reading went on with the next line.",
        },
        RowErrorInfo {
            code: "text_after_quote",
            meaning: "Text follows the closing quote of a field.",
            hint: "A quote inside a quoted field is written twice; after the closing one comes a comma or the end.",
        },
        RowErrorInfo {
            code: "not_utf8",
            meaning: "The row has bytes that are no UTF-8.",
            hint: "Save the file as UTF-8.",
        },
        RowErrorInfo {
            code: "too_many_fields",
            meaning: "The row has more fields than the header has columns.",
            hint: "Quote a field that contains a comma; a decimal number has a point, not a comma.",
        },
        RowErrorInfo {
            code: "too_few_fields",
            meaning: "The row ends before a field that must be there.",
            hint: "Only fields that may be empty can be left out at the end of a row.",
        },
        RowErrorInfo {
            code: "unknown_kind",
            meaning: "No kind of request has this name.",
            hint: "The kinds are deposit, withdrawal, dispute, resolve, chargeback and unlock.",
        },
        RowErrorInfo {
            code: "bad_id",
            meaning: "The client or the tx is no id.",
            hint: "An id is a whole number from 0 to 18446744073709551615, or a UUID in its 36 character form.",
        },
        RowErrorInfo {
            code: "unlock_takes_only_client",
            meaning: "An unlock row names a tx, an amount or a currency.",
            hint: "Write it as unlock,CLIENT and leave the other fields empty.",
        },
        RowErrorInfo {
            code: "unknown_currency",
            meaning: "The ledger has no such currency.",
            hint: "`bursar info` lists the ledger's currencies; they are chosen when it is created.",
        },
        RowErrorInfo {
            code: "missing_currency",
            meaning: "No currency is given with an amount, and the ledger has several.",
            hint: "Give the currency in a column named currency.",
        },
        RowErrorInfo {
            code: "missing_amount",
            meaning: "A deposit or a withdrawal has no amount.",
            hint: "Only dispute, resolve and chargeback rows may leave out the amount.",
        },
        RowErrorInfo {
            code: "bad_amount",
            meaning: "The amount is no decimal number, or one that the currency's decimals cannot hold.",
            hint: "Write digits with a point before the decimals, without thousands separators: 1234.50.",
        },
    ];

    /// Its line in [`RowErrorKind::ALL`].
    pub const fn info(self) -> RowErrorInfo {
        let index = match self {
            Self::RowTooLong { .. } => 0,
            Self::UnclosedQuote => 1,
            Self::TextAfterQuote => 2,
            Self::NotUtf8 => 3,
            Self::TooManyFields { .. } => 4,
            Self::TooFewFields => 5,
            Self::UnknownKind { .. } => 6,
            Self::BadId(_) => 7,
            Self::UnlockTakesOnlyClient => 8,
            Self::UnknownCurrency => 9,
            Self::MissingCurrency => 10,
            Self::MissingAmount => 11,
            Self::BadAmount(_) => 12,
        };
        Self::ALL[index]
    }

    /// The stable code used in files and interfaces.
    pub const fn code(self) -> &'static str {
        self.info().code
    }
}

impl RowError {
    /// As [`RowErrorKind::code`].
    pub const fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// What to do about it: fitted to the case where possible, else the one of [`RowErrorKind::info`].
    pub const fn hint(&self) -> &'static str {
        if let RowErrorKind::UnknownKind { near: Some(kind) } = self.kind {
            return match kind {
                RequestKind::Deposit => "Did you mean `deposit`?",
                RequestKind::Withdrawal => "Did you mean `withdrawal`?",
                RequestKind::Dispute => "Did you mean `dispute`?",
                RequestKind::Resolve => "Did you mean `resolve`?",
                RequestKind::Chargeback => "Did you mean `chargeback`?",
                RequestKind::Unlock => "Did you mean `unlock`?",
            };
        }
        if let RowErrorKind::BadAmount(AmountErrorKind::TooManyDecimals { .. }) = self.kind {
            return "Amounts are never rounded: only zeros may follow the currency's decimals.";
        }
        if let RowErrorKind::BadAmount(AmountErrorKind::EndsWithPoint) = self.kind {
            return "Write the digits after the point, or leave it out.";
        }
        self.kind.info().hint
    }

    /// An error about the text of an id.
    pub(super) fn bad_id(column: Column, error: IdError, start: usize, end: usize) -> Self {
        let from = match error.kind {
            IdErrorKind::NotAnId => start + error.at,
            IdErrorKind::Empty | IdErrorKind::TooLarge | IdErrorKind::UuidOfNumber => start,
        };
        Self { kind: RowErrorKind::BadId(error.kind), column: Some(column), span: Span::new(from, end) }
    }

    /// An error about the text of an amount.
    pub(super) fn bad_amount(error: AmountError, start: usize, end: usize) -> Self {
        let from = match error.kind {
            AmountErrorKind::NotANumber | AmountErrorKind::EndsWithPoint | AmountErrorKind::TooManyDecimals { .. } => {
                start + error.at
            }
            AmountErrorKind::Empty | AmountErrorKind::TooLarge => start,
        };
        Self { kind: RowErrorKind::BadAmount(error.kind), column: Some(Column::Amount), span: Span::new(from, end) }
    }
}

/// One sentence, in lower case and without a full stop.
impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self.column.map_or("field", Column::name);
        match self.kind {
            RowErrorKind::RowTooLong { bytes_max } => {
                write!(f, "the row is longer than {bytes_max} bytes; the rest of it was skipped")
            }
            RowErrorKind::UnclosedQuote => f.write_str("the quote that opens here is not closed"),
            RowErrorKind::TextAfterQuote => f.write_str("text follows the closing quote of a field"),
            RowErrorKind::NotUtf8 => f.write_str("the row has bytes that are no UTF-8"),
            RowErrorKind::TooManyFields { fields, columns } => {
                write!(f, "the row has {fields} fields, the header has {columns} columns")
            }
            RowErrorKind::TooFewFields => write!(f, "the row ends before its {column}"),
            RowErrorKind::UnknownKind { .. } if self.span.start == self.span.end => {
                f.write_str("no kind of request is given")
            }
            RowErrorKind::UnknownKind { .. } => f.write_str("no kind of request has this name"),
            RowErrorKind::BadId(kind) => write!(f, "bad {column}: {kind}"),
            RowErrorKind::UnlockTakesOnlyClient => write!(f, "an unlock takes only a client, not a {column}"),
            RowErrorKind::UnknownCurrency => f.write_str("the ledger has no such currency"),
            RowErrorKind::MissingCurrency => f.write_str("no currency is given, and the ledger has several"),
            RowErrorKind::MissingAmount => f.write_str("a deposit or withdrawal needs an amount"),
            RowErrorKind::BadAmount(kind) => write!(f, "bad amount: {kind}"),
        }
    }
}

impl std::error::Error for RowError {}

/// The kind whose name is at most two edits away, if it is clearly meant: fewer edits than half the text.
pub(super) fn near_kind(text: &[u8]) -> Option<RequestKind> {
    if text.len() > NAME_BYTES_MAX {
        return None;
    }
    let nearest = RequestKind::ALL.into_iter().map(|kind| (edit_count(text, kind.name().as_bytes()), kind));
    let (edit_count, kind) = nearest.min_by_key(|(edit_count, _)| *edit_count)?;
    (edit_count <= 2 && edit_count * 2 < text.len()).then_some(kind)
}

const NAME_BYTES_MAX: usize = 16;

/// The Levenshtein distance without regard to letter case. Both texts have at most `NAME_BYTES_MAX` bytes.
fn edit_count(left: &[u8], right: &[u8]) -> usize {
    let mut row = [0; NAME_BYTES_MAX + 1];
    for (index, cell) in row.iter_mut().enumerate() {
        *cell = index;
    }
    for (left_index, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = left_index + 1;
        for (right_index, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(!a.eq_ignore_ascii_case(b));
            diagonal = row[right_index + 1];
            row[right_index + 1] = replaced.min(diagonal + 1).min(row[right_index] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_clearly_meant() {
        use RequestKind as K;
        let table: &[(&str, Option<K>)] = &[
            ("deposti", Some(K::Deposit)),
            ("DEPOSITS", Some(K::Deposit)),
            ("withdrawl", Some(K::Withdrawal)),
            ("withdraw", Some(K::Withdrawal)),
            ("charge_back", Some(K::Chargeback)),
            ("charge back", Some(K::Chargeback)),
            ("unlocked", Some(K::Unlock)),
            ("resolved", Some(K::Resolve)),
            ("refund", None),
            ("", None),
            ("d", None),
            ("a text that is longer than all the names", None),
        ];
        for (text, expected) in table {
            assert_eq!(near_kind(text.as_bytes()), *expected, "{text:?}");
        }
    }

    #[test]
    fn codes_differ() {
        for (index, info) in RowErrorKind::ALL.iter().enumerate() {
            assert!(RowErrorKind::ALL[..index].iter().all(|other| other.code != info.code), "{}", info.code);
        }
    }
}
