//! The one table of what is measured and from where.
//!
//! Each entry names a signal or count and its sources, best first; the loader takes the first one that this kernel
//! offers and that loads. A source is a set of kernel programs with their hooks; programs are shared by entries and
//! attached once. A new source touches this table and its own files.

pub mod dns;

use crate::preflight::Release;
use nettrace_common::{Signal, config::wire};
use std::fmt;

/// What a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A BTF-typed raw tracepoint.
    TpBtf(&'static str),
    /// The same tracepoint, of whose arguments the kernel knows no types.
    RawTp(&'static str),
    /// The entry of a kernel function.
    FEntry(&'static str),
    /// The return of a kernel function.
    FExit(&'static str),
    /// The entry of a kernel function, also of a module's.
    KProbe(&'static str),
    /// The return of a kernel function, also of a module's.
    KRetProbe(&'static str),
    /// TC at each selected interface, packets received.
    TcIngress,
    /// TC at each selected interface, packets sent.
    TcEgress,
    /// XDP at each selected interface.
    Xdp,
}

impl Hook {
    /// As reports name its kind.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::TpBtf(_) => "tp_btf",
            Self::RawTp(_) => "raw_tp",
            Self::FEntry(_) => "fentry",
            Self::FExit(_) => "fexit",
            Self::KProbe(_) => "kprobe",
            Self::KRetProbe(_) => "kretprobe",
            Self::TcIngress | Self::TcEgress => "tc",
            Self::Xdp => "xdp",
        }
    }

    /// The tracepoint or function, of a hook that is one of the kernel's and not an interface's.
    #[must_use]
    pub const fn place(self) -> Option<&'static str> {
        match self {
            Self::TpBtf(name)
            | Self::RawTp(name)
            | Self::FEntry(name)
            | Self::FExit(name)
            | Self::KProbe(name)
            | Self::KRetProbe(name) => Some(name),
            Self::TcIngress | Self::TcEgress | Self::Xdp => None,
        }
    }

    /// The module that a function is in, where it is not built in.
    #[must_use]
    pub fn module(self) -> Option<&'static str> {
        let of_conntrack = |place: &&str| {
            place.contains("nf_conntrack") || ["nf_ct_resolve_clash", "early_drop"].contains(place)
        };
        self.place().filter(of_conntrack).map(|_| "nf_conntrack")
    }

    /// The kernel that brought it, where that is not the oldest supported one.
    #[must_use]
    pub fn since(self) -> Option<Release> {
        match self {
            // Kernel commits 40e0b0908142 and 6e6eda44b939.
            Self::TpBtf("sk_data_ready" | "sock_recv_length") => Some(Release { major: 6, minor: 3 }),
            _ => None,
        }
    }
}

/// How long a program stays at its hook. Each call of a hook costs, also of a program that has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// As long as the capture.
    Always,
    /// A share of the time, see `capture::duty`: the hook runs often, and what it measures is alike from packet to packet
    /// or belongs to none.
    Share(Side),
    /// From when a device with a queue is seen, see [`crate::attach::need`].
    WithQueues,
}

/// What a program sees of something that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Its begin.
    Begin,
    /// Its end.
    End,
}

/// A kernel program and its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Name in the object.
    pub name: &'static str,
    /// Where it goes.
    pub hook: Hook,
    /// How long it stays there.
    pub stay: Stay,
}

/// One way to measure something.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// By kernel programs, all of which are needed; the rung of the ladder is named by the kind of hook that makes the
    /// difference.
    Programs(&'static str, &'static [Program]),
    /// By asking the kernel for its own counters before and after.
    Netlink(&'static str),
    /// By reading the kernel's own counters before and after.
    Procfs(&'static str),
}

impl Source {
    /// Its programs; none where the kernel is asked.
    #[must_use]
    pub const fn programs(&self) -> &'static [Program] {
        match self {
            Self::Programs(_, programs) => programs,
            Self::Netlink(_) | Self::Procfs(_) => &[],
        }
    }

    /// Whether it needs a program.
    #[must_use]
    pub fn has(&self, program: &str) -> bool {
        self.programs().iter().any(|p| p.name == program)
    }

    /// The rung of the ladder, as `--source` names it.
    #[must_use]
    pub const fn rung(&self) -> &'static str {
        match self {
            Self::Programs(rung, _) => rung,
            Self::Netlink(_) => "netlink",
            Self::Procfs(_) => "procfs",
        }
    }
}

