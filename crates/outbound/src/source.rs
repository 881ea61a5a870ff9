//! Where a secret is kept: in the settings themselves, in a variable of the environment, or in a file.

use serde::Deserialize;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A text of settings that no log shows.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Where a secret is kept: by one of `secret`, `secret_env` and `secret_file`.
#[derive(Clone, Debug)]
pub enum SecretSource<'a> {
    /// It stands in the settings.
    Inside(&'a Hidden),
    /// This variable of the environment has it.
    Variable(&'a str),
    /// This file has it.
    File(&'a Path),
}

/// Why there is no secret. As a sentence, it goes on behind the name of what needs it.
#[derive(Debug)]
pub enum SourceError {
    /// It is kept nowhere.
    None,
    /// It is kept in more than one place.
    Several,
    /// This variable is not set, or is no text.
    NotSet(String),
    /// This file cannot be read, or is no text.
    NotRead(PathBuf, io::Error),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("needs one of secret, secret_env and secret_file"),
            Self::Several => f.write_str("has more than one of secret, secret_env and secret_file"),
            Self::NotSet(variable) => write!(f, "the environment variable {variable} is not set, or is no text"),
            Self::NotRead(path, error) => write!(f, "{} cannot be read: {error}", path.display()),
        }
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotRead(_, error) => Some(error),
            Self::None | Self::Several | Self::NotSet(_) => None,
        }
    }
}

impl<'a> SecretSource<'a> {
    /// The one of the three keys that is there.
    pub fn of(
        secret: Option<&'a Hidden>,
        secret_env: Option<&'a str>,
        secret_file: Option<&'a Path>,
    ) -> Result<Self, SourceError> {
        match (secret, secret_env, secret_file) {
            (Some(secret), None, None) => Ok(Self::Inside(secret)),
            (None, Some(variable), None) => Ok(Self::Variable(variable)),
            (None, None, Some(path)) => Ok(Self::File(path)),
            (None, None, None) => Err(SourceError::None),
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => Err(SourceError::Several),
        }
    }

    /// Reads the text of the secret, with whatever space is around it. A relative path begins at `directory`.
    pub fn read(&self, directory: &Path) -> Result<String, SourceError> {
        match self {
            Self::Inside(Hidden(text)) => Ok(text.clone()),
            Self::Variable(variable) => {
                std::env::var(variable).map_err(|_| SourceError::NotSet((*variable).to_owned()))
            }
            Self::File(path) => {
                let path = directory.join(path);
                std::fs::read_to_string(&path).map_err(|error| SourceError::NotRead(path, error))
            }
        }
    }
}

/// Whether a file of secrets can be read by others than its owner.
pub fn is_readable_by_others(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o044 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_kept_in_one_place() {
        let inside = Hidden("hush".to_owned());
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("kept"), "in a file\n").unwrap();
        std::fs::write(directory.path().join("noise"), b"\xff").unwrap();
        let of = |secret: Option<&'static str>, variable, file: Option<&'static str>| {
            let source = SecretSource::of(secret.map(|_| &inside), variable, file.map(Path::new));
            let shown = format!("{source:?}");
            assert!(!shown.contains("hush"), "{shown}");
            source.and_then(|source| source.read(directory.path())).map_err(|error| error.to_string())
        };
        assert_eq!(of(Some(""), None, None).unwrap(), "hush");
        assert_eq!(of(None, Some("CARGO_PKG_NAME"), None).unwrap(), "bursar-outbound");
        assert_eq!(of(None, None, Some("kept")).unwrap(), "in a file\n");
        let table = [
            (of(None, None, None), "needs one of"),
            (of(Some(""), Some("X"), None), "more than one of"),
            (of(Some(""), None, Some("kept")), "more than one of"),
            (of(None, Some("X"), Some("kept")), "more than one of"),
            (of(Some(""), Some("X"), Some("kept")), "more than one of"),
            (of(None, Some("BURSAR_NO_SUCH_VARIABLE"), None), "BURSAR_NO_SUCH_VARIABLE is not set"),
            (of(None, None, Some("gone")), "gone cannot be read"),
            (of(None, None, Some("noise")), "noise cannot be read"),
        ];
        for (found, expected) in table {
            let said = found.unwrap_err();
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }

    #[test]
    fn who_may_read_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kept");
        assert!(!is_readable_by_others(&path), "it is not there");
        std::fs::write(&path, "x").unwrap();
        for (mode, expected) in [(0o600, false), (0o640, true), (0o604, true), (0o400, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_readable_by_others(&path), expected, "{mode:o}");
        }
    }
}
