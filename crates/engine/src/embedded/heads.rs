//! Heads of chains in memory: found by customer once, and then by their place.
//!
//! Heads that changed since the memtable was begun are *new*: they stay until they are frozen ([`Heads::take_new`]). All
//! others are in index files too, or can be made again, and are kept for speed, as many as there is room for
//! ([`Heads::make_room`]). A place is good until room is made, that is, for a batch.
//!
//! Most lookups wait for memory, so little is touched: the tables that are searched hold places alone ([`crate::slots`]),
//! and a head takes 96 bytes. What few customers have, accounts in further currencies, lies apart; open events are in
//! the store's own list.

use super::memtable::Table;
use crate::slots::{Slots, TABLE_COUNT, table_of};
use bursar_core::{Account, CurrencyIndex, CustomerId, CustomerState, EventStatus, Hash, Head, LinkedEvent};
use foldhash::fast::RandomState;
use std::hash::BuildHasher;

/// Where a head lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HeadPlace(u32);

impl HeadPlace {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A chain's head without its open events, and where its newest record lies.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))] // two of the processor's lines, whatever the place
struct Slot {
    customer: CustomerId,
    link: Hash,
    seq: u64,
    time_ms: u64,
    /// The first account, if [`HAS_ACCOUNT`] is set.
    account: Account,
    /// The position of the newest record of the chain, which is never 0; 0 before the first.
    newest: u64,
    /// How many events follow the one of the head: open ones, and those of the batch.
    following: u32,
    /// That of the first account.
    currency: CurrencyIndex,
    flags: u8,
}

const _: () = assert!(size_of::<Slot>() == 96, "memory is reckoned by it");

/// The customer is locked.
const LOCKED: u8 = 1;
const HAS_ACCOUNT: u8 = 1 << 1;
/// There are accounts besides the first.
const HAS_OTHERS: u8 = 1 << 2;
/// Changed since the memtable was begun.
const NEW: u8 = 1 << 3;
/// Asked for since room was last looked for here.
const ASKED_FOR: u8 = 1 << 4;
/// Nobody's.
const FREE: u8 = 1 << 5;

impl Slot {
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn set_flag(&mut self, flag: u8, to: bool) {
        self.flags = if to { self.flags | flag } else { self.flags & !flag };
    }

    /// Reads something of each of the processor's lines that it lies in.
    fn touch(&self) -> u64 {
        self.customer.bits() as u64 ^ u64::from(self.flags)
    }

    const fn last_seq(&self) -> u64 {
        self.seq.saturating_add(self.following as u64)
    }

    fn set_last_seq(&mut self, last_seq: u64) {
        self.following = u32::try_from(last_seq.saturating_sub(self.seq)).unwrap_or(u32::MAX);
    }

    /// Puts the head into `head`, but for accounts that lie apart.
    fn read(&self, head: &mut Head) {
        head.seq = self.seq;
        head.link = self.link;
        head.time_ms = self.time_ms;
        head.state = CustomerState { locked: self.has(LOCKED), ..CustomerState::default() };
        if self.has(HAS_ACCOUNT) {
            head.state.accounts.set(self.currency, self.account);
        }
        head.open.clear();
    }

    /// Takes over a state, but for accounts that lie apart. Gives whether there are such.
    fn take_state(&mut self, state: &CustomerState) -> bool {
        self.set_flag(LOCKED, state.locked);
        self.set_flag(HAS_ACCOUNT, !state.accounts.is_empty());
        (self.currency, self.account) =
            state.accounts.first().copied().unwrap_or((CurrencyIndex(0), Account::default()));
        state.accounts.len() > 1
    }
}

/// How many heads are looked at when room is made: a batch does not wait for more, and brings in far less than a quarter
/// of them.
const LOOKED_AT_MAX: usize = 1 << 14;
/// How many heads are read ahead when they are written: in order of customer they lie anywhere in memory.
const READ_AHEAD: usize = 64;

/// The accounts of a customer besides the first.
type Others = Box<[(CurrencyIndex, Account)]>;

fn others(state: &CustomerState) -> Others {
    state.accounts.iter().skip(1).collect()
}

/// Adds accounts that lie apart to a state.
fn add_others(state: &mut CustomerState, others: Option<&Others>) {
    for &(currency, account) in others.into_iter().flatten() {
        state.accounts.set(currency, account);
    }
}

/// A head with nothing in it.
pub(super) fn empty_head() -> Head {
    Head { seq: 0, link: Hash([0; 32]), time_ms: 0, state: CustomerState::default(), open: Vec::new() }
}

/// Heads by customer.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Where heads lie, by the customer's hash; none before the first head.
    places: Vec<Slots>,
    /// By place.
    slots: Vec<Slot>,
    others: Table<HeadPlace, Others>,
    /// The places of new heads, in the order in which they became new.
    new: Vec<HeadPlace>,
    /// Places that are nobody's.
    free: Vec<HeadPlace>,
    /// Where room is looked for next.
    hand: usize,
    hasher: RandomState,
}

