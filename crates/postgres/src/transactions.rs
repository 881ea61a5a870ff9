//! The transactions table: one row for each transaction, written once by most of them. The entries of keys are in a
//! table of their own, by the same statements.

use crate::config::Approve;
use crate::server::{Form, Params, Texts};
use crate::store::PostgresStore;
use crate::values::{Columns, Uuid, big, is_withdrawal, state_code, uuid};
use bursar_core::commit::{Approval, Proposal, ProposeResult};
use bursar_core::{EntryId, EventRef, Proposed, TransactionEntry, TransactionId, TransactionState};
use bursar_engine::store::{StoreError, Transactions};
use std::collections::HashSet;

macro_rules! first {
    ($table:literal, $behind:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " AS t (id, customer, event_id, seq, amount, currency, status, withdrawal) \
               SELECT n.id, n.customer, n.event_id, n.seq, n.amount, (n.packed & 255)::smallint, \
               (n.packed >> 8 & 255)::smallint, n.packed >> 16 <> 0 \
               FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::int[]) \
               AS n(id, customer, event_id, seq, amount, packed)",
            $behind
        )
    };
}
macro_rules! next {
    ($table:literal, $touched:literal) => {
        concat!(
            "WITH n AS MATERIALIZED (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], \
               $5::bigint[], $6::smallint[], $7::smallint[], $8::boolean[], $9::uuid[], \
               $10::uuid[], $11::boolean[], $12::bigint[], $13::smallint[], $14::smallint[], \
               $15::uuid[], $16::boolean[], $17::bigint[], $18::smallint[], $19::smallint[]) \
               AS n(id, customer, event_id, seq, amount, currency, status, withdrawal, seen, \
               a_customer, a_withdrawal, a_amount, a_currency, a_status, \
               s_customer, s_withdrawal, s_amount, s_currency, s_status)), \
             before AS MATERIALIZED (SELECT t.id, t.event_id, t.customer, t.seq FROM n JOIN ",
            $table,
            " t ON t.id = n.id WHERE t.event_id = n.seen), \
             moved AS (UPDATE ",
            $table,
            " t SET customer = n.customer, event_id = n.event_id, seq = n.seq, \
               amount = n.amount, currency = n.currency, status = n.status, withdrawal = n.withdrawal, \
               approved_customer = n.a_customer, approved_withdrawal = n.a_withdrawal, \
               approved_amount = n.a_amount, approved_currency = n.a_currency, approved_status = n.a_status \
               FROM n WHERE t.id = n.id AND t.event_id = n.seen AND ( \
                 (t.approved_customer, t.approved_withdrawal, t.approved_amount, t.approved_currency, \
                   t.approved_status) \
                   IS NOT DISTINCT FROM (n.a_customer, n.a_withdrawal, n.a_amount, n.a_currency, n.a_status) \
                 OR (t.approved_customer, t.approved_withdrawal, t.approved_amount, t.approved_currency, \
                   t.approved_status) \
                   IS NOT DISTINCT FROM (n.s_customer, n.s_withdrawal, n.s_amount, n.s_currency, n.s_status)) \
               RETURNING t.id)",
            $touched,
            " SELECT id FROM moved"
        )
    };
}

