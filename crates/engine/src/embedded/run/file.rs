//! What the two kinds of run files have in common: the header, checked blocks and sections, and how a file
//! comes into being.
//!
//! ```text
//! header block | blocks of sorted entries ... | first keys of the blocks | filter
//! 4096 bytes   | 4096 bytes each              | in memory once opened   | in memory once opened
//! ```
//!
//! Every part ends in a checksum, and nothing is used before it was checked. The checksum of all parts but the
//! header is combined with a *seal*, which depends on the ledger, the kind of file, the journal positions and
//! the place in the file: a part that was written for another file or another place does not pass either.

use crate::embedded::codec::{Decoder, Malformed, crc32c};
use crate::embedded::disk::{Disk, DiskFile};
use crate::store::{Damage, StoreError};
use bursar_core::planted::{Planted, is_planted};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::filter::{FILTER_BLOCK_BYTES, Filter};

/// The bytes of a block, its checksum included.
pub(super) const BLOCK_BYTES: usize = 4096;
/// The bytes of a block before its checksum.
pub(super) const CONTENT_BYTES: usize = BLOCK_BYTES - CHECKSUM_BYTES;
/// A block as it is on disk.
pub(super) type Block = [u8; BLOCK_BYTES];
/// What the name of a file ends in while it is being written.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// Where the header has the count of entries.
pub(super) const ENTRY_COUNT_OFFSET: u64 = 48;

const CHECKSUM_BYTES: usize = 4;
const MAGIC: &[u8; 8] = b"bursar-i";
const VERSION: u32 = 1;
/// How much is written at a time.
const WRITE_BYTES: usize = 256 * 1024;

/// What a run file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Fingerprints of transaction ids, with journal positions.
    Transactions,
    /// Customer ids, with heads.
    Customers,
}

impl Kind {
    const fn number(self) -> u32 {
        match self {
            Self::Transactions => 1,
            Self::Customers => 2,
        }
    }

    /// The bytes of a block's first key in the section of first keys.
    const fn key_bytes(self) -> u64 {
        match self {
            Self::Transactions => 5,
            Self::Customers => 16,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Transactions => "an index of transactions",
            Self::Customers => "an index of customers",
        }
    }
}

/// Which ledger a run belongs to, and which part of its journal it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunInfo {
    /// The ledger's id.
    pub(crate) ledger: [u8; 16],
    /// The first journal position covered, in bytes from the journal's beginning.
    pub(crate) from: u64,
    /// The journal position behind the last one covered.
    pub(crate) to: u64,
}

/// The smallest and the largest of some ids, as their 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdRange {
    /// The smallest; the largest possible id where there is none.
    pub(crate) min: u128,
    /// The largest; 0 where there is none.
    pub(crate) max: u128,
}

impl IdRange {
    /// No ids.
    pub(crate) const EMPTY: Self = Self { min: u128::MAX, max: 0 };

    /// These ids and one more.
    pub(crate) fn with(self, id: u128) -> Self {
        Self { min: self.min.min(id), max: self.max.max(id) }
    }

    /// These ids and those.
    pub(crate) fn join(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// Whether the id lies between the smallest and the largest.
    pub(crate) const fn contains(self, id: u128) -> bool {
        self.min <= id && id <= self.max
    }
}

/// What the first block of a run file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) info: RunInfo,
    pub(super) ids: IdRange,
    pub(super) entry_count: u64,
    pub(super) block_count: u64,
    pub(super) filter_block_count: u64,
}

