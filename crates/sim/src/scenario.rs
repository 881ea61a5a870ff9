//! What a run is: a seed, and which of its steps are left in.

use crate::random::Random;
use bursar_engine::core::commit::{Limits, Minimum, Routes, Terms};
use bursar_engine::core::{
    Action, Amount, Currencies, Currency, CurrencyIndex, CustomerId, Decimals, DisputablePolicy, LedgerConfig,
    LockedPolicy, Movement, Policy, RailId, Reference, Request, RequestKey, TransactionId,
};
use bursar_engine::driver::SourceRow;

/// Where a ledger lives in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    /// Both stores are the embedded one, on a simulated disk.
    Embedded,
    /// Chains and table are in different systems.
    Split,
    /// The chains are alone in a directory on a simulated disk; the table is in another system.
    Mixed,
}

/// What a run is mostly about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// A bit of everything.
    Mixed,
    /// Crashes and kills, again and again.
    Crashes,
    /// A medium that is damaged, and small frames.
    Damage,
    /// Few customers and few transactions, at a time that stands still, by several owners.
    Races,
}

/// What can happen in a step of the time of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Somebody asks for something.
    Submit,
    /// A rail takes a call.
    RailTakes,
    /// A rail's answer arrives.
    RailAnswers,
    /// An operator settles by hand what waits for a rail.
    Operator,
    /// Time passes, or jumps.
    Time,
    /// A fault is armed.
    Arm,
    /// The power goes, or a store crashes.
    Crash,
    /// An owner is killed.
    Kill,
    /// The medium is damaged, or a call of long ago arrives.
    Damage,
    /// Who never heard asks again.
    AskAgain,
    /// Rows of the source are taken in.
    Rows,
    /// There is room again, or what was damaged is repaired.
    Mend,
    /// An owner makes durable what has ended.
    Sync,
    /// An owner goes some steps on.
    Advance,
}

impl Mood {
    /// How likely each act is, against the others.
    const fn weights(self) -> [(Act, u64); 14] {
        let [arm, crash, kill, damage, time] = match self {
            Self::Mixed => [6, 2, 2, 2, 4],
            Self::Crashes => [10, 5, 5, 0, 4],
            Self::Damage => [8, 4, 4, 5, 4],
            Self::Races => [4, 4, 3, 5, 0],
        };
        [
            (Act::Submit, 18),
            (Act::RailTakes, 8),
            (Act::RailAnswers, 8),
            (Act::Operator, 1),
            (Act::Time, time),
            (Act::Arm, arm),
            (Act::Crash, crash),
            (Act::Kill, kill),
            (Act::Damage, damage),
            (Act::AskAgain, 2),
            (Act::Rows, 4),
            (Act::Mend, 2),
            (Act::Sync, 12),
            (Act::Advance, 30),
        ]
    }

    /// What happens in a step.
    pub fn act(self, random: &mut Random) -> Act {
        let weights = self.weights();
        let mut left = random.below(weights.iter().map(|(_, weight)| weight).sum());
        for (act, weight) in weights {
            if left < weight {
                return act;
            }
            left -= weight;
        }
        Act::Advance
    }
}

/// A run, to be done again at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The name of the run.
    pub seed: u64,
    /// Where its ledger lives; by the seed, if not given.
    pub stores: Option<Stores>,
    /// Which steps of its time of faults are left in, in order; all, if not given.
    pub steps: Option<Vec<u64>>,
}

/// What stays the same throughout a run.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Where the ledger lives.
    pub stores: Stores,
    /// How many owners it has at a time.
    pub owner_count: usize,
    /// Which requests go through a rail.
    pub routes: Routes,
    /// The ledger's rules.
    pub config: LedgerConfig,
    /// What bounds its owners.
    pub limits: Limits,
    /// How many customers there are, how many transaction ids, and how many steps of the time of faults.
    pub customer_count: u64,
    /// How many transaction ids there are.
    pub transaction_count: u64,
    /// How many steps the time of faults has.
    pub step_count: u64,
    /// A source is taken in beside the requests.
    pub has_source: bool,
    /// What it is mostly about.
    pub mood: Mood,
}

impl Scenario {
    /// The whole run of a seed.
    pub const fn of(seed: u64) -> Self {
        Self { seed, stores: None, steps: None }
    }

