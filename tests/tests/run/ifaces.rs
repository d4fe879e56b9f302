//! Interfaces that come and go, and what is left of a capture when it is over: nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use anyhow::{Result, ensure};
use aya::programs::{SchedClassifier, tc::TcAttachType};
use nettrace::{
    capture::{Capture, Options},
    filter,
    lab::{
        Family, Lab, LabConfig, Netns, Role,
        traffic::udp::{self, RequestResponse},
    },
    snapshot::Interface,
};
use nettrace_common::Signal;
use nettrace_tests::{captured, comes_about, count, count_in, options, program::nettrace};
use std::{
    fs,
    net::UdpSocket,
    process::{Command, Stdio},
    thread::scope,
    time::Duration,
};

/// Waits until something is so; false when it is not within 20 s.
pub(crate) fn wait_for(done: impl FnMut() -> bool) -> bool {
    comes_about(Duration::from_secs(20), done)
}

/// TC programs at the interfaces of a lab's node, as `interface program`.
pub(crate) fn attached_in(lab: &Lab) -> Vec<String> {
    let interfaces: Vec<_> =
        lab.pods().iter().map(|pod| pod.veth.name.clone()).chain(["lo".to_owned()]).collect();
    let query = || {
        let mut found = Vec::new();
        for interface in interfaces {
            for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
                let names = match SchedClassifier::query_tcx(&interface, direction) {
                    Ok((_, programs)) => {
                        programs.iter().map(|p| p.name_as_str().unwrap_or("?").to_owned()).collect()
                    }
                    // The kernel has no tcx to ask for (before 6.6).
                    Err(_) => filters(&interface, direction),
                };
                found.extend(names.into_iter().map(|name| format!("{interface} {name}")));
            }
        }
        found
    };
    lab.node().netns.run(query).unwrap()
}

