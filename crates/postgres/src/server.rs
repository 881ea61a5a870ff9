//! The server: a small pool of connections behind blocking calls, the runtime hidden inside.
//!
//! A call is one statement, which takes effect as a whole or not at all. Where the server says that it did not (a
//! deadlock, a serialization failure, a statement that took too long), it is made again. Where the answer is lost
//! with the connection, nobody knows: it is made again on a new connection, and the caller is told that it may have
//! taken effect before ([`Answer::repeated`]). All statements are such that this does no harm.
//!
//! Every new connection is looked at before it is used: that the server keeps what it acknowledges, and that it is
//! the same ledger.

use crate::config::{PostgresConfig, hosts_of};
use crate::durability::Durability;
use crate::error::{OpenError, UnsafeSetting, sentence};
use bursar_engine::store::StoreError;
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The parameters of a statement.
pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// How long to wait before a call is made again, at first; doubles up to the second.
const BACK_OFF: Duration = Duration::from_millis(5);
const BACK_OFF_MAX: Duration = Duration::from_millis(500);
/// How much longer than the server's own limit an answer is waited for.
const GRACE: Duration = Duration::from_secs(2);

/// A statement that inserts rows, in its forms; see [`crate::statements`].
pub(crate) struct Texts {
    /// The plain form, for servers of this epoch.
    pub(crate) plain: Option<(u64, &'static str)>,
    pub(crate) checked: &'static str,
    pub(crate) careful: &'static str,
}

/// Which form of a statement has taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Checked,
    Careful,
}

/// What the statement gave.
pub(crate) struct Answer {
    pub(crate) rows: Vec<Row>,
    /// Which server has answered: one that has a later number may not have all that an earlier one had.
    pub(crate) epoch: u64,
    /// Its timeline; 0 where there are no standbys, one of which could begin another.
    pub(crate) timeline: u64,
    /// Which form of the statement it was.
    pub(crate) form: Form,
    /// An earlier attempt may have taken effect.
    pub(crate) repeated: bool,
    /// The server warned: it has committed, and may not have waited for the standbys. So it does where somebody cancels
    /// a statement that waits for them.
    pub(crate) warned: bool,
}

/// A server with a ledger.
pub(crate) struct Server {
    runtime: Option<Runtime>,
    /// One for each server that may be the right one.
    hosts: Vec<tokio_postgres::Config>,
    connect_timeout: Duration,
    tls: Option<MakeRustlsConnect>,
    schema: String,
    place: String,
    connections_max: usize,
    statement_timeout: Duration,
    retry_for: Duration,
    allow_unsafe_settings: bool,
    /// The digest of the ledger that every connection must lead to, once it is known.
    digest: Mutex<Option<Vec<u8>>>,
    /// Whether every connection looks that the order of the feed goes on behind what is there.
    keeps_order: AtomicBool,
    pool: Mutex<Pool>,
    returned: Condvar,
    durability: Durability,
    epoch: Mutex<Epoch>,
}

/// Counts the servers that connections have led to. A server that was started anew is another one: it may have lost
/// what no standby had, or be a standby that was promoted.
#[derive(Default)]
struct Epoch {
    number: u64,
    identity: String,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Connection>,
    open_count: usize,
}

