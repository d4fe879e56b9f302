//! Round by round, in the order in which they ran.

use super::super::{Subject, axis::Axis, series::Series, value};
use crate::report::{
    units,
    view::{Cell, Depth, Kind, Section, Table},
};
use nettrace_bench::{
    compare::Metric,
    result::{Arm, Outcome, Round},
};

const NS_PER_MS: u64 = 1_000_000;

pub(super) fn section(subject: &Subject<'_>, series: &[Series]) -> Section {
    let mut section = Section::new("rounds", "Rounds");
    section.depth = Depth::More;
    if series.is_empty() {
        section.line("There is no round to show.");
        return section;
    }
    section.figures = vec!["traces.html"];
    section.line(
        "In the order in which they ran; both arms of a load on one scale, that of ratios logarithmic.",
    );
    section.table(sparks(subject, series));
    section
}

/// What was measured in each, for those who look one up.
pub(super) fn every(subject: &Subject<'_>, series: &[Series], top: usize) -> Option<Section> {
    let mut section = Section::new("every", "Every round");
    section.depth = Depth::Detail;
    section.table(table(subject, series, top));
    (!section.tables.is_empty()).then_some(section)
}

fn sparks(subject: &Subject<'_>, series: &[Series]) -> Table {
    let lines: Vec<(&Series, usize)> =
        series.iter().flat_map(|one| (0..one.sides.len()).map(move |side| (one, side))).collect();
    let columns = [
        ("load", Kind::Text),
        ("metric", Kind::Text),
        ("run", Kind::Text),
        ("least", Kind::Number),
        ("median", Kind::Number),
        ("most", Kind::Number),
        ("rounds", Kind::Bar),
    ];
    let mut table = Table::of("", &columns, &lines, usize::MAX, |(one, side)| {
        let points = &one.sides[*side];
        let show = |v: Option<f64>| value::cell(one.metric, one.unit, v);
        let axis = axis(one);
        let positions: Vec<f64> = points.iter().map(|point| axis.position(point.value)).collect();
        let of = |pick: fn(f64, f64) -> f64| points.iter().map(|point| point.value).reduce(pick);
        vec![
            Cell::text(&one.load),
            Cell::text(one.metric.name()),
            Cell::text(subject.sides[*side].name),
            show(of(f64::min)),
            show(one.middle(*side)),
            show(of(f64::max)),
            Cell { text: value::spark(&positions), sort: None },
        ]
    });
    table.drawn = true;
    table
}

/// The axis of all of its rounds.
pub(in super::super) fn axis(series: &Series) -> Axis {
    let values = series.sides.iter().flatten().map(|point| point.value);
    if series.metric.is_ratio() { Axis::log(values) } else { Axis::from_zero(values) }
}

/// Every round of every load.
fn table(subject: &Subject<'_>, series: &[Series], top: usize) -> Table {
    let mut all: Vec<(&'static str, usize, &Round, &str, &Outcome)> = Vec::new();
    for (n, side) in subject.sides.iter().enumerate() {
        for round in side.rounds() {
            all.extend(
                round.loads.iter().map(|(load, outcome)| (side.name, n, round, load.as_str(), outcome)),
            );
        }
    }
    if subject.is_interleaved() {
        all.sort_by_key(|(_, _, round, ..)| round.started_ms);
    }
    let columns = [
        ("run", Kind::Text),
        ("round", Kind::Number),
        ("at", Kind::Number),
        ("load", Kind::Text),
        ("p50", Kind::Number),
        ("p99", Kind::Number),
        ("throughput", Kind::Number),
        ("errors", Kind::Number),
        ("far from the others", Kind::Text),
    ];
    Table::of("", &columns, &all, top, |(name, side, round, load, outcome)| {
        let metric = |metric: Metric| match metric.of(round, load) {
            Some(v) => value::cell(metric, metric.unit(outcome), Some(v)),
            None => Cell::unknown("-"),
        };
        let far: Vec<&str> = series
            .iter()
            .filter(|one| one.load == *load)
            .filter(|one| one.sides[*side].iter().any(|p| p.is_outlier && p.block == round.block))
            .map(|one| one.metric.name())
            .collect();
        vec![
            Cell::text(&format!("{name}{}", if subject.is_interleaved() { arm(round.arm) } else { "" })),
            Cell::count(u64::from(round.block) + 1),
            Cell::duration(round.started_ms.saturating_mul(NS_PER_MS)),
            Cell::text(load),
            metric(Metric::P50),
            metric(Metric::P99),
            metric(Metric::Throughput),
            Cell { text: units::count(outcome.error_count()), sort: Some(outcome.error_count() as f64) },
            Cell::text(&far.join(", ")),
        ]
    })
}

const fn arm(arm: Arm) -> &'static str {
    match arm {
        Arm::A => " (A)",
        Arm::B => " (B)",
    }
}