/// Programs at an interface's clsact, as `tc` tells them.
fn filters(interface: &str, direction: TcAttachType) -> Vec<String> {
    let side = if matches!(direction, TcAttachType::Ingress) { "ingress" } else { "egress" };
    let output = Command::new("tc").args(["filter", "show", "dev", interface, side]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<_> = told.split_whitespace().collect();
    words.windows(2).filter(|w| w[1] == "direct-action").map(|w| w[0].to_owned()).collect()
}

/// `ip` in a lab's node.
fn ip(lab: &Lab, command: &str) -> Result<()> {
    let args = command.split(' ');
    let output = Command::new("ip").args(["-n", lab.node().netns.name()]).args(args).output()?;
    ensure!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// UDP exchanges between the client and the server; all of them are answered.
fn exchange(lab: &Lab, requests: u32) -> Result<()> {
    let path = lab.path(Role::Client, Role::Server, Family::V4)?;
    let done = udp::request_response(&path, &RequestResponse { requests, ..RequestResponse::default() })?;
    ensure!(done.answered == u64::from(requests), "{done:?}");
    Ok(())
}

/// Only UDP, so that neither ARP nor neighbour discovery is counted.
fn udp_only(lab: &Lab) -> Options {
    let mut options = options(lab);
    options.programs.filter = filter::parse("udp and net 10.244.0.0/24").unwrap();
    options
}

/// While pods come and go, the flow between two others loses nothing; those that went keep their row, marked gone; one
/// that came has its programs, its row and its packets, each of them.
#[test]
fn pods_come_and_go_and_nobody_else_notices() {
    const REQUESTS: u32 = 3000;
    const OWN: u64 = 25;
    const GONE: usize = 6;
    let lab = Lab::start(LabConfig::default()).unwrap();
    let capture = Capture::start(udp_only(&lab)).unwrap();
    let rows = |wanted: &dyn Fn(&Interface) -> bool, number: usize| {
        wait_for(|| capture.interfaces().iter().filter(|row| wanted(row)).count() == number)
    };
    scope(|scope| {
        let flow = scope.spawn(|| exchange(&lab, REQUESTS));
        for i in 0..GONE {
            ip(&lab, "link add veth-tmp type veth peer name peer").unwrap();
            ip(&lab, "link set veth-tmp up").unwrap();
            assert!(rows(&|row| row.name == "veth-tmp" && row.attached == ["tcx"], i + 1));
            ip(&lab, "link del veth-tmp").unwrap();
            assert!(rows(&|row| row.name == "veth-tmp" && row.gone, i + 1));
        }
        flow.join().unwrap().unwrap();
    });
    let pod = Netns::create(&format!("{}-new", lab.node().netns.name())).unwrap();
    ip(&lab, &format!("link add veth-new type veth peer name eth0 netns {}", pod.name())).unwrap();
    ip(&lab, "link set veth-new master br0 up").unwrap();
    for command in ["addr add 10.244.0.9/24 dev eth0", "link set eth0 up"] {
        let done = Command::new("ip").args(["-n", pod.name()]).args(command.split(' ')).status().unwrap();
        assert!(done.success(), "ip {command}");
    }
    assert!(rows(&|row| row.name == "veth-new" && row.attached == ["tcx"], 1));
    let bind = |netns: &Netns, address: &str| {
        let socket = netns.run(|| UdpSocket::bind(address)).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    };
    let new = bind(&pod, "10.244.0.9:0");
    let server = bind(&lab.pod(Role::Server).netns, "10.244.0.3:0");
    for _ in 0..OWN {
        server.send_to(b"hello", new.local_addr().unwrap()).unwrap();
        new.recv(&mut [0; 8]).unwrap();
    }
    let snapshot = capture.stop().unwrap().snapshot;
    let requests = u64::from(REQUESTS);
    for (signal, expected) in [(Signal::RxTotal, 2 * requests), (Signal::FwdHost, 2 * requests + OWN)] {
        assert_eq!(count(&snapshot, signal), expected, "{}", signal.name());
    }
    assert_eq!(count_in(&snapshot, Signal::FwdHost, "node/veth-server"), requests);
    assert_eq!(count_in(&snapshot, Signal::FwdHost, "node/veth-client"), requests);
    assert_eq!(count_in(&snapshot, Signal::FwdHost, "node/veth-new"), OWN);
    let gone: Vec<_> = snapshot.interfaces.iter().filter(|row| row.gone).collect();
    assert_eq!(gone.len(), GONE);
    for row in gone {
        assert!(row.name == "veth-tmp" && row.error.is_none() && row.attached == ["tcx"], "{row:?}");
    }
}

/// An interface that goes down, changes its name and comes up again is still the same: one row, and all its packets.
#[test]
fn an_interface_that_goes_down_and_changes_its_name_is_the_same() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let capture = Capture::start(udp_only(&lab)).unwrap();
    exchange(&lab, 20).unwrap();
    for command in ["veth-server down", "veth-server name veth-other", "veth-other up"] {
        ip(&lab, &format!("link set {command}")).unwrap();
    }
    exchange(&lab, 30).unwrap();
    let snapshot = capture.stop().unwrap().snapshot;
    assert_eq!(count(&snapshot, Signal::RxTotal), 100);
    assert_eq!(count_in(&snapshot, Signal::FwdHost, "node/veth-server"), 50);
    let node = snapshot
        .interfaces
        .iter()
        .filter(|i| i.netns == "node" && i.ifindex == lab.pod(Role::Server).veth.index);
    assert_eq!(node.count(), 1, "{:?}", snapshot.interfaces);
}

/// Descriptors of BPF objects that this process holds.
pub(crate) fn bpf_descriptors() -> Vec<String> {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|f| fs::read_link(f.path()).ok());
    links.map(|l| l.display().to_string()).filter(|l| l.contains("bpf")).collect()
}

