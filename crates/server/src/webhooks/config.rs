//! What an operator says about a webhook: a section `[[webhooks]]` of `bursar.toml`.

use crate::follow::{Filter, Place};
use bursar_core::RequestKind;
use bursar_outbound::{Hidden, SecretSource, Secrets, Trust, connection};
use reqwest::{Client, Url};
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAME_BYTES_MAX: usize = 32;
const TIMEOUT_MS: u64 = 15_000;
const TIMEOUT_MS_MAX: u64 = 300_000;
const RETRY_MS_MIN: u64 = 1_000;
const RETRY_MS_MAX: u64 = 300_000;
const DAY_MS: u64 = 86_400_000;

/// A webhook as it is configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Its name: up to 32 small letters, digits, `-` and `_`. Its cursor goes by this name.
    pub name: String,
    /// Where to: `https`, or `http` where the network is trusted.
    pub url: String,
    /// The secret, `whsec_` and base64; or several, with space between them.
    pub secret: Option<Hidden>,
    /// The variable of the environment that holds the secret.
    pub secret_env: Option<String>,
    /// The file that holds the secret.
    pub secret_file: Option<PathBuf>,
    /// Only events of these kinds; empty: all.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// Only events with these statuses, of `started`, `done` and `aborted`; empty: all.
    #[serde(default)]
    pub statuses: Vec<String>,
    /// Where a webhook begins that has no cursor yet: `latest` (default) or `beginning`.
    pub from: Option<String>,
    /// How long a receiver may take, in milliseconds [default: 15000].
    pub timeout_ms: Option<u64>,
    /// How long to wait after the first failure, in milliseconds; twice as long after each further one [default: 1000].
    pub retry_ms_min: Option<u64>,
    /// How long to wait at the most, in milliseconds [default: 300000].
    pub retry_ms_max: Option<u64>,
    /// Trust certificates that these authorities have signed, and no others: a file in PEM.
    pub ca_file: Option<PathBuf>,
}

/// Why a webhook cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookError {
    /// Which one.
    pub name: String,
    /// What is wrong, for people.
    pub what: String,
}

impl WebhookError {
    pub(super) fn of(name: &str, what: impl Into<String>) -> Self {
        Self { name: name.to_owned(), what: what.into() }
    }
}

impl fmt::Display for WebhookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "webhook `{}`: {}", self.name, self.what)
    }
}

impl std::error::Error for WebhookError {}

/// A webhook that was checked.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) name: String,
    pub(super) url: Url,
    pub(super) secrets: Secrets,
    pub(super) filter: Filter,
    pub(super) from: Place,
    pub(super) retry_ms: (u64, u64),
    pub(super) client: Client,
}

