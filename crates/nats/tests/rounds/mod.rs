//! Two engines over one cluster, while its servers are killed, paused and parted from each other, and the engines fall
//! asleep, die in the middle of a batch, and lose the cluster; and their table, wherever it is, suffers what it can.
//!
//! The load: deposits and withdrawals, disputes with keys, conditions, reads; withdrawals go through a rail, which never
//! tells of some, and these are settled by hand. After each round: everything that was acknowledged is there, and
//! once; all answers are those of one order of events for each customer (`history`); every chain follows from its
//! rules; sums and table say what the chains say. The short form runs a few rounds; `BURSAR_NATS_FAULT_ROUNDS=100` runs
//! more, `BURSAR_NATS_FAULT_SEED` other ones. Two follow all of it, and must see every record once and in one order.
//!
//! Not here: loss of power (what was killed leaves its files to the system).
#![allow(dead_code)] // each test has its faults

pub(crate) mod check;
pub(crate) mod engine;
#[path = "../../../postgres/tests/following/mod.rs"]
mod following;
pub(crate) mod history;
pub(crate) mod load;

use crate::common::links::Link;
use crate::common::{Cluster, Node, Sync, config};
use bursar_engine::core::LedgerConfig;
use bursar_engine::store::Transactions;
use bursar_nats::{NatsChains, NatsOptions};
use check::check;
use engine::{Book, Engine};
use following::Following;
use load::{Random, write};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CUSTOMERS: u64 = 8;
const SERVERS: usize = 3;

/// Where the transactions table is.
pub(crate) trait Tables: Send + std::marker::Sync + fmt::Debug {
    /// The table, as an engine opens it; `None` while it cannot be reached.
    fn open(&self, config: &LedgerConfig) -> Option<Arc<dyn Transactions>>;

    /// Everything that goes wrong in these rounds, in the order in which they take turns.
    fn faults(&self) -> Vec<Fault>;

    /// One thing that goes wrong with the table.
    fn suffer(&self, fault: Fault, random: &mut Random);
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    LeaderAlone,
    AllKilled,
    EngineAsleep,
    LeaderPaused,
    OneWay,
    EngineParted,
    EngineDead,
    OneAway,
    ServerKilled,
    AllParted,
    TwoPaused,
    KilledInTurn,
    ServerPaused,
    TableKilled,
    TablePaused,
    TableCutOff,
}

/// What can go wrong with servers of chains, and with engines.
pub(crate) const FAULTS: [Fault; 13] = [
    Fault::LeaderAlone,
    Fault::AllKilled,
    Fault::EngineAsleep,
    Fault::LeaderPaused,
    Fault::OneWay,
    Fault::EngineParted,
    Fault::EngineDead,
    Fault::OneAway,
    Fault::ServerKilled,
    Fault::AllParted,
    Fault::TwoPaused,
    Fault::KilledInTurn,
    Fault::ServerPaused,
];

/// All that faults happen to.
struct World {
    cluster: Cluster,
    /// From each engine to each server.
    ways: Vec<Vec<Link>>,
    engines: Arc<[Engine; 2]>,
    tables: Arc<dyn Tables>,
    stream: String,
    /// How often the others had another leader before the one that was paused or alone came back, and had none.
    deposed: [u64; 2],
}

impl World {
    /// Holds back, or breaks, what is between two servers.
    fn part(&self, one: usize, other: usize, is_cut: bool) {
        let links = self.cluster.links.as_ref().unwrap();
        if is_cut {
            links.cut(one, other);
        } else {
            links.hold(one, other);
            links.hold(other, one);
        }
    }

    fn mend(&self) {
        self.cluster.links.as_ref().unwrap().mend();
        self.ways.iter().flatten().for_each(Link::mend);
    }

