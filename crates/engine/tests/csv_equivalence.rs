//! The reader means the same as a slow reference that is obviously right, however the bytes come in pieces, and
//! however many threads read them.
#![allow(clippy::unwrap_used, clippy::naive_bytecount)] // clippy sees the helpers of a test as production code

use bursar_engine::core::{
    Action, Amount, Currencies, Currency, CustomerId, Decimals, Movement, Reference, Request, RequestKind,
    TransactionId,
};
use bursar_engine::csv::{Limits, Position, RowBatch, RowErrorKind, RowReader, RowsAhead};
use proptest::prelude::*;
use std::io::{Cursor, Read};

/// A row: its first line, what follows it, its raw text, and what it says.
type Read1 = (u64, Position, Vec<u8>, Result<Request, RowErrorKind>);

/// Gives a few bytes at a time.
struct Dribble<B> {
    bytes: B,
    counts: Vec<usize>,
    call: usize,
}

impl<B: Read> Read for Dribble<B> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.counts[self.call % self.counts.len()].min(buffer.len());
        self.call += 1;
        if self.call.is_multiple_of(7) {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        (&mut self.bytes).take(count as u64).read(buffer)
    }
}

fn by_reader(text: &[u8], currencies: &Currencies, limits: Limits, counts: Vec<usize>) -> Vec<Read1> {
    let mut reader = RowReader::with_limits(Dribble { bytes: text, counts, call: 0 }, currencies, limits).unwrap();
    let (mut batch, mut rows) = (RowBatch::new(), Vec::new());
    let mut end = reader.position();
    while reader.next_batch(&mut batch).unwrap() {
        collect(&batch, &mut end, &mut rows);
    }
    assert_eq!(reader.position().offset, text.len() as u64);
    rows
}

fn by_threads(
    text: &[u8],
    currencies: &Currencies,
    limits: Limits,
    counts: Vec<usize>,
    thread_count: usize,
) -> Vec<Read1> {
    let source = Dribble { bytes: Cursor::new(text.to_vec()), counts, call: 0 };
    let reader = RowReader::with_limits(source, currencies, limits).unwrap();
    let (mut end, mut rows) = (reader.position(), Vec::new());
    let count_rows = |batch: &RowBatch, count: &mut usize| {
        *count = batch.rows().len();
        Ok(())
    };
    let mut ahead = RowsAhead::start(reader, thread_count, count_rows).unwrap();
    while let Some(batch) = ahead.next_batch().unwrap() {
        assert!(batch.made == batch.rows.rows().len() && batch.made > 0);
        collect(&batch.rows, &mut end, &mut rows);
        ahead.give_back(batch);
    }
    assert!(ahead.next_batch().unwrap().is_none(), "an end is an end");
    rows
}

/// Adds the rows of a batch. Each must come after the one before.
fn collect(batch: &RowBatch, end: &mut Position, rows: &mut Vec<Read1>) {
    for row in batch.rows() {
        let raw = batch.text_of(row).to_vec();
        if let Err(error) = row.content {
            let (start, end) = (error.span.start as usize, error.span.end as usize);
            assert!(start <= end && end <= raw.len(), "{error:?} in {raw:?}");
        }
        assert!(row.after > *end);
        *end = row.after;
        rows.push((row.line, row.after, raw, row.content.map_err(|error| without_guess(error.kind))));
    }
}

/// What a misspelt kind was probably meant to be has its own test.
fn without_guess(kind: RowErrorKind) -> RowErrorKind {
    if let RowErrorKind::UnknownKind { .. } = kind { RowErrorKind::UnknownKind { near: None } } else { kind }
}

// The reference: one byte at a time, the whole text in memory, every field copied.

enum State {
    Before,
    Plain,
    Quoted,
    After,
}

struct Piece {
    text_len: usize,
    next: usize,
    fields: Result<Vec<Vec<u8>>, RowErrorKind>,
}

