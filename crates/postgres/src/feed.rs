//! The feed: the records of all chains in one order, from any place on.
//!
//! A record lies at the place of the transaction that wrote it, by its number (`written`), and there by customer and
//! sequence number. Numbers are drawn before they are committed, so a reader looks only at those below every
//! transaction that is under way (`pg_snapshot_xmin`): what is there then is complete and never changes, and what
//! comes later lies behind it. Whoever appends to a chain has seen the record before it, so that record has a smaller
//! number: the order keeps that of each chain.
//!
//! An event without a rail is one record, once it is closed; one that waits for a rail is a record when it begins, and
//! another when it is closed.
//!
//! A position is a place, how many records of it were passed, and digits of the newest one's hash: it is held against
//! that record before it is believed. So a ledger that has lost records (an older copy was restored, a standby without
//! them took over) refuses positions behind them, instead of passing over what came in their place. A schema may move to
//! a server whose transactions have lower numbers; then `feed.base` is raised, so that all that comes later lies behind
//! what is there ([`KEEP_ORDER`]).
//!
//! What this module does not do: read from a replica, or wait for more.

use crate::store::PostgresStore;
use crate::values::{Columns, Uuid, event_columns};
use bursar_core::{EventId, EventRef, EventStatus};
use bursar_engine::store::{ChainEntry, Feed, FeedError, FeedItem, FeedPosition, StoreError};
use std::sync::{Mutex, PoisonError};
use tokio_postgres::{Client, Row};

/// So many records are read at once at the most.
const PAGE_MAX: usize = 4096;

/// Raises the base where what is there lies at places that are yet to come: transactions are counted by the server, and
/// this is another one than before. Every connection does this before anything else.
pub(crate) const KEEP_ORDER: &str = "UPDATE feed f \
    SET base = greatest(f.base, n.newest + 1 - pg_snapshot_xmin(pg_current_snapshot())::text::bigint) \
    FROM (SELECT greatest((SELECT max(s.written) FROM statuses s), \
      (SELECT max(e.written) FROM events e WHERE e.rail IS NOT NULL)) AS newest) n \
    WHERE n.newest >= f.base + pg_snapshot_xmax(pg_current_snapshot())::text::bigint";

