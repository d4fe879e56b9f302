//! What paired rounds prove: the signed-rank test of Wilcoxon (1945) and the interval that belongs to it.
//!
//! Needs differences of pairs, one from each round of a comparison. Yields an estimate and bounds that hold at a stated
//! confidence whatever the distribution is, as long as it is symmetric about its centre; under the order of a pair chosen by
//! lot it is, where nothing differs.

use super::{Estimate, MOST_ROUNDS, cumulated};

impl Estimate {
    /// Of differences of pairs; none where there are none, too many, or one that is no number. `confidence` is that of each
    /// bound alone.
    #[must_use]
    pub fn of_pairs(differences: &[f64], confidence: f64) -> Option<Self> {
        let n = differences.len();
        if n == 0 || n > MOST_ROUNDS || differences.iter().any(|d| !d.is_finite()) {
            return None;
        }
        // Averages above nothing are the rank sum of the positive differences (Tukey 1949).
        Some(Self::of_ordered(&walsh(differences), &cumulative(n), confidence))
    }
}

/// The fewest pairs whose bounds are finite at a confidence of each bound alone.
#[must_use]
pub fn least_rounds(confidence: f64) -> usize {
    let rarest = |n: &usize| 0.5_f64.powi(*n as i32) <= 1.0 - confidence;
    (1..MOST_ROUNDS).find(rarest).unwrap_or(MOST_ROUNDS)
}

/// Averages of all pairs of differences, each with itself too, in order (Walsh 1949).
fn walsh(differences: &[f64]) -> Vec<f64> {
    let mut averages: Vec<f64> = differences
        .iter()
        .enumerate()
        .flat_map(|(n, a)| differences[n..].iter().map(move |b| f64::midpoint(*a, *b)))
        .collect();
    averages.sort_by(f64::total_cmp);
    averages
}

/// Probabilities of a rank sum of at most 0, 1, 2 ..., of n differences: each rank is in the sum or not, by a fair coin.
fn cumulative(n: usize) -> Vec<f64> {
    let most = n * (n + 1) / 2;
    let mut ways = vec![0.0; most + 1];
    ways[0] = 1.0;
    for rank in 1..=n {
        for sum in (0..=most).rev() {
            let with = if sum >= rank { ways[sum - rank] } else { 0.0 };
            ways[sum] = f64::midpoint(ways[sum], with);
        }
    }
    cumulated(ways)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Rng;

    /// Table of the signed-rank distribution (Hollander, Wolfe and Chicken 2014, table A.4): upper tails.
    #[test]
    fn probabilities_are_those_of_the_table() {
        for (n, sum, p) in [
            (5, 15, 0.031),
            (6, 19, 0.047),
            (8, 30, 0.055),
            (10, 44, 0.053),
            (10, 50, 0.010),
            (12, 60, 0.055),
        ] {
            let most = n * (n + 1) / 2;
            let tail = cumulative(n)[most - sum];
            assert!((tail - p).abs() < 6e-4, "{n} {sum}: {tail} and not {p}");
        }
    }

    #[test]
    fn bounds_are_those_of_a_worked_example() {
        // scipy.stats.wilcoxon(d, method="exact") says p = 0.013671875 (greater) and 0.990234375 (less). For ten differences the
        // critical value of 2.5 % is 8, so that bounds are the ninth average from each end.
        let d = [1.0, 4.1, -0.8, 3.2, 5.3, 2.9, 6.1, 0.2, 4.9, -2.0];
        let e = Estimate::of_pairs(&d, 0.975).unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(e.p_higher, 0.013_671_875) && near(e.p_lower, 0.990_234_375), "{e:?}");
        assert!(near(e.middle, 2.55) && near(e.low, 0.45) && near(e.high, 4.65), "{e:?}");
    }

    #[test]
    fn a_few_rounds_prove_nothing() {
        let e = Estimate::of_pairs(&[1.0, 1.1, 0.9, 1.2], 0.95).unwrap();
        assert_eq!((e.low, e.high), (f64::NEG_INFINITY, f64::INFINITY));
        let e = Estimate::of_pairs(&[1.0, 1.1, 0.9, 1.2, 1.05], 0.95).unwrap();
        assert_eq!((e.low, e.high), (0.9, 1.2));
        assert!((e.p_higher - 1.0 / 32.0).abs() < 1e-12 && e.p_lower > 0.99);
        assert_eq!(Estimate::of_pairs(&[], 0.95), None);
        assert_eq!(Estimate::of_pairs(&[f64::NAN], 0.95), None);
    }

    /// Where nothing differs, a bound is wrong as often as was allowed, and not more often.
    #[test]
    fn bounds_hold_as_often_as_they_say() {
        const TRIALS: u32 = 4000;
        let mut rng = Rng::new(0x1234_5678_9abc_def1);
        for n in [6, 10, 16] {
            let mut wrong = [0_u32; 2];
            for _ in 0..TRIALS {
                // Heavy tails, as latencies have: a quotient of two.
                let d: Vec<f64> = (0..n).map(|_| (rng.uniform() - 0.5) / (rng.uniform() + 0.01)).collect();
                let e = Estimate::of_pairs(&d, 0.95).unwrap();
                wrong[0] += u32::from(e.low > 0.0);
                wrong[1] += u32::from(e.high < 0.0);
            }
            for count in wrong {
                let share = f64::from(count) / f64::from(TRIALS);
                assert!((0.02..0.062).contains(&share), "{n} rounds: {share}");
            }
        }
    }
}
