//! One module per command: what it does with arguments that were checked.

pub(crate) mod completions;
pub(crate) mod explain;
pub(crate) mod generate;
pub(crate) mod man;
