//! Secrets and signatures, as in Standard Webhooks (<https://www.standardwebhooks.com>, version 1): HMAC-SHA-256 over id,
//! time and body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::RequestBuilder;
use sha2::Sha256;
use std::fmt;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// How long a secret may be, in bytes.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How long one is that is made here.
const BYTES_MADE: usize = 32;

/// What two sides share. It is shown only to its owner, by [`Secret::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a text is no secret. It never repeats any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSecret {
    /// There is none.
    Missing,
    /// It does not begin with `whsec_`.
    Prefix,
    /// What follows is not base64.
    Base64,
    /// It has too few or too many bytes.
    Length,
}

impl fmt::Display for BadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Missing => "there is no secret",
            Self::Prefix => "this does not begin with `whsec_`",
            Self::Base64 => "what follows `whsec_` is not base64",
            Self::Length => "this has too few or too many bytes",
        };
        let (least, most) = (BYTES.start(), BYTES.end());
        write!(f, "{what}: a secret is `whsec_` and {least} to {most} random bytes in base64, ")?;
        f.write_str("as `openssl rand -base64 32` makes them")
    }
}

impl std::error::Error for BadSecret {}

impl Secret {
    /// Reads a secret: `whsec_` and 24 to 64 bytes in base64. Blanks around it count for nothing.
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let text = text.trim();
        if text.is_empty() {
            return Err(BadSecret::Missing);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(BadSecret::Prefix)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| BadSecret::Base64)?;
        if BYTES.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(BadSecret::Length) }
    }

    /// A new one. An error says that the system gives no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = vec![0; BYTES_MADE];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The secret as text, to be shown to its owner.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// The value of `webhook-signature`: `v1,` and the signature of `id.timestamp.body` in base64.
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.mac(id, timestamp_s, body).finalize().into_bytes()))
    }

    /// Whether one of the signatures in a header `webhook-signature`, separated by blanks, is right. Compares in
    /// constant time. For receivers, which also check that the time is near their own.
    pub fn verifies(&self, header: &str, id: &str, timestamp_s: u64, body: &[u8]) -> bool {
        header.split(' ').filter_map(|one| one.strip_prefix("v1,")).any(|encoded| {
            let signature = STANDARD.decode(encoded).unwrap_or_default();
            self.mac(id, timestamp_s, body).verify_slice(&signature).is_ok()
        })
    }

    fn mac(&self, id: &str, timestamp_s: u64, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&block(&self.0).into());
        mac.update(format!("{id}.{timestamp_s}.").as_bytes());
        mac.update(body);
        mac
    }
}

/// The key, filled up with zeros to the block of SHA-256, which is the same key. A secret is never longer.
fn block(key: &[u8]) -> [u8; 64] {
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(byte, key)| *byte = *key);
    block
}

/// One secret or several. What is sent is signed with each, so that one can be changed while receivers know only the
/// other.
#[derive(Clone)]
pub struct Secrets(Vec<Secret>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Reads one or several secrets with space between them.
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let secrets: Vec<_> = text.split_ascii_whitespace().map(Secret::parse).collect::<Result<_, _>>()?;
        if secrets.is_empty() { Err(BadSecret::Missing) } else { Ok(Self(secrets)) }
    }

    /// The value of `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &[u8]) -> String {
        self.0.iter().map(|secret| secret.sign(id, timestamp_s, body)).collect::<Vec<_>>().join(" ")
    }
}

/// A call with its id, its time, the signature of both and of its body, and the body.
pub fn signed(call: RequestBuilder, id: &str, timestamp_s: u64, signature: String, body: Vec<u8>) -> RequestBuilder {
    let call = call.header("webhook-id", id).header("webhook-timestamp", timestamp_s);
    call.header("webhook-signature", signature).body(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The example of the specification's own libraries.
    #[test]
    fn signs_as_the_standard_says() {
        let secret = Secret::parse(EXAMPLE).unwrap();
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let signature = secret.sign(id, 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(Secrets::parse(EXAMPLE).unwrap().sign(id, 1_614_265_330, body), signature);
        assert!(secret.verifies(&format!("v1a,xx v1,AAAA {signature}"), id, 1_614_265_330, body));
        assert!(!secret.verifies(&signature, id, 1_614_265_331, body));
        assert!(!secret.verifies(&signature, "other", 1_614_265_330, body));
        assert!(!secret.verifies(&signature, id, 1_614_265_330, b"{}"));
        assert!(!secret.verifies("", id, 1_614_265_330, body));
    }

    #[test]
    fn several_secrets_sign_each() {
        let two = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let sign = |text: &str| Secrets::parse(text).unwrap().sign("a", 1, b"x");
        let both = sign(&format!("{EXAMPLE} {two}\n"));
        assert_eq!(both, format!("{} {}", sign(EXAMPLE), sign(two)));
        assert!(Secret::parse(two).unwrap().verifies(&both, "a", 1, b"x"), "a receiver needs to know only one");
    }

    #[test]
    fn a_secret_is_strict_and_shows_nothing() {
        let long = format!("whsec_{}", STANDARD.encode([7; 65]));
        let table = [
            ("", BadSecret::Missing),
            (" \n", BadSecret::Missing),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", BadSecret::Prefix),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!", BadSecret::Base64),
            ("whsec_%%%", BadSecret::Base64),
            ("whsec_", BadSecret::Length),
            ("whsec_AAAA", BadSecret::Length),
            ("whsec_c2hvcnQ=", BadSecret::Length),
            (long.as_str(), BadSecret::Length),
        ];
        for (text, expected) in table {
            assert_eq!(Secret::parse(text), Err(expected), "{text}");
            assert_eq!(Secrets::parse(text).unwrap_err(), expected, "{text}");
            assert!(!expected.to_string().contains("MfKQ"));
        }
        let secret = Secret::parse(&format!(" {EXAMPLE}\n")).unwrap();
        assert_eq!(format!("{secret:?} {:?}", Secrets(vec![secret.clone()])), "Secret(…) Secrets(1)");
    }

    #[test]
    fn a_new_secret_is_one_and_another() {
        let secret = Secret::generate().unwrap();
        assert_eq!(Secret::parse(&secret.reveal()), Ok(secret.clone()));
        assert_ne!(Secret::generate().unwrap(), secret);
    }
}
