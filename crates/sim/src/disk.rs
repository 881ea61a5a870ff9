//! The simulated disk under the embedded store: a flat directory of files, a page cache, and every fault that disks
//! are known for.
//!
//! Each file has what the process sees (`now`: the page cache) and what the medium holds (`durable`), with the dirty
//! sectors between them.
//!
//! * A *power cut* keeps any subset of the dirty sectors, an old or a new length, and of the directory's changes a first
//!   part. A *kill* keeps the page cache; clean pages may be read from the medium again.
//! * A *failed sync* writes any subset of the dirty sectors and then counts all as clean: the process still reads what
//!   it wrote, a second sync says yes, and the medium does not have it.
//! * *Lost* and *misdirected* writes: a sync says yes, and one sector keeps what it held before; misdirected, it was
//!   written over another one. *Flips*: a bit of the medium changes at rest.
//! * Errors: reading, writing (a part is written), syncing, no space (lasts until there is room), creating, renaming,
//!   removing, listing. At any call the power can go.
//!
//! Faults are armed: the n-th call from then on that they fit is hit. What this module does not do: say what the
//! store must make of it; see [`crate::world`].

use crate::random::Random;
use crate::witness::Witness;
use bursar_engine::embedded::disk::{Disk, DiskFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The unit in which the medium writes.
const SECTOR_BYTES: usize = 512;

/// A fault that hits a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// The power goes: this call and all later ones fail.
    PowerOff,
    /// Reading fails.
    Read,
    /// Writing fails; a part may have been written.
    Write,
    /// There is no room any more, until some is made.
    NoSpace,
    /// Making a file durable fails; its dirty pages are gone.
    Sync,
    /// Making the directory durable fails.
    DirectorySync,
    /// Creating, opening, renaming, removing, listing, or changing a length fails.
    Other,
    /// A sync says yes, and one sector was not written.
    LostWrite,
    /// A sync says yes, and one sector was written in another one's place.
    MisdirectedWrite,
}

impl DiskFault {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::PowerOff,
        Self::Read,
        Self::Write,
        Self::NoSpace,
        Self::Sync,
        Self::DirectorySync,
        Self::Other,
        Self::LostWrite,
        Self::MisdirectedWrite,
    ];

    const fn fits(self, call: Call) -> bool {
        match self {
            Self::PowerOff => true,
            Self::Read => matches!(call, Call::Read),
            Self::Write => matches!(call, Call::Write),
            Self::NoSpace => matches!(call, Call::Write | Call::Reserve | Call::Create),
            Self::Sync | Self::LostWrite | Self::MisdirectedWrite => matches!(call, Call::Sync),
            Self::DirectorySync => matches!(call, Call::DirectorySync),
            Self::Other => matches!(call, Call::Create | Call::Other),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::PowerOff => "disk: the power goes at a call",
            Self::Read => "disk: reading fails",
            Self::Write => "disk: writing fails half-way",
            Self::NoSpace => "disk: no space",
            Self::Sync => "disk: a sync fails, its pages are gone",
            Self::DirectorySync => "disk: a sync of the directory fails",
            Self::Other => "disk: another call fails",
            Self::LostWrite => "disk: a synced sector was not written",
            Self::MisdirectedWrite => "disk: a synced sector was written elsewhere",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Read,
    Write,
    Sync,
    DirectorySync,
    Create,
    Reserve,
    Other,
}

#[derive(Clone, Debug, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// The lowest offset written since the last sync, and before each of the two last syncs.
    written_from: [usize; 3],
}

type Inode = u64;

