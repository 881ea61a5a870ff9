//! Everything that is not a success, with its status: one closed list, one table.
//!
//! A problem document (RFC 9457) has a stable `code` beside its `type`, the sentence for this case in `detail`, and
//! what to do in `hint`. Codes of refusals, rows and stores are the engine's own; those of the service are here.
//!
//! What a document never says: where files lie, or what the system said about them. That goes to the log, with the
//! same request id.

use crate::shown::{Shown, money};
use crate::wire::{Fault, existing_body};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bursar_core::{Currencies, CurrencyIndex, CustomerId, Rejection, TransactionId};
use bursar_engine::csv::{HeaderError, RowErrorKind};
use bursar_engine::store::FeedError;
use bursar_engine::{ReadError, SettleError, SubmitError};
use serde::Serialize;
use std::borrow::Cow;
use std::sync::Arc;
use utoipa::ToSchema;

/// What the service itself can say. What the rules, rows, and the engine say has codes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceProblem {
    /// The body, or a row of it, is no JSON.
    MalformedJson,
    /// A field is missing, unknown, given twice, or of another type.
    BadField,
    /// An idempotency key is no text that can be one, or there are several.
    BadIdempotencyKey,
    /// A parameter of the query is unknown, given twice, or has a value that it cannot have.
    BadParameter,
    /// The cursor was not given out by this path.
    BadCursor,
    /// The body ended before its end, or could not be read.
    BodyCutOff,
    /// No key was given.
    KeyNeeded,
    /// The key is not known.
    KeyUnknown,
    /// The key's role does not allow this.
    RoleTooLow,
    /// Without keys, only names of this machine are served.
    HostNotAllowed,
    /// No event with this id waits for a rail.
    NotPending,
    /// The event was closed otherwise.
    ClosedOtherwise,
    /// There is no such path.
    NoSuchPath,
    /// There is no such code to be explained.
    UnknownCode,
    /// The path knows other methods.
    MethodNotAllowed,
    /// The body took too long.
    TooSlow,
    /// The body is too large.
    BodyTooLarge,
    /// The body is of a type that this path does not take.
    UnsupportedMediaType,
    /// A fault in the program.
    Internal,
    /// The list of keys cannot be read.
    KeysUnreadable,
    /// Too many requests, batches, reads or connections at once.
    Busy,
    /// The key has made more requests than it may in that time.
    RateLimited,
    /// The service is being stopped.
    Stopping,
    /// A position in the events is none of this ledger.
    BadPosition,
    /// The ledger's store cannot give its events in one order.
    NoFeed,
    /// The customer had no account at that time.
    NoAccountThen,
    /// There is no webhook with this name.
    UnknownWebhook,
    /// There is no such event to be sent again.
    NothingToResend,
}

/// What is known about a code of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemInfo {
    /// The stable code.
    pub code: &'static str,
    /// What it means, in a sentence.
    pub meaning: &'static str,
    /// What somebody can do about it.
    pub hint: &'static str,
}

const fn info(code: &'static str, meaning: &'static str, hint: &'static str) -> ProblemInfo {
    ProblemInfo { code, meaning, hint }
}

