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

use crate::store::PostgresStore;
use crate::values::{ABORTED, Columns, DONE, Uuid, big, is_withdrawal, uuid};
use bursar_core::commit::Appended;
use bursar_core::event::aborted_link;
use bursar_core::{AbortReason, CustomerId, EventId, EventRef, EventStatus, Hash, Head, LinkedEvent, RailId, Record};
use bursar_engine::store::StoreError;
use std::collections::{HashMap, HashSet};
use std::sync::{MutexGuard, PoisonError};

macro_rules! append_events {
    ($from:literal, $rest:literal, $won:literal) => {
        concat!(
            "WITH n AS ", $from, " (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], \
               $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bytea[], $11::text[], $12::text[], \
               $13::text[], $14::int[]) AS n(customer, id, transaction, seq, time_ms, amount, available, held, packed, \
               hash, other_currencies, other_available, other_held, at)), \
             first AS (INSERT INTO events AS e (customer, id, transaction, seq, time_ms, amount, available, held, kind, \
               currency, rail, withdrawal, locked, hash, other_currencies, other_available, other_held) \
               SELECT n.customer, n.id, n.transaction, n.seq, n.time_ms, n.amount, n.available, n.held, \
               (n.packed & 255)::smallint, (n.packed >> 8 & 255)::smallint, \
               NULLIF(n.packed >> 16 & 255, 0)::smallint, n.packed & 16777216 <> 0, n.packed & 33554432 <> 0, \
               n.hash, n.other_currencies::smallint[], n.other_available::bigint[], n.other_held::bigint[] \
               FROM n WHERE n.at = 0 AND (SELECT count(*) FROM events p \
                 WHERE p.customer = n.customer AND p.seq = n.seq - 1) = CASE n.seq WHEN 1 THEN 0 ELSE 1 END \
               ON CONFLICT (customer, seq) DO NOTHING RETURNING e.customer, e.seq, e.time_ms)",
            $rest,
            ", counted AS (INSERT INTO counts (slot, last_time_ms, customer_count) \
               SELECT $15::smallint, max(w.time_ms), count(*) FILTER (WHERE w.seq = 1) FROM ", $won, " w \
               HAVING count(*) > 0 ON CONFLICT (slot) DO UPDATE SET \
               last_time_ms = greatest(counts.last_time_ms, excluded.last_time_ms), \
               customer_count = counts.customer_count + excluded.customer_count), \
             noted AS (INSERT INTO under_way (batch, customers) VALUES ($16::uuid, $1::uuid[]) \
               ON CONFLICT (batch) DO NOTHING), \
             over AS (DELETE FROM under_way WHERE batch = ANY ($17::uuid[])) \
             SELECT w.customer, w.seq FROM ", $won, " w"
        )
    };
}

/// Each customer has one event.
const APPEND_SINGLE: &str = append_events!("NOT MATERIALIZED", "", "first");
/// Some have runs.
const APPEND_RUNS: &str = append_events!(
    "MATERIALIZED",
    ", rest AS (INSERT INTO events AS e (customer, id, transaction, seq, time_ms, amount, available, held, kind, \
       currency, rail, withdrawal, locked, hash, other_currencies, other_available, other_held) \
       SELECT n.customer, n.id, n.transaction, n.seq, n.time_ms, n.amount, n.available, n.held, \
       (n.packed & 255)::smallint, (n.packed >> 8 & 255)::smallint, \
       NULLIF(n.packed >> 16 & 255, 0)::smallint, n.packed & 16777216 <> 0, n.packed & 33554432 <> 0, \
       n.hash, n.other_currencies::smallint[], n.other_available::bigint[], n.other_held::bigint[] \
       FROM n WHERE n.at > 0 AND (n.customer IN (SELECT f.customer FROM first f)) IS TRUE \
       ON CONFLICT (customer, seq) DO NOTHING RETURNING e.customer, e.seq, e.time_ms), \
     won AS (SELECT * FROM first UNION ALL SELECT * FROM rest)",
    "won"
);

