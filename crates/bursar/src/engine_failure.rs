//! From the engine's errors to [`Failure`]: a code, a sentence, a hint, and how the program ends.

#[cfg(feature = "postgres")]
use crate::codes::open_info;
use crate::codes::{CodeInfo, backup_info, engine_info, store_info, submit_info};
use crate::exit::{Exit, Failure, FailureKind};
use bursar_core::{Currencies, Rejection};
use bursar_engine::copy::CopyError;
use bursar_engine::embedded::backup::BackupError;
use bursar_engine::store::StoreError;
use bursar_engine::{EngineError, ReadError, SettleError, SubmitError};
#[cfg(feature = "postgres")]
use bursar_postgres::OpenError;
use bursar_rails::http::RailsError;
use bursar_server::ServeError;
use bursar_server::keys::KeyFileError;

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        // What poisoned a store is what there is something to be done about.
        if let StoreError::Poisoned { cause } = &error {
            return Self::from(StoreError::clone(cause));
        }
        let exit = match &error {
            StoreError::Io { .. } | StoreError::Database { .. } => Exit::Io,
            StoreError::Damaged(_)
            | StoreError::InUse { .. }
            | StoreError::NotFound { .. }
            | StoreError::Exists { .. }
            | StoreError::Version { .. }
            | StoreError::OtherStores { .. }
            | StoreError::BatchTooLarge { .. }
            | StoreError::Poisoned { .. } => Exit::Ledger,
        };
        Self::coded(store_info(&error), exit, error.to_string())
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Store(error) => error.into(),
            BackupError::OtherLedger { .. }
            | BackupError::Diverged { .. }
            | BackupError::NotEmpty { .. }
            | BackupError::NotABackup { .. } => Self::coded(&backup_info(&error), Exit::Ledger, error.to_string()),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::Broken(_) | EngineError::OpenEvents | EngineError::Panicked => {
                Self::coded(engine_info(&error), Exit::Ledger, error.to_string())
            }
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::Stopped(error) => EngineError::clone(&error).into(),
        }
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Stopped(error) => EngineError::clone(&error).into(),
            SubmitError::Busy
            | SubmitError::CustomerBusy(_)
            | SubmitError::TooMany { .. }
            | SubmitError::OpenEvents
            | SubmitError::Closed => Self::coded(submit_info(&error), Exit::Refused, error.to_string()),
        }
    }
}

impl From<SettleError> for Failure {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::ClosedOtherwise { .. } => Self::new(FailureKind::ClosedOtherwise, error.to_string()),
            SettleError::NotOpen => Self::new(FailureKind::NotPending, error.to_string()),
            SettleError::NotRead(error) => Self::new(FailureKind::CannotRead, error.to_string()),
            SettleError::NotDecided(error) => error.into(),
        }
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        let sentence = error.to_string();
        match error {
            CopyError::Source(error) | CopyError::Target(error) => match Self::from(error) {
                Self::Told { code, exit, hint, .. } => Self::Told { code, exit, sentence, hint },
                gone @ Self::ReaderGone => gone,
            },
            CopyError::Unsound { .. } | CopyError::SumsDiffer => Self::new(FailureKind::DamageFound, sentence),
            CopyError::Diverged { .. } | CopyError::Refused { .. } => Self::new(FailureKind::CopyDiffers, sentence),
        }
    }
}

#[cfg(feature = "postgres")]
impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let exit = match &error {
            // What poisoned a store is what there is something to be done about.
            OpenError::Store(error) => return StoreError::clone(error).into(),
            OpenError::Config { .. } => Exit::Usage,
            OpenError::File { .. } | OpenError::Server { .. } => Exit::Io,
            OpenError::NoLedger { .. }
            | OpenError::Exists { .. }
            | OpenError::NewerSchema { .. }
            | OpenError::OlderSchema { .. }
            | OpenError::OtherLedger { .. }
            | OpenError::UnsafeSettings { .. } => Exit::Ledger,
        };
        Self::coded(&open_info(&error), exit, error.to_string())
    }
}

/// Whether a database could be opened, and there is no ledger in it.
#[cfg(feature = "postgres")]
pub(crate) const fn is_no_ledger(error: &OpenError) -> bool {
    matches!(error, OpenError::NoLedger { .. })
}

impl From<RailsError> for Failure {
    fn from(error: RailsError) -> Self {
        Self::new(FailureKind::RailsUnready, error.to_string())
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        let kind = match &error {
            KeyFileError::Io { .. } => FailureKind::CannotWrite,
            KeyFileError::Open { .. } => FailureKind::KeysOpen,
            KeyFileError::Damaged { .. } => FailureKind::KeysDamaged,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Listen { .. } | ServeError::Runtime(_) => {
                Self::new(FailureKind::CannotServe, error.to_string())
            }
            ServeError::KeysNeeded { .. } => Self::new(FailureKind::KeysNeeded, error.to_string()),
            #[cfg(feature = "tls")]
            ServeError::Tls(_) => Self::new(FailureKind::TlsUnusable, error.to_string()),
            #[cfg(feature = "otel")]
            ServeError::Traces(_) => Self::new(FailureKind::BadConfig, error.to_string()),
            ServeError::Webhook(_) => Self::new(FailureKind::BadConfig, error.to_string()),
            ServeError::Keys(error) => error.into(),
            ServeError::Engine(error) => error.into(),
            ServeError::Ready(error) => Self::stdout(&error),
        }
    }
}

/// The rules refused a request.
pub(crate) fn rejected(rejection: &Rejection, currencies: &Currencies) -> Failure {
    let info = CodeInfo::request(rejection.info());
    Failure::coded(&info, Exit::Refused, rejection.sentence(currencies).to_string())
}

/// Something asked for is not there; the rules have a word for that too.
pub(crate) fn not_there(rejection: &Rejection, sentence: String) -> Failure {
    Failure::coded(&CodeInfo::request(rejection.info()), Exit::Refused, sentence)
}
