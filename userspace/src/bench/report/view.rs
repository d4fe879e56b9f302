//! What a report of runs says, independent of its format.
//!
//! Needs a [`Subject`] and how many rows a long table may have; yields the view that writers write.

mod details;
mod head;
mod results;
mod rounds;
mod segments;

use super::Subject;
use crate::report::view::{Level, Section, Verdict, View, clean};
use nettrace_bench::compare::{Comparison, Overall};

pub(super) use results::{comparison_columns, comparison_row, merged};
pub(super) use rounds::axis;
pub(super) use segments::in_path_order;

/// What is to be known of all numbers of a bench.
pub(super) const FOOT: &str =
    "Quantiles are those of single rounds, and of these the median is shown; latencies are kept to 0.1 %.";

/// Builds the view.
pub(super) fn build(subject: &Subject<'_>, top: usize) -> View {
    let series = super::series::all(subject);
    let mut sections: Vec<Section> = Vec::new();
    sections.extend(results::changes(subject));
    match subject.comparison {
        Some(comparison) => sections.extend([results::compared(comparison), results::forest(comparison)]),
        None => sections.push(results::levels(subject)),
    }
    sections.extend([results::percentiles(subject), segments::section(subject)]);
    sections.push(results::counts(subject, top));
    sections.extend(subject.comparison.map(details::differences));
    sections.push(rounds::section(subject, &series));
    sections.extend(rounds::every(subject, &series, top));
    sections.push(details::environment(subject, top));
    sections.extend(subject.comparison.map(details::method));
    View {
        kind: "nettrace bench",
        title: subject.newest().map(|result| clean(&result.scenario.name)).unwrap_or_default(),
        verdict: subject.comparison.map(verdict),
        facts: head::facts(subject),
        highlights: head::highlights(subject),
        sections,
        foot: FOOT,
    }
}

fn verdict(comparison: &Comparison) -> Verdict {
    Verdict { level: level(comparison.overall), text: clean(&comparison.sentence) }
}

/// Whether it is good news.
pub(super) const fn level(overall: Overall) -> Level {
    match overall {
        Overall::Better => Level::Good,
        Overall::Worse => Level::Bad,
        Overall::NoDifference => Level::Note,
        Overall::Mixed | Overall::TooNoisy => Level::Warn,
    }
}
