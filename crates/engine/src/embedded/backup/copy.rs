//! Copying frames: each one is read, checked against its checksums and against the digest of the frame before, and
//! written where it was.

use super::super::disk::Disk;
use super::super::journal::{JournalPoint, SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use super::super::scan::{Found, Scan, check_segments, length, open_segments};
use super::{BackupError, Manifest, Progress};
use crate::store::{Damage, StoreError};
use bursar_core::LedgerConfig;
use std::sync::Arc;

/// So many bytes are written at a time.
const WRITE_BYTES: usize = 4 << 20;

/// Where a copy goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    point: JournalPoint,
    time_ms: u64,
}

/// How far a copy went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copied {
    pub(super) point: JournalPoint,
    pub(super) time_ms: u64,
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

/// The segments of a directory whose headers are written, and those headers.
fn segments_of(disk: &dyn Disk, config: &LedgerConfig) -> Result<(Vec<Arc<Segment>>, Vec<SegmentHeader>), StoreError> {
    let mut segments = open_segments(disk)?;
    let headers = check_segments(&config.ledger, &config.digest(), &segments)?;
    segments.truncate(headers.len());
    Ok((segments, headers))
}

impl Ahead {
    pub(super) fn at_start(config: &LedgerConfig) -> Self {
        Self { point: JournalPoint { position: 0, frame_number: 0, digest: config.digest() }, time_ms: 0 }
    }

    /// Where a copy ends that can be relied on: behind its manifest, and not before its last segment, since each
    /// segment is durable before the next is begun. An error if the ledger did not go that way.
    pub(super) fn of_target(
        source: &dyn Disk,
        target: &dyn Disk,
        config: &LedgerConfig,
        manifest: Option<&Manifest>,
    ) -> Result<Self, BackupError> {
        let (segments, headers) = segments_of(target, config)?;
        let mut ahead = Self::at_start(config);
        if let Some(manifest) = manifest {
            ahead = Self { point: manifest.point, time_ms: manifest.time_ms };
            let end = match segments.last() {
                Some(last) => last.start + length(last)?,
                None => 0,
            };
            if end < manifest.point.position {
                let what = "the copied journal ends before the point that this says".to_owned();
                let path = target.path().join(super::MANIFEST_NAME);
                return Err(StoreError::Damaged(Damage { path, offset: 0, what }).into());
            }
        }
        if let (Some(last), Some(header)) = (segments.last(), headers.last())
            && last.start > ahead.point.position
        {
            let (frame_number, digest) = (header.frame_number_before, header.digest_before);
            ahead.point = JournalPoint { position: last.start, frame_number, digest };
        }
        let (source_segments, source_headers) = segments_of(source, config)?;
        check_same_way(&source_segments, &source_headers, &segments, &mut ahead)?;
        Ok(ahead)
    }
}

/// Checks that the ledger's journal has what the copy has: the point that it goes on from, and what it holds behind
/// that. Notes the time of the frame at that point on the way.
fn check_same_way(
    source: &[Arc<Segment>],
    source_headers: &[SegmentHeader],
    copy: &[Arc<Segment>],
    ahead: &mut Ahead,
) -> Result<(), BackupError> {
    let Some(last) = copy.last() else { return Ok(()) };
    let diverged = |position| Err(BackupError::Diverged { path: last.path.clone(), position });
    let goal = ahead.point;
    // From the beginning of the segment that holds what is before the point.
    let before = source.partition_point(|segment| segment.start < goal.position);
    let mut scan = match before.checked_sub(1).and_then(|index| source.get(index).zip(source_headers.get(index))) {
        Some((segment, header)) => {
            let (frame_number, digest) = (header.frame_number_before, header.digest_before);
            Scan::new(source, JournalPoint { position: segment.start, frame_number, digest })
        }
        None if goal.position == 0 => Scan::new(source, goal),
        None => return diverged(0),
    };
    while scan.point.position < goal.position {
        match scan.next()? {
            Found::Frame(frame, _) => ahead.time_ms = frame.header.time_ms,
            Found::Unreadable | Found::End(_) => return diverged(scan.point.position),
        }
    }
    if scan.point != goal {
        return diverged(scan.point.position);
    }
    // What an interrupted copy has left, the ledger has too; what somebody wrote into the copy, it has not.
    let mut copied = Scan::new(copy, goal);
    while let Found::Frame(_, point) = copied.next()? {
        match scan.next()? {
            Found::Frame(_, same) if same == point => {}
            Found::Frame(..) | Found::Unreadable | Found::End(_) => return diverged(point.position),
        }
    }
    Ok(())
}

