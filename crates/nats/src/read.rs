//! Reading the history of one chain, and checking it: every message names the one before, every event's hash covers
//! the one before, and every head must be what the records lead to.

use crate::error::damaged;
use crate::message::{ChainMessage, closed_by};
use crate::net::Stored;
use crate::shard::Shard;
use crate::store::Inner;
use bursar_engine::core::{CustomerId, EventRef, EventStatus, Head, LinkedEvent, Record};
use bursar_engine::store::{ChainEntry, StoreError};
use futures_util::future::join_all;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many messages are asked for at once.
const MESSAGES_MAX: u64 = 256;
/// A chain whose newest event is not above this is read from its beginning rather than searched.
const SEARCH_ABOVE: u64 = 256;
/// How often a message is asked for that a replica did not give.
const ASKS: usize = 6;
const PAUSE: Duration = Duration::from_millis(20);

/// Follows a chain's messages in order.
struct Walk {
    customer: CustomerId,
    /// The sequence of the message before; `None` before the first one that is seen.
    previous: Option<u64>,
    /// The chain's end by what was seen, where all of it was seen.
    head: Option<Head>,
    open: VecDeque<LinkedEvent>,
    newest: Option<LinkedEvent>,
}

impl Walk {
    /// Takes a message; gives the events that it closed.
    fn take(&mut self, message: &ChainMessage, seq: u64) -> Result<Vec<ChainEntry>, String> {
        if self.previous.is_some_and(|previous| previous != message.previous) {
            return Err(format!("it builds on message {}, which is not the one before", message.previous));
        }
        self.previous = Some(seq);
        let mut closed = Vec::new();
        for record in &message.records {
            if let Record::Started(linked) = record {
                self.begin(linked)?;
            }
            let Some((event, status)) = closed_by(record) else { continue };
            if let Some(head) = &mut self.head {
                head.close(&status);
            }
            match self.open.pop_front() {
                Some(linked) if linked.reference() == event => closed.push(ChainEntry { linked, status }),
                // It began before the messages that are read.
                Some(linked) if self.head.is_none() && linked.event.seq > event.seq => self.open.push_front(linked),
                None if self.head.is_none() => {}
                Some(_) | None => return Err(format!("it closes event {}, which is not open", event.seq)),
            }
        }
        let same = |head: &Head| Head { open: Vec::new(), ..head.clone() } == message.head;
        if self.head.as_ref().is_some_and(|head| !same(head)) {
            return Err("its head is not what the chain leads to".to_owned());
        }
        Ok(closed)
    }

    fn begin(&mut self, linked: &LinkedEvent) -> Result<(), String> {
        let seq = linked.event.seq;
        if self.newest.as_ref().is_some_and(|before| before.event.seq.checked_add(1) != Some(seq)) {
            return Err(format!("event {seq} is not the next one"));
        }
        if let Some(head) = &mut self.head {
            // It builds on what is in effect; or on an event before it that was open then.
            let on = |link| linked.event.hash(link) == linked.hash;
            if !on(&head.link) && !self.newest.as_ref().is_some_and(|before| on(&before.hash)) {
                return Err(format!("the hash of event {seq} is not that of its content behind the event before"));
            }
            head.open.push(linked.clone());
        }
        self.open.push_back(linked.clone());
        self.newest = Some(linked.clone());
        Ok(())
    }
}

/// What all servers together say of a chain's next message.
enum Others {
    Next(u64, Box<ChainMessage>),
    /// Everybody has this one next, and it does not build on the one before.
    Stranger(u64),
    Nothing,
}

impl Shard {
    fn history(&self, inner: &Inner, customer: CustomerId) -> String {
        format!("{}.chain.{}.{customer}", inner.prefix, self.number)
    }

