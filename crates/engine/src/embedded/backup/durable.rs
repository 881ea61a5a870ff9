//! Up to where the journal of a running ledger is durable, seen from outside.
//!
//! Its owner knows, and says so through a socket in the directory if it is a service. Without it, the frames say: each
//! carries the number of the newest frame that was durable when it was made, and a segment is begun only after the one
//! before is durable. So while there is writing, the frame that is the newest now is soon named by a later one.

use super::super::disk::Disk;
use super::super::journal::JournalPoint;
use super::super::scan::{Found, Scan, check_segments, open_segments};
use super::{BackupError, Known};
use bursar_core::LedgerConfig;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The socket in a served ledger's directory: whoever connects is told what [`owner_says`] makes.
pub const OWNER_SOCKET_NAME: &str = "owner.sock";
/// How long an owner may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long to wait for a later frame that names the newest one.
const FRAMES_WAIT: Duration = Duration::from_secs(2);
const FRAMES_STEP: Duration = Duration::from_millis(50);
const ANSWER_BYTES_MAX: u64 = 200;

/// What the owner of a ledger answers: everything before this position of its journal is durable.
pub fn owner_says(ledger: &[u8; 16], position: u64) -> String {
    format!("bursar-owner 1 {:032x} {position}\n", u128::from_be_bytes(*ledger))
}

/// A position, and how it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Durable {
    pub(super) position: u64,
    pub(super) known: Known,
}

pub(super) fn of_a_running_ledger(source: &dyn Disk, config: &LedgerConfig) -> Result<Durable, BackupError> {
    if let Some(position) = ask_owner(source.path(), &config.ledger) {
        return Ok(Durable { position, known: Known::ByOwner });
    }
    let begun = Instant::now();
    let first = by_frames(source, config)?;
    let mut now = first;
    while now.durable_frame < first.newest_frame && begun.elapsed() < FRAMES_WAIT {
        std::thread::sleep(FRAMES_STEP);
        now = by_frames(source, config)?;
    }
    let left_out = first.newest_frame.saturating_sub(now.durable_frame);
    Ok(Durable { position: now.position, known: Known::ByFrames { left_out } })
}

fn ask_owner(directory: &Path, ledger: &[u8; 16]) -> Option<u64> {
    let stream = UnixStream::connect(directory.join(OWNER_SOCKET_NAME)).ok()?;
    stream.set_read_timeout(Some(ANSWER_WAIT)).ok()?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).ok()?;
    let position = answer.trim_end().rsplit(' ').next()?.parse().ok()?;
    (owner_says(ledger, position) == answer).then_some(position)
}

/// What the frames of the last segment say.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByFrames {
    /// Everything before this is durable.
    pub(super) position: u64,
    /// The number of the last frame before it.
    pub(super) durable_frame: u64,
    /// The number of the newest frame that can be read.
    pub(super) newest_frame: u64,
    /// Its time.
    pub(super) newest_time_ms: Option<u64>,
}

pub(super) fn by_frames(source: &dyn Disk, config: &LedgerConfig) -> Result<ByFrames, BackupError> {
    let mut segments = open_segments(source)?;
    let headers = check_segments(&config.ledger, &config.digest(), &segments)?;
    segments.truncate(headers.len());
    let (Some(last), Some(header)) = (segments.last(), headers.last()) else {
        return Ok(ByFrames { position: 0, durable_frame: 0, newest_frame: 0, newest_time_ms: None });
    };
    let before = header.frame_number_before;
    let mut found =
        ByFrames { position: last.start, durable_frame: before, newest_frame: before, newest_time_ms: None };
    let mut ends: Vec<(u64, u64)> = Vec::new();
    let point = JournalPoint { position: last.start, frame_number: before, digest: header.digest_before };
    let mut scan = Scan::new(&segments, point);
    while let Found::Frame(frame, point) = scan.next()? {
        ends.push((point.frame_number, point.position));
        found.newest_frame = point.frame_number;
        found.newest_time_ms = Some(frame.header.time_ms);
        let named = ends.iter().rposition(|&(number, _)| number <= frame.header.synced_through);
        if let Some(index) = named {
            (found.durable_frame, found.position) = ends[index];
            ends.drain(..=index);
        }
    }
    Ok(found)
}
