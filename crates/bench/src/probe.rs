//! The limits: what the machine does without any engine.
//!
//! A bare scan of a file, raw synced writes, and a pass of SHA-256. Each is a plain loop, so that it is hard to be
//! faster and easy to see that it does no more than it says.

use crate::contest::percentile;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

const READ_BYTES: usize = 256 << 10;
/// How far ahead of its end a growing file is given room at a time, as the journal does it.
const RESERVE_BYTES: u64 = 32 << 20;

/// What a bare scan found; so that nobody can leave it out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Newlines.
    pub(crate) line_count: u64,
    /// The sum of all runs of digits, modulo 2^64.
    pub(crate) sum: u64,
}

/// Reads a file and does the least that reading rows of numbers takes: finds the ends of lines and of numbers, and
/// makes numbers of digits.
pub(crate) fn scan(path: &Path) -> io::Result<Scanned> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; READ_BYTES];
    let (mut scanned, mut number) = (Scanned::default(), 0_u64);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(scanned);
        }
        for &byte in &buffer[..count] {
            let digit = byte.wrapping_sub(b'0');
            if digit < 10 {
                number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
            } else {
                scanned.sum = scanned.sum.wrapping_add(number);
                scanned.line_count += u64::from(byte == b'\n');
                number = 0;
            }
        }
    }
}

/// How a file is made ready before it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// It grows, with room reserved ahead of its end.
    Growing,
    /// It was written with zeros throughout and synced before; that takes no part in the measurement.
    Zeroed,
}

/// Writes chunks of these sizes one behind the other, each followed by `fdatasync`. Gives the seconds that took. The
/// file is removed.
pub(crate) fn append(path: &Path, chunks: &[u64], room: Room) -> io::Result<f64> {
    let total: u64 = chunks.iter().sum();
    let longest = chunks.iter().copied().max().unwrap_or(0) as usize;
    // Bytes that no file system could store as a hole or compress away.
    let mut random = crate::workload::Random::new(1);
    let bytes: Vec<u8> = (0..longest.div_ceil(8)).flat_map(|_| random.bits().to_le_bytes()).collect();
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    if room == Room::Zeroed {
        zero(&file, total)?;
    }
    let started = Instant::now();
    let (mut offset, mut reserved) = (0, 0);
    for &chunk in chunks {
        if room == Room::Growing && offset + chunk > reserved {
            reserved = offset + chunk + RESERVE_BYTES;
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, reserved)?;
        }
        file.write_all_at(&bytes[..chunk as usize], offset)?;
        file.sync_data()?;
        offset += chunk;
    }
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(seconds)
}

fn zero(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < bytes {
        let count = (bytes - offset).min(zeros.len() as u64);
        file.write_all_at(&zeros[..count as usize], offset)?;
        offset += count;
    }
    file.sync_all()
}

/// A zero-filled file, to be written in small pieces.
#[derive(Debug)]
pub(crate) struct SmallWrites {
    file: File,
    offset: u64,
}

impl SmallWrites {
    const FILE_BYTES: u64 = 32 << 20;

    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        zero(&file, Self::FILE_BYTES)?;
        Ok(Self { file, offset: 0 })
    }

    /// Writes so many bytes behind those written before, and waits for `fdatasync`. Adds each write's nanoseconds.
    pub(crate) fn sample(&mut self, count: u64, bytes: u64, samples: &mut Vec<u64>) -> io::Result<()> {
        let content = vec![0xa5; bytes as usize];
        for _ in 0..count {
            if self.offset + bytes > Self::FILE_BYTES {
                self.offset = 0;
            }
            let started = Instant::now();
            self.file.write_all_at(&content, self.offset)?;
            self.file.sync_data()?;
            samples.push(started.elapsed().as_nanos() as u64);
            self.offset += bytes;
        }
        Ok(())
    }
}

/// The median and the 99th percentile of samples in nanoseconds, as microseconds.
pub(crate) fn p50_p99_us(samples: &mut [u64]) -> (f64, f64) {
    (percentile(samples, 50) as f64 / 1e3, percentile(samples, 99) as f64 / 1e3)
}

/// Reads a file up to so many bytes, and hashes them on this thread. Gives how many there were.
pub(crate) fn sha256_file(path: &Path, bytes_max: u64) -> io::Result<u64> {
    let mut file = File::open(path)?.take(bytes_max);
    let mut buffer = vec![0; READ_BYTES];
    let mut hasher = Sha256::new();
    let mut byte_count = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            std::hint::black_box(hasher.finalize());
            return Ok(byte_count);
        }
        hasher.update(&buffer[..count]);
        byte_count += count as u64;
    }
}

/// Hashes so many bytes in memory. Gives the seconds that took.
pub(crate) fn sha256_seconds(byte_count: u64) -> f64 {
    let buffer = vec![0x5a; READ_BYTES];
    let started = Instant::now();
    let mut hasher = Sha256::new();
    let mut left = byte_count as usize;
    while left > 0 {
        let count = left.min(buffer.len());
        hasher.update(&buffer[..count]);
        left -= count;
    }
    std::hint::black_box(hasher.finalize());
    started.elapsed().as_secs_f64()
}

/// How many seconds of processor time this process has taken so far, all threads together. Unlike the time that has
/// passed, it hardly depends on who else uses the machine.
pub(crate) fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Asks the system to forget what it holds of a file in memory, so that the next reader reads the disk.
pub(crate) fn forget(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_scan_reads_every_digit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows");
        std::fs::write(&path, "type,client,tx,amount\ndeposit,7,12,1.5\nwithdrawal,70,3,0.25\n").unwrap();
        assert_eq!(scan(&path).unwrap(), Scanned { line_count: 3, sum: 7 + 12 + 1 + 5 + 70 + 3 + 25 });
        assert_eq!([100, 20].map(|most| sha256_file(&path, most).unwrap()), [60, 20]);
    }

    #[test]
    fn raw_writes_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("raw");
        for room in [Room::Growing, Room::Zeroed] {
            assert!(append(&path, &[10, 5000, 1], room).unwrap() > 0.0);
            assert!(!path.exists());
        }
        let mut small = SmallWrites::new(&path).unwrap();
        let mut samples = Vec::new();
        small.sample(3, 100, &mut samples).unwrap();
        assert_eq!((samples.len(), small.offset), (3, 300));
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes[..300].iter().all(|&byte| byte == 0xa5) && bytes[300..].iter().all(|&byte| byte == 0));
    }
}
