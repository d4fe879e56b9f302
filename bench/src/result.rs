//! The result of a run: what `nettrace bench run -o FILE` writes, and every comparison reads.
//!
//! Needs the outcomes of load generators, and a description of where they ran. Yields versioned JSON that holds whole latency
//! distributions of single rounds, so that everything that is ever shown of a run can be made of its file. The published schema
//! is `docs/bench-result.schema.json`, generated from these types.

mod latencies;
mod read;
#[cfg(test)]
pub(crate) mod sample;

pub use latencies::{LAYOUT, Latencies};
pub use read::{MOST_BYTES, ReadError, WriteError, schema_json};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the JSON layout. It grows when a field changes its meaning or goes; new fields alone do not change it.
pub const SCHEMA_VERSION: u32 = 1;

/// What kind of file this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The result of a run.
    #[default]
    BenchResult,
}

/// A run, or an experiment of two arms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunResult {
    /// What kind of file this is.
    pub kind: Kind,
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema: u32,
    /// Version of nettrace that ran it.
    pub tool: String,
    /// What was run.
    pub scenario: Scenario,
    /// Where it was run, in arm A.
    pub environment: Environment,
    /// The same in arm B, with its changes; none where there is no arm B.
    #[serde(default)]
    pub environment_b: Option<Environment>,
    /// What arm B has and arm A has not; of a run of one arm, what was in force. None of a placebo (A/A).
    #[serde(default)]
    pub changes: Vec<Change>,
    /// Decides what is left to chance: the order of arms, the arrivals of an open loop, resampling.
    pub seed: u64,
    /// When it began, ms since 1970 (UTC).
    pub started_unix_ms: u64,
    /// How long it took, ms.
    pub elapsed_ms: u64,
    /// Rounds in the order in which they ran.
    pub rounds: Vec<Round>,
    /// What nettrace's own probes saw during the rounds, in the order of a packet's way; empty where they did not run.
    #[serde(default)]
    pub segments: Vec<Segment>,
    /// Why there are fewer rounds than were asked for; none where it is whole.
    #[serde(default)]
    pub partial: Option<Partial>,
}

/// What was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// Everything that it is made of: topology, loads and their parameters, length of rounds. Runs are comparable where
    /// this is the same.
    #[serde(default)]
    pub spec: BTreeMap<String, serde_json::Value>,
}

/// Where it was run: names and values, as the tool read them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// What makes the machines: kernel, CPU, memory, NIC and driver. Runs are comparable where this is the same.
    #[serde(default)]
    pub machine: BTreeMap<String, String>,
    /// What they are set to: sysctls, qdiscs, governors. What differs may be what is being tried, so it is only listed.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// A change in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What it is called, e.g. `tcp.tw_reuse`.
    pub id: String,
    /// What it does, in one line.
    pub what: String,
}

/// Why a run ended early.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Partial {
    /// In one line.
    pub reason: String,
    /// Rounds that were asked for, all arms together.
    pub planned_rounds: u32,
}

/// Which of the two that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// Before, or without.
    A,
    /// After, or with.
    B,
}

/// One round: all loads of the scenario for a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Round {
    /// Rounds of the same block lie beside each other in time, one of each arm: A B, B A, A B ... From 0.
    pub block: u32,
    /// Which arm it is of.
    pub arm: Arm,
    /// When it began, ms since the run did.
    pub started_ms: u64,
    /// What each load came to, by name.
    pub loads: BTreeMap<String, Outcome>,
}

/// One part of a packet's way, as nettrace's own probes saw it: of all packets there were, those of the loads and others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Segment {
    /// The signal, as `docs/signals.md` has it.
    pub signal: String,
    /// Of all rounds of arm A together, and of arm B.
    pub latency: [Latencies; 2],
}

/// What one load came to in one round, without its warm-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// When its requests were sent.
    pub schedule: Schedule,
    /// What is counted.
    pub unit: Unit,
    /// So many of them were done: requests that were answered, or bytes that arrived.
    pub count: u64,
    /// Length of the measurement, ns.
    pub elapsed_ns: u64,
    /// Requests that came to nothing, by reason; reasons without any may be left out.
    #[serde(default)]
    pub errors: BTreeMap<String, u64>,
    /// Latencies of what was answered; none of a load that has none.
    #[serde(default)]
    pub latency: Option<Latencies>,
    /// Where its threads ran.
    #[serde(default)]
    pub cpus: Cpus,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// The next one when the last was answered. A stall delays requests, and those are missing from the latencies
    /// (coordinated omission).
    Closed,
    /// At intended times, whether or not others were answered; latency counts from the intended time.
    Open {
        /// Intended requests per second.
        rate_per_second: f64,
    },
}

/// What a load counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Requests, or transactions, with their answers.
    Requests,
    /// Datagrams that arrived.
    Datagrams,
    /// Bytes that arrived.
    Bytes,
}

impl Unit {
    /// As reports write its rate.
    #[must_use]
    pub const fn per_second(self) -> &'static str {
        match self {
            Self::Requests => "requests/s",
            Self::Datagrams => "datagrams/s",
            Self::Bytes => "bytes/s",
        }
    }
}

/// CPUs that threads were pinned to, by number; none where they were not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cpus {
    /// The client's.
    #[serde(default)]
    pub client: Vec<u32>,
    /// The server's.
    #[serde(default)]
    pub server: Vec<u32>,
}

impl Outcome {
    /// [`Self::count`] per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.count as f64 * 1e9 / self.elapsed_ns.max(1) as f64
    }

    /// Requests that came to nothing.
    #[must_use]
    pub fn error_count(&self) -> u64 {
        self.errors.values().fold(0, |sum, n| sum.saturating_add(*n))
    }
}

impl RunResult {
    /// Whether it has rounds of both arms.
    #[must_use]
    pub fn is_experiment(&self) -> bool {
        self.rounds.iter().any(|round| round.arm == Arm::B)
    }

    /// The rounds of an arm, in the order in which they ran.
    pub fn of_arm(&self, arm: Arm) -> impl Iterator<Item = &Round> + Clone + '_ {
        self.rounds.iter().filter(move |round| round.arm == arm)
    }

    /// Rounds of the same block: one of A and one of B. Blocks that miss one are left out.
    #[must_use]
    pub fn pairs(&self) -> Vec<[&Round; 2]> {
        let mut blocks: BTreeMap<u32, [Option<&Round>; 2]> = BTreeMap::new();
        for round in &self.rounds {
            blocks.entry(round.block).or_default()[usize::from(round.arm == Arm::B)] = Some(round);
        }
        blocks.into_values().filter_map(|[a, b]| Some([a?, b?])).collect()
    }

    /// Names of its loads.
    #[must_use]
    pub fn loads(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.rounds.iter().flat_map(|round| round.loads.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