impl Heads {
    fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The customers whose heads are new, in the order in which they became new. None is left out and none moves until
    /// [`Heads::take_new`].
    pub(super) fn new_customers(&self) -> impl ExactSizeIterator<Item = CustomerId> {
        self.new.iter().map(|place| self.slots[place.index()].customer)
    }

    /// What [`Heads::place_of`] asks for, for who comes more than once.
    #[inline]
    pub(super) fn hash(&self, customer: CustomerId) -> u64 {
        self.hasher.hash_one(customer)
    }

    /// Reads the heads that are probably these customers'. Nothing is done with them, and one does not depend on another, so
    /// that the processor waits for many at once; when they are used, one by one, they are at hand.
    #[inline]
    pub(super) fn touch(&self, hashes: &[u64]) {
        let table = |hash: u64| self.places.get(table_of(hash));
        let first = |&hash: &u64| table(hash).map_or(0, |places| places.touch(hash as u32));
        std::hint::black_box(hashes.iter().map(first).fold(0, |all, one| all ^ one));
        // Whose head lies there is not asked: that would be to wait for it.
        let probably = |&hash: &u64| {
            let place = table(hash).and_then(|places| places.find(hash as u32, |_| true));
            place.map_or(0, |place| self.slots[place as usize].touch())
        };
        std::hint::black_box(hashes.iter().map(probably).fold(0, |all, one| all ^ one));
    }

    /// Where the head of the customer with this hash lies.
    #[inline]
    pub(super) fn place_of(&self, customer: CustomerId, hash: u64) -> Option<HeadPlace> {
        let places = self.places.get(table_of(hash))?;
        let place = places.find(hash as u32, |place| self.slots[place as usize].customer == customer);
        place.map(HeadPlace)
    }

    /// Where a customer's head lies.
    pub(super) fn place(&self, customer: CustomerId) -> Option<HeadPlace> {
        self.place_of(customer, self.hash(customer))
    }

    /// Puts the head at a place into `head`, without open events.
    #[inline]
    pub(super) fn read(&self, place: HeadPlace, head: &mut Head) {
        let slot = &self.slots[place.index()];
        slot.read(head);
        if slot.has(HAS_OTHERS) {
            add_others(&mut head.state, self.others.get(&place));
        }
    }

    /// A customer's head, without open events.
    pub(super) fn get(&self, customer: CustomerId) -> Option<Head> {
        let mut head = empty_head();
        self.read(self.place(customer)?, &mut head);
        Some(head)
    }

