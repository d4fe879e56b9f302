//! What is shown of one window while it is young: the live page and `nettrace top`.
//!
//! Needs a [`Snapshot`] of a window; yields a [`Frame`], small enough to be sent every few seconds and kept for hours.
//! Rates are per second of the window, latencies nanoseconds.

use crate::snapshot::{ConntrackTable, Snapshot};
use nettrace_common::Signal;
use serde::{Deserialize, Serialize};

/// Rows that a frame keeps of each table.
pub const ROWS: usize = 10;

/// One window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// When it ended, Unix time, ms.
    pub at_unix_ms: u64,
    /// How long it was, ms.
    pub window_ms: u64,
    /// Node name.
    pub hostname: String,
    /// Latencies by signal and scope, in the order of the signal table, `all` before single scopes.
    pub signals: Vec<SignalFrame>,
    /// Packets that began their way, a second.
    pub packets_per_s: f64,
    /// Share of them that passed untimed, 0 to 1.
    pub untimed_share: f64,
    /// DNS.
    pub dns: DnsFrame,
    /// TCP.
    pub tcp: TcpFrame,
    /// Packets dropped, a second.
    pub drops_per_s: f64,
    /// Of which reason and where, most first.
    pub drops: Vec<DropRow>,
    /// Fragments received, a second.
    pub fragments_per_s: f64,
    /// Paths on which long segments vanish.
    pub black_holes: u64,
    /// Connection tracking, by network namespace.
    pub conntrack: Vec<ConntrackRow>,
    /// The slowest packets, slowest first.
    pub slowest: Vec<SlowRow>,
    /// Measurements lost, by reason; those that lost none are left out.
    pub losses: Vec<LossRow>,
    /// What measuring cost.
    pub cost: Cost,
}

/// One signal in one scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SignalFrame {
    /// Its name.
    pub signal: String,
    /// `all`, or an interface or hook.
    pub scope: String,
    /// Latencies measured in the window.
    pub count: u64,
    /// The same a second.
    pub per_s: f64,
    /// Median, ns.
    pub p50_ns: u64,
    /// 90th percentile, ns.
    pub p90_ns: u64,
    /// 99th percentile, ns.
    pub p99_ns: u64,
    /// 99.9th percentile, ns.
    pub p999_ns: u64,
    /// Longest, ns.
    pub max_ns: u64,
}

/// DNS in one window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DnsFrame {
    /// Transactions, a second.
    pub per_s: f64,
    /// Transactions in the window.
    pub transactions: u64,
    /// Of these, without an answer.
    pub timeouts: u64,
    /// Queries sent again.
    pub retries: u64,
    /// Answers with the TC bit.
    pub truncated: u64,
    /// Answers by response code, most first.
    pub rcodes: Vec<(String, u64)>,
    /// By resolver, most transactions first.
    pub servers: Vec<DnsServerRow>,
    /// By question, most transactions first.
    pub names: Vec<DnsNameRow>,
}

/// One resolver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DnsServerRow {
    /// Its address.
    pub server: String,
    /// `udp` or `tcp`.
    pub transport: String,
    /// Transactions.
    pub transactions: u64,
    /// Of these, without an answer.
    pub timeouts: u64,
    /// Median latency, ns.
    pub p50_ns: u64,
    /// 99th percentile, ns.
    pub p99_ns: u64,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsNameRow {
    /// Name.
    pub name: String,
    /// Type.
    pub qtype: String,
    /// Transactions.
    pub transactions: u64,
    /// Of these, without an answer.
    pub timeouts: u64,
    /// Mean latency, ns.
    pub mean_ns: u64,
    /// Longest, ns.
    pub max_ns: u64,
}

/// TCP in one window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TcpFrame {
    /// Connections established by local clients, a second.
    pub connects_per_s: f64,
    /// Connections accepted by local servers, a second.
    pub accepts_per_s: f64,
    /// Connections that failed, in the window.
    pub failures: u64,
    /// Segments sent again, in the window.
    pub retransmits: u64,
    /// Of all segments sent, those sent again, 0 to 1; none when it is not known.
    pub retransmit_share: Option<f64>,
    /// RST sent and received, in the window.
    pub resets: u64,
    /// Connections dropped because an accept queue was full; none when it is not known.
    pub listen_overflows: Option<u64>,
    /// By remote address, most events first.
    pub peers: Vec<TcpPeerRow>,
}

