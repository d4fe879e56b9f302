//! Counts of a snapshot by name: what windows are compared by beside their latencies, and what the flight recorder watches.

use crate::snapshot::{ConntrackCounts, Snapshot};

/// A count.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Its name.
    pub name: &'static str,
    /// What is counted.
    pub meaning: &'static str,
    /// Its value; none where it could not be read.
    pub of: fn(&Snapshot) -> Option<u64>,
}

/// How many there are.
pub const COUNTED: usize = 18;

/// All of them, in the order to show them.
pub static COUNTS: [Counted; COUNTED] = [
    count("dns.transactions", "DNS transactions", |s| Some(s.dns.transactions)),
    count("dns.timeouts", "DNS transactions without an answer", |s| Some(s.dns.timeouts)),
    count("dns.retries", "DNS queries sent again", |s| Some(s.dns.retries)),
    count("tcp.connects", "connections that clients established", |s| Some(s.tcp.connects)),
    count("tcp.connect_failures", "connections that clients failed to establish", |s| {
        Some(s.tcp.connect_failures)
    }),
    count("tcp.accepts", "connections that servers accepted", |s| Some(s.tcp.accepts)),
    count("tcp.segments_sent", "TCP segments sent", |s| s.tcp.segments_sent),
    count("tcp.retransmits", "TCP segments sent again", |s| Some(s.tcp.retransmits)),
    count("tcp.resets", "RST sent and received", |s| {
        Some(s.tcp.resets_sent.saturating_add(s.tcp.resets_received))
    }),
    count("tcp.listen_overflows", "accept queues that were full", |s| s.tcp.listen_overflows),
    count("tcp.listen_drops", "SYN dropped by listeners", |s| s.tcp.listen_drops),
    count("ip.fragments_in", "fragments received", |s| {
        Some(s.ip.fragments_in_v4.saturating_add(s.ip.fragments_in_v6))
    }),
    count("ip.packet_too_big", "messages that a path is too narrow", |s| Some(s.ip.packet_too_big)),
    count("conntrack.drop", "packets that connection tracking dropped", |s| tracked(s, |c| c.drop)),
    count("conntrack.early_drop", "connections thrown out of a full table", |s| tracked(s, |c| c.early_drop)),
    count("conntrack.insert_failed", "connections that could not be entered", |s| {
        tracked(s, |c| c.insert_failed)
    }),
    count("drops", "packets dropped", |s| Some(s.drops.iter().fold(0, |sum, d| d.count.saturating_add(sum)))),
    count("losses", "measurements lost", |s| {
        Some(s.losses.iter().fold(0, |sum, l| l.count.saturating_add(sum)))
    }),
];

/// The count of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Counted> {
    COUNTS.iter().find(|c| c.name == name)
}

const fn count(name: &'static str, meaning: &'static str, of: fn(&Snapshot) -> Option<u64>) -> Counted {
    Counted { name, meaning, of }
}

/// Over all namespaces; none where none tells it.
fn tracked(snapshot: &Snapshot, field: fn(ConntrackCounts) -> Option<u64>) -> Option<u64> {
    let told = snapshot.conntrack.iter().filter_map(|table| field(table.total()));
    told.fold(None, |sum: Option<u64>, n| Some(sum.unwrap_or(0).saturating_add(n)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;

    #[test]
    fn names_are_told_once_and_counts_are_those_of_the_snapshot() {
        let names: std::collections::BTreeSet<_> = COUNTS.iter().map(|c| c.name).collect();
        assert_eq!(names.len(), COUNTS.len());
        let snapshot = sample::rich();
        let value = |name| (named(name).unwrap().of)(&snapshot);
        assert_eq!(value("dns.timeouts"), Some(snapshot.dns.timeouts));
        assert_eq!(value("drops"), Some(snapshot.drops.iter().map(|d| d.count).sum()));
        let failed = snapshot.conntrack.iter().filter_map(|t| t.total().insert_failed).sum();
        assert_eq!(value("conntrack.insert_failed"), Some(failed));
        assert_eq!((named("conntrack.drop").unwrap().of)(&sample::empty()), None);
        assert!(named("nothing").is_none());
    }
}
