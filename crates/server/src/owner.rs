//! What the owner of a ledger's directory tells other processes of this machine: up to where the journal is durable.
//!
//! `bursar backup` asks, through a socket in the directory: whoever may connect to it may read the journal anyway. The
//! socket takes nothing in, and the answer is one line; see `bursar_engine::embedded::backup`.

use crate::service::Service;
use bursar_engine::embedded::backup::{OWNER_SOCKET_NAME, owner_says};
use std::fs::{Permissions, remove_file, set_permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

/// How long to wait after the system could not accept a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// The socket, removed at the end.
#[derive(Debug)]
pub(crate) struct OwnerSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl OwnerSocket {
    /// Listens in a directory that this process owns: a socket that is there was left by a process that is gone.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(OWNER_SOCKET_NAME);
        match remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Answers whoever connects, for ever.
    pub(crate) async fn answer(self, service: Arc<Service>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => answer(&stream, &service),
                Err(error) => {
                    tracing::warn!("nobody could be told how far the journal is durable: {error}");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}

impl Drop for OwnerSocket {
    fn drop(&mut self) {
        // The next owner removes what is left.
        remove_file(&self.path).unwrap_or_default();
    }
}

/// A line is less than any socket takes at once; whoever is told nothing asks the frames.
fn answer(stream: &UnixStream, service: &Service) {
    if let Some(store) = service.ledger.embedded() {
        let line = owner_says(&service.ledger.config().ledger, store.durable_position());
        stream.try_write(line.as_bytes()).map(drop).unwrap_or_default();
    }
}
