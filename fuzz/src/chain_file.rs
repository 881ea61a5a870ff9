//! Verification of chain files: any text, and real files that were edited. What is accepted says what the real chain
//! says, or what it said after an earlier event.
//!
//! Input: which file (or, first, the whole text itself), whether a receipt is asked for; then edits, see [`edit`].

use crate::input::Input;
use crate::ledger::{Bench, config, deposit, refused, withdrawal};
use bursar_engine::chain_file::{ChainFileReport, export_chain, verify_chain_file};
use bursar_engine::core::commit::RailAnswer;
use bursar_engine::core::{CustomerId, CustomerState, EventStatus, Hash, Head, LedgerConfig, Request, TransactionId};
use bursar_engine::store::ReadRange;
use bursar_engine::{Ledger, LedgerOptions};
use std::sync::OnceLock;

const EDITS_MAX: usize = 8;

/// A chain file and what is known of its chain.
struct Original {
    config: LedgerConfig,
    customer: CustomerId,
    lines: Vec<Vec<u8>>,
    /// The head hash and the state behind each closed event, and in the beginning.
    heads: Vec<(Hash, CustomerState)>,
    hashes: Vec<Hash>,
}

/// A chain whose newest event is open, the same one earlier, one in another ledger, and a chain with wide ids.
fn originals() -> &'static Vec<Original> {
    static ORIGINALS: OnceLock<Vec<Original>> = OnceLock::new();
    ORIGINALS.get_or_init(|| {
        let mut originals = Vec::new();
        for (ledger, customer) in [(7, 7), (8, 1 << 100)] {
            let mut bench = Bench::create(ledger);
            let (of, transaction) = (CustomerId::new(customer), TransactionId::new);
            bench.commit(&[deposit(customer, 1, 5000, 0), deposit(customer, 1 << 90, 7_000_000_123, 1)]);
            let open = bench.commit(&[withdrawal(customer, 2, 100)]);
            bench.answer(open[0], refused());
            let open = bench.commit(&[withdrawal(customer, 3, 200)]);
            originals.push(original(&bench, of));
            bench.answer(open[0], RailAnswer::Done);
            bench.commit(&[Request::dispute(of, transaction(3)), Request::dispute(of, transaction(1))]);
            bench.commit(&[Request::chargeback(of, transaction(1)), Request::unlock(of)]);
            bench.commit(&[Request::resolve(of, transaction(3))]);
            originals.push(original(&bench, of));
            bench.commit(&[deposit(customer, 4, 1, 1), withdrawal(customer, 9, 1)]);
            originals.push(original(&bench, of));
        }
        originals
    })
}

fn original(bench: &Bench, customer: CustomerId) -> Original {
    let config = config(bench.store.config().ledger[0]);
    let options = LedgerOptions::default();
    let ledger = Ledger::with_stores(config.clone(), bench.store.clone(), bench.store.clone(), options).unwrap();
    let mut text = Vec::new();
    export_chain(&ledger, customer, &mut text).unwrap();
    let mut head = Head::start(&config.digest(), customer);
    let mut heads = vec![(head.link, head.state.clone())];
    let mut hashes = Vec::new();
    for entry in ledger.chain(customer, ReadRange::ALL).unwrap() {
        hashes.push(entry.linked.hash);
        head.take(entry.linked, &entry.status);
        if entry.status != EventStatus::Started {
            heads.push((head.link, head.state.clone()));
        }
    }
    let lines = text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let original = Original { config, customer, lines, heads, hashes };
    check_accepted(&original, &text, &verify_chain_file(&*text, None).unwrap());
    original
}

/// Verifies one text.
pub fn chain_file(data: &[u8]) {
    let mut input = Input::new(data);
    let which = input.byte();
    if which == b'{' {
        // The text as it is.
        any_text(data);
        return;
    }
    let originals = originals();
    let original = &originals[usize::from(which) % originals.len()];
    let receipt_choice = input.byte();
    let mut lines = original.lines.clone();
    for _ in 0..EDITS_MAX {
        if input.is_empty() {
            break;
        }
        edit(&mut input, &mut lines);
    }
    let text = lines.concat();
    let verified = verify_chain_file(&*text, None);
    match &verified {
        Ok(report) => {
            let of_this = |other: &&Original| report.config == other.config && report.customer == other.customer;
            let original = originals.iter().filter(of_this).max_by_key(|other| other.hashes.len());
            check_accepted(original.unwrap(), &text, report);
        }
        Err(error) => {
            assert_ne!(text, original.lines.concat(), "refused: {error}");
            assert!(error.line >= 1 && error.column >= 1, "{error}");
            assert!(error.line as usize <= text.split(|byte| *byte == b'\n').count(), "{error}");
        }
    }
    check_receipt(original, receipt_choice, &text, verified.ok().as_ref());
}