impl Header {
    fn encode(&self) -> Block {
        let mut out = Vec::with_capacity(BLOCK_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.kind.number().to_le_bytes());
        out.extend_from_slice(&self.info.ledger);
        for number in [self.info.from, self.info.to, self.entry_count, self.block_count, self.filter_block_count] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.ids.min.to_be_bytes());
        out.extend_from_slice(&self.ids.max.to_be_bytes());
        let mut block = [0; BLOCK_BYTES];
        for (byte, written) in block.iter_mut().zip(out) {
            *byte = written;
        }
        close(&mut block, 0);
        block
    }

    /// Reads what follows magic, version and kind.
    fn decode(kind: Kind, decoder: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let ledger = decoder.array()?;
        let (from, to) = (decoder.fixed_u64()?, decoder.fixed_u64()?);
        Ok(Self {
            kind,
            info: RunInfo { ledger, from, to },
            entry_count: decoder.fixed_u64()?,
            block_count: decoder.fixed_u64()?,
            filter_block_count: decoder.fixed_u64()?,
            ids: IdRange { min: u128::from_be_bytes(decoder.array()?), max: u128::from_be_bytes(decoder.array()?) },
        })
    }

    /// The bytes of the section of first keys, with its checksum.
    fn keys_bytes(&self) -> Option<u64> {
        self.block_count.checked_mul(self.kind.key_bytes())?.checked_add(CHECKSUM_BYTES as u64)
    }

    /// The bytes of the filter, with its checksum.
    fn filter_bytes(&self) -> Option<u64> {
        self.filter_block_count.checked_mul(FILTER_BLOCK_BYTES as u64)?.checked_add(CHECKSUM_BYTES as u64)
    }

    /// Where the section of first keys begins.
    fn keys_offset(&self) -> Option<u64> {
        self.block_count.checked_add(1)?.checked_mul(BLOCK_BYTES as u64)
    }

    /// The bytes of the whole file.
    fn file_bytes(&self) -> Option<u64> {
        self.keys_offset()?.checked_add(self.keys_bytes()?)?.checked_add(self.filter_bytes()?)
    }
}

/// What the checksum of the part at this place of the file is combined with.
pub(super) fn seal(kind: Kind, info: &RunInfo, offset: u64) -> u32 {
    let mut bytes = [0; 44];
    let (kind_bytes, rest) = bytes.split_at_mut(4);
    kind_bytes.copy_from_slice(&kind.number().to_le_bytes());
    let (ledger, rest) = rest.split_at_mut(16);
    ledger.copy_from_slice(&info.ledger);
    for (place, number) in rest.as_chunks_mut::<8>().0.iter_mut().zip([info.from, info.to, offset]) {
        *place = number.to_le_bytes();
    }
    crc32c(&bytes)
}

/// Puts the checksum at the end of a block.
fn close(block: &mut Block, seal: u32) {
    if let Some((content, checksum)) = block.split_last_chunk_mut::<CHECKSUM_BYTES>() {
        *checksum = (crc32c(content) ^ seal).to_le_bytes();
    }
}

/// The bytes before the checksum at the end, if it is right.
fn checked(bytes: &[u8], seal: u32) -> Option<&[u8]> {
    let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    let is_sound = crc32c(content) ^ seal == u32::from_le_bytes(*checksum);
    (is_sound || is_planted(Planted::IndexChecksumUnchecked)).then_some(content)
}

/// Makes a run file: blocks are appended, and [`RunWriter::finish`] gives the file its name.
#[derive(Debug)]
pub(super) struct RunWriter<'a> {
    disk: &'a dyn Disk,
    name: &'a str,
    temporary: String,
    file: Box<dyn DiskFile>,
    kind: Kind,
    info: RunInfo,
    /// What was appended and not written yet.
    buffer: Vec<u8>,
    /// Where the buffer belongs in the file.
    written_bytes: u64,
    block_count: u64,
    /// The first keys of the blocks, as they are stored.
    keys: Vec<u8>,
}

