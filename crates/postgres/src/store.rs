//! A ledger in PostgreSQL: making it, opening it, and what it is.

use crate::config::{Approve, PostgresConfig};
use crate::error::OpenError;
use crate::feed::{self, Follow};
use crate::known::{Ends, UnderWay};
use crate::replica::Replica;
use crate::schema;
use crate::server::Server;
use crate::statements::{Growing, WITH_FEED, WITHOUT_FEED};
use crate::values::Uuid;
use bursar_core::{Currencies, Currency, Decimals, DisputablePolicy, Hash, LedgerConfig, LockedPolicy, Policy};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_postgres::Client;

/// Chains and transactions in PostgreSQL. Any number of these, in any number of processes, may work on one ledger.
#[derive(Debug)]
pub struct PostgresStore {
    pub(crate) server: Server,
    pub(crate) replica: Option<Replica>,
    config: LedgerConfig,
    pub(crate) digest: Hash,
    pub(crate) approve: Approve,
    /// Where this store counts.
    pub(crate) slot: i16,
    pub(crate) under_way: Mutex<UnderWay>,
    pub(crate) ends: Mutex<Ends>,
    pub(crate) growing: &'static Growing,
    /// `None` for a ledger without a feed.
    pub(crate) follow: Option<Follow>,
    /// Names batches: a random beginning, then counted up.
    batches: u128,
    batch_number: AtomicU64,
}

/// Brings the schema of a database to this program's version. Gives the version that it had: 0 for none.
pub fn migrate(config: &PostgresConfig) -> Result<u32, OpenError> {
    Server::new(config)?
        .once(async |client: &mut Client, schema: &str| schema::migrate(client, schema, config.feed).await)
}

impl PostgresStore {
    /// Creates a ledger in a schema that has none, and opens it. Brings the schema up to date first.
    pub fn create(config: &PostgresConfig, ledger: &LedgerConfig) -> Result<Self, OpenError> {
        let server = Server::new(config)?;
        let place = server.place().to_owned();
        server.once(async |client: &mut Client, schema: &str| {
            schema::migrate(client, schema, config.feed).await?;
            insert_ledger(client, ledger, &place).await
        })?;
        Self::with_server(server, config)
    }

    /// Opens the ledger of a schema.
    pub fn open(config: &PostgresConfig) -> Result<Self, OpenError> {
        Self::with_server(Server::new(config)?, config)
    }

    /// Opens the ledger of a schema, if it is this one: for a store that goes together with another one.
    pub fn open_same(config: &PostgresConfig, ledger: &LedgerConfig) -> Result<Self, OpenError> {
        let store = Self::open(config)?;
        if store.config == *ledger {
            Ok(store)
        } else {
            Err(OpenError::OtherLedger { place: store.place().to_owned() })
        }
    }

    fn with_server(server: Server, config: &PostgresConfig) -> Result<Self, OpenError> {
        let place = server.place().to_owned();
        let (ledger, has_feed) = server.once(async |client: &mut Client, schema: &str| {
            let found = schema::version(client, schema).await?;
            schema::check(found)?;
            match found {
                0 => Err(OpenError::NoLedger { place: place.clone() }),
                schema::SCHEMA_VERSION => Ok((read_ledger(client, &place).await?, feed::is_there(client).await?)),
                _ => Err(OpenError::OlderSchema { found, known: schema::SCHEMA_VERSION }),
            }
        })?;
        let digest = ledger.digest();
        server.expect_ledger(digest.as_bytes(), has_feed);
        let mut random = [0; 10];
        getrandom::fill(&mut random).map_err(|error| OpenError::File {
            path: "the system's randomness".into(),
            error: std::io::Error::other(error.to_string()),
        })?;
        let mut batches = [0; 16];
        batches[..8].copy_from_slice(&random[..8]);
        Ok(Self {
            server,
            replica: Replica::new(config, digest.as_bytes())?,
            config: ledger,
            digest,
            approve: config.approve,
            slot: i16::from_be_bytes([random[8] & 0x7f, random[9]]),
            under_way: Mutex::default(),
            ends: Mutex::new(Ends::new(config.heads_kept)),
            growing: if has_feed { &WITH_FEED } else { &WITHOUT_FEED },
            follow: has_feed.then(Follow::default),
            batches: u128::from_be_bytes(batches),
            batch_number: AtomicU64::new(0),
        })
    }