macro_rules! append_statuses {
    ($ends:literal, $found_at:literal, $columns:literal, $rest:literal, $won:literal, $slot:literal) => {
        concat!(
            "WITH c AS MATERIALIZED (SELECT n.*, e.currency, e.kind, e.withdrawal, e.amount",
            $found_at,
            " FROM ",
            $ends,
            " JOIN events e ON e.customer = n.customer AND e.seq = n.seq AND e.id = n.id), \
             first AS (INSERT INTO statuses AS s (customer, seq, status, reason, said, link, done_seq, time_ms) \
               SELECT c.customer, c.seq, ",
            $columns,
            " FROM c \
               WHERE c.at = 0 AND (SELECT count(*) FROM statuses p \
                 WHERE p.customer = c.customer AND p.seq = c.seq - 1) = CASE c.seq WHEN 1 THEN 0 ELSE 1 END \
               ON CONFLICT (customer, seq) DO NOTHING RETURNING s.customer, s.seq)",
            $rest,
            ", summed AS (INSERT INTO sums (slot, currency, kind, withdrawal, event_count, amount) \
               SELECT ",
            $slot,
            "::smallint, s.* FROM (SELECT c.currency, c.kind, c.withdrawal, count(*), sum(c.amount) \
                 FROM (SELECT customer, seq, currency, withdrawal, amount, \
                   CASE WHEN status = 1 THEN kind ELSE 0 END AS kind FROM c) c \
                 WHERE ((c.customer, c.seq) IN (SELECT w.customer, w.seq FROM ",
            $won,
            " w)) IS TRUE \
                 GROUP BY c.currency, c.kind, c.withdrawal ORDER BY c.currency, c.kind, c.withdrawal) s \
               ON CONFLICT (slot, currency, kind, withdrawal) DO UPDATE SET \
               event_count = sums.event_count + excluded.event_count, amount = sums.amount + excluded.amount) \
             SELECT w.customer, w.seq FROM ",
            $won,
            " w"
        )
    };
}

/// Each customer has one event, and all are done.
const CLOSE_SINGLE: &str = append_statuses!(
    "(SELECT *, 1 AS status FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::int[]) AS u(customer, seq, id, at)) n",
    "",
    "1, NULL, NULL, NULL::bytea, NULL::bigint, NULL::bigint",
    "",
    "first",
    "$5"
);
/// Some have runs, some are aborted.
const CLOSE_ANY: &str = append_statuses!(
    "(SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::int[], $5::smallint[], $6::smallint[], $7::text[], \
      $8::bytea[], $9::bigint[], $10::bigint[]) AS u(customer, seq, id, at, status, reason, said, link, done_seq, \
      time_ms) WHERE u.status = 1 OR u.link IS NOT NULL) n",
    ", row_number() OVER (PARTITION BY n.customer ORDER BY n.seq) - 1 AS found_at",
    "c.status, c.reason, c.said, c.link, c.done_seq, c.time_ms",
    ", rest AS (INSERT INTO statuses AS s (customer, seq, status, reason, said, link, done_seq, time_ms) \
       SELECT c.customer, c.seq, c.status, c.reason, c.said, c.link, c.done_seq, c.time_ms FROM c \
       WHERE c.at > 0 AND c.at = c.found_at AND (c.customer IN (SELECT f.customer FROM first f)) IS TRUE \
       ON CONFLICT (customer, seq) DO NOTHING RETURNING s.customer, s.seq), \
     won AS (SELECT * FROM first UNION ALL SELECT * FROM rest)",
    "won",
    "$11"
);

/// How events stand: by place, for those that are there.
pub(crate) const STATUS: &str = "SELECT n.place, s.status, s.reason, s.said \
    FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) WITH ORDINALITY AS n(customer, seq, id, place) \
    JOIN events e ON e.customer = n.customer AND e.seq = n.seq AND e.id = n.id \
    LEFT JOIN statuses s ON s.customer = n.customer AND s.seq = n.seq";

/// What the end of a chain is right before an event: its time and hash, and the closed event before it.
const BEFORE: &str = "SELECT n.place, e.time_ms, e.hash, p.hash, s.status, s.link, s.done_seq \
    FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) WITH ORDINALITY AS n(customer, seq, id, place) \
    JOIN events e ON e.customer = n.customer AND e.seq = n.seq AND e.id = n.id \
    LEFT JOIN events p ON p.customer = n.customer AND p.seq = n.seq - 1 \
    LEFT JOIN statuses s ON s.customer = n.customer AND s.seq = n.seq - 1";

/// Which batches of this engine have events that are not known to be closed.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    events: HashMap<EventId, u128>,
    batches: HashMap<u128, usize>,
    /// Batches whose events are all closed: their notes can go.
    over: Vec<u128>,
}

