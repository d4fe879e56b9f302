//! The one table of metrics: names, units, labels and what each counts.

use nettrace_common::Signal;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
    /// Labels that tell something; its value is 1.
    Info,
}

/// What it is measured in: base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of something.
    None,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A share, 0 to 1.
    Ratio,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, without unit and suffix.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// The first so many labels have values from outside. Where there are too many of those, the rest has the value `other`.
    pub open: u8,
    /// Series that it has beside those with such values, at the most.
    pub rows: u16,
    /// What it tells.
    pub help: &'static str,
}

impl Unit {
    /// As names end.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Ratio => "ratio",
        }
    }
}

impl Kind {
    /// As exposition formats write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Info => "_info",
            Self::Gauge | Self::Histogram => "",
        }
    }
}

impl Metric {
    /// Its name with its unit, as a family's in OpenMetrics: `nettrace_dns_latency_seconds`.
    #[must_use]
    pub fn family(&self) -> String {
        let unit = self.unit.name();
        if unit.is_empty() { self.name.to_owned() } else { format!("{}_{unit}", self.name) }
    }

    /// Its whole name, as queries have it: `nettrace_dns_retries_total`.
    #[must_use]
    pub fn full_name(&self) -> String {
        self.family() + self.kind.suffix()
    }
}

/// Lines: name in code, kind, unit, name, labels, how many of these are open, series beside those, what it tells.
macro_rules! metrics {
    ($($id:ident $kind:ident $unit:ident $name:literal [$($label:literal)*] $open:literal $rows:literal $help:expr;)*) => {
        /// A metric of [`METRICS`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) enum Id { $($id),* }

        /// All metrics.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            open: $open,
            rows: $rows,
            help: $help,
        }),*];
    };
}

impl Id {
    pub(super) const fn metric(self) -> &'static Metric {
        &METRICS[self as usize]
    }

    /// The histogram of a signal.
    pub(super) const fn of_signal(signal: Signal) -> Self {
        match signal {
            Signal::RxStack => Self::RxStack,
            Signal::RxSocket => Self::RxSocket,
            Signal::RxTotal => Self::RxTotal,
            Signal::RxSoftirq => Self::RxSoftirq,
            Signal::TxStack => Self::TxStack,
            Signal::TxQdisc => Self::TxQdisc,
            Signal::TxDriver => Self::TxDriver,
            Signal::FwdHost => Self::FwdHost,
            Signal::NetRtt => Self::NetRtt,
            Signal::TcpSrtt => Self::TcpSrtt,
            Signal::IpReassembly => Self::IpReassembly,
            Signal::NfHook => Self::NfHook,
            Signal::CtIn => Self::CtIn,
            Signal::CtConfirm => Self::CtConfirm,
            Signal::TcpConnect => Self::TcpConnect,
            Signal::TcpAccept => Self::TcpAccept,
            Signal::DnsLatency => Self::DnsLatency,
            Signal::IpFragmenting => Self::IpFragmenting,
            Signal::IpDefragmenting => Self::IpDefragmenting,
        }
    }
}

