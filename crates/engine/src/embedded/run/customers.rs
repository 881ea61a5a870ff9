//! Runs over customer ids: the head of each customer's chain as of the end of what the run covers.
//!
//! Entries are sorted by id and have the length they need, see [`super::entry`]; each block begins with a whole
//! id. A head's open events are not stored: what is open is in memory, and after a start it is found in the
//! journal.

use super::entry::{COUNT_BYTES, Cursor, body, put_body, put_entry};
use super::file::{
    BLOCK_BYTES, Block, CONTENT_BYTES, ENTRY_COUNT_OFFSET, IdRange, Kind, Opened, RunFile, RunInfo, RunWriter,
};
use super::filter::Filter;
use super::fingerprint::fingerprint;
use crate::embedded::codec::Malformed;
use crate::embedded::disk::Disk;
use crate::store::StoreError;
use bursar_core::currency::CURRENCIES_MAX;
use bursar_core::{CustomerId, Head};
use std::ops::Range;

/// Writes a run of `(customer, head, journal position of the newest event)`. Customers must ascend, and
/// positions must be in what the run covers. `count` is how many they are at the most.
pub(crate) fn write(
    disk: &dyn Disk,
    name: &str,
    info: RunInfo,
    count: usize,
    entries: impl Iterator<Item = (CustomerId, Head, u64)>,
) -> Result<(), StoreError> {
    let mut writer = CustomerWriter::new(disk, name, info, count as u64)?;
    for (customer, head, position) in entries {
        writer.push(customer, &head, position)?;
    }
    writer.finish()
}

/// How many keys are gathered for the filter.
const HASHES_AT_ONCE: usize = 64;

/// Writes a run entry by entry.
#[derive(Debug)]
pub(super) struct CustomerWriter<'a> {
    out: RunWriter<'a>,
    info: RunInfo,
    filter: Filter,
    /// What is to come into the filter.
    hashes: Vec<u64>,
    /// The entries of the block being filled.
    block: Vec<u8>,
    block_entry_count: u16,
    block_first: u128,
    /// The body of one entry, kept for its room.
    body: Vec<u8>,
    entry_count: u64,
    ids: IdRange,
}

impl<'a> CustomerWriter<'a> {
    /// `count_max` is how many entries may come; fewer are well.
    pub(super) fn new(disk: &'a dyn Disk, name: &'a str, info: RunInfo, count_max: u64) -> Result<Self, StoreError> {
        Ok(Self {
            out: RunWriter::new(disk, name, Kind::Customers, info)?,
            info,
            filter: Filter::for_keys_at_most(count_max),
            hashes: Vec::with_capacity(HASHES_AT_ONCE),
            block: Vec::with_capacity(BLOCK_BYTES),
            block_entry_count: 0,
            block_first: 0,
            body: Vec::new(),
            entry_count: 0,
            ids: IdRange::EMPTY,
        })
    }

    pub(super) fn push(&mut self, customer: CustomerId, head: &Head, position: u64) -> Result<(), StoreError> {
        let id = customer.bits();
        if self.entry_count > 0 && id <= self.ids.max {
            return Err(self.out.misuse("entries are out of order"));
        }
        if !(self.info.from..self.info.to).contains(&position) {
            return Err(self.out.misuse("an entry points outside of what the index covers"));
        }
        if head.state.accounts.iter().any(|(currency, _)| usize::from(currency.0) >= CURRENCIES_MAX) {
            return Err(self.out.misuse("a customer has a currency that no ledger can have"));
        }
        self.body.clear();
        put_body(&mut self.body, head, position - self.info.from);
        let filled_bytes = self.block.len();
        put_entry(&mut self.block, if filled_bytes == 0 { 0 } else { self.ids.max }, id, &self.body);
        if self.block.len() > CONTENT_BYTES - COUNT_BYTES {
            self.block.truncate(filled_bytes);
            self.end_block()?;
            put_entry(&mut self.block, 0, id, &self.body);
        }
        if self.block_entry_count == 0 {
            self.block_first = id;
        }
        self.block_entry_count += 1;
        self.hashes.push(fingerprint(&self.info.ledger, id));
        if self.hashes.len() == HASHES_AT_ONCE {
            self.insert_hashes();
        }
        self.entry_count += 1;
        self.ids = self.ids.with(id);
        Ok(())
    }

