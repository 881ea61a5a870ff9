//! `bursar.toml`: what an operator says about a service, in one file, read strictly.

use crate::exit::{Failure, FailureKind};
use bursar_server::webhooks::WebhookConfig;
use serde::Deserialize;
use std::io;
use std::path::Path;

/// The file's name in a ledger's directory.
pub(crate) const FILE_NAME: &str = "bursar.toml";

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Who is told of events.
    #[serde(default)]
    pub(crate) webhooks: Vec<WebhookConfig>,
}

impl Config {
    /// Reads the file that was named, or the one in the ledger's directory if there is one.
    pub(crate) fn read(named: Option<&Path>, directory: Option<&Path>) -> Result<Self, Failure> {
        let (path, must_exist) = match (named, directory) {
            (Some(path), _) => (path.to_owned(), true),
            (None, Some(directory)) => (directory.join(FILE_NAME), false),
            (None, None) => return Ok(Self::default()),
        };
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => return Ok(Self::default()),
            Err(error) => {
                let sentence = format!("cannot read {}: {error}", path.display());
                return Err(Failure::new(FailureKind::CannotRead, sentence));
            }
            Ok(text) => text,
        };
        toml::from_str(&text).map_err(|error| {
            // Without the line itself: it may hold a secret.
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let sentence = format!("{}, line {line}: {}", path.display(), error.message());
            Failure::new(FailureKind::BadConfig, sentence)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_strictly_and_no_secret_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(directory.path().join(FILE_NAME), text).unwrap();
            Config::read(None, Some(directory.path()))
        };
        assert!(Config::read(None, Some(Path::new("/no/such/place"))).unwrap().webhooks.is_empty());
        assert!(Config::read(Some(Path::new("/no/such/file")), None).is_err());
        let good = "[[webhooks]]\nname = \"a\"\nurl = \"https://example.org\"\nsecret = \"whsec_x\"\n";
        assert_eq!(read(good).unwrap().webhooks[0].name, "a");
        for bad in ["x = 1", "[webhooks]", &good.replace("name", "nam"), &format!("{good}secret = \"whsec_hush\"\n")] {
            let Err(Failure::Told { sentence, .. }) = read(bad) else { panic!("{bad}") };
            assert!(sentence.contains("line ") && !sentence.contains("whsec"), "{sentence}");
        }
    }
}
