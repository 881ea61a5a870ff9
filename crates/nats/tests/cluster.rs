//! What only a cluster shows: settings, engines beside each other, replicas that lose a message, strangers that write.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::core::commit::Appended;
use bursar_engine::core::{EventStatus, LinkedEvent, Record};
use bursar_engine::store::{Chains, ReadRange, StoreError};
use bursar_nats::{NatsChains, NatsOptions, Weakness, prepare};
use common::scene::{Raw, append, commit, customer, deposit, head};
use common::{Cluster, Sync, config};
use serde_json::json;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

#[test]
fn weak_settings_are_refused_and_named() {
    let cluster = Cluster::start(3, Sync::Default);
    let options = cluster.options();
    let config = config(1);
    let refused = |options: &NatsOptions| match NatsChains::create(&config, options.clone()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("weak settings were taken"),
    };
    let text = refused(&options);
    assert!(text.contains("server n1 does not sync") && text.contains("sync_interval: always"), "{text}");
    let blind = NatsOptions { system_user: None, ..options.clone() };
    assert!(refused(&blind).contains("nobody can see"), "{}", refused(&blind));
    let alone = NatsOptions { replicas: 1, shard_count: 1, prefix: "alone".to_owned(), ..options.clone() };
    assert!(refused(&alone).contains("1 replica(s)"), "{}", refused(&alone));
    let missing = NatsChains::open(options.clone());
    assert!(matches!(missing, Err(StoreError::NotFound { .. })), "{missing:?}");

    let told = NatsOptions { allow_weak: true, ..options };
    let chains = NatsChains::create(&config, told.clone()).unwrap();
    let unsynced = chains.weaknesses().iter().filter(|weakness| matches!(weakness, Weakness::NotSynced { .. }));
    assert_eq!(unsynced.count(), 3, "{:?}", chains.weaknesses());
    assert_eq!(chains.weaknesses().len(), 3);
    let again = NatsChains::create(&config, told.clone());
    assert!(matches!(again, Err(StoreError::Exists { .. })) || again.is_ok_and(|again| *again.config() == config));
    let other = NatsChains::create(&common::config(2), told.clone());
    assert!(matches!(other, Err(StoreError::Exists { .. })), "{other:?}");

    // Somebody changes a stream afterwards.
    let raw = Raw::new(&cluster);
    let stream = format!("{}-chains-1", told.prefix);
    let mut changed = raw.api(&format!("STREAM.INFO.{stream}"), &json!({}))["config"].clone();
    changed["max_age"] = json!(86_400_000_000_000_u64);
    assert!(raw.api(&format!("STREAM.UPDATE.{stream}"), &changed).get("error").is_none());
    let strict = NatsOptions { allow_weak: false, ..told };
    let text = NatsChains::open(strict).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains(&format!("stream {stream} has `max_age`")), "{text}");
}

#[test]
fn engines_beside_each_other_see_and_fence_each_other() {
    let cluster = Cluster::start(3, Sync::Always);
    let (options, config) = (cluster.options(), config(3));
    let first = NatsChains::create(&config, options.clone()).unwrap();
    let second = NatsChains::open(options).unwrap();
    // What one has appended, the other sees with its next call: from servers that lag behind, too.
    for number in 0..100_u128 {
        let of = customer(number % 5);
        let (writer, reader) = if number % 3 == 0 { (&second, &first) } else { (&first, &second) };
        let event = commit(writer, &config, of, number);
        let seen = head(reader, &config, of);
        assert_eq!((seen.seq, seen.link), (event.event.seq, event.hash), "after append {number}");
    }
    // Whoever decided on what was true before is refused, whole runs of it.
    let of = customer(1);
    let stale = head(&first, &config, of);
    let late = deposit(&config, &stale, of, 1001);
    let mut after = stale;
    after.done(&late);
    let later = deposit(&config, &after, of, 1002);
    let winner = commit(&second, &config, of, 1000);
    let run = [Record::Started(late.clone()), Record::Started(later), Record::Done(late.reference())];
    assert_eq!(append(&first, &run), [Appended::Conflict, Appended::Conflict, Appended::Conflict]);
    assert_eq!(head(&first, &config, of).link, winner.hash);
    // The first end wins, and the second hears it: of two that saw the event open.
    let open = deposit(&config, &head(&first, &config, of), of, 1003);
    assert_eq!(append(&first, &[Record::Started(open.clone())]), [Appended::Yes]);
    assert_eq!(head(&second, &config, of).open, std::slice::from_ref(&open));
    let reason = bursar_engine::core::AbortReason::TransactionConflict;
    assert_eq!(append(&second, &[Record::Aborted(open.reference(), reason.clone())]), [Appended::Yes]);
    assert_eq!(append(&first, &[Record::Done(open.reference())]), [Appended::AlreadyAborted(reason)]);
    assert!(first.findings().is_empty() && second.findings().is_empty());
}

