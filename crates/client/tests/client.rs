//! The client against the real service on a real port, with a wire between them that can be cut.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

#[path = "../../server/tests/common/mod.rs"]
mod common;
#[path = "common/wire.rs"]
mod wire;

use bursar_client::blocking::Client;
use bursar_client::{
    CustomerThen, Error, EventList, EventStatus, Key, Moment, Options, Outcome, Outlook, PendingList, RowResult,
    SettleError, Submission, SubmitError, TimeMs,
};
use bursar_core::commit::Settlement;
use bursar_core::{CustomerId, ReasonText, RequestKind, TransactionId};
use bursar_engine::chain_file::verify_chain_file;
use bursar_server::Limits;
use common::TestServer;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wire::Wire;

fn options(deadline: Duration) -> Options {
    Options { deadline, answer_within: Duration::from_secs(20), ..Options::default() }
}

fn client_at(address: SocketAddr) -> Client {
    Client::new(&format!("http://{address}"), None, options(Duration::from_secs(20))).unwrap()
}

fn deposit(customer: u64, transaction: u64, amount: &str) -> Submission {
    Submission::deposit(customer_id(customer), transaction_id(transaction), amount.parse().unwrap())
}

fn customer_id(number: u64) -> CustomerId {
    CustomerId::new(number.into())
}

fn transaction_id(number: u64) -> TransactionId {
    TransactionId::new(number.into())
}

#[test]
fn a_request_is_in_effect_refused_or_not_taken() {
    let (service, [read, submit, operate]) = TestServer::with_keys();
    let url = format!("http://{}", service.address);
    let with = |key: Option<&str>| {
        let key = key.map(|key| Key::new(key).unwrap());
        Client::new(&url, key, options(Duration::from_secs(20))).unwrap()
    };
    let client = with(Some(&submit));
    let Ok(Outcome::Applied(first)) = client.submit(&deposit(1, 1, "10")) else { panic!() };
    assert_eq!((first.seq, first.account.available.to_string().as_str(), first.locked), (1, "10.0000", false));
    assert_eq!(client.submit(&deposit(1, 1, "10")), Ok(Outcome::AlreadyApplied(first.clone())));

    let withdrawal = Submission::withdrawal(customer_id(1), transaction_id(2), "10.5".parse().unwrap());
    let Err(SubmitError::Refused(problem)) = client.submit(&withdrawal) else { panic!() };
    assert_eq!((problem.status, problem.code.as_str()), (422, "insufficient_funds"));
    let figures = problem.figures.unwrap();
    assert_eq!((figures.asked.unwrap().to_string(), figures.available.unwrap().to_string()).0, "10.5000");
    assert_eq!(figures.available.unwrap().to_string(), "10.0000");
    assert!(problem.request_id.is_some() && !problem.hint.is_empty());
    let Err(SubmitError::Refused(problem)) = client.submit(&deposit(1, 1, "11")) else { panic!() };
    assert_eq!(problem.figures.unwrap().existing.unwrap().amount.to_string(), "10.0000");

    let not_taken = [
        (with(None).submit(&deposit(1, 3, "1")), "key_needed"),
        (with(Some("bursar_1_2")).submit(&deposit(1, 3, "1")), "key_unknown"),
        (with(Some(&read)).submit(&deposit(1, 3, "1")), "role_too_low"),
        (client.submit(&Submission::unlock(customer_id(1))), "role_too_low"),
        (client.submit(&deposit(1, 3, "1.00001")), "bad_amount"),
        (client.submit(&deposit(1, 3, "1").in_currency("EUR")), "unknown_currency"),
    ];
    for (result, code) in not_taken {
        let Err(SubmitError::NotTaken(error)) = &result else { panic!("{code}: {result:?}") };
        assert_eq!(error.problem().unwrap().code, code);
    }
    let Err(SubmitError::Refused(problem)) = with(Some(&operate)).submit(&Submission::unlock(customer_id(1))) else {
        panic!()
    };
    assert_eq!(problem.code, "not_locked");
    assert_eq!(client.ledger().unwrap().events, 1);
}

