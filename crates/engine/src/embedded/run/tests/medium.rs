//! A disk in memory that notes the calls which change it and fails when told to; and how run files come into
//! being on it, and on a real one.

use super::*;
use crate::embedded::disk::{DiskFile, RealDisk};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

type Content = Arc<Mutex<Vec<u8>>>;

#[derive(Clone, Debug, Default)]
pub(super) struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Content>,
    /// The calls that changed something, the same call in a row only once.
    calls: Vec<String>,
    /// How many more of those calls succeed.
    calls_left: Option<usize>,
    read_count: usize,
}

impl MemoryDisk {
    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        self.0.lock().unwrap().files[name].lock().unwrap().clone()
    }

    pub(super) fn set_content(&self, name: &str, bytes: &[u8]) {
        self.0.lock().unwrap().files.insert(name.to_owned(), Arc::new(Mutex::new(bytes.to_vec())));
    }

    pub(super) fn read_count(&self) -> usize {
        self.0.lock().unwrap().read_count
    }

    fn note(&self, call: String) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if let Some(left) = &mut state.calls_left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("told to fail"))?;
        }
        if state.calls.last() != Some(&call) {
            state.calls.push(call);
        }
        Ok(())
    }

    fn take(&self, name: &str) -> io::Result<Content> {
        self.0.lock().unwrap().files.remove(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn handle(&self, name: &str, content: Content) -> Box<dyn DiskFile> {
        Box::new(MemoryFile { disk: self.clone(), name: name.to_owned(), content })
    }
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let content = self.0.lock().unwrap().files.get(name).cloned();
        Ok(self.handle(name, content.ok_or(io::ErrorKind::NotFound)?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        if self.list()?.iter().any(|existing| existing == name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.note(format!("create {name}"))?;
        let content = Content::default();
        self.0.lock().unwrap().files.insert(name.to_owned(), content.clone());
        Ok(self.handle(name, content))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().files.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.note(format!("rename {from} {to}"))?;
        let content = self.take(from)?;
        self.0.lock().unwrap().files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.note(format!("remove {name}"))?;
        self.take(name).map(drop)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.note("sync directory".to_owned())
    }

    fn path(&self) -> &Path {
        Path::new("/memory")
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    name: String,
    content: Content,
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.0.lock().unwrap().read_count += 1;
        let content = self.content.lock().unwrap();
        let rest = content.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.note(format!("write {}", self.name))?;
        let mut content = self.content.lock().unwrap();
        let end = offset as usize + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.note(format!("sync {}", self.name))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.content.lock().unwrap().len() as u64)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.content.lock().unwrap().resize(bytes as usize, 0);
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.set_length(bytes)
    }
}

#[test]
fn a_file_is_lasting_before_it_gets_its_name() {
    let disk = MemoryDisk::default();
    // What a crash left behind is longer than the new file.
    disk.set_content("run.tmp", &vec![0xff; 100_000]);
    transaction_run(&disk, "run", info(0, 10), vec![(1 << 40, 3)]);
    let expected =
        ["remove run.tmp", "create run.tmp", "write run.tmp", "sync run.tmp", "rename run.tmp run", "sync directory"];
    assert_eq!(disk.0.lock().unwrap().calls, expected);
    assert_eq!(disk.list().unwrap(), ["run"]);
}

#[test]
fn a_call_that_fails_is_reported_and_leaves_no_half_file() {
    let heads = [(1, head(1, 1), 5)];
    for calls_left in 0.. {
        let disk = MemoryDisk::default();
        disk.0.lock().unwrap().calls_left = Some(calls_left);
        let entries = heads.iter().map(|(id, head, position)| (CustomerId::new(*id), head.clone(), *position));
        let written = write_customers(&disk, "run", info(0, 10), entries.len(), entries);
        if disk.list().unwrap().iter().any(|name| name == "run") {
            let run = CustomerRun::open(&disk, "run", &LEDGER).unwrap();
            assert_eq!(all_customers(&run, None).unwrap(), heads);
        }
        if written.is_ok() {
            assert!(calls_left > 4);
            break;
        }
        assert!(matches!(written, Err(StoreError::Io { .. })), "{written:?}");
    }
}

#[test]
fn a_real_directory_works_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(directory.path(), false).unwrap();
    std::fs::write(directory.path().join("b.tmp"), b"left by a crash").unwrap();
    // Longer than what is written at a time.
    let entries: Vec<_> = (0..60_000u64).map(|number| (fingerprint(&LEDGER, number.into()), number)).collect();
    let old = transaction_run(&disk, "a", info(0, 30_000), entries[..30_000].to_vec());
    let new = transaction_run(&disk, "b", info(30_000, 60_000), entries[30_000..].to_vec());
    merge_transactions(&disk, "c", &[&old, &new]).unwrap();
    let merged = TransactionRun::open(&disk, "c", &LEDGER).unwrap();
    assert_eq!(disk.list().unwrap(), ["a", "b", "c"]);
    assert_eq!(merged.entry_count(), 60_000);
    for (hash, position) in entries.iter().step_by(97) {
        assert!(candidates(&merged, *hash).unwrap().contains(position));
    }

    let heads: Vec<_> = (0..2_000u64).map(|number| (u128::from(number) << 70, head(number, 2), number)).collect();
    let customers = customer_run(&disk, "d", info(0, 2_000), &heads);
    assert_eq!(all_customers(&customers, None).unwrap(), heads);
    assert!(matches!(CustomerRun::open(&disk, "e", &LEDGER), Err(StoreError::Io { .. })));
}
