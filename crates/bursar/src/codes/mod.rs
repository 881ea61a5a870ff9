//! Every code that the program can print, wherever it comes from: what `bursar explain` knows.

mod engine;
mod verify;

use crate::exit::FailureKind;
use bursar_core::{Rejection, RejectionInfo};
use bursar_engine::csv::{RowErrorInfo, RowErrorKind};
use bursar_server::problem::{ProblemInfo, ServiceProblem};
#[cfg(feature = "postgres")]
pub(crate) use engine::open_info;
use engine::{BACKUPS, ENGINES, HEADERS, STORES, SUBMITS};
pub(crate) use engine::{backup_info, engine_info, store_info, submit_info};
use verify::{CHAINS, FINDINGS};
pub(crate) use verify::{finding_info, stores_info};

/// Where a code shows up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A request was rejected by the rules of money.
    Request,
    /// A row of a file could not be read.
    Row,
    /// A file has no header that can be used.
    Header,
    /// A ledger's files could not be used.
    Store,
    /// The engine did not decide a request, or stopped.
    Engine,
    /// Verification found something wrong.
    Verify,
    /// The service did not do what was asked.
    Service,
    /// A command could not do its work.
    Command,
}

impl Origin {
    /// The name printed.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Row => "row",
            Self::Header => "header",
            Self::Store => "store",
            Self::Engine => "engine",
            Self::Verify => "verify",
            Self::Service => "service",
            Self::Command => "command",
        }
    }
}

/// What is known about a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodeInfo {
    /// The stable code, fit for programs.
    pub(crate) code: &'static str,
    /// Where it shows up.
    pub(crate) origin: Origin,
    /// What it means, in a sentence.
    pub(crate) meaning: &'static str,
    /// What somebody can do about it.
    pub(crate) hint: &'static str,
}

impl CodeInfo {
    /// A code of the program itself.
    pub(crate) const fn command(code: &'static str, meaning: &'static str, hint: &'static str) -> Self {
        Self { code, origin: Origin::Command, meaning, hint }
    }

    /// A code of the rules.
    pub(crate) const fn request(info: &RejectionInfo) -> Self {
        Self { code: info.code, origin: Origin::Request, meaning: info.meaning, hint: info.hint }
    }

    const fn service(info: ProblemInfo) -> Self {
        Self { code: info.code, origin: Origin::Service, meaning: info.meaning, hint: info.hint }
    }

    const fn row(info: &RowErrorInfo) -> Self {
        Self { code: info.code, origin: Origin::Row, meaning: info.meaning, hint: info.hint }
    }

    const fn header(code: &'static str, meaning: &'static str, hint: &'static str) -> Self {
        Self { code, origin: Origin::Header, meaning, hint }
    }

    const fn store(code: &'static str, meaning: &'static str, hint: &'static str) -> Self {
        Self { code, origin: Origin::Store, meaning, hint }
    }

    const fn verify(code: &'static str, meaning: &'static str, hint: &'static str) -> Self {
        Self { code, origin: Origin::Verify, meaning, hint }
    }

    const fn engine(code: &'static str, meaning: &'static str, hint: &'static str) -> Self {
        Self { code, origin: Origin::Engine, meaning, hint }
    }
}

/// All codes: rejections in order of precedence, then what can be wrong with a file, with a ledger, with the
/// engine, what verification finds, what the service says, and the program's own. A row can fail for a reason that is also a rejection; it is listed once.
pub(crate) fn all_codes() -> impl Iterator<Item = CodeInfo> {
    let is_rejection = |code: &str| Rejection::ALL.iter().any(|info| info.code == code);
    let requests = Rejection::ALL.iter().map(CodeInfo::request);
    let rows = RowErrorKind::ALL.iter().filter(move |info| !is_rejection(info.code)).map(CodeInfo::row);
    let engine = HEADERS.into_iter().chain(STORES).chain(BACKUPS).chain(ENGINES).chain(SUBMITS);
    let commands = FailureKind::ALL.into_iter().map(FailureKind::info);
    // The service is busy for the same reason as the engine, and the program says some things in the same words.
    let shared = [
        ServiceProblem::Busy,
        ServiceProblem::UnknownCode,
        ServiceProblem::NotPending,
        ServiceProblem::ClosedOtherwise,
        ServiceProblem::NoAccountThen,
    ];
    let own = move |problem: &ServiceProblem| !shared.contains(problem);
    let services = ServiceProblem::ALL.into_iter().filter(own);
    let services = services.map(|problem| CodeInfo::service(problem.info()));
    requests
        .chain(rows)
        .chain(engine)
        .chain(FINDINGS)
        .chain(verify::STORES)
        .chain(CHAINS)
        .chain(services)
        .chain(commands)
}

/// What verification finds in the files of a ledger, for tests of the documents.
#[cfg(all(test, feature = "cache", feature = "nats", feature = "tls"))]
pub(crate) fn findings() -> impl Iterator<Item = CodeInfo> {
    FINDINGS.into_iter().chain(CHAINS)
}

