//! Speaking to a cluster, over one connection.
//!
//! Messages are read by *direct get*: any server that keeps the stream may answer, and which one does is left to
//! chance, whatever server the question is put to. Whoever must not rest on one replica asks several times; the
//! question carries a trace, by which the cluster tells where it went.
//!
//! The calls of `JetStream` are requests with JSON or raw payloads; what they mean to a ledger is not known here. No call
//! of this module tries again, and none says that something did *not* happen: an answer that does not come says
//! nothing.

use crate::error::{failed, io};
use crate::options::NatsOptions;
use async_nats::{Client, ConnectOptions, HeaderMap, Message, Request};
use bursar_engine::store::StoreError;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long one question may take; whoever asks, asks again.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long the cluster may take to tell where a question went.
const TRACE_WITHIN: Duration = Duration::from_secs(1);
/// How many bytes a server may send at once.
const READ_BYTES_MAX: u64 = 8 << 20;

/// What comes of a question, if that is in time. Where there is no connection for long, the client takes in no more
/// questions, and its own limits of time begin only once it has one.
async fn within<T>(limit: Duration, asking: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, asking).await.ok()
}

/// The connection of one store.
#[derive(Debug)]
pub(crate) struct Net {
    client: Client,
}

/// A message as a stream has it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
}

/// The newest messages of some subjects, all as of one moment of one replica.
#[derive(Debug)]
pub(crate) struct Newest {
    /// Whose replica it is; `None` if the cluster does not tell.
    pub(crate) server: Option<String>,
    pub(crate) messages: HashMap<String, Stored>,
}

/// What came of asking for messages.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) messages: Vec<Stored>,
    /// The server had more than it sends at once.
    pub(crate) is_cut: bool,
}

/// What came of a publish.
#[derive(Debug)]
pub(crate) enum Published {
    /// It is stored, under this sequence; of an atomic batch, the last one's.
    At(u64),
    /// The server says no: a sentence. Not stored by this attempt.
    Refused(u32, String),
    /// Nobody knows.
    Unknown,
}

/// One message of an atomic batch, or alone.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) subject: String,
    pub(crate) expected: u64,
    pub(crate) payload: Bytes,
}

#[derive(Deserialize)]
struct PublishAnswer {
    #[serde(default)]
    seq: u64,
    error: Option<ApiError>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ApiError {
    pub(crate) code: u32,
    #[serde(default)]
    pub(crate) err_code: u32,
    #[serde(default)]
    pub(crate) description: String,
}

async fn connect_options(options: &NatsOptions, user: Option<&(String, String)>) -> Result<ConnectOptions, StoreError> {
    let mut connect = ConnectOptions::new().name("bursar").request_timeout(Some(ANSWER_WITHIN));
    connect = connect.connection_timeout(ANSWER_WITHIN).ping_interval(Duration::from_secs(2));
    connect = connect.reconnect_delay_callback(|attempt| Duration::from_millis(if attempt < 2 { 10 } else { 200 }));
    if let Some((user, password)) = user {
        connect = connect.user_and_password(user.clone(), password.clone());
    } else if let Some(file) = &options.credentials {
        connect = connect.credentials_file(file).await.map_err(|error| io("read the credentials", file, error))?;
    }
    if let Some(file) = &options.root_certificates {
        connect = connect.add_root_certificates(file.clone());
    }
    Ok(connect)
}

/// A connection to the system account.
pub(crate) async fn connect_system(options: &NatsOptions) -> Result<Option<Client>, StoreError> {
    let Some(user) = &options.system_user else { return Ok(None) };
    let connect = connect_options(options, Some(user)).await?;
    let client = connect.connect(&options.servers).await;
    client
        .map(Some)
        .map_err(|error| failed("connect to the cluster's system account", &options.servers.join(","), error))
}

impl Net {
    pub(crate) async fn connect(options: &NatsOptions) -> Result<Self, StoreError> {
        let connect = connect_options(options, options.user.as_ref()).await?;
        let client = connect.connect(&options.servers).await;
        let client = client.map_err(|error| failed("connect to the cluster", &options.servers.join(","), error))?;
        Ok(Self { client })
    }