impl ServiceProblem {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::MalformedJson,
        Self::BadField,
        Self::BadIdempotencyKey,
        Self::BadParameter,
        Self::BadCursor,
        Self::BodyCutOff,
        Self::KeyNeeded,
        Self::KeyUnknown,
        Self::RoleTooLow,
        Self::HostNotAllowed,
        Self::NotPending,
        Self::ClosedOtherwise,
        Self::NoSuchPath,
        Self::UnknownCode,
        Self::MethodNotAllowed,
        Self::TooSlow,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::Internal,
        Self::KeysUnreadable,
        Self::Busy,
        Self::RateLimited,
        Self::Stopping,
        Self::BadPosition,
        Self::NoFeed,
        Self::NoAccountThen,
        Self::UnknownWebhook,
        Self::NothingToResend,
    ];

    /// Its code, meaning and hint.
    pub const fn info(self) -> ProblemInfo {
        match self {
            Self::MalformedJson => info(
                "malformed_json",
                "The body, or a row of it, is no JSON.",
                "Send one JSON object; the line and column say where it goes wrong.",
            ),
            Self::BadField => info(
                "bad_field",
                "A field is missing, unknown, given twice, or of another type.",
                "`/openapi.json` lists the fields: each once, all strings but expected_seq, which is a number.",
            ),
            Self::BadIdempotencyKey => info(
                "bad_idempotency_key",
                "An idempotency key is no text that can be one, or there are several.",
                "Send one, of 1 to 255 visible ASCII characters; with spaces or quotes in it, as a quoted string.",
            ),
            Self::BadParameter => info(
                "bad_parameter",
                "A parameter of the query is unknown, given twice, or has a value that it cannot have.",
                "`/openapi.json` lists the parameters of every path.",
            ),
            Self::BadCursor => info(
                "bad_cursor",
                "The cursor was not given out by this path.",
                "Pass `next` of the page before unchanged, with no parameter but `limit`.",
            ),
            Self::BodyCutOff => info(
                "body_cut_off",
                "The body ended before its end, or could not be read.",
                "What was answered before has taken effect. Send the rest again.",
            ),
            Self::KeyNeeded => info(
                "key_needed",
                "No API key was given.",
                "Send `Authorization: Bearer KEY`; `bursar key create` makes a key.",
            ),
            Self::KeyUnknown => info(
                "key_unknown",
                "The API key is not known; it may have been revoked.",
                "`bursar key list` shows the keys there are.",
            ),
            Self::RoleTooLow => info(
                "role_too_low",
                "The API key's role does not allow this.",
                "Use a key of the role named in the detail: read, submit or operate.",
            ),
            Self::HostNotAllowed => info(
                "host_not_allowed",
                "Without API keys, the service answers only to `localhost` and to addresses, not to other names.",
                "Use the address, or create a key: a web page could otherwise reach the service under its own name.",
            ),
            Self::NotPending => info(
                "not_pending",
                "No event with this id waits for a rail.",
                "`/v1/pending` lists those that do; the customer's chain shows how others ended.",
            ),
            Self::ClosedOtherwise => info(
                "closed_otherwise",
                "The event was closed otherwise: its rail was first, or another operator.",
                "What counts is in the chain. If that is wrong, correct it by a transaction of its own.",
            ),
            Self::NoSuchPath => info("no_such_path", "There is no such path.", "`/openapi.json` lists all paths."),
            Self::UnknownCode => info("unknown_code", "There is no such code.", "`/problems` lists all codes."),
            Self::MethodNotAllowed => {
                info("method_not_allowed", "The path knows other methods.", "The header `Allow` names them.")
            }
            Self::TooSlow => info(
                "too_slow",
                "The client took too long to send the body.",
                "Nothing was decided. Try again; `docs/api.md` has the limits.",
            ),
            Self::BodyTooLarge => {
                info("body_too_large", "The body is larger than it may be.", "Send many requests as a batch, in lines.")
            }
            Self::UnsupportedMediaType => info(
                "unsupported_media_type",
                "The body is of a type that this path does not take.",
                "Single requests are application/json; batches are application/x-ndjson or text/csv, not compressed.",
            ),
            Self::Internal => info(
                "internal",
                "A fault in the service.",
                "The service's log has the cause under the request id. Please report it.",
            ),
            Self::KeysUnreadable => info(
                "keys_unreadable",
                "The list of API keys cannot be read, so nobody is let in.",
                "The service's log says what is wrong with it.",
            ),
            Self::Busy => info(
                "busy",
                "Too much is under way. Nothing was decided.",
                "Try again after the seconds of `Retry-After`.",
            ),
            Self::RateLimited => info(
                "rate_limited",
                "The key has made more requests than it may in that time. Nothing was decided.",
                "Try again after the seconds of `Retry-After`; many requests go faster as a batch.",
            ),
            Self::Stopping => info("stopping", "The service is being stopped.", "Try again when it runs again."),
            Self::BadPosition => info(
                "bad_position",
                "The position is not one of this ledger's events.",
                "Pass a position as it was received; after a restore from an older backup, begin at one from before it.",
            ),
            Self::NoFeed => info(
                "no_feed",
                "The ledger's store cannot give its events in one order.",
                "Follow each customer's events instead, or give the ledger a feed: docs/stores.md says how.",
            ),
            Self::NoAccountThen => info(
                "no_account_then",
                "The customer had no account at that time.",
                "Ask for a later time; the customer's events say when the first one was.",
            ),
            Self::UnknownWebhook => {
                info("unknown_webhook", "There is no webhook with this name.", "`/v1/webhooks` lists all of them.")
            }
            Self::NothingToResend => info(
                "nothing_to_resend",
                "There is no such event to be sent again.",
                "Give customer and seq: an event's id alone is found only among the newest deliveries.",
            ),
        }
    }
}

