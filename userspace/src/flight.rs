//! The flight recorder: the last seconds of the event lane in memory, written to a file when something is wrong.
//!
//! Needs the batches that the collector copies out of the ring ([`Memory`]) and the agent's windows ([`Triggers`]); yields files
//! that `nettrace report` reads ([`write()`]): recordings of the seconds before, with the snapshots around them and the cause.
//!
//! Nothing is copied to keep it: batches are counted references. The memory is bounded by time and by bytes, files by a cooldown,
//! a number per hour and the size of their directory, of which the oldest go.

mod figure;
mod memory;
mod trigger;
mod write;

pub use figure::{Figure, FigureError, window_of};
pub use memory::{Memory, MemoryOptions, MemoryStats};
pub(crate) use trigger::amount;
pub use trigger::{RateLimited, Trigger, TriggerError, TriggerStats, Triggers};
pub use write::{FlightError, files, write};

use serde::Deserialize;
use std::{path::PathBuf, time::Duration};

/// Where files are, unless the configuration says otherwise.
pub const DEFAULT_DIR: &str = "/var/lib/nettrace/flight";

/// The section `[flight]` of the agent's configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlightConfig {
    /// Whether the last seconds are kept at all.
    pub enabled: bool,
    /// The directory of the files. It is made when it is not there, for its owner alone.
    pub dir: PathBuf,
    /// The time that is kept in memory.
    #[serde(deserialize_with = "crate::config::units::duration")]
    pub seconds: Duration,
    /// The memory for it, bytes.
    #[serde(deserialize_with = "crate::config::units::bytes")]
    pub memory: u64,
    /// Windows before the cause whose snapshots go into the file.
    pub windows: usize,
    /// After a file, no other for so long.
    #[serde(deserialize_with = "crate::config::units::duration")]
    pub cooldown: Duration,
    /// Files in an hour, at most.
    pub per_hour: u32,
    /// All files together, bytes; the oldest go.
    #[serde(deserialize_with = "crate::config::units::bytes")]
    pub max_size: u64,
    /// What sets it off. `[[flight.trigger]]` replaces all of the usual ones.
    #[serde(rename = "trigger")]
    pub triggers: Vec<Trigger>,
}

impl Default for FlightConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            dir: DEFAULT_DIR.into(),
            seconds: Duration::from_secs(30),
            memory: 16 << 20,
            windows: 12,
            cooldown: Duration::from_secs(300),
            per_hour: 4,
            max_size: 256 << 20,
            triggers: trigger::usual(),
        }
    }
}

impl FlightConfig {
    /// What the collector is to keep; none when it is to keep nothing.
    #[must_use]
    pub fn memory_options(&self) -> Option<MemoryOptions> {
        self.enabled.then_some(MemoryOptions { time: self.seconds, bytes: self.memory })
    }
}
