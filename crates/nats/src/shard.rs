//! One stream, which holds the chains of a part of the customers: knowing provably what is in it.
//!
//! ```text
//!  load:    barrier ──► catch up to it ──► heads from memory, or from two replicas that have the barrier
//! ```
//!
//! **Barrier.** A message on a subject of its own, stored by a majority like every other. Its sequence `S` orders it
//! behind everything that was acknowledged before it was sent, whoever wrote that. A replica that has `S` has all of
//! it. No clock, no lease, and nobody's word on who leads.
//!
//! **Catching up.** Everything up to some sequence is known: the stream has no holes, so the store counts. Its own
//! messages it knows; what others wrote in between is read, checked and followed. So heads in memory stay right
//! without being read again, and a barrier that comes directly behind the last known message costs no read at all.
//!
//! What this module does not do: appending ([`crate::append`]), and the history of a chain ([`crate::read`]).

use crate::error::{damaged, failed, has_lost};
use crate::follow::Known;
use crate::message::ChainMessage;
use crate::net::{Newest, Published, Stored};
use crate::store::Inner;
use bursar_engine::core::CustomerId;
use bursar_engine::store::StoreError;
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout_at;

/// How many messages of others are followed one by one; beyond that the heads in memory are dropped.
const FOLLOW_MAX: u64 = 20_000;
/// How many messages are asked for at once.
const READ_COUNT: u64 = 1000;
/// How many subjects are asked for at once; servers take 1,024.
pub(crate) const SUBJECTS_MAX: usize = 1000;
/// How many answers do for heads, where the cluster does not tell from whom they are.
const UNTOLD_ASKS: usize = 4;
/// How often a message is asked for that a replica did not give.
const ASKS: usize = 6;
/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(20);

/// One stream.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) number: u16,
    pub(crate) stream: String,
    pub(crate) state: Mutex<State>,
    /// How many barriers were begun.
    begun: AtomicU64,
    /// See [`Shard::seen`].
    seen: AtomicU64,
}

/// What is known of it.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Every message up to this sequence is known.
    pub(crate) seq: u64,
    pub(crate) heads: HashMap<CustomerId, Known>,
    /// All customers with a chain, once somebody asked for them.
    customers: Option<BTreeSet<CustomerId>>,
    /// The newest barrier that was caught up with, by this store's count.
    barrier: u64,
    /// And its sequence.
    pub(crate) barrier_seq: u64,
}

/// Messages of this store whose fate nobody knows, by number, and those that were seen to be stored.
pub(crate) type Landed = BTreeMap<u64, u64>;

impl Shard {
    pub(crate) fn new(number: u16, stream: String) -> Self {
        Self { number, stream, state: Mutex::default(), begun: AtomicU64::new(0), seen: AtomicU64::new(0) }
    }

    /// Up to where messages of chains are known to be stored: whoever reads and finds less has asked a server that lags
    /// behind.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// A message of a chain is stored under this sequence.
    pub(crate) fn note_seen(&self, seq: u64) {
        self.seen.fetch_max(seq, Ordering::SeqCst);
    }

    pub(crate) fn barrier_subject(&self, inner: &Inner) -> String {
        format!("{}.sync.{}", inner.prefix, self.number)
    }

    pub(crate) fn subject(&self, inner: &Inner, customer: CustomerId) -> String {
        format!("{}.chain.{}.{customer}", inner.prefix, self.number)
    }

