//! What engines were told, and what must be true then of the ledger that they leave behind.

#![allow(dead_code, unreachable_pub)] // each test file uses a part of it

mod linear;

use crate::engines::ledger_on;
use bursar_engine::Totals;
use bursar_engine::core::{
    ChainCheck, EntryId, EventRef, EventStatus, LedgerConfig, RequestKey, TransactionId, TransactionState,
};
use bursar_engine::store::{ChainEntry, Chains, CustomerHead, ReadRange, Transactions};
use bursar_postgres::{PostgresConfig, PostgresStore};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Clone, Debug)]
pub struct Begun {
    pub at_ns: u64,
    pub kind: String,
    pub customer: u128,
    pub transaction: u128,
    pub amount: i64,
    pub key: Option<RequestKey>,
}

#[derive(Clone, Debug)]
pub enum Told {
    Applied {
        seq: u64,
        id: String,
        hash: String,
    },
    Already {
        id: String,
    },
    /// Rejected: the code, and for want of funds what was available.
    Refused(String),
}

#[derive(Clone, Debug)]
pub struct Ended {
    pub at_ns: u64,
    pub told: Told,
}

#[derive(Default)]
pub struct History {
    pub begun: BTreeMap<String, Begun>,
    pub ended: BTreeMap<String, Ended>,
}

impl History {
    pub fn take(&mut self, log: &str) {
        // The last line of one that was killed may be cut.
        for line in log.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["begin", id, at, kind, customer, transaction, amount, key] => {
                    let begun = Begun {
                        at_ns: at.parse().unwrap(),
                        kind: kind.to_owned(),
                        customer: customer.parse().unwrap(),
                        transaction: transaction.parse().unwrap(),
                        amount: amount.parse().unwrap(),
                        key: RequestKey::from_bits(key.parse().unwrap()),
                    };
                    self.begun.insert(id.to_owned(), begun);
                }
                ["end", id, at, ref told @ ..] => {
                    let told = match told {
                        ["applied", seq, id, hash] => {
                            Told::Applied { seq: seq.parse().unwrap(), id: (*id).to_owned(), hash: (*hash).to_owned() }
                        }
                        ["already", id] => Told::Already { id: (*id).to_owned() },
                        ["rejected", code] => Told::Refused((*code).to_owned()),
                        _ => panic!("{line}"),
                    };
                    self.ended.insert(id.to_owned(), Ended { at_ns: at.parse().unwrap(), told });
                }
                _ => panic!("{line}"),
            }
        }
    }
}

/// Everything that is wrong.
pub fn check(config: &PostgresConfig, expected: &LedgerConfig, history: &History) -> Vec<String> {
    let store = Arc::new(PostgresStore::open_same(config, expected).unwrap());
    settle(&store);
    let mut wrong = Vec::new();
    let mut listed: Vec<CustomerHead> = Vec::new();
    store.list(None, usize::MAX, &mut listed).unwrap();
    let mut chains: BTreeMap<u128, Vec<ChainEntry>> = BTreeMap::new();
    for head in &listed {
        let mut entries = Vec::new();
        store.read(head.customer, ReadRange::ALL, &mut entries).unwrap();
        chains.insert(head.customer.bits(), entries);
    }
    check_chains(&store, &listed, &chains, &mut wrong);
    check_history(&chains, history, &mut wrong);
    linear::check(expected, &chains, history, &mut wrong);
    wrong
}

/// What killed engines left open is rolled forward, or their rail is asked again.
fn settle(store: &Arc<PostgresStore>) {
    let ledger = ledger_on(store).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let open = ledger.open_events().unwrap();
        if open.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "events stay open: {open:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    ledger.close().unwrap();
    assert_eq!(store.open_customers().unwrap(), Vec::new());
}

fn check_chains(
    store: &PostgresStore,
    listed: &[CustomerHead],
    chains: &BTreeMap<u128, Vec<ChainEntry>>,
    wrong: &mut Vec<String>,
) {
    let config = store.config();
    let mut table: BTreeMap<TransactionId, TransactionState> = BTreeMap::new();
    let mut touched: BTreeMap<TransactionId, Vec<_>> = BTreeMap::new();
    let mut keyed: BTreeMap<RequestKey, EventRef> = BTreeMap::new();
    let mut totals = Totals::default();
    let mut newest = 0;
    for head in listed {
        let mut follow = ChainCheck::new(&config.digest(), head.customer);
        // By this chain alone: an id whose event was aborted is free for others, who may be looked at first.
        let mut own: BTreeMap<TransactionId, TransactionState> = BTreeMap::new();
        for ChainEntry { linked, status } in &chains[&head.customer.bits()] {
            let transaction = linked.event.transaction;
            let known = transaction.and_then(|id| own.get(&id)).copied();
            match follow.follow(config, known, linked, status) {
                Ok(state) => {
                    if let Some((id, state)) = transaction.zip(state) {
                        own.insert(id, state);
                        if table.insert(id, state).is_some_and(|before| before.customer != state.customer) {
                            wrong.push(format!("transaction {id} has two customers"));
                        }
                    }
                }
                Err(fault) => wrong.push(format!("{}, {linked:?}, {status:?}: {fault}", head.customer)),
            }
            totals.begun(&linked.event);
            newest = newest.max(linked.event.time_ms);
            match status {
                EventStatus::Started => wrong.push(format!("{}, event {} is open", head.customer, linked.event.seq)),
                EventStatus::Done | EventStatus::DoneByHand(_) => {
                    totals.done(&linked.event);
                    let had = linked.event.key.and_then(|key| keyed.insert(key, linked.reference()));
                    if let Some(had) = had {
                        wrong.push(format!("{:?} and {had:?} have one key", linked.reference()));
                    }
                    if let Some(id) = transaction {
                        touched.entry(id).or_default().push(linked.reference());
                    }
                }
                EventStatus::Aborted(_) => totals.aborted(),
            }
        }
        if *follow.head() != head.head {
            wrong.push(format!("the head of {} is {:?}, its chain says {:?}", head.customer, head.head, follow.head()));
        }
    }
    if store.totals().unwrap() != totals {
        wrong.push(format!("the sums are {:?}, the chains say {totals:?}", store.totals()));
    }
    if store.last_time_ms().unwrap() != newest {
        wrong.push("the newest time is another one".to_owned());
    }
    check_table(store, &table, &touched, wrong);
    let keys: Vec<EntryId> = keyed.keys().map(|key| EntryId::Key(*key)).collect();
    let mut entries = Vec::new();
    store.get(&keys, &mut entries).unwrap();
    for ((key, event), entry) in keyed.iter().zip(entries) {
        if entry.proposed.map(|proposed| proposed.event) != Some(*event) {
            wrong.push(format!("key {key} names {entry:?}, the chains say {event:?}"));
        }
    }
}

