//! The feed: every durable record once, in an order that keeps that of each chain, from any position on.

use super::parallel::write;
use super::scene::{Scene, deposit, withdrawal};
use super::{Case, Checked, Ending, Wrong, equal, holds};
use crate::store::{ChainEntry, Feed, FeedError, FeedItem, FeedPosition};
use bursar_core::{AbortReason, CustomerId, EventId, EventStatus, LinkedEvent, ReasonText};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const CASES: &[Case] = &[
    ("the_feed_has_every_record_once_whatever_the_page", every_record_once),
    ("positions_of_the_feed_outlive_the_process", positions_outlive_the_process),
    ("what_is_no_position_of_the_feed_is_refused", no_positions),
    ("a_follower_beside_a_writer_misses_nothing", follower_beside_a_writer),
];

impl From<FeedError> for Wrong {
    fn from(error: FeedError) -> Self {
        Self(format!("the feed failed: {error}"))
    }
}

/// The feed of the stores; `None` where they have none and were not to have one.
fn feed(scene: &Scene) -> Result<Option<&dyn Feed>, Wrong> {
    let feed = scene.stores.chains.feed();
    equal("whether there is a feed", &feed.is_some(), &scene.has_feed)?;
    Ok(feed)
}

/// What lies behind a position, so many records at once; and the position behind it.
fn follow(
    feed: &dyn Feed,
    mut position: FeedPosition,
    limit: usize,
    items: &mut Vec<FeedItem>,
) -> Result<FeedPosition, Wrong> {
    loop {
        let before = items.len();
        let next = feed.read(position, limit, items)?;
        holds("more records than were asked for", items.len() - before <= limit)?;
        if next == position {
            equal("records at the end of the feed", &(items.len() - before), &0)?;
            return Ok(position);
        }
        position = next;
    }
}

fn all(feed: &dyn Feed, limit: usize) -> Result<Vec<FeedItem>, Wrong> {
    let mut items = Vec::new();
    follow(feed, feed.start(), limit, &mut items)?;
    Ok(items)
}

/// Holds what a follower has seen against the chains.
fn check(scene: &Scene, items: &[FeedItem]) -> Checked {
    let (mut begun, mut ended) = (BTreeMap::<EventId, &ChainEntry>::new(), BTreeMap::<EventId, &ChainEntry>::new());
    let mut newest: BTreeMap<CustomerId, u64> = BTreeMap::new();
    let mut newest_begun: BTreeMap<CustomerId, u64> = BTreeMap::new();
    for FeedItem { entry, .. } in items {
        let (event, id) = (&entry.linked.event, entry.linked.id());
        if entry.status == EventStatus::Started {
            holds("an event that is begun behind its end", !ended.contains_key(&id))?;
            holds("an event that is begun twice", begun.insert(id, entry).is_none())?;
            let before = newest_begun.insert(event.customer, event.seq).unwrap_or(0);
            holds("events that are begun in another order than in their chain", before < event.seq)?;
        } else {
            holds("an event that ends twice", ended.insert(id, entry).is_none())?;
            let before = newest.insert(event.customer, event.seq).unwrap_or(0);
            equal("the event that ends next in its chain", &event.seq, &(before + 1))?;
        }
    }
    let mut end_count = 0;
    for entry in scene.chains.values().flatten() {
        let id = entry.linked.id();
        if entry.linked.event.rail.is_some() {
            holds("an event that waits for its rail and is not there", begun.contains_key(&id))?;
        }
        if entry.status != EventStatus::Started {
            equal("the end of an event", &ended.get(&id).copied(), &Some(entry))?;
            end_count += 1;
        }
    }
    equal("ends of events", &ended.len(), &end_count)
}

/// Three events that wait for their rails at once, beside others, and end in every way there is.
fn round(scene: &mut Scene, number: u128) -> Result<Vec<LinkedEvent>, Wrong> {
    let base = number * 1_000;
    let fill: Vec<_> = (0..12).map(|n| deposit(n % 5, base + n, 50)).collect();
    scene.commit(&fill)?;
    let mut open = Vec::new();
    for of in 0..3_u128 {
        open.push(scene.open(&withdrawal(of, base + 100 + of, 5))?);
    }
    scene.commit(&[deposit(3, base + 200, 5), deposit(4, base + 201, 5), deposit(4, base + 202, 5)])?;
    let refused = EventStatus::Aborted(AbortReason::RailRefused(ReasonText::new("no")));
    let ends = [EventStatus::Done, refused, EventStatus::DoneByHand(ReasonText::new("seen at the bank"))];
    for (linked, end) in open.iter().zip(&ends).rev() {
        scene.close(linked, end)?;
    }
    Ok(open)
}

