//! Tables of a frame: what each view shows, with every number already formatted.
//!
//! Needs a [`Frame`] and findings; yields [`Sheet`]s, whose rows can be sorted and filtered. The same tables are written as
//! text by [`super::plain`].

use super::state::{Looks, Tab};
use crate::{
    live::{Frame, SignalFrame},
    recommend::{self, Finding, Verdict},
    report::{
        self, units,
        view::{Cell, Kind, Level, Table, clean},
    },
};
use nettrace_common::Signal;
use std::cmp::Ordering;

/// One table.
pub(super) struct Sheet {
    /// What it shows.
    pub(super) table: Table,
    /// Columns that are left out where there is no room, the first of these first.
    pub(super) spare: &'static [usize],
    /// What is said where there are no rows.
    pub(super) empty: &'static str,
    /// How much each row asks for attention; empty where none does.
    pub(super) levels: Vec<Level>,
}

impl Sheet {
    fn new(table: Table, spare: &'static [usize], empty: &'static str) -> Self {
        Self { table, spare, empty, levels: Vec::new() }
    }

    /// Rows to show, by their place in the table: those that have all words of the filter, in the order of a column.
    pub(super) fn rows(&self, looks: &Looks) -> Vec<usize> {
        let words: Vec<String> = looks.filter.split_whitespace().map(str::to_lowercase).collect();
        let has = |row: &[Cell], word: &String| row.iter().any(|c| c.text.to_lowercase().contains(word));
        let mut rows: Vec<usize> = (0..self.table.rows.len())
            .filter(|n| self.table.rows.get(*n).is_some_and(|row| words.iter().all(|word| has(row, word))))
            .collect();
        let cell = |row: usize, column: usize| self.table.rows.get(row).and_then(|cells| cells.get(column));
        if let Some(column) = looks.sort {
            let largest_first = self.descends(looks);
            rows.sort_by(|a, b| {
                let order = compare(cell(*a, column), cell(*b, column));
                if largest_first { order.reverse() } else { order }
            });
        } else if looks.reversed {
            rows.reverse();
        }
        rows
    }

    /// Whether the largest is first: of numbers, unless it is the other way round; words begin with A.
    pub(super) fn descends(&self, looks: &Looks) -> bool {
        let column = looks.sort.and_then(|n| self.table.columns.get(n));
        column.is_some_and(|column| column.kind == Kind::Number) != looks.reversed
    }
}

