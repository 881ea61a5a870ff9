//! The section `[store]` and what it comes to.

#[cfg(feature = "nats")]
use bursar_nats::{NatsConfig, NatsOptions};
#[cfg(feature = "postgres")]
use bursar_postgres::PostgresConfig;
use serde::Deserialize;
use std::fmt;
#[cfg(feature = "postgres")]
use std::path::{Path, PathBuf};

/// `[store]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreSection {
    chains: ChainsIn,
    transactions: TransactionsIn,
    /// Only beside a table in another store.
    #[cfg(feature = "postgres")]
    #[serde(default)]
    embedded: Option<EmbeddedSection>,
    #[cfg(feature = "postgres")]
    #[serde(default)]
    postgres: Option<PostgresConfig>,
    #[cfg(feature = "nats")]
    #[serde(default)]
    nats: Option<NatsConfig>,
}

/// `[store.embedded]` as it is written.
#[cfg(feature = "postgres")]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbeddedSection {
    /// The directory of the chains, and of nothing else but settings and keys.
    directory: PathBuf,
}

/// Where chains can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChainsIn {
    Embedded,
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "nats")]
    Nats,
}

/// Where the transactions table can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TransactionsIn {
    Embedded,
    #[cfg(feature = "postgres")]
    Postgres,
}

/// The pairs of stores that a ledger can be in, other than a directory.
#[derive(Clone, Debug)]
pub(crate) enum Stores {
    /// Chains and transactions in one schema of PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresConfig>),
    /// Chains alone in a directory, transactions in a schema of PostgreSQL.
    #[cfg(feature = "postgres")]
    EmbeddedAndPostgres(PathBuf, Box<PostgresConfig>),
    /// Chains in streams of NATS `JetStream`, transactions in a schema of PostgreSQL.
    #[cfg(feature = "nats")]
    NatsAndPostgres(Box<NatsOptions>, Box<PostgresConfig>),
}

impl StoreSection {
    /// Whether both are the embedded store, as they are without the section.
    #[cfg(feature = "cache")]
    pub(crate) fn is_a_directory(&self) -> bool {
        self.chains == ChainsIn::Embedded && self.transactions == TransactionsIn::Embedded
    }

    /// The stores meant; `None`: both are the embedded store, and the ledger is in its directory. `directory` is that of
    /// the settings, where relative paths begin.
    #[cfg(feature = "postgres")]
    pub(crate) fn check(&self, directory: &Path) -> Result<Option<Stores>, String> {
        let stores = match (self.chains, self.transactions) {
            (ChainsIn::Embedded, TransactionsIn::Embedded) => None,
            (ChainsIn::Embedded, TransactionsIn::Postgres) => {
                let chains =
                    self.embedded.as_ref().ok_or("`[store.embedded]` is missing, with the chains' `directory`")?;
                Some(Stores::EmbeddedAndPostgres(directory.join(&chains.directory), self.postgres(directory)?))
            }
            (ChainsIn::Postgres, TransactionsIn::Postgres) => Some(Stores::Postgres(self.postgres(directory)?)),
            #[cfg(feature = "nats")]
            (ChainsIn::Nats, TransactionsIn::Postgres) => {
                Some(Stores::NatsAndPostgres(self.nats(directory)?, self.postgres(directory)?))
            }
            #[cfg(feature = "nats")]
            (ChainsIn::Nats, TransactionsIn::Embedded) => return Err(no_table_alone()),
            (ChainsIn::Postgres, TransactionsIn::Embedded) => return Err(no_table_alone()),
        };
        // A section that is there for nothing may be a mistake about where the money is.
        let needs_postgres = matches!(self.transactions, TransactionsIn::Postgres);
        if self.postgres.is_some() && !needs_postgres {
            return Err("`[store.postgres]` is there, and neither chains nor transactions are".to_owned());
        }
        if self.embedded.is_some() && !matches!(stores, Some(Stores::EmbeddedAndPostgres(..))) {
            return Err("`[store.embedded]` is there, and the chains are not, or not alone".to_owned());
        }
        #[cfg(feature = "nats")]
        if self.nats.is_some() && self.chains != ChainsIn::Nats {
            return Err("`[store.nats]` is there, and the chains are not".to_owned());
        }
        Ok(stores)
    }

    /// Built without other stores, the program knows directories only.
    #[cfg(not(feature = "postgres"))]
    pub(crate) fn check(&self, _directory: &std::path::Path) -> Result<Option<Stores>, String> {
        match (self.chains, self.transactions) {
            (ChainsIn::Embedded, TransactionsIn::Embedded) => Ok(None),
        }
    }

    #[cfg(feature = "postgres")]
    fn postgres(&self, directory: &Path) -> Result<Box<PostgresConfig>, String> {
        let mut config = self.postgres.clone().ok_or("`[store.postgres]` is missing")?;
        for file in [&mut config.password_file, &mut config.ca_file].into_iter().flatten() {
            *file = directory.join(&file);
        }
        Ok(Box::new(config))
    }

