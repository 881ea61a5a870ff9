//! The chains: heads, ranges, lists, sums, sources. How they grow is in [`crate::append`].

use crate::statements::STATUS;
use crate::store::PostgresStore;
use crate::values::{Columns, DONE, EVENT_COLUMN_COUNT, Uuid, big, count_of, event_columns, uuid};
use bursar_core::commit::Appended;
use bursar_core::rules::total_delta;
use bursar_core::{
    CustomerId, EventRef, EventStatus, Hash, Head, LinkedEvent, Record, RequestKind, Sum, TransactionKind,
};
use bursar_engine::store::{
    ChainEntry, Chains, CustomerHead, Feed, ReadRange, RowCounts, SourceId, SourceMark, StoreError,
};
use bursar_engine::{CurrencyTotals, Totals};

/// Which of these places have an event.
const THERE: &str = "SELECT n.place FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS n(customer, seq, place) \
     JOIN events e ON e.customer = n.customer AND e.seq = n.seq";
/// The newest event of each chain, and its status.
const NEWEST: &str = concat!(
    "SELECT n.place, s.status, ",
    event_columns!("e"),
    " FROM unnest($1::uuid[]) WITH ORDINALITY AS n(customer, place) \
     JOIN events e ON e.customer = n.customer \
       AND e.seq = (SELECT max(m.seq) FROM events m WHERE m.customer = n.customer) \
     LEFT JOIN statuses s ON s.customer = e.customer AND s.seq = e.seq"
);
/// The whole head of each chain whose newest event is not simply done: the newest closed event (none: nulls), the
/// newest one in effect, the open ones.
const HEADS: &str = concat!(
    "SELECT n.place, s.seq, s.status, s.link, s.time_ms, d.customer IS NOT NULL, o.customer IS NOT NULL, ",
    event_columns!("d"),
    ", ",
    event_columns!("o"),
    " FROM unnest($1::uuid[]) WITH ORDINALITY AS n(customer, place) \
     LEFT JOIN statuses s ON s.customer = n.customer \
       AND s.seq = (SELECT max(m.seq) FROM statuses m WHERE m.customer = n.customer) \
     LEFT JOIN events d ON d.customer = n.customer AND d.seq = coalesce(s.done_seq, s.seq) \
     LEFT JOIN events o ON o.customer = n.customer AND o.seq > coalesce(s.seq, 0) \
     ORDER BY n.place, o.seq"
);
const READ_OLDEST: &str = concat!(
    "SELECT ",
    event_columns!("e"),
    ", s.status, s.reason, s.said FROM events e LEFT JOIN statuses s ON s.customer = e.customer AND s.seq = e.seq \
     WHERE e.customer = $1 AND e.seq BETWEEN $2 AND $3 ORDER BY e.seq LIMIT $4"
);
const READ_NEWEST: &str = concat!(
    "SELECT ",
    event_columns!("e"),
    ", s.status, s.reason, s.said FROM events e LEFT JOIN statuses s ON s.customer = e.customer AND s.seq = e.seq \
     WHERE e.customer = $1 AND e.seq BETWEEN $2 AND $3 ORDER BY e.seq DESC LIMIT $4"
);
const LIST: &str = "SELECT customer FROM events WHERE seq = 1 AND customer >= $1 ORDER BY customer LIMIT $2";
const UNDER_WAY: &str = "SELECT batch, customers FROM under_way";
const NOT_UNDER_WAY: &str = "DELETE FROM under_way WHERE batch = ANY ($1)";
const SUMS: &str = "SELECT currency, kind, withdrawal, sum(event_count)::bigint, sum(amount)::text FROM sums \
     GROUP BY currency, kind, withdrawal \
     UNION ALL SELECT (-1)::smallint, 0::smallint, false, coalesce(sum(customer_count), 0)::bigint, '0' FROM counts";
const LAST_TIME: &str = "SELECT coalesce(max(last_time_ms), 0) FROM counts";
/// A commit that says nothing: it waits until everything before it is where commits wait for.
const BARRIER: &str = "INSERT INTO counts (slot, last_time_ms, customer_count) VALUES ($1, 0, 0) \
     ON CONFLICT (slot) DO UPDATE SET last_time_ms = counts.last_time_ms";
