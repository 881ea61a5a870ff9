//! Customers as numbers, counted from 0 in the order in which they are first asked for.

use bursar_core::CustomerId;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// Ids below this are found by their place in a list: most ledgers count their customers. The list takes address
/// space for all of them at once, and memory for the pages that are used.
const LISTED_MAX: usize = 1 << 24;
/// The list is looked through in stretches of this length, and only in those that are in use.
const STRETCH_LEN: usize = 4096;
/// Too many.
const COUNT_MAX: u32 = u32::MAX;

/// Who has which number.
#[derive(Debug, Default)]
pub(super) struct Customers {
    /// By number.
    ids: Vec<CustomerId>,
    /// Numbers and one, by id; zero of nobody. Empty until it is needed.
    listed: Vec<u32>,
    /// Which stretches of the list are in use.
    stretches: Vec<bool>,
    others: HashMap<CustomerId, u32, RandomState>,
}

impl Customers {
    /// The number of a customer, who is given the next one if there is none yet. `None`: there are too many.
    #[inline]
    pub(super) fn number(&mut self, customer: CustomerId) -> Option<u32> {
        match usize::try_from(customer.bits()).ok().and_then(|place| self.listed.get(place)) {
            Some(&number) if number > 0 => Some(number - 1),
            Some(_) | None => self.other_number(customer),
        }
    }

    fn other_number(&mut self, customer: CustomerId) -> Option<u32> {
        if let Some(&number) = self.others.get(&customer) {
            return Some(number);
        }
        let number = self.ids.len() as u32;
        if number == COUNT_MAX {
            return None;
        }
        self.ids.push(customer);
        let bits = customer.bits();
        if bits < LISTED_MAX as u128 {
            if self.listed.is_empty() {
                self.listed = vec![0; LISTED_MAX];
                self.stretches = vec![false; LISTED_MAX / STRETCH_LEN];
            }
            self.stretches[bits as usize / STRETCH_LEN] = true;
            self.listed[bits as usize] = number + 1;
        } else {
            self.others.insert(customer, number);
        }
        Some(number)
    }

    /// The customer with this number.
    pub(super) fn id(&self, number: u32) -> CustomerId {
        self.ids.get(number as usize).copied().unwrap_or_default()
    }

    /// All numbers, in the order of their customers' ids.
    pub(super) fn in_order(&self) -> Vec<(CustomerId, u32)> {
        let mut in_order = Vec::with_capacity(self.ids.len());
        for (index, stretch) in self.listed.chunks(STRETCH_LEN).enumerate().filter(|(index, _)| self.stretches[*index])
        {
            let listed = stretch.iter().zip((index * STRETCH_LEN) as u128..).filter(|(number, _)| **number > 0);
            in_order.extend(listed.map(|(number, id)| (CustomerId::new(id), number - 1)));
        }
        let listed_count = in_order.len();
        in_order.extend(self.others.iter().map(|(id, number)| (*id, *number)));
        // All others have larger ids than those that are listed.
        in_order[listed_count..].sort_unstable();
        in_order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_and_kept() {
        let mut customers = Customers::default();
        let listed_max = LISTED_MAX as u128;
        let ids = [7, 0, listed_max, listed_max - 1, 1 << 100, 7, u128::MAX, 1 << 100, 0, 1 << 64];
        let numbers = ids.map(|id| customers.number(CustomerId::new(id)));
        assert_eq!(numbers, [0, 1, 2, 3, 4, 0, 5, 4, 1, 6].map(Some));
        for (id, number) in ids.into_iter().zip(numbers) {
            assert_eq!(number.map(|number| customers.id(number)), Some(CustomerId::new(id)));
        }
        let in_order = customers.in_order().into_iter().map(|(id, number)| (id.bits(), number));
        let expected =
            [(0, 1), (7, 0), (listed_max - 1, 3), (listed_max, 2), (1 << 64, 6), (1 << 100, 4), (u128::MAX, 5)];
        assert!(in_order.eq(expected));
    }
}
