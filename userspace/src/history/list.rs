//! What a history holds, without reading its snapshots.
//!
//! Needs a directory; yields its segments, and the runs of frames that follow each other without a gap.

use super::{HistoryError, Range, Step, format::EntryHead, heads, read::Segment, segment_paths};
use serde::Serialize;
use std::path::Path;

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentInfo {
    /// Its number.
    pub sequence: u32,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// Snapshots in it.
    pub frames: u32,
    /// Places where it is damaged.
    pub damaged: u32,
}

/// Frames that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// Start of the first, Unix time, ns.
    pub from_unix_ns: u64,
    /// End of the last, Unix time, ns.
    pub to_unix_ns: u64,
    /// How many.
    pub frames: u64,
    /// That the clock was set before its first frame; none where something else is between it and the run before.
    pub step: Option<Step>,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// Oldest first.
    pub segments: Vec<SegmentInfo>,
    /// In the order in which they were written.
    pub runs: Vec<Run>,
    /// All segments together, bytes.
    pub size_bytes: u64,
    /// All frames.
    pub frames: u64,
    /// Places where segments are damaged.
    pub damaged: u64,
}

/// Looks at all segments.
///
/// # Errors
/// When there is no history, or the directory cannot be read.
pub fn list(dir: &Path) -> Result<Listing, HistoryError> {
    let mut listing = Listing::default();
    for (sequence, path) in segment_paths(dir)? {
        let Ok(segment) = Segment::open(&path) else { continue };
        let summary = segment.summary()?;
        listing.size_bytes += segment.size();
        listing.frames += u64::from(summary.entries);
        listing.damaged += u64::from(summary.damaged);
        listing.segments.push(SegmentInfo {
            sequence,
            size_bytes: segment.size(),
            frames: summary.entries,
            damaged: summary.damaged,
        });
    }
    listing.runs = runs(&heads(dir, Range::ALL)?);
    Ok(listing)
}

fn runs(heads: &[EntryHead]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut last: Option<&EntryHead> = None;
    for head in heads {
        let step = last.and_then(|last| last.written.step_to(&head.written));
        let follows = last.is_some_and(|last| {
            let between = head.start_unix_ns.saturating_sub(last.end_unix_ns());
            step.is_none() && (between <= last.duration_ns / 2 || between <= 1_000_000_000)
        });
        match runs.last_mut() {
            Some(run) if follows => {
                run.to_unix_ns = run.to_unix_ns.max(head.end_unix_ns());
                run.frames += 1;
            }
            _ => runs.push(Run {
                from_unix_ns: head.start_unix_ns,
                to_unix_ns: head.end_unix_ns(),
                frames: 1,
                step,
            }),
        }
        last = Some(head);
    }
    runs
}
