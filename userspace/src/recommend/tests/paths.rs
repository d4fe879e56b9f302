//! Rules on a packet's way: MTUs of tunnels, queues of interfaces, receive work, hardware.

use super::{find, quiet, verdict};
use crate::{
    node::{Clue, Cluster, LimitedInterface, NodeLink, Routes, Settings},
    recommend::{Confidence, Finding, Verdict},
    snapshot::{LearntMtu, Snapshot},
};

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
