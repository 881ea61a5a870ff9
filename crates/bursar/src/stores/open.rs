//! A ledger in stores other than a directory: created, opened, brought up to date.

use super::Stores;
#[cfg(feature = "postgres")]
use crate::engine_failure::is_no_ledger;
use crate::exit::Failure;
#[cfg(feature = "cache")]
use crate::exit::FailureKind;
#[cfg(feature = "nats")]
use crate::exit::note;
#[cfg(feature = "postgres")]
use crate::ledger_dir::check_empty;
use crate::pairs::Entry;
#[cfg(feature = "postgres")]
use crate::pairs::Value;
#[cfg(feature = "cache")]
use bursar_cache::CacheSettings;
use bursar_core::LedgerConfig;
#[cfg(feature = "postgres")]
use bursar_engine::embedded::{EmbeddedChains, EmbeddedStore};
use bursar_engine::embedded::{EmbeddedOptions, OpenReport};
#[cfg(feature = "postgres")]
use bursar_engine::store::StoreError;
use bursar_engine::store::{Chains, Transactions};
use bursar_engine::{Ledger, LedgerOptions};
#[cfg(feature = "nats")]
use bursar_nats::{NatsChains, NatsOptions};
#[cfg(feature = "postgres")]
use bursar_postgres::{OpenError, PostgresConfig, PostgresStore, SCHEMA_VERSION};
#[cfg(feature = "postgres")]
use std::path::Path;
use std::sync::Arc;

/// Both stores of a ledger.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) config: LedgerConfig,
    pub(crate) chains: Arc<dyn Chains>,
    pub(crate) transactions: Arc<dyn Transactions>,
    /// How a directory was found, where there is one.
    pub(crate) report: Option<OpenReport>,
}

impl Opened {
    /// Lets an engine work on them.
    pub(crate) fn start(self, options: LedgerOptions) -> Result<Ledger, Failure> {
        Ok(Ledger::with_stores(self.config, self.chains, self.transactions, options)?)
    }

    /// Puts them behind a cache; what people are shown may come from there.
    #[cfg(feature = "cache")]
    pub(crate) fn behind(self, settings: &CacheSettings, options: &mut LedgerOptions) -> Result<Self, Failure> {
        let cached = bursar_cache::wrap(&self.config, self.chains, self.transactions, settings);
        let cached = cached.map_err(|error| Failure::new(FailureKind::BadConfig, format!("`[cache]`: {error}")))?;
        options.readers = cached.readers;
        Ok(Self { chains: cached.chains, transactions: cached.transactions, ..self })
    }

    #[cfg(feature = "postgres")]
    fn postgres(store: PostgresStore) -> Self {
        let store = Arc::new(store);
        Self { config: store.config().clone(), chains: store.clone(), transactions: store, report: None }
    }

    #[cfg(feature = "nats")]
    fn pair(chains: NatsChains, transactions: PostgresStore) -> Self {
        let config = chains.config().clone();
        Self { config, chains: Arc::new(chains), transactions: Arc::new(transactions), report: None }
    }

    #[cfg(feature = "postgres")]
    fn beside(chains: EmbeddedChains, transactions: PostgresStore, report: Option<OpenReport>) -> Self {
        let config = chains.config().clone();
        Self { config, chains: Arc::new(chains), transactions: Arc::new(transactions), report }
    }
}

#[cfg_attr(not(feature = "postgres"), expect(unused_variables, reason = "there are no stores to use them for"))]
impl Stores {
    /// Opens the ledger that is in them.
    pub(crate) fn open(&self, embedded: EmbeddedOptions) -> Result<Opened, Failure> {
        match *self {
            #[cfg(feature = "postgres")]
            Self::Postgres(ref config) => Ok(Opened::postgres(PostgresStore::open(config)?)),
            #[cfg(feature = "postgres")]
            Self::EmbeddedAndPostgres(ref directory, ref config) => {
                let (chains, report) = EmbeddedChains::open(directory, embedded)?;
                let transactions = PostgresStore::open_same(config, chains.config())?;
                Ok(Opened::beside(chains, transactions, Some(report)))
            }
            #[cfg(feature = "nats")]
            Self::NatsAndPostgres(ref options, ref config) => {
                let chains = NatsChains::open(NatsOptions::clone(options))?;
                tell_weaknesses(&chains);
                let transactions = PostgresStore::open_same(config, chains.config())?;
                Ok(Opened::pair(chains, transactions))
            }
        }
    }

    /// Creates a ledger in them. Of two stores the chains say that there is one; a creation that was interrupted between
    /// both is completed, if the same is asked for.
    pub(crate) fn create(&self, config: &LedgerConfig, embedded: EmbeddedOptions) -> Result<Opened, Failure> {
        match *self {
            #[cfg(feature = "postgres")]
            Self::Postgres(ref postgres) => Ok(Opened::postgres(PostgresStore::create(postgres, config)?)),
            #[cfg(feature = "postgres")]
            Self::EmbeddedAndPostgres(ref directory, ref postgres) => {
                if has_ledger(postgres)? {
                    return Err(OpenError::Exists { place: self.places()[1].clone() }.into());
                }
                let (chains, report) = open_or_create_chains(directory, config, embedded)?;
                if !is_unused(&chains, chains.config(), config)? {
                    return Err(StoreError::Exists { path: directory.clone() }.into());
                }
                let transactions = PostgresStore::create(postgres, chains.config())?;
                Ok(Opened::beside(chains, transactions, report))
            }
            #[cfg(feature = "nats")]
            Self::NatsAndPostgres(ref options, ref postgres) => {
                if has_ledger(postgres)? {
                    // Its chains may be elsewhere: what is there is not touched.
                    return Err(OpenError::Exists { place: self.places()[1].clone() }.into());
                }
                let chains = match NatsChains::create(config, NatsOptions::clone(options)) {
                    Err(StoreError::Exists { path }) => {
                        let found = NatsChains::open(NatsOptions::clone(options))?;
                        if !is_unused(&found, found.config(), config)? {
                            return Err(StoreError::Exists { path }.into());
                        }
                        found
                    }
                    made => made?,
                };
                tell_weaknesses(&chains);
                let transactions = PostgresStore::create(postgres, chains.config())?;
                Ok(Opened::pair(chains, transactions))
            }
        }
    }

