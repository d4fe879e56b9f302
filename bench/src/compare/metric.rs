//! What is compared of a load: one number from each round.

use super::Bounds;
use crate::{
    result::{Latencies, Outcome, Round},
    stats::Estimate,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Logarithms are kept within this: a round without an answer is slower than any other, and still a number.
const FARTHEST: f64 = 40.0;
/// Fewer latencies beyond a quantile do not tell it.
const BEYOND: f64 = 5.0;

/// A number of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Median latency, ns.
    P50,
    /// One latency in ten is longer, ns.
    P90,
    /// One latency in a hundred is longer, ns.
    P99,
    /// One latency in a thousand is longer, ns.
    P999,
    /// What the load counts, per second.
    Throughput,
    /// Requests that came to nothing, per round.
    Errors,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::P50, Self::P90, Self::P99, Self::P999, Self::Throughput, Self::Errors];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Throughput => "throughput",
            Self::Errors => "errors",
        }
    }

    /// The share of latencies that are not longer; none for what is no quantile.
    #[must_use]
    pub const fn quantile(self) -> Option<f64> {
        match self {
            Self::P50 => Some(0.5),
            Self::P90 => Some(0.9),
            Self::P99 => Some(0.99),
            Self::P999 => Some(0.999),
            Self::Throughput | Self::Errors => None,
        }
    }

    /// Whether more is better.
    #[must_use]
    pub const fn more_is_better(self) -> bool {
        matches!(self, Self::Throughput)
    }

    /// Whether its effect is a ratio; else it is a difference.
    #[must_use]
    pub const fn is_ratio(self) -> bool {
        !matches!(self, Self::Errors)
    }

    /// A value on the scale on which effects are differences: the logarithm of what has a ratio.
    pub(super) fn scaled(self, value: f64) -> f64 {
        if self.is_ratio() { value.ln().clamp(-FARTHEST, FARTHEST) } else { value }
    }

    /// The reverse.
    pub(super) fn unscaled(self, scaled: f64) -> f64 {
        if self.is_ratio() { scaled.exp() } else { scaled }
    }

    /// Bounds on that scale as they are shown; none where one is infinite.
    pub(super) fn bounds(self, low: f64, high: f64) -> Option<Bounds> {
        let shown = || Bounds { low: self.unscaled(low), high: self.unscaled(high) };
        (low.is_finite() && high.is_finite()).then(shown)
    }

    /// The middle of rounds with its bounds, from one value of each; `confidence` is that of each bound alone.
    pub(crate) fn level(self, values: &[f64], confidence: f64) -> Option<(f64, Option<Bounds>)> {
        let scaled: Vec<f64> = values.iter().map(|value| self.scaled(*value)).collect();
        let e = Estimate::of_pairs(&scaled, confidence)?;
        Some((self.unscaled(e.middle), self.bounds(e.low, e.high)))
    }

    /// What it is in.
    #[must_use]
    pub fn unit(self, outcome: &Outcome) -> &'static str {
        match self {
            Self::Throughput => outcome.unit.per_second(),
            Self::Errors => "errors",
            Self::P50 | Self::P90 | Self::P99 | Self::P999 => "ns",
        }
    }

    /// Its value in a round; none where the load did not run, or has no latencies. A round without any answer is infinitely
    /// slow: it counts, as the worst of all.
    #[must_use]
    pub fn of(self, round: &Round, load: &str) -> Option<f64> {
        let outcome = round.loads.get(load)?;
        match self {
            Self::Throughput => {
                Some((outcome.count as f64).max(0.5) * 1e9 / outcome.elapsed_ns.max(1) as f64)
            }
            Self::Errors => Some(outcome.error_count() as f64),
            Self::P50 | Self::P90 | Self::P99 | Self::P999 => {
                let latencies = outcome.latency.as_ref()?;
                Some(latencies.quantile_ns(self.quantile()?).map_or(f64::INFINITY, |ns| ns.max(1) as f64))
            }
        }
    }

    /// Why rounds like these do not tell it; none where they do.
    pub(crate) fn untold(self, rounds: &[&Round], load: &str) -> Option<String> {
        let outcomes = || rounds.iter().filter_map(|round| round.loads.get(load));
        let total: u64 = match self.quantile() {
            None if self == Self::Errors && outcomes().all(|o| o.error_count() == 0) => {
                return Some("there were none".to_owned());
            }
            None => return None,
            Some(_) if outcomes().all(|o| o.latency.is_none()) => {
                return Some("the load has no latencies".to_owned());
            }
            Some(_) => outcomes().filter_map(|o| o.latency.as_ref()).map(Latencies::count).sum(),
        };
        let (each, needed) =
            (total / rounds.len().max(1) as u64, (BEYOND / (1.0 - self.quantile()?)).round() as u64);
        (each < needed).then(|| format!("{each} latencies a round are fewer than the {needed} that tell it"))
    }
}
