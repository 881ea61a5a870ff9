//! The quick reading: whether all is well, and no more. The first doubt ends it, and [`super::pass`] reads the journal
//! again, to say what is wrong and where.
//!
//! It checks everything that the thorough reading checks, in less room and with fewer ways to memory:
//!
//! - chains lie in little room ([`super::book`]); those of the records to come are touched before they are needed, many
//!   at once
//! - a record of another pass's customers is stepped over; its own pass looks at all of it
//! - what events did to transactions is gathered, and checked at the end ([`super::effects`])

use super::book::{Book, State};
use super::chains::{OpenHere, Partition};
use super::effects::{self, Effects, Keys};
use super::index::Derived;
use super::pass::{Done, Inputs, PROGRESS_BYTES, Ran, goes_back};
use super::walk::{Seen, Walk};
use crate::embedded::codec::{Decoder, Malformed};
use crate::embedded::frame::{FrameHeader, HEADER_BYTES, is_end};
use crate::embedded::journal::JournalPoint;
use crate::embedded::record::{Stored, StoredClosing, StoredEvent, take_record_of};
use crate::store::{SourceId, SourceMark, StoreError};
use bursar_core::{CustomerId, EventStatus, Head, LedgerConfig, RequestKind};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many records are read before they are taken. They stay in a processor's first cache, and the chains that they
/// need in the second.
const RECORDS_AT_ONCE: usize = 64;

/// Why a reading ends before the journal does.
pub(super) enum Stop {
    /// Something is not as it should be, or cannot be told from what is known here.
    Doubtful,
    /// The tables grew beyond their limit.
    TooLarge,
    Failed(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<Malformed> for Stop {
    fn from(_: Malformed) -> Self {
        Self::Doubtful
    }
}

/// Goes on only if this is so.
pub(super) const fn sure(so: bool) -> Result<(), Stop> {
    if so { Ok(()) } else { Err(Stop::Doubtful) }
}

/// Whose transactions a pass gathers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gathers {
    /// Those of its customers; they are checked together with those of the other passes, which run beside it.
    OfItsCustomers,
    /// Those of its partition, whoever made them; it checks them by itself.
    OfItsPartition,
}

/// What all passes of a quick reading have in common.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) config: &'a LedgerConfig,
    pub(super) keys: Keys,
    pub(super) gathers: Gathers,
    pub(super) doubt: &'a AtomicBool,
    pub(super) memory_bytes_max: usize,
}

/// A pass under way.
pub(super) struct QuickPass<'a> {
    reading: Reading<'a>,
    partition: Partition,
    book: Book,
    effects: Effects,
    sources: BTreeMap<SourceId, SourceMark>,
    /// Records that were read and are to be taken next, with their positions.
    next: Vec<(u64, Stored)>,
    /// Where their chains probably lie.
    guesses: Vec<Option<u32>>,
    last_time_ms: u64,
    done: Done,
}

impl<'a> QuickPass<'a> {
    pub(super) fn new(reading: Reading<'a>, partition: Partition, first: bool) -> Self {
        let Reading { inputs, config, keys, .. } = reading;
        let derived = inputs.derived.as_ref();
        let digest = config.digest();
        let book = Book::new(digest);
        Self {
            reading,
            partition,
            book,
            effects: Effects::new(config.ledger, keys, inputs.has_table, derived),
            sources: BTreeMap::new(),
            next: Vec::with_capacity(RECORDS_AT_ONCE),
            guesses: Vec::with_capacity(RECORDS_AT_ONCE),
            last_time_ms: 0,
            done: Done::new(first, digest),
        }
    }

