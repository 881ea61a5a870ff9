//! Fingerprints: the 64 bits by which runs and filters know an id.
//!
//! The function is part of the file format: it is SipHash-2-4 (Aumasson and Bernstein, 2012) of the id's 128
//! bits, big-endian, under the ledger's 16 byte id as key. Chosen because it is specified with test vectors,
//! because every language has it, and because its output is uniform whatever ids somebody picks: nobody who does
//! not know the ledger's id can pick ids that collide. Colliding ids cost a read each, never a wrong answer:
//! what a run points to is compared with the id itself.

use bursar_core::RequestKey;

/// The 64 bits for a customer or transaction id, in the ledger whose own id is `ledger`.
pub(crate) const fn fingerprint(ledger: &[u8; 16], id: u128) -> u64 {
    let key = u128::from_le_bytes(*ledger);
    // SipHash reads its input as little-endian words; the id's bytes are big-endian.
    let (first, second) = (((id >> 64) as u64).swap_bytes(), (id as u64).swap_bytes());
    let mut sip = Sip::new(key as u64, (key >> 64) as u64);
    sip.take(first);
    sip.take(second);
    // The last word has the input's length in its top byte, and no input left.
    sip.take(16 << 56);
    sip.finish()
}

/// The 64 bits for the key of a request: as those of an id, under the ledger's id with all bits inverted. So a
/// transaction whose id has the bits of a key has nothing in common with it.
pub(crate) const fn key_fingerprint(ledger: &[u8; 16], key: RequestKey) -> u64 {
    let inverted = !u128::from_le_bytes(*ledger);
    fingerprint(&inverted.to_le_bytes(), key.bits())
}

/// The four words of state, named as in the paper.
struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl Sip {
    const fn new(k0: u64, k1: u64) -> Self {
        Self {
            v0: k0 ^ 0x736f_6d65_7073_6575,
            v1: k1 ^ 0x646f_7261_6e64_6f6d,
            v2: k0 ^ 0x6c79_6765_6e65_7261,
            v3: k1 ^ 0x7465_6462_7974_6573,
        }
    }

    const fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    const fn take(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.round();
        self.v0 ^= word;
    }

    const fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEDGER: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

    /// The first value is the vector for 16 bytes of input in the authors' reference code.
    #[test]
    fn the_values_on_disk_never_change() {
        let table = [
            (LEDGER, 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f, 0x3f2a_cc7f_57c2_9bdb),
            (LEDGER, 0, 0x98a0_d3c0_ef55_7701),
            (LEDGER, 1, 0xe01a_fd3a_6513_634d),
            ([0; 16], 1, 0x20b7_e2f7_430c_2c29),
        ];
        for (ledger, id, expected) in table {
            assert_eq!(fingerprint(&ledger, id), expected, "{id:#x}: {:#x}", fingerprint(&ledger, id));
        }
    }

    #[test]
    fn a_key_is_not_known_as_the_transaction_with_its_bits() {
        let key = RequestKey::from_bits(1).unwrap();
        assert_eq!(key_fingerprint(&[0xff; 16], key), 0x20b7_e2f7_430c_2c29);
        assert_ne!(key_fingerprint(&LEDGER, key), fingerprint(&LEDGER, 1));
    }

    proptest! {
        #[test]
        #[allow(deprecated)]
        fn it_is_the_siphash_of_the_standard_library(ledger: [u8; 16], id: u128) {
            use std::hash::Hasher;
            let key = u128::from_le_bytes(ledger);
            let mut peer = std::hash::SipHasher::new_with_keys(key as u64, (key >> 64) as u64);
            peer.write(&id.to_be_bytes());
            prop_assert_eq!(fingerprint(&ledger, id), peer.finish());
        }
    }

    /// Counters and multiples, as people number things: each of 64 bits is set half of the time, and each
    /// 256th part of the range gets its share.
    #[test]
    fn plain_ids_spread_evenly() {
        const COUNT: u32 = 1 << 16;
        for step in [1u128, 1 << 10, 1 << 64, 1 << 112] {
            let mut parts = [0u32; 256];
            let mut bits = [0u32; 64];
            for number in 0..COUNT {
                let hash = fingerprint(&LEDGER, step * u128::from(number));
                parts[(hash >> 56) as usize] += 1;
                bits.iter_mut().enumerate().for_each(|(bit, count)| *count += (hash >> bit) as u32 & 1);
            }
            // Six standard deviations: 6 * sqrt(256) around 256, and 6 * sqrt(2^16) / 2 around 2^15.
            assert!(parts.iter().all(|count| count.abs_diff(COUNT / 256) < 96), "step {step:#x}: {parts:?}");
            assert!(bits.iter().all(|count| count.abs_diff(COUNT / 2) < 768), "step {step:#x}: {bits:?}");
        }
    }
}
