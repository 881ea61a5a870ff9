//! The stream of events and webhooks of ledgers in other stores, which several services write to.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects")]

#[path = "../../server/tests/common/client.rs"]
mod client;
mod common;
#[path = "common/elsewhere.rs"]
mod elsewhere;
#[path = "../../nats/tests/common/servers.rs"]
mod nats;
#[path = "../../postgres/tests/common/mod.rs"]
mod postgres;
#[path = "../../server/tests/common/receiver.rs"]
mod receiver;
#[path = "common/service.rs"]
mod service;
#[path = "common/stream.rs"]
mod stream;

use common::Sandbox;
use elsewhere::{in_both, in_postgres, sandbox_with};
use nats::{Cluster, Sync};
use postgres::PostgresServer;
use receiver::{Received, Receiver, SECRET};
use rustix::process::Signal;
use serde_json::Value;
use service::Service;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use stream::follow;

fn deposit(service: &Service, customer: u64, transaction: u64) {
    let body = format!(
        "{{\"kind\":\"deposit\",\"customer\":\"{customer}\",\"transaction\":\"{transaction}\",\"amount\":\"1\"}}"
    );
    let answer = service.client().submit(&body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Two services write to one ledger. Who follows one of them sees what came through the other one too; the webhook of the
/// first goes on where it was after a kill, by the file that lies in its directory.
fn events_of_all_services_reach_everybody(settings: &str) {
    let receiver = Receiver::new();
    let webhook = format!(
        "[[webhooks]]\nname = 'books'\nurl = '{}'\nsecret = '{SECRET}'\nfrom = 'beginning'\nretry_ms_min = 5\n",
        receiver.url()
    );
    let (one, two) = (sandbox_with(&format!("{settings}{webhook}")), sandbox_with(settings));
    one.done(&["init", "--quiet"]);
    let first = Service::start(&one, &["--quiet"]);
    let second = Service::start(&two, &["--quiet"]);
    let half = 40;
    let write = |service: &Service, from: u64| (from..from + half).for_each(|id| deposit(service, 1 + id % 5, id));
    let (mut last_id, is_over) = (String::new(), AtomicBool::new(false));
    let address = second.address;
    let streamed = std::thread::scope(|scope| {
        let (last_id, is_over) = (&mut last_id, &is_over);
        let following = scope.spawn(move || {
            let mut seen = Vec::new();
            while seen.len() < 4 * half as usize && !is_over.load(Ordering::Acquire) {
                seen.extend(follow(address, last_id, |more| seen.len() + more >= 4 * half as usize));
            }
            seen
        });
        let other = scope.spawn(|| write(&second, 1_000));
        write(&first, 2_000);
        other.join().unwrap();
        // In the middle of what it delivers, perhaps.
        first.signal(Signal::KILL);
        drop(first);
        write(&second, 3_000);
        let first = Service::start(&one, &["--quiet"]);
        write(&first, 4_000);
        let streamed = following.join().unwrap();
        is_over.store(true, Ordering::Release);
        first.stop();
        streamed
    });
    let count = 4 * half as usize;
    let all = follow(second.address, &mut String::new(), |seen| seen >= count);
    assert_eq!(all.len(), count);
    assert!(streamed == all, "the stream has a gap or repeats something");

    // What the first one did not deliver before it was stopped, it delivers now.
    let first = Service::start(&one, &["--quiet"]);
    let newest = &all.last().unwrap().1;
    while !receiver.received().iter().any(|received| received.id == *newest) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let places: BTreeMap<&str, usize> = all.iter().enumerate().map(|(index, (_, id))| (id.as_str(), index)).collect();
    let received: Vec<Received> = receiver.received();
    let (mut next, mut again) = (0, 0);
    for message in &received {
        let place = places[message.id.as_str()];
        assert!(place <= next, "{place} comes before {next}");
        again += usize::from(place < next);
        next = next.max(place + 1);
    }
    assert_eq!(next, count);
    assert!(again < count, "all of it came again: its place was not kept");
    assert!(one.path("bursar-data/webhook-books.json").exists());
    first.stop();
    second.stop();
    assert!(two.done(&["verify", "--output", "csv"]).contains("sound,true\n"));
}

#[test]
fn events_of_all_services_reach_everybody_over_postgresql() {
    let server = PostgresServer::start();
    events_of_all_services_reach_everybody(&in_postgres(&server));
}

#[test]
fn events_of_all_services_reach_everybody_over_jetstream() {
    let (cluster, server, files) = (Cluster::start(3, Sync::Always), PostgresServer::start(), Sandbox::new());
    events_of_all_services_reach_everybody(&in_both(&files, &cluster, &server));
}

/// `bursar listen` over `JetStream`, killed again and again while two services write, one of the servers gone for a while: by
/// its file it goes on where it was. Only what it had printed and not noted yet can come again, and that right away.
#[test]
fn listening_goes_on_where_it_was_over_jetstream() {
    let (mut cluster, server, files) = (Cluster::start(3, Sync::Always), PostgresServer::start(), Sandbox::new());
    let settings = in_both(&files, &cluster, &server);
    let (one, two) = (sandbox_with(&settings), sandbox_with(&settings));
    one.done(&["init", "--quiet"]);
    let services = [Service::start(&one, &["--quiet"]), Service::start(&two, &["--quiet"])];
    let url = format!("http://{}", services[0].address);
    let (mut heard, mut written) = (Vec::new(), 0);
    for part in 1..6_u64 {
        if part == 3 {
            cluster.nodes[1].kill();
        }
        let arguments = ["listen", "--server", &url, "--position-file", "position", "--quiet"];
        let mut listening = one.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        for id in 0..12 {
            deposit(&services[(id % 2) as usize], 1 + id % 3, 1_000 * part + id);
            written += 1;
        }
        let mut lines = BufReader::new(listening.stdout.take().unwrap()).lines();
        let mut is_first = true;
        while heard.len() < written {
            let line = lines.next().expect("it goes on until it is stopped").unwrap();
            let message: Value = serde_json::from_str(&line).unwrap();
            let (event, status) = (&message["event"]["event"], &message["event"]["status"]);
            let id = format!("{}_{}", event.as_str().unwrap(), status.as_str().unwrap());
            let item = (message["position"].as_str().unwrap().to_owned(), id);
            if !(is_first && heard.last() == Some(&item)) {
                heard.push(item);
            }
            is_first = false;
        }
        listening.kill().unwrap();
        listening.wait().unwrap();
        if part == 3 {
            cluster.nodes[1].start();
        }
    }
    let all = follow(services[1].address, &mut String::new(), |seen| seen >= written);
    assert!(heard == all, "it has missed or repeated something: {} of {}", heard.len(), all.len());
    for service in services {
        drop(service.stop());
    }
}

/// Left out when the schema was made, there is none, and that is said; `bursar migrate` gives the ledger one later.
#[test]
fn a_ledger_without_a_feed_says_so_until_it_has_one() {
    let server = PostgresServer::start();
    let settings = in_postgres(&server);
    let sandbox = sandbox_with(&format!("{settings}feed = false\n"));
    sandbox.done(&["init", "--quiet"]);
    let service = Service::start(&sandbox, &["--quiet"]);
    deposit(&service, 1, 1);
    assert_eq!(service.client().get("/v1/events").problem(), (501, "no_feed".to_owned()));
    service.stop();
    sandbox.write("bursar-data/bursar.toml", &settings);
    sandbox.done(&["migrate"]);
    let service = Service::start(&sandbox, &["--quiet"]);
    deposit(&service, 1, 2);
    assert_eq!(follow(service.address, &mut String::new(), |seen| seen >= 2).len(), 2);
    service.stop();
}
