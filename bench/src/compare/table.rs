//! Rows as cells of text, for whoever draws a table.

use super::{Bounds, Metric, Row};

/// What the cells of a row are.
pub const HEADER: [&str; 9] =
    ["load", "metric", "before", "after", "effect", "interval", "p", "detectable", "verdict"];

/// The cells of a row, as [`HEADER`] names them.
#[must_use]
pub fn cells(row: &Row) -> [String; 9] {
    let side = |v: Option<f64>| v.map_or_else(|| "no answer".to_owned(), |v| value(row.metric, &row.unit, v));
    let effect = |v: f64| if row.metric.is_ratio() { format!("{v:.3}x") } else { format!("{v:+.1} a round") };
    let bounds = |b: Bounds| format!("{} .. {}", effect(b.low), effect(b.high));
    let verdict = match (row.verdict, row.rounds_needed) {
        (crate::stats::Verdict::TooNoisy, Some(rounds)) => format!("too noisy: {rounds} rounds"),
        (verdict, _) => verdict.name().to_owned(),
    };
    [
        row.load.clone(),
        row.metric.name().to_owned(),
        side(row.before),
        side(row.after),
        effect(row.effect),
        row.bounds.map_or_else(|| "too few rounds".to_owned(), bounds),
        format!("{:.4}", row.p_corrected),
        match row.detectable {
            Some(d) if row.metric.is_ratio() => share(d),
            Some(d) => format!("{d:.1} a round"),
            None => "nothing".to_owned(),
        },
        verdict,
    ]
}

/// A value with its unit, in a size to be read.
#[must_use]
pub fn value(metric: Metric, unit: &str, v: f64) -> String {
    const STEPS: [(f64, &str); 4] = [(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")];
    const RATES: [(f64, &str); 4] = [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")];
    let largest =
        |steps: [(f64, &'static str); 4]| steps.into_iter().find(|(size, _)| v >= *size).unwrap_or(steps[3]);
    match metric {
        Metric::Errors => format!("{v:.0}"),
        Metric::Throughput => {
            let (size, prefix) = largest(RATES);
            format!("{:.2} {prefix}{unit}", v / size)
        }
        Metric::P50 | Metric::P90 | Metric::P99 | Metric::P999 => {
            let (size, name) = largest(STEPS);
            format!("{:.2} {name}", v / size)
        }
    }
}

/// A share in per cent.
#[must_use]
pub fn share(share: f64) -> String {
    match share * 100.0 {
        percent if percent < 10.0 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}
