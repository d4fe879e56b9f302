//! Rules on packet rules, tunnels, CPUs and peers.

use super::*;
use crate::{
    node::{
        Clue, Cluster, Coalescing, CpuReceive, IdleState, KubeProxy, Machine, Nic, PacketRules, Rings,
        RuleTable, Tunnel,
    },
    snapshot::{Hist, SignalData, TcpPeer},
};
use nettrace_common::Signal;

pub(super) fn with_signal(snapshot: Snapshot, signal: Signal, scope: &str, ns: u64) -> Snapshot {
    with_signal_of(snapshot, signal, scope, ns, 1000)
}

/// The same of so many packets.
pub(super) fn with_signal_of(
    mut snapshot: Snapshot,
    signal: Signal,
    scope: &str,
    ns: u64,
    packets: u64,
) -> Snapshot {
    let mut hist = Hist::new();
    hist.record_n(ns, packets);
    snapshot.signals.push(SignalData {
        signal: signal.name().to_owned(),
        definition: String::new(),
        scope: scope.to_owned(),
        hist,
        sum_ns: ns * packets,
        max_ns: ns,
    });
    snapshot
}

/// The host, whose rules these are.
pub(super) fn with_rules(mut snapshot: Snapshot, rules: PacketRules) -> Snapshot {
    let host = Settings { netns: "host".to_owned(), rules: Some(rules), ..Settings::default() };
    snapshot.node.namespaces = vec![host];
    snapshot
}

fn rules(mode: Option<&str>, policy_chains: u64) -> PacketRules {
    let table = RuleTable {
        engine: "nftables".to_owned(),
        table: "ip nat".to_owned(),
        rules: 40_000,
        policy_chains,
        ..RuleTable::default()
    };
    let kube_proxy = mode.map(|mode| KubeProxy { mode: mode.to_owned(), from: "a trace".to_owned() });
    PacketRules { tables: vec![table], kube_proxy, ..PacketRules::default() }
}

#[test]
fn kube_proxy_is_blamed_where_its_chains_are_and_packets_are_late() {
    let slow = || with_signal(quiet(), Signal::NfHook, "prerouting", 90_000);
    let fast = with_signal(quiet(), Signal::NfHook, "prerouting", 900);
    let said = |snapshot: &Snapshot| verdict(snapshot, "kube-proxy.mode");
    let finding = find(&with_rules(slow(), rules(Some("iptables"), 0)), "kube-proxy.mode");
    assert_eq!((finding.verdict, finding.confidence), (Verdict::Consider, Confidence::Medium));
    assert_eq!(finding.changes[0].apply, "mode: nftables");
    assert_eq!(said(&with_rules(fast, rules(Some("iptables"), 0))), Verdict::NotNeeded);
    for mode in [Some("nftables"), Some("ipvs"), None] {
        assert_eq!(said(&with_rules(slow(), rules(mode, 0))), Verdict::NotNeeded, "{mode:?}");
    }
    // Whose rules they are is not known: of an older snapshot, and where something could not be read.
    assert_eq!(said(&slow()), Verdict::CannotTell);
    let unread = PacketRules { unread: vec!["nftables: no".to_owned()], ..rules(None, 0) };
    assert_eq!(said(&with_rules(slow(), unread)), Verdict::CannotTell);
}

#[test]
fn policies_are_never_to_be_removed() {
    let slow = || with_signal(quiet(), Signal::NfHook, "forward", 90_000);
    assert_eq!(verdict(&with_rules(slow(), rules(None, 0)), "policy.volume"), Verdict::NotNeeded);
    let finding = find(&with_rules(slow(), rules(None, 300)), "policy.volume");
    assert_eq!(finding.verdict, Verdict::Consider);
    assert!(finding.changes[0].apply.starts_with("the same policies"));
    let tracked = with_signal(quiet(), Signal::CtIn, "all", 400);
    assert_eq!(verdict(&tracked, "conntrack.notrack"), Verdict::NotNeeded);
    let slow = with_signal(quiet(), Signal::CtIn, "all", 40_000);
    assert_eq!(verdict(&slow, "conntrack.notrack"), Verdict::Consider);
}

