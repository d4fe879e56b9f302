//! An interval by resampling, beside the exact one: the bootstrap-t of a trimmed mean.
//!
//! Needs one number from each round; rounds are what is drawn. Yields the interval of the mean of the middle three fifths (20 %
//! trimmed at each end), whose error is estimated anew in each resample from winsorised values (Yuen 1974), so that the
//! interval is studentised (Efron 1982, Hall 1988). For heavy tails and few values this is the bootstrap that comes nearest to
//! its level (Wilcox 2012, section 4.4): those of percentiles and BCa are too narrow for so few. From [`FEWEST_ROUNDS`] on it
//! is of use; with fewer, resamples without spread make it so wide that it says nothing. See the simulation in this module's
//! tests.

use super::rng::Rng;

/// With fewer rounds there is no interval by resampling.
pub const FEWEST_ROUNDS: usize = 8;
/// Resamples that are drawn.
pub const RESAMPLES: usize = 1999;
/// Share of values that is trimmed at each end.
const TRIMMED: f64 = 0.2;

/// An interval of a mean, or of a difference of means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The trimmed mean.
    pub middle: f64,
    /// Its lower bound.
    pub low: f64,
    /// Its upper bound.
    pub high: f64,
}

/// Of differences of pairs; none where there are too few, or where most resamples have no spread. `confidence` is that of both
/// bounds together.
#[must_use]
pub fn of_pairs(differences: &[f64], confidence: f64, seed: u64) -> Option<Interval> {
    resampled(&[differences], confidence, seed, |[d]| *d)
}

/// Of separate rounds: by how much those after are above those before.
#[must_use]
pub fn of_separate(before: &[f64], after: &[f64], confidence: f64, seed: u64) -> Option<Interval> {
    resampled(&[before, after], confidence, seed, |[before, after]| Trimmed {
        mean: after.mean - before.mean,
        variance: after.variance + before.variance,
    })
}

/// A trimmed mean and the variance of its error.
#[derive(Clone, Copy)]
struct Trimmed {
    mean: f64,
    variance: f64,
}

impl Trimmed {
    /// Of values, which it puts in order.
    fn of(values: &mut [f64]) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let n = values.len();
        let cut = (TRIMMED * n as f64) as usize;
        let inner = &values[cut..n - cut];
        let mean = inner.iter().sum::<f64>() / inner.len() as f64;
        let (first, last) = (inner[0], inner[inner.len() - 1]);
        // Winsorised: what was cut counts as the nearest that was not.
        let winsorised = || values.iter().map(|v| v.clamp(first, last));
        let centre = winsorised().sum::<f64>() / n as f64;
        let squares: f64 = winsorised().map(|v| (v - centre).powi(2)).sum();
        let kept = inner.len() as f64;
        Self { mean, variance: squares / (kept * (kept - 1.0)) }
    }
}

fn resampled<const RUNS: usize>(
    runs: &[&[f64]; RUNS],
    confidence: f64,
    seed: u64,
    difference: impl Fn(&[Trimmed; RUNS]) -> Trimmed,
) -> Option<Interval> {
    let usable = |run: &&[f64]| run.len() >= FEWEST_ROUNDS && run.iter().all(|v| v.is_finite());
    runs.iter().all(usable).then(|| studentised(runs, confidence, seed, difference))?
}

