//! The statements by which chains grow. What they promise is in [`crate::append`].
//!
//! Each comes with and without the column by which the feed is ordered ([`crate::feed`]), and in up to three forms. *Plain*: nothing is looked at but the primary key, for rows whose events before are
//! known to be there ([`crate::known`]). *Checked*: the event before is looked for. Both fail as a whole where a row is
//! there already. *Careful*: such rows are left out, and it is said which ones were inserted.

/// What goes with events that were inserted, and which they are: nothing more is said where that is all of them.
macro_rules! with_events {
    ($won:literal, $slot:literal, $batch:literal, $over:literal, $count:literal) => {
        concat!(
            ", counted AS (INSERT INTO counts (slot, last_time_ms, customer_count) SELECT ",
            $slot,
            "::smallint, max(w.time_ms), count(*) FILTER (WHERE w.seq = 1) FROM ",
            $won,
            " w HAVING count(*) > 0 \
               ON CONFLICT (slot) DO UPDATE SET \
               last_time_ms = greatest(counts.last_time_ms, excluded.last_time_ms), \
               customer_count = counts.customer_count + excluded.customer_count), \
             noted AS (INSERT INTO under_way (batch, customers) VALUES (",
            $batch,
            "::uuid, $1::uuid[]) \
               ON CONFLICT (batch) DO NOTHING), \
             over AS (DELETE FROM under_way WHERE batch = ANY (",
            $over,
            "::uuid[])) ",
            which!($won, $count)
        )
    };
}

/// Which rows were inserted, unless it is all of them.
macro_rules! which {
    ($won:literal, $count:literal) => {
        concat!(
            "SELECT (SELECT count(*) FROM ",
            $won,
            "), \
             ARRAY(SELECT w.customer FROM ",
            $won,
            " w WHERE (SELECT count(*) FROM ",
            $won,
            ") < ",
            $count,
            "::bigint), \
             ARRAY(SELECT w.seq FROM ",
            $won,
            " w WHERE (SELECT count(*) FROM ",
            $won,
            ") < ",
            $count,
            "::bigint)"
        )
    };
}

/// The place of this transaction's records in the feed ([`crate::feed`]).
macro_rules! written {
    () => {
        "(SELECT f.base + pg_current_xact_id()::text::bigint FROM feed f)"
    };
}
/// The same, of an event that is a record of the feed while it is open: one that waits for a rail.
macro_rules! begun_written {
    () => {
        concat!(", CASE WHEN n.packed >> 16 & 255 <> 0 THEN ", written!(), " END")
    };
}

/// The columns of an event and what they are made of.
macro_rules! event_values {
    () => {
        "n.customer, n.id, n.transaction, n.seq, n.time_ms, n.amount, n.available, n.held, \
         (n.packed & 255)::smallint, (n.packed >> 8 & 255)::smallint, NULLIF(n.packed >> 16 & 255, 0)::smallint, \
         n.packed & 16777216 <> 0, n.packed & 33554432 <> 0, n.hash"
    };
}
macro_rules! into_events {
    () => {
        "INSERT INTO events AS e (customer, id, transaction, seq, time_ms, amount, available, held, kind, \
         currency, rail, withdrawal, locked, hash"
    };
}
/// The event before is there.
macro_rules! has_event_before {
    () => {
        "CASE n.seq WHEN 1 THEN true ELSE \
           (SELECT count(*) FROM events p WHERE p.customer = n.customer AND p.seq = n.seq - 1) = 1 END"
    };
}

