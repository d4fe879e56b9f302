//! Reading a history, beside the process that writes it: the frames of any window, one after another.
//!
//! Needs a directory and a [`Range`]; yields snapshots in the order in which they were written, or all of them merged. Memory is
//! bounded by one segment. What is damaged is passed over and counted; a frame that is just being written is not there yet; a
//! segment that is deleted meanwhile is as if it had been before.

use super::{
    HistoryError, Step,
    format::{Entry, EntryHead, MAGIC, SEGMENT_VERSION, SegmentHeader, Summary, Tail},
    scan::{Scanned, by_index, scan, tail, unpack_entry},
    segment_paths,
};
use crate::snapshot::Snapshot;
use serde::Serialize;
use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// Larger files are no segments: a whole one, and a frame that is larger than it should be.
const MOST_BYTES: u64 = 128 << 20;
/// Gaps and steps that are told.
const MOST_TOLD: usize = 50;

/// A window of time: from its start up to, but not with, its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// Unix time, ns.
    pub from_unix_ns: u64,
    /// Unix time, ns.
    pub to_unix_ns: u64,
}

impl Range {
    /// All there is.
    pub const ALL: Self = Self { from_unix_ns: 0, to_unix_ns: u64::MAX };

    /// Whether an entry lies in it, or a part of it does.
    const fn has(&self, head: &EntryHead) -> bool {
        head.start_unix_ns < self.to_unix_ns && head.end_unix_ns() > self.from_unix_ns
    }
}

/// A time of which nothing was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Unix time, ns.
    pub from_unix_ns: u64,
    /// Unix time, ns.
    pub to_unix_ns: u64,
}

/// What there is of a window.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// All frames merged; none where there are none.
    pub snapshot: Option<Snapshot>,
    /// Frames.
    pub frames: u64,
    /// The earliest start of them, Unix time, ns. Frames are taken as a whole, so it may lie before the window.
    pub from_unix_ns: u64,
    /// The latest end of them.
    pub to_unix_ns: u64,
    /// How long they measured, all together, ns.
    pub covered_ns: u64,
    /// Times between them of which nothing was kept; the first 50.
    pub gaps: Vec<Gap>,
    /// Times that the clock was set between them, the first 50: where it was set back, the window is of two times.
    pub steps: Vec<Step>,
    /// Frames that could not be read.
    pub damaged: u64,
}

impl Found {
    /// Counts a frame, which follows the one that was counted last.
    fn count(&mut self, head: &EntryHead, last: Option<&EntryHead>) {
        self.from_unix_ns =
            if self.frames == 0 { head.start_unix_ns } else { self.from_unix_ns.min(head.start_unix_ns) };
        self.to_unix_ns = self.to_unix_ns.max(head.end_unix_ns());
        self.frames += 1;
        self.covered_ns = self.covered_ns.saturating_add(head.duration_ns);
        let Some(last) = last else { return };
        if let Some(step) = last.written.step_to(&head.written) {
            if self.steps.len() < MOST_TOLD {
                self.steps.push(step);
            }
            return;
        }
        // What lies between two windows that follow each other is short.
        let between = head.start_unix_ns.saturating_sub(last.end_unix_ns());
        if between > last.duration_ns / 2 && between > 1_000_000_000 && self.gaps.len() < MOST_TOLD {
            self.gaps.push(Gap { from_unix_ns: last.end_unix_ns(), to_unix_ns: head.start_unix_ns });
        }
    }
}

/// All frames of a window, merged.
///
/// # Errors
/// When there is no history, or the directory cannot be read.
pub fn read(dir: &Path, range: Range) -> Result<Found, HistoryError> {
    let mut merged: Option<Snapshot> = None;
    let found = each(dir, range, |_, snapshot| match &mut merged {
        None => merged = Some(snapshot),
        Some(merged) => merged.merge(&snapshot),
    })?;
    Ok(Found { snapshot: merged, ..found })
}

/// Hands each frame of a window on, in the order in which they were written; yields what is known beside them.
///
/// # Errors
/// When there is no history, or the directory cannot be read.
pub fn each(
    dir: &Path,
    range: Range,
    mut take: impl FnMut(&EntryHead, Snapshot),
) -> Result<Found, HistoryError> {
    let mut found = Found::default();
    let mut last: Option<EntryHead> = None;
    walk(dir, range, |segment, entry| {
        match segment.snapshot(entry) {
            Some(snapshot) => {
                found.count(&entry.head, last.as_ref());
                last = Some(entry.head);
                take(&entry.head, snapshot);
            }
            None => found.damaged += 1,
        }
        Ok(())
    })
    .map(|damaged| found.damaged += damaged)?;
    Ok(found)
}

/// When the frames of a window are of, and when they were written, without reading them.
///
/// # Errors
/// When there is no history, or the directory cannot be read.
pub fn heads(dir: &Path, range: Range) -> Result<Vec<EntryHead>, HistoryError> {
    let mut heads = Vec::new();
    walk(dir, range, |_, entry| {
        heads.push(entry.head);
        Ok(())
    })?;
    Ok(heads)
}

