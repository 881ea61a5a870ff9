//! One run: a time of faults, then a time in which they stop and everything must finish.
//!
//! In each step of the time of faults one thing happens: somebody asks for something, an owner goes some steps on or
//! syncs, a rail takes a call or its answer arrives, time passes or jumps, a fault is armed, power goes, an owner is
//! killed, a store crashes, the medium is damaged. What a step does depends on the seed, its number and the state of the world, and on
//! nothing else. What must be true is the [`Oracle`]'s business.

use crate::bank::Bank;
use crate::disk::{DiskFault, SimDisk};
use crate::oracle::{Oracle, View, Violation};
use crate::owner::{Heard, Owner, SOURCE};
use crate::random::Random;
use crate::scenario::{Act, Mood, Scenario, Shape, Stores, Wanted};
use crate::split::{NetFault, Network, System};
use crate::witness::Witness;
use bursar_engine::EngineError;
use bursar_engine::embedded::disk::Disk;
use bursar_engine::embedded::{EmbeddedChains, EmbeddedOptions, EmbeddedStore, OpenReport, VerifyOptions, verify_on};
use bursar_engine::store::{Chains, SourceMark, StoreError, Transactions};
use std::sync::Arc;

/// How many rounds the quiet time may take until everything has finished.
const QUIET_ROUNDS_MAX: u32 = 3000;

/// Where the stores live.
#[derive(Debug)]
enum Medium {
    Embedded {
        disk: SimDisk,
        store: Option<Arc<EmbeddedStore>>,
    },
    Split(Network),
    /// Of the network, the table alone is used.
    Mixed {
        disk: SimDisk,
        chains: Option<Arc<EmbeddedChains>>,
        network: Network,
    },
}

impl Medium {
    /// The disk, where there is one.
    const fn disk(&self) -> Option<&SimDisk> {
        match self {
            Self::Embedded { disk, .. } | Self::Mixed { disk, .. } => Some(disk),
            Self::Split(_) => None,
        }
    }

    /// The systems behind a network, where there are any.
    const fn network(&self) -> Option<&Network> {
        match self {
            Self::Split(network) | Self::Mixed { network, .. } => Some(network),
            Self::Embedded { .. } => None,
        }
    }

    /// Nobody has the stores open any more.
    fn forget_stores(&mut self) {
        match self {
            Self::Embedded { store, .. } => *store = None,
            Self::Mixed { chains, .. } => *chains = None,
            Self::Split(_) => {}
        }
    }
}

/// An owner's two stores.
type Pair = (Arc<dyn Chains>, Arc<dyn Transactions>);

struct World {
    scenario: Scenario,
    shape: Shape,
    witness: Witness,
    oracle: Oracle,
    bank: Bank,
    medium: Medium,
    owners: Vec<Option<Owner>>,
    now_ms: u64,
    ticket: u64,
    /// What somebody asked for and never heard of.
    unheard: Vec<Wanted>,
    /// How far the source is taken in, as somebody was told.
    mark: Option<SourceMark>,
    /// No fault any more.
    is_quiet: bool,
    /// Something was done at opening for which there is no reason.
    needless: Option<String>,
}

/// Runs a scenario; what it saw is with the witness.
pub fn run(scenario: &Scenario, witness: &Witness) -> Result<(), Violation> {
    let mut world = World::new(scenario, witness);
    for step in scenario.steps() {
        let mut random = Random::of(scenario.seed, step);
        world.witness.say(|| format!("{step:>5}"));
        world.step(&mut random)?;
    }
    world.quiet_time()
}

