//! Batches that are decided at once, by stores that take them.
//!
//! A store that never begins one has nothing to show here; its own tests say whether it should.

use super::scene::{customer, deposit, deposit_in, dispute, resolve, withdrawal};
use super::{Case, Checked, Ending, Scene, Wrong, equal, holds};
use bursar_core::{CustomerId, EventStatus, Head, LinkedEvent, Request, TransactionId, TransactionState};

pub(super) const CASES: &[Case] = &[
    ("a batch at once is like any other", like_any_other),
    ("what was expected makes no difference", expected_or_not),
    ("what was only looked at leaves no trace", no_trace),
    ("no batch at once beside an open event", not_beside_open_events),
];

/// What a request is about.
fn about(request: &Request) -> (CustomerId, Option<TransactionId>) {
    (request.customer, request.action.transaction())
}

impl Scene {
    /// Decides and appends at once; `expected` is what the store is told to come. Gives whether it takes such batches.
    fn commit_at_once(&mut self, requests: &[Request], expected: &[Request]) -> Result<bool, Wrong> {
        let chains = self.stores.chains.clone();
        let Some(mut whole) = chains.begin_whole(self.time_ms + 7)? else { return Ok(false) };
        let events = self.decide(requests)?.events;
        whole.expect(&expected.iter().map(about).collect::<Vec<_>>());
        for (request, linked) in requests.iter().zip(events) {
            let (customer, transaction) = about(request);
            let found = whole.find(customer, transaction)?;
            self.check_found(found, customer, transaction)?;
            whole.append_done(&linked)?;
            self.totals.begun(&linked.event);
            self.note(linked, EventStatus::Done);
        }
        whole.end(None)?;
        Ok(true)
    }

    fn check_found(
        &self,
        (head, state): (&Head, Option<&TransactionState>),
        customer: CustomerId,
        transaction: Option<TransactionId>,
    ) -> Checked {
        equal("the head found", head, &self.head(customer))?;
        let known = transaction.and_then(|transaction| self.table.get(&transaction));
        equal("the state found", &state, &known)
    }
}

/// Some that build on each other and on what was there before.
fn requests() -> [Request; 8] {
    [
        deposit(1, 20, 7),
        withdrawal(1, 21, 3),
        dispute(2, 11),
        deposit(3, 22, 9),
        dispute(3, 22),
        resolve(2, 11),
        resolve(3, 22),
        deposit_in(1, 1, 23, 5),
    ]
}

fn like_any_other(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 10, 5), deposit(2, 11, 6)])?;
    if !scene.commit_at_once(&requests(), &requests())? {
        return Ok(());
    }
    scene.check()?;
    scene.commit(&[dispute(1, 20), withdrawal(3, 30, 1)])?;
    holds("a second batch at once", scene.commit_at_once(&[resolve(1, 20), deposit(4, 31, 1)], &[])?)?;
    scene.check()?;
    scene.stores.chains.sync()?;
    for ending in [Ending::Crash, Ending::Clean] {
        if scene.reopened(ending)? {
            scene.check()?;
        }
    }
    Ok(())
}

fn expected_or_not(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 10, 5), deposit(2, 11, 6)])?;
    let requests = requests();
    let mut backwards = requests;
    backwards.reverse();
    for (round, expected) in [&backwards[..], &requests[..3], &requests[2..], &[]].into_iter().enumerate() {
        let number = 100 * (round as u128 + 1);
        let deposits = [deposit(1, number, 1), deposit(2, number + 1, 1), deposit(number, number + 2, 1)];
        if !scene.commit_at_once(&deposits, expected)? {
            return Ok(());
        }
    }
    scene.check()
}

fn no_trace(scene: &mut Scene) -> Checked {
    scene.commit(&[deposit(1, 10, 5)])?;
    let chains = scene.stores.chains.clone();
    let Some(mut whole) = chains.begin_whole(scene.time_ms + 7)? else { return Ok(()) };
    for _ in 0..2 {
        let found = whole.find(customer(9), Some(TransactionId::new(90)))?;
        scene.check_found(found, customer(9), Some(TransactionId::new(90)))?;
    }
    whole.end(None)?;
    scene.check()?;
    let mut heads = Vec::new();
    chains.load(&[customer(9)], &mut heads)?;
    equal("the head of a customer without a chain", &heads, &vec![None])?;
    scene.commit(&[deposit(9, 90, 5)])?;
    scene.check()
}

fn not_beside_open_events(scene: &mut Scene) -> Checked {
    if !scene.commit_at_once(&[deposit(1, 10, 5)], &[])? {
        return Ok(());
    }
    let open: LinkedEvent = scene.open(&withdrawal(1, 11, 2))?;
    holds("a batch at once beside an open event", !scene.commit_at_once(&[deposit(2, 12, 5)], &[])?)?;
    scene.close(&open, &EventStatus::Done)?;
    holds("a batch at once behind it", scene.commit_at_once(&[dispute(1, 10)], &[])?)?;
    scene.check()
}
