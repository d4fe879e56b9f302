//! Profiles of a real tuned, with a bus, an `/etc/tuned` and a network namespace of its own.

use crate::{cli::apart, round_trip::state};
use std::fs;

/// What only this test needs, and what nobody wants to have set up on their machine for it.
const PROGRAMS: [&str; 2] = ["/usr/sbin/tuned", "/usr/bin/dbus-daemon"];
/// `$1`: a directory for all that is written; `$2`: the program.
const SCRIPT: &str = r#"set -eu
    cp -a /etc/tuned "$1/tuned"
    for profile in one two; do
        mkdir "$1/tuned/lab-$profile"
    done
    printf '[main]\nsummary=lab\n[sysctl]\nnet.core.somaxconn=111\n' > "$1/tuned/lab-one/tuned.conf"
    printf '[main]\nsummary=lab\n[sysctl]\nnet.core.somaxconn=222\n' > "$1/tuned/lab-two/tuned.conf"
    mount --bind "$1/tuned" /etc/tuned
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /var/log
    mkdir -p /run/dbus /run/tuned
    said() { echo "$1: $(cat /etc/tuned/profile_mode) $(cat /etc/tuned/active_profile) $(cat /proc/sys/net/core/somaxconn)"; }
    printf lab-one > /etc/tuned/active_profile
    printf manual > /etc/tuned/profile_mode
    "$2" apply --yes --set tuned=lab-two || echo "without its daemon: code $?"
    bus=$(dbus-daemon --system --fork --print-pid)
    tuned --daemon --pid /run/tuned/pid
    trap 'kill $(cat /run/tuned/pid) $bus' EXIT
    # It is ready when it answers.
    for try in 1 2 3 4 5 6 7 8 9 10; do
        if tuned-adm active > /dev/null && test "$(cat /proc/sys/net/core/somaxconn)" = 111; then break; fi
        sleep 1
    done
    said before
    "$2" apply --yes --set tuned=lab-two
    said set
    "$2" apply --yes --set tuned=lab-three || echo "no such profile: code $?"
    "$2" rollback --all
    said back
"#;

#[test]
fn profiles_are_set_by_who_has_them() {
    if let Some(program) = PROGRAMS.iter().find(|program| !fs::exists(program).unwrap_or(false)) {
        println!("skipped: {program} is not there");
        return;
    }
    let (path, _) = state("tuned");
    fs::create_dir_all(&path).unwrap();
    let (said, told) = apart(SCRIPT, &path);
    for text in [
        "without its daemon: code 2",
        "before: manual lab-one 111",
        "set: manual lab-two 222",
        "no such profile: code 2",
        "back: manual lab-one 111",
    ] {
        assert!(said.contains(text), "`{text}` is not in {said}\n{told}");
    }
    fs::remove_dir_all(path).unwrap();
}