impl World {
    fn new(scenario: &Scenario, witness: &Witness) -> Self {
        let shape = scenario.shape();
        let mut oracle = Oracle::new(shape.config.clone());
        if shape.has_source {
            let rows = shape.rows(scenario.seed);
            rows.iter().filter_map(|row| row.request.as_ref()).for_each(|request| oracle.expects(request));
        }
        let medium = match shape.stores {
            Stores::Embedded => Medium::Embedded { disk: SimDisk::new(witness.clone()), store: None },
            Stores::Split => Medium::Split(Network::new(shape.config.digest(), witness.clone())),
            Stores::Mixed => Medium::Mixed {
                disk: SimDisk::new(witness.clone()),
                chains: None,
                network: Network::new(shape.config.digest(), witness.clone()),
            },
        };
        witness.say(|| format!("seed {}: {shape:?}", scenario.seed));
        Self {
            scenario: scenario.clone(),
            oracle,
            bank: Bank::new(witness.clone()),
            medium,
            owners: (0..shape.owner_count).map(|_| None).collect(),
            now_ms: 1_000_000,
            ticket: 0,
            unheard: Vec::new(),
            mark: None,
            is_quiet: false,
            needless: None,
            witness: witness.clone(),
            shape,
        }
    }

    fn step(&mut self, random: &mut Random) -> Result<(), Violation> {
        let owner = random.place(self.owners.len());
        match self.shape.mood.act(random) {
            Act::Submit => self.submit(owner, random)?,
            Act::RailTakes => self.bank.take_a_call(random, true),
            Act::RailAnswers => self.rail_answers(random),
            Act::Operator => self.settle_by_hand(owner, random),
            Act::Time => self.time_passes(random),
            Act::Arm => self.arm(random),
            Act::Crash => self.crash(random),
            Act::Kill => self.kill(owner, random),
            Act::Damage => self.damage_or_late_arrival(random),
            Act::AskAgain => self.ask_again(owner, random)?,
            Act::Rows => self.take_rows(owner, random)?,
            Act::Mend => self.mend(random),
            Act::Sync => self.sync(owner, random)?,
            Act::Advance => {
                // Owners have different paces, so that one can lie still for long.
                let pace = if random.one_in(2) { 3 } else { 10 };
                self.advance(owner, 1 + random.below(pace), random)?;
            }
        }
        self.check_between(random)
    }

    // What clients and rails do.

    fn submit(&mut self, owner: usize, random: &mut Random) -> Result<(), Violation> {
        self.open_if_closed(owner, random)?;
        let count_max = if self.shape.mood == Mood::Crashes { 16 } else { 6 };
        for _ in 0..=random.below(count_max) {
            let request = self.shape.request(random);
            let under = Shape::terms(&request, &mut Random::of(!self.scenario.seed, self.ticket));
            self.ask(owner, Wanted { request, under });
        }
        Ok(())
    }

    fn ask(&mut self, owner: usize, wanted: Wanted) {
        let Some(asked) = self.owners[owner].as_mut() else { return };
        self.ticket += 1;
        let ticket = self.ticket;
        self.witness.say(|| format!("         owner {owner} is asked {ticket}: {wanted:?}"));
        self.oracle.asks(ticket, owner, wanted);
        asked.submit(ticket, wanted);
    }

    /// Who never heard asks once more, with the same transaction id, or the same key.
    fn ask_again(&mut self, owner: usize, random: &mut Random) -> Result<(), Violation> {
        self.open_if_closed(owner, random)?;
        if self.owners[owner].is_some() {
            for wanted in std::mem::take(&mut self.unheard) {
                self.witness.count("client: asks again after a crash");
                if wanted.under.key.is_some() {
                    self.witness.count("client: asks again with its key");
                }
                self.ask(owner, wanted);
            }
        }
        Ok(())
    }

    fn rail_answers(&mut self, random: &mut Random) {
        let Some((owner, event, answer)) = self.bank.deliver(random) else { return };
        self.witness.say(|| format!("         owner {owner} hears of {event}: {answer:?}"));
        if let Some(owner) = &mut self.owners[owner] {
            owner.rail_answered(self.now_ms, event, answer);
        }
    }

    fn settle_by_hand(&mut self, owner: usize, random: &mut Random) {
        let Some(asked) = self.owners[owner].as_mut() else { return };
        let Some((event, settlement)) = self.bank.ask_by_hand(random, |event| asked.is_open(event)) else { return };
        let settling = asked.settle(event, &settlement);
        self.witness.say(|| format!("         owner {owner} is told to settle {event}: {settlement:?}: {settling:?}"));
    }

