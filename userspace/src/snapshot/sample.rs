//! Made-up snapshots for tests: a rich one, an empty one and a hostile one. All are the same on every run.

use super::{
    BlackHole, ConntrackCounts, ConntrackEntered, ConntrackFlow, ConntrackTable, ConntrackTrouble, Count,
    Dns, DnsName, DnsServer, DnsTransaction, Drop, DropFlow, Exemplar, FragmentFailure, Hist, Interface, Ip,
    LearntMtu, LossCount, Meta, Overhead, Packets, PathMtu, Probe, ProgramCost, Ring, SCHEMA_VERSION,
    SignalData, Snapshot, Tcp, TcpCounters, TcpLimited, TcpPeer,
};
use nettrace_common::{Loss, Signal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

/// A distribution of `n` latencies, ns, that passes through the given quantiles, straight between them.
#[must_use]
pub fn hist(n: u64, [min, p50, p90, p99, p999, max]: [u64; 6]) -> Hist {
    let anchors = [(0, min), (5_000, p50), (9_000, p90), (9_900, p99), (9_990, p999), (10_000, max)];
    let mut hist = Hist::new();
    // Some thousand values, each counted as often as it takes to make n.
    let steps = n.min(5_000);
    for i in 0..steps {
        let q = if steps == 1 { 0 } else { i * 10_000 / (steps - 1) };
        if let Some(&[(q0, v0), (q1, v1)]) = anchors.windows(2).find(|pair| q <= pair[1].0) {
            let value = v0 + v1.saturating_sub(v0) * (q - q0) / (q1 - q0);
            hist.record_n(value, n / steps + u64::from(i < n % steps));
        }
    }
    hist
}

fn signal(signal: Signal, scope: &str, n: u64, quantiles: [u64; 6]) -> SignalData {
    let hist = hist(n, quantiles);
    SignalData {
        signal: signal.name().to_owned(),
        definition: signal.definition().to_owned(),
        scope: scope.to_owned(),
        sum_ns: (hist.mean_ns() as u64).saturating_mul(n),
        max_ns: quantiles[5],
        hist,
    }
}

fn v4(d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, d))
}

fn v6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last))
}

fn count(name: &str, count: u64) -> Count {
    Count { name: name.to_owned(), count }
}

fn meta() -> Meta {
    Meta {
        version: "0.1.0".to_owned(),
        start_unix_ns: 1_767_225_600 * S,
        duration_ns: 30 * S,
        hostname: "node-1".to_owned(),
        kernel: "6.12.48+deb13-amd64".to_owned(),
        arch: "x86_64".to_owned(),
        cpus: 8,
        filter: None,
        lab: false,
        rotated: None,
        flight: None,
    }
}

fn losses() -> Vec<LossCount> {
    Loss::ALL
        .iter()
        .map(|loss| LossCount {
            reason: loss.name().to_owned(),
            side: if loss.is_kernel() { "kernel" } else { "user" }.to_owned(),
            count: 0,
            meaning: loss.meaning().to_owned(),
        })
        .collect()
}

/// A run that saw nothing.
#[must_use]
pub fn empty() -> Snapshot {
    Snapshot {
        schema: SCHEMA_VERSION,
        meta: meta(),
        interfaces: Vec::new(),
        signals: Vec::new(),
        packets: Packets::default(),
        dns: Dns::default(),
        tcp: Tcp { listen_overflows: Some(0), listen_drops: Some(0), ..Tcp::default() },
        ip: Ip::default(),
        conntrack: Vec::new(),
        conntrack_entered: None,
        conntrack_trouble: ConntrackTrouble::default(),
        conntrack_flows: Vec::new(),
        drops: Vec::new(),
        drop_flows: Vec::new(),
        exemplars: Vec::new(),
        losses: losses(),
        ring: Ring::default(),
        probes: Vec::new(),
        overhead: Overhead::default(),
        node: crate::node::Node::default(),
    }
}