/// The statements for a table of entries.
#[derive(Debug)]
struct TableTexts {
    get: &'static str,
    /// Proposals on entries that have no row.
    first: [&'static str; 2],
    /// Proposals on what others have proposed.
    next: &'static str,
    /// Which of these events are the ones that the entries name.
    whose: &'static str,
    approve: &'static str,
}

macro_rules! texts {
    ($table:literal, $touched:literal) => {
        TableTexts {
            get: concat!(
                "SELECT n.place, t.customer, t.withdrawal, t.amount, t.currency, t.status, \
                 t.approved_customer, t.approved_withdrawal, t.approved_amount, t.approved_currency, \
                 t.approved_status, t.customer, t.seq, t.event_id \
                 FROM unnest($1::uuid[]) WITH ORDINALITY AS n(id, place) JOIN ",
                $table,
                " t ON t.id = n.id"
            ),
            first: [first!($table, ""), first!($table, " ON CONFLICT (id) DO NOTHING RETURNING t.id")],
            next: next!($table, $touched),
            whose: concat!(
                "SELECT n.place FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS n(id, event_id, place) JOIN ",
                $table,
                " t ON t.id = n.id WHERE t.event_id = n.event_id"
            ),
            approve: concat!(
                "UPDATE ",
                $table,
                " t SET approved_customer = t.customer, approved_withdrawal = t.withdrawal, \
                 approved_amount = t.amount, approved_currency = t.currency, approved_status = t.status \
                 FROM unnest($1::uuid[], $2::uuid[]) AS n(id, event_id) WHERE t.id = n.id \
                 AND t.event_id = n.event_id AND t.approved_status IS DISTINCT FROM t.status"
            ),
        }
    };
}

/// What is written over goes to `touches`, so that it is found again.
const OF_TRANSACTIONS: TableTexts = texts!(
    "transactions",
    ", touched AS (INSERT INTO touches (transaction, event_id, customer, seq) \
       SELECT b.id, b.event_id, b.customer, b.seq FROM before b WHERE (b.id IN (SELECT m.id FROM moved m)) IS TRUE \
       ON CONFLICT (transaction, event_id) DO NOTHING)"
);
/// Nobody asks for the events that had a key before: they were aborted.
const OF_KEYS: TableTexts = texts!("request_keys", "");
const TOUCHED: &str = "SELECT t.customer, t.seq, t.event_id FROM transactions t WHERE t.id = $1 \
     UNION ALL SELECT o.customer, o.seq, o.event_id FROM touches o WHERE o.transaction = $1";

/// The columns of states that may be missing.
#[derive(Default)]
struct States {
    customers: Vec<Option<Uuid>>,
    withdrawals: Vec<Option<bool>>,
    amounts: Vec<Option<i64>>,
    currencies: Vec<Option<i16>>,
    statuses: Vec<Option<i16>>,
}

impl States {
    fn of(states: impl Iterator<Item = Option<TransactionState>>) -> Self {
        let mut columns = Self::default();
        for state in states {
            columns.customers.push(state.map(|state| uuid(state.customer)));
            columns.withdrawals.push(state.map(|state| is_withdrawal(state.kind)));
            columns.amounts.push(state.map(|state| state.amount.steps()));
            columns.currencies.push(state.map(|state| i16::from(state.currency.0)));
            columns.statuses.push(state.map(|state| state_code(state.status)));
        }
        columns
    }
}

/// Which table has an entry, and under which id.
const fn row_of(entry: EntryId) -> (Space, Uuid) {
    match entry {
        EntryId::Transaction(transaction) => (Space::Transactions, Uuid(transaction.bits())),
        EntryId::Key(key) => (Space::Keys, Uuid(key.bits())),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Transactions,
    Keys,
}

impl Space {
    const BOTH: [Self; 2] = [Self::Transactions, Self::Keys];

    const fn texts(self) -> &'static TableTexts {
        match self {
            Self::Transactions => &OF_TRANSACTIONS,
            Self::Keys => &OF_KEYS,
        }
    }
}

impl PostgresStore {
    /// Proposes states of entries that are all different. Gives those that were written.
    fn propose_first(&self, texts: &TableTexts, proposals: &[&Proposal]) -> Result<HashSet<Uuid>, StoreError> {
        if proposals.is_empty() {
            return Ok(HashSet::new());
        }
        let column = |of: fn(&Proposal) -> u128| proposals.iter().map(|p| Uuid(of(p))).collect::<Vec<Uuid>>();
        let ids = column(|p| row_of(p.entry).1.0);
        let (customers, events) = (column(|p| p.state.customer.bits()), column(|p| p.event.id.bits()));
        let seqs: Vec<i64> = proposals.iter().map(|p| p.event.seq.cast_signed()).collect();
        let amounts: Vec<i64> = proposals.iter().map(|p| p.state.amount.steps()).collect();
        let packed = |p: &&Proposal| {
            let status = i32::from(state_code(p.state.status)) << 8;
            i32::from(p.state.currency.0) | status | i32::from(is_withdrawal(p.state.kind)) << 16
        };
        let packed: Vec<i32> = proposals.iter().map(packed).collect();
        let [checked, careful] = texts.first;
        let texts = Texts { plain: None, checked, careful };
        let params: Params<'_> = &[&ids, &customers, &events, &seqs, &amounts, &packed];
        Ok(match self.written(&texts, params)? {
            (Form::Plain | Form::Checked, _) => ids.into_iter().collect(),
            (Form::Careful, written) => written,
        })
    }