#[test]
fn lists_chains_and_transactions_are_read_whole() {
    let service = TestServer::new();
    let client = client_at(service.address);
    let (mut sender, mut outcomes) = client.batch().unwrap();
    // More than two pages of customers, and a chain of more than two.
    let sending = std::thread::spawn(move || {
        for index in 1..=2_100 {
            sender.send(&deposit(index, index, "1")).unwrap();
            sender.send(&deposit(7, 10_000 + index, "0.5")).unwrap();
        }
        sender.finish().unwrap();
    });
    for row in 1..=4_200 {
        let outcome = outcomes.next().unwrap().unwrap();
        assert_eq!(outcome.row, row);
        assert!(matches!(outcome.result, RowResult::Applied(_)), "{outcome:?}");
    }
    assert!(outcomes.next().is_none());
    assert_eq!(outcomes.summary().unwrap().applied, 4_200);
    sending.join().unwrap();

    let customers: Vec<_> = client.customers(None).map(|customer| customer.unwrap().customer).collect();
    assert_eq!(customers, (1..=2_100).map(customer_id).collect::<Vec<_>>());
    assert_eq!(client.customers(Some(true)).count(), 0);
    let customer = client.customer(customer_id(7)).unwrap().unwrap();
    assert_eq!((customer.seq, customer.accounts[0].total.to_string().as_str()), (2_101, "1051.0000"));
    assert_eq!(client.customer(customer_id(0)).unwrap(), None);

    let oldest = EventList { oldest_first: true, ..EventList::default() };
    let events: Vec<_> = client.events(customer_id(7), &oldest).map(Result::unwrap).collect();
    assert!(events.iter().map(|event| event.seq).eq(1..=2_101));
    let newest: Vec<_> = client.events(customer_id(7), &EventList::default()).map(Result::unwrap).collect();
    assert!(newest.iter().rev().eq(&events));
    let none = EventList { kind: Some(RequestKind::Dispute), ..EventList::default() };
    assert_eq!(client.events(customer_id(7), &none).count(), 0);
    let until = EventList { until: Some(TimeMs(1)), status: Some(EventStatus::Done), ..EventList::default() };
    assert_eq!(client.events(customer_id(7), &until).count(), 0);

    let transaction = client.transaction(transaction_id(10_001)).unwrap().unwrap();
    let current = transaction.current.unwrap();
    assert_eq!((current.state.as_str(), current.amount.to_string().as_str()), ("posted", "0.5000"));
    assert_eq!(transaction.events.len(), 1);
    assert_eq!(client.transaction(transaction_id(1 << 40)).unwrap(), None);

    let mut chain = client.chain(customer_id(7)).unwrap().unwrap();
    let report = verify_chain_file(&mut chain, Some(events[5].hash)).unwrap();
    assert_eq!((report.event_count, report.head, report.receipt_seq), (2_101, customer.head, Some(6)));
    assert!(client.chain(customer_id(0)).unwrap().is_none());
    assert_eq!(client.pending(&PendingList::default()).count(), 0);
    assert!(client.metrics().unwrap().contains("bursar_requests_total"));
}

#[test]
fn a_batch_goes_both_ways_at_once_and_says_what_became_of_each_row() {
    let service = TestServer::new();
    let client = client_at(service.address);
    let (mut sender, mut outcomes) = client.batch().unwrap();
    // One row, and its outcome before there is another: nothing waits for the end.
    sender.send(&deposit(1, 1, "5")).unwrap();
    sender.flush().unwrap();
    assert!(matches!(outcomes.next_in_time().unwrap().unwrap().result, RowResult::Applied(_)));
    let rows = [
        deposit(1, 1, "5"),
        deposit(1, 1, "6"),
        deposit(1, 2, "0.00001"),
        Submission::dispute(customer_id(1), transaction_id(1)),
    ];
    for row in &rows {
        sender.send(row).unwrap();
    }
    sender.finish().unwrap();
    let results: Vec<_> = outcomes.by_ref().map(|outcome| outcome.unwrap().result).collect();
    let [RowResult::AlreadyApplied, RowResult::Refused(refused), RowResult::NotTaken(bad), RowResult::Applied(receipt)] =
        results.as_slice()
    else {
        panic!("{results:?}")
    };
    assert_eq!((refused.code.as_str(), bad.code.as_str()), ("transaction_id_taken", "bad_amount"));
    assert_eq!(receipt.account.held.to_string(), "5.0000");
    assert_eq!(outcomes.summary().unwrap().rows, 5);
}

