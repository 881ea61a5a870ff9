//! Writes the rows that were not applied as CSV, to be corrected and read again.
//!
//! The columns are those of the source, then `line`, `code` and `reason`, which the reader ignores. Three forms
//! hold a row; each keeps all of its text, and none is read as a request before somebody corrected it, unless
//! the row was a request that the rules refused:
//!
//! | row | form | why |
//! | --- | --- | --- |
//! | can be cut into fields | every field as it was (quotes, blanks, bytes that are no UTF-8), left out ones as empty | only what is wrong need be changed |
//! | too many fields | the same; `line`, `code` and `reason` move to the right | it still has too many fields, until the surplus is removed or quoted |
//! | a fault of quotes, or too long | the row's whole text as one quoted field in the column `type`, the other columns empty | quotes that do not pair up cannot hold fields; such a text is no kind of request |
//!
//! Of a row that is longer than the reader's limit, only the text before the limit is known and written; its
//! reason says so. A file of rejects can have rejects itself: its three added columns are then replaced.

use super::header::{Column, Header, REJECT_COLUMNS, Role};
use super::row_error::{RowError, RowErrorKind};
use super::scan::{Extent, Field, Scan, scan_row};
use std::fmt::Display;
use std::io::{self, Write};

/// Writes rows that were not applied. Give it a buffered `Write`, and flush that at the end.
#[derive(Debug)]
pub struct RejectWriter<W> {
    output: W,
    header: Header,
    /// Both are reused from row to row.
    line: Vec<u8>,
    fields: Vec<Field>,
}

impl<W: Write> RejectWriter<W> {
    /// Writes the header of a file of rejects for rows of a source with this header.
    pub fn new(output: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self { output, header: header.clone(), line: Vec::new(), fields: Vec::new() };
        for (name, role) in header.raw_names().iter().zip(header.roles()) {
            if *role != Role::Reject {
                writer.line.extend_from_slice(name);
                writer.line.push(b',');
            }
        }
        writer.line.extend_from_slice(REJECT_COLUMNS.join(",").as_bytes());
        writer.end_line()?;
        Ok(writer)
    }

    /// Whether the rows of a source with this header may be written here too: they need the same columns in the
    /// same order. Otherwise they need a file of their own.
    pub fn takes(&self, header: &Header) -> bool {
        self.header.roles() == header.roles() && self.header.raw_names() == header.raw_names()
    }

    /// Writes a row that the rules refused: its raw text, its line, and why.
    pub fn refused(&mut self, text: &[u8], line: u64, code: &str, reason: &dyn Display) -> io::Result<()> {
        self.row(text, line, code, reason, false)
    }

    /// Writes a row that could not be read.
    pub fn unreadable(&mut self, text: &[u8], line: u64, error: &RowError) -> io::Result<()> {
        let whole = match error.kind {
            RowErrorKind::RowTooLong { .. } | RowErrorKind::UnclosedQuote | RowErrorKind::TextAfterQuote => true,
            RowErrorKind::NotUtf8
            | RowErrorKind::TooManyFields { .. }
            | RowErrorKind::TooFewFields
            | RowErrorKind::UnknownKind { .. }
            | RowErrorKind::BadId(_)
            | RowErrorKind::UnlockTakesOnlyClient
            | RowErrorKind::UnknownCurrency
            | RowErrorKind::MissingCurrency
            | RowErrorKind::MissingAmount
            | RowErrorKind::BadAmount(_) => false,
        };
        self.row(text, line, error.code(), error, whole)
    }

    /// The output, to flush or to close it.
    pub fn into_inner(self) -> W {
        self.output
    }

    fn row(&mut self, text: &[u8], line: u64, code: &str, reason: &dyn Display, whole: bool) -> io::Result<()> {
        if whole || !self.push_fields(text) {
            self.push_whole(text);
        }
        write!(self.line, "{line},")?;
        push_field(&mut self.line, code.as_bytes());
        self.line.push(b',');
        push_field(&mut self.line, reason.to_string().as_bytes());
        self.end_line()
    }

    /// The row's fields as they were, each with a comma behind it. `false`: it is not one row.
    fn push_fields(&mut self, text: &[u8]) -> bool {
        let bytes_max = text.len();
        let Scan::Row(Extent { next, .. }) = scan_row(text, true, bytes_max, &mut self.fields) else { return false };
        if next != text.len() {
            return false;
        }
        // A lone CR at the end is text here: the line end was taken off before.
        if let Some(last) = self.fields.last_mut() {
            last.raw.end = text.len();
        }
        let columns = self.header.column_count();
        let surplus = self.fields.len() > columns;
        for index in 0..columns.max(self.fields.len()) {
            if !surplus && self.header.roles().get(index) == Some(&Role::Reject) {
                continue;
            }
            if let Some(field) = self.fields.get(index) {
                self.line.extend_from_slice(&text[field.raw.clone()]);
            }
            self.line.push(b',');
        }
        true
    }

    /// The row's whole text in the column `type`.
    fn push_whole(&mut self, text: &[u8]) {
        let type_index = self.header.index_of(Column::Type);
        for (index, role) in self.header.roles().iter().enumerate() {
            if *role == Role::Reject {
                continue;
            }
            if Some(index) == type_index {
                push_quoted(&mut self.line, text);
            }
            self.line.push(b',');
        }
    }

    fn end_line(&mut self) -> io::Result<()> {
        self.line.push(b'\n');
        let written = self.output.write_all(&self.line);
        self.line.clear();
        written
    }
}

/// A field, quoted where it must be.
fn push_field(line: &mut Vec<u8>, value: &[u8]) {
    if value.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        push_quoted(line, value);
    } else {
        line.extend_from_slice(value);
    }
}

fn push_quoted(line: &mut Vec<u8>, value: &[u8]) {
    line.push(b'"');
    for byte in value {
        if *byte == b'"' {
            line.push(b'"');
        }
        line.push(*byte);
    }
    line.push(b'"');
}
