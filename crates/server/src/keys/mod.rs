//! API keys: who may do what.
//!
//! A key is `bursar_ID_SECRET`: its id, which is no secret, and 256 random bits. Only the SHA-256 of the secret is
//! kept. A slow hash, as for passwords, would add nothing: there is no guessing 256 random bits.
//!
//! Keys are required as soon as the listener can be reached from other machines, and whenever there is a list of
//! keys, even an empty one: revoking the last key does not open the door.

mod file;
mod ring;

pub use file::{FILE_NAME, KeyFile, KeyFileError};
pub(crate) use ring::{Admission, Ring};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// What a key lets its owner do. Each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read customers, chains, transactions, totals and metrics.
    Read,
    /// Also submit requests.
    Submit,
    /// Also what an operator does: unlock customers, settle events by hand, and pause, resume and resend webhooks.
    Operate,
}

impl Role {
    /// All of them, from the least to the most.
    pub const ALL: [Self; 3] = [Self::Read, Self::Submit, Self::Operate];

    /// The name used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Operate => "operate",
        }
    }
}

const PREFIX: &str = "bursar_";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// The id of a key, by which keys are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyId(pub(crate) [u8; ID_BYTES]);

/// A key as its owner has it. It is shown once, when it is made; its `Debug` does not show the secret.
pub struct Key {
    id: [u8; ID_BYTES],
    secret: [u8; SECRET_BYTES],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Key {
    /// A new key.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        Ok(Self { id, secret })
    }

    /// Reads a key. There is one way to write one.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        Some(Self { id: unhex(id)?, secret: unhex(secret)? })
    }

    /// Its id, by which it is listed and revoked.
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// The whole key, for its owner only.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", hex(&self.id), hex(&self.secret))
    }

    /// What is kept of it.
    pub fn entry(&self, name: &str, role: Role, created: String) -> KeyEntry {
        KeyEntry { id: self.id(), name: name.to_owned(), role, created, sha256: hex(&self.hash()) }
    }

    pub(crate) const fn key_id(&self) -> KeyId {
        KeyId(self.id)
    }

    fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }
}

/// What is kept of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Twelve hexadecimal digits.
    pub id: String,
    /// What its owner is called, for people.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The SHA-256 of the secret.
    pub sha256: String,
}

/// All keys there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(Vec<KeyEntry>);

impl KeySet {
    /// Takes entries; `None` if an id is there twice, or a field is not what it should be.
    pub fn new(entries: Vec<KeyEntry>) -> Option<Self> {
        let sound = entries.iter().enumerate().all(|(index, entry)| {
            unhex::<ID_BYTES>(&entry.id).is_some()
                && unhex::<32>(&entry.sha256).is_some()
                && entries[..index].iter().all(|other| other.id != entry.id)
        });
        sound.then_some(Self(entries))
    }

    /// All entries, in the order in which they were made.
    pub fn entries(&self) -> &[KeyEntry] {
        &self.0
    }

    /// Adds an entry.
    pub fn add(&mut self, entry: KeyEntry) {
        self.0.push(entry);
    }

    /// Removes a key by its id. `false`: there is none.
    pub fn revoke(&mut self, id: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|entry| entry.id != id);
        self.0.len() < before
    }

    /// The entry of a key. The id is no secret and is looked up; the hash is compared in constant time, also where
    /// there is no such id.
    pub fn find(&self, key: &Key) -> Option<&KeyEntry> {
        let id = key.id();
        let entry = self.0.iter().find(|entry| entry.id == id);
        let kept = entry.and_then(|entry| unhex::<32>(&entry.sha256)).unwrap_or_default();
        let same = bool::from(kept.ct_eq(&key.hash()));
        entry.filter(|_| same)
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut digits = vec![0; bytes.len() * 2];
    crate::shown::hex(bytes, &mut digits).to_owned()
}

/// Reads lower case hexadecimal digits of exactly this length.
fn unhex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    if text.len() != BYTES * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_secret_alone() {
        let keys: Vec<Key> = (0..3).map(|_| Key::generate().unwrap()).collect();
        let entries = keys.iter().map(|key| key.entry("x", Role::Read, String::new())).collect();
        let mut set = KeySet::new(entries).unwrap();
        for key in &keys {
            let again = Key::parse(&key.reveal()).unwrap();
            assert_eq!(set.find(&again).unwrap().id, key.id());
            let forged = Key { id: key.id, secret: keys[0].secret.map(|byte| byte ^ 1) };
            assert!(set.find(&forged).is_none());
        }
        let stranger = Key::generate().unwrap();
        assert!(set.find(&stranger).is_none());
        // What no entry has must not fit to an entry that is not there.
        assert!(KeySet::default().find(&stranger).is_none());
        assert!(set.revoke(&keys[1].id()) && !set.revoke(&keys[1].id()));
        assert!(set.find(&keys[1]).is_none() && set.find(&keys[2]).is_some());
    }

    #[test]
    fn there_is_one_way_to_write_a_key() {
        let key = Key::generate().unwrap();
        let text = key.reveal();
        let upper = text.replace(['a', 'b', 'c', 'd', 'e', 'f'], "A");
        for bad in
            ["", "bursar_", &text[1..], &text[..text.len() - 1], &format!("{text}0"), &format!(" {text}"), &upper]
        {
            assert!(Key::parse(bad).is_none(), "{bad}");
        }
        assert!(!format!("{key:?}").contains(&text[20..]), "the secret is not for logs");
    }

    #[test]
    fn a_set_with_an_id_twice_is_refused() {
        let entry = Key::generate().unwrap().entry("x", Role::Read, String::new());
        assert!(KeySet::new(vec![entry.clone()]).is_some());
        assert!(KeySet::new(vec![entry.clone(), entry.clone()]).is_none());
        assert!(KeySet::new(vec![KeyEntry { sha256: "0".into(), ..entry }]).is_none());
    }
}