    fn insert_hashes(&mut self) {
        self.filter.insert_all(&self.hashes);
        self.hashes.clear();
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        if self.block_entry_count == 0 {
            return Ok(());
        }
        let mut block = [0; BLOCK_BYTES];
        block[..COUNT_BYTES].copy_from_slice(&self.block_entry_count.to_le_bytes());
        block[COUNT_BYTES..COUNT_BYTES + self.block.len()].copy_from_slice(&self.block);
        self.block.clear();
        self.block_entry_count = 0;
        self.out.block(&mut block, &self.block_first.to_be_bytes())
    }

    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        self.end_block()?;
        self.insert_hashes();
        self.filter.fold_to(self.entry_count);
        self.out.finish(self.entry_count, self.ids, &self.filter)
    }
}

/// An open run over customer ids. Lookups may run beside each other.
#[derive(Debug)]
pub(crate) struct CustomerRun {
    file: RunFile,
    /// The first customer of each block.
    first_keys: Vec<u128>,
    filter: Filter,
}

impl CustomerRun {
    /// Opens a run of this ledger; reads all of it but its entries.
    pub(crate) fn open(disk: &dyn Disk, name: &str, ledger: &[u8; 16]) -> Result<Self, StoreError> {
        let Opened { file, keys, filter } = RunFile::open(disk, name, Kind::Customers, ledger)?;
        let first_keys: Vec<u128> = keys.as_chunks().0.iter().map(|&key| u128::from_be_bytes(key)).collect();
        let (ids, block_count) = (file.header().ids, file.header().block_count);
        let in_order = first_keys.is_sorted_by(|before, after| before < after);
        let ids_fit = match (first_keys.first(), first_keys.last()) {
            (Some(first), Some(last)) => *first == ids.min && *last <= ids.max,
            (Some(_) | None, None) | (None, Some(_)) => ids == IdRange::EMPTY,
        };
        // A block has one entry at the least, and an entry more than one byte.
        let counts = block_count..=block_count.saturating_mul(CONTENT_BYTES as u64);
        if !in_order || !ids_fit || !counts.contains(&file.header().entry_count) {
            return file.damaged(0, "the header or the section of first keys makes no sense");
        }
        Ok(Self { file, first_keys, filter })
    }

    /// Which ledger, and which part of its journal.
    pub(crate) const fn info(&self) -> &RunInfo {
        &self.file.header().info
    }

    /// The smallest and the largest customer id.
    pub(crate) const fn ids(&self) -> IdRange {
        self.file.header().ids
    }

    /// How many customers there are.
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

    /// Whether the customer may be in this run; `false` is certain. Costs no read.
    pub(crate) fn may_contain(&self, customer: CustomerId) -> bool {
        self.ids().contains(customer.bits()) && self.filter.contains(self.filter_hash(customer))
    }

    /// What the filter is asked about, for who asks about many customers at once.
    pub(crate) fn filter_hash(&self, customer: CustomerId) -> u64 {
        fingerprint(&self.info().ledger, customer.bits())
    }

    /// Whether the filter has all of these hashes. No answer is waited for before the next question.
    pub(crate) fn filter_has_all(&self, hashes: &[u64]) -> bool {
        hashes.iter().fold(true, |all, &hash| all & self.filter.contains(hash))
    }

    /// The customer's head, without open events, and the journal position of the newest event.
    pub(crate) fn get(&self, customer: CustomerId) -> Result<Option<(Head, u64)>, StoreError> {
        if !self.may_contain(customer) {
            return Ok(None);
        }
        let id = customer.bits();
        let Some(index) = self.first_keys.partition_point(|&first| first <= id).checked_sub(1) else {
            return Ok(None);
        };
        let mut block = [0; BLOCK_BYTES];
        let mut place = self.read_block(index, &mut block)?;
        while let Some((found, range)) = self.step(&mut place, &block)? {
            if found == id {
                return self.entry(index, &block, &range).map(Some);
            }
            if found > id {
                break;
            }
        }
        Ok(None)
    }