/// Each customer has one event, accounts in one currency, and no key.
macro_rules! append_single {
    ($on_conflict:literal, $column:expr, $written:expr) => {
        concat!(
            "WITH first AS (",
            into_events!(),
            $column,
            ") SELECT ",
            event_values!(),
            $written,
            " FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], \
       $8::bigint[], $9::bigint[], $10::bytea[]) \
       AS n(customer, id, transaction, seq, time_ms, amount, available, held, packed, hash) WHERE ",
            has_event_before!(),
            $on_conflict,
            " RETURNING e.customer, e.seq, e.time_ms)",
            with_events!("first", "$11", "$12", "$13", "$14")
        )
    };
}
/// The same, of events whose events before are known to be there: all are inserted, or none.
macro_rules! append_plain {
    ($column:expr, $written:expr) => {
        concat!(
    "WITH counted AS (INSERT INTO counts (slot, last_time_ms, customer_count) SELECT $11::smallint, max(w.time_ms), \
       count(*) FILTER (WHERE w.seq = 1) FROM unnest($4::bigint[], $5::bigint[]) AS w(seq, time_ms) \
       ON CONFLICT (slot) DO UPDATE SET last_time_ms = greatest(counts.last_time_ms, excluded.last_time_ms), \
       customer_count = counts.customer_count + excluded.customer_count), \
     noted AS (INSERT INTO under_way (batch, customers) SELECT $12::uuid, $1::uuid[] WHERE $14::bigint > 0 \
       ON CONFLICT (batch) DO NOTHING), \
     over AS (DELETE FROM under_way WHERE batch = ANY ($13::uuid[])) ",
    into_events!(),
    $column,
    ") SELECT ",
    event_values!(),
    $written,
    " FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], \
       $8::bigint[], $9::bigint[], $10::bytea[]) \
       AS n(customer, id, transaction, seq, time_ms, amount, available, held, packed, hash)"
        )
    };
}
/// Some have runs, accounts in several currencies, or keys.
macro_rules! append_runs {
    ($column:expr, $written:expr) => {
        concat!(
    "WITH n AS MATERIALIZED (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], \
       $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bytea[], $15::text[], $16::text[], \
       $17::text[], $18::int[], $19::uuid[]) AS n(customer, id, transaction, seq, time_ms, amount, available, held, packed, \
       hash, other_currencies, other_available, other_held, at, request_key)), \
     first AS (",
    into_events!(),
    ", other_currencies, other_available, other_held, request_key",
    $column,
    ") SELECT ",
    event_values!(),
    ", n.other_currencies::smallint[], n.other_available::bigint[], n.other_held::bigint[], n.request_key",
    $written,
    " FROM n WHERE n.at = 0 AND ",
    has_event_before!(),
    " ON CONFLICT (customer, seq) DO NOTHING RETURNING e.customer, e.seq, e.time_ms), \
     rest AS (",
    into_events!(),
    ", other_currencies, other_available, other_held, request_key",
    $column,
    ") SELECT ",
    event_values!(),
    ", n.other_currencies::smallint[], n.other_available::bigint[], n.other_held::bigint[], n.request_key",
    $written,
    " FROM n WHERE n.at > 0 AND (n.customer IN (SELECT f.customer FROM first f)) IS TRUE \
       ON CONFLICT (customer, seq) DO NOTHING RETURNING e.customer, e.seq, e.time_ms), \
     won AS (SELECT * FROM first UNION ALL SELECT * FROM rest)",
    with_events!("won", "$11", "$12", "$13", "$14")
        )
    };
}

macro_rules! into_sums {
    () => {
        "INSERT INTO sums (slot, currency, kind, withdrawal, event_count, amount) "
    };
}
macro_rules! add_to_sums {
    () => {
        " ON CONFLICT (slot, currency, kind, withdrawal) DO UPDATE SET \
         event_count = sums.event_count + excluded.event_count, amount = sums.amount + excluded.amount)"
    };
}
/// The event before is closed.
macro_rules! is_closed_before {
    ($n:literal) => {
        concat!(
            "CASE ",
            $n,
            ".seq WHEN 1 THEN true ELSE (SELECT count(*) FROM statuses p WHERE p.customer = ",
            $n,
            ".customer AND p.seq = ",
            $n,
            ".seq - 1) = 1 END"
        )
    };
}

