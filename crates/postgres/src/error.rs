//! Why a ledger in PostgreSQL could not be opened.

use bursar_engine::store::StoreError;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

/// Why a ledger in PostgreSQL could not be made, brought up to date, or opened.
#[derive(Debug)]
pub enum OpenError {
    /// The configuration cannot be used.
    Config {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A file that the configuration names could not be read.
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The server could not be reached, or refused.
    Server {
        /// Which, without secrets.
        place: String,
        /// What went wrong.
        what: String,
    },
    /// The schema was written by a newer program.
    NewerSchema {
        /// The version that it has.
        found: u32,
        /// The version known here.
        known: u32,
    },
    /// The schema is older than this program: it is to be migrated first.
    OlderSchema {
        /// The version that it has.
        found: u32,
        /// The version known here.
        known: u32,
    },
    /// There is no ledger in the schema.
    NoLedger {
        /// Where it was looked for.
        place: String,
    },
    /// There is a ledger in the schema already.
    Exists {
        /// Where.
        place: String,
    },
    /// The ledger in the schema is another one than was expected.
    OtherLedger {
        /// Where.
        place: String,
    },
    /// The server runs with settings under which acknowledged money can be lost.
    UnsafeSettings {
        /// Each with why.
        settings: Vec<UnsafeSetting>,
    },
    /// The call failed as a store's does.
    Store(StoreError),
}

/// A setting of the server under which acknowledged money can be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsafeSetting {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What can happen.
    pub why: &'static str,
}

impl OpenError {
    /// Says where, if that is not said yet.
    pub(crate) fn at(mut self, at: &str) -> Self {
        if let Self::Server { place, .. } = &mut self
            && place.is_empty()
        {
            at.clone_into(place);
        }
        self
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { field, what } => write!(f, "`{field}` of the store's configuration: {what}"),
            Self::File { path, error } => write!(f, "could not read {}: {error}", path.display()),
            Self::Server { place, what } => write!(f, "could not reach the ledger's database ({place}): {what}"),
            Self::NewerSchema { found, known } => write!(
                f,
                "the schema has version {found}; this program knows version {known}: use the version of bursar that migrated it, or a newer one"
            ),
            Self::OlderSchema { found, known } => {
                write!(f, "the schema has version {found}, and version {known} is needed: migrate it first")
            }
            Self::NoLedger { place } => write!(f, "there is no ledger in {place}"),
            Self::Exists { place } => write!(f, "there is a ledger in {place} already"),
            Self::OtherLedger { place } => {
                write!(f, "the ledger in {place} is another one: its id, policy or currencies differ")
            }
            Self::UnsafeSettings { settings } => {
                f.write_str("the server could lose acknowledged money:")?;
                for UnsafeSetting { name, value, why } in settings {
                    write!(f, " {name} is {value} ({why});")?;
                }
                f.write_str(" change that, or set `allow_unsafe_settings` if this money is not real")
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::File { error, .. } => Some(error),
            Self::Store(error) => Some(error),
            Self::Config { .. }
            | Self::Server { .. }
            | Self::NewerSchema { .. }
            | Self::OlderSchema { .. }
            | Self::NoLedger { .. }
            | Self::Exists { .. }
            | Self::OtherLedger { .. }
            | Self::UnsafeSettings { .. } => None,
        }
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<tokio_postgres::Error> for OpenError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server { place: String::new(), what: sentence(&error) }
    }
}

/// An error of the client with what the server said, which it keeps in its source.
pub(crate) fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
