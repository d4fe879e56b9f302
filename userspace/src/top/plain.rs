//! Frames for scripts: tables of text, or JSON.
//!
//! Needs a [`Frame`] and findings; yields text as reports are written, or one line of JSON for each frame.

use super::{overview, sheet, state::Tab};
use crate::{
    live::Frame,
    recommend::{Finding, Verdict},
    report::{
        self, text, units,
        view::{Fact, Highlight, Section, View, clean},
    },
};

/// What a frame is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned text.
    #[default]
    Text,
    /// One frame in a line.
    Json,
}

/// A frame as text: what the views show, one below the other.
#[must_use]
pub fn text(frame: &Frame, findings: Option<&Vec<Finding>>, options: &report::Options) -> String {
    let when = format!(
        "{}, for {}",
        units::utc(frame.at_unix_ms.saturating_sub(frame.window_ms).saturating_mul(1_000_000)),
        units::duration(frame.window_ms.saturating_mul(1_000_000)),
    );
    let view = View {
        kind: "nettrace top",
        title: clean(&frame.hostname),
        verdict: None,
        facts: vec![Fact { name: "When", value: when }],
        highlights: overview::lines(frame, findings).iter().map(highlight).collect(),
        sections: sections(frame, findings),
        foot: "",
    };
    text::render(&view, options)
}

fn highlight(line: &overview::Line) -> Highlight {
    Highlight { level: line.level, text: format!("{}: {}", line.name, line.text), section: "" }
}

fn sections(frame: &Frame, findings: Option<&Vec<Finding>>) -> Vec<Section> {
    let urgent: Option<Vec<Finding>> = findings.map(|all| {
        let urgent = all.iter().filter(|f| matches!(f.verdict, Verdict::Apply | Verdict::Consider));
        urgent.cloned().collect()
    });
    let section = |tab: &Tab| {
        let mut section = Section::new("", tab.title());
        for mut sheet in sheet::of(*tab, Some(frame), urgent.as_ref()) {
            if sheet.table.rows.is_empty() {
                section.line(sheet.empty);
            }
            if sheet.table.caption == tab.title() {
                sheet.table.caption = "";
            }
            section.table(sheet.table);
        }
        section
    };
    Tab::ALL.iter().skip(1).map(section).collect()
}

/// A frame as JSON, in one line.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn json(frame: &Frame) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string(frame)? + "\n")
}