/// A run that saw something of everything.
#[must_use]
pub fn rich() -> Snapshot {
    let mut snapshot = empty();
    snapshot.meta.filter = Some("tcp or udp port 53".to_owned());
    snapshot.packets = Packets { budget_per_cpu_per_s: 25_000, begun: 1_000_000, untimed: 125_000 };
    snapshot.interfaces = interfaces();
    snapshot.signals = signals();
    snapshot.dns = dns();
    snapshot.tcp = tcp();
    snapshot.ip = ip();
    snapshot.conntrack = conntrack();
    snapshot.conntrack_entered =
        Some(ConntrackEntered { connections: 402, source_nat: 31, destination_nat: 380 });
    (snapshot.conntrack_trouble, snapshot.conntrack_flows) = conntrack_flows();
    snapshot.drops = drops();
    snapshot.drop_flows = vec![
        drop_flow("10.0.0.7:41822 -> 10.0.0.2:5432 tcp", "NETFILTER_DROP", 97),
        drop_flow("10.0.0.9:50344 -> 10.0.0.2:5432 tcp", "NETFILTER_DROP", 23),
        drop_flow("10.0.0.3:9000 -> 10.0.0.2:9125 udp", "SOCKET_RCVBUFF", 14),
    ];
    snapshot.exemplars = exemplars();
    for loss in &mut snapshot.losses {
        match loss.reason.as_str() {
            "unmatched" => loss.count = 41,
            "dns_unmatched" => loss.count = 2,
            _ => {}
        }
    }
    snapshot.ring = Ring { emitted: 18_423, received: 18_423, lost: 0, size_bytes: 8 << 20 };
    snapshot.probes = probes();
    snapshot.overhead = overhead();
    snapshot
}

fn interfaces() -> Vec<Interface> {
    let interface = |name: &str, ifindex, netns: &str, attached: &[&str], error: Option<&str>| Interface {
        name: name.to_owned(),
        ifindex,
        netns: netns.to_owned(),
        scope: name.to_owned(),
        attached: attached.iter().map(ToString::to_string).collect(),
        error: error.map(ToOwned::to_owned),
        gone: false,
    };
    let mut vanished = interface("veth5c1", 17, "host", &["clsact"], None);
    vanished.gone = true;
    vec![
        interface("eth0", 2, "host", &["tcx"], None),
        interface("cni0", 4, "host", &["tcx"], None),
        interface("vlan7", 9, "host", &[], Some("clsact: operation not supported (EOPNOTSUPP)")),
        vanished,
    ]
}

fn signals() -> Vec<SignalData> {
    use Signal::*;
    vec![
        signal(RxStack, "all", 84_210, [1_400, 4 * US, 9 * US, 31 * US, 120 * US, 840 * US]),
        signal(RxStack, "eth0", 61_200, [1_900, 5 * US, 10 * US, 34 * US, 126 * US, 840 * US]),
        signal(RxStack, "cni0", 23_010, [1_400, 3 * US, 7 * US, 19 * US, 60 * US, 310 * US]),
        signal(RxSocket, "all", 83_900, [2 * US, 18 * US, 96 * US, 1_200 * US, 9 * MS, 41 * MS]),
        signal(RxSocket, "eth0", 60_950, [3 * US, 21 * US, 110 * US, 1_400 * US, 11 * MS, 41 * MS]),
        signal(RxTotal, "all", 83_900, [4 * US, 23 * US, 108 * US, 1_300 * US, 9_100 * US, 41 * MS]),
        signal(RxSoftirq, "all", 52_004, [600, 2 * US, 5 * US, 22 * US, 410 * US, 3 * MS]),
        signal(TxStack, "all", 79_144, [700, 2_100, 4_400, 12 * US, 48 * US, 260 * US]),
        signal(TxQdisc, "all", 79_144, [300, 900, 2 * US, 240 * US, 2_600 * US, 7 * MS]),
        signal(TxQdisc, "eth0", 58_000, [400, 1_100, 3 * US, 290 * US, 3 * MS, 7 * MS]),
        signal(TxDriver, "all", 79_120, [2 * US, 7 * US, 14 * US, 40 * US, 90 * US, 1_100 * US]),
        signal(FwdHost, "all", 3_210, [3 * US, 8 * US, 19 * US, 77 * US, 300 * US, 420 * US]),
        signal(NetRtt, "all", 21_800, [60 * US, 210 * US, 480 * US, 4 * MS, 38 * MS, 204 * MS]),
        signal(TcpSrtt, "all", 20_400, [80 * US, 230 * US, 460 * US, 3 * MS, 22 * MS, 90 * MS]),
        signal(IpReassembly, "all", 38, [40 * US, 90 * US, 300 * US, 2 * MS, 2 * MS, 2 * MS]),
        signal(NfHook, "all", 14_910, [180, 620, 8_900, 14 * US, 41 * US, 160 * US]),
        signal(NfHook, "prerouting", 8_400, [400, 7_100, 9_800, 15 * US, 44 * US, 160 * US]),
        signal(NfHook, "forward", 310, [180, 240, 520, 1_100, 3 * US, 4 * US]),
        signal(NfHook, "postrouting", 6_200, [190, 410, 900, 2 * US, 9 * US, 30 * US]),
        signal(CtIn, "all", 14_100, [90, 210, 480, 1_300, 6 * US, 28 * US]),
        signal(CtConfirm, "all", 402, [140, 380, 900, 2 * US, 7 * US, 7 * US]),
        signal(TcpConnect, "all", 412, [90 * US, 260 * US, 900 * US, 1_003 * MS, 1_030 * MS, 1_031 * MS]),
        signal(TcpAccept, "all", 388, [70 * US, 240 * US, 700 * US, 6 * MS, 11 * MS, 12 * MS]),
        signal(DnsLatency, "all", 1_037, [180 * US, 640 * US, 4 * MS, 48 * MS, 2_100 * MS, 4_800 * MS]),
    ]
}

