//! TCP: connections, failures, retransmits, resets, queues that overflowed, and peers.

use super::{super::units, Cell, Kind, Section, Table, nothing};
use crate::snapshot::{Snapshot, Tcp, TcpCounters, TcpLimited, TcpPeer};
use nettrace_common::Signal;

/// The probe of segments sent again.
const RETRANSMIT: &str = "tcp.retransmit";

/// The section on TCP.
pub(super) fn section(snapshot: &Snapshot, top: usize) -> Section {
    let tcp = &snapshot.tcp;
    let mut section = Section::new("tcp", "TCP");
    // What is read from procfs is there whatever was looked at: it does not mean that TCP was seen.
    let above_0 = |n: Option<u64>| n.filter(|n| *n > 0);
    let (listen_overflows, listen_drops) = (above_0(tcp.listen_overflows), above_0(tcp.listen_drops));
    let counted: Vec<_> = tcp.counters.values().filter(|(_, n, _)| *n > 0).collect();
    let counters = TcpCounters::default();
    let namespaces = Vec::new();
    let seen =
        Tcp { listen_overflows, listen_drops, segments_sent: None, counters, namespaces, ..tcp.clone() };
    if seen == Tcp::default() && counted.is_empty() {
        section.line(nothing(snapshot, "No TCP seen", &["tcp"]));
        return section;
    }
    section.table(counts(snapshot));
    let looked = tcp.retransmits > 0 || !is_off(snapshot, RETRANSMIT);
    if let Some(share) = retransmit_share(tcp).filter(|_| looked) {
        section.line(format!(
            "{} of {} sent were sent again: {}.",
            units::count(tcp.retransmits),
            units::plural(
                tcp.segments_sent.unwrap_or(0).saturating_add(tcp.retransmits),
                "segment",
                "segments"
            ),
            units::percent(share),
        ));
    }
    if let Some(line) = limited(&tcp.limited) {
        section.line(line);
    }
    let columns = [("errno", Kind::Text), ("connections", Kind::Number)];
    section.table(Table::of("Failed connections", &columns, &tcp.failures, top, |c| {
        vec![Cell::text(&c.name), Cell::count(c.count)]
    }));
    let columns = [("counter", Kind::Text), ("count", Kind::Number), ("meaning", Kind::Text)];
    section.table(Table::of(
        "The kernel's own counters",
        &columns,
        &counted,
        counted.len(),
        |(name, n, meaning)| vec![Cell::text(name), Cell::count(*n), Cell::text(meaning)],
    ));
    section.table(peers(&tcp.peers, top));
    section
}

/// Segments sent again as a share of all that were sent; none where it is not known how many were.
pub(super) fn retransmit_share(tcp: &Tcp) -> Option<f64> {
    let all = tcp.segments_sent?.saturating_add(tcp.retransmits);
    (all > 0).then(|| tcp.retransmits as f64 / all as f64)
}

/// What kept connections from sending; none when they sent nothing.
fn limited(limited: &TcpLimited) -> Option<String> {
    let part = |us: u64, connections: u64| {
        let share = units::percent(limited.share(us)?);
        let whose = match connections {
            0 => String::new(),
            n => format!(", {}", units::plural(n, "connection", "connections")),
        };
        Some(format!("{} ({share}{whose})", duration(us)))
    };
    Some(format!(
        "{} ended: busy sending {}, of this limited by the receiver's window {}, by the send buffer {}.",
        units::plural(limited.connections, "established connection", "established connections"),
        duration(limited.busy_us),
        part(limited.rwnd_limited_us, limited.connections_rwnd)?,
        part(limited.sndbuf_limited_us, limited.connections_sndbuf)?,
    ))
}

/// A time that is known in microseconds.
pub(super) fn duration(us: u64) -> String {
    units::duration(us.saturating_mul(1000))
}

/// Whether a probe is known to be off, so that 0 says nothing.
fn is_off(snapshot: &Snapshot, probe: &str) -> bool {
    snapshot.probes.iter().any(|p| p.name == probe && p.source.is_none())
}

fn counts(snapshot: &Snapshot) -> Table {
    let Snapshot { tcp, meta, .. } = snapshot;
    let (connect, accept) = (Signal::TcpConnect.name(), Signal::TcpAccept.name());
    let (reset, overflow) = ("tcp.reset", "tcp.listen_overflow");
    let rows = [
        ("connections established by local clients", connect, Some(tcp.connects)),
        ("connections that local clients failed to establish", connect, Some(tcp.connect_failures)),
        ("connections accepted by local servers", accept, Some(tcp.accepts)),
        ("segments sent again", RETRANSMIT, Some(tcp.retransmits)),
        ("of these, after a timeout", RETRANSMIT, Some(tcp.retransmits_timeout)),
        ("of these, fast: told by acknowledgements", RETRANSMIT, Some(tcp.retransmits_fast)),
        ("resets sent", reset, Some(tcp.resets_sent)),
        ("resets received", reset, Some(tcp.resets_received)),
        ("connections dropped by full accept queues", overflow, tcp.listen_overflows),
        ("SYN dropped by listeners", overflow, tcp.listen_drops),
    ];
    let columns = [("event", Kind::Text), ("count", Kind::Number), ("rate", Kind::Number)];
    Table::of("Events", &columns, &rows, rows.len(), |(what, probe, n)| {
        let mut row = vec![Cell::text(what)];
        match n {
            Some(0) if is_off(snapshot, probe) => {
                row.extend([Cell::unknown("not measured"), Cell::unknown("-")]);
            }
            Some(n) => row.extend([
                Cell::count(*n),
                Cell { text: units::rate(*n, meta.duration_ns), sort: Some(*n as f64) },
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
        ("send buffer full", Kind::Number),
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
            Cell::duration(p.sndbuf_limited_us.saturating_mul(1000)),
            Cell::duration(p.srtt.quantile_ns(0.5)),
            Cell::duration(p.srtt.quantile_ns(0.99)),
        ]
    })
}
