//! One state of a small world, and everything that can happen in it next.

use super::super::super::*;
use super::super::owner::{Owner, submission};
use super::super::world::{Chain, Verdict, World};
use crate::event::Record;
use crate::id::TransactionId;
use crate::policy::LedgerConfig;
use crate::transaction::{EntryId, TransactionEntry};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What a world holds, and how much may go wrong in it.
#[allow(clippy::struct_excessive_bools)] // each is a choice of its own
pub(super) struct Scene {
    pub(super) config: LedgerConfig,
    pub(super) routes: Routes,
    pub(super) owner_count: usize,
    /// Batches take effect as a whole; one owner only.
    pub(super) whole_batches: bool,
    /// Whole batches are decided at once where they can be.
    pub(super) at_once: bool,
    /// An owner decides its next batch while one waits for its sync, as the engine does.
    pub(super) pipelined: bool,
    /// What is done before the search begins, a request a line.
    pub(super) before: &'static str,
    /// Who asks for what, a request a line; each client in order, not waiting for answers, of any owner.
    pub(super) clients: &'static [&'static str],
    /// How often an owner may die.
    pub(super) deaths: u8,
    /// How often the power may fail, or (where there are two kinds) the store alone while its owners live on.
    pub(super) crashes: u8,
    pub(super) store_fails: bool,
    /// What a dead owner was writing may arrive later.
    pub(super) late_writes: bool,
    /// How often the rail may be silent before or after it acted, or answer twice.
    pub(super) rail_faults: u8,
    pub(super) rail_refuses: bool,
    /// How often an operator may settle an event by hand, as its rail's book says or is made to say.
    pub(super) by_hand: u8,
}

/// How many batches an owner decides ahead: one waits for its sync, one is on its way there.
const WAITING_FOR_SYNC_MAX: usize = 1;

/// A process that owns the ledger, or believes that it does.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) owner: Owner,
    /// Decided batches, oldest first, and whether they are synced. Only where batches are pipelined.
    pub(super) in_flight: VecDeque<(Batch, bool)>,
    pub(super) tickets: BTreeSet<Ticket>,
    /// The store has failed since: the next call hears an error, and the process stops.
    pub(super) cut_off: bool,
}

/// A write of a dead owner that is still under way.
#[derive(Clone, Debug)]
pub(super) enum Write {
    Append(Vec<Record>),
    Propose(Vec<Proposal>),
    Approve(Vec<Approval>),
}

/// What the stores fall back to if a batch that takes effect as a whole does not.
#[derive(Clone)]
pub(super) struct Stores {
    pub(super) chains: BTreeMap<CustomerId, Chain>,
    pub(super) table: BTreeMap<EntryId, TransactionEntry>,
}

#[derive(Clone)]
pub(super) struct State {
    pub(super) world: World,
    /// The stores before each batch that is not durable, oldest first. Only where batches are whole.
    pub(super) before_batches: Vec<Stores>,
    pub(super) processes: Vec<Option<Process>>,
    /// How many of each client's requests were submitted.
    pub(super) submitted: Vec<usize>,
    /// Calls on their way to the rail, by the owner that made them.
    pub(super) calls: Vec<(usize, RailCall)>,
    /// Answers on their way back.
    pub(super) answers: Vec<(usize, EventId, RailAnswer)>,
    pub(super) late: Vec<Write>,
    pub(super) deaths_left: u8,
    pub(super) crashes_left: u8,
    pub(super) rail_faults_left: u8,
    pub(super) by_hand_left: u8,
}