/// As reports name it: `tp_btf netif_receive_skb, fentry sock_def_readable`, `tc`, `procfs /proc/PID/net/netstat`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let programs = match self {
            Self::Netlink(what) => return write!(f, "netlink {what}"),
            Self::Procfs(path) => return write!(f, "procfs {path}"),
            Self::Programs(_, programs) => programs,
        };
        let mut last = None;
        for hook in programs.iter().map(|p| p.hook) {
            match last {
                Some(kind) if kind == hook.kind() => {}
                Some(_) => write!(f, ", {}", hook.kind())?,
                None => f.write_str(hook.kind())?,
            }
            last = Some(hook.kind());
            if let Some(place) = hook.place() {
                write!(f, " {place}")?;
            }
        }
        Ok(())
    }
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Signal or count, as in reports.
    pub name: &'static str,
    /// Best first.
    pub sources: &'static [Source],
    /// What cannot be had from the sources in the table, shown beside the probe.
    pub note: Option<&'static str>,
}

const fn tp(name: &'static str, hook: &'static str) -> Program {
    Program { name, hook: Hook::TpBtf(hook), stay: Stay::Always }
}

const fn at(name: &'static str, hook: Hook) -> Program {
    Program { name, hook, stay: Stay::Always }
}

const fn raw(name: &'static str, hook: &'static str) -> Program {
    at(name, Hook::RawTp(hook))
}

const fn begin(name: &'static str, hook: Hook) -> Program {
    at(name, hook).staying(Stay::Share(Side::Begin))
}

const fn end(name: &'static str, hook: Hook) -> Program {
    at(name, hook).staying(Stay::Share(Side::End))
}

impl Program {
    const fn staying(self, stay: Stay) -> Self {
        Self { stay, ..self }
    }
}

const RECEIVE: Program = tp("rx_receive", "netif_receive_skb");
const QUEUED: Program = tp("rx_queued", "sk_data_ready");
const COPIED: Program = tp("rx_copied", "skb_copy_datagram_iovec");
const READ: Program = tp("rx_read", "sock_recv_length");
const QUEUED_FENTRY: Program = at("rx_queued_fentry", Hook::FEntry("sock_def_readable"));
const READ_INET: Program = at("rx_read_inet", Hook::FExit("inet_recvmsg"));
const READ_INET6: Program = at("rx_read_inet6", Hook::FExit("inet6_recvmsg"));
const SOFTIRQ: &[Program] = &[
    begin("softirq_raise", Hook::TpBtf("softirq_raise")),
    end("softirq_entry", Hook::TpBtf("softirq_entry")),
];
const SOFTIRQ_RAW: &[Program] = &[
    begin("softirq_raise_raw", Hook::RawTp("softirq_raise")),
    end("softirq_entry_raw", Hook::RawTp("softirq_entry")),
];
const QUEUE: Program = tp("tx_queue", "net_dev_queue");
const XMIT: Program = tp("tx_xmit", "net_dev_start_xmit").staying(Stay::WithQueues);
const CONSUMED: Program = tp("tx_consumed", "consume_skb");
const RETRANSMIT: &[Program] =
    &[tp("tcp_retransmit", "tcp_retransmit_skb"), tp("tcp_retransmit_synack", "tcp_retransmit_synack")];
const RETRANSMIT_RAW: &[Program] = &[
    raw("tcp_retransmit_raw", "tcp_retransmit_skb"),
    raw("tcp_retransmit_synack_raw", "tcp_retransmit_synack"),
];
const RESET: &[Program] = &[tp("tcp_reset_in", "tcp_receive_reset"), tp("tcp_reset_out", "tcp_send_reset")];
const RESET_RAW: &[Program] =
    &[raw("tcp_reset_in_raw", "tcp_receive_reset"), raw("tcp_reset_out_raw", "tcp_send_reset")];
const HOOK: &[Program] =
    &[begin("nf_hook_begin", Hook::FEntry("nf_hook_slow")), end("nf_hook_end", Hook::FExit("nf_hook_slow"))];