#[test]
fn an_answer_that_is_cut_off_is_asked_for_again_only_where_that_is_safe() {
    let service = TestServer::new();
    let straight = client_at(service.address);
    let first_event = straight.submit(&deposit(1, 1, "10")).unwrap().receipt().event;

    // The head of the answer is cut, twice; then its body. The third attempt hears that the first was in effect.
    for (transaction, cuts) in [(2, &[20, 1][..]), (3, &[250][..])] {
        let wire = Wire::to(service.address, cuts);
        let outcome = client_at(wire.address).submit(&deposit(1, transaction, "1")).unwrap();
        assert!(matches!(outcome, Outcome::AlreadyApplied(_)), "{outcome:?}");
        assert_eq!(wire.connections(), cuts.len() + 1);
    }
    // A dispute has no id of its own: it is in effect, and nobody knows.
    let wire = Wire::to(service.address, &[20]);
    let dispute = Submission::dispute(customer_id(1), transaction_id(1));
    let result = client_at(wire.address).submit(&dispute);
    assert!(matches!(result, Err(SubmitError::Unknown(Error::CutOff(_)))), "{result:?}");
    assert_eq!(wire.connections(), 1, "it was not sent again");
    assert_eq!(straight.transaction(transaction_id(1)).unwrap().unwrap().current.unwrap().state, "disputed");
    assert_eq!(straight.ledger().unwrap().events, 4);

    // One with a key is sent again, and is in effect once.
    let wire = Wire::to(service.address, &[20, 1]);
    let resolve = Submission::resolve(customer_id(1), transaction_id(1)).with_idempotency_key("case \"17\"");
    let outcome = client_at(wire.address).submit(&resolve).unwrap();
    assert!(matches!(outcome, Outcome::AlreadyApplied(_)), "{outcome:?}");
    assert_eq!(wire.connections(), 3);
    assert_eq!(straight.ledger().unwrap().events, 5);
    // A dry run does nothing, however often it is asked; its answers are as exact as those of the real one.
    let wire = Wire::to(service.address, &[20, 1]);
    let withdrawal = Submission::withdrawal(customer_id(1), transaction_id(9), "2".parse().unwrap());
    let left = |minimum: &str| withdrawal.clone().with_expected_seq(5).with_minimum_available(minimum.parse().unwrap());
    let Ok(Outlook::WouldApply(would)) = client_at(wire.address).dry_run(&left("10")) else { panic!() };
    assert_eq!((would.seq, would.account.available.to_string().as_str(), would.locked), (6, "10.0000", false));
    assert_eq!(wire.connections(), 3);
    let Err(SubmitError::Refused(problem)) = straight.dry_run(&left("10.01")) else { panic!() };
    assert_eq!(problem.code, "below_minimum");
    assert_eq!(straight.dry_run(&resolve), Ok(Outlook::AlreadyApplied(outcome.receipt().clone())));
    assert_eq!(straight.ledger().unwrap().events, 5);

    // Reads are repeated; what they give is whole.
    let wire = Wire::to(service.address, &[300, 20]);
    let client = client_at(wire.address);
    assert_eq!(client.customer(customer_id(1)).unwrap().unwrap().seq, 5);
    assert_eq!(wire.connections(), 3);
    // What was then is asked for by place or by time.
    let then = |moment| straight.customer_as_of(customer_id(1), moment).unwrap();
    let CustomerThen::Was(first) = then(Moment::Seq(1)) else { panic!() };
    assert_eq!((first.seq, first.accounts[0].total.to_string().as_str()), (1, "10.0000"));
    let CustomerThen::Was(at) = then(Moment::Time(first.time)) else { panic!() };
    assert_eq!(at.time, first.time);
    assert_eq!(then(Moment::Time(TimeMs(0))), CustomerThen::NoAccount);
    assert_eq!(straight.customer_as_of(customer_id(7), Moment::Seq(1)), Ok(CustomerThen::Unknown));
    // What waits for no rail cannot be settled.
    let settled = straight.settle(first_event, &Settlement::Done(ReasonText::new("x")));
    let Err(SettleError::NotPending(problem)) = settled else { panic!("{settled:?}") };
    assert_eq!(problem.status, 404);
    // Once an answer was lost, that an event waits no more does not say how it ended.
    let wire = Wire::to(service.address, &[20]);
    let settled = client_at(wire.address).settle(first_event, &Settlement::Aborted(ReasonText::new("x")));
    assert!(matches!(settled, Err(SettleError::Unknown(Error::CutOff(_)))), "{settled:?}");
    assert_eq!(wire.connections(), 2);
    // Chains and batches are not, and say so.
    let wire = Wire::to(service.address, &[600]);
    let mut chain = client_at(wire.address).chain(customer_id(1)).unwrap().unwrap();
    assert!(chain.read_to_end(&mut Vec::new()).is_err());
    assert!(matches!(chain.error(), Some(Error::CutOff(_))), "{:?}", chain.error());
    let wire = Wire::to(service.address, &[700]);
    let (mut sender, outcomes) = client_at(wire.address).batch().unwrap();
    for transaction in 100..110 {
        sender.send(&deposit(2, transaction, "1")).unwrap();
    }
    sender.finish().unwrap();
    let results: Vec<_> = outcomes.collect();
    assert!(matches!(results.last(), Some(Err(Error::CutOff(_)))), "{results:?}");
}

