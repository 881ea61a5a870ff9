//! Going through a journal frame by frame, each one checked: its checksums, its number, its digest.

use super::disk::Disk;
use super::frame::Frame;
use super::journal::{JournalPoint, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, SegmentHeaderState, segment_start};
use super::tail::{Verdict, judge};
use crate::store::StoreError;
use bursar_core::Hash;
use std::io;
use std::sync::Arc;

/// What lies at a place of the journal.
#[derive(Debug)]
pub(super) enum Found {
    /// The next frame, sound, and where it leads to.
    Frame(Frame, JournalPoint),
    /// The end of the last segment's written part; the verdict on what follows.
    End(Verdict),
    /// A frame in a segment that is not the last one cannot be read, or belongs elsewhere.
    Unreadable,
}

/// Opens all segment files, oldest first, whatever is in them.
pub(super) fn open_segments(disk: &dyn Disk) -> Result<Vec<Arc<Segment>>, StoreError> {
    let io_error = |name: &str, error: io::Error| StoreError::Io {
        doing: "open the journal",
        path: disk.path().join(name),
        error: Arc::new(error),
    };
    let mut segments = Vec::new();
    for name in disk.list().map_err(|error| io_error("", error))? {
        let Some(start) = segment_start(&name) else { continue };
        let file = disk.open(&name).map_err(|error| io_error(&name, error))?;
        segments.push(Arc::new(Segment { start, path: disk.path().join(&name), file }));
    }
    segments.sort_by_key(|segment| segment.start);
    Ok(segments)
}

/// Reads a segment's header.
pub(super) fn read_header(segment: &Segment) -> Result<SegmentHeaderState, StoreError> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let read = segment.file.read_at(&mut bytes, 0);
    let count = read.map_err(|error| segment.io_error("read the journal", error))?;
    let state = SegmentHeader::read(&bytes[..count]);
    if state == SegmentHeaderState::Unwritten && length(segment)? > SEGMENT_HEADER_BYTES as u64 {
        let rest = read_rest(segment, 0)?;
        if rest.iter().any(|&byte| byte != 0) {
            return Ok(SegmentHeaderState::Damaged);
        }
    }
    Ok(state)
}

pub(super) fn length(segment: &Segment) -> Result<u64, StoreError> {
    segment.file.length().map_err(|error| segment.io_error("read the journal", error))
}

/// Reads a segment from an offset to its end.
pub(super) fn read_rest(segment: &Segment, offset: u64) -> Result<Vec<u8>, StoreError> {
    let left = length(segment)?.saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX)];
    let read = segment.file.read_at(&mut bytes, offset);
    let count = read.map_err(|error| segment.io_error("read the journal", error))?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Checks that the segments are one journal: each begins where the one before ends, with a sound header of this
/// ledger. A last segment whose header was never written holds nothing and is left out of the result.
pub(super) fn check_segments(
    ledger: &[u8; 16],
    ledger_digest: &Hash,
    segments: &[Arc<Segment>],
) -> Result<Vec<SegmentHeader>, StoreError> {
    let mut headers: Vec<SegmentHeader> = Vec::new();
    let mut expected_start = 0;
    for (index, segment) in segments.iter().enumerate() {
        if segment.start != expected_start {
            let what = format!(
                "the journal should go on at position {expected_start}; a segment is missing, or has lost its end"
            );
            return Err(segment.damage(segment.start, what));
        }
        let header = match read_header(segment)? {
            SegmentHeaderState::Sound(header) => header,
            SegmentHeaderState::Unwritten if index + 1 == segments.len() => return Ok(headers),
            SegmentHeaderState::Unwritten | SegmentHeaderState::Damaged => {
                return Err(segment.damage(segment.start, "this is no sound segment header"));
            }
            SegmentHeaderState::Version(found) => {
                let known = super::journal::VERSION;
                return Err(StoreError::Version { path: segment.path.clone(), found, known });
            }
        };
        let first = headers.is_empty();
        let begins = !first || (header.frame_number_before == 0 && header.digest_before == *ledger_digest);
        if header.ledger != *ledger || header.start != segment.start || !begins {
            return Err(segment.damage(segment.start, "this segment belongs to another journal"));
        }
        headers.push(header);
        expected_start = segment.start + length(segment)?;
    }
    Ok(headers)
}

/// A walk over frames.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    segments: &'a [Arc<Segment>],
    pub(super) point: JournalPoint,
}

impl<'a> Scan<'a> {
    /// Begins at a point between two frames.
    pub(super) const fn new(segments: &'a [Arc<Segment>], point: JournalPoint) -> Self {
        Self { segments, point }
    }

    /// The segment that the next frame lies in, with its place in the list. Steps over a segment's header.
    pub(super) fn segment(&mut self) -> Option<(usize, &'a Arc<Segment>)> {
        let after = self.segments.partition_point(|segment| segment.start <= self.point.position);
        let index = after.checked_sub(1)?;
        let segment = &self.segments[index];
        if self.point.position == segment.start {
            self.point.position += SEGMENT_HEADER_BYTES as u64;
        }
        Some((index, segment))
    }

    /// What lies next. A frame is stepped over; anything else is stayed at.
    pub(super) fn next(&mut self) -> Result<Found, StoreError> {
        let Some((index, segment)) = self.segment() else { return Ok(Found::End(Verdict::CleanEnd)) };
        let position = self.point.position;
        if let Some(frame) = segment.read_frame(position)? {
            let header = &frame.header;
            let body = &frame.bytes[super::frame::HEADER_BYTES..];
            let follows = header.number == self.point.frame_number + 1
                && header.expected_digest(&self.point.digest, body) == header.digest;
            if follows {
                let point = JournalPoint {
                    position: position + frame.bytes.len() as u64,
                    frame_number: header.number,
                    digest: header.digest,
                };
                self.point = point;
                return Ok(Found::Frame(frame, point));
            }
        }
        if index + 1 < self.segments.len() {
            return Ok(Found::Unreadable);
        }
        let offset = position - segment.start;
        Ok(Found::End(judge(&read_rest(segment, offset)?, offset, self.point.frame_number + 1)))
    }
}
