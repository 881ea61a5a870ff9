//! What the reader accepts, and what it says of what it does not accept: tables.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_engine::core::{
    Action, Amount, AmountErrorKind, Currencies, Currency, CurrencyIndex, CustomerId, Decimals, IdErrorKind, Movement,
    Reference, Request, RequestKind, TransactionId,
};
use bursar_engine::csv::{Column, HeaderError, Limits, OpenError, Position, Row, RowBatch, RowErrorKind, RowReader};

const HEADER: &str = "type,client,tx,amount\n";

fn customer(id: u128) -> CustomerId {
    CustomerId::new(id)
}

fn transaction(id: u128) -> TransactionId {
    TransactionId::new(id)
}

fn steps(count: i64) -> Amount {
    Amount::from_steps(count)
}

fn deposit(client: u128, tx: u128, amount: i64) -> Request {
    Request::deposit(customer(client), transaction(tx), steps(amount))
}

fn euro_and_yen() -> Currencies {
    let currency = |code, decimals| Currency::new(code, Decimals::new(decimals).unwrap()).unwrap();
    Currencies::named(vec![currency("EUR", 2), currency("JPY", 0)]).unwrap()
}

/// All rows of a text, with their raw texts.
fn rows_of(text: &[u8], currencies: &Currencies, limits: Limits) -> Vec<(Row, Vec<u8>)> {
    let mut reader = RowReader::with_limits(text, currencies, limits).unwrap();
    let (mut batch, mut rows) = (RowBatch::new(), Vec::new());
    while reader.next_batch(&mut batch).unwrap() {
        rows.extend(batch.rows().iter().map(|row| (*row, batch.text_of(row).to_vec())));
    }
    assert_eq!(reader.position().offset, text.len() as u64);
    assert!(!reader.next_batch(&mut batch).unwrap(), "an end is an end");
    rows
}

fn requests_of(text: &str, currencies: &Currencies) -> Vec<Request> {
    let rows = rows_of(text.as_bytes(), currencies, Limits::default());
    rows.iter().map(|(row, _)| row.content.unwrap_or_else(|error| panic!("{text:?}: {error}"))).collect()
}

