//! Numbers of a bench as reports show them.
//!
//! Needs numbers and what they are of; yields short strings with units.

use crate::report::{
    units,
    view::{Cell, clean},
};
use nettrace_bench::compare::{Bounds, Metric, Row};

/// Bits per second are named by powers of 1,000.
const RATES: [(f64, &str); 4] = [(1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s"), (0.0, "bit/s")];

/// A metric's value; `unit` is that of a [`Row`] or of [`Metric::unit`].
pub(super) fn of(metric: Metric, unit: &str, v: f64) -> String {
    match metric {
        _ if !v.is_finite() => "no answer".to_owned(),
        Metric::Errors => units::count(v.max(0.0).round() as u64),
        Metric::Throughput if unit == "bytes/s" => bits(8.0 * v),
        Metric::Throughput => format!("{}/s", number(v)),
        Metric::P50 | Metric::P90 | Metric::P99 | Metric::P999 => units::duration_f64(v),
    }
}

/// As a cell that sorts by it.
pub(super) fn cell(metric: Metric, unit: &str, v: Option<f64>) -> Cell {
    let v = v.unwrap_or(f64::INFINITY);
    Cell { text: of(metric, unit, v), sort: Some(finite(v)) }
}

/// Three digits, or all before the point; of millions and more, a power of ten.
fn number(v: f64) -> String {
    match v {
        v if v >= 1e12 => format!("{v:.2e}"),
        v if v >= 1e9 => format!("{} G", number(v / 1e9)),
        v if v >= 1e6 => format!("{} M", number(v / 1e6)),
        v if v >= 100.0 => units::count(v.round() as u64),
        v if v >= 10.0 => format!("{v:.1}"),
        0.0 => "0".to_owned(),
        v => format!("{v:.2}"),
    }
}

fn bits(v: f64) -> String {
    let (size, unit) = RATES.into_iter().find(|(size, _)| v >= *size).unwrap_or(RATES[3]);
    match v / size.max(1.0) {
        v if v >= 100.0 => format!("{v:.0} {unit}"),
        v if v >= 10.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.2} {unit}"),
    }
}

/// After by before: `1.203x`.
pub(super) fn ratio(v: f64) -> String {
    match v {
        v if !(0.001..1e4).contains(&v) => format!("{v:.0e}x"),
        v if v < 10.0 => format!("{v:.3}x"),
        v => format!("{v:.1}x"),
    }
}

/// A row's effect, or a bound of it: a ratio, or a number of errors for each round.
pub(super) fn effect(metric: Metric, v: f64) -> String {
    if metric.is_ratio() { ratio(v) } else { format!("{v:+.1}") }
}

/// An interval of effects.
pub(super) fn interval(metric: Metric, bounds: Option<Bounds>) -> String {
    let Some(Bounds { low, high }) = bounds else { return "too few rounds".to_owned() };
    let [low, high] = [low, high].map(|v| effect(metric, v));
    [low, high].map(|v| v.trim_end_matches('x').to_owned()).join("..")
}

/// A share that somebody asked for, without digits that he did not: `95 %`.
pub(super) fn share(share: f64) -> String {
    format!("{} %", (share * 1e4).round() / 100.0)
}

/// A probability.
pub(super) fn probability(p: f64) -> String {
    if p < 0.001 { "<0.001".to_owned() } else { format!("{p:.3}") }
}

/// The least effect that a row's rounds show.
pub(super) fn detectable(row: &Row) -> String {
    match row.detectable {
        Some(d) if row.metric.is_ratio() => units::percent(d),
        Some(d) => format!("{d:.1}"),
        None => "nothing".to_owned(),
    }
}

/// Characters of a line of values; of more, several share one.
const SPARK: usize = 40;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A line of so many positions (0 to 1), one character each.
pub(super) fn spark(positions: &[f64]) -> String {
    let level = |share: f64| LEVELS[((share * 8.0) as usize).min(7)];
    // Of several, the one that is farthest from the middle: outliers are not to vanish.
    let farthest = |some: &[f64]| {
        some.iter().max_by(|a, b| (**a - 0.5).abs().total_cmp(&(**b - 0.5).abs())).map(|share| level(*share))
    };
    positions.chunks(positions.len().div_ceil(SPARK).max(1)).filter_map(farthest).collect()
}

/// A count and its noun.
pub(super) fn plural(n: usize, one: &str, many: &str) -> String {
    units::plural(n as u64, one, many)
}

/// `load metric`, harmless.
pub(super) fn title(load: &str, metric: Metric) -> String {
    format!("{} {}", clean(load), metric.name())
}

/// JSON and sorting have no infinity.
pub(super) const fn finite(v: f64) -> f64 {
    v.clamp(f64::MIN, f64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_units_of_the_field() {
        let throughput = |unit, v| of(Metric::Throughput, unit, v);
        assert_eq!(throughput("bytes/s", 1.25e9), "10.0 Gbit/s");
        assert_eq!(throughput("bytes/s", 11_825_000.0), "94.6 Mbit/s");
        assert_eq!(throughput("bytes/s", 0.0), "0.00 bit/s");
        assert_eq!(throughput("requests/s", 38_912.4), "38,912/s");
        assert_eq!(throughput("requests/s", 7.126), "7.13/s");
        assert_eq!(throughput("", 12_335_778.0), "12.3 M/s");
        assert_eq!(of(Metric::P99, "ns", 41_000_000.0), "41.0 ms");
        assert_eq!(of(Metric::P99, "ns", f64::INFINITY), "no answer");
        assert_eq!(of(Metric::Errors, "errors", 12.0), "12");
        assert_eq!(of(Metric::Errors, "errors", 0.0), "0");
    }

    #[test]
    fn effects_are_ratios_or_differences() {
        assert_eq!(ratio(1.2034), "1.203x");
        assert_eq!(ratio(31.26), "31.3x");
        assert_eq!(ratio(2e17), "2e17x");
        assert_eq!(ratio(0.000_2), "2e-4x");
        let bounds = Some(Bounds { low: 0.81, high: 1.3 });
        assert_eq!(interval(Metric::P50, bounds), "0.810..1.300");
        assert_eq!(interval(Metric::Errors, Some(Bounds { low: -1.5, high: 0.0 })), "-1.5..+0.0");
        assert_eq!([0.95, 0.05, 0.999, 1.0 - 0.95].map(share), ["95 %", "5 %", "99.9 %", "5 %"]);
        assert_eq!(interval(Metric::P50, None), "too few rounds");
        assert_eq!(probability(0.000_01), "<0.001");
        assert_eq!(probability(0.034), "0.034");
    }
}