/// One connection with the statements prepared on it.
struct Connection {
    client: Client,
    driver: JoinHandle<()>,
    statements: HashMap<&'static str, Statement>,
    has_standbys: bool,
    epoch: u64,
    timeline: u64,
    /// The server has sent a warning since this was last looked at.
    warned: Arc<AtomicBool>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The timeline that a server writes. Asked only where there are standbys: not every relative of PostgreSQL has these functions.
const TIMELINE: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN 0 ELSE \
    ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::bigint END";

/// What to do about a failed attempt.
enum Next {
    /// It did not take effect.
    Again,
    /// It may have taken effect; the connection is gone.
    Reconnect,
    /// It did not take effect: a row was there already.
    Taken,
    GiveUp,
}

fn next_after(error: &tokio_postgres::Error) -> Next {
    let Some(code) = error.code() else {
        // No answer of the server: the connection broke, or the client could not make sense of something.
        let is_client = error.to_string().contains("serializing") || error.to_string().contains("deserializing");
        return if is_client { Next::GiveUp } else { Next::Reconnect };
    };
    match *code {
        SqlState::UNIQUE_VIOLATION => Next::Taken,
        SqlState::T_R_SERIALIZATION_FAILURE
        | SqlState::T_R_DEADLOCK_DETECTED
        | SqlState::LOCK_NOT_AVAILABLE
        | SqlState::QUERY_CANCELED => Next::Again,
        SqlState::ADMIN_SHUTDOWN
        | SqlState::CRASH_SHUTDOWN
        | SqlState::CANNOT_CONNECT_NOW
        | SqlState::TOO_MANY_CONNECTIONS
        | SqlState::READ_ONLY_SQL_TRANSACTION
        | SqlState::IDLE_SESSION_TIMEOUT => Next::Reconnect,
        ref other if other.code().starts_with("08") => Next::Reconnect,
        _ => Next::GiveUp,
    }
}

impl Server {
    pub(crate) fn new(config: &PostgresConfig) -> Result<Self, OpenError> {
        let retry_for = Duration::from_millis(config.retry_for_ms);
        Self::of(config, &config.client()?, retry_for, config.allow_unsafe_settings)
    }

    /// A server that is only read from: what it would keep does not matter, and nothing is tried twice.
    pub(crate) fn replica(config: &PostgresConfig, url: &str) -> Result<Self, OpenError> {
        Self::of(config, &config.client_at("read_url", url)?, Duration::ZERO, true)
    }

    fn of(
        config: &PostgresConfig,
        client: &tokio_postgres::Config,
        retry_for: Duration,
        allow_unsafe_settings: bool,
    ) -> Result<Self, OpenError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).thread_name("bursar-postgres").enable_io().enable_time();
        let runtime = builder.build().map_err(|error| OpenError::File { path: "the runtime".into(), error })?;
        let names: Vec<String> = client.get_hosts().iter().map(|host| format!("{host:?}")).collect();
        let database = client.get_dbname().unwrap_or_default();
        Ok(Self {
            runtime: Some(runtime),
            tls: config.ca_file.as_deref().map(tls).transpose()?,
            place: format!("schema {} of database {database} at {}", config.schema, names.join(", ")),
            hosts: hosts_of(client),
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            schema: config.schema.clone(),
            connections_max: config.connections,
            statement_timeout: Duration::from_millis(config.statement_timeout_ms),
            retry_for,
            allow_unsafe_settings,
            digest: Mutex::default(),
            keeps_order: AtomicBool::new(false),
            pool: Mutex::default(),
            returned: Condvar::new(),
            durability: Durability::default(),
            epoch: Mutex::default(),
        })
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(crate) fn durability(&self) -> &Durability {
        &self.durability
    }

    /// A call that began when [`Durability::begin`] said `begun` has written something.
    pub(crate) fn wrote(&self, begun: u64, answer: &Answer) {
        if answer.warned {
            // It is there, as what is read is, and has to be covered by a commit that does wait.
            self.durability.read(answer.timeline);
        } else {
            self.durability.wrote(begun, answer.timeline);
        }
    }

    /// Makes a commit that waits for the standbys, whoever cancels it; `text` and `params` are what is committed.
    pub(crate) fn commit(
        &self,
        doing: &'static str,
        text: &'static str,
        params: Params<'_>,
    ) -> Result<Answer, StoreError> {
        let deadline = Instant::now() + self.retry_for;
        loop {
            let begun = self.durability.begin();
            let answer = self.call(doing, text, params)?;
            self.wrote(begun, &answer);
            if !answer.warned {
                return Ok(answer);
            }
            if Instant::now() > deadline {
                let what = "somebody has cancelled the wait for the standbys".to_owned();
                return Err(StoreError::Database { doing, place: self.place.clone(), what });
            }
        }
    }