const MARK: &str = "WITH lines AS (INSERT INTO rejected_lines (source, line, rejection) \
       SELECT $1, u.line, u.rejection FROM unnest($9::bigint[], $10::smallint[]) AS u(line, rejection) \
       ON CONFLICT (source, line) DO NOTHING) \
     INSERT INTO sources (source, end_offset, line_count, finished, applied, already_applied, rejected, unreadable) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (source) DO UPDATE SET end_offset = excluded.end_offset, \
     line_count = excluded.line_count, finished = excluded.finished, applied = excluded.applied, \
     already_applied = excluded.already_applied, rejected = excluded.rejected, unreadable = excluded.unreadable";
const SOURCES: &str = "SELECT source, end_offset, line_count, finished, applied, already_applied, rejected, unreadable \
     FROM sources WHERE source = $1 OR $1 IS NULL";
const REJECTED: &str = "SELECT line, rejection FROM rejected_lines WHERE source = $1 ORDER BY line";

/// How many rows are asked for at once.
const PAGE: usize = 4096;

impl PostgresStore {
    fn rows(
        &self,
        doing: &'static str,
        text: &'static str,
        params: crate::server::Params<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        Ok(self.rows_of_epoch(doing, text, params)?.0)
    }

    /// The rows of a read that decides nothing: from the replica, where there is one.
    pub(crate) fn viewed(
        &self,
        doing: &'static str,
        text: &'static str,
        params: crate::server::Params<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        match self.replica.as_ref().and_then(|replica| replica.rows(&self.server, text, params)) {
            Some(rows) => Ok(rows),
            None => self.rows(doing, text, params),
        }
    }

    /// Which place of a list a row is about.
    fn place_of(row: &mut Columns<'_>, count: usize) -> Result<usize, StoreError> {
        let place: i64 = row.get()?;
        let at = usize::try_from(place - 1).ok().filter(|at| *at < count);
        at.ok_or_else(|| row.damaged(format!("a row for place {place} of {count}")))
    }

    /// Gives the rows of a statement, and the epoch of the server that has them.
    pub(crate) fn rows_of_epoch(
        &self,
        doing: &'static str,
        text: &'static str,
        params: crate::server::Params<'_>,
    ) -> Result<(Vec<tokio_postgres::Row>, u64), StoreError> {
        let answer = self.server.call(doing, text, params)?;
        self.server.durability().read(answer.timeline);
        Ok((answer.rows, answer.epoch))
    }

    fn load_page(&self, customers: &[CustomerId]) -> Result<Vec<Option<Head>>, StoreError> {
        let mut heads: Vec<Option<Head>> = vec![None; customers.len()];
        // In order, so that one descent of the index finds most of the way for the next.
        let mut places: Vec<usize> = (0..customers.len()).collect();
        places.sort_unstable_by_key(|&place| customers[place]);
        let unknown = self.load_known(customers, places, &mut heads)?;
        let asked = "read the heads of chains";
        let asked_for: Vec<Uuid> = unknown.iter().map(|&place| uuid(customers[place])).collect();
        let mut unclear = Vec::new();
        if !unknown.is_empty() {
            let (rows, epoch) = self.rows_of_epoch(asked, NEWEST, &[&asked_for])?;
            unclear = self.take_newest(&rows, &unknown, &mut heads, Some(epoch))?;
        }
        if !unclear.is_empty() {
            let asked_for: Vec<Uuid> = unclear.iter().map(|&at| uuid(customers[at])).collect();
            let rows = self.rows(asked, HEADS, &[&asked_for])?;
            self.take_heads(&rows, customers, &unclear, &mut heads)?;
        }
        Ok(heads)
    }

