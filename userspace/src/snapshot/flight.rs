//! Why the flight recorder wrote what a snapshot is of, and how the windows around it looked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Of a recording that the flight recorder wrote.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Flight {
    /// Why it was written.
    pub cause: Cause,
    /// The windows around it, in order of time.
    #[serde(default)]
    pub windows: Vec<FlightWindow>,
}

/// Why the flight recorder wrote.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// When, Unix time, ns: the end of the window that a trigger looked at, or when somebody asked.
    pub at_unix_ns: u64,
    /// What was looked at, as in the configuration: `p99 of dns.latency`, `dns.timeouts`; or who asked.
    pub what: String,
    /// What it was; none where somebody asked.
    pub value: Option<f64>,
    /// The bound that it was above.
    pub bound: Option<f64>,
    /// What both are in.
    pub unit: CauseUnit,
    /// Of how many: latencies of a quantile, the whole of a share.
    pub count: Option<u64>,
    /// Other triggers that the same window set off, in words.
    #[serde(default)]
    pub also: Vec<String>,
}

/// What the value of a cause is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CauseUnit {
    /// Nanoseconds.
    Ns,
    /// A number in a window.
    #[default]
    Count,
    /// A number per second.
    PerSecond,
    /// A share, 0 to 1.
    Share,
}

/// One window around a cause.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlightWindow {
    /// Start, Unix time, ns.
    pub start_unix_ns: u64,
    /// Length, ns.
    pub duration_ns: u64,
    /// What the cause looked at, in its unit; none where the window does not tell it.
    pub value: Option<f64>,
    /// DNS transactions without an answer.
    pub dns_timeouts: u64,
    /// TCP segments sent again.
    pub retransmits: u64,
    /// Packets dropped.
    pub drops: u64,
}
