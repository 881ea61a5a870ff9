//! What to make of the place where the journal's readable frames end: a clean end, a torn write that was never
//! acknowledged, or damage to something that may have been.
//!
//! The medium is assumed to write sectors of [`SECTOR_BYTES`] whole or not at all, and files to read as zero
//! where nothing was written. A frame is never zero throughout any sector it touches, and never at its end. So a
//! frame with all its sectors written that does not fit its checksum was damaged later, and one with a sector
//! still zero was never written whole, which means that its sync never returned. The table of all cases is in
//! `docs/format.md`, "Opening".

use super::frame::{ALIGNMENT, FrameHeader, HEADER_BYTES, find_magic};

/// The unit in which the medium writes, at the least.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// What the bytes behind the last readable frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing was written there.
    CleanEnd,
    /// A write that never came to its end; it was not acknowledged. To be cut off.
    Torn,
    /// A frame that may have been acknowledged cannot be read. To be refused.
    Damaged(&'static str),
}

/// Judges `rest`, the bytes of a segment from `file_offset` on, where frame `number` cannot be read.
pub(crate) fn judge(rest: &[u8], file_offset: u64, number: u64) -> Verdict {
    if rest.iter().all(|&byte| byte == 0) {
        return Verdict::CleanEnd;
    }
    if later_frame_rests_on(rest, number) {
        return Verdict::Damaged("a frame is unreadable although later ones were written after it was durable");
    }
    let Some(header_bytes) = rest.get(..HEADER_BYTES) else { return Verdict::Torn };
    let Some(header) = FrameHeader::read(header_bytes) else {
        return if looks_torn(header_bytes, file_offset) {
            Verdict::Torn
        } else {
            Verdict::Damaged("a frame's header does not fit its checksum, and no part of it is missing")
        };
    };
    let Some(frame) = rest.get(..header.frame_bytes() as usize) else { return Verdict::Torn };
    if header.fits(&frame[HEADER_BYTES..]) {
        return Verdict::Damaged("a whole frame does not follow from the one before; it belongs elsewhere");
    }
    if looks_torn(frame, file_offset) {
        Verdict::Torn
    } else {
        Verdict::Damaged("a frame does not fit its checksum, and no part of it is missing")
    }
}

/// Whether a later readable frame says that frame `number` was durable when it was written.
fn later_frame_rests_on(rest: &[u8], number: u64) -> bool {
    let mut from = 0;
    while let Some(at) = find_magic(rest, from) {
        if let Some(header) = FrameHeader::read(&rest[at..]) {
            let body = rest.get(at + HEADER_BYTES..at + header.frame_bytes() as usize);
            if header.synced_through >= number && body.is_some_and(|body| header.fits(body)) {
                return true;
            }
        }
        from = at + 1;
    }
    false
}

/// Whether a part of these bytes was never written: a whole sector's share of them is zero, or their end is.
fn looks_torn(bytes: &[u8], file_offset: u64) -> bool {
    let is_zero = |part: &[u8]| part.iter().all(|&byte| byte == 0);
    if bytes.len() >= ALIGNMENT && is_zero(&bytes[bytes.len() - ALIGNMENT..]) {
        return true;
    }
    let first = ((SECTOR_BYTES - file_offset % SECTOR_BYTES) as usize).min(bytes.len());
    let (head, others) = bytes.split_at(first);
    is_zero(head) || others.chunks(SECTOR_BYTES as usize).any(is_zero)
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Unsealed, fill_up};
    use super::*;
    use bursar_core::Hash;

    const OFFSET: u64 = 96 + 400;

    fn frame(number: u64, synced_through: u64, body_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend((0..body_bytes).map(|i| (i % 251) as u8 + 1));
        fill_up(&mut bytes);
        Unsealed { number, synced_through, time_ms: 0, record_count: 0 }.seal(&mut bytes, &Hash::default());
        bytes
    }

    /// Every row of the table in `docs/format.md`, "Opening", that concerns the journal's end.
    #[test]
    fn every_case_has_its_decision() {
        use Verdict as V;
        let whole = frame(5, 4, 3000);
        let sector = |bytes: &[u8], index: u64| {
            let start = (index * SECTOR_BYTES).saturating_sub(OFFSET % SECTOR_BYTES) as usize;
            let end = (((index + 1) * SECTOR_BYTES - OFFSET % SECTOR_BYTES) as usize).min(bytes.len());
            start..end
        };
        let sectors = (OFFSET % SECTOR_BYTES + whole.len() as u64).div_ceil(SECTOR_BYTES);
        assert_eq!(judge(&[], OFFSET, 5), V::CleanEnd);
        assert_eq!(judge(&[0; 5000], OFFSET, 5), V::CleanEnd);
        for index in 0..sectors {
            let mut torn = whole.clone();
            let range = sector(&torn, index);
            torn[range].fill(0);
            torn.extend([0; 1000]);
            assert_eq!(judge(&torn, OFFSET, 5), V::Torn, "sector {index} never written");
        }
        for length in (8..whole.len()).step_by(8) {
            assert_eq!(judge(&whole[..length], OFFSET, 5), V::Torn, "the file ends after {length} bytes");
            let mut prefix = whole[..length].to_vec();
            prefix.resize(whole.len() + 64, 0);
            assert_eq!(judge(&prefix, OFFSET, 5), V::Torn, "written up to {length} bytes");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x40;
            flipped.extend([0; 1000]);
            assert!(matches!(judge(&flipped, OFFSET, 5), V::Damaged(_)), "byte {at} flipped");
            flipped[at] = 0;
            assert!(whole[at] == 0 || matches!(judge(&flipped, OFFSET, 5), V::Damaged(_)), "byte {at} zeroed");
        }
        let mut lost = vec![0; whole.len()];
        lost.extend(frame(6, 4, 100));
        assert_eq!(judge(&lost, OFFSET, 5), V::Torn, "a later frame of the same unsynced write survived");
        let mut lost = vec![0; whole.len()];
        lost.extend(frame(6, 5, 100));
        assert!(matches!(judge(&lost, OFFSET, 5), V::Damaged(_)), "a later frame says it was durable");
        assert!(matches!(judge(&whole, OFFSET, 5), V::Damaged(_)), "whole, but refused by its digest");
    }
}
