//! Changes of a node's settings on real namespaces: made, read by other tools, taken back to the byte; and what happens when
//! the process, the disk or somebody else gets in between.

mod chain;
mod cli;
mod crash;
mod dumps;
mod guard;
mod round_trip;
mod tune;
mod tuned;