    /// The events from `low` to `high` of a chain whose newest message is at `last_seq` and whose newest event is
    /// `newest`, oldest first.
    pub(crate) async fn entries(
        &self,
        inner: &Inner,
        customer: CustomerId,
        (low, high, newest): (u64, u64, u64),
        last_seq: u64,
        until: Instant,
    ) -> Result<Vec<ChainEntry>, StoreError> {
        let mut next = 1;
        if newest > SEARCH_ABOVE && low > 1 {
            next = self.find(inner, customer, low, last_seq, until).await?;
        }
        let head = (next == 1).then(|| Head::start(&inner.digest, customer));
        let mut walk = Walk { customer, previous: head.as_ref().map(|_| 0), head, open: VecDeque::new(), newest: None };
        let mut entries: Vec<ChainEntry> = Vec::new();
        let mut expected = low;
        'messages: while next <= last_seq {
            let found = self.messages(inner, &walk, next, last_seq, until).await?;
            for (seq, message) in found {
                next = seq + 1;
                let closed = walk.take(&message, seq);
                let closed = closed
                    .map_err(|what| damaged(&self.stream, seq, format!("a message of customer {customer}: {what}")))?;
                for entry in closed {
                    if (low..=high).contains(&entry.linked.event.seq) {
                        expected = entry.linked.event.seq + 1;
                        entries.push(entry);
                    }
                }
                // Where all of it is asked for, all of it is checked.
                if (expected > high && high < newest) || seq >= last_seq {
                    break 'messages;
                }
            }
        }
        for linked in walk.open {
            if (low..=high).contains(&linked.event.seq) {
                entries.push(ChainEntry { linked, status: EventStatus::Started });
            }
        }
        if !entries.iter().map(|entry| entry.linked.event.seq).eq(low..=high.min(newest)) {
            let what = format!("the chain of customer {customer} does not have all events from {low} to {high}");
            return Err(damaged(&self.stream, next, what));
        }
        Ok(entries)
    }

    /// The next messages of a chain, at least one. What a replica does not have, or has damaged, is asked of others.
    async fn messages(
        &self,
        inner: &Inner,
        walk: &Walk,
        next: u64,
        last_seq: u64,
        until: Instant,
    ) -> Result<Vec<(u64, ChainMessage)>, StoreError> {
        let customer = walk.customer;
        let subject = self.history(inner, customer);
        loop {
            let found = inner.net.from(&self.stream, next, Some(&subject), MESSAGES_MAX).await.unwrap_or_default();
            let has_later = !found.is_empty();
            let mut previous = walk.previous;
            let mut messages = Vec::with_capacity(found.len());
            for stored in found {
                let Ok(message) = ChainMessage::decode(&stored.payload, customer) else { break };
                if stored.seq > last_seq || previous.is_some_and(|previous| previous != message.previous) {
                    break;
                }
                previous = Some(stored.seq);
                messages.push((stored.seq, message));
            }
            if !messages.is_empty() {
                return Ok(messages);
            }
            match self.by_others(inner, &subject, walk, next, last_seq).await {
                Others::Next(seq, message) => {
                    if has_later {
                        inner.note_lost(&self.stream, seq, None);
                    }
                    return Ok(vec![(seq, *message)]);
                }
                Others::Stranger(seq) => {
                    let what = format!("the chain of customer {customer} has a message that does not build on it");
                    return Err(damaged(&self.stream, seq, what));
                }
                Others::Nothing => {}
            }
            if Instant::now() > until {
                let what = format!("no server gives the next message of customer {customer}");
                return Err(damaged(&self.stream, next, what));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The chain's next message, if any server has a sound one.
    async fn by_others(&self, inner: &Inner, subject: &str, walk: &Walk, next: u64, last_seq: u64) -> Others {
        let asked = (0..ASKS).map(|_| inner.net.from(&self.stream, next, Some(subject), 1));
        let found: Vec<Stored> = join_all(asked).await.into_iter().flatten().flatten().collect();
        let mut sound: Vec<(u64, ChainMessage)> = Vec::new();
        for stored in found.iter().filter(|stored| stored.seq <= last_seq) {
            sound
                .extend(ChainMessage::decode(&stored.payload, walk.customer).ok().map(|message| (stored.seq, message)));
        }
        sound.sort_by_key(|(seq, _)| *seq);
        let is_next = |(_, message): &&(u64, ChainMessage)| walk.previous.is_none_or(|seq| seq == message.previous);
        if let Some((seq, message)) = sound.iter().find(is_next) {
            return Others::Next(*seq, Box::new(message.clone()));
        }
        // Where all that answer have the same one, none has lost what should be before it.
        match (sound.first(), sound.last()) {
            (Some((first, _)), Some((last, _))) if first == last && sound.len() == ASKS => Others::Stranger(*first),
            _ => Others::Nothing,
        }
    }

    /// A sequence at or before the message that holds an event, found by halving; all messages of the chain from there
    /// on began with it.
    async fn find(
        &self,
        inner: &Inner,
        customer: CustomerId,
        event_seq: u64,
        last_seq: u64,
        until: Instant,
    ) -> Result<u64, StoreError> {
        let subject = self.history(inner, customer);
        let (mut low, mut high) = (1, last_seq);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = inner.net.from(&self.stream, middle, Some(&subject), 1).await;
            let Some(stored) = found.unwrap_or_default().pop() else {
                if Instant::now() > until {
                    return Err(damaged(
                        &self.stream,
                        middle,
                        format!("no server gives a message of customer {customer}"),
                    ));
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Ok(message) = ChainMessage::decode(&stored.payload, customer) else { return Ok(1) };
            let newest = match message.started().next_back() {
                Some(linked) => Some(linked.event.seq),
                None => message.open_in.is_empty().then_some(message.head.seq),
            };
            if newest.is_some_and(|newest| newest < event_seq) {
                low = stored.seq + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.min(last_seq))
    }

    /// How a closed event stands, read from its chain.
    pub(crate) async fn closed_status(
        &self,
        inner: &Inner,
        last_seq: u64,
        event: &EventRef,
        until: Instant,
    ) -> Result<Option<EventStatus>, StoreError> {
        let range = (event.seq, event.seq, event.seq.max(SEARCH_ABOVE + 1));
        let entries = self.entries(inner, event.customer, range, last_seq, until).await?;
        Ok(entries.into_iter().find(|entry| entry.linked.id() == event.id).map(|entry| entry.status))
    }
}
