//! From rounds to rows: what each metric of each load shows.

use super::{
    Bounds, CompareError, Comparison, Method, Metric, Options, Outlier, Overall, Rounds, Row, Totals, Untold,
};
use crate::{
    result::{Arm, Round},
    stats::{
        Estimate, MOST_ROUNDS, bootstrap,
        correction::{confidence_of_each_bound, holm},
        median, outlier,
        power::{self, rounds_needed},
        verdict::{Question, Verdict},
    },
};
use std::collections::BTreeSet;

/// All but what is known of the results as a whole.
pub(super) fn judge(rounds: &Rounds<'_>, seed: u64, options: &Options) -> Result<Comparison, CompareError> {
    for (name, value) in
        [("confidence", options.confidence), ("power", options.power), ("effect", options.effect)]
    {
        if !(value > 0.0 && value < 1.0) {
            return Err(CompareError::Option { name, value });
        }
    }
    let counts = rounds.counts();
    if let Some(most) = counts.into_iter().find(|n| *n > MOST_ROUNDS) {
        return Err(CompareError::TooManyRounds(most));
    }
    let loads = loads(rounds);
    if loads.is_empty() {
        return Err(CompareError::NoLoads);
    }
    let mut untold = Vec::new();
    let mut series = Vec::new();
    for (load, metric) in loads.iter().flat_map(|load| Metric::ALL.map(|metric| (*load, metric))) {
        match Series::of(rounds, load, metric) {
            Ok(one) => series.push(one),
            Err(because) => untold.push(Untold { load: load.to_owned(), metric, because }),
        }
    }
    let each = confidence_of_each_bound(options.confidence, series.len());
    let mut rows: Vec<Row> = Vec::new();
    let mut estimates = Vec::new();
    for one in series {
        let Some(estimate) = one.estimate(each) else {
            untold.push(Untold {
                load: one.load.to_owned(),
                metric: one.metric,
                because: "no round told".to_owned(),
            });
            continue;
        };
        rows.push(one.row(&estimate, each, seed, options));
        estimates.push(estimate);
    }
    let corrected = holm(&rows.iter().map(|row| row.p).collect::<Vec<_>>());
    for ((row, estimate), corrected) in rows.iter_mut().zip(&estimates).zip(corrected) {
        row.p_corrected = corrected;
        row.verdict = question(row.metric, options).answer(estimate, corrected, each);
    }
    Ok(Comparison {
        overall: Overall::TooNoisy,
        sentence: String::new(),
        method: if matches!(rounds, Rounds::Paired(_)) { Method::Paired } else { Method::Separate },
        scenario: String::new(),
        changes: Vec::new(),
        confidence: options.confidence,
        power: options.power,
        effect: options.effect,
        rounds: counts,
        seed,
        rows,
        untold,
        totals: loads.into_iter().map(|load| totals(rounds, load)).collect(),
        differences: Vec::new(),
        forced: false,
        partial: Vec::new(),
        warnings: Vec::new(),
    })
}

fn question(metric: Metric, options: &Options) -> Question {
    Question {
        confidence: options.confidence,
        // What number of errors matters is for whoever makes requests to say.
        difference: if metric.is_ratio() { options.effect.ln_1p() } else { f64::MAX },
        power: options.power,
        more_is_better: metric.more_is_better(),
    }
}

/// Loads that ran in both arms.
fn loads<'a>(rounds: &Rounds<'a>) -> Vec<&'a str> {
    let of = |arm| -> BTreeSet<&'a str> {
        rounds.of(arm).into_iter().flat_map(|round| round.loads.keys().map(String::as_str)).collect()
    };
    of(0).intersection(&of(1)).copied().collect()
}

fn totals(rounds: &Rounds<'_>, load: &str) -> Totals {
    let sum = |arm, of: fn(&crate::result::Outcome) -> u64| {
        rounds.of(arm).iter().filter_map(|r| r.loads.get(load)).map(of).fold(0, u64::saturating_add)
    };
    Totals {
        load: load.to_owned(),
        errors: [0, 1].map(|arm| sum(arm, crate::result::Outcome::error_count)),
        count: [0, 1].map(|arm| sum(arm, |outcome| outcome.count)),
    }
}

/// One metric's values, and the rounds that they are of.
struct Series<'a> {
    load: &'a str,
    metric: Metric,
    unit: &'static str,
    values: Values<'a>,
}