#[test]
fn a_byte_that_flips_on_one_replica_is_noticed_and_another_is_asked() {
    let mut cluster = Cluster::start(3, Sync::Always);
    let options = NatsOptions { shard_count: 1, ..cluster.options() };
    let config = config(4);
    let chains = NatsChains::create(&config, options.clone()).unwrap();
    let events: Vec<LinkedEvent> = (0..20).map(|number| commit(&chains, &config, customer(number), number)).collect();
    drop(chains);
    // One server's disk changes a byte of the newest messages of customers 5 and 9. (A server that was killed would read
    // everything again when it starts, notice, and take what it lacks from the others.)
    cluster.nodes[1].stop();
    let mut flipped = 0;
    let directory = cluster.directory.path().join("n2");
    let mut files = vec![directory];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "blk")
            && path.to_string_lossy().contains("streams")
        {
            let mut bytes = std::fs::read(&path).unwrap();
            for number in [5, 9] {
                // Behind the last place where the subject stands, the message has the event's hash as its link.
                let link = events[number].hash;
                let at = bytes.windows(32).rposition(|window| window == link.as_bytes());
                if let Some(at) = at {
                    bytes[at + 3] ^= 1;
                    flipped += 1;
                }
            }
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert_eq!(flipped, 2);
    cluster.nodes[1].start();
    cluster.wait_until_healthy();
    // It answers some time after it is healthy, and then one question in three. With hardly a head in memory all are
    // read again and again; none is ever an older one.
    let until = Instant::now() + Duration::from_mins(2);
    let chains = NatsChains::open(NatsOptions { cache_customers_max: 1, ..options }).unwrap();
    let is_named = || chains.findings().iter().any(|finding| finding.server.is_some());
    while !is_named() {
        assert!(Instant::now() < until, "nobody noticed: {:?}", chains.findings());
        for (number, event) in (0..).zip(&events) {
            assert_eq!(head(&chains, &config, customer(number)).link, event.hash, "customer {number}");
        }
    }
    let named = chains.findings().into_iter().filter_map(|finding| finding.server);
    assert!(named.into_iter().all(|server| server == "n2"), "{:?}", chains.findings());
    for number in 0..20 {
        let mut entries = Vec::new();
        chains.read(customer(number), ReadRange::ALL, &mut entries).unwrap();
        assert_eq!(entries.len(), 1, "customer {number}");
        assert_eq!(entries[0].status, EventStatus::Done, "customer {number}");
    }
}

/// Servers have checksums of their own, and keep quiet about what they find damaged. What a server takes for whole and gives
/// with another byte (by its memory, or by a fault in it) only the message's own checksum shows.
#[test]
fn a_byte_that_a_server_does_not_notice_is_noticed_and_another_is_asked() {
    let cluster = Cluster::start_linked(3, Sync::Always);
    // Whatever other servers answer comes through the first one.
    let options = NatsOptions { shard_count: 1, servers: vec![cluster.nodes[0].address()], ..cluster.options() };
    let config = config(6);
    let chains = NatsChains::create(&config, options.clone()).unwrap();
    let events: Vec<LinkedEvent> = (0..8).map(|number| commit(&chains, &config, customer(number), number)).collect();
    drop(chains);
    for number in [2, 5] {
        cluster.links.as_ref().unwrap().flip(1, 0, events[number].hash.as_bytes());
    }
    let chains = NatsChains::open(NatsOptions { cache_customers_max: 1, ..options }).unwrap();
    let until = Instant::now() + Duration::from_mins(2);
    while !chains.findings().iter().any(|finding| finding.server.is_some()) {
        assert!(Instant::now() < until, "nobody noticed: {:?}", chains.findings());
        for (number, event) in (0..).zip(&events) {
            assert_eq!(head(&chains, &config, customer(number)).link, event.hash, "customer {number}");
        }
    }
    let named = chains.findings().into_iter().filter_map(|finding| finding.server);
    assert!(named.into_iter().all(|server| server == "n2"), "{:?}", chains.findings());
}

/// A message that is whole, but does not belong where it is: stored again by somebody who may write to the stream.
#[test]
fn a_message_in_the_wrong_place_is_noticed() {
    let cluster = Cluster::start(3, Sync::Always);
    let options = NatsOptions { shard_count: 1, ..cluster.options() };
    let config = config(5);
    let chains = NatsChains::create(&config, options.clone()).unwrap();
    for number in 0..4 {
        commit(&chains, &config, customer(number % 2), number);
    }
    let raw = Raw::new(&cluster);
    let subject = format!("{}.chain.0.0", options.prefix);
    let body = json!({ "seq": 1, "next_by_subj": subject });
    let old = raw.ask(&format!("$JS.API.DIRECT.GET.{}-chains-0", options.prefix), body.to_string());
    raw.ask(&subject, old);
    let mut heads = Vec::new();
    let noticed = chains.load(&[customer(0)], &mut heads).unwrap_err();
    assert!(noticed.to_string().contains("forked"), "{noticed}");
    // A store that knew nothing before takes the newest message for what it says; the history shows it.
    let fresh = NatsChains::open(options).unwrap();
    let noticed = fresh.read(customer(0), ReadRange { from_seq: 1, ..ReadRange::ALL }, &mut Vec::new());
    assert!(matches!(noticed, Err(StoreError::Damaged(_))), "{noticed:?}");
    let mut entries = Vec::new();
    fresh.read(customer(1), ReadRange::ALL, &mut entries).unwrap();
    assert_eq!(entries.len(), 2, "the others are as they were");
}

