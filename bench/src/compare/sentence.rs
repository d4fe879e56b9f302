//! All rows in one sentence.

use super::{Comparison, Method, Metric, Overall, Row, table};
use crate::stats::{MOST_ROUNDS, Verdict, correction::confidence_of_each_bound, power::Rounds};

/// Says what all rows say.
pub(super) fn conclude(comparison: &mut Comparison) {
    let of = |verdict| -> Vec<&Row> { comparison.rows.iter().filter(|row| row.verdict == verdict).collect() };
    let (better, worse) = (of(Verdict::Better), of(Verdict::Worse));
    // What number of errors would have been shown is another question than what ratio.
    let ratios =
        |verdict| -> Vec<&Row> { of(verdict).into_iter().filter(|row| row.metric.is_ratio()).collect() };
    let (same, noisy) = (ratios(Verdict::NoDifference), ratios(Verdict::TooNoisy));
    let total = comparison.rows.len();
    let (overall, sentence) = match (largest(&better), largest(&worse)) {
        (Some(most), None) => (
            Overall::Better,
            format!(
                "Better: {}{}; none is shown to be worse.",
                told(most),
                others(better.len() - 1, total, "better")
            ),
        ),
        (None, Some(most)) => (
            Overall::Worse,
            format!(
                "Worse: {}{}; none is shown to be better.",
                told(most),
                others(worse.len() - 1, total, "worse")
            ),
        ),
        (Some(gain), Some(loss)) => (
            Overall::Mixed,
            format!(
                "Mixed: {} of {total} comparisons got better, most of all {}; {} got worse, most of all {}.",
                better.len(),
                told(gain),
                worse.len(),
                told(loss)
            ),
        ),
        (None, None) if comparison.rows.iter().all(|row| row.bounds.is_none()) => {
            (Overall::TooNoisy, too_few(comparison))
        }
        (None, None) if noisy.len() > same.len() || same.is_empty() => {
            (Overall::TooNoisy, too_noisy(&noisy, total, comparison.effect))
        }
        (None, None) => (Overall::NoDifference, no_difference(&same, &noisy, total, comparison.effect)),
    };
    comparison.overall = overall;
    comparison.sentence = sentence;
}

/// The row with the largest effect: of ratios, where there are any.
fn largest<'a>(rows: &[&'a Row]) -> Option<&'a Row> {
    let size = |row: &&&Row| if row.metric.is_ratio() { row.effect.ln().abs() } else { -1.0 };
    rows.iter().max_by(|a, b| size(a).total_cmp(&size(b))).copied()
}

/// One row as part of a sentence.
fn told(row: &Row) -> String {
    let name = format!("{} {}", row.load, row.metric.name());
    if row.metric == Metric::Errors {
        let count = |v: Option<f64>| v.map_or("unknown".to_owned(), |v| format!("{v:.0}"));
        return format!("{name} were {} and are {}", count(row.before), count(row.after));
    }
    let bounds = row.bounds.map(|b| format!(" ({:.3} to {:.3})", b.low, b.high)).unwrap_or_default();
    format!("{name} is {:.3} times what it was{bounds}", row.effect)
}

fn others(more: usize, total: usize, what: &str) -> String {
    match more {
        0 => String::new(),
        more => format!(", and {more} more of {total} comparisons got {what}"),
    }
}

/// Where no row has bounds, it is not the noise: so few rounds cannot be rare enough, however they come out.
fn too_few(comparison: &Comparison) -> String {
    let total = comparison.rows.len();
    let [before, after] = comparison.rounds;
    let rounds = match comparison.method {
        Method::Paired => Rounds::Paired(before),
        Method::Separate => Rounds::Separate(before, after),
    };
    let least = rounds.least(confidence_of_each_bound(comparison.confidence, total));
    format!(
        "Too few rounds: of {total} comparisons together, {before} and {after} rounds cannot show anything; {least} of each arm are \
         the least."
    )
}

fn too_noisy(noisy: &[&Row], total: usize, effect: f64) -> String {
    // As many rounds as let all tell; no number where one of them needs more than can be judged.
    let needed = noisy.iter().map(|row| row.rounds_needed).collect::<Option<Vec<_>>>();
    let needed = match needed.and_then(|n| n.into_iter().max()) {
        Some(rounds) => format!("{rounds} rounds of each arm would"),
        None => format!("more than {MOST_ROUNDS} rounds of each arm would be needed"),
    };
    let n = noisy.len();
    format!(
        "Too noisy: no difference was shown, and {n} of {total} comparisons cannot show one of {}; {needed}.",
        table::share(effect)
    )
}

fn no_difference(same: &[&Row], noisy: &[&Row], total: usize, effect: f64) -> String {
    let least = same.iter().filter_map(|row| row.detectable).fold(0.0, f64::max);
    let but = match noisy.len() {
        0 => String::new(),
        n => format!("; the other {n} are too noisy for one of {}", table::share(effect)),
    };
    format!(
        "No difference shown: {} of {total} comparisons would have shown one of {}{but}.",
        same.len(),
        table::share(least)
    )
}
