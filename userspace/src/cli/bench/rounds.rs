//! `bench run`, `bench ab` and `bench client`: rounds of load, kept and told.

use super::{judged, options, peer, show, text_of};
use crate::{
    bench::{
        experiment,
        report::Subject,
        scenario::{self, LoadOptions},
        site::{Arms, PairSite, PeerSite, ScenarioSite, Site},
    },
    change::{ChangeError, Plan, Request, StateDir, Switch, plan, start_guard},
    cli::{
        Exit,
        bench_args::{BenchAbArgs, BenchClientArgs, BenchRunArgs, ResultArgs, RoundArgs, WhatArgs},
        commands::{Failure, say},
        run::interrupt,
        undo,
    },
    lab::Pair,
};
use anyhow::anyhow;
use indicatif::ProgressBar;
use nettrace_bench::{
    compare::{Comparison, compare_arms},
    cpu::Pinning,
    history::Store,
    load::{Profile, Stop, args::LoadArgs},
    peer::ClientOptions,
    result::{Arm, RunResult},
};
use std::{
    io::{self, IsTerminal as _},
    path::Path,
    time::{Duration, SystemTime},
};

/// Below the directory of the journal: runs that were kept.
const STORE: &str = "bench";
/// Whose both ends are here.
const CLIENT: &str = "client";
const SERVER: &str = "server";
/// The network namespace that nettrace runs in.
const HOST: &str = "host";

/// `bench run`.
pub(super) fn run(args: &BenchRunArgs) -> Result<Exit, Failure> {
    show::check(&args.result.report)?;
    let stop = Stop::from(interrupt()?);
    let mut site = site(&args.what, &args.how, &stop, &Wanted::One)?;
    if args.what.scenario.is_some() {
        let arm = if args.with_setting { Arm::B } else { Arm::A };
        site.set(arm)?;
    }
    let mut result = rounds(&mut *site, &args.how, args.what.load.seed, false, &stop)?;
    if args.with_setting {
        result.changes = site.changes();
    }
    drop(site);
    keep(&result, &args.how, args.state.state_dir.as_deref(), args.result.output.as_deref())?;
    told(&result, None, &args.result)
}

/// `bench ab`.
pub(super) fn ab(args: &BenchAbArgs) -> Result<Exit, Failure> {
    show::check(&args.result.report)?;
    let stop = Stop::from(interrupt()?);
    let wanted = if args.placebo { Wanted::Placebo } else { Wanted::Setting(args) };
    let mut site = site(&args.what, &args.how, &stop, &wanted)?;
    let result = rounds(&mut *site, &args.how, args.what.load.seed, true, &stop)?;
    drop(site);
    keep(&result, &args.how, args.state.state_dir.as_deref(), args.result.output.as_deref())?;
    let comparison = compare_arms(&result, &options(&args.judge, false))?;
    told(&result, Some(&comparison), &args.result)?;
    judged(&comparison, &args.judge.fail_if)
}

/// `bench client`: one round, against another node.
pub(super) fn client(args: &BenchClientArgs) -> Result<Exit, Failure> {
    if args.what.peer.peer.is_none() {
        return Err(Failure::usage(anyhow!("--peer says where `nettrace bench server` is")));
    }
    let stop = Stop::from(interrupt()?);
    let how = RoundArgs {
        rounds: 1,
        settle: Duration::ZERO,
        no_pin: args.no_pin,
        no_probes: true,
        no_history: true,
    };
    let mut site = site(&args.what, &how, &stop, &Wanted::One)?;
    let result = rounds(&mut *site, &how, args.what.load.seed, false, &stop)?;
    keep(&result, &how, None, args.result.output.as_deref())?;
    told(&result, None, &args.result)
}

/// Which arms there are.
enum Wanted<'a> {
    One,
    Placebo,
    Setting(&'a BenchAbArgs),
}

/// Where the load runs, and what its arms are.
fn site(
    what: &WhatArgs,
    how: &RoundArgs,
    stop: &Stop,
    wanted: &Wanted<'_>,
) -> Result<Box<dyn Site>, Failure> {
    if let Some(name) = &what.scenario {
        let scenario = scenario::find(name).map_err(crate::bench::BenchError::from)?;
        let options = of_scenario(&what.load, how, stop)?;
        return Ok(Box::new(ScenarioSite::start(scenario, options, matches!(wanted, Wanted::Placebo))?));
    }
    let profile = profile(what)?;
    match what.peer.peer {
        None => {
            let pair = Pair::start()?;
            let arms = arms(wanted, &profile, |inside| match inside.unwrap_or(CLIENT) {
                CLIENT => pair.client().netns.name().to_owned(),
                SERVER => pair.server().netns.name().to_owned(),
                other => other.to_owned(),
            })?;
            Ok(Box::new(PairSite::new(pair, profile, arms, !how.no_pin)))
        }
        Some(address) => {
            let arms = arms(wanted, &profile, |inside| inside.unwrap_or(HOST).to_owned())?;
            let client = peer::connect(&what.peer, address)?;
            let pinning = if how.no_pin { Pinning::Off } else { Pinning::Auto };
            let load = nettrace_bench::load::client::Options { pinning, stop: stop.clone() };
            let options = ClientOptions { data: what.peer.data, load };
            Ok(Box::new(PeerSite::new(client, options, profile, arms)))
        }
    }
}

