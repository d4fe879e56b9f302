//! Whether the rounds of a run are of one kind: what drifts within a run drifts between two, and is taken for an effect there.
//! Few rounds show strong drift only, so that silence proves nothing.

use super::Metric;
use crate::{result::RunResult, stats::Estimate};

/// Differences between the halves of a run that are as rare as this are told.
const RARE: f64 = 0.05;

/// What is to be said of a run: one line for each load whose second half differs from its first.
pub(super) fn of(name: &str, run: &RunResult) -> Vec<String> {
    run.loads().into_iter().filter_map(|load| of_load(name, run, load)).collect()
}

fn of_load(name: &str, run: &RunResult, load: &str) -> Option<String> {
    let values = |metric: Metric| -> Vec<f64> {
        run.rounds.iter().filter_map(|round| metric.of(round, load)).map(|v| metric.scaled(v)).collect()
    };
    let metric = [Metric::P50, Metric::Throughput].into_iter().find(|metric| !values(*metric).is_empty())?;
    let values = values(metric);
    let (first, second) = values.split_at(values.len() / 2);
    let e = Estimate::of_separate(first, second, 1.0 - RARE / 2.0)?;
    (e.p_two_sided() <= RARE).then(|| {
        format!(
            "the run {name} drifts: {load} {} of its second half is {:.3} times that of its first",
            metric.name(),
            metric.unscaled(e.middle)
        )
    })
}