/// Something that happens. Numbers are places in the lists of [`State`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Submit {
        client: usize,
        owner: usize,
    },
    /// The next step of an owner's batch, or the first of a new one.
    Step {
        owner: usize,
    },
    /// Where batches are pipelined: makes durable what is decided.
    Sync {
        owner: usize,
    },
    /// Where batches are pipelined: finishes the oldest.
    Finish {
        owner: usize,
    },
    /// It is time to ask the rail again.
    AskAgain {
        owner: usize,
    },
    Open {
        owner: usize,
    },
    RailActs {
        call: usize,
    },
    RailRefuses {
        call: usize,
    },
    RailIsSilentBefore {
        call: usize,
    },
    RailIsSilentAfter {
        call: usize,
    },
    Deliver {
        answer: usize,
    },
    /// An operator settles the open event of a customer by hand.
    Settle {
        owner: usize,
        customer: CustomerId,
        done: bool,
    },
    /// Delivers an answer that will be delivered once more.
    DeliverTwice {
        answer: usize,
    },
    Arrive {
        write: usize,
    },
    /// An owner dies, and of the write it was at so many records of each chain got through, or these proposals.
    Die {
        owner: usize,
        kept: Vec<usize>,
    },
    /// An owner dies, and the write it was at is still under way.
    DieWhileWriting {
        owner: usize,
    },
    /// The owner dies where batches are whole, and so many of those not durable are there.
    DieWithBatches {
        kept: usize,
    },
    /// The power fails, after the write of this owner got through; each chain keeps so many of its unsynced records.
    PowerFails {
        written_by: Option<usize>,
        kept: Vec<usize>,
    },
    /// As above, but the owners live on.
    StoreFails {
        kept: Vec<usize>,
    },
}

impl Action {
    /// Whether somebody has to do this some time, by himself.
    pub(super) const fn is_progress(&self) -> bool {
        match self {
            Self::Submit { .. }
            | Self::Step { .. }
            | Self::Sync { .. }
            | Self::Finish { .. }
            | Self::AskAgain { .. }
            | Self::Open { .. }
            | Self::RailActs { .. }
            | Self::RailRefuses { .. }
            | Self::Deliver { .. }
            | Self::Arrive { .. } => true,
            Self::Settle { .. }
            | Self::RailIsSilentBefore { .. }
            | Self::RailIsSilentAfter { .. }
            | Self::DeliverTwice { .. }
            | Self::Die { .. }
            | Self::DieWhileWriting { .. }
            | Self::DieWithBatches { .. }
            | Self::PowerFails { .. }
            | Self::StoreFails { .. } => false,
        }
    }
}

/// The time stands still, so that an event that was lost and is decided again looks the same.
const NOW_MS: u64 = 1;

/// All ways to keep a first part of each of so many lists.
fn prefixes(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut all = alloc::vec![Vec::new()];
    for &length in lengths {
        all = all
            .into_iter()
            .flat_map(|kept: Vec<usize>| {
                (0..=length).map(move |keep| kept.iter().copied().chain([keep]).collect::<Vec<_>>())
            })
            .collect();
    }
    all
}

impl Scene {
    fn open(&self, world: &World) -> Process {
        let owner = Owner::open(world, self.routes, self.whole_batches, 0);
        let owner = if self.at_once { owner.deciding_at_once() } else { owner };
        Process { owner, in_flight: VecDeque::new(), tickets: BTreeSet::new(), cut_off: false }
    }

    pub(super) fn start(&self) -> State {
        let mut world = World::new(self.config.clone());
        let mut first = Owner::open(&world, Routes::default(), self.whole_batches, 0);
        first.submit_all(&mut world, 1000, self.before);
        first.run(&mut world, NOW_MS);
        assert!(world.watched.is_empty() && first.codes().matches("applied").count() == first.answers.len());
        world.told.clear();
        let processes = (0..self.owner_count).map(|_| Some(self.open(&world))).collect();
        State {
            world,
            before_batches: Vec::new(),
            processes,
            submitted: alloc::vec![0; self.clients.len()],
            calls: Vec::new(),
            answers: Vec::new(),
            late: Vec::new(),
            deaths_left: self.deaths,
            crashes_left: self.crashes,
            rail_faults_left: self.rail_faults,
            by_hand_left: self.by_hand,
        }
    }

    fn requests(&self, client: usize) -> Vec<&'static str> {
        self.clients[client].lines().map(str::trim).filter(|line| !line.is_empty()).collect()
    }

    /// A ticket says which request it is.
    fn ticket(client: usize, place: usize) -> u64 {
        (client * 10 + place + 1) as u64
    }
}

