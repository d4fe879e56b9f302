//! Least privilege: what the agent keeps once everything is attached, and how the rest goes, on all of its threads.
//!
//! Needs: capabilities to give away, none of which it asks for; a kernel with seccomp, and from 5.13 with Landlock. Yields:
//! threads that hold the capabilities of [`CAPABILITIES`] that this run needs, with no_new_privs, without ambient and bounding
//! set, under a seccomp filter and a Landlock domain, and a [`Status`] that says so. What the kernel lacks is said and no error;
//! what it has and refuses is one. Nothing of it can be taken back.
//!
//! Capabilities, no_new_privs and Landlock domains belong to threads: [`threads`] has each thread take its own. A seccomp filter
//! is put on all of them by the kernel (SECCOMP_FILTER_FLAG_TSYNC). Threads made later inherit everything.
//!
//! Run-time statistics are the one thing that needs CAP_SYS_ADMIN for good, so that is on a thread which can do nothing else
//! with it, see [`statistics`].

mod capabilities;
mod files;
pub mod statistics;
mod syscalls;
mod threads;

pub use capabilities::{CAPABILITIES, Kept, When};

use capabilities::Sets;
use caps::Capability;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// The section `[privilege]` of the agent's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrivilegeConfig {
    /// Whether capabilities that are not needed any more are given up once everything is attached.
    pub drop: bool,
    /// Whether system calls that the agent never makes are refused.
    pub seccomp: bool,
    /// Whether it may write only where it keeps its files, and read only what it reads.
    pub landlock: bool,
    /// Whether a thread of its own keeps CAP_SYS_ADMIN, for the kernel's run-time statistics; without it the cost of kernel
    /// programs is not known.
    pub statistics: bool,
    /// Whether kernel programs may still be loaded: for a change of what is measured, which begins measuring anew, without a
    /// new start of the agent.
    pub loading: bool,
    /// More files and directories that may be read.
    pub read: Vec<PathBuf>,
}

impl Default for PrivilegeConfig {
    fn default() -> Self {
        Self { drop: true, seccomp: true, landlock: true, statistics: true, loading: true, read: Vec::new() }
    }
}

/// What this run still has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// It enters network namespaces other than its own.
    pub namespaces: bool,
    /// It opens namespaces by a process's number (`/proc/PID/ns/net`).
    pub processes: bool,
    /// Files and directories that it reads besides those of the system: its configuration, a token, certificates.
    pub read: Vec<PathBuf>,
    /// Directories that it writes to; they are there.
    pub write: Vec<PathBuf>,
}

impl Needs {
    /// For namespaces at these paths; none is its own.
    #[must_use]
    pub fn of_namespaces<'a>(paths: impl IntoIterator<Item = Option<&'a Path>>) -> Self {
        let mut needs = Self::default();
        for path in paths.into_iter().flatten() {
            needs.namespaces = true;
            needs.processes |= path.starts_with("/proc");
        }
        needs
    }
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Capabilities that all threads but `statistics` keep; none where none were given up.
    pub capabilities: Option<Vec<String>>,
    /// Whether the bounding set is empty, or why not.
    pub bounding: Part,
    /// System calls.
    pub seccomp: Part,
    /// Files.
    pub landlock: Part,
    /// Run-time statistics.
    pub statistics: Part,
    /// Threads at which everything was looked at afterwards.
    pub threads: usize,
    /// Threads that wait in the kernel, and give everything up before they do anything else.
    pub late: Vec<String>,
}

/// One part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// In force, and what that means here.
    On(String),
    /// Not, and why not.
    Off(String),
}

impl Default for Part {
    fn default() -> Self {
        Self::Off(NOT_ASKED.to_owned())
    }
}

const NOT_ASKED: &str = "switched off in the configuration";

