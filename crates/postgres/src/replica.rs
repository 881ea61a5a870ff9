//! Reads from a replica that decide nothing: ranges of chains, lists, sums, what touched a transaction.
//!
//! Such a read is as fresh as one from the primary: the primary is asked how far its log is, and the replica answers
//! once it has replayed that, on the same timeline. So whoever was told of something finds it, whichever engine it was
//! told by. A replica that is not that far in time, cannot be reached or does not follow is left out for that read, and
//! one that failed for a while; then the primary is asked.
//!
//! What this module does not do: read anything that a request is decided on, other than what can never change.

use crate::config::PostgresConfig;
use crate::error::OpenError;
use crate::server::{Params, Server};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::Row;

/// How far the primary's log is durable, and on which timeline. Every commit that somebody was told of lies before it.
const POSITION: &str = "SELECT pg_current_wal_flush_lsn()::text, \
    ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int";
/// Whether a replica has replayed that.
const HAS_REPLAYED: &str = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn FROM pg_stat_wal_receiver r \
    WHERE r.status = 'streaming' AND r.received_tli = $2::int";

/// How long a replica that failed is left alone.
const REST: Duration = Duration::from_secs(5);
/// How long to wait before it is asked again how far it is, at first; doubles.
const PAUSE: Duration = Duration::from_millis(1);

/// A replica for reading.
#[derive(Debug)]
pub(crate) struct Replica {
    server: Server,
    wait_max: Duration,
    resting_until: Mutex<Option<Instant>>,
}

impl Replica {
    /// The replica of a configuration; `None` if it names none. It need not be there yet.
    pub(crate) fn new(config: &PostgresConfig, digest: &[u8]) -> Result<Option<Self>, OpenError> {
        let Some(url) = &config.read_url else { return Ok(None) };
        let server = Server::replica(config, url)?;
        server.expect_ledger(digest, false);
        let wait_max = Duration::from_millis(config.read_wait_ms);
        Ok(Some(Self { server, wait_max, resting_until: Mutex::default() }))
    }

    /// The rows of a statement, as the ledger is now or later; `None` if the primary is to be asked.
    pub(crate) fn rows(&self, primary: &Server, text: &'static str, params: Params<'_>) -> Option<Vec<Row>> {
        let rests = |until: &mut Option<Instant>| until.is_some_and(|until| Instant::now() < until);
        if rests(&mut self.resting_until.lock().unwrap_or_else(PoisonError::into_inner)) {
            return None;
        }
        let position = primary.call("look how far the log is", POSITION, &[]).ok()?;
        let position = position.rows.first()?;
        let (lsn, timeline): (String, i32) = (position.try_get(0).ok()?, position.try_get(1).ok()?);
        let deadline = Instant::now() + self.wait_max;
        let mut pause = PAUSE;
        loop {
            let answer = self.server.call("look how far the replica is", HAS_REPLAYED, &[&lsn, &timeline]);
            let Ok(answer) = answer else { return self.rest() };
            let replayed: Option<bool> = answer.rows.first().and_then(|row| row.try_get(0).ok().flatten());
            match replayed {
                Some(true) => break,
                // It follows nobody, or another timeline, or does not say.
                None => return self.rest(),
                Some(false) if Instant::now() + pause > deadline => return None,
                Some(false) => std::thread::sleep(pause),
            }
            pause *= 2;
        }
        match self.server.call("read from the replica", text, params) {
            Ok(answer) => Some(answer.rows),
            Err(_) => self.rest(),
        }
    }

    fn rest(&self) -> Option<Vec<Row>> {
        *self.resting_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
        None
    }
}
