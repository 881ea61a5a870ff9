//! What lies on the medium of the test's file system: what is durable, what is there now, and what of the
//! difference a power cut leaves.
//!
//! Of a file, every sector is afterwards as it was at the last sync or as any write since left it, each sector for
//! itself; the length is that of the last sync or any since. What a cut of the file took away does not come back
//! once the cut itself is durable, and where a file was never written it reads as zero. Of a directory, any number
//! of the changes since its last sync is lost from the end. What this is not: damage at rest.

use super::Random;
use std::collections::BTreeMap;

const SECTOR_BYTES: usize = 512;

pub(crate) type Inode = u64;

/// The inode of the topmost directory.
pub(crate) const ROOT: Inode = 1;

/// What happened to a sector since the last sync.
#[derive(Clone, Debug)]
enum SectorChange {
    Written(Box<[u8; SECTOR_BYTES]>),
    /// The file's change of length of this number (from 1) left so many of its bytes.
    CutOff {
        number: usize,
        left: usize,
    },
}

/// A file's bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    durable: Vec<u8>,
    now: Vec<u8>,
    /// Every length since the last sync, in order.
    lengths: Vec<usize>,
    changes: BTreeMap<usize, Vec<SectorChange>>,
}

impl Content {
    fn durable(bytes: Vec<u8>) -> Self {
        Self { durable: bytes.clone(), now: bytes, ..Self::default() }
    }

    pub(crate) fn now(&self) -> &[u8] {
        &self.now
    }

    pub(crate) fn set_length(&mut self, length: usize) {
        let before = self.now.len();
        if length == before {
            return;
        }
        self.lengths.push(length);
        let number = self.lengths.len();
        for sector in length / SECTOR_BYTES..before.div_ceil(SECTOR_BYTES) {
            let left = length.saturating_sub(sector * SECTOR_BYTES);
            self.changes.entry(sector).or_default().push(SectorChange::CutOff { number, left });
        }
        self.now.resize(length, 0);
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.now.len() {
            self.set_length(end);
        }
        self.now[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let written = SectorChange::Written(Box::new(sector_of(&self.now, sector)));
            self.changes.entry(sector).or_default().push(written);
        }
    }

    pub(crate) fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        for sector in std::mem::take(&mut self.changes).into_keys() {
            let start = (sector * SECTOR_BYTES).min(self.now.len());
            let end = (start + SECTOR_BYTES).min(self.now.len());
            self.durable[start..end].copy_from_slice(&self.now[start..end]);
        }
        self.lengths.clear();
    }

    fn after_cut(&self, random: &mut Random) -> Vec<u8> {
        let count = self.lengths.len();
        let number = match random.below(4) {
            0 => 0,
            1 => random.below(count + 1),
            _ => count,
        };
        let length = number.checked_sub(1).map_or(self.durable.len(), |index| self.lengths[index]);
        let mut after = self.durable.clone();
        after.resize(length, 0);
        // Of the sectors' changes: all, none, or any.
        let mood = random.below(4);
        for (&sector, changes) in &self.changes {
            let start = sector * SECTOR_BYTES;
            let possible = possible_states(&sector_of(&self.durable, sector), changes, number);
            let chosen = match mood {
                0 => 0,
                1 => possible.len() - 1,
                _ => random.below(possible.len()),
            };
            if start < length {
                let end = (start + SECTOR_BYTES).min(length);
                after[start..end].copy_from_slice(&possible[chosen][..end - start]);
            }
        }
        after
    }
}

/// A sector with zeros behind the end.
fn sector_of(bytes: &[u8], sector: usize) -> [u8; SECTOR_BYTES] {
    let mut content = [0; SECTOR_BYTES];
    let start = (sector * SECTOR_BYTES).min(bytes.len());
    let end = (start + SECTOR_BYTES).min(bytes.len());
    content[..end - start].copy_from_slice(&bytes[start..end]);
    content
}

/// What a sector may hold, oldest first, if the file's changes of length up to `number` are durable.
fn possible_states(durable: &[u8; SECTOR_BYTES], changes: &[SectorChange], number: usize) -> Vec<[u8; SECTOR_BYTES]> {
    let mut possible = vec![*durable];
    for change in changes {
        match change {
            SectorChange::Written(content) => possible.push(**content),
            SectorChange::CutOff { number: cut, left } if *cut <= number => {
                for content in &mut possible {
                    content[*left..].fill(0);
                }
            }
            // What was written after the sector was given back went elsewhere.
            SectorChange::CutOff { left: 0, .. } => break,
            SectorChange::CutOff { .. } => {}
        }
    }
    possible
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, Inode),
    Unlink(String),
    Rename(String, String),
}

/// A directory's names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    durable: BTreeMap<String, Inode>,
    now: BTreeMap<String, Inode>,
    changes: Vec<NameChange>,
}

impl Names {
    fn durable(names: BTreeMap<String, Inode>) -> Self {
        Self { durable: names.clone(), now: names, changes: Vec::new() }
    }

    pub(crate) fn now(&self) -> &BTreeMap<String, Inode> {
        &self.now
    }

    pub(crate) fn link(&mut self, name: &str, inode: Inode) {
        self.change(NameChange::Link(name.to_owned(), inode));
    }

