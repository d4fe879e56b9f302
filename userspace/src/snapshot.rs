//! The one data model that everything downstream reads: reports, exports, advice, comparison.
//!
//! A snapshot is versioned JSON. Latencies are nanoseconds in `u64` fields that end in `_ns`; histograms are in
//! HdrHistogram's own V2 encoding (deflated, base64), so that merging and replay lose nothing. The published schema
//! is `docs/snapshot.schema.json`, generated from these types.

mod conntrack;
mod flight;
mod hist;
mod merge;
mod read;
#[doc(hidden)]
pub mod sample;
mod tcp;

pub use conntrack::{
    ConntrackCounts, ConntrackEntered, ConntrackField, ConntrackFlow, ConntrackTable, ConntrackTrouble,
};
pub use flight::{Cause, CauseUnit, Flight, FlightWindow};
pub use hist::{Hist, HistError};
pub use merge::{OTHER, union};
pub use read::ReadError;
pub use tcp::{TcpCounter, TcpCounters, TcpLimited, TcpNamespace};

use crate::node::Node;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Version of the JSON layout. It grows when a field changes its meaning or goes; new fields alone do not change it.
pub const SCHEMA_VERSION: u32 = 1;

/// What one run saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema: u32,
    /// When, where and how it was taken.
    pub meta: Meta,
    /// Interfaces that were measured, and what was attached to them.
    pub interfaces: Vec<Interface>,
    /// Latencies by signal and interface scope, in the order of the signal table; empty ones are left out.
    pub signals: Vec<SignalData>,
    /// How many packets there were for those, and how many passed untimed.
    #[serde(default)]
    pub packets: Packets,
    /// DNS transactions.
    pub dns: Dns,
    /// TCP connections.
    pub tcp: Tcp,
    /// IP fragments and path MTU messages.
    pub ip: Ip,
    /// Connection tracking, by network namespace.
    #[serde(default)]
    pub conntrack: Vec<ConntrackTable>,
    /// New connections, and those of them that are translated; none where there were none while `ct.confirm` was measured.
    #[serde(default)]
    pub conntrack_entered: Option<ConntrackEntered>,
    /// Packets that connection tracking had trouble with.
    #[serde(default)]
    pub conntrack_trouble: ConntrackTrouble,
    /// Whose packets those were, most first.
    #[serde(default)]
    pub conntrack_flows: Vec<ConntrackFlow>,
    /// Dropped packets by reason and location, most first.
    pub drops: Vec<Drop>,
    /// Flows that lost packets to drops, most first.
    pub drop_flows: Vec<DropFlow>,
    /// The slowest packets seen, by signal, slowest first.
    pub exemplars: Vec<Exemplar>,
    /// What was lost, and where; reasons that lost nothing are listed too, with 0.
    pub losses: Vec<LossCount>,
    /// The ring buffer's books: emitted = received + lost. What a recording no longer holds was emitted all the same.
    pub ring: Ring,
    /// Every probe, whether it ran, and why not.
    pub probes: Vec<Probe>,
    /// What measuring cost.
    pub overhead: Overhead,
    /// What the node was set to at the end.
    #[serde(default)]
    pub node: Node,
}

/// When, where and how a snapshot was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Meta {
    /// nettrace's version.
    pub version: String,
    /// Start of the measurement, Unix time, ns.
    pub start_unix_ns: u64,
    /// Length of the measurement, ns.
    pub duration_ns: u64,
    /// Node name.
    pub hostname: String,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// CPUs that were online.
    pub cpus: u32,
    /// The `--filter` in force, if any.
    pub filter: Option<String>,
    /// Whether the traffic was the built-in lab's.
    pub lab: bool,
    /// What of the recording's start was rotated away; none when all of it was there, and for a live run.
    pub rotated: Option<Rotated>,
    /// Of what the flight recorder wrote: why, and how the windows around it looked. None otherwise.
    #[serde(default)]
    pub flight: Option<Flight>,
}

/// The start of a recording that rotation deleted to keep to the size limit: events in it are not in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rotated {
    /// Files.
    pub files: u32,
    /// Bytes of those files.
    pub size_bytes: u64,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interface {
    /// Its name, as in `ip link`.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// Network namespace: a name, or `host`.
    pub netns: String,
    /// Its scope, as in [`SignalData::scope`].
    pub scope: String,
    /// How packets are seen: `tcx`, `clsact`, `xdp`, or empty when attaching failed.
    pub attached: Vec<String>,
    /// Why something could not be attached.
    pub error: Option<String>,
    /// Whether it vanished before the end.
    pub gone: bool,
}

