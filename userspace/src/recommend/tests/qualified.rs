//! What looks the same as a fault, and what was not seen well enough to be ruled out.

use super::{cluster::with_rules, cluster::with_signal, find, quiet, verdict};
use crate::{
    node::{
        Clue, Cluster, Coalescing, KubeProxy, Listener, Machine, Nic, NodeSockets, PacketRules, Resolver,
        RuleTable, Settings, Tunnel,
    },
    recommend::{Confidence, Verdict},
    snapshot::{DnsServer, DnsTransaction, Hist, Rotated, Snapshot},
};
use nettrace_common::Signal;
use std::net::IpAddr;

const POD: &str = "10.244.1.7";
const NODE: &str = "192.168.0.10";
const SLOW: &str = "10.96.0.10";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn server(at: &str, transport: &str, asked_again: u64, ns: u64) -> DnsServer {
    let mut hist = Hist::default();
    hist.record_n(ns, 100);
    DnsServer {
        server: address(at),
        transport: transport.to_owned(),
        transactions: 100,
        asked_again: Some(asked_again),
        timeouts: 0,
        failures: 0,
        hist,
    }
}

/// These servers; the one that is slow is asked by this client. The host is measured, and its address known.
fn asked(client: &str, servers: Vec<DnsServer>) -> Snapshot {
    let mut snapshot = quiet();
    snapshot.dns.transactions = 100 * servers.len() as u64;
    snapshot.dns.answered = snapshot.dns.transactions;
    snapshot.dns.slowest = vec![DnsTransaction {
        at_ns: 0,
        client: address(client),
        server: address(SLOW),
        transport: "udp".to_owned(),
        name: "a.example".to_owned(),
        qtype: "A".to_owned(),
        rcode: None,
        latency_ns: Some(40_000_000),
        retries: 0,
    }];
    snapshot.dns.servers = servers;
    let addresses = vec![address("127.0.0.1"), address(NODE)];
    let links = vec![crate::node::NodeLink { name: "eth0".to_owned(), addresses, ..Default::default() }];
    let host = Settings { netns: "host".to_owned(), links, ..Settings::default() };
    snapshot.node.namespaces = vec![host];
    snapshot
}

fn slow(again: u64) -> DnsServer {
    server(SLOW, "udp", again, 40_000_000)
}

/// A resolv.conf of the host with this server.
fn resolver(snapshot: &mut Snapshot, nameserver: &str) {
    let resolver = Resolver { nameservers: vec![nameserver.to_owned()], ..Resolver::default() };
    snapshot.node.machine = Some(Machine { resolver: Some(resolver), ..Machine::default() });
}

/// The first namespace has a socket for DNS.
fn listens(snapshot: &mut Snapshot, at: &str) {
    let listener = Listener { address: address(at), port: 53, queued: 0, limit: None, dropped: None };
    snapshot.node.namespaces[0].sockets = NodeSockets { listeners: vec![listener], ..NodeSockets::default() };
}

#[test]
fn a_cache_is_proven_where_the_same_client_asks_again_and_none_is_on_the_way() {
    assert_eq!(verdict(&asked(POD, vec![slow(80)]), "dns.cache"), Verdict::Apply);
    assert_eq!(verdict(&asked(POD, vec![slow(10)]), "dns.cache"), Verdict::Consider);
    let mut older = asked(POD, vec![DnsServer { asked_again: None, ..slow(0) }]);
    assert_eq!(verdict(&older, "dns.cache"), Verdict::Consider);
    // One that the host has for itself is not on a pod's way.
    resolver(&mut older, "127.0.0.53");
    older.dns.servers = vec![slow(80)];
    assert_eq!(verdict(&older, "dns.cache"), Verdict::Apply);
    // Nor is that of another pod.
    let mut other = asked(POD, vec![slow(80)]);
    listens(&mut other, "127.0.0.1");
    assert_eq!(verdict(&other, "dns.cache"), Verdict::Apply);
}

