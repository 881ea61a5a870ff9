//! Where it ran: cores, memory, kernel, file system, and what the machine does without any engine.

use crate::cases::Bench;
use crate::failure::Failure;
use crate::probe::{self, Room, SmallWrites, p50_p99_us};
use crate::workload::{Ids, Workload};
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// About what the store writes for a batch of 1,024 events.
pub(crate) const FRAME_BYTES: u64 = 64 << 10;
/// Large enough for a disk to stream.
pub(crate) const STREAM_BYTES: u64 = 4 << 20;
/// What a lone request writes: a frame with one event, ids as numbers.
pub(crate) const SMALL_BYTES: u64 = 152;

/// The machine, and its raw limits in this run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    /// Of the directory used.
    pub(crate) file_system: String,
    /// Writing [`SMALL_BYTES`] to a zero-filled file, and `fdatasync`.
    pub(crate) fdatasync_p50_us: f64,
    pub(crate) fdatasync_p99_us: f64,
    /// Synced appends of [`FRAME_BYTES`] to a growing file, in megabytes per second.
    pub(crate) append_frames_mb_s: f64,
    /// The same into a zero-filled file.
    pub(crate) append_frames_zeroed_mb_s: f64,
    /// Synced appends of [`STREAM_BYTES`] to a growing file.
    pub(crate) append_stream_mb_s: f64,
    /// A bare scan of a file with rows, in memory by then.
    pub(crate) scan_rows_s: f64,
    /// SHA-256 of bytes in memory, on one thread.
    pub(crate) sha256_mb_s: f64,
}

impl Machine {
    pub(crate) fn measure(bench: &mut Bench) -> Result<Self, Failure> {
        let quick = bench.options.quick;
        let (sync_count, append_bytes) = if quick { (20, 1 << 20) } else { (3000, 256 << 20) };
        let path = bench.directory().join("raw");
        let mut samples = Vec::new();
        SmallWrites::new(&path)?.sample(sync_count, SMALL_BYTES, &mut samples)?;
        let (fdatasync_p50_us, fdatasync_p99_us) = p50_p99_us(&mut samples);
        let append = |chunk: u64, room| -> Result<f64, Failure> {
            let chunks = vec![chunk.min(append_bytes); (append_bytes / chunk).max(1) as usize];
            Ok(append_bytes as f64 / 1e6 / probe::append(&path, &chunks, room)?)
        };
        let append_frames_mb_s = append(FRAME_BYTES, Room::Growing)?;
        let append_frames_zeroed_mb_s = append(FRAME_BYTES, Room::Zeroed)?;
        let append_stream_mb_s = append(STREAM_BYTES, Room::Growing)?;
        let rows = if quick { 5_000 } else { 2_000_000 };
        let workload = Workload { rows, customers: 65_536, ids: Ids::Rising, seed: 1, with_faults: false };
        let source = bench.source(workload)?;
        probe::scan(&source)?;
        let started = Instant::now();
        let scanned = probe::scan(&source)?;
        let scan_rows_s = rows as f64 / started.elapsed().as_secs_f64();
        Failure::unless_equal("the lines of a file and those found in it", &(rows + 1), &scanned.line_count)?;
        let sha_bytes: u64 = if quick { 1 << 20 } else { 512 << 20 };
        Ok(Self {
            processor: line_of("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism()?.get(),
            memory_bytes: kilobytes(&line_of("/proc/meminfo", "MemTotal")),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            file_system: file_system(bench.directory()),
            fdatasync_p50_us,
            fdatasync_p99_us,
            append_frames_mb_s,
            append_frames_zeroed_mb_s,
            append_stream_mb_s,
            scan_rows_s,
            sha256_mb_s: sha_bytes as f64 / 1e6 / probe::sha256_seconds(sha_bytes),
        })
    }

    /// Names and values, for a table.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        vec![
            ("processor", self.processor.clone()),
            ("cores", self.cores.to_string()),
            ("memory", format!("{:.1} GB", self.memory_bytes as f64 / 1e9)),
            ("kernel", self.kernel.clone()),
            ("file system", self.file_system.clone()),
            (
                "write of 152 bytes and fdatasync",
                format!("p50 {:.0} µs, p99 {:.0} µs", self.fdatasync_p50_us, self.fdatasync_p99_us),
            ),
            ("synced appends of 64 KiB, growing file", format!("{:.0} MB/s", self.append_frames_mb_s)),
            ("synced appends of 64 KiB, zero-filled file", format!("{:.0} MB/s", self.append_frames_zeroed_mb_s)),
            ("synced appends of 4 MiB, growing file", format!("{:.0} MB/s", self.append_stream_mb_s)),
            ("bare scan of rows", format!("{:.1} million rows/s", self.scan_rows_s / 1e6)),
            ("SHA-256, one thread", format!("{:.0} MB/s", self.sha256_mb_s)),
        ]
    }
}

/// What follows the colon on the first line of a file that begins with `key`; empty if there is none.
fn line_of(path: &str, key: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split_once(':')).map_or(String::new(), |(_, value)| value.trim().to_owned())
}

/// `123 kB` in bytes; 0 where it is not that.
fn kilobytes(text: &str) -> u64 {
    text.strip_suffix(" kB").and_then(|count| count.parse::<u64>().ok()).map_or(0, |count| count << 10)
}

/// A field of this process's state, in bytes.
pub(crate) fn own_memory(key: &str) -> u64 {
    kilobytes(&line_of("/proc/self/status", key))
}

/// Makes the system count the highest memory use from now on. Where it does not, the figure is too high, not too low.
pub(crate) fn forget_peak_memory() {
    drop(fs::write("/proc/self/clear_refs", "5"));
}

/// The type of the file system that a directory is on; empty where the system does not say.
fn file_system(directory: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let under = fields.filter(|fields| fields.len() > 2 && directory.starts_with(fields[1]));
    under.max_by_key(|fields| fields[1].len()).map_or(String::new(), |fields| fields[2].to_owned())
}
