//! API keys: where they come from, and that they are never shown.

use std::fmt;
use std::io;
use std::path::Path;

/// The environment variable that a key is taken from.
pub const KEY_VARIABLE: &str = "BURSAR_KEY";

/// An API key. It is never shown: not by `Debug`, not in an error, not in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

/// Why there is no key to use. It never says what was found.
#[derive(Debug)]
pub enum KeyError {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// What was given cannot be a key: a key is one word of printable ASCII.
    NotAKey,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Self::NotAKey => f.write_str("there is no key in it: a key is one word of printable ASCII"),
        }
    }
}

impl std::error::Error for KeyError {}

impl Key {
    /// A key as `bursar key create` prints it. White space around it is left out.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        let word = text.trim();
        if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError::NotAKey);
        }
        Ok(Self(word.to_owned()))
    }

    /// The key in [`KEY_VARIABLE`]; `None` if that is not set, or empty.
    pub fn from_env() -> Result<Option<Self>, KeyError> {
        match std::env::var_os(KEY_VARIABLE) {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => text.to_str().ok_or(KeyError::NotAKey).and_then(Self::new).map(Some),
        }
    }

    /// The key in a file that holds nothing else.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        std::fs::read_to_string(path).map_err(KeyError::Unreadable).and_then(|text| Self::new(&text))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_word_and_never_shown() {
        let key = Key::new(" bursar_1_2\n").unwrap();
        assert_eq!((key.reveal(), format!("{key:?}").as_str()), ("bursar_1_2", "Key(…)"));
        for text in ["", " \n", "two words", "é", "a\nb"] {
            assert!(matches!(Key::new(text), Err(KeyError::NotAKey)), "{text:?}");
        }
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(Key::from_file(directory.path()), Err(KeyError::Unreadable(_))));
    }
}