#[test]
fn every_accepted_form_of_a_row() {
    let one = vec![deposit(1, 2, 30_000)];
    let table: &[(&str, &str, Vec<Request>)] = &[
        ("plain", "type,client,tx,amount\ndeposit,1,2,3\n", one.clone()),
        ("no last newline", "type,client,tx,amount\ndeposit,1,2,3", one.clone()),
        ("no last newline but a CR", "type,client,tx,amount\r\ndeposit,1,2,3\r", one.clone()),
        ("CRLF", "type,client,tx,amount\r\ndeposit,1,2,3\r\n", one.clone()),
        ("byte-order mark", "\u{feff}type,client,tx,amount\ndeposit,1,2,3\n", one.clone()),
        ("byte-order mark and quotes", "\u{feff}\"type\",client,tx,amount\ndeposit,1,2,3\n", one.clone()),
        ("other order", "amount,tx,client,type\n3,2,1,deposit\n", one.clone()),
        ("letter case", "Type,CLIENT,tX,Amount\nDePosit,1,2,3\n", one.clone()),
        ("blanks", " type\t, client ,tx , amount \n\tdeposit , 1,2\t, 3.0 \n", one.clone()),
        ("blanks before CRLF", "type,client,tx,amount\r\ndeposit,1,2,3 \r\n", one.clone()),
        ("quotes", "type,\"client\",tx,amount\n\"deposit\",\"1\",2,\"3\"\n", one.clone()),
        ("quotes, blanks inside and outside", "type,client,tx,amount\n \" deposit\t\" ,1,2,3\n", one.clone()),
        ("blank lines", "\n \t\ntype,client,tx,amount\n\n\r\ndeposit,1,2,3\n  \n\n", one.clone()),
        ("zeros beyond the decimals", "type,client,tx,amount\ndeposit,1,2,3.00000000\n", one.clone()),
        ("leading zeros", "type,client,tx,amount\ndeposit,001,0000000000000000000000002,0003\n", one.clone()),
        ("other columns", "a,type,,client,b,tx,amount,c\n1,deposit,x,1,\u{e9},2,3,\n", one.clone()),
        ("quoted other columns", "a,type,client,tx,amount\n\"x,\"\"\n\r\ny\",deposit,1,2,3\n", one.clone()),
        ("a quote inside a plain field", "a,type,client,tx,amount\n5\" x,deposit,1,2,3\n", one.clone()),
        ("other columns left out", "type,client,tx,amount,note\ndeposit,1,2,3\n", one.clone()),
        ("an empty currency column", "type,client,tx,amount,currency\ndeposit,1,2,3,\n", one.clone()),
        ("columns of a file of rejects", "type,client,tx,amount,line,code,reason\ndeposit,1,2,3,7,x,\n", one),
        ("a negative amount is read", "type,client,tx,amount\ndeposit,1,2,-.5\n", vec![deposit(1, 2, -5_000)]),
        ("a zero amount is read", "type,client,tx,amount\ndeposit,1,2,0\n", vec![deposit(1, 2, 0)]),
        (
            "the smallest amount",
            "type,client,tx,amount\ndeposit,1,2,-922337203685477.5808\n",
            vec![deposit(1, 2, i64::MIN)],
        ),
        (
            "the largest amount",
            "type,client,tx,amount\ndeposit,1,2,922337203685477.5807\n",
            vec![deposit(1, 2, i64::MAX)],
        ),
        (
            "large ids and UUIDs",
            "type,client,tx,amount\nresolve,18446744073709551615,6BA7B810-9dad-11d1-80b4-00c04fd430c8\n",
            vec![Request::resolve(
                customer(u128::from(u64::MAX)),
                transaction(0x6ba7_b810_9dad_11d1_80b4_00c0_4fd4_30c8),
            )],
        ),
        ("only a header", "type,client,tx,amount", vec![]),
        ("only a header and blank lines", "type,client,tx,amount\r\n\r\n \n", vec![]),
    ];
    for (name, text, expected) in table {
        assert_eq!(requests_of(text, &Currencies::default()), *expected, "{name}");
    }
}

#[test]
fn every_kind_with_and_without_its_trailing_fields() {
    let (one, two) = (customer(1), transaction(2));
    let with_amount = Reference { transaction: two, amount: Some(steps(15_000)), currency: None };
    let table: &[(&str, Request)] = &[
        ("deposit,1,2,1.5", deposit(1, 2, 15_000)),
        ("withdrawal,1,2,1.5", Request::withdrawal(one, two, steps(15_000))),
        ("dispute,1,2,", Request::dispute(one, two)),
        ("dispute,1,2", Request::dispute(one, two)),
        ("dispute,1,2,1.5", Request { customer: one, action: Action::Dispute(with_amount) }),
        ("resolve,1,2, ", Request::resolve(one, two)),
        ("resolve,1,2,1.5", Request { customer: one, action: Action::Resolve(with_amount) }),
        ("chargeback,1,2,\"\"", Request::chargeback(one, two)),
        ("chargeback,1,2,1.5", Request { customer: one, action: Action::Chargeback(with_amount) }),
        ("unlock,1,,", Request::unlock(one)),
        ("unlock,1,", Request::unlock(one)),
        ("UNLOCK,1", Request::unlock(one)),
    ];
    for (row, expected) in table {
        assert_eq!(requests_of(&format!("{HEADER}{row}\n"), &Currencies::default()), [*expected], "{row}");
    }
}

