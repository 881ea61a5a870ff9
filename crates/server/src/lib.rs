//! The service: HTTP over one ledger. The library behind `bursar serve`.
//!
//! ```text
//!  socket ─► server ─► timed_io ─► hyper ─► door ─────────► api::{requests, batches} ─► wire ─► Ledger::submit_then
//!            accept,   a client     HTTP/1.1  request id,    api::{customers, events,               │
//!            limits,   that stops   headers,  key and role,  transactions, ledger, chain}           ▼
//!            stop      reading      limits    in flight         └─► reads ─► Ledger (blocking)   decide, fsync
//!                                                │                                                  │
//!  socket ◄──────────────────────────────────── door ◄───────── Problem, or a body ◄──── oneshot ◄──┘
//!                                     problem document, metrics, log
//! ```
//!
//! **The way of a request.** The door gives it an id, checks its key, and counts it in. The handler reads a body of
//! bounded size in bounded time, `wire` makes a [`bursar_core::Request`] of it, and the ledger takes that with a
//! callback: no thread waits. The callback sends the outcome through a channel of one place, after the event is
//! durable; the handler writes it as JSON. What goes wrong on the way is a [`Problem`], and only the door turns a
//! problem into bytes.
//!
//! **The way of a batch.** A body of any length is cut into rows as it comes in; up to 1,024 rows go to the ledger
//! together, at most four such groups of a batch are under way, and the outcomes are written in the rows' order. The
//! groups are handed over through a channel of four places, read by the response's body: where the client does not
//! read, nothing more is read from it either. So the memory of a batch does not depend on its length.
//!
//! **Reads** go to the disk and wait for what they saw to be durable, so they run on threads of their own, a bounded
//! number at once (`reads`).
//!
//! **The way of an event.** The journal is the outbox: `follow` reads the ledger's feed from a position on, told by the
//! engine when there is more. A stream (`api::stream`) is a follower with a client behind it, a webhook ([`webhooks`]) one
//! with a receiver and a cursor on the disk.
//!
//! **Types.** [`Problem`] is the closed list of everything that is not a success, with its status in one table.
//! A refusal by the rules of money is one of them, with status 422 and the rejection's own code: whoever looks only at
//! the status must not take a refusal for a success. Only back pressure and a service that stops are 503, always with
//! `Retry-After`; no refusal ever is. [`keys::Role`] says who may do what. [`Limits`] bounds everything that a client
//! could make grow.
//!
//! **Stopping.** [`Server::run`] ends when its `stop` does: no new connections, what is under way is answered,
//! connections end, then the ledger is closed. If the engine stops because of an error, the service stops as well and
//! says which: a ledger that was opened again knows what became of everything.
//!
//! What this crate does not do: it decides nothing about money (that is `bursar-core`), knows no files of the ledger
//! but its own list of keys and cursors, prints nothing, and ends no process.

pub mod keys;
pub mod limits;
pub mod logging;
pub mod problem;
pub mod webhooks;

mod api;
mod cursor;
mod door;
mod follow;
mod metrics;
mod openapi;
mod owner;
mod params;
mod places;
mod rate;
mod reads;
mod server;
mod service;
mod shown;
mod terms;
mod timed_io;
#[cfg(feature = "tls")]
mod tls;
mod traces;
mod wire;

pub use limits::Limits;
pub use openapi::text as openapi_text;
pub use problem::Problem;
pub use rate::{Rate, RateError};
pub use server::{Keys, Options, ServeError, Server, Stopper};
#[cfg(feature = "tls")]
pub use tls::{TlsError, TlsFiles};
#[cfg(feature = "otel")]
pub use traces::{TraceError, TraceOptions};