    /// The heads of chains for somebody who looks on.
    fn view_page(&self, customers: &[CustomerId]) -> Result<Vec<Option<Head>>, StoreError> {
        let mut heads: Vec<Option<Head>> = vec![None; customers.len()];
        let places: Vec<usize> = (0..customers.len()).collect();
        let asked = "read the heads of chains";
        let asked_for: Vec<Uuid> = customers.iter().copied().map(uuid).collect();
        let rows = self.viewed(asked, NEWEST, &[&asked_for])?;
        let unclear = self.take_newest(&rows, &places, &mut heads, None)?;
        if !unclear.is_empty() {
            let asked_for: Vec<Uuid> = unclear.iter().map(|&at| uuid(customers[at])).collect();
            let rows = self.viewed(asked, HEADS, &[&asked_for])?;
            self.take_heads(&rows, customers, &unclear, &mut heads)?;
        }
        Ok(heads)
    }

    /// Loads those heads of which the newest event is known and still is the newest. Gives the other places.
    fn load_known(
        &self,
        customers: &[CustomerId],
        places: Vec<usize>,
        heads: &mut [Option<Head>],
    ) -> Result<Vec<usize>, StoreError> {
        let (mut asked, mut next_seqs, mut known) = (Vec::new(), Vec::new(), Vec::new());
        let mut unknown = Vec::new();
        let epoch = {
            let mut ends = self.ends();
            for place in places {
                ends.used(customers[place]);
                let end = ends.of(customers[place]);
                let Some((end, next_seq)) = end.and_then(|end| Some((end, big(end.event.seq + 1)?))) else {
                    unknown.push(place);
                    continue;
                };
                heads[place] = Some(in_effect(end));
                asked.push(uuid(customers[place]));
                next_seqs.push(next_seq);
                known.push(place);
            }
            ends.epoch()
        };
        if known.is_empty() {
            return Ok(unknown);
        }
        let (rows, answered) = self.rows_of_epoch("look for newer events", THERE, &[&asked, &next_seqs])?;
        if answered != epoch {
            for &place in &known {
                heads[place] = None;
            }
            unknown.append(&mut known);
        }
        for row in rows.iter().filter(|_| answered == epoch) {
            let place = known[Self::place_of(&mut Columns::new(row, self.place()), known.len())?];
            heads[place] = None;
            unknown.push(place);
        }
        unknown.sort_unstable_by_key(|&place| customers[place]);
        Ok(unknown)
    }

    /// Takes the heads of chains whose newest event is done, which is remembered if the server's epoch is known. Gives
    /// the places of those that end otherwise.
    fn take_newest(
        &self,
        rows: &[tokio_postgres::Row],
        places: &[usize],
        heads: &mut [Option<Head>],
        epoch: Option<u64>,
    ) -> Result<Vec<usize>, StoreError> {
        let mut unclear: Vec<usize> = Vec::new();
        let mut ends = self.ends();
        for row in rows {
            let mut row = Columns::new(row, self.place());
            let at = places[Self::place_of(&mut row, places.len())?];
            if row.get::<Option<i16>>()? == Some(DONE) {
                let linked = row.event()?;
                heads[at] = Some(in_effect(&linked));
                if let Some(epoch) = epoch {
                    ends.done(epoch, linked);
                }
            } else {
                unclear.push(at);
            }
        }
        Ok(unclear)
    }

    /// Takes the whole heads of chains that end otherwise.
    fn take_heads(
        &self,
        rows: &[tokio_postgres::Row],
        customers: &[CustomerId],
        unclear: &[usize],
        heads: &mut [Option<Head>],
    ) -> Result<(), StoreError> {
        for row in rows {
            let mut row = Columns::new(row, self.place());
            let at = unclear[Self::place_of(&mut row, unclear.len())?];
            let head = self.head(customers[at], &mut row, heads[at].take())?;
            heads[at] = head;
        }
        Ok(())
    }

