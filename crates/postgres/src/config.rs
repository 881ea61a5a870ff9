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

/// The same for each server that a configuration names, in their order; from any of them on where that is asked for.
pub(crate) fn hosts_of(all: &tokio_postgres::Config) -> Vec<tokio_postgres::Config> {
    use tokio_postgres::config::{Host, LoadBalanceHosts};
    let (hosts, addresses, ports) = (all.get_hosts(), all.get_hostaddrs(), all.get_ports());
    let count = hosts.len().max(addresses.len());
    let fits = |len: usize| len <= 1 || len == count;
    if count <= 1 || !fits(ports.len()) || !(hosts.is_empty() || addresses.is_empty() || hosts.len() == addresses.len())
    {
        // What does not fit the client itself refuses.
        return vec![all.clone()];
    }
    let mut each: Vec<tokio_postgres::Config> = (0..count)
        .map(|index| {
            let mut one = like(all);
            match hosts.get(index) {
                Some(Host::Tcp(host)) => _ = one.host(host),
                Some(Host::Unix(path)) => _ = one.host_path(path),
                None => {}
            }
            if let Some(address) = addresses.get(index) {
                one.hostaddr(*address);
            }
            if let Some(port) = ports.get(index).or(ports.first()) {
                one.port(*port);
            }
            one
        })
        .collect();
    let mut random = [0];
    if all.get_load_balance_hosts() == LoadBalanceHosts::Random && getrandom::fill(&mut random).is_ok() {
        each.rotate_left(usize::from(random[0]) % count);
    }
    each
}

/// All of a configuration but which servers it names.
fn like(all: &tokio_postgres::Config) -> tokio_postgres::Config {
    let mut one = tokio_postgres::Config::new();
    one.ssl_mode(all.get_ssl_mode())
        .ssl_negotiation(all.get_ssl_negotiation())
        .keepalives(all.get_keepalives())
        .keepalives_idle(all.get_keepalives_idle())
        .target_session_attrs(all.get_target_session_attrs())
        .channel_binding(all.get_channel_binding())
        .load_balance_hosts(all.get_load_balance_hosts());
    if let Some(user) = all.get_user() {
        one.user(user);
    }
    if let Some(password) = all.get_password() {
        one.password(password);
    }
    if let Some(database) = all.get_dbname() {
        one.dbname(database);
    }
    if let Some(options) = all.get_options() {
        one.options(options);
    }
    if let Some(name) = all.get_application_name() {
        one.application_name(name);
    }
    if let Some(timeout) = all.get_connect_timeout() {
        one.connect_timeout(*timeout);
    }
    if let Some(timeout) = all.get_tcp_user_timeout() {
        one.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = all.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = all.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_reached_as_all_of_them_are() {
        let url = "postgresql://books:secret@one:7001,%2Frun%2Ftwo:7002,three:7003/ledgers?sslmode=require\
            &options=-c%20geqo%3Doff&keepalives_retries=3&keepalives_interval=4&channel_binding=require";
        let all = PostgresConfig { connect_timeout_ms: 7, ..PostgresConfig::new(url) }.client().unwrap();
        let each = hosts_of(&all);
        let hosts: Vec<_> = each.iter().flat_map(|one| one.get_hosts().to_vec()).collect();
        assert_eq!((hosts.as_slice(), each.len()), (all.get_hosts(), 3));
        let ports: Vec<u16> = each.iter().flat_map(|one| one.get_ports().to_vec()).collect();
        assert_eq!(ports, [7001, 7002, 7003]);
        // Everything else is the same: put together again, it is what it was.
        for (index, one) in each.iter().enumerate() {
            let mut again = like(one);
            for (host, port) in all.get_hosts().iter().zip(all.get_ports()) {
                match host {
                    tokio_postgres::config::Host::Tcp(host) => _ = again.host(host),
                    tokio_postgres::config::Host::Unix(path) => _ = again.host_path(path),
                }
                again.port(*port);
            }
            assert_eq!(again, all, "server {index}");
        }
        let one_port = PostgresConfig::new("postgresql://one,two:7001/ledgers").client().unwrap();
        let of = |config: &tokio_postgres::Config| config.get_ports().to_vec();
        assert_eq!(hosts_of(&one_port).iter().flat_map(of).collect::<Vec<_>>(), of(&one_port));
        // What does not fit is left to the client, which refuses it.
        let wrong = PostgresConfig::new("host=one,two port=1,2,3").client().unwrap();
        assert_eq!(hosts_of(&wrong), [wrong]);
    }
}
