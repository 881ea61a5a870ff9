//! Reading: ranges of chains, lists page by page, ids of both forms, currencies, sources.

use super::scene::{Scene, customer, deposit, deposit_in, withdrawal};
use super::{Case, Checked, Wrong, equal};
use crate::store::{ChainEntry, CustomerHead, ReadRange, RowCounts, SourceId, SourceMark};
use bursar_core::{AbortReason, CustomerId, EventStatus, ReasonText};

pub(super) const CASES: &[Case] = &[
    ("ranges_of_a_chain_in_both_directions", ranges),
    ("lists_go_on_page_by_page_in_order_of_id", pages),
    ("lists_go_on_while_customers_come_and_change", pages_while_writing),
    ("a_list_shows_the_newest_heads", newest_heads),
    ("ids_are_numbers_and_uuids", ids),
    ("several_currencies_in_one_chain", currencies),
    ("a_source_goes_on_with_its_batch", sources),
];

fn ranges(scene: &mut Scene) -> Checked {
    scene.commit(&(0..9).map(|n| deposit(1, n, 10)).collect::<Vec<_>>())?;
    for number in 0..4 {
        let open = scene.open(&withdrawal(1, 100 + number, 1))?;
        let aborted = EventStatus::Aborted(AbortReason::RailRefused(ReasonText::new("no")));
        scene.close(&open, if number % 2 == 0 { &aborted } else { &EventStatus::Done })?;
        scene.commit(&[deposit(1, 200 + number, 10)])?;
    }
    scene.open(&withdrawal(1, 300, 1))?;
    let all = scene.chains[&customer(1)].clone();
    let count = all.len() as u64;
    for from_seq in 0..=count + 2 {
        for to_seq in (0..=count + 1).chain([u64::MAX]) {
            for limit in [0, 1, 2, 7, usize::MAX] {
                for newest_first in [false, true] {
                    range(scene, &all, ReadRange { from_seq, to_seq, limit, newest_first })?;
                }
            }
        }
    }
    let mut nobody = Vec::new();
    scene.stores.chains.read(customer(2), ReadRange::ALL, &mut nobody)?;
    equal("the chain of nobody", &nobody, &Vec::new())
}

fn range(scene: &Scene, all: &[ChainEntry], range: ReadRange) -> Checked {
    let mut entries = Vec::new();
    scene.stores.chains.read(customer(1), range, &mut entries)?;
    let within = |entry: &&ChainEntry| (range.from_seq..=range.to_seq).contains(&entry.linked.event.seq);
    let expected: Vec<ChainEntry> = if range.newest_first {
        all.iter().rev().filter(within).take(range.limit).cloned().collect()
    } else {
        all.iter().filter(within).take(range.limit).cloned().collect()
    };
    if entries == expected {
        return Ok(());
    }
    let seqs = |entries: &[ChainEntry]| entries.iter().map(|entry| entry.linked.event.seq).collect::<Vec<_>>();
    Err(Wrong(format!("{range:?}: got {:?}, expected {:?}", seqs(&entries), seqs(&expected))))
}

/// All customers, read in pages of so many.
fn list(scene: &Scene, page: usize) -> Result<Vec<CustomerHead>, Wrong> {
    let mut all: Vec<CustomerHead> = Vec::new();
    loop {
        let before = all.len();
        let after = all.last().map(|head| head.customer);
        scene.stores.chains.list(after, page, &mut all)?;
        if all.len() == before {
            return Ok(all);
        }
        equal("a page that is too long", &(all.len() - before).min(page), &(all.len() - before))?;
    }
}

fn pages(scene: &mut Scene) -> Checked {
    let ids = [5, 3, 900, 1, u128::MAX, 1 << 64, 17, 2, 40];
    for (transaction, of) in (0..).zip(ids) {
        scene.commit(&[deposit(of, transaction, 10)])?;
    }
    let expected: Vec<CustomerHead> =
        scene.heads.iter().map(|(&customer, head)| CustomerHead { customer, head: head.clone() }).collect();
    for page in [1, 2, 3, 8, 9, 10, usize::MAX] {
        equal("all pages", &list(scene, page)?, &expected)?;
    }
    let mut none = Vec::new();
    scene.stores.chains.list(None, 0, &mut none)?;
    scene.stores.chains.list(Some(customer(u128::MAX)), 5, &mut none)?;
    equal("pages beside the list", &none, &Vec::new())?;
    let mut between = Vec::new();
    scene.stores.chains.list(Some(customer(4)), 1, &mut between)?;
    equal("after an id that nobody has", &between.first().map(|head| head.customer), &Some(customer(5)))
}

