//! The two text formats. They differ in the names of families, in numbers, and in what only OpenMetrics has: units, exemplars and
//! an end mark.
//!
//! Source: <https://prometheus.io/docs/specs/om/open_metrics_spec/>,
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>. The crate prometheus-client makes exemplars of its own
//! observations only, and these buckets come ready from the kernel.

use super::{
    buckets::{Distribution, Exemplar},
    encode::Format,
    store::{Row, Value},
    table::{Kind, Metric},
};
use std::fmt::Write as _;

/// Characters of an exemplar's labels, names and values, at the most (OpenMetrics, "Exemplars").
const EXEMPLAR_CHARS: usize = 128;
/// The name of the one label that an exemplar has.
pub(super) const FLOW: &str = "flow";

pub(super) fn encode(families: &[(&'static Metric, Vec<Row<'_>>)], format: Format) -> String {
    let mut out = String::with_capacity(64 << 10);
    for (metric, rows) in families {
        head(&mut out, metric, format);
        let name = metric.full_name();
        for (values, value) in rows {
            let labels = labels(metric, values);
            match value {
                Value::Count(n) => line(&mut out, &name, "", &labels, &n.to_string()),
                Value::Nanos(ns) => line(&mut out, &name, "", &labels, &number(*ns as f64 / 1e9)),
                Value::Gauge(value) => line(&mut out, &name, "", &labels, &number(*value)),
                Value::Histogram(all) => histogram(&mut out, &name, &labels, all, format),
            }
        }
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn head(out: &mut String, metric: &Metric, format: Format) {
    let is_open = format == Format::OpenMetrics;
    let name = if is_open { metric.family() } else { metric.full_name() };
    let kind = if !is_open && metric.kind == Kind::Info { Kind::Gauge } else { metric.kind };
    let _ = writeln!(out, "# HELP {name} {}", escaped(metric.help, is_open));
    let _ = writeln!(out, "# TYPE {name} {}", kind.name());
    if is_open && !metric.unit.name().is_empty() {
        let _ = writeln!(out, "# UNIT {name} {}", metric.unit.name());
    }
}

fn histogram(out: &mut String, name: &str, labels: &str, all: &Distribution, format: Format) {
    for (bound, count, exemplar) in all.classic() {
        let separator = if labels.is_empty() { "" } else { "," };
        let le = bound_text(bound, format);
        let _ = write!(out, "{name}_bucket{{{labels}{separator}le=\"{le}\"}} {count}");
        if let Some(exemplar) = exemplar.filter(|_| format == Format::OpenMetrics) {
            let Exemplar { latency_ns, at_unix_ns, .. } = exemplar;
            let flow = escaped(&flow(exemplar), true);
            let latency_s = number(*latency_ns as f64 / 1e9);
            let at_ms = at_unix_ns / 1_000_000;
            let at_s = format!("{}.{:03}", at_ms / 1_000, at_ms % 1_000);
            let _ = write!(out, " # {{{FLOW}=\"{flow}\"}} {latency_s} {at_s}");
        }
        out.push('\n');
    }
    line(out, name, "_sum", labels, &number(all.sum_s()));
    line(out, name, "_count", labels, &all.count().to_string());
}

/// As much of a flow's text as an exemplar may have.
pub(super) fn flow(exemplar: &Exemplar) -> String {
    exemplar.flow.chars().take(EXEMPLAR_CHARS - FLOW.len()).collect()
}

fn line(out: &mut String, name: &str, suffix: &str, labels: &str, value: &str) {
    let _ = if labels.is_empty() {
        writeln!(out, "{name}{suffix} {value}")
    } else {
        writeln!(out, "{name}{suffix}{{{labels}}} {value}")
    };
}

fn labels(metric: &Metric, values: &[String]) -> String {
    let mut out = String::new();
    for (name, value) in metric.labels.iter().zip(values) {
        if !out.is_empty() {
            out.push(',');
        }
        let _ = write!(out, "{name}=\"{}\"", escaped(value, true));
    }
    out
}

/// Help texts of the classic format keep their quotes.
fn escaped(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            _ => out.push(c),
        }
    }
    out
}

/// As Go's `%g` writes it, so that a bucket has one name in all formats: `1e-06`, `0.001`.
fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{value:e}");
    match text.split_once('e').map(|(mantissa, exponent)| (mantissa, exponent.parse::<i32>())) {
        Some((mantissa, Ok(exponent))) if value != 0.0 && !(-4..21).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => value.to_string(),
    }
}

/// In OpenMetrics bounds are floating-point numbers for all to see: `1.0`.
fn bound_text(bound: f64, format: Format) -> String {
    let text = number(bound);
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    if plain && format == Format::OpenMetrics { text + ".0" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_prometheus_writes_them() {
        let cases = [
            (0.0, "0"),
            (1e-6, "1e-06"),
            (5e-5, "5e-05"),
            (0.0001, "0.0001"),
            (0.5, "0.5"),
            (1.0, "1"),
            (1_234_567.25, "1234567.25"),
            (1e21, "1e+21"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(bound_text(5.0, Format::OpenMetrics), "5.0");
        assert_eq!(bound_text(5.0, Format::Classic), "5");
        assert_eq!(bound_text(f64::INFINITY, Format::OpenMetrics), "+Inf");
    }

    #[test]
    fn nothing_in_a_text_ends_it() {
        assert_eq!(escaped("a\\b\"c\nd", true), "a\\\\b\\\"c\\nd");
        assert_eq!(escaped("say \"no\"", false), "say \"no\"");
        let long = Exemplar { flow: "\u{e9}".repeat(500), latency_ns: 1, at_unix_ns: 1 };
        assert_eq!(flow(&long).chars().count() + FLOW.len(), EXEMPLAR_CHARS);
    }
}