fn check_table(
    store: &PostgresStore,
    table: &BTreeMap<TransactionId, TransactionState>,
    touched: &BTreeMap<TransactionId, Vec<bursar_engine::core::EventRef>>,
    wrong: &mut Vec<String>,
) {
    let ids: Vec<TransactionId> = table.keys().copied().collect();
    let entry_ids: Vec<EntryId> = ids.iter().map(|id| EntryId::from(*id)).collect();
    let mut entries = Vec::new();
    store.get(&entry_ids, &mut entries).unwrap();
    for (id, entry) in ids.iter().zip(entries) {
        let mut statuses = Vec::new();
        let proposed: Vec<_> = entry.proposed.iter().map(|proposed| proposed.event).collect();
        store.status(&proposed, &mut statuses).unwrap();
        let is_done = statuses.first() == Some(&Some(EventStatus::Done));
        let state = if is_done { entry.proposed.map(|proposed| proposed.state) } else { entry.approved };
        if state != Some(table[id]) {
            wrong.push(format!("transaction {id} is {state:?}, the chains say {:?}", table[id]));
        }
        let mut events = store.events_of(*id).unwrap();
        let mut statuses = Vec::new();
        store.status(&events, &mut statuses).unwrap();
        let mut done = statuses.iter().map(|status| *status == Some(EventStatus::Done));
        events.retain(|_| done.next().unwrap());
        if events != touched[id] {
            wrong.push(format!("transaction {id} was touched by {events:?}, the chains say {:?}", touched[id]));
        }
    }
}

fn check_history(chains: &BTreeMap<u128, Vec<ChainEntry>>, history: &History, wrong: &mut Vec<String>) {
    let mut claimed: BTreeSet<&str> = BTreeSet::new();
    for (id, ended) in &history.ended {
        let begun = &history.begun[id];
        let chain = chains.get(&begun.customer).map(Vec::as_slice).unwrap_or_default();
        let fits = |entry: &ChainEntry| {
            let event = &entry.linked.event;
            let amount_fits = begun.amount == 0 || event.amount.steps() == begun.amount;
            entry.status == EventStatus::Done
                && event.kind.name() == begun.kind
                && event.transaction.map_or(0, TransactionId::bits) == begun.transaction
                && event.key == begun.key
                && amount_fits
        };
        match &ended.told {
            Told::Applied { seq, id: event, hash } => {
                let entry = chain.get(*seq as usize - 1);
                let found = entry.filter(|entry| {
                    entry.linked.id().to_string() == *event && entry.linked.hash.to_string() == *hash && fits(entry)
                });
                if found.is_none() {
                    wrong.push(format!("{id} was told of an event that is not there: {begun:?} {ended:?} {entry:?}"));
                }
                if !claimed.insert(event) {
                    wrong.push(format!("two were told of the same event: {begun:?} {ended:?}"));
                }
            }
            Told::Already { id: event } => {
                // Who asked with a key hears which event it was.
                let is_it = |entry: &&ChainEntry| begun.key.is_none() || entry.linked.id().to_string() == *event;
                if !chain.iter().filter(is_it).any(fits) {
                    wrong.push(format!("{id} was told that it is done already, and it is not: {begun:?}"));
                }
            }
            Told::Refused(_) => {}
        }
    }
    // Every event in effect was asked for.
    let of = |begun: &'_ Begun| (begun.kind.clone(), begun.customer, begun.transaction, begun.key);
    let asked: BTreeSet<(String, u128, u128, Option<RequestKey>)> = history.begun.values().map(of).collect();
    for (customer, chain) in chains {
        for entry in chain.iter().filter(|entry| entry.status == EventStatus::Done) {
            let event = &entry.linked.event;
            let transaction = event.transaction.map_or(0, TransactionId::bits);
            if !asked.contains(&(event.kind.name().to_owned(), *customer, transaction, event.key)) {
                wrong.push(format!("nobody asked for {event:?}"));
            }
        }
    }
}
