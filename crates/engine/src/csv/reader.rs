//! The streaming reader: bytes in, batches of rows out, in memory that does not depend on the source's size.

use super::fast;
use super::header::{Header, HeaderError};
use super::plain;
use super::row::{Position, Row, RowBatch, request_of};
use super::row_error::{RowError, RowErrorKind, Span};
use super::scan::{Extent, Field, Scan, scan_row};
use super::source::Source;
use bursar_core::{Currencies, Request};
use memchr::{memchr, memrchr};
use std::fmt;
use std::io::{self, Read};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What bounds the reader's memory: a batch holds at most about `row_bytes_max + 2 * batch_bytes` of text, and
/// its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many bytes a row may have without its line end; 1 to 2^30. What is longer is an unreadable row.
    pub row_bytes_max: usize,
    /// How many bytes are asked of the source at once; at least 1. A batch holds the rows that end in them.
    pub batch_bytes: usize,
}

impl Default for Limits {
    /// Rows of 1 MiB, batches of 128 KiB (which stay in a processor's cache).
    fn default() -> Self {
        Self { row_bytes_max: 1 << 20, batch_bytes: 128 << 10 }
    }
}

impl Limits {
    fn clamped(self) -> Self {
        Self { row_bytes_max: self.row_bytes_max.clamp(1, 1 << 30), batch_bytes: self.batch_bytes.clamp(1, 1 << 30) }
    }
}

/// Why reading cannot begin.
#[derive(Debug)]
pub enum OpenError {
    /// The source cannot be read.
    Read(io::Error),
    /// The header is missing or cannot be used.
    Header(HeaderError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Header(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// Reads the rows of a source, batch by batch.
///
/// ```
/// use bursar_engine::core::Currencies;
/// use bursar_engine::csv::{RowBatch, RowReader};
///
/// let text = "type,client,tx,amount\ndeposit,1,1,2.5\nrefund,1,1,\n";
/// let mut reader = RowReader::open(text.as_bytes(), &Currencies::default())?;
/// let mut batch = RowBatch::new();
/// let mut codes = Vec::new();
/// while reader.next_batch(&mut batch)? {
///     codes.extend(batch.rows().iter().map(|row| (row.line, row.content.map(|_| ()).map_err(|e| e.code()))));
/// }
/// assert_eq!(codes, [(2, Ok(())), (3, Err("unknown_kind"))]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RowReader<R> {
    input: R,
    limits: Limits,
    /// The next row begins at its position; the bytes from there on that were read already are in `carry`.
    parser: Parser,
    /// Where the first row may begin: behind the header.
    rows_start: Position,
    carry: Vec<u8>,
    at_end: bool,
    /// Reading failed: what came after the last whole row may be lost, so that nothing can follow it.
    failed: bool,
}

/// Takes rows out of text.
#[derive(Clone, Debug)]
pub(super) struct Parser {
    currencies: Currencies,
    header: Header,
    row_bytes_max: usize,
    /// Where the next row begins.
    position: Position,
    /// Reused from row to row.
    fields: Vec<Field>,
}

/// What [`RowReader::next_block`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// The text of whole rows without quotes, none of them too long, from this position on. They are yet to be taken
    /// out of it, by [`Parser::take_block`].
    Text(Position),
    /// Rows that could not be told apart without being read, so that they were.
    Rows,
    /// Nothing is left.
    End,
}

impl<R: Read> RowReader<R> {
    /// Reads the header, with the default limits.
    pub fn open(input: R, currencies: &Currencies) -> Result<Self, OpenError> {
        Self::with_limits(input, currencies, Limits::default())
    }

    /// Reads the header. Limits outside of their ranges are moved to the nearest end of them.
    pub fn with_limits(input: R, currencies: &Currencies, limits: Limits) -> Result<Self, OpenError> {
        let limits = limits.clamped();
        let parser = Parser {
            currencies: currencies.clone(),
            header: Header::nameless(),
            row_bytes_max: limits.row_bytes_max,
            position: Position::START,
            fields: Vec::new(),
        };
        let rows_start = Position::START;
        let mut reader = Self { input, limits, parser, rows_start, carry: Vec::new(), at_end: false, failed: false };
        let mut batch = RowBatch::new();
        batch.restart(&[]);
        reader.parser.header = reader.read_header(&mut batch)?;
        reader.rows_start = reader.parser.position;
        reader.carry.extend_from_slice(batch.unread());
        Ok(reader)
    }

