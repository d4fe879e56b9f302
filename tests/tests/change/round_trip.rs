//! Every kind of change, made and taken back: other tools see it, and afterwards see every byte as it was.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use crate::dumps::{Dump, differences, dump, dump_of, value};
use anyhow::{Result, ensure};
use nettrace::{
    change::{ChangeError, Engine, KINDS, Request, StateDir, plan},
    lab::{Lab, LabConfig, Netns, Role},
};
use nettrace_tests::{in_guest, truth::output};
use std::{env, fs, net::UdpSocket, path::PathBuf, thread::sleep, time::Duration};

/// What is set, the value of a dump that shows it, and what it then says.
struct Case {
    setting: &'static str,
    seen_in: &'static str,
    as_text: &'static str,
}

const fn case(setting: &'static str, seen_in: &'static str, as_text: &'static str) -> Case {
    Case { setting, seen_in, as_text }
}

const CASES: &[Case] = &[
    case("sysctl:net.core.somaxconn=999", "core/somaxconn", "999"),
    case("sysctl:net.ipv4.tcp_rmem=4096 100000 500000", "ipv4/tcp_rmem", "4096 100000 500000"),
    case("sysctl:net/ipv4/conf/eth0/arp_announce=2", "conf/eth0/arp_announce", "2"),
    case("sysctl:net.ipv4.tcp_congestion_control=reno", "tcp_congestion_control", "reno"),
    case("sysctl:net.ipv4.tcp_fastopen=3", "ipv4/tcp_fastopen", "3"),
    case("sysctl:net.ipv4.ip_local_port_range=20000 30000", "ip_local_port_range", "20000 30000"),
    case(
        "sysctl:net.netfilter.nf_conntrack_tcp_timeout_established=86400",
        "tcp_timeout_established",
        "86400",
    ),
    case("qdisc:eth0=pfifo 77", "tc ", r#""limit":77"#),
    case("qdisc:eth0=fq_codel", "tc ", r#""kind":"fq_codel""#),
    case("qdisc:eth0=fq", "tc ", r#""kind":"fq""#),
    case("qdisc:eth0=prio", "tc ", r#""kind":"prio""#),
    case("mtu:eth0=1400", "link show", r#""mtu":1400"#),
    case("mtu:eth0=2000", "link show", r#""mtu":2000"#),
    case("route-mtu:10.50.0.0/16=1300", "-d route", r#""mtu":1300"#),
    case("route-mtu:fd50::/64=1300", "-6 route", r#""mtu":1300"#),
    case("rps:eth0:0=1", "rps_cpus", "1"),
];

/// Kinds that no interface of a lab has, or that are the machine's: who tests them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("ring", "`rings_of_a_driver`"),
    ("coalesce", "`several_queues_and_coalescing`"),
    ("tuned", "`tuned::profiles_are_set_by_who_has_them`"),
    ("resolv", "`cli::the_machines_files`"),
    ("file", "`cli::the_machines_files`"),
];

pub(crate) fn state(name: &str) -> (PathBuf, StateDir) {
    let path = env::temp_dir().join(format!("nettrace-change-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    let state = StateDir::new(Some(&path));
    (path, state)
}

/// Makes a change and takes it back, the first queue's kernel not having it being no failure outside of a machine of ours.
fn there_and_back(netns: &Netns, link: &str, case: &Case, before: &Dump) -> Result<()> {
    let (path, state) = state("case");
    let request = Request { netns: netns.name().to_owned(), setting: case.setting.to_owned() };
    let plan = plan(case.setting, "a test", &[request], false)?;
    let (mut engine, _) = Engine::open(&state)?;
    let change = match engine.apply(&plan, None) {
        Err(ChangeError::Refused { error, .. })
            if error.raw_os_error() == Some(2) && !in_guest() && case.setting.starts_with("qdisc") =>
        {
            say(&format!("skipped {}: this kernel has no such queue", case.setting));
            let left = differences(before, &dump(netns, link)?);
            ensure!(left.is_empty(), "{}: {left:?}", case.setting);
            return Ok(());
        }
        applied => applied?,
    };
    let set = dump_of(netns, link, case.seen_in)?;
    ensure!(seen(&set, case)?, "{}: {}", case.setting, value(&set, case.seen_in)?);
    ensure!(!seen(before, case)?, "{} was so already", case.setting);
    drop(engine);
    // Another process takes it back, for all that it knows.
    Engine::open(&state)?.0.undo(change, "a test", false)?;
    let left = differences(before, &dump(netns, link)?);
    ensure!(left.is_empty(), "{} is not as it was: {left:?}", case.setting);
    fs::remove_dir_all(path)?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "why something was not tested")]
fn say(text: &str) {
    println!("{text}");
}

/// A part of JSON, or a line, however its words are set apart.
fn seen(dump: &Dump, case: &Case) -> Result<bool> {
    let text = value(dump, case.seen_in)?;
    let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    Ok(if case.as_text.contains('"') {
        text.contains(case.as_text)
    } else {
        lines.any(|l| l == case.as_text)
    })
}

/// Waits until addresses of IPv6 are no longer tentative, which they cease to be by themselves.
fn settled(netns: &Netns) {
    let tentative = || output(netns, "ip", "iproute2", &["addr"]).unwrap().contains("tentative");
    while tentative() {
        sleep(Duration::from_millis(50));
    }
}

/// A lab whose client has longer ways, and routes that have no MTU yet.
fn lab() -> Lab {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = lab.pod(Role::Client);
    for args in [
        &["route", "add", "10.50.0.0/16", "dev", "eth0"][..],
        &["-6", "route", "add", "fd50::/64", "dev", "eth0"],
    ] {
        output(&client.netns, "ip", "iproute2", args).unwrap();
    }
    for netns in [&lab.node().netns, &lab.pod(Role::Server).netns] {
        let links = output(netns, "ip", "iproute2", &["-o", "link"]).unwrap();
        for line in links.lines() {
            let name = line.split(": ").nth(1).unwrap().split('@').next().unwrap();
            if name != "lo" {
                output(netns, "ip", "iproute2", &["link", "set", name, "mtu", "3000"]).unwrap();
            }
        }
    }
    settled(&client.netns);
    // Who is there is known by who was talked to.
    let server = lab.pod(Role::Server).ipv4;
    let talk = || UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"x", (server, 9)));
    client.netns.run(talk).unwrap().unwrap();
    lab
}

#[test]
fn every_change_is_taken_back_to_the_byte() {
    let lab = lab();
    let client = &lab.pod(Role::Client).netns;
    for kind in KINDS {
        let tested = CASES.iter().any(|case| case.setting.split(':').next() == Some(kind.name));
        assert!(
            tested || ELSEWHERE.iter().any(|(name, _)| *name == kind.name),
            "{} is not tested",
            kind.name
        );
    }
    let before = dump(client, "eth0").unwrap();
    // Where processors are emulated, only what kernels differ in: the names of settings are theirs, the way of it is one.
    let differs = |case: &&Case| !in_guest() || !case.setting.starts_with("sysctl:net.ipv4");
    for case in CASES.iter().filter(differs) {
        there_and_back(client, "eth0", case, &before).unwrap();
    }
}

/// All of them in force at once, and then all taken back.
#[test]
fn many_changes_are_taken_back_together() {
    let lab = lab();
    let client = &lab.pod(Role::Client).netns;
    let (path, state) = state("together");
    let before = dump(client, "eth0").unwrap();
    let requests: Vec<_> = CASES
        .iter()
        .filter(|case| !case.setting.starts_with("qdisc"))
        .map(|case| Request { netns: client.name().to_owned(), setting: case.setting.to_owned() })
        .filter(|request| !request.setting.ends_with("eth0=2000"))
        .collect();
    let plan = plan("all", "a test", &requests, false).unwrap();
    assert_eq!(plan.steps.len(), requests.len());
    let change = Engine::open(&state).unwrap().0.apply(&plan, None).unwrap();
    assert!(differences(&before, &dump(client, "eth0").unwrap()).len() >= requests.len() - 2);
    Engine::open(&state).unwrap().0.undo(change, "a test", false).unwrap();
    assert_eq!(differences(&before, &dump(client, "eth0").unwrap()), Vec::<String>::new());
    fs::remove_dir_all(path).unwrap();
}

/// A queue that somebody chose comes back with its handle and its options.
#[test]
fn a_queue_of_somebodys_choice_comes_back() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    output(
        client,
        "tc",
        "iproute2",
        &["qdisc", "replace", "dev", "eth0", "root", "handle", "12:", "bfifo", "limit", "12345"],
    )
    .unwrap();
    let pfifo = case("qdisc:eth0=pfifo 5", "tc ", r#""limit":5"#);
    let pfifo_fast = case("qdisc:eth0=pfifo_fast", "tc ", r#""kind":"pfifo_fast""#);
    settled(client);
    let before = dump(client, "eth0").unwrap();
    for new in [pfifo, pfifo_fast] {
        there_and_back(client, "eth0", &new, &before).unwrap();
    }
    // Of some the kernel tells other options than it was given.
    for (handle, old) in ["34:", "35:", "36:"].into_iter().zip([
        &["fq_codel"][..],
        &["fq_codel", "target", "7ms", "interval", "33ms", "noecn"],
        &["fq", "flow_limit", "77"],
    ]) {
        let args = [&["qdisc", "replace", "dev", "eth0", "root", "handle", handle], old].concat();
        if let Err(error) = output(client, "tc", "iproute2", &args) {
            say(&format!("skipped {}: {error:#}", old[0]));
            assert!(!in_guest(), "{error:#}");
            continue;
        }
        let before = dump(client, "eth0").unwrap();
        there_and_back(client, "eth0", &case("qdisc:eth0=pfifo 5", "tc ", r#""limit":5"#), &before).unwrap();
    }
    // One with classes cannot be put back exactly, and is not touched.
    let tbf = [
        "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", "1mbit", "burst", "10kb", "latency", "50ms",
    ];
    output(client, "tc", "iproute2", &tbf).unwrap();
    let request = Request { netns: client.name().to_owned(), setting: "qdisc:eth0=pfifo 5".to_owned() };
    let refused = plan("x", "a test", &[request], false);
    assert!(matches!(refused, Err(ChangeError::Unrestorable { .. })), "{refused:?}");
}

/// Why a setting is not changed.
fn refused(netns: &Netns, setting: &str) -> String {
    let request = Request { netns: netns.name().to_owned(), setting: setting.to_owned() };
    plan("x", "a test", &[request], false).unwrap_err().to_string()
}

/// What would take more with it than comes back is left alone.
#[test]
fn what_others_follow_is_left_alone() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let ip = |args: &[&str]| output(client, "ip", "iproute2", args).map(drop);
    assert!(
        refused(client, "sysctl:net.ipv6.conf.eth0.disable_ipv6=1").contains("could not be restored exactly")
    );
    // Two names of one setting are one setting.
    let both = ["sysctl:net.core.somaxconn=7", "sysctl:net/core/somaxconn=8"];
    let requests = both.map(|s| Request { netns: client.name().to_owned(), setting: s.to_owned() });
    assert!(plan("x", "a test", &requests, false).unwrap_err().to_string().contains("of the same value"));
    // A route's MTU of IPv6 follows that of its interface, and so does IPv6's own.
    ip(&["-6", "route", "add", "fd51::/64", "dev", "eth0", "mtu", "1450"]).unwrap();
    assert!(refused(client, "mtu:eth0=1400").contains("a route of IPv6"));
    let one = Request { netns: client.name().to_owned(), setting: "mtu:eth0=1460".to_owned() };
    plan("x", "a test", &[one], false).unwrap();
    ip(&["-6", "route", "del", "fd51::/64", "dev", "eth0"]).unwrap();
    client.set_sysctl("net/ipv6/conf/eth0/mtu", "1400").unwrap();
    assert!(refused(client, "mtu:eth0=1450").contains("net.ipv6.conf has another MTU"));
    client.set_sysctl("net/ipv6/conf/eth0/mtu", "1500").unwrap();
    // What has an end would begin anew.
    ip(&["-6", "route", "add", "fd52::/64", "dev", "eth0", "expires", "600"]).unwrap();
    assert!(refused(client, "route-mtu:fd52::/64=1300").contains("a time to live"));
    let vlan = ["link", "add", "link", "eth0", "name", "eth0.7", "type", "vlan", "id", "7"];
    if let Err(error) = ip(&vlan) {
        say(&format!("skipped, a VLAN: {error:#}"));
        assert!(!in_guest(), "{error:#}");
        return;
    }
    assert!(refused(client, "mtu:eth0=1400").contains("eth0.7 is on top of it"));
}

/// A queue with filters or a table of sizes would lose them.
#[test]
fn what_a_queue_has_beside_its_options_is_not_lost() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let sizes =
        ["qdisc", "replace", "dev", "eth0", "root", "handle", "12:", "stab", "overhead", "20", "linklayer"];
    let sizes = [&sizes[..], &["ethernet", "pfifo", "limit", "100"]].concat();
    output(client, "tc", "iproute2", &sizes).unwrap();
    assert!(refused(client, "qdisc:eth0=pfifo 5").contains("a table of sizes"));
    let queue = ["qdisc", "replace", "dev", "eth0", "root", "handle", "13:", "fq_codel"];
    let filter =
        ["filter", "add", "dev", "eth0", "parent", "13:", "protocol", "ip", "u32", "match", "u32", "0", "0"];
    let filter = [&filter[..], &["flowid", "13:1"]].concat();
    let made =
        output(client, "tc", "iproute2", &queue).and_then(|_| output(client, "tc", "iproute2", &filter));
    if let Err(error) = made {
        say(&format!("skipped, filters: {error:#}"));
        assert!(!in_guest(), "{error:#}");
        return;
    }
    assert!(refused(client, "qdisc:eth0=pfifo 5").contains("it has filters"));
    output(client, "tc", "iproute2", &["filter", "del", "dev", "eth0", "parent", "13:"]).unwrap();
    let request = Request { netns: client.name().to_owned(), setting: "qdisc:eth0=pfifo 5".to_owned() };
    plan("x", "a test", &[request], false).unwrap();
}

/// A setting is of an interface, not of its name: under another name it is known, and another one of its name is left alone.
#[test]
fn an_interface_is_known_by_its_index() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let ip = |args: &[&str]| drop(output(client, "ip", "iproute2", args).unwrap());
    ip(&["link", "add", "one", "type", "veth", "peer", "name", "two"]);
    let (path, state) = state("index");
    let settings = ["mtu:one=1400", "sysctl:net.ipv4.conf.one.arp_announce=2"];
    let requests = settings.map(|s| Request { netns: client.name().to_owned(), setting: s.to_owned() });
    let plan = plan("x", "a test", &requests, false).unwrap();
    let change = Engine::open(&state).unwrap().0.apply(&plan, None).unwrap();
    ip(&["link", "set", "one", "name", "other"]);
    let renamed = Engine::open(&state).unwrap().0.undo(change, "a test", false).unwrap_err();
    assert!(matches!(renamed, ChangeError::Renamed { .. }), "{renamed}");
    ip(&["link", "set", "other", "name", "one"]);
    Engine::open(&state).unwrap().0.undo(change, "a test", false).unwrap();
    let change = Engine::open(&state).unwrap().0.apply(&plan, None).unwrap();
    ip(&["link", "del", "one"]);
    ip(&["link", "add", "one", "mtu", "1400", "type", "veth", "peer", "name", "two"]);
    let undone = Engine::open(&state).unwrap().0.undo(change, "a test", false).unwrap();
    assert_eq!((undone.gone.len(), undone.restored.len()), (2, 0), "{undone:?}");
    let left = output(client, "ip", "iproute2", &["-o", "link", "show", "one"]).unwrap();
    assert!(left.contains("mtu 1400"), "{left}");
    fs::remove_dir_all(path).unwrap();
}

/// What the kernel gives by default is put back only while it would give the same again. The default is the whole machine's, and
/// so it is changed in one of ours only.
#[test]
fn a_default_that_became_another_is_left_alone() {
    const DEFAULT: &str = "/proc/sys/net/core/default_qdisc";
    if !in_guest() {
        say("skipped: net.core.default_qdisc is the whole machine's, and is changed in one of ours only");
        return;
    }
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    // Unlike a veth, a tap has a queue by default.
    for name in ["tap0", "tap1"] {
        output(client, "ip", "iproute2", &["tuntap", "add", "dev", name, "mode", "tap"]).unwrap();
        output(client, "ip", "iproute2", &["link", "set", name, "up"]).unwrap();
    }
    let (path, state) = state("default");
    let before = dump_of(client, "tap0", "tc ").unwrap();
    let plan_of = |setting: &str| {
        let request = Request { netns: client.name().to_owned(), setting: setting.to_owned() };
        plan("x", "a test", &[request], false)
    };
    let first = plan_of("qdisc:tap0=pfifo 5").unwrap();
    let change = Engine::open(&state).unwrap().0.apply(&first, None).unwrap();
    let default = fs::read_to_string(DEFAULT).unwrap();
    fs::write(DEFAULT, "bfifo").unwrap();
    let undone = Engine::open(&state).unwrap().0.undo(change, "a test", false);
    let other = plan_of("qdisc:tap1=pfifo 5");
    fs::write(DEFAULT, default).unwrap();
    let error = undone.unwrap_err().to_string();
    assert!(error.contains("net.core.default_qdisc is bfifo by now"), "{error}");
    assert!(matches!(other, Err(ChangeError::Unrestorable { .. })), "{other:?}");
    Engine::open(&state).unwrap().0.undo(change, "a test", false).unwrap();
    assert_eq!(differences(&before, &dump_of(client, "tap0", "tc ").unwrap()), Vec::<String>::new());
    fs::remove_dir_all(path).unwrap();
}

/// Rings of a real driver: that of a machine of ours. The host's own interface is left alone.
#[test]
fn rings_of_a_driver() {
    if !in_guest() {
        say("skipped: only machines of ours have an interface with rings that may be changed");
        return;
    }
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    let is_virtio = |name: &String| {
        fs::read_link(format!("/sys/class/net/{name}/device/driver")).is_ok_and(|d| d.ends_with("virtio_net"))
    };
    let mut names =
        fs::read_dir("/sys/class/net").unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let nic = names.find(is_virtio).unwrap();
    let moved = std::process::Command::new("ip")
        .args(["link", "set", "dev", &nic, "name", "nic0", "netns", client.name()])
        .status();
    assert!(moved.unwrap().success());
    output(client, "ip", "iproute2", &["link", "set", "nic0", "up"]).unwrap();
    settled(client);
    let before = dump(client, "nic0").unwrap();
    let ring = case("ring:nic0:rx=128", "ethtool -g", "RX: 128");
    match there_and_back(client, "nic0", &ring, &before) {
        Ok(()) => {}
        // virtio_net takes it from Linux 6.1 on (virtnet_set_ringparam).
        Err(error) if fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().starts_with("5.10.") => {
            assert!(format!("{error:#}").contains("Operation not supported"), "{error:#}");
            assert_eq!(differences(&before, &dump(client, "nic0").unwrap()), Vec::<String>::new());
        }
        Err(error) => panic!("{error:#}"),
    }
}

/// An interface with several queues keeps them: one new queue below each. Its driver can hold packets back, too.
#[test]
fn several_queues_and_coalescing() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    for args in
        [&["tuntap", "add", "dev", "tap0", "mode", "tap", "multi_queue"][..], &["link", "set", "tap0", "up"]]
    {
        output(client, "ip", "iproute2", args).unwrap();
    }
    settled(client);
    let dumped = dump(client, "tap0").unwrap();
    assert!(value(&dumped, "tc ").unwrap().contains(r#""kind":"mq""#), "{dumped:?}");
    let queues = case("qdisc:tap0=pfifo 66", "tc ", r#""limit":66"#);
    let coalesce = case("coalesce:tap0:rx-frames=7", "ethtool -c", "rx-frames: 7");
    for case in [queues, coalesce] {
        there_and_back(client, "tap0", &case, &dumped).unwrap();
    }
}
