//! The live stream of events (server-sent events), which goes on by itself where it was cut off: without gap, without
//! repeat.
//!
//! Every message carries its position in the ledger; a new connection asks for what comes after the last one that was
//! taken. The reader of the format is written by hand: it is a page, and it must bound what it keeps.

use crate::client::{Client, back_off};
use crate::error::Error;
use crate::types::{Event, EventStatus};
use bursar_core::{CustomerId, RequestKind};
use bursar_outbound::has_type;
use reqwest::header::ACCEPT;
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::fmt;
use tokio::time::{sleep, timeout};

/// The longest message that is believed.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Where a stream begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum After {
    /// With the ledger's first event.
    #[default]
    Beginning,
    /// With what comes from now on.
    Latest,
    /// Behind a position that was given out with an event.
    Position(String),
}

/// Which events come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// Where it begins.
    pub after: After,
    /// Only this customer's.
    pub customer: Option<CustomerId>,
    /// Only of this kind.
    pub kind: Option<RequestKind>,
    /// Only with this status.
    pub status: Option<EventStatus>,
}

/// A change of an event, with its place in the ledger.
#[derive(Clone, Debug)]
pub struct LedgerEvent {
    /// The position, to go on from: see [`After::Position`].
    pub position: String,
    /// `event.started`, `event.done` or `event.aborted`.
    pub kind: String,
    /// The event.
    pub event: Event,
    /// The whole message, as the server wrote it: one line of JSON.
    pub json: String,
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    position: String,
    r#type: String,
    #[serde(borrow)]
    event: &'a RawValue,
}

/// A live stream of events.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    subscription: Subscription,
    connection: Option<(Response, Parser)>,
    /// Attempts since the last sign of life.
    attempts: u32,
    was_connected: bool,
    told: Option<Told>,
}

/// Who hears of lost connections.
struct Told(Box<dyn Fn(&Error) + Send + Sync>);

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

impl Client {
    /// A live stream of events. Connects when it is first asked for one.
    pub fn subscribe(&self, subscription: Subscription) -> EventStream {
        EventStream {
            client: self.clone(),
            subscription,
            connection: None,
            attempts: 0,
            was_connected: false,
            told: None,
        }
    }
}

impl EventStream {
    /// Tells of every connection that was lost and is made anew.
    #[must_use]
    pub fn on_reconnect(mut self, tell: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.told = Some(Told(Box::new(tell)));
        self
    }

    /// The next event; waits for it as long as it takes.
    ///
    /// A connection that is lost, or silent for longer than an answer may take, is made anew. An error is for good: the
    /// server was never reached, or it does not want to go on.
    pub async fn next(&mut self) -> Result<LedgerEvent, Error> {
        loop {
            match self.next_of_connection().await {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(error) => {
                    self.connection = None;
                    if !error.may_pass() || !self.was_connected {
                        return Err(error);
                    }
                    if let Some(Told(tell)) = &self.told {
                        tell(&error);
                    }
                    let asked = error.problem().and_then(|problem| problem.retry_after).unwrap_or_default();
                    sleep(asked.max(back_off(self.attempts))).await;
                    self.attempts += 1;
                }
            }
        }
    }

    /// The next event of this connection; `None`: a message that is no event.
    async fn next_of_connection(&mut self) -> Result<Option<LedgerEvent>, Error> {
        let within = self.client.options().answer_within;
        if self.connection.is_none() {
            self.connection = Some((self.connect().await?, Parser::default()));
            self.was_connected = true;
        }
        let Some((response, parser)) = &mut self.connection else { return Ok(None) };
        if let Some(message) = parser.messages.pop_front() {
            return self.take(message);
        }
        match timeout(within, response.chunk()).await.map_err(|_| Error::TimedOut(within))? {
            Ok(Some(piece)) => {
                self.attempts = 0;
                parser.add(&piece)?;
                Ok(None)
            }
            Ok(None) => Err(Error::CutOff(format!("{}: the stream has ended", self.client.server()))),
            Err(error) => Err(self.client.cut_off(&error)),
        }
    }

