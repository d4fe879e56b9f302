//! What the journal says: records, and what they come to.

use super::{ChangeError, Place, kinds};
use serde::{Deserialize, Serialize};
use std::{fmt, fs, time::SystemTime};

/// One value that is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// In which network namespace.
    pub place: Place,
    /// Kind of change, of [`super::KINDS`].
    pub kind: String,
    /// What is set, within its kind.
    pub key: String,
    /// What was there, exactly, in the kind's own form.
    pub before: String,
    /// What is set.
    pub after: String,
    /// Who else sets it, and what that means.
    pub owners: Vec<String>,
    /// Index of the interface that it is of: another one may have its name later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<i32>,
}

impl Step {
    /// Whether it sets the same as another.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        let kind = kinds::find(&self.kind).ok().filter(|kind| kind.name == other.kind);
        kind.is_some_and(|kind| {
            kind.resource(&self.key) == kind.resource(&other.key)
                && (kind.of_machine || self.place.is(&other.place))
        })
    }

    /// One of its values as people read it.
    #[must_use]
    pub fn show(&self, value: &str) -> String {
        kinds::find(&self.kind).map_or_else(|_| value.to_owned(), |kind| (kind.shown)(value))
    }
}

/// As people read it: `sysctl net.core.somaxconn in host`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap = if self.key.is_empty() { "" } else { " " };
        write!(f, "{}{gap}{} in {}", self.kind, self.key, self.place.netns)
    }
}

/// When a change is taken back unless somebody says that it is to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Until {
    /// The boot in which that time is counted.
    pub boot: String,
    /// CLOCK_BOOTTIME, ns.
    pub boottime_ns: u64,
}

impl Until {
    /// So long from now on.
    #[must_use]
    pub fn after(duration: std::time::Duration) -> Self {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self { boot: boot(), boottime_ns: boottime_ns().saturating_add(ns) }
    }

    /// What is left, ns; none when the time is up, or the machine was started anew.
    #[must_use]
    pub fn left_ns(&self) -> Option<u64> {
        let left = self.boottime_ns.saturating_sub(boottime_ns());
        (self.boot == boot() && left > 0).then_some(left)
    }
}

/// What is to be done, before it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Its number, from 1.
    pub change: u64,
    /// What it is called: a finding's id, or what was typed.
    pub id: String,
    /// Why.
    pub why: String,
    /// Unix time, ns.
    pub at_unix_ns: u64,
    /// In which boot: what the kernel is set to is gone with the next.
    pub boot: String,
    /// What is set, in this order.
    pub steps: Vec<Step>,
    /// When it is taken back by itself.
    pub until: Option<Until>,
}

impl Begin {
    /// Whether a step of it went with the machine's restart: what the kernel is set to does, and so do namespaces. Files and
    /// what they keep stay.
    #[must_use]
    pub fn is_over(&self, step: &Step) -> bool {
        let outlives = || {
            let of_machine = kinds::find(&step.kind).is_ok_and(|kind| kind.of_machine);
            of_machine
                || step.place.is_own() && self.steps.iter().any(|s| kinds::keeps(&s.kind, &s.key, step))
        };
        self.boot != boot() && !outlives()
    }

    /// A step that outlived a restart: the namespace that nettrace runs in is another one since.
    pub(super) fn found_again(&self, step: Step) -> Result<Step, ChangeError> {
        let moved = self.boot != boot() && step.place.is_own();
        Ok(if moved { Step { place: Place::find(&step.place.netns)?, ..step } } else { step })
    }
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub(super) enum Record {
    /// Something is about to be changed.
    Begin(Begin),
    /// The kernel made something else of a value, which it is known by from here on.
    Found { change: u64, step: usize, value: String },
    /// Everything is set and was read back.
    Done { change: u64 },
    /// It stays though its time is up.
    Kept { change: u64 },
    /// Everything is as it was, or what was changed is gone.
    Undone { change: u64, why: String, at_unix_ns: u64 },
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It was begun, and whether all of it was done is not known.
    Unfinished,
    /// It is done.
    Done,
    /// It is taken back.
    Undone {
        /// Why.
        why: String,
        /// Unix time, ns.
        at_unix_ns: u64,
    },
}

/// One change, with what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What was to be done; each step's `after` is what the kernel made of it.
    #[serde(flatten)]
    pub begin: Begin,
    /// What became of it.
    #[serde(flatten)]
    pub state: State,
}

impl Entry {
    /// Whether something may be set by it now.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        !matches!(self.state, State::Undone { .. })
    }

    /// Whether it is to be taken back by itself, now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        match self.state {
            State::Unfinished => true,
            State::Done => self.begin.until.as_ref().is_some_and(|until| until.left_ns().is_none()),
            State::Undone { .. } => false,
        }
    }
}

/// Unix time, ns.
pub(super) fn now_unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Which boot this is; empty where the kernel does not tell.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Time since the boot, also that of sleep, ns.
fn boottime_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs().saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.unsigned_abs())
}
