//! Opening, refusing to open, and what people see in SQL.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::core::commit::{Outcome, RailCall, Routes, Settlement, Terms};
use bursar_engine::core::{
    Amount, Currencies, Currency, CustomerId, Decimals, LedgerConfig, Policy, RailId, ReasonText, Rejection, Request,
    TransactionId,
};
use bursar_engine::store::{Chains, ReadRange};
use bursar_engine::{Ledger, LedgerOptions, Rail, RailReply, new_config};
use bursar_postgres::{OpenError, PostgresConfig, PostgresStore, SCHEMA_VERSION, migrate};
use common::PostgresServer;
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

fn ledger() -> LedgerConfig {
    let gold = Currency::new("GOLD", Decimals::new(9).unwrap()).unwrap();
    new_config(Policy::default(), Currencies::named(vec![gold]).unwrap()).unwrap()
}

#[test]
fn a_server_that_could_lose_money_is_refused() {
    for (setting, name) in [
        ("fsync=off", "fsync"),
        ("full_page_writes=off", "full_page_writes"),
        ("synchronous_commit=off", "synchronous_commit"),
    ] {
        let server = PostgresServer::start_with(&[setting]);
        let config = server.fresh_schema();
        let Err(OpenError::UnsafeSettings { settings }) = PostgresStore::create(&config, &ledger()) else {
            panic!("{setting} was not refused")
        };
        assert_eq!(settings.iter().map(|setting| setting.name).collect::<Vec<_>>(), [name]);
        let allowed = PostgresConfig { allow_unsafe_settings: true, ..config };
        PostgresStore::create(&allowed, &ledger()).unwrap();
    }
}

#[test]
fn schemas_and_ledgers_are_told_apart() {
    let server = PostgresServer::start();
    let config = server.fresh_schema();
    assert!(matches!(PostgresStore::open(&config), Err(OpenError::NoLedger { .. })));
    assert_eq!(migrate(&config).unwrap(), 0);
    assert_eq!(migrate(&config).unwrap(), SCHEMA_VERSION);
    assert!(matches!(PostgresStore::open(&config), Err(OpenError::NoLedger { .. })));
    let mine = ledger();
    drop(PostgresStore::create(&config, &mine).unwrap());
    assert!(matches!(PostgresStore::create(&config, &ledger()), Err(OpenError::Exists { .. })));
    assert_eq!(PostgresStore::open(&config).unwrap().config(), &mine);
    assert!(matches!(PostgresStore::open_same(&config, &ledger()), Err(OpenError::OtherLedger { .. })));
    server.psql(&format!("INSERT INTO {}.migrations VALUES (99, now())", config.schema));
    let newer = PostgresStore::open(&config);
    assert!(matches!(newer, Err(OpenError::NewerSchema { found: 99, .. })), "{newer:?}");
    assert!(matches!(migrate(&config), Err(OpenError::NewerSchema { found: 99, .. })));
    let injected = PostgresConfig { schema: "a; DROP SCHEMA b".to_owned(), ..config };
    assert!(matches!(migrate(&injected), Err(OpenError::Config { field: "schema", .. })));
}

#[test]
fn people_read_exact_amounts_and_ids() {
    let server = PostgresServer::start();
    let config = server.fresh_schema();
    let mine = ledger();
    let store = Arc::new(PostgresStore::create(&config, &mine).unwrap());
    let ledger = Ledger::with_stores(mine, store.clone(), store, LedgerOptions::default()).unwrap();
    let (small, large) = (CustomerId::new(u128::from(u64::MAX)), CustomerId::new(1 << 64));
    let deposit = |customer, id, steps| Request::deposit(customer, TransactionId::new(id), Amount::from_steps(steps));
    // As many digits as an amount can have.
    ledger.submit(deposit(small, 7, i64::MAX)).unwrap();
    ledger.submit(deposit(large, 8, 1)).unwrap();
    ledger.submit(Request::dispute(large, TransactionId::new(8))).unwrap();
    ledger.close().unwrap();
    let read = |what: &str| server.psql(&what.replace("{}", &config.schema));
    assert_eq!(
        read("SELECT customer_id, currency, available, held, total, locked FROM {}.balances ORDER BY customer"),
        "18446744073709551615|GOLD|9223372036.854775807|0.000000000|9223372036.854775807|f\n\
         00000000-0000-0001-0000-000000000000|GOLD|0.000000000|0.000000001|0.000000001|f"
    );
    assert_eq!(
        read("SELECT seq, kind, transaction_id, amount, status FROM {}.statement ORDER BY customer, seq"),
        "1|deposit|7|9223372036.854775807|done\n1|deposit|8|0.000000001|done\n2|dispute|8|0.000000001|done"
    );
    assert_eq!(read("SELECT transaction_id, kind, amount FROM {}.open_disputes"), "8|deposit|0.000000001");
    // A chain that was written to by hand is not believed.
    read("UPDATE {}.events SET hash = sha256('x') WHERE seq = 2");
    let store = PostgresStore::open(&config).unwrap();
    let found = store.load(&[large], &mut Vec::new());
    assert_eq!(found.unwrap_err().code(), "damaged");
}

