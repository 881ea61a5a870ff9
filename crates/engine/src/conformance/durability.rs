//! What a sync has made durable is there after a crash, and a batch is there whole or not at all.

use super::scene::{Scene, customer, deposit, dispute, withdrawal};
use super::{Case, Checked, Ending, equal, holds};
use crate::store::{SourceId, SourceMark};
use bursar_core::commit::Appended;
use bursar_core::{AbortReason, EventStatus, Head, ReasonText, Record, TransactionId};

pub(super) const CASES: &[Case] = &[
    ("what_was_synced_is_there_after_a_crash", after_a_crash),
    ("everything_is_there_after_a_clean_end", after_a_clean_end),
    ("a_batch_that_was_not_synced_is_there_whole_or_not_at_all", whole_or_not_at_all),
    ("open_events_and_their_proposals_outlive_a_crash", open_events),
    ("life_goes_on_through_many_crashes", many_crashes),
];

fn fill(scene: &mut Scene) -> Checked {
    for round in 0..6_u128 {
        let base = round * 100;
        let requests: Vec<_> = (0..30).map(|n| deposit(n % 11, base + n, 50)).collect();
        scene.commit(&requests)?;
        scene.commit(&[withdrawal(3, base + 90, 5), dispute(4, base + 4)])?;
    }
    let mark = SourceMark { offset: 77, ..SourceMark::new(SourceId([5; 32])) };
    Ok(scene.stores.chains.end_batch(scene.time_ms, Some(&mark))?)
}

fn check_after(scene: &mut Scene, ending: Ending) -> Checked {
    fill(scene)?;
    scene.stores.chains.sync()?;
    if !scene.reopened(ending)? {
        return Ok(());
    }
    scene.check()?;
    let mark = scene.stores.chains.source(SourceId([5; 32]))?;
    equal("a source's offset", &mark.map(|mark| mark.offset), &Some(77))?;
    scene.commit(&[deposit(3, 9_000, 5), deposit(50, 9_001, 5)])?;
    scene.check()
}

fn after_a_crash(scene: &mut Scene) -> Checked {
    check_after(scene, Ending::Crash)
}

fn after_a_clean_end(scene: &mut Scene) -> Checked {
    check_after(scene, Ending::Clean)
}

fn whole_or_not_at_all(scene: &mut Scene) -> Checked {
    if !scene.is_whole() {
        return Ok(());
    }
    scene.commit(&[deposit(1, 1, 10)])?;
    scene.stores.chains.sync()?;
    // Two batches, neither synced, then one that was never ended.
    let transactions: [u128; 2] = [100, 200];
    for base in transactions {
        let mut requests: Vec<_> = (0..20).map(|n| deposit(n, base + n, 10)).collect();
        requests.push(dispute(3, base + 3));
        scene.commit(&requests)?;
    }
    let run = scene.decide(&[deposit(900, 900, 10)])?;
    scene.append_all(&[Record::Started(run.events[0].clone())])?;
    if !scene.reopened(Ending::Crash)? {
        return Ok(());
    }
    let mut there = Vec::new();
    for base in transactions {
        let mut entries = Vec::new();
        let ids: Vec<_> = (0..20).map(|n| TransactionId::new(base + n).into()).collect();
        scene.stores.transactions.get(&ids, &mut entries)?;
        let mut found = Vec::new();
        for entry in &entries {
            found.push(scene.in_effect(entry)?.is_some());
        }
        holds("a batch is there in part", found.iter().all(|known| *known == found[0]))?;
        there.push(found[0]);
    }
    holds("a later batch is there, an earlier one is not", there[0] || !there[1])?;
    let batch_count = there.iter().filter(|there| **there).count() as u64;
    let mut heads: Vec<Option<Head>> = Vec::new();
    scene.stores.chains.load(&[customer(7), customer(3), customer(900)], &mut heads)?;
    let seqs: Vec<_> = heads.iter().map(|head| head.as_ref().map_or(0, |head| head.seq)).collect();
    equal("chains have what the table has", &seqs, &vec![batch_count, 2 * batch_count, 0])?;
    equal("events", &scene.stores.chains.totals()?.event_count, &(1 + 21 * batch_count))
}

fn open_events(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10), deposit(2, 2, 10)])?;
    let first = scene.open(&withdrawal(1, 3, 4))?;
    let second = scene.open(&withdrawal(2, 4, 4))?;
    scene.stores.chains.sync()?;
    for ending in [Ending::Crash, Ending::Clean, Ending::Crash] {
        if !scene.reopened(ending)? {
            return Ok(());
        }
        scene.check()?;
        let entry = scene.entry(TransactionId::new(3))?;
        equal("proposed", &entry.proposed.map(|proposed| proposed.event), &Some(first.reference()))?;
        equal("approved", &entry.approved, &None)?;
        let mut heads = Vec::new();
        scene.stores.chains.load(&[customer(1)], &mut heads)?;
        let early = scene.event(&scene.head(customer(1)), &deposit(1, 9, 1), None)?;
        equal("an event beside the open one", &scene.append(&[Record::Started(early)])?, &vec![Appended::Conflict])?;
        scene.stores.chains.end_batch(scene.time_ms, None)?;
        scene.stores.chains.sync()?;
    }
    let reason = AbortReason::RailRefused(ReasonText::new("no"));
    scene.close(&first, &EventStatus::Done)?;
    scene.close(&second, &EventStatus::Aborted(reason.clone()))?;
    scene.stores.chains.sync()?;
    scene.reopened(Ending::Crash)?;
    scene.check()?;
    let again = [Record::Aborted(first.reference(), reason.clone()), Record::Done(second.reference())];
    let expected = vec![Appended::AlreadyDone, Appended::AlreadyAborted(reason)];
    equal("a second end after a crash", &scene.append(&again)?, &expected)
}

fn many_crashes(scene: &mut Scene) -> Checked {
    for life in 0..12_u128 {
        let requests: Vec<_> = (0..25).map(|n| deposit(n * (life + 1) % 60, life * 1_000 + n, 9)).collect();
        scene.commit(&requests)?;
        let open = scene.open(&deposit(500 + life, life * 1_000 + 500, 9))?;
        if life.is_multiple_of(2) {
            scene.close(&open, &EventStatus::Done)?;
        }
        scene.stores.chains.sync()?;
        if !scene.reopened(if life % 3 == 2 { Ending::Clean } else { Ending::Crash })? {
            return Ok(());
        }
        scene.check()?;
    }
    Ok(())
}
