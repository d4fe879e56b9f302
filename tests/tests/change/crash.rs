//! Killed at each place where something is written, and at any other time; on a full disk, and on one that cannot be written:
//! after the next start, everything is as it was or as it was to be, and never in between.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use crate::{
    cli::{command, get},
    round_trip::state,
};
use nettrace::{
    change::{Engine, Entry, StateDir},
    lab::{Lab, LabConfig, Netns, Role},
};
use nettrace_tests::program::stderr;
use std::{
    env, fs,
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

/// Values that are changed together.
const NAMES: [&str; 3] =
    ["net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_slow_start_after_idle"];
const NEW: [&str; 3] = ["777", "777", "0"];
/// How long the process is killed at random; longer by NETTRACE_CRASH_SECONDS.
const SECONDS: u64 = 30;

fn values(netns: &Netns) -> [String; 3] {
    NAMES.map(|name| get(netns, name))
}

fn apply_args(netns: &Netns) -> Vec<String> {
    let mut args = ["apply", "--yes", "--inside", netns.name()].map(str::to_owned).to_vec();
    for (name, value) in NAMES.iter().zip(NEW) {
        args.extend(["--set".to_owned(), format!("sysctl:{name}={value}")]);
    }
    args
}

fn is_whole(netns: &Netns, old: &[String; 3]) -> bool {
    let now = values(netns);
    now == *old || now == NEW
}

/// After a kill: the next start puts right what was left. Whether the change was made.
fn recovered(dir: &Path, netns: &Netns, old: &[String; 3], at: &str) -> bool {
    let (engine, recovered) = Engine::open(&StateDir::new(Some(dir))).unwrap();
    recovered.iter().for_each(|r| assert!(r.outcome.is_ok(), "{at}: {r:?}"));
    assert!(is_whole(netns, old), "{at}: {:?}", values(netns));
    let made = values(netns) == NEW;
    let says = engine.entries().iter().any(Entry::is_active);
    assert_eq!(made, says, "{at}: the journal says {says}");
    made
}

fn all_back(dir: &Path, netns: &Netns, old: &[String; 3]) {
    let (mut engine, _) = Engine::open(&StateDir::new(Some(dir))).unwrap();
    let active = engine.entries().iter().rev().filter(|e| e.is_active());
    let changes: Vec<_> = active.map(|e| e.begin.change).collect();
    changes.into_iter().for_each(|change| drop(engine.undo(change, "a test", false).unwrap()));
    assert_eq!(values(netns), *old);
}

/// At each place, one after the other, until it passes them all; both making a change and taking it back.
#[test]
fn killed_at_each_step_it_is_all_or_nothing() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let (path, _) = state("steps");
    let old = values(client);
    let killed_at = |n: u32, args: &[String]| {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let output = command(&path, &args).env("NETTRACE_FAULT", n.to_string()).output().unwrap();
        assert!(output.status.success() || output.status.signal() == Some(9), "{}", stderr(&output));
        !output.status.success()
    };
    let mut made = 0;
    let mut places = 0;
    while killed_at(places + 1, &apply_args(client)) {
        places += 1;
        made += u32::from(recovered(&path, client, &old, &format!("apply, place {places}")));
        all_back(&path, client, &old);
    }
    // A head, a record before, each value, and a record after, with a few places each.
    assert!(places >= 12, "{places} places");
    println!("killed at {places} places of a change; at {made} it was made");
    assert!((1..places).contains(&made));
    let undo = ["rollback".to_owned(), "--all".to_owned()];
    let mut places = 0;
    loop {
        // The one that was not killed has made it.
        if values(client) == old {
            assert!(!killed_at(u32::MAX, &apply_args(client)));
        }
        if !killed_at(places + 1, &undo) {
            break;
        }
        places += 1;
        // Half of it may be back; whoever goes on gets the rest back.
        all_back(&path, client, &old);
    }
    println!("killed at {places} places of a rollback");
    assert!(places >= 8, "{places} places");
    fs::remove_dir_all(path).unwrap();
}

