//! A recording through the same aggregation as a live run. What is damaged is counted and reported; the intact part
//! still makes a snapshot.

use super::{EndFrame, StartFrame, dns_config};
use crate::{
    aggregate::{Aggregator, Closing, Finished},
    recording::{Kind, ReadError, Reader},
    snapshot::Overhead,
};
use std::{path::Path, time::Duration};

/// Why there is nothing to replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The first frame is missing or not as expected.
    #[error("the recording does not begin as it should: {0}")]
    Start(String),
}

/// What a recording came to.
pub struct Replayed {
    /// As from a live run.
    pub finished: Finished,
    /// What was wrong with the file, in order; empty for an intact one.
    pub damage: Vec<String>,
}

/// Replays a file.
///
/// # Errors
/// When the file cannot be read, is no recording, or its first frame is damaged.
pub fn replay(path: &Path) -> Result<Replayed, ReplayError> {
    let mut reader = Reader::open(path)?;
    let start = first_frame(&mut reader)?;
    let mut aggregator = Aggregator::new(dns_config(Duration::from_nanos(start.dns_timeout_ns)));
    let mut damage = Vec::new();
    let dropped = reader.dropped();
    if dropped.files > 0 {
        damage.push(format!(
            "the recording had reached its size: its first {} frames ({} bytes in {} files) were deleted",
            dropped.frames, dropped.bytes, dropped.files
        ));
    }
    let mut end: Option<EndFrame> = None;
    for frame in reader.by_ref() {
        match frame {
            Ok(frame) => match frame.kind {
                Kind::Batch => drop(aggregator.feed(frame.payload)),
                Kind::End => match serde_json::from_slice(&frame.payload) {
                    Ok(frame) => end = Some(frame),
                    Err(error) => damage.push(format!("the last frame cannot be read: {error}")),
                },
                Kind::Start | Kind::Tick => {}
            },
            Err(error) => damage.push(error.to_string()),
        }
    }
    if end.is_none() {
        damage.push("the recording has no end: totals are those of the records that are there".to_owned());
    }
    let closing = closing(start, end, &aggregator, damage.len() as u64);
    Ok(Replayed { finished: aggregator.finish(closing), damage })
}

fn first_frame(reader: &mut Reader) -> Result<StartFrame, ReplayError> {
    match reader.next() {
        Some(Ok(frame)) if frame.kind == Kind::Start => {
            serde_json::from_slice(&frame.payload).map_err(|e| ReplayError::Start(e.to_string()))
        }
        Some(Ok(frame)) => Err(ReplayError::Start(format!("its first frame is {:?}", frame.kind))),
        Some(Err(error)) => Err(error.into()),
        None => Err(ReplayError::Start("it holds nothing".to_owned())),
    }
}

fn closing(start: StartFrame, end: Option<EndFrame>, aggregator: &Aggregator, bad_frames: u64) -> Closing {
    let StartFrame { start_ns, mut meta, interfaces, scopes, probes, ring_bytes, .. } = start;
    match end {
        Some(end) => Closing {
            start_ns,
            end_ns: end.end_ns,
            kernel: Some(end.kernel),
            meta: end.meta,
            interfaces: end.interfaces,
            scopes: end.scopes,
            probes,
            overhead: end.overhead,
            ring_bytes,
            bad_frames,
        },
        None => {
            let end_ns = aggregator.latest_ns().max(start_ns);
            meta.duration_ns = end_ns - start_ns;
            Closing {
                start_ns,
                end_ns,
                kernel: None,
                meta,
                interfaces,
                scopes,
                probes,
                overhead: Overhead::default(),
                ring_bytes,
                bad_frames,
            }
        }
    }
}