#[derive(Clone, Debug)]
enum Change {
    Link(String, Inode),
    Unlink(String),
    Rename(String, String),
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

/// A sector of the medium that does not hold what was written there.
#[derive(Clone, Debug)]
struct Damage {
    inode: Inode,
    sector: usize,
    /// What the medium should hold there.
    right: Vec<u8>,
    /// The page cache has read it from there; then what the page cache should hold.
    cached: Option<Vec<u8>>,
    /// A bit was flipped; otherwise a sector holds something else as a whole.
    is_flip: bool,
}

#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a state of its own; none excludes another
struct State {
    files: BTreeMap<Inode, File>,
    names: BTreeMap<String, Inode>,
    durable_names: BTreeMap<String, Inode>,
    changes: Vec<Change>,
    next_inode: Inode,
    armed: Vec<(DiskFault, u64)>,
    damage: Vec<Damage>,
    is_off: bool,
    is_full: bool,
    is_paused: bool,
    /// A call has failed since the last restart.
    was_hit: bool,
    random: Random,
    witness: Witness,
}

/// A simulated disk. Copies are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

fn sector_range(sector: usize, length: usize) -> std::ops::Range<usize> {
    (sector * SECTOR_BYTES).min(length)..((sector + 1) * SECTOR_BYTES).min(length)
}

fn sectors(from: usize, to: usize) -> std::ops::Range<usize> {
    if from >= to { 0..0 } else { from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES) }
}

impl File {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        self.set_length(self.now.len().max(end));
        self.now[offset..end].copy_from_slice(bytes);
        self.dirty.extend(sectors(offset, end));
        self.written_from[0] = self.written_from[0].min(offset);
    }

    fn set_length(&mut self, length: usize) {
        let old = self.now.len();
        self.now.resize(length, 0);
        self.dirty.extend(sectors(old.min(length), old.max(length).max(self.durable.len())));
    }

    /// Brings a sector to the medium.
    fn store(&mut self, sector: usize) {
        let range = sector_range(sector, self.now.len());
        if self.durable.len() < range.end {
            self.durable.resize(range.end, 0);
        }
        let content = &self.now[range.clone()];
        self.durable[range].copy_from_slice(content);
    }

    fn stored(&self, sector: usize) -> Vec<u8> {
        self.durable[sector_range(sector, self.durable.len())].to_vec()
    }
}

impl State {
    /// Whether a call goes on; the armed fault that hits it otherwise.
    fn call(&mut self, call: Call) -> Result<(), DiskFault> {
        if self.is_paused {
            return Ok(());
        }
        if self.is_off {
            return Err(DiskFault::PowerOff);
        }
        let mut hit = None;
        for (fault, left) in self.armed.iter_mut().filter(|(fault, _)| fault.fits(call)) {
            if *left == 0 && hit.is_none() {
                hit = Some(*fault);
            }
            *left = left.saturating_sub(1);
        }
        let Some(fault) = hit else { return Ok(()) };
        self.armed.retain(|(armed, _)| *armed != fault);
        self.witness.count(fault.name());
        self.was_hit = true;
        self.is_off |= fault == DiskFault::PowerOff;
        self.is_full |= fault == DiskFault::NoSpace;
        Err(fault)
    }

    fn simple(&mut self, call: Call) -> io::Result<()> {
        self.call(call).map_err(error_of)
    }

    fn room(&mut self) -> io::Result<()> {
        if self.is_full && !self.is_paused {
            self.was_hit = true;
            self.witness.count("disk: still no space");
            return Err(error_of(DiskFault::NoSpace));
        }
        Ok(())
    }

    fn file(&mut self, inode: Inode) -> io::Result<&mut File> {
        self.files.get_mut(&inode).ok_or_else(|| io::Error::other("this file belongs to an earlier run"))
    }

