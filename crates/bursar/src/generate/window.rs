//! What a workload remembers of the rows before: recent deposits, and disputes that are open.
//!
//! Both are bounded by the window's length, and take 32 bytes per entry. When one is full, a new entry takes
//! the place of an old one drawn at random: a deposit that can no longer be disputed, or a dispute that stays
//! open for good. So the age of what is disputed falls off smoothly around the window's length.

use super::random::Random;

/// A transaction that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// Which it was, counted from 1; its id follows from that.
    pub(crate) transaction: u64,
    /// Whose: the client's rank.
    pub(crate) client: u64,
    /// How much, in smallest steps.
    pub(crate) steps: u64,
    /// In which of the plan's currencies.
    pub(crate) currency: u8,
}

/// Recent deposits and open disputes.
#[derive(Debug)]
pub(crate) struct Window {
    posted: Vec<Made>,
    disputed: Vec<Made>,
    len_max: usize,
}

impl Window {
    /// A window with at most `len_max` deposits and as many open disputes.
    pub(crate) fn new(len_max: usize) -> Self {
        Self { posted: Vec::new(), disputed: Vec::new(), len_max }
    }

    /// Remembers a deposit that can be disputed.
    pub(crate) fn posted(&mut self, made: Made, random: &mut Random) {
        remember(&mut self.posted, self.len_max, made, random);
    }

    /// Opens a dispute of one of the deposits.
    pub(crate) fn dispute(&mut self, random: &mut Random) -> Option<Made> {
        let made = take(&mut self.posted, random)?;
        remember(&mut self.disputed, self.len_max, made, random);
        Some(made)
    }

    /// Closes one of the open disputes.
    pub(crate) fn close(&mut self, random: &mut Random) -> Option<Made> {
        take(&mut self.disputed, random)
    }

    /// One of the deposits, which stays.
    pub(crate) fn any_posted(&self, random: &mut Random) -> Option<Made> {
        self.posted.get(random.below(self.posted.len() as u64) as usize).copied()
    }
}

fn remember(list: &mut Vec<Made>, len_max: usize, made: Made, random: &mut Random) {
    if list.len() < len_max {
        list.push(made);
    } else if let Some(old) = list.get_mut(random.below(len_max as u64) as usize) {
        *old = made;
    }
}

fn take(list: &mut Vec<Made>, random: &mut Random) -> Option<Made> {
    let index = random.below(list.len() as u64) as usize;
    if index < list.len() { Some(list.swap_remove(index)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_keeps_its_bounds_and_gives_what_it_was_given() {
        let mut random = Random::from_seed(1);
        let mut window = Window::new(4);
        assert_eq!(window.dispute(&mut random), None);
        assert_eq!(window.any_posted(&mut random), None);
        for transaction in 1..=100 {
            window.posted(Made { transaction, client: transaction, steps: 1, currency: 0 }, &mut random);
        }
        assert_eq!(window.posted.len(), 4);
        let opened: Vec<u64> =
            std::iter::from_fn(|| window.dispute(&mut random)).map(|made| made.transaction).collect();
        let mut closed: Vec<u64> =
            std::iter::from_fn(|| window.close(&mut random)).map(|made| made.transaction).collect();
        assert_eq!(opened.len(), 4);
        closed.sort_unstable();
        let mut sorted = opened;
        sorted.sort_unstable();
        assert_eq!(sorted, closed);
    }
}
