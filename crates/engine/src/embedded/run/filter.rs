//! The filter of a run: says of most absent keys, without a read, that they are absent.
//!
//! A split block Bloom filter as in Apache Parquet's specification ("Bloom Filter"): the upper half of a key's
//! 64-bit hash picks a block of 256 bits, the lower half sets one bit in each of the block's eight words. One
//! key costs one cache line. With ten bits per key, about one absent key in a hundred is let through. A key
//! that was inserted is always let through.

use std::ops::Range;

/// The bytes of a block: eight words of 32 bits, little-endian.
pub(super) const FILTER_BLOCK_BYTES: usize = 32;
const BITS_PER_BLOCK: u64 = 256;
const BITS_PER_KEY: u64 = 10;
/// A filter for a count not yet known has a multiple of this many blocks, so that it can be folded by many
/// factors.
const FOLD_BLOCKS: u64 = 60;

/// The odd multipliers of the specification, one for each word of a block.
const SALT: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// A split block Bloom filter over 64-bit hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Whole blocks, at least one.
    bytes: Vec<u8>,
}

impl Filter {
    /// An empty filter for this many keys.
    pub(crate) fn for_keys(key_count: u64) -> Self {
        Self::of_blocks(blocks_for(key_count))
    }

    /// An empty filter for a count that is not known yet; [`Filter::fold_to`] cuts it down later.
    pub(crate) fn for_keys_at_most(key_count_max: u64) -> Self {
        Self::of_blocks(blocks_for(key_count_max).next_multiple_of(FOLD_BLOCKS))
    }

    fn of_blocks(block_count: u64) -> Self {
        Self { bytes: vec![0; block_count as usize * FILTER_BLOCK_BYTES] }
    }

    /// A filter from what [`Filter::as_bytes`] gave; `None` if these are not one or more whole blocks.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        (!bytes.is_empty() && bytes.len().is_multiple_of(FILTER_BLOCK_BYTES)).then_some(Self { bytes })
    }

    /// The filter as it is stored.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn block_count(&self) -> u64 {
        (self.bytes.len() / FILTER_BLOCK_BYTES) as u64
    }

    /// Where the block of a hash lies.
    fn block_of(&self, hash: u64) -> Range<usize> {
        let block = (u128::from(hash >> 32) * u128::from(self.block_count())) >> 32;
        let start = block as usize * FILTER_BLOCK_BYTES;
        start..start + FILTER_BLOCK_BYTES
    }

    /// Inserts a key by its hash.
    pub(crate) fn insert(&mut self, hash: u64) {
        let block = self.block_of(hash);
        let Some(block) = self.bytes.get_mut(block) else { return };
        for (word, bit) in block.as_chunks_mut::<4>().0.iter_mut().zip(bits_of(hash)) {
            *word = (u32::from_le_bytes(*word) | bit).to_le_bytes();
        }
    }

    /// Inserts keys by their hashes, which may lie anywhere: what is read for one does not wait for another.
    pub(crate) fn insert_all(&mut self, hashes: &[u64]) {
        let first_byte = |hash: &u64| self.bytes.get(self.block_of(*hash)).map_or(0, |block| block[0]);
        std::hint::black_box(hashes.iter().map(first_byte).fold(0, |seen, byte| seen ^ byte));
        for &hash in hashes {
            self.insert(hash);
        }
    }

    /// Whether a key with this hash may have been inserted; `false` is certain.
    pub(crate) fn contains(&self, hash: u64) -> bool {
        let Some(block) = self.bytes.get(self.block_of(hash)) else { return true };
        let words = block.as_chunks::<4>().0.iter().zip(bits_of(hash));
        // Where it stops being so cannot be foreseen: to look at all of a block costs less than to guess.
        words.fold(true, |all, (word, bit)| all & (u32::from_le_bytes(*word) & bit != 0))
    }

    /// Cuts the filter down to what this many keys need, as far as its length can be divided.
    ///
    /// A block's number is the hash scaled to the block count, rounded down. So joining every `n` neighbours
    /// gives exactly the filter that would have been built with an `n`-th of the blocks.
    pub(crate) fn fold_to(&mut self, key_count: u64) {
        let block_count = self.block_count();
        let factor_max = block_count / blocks_for(key_count);
        let Some(factor) = (2..=factor_max).rev().find(|factor| block_count.is_multiple_of(*factor)) else { return };
        let joined_bytes = factor as usize * FILTER_BLOCK_BYTES;
        let mut folded = Vec::with_capacity(self.bytes.len() / factor as usize);
        for neighbours in self.bytes.chunks_exact(joined_bytes) {
            let mut joined = [0u8; FILTER_BLOCK_BYTES];
            for block in neighbours.chunks_exact(FILTER_BLOCK_BYTES) {
                joined.iter_mut().zip(block).for_each(|(byte, other)| *byte |= other);
            }
            folded.extend_from_slice(&joined);
        }
        self.bytes = folded;
    }
}