    fn time_passes(&mut self, random: &mut Random) {
        match random.below(8) {
            0 => {
                self.witness.count("clock: jumps back");
                self.now_ms = self.now_ms.saturating_sub(random.below(100_000));
            }
            1 => {
                self.witness.count("clock: jumps ahead");
                self.now_ms += random.below(10_000_000);
            }
            _ => self.now_ms += random.below(300),
        }
        self.ask_rails_again();
    }

    fn ask_rails_again(&mut self) {
        for (index, owner) in self.owners.iter_mut().enumerate() {
            if let Some(owner) = owner {
                self.bank.call(index, owner.due_calls(self.now_ms));
            }
        }
    }

    // Faults.

    fn arm(&mut self, random: &mut Random) {
        let soon = random.one_in(2);
        let calls = random.below(if soon { 4 } else { 40 });
        match &self.medium {
            Medium::Embedded { disk, .. } => self.arm_disk(disk, calls, random),
            Medium::Split(network) => {
                let system = if random.one_in(2) { System::Chains } else { System::Table };
                network.arm(system, NetFault::ALL[random.place(NetFault::ALL.len())], calls);
            }
            Medium::Mixed { network, .. } if random.one_in(2) => {
                network.arm(System::Table, NetFault::ALL[random.place(NetFault::ALL.len())], calls);
            }
            Medium::Mixed { disk, .. } => self.arm_disk(disk, calls, random),
        }
    }

    fn arm_disk(&self, disk: &SimDisk, calls: u64, random: &mut Random) {
        // Failed syncs are the worst of them.
        let any = DiskFault::ALL[random.place(DiskFault::ALL.len())];
        let fault = if random.one_in(4) { DiskFault::Sync } else { any };
        let damages = matches!(fault, DiskFault::LostWrite | DiskFault::MisdirectedWrite);
        if !damages || self.may_damage() {
            disk.arm(fault, calls);
        }
    }

    /// A medium that loses nothing but what was not synced must be served without any error.
    const fn may_damage(&self) -> bool {
        match self.shape.mood {
            Mood::Damage | Mood::Mixed => true,
            Mood::Crashes | Mood::Races => false,
        }
    }

    /// The power goes everywhere, or one of the stores crashes while its owners live on.
    fn crash(&mut self, random: &mut Random) {
        match &self.medium {
            Medium::Embedded { .. } => {
                self.witness.count("disk: the power is cut");
                self.power_cut(random);
            }
            Medium::Split(network) => {
                let system = if random.one_in(2) { System::Chains } else { System::Table };
                network.crash(system, random);
            }
            Medium::Mixed { network, .. } if random.one_in(2) => network.crash(System::Table, random),
            Medium::Mixed { .. } => {
                self.witness.count("disk: the power is cut");
                self.power_cut(random);
            }
        }
    }

    fn power_cut(&mut self, random: &mut Random) {
        for owner in 0..self.owners.len() {
            self.bury(owner);
        }
        if let Some(disk) = self.medium.disk() {
            disk.power_cut(random);
        }
    }

    fn kill(&mut self, owner: usize, random: &mut Random) {
        self.witness.count("owner: is killed");
        self.bury(owner);
        if let Some(disk) = self.medium.disk() {
            disk.kill(random);
        }
    }

    /// An owner is gone: nobody hears of what it was asked any more.
    fn bury(&mut self, owner: usize) {
        if self.owners[owner].take().is_some() {
            self.bank.owner_died(owner);
        }
        self.medium.forget_stores();
        // Half of those who never heard give up.
        let gone = self.oracle.forget(owner);
        self.unheard
            .extend(gone.into_iter().enumerate().filter(|(place, _)| place % 2 == 0).map(|(_, request)| request));
    }

    fn damage_or_late_arrival(&mut self, random: &mut Random) {
        let both = self.medium.disk().is_some() && self.medium.network().is_some();
        let arrives = !both || random.one_in(2);
        if let Some(network) = self.medium.network().filter(|_| arrives) {
            network.deliver_late(random);
        } else if let Some(disk) = self.medium.disk().filter(|_| self.may_damage()) {
            disk.flip_a_bit(random);
        }
    }

