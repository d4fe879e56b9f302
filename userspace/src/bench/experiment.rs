//! Rounds of load, of one arm or of both in turn.
//!
//! Needs a [`Site`]. Of both arms the order is by lot in each pair of rounds: what drifts counts for neither. Each round begins with its arm
//! being set anew. Yields a [`RunResult`] of all rounds that came to their end; what ended it early is in it.

use super::{BenchError, probes::Probes, site::Site};
use nettrace_bench::{
    load::Stop,
    result::{Arm, Environment, Kind, Outcome, Partial, Round, RunResult, SCHEMA_VERSION},
};
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant, SystemTime},
};

/// How rounds are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rounds of each arm.
    pub rounds: u32,
    /// Whether there are two arms.
    pub both: bool,
    /// After an arm is set, before its load begins.
    pub settle: Duration,
    /// Of what is left to chance.
    pub seed: u64,
    /// Whether nettrace's own probes look on.
    pub probes: bool,
    /// Ends it after the round that runs.
    pub stop: Stop,
}

/// Told before each round: its number, from 1, how many there are, and its arm.
pub type Told<'a> = &'a mut dyn FnMut(usize, usize, Arm);

/// Runs all rounds.
///
/// # Errors
/// When no round comes to its end. What goes wrong later ends it early, and is in the result.
pub fn run(site: &mut dyn Site, options: &Options, told: Told<'_>) -> Result<RunResult, BenchError> {
    let started = Instant::now();
    let mut result = RunResult {
        kind: Kind::default(),
        schema: SCHEMA_VERSION,
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        scenario: site.scenario(),
        environment: site.environment(),
        environment_b: None,
        changes: if options.both { site.changes() } else { Vec::new() },
        seed: options.seed,
        started_unix_ms: unix_ms(),
        elapsed_ms: 0,
        rounds: Vec::new(),
        partial: None,
        segments: Vec::new(),
    };
    let mut probes = options.probes.then(|| Probes::start(site.namespaces())).transpose()?;
    let order = order(options);
    for (n, (block, arm)) in order.iter().enumerate() {
        told(n + 1, order.len(), *arm);
        let started_ms = millis(started.elapsed());
        let early = match round(site, options, *arm, *block, &mut probes, &mut result.environment_b) {
            Ok(Ended::Whole(loads)) => {
                result.rounds.push(Round { block: *block, arm: *arm, started_ms, loads });
                continue;
            }
            Ok(Ended::Early(reason)) => reason,
            Err(error) if result.rounds.is_empty() => return Err(error),
            Err(error) => error.to_string(),
        };
        let planned_rounds = u32::try_from(order.len()).unwrap_or(u32::MAX);
        result.partial = Some(Partial { reason: early, planned_rounds });
        break;
    }
    result.elapsed_ms = millis(started.elapsed());
    if result.rounds.is_empty() {
        let reason = result.partial.map_or_else(|| "there was none".to_owned(), |partial| partial.reason);
        return Err(BenchError::Nothing(reason));
    }
    if let Some(probes) = probes {
        result.segments = probes.stop()?;
    }
    Ok(result)
}

/// Block and arm of each round.
fn order(options: &Options) -> Vec<(u32, Arm)> {
    if options.both {
        return Arm::interleaved(options.rounds, options.seed);
    }
    (0..options.rounds).map(|block| (block, Arm::A)).collect()
}

/// How a round ended.
enum Ended {
    Whole(BTreeMap<String, Outcome>),
    /// Before its time, and why.
    Early(String),
}

fn round(
    site: &mut dyn Site,
    options: &Options,
    arm: Arm,
    block: u32,
    probes: &mut Option<Probes>,
    environment_b: &mut Option<Environment>,
) -> Result<Ended, BenchError> {
    if options.stop.is_set() {
        return Ok(Ended::Early(STOPPED.to_owned()));
    }
    if options.both {
        site.set(arm)?;
        // Before it settles, so that the first round of B begins as all others do.
        if arm == Arm::B && environment_b.is_none() {
            *environment_b = Some(site.environment());
        }
        thread::sleep(options.settle);
    }
    probes.as_mut().map_or(Ok(()), Probes::begin)?;
    // Chance is the same for both arms of a block.
    let seed = options.seed.wrapping_add(u64::from(block) << 8);
    let ran = site.round(seed, &options.stop)?;
    probes.as_mut().map_or(Ok(()), |probes| probes.end(arm))?;
    site.check()?;
    Ok(match ran.partial {
        Some(_) if options.stop.is_set() => Ended::Early(STOPPED.to_owned()),
        Some(reason) => Ended::Early(reason),
        None => Ended::Whole(ran.loads),
    })
}

/// Why there are fewer rounds where somebody wanted it so.
const STOPPED: &str = "it was stopped by hand";

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms() -> u64 {
    millis(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
