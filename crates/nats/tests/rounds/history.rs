//! What callers were told, held against the chains: per customer there must be one order of all answers in which each
//! is right, and which nobody can tell from the order in which they asked and were answered.
//!
//! A chain is that order, of the events. So each answer has a *place*: right behind some event, where it is true. An event
//! has its own place, and so has a read, by its head. A refusal may have several: everywhere the rules refuse like
//! that. Who asked after another had been answered must not have an earlier place; with the earliest possible place
//! for each, in the order in which they were asked, one that finds none shows that there is no such order.
//!
//! Whoever was not answered proves nothing here. What the chains say by themselves is checked elsewhere.

use bursar_engine::core::commit::{Outcome, Receipt, Terms};
use bursar_engine::core::rules::{Decision, Known, decide};
use bursar_engine::core::{
    AbortReason, ChainCheck, CustomerId, EventRef, EventStatus, Head, LedgerConfig, Rejection, Request, RequestKey,
    TransactionId, TransactionState,
};
use bursar_engine::store::ChainEntry;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What somebody was told.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A request.
    Outcome(Request, Terms, Outcome),
    /// A read of the customer.
    Head(Option<Head>),
    /// An operator, of an event that waited for a rail.
    Settled(EventRef, EventStatus),
}

/// A question with its answer, and when each was; by one clock.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) customer: CustomerId,
    pub(crate) asked_ns: u64,
    pub(crate) answered_ns: u64,
    pub(crate) answer: Answer,
}

impl Told {
    /// Whether a request with a key took effect, then or before.
    pub(crate) fn used_key(&self) -> bool {
        match &self.answer {
            Answer::Outcome(_, terms, Outcome::Applied(_) | Outcome::AlreadyApplied(_)) => terms.key.is_some(),
            Answer::Outcome(_, _, Outcome::Rejected(_)) | Answer::Head(_) | Answer::Settled(..) => false,
        }
    }
}

/// One chain, with what was true behind each event.
pub(crate) struct Chain {
    pub(crate) entries: Vec<ChainEntry>,
    /// From before the first event on.
    heads: Vec<Head>,
    /// The states of each transaction, each from an event on.
    states: HashMap<TransactionId, Vec<(u64, TransactionState)>>,
    keys: HashMap<RequestKey, u64>,
}

impl Chain {
    /// Follows a chain whose events are all closed; the error says what is wrong with it.
    pub(crate) fn follow(
        config: &LedgerConfig,
        customer: CustomerId,
        entries: Vec<ChainEntry>,
    ) -> Result<Self, String> {
        let mut check = ChainCheck::new(&config.digest(), customer);
        let mut heads = vec![check.head().clone()];
        let mut states: HashMap<TransactionId, Vec<(u64, TransactionState)>> = HashMap::new();
        let mut keys = HashMap::new();
        for ChainEntry { linked, status } in &entries {
            let (event, name) = (&linked.event, format!("customer {customer}, {linked:?}, {status:?}"));
            if *status == EventStatus::Started {
                return Err(format!("{name}: it is open"));
            }
            let known = event.transaction.and_then(|id| Some(states.get(&id)?.last()?.1));
            let state = check.follow(config, known, linked, status).map_err(|fault| format!("{name}: {fault}"))?;
            if let (Some(id), Some(state)) = (event.transaction, state) {
                states.entry(id).or_default().push((event.seq, state));
            }
            if let Some(key) = event.key.filter(|_| status.is_done())
                && keys.insert(key, event.seq).is_some()
            {
                return Err(format!("{name}: its key was used before"));
            }
            heads.push(check.head().clone());
        }
        Ok(Self { entries, heads, states, keys })
    }

    pub(crate) fn head(&self) -> &Head {
        &self.heads[self.entries.len()]
    }

    /// The state in effect of each transaction.
    pub(crate) fn states(&self) -> impl Iterator<Item = (TransactionId, TransactionState)> {
        self.states.iter().filter_map(|(id, states)| Some((*id, states.last()?.1)))
    }

