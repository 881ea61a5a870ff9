//! A soak: the real binary under everything at once (single requests with and without keys, streamed batches, a stream of
//! events, a webhook, reads, accounts of the past), killed at random moments, or stopped, and started again.
//!
//! A client that got no answer asks the same again in the next life, as every client should. In the end all that was
//! answered is in the chains, once, and as it was told; what readers saw is still so; the stream, put together from its
//! pieces, is what one reading from the beginning gives; the webhook was told of each event in order; and `bursar verify`
//! has nothing to say.
//!
//! A kill leaves the page cache, so this says nothing about a missing sync: the engine's own tests of power cuts do.
//!
//! `BURSAR_SOAK_MINUTES=60 cargo test --release -p bursar --test soak -- --nocapture` runs for an hour; without it, some
//! seconds. `BURSAR_SOAK_SEED` begins with another seed; moments differ from run to run all the same.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

#[path = "../../server/tests/common/client.rs"]
mod client;
mod common;
#[path = "../../server/tests/common/receiver.rs"]
mod receiver;
#[path = "common/service.rs"]
mod service;

use client::Client;
use common::{Random, Sandbox};
use receiver::{Receiver, SECRET};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use service::Service;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_secs(10);
const CUSTOMERS: u64 = 40;
const SINGLES: u64 = 3;
const BATCHES: u64 = 2;
/// So that the webhook, which is told of one event after the other, keeps up.
const SINGLES_PAUSE: Duration = Duration::from_millis(10);
const BATCHES_PAUSE: Duration = Duration::from_millis(150);
/// Begins a batch.
const BATCH: &str = "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
    Transfer-Encoding: chunked\r\n\r\n";
/// So many ids are each client's own.
const IDS: u64 = 1 << 32;

/// Something a client asks for, until it is answered.
#[derive(Clone, Debug)]
struct Asked {
    kind: &'static str,
    customer: u64,
    transaction: u64,
    /// Of what has no id of its own.
    key: Option<String>,
}