/// A stream that was lost, and is there again without what was in it, takes the first message of somebody whom it never
/// knew: it does so at a place that was given before.
#[test]
fn a_stream_that_has_lost_messages_acknowledges_nothing() {
    let cluster = Cluster::start(1, Sync::Default);
    let options = NatsOptions { shard_count: 1, ..cluster.options() };
    let config = config(9);
    let chains = NatsChains::create(&config, options.clone()).unwrap();
    assert_eq!(head(&chains, &config, customer(7)).seq, 0);
    for number in 0..4 {
        commit(&chains, &config, customer(number), number);
    }
    let (raw, stream) = (Raw::new(&cluster), format!("{}-chains-0", options.prefix));
    let made = raw.api(&format!("STREAM.INFO.{stream}"), &json!({}))["config"].clone();
    assert!(raw.api(&format!("STREAM.DELETE.{stream}"), &json!({})).get("error").is_none());
    assert!(raw.api(&format!("STREAM.CREATE.{stream}"), &made).get("error").is_none());
    let of = customer(7);
    let event = deposit(&config, &bursar_engine::core::Head::start(&config.digest(), of), of, 70);
    let told = chains.append(&[Record::Started(event)], &mut Vec::new()).unwrap_err();
    assert!(told.to_string().contains("has lost messages"), "{told}");
}

/// Which ledger it is, is said in the first stream. Where that one is lost, the others are not taken for those of a new
/// ledger, and it is not made anew without a word.
#[test]
fn a_first_stream_that_was_lost_is_not_made_anew() {
    for count in [1, 3] {
        let cluster = Cluster::start(count, Sync::Always);
        let (options, config) = (cluster.options(), config(10));
        // Prepared twice, and created after that, as an operator may; all of it before there is anything to lose.
        assert_eq!(prepare(options.clone()).unwrap().ledger, None);
        assert_eq!(prepare(NatsOptions { patience: Duration::from_secs(5), ..options.clone() }).unwrap().ledger, None);
        let chains = NatsChains::create(&config, options.clone()).unwrap();
        (0..8).for_each(|number| drop(commit(&chains, &config, customer(number), number)));
        drop(chains);
        assert_eq!(prepare(options.clone()).unwrap().ledger, Some(config.clone()));
        let (raw, stream) = (Raw::new(&cluster), format!("{}-chains-0", options.prefix));
        assert!(raw.api(&format!("STREAM.DELETE.{stream}"), &json!({})).get("error").is_none());
        // Also by who expects another count of streams.
        for shard_count in [1, 2, 3] {
            let options = NatsOptions { shard_count, ..options.clone() };
            let told = prepare(options.clone()).unwrap_err();
            assert!(matches!(told, StoreError::Damaged(_)) && told.to_string().contains("chains-1 holds"), "{told}");
            let told = NatsChains::create(&common::config(11), options).unwrap_err();
            assert!(matches!(told, StoreError::Damaged(_)), "{told}");
        }
        assert!(raw.api(&format!("STREAM.INFO.{stream}"), &json!({})).get("error").is_some(), "it was made anew");
    }
}

/// No server is there. The client keeps what it is to send until its room for that is full, and then whoever asks would
/// wait for room, which there is once a server is back.
#[test]
fn servers_that_are_away_keep_nobody_for_ever() {
    let mut cluster = Cluster::start(1, Sync::Default);
    let options = NatsOptions { patience: Duration::from_secs(1), ..cluster.options() };
    let chains = Arc::new(NatsChains::create(&config(12), options).unwrap());
    cluster.nodes[0].kill();
    let (told, hears) = mpsc::channel();
    let count = 800;
    for number in 0..count {
        let (chains, told) = (chains.clone(), told.clone());
        std::thread::spawn(move || {
            let read = chains.feed().unwrap().newest_mark().is_err();
            let mut heads = Vec::new();
            let loaded = chains.load(&[customer(number)], &mut heads).is_err();
            told.send((read, loaded)).unwrap();
        });
    }
    for number in 0..count {
        let became = hears.recv_timeout(Duration::from_mins(5));
        assert_eq!(became, Ok((true, true)), "{number} of {count} were told");
    }
    cluster.nodes[0].start();
    let until = Instant::now() + Duration::from_mins(2);
    while chains.load(&[customer(1)], &mut Vec::new()).is_err() {
        assert!(Instant::now() < until, "it does not go on once they are back");
    }
}
