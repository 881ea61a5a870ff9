//! How the cache is reached and what it is for, as a section of a configuration file says it.

use crate::error::CacheError;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// How a cache is reached and used. Everything but `url` has a default.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSettings {
    /// Where it is: `redis://[user@]host[:port][/database]`; `rediss://` for TLS.
    pub url: String,
    /// A file that holds the password and nothing else, so that it need not be in the URL.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The name of a variable of the environment that holds the password.
    #[serde(default)]
    pub password_env: Option<String>,
    /// A file with a secret that all engines of the ledger share, and the cache's server does not have: entries that were
    /// not written by somebody who has it are not believed.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The name of a variable of the environment that holds that secret.
    #[serde(default)]
    pub secret_env: Option<String>,
    /// Certificates (PEM) of those who may vouch for the server; otherwise those of the system count.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Show customers' accounts from the cache.
    #[serde(default = "yes")]
    pub accounts: bool,
    /// Show transactions and single events from the cache.
    #[serde(default = "yes")]
    pub transactions: bool,
    /// Recognise repeated deposits and withdrawals by the cache, confirmed by the chain.
    #[serde(default = "yes")]
    pub repeats: bool,
    /// How old what is shown may be, in milliseconds.
    #[serde(default = "default_shown_for_ms")]
    pub shown_for_ms: u64,
    /// How long what never changes is kept, in seconds.
    #[serde(default = "default_kept_for_s")]
    pub kept_for_s: u64,
    /// How long a call may wait for the cache, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// How long connecting may take, in milliseconds. No call waits for that longer than `timeout_ms`.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// How long a cache that failed is left alone, in milliseconds.
    #[serde(default = "default_pause_ms")]
    pub pause_ms: u64,
    /// How many connections are open at the most, beside the one that entries are put through.
    #[serde(default = "default_connections")]
    pub connections: usize,
}

/// Without the URL, which may hold a password.
impl std::fmt::Debug for CacheSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheSettings").finish_non_exhaustive()
    }
}

const fn yes() -> bool {
    true
}

const fn default_shown_for_ms() -> u64 {
    2_000
}

const fn default_kept_for_s() -> u64 {
    86_400
}

const fn default_timeout_ms() -> u64 {
    50
}

const fn default_connect_timeout_ms() -> u64 {
    1_000
}

const fn default_pause_ms() -> u64 {
    2_000
}

const fn default_connections() -> usize {
    4
}

impl CacheSettings {
    /// The defaults, for a server.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            password_file: None,
            password_env: None,
            secret_file: None,
            secret_env: None,
            ca_file: None,
            accounts: true,
            transactions: true,
            repeats: true,
            shown_for_ms: default_shown_for_ms(),
            kept_for_s: default_kept_for_s(),
            timeout_ms: default_timeout_ms(),
            connect_timeout_ms: default_connect_timeout_ms(),
            pause_ms: default_pause_ms(),
            connections: default_connections(),
        }
    }

    /// Whether anything is shown from the cache.
    pub(crate) const fn shows(&self) -> bool {
        self.accounts || self.transactions
    }

    /// The client, with everything checked that can be checked without the server.
    pub(crate) fn client(&self) -> Result<redis::Client, CacheError> {
        use redis::IntoConnectionInfo;
        let ranges = [
            ("shown_for_ms", self.shown_for_ms, 3_600_000),
            ("kept_for_s", self.kept_for_s, 366 * 86_400),
            ("timeout_ms", self.timeout_ms, 60_000),
            ("connect_timeout_ms", self.connect_timeout_ms, 60_000),
            ("pause_ms", self.pause_ms, 3_600_000),
            ("connections", self.connections as u64, 256),
        ];
        for (field, value, max) in ranges {
            if value == 0 || value > max {
                return Err(CacheError::Setting { field, what: format!("{value} is not within 1 to {max}") });
            }
        }
        // What the parser says may hold a part of the URL, and with it a password.
        let wrong_url = |_| CacheError::Setting { field: "url", what: "it is no redis:// or rediss:// URL".to_owned() };
        let mut info = self.url.as_str().into_connection_info().map_err(wrong_url)?;
        if let Some(password) = secret(self.password_file.as_deref(), self.password_env.as_deref(), "password_env")? {
            let server = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(server);
        }
        match &self.ca_file {
            None => redis::Client::open(info),
            Some(path) => {
                let root_cert = Some(read(path)?.into_bytes());
                redis::Client::build_with_tls(info, redis::TlsCertificates { client_tls: None, root_cert })
            }
        }
        .map_err(|_| CacheError::Setting { field: "url", what: "no client can be made of it and `ca_file`".to_owned() })
    }

    /// The secret that entries are signed with, if there is one.
    pub(crate) fn signing_secret(&self) -> Result<Option<String>, CacheError> {
        let found = secret(self.secret_file.as_deref(), self.secret_env.as_deref(), "secret_env")?;
        match found {
            Some(secret) if secret.len() < 16 => Err(CacheError::Setting {
                field: "secret_file",
                what: "the secret is shorter than 16 characters".to_owned(),
            }),
            found => Ok(found),
        }
    }
}

fn read(path: &Path) -> Result<String, CacheError> {
    std::fs::read_to_string(path).map_err(|error| CacheError::File { path: path.to_owned(), error })
}

/// What a file or a variable holds, without the end of its line.
fn secret(file: Option<&Path>, env: Option<&str>, field: &'static str) -> Result<Option<String>, CacheError> {
    let text = match (file, env) {
        (Some(path), _) => read(path)?,
        (None, Some(name)) => std::env::var(name)
            .map_err(|_| CacheError::Setting { field, what: format!("there is no variable {name}") })?,
        (None, None) => return Ok(None),
    };
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}
