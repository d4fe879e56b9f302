//! The command line: what was typed, and nothing more.
//!
//! Needs the arguments; yields a [`Cli`] or a message and [`Exit::Usage`]. Single values are checked here, so that
//! errors name the option; what they mean together is [`crate::config`]'s business.

/// The end of every help text.
macro_rules! after_help {
    ($examples:literal) => {
        concat!(
            "Exit codes:\n",
            "  0  success\n",
            "  1  failure while running\n",
            "  2  bad usage, or a missing privilege or prerequisite\n",
            "  3  report incomplete because its input was damaged\n",
            "  4  a finding is as grave as --fail-on says, or what --fail-if says is shown\n",
            "\nExamples:\n",
            $examples
        )
    };
}

mod agent;
mod apply;
mod bench;
mod bench_args;
mod capture;
mod change_args;
mod commands;
mod docs;
mod doctor;
mod history;
mod input;
mod lab;
mod recommend;
mod run;
#[cfg(test)]
mod tests;
mod top;
mod tune;
mod undo;
pub(crate) mod value;
mod when;

pub use bench_args::{
    BenchAbArgs, BenchArgs, BenchClientArgs, BenchCommand, BenchCompareArgs, BenchHistoryArgs, BenchRunArgs,
    BenchServerArgs, BenchSuiteArgs, JudgeArgs, PeerArgs, ResultArgs, RoundArgs, WhatArgs,
};
pub use capture::{CaptureArgs, Exemplar};
pub use change_args::{ApplyArgs, GuardArgs, HowArgs, KeepArgs, ListArgs, RollbackArgs, StateArgs, TuneArgs};
pub use commands::main;
pub use docs::{completions, man_page, man_pages};
pub use history::HistoryArgs;
pub use top::TopArgs;
pub use when::{Against, When, WhenError};

pub use crate::{
    lab::Topology,
    recommend::{Format as AdviceFormat, Profile},
    report::Format,
};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// How the process ends.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// Something failed while running.
    Failed = 1,
    /// Bad usage, or something is missing that must be there first: a privilege, a kernel feature.
    Usage = 2,
    /// The report is there, but lacks what was damaged in its input.
    Damaged = 3,
    /// A finding is as grave as `--fail-on` says, or what `--fail-if` says is shown.
    Advised = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Finds and explains network latency on this node.
#[derive(Clone, Debug, Parser)]
#[command(name = "nettrace", version, propagate_version = true, after_help = after_help!(
"  # Would it work here, and with which signals?
  sudo nettrace doctor

  # Where does this node's network latency come from?
  sudo nettrace run

  # The same on made-up traffic, apart from the node's own
  sudo nettrace run --lab

  # What is to be changed?
  sudo nettrace recommend

  # Record now, look later
  sudo nettrace record -d 5m node.rec
  nettrace report node.rec -o node.html"))]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say more about what happens; twice for everything.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Measure, then report.
    #[command(after_help = after_help!(
"  # Ten seconds of everything
  sudo nettrace run

  # One minute of DNS on two kinds of interfaces, as a page
  sudo nettrace run -d 1m -i 'eth*' -i 'cali*' --filter 'udp and port 53' -o dns.html

  # Until Ctrl-C, keeping every packet that took longer than 200 us to reach its application
  sudo nettrace run -d 0 --exemplar off --exemplar rx.total=200us

  # In a pod's network namespace instead, by the number of one of its processes
  sudo nettrace run --netns 4711"))]
    Run(RunArgs),
    /// Show what happens now, on the terminal.
    #[command(
        mut_arg("duration", |arg| arg.default_value("0").help("How long, e.g. 30s or 2m; 0 for until q or Ctrl-C")),
        mut_arg("quiet", |arg| arg.hide(true)),
        after_help = after_help!(
"  # This node, measured now
  sudo nettrace top

  # What the agent of this node sees, or that of another one
  nettrace top --agent
  nettrace top --agent https://node-7:9464 --token-file token --ca-file ca.pem

  # DNS alone, a window each five seconds
  sudo nettrace top --filter 'udp and port 53' --interval 5s

  # For scripts: one window as text, or a minute of windows as JSON, one in a line
  sudo nettrace top --once
  nettrace top --agent --format json -d 1m"))]
    Top(Box<TopArgs>),
    /// Measure for as long as the machine runs: for service managers and clusters.
    #[command(after_help = after_help!(
"  # As configured in /etc/nettrace/agent.toml
  sudo nettrace agent

  # Is the configuration good? Then have the agent read it anew
  nettrace config check /etc/nettrace/agent.toml
  sudo systemctl reload nettrace

  # Without a file, on two kinds of interfaces
  sudo nettrace run --continuous -i 'eth*' -i 'cali*'"))]
    Agent(AgentArgs),
    /// Look at a configuration of the agent.
    #[command(after_help = after_help!(
"  nettrace config check /etc/nettrace/agent.toml"))]
    Config(ConfigArgs),
    /// Measure, and keep everything in a file for `report`.
    #[command(after_help = after_help!(
