//! Secrets of webhooks, and the signatures made with them: Standard Webhooks, symmetric.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use std::fmt;

const PREFIX: &str = "whsec_";
/// What the standard asks for, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A text that no log shows.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Why a text is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretError {
    /// There is none.
    Missing,
    /// It does not begin with `whsec_`.
    Prefix,
    /// What follows is not base64.
    Base64,
    /// It has too few or too many bytes.
    Length,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there is no secret",
            Self::Prefix => "a secret begins with `whsec_`",
            Self::Base64 => "what follows `whsec_` must be base64",
            Self::Length => "a secret has 24 to 64 bytes, in base64",
        })
    }
}

impl std::error::Error for SecretError {}

/// The secrets of an endpoint. Messages are signed with each, so that one can be changed while receivers know only the
/// other.
#[derive(Clone)]
pub struct Secrets(Vec<Vec<u8>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Reads one or several secrets with space between them.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let secrets = text.split_ascii_whitespace().map(|text| {
            let digits = text.strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
            let bytes = STANDARD.decode(digits).map_err(|_| SecretError::Base64)?;
            if SECRET_BYTES.contains(&bytes.len()) { Ok(bytes) } else { Err(SecretError::Length) }
        });
        let secrets: Vec<_> = secrets.collect::<Result<_, _>>()?;
        if secrets.is_empty() { Err(SecretError::Missing) } else { Ok(Self(secrets)) }
    }

    /// The header `webhook-signature` of a message.
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &[u8]) -> String {
        let sign = |secret: &Vec<u8>| {
            // HMAC takes keys of any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
            mac.update(format!("{id}.{timestamp_s}.").as_bytes());
            mac.update(body);
            Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
        };
        self.0.iter().filter_map(sign).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard's own libraries.
    #[test]
    fn the_standards_example() {
        let secrets = Secrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn several_secrets_sign_each() {
        let one = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let two = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let sign = |text: &str| Secrets::parse(text).unwrap().sign("a", 1, b"x");
        assert_eq!(sign(&format!("{one} {two}\n")), format!("{} {}", sign(one), sign(two)));
    }

    #[test]
    fn what_is_no_secret() {
        let table = [
            ("", SecretError::Missing),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", SecretError::Prefix),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!", SecretError::Base64),
            ("whsec_MfKQ", SecretError::Length),
        ];
        for (text, expected) in table {
            assert_eq!(Secrets::parse(text).unwrap_err(), expected, "{text}");
        }
        let secrets = Secrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(format!("{secrets:?} {:?}", Hidden("x".to_owned())), "Secrets(1) (hidden)");
    }
}