fn dns() -> Dns {
    let server = |d: u8, transport: &str, transactions, timeouts, failures, quantiles| DnsServer {
        server: v4(d),
        transport: transport.to_owned(),
        transactions,
        asked_again: Some(transactions / 2),
        timeouts,
        failures,
        hist: hist(transactions - timeouts, quantiles),
    };
    let name = |name: &str, qtype: &str, transactions, timeouts, rcode: &str, mean_ns, max_ns| DnsName {
        name: name.to_owned(),
        qtype: qtype.to_owned(),
        transactions,
        timeouts,
        rcodes: vec![count(rcode, transactions - timeouts)],
        mean_ns,
        max_ns,
    };
    let slow = |at_ms: u64, name: &str, rcode: Option<&str>, latency_ns, retries| DnsTransaction {
        at_ns: at_ms * MS,
        client: v4(7),
        server: v4(10),
        transport: "udp".to_owned(),
        name: name.to_owned(),
        qtype: "A".to_owned(),
        rcode: rcode.map(ToOwned::to_owned),
        latency_ns,
        retries,
    };
    Dns {
        transactions: 1_042,
        answered: 1_037,
        timeouts: 3,
        pending: 2,
        retries: 7,
        truncated: 4,
        tcp: 4,
        ipv6: 0,
        edns: 911,
        rcodes: vec![count("NOERROR", 610), count("NXDOMAIN", 421), count("SERVFAIL", 6)],
        servers: vec![
            server(10, "udp", 1_038, 3, 6, [180 * US, 640 * US, 4 * MS, 48 * MS, 2_100 * MS, 4_800 * MS]),
            server(10, "tcp", 4, 0, 0, [900 * US, 1_200 * US, 2 * MS, 2 * MS, 2 * MS, 2 * MS]),
        ],
        names: vec![
            name("api.example.com.default.svc.cluster.local", "A", 210, 0, "NXDOMAIN", 420 * US, 9 * MS),
            name("api.example.com", "A", 209, 2, "NOERROR", 4_100 * US, 4_800 * MS),
            name("postgres.prod.svc.cluster.local", "AAAA", 96, 1, "NOERROR", 310 * US, 2 * MS),
        ],
        slowest: vec![
            slow(11_020, "api.example.com", None, None, 3),
            slow(19_440, "postgres.prod.svc.cluster.local", None, None, 2),
            slow(7_310, "api.example.com", Some("NOERROR"), Some(4_800 * MS), 1),
            slow(22_904, "cdn.example.net", Some("SERVFAIL"), Some(2_100 * MS), 0),
        ],
    }
}

fn tcp() -> Tcp {
    let peer = |peer, connections, failures, retransmits, resets, sndbuf_limited_us, quantiles| TcpPeer {
        peer,
        connections,
        failures,
        failures_at_once: 0,
        retransmits,
        resets,
        sndbuf_limited_us,
        rwnd_limited_us: 0,
        srtt: hist(connections * 20, quantiles),
    };
    Tcp {
        connects: 412,
        connect_failures: 9,
        failures: vec![count("ECONNREFUSED", 6), count("ETIMEDOUT", 3)],
        accepts: 388,
        retransmits: 214,
        retransmits_timeout: 31,
        retransmits_fast: 170,
        segments_sent: Some(79_144),
        resets_sent: 12,
        resets_received: 31,
        listen_overflows: Some(5),
        listen_drops: None,
        counters: TcpCounters {
            zero_windows: Some(4),
            timeouts: Some(23),
            fast_retransmits: Some(170),
            syn_queue_drops: Some(0),
            ..TcpCounters::default()
        },
        namespaces: Vec::new(),
        limited: TcpLimited {
            connections: 761,
            connections_sndbuf: 3,
            connections_rwnd: 12,
            busy_us: 14_220_000,
            rwnd_limited_us: 612_000,
            sndbuf_limited_us: 1_980_000,
        },
        peers: vec![
            peer(v4(2), 340, 9, 180, 20, 1_980_000, [80 * US, 210 * US, 400 * US, 3 * MS, 20 * MS, 90 * MS]),
            peer(v6(2), 72, 0, 34, 11, 0, [120 * US, 260 * US, 800 * US, 2 * MS, 4 * MS, 5 * MS]),
        ],
    }
}

