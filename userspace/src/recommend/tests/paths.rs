//! Rules on a packet's way: MTUs of tunnels, queues of interfaces, receive work, hardware.

use super::{cluster::with_signal_of, find, quiet, verdict};
use crate::{
    node::{
        Clue, Cluster, Coalescing, CpuReceive, LimitedInterface, Machine, Nic, NodeLink, Rings, Routes,
        Setting, Settings,
    },
    recommend::{Confidence, Finding, Verdict},
    snapshot::{Drop, LearntMtu, Snapshot, sample},
};
use nettrace_common::Signal;

fn link(name: &str, ifindex: u32, mtu_bytes: u32) -> NodeLink {
    NodeLink { name: name.to_owned(), ifindex, up: true, mtu_bytes, ..NodeLink::default() }
}

/// A pod with a tunnel of this name that takes as much as the interface below it, which made so many fragments, and learnt
/// this path MTU.
fn tunnel(name: &str, made: Option<u64>, learnt: Option<u32>) -> Snapshot {
    let mut snapshot = quiet();
    let tunnel = NodeLink { kind: Some("vxlan".to_owned()), ..link(name, 3, 1500) };
    snapshot.node.namespaces = vec![Settings {
        netns: "pod".to_owned(),
        links: vec![link("eth0", 2, 1500), tunnel],
        fragments_made: made,
        ..Settings::default()
    }];
    let row = |mtu| LearntMtu {
        netns: "pod".to_owned(),
        destination: "10.88.0.2".parse().unwrap(),
        mtu,
        expires_s: 600,
    };
    snapshot.ip.learnt = learnt.map(row).into_iter().collect();
    snapshot.ip.fragments_out_v4 = made.unwrap_or(0);
    snapshot
}

fn applies(finding: &Finding) -> Vec<&str> {
    finding.changes.iter().map(|c| c.apply.as_str()).collect()
}

#[test]
fn a_tunnel_is_proven_to_cut_by_fragments_and_what_it_taught() {
    let of = |made, learnt| find(&tunnel("vx0", made, learnt), "mtu.tunnel");
    let proven = of(Some(20), Some(1450));
    assert_eq!(proven.verdict, Verdict::Apply);
    assert_eq!(applies(&proven), ["ip link set dev vx0 mtu 1450"]);
    assert_eq!(proven.changes[0].undo, "ip link set dev vx0 mtu 1500");
    assert!(proven.evidence.iter().any(|e| e.value == "20" && e.threshold.as_deref() == Some("20")));
    assert_eq!(of(Some(20), Some(1430)).verdict, Verdict::Apply, "by IPv6");
    // One large datagram, what was learnt alone, fragments that have nothing to do with it, and another path's MTU.
    for (made, learnt) in [
        (Some(3), None),
        (Some(19), Some(1450)),
        (Some(0), Some(1450)),
        (None, Some(1450)),
        (Some(900), None),
        (Some(900), Some(1300)),
    ] {
        let finding = of(made, learnt);
        assert_eq!((finding.verdict, finding.confidence), (Verdict::Consider, Confidence::Low), "{made:?}");
    }
}

#[test]
fn the_plugins_tunnel_is_never_changed_by_command() {
    let flannel = find(&tunnel("flannel.1", Some(900), Some(1450)), "mtu.tunnel");
    assert_eq!((flannel.verdict, flannel.changes.len()), (Verdict::Consider, 1));
    assert!(flannel.changes[0].scope.contains("Flannel"), "{:?}", flannel.changes);
    assert!(!flannel.changes[0].apply.contains("ip link"), "{:?}", flannel.changes);
    // On the host of a cluster the plugin's may have any name.
    let mut snapshot = tunnel("vx0", Some(900), Some(1450));
    let clue = Clue { plugin: "Calico".to_owned(), from: "a file".to_owned() };
    snapshot.node.cluster = Some(Cluster { cni: vec![clue], ..Cluster::default() });
    assert_eq!(verdict(&snapshot, "mtu.tunnel"), Verdict::Apply, "a pod's is its own");
    snapshot.node.namespaces[0].netns = "host".to_owned();
    snapshot.ip.learnt[0].netns = "host".to_owned();
    assert_eq!(verdict(&snapshot, "mtu.tunnel"), Verdict::Consider);
    // What Cilium does on purpose is no fault.
    assert_eq!(verdict(&tunnel("cilium_vxlan", Some(900), Some(1450)), "mtu.tunnel"), Verdict::NotNeeded);
}