/// How many blocks this many keys need; at least one.
fn blocks_for(key_count: u64) -> u64 {
    key_count.saturating_mul(BITS_PER_KEY).div_ceil(BITS_PER_BLOCK).max(1)
}

/// The bit that a hash sets in each word of its block.
fn bits_of(hash: u64) -> [u32; 8] {
    SALT.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::super::fingerprint::fingerprint;
    use super::*;
    use proptest::prelude::*;

    fn hash(number: u64) -> u64 {
        fingerprint(b"a filter's tests", u128::from(number))
    }

    #[test]
    fn the_layout_on_disk_never_changes() {
        let mut filter = Filter::for_keys(40);
        filter.insert(0x0000_0000_0000_0001);
        filter.insert(0xffff_ffff_8000_0000);
        let mut expected = vec![0u8; 64];
        // The lower half 1 sets bit SALT >> 27 of each word: 8, 8, 17, 20, 14, 5, 19, 11.
        for (word, bit) in [8u32, 8, 17, 20, 14, 5, 19, 11].into_iter().enumerate() {
            expected[word * 4..][..4].copy_from_slice(&(1u32 << bit).to_le_bytes());
        }
        // All multipliers are odd, so the lower half 2^31 sets bit 16; the upper half picks the last block.
        for word in 0..8 {
            expected[32 + word * 4..][..4].copy_from_slice(&(1u32 << 16).to_le_bytes());
        }
        assert_eq!(filter.as_bytes(), expected);
    }

    #[test]
    fn about_one_absent_key_in_a_hundred_is_let_through() {
        for key_count in [1_000, 100_000] {
            let mut filter = Filter::for_keys(key_count);
            assert_eq!(filter.as_bytes().len() as u64, (key_count * 10).div_ceil(256) * 32);
            (0..key_count).for_each(|number| filter.insert(hash(number)));
            assert!((0..key_count).all(|number| filter.contains(hash(number))));
            let let_through = (key_count..key_count + 100_000).filter(|&number| filter.contains(hash(number))).count();
            assert!((200..2_000).contains(&let_through), "{let_through} of 100000, with {key_count} keys");
        }
    }

    #[test]
    fn bytes_that_are_no_whole_blocks_are_refused() {
        for (length, good) in [(0, false), (31, false), (32, true), (33, false), (64, true)] {
            assert_eq!(Filter::from_bytes(vec![0; length]).is_some(), good, "{length}");
        }
    }

    proptest! {
        #[test]
        fn a_folded_filter_is_the_one_built_small(keys: Vec<u64>, at_most in 0u64..20_000) {
            let mut folded = Filter::for_keys_at_most(at_most.max(keys.len() as u64));
            for &key in &keys {
                folded.insert(key);
            }
            folded.fold_to(keys.len() as u64);
            let mut small = Filter::of_blocks(folded.block_count());
            for &key in &keys {
                small.insert(key);
            }
            prop_assert_eq!(&folded, &small);
            prop_assert!(keys.iter().all(|&key| folded.contains(key)));
            prop_assert_eq!(Filter::from_bytes(folded.as_bytes().to_vec()), Some(folded));
        }
    }

    #[test]
    fn folding_leaves_little_more_than_is_needed() {
        for (at_most, key_count) in [(4_000_000u64, 1_000_000u64), (4_000_000, 1_300_000), (1_000_000, 10), (9, 0)] {
            let mut filter = Filter::for_keys_at_most(at_most);
            filter.fold_to(key_count);
            assert!(filter.block_count() >= blocks_for(key_count));
            assert!(filter.block_count() <= blocks_for(key_count) * 3 / 2 + FOLD_BLOCKS, "{at_most} {key_count}");
        }
    }
}
