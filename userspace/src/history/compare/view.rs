//! A comparison of two windows, for people and programs: by the writers of reports.

use super::{Compared, Row, Verdict, Window};
use crate::report::{
    Format, Options, ReportError, html, json, markdown, text, units,
    view::{self, Cell, Depth, Fact, Highlight, Kind, Level, Section, Table, View},
};

/// Writes a comparison.
///
/// # Errors
/// When the template fails (HTML) or a value has no JSON.
pub fn render(compared: &Compared, format: Format, options: &Options) -> Result<String, ReportError> {
    let view = || build(compared);
    Ok(match format {
        Format::Text => text::render(&view(), options),
        Format::Markdown => markdown::render(&view()),
        Format::Json => json::indented(compared)?,
        Format::Html => html::render(&view(), &(), &[])?,
    })
}

/// A quantile in percent: `99.9`.
pub(super) fn percent(quantile: f64) -> f64 {
    (quantile * 1e6).round() / 1e4
}

fn build(compared: &Compared) -> View {
    let shown = compared.rows.iter().any(|r| matches!(r.verdict, Verdict::Longer | Verdict::Shorter));
    let mut facts = vec![Fact { name: "Node", value: view::clean(&compared.hostname) }];
    for (name, window) in [("First", &compared.before), ("Second", &compared.after)] {
        facts.push(Fact { name, value: fact(window) });
    }
    View {
        kind: "nettrace history",
        title: view::clean(&compared.hostname),
        verdict: Some(view::Verdict {
            level: if shown { Level::Note } else { Level::Good },
            text: compared.sentence.clone(),
        }),
        facts,
        highlights: highlights(compared),
        sections: vec![latencies(compared), counts(compared), left_out(compared)],
        foot: "Two windows differ in all that happened in them, in their load too: what is shown is that they differ, not why.",
    }
}

fn fact(window: &Window) -> String {
    if window.frames == 0 {
        return format!("{}: nothing was kept", units::utc(window.asked.from_unix_ns));
    }
    let rounds = units::plural(window.rounds as u64, "round", "rounds");
    format!(
        "{} to {}, {} measured, {rounds}",
        units::utc(window.from_unix_ns),
        units::utc(window.to_unix_ns),
        units::duration(window.covered_ns)
    )
}

/// What makes it less sure than it looks.
fn highlights(compared: &Compared) -> Vec<Highlight> {
    let mut all = Vec::new();
    let mut warn = |text: String| all.push(Highlight { level: Level::Warn, text, section: "windows" });
    for (name, window) in [("first", &compared.before), ("second", &compared.after)] {
        for step in &window.steps {
            warn(format!(
                "The clock was set by {:.1} s within the {name} window, after {}.",
                step.by_ns as f64 / 1e9,
                units::utc(step.before_unix_ns)
            ));
        }
        if !window.gaps.is_empty() {
            let gaps = units::plural(window.gaps.len() as u64, "gap", "gaps");
            warn(format!("The {name} window has {gaps} of which nothing was kept."));
        }
        if window.damaged > 0 {
            let frames = units::plural(window.damaged, "frame", "frames");
            warn(format!("{frames} of the {name} window could not be read."));
        }
    }
    all
}

fn latencies(compared: &Compared) -> Section {
    let mut section = Section::new("time", "Latencies");
    section.line(format!(
        "Ratios are the second window's by the first's, from rounds; intervals and verdicts hold together at {}.",
        units::percent(compared.confidence)
    ));
    let columns = [
        ("signal", Kind::Text),
        ("quantile", Kind::Number),
        ("first", Kind::Number),
        ("second", Kind::Number),
        ("ratio", Kind::Number),
        ("interval", Kind::Number),
        ("verdict", Kind::Text),
    ];
    section.table(Table::of("", &columns, &compared.rows, usize::MAX, cells));
    if compared.rows.is_empty() {
        section.line("No signal was measured in both windows.");
    }
    section
}

fn cells(row: &Row) -> Vec<Cell> {
    let times = |v: f64| format!("{v:.2}x");
    let number = |text: String, v: f64| Cell { text, sort: Some(v) };
    let interval = match row.bounds {
        Some([low, high]) => number(format!("{} .. {}", times(low), times(high)), low),
        None => Cell::unknown("-"),
    };
    vec![
        Cell::text(row.signal),
        number(format!("p{}", percent(row.quantile)), row.quantile),
        Cell::duration(row.before_ns),
        Cell::duration(row.after_ns),
        number(times(row.ratio), row.ratio),
        interval,
        Cell::text(row.verdict.name()),
    ]
}

fn counts(compared: &Compared) -> Section {
    let mut section = Section::new("counts", "Counts");
    section.line("Per second measured, side by side; nothing is concluded of them.");
    let columns = [
        ("count", Kind::Text),
        ("first", Kind::Number),
        ("second", Kind::Number),
        ("first per s", Kind::Number),
        ("second per s", Kind::Number),
    ];
    let rate = |v: Option<f64>| match v {
        Some(v) => Cell { text: format!("{v:.2}"), sort: Some(v) },
        None => Cell::unknown("-"),
    };
    let count = |n: Option<u64>| n.map_or_else(|| Cell::unknown("-"), Cell::count);
    section.table(Table::of("", &columns, &compared.counts, usize::MAX, |row| {
        vec![
            Cell::text(row.name),
            count(row.before),
            count(row.after),
            rate(row.before_per_s),
            rate(row.after_per_s),
        ]
    }));
    section
}

fn left_out(compared: &Compared) -> Section {
    let mut section = Section::new("windows", "What is not told");
    section.depth = Depth::More;
    if compared.untold.is_empty() {
        section.line("Every signal that was measured is compared.");
    }
    for (signal, why) in &compared.untold {
        section.line(format!("{signal}: {why}."));
    }
    section
}
