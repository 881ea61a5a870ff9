//! Which runs to merge next.
//!
//! Tiers of a factor: runs of the smallest size are level 0, and each level's runs are that many times as large as
//! those of the level before. As soon as that many adjacent runs have the same level they are merged, newest levels
//! first, which gives one run of the next level. So there is one run fewer than the factor per level at the most once
//! nothing is left to merge, and an entry is written once per level at the most, as long as merged runs add up.
//! A larger factor writes less; a smaller one keeps fewer runs, which saves room where merging drops entries.
//!
//! A run older than one of a higher level counts as being of that level too: whatever the sizes, levels never
//! rise towards newer runs, so runs of the same level are always adjacent, and none is left out for good.

use super::transactions::POSITION_SPAN_MAX;
use std::ops::Range;

/// How many runs are merged at once at the most; bounds the open files and blocks in memory after a backlog.
const MERGED_RUNS_MAX: usize = 16;

/// A run as the choice of merges sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunSize {
    /// The first journal position covered.
    pub(crate) from: u64,
    /// The journal position behind the last one covered.
    pub(crate) to: u64,
    /// How large the run is: entries or bytes, but the same for all.
    pub(crate) size: u64,
}

/// Which of these runs to merge next, as a range of indexes; `None` while that is not worth while.
///
/// `runs` cover adjacent parts of the journal, oldest first. `smallest` is the usual size of a new run; what is
/// smaller counts as of that size. `factor`, at least 2: how many runs of a level are merged.
pub(crate) fn next_merge(runs: &[RunSize], smallest: u64, factor: u64) -> Option<Range<usize>> {
    let mut group = runs.len()..runs.len();
    let mut group_level = 0;
    for (index, run) in runs.iter().enumerate().rev() {
        let level = level_of(run.size, smallest, factor);
        // A level below the group's counts as the group's.
        if level > group_level {
            if let Some(merge) = worth_while(runs, group, factor) {
                return Some(merge);
            }
            group_level = level;
            group = index + 1..index + 1;
        }
        group.start = index;
    }
    worth_while(runs, group, factor)
}

/// The part of a group of runs of one level that may be merged, if it is large enough: oldest first, up to the
/// most that one run may cover.
fn worth_while(runs: &[RunSize], group: Range<usize>, factor: u64) -> Option<Range<usize>> {
    let mut start = group.start;
    while let Some(oldest) = runs.get(start).filter(|_| start < group.end) {
        let candidates = runs.get(start..group.end)?;
        let fits = |run: &&RunSize| run.to.saturating_sub(oldest.from) <= POSITION_SPAN_MAX;
        let count = candidates.iter().take(MERGED_RUNS_MAX).take_while(fits).count();
        if count as u64 >= factor {
            return Some(start..start + count);
        }
        start += 1;
    }
    None
}

