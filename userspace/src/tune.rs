//! Guarded tuning: a change stays only if it was measured to help, under the load that there is.
//!
//! Needs: changes that could help ([`crate::change`]), and something that measures. For each of them, rounds of two equal
//! windows, one with the change and one without, in an order chosen by lot, so that what drifts does not count for either.
//! What differs between the windows of a round goes to [`nettrace_bench::stats`]. A change is kept when the objective got
//! better with the stated confidence, by as much as is asked for, and no guard got worse; else it is taken back. Each setting
//! and taking back is in the journal, with a time limit: if this process dies, the change goes.
//!
//! Of several changes each is judged at a confidence that makes the stated one hold for all of them together (Bonferroni).

mod meter;
mod objective;
mod report;

pub use meter::{CaptureMeter, Meter, MeterError, Reading};
pub use objective::{Objective, ObjectiveError};
pub use report::{json, text};

use crate::change::{ChangeError, Engine, Plan, StateDir, Switch};
use nettrace_bench::stats::{Estimate, least_paired_rounds, median, rng::Rng};
use serde::Serialize;
use std::{
    thread,
    time::{Duration, Instant},
};

/// How a tuning is done.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is to get better.
    pub objective: Objective,
    /// What must not get worse.
    pub guards: Vec<Objective>,
    /// Rounds of two windows for each change.
    pub rounds: u32,
    /// Length of a window.
    pub window: Duration,
    /// After a change, before its window: what was on the way is not measured.
    pub settle: Duration,
    /// How sure it is that nothing is kept that brings nothing: of all changes together.
    pub confidence: f64,
    /// From here on an improvement is worth a change, as a share: 0.02 for 2 %.
    pub least_effect: f64,
    /// A guard may seem to get worse by as much, as a share.
    pub tolerance: f64,
    /// Decides the order in rounds.
    pub seed: u64,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It helped, and stays.
    Kept,
    /// It was shown to bring nothing or to do harm, and is taken back.
    Reverted,
    /// Neither was shown; it is taken back.
    Undecided,
    /// It could not be made.
    Failed,
}

impl Verdict {
    /// As reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Reverted => "reverted",
            Self::Undecided => "undecided",
            Self::Failed => "failed",
        }
    }
}

/// How an objective did: with the change, as a share of without.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// The objective, as it was typed.
    pub objective: String,
    /// Its middle over the windows without the change, in its unit; none where no window told.
    pub without: Option<f64>,
    /// With it.
    pub with: Option<f64>,
    /// Middle of the ratios; below 1 is less.
    pub ratio: Option<f64>,
    /// The ratio is not below this, at `confidence`; none where there are too few rounds.
    pub low: Option<f64>,
    /// It is not above this.
    pub high: Option<f64>,
    /// That of each bound.
    pub confidence: f64,
    /// Rounds that told.
    pub rounds: u32,
    /// Rounds that told without the change, and not with it: each counts as much worse.
    pub lost: u32,
}

/// One change, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// What the change is called.
    pub id: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Why.
    pub because: String,
    /// Its number in the journal, where it stays.
    pub change: Option<u64>,
    /// What it did: the objective first, then guards.
    pub effects: Vec<Effect>,
}

