//! What could have been shown: how large an effect rounds like these find, and how many rounds a given effect needs.
//!
//! Needs an [`Estimate`], whose interval holds the noise that was seen. Yields effects of a power: the probability that rounds
//! like these show an effect of that size. What power an effect had that was seen is never asked: it says nothing that the
//! probability does not (Hoenig and Heisey 2001).

use super::{Estimate, MOST_ROUNDS, least_paired_rounds, least_separate_rounds, normal_quantile};

/// The smallest difference that rounds like these show with this power; none where they can show nothing, however large.
/// `confidence` is that of each bound alone.
///
/// A difference is shown when its interval does not hold 0: when the estimate, which is off by its standard error, is further
/// from 0 than half of the interval. The error is taken from the same interval, for that of few rounds is wider than a normal
/// distribution's.
#[must_use]
pub fn detectable(estimate: &Estimate, confidence: f64, power: f64) -> Option<f64> {
    let half = (estimate.high - estimate.low) / 2.0;
    let share = 1.0 + normal_quantile(power) / normal_quantile(confidence);
    Some(half * share).filter(|d| d.is_finite())
}

/// Which rounds there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounds {
    /// So many pairs.
    Paired(usize),
    /// So many of either run.
    Separate(usize, usize),
}

impl Rounds {
    /// Each run's share, as if both had the same: the harmonic mean.
    fn each(self) -> f64 {
        match self {
            Self::Paired(pairs) => pairs as f64,
            Self::Separate(before, after) => 2.0 / (1.0 / before as f64 + 1.0 / after as f64),
        }
    }

    /// The fewest with finite bounds at a confidence of each bound alone.
    #[must_use]
    pub fn least(self, confidence: f64) -> usize {
        match self {
            Self::Paired(_) => least_paired_rounds(confidence),
            Self::Separate(..) => least_separate_rounds(confidence),
        }
    }
}

/// Pairs, or rounds of each run, that would show a difference of this size with this power, with noise as it was seen; none
/// where the noise is not known or no number of rounds that can be judged suffices. `confidence` is that of each bound alone.
#[must_use]
pub fn rounds_needed(
    estimate: &Estimate,
    rounds: Rounds,
    difference: f64,
    confidence: f64,
    power: f64,
) -> Option<usize> {
    let z = normal_quantile(confidence);
    let normal =
        rounds.each() * ((z + normal_quantile(power)) * estimate.standard_error / difference).powi(2);
    // What few rounds need beyond a normal distribution's (Guenther 1981).
    let needed = normal + z * z / if matches!(rounds, Rounds::Paired(_)) { 2.0 } else { 4.0 };
    let needed = (needed.is_finite() && needed <= MOST_ROUNDS as f64).then(|| needed.ceil() as usize)?;
    Some(needed.max(rounds.least(confidence)))
}