enum Values<'a> {
    Paired(Vec<[(f64, &'a Round); 2]>),
    Separate([Vec<(f64, &'a Round)>; 2]),
}

impl<'a> Series<'a> {
    /// Or why the metric is not told.
    fn of(rounds: &Rounds<'a>, load: &'a str, metric: Metric) -> Result<Self, String> {
        let arms = [0, 1].map(|arm| rounds.of(arm));
        if metric == Metric::Errors {
            // One arm with errors is enough.
            let all: Vec<&Round> = arms.iter().flatten().copied().collect();
            metric.untold(&all, load).map_or(Ok(()), Err)?;
        } else if let Some(because) = arms.iter().find_map(|arm| metric.untold(arm, load)) {
            return Err(because);
        }
        let of = |round: &'a Round| metric.of(round, load).map(|value| (value, round));
        let outcome = arms.iter().flatten().find_map(|round| round.loads.get(load));
        Ok(Self {
            load,
            metric,
            unit: outcome.map_or("", |outcome| metric.unit(outcome)),
            values: match rounds {
                Rounds::Paired(pairs) => {
                    Values::Paired(pairs.iter().filter_map(|[a, b]| Some([of(a)?, of(b)?])).collect())
                }
                Rounds::Separate(runs) => {
                    Values::Separate([0, 1].map(|arm| runs[arm].iter().filter_map(|r| of(r)).collect()))
                }
            },
        })
    }

    fn differences(&self, pairs: &[[(f64, &Round); 2]]) -> Vec<f64> {
        pairs.iter().map(|[(a, _), (b, _)]| self.metric.scaled(*b) - self.metric.scaled(*a)).collect()
    }

    fn of_run(&self, run: &[(f64, &Round)]) -> Vec<f64> {
        run.iter().map(|(value, _)| self.metric.scaled(*value)).collect()
    }

    fn estimate(&self, confidence: f64) -> Option<Estimate> {
        match &self.values {
            Values::Paired(pairs) => Estimate::of_pairs(&self.differences(pairs), confidence),
            Values::Separate([before, after]) => {
                Estimate::of_separate(&self.of_run(before), &self.of_run(after), confidence)
            }
        }
    }

    fn bootstrap(&self, confidence: f64, seed: u64) -> Option<Bounds> {
        let interval = match &self.values {
            Values::Paired(pairs) => bootstrap::of_pairs(&self.differences(pairs), confidence, seed),
            Values::Separate([before, after]) => {
                bootstrap::of_separate(&self.of_run(before), &self.of_run(after), confidence, seed)
            }
        }?;
        self.metric.bounds(interval.low, interval.high)
    }

    /// Values of an arm.
    fn of_arm(&self, arm: usize) -> Vec<f64> {
        match &self.values {
            Values::Paired(pairs) => pairs.iter().map(|pair| pair[arm].0).collect(),
            Values::Separate(runs) => runs[arm].iter().map(|(value, _)| *value).collect(),
        }
    }

    /// As reports show an arm.
    fn shown(&self, arm: usize) -> Option<f64> {
        let values = self.of_arm(arm);
        let shown = if self.metric.is_ratio() { median(&values)? } else { values.iter().sum() };
        Some(shown).filter(|v| v.is_finite())
    }

    fn outliers(&self) -> Vec<Outlier> {
        match &self.values {
            Values::Paired(pairs) => outlier::far_off(&self.differences(pairs))
                .into_iter()
                .map(|n| Outlier { arm: None, block: pairs[n][0].1.block })
                .collect(),
            Values::Separate(runs) => [Arm::A, Arm::B]
                .into_iter()
                .zip(runs)
                .flat_map(|(arm, run)| {
                    let far = outlier::far_off(&self.of_run(run));
                    far.into_iter().map(move |n| Outlier { arm: Some(arm), block: run[n].1.block })
                })
                .collect(),
        }
    }

    fn rounds(&self) -> power::Rounds {
        match &self.values {
            Values::Paired(pairs) => power::Rounds::Paired(pairs.len()),
            Values::Separate([before, after]) => power::Rounds::Separate(before.len(), after.len()),
        }
    }

    /// All but what depends on the other rows.
    fn row(&self, estimate: &Estimate, each: f64, seed: u64, options: &Options) -> Row {
        let difference = if self.metric.is_ratio() { options.effect.ln_1p() } else { 1.0 };
        let detectable = power::detectable(estimate, each, options.power);
        Row {
            load: self.load.to_owned(),
            metric: self.metric,
            unit: self.unit.to_owned(),
            before: self.shown(0),
            after: self.shown(1),
            after_bounds: self.metric.level(&self.of_arm(1), each).and_then(|(_, bounds)| bounds),
            effect: self.metric.unscaled(estimate.middle),
            bounds: self.metric.bounds(estimate.low, estimate.high),
            bootstrap: self.bootstrap(options.confidence, seed),
            p: estimate.p_two_sided(),
            p_corrected: 1.0,
            detectable: detectable.map(|d| if self.metric.is_ratio() { d.exp_m1() } else { d }),
            rounds_needed: rounds_needed(estimate, self.rounds(), difference, each, options.power),
            rounds: [0, 1].map(|arm| self.of_arm(arm).len()),
            outliers: self.outliers(),
            verdict: Verdict::TooNoisy,
        }
    }
}
