//! Linearizability, customer by customer: there is one order of all that was answered in which everything is as it was
//! told, and in which what ended before something else began comes first.
//!
//! The chain gives the order of what was applied. What changed nothing (a refusal, "already applied") is true of some
//! place of the chain: behind an event, decided by the rules on the state there. Each such answer takes the first place
//! that it may have: behind all that had ended when it began, and where the rules say what was told. A later place
//! could only push others further back, so if there is an order at all, this finds one.
//!
//! Transactions and keys are unique in the whole ledger: where another customer has one in the end, both what was true
//! before and what was true behind that are let pass. What is said of events that wait (`transaction_pending`,
//! `request_in_progress`) or of a rail's refusal is of no place of the chain.

use super::{Begun, History, Told};
use bursar_engine::core::rules::{Decision, Known, decide};
use bursar_engine::core::{
    Action, Amount, CustomerId, CustomerState, Event, LedgerConfig, Rejection, Request, RequestKey, TransactionId,
    TransactionState,
};
use bursar_engine::store::ChainEntry;
use std::collections::{BTreeMap, BTreeSet};

/// What one customer's chain says about each of its places.
struct Places {
    /// The state behind each place; place 0 is the beginning.
    states: Vec<CustomerState>,
    /// The states of each transaction, with the place of the event that led there.
    transactions: BTreeMap<TransactionId, Vec<(u64, TransactionState)>>,
    keys: BTreeMap<RequestKey, Event>,
}

impl Places {
    fn of(chain: &[ChainEntry]) -> Self {
        let mut states = vec![CustomerState::default()];
        let (mut transactions, mut keys) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
        for ChainEntry { linked, status } in chain {
            let event = &linked.event;
            let before = states.last().cloned().unwrap_or_default();
            if !status.is_done() {
                states.push(before);
                continue;
            }
            states.push(event.state.clone());
            if let Some((id, state)) = event.transaction.zip(event.transaction_state()) {
                transactions.entry(id).or_default().push((event.seq, state));
            }
            if let Some(key) = event.key {
                keys.insert(key, event.clone());
            }
        }
        Self { states, transactions, keys }
    }

    fn transaction(&self, id: TransactionId, place: u64) -> Option<TransactionState> {
        let states = self.transactions.get(&id)?;
        states.iter().rev().find(|(seq, _)| *seq <= place).map(|(_, state)| *state)
    }
}

struct Checker<'a> {
    config: &'a LedgerConfig,
    places: BTreeMap<u128, Places>,
    /// Whose each transaction and each key is in the end.
    owners: BTreeMap<TransactionId, (u128, TransactionState)>,
    key_owners: BTreeMap<RequestKey, u128>,
}

/// The answers of all customers, each held against its chain.
pub fn check(
    config: &LedgerConfig,
    chains: &BTreeMap<u128, Vec<ChainEntry>>,
    history: &History,
    wrong: &mut Vec<String>,
) {
    let places: BTreeMap<u128, Places> =
        chains.iter().map(|(customer, chain)| (*customer, Places::of(chain))).collect();
    let (mut owners, mut key_owners) = (BTreeMap::new(), BTreeMap::new());
    for (customer, of) in &places {
        owners.extend(of.transactions.iter().filter_map(|(id, states)| Some((*id, (*customer, states.last()?.1)))));
        key_owners.extend(of.keys.keys().map(|key| (*key, *customer)));
    }
    let checker = Checker { config, places, owners, key_owners };
    let customers: BTreeSet<u128> = history.begun.values().map(|begun| begun.customer).collect();
    for customer in customers {
        checker.check_customer(customer, history, wrong);
    }
}

