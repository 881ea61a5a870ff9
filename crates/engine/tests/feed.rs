//! The feed: every durable record once, in one order, from any position on; also across openings.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
mod support;

use bursar_engine::core::commit::{RailAnswer, RailCall, Routes};
use bursar_engine::core::{AbortReason, CustomerId, EventId, EventStatus, RailId};
use bursar_engine::embedded::EmbeddedOptions;
use bursar_engine::store::{Chains, Feed, FeedError, FeedItem, FeedPosition, MemoryStore, ReadRange};
use bursar_engine::{Ledger, LedgerOptions, Rail, RailReply};
use common::{Choices, config, deposit, directory, dispute, withdrawal, within_minutes};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use support::{Bench, LEDGER, OPTIONS, small_ledger};

/// Agrees to the even transactions and refuses the odd ones, when it is told to.
#[derive(Debug, Default)]
struct SlowBank(Mutex<Vec<(RailCall, RailReply)>>);

impl Rail for SlowBank {
    fn call(&self, call: RailCall, reply: RailReply) {
        self.0.lock().unwrap().push((call, reply));
    }
}

impl SlowBank {
    fn answer_all(&self) -> usize {
        let calls = std::mem::take(&mut *self.0.lock().unwrap());
        let count = calls.len();
        for (call, reply) in calls {
            let is_even = call.event.event.transaction.unwrap().bits().is_multiple_of(2);
            let refused = RailAnswer::Refused(AbortReason::from_code(1, "no").unwrap());
            reply.answer(if is_even { RailAnswer::Done } else { refused });
        }
        count
    }
}

fn options(bank: &Arc<SlowBank>, segment_bytes: u64) -> LedgerOptions {
    let rail = RailId::new(1).unwrap();
    let embedded = EmbeddedOptions { segment_bytes, memtable_entries_max: 64, heads_max: 16, background: false };
    let routes = Routes { withdrawal: Some(rail), ..Routes::default() };
    LedgerOptions { embedded, routes, ..LedgerOptions::default() }.with_rail(rail, bank.clone())
}

/// Deposits, disputes and withdrawals that wait for the bank, from a seed.
fn fill(ledger: &Ledger, bank: &SlowBank, from: u128, batch_count: u128) {
    let mut choices = Choices::new(from as u64);
    for batch in from..from + batch_count {
        let mut requests = Vec::new();
        for n in 0..=u128::from(choices.below(9)) {
            requests.push(deposit(u128::from(choices.below(7)), batch * 100 + n, 10));
            requests.push(dispute(3, batch * 100 + n));
        }
        ledger.submit_batch(requests).unwrap();
        let withdrawal = withdrawal(u128::from(choices.below(4)), batch * 100 + 50 + u128::from(choices.below(2)), 1);
        let asked = Arc::new(AtomicU64::new(0));
        let told = asked.clone();
        ledger.submit_then(vec![withdrawal], move |_| told.store(1, Ordering::SeqCst)).unwrap();
        while asked.load(Ordering::SeqCst) == 0 {
            bank.answer_all();
            std::thread::yield_now();
        }
    }
}

/// The whole feed, so many records at once.
fn all(feed: &dyn Feed, limit: usize) -> Vec<FeedItem> {
    let (mut items, mut position) = (Vec::new(), feed.start());
    loop {
        let before = items.len();
        let next = feed.read(position, limit, &mut items).unwrap();
        assert!(items.len() - before <= limit);
        if next == position {
            return items;
        }
        position = next;
    }
}

fn from_ledger(ledger: &Ledger, limit: usize) -> Vec<FeedItem> {
    let (mut items, mut position) = (Vec::new(), ledger.feed_start().unwrap());
    loop {
        let page = ledger.feed_after(position, limit).unwrap();
        assert!(page.items.len() <= limit);
        items.extend(page.items);
        if page.position == position {
            return items;
        }
        position = page.position;
    }
}

