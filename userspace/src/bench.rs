//! Before and after: the same load over the same network, without a setting and with it.
//!
//! Needs root for labs and probes. Loads, statistics and results are those of the package `nettrace-bench`; here is what needs
//! nettrace: networks to run on ([`site`]), the settings that are tried ([`crate::change`]), rounds of both arms in turn
//! ([`experiment`]), and what nettrace's own probes see meanwhile ([`probes`]). Yields a [`nettrace_bench::result::RunResult`].

pub mod environment;
mod error;
pub mod experiment;
pub mod probes;
pub mod report;
pub mod scenario;
pub mod site;

pub use error::BenchError;
