//! The lock of a directory in which webhooks keep their places, where it is not a ledger's own, which has a lock already: two
//! services that wrote to the same files would each begin where the other one is.

use super::config::WebhookError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

const NAME: &str = "webhooks.lock";

/// Held as long as it lives; a process that ends, however it ends, lets go of it.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes it for the webhook of this name and all others of the service.
    pub(super) fn take(directory: &Path, webhook: &str) -> Result<Self, WebhookError> {
        let path = directory.join(NAME);
        let failed = |error: io::Error| {
            WebhookError::of(webhook, format!("its place cannot be kept: {} cannot be locked: {error}", path.display()))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => {
                let what = format!("another service keeps the places of its webhooks in {}", directory.display());
                let hint = "give each service a directory of its own with --data";
                Err(WebhookError::of(webhook, format!("{what}; {hint}")))
            }
            Err(error) => Err(failed(error.into())),
        }
    }
}