    /// From now on, only connections to the ledger with this digest are used; one that has a feed, or is not asked for it.
    pub(crate) fn expect_ledger(&self, digest: &[u8], keeps_order: bool) {
        self.keeps_order.store(keeps_order, Ordering::Release);
        *self.digest.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest.to_vec());
    }

    /// Runs work of its own on a connection of its own, once.
    pub(crate) fn once<T>(
        &self,
        work: impl AsyncFnOnce(&mut Client, &str) -> Result<T, OpenError>,
    ) -> Result<T, OpenError> {
        self.block_on(async {
            let mut connection = self.connect().await?;
            work(&mut connection.client, &self.schema).await
        })
        .map_err(|error| error.at(&self.place))
    }

    /// Makes a call: one statement.
    pub(crate) fn call(
        &self,
        doing: &'static str,
        text: &'static str,
        params: Params<'_>,
    ) -> Result<Answer, StoreError> {
        self.call_any(doing, None, text, None, params)
    }

    /// Makes a call by a statement that fails as a whole where a row is there already. If so, it is made by the
    /// careful form, which leaves such rows out: that one costs more, and is seldom needed.
    pub(crate) fn insert(&self, doing: &'static str, texts: &Texts, params: Params<'_>) -> Result<Answer, StoreError> {
        self.call_any(doing, texts.plain, texts.checked, Some(texts.careful), params)
    }

    fn call_any(
        &self,
        doing: &'static str,
        mut plain: Option<(u64, &'static str)>,
        checked: &'static str,
        mut careful: Option<&'static str>,
        params: Params<'_>,
    ) -> Result<Answer, StoreError> {
        let deadline = Instant::now() + self.retry_for;
        let mut taken: Option<&'static str> = None;
        let mut repeated = false;
        let mut back_off = BACK_OFF;
        loop {
            let failed = |what: String| StoreError::Database { doing, place: self.place.clone(), what };
            let (may_have, what) = match self.take() {
                Ok(mut connection) => {
                    let (epoch, timeline) = (connection.epoch, connection.timeline);
                    plain = plain.filter(|(of, _)| *of == epoch && taken.is_none());
                    let (form, text) = match (taken, plain) {
                        (Some(text), _) => (Form::Careful, text),
                        (None, Some((_, text))) => (Form::Plain, text),
                        (None, None) => (Form::Checked, checked),
                    };
                    connection.warned.store(false, Ordering::Release);
                    let attempted = self.attempt(&mut connection, text, params);
                    let warned = connection.has_standbys && connection.warned.load(Ordering::Acquire);
                    if matches!(attempted, Err((Next::Reconnect, _))) {
                        self.give_up(connection);
                    } else {
                        self.give_back(connection);
                    }
                    match attempted {
                        Ok(rows) => {
                            if repeated {
                                // What an earlier attempt has written may be found, and not be on the standbys.
                                self.durability.read(timeline);
                            }
                            return Ok(Answer { rows, epoch, timeline, form, repeated, warned });
                        }
                        Err((Next::Again, what)) => (false, what),
                        Err((Next::Taken, what)) => {
                            taken = Some(careful.take().ok_or_else(|| failed(what))?);
                            continue;
                        }
                        Err((Next::GiveUp, what)) => return Err(failed(what)),
                        Err((Next::Reconnect, what)) => (true, what),
                    }
                }
                Err(OpenError::Server { what, .. }) => (false, what),
                Err(error) => return Err(failed(error.to_string())),
            };
            repeated |= may_have;
            if Instant::now() + back_off > deadline {
                return Err(failed(what));
            }
            std::thread::sleep(back_off);
            back_off = (2 * back_off).min(BACK_OFF_MAX);
        }
    }

    fn attempt(
        &self,
        connection: &mut Connection,
        text: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, (Next, String)> {
        let limit = self.statement_timeout + GRACE;
        let asking = async {
            if !connection.statements.contains_key(text) {
                let statement = connection.client.prepare(text).await?;
                connection.statements.insert(text, statement);
            }
            let statement = connection.statements[text].clone();
            connection.client.query(&statement, params).await
        };
        let answered = self.block_on(async { timeout(limit, asking).await });
        match answered {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err((next_after(&error), sentence(&error))),
            Err(_) => Err((Next::Reconnect, format!("no answer within {} ms", limit.as_millis()))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Result<Connection, OpenError> {
        let mut pool = self.lock();
        loop {
            while let Some(connection) = pool.idle.pop() {
                if !connection.client.is_closed() {
                    return Ok(connection);
                }
                pool.open_count -= 1;
            }
            if pool.open_count < self.connections_max {
                break;
            }
            pool = self.returned.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
        pool.open_count += 1;
        drop(pool);
        let connected = self.block_on(self.connect());
        if connected.is_err() {
            self.lock().open_count -= 1;
            self.returned.notify_one();
        }
        connected
    }

    fn give_back(&self, connection: Connection) {
        self.lock().idle.push(connection);
        self.returned.notify_one();
    }

    fn give_up(&self, connection: Connection) {
        drop(connection);
        self.lock().open_count -= 1;
        self.returned.notify_one();
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            None => unreachable!("the runtime is there until the server is dropped"),
        }
    }

    /// Connects to the first server that answers, each in its own time: one that takes connections and says nothing does
    /// not keep anybody from the next.
    async fn connect(&self) -> Result<Connection, OpenError> {
        let mut why = "the URL names no server".to_owned();
        for host in &self.hosts {
            match self.connect_to(host).await {
                Err(OpenError::Server { what, .. }) => why = what,
                connected => return connected,
            }
        }
        Err(OpenError::Server { place: self.place.clone(), what: why })
    }

    async fn connect_to(&self, host: &tokio_postgres::Config) -> Result<Connection, OpenError> {
        let failed = |what: String| OpenError::Server { place: self.place.clone(), what };
        let warned = Arc::new(AtomicBool::new(false));
        let connecting = async {
            Ok(match &self.tls {
                None => {
                    let (client, connection) = host.connect(NoTls).await?;
                    (client, tokio::spawn(drive(connection, warned.clone())))
                }
                Some(tls) => {
                    let (client, connection) = host.connect(tls.clone()).await?;
                    (client, tokio::spawn(drive(connection, warned.clone())))
                }
            })
        };
        let limit = self.connect_timeout;
        let connected: Result<_, tokio_postgres::Error> = timeout(limit, connecting)
            .await
            .map_err(|_| failed(format!("no answer within {} ms to who connects", limit.as_millis())))?;
        let (client, driver) = connected.map_err(|error| failed(sentence(&error)))?;
        let mut connection = Connection {
            client,
            driver,
            statements: HashMap::new(),
            has_standbys: false,
            epoch: 0,
            timeline: 0,
            warned,
        };
        let checked = timeout(self.statement_timeout + GRACE, self.prepare(&mut connection)).await;
        checked.map_err(|_| failed("no answer to the first statement".to_owned()))??;
        Ok(connection)
    }

    /// The epoch of a server that answers now.
    fn epoch_of(&self, identity: String) -> u64 {
        let mut epoch = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch.identity != identity {
            *epoch = Epoch { number: epoch.number + 1, identity };
        }
        epoch.number
    }

    /// Sets up a new connection, and looks at what it leads to.
    async fn prepare(&self, connection: &mut Connection) -> Result<(), OpenError> {
        let failed =
            |error: tokio_postgres::Error| OpenError::Server { place: self.place.clone(), what: sentence(&error) };
        // What commits wait for stays as it is looked at below, whatever is set for the server meanwhile.
        // Every statement here goes to rows by their keys. A plan is made once, perhaps while tables are still empty:
        // it must not be one that reads whole tables.
        let settings = format!(
            "SET search_path = {}; SET statement_timeout = {}; SET plan_cache_mode = force_generic_plan; SET jit = off; \
             SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
             SET enable_bitmapscan = off; SET default_transaction_isolation = 'read committed'",
            self.schema,
            self.statement_timeout.as_millis()
        );
        connection.client.batch_execute(&settings).await.map_err(failed)?;
        let asked = "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
            set_config('synchronous_commit', current_setting('synchronous_commit'), false), current_setting('synchronous_standby_names'), \
            concat(pg_postmaster_start_time(), ' ', inet_server_addr(), ' ', inet_server_port())";
        let row = connection.client.query_one(asked, &[]).await.map_err(failed)?;
        let (standbys, identity): (String, String) = (row.get(3), row.get(4));
        connection.epoch = self.epoch_of(identity);
        connection.has_standbys = !standbys.is_empty();
        if connection.has_standbys || self.durability.has_standbys() {
            let found = connection.client.query_one(TIMELINE, &[]).await.map_err(failed)?;
            connection.timeline = found.get::<_, i64>(0).unsigned_abs();
        }
        if connection.has_standbys {
            self.durability.note_standbys();
        }
        let found = unsafe_settings(&row, connection.has_standbys);
        if !found.is_empty() && !self.allow_unsafe_settings {
            return Err(OpenError::UnsafeSettings { settings: found });
        }
        let expected = self.digest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(expected) = expected {
            let found = connection.client.query_opt("SELECT digest FROM ledger", &[]).await.map_err(failed)?;
            if found.is_none_or(|row| row.get::<_, Vec<u8>>(0) != expected) {
                return Err(OpenError::OtherLedger { place: self.place.clone() });
            }
        }
        if self.keeps_order.load(Ordering::Acquire) {
            connection.client.execute(crate::feed::KEEP_ORDER, &[]).await.map_err(failed)?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.lock().idle.clear();
        // Also where somebody else's runtime may not be blocked.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Takes a connection's messages until it ends, and notes that the server has warned.
async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, warned: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        // It comes before the answer to the statement that it is about.
        if let AsyncMessage::Notice(notice) = message
            && notice.parsed_severity() == Some(Severity::Warning)
        {
            warned.store(true, Ordering::Release);
        }
    }
}

fn unsafe_settings(row: &Row, has_standbys: bool) -> Vec<UnsafeSetting> {
    let [fsync, full_page_writes, commit]: [String; 3] = [row.get(0), row.get(1), row.get(2)];
    let mut found = Vec::new();
    if fsync != "on" {
        let why = "what is committed may not be on the disk after a loss of power, and the rest may be damaged";
        found.push(UnsafeSetting { name: "fsync", value: fsync, why });
    }
    if full_page_writes != "on" {
        let why = "a page that is half written at a loss of power stays damaged";
        found.push(UnsafeSetting { name: "full_page_writes", value: full_page_writes, why });
    }
    if commit == "off" {
        let why = "commits are acknowledged before they are on the disk";
        found.push(UnsafeSetting { name: "synchronous_commit", value: commit, why });
    } else if commit == "local" && has_standbys {
        let why = "commits are acknowledged before a standby has them, and a failover loses them";
        found.push(UnsafeSetting { name: "synchronous_commit", value: commit, why });
    }
    found
}

/// Encryption with a check of the server by these certificates.
fn tls(ca_file: &std::path::Path) -> Result<MakeRustlsConnect, OpenError> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let bad = |what: String| OpenError::Config { field: "ca_file", what };
    let pem = std::fs::read(ca_file).map_err(|error| OpenError::File { path: ca_file.to_owned(), error })?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("it holds no certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = versions.map_err(|error| bad(error.to_string()))?.with_root_certificates(roots).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