#[test]
fn currencies_are_found_and_fix_the_decimals() {
    let (one, two) = (customer(1), transaction(2));
    let (eur, jpy) = (CurrencyIndex(0), CurrencyIndex(1));
    let movement = |amount, currency| Action::Deposit(Movement { transaction: two, amount: steps(amount), currency });
    let reference = |amount: Option<i64>, currency| {
        Action::Dispute(Reference { transaction: two, amount: amount.map(steps), currency })
    };
    let table: &[(&str, Action)] = &[
        ("deposit,1,2,1.5,EUR", movement(150, eur)),
        ("deposit,1,2,1.5, eur ", movement(150, eur)),
        ("deposit,1,2,15.0,\"jpy\"", movement(15, jpy)),
        ("dispute,1,2", reference(None, None)),
        ("dispute,1,2,,JPY", reference(None, Some(jpy))),
        ("dispute,1,2,1.5,EUR", reference(Some(150), Some(eur))),
    ];
    for (row, action) in table {
        let expected = Request { customer: one, action: *action };
        let last = format!("type,client,tx,amount,currency\n{row}\n");
        assert_eq!(requests_of(&last, &euro_and_yen()), [expected], "{row}");
        let mut fields: Vec<&str> = row.split(',').collect();
        fields.resize(5, "");
        fields.swap(0, 4);
        let first = format!("Currency,client,tx,amount,type\n{}\n", fields.join(","));
        assert_eq!(requests_of(&first, &euro_and_yen()), [expected], "{row}, currency first");
    }
    let only_euro = Currencies::named(vec![Currency::new("EUR", Decimals::new(2).unwrap()).unwrap()]).unwrap();
    for row in ["deposit,1,2,1.5", "deposit,1,2,1.5,", "deposit,1,2,1.5,eur"] {
        let text = format!("type,client,tx,amount,currency\n{row}\n");
        assert_eq!(requests_of(&text, &only_euro), [deposit(1, 2, 150)], "{row}");
    }
}

/// Row, kind of error, its column, and the text that is underlined with the place where that begins.
type ErrorCase = (&'static [u8], RowErrorKind, Option<Column>, (usize, &'static [u8]));

fn check_errors(header: &str, currencies: &Currencies, table: &[ErrorCase]) {
    for (text, kind, column, (start, underlined)) in table {
        let name = String::from_utf8_lossy(text);
        let file = [header.as_bytes(), b"unlock,9\n", text, b"\nunlock,10\n"].concat();
        let rows = rows_of(&file, currencies, Limits { row_bytes_max: 100, ..Limits::default() });
        assert_eq!(rows.len(), 3, "{name}: {rows:?}");
        let (row, raw) = &rows[1];
        assert_eq!(raw, text, "{name}");
        assert_eq!(row.line, 3, "{name}");
        let after = Position { offset: (header.len() + 9 + text.len() + 1) as u64, line: 4 };
        assert_eq!(row.after, after, "{name}");
        let error = row.content.unwrap_err();
        assert_eq!((error.kind, error.column), (*kind, *column), "{name}");
        let (from, to) = (error.span.start as usize, error.span.end as usize);
        assert_eq!((from, &raw[from..to]), (*start, *underlined), "{name}");
        assert_eq!(error.code(), kind.code());
        assert!(!error.to_string().is_empty() && !error.hint().is_empty());
        assert_eq!(rows[2].0.content, Ok(Request::unlock(customer(10))), "{name}: the rest goes on");
    }
}

