//! Open disputes: those of a customer, and all there are, page by page, against what transactions say of themselves.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use common::{TestServer, about, deposit};
use serde_json::Value;
use std::collections::BTreeSet;

/// Every item of a list, so many at a time; how many pages there were.
fn all(server: &TestServer, path: &str, limit: usize) -> (Vec<Value>, usize) {
    let (mut items, mut pages, mut query) = (Vec::new(), 0, format!("limit={limit}"));
    loop {
        let page = server.get(&format!("{path}?{query}")).json();
        let found = page["items"].as_array().unwrap();
        assert!(found.len() <= limit);
        items.extend(found.iter().cloned());
        pages += 1;
        let Some(next) = page["next"].as_str() else { return (items, pages) };
        query = format!("limit={limit}&cursor={next}");
    }
}

fn transactions(items: &[Value]) -> Vec<u64> {
    items.iter().map(|item| item["transaction"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn exactly_what_is_disputed_is_listed() {
    let server = TestServer::new();
    let mut client = server.client();
    for id in 1..=60 {
        assert_eq!(client.submit(&deposit(id % 7, id, "1")).status, 200);
    }
    for id in (2..=60).step_by(3) {
        assert_eq!(client.submit(&about("dispute", id % 7, id)).status, 200);
    }
    // Some are resolved, some of those disputed again, and one is charged back.
    for id in [2, 8, 14, 20, 41] {
        assert_eq!(client.submit(&about("resolve", id % 7, id)).status, 200);
    }
    for id in [8, 20] {
        assert_eq!(client.submit(&about("dispute", id % 7, id)).status, 200);
    }
    assert_eq!(client.submit(&about("chargeback", 5, 5)).status, 200);
    let disputed: BTreeSet<u64> = (1..=60)
        .filter(|id| client.get(&format!("/v1/transactions/{id}")).json()["current"]["state"] == "disputed")
        .collect();
    assert_eq!(disputed.len(), 16);
    for limit in [1, 2, 5, 100] {
        let (items, pages) = all(&server, "/v1/disputes", limit);
        assert_eq!(items.len(), disputed.len(), "none twice");
        assert_eq!(transactions(&items).into_iter().collect::<BTreeSet<_>>(), disputed, "{limit}");
        assert!(pages >= disputed.len().div_ceil(limit));
        for customer in (0..7).map(|customer: u8| customer.to_string()) {
            let (own, _) = all(&server, &format!("/v1/customers/{customer}/disputes"), limit);
            let expected: Vec<&Value> = items.iter().filter(|item| item["customer"] == customer).collect();
            assert_eq!(own.iter().collect::<Vec<_>>(), expected);
            let seqs: Vec<u64> = own.iter().map(|item| item["seq"].as_u64().unwrap()).collect();
            assert!(seqs.is_sorted_by(|a, b| a > b), "{seqs:?}");
        }
    }
    let first = server.get("/v1/disputes?limit=1").json()["next"].as_str().unwrap().to_owned();
    let own = server.get("/v1/customers/1/disputes?limit=1").json()["next"].as_str().unwrap().to_owned();
    for path in ["/v1/customers/1/disputes", "/v1/customers"] {
        assert_eq!(server.get(&format!("{path}?cursor={first}")).problem().1, "bad_cursor");
    }
    for path in ["/v1/customers/2/disputes", "/v1/disputes", "/v1/pending"] {
        assert_eq!(server.get(&format!("{path}?cursor={own}")).problem().1, "bad_cursor");
    }
    assert_eq!(server.get("/v1/customers/99/disputes").problem(), (404, "unknown_customer".to_owned()));
}

/// A dispute deep in a long chain is found, in pages that each look at a bounded part; what is disputed again meanwhile is
/// not lost.
#[test]
fn a_dispute_far_back_is_found_and_none_is_lost_meanwhile() {
    let server = TestServer::new();
    let mut rows = deposit(1, 1, "5") + "\n" + &deposit(1, 2, "5") + "\n";
    rows += &(about("dispute", 1, 1) + "\n" + &about("dispute", 1, 2) + "\n");
    rows.extend((3..10_000).map(|id| deposit(1, id, "1") + "\n"));
    assert_eq!(server.client().post("/v1/batches?outcomes=not_applied", "application/x-ndjson", rows).status, 200);
    let (items, pages) = all(&server, "/v1/disputes", 100);
    assert_eq!(transactions(&items), [2, 1]);
    assert!(pages >= 3, "{pages}");
    let first = server.get("/v1/customers/1/disputes").json();
    assert!(first["items"].as_array().unwrap().is_empty());
    server.applied(&about("resolve", 1, 2));
    server.applied(&about("dispute", 1, 2));
    let mut found = Vec::new();
    let mut next = first["next"].as_str().map(str::to_owned);
    while let Some(cursor) = next {
        let page = server.get(&format!("/v1/customers/1/disputes?cursor={cursor}")).json();
        found.extend(page["items"].as_array().unwrap().iter().cloned());
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(transactions(&found), [2, 1]);
}