    /// Opens the ledger that is in them; where there is none, creates this one.
    pub(crate) fn open_or_create(&self, config: &LedgerConfig, embedded: EmbeddedOptions) -> Result<Opened, Failure> {
        match *self {
            #[cfg(feature = "postgres")]
            Self::Postgres(ref postgres) => {
                let store = match PostgresStore::open(postgres) {
                    Err(error) if is_no_ledger(&error) => PostgresStore::create(postgres, config)?,
                    opened => opened?,
                };
                Ok(Opened::postgres(store))
            }
            #[cfg(feature = "postgres")]
            Self::EmbeddedAndPostgres(ref directory, ref postgres) => {
                let (chains, report) = open_or_create_chains(directory, config, embedded)?;
                let transactions = open_table(postgres, &chains, chains.config(), config)?;
                Ok(Opened::beside(chains, transactions, report))
            }
            #[cfg(feature = "nats")]
            Self::NatsAndPostgres(ref options, ref postgres) => {
                let chains = match NatsChains::open(NatsOptions::clone(options)) {
                    Err(StoreError::NotFound { .. }) => NatsChains::create(config, NatsOptions::clone(options))?,
                    opened => opened?,
                };
                tell_weaknesses(&chains);
                let transactions = open_table(postgres, &chains, chains.config(), config)?;
                Ok(Opened::pair(chains, transactions))
            }
        }
    }

    /// Brings them to this program's version, and says what was done.
    pub(crate) fn migrate(&self) -> Result<Vec<(&'static str, Entry)>, Failure> {
        match *self {
            #[cfg(feature = "postgres")]
            Self::Postgres(ref config) | Self::EmbeddedAndPostgres(_, ref config) => {
                Ok(vec![migrate_postgres(config)?])
            }
            #[cfg(feature = "nats")]
            Self::NatsAndPostgres(ref options, ref config) => {
                // What is only looked at comes first: if it is not as it must be, nothing is changed.
                let prepared = bursar_nats::prepare(NatsOptions::clone(options))?;
                let streams = vec![
                    ("prefix", Value::shown(&options.prefix)),
                    ("streams", Value::Count(prepared.streams.len() as u64)),
                    ("has_ledger", Value::Flag(prepared.ledger.is_some())),
                    ("weak_settings", Value::Count(prepared.weaknesses.len() as u64)),
                ];
                Ok(vec![("nats", Entry::Group(streams)), migrate_postgres(config)?])
            }
        }
    }
}

#[cfg(feature = "postgres")]
fn migrate_postgres(config: &PostgresConfig) -> Result<(&'static str, Entry), Failure> {
    let before = bursar_postgres::migrate(config)?;
    let group = vec![
        ("schema", Value::shown(&config.schema)),
        ("version_before", Value::Count(before.into())),
        ("version", Value::Count(SCHEMA_VERSION.into())),
    ];
    Ok(("postgres", Entry::Group(group)))
}

#[cfg(feature = "postgres")]
fn has_ledger(config: &PostgresConfig) -> Result<bool, Failure> {
    match PostgresStore::open(config) {
        Ok(_) => Ok(true),
        Err(error) if is_no_ledger(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens the chains in a directory; where there are none, creates those of this ledger.
#[cfg(feature = "postgres")]
fn open_or_create_chains(
    directory: &Path,
    config: &LedgerConfig,
    options: EmbeddedOptions,
) -> Result<(EmbeddedChains, Option<OpenReport>), Failure> {
    if EmbeddedStore::exists(directory) {
        let (chains, report) = EmbeddedChains::open(directory, options)?;
        return Ok((chains, Some(report)));
    }
    check_empty(directory)?;
    Ok((EmbeddedChains::create(directory, config, options)?, None))
}

/// Opens the table of these chains, or creates it for chains that have no history yet: to those that have lost their table,
/// an empty one would let transactions happen twice.
#[cfg(feature = "postgres")]
fn open_table(
    postgres: &PostgresConfig,
    chains: &dyn Chains,
    found: &LedgerConfig,
    asked: &LedgerConfig,
) -> Result<PostgresStore, Failure> {
    match PostgresStore::open_same(postgres, found) {
        Err(error) if is_no_ledger(&error) && is_unused(chains, found, asked)? => {
            Ok(PostgresStore::create(postgres, found)?)
        }
        opened => Ok(opened?),
    }
}

/// Whether these chains are those of a ledger as it is asked for, and nothing happened there yet.
#[cfg(feature = "postgres")]
fn is_unused(chains: &dyn Chains, found: &LedgerConfig, asked: &LedgerConfig) -> Result<bool, Failure> {
    let mut first = Vec::new();
    chains.list(None, 1, &mut first)?;
    Ok(found.policy == asked.policy && found.currencies == asked.currencies && first.is_empty())
}

#[cfg(feature = "nats")]
fn tell_weaknesses(chains: &NatsChains) {
    for weakness in chains.weaknesses() {
        note(&format_args!("warning: {weakness}"));
    }
}
