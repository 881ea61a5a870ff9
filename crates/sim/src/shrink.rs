//! Making a failing run short: fewer steps, as long as it still fails.

use crate::run::run_once;
use crate::scenario::Scenario;
use crate::witness::Witness;

/// Leaves out steps as long as the run still finds something, be it something else. Each step has random numbers of
/// its own, so that leaving one out changes no other. Tries at most `runs_max` runs.
pub fn shrink(scenario: &Scenario, runs_max: u32) -> Scenario {
    let mut best = scenario.steps();
    let mut runs_left = runs_max;
    let mut fails = |steps: &[u64]| {
        if runs_left == 0 {
            return false;
        }
        runs_left -= 1;
        let shorter = Scenario { steps: Some(steps.to_vec()), ..scenario.clone() };
        run_once(&shorter, &Witness::default()).is_err()
    };
    // Larger parts first, then smaller ones, then single steps until nothing more can go.
    let mut part = best.len().div_ceil(2);
    while part > 0 {
        let mut from = 0;
        let mut went = false;
        while from < best.len() {
            let to = (from + part).min(best.len());
            let shorter = [&best[..from], &best[to..]].concat();
            if fails(&shorter) {
                best = shorter;
                went = true;
            } else {
                from = to;
            }
        }
        part = if part == 1 && went { 1 } else { part / 2 };
    }
    Scenario { steps: Some(best), ..scenario.clone() }
}
