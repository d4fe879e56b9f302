//! What happened to packets on their way: fragments and path MTU, and the slowest ones.

use super::{super::units, Cell, Kind, Section, Table, nothing};
use crate::snapshot::{BlackHole, Exemplar, Ip, Snapshot};

/// The section on fragments and path MTU.
pub(super) fn fragments(snapshot: &Snapshot, top: usize) -> Section {
    let ip = &snapshot.ip;
    let mut section = Section::new("fragments", "Fragments and path MTU");
    if *ip == Ip::default() {
        section.line(nothing(snapshot, "No fragments and no packet-too-big messages seen", &["ip."]));
        return section;
    }
    section.line(format!(
        "Fragments received: {} IPv4, {} IPv6; sent: {} IPv4, {} IPv6.",
        units::count(ip.fragments_in_v4),
        units::count(ip.fragments_in_v6),
        units::count(ip.fragments_out_v4),
        units::count(ip.fragments_out_v6),
    ));
    section.line(format!(
        "{} reassembled, {} incomplete; {}.",
        units::plural(ip.reassembled, "datagram", "datagrams"),
        units::count(ip.incomplete),
        units::plural(ip.packet_too_big, "packet-too-big message", "packet-too-big messages"),
    ));
    let columns = [
        ("router", Kind::Text),
        ("destination", Kind::Text),
        ("path MTU", Kind::Number),
        ("messages", Kind::Number),
    ];
    section.table(Table::of("Paths that are too narrow", &columns, &ip.ptb, top, |p| {
        vec![
            Cell::text(&p.router.to_string()),
            Cell::text(&p.destination.to_string()),
            bytes(p.mtu),
            Cell::count(p.count),
        ]
    }));
    let columns = [
        ("could not be", Kind::Text),
        ("because", Kind::Text),
        ("datagrams", Kind::Number),
        ("for instance", Kind::Text),
    ];
    section.table(Table::of("Fragments that failed", &columns, &ip.failures, top, |f| {
        vec![Cell::text(&f.work), Cell::text(&f.reason), Cell::count(f.count), Cell::text(&f.flow)]
    }));
    section.table(black_holes(&ip.black_holes, top));
    section.table(learnt(ip, top));
    if ip.learnt_paths > ip.learnt.len() as u64 {
        section.line(format!(
            "The kernel learnt the MTU of {}; kept are the narrowest {}.",
            units::plural(ip.learnt_paths, "path", "paths"),
            units::count(ip.learnt.len() as u64),
        ));
    }
    section
}

/// A length, which sorts as a number.
fn bytes(n: u32) -> Cell {
    Cell { text: format!("{} B", units::count(u64::from(n))), sort: Some(f64::from(n)) }
}

/// What the kernel heeds, at the end.
fn learnt(ip: &Ip, top: usize) -> Table {
    let columns = [
        ("netns", Kind::Text),
        ("destination", Kind::Text),
        ("path MTU", Kind::Number),
        ("expires in", Kind::Number),
    ];
    Table::of("Path MTUs that the kernel learnt", &columns, &ip.learnt, top, |path| {
        vec![
            Cell::text(&path.netns),
            Cell::text(&path.destination.to_string()),
            bytes(path.mtu),
            Cell::duration(u64::from(path.expires_s) * 1_000_000_000),
        ]
    })
}

/// Receivers that long packets do not reach.
fn black_holes(holes: &[BlackHole], top: usize) -> Table {
    let columns = [
        ("to", Kind::Text),
        ("lost from", Kind::Number),
        ("passes up to", Kind::Number),
        ("sent again", Kind::Number),
        ("flows", Kind::Number),
        ("ICMP messages", Kind::Number),
        ("the receiver", Kind::Text),
        ("for instance", Kind::Text),
    ];
    Table::of("Path MTU black holes", &columns, holes, top, |hole| {
        vec![
            Cell::text(&hole.peer.to_string()),
            bytes(hole.lost_bytes),
            hole.passes_bytes.map_or_else(|| Cell::unknown("not seen"), bytes),
            Cell::count(hole.again),
            Cell::count(hole.flows),
            Cell::count(hole.messages),
            Cell::text(if hole.alive { "answers" } else { "was not heard since" }),
            Cell::text(&hole.flow),
        ]
    })
}

/// The slowest of each signal in turn, so that a slow one does not hide the others; in the signals' order.
fn fair(exemplars: &[Exemplar], top: usize) -> Vec<&Exemplar> {
    let mut place = std::collections::HashMap::new();
    let mut ranked: Vec<(usize, usize, &Exemplar)> = Vec::new();
    for (index, exemplar) in exemplars.iter().enumerate() {
        let rank = place.entry(exemplar.signal.as_str()).or_insert(0);
        ranked.push((*rank, index, exemplar));
        *rank += 1;
    }
    ranked.sort_by_key(|(rank, index, _)| (*rank, *index));
    let (shown, rest) = ranked.split_at(top.min(ranked.len()));
    let mut shown = shown.to_vec();
    shown.sort_by_key(|(_, index, _)| *index);
    shown.iter().chain(rest).map(|(_, _, exemplar)| *exemplar).collect()
}

/// The section on single slow packets.
pub(super) fn slowest(snapshot: &Snapshot, top: usize) -> Section {
    let mut section = Section::new("slowest", "Slowest packets");
    if snapshot.exemplars.is_empty() {
        section.line("No slow packet was recorded.");
    }
    let columns = [
        ("signal", Kind::Text),
        ("at", Kind::Number),
        ("latency", Kind::Number),
        ("flow", Kind::Text),
        ("size", Kind::Number),
        ("interface", Kind::Text),
    ];
    section.table(Table::of("", &columns, &fair(&snapshot.exemplars, top), top, |e| {
        vec![
            Cell::text(&e.signal),
            Cell::duration(e.at_ns),
            Cell::duration(e.latency_ns),
            Cell::text(&e.flow),
            Cell::bytes(u64::from(e.bytes)),
            Cell::text(&e.scope),
        ]
    }));
    section
}