    pub(crate) fn unlink(&mut self, name: &str) {
        self.change(NameChange::Unlink(name.to_owned()));
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        self.change(NameChange::Rename(from.to_owned(), to.to_owned()));
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.now, &change);
        self.changes.push(change);
    }

    pub(crate) fn sync(&mut self) {
        if !self.changes.is_empty() {
            self.durable.clone_from(&self.now);
            self.changes.clear();
        }
    }

    fn after_cut(&self, random: &mut Random) -> BTreeMap<String, Inode> {
        let kept = random.below(self.changes.len() + 1);
        let mut names = self.durable.clone();
        self.changes[..kept].iter().for_each(|change| apply(&mut names, change));
        names
    }
}

fn apply(names: &mut BTreeMap<String, Inode>, change: &NameChange) {
    match change {
        NameChange::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
        NameChange::Unlink(name) => drop(names.remove(name)),
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    File(Content),
    Directory(Names),
}

/// Everything that is on the medium.
#[derive(Clone, Debug)]
pub(crate) struct Medium {
    pub(crate) nodes: BTreeMap<Inode, Node>,
    next_inode: Inode,
}

impl Medium {
    pub(crate) fn empty() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::Directory(Names::default()))]), next_inode: ROOT + 1 }
    }

    /// Makes all names durable, as file systems do that write down every change of a directory in one journal.
    pub(crate) fn sync_names(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::Directory(names) = node {
                names.sync();
            }
        }
    }

    pub(crate) fn add(&mut self, node: Node) -> Inode {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.nodes.insert(inode, node);
        inode
    }

    /// Falls back to what is durable and to as much of the rest as chance leaves.
    pub(crate) fn cut(&mut self, random: &mut Random) {
        self.replace_by(&self.clone(), Some(random));
    }

    /// Goes back to an earlier state in which all was durable.
    pub(crate) fn go_back(&mut self, earlier: &Self) {
        self.replace_by(earlier, None);
    }

    /// Inodes are new, so that nothing the kernel remembers of the old ones is taken for theirs.
    fn replace_by(&mut self, other: &Self, mut random: Option<&mut Random>) {
        self.nodes.clear();
        let root = self.copy(other, ROOT, &mut random);
        if let Some(node) = self.nodes.remove(&root) {
            self.nodes.insert(ROOT, node);
        }
    }

    fn copy(&mut self, other: &Self, inode: Inode, random: &mut Option<&mut Random>) -> Inode {
        let node = match &other.nodes[&inode] {
            Node::File(content) => Node::File(Content::durable(match random {
                Some(random) => content.after_cut(random),
                None => content.durable.clone(),
            })),
            Node::Directory(names) => {
                let names = match random {
                    Some(random) => names.after_cut(random),
                    None => names.durable.clone(),
                };
                let copied = names.into_iter().map(|(name, inode)| (name, self.copy(other, inode, random)));
                Node::Directory(Names::durable(copied.collect()))
            }
        };
        self.add(node)
    }
}

#[test]
fn a_cut_leaves_what_was_synced_and_anything_of_the_rest() {
    let mut random = Random(1);
    let mut content = Content::default();
    content.write(0, &[1; 1024]);
    content.sync();
    content.write(512, &[2; 512]);
    content.write(512, &[3; 1024]);
    let mut seen: Vec<Vec<u8>> = (0..400).map(|_| content.after_cut(&mut random)).collect();
    seen.sort();
    seen.dedup();
    assert!(seen.iter().all(|bytes| bytes[..512] == [1; 512]));
    let second = |byte| seen.iter().any(|bytes| bytes[512..1024] == [byte; 512]);
    assert!(second(1) && second(2) && second(3), "as it was, and after each write");
    assert!(seen.iter().any(|bytes| bytes.len() == 1024), "the old length");
    assert!(seen.iter().any(|bytes| bytes.len() == 1536 && bytes[1024..] == [0; 512]), "longer, and not written");
    content.sync();
    assert!((0..100).all(|_| content.after_cut(&mut random) == content.now));

    // What was cut away does not come back in a file that was lengthened afterwards.
    content.set_length(700);
    content.set_length(1536);
    let cut_and_lengthened = |bytes: &Vec<u8>| bytes.len() == 1536 && bytes[700..].iter().all(|&byte| byte == 0);
    let as_it_was = content.durable.clone();
    for _ in 0..200 {
        let bytes = content.after_cut(&mut random);
        assert!(bytes == as_it_was || bytes == as_it_was[..700] || cut_and_lengthened(&bytes));
    }
    content.sync();
    assert!(cut_and_lengthened(&content.durable));
}

#[test]
fn a_cut_loses_names_from_the_newest_on() {
    let mut random = Random(1);
    let mut names = Names::default();
    names.link("a", 2);
    names.sync();
    names.rename("a", "b");
    names.link("c", 3);
    let seen: std::collections::BTreeSet<Vec<String>> =
        (0..100).map(|_| names.after_cut(&mut random).into_keys().collect()).collect();
    let expected: [&[&str]; 3] = [&["a"], &["b"], &["b", "c"]];
    assert_eq!(seen, expected.iter().map(|names| names.iter().map(|&name| name.to_owned()).collect()).collect());
}