#[test]
fn a_tunnel_whose_routes_are_not_all_known_is_not_blamed_without_proof() {
    let of = |made| {
        let mut snapshot = tunnel("vx0", made, Some(1450));
        let error = Some("not all was read within 5s".to_owned());
        snapshot.node.namespaces[0].routes = Some(Routes { error, ..Routes::default() });
        find(&snapshot, "mtu.tunnel")
    };
    let unsure = of(None);
    assert_eq!((unsure.verdict, unsure.changes.len()), (Verdict::CannotTell, 0));
    assert!(unsure.because.ends_with("not known: not all was read within 5s"), "{}", unsure.because);
    assert!(unsure.to_tell.is_some_and(|run| run.starts_with("ip route show table all dev vx0;")));
    assert_eq!(of(Some(60)).verdict, Verdict::Apply);
}

#[test]
fn a_tunnel_of_which_nothing_is_said_hides_nothing_else() {
    let said = |snapshot: &Snapshot| (verdict(snapshot, "mtu.path"), verdict(snapshot, "mtu.fragments"));
    let silent = (Verdict::NotNeeded, Verdict::NotNeeded);
    let both = (Verdict::Consider, Verdict::Consider);
    assert_eq!(said(&tunnel("vx0", Some(60), Some(1450))), silent);
    assert_eq!(said(&tunnel("cilium_vxlan", Some(60), Some(1450))), both);
    let mut routed = tunnel("vx0", Some(60), Some(1450));
    let limited = vec![LimitedInterface { ifindex: 3, mtu_bytes: 1450 }];
    routed.node.namespaces[0].routes = Some(Routes { limited, ..Routes::default() });
    assert_eq!(verdict(&routed, "mtu.tunnel"), Verdict::NotNeeded);
    assert_eq!(said(&routed), both);
    // Nor does one that is too tight hide a path that is narrower than it, or fragments that are not its.
    assert_eq!(said(&tunnel("vx0", Some(60), Some(1300))), both);
    assert_eq!(said(&tunnel("vx0", Some(60), None)), (Verdict::NotNeeded, Verdict::Consider));
}

#[test]
fn below_what_ipv6_needs_an_mtu_is_no_command() {
    let mut snapshot = tunnel("-x", Some(60), Some(1260));
    snapshot.node.namespaces[0].links[0].mtu_bytes = 1310;
    let finding = find(&snapshot, "mtu.tunnel");
    assert!(finding.changes[0].apply.starts_with("an MTU of 1260"), "{:?}", finding.changes);
    assert!(finding.changes[0].apply.contains("removes it"), "{:?}", finding.changes);
    // Where IPv6 is gone already nothing is lost; a name is a name, whatever it begins with.
    snapshot.node.namespaces[0].links[1].mtu_bytes = 1270;
    let finding = find(&snapshot, "mtu.tunnel");
    assert_eq!(finding.changes[0].apply, "ip link set dev -x mtu 1260");
    let end = |netns: &str, ifindex, peer, mtu| Settings {
        netns: netns.to_owned(),
        links: vec![NodeLink {
            kind: Some("veth".to_owned()),
            peer_ifindex: Some(peer),
            ..link("-y", ifindex, mtu)
        }],
        ..Settings::default()
    };
    let apply = |narrow| {
        let mut snapshot = quiet();
        snapshot.node.namespaces = vec![end("host", 5, 2, narrow), end("pod", 2, 5, 1500)];
        find(&snapshot, "mtu.mismatch").changes[0].apply.clone()
    };
    assert_eq!(apply(1280), "ip link set dev -y mtu 1280");
    assert!(apply(1279).contains("removes it"), "{}", apply(1279));
}

