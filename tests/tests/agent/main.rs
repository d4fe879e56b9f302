//! The agent, end to end: it measures for long, and what it exports is what others read. Needs root.
//!
//! Tests of metrics, rules and dashboards need the programs `prometheus` and `promtool` (Debian package `prometheus`);
//! `NETTRACE_SKIP_PROMETHEUS=1` skips them and says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod deploy;
mod flight;
mod history;
mod metrics;
mod prometheus;
mod run;
mod soak;
mod stream;
mod top;
mod whole;
mod windows;
