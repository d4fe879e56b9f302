//! What a tuning came to, as a table.

use super::{Effect, Trial};
use crate::report::{json::indented, units};
use serde::Serialize;

/// One line for each change, and below it one for each objective.
#[must_use]
pub fn text(trials: &[Trial]) -> String {
    let mut out = String::new();
    let width = trials.iter().map(|t| t.id.chars().count()).max().unwrap_or(0);
    for trial in trials {
        let stays = trial.change.map(|n| format!(" (change {n})")).unwrap_or_default();
        out += &format!("{:<9}  {:<width$}  {}{stays}\n", trial.verdict.name(), trial.id, trial.because);
        for effect in &trial.effects {
            out += &format!("           {:<width$}  {}\n", "", effect_text(effect));
        }
    }
    out
}

fn effect_text(effect: &Effect) -> String {
    let Effect { objective, without, with, ratio, low, high, confidence, rounds, lost } = effect;
    let value = |v: f64| match objective.as_str() {
        "throughput" => format!("{}/s", units::bytes(v as u64)),
        _ => units::duration_f64(v),
    };
    let lost = if *lost > 0 { format!(", and {lost} without traffic with it") } else { String::new() };
    let (Some(without), Some(with), Some(ratio)) = (without, with, ratio) else {
        return format!("{objective}: too little traffic in each round{lost}");
    };
    let bound = |b: &Option<f64>| b.map_or_else(|| "?".to_owned(), |b| format!("{b:.3}"));
    format!(
        "{objective}: {} -> {}, ratio {ratio:.3} [{}, {}] at {}, {rounds} rounds{lost}",
        value(*without),
        value(*with),
        bound(low),
        bound(high),
        units::percent(*confidence)
    )
}

/// For programs.
#[derive(Serialize)]
struct Tuning<'a> {
    trials: &'a [Trial],
}

/// The same as JSON.
///
/// # Errors
/// When it cannot be written, which no value of it makes happen.
pub fn json(trials: &[Trial]) -> serde_json::Result<String> {
    indented(&Tuning { trials })
}
