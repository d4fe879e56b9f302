//! What proves that a setting is the cause, and what shows that it is not.

use super::{find, quiet, set, verdict};
use crate::{
    node::{Listener, NodeSockets, PortUse, TIME_WAIT},
    recommend::{Confidence, Finding, Profile, Verdict, advise},
    snapshot::{DnsServer, Hist, Snapshot, TcpCounters, TcpLimited, TcpNamespace, TcpPeer},
};

const APPLY: &str = "sysctl -w net.core.somaxconn=256";

pub(super) fn listener(port: u16, queued: u32, limit: Option<u32>, dropped: Option<u32>) -> Listener {
    Listener { address: [0; 4].into(), port, queued, limit, dropped }
}

/// Seven overflows among so many drops, in a namespace with these listeners and a somaxconn of 128.
pub(super) fn overflowed(drops: u64, listeners: Vec<Listener>) -> Snapshot {
    let mut snapshot = quiet();
    snapshot.tcp.listen_overflows = Some(7);
    snapshot.tcp.namespaces = vec![
        TcpNamespace {
            netns: "pod".to_owned(),
            listen_overflows: 7,
            listen_drops: drops,
            ..TcpNamespace::default()
        },
        TcpNamespace { netns: "host".to_owned(), ..TcpNamespace::default() },
    ];
    set(&mut snapshot, "net.core.somaxconn", "128");
    snapshot.node.namespaces[0].sockets =
        NodeSockets { from: "sock_diag".to_owned(), listeners, ..NodeSockets::default() };
    let mut host = snapshot.node.namespaces[0].clone();
    host.netns = "host".to_owned();
    snapshot.node.namespaces.push(host);
    snapshot
}

pub(super) fn changes(finding: &Finding) -> Vec<(&str, &str)> {
    finding.changes.iter().map(|c| (c.scope.as_str(), c.apply.as_str())).collect()
}

#[test]
fn a_setting_that_limits_a_queue_is_told_from_a_backlog_and_from_an_application_that_waits() {
    let of = |drops, listeners| find(&overflowed(drops, listeners), "tcp.accept-queue");
    let idle = listener(22, 0, Some(128), Some(0));
    let proven = of(7, vec![listener(80, 3, Some(128), Some(7)), idle.clone()]);
    assert_eq!(proven.verdict, Verdict::Apply);
    assert_eq!(changes(&proven)[0], ("pod", APPLY), "there and nowhere else");
    assert_eq!(proven.changes.len(), 2);
    assert!(proven.because.contains("in pod") && proven.because.contains("port 80"), "{}", proven.because);
    // Other drops of the namespace may be all of this listener's.
    let other = of(14, vec![listener(80, 3, Some(128), Some(7))]);
    assert_eq!(other.verdict, Verdict::Consider);
    let backlog = of(7, vec![listener(80, 0, Some(16), Some(7)), idle.clone()]);
    assert_eq!((backlog.verdict, backlog.changes.len()), (Verdict::Consider, 1));
    assert!(backlog.because.contains("a queue of 16 only"), "{}", backlog.because);
    assert_eq!(backlog.changes[0].scope, "application at port 80 of pod");
    // Whether a longer queue would do is not known while it is full; without sock_diag that alone is known.
    for listener in [listener(80, 129, Some(128), Some(7)), listener(80, 129, None, None)] {
        let full = of(7, vec![listener, idle.clone()]);
        assert_eq!((full.verdict, full.changes.len()), (Verdict::Consider, 1));
        assert!(
            full.because.contains("port 80") && full.because.contains("129 still waited"),
            "{}",
            full.because
        );
    }
    // The listener that dropped has gone, or nothing is known of it.
    for listeners in [vec![], vec![idle], vec![listener(80, 1, None, None)]] {
        let gone = of(7, listeners);
        assert_eq!((gone.verdict, changes(&gone)[1]), (Verdict::Consider, ("pod", APPLY)));
    }
    let mut calm = overflowed(0, vec![listener(80, 129, Some(128), Some(7))]);
    calm.tcp.listen_overflows = Some(0);
    calm.tcp.namespaces[0].listen_overflows = 0;
    assert_eq!(verdict(&calm, "tcp.accept-queue"), Verdict::NotNeeded);
}

#[test]
fn of_a_namespace_that_is_not_measured_the_name_is_said() {
    let mut snapshot = overflowed(7, vec![listener(80, 3, Some(128), Some(7))]);
    snapshot.tcp.namespaces[0].netns = "net:[4026532345]".to_owned();
    let finding = find(&snapshot, "tcp.accept-queue");
    assert_eq!((finding.verdict, finding.changes.len()), (Verdict::Consider, 1));
    assert!(finding.because.contains("net:[4026532345]"), "{}", finding.because);
}

