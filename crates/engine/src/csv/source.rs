//! Where the bytes of a CSV file come from: a file or standard input, plain or compressed.
//!
//! A [`Source`] is a `Read` over the decompressed bytes. It knows nothing of rows; see [`super::RowReader`].
//! A compressed file that is cut off or damaged ends in an error, never in a silent end.

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many raw bytes are read at once for a decoder or a digest.
const CHUNK_BYTES: usize = 128 * 1024;

/// How the bytes of a source are packed, told from its first bytes and never from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Gzip (RFC 1952), one member or several.
    Gzip,
    /// Zstandard (RFC 8878), one frame or several.
    Zstd,
}

impl Compression {
    /// The name used in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// What identifies a source: the digest of its whole raw content, as it lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceDigest {
    /// SHA-256 of the raw bytes, still compressed.
    pub sha256: [u8; 32],
    /// How many raw bytes there were.
    pub raw_bytes: u64,
}

/// Why a source cannot be read. Each says which one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// It cannot be opened.
    Open {
        /// The source.
        name: String,
        /// What the operating system says.
        detail: String,
    },
    /// The operating system cannot read it, or not any further.
    Read {
        /// The source.
        name: String,
        /// How many decompressed bytes came before.
        offset: u64,
        /// What the operating system says.
        detail: String,
    },
    /// Its compressed data ends in the middle.
    CutOff {
        /// The source.
        name: String,
        /// How it is compressed.
        compression: Compression,
        /// How many decompressed bytes came before.
        offset: u64,
    },
    /// Its compressed data is damaged. Where a checksum shows that, it may be older bytes that are wrong.
    Damaged {
        /// The source.
        name: String,
        /// How it is compressed.
        compression: Compression,
        /// How many decompressed bytes came before.
        offset: u64,
        /// What the decoder says.
        detail: String,
    },
    /// Reading should go on at an offset behind its end.
    TooShort {
        /// The source.
        name: String,
        /// The decompressed offset asked for.
        offset: u64,
        /// How many decompressed bytes there are.
        len: u64,
    },
    /// Reading should go back, and this source cannot (standard input, a pipe).
    NotSeekable {
        /// The source.
        name: String,
    },
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { name, detail } => write!(f, "{name}: cannot be opened: {detail}"),
            Self::Read { name, offset, detail } => {
                write!(f, "{name}: cannot be read after byte {offset}: {detail}; everything before that was read")
            }
            Self::CutOff { name, compression, offset } => write!(
                f,
                "{name}: the {} data is cut off after {offset} decompressed bytes; everything before that was read",
                compression.name()
            ),
            Self::Damaged { name, compression, offset, detail } => write!(
                f,
                "{name}: the {} data is damaged after {offset} decompressed bytes ({detail}); \
                 everything before that was read",
                compression.name()
            ),
            Self::TooShort { name, offset, len } => {
                write!(f, "{name}: cannot go on at byte {offset}, since there are only {len}")
            }
            Self::NotSeekable { name } => write!(f, "{name}: cannot go back, since it is no regular file"),
        }
    }
}

impl std::error::Error for SourceError {}

impl From<SourceError> for io::Error {
    fn from(error: SourceError) -> Self {
        let kind = match &error {
            SourceError::Open { .. } | SourceError::Read { .. } => io::ErrorKind::Other,
            SourceError::CutOff { .. } | SourceError::TooShort { .. } => io::ErrorKind::UnexpectedEof,
            SourceError::Damaged { .. } => io::ErrorKind::InvalidData,
            SourceError::NotSeekable { .. } => io::ErrorKind::Unsupported,
        };
        Self::new(kind, error)
    }
}

