//! A recording through the same aggregation as a live run. What is damaged is counted and reported; the intact part
//! still makes a snapshot. A start that was rotated away is no damage: the snapshot says that it is missing.

use super::{EndFrame, StartFrame, dns_config};
use crate::{
    aggregate::{Aggregator, Closing, Finished},
    flight::{Figure, window_of},
    recording::{Kind, ReadError, Reader},
    snapshot::{Overhead, Rotated, Snapshot},
};
use std::{path::Path, time::Duration};

/// Why there is nothing to replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The Start frame is missing or not as expected.
    #[error("the recording does not begin as it should: {0}")]
    Start(String),
}

/// What a recording came to.
pub struct Replayed {
    /// As from a live run.
    pub finished: Finished,
    /// What was wrong with the file, in order; empty for an intact one, also when its start was rotated away.
    pub damage: Vec<String>,
}

/// Replays a file.
///
/// # Errors
/// When the file cannot be read, is no recording, or has no intact Start frame.
pub fn replay(path: &Path) -> Result<Replayed, ReplayError> {
    let mut reader = Reader::open(path)?;
    let mut damage = Vec::new();
    let start = start_frame(&mut reader, &mut damage)?;
    let mut aggregator = Aggregator::new(dns_config(Duration::from_nanos(start.dns_timeout_ns)));
    let dropped = reader.dropped();
    let rotated = (dropped.files > 0).then_some(Rotated { files: dropped.files, size_bytes: dropped.bytes });
    let mut end: Option<EndFrame> = None;
    // Of what the flight recorder wrote.
    let figure = start.meta.flight.as_ref().and_then(|flight| flight.cause.what.parse::<Figure>().ok());
    let mut around = Vec::new();
    for frame in reader.by_ref() {
        match frame {
            Ok(frame) => match frame.kind {
                Kind::Batch => drop(aggregator.feed(frame.payload)),
                Kind::End => match serde_json::from_slice(&frame.payload) {
                    Ok(frame) => end = Some(frame),
                    Err(error) => damage.push(format!("the last frame cannot be read: {error}")),
                },
                Kind::Snapshot => match Snapshot::from_json(&frame.payload) {
                    Ok(snapshot) => around.push(window_of(&snapshot, figure.as_ref())),
                    Err(error) => damage.push(format!("a snapshot around it cannot be read: {error}")),
                },
                Kind::Start | Kind::Tick => {}
            },
            Err(error) => damage.push(error.to_string()),
        }
    }
    // Counted before the next line, which tells what the damage leads to and is no other one.
    let bad_frames = damage.len() as u64;
    if end.is_none() {
        damage.push("the recording has no end: totals are those of the records that are there".to_owned());
    }
    let mut closing = closing(start, end, &aggregator, bad_frames);
    closing.meta.rotated = rotated;
    if let Some(flight) = &mut closing.meta.flight {
        flight.windows = around;
    }
    Ok(Replayed { finished: aggregator.finish(closing), damage })
}