#[test]
fn what_a_local_cache_asks_is_told_from_clients_that_ask_again() {
    let verdict = |snapshot: &Snapshot| verdict(snapshot, "dns.cache");
    for cache in ["127.0.0.53", "::1", "169.254.20.10", "::ffff:127.0.0.1"] {
        let mut configured = asked(NODE, vec![slow(80)]);
        resolver(&mut configured, cache);
        assert_eq!(verdict(&configured), Verdict::CannotTell, "{cache}");
        let mut listening = asked(NODE, vec![slow(80)]);
        listens(&mut listening, cache);
        assert_eq!(verdict(&listening), Verdict::CannotTell, "{cache}");
        assert!(find(&listening, "dns.cache").because.contains("may be on the way"));
        listening.dns.servers.push(server(cache, "udp", 90, 50_000));
        let there = find(&listening, "dns.cache");
        assert_eq!(there.verdict, Verdict::NotNeeded, "{cache}");
        assert!(there.because.starts_with("a cache of this node is there"), "{}", there.because);
        // The cache itself is slow.
        listening.dns.servers = vec![server(cache, "udp", 90, 40_000_000)];
        assert_eq!(verdict(&listening), Verdict::CannotTell, "{cache}");
    }
    // NodeLocal DNSCache is for pods, too, and has the cluster's address in kube-proxy's mode iptables.
    let mut node_local = asked(POD, vec![slow(80)]);
    listens(&mut node_local, "169.254.20.10");
    assert_eq!(verdict(&node_local), Verdict::CannotTell);
    listens(&mut node_local, SLOW);
    assert_eq!(verdict(&node_local), Verdict::CannotTell);
    // Whose the queries are is not known.
    let mut unknown = asked(POD, vec![slow(80)]);
    resolver(&mut unknown, "127.0.0.53");
    unknown.dns.slowest.clear();
    assert_eq!(verdict(&unknown), Verdict::CannotTell);
    let mut older = asked(POD, vec![slow(80)]);
    resolver(&mut older, "127.0.0.53");
    older.node.namespaces[0].links.clear();
    assert_eq!(verdict(&older), Verdict::CannotTell);
    // A DNS server of the cluster asks its own servers.
    let forwarder = asked(POD, vec![slow(80), server(POD, "udp", 0, 50_000)]);
    assert_eq!(verdict(&forwarder), Verdict::CannotTell);
    // A resolver's line may be anything.
    resolver(&mut older, "\u{1b}[31m");
    assert_eq!(verdict(&older), Verdict::Apply);
}

#[test]
fn a_slow_server_by_tcp_is_asked_by_whom_a_cache_does_not_help() {
    let tcp = || server(SLOW, "tcp", 80, 40_000_000);
    let verdict = |servers| verdict(&asked(POD, servers), "dns.cache");
    assert_eq!(verdict(vec![tcp()]), Verdict::CannotTell);
    assert_eq!(verdict(vec![tcp(), server("10.96.0.11", "udp", 0, 1000)]), Verdict::CannotTell);
    assert_eq!(verdict(vec![tcp(), slow(80)]), Verdict::Apply);
}

/// Rules of kube-proxy and of policies, so many, and how long packets take at some hooks, ns.
fn late(rules: u64, hooks: &[(&str, u64)]) -> Snapshot {
    let table = RuleTable {
        engine: "nftables".to_owned(),
        table: "ip nat".to_owned(),
        rules,
        policy_chains: 3,
        ..RuleTable::default()
    };
    let kube_proxy = Some(KubeProxy { mode: "iptables".to_owned(), from: "a trace".to_owned() });
    let rules = PacketRules { tables: vec![table], kube_proxy, ..PacketRules::default() };
    let timed = hooks.iter().fold(quiet(), |s, (hook, ns)| with_signal(s, Signal::NfHook, hook, *ns));
    with_rules(timed, rules)
}

