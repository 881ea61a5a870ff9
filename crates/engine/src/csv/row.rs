//! Rows: what one is, a batch of them, and how fields become a request.

use super::header::{Column, Header, not_utf8};
use super::row_error::{RowError, RowErrorKind, Span, near_kind};
use super::scan::Field;
use bursar_core::{
    Action, Amount, Currencies, CurrencyIndex, CustomerId, Movement, Reference, Request, RequestKind, TransactionId,
};

/// A place between two rows, where reading can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The offset of the next byte in the decompressed source, counted from 0.
    pub offset: u64,
    /// The line of that byte, counted from 1.
    pub line: u64,
}

impl Position {
    /// The beginning of a source.
    pub const START: Self = Self { offset: 0, line: 1 };
}

/// A row that was read, or could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The line on which the row begins, counted from 1 over the lines of the decompressed source. (A quoted
    /// field may contain line ends; then the row has several.)
    pub line: u64,
    /// The place right behind the row and its line end. What an ingest that is interrupted here goes on from.
    pub after: Position,
    /// Where the row's text is in its batch; see [`RowBatch::text_of`].
    pub(super) text_start: u32,
    pub(super) text_end: u32,
    /// The request, or why there is none.
    pub content: Result<Request, RowError>,
}

/// Consecutive rows and their raw text. Reused from call to call, so that a row costs no allocation.
#[derive(Debug, Default)]
pub struct RowBatch {
    pub(super) rows: Vec<Row>,
    /// The raw bytes: `taken` of them are rows of this batch, what is behind belongs to the next.
    pub(super) bytes: Vec<u8>,
    pub(super) taken: usize,
    pub(super) filled: usize,
}

impl RowBatch {
    /// An empty batch. Its memory is allocated when it is first filled.
    pub fn new() -> Self {
        Self::default()
    }

    /// The rows, in the order of the file.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The raw text of a row of this batch: as in the file, without its line end. Empty for a row of another
    /// batch that does not fit.
    ///
    /// Of a row that is longer than the limit, only what comes before the limit.
    pub fn text_of(&self, row: &Row) -> &[u8] {
        self.bytes.get(row.text_start as usize..row.text_end as usize).unwrap_or_default()
    }
}

/// Makes a request of a row's fields, as the scanner cut them.
pub(super) fn request_of(
    text: &[u8],
    fields: &[Field],
    header: &Header,
    currencies: &Currencies,
) -> Result<Request, RowError> {
    if let Err(error) = std::str::from_utf8(text) {
        return Err(not_utf8(text, error));
    }
    let columns = header.column_count();
    if let Some(surplus) = fields.get(columns) {
        let kind = RowErrorKind::TooManyFields { fields: fields.len() as u32, columns: columns as u32 };
        return Err(RowError { kind, column: None, span: Span::new(surplus.raw.start, text.len()) });
    }
    let cut = CutRow { text, fields, header, currencies };
    let kind = cut.kind()?;
    let client = cut.required(Column::Client)?;
    let customer = CustomerId::parse(client.text)
        .map_err(|error| RowError::bad_id(Column::Client, error, client.start, client.end()))?;
    let action = match kind {
        RequestKind::Deposit => Action::Deposit(cut.movement()?),
        RequestKind::Withdrawal => Action::Withdrawal(cut.movement()?),
        RequestKind::Dispute => Action::Dispute(cut.reference()?),
        RequestKind::Resolve => Action::Resolve(cut.reference()?),
        RequestKind::Chargeback => Action::Chargeback(cut.reference()?),
        RequestKind::Unlock => cut.unlock()?,
    };
    Ok(Request { customer, action })
}

/// A field's text without blanks and quotes, and where it begins in the row.
#[derive(Clone, Copy)]
struct Value<'a> {
    text: &'a [u8],
    start: usize,
}

impl Value<'_> {
    const fn end(self) -> usize {
        self.start + self.text.len()
    }
}

struct CutRow<'a> {
    text: &'a [u8],
    fields: &'a [Field],
    header: &'a Header,
    currencies: &'a Currencies,
}

