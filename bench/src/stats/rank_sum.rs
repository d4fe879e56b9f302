//! What rounds of two separate runs prove: the rank-sum test of Mann and Whitney (1947) and the interval that belongs to it.
//!
//! Needs one number from each round of either run. Yields by how much the second run's are above the first's, with bounds
//! that hold at a stated confidence whatever the distribution is, as long as a change moves it and the rounds of a run are
//! independent of each other. What else changed between the runs is in the difference, too: no test can tell it apart.

use super::{Estimate, MOST_ROUNDS, cumulated};

impl Estimate {
    /// Of separate rounds; none where either side has none, too many, or one that is no number. `confidence` is that of each
    /// bound alone.
    #[must_use]
    pub fn of_separate(before: &[f64], after: &[f64], confidence: f64) -> Option<Self> {
        let fits = |n: usize| (1..=MOST_ROUNDS).contains(&n);
        if !fits(before.len()) || !fits(after.len()) || before.iter().chain(after).any(|v| !v.is_finite()) {
            return None;
        }
        // Differences above nothing are the statistic U (Mann and Whitney 1947).
        let mut shifts: Vec<f64> = after.iter().flat_map(|a| before.iter().map(move |b| a - b)).collect();
        shifts.sort_by(f64::total_cmp);
        Some(Self::of_ordered(&shifts, &cumulative(before.len(), after.len()), confidence))
    }
}

/// The fewest rounds of each of two runs whose bounds are finite at a confidence of each bound alone.
#[must_use]
pub fn least_rounds(confidence: f64) -> usize {
    let rarest = |n: &usize| 1.0 / ways_in_all(*n, *n) <= 1.0 - confidence;
    (1..MOST_ROUNDS).find(rarest).unwrap_or(MOST_ROUNDS)
}

/// In how many orders n and m rounds can lie, rounds of a run not told apart.
fn ways_in_all(n: usize, m: usize) -> f64 {
    (1..=n).map(|k| (m + k) as f64 / k as f64).product()
}

/// Probabilities of U of at most 0, 1, 2 ... for n and m rounds where nothing differs.
///
/// The numbers of orders are the coefficients of a Gaussian binomial: the product of (1 - q^(m+k)) / (1 - q^k) for k from 1 to
/// n. They are the same from either end, and those of low powers come from lower ones alone, so that half of them are made and
/// what is rare is exact.
fn cumulative(n: usize, m: usize) -> Vec<f64> {
    let most = n * m;
    let half = most / 2;
    let mut ways = vec![0.0_f64; half + 1];
    ways[0] = 1.0;
    for k in 1..=n {
        for power in (m + k..=half).rev() {
            ways[power] -= ways[power - m - k];
        }
        for power in k..=half {
            ways[power] += ways[power - k];
        }
    }
    let all = ways_in_all(n, m);
    cumulated((0..=most).map(|u| ways[u.min(most - u)].max(0.0) / all).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds before, rounds after, U, probability.
    const SCIPY: [(usize, usize, usize, f64); 10] = [
        (3, 4, 0, 0.028_571_428_571_428_57),
        (3, 4, 2, 0.114_285_714_285_714_28),
        (5, 5, 4, 0.047_619_047_619_047_616),
        (6, 9, 12, 0.043_956_043_956_043_96),
        (8, 8, 13, 0.024_941_724_941_724_94),
        (10, 12, 30, 0.025_162_144_357_190_8),
        (12, 7, 20, 0.034_174_803_524_648_724),
        (20, 20, 120, 0.015_205_628_019_382_432),
        (30, 25, 230, 0.006_869_981_489_037_374),
        (50, 40, 640, 0.001_598_284_865_483_902_2),
    ];

    /// Values of `scipy.stats.mannwhitneyu(after, before, alternative="less", method="exact").pvalue`, scipy 1.17, of sequences
    /// with that U; for 3 and 4 rounds also the table of Mann and Whitney (1947).
    #[test]
    fn probabilities_are_those_of_scipy() {
        for (n, m, u, p) in &SCIPY {
            let found = cumulative(*n, *m)[*u];
            assert!((found - p).abs() < 1e-10 + 1e-10 * p, "{n} {m} {u}: {found} and not {p}");
        }
        for (n, m) in [(1, 1), (2, 9), (30, 40), (200, 200)] {
            let all = *cumulative(n, m).last().unwrap();
            assert!((all - 1.0).abs() < 1e-9, "{n} {m}: {all}");
        }
    }

    #[test]
    fn bounds_are_those_of_a_worked_example() {
        // Hollander, Wolfe and Chicken (2014), example 4.1: water transfer at term and at 12 to 26 weeks; U of at
        // most 8 has a probability of 0.01998, so that bounds are the ninth differences from each end. scipy.stats.mannwhitneyu
        // (earlier, term, alternative="less", method="exact") says p = 0.1272.
        let term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
        let earlier = [1.15, 0.88, 0.90, 0.74, 1.21];
        let e = Estimate::of_separate(&term, &earlier, 0.98).unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(e.middle, -0.305), "{e:?}");
        assert!(near(e.low, -0.76) && near(e.high, 0.15), "{e:?}");
        assert!((e.p_lower - 0.1272).abs() < 5e-5, "{e:?}");
    }

    #[test]
    fn few_rounds_prove_nothing() {
        let e = Estimate::of_separate(&[1.0, 1.1, 0.9], &[2.0, 2.1, 1.9], 0.975).unwrap();
        assert_eq!((e.low, e.high), (f64::NEG_INFINITY, f64::INFINITY));
        assert!((e.p_higher - 0.05).abs() < 1e-12);
        assert_eq!(least_rounds(0.975), 4);
        assert_eq!(Estimate::of_separate(&[], &[1.0], 0.95), None);
        assert_eq!(Estimate::of_separate(&[1.0], &[f64::NAN], 0.95), None);
    }
}