fn ip() -> Ip {
    Ip {
        fragments_in_v4: 120,
        fragments_in_v6: 8,
        fragments_out_v4: 60,
        fragments_out_v6: 0,
        reassembled: 38,
        incomplete: 2,
        packet_too_big: 11,
        ptb: vec![PathMtu { router: v4(254), destination: v4(80), mtu: 1_450, count: 11 }],
        failures: vec![FragmentFailure {
            work: "put together".to_owned(),
            reason: "ENOMEM".to_owned(),
            flow: "10.0.0.7 -> 10.0.0.2 udp".to_owned(),
            count: 4,
        }],
        black_holes: vec![BlackHole {
            peer: v4(81),
            flow: "10.244.0.2:40312 -> 10.244.0.81:443 tcp".to_owned(),
            flows: 2,
            lost_bytes: 1_500,
            passes_bytes: Some(1_252),
            again: 9,
            messages: 0,
            alive: true,
        }],
        learnt: vec![
            LearntMtu { netns: "pod-1".to_owned(), destination: v6(2), mtu: 1_280, expires_s: 31 },
            LearntMtu { netns: "host".to_owned(), destination: v4(80), mtu: 1_450, expires_s: 598 },
        ],
        learnt_paths: 2,
    }
}

fn drops() -> Vec<Drop> {
    let drop = |reason: &str, location: &str, scope: &str, count| Drop {
        reason: reason.to_owned(),
        location: location.to_owned(),
        scope: scope.to_owned(),
        count,
    };
    vec![
        drop("NETFILTER_DROP", "nft_do_chain+0x3f", "eth0", 120),
        drop("SOCKET_RCVBUFF", "__udp_enqueue_schedule_skb+0x1a2", "cni0", 14),
        drop("NO_SOCKET", "tcp_v4_rcv+0x8c", "eth0", 6),
    ]
}

fn drop_flow(flow: &str, reason: &str, count: u64) -> DropFlow {
    DropFlow { flow: flow.to_owned(), reason: reason.to_owned(), count }
}

fn exemplars() -> Vec<Exemplar> {
    let slow = |signal: Signal, at_ms: u64, latency_ns, flow: &str, bytes| Exemplar {
        signal: signal.name().to_owned(),
        at_ns: at_ms * MS,
        latency_ns,
        flow: flow.to_owned(),
        bytes,
        scope: "eth0".to_owned(),
    };
    vec![
        slow(Signal::RxSocket, 14_233, 41 * MS, "10.0.0.2:5432 -> 10.0.0.7:41822 tcp", 1_514),
        slow(Signal::RxSocket, 14_235, 38 * MS, "10.0.0.2:5432 -> 10.0.0.7:41822 tcp", 1_514),
        slow(Signal::TxQdisc, 3_871, 7 * MS, "[fd00::7]:33000 -> [fd00::2]:443 tcp", 9_014),
        slow(Signal::RxSoftirq, 28_011, 3 * MS, "?", 66),
    ]
}

fn probes() -> Vec<Probe> {
    let probe = |name: &str, source: Option<&str>, yields: &[&str], reason: Option<&str>| Probe {
        name: name.to_owned(),
        source: source.map(ToOwned::to_owned),
        yields: yields.iter().map(ToString::to_string).collect(),
        reason: reason.map(ToOwned::to_owned),
    };
    vec![
        probe("rx", Some("tp_btf netif_receive_skb"), &["rx.stack", "rx.socket", "rx.total"], None),
        probe(
            "softirq",
            Some("tracepoint irq:softirq_raise"),
            &["rx.softirq"],
            Some("tp_btf: no BTF for irq"),
        ),
        probe("tx", Some("tp_btf net_dev_queue"), &["tx.stack", "tx.qdisc", "tx.driver"], None),
        probe("dns", Some("tcx"), &["dns.latency"], None),
        probe("drop", Some("tp_btf kfree_skb"), &["drops"], None),
        probe("conntrack", None, &["ct.in", "ct.confirm"], Some("this kernel has no fentry and no kprobes")),
    ]
}