impl Process {
    /// Where the step of its batch comes next, if one does.
    fn can_step(&self) -> bool {
        let Owner { machine, queue, in_batch, .. } = &self.owner;
        self.cut_off
            || *in_batch
            || ((!queue.is_empty() || machine.has_work()) && self.in_flight.len() <= WAITING_FOR_SYNC_MAX)
    }

    /// What it is writing.
    fn write(&self) -> Option<Write> {
        match self.owner.next_step()? {
            _ if self.cut_off => None,
            Step::AppendStarted => Some(Write::Append(self.owner.batch.started().to_vec())),
            Step::AppendClosed => Some(Write::Append(self.owner.batch.closed().to_vec())),
            Step::Propose => Some(Write::Propose(self.owner.batch.proposals().to_vec())),
            Step::Finish if !self.owner.batch.approvals().is_empty() => {
                Some(Write::Approve(self.owner.batch.approvals().to_vec()))
            }
            Step::AtOnce | Step::Load | Step::Get | Step::Settle | Step::Recall | Step::Sync | Step::Finish => None,
        }
    }
}

impl State {
    pub(super) fn actions(&self, scene: &Scene) -> Vec<Action> {
        let mut actions = Vec::new();
        let living = |owner: usize| self.processes[owner].as_ref().is_some_and(|process| !process.cut_off);
        for client in 0..scene.clients.len() {
            if self.submitted[client] < scene.requests(client).len() {
                let owners = (0..scene.owner_count).filter(|owner| living(*owner));
                actions.extend(owners.map(|owner| Action::Submit { client, owner }));
            }
        }
        for (owner, process) in self.processes.iter().enumerate() {
            let Some(process) = process else {
                actions.push(Action::Open { owner });
                continue;
            };
            if process.can_step() {
                actions.push(Action::Step { owner });
            }
            if !process.cut_off && process.in_flight.iter().any(|(_, synced)| !synced) {
                actions.push(Action::Sync { owner });
            }
            if !process.cut_off && process.in_flight.front().is_some_and(|(_, synced)| *synced) {
                actions.push(Action::Finish { owner });
            }
            if !process.cut_off && process.owner.machine.next_due_ms().is_some() {
                actions.push(Action::AskAgain { owner });
            }
        }
        for (call, (_, what)) in self.calls.iter().enumerate() {
            actions.push(Action::RailActs { call });
            let first = !self.world.book.contains_key(&what.event.id());
            if scene.rail_refuses && first {
                actions.push(Action::RailRefuses { call });
            }
            if self.rail_faults_left > 0 {
                actions.extend([Action::RailIsSilentBefore { call }, Action::RailIsSilentAfter { call }]);
            }
        }
        for answer in 0..self.answers.len() {
            actions.push(Action::Deliver { answer });
            if self.rail_faults_left > 0 {
                actions.push(Action::DeliverTwice { answer });
            }
        }
        if self.by_hand_left > 0 {
            self.settlements(&mut actions);
        }
        actions.extend((0..self.late.len()).map(|write| Action::Arrive { write }));
        if self.deaths_left > 0 {
            (0..scene.owner_count).for_each(|owner| self.deaths(scene, owner, &mut actions));
        }
        if self.crashes_left > 0 {
            self.crashes(scene, &mut actions);
        }
        actions
    }

    /// What an operator may settle: what the rail has heard of, and never against the rail's book.
    fn settlements(&self, actions: &mut Vec<Action>) {
        for (owner, process) in self.processes.iter().enumerate() {
            let Some(process) = process.as_ref().filter(|process| !process.cut_off) else { continue };
            let mut open: Vec<_> = process.owner.machine.open.values().filter(|open| open.answer.is_none()).collect();
            open.sort_by_key(|open| open.linked.event.customer);
            for open in open {
                let (id, customer) = (open.linked.id(), open.linked.event.customer);
                let verdict = self.world.book.get(&id).map(|(_, verdict)| *verdict == Verdict::Acted);
                let is_called = self.calls.iter().any(|(_, call)| call.event.id() == id);
                match verdict {
                    Some(done) => actions.push(Action::Settle { owner, customer, done }),
                    None if is_called => {
                        actions.extend([true, false].map(|done| Action::Settle { owner, customer, done }));
                    }
                    None => {}
                }
            }
        }
    }

