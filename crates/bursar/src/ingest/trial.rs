//! A trial: the same ledger, on a medium that reads the ledger's directory and writes elsewhere.
//!
//! Everything above the medium is the real store, so a dry run decides exactly what the real run would. Up to
//! its *cut* a file is read from the directory; from there on it lives in an unnamed temporary file, which the
//! system removes when the program ends, however it ends.

use bursar_engine::embedded::disk::{Disk, DiskFile, LockError, RealDisk};
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore};
use bursar_engine::store::StoreError;
use bursar_engine::{EngineError, Ledger, LedgerOptions};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks a ledger's directory for trials.
pub(crate) fn lock(directory: &Path) -> Result<Arc<RealDisk>, StoreError> {
    let path = directory.to_owned();
    match RealDisk::open(directory, false) {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(LockError::InUse) => Err(StoreError::InUse { path }),
        Err(LockError::Io(error)) => Err(StoreError::Io { doing: "open the directory", path, error: Arc::new(error) }),
    }
}

/// Opens a ledger on a trial medium of its own; several may stand on the same directory.
pub(crate) fn open(real: &Arc<RealDisk>, options: LedgerOptions) -> Result<Ledger, EngineError> {
    let store = Arc::new(open_store(real, EmbeddedOptions::default())?);
    Ledger::with_stores(store.config().clone(), store.clone(), store, options)
}

/// Opens the store alone: to read a directory in which nothing must change.
pub(crate) fn open_store(real: &Arc<RealDisk>, options: EmbeddedOptions) -> Result<EmbeddedStore, StoreError> {
    let disk = Arc::new(TrialDisk::new(real.clone())?);
    Ok(EmbeddedStore::open_on(disk, options)?.0)
}

/// The files by name: not opened yet, under the name that they have in the directory, or opened.
type Files = BTreeMap<String, Place>;

#[derive(Debug)]
enum Place {
    Untouched(String),
    Opened(Arc<TrialFile>),
}

#[derive(Debug)]
struct TrialDisk {
    real: Arc<RealDisk>,
    files: Mutex<Files>,
}

impl TrialDisk {
    fn new(real: Arc<RealDisk>) -> Result<Self, StoreError> {
        let names = real.list().map_err(|error| StoreError::Io {
            doing: "list the directory",
            path: real.path().to_owned(),
            error: Arc::new(error),
        })?;
        let files = names.into_iter().map(|name| (name.clone(), Place::Untouched(name))).collect();
        Ok(Self { real, files: Mutex::new(files) })
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Disk for TrialDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut files = self.lock();
        let place = files.get_mut(name).ok_or_else(not_found)?;
        let file = match place {
            Place::Opened(file) => file.clone(),
            Place::Untouched(real_name) => Arc::new(TrialFile::over(self.real.open(real_name)?)?),
        };
        *place = Place::Opened(file.clone());
        Ok(Box::new(Handle(file)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut files = self.lock();
        if files.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let file = Arc::new(TrialFile::default());
        files.insert(name.to_owned(), Place::Opened(file.clone()));
        Ok(Box::new(Handle(file)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.lock();
        let place = files.remove(from).ok_or_else(not_found)?;
        files.insert(to.to_owned(), place);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.lock().remove(name).map(drop).ok_or_else(not_found)
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self) -> &Path {
        self.real.path()
    }
}

/// A file, read from the directory up to its cut.
#[derive(Debug, Default)]
struct TrialFile {
    base: Option<Box<dyn DiskFile>>,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    /// What lies before is in the base, what lies behind in the temporary file, at the same offsets.
    cut: u64,
    length: u64,
    written: Option<File>,
}

impl Parts {
    fn written(&mut self) -> io::Result<&File> {
        if self.written.is_none() {
            let file = tempfile::tempfile()?;
            file.set_len(self.length)?;
            self.written = Some(file);
        }
        self.written.as_ref().ok_or_else(not_found)
    }
}

impl TrialFile {
    fn over(base: Box<dyn DiskFile>) -> io::Result<Self> {
        let length = base.length()?;
        Ok(Self { base: Some(base), parts: Mutex::new(Parts { cut: length, length, written: None }) })
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_base(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let count = self.base.as_ref().map_or(Ok(0), |base| base.read_at(buffer, offset))?;
        if count == buffer.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) }
    }

    /// Moves the cut down, so that everything from `offset` on can be written.
    fn cut_at(&self, parts: &mut Parts, offset: u64) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let (end, mut at) = (parts.cut, offset);
        while at < end {
            let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            self.read_base(&mut buffer[..count], at)?;
            parts.written()?.write_all_at(&buffer[..count], at)?;
            at += count as u64;
        }
        parts.cut = end.min(offset);
        Ok(())
    }
}

/// What the store holds of a file.
#[derive(Debug)]
struct Handle(Arc<TrialFile>);

impl DiskFile for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut parts = self.0.lock();
        let left = usize::try_from(parts.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        let in_base = usize::try_from(parts.cut.saturating_sub(offset)).unwrap_or(usize::MAX).min(count);
        let (base, written) = buffer[..count].split_at_mut(in_base);
        if !base.is_empty() {
            self.0.read_base(base, offset)?;
        }
        if !written.is_empty() {
            parts.written()?.read_exact_at(written, offset + in_base as u64)?;
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut parts = self.0.lock();
        self.0.cut_at(&mut parts, offset)?;
        parts.written()?.write_all_at(bytes, offset)?;
        parts.length = parts.length.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().length)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut parts = self.0.lock();
        if bytes != parts.length {
            parts.written()?.set_len(bytes)?;
            parts.cut = parts.cut.min(bytes);
            parts.length = bytes;
        }
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let length = self.length()?;
        if bytes > length { self.set_length(bytes) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_reads_the_directory_and_never_writes_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, b"0123456789").unwrap();
        let real = lock(directory.path()).unwrap();
        let disk = TrialDisk::new(real).unwrap();
        let file = disk.open("a").unwrap();
        let read = |offset: u64, count: usize| {
            let mut buffer = vec![0xff; count];
            let read = file.read_at(&mut buffer, offset).unwrap();
            buffer.truncate(read);
            buffer
        };
        assert_eq!(read(3, 4), b"3456");
        file.write_at(b"xy", 6).unwrap();
        assert_eq!(read(0, 20), b"012345xy89");
        file.set_length(4).unwrap();
        file.set_length(6).unwrap();
        assert_eq!(read(0, 20), b"0123\0\0");
        file.write_at(b"z", 8).unwrap();
        assert_eq!(read(2, 20), b"23\0\0\0\0z");
        file.reserve(12).unwrap();
        assert_eq!(file.length().unwrap(), 12);
        let again = disk.open("a").unwrap();
        assert_eq!(again.length().unwrap(), 12);

        disk.create("b.tmp").unwrap().write_at(b"new", 0).unwrap();
        assert!(disk.create("b.tmp").is_err());
        disk.rename("b.tmp", "a").unwrap();
        assert_eq!(disk.list().unwrap(), ["a"]);
        assert_eq!(disk.open("a").unwrap().length().unwrap(), 3);
        disk.remove("a").unwrap();
        assert!(disk.open("a").is_err());

        assert_eq!(std::fs::read(&path).unwrap(), b"0123456789");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "the file and the lock");
    }
}
