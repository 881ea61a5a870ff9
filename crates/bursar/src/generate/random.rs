//! Numbers that follow from a seed: the same on every machine and in every version.
//!
//! The generator is xoshiro256++ (Blackman and Vigna, 2019), its state filled by `SplitMix64` (Steele, Lea and
//! Flood, 2014) as its authors advise. Both are a few lines of integer arithmetic and written out here
//! because the bytes of a workload must never change with the version of a dependency. Not for secrets.

/// A sequence of numbers that follows from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: [u64; 4],
}

impl Random {
    /// The sequence of `seed`.
    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut at = seed;
        let state = std::array::from_fn(|_| {
            at = at.wrapping_add(GOLDEN);
            scatter(at)
        });
        Self { state }
    }

    /// 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number below `end`; 0 where `end` is 0.
    ///
    /// One multiplication and no second draw (Lemire, 2019, without the rejection step), so that every call
    /// uses exactly one number of the sequence. The bias is below `end` / 2^64.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }
}

/// 2^64 divided by the golden ratio, odd: the step of `SplitMix64`.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of `SplitMix64`. A bijection on 64 bits: different numbers stay different.
pub(crate) const fn scatter(number: u64) -> u64 {
    let z = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequences_are_those_of_the_reference() {
        // SplitMix64 from seed 0, as in the reference implementation's tests.
        let expected = [0xe220_a839_7b1d_cdaf_u64, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        let got: Vec<u64> = (1..=3u64).map(|index| scatter(GOLDEN.wrapping_mul(index))).collect();
        assert_eq!(got, expected);
        // xoshiro256++ from the state 1, 2, 3, 4.
        let mut random = Random { state: [1, 2, 3, 4] };
        let got: Vec<u64> = (0..5).map(|_| random.bits()).collect();
        assert_eq!(
            got,
            [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386, 9_228_616_714_210_784_205]
        );
    }

    #[test]
    fn numbers_stay_below_their_end_and_reach_everywhere() {
        let mut random = Random::from_seed(7);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[random.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (900..1_100).contains(&count)), "{seen:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
    }
}