    /// The head of one chain, by one row for each open event of it.
    fn head(
        &self,
        customer: CustomerId,
        row: &mut Columns<'_>,
        so_far: Option<Head>,
    ) -> Result<Option<Head>, StoreError> {
        let (seq, status): (Option<i64>, Option<i16>) = (row.get()?, row.get()?);
        let (link, time_ms): (Option<&[u8]>, Option<i64>) = (row.get()?, row.get()?);
        let (has_done, has_open): (bool, bool) = (row.get()?, row.get()?);
        let mut head = match so_far {
            Some(head) => {
                row.skip(EVENT_COLUMN_COUNT);
                head
            }
            None if has_done => in_effect(&row.event()?),
            None => {
                row.skip(EVENT_COLUMN_COUNT);
                Head::start(&self.digest, customer)
            }
        };
        if let Some((seq, time_ms)) = seq.zip(time_ms).filter(|_| status != Some(DONE)) {
            let link = link.and_then(|link| <[u8; 32]>::try_from(link).ok()).map(Hash);
            head.link = link.ok_or_else(|| row.damaged(format!("customer {customer}, event {seq}: no link")))?;
            (head.seq, head.time_ms) = (seq.unsigned_abs(), time_ms.unsigned_abs());
        }
        if has_open {
            head.open.push(row.event()?);
        }
        Ok((head.seq > 0 || !head.open.is_empty()).then_some(head))
    }

    /// Waits until all that was committed before is where commits wait for. Gives the epoch of the server that was asked.
    pub(crate) fn wait_for_standbys(&self) -> Result<u64, StoreError> {
        Ok(self.server.commit("wait for the standbys", BARRIER, &[&self.slot])?.epoch)
    }

    fn marks(&self, source: Option<SourceId>) -> Result<Vec<SourceMark>, StoreError> {
        let source = source.map(|source| source.0.to_vec());
        let rows = self.viewed("read the positions of sources", SOURCES, &[&source])?;
        let marks = rows.iter().map(|row| {
            let mut row = Columns::new(row, self.place());
            let source: &[u8] = row.get()?;
            let source = source.try_into().map_err(|_| row.damaged("a source's id is cut".to_owned()))?;
            let (offset, line_count, finished) = (row.number()?, row.number()?, row.get()?);
            let (applied, already_applied) = (row.number()?, row.number()?);
            let (rejected, unreadable) = (row.number()?, row.number()?);
            let counts = RowCounts { applied, already_applied, rejected, unreadable };
            Ok(SourceMark { offset, line_count, finished, counts, ..SourceMark::new(SourceId(source)) })
        });
        marks.collect()
    }
}

/// The head of a chain that ends with this event, which is done.
fn in_effect(linked: &LinkedEvent) -> Head {
    let mut head = Head {
        seq: 0,
        link: Hash::default(),
        time_ms: 0,
        state: bursar_core::CustomerState::default(),
        open: Vec::new(),
    };
    head.done(linked);
    head
}