    /// The source's header.
    pub const fn header(&self) -> &Header {
        &self.parser.header
    }

    /// Where the next batch begins; after the last one, the source's end.
    pub const fn position(&self) -> Position {
        self.parser.position
    }

    pub(super) const fn parser(&self) -> &Parser {
        &self.parser
    }

    /// The source. Its own offset runs ahead of the rows.
    pub const fn input(&self) -> &R {
        &self.input
    }

    /// Reads the next rows into `batch`, in place of what was in it. `false`: there are none left.
    ///
    /// Returns as soon as the source gave at least one whole row, so that rows from a pipe are not kept waiting.
    /// An error of the source comes only after the rows before it were given out. A row that the source does not
    /// end because of its error is not given out, and every further call fails too.
    pub fn next_batch(&mut self, batch: &mut RowBatch) -> io::Result<bool> {
        if self.failed {
            batch.restart(&[]);
            return Err(io::Error::other("reading failed before, and does not go on after that"));
        }
        batch.restart(&self.carry);
        let read = self.fill(batch);
        self.carry_over(batch, read)?;
        Ok(!batch.rows.is_empty())
    }

    /// As [`RowReader::next_batch`], but leaves rows to be taken out of the text later, by somebody else, where it
    /// is plain to see without reading them where they end: each line end is one's.
    pub(super) fn next_block(&mut self, batch: &mut RowBatch) -> io::Result<Block> {
        if self.failed {
            return self.next_batch(batch).map(|_| Block::End);
        }
        batch.restart(&self.carry);
        let read = self.fill_block(batch);
        self.carry_over(batch, read)
    }

    fn fill_block(&mut self, batch: &mut RowBatch) -> io::Result<Block> {
        if !self.at_end && memrchr(b'\n', batch.unread()).is_none() {
            self.read_more(batch)?;
        }
        let text = batch.unread();
        if let Some(last) = memrchr(b'\n', text).filter(|last| *last <= self.limits.row_bytes_max)
            && memchr(b'"', &text[..last]).is_none()
        {
            let start = self.parser.position;
            let extent = Extent { text: last, next: last + 1, line_ends: count_line_ends(&text[..=last]) };
            self.parser.pass(batch, extent);
            return Ok(Block::Text(start));
        }
        self.fill(batch)?;
        Ok(if batch.rows.is_empty() { Block::End } else { Block::Rows })
    }

    /// Keeps what the next batch begins with.
    fn carry_over<T>(&mut self, batch: &RowBatch, read: io::Result<T>) -> io::Result<T> {
        self.failed = read.is_err();
        self.carry.clear();
        self.carry.extend_from_slice(batch.unread());
        read
    }

    fn fill(&mut self, batch: &mut RowBatch) -> io::Result<()> {
        loop {
            let too_long = self.parser.take_rows(batch, self.at_end);
            if !batch.rows.is_empty() {
                return Ok(());
            }
            if too_long {
                return self.take_too_long_row(batch);
            }
            if self.at_end {
                return Ok(());
            }
            self.read_more(batch)?;
        }
    }

    /// Takes a row that is longer than the limit, as the only one of its batch: keeps what comes before the
    /// limit, and skips the rest, to the first line end behind the limit.
    fn take_too_long_row(&mut self, batch: &mut RowBatch) -> io::Result<()> {
        batch.compact();
        let kept = self.limits.row_bytes_max;
        let mut extent = Extent { text: kept, next: kept, line_ends: count_line_ends(&batch.bytes[..kept]) };
        let rest = loop {
            let ahead = &batch.bytes[kept..batch.filled];
            if let Some(line_end) = memchr(b'\n', ahead) {
                extent.line_ends += 1;
                break line_end + 1;
            }
            extent.next += ahead.len();
            batch.filled = kept;
            if self.at_end {
                break 0;
            }
            self.read_more(batch)?;
        };
        extent.next += rest;
        let kind = RowErrorKind::RowTooLong { bytes_max: kept as u32 };
        self.parser.push(batch, extent, Err(RowError { kind, column: None, span: Span::new(0, kept) }));
        batch.taken = kept + rest;
        Ok(())
    }

