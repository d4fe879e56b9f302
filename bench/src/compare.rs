//! Two results, or the two arms of an experiment, and what they prove of each other.
//!
//! Needs [`RunResult`]s. Yields a [`Comparison`]: for each load and metric what it was and is, the effect with bounds that hold
//! for all of them together, and a verdict; one sentence for all. An experiment of interleaved rounds is compared pair by pair,
//! so that what drifts does not count for either arm; two runs as they are, and what else changed between them is in the
//! difference. What cannot be compared is refused, with everything that differs.
//!
//! `docs/bench.md` says which method stands where, and why.

mod differences;
mod drift;
mod fail_if;
mod judge;
mod metric;
mod sentence;
mod table;
#[cfg(test)]
mod tests;

pub use differences::{Difference, DifferenceKind};
pub use fail_if::{Checked, FailIf, FailIfError, State};
pub use metric::Metric;
pub use table::{HEADER, cells, share, value};

use crate::{
    result::{Arm, Change, Round, RunResult},
    stats::{MOST_ROUNDS, Verdict},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What no test of two runs can tell.
const TWO_RUNS: &str = "two runs: all that changed between them is in the effects, drift of the machine too; interleaved \
                        rounds (bench ab) cancel it";

/// What is asked of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Confidence of all verdicts together, and of all intervals together.
    pub confidence: f64,
    /// Probability with which an effect of the size that matters is to be found.
    pub power: f64,
    /// The effect that matters, as a share: 0.05 for 5 %.
    pub effect: f64,
    /// Compare what differs in more than the change.
    pub force: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { confidence: 0.95, power: 0.8, effect: 0.05, force: false }
    }
}

/// How rounds were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Pair by pair, of interleaved rounds: signed ranks.
    Paired,
    /// The rounds of two runs: rank sums.
    Separate,
}

/// Both bounds of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bounds {
    /// It is not below this.
    pub low: f64,
    /// It is not above this.
    pub high: f64,
}

/// A round that is far from the others. It counts like them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Outlier {
    /// Of which run; none for a pair.
    pub arm: Option<Arm>,
    /// Its block.
    pub block: u32,
}

/// One metric of one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// The load.
    pub load: String,
    /// The metric.
    pub metric: Metric,
    /// What `before` and `after` are in.
    pub unit: String,
    /// Median of rounds before; of errors their sum. None where half of the rounds had no answer.
    pub before: Option<f64>,
    /// The same after.
    pub after: Option<f64>,
    /// Bounds of the middle of rounds after, in the unit, at the confidence of all intervals together.
    pub after_bounds: Option<Bounds>,
    /// After by before; of errors, after less before, per round.
    pub effect: f64,
    /// Bounds of the effect, which hold for all rows together; none where there are too few rounds.
    pub bounds: Option<Bounds>,
    /// Bounds by resampling rounds, for this row alone; none with few rounds.
    pub bootstrap: Option<Bounds>,
    /// Probability of an effect this large where there is none, for this row alone.
    pub p: f64,
    /// The same, corrected for all rows (Holm).
    pub p_corrected: f64,
    /// The smallest effect that such rounds show with the power that was asked for: a share (0.05 for 5 %), of errors a number
    /// per round. None where such rounds cannot show any.
    pub detectable: Option<f64>,
    /// Rounds of each arm that would show the effect that matters; none where they cannot be told or are more than
    /// [`MOST_ROUNDS`].
    pub rounds_needed: Option<usize>,
    /// Rounds that told, of either arm.
    pub rounds: [usize; 2],
    /// Those of them that are far from the others.
    pub outliers: Vec<Outlier>,
    /// What is shown.
    pub verdict: Verdict,
}

/// A metric that was not compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Untold {
    /// The load.
    pub load: String,
    /// The metric.
    pub metric: Metric,
    /// Why.
    pub because: String,
}

/// What a load came to, all rounds together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// The load.
    pub load: String,
    /// Requests that came to nothing before, and after.
    pub errors: [u64; 2],
    /// What was counted before, and after.
    pub count: [u64; 2],
}

/// What all rows together say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overall {
    /// Some are better, none is worse.
    Better,
    /// Some are worse, none is better.
    Worse,
    /// Some are better, others worse.
    Mixed,
    /// No difference was shown, and half of the rows or more would have shown one.
    NoDifference,
    /// No difference was shown, and most rows could not have shown one.
    TooNoisy,
}