    #[inline]
    pub(super) fn at(&mut self, place: HeadPlace) -> HeadMut<'_> {
        self.slots[place.index()].flags |= ASKED_FOR;
        HeadMut { heads: self, place }
    }

    /// Puts in the head of a customer who has none here. It is not new.
    pub(super) fn insert(
        &mut self,
        customer: CustomerId,
        head: &Head,
        newest: Option<u64>,
        last_seq: u64,
    ) -> HeadPlace {
        debug_assert!(self.place(customer).is_none());
        let mut slot = Slot {
            customer,
            link: head.link,
            seq: head.seq,
            time_ms: head.time_ms,
            account: Account::default(),
            newest: newest.unwrap_or(0),
            following: 0,
            currency: CurrencyIndex(0),
            flags: ASKED_FOR,
        };
        slot.set_last_seq(last_seq);
        let has_others = slot.take_state(&head.state);
        slot.set_flag(HAS_OTHERS, has_others);
        let place = if let Some(place) = self.free.pop() {
            self.slots[place.index()] = slot;
            place
        } else {
            self.slots.push(slot);
            HeadPlace((self.slots.len() - 1) as u32)
        };
        if has_others {
            self.others.insert(place, others(&head.state));
        }
        let hash = self.hash(customer);
        if self.places.is_empty() {
            self.places.resize(TABLE_COUNT, Slots::default());
        }
        self.places[table_of(hash)].insert(hash as u32, place.0);
        place
    }

    /// Removes heads that are not new until there are at most so many, those first that were not asked for lately. Does
    /// a bounded amount, so that some may stay for the next time.
    pub(super) fn make_room(&mut self, heads_max: usize) {
        // Those that are new cannot go: where all are, nothing is looked at.
        let too_many = self.len().saturating_sub(heads_max).min(self.len() - self.new.len());
        for _ in 0..too_many.saturating_mul(4).min(LOOKED_AT_MAX) {
            if self.len() <= heads_max {
                return;
            }
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let slot = &mut self.slots[self.hand];
            if slot.has(ASKED_FOR) {
                slot.set_flag(ASKED_FOR, false);
            } else if !slot.has(NEW | FREE) {
                self.remove(HeadPlace(self.hand as u32));
            }
        }
    }

    fn remove(&mut self, place: HeadPlace) {
        let slot = &mut self.slots[place.index()];
        if slot.has(HAS_OTHERS) {
            self.others.remove(&place);
        }
        slot.flags = FREE;
        let hash = self.hasher.hash_one(slot.customer);
        if let Some(places) = self.places.get_mut(table_of(hash)) {
            places.remove(hash as u32, place.0);
        }
        self.free.push(place);
    }

    /// The new heads, as they are. They stay, and are not new any more.
    pub(super) fn take_new(&mut self) -> NewHeads {
        let mut taken = NewHeads { slots: Vec::with_capacity(self.new.len()), others: Table::default() };
        for place in self.new.drain(..) {
            let slot = &mut self.slots[place.index()];
            slot.set_flag(NEW, false);
            taken.slots.push(*slot);
            if slot.has(HAS_OTHERS) {
                taken.others.extend(self.others.get(&place).map(|others| (slot.customer, others.clone())));
            }
        }
        taken
    }
}

/// A head in its place.
#[derive(Debug)]
pub(super) struct HeadMut<'a> {
    heads: &'a mut Heads,
    place: HeadPlace,
}

impl HeadMut<'_> {
    fn slot(&self) -> &Slot {
        &self.heads.slots[self.place.index()]
    }

    fn slot_mut(&mut self) -> &mut Slot {
        &mut self.heads.slots[self.place.index()]
    }

    /// The sequence number of the newest closed event.
    pub(super) fn seq(&self) -> u64 {
        self.slot().seq
    }

    /// The sequence number of the newest event, open ones and those of the batch included.
    pub(super) fn last_seq(&self) -> u64 {
        self.slot().last_seq()
    }

    /// The position of the newest record of the chain; `None` before the first.
    pub(super) fn newest(&self) -> Option<u64> {
        Some(self.slot().newest).filter(|&newest| newest != 0)
    }

    /// The head, without open events.
    pub(super) fn head(&self) -> Head {
        let mut head = empty_head();
        self.heads.read(self.place, &mut head);
        head
    }

    /// An event was begun, or was found to be the chain's newest. The head is new until it is written.
    #[inline]
    pub(super) fn set_last_seq(&mut self, last_seq: u64) {
        self.slot_mut().set_last_seq(last_seq);
        self.mark_new();
    }

    /// The chain has a newer record; gives where the one before lies.
    #[inline]
    pub(super) fn move_newest(&mut self, position: u64) -> Option<u64> {
        debug_assert_ne!(position, 0);
        self.mark_new();
        let before = self.newest();
        self.slot_mut().newest = position;
        before
    }

    /// Takes an event that is `Done`.
    #[inline]
    pub(super) fn done(&mut self, linked: &LinkedEvent) {
        let LinkedEvent { event, hash } = linked;
        self.mark_new();
        let slot = self.slot_mut();
        let last_seq = slot.last_seq().max(event.seq);
        slot.seq = event.seq;
        slot.set_last_seq(last_seq);
        slot.link = *hash;
        slot.time_ms = event.time_ms;
        let has_others = slot.take_state(&event.state);
        if has_others || slot.has(HAS_OTHERS) {
            self.set_others(&event.state, has_others);
        }
    }

    /// Takes an event by how it ended.
    pub(super) fn take(&mut self, linked: &LinkedEvent, status: &EventStatus) {
        if *status == EventStatus::Done {
            return self.done(linked);
        }
        let mut head = self.head();
        head.take(linked.clone(), status);
        self.mark_new();
        let slot = self.slot_mut();
        let last_seq = slot.last_seq();
        slot.seq = head.seq;
        slot.set_last_seq(last_seq);
        slot.link = head.link;
        slot.time_ms = head.time_ms;
        let has_others = slot.take_state(&head.state);
        self.set_others(&head.state, has_others);
    }

    fn set_others(&mut self, state: &CustomerState, has_others: bool) {
        self.slot_mut().set_flag(HAS_OTHERS, has_others);
        if has_others {
            self.heads.others.insert(self.place, others(state));
        } else {
            self.heads.others.remove(&self.place);
        }
    }

    fn mark_new(&mut self) {
        let slot = self.slot_mut();
        if !slot.has(NEW) {
            slot.flags |= NEW;
            self.heads.new.push(self.place);
        }
    }
}

