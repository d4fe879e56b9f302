//! Where the journal is kept.

use super::{JournalError, atomic};
use std::{
    env,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Where it is unless told otherwise: it outlives a reboot.
const DEFAULT: &str = "/var/lib/nettrace";
/// Names another place.
const VARIABLE: &str = "NETTRACE_STATE_DIR";

/// The directory of the journal and its lock.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The one that was asked for, that of `NETTRACE_STATE_DIR`, or `/var/lib/nettrace`.
    #[must_use]
    pub fn new(asked: Option<&Path>) -> Self {
        let named = || env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self(asked.map(Path::to_owned).or_else(named).unwrap_or_else(|| DEFAULT.into()))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether there ever was a change.
    #[must_use]
    pub fn has_journal(&self) -> bool {
        self.journal().exists()
    }

    /// Size of the journal, bytes, and when it was last written; none where there is none. While both are the same, so is what
    /// it says.
    #[must_use]
    pub fn journal_stamp(&self) -> Option<(u64, SystemTime)> {
        let metadata = self.journal().metadata().ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Makes it, for root alone.
    pub(crate) fn create(&self) -> Result<(), JournalError> {
        // What is on disk of a journal is found again only if its directory is.
        let new: Vec<_> = self.0.ancestors().take_while(|dir| !dir.exists()).collect();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        let parents = || new.iter().filter_map(|dir| dir.parent().filter(|p| p.exists()));
        made.and_then(|()| parents().try_for_each(atomic::sync_dir)).map_err(|error| JournalError::File {
            action: "make",
            path: self.0.clone(),
            error,
        })
    }
}
