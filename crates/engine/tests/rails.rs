//! Rails: one customer waits for its bank while all others go on, and no payment is lost or made twice.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::core::commit::{Asking, Limits, Outcome, RailAnswer, RailCall, Routes, Settlement};
use bursar_engine::core::{AbortReason, EventId, EventStatus, LinkedEvent, RailId, ReasonText, Rejection, Request};
use bursar_engine::driver::SourceRow;

use bursar_engine::embedded::{EmbeddedOptions, VerifyOptions, verify};
use bursar_engine::store::{MemoryStore, ReadRange, SourceId};
use bursar_engine::{Contradiction, Ledger, LedgerOptions, Rail, RailReply, SettleError, SubmitError, Submitted};
use common::{audit, config, copy_of, customer, deposit, directory, dispute, transaction, withdrawal};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};

/// What a bank does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    /// Acts and says so.
    Act,
    /// Acts, and its answer is lost.
    ActAndLoseTheAnswer,
    /// Refuses, for good.
    Refuse,
    /// Cannot tell.
    Unknown,
    /// Drops the reply without a word.
    Silent,
    /// Does nothing before it is told to.
    Hold,
}

/// What a bank's book says of an event id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Booked {
    Paid,
    Refused,
}

#[derive(Debug, Default)]
struct Books {
    /// What comes next; the last one stays.
    script: VecDeque<Script>,
    book: BTreeMap<EventId, Booked>,
    calls: Vec<RailCall>,
    held: Vec<(RailCall, RailReply)>,
    contradictions: Vec<Contradiction>,
}

/// A bank with a script and a book of its own. It outlives ledgers.
#[derive(Debug, Default)]
struct Bank {
    books: Mutex<Books>,
    called: Condvar,
    /// Copied whenever the bank is called: what is on the disk at that moment.
    watched: Mutex<Option<PathBuf>>,
    copies: Mutex<Vec<(EventId, tempfile::TempDir)>>,
}

impl Bank {
    fn new(script: &[Script]) -> Arc<Self> {
        let books = Mutex::new(Books { script: script.iter().copied().collect(), ..Books::default() });
        Arc::new(Self { books, ..Self::default() })
    }

    fn set_script(&self, script: &[Script]) {
        self.books.lock().unwrap().script = script.iter().copied().collect();
    }

    fn watch(&self, path: &Path) {
        *self.watched.lock().unwrap() = Some(path.to_owned());
    }

    /// Waits until the bank was called so often.
    fn wait_for_calls(&self, count: usize) -> Vec<RailCall> {
        let books = self.books.lock().unwrap();
        self.called.wait_while(books, |books| books.calls.len() < count).unwrap().calls.clone()
    }

    /// Waits until the bank was told so often that it contradicts an operator.
    fn wait_for_contradictions(&self, count: usize) -> Vec<Contradiction> {
        let books = self.books.lock().unwrap();
        self.called.wait_while(books, |books| books.contradictions.len() < count).unwrap().contradictions.clone()
    }

    /// Lets go of the oldest call that is held.
    fn release(&self, script: Script) {
        let (call, reply) = self.books.lock().unwrap().held.remove(0);
        self.act(script, call, reply);
    }

    /// The bank's business: once per event id, whatever is asked how often.
    fn book(&self, id: EventId, wanted: Booked) -> RailAnswer {
        let mut books = self.books.lock().unwrap();
        let booked = *books.book.entry(id).or_insert(wanted);
        drop(books);
        match booked {
            Booked::Paid => RailAnswer::Done,
            Booked::Refused => RailAnswer::Refused(AbortReason::RailRefused(ReasonText::new("account closed"))),
        }
    }

    fn act(&self, script: Script, call: RailCall, reply: RailReply) {
        let id = call.event.id();
        assert_eq!(reply.event(), id);
        match script {
            Script::Act => reply.answer(self.book(id, Booked::Paid)),
            Script::ActAndLoseTheAnswer => {
                self.book(id, Booked::Paid);
                reply.answer(RailAnswer::Unknown);
            }
            Script::Refuse => reply.answer(self.book(id, Booked::Refused)),
            Script::Unknown => reply.answer(RailAnswer::Unknown),
            Script::Silent => drop(reply),
            Script::Hold => self.books.lock().unwrap().held.push((call, reply)),
        }
    }

    fn paid(&self) -> usize {
        self.books.lock().unwrap().book.values().filter(|booked| **booked == Booked::Paid).count()
    }
}

