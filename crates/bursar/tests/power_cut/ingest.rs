//! `bursar ingest` of a file, cut by the power again and again or stopped by a full disk, and started again with
//! the same command until it is done: in the end everything is as if nothing had happened.
//!
//! What the binary was told, it tells: a row that cannot be read is shown on standard error once it is durable that
//! it was taken in, and an exit with 0 says that all of them were.

use super::common::{Random, command, ok, run, stderr, stdout, told};
use super::filesystem::{Ended, Lies, PowerDisk};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const ROWS: u64 = 30_000;

/// The rows, and what they lead to on a disk that works.
pub(crate) struct Rows {
    directory: TempDir,
    file: PathBuf,
    expected: Vec<String>,
}

/// A ledger in the making, and its rejects, which are on a disk that works.
struct Ledger<'a> {
    rows: &'a Rows,
    data: PathBuf,
    rejects: PathBuf,
}

/// How far a ledger is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    lines: u64,
    events: u64,
}

impl Rows {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rows.csv");
        let count = ROWS.to_string();
        let flags = "--clients 50 --seed 11 --disputes 12 --resolves 9 --chargebacks 0.02 --bad 4 --repeats 1 \
                     --dispute-window 64";
        let mut arguments = vec!["generate", "--rows", &count, "--to", file.to_str().unwrap()];
        arguments.extend(flags.split(' '));
        ok(&arguments);
        let mut rows = Self { directory, file, expected: Vec::new() };
        let whole = Ledger { rows: &rows, data: rows.directory.path().join("whole"), rejects: rows.rejects("whole") };
        let status = whole.ingest(Stdio::null()).status().unwrap();
        assert!(status.success(), "{status}");
        rows.expected = whole.told();
        rows
    }

    fn rejects(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.rejects.csv"))
    }

    fn on<'a>(&'a self, disk: &PowerDisk) -> Ledger<'a> {
        Ledger { rows: self, data: disk.path().join("books").join("ledger"), rejects: self.rejects("cut") }
    }
}

impl Ledger<'_> {
    fn data(&self) -> &str {
        self.data.to_str().unwrap()
    }

    fn ingest(&self, errors: impl Into<Stdio>) -> Command {
        let (rejects, file) = (self.rejects.to_str().unwrap(), self.rows.file.to_str().unwrap());
        let flags = ["ingest", "--quiet", "--no-report", "--all-errors"];
        let mut command = command(&flags);
        command.args(["--data", self.data(), "--rejects", rejects, file]).stdout(Stdio::null()).stderr(errors);
        command
    }

    /// Verifies the ledger, and says how far it is.
    fn position(&self) -> Result<Position, String> {
        if !self.data.join("ledger.bursar").exists() {
            return Ok(Position::default());
        }
        let [verified, info] =
            [&["verify"][..], &["info", "--output", "csv"]].map(|what| run(&[what, &["--data", self.data()]].concat()));
        if let Some(failed) = [&verified, &info].into_iter().find(|output| !output.status.success()) {
            return Err(format!("{}{}", stdout(failed), stderr(failed)));
        }
        let info = stdout(&info);
        let figure = |key: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(','));
            line.map_or(0, |figure| figure.parse().unwrap())
        };
        Ok(Position { lines: figure("source.1.lines"), events: figure("events") })
    }

    fn told(&self) -> Vec<String> {
        told(self.data(), &self.rejects, &["1", "7", "40"])
    }

    /// Whether all is as if nothing had happened.
    fn is_as_expected(&self) -> Result<(), String> {
        let told = self.told();
        let differs = told.iter().zip(&self.rows.expected).find(|(told, expected)| told != expected);
        match differs {
            Some((told, expected)) => Err(format!("{told:?} instead of {expected:?}")),
            None if told.len() == self.rows.expected.len() => Ok(()),
            None => Err(format!("{} lines instead of {}", told.len(), self.rows.expected.len())),
        }
    }
}