    /// The server that leads one of the streams.
    fn leader(&self) -> usize {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(leader) = (0..SERVERS).find_map(|asked| self.cluster.leader_by(asked, &self.stream)) {
                return leader;
            }
            assert!(Instant::now() < until, "nobody leads {}", self.stream);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whether servers chose another leader while one was away: if they never do, they were not parted.
    fn note_deposed(&mut self, leader: usize) {
        let by_others = (0..SERVERS).filter(|asked| *asked != leader);
        let mut another = by_others.filter_map(|asked| self.cluster.leader_by(asked, &self.stream));
        let is_deposed = another.any(|now| now != leader);
        self.deposed[usize::from(!is_deposed)] += 1;
    }

    /// One thing that goes wrong, while engines write.
    fn suffer(&mut self, fault: Fault, book: &Book, random: &mut Random) {
        let which = random.below(3) as usize;
        let (next, last) = ((which + 1) % 3, (which + 2) % 3);
        let short = Duration::from_millis(200 + random.below(800));
        // Servers choose a new leader after four to nine seconds of silence.
        let long = Duration::from_millis(10_000 + random.below(2_000));
        let either = if random.below(2) == 0 { short } else { long };
        let is_cut = random.below(3) == 0;
        let nodes = &mut self.cluster.nodes;
        match fault {
            Fault::ServerKilled => {
                nodes[which].kill();
                std::thread::sleep(short);
                nodes[which].start();
            }
            Fault::AllKilled => {
                nodes.iter_mut().for_each(Node::kill);
                std::thread::sleep(short);
                nodes.iter_mut().for_each(Node::start);
            }
            Fault::KilledInTurn => {
                for index in [which, next, last] {
                    nodes[index].kill();
                    std::thread::sleep(short / 4);
                    nodes[index].start();
                    std::thread::sleep(short);
                }
            }
            Fault::ServerPaused => {
                nodes[which].pause();
                std::thread::sleep(short * 2);
                nodes[which].resume();
            }
            Fault::TwoPaused => {
                nodes[which].pause();
                nodes[next].pause();
                std::thread::sleep(short);
                nodes[which].resume();
                nodes[next].resume();
            }
            Fault::LeaderPaused => {
                let leader = self.leader();
                self.cluster.nodes[leader].pause();
                std::thread::sleep(long);
                self.note_deposed(leader);
                self.cluster.nodes[leader].resume();
            }
            // It goes on believing that it leads, and one engine sees nobody else.
            Fault::LeaderAlone => {
                let leader = self.leader();
                for other in (0..SERVERS).filter(|other| *other != leader) {
                    self.part(leader, other, is_cut);
                    self.ways[0][other].cut(true);
                }
                self.ways[1][leader].cut(true);
                std::thread::sleep(long);
                self.note_deposed(leader);
                self.mend();
            }
            Fault::OneAway => {
                self.part(which, next, is_cut);
                self.part(which, last, is_cut);
                std::thread::sleep(either);
                self.mend();
            }
            Fault::AllParted => {
                self.part(which, next, is_cut);
                self.part(which, last, is_cut);
                self.part(next, last, is_cut);
                std::thread::sleep(either);
                self.mend();
            }
            // One is not heard by the others, or by one of them, and hears them.
            Fault::OneWay => {
                let links = self.cluster.links.as_ref().unwrap();
                links.hold(which, next);
                if is_cut {
                    links.hold(which, last);
                }
                std::thread::sleep(either);
                self.mend();
            }
            Fault::EngineParted => {
                for way in &self.ways[which % 2] {
                    way.hold_back(true);
                    way.hold_forward(random.below(2) == 0);
                    way.cut(is_cut);
                }
                std::thread::sleep(either);
                self.mend();
            }
            // Another one takes over its customers, before it wakes up.
            Fault::EngineAsleep => {
                let fate = &self.engines[which % 2].fate;
                let slept = fate.slept.load(Ordering::SeqCst);
                let until = Instant::now() + Duration::from_secs(10);
                fate.sleep(true);
                while fate.slept.load(Ordering::SeqCst) == slept && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let applied = book.applied.load(Ordering::SeqCst);
                while book.applied.load(Ordering::SeqCst) < applied + 8 && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(5));
                }
                fate.sleep(false);
            }
            Fault::EngineDead => {
                self.engines[which % 2].fate.die_in(1 + random.below(4));
                std::thread::sleep(short);
            }
            Fault::TableKilled | Fault::TablePaused | Fault::TableCutOff => self.tables.suffer(fault, random),
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Whoever panics in between does not leave the others at work for ever.
struct Ends<'a>([&'a AtomicBool; 2]);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|flag| flag.store(true, Ordering::Relaxed));
    }
}

