//! Whether the load generators agree with those that others have: netperf, sockperf and iperf3 on the same way, in the same
//! minutes, on the same CPU. See `bench/README.md`.
#![expect(clippy::print_stdout, reason = "a benchmark's result goes to standard output")]

mod ours;
pub(crate) mod table;
pub(crate) mod tools;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use nettrace::lab::Pair;
use nettrace_bench::{cpu::Ends, load::args::KindName};
use std::process::ExitCode;
use table::{Row, Sample, Verdict};
use tools::{Servers, Tool};

/// How far the medians may be apart.
const TOLERANCE: f64 = 0.10;
/// The same where the other's client is not connected by UDP, so that the way is looked up for each message: some 5 %.
const TOLERANCE_NOT_CONNECTED: f64 = 0.15;

/// Compares the load generators with netperf, sockperf and iperf3. Needs root; traffic is in network namespaces of its own.
#[derive(Debug, Parser)]
#[command(name = "peers", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rounds at least; each runs every load with both generators, one after the other, and every other round the other way
    /// round
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: usize,
    /// Rounds at most, of loads of which fewer do not tell
    #[arg(long, value_name = "N", default_value_t = 41)]
    most_rounds: usize,
    /// Length of each run; whole seconds, as the tools have it
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Only loads whose name contains this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Client and server on CPUs of their own, instead of both on one
    #[arg(long)]
    two_cpus: bool,
    /// What cargo tells every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Our server alone, for the benchmark
    #[command(hide = true)]
    Serve {
        /// What it is to do, JSON
        order: String,
    },
}

/// A load that both have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) tool: Tool,
    pub(crate) kind: KindName,
    /// Payload of requests and responses, bytes.
    pub(crate) bytes: u32,
    /// Whether the tool's median is exact enough to be compared.
    pub(crate) compares_p50: bool,
}

/// sockperf sends 14 bytes at the least. netperf tells latencies in whole us, so that its rate alone says something:
/// with one request at a time it is one by the mean latency.
const CASES: [Case; 6] = [
    Case { tool: Tool::Netperf, kind: KindName::TcpRr, bytes: 1, compares_p50: false },
    Case { tool: Tool::Netperf, kind: KindName::TcpCrr, bytes: 1, compares_p50: false },
    Case { tool: Tool::Netperf, kind: KindName::UdpRr, bytes: 1, compares_p50: false },
    Case { tool: Tool::Sockperf, kind: KindName::TcpRr, bytes: 14, compares_p50: true },
    Case { tool: Tool::Sockperf, kind: KindName::UdpRr, bytes: 14, compares_p50: true },
    Case { tool: Tool::Iperf3, kind: KindName::TcpStream, bytes: 128 << 10, compares_p50: false },
];

impl Case {
    /// How far the medians may be apart.
    fn tolerance(&self) -> f64 {
        match (self.tool, self.kind) {
            (Tool::Sockperf, KindName::UdpRr) => TOLERANCE_NOT_CONNECTED,
            _ => TOLERANCE,
        }
    }

    fn name(&self) -> String {
        format!("{} against {}", self.kind.name(), self.tool.program())
    }
}

fn main() -> ExitCode {
    let args = Cli::parse();
    let done = match &args.command {
        Some(Command::Serve { order }) => ours::serve(order).map(|()| true),
        None => run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all that could be compared agree.
fn run(args: &Cli) -> Result<bool> {
    let pair = Pair::start()?;
    let mut ends = Ends::choose().context("which CPUs are there?")?;
    if !args.two_cpus {
        ends.client = ends.server;
    }
    let (servers, missing) = Servers::start(&pair, &ends)?;
    for (tool, why) in &missing {
        println!("skipped: what {} is compared with: {why}", tool.program());
    }
    let wanted = |case: &&Case| {
        let is_there = missing.iter().all(|(tool, _)| *tool != case.tool);
        is_there && args.only.as_ref().is_none_or(|name| case.name().contains(name.as_str()))
    };
    let cases: Vec<Case> = CASES.iter().filter(wanted).copied().collect();
    let mut rows: Vec<Row> = cases.iter().map(|case| Row::new(case.name(), case.compares_p50)).collect();
    for round in 0..args.most_rounds.max(args.rounds) {
        for (case, row) in cases.iter().zip(&mut rows) {
            if round >= args.rounds && row.verdict(case.tolerance()) != Verdict::Undecided {
                continue;
            }
            eprintln!("round {}: {}", round + 1, case.name());
            let ours = || ours::run(&pair, &ends, case, args.seconds);
            let theirs = || again(|| servers.run(&pair, &ends, case, args.seconds));
            let (ours, theirs): (Sample, Sample) = if round % 2 == 0 {
                (ours()?, theirs()?)
            } else {
                let theirs = theirs()?;
                (ours()?, theirs)
            };
            row.add(ours, theirs);
        }
    }
    println!("{}", table::Table { rows: &rows, tolerance: TOLERANCE, ends: &ends });
    println!(
        "sockperf's client is not connected by UDP: its rate there is to be within {TOLERANCE_NOT_CONNECTED}."
    );
    let apart = cases.iter().zip(&rows).filter(|(case, row)| !row.agrees(case.tolerance()));
    let apart: Vec<_> = apart.collect();
    for (case, row) in &apart {
        println!("APART: {} is further than {} from 1", row.name(), case.tolerance());
    }
    Ok(apart.is_empty())
}

/// A tool that got too little of a busy machine to tell anything is run again.
fn again<T>(mut run: impl FnMut() -> Result<T>) -> Result<T> {
    const TIMES: usize = 3;
    for _ in 1..TIMES {
        match run() {
            Err(error) => eprintln!("again: {error:#}"),
            done => return done,
        }
    }
    run()
}