/// The last line of the source that a process has told to be taken in: ` --> rows.csv:LINE:COLUMN`.
fn last_line_told(errors: &Path, file: &Path) -> u64 {
    let told = std::fs::read(errors).unwrap();
    let place = format!("--> {}:", file.display());
    let line = |text: &str| text.split(&place).nth(1)?.split_once(':')?.0.parse().ok();
    String::from_utf8_lossy(&told).lines().filter_map(line).max().unwrap_or(0)
}

/// What a round of cuts came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    pub(crate) cuts: usize,
    /// After how many of them there was something that had been told, and could be lost.
    pub(crate) told: usize,
}

/// Takes the rows in, with power cuts on the way; the last one right after the end. Says what was lost.
pub(crate) fn cut_until_done(disk: &PowerDisk, rows: &Rows, seed: u64, lies: Lies) -> Result<Round, String> {
    let mut random = Random(seed);
    disk.format();
    let ledger = rows.on(disk);
    let mut known = Position::default();
    let mut round = Round::default();
    loop {
        if round.told >= lies.after_cuts {
            disk.lie(lies);
        }
        round.cuts += 1;
        let cut = round.cuts;
        let story = |what: String| format!("seed {seed}, cut {cut}: {what}");
        let errors = tempfile::NamedTempFile::new().unwrap();
        let most = [12, 60, 120][random.below(3)];
        let calls = 1 + random.below(most);
        let ended = disk.run_until_cut(&mut ledger.ingest(errors.reopen().unwrap()), calls);
        let is_done = match ended {
            Ended::Cut => false,
            Ended::Exited(status) if status.success() => true,
            Ended::Exited(_) => return Err(story(std::fs::read_to_string(errors.path()).unwrap())),
        };
        let line = last_line_told(errors.path(), &rows.file);
        known.lines = known.lines.max(if is_done { ROWS + 1 } else { line });
        round.told += usize::from(known.lines > 0);
        disk.restart(&mut random);
        let found = disk.on_a_copy(|| ledger.position()).map_err(story)?;
        if found.lines < known.lines || found.events < known.events {
            return Err(story(format!("{known:?} was durable, and {found:?} is there")));
        }
        known = found;
        if is_done {
            assert!(found.events > ROWS / 4, "{found:?}");
            return ledger.is_as_expected().map(|()| round).map_err(story);
        }
    }
}

/// Takes the rows in on a disk that gets full on the way, and has room again, several times. Gives how often it
/// was full.
pub(crate) fn full_until_done(disk: &PowerDisk, rows: &Rows, seed: u64) -> usize {
    let mut random = Random(seed);
    disk.format();
    let ledger = rows.on(disk);
    let mut full_count = 0;
    loop {
        let errors = tempfile::NamedTempFile::new().unwrap();
        disk.full_after(Some(1 + random.below(if full_count > 8 { 10_000 } else { 20 })));
        let status = ledger.ingest(errors.reopen().unwrap()).status().unwrap();
        let was_full = disk.was_full();
        disk.full_after(None);
        let errors = std::fs::read_to_string(errors.path()).unwrap();
        if status.success() {
            assert_eq!(ledger.is_as_expected(), Ok(()), "seed {seed}");
            assert_eq!(ledger.position().map(|position| position.lines), Ok(ROWS + 1), "seed {seed}");
            return full_count;
        }
        assert!(was_full, "seed {seed}: {status}, and there was room: {errors}");
        assert!(errors.contains("No space left on device"), "seed {seed}: {errors}");
        assert!(matches!(status.code(), Some(3 | 5)), "seed {seed}: {status}");
        full_count += 1;
        let line = last_line_told(Path::new("/dev/null"), &rows.file);
        let found = disk.on_a_copy(|| ledger.position());
        assert!(found.as_ref().is_ok_and(|found| found.lines >= line), "seed {seed}: {found:?}");
    }
}