    fn sync(&mut self, inode: Inode) -> io::Result<()> {
        let hit = self.call(Call::Sync).err();
        let mut random = self.random.clone();
        self.random.number();
        let file = self.file(inode)?;
        let dirty: Vec<usize> = std::mem::take(&mut file.dirty).into_iter().collect();
        let keep_all = match hit {
            None | Some(DiskFault::LostWrite | DiskFault::MisdirectedWrite) => true,
            Some(DiskFault::PowerOff) => {
                file.dirty.extend(dirty);
                return Err(error_of(DiskFault::PowerOff));
            }
            Some(_) => false,
        };
        if keep_all {
            file.durable.resize(file.now.len(), 0);
            file.written_from = [file.now.len(), file.written_from[0], file.written_from[1]];
        }
        let content = |file: &File, sector| file.now[sector_range(sector, file.now.len())].to_vec();
        let victim = dirty.get(random.place(dirty.len())).copied();
        let several = random.one_in(2);
        let mut victims: BTreeSet<usize> = BTreeSet::new();
        if hit == Some(DiskFault::LostWrite) && several {
            let all = random.one_in(2);
            victims.extend(dirty.iter().filter(|_| all || random.one_in(2)));
        } else if matches!(hit, Some(DiskFault::LostWrite | DiskFault::MisdirectedWrite)) {
            victims.extend(victim);
        }
        let mut stored = BTreeSet::new();
        for &sector in &dirty {
            if !victims.contains(&sector) && (keep_all || random.one_in(2)) {
                file.store(sector);
                stored.insert(sector);
            }
        }
        let lost: Vec<_> = victims.iter().map(|&sector| (sector, content(file, sector), file.stored(sector))).collect();
        self.written_back(inode, &stored);
        for (sector, content, wrong) in lost {
            let known = self.damage.iter_mut().find(|damage| (damage.inode, damage.sector) == (inode, sector));
            match known {
                Some(damage) => {
                    damage.right = damage.cached.clone().unwrap_or_else(|| content.clone());
                    damage.is_flip = false;
                }
                None if content == wrong => {}
                None => {
                    let right = content.clone();
                    self.damage.push(Damage { inode, sector, right, cached: None, is_flip: false });
                }
            }
            if hit == Some(DiskFault::MisdirectedWrite) {
                self.overwrite_any(inode, sector, &content, &mut random);
            }
        }
        match hit {
            None | Some(DiskFault::LostWrite | DiskFault::MisdirectedWrite) => Ok(()),
            Some(fault) => Err(error_of(fault)),
        }
    }

    /// A sector that was meant for elsewhere lands in the place of another one.
    fn overwrite_any(&mut self, inode: Inode, sector: usize, written: &[u8], random: &mut Random) {
        let targets: Vec<(Inode, usize)> = self
            .files
            .iter()
            .flat_map(|(&file, content)| sectors(0, content.durable.len()).map(move |target| (file, target)))
            .filter(|&target| target != (inode, sector))
            .filter(|&(file, target)| !self.damage.iter().any(|damage| (damage.inode, damage.sector) == (file, target)))
            .collect();
        let Some(&(target, place)) = targets.get(random.place(targets.len())) else { return };
        let Some(file) = self.files.get_mut(&target) else { return };
        let range = sector_range(place, file.durable.len());
        let right = file.durable[range.clone()].to_vec();
        let count = range.len().min(written.len());
        file.durable[range][..count].copy_from_slice(&written[..count]);
        if right != file.stored(place) {
            self.damage.push(Damage { inode: target, sector: place, right, cached: None, is_flip: false });
        }
    }

    /// The segments that may be the journal's last one after a loss of power, by how many of the directory's changes are
    /// left; and from where on nothing tells that each is durable.
    fn journal_tails(&self) -> Vec<(Inode, usize)> {
        let last = |names: &BTreeMap<String, Inode>| {
            let (_, &inode) = names.iter().rfind(|(name, _)| name.starts_with("journal-"))?;
            let from = self.files.get(&inode)?.written_from;
            Some((inode, from[2].min(from[1]).min(from[0])))
        };
        let mut names = self.durable_names.clone();
        let mut tails: Vec<_> = last(&names).into_iter().collect();
        for change in &self.changes {
            apply(&mut names, change);
            tails.extend(last(&names));
        }
        tails
    }

