//! How the figures of a scenario went over all runs that are kept.
//!
//! Needs the runs of a store. Yields a table with a line for each run, newest first, and a plot of the middles of rounds with their
//! intervals. Runs that are not comparable with the newest are shown apart, and compared with nothing.

use super::{
    axis::Axis,
    figures::{Across, Dot, Figures, Trace, Traces, across, height},
    json::{self, Document, SCHEMA_VERSION},
    rows, value, write,
};
use crate::report::{
    Format, Options, ReportError, units,
    view::{Cell, Fact, Highlight, Kind, Level, Section, Table, View, clean},
};
use nettrace_bench::{
    compare::Metric,
    history::{Listed, TrendPoint},
    stats::median,
};
use schemars::JsonSchema;
use serde::Serialize;

/// Characters of a bar.
const BAR: usize = 20;
const NS_PER_MS: u64 = 1_000_000;

/// Which figures.
#[derive(Clone, Copy, Debug)]
pub struct Which<'a> {
    /// Of this scenario.
    pub scenario: &'a str,
    /// Of this load; of all where there is none.
    pub load: Option<&'a str>,
    /// This one; all where there is none.
    pub metric: Option<Metric>,
}

/// Figures over time.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Trends {
    /// [`SCHEMA_VERSION`] of the writer.
    schema: u32,
    /// The scenario.
    scenario: String,
    /// One for each figure.
    trends: Vec<Trend>,
}

/// A figure over time.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Trend {
    /// The load.
    load: String,
    /// The metric.
    metric: Metric,
    /// Oldest first; never empty.
    points: Vec<TrendPoint>,
}

/// Writes how the figures of a scenario went.
///
/// # Errors
/// When a template fails (HTML).
pub fn history(
    listed: &Listed,
    which: &Which<'_>,
    format: Format,
    options: &Options,
) -> Result<String, ReportError> {
    let trends = Trends::of(listed, which);
    if format == Format::Json {
        return json::render(&Document::History(trends));
    }
    write(view(&trends, listed, rows(format, options)), format, options, || {
        Figures::of_traces(traces(&trends))
    })
}

impl Trends {
    fn of(listed: &Listed, which: &Which<'_>) -> Self {
        let runs = listed.runs.iter().filter(|run| run.scenario.name == which.scenario);
        let mut figures: Vec<(&str, Metric)> = runs
            .flat_map(|run| &run.levels)
            .flat_map(|(load, metrics)| metrics.keys().map(move |metric| (load.as_str(), *metric)))
            .filter(|(load, metric)| {
                which.load.is_none_or(|only| only == *load) && which.metric.is_none_or(|only| only == *metric)
            })
            .collect();
        figures.sort_unstable();
        figures.dedup();
        let trend = |(load, metric): (&str, Metric)| Trend {
            load: load.to_owned(),
            metric,
            points: listed.trend(which.scenario, load, metric),
        };
        Self {
            schema: SCHEMA_VERSION,
            scenario: which.scenario.to_owned(),
            trends: figures.into_iter().map(trend).filter(|trend| !trend.points.is_empty()).collect(),
        }
    }
}

impl Trend {
    fn show(&self, v: f64) -> String {
        value::of(self.metric, "", v)
    }

    fn axis(&self) -> Axis {
        let ends = self.points.iter().flat_map(|point| {
            let bounds = point.level.bounds;
            [Some(point.level.middle), bounds.map(|b| b.low), bounds.map(|b| b.high)]
        });
        let ends = ends.flatten();
        if self.metric.is_ratio() { Axis::log(ends) } else { Axis::from_zero(ends) }
    }

    /// The median of those before the newest that it can be compared with.
    fn usual(&self) -> Option<f64> {
        let (_, before) = self.points.split_last()?;
        let middles: Vec<f64> = before.iter().filter(|p| p.comparable).map(|p| p.level.middle).collect();
        median(&middles)
    }
}

fn view(trends: &Trends, listed: &Listed, top: usize) -> View {
    let mut section = Section::new("trends", "Trends");
    if trends.trends.is_empty() {
        section.line("No run that is kept tells such a figure.");
    } else {
        section.figures = vec!["traces.html"];
        section.line(
            "Middle of the rounds of each run, with its interval of 95 %. Runs differ in all that changed between them, and not in a setting alone. Not comparable: of another scenario, or on another machine, than the newest.",
        );
    }
    section.table(newest(&trends.trends));
    // Of many figures, the lines of all runs are for those who have room.
    let lines: usize = trends.trends.iter().map(|trend| trend.points.len()).sum();
    if trends.trends.len() == 1 || lines <= top {
        section.table(every(&trends.trends, top));
    } else if lines > 0 {
        section.line("Of one load and one metric, each run has a line.");
    }
    let runs = trends.trends.iter().map(|trend| trend.points.len()).max().unwrap_or(0);
    let damaged = listed.damaged.iter().map(|(line, why)| Highlight {
        level: Level::Warn,
        text: clean(&format!("Line {line} of the store is left out: {why}.")),
        section: "trends",
    });
    View {
        kind: "nettrace bench history",
        title: clean(&trends.scenario),
        verdict: None,
        facts: vec![Fact { name: "Runs", value: units::count(runs as u64) }],
        highlights: damaged.collect(),
        sections: vec![section],
        foot: super::view::FOOT,
    }
}