    /// The event in effect that has each key.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (RequestKey, EventRef)> {
        self.keys.iter().map(|(key, seq)| (*key, self.entries[*seq as usize - 1].linked.reference()))
    }

    fn entry(&self, seq: u64) -> Option<&ChainEntry> {
        self.entries.get(usize::try_from(seq).ok()?.checked_sub(1)?)
    }

    /// What a request would hear behind an event; `None` where it would make an event.
    fn answer_at(&self, config: &LedgerConfig, place: usize, request: &Request, terms: &Terms) -> Option<Outcome> {
        let of_key = terms.key.and_then(|key| self.keys.get(&key)).filter(|seq| **seq <= place as u64);
        if let Some(used) = of_key.and_then(|seq| self.entry(*seq)) {
            let event = &used.linked.event;
            let same = event.kind == request.action.kind() && event.transaction == request.action.transaction();
            let reused = || Outcome::Rejected(Rejection::IdempotencyKeyReused { event: used.linked.reference() });
            return Some(if same { Outcome::AlreadyApplied(Some(Receipt::of(&used.linked))) } else { reused() });
        }
        let states = request.action.transaction().and_then(|id| self.states.get(&id)).map_or(&[][..], Vec::as_slice);
        let before = states.partition_point(|(seq, _)| *seq <= place as u64);
        let state = before.checked_sub(1).map(|newest| states[newest].1);
        let head = &self.heads[place];
        match decide(config, &head.state, Known { state: state.as_ref(), reserved: false }, request) {
            Err(rejection) => Some(Outcome::Rejected(rejection)),
            Ok(Decision::AlreadyApplied) => Some(Outcome::AlreadyApplied(None)),
            Ok(Decision::Change(change)) => {
                if let Some(expected) = terms.expected_seq.filter(|expected| *expected != head.seq) {
                    return Some(Outcome::Rejected(Rejection::SeqMismatch { expected, seq: head.seq }));
                }
                let least = terms.minimum_available?;
                let available = change.state.accounts.get(least.currency).available;
                let (currency, minimum) = (least.currency, least.amount);
                let below = Rejection::BelowMinimum { currency, minimum, available };
                (available < minimum).then_some(Outcome::Rejected(below))
            }
        }
    }

    /// The earliest place of an answer that is not before `floor`.
    fn place(&self, config: &LedgerConfig, floor: u64, answer: &Answer) -> Option<u64> {
        match answer {
            Answer::Outcome(request, terms, Outcome::Applied(receipt)) => {
                let ChainEntry { linked, status } = self.entry(receipt.event.seq)?;
                let event = &linked.event;
                let as_asked = event.kind == request.action.kind()
                    && event.transaction == request.action.transaction()
                    && event.key == terms.key
                    && terms.expected_seq.is_none_or(|expected| expected + 1 == event.seq)
                    && terms
                        .minimum_available
                        .is_none_or(|least| event.state.accounts.get(least.currency).available >= least.amount);
                let same = status.is_done() && *receipt == Receipt::of(linked);
                (same && as_asked && event.seq > floor).then_some(event.seq)
            }
            // The event is there, aborted, and it was made for this request.
            Answer::Outcome(request, _, Outcome::Rejected(Rejection::RailRefused { reason })) => {
                let later = self.entries.get(floor as usize..)?;
                let refused = later.iter().find(|ChainEntry { linked, status }| {
                    let by_rail = match status {
                        EventStatus::Aborted(AbortReason::TransactionConflict) => false,
                        EventStatus::Aborted(why) => why.text() == reason,
                        EventStatus::Started | EventStatus::Done | EventStatus::DoneByHand(_) => false,
                    };
                    let event = &linked.event;
                    by_rail && event.kind == request.action.kind() && event.transaction == request.action.transaction()
                });
                refused.map(|entry| entry.linked.event.seq)
            }
            // Another request with the key waits, or its event does: the key is not used yet. (Whether somebody else asked
            // under it is not known here; what waits may be refused in the end, and leave nothing.)
            Answer::Outcome(_, terms, Outcome::Rejected(Rejection::RequestInProgress)) => {
                terms.key.is_some_and(|key| self.keys.get(&key).is_none_or(|seq| *seq > floor)).then_some(floor)
            }
            Answer::Outcome(request, terms, outcome) => (floor as usize..self.heads.len())
                .find(|place| self.answer_at(config, *place, request, terms).as_ref() == Some(outcome))
                .map(|place| place as u64),
            Answer::Head(head) => {
                let place = head.as_ref().map_or(0, |head| head.seq);
                let there = self.heads.get(place as usize).filter(|_| place >= floor)?;
                let Some(head) = head else { return Some(0) };
                let open =
                    head.open.iter().all(|open| self.entry(open.event.seq).is_some_and(|entry| entry.linked == *open));
                (open && *there == Head { open: Vec::new(), ..head.clone() }).then_some(place)
            }
            // It may have been settled before that operator came.
            Answer::Settled(event, status) => {
                let entry = self.entry(event.seq)?;
                (entry.linked.reference() == *event && entry.status == *status).then_some(event.seq.max(floor))
            }
        }
    }
}

