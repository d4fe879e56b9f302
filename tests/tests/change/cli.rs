//! The commands as a person or a script meets them: what they say, how they end, and that nothing is changed when they fail.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use crate::round_trip::state;
use nettrace::lab::{Lab, LabConfig, Netns, Role};
use nettrace_tests::program::{nettrace, stderr, stdout};
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};

pub(crate) const SETTING: &str = "net.core.somaxconn";

/// A kernel setting, by its name for sysctl(8).
pub(crate) fn get(netns: &Netns, name: &str) -> String {
    netns.sysctl(&name.replace('.', "/")).unwrap()
}

/// What a script says that runs in mount and network namespaces of its own, so that `host` is that one: `$1` is a directory, in
/// which the journal is, too, and `$2` the program.
pub(crate) fn apart(script: &str, dir: &Path) -> (String, String) {
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", script, "sh"])
        .arg(dir)
        .arg(nettrace().unwrap().get_program())
        .env("NETTRACE_STATE_DIR", dir.join("state"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, told) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{said}\n{told}");
    (said, told)
}

/// The program, with a journal of its own.
pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = nettrace().unwrap();
    command.args(args).env("NETTRACE_STATE_DIR", dir).stdin(Stdio::null());
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

/// It failed with this code, and in one line says all of this.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in {said}");
    }
}

#[test]
fn bad_input_changes_nothing_and_says_why() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let (path, _) = state("bad");
    let before = get(client, SETTING);
    let apply = |setting: &str| run(&path, &["apply", "--yes", "--inside", client.name(), "--set", setting]);
    refused(
        &run(&path, &["apply", "conntrack.mx"]),
        2,
        &["no finding conntrack.mx", "the nearest is conntrack.max"],
    );
    refused(&apply("sysctl:net.core.somaxconn=-1"), 2, &["does not take `-1`"]);
    refused(&apply("sysctl:net.core.somaxconn=many"), 2, &["cannot be `many`", "one number"]);
    refused(&apply("sysctl:net.core.somaxcon=1"), 2, &["net.core.somaxcon is not there"]);
    refused(&apply("syctl:net.core.somaxconn=1"), 2, &["`sysctl`?"]);
    refused(&apply("sysctl:kernel.panic=1"), 2, &["below net."]);
    refused(&apply("sysctl:net.ipv4.ip_forward=1"), 2, &["could not be restored exactly"]);
    refused(&apply("mtu:eth7=1400"), 2, &["interface eth7 is not there"]);
    refused(&apply("mtu:eth0=1000"), 2, &["loses its IPv6 addresses"]);
    refused(&apply("mtu:eth0=70000"), 2, &["must be from"]);
    refused(&apply("ring:eth0:rx=100"), 2, &["ring eth0:rx"]);
    refused(&apply("resolv:ndots=2"), 2, &["it is the machine's"]);
    let elsewhere =
        run(&path, &["apply", "--yes", "--inside", "no-such", "--set", "sysctl:net.core.somaxconn=1"]);
    refused(&elsewhere, 2, &["network namespace no-such is not there"]);
    refused(&run(&path, &["rollback", "7"]), 2, &["there is no change 7"]);
    let asks = run(&path, &["apply", "--inside", client.name(), "--set", "sysctl:net.core.somaxconn=7"]);
    refused(&asks, 2, &["no terminal to ask at"]);
    let dry = ["apply", "--dry-run", "--inside", client.name(), "--set", "sysctl:net.core.somaxconn=7"];
    let dry = run(&path, &dry);
    assert!(dry.status.success() && stdout(&dry).contains("+ 7"), "{dry:?}");
    assert_eq!(get(client, SETTING), before);
    let active = run(&path, &["status", "--json"]);
    assert_eq!(stdout(&active).trim(), "[]");
    fs::remove_dir_all(path).unwrap();
}

/// Two settings of which one is refused: neither is changed.
#[test]
fn several_settings_are_one_change() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let (path, _) = state("several");
    let before = get(client, SETTING);
    let set = |values: [&str; 2]| {
        let args = ["apply", "--yes", "--inside", client.name(), "--set", values[0], "--set", values[1]];
        run(&path, &args)
    };
    let failed = set(["sysctl:net.core.somaxconn=7", "sysctl:net.ipv4.tcp_fastopen=-99999999999"]);
    refused(&failed, 2, &["tcp_fastopen"]);
    assert_eq!(get(client, SETTING), before);
    let made = set(["sysctl:net.core.somaxconn=7", "sysctl:net.ipv4.tcp_fastopen=3"]);
    assert!(made.status.success(), "{made:?}");
    assert_eq!((get(client, SETTING).as_str(), get(client, "net.ipv4.tcp_fastopen").as_str()), ("7", "3"));
    let listed = stdout(&run(&path, &["changes"]));
    assert!(listed.contains("in force") && listed.contains("-> 7"), "{listed}");
    // Somebody else changes it: it is theirs.
    client.set_sysctl(&SETTING.replace('.', "/"), "8").unwrap();
    let status = run(&path, &["status"]);
    assert_eq!(status.status.code(), Some(1));
    assert!(stdout(&status).contains("8, which somebody else set"), "{status:?}");
    let conflict = run(&path, &["rollback", "--all"]);
    assert_eq!(conflict.status.code(), Some(2), "{conflict:?}");
    assert!(stderr(&conflict).contains("changed to `8` by somebody else"), "{conflict:?}");
    assert_eq!(get(client, "net.ipv4.tcp_fastopen"), "3", "all or nothing");
    assert!(run(&path, &["rollback", "--all", "--force"]).status.success());
    assert_eq!(get(client, SETTING), before);
    fs::remove_dir_all(path).unwrap();
}