/// One signal in one scope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SignalData {
    /// Name from the signal table, e.g. `rx.stack`.
    pub signal: String,
    /// From where to where.
    pub definition: String,
    /// `all`, an interface's name, or `other` for interfaces without a scope of their own; of `nf.hook`, the hook.
    pub scope: String,
    /// The distribution, ns.
    pub hist: Hist,
    /// Exact sum, ns.
    pub sum_ns: u64,
    /// Exact maximum, ns.
    pub max_ns: u64,
}

/// Packets that began their way while measuring, and the budget of those that are timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Packets {
    /// Of up to so many packets a second each CPU timed every one, and of more about so many; 0 for no limit, and then
    /// the other fields are 0 too.
    pub budget_per_cpu_per_s: u32,
    /// Packets that began their way: sent by a local socket, or received by the first interface that is measured.
    pub begun: u64,
    /// Of these, those that passed untimed, because more came than the budget. They are missing in the signals `tx.*`,
    /// `rx.stack`, `rx.socket`, `rx.total`, `fwd.host` and `tcp.srtt`, whichever they were.
    pub untimed: u64,
}

impl Packets {
    /// Share of packets that were timed; 1 when there were none.
    #[must_use]
    pub fn timed_share(&self) -> f64 {
        if self.begun == 0 { 1.0 } else { 1.0 - self.untimed as f64 / self.begun as f64 }
    }
}

/// DNS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Dns {
    /// Transactions that began while measuring: answered + timeouts + pending.
    pub transactions: u64,
    /// Transactions that were answered.
    pub answered: u64,
    /// Transactions without an answer within the timeout.
    pub timeouts: u64,
    /// Transactions still waiting at the end, for less than the timeout.
    pub pending: u64,
    /// Queries sent again for a transaction that was waiting.
    pub retries: u64,
    /// Answers with the TC bit.
    pub truncated: u64,
    /// Transactions over TCP.
    pub tcp: u64,
    /// Transactions over IPv6.
    pub ipv6: u64,
    /// Queries with an EDNS OPT record.
    pub edns: u64,
    /// Answers by response code: `NOERROR`, `NXDOMAIN`, ..., most first.
    pub rcodes: Vec<Count>,
    /// By resolver address, most transactions first.
    pub servers: Vec<DnsServer>,
    /// By question, most transactions first.
    pub names: Vec<DnsName>,
    /// The slowest and the unanswered, slowest first, unanswered at the top.
    pub slowest: Vec<DnsTransaction>,
}

/// A label and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// What was counted.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// One DNS server as its clients address it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DnsServer {
    /// Its address.
    pub server: IpAddr,
    /// `udp` or `tcp`.
    pub transport: String,
    /// Transactions sent to it.
    pub transactions: u64,
    /// Of these, those for a name and type that the same client had asked it for in the 5 s before, so that a cache on the way
    /// would have answered; none where that is not known.
    #[serde(default)]
    pub asked_again: Option<u64>,
    /// Of these, without an answer.
    pub timeouts: u64,
    /// Of the answers, those with a code other than NOERROR and NXDOMAIN.
    pub failures: u64,
    /// Latency of the answered ones, ns.
    pub hist: Hist,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DnsName {
    /// Name, without the trailing dot; bytes outside printable ASCII are escaped as in RFC 4343.
    pub name: String,
    /// Type: `A`, `AAAA`, ..., `TYPE65280`.
    pub qtype: String,
    /// Transactions.
    pub transactions: u64,
    /// Of these, without an answer.
    pub timeouts: u64,
    /// Answers by response code, most first.
    pub rcodes: Vec<Count>,
    /// Mean latency of the answered ones, ns.
    pub mean_ns: u64,
    /// Longest latency, ns.
    pub max_ns: u64,
}

/// One DNS transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsTransaction {
    /// When the query was seen, ns since the start of the measurement.
    pub at_ns: u64,
    /// Who asked.
    pub client: IpAddr,
    /// Who was asked.
    pub server: IpAddr,
    /// `udp` or `tcp`.
    pub transport: String,
    /// Question.
    pub name: String,
    /// Type of the question.
    pub qtype: String,
    /// Response code; none when not answered.
    pub rcode: Option<String>,
    /// Latency; none when not answered.
    pub latency_ns: Option<u64>,
    /// Queries sent again.
    pub retries: u32,
}

