//! Hash tables that say where an entry lies, and hold nothing of it.
//!
//! A search waits for memory, and most find nothing. So what is searched is small: eight bytes for each entry, at the
//! place that its hash says or, where that is taken, at the next vacant one. They hold 32 digits of the hash, so that hardly
//! any entry is looked at in vain and a table grows without a look at its entries, and the entry's number. And they can
//! be read ahead of a search, for many at once, which a table that hides its memory does not allow.

/// Numbers of entries, by the lower 32 digits of their hashes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    /// None, or as many as a power of two.
    slots: Vec<Slot>,
    taken_count: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u32,
    /// The entry's number plus one; 0: vacant.
    number: u32,
}

/// What a slot takes. A table that has grown has vacant ones as well: a quarter to five eighths of all.
pub(crate) const SLOT_BYTES: usize = size_of::<Slot>();

impl Slot {
    const fn number(self) -> Option<u32> {
        self.number.checked_sub(1)
    }
}

/// What a search ends at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The number of the entry.
    Entry(u32),
    /// The vacant slot where it would be.
    Vacant(usize),
}

/// How many slots there are at first.
const SLOTS_MIN: usize = 16;

impl Slots {
    /// Where a search begins. Any place at all, if there is no slot.
    const fn first(&self, hash: u32) -> usize {
        hash as usize & self.slots.len().wrapping_sub(1)
    }

    /// Reads where a search begins. Nothing depends on what is there, so that the processor waits for many at once.
    #[inline]
    pub(crate) fn touch(&self, hash: u32) -> u32 {
        self.slots.get(self.first(hash)).map_or(0, |slot| slot.number)
    }

    /// The entry that lies where a search begins, if its hash is the same.
    #[inline]
    pub(crate) fn at_first(&self, hash: u32) -> Option<u32> {
        let slot = self.slots.get(self.first(hash)).filter(|slot| slot.hash == hash)?;
        slot.number()
    }

    /// Looks for the entry with this hash of which `is_it` says so. There must be a slot ([`Slots::make_room`]).
    #[inline]
    pub(crate) fn search(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Found {
        let mut at = self.first(hash);
        loop {
            let slot = self.slots[at];
            let Some(number) = slot.number() else { return Found::Vacant(at) };
            if slot.hash == hash && is_it(number) {
                return Found::Entry(number);
            }
            at = self.next(at);
        }
    }

    /// As [`Slots::search`], for who asks no more than whether it is there.
    #[inline]
    pub(crate) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        match self.search(hash, is_it) {
            Found::Entry(number) => Some(number),
            Found::Vacant(_) => None,
        }
    }

    /// The vacant slot for an entry with this hash that is not there. There must be a slot.
    fn vacant(&self, hash: u32) -> usize {
        let mut at = self.first(hash);
        while self.slots[at].number > 0 {
            at = self.next(at);
        }
        at
    }

    const fn next(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// Makes room for one more entry. At least a quarter of the slots is vacant, so that every search ends, and soon.
    #[inline]
    pub(crate) fn make_room(&mut self) {
        if self.taken_count >= self.slots.len() / 4 * 3 {
            self.grow();
        }
    }

    fn grow(&mut self) {
        let count = (self.slots.len() * 2).max(SLOTS_MIN);
        let slots = std::mem::replace(&mut self.slots, vec![Slot::default(); count]);
        for slot in slots.into_iter().filter(|slot| slot.number > 0) {
            let at = self.vacant(slot.hash);
            self.slots[at] = slot;
        }
    }

    /// Puts an entry into the vacant slot that the search for it ended at.
    #[inline]
    pub(crate) fn put(&mut self, at: usize, hash: u32, number: u32) {
        self.slots[at] = Slot { hash, number: number + 1 };
        self.taken_count += 1;
    }

    /// Puts in an entry that is not there.
    pub(crate) fn insert(&mut self, hash: u32, number: u32) {
        self.make_room();
        self.put(self.vacant(hash), hash, number);
    }

    /// Takes an entry out, if it is there. What lies behind it moves up, so that no search ends too early.
    pub(crate) fn remove(&mut self, hash: u32, number: u32) {
        if self.slots.is_empty() {
            return;
        }
        let mut at = self.first(hash);
        while self.slots[at].number() != Some(number) {
            if self.slots[at].number == 0 {
                return;
            }
            at = self.next(at);
        }
        let mut vacant = at;
        loop {
            at = self.next(at);
            let slot = self.slots[at];
            if slot.number == 0 {
                break;
            }
            // How far it lies behind its first slot, and behind the vacant one.
            let mask = self.slots.len() - 1;
            let behind = |from: usize| at.wrapping_sub(from) & mask;
            if behind(self.first(slot.hash)) >= behind(vacant) {
                self.slots[vacant] = slot;
                vacant = at;
            }
        }
        self.slots[vacant] = Slot::default();
        self.taken_count -= 1;
    }

    /// Takes all out, and keeps the room.
    pub(crate) fn clear(&mut self) {
        self.slots.fill(Slot::default());
        self.taken_count = 0;
    }

    /// The memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.capacity() * SLOT_BYTES
    }
}

/// How many tables there are where they are many, as a power of two: none is long in growing then.
const TABLES_BITS: u32 = 8;
/// How many tables there are where they are many.
pub(crate) const TABLE_COUNT: usize = 1 << TABLES_BITS;

/// Which of them an entry with this hash belongs to. Its slot follows from the lower digits.
pub(crate) const fn table_of(hash: u64) -> usize {
    (hash >> (u64::BITS - TABLES_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Hashes that meet often, at the end of the table as well: each entry is found as long as it is there, and no other.
        #[test]
        fn entries_are_found_until_they_are_taken_out(
            steps in proptest::collection::vec((any::<bool>(), 0u32..200, prop_oneof![0u32..8, 0xffff_fff8..=u32::MAX]), 1..400)
        ) {
            let mut slots = Slots::default();
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            for (inserts, number, hash) in steps {
                match model.get(&number) {
                    None if inserts => {
                        slots.insert(hash, number);
                        model.insert(number, hash);
                    }
                    Some(&hash) if !inserts => {
                        slots.remove(hash, number);
                        model.remove(&number);
                    }
                    None => slots.remove(hash, number),
                    Some(_) => {}
                }
                prop_assert_eq!(slots.taken_count, model.len());
                for number in 0..200 {
                    let hash = model.get(&number).copied();
                    let found = slots.find(hash.unwrap_or(number % 8), |other| other == number);
                    prop_assert_eq!(found, hash.map(|_| number));
                }
            }
            slots.clear();
            prop_assert!(model.iter().all(|(_, hash)| slots.find(*hash, |_| true).is_none() && slots.touch(*hash) == 0));
        }
    }

    #[test]
    fn where_a_search_begins_can_be_read_ahead() {
        let mut slots = Slots::default();
        assert_eq!((slots.touch(7), slots.at_first(7), slots.find(7, |_| true)), (0, None, None));
        slots.insert(7, 0);
        slots.insert(7 + 16, 1);
        assert_eq!((slots.touch(7), slots.at_first(7), slots.at_first(7 + 16)), (1, Some(0), None));
        assert_eq!(slots.search(7 + 32, |_| true), Found::Vacant(9));
        assert_eq!(slots.find(7 + 16, |_| true), Some(1));
    }
}
