//! What paired measurements prove: the signed-rank test of Wilcoxon (1945) and the interval that belongs to it.
//!
//! Needs differences of pairs, one from each round of a comparison. Yields an estimate (Hodges and Lehmann 1963) and bounds
//! that hold at a stated confidence whatever the distribution is, as long as it is symmetric about its centre; under the
//! order of a pair chosen by lot it is, where nothing differs. Exact for the few rounds that there are: no normal
//! approximation.

/// Differences beyond this number are more than the exact distribution is made for.
pub const MOST_ROUNDS: usize = 200;

/// What differences of pairs prove.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The middle of the differences (Hodges-Lehmann).
    pub middle: f64,
    /// What it is not below, with the confidence that was asked for; infinite where there are too few rounds.
    pub low: f64,
    /// What it is not above, with the same confidence.
    pub high: f64,
    /// Probability of differences as low as these, or lower, where nothing differs.
    pub p_lower: f64,
    /// Probability of differences as high as these, or higher, where nothing differs.
    pub p_higher: f64,
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
        }
    }

    /// Of differences; none where there are none, too many, or one that is no number. `confidence` is that of each bound alone.
    #[must_use]
    pub fn of(differences: &[f64], confidence: f64) -> Option<Self> {
        let n = differences.len();
        if n == 0 || n > MOST_ROUNDS || differences.iter().any(|d| !d.is_finite()) {
            return None;
        }
        let walsh = walsh(differences);
        let below = cumulative(n);
        // The largest rank sum that is as rare as asked for: so many averages are left out at each end.
        let alpha = 1.0 - confidence;
        let left_out = below.iter().take_while(|p| **p <= alpha).count();
        let at = |from_end: bool| match left_out.checked_sub(1) {
            None if from_end => f64::INFINITY,
            None => f64::NEG_INFINITY,
            Some(k) => walsh[if from_end { walsh.len() - 1 - k } else { k }],
        };
        let middle = f64::midpoint(walsh[(walsh.len() - 1) / 2], walsh[walsh.len() / 2]);
        // Averages above nothing are the rank sum of the positive ones (Tukey); none of a tie counts half.
        let positive = walsh.iter().filter(|w| **w > 0.0).count();
        let negative = walsh.iter().filter(|w| **w < 0.0).count();
        let rare = |sum: usize| below.get(sum).copied().unwrap_or(1.0);
        let ties = walsh.len() - positive - negative;
        Some(Self {
            middle,
            low: at(false),
            high: at(true),
            p_lower: rare(positive + ties),
            p_higher: rare(negative + ties),
        })
    }
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
    let mut total = 0.0;
    ways.into_iter()
        .map(|p| {
            total += p;
            total
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let e = Estimate::of(&d, 0.975).unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(e.p_higher, 0.013_671_875) && near(e.p_lower, 0.990_234_375), "{e:?}");
        assert!(near(e.middle, 2.55) && near(e.low, 0.45) && near(e.high, 4.65), "{e:?}");
    }

    #[test]
    fn a_few_rounds_prove_nothing() {
        let e = Estimate::of(&[1.0, 1.1, 0.9, 1.2], 0.95).unwrap();
        assert_eq!((e.low, e.high), (f64::NEG_INFINITY, f64::INFINITY));
        let e = Estimate::of(&[1.0, 1.1, 0.9, 1.2, 1.05], 0.95).unwrap();
        assert_eq!((e.low, e.high), (0.9, 1.2));
        assert!((e.p_higher - 1.0 / 32.0).abs() < 1e-12 && e.p_lower > 0.99);
        assert_eq!(Estimate::of(&[], 0.95), None);
        assert_eq!(Estimate::of(&[f64::NAN], 0.95), None);
    }

    /// Where nothing differs, a bound is wrong as often as was allowed, and not more often.
    #[test]
    fn bounds_hold_as_often_as_they_say() {
        const TRIALS: u32 = 4000;
        let mut seed = 0x1234_5678_9abc_def1_u64;
        let mut uniform = || {
            // xorshift64 (Marsaglia 2003)
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 11) as f64 / (1_u64 << 53) as f64
        };
        for n in [6, 10, 16] {
            let mut wrong = [0_u32; 2];
            for _ in 0..TRIALS {
                // Heavy tails, as latencies have: a quotient of two.
                let d: Vec<f64> = (0..n).map(|_| (uniform() - 0.5) / (uniform() + 0.01)).collect();
                let e = Estimate::of(&d, 0.95).unwrap();
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