impl<'a> CutRow<'a> {
    /// The value of a column; `None` if the row ends before it, or the header lacks it.
    fn value(&self, column: Column) -> Option<Value<'a>> {
        let range = self.fields.get(self.header.index_of(column)?)?.value.clone();
        let (mut start, mut text) = (range.start, self.text.get(range)?);
        while let [b' ' | b'\t', rest @ ..] = text {
            (start, text) = (start + 1, rest);
        }
        while let [rest @ .., b' ' | b'\t'] = text {
            text = rest;
        }
        Some(Value { text, start })
    }

    /// The value of a column, if it is not empty.
    fn given(&self, column: Column) -> Option<Value<'a>> {
        self.value(column).filter(|value| !value.text.is_empty())
    }

    fn required(&self, column: Column) -> Result<Value<'a>, RowError> {
        self.value(column).ok_or_else(|| self.absent(RowErrorKind::TooFewFields, column))
    }

    /// An error about something that is not there: it points to where it should be.
    fn absent(&self, kind: RowErrorKind, column: Column) -> RowError {
        let at = self.value(column).map_or(self.text.len(), |value| value.start);
        RowError { kind, column: Some(column), span: Span::new(at, at) }
    }

    fn kind(&self) -> Result<RequestKind, RowError> {
        let value = self.required(Column::Type)?;
        RequestKind::from_name(value.text).ok_or_else(|| RowError {
            kind: RowErrorKind::UnknownKind { near: near_kind(value.text) },
            column: Some(Column::Type),
            span: Span::new(value.start, value.end()),
        })
    }

    fn transaction(&self) -> Result<TransactionId, RowError> {
        let tx = self.required(Column::Tx)?;
        TransactionId::parse(tx.text).map_err(|error| RowError::bad_id(Column::Tx, error, tx.start, tx.end()))
    }

    fn currency(&self) -> Result<Option<CurrencyIndex>, RowError> {
        let Some(value) = self.given(Column::Currency) else { return Ok(None) };
        match self.currencies.find(value.text) {
            Some(currency) => Ok(Some(currency)),
            None => Err(RowError {
                kind: RowErrorKind::UnknownCurrency,
                column: Some(Column::Currency),
                span: Span::new(value.start, value.end()),
            }),
        }
    }

    /// The currency of an amount: the one given, else the ledger's only one.
    fn currency_of_amount(&self, given: Option<CurrencyIndex>) -> Result<CurrencyIndex, RowError> {
        let missing = || self.absent(RowErrorKind::MissingCurrency, Column::Currency);
        given.or(self.currencies.only()).ok_or_else(missing)
    }

    fn amount(&self, value: Value<'_>, currency: CurrencyIndex) -> Result<Amount, RowError> {
        Amount::parse(value.text, self.currencies.decimals(currency))
            .map_err(|error| RowError::bad_amount(error, value.start, value.end()))
    }

    fn movement(&self) -> Result<Movement, RowError> {
        let transaction = self.transaction()?;
        let currency = self.currency_of_amount(self.currency()?)?;
        let Some(value) = self.given(Column::Amount) else {
            return Err(self.absent(RowErrorKind::MissingAmount, Column::Amount));
        };
        let amount = self.amount(value, currency)?;
        Ok(Movement { transaction, amount, currency })
    }

    fn reference(&self) -> Result<Reference, RowError> {
        let transaction = self.transaction()?;
        let currency = self.currency()?;
        let amount = match self.given(Column::Amount) {
            None => None,
            Some(value) => Some(self.amount(value, self.currency_of_amount(currency)?)?),
        };
        Ok(Reference { transaction, amount, currency })
    }

    fn unlock(&self) -> Result<Action, RowError> {
        for column in [Column::Tx, Column::Currency, Column::Amount] {
            if let Some(value) = self.given(column) {
                let span = Span::new(value.start, value.end());
                return Err(RowError { kind: RowErrorKind::UnlockTakesOnlyClient, column: Some(column), span });
            }
        }
        Ok(Action::Unlock)
    }
}