impl<'a> RunWriter<'a> {
    /// Begins a file under a temporary name. A file that has that name already was left behind by a crash and is
    /// removed.
    pub(super) fn new(disk: &'a dyn Disk, name: &'a str, kind: Kind, info: RunInfo) -> Result<Self, StoreError> {
        let temporary = format!("{name}{TEMPORARY_SUFFIX}");
        let file = match disk.create(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(&temporary).and_then(|()| disk.create(&temporary))
            }
            created => created,
        };
        let file = file.map_err(io_error("create an index file", disk.path().join(&temporary)))?;
        let mut buffer = Vec::with_capacity(WRITE_BYTES);
        // The header's place; it is written last.
        buffer.resize(BLOCK_BYTES, 0);
        let (written_bytes, block_count, keys) = (0, 0, Vec::new());
        let writer = Self { disk, name, temporary, file, kind, info, buffer, written_bytes, block_count, keys };
        if info.from > info.to {
            return Err(writer.misuse("the journal positions are in the wrong order"));
        }
        Ok(writer)
    }

    /// An error of the caller, who asks for a file that cannot be.
    pub(super) fn misuse(&self, what: &'static str) -> StoreError {
        misuse(self.disk, self.name, what)
    }

    fn path(&self) -> PathBuf {
        self.disk.path().join(&self.temporary)
    }

    fn offset(&self) -> u64 {
        self.written_bytes + self.buffer.len() as u64
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let room = WRITE_BYTES.saturating_sub(self.buffer.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() >= WRITE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let written = self.file.write_at(&self.buffer, self.written_bytes);
        written.map_err(io_error("write an index file", self.path()))?;
        self.written_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Appends a block with its checksum. `first_key` is its first key as it is stored.
    pub(super) fn block(&mut self, block: &mut Block, first_key: &[u8]) -> Result<(), StoreError> {
        close(block, seal(self.kind, &self.info, self.offset()));
        self.block_count += 1;
        self.keys.extend_from_slice(first_key);
        self.put(block)
    }

    fn section(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let seal = seal(self.kind, &self.info, self.offset());
        self.put(bytes)?;
        self.put(&(crc32c(bytes) ^ seal).to_le_bytes())
    }

    /// Appends the sections, writes the header, makes the file lasting, and only then gives it its name, which
    /// is made lasting too.
    pub(super) fn finish(mut self, entry_count: u64, ids: IdRange, filter: &Filter) -> Result<(), StoreError> {
        let filter_block_count = (filter.as_bytes().len() / FILTER_BLOCK_BYTES) as u64;
        let (kind, info, block_count) = (self.kind, self.info, self.block_count);
        let header = Header { kind, info, ids, entry_count, block_count, filter_block_count };
        let keys = std::mem::take(&mut self.keys);
        self.section(&keys)?;
        self.section(filter.as_bytes())?;
        self.flush()?;
        let sync = || if is_planted(Planted::IndexSyncLeftOut) { Ok(()) } else { self.file.sync() };
        let written = self.file.write_at(&header.encode(), 0).and_then(|()| sync());
        written.map_err(io_error("write an index file", self.path()))?;
        let renamed = self.disk.rename(&self.temporary, self.name).and_then(|()| self.disk.sync_directory());
        renamed.map_err(io_error("give an index file its name", self.path()))
    }
}

/// A run file that is open for reading.
#[derive(Debug)]
pub(super) struct RunFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    header: Header,
}

/// A run file just opened, with the sections that stay in memory.
pub(super) struct Opened {
    pub(super) file: RunFile,
    /// The first keys of the blocks, as they are stored.
    pub(super) keys: Vec<u8>,
    pub(super) filter: Filter,
}

impl RunFile {
    /// Opens a file and checks all of it but its blocks.
    pub(super) fn open(disk: &dyn Disk, name: &str, kind: Kind, ledger: &[u8; 16]) -> Result<Opened, StoreError> {
        let path = disk.path().join(name);
        let file = disk.open(name).map_err(io_error("open an index file", path.clone()))?;
        let mut block = [0; BLOCK_BYTES];
        read_exact(&*file, &path, &mut block, 0)?;
        let header = read_header(&block, &path, kind, ledger)?;
        let file = Self { file, path, header };
        let found_bytes = file.file.length().map_err(io_error("read an index file", file.path.clone()))?;
        if header.file_bytes() != Some(found_bytes) {
            return file.damaged(found_bytes, "the file has another length than its header says");
        }
        let keys_offset = header.keys_offset().unwrap_or(found_bytes);
        let keys = file.section(keys_offset, header.keys_bytes(), "the section of first keys")?;
        let filter_offset = keys_offset.saturating_add(keys.len() as u64 + CHECKSUM_BYTES as u64);
        let filter = file.section(filter_offset, header.filter_bytes(), "the filter")?;
        match Filter::from_bytes(filter) {
            Some(filter) => Ok(Opened { file, keys, filter }),
            None => file.damaged(filter_offset, "the filter is empty"),
        }
    }

