//! Recordings: what is replayed is what was seen, and what is damaged is told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use nettrace::{
    aggregate::Finished,
    capture::{Replayed, replay},
    lab::LabConfig,
    recording::WriterOptions,
    snapshot::{Ring, Snapshot},
};
use nettrace_common::Signal;
use nettrace_tests::{
    captured, lost,
    program::{nettrace, stderr, stdout},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const PLENTY: WriterOptions = WriterOptions { max_bytes_total: 1 << 30, max_file_bytes: 1 << 27 };

/// An empty directory of a test's own.
fn scratch(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Records the lab's traffic, every packet of it.
fn recorded(file: &Path, limits: WriterOptions, duration: Duration) -> Finished {
    let (finished, _) = captured(
        LabConfig::default(),
        |options| {
            options.programs.sample_every = 1;
            options.programs.ring_bytes = 64 << 20;
            options.record = Some((file.to_owned(), limits));
        },
        |lab| Ok(lab.demo_traffic(duration)?),
    )
    .unwrap();
    assert_eq!(finished.snapshot.ring.lost, 0);
    assert!(finished.snapshot.ring.received > 1000, "{:?}", finished.snapshot.ring);
    finished
}

/// Compares every section, so that a difference is named.
fn same(live: &Snapshot, replayed: &Snapshot) {
    assert_eq!(live.meta, replayed.meta);
    assert_eq!(live.interfaces, replayed.interfaces);
    assert_eq!(live.signals, replayed.signals);
    assert_eq!(live.dns, replayed.dns);
    assert_eq!(live.tcp, replayed.tcp);
    assert_eq!(live.ip, replayed.ip);
    assert_eq!(live.drops, replayed.drops);
    assert_eq!(live.drop_flows, replayed.drop_flows);
    assert_eq!(live.exemplars, replayed.exemplars);
    assert_eq!(live.losses, replayed.losses);
    assert_eq!(live.ring, replayed.ring);
    assert_eq!(live.probes, replayed.probes);
    assert_eq!(live.overhead, replayed.overhead);
    assert_eq!(live, replayed);
}

/// A recording replays to the snapshot of the live run, in every section, and to the same records.
#[test]
fn a_replay_is_the_live_run() {
    let file = scratch("replay").join("run.rec");
    let live = recorded(&file, PLENTY, Duration::from_secs(1));
    let Replayed { finished, damage } = replay(&file).unwrap();
    assert_eq!(damage, Vec::<String>::new());
    same(&live.snapshot, &finished.snapshot);
    assert_eq!(live.event_lane, finished.event_lane);
}

/// So does one that was cut into many files, none of which was deleted.
#[test]
fn a_rotated_recording_is_the_live_run() {
    let dir = scratch("rotated");
    let file = dir.join("run.rec");
    let limits = WriterOptions { max_bytes_total: 1 << 30, max_file_bytes: 100 << 10 };
    let live = recorded(&file, limits, Duration::from_secs(1));
    let files = fs::read_dir(&dir).unwrap().count();
    assert!(files > 3, "{files} files");
    let Replayed { finished, damage } = replay(&file).unwrap();
    assert_eq!(damage, Vec::<String>::new());
    same(&live.snapshot, &finished.snapshot);
}

/// When rotation has deleted the beginning, the replay says so, stays within the limit, and keeps the kernel's totals.
#[test]
fn a_recording_that_lost_its_beginning_says_so() {
    let dir = scratch("dropped");
    let file = dir.join("run.rec");
    let limits = WriterOptions { max_bytes_total: 1 << 20, max_file_bytes: 256 << 10 };
    let live = recorded(&file, limits, Duration::from_secs(1));
    let bytes: u64 = fs::read_dir(&dir).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= limits.max_bytes_total, "{bytes}");
    let Replayed { finished, damage } = replay(&file).unwrap();
    assert_eq!(damage, Vec::<String>::new());
    assert!(finished.snapshot.meta.rotated.is_some_and(|r| r.files > 0));
    let (live, replayed) = (&live.snapshot, &finished.snapshot);
    assert!(replayed.ring.received < live.ring.received);
    assert_eq!(replayed.ring.emitted, live.ring.emitted);
    assert_eq!(live.signal(Signal::RxTotal), replayed.signal(Signal::RxTotal));
    assert_eq!(lost(replayed, "bad_frame"), 0);

    let output = nettrace().unwrap().args(["report", "--format=json"]).arg(&file).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("rotated away") && said.lines().count() == 1, "{said}");
}

