//! Rails over HTTP: outside parties that must agree before an event is done.
//!
//! ```text
//!  ledger ──► Rail::call ──► queue (fair, per rail) ──► GET status address, if asked before ──► POST ──► answer
//!                                                       signed, with a time-out                 │
//!  ledger ◄── RailReply: done, refused, or unknown and why ◄─────────────────────────── answer::of ◄┘
//! ```
//!
//! [`settings`] is what stands in `bursar.toml`; [`http`] makes the calls; [`answer`] says what an answer means, and
//! takes nothing for certain that a proxy could have said. Connections and signatures are those of `bursar-outbound`. The
//! runtime that the calls need is hidden in here: whoever uses a rail sees a trait without `async`.
//!
//! What this crate does not do: deciding when a rail is called, and asked again. That is the ledger's, by the schedule
//! that [`settings`] give it; so it is told in one place, and survives a restart.

pub mod answer;
pub mod http;
pub mod settings;

pub use bursar_outbound::Secret;
pub use http::{HttpRail, Rails};
pub use settings::{RailSettings, RouteSettings};
