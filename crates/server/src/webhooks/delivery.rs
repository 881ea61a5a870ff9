//! The task of one webhook: read on, send, and move the cursor.

use super::cursor::Paused;
use super::endpoint::{Attempt, Endpoint, Resend};
use crate::api::stream::MessageType;
use crate::follow::{Follower, Waited};
use crate::service::{Service, Stage};
use crate::shown::{Shown, Time};
use crate::wire::{EventBody, event_body};
use bursar_core::Currencies;
use bursar_engine::store::{ChainEntry, FeedPosition};
use bursar_outbound::{in_words, now_ms, retry_after, signed};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use utoipa::ToSchema;

/// The cursor is written after so many deliveries, or
const SAVE_DELIVERIES: u32 = 256;
/// after so long, whichever comes first; and whenever there is nothing more to deliver.
const SAVE_AFTER: Duration = Duration::from_millis(500);
/// How long an attempt that is under way may still take when the service stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait when the events cannot be read.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// How much of an answer is read, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;
const IDLE: Duration = Duration::from_hours(1);

/// What is posted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookMessage)]
pub(crate) struct Message<'a> {
    r#type: MessageType,
    /// The event's time.
    #[schema(value_type = String, format = "date-time")]
    timestamp: Time,
    data: MessageData<'a>,
}

/// The event as `/v1/customers/{customer}/events` lists it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageData<'a> {
    #[serde(flatten)]
    event: EventBody<'a>,
    /// The place behind the event in the ledger's stream; not there in one that was sent again by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    position: Option<Shown<FeedPosition>>,
}

/// A message's id: the same whenever the same event with the same status is sent. It has no point in it, as the standard
/// asks.
fn message_id(entry: &ChainEntry) -> String {
    format!("{}_{}", entry.linked.id(), entry.status.name())
}