/// The host's interfaces: name, root qdisc, what is below it, and how many packets waited there for how long.
fn queues(rows: &[(&str, &str, &[&str], u64, u64)]) -> Snapshot {
    let mut snapshot = quiet();
    let mut links = Vec::new();
    for (name, qdisc, leaves, packets, ns) in rows {
        snapshot = with_signal_of(snapshot, Signal::TxQdisc, name, *ns, *packets);
        let leaves = leaves.iter().map(|&kind| kind.to_owned()).collect::<Vec<_>>();
        links.push(NodeLink {
            qdisc: (*qdisc).to_owned(),
            leaves: (!leaves.is_empty()).then_some(leaves),
            ..link(name, links.len() as u32 + 2, 1500)
        });
    }
    snapshot.node.namespaces = vec![Settings { netns: "host".to_owned(), links, ..Settings::default() }];
    snapshot
}

const SLOW: u64 = 30_000_000;
const SLOWER: u64 = 90_000_000;

#[test]
fn every_interface_is_judged_and_not_the_slowest_alone() {
    let bad = ("eth0", "pfifo_fast", &["pfifo_fast"][..], 200, SLOW);
    for slower in ["netem", "fq", "fq_codel"] {
        let finding = find(&queues(&[bad, ("eth1", slower, &[slower], 2000, SLOWER)]), "qdisc.queue");
        assert_eq!(finding.verdict, Verdict::Apply, "{slower}");
        assert_eq!(applies(&finding), ["tc qdisc replace dev eth0 root fq_codel"]);
    }
    let alone = queues(&[("eth0", "pfifo_fast", &[], 2000, 9_000), ("eth1", "netem", &[], 2000, SLOWER)]);
    let finding = find(&alone, "qdisc.queue");
    assert!(finding.because.contains("netem") && finding.verdict == Verdict::NotNeeded, "{finding:?}");
    // One that is not known may be anything's.
    let mut unknown = queues(&[("eth0", "fq", &["fq"], 2000, SLOW)]);
    unknown = with_signal_of(unknown, Signal::TxQdisc, "other", SLOWER, 2000);
    let finding = find(&unknown, "qdisc.queue");
    assert_eq!((finding.verdict, finding.changes.len()), (Verdict::CannotTell, 0));
}

#[test]
fn a_queue_is_judged_by_what_packets_wait_in() {
    let of = |qdisc: &str, leaves: &[&str]| {
        verdict(&queues(&[("eth0", qdisc, leaves, 2000, SLOW)]), "qdisc.queue")
    };
    assert_eq!(of("mq", &["fq_codel"]), Verdict::NotNeeded);
    assert_eq!(of("mq", &["fq", "fq_codel"]), Verdict::NotNeeded);
    assert_eq!(of("htb", &["fq_codel"]), Verdict::NotNeeded);
    assert_eq!(of("mq", &["pfifo_fast"]), Verdict::Consider);
    assert_eq!(of("mq", &["fq", "pfifo_fast"]), Verdict::Consider);
    assert_eq!(of("tbf", &["bfifo"]), Verdict::Consider);
    // Of an older snapshot, and where no queue is below it.
    assert_eq!(of("tbf", &[]), Verdict::Consider);
    assert_eq!((of("mq", &[]), of("mq", &["mq"])), (Verdict::CannotTell, Verdict::CannotTell));
}

#[test]
fn few_packets_prove_no_queue() {
    let of = |packets| {
        let finding = find(&queues(&[("eth0", "pfifo_fast", &["pfifo_fast"], packets, SLOW)]), "qdisc.queue");
        (finding.verdict, finding.confidence)
    };
    assert_eq!(of(100), (Verdict::Apply, Confidence::Medium));
    assert_eq!(of(99), (Verdict::Consider, Confidence::Low));
    assert_eq!(of(19).0, Verdict::CannotTell);
}

#[test]
fn a_queue_comes_back_with_its_limit() {
    let undo = |qdisc: &str, limit| {
        let mut snapshot = queues(&[("-q", qdisc, &[qdisc], 2000, SLOW)]);
        snapshot.node.namespaces[0].links[0].fifo_limit = limit;
        find(&snapshot, "qdisc.queue").changes[0].undo.clone()
    };
    assert_eq!(undo("pfifo", Some(1000)), "tc qdisc replace dev -q root pfifo limit 1000");
    assert_eq!(undo("bfifo", Some(64_000)), "tc qdisc replace dev -q root bfifo limit 64000");
    assert_eq!(undo("pfifo_fast", None), "tc qdisc replace dev -q root pfifo_fast");
    assert!(undo("pfifo", None).contains("its limit is lost"), "{}", undo("pfifo", None));
}

