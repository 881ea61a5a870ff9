//! `bursar.toml`: found, read strictly, and refused with line, column and the name that was probably meant.
//!
//! What a section means is said by the crate that does what it asks for; here is only the list of sections, and how to
//! tell what is wrong. The same file counts for every command on a ledger, so that none goes past its rails.

use crate::cli::Global;
use crate::exit::{Failure, FailureKind};
use crate::stores::{StoreSection, Stores};
#[cfg(feature = "cache")]
use bursar_cache::CacheSettings;
use bursar_rails::settings::{Checked, ROUTE_KEYS, SettingsError, check, is_readable_by_others};
use bursar_rails::{RailSettings, RouteSettings};
use bursar_server::webhooks::WebhookConfig;
use serde::Deserialize;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// What the file is called in a ledger's directory.
pub(crate) const FILE_NAME: &str = "bursar.toml";

/// The sections.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    #[cfg(feature = "cache")]
    cache: Option<Spanned<CacheSettings>>,
    rails: BTreeMap<String, RailSettings>,
    routes: RouteSettings,
    store: Option<Spanned<StoreSection>>,
    webhooks: Vec<WebhookConfig>,
}

/// The file of a command: read when something of it is asked for first, so that all of the command is done by one text.
#[derive(Debug, Default)]
pub(crate) struct Settings(OnceCell<Option<File>>);

/// A file as it was read.
#[derive(Debug)]
struct File {
    path: PathBuf,
    text: String,
    config: Config,
}

/// The settings for a process that calls rails. Warnings go to the log.
pub(crate) fn with_secrets(global: &Global) -> Result<Checked, Failure> {
    let Some(file) = File::find(global)? else { return Ok(Checked::default()) };
    let mut checked = file.check(true)?;
    let of_rails = file.config.rails.values().any(RailSettings::has_secret_inside);
    let of_webhooks = file.config.webhooks.iter().any(|webhook| webhook.secret.is_some());
    if (of_rails || of_webhooks) && is_readable_by_others(&file.path) {
        checked.warnings.push(format!("{} holds a secret and can be read by others", file.path.display()));
    }
    for warning in &checked.warnings {
        tracing::warn!("{warning}");
    }
    Ok(checked)
}

/// The settings for a command that calls nobody: it needs no secret, and may not be allowed to read one.
pub(crate) fn without_secrets(global: &Global) -> Result<Checked, Failure> {
    match File::find(global)? {
        Some(file) => file.check(false),
        None => Ok(Checked::default()),
    }
}

/// Who is told of events. What a webhook's settings mean is checked by the service.
pub(crate) fn webhooks(global: &Global) -> Result<Vec<WebhookConfig>, Failure> {
    let Some(file) = File::find(global)? else { return Ok(Vec::new()) };
    let mut webhooks = file.config.webhooks.clone();
    for path in webhooks.iter_mut().flat_map(|webhook| [&mut webhook.secret_file, &mut webhook.ca_file]).flatten() {
        *path = file.directory().join(&path);
    }
    Ok(webhooks)
}

/// The stores that the ledger is in; `None`: it is in its directory.
pub(crate) fn stores(global: &Global) -> Result<Option<Stores>, Failure> {
    match File::find(global)? {
        Some(file) => file.stores(),
        None => Ok(None),
    }
}

/// The cache in front of them; `None`: there is none. A ledger in a directory has no use for one, so that it is refused.
#[cfg(feature = "cache")]
pub(crate) fn cache(global: &Global) -> Result<Option<CacheSettings>, Failure> {
    match File::find(global)? {
        Some(file) => file.cache(),
        None => Ok(None),
    }
}

/// The stores that a file names; `None`: there is no such file, or it names none.
pub(crate) fn stores_of(path: &Path) -> Result<Option<Stores>, Failure> {
    match File::read(path.to_owned(), false)? {
        Some(file) => file.stores(),
        None => Ok(None),
    }
}