    /// The ledger's identity, rules and currencies.
    pub const fn config(&self) -> &LedgerConfig {
        &self.config
    }

    /// Where the ledger is, for people; without secrets.
    pub fn place(&self) -> &str {
        self.server.place()
    }

    /// The schema that holds it.
    pub fn schema(&self) -> &str {
        self.server.schema()
    }

    pub(crate) fn next_batch(&self) -> u128 {
        self.batches | u128::from(self.batch_number.fetch_add(1, Ordering::Relaxed))
    }
}

async fn insert_ledger(client: &mut Client, ledger: &LedgerConfig, place: &str) -> Result<(), OpenError> {
    let inserting = client.transaction().await?;
    let (locked, disputable) = (ledger.policy.locked.code(), ledger.policy.disputable.code());
    let inserted = inserting
        .execute(
            "INSERT INTO ledger VALUES (1, $1, $2, $3, $4) ON CONFLICT DO NOTHING",
            &[
                &Uuid(u128::from_be_bytes(ledger.ledger)),
                &i16::from(locked),
                &i16::from(disputable),
                &ledger.digest().as_bytes().as_slice(),
            ],
        )
        .await?;
    if inserted == 0 {
        return Err(OpenError::Exists { place: place.to_owned() });
    }
    for (index, currency) in ledger.currencies.iter() {
        let insert = "INSERT INTO currencies VALUES ($1, $2, $3)";
        let decimals = i16::from(currency.decimals().count());
        inserting.execute(insert, &[&i16::from(index.0), &currency.code(), &decimals]).await?;
    }
    inserting.commit().await?;
    Ok(())
}

async fn read_ledger(client: &mut Client, place: &str) -> Result<LedgerConfig, OpenError> {
    let damaged = |what: String| OpenError::Store(crate::values::damaged(place, what));
    let asked = "SELECT ledger, locked_policy, disputable_policy, digest FROM ledger";
    let Some(row) = client.query_opt(asked, &[]).await? else {
        return Err(OpenError::NoLedger { place: place.to_owned() });
    };
    let (ledger, locked, disputable): (Uuid, i16, i16) = (row.get(0), row.get(1), row.get(2));
    let digest: Vec<u8> = row.get(3);
    let code = |code: i16| u8::try_from(code).unwrap_or(u8::MAX);
    let locked = LockedPolicy::from_code(code(locked)).ok_or_else(|| damaged(format!("policy {locked}")))?;
    let disputable =
        DisputablePolicy::from_code(code(disputable)).ok_or_else(|| damaged(format!("policy {disputable}")))?;
    let rows = client.query("SELECT code, decimals FROM currencies ORDER BY currency", &[]).await?;
    let mut list = Vec::with_capacity(rows.len());
    let mut unnamed = None;
    for row in rows {
        let (code, count): (String, i16) = (row.get(0), row.get(1));
        let decimals = u8::try_from(count).ok().and_then(Decimals::new);
        let decimals = decimals.ok_or_else(|| damaged(format!("a currency with {count} decimals")))?;
        if code.is_empty() {
            unnamed = Some(decimals);
        } else {
            list.push(Currency::new(&code, decimals).map_err(|error| damaged(error.to_string()))?);
        }
    }
    let currencies = match unnamed {
        Some(decimals) if list.is_empty() => Currencies::unnamed(decimals),
        Some(_) | None => Currencies::named(list).map_err(|error| damaged(error.to_string()))?,
    };
    let config = LedgerConfig { ledger: ledger.0.to_be_bytes(), policy: Policy { locked, disputable }, currencies };
    if config.digest().as_bytes().as_slice() == digest {
        Ok(config)
    } else {
        Err(damaged("the ledger's digest is not that of its policy and currencies".to_owned()))
    }
}
