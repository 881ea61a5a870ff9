//! How many requests a key may make: what one too many hears, and that a batch waits instead.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_server::Limits;
use bursar_server::keys::{Key, KeySet, Role};
use common::{TestServer, deposit, memory_ledger, withdrawal};

/// A service with this rate, and two keys.
fn limited(rate: &str) -> (TestServer, [String; 2]) {
    let mut set = KeySet::default();
    let keys = ["one", "other"].map(|name| {
        let key = Key::generate().unwrap();
        set.add(key.entry(name, Role::Submit, String::new()));
        key.reveal()
    });
    let limits = Limits { rate_per_key: Some(rate.parse().unwrap()), ..Limits::default() };
    (TestServer::of(memory_ledger(), Some(set), limits), keys)
}

#[test]
fn one_too_many_is_told_when_to_come_back_and_nothing_is_decided() {
    // No token comes back while the test runs.
    let (server, [one, other]) = limited("1/s:3");
    let mut client = server.client().with_key(&one);
    assert_eq!(client.submit(&deposit(1, 1, "5")).status, 200);
    // A refusal of money costs a token as well, and is none of this.
    assert_eq!(client.submit(&withdrawal(1, 2, "9")).problem(), (422, "insufficient_funds".to_owned()));
    assert_eq!(client.get("/v1/customers/1").status, 200);
    let mut refused = Vec::new();
    for id in 10..60 {
        // A body that was not read ends its connection.
        let answer = server.client().with_key(&one).submit(&deposit(1, id, "1"));
        if answer.status != 200 {
            assert_eq!(answer.problem(), (429, "rate_limited".to_owned()));
            let seconds: u64 = answer.headers["retry-after"].parse().unwrap();
            assert!((1..=2).contains(&seconds), "{seconds}");
            refused.push(id);
        }
    }
    assert!(refused.len() > 20, "{refused:?}");
    // Others are not held up, and nothing of what was refused took effect.
    let mut client = server.client().with_key(&other);
    assert_eq!(client.get(&format!("/v1/transactions/{}", refused[0])).status, 404);
    // What needs no key costs nothing.
    for _ in 0..20 {
        assert_eq!(server.get("/livez").status, 200);
    }
}

#[test]
fn a_batch_goes_at_the_rate_of_its_key() {
    let (server, [one, other]) = limited("2000/s:100");
    let begun = std::time::Instant::now();
    let rows: String = (1..=4_000).map(|id| deposit(id % 7, id, "1") + "\n").collect();
    let lines = server.client().with_key(&one).post("/v1/batches", "application/x-ndjson", &rows).lines();
    assert_eq!(lines.iter().filter(|line| line["outcome"] == "applied").count(), 4_000);
    // Three groups of 1,024 rows were paid for before the fourth was handed in: that the machine is slow adds to it.
    assert!(begun.elapsed().as_millis() >= 1_400, "{:?}", begun.elapsed());
    assert_eq!(server.client().with_key(&other).get("/v1/ledger").status, 200);
}

#[test]
fn the_rows_of_a_batch_are_a_debt_that_the_next_call_waits_for() {
    // A minute and a half of it.
    let (server, [one, other]) = limited("1/s:1");
    let rows: String = (1..=90).map(|id| deposit(id % 7, id, "1") + "\n").collect();
    let lines = server.client().with_key(&one).post("/v1/batches", "application/x-ndjson", &rows).lines();
    assert_eq!(lines.iter().filter(|line| line["outcome"] == "applied").count(), 90);
    let answer = server.client().with_key(&one).get("/v1/ledger");
    assert_eq!(answer.problem(), (429, "rate_limited".to_owned()));
    assert_eq!(server.client().with_key(&other).get("/v1/ledger").status, 200);
}
