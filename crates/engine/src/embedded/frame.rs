//! Frames: one batch on its way to the disk, with its checksums and its link to the frame before.
//!
//! A frame is a header of [`HEADER_BYTES`] and a body of records. Two checksums guard header and body against
//! the medium; a SHA-256 digest over the digest before, the header and the body guards the whole journal
//! against everybody else: like a chain's head hash, the newest frame's digest fixes all frames before it.
//! A frame's end is never zero, so that a frame whose end was not written shows. `docs/format.md`, "Frames".

use super::codec::{COUNT_MAX, Decoder, Malformed, crc32c};
use super::record::{Stored, take_record};
use bursar_core::Hash;
use bursar_core::hash::{Domain, Hasher};
use bursar_core::planted::{Planted, is_planted};

pub(crate) const HEADER_BYTES: usize = 80;
/// A body longer than this is not written, and not believed when read.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;
const MAGIC: [u8; 4] = *b"BuFr";
/// Fills a frame up to a multiple of eight; at least one at the end of every frame.
const END_MARK: u8 = 0xBF;
/// Frames begin and end at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) body_bytes: u32,
    pub(crate) body_crc: u32,
    /// The first frame of a journal is 1.
    pub(crate) number: u64,
    /// The newest frame that was durable when this one was written.
    pub(crate) synced_through: u64,
    pub(crate) time_ms: u64,
    pub(crate) record_count: u32,
    pub(crate) digest: Hash,
}

impl FrameHeader {
    pub(crate) const fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.body_bytes as u64
    }

    /// Reads a header; `None` if this is none.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        let mut decoder = Decoder::new(header, 0);
        if decoder.array().ok()? != MAGIC || decoder.fixed_u32().ok()? != crc32c(&header[8..]) {
            return None;
        }
        let (body_bytes, body_crc) = (decoder.fixed_u32().ok()?, decoder.fixed_u32().ok()?);
        let (number, synced_through) = (decoder.fixed_u64().ok()?, decoder.fixed_u64().ok()?);
        let (time_ms, record_count) = (decoder.fixed_u64().ok()?, decoder.fixed_u32().ok()?);
        let zero = decoder.fixed_u32().ok()?;
        let digest = Hash(decoder.array().ok()?);
        let header = Self { body_bytes, body_crc, number, synced_through, time_ms, record_count, digest };
        let sound = zero == 0
            && body_bytes as usize <= BODY_BYTES_MAX
            && (body_bytes as usize).is_multiple_of(ALIGNMENT)
            && body_bytes > 0
            && synced_through < number
            && number <= COUNT_MAX;
        sound.then_some(header)
    }

    fn guarded_bytes(&self) -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[0..4].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.body_crc.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.synced_through.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.time_ms.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.record_count.to_le_bytes());
        bytes
    }

    /// The digest this frame should have after the frame with `digest_before`.
    pub(crate) fn expected_digest(&self, digest_before: &Hash, body: &[u8]) -> Hash {
        let mut hasher = Hasher::new(Domain::Frame);
        hasher.update(digest_before.as_bytes());
        hasher.update(&self.guarded_bytes());
        hasher.update(body);
        hasher.finish()
    }

    /// Whether the body is as the header says.
    pub(crate) fn fits(&self, body: &[u8]) -> bool {
        if is_planted(Planted::ChecksumUnchecked) {
            return body.len() == self.body_bytes as usize;
        }
        body.len() == self.body_bytes as usize && crc32c(body) == self.body_crc && body.last() == Some(&END_MARK)
    }
}

/// Whether these bytes are what fills a frame up behind its last record.
pub(crate) fn is_end(bytes: &[u8]) -> bool {
    (1..=ALIGNMENT).contains(&bytes.len()) && bytes.iter().all(|&byte| byte == END_MARK)
}

/// Fills a frame up to where the next one may begin.
pub(crate) fn fill_up(frame: &mut Vec<u8>) {
    let padding = ALIGNMENT - frame.len() % ALIGNMENT;
    frame.extend(std::iter::repeat_n(END_MARK, padding));
}

/// What the header of a frame will say that cannot be seen in its body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsealed {
    pub(crate) number: u64,
    pub(crate) synced_through: u64,
    pub(crate) time_ms: u64,
    pub(crate) record_count: u32,
}

impl Unsealed {
    /// Finishes a frame in place: `frame` has room for the header, then the records, and is filled up. Gives its digest.
    pub(crate) fn seal(self, frame: &mut [u8], digest_before: &Hash) -> Hash {
        let Self { number, synced_through, time_ms, record_count } = self;
        let body = &frame[HEADER_BYTES..];
        let mut header = FrameHeader {
            body_bytes: body.len() as u32,
            body_crc: crc32c(body),
            number,
            synced_through,
            time_ms,
            record_count,
            digest: Hash::default(),
        };
        header.digest = header.expected_digest(digest_before, body);
        frame[0..4].copy_from_slice(&MAGIC);
        frame[8..48].copy_from_slice(&header.guarded_bytes());
        frame[48..80].copy_from_slice(header.digest.as_bytes());
        let crc = crc32c(&frame[8..HEADER_BYTES]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        header.digest
    }
}

/// Finds the next place in `bytes`, from `offset` on, where a header may begin.
pub(crate) fn find_magic(bytes: &[u8], offset: usize) -> Option<usize> {
    memchr::memmem::find(bytes.get(offset..)?, &MAGIC).map(|at| offset + at)
}

/// A whole frame in memory, checked against its checksums.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    /// Where it begins in the journal.
    pub(crate) position: u64,
    /// Header and body.
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    /// The records, oldest first, each with its position in the journal.
    pub(crate) fn records(&self) -> impl Iterator<Item = Result<(u64, Stored), Malformed>> {
        let mut decoder = Decoder::new(&self.bytes, HEADER_BYTES);
        let mut left = self.header.record_count;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            left -= 1;
            let position = self.position + decoder.offset() as u64;
            let record = take_record(&mut decoder, self.position, self.header.time_ms);
            if record.is_err() {
                left = 0;
            }
            Some(record.map(|record| (position, record)))
        })
    }

    /// The record at a position of the journal that lies in this frame.
    pub(crate) fn record_at(&self, position: u64) -> Result<Stored, Malformed> {
        let offset = position.checked_sub(self.position).and_then(|offset| usize::try_from(offset).ok());
        let Some(offset) = offset.filter(|&offset| offset >= HEADER_BYTES) else { return Err(Malformed { offset: 0 }) };
        take_record(&mut Decoder::new(&self.bytes, offset), self.position, self.header.time_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_shows() {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(b"no records, but some bytes");
        let before = Hash([3; 32]);
        fill_up(&mut bytes);
        let digest =
            Unsealed { number: 7, synced_through: 6, time_ms: 1234, record_count: 0 }.seal(&mut bytes, &before);
        assert!(bytes.len().is_multiple_of(ALIGNMENT));
        let header = FrameHeader::read(&bytes).unwrap();
        assert!(header.fits(&bytes[HEADER_BYTES..]));
        assert_eq!(header.digest, digest);
        assert_eq!(header.expected_digest(&before, &bytes[HEADER_BYTES..]), digest);
        assert_ne!(header.expected_digest(&Hash([4; 32]), &bytes[HEADER_BYTES..]), digest);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let sound = FrameHeader::read(&flipped).is_some_and(|header| header.fits(&flipped[HEADER_BYTES..]));
            assert!(!sound, "bit {bit}");
        }
    }
}
