//! Rounds that are far from the others: named, and never left out.
//!
//! Needs one number from each round. Yields the places of those whose distance from the median is more than 3.5 times what the
//! median absolute deviation lets expect (Iglewicz and Hoaglin 1993). Rank tests and medians are not moved by them, so there is
//! no reason to drop one; whoever reads a report has one to ask what happened in it.

use super::median;

/// Standard deviations from the median beyond which a round is named.
pub const FAR: f64 = 3.5;
/// Standard deviations in a median absolute deviation, for a normal distribution.
const BY_MEDIAN: f64 = 1.4826;
/// The same for the mean absolute deviation, which stands in where more than half of all rounds are alike.
const BY_MEAN: f64 = 1.253_314;

/// Places, from 0, of values that are far from the others.
#[must_use]
pub fn far_off(values: &[f64]) -> Vec<usize> {
    let Some(middle) = median(values) else { return Vec::new() };
    let deviations: Vec<f64> = values.iter().map(|v| (v - middle).abs()).collect();
    let scale = match median(&deviations) {
        Some(mad) if mad > 0.0 => mad * BY_MEDIAN,
        _ => deviations.iter().sum::<f64>() / deviations.len() as f64 * BY_MEAN,
    };
    let far = |(n, d): (usize, &f64)| (*d > FAR * scale).then_some(n);
    deviations.iter().enumerate().filter_map(far).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_far_ones_are_named() {
        // 0.6745 * 13.1 / 2.1 = 4.2 for the one, 0.6745 * 5.2 / 2.1 = 1.7 for the next.
        let values = [1.5, 2.0, 4.1, 6.2, 3.8, 9.3, 17.2, 4.0, 2.1];
        assert_eq!(far_off(&values), [6]);
        // Most are alike, so that their median deviation is nothing.
        assert_eq!(far_off(&[1.0; 12].iter().copied().chain([9.0]).collect::<Vec<_>>()), [12]);
        assert!(far_off(&[2.0; 5]).is_empty() && far_off(&[]).is_empty());
    }
}
