//! Writing what the flight recorder holds: a recording with a cause and the snapshots around it.
//!
//! Needs the two frames that every recording has (the kernel's books of the time in question are in the last one), the batches
//! and the snapshots; yields a file. It bears its name only when it is whole and on disk. Before it is written, the oldest of the
//! directory go until it has room.

use super::FlightConfig;
use crate::{
    capture::{EndFrame, StartFrame},
    recording::{Kind, WriteError, Writer, WriterOptions},
    report::units,
    snapshot::{Cause, Flight, Snapshot},
};
use bytes::Bytes;
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

/// How files are named: when they were written is between the two.
const PREFIX: &str = "flight-";
const SUFFIX: &str = ".rec";
/// What is not whole yet.
const PART: &str = ".part";
/// Batches are put together up to this size, bytes, so that they compress well.
const FRAME_BYTES: usize = 1 << 20;
/// What a frame takes beside its payload at most, bytes; the file header is among the first ones.
const FRAME_HEADER_BYTES: usize = 64;
/// A cause in one second may have a file in the same one.
const MOST_OF_A_SECOND: u32 = 100;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum FlightError {
    /// The directory, or an old file in it.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was done.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The recording.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What has no form in JSON.
    #[error("cannot encode a frame of a flight: {0}")]
    Json(#[from] serde_json::Error),
}

/// The files of a directory, oldest first, with their sizes, bytes.
///
/// # Errors
/// When it cannot be read; one that is not there has none.
pub fn files(dir: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let of_ours = name.starts_with(PREFIX) && (name.ends_with(SUFFIX) || name.ends_with(PART));
        // One that was deleted meanwhile is none.
        if let Some(metadata) = entry.metadata().ok().filter(|m| of_ours && m.is_file()) {
            found.push((metadata.modified()?, entry.path(), metadata.len()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path, size)| (path, size)).collect())
}

/// Writes a file into a directory, which is made when it is not there.
///
/// # Errors
/// When the directory or the file cannot be written: then there is no file.
pub fn write(
    dir: &Path,
    config: &FlightConfig,
    cause: Cause,
    start: &StartFrame,
    batches: &[Bytes],
    end: &EndFrame,
    snapshots: &[Arc<Snapshot>],
) -> Result<PathBuf, FlightError> {
    let failed = |action, path: &Path, source| FlightError::File { action, path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed("make", dir, e))?;
    let at_unix_ns = cause.at_unix_ns;
    let flight = Flight { cause, windows: Vec::new() };
    let (mut start, mut end) = (start.clone(), end.clone());
    start.meta.flight = Some(flight.clone());
    end.meta.flight = Some(flight);
    let around = &snapshots[snapshots.len().saturating_sub(config.windows)..];
    let frames = Frames {
        start: serde_json::to_vec(&start)?,
        around: around.iter().map(|s| serde_json::to_vec(s.as_ref())).collect::<Result<_, _>>()?,
        batches,
        end: serde_json::to_vec(&end)?,
    };
    make_room(dir, config.max_size, frames.bytes())?;
    let path = free_name(dir, at_unix_ns);
    let mut part = path.clone().into_os_string();
    part.push(PART);
    let part = PathBuf::from(part);
    let finish = || {
        fs::rename(&part, &path)?;
        File::open(dir)?.sync_all()
    };
    frames
        .write(&part)
        .map_err(FlightError::from)
        .and_then(|()| finish().map_err(|e| failed("name", &path, e)))
        // It is of no use, and on a full disk in the way.
        .inspect_err(|_| drop(fs::remove_file(&part)))?;
    Ok(path)
}

/// What goes into a file, in this order.
struct Frames<'a> {
    start: Vec<u8>,
    around: Vec<Vec<u8>>,
    batches: &'a [Bytes],
    end: Vec<u8>,
}

impl Frames<'_> {
    /// What they take at most, bytes: frames are never larger than their payloads, but for their headers.
    fn bytes(&self) -> u64 {
        let around: usize = self.around.iter().map(Vec::len).sum();
        let batches: usize = self.batches.iter().map(Bytes::len).sum();
        let frames = 3 + self.around.len() + self.batches.len();
        (self.start.len() + self.end.len() + around + batches + frames * FRAME_HEADER_BYTES) as u64
    }

    fn write(&self, path: &Path) -> Result<(), WriteError> {
        // What may be is decided before, so that one file has it all.
        let plenty = WriterOptions { max_bytes_total: u64::MAX / 2, max_file_bytes: u64::MAX / 2 };
        let mut writer = Writer::create(path, plenty)?;
        writer.frame(Kind::Start, &self.start)?;
        self.around.iter().try_for_each(|snapshot| writer.frame(Kind::Snapshot, snapshot))?;
        let mut together = Vec::new();
        for batch in self.batches {
            if !together.is_empty() && together.len() + batch.len() > FRAME_BYTES {
                writer.frame(Kind::Batch, &together)?;
                together.clear();
            }
            together.extend_from_slice(batch);
        }
        if !together.is_empty() {
            writer.frame(Kind::Batch, &together)?;
        }
        writer.frame(Kind::End, &self.end)?;
        writer.finish().map(drop)
    }
}

/// Deletes the oldest files until there is room for so many bytes more, and what a killed process left.
fn make_room(dir: &Path, max_bytes: u64, bytes: u64) -> Result<(), FlightError> {
    let failed = |action, path: &Path, source| FlightError::File { action, path: path.to_owned(), source };
    let files = files(dir).map_err(|e| failed("read", dir, e))?;
    let mut total: u64 = files.iter().map(|(_, size)| size).sum();
    for (path, size) in files {
        let unfinished = path.extension().is_some_and(|e| e == "part");
        if !unfinished && total.saturating_add(bytes) <= max_bytes {
            continue;
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("delete", &path, e)),
            _ => total -= size,
        }
    }
    Ok(())
}

/// A name that no file has: `flight-20260101T000000Z.rec`.
fn free_name(dir: &Path, unix_ns: u64) -> PathBuf {
    let utc = units::utc(unix_ns);
    let digits: String = utc.chars().filter(char::is_ascii_digit).collect();
    let (day, time) = digits.split_at(digits.len().saturating_sub(6));
    let name = |n: u32| match n {
        1 => dir.join(format!("{PREFIX}{day}T{time}Z{SUFFIX}")),
        n => dir.join(format!("{PREFIX}{day}T{time}Z-{n}{SUFFIX}")),
    };
    (1..MOST_OF_A_SECOND).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(MOST_OF_A_SECOND))
}

#[cfg(test)]
mod tests;
