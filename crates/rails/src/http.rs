//! The calls: a rail that is reached over HTTP, and the runtime that all of them share.

use crate::answer::{BODY_BYTES_MAX, Meaning, Response, of_call, of_status};
use crate::settings::{EVENT, RailConfig};
use bursar_core::commit::{RailCall, Schedule};
use bursar_core::{Currencies, EventId, EventRef, LedgerConfig, LinkedEvent, RailId, Time};
use bursar_engine::{Contradiction, Rail, RailReply};
use bursar_outbound::{Secret, SetupError, Trust, connection, has_type, in_words, now_s, signed};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder};
use serde::Serialize;
use std::fmt;
use std::sync::{Arc, OnceLock};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

/// How many calls to one rail are under way at once; further ones wait in order. A rail that hangs takes up its own
/// places and nobody else's.
pub const CALLS_MAX: usize = 1024;
/// Threads for the calls of all rails. They only move bytes.
const THREADS: usize = 2;

/// Why rails cannot be called.
#[derive(Debug)]
pub enum RailsError {
    /// The system gives no threads, or the like.
    System(std::io::Error),
    /// No connections can be made to this rail.
    Setup {
        /// Which rail.
        name: String,
        /// What is wrong.
        error: SetupError,
    },
    /// This rail has no secret.
    NoSecret {
        /// Which rail.
        name: String,
    },
}

impl fmt::Display for RailsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => write!(f, "rails cannot be called: {error}"),
            Self::Setup { name, error } => write!(f, "rail {name} cannot be called: {error}"),
            Self::NoSecret { name } => write!(f, "rail {name} cannot be called without its secret"),
        }
    }
}

impl std::error::Error for RailsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(error) => Some(error),
            Self::Setup { error, .. } => Some(error),
            Self::NoSecret { .. } => None,
        }
    }
}

/// The runtime of all rails. Dropped without waiting for calls: their events stay open, and are asked about again.
#[derive(Debug)]
struct Hidden(Option<Runtime>);

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// All rails of a process.
#[derive(Debug)]
pub struct Rails(Vec<(RailId, Arc<HttpRail>)>);

impl Rails {
    /// Makes rails ready to be called.
    pub fn start(configs: Vec<RailConfig>) -> Result<Self, RailsError> {
        if configs.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("bursar-rails")
            .enable_io()
            .enable_time()
            .build()
            .map_err(RailsError::System)?;
        let runtime = Arc::new(Hidden(Some(runtime)));
        let rails = configs.into_iter().map(|config| {
            let id = config.id;
            HttpRail::new(config, runtime.clone()).map(|rail| (id, Arc::new(rail)))
        });
        rails.collect::<Result<_, _>>().map(Self)
    }

    /// Each of them, with its number.
    pub fn iter(&self) -> impl Iterator<Item = (RailId, Arc<dyn Rail>)> {
        self.0.iter().map(|(id, rail)| (*id, rail.clone() as Arc<dyn Rail>))
    }
}

/// A rail that is reached over HTTP.
#[derive(Debug)]
pub struct HttpRail {
    runtime: Arc<Hidden>,
    caller: Arc<Caller>,
}

#[derive(Debug)]
struct Caller {
    config: RailConfig,
    secret: Secret,
    client: Client,
    places: Semaphore,
    /// Those of the ledger, once it is open.
    currencies: OnceLock<Currencies>,
}

impl HttpRail {
    fn new(config: RailConfig, runtime: Arc<Hidden>) -> Result<Self, RailsError> {
        let name = config.name.clone();
        let Some(secret) = config.secret.clone() else { return Err(RailsError::NoSecret { name }) };
        let trust = config.ca.as_deref().map_or(Trust::System, Trust::SystemAnd);
        let agent = concat!("bursar/", env!("CARGO_PKG_VERSION"));
        let client = connection::client(agent, trust, |builder| builder.timeout(config.timeout));
        let client = client.map_err(|error| RailsError::Setup { name, error })?;
        let places = Semaphore::new(CALLS_MAX);
        let caller = Caller { config, secret, client, places, currencies: OnceLock::new() };
        Ok(Self { runtime, caller: Arc::new(caller) })
    }
}

impl Rail for HttpRail {
    fn call(&self, call: RailCall, reply: RailReply) {
        // Gone only while the process ends; the reply then says by itself that it was dropped.
        let Some(runtime) = &self.runtime.0 else { return };
        let caller = self.caller.clone();
        runtime.spawn(async move { caller.ask(&call, reply).await });
    }

    fn name(&self) -> Option<&str> {
        Some(&self.caller.config.name)
    }

    fn schedule(&self) -> Option<Schedule> {
        Some(self.caller.config.schedule)
    }