    fn deaths(&self, scene: &Scene, owner: usize, actions: &mut Vec<Action>) {
        let Some(process) = &self.processes[owner] else { return };
        if scene.whole_batches {
            let unfinished = process.owner.in_batch && process.owner.batch.step() != Step::Sync;
            let whole = self.before_batches.len() - usize::from(unfinished && !self.before_batches.is_empty());
            actions.extend((0..=whole).map(|kept| Action::DieWithBatches { kept }));
            return;
        }
        let write = process.write();
        let kept = match &write {
            // That all of it gets through is a step, and then a death.
            Some(Write::Append(records)) => {
                let mut lengths: BTreeMap<CustomerId, usize> = BTreeMap::new();
                for record in records {
                    *lengths.entry(record.customer()).or_default() += 1;
                }
                prefixes(&lengths.into_values().collect::<Vec<_>>())
            }
            Some(Write::Propose(proposals)) => prefixes(&alloc::vec![1; proposals.len()]),
            Some(Write::Approve(approvals)) => prefixes(&alloc::vec![1; approvals.len()]),
            None => alloc::vec![Vec::new()],
        };
        actions.extend(kept.into_iter().map(|kept| Action::Die { owner, kept }));
        if scene.late_writes && write.is_some() {
            actions.push(Action::DieWhileWriting { owner });
        }
    }

    fn crashes(&self, scene: &Scene, actions: &mut Vec<Action>) {
        let unsynced = |world: &World| -> Vec<usize> {
            world.chains.values().map(|chain| chain.records.len() - chain.synced).collect()
        };
        for kept in prefixes(&unsynced(&self.world)) {
            if scene.store_fails {
                actions.push(Action::StoreFails { kept: kept.clone() });
            }
            actions.push(Action::PowerFails { written_by: None, kept });
        }
        for owner in 0..scene.owner_count {
            let write = self.processes[owner].as_ref().and_then(Process::write);
            if let Some(write @ (Write::Append(_) | Write::Propose(_))) = write {
                let mut world = self.world.clone();
                arrive(&mut world, &write);
                for kept in prefixes(&unsynced(&world)) {
                    actions.push(Action::PowerFails { written_by: Some(owner), kept });
                }
            }
        }
    }

    /// In words, for a trace.
    pub(super) fn describe(&self, scene: &Scene, action: &Action) -> String {
        let rail_call = |call: usize| {
            let (owner, call) = &self.calls[call];
            let transaction = call.event.event.transaction.map_or(0, TransactionId::bits);
            format!("transaction {transaction}, asked by {owner} (attempt {})", call.attempt)
        };
        match action {
            Action::Submit { client, owner } => {
                let place = self.submitted[*client];
                format!("submit {} to {owner}: {}", Scene::ticket(*client, place), scene.requests(*client)[place])
            }
            Action::Step { owner } => match &self.processes[*owner] {
                Some(process) if process.cut_off => format!("owner {owner} hears that the store has failed"),
                Some(process) => {
                    let step = process.owner.next_step();
                    step.map_or(format!("owner {owner} Gather"), |step| format!("owner {owner} {step:?}"))
                }
                None => format!("{action:?}"),
            },
            Action::RailActs { call }
            | Action::RailRefuses { call }
            | Action::RailIsSilentBefore { call }
            | Action::RailIsSilentAfter { call } => format!("{action:?}: {}", rail_call(*call)),
            Action::Deliver { answer } | Action::DeliverTwice { answer } => {
                let (owner, _, what) = &self.answers[*answer];
                format!("{action:?}: to {owner}, {what:?}")
            }
            Action::Die { owner, kept } => {
                let step = self.processes[*owner].as_ref().and_then(|process| process.owner.next_step());
                format!("owner {owner} dies at {step:?}, of which got through {kept:?}")
            }
            Action::Sync { .. }
            | Action::Finish { .. }
            | Action::AskAgain { .. }
            | Action::Open { .. }
            | Action::Settle { .. }
            | Action::Arrive { .. }
            | Action::DieWhileWriting { .. }
            | Action::DieWithBatches { .. }
            | Action::PowerFails { .. }
            | Action::StoreFails { .. } => format!("{action:?}"),
        }
    }

