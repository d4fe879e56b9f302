//! What a benchmark of a network is made of: load generators, both ends of them, and where their threads run.
//!
//! Needs two ends that reach each other: network namespaces of one machine, or two nodes. Knows nothing of nettrace, which
//! depends on it. See `bench/README.md`.

mod atomic;
pub mod compare;
pub mod cpu;
pub mod hdr;
pub mod history;
pub mod json;
pub mod load;
pub mod peer;
pub mod result;
pub mod stats;
