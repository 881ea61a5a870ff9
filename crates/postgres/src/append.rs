//! Appending to chains: each call is one statement, or a few where somebody else was faster.
//!
//! **An event** is inserted only if the one before it is there, and nobody's event is at its place: the primary key
//! (customer, seq) decides. Events are never deleted, so a chain has no hole. Of a run of one customer's events only
//! the first needs the key: the others are inserted if the first one was, and nobody else can put an event behind
//! one that is not committed yet.
//!
//! **A status** is inserted the same way: only for an event that is there under that id, and only if the one before
//! it is closed. The first row for an event wins.
//!
//! What goes with it in the same statement: the sums and counts of exactly the rows that were inserted, and a note of
//! the customers whose events are under way.
//!
//! Rows are sorted by customer, so that two engines wait for each other in one order.

use crate::known::{Ends, UnderWay, packed, place_of};
use crate::server::{Answer, Form, Texts};
use crate::statements::{BEFORE, STATUS};
use crate::store::PostgresStore;
use crate::values::{ABORTED, Columns, DONE, DONE_BY_HAND, Uuid, big, count_of, uuid};
use bursar_core::commit::Appended;
use bursar_core::event::{aborted_link, done_by_hand_link};
use bursar_core::{
    AbortReason, CustomerId, EventId, EventRef, EventStatus, Hash, Head, LinkedEvent, ReasonText, Record,
};
use bursar_engine::store::StoreError;
use std::collections::{BTreeMap, HashSet};
use std::sync::{MutexGuard, PoisonError};
use tokio_postgres::types::ToSql;

/// The columns of events to be appended.
#[derive(Default)]
struct NewEvents<'a> {
    events: Vec<&'a LinkedEvent>,
    customers: Vec<Uuid>,
    ids: Vec<Uuid>,
    transactions: Vec<Option<Uuid>>,
    seqs: Vec<i64>,
    times_ms: Vec<i64>,
    amounts: Vec<i64>,
    available: Vec<i64>,
    held: Vec<i64>,
    packed: Vec<i64>,
    hashes: Vec<&'a [u8]>,
    other_currencies: Vec<Option<String>>,
    other_available: Vec<Option<String>>,
    other_held: Vec<Option<String>>,
    at: Vec<i32>,
    keys: Vec<Option<Uuid>>,
}

impl<'a> NewEvents<'a> {
    fn push(&mut self, linked: &'a LinkedEvent, seq: i64, time_ms: i64, at: i32) {
        let event = &linked.event;
        let account = event.account();
        self.events.push(linked);
        self.customers.push(uuid(event.customer));
        self.ids.push(Uuid(linked.id().bits()));
        self.transactions.push(event.transaction.map(|id| Uuid(id.bits())));
        self.seqs.push(seq);
        self.times_ms.push(time_ms);
        self.amounts.push(event.amount.steps());
        self.available.push(account.available.steps());
        self.held.push(account.held.steps());
        self.packed.push(packed(event));
        self.hashes.push(linked.hash.as_bytes());
        let has_others = event.state.accounts.len() > 1;
        let list = |of: &dyn Fn((bursar_core::CurrencyIndex, bursar_core::Account)) -> i64| {
            let values: Vec<String> = event.other_accounts().map(|other| of(other).to_string()).collect();
            has_others.then(|| format!("{{{}}}", values.join(",")))
        };
        self.other_currencies.push(list(&|(currency, _)| i64::from(currency.0)));
        self.other_available.push(list(&|(_, account)| account.available.steps()));
        self.other_held.push(list(&|(_, account)| account.held.steps()));
        self.at.push(at);
        self.keys.push(event.key.map(|key| Uuid(key.bits())));
    }
}

