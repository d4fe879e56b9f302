//! Renders a snapshot for people: text for a terminal, Markdown for an issue, one self-contained HTML file to hand
//! on; and JSON for programs.
//!
//! Needs nothing but the [`Snapshot`]; yields a `String`. Text, Markdown and HTML are written from one view of it
//! ([`view`]), so that each number is computed and formatted once. Whatever a snapshot says (DNS names, interface
//! names, error texts) comes from outside: control characters are spelled out in the view, and each writer escapes
//! what its format gives a meaning to.

pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod markdown;
pub(crate) mod plot;
pub(crate) mod scale;
pub(crate) mod text;
pub mod units;
pub mod view;

pub use json::{schema, schema_json};

use crate::snapshot::Snapshot;

/// What to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned text for a terminal.
    #[default]
    Text,
    /// GitHub-flavoured Markdown, for issues and pull requests.
    #[value(alias = "md")]
    Markdown,
    /// The snapshot itself, see `docs/snapshot.schema.json`.
    Json,
    /// One self-contained file with plots.
    Html,
}

/// How to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Rows per table; the rest is counted, not shown.
    pub top: usize,
    /// Whether text may use ANSI colours.
    pub color: bool,
    /// Columns of text; at least 60 are used.
    pub width: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { top: 10, color: false, width: 100 }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The HTML template failed.
    #[error("cannot write the HTML report: {0}")]
    Template(#[from] minijinja::Error),
    /// The snapshot cannot be written as JSON.
    #[error("cannot write the snapshot as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Renders a snapshot.
///
/// # Errors
/// When a histogram cannot be encoded (JSON) or the template fails (HTML).
pub fn render(snapshot: &Snapshot, format: Format, options: &Options) -> Result<String, ReportError> {
    let view = || view::build(snapshot, options.top);
    Ok(match format {
        Format::Text => text::render(&view(), options),
        Format::Markdown => markdown::render(&view()),
        Format::Json => json::render(snapshot)?,
        Format::Html => html::render(&view(), &plot::build(snapshot), &[])?,
    })
}

#[cfg(test)]
pub(crate) mod tests;