impl File {
    /// The file that was named, or the one in the ledger's directory, if there is one.
    fn find(global: &Global) -> Result<Option<&Self>, Failure> {
        let Settings(read) = &global.settings;
        if let Some(file) = read.get() {
            return Ok(file.as_ref());
        }
        let file = match &global.config {
            Some(path) => Self::read(path.clone(), true)?,
            None => Self::read(global.data.join(FILE_NAME), false)?,
        };
        Ok(read.get_or_init(|| file).as_ref())
    }

    fn read(path: PathBuf, must_be: bool) -> Result<Option<Self>, Failure> {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if !must_be && error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let sentence = format!("{} cannot be read: {error}", path.display());
                return Err(Failure::new(FailureKind::BadConfig, sentence));
            }
        };
        match toml::from_str(&text) {
            Ok(config) => Ok(Some(Self { path, text, config })),
            Err(error) => Err(unreadable(&path, &text, &error)),
        }
    }

    /// Where relative paths begin.
    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    fn stores(&self) -> Result<Option<Stores>, Failure> {
        let Some(section) = &self.config.store else { return Ok(None) };
        section.get_ref().check(self.directory()).map_err(|what| {
            let sentence = format!("{}: {what}", place(&self.path, &self.text, Some(section.span())));
            Failure::new(FailureKind::BadConfig, sentence)
        })
    }

    #[cfg(feature = "cache")]
    fn cache(&self) -> Result<Option<CacheSettings>, Failure> {
        let Some(section) = &self.config.cache else { return Ok(None) };
        if self.config.store.as_ref().is_none_or(|store| store.get_ref().is_a_directory()) {
            let place = place(&self.path, &self.text, Some(section.span()));
            let what = "`[cache]` is for a ledger in other stores, and `[store]` names none";
            return Err(Failure::new(FailureKind::BadConfig, format!("{place}: {what}")));
        }
        let mut settings = section.get_ref().clone();
        for file in
            [&mut settings.password_file, &mut settings.secret_file, &mut settings.ca_file].into_iter().flatten()
        {
            *file = self.directory().join(&file);
        }
        Ok(Some(settings))
    }

    fn check(&self, with_secrets: bool) -> Result<Checked, Failure> {
        #[cfg(feature = "cache")]
        self.cache()?;
        let directory = self.directory();
        let checked = check(&self.config.rails, &self.config.routes, directory, with_secrets);
        checked.map_err(|SettingsError { span, what }| {
            let sentence = format!("{}: {what}", place(&self.path, &self.text, Some(span)));
            Failure::new(FailureKind::BadConfig, sentence)
        })
    }
}

/// A file that is no TOML, or has keys or values that it cannot have.
fn unreadable(path: &Path, text: &str, error: &toml::de::Error) -> Failure {
    // Only the message: the error itself would show the line, and with it a secret.
    let message = error.message().lines().next().unwrap_or_default();
    let failure = Failure::new(FailureKind::BadConfig, format!("{}: {message}", place(path, text, error.span())));
    match near(error.message()) {
        Some(meant) => failure.with_hint(format!("Did you mean `{meant}`?")),
        None => failure,
    }
}

/// File, line and column, counted from 1.
fn place(path: &Path, text: &str, span: Option<Range<usize>>) -> String {
    let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{}:{line}:{column}", path.display())
}

/// Of the names that a message lists behind the one that is not known, the one that was probably meant.
fn near(message: &str) -> Option<&str> {
    let mut names = message.split('`').skip(1).step_by(2);
    let written = names.next()?;
    let is_kind = |name: &&str| ROUTE_KEYS.contains(name);
    let close = |name: &&str| strsim::damerau_levenshtein(written, name) <= (written.len() / 3).clamp(1, 3);
    names.clone().filter(close).min_by_key(|name| strsim::damerau_levenshtein(written, name)).or_else(|| {
        // A kind that has no route: the nearest that has one is no help, but a plural is.
        names.find(|name| is_kind(name) && written.starts_with(*name))
    })
}