impl WebhookConfig {
    /// Checks it, and reads its secret.
    pub(super) fn prepare(self) -> Result<Prepared, WebhookError> {
        let refused = |what: String| WebhookError::of(&self.name, what);
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        if !(1..=NAME_BYTES_MAX).contains(&self.name.len()) || !self.name.bytes().all(plain) {
            return Err(refused(format!("a name has 1 to {NAME_BYTES_MAX} small letters, digits, `-` and `_`")));
        }
        let url = Url::parse(&self.url).map_err(|error| refused(format!("the url cannot be read: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(refused("the url must begin with https:// or http://".to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(refused("the url must have no user, no password and no fragment".to_owned()));
        }
        let secrets = self.secrets()?;
        let kind = |name: &String| {
            let found = RequestKind::ALL.into_iter().find(|kind| kind.name() == name);
            found.ok_or_else(|| refused(format!("no kind of request is called `{name}`")))
        };
        let status = |name: &String| {
            let found = crate::api::events::STATUSES.into_iter().find(|status| status == name);
            found.ok_or_else(|| refused(format!("no status is called `{name}`")))
        };
        let filter = Filter {
            customer: None,
            kinds: self.kinds.iter().map(kind).collect::<Result<_, _>>()?,
            statuses: self.statuses.iter().map(status).collect::<Result<_, _>>()?,
        };
        let from = match self.from.as_deref() {
            None | Some("latest") => Place::Latest,
            Some("beginning") => Place::Beginning,
            Some(_) => return Err(refused("from must be `latest` or `beginning`".to_owned())),
        };
        let within = |field: &str, value: Option<u64>, default: u64, max: u64| match value.unwrap_or(default) {
            value if (1..=max).contains(&value) => Ok(value),
            _ => Err(refused(format!("{field} must be from 1 to {max}"))),
        };
        let timeout_ms = within("timeout_ms", self.timeout_ms, TIMEOUT_MS, TIMEOUT_MS_MAX)?;
        let retry_ms_min = within("retry_ms_min", self.retry_ms_min, RETRY_MS_MIN, DAY_MS)?;
        let retry_ms_max = within("retry_ms_max", self.retry_ms_max, RETRY_MS_MAX.max(retry_ms_min), DAY_MS)?;
        if retry_ms_max < retry_ms_min {
            return Err(refused("retry_ms_max must not be below retry_ms_min".to_owned()));
        }
        let client = self.client(Duration::from_millis(timeout_ms))?;
        Ok(Prepared { name: self.name, url, secrets, filter, from, retry_ms: (retry_ms_min, retry_ms_max), client })
    }

    fn secrets(&self) -> Result<Secrets, WebhookError> {
        let refused = |what: String| WebhookError::of(&self.name, what);
        let Self { secret, secret_env, secret_file, .. } = self;
        let source = SecretSource::of(secret.as_ref(), secret_env.as_deref(), secret_file.as_deref());
        // A relative path begins where the process was started.
        let text = source.and_then(|source| source.read(Path::new(""))).map_err(|error| refused(error.to_string()))?;
        Secrets::parse(&text).map_err(|error| refused(error.to_string()))
    }

    fn client(&self, timeout: Duration) -> Result<Client, WebhookError> {
        let refused = |what: String| WebhookError::of(&self.name, what);
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| refused(format!("{} cannot be read: {error}", path.display())))
        };
        let authorities = self.ca_file.as_ref().map(read).transpose()?;
        let trust = authorities.as_deref().map_or(Trust::System, Trust::Only);
        let agent = concat!("bursar/", env!("CARGO_PKG_VERSION"));
        let client = connection::client(agent, trust, |builder| builder.timeout(timeout).pool_max_idle_per_host(1));
        client.map_err(|error| refused(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(toml: &str) -> Result<Prepared, String> {
        let config: WebhookConfig = toml::from_str(toml).map_err(|error| error.message().to_owned())?;
        config.prepare().map_err(|error| error.what)
    }

    const GOOD: &str = "name = \"books\"\nurl = \"https://example.org/in\"\n";
    const SECRET: &str = "secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n";

    #[test]
    fn a_section_is_read_strictly() {
        let prepared = of(&format!("{GOOD}{SECRET}kinds = [\"deposit\"]\nstatuses = [\"done\"]")).unwrap();
        assert_eq!(prepared.filter.kinds, [RequestKind::Deposit]);
        assert_eq!(prepared.retry_ms, (1_000, 300_000));
        let table = [
            (GOOD.to_owned(), "needs one of secret"),
            (format!("{GOOD}{SECRET}secret_env = \"X\""), "more than one of secret"),
            (format!("{GOOD}secret_env = \"BURSAR_NO_SUCH_VARIABLE\""), "is not set"),
            (format!("{GOOD}secret = \"whsec_x\""), "base64"),
            (format!("{GOOD}{SECRET}colour = 1"), "unknown field"),
            (format!("{GOOD}{SECRET}kinds = [\"refund\"]"), "no kind of request"),
            (format!("{GOOD}{SECRET}statuses = [\"open\"]"), "no status"),
            (format!("{GOOD}{SECRET}from = \"now\""), "from must be"),
            (format!("{GOOD}{SECRET}timeout_ms = 0"), "timeout_ms"),
            (format!("{GOOD}{SECRET}retry_ms_min = 10\nretry_ms_max = 5"), "must not be below"),
            (format!("{GOOD}{SECRET}ca_file = \"/no/such/file\""), "cannot be read"),
            (format!("name = \"Ü\"\nurl = \"https://example.org\"\n{SECRET}"), "a name has"),
            (format!("name = \"a/b\"\nurl = \"https://example.org\"\n{SECRET}"), "a name has"),
            (format!("name = \"a\"\nurl = \"file:///etc\"\n{SECRET}"), "must begin with"),
            (format!("name = \"a\"\nurl = \"https://me:x@example.org\"\n{SECRET}"), "no user"),
        ];
        for (toml, expected) in table {
            let error = of(&toml).unwrap_err();
            assert!(error.contains(expected), "{toml}: {error}");
        }
    }
}
