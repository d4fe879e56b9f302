//! What was: a bounded ring of snapshots on disk, and what any time of it looked like.
//!
//! Needs snapshots, one for each `interval`; yields the same again, merged, for any window of time. One process writes, any
//! number read beside it. A directory holds **segments**, append-only files of checksummed frames (see `format.rs`); when all
//! together would pass `max_size`, or all of one is older than `keep`, whole oldest segments go.
//!
//! What is written is safe: each frame is on disk (`fdatasync`) before [`Store::append`] returns, so a crash or a loss of power
//! costs no more than the frame that was being written. The next start cuts that one off. A damaged frame in the middle is
//! passed over and counted, and none after it is lost. A full disk is an error of that one append; the next one is tried again.
//!
//! Frames carry the Unix time and the time since boot with the boot's id. Where the two disagree the clock was set: what is
//! found for a window says when and by how much.

mod clock;
pub mod compare;
pub mod counts;
mod format;
mod list;
mod read;
mod scan;
mod store;
#[cfg(test)]
mod tests;

pub use clock::{Stamp, Step};
pub use format::{EntryHead, SEGMENT_VERSION};
pub use list::{Listing, Run, SegmentInfo, list};
pub use read::{Found, Gap, Range, each, heads, read};
pub use store::{Stats, Store};

use serde::Deserialize;
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where histories are, unless the configuration says otherwise.
pub const DEFAULT_DIR: &str = "/var/lib/nettrace/history";
/// The smallest [`HistoryConfig::max_size`], bytes.
pub const LEAST_SIZE_BYTES: u64 = 1 << 20;

/// The section `[history]` of the agent's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryConfig {
    /// Whether anything is kept.
    pub enabled: bool,
    /// The directory. It is made when it is not there, for its owner alone.
    pub dir: PathBuf,
    /// The time that one snapshot is of.
    #[serde(deserialize_with = "crate::config::units::duration")]
    pub interval: Duration,
    /// All segments together, bytes. Never exceeded.
    #[serde(deserialize_with = "crate::config::units::bytes")]
    pub max_size: u64,
    /// Segments older than this go.
    #[serde(deserialize_with = "crate::config::units::duration")]
    pub keep: Duration,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            dir: DEFAULT_DIR.into(),
            interval: Duration::from_secs(60),
            max_size: 512 << 20,
            keep: Duration::from_secs(30 * 86_400),
        }
    }
}

impl HistoryConfig {
    /// Whether the values go together.
    ///
    /// # Errors
    /// [`HistoryError::Config`], with what is wrong.
    pub fn check(&self) -> Result<(), HistoryError> {
        let wrong = |what: String| Err(HistoryError::Config(what));
        if self.max_size < LEAST_SIZE_BYTES {
            return wrong(format!("max_size of {} bytes: at least {LEAST_SIZE_BYTES}", self.max_size));
        }
        if self.interval < Duration::from_secs(1) {
            return wrong(format!("interval of {:?}: at least a second", self.interval));
        }
        if self.keep < self.interval {
            return wrong(format!(
                "keep of {:?} is shorter than the interval of {:?}",
                self.keep, self.interval
            ));
        }
        Ok(())
    }
}

/// Why a history cannot be opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The configuration contradicts itself.
    #[error("history: {0}")]
    Config(String),
    /// Another process writes it.
    #[error("another process{} writes the history in {}", holder.map(|pid| format!(" ({pid})")).unwrap_or_default(), dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Whose process, if it says so.
        holder: Option<u32>,
    },
    /// The disk is full, or the owner's quota is. What is there is as it was; later appends are tried again.
    #[error("no room for the history in {}: {source}", path.display())]
    Full {
        /// The file that did not grow.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or the directory.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was done.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// One snapshot is larger than a history of this size takes. It is not written.
    #[error("a snapshot of {bytes} bytes is too large for the history: at most {limit}")]
    TooLarge {
        /// Its size as a frame, bytes.
        bytes: u64,
        /// The limit, bytes.
        limit: u64,
    },
    /// A snapshot that has no form in JSON.
    #[error("cannot write the snapshot as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Nothing was ever kept there.
    #[error("there is no history in {}", dir.display())]
    None {
        /// The directory.
        dir: PathBuf,
    },
}

impl HistoryError {
    /// What happened to a file; a full disk is told apart.
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path, source },
            _ => Self::File { action, path, source },
        }
    }

    /// Whether the disk was full.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether it is for the user to put right.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Locked { .. } | Self::None { .. })
    }
}

/// Goes over the whole frames of a segment's bytes; yields how many there are and how many places are damaged. For fuzzing.
#[doc(hidden)]
pub fn scan_segment(bytes: &[u8], mut take: impl FnMut(&EntryHead, &[u8])) -> (usize, u32) {
    let found = scan::scan(bytes);
    for entry in &found.entries {
        let frame = bytes.get(entry.offset as usize..).and_then(|rest| rest.get(..entry.len as usize));
        if let Some((head, json)) = frame.and_then(scan::unpack_entry) {
            take(&head, &json);
        }
    }
    let bytes_at = |at: u64, len: usize| Some(bytes.get(usize::try_from(at).ok()?..)?.get(..len)?.to_vec());
    let _ = scan::by_index(bytes_at, bytes.len() as u64);
    (found.entries.len(), found.damaged)
}

/// All segments of a directory by their number, which is the order in which they were written.
fn segment_paths(dir: &Path) -> Result<Vec<(u32, PathBuf)>, HistoryError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => HistoryError::None { dir: dir.to_owned() },
        _ => HistoryError::file("read", dir, source),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(sequence) = path.file_name().and_then(|name| format::sequence_of(name.as_encoded_bytes()))
        {
            found.push((sequence, path));
        }
    }
    found.sort_unstable_by_key(|(sequence, _)| *sequence);
    Ok(found)
}
