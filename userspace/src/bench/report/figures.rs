//! Where the marks of the HTML report's figures lie.
//!
//! Needs a [`Subject`]; yields positions in percent of a plot's area, and the texts beside them, which the templates turn into SVG.

mod forest;
mod trace;

pub(super) use forest::{Effect, Forest};
pub(super) use trace::{Across, Dot, Trace, Traces, across, height};

use super::{Subject, series, view};
use crate::report::{
    plot::{Curves, Distribution, Waterfall, color},
    view::clean,
};
use nettrace_bench::result::Latencies;
use nettrace_common::Signal;
use serde::Serialize;

/// Colours that loads are told apart by: far from each other in the page's row of colours.
const COLORS: [usize; 8] = [1, 4, 8, 11, 7, 2, 6, 13];

/// All figures of a report of runs; one without marks is not drawn.
#[derive(Debug, Default, Serialize)]
pub(super) struct Figures {
    forest: Option<Forest>,
    curves: Option<Curves>,
    waterfall: Option<Waterfall>,
    traces: Traces,
}

impl Figures {
    /// Those of a suite.
    pub(super) fn of_forest(forest: Forest) -> Self {
        Self { forest: Some(forest), ..Self::default() }
    }

    /// Those of a history.
    pub(super) fn of_traces(traces: Traces) -> Self {
        Self { traces, ..Self::default() }
    }
}

/// Computes all of them.
pub(super) fn of(subject: &Subject<'_>) -> Figures {
    let (curves, segments) = (curves(subject), segments(subject));
    Figures {
        forest: subject.comparison.map(Forest::of),
        curves: (!curves.is_empty()).then(|| Curves::of(&curves, "distributions", "requests")),
        waterfall: (!segments.is_empty()).then(|| Waterfall::of(&segments)),
        traces: Traces::of_rounds(subject, &series::all(subject)),
    }
}

/// One for each load and side.
fn curves(subject: &Subject<'_>) -> Vec<Distribution<'static>> {
    let of_load = |(n, load): (usize, &str)| -> Vec<_> {
        let color = COLORS[n % COLORS.len()];
        let side = |side| (view::merged(side, load), side.name);
        let all: Vec<_> = subject.sides.iter().map(side).filter(|(l, _)| l.count() > 0).collect();
        all.into_iter()
            .map(|(l, side)| distribution(&named(subject, load, side), "", color, side, l))
            .collect()
    };
    subject.loads().into_iter().enumerate().flat_map(of_load).collect()
}

/// One for each signal and side.
fn segments(subject: &Subject<'_>) -> Vec<Distribution<'static>> {
    let of_signal = |(signal, sides): (&str, Vec<Option<&Latencies>>)| -> Vec<_> {
        let definition = Signal::from_name(signal).map_or("", Signal::definition);
        let shown = subject.sides.iter().zip(sides);
        let of_side = |(side, latencies): (&super::Side<'_>, Option<&Latencies>)| {
            let name = named(subject, signal, side.name);
            latencies.map(|l| distribution(&name, definition, color(signal), side.name, l.clone()))
        };
        shown.filter_map(of_side).collect()
    };
    view::in_path_order(subject).into_iter().flat_map(of_signal).collect()
}

/// With the side, where there are two.
fn named(subject: &Subject<'_>, what: &str, side: &str) -> String {
    if subject.sides.len() > 1 { format!("{what} {side}") } else { what.to_owned() }
}

fn distribution(
    name: &str,
    definition: &str,
    color: usize,
    side: &str,
    latencies: Latencies,
) -> Distribution<'static> {
    let at = |q| latencies.quantile_ns(q).unwrap_or(0);
    Distribution {
        name: clean(name),
        definition: if definition.is_empty() { clean(name) } else { definition.to_owned() },
        color,
        before: side == "before",
        count: latencies.count(),
        min_ns: at(0.0),
        max_ns: at(1.0),
        quantile_ns: Box::new(move |q| latencies.quantile_ns(q).unwrap_or(0)),
    }
}
