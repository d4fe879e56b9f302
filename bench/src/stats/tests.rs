//! Whether what is said holds as often as it says, on made-up rounds whose truth is known.

use super::{
    correction::{confidence_of_each_bound, holm},
    power::{self, Rounds, rounds_needed},
    rng::Rng,
    verdict::Question,
    *,
};

const QUESTION: Question = Question { confidence: 0.95, difference: 0.05, power: 0.8, more_is_better: false };
/// Metrics that are compared together.
const METRICS: usize = 5;

/// Normal (Box and Muller 1958).
pub(crate) fn normal(rng: &mut Rng) -> f64 {
    (-2.0 * (1.0 - rng.uniform()).ln()).sqrt() * (std::f64::consts::TAU * rng.uniform()).cos()
}

/// Heavy tails: Student's t with three degrees of freedom.
pub(crate) fn heavy(rng: &mut Rng) -> f64 {
    let squares: f64 = (0..3).map(|_| normal(rng).powi(2)).sum();
    normal(rng) / (squares / 3.0).sqrt()
}

/// Logarithms of a machine's rounds, of metrics that move together: what drifts, and noise with heavy tails.
pub(crate) struct Machine {
    rng: Rng,
    level: f64,
    noise: f64,
}

impl Machine {
    pub(crate) const fn new(seed: u64, noise: f64) -> Self {
        Self { rng: Rng::new(seed), level: 0.0, noise }
    }

    /// One round; `slower` is the effect on each metric.
    pub(crate) fn round<const N: usize>(&mut self, slower: [f64; N]) -> [f64; N] {
        // A walk and a trend: half an hour later, it is 10 % slower.
        self.level += 0.004 + 0.5 * self.noise * normal(&mut self.rng);
        let common = self.level + self.noise * heavy(&mut self.rng);
        slower.map(|effect| effect + common + self.noise * heavy(&mut self.rng))
    }

    /// Differences of pairs: A B, B A, A B ...
    fn pairs<const N: usize>(&mut self, pairs: usize, effect: [f64; N]) -> [Vec<f64>; N] {
        let mut differences = std::array::from_fn(|_| Vec::new());
        for pair in 0..pairs {
            let (a, b) = if pair % 2 == 0 {
                let a = self.round([0.0; N]);
                (a, self.round(effect))
            } else {
                let b = self.round(effect);
                (self.round([0.0; N]), b)
            };
            (0..N).for_each(|n| differences[n].push(b[n] - a[n]));
        }
        differences
    }
}

/// Verdicts and estimates of metrics together.
fn judged(differences: &[Vec<f64>]) -> Vec<(Estimate, Verdict)> {
    let each = confidence_of_each_bound(QUESTION.confidence, differences.len());
    let estimates: Vec<_> = differences.iter().map(|d| Estimate::of_pairs(d, each).unwrap()).collect();
    let corrected = holm(&estimates.iter().map(Estimate::p_two_sided).collect::<Vec<_>>());
    estimates.into_iter().zip(corrected).map(|(e, p)| (e, QUESTION.answer(&e, p, each))).collect()
}

/// The most of `trials` that a share may be without being shown to be more: three standard deviations.
fn most(share: f64, trials: u32) -> f64 {
    share + 3.0 * (share * (1.0 - share) / f64::from(trials)).sqrt()
}

const fn is_shown(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Better | Verdict::Worse)
}

/// Where nothing differs, and the machine drifts.
#[test]
fn false_verdicts_are_no_more_than_stated() {
    const TRIALS: u32 = 2000;
    for pairs in [8, 12, 20] {
        let (mut any, mut missed) = (0, 0);
        for trial in 0..TRIALS {
            let rows = judged(&Machine::new(trial.into(), 0.05).pairs(pairs, [0.0; METRICS]));
            any += u32::from(rows.iter().any(|(_, verdict)| is_shown(*verdict)));
            missed += u32::from(rows.iter().any(|(e, _)| e.low > 0.0 || e.high < 0.0));
        }
        let share = |n: u32| f64::from(n) / f64::from(TRIALS);
        println!("{pairs} pairs: a false verdict in {:.2} % of A/A", 100.0 * share(any));
        assert!(share(any) <= most(0.05, TRIALS) && share(missed) <= most(0.05, TRIALS), "{any} {missed}");
        assert!(share(any) > 0.0, "a test that never errs was not tried");
    }
}

