//! `bench history`: earlier runs.

use super::{rounds, show};
use crate::{
    bench::report::Which,
    cli::{
        Exit,
        bench_args::BenchHistoryArgs,
        commands::{Failure, print, say},
    },
    report::units,
};
use anyhow::anyhow;
use nettrace_bench::{
    compare::Metric,
    history::{Listed, Run},
};

/// Lists runs, or shows how a figure went.
pub(super) fn history(args: &BenchHistoryArgs) -> Result<Exit, Failure> {
    let listed = rounds::store(args.state.state_dir.as_deref()).list()?;
    for (line, why) in &listed.damaged {
        say(&format!("line {line} of the history is left out: {why}"));
    }
    let exit = if listed.damaged.is_empty() { Exit::Ok } else { Exit::Damaged };
    match &args.name {
        None => list(&listed)?,
        Some(name) => trend(&listed, name, args)?,
    };
    Ok(exit)
}

fn list(listed: &Listed) -> Result<Exit, Failure> {
    if listed.runs.is_empty() {
        say("no run was kept yet");
    }
    print(|out| {
        listed.runs.iter().try_for_each(|run| {
            let utc = units::utc(run.started_unix_ms.saturating_mul(1_000_000));
            let arms = if run.levels_b.is_empty() { "" } else { ", two arms" };
            let partial = run.partial.as_ref().map(|why| format!("; not whole: {why}")).unwrap_or_default();
            writeln!(out, "{:>4}  {utc}  {}{arms}{}{partial}", run.number, run.scenario.name, changes(run))
        })
    })
}

fn changes(run: &Run) -> String {
    let ids: Vec<_> = run.changes.iter().map(|change| change.id.as_str()).collect();
    if ids.is_empty() { String::new() } else { format!(", {}", ids.join(", ")) }
}

fn trend(listed: &Listed, name: &str, args: &BenchHistoryArgs) -> Result<Exit, Failure> {
    let metric = Metric::ALL.into_iter().find(|metric| metric.name() == args.metric).ok_or_else(|| {
        let known = Metric::ALL.map(Metric::name).join(", ");
        Failure::usage(anyhow!("there is no metric `{}`; there are {known}", args.metric))
    })?;
    let known = |run: &&Run| run.scenario.name == name;
    let runs: Vec<_> = listed.runs.iter().filter(known).collect();
    if runs.is_empty() {
        let mut names: Vec<_> = listed.runs.iter().map(|run| run.scenario.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        return Err(Failure::usage(anyhow!(
            "no run of `{name}` was kept; there are runs of {}",
            names.join(", ")
        )));
    }
    if let Some(load) = args.load.as_deref().filter(|load| !runs.iter().any(|r| r.levels.contains_key(*load)))
    {
        let loads: Vec<_> = runs.iter().flat_map(|r| r.levels.keys().map(String::as_str)).collect();
        return Err(Failure::usage(anyhow!(
            "no run of {name} has a load {load}; there are {}",
            loads.join(", ")
        )));
    }
    let which = Which { scenario: name, load: args.load.as_deref(), metric: Some(metric) };
    show::tell(&show::Report::History(listed, which), &args.report)
}
