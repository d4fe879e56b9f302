//! What is said of a comparison.
//!
//! Needs an [`Estimate`] of a difference and its corrected probability. Yields a verdict, which is one of direction: its size
//! is in the interval.

use super::{Estimate, power};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a comparison shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It got better.
    Better,
    /// It got worse.
    Worse,
    /// No difference was shown, and one of the size that is asked for would have been, with the power that is asked for.
    NoDifference,
    /// No difference was shown, and one of the size that is asked for could have been missed.
    TooNoisy,
}

impl Verdict {
    /// As reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoDifference => "no difference shown",
            Self::TooNoisy => "too noisy",
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Question {
    /// Confidence of all verdicts of a comparison together.
    pub confidence: f64,
    /// The difference that matters, in the unit of the estimate.
    pub difference: f64,
    /// Probability with which it is to be found.
    pub power: f64,
    /// Whether more is better.
    pub more_is_better: bool,
}

impl Question {
    /// The answer. `corrected` is the probability of the difference where there is none, corrected for all comparisons;
    /// `each` the confidence of each bound alone.
    #[must_use]
    pub fn answer(&self, estimate: &Estimate, corrected: f64, each: f64) -> Verdict {
        if corrected <= 1.0 - self.confidence {
            let more = estimate.p_higher < estimate.p_lower;
            return if more == self.more_is_better { Verdict::Better } else { Verdict::Worse };
        }
        match power::detectable(estimate, each, self.power) {
            Some(detectable) if detectable <= self.difference => Verdict::NoDifference,
            _ => Verdict::TooNoisy,
        }
    }
}