    /// Locks the shard with everything known that was acknowledged to anybody before this call. Calls that wait for
    /// each other share a barrier that began after they did.
    pub(crate) async fn fresh(&self, inner: &Inner, until: Instant) -> Result<MutexGuard<'_, State>, StoreError> {
        let begun = self.begun.load(Ordering::SeqCst);
        let mut state = self.locked(until).await?;
        if state.barrier <= begun {
            self.refresh(inner, &mut state, &mut Landed::new(), until).await?;
        }
        Ok(state)
    }

    /// Locks the shard with what is known by now. Calls before this one have the same patience, and began earlier.
    pub(crate) async fn locked(&self, until: Instant) -> Result<MutexGuard<'_, State>, StoreError> {
        let locked = timeout_at(until.into(), self.state.lock()).await;
        locked.map_err(|_| failed("wait for calls before this one", &self.stream, "they do not end"))
    }

    /// Makes a barrier and catches up with it. `pending` are this store's messages to look out for.
    pub(crate) async fn refresh(
        &self,
        inner: &Inner,
        state: &mut State,
        pending: &mut Landed,
        until: Instant,
    ) -> Result<(), StoreError> {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let subject = self.barrier_subject(inner);
        let seq = loop {
            match inner.net.publish(&subject, None, Bytes::new()).await {
                Published::At(seq) => break seq,
                Published::Refused(code, text) => {
                    self.pause_or(until, || failed("make a barrier", &subject, format!("{text} ({code})"))).await?;
                }
                Published::Unknown => {
                    let why = "no answer: no leader, no majority, or no connection";
                    self.pause_or(until, || failed("make a barrier", &subject, why)).await?;
                }
            }
        };
        if seq <= state.seq {
            return Err(has_lost(&self.stream, state.seq, seq));
        }
        self.catch_up(inner, state, seq, BTreeMap::from([(seq, None)]), pending, until).await?;
        (state.barrier, state.barrier_seq) = (number, seq);
        Ok(())
    }

    pub(crate) async fn pause_or(&self, until: Instant, error: impl FnOnce() -> StoreError) -> Result<(), StoreError> {
        if Instant::now() > until {
            return Err(error());
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// Follows everything up to `to`. `own` are messages whose content is known.
    pub(crate) async fn catch_up(
        &self,
        inner: &Inner,
        state: &mut State,
        to: u64,
        mut own: BTreeMap<u64, Option<(CustomerId, Known, u64)>>,
        pending: &mut Landed,
        until: Instant,
    ) -> Result<(), StoreError> {
        let foreign = (to - state.seq).saturating_sub(own.len() as u64);
        if foreign > FOLLOW_MAX && pending.is_empty() {
            state.heads.clear();
            state.customers = None;
            for (seq, mine) in own {
                if let Some((customer, known, _)) = mine {
                    state.heads.insert(customer, known);
                }
                state.seq = state.seq.max(seq);
            }
            state.seq = state.seq.max(to);
            return Ok(());
        }
        while state.seq < to {
            let next = state.seq + 1;
            match own.remove(&next) {
                Some(None) => state.seq = next,
                Some(Some((customer, known, before_seq))) => {
                    self.note_own(state, customer, known, before_seq)?;
                    state.seq = next;
                }
                None => {
                    let before = own.keys().next().map_or(to, |seq| seq - 1);
                    for message in self.read_all(inner, next, before, until).await? {
                        self.note_other(inner, state, &message, pending)?;
                    }
                    state.seq = before;
                }
            }
        }
        Ok(())
    }

    fn note_own(
        &self,
        state: &mut State,
        customer: CustomerId,
        known: Known,
        before_seq: u64,
    ) -> Result<(), StoreError> {
        let there = state.heads.get(&customer).map_or(before_seq, |there| there.seq);
        if there != before_seq {
            let what = format!("customer {customer}: stored behind {before_seq}, although {there} was there already");
            return Err(damaged(&self.stream, known.seq, what));
        }
        if let Some(customers) = &mut state.customers {
            customers.insert(customer);
        }
        state.heads.insert(customer, known);
        Ok(())
    }

    /// Follows a message that somebody else wrote; or this store, without having heard of it.
    fn note_other(
        &self,
        inner: &Inner,
        state: &mut State,
        stored: &Stored,
        pending: &mut Landed,
    ) -> Result<(), StoreError> {
        let Some(customer) = inner.customer_of(&stored.subject) else { return Ok(()) };
        self.note_seen(stored.seq);
        let message = self.decode(stored, customer)?;
        if message.writer == inner.writer
            && let Some(landed) = pending.get_mut(&message.number)
        {
            *landed = stored.seq;
        }
        if let Some(customers) = &mut state.customers {
            customers.insert(customer);
        }
        let Some(known) = state.heads.get_mut(&customer) else { return Ok(()) };
        if stored.seq <= known.seq {
            return Ok(());
        }
        match known.follow(&message, stored.seq) {
            Some(Ok(())) => Ok(()),
            Some(Err(what)) => Err(damaged(&self.stream, stored.seq, format!("customer {customer}: {what}"))),
            None => {
                let what = format!(
                    "customer {customer}: this message builds on {}, while {} was there already: the chain has forked",
                    message.previous, known.seq
                );
                Err(damaged(&self.stream, stored.seq, what))
            }
        }
    }

    pub(crate) fn decode(&self, stored: &Stored, customer: CustomerId) -> Result<ChainMessage, StoreError> {
        ChainMessage::decode(&stored.payload, customer).map_err(|error| {
            damaged(&self.stream, stored.seq, format!("a message of customer {customer}: {}", error.0))
        })
    }

    /// Every message from one sequence to another, in order. One that a replica does not have, or has damaged, is
    /// asked of the others.
    pub(crate) async fn read_all(
        &self,
        inner: &Inner,
        from: u64,
        to: u64,
        until: Instant,
    ) -> Result<Vec<Stored>, StoreError> {
        let mut all: Vec<Stored> = Vec::new();
        let mut next = from;
        while next <= to {
            let count = READ_COUNT.min(to - next + 1);
            let got = inner.net.from(&self.stream, next, None, count).await.unwrap_or_default();
            let before = next;
            for message in got {
                if message.seq != next || next > to || !inner.is_sound(&message) {
                    break;
                }
                next += 1;
                all.push(message);
            }
            if next > before {
                continue;
            }
            // That replica lags behind, or has lost this message.
            let others = join_all((0..ASKS).map(|_| inner.net.at(&self.stream, next))).await;
            let is_sound = |found: &&Stored| found.seq == next && inner.is_sound(found);
            if let Some(message) = others.iter().flatten().find(is_sound) {
                if others.iter().flatten().any(|found| !is_sound(&found)) {
                    inner.note_lost(&self.stream, next, None);
                }
                all.push(message.clone());
                next += 1;
                continue;
            }
            let what = "no server gives this message";
            self.pause_or(until, || damaged(&self.stream, next, what)).await?;
        }
        Ok(all)
    }

    /// Brings the heads of these customers to memory, as of what is known or later.
    pub(crate) async fn bring(
        &self,
        inner: &Inner,
        state: &mut State,
        customers: &[CustomerId],
        until: Instant,
    ) -> Result<(), StoreError> {
        let missing: Vec<CustomerId> =
            customers.iter().filter(|customer| !state.heads.contains_key(customer)).copied().collect();
        if state.heads.len() + missing.len() > inner.options.cache_customers_max && !missing.is_empty() {
            let wanted: BTreeSet<CustomerId> = customers.iter().copied().collect();
            state.heads.retain(|customer, _| wanted.contains(customer));
        }
        // A replica that has the barrier has to have everything that is known here.
        if !missing.is_empty() && state.barrier_seq != state.seq {
            self.refresh(inner, state, &mut Landed::new(), until).await?;
        }
        for customers in missing.chunks(SUBJECTS_MAX) {
            for (customer, known) in self.newest(inner, state, customers, until).await? {
                state.heads.insert(customer, known);
            }
        }
        Ok(())
    }

    pub(crate) fn head<'a>(&self, state: &'a State, customer: CustomerId) -> Result<&'a Known, StoreError> {
        state.heads.get(&customer).ok_or_else(|| failed("find a head that was loaded", &self.stream, customer))
    }

    /// Reads the newest messages of customers. The answers of two servers are compared, each of
    /// which has the barrier. Where they differ although both had to have it, one has lost a message; the newer one is the truth.
    async fn newest(
        &self,
        inner: &Inner,
        state: &State,
        customers: &[CustomerId],
        until: Instant,
    ) -> Result<Vec<(CustomerId, Known)>, StoreError> {
        let barrier = self.barrier_subject(inner);
        let mut subjects: Vec<String> = customers.iter().map(|customer| self.subject(inner, *customer)).collect();
        subjects.push(barrier.clone());
        let wanted = inner.read_replicas;
        let mut answers: Vec<(u64, Newest)> = Vec::new();
        let mut untold = 0;
        loop {
            let asked = (0..wanted).map(|_| inner.net.newest(&self.stream, &subjects));
            for found in join_all(asked).await.into_iter().flatten() {
                let barrier_seq = found.messages.get(&barrier).map_or(0, |message| message.seq);
                if barrier_seq == 0 {
                    inner.note_empty(&self.stream, state.barrier_seq, found.server.clone());
                }
                if barrier_seq < state.barrier_seq {
                    continue;
                }
                let is_new = answers.iter().all(|(_, answer)| answer.server.is_none() || answer.server != found.server);
                untold += usize::from(found.server.is_none());
                if is_new {
                    answers.push((barrier_seq, found));
                }
            }
            // Where the cluster does not tell who answers, several answers must do.
            let told = answers.iter().filter(|(_, answer)| answer.server.is_some()).count();
            if told >= wanted || untold >= UNTOLD_ASKS || (wanted == 1 && !answers.is_empty()) {
                break;
            }
            let what = "not enough replicas answer with what they must have";
            self.pause_or(until, || failed("read heads", &self.stream, what)).await?;
        }
        let mut heads = Vec::with_capacity(customers.len());
        for (customer, subject) in customers.iter().zip(&subjects) {
            let sound = |found: &Newest| found.messages.get(subject).filter(|message| inner.is_sound(message)).cloned();
            let there: Vec<Option<Stored>> = answers.iter().map(|(_, found)| sound(found)).collect();
            let seqs: Vec<(u64, u64)> =
                answers.iter().zip(&there).map(|((upto, _), m)| (*upto, m.as_ref().map_or(0, |m| m.seq))).collect();
            let (best_seq, lacking) = judge(&seqs);
            for place in lacking {
                inner.note_lost(&self.stream, best_seq, answers[place].1.server.clone());
            }
            let best = there.iter().flatten().find(|message| message.seq == best_seq);
            let unsound =
                answers.iter().filter_map(|(_, found)| found.messages.get(subject)).map(|message| message.seq);
            if let Some(newest) = unsound.max().filter(|newest| *newest > best_seq) {
                // All of these have it damaged; another may not.
                let message = self.read_all(inner, newest, newest, until).await?.pop();
                let message = message.ok_or_else(|| damaged(&self.stream, newest, "no server gives this message"))?;
                heads.push((*customer, self.known_by(inner, *customer, &message, until).await?));
                continue;
            }
            heads.push(match best {
                Some(message) => (*customer, self.known_by(inner, *customer, message, until).await?),
                None => (*customer, Known::nobody(&inner.digest, *customer)),
            });
        }
        Ok(heads)
    }

    async fn known_by(
        &self,
        inner: &Inner,
        customer: CustomerId,
        stored: &Stored,
        until: Instant,
    ) -> Result<Known, StoreError> {
        let message = self.decode(stored, customer)?;
        let mut earlier = Vec::new();
        for &seq in &message.open_in {
            for found in self.read_all(inner, seq, seq, until).await? {
                earlier.push((seq, self.decode(&found, customer)?));
            }
        }
        Known::by(&message, stored.seq, &earlier)
            .map_err(|what| damaged(&self.stream, stored.seq, format!("customer {customer}: {what}")))
    }

    /// All customers of this stream, in order of id.
    pub(crate) async fn customers<'a>(
        &self,
        inner: &Inner,
        state: &'a mut State,
        until: Instant,
    ) -> Result<&'a BTreeSet<CustomerId>, StoreError> {
        if state.customers.is_none() {
            let filter = format!("{}.chain.{}.*", inner.prefix, self.number);
            let (subjects, _) = inner.subjects(&self.stream, &filter, state.seq, until).await?;
            state.customers = Some(subjects.iter().filter_map(|subject| inner.customer_of(subject)).collect());
        }
        Ok(state.customers.get_or_insert_default())
    }
}