    /// What no store can notice is taken back: a frame at the journal's very end that was never written looks
    /// like one that was never asked for.
    fn take_back_unnoticeable(&mut self) {
        let tails = self.journal_tails();
        let (hidden, seen): (Vec<Damage>, Vec<Damage>) =
            std::mem::take(&mut self.damage).into_iter().partition(|damage| {
                // Where nothing should be, whatever is there shows.
                let hides = !damage.is_flip && damage.right.iter().any(|&byte| byte != 0);
                let end = (damage.sector + 1) * SECTOR_BYTES;
                hides && tails.iter().any(|&(tail, from)| damage.inode == tail && end > from)
            });
        self.damage = seen;
        for damage in &hidden {
            self.repair(damage);
        }
    }

    fn repair(&mut self, damage: &Damage) {
        let Some(file) = self.files.get_mut(&damage.inode) else { return };
        let put_back = |content: &mut Vec<u8>, right: &[u8]| {
            let range = sector_range(damage.sector, content.len());
            let count = range.len().min(right.len());
            content[range][..count].copy_from_slice(&right[..count]);
        };
        put_back(&mut file.durable, &damage.right);
        if let Some(right) = &damage.cached {
            put_back(&mut file.now, right);
        }
    }

    /// What is written over a damaged sector is right, wherever it is.
    fn patch(&mut self, inode: Inode, bytes: &[u8], offset: usize) {
        for damage in self.damage.iter_mut().filter(|damage| damage.inode == inode) {
            let start = damage.sector * SECTOR_BYTES;
            let Some(right) = &mut damage.cached else { continue };
            for (at, &byte) in (offset..).zip(bytes) {
                if (start..start + SECTOR_BYTES).contains(&at) {
                    right.resize(right.len().max(at - start + 1), 0);
                    right[at - start] = byte;
                }
            }
        }
    }

    /// Sectors of a file were written from the page cache: what it had read wrong is wrong again, all else is right.
    fn written_back(&mut self, inode: Inode, sectors: &BTreeSet<usize>) {
        self.damage.retain_mut(|damage| {
            if damage.inode != inode || !sectors.contains(&damage.sector) {
                return true;
            }
            match &damage.cached {
                Some(right) => damage.right.clone_from(right),
                None => return false,
            }
            true
        });
    }

    fn restart(&mut self) {
        self.armed.clear();
        self.is_off = false;
        self.was_hit = false;
    }
}

