//! Short texts of digits, written on the stack from their end to their beginning, as numbers are.
//!
//! `Display` of amounts, ids, hashes and times goes through this: answers and files have millions of them, and a
//! `write!` for each number takes several times as long.

use core::fmt;

/// How many decimal digits any `u64` has room for.
const CHUNK_DIGITS: usize = 19;
const CHUNK: u128 = 10u128.pow(CHUNK_DIGITS as u32);

/// A text of at most `N` bytes.
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    start: usize,
}

impl<const N: usize> Text<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], start: N }
    }

    /// Puts a character in front, which is ASCII.
    pub(crate) const fn sign(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }

    /// Puts a number in front, and zeros before it up to so many digits.
    pub(crate) const fn number(&mut self, number: u64, digits_min: usize) {
        let (mut rest, mut digit_count) = (number, 0);
        while rest > 0 || digit_count < digits_min {
            self.sign(b'0' + (rest % 10) as u8);
            rest /= 10;
            digit_count += 1;
        }
    }

    /// Puts a number of up to 128 bits in front.
    pub(crate) const fn wide_number(&mut self, number: u128) {
        let mut rest = number;
        while rest >= CHUNK {
            self.number((rest % CHUNK) as u64, CHUNK_DIGITS);
            rest /= CHUNK;
        }
        self.number(rest as u64, 1);
    }

    /// Puts bytes in front, in hexadecimal digits.
    pub(crate) fn hex(&mut self, bytes: &[u8]) {
        let end = self.start;
        self.start -= 2 * bytes.len();
        // Without a table, so that the compiler can do many at a time.
        let digit = |half: u8| half + if half < 10 { b'0' } else { b'a' - 10 };
        for (pair, byte) in self.bytes[self.start..end].chunks_exact_mut(2).zip(bytes) {
            pair[0] = digit(byte >> 4);
            pair[1] = digit(byte & 0xF);
        }
    }

    /// Puts 128 bits in front, in the 36 character form of RFC 9562, section 4.
    pub(crate) fn uuid(&mut self, bits: u128) {
        let bytes = bits.to_be_bytes();
        for group in [10..16, 8..10, 6..8, 4..6] {
            self.hex(&bytes[group]);
            self.sign(b'-');
        }
        self.hex(&bytes[..4]);
    }

    /// Writes the text.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.bytes[self.start..]).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decimals, Sum};
    use alloc::format;
    use alloc::string::{String, ToString};
    use proptest::prelude::*;

    struct Shown<'a, const N: usize>(&'a Text<N>);

    impl<const N: usize> fmt::Display for Shown<'_, N> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.show(f)
        }
    }

    fn text<const N: usize>(make: impl FnOnce(&mut Text<N>)) -> String {
        let mut text = Text::new();
        make(&mut text);
        Shown(&text).to_string()
    }

    proptest! {
        #[test]
        fn digits_are_those_of_the_standard_library(
            number: u64, wide in prop_oneof![any::<u128>(), any::<u64>().prop_map(u128::from)],
            scale in 0u32..128, digits_min in 0usize..20, bytes: [u8; 32],
        ) {
            let (number, wide) = (number >> (scale / 2), wide >> scale);
            let expected = if number == 0 && digits_min == 0 { String::new() } else { format!("{number:0digits_min$}") };
            prop_assert_eq!(text::<20>(|text| text.number(number, digits_min)), expected);
            prop_assert_eq!(text::<39>(|text| text.wide_number(wide)), wide.to_string());
            let [high, low] = [0, 16].map(|from| u128::from_be_bytes(core::array::from_fn(|at| bytes[from + at])));
            prop_assert_eq!(text::<64>(|text| text.hex(&bytes)), format!("{high:032x}{low:032x}"));
            let uuid = text::<36>(|text| text.uuid(high));
            prop_assert_eq!([8, 13, 18, 23].map(|at| &uuid[at..=at]), ["-"; 4]);
            prop_assert_eq!(uuid.replace('-', ""), format!("{high:032x}"));
        }
    }

    #[test]
    fn the_widest_sums_have_room() {
        let nine = Decimals::new(9).unwrap();
        let table = [
            (i128::MIN, "-170141183460469231731687303715.884105728"),
            (i128::MAX, "170141183460469231731687303715.884105727"),
            (i128::from(u64::MAX), "18446744073.709551615"),
            (i128::from(u64::MAX) + 1, "18446744073.709551616"),
        ];
        for (steps, expected) in table {
            assert_eq!(Sum::from_steps(steps).display(nine).to_string(), expected);
            let whole = Sum::from_steps(steps).display(Decimals::new(0).unwrap()).to_string();
            assert_eq!(whole, steps.to_string());
        }
    }
}