#[test]
fn receive_work_is_judged_by_what_came_while_it_was_measured() {
    let with = |ns, counts: [u64; 4], squeezed| {
        let cpu = |(cpu, net_rx)| CpuReceive { cpu, net_rx, squeezed, ..CpuReceive::default() };
        let mut snapshot = with_signal_of(quiet(), Signal::RxSoftirq, "all", ns, 1000);
        // Since the start one CPU had it all.
        let receive = vec![cpu((0, 0)), cpu((1, u64::from(u32::MAX))), cpu((2, 0)), cpu((3, 0))];
        let received = (0..).zip(counts).map(cpu).collect();
        snapshot.node.machine = Some(Machine { receive, received, ..Machine::default() });
        find(&snapshot, "nic.rps")
    };
    assert_eq!(with(9_000_000, [9990, 5, 5, 0], 100).verdict, Verdict::Consider);
    assert_eq!(with(9_000_000, [2500; 4], 100).verdict, Verdict::NotNeeded, "spread since");
    for (counts, squeezed) in
        [([9990, 10, 0, 0], 1), ([6000, 4000, 0, 0], 100), ([0; 4], 0), ([90, 0, 0, 0], 9)]
    {
        let finding = with(9_000_000, counts, squeezed);
        assert_eq!(finding.verdict, Verdict::CannotTell, "{counts:?}");
        assert!(finding.to_tell.unwrap().contains("mpstat"), "{counts:?}");
    }
    assert_eq!(with(9_000, [9990, 10, 0, 0], 100).verdict, Verdict::NotNeeded, "no wait");
}

#[test]
fn every_nic_is_judged() {
    let nic = |name: &str, rx_missed, rx| Nic {
        name: name.to_owned(),
        rx_missed: Some(rx_missed),
        rings: Some(Rings { rx, rx_max: 4096, tx: 512, tx_max: 4096 }),
        ..Nic::default()
    };
    let mut snapshot = quiet();
    snapshot.node.nics = Some(vec![nic("eth0", 900, 4096), nic("-e", 7, 256), nic("eth2", 0, 256)]);
    let finding = find(&snapshot, "nic.rings");
    assert_eq!(finding.verdict, Verdict::CannotTell);
    let to_tell = finding.to_tell.unwrap();
    assert!(to_tell.contains("show dev -e") && to_tell.contains("to 4096 at most"), "{to_tell}");
    snapshot.node.nics = Some(vec![nic("eth0", 900, 4096), nic("eth2", 0, 256)]);
    assert_eq!(verdict(&snapshot, "nic.rings"), Verdict::NotNeeded);
}

#[test]
fn few_round_trips_tell_nothing_of_interrupts() {
    let with = |round_trips| {
        let mut snapshot = quiet();
        snapshot.signals.clear();
        let mut snapshot = with_signal_of(snapshot, Signal::NetRtt, "all", 9_000_000, round_trips);
        let coalescing = Some(Coalescing { rx_us: 8, ..Coalescing::default() });
        snapshot.node.nics = Some(vec![Nic { name: "eth0".to_owned(), coalescing, ..Nic::default() }]);
        verdict(&snapshot, "nic.coalescing")
    };
    assert_eq!((with(99), with(100)), (Verdict::CannotTell, Verdict::NotNeeded));
}

#[test]
fn a_backlog_is_never_longer_than_the_kernel_takes() {
    let apply = |value: &str| {
        let mut snapshot = quiet();
        snapshot.drops = vec![Drop { reason: "CPU_BACKLOG".to_owned(), ..sample::rich().drops[0].clone() }];
        snapshot.node.host = vec![Setting {
            name: "net.core.netdev_max_backlog".to_owned(),
            value: Some(value.to_owned()),
            from: "a file".to_owned(),
            error: None,
        }];
        let finding = find(&snapshot, "nic.backlog");
        finding.changes.first().map(|c| c.apply.replace("sysctl -w net.core.netdev_max_backlog=", ""))
    };
    assert_eq!(apply("1000").as_deref(), Some("2000"));
    assert_eq!(apply("2000000000").as_deref(), Some("2147483647"));
    for value in ["2147483647", "18446744073709551615", "0", "-1"] {
        assert_eq!(apply(value), None, "{value}");
    }
}
