//! Runs over transaction ids: from a fingerprint to the journal positions that touched the transaction.
//!
//! An entry has ten bytes: the top 40 bits of the id's fingerprint, and 40 bits of position relative to where
//! the run's part of the journal begins. Two transactions may share 40 bits, so a position is a *candidate*: the
//! caller reads the journal there and compares the id.
//!
//! The first fingerprint of every block stays in memory, five bytes for 409 entries beside the filter's ten
//! bits for each. So a lookup reads exactly the block that has the fingerprint, where guessing its place from
//! the fingerprint's size would read two or three in a large run.

use super::file::{
    BLOCK_BYTES, Block, CONTENT_BYTES, ENTRY_COUNT_OFFSET, IdRange, Kind, Opened, RunFile, RunInfo, RunWriter, misuse,
};
use super::filter::Filter;
use crate::embedded::disk::Disk;
use crate::store::StoreError;
use std::cmp::Reverse;

/// How many bytes of the journal one run may cover at the most: what 40 bits of position can say.
pub(crate) const POSITION_SPAN_MAX: u64 = 1 << 40;

const HALF_BYTES: usize = 5;
const ENTRY_BYTES: usize = 2 * HALF_BYTES;
/// How many entries a block has; the last one may have fewer.
const ENTRIES_PER_BLOCK: usize = CONTENT_BYTES / ENTRY_BYTES;

/// The 40 bits of a hash that are kept.
pub(crate) const fn kept(hash: u64) -> u64 {
    hash >> 24
}

/// What the filter is asked about. It takes 64 bits, of which a run knows 40.
///
/// The upper half, which picks the block, is the fingerprint's: so entries in order fill the filter from its
/// beginning to its end, and a merge of any size stays in the processor's cache. The lower half is that of
/// `MurmurHash3`'s finalizer over all 40 bits.
const fn filter_hash(fingerprint: u64) -> u64 {
    let mut mixed = fingerprint;
    mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^= mixed >> 33;
    fingerprint >> 8 << 32 | mixed & 0xffff_ffff
}

/// The low 40 bits of a number, big-endian.
const fn half(number: u64) -> [u8; HALF_BYTES] {
    let [_, _, _, low @ ..] = number.to_be_bytes();
    low
}

fn number(half: [u8; HALF_BYTES]) -> u64 {
    half.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The fingerprint of a stored entry.
fn fingerprint_of(entry: &[u8; ENTRY_BYTES]) -> u64 {
    let [fingerprint @ .., _, _, _, _, _] = entry;
    number(*fingerprint)
}

/// The relative position of a stored entry.
fn position_of(entry: &[u8; ENTRY_BYTES]) -> u64 {
    let [_, _, _, _, _, position @ ..] = entry;
    number(*position)
}

/// Writes a run of `(fingerprint, journal position)`, in any order; of a fingerprint the top 40 bits are kept.
/// Positions must be in what the run covers; `ids` are the smallest and largest transaction id among them.
pub(crate) fn write(
    disk: &dyn Disk,
    name: &str,
    info: RunInfo,
    ids: IdRange,
    mut entries: Vec<(u64, u64)>,
) -> Result<(), StoreError> {
    entries.sort_unstable_by_key(|&(hash, position)| (kept(hash), Reverse(position)));
    let mut writer = TransactionWriter::new(disk, name, info, entries.len() as u64)?;
    for (hash, position) in entries {
        writer.push(kept(hash), position)?;
    }
    writer.finish(ids)
}

/// Writes a run entry by entry.
#[derive(Debug)]
pub(super) struct TransactionWriter<'a> {
    out: RunWriter<'a>,
    info: RunInfo,
    filter: Filter,
    block: Vec<u8>,
    entry_count: u64,
    last: Option<(u64, Reverse<u64>)>,
}

impl<'a> TransactionWriter<'a> {
    pub(super) fn new(disk: &'a dyn Disk, name: &'a str, info: RunInfo, count: u64) -> Result<Self, StoreError> {
        if info.to.saturating_sub(info.from) > POSITION_SPAN_MAX {
            return Err(misuse(disk, name, "an index of transactions covers too much of the journal"));
        }
        let out = RunWriter::new(disk, name, Kind::Transactions, info)?;
        let block = Vec::with_capacity(BLOCK_BYTES);
        Ok(Self { out, info, filter: Filter::for_keys(count), block, entry_count: 0, last: None })
    }