/// Copies what lies between `ahead` and `position`, and makes it durable.
pub(super) fn copy_journal(
    source: &dyn Disk,
    target: &dyn Disk,
    config: &LedgerConfig,
    ahead: Ahead,
    position: u64,
    progress: Progress<'_>,
) -> Result<Copied, BackupError> {
    let mut segments = open_segments(source)?;
    // One that is just being begun may not have its header yet.
    segments.retain(|segment| segment.start < position.max(1));
    let headers = check_segments(&config.ledger, &config.digest(), &segments)?;
    segments.truncate(headers.len());
    let Ahead { point, time_ms } = ahead;
    let mut copied = Copied { point, time_ms, frames: 0, bytes: 0 };
    let total = position.saturating_sub(point.position);
    let mut scan = Scan::new(&segments, point);
    let mut writer: Option<Writer> = None;
    while copied.point.position < position {
        let Some((index, segment)) = scan.segment() else { break };
        let is_same = writer.as_ref().is_some_and(|writer| writer.start == segment.start);
        if !is_same {
            if let Some(finished) = writer.take() {
                finished.finish()?;
            }
            writer = Some(Writer::begin(target, segment, copied.point.position)?);
        }
        let here = scan.point.position;
        let frame = match scan.next()? {
            Found::Frame(frame, point) if point.position <= position => {
                copied.point = point;
                frame
            }
            Found::Frame(..) | Found::Unreadable | Found::End(_) => {
                return Err(segments[index].damage(here, "a frame cannot be read that was durable").into());
            }
        };
        copied.time_ms = frame.header.time_ms;
        copied.frames += 1;
        if let Some(writer) = &mut writer {
            writer.write(&frame.bytes)?;
        }
        copied.bytes = copied.point.position - point.position;
        progress(copied.bytes, total);
    }
    if let Some(finished) = writer {
        finished.finish()?;
    }
    Ok(copied)
}

/// A segment of the copy that is being written.
struct Writer {
    start: u64,
    segment: Segment,
    written: u64,
    buffer: Vec<u8>,
}

impl Writer {
    /// Begins a segment, or goes on with one at a position of the journal. What it has behind that is cut off.
    fn begin(target: &dyn Disk, source: &Segment, position: u64) -> Result<Self, StoreError> {
        let name = super::super::journal::segment_name(source.start);
        let path = target.path().join(&name);
        let io_error =
            |error| StoreError::Io { doing: "begin a segment of the copy", path: path.clone(), error: Arc::new(error) };
        let is_there = target.list().map_err(io_error)?.contains(&name);
        let file = if is_there { target.open(&name) } else { target.create(&name) }.map_err(io_error)?;
        let written = position.saturating_sub(source.start);
        file.set_length(written).map_err(io_error)?;
        if !is_there {
            target.sync_directory().map_err(io_error)?;
        }
        let mut buffer = Vec::with_capacity(WRITE_BYTES);
        if written == 0 {
            buffer.resize(SEGMENT_HEADER_BYTES, 0);
            let read = source.file.read_at(&mut buffer, 0);
            read.map_err(|error| source.io_error("read the journal", error))?;
        }
        let segment = Segment { start: source.start, path, file };
        Ok(Self { start: source.start, segment, written, buffer })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let written = self.segment.file.write_at(&self.buffer, self.written);
        written.map_err(|error| self.segment.io_error("write the copy", error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(), StoreError> {
        self.flush()?;
        self.segment.file.sync().map_err(|error| self.segment.io_error("make the copy durable", error))
    }
}
