//! `bench suite`: every ready scenario, and what its setting does.

use super::{rounds, show};
use crate::{
    bench::{
        BenchError,
        scenario::{self, LoadOptions, Scenario},
        site::ScenarioSite,
    },
    cli::{
        Exit,
        bench_args::BenchSuiteArgs,
        commands::{Failure, say},
        run::interrupt,
    },
};
use anyhow::{Context as _, anyhow};
use nettrace_bench::{
    compare::{Comparison, Options, compare_arms},
    load::Stop,
};
use std::{fs, time::Duration};

/// What came of one.
pub(super) struct Tried {
    /// Which.
    pub(super) scenario: &'static Scenario,
    /// What it proves, or why it was not run.
    pub(super) outcome: Result<Comparison, String>,
}

/// Runs them one after the other; what fails is told, and the others go on.
pub(super) fn suite(args: &BenchSuiteArgs) -> Result<Exit, Failure> {
    show::check(&args.report)?;
    let stop = Stop::from(interrupt()?);
    let wanted = wanted(&args.names)?;
    let measure = Duration::try_from_secs_f64(args.seconds)
        .map_err(|error| Failure::usage(anyhow!("--seconds {}: {error}", args.seconds)))?;
    if let Some(dir) = &args.output {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let options =
        LoadOptions { measure, pin: !args.how.no_pin, stop: stop.clone(), ..LoadOptions::default() };
    let mut tried = Vec::new();
    for scenario in wanted {
        if stop.is_set() {
            break;
        }
        say(&format!("{}: {} -> {}", scenario.name, scenario.arms[0], scenario.arms[1]));
        let outcome = match scenario.unavailable() {
            Some(why) => Err(why),
            None => one(scenario, args, &options),
        };
        match &outcome {
            Ok(comparison) => say(&comparison.sentence),
            Err(why) => say(&format!("not run: {why}")),
        }
        tried.push(Tried { scenario, outcome });
    }
    show::tell(&show::Report::Suite(show::settings(&tried)), &args.report)
}

fn one(
    scenario: &'static Scenario,
    args: &BenchSuiteArgs,
    options: &LoadOptions,
) -> Result<Comparison, String> {
    let run = || -> Result<Comparison, Failure> {
        let mut site = ScenarioSite::start(scenario, options.clone(), false)?;
        let result = rounds::rounds(&mut site, &args.how, None, true, &options.stop)?;
        drop(site);
        let file = args.output.as_ref().map(|dir| dir.join(format!("{}.json", scenario.name)));
        rounds::keep(&result, &args.how, args.state.state_dir.as_deref(), file.as_deref())?;
        Ok(compare_arms(&result, &Options { confidence: args.confidence, ..Options::default() })?)
    };
    run().map_err(Failure::into_text)
}

fn wanted(names: &[String]) -> Result<Vec<&'static Scenario>, Failure> {
    if names.is_empty() {
        return Ok(scenario::all().iter().collect());
    }
    let find = |name: &String| scenario::find(name).map_err(|error| BenchError::from(error).into());
    names.iter().map(find).collect()
}
