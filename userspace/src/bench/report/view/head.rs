//! What stands above the tables: when and how it was run, and what to know before a number is believed.

use super::super::{Side, Subject, value};
use crate::report::{
    units,
    view::{Fact, Highlight, Level, clean},
};
use nettrace_bench::{
    compare::{Comparison, Outlier},
    load::Mode,
    result::{Arm, RunResult},
};

/// Outlying rounds that are named at the top; the others are in the table of rounds.
const MOST_NAMED: usize = 6;
const NS_PER_MS: u64 = 1_000_000;

pub(super) fn facts(subject: &Subject<'_>) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut fact = |name, value| facts.push(Fact { name, value });
    let when = |result: &RunResult| {
        format!(
            "{}, for {}",
            units::utc(result.started_unix_ms.saturating_mul(NS_PER_MS)),
            units::duration(result.elapsed_ms.saturating_mul(NS_PER_MS))
        )
    };
    match &subject.sides[..] {
        [before, after] if !subject.is_interleaved() => {
            fact("Before", when(before.result));
            fact("After", when(after.result));
        }
        sides => sides.iter().take(1).for_each(|side| fact("When", when(side.result))),
    }
    fact("Rounds", rounds(subject));
    if let Some(comparison) = subject.comparison {
        fact("Confidence", confidence(comparison));
    }
    if let Some(result) = subject.newest() {
        let machine = &result.environment.machine;
        if let Some(kernel) = machine.get("kernel") {
            fact("Kernel", clean(kernel));
        }
        fact("Run by", format!("nettrace {}, seed {}", clean(&result.tool), result.seed));
    }
    facts
}

fn rounds(subject: &Subject<'_>) -> String {
    let counts: Vec<usize> = subject.sides.iter().map(|side| side.rounds().count()).collect();
    match counts[..] {
        [before, after] if subject.is_interleaved() => {
            format!("{before} before and {after} after, interleaved, each pair in an order by lot")
        }
        [before, after] => format!("{before} before and {after} after, one run after the other"),
        _ => units::count(counts.iter().sum::<usize>() as u64),
    }
}

/// What it means, in one line.
fn confidence(comparison: &Comparison) -> String {
    let wrong = value::share(1.0 - comparison.confidence);
    format!(
        "{}: where nothing differs, any verdict of better or worse is wrong in at most {wrong} of such comparisons",
        value::share(comparison.confidence)
    )
}

pub(super) fn highlights(subject: &Subject<'_>) -> Vec<Highlight> {
    let mut highlights = Vec::new();
    let mut say = |level, text: String, section| highlights.push(Highlight { level, text, section });
    match subject.comparison {
        Some(comparison) => {
            if comparison.forced {
                let text = "Compared although they differ in more than a change may be (--force).";
                say(Level::Bad, text.to_owned(), "differences");
            }
            comparison.partial.iter().for_each(|why| say(Level::Warn, sentence(why), "rounds"));
            comparison.warnings.iter().for_each(|why| say(Level::Warn, sentence(why), "rounds"));
            if let Some(text) = outliers(comparison) {
                say(Level::Note, text, "rounds");
            }
        }
        None => {
            let reasons = subject.sides.iter().filter_map(|side| side.result.partial.as_ref());
            for partial in reasons.take(1) {
                let planned = partial.planned_rounds;
                say(
                    Level::Warn,
                    sentence(&format!("not all of {planned} rounds: {}", partial.reason)),
                    "rounds",
                );
            }
            if subject.sides.len() > 1 {
                let text = "Nothing is concluded: both arms are shown side by side, without a verdict.";
                say(Level::Note, text.to_owned(), "results");
            }
        }
    }
    let closed = closed_loops(subject);
    if !closed.is_empty() {
        let (loads, is) =
            (closed.join(", "), if closed.len() == 1 { "is a closed loop" } else { "are closed loops" });
        let text = format!(
            "{} {is}: the next request waits for the last answer, so stalls hide from it.",
            clean(&loads)
        );
        say(Level::Note, text, "counts");
    }
    highlights
}

/// A line of a comparison as a sentence.
fn sentence(line: &str) -> String {
    let mut letters = line.chars();
    let first: String = letters.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    clean(&format!("{first}{}.", letters.as_str().trim_end_matches('.')))
}

/// Loads whose next request follows the last answer, and have latencies.
fn closed_loops<'a>(subject: &Subject<'a>) -> Vec<&'a str> {
    let is_closed = |load: &&str| {
        let mut outcomes =
            subject.sides.iter().flat_map(Side::rounds).filter_map(|round| round.loads.get(*load));
        outcomes.any(|outcome| outcome.latency.is_some() && outcome.mode == Mode::Closed)
    };
    subject.loads().into_iter().filter(is_closed).collect()
}

/// Rounds that are far from the others, by name.
fn outliers(comparison: &Comparison) -> Option<String> {
    let all: Vec<String> = comparison
        .rows
        .iter()
        .flat_map(|row| {
            row.outliers
                .iter()
                .map(move |outlier| format!("{} ({})", name(outlier), value::title(&row.load, row.metric)))
        })
        .collect();
    let more = all.len().saturating_sub(MOST_NAMED);
    let named = all.get(..MOST_NAMED).unwrap_or(&all).join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!all.is_empty()).then(|| format!("Far from the others, and counted like them: {named}{more}."))
}

/// As readers count: from 1.
fn name(outlier: &Outlier) -> String {
    let number = u64::from(outlier.block) + 1;
    match outlier.arm {
        None => format!("pair {number}"),
        Some(Arm::A) => format!("round {number} before"),
        Some(Arm::B) => format!("round {number} after"),
    }
}