    /// Appends an entry with the kept 40 bits of its fingerprint; they must ascend, and positions of the same
    /// fingerprint must not.
    pub(super) fn push(&mut self, fingerprint: u64, position: u64) -> Result<(), StoreError> {
        let key = (fingerprint, Reverse(position));
        if self.last.is_some_and(|last| last > key) {
            return Err(self.out.misuse("entries are out of order"));
        }
        if !(self.info.from..self.info.to).contains(&position) {
            return Err(self.out.misuse("an entry points outside of what the index covers"));
        }
        if self.block.len() >= ENTRIES_PER_BLOCK * ENTRY_BYTES {
            self.end_block()?;
        }
        self.block.extend_from_slice(&half(fingerprint));
        self.block.extend_from_slice(&half(position - self.info.from));
        self.filter.insert(filter_hash(fingerprint));
        self.entry_count += 1;
        self.last = Some(key);
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        let Some(first_key) = self.block.first_chunk::<HALF_BYTES>().copied() else { return Ok(()) };
        let mut block = [0; BLOCK_BYTES];
        block.iter_mut().zip(&self.block).for_each(|(byte, written)| *byte = *written);
        self.block.clear();
        self.out.block(&mut block, &first_key)
    }

    pub(super) fn finish(mut self, ids: IdRange) -> Result<(), StoreError> {
        self.end_block()?;
        self.out.finish(self.entry_count, ids, &self.filter)
    }
}

/// An open run over transaction ids. Lookups may run beside each other.
#[derive(Debug)]
pub(crate) struct TransactionRun {
    file: RunFile,
    /// The first fingerprint of each block.
    first_keys: Vec<u64>,
    filter: Filter,
}

impl TransactionRun {
    /// Opens a run of this ledger; reads all of it but its entries.
    pub(crate) fn open(disk: &dyn Disk, name: &str, ledger: &[u8; 16]) -> Result<Self, StoreError> {
        let Opened { file, keys, filter } = RunFile::open(disk, name, Kind::Transactions, ledger)?;
        let first_keys: Vec<u64> = keys.as_chunks().0.iter().map(|&key| number(key)).collect();
        let header = file.header();
        if header.entry_count.div_ceil(ENTRIES_PER_BLOCK as u64) != header.block_count {
            return file.damaged(ENTRY_COUNT_OFFSET, "the counts of entries and blocks do not fit each other");
        }
        if header.info.to - header.info.from > POSITION_SPAN_MAX || !first_keys.is_sorted() {
            return file.damaged(0, "the header or the section of first keys makes no sense");
        }
        Ok(Self { file, first_keys, filter })
    }

    /// Which ledger, and which part of its journal.
    pub(crate) const fn info(&self) -> &RunInfo {
        &self.file.header().info
    }

    /// The smallest and the largest transaction id.
    pub(crate) const fn ids(&self) -> IdRange {
        self.file.header().ids
    }

    /// How many entries there are.
    pub(crate) const fn entry_count(&self) -> u64 {
        self.file.header().entry_count
    }

