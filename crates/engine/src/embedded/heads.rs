//! Heads of chains in memory: found by customer once, and then by their place.
//!
//! A place is good until heads are removed ([`Heads::drop_clean`]), that is, for a batch. What is searched are places
//! alone, four bytes each, so that the table stays near the processor; whose head lies there is asked of the head.

use bursar_core::{CustomerId, Head};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// A chain's head and where its newest record lies.
#[derive(Clone, Debug)]
pub(crate) struct MemoryHead {
    /// Without open events; those are in the store's own list.
    pub(crate) head: Head,
    /// The position of the newest record of the chain; `None` before the first.
    pub(crate) newest: Option<u64>,
    /// The sequence number of the newest event, open ones and those of the batch included.
    pub(crate) last_seq: u64,
    /// Not in any index file yet.
    pub(crate) is_new: bool,
}

impl MemoryHead {
    /// Reads something of each of the processor's lines that the head lies in.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        let Head { seq, link, time_ms, state, open } = &self.head;
        let link = u64::from(link.as_bytes()[0] ^ link.as_bytes()[31]);
        let account = state.accounts.first().map_or(0, |(_, account)| account.available.steps() ^ account.held.steps());
        let newest = self.newest.unwrap_or_default() ^ u64::from(self.is_new);
        seq ^ link ^ time_ms ^ account.cast_unsigned() ^ open.len() as u64 ^ newest ^ self.last_seq
    }
}

/// Where a head lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadPlace(u32);

impl HeadPlace {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Heads by customer.
#[derive(Debug, Default)]
pub(super) struct Heads {
    places: HashTable<HeadPlace>,
    /// By place.
    all: Vec<(CustomerId, MemoryHead)>,
    hasher: RandomState,
}

impl Heads {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Where a customer's head lies.
    #[inline]
    pub(super) fn place(&self, customer: CustomerId) -> Option<HeadPlace> {
        let is_of = |place: &HeadPlace| self.all[place.index()].0 == customer;
        self.places.find(self.hasher.hash_one(customer), is_of).copied()
    }

    #[inline]
    pub(super) fn at(&self, place: HeadPlace) -> &MemoryHead {
        &self.all[place.index()].1
    }

    #[inline]
    pub(super) fn at_mut(&mut self, place: HeadPlace) -> &mut MemoryHead {
        &mut self.all[place.index()].1
    }

    pub(super) fn get(&self, customer: CustomerId) -> Option<&MemoryHead> {
        self.place(customer).map(|place| self.at(place))
    }

    /// Puts a head in place of the one there is, if there is one.
    pub(super) fn insert(&mut self, customer: CustomerId, head: MemoryHead) -> HeadPlace {
        if let Some(place) = self.place(customer) {
            *self.at_mut(place) = head;
            return place;
        }
        let place = HeadPlace(self.all.len() as u32);
        self.all.push((customer, head));
        self.note(place);
        place
    }

    /// Makes a head that lies somewhere known by its customer.
    fn note(&mut self, place: HeadPlace) {
        let Self { places, all, hasher } = self;
        let hash_at = |place: &HeadPlace| hasher.hash_one(all[place.index()].0);
        places.insert_unique(hash_at(&place), place, hash_at);
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (CustomerId, &MemoryHead)> {
        self.all.iter().map(|(customer, head)| (*customer, head))
    }

    /// Removes heads that are in index files anyway.
    pub(super) fn drop_clean(&mut self) {
        self.all.retain(|(_, head)| head.is_new);
        self.places.clear();
        for place in 0..self.all.len() {
            self.note(HeadPlace(place as u32));
        }
    }

    /// The same heads, as they will be once these are in index files.
    pub(super) fn as_written(&self) -> Self {
        let written =
            |(customer, head): &(CustomerId, MemoryHead)| (*customer, MemoryHead { is_new: false, ..head.clone() });
        let all = self.all.iter().map(written).collect();
        Self { places: self.places.clone(), all, hasher: self.hasher.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_core::Hash;

    fn head(last_seq: u64, is_new: bool) -> MemoryHead {
        let head = Head::start(&Hash([0; 32]), CustomerId::new(1));
        MemoryHead { head, newest: None, last_seq, is_new }
    }

    /// Every customer finds its own head, also after heads were put in place of others, removed and copied.
    #[test]
    fn each_customer_has_its_own_head() {
        let mut heads = Heads::default();
        for customer in 0..1000u64 {
            heads.insert(CustomerId::new(u128::from(customer) << 60), head(customer, customer.is_multiple_of(3)));
        }
        for customer in (0..1000u64).step_by(5) {
            heads
                .insert(CustomerId::new(u128::from(customer) << 60), head(customer + 5000, customer.is_multiple_of(3)));
        }
        let seq = |heads: &Heads, customer: u64| {
            let customer = CustomerId::new(u128::from(customer) << 60);
            heads.get(customer).map(|head| (head.last_seq, head.is_new))
        };
        let expected = |customer: u64| if customer.is_multiple_of(5) { customer + 5000 } else { customer };
        assert_eq!(heads.len(), 1000);
        let copy = heads.as_written();
        heads.drop_clean();
        for customer in 0..1001u64 {
            let is_new = customer.is_multiple_of(3);
            let is_there = customer < 1000;
            assert_eq!(seq(&copy, customer), is_there.then_some((expected(customer), false)));
            assert_eq!(seq(&heads, customer), (is_there && is_new).then_some((expected(customer), true)));
        }
        assert_eq!((copy.len(), copy.iter().count(), heads.len()), (1000, 1000, 334));
    }
}
