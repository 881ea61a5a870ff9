//! How the store is reached, as a section of a configuration file says it.

use crate::error::OpenError;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// How PostgreSQL is reached and used. Everything but `url` has a default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// Where the database is, as libpq reads it: `postgresql://bursar@db.example/books`. Several hosts may be named;
    /// the one that takes writes is used.
    pub url: String,
    /// A file that holds the password and nothing else, so that it need not be in the URL.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The environment variable that holds the password, instead of a file.
    #[serde(default)]
    pub password_env: Option<String>,
    /// Certificates (PEM) of those who may vouch for the server. With it, connections are encrypted and the server
    /// is checked; without it they are neither.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The schema that holds the ledger: small letters, digits and `_`. One ledger has one schema.
    #[serde(default = "default_schema")]
    pub schema: String,
    /// How many connections are open at the most.
    #[serde(default = "default_connections")]
    pub connections: usize,
    /// How long connecting may take, in milliseconds.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// How long a statement may take, in milliseconds. The server is told; if it does not answer either, the
    /// connection is given up.
    #[serde(default = "default_statement_timeout_ms")]
    pub statement_timeout_ms: u64,
    /// How long a call is tried again while the server cannot be reached, in milliseconds. Then the engine stops.
    #[serde(default = "default_retry_for_ms")]
    pub retry_for_ms: u64,
    /// When proposed states of transactions become approved ones.
    #[serde(default)]
    pub approve: Approve,
    /// Of how many chains the newest event is kept in memory, so that a look is enough to know that it still is.
    /// About 300 bytes each; 0: of none.
    #[serde(default = "default_heads_kept")]
    pub heads_kept: usize,
    /// A replica for reads that decide nothing, as a URL like the first. It is asked where it is as far as the primary.
    #[serde(default)]
    pub read_url: Option<String>,
    /// How long a read waits for the replica to have come that far, in milliseconds. Then the primary is asked.
    #[serde(default = "default_read_wait_ms")]
    pub read_wait_ms: u64,
    /// Keep the records in an order that can be followed. Looked at when a schema is made or upgraded, and kept there;
    /// what is there already is put in order then. It takes a server with transaction ids in the order of commits:
    /// PostgreSQL itself, and none of those that spread tables over several machines.
    #[serde(default = "default_feed")]
    pub feed: bool,
    /// Open the ledger although the server runs with settings under which acknowledged money can be lost.
    #[serde(default)]
    pub allow_unsafe_settings: bool,
}

/// When the table of transactions is told that a proposed state is in effect. Right either way: readers settle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approve {
    /// Together with the next proposal on the same transaction. Most transactions never have one: their row is
    /// written once.
    #[default]
    Lazily,
    /// At once: a second write for each transaction, which spares later batches a look at the chains.
    AtOnce,
}

fn default_schema() -> String {
    "bursar".to_owned()
}

const fn default_connections() -> usize {
    8
}

const fn default_connect_timeout_ms() -> u64 {
    5_000
}

const fn default_statement_timeout_ms() -> u64 {
    30_000
}

const fn default_retry_for_ms() -> u64 {
    60_000
}

const fn default_read_wait_ms() -> u64 {
    50
}

const fn default_feed() -> bool {
    true
}

const fn default_heads_kept() -> usize {
    131_072
}

impl PostgresConfig {
    /// The defaults, for a database.
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            password_file: None,
            password_env: None,
            ca_file: None,
            schema: default_schema(),
            connections: default_connections(),
            connect_timeout_ms: default_connect_timeout_ms(),
            statement_timeout_ms: default_statement_timeout_ms(),
            retry_for_ms: default_retry_for_ms(),
            approve: Approve::default(),
            heads_kept: default_heads_kept(),
            read_url: None,
            read_wait_ms: default_read_wait_ms(),
            feed: default_feed(),
            allow_unsafe_settings: false,
        }
    }

    /// The client's own configuration, with everything checked that can be checked without the server.
    pub(crate) fn client(&self) -> Result<tokio_postgres::Config, OpenError> {
        let mut client = self.client_at("url", &self.url)?;
        client.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
        Ok(client)
    }

    /// The same, for any server at this URL.
    pub(crate) fn client_at(&self, field: &'static str, url: &str) -> Result<tokio_postgres::Config, OpenError> {
        let name = self.schema.as_bytes();
        let good = |&b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if !(1..=60).contains(&name.len()) || !name.iter().all(good) || name[0].is_ascii_digit() {
            let what = format!("{:?} is not 1 to 60 small letters, digits and '_', beginning with none", self.schema);
            return Err(OpenError::Config { field: "schema", what });
        }
        for (field, value) in
            [("connections", self.connections as u64), ("statement_timeout_ms", self.statement_timeout_ms)]
        {
            if value == 0 || value > 0x7fff_ffff {
                return Err(OpenError::Config { field, what: format!("{value} is out of range") });
            }
        }
        let mut client: tokio_postgres::Config = url
            .parse()
            // What the parser says may hold a part of the URL, and with it a password.
            .map_err(|_| OpenError::Config { field, what: "it is not a URL as libpq reads it".to_owned() })?;
        if let Some(variable) = &self.password_env {
            if self.password_file.is_some() {
                let what = "it stands instead of `password_file`, not beside it".to_owned();
                return Err(OpenError::Config { field: "password_env", what });
            }
            let what = format!("the environment has no variable {variable}");
            let password = std::env::var(variable).map_err(|_| OpenError::Config { field: "password_env", what })?;
            client.password(password);
        }
        if let Some(path) = &self.password_file {
            let password = std::fs::read_to_string(path);
            let password = password.map_err(|error| OpenError::File { path: path.clone(), error })?;
            client.password(password.trim_end_matches(['\r', '\n']));
        }
        client
            .application_name("bursar")
            .connect_timeout(Duration::from_millis(self.connect_timeout_ms))
            .tcp_user_timeout(Duration::from_millis(self.statement_timeout_ms))
            .keepalives_idle(Duration::from_secs(10));
        if self.ca_file.is_some() {
            client.ssl_mode(tokio_postgres::config::SslMode::Require);
        }
        Ok(client)
    }
}
