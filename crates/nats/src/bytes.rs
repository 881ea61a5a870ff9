//! The small encodings that messages are made of. Integers of fixed width are big-endian; a variable-length one has
//! seven bits per byte, lowest first, and the top bit set on all bytes but the last.

/// What was read is not what this program writes: why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) &'static str);

const TOO_SHORT: Unreadable = Unreadable("it ends too early");

/// Appends a variable-length integer: 1 to 10 bytes.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed sum of 128 bits, so that numbers near zero are short.
pub(crate) fn put_sum(out: &mut Vec<u8>, value: i128) {
    let mut value = (value << 1 ^ value >> 127).cast_unsigned();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads from a slice; every read says whether there was enough, and never goes beyond.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        self.take(N)?.try_into().map_err(|_| TOO_SHORT)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Unreadable> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Unreadable> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Unreadable> {
        self.array().map(u128::from_be_bytes)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Unreadable> {
        u64::try_from(self.wide(10)?).map_err(|_| Unreadable("a number is too large"))
    }

    /// A count of things that follow, each of a byte at least: no message holds more than it has bytes.
    pub(crate) fn count(&mut self) -> Result<usize, Unreadable> {
        let count = usize::try_from(self.varint()?).map_err(|_| TOO_SHORT)?;
        if count <= self.0.len() { Ok(count) } else { Err(TOO_SHORT) }
    }

    pub(crate) fn sum(&mut self) -> Result<i128, Unreadable> {
        let value = self.wide(19)?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    pub(crate) const fn at_end(&self) -> Result<(), Unreadable> {
        if self.0.is_empty() { Ok(()) } else { Err(Unreadable("it is longer than it should be")) }
    }

    fn wide(&mut self, bytes_max: u32) -> Result<u128, Unreadable> {
        let mut value = 0;
        for place in 0..bytes_max {
            let byte = self.u8()?;
            value |= u128::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Unreadable("a number does not end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(&out);
            assert_eq!((reader.varint(), reader.at_end()), (Ok(value), Ok(())));
        }
        for value in [0, -1, 1, i128::from(i64::MIN), i128::MAX, i128::MIN] {
            let mut out = Vec::new();
            put_sum(&mut out, value);
            let mut reader = Reader::new(&out);
            assert_eq!((reader.sum(), reader.at_end()), (Ok(value), Ok(())));
        }
        assert_eq!(Reader::new(&[0xff; 10]).varint(), Err(Unreadable("a number does not end")));
        assert_eq!(Reader::new(&[5, 1]).count(), Err(TOO_SHORT));
    }
}