const HOOK_KPROBE: &[Program] = &[
    begin("nf_hook_begin_kprobe", Hook::KProbe("nf_hook_slow")),
    end("nf_hook_end_kprobe", Hook::KRetProbe("nf_hook_slow")),
];
const CT_IN: &[Program] = &[
    begin("ct_in_begin", Hook::FEntry("nf_conntrack_in")),
    end("ct_in_end", Hook::FExit("nf_conntrack_in")),
];
const CT_IN_KPROBE: &[Program] = &[
    begin("ct_in_begin_kprobe", Hook::KProbe("nf_conntrack_in")),
    end("ct_in_end_kprobe", Hook::KRetProbe("nf_conntrack_in")),
];
const CT_CONFIRM: &[Program] = &[
    begin("ct_confirm_begin", Hook::FEntry("__nf_conntrack_confirm")),
    end("ct_confirm_end", Hook::FExit("__nf_conntrack_confirm")),
];
const CT_CONFIRM_KPROBE: &[Program] = &[
    begin("ct_confirm_begin_kprobe", Hook::KProbe("__nf_conntrack_confirm")),
    end("ct_confirm_end_kprobe", Hook::KRetProbe("__nf_conntrack_confirm")),
];
const CLASH: &[Program] = &[
    at("ct_clash_begin", Hook::KProbe("nf_ct_resolve_clash")),
    at("ct_clash_end", Hook::KRetProbe("nf_ct_resolve_clash")),
];
const LOOKED_FOR_ROOM: Program = at("ct_full_end", Hook::KRetProbe("early_drop"));
const FULL: &[Program] = &[LOOKED_FOR_ROOM, tp("ct_full_dropped", "kfree_skb")];
const FULL_RAW: &[Program] = &[LOOKED_FOR_ROOM, raw("ct_full_dropped_raw", "kfree_skb")];

const CUT: &[Program] = &[
    at("cut_begin", Hook::FEntry("ip_do_fragment")),
    at("cut6_begin", Hook::FEntry("ip6_fragment")),
    at("cut_end", Hook::FExit("ip_do_fragment")),
    at("cut6_end", Hook::FExit("ip6_fragment")),
];
const CUT_KPROBE: &[Program] = &[
    at("cut_begin_kprobe", Hook::KProbe("ip_do_fragment")),
    at("cut6_begin_kprobe", Hook::KProbe("ip6_fragment")),
    at("cut_end_kprobe", Hook::KRetProbe("ip_do_fragment")),
    at("cut6_end_kprobe", Hook::KRetProbe("ip6_fragment")),
];
const JOIN: &[Program] = &[
    at("join_begin", Hook::FEntry("ip_defrag")),
    at("join6_begin", Hook::FEntry("ipv6_frag_rcv")),
    at("join_end", Hook::FExit("ip_defrag")),
    at("join6_end", Hook::FExit("ipv6_frag_rcv")),
];
const JOIN_KPROBE: &[Program] = &[
    at("join_begin_kprobe", Hook::KProbe("ip_defrag")),
    at("join6_begin_kprobe", Hook::KProbe("ipv6_frag_rcv")),
    at("join_end_kprobe", Hook::KRetProbe("ip_defrag")),
    at("join6_end_kprobe", Hook::KRetProbe("ipv6_frag_rcv")),
];

/// The TC programs, at each selected interface.
pub const WIRE_TC: &[Program] = &[at("wire_in", Hook::TcIngress), at("wire_out", Hook::TcEgress)];
/// XDP for packets received, where it was asked for; TC for packets sent.
pub const WIRE_XDP: &[Program] = &[at("wire_xdp", Hook::Xdp), at("wire_out", Hook::TcEgress)];

/// The probe of TCP's own counters.
pub const TCP_COUNTERS: &str = "tcp.counters";

/// The probe of packets that raced to enter the same connection.
pub const CLASHES: &str = "ct.clash";

/// The probe of packets for whose connections there was no room.
pub const FULL_TABLES: &str = "ct.full";

/// The probe of what connection tracking counts.
pub const CONNTRACK: &str = "ct.counters";

/// The probe of path MTUs that the kernel learnt.
pub const PATH_MTU: &str = "ip.path_mtu";

const NETSTAT: &[Source] = &[Source::Procfs("/proc/PID/net/netstat")];
const WIRE: &[Source] = &[Source::Programs("tc", WIRE_TC)];

/// Connections as they are opened and end, by the states of their sockets.
const STATES: &[Source] = &[
    Source::Programs("tp_btf", &[tp("tcp_state", "inet_sock_set_state")]),
    Source::Programs("raw_tp", &[raw("tcp_state_raw", "inet_sock_set_state")]),
];

