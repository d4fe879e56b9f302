//! What measuring with nettrace costs: throughput and latency of a load with and without it, ns of each program, memory.
//! See `bench/README.md`.
#![expect(clippy::print_stdout, reason = "a benchmark's result goes to standard output")]

mod agent;
mod load;
mod net;
pub(crate) mod overhead;
mod report;
pub(crate) mod stats;
mod summary;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use load::Load;
use net::Layout;
use nettrace_bench::cpu::Placement;
use overhead::{Plan, Run};
use report::{Machine, Report};
use serde::Serialize;
use std::{path::PathBuf, process::ExitCode, time::Duration};
use summary::Summary;

/// What measuring with nettrace costs. Needs root; all traffic is in network namespaces of its own.
#[derive(Debug, Parser)]
#[command(name = "overhead", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// About a minute: one layout, two short rounds; for checking that it runs and that the counts add up
    #[arg(long)]
    quick: bool,
    /// Rounds in which throughput is compared
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "quick")]
    rounds: usize,
    /// Rounds in which the kernel keeps statistics of every program run
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "quick")]
    cost_rounds: usize,
    /// Length of each run
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds, conflicts_with = "quick")]
    seconds: f64,
    /// How client and server are joined; may be repeated [default: direct and bridge]
    #[arg(long, value_enum)]
    layout: Vec<Layout>,
    /// Which loads; may be repeated [default: all]
    #[arg(long, value_enum)]
    load: Vec<Load>,
    /// Measure these signals only, by name or group, e.g. `rx`: what does a part cost?
    #[arg(long, value_name = "NAME")]
    signal: Vec<String>,
    /// Write every single run and the summary to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What cargo tells every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// nettrace alone, for the benchmark
    #[command(hide = true)]
    Agent {
        /// What it is to do, JSON
        spec: String,
    },
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(s) if (0.1..=3600.0).contains(&s) => Ok(s),
        _ => Err("expected 0.1 to 3600".to_owned()),
    }
}

#[derive(Serialize)]
struct Json<'a> {
    machine: &'a Machine,
    plan: &'a Plan,
    summaries: &'a [Summary],
    runs: &'a [Run],
}

fn main() -> ExitCode {
    let args = Cli::parse();
    let result = match &args.command {
        Some(Command::Agent { spec }) => agent::run(spec).map(|()| true),
        None => overhead(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("overhead: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether the counts add up.
fn overhead(args: &Cli) -> Result<bool> {
    let plan = plan(args);
    let placement = Placement::choose().context("which CPUs are there?")?;
    let machine = Machine::here(placement);
    let runs = overhead::run(&plan, &machine.placement, |n, all, what| eprintln!("{n} of {all}: {what}"))?;
    let summaries = summary::summarise(&runs);
    println!("{}", Report { machine: &machine, plan: &plan, summaries: &summaries });
    if !args.quick {
        report::goals(&summaries).iter().for_each(|line| println!("{line}"));
    }
    if let Some(path) = &args.json {
        let json = Json { machine: &machine, plan: &plan, summaries: &summaries, runs: &runs };
        let text = serde_json::to_string_pretty(&json)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let off = runs.iter().filter_map(|r| r.cost.as_ref()).map(|c| &c.off).next_back();
    for probe in off.into_iter().flatten().filter(|p| !p.ends_with(": not selected")) {
        println!("off: {probe}");
    }
    let wrong = overhead::check(&runs);
    wrong.iter().for_each(|line| println!("WRONG: {line}"));
    if wrong.is_empty() {
        println!(
            "The counts of all {} runs add up: every record and packet was measured or counted as lost.",
            runs.len()
        );
    }
    Ok(wrong.is_empty())
}

fn plan(args: &Cli) -> Plan {
    let or = |given: &[Layout], default: &[Layout]| {
        if given.is_empty() { default.to_vec() } else { given.to_vec() }
    };
    let loads = match args.load.as_slice() {
        [] => vec![Load::TcpRr, Load::UdpRr, Load::UdpFlood, Load::TcpCrr],
        given => given.to_vec(),
    };
    let signals = args.signal.clone();
    if args.quick {
        let layouts = or(&args.layout, &[Layout::Direct]);
        return Plan { rounds: 2, cost_rounds: 1, time: Duration::from_millis(500), layouts, loads, signals };
    }
    Plan {
        rounds: args.rounds,
        cost_rounds: args.cost_rounds,
        time: Duration::from_secs_f64(args.seconds),
        layouts: or(&args.layout, &[Layout::Direct, Layout::Bridge]),
        loads,
        signals,
    }
}
