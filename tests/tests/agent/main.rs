//! What the agent exports: metrics as a real Prometheus reads them, and what is deployed with them.
//!
//! Needs the programs `prometheus` and `promtool` (Debian package `prometheus`); `NETTRACE_SKIP_PROMETHEUS=1` skips what needs
//! them and says so. Tests that capture need root.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod deploy;
mod metrics;
mod prometheus;
