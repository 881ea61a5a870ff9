//! Why a chain could not be exported, and what is wrong with a chain file.

use crate::ledger::ReadError;
use bursar_core::{ChainFault, CustomerId, Hash};
use std::fmt;
use std::io;

/// Why a chain could not be exported.
#[derive(Debug)]
pub enum ExportError {
    /// The customer has no chain.
    UnknownCustomer {
        /// Who was asked for.
        customer: CustomerId,
    },
    /// The ledger could not be read.
    Read(ReadError),
    /// The file could not be written.
    Write(io::Error),
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCustomer { customer } => write!(f, "customer {customer} has no chain"),
            Self::Read(error) => error.fmt(f),
            Self::Write(error) => write!(f, "could not write the chain file: {error}"),
        }
    }
}

impl std::error::Error for ExportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::UnknownCustomer { .. } => None,
            Self::Read(error) => Some(error),
            Self::Write(error) => Some(error),
        }
    }
}

impl From<ReadError> for ExportError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// What is wrong with a chain file, and where.
#[derive(Debug)]
pub struct ChainFileError {
    /// The line, from 1.
    pub line: u64,
    /// The column, in bytes from 1.
    pub column: u64,
    /// The field it is about, if it is about one.
    pub field: Option<&'static str>,
    /// What is wrong.
    pub fault: ChainFileFault,
}

/// What is wrong with a chain file.
#[derive(Debug)]
pub enum ChainFileFault {
    /// The file could not be read.
    Io(io::Error),
    /// A line is not UTF-8.
    NotUtf8,
    /// A line is longer than any line of a chain file.
    LineTooLong,
    /// The file ends before its end line, or within a line.
    Truncated,
    /// There is something behind the end line.
    BehindEnd,
    /// A line is no JSON object.
    NotJson,
    /// This is no chain file.
    NotAChainFile,
    /// The file's version is not known here.
    Version {
        /// The version it has.
        found: u64,
    },
    /// A field is missing, or has another type.
    Missing {
        /// What there should be.
        expected: &'static str,
    },
    /// A field has a value that it cannot have.
    BadValue {
        /// What there should be.
        expected: &'static str,
    },
    /// The line says what it says in another way than chain files do.
    NotCanonical {
        /// How the line should go on, from the column on.
        expected: String,
    },
    /// The event breaks the chain.
    Chain(ChainFault),
    /// The end line does not say what the events lead to.
    WrongEnd {
        /// How the line should go on, from the column on.
        expected: String,
    },
    /// The receipt's head hash is not in this chain.
    OtherReceipt {
        /// That hash.
        receipt: Hash,
    },
}

impl ChainFileFault {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "io_error",
            Self::NotUtf8 => "not_utf8",
            Self::LineTooLong => "line_too_long",
            Self::Truncated => "truncated",
            Self::BehindEnd => "behind_end",
            Self::NotJson => "not_json",
            Self::NotAChainFile => "not_a_chain_file",
            Self::Version { .. } => "unknown_version",
            Self::Missing { .. } => "missing_field",
            Self::BadValue { .. } => "bad_value",
            Self::NotCanonical { .. } => "not_canonical",
            Self::Chain(fault) => fault.code(),
            Self::WrongEnd { .. } => "wrong_end",
            Self::OtherReceipt { .. } => "other_receipt",
        }
    }
}

impl fmt::Display for ChainFileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the file could not be read: {error}"),
            Self::NotUtf8 => f.write_str("this is not UTF-8"),
            Self::LineTooLong => f.write_str("no line of a chain file is this long"),
            Self::Truncated => f.write_str("the file ends before its end line"),
            Self::BehindEnd => f.write_str("there is something behind the end line"),
            Self::NotJson => f.write_str("this is no JSON object"),
            Self::NotAChainFile => f.write_str("this is no chain file"),
            Self::Version { found } => write!(f, "the file has format version {found}, which is not known here"),
            Self::Missing { expected } => write!(f, "there should be {expected}"),
            Self::BadValue { expected } => write!(f, "this should be {expected}"),
            Self::NotCanonical { expected } => write!(f, "chain files go on like this: {expected}"),
            Self::Chain(fault) => fault.fmt(f),
            Self::WrongEnd { expected } => write!(f, "by the events, the line should go on like this: {expected}"),
            Self::OtherReceipt { receipt } => write!(f, "the chain never had the head hash {receipt}"),
        }
    }
}

impl fmt::Display for ChainFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)?;
        if let Some(field) = self.field {
            write!(f, ", field `{field}`")?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl std::error::Error for ChainFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            ChainFileFault::Io(error) => Some(error),
            ChainFileFault::NotUtf8
            | ChainFileFault::LineTooLong
            | ChainFileFault::Truncated
            | ChainFileFault::BehindEnd
            | ChainFileFault::NotJson
            | ChainFileFault::NotAChainFile
            | ChainFileFault::Version { .. }
            | ChainFileFault::Missing { .. }
            | ChainFileFault::BadValue { .. }
            | ChainFileFault::NotCanonical { .. }
            | ChainFileFault::Chain(_)
            | ChainFileFault::WrongEnd { .. }
            | ChainFileFault::OtherReceipt { .. } => None,
        }
    }
}