#[test]
fn full_queues_of_half_open_connections_are_named_by_namespace() {
    let mut snapshot = overflowed(7, vec![listener(80, 0, Some(128), Some(7))]);
    snapshot.tcp.counters.syn_queue_drops = Some(7);
    snapshot.tcp.namespaces[0].counters =
        TcpCounters { syn_queue_drops: Some(7), syn_cookies: Some(0), ..TcpCounters::default() };
    let finding = find(&snapshot, "tcp.syn-queue");
    assert_eq!((finding.verdict, changes(&finding)[1]), (Verdict::Consider, ("pod", APPLY)));
    assert_eq!(
        (finding.because.as_str(), finding.changes.len()),
        ("queues of half-open connections in pod were full", 2)
    );
    snapshot.node.namespaces[0].sockets.listeners[0].limit = Some(16);
    assert_eq!(find(&snapshot, "tcp.syn-queue").changes.len(), 1, "the setting is not the limit");
}

/// A hundred local ports, so many of them in use towards one peer, so many of these in TIME_WAIT.
pub(super) fn crowded(ports: u32, time_wait: u32) -> Snapshot {
    let mut snapshot = quiet();
    set(&mut snapshot, "net.ipv4.ip_local_port_range", "40000\t40099");
    set(&mut snapshot, TIME_WAIT, "500");
    set(&mut snapshot, "net.ipv4.tcp_tw_reuse", "2");
    set(&mut snapshot, "net.ipv4.tcp_timestamps", "1");
    let peer = "10.0.0.2".parse().unwrap();
    snapshot.node.namespaces[0].sockets = NodeSockets {
        from: "sock_diag".to_owned(),
        ports: Some(PortUse {
            source: [10, 0, 0, 1].into(),
            destination: peer,
            destination_port: 443,
            ports,
            time_wait,
        }),
        ..NodeSockets::default()
    };
    snapshot.tcp.peers = vec![TcpPeer {
        peer,
        connections: 100,
        failures: 5,
        failures_at_once: 5,
        retransmits: 0,
        resets: 0,
        sndbuf_limited_us: 0,
        rwnd_limited_us: 0,
        srtt: Hist::default(),
    }];
    snapshot
}

#[test]
fn closed_connections_that_leave_no_port_are_proven() {
    let of = |snapshot: &Snapshot| verdict(snapshot, "tcp.port-exhaustion");
    let proven = find(&crowded(100, 100), "tcp.port-exhaustion");
    assert_eq!(
        (proven.verdict, changes(&proven)[1]),
        (Verdict::Apply, ("pod", "sysctl -w net.ipv4.tcp_tw_reuse=1"))
    );
    assert!(proven.because.contains("10.0.0.2 port 443"), "{}", proven.because);
    // Five hundred sockets of many peers, or a server's own.
    let mut many_peers = crowded(20, 20);
    many_peers.tcp.peers.clear();
    assert_eq!(of(&many_peers), Verdict::NotNeeded);
    assert_eq!(of(&crowded(90, 90)), Verdict::Consider);
    let open = find(&crowded(100, 10), "tcp.port-exhaustion");
    assert_eq!((open.verdict, open.changes.len()), (Verdict::Consider, 1), "reuse is of closed ones");
    let mut calm = crowded(100, 100);
    calm.tcp.peers.clear();
    assert_eq!(of(&calm), Verdict::Consider);
    let mut elsewhere = crowded(100, 100);
    elsewhere.tcp.peers[0].peer = "10.0.0.3".parse().unwrap();
    assert_eq!(of(&elsewhere), Verdict::Consider);
    for timestamps in [Some("0"), None] {
        let mut without_timestamps = crowded(100, 100);
        let values = &mut without_timestamps.node.namespaces[0].values;
        values.iter_mut().find(|s| s.name == "net.ipv4.tcp_timestamps").unwrap().value =
            timestamps.map(str::to_owned);
        assert_eq!(of(&without_timestamps), Verdict::Consider);
    }
    let mut loopback = crowded(100, 100);
    let here = "127.0.0.1".parse().unwrap();
    loopback.tcp.peers[0].peer = here;
    loopback.node.namespaces[0].sockets.ports.as_mut().unwrap().destination = here;
    assert_eq!(of(&loopback), Verdict::Consider, "2 is reuse towards the loopback");
    let mut cut = crowded(20, 20);
    cut.tcp.peers.clear();
    cut.node.namespaces[0].sockets.cut = Some("sockets".to_owned());
    assert_eq!(of(&cut), Verdict::CannotTell, "another peer may have more");
}