/// Goes over the entries of a window; yields how many places in those segments are damaged.
fn walk(
    dir: &Path,
    range: Range,
    mut take: impl FnMut(&Segment, &Entry) -> Result<(), HistoryError>,
) -> Result<u64, HistoryError> {
    let mut damaged = 0;
    for (_, path) in segment_paths(dir)? {
        let Some(segment) = unless_deleted(Segment::open(&path))? else { continue };
        if segment.tail.is_some_and(|t| !t.summary.overlaps(range.from_unix_ns, range.to_unix_ns)) {
            continue;
        }
        let Scanned { entries, damaged: here, .. } = segment.contents()?;
        damaged += u64::from(here);
        entries.iter().filter(|entry| range.has(&entry.head)).try_for_each(|entry| take(&segment, entry))?;
    }
    Ok(damaged)
}

/// A file that went since its name was read, as the oldest do, is none.
fn unless_deleted<T>(result: Result<T, HistoryError>) -> Result<Option<T>, HistoryError> {
    match result {
        Err(HistoryError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// A segment as it is on disk.
pub(super) struct Segment {
    file: File,
    path: PathBuf,
    size: u64,
    /// Whether it begins as a segment of this version does.
    readable: bool,
    /// None in one that was not ended in order, or is still being written.
    tail: Option<Tail>,
}

impl Segment {
    pub(super) fn open(path: &Path) -> Result<Self, HistoryError> {
        let failed = |e| HistoryError::file("read", path, e);
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let head = bytes_at(&file, 0, SegmentHeader::LEN).unwrap_or_default();
        let readable = SegmentHeader::decode(&head).is_some_and(|h| h.version == SEGMENT_VERSION);
        if !readable && head.starts_with(&MAGIC) {
            tracing::warn!(
                "{} is damaged, or of another version of nettrace; it is left out",
                path.display()
            );
        }
        let found = if readable { tail(&|at, len| bytes_at(&file, at, len), size) } else { None };
        Ok(Self { file, path: path.to_owned(), size, readable, tail: found })
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Whether it was not ended in order.
    pub(super) const fn is_open(&self) -> bool {
        self.tail.is_none()
    }

    pub(super) const fn is_readable(&self) -> bool {
        self.readable
    }

    /// What is known of it: of one with a tail, without reading more of it.
    pub(super) fn summary(&self) -> Result<Summary, HistoryError> {
        let summary = match self.tail {
            Some(tail) => tail.summary,
            None => self.scanned()?.summary(),
        };
        // One of another version is as old as its file says.
        let changed =
            || self.file.metadata().and_then(|m| m.modified()).ok()?.duration_since(UNIX_EPOCH).ok();
        let to_unix_ns = match summary.entries {
            0 => changed().map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
            _ => summary.to_unix_ns,
        };
        Ok(Summary { to_unix_ns, ..summary })
    }

    pub(super) fn entries(&self) -> Result<Vec<Entry>, HistoryError> {
        Ok(self.contents()?.entries)
    }

    /// By its index, where it has one.
    pub(super) fn contents(&self) -> Result<Scanned, HistoryError> {
        let by_index = self.tail.and_then(|_| by_index(|at, len| bytes_at(&self.file, at, len), self.size));
        match by_index {
            Some((tail, entries)) => Ok(Scanned { entries, damaged: tail.summary.damaged, end: tail.index }),
            None => self.scanned(),
        }
    }

    /// By looking at all of it. One that cannot be read holds nothing, and is damaged.
    pub(super) fn scanned(&self) -> Result<Scanned, HistoryError> {
        if !self.readable || self.size > MOST_BYTES {
            // One that has not even a header was begun by a process that was killed then.
            let damaged = u32::from(self.size >= SegmentHeader::LEN as u64);
            return Ok(Scanned { damaged, ..Scanned::default() });
        }
        let mut bytes = Vec::with_capacity(self.size as usize);
        let mut file = &self.file;
        io::Seek::rewind(&mut file)
            .and_then(|()| file.take(self.size).read_to_end(&mut bytes))
            .map_err(|e| HistoryError::file("read", &self.path, e))?;
        Ok(scan(&bytes))
    }

    /// The snapshot of an entry; none where it is damaged, or of a newer nettrace.
    fn snapshot(&self, entry: &Entry) -> Option<Snapshot> {
        let frame = bytes_at(&self.file, entry.offset, entry.len as usize)?;
        let (head, json) = unpack_entry(&frame)?;
        if head != entry.head {
            return None;
        }
        Snapshot::from_json(&json)
            .inspect_err(|error| tracing::warn!("{} at byte {}: {error}", self.path.display(), entry.offset))
            .ok()
    }
}

/// So many bytes of a file from there on; none where it does not have them.
fn bytes_at(file: &File, at: u64, len: usize) -> Option<Vec<u8>> {
    if len as u64 > MOST_BYTES {
        return None;
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}
