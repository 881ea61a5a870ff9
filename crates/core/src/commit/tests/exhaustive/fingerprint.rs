//! 128 bits that stand for a state: SHA-256 over one canonical encoding of everything in it that can make a
//! difference later. Hash tables are taken in order of their keys, networks in an order of their own, and owners in
//! either order, since their numbers mean nothing.
//!
//! A linked event is its hash, which fixes its content; a ticket fixes its request. A batch counts only while it
//! is under way: the next one clears it.

use super::super::super::batch::{BatchEvent, Closing, Entry, Fate, Hold, Origin, Placed};
use super::super::super::machine::Open;
use super::super::super::*;
use super::super::owner::code;
use super::super::world::{Chain, Verdict, Watched};
use super::state::{Process, State, Stores, Write};
use crate::chain::Head;
use crate::event::{EventStatus, Record};
use crate::hash::sha256;
use crate::transaction::{EntryId, Proposed, TransactionEntry};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::hash::{Hash as _, Hasher};

/// The canonical bytes so far.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("the bytes are taken, not a digest of them")
    }
}

impl State {
    /// What stands for this state among those that were visited.
    pub(super) fn fingerprint(&self) -> u128 {
        let mut order: Vec<usize> = (0..self.processes.len()).collect();
        let forth = self.digest(&order);
        order.reverse();
        if order.len() < 2 { forth } else { forth.min(self.digest(&order)) }
    }

    fn digest(&self, order: &[usize]) -> u128 {
        let mut out = Bytes(Vec::with_capacity(4096));
        let State { world, before_batches, processes, submitted, calls, answers, late, .. } = self;
        (self.deaths_left, self.crashes_left, self.rail_faults_left, self.by_hand_left).hash(&mut out);
        submitted.hash(&mut out);
        stores(&world.chains, &world.table, &mut out);
        for Stores { chains, table } in before_batches {
            stores(chains, table, &mut out);
        }
        before_batches.len().hash(&mut out);
        for (event, (_, verdict)) in &world.book {
            event.hash(&mut out);
            match verdict {
                Verdict::Acted => 1.hash(&mut out),
                Verdict::Refused(reason) => reason.hash(&mut out),
            }
        }
        world.told.hash(&mut out);
        for (ticket, Watched { possible, .. }) in &world.watched {
            (ticket, possible).hash(&mut out);
        }
        let place = |owner: usize| order.iter().position(|other| *other == owner);
        in_any_order(calls, &mut out, |(owner, call), out| {
            place(*owner).hash(out);
            rail_call(call, out);
        });
        in_any_order(answers, &mut out, |(owner, event, answer), out| {
            (place(*owner), event).hash(out);
            match answer {
                RailAnswer::Done => 1.hash(out),
                RailAnswer::Refused(_) => 2.hash(out),
                RailAnswer::Unknown => 3.hash(out),
            }
        });
        in_any_order(late, &mut out, |late, out| match late {
            Write::Append(all) => list(all, out, record),
            Write::Propose(all) => list(all, out, proposal),
            Write::Approve(all) => list(all, out, approval),
        });
        for &owner in order {
            match &processes[owner] {
                Some(living) => process(living, &mut out),
                None => 0.hash(&mut out),
            }
        }
        let digest = sha256(&out.0).0;
        u128::from_le_bytes(digest[..16].try_into().unwrap())
    }
}

fn list<T>(all: &[T], out: &mut Bytes, each: impl Fn(&T, &mut Bytes)) {
    all.len().hash(out);
    for item in all {
        each(item, out);
    }
}

/// What lies in a network lies there in no order.
fn in_any_order<T>(all: &[T], out: &mut Bytes, each: impl Fn(&T, &mut Bytes)) {
    let mut encoded: Vec<_> = all
        .iter()
        .map(|item| {
            let mut one = Bytes::default();
            each(item, &mut one);
            one.0
        })
        .collect();
    encoded.sort_unstable();
    encoded.hash(out);
}

fn stores(chains: &BTreeMap<CustomerId, Chain>, table: &BTreeMap<EntryId, TransactionEntry>, out: &mut Bytes) {
    chains.len().hash(out);
    for (customer, Chain { records, synced }) in chains {
        (customer, synced).hash(out);
        list(records, out, record);
    }
    table.len().hash(out);
    for (id, what) in table {
        id.to_bytes().hash(out);
        entry(what, out);
    }
}

fn process(Process { owner, in_flight, tickets, cut_off }: &Process, out: &mut Bytes) {
    (1, cut_off, tickets, owner.in_batch).hash(out);
    owner.queue.len().hash(out);
    for waiting in &owner.queue {
        waiting.ticket.hash(out);
    }
    machine(&owner.machine, out);
    if owner.in_batch {
        batch(&owner.batch, out);
    }
    in_flight.len().hash(out);
    for (waiting, synced) in in_flight {
        synced.hash(out);
        batch(waiting, out);
    }
}

fn machine(machine: &Machine, out: &mut Bytes) {
    // `open_events` says the same as `open`.
    let Machine { last_time_ms, open, answered, to_recover, doubted, .. } = machine;
    (last_time_ms, answered, to_recover, doubted).hash(out);
    let mut customers: Vec<_> = open.keys().collect();
    customers.sort_unstable();
    customers.len().hash(out);
    for customer in customers {
        let Open { linked, rail, asked, waiting, attempt, call_count, asking, answer } = &open[customer];
        let asked = asked.as_ref().map(|asked| asked.ticket);
        (customer, linked.hash, rail, asked, attempt, call_count, asking).hash(out);
        waiting.len().hash(out);
        for waiting in waiting {
            waiting.ticket.hash(out);
        }
        list(answer.as_slice(), out, status);
    }
}

