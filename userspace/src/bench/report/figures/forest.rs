//! Effects below each other, with their intervals and the line of no effect.

use super::super::{axis::Ratios, value};
use crate::report::plot::{Tick, percent};
use nettrace_bench::{
    compare::{Comparison, Row},
    stats::Verdict,
};
use serde::Serialize;

/// The figure; positions in percent.
#[derive(Debug, Serialize)]
pub(in super::super) struct Forest {
    ticks: Vec<Tick>,
    /// Where nothing differs.
    one: String,
    /// Where effects begin to matter: its left end, and how wide it is.
    band: [String; 2],
    /// The least effect that matters.
    effect: String,
    effects: Vec<Mark>,
}

/// What is drawn.
pub(in super::super) struct Effect<'a> {
    /// What it is of.
    pub(in super::super) name: String,
    pub(in super::super) row: &'a Row,
}

#[derive(Debug, Serialize)]
struct Mark {
    name: String,
    class: &'static str,
    at: String,
    /// Of the interval; none where there are too few rounds.
    ends: Option<[String; 2]>,
    ratio: String,
    interval: String,
    verdict: &'static str,
}

impl Forest {
    /// Of all ratios of a comparison.
    pub(in super::super) fn of<'a>(comparison: &'a Comparison) -> Self {
        let named = |row: &'a Row| Effect { name: value::title(&row.load, row.metric), row };
        Self::over(comparison.rows.iter().map(named).collect(), comparison.effect)
    }

    /// Of those that are ratios.
    pub(in super::super) fn over(effects: Vec<Effect<'_>>, effect: f64) -> Self {
        let effects: Vec<_> = effects.into_iter().filter(|one| one.row.metric.is_ratio()).collect();
        let ends = effects.iter().flat_map(|one| {
            let bounds = one.row.bounds;
            [Some(one.row.effect), bounds.map(|b| b.low), bounds.map(|b| b.high)]
        });
        let axis = Ratios::over(ends.flatten(), effect);
        let at = |ratio| percent(axis.position(ratio));
        let (less, more) = (1.0 / (1.0 + effect), 1.0 + effect);
        Self {
            ticks: axis
                .marks()
                .into_iter()
                .map(|ratio| Tick { at: at(ratio), label: format!("{ratio}x") })
                .collect(),
            one: at(1.0),
            band: [at(less), percent(axis.position(more) - axis.position(less))],
            effect: value::share(effect),
            effects: effects.iter().map(|one| mark(one, axis)).collect(),
        }
    }
}

fn mark(one: &Effect<'_>, axis: Ratios) -> Mark {
    let Row { metric, effect, bounds, verdict, .. } = *one.row;
    Mark {
        name: one.name.clone(),
        class: match verdict {
            Verdict::Better => "good",
            Verdict::Worse => "bad",
            Verdict::NoDifference => "note",
            Verdict::TooNoisy => "noisy",
        },
        at: percent(axis.position(effect)),
        ends: bounds.map(|b| [b.low, b.high].map(|ratio| percent(axis.position(ratio)))),
        ratio: value::ratio(effect),
        interval: value::interval(metric, bounds),
        verdict: verdict.name(),
    }
}