    fn propose_next(&self, texts: &TableTexts, proposals: &[&Proposal]) -> Result<HashSet<Uuid>, StoreError> {
        if proposals.is_empty() {
            return Ok(HashSet::new());
        }
        let ids: Vec<Uuid> = proposals.iter().map(|p| row_of(p.entry).1).collect();
        let events: Vec<Uuid> = proposals.iter().map(|p| Uuid(p.event.id.bits())).collect();
        let seqs: Vec<i64> = proposals.iter().map(|p| p.event.seq.cast_signed()).collect();
        let seen: Vec<Option<Uuid>> = proposals.iter().map(|p| p.seen_proposed.map(|id| Uuid(id.bits()))).collect();
        let states = States::of(proposals.iter().map(|p| Some(p.state)));
        let approved = States::of(proposals.iter().map(|p| p.approved));
        let was = States::of(proposals.iter().map(|p| p.seen_approved));
        let texts = Texts { plain: None, checked: texts.next, careful: texts.next };
        let written = self.written(
            &texts,
            &[
                &ids,
                &states.customers,
                &events,
                &seqs,
                &states.amounts,
                &states.currencies,
                &states.statuses,
                &states.withdrawals,
                &seen,
                &approved.customers,
                &approved.withdrawals,
                &approved.amounts,
                &approved.currencies,
                &approved.statuses,
                &was.customers,
                &was.withdrawals,
                &was.amounts,
                &was.currencies,
                &was.statuses,
            ],
        );
        Ok(written?.1)
    }

    fn written(&self, texts: &Texts, params: Params<'_>) -> Result<(Form, HashSet<Uuid>), StoreError> {
        let begun = self.server.durability().begin();
        let answer = self.server.insert("propose states of transactions", texts, params)?;
        let ids = answer.rows.iter().map(|row| Columns::new(row, self.place()).get());
        let ids = ids.collect::<Result<HashSet<Uuid>, _>>()?;
        if !ids.is_empty() || answer.form != Form::Careful {
            self.server.wrote(begun, &answer);
        }
        Ok((answer.form, ids))
    }

