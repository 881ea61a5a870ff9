//! A file system that loses at a power cut what was not synced, below real processes with real system calls.
//!
//! It is mounted by FUSE. The kernel keeps nothing back: files are read and written directly, names and attributes
//! are asked for each time. The power goes at a chosen call; whoever calls from then on gets no answer, until the
//! process was killed. What the medium holds afterwards is said in [`super::medium`]. On purpose it can also lie
//! (a sync says yes, and nothing is durable) and be full.
//!
//! A directory's names are durable once it is synced itself; or, where that is asked for, with the sync of any file, as
//! on ext4 and XFS, whose journal has the changes of names in the order in which they were made.
//!
//! What it does not have, since nobody here needs it: links, permissions, times.

use super::Random;
use super::medium::{Content, Inode, Medium, Names, Node};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// Which syncs say yes and do nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lies {
    pub(crate) files: bool,
    pub(crate) directories: bool,
    /// They begin after so many power cuts of a ledger at which there was something to lose.
    pub(crate) after_cuts: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// It has gone, and calls wait until the callers are killed.
    Failing,
    /// Calls fail.
    Off,
}

#[derive(Debug)]
struct State {
    medium: Medium,
    power: Power,
    lies: Lies,
    /// With the sync of a file, all names are durable.
    names_with_files: bool,
    /// How many calls that change something, or sync, there were.
    call_count: usize,
    cut_at: Option<usize>,
    full_at: Option<usize>,
    was_full: bool,
}

