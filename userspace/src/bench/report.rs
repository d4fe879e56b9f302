//! What a bench came to, for people and programs: text for a terminal, Markdown for a pull request, one self-contained HTML file to
//! hand on, JSON.
//!
//! Needs results of runs, and what was concluded of them; measures and judges nothing. Yields a `String`. As with reports of
//! snapshots ([`crate::report`], whose writers these are), all that people read is put into one view first, so that each number is
//! computed and formatted once, and whatever comes from outside is made harmless there.

mod axis;
mod figures;
mod history;
mod json;
pub mod sample;
mod series;
mod suite;
mod value;
mod view;

pub use history::{Which, history};
pub use json::{Report, SCHEMA_VERSION, schema_json};
pub use suite::{Measured, Setting, suite};

use json::Document;

use crate::report::{Format, Options, ReportError, html, markdown, text, view::View};
use nettrace_bench::{
    compare::Comparison,
    result::{Arm, Environment, Round, RunResult},
};
use serde::Serialize;

/// Templates of figures that reports of snapshots do not have.
const FIGURES: [(&str, &str); 2] = [
    ("forest.html", include_str!("report/html/forest.html")),
    ("traces.html", include_str!("report/html/traces.html")),
];

/// What is reported: one run, or two arms of an experiment, or two runs; and what they prove of each other.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// One or two.
    sides: Vec<Side<'a>>,
    comparison: Option<&'a Comparison>,
}

/// A run, or an arm of an experiment.
#[derive(Clone, Copy, Debug)]
struct Side<'a> {
    name: &'static str,
    result: &'a RunResult,
    arm: Arm,
}

impl<'a> Subject<'a> {
    /// A run of which nothing is concluded. An experiment is shown with both of its arms.
    #[must_use]
    pub fn run(result: &'a RunResult) -> Self {
        let has = |arm| result.of_arm(arm).next().is_some();
        let side = |name, arm| Side { name, result, arm };
        let sides = match (has(Arm::A), has(Arm::B)) {
            (true, true) => vec![side("before", Arm::A), side("after", Arm::B)],
            (false, true) => vec![side("run", Arm::B)],
            _ => vec![side("run", Arm::A)],
        };
        Self { sides, comparison: None }
    }

    /// An experiment, and what its arms prove of each other.
    #[must_use]
    pub fn experiment(result: &'a RunResult, comparison: &'a Comparison) -> Self {
        Self { comparison: Some(comparison), ..Self::run(result) }
    }

    /// Two runs, and what they prove of each other.
    #[must_use]
    pub fn runs(before: &'a RunResult, after: &'a RunResult, comparison: &'a Comparison) -> Self {
        let side = |name, result| Side { name, result, arm: Arm::A };
        Self { sides: vec![side("before", before), side("after", after)], comparison: Some(comparison) }
    }

    /// The newest result: of two runs that after.
    fn newest(&self) -> Option<&'a RunResult> {
        self.sides.last().map(|side| side.result)
    }

    /// Whether both are arms of one experiment.
    fn is_interleaved(&self) -> bool {
        matches!(&self.sides[..], [a, b] if a.arm != b.arm)
    }

    /// Names of all loads.
    fn loads(&self) -> Vec<&'a str> {
        let mut loads: Vec<&str> = self.sides.iter().flat_map(|side| side.result.loads()).collect();
        loads.sort_unstable();
        loads.dedup();
        loads
    }
}

impl<'a> Side<'a> {
    fn rounds(&self) -> impl Iterator<Item = &'a Round> + Clone + use<'a> {
        self.result.of_arm(self.arm)
    }

    fn environment(&self) -> &'a Environment {
        match (self.arm, &self.result.environment_b) {
            (Arm::B, Some(environment)) => environment,
            _ => &self.result.environment,
        }
    }

    /// Which of the two latencies of a segment.
    const fn index(&self) -> usize {
        match self.arm {
            Arm::A => 0,
            Arm::B => 1,
        }
    }
}

/// Writes the report of runs.
///
/// # Errors
/// When a template fails (HTML) or a value has no JSON.
pub fn render(subject: &Subject<'_>, format: Format, options: &Options) -> Result<String, ReportError> {
    if format == Format::Json {
        return json::render(&Document::Runs(Box::new(Report::of(subject))));
    }
    write(view::build(subject, rows(format, options)), format, options, || figures::of(subject))
}

/// Rows of a table: HTML has room for all.
const fn rows(format: Format, options: &Options) -> usize {
    match format {
        Format::Html => usize::MAX,
        Format::Text | Format::Markdown | Format::Json => options.top,
    }
}

/// Writes what people read.
fn write<P: Serialize>(
    mut view: View,
    format: Format,
    options: &Options,
    plots: impl FnOnce() -> P,
) -> Result<String, ReportError> {
    // There is no option for more rows.
    for more in
        view.sections.iter_mut().flat_map(|section| &mut section.tables).filter_map(|t| t.more.as_mut())
    {
        *more = more.replace("raise --top", "the HTML report has all");
    }
    Ok(match format {
        Format::Text | Format::Json => text::render(&view, options),
        Format::Markdown => markdown::render(&view),
        Format::Html => html::render(&view, &plots(), &FIGURES)?,
    })
}

#[cfg(test)]
mod tests;
