//! Chains as the quick reading follows them: many, in little room, with few ways to memory.
//!
//! A chain without open events and with one account at most, as nearly all are at nearly all times, lies in
//! [`NARROW_BYTES`] bytes, and an event is checked against it without allocation. Any other is followed by
//! [`ChainCheck`]. What is right says [`bursar_core`] for both.

use super::chains::{OpenHere, assumed};
use super::quick::{Stop, sure};
use crate::slots::{SLOT_BYTES, Slots};
use bursar_core::rules::{Known, decide_effect};
use bursar_core::{
    Account, ChainCheck, CurrencyIndex, CustomerId, CustomerState, EventStatus, Hash, Head, LedgerConfig, LinkedEvent,
};
use foldhash::fast::RandomState;
use std::hash::BuildHasher;

/// How much memory a customer takes, with the room that tables keep while they grow.
pub(super) const CUSTOMER_BYTES: u64 = 2 * (NARROW_BYTES + SLOT_BYTES) as u64;

const NARROW_BYTES: usize = 96;
const _: () = assert!(size_of::<Chain>() == NARROW_BYTES, "memory is reckoned by it");

/// One customer's chain as far as it was followed. It lies in two lines of a cache, never in three.
#[derive(Debug)]
#[repr(C, align(32))]
pub(super) struct Chain {
    customer: [u64; 2],
    /// The position of the newest record; 0, where a segment has its header, before the first.
    pub(super) newest: u64,
    pub(super) state: State,
}

/// What the end of a chain says.
#[derive(Debug)]
pub(super) enum State {
    Narrow(Narrow),
    Wide(Box<Wide>),
}

/// No open event, none that was aborted since the newest in effect, and one account at most.
#[derive(Clone, Debug, Default)]
pub(super) struct Narrow {
    link: Hash,
    seq: u64,
    time_ms: u64,
    pub(super) account: Account,
    pub(super) currency: CurrencyIndex,
    pub(super) has_account: bool,
    locked: bool,
}

/// Any chain.
#[derive(Debug)]
pub(super) struct Wide {
    pub(super) check: ChainCheck,
    /// Events that no record has closed yet, oldest first.
    pub(super) open: Vec<OpenHere>,
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

    pub(super) fn head(&self) -> Head {
        let Self { link, seq, time_ms, .. } = *self;
        Head { seq, link, time_ms, state: self.customer_state(), open: Vec::new() }
    }

    /// Whether an event that is done leaves the chain narrow.
    pub(super) fn can_take(&self, linked: &LinkedEvent) -> bool {
        let (accounts, currency) = (&linked.event.state.accounts, linked.event.currency);
        accounts.len() == 1 && (!self.has_account || self.currency == currency)
    }

    /// Takes an event that is done, if it is right by its time, its hash and the rules.
    #[inline]
    pub(super) fn take(&mut self, config: &LedgerConfig, linked: &LinkedEvent) -> Result<(), Stop> {
        let LinkedEvent { event, hash } = linked;
        sure(event.time_ms >= self.time_ms && event.hash(&self.link) == *hash)?;
        let request = event.request().ok_or(Stop::Doubtful)?;
        let assumed = assumed(None, linked);
        let known = Known { state: assumed.as_ref(), reserved: false };
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
    pub(super) const fn customer(&self) -> CustomerId {
        CustomerId::new((self.customer[0] as u128) << 64 | self.customer[1] as u128)
    }

    pub(super) const fn newest(&self) -> Option<u64> {
        if self.newest == 0 { None } else { Some(self.newest) }
    }

    /// The sequence number of the newest event, open ones included.
    pub(super) fn last_seq(&self) -> u64 {
        match &self.state {
            State::Narrow(narrow) => narrow.seq,
            State::Wide(wide) => wide.check.head().seq + wide.open.len() as u64,
        }
    }

    pub(super) const fn open(&self) -> &[OpenHere] {
        match &self.state {
            State::Narrow(_) => &[],
            State::Wide(wide) => wide.open.as_slice(),
        }
    }

    /// Takes the chain's end away, as that of any chain; it must be put back.
    pub(super) fn take_wide(&mut self) -> Box<Wide> {
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
    pub(super) fn follow(
        &mut self,
        config: &LedgerConfig,
        linked: &LinkedEvent,
        status: &EventStatus,
    ) -> Result<(), Stop> {
        self.check.follow(config, assumed(None, linked), linked, status).map(|_| ()).map_err(|_| Stop::Doubtful)
    }

    /// Puts the end of a chain back, behind an event that was closed like this.
    pub(super) fn behind(self: Box<Self>, status: &EventStatus) -> State {
        // Behind an event that was aborted, or settled by hand, the next one may build on either.
        let settled = *status == EventStatus::Done && self.open.is_empty();
        match Narrow::of(self.check.head()).filter(|_| settled) {
            Some(narrow) => State::Narrow(narrow),
            None => State::Wide(self),
        }
    }
}

/// The chains of a pass.
#[derive(Debug)]
pub(super) struct Book {
    ledger_digest: Hash,
    /// The chains' indexes, by the hashes of their customers.
    places: Slots,
    hasher: RandomState,
    pub(super) chains: Vec<Chain>,
}

impl Book {
    pub(super) fn new(ledger_digest: Hash) -> Self {
        Self { ledger_digest, places: Slots::default(), hasher: RandomState::default(), chains: Vec::new() }
    }

    fn hash(&self, customer: CustomerId) -> u32 {
        self.hasher.hash_one(customer.bits()) as u32
    }

    pub(super) fn find(&self, customer: CustomerId) -> Option<u32> {
        self.places.find(self.hash(customer), |index| self.chains[index as usize].customer() == customer)
    }

    /// Where the customer's chain lies, after a guess.
    pub(super) fn settle(&self, guess: Option<u32>, customer: CustomerId) -> Option<u32> {
        let is_it = |&index: &u32| self.chains[index as usize].customer() == customer;
        guess.filter(is_it).or_else(|| self.find(customer))
    }

    /// Begins the chain of a customer who has none yet.
    pub(super) fn begin(&mut self, customer: CustomerId) -> u32 {
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
    pub(super) fn bring_near(
        &self,
        customers: impl Iterator<Item = CustomerId> + Clone,
        guesses: &mut Vec<Option<u32>>,
    ) {
        let hashes = customers.map(|customer| self.hash(customer));
        std::hint::black_box(hashes.clone().map(|hash| self.places.touch(hash)).fold(0, |all, one| all ^ one));
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

    pub(super) fn memory_bytes(&self) -> usize {
        self.chains.capacity() * size_of::<Chain>() + self.places.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each customer is found, whether its place was free or not and however often the table has grown; others are not.
    #[test]
    fn every_chain_is_found_where_it_was_begun() {
        let mut book = Book::new(Hash([5; 32]));
        let customer = |number: u128| CustomerId::new((number << 90) + number % 7);
        for number in 0..3000 {
            let customer = customer(number);
            assert_eq!(book.find(customer), None, "{number} before it is there");
            assert_eq!(book.begin(customer), number as u32);
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
