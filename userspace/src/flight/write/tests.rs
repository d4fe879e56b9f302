//! What the flight recorder writes is a recording, with its cause, and within its bounds.

use super::*;
use crate::{
    capture::{EndFrame, Replayed, StartFrame, replay},
    kernel_state::KernelState,
    report::{self, Format, Options},
    snapshot::{CauseUnit, sample},
};
use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _};

const S: u64 = 1_000_000_000;
const T0: u64 = 1_767_225_600 * S;

fn ends() -> (StartFrame, EndFrame) {
    let meta = sample::empty().meta;
    let start = StartFrame {
        start_ns: 0,
        dns_timeout_ns: 5 * S,
        meta: meta.clone(),
        interfaces: Vec::new(),
        scopes: BTreeMap::new(),
        probes: Vec::new(),
        ring_bytes: 4096,
    };
    let end = EndFrame {
        end_ns: 30 * S,
        kernel: KernelState::default(),
        meta,
        interfaces: Vec::new(),
        scopes: BTreeMap::new(),
        probes: Vec::new(),
        overhead: sample::empty().overhead,
    };
    (start, end)
}

fn cause(at_unix_ns: u64) -> Cause {
    Cause {
        at_unix_ns,
        what: "dns.timeouts".to_owned(),
        value: Some(7.0),
        bound: Some(3.0),
        unit: CauseUnit::Count,
        count: None,
        also: vec!["drops per second was 9.0/s, above 1.0/s".to_owned()],
    }
}

fn windows() -> Vec<Arc<Snapshot>> {
    let window = |n: u64| {
        let mut snapshot = sample::rich();
        snapshot.meta.start_unix_ns = T0 + n * 5 * S;
        snapshot.dns.timeouts = n;
        Arc::new(snapshot)
    };
    (0..20).map(window).collect()
}

fn written(
    dir: &Path,
    config: &FlightConfig,
    at_unix_ns: u64,
    batches: &[Bytes],
) -> Result<PathBuf, FlightError> {
    let (start, end) = ends();
    write(dir, config, cause(at_unix_ns), &start, batches, &end, &windows())
}

#[test]
fn a_file_is_a_recording_with_its_cause_and_the_windows_around() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("flight");
    let path = written(&dir, &FlightConfig::default(), T0, &[Bytes::new()]).unwrap();
    assert_eq!(path.file_name().unwrap(), "flight-20260101T000000Z.rec");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&path)), (0o700, 0o600));
    let Replayed { finished, damage } = replay(&path).unwrap();
    assert_eq!(damage, Vec::<String>::new());
    let flight = finished.snapshot.meta.flight.as_ref().unwrap();
    assert_eq!(flight.cause, cause(T0));
    // The last dozen, in order, with what the cause looked at.
    let looked_at: Vec<_> = flight.windows.iter().map(|w| w.value.unwrap()).collect();
    assert_eq!(looked_at, (8..20).map(f64::from).collect::<Vec<_>>());
    assert_eq!(flight.windows[11].start_unix_ns, T0 + 95 * S);
    let text = report::render(&finished.snapshot, Format::Text, &Options::default()).unwrap();
    for part in ["dns.timeouts was 7, above 3, at 2026-01-01 00:00:00 UTC", "AROUND THE CAUSE", "above 1.0/s"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    // What is written of it keeps the cause.
    let json = report::render(&finished.snapshot, Format::Json, &Options::default()).unwrap();
    assert_eq!(Snapshot::from_json(json.as_bytes()).unwrap().meta.flight.as_ref(), Some(flight));
}

#[test]
fn a_cause_in_the_same_second_has_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let name = || written(dir.path(), &FlightConfig::default(), T0, &[]).unwrap();
    let names = [name(), name(), name()].map(|p| p.file_name().unwrap().to_string_lossy().into_owned());
    assert_eq!(names[2], "flight-20260101T000000Z-3.rec");
    assert_eq!(files(dir.path()).unwrap().len(), 3);
}

#[test]
fn the_oldest_go_before_the_directory_is_full() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.rec"), vec![0; 1 << 20]).unwrap();
    fs::write(dir.path().join("flight-20250101T000000Z.rec.part"), "killed").unwrap();
    let config = FlightConfig { max_size: 2 << 20, windows: 1, ..FlightConfig::default() };
    let mut last = PathBuf::new();
    for n in 0..30 {
        let batch = Bytes::from(crate::recording::noise(n, 200_000));
        last = written(dir.path(), &config, T0 + n * S, &[batch]).unwrap();
        let total: u64 = files(dir.path()).unwrap().iter().map(|(_, size)| size).sum();
        assert!(total <= config.max_size, "{n}: {total}");
    }
    let left = files(dir.path()).unwrap();
    assert_eq!(left.last().unwrap().0, last);
    assert!((5..10).contains(&left.len()), "{left:?}");
    assert!(dir.path().join("notes.rec").exists());
    assert!(left.iter().all(|(path, _)| path.extension().is_some_and(|e| e == "rec")));
}

#[test]
fn what_cannot_be_written_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let not_a_dir = dir.path().join("file");
    fs::write(&not_a_dir, "").unwrap();
    let error = written(&not_a_dir, &FlightConfig::default(), T0, &[]).unwrap_err();
    assert!(matches!(error, FlightError::File { action: "make", .. }), "{error}");
    // A name that is taken by a directory.
    fs::create_dir(dir.path().join("flight-20260101T000000Z.rec.part")).unwrap();
    let error = written(dir.path(), &FlightConfig::default(), T0, &[]).unwrap_err();
    assert!(matches!(error, FlightError::Write(_)), "{error}");
    assert!(files(dir.path()).unwrap().is_empty());
    assert_eq!(files(&dir.path().join("none")).unwrap(), []);
}

#[test]
fn batches_are_put_together_and_come_back_as_they_were() {
    use crate::recording::Reader;
    let dir = tempfile::tempdir().unwrap();
    let batches: Vec<Bytes> = (0..5_000).map(|n| Bytes::from(crate::recording::noise(n, 500))).collect();
    let path = written(dir.path(), &FlightConfig::default(), T0, &batches).unwrap();
    let frames: Vec<_> = Reader::open(&path).unwrap().map(Result::unwrap).collect();
    let of = |kind| frames.iter().filter(move |f| f.kind == kind);
    assert_eq!(of(Kind::Batch).flat_map(|f| f.payload.to_vec()).collect::<Vec<_>>(), batches.concat());
    assert_eq!((of(Kind::Batch).count(), of(Kind::Snapshot).count()), (3, 12));
}