/// Events that this store has appended, one of each customer, all done: that they are there, and what they move, is
/// known. The sums are added up ahead, for the case that all are taken.
macro_rules! close_own {
    ($on_conflict:literal, $column:expr, $written:expr) => {
        concat!(
    "WITH first AS (INSERT INTO statuses AS s (customer, seq, status",
    $column,
    ") SELECT n.customer, n.seq, 1",
    $written,
    " FROM unnest($1::uuid[], $2::bigint[]) AS n(customer, seq) WHERE ",
    is_closed_before!("n"),
    $on_conflict,
    " RETURNING s.customer, s.seq), \
     summed AS (",
    into_sums!(),
    "SELECT $5::smallint, s.* FROM ( \
         SELECT a.currency, a.kind, a.withdrawal, a.event_count, a.amount::numeric \
         FROM unnest($7::smallint[], $8::smallint[], $9::boolean[], $10::bigint[], $11::text[]) \
           AS a(currency, kind, withdrawal, event_count, amount) WHERE (SELECT count(*) FROM first) = $6::bigint \
       UNION ALL \
         SELECT (u.packed >> 8 & 255)::smallint, (u.packed & 255)::smallint, u.packed & 16777216 <> 0, count(*), \
           sum(u.amount) FROM unnest($1::uuid[], $3::bigint[], $4::bigint[]) AS u(customer, packed, amount) \
         WHERE (SELECT count(*) FROM first) < $6::bigint AND (u.customer IN (SELECT f.customer FROM first f)) IS TRUE \
         GROUP BY 1, 2, 3) s ORDER BY 2, 3, 4",
    add_to_sums!(),
    " ",
    which!("first", "$6")
        )
    };
}
/// The same, of events whose events before are known to be closed: all are inserted, or none. What the careful form
/// needs beside is given and not looked at.
macro_rules! close_plain {
    ($column:expr, $written:expr) => {
        concat!(
            "WITH summed AS (",
            into_sums!(),
            "SELECT $5::smallint, s.* FROM ( \
         SELECT a.currency, a.kind, a.withdrawal, a.event_count, a.amount::numeric \
         FROM unnest($7::smallint[], $8::smallint[], $9::boolean[], $10::bigint[], $11::text[]) \
           AS a(currency, kind, withdrawal, event_count, amount) WHERE $6::bigint > 0) s ORDER BY 2, 3, 4",
            add_to_sums!(),
            " INSERT INTO statuses AS s (customer, seq, status",
            $column,
            ") SELECT n.customer, n.seq, 1",
            $written,
            " FROM unnest($1::uuid[], $2::bigint[]) AS n(customer, seq) WHERE ($3::bigint[], $4::bigint[]) IS NOT NULL"
        )
    };
}
/// Any events: runs, aborts, those of others.
macro_rules! close_any {
    ($column:expr, $written:expr) => {
        concat!(
            "WITH c AS MATERIALIZED (SELECT n.*, e.currency, e.kind, e.withdrawal, e.amount, \
       row_number() OVER (PARTITION BY n.customer ORDER BY n.seq) - 1 AS found_at FROM ( \
         SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::int[], $7::smallint[], $8::smallint[], \
         $9::text[], $10::bytea[], $11::bigint[], $12::bigint[]) AS u(customer, seq, id, at, status, reason, said, \
         link, done_seq, time_ms) WHERE u.status = 1 OR u.link IS NOT NULL) n \
       JOIN events e ON e.customer = n.customer AND e.seq = n.seq AND e.id = n.id), \
     first AS (INSERT INTO statuses AS s (customer, seq, status, reason, said, link, done_seq, time_ms",
            $column,
            ") SELECT c.customer, c.seq, c.status, c.reason, c.said, c.link, c.done_seq, c.time_ms",
            $written,
            " FROM c WHERE c.at = 0 AND ",
            is_closed_before!("c"),
            " ON CONFLICT (customer, seq) DO NOTHING RETURNING s.customer, s.seq), \
     rest AS (INSERT INTO statuses AS s (customer, seq, status, reason, said, link, done_seq, time_ms",
            $column,
            ") SELECT c.customer, c.seq, c.status, c.reason, c.said, c.link, c.done_seq, c.time_ms",
            $written,
            " FROM c WHERE c.at > 0 AND c.at = c.found_at AND (c.customer IN (SELECT f.customer FROM first f)) IS TRUE \
       ON CONFLICT (customer, seq) DO NOTHING RETURNING s.customer, s.seq), \
     won AS (SELECT * FROM first UNION ALL SELECT * FROM rest), \
     summed AS (",
            into_sums!(),
            "SELECT $5::smallint, s.* FROM ( \
       SELECT c.currency, c.kind, c.withdrawal, count(*), sum(c.amount) \
         FROM (SELECT customer, seq, currency, withdrawal, amount, \
           CASE WHEN status = 2 THEN 0 ELSE kind END AS kind FROM c) c \
         WHERE ((c.customer, c.seq) IN (SELECT w.customer, w.seq FROM won w)) IS TRUE \
         GROUP BY c.currency, c.kind, c.withdrawal ORDER BY c.currency, c.kind, c.withdrawal) s",
            add_to_sums!(),
            " ",
            which!("won", "$6")
        )
    };
}

