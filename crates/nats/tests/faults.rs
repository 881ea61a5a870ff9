//! Two engines over one cluster, while its servers are killed, paused and parted from each other, and the engines fall
//! asleep, die in the middle of a batch, and lose the cluster.
//!
//! The load: deposits and withdrawals, disputes with keys, conditions, reads; withdrawals go through a rail, which never
//! tells of some, and these are settled by hand. After each round: everything that was acknowledged is there, and
//! once; all answers are those of one order of events for each customer (`history`); every chain follows from its
//! rules; sums and table say what the chains say. The short form runs a few rounds; `BURSAR_NATS_FAULT_ROUNDS=100` runs
//! more, `BURSAR_NATS_FAULT_SEED` other ones.
//!
//! Not here: loss of power (what was killed leaves its files to the system), and loss of the transactions table.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;
#[path = "faults/engine.rs"]
mod engine;
#[path = "faults/history.rs"]
mod history;

use bursar_engine::Totals;
use bursar_engine::core::commit::{Minimum, Terms};
use bursar_engine::core::{
    Amount, CurrencyIndex, CustomerId, EntryId, EventRef, EventStatus, LedgerConfig, Request, RequestKey, RequestKind,
    TransactionId,
};
use bursar_engine::store::{Chains, ReadRange, Transactions};
use bursar_nats::{NatsChains, NatsOptions};
use common::links::Link;
use common::{Cluster, PairTable, Sync, config};
use engine::{Book, Engine};
use history::{Chain, Told, wrong_answers};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CUSTOMERS: u64 = 8;
const SERVERS: usize = 3;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A request, about a transaction of before or a new one.
fn request(random: &mut Random, book: &Book, mine: &mut Vec<(CustomerId, TransactionId)>) -> Request {
    let customer = CustomerId::new(u128::from(random.below(CUSTOMERS) + 1));
    let transaction = TransactionId::new(u128::from(book.next.fetch_add(1, Ordering::Relaxed)));
    let amount = Amount::from_steps(random.below(100).cast_signed() + 1);
    let old = mine.get(random.below(mine.len().max(1) as u64) as usize).copied();
    match (random.below(40), old) {
        (0..=5, Some((customer, transaction))) => Request::dispute(customer, transaction),
        (6..=10, Some((customer, transaction))) => Request::resolve(customer, transaction),
        (11, Some((customer, transaction))) => Request::chargeback(customer, transaction),
        (12..=14, _) => Request::unlock(customer),
        (15..=22, _) => Request::withdrawal(customer, transaction, amount),
        _ => {
            mine.push((customer, transaction));
            Request::deposit(customer, transaction, amount)
        }
    }
}

/// What is set beside it: keys that come again, mostly with the same request; conditions, mostly such as hold.
fn terms(random: &mut Random, book: &Book, config: &LedgerConfig, request: &Request) -> Terms {
    let mut terms = Terms::default();
    if request.action.takes_key() && random.below(2) == 0 {
        let (kind, customer, old) = (request.action.kind().name(), request.customer, request.action.transaction());
        let text = match random.below(10) {
            0 => format!("any {customer} {}", random.below(10)),
            _ => format!("{kind} {customer} {old:?} {}", random.below(2)),
        };
        terms.key = RequestKey::of_text(&config.digest(), text.as_bytes());
    }
    if random.below(6) == 0 {
        terms.expected_seq = Some(book.newest(request.customer).saturating_sub(random.below(4) / 3));
    }
    if random.below(8) == 0 {
        let amount = Amount::from_steps(random.below(400).cast_signed());
        terms.minimum_available = Some(Minimum { currency: CurrencyIndex(0), amount });
    }
    terms
}

/// Asks one engine for one thing after the other; every few times the other engine for the same thing as well.
fn write(engines: &[Engine; 2], which: usize, book: &Book, config: &LedgerConfig, stopped: &AtomicBool, seed: u64) {
    let mut random = Random(seed);
    let mut mine: Vec<(CustomerId, TransactionId)> = Vec::new();
    while !stopped.load(Ordering::Relaxed) {
        if random.below(6) == 0 {
            engines[which].read(book, CustomerId::new(u128::from(random.below(CUSTOMERS) + 1)));
            continue;
        }
        let request = request(&mut random, book, &mut mine);
        let terms = terms(&mut random, book, config, &request);
        if random.below(8) == 0 {
            let ask = |engine: &Engine| engine.submit(book, request, terms);
            std::thread::scope(|scope| engines.iter().for_each(|engine| drop(scope.spawn(move || ask(engine)))));
        } else {
            engines[which].submit(book, request, terms);
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
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
}

const FAULTS: [Fault; 13] = [
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
                nodes.iter_mut().for_each(common::Node::kill);
                std::thread::sleep(short);
                nodes.iter_mut().for_each(common::Node::start);
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
        }
    }
}

