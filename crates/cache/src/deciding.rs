//! The stores that a ledger decides on. Everything goes to the real ones, but for one question: whether a transaction
//! exists that a repeated request would make again.
//!
//! ```text
//!  get_for(batch) ── all of it deposits and withdrawals? ── all in the cache, as asked for? ── all done, by the chain? ──► answered
//!                         └──────────── no ─────────────────────────┴───────────────────────────────┴──► the table is asked
//! ```
//!
//! The cache names an event; its content proves its id by its hash, and the chain says whether that event is in effect. If
//! it is, its transaction exists, with that customer, kind, amount and currency, for good. How it stands is not told, and not
//! needed. Heads and states are never taken from the cache here: an append is refused by its place alone, and a refusal by
//! nothing, so that nothing behind them would notice a stale one.
//!
//! Beside that, these wrappers notice what a batch changes, and see to it that it is not shown any longer.

use crate::client::count;
use crate::codec;
use crate::seal::About;
use crate::shared::{Found, KEYS_MAX, Shared};
use bursar_core::commit::{Appended, Approval, Batch, Proposal, ProposeResult};
use bursar_core::{
    CustomerId, EntryId, EventRef, EventStatus, Head, LinkedEvent, Proposed, Record, RequestKind, TransactionEntry,
    TransactionId, TransactionState,
};
use bursar_engine::Totals;
use bursar_engine::embedded::EmbeddedStore;
use bursar_engine::figures::CacheFigures;
use bursar_engine::store::{
    ChainEntry, Chains, CustomerHead, Feed, ReadRange, SourceId, SourceMark, StoreError, Transactions, WholeBatch,
};
use std::sync::Arc;

/// How many of a batch's entries are looked up before all of them are.
const PROBE_KEYS: usize = 8;

#[derive(Debug)]
pub(crate) struct DecidingChains {
    pub(crate) inner: Arc<dyn Chains>,
    pub(crate) shared: Arc<Shared>,
}

impl DecidingChains {
    fn note(&self, records: &[Record], results: &[Appended]) {
        let settings = &self.shared.settings;
        let mut under_way = self.shared.under_way();
        for (record, result) in records.iter().zip(results) {
            if *result == Appended::Conflict {
                continue;
            }
            if settings.accounts {
                under_way.changed(record.customer());
            }
            match record {
                Record::Started(linked) => under_way.started(linked, settings.repeats && makes(linked)),
                Record::Done(event) | Record::DoneByHand(event, _) if result.is_as_wanted(record) => {
                    under_way.done(event.id);
                }
                Record::Done(_) | Record::DoneByHand(..) | Record::Aborted(..) => {}
            }
        }
    }
}

/// Whether an event makes a transaction.
fn makes(linked: &LinkedEvent) -> bool {
    match linked.event.kind {
        RequestKind::Deposit | RequestKind::Withdrawal => true,
        RequestKind::Dispute | RequestKind::Resolve | RequestKind::Chargeback | RequestKind::Unlock => false,
    }
}

impl Chains for DecidingChains {
    fn whole_batches(&self) -> bool {
        self.inner.whole_batches()
    }

    fn begin_whole(&self, time_ms: u64) -> Result<Option<Box<dyn WholeBatch + '_>>, StoreError> {
        self.inner.begin_whole(time_ms)
    }

    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        let first = heads.len();
        self.inner.load(customers, heads)?;
        if self.shared.settings.repeats {
            self.shared.under_way().loaded(&self.shared.ledger_digest, customers, &heads[first..]);
        }
        Ok(())
    }

    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        let first = results.len();
        let appended = self.inner.append(records, results);
        if appended.is_ok() {
            self.note(records, &results[first..]);
        } else {
            // Nobody knows what has become of them.
            let mut under_way = self.shared.under_way();
            for record in records {
                under_way.changed(record.customer());
            }
            drop(under_way);
            self.shared.batch_ended();
        }
        appended
    }

    fn end_batch(&self, time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        let ended = self.inner.end_batch(time_ms, mark);
        self.shared.batch_ended();
        ended
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync()
    }

    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        self.inner.status(events, statuses)
    }

    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        self.inner.read(customer, range, entries)
    }

    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError> {
        self.inner.open_customers()
    }

    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError> {
        self.inner.list(after, limit, heads)
    }

    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError> {
        self.inner.source(source)
    }

    fn sources(&self) -> Result<Vec<SourceMark>, StoreError> {
        self.inner.sources()
    }

    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError> {
        self.inner.rejected_lines(source)
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.inner.totals()
    }

    fn last_time_ms(&self) -> Result<u64, StoreError> {
        self.inner.last_time_ms()
    }

    fn embedded(&self) -> Option<&EmbeddedStore> {
        self.inner.embedded()
    }

    fn cache_figures(&self) -> Option<CacheFigures> {
        Some(self.shared.client.figures())
    }

    fn feed(&self) -> Option<&dyn Feed> {
        self.inner.feed()
    }
}

