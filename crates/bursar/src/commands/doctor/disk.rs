//! The disk: which file system it is, how much room there is, and how long it takes to make something durable.

use super::{Finding, Verdict, size};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The file that is written to measure. The ending is that of unfinished files.
const PROBE_NAME: &str = "doctor.tmp";
const PROBE_BYTES: usize = 4096;
const PROBE_COUNT: usize = 300;
/// Not longer than this, in microseconds; a slow disk is known after fewer.
const PROBE_US_MAX: u128 = 10_000_000;

/// Less room than this, and the journal cannot reserve what it wants.
const FREE_FAILURE: u64 = 128 << 20;
const FREE_WARNING: u64 = 2 << 30;

const SLOW_P50_US: u64 = 20_000;
const SLOW_P99_US: u64 = 200_000;
/// No disk with a cache that survives a power cut is faster.
const DOUBTFUL_P50_US: u64 = 5;

pub(super) fn look(data: &Path, findings: &mut Vec<Finding>) {
    findings.push(match rustix::fs::statfs(data) {
        Ok(found) => file_system(found.f_type),
        Err(error) => Finding::warning("file_system", error.to_string(), "Look at it with `df -T DIR`."),
    });
    findings.push(match rustix::fs::statvfs(data) {
        Ok(found) => free(found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize)),
        Err(error) => Finding::warning("free_space", error.to_string(), "Look at it with `df -h DIR`."),
    });
    findings.push(match measure(data) {
        Ok(times) => sync_times(&times),
        Err(error) => {
            let todo = "Run this as the user that serves the ledger; look whether the disk is full or read-only.";
            Finding::failure("sync", error.to_string(), todo)
        }
    });
}

/// By the kind of the file system, as in `statfs(2)`.
fn file_system(kind: i64) -> Finding {
    const NETWORK: &str = "A sync may not reach a disk, and locks may not hold: put the ledger on a local disk.";
    let (name, todo) = match kind {
        0xEF53 => ("ext4", ""),
        0x5846_5342 => ("xfs", ""),
        0x9123_683E => ("btrfs", ""),
        0x2FC1_2FC1 => ("zfs", ""),
        0xF2F5_2010 => ("f2fs", ""),
        0x0102_1994 | 0x8584_58F6 => ("memory", "It is gone when the machine stops: put the ledger on a disk."),
        0x794C_7630 => ("overlay", "It is gone with its container: put the ledger on a volume."),
        0x6969 => ("nfs", NETWORK),
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => ("smb", NETWORK),
        0x0102_1997 => ("9p", NETWORK),
        0x00C3_6400 => ("ceph", NETWORK),
        0x6573_5546 => ("fuse", NETWORK),
        _ => ("unknown", "See whether it keeps what was synced after a power cut; ext4 and xfs do."),
    };
    let found = format!("{name} ({kind:#x})");
    if todo.is_empty() { Finding::ok("file_system", found) } else { Finding::warning("file_system", found, todo) }
}

fn free(free: u64, total: u64) -> Finding {
    let found = format!("{} of {} are free", size(free), size(total));
    let todo =
        "Make room, or move the ledger: an event takes about 60 to 130 bytes, and a full disk stops the service.";
    let verdict = match free {
        ..FREE_FAILURE => Verdict::Failure,
        FREE_FAILURE..FREE_WARNING => Verdict::Warning,
        _ if free < total / 20 => Verdict::Warning,
        _ => return Finding::ok("free_space", found),
    };
    Finding { check: "free_space", verdict, found, todo: todo.to_owned() }
}

/// Removed whatever happens.
struct Probe {
    file: File,
    path: PathBuf,
}

impl Probe {
    fn create(data: &Path) -> io::Result<Self> {
        let path = data.join(PROBE_NAME);
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
        Ok(Self { file, path })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // What cannot be removed shows as a leftover next time.
        std::fs::remove_file(&self.path).unwrap_or_default();
    }
}

/// How long appends into reserved room took to be durable, in microseconds, ascending: as the journal does it.
fn measure(data: &Path) -> io::Result<Vec<u64>> {
    let probe = Probe::create(data)?;
    let whole = (PROBE_BYTES * PROBE_COUNT) as u64;
    if rustix::fs::fallocate(&probe.file, rustix::fs::FallocateFlags::empty(), 0, whole).is_err() {
        probe.file.set_len(whole)?;
    }
    probe.file.sync_all()?;
    let begun = Instant::now();
    let mut times = Vec::with_capacity(PROBE_COUNT);
    for index in 0..PROBE_COUNT {
        let bytes = [index as u8 | 1; PROBE_BYTES];
        let now = Instant::now();
        probe.file.write_all_at(&bytes, (index * PROBE_BYTES) as u64)?;
        probe.file.sync_data()?;
        times.push(u64::try_from(now.elapsed().as_micros()).unwrap_or(u64::MAX));
        if begun.elapsed().as_micros() > PROBE_US_MAX {
            break;
        }
    }
    times.sort_unstable();
    Ok(times)
}

fn sync_times(times: &[u64]) -> Finding {
    let of_hundred =
        |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1)).copied().unwrap_or(0);
    let (p50, p99) = (of_hundred(50), of_hundred(99));
    let found = format!("p50 {p50} us, p99 {p99} us, over {} appends of {PROBE_BYTES} bytes", times.len());
    if p50 > SLOW_P50_US || p99 > SLOW_P99_US {
        let todo = "Every answer waits for one: use a local SSD, or look for who else writes to this disk.";
        return Finding::warning("sync", found, todo);
    }
    if p50 < DOUBTFUL_P50_US {
        let todo = "No disk is that fast: see whether syncs reach one, or whether the ledger lies in memory.";
        return Finding::warning("sync", found, todo);
    }
    Finding::ok("sync", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_is_told() {
        for (kind, verdict) in [(0xEF53, Verdict::Ok), (0x0102_1994, Verdict::Warning), (0x6969, Verdict::Warning)] {
            assert_eq!(file_system(kind).verdict, verdict, "{kind:#x}");
        }
    }

    #[test]
    fn room_is_judged_by_what_is_left_and_by_its_share() {
        const GIB: u64 = 1 << 30;
        let table = [
            (100 << 20, 10 * GIB, Verdict::Failure),
            (GIB, 10 * GIB, Verdict::Warning),
            (9 * GIB, 200 * GIB, Verdict::Warning),
            (11 * GIB, 200 * GIB, Verdict::Ok),
        ];
        for (left, total, verdict) in table {
            assert_eq!(free(left, total).verdict, verdict, "{left} of {total}");
        }
    }

    #[test]
    fn times_are_judged_by_their_middle_and_their_end() {
        let mut times = vec![300; 100];
        assert_eq!(sync_times(&times).verdict, Verdict::Ok);
        times[99] = 300_000;
        let slow = sync_times(&times);
        assert_eq!((slow.verdict, slow.found.contains("p50 300 us, p99 300000 us")), (Verdict::Warning, true));
        assert_eq!(sync_times(&[1; 100]).verdict, Verdict::Warning);
    }

    #[test]
    fn the_measure_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(measure(directory.path()).unwrap().len(), PROBE_COUNT);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
