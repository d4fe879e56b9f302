//! TCP: connections, failures, retransmits, resets, queues that overflowed, and peers.

use super::{super::units, Cell, Kind, Section, Table, nothing};
use crate::snapshot::{Snapshot, Tcp, TcpPeer};

/// The section on TCP.
pub(super) fn section(snapshot: &Snapshot, top: usize) -> Section {
    let tcp = &snapshot.tcp;
    let mut section = Section::new("tcp", "TCP");
    // Overflows are read from procfs: 0 of them does not mean that TCP was seen.
    let above_0 = |n: Option<u64>| n.filter(|n| *n > 0);
    let (listen_overflows, listen_drops) = (above_0(tcp.listen_overflows), above_0(tcp.listen_drops));
    if (Tcp { listen_overflows, listen_drops, ..tcp.clone() }) == Tcp::default() {
        section.line(nothing(snapshot, "No TCP seen", &["tcp"]));
        return section;
    }
    section.table(counts(tcp, snapshot.meta.duration_ns));
    let columns = [("errno", Kind::Text), ("connections", Kind::Number)];
    section.table(Table::of("Failed connections", &columns, &tcp.failures, top, |c| {
        vec![Cell::text(&c.name), Cell::count(c.count)]
    }));
    section.table(peers(&tcp.peers, top));
    section
}

fn counts(tcp: &Tcp, duration_ns: u64) -> Table {
    let rows = [
        ("connections established by local clients", Some(tcp.connects)),
        ("connections that local clients failed to establish", Some(tcp.connect_failures)),
        ("connections accepted by local servers", Some(tcp.accepts)),
        ("segments sent again", Some(tcp.retransmits)),
        ("resets sent", Some(tcp.resets_sent)),
        ("resets received", Some(tcp.resets_received)),
        ("connections dropped by full accept queues", tcp.listen_overflows),
        ("SYN dropped by listeners", tcp.listen_drops),
    ];
    let columns = [("event", Kind::Text), ("count", Kind::Number), ("rate", Kind::Number)];
    Table::of("Events", &columns, &rows, rows.len(), |(what, n)| {
        let mut row = vec![Cell::text(what)];
        match n {
            Some(n) => row.extend([
                Cell::count(*n),
                Cell { text: units::rate(*n, duration_ns), sort: Some(*n as f64) },
            ]),
            None => row.extend([Cell::unknown("not readable"), Cell::unknown("-")]),
        }
        row
    })
}

fn peers(peers: &[TcpPeer], top: usize) -> Table {
    let columns = [
        ("peer", Kind::Text),
        ("connections", Kind::Number),
        ("failures", Kind::Number),
        ("sent again", Kind::Number),
        ("resets", Kind::Number),
        ("srtt p50", Kind::Number),
        ("srtt p99", Kind::Number),
    ];
    Table::of("Peers", &columns, peers, top, |p| {
        vec![
            Cell::text(&p.peer.to_string()),
            Cell::count(p.connections),
            Cell::count(p.failures),
            Cell::count(p.retransmits),
            Cell::count(p.resets),
            Cell::duration(p.srtt.quantile_ns(0.5)),
            Cell::duration(p.srtt.quantile_ns(0.99)),
        ]
    })
}