/// Two at once: one waits for the other, and both are whole.
#[test]
fn two_at_once_are_one_after_the_other() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let (path, _) = state("two");
    let names = ["net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog"];
    let before = names.map(|name| get(client, name));
    for round in 0..5 {
        let apply = |value: u32| {
            let settings = names.map(|name| format!("sysctl:{name}={value}"));
            let args =
                ["apply", "--yes", "--inside", client.name(), "--set", &settings[0], "--set", &settings[1]];
            run(&path, &args)
        };
        let (one, other) = thread::scope(|scope| {
            let one = scope.spawn(|| apply(100 + round));
            (apply(200 + round), one.join().unwrap())
        });
        // Who comes second may find another value than it looked at, and says so.
        let made = [&one, &other].iter().filter(|output| output.status.success()).count();
        assert!(made >= 1, "{one:?} {other:?}");
        let now = names.map(|name| get(client, name));
        assert_eq!(now[0], now[1], "half of one and half of the other");
    }
    assert!(run(&path, &["rollback", "--all"]).status.success());
    assert_eq!(names.map(|name| get(client, name)), before);
    fs::remove_dir_all(path).unwrap();
}

/// A journal that was damaged on purpose: nothing is guessed, and what it proves is told.
#[test]
fn a_damaged_journal_is_told() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let (path, _) = state("damaged");
    let before = get(client, SETTING);
    let set = |value: &str| {
        let setting = format!("sysctl:{SETTING}={value}");
        run(&path, &["apply", "--yes", "--inside", client.name(), "--set", &setting])
    };
    assert!(set("7").status.success() && set("8").status.success());
    let journal = path.join("journal");
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, text.replace("\"after\":\"8\"", "\"after\":\"9\"")).unwrap();
    for args in [
        &["rollback", "--all"][..],
        &["changes"],
        &["apply", "--yes", "--set", "sysctl:net.core.somaxconn=5"],
    ] {
        let output = run(&path, args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains("does not fit its sum")
                && said.contains(&format!("was `{before}`, and was to be `7`")),
            "{said}"
        );
        assert_eq!(get(client, SETTING), "8");
    }
    fs::write(&journal, text).unwrap();
    assert!(run(&path, &["rollback", "--all"]).status.success());
    assert_eq!(get(client, SETTING), before);
    fs::remove_dir_all(path).unwrap();
}

/// Kernel settings that outlive a reboot are in a file, and the file goes with the change: in a mount namespace of their own.
#[test]
fn the_machines_files() {
    let (path, _) = state("files");
    fs::create_dir_all(path.join("etc/sysctl.d")).unwrap();
    fs::write(path.join("etc/resolv.conf"), "nameserver 10.96.0.10\noptions ndots:5\n").unwrap();
    fs::write(path.join("etc/sysctl.d/50-theirs.conf"), "net.core.somaxconn = 300\n").unwrap();
    let script = r#"set -eu
        mount --bind "$1/etc" /etc
        before=$(cat /proc/sys/net/core/somaxconn)
        "$2" apply --yes --persist --set sysctl:net.core.somaxconn=77
        cat /etc/sysctl.d/zz-nettrace-net.core.somaxconn.conf
        "$2" apply --yes --set resolv:ndots=2
        cat /etc/resolv.conf
        "$2" rollback --all
        ls /etc/sysctl.d
        cat /etc/resolv.conf
        test "$(cat /proc/sys/net/core/somaxconn)" = "$before"
        ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
        "$2" apply --yes --set resolv:ndots=2 || echo "code $?"
    "#;
    let (said, told) = apart(script, &path);
    for text in [
        "50-theirs.conf:1 sets it at the next start",
        "net.core.somaxconn = 77\n",
        "nameserver 10.96.0.10\noptions ndots:2\n",
        "50-theirs.conf\nnameserver 10.96.0.10\noptions ndots:5\n",
        "code 2",
    ] {
        assert!(said.contains(text), "`{text}` is not in {said}");
    }
    assert!(told.contains("to which /etc/resolv.conf is a link"), "{told}");
    fs::remove_dir_all(path).unwrap();
}
