//! Customers as numbers, counted from 0 in the order in which they are first named.

use bursar_core::CustomerId;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// Ids below this are found by their place in a list: most ledgers count their customers.
const LISTED_MAX: usize = 1 << 22;
/// Of nobody.
const NOBODY: u32 = u32::MAX;

/// Who has which number.
#[derive(Debug, Default)]
pub(super) struct Customers {
    count: u32,
    listed: Vec<u32>,
    others: HashMap<CustomerId, u32, RandomState>,
}

impl Customers {
    /// The number of a customer, who is given the next one if there is none yet. `None`: there are too many.
    pub(super) fn number(&mut self, customer: CustomerId) -> Option<u32> {
        let bits = customer.bits();
        let number = if bits < LISTED_MAX as u128 {
            let place = bits as usize;
            if self.listed.len() <= place {
                self.listed.resize((place + 1).next_power_of_two(), NOBODY);
            }
            &mut self.listed[place]
        } else {
            self.others.entry(customer).or_insert(NOBODY)
        };
        if *number == NOBODY {
            if self.count == NOBODY {
                return None;
            }
            *number = self.count;
            self.count += 1;
        }
        Some(*number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_and_kept() {
        let mut customers = Customers::default();
        let listed_max = LISTED_MAX as u128;
        let ids = [7, 0, listed_max, listed_max - 1, 1 << 100, 7, u128::MAX, 1 << 100, 0];
        let numbers = ids.map(|id| customers.number(CustomerId::new(id)));
        assert_eq!(numbers, [0, 1, 2, 3, 4, 0, 5, 4, 1].map(Some));
        customers.count = NOBODY;
        assert_eq!((customers.number(CustomerId::new(8)), customers.number(CustomerId::new(7))), (None, Some(0)));
    }
}
