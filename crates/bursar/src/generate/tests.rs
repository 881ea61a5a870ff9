//! What a plan promises, counted in its rows.

use super::*;
use crate::cli::{Cli, Command};
use clap::Parser;
use std::collections::{HashMap, HashSet};

fn plan(flags: &[&str]) -> Plan {
    let cli = Cli::try_parse_from(["bursar", "generate"].iter().chain(flags)).unwrap();
    let Command::Generate(args) = cli.command else { panic!("not generate") };
    Plan::check(&args).unwrap_or_else(|failure| panic!("{failure:?}"))
}

fn rows(flags: &[&str]) -> (Counts, Vec<Vec<String>>) {
    let mut out = Vec::new();
    let counts = write_rows(&plan(flags), &mut out, |_, _| ()).unwrap();
    let text = String::from_utf8(out).unwrap();
    let rows = text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect();
    (counts, rows)
}

#[test]
fn references_follow_the_life_of_a_deposit_of_their_client() {
    #[derive(PartialEq, Debug)]
    enum Life {
        Posted,
        Disputed,
        ChargedBack,
    }
    let flags = ["--rows", "20000", "--disputes", "12", "--resolves", "8", "--chargebacks", "3", "--repeats", "5"];
    for ids in ["rising", "random", "uuid"] {
        let (counts, rows) = rows(&[&flags[..], &["--ids", ids]].concat());
        let mut deposits: HashMap<&str, (&[String], Life)> = HashMap::new();
        let (mut repeats, mut disputed_again) = (0, 0);
        let mut resolved = HashSet::new();
        for row in &rows {
            let (kind, client, tx) = (row[0].as_str(), &row[1], row[2].as_str());
            match kind {
                "deposit" => match deposits.get(tx) {
                    Some((first, _)) => {
                        assert_eq!(*first, row.as_slice());
                        repeats += 1;
                    }
                    None => {
                        deposits.insert(tx, (row, Life::Posted));
                    }
                },
                "withdrawal" => assert!(!deposits.contains_key(tx)),
                _ => {
                    let (deposit, life) = deposits.get_mut(tx).expect("a reference to a deposit");
                    assert_eq!(deposit[1], *client);
                    let (before, after) = match kind {
                        "dispute" => (Life::Posted, Life::Disputed),
                        "resolve" => (Life::Disputed, Life::Posted),
                        "chargeback" => (Life::Disputed, Life::ChargedBack),
                        other => panic!("{other}"),
                    };
                    assert_eq!(*life, before, "{row:?}");
                    *life = after;
                    if kind == "resolve" {
                        resolved.insert(tx);
                    }
                    disputed_again += usize::from(kind == "dispute" && resolved.contains(tx));
                }
            }
        }
        assert_eq!(repeats, counts.of(Sort::Repeat));
        assert!(repeats > 900 && disputed_again > 50, "{repeats} {disputed_again}");
    }
}

#[test]
fn shares_are_met_and_counted() {
    let flags = ["--rows", "100000", "--withdrawals", "20", "--disputes", "2.5", "--resolves", "1", "--repeats", "3"];
    let (counts, rows) = rows(&flags);
    let of_kind = |kind: &str| rows.iter().filter(|row| row[0] == kind).count() as u64;
    assert_eq!(of_kind("deposit"), counts.of(Sort::Deposit) + counts.of(Sort::Repeat));
    assert_eq!(of_kind("withdrawal"), counts.of(Sort::Withdrawal));
    assert_eq!(of_kind("dispute"), counts.of(Sort::Dispute));
    assert_eq!(Sort::ALL.iter().map(|&sort| counts.of(sort)).sum::<u64>(), 100_000);
    let near = |sort, expected: u64| {
        let got = counts.of(sort);
        assert!(got.abs_diff(expected) < expected / 10, "{sort:?}: {got}");
    };
    near(Sort::Withdrawal, 20_000);
    near(Sort::Dispute, 2_500);
    near(Sort::Resolve, 1_000);
    near(Sort::Repeat, 3_000);
}

#[test]
fn the_hottest_clients_get_their_share_at_every_level() {
    let (_, rows) = rows(&["--rows", "100000", "--clients", "10000", "--skew", "50", "--withdrawals", "0"]);
    let below = |end: u64| rows.iter().filter(|row| row[1].parse::<u64>().unwrap() <= end).count();
    assert!(below(100).abs_diff(50_000) < 1_000, "{}", below(100));
    assert!(below(1).abs_diff(25_000) < 1_000, "{}", below(1));
    assert_eq!(below(10_000), 100_000);
    let (_, even) = self::rows(&["--rows", "100000", "--clients", "100"]);
    let of_first = even.iter().filter(|row| row[1] == "1").count();
    assert!(of_first.abs_diff(1_000) < 200, "{of_first}");
}

