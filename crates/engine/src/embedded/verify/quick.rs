//! The quick reading: whether all is well, and no more. The first doubt ends it, and [`super::pass`] reads the journal
//! again, to say what is wrong and where.
//!
//! It checks everything that the thorough reading checks, in less room and with fewer ways to memory:
//!
//! - a chain without open events and with one account at most lies in [`NARROW_BYTES`] bytes; others lie apart
//! - the chains of the records to come are touched some time before they are needed, many at once
//! - a record of another pass's customers is stepped over; its own pass looks at all of it
//! - what events did to transactions is gathered, and checked at the end ([`super::effects`])

use super::chains::{OpenHere, Partition, assumed};
use super::effects::{self, Effects, Keys};
use super::index::Derived;
use super::pass::{Done, Inputs, PROGRESS_BYTES, Ran, goes_back};
use super::walk::{Seen, Walk};
use crate::embedded::codec::{Decoder, Malformed};
use crate::embedded::frame::{FrameHeader, HEADER_BYTES, is_end};
use crate::embedded::journal::JournalPoint;
use crate::embedded::record::{Stored, StoredClosing, StoredEvent, take_record_of};
use crate::store::{SourceId, SourceMark, StoreError};
use bursar_core::rules::{Known, decide_effect};
use bursar_core::{
    Account, ChainCheck, CurrencyIndex, CustomerId, CustomerState, EventStatus, Hash, Head, LedgerConfig, LinkedEvent,
    RequestKind, TransactionId,
};
use foldhash::fast::RandomState;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many records are read before they are taken. They stay in a processor's first cache, and the chains that they
/// need in the second.
const RECORDS_AT_ONCE: usize = 64;

/// How much memory a customer takes, with the room that tables keep while they grow.
pub(super) const CUSTOMER_BYTES: u64 = 2 * (NARROW_BYTES + 2 * size_of::<u32>()) as u64;