fn conntrack() -> Vec<ConntrackTable> {
    let cpu = |cpu, drop, early_drop, insert_failed| ConntrackCounts {
        cpu,
        invalid: Some(12),
        insert_failed: Some(insert_failed),
        drop: Some(drop),
        early_drop: Some(early_drop),
        error: Some(0),
        search_restart: Some(0),
        clash_resolve: Some(31),
        chain_too_long: None,
    };
    vec![
        ConntrackTable {
            netns: "host".to_owned(),
            entries: Some(65_536),
            max: Some(65_536),
            buckets: Some(16_384),
            cpus: vec![cpu(0, 210, 40, 3), cpu(1, 97, 21, 0)],
        },
        ConntrackTable {
            netns: "pod-1".to_owned(),
            entries: Some(7),
            max: Some(65_536),
            buckets: Some(16_384),
            cpus: vec![ConntrackCounts::default()],
        },
    ]
}

fn conntrack_flows() -> (ConntrackTrouble, Vec<ConntrackFlow>) {
    let flow =
        |flow: &str, what: &str, count| ConntrackFlow { flow: flow.to_owned(), what: what.to_owned(), count };
    let flows = vec![
        flow("10.0.0.7:33101 -> 10.0.0.2:5432 tcp", "table full", 260),
        flow("10.0.0.9:50344 -> 10.0.0.10:53 udp", "clash resolved", 62),
        flow("10.0.0.3:9000 -> 10.0.0.2:9125 udp", "table full", 44),
        flow("10.0.0.9:50344 -> 10.0.0.2:9125 udp", "clash dropped", 3),
    ];
    (ConntrackTrouble { clashes_resolved: 62, clashes_dropped: 3, table_full: 304 }, flows)
}

fn overhead() -> Overhead {
    let program =
        |program: &str, runs, ns_per_run| ProgramCost { program: program.to_owned(), runs, ns_per_run };
    Overhead {
        programs: vec![
            program("rx_receive", 42_105, 211.4),
            program("tx_queue", 39_572, 148.0),
            program("dns_ingress", 1_044, 96.5),
        ],
        stats_share: 0.5,
        kernel_cpu_share: 0.003_12,
        user_cpu_ns: 84 * MS,
        system_cpu_ns: 31 * MS,
        max_rss_bytes: 21 << 20,
        map_bytes: 9 << 20,
    }
}

/// A run on a node whose names try to be markup, terminal commands and table syntax.
#[must_use]
pub fn hostile() -> Snapshot {
    const EVIL: &str = "<script>alert(1)</script>\u{1b}[31m\u{7}\r\n| `x` \u{202e}\"'&<img src=x onerror=1>";
    let mut snapshot = rich();
    let evil = || EVIL.to_owned();
    snapshot.meta.hostname = evil();
    snapshot.meta.kernel = evil();
    snapshot.meta.filter = Some(evil());
    for interface in &mut snapshot.interfaces {
        interface.name = evil();
        interface.error = Some(evil());
    }
    for signal in snapshot.signals.iter_mut().filter(|s| s.scope != "all") {
        signal.scope = evil();
    }
    snapshot.signals[0].definition = evil();
    snapshot.signals.push(SignalData { signal: evil(), ..snapshot.signals[0].clone() });
    snapshot.dns.names[0].name = evil();
    snapshot.dns.rcodes[2].name = evil();
    snapshot.dns.slowest[0].name = evil();
    snapshot.drops[0].reason = evil();
    snapshot.drops[0].location = evil();
    snapshot.drop_flows[0].flow = evil();
    snapshot.conntrack_flows[0].flow = evil();
    snapshot.conntrack_flows[0].what = evil();
    snapshot.ip.learnt[0].netns = evil();
    snapshot.exemplars[0].flow = evil();
    snapshot.probes[0].reason = Some(evil());
    snapshot.losses[0].meaning = evil();
    snapshot.overhead.programs[0].program = evil();
    snapshot.dns.slowest[2].latency_ns = Some(u64::MAX);
    snapshot.meta.start_unix_ns = u64::MAX;
    snapshot.meta.duration_ns = 0;
    snapshot
}
