//! One call after the other: what is sent, how long is waited, and when it is sent again.
//!
//! A call is repeated only where that cannot do anything twice: reads, deposits and withdrawals (their transaction id
//! takes effect once), requests with an idempotency key, and everything that the server says it did not decide. What
//! was once *unknown* stays so until an answer comes: a later attempt that finds nobody does not make it known.

use crate::error::{Error, Problem, SettleError, SubmitError};
use crate::key::Key;
use crate::types::{
    Customer, CustomerThen, Event, Ledger, Moment, Outcome, Outlook, Page, Pending, RawOutcome, RawOutlook, Settled,
    Submission, Transaction,
};
use bursar_core::commit::Settlement;
use bursar_core::{CustomerId, EventId, RequestKind, TransactionId};
use bursar_outbound::{Trust, connection, has_type, in_words, retry_after};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How much of an answer is taken that comes as a whole.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The first pause before a call is repeated; each is twice the one before.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How a client behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a connection may take to be made.
    pub connect_within: Duration,
    /// How long one attempt may take; of a stream, how long nothing may come.
    pub answer_within: Duration,
    /// How long a call may take with all its attempts. No attempt begins after it.
    pub deadline: Duration,
    /// Trust a server whose certificate these authorities (PEM) have signed, and no other; otherwise whom the system trusts.
    pub ca: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_within: Duration::from_secs(5),
            answer_within: Duration::from_secs(30),
            deadline: Duration::from_mins(1),
            ca: None,
        }
    }
}

/// A client of one server. Cheap to clone; clones share their connections.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use bursar_client::{Client, Key, Options, Outcome, Submission, SubmitError};
/// use bursar_core::{CustomerId, TransactionId};
///
/// let client = Client::new("http://127.0.0.1:7400", Key::from_env()?, Options::default())?;
/// let deposit = Submission::deposit(CustomerId::new(42), TransactionId::new(1001), "12.5".parse()?);
/// match client.submit(&deposit).await {
///     Ok(Outcome::Applied(receipt)) => println!("in effect; receipt {}", receipt.hash),
///     Ok(Outcome::AlreadyApplied(receipt)) => println!("was in effect before; receipt {}", receipt.hash),
///     Err(SubmitError::Refused(problem)) => println!("refused, nothing moved: {}", problem.code),
///     Err(error @ (SubmitError::NotTaken(_) | SubmitError::NotDecided(_))) => println!("nothing moved: {error}"),
///     Err(SubmitError::Unknown(error)) => println!("send the same again later: {error}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    base: Url,
    http: reqwest::Client,
    key: Option<Key>,
    options: Options,
    /// Whether the server was ever connected to. One that never was is not waited for.
    was_reached: AtomicBool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { base, key, options, .. } = &*self.inner;
        f.debug_struct("Client").field("server", &base.as_str()).field("key", key).field("options", options).finish()
    }
}

/// Which events of a chain are listed, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventList {
    /// The oldest first; otherwise the newest.
    pub oldest_first: bool,
    /// Only events of this kind.
    pub kind: Option<RequestKind>,
    /// Only events with this status.
    pub status: Option<crate::types::EventStatus>,
    /// Only events at or after this time.
    pub since: Option<crate::figure::TimeMs>,
    /// Only events before this time.
    pub until: Option<crate::figure::TimeMs>,
}

/// Which of the events are listed that wait for their rail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingList {
    /// Only events of this kind.
    pub kind: Option<RequestKind>,
    /// Only events that wait for this rail: its name in the server's settings, or its number.
    pub rail: Option<String>,
    /// Only events at or after this time.
    pub since: Option<crate::figure::TimeMs>,
    /// Only events before this time.
    pub until: Option<crate::figure::TimeMs>,
}