#[derive(Debug)]
pub(crate) struct DecidingTransactions {
    pub(crate) inner: Arc<dyn Transactions>,
    /// The real ones: what the cache says is held against them.
    pub(crate) chains: Arc<dyn Chains>,
    pub(crate) shared: Arc<Shared>,
}

impl DecidingTransactions {
    /// The entries of transactions that all exist as they are asked for; `None` if that is not so, or not known.
    fn repeated(
        &self,
        ids: &[EntryId],
        made: &[TransactionState],
    ) -> Result<Option<Vec<TransactionEntry>>, StoreError> {
        if ids.len() > KEYS_MAX {
            return Ok(None);
        }
        // Most batches make new transactions. That costs a short look.
        let step = ids.len().div_ceil(PROBE_KEYS).max(1);
        let probe: Vec<usize> = (0..ids.len()).step_by(step).collect();
        let Some(mut makers) = self.makers(ids, made, &probe) else { return Ok(None) };
        if probe.len() < ids.len() {
            let all: Vec<usize> = (0..ids.len()).collect();
            let Some(found) = self.makers(ids, made, &all) else { return Ok(None) };
            makers = found;
        }
        if !self.all_done(&makers)? {
            return Ok(None);
        }
        count(&self.shared.client.counts.repeats, makers.len());
        let entry = |(state, event): (&TransactionState, EventRef)| TransactionEntry {
            approved: Some(*state),
            proposed: Some(Proposed { state: *state, event }),
        };
        Ok(Some(made.iter().zip(makers).map(entry).collect()))
    }

    /// The events that made these transactions, as they are asked for, if the cache has all of them.
    fn makers(&self, ids: &[EntryId], made: &[TransactionState], places: &[usize]) -> Option<Vec<EventRef>> {
        let abouts = places.iter().map(|&place| ids[place].transaction().map(About::Maker));
        let abouts = abouts.collect::<Option<Vec<_>>>()?;
        let found = self.shared.find(&abouts, false, codec::maker, |at, linked| {
            makes(linked) && linked.event.transaction == ids[places[at]].transaction()
        })?;
        let found = found.into_iter().zip(places);
        let reference = |(found, &place): (Found<LinkedEvent>, &usize)| match found {
            Found::Is(linked) if linked.event.transaction_state() == Some(made[place]) => Some(linked.reference()),
            Found::Is(_) | Found::Nothing | Found::Marked => None,
        };
        found.map(reference).collect()
    }

    /// Whether the chains say of all these events that they are in effect.
    fn all_done(&self, events: &[EventRef]) -> Result<bool, StoreError> {
        let unknown: Vec<EventRef> = {
            let under_way = self.shared.under_way();
            events.iter().filter(|event| !under_way.is_head(event)).copied().collect()
        };
        if unknown.is_empty() {
            return Ok(true);
        }
        let mut statuses = Vec::with_capacity(unknown.len());
        self.chains.status(&unknown, &mut statuses)?;
        let is_done = |status: &Option<EventStatus>| status.as_ref().is_some_and(EventStatus::is_done);
        let done_count = statuses.iter().filter(|status| is_done(status)).count();
        count(&self.shared.client.counts.disbelieved, unknown.len() - done_count);
        Ok(done_count == unknown.len())
    }
}

impl Transactions for DecidingTransactions {
    fn get(&self, ids: &[EntryId], entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        self.inner.get(ids, entries)
    }

    fn get_for(&self, batch: &Batch, entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        if self.shared.settings.repeats
            && let Some(made) = batch.only_makes()
            && let Some(mut found) = self.repeated(batch.transactions(), &made)?
        {
            entries.append(&mut found);
            return Ok(());
        }
        self.inner.get_for(batch, entries)
    }

    fn propose(&self, proposals: &[Proposal], results: &mut Vec<ProposeResult>) -> Result<(), StoreError> {
        let first = results.len();
        self.inner.propose(proposals, results)?;
        if self.shared.settings.transactions {
            let mut under_way = self.shared.under_way();
            for (proposal, result) in proposals.iter().zip(&results[first..]) {
                // Nobody has put an entry that was empty.
                let was_there = proposal.seen_proposed.is_some() || proposal.seen_approved.is_some();
                if let Some(transaction) = proposal.entry.transaction()
                    && was_there
                    && *result == ProposeResult::Proposed
                {
                    under_way.changed_transaction(transaction);
                }
            }
        }
        Ok(())
    }

    fn approve(&self, approvals: &[Approval]) -> Result<(), StoreError> {
        self.inner.approve(approvals)
    }

    fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, StoreError> {
        self.inner.events_of(transaction)
    }
}