fn batch(batch: &Batch, out: &mut Bytes) {
    let Batch {
        step,
        after_sync,
        time_ms,
        customers,
        customer_places: _, // where they are in `customers`
        transactions,
        transaction_places: _,
        has_keys: _, // whether `transactions` has one
        submissions,
        closings,
        heads,
        loaded_seqs,
        entries,
        doubted,
        to_settle,
        to_recall,
        used: _, // the events of `to_recall`, and of `started`
        events,
        rests_on_found,
        started,
        proposals,
        closed,
        closed_events,
        approvals,
        answers,
        calls,
        ends,
        outcomes,
        waited,
        retry,
        rest,
    } = batch;
    (*step as u8, *after_sync as u8, time_ms, customers).hash(out);
    list(transactions, out, |id, out| id.to_bytes().hash(out));
    list(submissions, out, |Placed { submission, customer, transaction, key, fate }, out| {
        let fate = match fate {
            Fate::Undecided => 0,
            Fate::Answered => 1,
            Fate::Event => 2,
            Fate::Waits => 3,
            Fate::PutOff => 4,
        };
        (submission.ticket, customer, transaction, key, fate).hash(out);
    });
    list(closings, out, |Closing { customer, linked, asked, status: how }, out| {
        (customer, linked.hash, asked.as_ref().map(|asked| asked.ticket)).hash(out);
        status(how, out);
    });
    list(heads, out, head);
    (loaded_seqs, doubted, to_settle, to_recall, closed_events, rests_on_found).hash(out);
    list(entries, out, |Entry { table, approved, found_aborted, hold, touched }, out| {
        entry(table, out);
        state(approved.as_ref(), out);
        let hold = match hold {
            Hold::Free => (0, None),
            Hold::Reserved => (1, None),
            Hold::Doubtful(customer) => (2, Some(customer)),
        };
        (hold, touched, found_aborted).hash(out);
    });
    list(events, out, |event, out| {
        let BatchEvent { reference, customer, origin, proposal: proposes, key_proposal, status: how, lost } = event;
        (reference, customer, lost).hash(out);
        status(how, out);
        match origin {
            Origin::New { submission, started } => (0, submission, started).hash(out),
            Origin::Recovered => 1.hash(out),
            Origin::Answered { asked, linked, was_open } => {
                (2, asked.as_ref().map(|asked| asked.ticket), linked.hash, was_open).hash(out);
            }
        }
        list(proposes.as_slice(), out, proposal);
        list(key_proposal.as_slice(), out, |key_proposal, out| proposal(key_proposal, out));
    });
    list(started, out, record);
    list(proposals, out, proposal);
    list(closed, out, record);
    list(approvals, out, approval);
    list(answers, out, |Answer { ticket, result }, out| {
        (ticket, code(result)).hash(out);
        if let Ok(Outcome::Applied(receipt)) = result {
            receipt.hash.hash(out);
        }
    });
    list(calls, out, rail_call);
    list(ends, out, |(event, how), out| {
        event.hash(out);
        status(how, out);
    });
    list(outcomes, out, |(place, result), out| (place, code(result)).hash(out));
    for submissions in [waited, retry, rest] {
        list(submissions, out, |submission, out| submission.ticket.hash(out));
    }
}

fn head(Head { seq, link, time_ms, state: _, open }: &Head, out: &mut Bytes) {
    // The link fixes the state.
    (seq, link, time_ms).hash(out);
    list(open, out, |linked, out| linked.hash.hash(out));
}

fn rail_call(RailCall { rail, event, attempt }: &RailCall, out: &mut Bytes) {
    (rail, event.hash, attempt).hash(out);
}

fn record(record: &Record, out: &mut Bytes) {
    match record {
        Record::Started(linked) => (0, linked.hash).hash(out),
        Record::Done(event) => (1, event).hash(out),
        Record::Aborted(event, reason) => (2, event, reason.code(), reason.text()).hash(out),
        Record::DoneByHand(event, reason) => (3, event, reason.as_str()).hash(out),
    }
}

fn status(status: &EventStatus, out: &mut Bytes) {
    match status {
        EventStatus::Started => 1.hash(out),
        EventStatus::Done => 2.hash(out),
        EventStatus::Aborted(reason) => (3, reason.code(), reason.text()).hash(out),
        EventStatus::DoneByHand(reason) => (4, reason.as_str()).hash(out),
    }
}

fn state(state: Option<&TransactionState>, out: &mut Bytes) {
    state.is_some().hash(out);
    if let Some(TransactionState { customer, kind, amount, currency, status }) = state {
        (customer, kind, amount.steps(), currency.0, status).hash(out);
    }
}

fn entry(TransactionEntry { approved, proposed }: &TransactionEntry, out: &mut Bytes) {
    state(approved.as_ref(), out);
    proposed.is_some().hash(out);
    if let Some(Proposed { state: proposes, event }) = proposed {
        state(Some(proposes), out);
        event.hash(out);
    }
}

fn proposal(proposal: &Proposal, out: &mut Bytes) {
    let Proposal { entry, seen_approved, seen_proposed, approved, state: proposes, event } = proposal;
    (entry.to_bytes(), seen_proposed, event).hash(out);
    state(seen_approved.as_ref(), out);
    state(approved.as_ref(), out);
    state(Some(proposes), out);
}

fn approval(Approval { entry, event, state: approves }: &Approval, out: &mut Bytes) {
    (entry.to_bytes(), event).hash(out);
    state(Some(approves), out);
}
