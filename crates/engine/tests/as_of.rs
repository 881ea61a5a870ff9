//! A customer as it was: after each event, and at each time, held against the chain followed from its beginning.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
mod support;

use bursar_engine::AsOf;
use bursar_engine::core::{EventStatus, Head};
use bursar_engine::store::ReadRange;
use bursar_engine::{Ledger, LedgerOptions};
use std::sync::Arc;
use support::{Bench, OPTIONS, small_ledger};

/// The ledger with refused, open and disputed events, under a ledger that reads it.
fn ledger() -> Ledger {
    let bench = Bench::open(small_ledger(400, OPTIONS), OPTIONS).unwrap();
    let store: Arc<_> = bench.store.clone();
    let config = store.config().clone();
    Ledger::with_stores(config, store.clone(), store, LedgerOptions::default()).unwrap()
}

#[test]
fn every_point_of_every_chain_is_as_following_it_says() {
    let ledger = ledger();
    let digest = ledger.config().digest();
    let (mut aborted, mut open, mut points) = (0, 0, 0);
    for listed in ledger.customers(None, usize::MAX).unwrap() {
        let chain = ledger.chain(listed.customer, ReadRange::ALL).unwrap();
        let mut head = Head::start(&digest, listed.customer);
        let mut heads = vec![None];
        for entry in &chain {
            head.take(entry.linked.clone(), &entry.status);
            heads.push(Some(head.clone()));
            aborted += usize::from(matches!(entry.status, EventStatus::Aborted(_)));
            open += usize::from(entry.status == EventStatus::Started);
        }
        assert_eq!(heads.last().unwrap().as_ref(), Some(&listed.head));
        for (seq, expected) in heads.iter().enumerate() {
            let found = ledger.head_as_of(listed.customer, AsOf::Seq(seq as u64)).unwrap();
            assert_eq!(found, *expected, "{} after {seq}", listed.customer);
            points += 1;
        }
        let beyond = ledger.head_as_of(listed.customer, AsOf::Seq(u64::MAX)).unwrap();
        assert_eq!(beyond.as_ref(), Some(&listed.head));
        // At each time at which something was, and on either side of it.
        let times =
            chain.iter().flat_map(|entry| [-1i64, 0, 1].map(|by| entry.linked.event.time_ms.saturating_add_signed(by)));
        for time_ms in times.chain([0, u64::MAX]) {
            let count = chain.iter().filter(|entry| entry.linked.event.time_ms <= time_ms).count();
            let found = ledger.head_as_of(listed.customer, AsOf::TimeMs(time_ms)).unwrap();
            assert_eq!(found, heads[count], "{} at {time_ms}", listed.customer);
        }
    }
    assert!(aborted > 0 && open > 0 && points > 300, "{aborted} {open} {points}");
    assert_eq!(ledger.head_as_of(support::customer(77_777), AsOf::Seq(1)).unwrap(), None);
}
