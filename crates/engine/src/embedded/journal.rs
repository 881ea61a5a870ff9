//! The journal: segment files of frames, one address space of positions, one writer.
//!
//! A *position* counts bytes over all segments, their headers included; a segment's name and header say where
//! it begins. Frames are appended in memory ([`Journal::append`]), and sealed, written and made durable by
//! [`Journal::sync`], which may run beside the next appends. What was appended can be read at once: who needs a frame
//! that is not sealed yet seals it.
//!
//! What this module does not do: know what records mean ([`super::record`]), judge a journal's end
//! ([`super::tail`]), or find positions ([`super::index`]).

use super::codec::{COUNT_MAX, Decoder, crc32c};
use super::disk::{Disk, DiskFile};
use super::frame::{BODY_BYTES_MAX, Frame, FrameHeader, HEADER_BYTES, Unsealed, fill_up};
use super::record::{DISTANCE_BYTES_MAX, Stored, StoredEvent, frame_distance};
use crate::figures::{Histogram, HistogramFigures};
use crate::store::{Damage, StoreError};
use bursar_core::Hash;
use bursar_core::planted::{Planted, is_planted};
use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

/// The version of the journal's format.
pub(crate) const VERSION: u32 = 1;
pub(crate) const SEGMENT_HEADER_BYTES: usize = 96;
const SEGMENT_MAGIC: [u8; 8] = *b"BURSJRNL";
const NAME_PREFIX: &str = "journal-";
const NAME_SUFFIX: &str = ".bursar";
const RESERVE_BYTES_MIN: u64 = 1 << 20;
const RESERVE_BYTES_MAX: u64 = 32 << 20;

/// A place between two frames, and what the next frame builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JournalPoint {
    /// The position behind the last frame.
    pub(crate) position: u64,
    /// The number of the last frame; 0 at the beginning.
    pub(crate) frame_number: u64,
    /// The digest of the last frame; the ledger's digest at the beginning.
    pub(crate) digest: Hash,
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) ledger: [u8; 16],
    /// The position of the segment's first byte.
    pub(crate) start: u64,
    /// What the segment's first frame builds on.
    pub(crate) frame_number_before: u64,
    pub(crate) digest_before: Hash,
}

/// What a segment's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentHeaderState {
    Sound(SegmentHeader),
    /// Never written whole: there can be no frames behind it.
    Unwritten,
    Version(u32),
    Damaged,
}

impl SegmentHeader {
    fn bytes(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.ledger);
        bytes[32..40].copy_from_slice(&self.start.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.frame_number_before.to_le_bytes());
        bytes[48..80].copy_from_slice(self.digest_before.as_bytes());
        let crc = crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> SegmentHeaderState {
        if bytes.len() < SEGMENT_HEADER_BYTES || bytes[..SEGMENT_HEADER_BYTES].iter().all(|&byte| byte == 0) {
            return SegmentHeaderState::Unwritten;
        }
        let bytes = &bytes[..SEGMENT_HEADER_BYTES];
        let mut decoder = Decoder::new(bytes, 8);
        let read = || -> Result<_, super::codec::Malformed> {
            let (version, crc) = (decoder.fixed_u32()?, decoder.fixed_u32()?);
            let ledger = decoder.array()?;
            let (start, frame_number_before) = (decoder.fixed_u64()?, decoder.fixed_u64()?);
            let digest_before = Hash(decoder.array()?);
            Ok((version, crc, Self { ledger, start, frame_number_before, digest_before }))
        };
        let mut read = read;
        match read() {
            Ok((version, crc, header)) if bytes[..8] == SEGMENT_MAGIC && crc == crc32c(&bytes[16..]) => {
                if version != VERSION {
                    SegmentHeaderState::Version(version)
                } else if header.start.max(header.frame_number_before) > COUNT_MAX {
                    SegmentHeaderState::Damaged
                } else {
                    SegmentHeaderState::Sound(header)
                }
            }
            Ok(_) | Err(_) => SegmentHeaderState::Damaged,
        }
    }
}

/// The name of the segment that begins at a position.
pub(crate) fn segment_name(start: u64) -> String {
    format!("{NAME_PREFIX}{start:020}{NAME_SUFFIX}")
}

