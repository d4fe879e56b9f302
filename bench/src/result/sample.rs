//! Made-up results, for tests.

use super::{
    Arm, End, Environment, Kind, Latencies, Outcome, Round, RunResult, SCHEMA_VERSION, Scenario, Unit,
};
use crate::{
    cpu::{Pinned, Used},
    load::Mode,
    stats::{
        rng::Rng,
        tests::{Machine, normal},
    },
};
use serde_json::json;
use std::collections::BTreeMap;

/// Latencies of a round.
const LATENCIES: usize = 600;
/// Median latency, ns.
const MEDIAN_NS: f64 = 20_000.0;

/// How much slower than usual: every latency, and the slowest in fifty of them besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slower {
    pub(crate) all: f64,
    pub(crate) tail: f64,
}

/// A machine that drifts, and the rounds that are run on it.
pub(crate) struct Bench {
    machine: Machine,
    rng: Rng,
    rounds: Vec<Round>,
}

impl Bench {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { machine: Machine::new(seed, 0.02), rng: Rng::new(!seed), rounds: Vec::new() }
    }

    /// Runs a round of a closed loop, whose throughput is what its latencies allow.
    pub(crate) fn round(&mut self, block: u32, arm: Arm, slower: Slower) {
        let [level] = self.machine.round([slower.all.ln()]);
        let mut latency = Latencies::default();
        let mut elapsed_ns = 0;
        for _ in 0..LATENCIES {
            let tail = if self.rng.uniform() < 0.02 { 3.0 * slower.tail } else { 1.0 };
            let ns = (MEDIAN_NS * (level + 0.3 * normal(&mut self.rng)).exp() * tail) as u64;
            latency.record(ns);
            elapsed_ns += ns;
        }
        let outcome = Outcome {
            mode: Mode::Closed,
            unit: Unit::Requests,
            begun: LATENCIES as u64,
            count: LATENCIES as u64,
            elapsed_ns,
            errors: BTreeMap::new(),
            latency: Some(latency),
            service: None,
            lateness: None,
            client: end(0),
            server: end(1),
            partial: None,
        };
        let started_ms = self.rounds.len() as u64 * 1000;
        let loads = BTreeMap::from([("tcp_rr".to_owned(), outcome)]);
        self.rounds.push(Round { block, arm, started_ms, loads });
    }

    pub(crate) fn result(self, seed: u64) -> RunResult {
        let named = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        RunResult {
            kind: Kind::BenchResult,
            schema: SCHEMA_VERSION,
            tool: "0.1.0".to_owned(),
            scenario: Scenario {
                name: "pod-to-pod".to_owned(),
                spec: BTreeMap::from([
                    ("topology".to_owned(), json!({"kind": "bridge", "delay_ms": 0})),
                    ("loads".to_owned(), json!(["tcp_rr"])),
                ]),
            },
            environment: Environment {
                machine: named(&[("kernel", "6.18.0"), ("cpu.model", "a CPU"), ("cpu.count", "2")]),
                settings: named(&[("net.ipv4.tcp_fastopen", "1")]),
            },
            environment_b: None,
            changes: Vec::new(),
            seed,
            started_unix_ms: 1_750_000_000_000,
            elapsed_ms: self.rounds.len() as u64 * 1000,
            rounds: self.rounds,
            segments: Vec::new(),
            partial: None,
        }
    }
}

/// A run of one arm, so many times slower than usual.
pub(crate) fn run(seed: u64, rounds: u32, slower: f64) -> RunResult {
    let mut bench = Bench::new(seed);
    (0..rounds).for_each(|block| bench.round(block, Arm::A, Slower { all: slower, tail: 1.0 }));
    bench.result(seed)
}

/// An experiment of interleaved rounds.
pub(crate) fn experiment(seed: u64, pairs: u32, slower: Slower) -> RunResult {
    let mut bench = Bench::new(seed);
    for (block, arm) in Arm::interleaved(pairs, seed) {
        bench.round(block, arm, if arm == Arm::A { Slower { all: 1.0, tail: 1.0 } } else { slower });
    }
    bench.result(seed)
}

/// On one CPU, busy for half of the time.
fn end(cpu: usize) -> End {
    End {
        pinned: Pinned { cpus: vec![cpu], why_not: None },
        cpu: Used { busy_ns: 500_000_000, wall_ns: 1_000_000_000 },
    }
}