#[test]
fn a_sender_without_a_cpu_is_not_a_list_of_rules() {
    for id in ["kube-proxy.mode", "policy.volume"] {
        let of = |rules, hooks: &[(&str, u64)]| verdict(&late(rules, hooks), id);
        let quick = ("prerouting", 900);
        for hook in ["output", "postrouting"] {
            let slow = (hook, 4_000_000);
            assert_eq!(of(30, &[quick, slow]), Verdict::NotNeeded, "{id}: hardly a rule is there");
            assert_eq!(of(9_000, &[quick, slow]), Verdict::CannotTell, "{id} {hook}");
            assert_eq!(of(9_000, &[slow]), Verdict::CannotTell, "{id} {hook}");
            // That another hook is slower hides nothing.
            assert_eq!(of(9_000, &[("prerouting", 90_000), slow]), Verdict::Consider, "{id} {hook}");
        }
        for hook in ["prerouting", "input", "forward"] {
            assert_eq!(of(499, &[(hook, 90_000)]), Verdict::NotNeeded, "{id} {hook}");
            assert_eq!(of(500, &[(hook, 90_000)]), Verdict::Consider, "{id} {hook}");
        }
        assert_eq!(of(9_000, &[("output", 900)]), Verdict::NotNeeded, "{id}: packets are quick");
        // Rules that were not counted may be many.
        let mut unread = late(30, &[("prerouting", 90_000)]);
        unread.node.namespaces[0].rules.as_mut().unwrap().unread = vec!["nftables: too late".to_owned()];
        assert_eq!(verdict(&unread, id), Verdict::CannotTell, "{id}");
    }
    let mut old = late(9_000, &[("prerouting", 90_000)]);
    for (kernel, mode) in [
        (
            "5.10.0-28-amd64",
            "mode: nftables, with Linux 5.13 or newer; until then mode: ipvs, which is deprecated",
        ),
        ("5.13.0", "mode: nftables"),
        ("what?", "mode: nftables"),
    ] {
        old.meta.kernel = kernel.to_owned();
        assert_eq!(find(&old, "kube-proxy.mode").changes[0].apply, mode, "{kernel}");
    }
}

#[test]
fn of_events_that_are_missing_nothing_is_ruled_out() {
    let mut snapshot = asked(POD, vec![server(SLOW, "udp", 0, 1000)]);
    snapshot.ring.emitted = 10_000;
    let of = |lost, snapshot: &mut Snapshot| {
        snapshot.ring.lost = lost;
        let finding = find(snapshot, "dns.cache");
        (finding.verdict, finding.confidence)
    };
    assert_eq!(of(0, &mut snapshot), (Verdict::NotNeeded, Confidence::High));
    assert_eq!(of(99, &mut snapshot), (Verdict::NotNeeded, Confidence::Low));
    assert!(find(&snapshot, "dns.cache").because.ends_with(", but 99 events of all could not be kept"));
    assert_eq!(of(100, &mut snapshot).0, Verdict::CannotTell);
    let finding = find(&snapshot, "dns.cache");
    assert_eq!(finding.because, "of the events 100 of 10,000 (1.00 %) could not be kept");
    assert!(finding.to_tell.is_some() && !finding.evidence.is_empty(), "{finding:?}");
    assert_eq!(of(u64::MAX, &mut snapshot).0, Verdict::CannotTell);
    // What the kernel counts itself does not come by the ring.
    let counted = find(&snapshot, "tcp.accept-queue");
    assert_eq!((counted.verdict, counted.confidence), (Verdict::NotNeeded, Confidence::High));
    // What was found is found all the same.
    snapshot.dns.servers = vec![slow(80)];
    assert_eq!(verdict(&snapshot, "dns.cache"), Verdict::Apply);
    // A recording without its start.
    snapshot.dns.servers = vec![server(SLOW, "udp", 0, 1000)];
    snapshot.ring.lost = 0;
    snapshot.meta.rotated = Some(Rotated { files: 3, size_bytes: 1 << 20 });
    let finding = find(&snapshot, "dns.cache");
    assert_eq!(finding.verdict, Verdict::CannotTell);
    assert!(finding.because.contains("rotated away (3 files)"), "{}", finding.because);
    assert_eq!(verdict(&snapshot, "tcp.accept-queue"), Verdict::NotNeeded);
    // A filter says so, and no more.
    snapshot.meta.rotated = None;
    snapshot.meta.filter = Some("udp".to_owned());
    let finding = find(&snapshot, "dns.cache");
    assert_eq!((finding.verdict, finding.confidence), (Verdict::NotNeeded, Confidence::Low));
    assert!(finding.because.ends_with(", in the traffic of the filter `udp`"), "{}", finding.because);
}

