//! Tests of the machine, in a small world whose stores can lose what was not synced, whose owners can die at
//! every step and race each other, and whose rail keeps its own book.

mod exhaustive;
mod explorer;
mod owner;
mod races;
mod rails;
mod recovery;
mod steps;
mod terms;
mod world;
