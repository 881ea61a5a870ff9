//! The file of `--rejects`: every row that was not applied, to be corrected and ingested again.

use crate::exit::note;
use bursar_engine::csv::{Header, RejectWriter};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// The file, or files: sources with different columns need one each.
#[derive(Debug)]
pub(crate) struct Rejects {
    path: PathBuf,
    writer: Option<RejectWriter<BufWriter<File>>>,
    file_count: usize,
}

impl Rejects {
    /// Nothing is written before the first source was opened: its columns are the file's.
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, writer: None, file_count: 0 }
    }

    /// Where it is; of several files, the one that is being written.
    pub(crate) fn path(&self) -> PathBuf {
        numbered(&self.path, self.file_count)
    }

    /// Makes ready for rows of a source with this header.
    pub(crate) fn open(&mut self, header: &Header) -> io::Result<()> {
        if self.writer.as_ref().is_some_and(|writer| writer.takes(header)) {
            return Ok(());
        }
        self.finish()?;
        self.file_count += 1;
        let path = self.path();
        if self.file_count > 1 {
            note(&format_args!("note: rejects of files with other columns go to {}", path.display()));
        }
        self.writer = Some(RejectWriter::new(BufWriter::new(File::create(path)?), header)?);
        Ok(())
    }

    /// The file to write rows to; none before a source was opened.
    pub(crate) const fn writer(&mut self) -> Option<&mut RejectWriter<BufWriter<File>>> {
        self.writer.as_mut()
    }

    /// Writes what is still to be written.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.writer.take().map_or(Ok(()), |writer| writer.into_inner().flush())
    }
}

/// `rejects.csv`, `rejects-2.csv`, `rejects-3.csv`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    if number <= 1 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_files_are_numbered() {
        let table =
            [("a/r.csv", 1, "a/r.csv"), ("a/r.csv", 2, "a/r-2.csv"), ("r", 3, "r-3"), ("r.x.csv", 2, "r.x-2.csv")];
        for (path, number, expected) in table {
            assert_eq!(numbered(Path::new(path), number), Path::new(expected));
        }
    }
}
