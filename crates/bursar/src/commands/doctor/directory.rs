//! The directory: whose it is, who may read it, who has it open, what lies in it.

use super::Finding;
use bursar_engine::embedded::EmbeddedStore;
use bursar_engine::embedded::backup::{OWNER_SOCKET_NAME, newest_time_ms};
use bursar_engine::embedded::disk::LOCK_NAME;
use bursar_server::keys::{KeyFile, KeyFileError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// No event is older: the program did not exist.
const FIRST_DAY_MS: u64 = 1_735_689_600_000;
const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600 * SECOND_MS;

/// Looks at the directory; gives whether there is one.
pub(super) fn look(data: &Path, findings: &mut Vec<Finding>) -> bool {
    let metadata = match std::fs::metadata(data) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            findings.push(Finding::failure("directory", "this is no directory", "Name a directory with `--data DIR`."));
            return false;
        }
        Err(error) => {
            let todo = "Name it with `--data DIR`; `bursar init` makes it. Run this as the user that serves it.";
            findings.push(Finding::failure("directory", error.to_string(), todo));
            return false;
        }
    };
    findings.push(ledger(data));
    findings.push(owner(&metadata));
    findings.push(permissions(metadata.mode()));
    let held_by = lock_holder(data);
    findings.push(match &held_by {
        Some(process) => Finding::ok("lock", format!("{process} has the ledger")),
        None => Finding::ok("lock", "nobody has the ledger"),
    });
    findings.push(keys(data));
    findings.push(leftovers(data, held_by.is_some()));
    findings.push(clock(data, now_ms()));
    true
}

fn ledger(data: &Path) -> Finding {
    if !EmbeddedStore::exists(data) {
        let todo = "`bursar init` creates one; `bursar restore` puts a copy back.";
        return Finding::failure("ledger", "there is none", todo);
    }
    match newest_time_ms(data) {
        Ok(_) => Finding::ok("ledger", "its file and the end of its journal can be read"),
        Err(error) => {
            let todo = "Run `bursar verify`; restore the ledger from a copy if it is damaged.";
            Finding::failure("ledger", error.to_string(), todo)
        }
    }
}

fn owner(metadata: &std::fs::Metadata) -> Finding {
    let me = rustix::process::geteuid().as_raw();
    let found = format!("user {}, and this runs as user {me}", metadata.uid());
    if metadata.uid() == me {
        return Finding::ok("owner", found);
    }
    let todo = "Run the service and all commands as one user that owns the directory: `chown -R USER DIR`.";
    Finding::warning("owner", found, todo)
}

fn permissions(mode: u32) -> Finding {
    let found = format!("mode {:03o}", mode & 0o777);
    if mode & 0o022 != 0 {
        let todo = "Others can replace files of the ledger: run `chmod 700` on the directory.";
        return Finding::failure("permissions", found, todo);
    }
    if mode & 0o077 != 0 {
        let todo = "Others can read the ledger: run `chmod 700` on the directory.";
        return Finding::warning("permissions", found, todo);
    }
    Finding::ok("permissions", found)
}

/// The process that has the ledger's lock, as the system lists it. Taking the lock to find out would get into the way
/// of a service that starts just then.
fn lock_holder(data: &Path) -> Option<String> {
    let inode = std::fs::metadata(data.join(LOCK_NAME)).ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| holder(line, inode))?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("process {pid} ({})", name.trim_end()))
}

/// The process of a line of `/proc/locks`, if it is a lock of this file.
fn holder(line: &str, inode: u64) -> Option<u32> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", pid, file, ..] = fields.as_slice() else { return None };
    let found = file.rsplit_once(':')?.1.parse::<u64>().ok()?;
    (found == inode).then(|| pid.parse().ok())?
}

fn keys(data: &Path) -> Finding {
    match KeyFile::of(data).read() {
        Ok(None) => Finding::ok("keys", "none: the service can only be reached from this machine"),
        Ok(Some(keys)) => {
            Finding::ok("keys", format!("{} API keys, readable by their owner only", keys.entries().len()))
        }
        Err(error @ KeyFileError::Open { .. }) => {
            let todo = "Run `chmod 600` on it. If somebody may have changed it, revoke all keys and make new ones.";
            Finding::failure("keys", error.to_string(), todo)
        }
        Err(error @ (KeyFileError::Io { .. } | KeyFileError::Damaged { .. })) => {
            Finding::failure("keys", error.to_string(), "Restore it from a copy, or remove it and make new keys.")
        }
    }
}

fn leftovers(data: &Path, has_owner: bool) -> Finding {
    let names = std::fs::read_dir(data).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_left = |name: &String| {
        Path::new(name).extension().is_some_and(|extension| extension == "tmp")
            || name == "restoring.json"
            || (name == OWNER_SOCKET_NAME && !has_owner)
    };
    let mut left: Vec<String> = names.filter(is_left).collect();
    left.sort_unstable();
    if left.is_empty() || has_owner {
        return Finding::ok("leftovers", "no unfinished files");
    }
    let todo = "An earlier run was interrupted. The next opening removes what is the ledger's own; see what else is \
                there. With restoring.json, run `bursar restore` again.";
    Finding::warning("leftovers", left.join(", "), todo)
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn clock(data: &Path, now_ms: u64) -> Finding {
    const SET: &str = "Set the clock, and keep it set: `timedatectl set-ntp true`.";
    if now_ms < FIRST_DAY_MS {
        return Finding::failure("clock", "it is before 2025", SET);
    }
    let newest = newest_time_ms(data).ok().flatten().unwrap_or(0);
    let ahead_ms = newest.saturating_sub(now_ms);
    let found = format!("the newest event is {} s ahead of it", ahead_ms.div_ceil(SECOND_MS));
    match ahead_ms {
        0 => Finding::ok("clock", "not behind the newest event"),
        1..HOUR_MS => Finding::warning("clock", found, "New events get that event's time until then. Check the clock."),
        _ => Finding::failure("clock", found, SET),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_lock_is_found_by_its_file() {
        let line = "3: FLOCK  ADVISORY  WRITE 4711 fd:01:131 0 EOF";
        assert_eq!(holder(line, 131), Some(4711));
        for (line, inode) in [
            (line, 13),
            ("3: POSIX  ADVISORY  WRITE 4711 fd:01:131 0 EOF", 131),
            ("3: -> FLOCK  ADVISORY  WRITE 4711 fd:01:131 0 EOF", 131),
            ("", 131),
        ] {
            assert_eq!(holder(line, inode), None, "{line}");
        }
    }

    #[test]
    fn who_may_write_is_worse_than_who_may_read() {
        let table =
            [(0o700, Verdict::Ok), (0o750, Verdict::Warning), (0o755, Verdict::Warning), (0o770, Verdict::Failure)];
        for (mode, verdict) in table {
            assert_eq!(permissions(0o40_000 | mode).verdict, verdict, "{mode:o}");
        }
    }

    #[test]
    fn a_clock_that_stands_wrong_shows() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(clock(nowhere, FIRST_DAY_MS - 1).verdict, Verdict::Failure);
        assert_eq!(clock(nowhere, FIRST_DAY_MS).verdict, Verdict::Ok);
    }
}
