//! The stores that people are shown: accounts, single events, and transactions from the cache, the rest from the real ones.
//!
//! What may change is shown for as long as the settings say, and taken away when one of the engines changes it. What cannot
//! change, closed events and how they were closed, is kept longer. Nothing is decided on what is shown, and nothing is put
//! that a crash could take back: whatever was read is made durable first.
//!
//! Writes go on to the stores that decide.

use crate::codec;
use crate::deciding::{DecidingChains, DecidingTransactions};
use crate::seal::About;
use crate::shared::{Asked, Found, Shared};
use bursar_core::commit::{Appended, Approval, Proposal, ProposeResult};
use bursar_core::{CustomerId, EntryId, EventRef, EventStatus, Head, Record, TransactionEntry, TransactionId};
use bursar_engine::Totals;
use bursar_engine::embedded::EmbeddedStore;
use bursar_engine::store::{
    ChainEntry, Chains, CustomerHead, Feed, ReadRange, SourceId, SourceMark, StoreError, Transactions, WholeBatch,
};
use std::sync::Arc;

/// Splits what was found: each place's answer, if there is one; where to ask the store; and where what it says may be put.
struct Places<T> {
    answers: Vec<Option<T>>,
    missing: Vec<usize>,
    may_put: Vec<bool>,
}

impl<T> Places<T> {
    fn of(found: Option<Vec<Found<T>>>, count: usize) -> Self {
        let Some(found) = found else {
            let answers = (0..count).map(|_| None).collect();
            return Self { answers, missing: (0..count).collect(), may_put: vec![false; count] };
        };
        let (mut answers, mut missing, mut may_put) = (Vec::with_capacity(count), Vec::new(), Vec::new());
        for (at, found) in found.into_iter().enumerate() {
            may_put.push(matches!(found, Found::Nothing));
            answers.push(match found {
                Found::Is(entry) => Some(entry),
                Found::Nothing | Found::Marked => {
                    missing.push(at);
                    None
                }
            });
        }
        Self { answers, missing, may_put }
    }
}

#[derive(Debug)]
pub(crate) struct ShowingChains {
    pub(crate) deciding: Arc<DecidingChains>,
}

impl ShowingChains {
    fn shared(&self) -> &Shared {
        &self.deciding.shared
    }

    fn real(&self) -> &dyn Chains {
        &*self.deciding.inner
    }
}

impl Chains for ShowingChains {
    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        if !self.shared().settings.accounts {
            return self.real().load(customers, heads);
        }
        let abouts: Vec<About> = customers.iter().copied().map(About::Head).collect();
        let found = self.shared().find(&abouts, true, codec::head, |_, _| true);
        let Places { mut answers, missing, may_put } = Places::of(found, customers.len());
        if !missing.is_empty() {
            let asked = Asked::now();
            let missed: Vec<CustomerId> = missing.iter().map(|&at| customers[at]).collect();
            let mut loaded = Vec::with_capacity(missed.len());
            self.real().load(&missed, &mut loaded)?;
            self.real().sync()?;
            let puts = missing.iter().zip(&loaded).filter(|(at, _)| may_put[**at]);
            let puts = puts.filter_map(|(at, head)| Some((abouts[*at], codec::put_head(head.as_ref()?))));
            self.shared().put_shown(asked, puts);
            for (at, head) in missing.into_iter().zip(loaded) {
                answers[at] = head;
            }
        }
        heads.append(&mut answers);
        Ok(())
    }

    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        if !self.shared().settings.transactions {
            return self.real().status(events, statuses);
        }
        let abouts: Vec<About> = events.iter().map(|event| About::Status(event.customer, event.seq)).collect();
        let found = self.shared().find(&abouts, false, codec::closed_status, |at, (event, _)| *event == events[at]);
        let Places { answers, missing, may_put } = Places::of(found, events.len());
        let mut answers: Vec<_> = answers.into_iter().map(|found| found.map(|(_, status)| status)).collect();
        if !missing.is_empty() {
            let asked = Asked::now();
            let missed: Vec<EventRef> = missing.iter().map(|&at| events[at]).collect();
            let mut looked = Vec::with_capacity(missed.len());
            self.real().status(&missed, &mut looked)?;
            self.real().sync()?;
            let is_closed = |status: &&EventStatus| **status != EventStatus::Started;
            let puts = missing.iter().zip(&looked).filter(|(at, _)| may_put[**at]);
            let puts = puts.filter_map(|(at, status)| {
                let status = status.as_ref().filter(is_closed)?;
                Some((abouts[*at], codec::put_closed(&events[*at], status)))
            });
            self.shared().put_kept(asked, puts);
            for (at, status) in missing.into_iter().zip(looked) {
                answers[at] = status;
            }
        }
        statuses.append(&mut answers);
        Ok(())
    }

    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        let seq = range.from_seq;
        if !self.shared().settings.transactions || seq != range.to_seq || range.limit == 0 {
            return self.real().read(customer, range, entries);
        }
        let about = About::Event(customer, seq);
        let found = self.shared().find(&[about], false, codec::closed_event, |_, entry| {
            entry.linked.event.customer == customer && entry.linked.event.seq == seq
        });
        let may_put = match found.and_then(|mut found| found.pop()) {
            Some(Found::Is(entry)) => {
                entries.push(entry);
                return Ok(());
            }
            Some(Found::Nothing) => true,
            Some(Found::Marked) | None => false,
        };
        let (asked, first) = (Asked::now(), entries.len());
        self.real().read(customer, range, entries)?;
        let closed = entries[first..].iter().filter(|entry| may_put && entry.status != EventStatus::Started);
        let puts: Vec<_> = closed.map(|entry| (about, codec::put_closed_event(entry))).collect();
        if !puts.is_empty() {
            self.real().sync()?;
            self.shared().put_kept(asked, puts.into_iter());
        }
        Ok(())
    }

    fn whole_batches(&self) -> bool {
        self.deciding.whole_batches()
    }

    fn begin_whole(&self, time_ms: u64) -> Result<Option<Box<dyn WholeBatch + '_>>, StoreError> {
        self.deciding.begin_whole(time_ms)
    }

    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        self.deciding.append(records, results)
    }

    fn end_batch(&self, time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        self.deciding.end_batch(time_ms, mark)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.deciding.sync()
    }

    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError> {
        self.real().open_customers()
    }

    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError> {
        self.real().list(after, limit, heads)
    }

    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError> {
        self.real().source(source)
    }

    fn sources(&self) -> Result<Vec<SourceMark>, StoreError> {
        self.real().sources()
    }

    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError> {
        self.real().rejected_lines(source)
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.real().totals()
    }

    fn last_time_ms(&self) -> Result<u64, StoreError> {
        self.real().last_time_ms()
    }

    fn embedded(&self) -> Option<&EmbeddedStore> {
        self.real().embedded()
    }

    fn feed(&self) -> Option<&dyn Feed> {
        self.real().feed()
    }
}

