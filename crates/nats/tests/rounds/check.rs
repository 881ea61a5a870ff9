//! What must be true after a round.

use super::engine::{Book, Engine};
use super::history::{Answer, Chain, Told, wrong_answers};
use super::{CUSTOMERS, Tables};
use bursar_engine::Totals;
use bursar_engine::core::commit::Outcome;
use bursar_engine::core::{
    CustomerId, EntryId, EventRef, EventStatus, LedgerConfig, Rejection, Request, RequestKind, TransactionId,
};
use bursar_engine::store::{Chains, ReadRange, Transactions};
use bursar_nats::{NatsChains, NatsOptions};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Everything that must be true after a round. Gives how many events there are.
pub(crate) fn check(config: &LedgerConfig, options: &NatsOptions, tables: &Arc<dyn Tables>, book: &Book) -> usize {
    // What an engine that died left open is settled by whoever opens the ledger next.
    let last = Engine::new(options.clone(), tables.clone());
    let until = Instant::now() + Duration::from_mins(2);
    while !last.ledger().is_some_and(|ledger| ledger.open_events().is_ok_and(|open| open.is_empty())) {
        assert!(Instant::now() < until, "events stay open");
        last.settle(book, 2);
        std::thread::sleep(Duration::from_millis(10));
    }
    let chains = NatsChains::open(options.clone()).unwrap();
    assert_eq!(chains.open_customers().unwrap(), []);
    let told = book.told();
    let mut by_customer: HashMap<CustomerId, Vec<&Told>> = HashMap::new();
    for told in &told {
        by_customer.entry(told.customer).or_default().push(told);
    }
    let of = |request: &Request, key| (request.customer, request.action.kind(), request.action.transaction(), key);
    let asked: HashSet<_> = book.asked().iter().map(|(request, terms)| of(request, terms.key)).collect();
    for told in &told {
        if let Answer::Outcome(_, terms, Outcome::Rejected(Rejection::RequestInProgress)) = &told.answer {
            let count = book.asked().iter().filter(|(_, other)| other.key == terms.key).count();
            assert!(count > 1, "nobody else asked under the key: {told:?}");
        }
    }
    let mut sums = Totals::default();
    let mut made: HashMap<TransactionId, usize> = HashMap::new();
    let mut followed: Vec<Chain> = Vec::new();
    for number in 1..=CUSTOMERS {
        let customer = CustomerId::new(u128::from(number));
        let (mut entries, mut heads) = (Vec::new(), Vec::new());
        chains.read(customer, ReadRange::ALL, &mut entries).unwrap();
        chains.load(&[customer], &mut heads).unwrap();
        let chain = Chain::follow(config, customer, entries).unwrap_or_else(|what| panic!("{what}"));
        if let Some(head) = heads.pop().flatten() {
            assert_eq!(head, *chain.head(), "the head of customer {customer}");
        }
        for entry in &chain.entries {
            let event = &entry.linked.event;
            sums.begun(event);
            if !entry.status.is_done() {
                sums.aborted();
                continue;
            }
            sums.done(event);
            let is_asked = asked.contains(&(customer, event.kind, event.transaction, event.key));
            assert!(is_asked, "nobody asked for {event:?}");
            if let (RequestKind::Deposit | RequestKind::Withdrawal, Some(id)) = (event.kind, event.transaction) {
                *made.entry(id).or_default() += 1;
            }
        }
        let told = by_customer.get(&customer).map(Vec::as_slice).unwrap_or_default();
        let wrong = wrong_answers(config, &chain, told);
        assert!(wrong.is_empty(), "answers that are in no order: {wrong:#?}");
        followed.push(chain);
    }
    assert!(made.values().all(|count| *count == 1), "made twice: {made:?}");
    assert_eq!(chains.totals().unwrap(), sums, "the sums, and what the chains say");
    check_table(&chains, &*tables.open(config).unwrap(), &followed);
    followed.iter().map(|chain| chain.entries.len()).sum()
}

fn check_table(chains: &NatsChains, table: &dyn Transactions, followed: &[Chain]) {
    let states: HashMap<_, _> = followed.iter().flat_map(Chain::states).collect();
    let transactions: Vec<TransactionId> = states.keys().copied().collect();
    let (mut table_says, mut statuses) = (Vec::new(), Vec::new());
    let ids: Vec<EntryId> = transactions.iter().map(|transaction| EntryId::from(*transaction)).collect();
    table.get(&ids, &mut table_says).unwrap();
    let proposed: Vec<EventRef> = table_says.iter().map(|entry| entry.proposed.unwrap().event).collect();
    chains.status(&proposed, &mut statuses).unwrap();
    for ((transaction, entry), status) in transactions.iter().zip(&table_says).zip(statuses) {
        let is_done = status.as_ref().is_some_and(EventStatus::is_done);
        let state = entry.proposed.filter(|_| is_done).map(|proposed| proposed.state).or(entry.approved);
        assert_eq!(state.as_ref(), states.get(transaction), "table and chains differ on {transaction}");
    }
    for (key, event) in followed.iter().flat_map(Chain::keys) {
        let mut entries = Vec::new();
        table.get(&[EntryId::Key(key)], &mut entries).unwrap();
        assert_eq!(entries[0].proposed.map(|proposed| proposed.event), Some(event), "of key {key}");
    }
}