    /// The length of the file, in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file.file_bytes()
    }

    /// How much memory the run takes while it is open, in bytes.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> u64 {
        (self.filter.as_bytes().len() + size_of_val(self.first_keys.as_slice())) as u64
    }

    /// Whether there may be an entry for an id with this fingerprint; `false` is certain. Costs no read.
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        self.filter.contains(filter_hash(kept(hash)))
    }

    /// Adds the journal positions of entries for this fingerprint, newest first. Some may belong to another id.
    /// After an error, `positions` may have a part of them.
    pub(crate) fn candidates(&self, hash: u64, positions: &mut Vec<u64>) -> Result<(), StoreError> {
        if !self.may_contain(hash) {
            return Ok(());
        }
        let fingerprint = kept(hash);
        let mut block = [0; BLOCK_BYTES];
        // Equal fingerprints may begin in the block before the first one that begins with them.
        let start = self.first_keys.partition_point(|&first| first < fingerprint).saturating_sub(1);
        for (block_index, &first) in self.first_keys.iter().enumerate().skip(start) {
            if first > fingerprint {
                break;
            }
            let entries = self.read_block(block_index, &mut block)?;
            let begin = entries.partition_point(|entry| fingerprint_of(entry) < fingerprint);
            for (entry_index, entry) in entries.iter().enumerate().skip(begin) {
                if fingerprint_of(entry) != fingerprint {
                    return Ok(());
                }
                positions.push(self.position(block_index, entry_index, entry)?);
            }
        }
        Ok(())
    }

    /// Reads a block and gives its entries.
    fn read_block<'b>(&self, index: usize, block: &'b mut Block) -> Result<&'b [[u8; ENTRY_BYTES]], StoreError> {
        self.file.read_block(index, block)?;
        let before = index as u64 * ENTRIES_PER_BLOCK as u64;
        let count = self.entry_count().saturating_sub(before).min(ENTRIES_PER_BLOCK as u64) as usize;
        let entries = block.as_chunks::<ENTRY_BYTES>().0.get(..count).unwrap_or_default();
        if entries.first().map(fingerprint_of) != self.first_keys.get(index).copied() {
            return self.file.damaged(RunFile::block_offset(index), "a block begins with another key than it should");
        }
        Ok(entries)
    }

    /// The journal position that an entry says.
    fn position(&self, block: usize, entry_index: usize, entry: &[u8; ENTRY_BYTES]) -> Result<u64, StoreError> {
        let info = self.info();
        match info.from.checked_add(position_of(entry)) {
            Some(position) if position < info.to => Ok(position),
            Some(_) | None => {
                let offset = RunFile::block_offset(block) + (entry_index * ENTRY_BYTES) as u64;
                self.file.damaged(offset, "an entry points outside of what the index covers")
            }
        }
    }

    /// The first block that may have an entry for this fingerprint or a larger one.
    pub(crate) fn first_block(&self, hash: u64) -> usize {
        self.first_keys.partition_point(|&first| first < kept(hash)).saturating_sub(1)
    }

    /// Replaces `entries` by those of a block, as the kept 40 bits and a position, in order as by [`Self::iter`]; none
    /// behind the last block.
    pub(crate) fn block_entries(&self, index: usize, entries: &mut Vec<(u64, u64)>) -> Result<(), StoreError> {
        let last = entries.last().copied();
        entries.clear();
        if index >= self.first_keys.len() {
            return Ok(());
        }
        let mut block = [0; BLOCK_BYTES];
        for (entry_index, entry) in self.read_block(index, &mut block)?.iter().enumerate() {
            entries.push((fingerprint_of(entry), self.position(index, entry_index, entry)?));
        }
        let in_order = last.iter().chain(&*entries).is_sorted_by_key(|&(key, position)| (key, Reverse(position)));
        if in_order {
            return Ok(());
        }
        self.file.damaged(RunFile::block_offset(index), "entries are out of order")
    }

    /// All entries as the kept 40 bits and a position, in order: fingerprints ascend, and positions of the same
    /// fingerprint descend. Reads one block at a time; ends after the first error.
    pub(crate) fn iter(&self) -> TransactionIter<'_> {
        TransactionIter { run: self, block: Box::new([0; BLOCK_BYTES]), next_block: 0, entry: 0, count: 0, last: None }
    }
}

/// See [`TransactionRun::iter`].
#[derive(Debug)]
pub(crate) struct TransactionIter<'a> {
    run: &'a TransactionRun,
    block: Box<Block>,
    /// The index of the block behind the one in memory.
    next_block: usize,
    /// The index of the next entry in the block in memory.
    entry: usize,
    /// How many entries the block in memory has.
    count: usize,
    last: Option<(u64, Reverse<u64>)>,
}

impl TransactionIter<'_> {
    fn advance(&mut self) -> Result<Option<(u64, u64)>, StoreError> {
        if self.entry >= self.count {
            if self.next_block >= self.run.first_keys.len() {
                return Ok(None);
            }
            self.count = self.run.read_block(self.next_block, &mut self.block)?.len();
            self.next_block += 1;
            self.entry = 0;
        }
        let (block, index) = (self.next_block.saturating_sub(1), self.entry);
        let Some(entry) = self.block.as_chunks::<ENTRY_BYTES>().0.get(index) else { return Ok(None) };
        self.entry += 1;
        let (fingerprint, position) = (fingerprint_of(entry), self.run.position(block, index, entry)?);
        let key = (fingerprint, Reverse(position));
        if self.last.is_some_and(|last| last > key) {
            return self.run.file.damaged(RunFile::block_offset(block), "entries are out of order");
        }
        self.last = Some(key);
        Ok(Some((fingerprint, position)))
    }
}

impl Iterator for TransactionIter<'_> {
    type Item = Result<(u64, u64), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.advance().transpose();
        if matches!(item, Some(Err(_))) {
            (self.entry, self.count, self.next_block) = (0, 0, usize::MAX);
        }
        item
    }
}
