//! `docs/metrics.md`, made from the table of metrics.

use super::{Kind, METRICS, Metric, MetricsConfig};
use std::fmt::Write as _;

const HEAD: &str = include_str!("docs.md");

/// The page.
#[must_use]
pub fn page() -> String {
    let bounds: Vec<_> = MetricsConfig::default().classic_buckets.iter().map(|b| format!("{b}")).collect();
    // A histogram is its buckets, that of +Inf, count and sum.
    let series =
        |m: &Metric| usize::from(m.rows) * if m.kind == Kind::Histogram { bounds.len() + 3 } else { 1 };
    let reserved: usize = METRICS.iter().map(series).sum();
    let mut out =
        HEAD.replace("CLASSIC_BUCKETS", &bounds.join(", ")).replace("RESERVED", &reserved.to_string());
    out += "\n## All metrics\n\n| metric | kind | labels | what it tells |\n| --- | --- | --- | --- |\n";
    for metric in METRICS {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            metric.full_name(),
            metric.kind.name(),
            labels(metric),
            metric.help.replace('|', "\\|")
        );
    }
    out
}

fn labels(metric: &Metric) -> String {
    let name = |(n, label): (usize, &&str)| {
        if n < usize::from(metric.open) { format!("`{label}` \u{b7}") } else { format!("`{label}`") }
    };
    metric.labels.iter().enumerate().map(name).collect::<Vec<_>>().join(", ")
}