    fn mend(&self, random: &mut Random) {
        if let Some(disk) = self.medium.disk() {
            if random.one_in(2) {
                disk.make_room();
            } else {
                disk.repair();
            }
        }
    }

    // What owners do.

    fn open_if_closed(&mut self, owner: usize, random: &mut Random) -> Result<(), Violation> {
        if self.owners[owner].is_some() {
            return Ok(());
        }
        if let Some(disk) = self.medium.disk()
            && !self.is_quiet
            && random.one_in(4)
        {
            let may_damage = self.may_damage() && random.one_in(2);
            let fault = if may_damage { DiskFault::LostWrite } else { DiskFault::PowerOff };
            disk.arm(fault, random.below(if may_damage { 3 } else { 60 }));
        }
        match self.open(owner, random) {
            Ok(()) => {
                if let Some(what) = self.needless.take() {
                    return Err(Violation(what));
                }
                self.check_everything()?;
                if random.one_in(2) { self.ask_again(owner, random) } else { Ok(()) }
            }
            Err(error) => {
                self.witness.count("opening: was refused");
                self.failed(owner, &error, random)
            }
        }
    }

    fn open(&mut self, owner: usize, random: &mut Random) -> Result<(), EngineError> {
        let Shape { config, routes, limits, .. } = self.shape.clone();
        let ((chains, transactions), report) = self.open_stores(owner, random)?;
        if let Some(report) = report {
            self.opened(owner, &report);
        }
        self.owners[owner] = Some(Owner::open(config, routes, limits, chains, transactions, 1)?);
        Ok(())
    }

    /// Opens the stores for an owner.
    fn open_stores(&mut self, owner: usize, random: &mut Random) -> Result<(Pair, Option<OpenReport>), StoreError> {
        let config = &self.shape.config;
        Ok(match &mut self.medium {
            Medium::Embedded { disk, store } => {
                let (medium, is_new, options) = on_disk(disk, random);
                let (opened, report) = if is_new {
                    EmbeddedStore::create_on(medium, config, options)?
                } else {
                    EmbeddedStore::open_on(medium, options)?
                };
                let opened = store.insert(Arc::new(opened)).clone();
                ((opened.clone(), opened), Some(report))
            }
            Medium::Mixed { disk, chains, network } => {
                network.roll(random);
                let (medium, is_new, options) = on_disk(disk, random);
                let (opened, report) = if is_new {
                    EmbeddedChains::create_on(medium, config, options)?
                } else {
                    EmbeddedChains::open_on(medium, options)?
                };
                let opened = chains.insert(Arc::new(opened)).clone();
                ((opened, Arc::new(network.connect())), Some(report))
            }
            Medium::Split(network) => {
                network.roll(random);
                self.witness.say(|| format!("         owner {owner} connects"));
                let connection = Arc::new(network.connect());
                ((connection.clone(), connection), None)
            }
        })
    }

    /// A directory was opened: what was done for it had a reason.
    fn opened(&mut self, owner: usize, report: &OpenReport) {
        self.witness.say(|| format!("         owner {owner} opens the ledger: {report:?}"));
        if report.cut_off.is_some() {
            self.witness.count("opening: cut off a torn write");
        }
        if report.index_rebuilt.is_some() {
            self.witness.count("opening: made the index anew");
        }
        let has_reason = self.may_damage() || self.medium.disk().is_some_and(SimDisk::has_excuse);
        if let (Some(why), false) = (report.index_rebuilt, has_reason) {
            self.needless = Some(format!("the index was made anew, although nothing was damaged: {why}"));
        }
    }