/// What is wrong with a feed, held against the chains.
fn check(items: &[FeedItem], ledger: &Ledger) {
    let mut ends: BTreeMap<EventId, &FeedItem> = BTreeMap::new();
    let mut starts: BTreeMap<EventId, &FeedItem> = BTreeMap::new();
    let mut newest: BTreeMap<CustomerId, u64> = BTreeMap::new();
    for item in items {
        let event = &item.entry.linked.event;
        let id = item.entry.linked.id();
        if item.entry.status == EventStatus::Started {
            assert!(!ends.contains_key(&id), "started after its end");
            assert!(starts.insert(id, item).is_none(), "started twice");
        } else {
            assert!(ends.insert(id, item).is_none(), "ended twice");
            let before = newest.insert(event.customer, event.seq).unwrap_or(0);
            assert_eq!(event.seq, before + 1, "the order of {}", event.customer);
        }
    }
    let mut chain_ends = 0;
    for listed in ledger.customers(None, usize::MAX).unwrap() {
        for entry in ledger.chain(listed.customer, ReadRange::ALL).unwrap() {
            let id = entry.linked.id();
            let waited = entry.linked.event.rail.is_some();
            assert_eq!(starts.contains_key(&id), waited, "{entry:?}");
            match ends.get(&id) {
                Some(item) => assert_eq!(item.entry, entry),
                None => assert_eq!(entry.status, EventStatus::Started),
            }
            chain_ends += usize::from(entry.status != EventStatus::Started);
        }
    }
    assert_eq!(ends.len(), chain_ends);
}

#[test]
fn every_record_is_there_once_whatever_the_page_in_both_stores() {
    let directory = directory();
    let banks = [0, 1].map(|_| Arc::new(SlowBank::default()));
    let embedded = Ledger::create(directory.path(), &config(), options(&banks[0], 4_096)).unwrap();
    let memory = Ledger::in_memory(&config(), options(&banks[1], 4_096)).unwrap();
    for (ledger, bank) in [(embedded, &banks[0]), (memory, &banks[1])] {
        assert!(from_ledger(&ledger, 5).is_empty());
        assert_eq!(ledger.feed_latest().unwrap(), ledger.feed_start().unwrap());
        fill(&ledger, bank, 1, 25);
        let items = from_ledger(&ledger, usize::MAX);
        check(&items, &ledger);
        let kinds = |status: fn(&EventStatus) -> bool| items.iter().filter(|item| status(&item.entry.status)).count();
        assert!(kinds(|status| *status == EventStatus::Started) > 10);
        assert!(kinds(|status| matches!(status, EventStatus::Aborted(_))) > 3);
        for limit in [1, 2, 3, 7, 100] {
            assert_eq!(from_ledger(&ledger, limit), items, "{limit} at once");
        }
        for (index, item) in items.iter().enumerate() {
            let page = ledger.feed_after(item.position, 2).unwrap();
            assert_eq!(page.items, items[index + 1..items.len().min(index + 3)]);
        }
        let latest = ledger.feed_latest().unwrap();
        assert_eq!(latest, items.last().unwrap().position);
        let page = ledger.feed_after(latest, 10).unwrap();
        assert_eq!((page.items.len(), page.position), (0, latest));
    }
}

#[test]
fn positions_outlive_the_process_however_it_ends() {
    let directory = directory();
    let bank = Arc::new(SlowBank::default());
    let mut ledger = Ledger::create(directory.path(), &config(), options(&bank, 2_000)).unwrap();
    let mut seen: Vec<FeedItem> = Vec::new();
    for round in 0..12 {
        let position = seen.last().map_or(ledger.feed_start().unwrap(), |item| item.position);
        assert_eq!(ledger.feed_latest().unwrap(), position, "round {round}");
        fill(&ledger, &bank, round * 1000 + 1, 3);
        let page = ledger.feed_after(position, usize::MAX).unwrap();
        assert!(page.items.len() > 6);
        seen.extend(page.items);
        if round % 2 == 0 {
            ledger.close().unwrap();
        } else {
            drop(ledger);
        }
        ledger = Ledger::open(directory.path(), options(&bank, 2_000)).unwrap().0;
    }
    assert_eq!(from_ledger(&ledger, 50), seen);
    check(&seen, &ledger);
}