/// The columns of closing records.
#[derive(Default)]
struct NewStatuses<'a> {
    records: Vec<usize>,
    customers: Vec<Uuid>,
    seqs: Vec<i64>,
    ids: Vec<Uuid>,
    at: Vec<i32>,
    statuses: Vec<i16>,
    reasons: Vec<Option<i16>>,
    said: Vec<Option<&'a str>>,
    links: Vec<Option<Vec<u8>>>,
    done_seqs: Vec<Option<i64>>,
    times_ms: Vec<Option<i64>>,
}

/// What the events of a wave move, one by one and added up.
#[derive(Default)]
struct OwnSums {
    packed: Vec<i64>,
    amounts: Vec<i64>,
    currencies: Vec<i16>,
    kinds: Vec<i16>,
    withdrawals: Vec<bool>,
    counts: Vec<i64>,
    sums: Vec<String>,
}

/// Which rows of a statement were inserted.
enum Won {
    All,
    These(HashSet<(Uuid, i64)>),
}

impl Won {
    fn has(&self, customer: Uuid, seq: i64) -> bool {
        match self {
            Self::All => true,
            Self::These(rows) => rows.contains(&(customer, seq)),
        }
    }

    fn is_none(&self) -> bool {
        match self {
            Self::All => false,
            Self::These(rows) => rows.is_empty(),
        }
    }

    fn add(&mut self, customer: Uuid, seq: i64) {
        match self {
            Self::All => {}
            Self::These(rows) => {
                rows.insert((customer, seq));
            }
        }
    }
}

/// How a record closes its event.
#[derive(Clone, Copy)]
enum Closing<'a> {
    Done,
    DoneByHand(&'a ReasonText),
    Aborted(&'a AbortReason),
}

impl<'a> Closing<'a> {
    const fn status(self) -> i16 {
        match self {
            Self::Done => DONE,
            Self::DoneByHand(_) => DONE_BY_HAND,
            Self::Aborted(_) => ABORTED,
        }
    }

    /// The code of the reason, where there are several.
    fn reason(self) -> Option<i16> {
        match self {
            Self::Done | Self::DoneByHand(_) => None,
            Self::Aborted(reason) => Some(i16::from(reason.code())),
        }
    }

    fn said(self) -> Option<&'a str> {
        match self {
            Self::Done => None,
            Self::DoneByHand(reason) => Some(reason.as_str()),
            Self::Aborted(reason) => Some(reason.text()),
        }
    }
}

/// A closing record: which event, and how.
const fn closing(record: &Record) -> Option<(EventRef, Closing<'_>)> {
    match record {
        Record::Started(_) => None,
        Record::Done(event) => Some((*event, Closing::Done)),
        Record::DoneByHand(event, reason) => Some((*event, Closing::DoneByHand(reason))),
        Record::Aborted(event, reason) => Some((*event, Closing::Aborted(reason))),
    }
}

impl PostgresStore {
    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch by which it is known that each of these places has an event in front of it that is done, or is the
    /// first; `None` where that is not known of all.
    fn known_before(&self, customers: &[Uuid], seqs: &[i64]) -> Option<u64> {
        let ends = self.ends();
        let mut places = customers.iter().zip(seqs);
        places.all(|(customer, seq)| ends.covers(CustomerId::new(customer.0), seq - 1)).then_some(ends.epoch())
    }

    /// See [`bursar_engine::store::Chains::append`].
    pub(crate) fn append_records(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        let mut failed: HashSet<CustomerId> = HashSet::new();
        let mut rest = records;
        while let Some(first) = rest.first() {
            let is_start = |record: &Record| matches!(record, Record::Started(_));
            let count = rest.iter().take_while(|record| is_start(record) == is_start(first)).count();
            let (part, after) = rest.split_at(count);
            rest = after;
            let begun = results.len();
            if is_start(first) {
                self.append_started(part, &mut failed, results)?;
            } else {
                self.append_closing(part, &mut failed, results)?;
            }
            debug_assert_eq!(results.len() - begun, part.len());
        }
        Ok(())
    }

