//! What is shown of results: text on standard output, and reports in files, each by its name's ending.

use super::suite::Tried;
use crate::{
    bench::report::{self, Measured, Setting, Subject, Which},
    cli::{
        Exit, Format,
        commands::{Failure, colorful, print},
    },
    report::{Options, ReportError},
};
use anyhow::{Context as _, anyhow};
use nettrace_bench::history::Listed;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Something of which there are reports.
pub(super) enum Report<'a> {
    /// Runs, and what they prove of each other.
    Runs(Subject<'a>),
    /// What settings brought.
    Suite(Vec<Setting<'a>>),
    /// How figures went.
    History(&'a Listed, Which<'a>),
}

impl Report<'_> {
    fn render(&self, format: Format, color: bool) -> Result<String, ReportError> {
        let options = Options { color, ..Options::default() };
        match self {
            Self::Runs(subject) => report::render(subject, format, &options),
            Self::Suite(settings) => report::suite(settings, format, &options),
            Self::History(listed, which) => report::history(listed, which, format, &options),
        }
    }
}

/// Of scenarios that were tried.
pub(super) fn settings(tried: &[Tried]) -> Vec<Setting<'_>> {
    tried.iter().map(setting).collect()
}

fn setting(tried: &Tried) -> Setting<'_> {
    let measured = match &tried.outcome {
        Ok(comparison) => Measured::Compared { comparison, answers: tried.scenario.answers },
        Err(why) => Measured::Not(why),
    };
    Setting { scenario: tried.scenario.name, advice: tried.scenario.advice, measured }
}

/// Before anything is measured: a report that cannot be written is better known then.
pub(super) fn check(files: &[PathBuf]) -> Result<(), Failure> {
    files.iter().try_for_each(|path| format_of(path).map(drop))
}

/// Writes each file; where there is none, text to standard output.
pub(super) fn tell(report: &Report<'_>, files: &[PathBuf]) -> Result<Exit, Failure> {
    write(report, files)?;
    if files.is_empty() { show(report, Format::Text) } else { Ok(Exit::Ok) }
}

/// Writes each file.
pub(super) fn write(report: &Report<'_>, files: &[PathBuf]) -> Result<(), Failure> {
    for path in files {
        let text = report.render(format_of(path)?, false).context("cannot write the report")?;
        fs::write(path, text).with_context(|| format!("cannot write report {}", path.display()))?;
    }
    Ok(())
}

/// Writes to standard output.
pub(super) fn show(report: &Report<'_>, format: Format) -> Result<Exit, Failure> {
    let text = report.render(format, colorful()).context("cannot write the report")?;
    print(|out| out.write_all(text.as_bytes()))
}

fn format_of(path: &Path) -> Result<Format, Failure> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("html" | "htm") => Ok(Format::Html),
        Some("md" | "markdown") => Ok(Format::Markdown),
        Some("json") => Ok(Format::Json),
        Some("txt") => Ok(Format::Text),
        _ => Err(Failure::usage(anyhow!(
            "--report {}: its name must end in .html, .md, .json or .txt",
            path.display()
        ))),
    }
}