/// The position in a segment's name; `None` if it is no segment's name.
pub(crate) fn segment_start(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(NAME_PREFIX)?.strip_suffix(NAME_SUFFIX)?;
    if digits.len() == 20 { digits.parse().ok().filter(|&start| start <= COUNT_MAX) } else { None }
}

/// A segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn DiskFile>,
}

impl Segment {
    pub(crate) fn io_error(&self, doing: &'static str, error: std::io::Error) -> StoreError {
        StoreError::Io { doing, path: self.path.clone(), error: Arc::new(error) }
    }

    pub(crate) fn damage(&self, position: u64, what: impl Into<String>) -> StoreError {
        let offset = position.saturating_sub(self.start);
        StoreError::Damaged(Damage { path: self.path.clone(), offset, what: what.into() })
    }

    /// Reads the frame at a position, checked; `None` if there is no sound one.
    pub(crate) fn read_frame(&self, position: u64) -> Result<Option<Frame>, StoreError> {
        let mut bytes = vec![0; HEADER_BYTES];
        let offset = position - self.start;
        let read = |buffer: &mut [u8], offset| {
            self.file.read_at(buffer, offset).map_err(|error| self.io_error("read the journal", error))
        };
        if read(&mut bytes, offset)? < HEADER_BYTES {
            return Ok(None);
        }
        let Some(header) = FrameHeader::read(&bytes) else { return Ok(None) };
        bytes.resize(header.frame_bytes() as usize, 0);
        read(&mut bytes[HEADER_BYTES..], offset + HEADER_BYTES as u64)?;
        Ok(header.fits(&bytes[HEADER_BYTES..]).then_some(Frame { header, position, bytes }))
    }
}

/// Frames on their way to the disk, adjacent and in one segment.
#[derive(Debug)]
struct Chunk {
    position: u64,
    bytes: Vec<u8>,
    /// The chunk begins with room for a segment's header.
    begins_segment: bool,
    /// The frames that are not sealed yet, and where they lie in `bytes`.
    unsealed: Vec<(Range<usize>, Unsealed)>,
    last_frame: u64,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }
}

#[derive(Debug)]
struct Tail {
    /// Behind the last frame.
    position: u64,
    /// The number of the last frame.
    frame_number: u64,
    segment_start: u64,
    /// Sealed, and being written, oldest first.
    writing: VecDeque<Arc<Chunk>>,
    /// Being filled, and not sealed.
    filling: VecDeque<Chunk>,
    /// Buffers whose chunks are durable: to be filled again.
    spare: Vec<Vec<u8>>,
}

/// How many buffers of chunks are kept to be used again, and how large one may be.
const SPARE_BUFFERS_MAX: usize = 4;
const SPARE_BYTES_MAX: usize = 8 << 20;

#[derive(Debug)]
struct Writer {
    segment: Option<Arc<Segment>>,
    reserved: u64,
    written: u64,
    /// The first error. After it nothing is written or synced again, by nobody: a sync tried once more may
    /// succeed although what the first one should have made durable is lost.
    failed: Option<Arc<StoreError>>,
}

/// The journal of an open ledger.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    ledger: [u8; 16],
    segment_bytes: u64,
    segments: RwLock<Vec<Arc<Segment>>>,
    tail: Mutex<Tail>,
    /// Behind the last sealed frame. Whoever seals holds it; it is taken before `tail`, and after `writer`.
    sealed: Mutex<JournalPoint>,
    writer: Mutex<Writer>,
    synced_frame: AtomicU64,
    synced_position: AtomicU64,
    sync_times: Histogram,
}

impl Tail {
    fn keep_buffers(&mut self, chunks: Vec<Arc<Chunk>>) {
        for chunk in chunks {
            let Some(Chunk { mut bytes, .. }) = Arc::into_inner(chunk) else { continue };
            if self.spare.len() < SPARE_BUFFERS_MAX && bytes.capacity() <= SPARE_BYTES_MAX {
                bytes.clear();
                self.spare.push(bytes);
            }
        }
    }
}

