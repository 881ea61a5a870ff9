//! A disk in memory that can fail, and that knows what would be left after a power cut.
//!
//! Faults injected: an error of the n-th call of a kind, once or from then on: reading, writing (half of the bytes
//! are written then), syncing (what was pending is lost, and yet still read, as from a page cache), reserving,
//! lengthening, creating, opening, renaming, removing, listing, syncing the directory. What was not synced is lost
//! in a power cut ([`FaultyDisk::after_power_cut`]) and kept by a kill ([`FaultyDisk::after_kill`]).
//! Not here: losing a part of what was not synced, torn sectors, damage at rest; see the simulator.

use bursar_engine::embedded::disk::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Open,
    Create,
    List,
    Rename,
    Remove,
    SyncDirectory,
    Read,
    Write,
    Sync,
    Length,
    SetLength,
    Reserve,
}

impl Call {
    pub const ALL: [Self; 12] = [
        Self::Open,
        Self::Create,
        Self::List,
        Self::Rename,
        Self::Remove,
        Self::SyncDirectory,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::Length,
        Self::SetLength,
        Self::Reserve,
    ];
}

/// The n-th call of a kind fails, counted from 0, and, if it lasts, all later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub call: Call,
    pub nth: u64,
    pub error: io::ErrorKind,
    pub lasts: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Debug, Default)]
struct File {
    current: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<Change>,
    /// A sync of this file has failed.
    sync_failed: bool,
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => {
            let end = offset + bytes.len();
            content.resize(content.len().max(end), 0);
            content[*offset..end].copy_from_slice(bytes);
        }
        Change::Length(length) => content.resize(*length, 0),
    }
}

#[derive(Clone, Debug, Default)]
struct World {
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    files: Vec<File>,
    counts: BTreeMap<Call, u64>,
    fault: Option<Fault>,
    hit_count: u64,
    /// A file was synced once more after its sync had failed.
    synced_again: bool,
}

impl World {
    fn call(&mut self, call: Call) -> io::Result<()> {
        let count = self.counts.entry(call).or_default();
        let nth = *count;
        *count += 1;
        match self.fault {
            Some(fault) if fault.call == call && (fault.nth == nth || (fault.lasts && nth > fault.nth)) => {
                self.hit_count += 1;
                Err(fault.error.into())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn change(&mut self, id: usize, change: Change) {
        apply(&mut self.files[id].current, &change);
        self.files[id].pending.push(change);
    }
}

#[derive(Clone, Debug, Default)]
pub struct FaultyDisk(Arc<Mutex<World>>);

impl FaultyDisk {
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Begins to count calls anew, and lets one of them fail.
    pub fn inject(&self, fault: Option<Fault>) {
        let mut world = self.lock();
        (world.fault, world.hit_count) = (fault, 0);
        world.counts.clear();
    }

    /// How many calls have failed.
    pub fn hit_count(&self) -> u64 {
        self.lock().hit_count
    }

    pub fn count(&self, call: Call) -> u64 {
        self.lock().counts.get(&call).copied().unwrap_or(0)
    }

    pub fn synced_again(&self) -> bool {
        self.lock().synced_again
    }

    /// The disk as the next process finds it after a kill: nothing is lost, also not what was not synced. No faults.
    pub fn after_kill(&self) -> Self {
        let world = self.lock();
        let files = world.files.iter().map(|file| File { sync_failed: false, ..file.clone() }).collect();
        let (names, synced_names) = (world.names.clone(), world.synced_names.clone());
        Self(Arc::new(Mutex::new(World { names, synced_names, files, ..World::default() })))
    }

    /// The disk after a power cut: everything that was not synced is lost. No faults.
    pub fn after_power_cut(&self) -> Self {
        let world = self.lock();
        let left = |file: &File| File { current: file.synced.clone(), synced: file.synced.clone(), ..File::default() };
        let files = world.files.iter().map(left).collect();
        let names = world.synced_names.clone();
        Self(Arc::new(Mutex::new(World { names: names.clone(), synced_names: names, files, ..World::default() })))
    }

    fn file(&self, id: usize) -> Box<dyn DiskFile> {
        Box::new(FaultyFile { world: self.0.clone(), id })
    }
}

impl Disk for FaultyDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.lock();
        world.call(Call::Open)?;
        let id = world.names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        drop(world);
        Ok(self.file(id))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.lock();
        world.call(Call::Create)?;
        if world.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = world.files.len();
        world.files.push(File::default());
        world.names.insert(name.to_owned(), id);
        drop(world);
        Ok(self.file(id))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut world = self.lock();
        world.call(Call::List)?;
        Ok(world.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.lock();
        world.call(Call::Rename)?;
        let id = world.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        world.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.lock();
        world.call(Call::Remove)?;
        world.names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut world = self.lock();
        world.call(Call::SyncDirectory)?;
        world.synced_names = world.names.clone();
        Ok(())
    }

    fn path(&self) -> &Path {
        Path::new("/a-disk-in-memory")
    }
}

#[derive(Debug)]
struct FaultyFile {
    world: Arc<Mutex<World>>,
    id: usize,
}

impl FaultyFile {
    fn lock(&self, call: Call) -> io::Result<MutexGuard<'_, World>> {
        let mut world = self.world.lock().unwrap();
        world.call(call)?;
        Ok(world)
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.lock(Call::Read)?;
        let content = &world.files[self.id].current;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.world.lock().unwrap();
        let called = world.call(Call::Write);
        let count = if called.is_ok() { bytes.len() } else { bytes.len() / 2 };
        world.change(self.id, Change::Write { offset: offset as usize, bytes: bytes[..count].to_vec() });
        called
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world.lock().unwrap();
        let called = world.call(Call::Sync);
        world.synced_again |= world.files[self.id].sync_failed;
        let file = &mut world.files[self.id];
        let pending = std::mem::take(&mut file.pending);
        if called.is_ok() {
            for change in &pending {
                apply(&mut file.synced, change);
            }
        } else {
            file.sync_failed = true;
        }
        called
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.lock(Call::Length)?.files[self.id].current.len() as u64)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.lock(Call::SetLength)?.change(self.id, Change::Length(bytes as usize));
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.lock(Call::Reserve)?;
        let length = world.files[self.id].current.len().max(bytes as usize);
        world.change(self.id, Change::Length(length));
        Ok(())
    }
}