/// The raw bytes, counted as they are read.
#[derive(Debug)]
struct Raw {
    input: Input,
    /// Bytes read to look at the magic, not yet given on.
    peeked: io::Cursor<Vec<u8>>,
    read: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Input {
    File(Arc<File>),
    Stdin(io::Stdin),
}

impl Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => (&**file).read(buffer),
            Self::Stdin(stdin) => stdin.read(buffer),
        }
    }
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.peeked.read(buffer)? {
            0 => self.input.read(buffer)?,
            count => count,
        };
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

enum Decoder {
    Plain(Raw),
    Gzip(Box<MultiGzDecoder<BufReader<Raw>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<Raw>>>),
}

impl Decoder {
    fn new(raw: Raw, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain(raw),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, raw)))),
            Compression::Zstd => Self::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(
                BufReader::with_capacity(CHUNK_BYTES, raw),
            )?)),
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(raw) => raw.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// A file or standard input, read as decompressed bytes.
pub struct Source {
    name: String,
    compression: Compression,
    decoder: Decoder,
    /// Only of a regular file: what can be read again from its beginning.
    file: Option<Arc<File>>,
    raw_read: Arc<AtomicU64>,
    raw_total: Option<u64>,
    /// Decompressed bytes given out so far.
    offset: u64,
    /// Once reading failed it stays failed: some decoders would report an end after an error.
    failure: Option<SourceError>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, compression, offset, raw_total, .. } = self;
        f.debug_struct("Source")
            .field("name", name)
            .field("compression", compression)
            .field("offset", offset)
            .field("raw_total", raw_total)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// Opens a file, or standard input where `path` is `-`, and looks at its first bytes.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        if path.as_os_str() == "-" {
            let name = "standard input".to_owned();
            return Self::build(name, Input::Stdin(io::stdin()), None, None);
        }
        Self::open_as(path, path.display().to_string())
    }

    /// Opens a file under a name of its own, for messages.
    pub fn open_as(path: &Path, name: String) -> Result<Self, SourceError> {
        let open_error = |error: io::Error| SourceError::Open { name: name.clone(), detail: error.to_string() };
        let file = Arc::new(File::open(path).map_err(open_error)?);
        let metadata = file.metadata().map_err(open_error)?;
        let regular = metadata.is_file().then(|| Arc::clone(&file));
        let raw_total = metadata.is_file().then_some(metadata.len());
        Self::build(name, Input::File(file), regular, raw_total)
    }

    fn build(
        name: String,
        mut input: Input,
        file: Option<Arc<File>>,
        raw_total: Option<u64>,
    ) -> Result<Self, SourceError> {
        let read_error =
            |error: io::Error| SourceError::Read { name: name.clone(), offset: 0, detail: error.to_string() };
        let peeked = peek(&mut input).map_err(read_error)?;
        let compression = Compression::of(&peeked);
        let raw_read = Arc::new(AtomicU64::new(0));
        let raw = Raw { input, peeked: io::Cursor::new(peeked), read: Arc::clone(&raw_read) };
        let decoder = Decoder::new(raw, compression).map_err(read_error)?;
        Ok(Self { name, compression, decoder, file, raw_read, raw_total, offset: 0, failure: None })
    }

    /// The path as given, or `standard input`: for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the source is compressed.
    pub const fn compression(&self) -> Compression {
        self.compression
    }

    /// A counter of the raw (compressed) bytes read so far, for a progress bar on another thread.
    ///
    /// It runs ahead of the rows by what is buffered, also runs while [`Source::digest`] reads, and starts
    /// again at the beginning behind that.
    pub fn raw_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.raw_read)
    }

    /// How many raw bytes there were when it was opened; known only of a regular file.
    pub const fn raw_total(&self) -> Option<u64> {
        self.raw_total
    }

    /// How many decompressed bytes were read, or skipped, so far.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether it can be read again from its beginning, so that an interrupted ingest can be continued.
    pub const fn is_seekable(&self) -> bool {
        self.file.is_some()
    }

    /// The digest of the whole raw content, in one pass and without holding it in memory. `None` of a source
    /// that can be read only once.
    ///
    /// Afterwards the source stands at its beginning, whatever was read of it before.
    pub fn digest(&mut self) -> Result<Option<SourceDigest>, SourceError> {
        let Some(file) = self.file.clone() else { return Ok(None) };
        self.rewind()?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut raw_bytes = 0;
        let mut seek = || -> io::Result<()> {
            (&*file).seek(SeekFrom::Start(0))?;
            loop {
                match (&*file).read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(count) => {
                        hasher.update(&buffer[..count]);
                        raw_bytes += count as u64;
                        self.raw_read.store(raw_bytes, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        };
        let read = seek();
        read.map_err(|error| self.read_error(&error))?;
        self.rewind()?;
        Ok(Some(SourceDigest { sha256: hasher.finalize().into(), raw_bytes }))
    }

    /// Goes on at a decompressed offset: by seeking in a plain file, otherwise by decompressing and discarding
    /// what lies before it. Going back is possible in a regular file only.
    pub fn skip_to(&mut self, offset: u64) -> Result<(), SourceError> {
        if offset < self.offset {
            self.rewind()?;
        }
        if let (Compression::None, Some(file)) = (self.compression, self.file.clone()) {
            let len = file.metadata().map_err(|error| self.read_error(&error))?.len();
            if offset > len {
                return Err(SourceError::TooShort { name: self.name.clone(), offset, len });
            }
            return self.restart_at(file, offset);
        }
        let mut buffer = vec![0; CHUNK_BYTES];
        while self.offset < offset {
            let wanted = usize::try_from(offset - self.offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            if self.read_latched(&mut buffer[..wanted])? == 0 {
                return Err(SourceError::TooShort { name: self.name.clone(), offset, len: self.offset });
            }
        }
        Ok(())
    }

    fn rewind(&mut self) -> Result<(), SourceError> {
        match self.file.clone() {
            Some(file) => self.restart_at(file, 0),
            None => Err(SourceError::NotSeekable { name: self.name.clone() }),
        }
    }

    /// Starts a new decoder at a raw offset.
    fn restart_at(&mut self, file: Arc<File>, raw_offset: u64) -> Result<(), SourceError> {
        (&*file).seek(SeekFrom::Start(raw_offset)).map_err(|error| self.read_error(&error))?;
        self.raw_read.store(raw_offset, Ordering::Relaxed);
        let raw = Raw { input: Input::File(file), peeked: io::Cursor::default(), read: Arc::clone(&self.raw_read) };
        self.decoder = Decoder::new(raw, self.compression).map_err(|error| self.read_error(&error))?;
        self.offset = raw_offset;
        self.failure = None;
        Ok(())
    }

    fn read_latched(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        loop {
            match self.decoder.read(buffer) {
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let failure = self.read_error(&error);
                    self.failure = Some(failure.clone());
                    return Err(failure);
                }
            }
        }
    }

    /// Tells a failing disk from bad compressed data: only the first has a number of the operating system.
    fn read_error(&self, error: &io::Error) -> SourceError {
        let (name, compression, offset) = (self.name.clone(), self.compression, self.offset);
        if compression == Compression::None || error.raw_os_error().is_some() {
            SourceError::Read { name, offset, detail: error.to_string() }
        } else if error.kind() == io::ErrorKind::UnexpectedEof {
            SourceError::CutOff { name, compression, offset }
        } else {
            SourceError::Damaged { name, compression, offset, detail: error.to_string() }
        }
    }
}

impl Read for Source {
    /// Errors are [`SourceError`]s inside an `io::Error`; they repeat on every further call.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_latched(buffer)?)
    }
}

/// The first bytes, as many as tell the compression: a pipe may give fewer at a time.
fn peek(input: &mut Input) -> io::Result<Vec<u8>> {
    let mut magic = [0; 4];
    let mut filled = 0;
    while filled < magic.len() {
        match input.read(&mut magic[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(magic[..filled].to_vec())
}
