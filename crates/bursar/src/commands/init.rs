//! `bursar init`

use crate::checked::Init;
use crate::cli::Global;
use crate::config;
use crate::exit::{Failure, note};
use crate::ledger_dir::create;
use bursar_engine::new_config;

/// Creates a ledger.
pub(crate) fn run(global: &Global, init: Init) -> Result<(), Failure> {
    let Init { policy, currencies } = init;
    create(global, &new_config(policy, currencies)?)?.close()?;
    if !global.quiet {
        match config::stores(global)? {
            Some(stores) => note(&format_args!("created a ledger: {stores}")),
            None => note(&format_args!("created a ledger in {}", global.data.display())),
        }
    }
    Ok(())
}