#[test]
fn every_error_names_its_place() {
    use AmountErrorKind as A;
    use IdErrorKind as I;
    use RowErrorKind as K;
    let (client, tx, amount) = (Some(Column::Client), Some(Column::Tx), Some(Column::Amount));
    let kind = Some(Column::Type);
    let unknown = |near| K::UnknownKind { near };
    let too_many = |fields| K::TooManyFields { fields, columns: 4 };
    let decimals = Decimals::FOUR;
    let table: &[ErrorCase] = &[
        (b"deposit,\"1,2,3", K::UnclosedQuote, None, (8, b"\"1,2,3")),
        (b"deposit,\"1\"x,2,3", K::TextAfterQuote, None, (11, b"x")),
        (b"deposit,\"1\" \"2\",2", K::TextAfterQuote, None, (12, b"\"2\"")),
        (b"deposit,\xff\xfe,2,3", K::NotUtf8, None, (8, b"\xff")),
        (b"deposit,1,2,\xe2\x82", K::NotUtf8, None, (12, b"\xe2\x82")),
        (b"deposit,1,2,3,4", too_many(5), None, (14, b"4")),
        (b"deposit,1,2,3,", too_many(5), None, (14, b"")),
        (b"deposit,1,2,1,234,50", too_many(6), None, (14, b"234,50")),
        (b"deposit", K::TooFewFields, client, (7, b"")),
        (b"deposit,1", K::TooFewFields, tx, (9, b"")),
        (b"refund,1,2,3", unknown(None), kind, (0, b"refund")),
        (b" \"depositt\" ,1,2,3", unknown(Some(RequestKind::Deposit)), kind, (2, b"depositt")),
        (b",1,2,3", unknown(None), kind, (0, b"")),
        (b"\"\"", unknown(None), kind, (1, b"")),
        (b"dep\"osit\",1,2,3", unknown(Some(RequestKind::Deposit)), kind, (0, b"dep\"osit\"")),
        (b"deposit, x1 ,2,3", K::BadId(I::NotAnId), client, (9, b"x1")),
        (b"deposit,12x,2,3", K::BadId(I::NotAnId), client, (10, b"x")),
        (b"deposit,,2,3", K::BadId(I::Empty), client, (8, b"")),
        (b"deposit,1\0,2,3", K::BadId(I::NotAnId), client, (9, b"\0")),
        (b"deposit,18446744073709551616,2,3", K::BadId(I::TooLarge), client, (8, b"18446744073709551616")),
        (b"deposit,1,-2,3", K::BadId(I::NotAnId), tx, (10, b"-2")),
        (b"deposit,1, ,3", K::BadId(I::Empty), tx, (11, b"")),
        (b"dispute,1,", K::BadId(I::Empty), tx, (10, b"")),
        (
            b"deposit,1,00000000-0000-0000-0000-000000000007,3",
            K::BadId(I::UuidOfNumber),
            tx,
            (10, b"00000000-0000-0000-0000-000000000007"),
        ),
        (b"unlock,1,5", K::UnlockTakesOnlyClient, tx, (9, b"5")),
        (b"unlock,1,,5", K::UnlockTakesOnlyClient, amount, (10, b"5")),
        (b"deposit,1,2", K::MissingAmount, amount, (11, b"")),
        (b"withdrawal,1,2, ", K::MissingAmount, amount, (16, b"")),
        (b"deposit,1,2,1x", K::BadAmount(A::NotANumber), amount, (13, b"x")),
        (b"deposit,1,2,$1", K::BadAmount(A::NotANumber), amount, (12, b"$1")),
        (b"deposit,1,2,\"1,5\"", K::BadAmount(A::NotANumber), amount, (14, b",5")),
        (b"deposit,1,2,5.", K::BadAmount(A::EndsWithPoint), amount, (13, b".")),
        (b"deposit,1,2,1.00001", K::BadAmount(A::TooManyDecimals { decimals }), amount, (18, b"1")),
        (b"dispute,1,2,1.00001", K::BadAmount(A::TooManyDecimals { decimals }), amount, (18, b"1")),
        (b"deposit,1,2,922337203685477.5808", K::BadAmount(A::TooLarge), amount, (12, b"922337203685477.5808")),
    ];
    check_errors(HEADER, &Currencies::default(), table);
    let too_long = [b"deposit,1,2,".to_vec(), vec![b'0'; 300]].concat();
    let file = [HEADER.as_bytes(), &too_long, b"\nunlock,1\n"].concat();
    let rows = rows_of(&file, &Currencies::default(), Limits { row_bytes_max: 100, batch_bytes: 64 });
    assert_eq!(rows[0].0.content.unwrap_err().kind, K::RowTooLong { bytes_max: 100 });
    assert_eq!(rows[0].1, too_long[..100]);
    assert_eq!(rows[0].0.after, Position { offset: (HEADER.len() + 313) as u64, line: 3 });
    assert_eq!(rows[1].0.content, Ok(Request::unlock(customer(1))));
    assert_eq!(rows[1].0.line, 3);
}

