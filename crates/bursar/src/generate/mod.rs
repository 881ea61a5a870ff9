//! Workloads that follow from a seed, for tests and for measurements that anyone can repeat.
//!
//! ```text
//! flags → Plan → Generator: draw a kind → pick client and transaction → write the row → buffer → out
//!                  random    Share          Skew      Window              row
//! ```
//!
//! The same plan gives the same bytes, on every machine and in every version; a golden file in `tests/`
//! holds us to it. All is integer arithmetic. Rows are written straight into one buffer, and memory does not
//! depend on their number: what is remembered of earlier rows is the [`window::Window`], whose size the plan
//! sets.
//!
//! The generator does not follow balances: whether a withdrawal finds its funds, or a client is locked, is
//! for the ledger to say. Each row is drawn by itself, so a share is met within the spread of chance.

mod plan;
mod random;
mod row;
mod window;

pub(crate) use plan::Plan;

use bursar_core::{Amount, RequestKind};
use plan::{Share, Sort};
use random::Random;
use row::Writer;
use std::io::{self, Write};
use window::{Made, Window};

/// How many bytes are collected before they are written.
const BUFFER_BYTES: usize = 1 << 18;
/// No row is longer: the longest kind, two UUIDs, an amount, a currency, separators.
const ROW_BYTES_MAX: usize = 192;
/// Transactions from here on are never made, so that a reference to one is a reference to nothing.
const NEVER_MADE: u64 = 1 << 63;

/// How many rows of each sort were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    by_sort: [u64; Sort::ALL.len()],
}

impl Counts {
    /// How many rows of this sort.
    pub(crate) fn of(&self, sort: Sort) -> u64 {
        self.by_sort[sort as usize]
    }

    /// `deposits: 12, withdrawals: 3, …`: those that occur.
    pub(crate) fn sentence(&self) -> String {
        let named = Sort::ALL.iter().map(|&sort| (self.of(sort), sort.plural())).filter(|(count, _)| *count > 0);
        let parts: Vec<String> =
            named.map(|(count, name)| format!("{name}: {}", crate::progress::grouped(count))).collect();
        parts.join(", ")
    }
}

/// Writes the header and all rows of a plan. `on_progress` hears bytes and rows after every buffer.
pub(crate) fn write_rows(
    plan: &Plan,
    out: &mut impl Write,
    mut on_progress: impl FnMut(u64, u64),
) -> io::Result<Counts> {
    let mut generator = Generator::new(plan);
    let mut buffer = Vec::with_capacity(BUFFER_BYTES + ROW_BYTES_MAX);
    let mut bytes_written = 0;
    generator.writer.header(&mut buffer);
    for row_index in 0..plan.rows {
        generator.row(&mut buffer);
        if buffer.len() >= BUFFER_BYTES {
            out.write_all(&buffer)?;
            bytes_written += buffer.len() as u64;
            on_progress(bytes_written, row_index + 1);
            buffer.clear();
        }
    }
    out.write_all(&buffer)?;
    out.flush()?;
    Ok(generator.counts)
}

struct Generator<'p> {
    plan: &'p Plan,
    random: Random,
    writer: Writer<'p>,
    window: Window,
    /// How many transactions have been given an id; the next one is this plus one.
    made_count: u64,
    counts: Counts,
}

impl<'p> Generator<'p> {
    fn new(plan: &'p Plan) -> Self {
        Self {
            plan,
            random: Random::from_seed(plan.seed),
            writer: Writer::new(plan),
            window: Window::new(plan.window_len),
            made_count: 0,
            counts: Counts::default(),
        }
    }

    /// Draws one row and writes it.
    fn row(&mut self, out: &mut Vec<u8>) {
        let drawn = self.plan.shares.sort_at(self.random.below(Share::WHOLE));
        let written = match drawn {
            Sort::Deposit => self.deposit(out),
            Sort::Withdrawal => self.withdrawal(out),
            Sort::Dispute => self.dispute(out),
            Sort::Resolve => self.resolve(out),
            Sort::Chargeback => self.chargeback(out),
            Sort::Repeat => self.repeat(out),
            Sort::Bad => self.bad(out),
        };
        self.counts.by_sort[written as usize] += 1;
    }