#[derive(Debug)]
pub(crate) struct ShowingTransactions {
    pub(crate) deciding: Arc<DecidingTransactions>,
}

impl ShowingTransactions {
    fn shared(&self) -> &Shared {
        &self.deciding.shared
    }

    fn real(&self) -> &dyn Transactions {
        &*self.deciding.inner
    }
}

impl Transactions for ShowingTransactions {
    /// What is proposed is settled by who asks; so an entry need not be durable to be put.
    fn get(&self, ids: &[EntryId], entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        let abouts: Option<Vec<About>> = ids.iter().map(|id| id.transaction().map(About::Transaction)).collect();
        let Some(abouts) = abouts.filter(|_| self.shared().settings.transactions) else {
            return self.real().get(ids, entries);
        };
        let found = self.shared().find(&abouts, true, codec::entry, |_, _| true);
        let Places { answers, missing, may_put } = Places::of(found, ids.len());
        let mut answers: Vec<_> = answers.into_iter().map(Option::unwrap_or_default).collect();
        if !missing.is_empty() {
            let asked = Asked::now();
            let missed: Vec<EntryId> = missing.iter().map(|&at| ids[at]).collect();
            let mut got = Vec::with_capacity(missed.len());
            self.real().get(&missed, &mut got)?;
            let is_there =
                |(at, entry): &(&usize, &TransactionEntry)| may_put[**at] && **entry != TransactionEntry::default();
            let puts = missing.iter().zip(&got).filter(is_there);
            self.shared().put_shown(asked, puts.map(|(at, entry)| (abouts[*at], codec::put_entry(entry))));
            for (at, entry) in missing.into_iter().zip(got) {
                answers[at] = entry;
            }
        }
        entries.append(&mut answers);
        Ok(())
    }

    fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, StoreError> {
        if !self.shared().settings.transactions {
            return self.real().events_of(transaction);
        }
        let about = About::Touches(transaction);
        let found = self.shared().find(&[about], true, codec::references, |_, _| true);
        let may_put = match found.and_then(|mut found| found.pop()) {
            Some(Found::Is(events)) => return Ok(events),
            Some(Found::Nothing) => true,
            Some(Found::Marked) | None => false,
        };
        let asked = Asked::now();
        let events = self.real().events_of(transaction)?;
        let put = (may_put && !events.is_empty()).then(|| (about, codec::put_references(&events)));
        self.shared().put_shown(asked, put.into_iter());
        Ok(events)
    }

    fn propose(&self, proposals: &[Proposal], results: &mut Vec<ProposeResult>) -> Result<(), StoreError> {
        self.deciding.propose(proposals, results)
    }

    fn approve(&self, approvals: &[Approval]) -> Result<(), StoreError> {
        self.deciding.approve(approvals)
    }
}