#[test]
fn every_error_of_currencies_names_its_place() {
    use RowErrorKind as K;
    let currency = Some(Column::Currency);
    let header = "type,client,tx,amount,currency\n";
    let table: &[ErrorCase] = &[
        (b"deposit,1,2,3,USD", K::UnknownCurrency, currency, (14, b"USD")),
        (b"dispute,1,2,, usd ", K::UnknownCurrency, currency, (14, b"usd")),
        (b"deposit,1,2,3", K::MissingCurrency, currency, (13, b"")),
        (b"deposit,1,2,3,", K::MissingCurrency, currency, (14, b"")),
        (b"dispute,1,2,3", K::MissingCurrency, currency, (13, b"")),
        (b"unlock,1,,,EUR", K::UnlockTakesOnlyClient, currency, (11, b"EUR")),
        (
            b"deposit,1,2,1.001,EUR",
            K::BadAmount(AmountErrorKind::TooManyDecimals { decimals: Decimals::new(2).unwrap() }),
            Some(Column::Amount),
            (16, b"1"),
        ),
    ];
    check_errors(header, &euro_and_yen(), table);
    let unnamed: &[ErrorCase] = &[(b"deposit,1,2,3,EUR", K::UnknownCurrency, currency, (14, b"EUR"))];
    check_errors(header, &Currencies::default(), unnamed);
}

#[test]
fn a_row_that_lacks_its_kind_ends_too_early() {
    let rows = rows_of(b"client,tx,amount,type\n1,2\n", &Currencies::default(), Limits::default());
    let error = rows[0].0.content.unwrap_err();
    assert_eq!((error.kind, error.column), (RowErrorKind::TooFewFields, Some(Column::Type)));
    assert_eq!((error.span.start, error.span.end), (3, 3));
}

#[test]
fn lines_are_counted_through_quotes_and_blank_lines() {
    let text = "\n note,type,client,tx,amount\r\n\n\"a\nb\r\n\",unlock,1\n\nx,unlock,2\n\"y,unlock,3\nz,unlock,4";
    let rows = rows_of(text.as_bytes(), &Currencies::default(), Limits::default());
    let lines: Vec<_> = rows.iter().map(|(row, _)| (row.line, row.after.line, row.content.is_ok())).collect();
    assert_eq!(lines, [(4, 7, true), (8, 9, true), (9, 10, false), (10, 10, true)]);
    for (row, raw) in &rows {
        let end = row.after.offset as usize;
        assert!(text.as_bytes()[..end].trim_ascii_end().ends_with(raw.trim_ascii_end()), "{raw:?}");
    }
}

#[test]
fn an_unclosed_quote_costs_one_line_of_a_long_file() {
    let mut text = format!("{HEADER}deposit,\"1,2,3\n").into_bytes();
    for id in 0..100_000 {
        text.extend_from_slice(format!("dispute,1,{id}\n").as_bytes());
    }
    let rows = rows_of(&text, &Currencies::default(), Limits::default());
    assert_eq!(rows.len(), 100_001);
    assert_eq!(rows[0].0.content.unwrap_err().kind, RowErrorKind::UnclosedQuote);
    assert!(rows[1..].iter().all(|(row, _)| row.content.is_ok()));
}

/// A fault of quotes makes the reader look ahead, as far as the limit of a row, and then go back by a line. If
/// every line could cost that, a small file would take hours.
#[test]
fn no_pattern_of_quotes_makes_reading_slow() {
    for line in
        ["\"\n", "x,\"\n", "\"\"x\n", "\"\"\"\n", "\"a,\nb\n", ",\"\"\"\",\"\n", "\"a\"\"\n\"\"\"x\n", "\" \" \n\"\n"]
    {
        let text = format!("{HEADER}{}", line.repeat(200_000));
        let rows = rows_of(text.as_bytes(), &Currencies::default(), Limits::default());
        assert!(rows.len() >= 100_000, "{line:?}");
    }
}

