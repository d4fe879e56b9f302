//! What the service manager is told, and how often it wants to hear (sd_notify(3)). Without one, nobody is told.

use sd_notify::NotifyState;
use std::time::{Duration, Instant};

/// Tells the service manager.
#[derive(Debug)]
pub(super) struct Notify {
    /// How often it wants a sign of life; none where it does not watch.
    every: Option<Duration>,
    last: Instant,
}

impl Notify {
    pub(super) fn new() -> Self {
        // Half of the limit, as sd_watchdog_enabled(3) says.
        let every = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { every, last: Instant::now() }
    }

    /// The first window is closed: what depends on the agent may start.
    pub(super) fn ready(&self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is being read anew; [`Notify::ready`] follows.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(_) => tell(&[NotifyState::Reloading]),
        }
    }

    /// The end.
    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// One line on how it is doing.
    pub(super) fn status(&self, status: &str) {
        tell(&[NotifyState::Status(status)]);
    }

    /// A sign of life, when it is time. To be called by the loop that must not hang.
    pub(super) fn alive(&mut self) {
        if self.every.is_some_and(|every| self.last.elapsed() >= every) {
            self.last = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // A manager that cannot be told does without.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager was not told: {error}");
    }
}
