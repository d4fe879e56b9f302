//! `bench history`: earlier runs.

use super::{rounds, show};
use crate::{
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
    let newest = listed.runs.iter().rev().find(|run| run.scenario.name == name).ok_or_else(|| {
        let mut names: Vec<_> = listed.runs.iter().map(|run| run.scenario.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        Failure::usage(anyhow!("no run of `{name}` was kept; there are runs of {}", names.join(", ")))
    })?;
    let load = match &args.load {
        Some(load) => load.clone(),
        None => newest.levels.keys().next().cloned().unwrap_or_default(),
    };
    let points = listed.trend(name, &load, metric);
    if points.is_empty() {
        let loads: Vec<_> = newest.levels.keys().map(String::as_str).collect();
        return Err(Failure::usage(anyhow!(
            "no run of {name} tells {load}.{}; its loads are {}",
            metric.name(),
            loads.join(", ")
        )));
    }
    show::trend(name, &load, metric, &points, &args.report)
}
