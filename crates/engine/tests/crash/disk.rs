//! A disk that loses what was not synced.
//!
//! Faults it injects: at a chosen call it stops, and every later call fails; at the crash that follows, of the
//! writes to each file since its last sync any subset of sectors is lost, a new length is kept or lost, and of the
//! directory's changes since its last sync any number is lost from the end. What it does not inject: errors that
//! the process survives, and damage at rest.

use bursar_engine::embedded::disk::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

pub(crate) const SECTOR_BYTES: usize = 512;

/// `SplitMix64`: small, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

#[derive(Clone, Debug, Default)]
struct Content {
    durable: Vec<u8>,
    now: Vec<u8>,
}

type Inode = u64;

#[derive(Clone, Debug)]
enum Change {
    Link(String, Inode),
    Unlink(String),
    Rename(String, String),
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<Inode, Content>,
    names: BTreeMap<String, Inode>,
    durable_names: BTreeMap<String, Inode>,
    changes: Vec<Change>,
    next_inode: Inode,
    call_count: u64,
    dies_at: Option<u64>,
}

impl State {
    fn call(&mut self) -> io::Result<()> {
        self.call_count += 1;
        if self.dies_at.is_some_and(|at| self.call_count >= at) {
            Err(io::Error::other("power is off"))
        } else {
            Ok(())
        }
    }
}

fn apply(names: &mut BTreeMap<String, Inode>, change: &Change) {
    match change {
        Change::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
        Change::Unlink(name) => drop(names.remove(name)),
        Change::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct CrashDisk(Arc<Mutex<State>>);

impl CrashDisk {
    /// Stops at the call with this number, counted from now.
    pub(crate) fn die_after(&self, calls: u64) {
        let mut state = self.0.lock().unwrap();
        state.dies_at = Some(state.call_count + calls);
    }

    pub(crate) fn is_dead(&self) -> bool {
        let state = self.0.lock().unwrap();
        state.dies_at.is_some_and(|at| state.call_count >= at)
    }

    /// What the next start finds.
    pub(crate) fn after_crash(&self, random: &mut Random) -> Self {
        let old = self.0.lock().unwrap();
        let mut names = old.durable_names.clone();
        let kept = random.below(old.changes.len() as u64 + 1) as usize;
        old.changes[..kept].iter().for_each(|change| apply(&mut names, change));
        let mut files = BTreeMap::new();
        for &inode in names.values() {
            let content = lose(&old.files[&inode], random);
            files.insert(inode, Content { durable: content.clone(), now: content });
        }
        let next_inode = old.next_inode;
        let durable_names = names.clone();
        Self(Arc::new(Mutex::new(State { files, names, durable_names, next_inode, ..State::default() })))
    }
}

/// Keeps any subset of the sectors that changed since the last sync.
fn lose(content: &Content, random: &mut Random) -> Vec<u8> {
    let Content { durable, now } = content;
    let keeps_length = random.below(2) == 0;
    let mut after = durable.clone();
    after.resize(if keeps_length { now.len() } else { durable.len() }, 0);
    // All, none, or any.
    let mood = random.below(4);
    let mut start = 0;
    while start < after.len() {
        let end = (start + SECTOR_BYTES).min(after.len());
        let keep = match mood {
            0 => true,
            1 => false,
            _ => random.below(2) == 0,
        };
        if keep && start < now.len() {
            let now_end = end.min(now.len());
            after[start..now_end].copy_from_slice(&now[start..now_end]);
            after[now_end..end].fill(0);
        }
        start = end;
    }
    after
}

impl Disk for CrashDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(CrashFile { disk: self.clone(), inode }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.next_inode += 1;
        let inode = state.next_inode;
        state.files.insert(inode, Content::default());
        state.names.insert(name.to_owned(), inode);
        state.changes.push(Change::Link(name.to_owned(), inode));
        Ok(Box::new(CrashFile { disk: self.clone(), inode }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        let change = Change::Rename(from.to_owned(), to.to_owned());
        apply(&mut state.names, &change);
        state.changes.push(change);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        if state.names.remove(name).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.changes.push(Change::Unlink(name.to_owned()));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        state.durable_names = state.names.clone();
        state.changes.clear();
        Ok(())
    }

    fn path(&self) -> &Path {
        Path::new("crash-disk")
    }
}

#[derive(Debug)]
struct CrashFile {
    disk: CrashDisk,
    inode: Inode,
}

impl CrashFile {
    fn with<T>(&self, act: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let mut state = self.disk.0.lock().unwrap();
        state.call()?;
        Ok(act(state.files.get_mut(&self.inode).unwrap()))
    }
}

impl DiskFile for CrashFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|content| {
            let from = content.now.get(offset as usize..).unwrap_or_default();
            let count = from.len().min(buffer.len());
            buffer[..count].copy_from_slice(&from[..count]);
            count
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let dies = {
            let state = self.disk.0.lock().unwrap();
            state.dies_at.is_some_and(|at| state.call_count + 1 == at)
        };
        // The write under way when the power goes may have come to the disk in part.
        if dies {
            let mut state = self.disk.0.lock().unwrap();
            let content = state.files.get_mut(&self.inode).unwrap();
            write(content, bytes, offset);
        }
        self.with(|content| write(content, bytes, offset))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|content| content.durable = content.now.clone())
    }

    fn length(&self) -> io::Result<u64> {
        self.with(|content| content.now.len() as u64)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.with(|content| content.now.resize(bytes as usize, 0))
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.with(|content| {
            let length = content.now.len().max(bytes as usize);
            content.now.resize(length, 0);
        })
    }
}

fn write(content: &mut Content, bytes: &[u8], offset: u64) {
    let end = offset as usize + bytes.len();
    if content.now.len() < end {
        content.now.resize(end, 0);
    }
    content.now[offset as usize..end].copy_from_slice(bytes);
}
