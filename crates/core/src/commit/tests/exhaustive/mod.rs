//! Small worlds, searched to the end: every order of everything that can happen within their bounds.
//!
//! A depth-first search over the real machine, in the world of the other tests: each step of each owner, each
//! request, each thing the rail may do, each delivery, each death of an owner with each part of its write, each
//! loss of power with each loss of what was not synced. A state that was met before is not searched again; states
//! are known by a [fingerprint](fingerprint) of all that can make a difference.
//!
//! After every transition the invariants of the world must hold ([`World::check`], [`World::answered`] and
//! [`World::call`]). Where nobody has anything left to do, everybody must have been answered and nobody be
//! locked; and since no path comes back to a state it has been at, every path gets there. So each request is
//! answered once the faults stop, however unfair the order.
//!
//! One thing is taken for granted: an append that is under way when its store fails does not arrive at the store
//! that comes up again (its connection is gone). It could stand on an abort that was lost. Writes to the table,
//! which is another store, may arrive whenever they like.
//!
//! What is not searched: more customers, requests and faults than the bounds say, different times (the clock
//! stands still, which is the worst case for ids), and the order of answers in a network that keeps it.
//!
//! A violation prints the way to it. The search has no randomness, so the same test finds it again.
//!
//! [`World::check`]: super::world::World::check
//! [`World::answered`]: super::world::World::answered
//! [`World::call`]: super::world::World::call

mod fingerprint;
mod state;

use super::super::Routes;
use super::world::config;
use crate::event::RailId;
use crate::policy::{DisputablePolicy, LedgerConfig, LockedPolicy};
use alloc::vec::Vec;
use state::{Action, Scene, State};
use std::collections::HashSet;
use std::eprintln;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A state on the path, and what is still to be tried there.
struct Visit {
    state: State,
    fingerprint: u128,
    actions: Vec<Action>,
    next: usize,
}

impl Visit {
    fn at(scene: &Scene, state: State, fingerprint: u128) -> Self {
        let actions = state.actions(scene);
        Self { state, fingerprint, actions, next: 0 }
    }
}

/// How much there was to search.
#[derive(Debug, Default, PartialEq, Eq)]
struct Searched {
    states: usize,
    transitions: usize,
    depth: usize,
    ends: usize,
}

/// Searches everything. Panics on the first violation, after printing how to get there.
fn search(name: &str, scene: &Scene) -> Searched {
    let mut searched = Searched { states: 1, ..Searched::default() };
    let mut visited = HashSet::new();
    let mut on_path = HashSet::new();
    let start = scene.start();
    let fingerprint = start.fingerprint();
    visited.insert(fingerprint);
    on_path.insert(fingerprint);
    let mut path = alloc::vec![Visit::at(scene, start, fingerprint)];
    while let Some(visit) = path.last_mut() {
        let Some(action) = visit.actions.get(visit.next) else {
            on_path.remove(&visit.fingerprint);
            path.pop();
            continue;
        };
        visit.next += 1;
        searched.transitions += 1;
        let mut state = visit.state.clone();
        let met = catch_unwind(AssertUnwindSafe(|| {
            state.apply(scene, action);
            let fingerprint = state.fingerprint();
            assert!(!on_path.contains(&fingerprint), "it goes round in circles");
            if !visited.insert(fingerprint) {
                return None;
            }
            state.check(scene);
            let visit = Visit::at(scene, state, fingerprint);
            let at_end = !visit.actions.iter().any(Action::is_progress);
            if at_end {
                visit.state.check_finished(scene);
            }
            Some((visit, at_end))
        }));
        match met {
            Ok(None) => {}
            Ok(Some((visit, at_end))) => {
                searched.states += 1;
                searched.ends += usize::from(at_end);
                on_path.insert(visit.fingerprint);
                path.push(visit);
                searched.depth = searched.depth.max(path.len());
            }
            Err(violation) => {
                eprintln!("{name}: violated after {searched:?}. The way there:");
                tell(scene, &path);
                resume_unwind(violation);
            }
        }
    }
    searched
}

