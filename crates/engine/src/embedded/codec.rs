//! The small encodings that all files of the embedded store are made of: variable-length integers, checksums.
//!
//! Integers of fixed width are little-endian. A variable-length integer has seven bits per byte, lowest first,
//! and the top bit set on all bytes but the last; only the shortest form is valid. A signed one is mapped to
//! unsigned first, so that numbers near zero stay short.

use crc_fast::{CrcAlgorithm, checksum};

/// No position of a journal, and no count of anything in it, is above this. So what is read can be added up.
pub(crate) const COUNT_MAX: u64 = (1 << 62) - 1;

/// CRC-32C (Castagnoli), which processors have instructions for.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Appends a variable-length integer: 1 to 10 bytes.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed variable-length integer.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, (value << 1 ^ value >> 63).cast_unsigned());
}

/// Appends 128 bits: a number below 2^64 as a variable-length integer, anything else as 16 bytes, big-endian.
/// Gives whether it took the 16 bytes; a reader must be told.
pub(crate) fn put_id(out: &mut Vec<u8>, bits: u128) -> bool {
    if let Ok(number) = u64::try_from(bits) {
        put_varint(out, number);
        return false;
    }
    out.extend_from_slice(&bits.to_be_bytes());
    true
}

/// The top bit of each of eight bytes: in a variable-length integer, not set on its last one.
const TOP_BITS: u64 = 0x8080_8080_8080_8080;

/// Reads encodings from a slice; every read says whether there was enough, and never goes beyond.
#[derive(Clone, Debug)]
pub(crate) struct Decoder<'a> {
    bytes: &'a [u8],
    offset: usize,
}

/// The bytes end too early, or are no valid encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// The offset in the slice where that shows.
    pub(crate) offset: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) const fn new(bytes: &'a [u8], offset: usize) -> Self {
        Self { bytes, offset }
    }

    pub(crate) const fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) const fn is_at_end(&self) -> bool {
        self.offset >= self.bytes.len()
    }

    pub(crate) const fn malformed<T>(&self) -> Result<T, Malformed> {
        Err(Malformed { offset: self.offset })
    }

    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.offset.checked_add(count).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else { return self.malformed() };
        let taken = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn fixed_u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn fixed_u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The next eight bytes as a number, and which of their top bits are not set: where integers end.
    #[inline]
    fn eight(&self) -> Option<(u64, u64)> {
        let word = u64::from_le_bytes(*self.bytes.get(self.offset..)?.first_chunk()?);
        Some((word, !word & TOP_BITS))
    }

    /// All bytes at once, without a branch that depends on their count: a wrongly predicted one costs more.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let Some((word, ends)) = self.eight().filter(|(_, ends)| *ends != 0) else { return self.varint_by_bytes() };
        let end = ends & ends.wrapping_neg();
        let bits = word & (end - 1) & !TOP_BITS;
        if bits < end >> 7 && end != 0x80 {
            return self.malformed();
        }
        self.offset += end.trailing_zeros() as usize / 8 + 1;
        let bits = bits & 0x007f_007f_007f_007f | (bits & 0x7f00_7f00_7f00_7f00) >> 1;
        let bits = bits & 0x0000_3fff_0000_3fff | (bits & 0x3fff_0000_3fff_0000) >> 2;
        Ok(bits & 0x0fff_ffff | (bits & 0x0fff_ffff_0000_0000) >> 4)
    }

    #[cold]
    fn varint_by_bytes(&mut self) -> Result<u64, Malformed> {
        let start = self.offset;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                return Err(Malformed { offset: start });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed { offset: start })
    }

    /// Steps over variable-length integers, whether they are valid or not.
    #[inline]
    pub(crate) fn skip_varints(&mut self, count: u32) -> Result<(), Malformed> {
        let mut left = count;
        while left > 0 {
            let Some((_, mut ends)) = self.eight() else {
                left -= u32::from(self.byte()? & 0x80 == 0);
                continue;
            };
            let here = ends.count_ones();
            if here < left {
                left -= here;
                self.offset += 8;
                continue;
            }
            for _ in 1..left {
                ends &= ends - 1;
            }
            self.offset += ends.trailing_zeros() as usize / 8 + 1;
            left = 0;
        }
        Ok(())
    }

    /// A varint up to [`COUNT_MAX`].
    #[inline]
    pub(crate) fn count(&mut self) -> Result<u64, Malformed> {
        let start = self.offset;
        let value = self.varint()?;
        if value <= COUNT_MAX { Ok(value) } else { Err(Malformed { offset: start }) }
    }

    #[inline]
    pub(crate) fn signed(&mut self) -> Result<i64, Malformed> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    #[inline]
    pub(crate) fn id(&mut self, wide: bool) -> Result<u128, Malformed> {
        if !wide {
            return Ok(u128::from(self.varint()?));
        }
        let start = self.offset;
        let bits = u128::from_be_bytes(self.array()?);
        if bits >> 64 == 0 { Err(Malformed { offset: start }) } else { Ok(bits) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_checksum_is_crc_32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn only_the_shortest_form_of_an_integer_is_valid() {
        for bad in
            [&[0x80, 0x00][..], &[0x80], &[], &[0xff; 10], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]]
        {
            assert!(Decoder::new(bad, 0).varint().is_err(), "{bad:?}");
        }
    }

    proptest! {
        /// Valid or not, near the end of the bytes or not: both ways to read say the same, and stay at the same place.
        #[test]
        fn integers_read_at_once_and_by_bytes_are_the_same(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(0x80), Just(0xff), any::<u8>()], 0..24),
        ) {
            let (mut at_once, mut by_bytes) = (Decoder::new(&bytes, 0), Decoder::new(&bytes, 0));
            loop {
                let value = at_once.varint();
                prop_assert_eq!(value, by_bytes.varint_by_bytes());
                if value.is_err() {
                    break;
                }
                prop_assert_eq!(at_once.offset(), by_bytes.offset());
            }
        }

        #[test]
        fn what_is_skipped_is_what_would_be_taken(
            values in proptest::collection::vec((any::<u64>(), 0u32..64), 0..12), behind in 0usize..12,
        ) {
            let mut out = Vec::new();
            for &(value, shift) in &values {
                put_varint(&mut out, value >> shift);
            }
            let length = out.len();
            out.resize(length + behind, 0xff);
            let mut decoder = Decoder::new(&out, 0);
            prop_assert_eq!(decoder.skip_varints(values.len() as u32), Ok(()));
            prop_assert_eq!(decoder.offset(), length);
            prop_assert!(Decoder::new(&out[..length], 0).skip_varints(values.len() as u32 + 1).is_err());
        }

        #[test]
        fn what_is_put_is_taken(value: u64, signed: i64, high in prop_oneof![Just(0u64), any::<u64>()], low: u64) {
            let id = u128::from(high) << 64 | u128::from(low);
            let mut out = Vec::new();
            put_varint(&mut out, value);
            put_signed(&mut out, signed);
            let wide = put_id(&mut out, id);
            let mut decoder = Decoder::new(&out, 0);
            prop_assert_eq!(decoder.varint(), Ok(value));
            prop_assert_eq!(decoder.signed(), Ok(signed));
            prop_assert_eq!(decoder.id(wide), Ok(id));
            prop_assert!(decoder.is_at_end());
        }
    }
}