    /// Reads the journal once.
    pub(super) fn run(mut self, told: &mut dyn FnMut(u64, u64)) -> Result<Ran, StoreError> {
        match self.read(told) {
            Ok(()) => {}
            Err(Stop::TooLarge) => return Ok(Ran::TooLarge),
            Err(Stop::Doubtful) => {
                self.reading.doubt.store(true, Ordering::Relaxed);
                return Ok(Ran::Doubtful);
            }
            Err(Stop::Failed(error)) => return Err(error),
        }
        let Self { reading, effects, mut done, .. } = self;
        match reading.gathers {
            Gathers::OfItsCustomers => done.effects = Some(effects),
            Gathers::OfItsPartition => match effects::check(vec![effects], reading.inputs.derived.as_ref(), 1)? {
                Some(matched) => done.index_matches = matched,
                None => return Ok(Ran::Doubtful),
            },
        }
        Ok(Ran::Done(Box::new(done)))
    }

    fn read(&mut self, told: &mut dyn FnMut(u64, u64)) -> Result<(), Stop> {
        let Reading { inputs, config, .. } = self.reading;
        let digests = self.partition.digests();
        let mut walk = Walk::new(&inputs.segments, Some((config.ledger, config.digest())), digests);
        let bytes_total = inputs.places().journal_end();
        let mut point = inputs.derived.as_ref().map(|derived| derived.checkpoint.point.position);
        let mut told_at = 0;
        while let Some(seen) = walk.next()? {
            let Seen::Frame { header, position, bytes } = seen else { return Err(Stop::Doubtful) };
            if point.is_some_and(|point| point <= position) {
                point = None;
                self.at_checkpoint(position)?;
            }
            self.take_frame(&header, position, bytes)?;
            let end = position + bytes.len() as u64;
            self.done.frame_count += 1;
            self.done.end = JournalPoint { position: end, frame_number: header.number, digest: header.digest };
            if end - told_at > PROGRESS_BYTES {
                told_at = end;
                told(end, bytes_total);
                sure(!self.reading.doubt.load(Ordering::Relaxed) && !self.effects.is_doubtful())?;
                if self.partition.halves().is_some() && self.memory_bytes() > self.reading.memory_bytes_max {
                    return Err(Stop::TooLarge);
                }
            }
        }
        self.take_next()?;
        let (ending, end) = (walk.ending, walk.end);
        told(end, bytes_total);
        if let Some(point) = point {
            sure(point <= end)?;
            self.at_checkpoint(end)?;
        }
        self.finish()?;
        self.done.ended(inputs, ending, end);
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.book.memory_bytes() + self.effects.memory_bytes()
    }

    /// Reads all records of a frame.
    fn take_frame(&mut self, header: &FrameHeader, position: u64, bytes: &[u8]) -> Result<(), Stop> {
        let mut decoder = Decoder::new(bytes, HEADER_BYTES);
        let partition = self.partition;
        let all = self.reading.gathers == Gathers::OfItsPartition;
        for _ in 0..header.record_count {
            let at = position + decoder.offset() as u64;
            let wanted = |customer| all || partition.has_customer(customer);
            let Some(record) = take_record_of(&mut decoder, position, header.time_ms, wanted)? else { continue };
            self.next.push((at, record));
            if self.next.len() == RECORDS_AT_ONCE {
                self.take_next()?;
            }
        }
        sure(is_end(&bytes[decoder.offset()..]))
    }

    /// Takes the records that were read.
    fn take_next(&mut self) -> Result<(), Stop> {
        let mut records = std::mem::take(&mut self.next);
        // A mark has no chain, but a place in the list.
        let customers = records.iter().map(|(_, record)| match record {
            Stored::Event(stored) => stored.linked.event.customer,
            Stored::Closing(closing) => closing.event.customer,
            Stored::Mark(_) => CustomerId::default(),
        });
        let mut guesses = std::mem::take(&mut self.guesses);
        self.book.bring_near(customers, &mut guesses);
        for ((position, record), guess) in records.iter().zip(&guesses) {
            match record {
                Stored::Event(stored) => self.event(*position, stored, *guess)?,
                Stored::Closing(closing) => self.closing(*position, closing, *guess)?,
                Stored::Mark(mark) if self.done.first => self.mark(mark)?,
                Stored::Mark(_) => {}
            }
        }
        records.clear();
        (self.next, self.guesses) = (records, guesses);
        Ok(())
    }