#[test]
fn tunnels_are_looked_into_where_they_are() {
    let with = |tunnels: Vec<Tunnel>| {
        let mut snapshot = quiet();
        snapshot.node.cluster = Some(Cluster { tunnels, ..Cluster::default() });
        snapshot
    };
    let flannel = || Tunnel {
        interface: "flannel.1".to_owned(),
        encapsulation: "vxlan".to_owned(),
        plugin: Some("Flannel".to_owned()),
    };
    assert_eq!(verdict(&with(vec![]), "cni.encapsulation"), Verdict::NotNeeded);
    for id in ["cni.encapsulation", "cni.calico-bgp", "cni.cilium", "cni.flannel"] {
        assert_eq!(verdict(&quiet(), id), Verdict::CannotTell, "{id}");
    }
    let snapshot = with(vec![flannel()]);
    assert_eq!(verdict(&snapshot, "cni.encapsulation"), Verdict::CannotTell);
    assert_eq!(verdict(&snapshot, "cni.flannel"), Verdict::CannotTell);
    assert_eq!(verdict(&snapshot, "cni.cilium"), Verdict::NotNeeded);
    let timed = |ns| {
        let snapshot = with_signal(with(vec![flannel()]), Signal::TxDriver, "flannel.1", ns);
        verdict(&with_signal(snapshot, Signal::NetRtt, "flannel.1", 200_000), "cni.encapsulation")
    };
    assert_eq!((timed(4_000), timed(90_000)), (Verdict::NotNeeded, Verdict::Consider));
    let mut snapshot = with(vec![]);
    let clue = Clue { plugin: "Calico".to_owned(), from: "a file".to_owned() };
    snapshot.node.cluster.as_mut().unwrap().cni = vec![clue];
    assert_eq!(verdict(&snapshot, "cni.calico-bgp"), Verdict::CannotTell);
}

#[test]
fn receive_work_is_spread_where_one_cpu_has_too_much_of_it() {
    let with = |ns, shares: [u64; 2], squeezed| {
        let cpu = |cpu: u32, net_rx| CpuReceive { cpu, net_rx, squeezed, ..CpuReceive::default() };
        let mut snapshot = with_signal(quiet(), Signal::RxSoftirq, "all", ns);
        let received = vec![cpu(0, shares[0]), cpu(1, shares[1])];
        snapshot.node.machine = Some(Machine { received, ..Machine::default() });
        verdict(&snapshot, "nic.rps")
    };
    assert_eq!(with(9_000_000, [10, 9990], 100), Verdict::Consider);
    assert_eq!(with(9_000_000, [10, 9990], 1), Verdict::CannotTell, "it is done each time");
    assert_eq!(with(9_000_000, [5000, 5000], 100), Verdict::NotNeeded, "spread");
    assert_eq!(with(9_000, [10, 9990], 100), Verdict::NotNeeded, "no wait");
    assert_eq!(with(9_000_000, [0, 0], 0), Verdict::CannotTell);
    assert_eq!(verdict(&quiet(), "nic.rps"), Verdict::CannotTell);
}

#[test]
fn what_protects_stays_on_and_power_is_saved_unless_latency_is_asked_for() {
    let mut snapshot = quiet();
    let state = |name: &str, exit_latency_us, disabled| IdleState {
        name: name.to_owned(),
        exit_latency_us,
        disabled,
    };
    snapshot.node.machine = Some(Machine {
        firewalld: Some("/proc/1/comm".to_owned()),
        idle_states: vec![state("C1", 2, false), state("C6", 133, false)],
        ..Machine::default()
    });
    assert_eq!(verdict(&snapshot, "host.firewalld"), Verdict::NotNeeded);
    assert_eq!(verdict(&snapshot, "host.cstates"), Verdict::NotNeeded);
    let of_latency = |snapshot: &Snapshot| {
        let findings = advise(snapshot, Profile::Latency);
        findings.into_iter().find(|f| f.id == "host.cstates").unwrap().verdict
    };
    assert_eq!(of_latency(&snapshot), Verdict::Consider);
    snapshot.node.machine.as_mut().unwrap().idle_states[1].disabled = true;
    assert_eq!(of_latency(&snapshot), Verdict::NotNeeded);
}