/// A rail that never can tell.
#[derive(Debug)]
struct SilentRail;

impl Rail for SilentRail {
    fn call(&self, _: RailCall, reply: RailReply) {
        drop(reply);
    }
}

#[test]
fn people_see_what_an_operator_settled_and_no_keys() {
    let server = PostgresServer::start();
    let config = server.fresh_schema();
    let mine = ledger();
    let store = Arc::new(PostgresStore::create(&config, &mine).unwrap());
    let rail = RailId::new(1).unwrap();
    let routes = Routes { withdrawal: Some(rail), ..Routes::default() };
    let options = LedgerOptions { routes, ..LedgerOptions::default() }.with_rail(rail, Arc::new(SilentRail));
    let ledger = Ledger::with_stores(mine, store.clone(), store.clone(), options).unwrap();
    let (customer, amount) = (CustomerId::new(7), Amount::from_steps(1_000_000_000));
    for id in 1..=3 {
        ledger.submit(Request::deposit(customer, TransactionId::new(id), amount)).unwrap();
    }
    let reason = |text: &str| ReasonText::new(text);
    let settlements = [Settlement::Done(reason("seen at the bank")), Settlement::Aborted(reason("it never left"))];
    for (id, settlement) in (4..).zip(settlements) {
        let withdrawal = Request::withdrawal(customer, TransactionId::new(id), amount);
        ledger.submit_then(vec![withdrawal], drop).unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        let open = loop {
            if let Some(open) = ledger.open_events().unwrap().pop() {
                break open;
            }
            assert!(Instant::now() < deadline, "the withdrawal does not begin");
            std::thread::sleep(Duration::from_millis(5));
        };
        ledger.settle(open.id(), settlement).unwrap();
    }
    let terms = Terms { key: ledger.key(b"once"), ..Terms::default() };
    ledger.submit_under(Request::dispute(customer, TransactionId::new(1)), terms).unwrap();
    ledger.close().unwrap();
    let read = |what: &str| server.psql(&what.replace("{}", &config.schema));
    assert_eq!(
        read("SELECT seq, kind, status, by_hand, reason FROM {}.statement WHERE seq > 3 ORDER BY seq"),
        "4|withdrawal|done|t|seen at the bank\n5|withdrawal|aborted|t|it never left\n6|dispute|done|f|"
    );
    assert_eq!(read("SELECT available, held, seq FROM {}.balances"), "1.000000000|1.000000000|6");
    assert_eq!(read("SELECT transaction_id FROM {}.open_disputes"), "1");
    assert_eq!(read("SELECT count(*) FROM {}.transactions"), "5");
    // The newest event in effect is the one that was settled: its balance holds as well.
    read("DELETE FROM {}.statuses WHERE seq > 4");
    assert_eq!(read("SELECT available, seq FROM {}.balances"), "2.000000000|4");
    let mut entries = Vec::new();
    store.read(customer, ReadRange::ALL, &mut entries).unwrap();
    let keys: Vec<_> = entries.iter().map(|entry| entry.linked.event.key).collect();
    assert_eq!(keys, [None, None, None, None, None, terms.key]);
    assert_eq!(read("SELECT count(*) FROM {}.request_keys k JOIN {}.events e ON e.request_key = k.id"), "1");
}

/// Two engines that each remember the ends of the same chain: what one has written, the other one decides on.
#[test]
fn what_is_remembered_is_held_against_the_chain() {
    let server = PostgresServer::start();
    let config = server.fresh_schema();
    let mine = ledger();
    let open = || {
        let store = Arc::new(PostgresStore::open(&config).unwrap());
        Ledger::with_stores(mine.clone(), store.clone(), store, LedgerOptions::default()).unwrap()
    };
    drop(PostgresStore::create(&config, &mine).unwrap());
    let (one, other) = (open(), open());
    let customer = CustomerId::new(1);
    let applied = |ledger: &Ledger, request| match ledger.submit(request).unwrap() {
        Outcome::Applied(receipt) => receipt.event.seq,
        refused @ (Outcome::AlreadyApplied(_) | Outcome::Rejected(_)) => panic!("{refused:?}"),
    };
    let deposit = |id, steps| Request::deposit(customer, TransactionId::new(id), Amount::from_steps(steps));
    let withdrawal = |id, steps| Request::withdrawal(customer, TransactionId::new(id), Amount::from_steps(steps));
    assert_eq!(applied(&one, deposit(1, 5)), 1);
    assert_eq!(applied(&other, deposit(2, 10)), 2);
    assert_eq!(applied(&one, withdrawal(3, 12)), 3);
    assert_eq!(applied(&other, withdrawal(4, 3)), 4);
    let refused = one.submit(withdrawal(5, 1)).unwrap();
    assert!(
        matches!(refused, Outcome::Rejected(Rejection::InsufficientFunds { available, .. }) if available.steps() == 0),
        "{refused:?}"
    );
    assert_eq!(applied(&other, deposit(6, 1)), 5);
    // Somebody who only looks on sees it as well.
    assert_eq!(one.customer(customer).unwrap().unwrap().seq, 5);
}