/// What was typed of a load means little to a scenario, which has its own.
fn of_scenario(load: &LoadArgs, how: &RoundArgs, stop: &Stop) -> Result<LoadOptions, Failure> {
    let times = LoadArgs {
        seconds: load.seconds,
        warm_up_seconds: load.warm_up_seconds,
        seed: load.seed,
        ..LoadArgs::default()
    };
    if times != *load {
        return Err(Failure::usage(anyhow!(
            "a scenario has loads of its own: beside --scenario, only --seconds, --warm-up-seconds and --seed count"
        )));
    }
    let default = LoadOptions::default();
    let seconds = |given: Option<f64>, else_: Duration| match given {
        None => Ok(else_),
        Some(seconds) => Duration::try_from_secs_f64(seconds)
            .map_err(|error| Failure::usage(anyhow!("{seconds} s: {error}"))),
    };
    Ok(LoadOptions {
        measure: seconds(load.seconds, default.measure)?,
        warm_up: seconds(load.warm_up_seconds, default.warm_up)?,
        pin: !how.no_pin,
        stop: stop.clone(),
        ..default
    })
}

fn profile(what: &WhatArgs) -> Result<Profile, Failure> {
    match &what.profile {
        Some(path) => Ok(Profile::from_toml(&text_of(path)?)?),
        None => Ok(what.load.resolve()?),
    }
}

/// What tells the arms apart; `netns` says where a change is made.
fn arms(
    wanted: &Wanted<'_>,
    profile: &Profile,
    netns: impl Fn(Option<&str>) -> String,
) -> Result<Arms, Failure> {
    let args = match wanted {
        Wanted::One => return Ok(Arms::One),
        Wanted::Placebo => return Ok(Arms::Placebo),
        Wanted::Setting(args) => args,
    };
    let dir = StateDir::new(args.state.state_dir.as_deref());
    undo::recover(&dir)?;
    let plan = planned(&args.change, &netns(args.inside.as_deref()))?;
    // Whatever becomes of this process, what it tries is taken back.
    dir.create().map_err(ChangeError::from)?;
    start_guard(&dir)?;
    Ok(Arms::Change(Box::new(Switch::new(dir, plan, Arms::limit(profile)))))
}

fn planned(settings: &[String], netns: &str) -> Result<Plan, Failure> {
    let request = |setting: &String| Request { netns: netns.to_owned(), setting: setting.clone() };
    let requests: Vec<_> = settings.iter().map(request).collect();
    let plan = plan(&settings.join(" "), "tried by bench ab", &requests, false)?;
    if plan.steps.is_empty() {
        return Err(Failure::usage(anyhow!(
            "{} is so already: both arms would be the same; --placebo shows the noise",
            settings.join(" ")
        )));
    }
    Ok(plan)
}

/// All rounds, with progress.
pub(super) fn rounds(
    site: &mut dyn Site,
    how: &RoundArgs,
    seed: Option<u64>,
    both: bool,
    stop: &Stop,
) -> Result<RunResult, Failure> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let options = experiment::Options {
        rounds: how.rounds,
        both,
        settle: how.settle,
        seed: seed.unwrap_or(now.as_nanos() as u64),
        probes: !how.no_probes,
        stop: stop.clone(),
    };
    let bar = if io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let mut told = |n: usize, all: usize, arm: Arm| {
        let arm = match (both, arm) {
            (false, _) => "",
            (true, Arm::A) => ", without",
            (true, Arm::B) => ", with",
        };
        tracing::info!("round {n} of {all}{arm}");
        bar.set_length(all as u64);
        bar.set_position(n as u64 - 1);
    };
    let result = experiment::run(site, &options, &mut told)?;
    bar.finish_and_clear();
    if let Some(partial) = &result.partial {
        say(&format!(
            "{} of {} rounds: {}; what there is is kept, and marked",
            result.rounds.len(),
            partial.planned_rounds,
            partial.reason
        ));
    }
    Ok(result)
}

/// Writes the result where it was asked for, and into the history.
pub(super) fn keep(
    result: &RunResult,
    how: &RoundArgs,
    state_dir: Option<&Path>,
    file: Option<&Path>,
) -> Result<(), Failure> {
    if let Some(path) = file {
        result.write(path).map_err(crate::bench::BenchError::from)?;
    }
    if !how.no_history {
        // What was measured is told all the same.
        match store(state_dir).add(result, file) {
            Ok(number) => say(&format!("run {number} of `nettrace bench history`")),
            Err(error) => say(&format!("the run is not in the history: {error}")),
        }
    }
    Ok(())
}

/// Where runs are kept.
pub(super) fn store(state_dir: Option<&Path>) -> Store {
    Store::new(&StateDir::new(state_dir).path().join(STORE))
}

fn told(result: &RunResult, comparison: Option<&Comparison>, to: &ResultArgs) -> Result<Exit, Failure> {
    let subject = match comparison {
        Some(comparison) => Subject::experiment(result, comparison),
        None => Subject::run(result),
    };
    show::tell(&show::Report::Runs(subject), &to.report)
}
