//! What is taken in for its accounts only comes to what a ledger comes to: the same accounts, counts and reports, and
//! the same words to the observer, in the same order.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_core::{
    Currencies, Currency, CustomerId, CustomerState, Decimals, DisputablePolicy, LedgerConfig, LockedPolicy, Policy,
    Rejection, RejectionInfo,
};
use bursar_engine::accounts_only::AccountsOnly;
use bursar_engine::csv::{Header, Position, RowError, Source};
use bursar_engine::ingest::{IngestError, IngestObserver, IngestOptions, IngestReport, ingest};
use bursar_engine::store::RowCounts;
use bursar_engine::{Ledger, LedgerOptions};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Writes down all that it hears but the progress.
#[derive(Debug, Default, PartialEq)]
struct Notes {
    heard: Vec<String>,
    /// Asks to stop from the beginning.
    stops: bool,
    /// Fails at this word.
    fails_at: Option<usize>,
}

impl Notes {
    fn note(&mut self, what: String) -> io::Result<()> {
        self.heard.push(what);
        if self.fails_at == Some(self.heard.len()) { Err(io::Error::other("full")) } else { Ok(()) }
    }
}

impl IngestObserver for Notes {
    fn opened(&mut self, header: &Header, start: Position) -> io::Result<()> {
        self.note(format!("opened {} {start:?}", header.column_count()))
    }

    fn unreadable(&mut self, text: &[u8], line: u64, error: &RowError) -> io::Result<()> {
        self.note(format!("{line} {text:?} {error:?}"))
    }

    fn rejected(&mut self, text: &[u8], line: u64, rejection: &Rejection) -> io::Result<()> {
        self.note(format!("{line} {text:?} {rejection:?}"))
    }

    fn rejected_earlier(&mut self, text: &[u8], line: u64, rejection: &'static RejectionInfo) -> io::Result<()> {
        self.note(format!("{line} {text:?} {} earlier", rejection.code))
    }

    fn progress(&mut self, _counts: &RowCounts) {}

    fn should_stop(&self) -> bool {
        self.stops
    }
}

type Accounts = Vec<(CustomerId, CustomerState)>;
type Taken = (Vec<Result<IngestReport, String>>, Notes, Accounts);

fn by_ledger(config: &LedgerConfig, texts: &[Vec<u8>], options: IngestOptions, mut notes: Notes) -> Taken {
    let ledger = Ledger::in_memory(config, LedgerOptions::default()).unwrap();
    let reports = each(texts, |source| ingest(&ledger, source, options, &mut notes));
    let heads = ledger.customers(None, usize::MAX).unwrap();
    (reports, notes, heads.into_iter().map(|listed| (listed.customer, listed.head.state)).collect())
}

fn by_accounts(config: &LedgerConfig, texts: &[Vec<u8>], options: IngestOptions, mut notes: Notes) -> Taken {
    let mut accounts = AccountsOnly::new(config.clone());
    let reports = each(texts, |source| accounts.ingest(source, options, &mut notes));
    let customers = accounts.customers().map(|(customer, state)| (customer, state.clone())).collect();
    (reports, notes, customers)
}

fn each(
    texts: &[Vec<u8>],
    mut take: impl FnMut(Source) -> Result<IngestReport, IngestError>,
) -> Vec<Result<IngestReport, String>> {
    let take_one = |text: &Vec<u8>| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        take(Source::open_as(file.path(), "rows".to_owned()).unwrap()).map_err(|error| error.to_string())
    };
    texts.iter().map(take_one).collect()
}

fn config(locked: LockedPolicy, disputable: DisputablePolicy, several: bool) -> LedgerConfig {
    let currency = |code, decimals| Currency::new(code, Decimals::new(decimals).unwrap()).unwrap();
    let named = || Currencies::named(vec![currency("EUR", 2), currency("JPY", 0)]).unwrap();
    let currencies = if several { named() } else { Currencies::default() };
    LedgerConfig { ledger: [7; 16], policy: Policy { locked, disputable }, currencies }
}

/// Rows about few customers and transactions, so that they meet; some cannot be read.
fn text(several: bool) -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        5 => Just("deposit"), 3 => Just("withdrawal"), 3 => Just("dispute"), 2 => Just("resolve"),
        2 => Just("chargeback"), 2 => Just("unlock"), 1 => Just("refund"),
    ];
    let customer = prop_oneof![8 => 0u128..5, 1 => Just(u128::MAX), 1 => (1u128 << 24) - 1..(1 << 24) + 2];
    let transaction = prop_oneof![8 => 0u128..40, 2 => (1u128 << 127)..(1 << 127) + 10, 1 => 1000u128..1200];
    let amount = prop_oneof![
        6 => (0u32..50).prop_map(|amount| amount.to_string()),
        1 => Just("922337203685477".to_owned()), 1 => Just("-3".to_owned()), 1 => Just("x".to_owned()),
        2 => Just(String::new()),
    ];
    let currency = prop_oneof![3 => Just("EUR"), 2 => Just("JPY"), 1 => Just(""), 1 => Just("XXX")];
    let row = (kind, customer, transaction, amount, currency);
    proptest::collection::vec(row, 0..300).prop_map(move |rows| {
        let mut text =
            String::from(if several { "type,client,tx,amount,currency\n" } else { "type,client,tx,amount\n" });
        for (kind, customer, transaction, amount, currency) in rows {
            let (customer, transaction) = (CustomerId::new(customer), CustomerId::new(transaction));
            write!(text, "{kind},{customer},").unwrap();
            match (kind, several) {
                ("unlock", true) => text.push_str(",,"),
                ("unlock", false) => text.push(','),
                ("dispute" | "resolve" | "chargeback", true) => write!(text, "{transaction},,").unwrap(),
                ("dispute" | "resolve" | "chargeback", false) => write!(text, "{transaction},").unwrap(),
                (_, true) => write!(text, "{transaction},{amount},{currency}").unwrap(),
                (_, false) => write!(text, "{transaction},{amount}").unwrap(),
            }
            text.push('\n');
        }
        text.into_bytes()
    })
}