fn compare(a: Option<&Cell>, b: Option<&Cell>) -> Ordering {
    match (a, b) {
        (Some(Cell { sort: Some(a), .. }), Some(Cell { sort: Some(b), .. })) => a.total_cmp(b),
        (Some(a), Some(b)) => a.text.to_lowercase().cmp(&b.text.to_lowercase()),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

/// The tables of a view, at most [`super::state::PARTS`]. Of the overview, and before the first frame, there are none.
pub(super) fn of(tab: Tab, frame: Option<&Frame>, found: Option<&Vec<Finding>>) -> Vec<Sheet> {
    match (tab, frame) {
        (Tab::Findings, _) => vec![findings(found)],
        (Tab::Overview, _) | (_, None) => Vec::new(),
        (Tab::Signals, Some(frame)) => vec![signals(frame)],
        (Tab::Dns, Some(frame)) => vec![resolvers(frame), names(frame)],
        (Tab::Tcp, Some(frame)) => vec![peers(frame)],
        (Tab::Drops, Some(frame)) => vec![drops(frame), conntrack(frame)],
        (Tab::Slow, Some(frame)) => vec![slowest(frame)],
    }
}

/// A rate.
fn rate(per_s: f64) -> Cell {
    Cell { text: units::per_second(per_s), sort: Some(per_s) }
}

/// A percentile; a bucket's upper end is never above the exact maximum.
pub(super) fn percentile_ns(signal: &SignalFrame, of: fn(&SignalFrame) -> u64) -> u64 {
    of(signal).min(signal.max_ns)
}

/// Latencies by signal and scope.
fn signals(frame: &Frame) -> Sheet {
    const COLUMNS: [(&str, Kind); 9] = [
        ("signal", Kind::Text),
        ("scope", Kind::Text),
        ("rate", Kind::Number),
        ("p50", Kind::Number),
        ("p90", Kind::Number),
        ("p99", Kind::Number),
        ("p99.9", Kind::Number),
        ("max", Kind::Number),
        ("count", Kind::Number),
    ];
    let at = |s: &SignalFrame, of| Cell::duration(percentile_ns(s, of));
    let table = Table::of("Latency", &COLUMNS, &frame.signals, usize::MAX, |s| {
        vec![
            Cell::text(&s.signal),
            Cell::text(&s.scope),
            rate(s.per_s),
            at(s, |s| s.p50_ns),
            at(s, |s| s.p90_ns),
            at(s, |s| s.p99_ns),
            at(s, |s| s.p999_ns),
            Cell::duration(s.max_ns),
            Cell::count(s.count),
        ]
    });
    Sheet::new(table, &[8, 6, 4, 2], "No latency was measured.")
}

/// DNS by server.
fn resolvers(frame: &Frame) -> Sheet {
    const COLUMNS: [(&str, Kind); 6] = [
        ("resolver", Kind::Text),
        ("by", Kind::Text),
        ("queries", Kind::Number),
        ("timeouts", Kind::Number),
        ("p50", Kind::Number),
        ("p99", Kind::Number),
    ];
    let table = Table::of("Resolvers", &COLUMNS, &frame.dns.servers, usize::MAX, |s| {
        vec![
            Cell::text(&s.server),
            Cell::text(&s.transport),
            Cell::count(s.transactions),
            Cell::count(s.timeouts),
            Cell::duration(s.p50_ns),
            Cell::duration(s.p99_ns),
        ]
    });
    Sheet::new(table, &[1], "No DNS was seen.")
}

/// DNS by question.
fn names(frame: &Frame) -> Sheet {
    const COLUMNS: [(&str, Kind); 6] = [
        ("name", Kind::Text),
        ("type", Kind::Text),
        ("queries", Kind::Number),
        ("timeouts", Kind::Number),
        ("mean", Kind::Number),
        ("max", Kind::Number),
    ];
    let table = Table::of("Names", &COLUMNS, &frame.dns.names, usize::MAX, |n| {
        vec![
            Cell::text(&n.name),
            Cell::text(&n.qtype),
            Cell::count(n.transactions),
            Cell::count(n.timeouts),
            Cell::duration(n.mean_ns),
            Cell::duration(n.max_ns),
        ]
    });
    Sheet::new(table, &[5], "No DNS was seen.")
}

/// TCP by remote address.
fn peers(frame: &Frame) -> Sheet {
    const COLUMNS: [(&str, Kind); 6] = [
        ("peer", Kind::Text),
        ("connections", Kind::Number),
        ("failed", Kind::Number),
        ("sent again", Kind::Number),
        ("resets", Kind::Number),
        ("srtt p50", Kind::Number),
    ];
    let table = Table::of("Peers", &COLUMNS, &frame.tcp.peers, usize::MAX, |p| {
        vec![
            Cell::text(&p.peer),
            Cell::count(p.connections),
            Cell::count(p.failures),
            Cell::count(p.retransmits),
            Cell::count(p.resets),
            p.srtt_p50_ns.map_or_else(|| Cell::unknown("-"), Cell::duration),
        ]
    });
    Sheet::new(table, &[4], "No TCP was seen.")
}

/// Drops by reason and place.
fn drops(frame: &Frame) -> Sheet {
    const COLUMNS: [(&str, Kind); 4] =
        [("reason", Kind::Text), ("where", Kind::Text), ("interface", Kind::Text), ("packets", Kind::Number)];
    let table = Table::of("Drops", &COLUMNS, &frame.drops, usize::MAX, |d| {
        vec![Cell::text(&d.reason), Cell::text(&d.location), Cell::text(&d.scope), Cell::count(d.count)]
    });
    Sheet::new(table, &[], "No packet was dropped.")
}

/// Connection tracking by network namespace.
fn conntrack(frame: &Frame) -> Sheet {
    const COLUMNS: [(&str, Kind); 6] = [
        ("netns", Kind::Text),
        ("connections", Kind::Number),
        ("of", Kind::Number),
        ("full", Kind::Number),
        ("dropped", Kind::Number),
        ("insert failed", Kind::Number),
    ];
    let maybe = |n: Option<u64>| n.map_or_else(|| Cell::unknown("-"), Cell::count);
    let table = Table::of("Connection tracking", &COLUMNS, &frame.conntrack, usize::MAX, |c| {
        let full = c.entries.zip(c.max).filter(|(_, max)| *max > 0).map(|(n, max)| n as f64 / max as f64);
        vec![
            Cell::text(&c.netns),
            maybe(c.entries),
            maybe(c.max),
            full.map_or_else(
                || Cell::unknown("-"),
                |share| Cell { text: units::percent(share), sort: Some(share) },
            ),
            Cell::count(c.drops),
            Cell::count(c.insert_failed),
        ]
    });
    Sheet::new(table, &[2, 5], "No connections are tracked, or that is not known.")
}

/// Single slow packets.
fn slowest(frame: &Frame) -> Sheet {
    const COLUMNS: [(&str, Kind); 4] =
        [("signal", Kind::Text), ("latency", Kind::Number), ("flow", Kind::Text), ("interface", Kind::Text)];
    let table = Table::of("Slowest packets", &COLUMNS, &frame.slowest, usize::MAX, |s| {
        vec![Cell::text(&s.signal), Cell::duration(s.latency_ns), Cell::text(&s.flow), Cell::text(&s.scope)]
    });
    Sheet::new(table, &[3], "No packet was slower than the threshold of --exemplar.")
}

/// What is said of each setting.
pub(super) fn findings(found: Option<&Vec<Finding>>) -> Sheet {
    const COLUMNS: [(&str, Kind); 3] =
        [("verdict", Kind::Text), ("finding", Kind::Text), ("because", Kind::Text)];
    let empty = match found {
        None => "The last minutes were not judged yet.",
        Some(_) => "Nothing is to be changed.",
    };
    let all = found.map_or(&[][..], Vec::as_slice);
    let table = Table::of("Findings", &COLUMNS, all, usize::MAX, |f| {
        let verdict = Cell { text: f.verdict.name().to_owned(), sort: Some(f64::from(f.verdict as u8)) };
        vec![verdict, Cell::text(&f.id), Cell::text(&f.because)]
    });
    let level = |f: &Finding| match f.verdict {
        Verdict::Apply => Level::Bad,
        Verdict::Consider => Level::Warn,
        Verdict::NotNeeded | Verdict::CannotTell => Level::Note,
    };
    Sheet { levels: all.iter().map(level).collect(), ..Sheet::new(table, &[], empty) }
}

/// A finding with its evidence and the exact change, in lines for a screen so wide.
pub(super) fn details(finding: &Finding, columns: u16) -> Vec<String> {
    let options = report::Options { width: usize::from(columns), ..report::Options::default() };
    recommend::explain(finding, &options).lines().map(str::to_owned).collect()
}

/// What stands above the tables of a view.
pub(super) fn lines(tab: Tab, frame: &Frame) -> Vec<String> {
    match tab {
        Tab::Overview | Tab::Findings | Tab::Slow | Tab::Signals => Vec::new(),
        Tab::Dns => vec![dns(frame), rcodes(frame)],
        Tab::Tcp => vec![tcp(frame), failures(frame)],
        Tab::Drops => vec![format!("{}; {}", dropped(frame), fragments(frame))],
    }
}

/// DNS in a line.
pub(super) fn dns(frame: &Frame) -> String {
    let dns = &frame.dns;
    let latency = frame.signal(Signal::DnsLatency).map_or_else(String::new, |s| {
        let at = |of| units::duration(percentile_ns(s, of));
        format!("; p50 {}, p99 {}", at(|s| s.p50_ns), at(|s| s.p99_ns))
    });
    format!(
        "{}; {}, {}{latency}",
        units::per_second(dns.per_s),
        units::plural(dns.timeouts, "timeout", "timeouts"),
        units::plural(dns.retries, "retry", "retries"),
    )
}

fn rcodes(frame: &Frame) -> String {
    let mut parts: Vec<String> =
        frame.dns.rcodes.iter().map(|(name, n)| format!("{} {}", units::count(*n), clean(name))).collect();
    parts.push(format!("{} truncated", units::count(frame.dns.truncated)));
    parts.join(", ")
}

/// TCP in a line.
pub(super) fn tcp(frame: &Frame) -> String {
    let tcp = &frame.tcp;
    let share = tcp.retransmit_share.map_or_else(String::new, |s| format!(" ({})", units::percent(s)));
    format!(
        "{} out, {} in; {} failed, {} sent again{share}",
        units::per_second(tcp.connects_per_s),
        units::per_second(tcp.accepts_per_s),
        units::count(tcp.failures),
        units::count(tcp.retransmits),
    )
}

fn failures(frame: &Frame) -> String {
    let overflows = match frame.tcp.listen_overflows {
        Some(n) => units::plural(n, "connection", "connections"),
        None => "an unknown number".to_owned(),
    };
    format!(
        "{}; {overflows} dropped by full accept queues",
        units::plural(frame.tcp.resets, "reset", "resets")
    )
}

/// Drops in a line.
pub(super) fn dropped(frame: &Frame) -> String {
    let most = frame.drops.first().map_or_else(String::new, |d| {
        let (reason, location) = (clean(&d.reason), clean(&d.location));
        format!(", most {reason} in {location}")
    });
    format!("{}{most}", units::per_second(frame.drops_per_s))
}

/// Fragments and black holes in a line.
fn fragments(frame: &Frame) -> String {
    format!(
        "fragments {}; {}",
        units::per_second(frame.fragments_per_s),
        units::plural(frame.black_holes, "path MTU black hole", "path MTU black holes"),
    )
}
