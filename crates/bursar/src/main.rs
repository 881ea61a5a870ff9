//! The binary `bursar`.

fn main() {}
