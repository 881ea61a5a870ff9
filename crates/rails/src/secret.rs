//! Secrets and signatures, as in Standard Webhooks: HMAC-SHA-256 over id, time and body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

const PREFIX: &str = "whsec_";
/// How long a secret may be, in bytes.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What a rail and Bursar share. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What is wrong with a secret. It never repeats any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSecret;

impl fmt::Display for BadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret is `whsec_` and 24 to 64 random bytes in base64, as `openssl rand -base64 32` makes them")
    }
}

impl std::error::Error for BadSecret {}

impl Secret {
    /// Reads a secret: `whsec_` and 24 to 64 bytes in base64. Blanks around it count for nothing.
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(BadSecret)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| BadSecret)?;
        if BYTES.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(BadSecret) }
    }

    /// The value of `webhook-signature`: `v1,` and the signature of `id.timestamp.body` in base64.
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.mac(id, timestamp_s, body).finalize().into_bytes()))
    }

    /// Whether one of the signatures in a header `webhook-signature`, separated by blanks, is right. Compares in
    /// constant time. For rails, which also check that the time is near their own.
    pub fn verifies(&self, header: &str, id: &str, timestamp_s: u64, body: &[u8]) -> bool {
        header.split(' ').filter_map(|one| one.strip_prefix("v1,")).any(|encoded| {
            let signature = STANDARD.decode(encoded).unwrap_or_default();
            self.mac(id, timestamp_s, body).verify_slice(&signature).is_ok()
        })
    }

    fn mac(&self, id: &str, timestamp_s: u64, body: &[u8]) -> Hmac<Sha256> {
        // A key of any length is taken: longer ones than a block are hashed first.
        let mut mac = Hmac::<Sha256>::new(&block(&self.0).into());
        mac.update(format!("{id}.{timestamp_s}.").as_bytes());
        mac.update(body);
        mac
    }
}

/// The key, filled up with zeros to the block of SHA-256, which is the same key.
fn block(key: &[u8]) -> [u8; 64] {
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(byte, key)| *byte = *key);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn signs_as_the_standard_says() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let signature = secret.sign(id, 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(secret.verifies(&format!("v1a,xx v1,AAAA {signature}"), id, 1_614_265_330, body));
        assert!(!secret.verifies(&signature, id, 1_614_265_331, body));
        assert!(!secret.verifies(&signature, "other", 1_614_265_330, body));
        assert!(!secret.verifies(&signature, id, 1_614_265_330, b"{}"));
        assert!(!secret.verifies("", id, 1_614_265_330, body));
    }

    #[test]
    fn a_secret_is_strict_and_shows_nothing() {
        for bad in
            ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!"]
        {
            assert_eq!(Secret::parse(bad), Err(BadSecret), "{bad}");
        }
        let secret = Secret::parse(" whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