/// TCP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tcp {
    /// Connections that local clients established.
    pub connects: u64,
    /// Connections that local clients failed to establish.
    pub connect_failures: u64,
    /// Those failures by errno: `ECONNREFUSED`, `ETIMEDOUT`, ..., `aborted` when the application gave up.
    pub failures: Vec<Count>,
    /// Connections that local servers accepted into their queues.
    pub accepts: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Of these, after a timeout: SYN, SYN-ACK and data of which no acknowledgement came in time. Also what is sent again
    /// after a message that the path's MTU is smaller.
    #[serde(default)]
    pub retransmits_timeout: u64,
    /// Of these, fast: acknowledgements of later data told of the loss. The rest probes a tail that may be lost.
    #[serde(default)]
    pub retransmits_fast: u64,
    /// Segments sent, without those sent again (TcpOutSegs); none when it could not be read, and with a filter.
    pub segments_sent: Option<u64>,
    /// RST sent.
    pub resets_sent: u64,
    /// RST received.
    pub resets_received: u64,
    /// Connections dropped because an accept queue was full (TcpExtListenOverflows); none when it could not be read.
    pub listen_overflows: Option<u64>,
    /// SYN dropped by listeners for any reason (TcpExtListenDrops); none when it could not be read.
    pub listen_drops: Option<u64>,
    /// What the kernel's own counters tell beside that.
    #[serde(default)]
    pub counters: TcpCounters,
    /// These and the full queues by network namespace; empty where they could not be read.
    #[serde(default)]
    pub namespaces: Vec<TcpNamespace>,
    /// What kept connections from sending.
    #[serde(default)]
    pub limited: TcpLimited,
    /// By remote address, most events first.
    pub peers: Vec<TcpPeer>,
}

/// What TCP saw of one remote address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TcpPeer {
    /// Remote address.
    pub peer: IpAddr,
    /// Connections to and from it that were established.
    pub connections: u64,
    /// Connections that failed.
    pub failures: u64,
    /// Of these, those that ended within 50 ms and left no error at the socket, as where no local port is left
    /// (EADDRNOTAVAIL).
    #[serde(default)]
    pub failures_at_once: u64,
    /// Segments sent again.
    pub retransmits: u64,
    /// RST, both ways.
    pub resets: u64,
    /// How long connections with it that ended were kept from sending by their send buffers, us.
    #[serde(default)]
    pub sndbuf_limited_us: u64,
    /// How long its receive windows kept connections with it that ended from sending, us.
    #[serde(default)]
    pub rwnd_limited_us: u64,
    /// Smoothed round trips: at connection events and at sampled segments, ns.
    pub srtt: Hist,
}

/// Fragments and path MTU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ip {
    /// IPv4 fragments received.
    pub fragments_in_v4: u64,
    /// IPv6 fragments received.
    pub fragments_in_v6: u64,
    /// IPv4 fragments sent.
    pub fragments_out_v4: u64,
    /// IPv6 fragments sent.
    pub fragments_out_v6: u64,
    /// Datagrams that became complete.
    pub reassembled: u64,
    /// Datagrams that were still incomplete at the end or were given up.
    pub incomplete: u64,
    /// ICMP fragmentation needed and ICMPv6 packet too big messages.
    pub packet_too_big: u64,
    /// Who sent those, with which MTU, most first.
    pub ptb: Vec<PathMtu>,
    /// Datagrams that the kernel could not cut or put together, most first.
    #[serde(default)]
    pub failures: Vec<FragmentFailure>,
    /// Receivers that long packets do not reach although nobody says so, most segments sent again first.
    #[serde(default)]
    pub black_holes: Vec<BlackHole>,
    /// Path MTUs that the kernel had learnt at the end, narrowest first; the first 100.
    #[serde(default)]
    pub learnt: Vec<LearntMtu>,
    /// How many it had learnt.
    #[serde(default)]
    pub learnt_paths: u64,
}

/// A path MTU that the kernel learnt from ICMP messages: an exception to a route, for one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LearntMtu {
    /// Network namespace.
    pub netns: String,
    /// Where the path leads.
    pub destination: IpAddr,
    /// What fits, bytes.
    pub mtu: u32,
    /// When the kernel forgets it unless it is told again, s.
    pub expires_s: u32,
}

/// Datagrams that could not be cut into fragments, or put together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FragmentFailure {
    /// `cut` or `put together`.
    pub work: String,
    /// What the kernel's function returned: `ENOMEM`, `NET_XMIT_DROP`, ...
    pub reason: String,
    /// A flow that it happened to.
    pub flow: String,
    /// Attempts.
    pub count: u64,
}

/// A path on which long TCP segments vanish: sent again and again, while shorter ones pass (RFC 2923, 2.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlackHole {
    /// Who they do not reach.
    pub peer: IpAddr,
    /// A flow that they belong to: `10.0.0.1:40000 -> 10.0.0.2:443 tcp`.
    pub flow: String,
    /// Flows.
    pub flows: u64,
    /// Length of the shortest packet that is lost, bytes, without the link header.
    pub lost_bytes: u32,
    /// Length of the longest packet that passes, bytes; none when none was seen.
    pub passes_bytes: Option<u32>,
    /// Times that such segments were sent again.
    pub again: u64,
    /// ICMP messages to the sender about packets that are too big for it, which were seen and did not help.
    pub messages: u64,
    /// Whether the peer is known to live: it was heard since, or shorter segments or new connections reached it. If not,
    /// it may have gone.
    pub alive: bool,
}

