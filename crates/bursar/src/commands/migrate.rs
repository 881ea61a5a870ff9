//! `bursar migrate`: the stores that `[store]` names, brought to this program's version.

use crate::cli::Global;
use crate::config;
use crate::exit::{Failure, note};
use crate::output::{Format, stdout};
use crate::pairs::print;

/// Migrates, and says what was done.
pub(crate) fn run(global: &Global, format: Format) -> Result<(), Failure> {
    let Some(stores) = config::stores(global)? else {
        if !global.quiet {
            note(&"nothing to migrate: the ledger is in a directory");
        }
        return Ok(());
    };
    print(format, &stores.migrate()?, stdout()).map_err(|error| Failure::stdout(&error))
}
