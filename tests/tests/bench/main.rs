//! What benchmarks stand on: links with a known delay, and the scenarios that are run over them.

mod cli;
mod delay;
mod experiment;
mod scenarios;
