//! How the agent is doing: what `/api/status`, `/readyz` and the page show.

use super::Totals;
use serde::Serialize;
use std::path::PathBuf;

/// How the agent is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// nettrace's version.
    pub version: String,
    /// Node name.
    pub hostname: String,
    /// `uname -r`.
    pub kernel: String,
    /// Whether a window was closed since it started, and the last one not long ago.
    pub ready: bool,
    /// When it started, Unix time, ms.
    pub since_unix_ms: u64,
    /// Length of a window, ms.
    pub interval_ms: u64,
    /// Windows closed.
    pub windows: u64,
    /// Windows that could not be closed, and why the last of them.
    pub failed_windows: u64,
    /// The last error of the agent's loop, if any.
    pub last_error: Option<String>,
    /// The configuration file, if there is one.
    pub config: Option<PathBuf>,
    /// Times that it was read anew.
    pub reloads: u64,
    /// Why the last reading was refused, so that the one before is still in force.
    pub config_error: Option<String>,
    /// What it may cost, and what was switched down for that.
    pub budget: Budget,
    /// What is kept on disk.
    pub history: HistoryStatus,
    /// What the flight recorder wrote.
    pub flight: FlightStatus,
    /// What its web server did.
    pub web: Totals,
    /// What privileges it runs with, in words.
    pub privileges: Vec<String>,
}

/// What the agent may cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Budget {
    /// CPU time, as a share of one CPU; none for no limit.
    pub cpu_share: Option<f64>,
    /// Resident set with kernel maps, bytes; none for no limit.
    pub memory_bytes: Option<u64>,
    /// What it costs: CPU time over the last windows, kernel programs included, as a share of one CPU.
    pub used_cpu_share: f64,
    /// What it costs, bytes.
    pub used_memory_bytes: u64,
    /// Steps of backing off: 0 for none.
    pub step: u32,
    /// What the steps so far switched down, in words.
    pub reduced: Vec<String>,
    /// Changes of the step.
    pub changes: u64,
}

/// What is kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HistoryStatus {
    /// The directory; none when nothing is kept.
    pub dir: Option<PathBuf>,
    /// Snapshots written since the start.
    pub written: u64,
    /// Snapshots that could not be written.
    pub failed: u64,
    /// Why the last one could not be; none when it was written.
    pub error: Option<String>,
    /// Size on disk, bytes.
    pub size_bytes: u64,
    /// Snapshots that went since the start, for size or age.
    pub dropped: u64,
    /// Places on disk where snapshots are damaged.
    pub damaged: u64,
    /// Times that the clock was seen to be set since the start.
    pub clock_steps: u64,
}

/// What the flight recorder wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlightStatus {
    /// Events that it holds, s; none when it is off.
    pub seconds: Option<u64>,
    /// What it holds, bytes.
    pub held_bytes: u64,
    /// Batches of events that it let go before their time, because there was no room.
    pub let_go: u64,
    /// Files written since the start.
    pub written: u64,
    /// Causes that came too soon after another, and were not written.
    pub suppressed: u64,
    /// The last file.
    pub last: Option<PathBuf>,
    /// Why the last one could not be written; none when it was.
    pub error: Option<String>,
}
