//! Arguments of `nettrace bench`.

use super::{Format, StateArgs, value};
use clap::{Args, Subcommand};
use nettrace_bench::{compare::FailIf, load::args::LoadArgs};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// `bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What `bench` does.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// List the ready scenarios: the usual advice, one by one, and whether this machine can run it
    #[command(after_help = after_help!(
"  sudo nettrace bench scenarios"))]
    Scenarios,
    /// Run a load in rounds, and keep what came of it
    #[command(after_help = after_help!(
"  # Requests and responses, both ends here, and then the same after a change of yours
  sudo nettrace bench run --kind tcp_rr -o before.json
  sudo nettrace bench run --kind tcp_rr -o after.json
  nettrace bench compare before.json after.json

  # A thousand DNS queries a second to another node, on a schedule that waits for no answer
  sudo nettrace bench run --peer 10.0.0.2:7432 --token-file token --kind dns --rate 1000"))]
    Run(BenchRunArgs),
    /// Run a load without and with a setting, in turn, and say what the setting does
    #[command(after_help = after_help!(
"  # Does it help requests beside a transfer? Both ends here
  sudo nettrace bench ab --kind rr_under_bulk --change qdisc:eth0=fq_codel --report fq.html

  # Ready scenarios have their own setting; how much of it is noise?
  sudo nettrace bench ab --scenario accept-queue
  sudo nettrace bench ab --scenario accept-queue --placebo

  # For a build: exit code 4 when it is shown
  sudo nettrace bench ab --scenario jumbo-frames --fail-if 'stream.throughput < 0.95x'"))]
    Ab(BenchAbArgs),
    /// Compare two results, or the two arms of one
    #[command(after_help = after_help!(
"  nettrace bench compare before.json after.json --report effect.md
  nettrace bench compare before.json after.json --fail-if 'tcp_rr.p99 > 1.1x'
  nettrace bench compare ab.json --format html > ab.html"))]
    Compare(BenchCompareArgs),
    /// Run each ready scenario, and say what its setting does
    #[command(after_help = after_help!(
"  # What does each row of the usual advice bring, on this kernel?
  sudo nettrace bench suite --report advice.html

  # Some of them, with the whole results
  sudo nettrace bench suite accept-queue jumbo-frames --rounds 20 -o results"))]
    Suite(BenchSuiteArgs),
    /// Wait on this node for the load of a client on another one
    #[command(after_help = after_help!(
"  # Makes the token where there is none; copy it to the client
  nettrace bench server --listen 10.0.0.2:7432 --token-file token"))]
    Server(BenchServerArgs),
    /// Run a load against a server on another node, once
    #[command(after_help = after_help!(
"  nettrace bench client --peer 10.0.0.2:7432 --token-file token --kind tcp_stream --connections 4"))]
    Client(BenchClientArgs),
    /// List earlier runs, or show how a figure went over them
    #[command(after_help = after_help!(
"  nettrace bench history
  nettrace bench history tcp_rr --metric p99 --report trend.html"))]
    History(BenchHistoryArgs),
}

/// What is run.
#[derive(Clone, Debug, Args)]
pub struct WhatArgs {
    /// A ready scenario; `nettrace bench scenarios` lists them. Of the options of a load, only times and the seed count
    #[arg(long, value_name = "NAME", conflicts_with_all = ["profile", "kind", "peer"])]
    pub scenario: Option<String>,
    /// Several loads at once, from a TOML file, see docs/bench.md
    #[arg(long, value_name = "FILE", conflicts_with = "kind")]
    pub profile: Option<PathBuf>,
    /// One load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// The other node.
    #[command(flatten)]
    pub peer: PeerArgs,
}

/// Where the server is.
#[derive(Clone, Debug, Args)]
pub struct PeerArgs {
    /// Address of `nettrace bench server` on another node [default: both ends here, in network namespaces of their own]
    #[arg(long, value_name = "ADDRESS:PORT", requires = "token_file")]
    pub peer: Option<SocketAddr>,
    /// Where the other node's data ports are, if not at that address
    #[arg(long, value_name = "ADDRESS", requires = "peer")]
    pub data: Option<IpAddr>,
    /// A file with the token that both ends know
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// How rounds are run.
#[derive(Clone, Debug, Args)]
pub struct RoundArgs {
    /// Rounds, of each arm
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub rounds: u32,
    /// Time after an arm is set, before its load begins
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = value::duration)]
    pub settle: Duration,
    /// Let the scheduler choose the CPUs of client and server
    #[arg(long)]
    pub no_pin: bool,
    /// Do without nettrace's own probes: less load, and no answer to where the time went
    #[arg(long)]
    pub no_probes: bool,
    /// Do not keep the run for `bench history`
    #[arg(long)]
    pub no_history: bool,
}

/// Where results and reports go.
#[derive(Clone, Debug, Args)]
pub struct ResultArgs {
    /// The whole result, as JSON: for `compare`, now or later
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// A report, by its name's ending: .html, .md, .json or .txt; may be repeated [default: text to standard output]
    #[arg(long, value_name = "FILE")]
    pub report: Vec<PathBuf>,
}

