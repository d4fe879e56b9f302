//! Which CPU runs what, and how much of it a thread got.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};
use std::{io, time::Duration};

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
        let set = sched_getaffinity(None)?;
        let mut observer: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
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
