//! Messages that are posted to somebody else, signed as Standard Webhooks has it
//! (<https://www.standardwebhooks.com>, version 1).

use crate::client::Options;
use crate::error::Error;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::CONTENT_TYPE;
use sha2::Sha256;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// A secret has between 24 and 64 bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How much of an answer is shown.
const SHOWN_BYTES_MAX: usize = 200;

/// The secret that messages are signed with. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// A text is no secret: `whsec_` and 24 to 64 bytes in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSecret;

impl fmt::Display for BadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret is `whsec_` and 24 to 64 bytes in base64")
    }
}

impl std::error::Error for BadSecret {}

impl Secret {
    /// Reads a secret; white space around it is left out.
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(BadSecret)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| BadSecret)?;
        if SECRET_BYTES.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(BadSecret) }
    }

    /// A new one.
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = vec![0; 32];
        let filled = getrandom::fill(&mut bytes);
        filled.map_err(|error| Error::Setup(format!("the system gives no random bytes: {error}")))?;
        Ok(Self(bytes))
    }

    /// The secret as text, to be shown to its owner.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// The value of the header `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &str) -> String {
        // A key of any length is taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{id}.{timestamp_s}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

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
    /// For the endpoint at `url`, over `http` or `https`.
    pub fn new(url: &str, secret: Secret, options: &Options) -> Result<Self, Error> {
        let url = reqwest::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url =
            url.ok_or_else(|| Error::Setup("the URL to forward to begins with http:// or https://".to_owned()))?;
        Ok(Self { http: crate::client::http(options)?, url, secret, within: options.answer_within })
    }

    /// Posts a message once. The id stays the same when it is posted again, so that the endpoint knows it.
    pub async fn post(&self, id: &str, body: &str) -> Result<Delivery, Error> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let call = self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        let call = call.header("webhook-id", id).header("webhook-timestamp", now_s);
        let call = call.header("webhook-signature", self.secret.sign(id, now_s, body)).body(body.to_owned());
        let sent = async {
            let mut response = call.send().await?;
            let (status, mut answer) = (response.status().as_u16(), Vec::new());
            let retry_after = response.headers().get(reqwest::header::RETRY_AFTER);
            let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
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
            Ok(sent) => sent.map_err(|error: reqwest::Error| Error::CutOff(crate::client::causes(&error))),
            Err(_) => Err(Error::TimedOut(self.within)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn a_message_is_signed_as_the_specification_has_it() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_checked_and_not_shown() {
        let secret = Secret::generate().unwrap();
        assert_eq!(Secret::parse(&secret.reveal()).unwrap().0, secret.0);
        assert_ne!(Secret::generate().unwrap().0, secret.0);
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        for text in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%", "whsec_c2hvcnQ="] {
            assert_eq!(Secret::parse(text).unwrap_err(), BadSecret, "{text}");
        }
    }
}