/// At random, as often as there is time for; several at a time, each with a namespace and a journal of its own.
#[test]
fn killed_at_any_time_it_is_all_or_nothing() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let seconds = env::var("NETTRACE_CRASH_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(SECONDS);
    let pods = Role::ALL.map(|role| &lab.pod(role).netns);
    let tolls: Vec<Toll> = thread::scope(|scope| {
        let each =
            pods.map(|netns| scope.spawn(move || killed_at_random(netns, Duration::from_secs(seconds))));
        each.map(|thread| thread.join().unwrap()).into()
    });
    let sum = |of: fn(&Toll) -> u32| tolls.iter().map(of).sum::<u32>();
    let (runs, killed, made) = (sum(|t| t.runs), sum(|t| t.killed), sum(|t| t.made));
    println!("{runs} runs, {killed} killed, {made} made, none left in between");
    assert!(killed > 20 && made > 0, "{killed} of {runs} were killed");
}

/// How often it was run, killed, and made nevertheless or before.
#[derive(Default)]
struct Toll {
    runs: u32,
    killed: u32,
    made: u32,
}

fn killed_at_random(netns: &Netns, time: Duration) -> Toll {
    let (path, _) = state(&format!("random-{}", netns.name()));
    let old = values(netns);
    let args = apply_args(netns);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    // How long one takes: kills are spread over it.
    let timed = || {
        let started = Instant::now();
        assert!(command(&path, &args).output().unwrap().status.success());
        let whole = started.elapsed();
        all_back(&path, netns, &old);
        whole
    };
    let whole = (0..9).map(|_| timed()).min().unwrap();
    let started = Instant::now();
    let mut toll = Toll::default();
    let mut seed = 0x9e37_79b9_u32;
    while started.elapsed() < time {
        let mut child = command(&path, &args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // xorshift (Marsaglia 2003)
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        thread::sleep(whole.mul_f64(f64::from(seed % 1000) / 250.0));
        child.kill().unwrap();
        toll.runs += 1;
        toll.killed += u32::from(child.wait().unwrap().signal() == Some(9));
        toll.made += u32::from(recovered(&path, netns, &old, &format!("run {}", toll.runs)));
        if values(netns) != old {
            all_back(&path, netns, &old);
        }
    }
    fs::remove_dir_all(path).unwrap();
    toll
}

/// A disk without room, and one that may not be written: nothing is changed, or it is changed back.
#[test]
fn without_a_journal_nothing_is_changed() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let (path, _) = state("disk");
    fs::create_dir_all(&path).unwrap();
    let old = values(client);
    let args = apply_args(client);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let mount = |args: &[&str]| {
        let status = std::process::Command::new("mount").args(args).arg(&path).status().unwrap();
        assert!(status.success(), "mount {args:?}");
    };
    mount(&["-t", "tmpfs", "-o", "size=64k", "tmpfs"]);
    let unmount = Unmount(&path);
    // Filled up to the last byte, and then with ever more room: first it cannot begin, and at last it can.
    let filler = path.join("filler");
    let mut outcomes = Vec::new();
    for free_pages in 0..8 {
        fill(&filler, free_pages);
        let output = command(&path, &args).output().unwrap();
        outcomes.push(output.status.success());
        if !output.status.success() {
            assert!(stderr(&output).contains("No space left"), "{}", stderr(&output));
        }
        assert!(is_whole(client, &old) && output.status.success() == (values(client) == NEW));
        fs::remove_file(&filler).unwrap();
        all_back(&path, client, &old);
    }
    println!("with 0, 1, 2 ... free pages: {outcomes:?}");
    assert!(!outcomes[0] && outcomes[7], "{outcomes:?}");
    mount(&["-o", "remount,ro"]);
    let output = command(&path, &args).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("Read-only file system"), "{}", stderr(&output));
    assert_eq!(values(client), old);
    drop(unmount);
    fs::remove_dir_all(path).unwrap();
}

/// A file that leaves so many pages of its file system.
fn fill(path: &Path, free_pages: u64) {
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length.next_multiple_of(4096) - free_pages * 4096).unwrap();
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0).status();
    }
}
