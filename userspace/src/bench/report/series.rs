//! Each metric of each load, round by round.
//!
//! Needs a [`Subject`]; yields what points in plots and lines of tables are made of.

use super::Subject;
use nettrace_bench::{
    compare::{Metric, Outlier},
    history,
    stats::median,
};

/// A metric of a load.
pub(super) struct Series {
    pub(super) load: String,
    pub(super) metric: Metric,
    /// That of [`Metric::unit`].
    pub(super) unit: &'static str,
    /// Of each side, in the order in which they ran.
    pub(super) sides: Vec<Vec<Point>>,
}

/// A round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// Its place among all rounds that are shown, from 0.
    pub(super) place: usize,
    pub(super) block: u32,
    /// Infinite where a round had no answer.
    pub(super) value: f64,
    /// Whether it is far from the others.
    pub(super) is_outlier: bool,
}

impl Series {
    /// The middle of a side's rounds; none where half of them had no answer, or there are none.
    pub(super) fn middle(&self, side: usize) -> Option<f64> {
        let values: Vec<f64> = self.sides.get(side)?.iter().map(|point| point.value).collect();
        median(&values).filter(|v| v.is_finite())
    }
}

/// All that can be told: what was compared, or, where nothing was, what any side has.
pub(super) fn all(subject: &Subject<'_>) -> Vec<Series> {
    let told: Vec<(&str, Metric)> = match subject.comparison {
        Some(comparison) => comparison.rows.iter().map(|row| (row.load.as_str(), row.metric)).collect(),
        None => {
            let levels: Vec<_> =
                subject.sides.iter().map(|side| history::levels(side.result, side.arm)).collect();
            let has = |load: &str, metric: Metric| {
                levels.iter().filter_map(|levels| levels.get(load)?.get(&metric)).any(|level| {
                    // That there were no errors is no line of its own.
                    metric.is_ratio() || level.middle > 0.0 || level.bounds.is_some_and(|b| b.high > 0.0)
                })
            };
            let of_load =
                |load| Metric::ALL.into_iter().filter(move |m| has(load, *m)).map(move |m| (load, m));
            subject.loads().into_iter().flat_map(of_load).collect()
        }
    };
    told.into_iter().map(|(load, metric)| one(subject, load, metric)).collect()
}

fn one(subject: &Subject<'_>, load: &str, metric: Metric) -> Series {
    let row = subject
        .comparison
        .and_then(|comparison| comparison.rows.iter().find(|row| row.load == load && row.metric == metric));
    let outliers = row.map(|row| row.outliers.as_slice()).unwrap_or_default();
    let sides = (0..subject.sides.len()).map(|side| points(subject, side, load, metric, outliers)).collect();
    let outcome = subject.sides.iter().flat_map(|side| &side.result.rounds).find_map(|r| r.loads.get(load));
    Series { load: load.to_owned(), metric, unit: outcome.map_or("", |outcome| metric.unit(outcome)), sides }
}

fn points(
    subject: &Subject<'_>,
    side: usize,
    load: &str,
    metric: Metric,
    outliers: &[Outlier],
) -> Vec<Point> {
    // Of two runs, that after follows.
    let first = match subject.is_interleaved() {
        true => 0,
        false => subject.sides[..side].iter().map(|side| side.rounds().count()).sum(),
    };
    let shown = subject.sides[side];
    let rounds =
        shown.result.rounds.iter().filter(|round| subject.is_interleaved() || round.arm == shown.arm);
    let is_outlier = |block| {
        outliers.iter().any(|outlier| {
            let of_side = outlier.arm.is_none_or(|arm| (arm as usize) == side);
            of_side && outlier.block == block
        })
    };
    rounds
        .enumerate()
        .filter(|(_, round)| round.arm == shown.arm)
        .filter_map(|(n, round)| {
            Some(Point {
                place: first + n,
                block: round.block,
                value: metric.of(round, load)?,
                is_outlier: is_outlier(round.block),
            })
        })
        .collect()
}