"  # Five minutes
  sudo nettrace record -d 5m node.rec

  # Until Ctrl-C, one packet in ten, keeping the last 4 GiB
  sudo nettrace record -d 0 --sample 10 --max-size 4GiB node.rec"))]
    Record(RecordArgs),
    /// Report on a recording or a JSON snapshot.
    #[command(after_help = after_help!(
"  # On the terminal
  nettrace report node.rec

  # As a page, with the 50 worst of each list
  nettrace report node.rec --top 50 -o node.html

  # From the snapshot of an earlier run
  nettrace report before.json --format markdown"))]
    Report(ReportArgs),
    /// Measure, then say which of the usual settings this node needs, why, and which would do nothing.
    #[command(after_help = after_help!(
"  # What is to be changed on this node?
  sudo nettrace recommend -d 1m

  # Each setting of the usual advice with its verdict, of a measurement made before
  nettrace recommend --from before.json --all

  # One of them with everything there is to say
  nettrace recommend --from before.json --explain conntrack.max

  # In a pipeline: exit code 4 when something is to be changed
  nettrace recommend --from before.json --fail-on apply

  # The same of one rule, also when it cannot be told
  nettrace recommend --from before.json --explain conntrack.max --fail-on cannot-tell"))]
    Recommend(RecommendArgs),
    /// Change settings as findings say, or as typed: journaled before, read back after, taken back by `rollback`.
    #[command(after_help = after_help!(
"  # What would be changed?
  sudo nettrace apply --all-safe --dry-run

  # One finding of a measurement made before; asks first
  sudo nettrace recommend -d 1m
  sudo nettrace apply conntrack.max

  # On the connection that you are logged in by: back in two minutes unless you say that it works
  sudo nettrace apply --set mtu:eth0=9000 --until 2m
  sudo nettrace keep

  # In a pod, two settings together or none
  sudo nettrace apply --inside pod1 --set qdisc:eth0=fq --set mtu:eth0=1400"))]
    Apply(ApplyArgs),
    /// Try changes under the load that there is, and keep only those that help.
    #[command(after_help = after_help!(
"  # Which of the findings help the latency of DNS, without harm to throughput?
  sudo nettrace tune --objective 'p95 of dns.latency'

  # Does a fair queue help this service, and does another congestion control?
  sudo nettrace tune --filter 'port 8080' --set qdisc:eth0=fq --set sysctl:net.ipv4.tcp_congestion_control=bbr"))]
    Tune(TuneArgs),
    /// Measure a load before and after a change, or without and with it in turn, and say what the change does.
    #[command(after_help = after_help!(
"  # What does a fair queue do for requests beside a transfer? Both ends here
  sudo nettrace bench ab --kind rr_under_bulk --change qdisc:eth0=fq_codel --report fq.html

  # The usual advice, one by one, on networks made for it
  sudo nettrace bench scenarios
  sudo nettrace bench ab --scenario accept-queue
  sudo nettrace bench suite --report advice.html

  # Between two nodes; copy the token that the server makes
  nettrace bench server --listen 10.0.0.2:7432 --token-file token
  nettrace bench run --peer 10.0.0.2:7432 --token-file token --kind tcp_rr -o before.json
  nettrace bench run --peer 10.0.0.2:7432 --token-file token --kind tcp_rr -o after.json
  nettrace bench compare before.json after.json --fail-if 'tcp_rr.p99 > 1.1x'"))]
    Bench(BenchArgs),
    /// Take changes back: those that were named, or those that were not finished.
    #[command(after_help = after_help!(
"  # The last ones, by number or by finding
  sudo nettrace changes
  sudo nettrace rollback 3
  sudo nettrace rollback conntrack.max

  # Everything that nettrace ever changed
  sudo nettrace rollback --all"))]
    Rollback(RollbackArgs),
    /// Say that changes with a time limit stay.
    #[command(after_help = after_help!(
"  sudo nettrace apply --set qdisc:eth0=fq --until 5m
  sudo nettrace keep"))]
    Keep(KeepArgs),
    /// List what was changed, when, why, and what became of it.
    #[command(after_help = after_help!(
"  sudo nettrace changes
  sudo nettrace changes --json"))]
    Changes(ListArgs),
    /// Say what is changed now, and whether it is still as it was set; exit code 1 when not.
    #[command(after_help = after_help!(
"  sudo nettrace status"))]
    Status(ListArgs),
    /// Take changes back when their time is up: started by `apply --until`.
    #[command(hide = true, after_help = after_help!("  sudo nettrace guard"))]
    Guard(GuardArgs),
    /// Report on any time of the past, from what the agent kept of it; or compare two times.
    #[command(after_help = after_help!(
"  # What is there?
  nettrace history

  # What was wrong at 03:12?
  nettrace history --at 03:12

  # An hour of another day as a page
  nettrace history --from '2026-03-01 14:00' --to 15:00 -o hour.html

  # Is the last half hour another one than yesterday's?
  nettrace history --last 30m --compare -1d

  # Two windows of any length
  nettrace history --from 09:00 --to 10:00 --compare 08:00..08:30"))]
    History(HistoryArgs),
    /// Say whether this node offers what `run` needs, and what each signal is measured from. Attaches nothing.
    #[command(after_help = after_help!(
