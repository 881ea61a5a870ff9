//! The simulator: the real engine in a world of faults, deterministic by seed.
//!
//! ```text
//!            seed ──► scenario: what the world is like, and its steps
//!                        │
//!   clients ──► owner: the real driver ──► stores ──┬─► embedded store (real) ──► disk (simulated)
//!      ▲          │        ▲                        ├─► chains ¦ table (simulated, fail separately)
//!      │          │        │                        └─► chains alone (real) on the disk ¦ table (simulated)
//!      │          ▼        │
//!      │        bank: rails with books
//!      │
//!   oracle: holds every answer, and all that is stored, against its own model
//! ```
//!
//! Nothing here reads a clock, a random source or the environment: a seed is a run, the same for ever as long as the
//! code is the same. Nothing depends on this crate.

pub mod bank;
pub mod disk;
pub mod oracle;
pub mod owner;
#[cfg(feature = "planted")]
pub mod power;
pub mod random;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod split;
pub mod witness;
pub mod world;