fn policies() -> impl Strategy<Value = (LockedPolicy, DisputablePolicy)> {
    let locked = [LockedPolicy::Nothing, LockedPolicy::NoWithdrawals, LockedPolicy::Frozen];
    let disputable = [DisputablePolicy::Deposits, DisputablePolicy::DepositsAndWithdrawals];
    (proptest::sample::select(locked.to_vec()), proptest::sample::select(disputable.to_vec()))
}

fn case() -> impl Strategy<Value = (LedgerConfig, Vec<Vec<u8>>)> {
    (any::<bool>(), policies()).prop_flat_map(|(several, (locked, disputable))| {
        let texts = proptest::collection::vec(text(several), 1..4);
        texts.prop_map(move |texts| (config(locked, disputable, several), texts))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn accounts_alone_are_those_of_a_ledger((config, texts) in case(), fails_at in proptest::option::of(1usize..40)) {
        let options = IngestOptions::default();
        let notes = || Notes { fails_at, ..Notes::default() };
        let of_ledger = by_ledger(&config, &texts, options, notes());
        let of_accounts = by_accounts(&config, &texts, options, notes());
        // Where the observer fails, how far the rows behind were decided is a matter of batches.
        if of_ledger.0.iter().all(Result::is_ok) {
            prop_assert_eq!(&of_ledger, &of_accounts);
        } else {
            prop_assert_eq!((&of_ledger.0[0], &of_ledger.1.heard[..1]), (&of_accounts.0[0], &of_accounts.1.heard[..1]));
        }
    }

    #[test]
    fn what_cannot_be_read_stops_both((config, texts) in case()) {
        let options = IngestOptions { strict: true, ..IngestOptions::default() };
        let stop = |taken: Taken| (taken.0[0].clone(), taken.2);
        let of_ledger = stop(by_ledger(&config, &texts[..1], options, Notes::default()));
        let of_accounts = stop(by_accounts(&config, &texts[..1], options, Notes::default()));
        prop_assert_eq!(of_ledger, of_accounts);
    }
}

/// Several batches, ids in no order and of both forms, and the same source again.
#[test]
fn long_sources_come_to_the_same() {
    let mut text = String::from("type,client,tx,amount\n");
    let mut number = 1u64;
    for row in 0u64..60_000 {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (client, other) = (number >> 55, number >> 50 & 7);
        let id = if number & 1 << 40 == 0 { u128::from(row) } else { u128::from(number) << 60 | 1 << 125 };
        let id = CustomerId::new(id);
        match number >> 33 & 15 {
            0..9 => writeln!(text, "deposit,{client},{id},{}.{other}", number >> 58),
            9..12 => writeln!(text, "withdrawal,{client},{id},{other}"),
            12..14 => writeln!(text, "dispute,{client},{}", row.saturating_sub(other)),
            14 => writeln!(text, "chargeback,{client},{}", row.saturating_sub(other)),
            _ => writeln!(text, "unlock,{client}"),
        }
        .unwrap();
    }
    let other = b"type,client,tx,amount\ndispute,1,1\n".to_vec();
    let texts = [text.clone().into_bytes(), other, text.into_bytes()];
    for (policy, tell_earlier) in [(LockedPolicy::Nothing, true), (LockedPolicy::Frozen, false)] {
        let options = IngestOptions { tell_earlier, ..IngestOptions::default() };
        let config = config(policy, DisputablePolicy::DepositsAndWithdrawals, false);
        let of_ledger = by_ledger(&config, &texts, options, Notes::default());
        assert!(of_ledger.0[0].as_ref().unwrap().counts.applied > 10_000);
        assert!(of_ledger.0[2].as_ref().unwrap().already_in);
        let of_accounts = by_accounts(&config, &texts, options, Notes::default());
        assert!(of_ledger == of_accounts, "{:?} {:?}", of_ledger.0, of_accounts.0);
    }
}

#[test]
fn it_stops_when_asked_to() {
    let config = config(LockedPolicy::Nothing, DisputablePolicy::Deposits, false);
    let text = b"type,client,tx,amount\ndeposit,1,1,1\n".to_vec();
    let stops = || Notes { stops: true, ..Notes::default() };
    let of_ledger = by_ledger(&config, std::slice::from_ref(&text), IngestOptions::default(), stops());
    assert!(of_ledger.0[0].as_ref().unwrap().interrupted);
    assert_eq!(of_ledger, by_accounts(&config, &[text], IngestOptions::default(), stops()));
}