/// What is wrong with a text as settings, for tests of the documents.
#[cfg(all(test, feature = "cache", feature = "nats", feature = "tls"))]
pub(crate) fn read_for_test(text: &str) -> Result<(), String> {
    toml::from_str::<Config>(text).map(drop).map_err(|error| error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser as _;

    fn told(text: &str) -> (String, Option<String>) {
        let error = toml::from_str::<Config>(text).unwrap_err();
        let message = error.message().lines().next().unwrap_or_default().to_owned();
        let near = near(error.message()).map(str::to_owned);
        (format!("{}: {message}", place(Path::new("x"), text, error.span())), near)
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_what_was_meant() {
        let table = [
            (
                "[rails.a]\nnumber = 1\nurl = 'http://a'\ntimout = '1s'\n",
                "x:4:1: unknown field `timout`",
                Some("timeout"),
            ),
            ("[railz.a]\n", "x:1:2: unknown field `railz`", Some("rails")),
            ("[routes]\n  withdrawals = 'a'\n", "x:2:3: unknown field `withdrawals`", Some("withdrawal")),
            ("[routes]\ndispute = 'a'\n", "x:2:1: unknown field `dispute`", None),
            ("[rails.a]\nurl = 'http://a'\n", "x:1:1: missing field `number`", None),
            ("[rails.a]\nnumber = 256\nurl = 'http://a'\n", "x:2:10: the number of a rail is from 1 to 255", None),
            (
                "[rails.a]\nnumber = 1\nurl = 'http://a'\ntimeout = 'soon'\n",
                "x:4:11: `soon` is no length of time",
                None,
            ),
            ("[rails.a]\nnumber = 1\nretry.frist = '1s'\n", "x:3:7: unknown field `frist`", Some("first")),
            ("[rails.a\n", "x:1:9: ", None),
            ("[routes]\ndeposit = 'a'\ndeposit = 'b'\n", "x:3:1: duplicate key", None),
        ];
        for (text, expected, meant) in table {
            let (said, near) = told(text);
            assert!(said.starts_with(expected), "{text}: {said}");
            assert_eq!(near.as_deref(), meant, "{text}: {said}");
        }
        assert!(toml::from_str::<Config>("").is_ok());
    }

    /// Whoever changes the file while a command runs does not get a ledger by one text, and its rails by another.
    #[test]
    fn a_command_goes_by_the_file_as_it_was_when_it_began() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().to_str().unwrap();
        let global = || Cli::parse_from(["bursar", "info", "--data", data]).global;
        let rails = |global: &Global| without_secrets(global).unwrap().rails.len();
        let path = directory.path().join(FILE_NAME);
        let early = global();
        assert_eq!(rails(&early), 0);
        std::fs::write(&path, "[rails.bank]\nnumber = 1\nurl = 'http://127.0.0.1:1'\nsecret_file = 'x'\n").unwrap();
        let first = global();
        assert_eq!((rails(&first), rails(&early)), (1, 0));
        std::fs::write(&path, "[rails").unwrap();
        assert_eq!((rails(&first), stores(&first).unwrap().is_none()), (1, true));
        // What cannot be read is not remembered: it is an error for whoever asks.
        let last = global();
        assert!(without_secrets(&last).is_err() && stores(&last).is_err());
    }

    /// Those of webhooks began where the service was started; those of rails and stores always began at the file.
    #[test]
    fn relative_paths_of_webhooks_begin_where_the_file_is() {
        let directory = tempfile::tempdir().unwrap();
        let global = Cli::parse_from(["bursar", "info", "--data", directory.path().to_str().unwrap()]).global;
        let text = "[[webhooks]]\nname = 'a'\nurl = 'https://a'\nsecret_file = 'kept'\nca_file = '/etc/ca.pem'\n";
        std::fs::write(directory.path().join(FILE_NAME), text).unwrap();
        let webhooks = webhooks(&global).unwrap();
        assert_eq!(webhooks[0].secret_file, Some(directory.path().join("kept")));
        assert_eq!(webhooks[0].ca_file, Some(PathBuf::from("/etc/ca.pem")));
    }

    #[test]
    fn a_secret_is_not_shown_by_an_error() {
        let text = "[rails.a]\nnumber = 1\nurl = 'http://a'\nsecret = 'whsec_hush'\nsecrets = 'whsec_hush'\n";
        assert!(!told(text).0.contains("hush"));
    }
}