/// One path that is too narrow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PathMtu {
    /// The router that said so.
    pub router: IpAddr,
    /// Destination of the packet that did not fit.
    pub destination: IpAddr,
    /// The MTU it named, bytes.
    pub mtu: u32,
    /// Messages.
    pub count: u64,
}

/// Drop reasons of queues of interfaces. Source: include/net/dropreason-core.h; those of include/net/dropreason-qdisc.h come
/// as the first of these, see `tcf_kfree_skb_list`.
pub const QUEUE_REASONS: [&str; 8] = [
    "QDISC_DROP",
    "QDISC_OVERLIMIT",
    "QDISC_CONGESTED",
    "FQ_BAND_LIMIT",
    "FQ_HORIZON_LIMIT",
    "FQ_FLOW_LIMIT",
    "CAKE_FLOOD",
    "DUALPI2_STEP_DROP",
];

/// Drops of one reason at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drop {
    /// Kernel's reason without its prefix: `NETFILTER_DROP`, or `reason 123`.
    pub reason: String,
    /// Function that dropped, `nft_do_chain+0x3f`, or the address.
    pub location: String,
    /// Interface scope, as in [`SignalData::scope`].
    pub scope: String,
    /// Packets.
    pub count: u64,
}

/// A flow that lost packets to drops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DropFlow {
    /// `10.0.0.1:40000 -> 10.0.0.2:53 udp`.
    pub flow: String,
    /// Reason of most of them.
    pub reason: String,
    /// Packets.
    pub count: u64,
}

/// One slow packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exemplar {
    /// Name from the signal table.
    pub signal: String,
    /// When, ns since the start of the measurement.
    pub at_ns: u64,
    /// How slow.
    pub latency_ns: u64,
    /// `10.0.0.1:40000 -> 10.0.0.2:53 udp`, or `?` where the program could not tell.
    pub flow: String,
    /// Packet length, bytes.
    pub bytes: u32,
    /// Interface scope.
    pub scope: String,
}

/// One way to lose measurements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LossCount {
    /// Name from the loss table.
    pub reason: String,
    /// `kernel` or `user`.
    pub side: String,
    /// How often.
    pub count: u64,
    /// What it means.
    pub meaning: String,
}

/// The ring buffer's books.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ring {
    /// Records that kernel programs tried to send.
    pub emitted: u64,
    /// Records that user space received.
    pub received: u64,
    /// Records lost because the ring was full.
    pub lost: u64,
    /// Ring size, bytes.
    pub size_bytes: u64,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// Name, the same in all parts of the project.
    pub name: String,
    /// Source in use: `tp_btf net_dev_queue`, `tcx`, `procfs`; none when off.
    pub source: Option<String>,
    /// Signals and counts that it yields.
    pub yields: Vec<String>,
    /// Why it is off, or why a better source is not in use.
    pub reason: Option<String>,
}

/// What measuring cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Overhead {
    /// By kernel program, dearest first.
    pub programs: Vec<ProgramCost>,
    /// Share of the run during which the kernel kept run-time statistics, 0 to 1 (they cost some 70 ns a run).
    pub stats_share: f64,
    /// Kernel programs' CPU time as a share of one CPU over the run, extrapolated from `stats_share`.
    pub kernel_cpu_share: f64,
    /// nettrace's own CPU time in user space, ns.
    pub user_cpu_ns: u64,
    /// nettrace's own CPU time in system calls, ns.
    pub system_cpu_ns: u64,
    /// Largest resident set, bytes.
    pub max_rss_bytes: u64,
    /// Memory of the kernel maps, bytes.
    pub map_bytes: u64,
}

/// What one kernel program cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProgramCost {
    /// Program name.
    pub program: String,
    /// Runs while statistics were kept.
    pub runs: u64,
    /// Mean time of a run, ns, the statistics' own share included.
    pub ns_per_run: f64,
}

impl Probe {
    /// The reason of one that `--signals` leaves out.
    pub const NOT_SELECTED: &str = "not selected";
}

impl Snapshot {
    /// The distribution of a signal over all interfaces.
    #[must_use]
    pub fn signal(&self, signal: nettrace_common::Signal) -> Option<&SignalData> {
        self.signals.iter().find(|s| s.signal == signal.name() && s.scope == "all")
    }
}
