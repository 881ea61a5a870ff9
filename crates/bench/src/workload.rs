//! Workloads that follow from a seed: files of rows, and requests.
//!
//! The mix is that of `bursar generate` as it comes (30% withdrawals, 1% disputes, 0.7% resolves, 0.01% chargebacks,
//! the rest deposits), so that figures can be compared with runs of the binary; the bytes are not the same. Nothing
//! here follows balances: whether a withdrawal finds its funds is for the ledger to say.

use bursar_core::{Amount, CustomerId, Request, TransactionId};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// How transactions are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ids {
    /// 1, 2, 3, …
    Rising,
    /// UUIDs in no order.
    Uuid,
}

/// A file of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Workload {
    /// How many rows, the header not counted.
    pub(crate) rows: u64,
    /// How many customers, all alike.
    pub(crate) customers: u64,
    /// How transactions are named.
    pub(crate) ids: Ids,
    /// What everything follows from.
    pub(crate) seed: u64,
    /// Add rows that are repeated, refused or cannot be read, a few of a hundred each.
    pub(crate) with_faults: bool,
}

/// `SplitMix64` (Steele, Lea and Flood, 2014): a few lines, so that workloads never change with a dependency.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scatter(self.0)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }
}

/// The finalizer of `SplitMix64`: a bijection, so that different numbers stay different.
const fn scatter(number: u64) -> u64 {
    let z = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The id of the transaction with this number.
pub(crate) const fn transaction_id(ids: Ids, number: u64) -> TransactionId {
    TransactionId::new(match ids {
        Ids::Rising => number as u128,
        Ids::Uuid => {
            let high = (scatter(number ^ 0xd1b5_4a32_d192_ed03) & !0xf000) | 0x4000;
            let low = (scatter(number ^ 0xaef1_7502_108e_f2d9) >> 2) | 1 << 63;
            (high as u128) << 64 | low as u128
        }
    })
}

/// The deposit with this number, for one of the customers.
pub(crate) fn deposit(number: u64, customer: u64) -> Request {
    let amount = Amount::from_steps((scatter(number) % 10_000_000).cast_signed() + 1);
    Request::deposit(CustomerId::new(u128::from(customer)), transaction_id(Ids::Rising, number), amount)
}

/// How many recent deposits can be disputed.
const WINDOW_LEN: u64 = 4096;
const BUFFER_BYTES: usize = 1 << 18;

#[derive(Clone, Copy)]
struct Made {
    transaction: u64,
    customer: u64,
    steps: u64,
}

struct Writer {
    workload: Workload,
    random: Random,
    made_count: u64,
    posted: Vec<Made>,
    disputed: Vec<Made>,
}

impl Writer {
    fn make(&mut self) -> Made {
        self.made_count += 1;
        let customer = 1 + self.random.below(self.workload.customers);
        Made { transaction: self.made_count, customer, steps: 1 + self.random.below(10_000_000) }
    }

    fn take(list: &mut Vec<Made>, random: &mut Random) -> Option<Made> {
        let index = random.below(list.len().max(1) as u64) as usize;
        if index < list.len() { Some(list.swap_remove(index)) } else { None }
    }

    fn remember(list: &mut Vec<Made>, made: Made, random: &mut Random) {
        if (list.len() as u64) < WINDOW_LEN {
            list.push(made);
        } else {
            let index = random.below(WINDOW_LEN) as usize;
            list[index] = made;
        }
    }

    fn movement(&self, out: &mut Vec<u8>, kind: &str, made: Made) -> io::Result<()> {
        let id = transaction_id(self.workload.ids, made.transaction);
        let (units, steps) = (made.steps / 10_000, made.steps % 10_000);
        writeln!(out, "{kind},{},{id},{units}.{steps:04}", made.customer)
    }

    fn reference(&self, out: &mut Vec<u8>, kind: &str, made: Made) -> io::Result<()> {
        writeln!(out, "{kind},{},{},", made.customer, transaction_id(self.workload.ids, made.transaction))
    }

    fn deposit(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let made = self.make();
        Self::remember(&mut self.posted, made, &mut self.random);
        self.movement(out, "deposit", made)
    }

    fn row(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.workload.with_faults && self.random.below(100) < 20 {
            return self.faulty_row(out);
        }
        match self.random.below(100_000) {
            0..30_000 => {
                let made = self.make();
                self.movement(out, "withdrawal", made)
            }
            30_000..31_000 => match Self::take(&mut self.posted, &mut self.random) {
                None => self.deposit(out),
                Some(made) => {
                    Self::remember(&mut self.disputed, made, &mut self.random);
                    self.reference(out, "dispute", made)
                }
            },
            31_000..31_700 => match Self::take(&mut self.disputed, &mut self.random) {
                None => self.deposit(out),
                Some(made) => {
                    Self::remember(&mut self.posted, made, &mut self.random);
                    self.reference(out, "resolve", made)
                }
            },
            31_700..31_710 => match Self::take(&mut self.disputed, &mut self.random) {
                None => self.deposit(out),
                Some(made) => self.reference(out, "chargeback", made),
            },
            _ => self.deposit(out),
        }
    }

    /// A row of which one cannot say without the ledger what becomes of it: a repeat, another use of an id, any step
    /// of a dispute at the wrong time, an amount that is not above zero, or something that is no row.
    fn faulty_row(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let old = match self.random.below(self.made_count.max(1)) {
            0 => self.make(),
            transaction => Made { transaction, ..self.make() },
        };
        let recent = self.posted.last().copied().unwrap_or(old);
        match self.random.below(10) {
            0 => self.movement(out, "deposit", recent),
            1 => self.movement(out, "deposit", Made { steps: recent.steps + 1, ..recent }),
            2 => self.movement(out, "withdrawal", recent),
            3 => self.reference(out, "resolve", recent),
            4 => self.reference(out, "chargeback", recent),
            5 => self.reference(out, "dispute", recent),
            6 => self.reference(out, "dispute", old),
            7 => self.movement(out, "deposit", Made { steps: 0, ..old }),
            8 => writeln!(out, "deposit,{},{},12x", old.customer, old.transaction),
            _ => writeln!(out, "refund,{},{},1", old.customer, old.transaction),
        }
    }
}

impl Workload {
    /// Writes the header and all rows.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut writer = Writer {
            workload: *self,
            random: Random::new(self.seed),
            made_count: 0,
            posted: Vec::new(),
            disputed: Vec::new(),
        };
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + 256);
        buffer.extend_from_slice(b"type,client,tx,amount\n");
        for _ in 0..self.rows {
            writer.row(&mut buffer)?;
            if buffer.len() >= BUFFER_BYTES {
                out.write_all(&buffer)?;
                buffer.clear();
            }
        }
        out.write_all(&buffer)
    }

    /// The same into a file, which is on the disk when this returns: nothing of it is left to be written while
    /// something is measured.
    pub(crate) fn write_file(&self, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        self.write(&mut file)?;
        file.sync_all()
    }

    /// The same into memory.
    pub(crate) fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bursar_core::Hash;
    use sha2::{Digest, Sha256};

    const WORKLOAD: Workload = Workload { rows: 20_000, customers: 50, ids: Ids::Rising, seed: 1, with_faults: true };

    /// Figures of two versions can be compared only if their workloads are the same.
    #[test]
    fn the_bytes_follow_from_the_seed() {
        let digest = |workload: &Workload| Hash(Sha256::digest(workload.bytes().unwrap()).into()).to_string();
        assert_eq!(digest(&WORKLOAD), "604c550be0fbfe0c76b4b9d42af260482861a7d80bf611b1cb3830c499fcc8be");
        assert_ne!(digest(&WORKLOAD), digest(&Workload { seed: 2, ..WORKLOAD }));
        let text = String::from_utf8(WORKLOAD.bytes().unwrap()).unwrap();
        assert_eq!(text.lines().count(), 20_001);
        for kind in ["deposit,", "withdrawal,", "dispute,", "resolve,", "chargeback,", "refund,"] {
            assert!(text.lines().any(|line| line.starts_with(kind)), "no {kind}");
        }
    }

    #[test]
    fn uuids_are_of_version_4_and_differ() {
        let mut seen = std::collections::HashSet::new();
        for number in 0..10_000 {
            let text = transaction_id(Ids::Uuid, number).to_string();
            assert_eq!((text.len(), &text[14..15]), (36, "4"), "{text}");
            assert!(TransactionId::parse(text.as_bytes()).is_ok(), "{text}");
            assert!(seen.insert(text));
        }
    }
}