    pub(super) fn apply(&mut self, scene: &Scene, action: &Action) {
        match action {
            Action::Submit { client, owner } => {
                let place = self.submitted[*client];
                let ticket = Scene::ticket(*client, place);
                let process = self.processes[*owner].as_mut().unwrap();
                process.owner.submit(&mut self.world, submission(ticket, scene.requests(*client)[place]));
                process.tickets.insert(Ticket(ticket));
                self.submitted[*client] += 1;
            }
            Action::Step { owner } => self.step(scene, *owner),
            Action::Sync { owner } => self.sync(*owner),
            Action::Finish { owner } => self.finish(scene, *owner, true),
            Action::AskAgain { owner } => {
                let machine = &mut self.processes[*owner].as_mut().unwrap().owner.machine;
                let calls = machine.due_calls(machine.next_due_ms().unwrap());
                self.calls.extend(calls.into_iter().map(|call| (*owner, call)));
            }
            Action::Open { owner } => self.processes[*owner] = Some(scene.open(&self.world)),
            Action::RailActs { call } => self.rail(*call, Verdict::Acted, false),
            Action::RailRefuses { call } => self.rail(*call, Verdict::Refused("no"), false),
            Action::RailIsSilentBefore { call } => {
                self.rail_faults_left -= 1;
                let (owner, call) = self.calls.remove(*call);
                self.answers.push((owner, call.event.id(), RailAnswer::Unknown));
            }
            Action::RailIsSilentAfter { call } => {
                self.rail_faults_left -= 1;
                self.rail(*call, Verdict::Acted, true);
            }
            Action::Settle { owner, customer, done } => {
                self.by_hand_left -= 1;
                let machine = &mut self.processes[*owner].as_mut().unwrap().owner.machine;
                let linked = machine.open[customer].linked.clone();
                let (reason, verdict) = (ReasonText::new("no"), Verdict::Refused("no"));
                let (settlement, verdict) = match done {
                    true => (Settlement::Done(reason), Verdict::Acted),
                    false => (Settlement::Aborted(reason), verdict),
                };
                assert_eq!(machine.settle(linked.id(), &settlement), Settling::Begun);
                self.world.book.entry(linked.id()).or_insert((linked, verdict));
            }
            Action::Deliver { answer } => {
                let (owner, event, answer) = self.answers.remove(*answer);
                self.deliver(owner, event, answer);
            }
            Action::DeliverTwice { answer } => {
                self.rail_faults_left -= 1;
                let (owner, event, answer) = self.answers[*answer].clone();
                self.deliver(owner, event, answer);
            }
            Action::Arrive { write } => arrive(&mut self.world, &self.late.remove(*write)),
            Action::Die { owner, kept } => {
                self.deaths_left -= 1;
                match self.processes[*owner].as_ref().and_then(Process::write) {
                    Some(Write::Append(records)) => self.append_some(&records, kept),
                    Some(Write::Propose(proposals)) => drop(self.world.propose(&some(&proposals, kept))),
                    Some(Write::Approve(approvals)) => self.world.approve(&some(&approvals, kept)),
                    None => {}
                }
                self.bury(*owner);
            }
            Action::DieWhileWriting { owner } => {
                self.deaths_left -= 1;
                self.late.extend(self.processes[*owner].as_ref().and_then(Process::write));
                self.bury(*owner);
            }
            Action::DieWithBatches { kept } => {
                self.deaths_left -= 1;
                self.bury(0);
                if *kept < self.before_batches.len() {
                    let Stores { chains, table } = self.before_batches.swap_remove(*kept);
                    self.world.dirty.extend(chains.keys());
                    (self.world.chains, self.world.table) = (chains, table);
                }
                self.before_batches.clear();
                self.world.sync();
            }
            Action::PowerFails { written_by, kept } => {
                self.crashes_left -= 1;
                if let Some(write) = written_by.and_then(|owner| self.processes[owner].as_ref()?.write()) {
                    arrive(&mut self.world, &write);
                }
                self.lose(kept);
                (0..scene.owner_count).for_each(|owner| self.bury(owner));
            }
            Action::StoreFails { kept } => {
                self.crashes_left -= 1;
                self.lose(kept);
                self.processes.iter_mut().flatten().for_each(|process| process.cut_off = true);
            }
        }
        let new_calls = core::mem::take(&mut self.world.calls);
        assert!(new_calls.is_empty(), "calls are taken where they are made");
    }