/// With a receipt, nothing is accepted that was not without it; and the receipt is found where it belongs.
fn check_receipt(original: &Original, choice: u8, text: &[u8], without: Option<&ChainFileReport>) {
    let place = usize::from(choice & 127) % original.heads.len();
    let mut receipt = original.heads[place].0;
    if choice & 128 != 0 {
        receipt.0[31] ^= 1;
    }
    let with = verify_chain_file(text, Some(receipt)).ok();
    let Some(without) = without else {
        assert!(with.is_none(), "accepted only with a receipt");
        return;
    };
    let closed = (without.event_count - without.open_count) as usize;
    let is_this = without.config == original.config && without.customer == original.customer;
    let expected = is_this && choice & 128 == 0 && (1..=closed).contains(&place);
    assert_eq!(with.as_ref().and_then(|report| report.receipt_seq), expected.then_some(place as u64));
    assert_eq!(with.is_some(), expected);
}

/// Any text: nothing to compare with but the files that are known.
fn any_text(text: &[u8]) {
    if let Ok(report) = verify_chain_file(text, None) {
        let of_this = |other: &&Original| report.config == other.config && report.customer == other.customer;
        // A chain that is not one of these would need a hash that nobody can make up.
        let original = originals().iter().filter(of_this).max_by_key(|other| other.hashes.len());
        check_accepted(original.unwrap(), text, &report);
    }
}

/// What is accepted is the original, or what it was after an earlier event; to the byte, but for the status of events
/// that are open in it.
fn check_accepted(original: &Original, text: &[u8], report: &ChainFileReport) {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let (events, open) = (report.event_count as usize, report.open_count as usize);
    assert_eq!(lines.len(), events + 2);
    assert!(events <= original.hashes.len(), "{events} events");
    let closed = events - open;
    let (link, state) = &original.heads[closed];
    assert_eq!((&report.head, &report.state), (link, state), "after {closed} events");
    assert_eq!(lines[0], original.lines[0]);
    for index in 0..events {
        let (line, theirs) = (lines[index + 1], &original.lines[index + 1]);
        if index < closed {
            assert_eq!(line, theirs, "event {}", index + 1);
        } else {
            let hash = format!("\"hash\":\"{}\"}}\n", original.hashes[index]);
            assert!(line.ends_with(hash.as_bytes()), "event {}", index + 1);
        }
    }
}

/// Pieces of chain files, to be put in place of others.
const TOKENS: [&[u8]; 32] = [
    b"\"started\"",
    b"\"done\"",
    b"\"aborted\",\"reason\":1,\"reason_text\":\"\"",
    b"\"aborted\",\"reason\":2,\"reason_text\":\"\"",
    b"true",
    b"false",
    b"null",
    b"0",
    b"1",
    b"-1",
    b"1.0",
    b"1e3",
    b"18446744073709551615",
    b"18446744073709551616",
    b"\"0.00\"",
    b"\"-0.00\"",
    b"\"92233720368547758.07\"",
    b"\"92233720368547758.08\"",
    b"\"EUR\"",
    b"\"eur\"",
    b"\"GOLD\"",
    b"\"\"",
    b"\"deposit\"",
    b"\"withdrawal\"",
    b"\"unlock\"",
    b"\"7\"",
    b"\"00000010-0000-0000-0000-000000000000\"",
    b"[]",
    b"{}",
    b"\\u0041",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b" ",
];

/// One edit: a byte says which, the next which line, others where and what.
fn edit(input: &mut Input<'_>, lines: &mut Vec<Vec<u8>>) {
    let (what, which) = (input.byte(), input.byte());
    if lines.is_empty() {
        return;
    }
    let count = lines.len();
    let index = usize::from(which) % count;
    let length = lines[index].len();
    match what % 11 {
        0 => {
            let (at, to) = (input.number16(), input.byte());
            if length > 0 {
                lines[index][at % length] = to;
            }
        }
        1 => {
            lines.remove(index);
        }
        2 => {
            let line = lines[index].clone();
            lines.insert(input.below(count + 1), line);
        }
        3 => lines.swap(index, usize::from(input.byte()) % count),
        4 => lines[index].truncate(input.number16() % (length + 1)),
        5 | 6 => {
            // The value at a field, replaced.
            let (field, token) = (input.byte(), input.one_of(&TOKENS));
            let starts: Vec<usize> = (0..length).filter(|at| *at > 0 && lines[index][at - 1] == b':').collect();
            if let Some(&start) = starts.get(usize::from(field) % starts.len().max(1)) {
                let rest = &lines[index][start..];
                let value_bytes = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']')).unwrap_or(rest.len());
                lines[index].splice(start..start + value_bytes, token.iter().copied());
            }
        }
        7 => {
            let (at, count) = (input.number16() % (length + 1), usize::from(input.byte()));
            let text = input.take(count);
            lines[index].splice(at..at, text.iter().copied());
        }
        8 => {
            let (at, count) = (input.number16() % (length + 1), usize::from(input.byte()));
            lines[index].drain(at..(at + count).min(length));
        }
        9 => {
            // A line of another file.
            let originals = originals();
            let theirs = &originals[input.below(originals.len())].lines;
            lines[index].clone_from(&theirs[input.below(theirs.len())]);
        }
        _ => {
            // What the file said earlier: as many events, and the end line of a file with as many.
            let originals = originals();
            let theirs = &originals[input.below(originals.len())].lines;
            let keep = index.min(count - 1).max(1);
            lines.truncate(keep);
            lines.push(theirs[theirs.len() - 1].clone());
        }
    }
}
