//! What rounds of measuring prove.
//!
//! Needs one number from each round, never single requests: those of one round share its queue, its caches and its
//! neighbours, so they are not independent, and a thousand of them prove no more than their round does. Yields estimates with
//! bounds, probabilities corrected for how many were looked at, the smallest effect that could have been shown, and a
//! verdict. `docs/bench.md` says in its section *Statistics* which method stands where, and why.
//!
//! Latencies and rates are compared by their ratios, so differences of logarithms go in.

pub mod bootstrap;
pub mod correction;
pub mod outlier;
pub mod power;
mod rank_sum;
pub mod rng;
mod signed_rank;
#[cfg(test)]
pub(crate) mod tests;
pub mod verdict;

pub use rank_sum::least_rounds as least_separate_rounds;
pub use signed_rank::least_rounds as least_paired_rounds;
pub use verdict::Verdict;

use statrs::distribution::{ContinuousCDF as _, Normal};

/// Rounds beyond this number are more than the exact distributions are made for.
pub const MOST_ROUNDS: usize = 200;

/// What rounds prove of a difference: exact for the few rounds that there are, without any normal approximation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The middle of the differences (Hodges and Lehmann 1963).
    pub middle: f64,
    /// What it is not below, with the confidence that was asked for; infinite where there are too few rounds.
    pub low: f64,
    /// What it is not above, with the same confidence.
    pub high: f64,
    /// Probability of differences as low as these, or lower, where nothing differs.
    pub p_lower: f64,
    /// Probability of differences as high as these, or higher, where nothing differs.
    pub p_higher: f64,
    /// Standard error of the middle: half of the interval of one standard deviation, by its normal quantile (Lehmann 1963).
    /// Infinite where a single round tells nothing of the noise.
    pub standard_error: f64,
}

impl Estimate {
    /// Of the same differences with the other sign.
    #[must_use]
    pub const fn mirrored(self) -> Self {
        Self {
            middle: -self.middle,
            low: -self.high,
            high: -self.low,
            p_lower: self.p_higher,
            p_higher: self.p_lower,
            standard_error: self.standard_error,
        }
    }

    /// Probability of differences as far from nothing as these, to either side, where nothing differs.
    #[must_use]
    pub fn p_two_sided(&self) -> f64 {
        (2.0 * self.p_lower.min(self.p_higher)).min(1.0)
    }

    /// From all differences that a rank test counts, in ascending order, and the probabilities of its statistic where nothing
    /// differs: `below[k]` is that of at most k positive ones. The bounds are the differences at which the test would just not
    /// tell (Lehmann 1963, Bauer 1972).
    fn of_ordered(shifts: &[f64], below: &[f64], confidence: f64) -> Self {
        let alpha = 1.0 - confidence;
        let last = shifts.len() - 1;
        // So many statistics are as rare as asked for, and one difference less is left out at each end.
        let left_out = below.iter().take_while(|p| **p <= alpha).count();
        let bound = |from: fn(usize, usize) -> usize, none: f64| match left_out.checked_sub(1) {
            Some(inside) => shifts[from(last, inside)],
            None => none,
        };
        // Those of a tie count for both sides.
        let positive = shifts.iter().filter(|s| **s > 0.0).count();
        let negative = shifts.iter().filter(|s| **s < 0.0).count();
        let ties = shifts.len() - positive - negative;
        let rare = |statistic: usize| below.get(statistic).copied().unwrap_or(1.0);
        Self {
            middle: f64::midpoint(shifts[last / 2], shifts[shifts.len() / 2]),
            low: bound(|_, inside| inside, f64::NEG_INFINITY),
            high: bound(|last, inside| last - inside, f64::INFINITY),
            p_lower: rare(positive + ties),
            p_higher: rare(negative + ties),
            standard_error: standard_error(shifts, below),
        }
    }
}

/// Of the middle of differences, from the interval that is the nearest to one standard deviation from inside it: there the
/// distribution of few rounds is nearly normal already.
fn standard_error(shifts: &[f64], below: &[f64]) -> f64 {
    let one = 1.0 - Normal::standard().cdf(1.0);
    let rarer = below.iter().take_while(|p| **p <= one).count();
    let inside = rarer.saturating_sub(1).min(shifts.len() - 1);
    match normal_quantile(1.0 - below[inside]) {
        z if z > 0.0 => (shifts[shifts.len() - 1 - inside] - shifts[inside]).abs() / 2.0 / z,
        _ => f64::INFINITY,
    }
}

/// The quantile of the standard normal distribution, for a probability between 0 and 1.
#[must_use]
pub fn normal_quantile(probability: f64) -> f64 {
    Normal::standard().inverse_cdf(probability)
}

/// The middle of values; none of none.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let n = values.len();
    Some(f64::midpoint(*values.get(n.checked_sub(1)? / 2)?, *values.get(n / 2)?))
}

/// Sums of probabilities from the first to each.
fn cumulated(probabilities: Vec<f64>) -> Vec<f64> {
    let mut total = 0.0;
    probabilities
        .into_iter()
        .map(|p| {
            total += p;
            total
        })
        .collect()
}