/// Engines write, and things go wrong, until all is well again for a moment.
fn run_round(
    world: &mut World,
    book: &Book,
    config: &LedgerConfig,
    faults: [Fault; 2],
    random: &mut Random,
    seed: u64,
) {
    let engines = world.engines.clone();
    let (stopped, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (engines, stopped, over) = (&*engines, &stopped, &over);
        let _ends = Ends([stopped, over]);
        for operator in 0..2_u8 {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    engines[usize::from(operator)].settle(book, operator);
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        let writers: Vec<_> = (0..4)
            .map(|writer: u64| {
                let seed = seed ^ writer << 10;
                scope.spawn(move || write(engines, writer as usize % 2, book, config, stopped, seed))
            })
            .collect();
        for fault in faults {
            std::thread::sleep(Duration::from_millis(300));
            world.suffer(fault, book, random);
        }
        world.cluster.wait_until_healthy();
        // What is mended serves again.
        let (applied, until) = (book.applied.load(Ordering::SeqCst), Instant::now() + Duration::from_mins(2));
        while book.applied.load(Ordering::SeqCst) < applied + 20 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        stopped.store(true, Ordering::Relaxed);
        // Whoever waits for an event that its rail does not tell of waits for the operator.
        for writer in writers {
            writer.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    for engine in engines.iter() {
        engine.fate.die_in(0);
    }
}

/// Rounds of two faults each, and everything compared after each. `tables` says where the table is, for a new ledger.
pub(crate) fn run(rounds_default: u64, tables: impl FnOnce(&LedgerConfig, Arc<NatsChains>) -> Arc<dyn Tables>) {
    let rounds = number("BURSAR_NATS_FAULT_ROUNDS", rounds_default);
    let seed = number("BURSAR_NATS_FAULT_SEED", 1);
    let cluster = Cluster::start_linked(SERVERS, Sync::Always);
    let config = config(9);
    let options = NatsOptions { patience: Duration::from_secs(40), ..cluster.options() };
    let chains = Arc::new(NatsChains::create(&config, options.clone()).unwrap());
    let tables = tables(&config, chains);
    let kinds = tables.faults();
    let way = || cluster.nodes.iter().map(|node| Link::to(node.port)).collect::<Vec<_>>();
    let ways = vec![way(), way()];
    let engine = |way: &Vec<Link>| {
        let servers = way.iter().map(|link| format!("127.0.0.1:{}", link.port)).collect();
        Engine::new(NatsOptions { servers, ..options.clone() }, tables.clone())
    };
    let engines = Arc::new([engine(&ways[0]), engine(&ways[1])]);
    let stream = format!("{}-chains-0", options.prefix);
    // Two follow through all of it, one past the relays, and give up soon on what does not answer.
    let own = NatsOptions { patience: Duration::from_secs(2), ..options.clone() };
    let through =
        NatsOptions { servers: ways[0].iter().map(|link| format!("127.0.0.1:{}", link.port)).collect(), ..own.clone() };
    let followers = [own, through].map(|own| Following::start(move || NatsChains::open(own.clone()).ok()));
    let mut world = World { cluster, ways, engines, tables: tables.clone(), stream, deposed: [0; 2] };
    let book = Book::new(CUSTOMERS);
    let mut random = Random(seed);
    let mut suffered: BTreeMap<Fault, u64> = BTreeMap::new();
    let mut applied = 0;
    for round in 1..=rounds {
        let began = Instant::now();
        let turn = (round - 1 + seed * 5) as usize % kinds.len();
        let faults = [kinds[turn], kinds[random.below(kinds.len() as u64) as usize]];
        run_round(&mut world, &book, &config, faults, &mut random, seed ^ round << 20);
        for fault in faults {
            *suffered.entry(fault).or_default() += 1;
        }
        let ended_ms = began.elapsed().as_millis();
        let event_count = check(&config, &options, &tables, &book);
        let checked_ms = began.elapsed().as_millis();
        let (answered, applied_now) = (book.told().len(), book.applied.load(Ordering::SeqCst));
        assert!(applied_now >= applied + 20, "nothing goes on after {faults:?}");
        applied = applied_now;
        eprintln!(
            "round {round}, {faults:?}: {event_count} events, {answered} answers; over after {ended_ms} ms, checked after {checked_ms}"
        );
    }
    let chains = NatsChains::open(options).unwrap();
    let followed = followers.map(Following::finish);
    let wrong = following::check(&chains, &followed[0]);
    assert!(wrong.is_empty(), "the feed: {wrong:#?}");
    assert!(followed[0] == followed[1], "two who followed saw another order");
    assert!(following::all(&chains, 100) == followed[0], "the feed is in another order for whoever comes later");
    let waited = followed[0].iter().filter(|item| item.entry.linked.event.rail.is_some()).count();
    eprintln!("{} records followed, {waited} of events that went through a rail", followed[0].len());
    assert!(waited > 0, "no event went through a rail");
    let [by_hand, otherwise] = [0, 1].map(|place| book.by_hand[place].load(Ordering::SeqCst));
    let keyed = book.told().iter().filter(|told| told.used_key()).count();
    let count = |of: fn(&engine::Fate) -> &AtomicU64| -> u64 {
        world.engines.iter().map(|engine| of(&engine.fate).load(Ordering::SeqCst)).sum()
    };
    let (slept, died) = (count(|fate| &fate.slept), count(|fate| &fate.died));
    eprintln!(
        "{rounds} rounds, seed {seed}: {suffered:?}; settled by hand {by_hand}, too late for it {otherwise}, {keyed} answers by keys, {slept} woke up, {died} died"
    );
    assert!(by_hand > 0 && keyed > 0, "nothing was settled by hand, or no key was used");
    let [deposed, kept] = world.deposed;
    eprintln!("leaders away: {deposed} times another one was chosen, {kept} times not yet");
    assert!(deposed > 0 || kept < 3, "leaders that are away are not missed");
    let slept_in_vain = suffered.contains_key(&Fault::EngineAsleep) && slept == 0;
    assert!(!slept_in_vain, "no engine fell asleep");
}