/// One remote address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpPeerRow {
    /// The address.
    pub peer: String,
    /// Connections.
    pub connections: u64,
    /// Connections that failed.
    pub failures: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// RST, both ways.
    pub resets: u64,
    /// Median smoothed round trip, ns; none when none was sampled.
    pub srtt_p50_ns: Option<u64>,
}

/// Drops of one reason at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRow {
    /// Kernel's reason.
    pub reason: String,
    /// Function that dropped.
    pub location: String,
    /// Interface scope.
    pub scope: String,
    /// Packets in the window.
    pub count: u64,
}

/// One namespace's connection tracking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackRow {
    /// Network namespace.
    pub netns: String,
    /// Connections in the table.
    pub entries: Option<u64>,
    /// Connections that it takes.
    pub max: Option<u64>,
    /// Packets dropped in the window.
    pub drops: u64,
    /// Connections that could not be entered in the window.
    pub insert_failed: u64,
}

/// One slow packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowRow {
    /// Signal.
    pub signal: String,
    /// How slow, ns.
    pub latency_ns: u64,
    /// Its flow.
    pub flow: String,
    /// Interface scope.
    pub scope: String,
}

/// One way in which measurements were lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossRow {
    /// Name from the loss table.
    pub reason: String,
    /// How many in the window.
    pub count: u64,
    /// What it means.
    pub meaning: String,
}

/// What measuring cost in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// nettrace's own CPU time, user and system, as a share of one CPU.
    pub own_cpu_share: f64,
    /// Kernel programs' CPU time as a share of one CPU.
    pub kernel_cpu_share: f64,
    /// Resident set, bytes.
    pub rss_bytes: u64,
    /// Memory of the kernel maps, bytes.
    pub map_bytes: u64,
}

impl Frame {
    /// Of a window.
    #[must_use]
    pub fn of(window: &Snapshot) -> Self {
        let seconds = window.meta.duration_ns.max(1) as f64 / 1e9;
        let rate = |n: u64| n as f64 / seconds;
        let ip = &window.ip;
        Self {
            at_unix_ms: (window.meta.start_unix_ns + window.meta.duration_ns) / 1_000_000,
            window_ms: window.meta.duration_ns / 1_000_000,
            hostname: window.meta.hostname.clone(),
            signals: signals(window, &rate),
            packets_per_s: rate(window.packets.begun),
            untimed_share: 1.0 - window.packets.timed_share(),
            dns: dns(window, &rate),
            tcp: tcp(window, &rate),
            drops_per_s: rate(window.drops.iter().map(|d| d.count).sum()),
            drops: drops(window),
            fragments_per_s: rate(ip.fragments_in_v4 + ip.fragments_in_v6),
            black_holes: ip.black_holes.len() as u64,
            conntrack: window.conntrack.iter().map(conntrack).collect(),
            slowest: slowest(window),
            losses: losses(window),
            cost: Cost::of(window),
        }
    }

    /// One signal over all scopes.
    #[must_use]
    pub fn signal(&self, signal: Signal) -> Option<&SignalFrame> {
        self.signals.iter().find(|s| s.signal == signal.name() && s.scope == "all")
    }
}

fn signals(window: &Snapshot, rate: &impl Fn(u64) -> f64) -> Vec<SignalFrame> {
    let frame = |s: &crate::snapshot::SignalData| SignalFrame {
        signal: s.signal.clone(),
        scope: s.scope.clone(),
        count: s.hist.count(),
        per_s: rate(s.hist.count()),
        p50_ns: s.hist.quantile_ns(0.5),
        p90_ns: s.hist.quantile_ns(0.9),
        p99_ns: s.hist.quantile_ns(0.99),
        p999_ns: s.hist.quantile_ns(0.999),
        max_ns: s.max_ns,
    };
    window.signals.iter().map(frame).collect()
}