impl Rail for Bank {
    fn call(&self, call: RailCall, reply: RailReply) {
        if let Some(path) = &*self.watched.lock().unwrap() {
            self.copies.lock().unwrap().push((call.event.id(), copy_of(path)));
        }
        let script = {
            let mut books = self.books.lock().unwrap();
            if books.script.len() > 1 { books.script.pop_front() } else { books.script.front().copied() }
        };
        self.act(script.unwrap_or(Script::Act), call.clone(), reply);
        // Told last: whoever waits for the call finds the bank's answer given, or held.
        self.books.lock().unwrap().calls.push(call);
        self.called.notify_all();
    }

    fn contradicted(&self, contradiction: &Contradiction) {
        self.books.lock().unwrap().contradictions.push(contradiction.clone());
        self.called.notify_all();
    }
}

fn rail_id() -> RailId {
    RailId::new(7).unwrap()
}

fn options(bank: &Arc<Bank>) -> LedgerOptions {
    let routes = Routes { withdrawal: Some(rail_id()), ..Routes::default() };
    let limits = Limits { ask_again_ms: 1, ask_again_ms_max: 5, ..Limits::default() };
    LedgerOptions { routes, limits, ..LedgerOptions::default() }.with_rail(rail_id(), bank.clone())
}

/// Submits without waiting; the answers come later.
fn submit(ledger: &Ledger, requests: Vec<Request>) -> Receiver<Vec<Submitted>> {
    let (told, outcomes) = channel();
    // If nobody listens any more, the answer is of no use.
    ledger.submit_then(requests, move |submitted| drop(told.send(submitted))).unwrap();
    outcomes
}

fn applied(submitted: &Submitted) -> u64 {
    match submitted {
        Ok(Outcome::Applied(receipt)) => receipt.event.seq,
        other => panic!("{other:?}"),
    }
}

/// The demonstration: one customer waits, thousands do not.
fn one_waits_others_go_on(ledger: &Ledger, bank: &Bank) {
    ledger.submit(deposit(1, 1, 1_000)).unwrap();
    let first = submit(ledger, vec![withdrawal(1, 2, 100)]);
    bank.wait_for_calls(1);
    let behind: Vec<_> = (0..20).map(|n| submit(ledger, vec![deposit(1, 100 + n, 1)])).collect();
    // A dispute of the transaction whose event is open waits as well, and is decided on what comes of it.
    let last = submit(ledger, vec![dispute(1, 1), deposit(1, 200, 1)]);
    for batch in 0..25 {
        let requests = (0..200).map(|n| deposit(1_000 + n, (batch << 20) | (n + 5_000), 5)).collect();
        let submitted = ledger.submit_batch(requests).unwrap();
        assert!(submitted.iter().all(|one| applied(one) == u64::try_from(batch).unwrap() + 1));
    }
    assert!(first.try_recv().is_err(), "nobody has answered yet");
    assert!(behind.iter().all(|waiting| waiting.try_recv().is_err()), "they wait in order");
    assert!(last.try_recv().is_err());
    let open = ledger.open_events().unwrap();
    assert_eq!(open.iter().map(|event| event.event.customer).collect::<Vec<_>>(), [customer(1)]);
    let head = ledger.customer(customer(1)).unwrap().unwrap();
    assert_eq!((head.seq, head.open.len()), (1, 1));
    assert_eq!(head.state.accounts.iter().next().unwrap().1.available.steps(), 1_000);
    bank.release(Script::Act);
    assert_eq!(applied(&first.recv().unwrap()[0]), 2);
    for (seq, waiting) in (3..).zip(behind) {
        assert_eq!(applied(&waiting.recv().unwrap()[0]), seq);
    }
    let last = last.recv().unwrap();
    assert_eq!((applied(&last[0]), applied(&last[1])), (23, 24));
    assert_eq!(ledger.open_events().unwrap(), Vec::new());
    audit(ledger);
}

#[test]
fn one_customer_waits_and_thousands_go_on() {
    common::within_minutes(|| {
        let (directory, bank) = (directory(), Bank::new(&[Script::Hold]));
        one_waits_others_go_on(&Ledger::create(directory.path(), &config(), options(&bank)).unwrap(), &bank);
        let bank = Bank::new(&[Script::Hold]);
        one_waits_others_go_on(&Ledger::in_memory(&config(), options(&bank)).unwrap(), &bank);
        let (config, bank) = (config(), Bank::new(&[Script::Hold]));
        let store = Arc::new(MemoryStore::new(&config).with_split_batches());
        one_waits_others_go_on(&Ledger::with_stores(config, store.clone(), store, options(&bank)).unwrap(), &bank);
    });
}