fn message_body(
    entry: &ChainEntry,
    position: Option<FeedPosition>,
    currencies: &Currencies,
) -> serde_json::Result<Vec<u8>> {
    let data = MessageData { event: event_body(entry, currencies), position: position.map(Shown) };
    let timestamp = Time(entry.linked.event.time_ms);
    serde_json::to_vec(&Message { r#type: MessageType::of(&entry.status), timestamp, data })
}

/// How an attempt ended.
enum Ended {
    Delivered,
    Gone,
    /// With how long the receiver asks to wait.
    Failed(Option<Duration>),
    /// The service stops; whether it was delivered is not known.
    Stopping,
}

/// How the delivery of an event ended.
enum Delivery {
    Done,
    /// Something else comes first: look at the endpoint's state again.
    Interrupted,
}

struct Task {
    endpoint: Arc<Endpoint>,
    service: Arc<Service>,
    /// `None` while the webhook is paused: the stores are looked at as long as somebody follows.
    follower: Option<Follower>,
    unsaved: u32,
    saved_at: Instant,
}

/// Delivers until the service stops.
pub(super) async fn deliver_all(endpoint: Arc<Endpoint>, service: Arc<Service>) {
    let mut task = Task { endpoint, service, follower: None, unsaved: 0, saved_at: Instant::now() };
    while !task.service.is_stopping() {
        task.step().await;
    }
    task.save().await;
}

impl Task {
    async fn step(&mut self) {
        let (position, moved, paused, resend) = {
            let mut state = self.endpoint.lock();
            (state.position, state.moved, state.paused, state.resends.pop_front())
        };
        if let Some(Resend { entry, position }) = resend {
            // Once: what fails is listed, and the events in their order go on.
            self.attempt(&entry, position).await;
            return;
        }
        if paused.is_some() {
            self.follower = None;
            self.save().await;
            self.rest(Instant::now() + IDLE).await;
            return;
        }
        let service = &self.service;
        let follower = self.follower.get_or_insert_with(|| Follower::new(service.clone(), position));
        follower.position = position;
        let page = match follower.read().await {
            Ok(page) => page,
            Err(problem) => {
                let cause = problem.cause().unwrap_or_else(|| problem.info().meaning.to_owned());
                tracing::error!(webhook = self.endpoint.name(), "the events cannot be read: {cause}");
                self.endpoint.lock().last_failure = Some((now_ms(), "the events cannot be read".to_owned()));
                self.rest(Instant::now() + READ_AGAIN).await;
                return;
            }
        };
        if page.position == position {
            self.save().await;
            self.wait_for_more().await;
            return;
        }
        for item in &page.items {
            if !self.endpoint.filter.takes(&item.entry) {
                continue;
            }
            match self.deliver(&item.entry, item.position, moved).await {
                Delivery::Done => self.advance(item.position, moved).await,
                Delivery::Interrupted => return,
            }
        }
        self.advance(page.position, moved).await;
    }

    /// Sends an event until it is taken, unless something else comes first.
    async fn deliver(&mut self, entry: &ChainEntry, position: FeedPosition, moved: u64) -> Delivery {
        loop {
            let due_ms = {
                let state = self.endpoint.lock();
                if state.moved != moved || state.paused.is_some() || !state.resends.is_empty() {
                    return Delivery::Interrupted;
                }
                state.next_attempt_ms
            };
            if self.service.is_stopping() {
                return Delivery::Interrupted;
            }
            let wait = Duration::from_millis(due_ms.unwrap_or(0).saturating_sub(now_ms()));
            if !wait.is_zero() {
                self.save().await;
                self.rest(Instant::now() + wait).await;
                continue;
            }
            match self.attempt(entry, Some(position)).await {
                Ended::Delivered => {
                    let mut state = self.endpoint.lock();
                    (state.failures, state.next_attempt_ms) = (0, None);
                    return Delivery::Done;
                }
                Ended::Gone => {
                    tracing::warn!(webhook = self.endpoint.name(), "its receiver is gone (410): paused");
                    self.endpoint.lock().paused = Some(Paused::Gone);
                    return Delivery::Interrupted;
                }
                Ended::Failed(asked) => self.back_off(asked),
                Ended::Stopping => return Delivery::Interrupted,
            }
        }
    }

    fn back_off(&self, asked: Option<Duration>) {
        let (first, most) = self.endpoint.retry_ms;
        let mut state = self.endpoint.lock();
        let doubled = first.saturating_mul(1u64.checked_shl(state.failures.min(62)).unwrap_or(u64::MAX)).min(most);
        let asked = asked.map_or(0, |asked| u64::try_from(asked.as_millis()).unwrap_or(u64::MAX)).min(most);
        let wait = jittered(doubled).max(asked);
        state.failures = state.failures.saturating_add(1);
        state.next_attempt_ms = Some(now_ms().saturating_add(wait));
    }

    /// Sends an event once, and lists what became of it.
    async fn attempt(&mut self, entry: &ChainEntry, position: Option<FeedPosition>) -> Ended {
        let body = match message_body(entry, position, self.service.currencies()) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(webhook = self.endpoint.name(), "an event cannot be written: {error}");
                return Ended::Failed(None);
            }
        };
        let (id, time_ms, started) = (message_id(entry), now_ms(), Instant::now());
        let sent = {
            let sending = send(&self.endpoint, &id, time_ms / 1_000, body);
            let mut stage = self.service.stage.subscribe();
            let stopping = async {
                if stage.wait_for(|stage| *stage > Stage::Running).await.is_err() {
                    std::future::pending::<()>().await;
                }
                sleep(STOP_PATIENCE).await;
            };
            tokio::select! {
                sent = sending => sent,
                () = stopping => return Ended::Stopping,
            }
        };
        let (status, failure, ended) = match sent {
            Ok(answer) if (200..300).contains(&answer.status) => (Some(answer.status), None, Ended::Delivered),
            Ok(answer) => {
                let failure = format!("the receiver answered {}", answer.status);
                let ended = if answer.status == 410 { Ended::Gone } else { Ended::Failed(answer.retry_after) };
                (Some(answer.status), Some(failure), ended)
            }
            Err(failure) => (None, Some(failure), Ended::Failed(None)),
        };
        match &failure {
            None => self.endpoint.lock().last_success_ms = Some(time_ms),
            Some(failure) => {
                tracing::debug!(webhook = self.endpoint.name(), id, "not delivered: {failure}");
                self.endpoint.lock().last_failure = Some((time_ms, failure.clone()));
            }
        }
        self.service.metrics.webhook_attempt(self.endpoint.name(), failure.is_none());
        let event = &entry.linked.event;
        self.endpoint.note(Attempt {
            time_ms,
            took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            id,
            customer: event.customer,
            seq: event.seq,
            event: entry.linked.id(),
            position,
            status,
            failure,
        });
        ended
    }

    async fn advance(&mut self, position: FeedPosition, moved: u64) {
        {
            let mut state = self.endpoint.lock();
            if state.moved != moved {
                return;
            }
            state.position = position;
        }
        self.unsaved += 1;
        if self.unsaved >= SAVE_DELIVERIES || self.saved_at.elapsed() >= SAVE_AFTER {
            self.save().await;
        }
    }

    /// Writes the cursor, if it is not as the file says.
    async fn save(&mut self) {
        let wanted = {
            let state = self.endpoint.lock();
            Some(state.to_save()).filter(|wanted| state.saved != Some(*wanted))
        };
        self.unsaved = 0;
        self.saved_at = Instant::now();
        let (Some(wanted), Some(file)) = (wanted, self.endpoint.file.clone()) else { return };
        match tokio::task::spawn_blocking(move || file.write(wanted)).await {
            Ok(Ok(())) => self.endpoint.lock().saved = Some(wanted),
            // Only what is sent twice depends on it; the next save tries again.
            Ok(Err(error)) => {
                tracing::error!(webhook = self.endpoint.name(), "its place cannot be kept: {error}");
            }
            Err(error) => tracing::error!(webhook = self.endpoint.name(), "its place cannot be kept: {error}"),
        }
    }

    /// Waits until somebody wakes the endpoint, the service stops, or the time is over.
    async fn rest(&mut self, until: Instant) {
        let mut stage = self.service.stage.subscribe();
        let stopping = async {
            if stage.wait_for(|stage| *stage > Stage::Running).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.endpoint.wake.notified() => {}
            () = stopping => {}
            () = sleep_until(until) => {}
        }
    }

    async fn wait_for_more(&mut self) {
        let Some(follower) = &mut self.follower else { return };
        tokio::select! {
            waited = follower.wait(Instant::now() + IDLE) => match waited {
                Waited::More | Waited::TimedOut | Waited::Stopping => {}
            },
            () = self.endpoint.wake.notified() => {}
        }
    }
}

