//! How a cluster is reached, as a section of a configuration file says it. Secrets stand in files or in the environment,
//! never in the section.

use crate::options::NatsOptions;
use serde::Deserialize;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a cluster is reached and used. Everything but `servers` has a default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// Addresses of servers, as `host:port` or `tls://host:port`. One is enough, more are better.
    pub servers: Vec<String>,
    /// The user of the account that holds the ledger.
    #[serde(default)]
    pub user: Option<String>,
    /// A file that holds the user's password and nothing else.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The environment variable that holds it.
    #[serde(default)]
    pub password_env: Option<String>,
    /// A credentials file of that account, instead of user and password.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
    /// The user of the cluster's system account, by which it is seen whether every server syncs each write.
    #[serde(default)]
    pub system_user: Option<String>,
    /// A file that holds that user's password and nothing else.
    #[serde(default)]
    pub system_password_file: Option<PathBuf>,
    /// The environment variable that holds it.
    #[serde(default)]
    pub system_password_env: Option<String>,
    /// Certificates (PEM) that servers are trusted by, beside the machine's own.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// What the names of streams and subjects begin with. Two ledgers in one account need two of them.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// How many streams the customers are spread over. Counts when the ledger is created.
    #[serde(default = "default_streams")]
    pub streams: u16,
    /// How many servers keep each stream. Counts when the ledger is created.
    #[serde(default = "default_replicas")]
    pub replicas: u8,
    /// How long a call tries before it gives up, in milliseconds. Then the engine stops.
    #[serde(default = "default_patience_ms")]
    pub patience_ms: u64,
    /// How many heads are kept in memory.
    #[serde(default = "default_cache_customers")]
    pub cache_customers: usize,
    /// Open the ledger although the cluster has settings under which acknowledged money can be lost.
    #[serde(default)]
    pub allow_weak_settings: bool,
}

fn default_prefix() -> String {
    NatsOptions::default().prefix
}

fn default_streams() -> u16 {
    NatsOptions::default().shard_count
}

fn default_replicas() -> u8 {
    NatsOptions::default().replicas
}

fn default_patience_ms() -> u64 {
    NatsOptions::default().patience.as_millis() as u64
}

fn default_cache_customers() -> usize {
    NatsOptions::default().cache_customers_max
}

/// Why a section cannot be used. It never shows a secret.
#[derive(Debug)]
pub enum ConfigError {
    /// A field, alone or beside others, makes no sense.
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A file that the section names could not be read.
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field { field, what } => write!(f, "`{field}`: {what}"),
            Self::File { path, error } => write!(f, "{} cannot be read: {error}", path.display()),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Field { .. } => None,
            Self::File { error, .. } => Some(error),
        }
    }
}

fn wrong<T>(field: &'static str, what: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Field { field, what: what.into() })
}