    fn advance(&mut self, owner: usize, steps: u64, random: &mut Random) -> Result<(), Violation> {
        self.open_if_closed(owner, random)?;
        for _ in 0..steps {
            let Some(driven) = &mut self.owners[owner] else { return Ok(()) };
            let step = driven.next_step();
            let done = driven.advance(self.now_ms);
            self.witness.say(|| format!("         owner {owner} {step:?}: {done:?}"));
            let (heard, told) = match &mut self.owners[owner] {
                Some(driven) if done.is_ok() => driven.tell_at_once(),
                _ => (Heard::default(), Ok(())),
            };
            self.hear(owner, heard)?;
            match done.and_then(|went_on| told.map(|()| went_on)) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return self.failed(owner, &error, random),
            }
            match &self.medium {
                // Nobody sees a batch before it ends.
                Medium::Embedded { .. } => {}
                Medium::Split(_) | Medium::Mixed { .. } => self.check_everything()?,
            }
        }
        Ok(())
    }

    fn sync(&mut self, owner: usize, random: &mut Random) -> Result<(), Violation> {
        let Some(synced) = &mut self.owners[owner] else { return Ok(()) };
        let (heard, done) = synced.sync();
        self.witness.say(|| format!("         owner {owner} syncs: {done:?}"));
        self.hear(owner, heard)?;
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.failed(owner, &error, random),
        }
    }

    /// What was acknowledged is held against the history, and the rails' calls go on their way.
    fn hear(&mut self, owner: usize, heard: Heard) -> Result<(), Violation> {
        let Heard { answers, calls, mark } = heard;
        if !answers.is_empty() {
            let view = match self.chains_view() {
                Ok(view) => view,
                // What was told cannot be looked at; it will be when the medium is whole again.
                Err(error) => return self.excused(&EngineError::Store(error)),
            };
            for answer in &answers {
                self.witness.say(|| format!("         answer {}: {:?}", answer.ticket.0, answer.result));
                self.witness.count(name_of(answer));
                self.oracle.answered(&view, &self.bank, answer)?;
            }
        }
        self.bank.call(owner, calls);
        self.mark = mark.or(self.mark.take());
        Ok(())
    }

    fn take_rows(&mut self, owner: usize, random: &mut Random) -> Result<(), Violation> {
        if !self.shape.has_source {
            return Ok(());
        }
        self.open_if_closed(owner, random)?;
        let rows = self.shape.rows(self.scenario.seed);
        let Some(taker) = &mut self.owners[owner] else { return Ok(()) };
        let done = taker.take_rows(self.now_ms, &rows, 1 + random.place(8));
        self.witness.say(|| format!("         owner {owner} takes in rows: {done:?}"));
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.failed(owner, &error, random),
        }
    }

    /// An owner met an error: there must be a reason for it, and the owner is gone.
    fn failed(&mut self, owner: usize, error: &EngineError, random: &mut Random) -> Result<(), Violation> {
        self.witness.say(|| format!("         owner {owner} fails: {error}"));
        self.excused(error)?;
        self.bury(owner);
        if let Some(disk) = self.medium.disk() {
            if disk.is_off() || random.one_in(2) {
                disk.power_cut(random);
            } else {
                disk.kill(random);
            }
            if self.is_quiet {
                disk.repair();
            }
        }
        Ok(())
    }

    fn excused(&self, error: &EngineError) -> Result<(), Violation> {
        let of_disk = self.medium.disk().is_some_and(SimDisk::has_excuse);
        let of_network = self.medium.network().is_some_and(Network::take_excuse);
        let is_of_store = matches!(error, EngineError::Store(_));
        if (of_disk || of_network) && is_of_store {
            Ok(())
        } else {
            Err(Violation(format!("an error without a reason: {error}")))
        }
    }

    // What must be true.

    fn chains_view(&self) -> Result<View, StoreError> {
        match &self.medium {
            Medium::Embedded { disk, store: Some(store) } => disk.quietly(|| View::of_chains(&**store)),
            Medium::Mixed { disk, chains: Some(chains), .. } => disk.quietly(|| View::of_chains(&**chains)),
            Medium::Embedded { store: None, .. } | Medium::Mixed { chains: None, .. } => {
                Err(StoreError::NotFound { path: std::path::PathBuf::from("simulated") })
            }
            Medium::Split(network) => View::of_chains(&network.inspect()),
        }
    }

    fn view(&self) -> Option<Result<View, StoreError>> {
        let ids = self.shape.transaction_ids();
        match &self.medium {
            Medium::Embedded { disk, store } => {
                let store = store.as_ref()?;
                Some(disk.quietly(|| View::of(&**store, &**store, ids)))
            }
            Medium::Mixed { disk, chains, network } => {
                let chains = chains.as_ref()?;
                Some(disk.quietly(|| View::of(&**chains, &network.inspect(), ids)))
            }
            Medium::Split(network) => {
                let connection = network.inspect();
                Some(View::of(&connection, &connection, ids))
            }
        }
    }

    /// A batch that takes effect as a whole is looked at as a whole.
    fn check_between(&mut self, random: &mut Random) -> Result<(), Violation> {
        let in_batch = self.owners.iter().flatten().any(Owner::is_in_batch);
        match &self.medium {
            Medium::Embedded { .. } if in_batch || !random.one_in(4) => Ok(()),
            Medium::Embedded { .. } | Medium::Split(_) | Medium::Mixed { .. } => self.check_everything(),
        }
    }

    fn check_everything(&mut self) -> Result<(), Violation> {
        match self.view() {
            None => Ok(()),
            Some(Ok(view)) => {
                self.oracle.check(&view, &self.bank)?;
                self.check_mark()
            }
            Some(Err(error)) => self.excused(&EngineError::Store(error)),
        }
    }

    fn check_mark(&self) -> Result<(), Violation> {
        let Medium::Embedded { store: Some(store), .. } = &self.medium else { return Ok(()) };
        let Ok(found) = store.source(SOURCE) else { return Ok(()) };
        let line = |mark: &Option<SourceMark>| mark.as_ref().map_or(0, |mark| mark.line_count);
        if line(&found) < line(&self.mark) {
            return Err(Violation(format!("the source's position went back: {found:?}, told was {:?}", self.mark)));
        }
        Ok(())
    }

    // The quiet time.

    fn quiet_time(&mut self) -> Result<(), Violation> {
        self.witness.say(|| "the faults stop".to_owned());
        self.is_quiet = true;
        let mut random = Random::of(self.scenario.seed, u64::MAX - 1);
        if let Some(disk) = self.medium.disk() {
            disk.disarm();
            disk.repair();
        }
        if let Some(network) = self.medium.network() {
            network.disarm();
            while network.deliver_late(&mut random) {}
        }
        // Whoever met an error is buried when it is next moved; who lives on with a dead connection is buried now.
        for owner in 0..self.owners.len() {
            self.bury(owner);
        }
        if let Some(disk) = self.medium.disk() {
            disk.kill(&mut random);
        }
        let mut rounds = 0;
        while !self.is_finished()? {
            rounds += 1;
            if rounds > QUIET_ROUNDS_MAX {
                return Err(Violation(self.unfinished()));
            }
            let owner = random.place(self.owners.len());
            self.advance(owner, 1 + random.below(12), &mut random)?;
            self.sync(owner, &mut random)?;
            self.ask_again(owner, &mut random)?;
            self.take_rows(owner, &mut random)?;
            self.bank.take_a_call(&mut random, false);
            self.rail_answers(&mut random);
            self.now_ms += 50;
            self.ask_rails_again();
        }
        self.check_everything()?;
        self.check_source()?;
        self.close_and_open_again(&mut random)
    }

    fn is_finished(&mut self) -> Result<bool, Violation> {
        let idle = self.owners.iter().all(|owner| owner.as_ref().is_some_and(Owner::is_idle));
        if !idle || !self.bank.is_quiet() || !self.unheard.is_empty() || self.oracle.waiting_count() > 0 {
            return Ok(false);
        }
        // What nobody was told, because of a crash, may be done all the same.
        if let Medium::Embedded { store: Some(store), .. } = &self.medium {
            self.mark = store.source(SOURCE).unwrap_or_default();
        }
        let source_done = !self.shape.has_source || self.mark.as_ref().is_some_and(|mark| mark.finished);
        match self.view() {
            Some(Ok(view)) => Ok(source_done && !view.has_open()),
            Some(Err(error)) => Err(Violation(format!("an error in the quiet time: {error}"))),
            None => Ok(false),
        }
    }

    fn unfinished(&self) -> String {
        let open = match self.view() {
            Some(Ok(view)) if view.has_open() => "; a customer stays locked",
            _ => "",
        };
        let waiting = self.oracle.waiting_count();
        format!("it does not finish: {waiting} requests are not answered{open}; the source is at {:?}", self.mark)
    }

    /// The source took effect row by row, each once, as if nothing had ever happened.
    fn check_source(&self) -> Result<(), Violation> {
        let Some(Ok(view)) = self.view().filter(|_| self.shape.has_source) else { return Ok(()) };
        let rows = self.shape.rows(self.scenario.seed);
        let accepted = self.oracle.accepted(rows.iter().filter_map(|row| row.request));
        for customer in Shape::source_customers() {
            let expected: Vec<_> = accepted.iter().copied().filter(|ask| ask.customer == customer).collect();
            let found = Oracle::asked_by_chains(&view, std::iter::once(customer));
            if found != expected {
                return Err(Violation(format!("rows of customer {customer}: {found:?} instead of {expected:?}")));
            }
        }
        let counts = self.mark.as_ref().map(|mark| mark.counts).unwrap_or_default();
        let unreadable = rows.iter().filter(|row| row.request.is_none()).count() as u64;
        let is_right = counts.total() == rows.len() as u64
            && counts.applied == accepted.len() as u64
            && counts.unreadable == unreadable;
        if is_right { Ok(()) } else { Err(Violation(format!("the source counts {counts:?}"))) }
    }

    /// What is there is there after an orderly end, too, and who trusts nobody finds nothing wrong with it.
    fn close_and_open_again(&mut self, random: &mut Random) -> Result<(), Violation> {
        let (disk, closed, notes) = match &mut self.medium {
            Medium::Embedded { disk, store } => (disk.clone(), store.take().map_or(Ok(()), |store| store.close()), 0),
            // It says that the table is elsewhere.
            Medium::Mixed { disk, chains, .. } => {
                (disk.clone(), chains.take().map_or(Ok(()), |chains| chains.close()), 1)
            }
            Medium::Split(_) => return Ok(()),
        };
        if let Err(error) = closed {
            return Err(Violation(format!("could not be closed: {error}")));
        }
        self.owners[0] = None;
        let report = verify_on(Arc::new(disk), &VerifyOptions::default(), &mut |_| {});
        match report {
            Ok(report) if report.findings.is_empty() && report.notes.len() == notes => {}
            found => return Err(Violation(format!("the verification says {found:?}"))),
        }
        self.open_if_closed(0, random)
    }
}