/// Why a tuning does not go on.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// What is set cannot be taken back.
    #[error("a change cannot be taken back: {0}")]
    Change(#[from] ChangeError),
    /// It cannot be measured.
    #[error(transparent)]
    Meter(#[from] MeterError),
}

/// Tries each change. `stop` is asked between windows; what was not tried then is not in the answer.
///
/// # Errors
/// When something cannot be measured, or taken back.
pub fn tune(
    dir: &StateDir,
    plans: &[Plan],
    options: &Options,
    meter: &mut dyn Meter,
    stop: &dyn Fn() -> bool,
    mut told: impl FnMut(&Trial),
) -> Result<Vec<Trial>, TuneError> {
    let mut trials = Vec::new();
    let mut coin = Rng::new(options.seed);
    for plan in plans {
        let trial = match tried(dir, plan, options, plans.len(), meter, stop, &mut coin)? {
            Some(trial) => trial,
            None => break,
        };
        told(&trial);
        trials.push(trial);
    }
    Ok(trials)
}

/// Tries one of so many changes; none when it was stopped.
fn tried(
    dir: &StateDir,
    plan: &Plan,
    options: &Options,
    changes: usize,
    meter: &mut dyn Meter,
    stop: &dyn Fn() -> bool,
    coin: &mut Rng,
) -> Result<Option<Trial>, TuneError> {
    // What was kept before may be what this one builds on.
    let plan = match plan.anew() {
        Ok(plan) if plan.steps.is_empty() => return Ok(Some(Trial::failed(&plan.id, "it is so already"))),
        Ok(plan) => plan,
        Err(error) => return Ok(Some(Trial::failed(&plan.id, &error.to_string()))),
    };
    let mut switch = Switch::new(dir.clone(), plan.clone(), limit(options));
    let rounds = measured(&mut switch, options, meter, stop, coin);
    // However it ended, what was tried is not in force any more.
    switch.off()?;
    Ok(match rounds {
        Err(Interrupted::Stopped) => None,
        Err(Interrupted::Meter(error)) => return Err(error.into()),
        Err(Interrupted::Change(error @ ChangeError::Stuck { .. })) => return Err(error.into()),
        Err(Interrupted::Change(error)) => Some(Trial::failed(&plan.id, &error.to_string())),
        Ok(rounds) => Some(keep(dir, &plan, judge(&plan.id, &rounds, options, changes))),
    })
}

impl Trial {
    /// Of a change that could not be made, or not be measured.
    fn failed(id: &str, because: &str) -> Self {
        let (id, because) = (id.to_owned(), because.to_owned());
        Self { id, verdict: Verdict::Failed, because, change: None, effects: Vec::new() }
    }
}

/// The fewest rounds that can prove anything of so many changes: that all differ to the same side has this chance.
#[must_use]
pub fn least_rounds(confidence: f64, changes: usize) -> u32 {
    let chance = (1.0 - confidence) / changes.max(1) as f64;
    least_paired_rounds(1.0 - chance) as u32
}

/// How long a change may stay without being looked at: much longer than a window.
fn limit(options: &Options) -> Duration {
    (options.window + options.settle) * 3 + Duration::from_secs(30)
}

/// Makes a change for good that is to be kept.
fn keep(dir: &StateDir, plan: &Plan, trial: Trial) -> Trial {
    if trial.verdict != Verdict::Kept {
        return trial;
    }
    match Engine::open(dir).and_then(|(mut engine, _)| engine.apply(plan, None)) {
        Ok(change) => Trial { change: Some(change), ..trial },
        Err(error) => {
            Trial { verdict: Verdict::Failed, because: format!("it helped, and then: {error}"), ..trial }
        }
    }
}

enum Interrupted {
    Stopped,
    Change(ChangeError),
    Meter(MeterError),
}

/// One round: readings without and with the change.
type Round = [Reading; 2];

fn measured(
    switch: &mut Switch,
    options: &Options,
    meter: &mut dyn Meter,
    stop: &dyn Fn() -> bool,
    coin: &mut Rng,
) -> Result<Vec<Round>, Interrupted> {
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        let first = coin.toss();
        let mut round: [Option<Reading>; 2] = [None, None];
        for on in [first, !first] {
            if stop() {
                return Err(Interrupted::Stopped);
            }
            switch.set(on).map_err(Interrupted::Change)?;
            settle(options.settle);
            round[usize::from(on)] = Some(meter.window(options.window).map_err(Interrupted::Meter)?);
            switch.check().map_err(Interrupted::Change)?;
        }
        if let [Some(without), Some(with)] = round {
            rounds.push([without, with]);
        }
    }
    Ok(rounds)
}

fn settle(time: Duration) {
    let until = Instant::now() + time;
    thread::sleep(until.saturating_duration_since(Instant::now()));
}

/// What rounds prove.
fn judge(id: &str, rounds: &[Round], options: &Options, changes: usize) -> Trial {
    let all = std::iter::once(&options.objective).chain(&options.guards);
    let shared = 1.0 - (1.0 - options.confidence) / changes.max(1) as f64;
    let effects: Vec<_> = all
        .enumerate()
        .map(|(n, objective)| effect(n, objective, rounds, if n == 0 { shared } else { options.confidence }))
        .collect();
    let (verdict, because) = verdict(&effects, options);
    Trial {
        id: id.to_owned(),
        verdict,
        because,
        change: None,
        effects: effects.into_iter().map(|(effect, _)| effect).collect(),
    }
}