/// What two results, or arms, prove of each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// What all rows say.
    pub overall: Overall,
    /// The same in one sentence.
    pub sentence: String,
    /// How rounds were compared.
    pub method: Method,
    /// The scenario.
    pub scenario: String,
    /// What was changed.
    pub changes: Vec<Change>,
    /// Confidence of all verdicts together, and of all intervals together.
    pub confidence: f64,
    /// Probability with which the effect that matters was to be found.
    pub power: f64,
    /// The effect that matters, as a share.
    pub effect: f64,
    /// Rounds of either arm.
    pub rounds: [usize; 2],
    /// What resampling started from.
    pub seed: u64,
    /// By load, then metric.
    pub rows: Vec<Row>,
    /// What was not compared.
    pub untold: Vec<Untold>,
    /// Counts of each load.
    pub totals: Vec<Totals>,
    /// What differs between the two, wanted or not.
    pub differences: Vec<Difference>,
    /// Whether they were compared although they differ in what makes a comparison.
    pub forced: bool,
    /// Why one of them is not whole.
    pub partial: Vec<String>,
    /// What makes it less sure than it looks.
    pub warnings: Vec<String>,
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// They differ in more than what a change may be.
    #[error(
        "the results cannot be compared; --force does it all the same. They differ in:{}",
        differences::listed(_0)
    )]
    Differ(Vec<Difference>),
    /// One of two holds both arms.
    #[error("the result {0} holds an experiment of two arms: compare it alone")]
    Experiment(&'static str),
    /// One alone holds a single arm.
    #[error("the result holds one run: name a second one to compare it with")]
    NoExperiment,
    /// Nothing was measured.
    #[error("the result {0} has no rounds{1}")]
    NoRounds(&'static str, String),
    /// Nothing to compare.
    #[error("no load ran in both")]
    NoLoads,
    /// More than the tests are made for.
    #[error("{0} rounds of an arm are more than the {MOST_ROUNDS} that can be compared")]
    TooManyRounds(usize),
    /// An option out of range.
    #[error("{name} of {value} is not between 0 and 1")]
    Option {
        /// Which.
        name: &'static str,
        /// What it was.
        value: f64,
    },
}

/// Rounds that are compared, and which ones lie beside each other.
pub(crate) enum Rounds<'a> {
    Paired(Vec<[&'a Round; 2]>),
    Separate([Vec<&'a Round>; 2]),
}

impl<'a> Rounds<'a> {
    /// Of either arm.
    fn of(&self, arm: usize) -> Vec<&'a Round> {
        match self {
            Self::Paired(pairs) => pairs.iter().map(|pair| pair[arm]).collect(),
            Self::Separate(runs) => runs[arm].clone(),
        }
    }

    fn counts(&self) -> [usize; 2] {
        [0, 1].map(|arm| self.of(arm).len())
    }
}

/// Compares two runs.
///
/// # Errors
/// When they are not runs of the same scenario on the same machines, one has no rounds, or an option is out of range.
pub fn compare(before: &RunResult, after: &RunResult, options: &Options) -> Result<Comparison, CompareError> {
    for (result, name) in [(before, "before"), (after, "after")] {
        if result.is_experiment() {
            return Err(CompareError::Experiment(name));
        }
        if result.rounds.is_empty() {
            return Err(CompareError::NoRounds(name, because(result)));
        }
    }
    let differences = differences::between(before, after);
    let hindering: Vec<_> = differences.iter().filter(|d| d.kind.hinders()).cloned().collect();
    if !hindering.is_empty() && !options.force {
        return Err(CompareError::Differ(hindering));
    }
    let rounds = Rounds::Separate([before, after].map(|result| result.rounds.iter().collect()));
    let mut comparison = judge::judge(&rounds, before.seed ^ after.seed, options)?;
    comparison.scenario.clone_from(&after.scenario.name);
    comparison.changes = after.changes.iter().filter(|c| !before.changes.contains(c)).cloned().collect();
    comparison.differences = differences;
    comparison.forced = !hindering.is_empty();
    for (name, result) in [("result before", before), ("result after", after)] {
        comparison.partial.extend(partial(name, result));
    }
    comparison.warnings.push(TWO_RUNS.to_owned());
    for (name, run) in [("before", before), ("after", after)] {
        comparison.warnings.extend(drift::of(name, run));
    }
    sentence::conclude(&mut comparison);
    Ok(comparison)
}

/// Compares the arms of an experiment.
///
/// # Errors
/// When it is none, no block is whole, or an option is out of range.
pub fn compare_arms(result: &RunResult, options: &Options) -> Result<Comparison, CompareError> {
    if !result.is_experiment() {
        return Err(CompareError::NoExperiment);
    }
    let pairs = result.pairs();
    if pairs.is_empty() {
        return Err(CompareError::NoRounds("of each arm", because(result)));
    }
    let lone = result.rounds.len() - 2 * pairs.len();
    let mut comparison = judge::judge(&Rounds::Paired(pairs), result.seed, options)?;
    comparison.scenario.clone_from(&result.scenario.name);
    comparison.changes.clone_from(&result.changes);
    if let Some(after) = &result.environment_b {
        comparison.differences = differences::of_environments(&result.environment, after);
    }
    comparison.partial = partial("experiment", result);
    if lone > 0 {
        comparison.partial.push(match lone {
            1 => "1 round has no partner and is left out".to_owned(),
            _ => format!("{lone} rounds have no partner and are left out"),
        });
    }
    sentence::conclude(&mut comparison);
    Ok(comparison)
}

/// In what a result is not whole.
fn partial(name: &str, result: &RunResult) -> Vec<String> {
    let rounds = result.rounds.len();
    let whole =
        result.partial.is_some().then(|| format!("the {name} has {rounds} rounds{}", because(result)));
    let of_load = |load: &str| {
        let outcomes = result.rounds.iter().filter_map(|round| round.loads.get(load));
        let reasons: Vec<&String> = outcomes.filter_map(|outcome| outcome.partial.as_ref()).collect();
        let (first, n) = (reasons.first()?, reasons.len());
        let rounds = if n == 1 { "round" } else { "rounds" };
        Some(format!("the {name} has {n} {rounds} in which {load} ended before its time: {first}"))
    };
    whole.into_iter().chain(result.loads().into_iter().filter_map(of_load)).collect()
}

/// Why a result is not whole, to be put behind a sentence.
fn because(result: &RunResult) -> String {
    result.partial.as_ref().map(|p| format!(" of {}: {}", p.planned_rounds, p.reason)).unwrap_or_default()
}
