//! The flight recorder: what it holds of a real capture is what a recording of the same has, and `nettrace report` reads it.

use nettrace::{
    aggregate::Finished,
    capture::{Capture, EndFrame, Replayed, StartFrame, replay},
    flight::{self, FlightConfig, Memory, MemoryOptions, Triggers},
    lab::{Lab, LabConfig},
    recording::{Kind, Reader, WriterOptions},
    snapshot::Snapshot,
};
use nettrace_tests::{
    options,
    program::{nettrace, stderr, stdout},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const PLENTY: WriterOptions = WriterOptions { max_bytes_total: 1 << 30, max_file_bytes: 1 << 27 };

/// An empty directory of a test's own.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Every packet of the lab's traffic, into a recording and into the flight recorder's memory.
fn captured(file: &Path, bytes: u64) -> (Finished, Memory) {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let mut options = options(&lab);
    options.programs.sample_every = 1;
    options.programs.ring_bytes = 64 << 20;
    options.record = Some((file.to_owned(), PLENTY));
    options.flight = Some(MemoryOptions { time: Duration::from_secs(600), bytes });
    let capture = Capture::start(options).unwrap();
    let memory = capture.flight().unwrap().clone();
    lab.demo_traffic(Duration::from_secs(1)).unwrap();
    let finished = capture.stop().unwrap();
    assert_eq!(finished.snapshot.ring.lost, 0);
    (finished, memory)
}

/// The first and the last frame of a recording: the agent makes them of what it knows.
fn ends(file: &Path) -> (StartFrame, EndFrame) {
    let frames: Vec<_> = Reader::open(file).unwrap().map(Result::unwrap).collect();
    let payload = |kind| &frames.iter().find(|f| f.kind == kind).unwrap().payload;
    let (start, end) = (payload(Kind::Start), payload(Kind::End));
    (serde_json::from_slice(start).unwrap(), serde_json::from_slice(end).unwrap())
}

/// Sets the trigger off with what was captured, and writes what is held.
fn written(dir: &Path, file: &Path, finished: &Finished, memory: &Memory) -> PathBuf {
    let trigger = "[[trigger]]\nof = 'dns.transactions'\nabove = 0";
    let config: FlightConfig = toml::from_str(trigger).unwrap();
    let snapshot = Arc::new(finished.snapshot.clone());
    let mut triggers = Triggers::new(&config);
    let cause = triggers.look(&snapshot).unwrap();
    assert_eq!(triggers.look(&snapshot), None, "not again within the cooldown");
    let (start, end) = ends(file);
    flight::write(dir, &config, cause, &start, &memory.since(0), &end, &[snapshot]).unwrap()
}

/// With room for all, a file of the flight recorder is the recording of the same time, section by section.
#[test]
fn what_it_holds_is_what_was_recorded() {
    let dir = scratch("flight");
    let file = dir.join("run.rec");
    let (finished, memory) = captured(&file, 1 << 30);
    let stats = memory.stats();
    assert_eq!(stats.let_go_batches, 0);
    assert!(stats.batches > 10, "{stats:?}");
    let flown = written(&dir, &file, &finished, &memory);
    let Replayed { finished: replayed, damage } = replay(&flown).unwrap();
    assert_eq!(damage, Vec::<String>::new());
    assert_eq!(replayed.event_lane, finished.event_lane);
    let mut snapshot = replayed.snapshot;
    let around = snapshot.meta.flight.take().unwrap();
    assert_eq!(snapshot, finished.snapshot);
    assert_eq!(around.windows.len(), 1);
    assert_eq!(around.windows[0].value, Some(finished.snapshot.dns.transactions as f64));

    let output = nettrace().unwrap().arg("report").arg(&flown).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let cause = format!("dns.transactions was {}, above 0", finished.snapshot.dns.transactions);
    assert!(text.contains(&cause) && text.contains("AROUND THE CAUSE"), "{text}");
}

/// With little room it holds the end; the file says that not all of it is there, and is no damaged one.
#[test]
fn with_little_room_it_holds_the_end() {
    let dir = scratch("flight-small");
    let file = dir.join("run.rec");
    let (finished, memory) = captured(&file, 256 << 10);
    let stats = memory.stats();
    assert!(stats.let_go_batches > 0 && stats.bytes <= 256 << 10, "{stats:?}");
    let flown = written(&dir, &file, &finished, &memory);
    let output = nettrace().unwrap().args(["report", "--format=json"]).arg(&flown).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let reported = Snapshot::from_json(&output.stdout).unwrap();
    let (part, whole) = (&reported.ring, &finished.snapshot.ring);
    assert_eq!(part.emitted, whole.emitted);
    assert!(0 < part.received && part.received < whole.received, "{part:?} of {whole:?}");
    // What the kernel counts does not depend on it.
    assert_eq!(reported.packets, finished.snapshot.packets);
}
