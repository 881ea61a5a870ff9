//! The server of `--server`, and from the client's errors to [`Failure`].

use crate::book::remote::Remote;
use crate::cli::Global;
use crate::exit::{Exit, Failure, FailureKind};
use bursar_client::blocking::Client;
use bursar_client::{Error, Key, Options, Problem, SettleError, SubmitError};
use bursar_server::problem::ServiceProblem;
use std::path::PathBuf;

impl Global {
    /// A client of the server that was named; `None` if none was.
    pub(crate) fn client(&self) -> Result<Option<Client>, Failure> {
        let Some(server) = &self.server else { return Ok(None) };
        let key = match &self.key_file {
            Some(path) => Key::from_file(path).map(Some).map_err(|error| (path.display().to_string(), error)),
            None => Key::from_env().map_err(|error| (bursar_client::KEY_VARIABLE.to_owned(), error)),
        };
        let key = key.map_err(|(place, error)| Failure::new(FailureKind::BadKey, format!("{place}: {error}")))?;
        let read = |path: &PathBuf| {
            let unread = |error| Failure::new(FailureKind::CannotRead, format!("{}: {error}", path.display()));
            std::fs::read_to_string(path).map_err(unread)
        };
        let ca = self.ca_file.as_ref().map(read).transpose()?;
        Ok(Some(Client::new(server, key, Options { ca, ..Options::default() })?))
    }

    /// The same, for a command that works on nothing else.
    pub(crate) fn client_needed(&self, command: &str) -> Result<Client, Failure> {
        let needed = || Failure::new(FailureKind::NeedsServer, format!("`bursar {command}` asks a server"));
        self.client()?.ok_or_else(needed)
    }

    /// The ledger behind the server that was named; `None` if none was.
    pub(crate) fn remote(&self) -> Result<Option<Remote>, Failure> {
        self.client()?.map(Remote::open).transpose()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Setup(_) => FailureKind::BadArgument,
            Error::Unreachable(_) => FailureKind::CannotReach,
            Error::TimedOut(_) | Error::CutOff(_) => FailureKind::NoAnswer,
            Error::NotUnderstood(_) => FailureKind::NotUnderstood,
            Error::Problem(problem) => return of_problem(*problem),
        };
        Self::new(kind, error.to_string())
    }
}

/// What the server says has a code, a sentence and a hint of its own.
fn of_problem(problem: Problem) -> Failure {
    let exit = match problem.status {
        404 | 409 | 412 | 422 => Exit::Refused,
        408 | 429 | 502..=504 => Exit::Server,
        400..=499 => Exit::Usage,
        _ => Exit::Ledger,
    };
    let Problem { code, detail, hint, request_id, .. } = problem;
    // The server's own hint is for whoever makes the header by hand.
    let needs_key = code == ServiceProblem::KeyNeeded.info().code;
    let hint = if needs_key { FailureKind::BadKey.info().hint.into() } else { hint };
    // What is in the server's log can be found there.
    let request = request_id.filter(|_| matches!(exit, Exit::Server | Exit::Ledger));
    let sentence = request.map_or(detail.clone(), |id| format!("{detail} (request {id})"));
    Failure::Told { code: code.into(), exit, sentence, hint: hint.into() }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(problem) => of_problem(*problem),
            SubmitError::NotTaken(error) | SubmitError::NotDecided(error) => error.into(),
            SubmitError::Unknown(error) => Self::new(FailureKind::OutcomeUnknown, error.to_string()),
        }
    }
}

impl From<SettleError> for Failure {
    fn from(error: SettleError) -> Self {
        match error {
            // With hints that name commands, as for a directory.
            SettleError::NotPending(_) => bursar_engine::SettleError::NotOpen.into(),
            SettleError::ClosedOtherwise(problem) => Self::new(FailureKind::ClosedOtherwise, problem.detail),
            SettleError::NotTaken(error) | SettleError::NotDecided(error) => error.into(),
            SettleError::Unknown(error) => Self::new(FailureKind::OutcomeUnknown, error.to_string())
                .with_hint("Run the same command again: settled like this before, it is told so."),
        }
    }
}