fn error_of(fault: DiskFault) -> io::Error {
    match fault {
        DiskFault::PowerOff => io::Error::other("the power is off"),
        DiskFault::NoSpace => io::Error::new(io::ErrorKind::StorageFull, "no space left on the simulated disk"),
        DiskFault::Read
        | DiskFault::Write
        | DiskFault::Sync
        | DiskFault::DirectorySync
        | DiskFault::Other
        | DiskFault::LostWrite
        | DiskFault::MisdirectedWrite => io::Error::other(fault.name()),
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new(witness: Witness) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            next_inode: 0,
            armed: Vec::new(),
            damage: Vec::new(),
            is_off: false,
            is_full: false,
            is_paused: false,
            was_hit: false,
            random: Random::of(0, 0),
            witness,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the disk its dice for what comes.
    pub fn roll(&self, random: &mut Random) {
        self.lock().random = Random::of(random.number(), 1);
    }

    /// The n-th call from now on that this fault fits is hit, counted from 0.
    pub fn arm(&self, fault: DiskFault, calls: u64) {
        self.lock().armed.push((fault, calls));
    }

    /// No fault is armed any more, and there is room.
    pub fn disarm(&self) {
        let mut state = self.lock();
        state.armed.clear();
        state.is_full = false;
    }

    /// Makes room.
    pub fn make_room(&self) {
        self.lock().is_full = false;
    }

    /// Lets someone look without being seen: no fault hits, none comes nearer.
    pub fn quietly<T>(&self, look: impl FnOnce() -> T) -> T {
        let was = std::mem::replace(&mut self.lock().is_paused, true);
        let seen = look();
        self.lock().is_paused = was;
        seen
    }

    /// Whether the power went at a call.
    pub fn is_off(&self) -> bool {
        self.lock().is_off
    }

    /// Whether an error of the store has a reason: a call has failed, or the medium is damaged.
    pub fn has_excuse(&self) -> bool {
        let state = self.lock();
        state.was_hit || state.is_off || state.is_full || !state.damage.is_empty()
    }

    /// Whether the medium does not hold what it should.
    pub fn is_damaged(&self) -> bool {
        !self.lock().damage.is_empty()
    }

    /// The power is cut, and comes back.
    pub fn power_cut(&self, random: &mut Random) {
        let mut state = self.lock();
        state.take_back_unnoticeable();
        let kept = random.place(state.changes.len() + 1);
        let mut names = state.durable_names.clone();
        for change in &state.changes[..kept] {
            apply(&mut names, change);
        }
        let mut files = std::mem::take(&mut state.files);
        for &inode in names.values() {
            let Some(mut file) = files.remove(&inode) else { continue };
            let stored = lose(&mut file, random);
            state.written_back(inode, &stored);
            state.files.insert(inode, file);
        }
        let State { files, damage, .. } = &mut *state;
        damage.retain_mut(|damage| {
            damage.cached = Some(damage.right.clone());
            files.get(&damage.inode).is_some_and(|file| damage.sector * SECTOR_BYTES < file.durable.len())
        });
        state.names.clone_from(&names);
        state.durable_names = names;
        state.changes.clear();
        state.restart();
    }

    /// The process is killed. The page cache stays, but clean pages may be read from the medium again.
    pub fn kill(&self, random: &mut Random) {
        let mut state = self.lock();
        if random.one_in(2) {
            state.take_back_unnoticeable();
            let State { files, damage, .. } = &mut *state;
            for (&inode, file) in files.iter_mut().filter(|_| random.one_in(2)) {
                for sector in sectors(0, file.now.len()) {
                    if file.dirty.contains(&sector) {
                        continue;
                    }
                    let mut read = file.stored(sector);
                    let range = sector_range(sector, file.now.len());
                    read.resize(range.len(), 0);
                    file.now[range].copy_from_slice(&read);
                    let here = |damage: &&mut Damage| (damage.inode, damage.sector) == (inode, sector);
                    for damage in damage.iter_mut().filter(here) {
                        damage.cached = Some(damage.right.clone());
                    }
                }
            }
        }
        state.restart();
    }

    /// Flips a bit of the medium. Gives whether there was one.
    pub fn flip_a_bit(&self, random: &mut Random) -> bool {
        let mut state = self.lock();
        let any = random.one_in(2);
        let is_index = |name: &str| name.starts_with("index-");
        let names = state.names.iter().filter(|(name, _)| any || is_index(name));
        let inodes: Vec<Inode> = names.map(|(_, inode)| *inode).collect();
        let Some(&inode) = inodes.get(random.place(inodes.len())) else { return false };
        let Some(file) = state.files.get(&inode) else { return false };
        if file.durable.is_empty() {
            return false;
        }
        let at = random.place(file.durable.len());
        let sector = at / SECTOR_BYTES;
        let right = file.stored(sector);
        let range = sector_range(sector, file.durable.len());
        let is_read = !file.dirty.contains(&sector) && file.now.get(range) == Some(&right[..]);
        let mask = 1 << random.below(8);
        if state.damage.iter().any(|damage| damage.inode == inode && damage.sector == sector) {
            return false;
        }
        let Some(file) = state.files.get_mut(&inode) else { return false };
        file.durable[at] ^= mask;
        if is_read {
            file.now[at] ^= mask;
        }
        let cached = is_read.then(|| right.clone());
        state.damage.push(Damage { inode, sector, right, cached, is_flip: true });
        state.witness.count("disk: a bit flips at rest");
        true
    }

    /// Puts back what was damaged, as from a mirror, where nobody has written over it.
    pub fn repair(&self) {
        let mut state = self.lock();
        for damage in std::mem::take(&mut state.damage) {
            state.repair(&damage);
        }
        state.was_hit = false;
    }

    fn handle(&self, inode: Inode) -> Box<dyn DiskFile> {
        Box::new(SimFile { disk: self.clone(), inode })
    }
}

/// Keeps any subset of what was not synced; gives which sectors were kept.
fn lose(file: &mut File, random: &mut Random) -> BTreeSet<usize> {
    let mut kept = BTreeSet::new();
    let dirty = std::mem::take(&mut file.dirty);
    let length = if random.one_in(2) { file.now.len() } else { file.durable.len() };
    // All, none, or any.
    let mood = random.below(4);
    for sector in dirty {
        let keep = match mood {
            0 => true,
            1 => false,
            _ => random.one_in(2),
        };
        if keep && sector * SECTOR_BYTES < file.now.len() {
            file.store(sector);
            kept.insert(sector);
        }
    }
    file.durable.resize(length, 0);
    file.now.clone_from(&file.durable);
    kept
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        state.simple(Call::Other)?;
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(inode))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        state.simple(Call::Create)?;
        state.room()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.next_inode += 1;
        let inode = state.next_inode;
        state.files.insert(inode, File::default());
        state.names.insert(name.to_owned(), inode);
        state.changes.push(Change::Link(name.to_owned(), inode));
        Ok(self.handle(inode))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        state.simple(Call::Other)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.simple(Call::Other)?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = Change::Rename(from.to_owned(), to.to_owned());
        apply(&mut state.names, &change);
        state.changes.push(change);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.simple(Call::Other)?;
        if state.names.remove(name).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.changes.push(Change::Unlink(name.to_owned()));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.simple(Call::DirectorySync)?;
        state.durable_names = state.names.clone();
        state.changes.clear();
        Ok(())
    }

    fn path(&self) -> &Path {
        Path::new("simulated")
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: Inode,
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.lock();
        state.simple(Call::Read)?;
        let file = state.file(self.inode)?;
        let from = file.now.get(offset as usize..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let was_off = state.is_off;
        let hit = state.call(Call::Write).err();
        let grows = state.file(self.inode)?.now.len() < offset as usize + bytes.len();
        let full = if grows && hit.is_none() { state.room().err() } else { None };
        // As `docs/format.md` assumes, "The medium": a write that fails ends at a multiple of eight bytes.
        let part = (offset as usize + state.random.place(bytes.len() + 1)) / 8 * 8;
        let part = part.saturating_sub(offset as usize);
        let written = match (hit, &full) {
            (None, None) => bytes.len(),
            // The write under way when the power goes may come to the disk as a whole, or in part.
            (Some(DiskFault::PowerOff), _) if was_off => 0,
            (Some(DiskFault::PowerOff), _) => bytes.len(),
            (Some(_), _) | (None, Some(_)) => part,
        };
        state.file(self.inode)?.write(&bytes[..written], offset as usize);
        state.patch(self.inode, &bytes[..written], offset as usize);
        match (hit, full) {
            (None, None) => Ok(()),
            (Some(fault), _) => Err(error_of(fault)),
            (None, Some(error)) => Err(error),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.lock().sync(self.inode)
    }

    fn length(&self) -> io::Result<u64> {
        let mut state = self.disk.lock();
        state.simple(Call::Other)?;
        Ok(state.file(self.inode)?.now.len() as u64)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.simple(Call::Other)?;
        state.file(self.inode)?.set_length(bytes as usize);
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.simple(Call::Reserve)?;
        let length = state.file(self.inode)?.now.len();
        if length < bytes as usize {
            state.room()?;
            state.file(self.inode)?.set_length(bytes as usize);
        }
        Ok(())
    }
}
