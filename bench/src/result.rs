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

use crate::{
    cpu::{Pinned, Used},
    load::{self, Mode},
    stats::rng::Rng,
};
use hdrhistogram::Histogram;
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

impl Arm {
    /// In which order an experiment runs its rounds: A B or B A in each block, by lot. Where nothing differs, each difference is
    /// then as likely to be of either sign, whatever drifts or comes again and again: that is what a test of signed ranks rests
    /// on. In a fixed A B, B A, A B what disturbs every fourth round disturbs the same arm each time.
    #[must_use]
    pub fn interleaved(blocks: u32, seed: u64) -> Vec<(u32, Self)> {
        let mut lots = Rng::new(seed);
        let mut of_block = |block: u32| match lots.toss() {
            true => [(block, Self::A), (block, Self::B)],
            false => [(block, Self::B), (block, Self::A)],
        };
        (0..blocks).flat_map(&mut of_block).collect()
    }
}

/// One round: all loads of the scenario for a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Round {
    /// Rounds of the same block lie beside each other in time, one of each arm, in an order by lot. From 0.
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
    /// How it was paced, which says what its latencies mean.
    pub mode: Mode,
    /// What is counted.
    pub unit: Unit,
    /// Requests that were to be sent; of what goes one way, what was sent: datagrams or writes.
    #[serde(default)]
    pub begun: u64,
    /// So many were done: requests that were answered, or what arrived.
    pub count: u64,
    /// Length of the measurement, ns.
    pub elapsed_ns: u64,
    /// Requests that came to nothing, by reason; reasons without any are left out.
    #[serde(default)]
    pub errors: BTreeMap<String, u64>,
    /// From the intended time to the whole answer; none of a load that has no answers.
    #[serde(default)]
    pub latency: Option<Latencies>,
    /// From the time of sending to the whole answer; none in a closed loop, where it is the latency.
    #[serde(default)]
    pub service: Option<Latencies>,
    /// How late requests were sent: the generator's own honesty; none in a closed loop.
    #[serde(default)]
    pub lateness: Option<Latencies>,
    /// The client's threads.
    #[serde(default)]
    pub client: End,
    /// The server's threads; nothing of a server that did not tell.
    #[serde(default)]
    pub server: End,
    /// Why it ended before its time; none where it did not.
    #[serde(default)]
    pub partial: Option<String>,
}

/// The threads of one end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct End {
    /// Where they ran.
    #[serde(default)]
    pub pinned: Pinned,
    /// CPU time that they had.
    #[serde(default)]
    pub cpu: Used,
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

impl Unit {
    /// Of a kind of load.
    #[must_use]
    pub const fn of(kind: &load::Kind) -> Self {
        match kind {
            load::Kind::TcpStream => Self::Bytes,
            load::Kind::UdpFlood => Self::Datagrams,
            load::Kind::TcpRr
            | load::Kind::TcpCrr
            | load::Kind::UdpRr
            | load::Kind::UdpNew
            | load::Kind::Dns(_)
            | load::Kind::HttpRr
            | load::Kind::HttpCrr => Self::Requests,
        }
    }
}

impl Outcome {
    /// Of what both ends of a load saw. Of a load that goes one way the server counts, and without it nothing arrived.
    #[must_use]
    pub fn of(kind: &load::Kind, client: &load::Outcome, server: Option<&load::Served>) -> Self {
        let unit = Unit::of(kind);
        let answers = unit == Unit::Requests;
        let received = server.and_then(|served| served.received.as_ref());
        let (count, elapsed_ns) = match received {
            _ if answers => (client.answered, client.elapsed_ns),
            Some(received) => (received.units, received.elapsed_ns),
            None => (0, client.elapsed_ns),
        };
        let latencies = |hist: &Option<Histogram<u64>>| hist.as_ref().map(Latencies::from);
        Self {
            mode: client.mode,
            unit,
            begun: client.begun,
            count,
            elapsed_ns: elapsed_ns.max(1),
            errors: client.errors.by_name(),
            latency: answers.then(|| Latencies::from(&client.latency)),
            service: latencies(&client.service),
            lateness: latencies(&client.lateness),
            client: End { pinned: client.pinned.clone(), cpu: client.cpu },
            server: server.map(|s| End { pinned: s.pinned.clone(), cpu: s.cpu }).unwrap_or_default(),
            partial: client.partial.clone(),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Errors, Failure, Received, Served};

    fn client() -> load::Outcome {
        let mut latency = LAYOUT.empty().unwrap();
        latency.saturating_record_n(20_000, 40);
        let mut errors = Errors::default();
        errors.count(Failure::ALL[0]);
        load::Outcome {
            mode: Mode::OpenConstant,
            begun: 41,
            answered: 40,
            all: 50,
            errors,
            elapsed_ns: 2_000_000_000,
            sent_bytes: 41,
            received_bytes: 40,
            latency: latency.clone(),
            service: Some(latency.clone()),
            lateness: Some(latency),
            slices: Vec::new(),
            cpu: Used { busy_ns: 1, wall_ns: 2 },
            pinned: Pinned { cpus: vec![3], why_not: None },
            partial: None,
        }
    }

    #[test]
    fn arms_take_turns_at_being_first() {
        use Arm::{A, B};
        let orders: Vec<_> = (0..20).map(|seed| Arm::interleaved(3, seed)).collect();
        assert!(orders.contains(&vec![(0, A), (0, B), (1, B), (1, A), (2, A), (2, B)]));
        assert!(orders.contains(&vec![(0, A), (0, B), (1, A), (1, B), (2, B), (2, A)]));
        let firsts = orders.iter().flatten().step_by(2).filter(|(_, arm)| *arm == A).count();
        assert!((20..=40).contains(&firsts), "{firsts} of 60 blocks begin with A");
        assert_eq!(Arm::interleaved(3, 7), Arm::interleaved(3, 7));
    }

    #[test]
    fn of_requests_the_client_counts_and_of_one_way_the_server() {
        let served = Served {
            received: Some(Received { units: 30, elapsed_ns: 1_000_000_000, slices: Vec::new() }),
            pinned: Pinned { cpus: vec![4], why_not: None },
            ..Served::default()
        };
        let asked = Outcome::of(&load::Kind::TcpRr, &client(), Some(&served));
        assert_eq!((asked.unit, asked.count, asked.error_count()), (Unit::Requests, 40, 1));
        assert!((asked.per_second() - 20.0).abs() < 1e-9);
        assert_eq!(asked.latency.as_ref().unwrap().histogram(), &client().latency, "nothing is lost");
        assert_eq!((asked.client.pinned.cpus, asked.server.pinned.cpus), (vec![3], vec![4]));
        let flood = Outcome::of(&load::Kind::UdpFlood, &client(), Some(&served));
        assert_eq!((flood.unit, flood.count, flood.begun), (Unit::Datagrams, 30, 41));
        assert!(flood.latency.is_none() && (flood.per_second() - 30.0).abs() < 1e-9);
        let lost = Outcome::of(&load::Kind::TcpStream, &client(), None);
        assert_eq!((lost.unit, lost.count, lost.server), (Unit::Bytes, 0, End::default()));
    }
}
