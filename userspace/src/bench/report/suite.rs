//! What each setting of the usual advice brought: many experiments in one table.
//!
//! Needs a comparison for each setting, or why there is none. Yields a line for each figure that answers whether it helps.

use super::{
    figures::{Effect, Figures, Forest},
    json::{self, Document, SCHEMA_VERSION},
    rows, value, view as runs, write,
};
use crate::report::{
    Format, Options, ReportError,
    view::{Cell, Fact, Highlight, Kind, Level, Section, Table, View, clean},
};
use nettrace_bench::compare::{Comparison, Overall, Row};
use schemars::JsonSchema;
use serde::Serialize;

/// A setting that was tried, or was to be.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The scenario that shows what it does.
    pub scenario: &'a str,
    /// The advice, in a few words.
    pub advice: &'a str,
    /// What came of it.
    pub measured: Measured<'a>,
}

/// What came of trying a setting.
#[derive(Clone, Copy, Debug)]
pub enum Measured<'a> {
    /// Both arms were run.
    Compared {
        /// Without it, and with it.
        comparison: &'a Comparison,
        /// Figures that answer whether it helps, as `LOAD.METRIC`; where none of them was compared, the one with the largest effect
        /// is shown.
        answers: &'a [&'a str],
    },
    /// It was not, and why.
    Not(&'a str),
}

/// What settings brought.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Suite {
    /// [`SCHEMA_VERSION`] of the writer.
    schema: u32,
    /// Version of nettrace that wrote it.
    tool: String,
    /// One for each setting.
    settings: Vec<Tried>,
}

/// A setting that was tried, or was to be.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Tried {
    /// The scenario that shows what it does.
    scenario: String,
    /// The advice, in a few words.
    advice: String,
    /// Figures that answer whether it helps, as `LOAD.METRIC`.
    answers: Vec<String>,
    /// Without it, and with it; none where it was not run.
    comparison: Option<Comparison>,
    /// Why it was not run.
    because: Option<String>,
}

