//! The stream of the feed's order: finding its entries, and writing the next one.
//!
//! ```text
//!  next:  is there an entry behind this one? ──► that one
//!         what have the streams behind what is covered? ──► publish it as the entry, expected sequence: the one before
//!                                            stored, or somebody else's was: that one
//! ```
//!
//! Entries and messages are read by their sequences, which have no holes: a replica that does not have one yet, or has
//! lost it, costs time, and nothing is passed over. A message that a server gives was stored by a majority, and stays; so
//! what an entry covers never changes. Which entry is there is decided by an append alone.
//!
//! What this module does not do: barriers. What others have written and no asked server has yet comes in a later entry;
//! what this store knows to be stored ([`Shard::seen`]) is waited for.

use crate::error::{damaged, failed};
use crate::message::ChainMessage;
use crate::net::{Published, Stored};
use crate::order::{Entry, Part, Placed, check_of};
use crate::shard::Shard;
use crate::store::Inner;
use bursar_engine::core::Record;
use bursar_engine::store::{ChainEntry, StoreError};
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::time::timeout_at;

/// So many messages of a stream are covered by one entry at the most.
const MESSAGES_MAX: u64 = 1_000;
/// So many messages without a record are covered by one entry at the most.
const GAP_MAX: u64 = 10_000;
/// About so many records are covered by one entry at the most: readers have them in memory.
const RECORDS_MAX: usize = 4_096;
/// How many entries are kept with their records: a reader takes several pages from each.
const KEPT: usize = 8;
/// How often it is asked for an entry that may not be there, where it matters.
const ASKS: usize = 3;

/// The stream of the order, and what is known of it.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) shard: Shard,
    subject: String,
    known: Mutex<Known>,
    /// Whoever looks for the next entry has it: one look serves all who wait.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// The newest entry that was seen.
    newest: Option<Placed>,
    /// Entries whose records were read, the newest of them last.
    kept: VecDeque<(Placed, Arc<Vec<ChainEntry>>)>,
}

/// What a stream has behind what is covered.
pub(crate) struct Reach {
    part: Part,
    record_count: usize,
    pub(crate) messages: Vec<(u64, ChainMessage)>,
}

/// The entry behind another one; and what it covers, where that was read for it.
pub(crate) struct Next {
    pub(crate) placed: Placed,
    pub(crate) reached: Option<Vec<Reach>>,
}

/// The stream that keeps the order.
pub(crate) fn stream_name(prefix: &str) -> String {
    format!("{prefix}-feed")
}

pub(crate) fn subject(prefix: &str) -> String {
    format!("{prefix}.feed")
}

/// Whether a record of a chain is one of the feed: an event is there once it is closed, and when it begins to wait for
/// a rail.
pub(crate) fn is_shown(record: &Record) -> bool {
    match record {
        Record::Started(linked) => linked.event.rail.is_some(),
        Record::Done(_) | Record::DoneByHand(..) | Record::Aborted(..) => true,
    }
}

