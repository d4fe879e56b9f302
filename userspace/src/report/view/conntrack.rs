//! Connection tracking: how full its tables are, and what it could not do.

use super::{super::units, Cell, Kind, Section, Table, nothing};
use crate::{
    probes::CONNTRACK,
    snapshot::{ConntrackCounts, ConntrackTable, ConntrackTrouble, Snapshot},
};

/// What the counters of [`ConntrackCounts::FIELDS`] count, in their order.
const MEANINGS: [&str; ConntrackCounts::FIELDS.len()] = [
    "packets dropped: the table was full, or a race was lost",
    "connections not entered: a race was lost, or the hash chain too long",
    "of these, for a hash chain that was too long",
    "connections thrown out early to make room",
    "races that ended well: made one connection",
    "lookups begun again: an entry was moved meanwhile",
    "packets that belong to no connection",
    "packets with a wrong checksum or length",
];

/// The section on connection tracking.
pub(super) fn section(snapshot: &Snapshot, top: usize) -> Section {
    let mut section = Section::new("conntrack", "Connection tracking");
    let tables = &snapshot.conntrack;
    if tables.is_empty() {
        section.line(nothing(snapshot, "No table was read", &[CONNTRACK]));
    } else {
        section.table(uses(tables, top));
        section.table(events(tables, top));
        if section.tables.len() == 1 {
            section.line("Nothing was dropped, and nothing raced.");
        }
    }
    trouble(snapshot, top, &mut section);
    section
}

/// The packets that met trouble, and whose they were.
fn trouble(snapshot: &Snapshot, top: usize, section: &mut Section) {
    let t = &snapshot.conntrack_trouble;
    if *t == ConntrackTrouble::default() && snapshot.conntrack_flows.is_empty() {
        return;
    }
    let packets = |n| units::plural(n, "packet", "packets");
    section.line(format!(
        "Seen one by one: {} dropped for want of room, {} dropped after a clash, {} let through after one.",
        packets(t.table_full),
        packets(t.clashes_dropped),
        packets(t.clashes_resolved),
    ));
    let columns = [("flow", Kind::Text), ("what happened", Kind::Text), ("packets", Kind::Number)];
    section.table(Table::of("By flow", &columns, &snapshot.conntrack_flows, top, |f| {
        vec![Cell::text(&f.flow), Cell::text(&f.what), Cell::count(f.count)]
    }));
}

fn uses(tables: &[ConntrackTable], top: usize) -> Table {
    let columns = [
        ("network namespace", Kind::Text),
        ("connections", Kind::Number),
        ("room for", Kind::Number),
        ("used", Kind::Number),
        ("by bucket", Kind::Number),
    ];
    let number = |n: Option<u64>| n.map_or_else(|| Cell::unknown("not readable"), Cell::count);
    let ratio = |text: Option<String>| text.map_or_else(|| Cell::unknown("-"), |t| Cell::text(&t));
    Table::of("Tables", &columns, tables, top, |t| {
        let by_bucket = t.entries.zip(t.buckets).filter(|(_, buckets)| *buckets > 0);
        vec![
            Cell::text(&t.netns),
            number(t.entries),
            number(t.max),
            ratio(t.used_share().map(units::percent)),
            // Each connection is in two chains: as it was asked, and as it is answered.
            ratio(by_bucket.map(|(n, buckets)| format!("{:.2}", 2.0 * n as f64 / buckets as f64))),
        ]
    })
}

/// What happened, by namespace; counters at 0 are left out.
fn events(tables: &[ConntrackTable], top: usize) -> Table {
    let mut rows = Vec::new();
    for table in tables {
        let mut total = table.total();
        for ((name, field), meaning) in ConntrackCounts::FIELDS.iter().zip(MEANINGS) {
            let n = field(&mut total).unwrap_or(0);
            let cpus =
                table.cpus.iter().copied().filter_map(|mut c| *field(&mut c)).filter(|n| *n > 0).count();
            if n > 0 {
                rows.push((table.netns.as_str(), *name, n, cpus as u64, meaning));
            }
        }
    }
    let columns = [
        ("network namespace", Kind::Text),
        ("counter", Kind::Text),
        ("count", Kind::Number),
        ("CPUs", Kind::Number),
        ("what it counts", Kind::Text),
    ];
    Table::of("Events", &columns, &rows, top.max(MEANINGS.len()), |(netns, name, n, cpus, meaning)| {
        vec![Cell::text(netns), Cell::text(name), Cell::count(*n), Cell::count(*cpus), Cell::text(meaning)]
    })
}
