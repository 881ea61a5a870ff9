//! The CSV reader against a slow reference that is obviously right: the whole text in memory, one byte at a time,
//! every field copied. Same rows and same errors (code, column, place), however the bytes come in pieces, and however
//! many threads read them.
//!
//! Input: four choices (currencies, row limit, bytes asked at once, size of the pieces), then the file.

use crate::input::Input;
use bursar_engine::core::{
    Action, Amount, Currencies, Currency, CurrencyIndex, CustomerId, Decimals, Movement, Reference, Request,
    RequestKind, TransactionId,
};
use bursar_engine::csv::{
    Column, Diagnostic, HeaderError, Limits, OpenError, Position, RejectWriter, RowBatch, RowError, RowReader,
    RowsAhead,
};
use std::io::{Cursor, Read};

/// An error: its code, the column it is about, and which bytes of the row it points at.
type Fault = (&'static str, Option<Column>, usize, usize);

/// A row: its first line, what follows it, its raw text, and what it says.
#[derive(Debug, PartialEq, Eq)]
struct ReadRow {
    line: u64,
    after: Position,
    text: Vec<u8>,
    content: Result<Request, Fault>,
}

/// A whole file, or why its header cannot be used: code, line, and the fault of an unreadable one.
type ReadFile = Result<Vec<ReadRow>, (&'static str, u64, Option<Fault>)>;

/// Checks one file.
pub fn csv_rows(data: &[u8]) {
    let mut input = Input::new(data);
    let currencies = match input.below(4) {
        0 => Currencies::default(),
        1 => Currencies::unnamed(decimals(0)),
        2 => Currencies::named(vec![currency("EUR", 2)]).unwrap(),
        _ => Currencies::named(vec![currency("EUR", 2), currency("JPY", 0), currency("BTC", 9)]).unwrap(),
    };
    let row_bytes_max = match input.byte() {
        0 => 1 << 20,
        limit => usize::from(limit),
    };
    let batch_bytes = input.one_of(&[1, 2, 3, 7, 16, 61, 300, 4096, 128 << 10]);
    let piece_bytes = usize::from(input.byte()) + 1;
    let text = input.rest();
    let expected = by_reference(text, &currencies, row_bytes_max);
    let whole = by_reader(text, &currencies, Limits { row_bytes_max, batch_bytes: 1 << 20 }, usize::MAX);
    assert_eq!(whole, expected, "read at once: {:?}", String::from_utf8_lossy(text));
    let pieces = by_reader(text, &currencies, Limits { row_bytes_max, batch_bytes }, piece_bytes);
    assert_eq!(
        pieces,
        expected,
        "in pieces of {piece_bytes}, asked for {batch_bytes}: {:?}",
        String::from_utf8_lossy(text)
    );
    let thread_count = 1 + piece_bytes % 3;
    let side_by_side = by_threads(text, &currencies, Limits { row_bytes_max, batch_bytes }, piece_bytes, thread_count);
    assert_eq!(
        side_by_side,
        expected,
        "by {thread_count} threads, in pieces of {piece_bytes}, asked for {batch_bytes}: {:?}",
        String::from_utf8_lossy(text)
    );
}

fn decimals(count: u8) -> Decimals {
    Decimals::new(count).unwrap()
}

fn currency(code: &str, count: u8) -> Currency {
    Currency::new(code, decimals(count)).unwrap()
}

/// Gives a few bytes at a time, and is interrupted now and then.
struct Pieces<B> {
    bytes: B,
    piece_bytes: usize,
    calls: usize,
}

impl<B: Read> Read for Pieces<B> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(5) {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let count = self.piece_bytes.min(buffer.len());
        (&mut self.bytes).take(count as u64).read(buffer)
    }
}

fn open<R: Read>(input: R, currencies: &Currencies, limits: Limits) -> Result<RowReader<R>, HeaderError> {
    RowReader::with_limits(input, currencies, limits).map_err(|error| match error {
        OpenError::Read(error) => panic!("memory cannot be read: {error}"),
        OpenError::Header(error) => error,
    })
}

fn by_reader(text: &[u8], currencies: &Currencies, limits: Limits, piece_bytes: usize) -> ReadFile {
    let input = Pieces { bytes: text, piece_bytes, calls: 0 };
    let mut reader = open(input, currencies, limits).map_err(|error| header_fault(&error))?;
    let rows_start = reader.position().offset as usize;
    let mut rejects = RejectWriter::new(Vec::new(), reader.header()).unwrap();
    let (mut batch, mut rows, mut end) = (RowBatch::new(), Vec::new(), reader.position());
    while reader.next_batch(&mut batch).unwrap() {
        collect(&batch, &mut end, &mut rows);
        for row in batch.rows() {
            if let Err(error) = row.content {
                rejects.unreadable(batch.text_of(row), row.line, &error).unwrap();
            }
        }
    }
    assert_eq!(reader.position().offset, text.len() as u64);
    let fault_count = rows.iter().filter(|row| row.content.is_err()).count();
    // A file of rejects loses what its last three columns said, and with it what was wrong there.
    let header = String::from_utf8_lossy(&text[..rows_start]).to_ascii_lowercase();
    if !["line", "code", "reason"].iter().any(|column| header.contains(column)) {
        check_rejects(&rejects.into_inner(), currencies, fault_count);
    }
    Ok(rows)
}

fn by_threads(
    text: &[u8],
    currencies: &Currencies,
    limits: Limits,
    piece_bytes: usize,
    thread_count: usize,
) -> ReadFile {
    let input = Pieces { bytes: Cursor::new(text.to_vec()), piece_bytes, calls: 0 };
    let reader = open(input, currencies, limits).map_err(|error| header_fault(&error))?;
    let (mut rows, mut end) = (Vec::new(), reader.position());
    let mut ahead = RowsAhead::start(reader, thread_count, |_, (): &mut ()| Ok(())).unwrap();
    while let Some(batch) = ahead.next_batch().unwrap() {
        collect(&batch.rows, &mut end, &mut rows);
        ahead.give_back(batch);
    }
    Ok(rows)
}

/// Adds the rows of a batch. Each must come after the one before.
fn collect(batch: &RowBatch, end: &mut Position, rows: &mut Vec<ReadRow>) {
    for row in batch.rows() {
        let text = batch.text_of(row).to_vec();
        assert!(row.after > *end, "{:?} does not come after {end:?}", row.after);
        *end = row.after;
        let content = row.content.map_err(|error| fault_of(row.line, &text, &error));
        rows.push(ReadRow { line: row.line, after: row.after, text, content });
    }
}

/// No row that could not be read becomes a request by being written to a file of rejects.
fn check_rejects(rejects: &[u8], currencies: &Currencies, row_count: usize) {
    let mut reader = RowReader::open(rejects, currencies).unwrap();
    let (mut batch, mut left) = (RowBatch::new(), row_count);
    while reader.next_batch(&mut batch).unwrap() {
        for row in batch.rows() {
            assert!(row.content.is_err(), "{:?} of {:?}", batch.text_of(row), String::from_utf8_lossy(rejects));
        }
        left -= batch.rows().len();
    }
    assert_eq!(left, 0, "{:?}", String::from_utf8_lossy(rejects));
}

/// Takes an error apart, and checks that it is shown where it says.
fn fault_of(line: u64, text: &[u8], error: &RowError) -> Fault {
    let (start, end) = (error.span.start as usize, error.span.end as usize);
    assert!(start <= end && end <= text.len(), "{error:?} in {text:?}");
    let shown = Diagnostic::new("x.csv", line, text, error).to_string();
    let shown_place = shown.lines().nth(1).and_then(|line| line.split_once("x.csv:")).unwrap().1;
    let before = &text[..start];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let lines_before = line_ends(before);
    // A CR right before a line's end is no part of the line that is shown; nothing beyond it is pointed at.
    let mut shown_line = &text[line_start..];
    if let Some(end) = shown_line.iter().position(|byte| *byte == b'\n') {
        shown_line = &shown_line[..end];
    }
    let shown_line = shown_line.strip_suffix(b"\r").unwrap_or(shown_line);
    let column = characters(&shown_line[..(start - line_start).min(shown_line.len())]) + 1;
    assert_eq!(shown_place, format!("{}:{column}", line + lines_before), "{error:?} in {text:?}");
    (error.code(), error.column, start, end)
}

#[allow(clippy::naive_bytecount)] // slow and obviously right
fn line_ends(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Characters of a text; a byte that belongs to none counts as one.
fn characters(text: &[u8]) -> usize {
    text.utf8_chunks().map(|chunk| chunk.valid().chars().count() + chunk.invalid().len()).sum()
}

fn header_fault(error: &HeaderError) -> (&'static str, u64, Option<Fault>) {
    assert!(!error.to_string().is_empty() && !error.hint().is_empty());
    match error {
        HeaderError::Empty => (error.code(), 0, None),
        HeaderError::Missing { line, .. } | HeaderError::Twice { line, .. } => (error.code(), *line, None),
        HeaderError::Unreadable { line, text, error: fault } => {
            (error.code(), *line, Some(fault_of(*line, text, fault)))
        }
    }
}

// The reference.

/// A field: where it begins and ends in the row without blanks and quotes, its content, and whether it is quoted.
#[derive(Clone, Debug)]
struct Field {
    /// All of it, from comma to comma: where that begins.
    raw_start: usize,
    start: usize,
    value: Vec<u8>,
    /// Its bytes as written, quotes inside doubled.
    written: Vec<u8>,
    quoted: bool,
}

/// What stands at the beginning of a text.
struct Cut {
    text_bytes: usize,
    next: usize,
    fields: Result<Vec<Field>, Fault>,
}

/// Cuts the row at the beginning of `text`. Nothing beyond `limit + 2` bytes counts, but for where a row that is too
/// long ends.
fn cut(text: &[u8], limit: usize) -> Cut {
    let all_seen = text.len() < limit + 2;
    let seen = &text[..text.len().min(limit + 2)];
    // How a line ends at `at`: the bytes of its end, if it does.
    let line_end = |at: usize| match (seen.get(at), seen.get(at + 1)) {
        (Some(b'\n'), _) => Some(1),
        (Some(b'\r'), Some(b'\n')) => Some(2),
        (Some(b'\r'), None) if all_seen => Some(1),
        (None, _) if all_seen => Some(0),
        _ => None,
    };
    let is_blank = |at: usize| matches!(seen.get(at), Some(b' ' | b'\t'));
    let mut fields: Vec<Field> = Vec::new();
    let mut at = 0;
    // The fault of quotes, if there is one: where text follows a quote, or nothing for a quote without an end.
    let fault: Option<usize> = 'row: loop {
        let raw_start = at;
        while is_blank(at) {
            at += 1;
        }
        let quoted = seen.get(at) == Some(&b'"');
        let mut field = Field { raw_start, start: at, value: Vec::new(), written: Vec::new(), quoted };
        if quoted {
            at += 1;
            field.start = at;
            loop {
                match (seen.get(at), seen.get(at + 1)) {
                    (None, _) => {
                        fields.push(field);
                        break 'row None;
                    }
                    (Some(b'"'), Some(b'"')) => {
                        field.value.push(b'"');
                        field.written.extend(b"\"\"");
                        at += 2;
                    }
                    (Some(b'"'), _) => break,
                    (Some(byte), _) => {
                        field.value.push(*byte);
                        field.written.push(*byte);
                        at += 1;
                    }
                }
            }
            at += 1;
            while is_blank(at) {
                at += 1;
            }
        } else {
            while line_end(at).is_none() && !matches!(seen.get(at), None | Some(b',')) {
                field.value.push(seen[at]);
                at += 1;
            }
            while matches!(field.value.last(), Some(b' ' | b'\t')) {
                field.value.pop();
            }
            field.written.clone_from(&field.value);
        }
        fields.push(field);
        if let Some(end_bytes) = line_end(at) {
            if at > limit {
                return too_long(text, limit);
            }
            return Cut { text_bytes: at, next: at + end_bytes, fields: Ok(fields) };
        }
        match (seen.get(at), seen.get(at + 1)) {
            (Some(b','), _) => at += 1,
            (None, _) | (Some(b'\r'), None) => return too_long(text, limit),
            (Some(_), _) => break Some(at),
        }
    };
    // A fault costs the first line.
    let line_feed = seen.iter().position(|byte| *byte == b'\n');
    let Some(line_bytes) = line_feed.or(all_seen.then_some(seen.len())) else { return too_long(text, limit) };
    let text_bytes = if seen[..line_bytes].ends_with(b"\r") { line_bytes - 1 } else { line_bytes };
    if text_bytes > limit {
        return too_long(text, limit);
    }
    let next = line_feed.map_or(line_bytes, |at| at + 1);
    let error = if let Some(at) = fault.filter(|at| *at < text_bytes) {
        let end = seen[at..text_bytes].iter().position(|byte| *byte == b',').map_or(text_bytes, |comma| at + comma);
        ("text_after_quote", None, at, end)
    } else {
        // The quote that is open where the first line ends.
        let open = fields.iter().rfind(|field| field.quoted && field.start - 1 < text_bytes).unwrap();
        ("unclosed_quote", None, open.start - 1, text_bytes)
    };
    Cut { text_bytes, next, fields: Err(error) }
}

/// A row that is longer than the limit ends with the first line end at the limit or behind it.
fn too_long(text: &[u8], limit: usize) -> Cut {
    let line_feed = text[limit..].iter().position(|byte| *byte == b'\n');
    let next = line_feed.map_or(text.len(), |at| limit + at + 1);
    Cut { text_bytes: limit, next, fields: Err(("row_too_long", None, 0, limit)) }
}

fn not_utf8(text: &[u8]) -> Option<Fault> {
    let mut at = 0;
    for chunk in text.utf8_chunks() {
        at += chunk.valid().len();
        if !chunk.invalid().is_empty() {
            return Some(("not_utf8", None, at, at + chunk.invalid().len()));
        }
    }
    None
}

fn by_reference(text: &[u8], currencies: &Currencies, limit: usize) -> ReadFile {
    let (mut at, mut line) = (0, 1);
    let mut columns: Option<Vec<Option<Column>>> = None;
    let mut rows = Vec::new();
    if text.starts_with(b"\xef\xbb\xbf") {
        at = 3;
    }
    while at < text.len() {
        let Cut { text_bytes, next, fields } = cut(&text[at..], limit);
        let row = &text[at..at + text_bytes];
        let first_line = line;
        line += line_ends(&text[at..at + next]);
        at += next;
        if matches!(fields.as_deref(), Ok([only]) if !only.quoted && only.value.is_empty()) {
            continue;
        }
        match &columns {
            None => columns = Some(reference_header(row, fields, first_line)?),
            Some(columns) => {
                let content = fields.and_then(|fields| reference_request(row, &fields, columns, currencies));
                let after = Position { offset: at as u64, line };
                rows.push(ReadRow { line: first_line, after, text: row.to_vec(), content });
            }
        }
    }
    if columns.is_none() { Err(("header_empty", 0, None)) } else { Ok(rows) }
}

fn reference_header(
    row: &[u8],
    fields: Result<Vec<Field>, Fault>,
    line: u64,
) -> Result<Vec<Option<Column>>, (&'static str, u64, Option<Fault>)> {
    let fields = fields.map_err(|fault| ("header_unreadable", line, Some(fault)))?;
    if let Some(fault) = not_utf8(row) {
        return Err(("header_unreadable", line, Some(fault)));
    }
    let mut columns = Vec::new();
    for field in &fields {
        let name = String::from_utf8(field.value.to_ascii_lowercase()).unwrap();
        let column = match name.trim_matches([' ', '\t', '\r', '\n', '\x0c']) {
            "type" => Some(Column::Type),
            "client" => Some(Column::Client),
            "tx" => Some(Column::Tx),
            "amount" => Some(Column::Amount),
            "currency" => Some(Column::Currency),
            _ => None,
        };
        if column.is_some() && columns.contains(&column) {
            return Err(("header_column_twice", line, None));
        }
        columns.push(column);
    }
    let needed = [Column::Type, Column::Client, Column::Tx, Column::Amount];
    if needed.iter().any(|column| !columns.contains(&Some(*column))) {
        return Err(("header_column_missing", line, None));
    }
    Ok(columns)
}

/// A row's values by column, without blanks: text, beginning, end.
struct Values<'a> {
    fields: &'a [Field],
    columns: &'a [Option<Column>],
    row_bytes: usize,
}

