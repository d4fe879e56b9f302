//! A measurement made before: a recording or a JSON snapshot, and what is wrong with it.

use super::{
    Exit,
    commands::{Failure, say},
};
use crate::{
    capture::{ReplayError, replay},
    recording::{self, FileKind},
    snapshot::{ReadError, Rotated, Snapshot},
};
use anyhow::Context as _;
use std::{fs, path::Path};

/// What was read.
pub(super) struct Input {
    /// The measurement, as far as it is intact.
    pub(super) snapshot: Snapshot,
    /// Whether a part of it is damaged, which was said.
    pub(super) damaged: bool,
}

impl Input {
    /// How a command ends that did all it could with it.
    pub(super) const fn exit(&self) -> Exit {
        if self.damaged { Exit::Damaged } else { Exit::Ok }
    }
}

/// Reads a file. What is damaged is said, and the rest taken.
///
/// # Errors
/// When nothing of it can be used; of a snapshot, [`ReadError`] is the cause.
pub(super) fn read(file: &Path) -> Result<Input, Failure> {
    let kind = recording::sniff(file).with_context(|| format!("cannot read {}", file.display()));
    match kind.map_err(Failure::usage)? {
        FileKind::Recording => {
            let replayed = replay(file).map_err(|error| match &error {
                ReplayError::Read(inner) if !inner.is_damage() => Failure::usage(error),
                _ => Failure::damaged(error),
            })?;
            let snapshot = replayed.finished.snapshot;
            if let Some(Rotated { files, size_bytes }) = snapshot.meta.rotated {
                say(&format!(
                    "the recording's start was rotated away ({files} files, {size_bytes} bytes); the report has \
                     the rest, and the kernel's totals of all"
                ));
            }
            replayed.damage.iter().for_each(|d| say(d));
            Ok(Input { snapshot, damaged: !replayed.damage.is_empty() })
        }
        FileKind::Snapshot => {
            let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let snapshot = Snapshot::from_json(&bytes)
                .with_context(|| format!("cannot read snapshot {}", file.display()))
                .map_err(Failure::usage)?;
            Ok(Input { snapshot, damaged: false })
        }
        FileKind::Empty => Err(Failure::usage(anyhow::anyhow!("{} is empty", file.display()))),
        FileKind::Unknown => {
            let what = "is neither a recording nor a JSON snapshot of nettrace";
            Err(Failure::usage(anyhow::anyhow!("{} {what}", file.display())))
        }
    }
}

/// Of a failure to read, whether a newer nettrace wrote the snapshot.
pub(super) fn too_new(failure: &Failure) -> Option<String> {
    let error = failure.cause::<ReadError>()?;
    matches!(error, ReadError::TooNew { .. }).then(|| error.to_string())
}