    /// Reads a section and checks it; gives it without its checksum.
    fn section(&self, offset: u64, bytes: Option<u64>, what: &str) -> Result<Vec<u8>, StoreError> {
        let Some(length) = bytes.and_then(|bytes| usize::try_from(bytes).ok()) else {
            return self.damaged(offset, format!("{what} is too long"));
        };
        let mut section = vec![0; length];
        self.read(&mut section, offset)?;
        let Some(content) = checked(&section, seal(self.header.kind, &self.header.info, offset)) else {
            return self.damaged(offset, format!("the checksum of {what} is wrong"));
        };
        let content_bytes = content.len();
        section.truncate(content_bytes);
        Ok(section)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
        read_exact(&*self.file, &self.path, buffer, offset)
    }

    pub(super) const fn header(&self) -> &Header {
        &self.header
    }

    /// The bytes of the whole file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.header.file_bytes().unwrap_or(u64::MAX)
    }

    /// Where the block with this index begins in the file.
    pub(super) const fn block_offset(index: usize) -> u64 {
        (index as u64 + 1) * BLOCK_BYTES as u64
    }

    /// Reads the block with this index and checks it.
    pub(super) fn read_block(&self, index: usize, block: &mut Block) -> Result<(), StoreError> {
        let offset = Self::block_offset(index);
        self.read(block, offset)?;
        match checked(block, seal(self.header.kind, &self.header.info, offset)) {
            Some(_) => Ok(()),
            None => self.damaged(offset, "the checksum of a block is wrong"),
        }
    }

    /// The error for damage at this place of the file.
    pub(super) fn damaged<T>(&self, offset: u64, what: impl Into<String>) -> Result<T, StoreError> {
        damaged(&self.path, offset, what)
    }
}

fn read_header(block: &Block, path: &Path, kind: Kind, ledger: &[u8; 16]) -> Result<Header, StoreError> {
    let Some(mut decoder) = block.strip_prefix(MAGIC).map(|rest| Decoder::new(rest, 0)) else {
        return damaged(path, 0, "this is no index file");
    };
    if checked(block, 0).is_none() {
        return damaged(path, 0, "the checksum of the header is wrong");
    }
    let short = |_: Malformed| -> StoreError { damage(path, 0, "the header is too short") };
    let version = decoder.fixed_u32().map_err(short)?;
    if version != VERSION {
        return Err(StoreError::Version { path: path.to_owned(), found: version, known: VERSION });
    }
    if decoder.fixed_u32().map_err(short)? != kind.number() {
        return damaged(path, 12, format!("this is not {}", kind.name()));
    }
    let header = Header::decode(kind, &mut decoder).map_err(short)?;
    if header.info.ledger != *ledger {
        return damaged(path, 16, "the file belongs to another ledger");
    }
    if header.info.from > header.info.to {
        return damaged(path, 32, "the journal positions are in the wrong order");
    }
    Ok(header)
}

fn read_exact(file: &dyn DiskFile, path: &Path, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
    let count = file.read_at(buffer, offset).map_err(io_error("read an index file", path.to_owned()))?;
    if count < buffer.len() {
        return damaged(path, offset.saturating_add(count as u64), "the file ends too early");
    }
    Ok(())
}

fn damage(path: &Path, offset: u64, what: impl Into<String>) -> StoreError {
    StoreError::Damaged(Damage { path: path.to_owned(), offset, what: what.into() })
}

fn damaged<T>(path: &Path, offset: u64, what: impl Into<String>) -> Result<T, StoreError> {
    Err(damage(path, offset, what))
}

fn io_error(doing: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> StoreError {
    move |error| StoreError::Io { doing, path, error: Arc::new(error) }
}

/// An error of the caller, who asks for a file that cannot be.
pub(super) fn misuse(disk: &dyn Disk, name: &str, what: &'static str) -> StoreError {
    io_error("write an index file", disk.path().join(name))(io::Error::new(io::ErrorKind::InvalidInput, what))
}
