//! What is asked for of the commands that change settings.

use super::{Action, UsageError, capture};
use crate::{
    cli::{ApplyArgs, CaptureArgs, HowArgs, PeerArgs, TuneArgs},
    recommend::Profile,
    tune,
};
use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// A window of `tune` that is shorter has hardly any packets in it.
pub const MIN_WINDOW: Duration = Duration::from_millis(20);
/// The process that takes back what `tune` leaves behind waits so long for it.
pub const MAX_WINDOW: Duration = Duration::from_secs(30);
/// How the network namespace is called that nettrace runs in.
const HOST: &str = "host";
/// What is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// These findings.
    Findings(Vec<String>),
    /// Findings that say `apply`, and risk nothing.
    AllSafe,
    /// Findings that have a change which nettrace can make.
    Proposed,
    /// Settings as they were typed.
    Settings {
        /// `KIND:KEY=VALUE` each.
        settings: Vec<String>,
        /// Where.
        netns: String,
    },
}

/// What is to be changed, and how.
#[derive(Clone, Debug)]
pub struct Apply {
    /// What.
    pub wanted: Wanted,
    /// The measurement of findings; none for one that is made now.
    pub from: Option<PathBuf>,
    /// What the node is to be good at.
    pub profile: Profile,
    /// Whether it is only shown.
    pub dry_run: bool,
    /// Whether nobody is asked.
    pub yes: bool,
    /// When it is taken back by itself.
    pub until: Option<Duration>,
    /// Whether it outlives a reboot.
    pub persist: bool,
    /// Directory of the journal, if one was named.
    pub state_dir: Option<PathBuf>,
}

impl Apply {
    /// All that is safe, of a measurement that was made.
    pub(super) fn all_safe(yes: bool, state_dir: Option<PathBuf>) -> Self {
        Self {
            wanted: Wanted::AllSafe,
            from: None,
            profile: Profile::default(),
            dry_run: false,
            yes,
            until: None,
            persist: false,
            state_dir,
        }
    }

    /// What was typed for changes that are made for good, or tried; settings by hand before anything else.
    fn typed(set: Vec<String>, other: Wanted, how: HowArgs) -> (Self, CaptureArgs) {
        let HowArgs { inside, from, profile, dry_run, yes, state, capture } = how;
        let wanted = if set.is_empty() {
            other
        } else {
            Wanted::Settings { settings: set, netns: inside.unwrap_or_else(|| HOST.to_owned()) }
        };
        let apply = Self { wanted, from, profile, dry_run, ..Self::all_safe(yes, state.state_dir) };
        (apply, capture)
    }
}

/// What is to be tried, and how.
#[derive(Clone, Debug)]
pub struct Tune {
    /// What would be changed.
    pub apply: Apply,
    /// How it is measured, and when it is kept.
    pub options: tune::Options,
    /// What load is made meanwhile, and where it goes; none where there is load anyway.
    pub bench: Option<(String, PeerArgs)>,
    /// Whether the answer is JSON.
    pub json: bool,
}

/// A guard may seem to get worse by as much, as a share: less is what windows differ by anyway.
const TOLERANCE: f64 = 0.05;

pub(super) fn tune(args: TuneArgs, page_bytes: u64) -> Result<Action, UsageError> {
    let TuneArgs {
        ids,
        set,
        objective,
        guards,
        rounds,
        window,
        settle,
        confidence,
        least_effect,
        bench,
        peer,
        json,
        how,
    } = args;
    if window < MIN_WINDOW || window > MAX_WINDOW || settle > MAX_WINDOW {
        return Err(UsageError::Window(window));
    }
    let other = if ids.is_empty() { Wanted::Proposed } else { Wanted::Findings(ids) };
    let (apply, measured) = Apply::typed(set, other, how);
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let guards = guards.into_iter().filter(|guard| *guard != objective).collect();
    let bench = bench.map(|load| (load, peer));
    let options = tune::Options {
        objective,
        guards,
        rounds,
        window,
        settle,
        confidence,
        least_effect: least_effect / 100.0,
        tolerance: TOLERANCE,
        seed,
    };
    Ok(Action::Tune {
        capture: capture(measured, page_bytes)?,
        tune: Box::new(Tune { apply, options, bench, json }),
    })
}

pub(super) fn apply(args: ApplyArgs, page_bytes: u64) -> Result<Action, UsageError> {
    let ApplyArgs { ids, all_safe, set, until, persist, how } = args;
    if until.is_some_and(|time| time.is_zero()) {
        return Err(UsageError::Until);
    }
    let other = if all_safe { Wanted::AllSafe } else { Wanted::Findings(ids) };
    let (apply, measured) = Apply::typed(set, other, how);
    Ok(Action::Apply { capture: capture(measured, page_bytes)?, apply: Apply { until, persist, ..apply } })
}
