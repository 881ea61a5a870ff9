//! `bursar backup`: a copy of the ledger, also of one that is being served.

use super::verify::{judged, verified};
use crate::checked::Copy;
use crate::cli::Global;
use crate::exit::{Failure, note};
use crate::ledger_dir::embedded_options;
use crate::output::{Format, stdout};
use crate::pairs::{Entry, Value, print};
use crate::progress::{Progress, grouped};
use crate::shown::Time;
use bursar_engine::embedded::VerifyReport;
use bursar_engine::embedded::backup::{Known, Manifest, OWNER_SOCKET_NAME, backup};
use bursar_server::keys::{self, KeyFile};
use std::path::Path;

/// Copies, verifies, and says how far the copy goes.
pub(crate) fn run(global: &Global, copy: &Copy, format: Format) -> Result<(), Failure> {
    let to = &copy.directory;
    let mut progress = Progress::new(Some(0), global.quiet);
    let copied = backup(&global.data, to, embedded_options(global), &mut |bytes, total| {
        progress.update_bytes(bytes, total);
    });
    progress.finish();
    let report = copied?;
    let key_count = copy_keys(&global.data, to, copy.keys)?;
    if let Known::ByFrames { left_out: frames @ 1.. } = report.known {
        note(&format_args!(
            "warning: the newest {} frames are not in the copy: another process has the ledger, and does not say \
             whether they are durable\n  run the command again when that process has written more, or has ended",
            grouped(frames)
        ));
    }
    if !global.quiet {
        let left_out = |name: &&String| ![keys::FILE_NAME, OWNER_SOCKET_NAME].contains(&name.as_str());
        for name in report.left_out.iter().filter(left_out) {
            note(&format_args!("note: {name} is not of the ledger and was left out"));
        }
    }
    let mut entries = told(&report.manifest);
    entries.extend([
        ("known_by", Entry::One(Value::shown(&report.known.name()))),
        ("copied_frames", Entry::One(Value::Count(report.frames_copied))),
        ("copied_bytes", Entry::One(Value::Count(report.bytes_copied))),
        ("keys", Entry::One(Value::Count(key_count))),
    ]);
    finish(global, copy, to, entries, format)
}

/// How far a copy goes.
pub(super) fn told(manifest: &Manifest) -> Vec<(&'static str, Entry)> {
    let journal = vec![
        ("bytes", Value::Count(manifest.journal_bytes())),
        ("frame", Value::Count(manifest.frame_number())),
        ("time", Value::shown(&Time(manifest.time_ms))),
        ("digest", Value::shown(&manifest.digest())),
    ];
    let ledger = format!("{:032x}", u128::from_be_bytes(manifest.ledger));
    vec![("ledger", Entry::One(Value::Text(ledger))), ("journal", Entry::Group(journal))]
}

/// Verifies what was written, if that is wanted, and prints all of it.
pub(super) fn finish(
    global: &Global,
    copy: &Copy,
    directory: &Path,
    mut entries: Vec<(&'static str, Entry)>,
    format: Format,
) -> Result<(), Failure> {
    let report = if copy.verify { Some(verified(global, directory, None)?) } else { None };
    entries.push(("verified", Entry::One(Value::Flag(report.as_ref().is_some_and(VerifyReport::is_sound)))));
    if let Some(report) = &report {
        entries.push(("customers", Entry::One(Value::Count(report.totals.customer_count))));
        entries.push(("events", Entry::One(Value::Count(report.event_count))));
    }
    print(format, &entries, stdout()).map_err(|error| Failure::stdout(&error))?;
    report.map_or(Ok(()), |report| judged(&report, directory))
}

/// Copies the list of API keys, which holds hashes and no key, or sees to it that the copy has none. Gives how many
/// keys there are in it.
pub(super) fn copy_keys(from: &Path, to: &Path, wanted: bool) -> Result<u64, Failure> {
    let keys = if wanted { KeyFile::of(from).read()? } else { None };
    let Some(keys) = keys else {
        let path = to.join(keys::FILE_NAME);
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::write(&path, &error)),
            Ok(()) | Err(_) => Ok(0),
        };
    };
    let count = keys.entries().len() as u64;
    KeyFile::of(to).change(|copy| *copy = keys)?;
    Ok(count)
}
