//! The fuzzer's bytes, taken one after the other as choices.
//!
//! Written by hand instead of with `arbitrary`: a byte is a choice, in order, so that seeds can be written and read
//! by people, and a change at the end of an input changes nothing before it.

/// Choices from the front of some bytes. Where they are used up, every further choice is zero.
#[derive(Clone, Debug)]
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Up to `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(count.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.take(N);
        let mut array = [0; N];
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn number16(&mut self) -> usize {
        usize::from(u16::from_le_bytes(self.array()))
    }

    /// Below `count`, which is above zero.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    pub(crate) fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// A number with the edges of its range within easy reach.
    pub(crate) fn number64(&mut self) -> u64 {
        const EDGES: [u64; 12] = [
            0,
            1,
            127,
            128,
            1 << 31,
            1 << 32,
            1 << 62,
            (1 << 63) - 1,
            1 << 63,
            u64::MAX - 1,
            u64::MAX,
            1_800_000_000_000,
        ];
        match self.byte() {
            kind @ 0..=127 => u64::from(kind),
            kind @ 128..=191 => EDGES[usize::from(kind) % EDGES.len()],
            _ => u64::from_le_bytes(self.array()),
        }
    }
}
