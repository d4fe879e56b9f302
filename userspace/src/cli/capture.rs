//! What `run` and `record` have in common: what is measured, and how.

use super::{Topology, value};
use crate::probes::Forced;
use clap::{Args, value_parser};
use glob::Pattern;
use nettrace_common::{Signal, probes::dns};
use std::time::Duration;

/// A threshold as typed: for one signal, or for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// The signal; none for all.
    pub signal: Option<Signal>,
    /// From here on a packet is kept; none for `off`.
    pub threshold: Option<Duration>,
}

/// What is measured, and how.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Capture")]
pub struct CaptureArgs {
    /// How long, e.g. 500ms, 30s or 2m; 0 for until Ctrl-C
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = value::duration)]
    pub duration: Duration,
    /// Measure these interfaces, e.g. 'eth*'; may be given again [default: all but bridges, bonds, VLANs and tunnels]
    #[arg(short, long, value_name = "GLOB", value_parser = value::glob)]
    pub iface: Vec<Pattern>,
    /// But not these; may be given again
    #[arg(long, value_name = "GLOB", value_parser = value::glob)]
    pub exclude: Vec<Pattern>,
    /// Measure this network namespace instead: a name as in `ip netns`, a path, or the number of a process in it; may
    /// be given again
    #[arg(long, value_name = "NAME|PATH|PID")]
    pub netns: Vec<String>,
    /// Measure only these: names or groups from the report, e.g. 'rx,dns.latency' [default: everything]
    #[arg(long, value_name = "SIGNAL,..", value_delimiter = ',', value_parser = value::signal_group)]
    pub signals: Vec<String>,
    /// Measure a signal or group from this source, e.g. 'rx=fentry', instead of the best that the kernel offers
    #[arg(long, value_name = "SIGNAL=SOURCE", value_parser = value::source)]
    pub source: Vec<Forced>,
    /// Measure only packets that match, e.g. 'udp and port 53 and net 10.0.0.0/8'
    ///
    /// Terms are joined by `and`, each kind once: `host A[,B..]`, `net CIDR[,..]`, `port N[,..]`, and one of `tcp`,
    /// `udp`, `icmp`, `proto NAME|NUMBER`. Host, net and port match either end; a list has at most 4 values.
    #[arg(long, value_name = "EXPR")]
    pub filter: Option<String>,
    /// Measure made-up traffic in namespaces of its own
    #[arg(long)]
    pub lab: bool,
    /// How the lab's pods are joined [default: bridge]
    #[arg(long, value_enum, requires = "lab")]
    pub topology: Option<Topology>,
    /// Keep every packet slower than this, e.g. 1ms, rx.total=500us or off [default: 1ms]
    ///
    /// A bare time holds for all signals, SIGNAL=TIME for one; both can be given.
    #[arg(long, value_name = "[SIGNAL=]TIME", value_parser = value::exemplar)]
    pub exemplar: Vec<Exemplar>,
    /// Keep one latency in N, whatever it is; 0 for none, which in `record` means every one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub sample: u32,
    /// Time every packet of up to N a second on each CPU, and of more about N, chosen evenly; 0 for every packet, which is
    /// the default of `record` [default: 25000]
    #[arg(long, value_name = "N")]
    pub packet_budget: Option<u32>,
    /// Size of the ring buffer, a power of two
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = value::size)]
    pub ring_size: u64,
    /// Take this port for DNS, at most 4 of them
    #[arg(long, value_name = "PORT", default_value = "53", value_parser = value_parser!(u16).range(1..))]
    pub dns_port: Vec<u16>,
    /// Give a DNS query up after this time
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = value::duration)]
    pub dns_timeout: Duration,
    /// Also attach XDP programs, where the driver runs them itself
    #[arg(long)]
    pub xdp: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
}

// The help text of `--dns-port` and `--filter` names these limits.
const _: () = assert!(dns::MAX_PORTS == 4);
const _: () = assert!(nettrace_common::filter::MAX_NETS == 4 && nettrace_common::filter::MAX_PORTS == 4);