    /// What stays the same throughout it.
    pub fn shape(&self) -> Shape {
        let mut random = Random::of(self.seed, 0);
        let by_seed = [Stores::Embedded, Stores::Split, Stores::Mixed][random.place(3)];
        let stores = self.stores.unwrap_or(by_seed);
        let locked = LockedPolicy::ALL[random.place(3)];
        let disputable = DisputablePolicy::ALL[random.place(2)];
        let mut rail = || RailId::new(1).filter(|_| random.one_in(2));
        let mut routes = Routes { deposit: rail(), withdrawal: rail() };
        let has_rails = random.one_in(2);
        if !has_rails {
            routes = Routes::default();
        }
        let two: Option<Currencies> = (|| {
            let currency = |code, decimals| Currency::new(code, Decimals::new(decimals)?).ok();
            Currencies::named(vec![currency("EUR", 2)?, currency("JPY", 0)?]).ok()
        })();
        let currencies = if random.one_in(3) { two.unwrap_or_default() } else { Currencies::default() };
        let mood = match (stores, random.below(3)) {
            (_, 0) => Mood::Mixed,
            (Stores::Embedded | Stores::Mixed, 1) => Mood::Damage,
            (Stores::Embedded | Stores::Mixed, _) | (Stores::Split, 1) => Mood::Crashes,
            (Stores::Split, _) => Mood::Races,
        };
        let (customer_count, transaction_count) = match mood {
            Mood::Races => (2, 1 + random.below(3)),
            Mood::Mixed | Mood::Crashes | Mood::Damage => (2 + random.below(4), 4 + random.below(40)),
        };
        let limits = Limits {
            batch_requests_max: match mood {
                Mood::Crashes => 1 + random.place(20),
                Mood::Damage => 1 + random.place(3),
                Mood::Mixed | Mood::Races => 1 + random.place(8),
            },
            waiting_per_customer_max: 1 + random.place(6),
            ask_again_ms: 100,
            ask_again_ms_max: 400,
        };
        Shape {
            stores,
            owner_count: if stores == Stores::Split { [1, 2, 2, 3][random.place(4)] } else { 1 },
            routes,
            config: LedgerConfig { ledger: [9; 16], policy: Policy { locked, disputable }, currencies },
            limits,
            customer_count,
            transaction_count,
            step_count: 30 + random.below(170),
            has_source: stores == Stores::Embedded && !has_rails && random.one_in(2),
            mood,
        }
    }

    /// The steps that are left in.
    pub fn steps(&self) -> Vec<u64> {
        self.steps.clone().unwrap_or_else(|| (1..=self.shape().step_count).collect())
    }
}

/// The first customer and transaction of the source; nobody else touches them.
const SOURCE_CUSTOMERS: u64 = 100;
const SOURCE_TRANSACTIONS: u64 = 1000;

/// How many keys there are.
pub const KEY_COUNT: u64 = 12;

/// A request with its terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What is asked for.
    pub request: Request,
    /// Once, or only if something holds.
    pub under: Terms,
}

impl Shape {
    /// All transaction ids that anybody may use.
    pub fn transaction_ids(&self) -> impl Iterator<Item = u128> + use<> {
        let own = (0..self.transaction_count).map(u128::from);
        own.chain((SOURCE_TRANSACTIONS..SOURCE_TRANSACTIONS + 4).map(u128::from))
    }

    /// The customers of the source.
    pub fn source_customers() -> impl Iterator<Item = u128> {
        (SOURCE_CUSTOMERS..SOURCE_CUSTOMERS + 2).map(u128::from)
    }

    /// A request by anybody: one customer is hot, ids come again, and every sequence of disputes is tried.
    pub fn request(&self, random: &mut Random) -> Request {
        let customer = if random.one_in(2) { 1 } else { 1 + random.below(self.customer_count) };
        let customer = CustomerId::new(u128::from(customer));
        let transaction = TransactionId::new(u128::from(random.below(self.transaction_count)));
        let steps = match random.below(40) {
            0 => 0,
            1 => i64::MAX - 1,
            2 => -1,
            _ => 1 + random.below(3).cast_signed(),
        };
        let amount = Amount::from_steps(steps);
        let currency = CurrencyIndex(random.below(self.config.currencies.len() as u64) as u8);
        let movement = Movement { transaction, amount, currency };
        let given = random.one_in(4);
        let reference = Reference { transaction, amount: given.then_some(amount), currency: given.then_some(currency) };
        let action = match random.below(12) {
            0..=4 => Action::Deposit(movement),
            5 | 6 => Action::Withdrawal(movement),
            7 | 8 => Action::Dispute(reference),
            9 => Action::Resolve(reference),
            10 => Action::Chargeback(reference),
            _ => Action::Unlock,
        };
        Request { customer, action }
    }

    /// Terms for some requests: one of few keys, so that they meet, and conditions that hold now and then.
    pub fn terms(request: &Request, random: &mut Random) -> Terms {
        let mut terms = Terms::default();
        if random.one_in(if request.action.takes_key() { 2 } else { 50 }) {
            terms.key = RequestKey::from_bits(1 + u128::from(random.below(KEY_COUNT)));
        }
        if random.one_in(10) {
            terms.expected_seq = Some(random.below(8));
        }
        if random.one_in(10) {
            let amount = Amount::from_steps(random.below(6).cast_signed() - 1);
            terms.minimum_available = Some(Minimum { currency: CurrencyIndex(0), amount });
        }
        terms
    }

    /// Rows in which the order matters and nothing carries an id of its own: dispute, resolve, dispute again.
    pub fn rows(&self, seed: u64) -> Vec<SourceRow> {
        let mut random = Random::of(seed, u64::MAX);
        let row = |line: u64| {
            let customer = CustomerId::new(u128::from(SOURCE_CUSTOMERS + random.below(2)));
            let transaction = TransactionId::new(u128::from(SOURCE_TRANSACTIONS + random.below(4)));
            let request = match random.below(7) {
                0 | 1 => Request::deposit(customer, transaction, Amount::from_steps(5)),
                2..=4 => Request::dispute(customer, transaction),
                _ => Request::resolve(customer, transaction),
            };
            let request = (random.below(10) > 0).then_some(request);
            SourceRow { request, line, end_offset: line * 10, end_line_count: line }
        };
        (1..=30).map(row).collect()
    }
}