/// What several replicas say of one subject: each the sequence up to which it has everything, and that of the newest
/// message it gives, 0 for none. Gives the newest, and the places of those who lack it although they have to have it.
fn judge(answers: &[(u64, u64)]) -> (u64, Vec<usize>) {
    let newest = answers.iter().map(|(_, seq)| *seq).max().unwrap_or(0);
    let lacks = |(upto, seq): &(u64, u64)| newest <= *upto && *seq < newest;
    (newest, (0..).zip(answers).filter(|(_, answer)| lacks(answer)).map(|(place, _)| place).collect())
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn the_newest_answer_counts_and_who_lacks_it_is_named() {
        let table: [(&[(u64, u64)], u64, &[usize]); 7] = [
            (&[], 0, &[]),
            (&[(10, 0), (10, 0)], 0, &[]),
            (&[(10, 7), (10, 7)], 7, &[]),
            // One has lost the newest message, or all of them.
            (&[(10, 3), (10, 7)], 7, &[0]),
            (&[(10, 7), (12, 0)], 7, &[1]),
            // One is further than the other, which does not have to have that yet.
            (&[(10, 3), (15, 12)], 12, &[]),
            (&[(12, 3), (15, 12)], 12, &[0]),
        ];
        for (answers, newest, lacking) in table {
            assert_eq!(judge(answers), (newest, lacking.to_vec()), "{answers:?}");
        }
    }
}