#[test]
fn header_errors_say_what_is_missing_and_show_the_header() {
    // text, code, words of the message
    let table: &[(&[u8], &str, &[&str])] = &[
        (b"", "header_empty", &["empty"]),
        (b"\xef\xbb\xbf", "header_empty", &["empty"]),
        (b"\n \r\n\n", "header_empty", &["empty"]),
        (b"type,tx\n", "header_column_missing", &["client, amount", "line 1", "type,tx"]),
        (b"\nkind,client,tx,amount\n", "header_column_missing", &["column type", "line 2", "kind,client"]),
        (b"deposit,1,2,3\n", "header_column_missing", &["type, client, tx, amount"]),
        (b"type,client,tx,amount,Type\n", "header_column_twice", &["type twice"]),
        (b"type,client,tx,amount,currency,CURRENCY\n", "header_column_twice", &["currency twice"]),
        (b"type;\x1b[31m\n", "header_column_missing", &["type;\\u{1b}[31m"]),
        (b"type,\"client,tx,amount\ndeposit,1,2,3\n", "header_unreadable", &["line 1", "not closed"]),
        (b"type,client,tx,amount,caf\xe9\n", "header_unreadable", &["UTF-8"]),
    ];
    for (text, code, words) in table {
        let name = String::from_utf8_lossy(text);
        let error = RowReader::open(*text, &Currencies::default()).unwrap_err();
        let OpenError::Header(error) = error else { panic!("{name}: {error}") };
        assert_eq!(error.code(), *code, "{name}");
        for word in *words {
            assert!(error.to_string().contains(word), "{name}: {error}");
        }
        assert!(!error.hint().is_empty());
    }
}

#[test]
fn a_header_without_an_end_is_refused_in_bounded_memory() {
    let endless = std::io::Read::take(std::io::repeat(b'x'), 1 << 30);
    let error =
        RowReader::with_limits(endless, &Currencies::default(), Limits { row_bytes_max: 1000, batch_bytes: 100 });
    let Err(OpenError::Header(HeaderError::Unreadable { text, error, .. })) = error else { panic!("{error:?}") };
    assert_eq!((text.len(), error.kind), (1000, RowErrorKind::RowTooLong { bytes_max: 1000 }));
}

#[test]
fn ignored_columns_are_named_once() {
    let text = "note,type,\"a \"\"b\"\"\",client,,tx,amount,Line,CODE,reason,x\u{7}\nunlock\n";
    let reader = RowReader::open(text.as_bytes(), &Currencies::default()).unwrap();
    assert_eq!(reader.header().ignored(), ["note", "a \"b\"", "x\\u{7}"]);
    assert_eq!(reader.header().column_count(), 11);
    assert_eq!(reader.header().index_of(Column::Tx), Some(5));
    assert_eq!(reader.header().index_of(Column::Currency), None);
}

#[test]
fn an_error_of_the_source_comes_after_the_rows_before_it_and_stays() {
    struct Failing<'a>(&'a [u8]);
    impl std::io::Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() {
                return Err(std::io::Error::other("the cable is out"));
            }
            std::io::Read::read(&mut self.0, buffer)
        }
    }
    let mut reader =
        RowReader::open(Failing(b"type,client,tx,amount\nunlock,1\nunlock,2"), &Currencies::default()).unwrap();
    let mut batch = RowBatch::new();
    assert!(reader.next_batch(&mut batch).unwrap());
    assert_eq!(batch.rows().len(), 1);
    for _ in 0..3 {
        assert!(reader.next_batch(&mut batch).is_err());
        assert!(batch.rows().is_empty());
    }
}
