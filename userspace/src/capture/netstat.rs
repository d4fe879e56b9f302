//! What no tracepoint tells of TCP, from the kernel's own counters: full accept queues (TcpExtListenOverflows and
//! TcpExtListenDrops), how many segments were sent (TcpOutSegs, without those sent again), and those of [`TcpCounters`].
//! They are kept by network namespace, and are read before and after.
//!
//! Source: net/ipv4/proc.c, tcp_conn_request, tcp_v4_syn_recv_sock, __tcp_transmit_skb.

use crate::{
    files::counter,
    iface::Namespace,
    snapshot::{TcpCounters, TcpNamespace},
};
use std::{collections::HashMap, fs, os::unix::fs::MetadataExt, path::Path};

/// Namespaces that are not measured are listed up to so many, where something went wrong in them.
const MAX_OTHERS: usize = 100;

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
            *field(&mut others) = counter(netstat, "TcpExt:", name);
        }
        Some(Self {
            others,
            listen_overflows: counter(netstat, "TcpExt:", "ListenOverflows")?,
            listen_drops: counter(netstat, "TcpExt:", "ListenDrops")?,
            segments_sent: counter(snmp, "Tcp:", "OutSegs")?,
        })
    }
}

/// Counts of one namespace, with its name where it is measured.
struct Row {
    name: Option<String>,
    counts: Counts,
}

/// Counts by namespace (inode number).
pub(super) struct TcpCounts(HashMap<u64, Row>);

impl TcpCounts {
    /// Of the given namespaces, and with `others` of all that any process is in.
    pub(super) fn read(namespaces: &[Namespace], others: bool) -> Self {
        let mut rows = HashMap::new();
        for namespace in namespaces {
            let read = namespace.within(|| {
                let counts = Counts::read(Path::new("/proc/thread-self/net"))?;
                let row = Row { name: Some(namespace.name.clone()), counts };
                Some((u64::from(namespace.inode().ok()?), row))
            });
            rows.extend(read.ok().flatten());
        }
        if others {
            add_others(&mut rows);
        }
        Self(rows)
    }

    /// What came since an earlier reading in each namespace; one that is new began at zero.
    fn differences<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = (u64, &'a Row, Counts)> {
        self.0.iter().map(|(inode, row)| {
            let before = earlier.0.get(inode).map(|row| row.counts).unwrap_or_default();
            let mut since = Counts {
                listen_overflows: row.counts.listen_overflows.saturating_sub(before.listen_overflows),
                listen_drops: row.counts.listen_drops.saturating_sub(before.listen_drops),
                segments_sent: row.counts.segments_sent.saturating_sub(before.segments_sent),
                others: TcpCounters::default(),
            };
            since.others.add_since(row.counts.others, before.others);
            (*inode, row, since)
        })
    }

    /// What came since an earlier reading; none when nothing could be read.
    pub(super) fn since(&self, earlier: &Self) -> Option<Counts> {
        let mut sum = Counts::default();
        for (_, _, since) in self.differences(earlier) {
            sum.listen_overflows += since.listen_overflows;
            sum.listen_drops += since.listen_drops;
            sum.segments_sent += since.segments_sent;
            sum.others.add_since(since.others, TcpCounters::default());
        }
        (!self.0.is_empty()).then_some(sum)
    }

    /// What came since an earlier reading, by namespace: those that are measured, and of others those whose listeners
    /// dropped. Those that dropped most come first.
    pub(super) fn by_namespace(&self, earlier: &Self) -> Vec<TcpNamespace> {
        let (mut rows, mut others) = (Vec::new(), Vec::new());
        for (inode, row, since) in self.differences(earlier) {
            let of = |netns| TcpNamespace {
                netns,
                listen_overflows: since.listen_overflows,
                listen_drops: since.listen_drops,
                counters: since.others,
            };
            match &row.name {
                Some(name) => rows.push(of(name.clone())),
                // As `readlink /proc/PID/ns/net` and lsns(8) name it.
                None if since.listen_drops > 0 => others.push(of(format!("net:[{inode}]"))),
                None => {}
            }
        }
        let most_first = |rows: &mut Vec<TcpNamespace>| {
            rows.sort_by(|a, b| b.listen_drops.cmp(&a.listen_drops).then_with(|| a.netns.cmp(&b.netns)));
        };
        most_first(&mut others);
        others.truncate(MAX_OTHERS);
        rows.append(&mut others);
        most_first(&mut rows);
        rows
    }
}

fn add_others(rows: &mut HashMap<u64, Row>) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let path = process.path();
        // Processes may end while we look.
        let Ok(inode) = fs::metadata(path.join("ns/net")).map(|m| m.ino()) else { continue };
        if !rows.contains_key(&inode) {
            let counts = Counts::read(&path.join("net"));
            rows.extend(counts.map(|counts| (inode, Row { name: None, counts })));
        }
    }
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
        let row = |name: Option<&str>, counts| Row { name: name.map(str::to_owned), counts };
        let before = TcpCounts(HashMap::from([(1, row(Some("blue"), at(5, 6, 70)))]));
        let rows = [
            (1, row(Some("blue"), at(7, 9, 100))),
            (2, row(None, at(1, 1, 1))),
            (3, row(None, at(0, 0, 0))),
            (4, row(Some("red"), at(0, 0, 0))),
        ];
        let after = TcpCounts(HashMap::from(rows));
        assert_eq!(after.since(&before), Some(at(3, 4, 31)), "a counter that is not there adds nothing");
        assert_eq!(TcpCounts(HashMap::new()).since(&before), None);
        let by_namespace = after.by_namespace(&before);
        let drops: Vec<_> = by_namespace.iter().map(|n| (n.netns.as_str(), n.listen_overflows)).collect();
        assert_eq!(drops, [("blue", 2), ("net:[2]", 1), ("red", 0)]);
        assert_eq!(by_namespace[0].counters.zero_windows, Some(3));
    }
}
