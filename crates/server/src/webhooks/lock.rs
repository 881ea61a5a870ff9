//! The lock of a directory in which webhooks keep their places, where it is not a ledger's own, which has a lock already: two
//! services that wrote to the same files would each begin where the other one is.

use super::config::WebhookError;
use bursar_engine::embedded::disk::{FileLock, LockError};
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

const NAME: &str = "webhooks.lock";

/// Takes it, for the webhook of this name and all others of the service.
pub(super) fn lock(directory: &Path, webhook: &str) -> Result<FileLock, WebhookError> {
    let path = directory.join(NAME);
    let failed = |error: io::Error| {
        WebhookError::of(webhook, format!("its place cannot be kept: {} cannot be locked: {error}", path.display()))
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let mut options = OpenOptions::new();
    FileLock::take(options.create(true).truncate(false).write(true).mode(0o600), &path).map_err(|error| match error {
        LockError::InUse => {
            let what = format!("another service keeps the places of its webhooks in {}", directory.display());
            let hint = "give each service a directory of its own with --data";
            WebhookError::of(webhook, format!("{what}; {hint}"))
        }
        LockError::Io(error) => failed(error),
    })
}