impl UnderWay {
    fn begun(&mut self, batch: u128, events: impl Iterator<Item = EventId>) {
        let before = self.events.len();
        self.events.extend(events.map(|event| (event, batch)));
        match self.events.len() - before {
            0 => self.over.push(batch),
            count => drop(self.batches.insert(batch, count)),
        }
    }

    fn closed(&mut self, event: EventId) {
        let Some(batch) = self.events.remove(&event) else { return };
        let Some(count) = self.batches.get_mut(&batch) else { return };
        *count -= 1;
        if *count == 0 {
            self.batches.remove(&batch);
            self.over.push(batch);
        }
    }
}

/// The columns of events to be appended.
#[derive(Default)]
struct NewEvents<'a> {
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
}

impl<'a> NewEvents<'a> {
    fn push(&mut self, linked: &'a LinkedEvent, seq: i64, time_ms: i64, at: i32) {
        let event = &linked.event;
        let account = event.account();
        self.customers.push(uuid(event.customer));
        self.ids.push(Uuid(linked.id().bits()));
        self.transactions.push(event.transaction.map(|id| Uuid(id.bits())));
        self.seqs.push(seq);
        self.times_ms.push(time_ms);
        self.amounts.push(event.amount.steps());
        self.available.push(account.available.steps());
        self.held.push(account.held.steps());
        let flags = i64::from(is_withdrawal(event.transaction_kind)) << 24 | i64::from(event.state.locked) << 25;
        let rail = i64::from(event.rail.map_or(0, RailId::number));
        self.packed.push(i64::from(event.kind.code()) | i64::from(event.currency.0) << 8 | rail << 16 | flags);
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

/// A closing record: which event, and why it is aborted, if it is.
fn closing(record: &Record) -> Option<(EventRef, Option<&AbortReason>)> {
    match record {
        Record::Started(_) => None,
        Record::Done(event) => Some((*event, None)),
        Record::Aborted(event, reason) => Some((*event, Some(reason))),
    }
}

impl PostgresStore {
    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
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
            Some(Record::Done(_) | Record::Aborted(..)) | None => None,
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
            if won.contains(&(*customer_seq.0, *customer_seq.1)) {
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
    fn insert_events(&self, columns: &NewEvents<'_>) -> Result<HashSet<(Uuid, i64)>, StoreError> {
        if columns.customers.is_empty() {
            return Ok(HashSet::new());
        }
        let batch = self.next_batch();
        let over: Vec<Uuid> = self.under_way().over.iter().map(|&batch| Uuid(batch)).collect();
        let text = if columns.at.iter().all(|at| *at == 0) { APPEND_SINGLE } else { APPEND_RUNS };
        let begun = self.server.durability().begin();
        let NewEvents { customers, ids, transactions, seqs, times_ms, amounts, available, held, .. } = columns;
        let answer = self.server.call(
            "append events to the chains",
            text,
            &[
                customers,
                ids,
                transactions,
                seqs,
                times_ms,
                amounts,
                available,
                held,
                &columns.packed,
                &columns.hashes,
                &columns.other_currencies,
                &columns.other_available,
                &columns.other_held,
                &columns.at,
                &self.slot,
                &Uuid(batch),
                &over,
            ],
        )?;
        let mut won = HashSet::with_capacity(answer.rows.len());
        for row in &answer.rows {
            let mut row = Columns::new(row, self.place());
            won.insert((row.get::<Uuid>()?, row.get::<i64>()?));
        }
        if !won.is_empty() {
            self.server.durability().wrote(begun);
        }
        if answer.repeated && won.len() < customers.len() {
            // The answer of an earlier attempt was lost: what is there under these very ids came with it.
            self.server.durability().read();
            let answer = self.server.call("look for events", STATUS, &[customers, seqs, ids])?;
            for row in &answer.rows {
                let place: i64 = Columns::new(row, self.place()).get()?;
                let at = usize::try_from(place - 1).unwrap_or(usize::MAX);
                won.extend(customers.get(at).copied().zip(seqs.get(at).copied()));
            }
        }
        let mut under_way = self.under_way();
        under_way.over.retain(|batch| !over.contains(&Uuid(*batch)));
        let theirs = customers.iter().zip(seqs).zip(ids);
        let theirs = theirs.filter(|((customer, seq), _)| won.contains(&(**customer, **seq)));
        under_way.begun(batch, theirs.map(|(_, id)| EventId::from_first_bits(id.0)));
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
            let Some((event, reason)) = closing(&records[place]) else { continue };
            if reason.is_none() && failed.contains(&event.customer) {
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
            wave.statuses.push(if reason.is_none() { DONE } else { ABORTED });
            wave.reasons.push(reason.map(|reason| i16::from(reason.code())));
            wave.said.push(reason.map(AbortReason::text));
        }
        if wave.records.is_empty() {
            return Ok(());
        }
        let won = self.insert_statuses(&mut wave, records)?;
        let lost = wave.customers.iter().zip(&wave.seqs).any(|(customer, seq)| !won.contains(&(*customer, *seq)));
        let found = if lost { self.find_statuses(&wave)? } else { Vec::new() };
        let mut stopped: Option<Uuid> = None;
        for (index, &place) in wave.records.iter().enumerate() {
            let (customer, at) = (wave.customers[index], wave.at[index]);
            if stopped == Some(customer) {
                continue;
            }
            let result = if won.contains(&(customer, wave.seqs[index])) {
                Appended::Yes
            } else {
                match found.get(index).and_then(Option::as_ref) {
                    Some(EventStatus::Done) => Appended::AlreadyDone,
                    Some(EventStatus::Aborted(reason)) => Appended::AlreadyAborted(reason.clone()),
                    // Judged anew as the first one, since the one before it was closed by somebody else.
                    Some(EventStatus::Started) if at > 0 => {
                        stopped = Some(customer);
                        continue;
                    }
                    Some(EventStatus::Started) | None => Appended::Conflict,
                }
            };
            let record = &records[place];
            if let Some((event, _)) = closing(record).filter(|_| result != Appended::Conflict) {
                self.under_way().closed(event.id);
            }
            if !result.is_as_wanted(record) {
                failed.insert(record.customer());
                stopped = Some(customer);
            }
            decided[place] = Some(result);
        }
        Ok(())
    }

    fn insert_statuses(
        &self,
        wave: &mut NewStatuses<'_>,
        records: &[Record],
    ) -> Result<HashSet<(Uuid, i64)>, StoreError> {
        let doing = "close events of the chains";
        let all_done = wave.statuses.iter().all(|status| *status == DONE);
        let is_single = all_done && wave.at.iter().all(|at| *at == 0);
        if all_done {
            let count = wave.records.len();
            (wave.links, wave.done_seqs, wave.times_ms) = (vec![None; count], vec![None; count], vec![None; count]);
        } else {
            self.link_aborts(wave, records)?;
        }
        let begun = self.server.durability().begin();
        let NewStatuses { customers, seqs, ids, at, statuses, reasons, said, links, done_seqs, times_ms, .. } = &*wave;
        let answer = if is_single {
            self.server.call(doing, CLOSE_SINGLE, &[customers, seqs, ids, at, &self.slot])?
        } else {
            self.server.call(
                doing,
                CLOSE_ANY,
                &[customers, seqs, ids, at, statuses, reasons, said, links, done_seqs, times_ms, &self.slot],
            )?
        };
        let mut won = HashSet::with_capacity(answer.rows.len());
        for row in &answer.rows {
            let mut row = Columns::new(row, self.place());
            won.insert((row.get::<Uuid>()?, row.get::<i64>()?));
        }
        if !won.is_empty() {
            self.server.durability().wrote(begun);
        }
        Ok(won)
    }

    /// How the events of a wave stand, by their places; `None` for one that is not there.
    fn find_statuses(&self, wave: &NewStatuses<'_>) -> Result<Vec<Option<EventStatus>>, StoreError> {
        self.server.durability().read();
        let answer = self.server.call("look how events stand", STATUS, &[&wave.customers, &wave.seqs, &wave.ids])?;
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

    /// Finds out what the chain's end is behind each abort. What is before an event that can be closed never
    /// changes any more, so this can be read ahead; if the event cannot be closed, nothing of it is written.
    fn link_aborts(&self, wave: &mut NewStatuses<'_>, records: &[Record]) -> Result<(), StoreError> {
        let answer = self.server.call("read the ends of chains", BEFORE, &[&wave.customers, &wave.seqs, &wave.ids])?;
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
                (Some((_, Some(reason))), Some((link, done_seq))) => {
                    let link = aborted_link(&link, &hash, reason);
                    wave.links[index] = Some(link.as_bytes().to_vec());
                    wave.done_seqs[index] = Some(done_seq);
                    wave.times_ms[index] = Some(time_ms);
                    Some((link, done_seq))
                }
                (Some((_, None)), _) => Some((hash, seq)),
                (Some(_) | None, _) => None,
            };
        }
        Ok(())
    }
}