/// Programs are at every interface of the node while a capture runs, and neither they nor any other BPF object are
/// there when it is over.
#[test]
fn nothing_is_left_when_it_is_over() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    // Of each kind of hook one.
    let mut few = options(&lab);
    few.signals = ["net.rtt", "drop", "tcp.connect", "ip.fragmenting"].map(str::to_owned).to_vec();
    let capture = Capture::start(few.clone()).unwrap();
    let attached = attached_in(&lab);
    for pod in lab.pods() {
        let here = attached.iter().filter(|a| a.contains(&pod.veth.name)).count();
        assert_eq!(here, 2, "{}: {attached:?}", pod.veth.name);
    }
    assert!(!bpf_descriptors().is_empty());
    drop(capture.stop().unwrap());
    assert_eq!(attached_in(&lab), Vec::<String>::new());
    assert_eq!(bpf_descriptors(), Vec::<String>::new());
    // A capture that is dropped without a stop, as by an error, leaves nothing either.
    drop(Capture::start(few).unwrap());
    assert_eq!(attached_in(&lab), Vec::<String>::new());
    assert!(wait_for(|| bpf_descriptors().is_empty()), "{:?}", bpf_descriptors());
}

/// A program that is killed takes its programs with it.
#[test]
fn nothing_is_left_of_a_program_that_is_killed() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let mut child = nettrace()
        .unwrap()
        .args(["run", "-d", "10m", "--quiet", "--netns", lab.node().netns.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let attached = wait_for(|| attached_in(&lab).len() >= 6);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(attached);
    assert!(wait_for(|| attached_in(&lab).is_empty()), "{:?}", attached_in(&lab));
    exchange(&lab, 5).unwrap();
}

/// `--iface` and `--exclude` choose by name.
#[test]
fn interfaces_are_chosen_by_name() {
    let names = |include: &[&str], exclude: &[&str]| {
        let globs = |texts: &[&str]| texts.iter().map(|t| glob::Pattern::new(t).unwrap()).collect::<Vec<_>>();
        let (include, exclude) = (globs(include), globs(exclude));
        let (finished, attached) = captured(
            LabConfig::default(),
            |options| (options.selection.include, options.selection.exclude) = (include, exclude),
            |lab| {
                exchange(lab, 10)?;
                Ok(attached_in(lab))
            },
        )
        .unwrap();
        let node = finished.snapshot.interfaces.iter().filter(|i| i.netns == "node");
        let mut names: Vec<_> = node.map(|i| i.name.clone()).collect();
        names.sort();
        for name in ["veth-client", "veth-server", "veth-dns"] {
            let here = attached.iter().any(|a| a.contains(name));
            assert_eq!(here, names.iter().any(|n| n == name), "{name}: {attached:?}");
        }
        names
    };
    assert_eq!(names(&["veth-c*"], &[]), ["veth-client"]);
    assert_eq!(names(&["veth-*"], &["*-dns"]), ["veth-client", "veth-server"]);
    assert_eq!(names(&[], &["veth-[cd]*", "lo"]), ["veth-server"]);
}

/// Two captures at once see the same, and the end of one is nothing to the other.
#[test]
fn two_captures_do_not_disturb_each_other() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let long = Capture::start(udp_only(&lab)).unwrap();
    exchange(&lab, 10).unwrap();
    let short = Capture::start(udp_only(&lab)).unwrap();
    assert_eq!(attached_in(&lab).len(), 2 * 2 * 4, "two captures at three veths and a loopback, both ways");
    exchange(&lab, 20).unwrap();
    let short = short.stop().unwrap().snapshot;
    exchange(&lab, 40).unwrap();
    let long = long.stop().unwrap().snapshot;
    for signal in [Signal::RxStack, Signal::RxTotal, Signal::FwdHost, Signal::TxDriver] {
        let of = [count(&long, signal), count(&short, signal)];
        let each = if signal == Signal::TxDriver { 4 } else { 2 };
        assert_eq!(of, [each * 70, each * 20], "{}", signal.name());
    }
}