/// Between half of a time and all of it, so that many who failed together do not come back together.
fn jittered(ms: u64) -> u64 {
    let mut bytes = [0; 4];
    // Without randomness, all of it.
    let part = getrandom::fill(&mut bytes).map_or(u32::MAX, |()| u32::from_le_bytes(bytes));
    let half = ms / 2;
    ms - half + (u128::from(half) * u128::from(part) / u128::from(u32::MAX)) as u64
}

struct Answer {
    status: u16,
    retry_after: Option<Duration>,
}

/// Posts a message; the error is a sentence without the address.
async fn send(endpoint: &Endpoint, id: &str, timestamp_s: u64, body: Vec<u8>) -> Result<Answer, String> {
    let signature = endpoint.secrets.sign(id, timestamp_s, &body);
    let request = endpoint.client.post(endpoint.url.clone()).header("content-type", "application/json");
    let sent = signed(request, id, timestamp_s, signature, body).send().await;
    let mut response = sent.map_err(|error| described(&error))?;
    let answer = Answer { status: response.status().as_u16(), retry_after: retry_after(response.headers()) };
    // Read to its end, if that is near, so that the connection can be used again. The status is what counts.
    let mut bytes = 0;
    let rest = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes += chunk.len();
            if bytes > ANSWER_BYTES_MAX {
                break;
            }
        }
    };
    timeout(Duration::from_secs(1), rest).await.unwrap_or_default();
    Ok(answer)
}

/// What went wrong, without the address: that may hold a secret.
fn described(error: &reqwest::Error) -> String {
    if error.is_timeout() { "the receiver took too long".to_owned() } else { in_words(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_between_half_and_all() {
        for ms in [0, 1, 2, 1_000, 300_000] {
            for _ in 0..100 {
                assert!((ms / 2..=ms).contains(&jittered(ms)), "{ms}");
            }
        }
        let some: std::collections::BTreeSet<u64> = (0..50).map(|_| jittered(1 << 40)).collect();
        assert!(some.len() > 40, "they differ");
    }
}