/// What a round counts that lost its traffic with the change: a ratio that none has, a million.
const LOST_LOG: f64 = 13.8;

/// An objective's effect, and what its logarithms prove: negative is better.
fn effect(n: usize, objective: &Objective, rounds: &[Round], confidence: f64) -> (Effect, Option<Estimate>) {
    // Nothing at all is little, and not unknown: a byte a second has a logarithm.
    let value = |reading: &Reading| reading.values.get(n).copied().flatten().map(|v| v.max(1.0));
    let pairs: Vec<_> =
        rounds.iter().filter_map(|[without, with]| Some((value(without)?, value(with)?))).collect();
    // Left out, a change that ends the traffic would be judged by the rounds in which it did not.
    let is_lost = |[without, with]: &&Round| value(without).is_some() && value(with).is_none();
    let lost = rounds.iter().filter(is_lost).count();
    let much_worse = if objective.more_is_better() { -LOST_LOG } else { LOST_LOG };
    let told = pairs.iter().map(|(without, with)| (with / without).ln());
    let logs: Vec<_> = told.chain(std::iter::repeat_n(much_worse, lost)).collect();
    let estimate = Estimate::of_pairs(&logs, confidence);
    let ratio = |log: f64| Some(log.exp()).filter(|r| r.is_finite() && *r > 0.0);
    let told = Effect {
        objective: objective.to_string(),
        without: median(&pairs.iter().map(|p| p.0).collect::<Vec<_>>()),
        with: median(&pairs.iter().map(|p| p.1).collect::<Vec<_>>()),
        ratio: estimate.and_then(|e| ratio(e.middle)),
        low: estimate.and_then(|e| ratio(e.low)),
        high: estimate.and_then(|e| ratio(e.high)),
        confidence,
        rounds: pairs.len() as u32,
        lost: lost as u32,
    };
    let toward = |e: Estimate| if objective.more_is_better() { e.mirrored() } else { e };
    (told, estimate.map(toward))
}

fn verdict(effects: &[(Effect, Option<Estimate>)], options: &Options) -> (Verdict, String) {
    let Some(((objective, estimate), guards)) = effects.split_first() else {
        return (Verdict::Undecided, "nothing was measured".to_owned());
    };
    let Some(e) = estimate.filter(|_| objective.rounds + objective.lost > options.rounds / 2) else {
        let (told, of) = (objective.rounds, options.rounds);
        return (
            Verdict::Undecided,
            format!("{told} of {of} rounds had enough traffic to tell {}", objective.objective),
        );
    };
    let least = options.least_effect.ln_1p();
    let worse = |(_, e): &&(Effect, Option<Estimate>)| {
        e.is_some_and(|e| e.low > 0.0 || e.middle > options.tolerance.ln_1p())
    };
    if e.low > 0.0 {
        return (Verdict::Reverted, format!("{} got worse", objective.objective));
    }
    if e.high >= 0.0 {
        return if e.low > -least {
            (Verdict::Reverted, format!("it brings no {:.0} %", options.least_effect * 100.0))
        } else {
            (Verdict::Undecided, format!("{} rounds do not show that it helps", objective.rounds))
        };
    }
    let untold = |(guard, _): &&(Effect, Option<Estimate>)| guard.rounds <= options.rounds / 2;
    if let Some((guard, _)) = guards.iter().find(untold) {
        let (told, of) = (guard.rounds, options.rounds);
        return (
            Verdict::Undecided,
            format!("it helps, but {told} of {of} rounds had enough traffic to tell {}", guard.objective),
        );
    }
    if let Some((guard, _)) = guards.iter().find(worse) {
        return (Verdict::Reverted, format!("it helps, but {} got worse", guard.objective));
    }
    if e.middle > -least {
        return (
            Verdict::Reverted,
            format!("it helps, but by less than {:.0} %", options.least_effect * 100.0),
        );
    }
    (Verdict::Kept, format!("{} got better", objective.objective))
}

#[cfg(test)]
mod tests;
