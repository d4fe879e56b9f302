//! Why something is not changed.

use super::{JournalError, LockError};
use std::io;

/// Why something is not changed, or not changed back.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// What was typed is no change.
    #[error("`{found}` is no change: expected {expected}")]
    Form {
        /// What was typed.
        found: String,
        /// What it should look like.
        expected: String,
    },
    /// There is no such kind of change.
    #[error("there is no change of kind `{found}`{hint}; the kinds are {kinds}")]
    Kind {
        /// What was typed.
        found: String,
        /// The nearest one, if one is near.
        hint: String,
        /// All of them.
        kinds: String,
    },
    /// The setting is not there: on this kernel, or any more.
    #[error("{what} is not there: {error}")]
    Missing {
        /// Setting, interface or namespace.
        what: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// It may not be written.
    #[error(
        "{what} cannot be written: {error}; nettrace has to run as root on the node itself, or in a container that is privileged"
    )]
    ReadOnly {
        /// The setting.
        what: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// The kernel does not take the value.
    #[error("the kernel does not take `{value}` for {what}: {error}")]
    Refused {
        /// The setting.
        what: String,
        /// The value.
        value: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// A value that makes no sense, known before the kernel is asked.
    #[error("{what} cannot be `{value}`: {why}")]
    Value {
        /// The setting.
        what: String,
        /// The value.
        value: String,
        /// Why.
        why: String,
    },
    /// It could be set, but not exactly set back.
    #[error("{what} is left as it is, because it could not be restored exactly: {why}")]
    Unrestorable {
        /// The setting.
        what: String,
        /// Why.
        why: String,
    },
    /// What was tried out after the change does not work.
    #[error("{what} does not work as `{value}`: {why}")]
    Trial {
        /// The setting.
        what: String,
        /// The value.
        value: String,
        /// What went wrong.
        why: String,
    },
    /// The value is another one than it was when the change was looked at.
    #[error("{what} was changed to `{now}` in the meantime; look at it again")]
    Meanwhile {
        /// The setting.
        what: String,
        /// What it is now.
        now: String,
    },
    /// The value is not what was set.
    #[error(
        "{what} was set to `{set}` and then changed to `{now}` by somebody else; --force sets it back to `{before}` all the same"
    )]
    Conflict {
        /// The setting.
        what: String,
        /// What it was set to.
        set: String,
        /// What it is now.
        now: String,
        /// What it was before.
        before: String,
    },
    /// The interface has another name by now.
    #[error(
        "{what}: interface {link} is called {now} now; `ip link set {now} name {link}` makes it known again"
    )]
    Renamed {
        /// The setting.
        what: String,
        /// How the interface was called.
        link: String,
        /// How it is called now.
        now: String,
    },
    /// A later change builds on it.
    #[error("{what} was changed again by change {later}: roll that back first")]
    Later {
        /// The setting.
        what: String,
        /// The later change's number.
        later: u64,
    },
    /// There is no such change.
    #[error("there is no change {0} in the journal; `nettrace changes` lists them")]
    NoChange(u64),
    /// A change that was begun could not be undone either.
    #[error("{failure}; and it could not be undone: {undo}; left to do by hand:{}", lines(steps))]
    Stuck {
        /// What went wrong first.
        failure: String,
        /// What went wrong then.
        undo: String,
        /// What is left to be done.
        steps: Vec<String>,
    },
    /// Something else that the system does not do.
    #[error("{what}: {error}")]
    System {
        /// What was done.
        what: String,
        /// What the system says.
        error: io::Error,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
}

fn lines(steps: &[String]) -> String {
    steps.iter().map(|step| format!("\n  {step}")).collect()
}

impl ChangeError {
    /// Whether nothing is changed and it is for the user to put right.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        !matches!(self, Self::Stuck { .. } | Self::System { .. } | Self::Trial { .. })
    }

    /// An error of a file or request that is about a setting: missing, not to be written, or a value that is not taken.
    pub(super) fn of(what: &str, value: &str, error: io::Error) -> Self {
        let what = what.to_owned();
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EOPNOTSUPP) => {
                Self::Missing { what, error }
            }
            Some(libc::EROFS | libc::EACCES | libc::EPERM) => Self::ReadOnly { what, error },
            Some(libc::EINVAL | libc::ERANGE | libc::ENOMEM | libc::EBUSY) => {
                Self::Refused { what, value: value.to_owned(), error }
            }
            _ => Self::System { what, error },
        }
    }

    /// An error of setting what could be read just before: it is there, and the kernel does not take the value.
    pub(super) fn of_write(what: &str, value: &str, error: io::Error) -> Self {
        match Self::of(what, value, error) {
            Self::Missing { what, error } => Self::Refused { what, value: value.to_owned(), error },
            other => other,
        }
    }

    /// Whether what was changed is not there any more, so that there is nothing to be changed back.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}
