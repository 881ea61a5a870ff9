//! Sources: compression by magic bytes, several members, damage, digests, and going on in the middle.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_engine::core::{Currencies, Request};
use bursar_engine::csv::{Compression, Limits, OpenError, Position, RowBatch, RowReader, Source, SourceError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd_frame(text: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// A file of rows that compresses, but not to nothing.
fn rows_text(row_count: u64) -> Vec<u8> {
    let mut text = b"type,client,tx,amount\n".to_vec();
    for id in 0..row_count {
        let amount = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 100_000;
        writeln!(text, "deposit,{},{id},{}.{:02}", id % 977, amount / 100, amount % 100).unwrap();
    }
    text
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn open(path: &Path) -> Source {
    Source::open(path).unwrap()
}

fn source_error(error: &std::io::Error) -> SourceError {
    error.get_ref().and_then(|inner| inner.downcast_ref::<SourceError>()).unwrap().clone()
}

#[test]
fn compression_is_told_by_the_first_bytes_and_all_members_are_read() {
    let files = Files::new();
    let text = rows_text(20_000);
    let (head, tail) = text.split_at(70_001);
    let skippable = b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc".to_vec();
    let table: &[(&str, Vec<u8>, Compression)] = &[
        ("plain.gz", text.clone(), Compression::None),
        ("gzip.csv", gzip(&text), Compression::Gzip),
        ("two members", [gzip(head), gzip(tail)].concat(), Compression::Gzip),
        ("an empty member", [gzip(b""), gzip(&text), gzip(b"")].concat(), Compression::Gzip),
        ("zstd.csv", zstd_frame(&text), Compression::Zstd),
        ("two frames", [zstd_frame(head), zstd_frame(tail)].concat(), Compression::Zstd),
        ("a skippable frame first", [skippable, zstd_frame(&text)].concat(), Compression::Zstd),
    ];
    for (name, bytes, compression) in table {
        let path = files.put(name, bytes);
        let mut source = open(&path);
        assert_eq!(source.compression(), *compression, "{name}");
        assert_eq!(source.raw_total(), Some(bytes.len() as u64), "{name}");
        assert!(source.is_seekable(), "{name}");
        let raw_read = source.raw_read();
        let mut got = Vec::new();
        source.read_to_end(&mut got).unwrap();
        assert!(got == text, "{name}");
        assert_eq!(source.offset(), text.len() as u64, "{name}");
        assert_eq!(raw_read.load(Ordering::Relaxed), bytes.len() as u64, "{name}");
    }
}

#[test]
fn tiny_files_are_plain() {
    let files = Files::new();
    for bytes in [&b""[..], b"a", b"\x1f", b"\x28\xb5\x2f"] {
        let mut source = open(&files.put("tiny", bytes));
        let mut got = Vec::new();
        source.read_to_end(&mut got).unwrap();
        assert_eq!((source.compression(), &got[..]), (Compression::None, bytes));
    }
}

/// Cut anywhere, a compressed file gives a beginning of its text and then an error, again and again. Only a cut
/// between two members cannot be told from a file that ends there.
#[test]
fn a_cut_off_file_never_ends_silently() {
    let files = Files::new();
    let text = rows_text(60);
    let (head, tail) = text.split_at(500);
    for (member, next) in [(gzip(head), gzip(tail)), (zstd_frame(head), zstd_frame(tail))] {
        let boundary = member.len();
        let bytes = [member, next].concat();
        for cut in (4..bytes.len()).filter(|cut| *cut != boundary) {
            let mut source = open(&files.put("cut", &bytes[..cut]));
            let mut got = Vec::new();
            let error = source.read_to_end(&mut got).unwrap_err();
            assert!(text.starts_with(&got), "cut at {cut}");
            let error = source_error(&error);
            let SourceError::CutOff { name, offset, .. } = &error else { panic!("cut at {cut}: {error}") };
            assert!(name.ends_with("cut"));
            assert_eq!(*offset, got.len() as u64, "cut at {cut}");
            assert!(error.to_string().contains("everything before that was read"));
            assert!(source.read(&mut [0; 16]).is_err(), "cut at {cut}: it stays failed");
        }
    }
}

/// Every byte behind the magic, one at a time: a damaged file is never taken for a whole one. (A gzip header's
/// time stamp and system have no checksum and no effect.)
#[test]
fn a_damaged_file_is_an_error() {
    let files = Files::new();
    let text = rows_text(60);
    for (bytes, harmless) in [(gzip(&text), 4..10), (zstd_frame(&text), 0..0)] {
        for at in (4..bytes.len()).filter(|at| !harmless.contains(at)) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let mut source = open(&files.put("some.csv", &damaged));
            let mut got = Vec::new();
            match source.read_to_end(&mut got) {
                Ok(_) => assert!(got == text, "byte {at} is damaged and nobody says so"),
                Err(error) => assert!(source_error(&error).to_string().contains("some.csv: "), "{error}"),
            }
        }
    }
}

#[test]
fn garbage_behind_a_member_is_an_error() {
    let files = Files::new();
    let text = rows_text(60);
    for bytes in [gzip(&text), zstd_frame(&text)] {
        let mut source = open(&files.put("garbage", &[&bytes[..], b"type,client"].concat()));
        let mut got = Vec::new();
        let error = source_error(&source.read_to_end(&mut got).unwrap_err());
        assert!(matches!(error, SourceError::Damaged { .. } | SourceError::CutOff { .. }), "{error}");
        assert!(got == text);
    }
}

#[test]
fn rows_before_the_damage_are_given_out_first() {
    let files = Files::new();
    let text = rows_text(20_000);
    for bytes in [gzip(&text), zstd_frame(&text)] {
        let path = files.put("cut", &bytes[..bytes.len() - 20]);
        let mut reader = RowReader::open(open(&path), &Currencies::default()).unwrap();
        let (mut batch, mut row_count) = (RowBatch::new(), 0);
        let error = loop {
            match reader.next_batch(&mut batch) {
                Ok(more) => assert!(more, "it ends silently"),
                Err(error) => break source_error(&error),
            }
            row_count += batch.rows().len();
        };
        assert!(matches!(error, SourceError::CutOff { .. }), "{error}");
        assert!(row_count > 10_000, "{row_count}");
        assert!(reader.next_batch(&mut batch).is_err());
    }
}

#[test]
fn what_cannot_be_opened_says_its_name() {
    let files = Files::new();
    let missing = files.0.path().join("missing.csv");
    let error = Source::open(&missing).unwrap_err();
    assert!(matches!(error, SourceError::Open { .. }));
    assert!(error.to_string().contains("missing.csv"));
    let error = Source::open(files.0.path()).unwrap_err();
    assert!(matches!(error, SourceError::Read { offset: 0, .. }), "{error}");
}

#[test]
fn the_digest_is_of_the_raw_content_and_starts_again_at_the_beginning() {
    let files = Files::new();
    let text = rows_text(50_000);
    // sha256sum of "abc"
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let digest = open(&files.put("abc", b"abc")).digest().unwrap().unwrap();
    let hex = digest.sha256.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    assert_eq!((hex.as_str(), digest.raw_bytes), (abc, 3));

    let mut digests = Vec::new();
    for (name, bytes) in [("a", text.clone()), ("b", gzip(&text)), ("c", zstd_frame(&text))] {
        let mut source = open(&files.put(name, &bytes));
        source.read_exact(&mut [0; 1000]).unwrap();
        let digest = source.digest().unwrap().unwrap();
        assert_eq!(digest.raw_bytes, bytes.len() as u64);
        assert_eq!(source.offset(), 0);
        assert!(source.raw_read().load(Ordering::Relaxed) < digest.raw_bytes, "at most one buffer is read ahead");
        assert_eq!(source.digest().unwrap(), Some(digest), "twice the same");
        let mut got = Vec::new();
        source.read_to_end(&mut got).unwrap();
        assert!(got == text, "{name}");
        digests.push(digest);
    }
    assert!(digests[0] != digests[1] && digests[1] != digests[2]);
}

#[test]
fn skipping_goes_on_where_it_is_told() {
    let files = Files::new();
    let text = rows_text(50_000);
    for (name, bytes) in [("a", text.clone()), ("b", gzip(&text)), ("c", zstd_frame(&text))] {
        let mut source = open(&files.put(name, &bytes));
        let len = text.len() as u64;
        for offset in [0, 1, 3, 400_000, 400_000, 5, 700_001, len, len - 1] {
            source.skip_to(offset).unwrap();
            assert_eq!(source.offset(), offset);
            let mut got = [0; 1];
            let count = source.read(&mut got).unwrap();
            assert_eq!(got[..count], text[offset as usize..(offset as usize + 1).min(text.len())], "{name} {offset}");
        }
        let error = source.skip_to(len + 1).unwrap_err();
        assert_eq!(error, SourceError::TooShort { name: source.name().to_owned(), offset: len + 1, len });
    }
}

/// Reading may be stopped behind any row and go on there in a new process.
#[test]
fn a_reader_resumes_behind_any_row() {
    let files = Files::new();
    let mut text = b"\xef\xbb\xbftype,client,tx,amount,note\r\n\r\n".to_vec();
    for id in 0..200 {
        match id % 5 {
            0 => write!(text, "deposit,1,{id},2,\"two\nlines\"\r\n").unwrap(),
            1 => writeln!(text, "deposit,\"1,{id},2").unwrap(),
            2 => write!(text, "\n \nunlock,{id}\n").unwrap(),
            3 => writeln!(text, "{}", "x".repeat(300)).unwrap(),
            _ => writeln!(text, "dispute,1,{id}").unwrap(),
        }
    }
    let limits = Limits { row_bytes_max: 100, batch_bytes: 512 };
    let rows = |reader: &mut RowReader<Source>| {
        let (mut batch, mut rows) = (RowBatch::new(), Vec::new());
        while reader.next_batch(&mut batch).unwrap() {
            rows.extend(batch.rows().iter().map(|row| (row.line, row.after, row.content)));
        }
        rows
    };
    for (name, bytes) in [("a", text.clone()), ("b", gzip(&text)), ("c", zstd_frame(&text))] {
        let path = files.put(name, &bytes);
        let reader = || RowReader::with_limits(open(&path), &Currencies::default(), limits).unwrap();
        let all = rows(&mut reader());
        assert_eq!(all.len(), 200);
        for (index, (_, after, _)) in all.iter().enumerate() {
            let mut resumed = reader();
            resumed.resume(*after).unwrap();
            assert_eq!(resumed.position(), *after);
            assert_eq!(rows(&mut resumed), all[index + 1..], "{name} row {index}");
            if index % 50 == 0 {
                resumed.resume(all[0].1).unwrap();
                assert_eq!(rows(&mut resumed), all[1..], "{name}: back again");
            }
        }
        assert!(reader().resume(Position::START).is_err(), "inside the header");
        let behind = Position { offset: text.len() as u64 + 1, line: 1 };
        assert!(reader().resume(behind).is_err(), "behind the end");
    }
}

#[test]
fn an_empty_compressed_file_has_no_header() {
    let files = Files::new();
    for bytes in [gzip(b""), zstd_frame(b""), Vec::new()] {
        let error = RowReader::open(open(&files.put("empty", &bytes)), &Currencies::default()).unwrap_err();
        assert!(matches!(error, OpenError::Header(_)), "{error}");
    }
}

/// A pipe gives rows as they come, and can be read only once.
#[test]
fn a_pipe_is_read_as_it_comes() {
    let files = Files::new();
    let path = files.0.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
    let (to_writer, wait) = std::sync::mpsc::channel::<()>();
    let writer_path = path.clone();
    let writer = std::thread::spawn(move || {
        let mut pipe = std::fs::OpenOptions::new().write(true).open(writer_path).unwrap();
        for byte in b"type,client,tx,amount\nunlock,1\n" {
            pipe.write_all(&[*byte]).unwrap();
        }
        wait.recv().unwrap();
        pipe.write_all(b"unlock,2\n").unwrap();
    });
    let mut source = open(&path);
    assert!(!source.is_seekable());
    assert_eq!((source.raw_total(), source.digest().unwrap()), (None, None));
    let mut reader = RowReader::open(source, &Currencies::default()).unwrap();
    let mut batch = RowBatch::new();
    assert!(reader.next_batch(&mut batch).unwrap());
    let unlock = |id| Ok(Request::unlock(bursar_engine::core::CustomerId::new(id)));
    assert_eq!(batch.rows()[0].content, unlock(1), "the row comes before the writer goes on");
    let first = batch.rows()[0].after;
    to_writer.send(()).unwrap();
    assert!(reader.next_batch(&mut batch).unwrap());
    assert_eq!(batch.rows()[0].content, unlock(2));
    assert!(!reader.next_batch(&mut batch).unwrap());
    assert!(reader.resume(first).is_err(), "there is no way back");
    writer.join().unwrap();
}

/// Runs the test below in a process of its own, whose standard input can be given.
#[test]
fn dash_is_standard_input_compressed_or_not() {
    for bytes in [rows_text(1000), gzip(&rows_text(1000)), zstd_frame(&rows_text(1000))] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "reads_standard_input", "--ignored", "--nocapture"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("standard input has 1000 rows"));
    }
}

#[test]
#[ignore = "the child of dash_is_standard_input_compressed_or_not"]
fn reads_standard_input() {
    let mut source = open(Path::new("-"));
    assert_eq!((source.is_seekable(), source.raw_total(), source.digest().unwrap()), (false, None, None));
    let name = source.name().to_owned();
    let mut reader = RowReader::open(source, &Currencies::default()).unwrap();
    let (mut batch, mut row_count) = (RowBatch::new(), 0);
    while reader.next_batch(&mut batch).unwrap() {
        row_count += batch.rows().iter().filter(|row| row.content.is_ok()).count();
    }
    println!("{name} has {row_count} rows");
}