    fn append_started(
        &self,
        records: &[Record],
        failed: &mut HashSet<CustomerId>,
        results: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        let started = |place: usize| match records.get(place) {
            Some(Record::Started(linked)) => Some(linked),
            Some(Record::Done(_) | Record::DoneByHand(..) | Record::Aborted(..)) | None => None,
        };
        let mut order: Vec<usize> = (0..records.len()).collect();
        order.sort_by_key(|&place| records[place].customer());
        let mut columns = NewEvents::default();
        let mut places: Vec<usize> = Vec::with_capacity(records.len());
        let mut last: Option<(CustomerId, u64, i32)> = None;
        for place in order {
            let Some(linked) = started(place) else { continue };
            let (customer, seq) = (linked.event.customer, linked.event.seq);
            let at = match last {
                Some((of, before, at)) if of == customer => {
                    if before.checked_add(1) != Some(seq) {
                        // Not the next place, whatever becomes of the one before. Nor is what follows.
                        failed.insert(customer);
                        continue;
                    }
                    at + 1
                }
                Some(_) | None => 0,
            };
            if failed.contains(&customer) {
                continue;
            }
            let Some((row_seq, time_ms)) = big(seq).filter(|seq| *seq > 0).zip(big(linked.event.time_ms)) else {
                failed.insert(customer);
                continue;
            };
            last = Some((customer, seq, at));
            columns.push(linked, row_seq, time_ms, at);
            places.push(place);
        }
        let won = self.insert_events(&columns)?;
        let first_result = results.len();
        results.resize(first_result + records.len(), Appended::Conflict);
        for (&place, customer_seq) in places.iter().zip(columns.customers.iter().zip(&columns.seqs)) {
            if won.has(*customer_seq.0, *customer_seq.1) {
                results[first_result + place] = Appended::Yes;
            }
        }
        for (result, record) in results[first_result..].iter().zip(records) {
            if *result != Appended::Yes {
                failed.insert(record.customer());
            }
        }
        Ok(())
    }

    /// Inserts events; gives the places that are theirs.
    fn insert_events(&self, columns: &NewEvents<'_>) -> Result<Won, StoreError> {
        if columns.customers.is_empty() {
            return Ok(Won::All);
        }
        let batch = self.next_batch();
        let over: Vec<Uuid> = self.under_way().over.iter().map(|&batch| Uuid(batch)).collect();
        let begun = self.server.durability().begin();
        let NewEvents {
            customers, ids, transactions, seqs, times_ms, amounts, available, held, packed, hashes, ..
        } = columns;
        let count = count_of(customers.len());
        let (slot, batch_id) = (self.slot, Uuid(batch));
        let single: [&(dyn ToSql + Sync); 14] = [
            customers,
            ids,
            transactions,
            seqs,
            times_ms,
            amounts,
            available,
            held,
            packed,
            hashes,
            &slot,
            &batch_id,
            &over,
            &count,
        ];
        let is_single = columns.at.iter().all(|at| *at == 0)
            && columns.other_currencies.iter().all(Option::is_none)
            && columns.keys.iter().all(Option::is_none);
        let doing = "append events to the chains";
        let answer = if is_single {
            let [checked, careful] = self.growing.append_single;
            let plain = self.known_before(customers, seqs).map(|epoch| (epoch, self.growing.append_plain));
            self.server.insert(doing, &Texts { plain, checked, careful }, &single)?
        } else {
            let further: [&(dyn ToSql + Sync); 5] =
                [&columns.other_currencies, &columns.other_available, &columns.other_held, &columns.at, &columns.keys];
            self.server.call(doing, self.growing.append_runs, &[&single[..], &further[..]].concat())?
        };
        let mut won = self.won(&answer, count, begun)?;
        if answer.repeated {
            // The answer of an earlier attempt was lost: what is there under these very ids came with it.
            let answer = self.server.call("look for events", STATUS, &[customers, seqs, ids])?;
            self.server.durability().read(answer.timeline);
            for row in &answer.rows {
                let place: i64 = Columns::new(row, self.place()).get()?;
                let at = usize::try_from(place - 1).unwrap_or(usize::MAX);
                if let Some((&customer, &seq)) = customers.get(at).zip(seqs.get(at)) {
                    won.add(customer, seq);
                }
            }
        }
        let mut under_way = self.under_way();
        under_way.over.retain(|batch| !over.contains(&Uuid(*batch)));
        let theirs = (0..customers.len()).filter(|&at| won.has(customers[at], seqs[at]));
        under_way.begun(batch, theirs.map(|at| columns.events[at].clone()));
        Ok(won)
    }

