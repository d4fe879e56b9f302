//! The dead man's switch: a change with a time limit goes when nobody says that it may stay, whatever became of its maker.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use crate::{
    cli::{SETTING, command, get},
    round_trip::state,
};
use nettrace::{
    change::{Engine, Request, Until, plan},
    lab::{Lab, LabConfig, Netns, Role},
};
use nettrace_tests::program::{nettrace, stderr};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const LIMIT: &str = "2s";

fn apply<'a>(netns: &'a Netns, setting: &'a str) -> [&'a str; 8] {
    ["apply", "--yes", "--until", LIMIT, "--inside", netns.name(), "--set", setting]
}

/// Waits until the setting is as it was; whether it ever is.
fn comes_back(netns: &Netns, before: &str) -> bool {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(20) {
        if get(netns, SETTING) == before {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

fn setting() -> String {
    format!("sysctl:{SETTING}=777")
}

/// Its maker ends, as always; or is in a terminal that is gone, with all processes of its session.
#[test]
fn a_change_goes_by_itself() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let (path, _) = state("until");
    let before = get(client, SETTING);
    let setting = setting();
    let output = command(&path, &apply(client, &setting)).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(get(client, SETTING), "777");
    assert!(comes_back(client, &before));
    in_a_terminal_that_goes(&path, client, &setting);
    assert_eq!(get(client, SETTING), "777");
    assert!(comes_back(client, &before));
    fs::remove_dir_all(path).unwrap();
}

/// `script` gives it a terminal, which hangs up when the shell in it is killed.
fn in_a_terminal_that_goes(path: &Path, netns: &Netns, setting: &str) {
    let program = nettrace().unwrap();
    let words = apply(netns, setting).join(" ");
    let line = format!("{} {words}; kill -9 $$", program.get_program().display());
    // How it ends is that of a shell that was killed.
    let ended = Command::new("script")
        .args(["--quiet", "--command", &line, "/dev/null"])
        .env("NETTRACE_STATE_DIR", path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    ended.unwrap();
}

/// The one that was started for the first change watches over those that come after it, too.
#[test]
fn one_watches_over_all_that_come() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let (path, dir) = state("watch");
    let before = get(client, SETTING);
    let setting = setting();
    assert!(command(&path, &apply(client, &setting)).output().unwrap().status.success());
    assert!(comes_back(client, &before));
    let request = Request { netns: client.name().to_owned(), setting: setting.clone() };
    let plan = plan("second", "a test", &[request], false).unwrap();
    Engine::open(&dir).unwrap().0.apply(&plan, Some(Until::after(Duration::from_secs(1)))).unwrap();
    assert_eq!(get(client, SETTING), "777");
    assert!(comes_back(client, &before));
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn what_is_kept_stays_and_what_is_rolled_back_is_not_waited_for() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let (path, _) = state("keep");
    let before = get(client, SETTING);
    let setting = setting();
    let run = |args: &[&str]| {
        let output = command(&path, args).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    };
    run(&apply(client, &setting));
    run(&["keep"]);
    thread::sleep(Duration::from_secs(4));
    assert_eq!(get(client, SETTING), "777");
    run(&["rollback", "--all"]);
    assert_eq!(get(client, SETTING), before);
    fs::remove_dir_all(path).unwrap();
}

/// The process that watches is gone, too: the next command takes it back.
#[test]
fn the_next_command_takes_back_what_nobody_did() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let (path, _) = state("gone");
    let before = get(client, SETTING);
    let output = command(&path, &apply(client, &setting())).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let guards = guards(&path);
    assert_eq!(guards.len(), 1, "{guards:?}");
    guards.iter().for_each(|pid| {
        assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
    });
    thread::sleep(Duration::from_secs(3));
    assert_eq!(get(client, SETTING), "777");
    let output = command(&path, &["rollback"]).output().unwrap();
    assert!(output.status.success() && stderr(&output).contains("its time is up"), "{}", stderr(&output));
    assert_eq!(get(client, SETTING), before);
    fs::remove_dir_all(path).unwrap();
}

/// Processes that watch over this journal.
fn guards(path: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let is_it = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(" guard ") && line.contains(&path.display().to_string())
    };
    processes.map(|p| p.file_name().to_string_lossy().into_owned()).filter(is_it).collect()
}
