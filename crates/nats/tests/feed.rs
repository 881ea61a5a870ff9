//! The feed where it is not as usual: streams that are missing, begun anew or others than they were, positions of
//! nowhere, and long parts without a record. Its order through faults is looked at in `faults`.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
#[path = "../../postgres/tests/following/mod.rs"]
mod following;

use bursar_engine::core::{AbortReason, Event, EventStatus, LedgerConfig, LinkedEvent, RailId, ReasonText, Record};
use bursar_engine::store::{Chains, FeedError, FeedItem, FeedPosition, StoreError};
use bursar_nats::{NatsChains, NatsOptions, prepare};
use bytes::Bytes;
use common::scene::{Raw, append, commit, customer, deposit, head};
use common::{Cluster, Sync, config};
use following::{all, check, read_on};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

/// One server, which does for what is looked at here.
fn alone() -> (Cluster, NatsOptions, LedgerConfig) {
    let cluster = Cluster::start(1, Sync::Default);
    let options = cluster.options();
    (cluster, options, config(8))
}

fn is_refused(chains: &NatsChains, position: FeedPosition) -> bool {
    let read = chains.feed().unwrap().read(position, 1, &mut Vec::new());
    matches!(read, Err(FeedError::NotAPosition | FeedError::BehindEnd))
}

/// A ledger from before there was a feed has none, and says so, until its stream is made; then all of it is there.
#[test]
fn a_ledger_without_the_stream_is_given_it() {
    let (cluster, options, config) = alone();
    let raw = Raw::new(&cluster);
    drop(NatsChains::create(&config, options.clone()).unwrap());
    assert!(raw.api(&format!("STREAM.DELETE.{}-feed", options.prefix), &json!({})).get("error").is_none());
    let old = NatsChains::open(options.clone()).unwrap();
    assert!(old.feed().is_none());
    for number in 0..60 {
        commit(&old, &config, customer(number % 7), number);
    }
    assert_eq!(prepare(options.clone()).unwrap().ledger, Some(config.clone()));
    let chains = NatsChains::open(options.clone()).unwrap();
    let items = all(&chains, 7);
    assert_eq!(items.len(), 60);
    assert_eq!(check(&chains, &items), Vec::<String>::new());
    // A second time nothing changes.
    prepare(options).unwrap();
    assert_eq!(all(&chains, 100), items);
}

/// The order is lost with its stream, and a new one begins. What was given out of the old one is not taken for a place in the
/// new one, also where the same record lies at the same place.
#[test]
fn positions_of_an_order_that_was_lost_are_refused() {
    let (cluster, options, config) = alone();
    let chains = NatsChains::create(&config, options.clone()).unwrap();
    let (feed, mut old, mut position) = (chains.feed().unwrap(), Vec::new(), chains.feed().unwrap().start());
    for number in 0..12 {
        commit(&chains, &config, customer(number % 5), number);
        position = read_on(feed, position, 10, &mut old).unwrap();
    }
    assert_eq!(old.len(), 12);
    drop(chains);
    let raw = Raw::new(&cluster);
    assert!(raw.api(&format!("STREAM.DELETE.{}-feed", options.prefix), &json!({})).get("error").is_none());
    prepare(options.clone()).unwrap();
    let chains = NatsChains::open(options).unwrap();
    let new = all(&chains, 100);
    assert_eq!(check(&chains, &new), Vec::<String>::new());
    let place = |item: &FeedItem| (item.position.at, item.position.passed, item.entry.linked.id());
    assert!(old.iter().any(|item| new.iter().any(|other| place(other) == place(item))), "no place is the same");
    for item in &old {
        assert!(is_refused(&chains, item.position), "{}", item.position);
    }
    for item in &new {
        assert!(!is_refused(&chains, item.position), "{}", item.position);
    }
}