metrics! {
    RxStack Histogram Seconds "nettrace_rx_stack" ["interface"] 1 1 Signal::RxStack.definition();
    RxSocket Histogram Seconds "nettrace_rx_socket" ["interface"] 1 1 Signal::RxSocket.definition();
    RxTotal Histogram Seconds "nettrace_rx_total" ["interface"] 1 1 Signal::RxTotal.definition();
    RxSoftirq Histogram Seconds "nettrace_rx_softirq" [] 0 1 Signal::RxSoftirq.definition();
    TxStack Histogram Seconds "nettrace_tx_stack" ["interface"] 1 1 Signal::TxStack.definition();
    TxQdisc Histogram Seconds "nettrace_tx_qdisc" ["interface"] 1 1 Signal::TxQdisc.definition();
    TxDriver Histogram Seconds "nettrace_tx_driver" ["interface"] 1 1 Signal::TxDriver.definition();
    FwdHost Histogram Seconds "nettrace_fwd_host" ["interface"] 1 1 Signal::FwdHost.definition();
    NetRtt Histogram Seconds "nettrace_net_rtt" ["interface"] 1 1 Signal::NetRtt.definition();
    TcpSrtt Histogram Seconds "nettrace_tcp_srtt" ["interface"] 1 1 Signal::TcpSrtt.definition();
    IpReassembly Histogram Seconds "nettrace_ip_reassembly" ["interface"] 1 1 Signal::IpReassembly.definition();
    NfHook Histogram Seconds "nettrace_nf_hook" ["hook"] 1 1 Signal::NfHook.definition();
    CtIn Histogram Seconds "nettrace_ct_in" [] 0 1 Signal::CtIn.definition();
    CtConfirm Histogram Seconds "nettrace_ct_confirm" [] 0 1 Signal::CtConfirm.definition();
    TcpConnect Histogram Seconds "nettrace_tcp_connect" [] 0 1 Signal::TcpConnect.definition();
    TcpAccept Histogram Seconds "nettrace_tcp_accept" [] 0 1 Signal::TcpAccept.definition();
    DnsLatency Histogram Seconds "nettrace_dns_latency" ["resolver" "transport"] 1 2 Signal::DnsLatency.definition();
    IpFragmenting Histogram Seconds "nettrace_ip_fragmenting" [] 0 1 Signal::IpFragmenting.definition();
    IpDefragmenting Histogram Seconds "nettrace_ip_defragmenting" [] 0 1 Signal::IpDefragmenting.definition();

    Packets Counter None "nettrace_packets" ["timed"] 0 2 "packets that began their way, by whether they were timed";

    DnsTransactions Counter None "nettrace_dns_transactions" ["resolver" "transport"] 1 2 "DNS transactions that began";
    DnsTimeouts Counter None "nettrace_dns_timeouts" ["resolver" "transport"] 1 2 "DNS transactions without an answer within the timeout";
    DnsFailures Counter None "nettrace_dns_failures" ["resolver" "transport"] 1 2 "DNS answers with a code other than NOERROR and NXDOMAIN";
    DnsAskedAgain Counter None "nettrace_dns_asked_again" ["resolver" "transport"] 1 2 "DNS transactions for what the same client had asked in the 5 s before: a cache would have answered";
    DnsAnswers Counter None "nettrace_dns_answers" ["rcode"] 1 1 "DNS answers by response code";
    DnsRetries Counter None "nettrace_dns_retries" [] 0 1 "DNS queries sent again for a transaction that was waiting";
    DnsTruncated Counter None "nettrace_dns_truncated" [] 0 1 "DNS answers with the TC bit";
    DnsEdns Counter None "nettrace_dns_edns" [] 0 1 "DNS queries with an EDNS OPT record";
    DnsPending Gauge None "nettrace_dns_pending" [] 0 1 "DNS transactions that waited for their answer at the end of the last window";

    TcpConnects Counter None "nettrace_tcp_connects" [] 0 1 "TCP connections that local clients established";
    TcpConnectFailures Counter None "nettrace_tcp_connect_failures" ["errno"] 1 1 "TCP connections that local clients failed to establish";
    TcpAccepts Counter None "nettrace_tcp_accepts" [] 0 1 "TCP connections that local servers accepted into their queues";
    TcpRetransmits Counter None "nettrace_tcp_retransmits" ["cause"] 0 3 "TCP segments sent again, by what told of the loss: timeout, fast (acknowledgements of later data), other (probes of a tail)";
    TcpSegmentsSent Counter None "nettrace_tcp_segments_sent" [] 0 1 "TCP segments sent, without those sent again (TcpOutSegs)";
    TcpResets Counter None "nettrace_tcp_resets" ["direction"] 0 2 "TCP RST sent and received";
    TcpListenOverflows Counter None "nettrace_tcp_listen_overflows" [] 0 1 "TCP connections dropped because an accept queue was full (TcpExtListenOverflows)";
    TcpListenDrops Counter None "nettrace_tcp_listen_drops" [] 0 1 "SYN dropped by listeners for any reason (TcpExtListenDrops)";
    TcpKernel Counter None "nettrace_tcp_kernel_events" ["counter"] 0 15 "what the kernel's own counters tell of TCP, by their names for nstat without TcpExt";
    TcpClosed Counter None "nettrace_tcp_closed" [] 0 1 "TCP connections that ended";
    TcpBusy Counter Seconds "nettrace_tcp_busy" [] 0 1 "how long TCP connections that ended had data to send or to be acknowledged";
    TcpLimited Counter Seconds "nettrace_tcp_limited" ["by"] 0 2 "of that, how long a send buffer (sndbuf) or the receiver's window (rwnd) kept them from sending";

    Fragments Counter None "nettrace_ip_fragments" ["direction" "family"] 0 4 "IP fragments";
    Reassembled Counter None "nettrace_ip_reassembled" [] 0 1 "datagrams whose last missing fragment came";
    Incomplete Gauge None "nettrace_ip_incomplete" [] 0 1 "datagrams of which fragments were missing at the end of the last window";
    PacketTooBig Counter None "nettrace_ip_packet_too_big" [] 0 1 "ICMP fragmentation needed and ICMPv6 packet too big messages";
    FragmentFailures Counter None "nettrace_ip_fragment_failures" ["reason" "work"] 1 2 "datagrams that could not be cut (cut) or put together (join)";
    BlackHoles Gauge None "nettrace_ip_black_holes" [] 0 1 "receivers that long packets did not reach in the last window although nobody said so";
    BlackHoleRetransmits Counter None "nettrace_ip_black_hole_retransmits" [] 0 1 "segments sent again into such paths";
    LearntPaths Gauge None "nettrace_ip_learnt_mtu_paths" [] 0 1 "path MTUs that the kernel has learnt";

    ConntrackEntries Gauge None "nettrace_conntrack_entries" ["netns"] 1 1 "connections in the table";
    ConntrackMax Gauge None "nettrace_conntrack_max_entries" ["netns"] 1 1 "connections that the table takes (nf_conntrack_max)";
    ConntrackEvents Counter None "nettrace_conntrack_events" ["netns" "event"] 1 8 "what connection tracking counted, by its names for conntrack -S";
    ConntrackTrouble Counter None "nettrace_conntrack_trouble" ["what"] 0 3 "packets that connection tracking had trouble with, seen one by one: clash_resolved (let through), clash_dropped, table_full (dropped)";
    ConntrackEntered Counter None "nettrace_conntrack_entered" ["nat"] 0 3 "new connections while they were looked at, a tenth of the time: all, and those whose source or destination is translated";

    Drops Counter None "nettrace_drops" ["reason" "interface"] 2 1 "packets that the kernel dropped, by its reason";

    Losses Counter None "nettrace_measurements_lost" ["side" "reason"] 0 12 "measurements that were lost, see docs/signals.md";
    RingRecords Counter None "nettrace_ring_records" ["result"] 0 2 "records of the event lane: received, and lost because the ring was full";
    RingSize Gauge Bytes "nettrace_ring_size" [] 0 1 "size of the ring buffer";

    BuildInfo Info None "nettrace_build" ["version"] 0 1 "nettrace's version";
    KernelInfo Info None "nettrace_kernel" ["release" "arch"] 0 1 "the kernel that it runs on";
    NodeInfo Info None "nettrace_node" ["node" "filter"] 0 1 "the node's name, and the filter in force, if any";
    ProbeInfo Info None "nettrace_probe" ["probe" "source" "reason"] 0 40 "each probe, the source in use (empty when it is off), and why it is off or not a better one";
    Probes Gauge None "nettrace_probes" ["state"] 0 2 "probes that are on, and off";
    Interfaces Gauge None "nettrace_interfaces" ["state"] 0 3 "interfaces that are measured, that could not be, and that are gone";

    Cpu Counter Seconds "nettrace_cpu" ["mode"] 0 3 "CPU time that measuring cost: user and system of the process, and its kernel_programs (extrapolated)";
    ResidentMemory Gauge Bytes "nettrace_resident_memory_max" [] 0 1 "largest resident set of the process";
    MapMemory Gauge Bytes "nettrace_map_memory" [] 0 1 "memory of the kernel maps";

    Observed Counter Seconds "nettrace_observed" [] 0 1 "time that was measured";
    StartTime Gauge Seconds "nettrace_start_time" [] 0 1 "when the agent started, Unix time";
    Ready Gauge None "nettrace_ready" [] 0 1 "1 when windows are closed as they should be";
    WindowLength Gauge Seconds "nettrace_window_length" [] 0 1 "length of a window";
    Windows Counter None "nettrace_windows" ["result"] 0 2 "windows: closed, and failed";
    Reloads Counter None "nettrace_config_reloads" [] 0 1 "times that the configuration was read anew";
    ConfigValid Gauge None "nettrace_config_valid" [] 0 1 "1 when the configuration that was read last is in force";
    BudgetStep Gauge None "nettrace_budget_step" [] 0 1 "steps by which the agent has backed off to stay within its budget";
    BudgetChanges Counter None "nettrace_budget_changes" [] 0 1 "changes of that step";
    BudgetCpuLimit Gauge Ratio "nettrace_budget_cpu_limit" [] 0 1 "CPU time that the agent may take, of one CPU";
    BudgetCpuUsed Gauge Ratio "nettrace_budget_cpu_used" [] 0 1 "CPU time that it takes, kernel programs included, of one CPU";
    BudgetMemoryLimit Gauge Bytes "nettrace_budget_memory_limit" [] 0 1 "memory that the agent may take";
    BudgetMemoryUsed Gauge Bytes "nettrace_budget_memory_used" [] 0 1 "memory that it takes, kernel maps included";
    HistorySnapshots Counter None "nettrace_history_snapshots" ["result"] 0 3 "snapshots for the history on disk: written, failed, and dropped for size or age";
    HistorySize Gauge Bytes "nettrace_history_size" [] 0 1 "size of the history on disk";
    HistoryDamaged Gauge None "nettrace_history_damaged" [] 0 1 "places of the history on disk that cannot be read";
    ClockSteps Counter None "nettrace_clock_steps" [] 0 1 "times that the node's clock was seen to be set";
    FlightFiles Counter None "nettrace_flight_files" ["result"] 0 2 "files of the flight recorder: written, and suppressed because they came too soon";
    FlightHeld Gauge Bytes "nettrace_flight_held" [] 0 1 "events that the flight recorder holds";
    FlightLetGo Counter None "nettrace_flight_let_go" [] 0 1 "batches of events that the flight recorder let go before their time, because there was no room";
    HttpConnections Counter None "nettrace_http_connections" [] 0 1 "connections to the agent's web server";
    HttpRequests Counter None "nettrace_http_requests" [] 0 1 "requests to it, refused ones included";
    HttpRefused Counter None "nettrace_http_refused" ["reason"] 0 20 "connections and requests that it refused";
    OtlpExports Counter None "nettrace_otlp_exports" ["result"] 0 3 "exports by OTLP: sent, failed for good, and dropped because the queue was full";

    Findings Gauge None "nettrace_finding" ["rule" "verdict"] 0 80 "1 for what is said of each rule now, see docs/rules.md";
    Changes Gauge None "nettrace_change" ["change" "name"] 2 1 "settings that nettrace changed on this node: 1 in force, 0 undone";
    ChangeTime Gauge Seconds "nettrace_change_time" ["change" "name"] 2 1 "when it was changed, Unix time";

    Series Gauge None "nettrace_series" [] 0 1 "series that are exported";
    SeriesOverflow Counter None "nettrace_series_overflow" [] 0 1 "times that something was counted in a series for others because there are too many";
    SeriesEvicted Counter None "nettrace_series_evicted" [] 0 1 "series that were idle for an hour and made room";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_keep_to_the_conventions() {
        let names: BTreeSet<_> = METRICS.iter().map(Metric::full_name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            let name = metric.name;
            let family = metric.family();
            assert!(family.starts_with("nettrace_"), "{name}");
            assert!(
                !family.ends_with("_total") && !family.ends_with("_info"),
                "suffixes are the kind's: {name}"
            );
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(!metric.help.is_empty() && usize::from(metric.open) <= metric.labels.len(), "{name}");
            assert!(metric.kind != Kind::Info || metric.unit == Unit::None, "{name}");
        }
    }

    #[test]
    fn signals_have_the_name_that_they_have_everywhere() {
        for signal in Signal::ALL {
            let metric = Id::of_signal(signal).metric();
            let name = format!("nettrace_{}", signal.name().replace('.', "_"));
            assert_eq!(metric.name, name);
            assert_eq!(
                (metric.kind, metric.unit, metric.help),
                (Kind::Histogram, Unit::Seconds, signal.definition())
            );
        }
    }
}
