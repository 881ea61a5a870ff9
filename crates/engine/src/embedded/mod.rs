//! The embedded store.

pub(crate) mod codec;
pub mod disk;