/// To the application: by tracepoints, which came with 6.3, or by the functions that they are in.
const DELIVERY: &[Source] = &[
    Source::Programs("tp_btf", &[RECEIVE, QUEUED, COPIED, READ]),
    Source::Programs("fentry", &[RECEIVE, COPIED, QUEUED_FENTRY, READ_INET, READ_INET6]),
];

/// Everything that is measured, in the order of reports.
pub const PROBES: &[Probe] = &[
    probe(
        Signal::RxSoftirq.name(),
        &[Source::Programs("tp_btf", SOFTIRQ), Source::Programs("raw_tp", SOFTIRQ_RAW)],
    ),
    probe(
        Signal::RxStack.name(),
        &[
            Source::Programs("tp_btf", &[RECEIVE, QUEUED]),
            Source::Programs("fentry", &[RECEIVE, QUEUED_FENTRY]),
        ],
    ),
    probe(Signal::RxSocket.name(), DELIVERY),
    probe(Signal::RxTotal.name(), DELIVERY),
    Probe {
        name: Signal::TxStack.name(),
        sources: &[Source::Programs("tp_btf", &[QUEUE])],
        note: Some("TCP only: no tracepoint tells when a datagram's send began"),
    },
    Probe {
        name: Signal::TxQdisc.name(),
        sources: &[Source::Programs("tp_btf", &[QUEUE, XMIT])],
        note: Some("devices with a queue only: the others hand a packet to their driver at once"),
    },
    probe(Signal::TxDriver.name(), &[Source::Programs("tp_btf", &[QUEUE, XMIT, RECEIVE, CONSUMED])]),
    probe(Signal::FwdHost.name(), &[Source::Programs("tp_btf", &[RECEIVE, QUEUE, XMIT])]),
    probe(Signal::NetRtt.name(), WIRE),
    probe(Signal::TcpSrtt.name(), &[Source::Programs("tp_btf", &[QUEUE])]),
    probe(Signal::TcpConnect.name(), STATES),
    probe(Signal::TcpAccept.name(), STATES),
    probe("tcp.limited", STATES),
    probe(
        "tcp.retransmit",
        &[Source::Programs("tp_btf", RETRANSMIT), Source::Programs("raw_tp", RETRANSMIT_RAW)],
    ),
    probe("tcp.reset", &[Source::Programs("tp_btf", RESET), Source::Programs("raw_tp", RESET_RAW)]),
    probe("tcp.listen_overflow", NETSTAT),
    probe(TCP_COUNTERS, NETSTAT),
    probe(Signal::DnsLatency.name(), WIRE),
    probe("ip.fragment", WIRE),
    probe(Signal::IpReassembly.name(), WIRE),
    probe(
        Signal::IpFragmenting.name(),
        &[Source::Programs("fentry", CUT), Source::Programs("kprobe", CUT_KPROBE)],
    ),
    probe(
        Signal::IpDefragmenting.name(),
        &[Source::Programs("fentry", JOIN), Source::Programs("kprobe", JOIN_KPROBE)],
    ),
    probe("ip.packet_too_big", WIRE),
    probe(PATH_MTU, &[Source::Netlink("RTM_GETROUTE")]),
    probe("ip.black_hole", WIRE),
    probe(
        Signal::NfHook.name(),
        &[Source::Programs("fentry", HOOK), Source::Programs("kprobe", HOOK_KPROBE)],
    ),
    probe(
        Signal::CtIn.name(),
        &[Source::Programs("fentry", CT_IN), Source::Programs("kprobe", CT_IN_KPROBE)],
    ),
    probe(
        Signal::CtConfirm.name(),
        &[Source::Programs("fentry", CT_CONFIRM), Source::Programs("kprobe", CT_CONFIRM_KPROBE)],
    ),
    probe(
        CONNTRACK,
        &[Source::Netlink("IPCTNL_MSG_CT_GET_STATS_CPU"), Source::Procfs("/proc/net/stat/nf_conntrack")],
    ),
    probe(CLASHES, &[Source::Programs("kprobe", CLASH)]),
    probe(FULL_TABLES, &[Source::Programs("kprobe", FULL), Source::Programs("kprobe", FULL_RAW)]),
    probe(
        "drop",
        &[
            Source::Programs("tp_btf", &[tp("drop_skb", "kfree_skb")]),
            Source::Programs("raw_tp", &[raw("drop_skb_raw", "kfree_skb")]),
        ],
    ),
];

