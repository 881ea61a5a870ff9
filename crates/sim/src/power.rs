//! The simulator's check of itself: with each planted bug it must find something, within a bounded number of seeds.

use crate::run::{Found, run_many};
use crate::scenario::Stores;
use bursar_engine::core::planted::{Planted, plant};

/// A planted bug, and how it was caught.
#[derive(Debug)]
pub struct Caught {
    /// The bug.
    pub planted: Planted,
    /// How many seeds it took; the finding. `None` if it was not caught.
    pub found: Option<(u64, Found)>,
}

/// Plants a bug and runs seeds until it is caught.
pub fn catch(planted: Planted, seeds_max: u64, stores: Option<Stores>, threads: usize) -> Caught {
    plant(Some(planted));
    let summary = run_many(0, seeds_max, stores, threads, &|_| {});
    plant(None);
    Caught { planted, found: summary.found.map(|found| (found.scenario.seed + 1, found)) }
}