fn reference_cut(text: &[u8], limit: usize) -> Piece {
    let window = &text[..text.len().min(limit + 2)];
    let whole = text.len() < limit + 2;
    let (mut state, mut fields, mut field) = (State::Before, Vec::new(), Vec::new());
    let mut end = None;
    let mut fault_at = None;
    let mut at = 0;
    while at < window.len() && end.is_none() && fault_at.is_none() {
        let (byte, following) = (window[at], window.get(at + 1));
        let line_end = match (byte, following) {
            (b'\n', _) => Some(1),
            (b'\r', Some(b'\n')) => Some(2),
            (b'\r', None) if whole => Some(1),
            _ => None,
        };
        match state {
            State::Quoted if byte == b'"' && following == Some(&b'"') => {
                field.push(b'"');
                at += 1;
            }
            State::Quoted if byte == b'"' => state = State::After,
            State::Quoted => field.push(byte),
            _ if line_end.is_some() => end = line_end.map(|len| (at, at + len)),
            _ if byte == b',' => {
                fields.push(std::mem::take(&mut field));
                state = State::Before;
            }
            State::Before if byte == b' ' || byte == b'\t' => {}
            State::Before if byte == b'"' => state = State::Quoted,
            State::Before | State::Plain => {
                field.push(byte);
                state = State::Plain;
            }
            State::After if byte == b' ' || byte == b'\t' => {}
            State::After if byte == b'\r' && following.is_none() => break,
            State::After => fault_at = Some(at),
        }
        at += 1;
    }
    let in_quotes = matches!(state, State::Quoted);
    if end.is_none() && fault_at.is_none() && !in_quotes && whole {
        end = Some((window.len(), window.len()));
    }
    if let Some((text_len, next)) = end.filter(|(text_len, _)| *text_len <= limit) {
        fields.push(field);
        return Piece { text_len, next, fields: Ok(fields) };
    }
    let first_line = window.iter().position(|byte| *byte == b'\n');
    let line_end = first_line.or(whole.then_some(window.len()));
    if let (true, Some(line_end)) = (fault_at.is_some() || in_quotes, line_end) {
        let text_len = if window[..line_end].ends_with(b"\r") { line_end - 1 } else { line_end };
        let in_first_line = fault_at.is_some_and(|at| at < line_end);
        let kind = if in_first_line { RowErrorKind::TextAfterQuote } else { RowErrorKind::UnclosedQuote };
        if text_len <= limit {
            return Piece { text_len, next: (line_end + 1).min(text.len()), fields: Err(kind) };
        }
    }
    let behind = text[limit..].iter().position(|byte| *byte == b'\n');
    let next = behind.map_or(text.len(), |found| limit + found + 1);
    Piece { text_len: limit, next, fields: Err(RowErrorKind::RowTooLong { bytes_max: limit as u32 }) }
}

fn trimmed(field: &[u8]) -> &[u8] {
    let start = field.iter().position(|b| *b != b' ' && *b != b'\t').unwrap_or(field.len());
    let end = field.iter().rposition(|b| *b != b' ' && *b != b'\t').map_or(start, |at| at + 1);
    &field[start..end]
}

