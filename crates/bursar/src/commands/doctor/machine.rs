//! The machine: how many files a process may open, how much memory there is, and the settings that lie about.

use super::{Finding, size};
use bursar_server::Limits;
use rustix::process::{Resource, getrlimit};
use std::path::Path;

/// What tables may take if nobody says otherwise, as `--memory` has it.
const MEMORY_DEFAULT: u64 = 1 << 30;
/// The ledger's own files, and some to spare.
const FILES_OWN: u64 = 256;
const CONFIG_NAME: &str = "bursar.toml";

pub(super) fn look(memory: Option<u64>, findings: &mut Vec<Finding>) {
    findings.push(files(getrlimit(Resource::Nofile).maximum));
    let known = [meminfo(&read("/proc/meminfo")), read("/sys/fs/cgroup/memory.max").trim().parse().ok()];
    findings.push(self::memory(memory.unwrap_or(MEMORY_DEFAULT), known.into_iter().flatten().min()));
    findings.extend(config(Path::new(CONFIG_NAME)));
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// By how many files a process may open at the most; the service asks for them by itself.
fn files(max: Option<u64>) -> Finding {
    let wanted = Limits::default().connections_max as u64 + FILES_OWN;
    let todo = "Raise the limit: `LimitNOFILE=` of the unit, or `ulimit -Hn`.";
    match max {
        None => Finding::ok("open_files", "no limit"),
        Some(max) if max >= wanted => Finding::ok("open_files", format!("{max} are allowed")),
        Some(max) if max >= 2 * FILES_OWN => {
            let found = format!("{max} are allowed: fewer connections than the {wanted} that could be served");
            Finding::warning("open_files", found, todo)
        }
        Some(max) => Finding::failure("open_files", format!("only {max} are allowed"), todo),
    }
}

/// The machine's memory in bytes.
fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

fn memory(wanted: u64, total: Option<u64>) -> Finding {
    let Some(total) = total else {
        return Finding::warning("memory", "how much there is cannot be told", "Compare `--memory` with `free -m`.");
    };
    let found = format!("the tables may take {} of {}", size(wanted), size(total));
    let todo = "Set `--memory` (BURSAR_MEMORY) to half of what there is, or less.";
    match wanted {
        _ if wanted > total => Finding::failure("memory", found, todo),
        _ if wanted > total / 4 * 3 => Finding::warning("memory", found, todo),
        _ => Finding::ok("memory", found),
    }
}

/// The settings, if there are any here.
fn config(path: &Path) -> Option<Finding> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            let todo = "Run this as the user that serves the ledger.";
            return Some(Finding::failure("config", format!("{}: {error}", path.display()), todo));
        }
        Ok(text) => text,
    };
    let mode = std::fs::metadata(path).map_or(0, |metadata| std::os::unix::fs::MetadataExt::mode(&metadata));
    Some(match text.parse::<toml::Table>() {
        Err(error) => {
            let todo = "Correct it; the service does not start with it.";
            Finding::failure("config", format!("{}: {}", path.display(), error.message()), todo)
        }
        Ok(_) if mode & 0o077 != 0 => {
            let todo = "It may hold secrets: run `chmod 600` on it.";
            Finding::warning("config", format!("{} can be read by others", path.display()), todo)
        }
        Ok(_) => Finding::ok("config", format!("{} can be read", path.display())),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const GIB: u64 = 1 << 30;

    #[test]
    fn limits_are_judged_by_what_the_service_wants() {
        let table = [
            (None, Verdict::Ok),
            (Some(1 << 20), Verdict::Ok),
            (Some(4096), Verdict::Warning),
            (Some(256), Verdict::Failure),
        ];
        for (max, verdict) in table {
            assert_eq!(files(max).verdict, verdict, "{max:?}");
        }
        let table = [
            (GIB, Some(4 * GIB), Verdict::Ok),
            (GIB, Some(GIB + GIB / 5), Verdict::Warning),
            (2 * GIB, Some(GIB), Verdict::Failure),
            (GIB, None, Verdict::Warning),
        ];
        for (wanted, total, verdict) in table {
            assert_eq!(memory(wanted, total).verdict, verdict, "{wanted} of {total:?}");
        }
        assert_eq!(meminfo("MemFree: 1 kB\nMemTotal:       24576 kB\n"), Some(24 << 20));
        assert_eq!(meminfo("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn settings_are_looked_at_where_there_are_some() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONFIG_NAME);
        assert_eq!(config(&path), None);
        for (text, mode, verdict) in [
            ("[rail]\n", 0o600, Verdict::Ok),
            ("[rail]\n", 0o644, Verdict::Warning),
            ("[rail\n", 0o600, Verdict::Failure),
        ] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(config(&path).unwrap().verdict, verdict, "{text} {mode:o}");
        }
    }
}
