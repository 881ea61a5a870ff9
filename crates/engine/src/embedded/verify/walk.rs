//! Going through all frames of a journal, damaged or not: what opening refuses to step over is stepped over here,
//! and said.
//!
//! After something unreadable it goes on at the next frame that fits its checksums. Files are read in order, in
//! large pieces; frames are given out where they lie in the buffer.

use super::report::FindingCode;
use crate::embedded::frame::{ALIGNMENT, FrameHeader, HEADER_BYTES, find_magic};
use crate::embedded::journal::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader, SegmentHeaderState};
use crate::embedded::scan::{length, read_header, read_rest};
use crate::embedded::tail::{Verdict, judge};
use crate::store::StoreError;
use bursar_core::Hash;
use std::collections::VecDeque;
use std::sync::Arc;

/// How much is read at once, in bytes: it stays in a processor's second cache until it was looked at.
const READ_BYTES: usize = 256 << 10;

/// What comes next in the journal.
#[derive(Debug)]
pub(super) enum Seen<'a> {
    /// A frame that fits its checksums.
    Frame { header: FrameHeader, position: u64, bytes: &'a [u8] },
    /// Something wrong.
    Fault(Fault),
}

/// Something wrong in the journal's frame work.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: FindingCode,
    pub(super) position: u64,
    pub(super) what: &'static str,
    /// How many bytes from the position on cannot be read, and how many records the header there speaks of.
    pub(super) lost: Option<(u64, Option<u64>)>,
}

/// What lies behind the last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Clean,
    Torn,
}

/// A piece of a segment in memory.
#[derive(Debug, Default)]
struct Piece {
    segment: usize,
    offset: u64,
    bytes: Vec<u8>,
}

impl Piece {
    /// The bytes at an offset, fewer than asked for at the file's end.
    fn view(
        &mut self,
        segments: &[Arc<Segment>],
        index: usize,
        offset: u64,
        count: usize,
    ) -> Result<&[u8], StoreError> {
        let ahead = offset.checked_sub(self.offset).and_then(|ahead| usize::try_from(ahead).ok());
        let there = ahead.filter(|&ahead| self.segment == index && ahead.saturating_add(count) <= self.bytes.len());
        let start = if let Some(ahead) = there {
            ahead
        } else {
            let segment = &segments[index];
            let left = usize::try_from(length(segment)?.saturating_sub(offset)).unwrap_or(usize::MAX);
            // What is there of it already stays.
            let from = ahead.filter(|&ahead| self.segment == index && ahead < self.bytes.len());
            self.bytes.drain(..from.unwrap_or(self.bytes.len()));
            let kept = self.bytes.len();
            self.bytes.resize(count.max(READ_BYTES).min(left), 0);
            let kept = kept.min(self.bytes.len());
            let read = segment.file.read_at(&mut self.bytes[kept..], offset + kept as u64);
            let filled = read.map_err(|error| segment.io_error("read the journal", error))?;
            self.bytes.truncate(kept + filled);
            (self.segment, self.offset) = (index, offset);
            0
        };
        Ok(&self.bytes[start..self.bytes.len().min(start.saturating_add(count))])
    }
}

/// Of which frames a walk checks the digest. A digest builds on what the frame before says is its own; so it can be
/// checked without that frame's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Digests {
    /// None: another walk does.
    None,
    /// Those whose numbers have this rest when they are divided by the count of walks.
    Share { rest: u64, count: u64 },
}

impl Digests {
    pub(super) const ALL: Self = Self::Share { rest: 0, count: 1 };

    const fn has(self, frame_number: u64) -> bool {
        match self {
            Self::None => false,
            Self::Share { rest, count } => frame_number % count == rest,
        }
    }
}

/// A walk over all frames.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    segments: &'a [Arc<Segment>],
    ledger: Option<[u8; 16]>,
    digests: Digests,
    /// The segment that is being read.
    index: usize,
    entered: bool,
    /// The segment's length.
    length: u64,
    /// Where the next frame should be.
    pub(super) position: u64,
    /// The end of the last frame.
    pub(super) end: u64,
    pub(super) number: u64,
    pub(super) digest: Hash,
    /// Whether number and digest are those right before the next frame.
    linked: bool,
    faults: VecDeque<Fault>,
    piece: Piece,
    pub(super) ending: Ending,
}

