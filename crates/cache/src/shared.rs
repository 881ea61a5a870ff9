//! What the wrappers of one ledger have in common: the way to the cache, and what the batch under way has seen and changed.

use crate::client::{Client, PUT_WITHIN, count};
use crate::link::{MARK, Put};
use crate::seal::{About, Seal, wall_ms};
use crate::settings::CacheSettings;
use bursar_core::{CustomerId, EventId, EventRef, Hash, Head, LinkedEvent, TransactionId};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More keys than these are not asked for at once: who wants so many reads the store.
pub(crate) const KEYS_MAX: usize = 4_096;
/// Makers of one batch that are remembered until they are put.
const MAKERS_MAX: usize = 1 << 16;

/// The end of a chain, as it was loaded or as this engine went on from there.
#[derive(Clone, Copy, Debug)]
struct End {
    /// The newest closed event, and the link behind it.
    closed: (u64, Hash),
    /// What the next event builds on, if that is known.
    next: Option<Hash>,
}

/// What the calls of a batch have seen and changed.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    ends: HashMap<CustomerId, End>,
    /// Events that make a transaction, with what they build on, until they are done.
    started: HashMap<EventId, (LinkedEvent, Hash)>,
    done: Vec<(LinkedEvent, Hash)>,
    customers: HashSet<CustomerId>,
    transactions: HashSet<TransactionId>,
}

impl UnderWay {
    /// Takes the heads that the next decisions rest on.
    pub(crate) fn loaded(&mut self, ledger_digest: &Hash, customers: &[CustomerId], heads: &[Option<Head>]) {
        self.ends.clear();
        for (&customer, head) in customers.iter().zip(heads) {
            let end = if let Some(head) = head {
                End { closed: (head.seq, head.link), next: head.open.is_empty().then_some(head.link) }
            } else {
                let start = bursar_core::event::chain_start(ledger_digest, customer);
                End { closed: (0, start), next: Some(start) }
            };
            self.ends.insert(customer, end);
        }
    }

    /// Whether an event is in effect by a head that was loaded: it is the newest of its chain.
    pub(crate) fn is_head(&self, event: &EventRef) -> bool {
        let closed = self.ends.get(&event.customer).map(|end| end.closed);
        closed.is_some_and(|(seq, link)| seq == event.seq && EventId::from_hash(&link) == event.id)
    }

    /// An event stands in its chain.
    pub(crate) fn started(&mut self, linked: &LinkedEvent, with_maker: bool) {
        let customer = linked.event.customer;
        let Some(end) = self.ends.get_mut(&customer) else { return };
        let Some(link) = end.next.replace(linked.hash) else { return };
        if with_maker && self.started.len() < MAKERS_MAX {
            self.started.insert(linked.id(), (linked.clone(), link));
        }
    }

    /// An event is in effect.
    pub(crate) fn done(&mut self, event: EventId) {
        if let Some(maker) = self.started.remove(&event) {
            self.done.push(maker);
        }
    }

    pub(crate) fn changed(&mut self, customer: CustomerId) {
        self.customers.insert(customer);
    }

    pub(crate) fn changed_transaction(&mut self, transaction: TransactionId) {
        self.transactions.insert(transaction);
    }
}

/// An entry as it was found.
pub(crate) enum Found<T> {
    /// It says this.
    Is(T),
    /// There is none, and one may be put.
    Nothing,
    /// There is none, and none may be put for now.
    Marked,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) seal: Seal,
    pub(crate) settings: CacheSettings,
    pub(crate) ledger_digest: Hash,
    under_way: Mutex<UnderWay>,
}

/// When a store was asked for what is to be put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    at: Instant,
    at_ms: u64,
}

impl Asked {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), at_ms: wall_ms() }
    }
}

impl Shared {
    pub(crate) fn new(client: Client, seal: Seal, settings: CacheSettings, ledger_digest: Hash) -> Self {
        Self { client, seal, settings, ledger_digest, under_way: Mutex::default() }
    }