"  # Would it work here, and with which signals?
  sudo nettrace doctor

  # For a script: exit code 0 when `run` would work, 2 when not
  sudo nettrace doctor --json > node.json"))]
    Doctor(DoctorArgs),
    /// Set up network namespaces with real traffic in them, and nothing else.
    #[command(after_help = after_help!(
"  # Until Ctrl-C, with pods on a bridge
  sudo nettrace lab

  # For a minute, with routed pods
  sudo nettrace lab --topology routed -d 1m"))]
    Lab(LabArgs),
    /// Write a shell's completion script to standard output.
    #[command(after_help = after_help!(
"  nettrace completions bash | sudo tee /etc/bash_completion.d/nettrace
  nettrace completions zsh > ~/.zfunc/_nettrace
  nettrace completions fish > ~/.config/fish/completions/nettrace.fish"))]
    Completions(CompletionsArgs),
    /// Write the manual page to standard output, or all pages into a directory.
    #[command(hide = true, after_help = after_help!(
"  nettrace man | man -l -
  nettrace man --dir /usr/local/share/man/man1"))]
    Man(ManArgs),
}

/// `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// What is measured.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// Where the report goes.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Without an end, and without a report: as `nettrace agent` with these options and else its defaults
    #[arg(long, conflicts_with_all = ["apply", "duration", "format", "output", "top"])]
    pub continuous: bool,
    /// Then apply the findings that say `apply` and risk nothing, and measure again
    #[arg(long, conflicts_with = "lab")]
    pub apply: bool,
    /// Do not ask before --apply
    #[arg(short, long, requires = "apply")]
    pub yes: bool,
    /// Where the journal is.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `agent`.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// The configuration [default: /etc/nettrace/agent.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `config`.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with a configuration.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether it is good: exit code 0, or 2 with file, line and what was expected.
    #[command(after_help = after_help!(
"  nettrace config check /etc/nettrace/agent.toml"))]
    Check {
        /// The file
        file: PathBuf,
    },
}

/// `record`.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// The recording; full files become FILE.1, FILE.2 and so on
    pub file: PathBuf,
    /// What is measured.
    #[command(flatten)]
    pub capture: CaptureArgs,
    /// Limit of all files together; the oldest are deleted
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = value::size)]
    pub max_size: u64,
    /// Begin a new file at this size [default: an eighth of --max-size]
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    pub rotate_size: Option<u64>,
}

/// `report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// A recording or a JSON snapshot
    pub file: PathBuf,
    /// Where the report goes.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `recommend`.
#[derive(Clone, Debug, Args)]
pub struct RecommendArgs {
    /// A JSON snapshot or a recording to judge, instead of measuring now
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Also what is not needed, and what cannot be told
    #[arg(long)]
    pub all: bool,
    /// Everything about one rule, see docs/rules.md
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    pub explain: Option<String>,
    /// What the node is to be good at
    #[arg(long, value_enum, default_value_t)]
    pub profile: Profile,
    /// End with exit code 4 when a finding (with --explain: that rule's) is as grave as this, or graver: apply before consider
    /// before cannot-tell. What is not needed is never grave
    #[arg(long, value_name = "VERDICT", value_parser = ["apply", "consider", "cannot-tell"])]
    pub fail_on: Option<String>,
    /// What the advice is written as
    #[arg(long, value_enum, default_value_t, conflicts_with = "explain")]
    pub format: AdviceFormat,
    /// What is measured.
    #[command(flatten)]
    pub capture: CaptureArgs,
}

/// `doctor`.
#[derive(Clone, Copy, Debug, Args)]
pub struct DoctorArgs {
    /// Write JSON instead of text, see docs/doctor.schema.json
    #[arg(long)]
    pub json: bool,
}

/// `lab`.
#[derive(Clone, Debug, Args)]
pub struct LabArgs {
    /// How the pods are joined
    #[arg(long, value_enum, default_value_t)]
    pub topology: Topology,
    /// How long, e.g. 30s or 2m; 0 for until Ctrl-C
    #[arg(short, long, value_name = "TIME", default_value = "0", value_parser = value::duration)]
    pub duration: Duration,
    /// Obey a capture: see `cli/lab.rs`
    #[arg(long, hide = true)]
    pub serve: bool,
}

/// `completions`.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: CompletionShell,
}

/// `man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Write all pages here instead of the main one to standard output
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// Where a report goes, and how it looks.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Report")]
pub struct OutputArgs {
    /// What the report is written as [default: by the extension of --output, text without one]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Write the report to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Show so many of each list
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
}

/// Shells that there is a completion script for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    /// GNU bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl From<CompletionShell> for Shell {
    fn from(shell: CompletionShell) -> Self {
        match shell {
            CompletionShell::Bash => Self::Bash,
            CompletionShell::Zsh => Self::Zsh,
            CompletionShell::Fish => Self::Fish,
        }
    }
}
