//! Arguments of the commands that change settings and take changes back.

use super::{CaptureArgs, PeerArgs, Profile, value};
use crate::tune::Objective;
use clap::Args;
use std::{path::PathBuf, time::Duration};

/// Where the journal is.
#[derive(Clone, Debug, Args)]
pub struct StateArgs {
    /// Directory of the journal [default: $NETTRACE_STATE_DIR, or /var/lib/nettrace]
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
}

/// What `apply` and `tune` have in common.
#[derive(Clone, Debug, Args)]
pub struct HowArgs {
    /// Network namespace of --set: a name as in `ip netns`, or a path [default: this one]
    #[arg(long, value_name = "NETNS", requires = "set")]
    pub inside: Option<String>,
    /// Findings of this JSON snapshot or recording of this node, instead of measuring now
    #[arg(long, value_name = "FILE", conflicts_with = "set")]
    pub from: Option<PathBuf>,
    /// What the node is to be good at
    #[arg(long, value_enum, default_value_t)]
    pub profile: Profile,
    /// Only show what would be changed
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Where the journal is.
    #[command(flatten)]
    pub state: StateArgs,
    /// What is measured.
    #[command(flatten)]
    pub capture: CaptureArgs,
}

/// `apply`.
#[derive(Clone, Debug, Args)]
pub struct ApplyArgs {
    /// Findings to be applied, by their ids; see `nettrace recommend`
    #[arg(value_name = "ID", required_unless_present_any = ["all_safe", "set"])]
    pub ids: Vec<String>,
    /// All findings that say `apply` and whose change risks nothing that works now
    #[arg(long, conflicts_with = "ids")]
    pub all_safe: bool,
    /// A setting by hand, KIND:KEY=VALUE; several are made together, or none of them. --help lists the kinds
    #[arg(long, value_name = "SETTING", conflicts_with_all = ["ids", "all_safe"], long_help = settings())]
    pub set: Vec<String>,
    /// Take it back by itself after this time, unless `nettrace keep` is run before
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub until: Option<Duration>,
    /// Also set it at the next start of the machine: kernel settings of the host, in /etc/sysctl.d
    #[arg(long)]
    pub persist: bool,
    /// From what, where, and how.
    #[command(flatten)]
    pub how: HowArgs,
}

/// `tune`.
#[derive(Clone, Debug, Args)]
pub struct TuneArgs {
    /// Findings to be tried, by their ids [default: all that have a change nettrace can make]
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// A setting to be tried, KIND:KEY=VALUE; each by itself. --help of `apply` lists the kinds
    #[arg(long, value_name = "SETTING", conflicts_with = "ids")]
    pub set: Vec<String>,
    /// What is to get better: a quantile of a signal, or `throughput`
    #[arg(long, value_name = "WHAT", default_value = "p95 of tcp.srtt")]
    pub objective: Objective,
    /// What must not get worse, in the same words; may be repeated
    #[arg(long = "guard", value_name = "WHAT", default_value = "throughput")]
    pub guards: Vec<Objective>,
    /// Rounds for each change, of one window without it and one with it
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(5..=200))]
    pub rounds: u32,
    /// Length of a window
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = value::duration)]
    pub window: Duration,
    /// Time after a change that is not measured
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = value::duration)]
    pub settle: Duration,
    /// How sure it has to be, of all changes together, that none is kept that brings nothing
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = confidence)]
    pub confidence: f64,
    /// What an improvement has to be worth, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0, value_parser = percent)]
    pub least_effect: f64,
    /// Make load for it, instead of measuring under that which there is: a kind as of `bench run`, or a TOML file of several
    #[arg(long, value_name = "KIND|FILE", requires = "peer")]
    pub bench: Option<String>,
    /// The other node, where --bench goes.
    #[command(flatten)]
    pub peer: PeerArgs,
    /// Write JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// From what, where, and how.
    #[command(flatten)]
    pub how: HowArgs,
}

fn confidence(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.5..1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0.5 to below 1, like 0.95".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').trim().parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p));
    percent.ok_or_else(|| "expected a number of percent, like 2".to_owned())
}

/// What `--set` takes: a line for each kind of change.
fn settings() -> String {
    let kinds = crate::change::offered();
    let lines: String = kinds.map(|kind| format!("\n  {}\n      {}", kind.syntax(), kind.about)).collect();
    format!("A setting by hand; several are made together, or none of them:{lines}")
}

/// `rollback`.
#[derive(Clone, Debug, Args)]
pub struct RollbackArgs {
    /// Changes, by their numbers or by the ids of their findings; none for those that were not finished
    #[arg(value_name = "CHANGE")]
    pub changes: Vec<String>,
    /// All that is in force, the newest first
    #[arg(long, conflicts_with = "changes")]
    pub all: bool,
    /// Also values that somebody else changed since
    #[arg(long)]
    pub force: bool,
    /// Where the journal is.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `keep`.
#[derive(Clone, Debug, Args)]
pub struct KeepArgs {
    /// Changes, by their numbers or by the ids of their findings; none for all that have a time limit
    #[arg(value_name = "CHANGE")]
    pub changes: Vec<String>,
    /// Where the journal is.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `changes` and `status`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Write JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Where the journal is.
    #[command(flatten)]
    pub state: StateArgs,
}

/// `guard`.
#[derive(Clone, Debug, Args)]
pub struct GuardArgs {
    /// Where the journal is.
    #[command(flatten)]
    pub state: StateArgs,
}