fn reference_request(
    text: &[u8],
    fields: &[Vec<u8>],
    header: &[&str],
    currencies: &Currencies,
) -> Result<Request, RowErrorKind> {
    std::str::from_utf8(text).map_err(|_| RowErrorKind::NotUtf8)?;
    if fields.len() > header.len() {
        return Err(RowErrorKind::TooManyFields { fields: fields.len() as u32, columns: header.len() as u32 });
    }
    let value = |name: &str| {
        let index = header.iter().position(|column| *column == name)?;
        fields.get(index).map(|field| trimmed(field))
    };
    let given = |name: &str| value(name).filter(|text| !text.is_empty());
    let kind = value("type").ok_or(RowErrorKind::TooFewFields)?;
    let kind = RequestKind::from_name(kind).ok_or(RowErrorKind::UnknownKind { near: None })?;
    let customer = CustomerId::parse(value("client").ok_or(RowErrorKind::TooFewFields)?);
    let customer = customer.map_err(|error| RowErrorKind::BadId(error.kind))?;
    if kind == RequestKind::Unlock {
        let surplus = ["tx", "currency", "amount"].into_iter().any(|name| given(name).is_some());
        let request = Request { customer, action: Action::Unlock };
        return if surplus { Err(RowErrorKind::UnlockTakesOnlyClient) } else { Ok(request) };
    }
    let transaction = TransactionId::parse(value("tx").ok_or(RowErrorKind::TooFewFields)?);
    let transaction = transaction.map_err(|error| RowErrorKind::BadId(error.kind))?;
    let currency = match given("currency") {
        None => None,
        Some(code) => Some(currencies.find(code).ok_or(RowErrorKind::UnknownCurrency)?),
    };
    let moves = matches!(kind, RequestKind::Deposit | RequestKind::Withdrawal);
    let of_amount = currency.or(currencies.only());
    if of_amount.is_none() && (moves || given("amount").is_some()) {
        return Err(RowErrorKind::MissingCurrency);
    }
    let amount = match given("amount") {
        None if moves => return Err(RowErrorKind::MissingAmount),
        None => None,
        Some(text) => {
            let decimals = currencies.decimals(of_amount.unwrap());
            Some(Amount::parse(text, decimals).map_err(|error| RowErrorKind::BadAmount(error.kind))?)
        }
    };
    let reference = Reference { transaction, amount, currency };
    let movement = || Movement { transaction, amount: amount.unwrap(), currency: of_amount.unwrap() };
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

fn by_reference(header: &[&str], body: &[u8], currencies: &Currencies, limit: usize) -> Vec<Read1> {
    let (mut rows, mut line, mut at) = (Vec::new(), 2, 0);
    let header_bytes = header.join(",").len() as u64 + 1;
    while at < body.len() {
        let piece = reference_cut(&body[at..], limit);
        let text = &body[at..at + piece.text_len];
        let first_line = line;
        line += body[at..at + piece.next].iter().filter(|byte| **byte == b'\n').count() as u64;
        at += piece.next;
        if trimmed(text).is_empty() {
            continue;
        }
        let content = piece.fields.and_then(|fields| reference_request(text, &fields, header, currencies));
        rows.push((first_line, Position { offset: header_bytes + at as u64, line }, text.to_vec(), content));
    }
    rows
}

const HEADERS: [&[&str]; 4] = [
    &["type", "client", "tx", "amount"],
    &["type", "client", "tx", "amount", "currency"],
    &["currency", "note", "amount", "tx", "client", "type"],
    &["note", "type", "client", "tx", "amount", "line", "code"],
];

fn currencies() -> impl Strategy<Value = Currencies> {
    let currency = |code, decimals| Currency::new(code, Decimals::new(decimals).unwrap()).unwrap();
    prop_oneof![
        Just(Currencies::default()),
        Just(Currencies::unnamed(Decimals::new(0).unwrap())),
        Just(Currencies::named(vec![currency("EUR", 2)]).unwrap()),
        Just(Currencies::named(vec![currency("EUR", 2), currency("JPY", 0), currency("BTC", 9)]).unwrap()),
    ]
}

fn one_of(texts: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(texts).prop_map(<[u8]>::to_vec)
}

fn number() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0u64..100).prop_map(|number| number.to_string().into_bytes()),
        any::<u64>().prop_map(|number| number.to_string().into_bytes()),
        "-?[0-9]{0,3}(\\.[0-9]{0,5}0{0,3})?".prop_map(String::into_bytes),
        "0{0,22}[0-9]{17,21}(\\.[0-9]{1,4})?".prop_map(String::into_bytes),
        // Around the limits of 64 bits and of the short way.
        (any::<u8>(), any::<bool>()).prop_map(|(number, signed)| {
            let limit = if signed { i64::MAX as u64 } else { u64::MAX };
            (u128::from(limit) + u128::from(number) - 128).to_string().into_bytes()
        }),
        "[1-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".prop_map(String::into_bytes),
        one_of(&[
            b"",
            b"",
            b"x",
            b"-",
            b"-",
            b"5.",
            b"-5.",
            b".",
            b".5",
            b"1.2.3",
            b"+1",
            b"1e3",
            b"\0",
            b"00000000-0000-0000-0000-000000000001",
            b"1\r"
        ]),
    ]
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    one_of(&[
        b"deposit",
        b"deposit",
        b"Deposit",
        b"withdrawal",
        b"DISPUTE",
        b"dispute",
        b"resolve",
        b"chargeback",
        b"unlock",
        b"deposits",
        b"",
        b"refund",
        b"EUR",
        b"eur",
        b"JPY",
        b"BTC",
        b"USD",
        b"note",
        b"\xff",
        b"caf\xe9",
        b"\xc3\xa9",
        b"5\"",
        b"deposit\0",
    ])
}