/// +5 %, +20 %, and only the tail slowed: the right sign, and intervals that hold the truth together.
#[test]
fn effects_are_found_with_their_sign_and_size() {
    const TRIALS: u32 = 500;
    let only_tail: [f64; METRICS] = [0.0, 0.0, 0.3, 0.3, 0.0];
    for (name, effect, pairs) in [
        ("+5 %", [0.05_f64.ln_1p(); METRICS], 20),
        ("+20 %", [0.2_f64.ln_1p(); METRICS], 12),
        ("only the tail +35 %", only_tail, 12),
    ] {
        let (mut found, mut expected, mut wrong, mut held) = (0, 0, 0, 0);
        for trial in 0..TRIALS {
            let rows = judged(&Machine::new(0xeffec7 + u64::from(trial), 0.02).pairs(pairs, effect));
            let with_truth = || rows.iter().zip(effect);
            held += u32::from(with_truth().all(|((e, _), truth)| e.low <= truth && truth <= e.high));
            found += with_truth().filter(|((_, v), t)| *t > 0.0 && *v == Verdict::Worse).count();
            expected += effect.iter().filter(|t| **t > 0.0).count();
            let false_one = |(v, t): (Verdict, f64)| v == Verdict::Better || (t == 0.0 && is_shown(v));
            wrong += u32::from(with_truth().any(|((_, v), t)| false_one((*v, t))));
        }
        let power = found as f64 / expected as f64;
        let share = |n: u32| f64::from(n) / f64::from(TRIALS);
        println!(
            "{name}, {pairs} pairs: power {power:.3}, all intervals hold in {:.1} %, a wrong verdict in {:.1} %",
            100.0 * share(held),
            100.0 * share(wrong)
        );
        assert!(1.0 - share(held) <= most(0.05, TRIALS), "{name}: {held}");
        assert!(share(wrong) <= most(0.05, TRIALS), "{name}: {wrong}");
        assert!(power > 0.7, "{name}: {power}");
    }
}

/// An effect of the size that is called detectable is detected about as often as the power says.
#[test]
fn what_is_called_detectable_is_detected() {
    const TRIALS: u32 = 400;
    let each = confidence_of_each_bound(0.95, METRICS);
    let mut rng = Rng::new(77);
    let estimate = |rng: &mut Rng, n: usize, effect: f64| {
        let d: Vec<f64> = (0..n).map(|_| effect + 0.05 * normal(rng)).collect();
        Estimate::of_pairs(&d, each).unwrap()
    };
    for n in [8, 12, 20, 40] {
        let called: Vec<f64> =
            (0..TRIALS).filter_map(|_| power::detectable(&estimate(&mut rng, n, 0.0), each, 0.8)).collect();
        assert_eq!(called.len(), TRIALS as usize);
        let effect = median(&called).unwrap();
        let found = (0..TRIALS).filter(|_| estimate(&mut rng, n, effect).low > 0.0).count();
        let power = found as f64 / f64::from(TRIALS);
        println!("{n} pairs: {:.1} % is called detectable, and found in {power:.2}", 100.0 * effect);
        assert!((0.7..0.92).contains(&power), "{n}: {power}");
    }
}

/// As many rounds as are called for find the effect about as often as the power says.
#[test]
fn as_many_rounds_as_needed_are_enough() {
    const TRIALS: u32 = 400;
    let each = confidence_of_each_bound(0.95, METRICS);
    let mut rng = Rng::new(78);
    let mut pairs = |n: usize, effect: f64| {
        let d: Vec<f64> = (0..n).map(|_| effect + 0.05 * normal(&mut rng)).collect();
        Estimate::of_pairs(&d, each).unwrap()
    };
    for seen in [6, 12] {
        let calls: Vec<f64> = (0..TRIALS)
            .filter_map(|_| rounds_needed(&pairs(seen, 0.0), Rounds::Paired(seen), 0.05, each, 0.8))
            .map(|n| n as f64)
            .collect();
        let needed = median(&calls).unwrap() as usize;
        let found = (0..TRIALS).filter(|_| pairs(needed, 0.05).low > 0.0).count();
        let power = found as f64 / f64::from(TRIALS);
        println!("{seen} pairs call for {needed}, which find 5 % in {power:.2}");
        assert!((0.65..0.95).contains(&power), "{seen}: {needed} {power}");
    }
    assert_eq!(rounds_needed(&pairs(12, 0.0), Rounds::Paired(12), 1e-6, each, 0.8), None);
}