#[test]
fn who_is_busy_is_asked_again_until_the_deadline() {
    let limits = Limits { in_flight_max: 0, ..Limits::default() };
    let service = TestServer::with_limits(limits);
    let url = format!("http://{}", service.address);
    let client = Client::new(&url, None, options(Duration::from_secs(3))).unwrap();
    let started = Instant::now();
    let result = client.submit(&Submission::unlock(customer_id(1)));
    let Err(SubmitError::NotDecided(error)) = &result else { panic!("{result:?}") };
    let problem = error.problem().unwrap();
    assert_eq!((problem.code.as_str(), problem.retry_after), ("busy", Some(Duration::from_secs(1))));
    // Each attempt waits for as long as it was told to; it ends when another second would not fit any more.
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(matches!(client.ledger(), Err(Error::Problem(_))));
    assert!(matches!(client.batch(), Err(Error::Problem(_))));
}

#[test]
fn nobody_and_somebody_else_are_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let client = client_at(address);
    assert!(matches!(client.ledger(), Err(Error::Unreachable(_))));
    assert!(matches!(client.submit(&deposit(1, 1, "1")), Err(SubmitError::NotDecided(Error::Unreachable(_)))));

    // Somebody who never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let short = Duration::from_millis(300);
    let options = Options { answer_within: short, deadline: short, ..Options::default() };
    let client = Client::new(&format!("http://{}", silent.local_addr().unwrap()), None, options).unwrap();
    assert_eq!(client.ledger(), Err(Error::TimedOut(short)));
    assert_eq!(client.submit(&deposit(1, 1, "1")), Err(SubmitError::Unknown(Error::TimedOut(short))));

    // Other services: a page for everything, a redirect, a gateway in front of nothing.
    let answers = [
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi", true),
        ("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno", false),
        ("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", true),
        ("SSH-2.0-OpenSSH_9.9\r\n", false),
    ];
    for (answer, is_not_understood) in answers {
        let address = answer_always(answer);
        let options = Options { deadline: Duration::from_millis(200), ..Options::default() };
        let client = Client::new(&format!("http://{address}"), None, options).unwrap();
        let error = client.ledger().unwrap_err();
        assert_eq!(matches!(error, Error::NotUnderstood(_)), is_not_understood, "{answer}: {error:?}");
        assert_eq!(matches!(error, Error::CutOff(_)), !is_not_understood, "{answer}: {error:?}");
        // Whatever it is, it may have handed the request on.
        let result = client.submit(&deposit(1, 1, "1"));
        assert!(matches!(result, Err(SubmitError::Unknown(_))), "{answer}: {result:?}");
    }
}

/// Somebody who says the same to everybody.
fn answer_always(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            // A header fits into one piece, or two; what is not read does no harm.
            drop(client.read(&mut [0; 4096]));
            drop(client.write_all(answer.as_bytes()));
            drop(client.shutdown(Shutdown::Write));
            drop(client.read(&mut [0; 4096]));
        }
    });
    address
}

#[test]
fn a_service_that_was_reached_is_waited_for() {
    let service = TestServer::new();
    let address = service.address;
    let client = client_at(address);
    client.submit(&deposit(1, 1, "1")).unwrap();
    drop(service);
    // The same address, some time later.
    let is_back = Arc::new(AtomicBool::new(false));
    let coming_back = is_back.clone();
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        coming_back.store(true, Ordering::SeqCst);
        answer_at(address);
    });
    let result = client.ledger();
    assert!(is_back.load(Ordering::SeqCst), "{result:?}");
    assert!(matches!(result, Err(Error::NotUnderstood(_))), "{result:?}");
    later.join().unwrap();
}

fn answer_at(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let (mut client, _) = listener.accept().unwrap();
    drop(client.read(&mut [0; 4096]));
    client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap();
}

#[test]
fn what_was_unknown_once_stays_so_although_nobody_is_there_any_more() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It takes the request, says nothing, and is gone.
    let gone = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        assert!(client.read(&mut [0; 4096]).unwrap() > 0);
    });
    let options = Options { deadline: Duration::from_secs(1), ..Options::default() };
    let client = Client::new(&format!("http://{address}"), None, options).unwrap();
    let result = client.submit(&deposit(1, 1, "1"));
    gone.join().unwrap();
    assert!(matches!(result, Err(SubmitError::Unknown(Error::CutOff(_)))), "{result:?}");
    // The next one was never sent.
    let result = client.submit(&deposit(1, 2, "1"));
    assert!(matches!(result, Err(SubmitError::NotDecided(Error::Unreachable(_)))), "{result:?}");
}

#[test]
fn a_chain_without_its_last_line_is_not_whole() {
    for (body, is_whole) in
        [("{\"event\":1}\n", false), ("{\"x\":1}\n{\"end\":2}\n", true), ("{\"end\":2}", false), ("", false)]
    {
        let length = body.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n{body}");
        let client = client_at(answer_always(answer.leak()));
        let mut chain = client.chain(customer_id(1)).unwrap().unwrap();
        let read = chain.read_to_end(&mut Vec::new());
        assert_eq!((read.is_ok(), chain.error().is_none()), (is_whole, is_whole), "{body:?}");
    }
}