/// The same while somebody follows: the new order has come further by then than the old one had. It is not gone on with.
#[test]
fn an_order_that_is_begun_anew_under_a_reader_is_noticed() {
    let (cluster, options, config) = alone();
    let chains = NatsChains::create(&config, options.clone()).unwrap();
    let (feed, mut items, mut position) = (chains.feed().unwrap(), Vec::new(), chains.feed().unwrap().start());
    for number in 0..5 {
        commit(&chains, &config, customer(number), number);
        position = read_on(feed, position, 10, &mut items).unwrap();
    }
    let raw = Raw::new(&cluster);
    assert!(raw.api(&format!("STREAM.DELETE.{}-feed", options.prefix), &json!({})).get("error").is_none());
    prepare(options.clone()).unwrap();
    let other = NatsChains::open(options).unwrap();
    let (mut theirs, mut place) = (Vec::new(), other.feed().unwrap().start());
    for number in 10..30 {
        commit(&other, &config, customer(number % 7), number);
        place = read_on(other.feed().unwrap(), place, 10, &mut theirs).unwrap();
    }
    assert!(place.at > position.at && theirs.len() == 25, "{place} with {} records", theirs.len());
    for _ in 0..2 {
        let read = feed.read(position, 10, &mut Vec::new());
        assert!(matches!(&read, Err(FeedError::Store(StoreError::Damaged(_)))), "{read:?}");
    }
}

/// Whoever asks for a place of nowhere is told so, behind an append; many such appends are no place where a reader is held
/// up, and none where it passes over something.
#[test]
fn empty_parts_of_the_order_are_passed_a_few_at_a_time() {
    let (_cluster, options, config) = alone();
    let chains = NatsChains::create(&config, options.clone()).unwrap();
    commit(&chains, &config, customer(1), 1);
    let first = all(&chains, 10).pop().unwrap().position;
    for _ in 0..40 {
        let nowhere = FeedPosition { at: first.at + 1_000, ..first };
        let read = chains.feed().unwrap().read(nowhere, 1, &mut Vec::new());
        assert!(matches!(read, Err(FeedError::BehindEnd)), "{read:?}");
    }
    commit(&chains, &config, customer(1), 2);
    let (mut position, mut positions, mut items) = (first, Vec::new(), Vec::new());
    while items.is_empty() {
        let next = chains.feed().unwrap().read(position, 10, &mut items).unwrap();
        assert_ne!(next, position, "the end, and the record behind it was not given");
        position = next;
        positions.push(position);
    }
    assert!(positions.len() >= 3, "{positions:?}");
    assert_eq!(items[0].entry.linked.event.transaction.unwrap().bits(), 2);
    // Each of these places is one for another store as well; and no other like it.
    let other = NatsChains::open(options).unwrap();
    for place in positions {
        assert!(!is_refused(&other, place), "{place}");
        assert!(is_refused(&other, FeedPosition { check: place.check ^ 1, ..place }), "{place}");
        assert!(is_refused(&other, FeedPosition { passed: place.passed + 1, ..place }), "{place}");
    }
    assert_eq!(other.feed().unwrap().latest().unwrap(), items[0].position);
}

/// Barriers by the ten thousand, more than one part of the order covers, and sources lie between what is to be read.
#[test]
fn what_lies_behind_many_barriers_is_found() {
    let (cluster, options, config) = alone();
    let options = NatsOptions { shard_count: 1, ..options };
    let chains = NatsChains::create(&config, options.clone()).unwrap();
    let raw = Raw::new(&cluster);
    let mut written = 0;
    for barriers in [0, 25_000, 3, 12_000] {
        raw.runtime.block_on(async {
            for _ in 0..barriers {
                raw.client.publish(format!("{}.sync.0", options.prefix), Bytes::new()).await.unwrap();
            }
            raw.client.flush().await.unwrap();
        });
        written += 1;
        commit(&chains, &config, customer(written), written);
    }
    let items = all(&chains, 10);
    assert_eq!(check(&chains, &items), Vec::<String>::new());
    assert_eq!(items.len(), 4);
    let places: Vec<u64> = items.iter().map(|item| item.position.at).collect();
    assert!(places[3] >= 4, "all was covered at once: {places:?}");
    let info = raw.api(&format!("STREAM.INFO.{}-chains-0", options.prefix), &json!({}));
    assert!(info["state"]["last_seq"].as_u64().unwrap() > 37_000);
}

