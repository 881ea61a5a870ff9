//! One webhook: where it is, how it fares, and what operators ask of it.
//!
//! Everything that changes is behind one lock that nobody holds while waiting. The task that delivers ([`super::delivery`])
//! looks here before each step; operators change what it finds, and wake it.

use super::config::{Prepared, WebhookError};
use super::cursor::{CursorFile, Paused, Saved};
use crate::follow::Filter;
use bursar_core::{CustomerId, EventId};
use bursar_engine::Ledger;
use bursar_engine::embedded::EmbeddedStore;
use bursar_engine::store::{ChainEntry, FeedPosition};
use bursar_outbound::Secrets;
use reqwest::{Client, Url};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Attempts that are remembered.
const ATTEMPTS_MAX: usize = 1_000;
/// Events that wait to be sent again by themselves.
const RESENDS_MAX: usize = 100;

/// An attempt to deliver an event.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) time_ms: u64,
    pub(crate) took_ms: u64,
    /// The `webhook-id`.
    pub(crate) id: String,
    pub(crate) customer: CustomerId,
    pub(crate) seq: u64,
    pub(crate) event: EventId,
    pub(crate) position: Option<FeedPosition>,
    /// What the receiver answered.
    pub(crate) status: Option<u16>,
    /// Why it was not delivered.
    pub(crate) failure: Option<String>,
}

/// An event to be sent again by itself.
#[derive(Clone, Debug)]
pub(crate) struct Resend {
    pub(crate) entry: ChainEntry,
    pub(crate) position: Option<FeedPosition>,
}

/// What changes.
#[derive(Debug)]
pub(super) struct State {
    /// Everything before it was delivered, or is not wanted.
    pub(super) position: FeedPosition,
    /// How often an operator has moved it.
    pub(super) moved: u64,
    pub(super) paused: Option<Paused>,
    /// Attempts in a row that have failed.
    pub(super) failures: u32,
    /// When the next attempt is due, after a failure.
    pub(super) next_attempt_ms: Option<u64>,
    pub(super) last_success_ms: Option<u64>,
    pub(super) last_failure: Option<(u64, String)>,
    pub(super) attempts: VecDeque<Attempt>,
    pub(super) resends: VecDeque<Resend>,
    pub(super) delivered: u64,
    pub(super) failed: u64,
    /// What the file says.
    pub(super) saved: Option<Saved>,
}

impl State {
    pub(super) const fn to_save(&self) -> Saved {
        Saved { position: self.position, paused: self.paused }
    }
}

/// What is shown of a webhook.
#[derive(Clone, Debug)]
pub(crate) struct Overview {
    pub(crate) position: FeedPosition,
    pub(crate) paused: Option<Paused>,
    pub(crate) failures: u32,
    pub(crate) next_attempt_ms: Option<u64>,
    pub(crate) last_success_ms: Option<u64>,
    pub(crate) last_failure: Option<(u64, String)>,
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
}

/// One webhook.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(super) name: String,
    pub(super) url: Url,
    pub(super) secrets: Secrets,
    pub(super) filter: Filter,
    pub(super) retry_ms: (u64, u64),
    pub(super) client: Client,
    /// `None` where there is no directory, as for a ledger in memory.
    pub(super) file: Option<CursorFile>,
    pub(super) wake: Notify,
    state: Mutex<State>,
}

impl Endpoint {
    /// Finds where it goes on. A new one has its place written down at once, so that it misses nothing from here on.
    pub(super) fn open(prepared: Prepared, ledger: &Ledger, directory: Option<&Path>) -> Result<Self, WebhookError> {
        let Prepared { name, url, secrets, filter, from, retry_ms, client } = prepared;
        if url.scheme() == "http" && !is_loopback(&url) {
            tracing::warn!(webhook = name, "events are sent without TLS");
        }
        let directory = ledger.embedded().map(EmbeddedStore::path).or(directory);
        let file = directory.map(|directory| CursorFile::of(directory, &name));
        let found = file.as_ref().map_or(Ok(None), CursorFile::read)?;
        let refused = |problem: &crate::Problem| {
            let cause = problem.cause().unwrap_or_else(|| problem.info().meaning.to_owned());
            WebhookError::of(&name, format!("it has no place in this ledger: {cause}"))
        };
        let place = found.map_or(from, |saved| crate::follow::Place::At(saved.position));
        let position = place.find(ledger).map_err(|problem| refused(&problem))?;
        let saved = found.unwrap_or(Saved { position, paused: None });
        if let (Some(file), None) = (&file, found) {
            let written = file.write(saved);
            written.map_err(|error| WebhookError::of(&name, format!("its place cannot be kept: {error}")))?;
        }
        let state = State {
            position: saved.position,
            moved: 0,
            paused: saved.paused,
            failures: 0,
            next_attempt_ms: None,
            last_success_ms: None,
            last_failure: None,
            attempts: VecDeque::new(),
            resends: VecDeque::new(),
            delivered: 0,
            failed: 0,
            saved: Some(saved),
        };
        let (wake, state) = (Notify::new(), Mutex::new(state));
        Ok(Self { name, url, secrets, filter, retry_ms, client, file, wake, state })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The address without what may be secret in it.
    pub(crate) fn shown_url(&self) -> String {
        let mut url = self.url.clone();
        if url.query().is_some() {
            url.set_query(Some("..."));
        }
        url.to_string()
    }

    pub(crate) fn overview(&self) -> Overview {
        let state = self.lock();
        Overview {
            position: state.position,
            paused: state.paused,
            failures: state.failures,
            next_attempt_ms: state.next_attempt_ms,
            last_success_ms: state.last_success_ms,
            last_failure: state.last_failure.clone(),
            delivered: state.delivered,
            failed: state.failed,
        }
    }

    /// The newest attempts, newest first.
    pub(crate) fn attempts(&self, limit: usize) -> Vec<Attempt> {
        self.lock().attempts.iter().rev().take(limit).cloned().collect()
    }

    /// The newest attempt for an event, by its id.
    pub(crate) fn attempt_for(&self, event: &str) -> Option<Attempt> {
        self.lock().attempts.iter().rev().find(|attempt| attempt.event.to_string() == event).cloned()
    }

    /// Delivers nothing until it is resumed. What is under way comes to its end.
    pub(crate) fn pause(&self) {
        self.lock().paused.get_or_insert(Paused::Operator);
        self.wake.notify_one();
    }

    /// Delivers again, without waiting for the next attempt that was due.
    pub(crate) fn resume(&self) {
        let mut state = self.lock();
        state.paused = None;
        (state.failures, state.next_attempt_ms) = (0, None);
        drop(state);
        self.wake.notify_one();
    }

    /// Goes on behind another position.
    pub(crate) fn go_to(&self, position: FeedPosition) {
        let mut state = self.lock();
        state.position = position;
        state.moved += 1;
        (state.failures, state.next_attempt_ms) = (0, None);
        drop(state);
        self.wake.notify_one();
    }

    /// Has an event sent again by itself; `false`: too many wait already.
    pub(crate) fn resend(&self, resend: Resend) -> bool {
        let mut state = self.lock();
        let has_room = state.resends.len() < RESENDS_MAX;
        if has_room {
            state.resends.push_back(resend);
        }
        drop(state);
        self.wake.notify_one();
        has_room
    }

    pub(super) fn note(&self, attempt: Attempt) {
        let mut state = self.lock();
        if attempt.failure.is_some() {
            state.failed += 1;
        } else {
            state.delivered += 1;
        }
        if state.attempts.len() >= ATTEMPTS_MAX {
            state.attempts.pop_front();
        }
        state.attempts.push_back(attempt);
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