    /// Whether the transaction, or the key, with these bits is one that this pass gathers.
    fn gathers(&self, bits: u128) -> bool {
        match self.reading.gathers {
            Gathers::OfItsCustomers => true,
            Gathers::OfItsPartition => self.partition.has(bits),
        }
    }

    fn event(&mut self, position: u64, stored: &StoredEvent, guess: Option<u32>) -> Result<(), Stop> {
        let StoredEvent { linked, done, previous, transaction_previous } = stored;
        let event = &linked.event;
        if let Some(transaction) = event.transaction
            && self.gathers(transaction.bits())
        {
            self.effects.event(position, stored, transaction);
        }
        if let Some(key) = event.key
            && self.gathers(key.bits())
        {
            self.effects.key(position, stored, key);
        }
        if !self.partition.has_customer(event.customer) {
            return Ok(());
        }
        match event.kind {
            // What comes before it on its transaction is compared with what was gathered.
            RequestKind::Dispute | RequestKind::Resolve | RequestKind::Chargeback => {}
            RequestKind::Deposit | RequestKind::Withdrawal | RequestKind::Unlock => {
                sure(transaction_previous.is_none())?;
            }
        }
        self.last_time_ms = self.last_time_ms.max(event.time_ms);
        self.done.event_count += 1;
        self.done.totals.begun(event);
        let index = self.book.settle(guess, event.customer).unwrap_or_else(|| self.book.begin(event.customer));
        let chain = &mut self.book.chains[index as usize];
        sure(*previous == chain.newest() && chain.last_seq().checked_add(1) == Some(event.seq))?;
        chain.newest = position;
        if *done
            && let State::Narrow(narrow) = &mut chain.state
            && narrow.can_take(linked)
        {
            narrow.take(self.reading.config, linked)?;
            self.done.totals.done(event);
            return Ok(());
        }
        let mut wide = chain.take_wide();
        if !*done {
            wide.open.push(OpenHere { linked: linked.clone(), position });
            chain.state = State::Wide(wide);
            return Ok(());
        }
        sure(wide.open.is_empty())?;
        wide.follow(self.reading.config, linked, &EventStatus::Done)?;
        chain.state = wide.behind(&EventStatus::Done);
        self.done.totals.done(event);
        Ok(())
    }

    fn closing(&mut self, position: u64, closing: &StoredClosing, guess: Option<u32>) -> Result<(), Stop> {
        self.effects.closing(position, closing);
        let customer = closing.event.customer;
        if !self.partition.has_customer(customer) {
            return Ok(());
        }
        let index = self.book.settle(guess, customer).ok_or(Stop::Doubtful)?;
        let chain = &mut self.book.chains[index as usize];
        sure(chain.newest() == Some(closing.previous))?;
        chain.newest = position;
        let mut wide = chain.take_wide();
        sure(wide.open.first().is_some_and(|open| open.linked.reference() == closing.event))?;
        let OpenHere { linked, position: started } = wide.open.remove(0);
        sure(started == closing.started)?;
        wide.follow(self.reading.config, &linked, &closing.status)?;
        chain.state = wide.behind(&closing.status);
        match closing.status {
            EventStatus::Done | EventStatus::DoneByHand(_) => self.done.totals.done(&linked.event),
            EventStatus::Aborted(_) | EventStatus::Started => self.done.totals.aborted(),
        }
        Ok(())
    }

    fn mark(&mut self, mark: &SourceMark) -> Result<(), Stop> {
        let kept = SourceMark { rejected_lines: Vec::new(), ..mark.clone() };
        let before = self.sources.insert(kept.source, kept);
        sure(before.is_none_or(|before| !goes_back(&before, mark)))
    }

