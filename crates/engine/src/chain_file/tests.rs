//! A chain file made by a ledger, and every way to change it.

use super::*;
use crate::store::{ChainEntry, MemoryStore};
use crate::{LedgerOptions, Rail, RailReply};
use bursar_core::commit::{RailAnswer, RailCall, Routes};
use bursar_core::{
    AbortReason, Action, Amount, Currencies, Currency, CurrencyIndex, Decimals, DisputablePolicy, Movement, Policy,
    RailId, Request,
};
use std::sync::Arc;

/// Refuses the first call, agrees to the second, and never answers the others.
#[derive(Debug, Default)]
struct Moody(std::sync::Mutex<(u32, Vec<RailReply>)>);

impl Rail for Moody {
    fn call(&self, _call: RailCall, reply: RailReply) {
        let mut state = self.0.lock().unwrap();
        state.0 += 1;
        match state.0 {
            1 => reply.answer(RailAnswer::Refused(AbortReason::from_code(1, "no \"such\"\\ Konto — nö\n").unwrap())),
            2 => reply.answer(RailAnswer::Done),
            _ => state.1.push(reply),
        }
    }
}

fn movement(deposit: bool, transaction: u128, steps: i64, currency: u8) -> Request {
    let currency = CurrencyIndex(currency);
    let movement =
        Movement { transaction: TransactionId::new(transaction), amount: Amount::from_steps(steps), currency };
    let action = if deposit { Action::Deposit(movement) } else { Action::Withdrawal(movement) };
    Request { customer: CustomerId::new(7), action }
}

fn ledger() -> Ledger {
    let currency = |code, decimals| Currency::new(code, Decimals::new(decimals).unwrap()).unwrap();
    let currencies = Currencies::named(vec![currency("EUR", 2), currency("GOLD", 9)]).unwrap();
    let policy = Policy { disputable: DisputablePolicy::DepositsAndWithdrawals, ..Policy::default() };
    let config = LedgerConfig { ledger: [0xa1; 16], policy, currencies };
    let routes = Routes { deposit: None, withdrawal: RailId::new(3) };
    let options = LedgerOptions { routes, ..LedgerOptions::default() };
    let options = options.with_rail(RailId::new(3).unwrap(), Arc::new(Moody::default()));
    let store = Arc::new(MemoryStore::new(&config));
    let ledger = Ledger::with_stores(config, store.clone(), store, options).unwrap();
    let customer = CustomerId::new(7);
    let transaction = TransactionId::new;
    let requests = [
        movement(true, 1, 5000, 0),
        movement(true, 1 << 90, 7_000_000_123, 1),
        movement(false, 2, 100, 0),
        movement(false, 3, 200, 0),
        Request::dispute(customer, transaction(3)),
        Request::dispute(customer, transaction(1)),
        Request::chargeback(customer, transaction(1)),
        Request::unlock(customer),
    ];
    for request in requests {
        ledger.submit(request).unwrap();
    }
    ledger.submit_then(vec![movement(false, 9, 1, 1)], |_| ()).unwrap();
    while ledger.open_events().unwrap().is_empty() {
        std::thread::yield_now();
    }
    ledger
}

fn exported() -> (Vec<u8>, Exported) {
    let mut out = Vec::new();
    let exported = export_chain(&ledger(), CustomerId::new(7), &mut out).unwrap();
    (out, exported)
}

fn code(bytes: &[u8]) -> &'static str {
    verify_chain_file(bytes, None).map_or_else(|error| error.fault.code(), |_| "sound")
}

#[test]
fn a_chain_proves_itself() {
    let ledger = ledger();
    let mut out = Vec::new();
    let customer = CustomerId::new(7);
    let exported = export_chain(&ledger, customer, &mut out).unwrap();
    let head = ledger.customer(customer).unwrap().unwrap();
    let report = verify_chain_file(&*out, Some(head.link)).unwrap();
    assert_eq!((report.event_count, report.open_count, exported.event_count), (9, 1, 9));
    assert_eq!((report.head, exported.head, &report.state), (head.link, head.link, &head.state));
    assert_eq!((&report.config, report.customer, report.receipt_seq), (ledger.config(), customer, Some(8)));
    let chain: Vec<ChainEntry> = ledger.chain(customer, ReadRange::ALL).unwrap();
    let earlier = verify_chain_file(&*out, Some(chain[4].linked.hash)).unwrap();
    assert_eq!(earlier.receipt_seq, Some(5));
    let other = verify_chain_file(&*out, Some(Hash([1; 32]))).unwrap_err();
    assert_eq!(other.fault.code(), "other_receipt");
    assert!(matches!(
        export_chain(&ledger, CustomerId::new(8), std::io::sink()),
        Err(ExportError::UnknownCustomer { .. })
    ));
}