impl Client {
    /// A client of the server at `http://HOST:PORT` or `https://HOST[:PORT]`, with a path in front if a proxy adds one.
    /// Connects to nothing yet.
    pub fn new(server: &str, key: Option<Key>, options: Options) -> Result<Self, Error> {
        let base = base_url(server)?;
        let trust = options.ca.as_deref().map_or(Trust::System, |pem| Trust::Only(pem.as_bytes()));
        let http = http(trust, &options)?;
        let was_reached = AtomicBool::new(false);
        Ok(Self { inner: Arc::new(Inner { base, http, key, options, was_reached }) })
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        self.inner.base.as_str().trim_end_matches('/')
    }

    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    pub(crate) fn call(&self, method: Method, path: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.inner.base.clone();
        url.set_path(&format!("{}{path}", self.inner.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.inner.http.request(method, url);
        match &self.inner.key {
            Some(key) => request.bearer_auth(key.reveal()),
            None => request,
        }
    }

    /// Sends once, and waits for the head of the answer; a problem is an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let within = self.inner.options.answer_within;
        let sent = timeout(within, request.send()).await.map_err(|_| Error::TimedOut(within));
        let answered = sent.and_then(|sent| sent.map_err(|error| self.transport_error(&error)));
        if !matches!(answered, Err(Error::Unreachable(_))) {
            self.inner.was_reached.store(true, Ordering::Relaxed);
        }
        let response = answered?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.problem(response).await)
    }

    fn transport_error(&self, error: &reqwest::Error) -> Error {
        let what = self.failed(error);
        if error.is_connect() {
            Error::Unreachable(what)
        } else if error.is_timeout() {
            Error::TimedOut(self.inner.options.answer_within)
        } else if error.is_builder() {
            Error::Setup(what)
        } else {
            Error::CutOff(what)
        }
    }

    async fn problem(&self, response: Response) -> Error {
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let is_problem = has_type(response.headers(), "application/problem+json");
        let foreign = format!("{} answers with status {status}, and not as Bursar does", self.server());
        if !is_problem {
            // Something between here and the server, such as a proxy, whose word on a request means nothing.
            return match status {
                502..=504 => Error::CutOff(foreign),
                _ => Error::NotUnderstood(foreign),
            };
        }
        let body = match self.body(response).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if problem.status == status => Error::Problem(Box::new(Problem { retry_after, ..problem })),
            Ok(_) | Err(_) => Error::NotUnderstood(foreign),
        }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Error> {
        let within = self.inner.options.answer_within;
        let mut body = Vec::new();
        loop {
            let piece = timeout(within, response.chunk()).await.map_err(|_| Error::TimedOut(within))?;
            match piece {
                Ok(Some(piece)) if body.len() + piece.len() <= ANSWER_BYTES_MAX => body.extend_from_slice(&piece),
                Ok(Some(_)) => return Err(Error::NotUnderstood("an answer has no end".to_owned())),
                Ok(None) => return Ok(body),
                Err(error) => return Err(self.cut_off(&error)),
            }
        }
    }

    pub(crate) fn cut_off(&self, error: &reqwest::Error) -> Error {
        Error::CutOff(self.failed(error))
    }

