//! Two engine processes write to the same customers of one ledger while their server is killed, paused and cut off,
//! and they themselves are killed and paused. After each round everything is compared: chains, table, sums, and what
//! the engines were told.
//!
//! A short form runs with all tests; `BURSAR_FAULT_ROUNDS=100` says how many rounds, `BURSAR_FAULT_SEED` which.
//! What is not tried: loss of power, since the server's files stay in the system's memory.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
mod engines;
mod history;

use bursar_engine::core::Policy;
use bursar_engine::new_config;
use bursar_postgres::PostgresStore;
use common::PostgresServer;
use engines::{Dice, Engine};
use history::{Ended, History, Told, check};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Not a test of its own: the engine process, which the other test starts.
#[test]
fn engine_process() {
    engines::engine_process();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    ServerKilled,
    ServerPaused,
    ConnectionsCut,
    EnginePaused,
    EngineKilled,
}

const FAULTS: [Fault; 5] =
    [Fault::ServerKilled, Fault::ServerPaused, Fault::ConnectionsCut, Fault::EnginePaused, Fault::EngineKilled];

#[test]
fn nothing_is_lost_and_nothing_done_twice() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let round_count = number("BURSAR_FAULT_ROUNDS", 5);
    let seed = number("BURSAR_FAULT_SEED", u64::from(std::process::id()));
    println!("BURSAR_FAULT_SEED={seed}");
    let mut dice = Dice(seed);
    let mut server = PostgresServer::start();
    let ledger = new_config(Policy::default(), bursar_engine::core::Currencies::default()).unwrap();
    let mut history = History::default();
    let config = server.fresh_schema();
    drop(PostgresStore::create(&config, &ledger).unwrap());
    let logs = tempfile::tempdir().unwrap();
    let mut witnessed: BTreeMap<Fault, u64> = BTreeMap::new();
    for round in 0..round_count {
        let mut log_count = 0;
        let mut engine = |dice: &mut Dice| {
            log_count += 1;
            Engine::start(&config, round, dice.roll() >> 8, &logs.path().join(format!("{round}-{log_count}")))
        };
        let mut engines: Vec<Engine> = (0..2).map(|_| engine(&mut dice)).collect();
        std::thread::sleep(Duration::from_millis(300 + dice.below(300)));
        let faults = [FAULTS[(round % 5) as usize], FAULTS[dice.below(5) as usize]];
        for fault in faults {
            *witnessed.entry(fault).or_default() += 1;
            let hit = dice.below(2) as usize;
            match fault {
                Fault::ServerKilled => {
                    server.kill();
                    std::thread::sleep(Duration::from_millis(dice.below(200)));
                    server.run();
                }
                Fault::ServerPaused => {
                    server.pause(true);
                    // Sometimes longer than the engines wait for one answer.
                    std::thread::sleep(Duration::from_millis([50, 500, 3_500][dice.below(3) as usize]));
                    server.pause(false);
                }
                Fault::ConnectionsCut => {
                    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name = 'bursar'";
                    // On a slow machine the engines may not be connected yet.
                    let deadline = Instant::now() + Duration::from_secs(30);
                    while server.psql(cut) == "0" {
                        assert!(Instant::now() < deadline, "no connections to cut");
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
                Fault::EnginePaused => {
                    engines[hit].signal(rustix::process::Signal::STOP);
                    engines[hit].is_paused = true;
                }
                Fault::EngineKilled => {
                    engines.remove(hit).kill();
                    engines.push(engine(&mut dice));
                }
            }
            std::thread::sleep(Duration::from_millis(dice.below(400)));
        }
        // Whoever is paused wakes up as a stale engine, beside the other one.
        for engine in &mut engines {
            if std::mem::take(&mut engine.is_paused) {
                engine.signal(rustix::process::Signal::CONT);
            }
        }
        std::thread::sleep(Duration::from_millis(300));
        engines.into_iter().for_each(Engine::stop);
        for number in 1..=log_count {
            history.take(&std::fs::read_to_string(logs.path().join(format!("{round}-{number}"))).unwrap());
        }
        let wrong = check(&config, &ledger, &history);
        assert!(wrong.is_empty(), "seed {seed}, round {round}, {faults:?}:\n{}", wrong.join("\n"));
    }
    let History { begun, ended, .. } = &history;
    let applied = ended.values().filter(|end| matches!(end.told, Told::Applied { .. })).count();
    let keyed = |end: &Ended| matches!(&end.told, Told::Applied { .. } | Told::Already { .. });
    let keyed = ended.iter().filter(|(id, end)| begun[*id].key.is_some() && keyed(end)).count();
    println!(
        "{round_count} rounds, faults {witnessed:?}: {} requests, {} answered, {applied} applied, {keyed} by keys",
        begun.len(),
        ended.len()
    );
    assert!(keyed > 0, "no keys were used");
    assert!(applied as u64 > 20 * round_count, "too little was done: {applied}");
}