    /// The pass has come to the checkpoint's point; the next frame begins, or would begin, at `next`.
    fn at_checkpoint(&mut self, next: u64) -> Result<(), Stop> {
        self.take_next()?;
        self.done.at_checkpoint = self.done.totals.clone();
        let Inputs { disk, derived: Some(derived), .. } = self.reading.inputs else { return Ok(()) };
        if self.done.first {
            let found = &mut self.done.derived;
            derived.check_point(disk.path(), self.done.end, next, found);
            sure(found.is_empty() && derived.checkpoint.sources.iter().eq(self.sources.values()))?;
        }
        sure(derived.checkpoint.last_time_ms >= self.last_time_ms)?;
        self.compare_heads(derived)?;
        self.compare_open(derived)
    }

    /// Whether the index has the head of every chain, and leads to its newest record.
    fn compare_heads(&self, derived: &Derived) -> Result<(), Stop> {
        let partition = self.partition;
        let mut compared = vec![false; self.book.chains.len()];
        let mut heads: Vec<(CustomerId, Head, u64)> = Vec::with_capacity(RECORDS_AT_ONCE);
        let (mut guesses, mut hashes) = (Vec::with_capacity(RECORDS_AT_ONCE), Vec::with_capacity(RECORDS_AT_ONCE));
        for (_, run) in &derived.customers {
            let mut entries = run.iter_from(None);
            loop {
                while heads.len() < RECORDS_AT_ONCE
                    && let Some(entry) = entries.next_of(|id| partition.has_customer(id))?
                {
                    heads.push(entry);
                }
                if heads.is_empty() {
                    break;
                }
                self.book.bring_near(heads.iter().map(|(customer, ..)| *customer), &mut guesses);
                hashes.clear();
                for ((customer, head, newest), guess) in heads.drain(..).zip(&guesses) {
                    let index = self.book.settle(*guess, customer).ok_or(Stop::Doubtful)?;
                    if std::mem::replace(&mut compared[index as usize], true) {
                        continue;
                    }
                    let chain = &self.book.chains[index as usize];
                    let same = match &chain.state {
                        State::Narrow(narrow) => narrow.head() == head,
                        State::Wide(wide) => *wide.check.head() == head,
                    };
                    sure(same && chain.newest() == Some(newest) && run.ids().contains(customer.bits()))?;
                    hashes.push(run.filter_hash(customer));
                }
                sure(run.filter_has_all(&hashes))?;
            }
        }
        sure(compared.iter().all(|&compared| compared))
    }

    /// Whether the checkpoint has all open events, and no others.
    fn compare_open(&self, derived: &Derived) -> Result<(), Stop> {
        let mut named = Vec::new();
        for (customer, positions) in &derived.checkpoint.open {
            if self.partition.has_customer(*customer) {
                let index = self.book.find(*customer).ok_or(Stop::Doubtful)?;
                let open = self.book.chains[index as usize].open();
                sure(!open.is_empty() && open.iter().map(|open| open.position).eq(positions.iter().copied()))?;
                named.push(index);
            }
        }
        let named_count = named.len();
        named.sort_unstable();
        named.dedup();
        let open_count = self.book.chains.iter().filter(|chain| !chain.open().is_empty()).count();
        sure(named.len() == named_count && named_count == open_count)
    }

    /// Follows what is still open, and sums up the accounts.
    fn finish(&mut self) -> Result<(), Stop> {
        for chain in &mut self.book.chains {
            match &mut chain.state {
                State::Narrow(narrow) if narrow.has_account => self.done.account(narrow.currency, narrow.account),
                State::Narrow(_) => {}
                State::Wide(wide) => {
                    for open in std::mem::take(&mut wide.open) {
                        self.done.open_count += 1;
                        wide.follow(self.reading.config, &open.linked, &EventStatus::Started)?;
                    }
                    for (currency, account) in wide.check.head().state.accounts.iter() {
                        self.done.account(currency, account);
                    }
                }
            }
        }
        Ok(())
    }
}