    fn failed(&self, error: &reqwest::Error) -> String {
        format!("{}: {}", self.server(), in_words(error))
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let response = self.send(request).await?;
        if !has_type(response.headers(), "application/json") {
            return Err(Error::NotUnderstood(format!("{} does not answer as Bursar does", self.server())));
        }
        let body = self.body(response).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::NotUnderstood(format!("{}: an answer cannot be read: {error}", self.server())))
    }

    /// Waits before the next attempt; `false` if there is none.
    async fn pause(&self, attempt: u32, started: Instant, error: &Error) -> bool {
        if !error.may_pass() || !self.inner.was_reached.load(Ordering::Relaxed) {
            return false;
        }
        let asked = error.problem().and_then(|problem| problem.retry_after);
        let pause = asked.unwrap_or_default().max(back_off(attempt));
        if started.elapsed() + pause >= self.inner.options.deadline {
            return false;
        }
        sleep(pause).await;
        true
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Error> {
        self.ask(self.call(Method::GET, path, query).header(ACCEPT, "application/json")).await
    }

    /// Asks for what does nothing, and asks again where that may help.
    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let started = Instant::now();
        for attempt in 0.. {
            let again = request.try_clone().ok_or_else(|| Error::Setup("a request cannot be sent again".to_owned()))?;
            match self.json(again).await {
                Ok(value) => return Ok(value),
                Err(error) if self.pause(attempt, started, &error).await => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::TimedOut(self.inner.options.deadline))
    }

    /// What should be there; `None` if the server says that it is not.
    async fn find<T: DeserializeOwned>(&self, path: &str, code: &str) -> Result<Option<T>, Error> {
        match self.get(path, &[]).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::Problem(problem)) if problem.status == 404 && problem.code == code => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Submits a request. Answered only after its outcome is durable.
    ///
    /// Sent again by itself, within the deadline, where nothing was decided, or where that takes effect only once; see
    /// [`Submission::is_idempotent`].
    pub async fn submit(&self, submission: &Submission) -> Result<Outcome, SubmitError> {
        let started = Instant::now();
        let body = body_of(submission).map_err(SubmitError::NotTaken)?;
        let mut unknown: Option<Error> = None;
        for attempt in 0.. {
            let request = self.request(submission, &[], body.clone());
            let error = match self.json::<RawOutcome>(request).await.map(RawOutcome::into_outcome) {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => Error::NotUnderstood("the outcome is one that this client does not know".to_owned()),
                Err(error) => error,
            };
            let failed = SubmitError::of(error.clone());
            let again = match &failed {
                SubmitError::Refused(_) => return Err(failed),
                SubmitError::NotTaken(_) if unknown.is_none() => return Err(failed),
                SubmitError::NotTaken(_) => false,
                SubmitError::NotDecided(_) => true,
                SubmitError::Unknown(_) => submission.is_idempotent(),
            };
            if matches!(failed, SubmitError::Unknown(_)) {
                unknown = Some(error.clone());
            }
            // 409: the attempt before is still under way.
            let under_way = error.problem().is_some_and(|problem| problem.status == 409);
            let passing = if under_way { &Error::CutOff(String::new()) } else { &error };
            if !(again && self.pause(attempt, started, passing).await) {
                return Err(unknown.map_or(failed, SubmitError::Unknown));
            }
        }
        Err(SubmitError::Unknown(Error::TimedOut(self.inner.options.deadline)))
    }

    fn request(&self, submission: &Submission, query: &[(&str, &str)], body: Bytes) -> RequestBuilder {
        let mut request = self.call(Method::POST, "/v1/requests", query);
        if let Some(key) = submission.idempotency_key() {
            // A string of a structured field (RFC 9651): in quotes, and its own escaped.
            let escaped = key.replace('\\', "\\\\").replace('"', "\\\"");
            request = request.header("Idempotency-Key", format!("\"{escaped}\""));
        }
        request.header(CONTENT_TYPE, "application/json").body(body)
    }

    /// What would come of a request, if it were submitted now. Nothing is done, so it is asked again where that may help,
    /// and the error is never [`SubmitError::Unknown`].
    pub async fn dry_run(&self, submission: &Submission) -> Result<Outlook, SubmitError> {
        let body = body_of(submission).map_err(SubmitError::NotTaken)?;
        let told = self.ask::<RawOutlook>(self.request(submission, &[("dry_run", "true")], body)).await;
        let error = match told.map(RawOutlook::into_outlook) {
            Ok(Some(outlook)) => return Ok(outlook),
            Ok(None) => Error::NotUnderstood("the outlook is one that this client does not know".to_owned()),
            Err(error) => error,
        };
        Err(match SubmitError::of(error) {
            SubmitError::Unknown(error) => SubmitError::NotDecided(error),
            known @ (SubmitError::Refused(_) | SubmitError::NotTaken(_) | SubmitError::NotDecided(_)) => known,
        })
    }

    /// Settles an event by hand that waits for its rail. Answered only after its end is durable.
    ///
    /// Settled like this before, it is [`Settled::repeated`]: so it is sent again where no answer came.
    pub async fn settle(&self, event: EventId, settlement: &Settlement) -> Result<Settled, SettleError> {
        let started = Instant::now();
        let (end, reason) = match settlement {
            Settlement::Done(reason) => ("done", reason),
            Settlement::Aborted(reason) => ("aborted", reason),
        };
        let body = serde_json::json!({ "as": end, "reason": reason.as_str() }).to_string();
        let mut unknown: Option<Error> = None;
        for attempt in 0.. {
            let request = self.call(Method::POST, &format!("/v1/pending/{event}/settle"), &[]);
            let error = match self.json(request.header(CONTENT_TYPE, "application/json").body(body.clone())).await {
                Ok(settled) => return Ok(settled),
                Err(error) => error,
            };
            let failed = SettleError::of(error.clone());
            match &failed {
                // Whatever came before: how the event ended is told.
                SettleError::ClosedOtherwise(_) => return Err(failed),
                SettleError::NotPending(_) | SettleError::NotTaken(_) => {
                    return Err(unknown.map_or(failed, SettleError::Unknown));
                }
                SettleError::NotDecided(_) => {}
                SettleError::Unknown(_) => unknown = Some(error.clone()),
            }
            if !self.pause(attempt, started, &error).await {
                return Err(unknown.map_or(failed, SettleError::Unknown));
            }
        }
        Err(SettleError::Unknown(Error::TimedOut(self.inner.options.deadline)))
    }

    /// One customer as it was.
    pub async fn customer_as_of(&self, customer: CustomerId, moment: Moment) -> Result<CustomerThen, Error> {
        let (name, value) = match moment {
            Moment::Seq(seq) => ("seq", seq.to_string()),
            Moment::Time(time) => ("at", time.to_string()),
        };
        match self.get(&format!("/v1/customers/{customer}"), &[(name, value.as_str())]).await {
            Ok(found) => Ok(CustomerThen::Was(found)),
            Err(Error::Problem(problem)) if problem.status == 404 && problem.code == "no_account_then" => {
                Ok(CustomerThen::NoAccount)
            }
            Err(Error::Problem(problem)) if problem.status == 404 && problem.code == "unknown_customer" => {
                Ok(CustomerThen::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    /// One customer; `None` if nothing was ever accepted for it.
    pub async fn customer(&self, customer: CustomerId) -> Result<Option<Customer>, Error> {
        self.find(&format!("/v1/customers/{customer}"), "unknown_customer").await
    }

    /// One transaction; `None` if none with this id was ever accepted.
    pub async fn transaction(&self, transaction: TransactionId) -> Result<Option<Transaction>, Error> {
        self.find(&format!("/v1/transactions/{transaction}"), "unknown_transaction").await
    }

    /// The ledger's policy, currencies and sums.
    pub async fn ledger(&self) -> Result<Ledger, Error> {
        self.get("/v1/ledger", &[]).await
    }

    /// All customers, in order of id; `locked`: only those who are, or are not.
    pub fn customers(&self, locked: Option<bool>) -> BoxStream<'static, Result<Customer, Error>> {
        let locked = locked.map(|locked| ("locked", locked.to_string()));
        self.list("/v1/customers".to_owned(), locked.into_iter().collect())
    }

    /// The events of a customer.
    pub fn events(&self, customer: CustomerId, list: &EventList) -> BoxStream<'static, Result<Event, Error>> {
        let mut query = vec![("order", if list.oldest_first { "oldest" } else { "newest" }.to_owned())];
        query.extend(list.kind.map(|kind| ("kind", kind.name().to_owned())));
        query.extend(list.status.map(|status| ("status", status.name().to_owned())));
        query.extend(list.since.map(|time| ("since", time.to_string())));
        query.extend(list.until.map(|time| ("until", time.to_string())));
        self.list(format!("/v1/customers/{customer}/events"), query)
    }

    /// Events that wait for their rail, by customer, each with how it stands about it.
    pub fn pending(&self, list: &PendingList) -> BoxStream<'static, Result<Pending, Error>> {
        let mut query = Vec::new();
        query.extend(list.kind.map(|kind| ("kind", kind.name().to_owned())));
        query.extend(list.rail.clone().map(|rail| ("rail", rail)));
        query.extend(list.since.map(|time| ("since", time.to_string())));
        query.extend(list.until.map(|time| ("until", time.to_string())));
        self.list("/v1/pending".to_owned(), query)
    }

    /// A list, page by page: the next page is asked for when the last item of one was taken. Ends after an error.
    fn list<T: DeserializeOwned + Send + 'static>(
        &self,
        path: String,
        query: Vec<(&'static str, String)>,
    ) -> BoxStream<'static, Result<T, Error>> {
        struct Place<T> {
            client: Client,
            path: String,
            /// `None`: there are no more pages.
            query: Option<Vec<(&'static str, String)>>,
            items: VecDeque<T>,
        }
        let place = Place { client: self.clone(), path, query: Some(query), items: VecDeque::new() };
        stream::try_unfold(place, async |mut place| {
            loop {
                if let Some(item) = place.items.pop_front() {
                    return Ok(Some((item, place)));
                }
                let Some(query) = place.query.take() else { return Ok(None) };
                let mut pairs: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
                pairs.push(("limit", "1000"));
                let page: Page<T> = place.client.get(&place.path, &pairs).await?;
                place.items = page.items.into();
                place.query = page.next.map(|cursor| vec![("cursor", cursor)]);
            }
        })
        .boxed()
    }

    /// What the server counts, in the text format of `OpenMetrics`.
    pub async fn metrics(&self) -> Result<String, Error> {
        let response = self.send(self.call(Method::GET, "/metrics", &[])).await?;
        if !has_type(response.headers(), "application/openmetrics-text") {
            return Err(Error::NotUnderstood(format!("{} does not answer as Bursar does", self.server())));
        }
        String::from_utf8(self.body(response).await?)
            .map_err(|_| Error::NotUnderstood("the metrics are no text".to_owned()))
    }
}

fn body_of(submission: &Submission) -> Result<Bytes, Error> {
    let body = serde_json::to_vec(submission);
    body.map(Bytes::from).map_err(|error| Error::Setup(format!("the request cannot be written: {error}")))
}

/// Connections as this crate makes them.
pub(crate) fn http(trust: Trust<'_>, options: &Options) -> Result<reqwest::Client, Error> {
    let agent = concat!("bursar-client/", env!("CARGO_PKG_VERSION"));
    let limits = |builder: reqwest::ClientBuilder| builder.connect_timeout(options.connect_within).tcp_nodelay(true);
    let client = connection::client(agent, trust, limits);
    client.map_err(|error| Error::Setup(format!("the client cannot be made: {error}")))
}

fn base_url(server: &str) -> Result<Url, Error> {
    let bad = |why: &str| Error::Setup(format!("'{server}' cannot be a server: {why}"));
    let url = Url::parse(server).map_err(|_| bad("write http://HOST:PORT or https://HOST"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(bad("write http://HOST:PORT or https://HOST"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not repeated: it may be a secret.
        return Err(Error::Setup("the server's address must not carry a name or password".to_owned()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("nothing may follow its path"));
    }
    Ok(url)
}

/// The pause after an attempt: twice the one before, and up to half of it less, so that many clients do not come at once.
pub(crate) fn back_off(attempt: u32) -> Duration {
    let pause = PAUSE_FIRST.saturating_mul(1 << attempt.min(10)).min(PAUSE_MAX);
    // Each `RandomState` has keys of its own, which is random enough for this.
    let share = u32::try_from(RandomState::new().hash_one(attempt) % 512).unwrap_or(0);
    pause.saturating_sub(pause * share / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_secrets_in_them_not_repeated() {
        for good in ["http://127.0.0.1:7400", "https://bursar.example/ledger/", "http://[::1]:7400"] {
            assert!(Client::new(good, None, Options::default()).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:7400", "ftp://host", "http://", "http://host/?a=b", "http://host/#a"] {
            assert!(matches!(Client::new(bad, None, Options::default()), Err(Error::Setup(_))), "{bad}");
        }
        let error = Client::new("http://me:secret@host", None, Options::default()).unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn nothing_shows_a_key() {
        let key = Key::new("bursar_secret").unwrap();
        let client = Client::new("http://host", Some(key), Options::default()).unwrap();
        assert!(!format!("{client:?}").contains("bursar_secret"));
        let call = client.call(Method::GET, "/v1/ledger", &[]);
        assert!(!format!("{call:?}").contains("bursar_secret"), "{call:?}");
    }

    #[test]
    fn pauses_grow_up_to_a_limit() {
        for attempt in 0..20 {
            let most = PAUSE_FIRST.saturating_mul(1 << attempt.min(10)).min(PAUSE_MAX);
            let pause = back_off(attempt);
            assert!(pause <= most && pause >= most / 2, "{attempt}: {pause:?}");
        }
    }

    #[test]
    fn a_path_in_front_stays() {
        for server in ["http://host/a/b", "http://host/a/b/"] {
            let client = Client::new(server, None, Options::default()).unwrap();
            let request = client.call(Method::GET, "/v1/ledger", &[("cursor", "a+b&c")]).build().unwrap();
            assert_eq!(request.url().as_str(), "http://host/a/b/v1/ledger?cursor=a%2Bb%26c");
        }
    }
}