/// Something asked for that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotThere {
    /// A customer without a chain.
    Customer(CustomerId),
    /// A transaction that was never accepted.
    Transaction(TransactionId),
}

/// Everything that is not a success.
#[derive(Clone, Debug)]
pub enum Problem {
    /// The rules refused the request. Nothing moved.
    Rejected(Rejection),
    /// A request that says nothing that could be decided.
    Unreadable(Fault),
    /// The first row of a CSV batch is no header.
    Header(Arc<HeaderError>),
    /// What was asked for is not there.
    NotThere(NotThere),
    /// The engine did not decide.
    Submit(SubmitError),
    /// The ledger could not be read.
    Read(ReadError),
    /// What the service itself says, with the sentence for this case.
    Service(ServiceProblem, Cow<'static, str>),
}

impl Problem {
    /// A problem of the service, with a sentence of its own.
    pub fn service(problem: ServiceProblem, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Service(problem, detail.into())
    }

    /// A problem of the service, with the sentence of its code.
    pub fn plain(problem: ServiceProblem) -> Self {
        Self::Service(problem, Cow::Borrowed(problem.info().meaning))
    }

    /// The status of each problem. This is the only place where one is chosen.
    ///
    /// 422 says: understood, decided, refused. 400 says: nothing here could be decided. 503 says: nothing was decided,
    /// try again; it always comes with `Retry-After`.
    pub const fn status(&self) -> StatusCode {
        match self {
            // The two that the draft for `Idempotency-Key` names; the key that should not be there was not decided on.
            Self::Rejected(Rejection::IdempotencyKeyNotAllowed) => StatusCode::BAD_REQUEST,
            Self::Rejected(Rejection::RequestInProgress) => StatusCode::CONFLICT,
            Self::Rejected(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unreadable(_) | Self::Header(_) => StatusCode::BAD_REQUEST,
            Self::NotThere(_) => StatusCode::NOT_FOUND,
            Self::Submit(error) => match error {
                SubmitError::Busy | SubmitError::CustomerBusy(_) | SubmitError::Closed | SubmitError::Stopped(_) => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                // The service hands in neither rows of a source nor more than the queue holds.
                SubmitError::TooMany { .. } | SubmitError::OpenEvents => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Self::Read(error) => match error {
                ReadError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
                ReadError::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Service(problem, _) => match problem {
                ServiceProblem::MalformedJson
                | ServiceProblem::BadField
                | ServiceProblem::BadIdempotencyKey
                | ServiceProblem::BadParameter
                | ServiceProblem::BadCursor
                | ServiceProblem::BodyCutOff
                | ServiceProblem::BadPosition => StatusCode::BAD_REQUEST,
                ServiceProblem::NoAccountThen | ServiceProblem::UnknownWebhook | ServiceProblem::NothingToResend => {
                    StatusCode::NOT_FOUND
                }
                ServiceProblem::NoFeed => StatusCode::NOT_IMPLEMENTED,
                ServiceProblem::KeyNeeded | ServiceProblem::KeyUnknown => StatusCode::UNAUTHORIZED,
                ServiceProblem::RoleTooLow => StatusCode::FORBIDDEN,
                ServiceProblem::NoSuchPath | ServiceProblem::UnknownCode | ServiceProblem::NotPending => {
                    StatusCode::NOT_FOUND
                }
                ServiceProblem::ClosedOtherwise => StatusCode::CONFLICT,
                ServiceProblem::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
                ServiceProblem::TooSlow => StatusCode::REQUEST_TIMEOUT,
                ServiceProblem::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                ServiceProblem::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                ServiceProblem::HostNotAllowed => StatusCode::MISDIRECTED_REQUEST,
                ServiceProblem::RateLimited => StatusCode::TOO_MANY_REQUESTS,
                ServiceProblem::Internal => StatusCode::INTERNAL_SERVER_ERROR,
                ServiceProblem::KeysUnreadable | ServiceProblem::Busy | ServiceProblem::Stopping => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
            },
        }
    }

    /// Its code, meaning and hint.
    pub fn info(&self) -> ProblemInfo {
        match self {
            Self::Rejected(rejection) => rejection_info(rejection.precedence()),
            Self::Unreadable(fault) => row_info(fault.kind),
            Self::Header(error) => info(error.code(), "The first row of the batch is no header.", error.hint()),
            Self::NotThere(NotThere::Customer(_)) => info(
                "unknown_customer",
                "This customer has no chain: nothing was ever accepted for it.",
                "Check the customer's id.",
            ),
            Self::NotThere(NotThere::Transaction(_)) => info(
                "unknown_transaction",
                "No deposit or withdrawal with this id was ever accepted.",
                "A rejected deposit or withdrawal leaves no transaction behind; look for its rejection.",
            ),
            Self::Submit(error) => submit_info(error),
            Self::Read(ReadError::Store(error)) => {
                info(error.code(), "The ledger could not be read.", "The service's log says where and why.")
            }
            Self::Read(ReadError::Stopped(_)) => STOPPED,
            Self::Service(problem, _) => problem.info(),
        }
    }

    /// Seconds after which it makes sense to try again, where it does.
    pub const fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Submit(SubmitError::Busy) | Self::Service(ServiceProblem::Busy | ServiceProblem::RateLimited, _) => {
                Some(1)
            }
            Self::Submit(SubmitError::CustomerBusy(_))
            | Self::Rejected(Rejection::RequestInProgress)
            | Self::Service(ServiceProblem::KeysUnreadable, _) => Some(5),
            Self::Submit(SubmitError::Closed | SubmitError::Stopped(_))
            | Self::Read(ReadError::Stopped(_))
            | Self::Service(ServiceProblem::Stopping, _) => Some(10),
            Self::Submit(SubmitError::TooMany { .. } | SubmitError::OpenEvents)
            | Self::Read(ReadError::Store(_))
            | Self::Rejected(_)
            | Self::Unreadable(_)
            | Self::Header(_)
            | Self::NotThere(_)
            | Self::Service(
                ServiceProblem::MalformedJson
                | ServiceProblem::BadField
                | ServiceProblem::BadIdempotencyKey
                | ServiceProblem::BadParameter
                | ServiceProblem::BadCursor
                | ServiceProblem::BodyCutOff
                | ServiceProblem::KeyNeeded
                | ServiceProblem::KeyUnknown
                | ServiceProblem::RoleTooLow
                | ServiceProblem::HostNotAllowed
                | ServiceProblem::NotPending
                | ServiceProblem::ClosedOtherwise
                | ServiceProblem::NoSuchPath
                | ServiceProblem::UnknownCode
                | ServiceProblem::MethodNotAllowed
                | ServiceProblem::TooSlow
                | ServiceProblem::BodyTooLarge
                | ServiceProblem::UnsupportedMediaType
                | ServiceProblem::Internal
                | ServiceProblem::BadPosition
                | ServiceProblem::NoFeed
                | ServiceProblem::NoAccountThen
                | ServiceProblem::UnknownWebhook
                | ServiceProblem::NothingToResend,
                _,
            ) => None,
        }
    }

    /// What happened in this case, fit for the client.
    fn detail(&self, currencies: &Currencies) -> Cow<'static, str> {
        match self {
            Self::Rejected(rejection) => rejection.sentence(currencies).to_string().into(),
            Self::Unreadable(fault) => fault.to_string().into(),
            Self::Header(error) => error.to_string().into(),
            Self::NotThere(NotThere::Customer(customer)) => format!("customer {customer} has no chain").into(),
            Self::NotThere(NotThere::Transaction(transaction)) => {
                format!("no transaction {transaction} was ever accepted").into()
            }
            Self::Submit(SubmitError::Stopped(_)) => {
                "the engine stopped; whether the request took effect shows when the service runs again".into()
            }
            Self::Submit(error) => error.to_string().into(),
            Self::Read(ReadError::Store(_)) => "the ledger could not be read".into(),
            Self::Read(ReadError::Stopped(_)) => "the engine stopped".into(),
            Self::Service(_, detail) => detail.clone(),
        }
    }