    /// Reads once, behind what is there. No row of the batch may have been taken yet, since what blank lines
    /// took is dropped to make room.
    fn read_more(&mut self, batch: &mut RowBatch) -> io::Result<()> {
        batch.compact();
        let batch_bytes = self.limits.batch_bytes;
        if batch.bytes.len() - batch.filled < batch_bytes.div_ceil(2) {
            batch.bytes.resize(batch.filled + batch_bytes, 0);
        }
        let count = loop {
            match self.input.read(&mut batch.bytes[batch.filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        batch.filled += count;
        self.at_end = count == 0;
        Ok(())
    }

    fn read_header(&mut self, batch: &mut RowBatch) -> Result<Header, OpenError> {
        while batch.filled < BYTE_ORDER_MARK.len() && !self.at_end {
            self.read_more(batch)?;
        }
        if batch.unread().starts_with(BYTE_ORDER_MARK) {
            self.parser.pass(batch, Extent { text: 0, next: BYTE_ORDER_MARK.len(), line_ends: 0 });
        }
        let bytes_max = self.limits.row_bytes_max;
        loop {
            let line = self.parser.position.line;
            let unread = batch.unread();
            if unread.is_empty() && self.at_end {
                return Err(OpenError::Header(HeaderError::Empty));
            }
            let unreadable = |len: usize, kind, span| {
                let error = RowError { kind, column: None, span };
                OpenError::Header(HeaderError::Unreadable { line, text: unread[..len].to_vec(), error })
            };
            match scan_row(unread, self.at_end, bytes_max, &mut self.parser.fields) {
                Scan::Row(extent) if is_blank(&self.parser.fields) => self.parser.pass(batch, extent),
                Scan::Row(extent) => {
                    let header = Header::parse(line, &unread[..extent.text], &self.parser.fields);
                    self.parser.pass(batch, extent);
                    return header.map_err(OpenError::Header);
                }
                Scan::Fault { kind, span, extent } => return Err(unreadable(extent.text, kind, span)),
                Scan::TooLong => {
                    let kind = RowErrorKind::RowTooLong { bytes_max: bytes_max as u32 };
                    return Err(unreadable(bytes_max, kind, Span::new(0, bytes_max)));
                }
                Scan::Incomplete => self.read_more(batch)?,
            }
        }
    }
}

impl Parser {
    /// Takes the rows out of a block that begins at `start`.
    pub(super) fn take_block(&mut self, batch: &mut RowBatch, start: Position) {
        (batch.filled, batch.taken) = (batch.taken, 0);
        self.position = start;
        let too_long = self.take_rows(batch, false);
        debug_assert!(!too_long && batch.taken == batch.filled, "a block is whole rows");
    }

    /// Takes the whole rows out of what was read. `true`: the next one is longer than the limit.
    fn take_rows(&mut self, batch: &mut RowBatch, at_end: bool) -> bool {
        let row_bytes_max = self.row_bytes_max;
        loop {
            let unread = &batch.bytes[batch.taken..batch.filled];
            if unread.is_empty() {
                return false;
            }
            let is_plain = self.header.is_plain();
            let plain = if is_plain { plain::read(unread, &self.currencies, row_bytes_max) } else { None };
            let ordinary = plain.or_else(|| fast::read(unread, &self.header, &self.currencies, row_bytes_max));
            if let Some(row) = ordinary {
                let extent = Extent { text: row.text, next: row.next, line_ends: 1 };
                self.push(batch, extent, Ok(row.request));
                continue;
            }
            match scan_row(unread, at_end, row_bytes_max, &mut self.fields) {
                Scan::Row(extent) if is_blank(&self.fields) => self.pass(batch, extent),
                Scan::Row(extent) => {
                    let content = request_of(&unread[..extent.text], &self.fields, &self.header, &self.currencies);
                    self.push(batch, extent, content);
                }
                Scan::Fault { kind, span, extent } => {
                    self.push(batch, extent, Err(RowError { kind, column: None, span }));
                }
                Scan::TooLong => return true,
                Scan::Incomplete => return false,
            }
        }
    }

    #[inline]
    fn push(&mut self, batch: &mut RowBatch, extent: Extent, content: Result<Request, RowError>) {
        let (line, text_start) = (self.position.line, batch.taken);
        self.pass(batch, extent);
        let text_end = (text_start + extent.text) as u32;
        batch.rows.push(Row { line, after: self.position, text_start: text_start as u32, text_end, content });
    }

    #[inline]
    fn pass(&mut self, batch: &mut RowBatch, extent: Extent) {
        batch.taken += extent.next;
        self.position.offset += extent.next as u64;
        self.position.line += extent.line_ends;
    }
}

impl RowReader<Source> {
    /// Goes on at a position that a [`Row::after`] or [`RowReader::position`] of the same source gave earlier,
    /// which is not checked here: the caller compares the source's digest. It may lie ahead or, in a regular
    /// file, behind. Batches that were filled before stay as they are.
    pub fn resume(&mut self, position: Position) -> io::Result<()> {
        if position < self.rows_start {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a position inside the header of a file"));
        }
        let ahead =
            position.offset.checked_sub(self.parser.position.offset).and_then(|ahead| usize::try_from(ahead).ok());
        if let Some(ahead) = ahead.filter(|ahead| *ahead <= self.carry.len()) {
            self.carry.drain(..ahead);
        } else {
            self.input.skip_to(position.offset)?;
            self.carry.clear();
            self.at_end = false;
            self.failed = false;
        }
        self.parser.position = position;
        Ok(())
    }
}

impl RowBatch {
    fn restart(&mut self, carry: &[u8]) {
        self.rows.clear();
        self.taken = 0;
        self.filled = carry.len();
        if self.bytes.len() < carry.len() {
            self.bytes.resize(carry.len(), 0);
        }
        self.bytes[..carry.len()].copy_from_slice(carry);
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.taken..self.filled]
    }

    /// Drops what blank lines took. Rows would lose their text.
    fn compact(&mut self) {
        debug_assert!(self.rows.is_empty(), "rows refer to the text");
        self.bytes.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
    }
}

/// A line without anything: one field, empty and not even quoted.
fn is_blank(fields: &[Field]) -> bool {
    matches!(fields, [field] if field.value.is_empty() && !field.quoted)
}

fn count_line_ends(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of all sorts, over and over, without ever being in memory as a whole.
    struct Endless<'a> {
        lines: &'a [u8],
        at: usize,
        left: usize,
    }

    impl Read for Endless<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.left).min(self.lines.len() - self.at);
            buffer[..count].copy_from_slice(&self.lines[self.at..self.at + count]);
            self.at = (self.at + count) % self.lines.len();
            self.left -= count;
            Ok(count)
        }
    }

    #[test]
    fn memory_does_not_depend_on_the_length_of_the_source() {
        let limits = Limits { row_bytes_max: 5000, batch_bytes: 1000 };
        let long = "x".repeat(100_000);
        let lines = format!("deposit,1,2,3\n{}dispute,\"1\n{long}\n\n\"two\nlines\",1\n", "\n".repeat(9000));
        let header = b"type,client,tx,amount\n".as_slice();
        let endless = Endless { lines: lines.as_bytes(), at: 0, left: 100 * lines.len() };
        let mut reader = RowReader::with_limits(header.chain(endless), &Currencies::default(), limits).unwrap();
        let (mut batch, mut row_count) = (RowBatch::new(), 0);
        while reader.next_batch(&mut batch).unwrap() {
            row_count += batch.rows.len();
            let bytes = batch.bytes.capacity().max(reader.carry.capacity());
            assert!(bytes <= 2 * (limits.row_bytes_max + 2 * limits.batch_bytes), "{bytes}");
            assert!(batch.rows.capacity() <= 2 * (limits.row_bytes_max + 2 * limits.batch_bytes));
        }
        assert_eq!(row_count, 100 * 4);
    }
}