/// A user with the password from a file or from the environment.
fn login(
    fields: [&'static str; 3],
    user: Option<&String>,
    file: Option<PathBuf>,
    variable: Option<&String>,
) -> Result<Option<(String, String)>, ConfigError> {
    let [of_user, of_file, of_variable] = fields;
    let Some(user) = user else {
        return match (file, variable) {
            (None, None) => Ok(None),
            (Some(_), _) => wrong(of_file, format!("`{of_user}` is missing")),
            (None, Some(_)) => wrong(of_variable, format!("`{of_user}` is missing")),
        };
    };
    let password = match (file, variable) {
        (Some(path), None) => {
            std::fs::read_to_string(&path).map_err(|error| ConfigError::File { path: path.clone(), error })?
        }
        (None, Some(variable)) => match std::env::var(variable) {
            Ok(password) => password,
            Err(_) => return wrong(of_variable, format!("the environment has no variable {variable}")),
        },
        (Some(_), Some(_)) | (None, None) => {
            return wrong(of_user, format!("it needs one of `{of_file}` and `{of_variable}`"));
        }
    };
    Ok(Some((user.clone(), password.trim_end_matches(['\r', '\n']).to_owned())))
}

impl NatsConfig {
    /// The options, with the secrets read. `directory` is that of the settings, where relative paths begin.
    pub fn options(&self, directory: &Path) -> Result<NatsOptions, ConfigError> {
        if self.servers.is_empty() || self.servers.iter().any(|server| server.contains('@')) {
            return wrong("servers", "they are addresses, at least one, without user and password");
        }
        if self.streams == 0 {
            return wrong("streams", "a ledger has at least one stream");
        }
        let full = |path: &Option<PathBuf>| path.as_ref().map(|path| directory.join(path));
        let of_account = ["user", "password_file", "password_env"];
        let user = login(of_account, self.user.as_ref(), full(&self.password_file), self.password_env.as_ref())?;
        if user.is_some() && self.credentials_file.is_some() {
            return wrong("credentials_file", "it stands instead of `user`, not beside it");
        }
        let of_system = ["system_user", "system_password_file", "system_password_env"];
        let (file, variable) = (full(&self.system_password_file), self.system_password_env.as_ref());
        let system_user = login(of_system, self.system_user.as_ref(), file, variable)?;
        Ok(NatsOptions {
            servers: self.servers.clone(),
            user,
            credentials: full(&self.credentials_file),
            system_user,
            root_certificates: full(&self.ca_file),
            prefix: self.prefix.clone(),
            shard_count: self.streams,
            replicas: self.replicas,
            allow_weak: self.allow_weak_settings,
            patience: Duration::from_millis(self.patience_ms),
            cache_customers_max: self.cache_customers,
            ..NatsOptions::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(fields: serde_json::Value) -> NatsConfig {
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn passwords_come_from_files_or_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "hush\n").unwrap();
        let table = [
            (serde_json::json!({}), Ok(None)),
            (serde_json::json!({"user": "u", "password_file": "secret"}), Ok(Some("hush"))),
            (serde_json::json!({"user": "u"}), Err("`user`: it needs one of `password_file` and `password_env`")),
            (serde_json::json!({"password_file": "secret"}), Err("`password_file`: `user` is missing")),
            (serde_json::json!({"password_env": "X"}), Err("`password_env`: `user` is missing")),
            (
                serde_json::json!({"user": "u", "password_env": "BURSAR_NO_SUCH_VARIABLE"}),
                Err("`password_env`: the environment has no variable BURSAR_NO_SUCH_VARIABLE"),
            ),
            (
                serde_json::json!({"user": "u", "password_file": "secret", "credentials_file": "c"}),
                Err("`credentials_file`: it stands instead of `user`, not beside it"),
            ),
            (
                serde_json::json!({"servers": ["nats://u:p@h"]}),
                Err("`servers`: they are addresses, at least one, without user and password"),
            ),
        ];
        for (mut fields, expected) in table {
            fields.as_object_mut().unwrap().entry("servers").or_insert_with(|| serde_json::json!(["h:4222"]));
            let found = section(fields.clone()).options(directory.path()).map_err(|error| error.to_string());
            let found = found.map(|options| options.user.map(|(_, password)| password));
            let expected = expected.map(|password| password.map(str::to_owned)).map_err(str::to_owned);
            assert_eq!(found, expected, "{fields}");
        }
    }

    #[test]
    fn what_is_not_said_is_as_by_default() {
        let defaults = NatsOptions::default();
        let found = section(serde_json::json!({"servers": defaults.servers})).options(Path::new("")).unwrap();
        assert_eq!(format!("{found:?}"), format!("{defaults:?}"));
        let unknown = serde_json::from_value::<NatsConfig>(serde_json::json!({"servers": [], "server": 1}));
        assert!(unknown.is_err());
    }

    #[test]
    fn passwords_are_not_shown() {
        let user = Some(("books".to_owned(), "hush".to_owned()));
        let options = NatsOptions { user: user.clone(), system_user: user, ..NatsOptions::default() };
        let shown = format!("{options:?}");
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("books"), "{shown}");
    }
}
