//! Full accept queues, from the kernel's own counters: TcpExtListenOverflows and TcpExtListenDrops of each network
//! namespace, read before and after. No tracepoint tells of them.
//!
//! Source: net/ipv4/proc.c, tcp_conn_request, tcp_v4_syn_recv_sock.

use crate::iface::Namespace;
use std::{collections::HashMap, fs, os::unix::fs::MetadataExt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    overflows: u64,
    drops: u64,
}

/// Counts by namespace (inode number).
pub(super) struct ListenCounts(HashMap<u64, Counts>);

impl ListenCounts {
    /// Of the given namespaces, and with `others` of all that any process is in.
    pub(super) fn read(namespaces: &[Namespace], others: bool) -> Self {
        let mut counts = HashMap::new();
        for namespace in namespaces {
            let namespace = namespace.clone();
            // A thread of its own: entering a namespace cannot be undone.
            let read = std::thread::spawn(move || {
                namespace.enter().ok()?;
                Some((u64::from(namespace.inode().ok()?), of("/proc/thread-self/net/netstat")?))
            });
            counts.extend(read.join().ok().flatten());
        }
        if others {
            add_others(&mut counts);
        }
        Self(counts)
    }

    /// Overflows and drops since an earlier reading; none when nothing could be read.
    pub(super) fn since(&self, earlier: &Self) -> (Option<u64>, Option<u64>) {
        if self.0.is_empty() {
            return (None, None);
        }
        let (mut overflows, mut drops) = (0, 0);
        for (inode, now) in &self.0 {
            // A namespace that is new began at zero.
            let before = earlier.0.get(inode).copied().unwrap_or(Counts { overflows: 0, drops: 0 });
            overflows += now.overflows.saturating_sub(before.overflows);
            drops += now.drops.saturating_sub(before.drops);
        }
        (Some(overflows), Some(drops))
    }
}

fn add_others(counts: &mut HashMap<u64, Counts>) {
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let path = process.path();
        // Processes may end while we look.
        let Ok(inode) = fs::metadata(path.join("ns/net")).map(|m| m.ino()) else { continue };
        if !counts.contains_key(&inode) {
            counts.extend(of(&path.join("net/netstat").to_string_lossy()).map(|c| (inode, c)));
        }
    }
}

fn of(path: &str) -> Option<Counts> {
    parse(&fs::read_to_string(path).ok()?)
}

/// Each group is two lines: names, then values.
fn parse(text: &str) -> Option<Counts> {
    let mut lines = text.lines().filter(|l| l.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted| {
        let at = names.split(' ').position(|n| n == wanted)?;
        values.split(' ').nth(at)?.parse().ok()
    };
    Some(Counts { overflows: value("ListenOverflows")?, drops: value("ListenDrops")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_below_their_names() {
        let text = "TcpExt: A ListenOverflows B ListenDrops\nTcpExt: 1 22 3 44\nIpExt: X\nIpExt: 9\n";
        assert_eq!(parse(text), Some(Counts { overflows: 22, drops: 44 }));
        assert_eq!(parse("TcpExt: A\nTcpExt: 1\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn differences_are_summed_over_namespaces() {
        let at = |o, d| Counts { overflows: o, drops: d };
        let before = ListenCounts(HashMap::from([(1, at(5, 6))]));
        let after = ListenCounts(HashMap::from([(1, at(7, 9)), (2, at(1, 1))]));
        assert_eq!(after.since(&before), (Some(3), Some(4)));
        assert_eq!(ListenCounts(HashMap::new()).since(&before), (None, None));
    }
}