impl<'a> Walk<'a> {
    /// From the journal's beginning. Without the ledger's id and digest, the first frame is taken as it comes.
    pub(super) fn new(segments: &'a [Arc<Segment>], ledger: Option<([u8; 16], Hash)>, digests: Digests) -> Self {
        Self {
            segments,
            ledger: ledger.map(|(id, _)| id),
            digests,
            index: 0,
            entered: false,
            length: 0,
            position: 0,
            end: 0,
            number: 0,
            digest: ledger.map(|(_, digest)| digest).unwrap_or_default(),
            linked: ledger.is_some(),
            faults: VecDeque::new(),
            piece: Piece::default(),
            ending: Ending::Clean,
        }
    }

    /// What comes next; `None` behind the end.
    pub(super) fn next(&mut self) -> Result<Option<Seen<'_>>, StoreError> {
        loop {
            if let Some(fault) = self.faults.pop_front() {
                return Ok(Some(Seen::Fault(fault)));
            }
            let Some(segment) = self.segments.get(self.index) else { return Ok(None) };
            if !self.entered {
                self.enter(segment)?;
                continue;
            }
            let offset = self.position - segment.start;
            if offset >= self.length {
                self.index += 1;
                self.entered = false;
                continue;
            }
            match self.frame_at(self.index, offset)? {
                (Some(header), true) => {
                    if self.take(&header, offset)? {
                        let (position, count) = (self.position, header.frame_bytes() as usize);
                        (self.number, self.digest, self.linked) = (header.number, header.digest, true);
                        self.position += count as u64;
                        self.end = self.position;
                        let bytes = self.piece.view(self.segments, self.index, offset, count)?;
                        return Ok(Some(Seen::Frame { header, position, bytes }));
                    }
                }
                (header, _) => self.unreadable(segment, offset, header)?,
            }
        }
    }

    fn fault(&mut self, code: FindingCode, position: u64, what: &'static str, lost: Option<(u64, Option<u64>)>) {
        self.faults.push_back(Fault { code, position, what, lost });
    }

    /// The header at an offset, if there is one, and whether the whole frame is sound.
    fn frame_at(&mut self, index: usize, offset: u64) -> Result<(Option<FrameHeader>, bool), StoreError> {
        let bytes = self.piece.view(self.segments, index, offset, HEADER_BYTES)?;
        let Some(header) = FrameHeader::read(bytes) else { return Ok((None, false)) };
        let bytes = self.piece.view(self.segments, index, offset, header.frame_bytes() as usize)?;
        let sound = bytes.get(HEADER_BYTES..).is_some_and(|body| header.fits(body));
        Ok((Some(header), sound))
    }

    /// Judges a sound frame by its number and its digest. Queues what is wrong; gives whether the frame is to be
    /// taken now. One that was queued for is taken the next time.
    fn take(&mut self, header: &FrameHeader, offset: u64) -> Result<bool, StoreError> {
        if !self.linked {
            return Ok(true);
        }
        let (position, expected) = (self.position, self.number + 1);
        if header.number < expected {
            let what = "a sound frame lies here that belongs elsewhere: its number was there before";
            self.fault(FindingCode::FrameNumber, position, what, Some((header.frame_bytes(), None)));
            self.position += header.frame_bytes();
            return Ok(false);
        }
        if header.number > expected {
            let what = "frames are missing before this one, by its number";
            self.fault(FindingCode::FrameNumber, position, what, Some((0, None)));
        } else if self.digests.has(header.number) {
            let digest = self.digest;
            let bytes = self.piece.view(self.segments, self.index, offset, header.frame_bytes() as usize)?;
            if header.expected_digest(&digest, bytes.get(HEADER_BYTES..).unwrap_or_default()) == header.digest {
                return Ok(true);
            }
            let what = "the frame fits its checksums but not its digest: it was edited, or the digest before it was";
            self.fault(FindingCode::FrameDigest, position, what, None);
        } else {
            return Ok(true);
        }
        self.linked = false;
        Ok(false)
    }

    /// Begins a segment: its place, its header.
    fn enter(&mut self, segment: &Arc<Segment>) -> Result<(), StoreError> {
        self.entered = true;
        self.length = length(segment)?;
        if segment.start > self.position {
            let lost = segment.start - self.position;
            let what = "the journal has a hole: a segment is missing, or has lost its end";
            self.fault(FindingCode::SegmentMissing, self.position, what, Some((lost, None)));
            self.linked = false;
        } else if segment.start < self.position {
            let what = "the segment before reaches into this one";
            self.fault(FindingCode::SegmentElsewhere, segment.start, what, None);
        }
        self.position = segment.start + SEGMENT_HEADER_BYTES as u64;
        match read_header(segment)? {
            SegmentHeaderState::Sound(header) => {
                self.take_header(segment, &header);
                // A segment was begun and holds nothing yet: the journal goes on behind its header.
                if self.index + 1 == self.segments.len() && length(segment)? == SEGMENT_HEADER_BYTES as u64 {
                    self.end = self.position;
                }
            }
            SegmentHeaderState::Unwritten if self.index + 1 == self.segments.len() => {}
            SegmentHeaderState::Unwritten | SegmentHeaderState::Damaged => {
                let what = "the segment's header cannot be read";
                self.fault(FindingCode::SegmentHeader, segment.start, what, None);
            }
            SegmentHeaderState::Version(_) => {
                let what = "the segment's header has a version that is not known here";
                self.fault(FindingCode::SegmentHeader, segment.start, what, None);
            }
        }
        Ok(())
    }

    fn take_header(&mut self, segment: &Segment, header: &SegmentHeader) {
        if header.start != segment.start || self.ledger.is_some_and(|ledger| ledger != header.ledger) {
            let what = "the segment belongs to another ledger or another place";
            self.fault(FindingCode::SegmentElsewhere, segment.start, what, None);
        } else if !self.linked {
            (self.number, self.digest, self.linked) = (header.frame_number_before, header.digest_before, true);
        } else if header.frame_number_before != self.number || header.digest_before != self.digest {
            let what = "the segment's header does not follow from the frame before";
            self.fault(FindingCode::SegmentHeader, segment.start, what, None);
        }
    }

    /// Steps over what cannot be read, up to the next sound frame.
    fn unreadable(&mut self, segment: &Segment, offset: u64, header: Option<FrameHeader>) -> Result<(), StoreError> {
        let position = self.position;
        let mut what = match header {
            Some(_) => "a frame does not fit its checksum",
            None => "there should be a frame here, and there is none that can be read",
        };
        let mut end = length(segment)?;
        if self.index + 1 == self.segments.len() {
            let rest = read_rest(segment, offset)?;
            // Behind what was written, a last segment has room reserved for more.
            let written = rest.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1);
            end = end.min(offset + written.next_multiple_of(ALIGNMENT as u64));
            match judge(&rest, offset, self.number + 1) {
                Verdict::Damaged(why) => what = why,
                verdict @ (Verdict::CleanEnd | Verdict::Torn) => {
                    self.ending = if verdict == Verdict::Torn { Ending::Torn } else { Ending::Clean };
                    self.end = self.end.max(position);
                    self.index = self.segments.len();
                    return Ok(());
                }
            }
        }
        let next = self.next_sound(self.index, offset)?.unwrap_or(end);
        let lost = (next - offset, header.map(|header| u64::from(header.record_count)));
        self.fault(FindingCode::FrameUnreadable, position, what, Some(lost));
        self.linked = false;
        if let Some(header) = header
            && header.number == self.number + 1
            && offset + header.frame_bytes() == next
        {
            (self.number, self.digest, self.linked) = (header.number, header.digest, true);
        }
        self.position = segment.start + next;
        Ok(())
    }

    /// The offset of the next sound frame behind an offset of a segment.
    fn next_sound(&mut self, index: usize, offset: u64) -> Result<Option<u64>, StoreError> {
        let mut from = offset + ALIGNMENT as u64;
        loop {
            let bytes = self.piece.view(self.segments, index, from, READ_BYTES)?;
            let Some(at) = find_magic(bytes, 0) else {
                if bytes.len() < READ_BYTES {
                    return Ok(None);
                }
                // The last bytes may be a beginning.
                from += bytes.len() as u64 - ALIGNMENT as u64;
                continue;
            };
            from += at as u64;
            if from.is_multiple_of(ALIGNMENT as u64) && self.frame_at(index, from)?.1 {
                return Ok(Some(from));
            }
            from += 1;
        }
    }
}
