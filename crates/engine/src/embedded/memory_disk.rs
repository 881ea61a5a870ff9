//! A directory in memory: the medium of tests and of the simulator.
//!
//! It keeps what it is told, at once and for good; it injects no faults of its own. Its files can be read and
//! changed from outside, which is how tests damage them. Copies share nothing.

use super::disk::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Content = Arc<Mutex<Vec<u8>>>;

/// A directory of files in memory.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    files: Mutex<BTreeMap<String, Content>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryDisk {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// A directory with these files.
    pub fn with_files(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let files = files.into_iter().map(|(name, bytes)| (name, Arc::new(Mutex::new(bytes)))).collect();
        Self { files: Mutex::new(files) }
    }

    /// All files with their content, by name.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        lock(&self.files).iter().map(|(name, content)| (name.clone(), lock(content).clone())).collect()
    }

    /// A copy that shares nothing with this one.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self::with_files(self.files())
    }

    /// Replaces a file, or makes it. Whoever has the file open sees the new content.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        *lock(lock(&self.files).entry(name.to_owned()).or_default()) = bytes;
    }

    /// Changes a file in place; does nothing where there is none.
    pub fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        if let Some(content) = lock(&self.files).get(name) {
            edit(&mut lock(content));
        }
    }

    fn not_found(name: &str) -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, format!("there is no file {name}"))
    }
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let content = lock(&self.files).get(name).cloned().ok_or_else(|| Self::not_found(name))?;
        Ok(Box::new(MemoryFile(content)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut files = lock(&self.files);
        if files.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("there is a file {name} already")));
        }
        let content = Content::default();
        files.insert(name.to_owned(), content.clone());
        Ok(Box::new(MemoryFile(content)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.files).keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = lock(&self.files);
        let content = files.remove(from).ok_or_else(|| Self::not_found(from))?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.files).remove(name).map(drop).ok_or_else(|| Self::not_found(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self) -> &Path {
        Path::new("memory")
    }
}

#[derive(Debug)]
struct MemoryFile(Content);

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = lock(&self.0);
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut content = lock(&self.0);
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let end = offset.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        lock(&self.0).resize(usize::try_from(bytes).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        if self.length()? < bytes { self.set_length(bytes) } else { Ok(()) }
    }
}