impl Checker<'_> {
    fn check_customer(&self, customer: u128, history: &History, wrong: &mut Vec<String>) {
        let answered = history.ended.iter().map(|(id, ended)| (&history.begun[id], ended));
        let answered: Vec<_> = answered.filter(|(begun, _)| begun.customer == customer).collect();
        // What happens at each moment: beginnings before ends.
        let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * answered.len());
        for (index, (begun, ended)) in answered.iter().enumerate() {
            moments.push((begun.at_ns, false, index));
            moments.push((ended.at_ns, true, index));
        }
        moments.sort_unstable();
        let empty = Places::of(&[]);
        let places = self.places.get(&customer).unwrap_or(&empty);
        let mut taken: Vec<u64> = vec![0; answered.len()];
        // The last place of all that has ended.
        let mut passed = 0;
        for (_, is_end, index) in moments {
            let (begun, ended) = answered[index];
            if is_end {
                passed = passed.max(taken[index]);
                continue;
            }
            let place = match &ended.told {
                Told::Applied { seq, .. } => (passed < *seq).then_some(*seq),
                Told::Refused(code) if is_of_no_place(code) => Some(passed),
                told @ (Told::Already { .. } | Told::Refused(_)) => {
                    let told = if let Told::Refused(code) = told { code } else { "already" };
                    let last = places.states.len() as u64 - 1;
                    (passed..=last).find(|&place| self.allowed(places, place, begun).iter().any(|code| code == told))
                }
            };
            match place {
                Some(place) => taken[index] = place,
                None => wrong.push(format!(
                    "there is no order in which this is true: {ended:?} of {begun:?}, begun when place {passed} of \
                     the chain had been seen"
                )),
            }
        }
    }

    /// What may be told where nothing changes, if this is decided behind this place.
    fn allowed(&self, places: &Places, place: u64, begun: &Begun) -> Vec<String> {
        let request = request(begun);
        let mut allowed = Vec::new();
        if let Some(key) = begun.key {
            if let Some(event) = places.keys.get(&key).filter(|event| event.seq <= place) {
                let is_same = event.request().is_some_and(|of| of.action.kind() == request.action.kind())
                    && event.transaction == request.action.transaction();
                return vec![if is_same { "already" } else { "idempotency_key_reused" }.to_owned()];
            }
            if self.key_owners.get(&key).is_some_and(|owner| *owner != begun.customer) {
                allowed.push("idempotency_key_reused".to_owned());
            }
        }
        let state = &places.states[place as usize];
        let own = request.action.transaction().and_then(|id| places.transaction(id, place));
        let foreign = request.action.transaction().and_then(|id| self.owners.get(&id));
        let foreign = foreign.filter(|(owner, _)| *owner != begun.customer).map(|(_, state)| *state);
        for known in [own].into_iter().chain(foreign.map(Some)) {
            let known = Known { state: known.as_ref(), reserved: false };
            match decide(self.config, state, known, &request) {
                Ok(Decision::Change(_)) => {}
                Ok(Decision::AlreadyApplied) => allowed.push("already".to_owned()),
                Err(Rejection::InsufficientFunds { available, .. }) => {
                    allowed.push(format!("insufficient:{}", available.steps()));
                }
                Err(rejection) => allowed.push(rejection.code().to_owned()),
            }
        }
        allowed
    }
}

fn is_of_no_place(code: &str) -> bool {
    ["transaction_pending", "request_in_progress", "rail_refused"].contains(&code)
}

fn request(begun: &Begun) -> Request {
    let (customer, transaction) = (CustomerId::new(begun.customer), TransactionId::new(begun.transaction));
    let amount = Amount::from_steps(begun.amount);
    let request = match begun.kind.as_str() {
        "deposit" => Request::deposit(customer, transaction, amount),
        "withdrawal" => Request::withdrawal(customer, transaction, amount),
        "dispute" => Request::dispute(customer, transaction),
        "resolve" => Request::resolve(customer, transaction),
        "chargeback" => Request::chargeback(customer, transaction),
        "unlock" => Request::unlock(customer),
        other => panic!("{other}"),
    };
    assert!(matches!(request.action, Action::Unlock) || request.action.transaction().is_some());
    request
}
