//! Before and after: the same load over the same network, without a setting and with it.
//!
//! Needs root, for labs. Loads, statistics and results are those of the package `nettrace-bench`; here is what needs nettrace.

pub mod report;
pub mod scenario;
