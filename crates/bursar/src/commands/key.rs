//! `bursar key`: the API keys of the service. The ledger is not opened, so that keys can be made and revoked while the
//! service runs.

use crate::checked::Key as Asked;
use crate::cli::Global;
use crate::config;
use crate::exit::{Failure, FailureKind, note};
use crate::output::{Cell, Column, Format, Records, stdout};
use bursar_engine::embedded::EmbeddedStore;
use bursar_engine::store::StoreError;
use bursar_server::keys::{Key, KeyFile};
use jiff::Timestamp;
use std::io::{self, Write};

const COLUMNS: &[Column] = &[Column::left("id"), Column::left("name"), Column::left("role"), Column::left("created")];

/// Creates, lists or revokes.
pub(crate) fn run(global: &Global, asked: Asked, format: Format) -> Result<(), Failure> {
    // Of a ledger in other stores, keys and settings are what lies in the directory.
    if config::stores(global)?.is_none() && !EmbeddedStore::exists(&global.data) {
        return Err(StoreError::NotFound { path: global.data.clone() }.into());
    }
    let file = KeyFile::of(&global.data);
    match asked {
        Asked::Create { name, role } => {
            let key = Key::generate().map_err(|error| {
                Failure::new(FailureKind::CannotRead, format!("the system gives no random bytes: {error}"))
            })?;
            let created = format!("{:.0}", Timestamp::now());
            let is_first = file.read()?.is_none();
            file.change(|keys| keys.add(key.entry(&name, role, created)))?;
            let mut out = stdout();
            writeln!(out, "{}", key.reveal()).and_then(|()| out.flush()).map_err(|error| Failure::stdout(&error))?;
            if !global.quiet {
                note(&format_args!(
                    "This is the only time the key is shown; only its hash is kept. Its id is {}.",
                    key.id()
                ));
                if is_first {
                    note(&"This is the ledger's first key: from now on its service answers nobody without one.");
                }
            }
            Ok(())
        }
        Asked::List => {
            let keys = file.read()?.unwrap_or_default();
            let print = || -> io::Result<()> {
                let mut records = Records::list(format, COLUMNS, stdout())?;
                for key in keys.entries() {
                    let role = key.role.name();
                    records.row(&[
                        Cell::Text(&key.id),
                        Cell::Text(&key.name),
                        Cell::Text(role),
                        Cell::Text(&key.created),
                    ])?;
                }
                records.finish()
            };
            print().map_err(|error| Failure::stdout(&error))
        }
        Asked::Revoke { id } => {
            // Nothing is written for a key that is not there.
            let known = file.read()?.is_some_and(|keys| keys.entries().iter().any(|key| key.id == id));
            if known && file.change(|keys| keys.revoke(&id))? {
                return Ok(());
            }
            Err(Failure::new(FailureKind::UnknownKey, format!("there is no key with the id '{id}'")))
        }
    }
}