    pub(crate) fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        // What is in it is remembered or not; nothing depends on it.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The batch has ended: what it changed is not shown any more, and what it made can be recognised.
    pub(crate) fn batch_ended(&self) {
        let (customers, transactions, done) = {
            let mut under_way = self.under_way();
            under_way.started.clear();
            let UnderWay { customers, transactions, done, .. } = &mut *under_way;
            (std::mem::take(customers), std::mem::take(transactions), std::mem::take(done))
        };
        let heads = customers.into_iter().map(About::Head);
        let entries = transactions.into_iter();
        let entries = entries.flat_map(|transaction| [About::Transaction(transaction), About::Touches(transaction)]);
        let keys: Vec<_> = heads.chain(entries).map(|about| self.seal.key(about)).collect();
        for keys in keys.chunks(KEYS_MAX) {
            self.client.mark(keys.to_vec());
        }
        let until = Instant::now() + Duration::from_secs(self.settings.kept_for_s);
        let put = |(linked, link): &(LinkedEvent, Hash)| {
            let key = self.seal.key(About::Maker(linked.event.transaction?));
            let value = self.seal.close(&key, linked.event.time_ms, &crate::codec::put_maker(&linked.event, link));
            Some(Put { key, value, until, if_absent_by: None })
        };
        for done in done.chunks(KEYS_MAX) {
            self.client.put_later(done.iter().filter_map(put).collect());
        }
    }

    /// What the cache says about these; `None` if it is not asked, or does not tell. An entry counts if its seal is whole,
    /// its content can be read, `is_about` holds, and it is not older than `shown_for_ms`, if that counts.
    pub(crate) fn find<T>(
        &self,
        abouts: &[About],
        must_be_new: bool,
        read: impl Fn(&[u8]) -> Option<T>,
        is_about: impl Fn(usize, &T) -> bool,
    ) -> Option<Vec<Found<T>>> {
        if abouts.is_empty() || abouts.len() > KEYS_MAX || (must_be_new && !self.client.may_show()) {
            return None;
        }
        let keys: Vec<Vec<u8>> = abouts.iter().map(|about| self.seal.key(*about)).collect();
        let values = self.client.get(keys.clone())?;
        let now_ms = wall_ms();
        let (mut found, mut wrong) = (Vec::with_capacity(keys.len()), Vec::new());
        let mut hit_count = 0;
        for (at, (key, value)) in keys.into_iter().zip(&values).enumerate() {
            found.push(match value.as_deref() {
                None => Found::Nothing,
                Some(MARK) => Found::Marked,
                Some(value) => {
                    let opened = self.seal.open(&key, value);
                    let opened = opened.filter(|(at_ms, _)| !must_be_new || self.is_new(*at_ms, now_ms));
                    let believed = opened.and_then(|(_, body)| read(body)).filter(|entry| is_about(at, entry));
                    if let Some(entry) = believed {
                        hit_count += 1;
                        Found::Is(entry)
                    } else {
                        wrong.push(key);
                        Found::Marked
                    }
                }
            });
        }
        count(&self.client.counts.hits, hit_count);
        count(&self.client.counts.disbelieved, wrong.len());
        count(&self.client.counts.misses, found.len() - hit_count - wrong.len());
        self.client.remove_later(wrong);
        Some(found)
    }

    const fn is_new(&self, at_ms: u64, now_ms: u64) -> bool {
        now_ms.abs_diff(at_ms) <= self.settings.shown_for_ms
    }

    /// Puts what a store said, for as long as it may be shown; unless something has changed meanwhile.
    pub(crate) fn put_shown(&self, asked: Asked, entries: impl Iterator<Item = (About, Vec<u8>)>) {
        let until = asked.at + Duration::from_millis(self.settings.shown_for_ms);
        self.put(asked, until, Some(asked.at + PUT_WITHIN), entries);
    }

    /// Puts what never changes.
    pub(crate) fn put_kept(&self, asked: Asked, entries: impl Iterator<Item = (About, Vec<u8>)>) {
        self.put(asked, asked.at + Duration::from_secs(self.settings.kept_for_s), None, entries);
    }

    fn put(
        &self,
        asked: Asked,
        until: Instant,
        if_absent_by: Option<Instant>,
        entries: impl Iterator<Item = (About, Vec<u8>)>,
    ) {
        let put = |(about, body): (About, Vec<u8>)| {
            let key = self.seal.key(about);
            Put { value: self.seal.close(&key, asked.at_ms, &body), key, until, if_absent_by }
        };
        self.client.put_later(entries.map(put).collect());
    }
}