    #[cfg(feature = "nats")]
    fn nats(&self, directory: &Path) -> Result<Box<NatsOptions>, String> {
        let config = self.nats.as_ref().ok_or("`[store.nats]` is missing")?;
        let options = config.options(directory).map_err(|error| format!("`[store.nats]`: {error}"))?;
        Ok(Box::new(options))
    }
}

#[cfg(feature = "postgres")]
fn no_table_alone() -> String {
    "the embedded store's transactions table goes with its own chains only: set `transactions = \"postgres\"`"
        .to_owned()
}

/// Where the chains are, and where the transactions are; without addresses, which may hold secrets.
impl Stores {
    pub(crate) fn places(&self) -> [String; 2] {
        #[cfg(feature = "postgres")]
        let postgres = |config: &PostgresConfig| format!("PostgreSQL, schema {}", config.schema);
        match *self {
            #[cfg(feature = "postgres")]
            Self::Postgres(ref config) => [postgres(config), postgres(config)],
            #[cfg(feature = "postgres")]
            Self::EmbeddedAndPostgres(ref directory, ref config) => {
                [format!("the directory {}", directory.display()), postgres(config)]
            }
            #[cfg(feature = "nats")]
            Self::NatsAndPostgres(ref options, ref config) => {
                [format!("NATS JetStream, prefix {}", options.prefix), postgres(config)]
            }
        }
    }
}

impl fmt::Display for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [chains, transactions] = self.places();
        if chains == transactions {
            f.write_str(&chains)
        } else {
            write!(f, "chains in {chains}; transactions in {transactions}")
        }
    }
}

#[cfg(all(test, feature = "nats"))]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<Option<String>, String> {
        let section: StoreSection = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let stores = section.check(Path::new("/etc/bursar"))?;
        Ok(stores.map(|stores| stores.to_string()))
    }

    #[test]
    fn only_pairs_that_work_are_taken() {
        let postgres = "[postgres]\nurl = 'postgresql://bursar:hush@db/books'\n";
        let nats = "[nats]\nservers = ['h:4222']\n";
        let both = format!("{postgres}{nats}");
        let embedded = "[embedded]\ndirectory = 'chains'\n";
        let chains_too = format!("{postgres}{embedded}");
        let section = |chains: &str, transactions: &str, rest: &str| {
            checked(&format!("chains = '{chains}'\ntransactions = '{transactions}'\n{rest}"))
        };
        assert_eq!(section("embedded", "embedded", ""), Ok(None));
        assert_eq!(section("postgres", "postgres", postgres), Ok(Some("PostgreSQL, schema bursar".to_owned())));
        let pair = "chains in NATS JetStream, prefix bursar; transactions in PostgreSQL, schema bursar";
        assert_eq!(section("nats", "postgres", &both), Ok(Some(pair.to_owned())));
        let pair = "chains in the directory /etc/bursar/chains; transactions in PostgreSQL, schema bursar";
        assert_eq!(section("embedded", "postgres", &chains_too), Ok(Some(pair.to_owned())));
        let refused = [
            ("postgres", "postgres", "", "`[store.postgres]` is missing"),
            ("nats", "postgres", postgres, "`[store.nats]` is missing"),
            ("postgres", "postgres", &both, "`[store.nats]` is there"),
            ("embedded", "embedded", postgres, "`[store.postgres]` is there"),
            ("embedded", "postgres", postgres, "`[store.embedded]` is missing"),
            ("embedded", "postgres", embedded, "`[store.postgres]` is missing"),
            ("postgres", "postgres", &chains_too, "`[store.embedded]` is there"),
            ("embedded", "embedded", embedded, "`[store.embedded]` is there"),
            ("nats", "embedded", nats, "the embedded store's transactions table"),
            ("postgres", "embedded", postgres, "the embedded store's transactions table"),
            ("nats", "nats", nats, "unknown variant `nats`, expected `embedded` or `postgres`"),
            ("postgres", "postgres", "[postgres]\nurl = 'x'\nschemas = 'a'\n", "unknown field `schemas`"),
        ];
        for (chains, transactions, rest, expected) in refused {
            let error = section(chains, transactions, rest).unwrap_err();
            assert!(error.starts_with(expected), "{chains}, {transactions}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
        assert!(checked("chains = 'postgres'\n").unwrap_err().contains("missing field `transactions`"));
    }

    #[test]
    fn relative_paths_begin_where_the_settings_are() {
        let text = "chains = 'postgres'\ntransactions = 'postgres'\n\
                    [postgres]\nurl = 'postgresql://db'\npassword_file = 'password'\nca_file = '/ca.pem'\n";
        let section: StoreSection = toml::from_str(text).unwrap();
        let Some(Stores::Postgres(config)) = section.check(Path::new("/etc/bursar")).unwrap() else {
            panic!("{section:?}");
        };
        assert_eq!(config.password_file.as_deref(), Some(Path::new("/etc/bursar/password")));
        assert_eq!(config.ca_file.as_deref(), Some(Path::new("/ca.pem")));
    }
}