const NARROW_BYTES: usize = 96;
const _: () = assert!(size_of::<Chain>() == NARROW_BYTES, "memory is reckoned by it");

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
const fn sure(so: bool) -> Result<(), Stop> {
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

/// One customer's chain as far as it was followed. It lies in two lines of a cache, never in three.
#[derive(Debug)]
#[repr(C, align(32))]
struct Chain {
    customer: [u64; 2],
    /// The position of the newest record; 0, where a segment has its header, before the first.
    newest: u64,
    state: State,
}

/// What the end of a chain says.
#[derive(Debug)]
enum State {
    Narrow(Narrow),
    Wide(Box<Wide>),
}

/// No open event, none that was aborted since the newest in effect, and one account at most.
#[derive(Clone, Debug, Default)]
struct Narrow {
    link: Hash,
    seq: u64,
    time_ms: u64,
    account: Account,
    currency: CurrencyIndex,
    has_account: bool,
    locked: bool,
}

/// Any chain.
#[derive(Debug)]
struct Wide {
    check: ChainCheck,
    /// Events that no record has closed yet, oldest first.
    open: Vec<OpenHere>,
}

impl Narrow {
    fn start(ledger_digest: &Hash, customer: CustomerId) -> Self {
        Self { link: Head::start(ledger_digest, customer).link, ..Self::default() }
    }

    /// `None` for a head that has more.
    fn of(head: &Head) -> Option<Self> {
        let mut accounts = head.state.accounts.iter();
        let (first, more) = (accounts.next(), accounts.next());
        let (currency, account) = first.unwrap_or_default();
        let (Head { seq, link, time_ms, .. }, locked) = (head, head.state.locked);
        let narrow =
            Self { link: *link, seq: *seq, time_ms: *time_ms, account, currency, has_account: first.is_some(), locked };
        (more.is_none() && head.open.is_empty()).then_some(narrow)
    }

    fn customer_state(&self) -> CustomerState {
        let mut state = CustomerState { locked: self.locked, ..CustomerState::default() };
        if self.has_account {
            state.accounts.set(self.currency, self.account);
        }
        state
    }

    fn head(&self) -> Head {
        let Self { link, seq, time_ms, .. } = *self;
        Head { seq, link, time_ms, state: self.customer_state(), open: Vec::new() }
    }

    /// Whether an event that is done leaves the chain narrow.
    fn can_take(&self, linked: &LinkedEvent) -> bool {
        let (accounts, currency) = (&linked.event.state.accounts, linked.event.currency);
        accounts.len() == 1 && (!self.has_account || self.currency == currency)
    }

    /// Takes an event that is done, if it is right by its time, its hash and the rules.
    #[inline]
    fn take(&mut self, config: &LedgerConfig, linked: &LinkedEvent) -> Result<(), Stop> {
        let LinkedEvent { event, hash } = linked;
        sure(event.time_ms >= self.time_ms && event.hash(&self.link) == *hash)?;
        let request = event.request().ok_or(Stop::Doubtful)?;
        let known = Known { state: assumed(None, linked), reserved: false };
        let decided = decide_effect(config, &self.customer_state(), known, &request);
        let effect = decided.ok().flatten().ok_or(Stop::Doubtful)?;
        let kind = effect.transaction.map(|(_, state)| state.kind);
        let account = event.account();
        sure(
            effect.account == account
                && effect.locked == event.state.locked
                && effect.currency == event.currency
                && effect.amount == event.amount
                && kind.is_none_or(|kind| kind == event.transaction_kind),
        )?;
        (self.link, self.seq, self.time_ms) = (*hash, event.seq, event.time_ms);
        (self.account, self.currency, self.has_account) = (account, event.currency, true);
        self.locked = event.state.locked;
        Ok(())
    }
}

impl Chain {
    const fn customer(&self) -> CustomerId {
        CustomerId::new((self.customer[0] as u128) << 64 | self.customer[1] as u128)
    }

    const fn newest(&self) -> Option<u64> {
        if self.newest == 0 { None } else { Some(self.newest) }
    }

    /// The sequence number of the newest event, open ones included.
    fn last_seq(&self) -> u64 {
        match &self.state {
            State::Narrow(narrow) => narrow.seq,
            State::Wide(wide) => wide.check.head().seq + wide.open.len() as u64,
        }
    }

    const fn open(&self) -> &[OpenHere] {
        match &self.state {
            State::Narrow(_) => &[],
            State::Wide(wide) => wide.open.as_slice(),
        }
    }

    /// Takes the chain's end away, as that of any chain; it must be put back.
    fn take_wide(&mut self) -> Box<Wide> {
        match std::mem::replace(&mut self.state, State::Narrow(Narrow::default())) {
            State::Wide(wide) => wide,
            State::Narrow(narrow) => {
                let check = ChainCheck::behind(self.customer(), narrow.head());
                Box::new(Wide { check, open: Vec::new() })
            }
        }
    }
}

impl Wide {
    /// Follows an event, if it is right.
    fn follow(&mut self, config: &LedgerConfig, linked: &LinkedEvent, status: &EventStatus) -> Result<(), Stop> {
        self.check.follow(config, assumed(None, linked), linked, status).map(|_| ()).map_err(|_| Stop::Doubtful)
    }

    /// Puts the end of a chain back, behind an event that was closed like this.
    fn behind(self: Box<Self>, status: &EventStatus) -> State {
        // Behind an aborted event the next one may build on either.
        let settled = *status == EventStatus::Done && self.open.is_empty();
        match Narrow::of(self.check.head()).filter(|_| settled) {
            Some(narrow) => State::Narrow(narrow),
            None => State::Wide(self),
        }
    }
}

/// Where customers' chains lie, by the hashes of their ids: a table that can be touched ahead without looking anything
/// up in it, which none that hides its memory can.
///
/// An entry is a chain's index plus one, with the hash's low bits in what is left of 32 bits; 0 stands for none. Entries
/// lie where the hash's high bits say, or behind that. At most half of them are taken.
#[derive(Debug)]
struct Places {
    entries: Vec<u32>,
    taken_count: usize,
}

impl Places {
    fn new(bits: u32) -> Self {
        Self { entries: vec![0; 1 << bits], taken_count: 0 }
    }

    /// The bits of an entry that are the index's, and no less than the largest place.
    const fn mask(&self) -> u32 {
        (self.entries.len() - 1) as u32
    }

    const fn first(&self, hash: u64) -> usize {
        (hash >> (u64::BITS - self.entries.len().trailing_zeros())) as usize
    }

    /// Where the search for this hash begins.
    fn touched(&self, hash: u64) -> u32 {
        self.entries[self.first(hash)]
    }

    /// The index of the first chain with this hash, as far as that is kept, for which `is_it` says so.
    #[inline]
    fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let (mask, mut place) = (self.mask(), self.first(hash));
        loop {
            let entry = self.entries[place];
            let index = (entry & mask).checked_sub(1)?;
            if (entry ^ hash as u32) & !mask == 0 && is_it(index) {
                return Some(index);
            }
            place = (place + 1) & mask as usize;
        }
    }

    fn has_room(&self) -> bool {
        self.taken_count < self.entries.len() / 2
    }

    fn insert(&mut self, hash: u64, index: u32) {
        let (mask, mut place) = (self.mask(), self.first(hash));
        while self.entries[place] != 0 {
            place = (place + 1) & mask as usize;
        }
        self.entries[place] = (hash as u32) & !mask | (index + 1);
        self.taken_count += 1;
    }
}

const FIRST_PLACE_BITS: u32 = 8;

/// The chains of a pass.
#[derive(Debug)]
struct Book {
    ledger_digest: Hash,
    places: Places,
    hasher: RandomState,
    chains: Vec<Chain>,
}

impl Book {
    fn hash(&self, customer: CustomerId) -> u64 {
        self.hasher.hash_one(customer.bits())
    }

