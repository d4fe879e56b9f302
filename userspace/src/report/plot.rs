//! Where the marks of the HTML report's plots lie: the waterfall and the percentile curves.
//!
//! Needs latencies, as [`Distribution`]s, of a [`Snapshot`] or of a bench; yields positions in percent and per mille of the plot's area, and the texts beside them. The
//! templates in `report/html/` turn them into SVG, so that colours and fonts follow the reader's theme.

use super::{
    scale::LogScale,
    units,
    view::{clean, in_path_order, quantile_ns},
};
use crate::snapshot::{SignalData, Snapshot};
use nettrace_common::Signal;
use serde::Serialize;

/// Both plots of a snapshot.
#[derive(Debug, Serialize)]
pub(super) struct Plots {
    waterfall: Waterfall,
    curves: Curves,
}

/// Ranges of latencies above each other, on one axis.
#[derive(Debug, Serialize)]
pub(crate) struct Waterfall {
    /// Decades of the time axis, left to right.
    ticks: Vec<Tick>,
    rows: Vec<Row>,
    /// Whether there are rows before and after.
    is_pair: bool,
}

/// Latency by percentile.
#[derive(Debug, Serialize)]
pub(crate) struct Curves {
    /// What the curves are: `signals`.
    what: &'static str,
    /// Of what they are percentiles: `packets`.
    of: &'static str,
    /// Decades of the latency axis, from below.
    latency_ticks: Vec<Tick>,
    /// Percentiles named on the horizontal axis.
    percentile_ticks: Vec<Tick>,
    /// Where values can be read off the curves: positions and names of percentiles.
    stops: Vec<Tick>,
    /// The stop that is shown first: 99 %.
    first_stop: usize,
    lines: Vec<Curve>,
}

/// A mark on an axis.
#[derive(Debug, Serialize)]
pub(crate) struct Tick {
    /// Percent of the axis.
    pub(crate) at: String,
    pub(crate) label: String,
}

/// One range of the waterfall; positions in percent.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    definition: String,
    color: usize,
    before: bool,
    /// p50, p90, p99, p99.9 and the maximum.
    marks: Vec<Mark>,
    /// Width of the bar from p50 to p99.
    bar_width: String,
    count: String,
}

#[derive(Debug, Serialize)]
struct Mark {
    name: &'static str,
    at: String,
    value: String,
}

/// One percentile curve.
#[derive(Debug, Serialize)]
struct Curve {
    name: String,
    color: usize,
    before: bool,
    /// SVG path data in a square of 1,000.
    path: String,
    /// The latency at each stop; shorter than the stops when fewer packets than that were seen.
    values: Vec<String>,
    /// Height of the curve at each of `values`, in the square of 1,000.
    heights: Vec<String>,
}

/// Latencies that are drawn.
pub(crate) struct Distribution<'a> {
    /// What they are of.
    pub(crate) name: String,
    /// The same in a sentence.
    pub(crate) definition: String,
    /// Class number of the colour.
    pub(crate) color: usize,
    /// Whether another one of the same colour is to stand out against it.
    pub(crate) before: bool,
    /// Latencies counted; not 0.
    pub(crate) count: u64,
    /// The smallest, ns.
    pub(crate) min_ns: u64,
    /// The largest, ns.
    pub(crate) max_ns: u64,
    /// The latency below or at which a share of all lies, ns.
    pub(crate) quantile_ns: Box<dyn Fn(f64) -> u64 + 'a>,
}

/// The tail axis ends here: 1 - 10^-4.
const NINES: f64 = 4.0;
/// Points of a curve between two powers of ten of the tail.
const POINTS_PER_NINE: u32 = 24;
/// Stops between two powers of ten of the tail.
const STOPS_PER_NINE: u32 = 8;

/// Computes both plots.
pub(super) fn build(snapshot: &Snapshot) -> Plots {
    let signals: Vec<_> = in_path_order(snapshot).into_iter().map(of_signal).collect();
    Plots { waterfall: Waterfall::of(&signals), curves: Curves::of(&signals, "signals", "packets") }
}

fn of_signal(data: &SignalData) -> Distribution<'_> {
    Distribution {
        name: clean(&data.signal),
        definition: clean(&data.definition),
        color: color(&data.signal),
        before: false,
        count: data.hist.count(),
        min_ns: data.hist.min_ns(),
        max_ns: data.max_ns,
        quantile_ns: Box::new(|q| quantile_ns(data, q)),
    }
}