    /// A transaction of a client and an amount drawn at random, under a new id.
    fn make(&mut self) -> Made {
        self.made_count += 1;
        let client = self.client();
        let currency = self.random.below(self.writer.currency_count()) as u8;
        let steps = 1 + self.random.below(self.writer.steps_max(currency));
        Made { transaction: self.made_count, client, steps, currency }
    }

    /// A client's rank, 0 being the hottest. See `--skew`: the hottest 1% of the clients (at least one) get
    /// that share of the rows, within them the hottest 1% get the same share again, and so on; all others of
    /// a level are alike. So the hottest 1/100^k of the clients get the share to the power of k, which is a
    /// power law, made of integers alone.
    fn client(&mut self) -> u64 {
        let skew = u64::from(self.plan.skew.parts());
        let mut end = self.plan.clients;
        while skew > 0 && end > 1 {
            let hot = end.div_ceil(100);
            if self.random.below(Share::WHOLE) >= skew {
                return hot + self.random.below(end - hot);
            }
            end = hot;
        }
        self.random.below(end)
    }

    fn deposit(&mut self, out: &mut Vec<u8>) -> Sort {
        let made = self.make();
        self.writer.movement(out, RequestKind::Deposit, &made);
        self.window.posted(made, &mut self.random);
        Sort::Deposit
    }

    fn withdrawal(&mut self, out: &mut Vec<u8>) -> Sort {
        let made = self.make();
        self.writer.movement(out, RequestKind::Withdrawal, &made);
        Sort::Withdrawal
    }

    fn dispute(&mut self, out: &mut Vec<u8>) -> Sort {
        let Some(made) = self.window.dispute(&mut self.random) else { return self.deposit(out) };
        self.writer.reference(out, RequestKind::Dispute, made.client, made.transaction);
        Sort::Dispute
    }

    fn resolve(&mut self, out: &mut Vec<u8>) -> Sort {
        let Some(made) = self.window.close(&mut self.random) else { return self.deposit(out) };
        self.writer.reference(out, RequestKind::Resolve, made.client, made.transaction);
        // It may be disputed again.
        self.window.posted(made, &mut self.random);
        Sort::Resolve
    }

    fn chargeback(&mut self, out: &mut Vec<u8>) -> Sort {
        let Some(made) = self.window.close(&mut self.random) else { return self.deposit(out) };
        self.writer.reference(out, RequestKind::Chargeback, made.client, made.transaction);
        Sort::Chargeback
    }

    fn repeat(&mut self, out: &mut Vec<u8>) -> Sort {
        let Some(made) = self.window.any_posted(&mut self.random) else { return self.deposit(out) };
        self.writer.movement(out, RequestKind::Deposit, &made);
        Sort::Repeat
    }

    /// A row that the ledger cannot read or must reject; all sorts alike.
    fn bad(&mut self, out: &mut Vec<u8>) -> Sort {
        const AMOUNTS: [&[u8]; 4] = [b"abc", b"1e5", b"12.", b"NaN"];
        let made = self.make();
        let variety = self.random.bits();
        match variety % 7 {
            0 => {
                let amount = AMOUNTS[(variety >> 32) as usize % AMOUNTS.len()];
                self.writer.raw(out, b"deposit", &made, Some(amount));
            }
            1 => self.writer.raw(out, b"transfer", &made, None),
            2 => self.writer.without_transaction(out, RequestKind::Deposit, &made),
            3 => self.writer.raw(out, b"deposit", &made, Some(b"1\xff\xfe")),
            4 => self.writer.negative(out, RequestKind::Withdrawal, &made),
            5 => self.writer.reference(out, RequestKind::Dispute, made.client, NEVER_MADE | made.transaction),
            _ => match self.window.any_posted(&mut self.random) {
                Some(Made { client, transaction, .. }) => {
                    let other = if client == 0 { 1 } else { client - 1 };
                    self.writer.reference(out, RequestKind::Dispute, other, transaction);
                }
                None => self.writer.reference(out, RequestKind::Dispute, made.client, NEVER_MADE | made.transaction),
            },
        }
        Sort::Bad
    }
}

/// The largest amount in the steps of one currency, as the plan holds it.
pub(crate) const fn steps_of(amount: Amount) -> u64 {
    amount.steps().unsigned_abs()
}

#[cfg(test)]
mod tests;