#[test]
fn pods_have_settings_of_their_own() {
    let mut snapshot = quiet();
    assert_eq!(verdict(&snapshot, "host.pod-sysctls"), Verdict::CannotTell);
    set(&mut snapshot, "net.core.somaxconn", "128");
    let mut host = snapshot.node.namespaces[0].clone();
    host.netns = "host".to_owned();
    host.values[0].value = Some("4096".to_owned());
    snapshot.node.namespaces.push(host);
    let finding = find(&snapshot, "host.pod-sysctls");
    assert_eq!(finding.verdict, Verdict::NotNeeded);
    assert_eq!(finding.evidence[1].value, "128 in pod, 4096 in host");
}

#[test]
fn far_peers_are_named_and_not_judged() {
    let peer = |address: &str, ns| {
        let mut srtt = Hist::new();
        srtt.record_n(ns, 50);
        TcpPeer { peer: address.parse().unwrap(), srtt, ..sample::rich().tcp.peers[0].clone() }
    };
    let mut snapshot = quiet();
    assert_eq!(verdict(&snapshot, "placement.zones"), Verdict::CannotTell);
    snapshot.tcp.peers = vec![peer("10.0.0.1", 200_000), peer("10.0.0.2", 150_000)];
    assert_eq!(verdict(&snapshot, "placement.zones"), Verdict::NotNeeded);
    snapshot.tcp.peers.push(peer("10.9.0.2", 1_500_000));
    let finding = find(&snapshot, "placement.affinity");
    assert_eq!(finding.verdict, Verdict::CannotTell);
    assert!(finding.evidence[1].what.contains("10.9.0.2"));
}

#[test]
fn connections_that_pause_are_kept() {
    let mut snapshot = quiet();
    assert_eq!(verdict(&snapshot, "tcp.keepalive"), Verdict::CannotTell);
    assert_eq!(verdict(&snapshot, "tcp.slow-start-after-idle"), Verdict::CannotTell);
    set(&mut snapshot, "net.ipv4.tcp_keepalive_time", "7200");
    set(&mut snapshot, "net.ipv4.tcp_slow_start_after_idle", "0");
    assert_eq!(verdict(&snapshot, "tcp.keepalive"), Verdict::NotNeeded);
    assert_eq!(verdict(&snapshot, "tcp.slow-start-after-idle"), Verdict::NotNeeded);
    set(&mut snapshot, "net.netfilter.nf_conntrack_tcp_timeout_established", "86400");
    assert_eq!(verdict(&snapshot, "tcp.keepalive"), Verdict::NotNeeded);
    snapshot.node.namespaces[0].values[2].value = Some("3600".to_owned());
    let finding = find(&snapshot, "tcp.keepalive");
    assert_eq!(finding.verdict, Verdict::Consider);
    assert_eq!(finding.changes[0].apply, "sysctl -w net.ipv4.tcp_keepalive_time=1800");
}

#[test]
fn hardware_is_changed_for_what_was_measured_only() {
    let with = |nic: Nic| {
        let mut snapshot = with_signal(quiet(), Signal::TxQdisc, "eth0", 2000);
        snapshot.node.nics = Some(vec![Nic { name: "eth0".to_owned(), ..nic }]);
        snapshot
    };
    for id in ["nic.speed", "nic.rings", "nic.coalescing"] {
        assert_eq!(verdict(&quiet(), id), Verdict::CannotTell, "{id}");
    }
    assert_eq!(verdict(&with(Nic::default()), "nic.speed"), Verdict::NotNeeded);
    let half = Nic { duplex: Some("half".to_owned()), ..Nic::default() };
    assert_eq!(verdict(&with(half), "nic.speed"), Verdict::Consider);
    let lost = |rx_missed, rx| {
        let rings = Some(Rings { rx, rx_max: 4096, tx: 512, tx_max: 4096 });
        verdict(&with(Nic { rx_missed: Some(rx_missed), rings, ..Nic::default() }), "nic.rings")
    };
    assert_eq!((lost(0, 256), lost(9, 256)), (Verdict::NotNeeded, Verdict::CannotTell));
    assert_eq!(lost(9, 4096), Verdict::NotNeeded);
    let held = |rx_us| {
        let coalescing = Some(Coalescing { rx_us, ..Coalescing::default() });
        verdict(&with(Nic { coalescing, ..Nic::default() }), "nic.coalescing")
    };
    assert_eq!((held(0), held(1_000_000)), (Verdict::NotNeeded, Verdict::CannotTell));
}

