//! Places at which a test has the process killed: each of them is one where a machine may lose its power.

/// The number of the place at which the process ends, from 1.
pub(super) const VARIABLE: &str = "NETTRACE_FAULT";

/// Where the process ends by SIGKILL when it is the place of that number that it passes. Nothing in a release.
#[cfg(debug_assertions)]
pub(super) fn point() {
    if is_due() {
        kill();
    }
}

/// Whether the process is to be killed here, after half of what it was about to write.
#[cfg(debug_assertions)]
pub(super) fn is_due() -> bool {
    use std::{
        env,
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
    };
    static DUE: OnceLock<Option<u64>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let due = DUE.get_or_init(|| env::var(VARIABLE).ok()?.parse().ok());
    due.is_some_and(|due| PASSED.fetch_add(1, Ordering::Relaxed) + 1 == due)
}

/// Ends the process as a power failure would: no destructor runs.
#[cfg(debug_assertions)]
pub(super) fn kill() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

#[cfg(not(debug_assertions))]
pub(super) const fn point() {}

#[cfg(not(debug_assertions))]
pub(super) const fn is_due() -> bool {
    false
}

#[cfg(not(debug_assertions))]
pub(super) fn kill() -> ! {
    std::process::abort()
}