/// A stream of chains that is another one than it was when its order was written (an older copy was put in its place, and
/// went on) is noticed, also where its messages lie at the very sequences of those that were covered.
#[test]
fn an_order_that_was_written_for_another_stream_is_noticed() {
    let (cluster, options, config) = alone();
    let options = NatsOptions { shard_count: 1, ..options };
    drop(NatsChains::create(&config, options.clone()).unwrap());
    let raw = Raw::new(&cluster);
    let stream = format!("{}-chains-0", options.prefix);
    let end = || raw.api(&format!("STREAM.INFO.{stream}"), &json!({}))["state"]["last_seq"].clone();
    let write = |first: u128, count: u128| {
        let chains = NatsChains::open(options.clone()).unwrap();
        for number in 0..count {
            commit(&chains, &config, customer(number), first + number);
        }
        chains
    };
    let chains = write(0, 5);
    let before = all(&chains, 10);
    let covered = end();
    drop(chains);
    let stored = raw.api(&format!("STREAM.INFO.{stream}"), &json!({}))["config"].clone();
    let ledger = raw.ask(&format!("$JS.API.DIRECT.GET.{stream}"), json!({ "seq": 1 }).to_string());
    assert!(raw.api(&format!("STREAM.DELETE.{stream}"), &json!({})).get("error").is_none());
    assert!(raw.api(&format!("STREAM.CREATE.{stream}"), &stored).get("error").is_none());
    raw.ask(&format!("{}.ledger", options.prefix), ledger);
    let is_noticed = |read: Result<FeedPosition, FeedError>| {
        assert!(matches!(&read, Err(FeedError::Store(StoreError::Damaged(_)))), "{read:?}");
    };
    let chains = write(100, 5);
    assert_eq!(end(), covered);
    for position in [chains.feed().unwrap().start(), before[4].position] {
        is_noticed(chains.feed().unwrap().read(position, 10, &mut Vec::new()));
    }
    // Nor does the order go on behind it.
    let chains = write(200, 1);
    is_noticed(chains.feed().unwrap().latest());
}

/// A reader that is at the end finds what this store has written before, whichever server it asks; and of others, the
/// mark tells.
#[test]
fn what_a_store_has_written_itself_is_shown_at_once() {
    let cluster = Cluster::start(3, Sync::Always);
    let (options, config) = (cluster.options(), config(8));
    let (one, two) = (NatsChains::create(&config, options.clone()).unwrap(), NatsChains::open(options).unwrap());
    let (mut items, mut others) = (Vec::new(), Vec::new());
    let (mut position, mut place) = (one.feed().unwrap().start(), two.feed().unwrap().start());
    for number in 0..120 {
        let before = two.feed().unwrap().newest_mark().unwrap();
        // What is begun and not closed yet is no record.
        let event = deposit(&config, &head(&one, &config, customer(number % 9)), customer(number % 9), number);
        append(&one, &[Record::Started(event.clone())]);
        position = read_on(one.feed().unwrap(), position, 3, &mut items).unwrap();
        assert_eq!(items.len() as u128, number);
        append(&one, &[Record::Done(event.reference())]);
        position = read_on(one.feed().unwrap(), position, 3, &mut items).unwrap();
        assert_eq!(items.len() as u128, number + 1);
        assert_eq!(one.feed().unwrap().latest().unwrap(), position);
        while two.feed().unwrap().newest_mark().unwrap() == before {}
        place = read_on(two.feed().unwrap(), place, 2, &mut others).unwrap();
    }
    while others.len() < items.len() {
        place = read_on(two.feed().unwrap(), place, 2, &mut others).unwrap();
    }
    assert_eq!(items, others);
    assert_eq!(check(&one, &items), Vec::<String>::new());
}