    async fn connect(&self) -> Result<Response, Error> {
        let Subscription { after, customer, kind, status } = &self.subscription;
        let customer = customer.map(|customer| customer.to_string());
        let mut query = Vec::new();
        query.extend(customer.as_deref().map(|customer| ("customer", customer)));
        query.extend(kind.map(|kind| ("kind", kind.name())));
        query.extend(status.map(|status| ("status", status.name())));
        match after {
            After::Beginning => {}
            After::Latest => query.push(("after", "latest")),
            After::Position(position) => query.push(("after", position.as_str())),
        }
        let call = self.client.call(Method::GET, "/v1/events", &query).header(ACCEPT, "text/event-stream");
        let call = match after {
            After::Position(position) => call.header("Last-Event-ID", position.as_str()),
            After::Beginning | After::Latest => call,
        };
        let response = self.client.send(call).await?;
        if !has_type(response.headers(), "text/event-stream") {
            return Err(Error::NotUnderstood(format!("{} has no stream of events", self.client.server())));
        }
        Ok(response)
    }

    /// What a message says; `None` if it only moves the position.
    fn take(&mut self, message: Message) -> Result<Option<LedgerEvent>, Error> {
        let server = self.client.server();
        let not_understood = |why: &dyn fmt::Display| {
            Error::NotUnderstood(format!("{server}: a message of the stream cannot be read: {why}"))
        };
        let is_repeat = match (&self.subscription.after, &message.id) {
            (After::Position(last), Some(id)) => last == id,
            (After::Beginning | After::Latest | After::Position(_), _) => false,
        };
        if is_repeat || message.data.is_empty() {
            if let Some(id) = message.id {
                self.subscription.after = After::Position(id);
            }
            return Ok(None);
        }
        let raw: RawMessage<'_> = serde_json::from_str(&message.data).map_err(|error| not_understood(&error))?;
        if message.id.as_ref() != Some(&raw.position) {
            return Err(not_understood(&"its position is not its id"));
        }
        let event: Event = serde_json::from_str(raw.event.get()).map_err(|error| not_understood(&error))?;
        let (position, kind) = (raw.position, raw.r#type);
        self.subscription.after = After::Position(position.clone());
        Ok(Some(LedgerEvent { position, kind, event, json: message.data }))
    }
}

/// A message of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    id: Option<String>,
    data: String,
}

/// Cuts a stream into messages, as <https://html.spec.whatwg.org/multipage/server-sent-events.html> has it. What a
/// connection left unfinished is forgotten with its parser.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    after_return: bool,
    message: Message,
    has_data: bool,
    messages: VecDeque<Message>,
}

impl Parser {
    fn add(&mut self, piece: &[u8]) -> Result<(), Error> {
        for &byte in piece {
            let is_second = std::mem::take(&mut self.after_return) && byte == b'\n';
            match byte {
                b'\n' if is_second => {}
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    self.end_line()?;
                }
                _ if self.line.len() + self.message.data.len() > MESSAGE_BYTES_MAX => {
                    return Err(Error::NotUnderstood("a message of the stream has no end".to_owned()));
                }
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), Error> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8(line)
            .map_err(|_| Error::NotUnderstood("a message of the stream is no UTF-8".to_owned()))?;
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            self.has_data = false;
            if message != Message::default() {
                self.messages.push_back(message);
            }
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.message.id = Some(value.to_owned()),
            // A comment is a sign of life; the type stands in the data as well.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_wherever_pieces_end() {
        let stream = b": hello\n\nid: 5\nevent: event.done\ndata: {\"a\":\ndata:1}\n\nid: 6\r\n\r\nretry: 10\n\n\
                       data: x\rid:7\r\rid: 8\ndata: unfinished";
        let message = |id: &str, data: &str| Message { id: Some(id.to_owned()), data: data.to_owned() };
        let expected = [message("5", "{\"a\":\n1}"), message("6", ""), message("7", "x")];
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            for piece in stream.chunks(size) {
                parser.add(piece).unwrap();
            }
            assert_eq!(parser.messages, expected, "pieces of {size}");
        }
    }

    #[test]
    fn what_has_no_end_is_refused() {
        let mut parser = Parser::default();
        let line = vec![b'x'; MESSAGE_BYTES_MAX + 2];
        assert!(parser.add(&line).is_err());
        let mut parser = Parser::default();
        assert!(parser.add(b"data: \xff\n").is_err());
    }
}
