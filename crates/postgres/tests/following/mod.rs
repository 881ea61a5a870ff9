//! Somebody who follows a ledger while others write to it, and what must be true of what they have seen.

#![allow(dead_code, unreachable_pub)] // each test file uses a part of it

use bursar_engine::core::{CustomerId, EventId, EventStatus};
use bursar_engine::store::{ChainEntry, Chains, CustomerHead, Feed, FeedError, FeedItem, FeedPosition, ReadRange};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What lies behind a position, so many records at once; and the position behind it.
pub fn read_on(
    feed: &dyn Feed,
    mut position: FeedPosition,
    limit: usize,
    items: &mut Vec<FeedItem>,
) -> Result<FeedPosition, FeedError> {
    loop {
        let next = feed.read(position, limit, items)?;
        if next == position {
            return Ok(position);
        }
        position = next;
    }
}

/// The whole feed of a store.
pub fn all(store: &dyn Chains, limit: usize) -> Vec<FeedItem> {
    let (feed, mut items) = (store.feed().unwrap(), Vec::new());
    read_on(feed, feed.start(), limit, &mut items).unwrap();
    items
}

/// A follower with a store of its own, which it opens anew whenever that has failed.
pub struct Following {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<Vec<FeedItem>>,
}

impl Following {
    pub fn start<C: Chains>(open: impl Fn() -> Option<C> + Send + 'static) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let is_over = stopped.clone();
        let thread = std::thread::spawn(move || {
            let (mut items, mut limit) = (Vec::new(), 1);
            // What goes on failing when nothing goes wrong any more is not waited for.
            let (mut failed, mut calm) = (None, None);
            loop {
                if is_over.load(Ordering::Acquire) {
                    let calm = *calm.get_or_insert_with(Instant::now);
                    assert!(calm.elapsed() < Duration::from_mins(2), "behind {} records: {failed:?}", items.len());
                }
                let Some(store) = open() else {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                };
                let feed = store.feed().unwrap();
                loop {
                    // Looked at before the read: what was written before is read.
                    let last = is_over.load(Ordering::Acquire);
                    let position = items.last().map_or(feed.start(), |item: &FeedItem| item.position);
                    limit = limit % 40 + 3;
                    match read_on(feed, position, limit, &mut items) {
                        Ok(_) if last => return items,
                        Ok(_) => std::thread::sleep(Duration::from_millis(2)),
                        Err(FeedError::Store(error)) => {
                            failed = Some(error);
                            break;
                        }
                        Err(error) => panic!("{position}, behind {} records: {error}", items.len()),
                    }
                }
            }
        });
        Self { stopped, thread }
    }

    /// Reads to the end.
    pub fn finish(self) -> Vec<FeedItem> {
        self.stopped.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

/// Everything that is wrong with what a follower has seen of a ledger in which nothing is open any more.
pub fn check(store: &dyn Chains, items: &[FeedItem]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ends: BTreeMap<EventId, &ChainEntry> = BTreeMap::new();
    let mut starts: BTreeMap<EventId, &ChainEntry> = BTreeMap::new();
    let mut newest: BTreeMap<CustomerId, u64> = BTreeMap::new();
    for FeedItem { entry, position } in items {
        let (event, id) = (&entry.linked.event, entry.linked.id());
        if entry.status == EventStatus::Started {
            if ends.contains_key(&id) || starts.insert(id, entry).is_some() {
                wrong.push(format!("{position}: {id} is begun twice, or behind its end"));
            }
        } else {
            if ends.insert(id, entry).is_some() {
                wrong.push(format!("{position}: {id} ends twice"));
            }
            let before = newest.insert(event.customer, event.seq).unwrap_or(0);
            if event.seq != before + 1 {
                wrong.push(format!("{position}: customer {} goes from {before} to {}", event.customer, event.seq));
            }
        }
    }
    let mut listed: Vec<CustomerHead> = Vec::new();
    store.list(None, usize::MAX, &mut listed).unwrap();
    let mut count = 0;
    for head in listed {
        let mut entries = Vec::new();
        store.read(head.customer, ReadRange::ALL, &mut entries).unwrap();
        for entry in entries {
            let id = entry.linked.id();
            count += 1;
            if starts.contains_key(&id) != entry.linked.event.rail.is_some() {
                wrong.push(format!("{id} is begun, or is not, as it should not be"));
            }
            if ends.get(&id) != Some(&&entry) {
                wrong.push(format!("{id} ended otherwise, or was not told: {:?}", ends.get(&id)));
            }
        }
    }
    if ends.len() != count {
        wrong.push(format!("{} ends of {count} events", ends.len()));
    }
    wrong
}