/// Places below this one are complete.
macro_rules! complete {
    () => {
        "(SELECT f.base + pg_snapshot_xmin(pg_current_snapshot())::text::bigint FROM feed f)"
    };
}
/// The records at the places from one to another, in their order.
macro_rules! records {
    ($from:literal, $to:literal) => {
        concat!(
            "SELECT s.written, 1 AS part, s.customer, s.seq FROM statuses s WHERE s.written BETWEEN ",
            $from,
            " AND ",
            $to,
            " UNION ALL SELECT e.written, 0, e.customer, e.seq FROM events e WHERE e.rail IS NOT NULL \
             AND e.written BETWEEN ",
            $from,
            " AND ",
            $to
        )
    };
}
/// What a record says, for `p`.
macro_rules! record_columns {
    () => {
        concat!("p.written, ", event_columns!("e"), ", s.status, s.reason, s.said")
    };
}
macro_rules! of_records {
    () => {
        " JOIN events e ON e.customer = p.customer AND e.seq = p.seq \
          LEFT JOIN statuses s ON s.customer = p.customer AND s.seq = p.seq AND p.part = 1"
    };
}
/// The newest place that is complete and has records; null where there is none.
const NEWEST_PLACE: &str = concat!(
    "SELECT greatest((SELECT max(s.written) FROM statuses s WHERE s.written < ",
    complete!(),
    "), (SELECT max(e.written) FROM events e WHERE e.rail IS NOT NULL AND e.written < ",
    complete!(),
    "))"
);
/// The last record of a place, and how many there are.
const LAST: &str = concat!(
    "WITH k AS MATERIALIZED (",
    records!("$1", "$1"),
    "), p AS MATERIALIZED (SELECT k.*, (SELECT count(*) FROM k) AS count FROM k \
       ORDER BY k.customer DESC, k.seq DESC, k.part DESC LIMIT 1) SELECT p.count, ",
    record_columns!(),
    " FROM p",
    of_records!()
);
/// So many records ($3) behind the first ($2) of those from a place ($1) on. First it is found how far that reaches at the
/// most, in the order of the index and with places as wholes; only the records up to there are put in order. So much is
/// read whatever number is passed: it is somebody else's.
const PAGE: &str = concat!(
    "WITH upto AS MATERIALIZED (SELECT coalesce(max(n.written), $1) AS place FROM (SELECT u.written FROM ( \
         (SELECT s.written FROM statuses s WHERE s.written > $1 AND s.written < ",
    complete!(),
    "     ORDER BY s.written LIMIT $3) UNION ALL \
         (SELECT e.written FROM events e WHERE e.rail IS NOT NULL AND e.written > $1 AND e.written < ",
    complete!(),
    "     ORDER BY e.written LIMIT $3)) u ORDER BY u.written LIMIT $3) n), \
     k AS (",
    records!("$1", "(SELECT place FROM upto)"),
    "), p AS MATERIALIZED (SELECT * FROM k ORDER BY k.written, k.customer, k.seq, k.part OFFSET $2 LIMIT $3) SELECT ",
    record_columns!(),
    " FROM p",
    of_records!(),
    " ORDER BY p.written, p.customer, p.seq, p.part"
);
/// An event that went through a rail. The index of those events is read, since none leads from ids to events.
const OF_RAIL: &str = "SELECT e.customer, e.seq, e.id, s.status, s.reason, s.said FROM events e \
    JOIN statuses s ON s.customer = e.customer AND s.seq = e.seq \
    WHERE e.rail IS NOT NULL AND e.written > 0 AND e.id = $1";

/// Whether the ledger of a schema has a feed.
pub(crate) async fn is_there(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let count: i64 = client.query_one("SELECT count(*) FROM feed", &[]).await?.get(0);
    Ok(count > 0)
}

/// What a store knows of its feed.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    /// Up to which place the records are on the standbys, as the server of an epoch has them.
    confirmed: Mutex<(u64, i64)>,
}

/// A record with its place.
struct Found {
    place: i64,
    entry: ChainEntry,
}

impl Found {
    fn of(row: &mut Columns<'_>) -> Result<Self, StoreError> {
        let place = row.get()?;
        Ok(Self { place, entry: ChainEntry { linked: row.event()?, status: row.status()? } })
    }

    /// The position behind it, if it is that many records behind the beginning of its place.
    const fn position(&self, passed: u32) -> FeedPosition {
        FeedPosition::behind(self.place.unsigned_abs(), passed, &self.entry)
    }
}

