//! Many transactions and large batches: whatever a store writes aside must be found again.

use super::scene::{Scene, deposit, dispute, resolve, withdrawal};
use super::{Case, Checked, Ending};
use bursar_core::{AbortReason, EventStatus, ReasonText, Request};

pub(super) const CASES: &[Case] = &[
    ("a_large_batch", large_batch),
    ("old_transactions_and_customers_are_found_among_many", many),
    ("an_event_is_closed_long_after_it_began", closed_late),
];

fn large_batch(scene: &mut Scene) -> Checked {
    let batch: Vec<Request> = (0..5_000).map(|n| deposit(n % 700, n, 1 + (n % 13) as i64)).collect();
    scene.commit(&batch)?;
    scene.check()
}

/// What a store wrote aside in the meantime covers the event's beginning, and not its end.
fn closed_late(scene: &mut Scene) -> Checked {
    for round in 0..3_u128 {
        let base = round * 10_000;
        let done = scene.open(&deposit(1, base + 1, 10))?;
        let aborted = scene.open(&deposit(2, base + 2, 10))?;
        let fill = |scene: &mut Scene, first: u128| -> Checked {
            for batch in 0..4 {
                let from = base + first + batch * 40;
                scene.commit(&(from..from + 40).map(|n| deposit(100 + n % 50, n, 1)).collect::<Vec<_>>())?;
                scene.stores.chains.sync()?;
            }
            Ok(())
        };
        fill(scene, 100)?;
        scene.close(&done, &EventStatus::Done)?;
        scene.close(&aborted, &EventStatus::Aborted(AbortReason::RailRefused(ReasonText::new("no"))))?;
        scene.check()?;
        fill(scene, 300)?;
        scene.commit(&[dispute(1, base + 1), deposit(2, base + 2, 10)])?;
        fill(scene, 500)?;
        scene.check()?;
        if round == 1 {
            scene.stores.chains.sync()?;
            scene.reopened(Ending::Crash)?;
            scene.check()?;
        }
    }
    Ok(())
}

/// Ten thousand transactions of three thousand customers; every batch comes back to an old one.
fn many(scene: &mut Scene) -> Checked {
    for batch in 0..50_u128 {
        let first = batch * 200;
        let mut requests: Vec<Request> =
            (first..first + 200).map(|n| deposit((n * 7_919) % 3_000, scattered(n), 100)).collect();
        if batch > 0 {
            let old = (batch * 37) % first;
            let of = (old * 7_919) % 3_000;
            requests.push(withdrawal(of, 1 << 100 | batch, 1));
            requests.push(dispute(of, scattered(old)));
        }
        scene.commit(&requests)?;
        if batch > 0 && batch.is_multiple_of(2) {
            let old = (batch * 37) % first;
            scene.commit(&[resolve((old * 7_919) % 3_000, scattered(old))])?;
        }
        scene.stores.chains.sync()?;
    }
    scene.check()
}

/// Ids of both forms, in no order.
fn scattered(number: u128) -> u128 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    if number.is_multiple_of(3) { mixed | 1 << 127 } else { mixed >> 70 << 20 | number }
}
