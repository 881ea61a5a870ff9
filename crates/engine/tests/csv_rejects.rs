//! Rejects: nothing of a row is lost, nothing is applied before it was corrected, and corrections are read.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_engine::core::{Amount, Currencies, CustomerId, Request, TransactionId};
use bursar_engine::csv::{Limits, RejectWriter, Row, RowBatch, RowErrorKind, RowReader};
use proptest::prelude::*;

fn rows_of(text: &[u8], limits: Limits) -> (RowReader<&[u8]>, Vec<(Row, Vec<u8>)>) {
    let mut reader = RowReader::with_limits(text, &Currencies::default(), limits).unwrap();
    let (mut batch, mut rows) = (RowBatch::new(), Vec::new());
    while reader.next_batch(&mut batch).unwrap() {
        rows.extend(batch.rows().iter().map(|row| (*row, batch.text_of(row).to_vec())));
    }
    (reader, rows)
}

/// The rejects of a file of which the rules refuse every request.
fn rejects_of(text: &[u8], limits: Limits) -> Vec<u8> {
    let (reader, rows) = rows_of(text, limits);
    let mut writer = RejectWriter::new(Vec::new(), reader.header()).unwrap();
    for (row, raw) in rows {
        match row.content {
            Ok(_) => writer.refused(&raw, row.line, "unknown_transaction", &"there is none, \"sorry\"").unwrap(),
            Err(error) => writer.unreadable(&raw, row.line, &error).unwrap(),
        }
    }
    writer.into_inner()
}

fn check(text: &[u8], expected: &[u8]) {
    let got = rejects_of(text, Limits { row_bytes_max: 60, ..Limits::default() });
    assert_eq!(got, expected, "{}", String::from_utf8_lossy(&got));
}

#[test]
fn rows_are_written_as_they_were() {
    check(
        b"\xef\xbb\xbfType, client,tx,\"amount\",note\r\n\
          dispute,1,2\r\n \"deposit\" ,1, 2,3,\"a\n\"\"b\"\r\ndeposit,x,2,3,\xff\n",
        b"Type, client,tx,\"amount\",note,line,code,reason\n\
          dispute,1,2,,,2,unknown_transaction,\"there is none, \"\"sorry\"\"\"\n \
          \"deposit\" ,1, 2,3,\"a\n\"\"b\",3,unknown_transaction,\"there is none, \"\"sorry\"\"\"\n\
          deposit,x,2,3,\xff,5,not_utf8,the row has bytes that are no UTF-8\n",
    );
}

#[test]
fn rows_that_cannot_be_cut_are_kept_whole() {
    check(
        b"client,type,tx,amount\n1,deposit,2,1,234,50\n\"1,deposit,2,3\n1,\"deposit\"x,2,3\n\
          1,deposit,2,0000000000000000000000000000000000000000000000000000000001\n",
        b"client,type,tx,amount,line,code,reason\n\
          1,deposit,2,1,234,50,2,too_many_fields,\"the row has 6 fields, the header has 4 columns\"\n\
          ,\"\"\"1,deposit,2,3\",,,3,unclosed_quote,the quote that opens here is not closed\n\
          ,\"1,\"\"deposit\"\"x,2,3\",,,4,text_after_quote,text follows the closing quote of a field\n\
          ,\"1,deposit,2,000000000000000000000000000000000000000000000000\",,,5,row_too_long,\
          the row is longer than 60 bytes; the rest of it was skipped\n",
    );
}

#[test]
fn rejects_of_rejects_replace_the_three_columns() {
    check(
        b"type,client,tx,amount,line,code,reason\ndispute,1,2,,17,old,\"old, reason\"\nresolve,1,2,3,4,17,old,reason\n",
        b"type,client,tx,amount,line,code,reason\n\
          dispute,1,2,,2,unknown_transaction,\"there is none, \"\"sorry\"\"\"\n\
          resolve,1,2,3,4,17,old,reason,3,too_many_fields,\"the row has 8 fields, the header has 7 columns\"\n",
    );
}

#[test]
fn a_corrected_file_is_read() {
    let rejects = rejects_of(b"type,client,tx,amount\ndeposit,1,2,1,5\ndepsit,1,3,1\n", Limits::default());
    let rejects = String::from_utf8(rejects).unwrap();
    let corrected = rejects.replace("1,5,2,", "1.5,2,").replace("depsit", "deposit");
    let (reader, rows) = rows_of(corrected.as_bytes(), Limits::default());
    assert!(reader.header().ignored().is_empty());
    let requests: Vec<_> = rows.iter().map(|(row, _)| row.content.unwrap()).collect();
    let deposit = |tx, steps| Request::deposit(CustomerId::new(1), TransactionId::new(tx), Amount::from_steps(steps));
    assert_eq!(requests, [deposit(2, 15_000), deposit(3, 10_000)]);
}

#[test]
fn only_the_same_columns_share_a_file() {
    let header = |text: &'static str| rows_of(text.as_bytes(), Limits::default()).0.header().clone();
    let writer = RejectWriter::new(Vec::new(), &header("type,client,tx,amount\n")).unwrap();
    assert!(writer.takes(&header("\u{feff}type,client,tx,amount\r\n")));
    assert!(!writer.takes(&header("client,type,tx,amount\n")));
    assert!(!writer.takes(&header("type,client,tx,amount,note\n")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the rows are: read again uncorrected, a request that was refused is the same request, and what
    /// was unreadable is unreadable still. No row is split, joined or lost.
    #[test]
    fn uncorrected_rejects_change_nothing(
        rows in prop::collection::vec(
            prop::collection::vec(
                prop::sample::select(&[
                    "deposit", "dispute", "unlock", ",", ",", ",", "1", "2", "3.5", " ", "\"", "\"\"", "\n", "\r", "\r\n", "x",
                    "\"a\nb\"", "deposit,1,2,3", "dispute,1,2",
                ][..]),
                0..8,
            ),
            0..8,
        ),
        header in prop::sample::select(&[
            "type,client,tx,amount\n", "note,type,client,tx,amount\n", "client,line,type,tx,amount,note\r\n",
            "reason,type,client,tx,amount,code,line\n",
        ][..]),
        row_bytes_max in prop::sample::select(&[50usize, 1000][..]),
    ) {
        let text = format!("{header}{}", rows.iter().map(|row| row.concat()).collect::<Vec<_>>().join("\n"));
        let (_, before) = rows_of(text.as_bytes(), Limits { row_bytes_max, ..Limits::default() });
        let rejects = rejects_of(text.as_bytes(), Limits { row_bytes_max, ..Limits::default() });
        let (_, after) = rows_of(&rejects, Limits::default());
        prop_assert_eq!(before.len(), after.len(), "{:?} {:?}", text, String::from_utf8_lossy(&rejects));
        for ((before, raw), (after, written)) in before.iter().zip(&after) {
            match before.content {
                Ok(request) => prop_assert_eq!(after.content, Ok(request)),
                Err(error) => {
                    prop_assert!(after.content.is_err(), "{:?} became {:?}", raw, written);
                    let whole = matches!(error.kind, RowErrorKind::UnclosedQuote | RowErrorKind::TextAfterQuote);
                    if whole {
                        let doubled = String::from_utf8_lossy(raw).replace('"', "\"\"");
                        prop_assert!(String::from_utf8_lossy(written).contains(&doubled));
                    }
                }
            }
        }
    }
}