fn pages_while_writing(scene: &mut Scene) -> Checked {
    for number in 0..40 {
        scene.commit(&[deposit(number * 10, number, 10)])?;
    }
    let mut seen: Vec<CustomerHead> = Vec::new();
    for round in 0.. {
        let after = seen.last().map(|head| head.customer);
        let mut page = Vec::new();
        scene.stores.chains.list(after, 3, &mut page)?;
        for listed in &page {
            equal("a listed head", &listed.head, &scene.head(listed.customer))?;
        }
        if page.is_empty() {
            break;
        }
        seen.append(&mut page);
        // New customers before and behind the reader, and changes to known ones.
        scene.commit(&[
            deposit(5, 1000 + round, 1),
            deposit(395 - round, 2000 + round, 1),
            deposit((round * 70) % 400, 3000 + round, 1),
        ])?;
    }
    equal("in order, none twice", &seen.is_sorted_by(|a, b| a.customer < b.customer), &true)?;
    let old = seen.iter().filter(|head| head.customer.bits().is_multiple_of(10)).count();
    equal("those who were there from the beginning", &old, &40)?;
    scene.check()
}

/// A list read before must not hide what has changed since, wherever the store has it from.
fn newest_heads(scene: &mut Scene) -> Checked {
    for number in 0..60 {
        scene.commit(&[deposit(number, number, 10)])?;
    }
    scene.check()?;
    for number in 0..60_u128 {
        scene.commit(&[deposit(number * 7 % 60, 100 + number, 10)])?;
        let expected: Vec<CustomerHead> =
            scene.heads.iter().map(|(&customer, head)| CustomerHead { customer, head: head.clone() }).collect();
        equal("the list", &list(scene, 50)?, &expected)?;
    }
    Ok(())
}

fn ids(scene: &mut Scene) -> Checked {
    let ids = [0, 1, 255, 65_536, u128::from(u64::MAX), 1 << 64, 0x0192_0000_7000_8000_0000_0000_0000_0001, u128::MAX];
    for of in ids {
        let requests: Vec<_> = ids.iter().map(|id| deposit(of, of.wrapping_mul(31).wrapping_add(*id), 2)).collect();
        for request in requests {
            let known = request.action.transaction().is_some_and(|id| scene.table.contains_key(&id));
            if !known {
                scene.commit(&[request])?;
            }
        }
    }
    equal("customers", &scene.heads.len(), &ids.len())?;
    scene.check()?;
    let mut heads = Vec::new();
    let asked: Vec<CustomerId> = ids.iter().rev().map(|&id| customer(id)).collect();
    scene.stores.chains.load(&asked, &mut heads)?;
    equal("heads in the order asked", &heads, &asked.iter().map(|&id| Some(scene.head(id))).collect())
}

fn currencies(scene: &mut Scene) -> Checked {
    let most = i64::MAX / 2;
    scene.commit(&[
        deposit_in(1, 1, 1, 5),
        deposit_in(0, 1, 2, most),
        deposit_in(2, 1, 3, 7),
        deposit_in(2, 2, 4, 1),
    ])?;
    scene.commit(&[deposit_in(1, 2, 5, 5), withdrawal(1, 6, most)])?;
    scene.check()?;
    equal("accounts", &scene.head(customer(1)).state.accounts.len(), &3)
}

fn sources(scene: &mut Scene) -> Checked {
    let mark = |source: u8, offset: u64, rejected: &[(u64, u8)]| SourceMark {
        source: SourceId([source; 32]),
        offset,
        line_count: offset / 10,
        finished: offset >= 300,
        counts: RowCounts { applied: offset, already_applied: 1, rejected: 2, unreadable: 3 },
        rejected_lines: rejected.to_vec(),
    };
    let kept = |mark: &SourceMark| SourceMark { rejected_lines: Vec::new(), ..mark.clone() };
    let marks = [mark(7, 100, &[(3, 1), (4, 17)]), mark(2, 50, &[]), mark(7, 200, &[]), mark(7, 300, &[(21, 0)])];
    for mark in &marks {
        scene.stores.chains.end_batch(scene.time_ms, Some(mark))?;
        scene.commit(&[deposit(1, scene.table.len() as u128, 1)])?;
        equal("its mark", &scene.stores.chains.source(mark.source)?, &Some(kept(mark)))?;
    }
    equal("an unknown one", &scene.stores.chains.source(SourceId([9; 32]))?, &None)?;
    let mut all = scene.stores.chains.sources()?;
    all.sort_by_key(|mark| mark.source);
    equal("all marks", &all, &vec![kept(&marks[1]), kept(&marks[3])])?;
    let rejected = scene.stores.chains.rejected_lines(SourceId([7; 32]))?;
    equal("rejected lines", &rejected, &vec![(3, 1), (4, 17), (21, 0)])?;
    equal("of another", &scene.stores.chains.rejected_lines(SourceId([2; 32]))?, &Vec::new())?;
    scene.check()
}
