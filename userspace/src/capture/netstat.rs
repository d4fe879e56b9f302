//! What no tracepoint tells of TCP, from the kernel's own counters: full accept queues (TcpExtListenOverflows and
//! TcpExtListenDrops), how many segments were sent (TcpOutSegs, without those sent again), and those of [`TcpCounters`].
//! They are kept by network namespace, and are read before and after.
//!
//! Source: net/ipv4/proc.c, tcp_conn_request, tcp_v4_syn_recv_sock, __tcp_transmit_skb.

use crate::{iface::Namespace, snapshot::TcpCounters};
use std::{collections::HashMap, fs, os::unix::fs::MetadataExt, path::Path};

/// Counts of one namespace, or differences of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Connections dropped because an accept queue was full.
    pub(super) listen_overflows: u64,
    /// SYN dropped by listeners.
    pub(super) listen_drops: u64,
    /// Segments sent, without those sent again.
    pub(super) segments_sent: u64,
    /// The others.
    pub(super) others: TcpCounters,
}

impl Counts {
    /// Of the namespace whose `/proc/PID/net` this is.
    fn read(net: &Path) -> Option<Self> {
        let text = |file| fs::read_to_string(net.join(file)).ok();
        Self::parse(&text("netstat")?, &text("snmp")?)
    }

    fn parse(netstat: &str, snmp: &str) -> Option<Self> {
        let mut others = TcpCounters::default();
        for (name, field, _) in TcpCounters::ALL {
            *field(&mut others) = value(netstat, "TcpExt:", name);
        }
        Some(Self {
            others,
            listen_overflows: value(netstat, "TcpExt:", "ListenOverflows")?,
            listen_drops: value(netstat, "TcpExt:", "ListenDrops")?,
            segments_sent: value(snmp, "Tcp:", "OutSegs")?,
        })
    }
}

/// Counts by namespace (inode number).
pub(super) struct TcpCounts(HashMap<u64, Counts>);

impl TcpCounts {
    /// Of the given namespaces, and with `others` of all that any process is in.
    pub(super) fn read(namespaces: &[Namespace], others: bool) -> Self {
        let mut counts = HashMap::new();
        for namespace in namespaces {
            let read = namespace.within(|| {
                Some((u64::from(namespace.inode().ok()?), Counts::read(Path::new("/proc/thread-self/net"))?))
            });
            counts.extend(read.ok().flatten());
        }
        if others {
            add_others(&mut counts);
        }
        Self(counts)
    }

    /// What came since an earlier reading; none when nothing could be read.
    pub(super) fn since(&self, earlier: &Self) -> Option<Counts> {
        let mut sum = Counts::default();
        for (inode, now) in &self.0 {
            // A namespace that is new began at zero.
            let before = earlier.0.get(inode).copied().unwrap_or_default();
            sum.listen_overflows += now.listen_overflows.saturating_sub(before.listen_overflows);
            sum.listen_drops += now.listen_drops.saturating_sub(before.listen_drops);
            sum.segments_sent += now.segments_sent.saturating_sub(before.segments_sent);
            sum.others.add_since(now.others, before.others);
        }
        (!self.0.is_empty()).then_some(sum)
    }
}

fn add_others(counts: &mut HashMap<u64, Counts>) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let path = process.path();
        // Processes may end while we look.
        let Ok(inode) = fs::metadata(path.join("ns/net")).map(|m| m.ino()) else { continue };
        if !counts.contains_key(&inode) {
            counts.extend(Counts::read(&path.join("net")).map(|c| (inode, c)));
        }
    }
}

/// Each group is two lines: names, then values.
fn value(text: &str, group: &str, wanted: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|l| l.strip_prefix(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|n| n == wanted)?;
    values.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_below_their_names() {
        let netstat =
            "TcpExt: A ListenOverflows TCPTimeouts ListenDrops\nTcpExt: 1 22 3 44\nIpExt: X\nIpExt: 9\n";
        let snmp = "Ip: OutSegs\nIp: 7\nTcp: MaxConn OutSegs\nTcp: -1 66\nUdp: OutSegs\nUdp: 8\n";
        let others = TcpCounters { timeouts: Some(3), ..TcpCounters::default() };
        let expected = Counts { listen_overflows: 22, listen_drops: 44, segments_sent: 66, others };
        assert_eq!(Counts::parse(netstat, snmp), Some(expected));
        assert_eq!(Counts::parse("TcpExt: A\nTcpExt: 1\n", snmp), None);
        assert_eq!(Counts::parse(netstat, ""), None);
    }

    #[test]
    fn this_kernel_has_them_all() {
        assert!(Counts::read(Path::new("/proc/thread-self/net")).is_some());
    }

    #[test]
    fn differences_are_summed_over_namespaces() {
        let at = |o, d, s| {
            let others = TcpCounters { zero_windows: Some(s / 10), ..TcpCounters::default() };
            Counts { listen_overflows: o, listen_drops: d, segments_sent: s, others }
        };
        let before = TcpCounts(HashMap::from([(1, at(5, 6, 70))]));
        let after = TcpCounts(HashMap::from([(1, at(7, 9, 100)), (2, at(1, 1, 1))]));
        assert_eq!(after.since(&before), Some(at(3, 4, 31)), "a counter that is not there adds nothing");
        assert_eq!(TcpCounts(HashMap::new()).since(&before), None);
    }
}