#[test]
fn fast_open_is_advised_where_it_is_asked_for() {
    let mut snapshot = quiet();
    set(&mut snapshot, "net.ipv4.tcp_fastopen", "1");
    let mut host = snapshot.node.namespaces[0].clone();
    host.netns = "host".to_owned();
    snapshot.node.namespaces.push(host);
    let counters = |asked| TcpCounters { fast_open_asked: Some(asked), ..snapshot.tcp.counters };
    let namespace = |netns: &str, asked| TcpNamespace {
        netns: netns.to_owned(),
        counters: counters(asked),
        ..TcpNamespace::default()
    };
    let (total, namespaces) = (counters(3), vec![namespace("pod", 0), namespace("host", 3)]);
    (snapshot.tcp.counters, snapshot.tcp.namespaces) = (total, namespaces);
    let finding = find(&snapshot, "tcp.fastopen");
    assert_eq!((finding.verdict, finding.changes.len()), (Verdict::Consider, 2));
    assert_eq!(changes(&finding)[1], ("host", "sysctl -w net.ipv4.tcp_fastopen=3"));
    snapshot.node.namespaces[1].values[0].value = Some("3".to_owned());
    assert_eq!(verdict(&snapshot, "tcp.fastopen"), Verdict::NotNeeded);
}

#[test]
fn send_buffers_are_to_grow_where_they_reached_their_limit() {
    let mut snapshot = quiet();
    snapshot.tcp.limited = TcpLimited {
        connections: 1,
        busy_us: 1_000_000,
        sndbuf_limited_us: 500_000,
        ..TcpLimited::default()
    };
    set(&mut snapshot, "net.ipv4.tcp_wmem", "4096\t16384\t4194304");
    let mut host = snapshot.node.namespaces[0].clone();
    host.netns = "host".to_owned();
    snapshot.node.namespaces.push(host);
    let finding = find(&snapshot, "tcp.send-buffer");
    assert_eq!((finding.verdict, finding.confidence), (Verdict::Consider, Confidence::Low));
    assert_eq!(finding.changes.len(), 3, "the application, and each namespace");
    snapshot.node.namespaces[0].sockets.send_buffers_at_limit = Some(0);
    snapshot.node.namespaces[1].sockets.send_buffers_at_limit = Some(2);
    let finding = find(&snapshot, "tcp.send-buffer");
    assert_eq!((finding.verdict, finding.confidence), (Verdict::Consider, Confidence::Medium));
    assert_eq!(changes(&finding)[1..], [("host", "sysctl -w net.ipv4.tcp_wmem='4096 16384 8388608'")]);
}

#[test]
fn a_cache_is_advised_by_what_the_slow_server_is_asked_again() {
    let server = |d: u8, again, ns| DnsServer {
        server: [10, 0, 0, d].into(),
        transport: "udp".to_owned(),
        transactions: 50,
        asked_again: again,
        timeouts: 0,
        failures: 0,
        hist: {
            let mut hist = Hist::default();
            (0..50).for_each(|_| hist.record(ns));
            hist
        },
    };
    let of = |slow, quick| {
        let mut snapshot = quiet();
        (snapshot.dns.transactions, snapshot.dns.answered) = (100, 100);
        snapshot.dns.servers = vec![server(1, slow, 40_000_000), server(2, quick, 1000)];
        find(&snapshot, "dns.cache")
    };
    let finding = of(Some(45), Some(0));
    assert_eq!(finding.verdict, Verdict::Apply);
    assert!(finding.because.starts_with("10.0.0.1 "), "{}", finding.because);
    assert_eq!(of(Some(0), Some(50)).verdict, Verdict::Consider, "the quick one has it from its own cache");
    assert_eq!(of(None, None).verdict, Verdict::Consider, "an older snapshot");
}

#[test]
fn any_socket_is_survived() {
    let most = (u32::MAX, Some(u32::MAX), Some(u32::MAX));
    for (queued, limit, dropped) in
        [most, (0, Some(0), Some(0)), (u32::MAX, None, Some(1)), (1, Some(0), None)]
    {
        for somaxconn in ["128", "", "-1", "4294967295", "18446744073709551615", "x"] {
            let mut snapshot = overflowed(u64::MAX, vec![listener(0, queued, limit, dropped); 2]);
            for namespace in &mut snapshot.tcp.namespaces {
                namespace.listen_overflows = u64::MAX;
                namespace.counters.syn_queue_drops = Some(u64::MAX);
            }
            let namespace = &mut snapshot.node.namespaces[0];
            namespace.values[0].value = Some(somaxconn.to_owned());
            snapshot.node.namespaces[1].sockets.cut = Some("\u{1b}[31m".to_owned());
            assert!(!advise(&snapshot, Profile::Balanced).is_empty());
        }
    }
    for (ports, range) in [(u32::MAX, "1 0"), (u32::MAX, "0 18446744073709551615"), (0, "5 5"), (1, "a b")] {
        let mut snapshot = crowded(ports, u32::MAX);
        snapshot.node.namespaces[0].values[0].value = Some(range.to_owned());
        assert!(!advise(&snapshot, Profile::Balanced).is_empty());
    }
}
