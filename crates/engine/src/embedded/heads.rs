//! Heads of chains in memory: found by customer once, and then by their place.
//!
//! A place is good until heads are removed ([`Heads::drop_clean`]), that is, for a batch.

use super::memtable::{MemoryHead, Table};
use bursar_core::CustomerId;

/// Where a head lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadPlace(u32);

/// Heads by customer.
#[derive(Debug, Default)]
pub(super) struct Heads {
    places: Table<CustomerId, HeadPlace>,
    heads: Vec<(CustomerId, MemoryHead)>,
}

impl Heads {
    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    /// Where a customer's head lies.
    #[inline]
    pub(super) fn place(&self, customer: CustomerId) -> Option<HeadPlace> {
        self.places.get(&customer).copied()
    }

    #[inline]
    pub(super) fn at(&self, place: HeadPlace) -> &MemoryHead {
        &self.heads[place.0 as usize].1
    }

    #[inline]
    pub(super) fn at_mut(&mut self, place: HeadPlace) -> &mut MemoryHead {
        &mut self.heads[place.0 as usize].1
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
        let place = HeadPlace(self.heads.len() as u32);
        self.heads.push((customer, head));
        self.places.insert(customer, place);
        place
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (CustomerId, &MemoryHead)> {
        self.heads.iter().map(|(customer, head)| (*customer, head))
    }

    /// Removes heads that are in index files anyway.
    pub(super) fn drop_clean(&mut self) {
        self.heads.retain(|(_, head)| head.is_new);
        self.places.clear();
        let places = self.heads.iter().zip(0..).map(|((customer, _), place)| (*customer, HeadPlace(place)));
        self.places.extend(places);
    }

    /// The same heads, as they will be once these are in index files.
    pub(super) fn as_written(&self) -> Self {
        let written =
            |(customer, head): &(CustomerId, MemoryHead)| (*customer, MemoryHead { is_new: false, ..head.clone() });
        Self { places: self.places.clone(), heads: self.heads.iter().map(written).collect() }
    }
}