    /// Customers after `after` in order of id, with head and position. Keeps one block in memory; ends after the
    /// first error.
    pub(crate) fn iter_from(&self, after: Option<CustomerId>) -> CustomerIter<'_> {
        let after = after.map(CustomerId::bits);
        let before = |&first: &u128| after.is_some_and(|after| first <= after);
        let next_block = self.first_keys.partition_point(before).saturating_sub(1);
        CustomerIter {
            run: self,
            block: Box::new([0; BLOCK_BYTES]),
            place: Place::default(),
            next_block,
            after,
            last: None,
            left_count: (next_block == 0).then_some(self.entry_count()),
        }
    }

    fn read_block(&self, index: usize, block: &mut Block) -> Result<Place, StoreError> {
        self.file.read_block(index, block)?;
        let cursor = Cursor::new(content(block)).or_else(|at| self.malformed(index, at))?;
        Ok(Place { index, first: self.first_keys.get(index).copied(), cursor })
    }

    /// The next customer of a block and where its body lies.
    fn step(&self, place: &mut Place, block: &Block) -> Result<Option<(u128, Range<usize>)>, StoreError> {
        let found = place.cursor.next(content(block)).or_else(|at| self.malformed(place.index, at))?;
        if place.first.take().is_some_and(|first| found.as_ref().is_none_or(|(found, _)| *found != first)) {
            let offset = RunFile::block_offset(place.index);
            return self.file.damaged(offset, "a block begins with another key than it should");
        }
        Ok(found)
    }

    fn entry(&self, index: usize, block: &Block, range: &Range<usize>) -> Result<(Head, u64), StoreError> {
        let (head, position) = body(content(block), range).or_else(|at| self.malformed(index, at))?;
        let info = self.info();
        match info.from.checked_add(position) {
            Some(position) if position < info.to => Ok((head, position)),
            Some(_) | None => {
                let offset = RunFile::block_offset(index) + range.start as u64;
                self.file.damaged(offset, "an entry points outside of what the index covers")
            }
        }
    }

    fn malformed<T>(&self, index: usize, at: Malformed) -> Result<T, StoreError> {
        self.file.damaged(RunFile::block_offset(index) + at.offset as u64, "an entry cannot be read")
    }
}

/// Where in a block a search or an iteration is.
#[derive(Debug, Default)]
struct Place {
    /// The block's index.
    index: usize,
    /// What its first key must be, until that was seen.
    first: Option<u128>,
    cursor: Cursor,
}

/// A block without its checksum.
fn content(block: &Block) -> &[u8] {
    block.first_chunk::<CONTENT_BYTES>().map_or(&[], |content| content)
}

/// See [`CustomerRun::iter_from`].
#[derive(Debug)]
pub(crate) struct CustomerIter<'a> {
    run: &'a CustomerRun,
    block: Box<Block>,
    place: Place,
    /// The index of the block behind the one in memory.
    next_block: usize,
    /// Customers up to this one are passed over.
    after: Option<u128>,
    /// The customer before the next one.
    last: Option<u128>,
    /// How many entries of blocks read so far and to come were not met yet; `None` where blocks were left out.
    left_count: Option<u64>,
}

impl CustomerIter<'_> {
    /// The next customer that is wanted; the bodies of others are not looked at. Not to be called again after an error.
    pub(crate) fn next_of(
        &mut self,
        wanted: impl Fn(CustomerId) -> bool,
    ) -> Result<Option<(CustomerId, Head, u64)>, StoreError> {
        loop {
            let Some((id, range)) = self.run.step(&mut self.place, &self.block)? else {
                if self.next_block >= self.run.first_keys.len() {
                    return self.end();
                }
                self.place = self.run.read_block(self.next_block, &mut self.block)?;
                self.next_block += 1;
                continue;
            };
            let index = self.place.index;
            if self.last.is_some_and(|last| id <= last) {
                return self.run.file.damaged(RunFile::block_offset(index), "entries are out of order");
            }
            self.last = Some(id);
            self.left_count = self.left_count.map(|left| left.wrapping_sub(1));
            if self.after.is_none_or(|after| id > after) && wanted(CustomerId::new(id)) {
                let (head, position) = self.run.entry(index, &self.block, &range)?;
                return Ok(Some((CustomerId::new(id), head, position)));
            }
        }
    }

    fn end<T>(&self) -> Result<Option<T>, StoreError> {
        match self.left_count {
            Some(0) | None => Ok(None),
            Some(_) => self.run.file.damaged(ENTRY_COUNT_OFFSET, "there are not as many entries as the header says"),
        }
    }
}

impl Iterator for CustomerIter<'_> {
    type Item = Result<(CustomerId, Head, u64), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.next_of(|_| true).transpose();
        if matches!(item, Some(Err(_))) {
            self.place = Place::default();
            (self.next_block, self.left_count) = (usize::MAX, None);
        }
        item
    }
}