    /// Proposes states of entries that are all different, and in one table.
    fn propose_wave(
        &self,
        texts: &TableTexts,
        proposals: &[Proposal],
        wave: &[usize],
        results: &mut [ProposeResult],
    ) -> Result<(), StoreError> {
        let (mut first, mut next) = (Vec::with_capacity(wave.len()), Vec::new());
        for &place in wave {
            let proposal = &proposals[place];
            if big(proposal.event.seq).is_none() {
                continue;
            }
            match (proposal.seen_proposed, proposal.approved) {
                // Its own proposal is there already, or was.
                (Some(seen), _) if seen == proposal.event.id => {}
                (Some(_), _) => next.push(proposal),
                (None, None) => first.push(proposal),
                // Nothing is approved that nobody has proposed.
                (None, Some(_)) => {}
            }
        }
        let mut written = self.propose_first(texts, &first)?;
        written.extend(self.propose_next(texts, &next)?);
        let lost = |place: &&usize| !written.contains(&row_of(proposals[**place].entry).1);
        let lost: Vec<usize> = wave.iter().filter(lost).copied().collect();
        for &place in wave {
            if !lost.contains(&place) {
                results[place] = ProposeResult::Proposed;
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        // An entry that names this very event is as good as written now.
        let ids: Vec<Uuid> = lost.iter().map(|&place| row_of(proposals[place].entry).1).collect();
        let events: Vec<Uuid> = lost.iter().map(|&place| Uuid(proposals[place].event.id.bits())).collect();
        let answer = self.server.call("look who has proposed", texts.whose, &[&ids, &events])?;
        self.server.durability().read(answer.timeline);
        for row in &answer.rows {
            let place: i64 = Columns::new(row, self.place()).get()?;
            let at = usize::try_from(place - 1).unwrap_or(usize::MAX);
            if let Some(&place) = lost.get(at) {
                results[place] = ProposeResult::Proposed;
            }
        }
        Ok(())
    }
}

impl Transactions for PostgresStore {
    fn get(&self, ids: &[EntryId], entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        let first = entries.len();
        entries.resize(first + ids.len(), TransactionEntry::default());
        for space in Space::BOTH {
            let asked = ids.iter().zip(first..).map(|(id, place)| (row_of(*id), place));
            let asked = asked.filter(|((of, _), _)| *of == space).map(|((_, id), place)| (id, place));
            // In order, so that one descent of the index finds most of the way for the next.
            let mut asked: Vec<(Uuid, usize)> = asked.collect();
            asked.sort_unstable();
            let (asked, places): (Vec<Uuid>, Vec<usize>) = asked.into_iter().unzip();
            if asked.is_empty() {
                continue;
            }
            let answer = self.server.call("read transactions", space.texts().get, &[&asked])?;
            self.server.durability().read(answer.timeline);
            for row in &answer.rows {
                let mut row = Columns::new(row, self.place());
                let place: i64 = row.get()?;
                let at = usize::try_from(place - 1).unwrap_or(usize::MAX);
                let Some(entry) = places.get(at).and_then(|&place| entries.get_mut(place)) else {
                    return Err(row.damaged(format!("a row for place {place}")));
                };
                let state = row.state()?.ok_or_else(|| row.damaged("a transaction without a state".to_owned()))?;
                let approved = row.state()?;
                let event = row.reference()?;
                *entry = TransactionEntry { approved, proposed: Some(Proposed { state, event }) };
            }
        }
        Ok(())
    }

    fn propose(&self, proposals: &[Proposal], results: &mut Vec<ProposeResult>) -> Result<(), StoreError> {
        let first = results.len();
        results.resize(first + proposals.len(), ProposeResult::Conflict);
        for space in Space::BOTH {
            let mut order: Vec<usize> =
                (0..proposals.len()).filter(|&place| row_of(proposals[place].entry).0 == space).collect();
            order.sort_by_key(|&place| proposals[place].entry);
            // In order, and each entry once in a statement.
            while !order.is_empty() {
                let mut last: Option<EntryId> = None;
                let mut later = Vec::new();
                order.retain(|&place| {
                    let entry = proposals[place].entry;
                    let is_first = last != Some(entry);
                    last = Some(entry);
                    if !is_first {
                        later.push(place);
                    }
                    is_first
                });
                self.propose_wave(space.texts(), proposals, &order, &mut results[first..])?;
                order = later;
            }
        }
        Ok(())
    }

    fn approve(&self, approvals: &[Approval]) -> Result<(), StoreError> {
        if self.approve == Approve::Lazily {
            return Ok(());
        }
        for space in Space::BOTH {
            let rows = approvals.iter().map(|approval| (row_of(approval.entry), Uuid(approval.event.bits())));
            let rows = rows.filter(|((of, _), _)| *of == space).map(|((_, id), event)| (id, event));
            let mut sorted: Vec<(Uuid, Uuid)> = rows.collect();
            if sorted.is_empty() {
                continue;
            }
            sorted.sort_unstable();
            let (ids, events): (Vec<Uuid>, Vec<Uuid>) = sorted.into_iter().unzip();
            self.server.call("approve states of transactions", space.texts().approve, &[&ids, &events])?;
        }
        Ok(())
    }

    fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, StoreError> {
        let rows = self.viewed("read the events of a transaction", TOUCHED, &[&Uuid(transaction.bits())])?;
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            events.push(Columns::new(row, self.place()).reference()?);
        }
        events.sort_by_key(|event| (event.customer, event.seq));
        Ok(events)
    }
}