/// Heads that were new when the memtable was frozen.
#[derive(Debug, Default)]
pub(super) struct NewHeads {
    slots: Vec<Slot>,
    others: Table<CustomerId, Others>,
}

impl NewHeads {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn customers(&self) -> impl Iterator<Item = CustomerId> {
        self.slots.iter().map(|slot| slot.customer)
    }

    /// Those that have records, by customer, each with the position of the newest.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (CustomerId, Head, u64)> {
        let places = self.slots.iter().zip(0u32..).map(|(slot, place)| (slot.customer, place));
        let mut places: Vec<(CustomerId, u32)> = places.collect();
        places.sort_unstable();
        let count = places.len();
        (0..count).filter_map(move |at| {
            if at.is_multiple_of(READ_AHEAD) {
                let ahead = &places[at..count.min(at + READ_AHEAD)];
                let seen = ahead.iter().fold(0, |seen, &(_, place)| seen ^ self.slots[place as usize].touch());
                std::hint::black_box(seen);
            }
            let (customer, place) = places[at];
            let slot = &self.slots[place as usize];
            let mut head = empty_head();
            slot.read(&mut head);
            if slot.has(HAS_OTHERS) {
                add_others(&mut head.state, self.others.get(&customer));
            }
            (slot.newest != 0).then_some((customer, head, slot.newest))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_core::Amount;

    fn head(seq: u64, accounts: u8) -> Head {
        let mut head = Head { seq, link: Hash([seq as u8; 32]), time_ms: seq * 10, ..empty_head() };
        head.state.locked = seq.is_multiple_of(7);
        for currency in 0..accounts {
            let available = Amount::from_steps(seq.cast_signed() + i64::from(currency));
            head.state.accounts.set(CurrencyIndex(currency * 2), Account { available, held: Amount::from_steps(1) });
        }
        head
    }

    fn customer(number: u64) -> CustomerId {
        CustomerId::new(u128::from(number) << 60)
    }

    fn accounts(number: u64) -> u8 {
        (number % 4) as u8
    }

    /// Every customer finds its own head, also after heads were changed, frozen, and removed to make room.
    #[test]
    fn each_customer_has_its_own_head() {
        let mut heads = Heads::default();
        for number in 0..1000u64 {
            heads.insert(customer(number), &head(number, accounts(number)), Some(number + 1), number + number % 3);
        }
        let mut expected: Vec<(Head, u64, u64)> =
            (0..1000).map(|number| (head(number, accounts(number)), number + 1, number + number % 3)).collect();
        for number in (0..1000u64).step_by(5) {
            let place = heads.place(customer(number)).unwrap();
            assert_eq!(heads.at(place).move_newest(number + 5000), Some(number + 1));
            heads.at(place).set_last_seq(number + 9);
            expected[number as usize].1 = number + 5000;
            expected[number as usize].2 = number + 9;
        }
        let found = |heads: &mut Heads, number: u64| {
            let place = heads.place(customer(number))?;
            let head = heads.at(place);
            Some((head.head(), head.newest().unwrap(), head.last_seq()))
        };
        for number in 0..1000u64 {
            assert_eq!(found(&mut heads, number).as_ref(), Some(&expected[number as usize]), "{number}");
        }
        // What is new stays, whatever room is asked for.
        let new: Vec<CustomerId> = heads.new_customers().collect();
        assert_eq!(new, (0..1000).step_by(5).map(customer).collect::<Vec<_>>());
        (0..10).for_each(|_| heads.make_room(0));
        assert_eq!(heads.len(), 200);
        for number in 0..1000u64 {
            let expected = number.is_multiple_of(5).then(|| expected[number as usize].clone());
            assert_eq!(found(&mut heads, number), expected, "{number}");
        }
        // Places that became free are used again, and nothing of who was there before is left.
        heads.insert(customer(1), &head(70, 1), None, 70);
        let place = heads.place(customer(1)).unwrap();
        assert_eq!((heads.slots.len(), heads.at(place).newest(), heads.at(place).head()), (1000, None, head(70, 1)));

        let taken = heads.take_new();
        assert_eq!((taken.len(), heads.new_customers().len()), (200, 0));
        let written: Vec<_> = taken.in_order().collect();
        let wanted = (0..1000).step_by(5).map(|number| {
            let (head, newest, _) = expected[number as usize].clone();
            (customer(number), head, newest)
        });
        let mut wanted: Vec<_> = wanted.collect();
        wanted.sort_by_key(|(customer, ..)| *customer);
        assert_eq!(written, wanted);
        (0..10).for_each(|_| heads.make_room(0));
        assert_eq!((heads.len(), heads.others.len(), heads.free.len()), (0, 0, 1000));
    }

    /// A head changes as a whole one does, whatever ends an event.
    #[test]
    fn a_head_takes_events_as_any_head_does() {
        use bursar_core::{AbortReason, Event, ReasonText, RequestKind, TransactionId, TransactionKind};
        let mut heads = Heads::default();
        let mut expected = head(1, 1);
        let place = heads.insert(customer(1), &expected, None, 1);
        let reason = || ReasonText::new("so");
        let ends = [
            (EventStatus::Done, 3),
            (EventStatus::Aborted(AbortReason::RailRefused(reason())), 1),
            (EventStatus::DoneByHand(reason()), 2),
            (EventStatus::Done, 1),
            (EventStatus::DoneByHand(reason()), 3),
        ];
        for (seq, (status, accounts)) in (2..).zip(ends) {
            let event = Event {
                customer: customer(1),
                seq,
                time_ms: seq * 10,
                kind: RequestKind::Deposit,
                transaction: Some(TransactionId::new(u128::from(seq))),
                transaction_kind: TransactionKind::Deposit,
                amount: Amount::from_steps(1),
                currency: CurrencyIndex(0),
                rail: None,
                key: None,
                state: head(seq, accounts).state,
            };
            let linked = LinkedEvent::new(event, &expected.link);
            heads.at(place).set_last_seq(seq);
            expected.take(linked.clone(), &status);
            heads.at(place).take(&linked, &status);
            assert_eq!(heads.at(place).head(), expected, "{status:?}");
            assert_eq!(heads.at(place).last_seq(), seq);
        }
    }

    /// Room is made of what was not asked for, as long as there is such.
    #[test]
    fn what_is_asked_for_stays() {
        let mut heads = Heads::default();
        for number in 0..100 {
            heads.insert(customer(number), &head(number, 1), None, number);
        }
        // All were asked for when they came; that is forgotten before the first is removed.
        (0..25).for_each(|_| heads.make_room(90));
        assert_eq!(heads.len(), 90);
        let wanted: Vec<u64> = (0..100).filter(|number| heads.place(customer(*number)).is_some()).step_by(9).collect();
        for number in &wanted {
            let place = heads.place(customer(*number)).unwrap();
            heads.at(place);
        }
        (0..25).for_each(|_| heads.make_room(50));
        assert_eq!(heads.len(), 50);
        assert!(wanted.iter().all(|number| heads.place(customer(*number)).is_some()));
    }

    /// After a writing, all heads of the memtable may go at once: each batch removes some of them.
    #[test]
    fn room_is_made_bit_by_bit() {
        let mut heads = Heads::default();
        let count = LOOKED_AT_MAX * 2;
        for number in 0..count as u64 {
            let customer = CustomerId::new(number.into());
            heads.insert(customer, &head(number, 1), None, number);
        }
        // All have just been asked for: twice nothing but that is forgotten.
        for left in [count, count, LOOKED_AT_MAX, 0] {
            heads.make_room(0);
            assert_eq!(heads.len(), left);
        }
    }
}
