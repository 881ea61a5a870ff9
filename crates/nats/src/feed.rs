//! The feed: the records of all chains in one order, which is kept in a stream of its own ([`crate::entries`]).
//!
//! ```text
//!  entry k ──► its part of each stream, every message of it ──► records ──► items
//! ```
//!
//! At the place of an entry lie the records of its messages, stream by stream, in the order of their sequences: so the
//! order keeps that of each chain. An event without a rail is one record, once it is closed; one that waits for a rail is a
//! record when it begins, and another when it is closed.
//!
//! A position is an entry, how many of its records were passed, and digits made of the newest one's hash and the entry's
//! checksum, which has those of all entries before it in it: it is held against them before it is believed. That it
//! lies behind the end is said only where an append has shown it.
//!
//! What this module does not do: say what comes next where no entry says it ([`crate::entries`]), or wait for more.

use crate::entries::Next;
use crate::error::damaged;
use crate::message::{ChainMessage, closed_by};
use crate::order::Placed;
use crate::store::{Inner, NatsChains};
use bursar_engine::core::{CustomerId, EventRef, EventStatus, LinkedEvent, Record};
use bursar_engine::store::{ChainEntry, Feed, FeedError, FeedItem, FeedPosition, StoreError};
use futures_util::StreamExt;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// So many entries without a record are passed in one call at the most.
const EMPTY_MAX: usize = 16;
/// Messages that are to be read are read together with what lies between them, if it is no more than this.
const BETWEEN_MAX: u64 = 32;
/// How many questions are under way at once.
const AT_ONCE: usize = 16;

/// Messages of chains that were read, by stream and sequence.
type Messages = HashMap<(usize, u64), ChainMessage>;

/// The position behind the first records of an entry.
fn position(placed: &Placed, passed: usize, newest: Option<&ChainEntry>) -> FeedPosition {
    let passed = u32::try_from(passed).unwrap_or(u32::MAX);
    let nothing = FeedPosition { at: placed.seq, passed, check: 0 };
    let behind = newest.map_or(nothing, |newest| FeedPosition::behind(placed.seq, passed, newest));
    FeedPosition { check: behind.check ^ placed.check, ..behind }
}

/// The sequences in runs, from the first to the last of each: those that are near each other are in one.
fn runs(seqs: BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for seq in seqs {
        match runs.last_mut() {
            Some((_, last)) if seq - *last <= BETWEEN_MAX => *last = seq,
            _ => runs.push((seq, seq)),
        }
    }
    runs
}

impl Inner {
    /// The records at the place of an entry.
    async fn records(&self, next: Next) -> Result<(Placed, Arc<Vec<ChainEntry>>), StoreError> {
        let (order, until) = (self.order()?, self.until());
        let Next { placed, reached } = next;
        if placed.seq == 0 {
            return Ok((placed, Arc::default()));
        }
        if let Some(kept) = order.kept(placed.seq) {
            return Ok(kept);
        }
        let parts = match reached {
            Some(reached) => reached.into_iter().map(|reach| reach.messages).collect(),
            None => self.covered(&placed, until).await?,
        };
        let (mut messages, mut sequence) = (Messages::new(), Vec::new());
        for (place, part) in parts.into_iter().enumerate() {
            for (seq, message) in part {
                messages.insert((place, seq), message);
                sequence.push((place, seq));
            }
        }
        self.bring_beginnings(&sequence, &mut messages, until).await?;
        let mut records = Vec::with_capacity(placed.entry.record_count as usize);
        for at in sequence {
            self.add_records(at, &mut messages, &mut records, until).await?;
        }
        if records.len() != placed.entry.record_count as usize {
            let what = format!("it covers {} records, and says {}", records.len(), placed.entry.record_count);
            return Err(order.damaged(placed.seq, &what));
        }
        let records = Arc::new(records);
        order.keep(&placed, &records);
        Ok((placed, records))
    }