impl Waterfall {
    /// One row for each.
    pub(crate) fn of(all: &[Distribution<'_>]) -> Self {
        let scale = LogScale::over(all.iter().flat_map(|d| [(d.quantile_ns)(0.5), d.max_ns]));
        Self {
            ticks: scale.decades().map(|(at, label)| Tick { at: percent(at), label }).collect(),
            rows: all.iter().map(|d| row(d, scale)).collect(),
            is_pair: all.iter().any(|d| d.before),
        }
    }
}

impl Curves {
    /// One curve for each; `what` they are, `of` what they are percentiles.
    pub(crate) fn of(all: &[Distribution<'_>], what: &'static str, of: &'static str) -> Self {
        let scale = LogScale::over(all.iter().flat_map(|d| [d.min_ns, d.max_ns]));
        let stops: Vec<f64> = tail(STOPS_PER_NINE).collect();
        let named = [("0", 0.0), ("50", 0.5), ("90", 0.9), ("99", 0.99), ("99.9", 0.999), ("99.99", 0.9999)];
        let at_percentile = |q: f64, label| Tick { at: percent(tail_position(q)), label };
        Self {
            what,
            of,
            // SVG counts from the top.
            latency_ticks: scale.decades().map(|(at, label)| Tick { at: percent(1.0 - at), label }).collect(),
            percentile_ticks: named.map(|(label, q)| at_percentile(q, format!("{label} %"))).into(),
            stops: stops.iter().map(|q| at_percentile(*q, percentile(*q))).collect(),
            first_stop: 2 * STOPS_PER_NINE as usize,
            lines: all.iter().map(|d| curve(d, scale, &stops)).collect(),
        }
    }
}

fn row(data: &Distribution<'_>, scale: LogScale) -> Row {
    let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
    let quantiles = quantiles.map(|(name, q)| (name, (data.quantile_ns)(q)));
    let position = |q| scale.position((data.quantile_ns)(q));
    Row {
        name: data.name.clone(),
        definition: data.definition.clone(),
        color: data.color,
        before: data.before,
        marks: quantiles
            .into_iter()
            .chain([("max", data.max_ns)])
            .map(|(name, ns)| Mark { name, at: percent(scale.position(ns)), value: units::duration(ns) })
            .collect(),
        bar_width: percent((position(0.99) - position(0.5)).max(0.0)),
        count: units::count(data.count),
    }
}

fn curve(data: &Distribution<'_>, scale: LogScale, stops: &[f64]) -> Curve {
    // Beyond 1 - 1/n there is nothing but the maximum: the curve ends where the data does.
    let n = data.count.max(1) as f64;
    let end = (1.0 - 1.0 / n).min(tail_quantile(NINES));
    let points = tail(POINTS_PER_NINE).filter(|q| *q < end).chain([end]);
    let height = |q| 1000.0 - scale.position((data.quantile_ns)(q)) * 1000.0;
    let mut path = String::new();
    for q in points {
        let (x, y) = (tail_position(q) * 1000.0, height(q));
        path.push_str(&format!("{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" }));
    }
    let reached = || stops.iter().take_while(|q| **q <= end);
    Curve {
        name: data.name.clone(),
        color: data.color,
        before: data.before,
        path,
        values: reached().map(|q| units::duration((data.quantile_ns)(*q))).collect(),
        heights: reached().map(|q| format!("{:.1}", height(*q))).collect(),
    }
}

/// Class number of a signal's colour; unknown signals share the last.
pub(crate) fn color(signal: &str) -> usize {
    Signal::from_name(signal).map_or(Signal::COUNT, |s| s as usize)
}

/// Quantiles at equal distances on the tail axis, from 0 to its end.
fn tail(per_nine: u32) -> impl Iterator<Item = f64> {
    let steps = (NINES as u32) * per_nine;
    (0..=steps).map(move |i| tail_quantile(f64::from(i) / f64::from(per_nine)))
}

/// The quantile at so many nines: 1 is 0.9, 2 is 0.99.
fn tail_quantile(nines: f64) -> f64 {
    1.0 - 10_f64.powf(-nines)
}

/// Where a quantile lies on the tail axis, 0 to 1.
fn tail_position(q: f64) -> f64 {
    (-(1.0 - q).log10() / NINES).clamp(0.0, 1.0)
}

/// `50 %`, `99.9 %`: as many digits as tell two stops apart.
fn percentile(q: f64) -> String {
    let digits = match q {
        q if q < 0.9 => 0,
        q if q < 0.99 => 1,
        q if q < 0.999 => 2,
        _ => 3,
    };
    let text = format!("{:.digits$}", q * 100.0);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

/// A share as an SVG length.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;

    #[test]
    fn percentiles_lie_on_a_tail_axis() {
        assert_eq!(tail_position(0.0), 0.0);
        assert!((tail_position(0.9) - 0.25).abs() < 1e-9);
        assert!((tail_position(0.9999) - 1.0).abs() < 1e-9);
        assert_eq!(tail_position(1.0), 1.0);
        assert_eq!(percentile(0.0), "0 %");
        assert_eq!(percentile(0.5), "50 %");
        assert_eq!(percentile(tail_quantile(2.0)), "99 %");
        assert_eq!(percentile(tail_quantile(4.0)), "99.99 %");
    }

    #[test]
    fn curves_agree_with_their_axis() {
        let mut snapshot = sample::rich();
        snapshot.signals.retain(|s| s.signal == "rx.stack" && s.scope == "all");
        let plots = build(&snapshot);
        let ends = (plots.curves.latency_ticks.first(), plots.curves.latency_ticks.last());
        let (Some(bottom), Some(top)) = ends else { panic!("an axis has two ends") };
        assert_eq!((bottom.at.as_str(), bottom.label.as_str()), ("100.00%", "1 us"));
        assert_eq!((top.at.as_str(), top.label.as_str()), ("0.00%", "1 ms"));
        let heights = &plots.curves.lines[0].heights;
        let height = |i: usize| heights[i].parse::<f64>().expect("a number");
        assert!(height(0) > 900.0 && height(heights.len() - 1) < 100.0, "{heights:?}");
    }

    #[test]
    fn every_signal_has_a_row_and_a_curve_that_ends_with_its_data() {
        let snapshot = sample::rich();
        let plots = build(&snapshot);
        let all = snapshot.signals.iter().filter(|s| s.scope == "all").count();
        assert_eq!((plots.waterfall.rows.len(), plots.curves.lines.len()), (all, all));
        let stops = plots.curves.stops.len();
        let values = |signal: &str| {
            plots
                .curves
                .lines
                .iter()
                .find(|c| c.name == signal)
                .map(|c| c.values.len())
                .expect("is in the sample")
        };
        assert_eq!(values("rx.stack"), stops);
        assert!(values("ip.reassembly") < stops / 2);
    }
}