#[test]
fn too_many_behind_one_customer_is_that_customers_affair() {
    common::within_minutes(|| {
        let bank = Bank::new(&[Script::Hold]);
        let mut options = options(&bank);
        options.limits.waiting_per_customer_max = 5;
        let ledger = Ledger::in_memory(&config(), options).unwrap();
        ledger.submit(deposit(1, 1, 1_000)).unwrap();
        let first = submit(&ledger, vec![withdrawal(1, 2, 100)]);
        bank.wait_for_calls(1);
        let behind = submit(&ledger, (0..5).map(|n| deposit(1, 100 + n, 1)).collect());
        let refused = ledger.submit(deposit(1, 300, 1));
        let Err(SubmitError::CustomerBusy(busy)) = &refused else { panic!("{refused:?}") };
        assert_eq!((busy.customer, refused.as_ref().unwrap_err().code()), (customer(1), "customer_busy"));
        let others = ledger.submit_batch((0..1_000).map(|n| deposit(2 + n, 1_000 + n, 1)).collect()).unwrap();
        assert!(others.iter().all(|one| applied(one) == 1));
        bank.release(Script::Act);
        assert_eq!(applied(&first.recv().unwrap()[0]), 2);
        assert_eq!(behind.recv().unwrap().iter().map(applied).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
        // What was refused was not taken, and its id is free.
        assert_eq!(applied(&ledger.submit(deposit(1, 300, 1))), 8);
    });
}

/// At the moment the bank is called, a power cut would leave the event on the disk, open, under the same id.
#[test]
fn the_event_is_durable_before_the_rail_is_called() {
    common::within_minutes(|| {
        let (directory, bank) = (directory(), Bank::new(&[Script::Act]));
        let ledger = Ledger::create(directory.path(), &config(), options(&bank)).unwrap();
        ledger.submit(deposit(1, 1, 1_000)).unwrap();
        bank.watch(directory.path());
        for n in 0..5 {
            applied(&ledger.submit(withdrawal(1, 10 + n, 10)));
        }
        let copies = std::mem::take(&mut *bank.copies.lock().unwrap());
        assert_eq!(copies.len(), 5);
        for (id, copy) in copies {
            // The bank of the copy never answers: nothing closes the event.
            let silent = Bank::new(&[Script::Hold]);
            let (copied, _) = Ledger::open(copy.path(), options(&silent)).unwrap();
            let open = copied.open_events().unwrap();
            assert_eq!(open.iter().map(LinkedEvent::id).collect::<Vec<_>>(), [id]);
            assert_eq!(silent.wait_for_calls(1)[0].event.id(), id);
        }
    });
}

#[test]
fn a_refusal_is_in_the_chain_and_nothing_else_has_changed() {
    common::within_minutes(|| {
        let (directory, bank) = (directory(), Bank::new(&[Script::Refuse, Script::Act]));
        let ledger = Ledger::create(directory.path(), &config(), options(&bank)).unwrap();
        ledger.submit(deposit(1, 1, 1_000)).unwrap();
        let before = ledger.customer(customer(1)).unwrap().unwrap();
        let refused = ledger.submit(withdrawal(1, 2, 100)).unwrap();
        let expected = Rejection::RailRefused { reason: "account closed".to_owned() };
        assert_eq!(refused, Outcome::Rejected(expected));
        let after = ledger.customer(customer(1)).unwrap().unwrap();
        assert_eq!((after.seq, &after.state), (2, &before.state));
        assert_ne!(after.link, before.link);
        assert_eq!(ledger.transaction(transaction(2)).unwrap(), None);
        // The id is free: the same request again is a new event, and a new key for the bank.
        assert_eq!(applied(&ledger.submit(withdrawal(1, 2, 100))), 3);
        drop(ledger);
        let (ledger, _) = Ledger::open(directory.path(), options(&bank)).unwrap();
        let chain = ledger.chain(customer(1), ReadRange::ALL).unwrap();
        let reason = AbortReason::RailRefused(ReasonText::new("account closed"));
        let statuses: Vec<_> = chain.iter().map(|entry| entry.status.clone()).collect();
        assert_eq!(statuses, [EventStatus::Done, EventStatus::Aborted(reason), EventStatus::Done]);
        audit(&ledger);
        assert_eq!(bank.paid(), 1);
    });
}

#[test]
fn a_rail_that_cannot_tell_is_asked_again_with_the_same_id() {
    common::within_minutes(|| {
        for unclear in [Script::Unknown, Script::Silent, Script::ActAndLoseTheAnswer] {
            let script = [unclear, unclear, unclear, Script::Act];
            let bank = Bank::new(&script);
            let ledger = Ledger::in_memory(&config(), options(&bank)).unwrap();
            ledger.submit(deposit(1, 1, 1_000)).unwrap();
            assert_eq!(applied(&ledger.submit(withdrawal(1, 2, 100))), 2);
            let calls = bank.wait_for_calls(4);
            let ids: Vec<_> = calls.iter().map(|call| call.event.id()).collect();
            assert!(ids.iter().all(|id| *id == ids[0]), "one event, one key");
            assert_eq!(calls.iter().map(|call| call.attempt).collect::<Vec<_>>(), [0, 1, 2, 3]);
            assert_eq!(bank.paid(), 1);
        }
    });
}

/// An operator settles what a rail will never tell: once, with a reason that survives, and whoever waits goes on.
#[test]
fn what_a_rail_cannot_tell_is_settled_by_hand() {
    common::within_minutes(|| {
        let reason = || ReasonText::new("found on the bank's statement");
        let (directory, bank) = (directory(), Bank::new(&[Script::Unknown]));
        let ledger = Ledger::create(directory.path(), &config(), options(&bank)).unwrap();
        ledger.submit_batch(vec![deposit(1, 1, 1_000), deposit(2, 2, 1_000)]).unwrap();
        let [paid, unpaid] =
            [(1, 3), (2, 4)].map(|(of, id)| submit(&ledger, vec![withdrawal(of, id, 100), deposit(of, id + 10, 1)]));
        bank.wait_for_calls(6);
        let pending = ledger.pending().unwrap();
        assert_eq!(pending.len(), 2);
        assert!(pending.iter().all(|one| one.is_configured && one.pending.call_count > 0));
        assert!(pending.iter().all(|one| one.pending.waiting_count == 1 && one.pending.asking != Asking::Stopped));
        let id_of = |of| {
            let found = pending.iter().find(|one| one.pending.linked.event.customer == customer(of)).unwrap();
            found.pending.linked.id()
        };
        let done = ledger.settle(id_of(1), Settlement::Done(reason())).unwrap();
        assert_eq!((&done.status, done.is_repeat), (&EventStatus::DoneByHand(reason()), false));
        assert_eq!(applied(&paid.recv().unwrap()[0]), 2);
        let aborted = ledger.settle(id_of(2), Settlement::Aborted(reason())).unwrap();
        assert_eq!(aborted.status, EventStatus::Aborted(AbortReason::Operator(reason())));
        let heard = unpaid.recv().unwrap();
        assert!(matches!(heard[0], Ok(Outcome::Rejected(Rejection::RailRefused { .. }))), "{heard:?}");
        // Once more is no error, and changes no reason; otherwise is one, and says how it is.
        let again = ledger.settle(id_of(1), Settlement::Done(ReasonText::new("again"))).unwrap();
        assert_eq!((again.status, again.is_repeat), (EventStatus::DoneByHand(reason()), true));
        let other = ledger.settle(id_of(1), Settlement::Aborted(reason())).unwrap_err();
        assert!(matches!(other, SettleError::ClosedOtherwise { event, .. } if event == done.event), "{other}");
        let unknown = ledger.settle(EventId::from_first_bits(1), Settlement::Done(reason())).unwrap_err();
        assert!(matches!(unknown, SettleError::NotOpen));
        assert_eq!(ledger.pending().unwrap(), []);
        audit(&ledger);
        drop(ledger);
        let (ledger, _) = Ledger::open(directory.path(), options(&bank)).unwrap();
        // Nor does a restart change what is said of it. What its rail has settled is another matter, and so is what never
        // had one.
        let again = ledger.settle(id_of(1), Settlement::Done(ReasonText::new("again"))).unwrap();
        assert_eq!((again.event, again.status, again.is_repeat), (done.event, EventStatus::DoneByHand(reason()), true));
        let again = ledger.settle(id_of(2), Settlement::Aborted(ReasonText::new("again"))).unwrap();
        assert_eq!((again.event, again.status, again.is_repeat), (aborted.event, aborted.status.clone(), true));
        for (of, other) in [(1, Settlement::Aborted(reason())), (2, Settlement::Done(reason()))] {
            let told = ledger.settle(id_of(of), other).unwrap_err();
            assert!(matches!(told, SettleError::ClosedOtherwise { event, .. } if event.id == id_of(of)), "{told}");
        }
        let never_open = ledger.chain(customer(1), ReadRange::ALL).unwrap()[0].linked.id();
        for unknown in [EventId::from_first_bits(1), never_open] {
            let told = ledger.settle(unknown, Settlement::Done(reason())).unwrap_err();
            assert!(matches!(told, SettleError::NotOpen), "{told}");
        }
        bank.set_script(&[Script::Act]);
        let paid = submit(&ledger, vec![withdrawal(1, 5, 100)]).recv().unwrap();
        assert_eq!(applied(&paid[0]), 4);
        let by_rail = ledger.chain(customer(1), ReadRange::ALL).unwrap()[3].linked.reference();
        drop(ledger);
        let (ledger, _) = Ledger::open(directory.path(), options(&bank)).unwrap();
        let told = ledger.settle(by_rail.id, Settlement::Done(reason())).unwrap_err();
        assert!(matches!(told, SettleError::ClosedOtherwise { event, .. } if event == by_rail), "{told}");
        let statuses = |of| -> Vec<_> {
            let chain = ledger.chain(customer(of), ReadRange::ALL).unwrap();
            chain.into_iter().map(|entry| entry.status).collect()
        };
        assert_eq!(
            statuses(1),
            [EventStatus::Done, EventStatus::DoneByHand(reason()), EventStatus::Done, EventStatus::Done]
        );
        assert_eq!(statuses(2)[1], EventStatus::Aborted(AbortReason::Operator(reason())));
        let head = ledger.customer(customer(1)).unwrap().unwrap();
        assert_eq!(head.state.accounts.iter().next().unwrap().1.available.steps(), 801);
        audit(&ledger);
        ledger.close().unwrap();
        for only in [None, Some(customer(1)), Some(customer(2))] {
            let options = VerifyOptions { only, ..VerifyOptions::default() };
            assert!(verify(directory.path(), &options, &mut |_| {}).unwrap().is_sound(), "{only:?}");
        }
    });
}

/// The story: who asked right after the opening was told that nothing waits, since what was found open had not been
/// looked at yet; and an operator that there was nothing to settle.
#[test]
fn what_is_found_open_can_be_settled_at_once() {
    common::within_minutes(|| {
        let (directory, bank) = (directory(), Bank::new(&[Script::Hold]));
        let ledger = Ledger::create(directory.path(), &config(), options(&bank)).unwrap();
        ledger.submit_batch(vec![deposit(1, 1, 1_000), deposit(2, 2, 1_000)]).unwrap();
        let _unanswered = [(1, 3), (2, 4)].map(|(of, id)| submit(&ledger, vec![withdrawal(of, id, 100)]));
        let calls = bank.wait_for_calls(2);
        drop(ledger);
        // Without rails: a command that calls nobody.
        for call in calls {
            let (ledger, _) = Ledger::open(directory.path(), LedgerOptions::default()).unwrap();
            ledger.settle(call.event.id(), Settlement::Aborted(ReasonText::new("never sent"))).unwrap();
            drop(ledger);
            let (ledger, _) = Ledger::open(directory.path(), LedgerOptions::default()).unwrap();
            let left = ledger.pending().unwrap();
            assert!(left.iter().all(|one| !one.is_configured && one.pending.linked.id() != call.event.id()));
            assert_eq!(left.len(), ledger.open_events().unwrap().len());
        }
    });
}

/// Rail and operator close the same event at the same moment: one is first, and both chain and operator say which.
#[test]
fn whoever_closes_first_wins() {
    common::within_minutes(|| {
        let bank = Bank::new(&[Script::Hold]);
        let ledger = Ledger::in_memory(&config(), options(&bank)).unwrap();
        ledger.submit(deposit(1, 1, 1_000_000)).unwrap();
        let mut by_hand = 0;
        for round in 0..200 {
            let outcomes = submit(&ledger, vec![withdrawal(1, 10 + round, 1)]);
            let event = bank.wait_for_calls(round as usize + 1).last().unwrap().event.id();
            let settled = std::thread::scope(|scope| {
                let operator = scope.spawn(|| ledger.settle(event, Settlement::Aborted(ReasonText::new("lost"))));
                bank.release(Script::Act);
                operator.join().unwrap()
            });
            let heard = outcomes.recv().unwrap().pop().unwrap().unwrap();
            match settled {
                Ok(settled) => {
                    assert!(!settled.is_repeat && matches!(heard, Outcome::Rejected(_)), "{heard:?}");
                    by_hand += 1;
                }
                Err(SettleError::ClosedOtherwise { status, .. }) => {
                    assert_eq!(status, EventStatus::Done);
                    assert!(matches!(heard, Outcome::Applied(_)), "{heard:?}");
                }
                Err(other) => panic!("{other}"),
            }
        }
        let chain = ledger.chain(customer(1), ReadRange::ALL).unwrap();
        let aborted = chain.iter().filter(|entry| matches!(entry.status, EventStatus::Aborted(_))).count();
        assert_eq!((chain.len(), aborted), (201, by_hand));
        // The bank has acted each time: where the operator was first, it says otherwise afterwards.
        let contradictions = bank.wait_for_contradictions(by_hand);
        let told: Vec<_> = contradictions.into_iter().map(|one| (one.event, one.settled, one.answer)).collect();
        let aborted = chain.into_iter().filter(|entry| matches!(entry.status, EventStatus::Aborted(_)));
        let expected: Vec<_> =
            aborted.map(|entry| (entry.linked.reference(), entry.status, RailAnswer::Done)).collect();
        assert_eq!(told, expected);
        assert_eq!(ledger.figures().rail_contradictions, by_hand as u64);
        audit(&ledger);
    });
}

/// An operator has settled what a rail answers only afterwards: where it says otherwise, somebody has to look.
#[test]
fn a_rail_that_contradicts_an_operator_is_noticed() {
    common::within_minutes(|| {
        let bank = Bank::new(&[Script::Hold]);
        let ledger = Ledger::in_memory(&config(), options(&bank)).unwrap();
        let reason = || ReasonText::new("by phone");
        let done = || Settlement::Done(reason());
        let aborted = || Settlement::Aborted(reason());
        let table = [
            (done(), Script::Act, false),
            (done(), Script::Unknown, false),
            (aborted(), Script::Refuse, false),
            (aborted(), Script::Silent, false),
            (done(), Script::Refuse, true),
            (aborted(), Script::Act, true),
        ];
        let mut expected = Vec::new();
        for ((settlement, script, contradicts), of) in table.into_iter().zip(1u128..) {
            ledger.submit(deposit(of, of, 1_000)).unwrap();
            let heard = submit(&ledger, vec![withdrawal(of, 100 + of, 100)]);
            bank.wait_for_calls(usize::try_from(of).unwrap());
            let event = ledger.open_events().unwrap()[0].reference();
            ledger.settle(event.id, settlement.clone()).unwrap();
            bank.release(script);
            heard.recv().unwrap();
            if contradicts {
                let answer = bank.book(event.id, Booked::Paid);
                expected.push(Contradiction { event, settled: settlement.status(), answer });
            }
        }
        // In the order of the answers: none was told before that is not expected.
        assert_eq!(bank.wait_for_contradictions(expected.len()), expected);
        assert_eq!(ledger.figures().rail_contradictions, 2);
        audit(&ledger);
    });
}

/// Answers come twice, late, and to ledgers that are gone; and a rail may be missing at one opening.
#[test]
fn stray_answers_change_nothing() {
    common::within_minutes(|| {
        let (directory, bank) = (directory(), Bank::new(&[Script::Hold]));
        let ledger = Ledger::create(directory.path(), &config(), options(&bank)).unwrap();
        ledger.submit(deposit(1, 1, 1_000)).unwrap();
        let heard = submit(&ledger, vec![withdrawal(1, 2, 100)]);
        bank.wait_for_calls(1);
        ledger.close().unwrap();
        assert!(matches!(heard.recv().unwrap()[0], Err(SubmitError::Closed)));
        let lost = LedgerOptions { rails: BTreeMap::new(), ..options(&bank) };
        let (ledger, _) = Ledger::open(directory.path(), lost).unwrap();
        assert_eq!(ledger.open_events().unwrap().len(), 1, "nobody knows this rail");
        let waiting = submit(&ledger, vec![deposit(1, 3, 5)]);
        applied(&ledger.submit(deposit(2, 4, 5)));
        assert!(waiting.try_recv().is_err());
        drop(ledger);
        assert!(matches!(waiting.recv().unwrap()[0], Err(SubmitError::Closed)));
        let (ledger, _) = Ledger::open(directory.path(), options(&bank)).unwrap();
        bank.wait_for_calls(2);
        let waiting = submit(&ledger, vec![deposit(1, 3, 5)]);
        // The answer to the first call, by a reply whose ledger is gone: the second call's counts, and is the same.
        bank.release(Script::Act);
        assert!(waiting.try_recv().is_err());
        bank.release(Script::Act);
        assert_eq!(applied(&waiting.recv().unwrap()[0]), 3);
        assert_eq!(ledger.submit(withdrawal(1, 2, 100)).unwrap(), Outcome::AlreadyApplied(None));
        assert_eq!((bank.paid(), bank.wait_for_calls(0).len()), (1, 2));
        audit(&ledger);
    });
}

/// What the rail cannot tell stays open over any number of restarts: the customer is locked and visible as such,
/// the money neither released nor sent twice.
#[test]
fn an_open_event_outlives_restarts() {
    common::within_minutes(|| {
        let (directory, bank) = (directory(), Bank::new(&[Script::Unknown]));
        let ledger = Ledger::create(directory.path(), &config(), options(&bank)).unwrap();
        ledger.submit(deposit(1, 1, 1_000)).unwrap();
        let heard = submit(&ledger, vec![withdrawal(1, 2, 100)]);
        let id = bank.wait_for_calls(1)[0].event.id();
        let mut ledger = Some(ledger);
        for round in 0..6 {
            if round % 2 == 0 {
                drop(ledger.take());
            } else {
                ledger.take().unwrap().close().unwrap();
            }
            let asked = bank.wait_for_calls(0).len();
            let (opened, _) = Ledger::open(directory.path(), options(&bank)).unwrap();
            let calls = bank.wait_for_calls(asked + 2);
            assert!(calls.iter().all(|call| call.event.id() == id));
            assert!(calls[asked].attempt >= 1, "nobody knows whether it was asked before");
            assert_eq!(opened.open_events().unwrap()[0].id(), id);
            let view = opened.transaction(transaction(2)).unwrap().unwrap();
            assert_eq!((view.state, view.pending.map(|pending| pending.event.id)), (None, Some(id)));
            assert_eq!(opened.customer(customer(1)).unwrap().unwrap().seq, 1);
            ledger = Some(opened);
        }
        assert!(matches!(heard.recv().unwrap()[0], Err(SubmitError::Closed)));
        bank.set_script(&[Script::Act]);
        let ledger = ledger.take().unwrap();
        assert_eq!(applied(&ledger.submit(deposit(1, 3, 1))), 3);
        assert_eq!(bank.paid(), 1);
        audit(&ledger);
    });
}

/// Rows of a source cannot pass open events, nor go through a rail; that is told to whoever brought them, and the
/// engine goes on. It used to stop for everybody.
#[test]
fn rows_are_refused_beside_rails_and_the_engine_goes_on() {
    common::within_minutes(|| {
        let source = SourceId([3; 32]);
        let row = |request| SourceRow { request: Some(request), line: 2, end_offset: 20, end_line_count: 2 };
        let take = |ledger: &Ledger, request| {
            let (told, taken) = channel();
            let row = row(request);
            ledger.take_rows_then(source, vec![row], true, move |taken| told.send(taken.map(drop)).unwrap()).unwrap();
            taken.recv().unwrap()
        };
        let (directory, bank) = (directory(), Bank::new(&[Script::Hold]));
        let ledger = Ledger::create(directory.path(), &config(), options(&bank)).unwrap();
        ledger.submit(deposit(1, 1, 1_000)).unwrap();
        assert_eq!(
            take(&ledger, withdrawal(1, 50, 1)).unwrap_err().code(),
            "open_events",
            "it would go through the rail"
        );
        drop(submit(&ledger, vec![withdrawal(1, 2, 100)]));
        bank.wait_for_calls(1);
        drop(ledger);
        // No routes any more, but what they have left open.
        let no_routes = LedgerOptions { routes: Routes::default(), queue_requests_max: 3, ..options(&bank) };
        let (ledger, _) = Ledger::open(directory.path(), no_routes).unwrap();
        bank.wait_for_calls(2);
        for _ in 0..10 {
            assert_eq!(take(&ledger, deposit(5, 50, 1)).unwrap_err().code(), "open_events");
        }
        assert_eq!(applied(&ledger.submit(deposit(2, 3, 1))), 1);
        assert_eq!(ledger.source(source).unwrap(), None);
        std::mem::take(&mut bank.books.lock().unwrap().held).into_iter().for_each(drop);
        bank.set_script(&[Script::Act]);
        assert_eq!(applied(&ledger.submit(deposit(1, 4, 1))), 3);
        take(&ledger, deposit(5, 50, 1)).unwrap();
        assert_eq!(ledger.customer(customer(5)).unwrap().unwrap().seq, 1);
        let config = config();
        let store = Arc::new(MemoryStore::new(&config).with_split_batches());
        let split = Ledger::with_stores(config, store.clone(), store, LedgerOptions::default()).unwrap();
        take(&split, deposit(5, 50, 1)).unwrap();
        assert_eq!(applied(&split.submit(deposit(2, 3, 1))), 1);
    });
}

/// Many lives that end at any moment; each time the bank does something else. In the end its book and the chains
/// agree, payment by payment.
#[test]
fn the_banks_book_and_the_chains_agree_after_many_lives() {
    use Script::{Act, ActAndLoseTheAnswer, Hold, Refuse, Silent, Unknown};
    common::within_minutes(|| {
        let (directory, bank) = (directory(), Bank::default());
        let bank = Arc::new(bank);
        let tiny = EmbeddedOptions { segment_bytes: 6_000, memtable_entries_max: 20, heads_max: 5, background: true };
        let options = || LedgerOptions { embedded: tiny, ..options(&bank) };
        let ledger = Ledger::create(directory.path(), &config(), options()).unwrap();
        ledger.submit_batch((0..10).map(|of| deposit(of, 900 + of, 100_000)).collect()).unwrap();
        ledger.close().unwrap();
        let scripts = [
            [Act, Unknown, Refuse, Hold],
            [ActAndLoseTheAnswer, Silent, Act, Refuse],
            [Hold, ActAndLoseTheAnswer, Refuse, Act],
            [Unknown, Silent, Hold, ActAndLoseTheAnswer],
        ];
        for life in 0..24_u128 {
            bank.set_script(&scripts[(life % 4) as usize]);
            let (ledger, _) = Ledger::open(directory.path(), options()).unwrap();
            let heard: Vec<_> = (0..10)
                .map(|of| {
                    submit(&ledger, vec![withdrawal(of, life * 100 + of, 7), deposit(of, life * 100 + 50 + of, 1)])
                })
                .collect();
            // Some lives go on until somebody was answered, others end at once.
            if life % 3 == 0 {
                bank.wait_for_calls(1);
                applied(&ledger.submit(deposit(77, 1 << 50 | life, 1)));
            }
            if life % 2 == 0 {
                drop(ledger);
            } else {
                ledger.close().unwrap();
            }
            for outcomes in heard {
                assert_eq!(outcomes.recv().unwrap().len(), 2);
            }
            // Replies of a life that is over.
            let held = std::mem::take(&mut bank.books.lock().unwrap().held);
            drop(held);
        }
        bank.set_script(&[Act]);
        let (ledger, _) = Ledger::open(directory.path(), options()).unwrap();
        // Behind every open event, so that all of them are closed.
        let behind = ledger.submit_batch((0..10).map(|of| deposit(of, 1 << 40 | of, 1)).collect()).unwrap();
        assert!(behind.iter().all(|one| applied(one) > 0));
        assert_eq!(ledger.open_events().unwrap(), Vec::new());
        let audit = audit(&ledger);
        let books = bank.books.lock().unwrap();
        let mut through_the_rail = 0;
        for entry in audit.chains.values().flatten().filter(|entry| entry.linked.event.rail.is_some()) {
            through_the_rail += 1;
            let expected = match entry.status {
                EventStatus::Done | EventStatus::DoneByHand(_) => Some(&Booked::Paid),
                EventStatus::Aborted(_) => Some(&Booked::Refused),
                EventStatus::Started => None,
            };
            assert_eq!(books.book.get(&entry.linked.id()), expected);
        }
        assert_eq!(books.book.len(), through_the_rail, "the bank booked an event that no chain has");
    });
}