    fn contradicted(&self, contradiction: &Contradiction) {
        let Contradiction { event, settled, answer } = contradiction;
        let EventRef { customer, seq, id } = event;
        let (rail, settled) = (self.caller.config.name.as_str(), settled.name());
        tracing::warn!(rail, event = %id, %customer, seq, settled, ?answer, "a rail contradicts what an operator has settled");
    }

    fn opened(&self, config: &LedgerConfig) {
        self.caller.currencies.get_or_init(|| config.currencies.clone());
    }
}

/// What a rail is asked to do: the same bytes at every attempt, as a repeated idempotency key demands.
#[derive(Debug, Serialize)]
struct CallBody<'a> {
    event: String,
    kind: &'static str,
    customer: String,
    transaction: Option<String>,
    amount: String,
    currency: Option<&'a str>,
    seq: u64,
    time: String,
}

impl<'a> CallBody<'a> {
    fn new(linked: &LinkedEvent, currencies: &'a Currencies) -> Self {
        let event = &linked.event;
        let code = currencies.get(event.currency).map(bursar_core::Currency::code);
        Self {
            event: linked.id().to_string(),
            kind: event.kind.name(),
            customer: event.customer.to_string(),
            transaction: event.transaction.map(|transaction| transaction.to_string()),
            amount: event.amount.display(currencies.decimals(event.currency)).to_string(),
            currency: code.filter(|code| !code.is_empty()),
            seq: event.seq,
            time: Time(event.time_ms).to_string(),
        }
    }
}

impl Caller {
    async fn ask(&self, call: &RailCall, reply: RailReply) {
        // Never closed.
        let _place = self.places.acquire().await;
        let (event, rail, attempt) = (call.event.id(), self.config.name.as_str(), call.attempt);
        match self.meaning_of(call).await.into_answer() {
            Ok(answer) => {
                tracing::debug!(rail, %event, attempt, ?answer, "a rail has answered");
                reply.answer(answer);
            }
            Err(why) => {
                tracing::warn!(rail, %event, attempt, why, "a rail could not tell");
                reply.unknown(why);
            }
        }
    }

    async fn meaning_of(&self, call: &RailCall) -> Meaning {
        let event = call.event.id();
        // Called before, for all we know: first asked, where it can be.
        if let Some(template) = self.config.status_url.as_ref().filter(|_| call.attempt > 0) {
            let url = template.replace(EVENT, &event.to_string());
            match self.exchange(self.client.get(url), event, call.attempt, Vec::new()).await {
                Ok(response) => match of_status(event, &response) {
                    Meaning::NeverHeardOf => {}
                    Meaning::Unknown(why) => return Meaning::Unknown(format!("status address: {why}")),
                    certain @ (Meaning::Done | Meaning::Refused(_)) => return certain,
                },
                Err(why) => return Meaning::Unknown(format!("status address: {why}")),
            }
        }
        let usual = Currencies::default();
        let body = CallBody::new(&call.event, self.currencies.get().unwrap_or(&usual));
        let body = match serde_json::to_vec(&body) {
            Ok(body) => body,
            Err(error) => return Meaning::Unknown(format!("the call cannot be written: {error}")),
        };
        let request = self.client.post(self.config.url.clone()).header(CONTENT_TYPE, "application/json");
        match self.exchange(request, event, call.attempt, body).await {
            Ok(response) => of_call(event, &response),
            Err(why) => Meaning::Unknown(why),
        }
    }

    /// One request, signed, and its response with what could be read of it.
    async fn exchange(
        &self,
        request: RequestBuilder,
        event: EventId,
        attempt: u32,
        body: Vec<u8>,
    ) -> Result<Response, String> {
        let id = event.to_string();
        let now_s = now_s();
        let signature = self.secret.sign(&id, now_s, &body);
        let request = signed(request, &id, now_s, signature, body);
        let sent = request.header("bursar-attempt", attempt).header("idempotency-key", id).send().await;
        let mut response = sent.map_err(|error| self.failure(&error))?;
        let status = response.status();
        let is_json = has_type(response.headers(), "application/json");
        let mut read = Vec::new();
        let body = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if read.len() + chunk.len() <= BODY_BYTES_MAX => read.extend_from_slice(&chunk),
                Ok(Some(_)) => break Err(format!("the answer is larger than {BODY_BYTES_MAX} bytes")),
                Ok(None) => break Ok(read),
                Err(error) => break Err(self.failure(&error)),
            }
        };
        Ok(Response { status, is_json, body })
    }

    fn failure(&self, error: &reqwest::Error) -> String {
        if error.is_timeout() { format!("no answer within {:?}", self.config.timeout) } else { in_words(error) }
    }
}
