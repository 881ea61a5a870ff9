//! What can go wrong, so that nobody takes one thing for another.
//!
//! Whoever submits a request wants to know one thing first: did money move? [`SubmitError`] answers it by its variant.

use crate::types::Figures;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// A problem document (RFC 9457): what the server answers instead of a success.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The stable code, fit for programs.
    pub code: String,
    /// What happened in this case.
    pub detail: String,
    /// What to do.
    pub hint: String,
    /// The field that is wrong, where it is one.
    pub field: Option<String>,
    /// The figures that explain a refusal.
    pub figures: Option<Box<Figures>>,
    /// The request's id, as in the server's log.
    pub request_id: Option<String>,
    /// After how long it makes sense to ask again, where the server says so.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.detail, self.code)
    }
}

/// Why there is no answer that could be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The client cannot be made: a bad address, say.
    Setup(String),
    /// No connection could be made. Nothing was sent.
    Unreachable(String),
    /// The server did not answer in time. It may have done what it was asked.
    TimedOut(Duration),
    /// The connection broke, or the answer was cut off. The server may have done what it was asked.
    CutOff(String),
    /// What answered does not speak this interface, or says something that cannot be believed.
    NotUnderstood(String),
    /// The server answered with a problem.
    Problem(Box<Problem>),
}

impl Error {
    /// The problem, if the server answered with one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Setup(_) | Self::Unreachable(_) | Self::TimedOut(_) | Self::CutOff(_) | Self::NotUnderstood(_) => {
                None
            }
        }
    }

    /// Whether asking again may help: nobody answered, or the server is busy.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Setup(_) | Self::NotUnderstood(_) => false,
            Self::Unreachable(_) | Self::TimedOut(_) | Self::CutOff(_) => true,
            Self::Problem(problem) => matches!(problem.status, 408 | 429 | 502..=504),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(what) | Self::Unreachable(what) | Self::CutOff(what) | Self::NotUnderstood(what) => {
                f.write_str(what)
            }
            Self::TimedOut(after) => write!(f, "no answer came within {} seconds", after.as_secs()),
            Self::Problem(problem) => problem.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// Why a request is not known to be in effect. The variants answer one question: did money move?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// No: it was decided, and refused by the rules. The id is not used up; the same again is refused again.
    Refused(Box<Problem>),
    /// No: it says nothing that could be decided, or this key may not ask for it. The same again does not help.
    NotTaken(Error),
    /// No: nothing was decided. Ask again.
    NotDecided(Error),
    /// Not known. Ask for the transaction, or send the same again: a transaction id takes effect once, and so does an
    /// idempotency key. (What has neither should be looked up first.)
    Unknown(Error),
}

impl SubmitError {
    /// The problem, if the server answered with one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            Self::NotTaken(error) | Self::NotDecided(error) | Self::Unknown(error) => error.problem(),
        }
    }

    /// What an attempt that failed says about the request.
    pub(crate) fn of(error: Error) -> Self {
        match error {
            Error::Setup(_) => Self::NotTaken(error),
            Error::Unreachable(_) => Self::NotDecided(error),
            Error::TimedOut(_) | Error::CutOff(_) | Error::NotUnderstood(_) => Self::Unknown(error),
            Error::Problem(problem) => Self::of_problem(problem),
        }
    }

    fn of_problem(problem: Box<Problem>) -> Self {
        // An idempotency key that was used for another request: the draft has the same status for it as the rules.
        let is_about_key = problem.code.starts_with("idempotency_");
        match (problem.status, problem.code.as_str()) {
            (409, _) => Self::Unknown(Error::Problem(problem)),
            (412 | 422, _) if !is_about_key => Self::Refused(problem),
            (408 | 429, _) => Self::NotDecided(Error::Problem(problem)),
            (400..=499, _) => Self::NotTaken(Error::Problem(problem)),
            // `stopped`: the engine stopped in the middle.
            (503, "stopped") => Self::Unknown(Error::Problem(problem)),
            (503, code) if !code.is_empty() => Self::NotDecided(Error::Problem(problem)),
            (_, _) => Self::Unknown(Error::Problem(problem)),
        }
    }
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(problem) => problem.fmt(f),
            Self::NotTaken(error) => error.fmt(f),
            Self::NotDecided(error) => write!(f, "nothing was decided: {error}"),
            Self::Unknown(error) => write!(f, "it is not known whether the request took effect: {error}"),
        }
    }
}

impl std::error::Error for SubmitError {}

