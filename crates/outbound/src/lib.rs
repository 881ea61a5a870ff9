//! Calls from Bursar to somebody else: what rails, webhooks and the client have in common.
//!
//! ```text
//!  source ──► secret ──► signature ─┐
//!                                   ├──► POST ──► answer: its type, when to come again, what went wrong in words
//!  trust ───► connections ──────────┘
//! ```
//!
//! [`source`] says where a secret is kept, [`secret`] signs and verifies as Standard Webhooks does, [`connection`] makes
//! connections that go where they were told to and nowhere else, and [`answer`] reads what is alike in all answers.
//!
//! What this crate does not do: deciding what is sent, when it is sent again, or what an answer means. It knows nothing
//! of Bursar.

pub mod answer;
pub mod clock;
pub mod connection;
pub mod secret;
pub mod source;

pub use answer::{has_type, in_words, retry_after};
pub use clock::{now_ms, now_s};
pub use connection::{SetupError, Trust};
pub use secret::{BadSecret, Secret, Secrets, signed};
pub use source::{Hidden, SecretSource, SourceError, is_readable_by_others};