/// How often the smallest size can be multiplied by the factor without getting above this size.
fn level_of(size: u64, smallest: u64, factor: u64) -> u32 {
    (size / smallest.max(1)).checked_ilog(factor.max(2)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Adjacent runs of these sizes, each covering as many positions as it is large.
    fn runs(sizes: &[u64]) -> Vec<RunSize> {
        let mut to = 0;
        let run = |&size: &u64| {
            let from = to;
            to += size;
            RunSize { from, to, size }
        };
        sizes.iter().map(run).collect()
    }

    fn merge(runs: &mut Vec<RunSize>, range: Range<usize>, size: u64) {
        let merged = RunSize { from: runs[range.start].from, to: runs[range.end - 1].to, size };
        runs.splice(range, [merged]);
    }

    #[test]
    fn merges_four_adjacent_runs_of_a_level() {
        let table: [(&[u64], Option<Range<usize>>); 13] = [
            (&[], None),
            (&[100, 100, 100], None),
            (&[100, 100, 100, 100], Some(0..4)),
            (&[1, 399, 100, 7], Some(0..4)),
            (&[400, 100, 100, 100], None),
            (&[400, 100, 100, 100, 100], Some(1..5)),
            // The newest level first.
            (&[400, 400, 400, 400, 100, 100, 100, 100], Some(4..8)),
            (&[400, 400, 400, 400, 100], Some(0..4)),
            // A small run behind a large one counts as large.
            (&[400, 100, 400, 400], Some(0..4)),
            (&[100, 400, 100, 400], Some(0..4)),
            (&[100, 1600, 100], None),
            (&[100; 20], Some(0..16)),
            (&[POSITION_SPAN_MAX, POSITION_SPAN_MAX, POSITION_SPAN_MAX, POSITION_SPAN_MAX], None),
        ];
        for (sizes, expected) in table {
            assert_eq!(next_merge(&runs(sizes), 100, 4), expected, "{sizes:?}");
        }
    }

    #[test]
    fn no_merge_covers_more_than_a_run_can() {
        let quarter = POSITION_SPAN_MAX / 4;
        let sizes = [quarter, quarter, quarter, quarter + 1, quarter, quarter, quarter];
        assert_eq!(next_merge(&runs(&sizes), quarter, 4), None);
        let sizes = [quarter + 1, quarter, quarter, quarter, quarter, quarter];
        assert_eq!(next_merge(&runs(&sizes), quarter, 4), Some(1..5));
    }

    /// 10 000 new runs of the usual size: three runs per level, and each entry is written once per level.
    #[test]
    fn a_long_life_keeps_few_runs_and_writes_little() {
        let (mut list, mut written, mut count_max) = (runs(&[]), 0, 0);
        for _ in 0..10_000 {
            let from = list.last().map_or(0, |run| run.to);
            list.push(RunSize { from, to: from + 100, size: 100 });
            written += 100;
            while let Some(range) = next_merge(&list, 100, 4) {
                let size = list[range.clone()].iter().map(|run| run.size).sum();
                written += size;
                merge(&mut list, range, size);
            }
            count_max = count_max.max(list.len());
        }
        // The largest run has 4^6 new ones in it, so there are levels 0 to 6.
        assert_eq!(list[0].size, 100 * 4096);
        assert!(count_max <= 3 * 7, "{count_max} runs");
        assert!(written <= 10_000 * 100 * 7, "{written} written");
    }

    proptest! {
        /// New runs of any size, merged runs that are smaller than the sum of their parts, and merges that come
        /// late: still at most `factor - 1` runs per level once all is merged, nothing is lost, and little is written.
        #[test]
        fn any_life_keeps_few_runs_and_writes_little(
            life in prop::collection::vec((1u64..1_000, 0u8..4), 1..400),
            kept_percent in 30u64..=100,
            factor in 2u64..=4,
        ) {
            const SMALLEST: u64 = 100;
            let (mut list, mut new_total, mut written) = (runs(&[]), 0, 0);
            for &(size, merge_count) in &life {
                let from = list.last().map_or(0, |run| run.to);
                list.push(RunSize { from, to: from + size, size });
                new_total += size.max(SMALLEST);
                for _ in 0..merge_count {
                    let Some(range) = next_merge(&list, SMALLEST, factor) else { break };
                    let parts = &list[range.clone()];
                    let largest = parts.iter().map(|run| run.size).max().unwrap_or(0);
                    let sum: u64 = parts.iter().map(|run| run.size).sum();
                    let size = (sum * kept_percent / 100).max(largest);
                    written += size;
                    merge(&mut list, range, size);
                }
            }
            while let Some(range) = next_merge(&list, SMALLEST, factor) {
                let size = list[range.clone()].iter().map(|run| run.size).sum();
                written += size;
                merge(&mut list, range, size);
            }
            let largest = list.iter().map(|run| run.size).max().unwrap_or(0);
            let level_count = u64::from(level_of(largest, SMALLEST, factor)) + 1;
            prop_assert!(list.len() as u64 <= (factor - 1) * level_count, "{} runs in {level_count} levels", list.len());
            prop_assert!(list.windows(2).all(|pair| pair[0].to == pair[1].from));
            prop_assert_eq!(list.last().map(|run| run.to), Some(life.iter().map(|(size, _)| size).sum()));
            prop_assert!(written <= new_total * (level_count + 1), "{written} of {new_total}, {level_count} levels");
        }
    }
}