    /// Reads which rows a statement has inserted.
    fn won(&self, answer: &Answer, count: i64, begun: u64) -> Result<Won, StoreError> {
        if answer.form == Form::Plain {
            self.server.wrote(begun, answer);
            return Ok(Won::All);
        }
        let Some(row) = answer.rows.first() else { return Ok(Won::These(HashSet::new())) };
        let mut row = Columns::new(row, self.place());
        let (inserted, customers, seqs): (i64, Vec<Uuid>, Vec<i64>) = (row.get()?, row.get()?, row.get()?);
        let won = if inserted == count { Won::All } else { Won::These(customers.into_iter().zip(seqs).collect()) };
        if !won.is_none() {
            self.server.wrote(begun, answer);
        }
        Ok(won)
    }

    fn append_closing(
        &self,
        records: &[Record],
        failed: &mut HashSet<CustomerId>,
        results: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        let mut decided: Vec<Option<Appended>> = vec![None; records.len()];
        let mut order: Vec<usize> = (0..records.len()).collect();
        order.sort_by_key(|&place| records[place].customer());
        while !order.is_empty() {
            self.close_wave(records, &order, failed, &mut decided)?;
            order.retain(|&place| decided[place].is_none());
        }
        results.extend(decided.into_iter().map(|result| result.unwrap_or(Appended::Conflict)));
        Ok(())
    }

    /// Decides at least one record of each customer: as many as follow each other.
    fn close_wave(
        &self,
        records: &[Record],
        order: &[usize],
        failed: &mut HashSet<CustomerId>,
        decided: &mut [Option<Appended>],
    ) -> Result<(), StoreError> {
        let mut wave = NewStatuses::default();
        let mut last: Option<(CustomerId, Option<u64>, i32)> = None;
        for &place in order {
            let Some((event, how)) = closing(&records[place]) else { continue };
            if how.status() != ABORTED && failed.contains(&event.customer) {
                decided[place] = Some(Appended::Conflict);
                continue;
            }
            let at = match last {
                Some((of, next, at)) if of == event.customer => {
                    if next != Some(event.seq) {
                        // For a later wave, and so is what follows.
                        last = Some((of, None, at));
                        continue;
                    }
                    at + 1
                }
                Some(_) | None => 0,
            };
            last = Some((event.customer, event.seq.checked_add(1), at));
            let Some(seq) = big(event.seq).filter(|seq| *seq > 0) else {
                decided[place] = Some(Appended::Conflict);
                failed.insert(event.customer);
                last = Some((event.customer, None, at));
                continue;
            };
            wave.records.push(place);
            wave.customers.push(uuid(event.customer));
            wave.seqs.push(seq);
            wave.ids.push(Uuid(event.id.bits()));
            wave.at.push(at);
            wave.statuses.push(how.status());
            wave.reasons.push(how.reason());
            wave.said.push(how.said());
        }
        if wave.records.is_empty() {
            return Ok(());
        }
        let (won, epoch) = self.insert_statuses(&mut wave, records)?;
        let lost = wave.customers.iter().zip(&wave.seqs).any(|(customer, seq)| !won.has(*customer, *seq));
        let found = if lost { self.find_statuses(&wave)? } else { Vec::new() };
        let mut stopped: Option<Uuid> = None;
        for (index, &place) in wave.records.iter().enumerate() {
            let (customer, at) = (wave.customers[index], wave.at[index]);
            if stopped == Some(customer) {
                continue;
            }
            let result = if won.has(customer, wave.seqs[index]) {
                Appended::Yes
            } else {
                match found.get(index).and_then(Option::as_ref) {
                    // Judged anew as the first one, since the one before it was closed by somebody else.
                    Some(EventStatus::Started) if at > 0 => {
                        stopped = Some(customer);
                        continue;
                    }
                    Some(status) => Appended::closed_already(status).unwrap_or(Appended::Conflict),
                    None => Appended::Conflict,
                }
            };
            let record = &records[place];
            if let Some((event, how)) = closing(record).filter(|_| result != Appended::Conflict) {
                let own = self.under_way().closed(event.id);
                if let Some(linked) = own.filter(|_| result == Appended::Yes && matches!(how, Closing::Done)) {
                    self.ends().done(epoch, linked);
                }
            }
            if !result.is_as_wanted(record) {
                failed.insert(record.customer());
                stopped = Some(customer);
            }
            decided[place] = Some(result);
        }
        Ok(())
    }