impl Status {
    /// In words, a line for each part.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let kept = match &self.capabilities {
            None => format!("capabilities: all kept, {NOT_ASKED}"),
            Some(names) if names.is_empty() => "capabilities: none".to_owned(),
            Some(names) => format!("capabilities: {}", names.join(", ")),
        };
        let part = |name: &str, part: &Part| match part {
            Part::On(what) => format!("{name}: {what}"),
            Part::Off(why) => format!("{name}: off, {why}"),
        };
        let parts = [
            ("bounding set", &self.bounding),
            ("seccomp", &self.seccomp),
            ("Landlock", &self.landlock),
            ("run-time statistics", &self.statistics),
        ];
        let parts = parts.iter().map(|(name, which)| part(name, which));
        let late = self.late.iter().map(|thread| format!("not yet: {thread}, which waits in the kernel"));
        [kept].into_iter().chain(parts).chain(late).collect()
    }
}

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// It is done once.
    #[error("privileges were given up before")]
    Again,
    /// The kernel does not tell what there is.
    #[error("cannot read {what}: {error}")]
    Read {
        /// Which file or set.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// A thread.
    #[error(transparent)]
    Thread(#[from] threads::ThreadError),
    /// The filter.
    #[error("cannot filter system calls: {0}")]
    Seccomp(#[from] seccompiler::Error),
    /// The rules for files.
    #[error("cannot restrict files: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// A directory that is to be written to.
    #[error("cannot open {}, which is to be written to: {error}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The thread of the run-time statistics.
    #[error("the thread of run-time statistics: {0}")]
    Statistics(#[from] statistics::StatisticsError),
    /// A thread has more or less than it should have.
    #[error("thread {thread}: {what} is {found} and not {expected}")]
    Unlike {
        /// Its number and name.
        thread: String,
        /// The line of its status.
        what: &'static str,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
}

impl From<seccompiler::BackendError> for PrivilegeError {
    fn from(error: seccompiler::BackendError) -> Self {
        Self::Seccomp(error.into())
    }
}

/// Whether bpf(2) still loads programs: not after [`drop`] with `loading = false`. What would load some asks first, and refuses
/// before it ends what runs.
#[must_use]
pub fn may_load() -> bool {
    MAY_LOAD.load(Ordering::SeqCst)
}

static MAY_LOAD: AtomicBool = AtomicBool::new(true);

/// What the agent had before it gave anything up can be read from here on only through what is opened now.
fn before() {
    crate::symbols::keep_open();
}

/// Gives up what is not needed any more, on all threads, and looks at each of them afterwards.
///
/// # Errors
/// When the kernel refuses what it offers, or a thread is not as it should be afterwards. Some of it is given up then.
pub fn drop(config: &PrivilegeConfig, needs: &Needs) -> Result<Status, PrivilegeError> {
    static DONE: AtomicBool = AtomicBool::new(false);
    let mut status = Status::default();
    if !config.drop && !config.seccomp && !config.landlock {
        return Ok(status);
    }
    if DONE.swap(true, Ordering::SeqCst) {
        return Err(PrivilegeError::Again);
    }
    before();
    let had = Sets::read()?;
    let keeper = if config.drop { keep_statistics(config, &had, &mut status)? } else { None };
    let ruleset = if config.landlock {
        let (ruleset, part) = files::ruleset(config, needs)?;
        status.landlock = part;
        ruleset
    } else {
        None
    };
    let kept = had.kept(needs);
    let own = capabilities::Own {
        sets: config.drop.then_some(kept),
        statistics: keeper.map(|tid| (tid, Sets::statistics())),
        bounding: config.drop && had.may_clear_bounding(),
        ruleset,
    };
    if config.drop {
        status.capabilities = Some(kept.names().iter().map(ToString::to_string).collect());
        status.bounding = had.bounding_part();
    }
    status.late = threads::on_all(move |tid| own.take(tid))?;
    if config.seccomp {
        for program in syscalls::filters(config, needs)? {
            seccompiler::apply_filter_all_threads(&program)?;
        }
        MAY_LOAD.store(config.loading, Ordering::SeqCst);
        let loading = if config.loading { "" } else { ", and loading kernel programs" };
        status.seccomp =
            Part::On(format!("system calls that the agent never makes are refused (EPERM){loading}"));
    }
    if keeper.is_some() {
        statistics::seal()?;
    }
    let expected = Expected { config, kept, keeper };
    status.threads = expected.check(&status.late)?;
    Ok(status)
}

/// Starts the thread of the run-time statistics, where it is wanted and of use; yields its number.
fn keep_statistics(
    config: &PrivilegeConfig,
    had: &Sets,
    status: &mut Status,
) -> Result<Option<i32>, PrivilegeError> {
    if !config.statistics {
        return Ok(None);
    }
    if !had.has(Capability::CAP_SYS_ADMIN) {
        status.statistics = Part::Off("CAP_SYS_ADMIN was not there".to_owned());
        return Ok(None);
    }
    let tid = statistics::start()?;
    status.statistics = Part::On(format!(
        "CAP_SYS_ADMIN is on thread {tid} alone{}",
        if config.seccomp { ", which can switch them on and do nothing else" } else { "" }
    ));
    Ok(Some(tid))
}

/// What each thread's status is to say.
struct Expected<'a> {
    config: &'a PrivilegeConfig,
    kept: Sets,
    keeper: Option<i32>,
}

impl Expected<'_> {
    /// Looks at all threads; yields how many there were.
    fn check(&self, late: &[String]) -> Result<usize, PrivilegeError> {
        let mut number = 0;
        for tid in threads::list().map_err(|error| read_error(threads::TASKS, error))? {
            let path = format!("{}/{tid}/status", threads::TASKS);
            let Ok(text) = fs::read_to_string(&path) else {
                // It has ended.
                continue;
            };
            let thread = threads::name(tid);
            if late.contains(&thread) {
                continue;
            }
            self.check_one(tid, &thread, &text)?;
            number += 1;
        }
        Ok(number)
    }

    fn check_one(&self, tid: i32, thread: &str, text: &str) -> Result<(), PrivilegeError> {
        let sets = if self.keeper == Some(tid) { Sets::statistics() } else { self.kept };
        let mut lines = vec![("NoNewPrivs", "1".to_owned())];
        if self.config.drop {
            lines.extend([
                ("CapEff", sets.hex()),
                ("CapPrm", sets.hex()),
                ("CapInh", hex(0)),
                ("CapAmb", hex(0)),
            ]);
        }
        if self.config.seccomp {
            // SECCOMP_MODE_FILTER
            lines.push(("Seccomp", "2".to_owned()));
        }
        for (what, expected) in lines {
            let found = field(text, what).unwrap_or_default();
            if found != expected {
                let (thread, found) = (thread.to_owned(), found.to_owned());
                return Err(PrivilegeError::Unlike { thread, what, found, expected });
            }
        }
        Ok(())
    }
}

/// A set as `/proc/PID/status` shows it.
fn hex(bits: u64) -> String {
    format!("{bits:016x}")
}

/// The value of a line of `/proc/PID/status`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn read_error(what: &str, error: io::Error) -> PrivilegeError {
    PrivilegeError::Read { what: what.to_owned(), error }
}

#[cfg(test)]
mod tests;