fn dns(window: &Snapshot, rate: &impl Fn(u64) -> f64) -> DnsFrame {
    let dns = &window.dns;
    let server = |s: &crate::snapshot::DnsServer| DnsServerRow {
        server: s.server.to_string(),
        transport: s.transport.clone(),
        transactions: s.transactions,
        timeouts: s.timeouts,
        p50_ns: s.hist.quantile_ns(0.5),
        p99_ns: s.hist.quantile_ns(0.99),
    };
    let name = |n: &crate::snapshot::DnsName| DnsNameRow {
        name: n.name.clone(),
        qtype: n.qtype.clone(),
        transactions: n.transactions,
        timeouts: n.timeouts,
        mean_ns: n.mean_ns,
        max_ns: n.max_ns,
    };
    DnsFrame {
        per_s: rate(dns.transactions),
        transactions: dns.transactions,
        timeouts: dns.timeouts,
        retries: dns.retries,
        truncated: dns.truncated,
        rcodes: dns.rcodes.iter().take(ROWS).map(|c| (c.name.clone(), c.count)).collect(),
        servers: dns.servers.iter().take(ROWS).map(server).collect(),
        names: dns.names.iter().take(ROWS).map(name).collect(),
    }
}

fn tcp(window: &Snapshot, rate: &impl Fn(u64) -> f64) -> TcpFrame {
    let tcp = &window.tcp;
    let share = |sent: u64| {
        let all = sent + tcp.retransmits;
        if all == 0 { 0.0 } else { tcp.retransmits as f64 / all as f64 }
    };
    let peer = |p: &crate::snapshot::TcpPeer| TcpPeerRow {
        peer: p.peer.to_string(),
        connections: p.connections,
        failures: p.failures,
        retransmits: p.retransmits,
        resets: p.resets,
        srtt_p50_ns: (!p.srtt.is_empty()).then(|| p.srtt.quantile_ns(0.5)),
    };
    TcpFrame {
        connects_per_s: rate(tcp.connects),
        accepts_per_s: rate(tcp.accepts),
        failures: tcp.connect_failures,
        retransmits: tcp.retransmits,
        retransmit_share: tcp.segments_sent.map(share),
        resets: tcp.resets_sent + tcp.resets_received,
        listen_overflows: tcp.listen_overflows,
        peers: tcp.peers.iter().take(ROWS).map(peer).collect(),
    }
}

fn drops(window: &Snapshot) -> Vec<DropRow> {
    let row = |d: &crate::snapshot::Drop| DropRow {
        reason: d.reason.clone(),
        location: d.location.clone(),
        scope: d.scope.clone(),
        count: d.count,
    };
    window.drops.iter().take(ROWS).map(row).collect()
}

fn conntrack(table: &ConntrackTable) -> ConntrackRow {
    let sum =
        |of: fn(&crate::snapshot::ConntrackCounts) -> Option<u64>| table.cpus.iter().filter_map(of).sum();
    ConntrackRow {
        netns: table.netns.clone(),
        entries: table.entries,
        max: table.max,
        drops: sum(|c| c.drop),
        insert_failed: sum(|c| c.insert_failed),
    }
}

fn slowest(window: &Snapshot) -> Vec<SlowRow> {
    let mut rows: Vec<_> = window.exemplars.iter().collect();
    rows.sort_by_key(|e| std::cmp::Reverse(e.latency_ns));
    let row = |e: &crate::snapshot::Exemplar| SlowRow {
        signal: e.signal.clone(),
        latency_ns: e.latency_ns,
        flow: e.flow.clone(),
        scope: e.scope.clone(),
    };
    rows.into_iter().take(ROWS).map(row).collect()
}

fn losses(window: &Snapshot) -> Vec<LossRow> {
    let lost = window.losses.iter().filter(|l| l.count > 0);
    let row = |l: &crate::snapshot::LossCount| LossRow {
        reason: l.reason.clone(),
        count: l.count,
        meaning: l.meaning.clone(),
    };
    lost.map(row).collect()
}

impl Cost {
    /// Of a window.
    #[must_use]
    pub fn of(window: &Snapshot) -> Self {
        let overhead = &window.overhead;
        let duration_ns = window.meta.duration_ns.max(1) as f64;
        Self {
            own_cpu_share: (overhead.user_cpu_ns + overhead.system_cpu_ns) as f64 / duration_ns,
            kernel_cpu_share: overhead.kernel_cpu_share,
            rss_bytes: overhead.max_rss_bytes,
            map_bytes: overhead.map_bytes,
        }
    }
}
