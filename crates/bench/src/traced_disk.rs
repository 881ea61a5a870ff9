//! A real directory that notes what a store asks of it: the journal's synced writes, other bytes, bytes read.
//!
//! It passes every call on, and costs an addition per call. So the raw append beside it can write the same bytes in
//! the same pieces.

use bursar_engine::embedded::disk::{Disk, DiskFile, LockError, RealDisk};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was asked of a directory.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// For each sync of the journal that had something to do, how many bytes were written since the one before.
    journal_chunks: Mutex<Vec<u64>>,
    other_written: AtomicU64,
    read: AtomicU64,
}

impl Trace {
    fn chunks(&self) -> MutexGuard<'_, Vec<u64>> {
        self.journal_chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sizes of the journal's synced writes, in order.
    pub(crate) fn journal_chunks(&self) -> Vec<u64> {
        self.chunks().clone()
    }

    /// Bytes written to anything but the journal.
    pub(crate) fn other_written(&self) -> u64 {
        self.other_written.load(Ordering::Relaxed)
    }

    /// Bytes read.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// A real directory with its trace.
#[derive(Debug)]
pub(crate) struct TracedDisk {
    real: RealDisk,
    trace: Arc<Trace>,
}

impl TracedDisk {
    /// Opens the directory and locks it.
    pub(crate) fn open(directory: &Path, create: bool) -> io::Result<(Arc<dyn Disk>, Arc<Trace>)> {
        let real = RealDisk::open(directory, create).map_err(|error| match error {
            LockError::InUse => io::Error::other("another process has the directory"),
            LockError::Io(error) => error,
        })?;
        let trace = Arc::new(Trace::default());
        Ok((Arc::new(Self { real, trace: trace.clone() }), trace))
    }

    fn traced(&self, name: &str, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let is_journal = name.starts_with("journal-");
        Box::new(TracedFile { file, is_journal, unsynced: AtomicU64::new(0), trace: self.trace.clone() })
    }
}

impl Disk for TracedDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.traced(name, self.real.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.traced(name, self.real.create(name)?))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.real.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.real.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.real.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.real.sync_directory()
    }

    fn path(&self) -> &Path {
        self.real.path()
    }
}

#[derive(Debug)]
struct TracedFile {
    file: Box<dyn DiskFile>,
    is_journal: bool,
    unsynced: AtomicU64,
    trace: Arc<Trace>,
}

impl DiskFile for TracedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = self.file.read_at(buffer, offset)?;
        self.trace.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let written = if self.is_journal { &self.unsynced } else { &self.trace.other_written };
        written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let chunk = self.unsynced.swap(0, Ordering::Relaxed);
        if chunk > 0 {
            self.trace.chunks().push(chunk);
        }
        self.file.sync()
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.file.set_length(bytes)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.file.reserve(bytes)
    }
}
