//! The history: what captures saw is found again by the program, and a writer that is killed loses nothing that was kept.

use super::flight::scratch;
use nettrace::{
    history::{self, HistoryConfig, HistoryError, Range, Store},
    lab::LabConfig,
    snapshot::{Snapshot, sample},
};
use nettrace_common::Signal;
use nettrace_tests::{
    captured_in, count,
    program::{nettrace, stderr, stdout},
};
use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

fn config(dir: &Path) -> HistoryConfig {
    HistoryConfig { dir: dir.to_owned(), ..HistoryConfig::default() }
}

/// `nettrace history` of that directory.
fn ask(dir: &Path, args: &[&str]) -> Output {
    nettrace().unwrap().arg("history").arg("--dir").arg(dir).args(args).output().unwrap()
}

/// Three captures of a lab, kept; the program finds them by time, one or all, and lists them.
#[test]
fn what_captures_saw_is_found_by_time() {
    let dir = scratch("history");
    let lab = nettrace::lab::Lab::start(LabConfig::default()).unwrap();
    let mut store = Store::open(&config(&dir)).unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (finished, _) =
            captured_in(&lab, |_| {}, |lab| Ok(lab.demo_traffic(Duration::from_millis(1100))?)).unwrap();
        store.append(&finished.snapshot).unwrap();
        seen.push(finished.snapshot);
    }
    // The writer is still there.
    let output = ask(&dir, &["--last", "1h", "--format", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let found = Snapshot::from_json(&output.stdout).unwrap();
    let total = |of: fn(&Snapshot) -> u64| seen.iter().map(of).sum::<u64>();
    assert_eq!(count(&found, Signal::RxTotal), total(|s| count(s, Signal::RxTotal)));
    assert_eq!(found.dns.transactions, total(|s| s.dns.transactions));
    assert_eq!(found.meta.duration_ns, total(|s| s.meta.duration_ns));

    let second = seen[1].meta.start_unix_ns;
    let (from, to) = (format!("@{}", second / 1_000_000_000 + 1), "+1s");
    let output = ask(&dir, &["--from", &from, "--to", to, "--format", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let found = Snapshot::from_json(&output.stdout).unwrap();
    assert!(found.dns.transactions >= seen[1].dns.transactions);
    assert!(found.dns.transactions < total(|s| s.dns.transactions), "not all of them");

    let output = ask(&dir, &[]);
    assert!(output.status.success() && stdout(&output).contains("3 snapshots"), "{}", stdout(&output));
    let page = dir.join("page.html");
    let output = ask(&dir, &["--last", "1h", "-o", page.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(fs::read_to_string(page).unwrap().contains("rx.total"));

    // Of three frames nothing can be claimed.
    let from = format!("@{}..+1s", seen[0].meta.start_unix_ns / 1_000_000_000);
    let output = ask(&dir, &["--last", "1h", "--compare", &from]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("too few rounds") && !text.contains("got longer"), "{text}");
}

/// What is not there, and what cannot be, is told in one line.
#[test]
fn what_is_not_there_is_told() {
    let dir = scratch("history-none");
    let none = ask(&dir.join("no"), &["--last", "1h"]);
    assert_eq!(none.status.code(), Some(2), "{}", stderr(&none));
    assert!(stderr(&none).contains("there is no history in "), "{}", stderr(&none));
    let mut store = Store::open(&config(&dir)).unwrap();
    store.append(&sample::rich()).unwrap();
    let other = ask(&dir, &["--last", "1m"]);
    let said = stderr(&other);
    assert_eq!((other.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(
        said.contains("nothing was kept from ") && said.contains("; there is something from 2026-01-01"),
        "{said}"
    );
    // One flipped byte of a frame: the rest is reported, and the exit code says so.
    let mut snapshot = sample::rich();
    snapshot.meta.start_unix_ns += 60_000_000_000;
    store.append(&snapshot).unwrap();
    drop(store);
    let segment = dir.join("0000000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[200] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let output = ask(&dir, &["--from", "2026-01-01T00:00:00Z", "--to", "+1h", "--format", "json"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("could not be read"), "{}", stderr(&output));
    assert_eq!(Snapshot::from_json(&output.stdout).unwrap().meta.start_unix_ns, snapshot.meta.start_unix_ns);
}

/// Where the writing half of the next test writes.
const CHILD: &str = "NETTRACE_TEST_HISTORY";

/// A writer that is killed at any time has kept every snapshot of which it said so, in order, and its successor goes on.
#[test]
fn a_writer_that_is_killed_loses_nothing_that_was_kept() {
    if let Some(dir) = env::var_os(CHILD) {
        write_forever(Path::new(&dir));
    }
    let dir = scratch("history-killed");
    let mut said = 0;
    for round in 0_u64..12 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "history::a_writer_that_is_killed_loses_nothing_that_was_kept", "--nocapture"])
            .env(CHILD, &dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // After some of them, at no particular place.
        let some = 3 + round % 4;
        let mut kept =
            lines.by_ref().map_while(Result::ok).filter_map(|l| l.strip_prefix("kept ")?.parse::<u64>().ok());
        for _ in 0..some {
            said = kept.next().unwrap();
        }
        std::thread::sleep(Duration::from_micros(700 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        said = kept.last().unwrap_or(said).max(said);
        let mut numbers = Vec::new();
        let found = history::each(&dir, Range::ALL, |_, s| numbers.push(s.dns.transactions)).unwrap();
        assert_eq!(found.damaged, 0);
        // One more may be on disk than it came to say.
        let last = *numbers.last().unwrap();
        assert!((said..=said + 1).contains(&last), "{last} on disk, {said} said");
        assert_eq!(numbers, (1..=last).collect::<Vec<_>>());
    }
    assert!(said > 30);
}

/// Appends numbered snapshots, and says of each that it is kept.
fn write_forever(dir: &Path) -> ! {
    let mut store = loop {
        match Store::open(&config(dir)) {
            // The one before is still being taken away by the kernel.
            Err(HistoryError::Locked { .. }) => std::thread::sleep(Duration::from_millis(1)),
            other => break other.unwrap(),
        }
    };
    let mut snapshot = sample::rich();
    let mut out = std::io::stdout();
    let mut n = store.stats().frames;
    loop {
        n += 1;
        snapshot.dns.transactions = n;
        snapshot.meta.start_unix_ns += 60_000_000_000;
        store.append(&snapshot).unwrap();
        writeln!(out, "kept {n}").unwrap();
        out.flush().unwrap();
    }
}