/// Writes what settings brought.
///
/// # Errors
/// When a template fails (HTML).
pub fn suite(settings: &[Setting<'_>], format: Format, options: &Options) -> Result<String, ReportError> {
    if format == Format::Json {
        return json::render(&Document::Suite(Suite::of(settings)));
    }
    let effects = || {
        let named = |(setting, row): (&Setting<'_>, _)| Effect { name: name(setting, row), row };
        let effect = compared(settings).map(|(_, comparison)| comparison.effect).next().unwrap_or(0.0);
        Figures::of_forest(Forest::over(answers(settings).into_iter().map(named).collect(), effect))
    };
    write(view(settings, rows(format, options)), format, options, effects)
}

fn name(setting: &Setting<'_>, row: &Row) -> String {
    clean(&format!("{}: {} {}", setting.scenario, row.load, row.metric.name()))
}

impl Suite {
    fn of(settings: &[Setting<'_>]) -> Self {
        let tried = |setting: &Setting<'_>| {
            let (comparison, answers, because) = match setting.measured {
                Measured::Compared { comparison, answers } => (Some(comparison.clone()), answers, None),
                Measured::Not(why) => (None, &[][..], Some(why.to_owned())),
            };
            Tried {
                scenario: setting.scenario.to_owned(),
                advice: setting.advice.to_owned(),
                answers: answers.iter().map(|answer| (*answer).to_owned()).collect(),
                comparison,
                because,
            }
        };
        Self {
            schema: SCHEMA_VERSION,
            tool: env!("CARGO_PKG_VERSION").to_owned(),
            settings: settings.iter().map(tried).collect(),
        }
    }
}

fn compared<'a>(settings: &'a [Setting<'a>]) -> impl Iterator<Item = (&'a Setting<'a>, &'a Comparison)> {
    settings.iter().filter_map(|setting| match setting.measured {
        Measured::Compared { comparison, .. } => Some((setting, comparison)),
        Measured::Not(_) => None,
    })
}

/// The rows that answer, of all settings.
fn answers<'a>(settings: &'a [Setting<'a>]) -> Vec<(&'a Setting<'a>, &'a Row)> {
    let of = |setting: &'a Setting<'a>| -> Vec<(&'a Setting<'a>, &'a Row)> {
        let Measured::Compared { comparison, answers } = setting.measured else { return Vec::new() };
        let is_answer =
            |row: &&Row| answers.contains(&format!("{}.{}", row.load, row.metric.name()).as_str());
        let rows: Vec<&Row> = comparison.rows.iter().filter(is_answer).collect();
        let rows = if rows.is_empty() { largest(comparison).into_iter().collect() } else { rows };
        rows.into_iter().map(|row| (setting, row)).collect()
    };
    settings.iter().flat_map(of).collect()
}

/// The row with the largest ratio.
fn largest(comparison: &Comparison) -> Option<&Row> {
    let size = |row: &&Row| if row.metric.is_ratio() { row.effect.ln().abs() } else { -1.0 };
    comparison.rows.iter().max_by(|a, b| size(a).total_cmp(&size(b)))
}

fn view(settings: &[Setting<'_>], top: usize) -> View {
    let rows = answers(settings);
    let mut effects = Section::new("results", "Settings and what they brought");
    // By scenario: one setting has several, that differ in size.
    let mut columns = vec![("scenario", Kind::Text), ("load", Kind::Text)];
    // Whoever wants to know what could have been shown finds it in the report of the scenario.
    let shown = |title: &str| title != "shows" && title != "p";
    let all = runs::comparison_columns();
    columns.extend(all.into_iter().filter(|(title, _)| shown(title)));
    effects.table(Table::of("", &columns, &rows, usize::MAX, |(setting, row)| {
        let cells = runs::comparison_row(row).into_iter().zip(all);
        let cells = cells.filter(|(_, (title, _))| shown(title)).map(|(cell, _)| cell);
        [Cell::text(setting.scenario), Cell::text(&row.load)].into_iter().chain(cells).collect()
    }));
    if rows.is_empty() {
        effects.line("No setting was measured.");
    }
    let mut sections = vec![effects];
    if rows.iter().any(|(_, row)| row.metric.is_ratio()) {
        let mut forest = Section::new("effects", "Effects");
        forest.figures = vec!["forest.html"];
        forest.line("Each scenario in one sentence, of all that was compared in it.");
        forest.table(sentences(settings));
        sections.push(forest);
    }
    sections.extend(not_measured(settings, top));
    View {
        kind: "nettrace bench suite",
        title: "What settings bring".to_owned(),
        verdict: None,
        facts: facts(settings),
        highlights: highlights(settings),
        sections,
        foot: runs::FOOT,
    }
}

fn sentences(settings: &[Setting<'_>]) -> Table {
    let all: Vec<_> = compared(settings).collect();
    let columns = [("scenario", Kind::Text), ("the usual advice", Kind::Text), ("says", Kind::Text)];
    Table::of("", &columns, &all, usize::MAX, |(setting, comparison)| {
        vec![Cell::text(setting.scenario), Cell::text(setting.advice), Cell::text(&comparison.sentence)]
    })
}

fn not_measured(settings: &[Setting<'_>], top: usize) -> Option<Section> {
    let all: Vec<(&Setting<'_>, &str)> = settings
        .iter()
        .filter_map(|setting| match setting.measured {
            Measured::Not(why) => Some((setting, why)),
            Measured::Compared { .. } => None,
        })
        .collect();
    let mut section = Section::new("missing", "Not measured");
    let columns = [("scenario", Kind::Text), ("setting", Kind::Text), ("because", Kind::Text)];
    section.table(Table::of("", &columns, &all, top, |(setting, why)| {
        vec![Cell::text(setting.scenario), Cell::text(setting.advice), Cell::text(why)]
    }));
    (!section.tables.is_empty()).then_some(section)
}

fn facts(settings: &[Setting<'_>]) -> Vec<Fact> {
    let count = |overall| compared(settings).filter(|(_, comparison)| comparison.overall == overall).count();
    let measured = compared(settings).count();
    let came_to = [
        (Overall::Better, "better"),
        (Overall::Worse, "worse"),
        (Overall::Mixed, "mixed"),
        (Overall::NoDifference, "no difference shown"),
        (Overall::TooNoisy, "too noisy"),
    ];
    let came_to = came_to.map(|(overall, name)| (count(overall), name)).into_iter().filter(|(n, _)| *n > 0);
    let came_to: Vec<String> = came_to.map(|(n, name)| format!("{n} {name}")).collect();
    let mut facts =
        vec![Fact { name: "Settings", value: format!("{measured} of {} measured", settings.len()) }];
    if !came_to.is_empty() {
        facts.push(Fact { name: "Came to", value: came_to.join(", ") });
    }
    if let Some((_, comparison)) = compared(settings).next() {
        let rounds = value::plural(comparison.rounds[0], "round", "rounds");
        facts.push(Fact {
            name: "Each",
            value: format!("{rounds} of each arm; intervals hold together within a scenario"),
        });
    }
    facts.push(Fact { name: "Written by", value: format!("nettrace {}", env!("CARGO_PKG_VERSION")) });
    facts
}

fn highlights(settings: &[Setting<'_>]) -> Vec<Highlight> {
    let not_whole = |(setting, comparison): (&Setting<'_>, &Comparison)| -> Vec<String> {
        let reasons = comparison.partial.iter().chain(&comparison.warnings);
        reasons.map(|why| clean(&format!("{}: {why}.", setting.scenario))).collect()
    };
    let all = compared(settings).flat_map(not_whole);
    all.map(|text| Highlight { level: Level::Warn, text, section: "results" }).collect()
}