/// What is wrong with the answers to questions about one customer.
pub(crate) fn wrong_answers<'a>(config: &LedgerConfig, chain: &Chain, told: &[&'a Told]) -> Vec<(u64, &'a Told)> {
    let mut by_question = told.to_vec();
    by_question.sort_by_key(|told| told.asked_ns);
    let mut wrong = Vec::new();
    // Places of what is answered, by the time of the answer; each at least as late as the one before.
    let mut places: BTreeMap<u64, u64> = BTreeMap::new();
    let mut heard: HashSet<u64> = HashSet::new();
    for told in by_question {
        let floor = places.range(..told.asked_ns).map(|(_, place)| *place).next_back().unwrap_or(0);
        let place = chain.place(config, floor, &told.answer);
        let twice = match &told.answer {
            Answer::Outcome(_, _, Outcome::Applied(receipt)) => !heard.insert(receipt.event.seq),
            Answer::Outcome(..) | Answer::Head(_) | Answer::Settled(..) => false,
        };
        match place {
            Some(place) if !twice => {
                let before = places.range(..=told.answered_ns).map(|(_, place)| *place).next_back().unwrap_or(0);
                let place = place.max(before);
                places.insert(told.answered_ns, place);
                let mut later = places.range(told.answered_ns + 1..);
                let lower: Vec<u64> = later.by_ref().take_while(|(_, at)| **at < place).map(|(ns, _)| *ns).collect();
                for ns in lower {
                    places.insert(ns, place);
                }
            }
            Some(_) | None => wrong.push((floor, told)),
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_engine::core::{Amount, Currencies, Event, LinkedEvent, Policy, ReasonText};

    const CUSTOMER: CustomerId = CustomerId::new(1);

    fn config() -> LedgerConfig {
        LedgerConfig { ledger: [3; 16], policy: Policy::default(), currencies: Currencies::default() }
    }

    fn deposit(number: u64) -> Request {
        Request::deposit(CUSTOMER, TransactionId::new(u128::from(number)), Amount::from_steps(10))
    }

    /// Four deposits of 10, the third of which is aborted.
    fn chain() -> Chain {
        let mut head = Head::start(&config().digest(), CUSTOMER);
        let mut entries = Vec::new();
        for seq in 1..=4 {
            let Ok(Decision::Change(change)) = decide(&config(), &head.state, Known::default(), &deposit(seq)) else {
                panic!("a deposit is always possible")
            };
            let linked = LinkedEvent::new(Event::new(CUSTOMER, seq, seq, change, None), &head.link);
            let refused = EventStatus::Aborted(AbortReason::RailRefused(ReasonText::new("no")));
            let status = if seq == 3 { refused } else { EventStatus::Done };
            head.take(linked.clone(), &status);
            entries.push(ChainEntry { linked, status });
        }
        Chain::follow(&config(), CUSTOMER, entries).unwrap()
    }

    /// A deposit, and its dispute with a key.
    fn keyed_chain(key: RequestKey) -> Chain {
        let mut head = Head::start(&config().digest(), CUSTOMER);
        let mut entries = Vec::new();
        let dispute = Request::dispute(CUSTOMER, TransactionId::new(1));
        for (seq, request, key) in [(1, deposit(1), None), (2, dispute, Some(key))] {
            let known = entries.last().and_then(|entry: &ChainEntry| entry.linked.event.transaction_state());
            let known = Known { state: known.as_ref(), reserved: false };
            let Ok(Decision::Change(change)) = decide(&config(), &head.state, known, &request) else {
                panic!("both are possible")
            };
            let event = Event { key, ..Event::new(CUSTOMER, seq, seq, change, None) };
            let linked = LinkedEvent::new(event, &head.link);
            head.take(linked.clone(), &EventStatus::Done);
            entries.push(ChainEntry { linked, status: EventStatus::Done });
        }
        Chain::follow(&config(), CUSTOMER, entries).unwrap()
    }

    fn told(asked_ns: u64, answered_ns: u64, answer: Answer) -> Told {
        Told { customer: CUSTOMER, asked_ns, answered_ns, answer }
    }

    fn applied(chain: &Chain, seq: u64) -> Answer {
        let receipt = Receipt::of(&chain.entries[seq as usize - 1].linked);
        Answer::Outcome(deposit(seq), Terms::default(), Outcome::Applied(receipt))
    }

    /// A withdrawal that is refused with so much available.
    fn poor(available: i64) -> Answer {
        let asked = Amount::from_steps(1_000);
        let request = Request::withdrawal(CUSTOMER, TransactionId::new(99), asked);
        let Request { action: bursar_engine::core::Action::Withdrawal(movement), .. } = request else {
            panic!("it is a withdrawal")
        };
        let available = Amount::from_steps(available);
        let rejection = Rejection::InsufficientFunds { currency: movement.currency, asked, available };
        Answer::Outcome(request, Terms::default(), Outcome::Rejected(rejection))
    }

    fn seen(chain: &Chain, place: usize) -> Answer {
        Answer::Head(Some(chain.heads[place].clone()))
    }

    #[test]
    fn a_key_is_in_use_until_its_event_is_closed() {
        let key = |text: &[u8]| RequestKey::of_text(&config().digest(), text).unwrap();
        let chain = keyed_chain(key(b"one"));
        let dispute = Request::dispute(CUSTOMER, TransactionId::new(1));
        let answer = |key, outcome| Answer::Outcome(dispute, Terms { key: Some(key), ..Terms::default() }, outcome);
        let in_use = |key| answer(key, Outcome::Rejected(Rejection::RequestInProgress));
        let done = answer(key(b"one"), Outcome::Applied(Receipt::of(&chain.entries[1].linked)));
        let none = Answer::Outcome(dispute, Terms::default(), Outcome::Rejected(Rejection::RequestInProgress));
        let table = [
            ("before it is closed", vec![told(1, 2, in_use(key(b"one"))), told(1, 9, done.clone())], 0),
            ("after", vec![told(1, 2, done.clone()), told(3, 9, in_use(key(b"one")))], 1),
            ("of a request that came to nothing", vec![told(1, 2, in_use(key(b"other")))], 0),
            ("no key", vec![told(1, 2, none)], 1),
        ];
        for (name, history, wrong_count) in table {
            let history: Vec<&Told> = history.iter().collect();
            assert_eq!(wrong_answers(&config(), &chain, &history).len(), wrong_count, "{name}");
        }
    }

    #[test]
    fn a_history_is_right_if_there_is_an_order_for_it() {
        let chain = chain();
        let mut other = chain.heads[2].clone();
        other.link = chain.heads[1].link;
        let refused = |reason: &str| Rejection::RailRefused { reason: reason.to_owned() };
        let refused = |reason| Answer::Outcome(deposit(3), Terms::default(), Outcome::Rejected(refused(reason)));
        let expecting = |expected, seq| {
            let terms = Terms { expected_seq: Some(expected), ..Terms::default() };
            let rejection = Rejection::SeqMismatch { expected, seq };
            Answer::Outcome(deposit(7), terms, Outcome::Rejected(rejection))
        };
        let again = |number| Answer::Outcome(deposit(number), Terms::default(), Outcome::AlreadyApplied(None));
        let hand = |status| Answer::Settled(chain.entries[1].linked.reference(), status);
        let table: Vec<(&str, Vec<Told>, usize)> = vec![
            ("one after the other", (1..=2).map(|seq| told(seq * 10, seq * 10 + 5, applied(&chain, seq))).collect(), 0),
            ("at once, the other way round", vec![told(1, 9, applied(&chain, 2)), told(2, 8, applied(&chain, 1))], 0),
            (
                "answered, and then one before it",
                vec![told(1, 2, applied(&chain, 2)), told(3, 4, applied(&chain, 1))],
                1,
            ),
            ("two heard of one event", vec![told(1, 9, applied(&chain, 1)), told(1, 9, applied(&chain, 1))], 1),
            ("an aborted event for an applied one", vec![told(1, 2, applied(&chain, 3))], 1),
            ("refused by what was true meanwhile", vec![told(1, 2, applied(&chain, 1)), told(3, 9, poor(20))], 0),
            ("refused by what was gone", vec![told(1, 2, applied(&chain, 2)), told(3, 9, poor(10))], 1),
            ("refused by what was never true", vec![told(1, 9, poor(15))], 1),
            ("refused by what was not true yet", vec![told(1, 2, poor(30)), told(3, 4, applied(&chain, 4))], 1),
            ("read while it was written", vec![told(1, 9, applied(&chain, 1)), told(2, 3, seen(&chain, 0))], 0),
            ("read what was old", vec![told(1, 2, applied(&chain, 2)), told(3, 4, seen(&chain, 1))], 1),
            ("read back and forth", vec![told(1, 2, seen(&chain, 4)), told(3, 4, seen(&chain, 3))], 1),
            ("read what never was", vec![told(1, 2, Answer::Head(Some(other)))], 1),
            ("read nothing, at first", vec![told(1, 2, Answer::Head(None))], 0),
            ("read nothing, later", vec![told(1, 2, applied(&chain, 1)), told(3, 4, Answer::Head(None))], 1),
            ("refused by a rail", vec![told(1, 2, refused("no")), told(3, 4, applied(&chain, 4))], 0),
            ("refused by a rail for another reason", vec![told(1, 2, refused("never"))], 1),
            ("refused by a rail, too late", vec![told(1, 2, applied(&chain, 4)), told(3, 4, refused("no"))], 1),
            ("expected another event", vec![told(1, 2, applied(&chain, 1)), told(3, 4, expecting(9, 2))], 0),
            ("expected, by an old view", vec![told(1, 2, applied(&chain, 2)), told(3, 4, expecting(9, 1))], 1),
            ("applied before", vec![told(1, 2, again(1))], 0),
            ("applied before, and not yet", vec![told(1, 2, again(4)), told(3, 4, applied(&chain, 2))], 1),
            ("applied before, and never", vec![told(1, 2, again(3))], 1),
            ("settled otherwise", vec![told(1, 2, hand(EventStatus::DoneByHand(ReasonText::new("seen"))))], 1),
            ("settled late", vec![told(1, 2, applied(&chain, 4)), told(3, 4, hand(EventStatus::Done))], 0),
            (
                "settled, and a read before it",
                vec![told(1, 2, hand(EventStatus::Done)), told(3, 4, seen(&chain, 1))],
                1,
            ),
        ];
        for (name, history, wrong_count) in table {
            let history: Vec<&Told> = history.iter().collect();
            let wrong = wrong_answers(&config(), &chain, &history);
            assert_eq!(wrong.len(), wrong_count, "{name}: {wrong:?}");
        }
    }

    #[test]
    fn a_chain_with_an_open_event_or_another_content_is_not_followed() {
        let mut entries = chain().entries;
        entries[1].linked.event.amount = Amount::from_steps(11);
        assert!(Chain::follow(&config(), CUSTOMER, entries).is_err());
        let mut entries = chain().entries;
        entries[3].status = EventStatus::Started;
        assert!(Chain::follow(&config(), CUSTOMER, entries).is_err_and(|what| what.contains("open")));
    }
}
