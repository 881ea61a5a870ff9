//! `bursar restore`: from a copy to a ledger.

use super::backup::{copy_keys, finish, told};
use crate::checked::Copy;
use crate::cli::Global;
use crate::exit::{Failure, note};
use crate::output::Format;
use crate::pairs::{Entry, Value};
use crate::progress::Progress;
use crate::shown::Time;
use bursar_engine::embedded::backup::restore;

/// Copies back, verifies, and says up to when the ledger goes.
pub(crate) fn run(global: &Global, copy: &Copy, format: Format) -> Result<(), Failure> {
    let mut progress = Progress::new(Some(0), global.quiet);
    let restored = restore(&copy.directory, &global.data, &mut |bytes, total| progress.update_bytes(bytes, total));
    progress.finish();
    let manifest = restored?;
    let key_count = copy_keys(&copy.directory, &global.data, copy.keys)?;
    if !global.quiet {
        note(&format_args!("note: what came after {} is not in the copy", Time(manifest.time_ms)));
        if key_count > 0 {
            note(&format_args!(
                "note: API keys are as they were when the copy was taken; revoke again what was revoked since"
            ));
        }
    }
    let mut entries = told(&manifest);
    entries.push(("keys", Entry::One(Value::Count(key_count))));
    finish(global, copy, &global.data, entries, format)
}
