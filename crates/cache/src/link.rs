//! One connection to the cache's server, made when it is needed and given up at the first error: after one, nobody knows
//! which answer the next one would be.

use redis::{Connection, ErrorKind, RedisError, RedisResult, ServerErrorKind};
use std::time::{Duration, Instant};

/// An entry to be put into the cache.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// When it is to be gone.
    pub(crate) until: Instant,
    /// Only if nothing is there, and not later than this.
    pub(crate) if_absent_by: Option<Instant>,
}

/// What a mark holds. It is no entry, and keeps others from being put there.
pub(crate) const MARK: &[u8] = b"-";

/// A call that came to nothing.
#[derive(Debug)]
pub(crate) struct Failed;

pub(crate) struct Link {
    client: redis::Client,
    connection: Option<Connection>,
    connect_timeout: Duration,
    timeout: Duration,
}

impl Link {
    pub(crate) const fn new(client: redis::Client, connect_timeout: Duration, timeout: Duration) -> Self {
        Self { client, connection: None, connect_timeout, timeout }
    }

    pub(crate) fn get(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Failed> {
        let values: Vec<Option<Vec<u8>>> = self.ask(|connection| redis::cmd("MGET").arg(keys).query(connection))?;
        if values.len() == keys.len() { Ok(values) } else { Err(self.give_up()) }
    }

    /// Whether the server is a node of a cluster: each has a part of the keys, and refuses the others.
    pub(crate) fn is_cluster(&mut self) -> Result<bool, Failed> {
        let told: String = self.ask(|connection| redis::cmd("INFO").arg("cluster").query(connection))?;
        Ok(told.lines().any(|line| line.trim_end() == "cluster_enabled:1"))
    }

    /// Puts marks where entries may be. Where a server has no room for them, the entries are at least taken away.
    pub(crate) fn mark(&mut self, keys: &[Vec<u8>], mark_for: Duration) -> Result<(), Failed> {
        let marked = self.ask(|connection| {
            let mut pipe = redis::pipe();
            for key in keys {
                pipe.cmd("SET").arg(key).arg(MARK).arg("PX").arg(millis(mark_for)).ignore();
            }
            pipe.query::<()>(connection)
        });
        if marked.is_ok() { Ok(()) } else { self.remove(keys) }
    }

    pub(crate) fn remove(&mut self, keys: &[Vec<u8>]) -> Result<(), Failed> {
        self.ask(|connection| redis::cmd("DEL").arg(keys).query(connection))
    }

    pub(crate) fn put(&mut self, puts: &[Put]) -> Result<(), Failed> {
        let now = Instant::now();
        let is_due = |put: &&Put| put.until > now && put.if_absent_by.is_none_or(|by| now <= by);
        let mut pipe = redis::pipe();
        for put in puts.iter().filter(is_due) {
            let keep = millis(put.until.saturating_duration_since(now));
            pipe.cmd("SET").arg(&put.key).arg(&put.value).arg("PX").arg(keep);
            if put.if_absent_by.is_some() {
                pipe.arg("NX");
            }
            pipe.ignore();
        }
        if pipe.is_empty() { Ok(()) } else { self.ask(|connection| pipe.query::<()>(connection)) }
    }

    /// Asks once; and once more on a new connection if it was an old one that turned out to be gone.
    fn ask<T>(&mut self, ask: impl Fn(&mut Connection) -> RedisResult<T>) -> Result<T, Failed> {
        if let Some(connection) = &mut self.connection {
            match ask(connection) {
                Ok(found) => return Ok(found),
                Err(error) if error.is_timeout() || is_answer(&error) => return Err(self.after(&error)),
                Err(_) => {}
            }
        }
        let connection = match self.connect() {
            Ok(connection) => self.connection.insert(connection),
            Err(_) => return Err(self.give_up()),
        };
        ask(connection).map_err(|error| self.after(&error))
    }

    fn connect(&self) -> RedisResult<Connection> {
        let connection = self.client.get_connection_with_timeout(self.connect_timeout)?;
        connection.set_read_timeout(Some(self.timeout))?;
        connection.set_write_timeout(Some(self.timeout))?;
        Ok(connection)
    }

    /// A server that has said no goes on being understood; after anything else the connection is given up.
    fn after(&mut self, error: &RedisError) -> Failed {
        if is_answer(error) { Failed } else { self.give_up() }
    }

    fn give_up(&mut self) -> Failed {
        self.connection = None;
        Failed
    }
}

/// Whether a server has answered, and said that it cannot or will not. One that says it is another server's business, or
/// that it is only read from, is asked anew: its address may lead elsewhere by then.
fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(kind) if kind == ServerErrorKind::ResponseError)
        || (error.code() == Some("OOM"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