/// A lock whose holder panicked is taken all the same: what it guards is checked by its own means, and the
/// store is poisoned by whoever saw the panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// A journal whose segments end at `point`; everything there is durable. One whose segments go on behind
    /// `point` can only be read.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        ledger: [u8; 16],
        segment_bytes: u64,
        segments: Vec<Arc<Segment>>,
        point: JournalPoint,
    ) -> Self {
        let last = segments.last().cloned();
        let segment_start = last.as_ref().map_or(0, |segment| segment.start);
        let written = point.position.saturating_sub(segment_start);
        Self {
            disk,
            ledger,
            segment_bytes,
            segments: RwLock::new(segments),
            tail: Mutex::new(Tail {
                position: point.position,
                frame_number: point.frame_number,
                segment_start,
                writing: VecDeque::new(),
                filling: VecDeque::new(),
                spare: Vec::new(),
            }),
            sealed: Mutex::new(point),
            writer: Mutex::new(Writer { segment: last, reserved: written, written, failed: None }),
            synced_frame: AtomicU64::new(point.frame_number),
            synced_position: AtomicU64::new(point.position),
            sync_times: Histogram::of_latencies(),
        }
    }

    /// A journal that only reads, wherever its frames end.
    pub(crate) fn for_reading(disk: Arc<dyn Disk>, ledger: [u8; 16], segments: Vec<Arc<Segment>>) -> Self {
        let position = segments.last().map_or(0, |last| last.start);
        Self::new(disk, ledger, u64::MAX, segments, JournalPoint { position, frame_number: 0, digest: Hash::default() })
    }

    /// The ledger's id.
    pub(crate) const fn ledger(&self) -> [u8; 16] {
        self.ledger
    }

    /// Where the next frame will begin. Only the one who appends may rely on it.
    pub(crate) fn next_frame_position(&self) -> u64 {
        let tail = lock(&self.tail);
        if self.begins_segment(&tail) { tail.position + SEGMENT_HEADER_BYTES as u64 } else { tail.position }
    }

    fn begins_segment(&self, tail: &Tail) -> bool {
        tail.position == 0 || tail.position - tail.segment_start >= self.segment_bytes
    }

    /// Appends a frame: `bytes` has room for the header and then the records, laid out for
    /// [`Journal::next_frame_position`].
    pub(crate) fn append(&self, bytes: &mut Vec<u8>, time_ms: u64, record_count: u32) {
        debug_assert!(bytes.len() <= BODY_BYTES_MAX);
        fill_up(bytes);
        let synced_through = self.synced_frame.load(Ordering::Acquire);
        let mut tail = lock(&self.tail);
        let tail = &mut *tail;
        let begins_segment = self.begins_segment(tail);
        if begins_segment || tail.filling.is_empty() {
            let mut room = tail.spare.pop().unwrap_or_default();
            if begins_segment {
                tail.segment_start = tail.position;
                room.resize(SEGMENT_HEADER_BYTES, 0);
            }
            let (position, last_frame) = (tail.position, tail.frame_number);
            tail.filling.push_back(Chunk { position, bytes: room, begins_segment, unsealed: Vec::new(), last_frame });
            tail.position = tail.filling.back().map_or(position, Chunk::end);
        }
        tail.frame_number += 1;
        tail.position += bytes.len() as u64;
        if let Some(chunk) = tail.filling.back_mut() {
            let unsealed = Unsealed { number: tail.frame_number, synced_through, time_ms, record_count };
            let start = chunk.bytes.len();
            chunk.bytes.extend_from_slice(bytes);
            chunk.unsealed.push((start..chunk.bytes.len(), unsealed));
            chunk.last_frame = tail.frame_number;
        }
    }

    /// Seals everything appended so far: gives each frame its checksums and its digest. Gives the point behind it.
    ///
    /// This is done beside the next appends, since hashing a frame takes as long as deciding a part of it.
    fn seal_appended(&self) -> JournalPoint {
        let mut sealed = lock(&self.sealed);
        let mut chunks = std::mem::take(&mut lock(&self.tail).filling);
        for chunk in &mut chunks {
            self.seal_chunk(chunk, &mut sealed);
        }
        lock(&self.tail).writing.extend(chunks.into_iter().map(Arc::new));
        *sealed
    }

    fn seal_chunk(&self, chunk: &mut Chunk, point: &mut JournalPoint) {
        if chunk.begins_segment {
            let header = SegmentHeader {
                ledger: self.ledger,
                start: chunk.position,
                frame_number_before: point.frame_number,
                digest_before: point.digest,
            };
            chunk.bytes[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.bytes());
        }
        for (place, unsealed) in chunk.unsealed.drain(..) {
            point.digest = unsealed.seal(&mut chunk.bytes[place], &point.digest);
            point.frame_number = unsealed.number;
        }
        point.position = chunk.end();
    }

    /// The point behind the last appended frame.
    pub(crate) fn point(&self) -> JournalPoint {
        self.seal_appended()
    }

    /// Everything before this position is durable.
    pub(crate) fn synced_position(&self) -> u64 {
        self.synced_position.load(Ordering::Acquire)
    }

    /// How long syncs took.
    pub(crate) fn sync_times(&self) -> HistogramFigures {
        self.sync_times.figures()
    }

    /// Writes everything appended so far and makes it durable. After an error it is never tried again.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let mut writer = lock(&self.writer);
        if let Some(cause) = &writer.failed {
            return Err(StoreError::Poisoned { cause: cause.clone() });
        }
        let written = self.write_appended(&mut writer);
        written.inspect_err(|error| writer.failed = Some(Arc::new(error.clone())))
    }

    fn write_appended(&self, writer: &mut Writer) -> Result<(), StoreError> {
        self.seal_appended();
        let chunks: Vec<Arc<Chunk>> = lock(&self.tail).writing.iter().cloned().collect();
        let Some(last) = chunks.last() else { return Ok(()) };
        for chunk in &chunks {
            self.write_chunk(writer, chunk)?;
        }
        if let Some(segment) = &writer.segment {
            let begun = Instant::now();
            let mut synced = if is_planted(Planted::SyncLeftOut) { Ok(()) } else { segment.file.sync() };
            if is_planted(Planted::SyncRetried) && synced.is_err() {
                synced = segment.file.sync();
            }
            synced.map_err(|error| segment.io_error("make the journal durable", error))?;
            self.sync_times.record_time(begun.elapsed());
        }
        self.synced_frame.store(last.last_frame, Ordering::Release);
        self.synced_position.store(last.end(), Ordering::Release);
        let mut tail = lock(&self.tail);
        tail.writing.drain(..chunks.len());
        tail.keep_buffers(chunks);
        Ok(())
    }

    fn write_chunk(&self, writer: &mut Writer, chunk: &Chunk) -> Result<(), StoreError> {
        if chunk.begins_segment {
            self.begin_segment(writer, chunk.position, &chunk.bytes[..SEGMENT_HEADER_BYTES])?;
        }
        let Some(segment) = writer.segment.clone() else {
            return Err(StoreError::NotFound { path: self.disk.path().to_owned() });
        };
        let offset = chunk.position - segment.start;
        let end = offset + chunk.bytes.len() as u64;
        if end > writer.reserved {
            let ahead = (end / 2).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
            // Not beyond where the segment ends anyway.
            let wanted = (end + ahead).next_multiple_of(RESERVE_BYTES_MIN).min(end.max(self.segment_bytes));
            let reserved = match segment.file.reserve(wanted) {
                Ok(()) => Ok(wanted),
                Err(_) => segment.file.reserve(end).map(|()| end),
            };
            writer.reserved = reserved.map_err(|error| segment.io_error("reserve room for the journal", error))?;
        }
        let write = segment.file.write_at(&chunk.bytes, offset);
        write.map_err(|error| segment.io_error("write the journal", error))?;
        writer.written = end;
        Ok(())
    }

    /// Ends the current segment for good, and creates the next one with its header.
    fn begin_segment(&self, writer: &mut Writer, start: u64, header: &[u8]) -> Result<(), StoreError> {
        finish_segment(writer)?;
        let name = segment_name(start);
        let path = self.disk.path().join(&name);
        let io_error = |error| StoreError::Io {
            doing: "create a segment of the journal",
            path: path.clone(),
            error: Arc::new(error),
        };
        let file = self.disk.create(&name).map_err(io_error)?;
        file.write_at(header, 0).map_err(io_error)?;
        file.sync().map_err(io_error)?;
        if !is_planted(Planted::DirectorySyncLeftOut) {
            self.disk.sync_directory().map_err(io_error)?;
        }
        let segment = Arc::new(Segment { start, path: path.clone(), file });
        self.segments.write().unwrap_or_else(PoisonError::into_inner).push(segment.clone());
        let written = header.len() as u64;
        *writer = Writer { segment: Some(segment), reserved: written, written, failed: None };
        Ok(())
    }

    /// Gives back the room reserved behind the last frame. To be called when nothing is appended any more.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        self.sync()?;
        finish_segment(&mut lock(&self.writer))
    }

    /// Reads every durable frame, oldest first.
    pub(crate) fn for_each_frame(&self, mut read: impl FnMut(&Frame)) -> Result<(), StoreError> {
        for (segment, end) in self.durable_segments() {
            for_each_frame_of(&segment, end, |frame| {
                read(frame);
                Ok(false)
            })?;
        }
        Ok(())
    }

    /// Reads durable frames, those of the newest segment first, until `read` says that it is enough.
    pub(crate) fn newest_segments_first(
        &self,
        mut read: impl FnMut(&Frame) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for (segment, end) in self.durable_segments().into_iter().rev() {
            if for_each_frame_of(&segment, end, &mut read)? {
                break;
            }
        }
        Ok(())
    }

    /// The segments, each with up to where it is durable.
    fn durable_segments(&self) -> Vec<(Arc<Segment>, u64)> {
        let end = self.synced_position();
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner).clone();
        let ends = segments.iter().skip(1).map(|next| next.start.min(end)).chain([end]).collect::<Vec<_>>();
        segments.into_iter().zip(ends).collect()
    }

    /// Where a frame begins that follows the one which ends at `end`: there, or behind the header of a new segment.
    pub(crate) fn frame_start(&self, end: u64) -> u64 {
        let begins_segment = end == 0 || self.segment_of(end).is_some_and(|segment| segment.start == end);
        if begins_segment { end + SEGMENT_HEADER_BYTES as u64 } else { end }
    }

    /// The frame that begins at a position, if there is a sound one and it is durable.
    pub(crate) fn durable_frame(&self, position: u64) -> Result<Option<Frame>, StoreError> {
        let end = self.synced_position();
        let Some(segment) = self.segment_of(position).filter(|_| position < end) else { return Ok(None) };
        if position < segment.start + SEGMENT_HEADER_BYTES as u64 {
            return Ok(None);
        }
        let frame = segment.read_frame(position)?;
        Ok(frame.filter(|frame| position + frame.header.frame_bytes() <= end))
    }

    /// The newest durable frame; `None` where there is none. Looks for it from its end: nothing else says where it
    /// begins. A frame that is whole and ends exactly there is the one, since no record can end as a frame does.
    pub(crate) fn last_durable_frame(&self) -> Result<Option<Frame>, StoreError> {
        use super::frame::ALIGNMENT;
        let mut end = self.synced_position();
        let (segment, first) = loop {
            let Some(segment) = end.checked_sub(1).and_then(|last| self.segment_of(last)) else { return Ok(None) };
            let first = segment.start + SEGMENT_HEADER_BYTES as u64;
            if end > first {
                break (segment, first);
            }
            // A segment without a frame yet.
            end = segment.start;
        };
        let mut from = end;
        let mut step = 64 << 10;
        while from > first {
            let upper = from;
            from = first.max(upper.saturating_sub(step)) & !(ALIGNMENT as u64 - 1);
            step *= 2;
            // A header may lie across the border of two steps.
            let mut bytes = vec![0; (end.min(upper + HEADER_BYTES as u64) - from) as usize];
            let read = segment.file.read_at(&mut bytes, from - segment.start);
            read.map_err(|error| segment.io_error("read the journal", error))?;
            for offset in (0..(upper - from) as usize).step_by(ALIGNMENT).rev() {
                let position = from + offset as u64;
                let header = FrameHeader::read(&bytes[offset..]);
                if header.is_some_and(|header| position + header.frame_bytes() == end)
                    && let Some(frame) = segment.read_frame(position)?
                {
                    return Ok(Some(frame));
                }
            }
            if end - from > (HEADER_BYTES + BODY_BYTES_MAX + ALIGNMENT) as u64 {
                break;
            }
        }
        Err(segment.damage(end, "the last frame cannot be found"))
    }

    /// That something is not as it should be at a position.
    pub(crate) fn damaged(&self, position: u64, what: &str) -> StoreError {
        match self.segment_of(position) {
            Some(segment) => segment.damage(position, what),
            None => StoreError::NotFound { path: self.disk.path().to_owned() },
        }
    }

    fn segment_of(&self, position: u64) -> Option<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let after = segments.partition_point(|segment| segment.start <= position);
        segments.get(after.checked_sub(1)?).cloned()
    }

    /// The frame in memory that covers a position, if it is still on its way to the disk.
    fn unwritten_frame(&self, position: u64) -> Option<Frame> {
        self.seal_appended();
        let tail = lock(&self.tail);
        let chunk = tail.writing.iter().find(|chunk| chunk.position <= position && position < chunk.end())?;
        let offset = (position - chunk.position) as usize;
        let offset = offset.checked_sub(frame_distance(chunk.bytes.get(offset..)?).ok()? as usize)?;
        let bytes = chunk.bytes.get(offset..)?;
        let header = FrameHeader::read(bytes)?;
        let bytes = bytes.get(..header.frame_bytes() as usize)?.to_vec();
        Some(Frame { header, position: chunk.position + offset as u64, bytes })
    }

    /// Reads the frame that the record at `position` lies in.
    pub(crate) fn frame_of(&self, position: u64) -> Result<Frame, StoreError> {
        if position >= self.synced_position()
            && let Some(frame) = self.unwritten_frame(position)
        {
            return Ok(frame);
        }
        let Some(segment) = self.segment_of(position) else {
            return Err(StoreError::Damaged(Damage {
                path: self.disk.path().to_owned(),
                offset: position,
                what: "an index points before the journal's beginning".to_owned(),
            }));
        };
        let mut bytes = [0; DISTANCE_BYTES_MAX];
        let offset = position - segment.start;
        let read = segment.file.read_at(&mut bytes, offset);
        let count = read.map_err(|error| segment.io_error("read the journal", error))?;
        let distance = frame_distance(&bytes[..count]).ok().filter(|&distance| distance <= offset);
        let frame = match distance {
            Some(distance) => segment.read_frame(position - distance)?,
            None => None,
        };
        frame
            .filter(|frame| position < frame.position + frame.bytes.len() as u64)
            .ok_or_else(|| segment.damage(position, "no sound record where one should be"))
    }

    /// Reads the record at a position. `cached` holds the frame read last, which often has the next one too.
    pub(crate) fn record(&self, position: u64, cached: &mut Option<Frame>) -> Result<Stored, StoreError> {
        let covers = |frame: &Frame| (frame.position..frame.position + frame.bytes.len() as u64).contains(&position);
        let frame = match cached.take_if(|frame| covers(frame)) {
            Some(frame) => frame,
            None => self.frame_of(position)?,
        };
        let record = frame.record_at(position);
        let found = cached.insert(frame);
        record.map_err(|malformed| {
            let at = found.position + malformed.offset as u64;
            self.damaged(at, "a record cannot be read")
        })
    }

    /// Reads the event that took effect by the record at a position: that event, or the one that it closes.
    /// `None` where no event took effect.
    pub(crate) fn effect(&self, position: u64, cached: &mut Option<Frame>) -> Result<Option<StoredEvent>, StoreError> {
        let started = match self.record(position, cached)? {
            Stored::Event(event) => return Ok(event.done.then_some(event)),
            Stored::Closing(closing) if closing.status.is_done() => closing.started,
            Stored::Closing(_) | Stored::Mark(_) => return Ok(None),
        };
        match self.record(started, cached)? {
            Stored::Event(event) => Ok(Some(event)),
            Stored::Closing(_) | Stored::Mark(_) => Ok(None),
        }
    }
}

/// Reads the frames of a segment until `read` says that it is enough; gives whether it did.
fn for_each_frame_of(
    segment: &Segment,
    end: u64,
    mut read: impl FnMut(&Frame) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    let mut position = segment.start + SEGMENT_HEADER_BYTES as u64;
    while position < end {
        let Some(frame) = segment.read_frame(position)? else {
            return Err(segment.damage(position, "a frame cannot be read"));
        };
        position += frame.bytes.len() as u64;
        if read(&frame)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Cuts a segment to what was written, so that its length says where the next one begins.
fn finish_segment(writer: &mut Writer) -> Result<(), StoreError> {
    let Some(segment) = &writer.segment else { return Ok(()) };
    let finish = || {
        if segment.file.length()? != writer.written {
            segment.file.set_length(writer.written)?;
        }
        segment.file.sync()
    };
    finish().map_err(|error| segment.io_error("finish a segment of the journal", error))?;
    writer.reserved = writer.written;
    Ok(())
}
