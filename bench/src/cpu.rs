//! Which CPU runs what, and how much of it a thread got.
//!
//! Where the two ends of a load run decides its latency more than most settings do: a benchmark that leaves it to the
//! scheduler measures the scheduler. So threads are pinned unless that is switched off, and results say where, or why not.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fs, io, time::Duration};

/// Where the threads of one end are to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pinning {
    /// One after the other on all CPUs that the process may use, each thread on one, from the last on: interrupts and other
    /// work prefer the first ones.
    #[default]
    Auto,
    /// One after the other on these, each thread on one.
    On(Vec<usize>),
    /// Where the scheduler puts them.
    Off,
}

/// Where the threads of one end ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pinned {
    /// CPUs that threads were pinned to; none where they were not.
    pub cpus: Vec<usize>,
    /// Why they were not, or not all of them.
    pub why_not: Option<String>,
}

impl Pinning {
    /// CPUs to take in turn, or why there are none.
    #[must_use]
    pub fn resolve(&self) -> Pinned {
        match self {
            Self::Off => Pinned { cpus: Vec::new(), why_not: Some("switched off".to_owned()) },
            Self::On(cpus) if cpus.is_empty() => {
                Pinned { cpus: Vec::new(), why_not: Some("no CPU is named".to_owned()) }
            }
            Self::On(cpus) => Pinned { cpus: cpus.clone(), why_not: None },
            Self::Auto => match allowed() {
                Ok(cpus) => Pinned { cpus: cpus.into_iter().rev().collect(), why_not: None },
                Err(error) => Pinned {
                    cpus: Vec::new(),
                    why_not: Some(format!("the process's CPUs cannot be read: {error}")),
                },
            },
        }
    }
}

impl Pinned {
    /// Pins the calling thread, the `number`-th of its end. Yields why that could not be.
    #[must_use]
    pub(crate) fn apply(&self, number: usize) -> Option<String> {
        let cpu = *self.cpus.get(number % self.cpus.len().max(1))?;
        pin(&[cpu]).err().map(|error| format!("CPU {cpu}: {error}"))
    }
}

/// CPU time that the threads of one end had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Used {
    /// All of them together, ns.
    pub busy_ns: u64,
    /// In so long, ns.
    pub wall_ns: u64,
}

impl Used {
    pub(crate) fn of(busy: Duration, wall: Duration) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self { busy_ns: nanos(busy), wall_ns: nanos(wall) }
    }

    /// Share of a CPU: 1 is a whole one.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.wall_ns == 0 { 0.0 } else { self.busy_ns as f64 / self.wall_ns as f64 }
    }
}

/// CPUs for the two ends of a load on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ends {
    /// For the client.
    pub client: usize,
    /// For the server.
    pub server: usize,
    /// Whether the two are threads of one core, which has them wait for each other (SMT); none where the machine does not say.
    pub share_core: Option<bool>,
}

impl Ends {
    /// The last CPU for the server, and for the client the last one before it of another core, else of the same; with one CPU
    /// both share it. Interrupts and other work prefer the first ones.
    ///
    /// # Errors
    /// When the process's CPUs cannot be read.
    pub fn choose() -> io::Result<Self> {
        let cpus = allowed()?;
        let server = *cpus.last().ok_or(io::ErrorKind::NotFound)?;
        let siblings = siblings(server);
        let others = || cpus.iter().rev().copied().filter(|cpu| *cpu != server);
        let is_sibling = |cpu: &usize| siblings.as_ref().is_some_and(|s| s.contains(cpu));
        let client = others().find(|cpu| !is_sibling(cpu)).or_else(|| others().next()).unwrap_or(server);
        let share_core = siblings.map(|s| s.contains(&client));
        Ok(Self { client, server, share_core })
    }

    /// Where the threads of client and server run: each end on its CPU, or where the scheduler puts them.
    ///
    /// # Errors
    /// As [`Ends::choose`].
    pub fn pinnings(pin: bool) -> io::Result<[Pinning; 2]> {
        if !pin {
            return Ok([Pinning::Off, Pinning::Off]);
        }
        let ends = Self::choose()?;
        Ok([Pinning::On(vec![ends.client]), Pinning::On(vec![ends.server])])
    }
}

/// CPUs that the process may use, in order.
///
/// # Errors
/// When the kernel does not say.
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// The threads of a CPU's core, itself among them.
fn siblings(cpu: usize) -> Option<Vec<usize>> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    parse_list(fs::read_to_string(path).ok()?.trim())
}

/// A list as the kernel writes it, such as `0-3,8`.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= CpuSet::MAX_CPU {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Who runs where. Load on one CPU is the worst case for an observer: whatever the programs take, the load lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Both ends of the load.
    pub load: usize,
    /// nettrace's threads, and the benchmark's own.
    pub observer: Vec<usize>,
}

impl Placement {
    /// The last CPU for the load (interrupts prefer the first ones), all others for nettrace.
    ///
    /// # Errors
    /// When the process's CPUs cannot be read.
    pub fn choose() -> io::Result<Self> {
        let mut observer = allowed()?;
        let load = observer.pop().ok_or(io::ErrorKind::NotFound)?;
        if observer.is_empty() {
            observer.push(load);
        }
        Ok(Self { load, observer })
    }

    /// Whether nettrace's threads compete with the load for its CPU.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.observer.contains(&self.load)
    }
}

/// Keeps the calling thread, and those that it starts from now on, on some CPUs.
///
/// # Errors
/// When the kernel refuses, e.g. for a CPU outside the process's cpuset.
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU) {
        set.set(*cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// CPU time that the calling thread has had.
#[must_use]
pub fn thread_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_list("0-1"), Some(vec![0, 1]));
        assert_eq!(parse_list("0,4-5"), Some(vec![0, 4, 5]));
        assert_eq!(parse_list(""), None);
        assert_eq!(parse_list("0-4000000000"), None);
    }

    #[test]
    fn ends_are_on_cpus_that_may_be_used() {
        let (ends, cpus) = (Ends::choose().unwrap(), allowed().unwrap());
        assert!(cpus.contains(&ends.client) && cpus.contains(&ends.server));
        assert_eq!(ends.client == ends.server, cpus.len() == 1);
    }

    #[test]
    fn who_is_not_pinned_says_why() {
        assert_eq!(Pinning::Off.resolve().why_not.as_deref(), Some("switched off"));
        let nowhere = Pinning::On(vec![CpuSet::MAX_CPU - 1]).resolve();
        assert!(nowhere.apply(3).is_some_and(|why| why.contains("1023")), "{nowhere:?}");
        assert_eq!(Pinning::Off.resolve().apply(0), None);
    }
}