    /// Gives which rows are its own, and the epoch of the server that has them.
    fn insert_statuses(&self, wave: &mut NewStatuses<'_>, records: &[Record]) -> Result<(Won, u64), StoreError> {
        let doing = "close events of the chains";
        let count = count_of(wave.records.len());
        let all_done = wave.statuses.iter().all(|status| *status == DONE);
        let is_single = all_done && wave.at.iter().all(|at| *at == 0);
        if let Some(own) = is_single.then(|| self.own(wave)).flatten() {
            let begun = self.server.durability().begin();
            let NewStatuses { customers, seqs, .. } = &*wave;
            let OwnSums { packed, amounts, currencies, kinds, withdrawals, counts, sums } = &own;
            let [checked, careful] = self.growing.close_own;
            let plain = self.known_before(customers, seqs).map(|epoch| (epoch, self.growing.close_plain));
            let answer = self.server.insert(
                doing,
                &Texts { plain, checked, careful },
                &[customers, seqs, packed, amounts, &self.slot, &count, currencies, kinds, withdrawals, counts, sums],
            )?;
            return Ok((self.won(&answer, count, begun)?, answer.epoch));
        }
        if all_done {
            let count = wave.records.len();
            (wave.links, wave.done_seqs, wave.times_ms) = (vec![None; count], vec![None; count], vec![None; count]);
        } else {
            self.link_ends(wave, records)?;
        }
        let begun = self.server.durability().begin();
        let NewStatuses { customers, seqs, ids, at, statuses, reasons, said, links, done_seqs, times_ms, .. } = &*wave;
        let answer = self.server.call(
            doing,
            self.growing.close_any,
            &[customers, seqs, ids, at, &self.slot, &count, statuses, reasons, said, links, done_seqs, times_ms],
        )?;
        Ok((self.won(&answer, count, begun)?, answer.epoch))
    }

    /// What events move, if all of them were appended by this store.
    fn own(&self, wave: &NewStatuses<'_>) -> Option<OwnSums> {
        let under_way = self.under_way();
        let mut own = OwnSums::default();
        let mut sums: BTreeMap<i64, (i64, i128)> = BTreeMap::new();
        for (id, at) in wave.ids.iter().zip(wave.customers.iter().copied().zip(wave.seqs.iter().copied())) {
            let event = &under_way.get(EventId::from_first_bits(id.0))?.event;
            if place_of(event) != (at.0, Some(at.1)) {
                return None;
            }
            let (packed, amount) = (packed(event), event.amount.steps());
            own.packed.push(packed);
            own.amounts.push(amount);
            // Kind, currency, and whether it is of a withdrawal.
            let sum = sums.entry(packed & 0x0100_ffff).or_default();
            *sum = (sum.0 + 1, sum.1 + i128::from(amount));
        }
        for (packed, (count, sum)) in sums {
            own.kinds.push((packed & 0xff) as i16);
            own.currencies.push((packed >> 8 & 0xff) as i16);
            own.withdrawals.push(packed & 0x0100_0000 != 0);
            own.counts.push(count);
            own.sums.push(sum.to_string());
        }
        Some(own)
    }