impl<'a> Values<'a> {
    fn value(&self, column: Column) -> Option<(&'a [u8], usize, usize)> {
        let index = self.columns.iter().position(|known| *known == Some(column))?;
        let Field { start, written, .. } = self.fields.get(index)?;
        let blank = |byte: &&u8| **byte == b' ' || **byte == b'\t';
        let before = written.iter().take_while(blank).count();
        let behind = written[before..].iter().rev().take_while(blank).count();
        let text = &written[before..written.len() - behind];
        Some((text, start + before, start + before + text.len()))
    }

    fn given(&self, column: Column) -> Option<(&'a [u8], usize, usize)> {
        self.value(column).filter(|(text, ..)| !text.is_empty())
    }

    fn needed(&self, column: Column) -> Result<(&'a [u8], usize, usize), Fault> {
        self.value(column).ok_or(("too_few_fields", Some(column), self.row_bytes, self.row_bytes))
    }

    /// Something is missing: points to where it should be.
    fn missing(&self, code: &'static str, column: Column) -> Fault {
        let at = self.value(column).map_or(self.row_bytes, |(_, start, _)| start);
        (code, Some(column), at, at)
    }
}

fn reference_request(
    row: &[u8],
    fields: &[Field],
    columns: &[Option<Column>],
    currencies: &Currencies,
) -> Result<Request, Fault> {
    if let Some(fault) = not_utf8(row) {
        return Err(fault);
    }
    if fields.len() > columns.len() {
        return Err(("too_many_fields", None, fields[columns.len()].raw_start, row.len()));
    }
    let values = Values { fields, columns, row_bytes: row.len() };
    let (text, start, end) = values.needed(Column::Type)?;
    let kind = match text.to_ascii_lowercase().as_slice() {
        b"deposit" => RequestKind::Deposit,
        b"withdrawal" => RequestKind::Withdrawal,
        b"dispute" => RequestKind::Dispute,
        b"resolve" => RequestKind::Resolve,
        b"chargeback" => RequestKind::Chargeback,
        b"unlock" => RequestKind::Unlock,
        _ => return Err(("unknown_kind", Some(Column::Type), start, end)),
    };
    let customer = CustomerId::new(reference_id(Column::Client, values.needed(Column::Client)?)?);
    if kind == RequestKind::Unlock {
        for column in [Column::Tx, Column::Currency, Column::Amount] {
            if let Some((_, start, end)) = values.given(column) {
                return Err(("unlock_takes_only_client", Some(column), start, end));
            }
        }
        return Ok(Request { customer, action: Action::Unlock });
    }
    let transaction = TransactionId::new(reference_id(Column::Tx, values.needed(Column::Tx)?)?);
    let named = match values.given(Column::Currency) {
        None => None,
        Some((code, start, end)) => {
            let mut all = currencies.iter();
            let found = all.find(|(_, known)| known.code().as_bytes() == code.to_ascii_uppercase());
            Some(found.ok_or(("unknown_currency", Some(Column::Currency), start, end))?.0)
        }
    };
    let currency = named.or((currencies.len() == 1).then_some(CurrencyIndex(0)));
    let moves = matches!(kind, RequestKind::Deposit | RequestKind::Withdrawal);
    let given = values.given(Column::Amount);
    let amount = match (currency, given) {
        (None, _) if moves => return Err(values.missing("missing_currency", Column::Currency)),
        (None, Some(_)) => return Err(values.missing("missing_currency", Column::Currency)),
        (_, None) if moves => return Err(values.missing("missing_amount", Column::Amount)),
        (_, None) => None,
        (Some(currency), Some(value)) => {
            let count = currencies.get(currency).unwrap().decimals().count();
            Some(Amount::from_steps(reference_amount(value, usize::from(count))?))
        }
    };
    let movement = || Movement { transaction, amount: amount.unwrap(), currency: currency.unwrap() };
    let reference = Reference { transaction, amount, currency: named };
    let action = match kind {
        RequestKind::Deposit => Action::Deposit(movement()),
        RequestKind::Withdrawal => Action::Withdrawal(movement()),
        RequestKind::Dispute => Action::Dispute(reference),
        RequestKind::Resolve => Action::Resolve(reference),
        RequestKind::Chargeback => Action::Chargeback(reference),
        RequestKind::Unlock => Action::Unlock,
    };
    Ok(Request { customer, action })
}

