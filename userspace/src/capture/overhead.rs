//! What measuring costs, by the kernel's own run-time statistics and getrusage.
//!
//! The statistics themselves cost some 70 ns a program run, so they are switched on for a fiftieth of the time only.

use crate::{
    privilege::statistics,
    snapshot::{Overhead, ProgramCost},
};
use aya::Ebpf;
use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

/// Statistics are on for this long ...
const ON: Duration = Duration::from_millis(40);
/// ... out of this long.
const PERIOD: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Default)]
struct Runs {
    time: Duration,
    count: u64,
}

/// Keeps the books on cost.
pub(super) struct Meter {
    started: Instant,
    user_ns: u64,
    system_ns: u64,
    switched_on: Option<(OwnedFd, Instant)>,
    next_on: Instant,
    on: Duration,
    /// What programs had run before, when a statistics user other than us left counts behind.
    baseline: HashMap<String, Runs>,
}

impl Meter {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        let (user_ns, system_ns, _) = usage();
        Self {
            started: now,
            user_ns,
            system_ns,
            switched_on: None,
            next_on: now + ON,
            on: Duration::ZERO,
            baseline: HashMap::new(),
        }
    }

    /// Switches the statistics on or off when it is time.
    pub(super) fn tick(&mut self, ebpf: &Ebpf) {
        let now = Instant::now();
        if let Some((_, since)) = &self.switched_on {
            if now - *since >= ON {
                self.off();
            }
        } else if now >= self.next_on {
            self.next_on = now + PERIOD;
            if self.baseline.is_empty() {
                self.baseline = runs(ebpf);
            }
            match statistics::enable() {
                Ok(fd) => self.switched_on = Some((fd, now)),
                Err(error) => tracing::debug!("no run-time statistics: {error}"),
            }
        }
    }

    fn off(&mut self) {
        if let Some((_, since)) = self.switched_on.take() {
            self.on += since.elapsed();
        }
    }

    /// Ends a window: its cost. Its largest resident set is that at its end.
    pub(super) fn turn(&mut self, ebpf: &Ebpf) -> Overhead {
        let mut cost = self.finish(ebpf);
        let (user_ns, system_ns, _) = usage();
        let next_on = self.next_on;
        *self = Self { next_on, baseline: runs(ebpf), user_ns, system_ns, ..Self::start() };
        cost.max_rss_bytes = resident_bytes().unwrap_or(cost.max_rss_bytes);
        cost
    }

    /// The cost so far.
    pub(super) fn finish(&mut self, ebpf: &Ebpf) -> Overhead {
        self.off();
        let mut programs: Vec<_> = runs(ebpf)
            .into_iter()
            .map(|(program, now)| {
                let before = self.baseline.get(&program).copied().unwrap_or_default();
                let count = now.count.saturating_sub(before.count);
                (program, now.time.saturating_sub(before.time), count)
            })
            .collect();
        programs.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let total: Duration = programs.iter().map(|(_, time, _)| *time).sum();
        let elapsed = self.started.elapsed();
        let (user_ns, system_ns, max_rss_bytes) = usage();
        Overhead {
            programs: programs
                .into_iter()
                .filter(|(_, _, runs)| *runs > 0)
                .map(|(program, time, runs)| ProgramCost {
                    program,
                    runs,
                    ns_per_run: time.as_nanos() as f64 / runs as f64,
                })
                .collect(),
            stats_share: share(self.on, elapsed),
            kernel_cpu_share: share(total, self.on),
            user_cpu_ns: user_ns.saturating_sub(self.user_ns),
            system_cpu_ns: system_ns.saturating_sub(self.system_ns),
            max_rss_bytes,
            map_bytes: ebpf.maps().map(|(_, map)| map_bytes(map)).sum(),
        }
    }
}

fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { part.as_secs_f64() / whole.as_secs_f64() }
}

fn runs(ebpf: &Ebpf) -> HashMap<String, Runs> {
    ebpf.programs()
        .filter_map(|(name, program)| {
            let info = program.info().ok()?;
            Some((name.to_owned(), Runs { time: info.run_time(), count: info.run_count() }))
        })
        .collect()
}

/// Memory of a map, as the kernel accounts it in the descriptor's fdinfo.
fn map_bytes(map: &aya::maps::Map) -> u64 {
    use aya::maps::Map;
    use std::os::fd::{AsFd, AsRawFd};
    let (Map::Array(data)
    | Map::PerCpuArray(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::PerCpuHashMap(data)
    | Map::RingBuf(data)) = map
    else {
        return 0;
    };
    let path = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let memlock = text.lines().find_map(|l| l.strip_prefix("memlock:"));
    memlock.and_then(|v| v.trim().parse().ok()).unwrap_or(0)
}

/// Resident set of this process, bytes; none where procfs does not tell.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// CPU time in user and system mode, ns, and largest resident set, bytes, of this process.
fn usage() -> (u64, u64, u64) {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills the struct, which is valid when zeroed, too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1000;
    (ns(usage.ru_utime), ns(usage.ru_stime), usage.ru_maxrss as u64 * 1024)
}