/// A field with what may surround it.
fn field(value: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let blanks = || one_of(&[b"", b"", b"", b"", b" ", b"\t", b"  "]);
    (blanks(), value, blanks(), 0u8..12).prop_map(|(before, value, after, style)| {
        let inner = match style {
            0 | 1 => [b"\"".to_vec(), value, b"\"".to_vec()].concat(),
            2 => [b"\" ".to_vec(), value, b"\t\"".to_vec()].concat(),
            3 => [b"\"".to_vec(), value, b"\"\"\"".to_vec()].concat(),
            _ => value,
        };
        [before, inner, after].concat()
    })
}

/// A row in which every field fits its column, but for at most one that is odd.
fn row(header: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let cells: Vec<BoxedStrategy<Vec<u8>>> = header
        .iter()
        .map(|column| match *column {
            "type" => one_of(&[b"deposit", b"Withdrawal", b"dispute", b"RESOLVE", b"chargeback", b"unlock"]).boxed(),
            "client" | "tx" => (0u64..100).prop_map(|number| number.to_string().into_bytes()).boxed(),
            "amount" => one_of(&[b"1", b"2.0", b"30.00", b"", b"1000000"]).boxed(),
            "currency" => one_of(&[b"", b"", b"EUR", b"jpy"]).boxed(),
            _ => "[a-z ]{0,8}|[a-z]{15,35}".prop_map(String::into_bytes).boxed(),
        })
        .collect();
    let odd = (0..header.len()).prop_flat_map(|index| {
        let column = header[index];
        let value = match column {
            "type" => field(word()).boxed(),
            "client" | "tx" | "amount" => field(number()).boxed(),
            _ => field(prop_oneof![word(), one_of(&[b"", b"EUR", b"JPY"])]).boxed(),
        };
        (Just(index), value)
    });
    let line_end = one_of(&[b"\n", b"\n", b"\n", b"\n", b"\n", b"\r\n", b" \r\n", b",\n", b"\n\n", b"\r\r\n"]);
    (cells, prop::option::weighted(0.8, odd), 0..12usize, line_end).prop_map(
        move |(mut cells, odd, left_out, line_end)| {
            for (cell, column) in cells.clone().iter().zip(header) {
                if *column == "type" && cell == b"unlock" {
                    for (cell, column) in cells.iter_mut().zip(header) {
                        if matches!(*column, "tx" | "amount") {
                            cell.clear();
                        }
                    }
                }
            }
            if let Some((index, value)) = odd {
                cells[index] = value;
            }
            if left_out < cells.len() / 2 {
                cells.truncate(cells.len() - left_out);
            }
            [cells.join(&b','), line_end].concat()
        },
    )
}