impl State {
    fn file(&mut self, inode: INodeNo) -> Result<&mut Content, Errno> {
        match self.medium.nodes.get_mut(&inode.0) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Directory(_)) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn names(&mut self, inode: INodeNo) -> Result<&mut Names, Errno> {
        match self.medium.nodes.get_mut(&inode.0) {
            Some(Node::Directory(names)) => Ok(names),
            Some(Node::File(_)) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn attributes(&self, inode: Inode) -> Result<FileAttr, Errno> {
        let (kind, size) = match self.medium.nodes.get(&inode).ok_or(Errno::ENOENT)? {
            Node::File(content) => (FileType::RegularFile, content.now().len() as u64),
            Node::Directory(_) => (FileType::Directory, 0),
        };
        Ok(FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm: 0o777,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn sync(&mut self, inode: INodeNo) -> Result<(), Errno> {
        let lies = self.lies.files;
        let content = self.file(inode)?;
        if !lies {
            content.sync();
            if self.names_with_files {
                self.medium.sync_names();
            }
        }
        Ok(())
    }

    fn add(&mut self, parent: INodeNo, name: &OsStr, node: Node) -> Result<FileAttr, Errno> {
        let name = text(name)?;
        if self.names(parent)?.now().contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.take_room()?;
        let inode = self.medium.add(node);
        self.names(parent)?.link(name, inode);
        self.attributes(inode)
    }

    /// Whether there is room for what a call wants to add.
    fn take_room(&mut self) -> Result<(), Errno> {
        let is_full = self.full_at.is_some_and(|at| self.call_count >= at);
        self.was_full |= is_full;
        if is_full { Err(Errno::ENOSPC) } else { Ok(()) }
    }
}

fn text(name: &OsStr) -> Result<&str, Errno> {
    name.to_str().ok_or(Errno::EINVAL)
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look<T>(&self, work: impl FnOnce(&mut State) -> Result<T, Errno>) -> Result<T, Errno> {
        self.with_power(self.lock(), work)
    }

    fn change<T>(&self, work: impl FnOnce(&mut State) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut state = self.lock();
        state.call_count += 1;
        if state.cut_at.is_some_and(|at| state.call_count >= at) && state.power == Power::On {
            state.power = Power::Failing;
            self.changed.notify_all();
        }
        self.with_power(state, work)
    }

    fn with_power<T>(
        &self,
        state: MutexGuard<'_, State>,
        work: impl FnOnce(&mut State) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let is_failing = |state: &mut State| state.power == Power::Failing;
        let mut state = self.changed.wait_while(state, is_failing).unwrap_or_else(PoisonError::into_inner);
        if state.power == Power::Off { Err(Errno::EIO) } else { work(&mut state) }
    }

    fn set_power(&self, power: Power) {
        self.lock().power = power;
        self.changed.notify_all();
    }
}

/// Nothing that the kernel was told may be used twice.
const NOT_KEPT: Duration = Duration::ZERO;

struct Served(Arc<Shared>);

fn answer(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.0.look(|state| {
            let inode = *state.names(parent)?.now().get(text(name)?).ok_or(Errno::ENOENT)?;
            state.attributes(inode)
        });
        match found {
            Ok(attributes) => reply.entry(&NOT_KEPT, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.look(|state| state.attributes(inode.0)) {
            Ok(attributes) => reply.attr(&NOT_KEPT, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let done = self.0.change(|state| {
            if let Some(size) = size {
                let length = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
                if length > state.file(inode)?.now().len() {
                    state.take_room()?;
                }
                state.file(inode)?.set_length(length);
            }
            state.attributes(inode.0)
        });
        match done {
            Ok(attributes) => reply.attr(&NOT_KEPT, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        match self.0.change(|state| state.add(parent, name, Node::Directory(Names::default()))) {
            Ok(attributes) => reply.entry(&NOT_KEPT, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.0.change(|state| state.add(parent, name, Node::File(Content::default()))) {
            Ok(attributes) => {
                reply.created(&NOT_KEPT, &attributes, Generation(0), FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.0.change(|state| {
            let name = text(name)?;
            let names = state.names(parent)?;
            // The file stays for whoever has it open.
            if !names.now().contains_key(name) {
                return Err(Errno::ENOENT);
            }
            names.unlink(name);
            Ok(())
        });
        answer(done, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = self.0.change(|state| {
            if !flags.is_empty() {
                return Err(Errno::EINVAL);
            }
            let (name, new_name) = (text(name)?, text(new_name)?);
            let names = state.names(parent)?;
            let Some(&inode) = names.now().get(name) else { return Err(Errno::ENOENT) };
            if parent == new_parent {
                names.rename(name, new_name);
            } else {
                names.unlink(name);
                state.names(new_parent)?.link(new_name, inode);
            }
            Ok(())
        });
        answer(done, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.0.change(|state| {
            let name = text(name)?;
            let inode = *state.names(parent)?.now().get(name).ok_or(Errno::ENOENT)?;
            if !state.names(INodeNo(inode))?.now().is_empty() {
                return Err(Errno::ENOTEMPTY);
            }
            state.names(parent)?.unlink(name);
            Ok(())
        });
        answer(done, reply);
    }

    /// Plenty of room, whoever asks.
    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (blocks, files) = (1 << 24, 1 << 20);
        reply.statfs(blocks, blocks, blocks, files, files, 4096, 255, 4096);
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.look(|state| state.file(inode).map(drop)) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.0.look(|state| {
            let bytes = state.file(inode)?.now();
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let end = (start + size as usize).min(bytes.len());
            Ok(bytes[start..end].to_vec())
        });
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.0.change(|state| {
            let offset = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
            let was_full = state.was_full;
            let count = match state.take_room() {
                Ok(()) => data.len(),
                // The last room takes a part.
                Err(_) if !was_full && data.len() > 1 => data.len() / 2,
                Err(error) => return Err(error),
            };
            state.file(inode)?.write(offset, &data[..count]);
            // Nobody is told of a write to such a file before it is durable.
            if flags.0 & (rustix::fs::OFlags::DSYNC.bits().cast_signed()) != 0 {
                state.sync(inode)?;
            }
            Ok(count as u32)
        });
        match written {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = self.0.change(|state| {
            if mode != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            state.take_room()?;
            let end = usize::try_from(offset + length).map_err(|_| Errno::EFBIG)?;
            let content = state.file(inode)?;
            content.set_length(end.max(content.now().len()));
            Ok(())
        });
        answer(done, reply);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(self.0.change(|state| state.sync(inode)), reply);
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let done = self.0.change(|state| {
            let lies = state.lies.directories;
            let names = state.names(inode)?;
            if !lies {
                names.sync();
            }
            Ok(())
        });
        answer(done, reply);
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.0.look(|state| {
            let names: Vec<(String, Inode)> =
                state.names(inode)?.now().iter().map(|(name, &inode)| (name.clone(), inode)).collect();
            let kinds = names.into_iter().map(|(name, inode)| Ok((name, state.attributes(inode)?)));
            kinds.collect::<Result<Vec<_>, Errno>>()
        });
        match listed {
            Ok(list) => {
                for (index, (name, attributes)) in (0u64..).zip(&list).skip(offset as usize) {
                    if reply.add(attributes.ino, index + 1, attributes.kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }
}

/// How a process came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The power went, and it was killed.
    Cut,
    /// By itself.
    Exited(ExitStatus),
}

/// Waits until no other test of this process is under way. A process that another thread is just starting has, for
/// a moment, all that is open here, a ledger's lock with it.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file system, mounted. It goes with this value, and with the process.
#[derive(Debug)]
pub(crate) struct PowerDisk {
    shared: Arc<Shared>,
    root: Option<File>,
    session: Option<BackgroundSession>,
    is_detached: bool,
    _mount_point: TempDir,
    _only_one: MutexGuard<'static, ()>,
}

impl PowerDisk {
    /// Mounts it, empty. Waits until another of the same process is gone.
    pub(crate) fn mount() -> Self {
        let only_one = alone();
        let state = State {
            medium: Medium::empty(),
            power: Power::On,
            lies: Lies::default(),
            names_with_files: false,
            call_count: 0,
            cut_at: None,
            full_at: None,
            was_full: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let mount_point = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("power-cut".to_owned())];
        let mounted = fuser::spawn_mount(Served(shared.clone()), mount_point.path(), &config);
        let session = mounted.unwrap_or_else(|error| {
            panic!(
                "this test mounts a file system of its own, and that is refused: {error}. It needs /dev/fuse (the \
                 kernel's module `fuse`), which is {}, and the right to mount: to be root, or `fusermount3`",
                if Path::new("/dev/fuse").exists() { "there" } else { "missing" }
            )
        });
        let root = File::open(mount_point.path()).unwrap();
        // Taken out of the tree of files at once, it is reached through the open directory only, and is gone when
        // nobody has it open any more, even if this process is killed. Whoever may not do that (not root) has
        // `fusermount3` take it away in the end.
        let detached = rustix::mount::unmount(mount_point.path(), rustix::mount::UnmountFlags::DETACH);
        Self {
            shared,
            root: Some(root),
            session: Some(session),
            is_detached: detached.is_ok(),
            _mount_point: mount_point,
            _only_one: only_one,
        }
    }

    /// Where it can be reached, also by other processes.
    pub(crate) fn path(&self) -> PathBuf {
        let root = self.root.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        PathBuf::from(format!("/proc/{}/fd/{root}", std::process::id()))
    }

    /// An empty medium that tells the truth, with power and room.
    pub(crate) fn format(&self) {
        let mut state = self.shared.lock();
        state.medium.go_back(&Medium::empty());
        (state.lies, state.cut_at, state.full_at) = (Lies::default(), None, None);
    }

    pub(crate) fn lie(&self, lies: Lies) {
        self.shared.lock().lies = lies;
    }

    /// From the call with this number on, counted from now, there is no room; `None`: there is.
    pub(crate) fn full_after(&self, calls: Option<usize>) {
        let mut state = self.shared.lock();
        state.full_at = calls.map(|calls| state.call_count + calls);
        state.was_full = false;
    }

    /// Whether anybody was refused for lack of room.
    pub(crate) fn was_full(&self) -> bool {
        self.shared.lock().was_full
    }

    /// Runs a process; the power goes at the call with this number, if it comes so far.
    pub(crate) fn run_until_cut(&self, command: &mut Command, calls: usize) -> Ended {
        {
            let mut state = self.shared.lock();
            state.cut_at = Some(state.call_count + calls);
        }
        let mut running = Running { shared: &self.shared, child: command.spawn().unwrap() };
        loop {
            let state = self.shared.lock();
            let is_on = |state: &mut State| state.power == Power::On;
            let waited = self.shared.changed.wait_timeout_while(state, Duration::from_millis(1), is_on);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            if self.shared.lock().power != Power::On {
                return Ended::Cut;
            }
            if let Some(status) = running.child.try_wait().unwrap() {
                self.shared.lock().cut_at = None;
                return Ended::Exited(status);
            }
        }
    }

    /// Names are durable with the sync of any file, and not only with that of their directory.
    pub(crate) fn sync_names_with_files(&self) {
        self.shared.lock().names_with_files = true;
    }

    /// Lets the power go at the call with this number, counted from now, whoever makes it. It stays away until `restart`.
    pub(crate) fn cut_at(&self, calls: usize) {
        let mut state = self.shared.lock();
        state.cut_at = Some(state.call_count + calls);
    }

    /// Waits until the power is gone; `false`: it is there after this time.
    pub(crate) fn wait_for_cut(&self, within: Duration) -> bool {
        let is_on = |state: &mut State| state.power == Power::On;
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), within, is_on);
        waited.unwrap_or_else(PoisonError::into_inner).0.power != Power::On
    }

    /// Lets calls end that wait since the power went, so that processes that were killed can die. Nobody else may be
    /// there to hear of it.
    pub(crate) fn let_die(&self) {
        self.shared.set_power(Power::Off);
    }

    /// The process was killed, and the power stays: nothing is lost, and nothing more is durable.
    pub(crate) fn go_on(&self) {
        let mut state = self.shared.lock();
        (state.power, state.cut_at) = (Power::On, None);
    }

    /// The power comes back. Nobody may have anything open.
    pub(crate) fn restart(&self, random: &mut Random) {
        let mut state = self.shared.lock();
        state.medium.cut(random);
        (state.power, state.cut_at) = (Power::On, None);
    }

    /// Lets somebody look, and change what they like, right after a restart; then all is as it was.
    pub(crate) fn on_a_copy<T>(&self, look: impl FnOnce() -> T) -> T {
        let before = self.shared.lock().medium.clone();
        let seen = look();
        self.shared.lock().medium.go_back(&before);
        seen
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        self.shared.set_power(Power::Off);
        self.root = None;
        if let Some(session) = self.session.take() {
            let ended = if self.is_detached { session.join() } else { session.umount_and_join() };
            assert!(ended.is_ok() || std::thread::panicking(), "the file system did not end well: {ended:?}");
        }
    }
}

/// A process, killed with this value.
struct Running<'a> {
    shared: &'a Shared,
    child: Child,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // In this order: it must not hear that the power is off, and it can die only when its calls end.
        let killed = self.child.kill();
        let was_on = self.shared.lock().power == Power::On;
        if !was_on {
            self.shared.set_power(Power::Off);
        }
        let waited = self.child.wait();
        assert!((killed.is_ok() && waited.is_ok()) || std::thread::panicking(), "{killed:?} {waited:?}");
    }
}