/// A disk to open a directory on, whether it is a new one, and within which bounds.
fn on_disk(disk: &SimDisk, random: &mut Random) -> (Arc<SimDisk>, bool, EmbeddedOptions) {
    disk.roll(random);
    let (segment_bytes, memtable_entries_max) = (600 + random.below(4000), 2 + random.place(40));
    let heads_max = memtable_entries_max / 4;
    let options = EmbeddedOptions { segment_bytes, memtable_entries_max, heads_max, background: false };
    let names = disk.quietly(|| disk.list()).unwrap_or_default();
    let is_new = !names.iter().any(|name| name == "ledger.bursar");
    (Arc::new(disk.clone()), is_new, options)
}

fn name_of(answer: &bursar_engine::core::commit::Answer) -> &'static str {
    use bursar_engine::core::Rejection;
    use bursar_engine::core::commit::Outcome;
    match &answer.result {
        Ok(Outcome::Applied(_)) => "answer: applied",
        Ok(Outcome::AlreadyApplied(None)) => "answer: already applied",
        Ok(Outcome::AlreadyApplied(Some(_))) => "answer: already applied with this key",
        Ok(Outcome::Rejected(Rejection::IdempotencyKeyReused { .. })) => "answer: key reused",
        Ok(Outcome::Rejected(Rejection::RequestInProgress)) => "answer: request in progress",
        Ok(Outcome::Rejected(Rejection::SeqMismatch { .. } | Rejection::BelowMinimum { .. })) => {
            "answer: a condition did not hold"
        }
        Ok(Outcome::Rejected(_)) => "answer: rejected",
        Err(_) => "answer: busy",
    }
}
