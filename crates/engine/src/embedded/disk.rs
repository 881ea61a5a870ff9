//! The medium below the embedded store: a flat directory of files, and the few calls the store makes.
//!
//! Everything above this trait is the same code on a real disk and on a simulated one. Assumptions about the
//! medium are in `docs/format.md`, "The medium". What this module does not do: buffering, checksums, retries.
//! A call that fails is never tried again by anybody; the store is poisoned instead.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A directory of files.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file that exists, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Creates an empty file; an error if there is one. Lasting only after [`Disk::sync_directory`].
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// The names of all files, in order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Renames a file, replacing the one that had the new name. Lasting only after [`Disk::sync_directory`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Lasting only after [`Disk::sync_directory`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes what was created, renamed and removed so far lasting.
    fn sync_directory(&self) -> io::Result<()>;
    /// The directory, for messages.
    fn path(&self) -> &Path;
}

/// A file of a [`Disk`].
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads into the whole buffer if the file is long enough, and otherwise up to its end; gives the count of
    /// bytes read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes the whole buffer; grows the file if need be. Lasting only after [`DiskFile::sync`].
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all that was written lasting, with the file's length.
    fn sync(&self) -> io::Result<()>;
    /// The file's length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Cuts the file, or lengthens it with zeros. Lasting only after [`DiskFile::sync`].
    fn set_length(&self, bytes: u64) -> io::Result<()>;
    /// Reserves room for the file up to `bytes`, and lengthens it with zeros. An error here is known before
    /// anything is written.
    fn reserve(&self, bytes: u64) -> io::Result<()>;
}

/// The name of the file whose lock says that the directory is in use.
pub const LOCK_NAME: &str = "lock";

/// A directory of a real file system, locked for one process as long as this value lives.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
    handle: File,
    _lock: FileLock,
}

/// Why a directory or a file could not be had.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it.
    InUse,
    /// It could not be opened or created.
    Io(io::Error),
}

impl RealDisk {
    /// Opens the directory and locks it. It must exist, unless `create` says to make it.
    pub fn open(directory: &Path, create: bool) -> Result<Self, LockError> {
        if create {
            create_lasting(directory).map_err(LockError::Io)?;
        }
        let handle = File::open(directory).map_err(LockError::Io)?;
        let mut options = OpenOptions::new();
        let lock = FileLock::take(options.create(true).truncate(false).write(true), &directory.join(LOCK_NAME))?;
        Ok(Self { directory: directory.to_owned(), handle, _lock: lock })
    }
}

/// A lock of one process on a file, as long as this value lives. A process that ends, however it ends, lets go of it.
#[derive(Debug)]
pub struct FileLock(File);

impl FileLock {
    /// Opens the file in this way and locks it, or says at once that another has it.
    pub fn take(options: &OpenOptions, path: &Path) -> Result<Self, LockError> {
        let file = options.open(path).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse),
            Err(TryLockError::Error(error)) => Err(LockError::Io(error)),
        }
    }
}

impl Drop for FileLock {
    /// Closing alone would not do: a child that any thread of the process starts shares the open file until it runs its
    /// own program, and whoever opened the directory again meanwhile would be told that it is in use.
    fn drop(&mut self) {
        // An error would mean that there is nothing to let go of.
        drop(self.0.unlock());
    }
}

/// Makes a directory, and those above it that are missing, so that they are there after a crash.
///
/// From the top, each name synced before anything is made below it: wherever an earlier attempt was interrupted,
/// the deepest directory that is there is the only one whose name may not be durable yet.
fn create_lasting(directory: &Path) -> io::Result<()> {
    let parent = match directory.parent() {
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    let sync_parent = || File::open(parent)?.sync_all();
    if directory.is_dir() {
        return match sync_parent() {
            // A parent that may not be read, or has nothing to sync: what is in it is the system's business.
            Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) => {
                Ok(())
            }
            synced => synced,
        };
    }
    create_lasting(parent)?;
    match create_private(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
        created => created?,
    }
    sync_parent()
}

/// Creates a directory that nobody but its owner reads: who has a ledger's files has its customers' names and money.
fn create_private(directory: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

impl Disk for RealDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.directory.join(name))?;
        Ok(Box::new(RealFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.directory.join(name);
        Ok(Box::new(RealFile(OpenOptions::new().read(true).write(true).create_new(true).open(path)?)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list_files(&self.directory)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.directory.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn path(&self) -> &Path {
        &self.directory
    }
}

/// A directory of a real file system that is only read, whoever owns it: nothing is locked, created or changed.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    directory: PathBuf,
}

impl ReadOnlyDisk {
    /// Reads this directory.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnlyDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(File::open(self.directory.join(name))?)))
    }

    fn create(&self, _name: &str) -> io::Result<Box<dyn DiskFile>> {
        read_only()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list_files(&self.directory)
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        read_only()
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        read_only()
    }

    fn sync_directory(&self) -> io::Result<()> {
        read_only()
    }

    fn path(&self) -> &Path {
        &self.directory
    }
}

fn list_files(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.extend(entry.file_name().into_string().ok().filter(|name| name != LOCK_NAME));
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            // A file system without fallocate: lengthen the file, and meet a full disk when it comes.
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(bytes),
            result => result.map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_once_its_owner_let_go_though_a_starting_child_still_shares_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK_NAME);
        let take = || FileLock::take(OpenOptions::new().create(true).truncate(false).write(true), &path);
        let owner = take().unwrap();
        assert!(matches!(take(), Err(LockError::InUse)));
        // What a child has between fork and exec.
        let shared = owner.0.try_clone().unwrap();
        drop(owner);
        let next = take().unwrap();
        drop(shared);
        assert!(matches!(take(), Err(LockError::InUse)));
        drop(next);
    }
}