#[test]
fn no_byte_can_be_changed() {
    let (out, _) = exported();
    for at in 0..out.len() {
        for change in [|b: u8| b ^ 1, |b: u8| b ^ 0x20, |b: u8| b ^ 0x80, |_| b' ', |_| b'0', |_| b'9'] {
            let mut edited = out.clone();
            edited[at] = change(edited[at]);
            if edited[at] != out[at] {
                assert_ne!(code(&edited), "sound", "byte {at}: {:?}", edited[at] as char);
            }
        }
        let mut shorter = out.clone();
        shorter.remove(at);
        assert_ne!(code(&shorter), "sound", "byte {at} removed");
        assert_ne!(code(&out[..at]), "sound", "cut at {at}");
        let mut longer = out.clone();
        longer.insert(at, b' ');
        assert_ne!(code(&longer), "sound", "a space at {at}");
    }
}

#[test]
fn no_line_can_be_left_out_doubled_or_moved() {
    let (out, _) = exported();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for index in 0..lines.len() {
        let mut left_out = lines.clone();
        left_out.remove(index);
        assert_ne!(code(left_out.concat().as_bytes()), "sound", "line {index} left out");
        let mut doubled = lines.clone();
        doubled.insert(index, lines[index]);
        assert_ne!(code(doubled.concat().as_bytes()), "sound", "line {index} doubled");
        let mut moved = lines.clone();
        moved.swap(index, (index + 1) % lines.len());
        assert_ne!(code(moved.concat().as_bytes()), "sound", "line {index} moved");
    }
    // Leaving out the newest events is no fault of the chain; the end line, or a receipt, tells.
    let mut shortened = lines.clone();
    shortened.drain(8..10);
    assert_eq!(code(shortened.concat().as_bytes()), "wrong_end");
}

#[test]
fn errors_name_line_column_and_field() {
    let (out, _) = exported();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let table = [
        (1, "\"bursar-chain\"", "\"bursar-chair\"", "not_a_chain_file", None),
        (1, "\"version\":1", "\"version\":2", "unknown_version", Some("version")),
        (1, "\"nothing\"", "\"frozen\"", "wrong_hash", Some("hash")),
        (1, "\"decimals\":2", "\"decimals\":3", "not_canonical", None),
        (2, "\"amount\":\"50.00\"", "\"amount\":\"50.01\"", "wrong_hash", Some("hash")),
        (2, "\"amount\":\"50.00\"", "\"amount\":50.00", "bad_value", Some("amount")),
        (2, "\"amount\":\"50.00\"", "\"amount\":\"50.0\"", "not_canonical", None),
        (2, "\"amount\":\"50.00\"", "\"amount\":\"50.001\"", "bad_value", Some("amount")),
        (2, "\"seq\":1", "\"seq\":1.0", "bad_value", Some("seq")),
        (2, "\"seq\":1", "\"seq\":2", "wrong_seq", Some("seq")),
        (3, "\"currency\":\"GOLD\"", "\"currency\":\"LEAD\"", "bad_value", Some("currency")),
        (4, "\"aborted\"", "\"done\"", "not_canonical", None),
        (4, "\"reason\":1", "\"reason\":3", "wrong_hash", Some("hash")),
        (4, "\"transaction_kind\"", "\"transaction_kin\"", "missing_field", None),
        (10, "\"started\"", "\"done\"", "wrong_end", None),
        (11, "\"open\":1", "\"open\":0", "wrong_end", None),
    ];
    for (number, from, to, expected, field) in table {
        let mut edited: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        assert!(edited[number - 1].contains(from), "{from}: {}", edited[number - 1]);
        edited[number - 1] = edited[number - 1].replacen(from, to, 1);
        let error = verify_chain_file(edited.concat().as_bytes(), None).unwrap_err();
        assert_eq!((error.fault.code(), error.field), (expected, field), "{from} to {to}: {error}");
        assert!(error.line >= number as u64 && error.column >= 1);
        assert!(error.to_string().starts_with(&format!("line {}, column {}", error.line, error.column)));
    }
    // The JSON parser counts the columns of an empty line from 0.
    for text in ["\n", "{\n", "x\n"] {
        let error = verify_chain_file(text.as_bytes(), None).unwrap_err();
        assert!(error.fault.code() == "not_json" && error.line == 1 && error.column >= 1, "{text:?}: {error}");
    }
    let huge = format!("{}{}", lines[0], "x".repeat(1 << 17));
    assert_eq!(code(huge.as_bytes()), "line_too_long");
}