    fn find(&self, customer: CustomerId) -> Option<u32> {
        self.places.find(self.hash(customer), |index| self.chains[index as usize].customer() == customer)
    }

    /// Where the customer's chain lies, after a guess.
    fn settle(&self, guess: Option<u32>, customer: CustomerId) -> Option<u32> {
        let is_it = |&index: &u32| self.chains[index as usize].customer() == customer;
        guess.filter(is_it).or_else(|| self.find(customer))
    }

    /// Begins the chain of a customer who has none yet.
    fn begin(&mut self, customer: CustomerId) -> u32 {
        if !self.places.has_room() {
            let mut places = Places::new(self.places.entries.len().trailing_zeros() + 1);
            for (index, chain) in (0..).zip(&self.chains) {
                places.insert(self.hash(chain.customer()), index);
            }
            self.places = places;
        }
        let index = self.chains.len() as u32;
        self.places.insert(self.hash(customer), index);
        let bits = customer.bits();
        let state = State::Narrow(Narrow::start(&self.ledger_digest, customer));
        self.chains.push(Chain { customer: [(bits >> 64) as u64, bits as u64], newest: 0, state });
        index
    }

    /// Finds where chains that are needed soon probably lie, and touches them: memory answers for all of them at about
    /// the same time, and not for one after the other. So each step is done for all before the next, and what depends
    /// on an answer comes when it is there.
    fn bring_near(&self, customers: impl Iterator<Item = CustomerId> + Clone, guesses: &mut Vec<Option<u32>>) {
        let hashes = customers.map(|customer| self.hash(customer));
        std::hint::black_box(hashes.clone().map(|hash| self.places.touched(hash)).fold(0, |all, one| all ^ one));
        guesses.clear();
        guesses.extend(hashes.map(|hash| self.places.find(hash, |_| true)));
        let touched = |&guess: &Option<u32>| {
            let Some(chain) = guess.and_then(|index| self.chains.get(index as usize)) else { return 0 };
            let end = match &chain.state {
                State::Narrow(narrow) => {
                    narrow.seq ^ narrow.time_ms ^ u64::from(narrow.link.0[0]) ^ u64::from(narrow.link.0[31])
                }
                State::Wide(wide) => wide.check.head().seq,
            };
            chain.newest ^ end
        };
        std::hint::black_box(guesses.iter().map(touched).fold(0, |all, one| all ^ one));
    }

    fn memory_bytes(&self) -> usize {
        self.chains.capacity() * size_of::<Chain>() + self.places.entries.len() * size_of::<u32>()
    }
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
        let book = Book {
            ledger_digest: digest,
            places: Places::new(FIRST_PLACE_BITS),
            hasher: RandomState::default(),
            chains: Vec::new(),
        };
        Self {
            reading,
            partition,
            book,
            effects: Effects::new(config.ledger, keys, derived),
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

    /// Whether the transaction is one that this pass gathers.
    fn gathers(&self, transaction: TransactionId) -> bool {
        match self.reading.gathers {
            Gathers::OfItsCustomers => true,
            Gathers::OfItsPartition => self.partition.has(transaction.bits()),
        }
    }

    fn event(&mut self, position: u64, stored: &StoredEvent, guess: Option<u32>) -> Result<(), Stop> {
        let StoredEvent { linked, done, previous, transaction_previous } = stored;
        let event = &linked.event;
        if let Some(transaction) = event.transaction
            && self.gathers(transaction)
        {
            self.effects.event(position, stored, transaction);
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
        let status = match &closing.aborted {
            None => EventStatus::Done,
            Some(reason) => EventStatus::Aborted(reason.clone()),
        };
        wide.follow(self.reading.config, &linked, &status)?;
        chain.state = wide.behind(&status);
        match status {
            EventStatus::Done => self.done.totals.done(&linked.event),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Each customer is found, whether its place was free or not and however often the table has grown; others are not.
    #[test]
    fn every_chain_is_found_where_it_was_begun() {
        let ledger_digest = Hash([5; 32]);
        let (places, hasher) = (Places::new(2), RandomState::default());
        let mut book = Book { ledger_digest, places, hasher, chains: Vec::new() };
        let customer = |number: u128| CustomerId::new(number << 90 | number % 7);
        for number in 0..3000 {
            let customer = customer(number);
            assert_eq!(book.find(customer), None, "{number} before it is there");
            assert_eq!(book.begin(customer), number as u32);
            assert!(book.places.taken_count <= book.places.entries.len() / 2);
        }
        let mut guesses = Vec::new();
        book.bring_near((0..3000).map(customer), &mut guesses);
        for (number, guess) in (0..3000).zip(guesses) {
            assert_eq!(book.find(customer(number)), Some(number as u32));
            assert_eq!(book.settle(guess, customer(number)), Some(number as u32));
            assert_eq!(book.settle(Some((number as u32 + 1) % 3000), customer(number)), Some(number as u32));
        }
        assert_eq!(book.find(customer(3000)), None);
    }
}
