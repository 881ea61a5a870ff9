//! Keys of requests: each names the one event in effect that has it, and means nothing to transactions.

use super::scene::{Scene, customer, deposit, dispute, resolve};
use super::{Case, Checked, Ending, equal, holds};
use bursar_core::commit::{Proposal, ProposeResult};
use bursar_core::{
    AbortReason, EntryId, EventStatus, ReasonText, Record, Request, RequestKey, TransactionEntry, TransactionId,
};

pub(super) const CASES: &[Case] = &[
    ("a_key_names_the_event_that_has_it", names_its_event),
    ("a_key_is_not_the_transaction_with_its_bits", not_a_transaction),
    ("a_key_that_is_used_is_not_proposed_again", used_once),
    ("the_key_of_an_aborted_event_is_free", aborted),
    ("keys_outlive_a_crash", after_a_crash),
    ("old_keys_are_found_among_many", many),
];

fn key(bits: u128) -> RequestKey {
    RequestKey::from_bits(bits).unwrap_or_else(|| unreachable!("no case has a key of zero"))
}

fn chargeback(of: u128, transaction: u128) -> Request {
    Request::chargeback(customer(of), TransactionId::new(transaction))
}

fn names_its_event(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10), deposit(2, 2, 10)])?;
    scene.commit_keyed(&dispute(1, 1), key(77))?;
    scene.commit_keyed(&chargeback(1, 1), key(78))?;
    // An unlock has no transaction, and a key all the same.
    scene.commit_keyed(&Request::unlock(customer(1)), key(79))?;
    scene.commit(&[dispute(2, 2)])?;
    scene.check()?;
    equal("an unknown key", &scene.entry(key(80))?, &TransactionEntry::default())
}

fn not_a_transaction(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10), deposit(2, 2, 10)])?;
    scene.commit_keyed(&dispute(1, 1), key(2))?;
    scene.commit_keyed(&dispute(2, 2), key(3))?;
    equal("no transaction", &scene.entry(TransactionId::new(3))?, &TransactionEntry::default())?;
    equal("no key", &scene.entry(key(1))?, &TransactionEntry::default())?;
    // Nobody can take somebody's key away by choosing its bits.
    scene.commit(&[deposit(3, 3, 30)])?;
    scene.check()?;
    let ids = [EntryId::Key(key(3)), TransactionId::new(3).into(), key(3).into(), TransactionId::new(2).into()];
    let mut entries = Vec::new();
    scene.stores.transactions.get(&ids, &mut entries)?;
    let customers: Vec<_> = entries.iter().filter_map(|entry| entry.proposed.or_else(|| mark(entry))).collect();
    let customers: Vec<_> = customers.iter().map(|proposed| proposed.state.customer).collect();
    equal("whose", &customers, &[2, 3, 2, 2].map(customer).to_vec())?;
    let lasts = scene.reopened(Ending::Clean)?;
    if lasts { scene.check() } else { Ok(()) }
}

/// What a store of whole batches may leave out of an approved transaction's entry.
fn mark(entry: &TransactionEntry) -> Option<bursar_core::Proposed> {
    let state = entry.approved?;
    let event = bursar_core::EventRef { customer: state.customer, seq: 0, id: bursar_core::EventId::default() };
    Some(bursar_core::Proposed { state, event })
}

fn used_once(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10), deposit(2, 2, 10)])?;
    let slow = scene.decide_keyed(&dispute(2, 2), key(5))?;
    let proposals = scene.proposals(&slow)?;
    scene.commit_keyed(&dispute(1, 1), key(5))?;
    scene.append_all(&[Record::Started(slow.clone())])?;
    let of_key = |proposal: &&Proposal| proposal.entry == EntryId::Key(key(5));
    let Some(late) = proposals.iter().find(of_key) else { return holds("a keyed event proposes its key", false) };
    let before = scene.entry(key(5))?;
    equal("the slow owner", &scene.propose(&[*late])?, &vec![ProposeResult::Conflict])?;
    equal("the entry", &scene.entry(key(5))?, &before)?;
    let reason = AbortReason::TransactionConflict;
    scene.append_all(&[Record::Aborted(slow.reference(), reason.clone())])?;
    scene.stores.chains.end_batch(scene.time_ms, None)?;
    scene.totals.begun(&slow.event);
    scene.totals.aborted();
    scene.note(slow, EventStatus::Aborted(reason));
    scene.check()
}

fn aborted(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10), deposit(2, 2, 10)])?;
    let open = scene.open_keyed(&dispute(1, 1), key(6))?;
    equal("proposed", &scene.entry(key(6))?.proposed.map(|proposed| proposed.event), &Some(open.reference()))?;
    equal("not in effect", &scene.in_effect(&scene.entry(key(6))?)?, &None)?;
    scene.close(&open, &EventStatus::Aborted(AbortReason::RailRefused(ReasonText::new("no"))))?;
    equal("in effect", &scene.in_effect(&scene.entry(key(6))?)?, &None)?;
    scene.commit_keyed(&dispute(2, 2), key(6))?;
    let closed = scene.open_keyed(&dispute(1, 1), key(7))?;
    scene.close(&closed, &EventStatus::Done)?;
    scene.check()
}

fn after_a_crash(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 1, 10), deposit(2, 2, 10), deposit(3, 3, 10)])?;
    scene.commit_keyed(&dispute(1, 1), key(1 << 90))?;
    let open = scene.open_keyed(&dispute(2, 2), key(9))?;
    scene.stores.chains.sync()?;
    if !scene.reopened(Ending::Crash)? {
        return Ok(());
    }
    equal("the open one", &scene.entry(key(9))?.proposed.map(|proposed| proposed.event), &Some(open.reference()))?;
    scene.close(&open, &EventStatus::Done)?;
    scene.commit_keyed(&dispute(3, 3), key(10))?;
    scene.stores.chains.sync()?;
    scene.check()?;
    for ending in [Ending::Clean, Ending::Crash] {
        scene.reopened(ending)?;
        scene.check()?;
    }
    Ok(())
}

/// Whatever a store wrote aside in the meantime.
fn many(scene: &mut Scene) -> Checked {
    let keyed = |number: u128| key(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) | 1);
    for round in 0..24_u128 {
        let first = round * 100;
        scene.commit(&(first..first + 100).map(|n| deposit(n % 70, n, 5)).collect::<Vec<_>>())?;
        for number in first..first + 3 {
            scene.commit_keyed(&dispute(number % 70, number), keyed(number))?;
        }
        if let Some(old) = first.checked_sub(500) {
            scene.commit_keyed(&resolve(old % 70, old), keyed(old + 50))?;
        }
        scene.stores.chains.sync()?;
        if round == 12 && scene.reopened(Ending::Crash)? {
            scene.check()?;
        } else if round == 12 {
            return Ok(());
        }
    }
    scene.check()
}
