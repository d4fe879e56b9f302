//! The one table of what is measured and from where.
//!
//! Each entry names a signal or count and its sources, best first; the loader takes the first one that this kernel
//! offers and that loads. A source is a set of kernel programs with their hooks; programs are shared by entries and
//! attached once. A new source touches this table and its own files.

pub mod dns;

use crate::preflight::Release;
use nettrace_common::Signal;
use std::fmt;

/// What a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A BTF-typed raw tracepoint.
    TpBtf(&'static str),
    /// TC at each selected interface, packets received.
    TcIngress,
    /// TC at each selected interface, packets sent.
    TcEgress,
    /// XDP at each selected interface.
    Xdp,
}

impl Hook {
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
    /// A share of the time, see `capture::duty`: the hook runs often and what it measures belongs to no packet.
    Share,
    /// From when a device with a queue is seen, see [`crate::attach::need`].
    WithQueues,
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
    /// By kernel programs, all of which are needed.
    Programs(&'static str, &'static [Program]),
    /// By reading the kernel's own counters before and after.
    Procfs(&'static str),
}

/// As reports name it: `tp_btf netif_receive_skb`, `tc`, `procfs /proc/PID/net/netstat`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, programs) = match self {
            Self::Procfs(path) => return write!(f, "procfs {path}"),
            Self::Programs(name, programs) => (name, programs),
        };
        f.write_str(name)?;
        for program in *programs {
            if let Hook::TpBtf(hook) = program.hook {
                write!(f, " {hook}")?;
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

impl Program {
    const fn staying(self, stay: Stay) -> Self {
        Self { stay, ..self }
    }
}

const RECEIVE: Program = tp("rx_receive", "netif_receive_skb");
const QUEUED: Program = tp("rx_queued", "sk_data_ready");
const COPIED: Program = tp("rx_copied", "skb_copy_datagram_iovec");
const READ: Program = tp("rx_read", "sock_recv_length");
const RAISE: Program = tp("softirq_raise", "softirq_raise").staying(Stay::Share);
const ENTRY: Program = tp("softirq_entry", "softirq_entry").staying(Stay::Share);
const QUEUE: Program = tp("tx_queue", "net_dev_queue");
const XMIT: Program = tp("tx_xmit", "net_dev_start_xmit").staying(Stay::WithQueues);
const CONSUMED: Program = tp("tx_consumed", "consume_skb");
const STATE: Program = tp("tcp_state", "inet_sock_set_state");
const RETRANSMIT: Program = tp("tcp_retransmit", "tcp_retransmit_skb");
const RETRANSMIT_SYNACK: Program = tp("tcp_retransmit_synack", "tcp_retransmit_synack");
const RESET_IN: Program = tp("tcp_reset_in", "tcp_receive_reset");
const RESET_OUT: Program = tp("tcp_reset_out", "tcp_send_reset");
const DROP: Program = tp("drop_skb", "kfree_skb");

/// The TC programs, at each selected interface.
pub const WIRE_TC: &[Program] = &[at("wire_in", Hook::TcIngress), at("wire_out", Hook::TcEgress)];
/// XDP for packets received, where it was asked for; TC for packets sent.
pub const WIRE_XDP: &[Program] = &[at("wire_xdp", Hook::Xdp), at("wire_out", Hook::TcEgress)];

const WIRE: &[Source] = &[Source::Programs("tc", WIRE_TC)];

/// Everything that is measured, in the order of reports.
pub const PROBES: &[Probe] = &[
    probe(Signal::RxSoftirq.name(), &[Source::Programs("tp_btf", &[RAISE, ENTRY])]),
    probe(Signal::RxStack.name(), &[Source::Programs("tp_btf", &[RECEIVE, QUEUED])]),
    probe(Signal::RxSocket.name(), &[Source::Programs("tp_btf", &[RECEIVE, QUEUED, COPIED, READ])]),
    probe(Signal::RxTotal.name(), &[Source::Programs("tp_btf", &[RECEIVE, QUEUED, COPIED, READ])]),
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
    probe(Signal::TcpConnect.name(), &[Source::Programs("tp_btf", &[STATE])]),
    probe(Signal::TcpAccept.name(), &[Source::Programs("tp_btf", &[STATE])]),
    probe("tcp.retransmit", &[Source::Programs("tp_btf", &[RETRANSMIT, RETRANSMIT_SYNACK])]),
    probe("tcp.reset", &[Source::Programs("tp_btf", &[RESET_IN, RESET_OUT])]),
    probe("tcp.listen_overflow", &[Source::Procfs("/proc/PID/net/netstat")]),
    probe(Signal::DnsLatency.name(), WIRE),
    probe("ip.fragment", WIRE),
    probe(Signal::IpReassembly.name(), WIRE),
    probe("ip.packet_too_big", WIRE),
    probe("drop", &[Source::Programs("tp_btf", &[DROP])]),
];

const fn probe(name: &'static str, sources: &'static [Source]) -> Probe {
    Probe { name, sources, note: None }
}

/// The programs that stay so long, by name.
pub fn staying(stay: Stay) -> impl Iterator<Item = &'static str> {
    let mut names: Vec<_> = PROBES
        .iter()
        .flat_map(|p| p.sources)
        .filter_map(|s| if let Source::Programs(_, programs) = s { Some(*programs) } else { None })
        .flatten()
        .filter(|p| p.stay == stay)
        .map(|p| p.name)
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

/// The probes of a selection: exact names, or a prefix such as `rx` or `tcp`. Nothing selected means everything.
#[must_use]
pub fn select(names: &[String]) -> Vec<&'static Probe> {
    let wanted = |probe: &Probe| {
        names.is_empty()
            || names.iter().any(|n| {
                probe.name == n
                    || probe.name.strip_prefix(n.as_str()).is_some_and(|rest| rest.starts_with('.'))
            })
    };
    PROBES.iter().filter(|p| wanted(p)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_has_one_probe_and_names_do_not_repeat() {
        for signal in Signal::ALL {
            assert_eq!(PROBES.iter().filter(|p| p.name == signal.name()).count(), 1, "{}", signal.name());
        }
        for (i, probe) in PROBES.iter().enumerate() {
            assert!(!probe.sources.is_empty(), "{} has no source", probe.name);
            assert!(PROBES[i + 1..].iter().all(|p| p.name != probe.name), "{} twice", probe.name);
        }
    }

    #[test]
    fn a_program_has_one_hook() {
        let mut hooks = std::collections::HashMap::new();
        for source in PROBES.iter().flat_map(|p| p.sources) {
            if let Source::Programs(_, programs) = source {
                for p in *programs {
                    assert_eq!(*hooks.entry(p.name).or_insert(*p), *p);
                }
            }
        }
    }

    #[test]
    fn selection_is_by_name_or_group() {
        let names = |v: &[&str]| select(&v.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).len();
        assert_eq!(names(&[]), PROBES.len());
        assert_eq!(names(&["rx.total"]), 1);
        assert_eq!(names(&["rx"]), 4);
        assert_eq!(names(&["r"]), 0);
    }
}
