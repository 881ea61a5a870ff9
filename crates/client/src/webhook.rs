//! Messages that are posted to somebody else, signed as Standard Webhooks has it
//! (<https://www.standardwebhooks.com>, version 1).

use crate::client::Options;
use crate::error::Error;
pub use bursar_outbound::{BadSecret, Secret};
use bursar_outbound::{Trust, in_words, now_s, retry_after, signed};
use reqwest::header::CONTENT_TYPE;
use std::time::Duration;
use tokio::time::timeout;

/// How much of an answer is shown.
const SHOWN_BYTES_MAX: usize = 200;

/// What an endpoint answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The HTTP status; 2xx says that the message was taken.
    pub status: u16,
    /// The beginning of the answer, on one line.
    pub answer: String,
    /// After how long the endpoint wants to be asked again, if it says so.
    pub retry_after: Option<Duration>,
}

impl Delivery {
    /// Whether the message was taken.
    pub const fn is_taken(&self) -> bool {
        matches!(self.status, 200..=299)
    }
}

/// Posts signed messages to one endpoint.
#[derive(Clone, Debug)]
pub struct Forwarder {
    http: reqwest::Client,
    url: reqwest::Url,
    secret: Secret,
    within: Duration,
}

impl Forwarder {
    /// For the endpoint at `url`, over `http` or `https`. Whom the system trusts is trusted, and whom the authorities of
    /// `ca` vouch for as well: the endpoint may be somebody else's, or stand beside the server.
    pub fn new(url: &str, secret: Secret, options: &Options) -> Result<Self, Error> {
        let url = reqwest::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url =
            url.ok_or_else(|| Error::Setup("the URL to forward to begins with http:// or https://".to_owned()))?;
        let trust = options.ca.as_deref().map_or(Trust::System, |ca| Trust::SystemAnd(ca.as_bytes()));
        Ok(Self { http: crate::client::http(trust, options)?, url, secret, within: options.answer_within })
    }

    /// Posts a message once. The id stays the same when it is posted again, so that the endpoint knows it.
    pub async fn post(&self, id: &str, body: &str) -> Result<Delivery, Error> {
        let (now_s, body) = (now_s(), body.as_bytes().to_vec());
        let signature = self.secret.sign(id, now_s, &body);
        let call = self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        let call = signed(call, id, now_s, signature, body);
        let sent = async {
            let mut response = call.send().await?;
            let (status, mut answer) = (response.status().as_u16(), Vec::new());
            let retry_after = retry_after(response.headers());
            while let Some(piece) = response.chunk().await? {
                answer.extend_from_slice(&piece);
                if answer.len() > SHOWN_BYTES_MAX {
                    answer.truncate(SHOWN_BYTES_MAX);
                    break;
                }
            }
            let answer = String::from_utf8_lossy(&answer);
            let answer = answer.chars().map(|shown| if shown.is_control() { ' ' } else { shown }).collect::<String>();
            Ok(Delivery { status, answer: answer.trim().to_owned(), retry_after })
        };
        match timeout(self.within, sent).await {
            Ok(sent) => sent.map_err(|error: reqwest::Error| Error::CutOff(in_words(&error))),
            Err(_) => Err(Error::TimedOut(self.within)),
        }
    }
}