/// The first Start frame that is intact: every file has a copy. What is wrong before it goes to `damage`.
fn start_frame(reader: &mut Reader, damage: &mut Vec<String>) -> Result<StartFrame, ReplayError> {
    let mut first_error = None;
    let mut skipped = 0_u64;
    for frame in reader.by_ref() {
        match frame {
            Ok(frame) if frame.kind == Kind::Start => {
                if skipped > 0 {
                    damage.push(format!("{skipped} frames before an intact Start frame cannot be used"));
                }
                return serde_json::from_slice(&frame.payload).map_err(|e| ReplayError::Start(e.to_string()));
            }
            Ok(_) => skipped += 1,
            Err(error) => {
                damage.push(error.to_string());
                first_error.get_or_insert(error);
            }
        }
    }
    Err(match first_error {
        Some(error) => error.into(),
        None if skipped > 0 => ReplayError::Start("it has no Start frame".to_owned()),
        None => ReplayError::Start("it holds nothing".to_owned()),
    })
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
            probes: end.probes,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernel_state::KernelState,
        path_mtu::Learnt,
        probes::PATH_MTU,
        recording::{Writer, WriterOptions},
        snapshot::{Probe, sample},
    };
    use nettrace_common::Loss;
    use std::{fs, path::PathBuf};

    const WHOLE: WriterOptions = WriterOptions { max_bytes_total: 1 << 20, max_file_bytes: 1 << 20 };
    const FILES: WriterOptions = WriterOptions { max_bytes_total: 1 << 20, max_file_bytes: 2_000 };
    const ROTATED: WriterOptions = WriterOptions { max_bytes_total: 8_000, max_file_bytes: 2_000 };

    /// Records a few hundred empty batches, in a directory of its own, with or without an end.
    fn recorded(limits: WriterOptions, end: bool) -> (tempfile::TempDir, PathBuf) {
        recorded_with(limits, end.then(KernelState::default))
    }

    fn recorded_with(limits: WriterOptions, kernel: Option<KernelState>) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.rec");
        let Snapshot { meta, overhead, .. } = sample::empty();
        let (interfaces, scopes) = (Vec::new(), std::collections::BTreeMap::new());
        let start = StartFrame {
            start_ns: 0,
            dns_timeout_ns: 5_000_000_000,
            meta: meta.clone(),
            interfaces: interfaces.clone(),
            scopes: scopes.clone(),
            probes: vec![Probe {
                name: PATH_MTU.to_owned(),
                source: Some("netlink RTM_GETROUTE".to_owned()),
                yields: Vec::new(),
                reason: None,
            }],
            ring_bytes: 4096,
        };
        let mut writer = Writer::create(&path, limits).unwrap();
        writer.frame(Kind::Start, &serde_json::to_vec(&start).unwrap()).unwrap();
        for _ in 0..400 {
            writer.frame(Kind::Batch, &[]).unwrap();
        }
        if let Some(kernel) = kernel {
            let probes = start.probes;
            let end = EndFrame { end_ns: 1, kernel, meta, interfaces, scopes, probes, overhead };
            writer.frame(Kind::End, &serde_json::to_vec(&end).unwrap()).unwrap();
        }
        writer.finish().unwrap();
        (dir, path)
    }

    #[test]
    fn what_is_wrong_before_the_first_frame_leaves_the_rest() {
        let (dir, path) = recorded(FILES, true);
        let first = dir.path().join("run.rec.1");
        // Its Start frame begins behind the file header; the next file has a copy.
        let mut bytes = fs::read(&first).unwrap();
        bytes[80] ^= 0x55;
        fs::write(&first, bytes).unwrap();
        let (damage, bad, _) = outcome(&path);
        assert_eq!((damage.len(), bad), (2, 2), "{damage:?}");
        assert!(damage[0].contains("checksum") && damage[1].contains("cannot be used"), "{damage:?}");
        fs::remove_file(first).unwrap();
        let (damage, bad, _) = outcome(&path);
        assert!(damage.len() == 1 && bad == 1 && damage[0].contains("missing"), "{damage:?}");
    }

    /// What was damaged, how much of it is in the books, and what was rotated away.
    fn outcome(path: &Path) -> (Vec<String>, u64, Option<Rotated>) {
        let Replayed { finished, damage } = replay(path).unwrap();
        let bad = finished.snapshot.losses.iter().find(|l| l.reason == Loss::BadFrame.name()).unwrap().count;
        (damage, bad, finished.snapshot.meta.rotated)
    }

    #[test]
    fn learnt_path_mtus_and_where_they_could_not_be_read_are_replayed() {
        let sample = sample::rich().ip;
        for namespaces in [0, 2] {
            let failed = vec!["not read in blue: gone".to_owned()];
            let learnt = Learnt { rows: sample.learnt.clone(), paths: 7, namespaces, failed };
            let (_dir, path) = recorded_with(WHOLE, Some(KernelState { learnt, ..KernelState::default() }));
            let snapshot = replay(&path).unwrap().finished.snapshot;
            assert_eq!((&snapshot.ip.learnt, snapshot.ip.learnt_paths), (&sample.learnt, 7));
            let probe = &snapshot.probes[0];
            assert_eq!(probe.reason.as_deref(), Some("not read in blue: gone"));
            assert_eq!(probe.source.is_some(), namespaces != 0, "off when no namespace could be read");
        }
    }

    #[test]
    fn an_intact_recording_has_no_damage() {
        for limits in [WHOLE, FILES] {
            let (_dir, path) = recorded(limits, true);
            assert_eq!(outcome(&path), (Vec::new(), 0, None));
        }
    }

    #[test]
    fn a_start_that_was_rotated_away_is_told_and_no_damage() {
        let (dir, path) = recorded(ROTATED, true);
        let (damage, bad, rotated) = outcome(&path);
        assert_eq!((damage, bad), (Vec::new(), 0));
        let Rotated { files, size_bytes } = rotated.unwrap();
        assert!(files > 0 && size_bytes >= u64::from(files) * 1_000, "{rotated:?}");
        // A file that rotation did not delete is missed all the same.
        fs::remove_file(dir.path().join(format!("run.rec.{}", files + 2))).unwrap();
        let (damage, bad, still) = outcome(&path);
        assert!(damage.len() == 1 && damage[0].contains("missing"), "{damage:?}");
        assert_eq!((bad, still), (1, rotated));
    }

    #[test]
    fn one_cause_is_counted_once() {
        let (_dir, path) = recorded(WHOLE, false);
        let (damage, bad, rotated) = outcome(&path);
        assert_eq!((damage.len(), bad, rotated), (2, 1, None), "{damage:?}");
        assert!(damage[1].contains("no end"), "{damage:?}");
    }
}