/// What articles on Kubernetes latency advise, setting by setting, and the rule that judges it.
#[test]
fn each_setting_of_the_usual_advice_has_a_rule() {
    let usual = [
        ("kube-proxy IPVS", "kube-proxy.mode"),
        ("conntrack max", "conntrack.max"),
        ("conntrack timeout", "conntrack.established-timeout"),
        ("insert_failed", "conntrack.race"),
        ("TCP fast open", "tcp.fastopen"),
        ("rmem_max", "tcp.receive-buffer"),
        ("wmem_max", "tcp.send-buffer"),
        ("tcp_tw_reuse", "tcp.port-exhaustion"),
        ("host sysctls for pods", "host.pod-sysctls"),
        ("MTU 9000", "mtu.jumbo"),
        ("Calico BGP", "cni.calico-bgp"),
        ("no encapsulation", "cni.encapsulation"),
        ("Cilium", "cni.cilium"),
        ("Flannel host-gw", "cni.flannel"),
        ("10 GbE", "nic.speed"),
        ("tc priority", "qdisc.queue"),
        ("SELinux", "host.selinux"),
        ("firewalld", "host.firewalld"),
        ("affinity", "placement.affinity"),
        ("zones", "placement.zones"),
        ("NetworkPolicy", "policy.volume"),
        ("CoreDNS cache, NodeLocal DNSCache", "dns.cache"),
        ("Prometheus and Grafana", "monitoring.export"),
    ];
    for (advice, id) in usual {
        assert!(RULES.iter().copied().flatten().any(|rule| rule.id == id), "{advice}: {id}");
    }
}

#[test]
fn names_from_outside_reach_no_terminal_as_they_are() {
    let bad = || "\u{1b}[31m\n$(id)".to_owned();
    let mut hostile = rules(Some(&bad()), u64::MAX);
    hostile.tables[0].service_chains = u64::MAX;
    hostile.tables.push(hostile.tables[0].clone());
    let mut snapshot = with_rules(with_signal(quiet(), Signal::NfHook, "input", 90_000), hostile);
    snapshot.node.cluster = Some(Cluster {
        cni: vec![Clue { plugin: "Cilium".to_owned(), from: bad() }],
        tunnels: vec![Tunnel { interface: bad(), encapsulation: bad(), plugin: Some("Flannel".to_owned()) }],
        ..Cluster::default()
    });
    snapshot.node.nics = Some(vec![Nic {
        name: bad(),
        driver: Some(bad()),
        rx_missed: Some(u64::MAX),
        coalescing: Some(Coalescing { rx_us: u32::MAX, ..Coalescing::default() }),
        ..Nic::default()
    }]);
    let cpu = CpuReceive { net_rx: u64::MAX, squeezed: u64::MAX, ..CpuReceive::default() };
    let idle = IdleState { name: bad(), exit_latency_us: u64::MAX, disabled: false };
    snapshot.node.machine = Some(Machine {
        receive: vec![cpu, cpu],
        received: vec![cpu, cpu],
        idle_states: vec![idle],
        firewalld: Some(bad()),
        ..Machine::default()
    });
    for finding in advise(&snapshot, Profile::Latency) {
        let text = explain(&finding, &crate::report::Options::default());
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
    }
}