/// The codes closest to what was written, the closest first: those that contain it or that it contains,
/// and those within a third of its length in typing errors. At most three.
pub(crate) fn near(written: &str) -> Vec<&'static str> {
    let errors_max = (written.len() / 3).max(2);
    let mut found: Vec<(usize, &'static str)> = all_codes()
        .filter_map(|info| {
            let within = written.len() > 2 && (info.code.contains(written) || written.contains(info.code));
            let errors = strsim::damerau_levenshtein(written, info.code);
            if within { Some((0, info.code)) } else { (errors <= errors_max).then_some((errors, info.code)) }
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, code)| code).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_core::CustomerId;
    use bursar_core::commit::Busy;
    use bursar_engine::csv::{Column, HeaderError};
    use bursar_engine::embedded::backup::BackupError;
    use bursar_engine::store::{Damage, StoreError};
    use bursar_engine::{EngineError, SubmitError};
    use std::io;
    use std::path::PathBuf;
    use std::sync::Arc;

    #[test]
    fn codes_are_unique_words_and_each_says_what_to_do() {
        let codes: Vec<CodeInfo> = all_codes().collect();
        for (index, info) in codes.iter().enumerate() {
            assert!(codes[..index].iter().all(|other| other.code != info.code), "{} twice", info.code);
            assert!(
                info.code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{}",
                info.code
            );
            assert!(info.meaning.ends_with('.') && info.hint.ends_with('.'), "{}", info.code);
        }
    }

    #[test]
    fn what_is_a_rejection_and_a_row_error_means_the_same() {
        for row in &RowErrorKind::ALL {
            if let Some(rejection) = Rejection::ALL.iter().find(|info| info.code == row.code) {
                assert_eq!((row.meaning, row.hint), (rejection.meaning, rejection.hint));
            }
        }
    }

    #[test]
    fn errors_of_the_engine_have_the_codes_that_it_gives_them() {
        let path = PathBuf::from("ledger");
        let io = |kind: io::ErrorKind| StoreError::Io {
            doing: "write",
            path: PathBuf::new(),
            error: Arc::new(io::Error::from(kind)),
        };
        let damage = Damage { path: path.clone(), offset: 0, what: String::new() };
        let stores = [
            io(io::ErrorKind::StorageFull),
            io(io::ErrorKind::PermissionDenied),
            StoreError::Damaged(damage),
            StoreError::InUse { path: path.clone() },
            StoreError::NotFound { path: path.clone() },
            StoreError::Exists { path: path.clone() },
            StoreError::Version { path: path.clone(), found: 2, known: 1 },
            StoreError::OtherStores { path, chains_alone: true },
            StoreError::BatchTooLarge { bytes: 2, bytes_max: 1 },
            StoreError::Poisoned { cause: Arc::new(io(io::ErrorKind::Other)) },
        ];
        for error in &stores {
            assert_eq!(store_info(error).code, error.code());
        }
        let submits = [
            SubmitError::Busy,
            SubmitError::CustomerBusy(Busy { customer: CustomerId::new(1) }),
            SubmitError::TooMany { count: 2, count_max: 1 },
            SubmitError::OpenEvents,
            SubmitError::Closed,
            SubmitError::Stopped(Arc::new(EngineError::Panicked)),
        ];
        for error in &submits {
            assert_eq!(submit_info(error).code, error.code());
        }
        let path = PathBuf::from("copy");
        let backups = [
            BackupError::Store(StoreError::InUse { path: path.clone() }),
            BackupError::OtherLedger { path: path.clone() },
            BackupError::Diverged { path: path.clone(), position: 0 },
            BackupError::NotEmpty { path: path.clone(), name: String::new() },
            BackupError::NotABackup { path },
        ];
        for error in &backups {
            assert_eq!(backup_info(error).code, error.code());
        }
        let headers = [
            HeaderError::Empty,
            HeaderError::Missing { line: 1, columns: Vec::new(), header: String::new() },
            HeaderError::Twice { line: 1, column: Column::Type, header: String::new() },
        ];
        for (error, info) in headers.iter().zip(HEADERS) {
            assert_eq!((info.code, info.hint), (error.code(), error.hint()));
        }
    }

    #[test]
    fn near_codes_are_found() {
        let table: &[(&str, &[&str])] = &[
            ("insuficient_funds", &["insufficient_funds"]),
            ("locked", &["customer_locked", "not_locked"]),
            ("not_dispute", &["not_disputed", "not_disputable"]),
            ("zzzzzzzz", &[]),
        ];
        for (written, expected) in table {
            let got = near(written);
            assert!(expected.iter().all(|code| got.contains(code)), "{written}: {got:?}");
            assert!(!expected.is_empty() || got.is_empty(), "{written}: {got:?}");
        }
    }
}
