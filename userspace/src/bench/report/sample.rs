//! Made-up results for tests: an experiment with known effects, runs, and one with hostile names. All are the same on every run.

use nettrace_bench::{
    cpu::Pinned,
    history::Listed,
    load::Mode,
    result::{
        Arm, Change, End, Environment, Kind, LAYOUT, Latencies, Outcome, Partial, Round, RunResult,
        SCHEMA_VERSION, Scenario, Segment, Unit,
    },
};
use nettrace_common::Signal;
use std::collections::BTreeMap;

const US: f64 = 1_000.0;
const S: u64 = 1_000_000_000;
/// Latencies of a round.
const LATENCIES: u64 = 6_000;
/// Steps of the noise of rounds: none of them is the same as another, and they have no order.
const NOISE: [f64; 13] =
    [0.004, -0.011, 0.017, -0.003, 0.009, -0.016, 0.001, 0.013, -0.007, 0.02, -0.019, 0.006, -0.001];

/// `n` latencies that pass through the given quantiles (least, p50, p90, p99, p99.9, most; us), straight between them.
#[must_use]
pub fn latencies(n: u64, quantiles_us: [f64; 6]) -> Latencies {
    let shares = [0.0, 0.5, 0.9, 0.99, 0.999, 1.0];
    let mut all = Latencies::default();
    for i in 0..n {
        let q = (i as f64 + 0.5) / n as f64;
        let at = shares.iter().rposition(|share| *share <= q).unwrap_or(0).min(4);
        let share = (q - shares[at]) / (shares[at + 1] - shares[at]);
        let us = quantiles_us[at] + share * (quantiles_us[at + 1] - quantiles_us[at]);
        all.record(((us * US) as u64).clamp(1, LAYOUT.highest));
    }
    all
}

/// Noise of a round: a factor near 1.
fn noise(round: usize, salt: usize) -> f64 {
    let step = |n: usize| NOISE[n % NOISE.len()];
    (step(round * 5 + salt) + 0.3 * step(round * 3 + 2 * salt)).exp()
}

fn outcome(mode: Mode, unit: Unit, count: u64, latency: Option<Latencies>) -> Outcome {
    Outcome {
        mode,
        unit,
        begun: count,
        count,
        elapsed_ns: S,
        errors: BTreeMap::new(),
        latency,
        service: None,
        lateness: None,
        client: end(0),
        server: end(1),
        partial: None,
    }
}

/// An end that has a CPU.
fn end(cpu: usize) -> End {
    End { pinned: Pinned { cpus: vec![cpu], why_not: None }, ..End::default() }
}

/// A round: request-response in an open loop, DNS in a closed one, a bulk flow. In arm B requests are quicker by 30 %, bulk is
/// slower by 9 %.
fn round(n: usize, block: u32, arm: Arm) -> Round {
    let slow = if arm == Arm::B { 0.7 } else { 1.0 };
    let f = slow * noise(n, 1);
    // One pair is far from the others.
    let far = if block == 7 && arm == Arm::B { 2.5 } else { 1.0 };
    let rr = latencies(
        LATENCIES,
        [14.0 * f, 24.0 * f, 41.0 * f * noise(n, 4), 90.0 * f * noise(n, 2) * far, 210.0 * f, 900.0],
    );
    let f = noise(n, 3);
    let dns = latencies(
        LATENCIES / 4,
        [40.0 * f, 95.0 * f, 180.0 * f, 420.0 * f * noise(n * 3, 5).powi(9), 2_000.0, 9_000.0],
    );
    let bulk = 11_825_000.0 * noise(n, 6) * if arm == Arm::B { 0.91 } else { 1.0 };
    let mut dns = outcome(Mode::Closed, Unit::Requests, (1_500.0 / f) as u64, Some(dns));
    if arm == Arm::A && block.is_multiple_of(3) {
        dns.errors.insert("timed out".to_owned(), u64::from(2 + block % 2));
    }
    let rr = Outcome {
        service: Some(rr.clone()),
        lateness: Some(latencies(LATENCIES, [0.1, 0.4, 0.9, 1.8, 4.0, 20.0])),
        ..outcome(Mode::OpenConstant, Unit::Requests, LATENCIES, Some(rr))
    };
    let loads = BTreeMap::from([
        ("tcp_rr".to_owned(), rr),
        ("dns".to_owned(), dns),
        ("tcp_stream".to_owned(), outcome(Mode::Closed, Unit::Bytes, bulk as u64, None)),
    ]);
    Round { block, arm, started_ms: n as u64 * 1_250, loads }
}