#[test]
fn every_probe_that_is_known_by_events_is_one() {
    for name in crate::recommend::BY_EVENTS {
        assert!(crate::probes::PROBES.iter().any(|probe| probe.name == *name), "{name}");
    }
}

#[test]
fn a_few_round_trips_tell_nothing() {
    let tunnel = Tunnel { interface: "vx7".to_owned(), encapsulation: "vxlan".to_owned(), plugin: None };
    let coalescing = Some(Coalescing { rx_us: 8, ..Coalescing::default() });
    let with = |round_trips| {
        let mut snapshot = with_signal(quiet(), Signal::TxDriver, "vx7", 4_000);
        snapshot.node.cluster = Some(Cluster { tunnels: vec![tunnel.clone()], ..Cluster::default() });
        snapshot.node.nics = Some(vec![Nic { name: "eth0".to_owned(), coalescing, ..Nic::default() }]);
        snapshot.signals.retain(|row| row.signal != Signal::NetRtt.name());
        snapshot = with_signal(snapshot, Signal::NetRtt, "all", 200_000);
        let row = snapshot.signals.last_mut().unwrap();
        row.hist = Hist::new();
        row.hist.record_n(200_000, round_trips);
        snapshot
    };
    for id in ["cni.encapsulation", "nic.coalescing"] {
        assert_eq!(verdict(&with(99), id), Verdict::CannotTell, "{id}");
        assert_eq!(verdict(&with(100), id), Verdict::NotNeeded, "{id}");
    }
    let because = find(&with(99), "nic.coalescing").because;
    assert_eq!(because, "net.rtt was measured 99 times, 100 are needed");
}

#[test]
fn who_connects_the_pods_is_to_be_known() {
    let with = |plugin: &str, from: &str| {
        let mut snapshot = quiet();
        let clue = Clue { plugin: plugin.to_owned(), from: from.to_owned() };
        snapshot.node.cluster = Some(Cluster { cni: vec![clue], ..Cluster::default() });
        snapshot.meta.kernel = "6.1.0-28-amd64".to_owned();
        snapshot
    };
    for id in ["cni.calico-bgp", "cni.flannel"] {
        let of = |plugin, from| verdict(&with(plugin, from), id);
        // A bridge of this name is Flannel's, too, where its routes go by no tunnel.
        assert_eq!(of("bridge plugin", "interface cni0"), Verdict::CannotTell, "{id}");
        assert_eq!(of("kube-proxy (IPVS)", "interface kube-ipvs0"), Verdict::CannotTell, "{id}");
        assert_eq!(of("Antrea", "interface antrea-gw0"), Verdict::NotNeeded, "{id}");
        assert_eq!(of("some-cni", "/etc/cni/net.d/10-some.conf"), Verdict::NotNeeded, "{id}");
    }
    let mut nothing = with("", "");
    nothing.node.cluster = Some(Cluster::default());
    assert_eq!(verdict(&nothing, "cni.flannel"), Verdict::CannotTell);
    let cilium = find(&with("Cilium", "interface cilium_host"), "cni.cilium");
    assert_eq!(cilium.verdict, Verdict::CannotTell);
    let possible = cilium.evidence.iter().find(|e| e.what == "of these it is new enough for").unwrap();
    assert_eq!(possible.value, "eBPF host routing, bandwidth manager with BBR, BIG TCP of IPv6");
}