impl Order {
    pub(crate) fn new(prefix: &str) -> Self {
        let shard = Shard::new(u16::MAX, stream_name(prefix));
        Self { shard, subject: subject(prefix), known: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newest(&self) -> Option<Placed> {
        self.known().newest.clone()
    }

    fn note(&self, inner: &Inner, placed: &Placed) {
        for (shard, part) in inner.shards.iter().zip(&placed.entry.parts) {
            // A barrier, which has no checksum, is not waited for: it is no news.
            if part.check != 0 {
                shard.note_seen(part.upto);
            }
        }
        let newest = &mut self.known().newest;
        if newest.as_ref().is_none_or(|newest| newest.seq < placed.seq) {
            *newest = Some(placed.clone());
        }
    }

    /// The records of an entry, if they were read.
    pub(crate) fn kept(&self, seq: u64) -> Option<(Placed, Arc<Vec<ChainEntry>>)> {
        self.known().kept.iter().find(|(placed, _)| placed.seq == seq).cloned()
    }

    pub(crate) fn keep(&self, placed: &Placed, records: &Arc<Vec<ChainEntry>>) {
        let kept = &mut self.known().kept;
        kept.retain(|(there, _)| there.seq != placed.seq);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((placed.clone(), records.clone()));
    }

    pub(crate) fn damaged(&self, seq: u64, what: &str) -> StoreError {
        damaged(&self.shard.stream, seq, what)
    }
}

impl Inner {
    pub(crate) fn order(&self) -> Result<&Order, StoreError> {
        self.order.as_ref().ok_or_else(|| failed("read the feed", &self.prefix, "it has none"))
    }

    fn place(&self, order: &Order, stored: &Stored) -> Result<Placed, StoreError> {
        let entry = Entry::decode(&stored.payload, self.shards.len())
            .map_err(|error| order.damaged(stored.seq, &format!("an entry of the feed's order: {}", error.0)))?;
        let placed = Placed { seq: stored.seq, check: check_of(&stored.payload), entry };
        order.note(self, &placed);
        Ok(placed)
    }

    /// An entry that may be there: `None` if none of the servers that are asked has it.
    async fn find_entry(&self, seq: u64, asks: usize) -> Result<Option<Placed>, StoreError> {
        let order = self.order()?;
        for found in join_all((0..asks).map(|_| self.net.at(&order.shard.stream, seq))).await.into_iter().flatten() {
            if found.seq == seq && self.is_sound(&found) {
                return self.place(order, &found).map(Some);
            }
            if found.seq >= seq {
                // It is there, and this server has it damaged; or has lost it.
                return self.entry(seq).await.map(Some);
            }
        }
        Ok(None)
    }

    /// An entry that is there, whichever server has it.
    pub(crate) async fn entry(&self, seq: u64) -> Result<Placed, StoreError> {
        let order = self.order()?;
        if seq == 0 {
            return Ok(Placed::nothing(self.shards.len()));
        }
        if let Some((placed, _)) = order.kept(seq) {
            return Ok(placed);
        }
        if let Some(newest) = order.newest().filter(|newest| newest.seq == seq) {
            return Ok(newest);
        }
        let found = order.shard.read_all(self, seq, seq, self.until()).await?.pop();
        let found = found.ok_or_else(|| order.damaged(seq, "no server gives this message"))?;
        self.place(order, &found)
    }

    /// The newest entry that is known, or one that is newer.
    pub(crate) async fn newest_entry(&self) -> Result<Placed, StoreError> {
        let order = self.order()?;
        let known = order.newest().unwrap_or_else(|| Placed::nothing(self.shards.len()));
        let last = self.net.last(&order.shard.stream, &order.subject).await.map_or(0, |stored| stored.seq);
        if last <= known.seq { Ok(known) } else { self.entry(last).await }
    }

    /// Publishes the entry behind another one, unless somebody else has: then it is theirs. Gives the one that is there.
    async fn publish_entry(&self, before: &Placed, entry: Entry) -> Result<Placed, StoreError> {
        let (order, until, seq) = (self.order()?, self.until(), before.seq + 1);
        let payload = Bytes::from(entry.encode());
        loop {
            match self.net.publish(&order.subject, Some(before.seq), payload.clone()).await {
                Published::At(at) if at == seq => {
                    let placed = Placed { seq, check: check_of(&payload), entry };
                    order.note(self, &placed);
                    return Ok(placed);
                }
                Published::At(at) => {
                    return Err(order.damaged(at, "the order of the feed has a hole in front of this"));
                }
                // Somebody else's is there; or this one is, and nobody has told.
                Published::Refused(..) | Published::Unknown => {}
            }
            if let Some(found) = self.find_entry(seq, ASKS).await? {
                return Ok(found);
            }
            order
                .shard
                .pause_or(until, || failed("write the order of the feed", &order.subject, "it is not taken"))
                .await?;
        }
    }

    /// The sequence of the first message of a chain behind another one; `None` if there is none yet.
    async fn first_behind(&self, shard: &Shard, from: u64) -> Result<Option<u64>, StoreError> {
        // Only messages of chains are news: barriers and sources are no records.
        let chains = format!("{}.chain.{}.*", self.prefix, shard.number);
        let until = self.until();
        loop {
            match self.net.from(&shard.stream, from + 1, Some(&chains), 1).await {
                Some(found) if !found.is_empty() => {
                    let first = found.first().map(|stored| stored.seq);
                    shard.note_seen(first.unwrap_or(0));
                    return Ok(first);
                }
                Some(_) if shard.seen() <= from => return Ok(None),
                // No answer; or that server lags behind.
                Some(_) | None => {}
            }
            let what = "no server gives what is there";
            shard.pause_or(until, || failed("look for new messages", &shard.stream, what)).await?;
        }
    }

    /// How far an entry can cover a stream behind what is covered.
    async fn reach(&self, shard: &Shard, covered: &Part) -> Result<Reach, StoreError> {
        let from = covered.upto;
        let mut reach = Reach { part: Part { from, ..*covered }, record_count: 0, messages: Vec::new() };
        let Some(first) = self.first_behind(shard, from).await? else { return Ok(reach) };
        // All up to that message is there. It is read as well: a replica may have lost a message in between. And the last
        // one that is covered must be the one that was.
        let certain = first.min(from + GAP_MAX);
        let mut found = shard.read_all(self, from.max(1), certain, self.until()).await?;
        if certain == first {
            let more = (from + MESSAGES_MAX).saturating_sub(certain);
            let more = if more == 0 { None } else { self.net.from(&shard.stream, certain + 1, None, more).await };
            let in_order = (certain + 1..).zip(more.unwrap_or_default()).take_while(|(seq, stored)| stored.seq == *seq);
            found.extend(in_order.map(|(_, stored)| stored).take_while(|stored| self.is_sound(stored)));
        }
        let records_max = RECORDS_MAX / self.shards.len();
        for stored in &found {
            if stored.seq == from {
                if check_of(&stored.payload) != covered.check {
                    let what = "another message was here when the order of the feed was written";
                    return Err(damaged(&shard.stream, from, what));
                }
                continue;
            }
            let customer = self.customer_of(&stored.subject);
            if let Some(customer) = customer {
                let message = shard.decode(stored, customer)?;
                reach.record_count += message.records.iter().filter(|record| is_shown(record)).count();
                reach.messages.push((stored.seq, message));
                shard.note_seen(stored.seq);
            }
            if customer.is_some() || stored.seq == certain {
                reach.part = Part { upto: stored.seq, check: check_of(&stored.payload), ..reach.part };
            }
            if reach.record_count > records_max {
                break;
            }
        }
        Ok(reach)
    }

    /// The entry behind another one, which is written if there is something for it to cover.
    pub(crate) async fn next_entry(&self, before: &Placed) -> Result<Option<Next>, StoreError> {
        let order = self.order()?;
        let Ok(_turn) = timeout_at(self.until().into(), order.turn.lock()).await else {
            return Err(failed("wait for a reader before this one", &order.subject, "it does not end"));
        };
        let seq = before.seq + 1;
        let is_there = order.newest().is_some_and(|newest| newest.seq >= seq);
        let found = if is_there { Some(self.entry(seq).await?) } else { self.find_entry(seq, 1).await? };
        let next = if let Some(placed) = found {
            Next { placed, reached: None }
        } else {
            let reached = self.shards.iter().zip(&before.entry.parts).map(|(shard, part)| self.reach(shard, part));
            let reached = try_join_all(reached).await?;
            let mut entry = before.empty_behind();
            entry.parts = reached.iter().map(|reach| reach.part).collect();
            if entry.parts.iter().all(|part| part.from == part.upto) {
                return Ok(None);
            }
            let record_count: usize = reached.iter().map(|reach| reach.record_count).sum();
            entry.record_count = u32::try_from(record_count).unwrap_or(u32::MAX);
            let placed = self.publish_entry(before, entry.clone()).await?;
            let reached = (placed.entry == entry).then_some(reached);
            Next { placed, reached }
        };
        if !next.placed.follows(before) {
            let what = "this entry of the feed's order does not go on where the one before ends";
            return Err(order.damaged(seq, what));
        }
        Ok(Some(next))
    }

    /// Whether an entry is there, for certain: only an append can say so.
    pub(crate) async fn has_entry(&self, seq: u64) -> Result<bool, StoreError> {
        let order = self.order()?;
        loop {
            if order.newest().is_some_and(|newest| newest.seq >= seq) || self.find_entry(seq, ASKS).await?.is_some() {
                return Ok(true);
            }
            let newest = self.newest_entry().await?;
            if newest.seq >= seq {
                return Ok(true);
            }
            let nothing = newest.empty_behind();
            let published = self.publish_entry(&newest, nothing.clone()).await?;
            if published.seq < seq && published.entry == nothing {
                return Ok(false);
            }
        }
    }

    /// The messages of chains that an entry covers, for each stream.
    pub(crate) async fn covered(
        &self,
        placed: &Placed,
        until: Instant,
    ) -> Result<Vec<Vec<(u64, ChainMessage)>>, StoreError> {
        let parts = self.shards.iter().zip(&placed.entry.parts).map(|(shard, part)| async move {
            let mut messages = Vec::new();
            if part.from == part.upto {
                return Ok(messages);
            }
            let found = shard.read_all(self, part.from + 1, part.upto, until).await?;
            if found.last().is_none_or(|last| check_of(&last.payload) != part.check) {
                let what = "another message was here when the order of the feed was written";
                return Err(damaged(&shard.stream, part.upto, what));
            }
            for stored in found {
                let Some(customer) = self.customer_of(&stored.subject) else { continue };
                messages.push((stored.seq, shard.decode(&stored, customer)?));
            }
            Ok(messages)
        });
        try_join_all(parts).await
    }

    /// The newest sequence of each stream, as its leader says.
    pub(crate) async fn stream_ends(&self) -> Result<Vec<u64>, StoreError> {
        try_join_all(self.shards.iter().map(|shard| async move {
            let call = format!("STREAM.INFO.{}", shard.stream);
            let info = self.net.patient_api(&call, &json!({}), self.options.patience).await?;
            let info = info.map_err(|error| failed("look at a stream", &shard.stream, error.description))?;
            Ok(info["state"]["last_seq"].as_u64().unwrap_or(0))
        }))
        .await
    }

    /// The newest messages of chains that are known, in one number.
    pub(crate) async fn mark_of_feed(&self) -> Result<u64, StoreError> {
        if self.order()?.newest().is_none() {
            self.newest_entry().await?;
        }
        // Sequences only grow, and so does their sum. What follows the newest that is known is enough: reading it makes
        // more known.
        let behind = self.shards.iter().map(|shard| self.first_behind(shard, shard.seen()));
        try_join_all(behind).await?;
        Ok(self.shards.iter().map(Shard::seen).fold(0, u64::wrapping_add))
    }
}
