//! Readers and syncs beside the one who appends.

use super::scene::{Scene, customer, deposit};
use super::{Case, Checked, Stores, Wrong, equal, holds};
use crate::store::ReadRange;
use crate::totals::CurrencyTotals;
use bursar_core::{CustomerId, EventStatus};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const CASES: &[Case] = &[
    ("readers_beside_a_writer_see_chains_that_only_grow", readers_beside_a_writer),
    ("syncs_beside_appends", syncs_beside_appends),
];

const CUSTOMERS: u128 = 20;

/// Reads one customer after the other until told to stop: heads never go back, and every chain is whole.
fn read_until(stopped: &AtomicBool, stores: &Stores) -> Checked {
    let mut seen: BTreeMap<CustomerId, u64> = BTreeMap::new();
    let mut round = 0;
    while !stopped.load(Ordering::Acquire) {
        round += 1;
        let of = customer(round % CUSTOMERS);
        let mut heads = Vec::new();
        stores.chains.load(&[of], &mut heads)?;
        let seq = heads.pop().flatten().map_or(0, |head| head.seq);
        let before = seen.insert(of, seq).unwrap_or(0);
        if seq < before {
            return Err(Wrong(format!("the head of {of} went back from {before} to {seq}")));
        }
        let mut entries = Vec::new();
        stores.chains.read(of, ReadRange { to_seq: seq, ..ReadRange::ALL }, &mut entries)?;
        let places = entries.iter().map(|entry| entry.linked.event.seq);
        holds("a chain with a hole", places.eq(1..=entries.len() as u64))?;
        let newest_but_one = entries.len().saturating_sub(1);
        let closed = entries[..newest_but_one].iter().all(|entry| entry.status == EventStatus::Done);
        holds("an old event that is not done", closed)?;
        let mut listed = Vec::new();
        stores.chains.list(None, 7, &mut listed)?;
        holds("a list out of order", listed.is_sorted_by(|a, b| a.customer < b.customer))?;
        let totals = stores.chains.totals()?;
        holds("sums that do not fit", totals.currencies().iter().all(CurrencyTotals::is_balanced))?;
    }
    Ok(())
}

fn readers_beside_a_writer(scene: &mut Scene) -> Checked {
    let stopped = AtomicBool::new(false);
    let stores = scene.stores.clone();
    let results = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| read_until(&stopped, &stores))).collect();
        let written = write(scene, 100, true);
        stopped.store(true, Ordering::Release);
        let mut results = vec![written];
        for reader in readers {
            results.push(reader.join().unwrap_or_else(|_| Err(Wrong("a reader panicked".to_owned()))));
        }
        results
    });
    results.into_iter().collect::<Result<Vec<()>, Wrong>>()?;
    scene.check()
}

pub(super) fn write(scene: &mut Scene, batch_count: u128, sync: bool) -> Checked {
    for batch in 0..batch_count {
        let requests: Vec<_> = (0..15).map(|n| deposit((batch + n) % CUSTOMERS, batch * 100 + n, 3)).collect();
        scene.commit(&requests)?;
        if sync && batch.is_multiple_of(4) {
            scene.stores.chains.sync()?;
        }
    }
    Ok(())
}

fn syncs_beside_appends(scene: &mut Scene) -> Checked {
    let stopped = AtomicBool::new(false);
    let stores = scene.stores.clone();
    let (written, synced) = std::thread::scope(|scope| {
        let syncing = scope.spawn(|| {
            while !stopped.load(Ordering::Acquire) {
                stores.chains.sync()?;
            }
            Ok::<(), Wrong>(())
        });
        let written = write(scene, 100, false);
        stopped.store(true, Ordering::Release);
        (written, syncing.join().unwrap_or_else(|_| Err(Wrong("the syncing thread panicked".to_owned()))))
    });
    written?;
    synced?;
    drop(stores);
    scene.check()?;
    scene.stores.chains.sync()?;
    if scene.reopened(super::Ending::Crash)? {
        scene.check()?;
    }
    equal("customers", &scene.heads.len(), &(CUSTOMERS as usize))
}
