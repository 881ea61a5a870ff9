//! Where a webhook is: a small file in the directory of the ledger or of the service, replaced as a whole.
//!
//! It says what it is and carries a digest of its own content, so that half a file, or one that somebody has changed,
//! is not taken for a position.

use super::config::WebhookError;
use bursar_engine::store::FeedPosition;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const FORMAT: &str = "bursar webhook";
const VERSION: u32 = 1;
const MODE: u32 = 0o600;
const BYTES_MAX: u64 = 4_096;

/// Why nothing is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Paused {
    /// An operator said so.
    Operator,
    /// The receiver said that it is gone for good (410).
    Gone,
}

/// What outlives the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) position: FeedPosition,
    pub(super) paused: Option<Paused>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: String,
    version: u32,
    webhook: String,
    position: String,
    paused: Option<Paused>,
    sha256: String,
}

impl Content {
    fn digest(&self) -> String {
        let text = format!("{} {} {} {:?}", self.version, self.webhook, self.position, self.paused);
        let digest = Sha256::digest(text.as_bytes());
        let mut digits = [0; 64];
        crate::shown::hex(&digest, &mut digits).to_owned()
    }
}

/// The file of a webhook.
#[derive(Clone, Debug)]
pub(super) struct CursorFile {
    directory: PathBuf,
    webhook: String,
}

impl CursorFile {
    pub(super) fn of(directory: &Path, webhook: &str) -> Self {
        Self { directory: directory.to_owned(), webhook: webhook.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(format!("webhook-{}.json", self.webhook))
    }

    /// Reads it; `None` if there is none.
    pub(super) fn read(&self) -> Result<Option<Saved>, WebhookError> {
        let path = self.path();
        let refused = |what: String| {
            let hint = "restore it, or delete it: the webhook then begins as a new one, where `from` says";
            WebhookError::of(&self.webhook, format!("its file {} {what}; {hint}", path.display()))
        };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| refused(format!("cannot be read: {error}")))?,
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(|error| refused(format!("cannot be read: {error}")))?;
        let content: Content =
            serde_json::from_slice(&bytes).map_err(|error| refused(format!("is damaged: {error}")))?;
        let is_sound = (content.format.as_str(), content.version) == (FORMAT, VERSION)
            && content.webhook == self.webhook
            && content.digest() == content.sha256;
        let position = FeedPosition::parse(&content.position).filter(|_| is_sound);
        let position = position.ok_or_else(|| refused("is damaged, or of another webhook".to_owned()))?;
        Ok(Some(Saved { position, paused: content.paused }))
    }

    /// Replaces it. It is durable when this returns.
    pub(super) fn write(&self, saved: Saved) -> io::Result<()> {
        let Saved { position, paused } = saved;
        let mut content = Content {
            format: FORMAT.to_owned(),
            version: VERSION,
            webhook: self.webhook.clone(),
            position: position.to_string(),
            paused,
            sha256: String::new(),
        };
        content.sha256 = content.digest();
        let mut bytes = serde_json::to_vec(&content)?;
        bytes.push(b'\n');
        // A ledger in other stores does not need the service's directory.
        std::fs::create_dir_all(&self.directory)?;
        let temporary = self.directory.join(format!("webhook-{}.json.tmp", self.webhook));
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(MODE).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, self.path())?;
        File::open(&self.directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = CursorFile::of(directory.path(), "books");
        assert_eq!(file.read().unwrap(), None);
        let position = FeedPosition { at: 96, passed: 3, check: 0xfeed };
        for paused in [None, Some(Paused::Operator), Some(Paused::Gone)] {
            file.write(Saved { position, paused }).unwrap();
            assert_eq!(file.read().unwrap(), Some(Saved { position, paused }));
        }
        let good = std::fs::read_to_string(file.path()).unwrap();
        assert!(CursorFile::of(directory.path(), "other").read().unwrap().is_none());
        std::fs::copy(file.path(), directory.path().join("webhook-other.json")).unwrap();
        assert!(CursorFile::of(directory.path(), "other").read().is_err());
        for bad in ["", "{}", &good[1..], &good.replace("60.3", "60.4"), &good.replace("gone", "operator")] {
            std::fs::write(file.path(), bad).unwrap();
            let error = file.read().unwrap_err();
            assert!(error.what.contains("delete it"), "{bad}: {error}");
        }
    }
}
