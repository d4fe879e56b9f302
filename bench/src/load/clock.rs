//! The time of a run: ns since its start, the same for all of its threads.

use super::Stop;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    time::{ClockId, clock_gettime},
};
use std::{
    io,
    num::NonZeroU64,
    os::fd::AsFd,
    sync::{Barrier, OnceLock},
    time::Duration,
};

/// When a run started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start_ns: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start_ns: monotonic_ns() }
    }

    /// Since the start, ns; 0 before it.
    pub(super) fn now_ns(self) -> u64 {
        monotonic_ns().saturating_sub(self.start_ns)
    }

    /// Sleeps until then; at most for a while, so that who stops is heard.
    pub(super) fn sleep_until(self, due_ns: u64, stop: &Stop) {
        const NAP_NS: u64 = 50_000_000;
        loop {
            let left_ns = due_ns.saturating_sub(self.now_ns());
            if left_ns == 0 || stop.is_set() {
                return;
            }
            std::thread::sleep(Duration::from_nanos(left_ns.min(NAP_NS)));
        }
    }
}

/// Of CLOCK_MONOTONIC, ns. A plain number: the arithmetic of [`std::time::Instant`] takes longer than the reading.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Since some time before now, so that neither is negative; in ns it lasts for centuries.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Where the threads of a run wait for each other, connected, so that all start at the same time.
pub(super) struct Line {
    barrier: Barrier,
    clock: OnceLock<Clock>,
}

impl Line {
    /// For so many threads.
    pub(super) fn new(threads: usize) -> Self {
        Self { barrier: Barrier::new(threads), clock: OnceLock::new() }
    }

    /// Waits for the others. Every thread must come here, also one that has failed.
    pub(super) fn wait(&self) -> Clock {
        self.barrier.wait();
        *self.clock.get_or_init(Clock::start)
    }
}

/// Of a duration, ns; some 500 years at the most.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Has the kernel wake the calling thread when it asked for it: by default it may be 50 us late (`timer_slack_ns`, prctl(2)).
pub(super) fn exact_timers() {
    // A kernel that refuses leaves it as it was, which the lateness of the schedule shows.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}

/// Waits until something can be done with a socket, or so many ns are over. Yields what can be done.
pub(super) fn wait(socket: &impl AsFd, what: PollFlags, limit_ns: u64) -> io::Result<PollFlags> {
    let limit = Timespec {
        tv_sec: i64::try_from(limit_ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(limit_ns % 1_000_000_000).unwrap_or(0),
    };
    let mut fds = [PollFd::new(socket, what)];
    match poll(&mut fds, Some(&limit)) {
        Ok(_) => Ok(fds[0].revents()),
        // A signal: the caller looks at the time and comes again.
        Err(rustix::io::Errno::INTR) => Ok(PollFlags::empty()),
        Err(errno) => Err(errno.into()),
    }
}
