//! Reports for programs, and the schema that describes them.
//!
//! Needs a [`Subject`]; yields indented JSON that ends with a newline. The published copy of the schema is
//! `docs/bench-report.schema.json`; whole distributions are in the results themselves.

use super::{Side, Subject, history::Trends, suite::Suite};
use crate::report::{
    ReportError,
    json::{indented, published},
};
use nettrace_bench::{
    compare::Comparison,
    history::{Levels, levels},
    result::{Arm, Change, Environment, Latencies, Partial, RunResult, Scenario},
};
use schemars::{JsonSchema, schema_for};
use serde::Serialize;

/// Version of the JSON layout. It grows when a field changes its meaning or goes; new fields alone do not change it.
pub const SCHEMA_VERSION: u32 = 1;

/// A report of a bench.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "kind")]
pub(super) enum Document {
    /// Of one or two runs, or the arms of an experiment.
    #[serde(rename = "bench-report")]
    Runs(Box<Report>),
    /// Of a suite of experiments.
    #[serde(rename = "bench-suite")]
    Suite(Suite),
    /// Of runs over time.
    #[serde(rename = "bench-history")]
    History(Trends),
}

/// What one or two runs came to.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// [`SCHEMA_VERSION`] of the writer.
    schema: u32,
    /// Version of nettrace that wrote it.
    tool: String,
    /// One, or before and after.
    runs: Vec<Run>,
    /// What they prove of each other; none where nothing was compared.
    comparison: Option<Comparison>,
}

/// A run, or an arm of an experiment.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Run {
    /// `before`, `after`, or `run`.
    name: String,
    /// Which arm of its result.
    arm: Arm,
    /// Version of nettrace that ran it.
    tool: String,
    /// What was run.
    scenario: Scenario,
    /// Where it was run.
    environment: Environment,
    /// Changes that its result names.
    changes: Vec<Change>,
    /// What was left to chance.
    seed: u64,
    /// When it began, ms since 1970 (UTC).
    started_unix_ms: u64,
    /// How long it took, ms; of an experiment with both arms.
    elapsed_ms: u64,
    /// Rounds of this arm.
    rounds: usize,
    /// Why there are fewer than were asked for.
    partial: Option<Partial>,
    /// The middle of rounds, by load and metric.
    levels: Levels,
    /// What nettrace's own probes saw, in the order of a packet's way.
    segments: Vec<Quantiles>,
}

/// A distribution in short.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Quantiles {
    /// The signal, as `docs/signals.md` has it.
    signal: String,
    /// Latencies counted.
    count: u64,
    /// Median, ns.
    p50_ns: Option<u64>,
    /// 90th percentile, ns.
    p90_ns: Option<u64>,
    /// 99th percentile, ns.
    p99_ns: Option<u64>,
    /// 99.9th percentile, ns.
    p999_ns: Option<u64>,
    /// Largest, ns.
    max_ns: Option<u64>,
}

impl Report {
    /// Of what is reported to people, too.
    #[must_use]
    pub fn of(subject: &Subject<'_>) -> Self {
        Self {
            schema: SCHEMA_VERSION,
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            runs: subject.sides.iter().map(Run::of).collect(),
            comparison: subject.comparison.cloned(),
        }
    }
}

impl Run {
    fn of(side: &Side<'_>) -> Self {
        let RunResult { tool, scenario, changes, seed, started_unix_ms, elapsed_ms, partial, .. } =
            side.result.clone();
        let segments = side.result.segments.iter().map(|s| (s.signal.as_str(), &s.latency[side.index()]));
        Self {
            name: side.name.to_owned(),
            arm: side.arm,
            tool,
            scenario,
            environment: side.environment().clone(),
            changes,
            seed,
            started_unix_ms,
            elapsed_ms,
            rounds: side.rounds().count(),
            partial,
            levels: levels(side.result, side.arm),
            segments: segments.map(|(signal, latencies)| Quantiles::of(signal, latencies)).collect(),
        }
    }
}

impl Quantiles {
    fn of(signal: &str, latencies: &Latencies) -> Self {
        Self {
            signal: signal.to_owned(),
            count: latencies.count(),
            p50_ns: latencies.quantile_ns(0.5),
            p90_ns: latencies.quantile_ns(0.9),
            p99_ns: latencies.quantile_ns(0.99),
            p999_ns: latencies.quantile_ns(0.999),
            max_ns: latencies.quantile_ns(1.0),
        }
    }
}

/// The schema as it is published in `docs/bench-report.schema.json`.
#[must_use]
pub fn schema_json() -> String {
    published(schema_for!(Document))
}

/// The document, indented.
pub(super) fn render(document: &Document) -> Result<String, ReportError> {
    Ok(indented(document)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regenerate with `NETTRACE_UPDATE_SCHEMA=1 cargo test -p nettrace schema`.
    #[test]
    fn published_schema_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bench-report.schema.json");
        if std::env::var_os("NETTRACE_UPDATE_SCHEMA").is_some() {
            std::fs::write(path, schema_json()).expect("docs/ can be written");
        }
        let published = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            published == schema_json(),
            "docs/bench-report.schema.json is out of date: NETTRACE_UPDATE_SCHEMA=1 cargo test -p nettrace schema"
        );
    }
}