/// What the programs at interfaces, which probes share, look for to measure each of these.
const AT_INTERFACES: &[(&str, u32)] = &[
    (Signal::NetRtt.name(), wire::RTT),
    (Signal::DnsLatency.name(), wire::DNS),
    ("ip.fragment", wire::FRAGMENTS),
    (Signal::IpReassembly.name(), wire::FRAGMENTS),
    ("ip.packet_too_big", wire::TOO_BIG),
    // Of what never passes, it matters whether routers say so.
    ("ip.black_hole", wire::BLACK_HOLE | wire::TOO_BIG),
];

/// What the programs at interfaces have to look for, as bits of [`nettrace_common::config::wire`].
#[must_use]
pub fn at_interfaces(selected: &[&Probe]) -> u32 {
    let parts = AT_INTERFACES.iter().filter(|(name, _)| selected.iter().any(|p| p.name == *name));
    parts.fold(0, |bits, (_, part)| bits | part)
}

const fn probe(name: &'static str, sources: &'static [Source]) -> Probe {
    Probe { name, sources, note: None }
}

/// Whether two programs belong to one source, so that neither is of use without the other.
#[must_use]
pub fn together(one: &str, other: &str) -> bool {
    PROBES.iter().flat_map(|p| p.sources).any(|s| s.has(one) && s.has(other))
}

/// The programs of all sources; those that sources share come as often as they are shared.
fn programs() -> impl Iterator<Item = &'static Program> {
    PROBES.iter().flat_map(|p| p.sources).flat_map(Source::programs)
}

/// Whether what a probe measures is measured for a share of the time, from each of its sources.
#[must_use]
pub fn is_shared(probe: &str) -> bool {
    let shared = |program: &Program| matches!(program.stay, Stay::Share(_));
    PROBES
        .iter()
        .filter(|p| p.name == probe)
        .any(|p| p.sources.iter().all(|source| source.programs().iter().any(shared)))
}

/// The hook of a program.
#[must_use]
pub fn hook_of(program: &str) -> Option<Hook> {
    programs().find(|p| p.name == program).map(|p| p.hook)
}

/// The programs that stay so long, by name.
pub fn staying(stay: Stay) -> impl Iterator<Item = &'static str> {
    let mut names: Vec<_> = programs().filter(|p| p.stay == stay).map(|p| p.name).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

/// A rung of the ladder that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// Name of a probe, or of a group.
    pub probe: String,
    /// The only rung it is to be measured from; see [`Source::rung`].
    pub rung: String,
}

impl Forced {
    /// Whether it speaks of a probe, one that has the rung.
    fn holds(&self, probe: &Probe) -> bool {
        named(probe, &self.probe) && probe.sources.iter().any(|s| s.rung() == self.rung)
    }
}

/// The sources of a probe that may be taken, best first: those of the rung that was last asked for, or all.
pub fn allowed<'a>(
    probe: &'a Probe,
    forced: &'a [Forced],
) -> impl Iterator<Item = &'static Source> + use<'a> {
    let rung = forced.iter().rev().find(|f| f.holds(probe)).map(|f| f.rung.as_str());
    probe.sources.iter().filter(move |s| rung.is_none_or(|rung| s.rung() == rung))
}

/// Whether a rung was asked for that a probe has.
#[must_use]
pub fn is_forced(probe: &Probe, forced: &[Forced]) -> bool {
    forced.iter().any(|f| f.holds(probe))
}

/// The rungs that the probes of a name or group have.
#[must_use]
pub fn rungs(name: &str) -> Vec<&'static str> {
    let mut rungs: Vec<_> =
        PROBES.iter().filter(|p| named(p, name)).flat_map(|p| p.sources).map(Source::rung).collect();
    rungs.sort_unstable();
    rungs.dedup();
    rungs
}

/// Whether a probe has the name, or is of the group.
fn named(probe: &Probe, name: &str) -> bool {
    probe.name == name || probe.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
}

/// The probes of a selection: exact names, or a prefix such as `rx` or `tcp`. Nothing selected means everything.
#[must_use]
pub fn select(names: &[String]) -> Vec<&'static Probe> {
    let wanted = |probe: &Probe| names.is_empty() || names.iter().any(|n| named(probe, n));
    PROBES.iter().filter(|p| wanted(p)).collect()
}

#[cfg(test)]
mod tests;