/// Everything that must be true after a round. Gives how many events there are.
fn check(config: &LedgerConfig, options: &NatsOptions, table: &Arc<PairTable>, book: &Book) -> usize {
    // What an engine that died left open is settled by whoever opens the ledger next.
    let last = Engine::new(options.clone(), table.clone());
    let until = Instant::now() + Duration::from_mins(2);
    while !last.ledger().is_some_and(|ledger| ledger.open_events().is_ok_and(|open| open.is_empty())) {
        assert!(Instant::now() < until, "events stay open");
        last.settle(book, 2);
        std::thread::sleep(Duration::from_millis(10));
    }
    let chains = NatsChains::open(options.clone()).unwrap();
    assert_eq!(chains.open_customers().unwrap(), []);
    let told = book.told();
    let mut by_customer: HashMap<CustomerId, Vec<&Told>> = HashMap::new();
    for told in &told {
        by_customer.entry(told.customer).or_default().push(told);
    }
    let of = |request: &Request, key| (request.customer, request.action.kind(), request.action.transaction(), key);
    let asked: HashSet<_> = book.asked().iter().map(|(request, terms)| of(request, terms.key)).collect();
    let mut sums = Totals::default();
    let mut made: HashMap<TransactionId, usize> = HashMap::new();
    let mut followed: Vec<Chain> = Vec::new();
    for number in 1..=CUSTOMERS {
        let customer = CustomerId::new(u128::from(number));
        let (mut entries, mut heads) = (Vec::new(), Vec::new());
        chains.read(customer, ReadRange::ALL, &mut entries).unwrap();
        chains.load(&[customer], &mut heads).unwrap();
        let chain = Chain::follow(config, customer, entries).unwrap_or_else(|what| panic!("{what}"));
        if let Some(head) = heads.pop().flatten() {
            assert_eq!(head, *chain.head(), "the head of customer {customer}");
        }
        for entry in &chain.entries {
            let event = &entry.linked.event;
            sums.begun(event);
            if !entry.status.is_done() {
                sums.aborted();
                continue;
            }
            sums.done(event);
            let is_asked = asked.contains(&(customer, event.kind, event.transaction, event.key));
            assert!(is_asked, "nobody asked for {event:?}");
            if let (RequestKind::Deposit | RequestKind::Withdrawal, Some(id)) = (event.kind, event.transaction) {
                *made.entry(id).or_default() += 1;
            }
        }
        let told = by_customer.get(&customer).map(Vec::as_slice).unwrap_or_default();
        let wrong = wrong_answers(config, &chain, told);
        assert!(wrong.is_empty(), "answers that are in no order: {wrong:#?}");
        followed.push(chain);
    }
    assert!(made.values().all(|count| *count == 1), "made twice: {made:?}");
    assert_eq!(chains.totals().unwrap(), sums, "the sums, and what the chains say");
    check_table(&chains, table, &followed);
    followed.iter().map(|chain| chain.entries.len()).sum()
}

fn check_table(chains: &NatsChains, table: &PairTable, followed: &[Chain]) {
    let states: HashMap<_, _> = followed.iter().flat_map(Chain::states).collect();
    let transactions: Vec<TransactionId> = states.keys().copied().collect();
    let (mut table_says, mut statuses) = (Vec::new(), Vec::new());
    let ids: Vec<EntryId> = transactions.iter().map(|transaction| EntryId::from(*transaction)).collect();
    table.get(&ids, &mut table_says).unwrap();
    let proposed: Vec<EventRef> = table_says.iter().map(|entry| entry.proposed.unwrap().event).collect();
    chains.status(&proposed, &mut statuses).unwrap();
    for ((transaction, entry), status) in transactions.iter().zip(&table_says).zip(statuses) {
        let is_done = status.as_ref().is_some_and(EventStatus::is_done);
        let state = entry.proposed.filter(|_| is_done).map(|proposed| proposed.state).or(entry.approved);
        assert_eq!(state.as_ref(), states.get(transaction), "table and chains differ on {transaction}");
    }
    for (key, event) in followed.iter().flat_map(Chain::keys) {
        let mut entries = Vec::new();
        table.get(&[EntryId::Key(key)], &mut entries).unwrap();
        assert_eq!(entries[0].proposed.map(|proposed| proposed.event), Some(event), "of key {key}");
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
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

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_applied_twice() {
    let rounds = number("BURSAR_NATS_FAULT_ROUNDS", 4);
    let seed = number("BURSAR_NATS_FAULT_SEED", 1);
    let cluster = Cluster::start_linked(SERVERS, Sync::Always);
    let config = config(9);
    let options = NatsOptions { patience: Duration::from_secs(40), ..cluster.options() };
    let chains = Arc::new(NatsChains::create(&config, options.clone()).unwrap());
    let table = Arc::new(PairTable::new(&config, chains));
    let way = || cluster.nodes.iter().map(|node| Link::to(node.port)).collect::<Vec<_>>();
    let ways = vec![way(), way()];
    let engine = |way: &Vec<Link>| {
        let servers = way.iter().map(|link| format!("127.0.0.1:{}", link.port)).collect();
        Engine::new(NatsOptions { servers, ..options.clone() }, table.clone())
    };
    let engines = Arc::new([engine(&ways[0]), engine(&ways[1])]);
    let stream = format!("{}-chains-0", options.prefix);
    let mut world = World { cluster, ways, engines, stream, deposed: [0; 2] };
    let book = Book::new(CUSTOMERS);
    let mut random = Random(seed);
    let mut suffered: BTreeMap<Fault, u64> = BTreeMap::new();
    let mut applied = 0;
    for round in 1..=rounds {
        let began = Instant::now();
        let turn = (round - 1 + seed * 5) as usize % FAULTS.len();
        let faults = [FAULTS[turn], FAULTS[random.below(FAULTS.len() as u64) as usize]];
        run_round(&mut world, &book, &config, faults, &mut random, seed ^ round << 20);
        for fault in faults {
            *suffered.entry(fault).or_default() += 1;
        }
        let ended_ms = began.elapsed().as_millis();
        let event_count = check(&config, &options, &table, &book);
        let checked_ms = began.elapsed().as_millis();
        let (answered, applied_now) = (book.told().len(), book.applied.load(Ordering::SeqCst));
        assert!(applied_now >= applied + 20, "nothing goes on after {faults:?}");
        applied = applied_now;
        eprintln!(
            "round {round}, {faults:?}: {event_count} events, {answered} answers; over after {ended_ms} ms, checked after {checked_ms}"
        );
    }
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
