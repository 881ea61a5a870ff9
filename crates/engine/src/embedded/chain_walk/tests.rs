//! Chains read in pages and in parts, with how many records that takes.

use super::*;
use crate::embedded::EmbeddedOptions;
use crate::embedded::support;
use crate::store::Chains;
use bursar_core::AbortReason;
use bursar_core::commit::RailAnswer;
use support::{Bench, LEDGER, deposit, movement};

const EVENTS: u64 = 6000;

fn refused() -> RailAnswer {
    RailAnswer::Refused(AbortReason::from_code(1, "no").unwrap())
}

/// A chain of three sorts of events: done at once, done later, and aborted.
fn long_chain() -> Bench {
    let options =
        EmbeddedOptions { segment_bytes: 64 << 10, memtable_entries_max: 1000, heads_max: 250, background: false };
    let mut bench = Bench::create(LEDGER, options);
    let (mut seq, mut transaction) = (0, 0);
    while seq < EVENTS {
        let count = if seq == 0 { 20 } else { seq % 37 + 1 };
        let deposits: Vec<_> = (0..count).map(|index| deposit(7, transaction + u128::from(index), 100)).collect();
        bench.commit(&deposits);
        let calls = bench.commit(&[movement(false, 7, transaction + u128::from(count), 1, 0)]);
        for call in calls {
            let answer = if seq % 2 == 0 { RailAnswer::Done } else { refused() };
            bench.answer(call, answer);
        }
        seq += count + 1;
        transaction += u128::from(count) + 1;
    }
    bench
}

fn all(bench: &Bench) -> Vec<ChainEntry> {
    let mut entries = Vec::new();
    bench.store.read(support::customer(7), ReadRange::ALL, &mut entries).unwrap();
    entries
}

fn newest(bench: &Bench) -> Option<u64> {
    bench.store.shared.lock().head_mut(support::customer(7)).unwrap().and_then(|head| head.newest())
}

/// The story: each page of an export walked back from the chain's end, so that a chain of ten times the length took
/// a hundred times as long.
#[test]
fn pages_cost_what_is_read() {
    let bench = long_chain();
    let (expected, newest) = (all(&bench), newest(&bench));
    let count = expected.len() as u64;
    let closed = expected.iter().filter(|entry| entry.linked.event.rail.is_some()).count() as u64;
    assert!(count >= EVENTS && closed > 100);
    for limit in [1usize, 10, 300, 5000] {
        for newest_first in [false, true] {
            let (waymarks, mut got, mut record_count) = (Waymarks::default(), Vec::new(), 0);
            let (mut from_seq, mut to_seq, mut pages) = (1, u64::MAX, 0);
            while (got.len() as u64) < count {
                let range = ReadRange { from_seq, to_seq, limit, newest_first };
                let journal = &bench.store.shared.journal;
                record_count += waymarks.read(journal, support::customer(7), newest, range, &mut got).unwrap();
                pages += 1;
                let seq = got.last().unwrap().linked.event.seq;
                if newest_first { to_seq = seq - 1 } else { from_seq = seq + 1 }
            }
            if newest_first {
                got.reverse();
            }
            assert!(got == expected, "limit {limit}, newest first {newest_first}");
            // Once to find the beginning, once to read, and for each page to the next waymark.
            let most = 2 * (count + closed) + pages * (2 * SPACING_MIN + 100);
            assert!(record_count <= most, "limit {limit}: {record_count} records, {count} events, {pages} pages");
        }
    }
}

/// Any part of the chain, through waymarks of all walks before it.
#[test]
fn any_part_is_the_same_from_any_waymark() {
    let bench = long_chain();
    let expected = all(&bench);
    let count = expected.len() as u64;
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for round in 0..300 {
        let from_seq = next(count + 2);
        let from_seq = if round % 10 == 0 { 0 } else { from_seq };
        let (to_seq, limit) = (from_seq + next(count / 4), next(700) as usize + 1);
        let newest_first = next(2) == 0;
        let mut got = Vec::new();
        let range = ReadRange { from_seq, to_seq, limit, newest_first };
        bench.store.read(support::customer(7), range, &mut got).unwrap();
        let within = expected.iter().filter(|e| (from_seq..=to_seq).contains(&e.linked.event.seq));
        let wanted: Vec<ChainEntry> = if newest_first {
            within.rev().take(limit).cloned().collect()
        } else {
            within.take(limit).cloned().collect()
        };
        assert!(got == wanted, "{range:?}");
    }
}

#[test]
fn a_chain_keeps_a_bounded_count_of_waymarks() {
    let mut marks = Marks::default();
    let count = MARKS_MAX as u64 * SPACING_MIN * 5;
    for seq in (1..=count).rev().step_by(100) {
        marks.pass(seq, seq * 3);
    }
    assert!(marks.positions.len() <= MARKS_MAX && marks.positions.len() > MARKS_MAX / 4);
    for seq in [1, count / 3, count - marks.spacing * 4] {
        let position = marks.before(seq).unwrap();
        assert!(position >= seq * 3 && position / 3 - seq <= marks.spacing * 4, "{seq}");
    }
}
