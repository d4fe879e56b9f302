//! Until when something has to be read, and threads that are left behind when it is not.
//!
//! A kernel that holds a lock, a driver that waits for its hardware and a list without end keep whoever asks. Readers look
//! at a [`Deadline`] between two answers; [`start`] has the rest on a thread of its own, for which nobody waits longer.

use crate::iface::Namespace;
use std::{
    io::{self, ErrorKind},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// What a node is set to is read within this time, or said not to be: whoever waits for a report does not wait for a kernel
/// that answers slowly.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// What readers that have seen the deadline pass need to hand over what they have, all together.
const GRACE: Duration = Duration::from_millis(500);

/// Not all was read in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not all was read within {0:?}")]
pub(crate) struct Late(Duration);

impl From<Late> for io::Error {
    fn from(late: Late) -> Self {
        Self::new(ErrorKind::TimedOut, late)
    }
}

/// Until when something has to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    begun: Instant,
    limit: Duration,
}

impl Deadline {
    /// So long from now on.
    pub(crate) fn after(limit: Duration) -> Self {
        Self { begun: Instant::now(), limit }
    }

    /// What is left.
    ///
    /// # Errors
    /// When nothing is.
    pub(crate) fn left(self) -> Result<Duration, Late> {
        let left = self.limit.checked_sub(self.begun.elapsed()).filter(|left| !left.is_zero());
        left.ok_or(Late(self.limit))
    }

    /// Whether there is time for more.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn check(self) -> Result<(), Late> {
        self.left().map(drop)
    }
}

/// What is being read on a thread of its own.
#[derive(Debug)]
pub(crate) struct Pending<T>(io::Result<Receiver<io::Result<T>>>);

/// Has something read in a namespace, on a thread of its own: entering one cannot be undone.
pub(crate) fn start<T: Send + 'static>(
    namespace: &Namespace,
    what: impl FnOnce() -> T + Send + 'static,
) -> Pending<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let namespace = namespace.clone();
    let inside = move || {
        // Nobody listens any more where it came too late.
        let _ = sender.send(namespace.enter().map(|()| what()));
    };
    Pending(thread::Builder::new().name("node".to_owned()).spawn(inside).map(|_| receiver))
}

impl<T> Pending<T> {
    /// What was read. A thread that hangs is left behind: it holds no lock, and ends with its system call or the process.
    ///
    /// # Errors
    /// When the namespace could not be entered, reading panicked, or nothing came in time.
    pub(crate) fn wait(self, deadline: Deadline) -> io::Result<T> {
        let left = deadline.limit.saturating_add(GRACE).saturating_sub(deadline.begun.elapsed());
        self.0?.recv_timeout(left).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => Err(Late(deadline.limit).into()),
            RecvTimeoutError::Disconnected => Err(io::Error::other("the thread that reads panicked")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_or_panics_is_not_waited_for() {
        let deadline = Deadline::after(Duration::from_millis(10));
        let begun = Instant::now();
        let hang = || start(&Namespace::host(), || thread::sleep(Duration::from_secs(3600)));
        let (hangs, others) = (hang(), [hang(), hang(), hang()]);
        let panics = start(&Namespace::host(), || assert!(Deadline::after(GRACE).check().is_err()));
        let reads = start(&Namespace::host(), || 7);
        let error = hangs.wait(deadline).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::TimedOut, "not all was read within 10ms")
        );
        assert!(deadline.check().is_err());
        assert!(others.into_iter().all(|other| other.wait(deadline).is_err()));
        assert!(begun.elapsed() < 3 * GRACE, "each that hangs waits anew");
        assert_eq!(reads.wait(deadline).unwrap(), 7, "what is there is taken, however late");
        assert!(panics.wait(deadline).unwrap_err().to_string().contains("panicked"));
    }
}