/// Goes the way again, and says what happens.
fn tell(scene: &Scene, path: &[Visit]) {
    for (place, Visit { state, actions, next, .. }) in path.iter().enumerate() {
        eprintln!("{place:>4} {}", state.describe(scene, &actions[next - 1]));
    }
    if let Some(Visit { state, .. }) = path.last() {
        for customer in [1, 2] {
            eprintln!("before the last step, customer {customer}: {}", state.world.story(customer));
        }
    }
}

fn rules() -> LedgerConfig {
    config(LockedPolicy::Nothing, DisputablePolicy::Deposits)
}

/// One owner, split stores, no fault; the other scenes say what they add.
fn scene(before: &'static str, clients: &'static [&'static str]) -> Scene {
    Scene {
        config: rules(),
        routes: Routes::default(),
        owner_count: 1,
        whole_batches: false,
        at_once: false,
        pipelined: false,
        before,
        clients,
        deaths: 0,
        crashes: 0,
        store_fails: false,
        late_writes: false,
        rail_faults: 0,
        rail_refuses: false,
        by_hand: 0,
    }
}

fn rail_for_withdrawals() -> Routes {
    Routes { deposit: None, withdrawal: RailId::new(1) }
}

/// Searches, says how much there was, and that it was not next to nothing.
fn explore(name: &str, scene: &Scene, states_min: usize) {
    let searched = search(name, scene);
    eprintln!("{name}: {searched:?}");
    assert!(searched.states >= states_min && searched.ends > 0, "{name}: the world has become small: {searched:?}");
}

/// The same state is the same whatever its hash tables look like inside, and whoever of the owners is which.
#[test]
fn a_fingerprint_does_not_depend_on_order() {
    let clients = &["withdrawal 1 11 1", "withdrawal 2 12 1"];
    let routes = rail_for_withdrawals();
    let scene = Scene { owner_count: 2, routes, ..scene("deposit 1 10 5\n deposit 2 20 5", clients) };
    let at = |seed: u64, busy: usize, order: [usize; 2]| {
        let mut state = scene.start();
        for process in state.processes.iter_mut().flatten() {
            process.owner = super::owner::Owner::open(&state.world, routes, false, seed);
        }
        for client in order {
            state.apply(&scene, &Action::Submit { client, owner: busy });
            for _ in 0..8 {
                state.apply(&scene, &Action::Step { owner: busy });
            }
        }
        state.apply(&scene, &Action::Step { owner: busy });
        assert_eq!(state.processes[busy].as_ref().unwrap().owner.machine.open_events().count(), 2);
        state.fingerprint()
    };
    let first = at(0, 0, [0, 1]);
    for seed in 1..20 {
        assert_eq!(at(seed, 0, [0, 1]), first);
        assert_eq!(at(seed, 1, [0, 1]), first);
        assert_eq!(at(seed, 0, [1, 0]), first);
    }
}

#[test]
fn a_search_can_be_repeated() {
    let scene = Scene { owner_count: 2, deaths: 1, ..scene("", &["deposit 1 10 5", "deposit 2 10 7"]) };
    assert_eq!(search("twice", &scene), search("twice", &scene));
}

/// A withdrawal asks its bank, a deposit waits behind it, and another customer wants the same transaction id.
#[test]
fn one_owner_with_a_rail() {
    let clients = &["withdrawal 1 11 4", "deposit 1 12 2", "deposit 2 11 1"];
    let scene = Scene {
        routes: rail_for_withdrawals(),
        deaths: 1,
        crashes: 1,
        late_writes: true,
        rail_faults: 1,
        rail_refuses: true,
        ..scene("deposit 1 10 5", clients)
    };
    explore("one owner with a rail", &scene, 300_000);
}

/// As above, the engine's way: the next batch is decided while one waits for its sync.
#[test]
fn one_owner_with_a_rail_pipelined() {
    let clients = &["withdrawal 1 11 4", "deposit 1 12 2", "deposit 2 11 1"];
    let scene = Scene {
        routes: rail_for_withdrawals(),
        pipelined: true,
        deaths: 1,
        crashes: 1,
        late_writes: true,
        rail_faults: 1,
        rail_refuses: true,
        ..scene("deposit 1 10 5", clients)
    };
    explore("one owner with a rail, pipelined", &scene, 700_000);
}

/// The embedded store: a batch is there as a whole or not at all, and some are on their way.
#[test]
fn whole_batches_with_a_rail() {
    let clients = &["withdrawal 1 11 4\n dispute 1 10", "deposit 2 11 1"];
    let scene = Scene {
        routes: rail_for_withdrawals(),
        whole_batches: true,
        pipelined: true,
        deaths: 2,
        rail_faults: 2,
        rail_refuses: true,
        ..scene("deposit 1 10 5", clients)
    };
    explore("whole batches with a rail", &scene, 300_000);
}

/// As above, where a batch without a rail is one step.
#[test]
fn whole_batches_at_once() {
    let clients = &["withdrawal 1 11 4\n dispute 1 10", "deposit 2 11 1\n dispute 2 11"];
    let scene = Scene {
        routes: rail_for_withdrawals(),
        whole_batches: true,
        at_once: true,
        pipelined: true,
        deaths: 1,
        rail_faults: 1,
        rail_refuses: true,
        ..scene("deposit 1 10 5", clients)
    };
    explore("whole batches at once", &scene, 100_000);
}

/// Two owners, both alive or one of them believing so: the slower one goes on after the other has recovered its
/// customer.
#[test]
fn two_owners() {
    let clients = &["deposit 1 10 5", "withdrawal 1 11 3", "deposit 2 12 1"];
    let scene = Scene { owner_count: 2, deaths: 1, crashes: 1, ..scene("", clients) };
    explore("two owners", &scene, 500_000);
}

#[test]
fn two_owners_pipelined() {
    let clients = &["deposit 1 10 5\n dispute 1 10"];
    let scene = Scene { owner_count: 2, pipelined: true, deaths: 1, crashes: 1, ..scene("", clients) };
    explore("two owners, pipelined", &scene, 40_000);
}

#[test]
fn two_owners_with_a_rail() {
    let clients = &["withdrawal 1 11 4", "deposit 2 11 1"];
    let scene = Scene {
        routes: rail_for_withdrawals(),
        owner_count: 2,
        crashes: 1,
        rail_faults: 1,
        rail_refuses: true,
        ..scene("deposit 1 10 5", clients)
    };
    explore("two owners with a rail", &scene, 200_000);
}

/// An owner dies while its withdrawal is under way; the other, or the next one, asks the rail again.
#[test]
fn two_owners_with_a_rail_and_a_death() {
    let clients = &["withdrawal 1 11 4", "deposit 1 12 2"];
    let scene = Scene {
        routes: rail_for_withdrawals(),
        owner_count: 2,
        deaths: 1,
        rail_refuses: true,
        ..scene("deposit 1 10 5", clients)
    };
    explore("two owners with a rail and a death", &scene, 25_000);
}

/// An operator settles by hand what is under way, while the rail answers and the other owner may know better.
#[test]
fn two_owners_and_an_operator() {
    let clients = &["withdrawal 1 11 4", "deposit 1 12 2"];
    let scene = Scene {
        routes: rail_for_withdrawals(),
        owner_count: 2,
        rail_faults: 1,
        rail_refuses: true,
        by_hand: 2,
        ..scene("deposit 1 10 5", clients)
    };
    explore("two owners and an operator", &scene, 10_000);
}

/// The same with whole batches, which are lost or not.
#[test]
fn whole_batches_and_an_operator() {
    let clients = &["withdrawal 1 11 4\n deposit 1 12 2", "deposit 2 11 1"];
    let scene = Scene {
        routes: rail_for_withdrawals(),
        whole_batches: true,
        at_once: true,
        pipelined: true,
        deaths: 1,
        rail_faults: 1,
        rail_refuses: true,
        by_hand: 2,
        ..scene("deposit 1 10 5", clients)
    };
    explore("whole batches and an operator", &scene, 10_000);
}

/// One transaction comes back to where it was: the entry looks as a slow owner has seen it.
#[test]
fn a_dispute_comes_back() {
    let clients = &["dispute 1 10\n resolve 1 10\n dispute 1 10"];
    let scene = Scene { owner_count: 2, deaths: 2, crashes: 1, ..scene("deposit 1 10 5", clients) };
    explore("a dispute comes back", &scene, 250_000);
}

/// Two customers want one transaction id, and each something else besides.
#[test]
fn a_race_for_one_transaction_id() {
    let clients = &["deposit 1 10 5", "deposit 2 10 7", "withdrawal 1 11 1"];
    let scene = Scene { owner_count: 2, deaths: 1, crashes: 1, ..scene("", clients) };
    explore("a race for one transaction id", &scene, 300_000);
}

/// Who was not told asks again, and what was lost may come back looking the same, while another wants its id.
#[test]
fn a_request_is_repeated() {
    let clients = &["deposit 1 10 5", "deposit 1 10 5", "deposit 2 10 7"];
    let scene = Scene { owner_count: 2, crashes: 1, ..scene("", clients) };
    explore("a request is repeated", &scene, 40_000);
}

/// The store fails and loses what was not synced, while its owners live on until they hear of it.
#[test]
fn a_store_that_fails_under_its_owners() {
    let clients = &["deposit 1 10 5\n dispute 1 10", "deposit 2 11 1"];
    let scene = Scene { owner_count: 2, deaths: 1, crashes: 1, store_fails: true, ..scene("", clients) };
    explore("a store that fails under its owners", &scene, 700_000);
}

/// Two customers, and two owners, want the same key; and one of them asks again.
#[test]
fn a_race_for_one_key() {
    let clients = &["dispute 1 10 key=1", "dispute 2 20 key=1"];
    let scene = Scene { owner_count: 2, deaths: 1, crashes: 1, ..scene("deposit 1 10 5\n deposit 2 20 5", clients) };
    explore("a race for one key", &scene, 50_000);
}

/// Who was not told asks again with the same key, also when somebody else has undone meanwhile what it asked for.
#[test]
fn a_request_is_repeated_with_its_key() {
    let clients = &["dispute 1 10 key=1", "dispute 1 10 key=1", "resolve 1 10"];
    let scene = Scene { owner_count: 2, crashes: 1, ..scene("deposit 1 10 5", clients) };
    explore("a request is repeated with its key", &scene, 80_000);
}

/// One owner whose writes arrive late: half of an event's proposals may be in the table, and the other half not yet.
#[test]
fn one_owner_with_a_key_and_late_writes() {
    let clients = &["unlock 1 key=1", "dispute 2 20 key=1", "unlock 1 key=1"];
    let before = "deposit 1 10 5\n dispute 1 10\n chargeback 1 10\n deposit 2 20 5";
    let scene = Scene { deaths: 2, crashes: 1, late_writes: true, ..scene(before, clients) };
    explore("one owner with a key and late writes", &scene, 70_000);
}

/// The embedded store: keyed requests go step by step, others at once, and some wait behind a rail.
#[test]
fn whole_batches_with_keys() {
    let clients = &["withdrawal 1 11 1\n dispute 1 10 key=1", "dispute 1 10 key=1\n dispute 2 20 key=1 expect=1"];
    let scene = Scene {
        routes: rail_for_withdrawals(),
        whole_batches: true,
        at_once: true,
        pipelined: true,
        deaths: 1,
        rail_faults: 1,
        rail_refuses: true,
        ..scene("deposit 1 10 5\n deposit 2 20 5", clients)
    };
    explore("whole batches with keys", &scene, 100_000);
}