    /// The whole, as far as it can be asked now: a batch that takes effect as a whole is consistent as a whole.
    pub(super) fn check(&mut self, scene: &Scene) {
        let midway = self.processes.iter().flatten().any(|process| process.owner.in_batch);
        if !scene.whole_batches || !midway {
            self.world.check();
        }
    }

    /// Nothing is left to be done: everybody has heard, and nobody is locked.
    pub(super) fn check_finished(&self, scene: &Scene) {
        let unanswered: Vec<_> = self.world.watched.keys().collect();
        assert!(unanswered.is_empty(), "nobody answered {unanswered:?}");
        // What a dead owner's late write opens is closed by whoever meets it, or by the next opening.
        let mut state = self.clone();
        if scene.late_writes && !self.world.open_customers().is_empty() {
            state.processes[0] = Some(scene.open(&self.world));
            for _ in 0..1000 {
                let next = state.actions(scene).into_iter().find(Action::is_progress);
                let Some(action) = next else { break };
                state.apply(scene, &action);
                state.check(scene);
            }
        }
        assert_eq!(state.world.open_customers(), [], "a customer stays locked");
        for process in state.processes.iter().flatten() {
            assert_eq!(process.owner.machine.waiting_count(), 0, "a request waits for nothing");
            assert_eq!(process.owner.machine.open_events().count(), 0, "an owner holds an event open that is closed");
        }
    }

    fn step(&mut self, scene: &Scene, owner: usize) {
        let Some(process) = self.processes[owner].as_mut() else { return };
        let next = process.owner.next_step();
        if process.cut_off {
            // What is durable is answered; the table is the first to say that the store has failed.
            let answers = if scene.pipelined {
                process.in_flight.front().is_some_and(|(_, synced)| *synced)
            } else {
                next == Some(Step::Finish)
            };
            if answers {
                self.finish(scene, owner, false);
            }
            return self.bury(owner);
        }
        if next.is_none() && scene.whole_batches {
            let World { chains, table, .. } = &self.world;
            self.before_batches.push(Stores { chains: chains.clone(), table: table.clone() });
        }
        if next == Some(Step::Finish) && !scene.pipelined {
            return self.finish(scene, owner, true);
        }
        process.owner.step(&mut self.world, NOW_MS);
        let Owner { batch, in_batch, queue, .. } = &mut process.owner;
        if next == Some(Step::Sync) {
            self.before_batches.clear();
        }
        let waits = match batch.step() {
            Step::Sync => !batch.goes_on_after_sync(),
            Step::Finish => true,
            Step::AtOnce
            | Step::Load
            | Step::Get
            | Step::Settle
            | Step::Recall
            | Step::AppendStarted
            | Step::Propose
            | Step::AppendClosed => false,
        };
        if scene.pipelined && waits {
            batch.give_back(queue);
            process.in_flight.push_back((core::mem::replace(batch, Batch::new(0)), false));
            *in_batch = false;
        }
    }