    /// What is behind it, for the log: only where the service or the engine is at fault.
    pub(crate) fn cause(&self) -> Option<String> {
        match self {
            Self::Submit(error) => Some(error.to_string()),
            Self::Read(error) => Some(error.to_string()),
            Self::Service(ServiceProblem::Internal | ServiceProblem::KeysUnreadable, detail) => {
                Some(detail.to_string())
            }
            Self::Rejected(_) | Self::Unreadable(_) | Self::Header(_) | Self::NotThere(_) | Self::Service(..) => None,
        }
    }

    /// The document.
    pub(crate) fn document(&self, currencies: &Currencies, request_id: Option<&str>) -> ProblemDocument {
        let ProblemInfo { code, meaning, hint } = self.info();
        let (field, at) = match self {
            Self::Unreadable(fault) => (fault.field, fault.at),
            Self::Rejected(_)
            | Self::Header(_)
            | Self::NotThere(_)
            | Self::Submit(_)
            | Self::Read(_)
            | Self::Service(..) => (None, None),
        };
        let figures = match self {
            Self::Rejected(rejection) => Figures::of(rejection, currencies),
            Self::Unreadable(_)
            | Self::Header(_)
            | Self::NotThere(_)
            | Self::Submit(_)
            | Self::Read(_)
            | Self::Service(..) => None,
        };
        let detail = match self {
            // The log has it; a client has no use for the inside.
            Self::Service(problem @ (ServiceProblem::Internal | ServiceProblem::KeysUnreadable), _) => {
                problem.info().meaning.into()
            }
            Self::Rejected(_)
            | Self::Unreadable(_)
            | Self::Header(_)
            | Self::NotThere(_)
            | Self::Submit(_)
            | Self::Read(_)
            | Self::Service(..) => self.detail(currencies),
        };
        ProblemDocument {
            r#type: format!("/problems/{code}"),
            title: meaning,
            status: self.status().as_u16(),
            detail,
            code,
            hint,
            field,
            at,
            figures,
            request_id: request_id.map(str::to_owned),
        }
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        Self::Submit(error)
    }
}

impl From<SettleError> for Problem {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::ClosedOtherwise { .. } => Self::service(ServiceProblem::ClosedOtherwise, error.to_string()),
            SettleError::NotOpen => Self::plain(ServiceProblem::NotPending),
            SettleError::NotRead(error) => error.into(),
            SettleError::NotDecided(error) => Self::Submit(error),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<FeedError> for Problem {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Unavailable => Self::plain(ServiceProblem::NoFeed),
            FeedError::NotAPosition | FeedError::BehindEnd => {
                Self::service(ServiceProblem::BadPosition, error.to_string())
            }
            FeedError::Store(error) => Self::Read(ReadError::Store(error)),
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::Unreadable(fault)
    }
}

/// Carries the problem to the door, which writes it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

fn rejection_info(precedence: usize) -> ProblemInfo {
    let found = Rejection::ALL[precedence];
    info(found.code, found.meaning, found.hint)
}

fn row_info(kind: RowErrorKind) -> ProblemInfo {
    let found = kind.info();
    info(found.code, found.meaning, found.hint)
}

const STOPPED: ProblemInfo = info(
    "stopped",
    "The engine stopped because of an error. Whether a request took effect shows when it runs again.",
    "Ask for the transaction, or repeat the request: a transaction id takes effect once.",
);

const CUSTOMER_BUSY: ProblemInfo = info(
    "customer_busy",
    "The customer's event waits for its rail, and so do too many requests. Nothing was decided.",
    "Try again after the seconds of `Retry-After`; `/v1/pending` lists the open events.",
);

const CLOSED: ProblemInfo =
    info("closed", "The ledger was closed before the request was decided.", "Try again when the service runs again.");

const fn submit_info(error: &SubmitError) -> ProblemInfo {
    match error {
        SubmitError::Busy => ServiceProblem::Busy.info(),
        SubmitError::CustomerBusy(_) => CUSTOMER_BUSY,
        SubmitError::Closed => CLOSED,
        SubmitError::Stopped(_) => STOPPED,
        SubmitError::TooMany { .. } | SubmitError::OpenEvents => ServiceProblem::Internal.info(),
    }
}

/// Every code that a document can have for a client's own doing or for back pressure, with its status; one code may
/// have two. Errors of files, which nobody can list, all have status 500.
pub fn all() -> Vec<(u16, ProblemInfo)> {
    let of = |problem: &Problem| (problem.status().as_u16(), problem.info());
    // Those with another status than most.
    let others = [Rejection::IdempotencyKeyNotAllowed, Rejection::RequestInProgress].map(Problem::Rejected);
    let rejected = |index| {
        let info = rejection_info(index);
        let other = others.iter().find(|other| other.info() == info);
        (other.map_or(StatusCode::UNPROCESSABLE_ENTITY, Problem::status).as_u16(), info)
    };
    let mut all: Vec<_> = (0..Rejection::ALL.len()).map(rejected).collect();
    all.extend(RowErrorKind::ALL.iter().map(|row| (400, info(row.code, row.meaning, row.hint))));
    let headers = [("header_empty", "The batch is empty: it has no header.")]
        .into_iter()
        .chain([("header_column_missing", "The header lacks a column.")])
        .chain([("header_column_twice", "The header has a column twice.")])
        .chain([("header_unreadable", "The header cannot be read as CSV.")]);
    let hint = "The first row names the columns: type,client,tx,amount (in any order) and optionally currency.";
    all.extend(headers.map(|(code, meaning)| (400, info(code, meaning, hint))));
    all.push(of(&Problem::NotThere(NotThere::Customer(CustomerId::default()))));
    all.push(of(&Problem::NotThere(NotThere::Transaction(TransactionId::default()))));
    all.extend(ServiceProblem::ALL.map(|problem| of(&Problem::plain(problem))));
    all.extend([CUSTOMER_BUSY, CLOSED, STOPPED].map(|info| (503, info)));
    all
}

/// A problem document (RFC 9457), and the outcome of a request that the rules refuse.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemDocument {
    /// Where the code is explained, relative to the service.
    #[schema(value_type = String, example = "/problems/insufficient_funds")]
    r#type: String,
    /// What the code means.
    #[schema(value_type = String)]
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened in this case.
    #[schema(value_type = String)]
    detail: Cow<'static, str>,
    /// The stable code, fit for programs.
    #[schema(value_type = String, pattern = "^[a-z0-9_]+$", example = "insufficient_funds")]
    code: &'static str,
    /// What to do.
    #[schema(value_type = String)]
    hint: &'static str,
    /// The field that is wrong, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    field: Option<&'static str>,
    /// How many bytes of that field are in order, where that says where it goes wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64)]
    at: Option<usize>,
    /// The figures that explain a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Figures)]
    figures: Option<Figures>,
    /// The request's id, as in the header `X-Request-Id` and in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    request_id: Option<String>,
}