/// `bench run`.
#[derive(Clone, Debug, Args)]
pub struct BenchRunArgs {
    /// What is run.
    #[command(flatten)]
    pub what: WhatArgs,
    /// Run the scenario with its setting, not without
    #[arg(long, requires = "scenario")]
    pub with_setting: bool,
    /// How.
    #[command(flatten)]
    pub how: RoundArgs,
    /// Where it goes.
    #[command(flatten)]
    pub result: ResultArgs,
    /// Where runs are kept.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `bench ab`.
#[derive(Clone, Debug, Args)]
pub struct BenchAbArgs {
    /// What is run.
    #[command(flatten)]
    pub what: WhatArgs,
    /// A setting that is tried, KIND:KEY=VALUE, as of `apply`; several are one change. A scenario has its own
    #[arg(long, value_name = "SETTING", conflicts_with_all = ["scenario", "placebo"], required_unless_present_any = ["scenario", "placebo"])]
    pub change: Vec<String>,
    /// Where --change is made: `client` or `server` of a load whose ends are both here [default: client], or a network namespace
    #[arg(long, value_name = "NETNS", requires = "change")]
    pub inside: Option<String>,
    /// Change nothing: what differs between the arms then is noise
    #[arg(long)]
    pub placebo: bool,
    /// How.
    #[command(flatten)]
    pub how: RoundArgs,
    /// What is said of it.
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// Where it goes.
    #[command(flatten)]
    pub result: ResultArgs,
    /// Where runs are kept.
    #[command(flatten)]
    pub state: StateArgs,
}

/// What counts as shown.
#[derive(Clone, Debug, Args)]
pub struct JudgeArgs {
    /// How sure all verdicts together have to be
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    pub confidence: f64,
    /// The effect that matters, in percent: the report says whether such rounds would have shown it
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub effect: f64,
    /// End with exit code 4 when this is shown, e.g. `tcp_rr.p99 > 1.1x` or `dns.errors > 0`; may be repeated
    #[arg(long, value_name = "CONDITION")]
    pub fail_if: Vec<FailIf>,
}

/// `bench compare`.
#[derive(Clone, Debug, Args)]
pub struct BenchCompareArgs {
    /// The result before, or of an experiment with two arms
    pub before: PathBuf,
    /// The result after
    pub after: Option<PathBuf>,
    /// Compare what differs in more than a setting
    #[arg(long)]
    pub force: bool,
    /// What is said of it.
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// What to write to standard output
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// A report, by its name's ending: .html, .md, .json or .txt; may be repeated
    #[arg(long, value_name = "FILE")]
    pub report: Vec<PathBuf>,
}

/// `bench suite`.
#[derive(Clone, Debug, Args)]
pub struct BenchSuiteArgs {
    /// Scenarios [default: all that this machine can run]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Length of each load of a round, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub seconds: f64,
    /// How.
    #[command(flatten)]
    pub how: RoundArgs,
    /// How sure all verdicts of a scenario together have to be
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    pub confidence: f64,
    /// Directory for the result of each scenario, NAME.json
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// A report, by its name's ending: .html, .md or .txt; may be repeated [default: text to standard output]
    #[arg(long, value_name = "FILE")]
    pub report: Vec<PathBuf>,
    /// Where runs are kept.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `bench server`.
#[derive(Clone, Debug, Args)]
pub struct BenchServerArgs {
    /// Where clients come to
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7432")]
    pub listen: SocketAddr,
    /// Address of the data ports [default: that of --listen]
    #[arg(long, value_name = "ADDRESS")]
    pub data: Option<IpAddr>,
    /// First data port; 0 for any that are free
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub data_port: u16,
    /// A file with the token that clients must know; it is made where there is none
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// Let the scheduler choose the CPUs
    #[arg(long)]
    pub no_pin: bool,
}

/// `bench client`.
#[derive(Clone, Debug, Args)]
pub struct BenchClientArgs {
    /// What is run, and against whom.
    #[command(flatten)]
    pub what: WhatArgs,
    /// Let the scheduler choose the CPUs
    #[arg(long)]
    pub no_pin: bool,
    /// Where it goes.
    #[command(flatten)]
    pub result: ResultArgs,
}

/// `bench history`.
#[derive(Clone, Debug, Args)]
pub struct BenchHistoryArgs {
    /// Show how this scenario or load went, instead of listing all runs
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Which load of it [default: all]
    #[arg(long, value_name = "LOAD", requires = "name")]
    pub load: Option<String>,
    /// Which figure of the load: p50, p90, p99, p99.9, throughput or errors
    #[arg(long, value_name = "METRIC", default_value = "p99", requires = "name")]
    pub metric: String,
    /// A report, by its name's ending: .html, .md or .txt; may be repeated [default: text to standard output]
    #[arg(long, value_name = "FILE", requires = "name")]
    pub report: Vec<PathBuf>,
    /// Where runs are kept.
    #[command(flatten)]
    pub state: StateArgs,
}
