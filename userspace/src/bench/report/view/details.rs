//! What it was run on, and how it was compared.

use super::super::{Subject, value};
use crate::report::view::{Cell, Depth, Kind, Section, Table};
use nettrace_bench::compare::{Comparison, Method};
use std::collections::BTreeMap;

/// In what the two differ besides their numbers.
pub(super) fn differences(comparison: &Comparison) -> Section {
    let mut section = Section::new("differences", "What differs");
    section.depth = Depth::More;
    let columns = [("what", Kind::Text), ("name", Kind::Text), ("before", Kind::Text), ("after", Kind::Text)];
    section.table(Table::of("", &columns, &comparison.differences, usize::MAX, |d| {
        vec![
            Cell::text(d.kind.name()),
            Cell::text(&d.name),
            Cell::maybe(d.before.as_deref()),
            Cell::maybe(d.after.as_deref()),
        ]
    }));
    if section.tables.is_empty() {
        section.line("Nothing in what is known of both, besides the changes.");
    }
    section
}

/// What it was run on; of two, that after.
pub(super) fn environment(subject: &Subject<'_>, top: usize) -> Section {
    let mut section = Section::new("environment", "Environment");
    section.depth = Depth::Detail;
    let Some(side) = subject.sides.last() else { return section };
    let environment = side.environment();
    let spec = spec(subject);
    if subject.sides.len() > 1 {
        section.line("After; what was otherwise before is listed above.");
    }
    for (caption, values, top) in [
        ("Machine", &environment.machine, usize::MAX),
        ("Scenario", &spec, top),
        ("Settings", &environment.settings, top),
    ] {
        let values: Vec<_> = values.iter().collect();
        let columns = [("name", Kind::Text), ("value", Kind::Text)];
        section.table(Table::of(caption, &columns, &values, top, |(name, value)| {
            vec![Cell::text(name), Cell::text(value)]
        }));
    }
    section
}

/// What the scenario is made of.
fn spec(subject: &Subject<'_>) -> BTreeMap<String, String> {
    let spec = subject.newest().map(|result| &result.scenario.spec);
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    spec.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// How to read the numbers.
pub(super) fn method(comparison: &Comparison) -> Section {
    let mut section = Section::new("method", "How it was compared");
    section.depth = Depth::Detail;
    let (test, effect) = match comparison.method {
        Method::Paired => ("signed ranks (Wilcoxon)", "the median of averages of pairs"),
        Method::Separate => ("rank sums (Mann and Whitney)", "the median of all differences"),
    };
    let [before, after] = comparison.rounds;
    let rounds = match comparison.method {
        Method::Paired => format!("{} of interleaved rounds", value::plural(before, "pair", "pairs")),
        Method::Separate => format!("{before} rounds before and {after} after, of two runs"),
    };
    let confidence = value::share(comparison.confidence);
    section.line(format!(
        "{rounds}, one number of each. Effect: after by before, {effect}, of logarithms; of errors, after less before, a round."
    ));
    section.line(format!(
        "p: exact, by {test}, corrected for {} (Holm); better and worse are said below {}. Intervals: what that test does \
         not reject, so wide that all of them hold together with {confidence}.",
        value::plural(comparison.rows.len(), "comparison", "comparisons"),
        value::share(1.0 - comparison.confidence),
    ));
    section.line(format!(
        "Shows: the least effect that rounds as noisy as these show with a power of {}. No difference shown: one of {} \
         would have been. Too noisy: it could have been missed.",
        value::share(comparison.power),
        value::share(comparison.effect)
    ));
    let checked: Vec<_> = comparison.rows.iter().filter_map(|row| Some((row, row.bootstrap?))).collect();
    let columns = [
        ("load", Kind::Text),
        ("metric", Kind::Text),
        ("interval", Kind::Number),
        ("resampled", Kind::Number),
    ];
    section.table(Table::of(
        "Beside it, intervals by resampling rounds (studentised, of a trimmed mean), each for its row alone",
        &columns,
        &checked,
        usize::MAX,
        |(row, bootstrap)| {
            vec![
                Cell::text(&row.load),
                Cell::text(row.metric.name()),
                Cell { text: value::interval(row.metric, row.bounds), sort: None },
                Cell { text: value::interval(row.metric, Some(*bootstrap)), sort: None },
            ]
        },
    ));
    let columns = [("load", Kind::Text), ("metric", Kind::Text), ("because", Kind::Text)];
    section.table(Table::of("Not compared", &columns, &comparison.untold, usize::MAX, |untold| {
        vec![Cell::text(&untold.load), Cell::text(untold.metric.name()), Cell::text(&untold.because)]
    }));
    section
}