    /// Reads the messages in which events were begun that others of these close: mostly the one before.
    async fn bring_beginnings(
        &self,
        sequence: &[(usize, u64)],
        messages: &mut Messages,
        until: Instant,
    ) -> Result<(), StoreError> {
        let mut missing: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); self.shards.len()];
        for at in sequence {
            let Some(message) = messages.get(at) else { continue };
            let is_begun = |event: &EventRef| message.started().any(|linked| linked.event.seq == event.seq);
            let mut closed = message.records.iter().filter_map(closed_by);
            let has_earlier = closed.any(|(event, _)| !is_begun(&event));
            if has_earlier && message.previous > 0 && !messages.contains_key(&(at.0, message.previous)) {
                missing[at.0].insert(message.previous);
            }
        }
        let missing = missing.into_iter().enumerate();
        let wanted = missing.flat_map(|(place, seqs)| runs(seqs).into_iter().map(move |run| (place, run)));
        let read = futures_util::stream::iter(wanted).map(|(place, (first, last))| async move {
            (place, self.shards[place].read_all(self, first, last, until).await)
        });
        let read: Vec<_> = read.buffer_unordered(AT_ONCE).collect().await;
        for (place, found) in read {
            for stored in found? {
                let Some(customer) = self.customer_of(&stored.subject) else { continue };
                messages.insert((place, stored.seq), self.shards[place].decode(&stored, customer)?);
            }
        }
        Ok(())
    }

    /// Adds the records of a message.
    async fn add_records(
        &self,
        at: (usize, u64),
        messages: &mut Messages,
        records: &mut Vec<ChainEntry>,
        until: Instant,
    ) -> Result<(), StoreError> {
        let Some(ChainMessage { customer, records: of_message, .. }) = messages.get(&at).cloned() else {
            return Ok(());
        };
        for record in of_message {
            if let Some((event, status)) = closed_by(&record) {
                let linked = self.started(at, customer, &event, messages, until).await?;
                records.push(ChainEntry { linked, status });
            } else if let Record::Started(linked) = record
                && linked.event.rail.is_some()
            {
                records.push(ChainEntry { linked, status: EventStatus::Started });
            }
        }
        Ok(())
    }

    /// The event that a message closes: it was begun there, or in a message of the chain before it.
    async fn started(
        &self,
        (place, closed_in): (usize, u64),
        customer: CustomerId,
        event: &EventRef,
        messages: &mut Messages,
        until: Instant,
    ) -> Result<LinkedEvent, StoreError> {
        let shard = &self.shards[place];
        let mut seq = closed_in;
        while seq > 0 {
            if !messages.contains_key(&(place, seq)) {
                for stored in shard.read_all(self, seq, seq, until).await? {
                    messages.insert((place, seq), shard.decode(&stored, customer)?);
                }
            }
            let Some(message) = messages.get(&(place, seq)).filter(|message| message.customer == customer) else {
                break;
            };
            if let Some(linked) = message.started().find(|linked| linked.reference() == *event) {
                return Ok(linked.clone());
            }
            if message.previous >= seq {
                break;
            }
            seq = message.previous;
        }
        let what = format!("it closes event {} of customer {customer}, which is not there", event.id);
        Err(damaged(&shard.stream, closed_in, what))
    }

    /// See [`Feed::read`].
    async fn read_feed(
        &self,
        start: FeedPosition,
        after: FeedPosition,
        limit: usize,
    ) -> Result<(Vec<FeedItem>, FeedPosition), FeedError> {
        if after.at > 0 && !self.has_entry(after.at).await? {
            return Err(FeedError::BehindEnd);
        }
        let mut next = Next { placed: self.entry(after.at).await?, reached: None };
        let (mut passed, mut reached) = (after.passed as usize, after);
        let (mut items, mut empty_count) = (Vec::new(), 0);
        loop {
            let (placed, records) = self.records(next).await?;
            if placed.seq == after.at {
                let newest = passed.checked_sub(1).map(|newest| records.get(newest));
                let is_there = newest.is_none_or(|newest| newest.is_some());
                let expected = if after.at == 0 { start } else { position(&placed, passed, newest.flatten()) };
                if !is_there || after != expected {
                    return Err(FeedError::NotAPosition);
                }
            }
            for record in records.iter().skip(passed).take(limit) {
                passed += 1;
                reached = position(&placed, passed, Some(record));
                items.push(FeedItem { position: reached, entry: record.clone() });
            }
            // What is there is given at once; only a reader who has all there is waits for the next entry.
            if !items.is_empty() || limit == 0 {
                return Ok((items, reached));
            }
            if empty_count == EMPTY_MAX {
                return Ok((items, position(&placed, 0, None)));
            }
            empty_count += 1;
            match self.next_entry(&placed).await? {
                Some(behind) => (next, passed) = (behind, 0),
                None => return Ok((items, reached)),
            }
        }
    }

    /// See [`Feed::latest`].
    async fn latest_of_feed(&self, start: FeedPosition) -> Result<FeedPosition, StoreError> {
        // What comes meanwhile is not waited for.
        let ends = self.stream_ends().await?;
        let mut newest = Next { placed: self.newest_entry().await?, reached: None };
        while newest.placed.entry.parts.iter().zip(&ends).any(|(part, end)| part.upto < *end) {
            match self.next_entry(&newest.placed).await? {
                Some(behind) => newest = behind,
                None => break,
            }
        }
        if newest.placed.entry.record_count == 0 {
            newest = Next { placed: self.entry(newest.placed.entry.full_before).await?, reached: None };
        }
        let (placed, records) = self.records(newest).await?;
        Ok(records.last().map_or(start, |last| position(&placed, records.len(), Some(last))))
    }
}

impl Feed for NatsChains {
    fn start(&self) -> FeedPosition {
        FeedPosition::beginning(&self.inner.digest)
    }

    fn latest(&self) -> Result<FeedPosition, FeedError> {
        let start = Feed::start(self);
        Ok(self.run(|inner| async move { inner.latest_of_feed(start).await })?)
    }

    fn read(&self, after: FeedPosition, limit: usize, items: &mut Vec<FeedItem>) -> Result<FeedPosition, FeedError> {
        let start = Feed::start(self);
        let read = self.run(|inner| async move {
            match inner.read_feed(start, after, limit).await {
                Err(FeedError::Store(error)) => Err(error),
                read => Ok(read),
            }
        })?;
        let (mut read, position) = read?;
        items.append(&mut read);
        Ok(position)
    }

    fn newest_mark(&self) -> Result<Option<u64>, FeedError> {
        Ok(Some(self.run(|inner| async move { inner.mark_of_feed().await })?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_read_together() {
        let table: [(&[u64], &[(u64, u64)]); 4] = [
            (&[], &[]),
            (&[7], &[(7, 7)]),
            (&[1, 2, 34, 67], &[(1, 34), (67, 67)]),
            (&[1, 100, 132, 165], &[(1, 1), (100, 132), (165, 165)]),
        ];
        for (seqs, expected) in table {
            assert_eq!(runs(seqs.iter().copied().collect()), expected, "{seqs:?}");
        }
    }
}