    /// How the events of a wave stand, by their places; `None` for one that is not there.
    fn find_statuses(&self, wave: &NewStatuses<'_>) -> Result<Vec<Option<EventStatus>>, StoreError> {
        let answer = self.server.call("look how events stand", STATUS, &[&wave.customers, &wave.seqs, &wave.ids])?;
        self.server.durability().read(answer.timeline);
        let mut found = vec![None; wave.records.len()];
        for row in &answer.rows {
            let mut row = Columns::new(row, self.place());
            let at = usize::try_from(row.get::<i64>()? - 1).unwrap_or(usize::MAX);
            if let Some(found) = found.get_mut(at) {
                *found = Some(row.status()?);
            }
        }
        Ok(found)
    }

    /// Finds out what the chain's end is behind each event that is not simply done. What is before an event that can be closed never
    /// changes any more, so this can be read ahead; if the event cannot be closed, nothing of it is written.
    fn link_ends(&self, wave: &mut NewStatuses<'_>, records: &[Record]) -> Result<(), StoreError> {
        let answer = self.server.call("read the ends of chains", BEFORE, &[&wave.customers, &wave.seqs, &wave.ids])?;
        self.server.durability().read(answer.timeline);
        let count = wave.records.len();
        (wave.links, wave.done_seqs, wave.times_ms) = (vec![None; count], vec![None; count], vec![None; count]);
        let mut rows: Vec<Option<&tokio_postgres::Row>> = vec![None; count];
        for row in &answer.rows {
            let at = usize::try_from(Columns::new(row, self.place()).get::<i64>()? - 1).unwrap_or(usize::MAX);
            if let Some(slot) = rows.get_mut(at) {
                *slot = Some(row);
            }
        }
        // The link, and the newest event in effect, behind the record before.
        let mut end: Option<(Hash, i64)> = None;
        for index in 0..count {
            let Some(row) = rows[index] else {
                end = None;
                continue;
            };
            let mut row = Columns::new(row, self.place());
            row.skip(1);
            let (time_ms, hash): (i64, &[u8]) = (row.get()?, row.get()?);
            let hash = Hash(hash.try_into().map_err(|_| row.damaged("a hash is cut".to_owned()))?);
            let (seq, customer) = (wave.seqs[index], CustomerId::new(wave.customers[index].0));
            let before = if wave.at[index] > 0 {
                end
            } else if seq == 1 {
                Some((Head::start(&self.digest, customer).link, 0))
            } else {
                let (before, status): (Option<&[u8]>, Option<i16>) = (row.get()?, row.get()?);
                let (link, done_seq): (Option<&[u8]>, Option<i64>) = (row.get()?, row.get()?);
                let link = if status == Some(DONE) { before } else { link };
                let link = link.and_then(|link| <[u8; 32]>::try_from(link).ok()).map(Hash);
                link.zip(if status == Some(DONE) { Some(seq - 1) } else { done_seq })
            };
            end = match (closing(&records[wave.records[index]]), before) {
                (Some((_, how @ (Closing::DoneByHand(_) | Closing::Aborted(_)))), Some((link, done_seq))) => {
                    let (link, done_seq) = match how {
                        Closing::Done => (hash, seq),
                        Closing::DoneByHand(reason) => (done_by_hand_link(&link, &hash, reason), seq),
                        Closing::Aborted(reason) => (aborted_link(&link, &hash, reason), done_seq),
                    };
                    wave.links[index] = Some(link.as_bytes().to_vec());
                    wave.done_seqs[index] = Some(done_seq);
                    wave.times_ms[index] = Some(time_ms);
                    Some((link, done_seq))
                }
                (Some((_, Closing::Done)), _) => Some((hash, seq)),
                (Some(_) | None, _) => None,
            };
        }
        Ok(())
    }
}