impl ProblemDocument {
    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn into_detail(self) -> (Cow<'static, str>, Option<&'static str>, Option<Figures>) {
        (self.detail, self.field, self.figures)
    }
}

/// The figures that explain a refusal; which ones there are follows from the code.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Figures {
    /// The currency of the amounts; not there in a ledger that names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    currency: Option<String>,
    /// The amount asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    asked: Option<String>,
    /// What could be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    available: Option<String>,
    /// The transaction's amount.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    amount: Option<String>,
    /// What the ledger lets a locked customer do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    policy: Option<&'static str>,
    /// The transaction that has the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = crate::wire::ExistingBody)]
    existing: Option<crate::wire::ExistingBody>,
    /// What the rail said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    reason: Option<String>,
    /// What was to be left available.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    minimum: Option<String>,
    /// The sequence number that was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64)]
    expected_seq: Option<u64>,
    /// The sequence number of the customer's newest event, or of the event that has the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64)]
    seq: Option<u64>,
    /// Whose event has the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    customer: Option<Shown<CustomerId>>,
}

impl Figures {
    fn of(rejection: &Rejection, currencies: &Currencies) -> Option<Self> {
        let code = |index: CurrencyIndex| {
            currencies.get(index).map(|currency| currency.code().to_owned()).filter(|code| !code.is_empty())
        };
        let amount = |index, amount| Some(Shown(money(currencies, index, amount)).to_string());
        match rejection {
            Rejection::AmountNotPositive { currency, asked } | Rejection::BalanceOverflow { currency, asked } => {
                Some(Self { currency: code(*currency), asked: amount(*currency, *asked), ..Self::default() })
            }
            Rejection::InsufficientFunds { currency, asked, available } => Some(Self {
                currency: code(*currency),
                asked: amount(*currency, *asked),
                available: amount(*currency, *available),
                ..Self::default()
            }),
            Rejection::AmountMismatch { currency, asked, amount: existing } => Some(Self {
                currency: code(*currency),
                asked: amount(*currency, *asked),
                amount: amount(*currency, *existing),
                ..Self::default()
            }),
            Rejection::CurrencyMismatch { currency } => Some(Self { currency: code(*currency), ..Self::default() }),
            Rejection::TransactionIdTaken { existing } => {
                Some(Self { existing: Some(existing_body(existing, currencies)), ..Self::default() })
            }
            Rejection::CustomerLocked { policy } => Some(Self { policy: Some(policy.name()), ..Self::default() }),
            Rejection::RailRefused { reason } => Some(Self { reason: Some(reason.clone()), ..Self::default() }),
            Rejection::IdempotencyKeyReused { event } => {
                Some(Self { customer: Some(Shown(event.customer)), seq: Some(event.seq), ..Self::default() })
            }
            Rejection::SeqMismatch { expected, seq } => {
                Some(Self { expected_seq: Some(*expected), seq: Some(*seq), ..Self::default() })
            }
            Rejection::BelowMinimum { currency, minimum, available } => Some(Self {
                currency: code(*currency),
                minimum: amount(*currency, *minimum),
                available: amount(*currency, *available),
                ..Self::default()
            }),
            Rejection::IdempotencyKeyNotAllowed
            | Rejection::RequestInProgress
            | Rejection::UnknownCurrency
            | Rejection::UnknownCustomer
            | Rejection::UnknownTransaction
            | Rejection::OtherCustomer
            | Rejection::TransactionPending
            | Rejection::NotDisputable
            | Rejection::ChargedBack
            | Rejection::AlreadyDisputed
            | Rejection::NotDisputed
            | Rejection::NotLocked => None,
        }
    }
}