impl Asked {
    fn json(&self, with_key: bool) -> String {
        let Self { kind, customer, transaction, key } = self;
        let amount = match *kind {
            "deposit" => r#","amount":"5.25""#,
            "withdrawal" => r#","amount":"3""#,
            _ => "",
        };
        let key =
            key.as_ref().filter(|_| with_key).map_or(String::new(), |key| format!(r#","idempotency_key":"{key}""#));
        format!(r#"{{"kind":"{kind}","customer":"{customer}","transaction":"{transaction}"{amount}{key}}}"#)
    }
}

/// What became of what was asked: the receipt's hash, or the code of a refusal.
#[derive(Debug)]
struct Heard {
    asked: Asked,
    outcome: Result<String, String>,
}

/// What a client does next: deposits, withdrawals, and disputes of its own deposits, which are resolved.
struct Wishes {
    next: u64,
    end: u64,
    random: Random,
    /// Deposits of this client, not disputed; and disputed ones, with how often they were.
    deposits: Vec<(u64, u64)>,
    disputed: Vec<(u64, u64)>,
    key_count: u64,
}

impl Wishes {
    fn new(client: u64, seed: u64) -> Self {
        let next = (client + 1) * IDS;
        let random = Random(seed.wrapping_add(client));
        Self { next, end: next + IDS, random, deposits: Vec::new(), disputed: Vec::new(), key_count: 0 }
    }

    fn take(&mut self) -> Asked {
        let key = |this: &mut Self| {
            this.key_count += 1;
            Some(format!("soak-{}-{}", this.end, this.key_count))
        };
        match self.random.below(10) {
            0 | 1 if !self.deposits.is_empty() => {
                let place = self.random.below(self.deposits.len());
                let (customer, transaction) = self.deposits.swap_remove(place);
                self.disputed.push((customer, transaction));
                Asked { kind: "dispute", customer, transaction, key: key(self) }
            }
            2 if !self.disputed.is_empty() => {
                let place = self.random.below(self.disputed.len());
                let (customer, transaction) = self.disputed.swap_remove(place);
                // Not disputed again, so that each dispute and each resolve is there once at the most.
                Asked { kind: "resolve", customer, transaction, key: key(self) }
            }
            choice => {
                let (customer, transaction) = (self.random.below(CUSTOMERS as usize) as u64, self.next);
                self.next += 1;
                assert!(self.next < self.end);
                if choice > 7 {
                    return Asked { kind: "withdrawal", customer, transaction, key: None };
                }
                self.deposits.push((customer, transaction));
                Asked { kind: "deposit", customer, transaction, key: None }
            }
        }
    }
}

/// A client over all lives of the service.
struct Caller {
    wishes: Wishes,
    /// Asked, and not answered: first to be asked again.
    open: Vec<Asked>,
    heard: Vec<Heard>,
    repeated: u64,
}

impl Caller {
    fn new(client: u64, seed: u64) -> Self {
        Self { wishes: Wishes::new(client, seed), open: Vec::new(), heard: Vec::new(), repeated: 0 }
    }

    fn hear(&mut self, answer: &Value) {
        let asked = self.open.remove(0);
        self.repeated += u64::from(answer["outcome"] == "already_applied");
        let outcome = match answer["code"].as_str() {
            Some(code) => Err(code.to_owned()),
            None => Ok(answer["receipt"]["hash"].as_str().unwrap_or("").to_owned()),
        };
        self.heard.push(Heard { asked, outcome });
    }

    fn call(&mut self, place: u64, client: Client, is_last: bool) {
        match place {
            ..SINGLES => self.singles(client, is_last),
            SINGLES.. => self.batches(client, is_last),
        }
    }

    /// One request after the other, until the service is gone; or, if nothing new is wanted, until all is answered.
    fn singles(&mut self, mut client: Client, is_last: bool) {
        loop {
            if self.open.is_empty() {
                if is_last {
                    return;
                }
                let wish = self.wishes.take();
                self.open.push(wish);
            }
            let asked = self.open[0].clone();
            std::thread::sleep(SINGLES_PAUSE);
            // Every other key in a header of its own.
            let in_header = asked.key.as_ref().filter(|_| asked.transaction.is_multiple_of(2));
            let head = in_header.map_or(String::new(), |key| format!("Idempotency-Key: \"{key}\"\r\n"));
            let body = asked.json(in_header.is_none());
            let request = format!(
                "POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{head}\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let Ok(response) = client.raw(request.as_bytes()).and_then(|()| client.answer()) else { return };
            match response.status {
                200 | 422 => self.hear(&response.json()),
                // It stops, and has not decided this.
                503 => return,
                status => panic!("{status}: {} for {body}", response.text()),
            }
            if response.headers.get("connection").is_some_and(|value| value == "close") {
                return;
            }
        }
    }

    /// Batches without an end, a few lines at a time, read while they are sent.
    fn batches(&mut self, mut client: Client, is_last: bool) {
        if client.raw(BATCH.as_bytes()).is_err() {
            return;
        }
        let Ok(head) = client.head_of_answer() else { return };
        if head.status == 503 {
            return;
        }
        assert_eq!(head.status, 200);
        let mut text = String::new();
        loop {
            if !is_last {
                std::thread::sleep(BATCHES_PAUSE);
                let count = 1 + self.wishes.random.below(40);
                for _ in 0..count {
                    let wish = self.wishes.take();
                    self.open.push(wish);
                }
            }
            let lines: String = self.open.iter().map(|asked| asked.json(true) + "\n").collect();
            if self.open.is_empty() || client.chunk(lines.as_bytes()).is_err() {
                return;
            }
            while !self.open.is_empty() {
                let Ok(Some(chunk)) = client.next_chunk() else { return };
                text += std::str::from_utf8(&chunk).unwrap();
                while let Some((line, rest)) = text.split_once('\n') {
                    let line: Value = serde_json::from_str(line).unwrap();
                    let rest = rest.to_owned();
                    // It stops; what has no line was not decided, or not answered.
                    if line["summary"].is_object() || line["outcome"] == "undecided" {
                        return;
                    }
                    assert_ne!(line["outcome"], "unreadable", "{line}");
                    self.hear(&line);
                    text = rest;
                }
            }
        }
    }
}

/// What readers saw: by customer and place, the head.
type Seen = BTreeMap<(u64, u64), String>;

/// Reads customers as they are and as they were until the service is gone. What was seen stays so.
fn look(mut client: Client, seen: &mut Seen, random: &mut Random) {
    loop {
        let customer = random.below(CUSTOMERS as usize) as u64;
        let mut ask = |path: &str| client.try_call("GET", path, "", b"").ok();
        let Some(now) = ask(&format!("/v1/customers/{customer}")) else { return };
        if now.status == 200 {
            note(seen, customer, &now.json());
        }
        let then = seen.range((customer, 0)..(customer + 1, 0)).map(|((_, seq), _)| *seq).collect::<Vec<_>>();
        if let Some(seq) = then.get(random.below(then.len())) {
            let Some(then) = ask(&format!("/v1/customers/{customer}?seq={seq}")) else { return };
            if then.status == 200 {
                note(seen, customer, &then.json());
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn note(seen: &mut Seen, customer: u64, answer: &Value) {
    let (seq, head) = (answer["seq"].as_u64().unwrap(), answer["head"].as_str().unwrap().to_owned());
    let before = seen.entry((customer, seq)).or_insert_with(|| head.clone());
    assert_eq!(*before, head, "customer {customer} after event {seq} is not what it was");
}

/// Reads the stream of events behind `last_id` until there are so many or the service is gone; gives ids and statuses, and
/// keeps where it is as a browser does: by what came whole.
fn follow(mut client: Client, last_id: &mut String, count: usize) -> Vec<String> {
    let header = if last_id.is_empty() { String::new() } else { format!("Last-Event-ID: {last_id}\r\n") };
    let (mut seen, mut text) = (Vec::new(), String::new());
    let asked = client.raw(format!("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{header}\r\n").as_bytes());
    let Ok(head) = asked.and_then(|()| client.head_of_answer()) else { return seen };
    if head.status == 503 {
        return seen;
    }
    assert_eq!(head.status, 200);
    while seen.len() < count {
        let Ok(Some(chunk)) = client.next_chunk() else { break };
        text += std::str::from_utf8(&chunk).unwrap();
        while let Some((block, rest)) = text.split_once("\n\n") {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            *last_id = field("id: ").unwrap_or(std::mem::take(last_id));
            if let Some(data) = field("data: ") {
                let message: Value = serde_json::from_str(&data).unwrap();
                let [event, status] =
                    ["event", "status"].map(|name| message["event"][name].as_str().unwrap().to_owned());
                seen.push(format!("{event}_{status}"));
            }
            text = rest.to_owned();
        }
    }
    seen
}

/// Waits for a moment and ends the service: killed mostly, stopped sometimes.
fn end(pid: Pid, wait: Duration, is_kill: bool) {
    std::thread::sleep(wait);
    kill_process(pid, if is_kill { Signal::KILL } else { Signal::TERM }).unwrap();
}

/// What the chains say in the end.
#[derive(Default)]
struct Chains {
    /// By hash: kind, customer and transaction.
    events: BTreeMap<String, (String, u64, u64)>,
    heads: Seen,
    /// How often each kind of request of a transaction took effect.
    counts: BTreeMap<(u64, String), u64>,
}

impl Chains {
    fn read(service: &Service) -> Self {
        let mut chains = Self::default();
        for customer in 0..CUSTOMERS {
            let file = service.client().get(&format!("/v1/customers/{customer}/chain"));
            assert_eq!(file.status, 200);
            bursar_engine::chain_file::verify_chain_file(file.body.as_slice(), None).unwrap();
            for line in file.text().lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                let Some(hash) = line["hash"].as_str() else { continue };
                assert_eq!(line["status"], "done", "{line}");
                let text = |name: &str| line[name].as_str().unwrap().to_owned();
                let (kind, transaction) = (text("kind"), text("transaction").parse().unwrap());
                *chains.counts.entry((transaction, kind.clone())).or_default() += 1;
                chains.heads.insert((customer, line["seq"].as_u64().unwrap()), hash.to_owned());
                chains.events.insert(hash.to_owned(), (kind, customer, transaction));
            }
        }
        chains
    }

    /// Holds what a client was told against the chains.
    fn check(&self, heard: &Heard) {
        let Heard { asked: Asked { kind, customer, transaction, .. }, outcome } = heard;
        let event = self.counts.get(&(*transaction, (*kind).to_owned())).copied();
        match outcome {
            // A row of a batch that was applied before comes without a receipt.
            Ok(hash) if hash.is_empty() => assert_eq!(event, Some(1), "{heard:?}"),
            Ok(hash) => {
                let expected = ((*kind).to_owned(), *customer, *transaction);
                assert_eq!((self.events.get(hash), event), (Some(&expected), Some(1)), "{heard:?}");
            }
            Err(code) => {
                assert_eq!(event, None, "{heard:?}");
                // What a dispute cannot find was refused itself, or its deposit's chain is locked: neither occurs here.
                assert_eq!((*kind, code.as_str()), ("withdrawal", "insufficient_funds"));
            }
        }
    }
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order_over_many_lives() {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let duration = setting("BURSAR_SOAK_MINUTES").map_or(SHORT, Duration::from_mins);
    let seed = setting("BURSAR_SOAK_SEED").unwrap_or(1);
    let sandbox = Sandbox::new();
    sandbox.done(&["init", "--quiet"]);
    let receiver = Receiver::with(|count, _| match count % 200 {
        0..5 => "503 Service Unavailable".to_owned(),
        5..8 => String::new(),
        _ => "200 OK".to_owned(),
    });
    let config = format!(
        "[[webhooks]]\nname = \"books\"\nurl = \"{}\"\nsecret = \"{SECRET}\"\nfrom = \"beginning\"\nretry_ms_min = 5\nretry_ms_max = 10\n",
        receiver.url()
    );
    sandbox.write("bursar-data/bursar.toml", &config);
    let mut callers: Vec<Caller> = (0..SINGLES + BATCHES).map(|client| Caller::new(client, seed)).collect();
    let (mut seen, mut streamed, mut last_id) = (Seen::new(), Vec::new(), String::new());
    let mut random = Random(seed);
    let (mut kills, mut stops) = (0, 0);
    let started = Instant::now();
    // On a slow machine, until enough has happened.
    while started.elapsed() < duration || kills < 2 {
        let mut service = Service::start(&sandbox, &["--quiet", "--log", "error"]);
        let pid = Pid::from_child(&service.child);
        // Connected before it may be gone.
        let [to_follow, to_look] = [service.client(), service.client()];
        let is_kill = random.below(6) > 0;
        // Often soon after the start, sometimes much later.
        let longest_ms = [30, 300, 2_000][random.below(3)];
        let wait = Duration::from_micros(1_000 * random.below(longest_ms) as u64 + random.below(1_000) as u64);
        let mut looks = random.clone();
        std::thread::scope(|scope| {
            let following = scope.spawn(|| follow(to_follow, &mut last_id, usize::MAX));
            let looking = scope.spawn(|| look(to_look, &mut seen, &mut looks));
            let calling: Vec<_> = callers
                .iter_mut()
                .enumerate()
                .map(|(place, caller)| (place as u64, caller, service.client()))
                .map(|(place, caller, client)| scope.spawn(move || caller.call(place, client, false)))
                .collect();
            end(pid, wait, is_kill);
            for calling in calling {
                calling.join().unwrap();
            }
            looking.join().unwrap();
            streamed.extend(following.join().unwrap());
        });
        let (exit, log) = service.end();
        assert_eq!(exit, if is_kill { None } else { Some(0) }, "{log}");
        assert!(log.is_empty(), "{log}");
        kills += u64::from(is_kill);
        stops += u64::from(!is_kill);
    }

    // A last life, in which everything comes to its end.
    let service = Service::start(&sandbox, &["--quiet", "--log", "error"]);
    for (place, caller) in callers.iter_mut().enumerate() {
        caller.call(place as u64, service.client(), true);
        assert!(caller.open.is_empty(), "{:?}", caller.open);
    }
    let chains = Chains::read(&service);
    let twice = chains.counts.iter().find(|(_, count)| **count > 1);
    assert_eq!(twice, None, "taken in twice");
    callers.iter().flat_map(|caller| &caller.heard).for_each(|heard| chains.check(heard));
    let answered: u64 = callers.iter().map(|caller| caller.heard.len() as u64).sum();
    let refused = callers.iter().flat_map(|caller| &caller.heard).filter(|heard| heard.outcome.is_err()).count() as u64;
    // Everything was asked for until it was answered, so there is nothing else either.
    assert_eq!(chains.events.len() as u64, answered - refused);
    for (place, head) in seen.iter().filter(|((_, seq), _)| *seq > 0) {
        assert_eq!(chains.heads.get(place), Some(head), "a reader saw what is not there");
    }
    let count = service.client().get("/v1/ledger").json()["events"].as_u64().unwrap() as usize;
    assert_eq!(count, chains.events.len());
    streamed.extend(follow(service.client(), &mut last_id, count - streamed.len()));
    let all = follow(service.client(), &mut String::new(), count);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), count);
    assert!(streamed == all, "the stream has a gap or repeats something");
    let again = check_webhook(&receiver, &all);
    service.stop();
    sandbox.done(&["verify"]);
    let repeated: u64 = callers.iter().map(|caller| caller.repeated).sum();
    println!(
        "{} s, {kills} kills, {stops} stops: {answered} answered, {refused} of them refused, {repeated} told again; {} heads \
         read; {again} webhook messages again",
        started.elapsed().as_secs(),
        seen.len()
    );
    assert!(kills > 1 && repeated > 0 && refused > 0 && seen.len() > 10, "too little happened to say anything");
}

/// The webhook's messages that were taken: each event, in order; one may come again, with those behind it. How many did.
fn check_webhook(receiver: &Receiver, all: &[String]) -> usize {
    let newest = all.last().unwrap();
    let is_over = || receiver.received().iter().rev().any(|received| received.taken && received.id == *newest);
    let told = (0..6_000).any(|_| {
        let told = is_over();
        if !told {
            std::thread::sleep(Duration::from_millis(20));
        }
        told
    });
    assert!(told, "the webhook does not come to its end");
    let places: BTreeMap<&str, usize> = all.iter().enumerate().map(|(index, id)| (id.as_str(), index)).collect();
    let (mut expected, mut again) = (0, 0);
    for message in receiver.received().iter().filter(|received| received.taken) {
        let index = places[message.id.as_str()];
        assert!(index <= expected, "event {index} comes before {expected}");
        again += usize::from(index < expected);
        expected = expected.max(index + 1);
    }
    assert_eq!(expected, all.len());
    again
}