    fn sync(&mut self, owner: usize) {
        let process = self.processes[owner].as_mut().unwrap();
        self.world.sync();
        for (batch, synced) in process.in_flight.iter_mut().filter(|(_, synced)| !synced) {
            if batch.step() == Step::Sync {
                batch.synced();
            }
            *synced = true;
        }
        // Of a whole batch that has not ended nothing is durable.
        if let Some(mut midway) = self.before_batches.pop().filter(|_| process.owner.in_batch) {
            midway.chains.values_mut().for_each(|chain| chain.synced = chain.records.len());
            for (customer, chain) in &mut self.world.chains {
                chain.synced = midway.chains.get(customer).map_or(0, |before| before.synced);
            }
            self.before_batches = alloc::vec![midway];
        } else {
            self.before_batches.clear();
        }
    }

    /// Finishes the owner's oldest batch.
    fn finish(&mut self, scene: &Scene, owner: usize, approves: bool) {
        let process = self.processes[owner].as_mut().unwrap();
        let batch = process.in_flight.pop_front().map(|(batch, _)| batch);
        let batch = batch.unwrap_or_else(|| {
            process.owner.in_batch = false;
            core::mem::replace(&mut process.owner.batch, Batch::new(0))
        });
        let approvals = batch.approvals().to_vec();
        // Of a whole batch that has not ended nothing is to be seen.
        let midway = process.owner.in_batch && scene.whole_batches;
        let mut seen = if midway { self.before_batches.pop() } else { None };
        if let Some(Stores { chains, table }) = &mut seen {
            core::mem::swap(chains, &mut self.world.chains);
            core::mem::swap(table, &mut self.world.table);
        }
        for answer in Owner::finish(&mut self.world, batch, &mut process.owner.queue, approves) {
            process.tickets.remove(&answer.ticket);
        }
        if let Some(mut stores) = seen {
            core::mem::swap(&mut stores.chains, &mut self.world.chains);
            core::mem::swap(&mut stores.table, &mut self.world.table);
            self.before_batches.push(stores);
            self.world.approve(&approvals);
        }
        let calls = core::mem::take(&mut self.world.calls);
        self.calls.extend(calls.into_iter().map(|call| (owner, call)));
    }

    fn rail(&mut self, call: usize, verdict: Verdict, silent: bool) {
        let (owner, call) = self.calls.remove(call);
        let answer = self.world.act(&call, verdict);
        let answer = if silent { RailAnswer::Unknown } else { answer };
        self.answers.push((owner, call.event.id(), answer));
    }

    fn deliver(&mut self, owner: usize, event: EventId, answer: RailAnswer) {
        if let Some(process) = &mut self.processes[owner] {
            process.owner.machine.rail_answered(NOW_MS, event, answer);
        }
    }

    fn append_some(&mut self, records: &[Record], kept: &[usize]) {
        let customers: BTreeSet<_> = records.iter().map(Record::customer).collect();
        let mut left: BTreeMap<_, _> = customers.into_iter().zip(kept.iter().copied()).collect();
        self.world.append(records, |customer| {
            let left = left.get_mut(&customer).unwrap();
            let keeps = *left > 0;
            *left = left.saturating_sub(1);
            keeps
        });
    }

    /// What was being appended does not survive the store that it was for; the table is another one.
    fn lose(&mut self, kept: &[usize]) {
        self.late.retain(|write| !matches!(write, Write::Append(_)));
        let mut kept = kept.iter().copied();
        self.world.crash(|_| kept.next().unwrap());
    }

    /// An owner is no more, and whoever waits for it does not wait any longer.
    fn bury(&mut self, owner: usize) {
        if let Some(process) = self.processes[owner].take() {
            process.tickets.iter().for_each(|ticket| drop(self.world.watched.remove(ticket)));
        }
    }
}

fn some<T: Copy>(all: &[T], kept: &[usize]) -> Vec<T> {
    all.iter().zip(kept).filter(|(_, kept)| **kept > 0).map(|(write, _)| *write).collect()
}

fn arrive(world: &mut World, write: &Write) {
    match write {
        Write::Append(records) => drop(world.append(records, |_| true)),
        Write::Propose(proposals) => drop(world.propose(proposals)),
        Write::Approve(approvals) => world.approve(approvals),
    }
}