/// Each figure in one line.
fn newest(trends: &[Trend]) -> Table {
    let columns = [
        ("load", Kind::Text),
        ("metric", Kind::Text),
        ("usual", Kind::Number),
        ("newest", Kind::Number),
        ("ratio", Kind::Number),
        ("runs", Kind::Bar),
    ];
    Table::of(
        "Newest, and the median of those before that can be compared with it",
        &columns,
        trends,
        usize::MAX,
        |t| {
            let (usual, newest) = (t.usual(), t.points.last().map(|point| point.level.middle));
            let show =
                |v: Option<f64>| v.map_or_else(|| Cell::unknown("-"), |v| value::cell(t.metric, "", Some(v)));
            let ratio =
                usual.zip(newest).filter(|(usual, _)| *usual > 0.0).map(|(usual, newest)| newest / usual);
            let axis = t.axis();
            let positions: Vec<f64> =
                t.points.iter().map(|point| axis.position(point.level.middle)).collect();
            vec![
                Cell::text(&t.load),
                Cell::text(t.metric.name()),
                show(usual),
                show(newest),
                ratio.map_or_else(|| Cell::unknown("-"), |r| Cell { text: value::ratio(r), sort: Some(r) }),
                Cell { text: value::spark(&positions), sort: None },
            ]
        },
    )
}

/// Every run of every figure, newest first.
fn every(trends: &[Trend], top: usize) -> Table {
    let all: Vec<(&Trend, Axis, &TrendPoint)> =
        trends.iter().flat_map(|t| t.points.iter().rev().map(move |point| (t, t.axis(), point))).collect();
    let columns = [
        ("run", Kind::Number),
        ("when", Kind::Number),
        ("load", Kind::Text),
        ("metric", Kind::Text),
        ("middle", Kind::Number),
        ("interval", Kind::Number),
        ("", Kind::Bar),
        ("remark", Kind::Text),
    ];
    Table::of("Every run", &columns, &all, top, |(trend, axis, point)| {
        let bounds = point.level.bounds;
        let interval = bounds.map(|b| format!("{} .. {}", trend.show(b.low), trend.show(b.high)));
        vec![
            Cell::count(point.number),
            Cell { text: when(point), sort: Some(point.started_unix_ms as f64) },
            Cell::text(&trend.load),
            Cell::text(trend.metric.name()),
            value::cell(trend.metric, "", Some(point.level.middle)),
            Cell::unknown(interval.as_deref().unwrap_or("too few rounds")),
            Cell { text: bar(point, *axis), sort: None },
            Cell::text(&remark(point)),
        ]
    })
}

fn bar(point: &TrendPoint, axis: Axis) -> String {
    let cell = |v: f64| (axis.position(v) * (BAR - 1) as f64).round() as usize;
    let mut bar = vec![' '; BAR];
    if let Some(bounds) = point.level.bounds {
        bar[cell(bounds.low)..=cell(bounds.high).max(cell(bounds.low))].fill('─');
    }
    bar[cell(point.level.middle)] = if point.comparable { '●' } else { '○' };
    bar.into_iter().collect::<String>().trim_end().to_owned()
}

fn when(point: &TrendPoint) -> String {
    let utc = units::utc(point.started_unix_ms.saturating_mul(NS_PER_MS));
    // Seconds tell no runs apart that their numbers do not.
    utc.rsplit_once(':').map_or_else(|| utc.clone(), |(minute, _)| minute.to_owned())
}

fn remark(point: &TrendPoint) -> String {
    let remarks = [(!point.comparable).then_some("not comparable"), (!point.whole).then_some("not whole")];
    remarks.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn traces(trends: &Trends) -> Traces {
    let all = trends.trends.iter();
    let mut legend = vec![("after", "middle of the rounds of a run, with its interval of 95 %")];
    if all.clone().flat_map(|t| &t.points).any(|point| !point.comparable) {
        legend.push(("other", "other scenario or machine than the newest"));
    }
    Traces {
        caption: "Each run, oldest first; the line is the median of those before the newest that can be compared with it.",
        legend,
        all: all.map(trace).collect(),
    }
}

fn trace(trend: &Trend) -> Trace {
    let axis = trend.axis();
    let [low, high] = axis.ends().map(|v| trend.show(v));
    let dot = |(n, point): (usize, &TrendPoint)| Dot {
        x: across(n, trend.points.len()),
        y: height(axis, point.level.middle),
        ends: point.level.bounds.map(|b| [b.low, b.high].map(|v| height(axis, v))),
        class: if point.comparable { "after" } else { "other" },
        is_outlier: false,
        says: format!("run {}, {}: {}", point.number, when(point), trend.show(point.level.middle)),
    };
    let end = |point: Option<&TrendPoint>| point.map(when).unwrap_or_default();
    Trace {
        title: value::title(&trend.load, trend.metric),
        ends: [high, low],
        below: [end(trend.points.first()), end(trend.points.last())],
        dots: trend.points.iter().enumerate().map(dot).collect(),
        levels: trend.usual().map(|v| Across { y: height(axis, v), class: "after" }).into_iter().collect(),
    }
}