fn every_record_once(scene: &mut Scene) -> Checked {
    let Some(feed) = feed(scene)? else { return Ok(()) };
    equal("a new ledger's feed", &all(feed, 10)?, &Vec::new())?;
    equal("a new ledger's newest position", &feed.latest()?, &feed.start())?;
    let (mut marks, mut open) = (vec![feed.newest_mark()?], Vec::new());
    for number in 0..5 {
        open = round(scene, number)?;
        scene.stores.chains.sync()?;
        marks.push(self::feed(scene)?.map(Feed::newest_mark).transpose()?.flatten());
    }
    let unknown = scene.decide(&[deposit(900, 900, 1)])?;
    let Some(feed) = self::feed(scene)? else { return Ok(()) };
    holds(
        "the mark of the newest record stays",
        marks[0].is_none() || marks.windows(2).all(|pair| pair[0] != pair[1]),
    )?;
    equal("the mark of the newest record, asked for again", &feed.newest_mark()?, marks.last().unwrap_or(&None))?;
    let items = all(feed, usize::MAX)?;
    check(scene, &items)?;
    for limit in [1, 2, 3, 7, 100] {
        equal("the feed in pages", &all(feed, limit)?, &items)?;
    }
    for (index, item) in items.iter().enumerate() {
        let mut page = Vec::new();
        feed.read(item.position, 2, &mut page)?;
        equal("a page from the middle", page.as_slice(), &items[index + 1..items.len().min(index + 3)])?;
    }
    let latest = feed.latest()?;
    equal("the newest position", &Some(latest), &items.last().map(|item| item.position))?;
    equal("what lies behind the newest position", &feed.read(latest, 10, &mut Vec::new())?, &latest)?;
    for (linked, is_done) in open.iter().zip([true, false, true]) {
        let end = feed.end_of(linked.id())?;
        equal("the event whose end was asked for", &end.as_ref().map(|(event, _)| *event), &Some(linked.reference()))?;
        equal("its end", &end.map(|(_, status)| status.is_done()), &Some(is_done))?;
    }
    equal("the end of an event that is not there", &feed.end_of(unknown.events[0].id())?, &None)
}

fn positions_outlive_the_process(scene: &mut Scene) -> Checked {
    let Some(feed) = feed(scene)? else { return Ok(()) };
    let (mut seen, mut position) = (Vec::new(), feed.start());
    for number in 0..4 {
        round(scene, number)?;
        let waiting = scene.open(&withdrawal(1, number * 1_000 + 300, 1))?;
        scene.stores.chains.sync()?;
        let Some(feed) = self::feed(scene)? else { return Ok(()) };
        position = follow(feed, position, 5, &mut seen)?;
        scene.close(&waiting, &EventStatus::Done)?;
        scene.stores.chains.sync()?;
        if !scene.reopened(if number % 2 == 0 { Ending::Crash } else { Ending::Clean })? {
            break;
        }
    }
    let Some(feed) = self::feed(scene)? else { return Ok(()) };
    follow(feed, position, 5, &mut seen)?;
    check(scene, &seen)?;
    equal("the feed from its beginning", &all(feed, 100)?, &seen)
}

fn no_positions(scene: &mut Scene) -> Checked {
    if feed(scene)?.is_none() {
        return Ok(());
    }
    round(scene, 1)?;
    scene.stores.chains.sync()?;
    let Some(feed) = feed(scene)? else { return Ok(()) };
    let items = all(feed, 100)?;
    for &FeedItem { position, .. } in &items {
        for wrong in [
            FeedPosition { check: position.check ^ 0x100, ..position },
            FeedPosition { passed: u32::MAX, ..position },
            FeedPosition { at: position.at + 1_000_000, ..position },
            FeedPosition { at: u64::MAX, ..position },
        ] {
            let read = feed.read(wrong, 1, &mut Vec::new());
            holds("a wrong position is taken", matches!(read, Err(FeedError::NotAPosition | FeedError::BehindEnd)))?;
        }
    }
    for wrong in
        [FeedPosition { check: !feed.start().check, ..feed.start() }, FeedPosition { passed: 1, ..feed.start() }]
    {
        let read = feed.read(wrong, 1, &mut Vec::new());
        holds("a wrong beginning is taken", matches!(read, Err(FeedError::NotAPosition)))?;
    }
    Ok(())
}

fn follower_beside_a_writer(scene: &mut Scene) -> Checked {
    let stopped = AtomicBool::new(false);
    let stores = scene.stores.clone();
    if feed(scene)?.is_none() {
        return Ok(());
    }
    let (written, seen) = std::thread::scope(|scope| {
        let following = scope.spawn(|| {
            let Some(feed) = stores.chains.feed() else { return Err(Wrong("the feed is gone".to_owned())) };
            let (mut seen, mut position) = (Vec::new(), feed.start());
            loop {
                // Looked at before the read: what was written before it is read.
                let is_over = stopped.load(Ordering::Acquire);
                position = follow(feed, position, 11, &mut seen)?;
                if is_over {
                    return Ok(seen);
                }
            }
        });
        let written = write(scene, 60, true);
        let synced = scene.stores.chains.sync();
        stopped.store(true, Ordering::Release);
        let seen = following.join().unwrap_or_else(|_| Err(Wrong("the follower panicked".to_owned())));
        (written.and(synced.map_err(Wrong::from)), seen)
    });
    written?;
    check(scene, &seen?)
}