/// A standby took over that did not have all (nobody waited for it): what was there on the server before is no ground to
/// put an event behind it. It would leave a hole.
#[test]
fn an_end_that_is_remembered_of_another_server_is_forgotten() {
    let mut server = PostgresServer::start();
    let config = server.fresh_schema();
    let mine = ledger();
    let store = Arc::new(PostgresStore::create(&config, &mine).unwrap());
    let ledger = Ledger::with_stores(mine, store.clone(), store, LedgerOptions::default()).unwrap();
    let deposit = |id| Request::deposit(CustomerId::new(1), TransactionId::new(id), Amount::from_steps(1));
    for id in 1..=3 {
        assert!(matches!(ledger.submit(deposit(id)).unwrap(), Outcome::Applied(_)));
    }
    let schema = &config.schema;
    for table in ["events", "statuses", "transactions"] {
        server.psql(&format!("DELETE FROM {schema}.{table} WHERE seq = 3"));
    }
    server.kill();
    server.run();
    assert!(matches!(ledger.submit(deposit(4)).unwrap(), Outcome::Applied(_)));
    ledger.close().unwrap();
    assert_eq!(server.psql(&format!("SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM {schema}.events")), "1 2 3");
}

#[test]
fn a_replica_is_read_once_it_has_what_the_primary_has() {
    let server = PostgresServer::start();
    // So slow that whoever does not wait for it reads what was.
    let mut standby = PostgresServer::without_data(&["recovery_min_apply_delay=40ms", "log_statement=all"]);
    standby.follow_anew(&server, "standby");
    server.wait_for("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'", "1");
    let config = PostgresConfig { read_url: Some(standby.config().url), read_wait_ms: 5_000, ..server.fresh_schema() };
    let mine = ledger();
    let store = Arc::new(PostgresStore::create(&config, &mine).unwrap());
    let ledger = Ledger::with_stores(mine, store.clone(), store, LedgerOptions::default()).unwrap();
    let customer = CustomerId::new(1);
    let deposit = |id: u64| Request::deposit(customer, TransactionId::new(id.into()), Amount::from_steps(1));
    let check = |count: u64| {
        assert_eq!(ledger.chain(customer, ReadRange::ALL).unwrap().len() as u64, count);
        assert_eq!(ledger.totals().unwrap().event_count, count);
        assert_eq!(ledger.customers(None, 10).unwrap()[0].head.seq, count);
        assert_eq!(ledger.transaction(TransactionId::new(count.into())).unwrap().unwrap().events.len(), 1);
    };
    // Until the replica has the ledger, it is left alone for a while.
    let asked = |standby: &PostgresServer| standby.log().matches("FROM events e LEFT JOIN statuses").count();
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut count = 0;
    while asked(&standby) < 10 {
        assert!(Instant::now() < deadline, "the replica is not asked:\n{}", standby.log());
        count += 1;
        ledger.submit(deposit(count)).unwrap();
        check(count);
    }
    // Without it, the primary is asked.
    standby.stop();
    ledger.submit(deposit(count + 1)).unwrap();
    check(count + 1);
}

/// A server that hangs: its system still takes connections, and nobody answers. Whoever waits for it for ever never gets to
/// the one that has taken over, and no limit of time is kept.
#[test]
fn a_server_that_takes_connections_and_says_nothing_is_passed_over() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = PostgresServer::start();
    let config = PostgresConfig { connect_timeout_ms: 300, retry_for_ms: 1_000, ..server.fresh_schema() };
    let first = format!("bursar@127.0.0.1:{},", silent.local_addr().unwrap().port());
    let both = PostgresConfig {
        url: config.url.replacen("bursar@", &first, 1).replacen("/postgres", ":5432/postgres", 1),
        ..config.clone()
    };
    let (url, _) = both.url.split_once(',').unwrap();
    let alone = PostgresConfig { url: format!("{url}/postgres"), ..config };
    let (told, hears) = mpsc::channel();
    std::thread::spawn(move || {
        let refused = PostgresStore::open(&alone).map(drop);
        drop(PostgresStore::create(&both, &ledger()).unwrap());
        let mut heads = Vec::new();
        let read = PostgresStore::open(&both).unwrap().load(&[CustomerId::new(1)], &mut heads);
        told.send((refused, read)).unwrap();
    });
    let (refused, read) = hears.recv_timeout(Duration::from_mins(5)).expect("it waits for ever");
    assert!(matches!(&refused, Err(OpenError::Server { what, .. }) if what.contains("no answer")), "{refused:?}");
    read.unwrap();
}