#[test]
fn ids_of_new_transactions_never_repeat() {
    for ids in ["rising", "random", "uuid"] {
        let (_, rows) =
            rows(&["--rows", "50000", "--disputes", "0", "--resolves", "0", "--chargebacks", "0", "--ids", ids]);
        let distinct: HashSet<&str> = rows.iter().map(|row| row[2].as_str()).collect();
        assert_eq!(distinct.len(), rows.len(), "{ids}");
        for id in distinct.into_iter().take(100) {
            bursar_core::TransactionId::parse(id.as_bytes()).unwrap();
        }
    }
}

#[test]
fn amounts_stay_in_range_with_the_decimals_of_their_currency() {
    let (_, rows) =
        rows(&["--rows", "5000", "--amounts", "2", "--currency", "EUR", "--currency", "JPY:0", "--decimals", "1"]);
    for row in rows.iter().filter(|row| row[0] == "deposit") {
        let decimals = bursar_core::Decimals::new(u8::from(row[4] == "EUR")).unwrap();
        let amount = Amount::parse(row[3].as_bytes(), decimals).unwrap();
        assert!(amount.is_positive() && amount <= Amount::parse(b"2", decimals).unwrap(), "{row:?}");
        assert_eq!(amount.display(decimals).to_string(), row[3]);
    }
}

#[test]
fn bad_rows_are_of_every_sort() {
    let mut out = Vec::new();
    let plan = plan(&["--rows", "3000", "--bad", "50", "--clients", "5"]);
    let counts = write_rows(&plan, &mut out, |_, _| ()).unwrap();
    assert!(counts.of(Sort::Bad).abs_diff(1_500) < 150);
    let lines: Vec<&[u8]> = out.split(|&byte| byte == b'\n').collect();
    let count_of = |test: &dyn Fn(&[u8]) -> bool| lines.iter().filter(|line| test(line)).count();
    let has = |line: &[u8], part: &str| String::from_utf8_lossy(line).contains(part);
    let sorts: [(&str, usize); 6] = [
        (
            "bad amount",
            count_of(&|line| [",abc", ",1e5", ",12.", ",NaN"].iter().any(|end| line.ends_with(end.as_bytes()))),
        ),
        ("unknown kind", count_of(&|line| line.starts_with(b"transfer,"))),
        ("missing field", count_of(&|line| line.split(|&byte| byte == b',').count() == 2)),
        ("not UTF-8", count_of(&|line| std::str::from_utf8(line).is_err())),
        ("negative", count_of(&|line| has(line, ",-"))),
        ("unknown transaction", count_of(&|line| has(line, ",92233720368547"))),
    ];
    for (name, count) in sorts {
        assert!(count.abs_diff(214) < 60, "{name}: {count}");
    }
}

#[test]
fn shares_that_cannot_be_are_refused() {
    let table: &[(&[&str], &str)] = &[
        (&["--withdrawals", "101"], "--withdrawals"),
        (&["--withdrawals", "99.9", "--disputes", "1"], "--disputes"),
        (&["--withdrawals", "0.0001"], "--withdrawals"),
        (&["--withdrawals=-1"], "--withdrawals"),
        (&["--disputes", "1", "--resolves", "2"], "--disputes"),
        (&["--clients", "0"], "--clients"),
        (&["--amounts", "0"], "--amounts"),
        (&["--amounts", "0.5", "--decimals", "0"], "--amounts"),
        (&["--decimals", "10"], "--decimals"),
        (&["--dispute-window", "0"], "--dispute-window"),
        (&["--dispute-window", "100_000_000"], "--dispute-window"),
        (&["--currency", "EUR", "--currency", "eur"], "--currency"),
    ];
    for (flags, named) in table {
        let cli = Cli::try_parse_from(["bursar", "generate"].iter().chain(*flags)).unwrap();
        let Command::Generate(args) = cli.command else { panic!("not generate") };
        let failure = format!("{:?}", Plan::check(&args).unwrap_err());
        assert!(failure.contains(&format!("\"{named} cannot be")), "{flags:?}: {failure}");
    }
}