impl Chains for PostgresStore {
    fn whole_batches(&self) -> bool {
        false
    }

    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        for page in customers.chunks(PAGE) {
            heads.append(&mut self.load_page(page)?);
        }
        Ok(())
    }

    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        self.append_records(records, results)
    }

    fn end_batch(&self, _time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        let Some(mark) = mark else { return Ok(()) };
        let number = |number: u64| {
            big(number).ok_or_else(|| StoreError::Database {
                doing: "keep the position of a source",
                place: self.place().to_owned(),
                what: format!("{number} is more than a column holds"),
            })
        };
        let counts = &mark.counts;
        let lines = mark.rejected_lines.iter().map(|(line, _)| number(*line)).collect::<Result<Vec<i64>, _>>()?;
        let rejections: Vec<i16> = mark.rejected_lines.iter().map(|(_, rejection)| i16::from(*rejection)).collect();
        let begun = self.server.durability().begin();
        let answer = self.server.call(
            "keep the position of a source",
            MARK,
            &[
                &mark.source.0.as_slice(),
                &number(mark.offset)?,
                &number(mark.line_count)?,
                &mark.finished,
                &number(counts.applied)?,
                &number(counts.already_applied)?,
                &number(counts.rejected)?,
                &number(counts.unreadable)?,
                &lines,
                &rejections,
            ],
        )?;
        self.server.wrote(begun, &answer);
        Ok(())
    }

    /// Every call is durable when it returns. What was read, or found after a lost answer, may not be on the
    /// standbys yet, where there are some. If another server takes over before it is, nobody knows whether that one has it.
    fn sync(&self) -> Result<(), StoreError> {
        let durability = self.server.durability();
        if durability.is_due() {
            self.wait_for_standbys()?;
        }
        if durability.is_lost() {
            return Err(StoreError::Database {
                doing: "make sure that what was read stays",
                place: self.place().to_owned(),
                what: "another server has taken over, which may not have what was read before; open the ledger again"
                    .to_owned(),
            });
        }
        Ok(())
    }

    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        for page in events.chunks(PAGE) {
            let customers: Vec<Uuid> = page.iter().map(|event| uuid(event.customer)).collect();
            // No event has the place 0: one that cannot be there is not found.
            let seqs: Vec<i64> = page.iter().map(|event| big(event.seq).unwrap_or(0)).collect();
            let ids: Vec<Uuid> = page.iter().map(|event| Uuid(event.id.bits())).collect();
            let first = statuses.len();
            statuses.resize(first + page.len(), None);
            for row in &self.rows("look how events stand", STATUS, &[&customers, &seqs, &ids])? {
                let mut row = Columns::new(row, self.place());
                let at = Self::place_of(&mut row, page.len())?;
                statuses[first + at] = Some(row.status()?);
            }
        }
        Ok(())
    }

    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        let (mut from, mut to) = (range.from_seq, range.to_seq.min(i64::MAX as u64));
        let mut left = range.limit;
        let text = if range.newest_first { READ_NEWEST } else { READ_OLDEST };
        while let Some(from_seq) = big(from).filter(|_| left > 0 && from <= to) {
            let limit = left.min(PAGE);
            let to_seq = big(to).unwrap_or(i64::MAX);
            let rows = self.viewed("read a chain", text, &[&uuid(customer), &from_seq, &to_seq, &count_of(limit)])?;
            for row in &rows {
                let mut row = Columns::new(row, self.place());
                let entry = ChainEntry { linked: row.event()?, status: row.status()? };
                let seq = entry.linked.event.seq;
                if range.newest_first {
                    to = seq - 1;
                } else {
                    from = seq + 1;
                }
                entries.push(entry);
            }
            if rows.len() < limit {
                return Ok(());
            }
            left -= limit;
        }
        Ok(())
    }

    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError> {
        let rows = self.rows("look for open events", UNDER_WAY, &[])?;
        let mut batches: Vec<(Uuid, Vec<CustomerId>)> = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut row = Columns::new(row, self.place());
            let (batch, customers): (Uuid, Vec<Uuid>) = (row.get()?, row.get()?);
            batches.push((batch, customers.into_iter().map(|customer| CustomerId::new(customer.0)).collect()));
        }
        let mut customers: Vec<CustomerId> = batches.iter().flat_map(|(_, customers)| customers).copied().collect();
        customers.sort_unstable();
        customers.dedup();
        let mut heads = Vec::with_capacity(customers.len());
        self.load(&customers, &mut heads)?;
        let mut has_open = heads.iter().map(|head| head.as_ref().is_some_and(|head| !head.open.is_empty()));
        customers.retain(|_| has_open.next().unwrap_or(false));
        // A note comes with its events: if none of its customers has an open event now, all of them are closed.
        let is_over = |(_, noted): &&(Uuid, Vec<CustomerId>)| {
            noted.iter().all(|customer| customers.binary_search(customer).is_err())
        };
        let over: Vec<Uuid> = batches.iter().filter(is_over).map(|(batch, _)| *batch).collect();
        if !over.is_empty() {
            self.server.call("clear notes of closed events", NOT_UNDER_WAY, &[&over])?;
        }
        Ok(customers)
    }

    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError> {
        let mut from = match after {
            None => Some(0),
            Some(after) => after.bits().checked_add(1),
        };
        let mut left = limit;
        while let Some(first) = from.filter(|_| left > 0) {
            let count = left.min(PAGE);
            let mut customers = Vec::with_capacity(count);
            for row in &self.viewed("list customers", LIST, &[&Uuid(first), &count_of(count)])? {
                customers.push(CustomerId::new(Columns::new(row, self.place()).get::<Uuid>()?.0));
            }
            let loaded = self.view_page(&customers)?;
            let listed = customers.iter().zip(loaded);
            heads.extend(listed.filter_map(|(&customer, head)| Some(CustomerHead { customer, head: head? })));
            from = customers.last().filter(|_| customers.len() == count).and_then(|last| last.bits().checked_add(1));
            left -= count;
        }
        Ok(())
    }

    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError> {
        Ok(self.marks(Some(source))?.pop())
    }

    fn sources(&self) -> Result<Vec<SourceMark>, StoreError> {
        self.marks(None)
    }

    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError> {
        let rows = self.viewed("read the rejected lines of a source", REJECTED, &[&source.0.as_slice()])?;
        let lines = rows.iter().map(|row| {
            let mut row = Columns::new(row, self.place());
            let (line, rejection): (u64, i16) = (row.number()?, row.get()?);
            Ok((line, u8::try_from(rejection).map_err(|_| row.damaged(format!("rejection {rejection}")))?))
        });
        lines.collect()
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        let mut totals = Totals::default();
        let mut currencies: Vec<CurrencyTotals> = Vec::new();
        for row in &self.viewed("read the sums", SUMS, &[])? {
            let mut row = Columns::new(row, self.place());
            let (currency, kind, withdrawal): (i16, i16, bool) = (row.get()?, row.get()?, row.get()?);
            let (count, steps) = (row.number()?, row.get::<&str>()?);
            let Ok(index) = usize::try_from(currency) else {
                totals.customer_count = count;
                continue;
            };
            totals.event_count += count;
            // What was aborted moved nothing.
            let Some(kind) = u8::try_from(kind).ok().and_then(RequestKind::from_code) else { continue };
            let steps: i128 = steps.parse().map_err(|_| row.damaged(format!("the sum {steps}")))?;
            if currencies.len() <= index {
                currencies.resize(index + 1, CurrencyTotals::default());
            }
            if matches!(kind, RequestKind::Deposit | RequestKind::Withdrawal) {
                totals.transaction_count += count;
            }
            let of = if withdrawal { TransactionKind::Withdrawal } else { TransactionKind::Deposit };
            add(&mut currencies[index], kind, of, steps);
        }
        totals.set_currencies(currencies);
        Ok(totals)
    }

    fn feed(&self) -> Option<&dyn Feed> {
        self.follow.is_some().then_some(self)
    }

    fn last_time_ms(&self) -> Result<u64, StoreError> {
        let rows = self.rows("read the newest time", LAST_TIME, &[])?;
        rows.first().map_or(Ok(0), |row| Columns::new(row, self.place()).number())
    }
}

/// Adds what all events of one kind have moved.
fn add(sums: &mut CurrencyTotals, kind: RequestKind, of: TransactionKind, steps: i128) {
    let plus = |sum: Sum, steps: i128| Sum::from_steps(sum.steps() + steps);
    sums.total = plus(sums.total, total_delta(kind, of) * steps);
    let (held, charged_back) = match kind {
        RequestKind::Deposit => {
            sums.deposits = plus(sums.deposits, steps);
            return;
        }
        RequestKind::Withdrawal => {
            sums.withdrawals = plus(sums.withdrawals, steps);
            return;
        }
        RequestKind::Dispute => (steps, 0),
        RequestKind::Resolve => (-steps, 0),
        RequestKind::Chargeback => (-steps, steps),
        RequestKind::Unlock => return,
    };
    sums.held = plus(sums.held, held);
    match of {
        TransactionKind::Deposit => sums.deposits_charged_back = plus(sums.deposits_charged_back, charged_back),
        TransactionKind::Withdrawal => {
            sums.provisional = plus(sums.provisional, held);
            sums.withdrawals_charged_back = plus(sums.withdrawals_charged_back, charged_back);
        }
    }
}
