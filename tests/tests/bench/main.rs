//! What benchmarks stand on: links with a known delay, generators, and the scenarios that are run over them; experiments that are to
//! find what is there, and nothing else; and the commands.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod cli;
mod delay;
mod experiment;
mod load;
mod peers;
mod scenarios;