/// Two follow at once, and somebody writes in batches: who comes second with the next part of the order takes the other's.
#[test]
fn two_who_follow_at_once_see_one_order() {
    let (_cluster, options, config) = alone();
    let writer = NatsChains::create(&config, options.clone()).unwrap();
    let is_over = AtomicBool::new(false);
    let follow = || {
        let chains = NatsChains::open(options.clone()).unwrap();
        let (mut items, mut position) = (Vec::new(), chains.feed().unwrap().start());
        loop {
            // Looked at before the read: what was written before is read.
            let last = is_over.load(Ordering::Acquire);
            position = read_on(chains.feed().unwrap(), position, 7, &mut items).unwrap();
            if last {
                return items;
            }
        }
    };
    let followed = std::thread::scope(|scope| {
        let following = [scope.spawn(follow), scope.spawn(follow)];
        for batch in 0..60_u128 {
            let of = |number: u128| customer((batch + number * number) % 40);
            let of: BTreeSet<_> = (0..20).map(of).collect();
            let begun: Vec<_> = (0..)
                .zip(of)
                .map(|(number, of)| deposit(&config, &head(&writer, &config, of), of, batch * 100 + number))
                .collect();
            append(&writer, &begun.iter().cloned().map(Record::Started).collect::<Vec<_>>());
            append(&writer, &begun.iter().map(|event| Record::Done(event.reference())).collect::<Vec<_>>());
        }
        is_over.store(true, Ordering::Release);
        following.map(|following| following.join().unwrap())
    });
    assert!(followed[0] == followed[1], "two orders");
    assert_eq!(check(&writer, &followed[0]), Vec::<String>::new());
    assert_eq!(all(&writer, 100), followed[0]);
    let places: BTreeSet<u64> = followed[0].iter().map(|item| item.position.at).collect();
    assert!(places.len() > 10, "hardly anything was followed while it was written: {places:?}");
}

/// An event that waits for a rail is a record when it begins, while everybody else goes on, and another one when it is
/// closed, however that is. One that waits for nobody is none before it is closed.
#[test]
fn an_event_that_waits_for_a_rail_is_shown_when_it_begins_and_when_it_ends() {
    let (_cluster, options, config) = alone();
    let options = NatsOptions { shard_count: 1, ..options };
    let chains = NatsChains::create(&config, options.clone()).unwrap();
    let feed = chains.feed().unwrap();
    let (mut items, mut position) = (Vec::new(), feed.start());
    let begin = |number: u128, rail: Option<RailId>| {
        let of = customer(number);
        let LinkedEvent { event, .. } = deposit(&config, &head(&chains, &config, of), of, number);
        let linked = LinkedEvent::new(Event { rail, ..event }, &head(&chains, &config, of).link);
        append(&chains, &[Record::Started(linked.clone())]);
        linked
    };
    let mut expected = Vec::new();
    let endings = [
        EventStatus::Done,
        EventStatus::Aborted(AbortReason::TransactionConflict),
        EventStatus::DoneByHand(ReasonText::new("seen")),
    ];
    let mut waiting = Vec::new();
    for (number, status) in (0..).zip(endings) {
        let linked = begin(number, RailId::new(3));
        expected.push((linked.clone(), EventStatus::Started));
        position = read_on(feed, position, 10, &mut items).unwrap();
        assert_eq!(items.len(), expected.len(), "it has begun, and is not shown");
        waiting.push((linked, status));
    }
    // Others pass by; of these, only the end.
    for number in 10..30 {
        let linked = begin(number, None);
        position = read_on(feed, position, 10, &mut items).unwrap();
        assert_eq!(items.len(), expected.len(), "it waits for nobody, and is not over");
        append(&chains, &[Record::Done(linked.reference())]);
        expected.push((linked, EventStatus::Done));
        position = read_on(feed, position, 10, &mut items).unwrap();
        assert_eq!(items.len(), expected.len());
    }
    for (linked, status) in waiting {
        append(&chains, &[Record::closing(linked.reference(), &status).unwrap()]);
        expected.push((linked, status));
        position = read_on(feed, position, 10, &mut items).unwrap();
        assert_eq!(items.len(), expected.len(), "it is over, and that is not shown");
    }
    let shown = |items: &[FeedItem]| -> Vec<(LinkedEvent, EventStatus)> {
        items.iter().map(|item| (item.entry.linked.clone(), item.entry.status.clone())).collect()
    };
    assert_eq!(shown(&items), expected);
    assert_eq!(check(&chains, &items), Vec::<String>::new());
    // Who comes later sees the same, in the same places.
    assert_eq!(all(&NatsChains::open(options).unwrap(), 4), items);
}