fn soup() -> impl Strategy<Value = Vec<u8>> {
    let token = one_of(&[
        b",",
        b",",
        b",",
        b"\n",
        b"\r\n",
        b"\r",
        b"\"",
        b"\"",
        b"\"\"",
        b" ",
        b"\t",
        b"1",
        b"22",
        b"0.5",
        b".",
        b"-",
        b"deposit",
        b"unlock",
        b"dispute",
        b"EUR",
        b"\xff",
        b"\0",
        b"\xc3\xa9",
        b"xxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ]);
    prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

fn file() -> impl Strategy<Value = (&'static [&'static str], Vec<u8>)> {
    prop::sample::select(&HEADERS[..]).prop_flat_map(|header| {
        let piece = prop_oneof![6 => row(header), 2 => soup(), 1 => Just(b"\n".to_vec())];
        let rows = prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
        let last = one_of(&[b"", b"", b"\r", b"unlock,1", b"\"", b"deposit,1,2,3\r"]);
        (Just(header), rows, last).prop_map(|(header, rows, last)| (header, [rows, last].concat()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_reader_agrees_with_the_reference(
        (header, body) in file(),
        currencies in currencies(),
        row_bytes_max in prop_oneof![40usize..50, Just(1000)],
        batch_bytes in prop::sample::select(&[1usize, 2, 7, 50, 4096][..]),
        counts in prop::collection::vec(1usize..60, 1..4),
        thread_count in 1usize..4,
    ) {
        let text = [header.join(",").as_bytes(), b"\n", &body].concat();
        let expected = by_reference(header, &body, &currencies, row_bytes_max);
        let limits = Limits { row_bytes_max, batch_bytes };
        let got = by_reader(&text, &currencies, limits, counts.clone());
        prop_assert_eq!(&got, &expected, "{:?}", String::from_utf8_lossy(&text));
        let got = by_threads(&text, &currencies, limits, counts, thread_count);
        prop_assert_eq!(got, expected, "{} threads: {:?}", thread_count, String::from_utf8_lossy(&text));
    }
}

/// Every way to cut one text in two, and every fixed size of pieces.
#[test]
fn no_split_point_matters() {
    let header = HEADERS[1];
    let body = b"deposit,1,2,3.5,EUR\r\n \"deposit\" ,\"1\",2,\"3\"\r\nunlock,7\n\n\"a\nb\",x\ndeposit,\"1\ndispute,1,2\r\n\
                 \"deposit\",\"1\"\"\",2,3\n\"z\"x\xff,1\ndeposit,1,6ba7b810-9dad-11d1-80b4-00c04fd430c8,-0.5,\n\
                 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\nresolve,1,2\r";
    let text = [header.join(",").as_bytes(), b"\n", body].concat();
    let currencies = Currencies::default();
    let expected = by_reference(header, body, &currencies, 64);
    assert_eq!(expected.len(), 11);
    for first in 1..text.len() {
        for batch_bytes in [1, 16, 4096] {
            let limits = Limits { row_bytes_max: 64, batch_bytes };
            assert_eq!(by_reader(&text, &currencies, limits, vec![first, text.len()]), expected, "split at {first}");
            assert_eq!(by_reader(&text, &currencies, limits, vec![first]), expected, "pieces of {first}");
        }
    }
}

/// Many blocks on many threads: most can be parsed side by side; some have quotes, a row too long, or nothing in them.
#[test]
fn no_count_of_threads_and_no_size_of_blocks_matters() {
    let header = HEADERS[0];
    let mut body = Vec::new();
    for number in 0u64..4000 {
        body.extend_from_slice(format!("deposit,{},{number},{}.5\n", number % 7, number % 13).as_bytes());
        body.extend_from_slice(match number {
            n if n % 997 == 5 => b"\n\n \t\n\n".as_slice(),
            n if n % 499 == 7 => b"\"deposit\",\"1\",2,\"3\"\ndispute,\"1\n",
            n if n % 701 == 9 => b"deposit,1,2,\"3\n\",\nresolve,1,2,\r\n",
            n if n % 307 == 3 => b"deposit,6ba7b810-9dad-11d1-80b4-00c04fd430c8,1,1\r\nwithdrawal,1,x,1\nunlock,5\n",
            n if n % 1501 == 11 => &[b'x'; 700],
            _ => b"",
        });
    }
    body.extend_from_slice(b"deposit,1,99999,1");
    let text = [header.join(",").as_bytes(), b"\n", &body].concat();
    let currencies = Currencies::default();
    let expected = by_reference(header, &body, &currencies, 600);
    assert!(expected.len() > 4000 && expected.iter().filter(|row| row.3.is_err()).count() > 15);
    for thread_count in [1, 2, 3, 8] {
        for batch_bytes in [1 << 8, 1 << 9, 5000, 1 << 20] {
            let limits = Limits { row_bytes_max: 600, batch_bytes };
            let got = by_threads(&text, &currencies, limits, vec![usize::MAX], thread_count);
            assert!(got == expected, "{thread_count} threads, blocks of {batch_bytes}");
        }
        let limits = Limits { row_bytes_max: 600, ..Limits::default() };
        let got = by_threads(&text, &currencies, limits, vec![300, 2000, 1], thread_count);
        assert!(got == expected, "{thread_count} threads");
    }
}
