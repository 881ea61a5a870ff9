//! The checkpoint: a small file that says up to where the index files cover the journal, and all that else
//! would have to be gathered from the covered part. Opening a ledger costs what came after it.
//!
//! It is derived: without it, or with one that cannot be read, the journal is read from its beginning.
//! `docs/format.md`, "Checkpoint".

use super::codec::{Decoder, Malformed, crc32c, put_id, put_varint};
use super::journal::JournalPoint;
use super::record::{put_mark_content, take_mark_content};
use crate::store::SourceMark;
use crate::totals::{CurrencyTotals, Totals};
use bursar_core::{CustomerId, Hash, Sum};

/// The name of the file.
pub(crate) const CHECKPOINT_NAME: &str = "checkpoint.bursar";
const MAGIC: [u8; 8] = *b"BURSCHKP";
const VERSION: u32 = 1;

/// What an index file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunKind {
    Transactions,
    Customers,
}

impl RunKind {
    pub(crate) const ALL: [Self; 2] = [Self::Transactions, Self::Customers];

    const fn code(self) -> u8 {
        match self {
            Self::Transactions => 1,
            Self::Customers => 2,
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Transactions => 't',
            Self::Customers => 'c',
        }
    }
}

/// An index file by what it covers: the journal's positions from `from` up to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunName {
    pub(crate) kind: RunKind,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl RunName {
    pub(crate) fn file_name(self) -> String {
        format!("index-{}-{:020}-{:020}.bursar", self.kind.letter(), self.from, self.to)
    }
}

/// Whether a file is an index file, or was to become one.
pub(crate) fn is_index_file(name: &str) -> bool {
    name.starts_with("index-")
}

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) ledger: [u8; 16],
    /// Everything before this point is covered.
    pub(crate) point: JournalPoint,
    pub(crate) last_time_ms: u64,
    pub(crate) totals: Totals,
    /// The index files, oldest first.
    pub(crate) runs: Vec<RunName>,
    /// Open events by customer, with the positions of their records, oldest first.
    pub(crate) open: Vec<(CustomerId, Vec<u64>)>,
    /// How far sources got.
    pub(crate) sources: Vec<SourceMark>,
}

impl Checkpoint {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.ledger);
        out.extend_from_slice(self.point.digest.as_bytes());
        let totals = &self.totals;
        let numbers = [
            self.point.position,
            self.point.frame_number,
            self.last_time_ms,
            totals.event_count,
            totals.transaction_count,
            totals.customer_count,
        ];
        for number in numbers {
            put_varint(&mut out, number);
        }
        put_varint(&mut out, totals.currencies().len() as u64);
        for sums in totals.currencies() {
            for sum in sums_of(sums) {
                out.extend_from_slice(&sum.steps().to_le_bytes());
            }
        }
        put_varint(&mut out, self.runs.len() as u64);
        for run in &self.runs {
            out.push(run.kind.code());
            put_varint(&mut out, run.from);
            put_varint(&mut out, run.to);
        }
        put_varint(&mut out, self.open.len() as u64);
        for (customer, positions) in &self.open {
            let wide_at = out.len();
            out.push(0);
            out[wide_at] = u8::from(put_id(&mut out, customer.bits()));
            put_varint(&mut out, positions.len() as u64);
            for &position in positions {
                put_varint(&mut out, position);
            }
        }
        put_varint(&mut out, self.sources.len() as u64);
        for mark in &self.sources {
            put_mark_content(&mut out, mark);
        }
        let crc = crc32c(&out[16..]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a checkpoint; an error if this is none that can be relied on.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(bytes, 0);
        let sound = decoder.array()? == MAGIC && decoder.fixed_u32()? == VERSION;
        if !sound || decoder.fixed_u32()? != crc32c(bytes.get(16..).unwrap_or_default()) {
            return decoder.malformed();
        }
        let ledger = decoder.array()?;
        let digest = Hash(decoder.array()?);
        let (position, frame_number) = (decoder.count()?, decoder.count()?);
        let last_time_ms = decoder.varint()?;
        let mut totals = Totals::default();
        totals.event_count = decoder.count()?;
        totals.transaction_count = decoder.count()?;
        totals.customer_count = decoder.count()?;
        totals.set_currencies(take_list(&mut decoder, take_totals)?);
        let runs = take_list(&mut decoder, |decoder| {
            let code = decoder.byte()?;
            let Some(kind) = RunKind::ALL.into_iter().find(|kind| kind.code() == code) else {
                return decoder.malformed();
            };
            Ok(RunName { kind, from: decoder.varint()?, to: decoder.varint()? })
        })?;
        let open = take_list(&mut decoder, |decoder| {
            let wide = decoder.byte()? == 1;
            Ok((CustomerId::new(decoder.id(wide)?), take_list(decoder, Decoder::varint)?))
        })?;
        let sources = take_list(&mut decoder, take_mark_content)?;
        if !decoder.is_at_end() {
            return decoder.malformed();
        }
        let point = JournalPoint { position, frame_number, digest };
        Ok(Self { ledger, point, last_time_ms, totals, runs, open, sources })
    }
}

fn take_list<'a, T>(
    decoder: &mut Decoder<'a>,
    mut take: impl FnMut(&mut Decoder<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut list = Vec::new();
    for _ in 0..decoder.varint()? {
        list.push(take(decoder)?);
    }
    Ok(list)
}

const fn sums_of(totals: &CurrencyTotals) -> [Sum; 7] {
    [
        totals.deposits,
        totals.withdrawals,
        totals.deposits_charged_back,
        totals.withdrawals_charged_back,
        totals.provisional,
        totals.held,
        totals.total,
    ]
}

fn take_totals(decoder: &mut Decoder<'_>) -> Result<CurrencyTotals, Malformed> {
    let mut sum = || Ok(Sum::from_steps(i128::from_le_bytes(decoder.array()?)));
    Ok(CurrencyTotals {
        deposits: sum()?,
        withdrawals: sum()?,
        deposits_charged_back: sum()?,
        withdrawals_charged_back: sum()?,
        provisional: sum()?,
        held: sum()?,
        total: sum()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{RowCounts, SourceId};

    #[test]
    fn a_checkpoint_reads_back_and_no_flip_goes_unseen() {
        let mut totals = Totals::default();
        (totals.event_count, totals.transaction_count, totals.customer_count) = (5, 4, 3);
        let sums = CurrencyTotals { deposits: Sum::from_steps(1 << 70), ..CurrencyTotals::default() };
        totals.set_currencies(vec![sums, CurrencyTotals::default()]);
        let mark = SourceMark {
            source: SourceId([1; 32]),
            offset: 100,
            line_count: 7,
            finished: false,
            counts: RowCounts::default(),
            rejected_lines: Vec::new(),
        };
        let checkpoint = Checkpoint {
            ledger: [8; 16],
            point: JournalPoint { position: 1 << 33, frame_number: 99, digest: Hash([4; 32]) },
            last_time_ms: 1_800_000_000_000,
            totals,
            runs: vec![RunName { kind: RunKind::Customers, from: 0, to: 1 << 33 }],
            open: vec![(CustomerId::new(3), vec![5, 1 << 32])],
            sources: vec![mark],
        };
        let bytes = checkpoint.bytes();
        assert_eq!(Checkpoint::read(&bytes), Ok(checkpoint));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(Checkpoint::read(&flipped).is_err(), "byte {at}");
            assert!(Checkpoint::read(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
