//! The example programs are run, and say what they should.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
#[allow(dead_code)] // its `main`
#[path = "../examples/embed.rs"]
mod embed;
#[allow(dead_code)] // its `main`
#[path = "../examples/held_open.rs"]
mod held_open;
#[allow(dead_code)] // its `main`
#[path = "../examples/pair.rs"]
mod pair;

use common::directory;

fn lines(out: Vec<u8>) -> Vec<String> {
    String::from_utf8(out).unwrap().lines().map(ToOwned::to_owned).collect()
}

#[test]
fn embed_prints_the_account_and_its_receipt() {
    let directory = directory();
    let mut out = Vec::new();
    embed::run(directory.path(), &mut out).unwrap();
    let first = lines(out);
    assert_eq!(first.len(), 5, "{first:?}");
    for (seq, line) in (1..=3).zip(&first) {
        assert!(line.starts_with(&format!("done as event {seq}, receipt ")), "{line}");
    }
    // The deposit of 100 is held; 30.5 of it are spent already.
    assert_eq!(first[3], "customer 7: available -30.5000, held 100.0000");
    let receipt = first[2].rsplit(' ').next().unwrap();
    assert_eq!(first[4], format!("receipt for the whole chain: {receipt}"));
    let mut out = Vec::new();
    embed::run(directory.path(), &mut out).unwrap();
    let second = lines(out);
    let expected = ["was done before", "was done before", "refused: the transaction is in dispute already"];
    assert_eq!(second[..3], expected);
    assert_eq!(second[3..], first[3..]);
}

#[test]
fn the_embedding_example_is_short() {
    let source = include_str!("../examples/embed.rs");
    assert!(source.lines().count() < 40);
}

#[test]
fn held_open_shows_who_waits_and_who_does_not() {
    common::within_minutes(|| {
        let directory = directory();
        let mut out = Vec::new();
        held_open::run(directory.path(), &mut out).unwrap();
        let lines = lines(out);
        assert!(lines[0].starts_with("the bank was asked about event "), "{lines:?}");
        let expected = [
            "meanwhile: 10000 requests of others are durable, 0 of customer 1's 3",
            "customers with an open event: 1",
            "the bank answers",
            "customer 1's withdrawal is done, as event 2 of the chain",
            "customer 1's deposit is done, as event 3 of the chain",
            "customer 1's deposit is done, as event 4 of the chain",
        ];
        assert_eq!(lines[1..], expected);
    });
}

#[test]
fn pair_takes_the_same_deposits_twice_and_prints_what_both_cost() {
    let directory = directory();
    let mut out = Vec::new();
    pair::run(directory.path(), 2, 3, &mut out).unwrap();
    let lines = lines(out);
    assert_eq!(lines.len(), 1 + 2 + 1, "{lines:?}");
    let bytes: Vec<u64> = lines[3].split(' ').filter_map(|word| word.parse().ok()).collect();
    // One record for each event, and two.
    assert!(bytes.len() == 2 && bytes[0] > 40 && bytes[1] > bytes[0] + 20, "{}", lines[3]);
}
