//! One at a time: whoever changes something holds the lock of the state directory.

use super::StateDir;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(20);

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("another nettrace{} is changing this node; nothing was done", holder.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Held {
        /// Whose process, if it says so.
        holder: Option<u32>,
    },
    /// The file.
    #[error("cannot lock {path}: {error}")]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// The lock, held until this is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it, or waits for it so long.
    pub(super) fn take(dir: &StateDir, wait: Duration) -> Result<Self, LockError> {
        let path = dir.lock();
        let failed = |error| LockError::File { path: path.clone(), error };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        let started = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() < wait => thread::sleep(POLL),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(LockError::Held { holder: holder(&mut file) });
                }
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        // Who holds it is told to those who wait, no more: on a full disk it is held all the same.
        let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
