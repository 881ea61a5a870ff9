//! What bounds the service: everything that a client could make grow, or take for ever.

use crate::rate::Rate;
use std::time::Duration;

/// The bounds of a service. The defaults suit a machine of its own.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once. One more is told so and closed.
    pub connections_max: usize,
    /// Connections at once from one address (of version 6: from one network of 64 bits). One more is told so and closed.
    pub connections_per_address_max: usize,
    /// Requests at once, whatever they ask for. One more hears `busy`.
    pub in_flight_max: usize,
    /// Batches at once. One more hears `busy`.
    pub batches_max: usize,
    /// Reads at once; further ones wait for [`Limits::read_wait`].
    pub reads_max: usize,
    /// Downloads of chains at once. One more hears `busy`.
    pub downloads_max: usize,
    /// Streams of events at once. One more hears `busy`.
    pub streams_max: usize,
    /// After so long without an event, a stream sends a sign that it lives.
    pub heartbeat: Duration,
    /// The request line and all header fields together, in bytes. More is refused with 431.
    pub header_bytes_max: usize,
    /// The body of a single request, in bytes.
    pub body_bytes_max: usize,
    /// A row of a batch, in bytes. A longer one is unreadable; the rest of the batch goes on.
    pub row_bytes_max: usize,
    /// How long a client may take for its TLS handshake.
    pub handshake_wait: Duration,
    /// How long a client may take for the header of its next request, also on a connection that was idle.
    pub header_wait: Duration,
    /// How long the body of a single request may take.
    pub body_wait: Duration,
    /// How long a batch may bring nothing.
    pub batch_wait: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub write_wait: Duration,
    /// How long a read may wait for its turn before it hears `busy`.
    pub read_wait: Duration,
    /// Requests of each key; a row of a batch is one. One more hears `rate_limited`; rows of a batch wait.
    pub rate_per_key: Option<Rate>,
    /// How long connections have to come to their end when the service stops; and after them webhooks, reads, and stores
    /// other than a directory, each of them.
    pub stop_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 8_192,
            connections_per_address_max: 1_024,
            in_flight_max: 16_384,
            batches_max: 32,
            reads_max: 16,
            downloads_max: 8,
            streams_max: 256,
            heartbeat: Duration::from_secs(15),
            header_bytes_max: 16 << 10,
            body_bytes_max: 16 << 10,
            row_bytes_max: 16 << 10,
            handshake_wait: Duration::from_secs(10),
            header_wait: Duration::from_secs(30),
            body_wait: Duration::from_secs(15),
            batch_wait: Duration::from_mins(1),
            write_wait: Duration::from_mins(1),
            read_wait: Duration::from_secs(5),
            rate_per_key: None,
            stop_wait: Duration::from_secs(20),
        }
    }
}

/// Events of a customer that one call looks at when it filters; a page may then be short, but it has a cursor.
pub(crate) const EVENTS_SCANNED_MAX: u64 = 4_096;
/// Items on a page, if nobody says otherwise.
pub(crate) const PAGE_ITEMS: usize = 100;
/// Items on a page at the most.
pub(crate) const PAGE_ITEMS_MAX: usize = 1_000;
