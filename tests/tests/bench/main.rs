//! What benchmarks stand on: links with a known delay.

mod delay;