fn named(values: &[(&str, &str)]) -> BTreeMap<String, String> {
    values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn environment(qdisc: &str) -> Environment {
    Environment {
        machine: named(&[
            ("kernel", "6.18.0-amd64"),
            ("architecture", "x86_64"),
            ("CPU", "AMD EPYC 9654"),
            ("CPUs", "2"),
            ("memory", "24 GiB"),
        ]),
        settings: named(&[
            ("client: queue of eth0", qdisc),
            ("client: MTU of eth0", "1500"),
            ("net.core.rmem_max", "212992"),
            ("net.ipv4.tcp_congestion_control", "cubic"),
            ("net.ipv4.tcp_fastopen", "1"),
        ]),
    }
}

fn segments() -> Vec<Segment> {
    let segment = |signal: Signal, before: [f64; 6], after: [f64; 6]| Segment {
        signal: signal.name().to_owned(),
        latency: [latencies(9_000, before), latencies(9_000, after)],
    };
    let same = [0.6, 1.4, 2.2, 6.0, 15.0, 60.0];
    vec![
        segment(Signal::TxQdisc, [0.9, 8.5, 22.0, 70.0, 180.0, 800.0], [0.2, 0.7, 1.8, 9.0, 40.0, 160.0]),
        segment(Signal::TxDriver, same, same),
        segment(Signal::RxSocket, [1.0, 3.1, 5.2, 14.0, 60.0, 210.0], [1.0, 3.0, 5.1, 13.5, 61.0, 190.0]),
        segment(Signal::RxStack, [0.8, 2.0, 3.1, 8.0, 25.0, 90.0], [0.8, 2.0, 3.2, 8.1, 24.0, 95.0]),
    ]
}

/// Twelve pairs with a change.
#[must_use]
pub fn experiment() -> RunResult {
    let order = (0..12_u32).flat_map(|block| {
        let arms = if block % 2 == 0 { [Arm::A, Arm::B] } else { [Arm::B, Arm::A] };
        arms.map(|arm| (block, arm))
    });
    let rounds: Vec<Round> = order.enumerate().map(|(n, (block, arm))| round(n, block, arm)).collect();
    RunResult {
        kind: Kind::BenchResult,
        schema: SCHEMA_VERSION,
        tool: "0.1.0".to_owned(),
        scenario: Scenario {
            name: "bufferbloat".to_owned(),
            spec: BTreeMap::from([
                ("link".to_owned(), serde_json::json!("100 Mbit/s")),
                ("seconds".to_owned(), serde_json::json!(1.0)),
            ]),
        },
        environment: environment("pfifo_fast"),
        environment_b: Some(environment("fq_codel")),
        changes: vec![Change {
            id: "qdisc:eth0=fq_codel".to_owned(),
            what: "flows wait in queues of their own, and none for long".to_owned(),
        }],
        seed: 7,
        started_unix_ms: 1_767_225_600_000,
        elapsed_ms: 30_000,
        rounds,
        segments: segments(),
        partial: None,
    }
}

/// A run of one arm of the same: arm A, or what arm B became.
#[must_use]
pub fn run(arm: Arm) -> RunResult {
    let mut result = experiment();
    result.rounds.retain(|round| round.arm == arm);
    result.segments.iter_mut().filter(|_| arm == Arm::B).for_each(|segment| segment.latency.swap(0, 1));
    for round in &mut result.rounds {
        round.arm = Arm::A;
    }
    if arm == Arm::B {
        result.environment = environment("fq_codel");
        result.started_unix_ms += 3_600_000;
    } else {
        result.changes.clear();
    }
    result.environment_b = None;
    result
}

/// An experiment that was stopped before a second, with names that are not meant well.
#[must_use]
pub fn hostile() -> RunResult {
    const NAME: &str = "<script>alert(1)</script>\u{1b}[31m|`*_@all\u{202e}\n# <img src=x onerror=alert(2)>";
    let mut result = experiment();
    result.rounds.truncate(5);
    result.scenario.name = NAME.to_owned();
    result.scenario.spec.insert(NAME.to_owned(), serde_json::json!(NAME));
    result.partial = Some(Partial { reason: NAME.to_owned(), planned_rounds: 24 });
    result.changes[0] = Change { id: NAME.to_owned(), what: NAME.to_owned() };
    result.tool = NAME.to_owned();
    result.environment.machine.insert("kernel".to_owned(), NAME.to_owned());
    result.environment.settings.insert(NAME.to_owned(), NAME.to_owned());
    result.segments[0].signal = NAME.to_owned();
    for round in &mut result.rounds {
        if let Some(mut outcome) = round.loads.remove("tcp_rr") {
            outcome.errors.insert(NAME.to_owned(), 3);
            round.loads.insert(NAME.to_owned(), outcome);
        }
    }
    result
}

/// Runs that are kept, of which one was made elsewhere and one is not whole; `add` keeps one.
///
/// # Errors
/// When one cannot be kept.
pub fn kept<E>(mut add: impl FnMut(&RunResult) -> Result<Listed, E>) -> Result<Listed, E> {
    let mut listed = Listed::default();
    for n in 0..8_u64 {
        let mut result = run(if n < 5 { Arm::A } else { Arm::B });
        result.started_unix_ms += n * 86_400_000;
        result.rounds.rotate_left(n as usize % 5);
        result.rounds.pop();
        for round in &mut result.rounds {
            for outcome in round.loads.values_mut() {
                outcome.elapsed_ns += n * n * 9_000_000;
            }
        }
        if n == 2 {
            result.environment.machine.insert("kernel".to_owned(), "6.12.0-amd64".to_owned());
        }
        if n == 4 {
            result.partial = Some(Partial { reason: "stopped".to_owned(), planned_rounds: 12 });
        }
        listed = add(&result)?;
    }
    Ok(listed)
}