/// Two runs of a machine that stands still.
#[test]
fn separate_runs_hold_their_level_too() {
    const TRIALS: u32 = 2000;
    let mut rng = Rng::new(5);
    for (n, m) in [(6, 6), (10, 14)] {
        let mut missed = 0;
        for _ in 0..TRIALS {
            let before: Vec<f64> = (0..n).map(|_| heavy(&mut rng)).collect();
            let after: Vec<f64> = (0..m).map(|_| 0.7 + heavy(&mut rng)).collect();
            let e = Estimate::of_separate(&before, &after, 0.975).unwrap();
            missed += u32::from(e.low > 0.7 || e.high < 0.7);
        }
        let share = f64::from(missed) / f64::from(TRIALS);
        println!("{n} and {m} rounds: intervals of 95 % miss in {:.2} %", 100.0 * share);
        assert!((0.015..most(0.05, TRIALS)).contains(&share), "{n} {m}: {share}");
    }
}

#[test]
fn few_rounds_are_too_noisy_and_quiet_ones_show_no_difference() {
    let verdict = |differences: &[f64]| judged(&[differences.to_vec()])[0].1;
    assert_eq!(verdict(&[0.1, 0.11, 0.12, 0.1, 0.09]), Verdict::TooNoisy, "five pairs show nothing at 95 %");
    assert_eq!(verdict(&[0.1, 0.11, 0.12, 0.1, 0.09, 0.1]), Verdict::Worse);
    assert_eq!(verdict(&[-0.1, -0.11, -0.12, -0.1, -0.09, -0.1]), Verdict::Better);
    assert_eq!(verdict(&[0.001, -0.002, 0.001, -0.001, 0.002, 0.0, -0.001]), Verdict::NoDifference);
    assert_eq!(verdict(&[0.2, -0.3, 0.1, -0.2, 0.3, 0.0, -0.1]), Verdict::TooNoisy);
    let e = Estimate::of_pairs(&[0.2], 0.95).unwrap();
    assert_eq!((power::detectable(&e, 0.95, 0.8), e.standard_error), (None, f64::INFINITY));
    assert_eq!(rounds_needed(&e, Rounds::Paired(1), 0.05, 0.95, 0.8), None);
}

/// Something disturbs every fourth round. With an order by lot in each pair, an experiment of nothing is as seldom wrong as it
/// says; a fixed A B, B A always has the same arm disturbed.
#[test]
fn an_order_by_lot_is_right_whatever_comes_again_and_again() {
    const EXPERIMENTS: u32 = 2000;
    const PAIRS: u32 = 12;
    let mut rng = Rng::new(11);
    let mut wrong = [0_u32; 2];
    for _ in 0..EXPERIMENTS {
        for (n, count) in wrong.iter_mut().enumerate() {
            let differences: Vec<f64> = (0..PAIRS)
                .map(|block| {
                    let disturbance = if block.is_multiple_of(2) { 0.0 } else { 2.0 };
                    let [first, second] = [normal(&mut rng) + disturbance, normal(&mut rng)];
                    let a_is_first = if n == 0 { rng.toss() } else { block.is_multiple_of(2) };
                    if a_is_first { second - first } else { first - second }
                })
                .collect();
            let e = Estimate::of_pairs(&differences, 0.975).unwrap();
            *count += u32::from(e.low > 0.0 || e.high < 0.0);
        }
    }
    let [by_lot, fixed] = wrong.map(|n| f64::from(n) / f64::from(EXPERIMENTS));
    println!("wrong at 95 %: {by_lot} by lot, {fixed} in a fixed order");
    assert!(by_lot < 0.06, "{by_lot}");
    assert!(fixed > 0.15, "{fixed}: the test does not show why");
}
