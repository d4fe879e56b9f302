//! Arguments of the commands that change settings and take changes back.

use super::{CaptureArgs, Profile, value};
use clap::Args;
use std::{path::PathBuf, time::Duration};

/// Where the journal is.
#[derive(Clone, Debug, Args)]
pub struct StateArgs {
    /// Directory of the journal [default: $NETTRACE_STATE_DIR, or /var/lib/nettrace]
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
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
    /// Take it back by itself after this time, unless `nettrace keep` is run before
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub until: Option<Duration>,
    /// Also set it at the next start of the machine: kernel settings of the host, in /etc/sysctl.d
    #[arg(long)]
    pub persist: bool,
    /// Where the journal is.
    #[command(flatten)]
    pub state: StateArgs,
    /// What is measured.
    #[command(flatten)]
    pub capture: CaptureArgs,
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