/// A number below 2^64, or a UUID that is none.
fn reference_id(column: Column, (text, start, end): (&[u8], usize, usize)) -> Result<u128, Fault> {
    let bad = |from: usize| Err(("bad_id", Some(column), from, end));
    if text.is_empty() {
        return bad(start);
    }
    if text.len() == 36 && text[8] == b'-' {
        let is_dash = |at: usize| [8, 13, 18, 23].contains(&at);
        let wrong = |at: &usize| if is_dash(*at) { text[*at] != b'-' } else { !text[*at].is_ascii_hexdigit() };
        if let Some(at) = (0..36).find(wrong) {
            return bad(start + at);
        }
        let digits = String::from_utf8(text.to_vec()).unwrap().replace('-', "");
        let bits = u128::from_str_radix(&digits, 16).unwrap();
        return if bits < 1 << 64 { bad(start) } else { Ok(bits) };
    }
    let mut number = 0u128;
    for (at, byte) in text.iter().enumerate() {
        if !byte.is_ascii_digit() {
            return bad(start + at);
        }
        number = number * 10 + u128::from(byte - b'0');
        if number >= 1 << 64 {
            return bad(start);
        }
    }
    Ok(number)
}

/// A decimal number, in steps. The first byte that is wrong is named; a number that is too large, as a whole.
fn reference_amount((text, start, end): (&[u8], usize, usize), decimals: usize) -> Result<i64, Fault> {
    let bad = |from: usize| Err(("bad_amount", Some(Column::Amount), from, end));
    let sign_bytes = usize::from(text[0] == b'-');
    let digits = &text[sign_bytes..];
    let point = digits.iter().position(|byte| *byte == b'.');
    let mut steps = 0i128;
    for (at, byte) in digits.iter().enumerate() {
        if Some(at) == point {
            continue;
        }
        if !byte.is_ascii_digit() {
            return bad(start + sign_bytes + at);
        }
        let is_beyond = point.is_some_and(|point| at > point + decimals);
        if is_beyond && *byte != b'0' {
            return bad(start + sign_bytes + at);
        }
        if !is_beyond {
            steps = steps * 10 + i128::from(byte - b'0');
        }
        // Without a word about what follows: no number goes on after this many digits.
        if steps > i128::from(u64::MAX) {
            return bad(start);
        }
    }
    if digits.iter().all(|byte| *byte == b'.') {
        // A lone sign, or point: there is nothing behind it to point at.
        return bad(start + sign_bytes.min(text.len() - 1));
    }
    if let Some(point) = point.filter(|point| point + 1 == digits.len()) {
        return bad(start + sign_bytes + point);
    }
    let given = point.map_or(0, |point| (digits.len() - point - 1).min(decimals));
    steps *= 10i128.pow((decimals - given) as u32);
    if sign_bytes == 1 {
        steps = -steps;
    }
    i64::try_from(steps).or(bad(start))
}