impl PostgresStore {
    /// Makes the same of rows, once what they say cannot be lost. What is visible is on the server's own disk; after it
    /// was started anew, the standbys may not have it, and the next one to take over would be without it. `None`:
    /// another server has answered meanwhile.
    fn confirmed<T>(&self, epoch: u64, place: i64, made: T) -> Result<Option<T>, StoreError> {
        let Some(follow) = self.follow.as_ref().filter(|_| self.server.durability().has_standbys()) else {
            return Ok(Some(made));
        };
        let known = || follow.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, upto) = *known();
        if of == epoch && place <= upto {
            return Ok(Some(made));
        }
        if self.wait_for_standbys()? != epoch {
            return Ok(None);
        }
        let mut known = known();
        *known = (epoch, place).max(*known);
        Ok(Some(made))
    }

    /// The rows of a statement of the feed, with the epoch of the server that has them. Nothing is decided on them, so
    /// that no batch has to wait until the standbys have them.
    fn records(&self, text: &'static str, params: crate::server::Params<'_>) -> Result<(Vec<Row>, u64), StoreError> {
        let answer = self.server.call("read the records in their order", text, params)?;
        Ok((answer.rows, answer.epoch))
    }

    fn newest_place(&self) -> Result<Option<i64>, StoreError> {
        let (rows, _) = self.records(NEWEST_PLACE, &[])?;
        rows.first().map_or(Ok(None), |row| Columns::new(row, self.place()).get())
    }

    fn newest(&self) -> Result<FeedPosition, FeedError> {
        loop {
            let Some(place) = self.newest_place()? else { return Ok(self.start()) };
            let (rows, epoch) = self.records(LAST, &[&place])?;
            // The server may be another one by now.
            let Some(row) = rows.first() else { continue };
            let mut row = Columns::new(row, self.place());
            let count: i64 = row.get()?;
            let last = Found::of(&mut row)?;
            if let Some(position) = self.confirmed(epoch, place, last.position(passed_of(count)))? {
                return Ok(position);
            }
        }
    }

    /// Why there is no record that ends at a position.
    fn missing(&self, place: i64) -> Result<FeedError, StoreError> {
        let is_behind = self.newest_place()?.is_none_or(|newest| place > newest);
        Ok(if is_behind { FeedError::BehindEnd } else { FeedError::NotAPosition })
    }
}

/// A place has the records of one transaction; those that no `u32` can count were never written.
fn passed_of(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Feed for PostgresStore {
    fn start(&self) -> FeedPosition {
        FeedPosition::beginning(&self.digest)
    }

    fn latest(&self) -> Result<FeedPosition, FeedError> {
        self.newest()
    }

    fn read(&self, after: FeedPosition, limit: usize, items: &mut Vec<FeedItem>) -> Result<FeedPosition, FeedError> {
        let is_start = after.at == 0;
        let place = i64::try_from(after.at).map_err(|_| FeedError::BehindEnd)?;
        if if is_start { after != self.start() } else { after.passed == 0 } {
            return Err(FeedError::NotAPosition);
        }
        let limit = i64::try_from(limit.min(PAGE_MAX)).unwrap_or(i64::MAX);
        // The record that ends at the position is read again.
        let (behind, count) = if is_start { (0, limit) } else { (i64::from(after.passed) - 1, limit + 1) };
        loop {
            let (rows, epoch) = self.records(PAGE, &[&place, &behind, &count])?;
            let mut found = rows.iter().map(|row| Found::of(&mut Columns::new(row, self.place())));
            let mut position = after;
            if !is_start {
                let Some(passed) = found.next().transpose()? else { return Err(self.missing(place)?) };
                if passed.position(after.passed) != after {
                    return Err(FeedError::NotAPosition);
                }
            }
            let mut page = Vec::with_capacity(rows.len());
            for found in found {
                let found = found?;
                let is_same = found.place.unsigned_abs() == position.at;
                position = found.position(if is_same { position.passed + 1 } else { 1 });
                page.push(FeedItem { position, entry: found.entry });
            }
            let newest = i64::try_from(position.at).unwrap_or(i64::MAX);
            if let Some(mut page) = self.confirmed(epoch, newest, page)? {
                items.append(&mut page);
                return Ok(position);
            }
        }
    }

    fn newest_mark(&self) -> Result<Option<u64>, FeedError> {
        Ok(Some(self.newest_place()?.unwrap_or(0).unsigned_abs()))
    }

    fn end_of(&self, event: EventId) -> Result<Option<(EventRef, EventStatus)>, FeedError> {
        loop {
            let (rows, epoch) = self.records(OF_RAIL, &[&Uuid(event.bits())])?;
            let Some(row) = rows.first() else { return Ok(None) };
            let mut row = Columns::new(row, self.place());
            let found = (row.reference()?, row.status()?);
            // It is told as something that is so, by whichever server may be the next.
            if !self.server.durability().has_standbys() || self.wait_for_standbys()? == epoch {
                return Ok(Some(found));
            }
        }
    }
}