#[test]
fn what_is_no_position_of_this_ledger_is_refused() {
    let disk = small_ledger(150, OPTIONS);
    let bench = Bench::open(disk, OPTIONS).unwrap();
    let feed = bench.store.feed().unwrap();
    let items = all(feed, 1000);
    assert!(items.len() > 150, "{}", items.len());
    let (end, _) = bench.store.journal_head();
    let read = |position| feed.read(position, 1, &mut Vec::new());
    let real: Vec<FeedPosition> = items.iter().map(|item| item.position).collect();
    let mut refused = 0;
    for at in 0..end + 200 {
        for known in [real[0], real[real.len() / 2], real[real.len() - 1]] {
            let position = FeedPosition { at, ..known };
            match read(position) {
                // Records of no event, as a source's mark, have places as well.
                Ok(_) => assert!(real.iter().any(|real| (real.at, real.check) == (at, position.check)), "{position}"),
                Err(FeedError::BehindEnd) => assert!(at >= end, "{position}"),
                Err(FeedError::NotAPosition) => {
                    assert!(at < end && !real.contains(&position), "{position}");
                    refused += 1;
                }
                Err(error) => panic!("{position}: {error}"),
            }
        }
    }
    assert!(refused > 10_000);
    for position in [
        FeedPosition { passed: u32::MAX, ..real[0] },
        FeedPosition { passed: 0, ..real[0] },
        FeedPosition { check: real[0].check ^ 1, ..real[0] },
        FeedPosition { check: 0, ..feed.start() },
        FeedPosition { passed: 1, ..feed.start() },
    ] {
        assert!(matches!(read(position), Err(FeedError::NotAPosition)), "{position}");
    }

    // A ledger of the same requests and another id, and one that went another way after the same beginning.
    let mut other = [Bench::create([1; 16], OPTIONS), Bench::create(LEDGER, OPTIONS)];
    let mut one = Bench::create(LEDGER, OPTIONS);
    for bench in other.iter_mut().chain([&mut one]) {
        bench.commit(&[support::deposit(1, 1, 5)]);
    }
    let first = all(one.store.feed().unwrap(), 9)[0].position;
    one.commit(&[support::deposit(1, 2, 5)]);
    other[1].commit(&[support::deposit(1, 3, 5)]);
    let second = all(one.store.feed().unwrap(), 9)[1].position;
    let [stranger, restored] = other.map(|bench| bench.store);
    assert!(matches!(stranger.feed().unwrap().read(first, 1, &mut Vec::new()), Err(FeedError::NotAPosition)));
    assert!(restored.feed().unwrap().read(first, 1, &mut Vec::new()).is_ok());
    assert!(matches!(restored.feed().unwrap().read(second, 1, &mut Vec::new()), Err(FeedError::NotAPosition)));
}

#[test]
fn only_what_is_durable_is_shown() {
    let mut bench = Bench::create(LEDGER, OPTIONS);
    bench.commit(&[support::deposit(1, 1, 5)]);
    bench.run(&[support::deposit(1, 2, 5)]);
    let feed = bench.store.feed().unwrap();
    let shown = all(feed, 10);
    assert_eq!(shown.len(), 1);
    assert_eq!(feed.latest().unwrap(), shown[0].position);
    // As a crash leaves it: what was not synced is gone, and what was shown is not.
    let disk = Arc::new(bench.disk.copy());
    bench.store.sync().unwrap();
    assert_eq!(all(bench.store.feed().unwrap(), 10).len(), 2);
    let reopened = Bench::open(disk, OPTIONS).unwrap();
    let feed = reopened.store.feed().unwrap();
    assert_eq!(all(feed, 10), shown);
    assert_eq!(feed.latest().unwrap(), shown[0].position);
}

/// A store that keeps no chains has nothing to show; it says so instead of showing nothing.
#[test]
fn a_store_without_chains_has_no_feed() {
    let config = config();
    let store = Arc::new(MemoryStore::without_history(&config));
    assert!(store.feed().is_none());
    let ledger = Ledger::with_stores(config, store.clone(), store, LedgerOptions::default()).unwrap();
    assert!(matches!(ledger.feed_start(), Err(FeedError::Unavailable)));
}

/// Somebody follows while others write: told when there is more, they miss nothing and see nothing twice.
#[test]
fn followers_beside_writers_miss_nothing() {
    within_minutes(|| {
        let directory = directory();
        let options = LedgerOptions {
            embedded: EmbeddedOptions {
                segment_bytes: 20_000,
                memtable_entries_max: 200,
                heads_max: 50,
                background: true,
            },
            ..LedgerOptions::default()
        };
        let ledger = Arc::new(Ledger::create(directory.path(), &config(), options).unwrap());
        let (sender, told) = std::sync::mpsc::channel();
        assert!(ledger.on_durable(move || sender.send(()).unwrap_or_default()));
        assert!(!ledger.on_durable(|| {}), "only the first counts");
        let writers: Vec<_> = (0..4u128)
            .map(|writer| {
                let ledger = ledger.clone();
                std::thread::spawn(move || {
                    for n in 0..300 {
                        ledger.submit(deposit(writer, writer * 1000 + n, 1)).unwrap();
                    }
                })
            })
            .collect();
        let (mut seen, mut position) = (Vec::new(), ledger.feed_start().unwrap());
        while seen.len() < 1200 {
            // Without the call this waits for ever.
            told.recv().unwrap();
            loop {
                let page = ledger.feed_after(position, 17).unwrap();
                if page.position == position {
                    break;
                }
                seen.extend(page.items);
                position = page.position;
            }
        }
        for writer in writers {
            writer.join().unwrap();
        }
        check(&seen, &ledger);
        assert_eq!(from_ledger(&ledger, 1000), seen);
    });
}
