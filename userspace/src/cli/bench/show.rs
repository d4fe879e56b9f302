//! What is shown of results.

use super::suite::Tried;
use crate::cli::{
    Exit, Format,
    commands::{Failure, print},
};
use nettrace_bench::{
    compare::{Comparison, HEADER, Metric, cells},
    history::TrendPoint,
    result::RunResult,
};
use std::{io, path::PathBuf};

/// What a report is of.
pub(super) struct Report<'a> {
    pub(super) before: &'a RunResult,
    pub(super) after: Option<&'a RunResult>,
    pub(super) comparison: Option<&'a Comparison>,
}

pub(super) fn render(report: &Report<'_>, _format: Format) -> io::Result<String> {
    let mut out = String::new();
    if let Some(comparison) = report.comparison {
        out += &format!("{}\n\n{}\n", comparison.sentence, HEADER.join(" | "));
        for row in &comparison.rows {
            out += &format!("{}\n", cells(row).join(" | "));
        }
        for warning in comparison.warnings.iter().chain(&comparison.partial) {
            out += &format!("! {warning}\n");
        }
    } else {
        for (n, round) in report.before.rounds.iter().enumerate() {
            for (name, o) in &round.loads {
                let q = |q| o.latency.as_ref().and_then(|l| l.quantile_ns(q)).unwrap_or(0);
                out += &format!(
                    "{n} {name} {:.0}/s p50 {} p99 {} errors {:?}\n",
                    o.per_second(),
                    q(0.5),
                    q(0.99),
                    o.errors
                );
            }
        }
    }
    for segment in &report.before.segments {
        let q = |arm: usize, q| segment.latency[arm].quantile_ns(q).unwrap_or(0);
        out += &format!(
            "{}: p50 {} {} p99 {} {}\n",
            segment.signal,
            q(0, 0.5),
            q(1, 0.5),
            q(0, 0.99),
            q(1, 0.99)
        );
    }
    Ok(out)
}

pub(super) fn write(_report: &Report<'_>, _to: &[PathBuf]) -> Result<(), Failure> {
    Ok(())
}

pub(super) fn print_text(report: &Report<'_>) -> Result<Exit, Failure> {
    let text = render(report, Format::Text).map_err(anyhow::Error::from)?;
    print(|out| out.write_all(text.as_bytes()))
}

pub(super) fn suite(tried: &[Tried], _to: &[PathBuf]) -> Result<Exit, Failure> {
    print(|out| {
        tried.iter().try_for_each(|t| match &t.outcome {
            Ok(c) => writeln!(out, "{}: {}", t.scenario.name, c.sentence),
            Err(why) => writeln!(out, "{}: {why}", t.scenario.name),
        })
    })
}

pub(super) fn trend(
    name: &str,
    load: &str,
    metric: Metric,
    points: &[TrendPoint],
    _to: &[PathBuf],
) -> Result<Exit, Failure> {
    print(|out| {
        points
            .iter()
            .try_for_each(|p| writeln!(out, "{name} {load}.{} {} {:?}", metric.name(), p.number, p.level))
    })
}