    /// Asks the API of `JetStream`.
    pub(crate) async fn api(&self, subject: &str, body: &Value) -> Result<Result<Value, ApiError>, StoreError> {
        let subject = format!("$JS.API.{subject}");
        let request = Request::new().payload(body.to_string().into()).timeout(Some(Duration::from_secs(5)));
        let answer = within(ANSWER_WITHIN * 3, self.client.send_request(subject.clone(), request)).await;
        let answer = answer.ok_or_else(|| failed("ask JetStream", &subject, "there is no connection"))?;
        let answer = answer.map_err(|error| failed("ask JetStream", &subject, error))?;
        let value: Value = serde_json::from_slice(&answer.payload)
            .map_err(|error| failed("read an answer of JetStream", &subject, error))?;
        Ok(match value.get("error") {
            Some(error) => {
                Err(ApiError::deserialize(error).map_err(|error| failed("read an answer", &subject, error))?)
            }
            None => Ok(value),
        })
    }

    /// Asks the API until somebody answers who can.
    pub(crate) async fn patient_api(
        &self,
        subject: &str,
        body: &Value,
        patience: Duration,
    ) -> Result<Result<Value, ApiError>, StoreError> {
        let until = Instant::now() + patience;
        loop {
            let answer = self.api(subject, body).await;
            // 503: nobody leads the cluster, or the stream, yet.
            let is_final = matches!(&answer, Ok(Ok(_))) || matches!(&answer, Ok(Err(error)) if error.code != 503);
            if is_final || Instant::now() > until {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Publishes one message; `expected` is the sequence of the subject's last one.
    pub(crate) async fn publish(&self, subject: &str, expected: Option<u64>, payload: Bytes) -> Published {
        let mut request = Request::new().payload(payload);
        if let Some(expected) = expected {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Expected-Last-Subject-Sequence", expected.to_string());
            request = request.headers(headers);
        }
        let answer = within(ANSWER_WITHIN * 2, self.client.send_request(subject.to_owned(), request)).await;
        published(answer.and_then(Result::ok))
    }

    /// Publishes messages that are stored all or not at all.
    pub(crate) async fn publish_batch(&self, batch: &str, messages: &[Outgoing]) -> Published {
        let Some((last, first)) = messages.split_last() else { return Published::Unknown };
        if first.is_empty() {
            return self.publish(&last.subject, Some(last.expected), last.payload.clone()).await;
        }
        let headers = |number: usize, message: &Outgoing| {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Batch-Id", batch);
            headers.insert("Nats-Batch-Sequence", number.to_string());
            headers.insert("Nats-Expected-Last-Subject-Sequence", message.expected.to_string());
            headers
        };
        for (number, message) in (1..).zip(first) {
            let (subject, payload) = (message.subject.clone(), message.payload.clone());
            if self.client.publish_with_headers(subject, headers(number, message), payload).await.is_err() {
                return Published::Unknown;
            }
        }
        let mut headers = headers(messages.len(), last);
        headers.insert("Nats-Batch-Commit", "1");
        let request = Request::new().payload(last.payload.clone()).headers(headers);
        published(self.client.send_request(last.subject.clone(), request).await.ok())
    }
}

fn published(answer: Option<Message>) -> Published {
    let answer = answer.and_then(|message| serde_json::from_slice::<PublishAnswer>(&message.payload).ok());
    match answer {
        Some(PublishAnswer { error: Some(error), .. }) => Published::Refused(error.err_code, error.description),
        Some(PublishAnswer { seq, error: None }) if seq > 0 => Published::At(seq),
        Some(_) | None => Published::Unknown,
    }
}

impl Net {
    /// Asks any replica of a stream; `None` if it does not answer in time. `trace` is where the cluster is to tell which
    /// way the question went.
    async fn direct(&self, stream: &str, body: Value, trace: Option<&str>) -> Option<Found> {
        let inbox = self.client.new_inbox();
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let body = body.to_string().into();
        let asked = async {
            let answers = self.client.subscribe(inbox.clone()).await.ok()?;
            if let Some(trace) = trace {
                let mut headers = HeaderMap::new();
                headers.insert("Nats-Trace-Dest", trace);
                self.client.publish_with_reply_and_headers(subject, inbox, headers, body).await.ok()?;
            } else {
                self.client.publish_with_reply(subject, inbox, body).await.ok()?;
            }
            Some(answers)
        };
        let mut answers = within(ANSWER_WITHIN, asked).await??;
        let mut found = Found { messages: Vec::new(), is_cut: false };
        loop {
            let message = tokio::time::timeout(ANSWER_WITHIN, answers.next()).await.ok()??;
            match message.status.map(|status| status.as_u16()) {
                None => found.messages.push(stored(message)?),
                // The end; or nothing there.
                Some(204) => {
                    found.is_cut = number(&message, "Nats-Num-Pending").is_some_and(|pending| pending > 0);
                    return Some(found);
                }
                Some(404) => return Some(found),
                Some(_) => return None,
            }
        }
    }

    /// The newest messages of these subjects, the last of which is the shard's barrier.
    pub(crate) async fn newest(&self, stream: &str, subjects: &[String]) -> Option<Newest> {
        let trace = self.client.new_inbox();
        let mut hops = within(ANSWER_WITHIN, self.client.subscribe(trace.clone())).await?.ok()?;
        let found = self.direct(stream, json!({ "multi_last": subjects }), Some(&trace)).await?;
        let hop = tokio::time::timeout(TRACE_WITHIN, hops.next()).await.ok().flatten();
        let server = hop.and_then(|hop| answered_by(&hop.payload));
        if !found.is_cut {
            let messages = found.messages.into_iter().map(|message| (message.subject.clone(), message)).collect();
            return Some(Newest { server, messages });
        }
        // What was too much at once is asked for in two parts, each with the barrier.
        let barrier = subjects.last().filter(|_| subjects.len() > 2)?;
        let (first, second) = subjects.split_at(subjects.len() / 2);
        let first: Vec<String> = first.iter().chain([barrier]).cloned().collect();
        let mut newest = Box::pin(self.newest(stream, &first)).await?;
        let older = newest.messages.remove(barrier);
        let second = Box::pin(self.newest(stream, second)).await?;
        newest.messages.extend(second.messages);
        newest.messages.extend(older.map(|message| (barrier.clone(), message)));
        let same = newest.server == second.server;
        Some(Newest { server: newest.server.filter(|_| same), messages: newest.messages })
    }

    /// The newest message of these subjects that the replica has which is asked.
    pub(crate) async fn last(&self, stream: &str, subjects: &str) -> Option<Stored> {
        let body = json!({ "last_by_subj": subjects }).to_string().into();
        let asked = self.client.request(format!("$JS.API.DIRECT.GET.{stream}"), body);
        let answer = within(ANSWER_WITHIN * 2, asked).await?.ok()?;
        if answer.status.is_some() { None } else { stored(answer) }
    }

    /// Messages from a sequence on, at the most so many.
    pub(crate) async fn from(&self, stream: &str, seq: u64, subject: Option<&str>, count: u64) -> Option<Vec<Stored>> {
        let mut body = json!({ "seq": seq, "batch": count, "max_bytes": READ_BYTES_MAX });
        if let (Some(subject), Some(body)) = (subject, body.as_object_mut()) {
            body.insert("next_by_subj".to_owned(), subject.into());
        }
        Some(self.direct(stream, body, None).await?.messages)
    }

    /// The message with this sequence, or the next one that a replica has.
    pub(crate) async fn at(&self, stream: &str, seq: u64) -> Option<Stored> {
        self.from(stream, seq, None, 1).await?.pop()
    }
}

/// Which server a question went to, by what the server that took it in says: to another one, or nowhere else.
fn answered_by(hop: &[u8]) -> Option<String> {
    let hop: Value = serde_json::from_slice(hop).ok()?;
    let events = hop["events"].as_array()?;
    let onward = events.iter().filter(|event| event["type"] == "eg").find_map(|event| event["name"].as_str());
    onward.or_else(|| hop["server"]["name"].as_str()).map(str::to_owned)
}

fn number(message: &Message, header: &str) -> Option<u64> {
    message.headers.as_ref()?.get(header)?.as_str().parse().ok()
}

fn stored(message: Message) -> Option<Stored> {
    let seq = number(&message, "Nats-Sequence")?;
    let subject = message.headers.as_ref()?.get("Nats-Subject")?.as_str().to_owned();
    Some(Stored { seq, subject, payload: message.payload })
}
