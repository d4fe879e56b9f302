//! Many comparisons at once: of twenty true nothings at 5 %, one looks like something.
//!
//! Needs the probabilities of all comparisons, or how many they are. Yields probabilities that hold for all together (Holm
//! 1979), and the confidence of single bounds at which all intervals hold together (Bonferroni): Holm's test has no intervals
//! of its own that tell more than the sign (Strassburger and Bretz 2008).

/// Probabilities corrected by Holm's step-down procedure, in the order in which they came: one below alpha is shown, and the
/// probability that any that is shown is wrong is below alpha, however they depend on each other.
#[must_use]
pub fn holm(probabilities: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
    let mut corrected = vec![1.0; probabilities.len()];
    let mut largest: f64 = 0.0;
    for (rank, index) in order.into_iter().enumerate() {
        let left = (probabilities.len() - rank) as f64;
        largest = largest.max(left * probabilities[index]).min(1.0);
        corrected[index] = largest;
    }
    corrected
}

/// Confidence of each of the two bounds of each of `comparisons` intervals, so that all hold together at `confidence`.
#[must_use]
pub fn confidence_of_each_bound(confidence: f64, comparisons: usize) -> f64 {
    1.0 - (1.0 - confidence) / (2 * comparisons.max(1)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrected_probabilities_are_those_of_a_worked_example() {
        // R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.005), "holm"); statsmodels.stats.multitest.multipletests says the same.
        let corrected = holm(&[0.01, 0.02, 0.03, 0.04, 0.005]);
        for (found, expected) in corrected.iter().zip([0.04, 0.06, 0.06, 0.06, 0.025]) {
            assert!((found - expected).abs() < 1e-12, "{corrected:?}");
        }
        assert_eq!(holm(&[0.9, 0.7]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
        assert!((confidence_of_each_bound(0.95, 5) - 0.995).abs() < 1e-12);
    }
}