/// However few rounds there are, two of each run at the least.
fn studentised<const RUNS: usize>(
    runs: &[&[f64]; RUNS],
    confidence: f64,
    seed: u64,
    difference: impl Fn(&[Trimmed; RUNS]) -> Trimmed,
) -> Option<Interval> {
    let seen = difference(&runs.map(|run| Trimmed::of(&mut run.to_vec())));
    let mut rng = Rng::new(seed);
    let mut drawn: [Vec<f64>; RUNS] = runs.map(<[f64]>::to_vec);
    let mut distances: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mut each = [seen; RUNS];
            for ((run, drawn), trimmed) in runs.iter().zip(&mut drawn).zip(&mut each) {
                drawn.fill_with(|| run[rng.below(run.len())]);
                *trimmed = Trimmed::of(drawn);
            }
            let again = difference(&each);
            let off = (again.mean - seen.mean).abs();
            // A resample without spread is as far off as can be, unless it is not off at all.
            if off == 0.0 { 0.0 } else { off / again.variance.sqrt() }
        })
        .collect();
    distances.sort_unstable_by(f64::total_cmp);
    let at = (confidence * (RESAMPLES + 1) as f64).ceil() as usize;
    let half = distances.get(at.checked_sub(1)?)? * seen.variance.sqrt();
    half.is_finite().then_some(Interval { middle: seen.mean, low: seen.mean - half, high: seen.mean + half })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::tests::heavy;

    #[test]
    fn trimmed_means_are_those_of_scipy() {
        // scipy.stats.trim_mean(x, 0.2), and the standard error of scipy.stats.ttest_ind(x, y, trim=0.2, equal_var=False): the
        // difference of both means by the statistic.
        let mut x = [1.0, 4.1, -0.8, 3.2, 5.3, 2.9, 6.1, 0.2, 4.9, -2.0];
        let mut y = [2.2, 3.9, 1.7, 8.8, 2.5, 3.3, 4.4, -0.5, 3.1, 2.0, 0.9];
        let (x, y) = (Trimmed::of(&mut x), Trimmed::of(&mut y));
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(x.mean, 2.716_666_666_666_667) && near(y.mean, 2.671_428_571_428_571_5));
        assert!(near((x.variance + y.variance).sqrt(), 1.218_462_767_240_556_6));
    }

    #[test]
    fn a_seed_gives_the_same_interval_again() {
        let mut rng = Rng::new(3);
        let d: Vec<f64> = (0..15).map(|_| heavy(&mut rng)).collect();
        let interval = of_pairs(&d, 0.95, 7).unwrap();
        assert_eq!(of_pairs(&d, 0.95, 7), Some(interval));
        assert_ne!(of_pairs(&d, 0.95, 8), Some(interval));
        assert!(interval.low < interval.middle && interval.middle < interval.high, "{interval:?}");
        let moved = of_separate(&d, &d.iter().map(|v| v + 20.0).collect::<Vec<_>>(), 0.95, 7).unwrap();
        assert!((moved.middle - 20.0).abs() < 1e-9 && moved.low > 17.0 && moved.high < 23.0, "{moved:?}");
    }

    /// How often intervals of 95 % hold the truth, of rounds with heavy tails: the reason for [`FEWEST_ROUNDS`].
    #[test]
    fn coverage_holds_from_the_fewest_rounds_on() {
        const TRIALS: u32 = 300;
        let share = |n: u32| f64::from(n) / f64::from(TRIALS);
        let mut rng = Rng::new(11);
        for n in [5, FEWEST_ROUNDS, 12] {
            let (mut held, mut between, mut narrow) = (0, 0, 0);
            for trial in 0..TRIALS {
                let [d, before]: [Vec<f64>; 2] =
                    std::array::from_fn(|_| (0..n).map(|_| heavy(&mut rng)).collect());
                let holds = |i: Option<Interval>| i.is_none_or(|i| i.low <= 0.0 && i.high >= 0.0);
                held += u32::from(holds(studentised(&[&d], 0.95, trial.into(), |[d]| *d)));
                between += u32::from(holds(of_separate(&before, &d, 0.95, trial.into())));
                let mut means: Vec<f64> = (0..RESAMPLES)
                    .map(|_| Trimmed::of(&mut (0..n).map(|_| d[rng.below(n)]).collect::<Vec<_>>()).mean)
                    .collect();
                means.sort_unstable_by(f64::total_cmp);
                let [low, high] = [RESAMPLES / 40, RESAMPLES - 1 - RESAMPLES / 40].map(|n| means[n]);
                narrow += u32::from(low <= 0.0 && high >= 0.0);
            }
            println!(
                "{n:2} rounds: studentised {:.3}, of two runs {:.3}, by percentiles {:.3}",
                share(held),
                share(between),
                share(narrow)
            );
            // Three standard deviations of a binomial count below 95 %.
            assert!(n < FEWEST_ROUNDS || share(held.min(between)) > 0.912, "{n} rounds: {held} {between}");
        }
    }

    #[test]
    fn few_rounds_have_no_interval() {
        assert_eq!(of_pairs(&[1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 2.0], 0.95, 7), None);
        let alike = of_pairs(&[1.0; 9], 0.95, 7).unwrap();
        assert_eq!((alike.low, alike.high), (1.0, 1.0));
    }
}