/// Why an event is not known to be settled as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettleError {
    /// No event with this id waits for a rail, nor did one end lately.
    NotPending(Box<Problem>),
    /// It was closed otherwise: by its rail, which was first, or by another operator.
    ClosedOtherwise(Box<Problem>),
    /// It says nothing that could be decided, or this key may not settle. The same again does not help.
    NotTaken(Error),
    /// Nothing was decided. Ask again.
    NotDecided(Error),
    /// Not known. Ask for the event, or send the same again.
    Unknown(Error),
}

impl SettleError {
    /// What an attempt that failed says.
    pub(crate) fn of(error: Error) -> Self {
        if let Error::Problem(problem) = error {
            return match (problem.status, problem.code.as_str()) {
                (404, "not_pending") => Self::NotPending(problem),
                (409, "closed_otherwise") => Self::ClosedOtherwise(problem),
                (_, _) => Self::of_other(SubmitError::of(Error::Problem(problem))),
            };
        }
        Self::of_other(SubmitError::of(error))
    }

    /// What holds for every request holds for this one.
    fn of_other(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(problem) => Self::NotTaken(Error::Problem(problem)),
            SubmitError::NotTaken(error) => Self::NotTaken(error),
            SubmitError::NotDecided(error) => Self::NotDecided(error),
            SubmitError::Unknown(error) => Self::Unknown(error),
        }
    }
}

impl fmt::Display for SettleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPending(problem) | Self::ClosedOtherwise(problem) => problem.fmt(f),
            Self::NotTaken(error) => error.fmt(f),
            Self::NotDecided(error) => write!(f, "nothing was decided: {error}"),
            Self::Unknown(error) => write!(f, "it is not known whether the event was settled: {error}"),
        }
    }
}

impl std::error::Error for SettleError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_the_money_is_never_confused() {
        let of = |status, code: &str| {
            let problem = Problem {
                status,
                code: code.to_owned(),
                detail: String::new(),
                hint: String::new(),
                field: None,
                figures: None,
                request_id: None,
                retry_after: None,
            };
            match SubmitError::of(Error::Problem(Box::new(problem))) {
                SubmitError::Refused(_) => "refused",
                SubmitError::NotTaken(_) => "not taken",
                SubmitError::NotDecided(_) => "not decided",
                SubmitError::Unknown(_) => "unknown",
            }
        };
        let table = [
            (422, "insufficient_funds", "refused"),
            (412, "condition", "refused"),
            (422, "idempotency_key_reused", "not taken"),
            (400, "bad_amount", "not taken"),
            (401, "key_unknown", "not taken"),
            (404, "no_such_path", "not taken"),
            (409, "request_in_progress", "unknown"),
            (408, "too_slow", "not decided"),
            (429, "rate", "not decided"),
            (503, "busy", "not decided"),
            (503, "stopping", "not decided"),
            (503, "stopped", "unknown"),
            (503, "", "unknown"),
            (500, "internal", "unknown"),
            (504, "", "unknown"),
        ];
        for (status, code, expected) in table {
            assert_eq!(of(status, code), expected, "{status} {code}");
        }
        assert!(matches!(SubmitError::of(Error::Unreachable(String::new())), SubmitError::NotDecided(_)));
        assert!(matches!(SubmitError::of(Error::TimedOut(Duration::ZERO)), SubmitError::Unknown(_)));
        assert!(matches!(SubmitError::of(Error::CutOff(String::new())), SubmitError::Unknown(_)));
        assert!(matches!(SubmitError::of(Error::NotUnderstood(String::new())), SubmitError::Unknown(_)));
    }

    #[test]
    fn how_an_event_ended_is_never_confused() {
        let of = |status, code: &str| {
            let problem = serde_json::json!({ "status": status, "code": code, "detail": "", "hint": "" });
            match SettleError::of(Error::Problem(serde_json::from_value(problem).unwrap())) {
                SettleError::NotPending(_) => "not pending",
                SettleError::ClosedOtherwise(_) => "closed otherwise",
                SettleError::NotTaken(_) => "not taken",
                SettleError::NotDecided(_) => "not decided",
                SettleError::Unknown(_) => "unknown",
            }
        };
        let table = [
            (404, "not_pending", "not pending"),
            (404, "no_such_path", "not taken"),
            (409, "closed_otherwise", "closed otherwise"),
            (409, "", "unknown"),
            (400, "bad_field", "not taken"),
            (403, "role_too_low", "not taken"),
            (422, "", "not taken"),
            (503, "busy", "not decided"),
            (503, "stopped", "unknown"),
            (500, "internal", "unknown"),
        ];
        for (status, code, expected) in table {
            assert_eq!(of(status, code), expected, "{status} {code}");
        }
        assert!(matches!(SettleError::of(Error::CutOff(String::new())), SettleError::Unknown(_)));
    }
}
