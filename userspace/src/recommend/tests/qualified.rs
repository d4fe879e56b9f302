//! What looks the same as a fault, and what was not seen well enough to be ruled out.

use super::{cluster::with_rules, cluster::with_signal, find, quiet, verdict};
use crate::{
    node::{KubeProxy, Listener, Machine, NodeSockets, PacketRules, Resolver, RuleTable, Settings},
    recommend::Verdict,
    snapshot::{DnsServer, DnsTransaction, Hist, Snapshot},
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
    let host = Settings { netns: "host".to_owned(), addresses, ..Settings::default() };
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
    older.node.namespaces[0].addresses.clear();
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