/// Without its last frame a recording still reports: the latencies of every packet are the live run's, bucket by
/// bucket, and the program says what is missing and ends with 3.
#[test]
fn a_recording_without_its_end_still_reports() {
    let file = scratch("cut_off").join("run.rec");
    let live = recorded(&file, PLENTY, Duration::from_secs(1));
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 10]).unwrap();
    let Replayed { finished, damage } = replay(&file).unwrap();
    assert!(damage.iter().any(|d| d.contains("no end")), "{damage:?}");
    for signal in Signal::ALL.into_iter().take(Signal::IN_KERNEL) {
        let of = |s: &Snapshot| {
            s.signals.iter().filter(|r| r.signal == signal.name()).cloned().collect::<Vec<_>>()
        };
        assert_eq!(of(&live.snapshot), of(&finished.snapshot), "{}", signal.name());
    }
    let Ring { emitted, received, .. } = finished.snapshot.ring;
    assert_eq!((emitted, received), (live.snapshot.ring.received, live.snapshot.ring.received));

    let output = nettrace().unwrap().args(["report", "--format=json"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("no end"), "{}", stderr(&output));
    let reported = Snapshot::from_json(&output.stdout).unwrap();
    assert_eq!(reported.signals, finished.snapshot.signals);
}

/// A flipped byte costs its frame and no more: the rest is reported, the loss is counted, and the exit code is 3.
#[test]
fn a_damaged_frame_is_counted_and_the_rest_reported() {
    let file = scratch("damaged").join("run.rec");
    let live = recorded(&file, PLENTY, Duration::from_secs(1));
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(&file, bytes).unwrap();
    let output = nettrace().unwrap().args(["report", "--format=json"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("damaged at byte"), "{}", stderr(&output));
    let reported = Snapshot::from_json(&output.stdout).unwrap();
    assert!(lost(&reported, "bad_frame") > 0);
    let (some, all) = (reported.ring.received, live.snapshot.ring.received);
    assert!(0 < some && some < all, "{some} of {all}");
}

/// Other files are refused in one line, with 2.
#[test]
fn what_is_no_recording_is_refused() {
    let dir = scratch("refused");
    for (name, content) in
        [("text", &b"hello, this is not a recording\n"[..]), ("empty", b""), ("json", b"{\"a\": 1}")]
    {
        let file = dir.join(name);
        fs::write(&file, content).unwrap();
        let output = nettrace().unwrap().arg("report").arg(&file).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert_eq!(said.lines().count(), 1, "{name}: {said}");
        assert!(said.starts_with("nettrace: ") && said.contains(name), "{said}");
        assert_eq!(stdout(&output), "");
    }
}

/// `nettrace record` and `nettrace report`: what the first says it wrote is what the second reads.
#[test]
fn the_program_records_and_reports() {
    let dir = scratch("program");
    let file = dir.join("run.rec");
    let output =
        nettrace().unwrap().args(["record", "--lab", "-d", "1s", "--quiet"]).arg(&file).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    let output = nettrace().unwrap().args(["report", "--format=json"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let reported = Snapshot::from_json(&output.stdout).unwrap();
    let Ring { emitted, received, lost, .. } = reported.ring;
    assert_eq!(emitted, received + lost);
    assert!(said.contains(&format!("recorded {received} records")), "{said}");
    assert!(reported.meta.lab && reported.dns.transactions > 0 && reported.tcp.connects > 0);
    let html = dir.join("run.html");
    let output = nettrace().unwrap().arg("report").arg(&file).arg("-o").arg(&html).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(fs::read_to_string(html).unwrap().contains("rx.total"));
}