/// The statements of a ledger.
#[derive(Debug)]
pub(crate) struct Growing {
    /// One event of each customer, accounts in one currency, no key: plain, checked, careful.
    pub(crate) append_plain: &'static str,
    pub(crate) append_single: [&'static str; 2],
    pub(crate) append_runs: &'static str,
    /// One event of each customer, appended by this store, all done: plain, checked, careful.
    pub(crate) close_plain: &'static str,
    pub(crate) close_own: [&'static str; 2],
    pub(crate) close_any: &'static str,
}

macro_rules! growing {
    ($column:expr, $begun:expr, $ended:expr) => {
        Growing {
            append_plain: append_plain!($column, $begun),
            append_single: [
                append_single!("", $column, $begun),
                append_single!(" ON CONFLICT (customer, seq) DO NOTHING", $column, $begun),
            ],
            append_runs: append_runs!($column, $begun),
            close_plain: close_plain!($column, $ended),
            close_own: [
                close_own!("", $column, $ended),
                close_own!(" ON CONFLICT (customer, seq) DO NOTHING", $column, $ended),
            ],
            close_any: close_any!($column, $ended),
        }
    };
}

/// Of a ledger without a feed.
pub(crate) const WITHOUT_FEED: Growing = growing!("", "", "");
/// Of a ledger with one.
pub(crate) const WITH_FEED: Growing = growing!(", written", begun_written!(), concat!(", ", written!()));

/// How events stand: by place, for those that are there.
pub(crate) const STATUS: &str = "SELECT n.place, s.status, s.reason, s.said \
    FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) WITH ORDINALITY AS n(customer, seq, id, place) \
    JOIN events e ON e.customer = n.customer AND e.seq = n.seq AND e.id = n.id \
    LEFT JOIN statuses s ON s.customer = n.customer AND s.seq = n.seq";

/// What the end of a chain is right before an event: its time and hash, and the closed event before it.
pub(crate) const BEFORE: &str = "SELECT n.place, e.time_ms, e.hash, p.hash, s.status, s.link, s.done_seq \
    FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) WITH ORDINALITY AS n(customer, seq, id, place) \
    JOIN events e ON e.customer = n.customer AND e.seq = n.seq AND e.id = n.id \
    LEFT JOIN events p ON p.customer = n.customer AND p.seq = n.seq - 1 \
    LEFT JOIN statuses s ON s.customer = n.customer AND s.seq = n.seq - 1";
