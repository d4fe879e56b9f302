//! Where time goes: the segments of a packet's way, for all interfaces together and for each.

use super::{super::scale::LogScale, Cell, Kind, Section, Table, clean};
use crate::snapshot::{Interface, SignalData, Snapshot};
use nettrace_common::Signal;
use std::{cmp::Reverse, collections::BTreeMap};

/// The order in which a packet meets the segments, then the round trips.
pub(crate) const PATH_ORDER: [Signal; Signal::COUNT] = [
    Signal::RxSoftirq,
    Signal::RxStack,
    Signal::RxSocket,
    Signal::RxTotal,
    Signal::TxStack,
    Signal::TxQdisc,
    Signal::TxDriver,
    Signal::FwdHost,
    Signal::NetRtt,
    Signal::TcpSrtt,
    Signal::TcpConnect,
    Signal::TcpAccept,
    Signal::IpReassembly,
    Signal::IpFragmenting,
    Signal::IpDefragmenting,
    Signal::NfHook,
    Signal::CtIn,
    Signal::CtConfirm,
    Signal::DnsLatency,
];

/// Place of a signal in [`PATH_ORDER`]; unknown ones come last.
fn place(data: &SignalData) -> usize {
    PATH_ORDER.iter().position(|s| s.name() == data.signal).unwrap_or(PATH_ORDER.len())
}

/// The signals of all interfaces together, in path order, without empty ones.
pub(in crate::report) fn in_path_order(snapshot: &Snapshot) -> Vec<&SignalData> {
    let mut signals: Vec<_> =
        snapshot.signals.iter().filter(|s| s.scope == "all" && !s.hist.is_empty()).collect();
    signals.sort_by_key(|s| place(s));
    signals
}

pub(super) const QUANTILES: [(&str, Kind); 6] = [
    ("p50", Kind::Number),
    ("p90", Kind::Number),
    ("p99", Kind::Number),
    ("p99.9", Kind::Number),
    ("max", Kind::Number),
    ("count", Kind::Number),
];

/// A quantile, ns; never above the exact maximum, as a bucket's upper bound may be.
pub(in crate::report) fn quantile_ns(data: &SignalData, q: f64) -> u64 {
    data.hist.quantile_ns(q).min(data.max_ns)
}

pub(super) fn quantiles(data: &SignalData) -> impl Iterator<Item = Cell> {
    let at = |q| Cell::duration(quantile_ns(data, q));
    [at(0.5), at(0.9), at(0.99), at(0.999), Cell::duration(data.max_ns), Cell::count(data.hist.count())]
        .into_iter()
}

/// The section on all interfaces together.
pub(super) fn overall(snapshot: &Snapshot) -> Section {
    let mut section = Section::new("time", "Where time goes");
    let signals = in_path_order(snapshot);
    if signals.is_empty() {
        section.line("No latency was measured.");
        return section;
    }
    section.figures = vec!["waterfall.html", "curves.html"];
    let scale = LogScale::over(signals.iter().flat_map(|s| [quantile_ns(s, 0.5), s.max_ns]));
    let mut columns = vec![("signal", Kind::Text)];
    columns.extend(QUANTILES);
    columns.push(("log scale", Kind::Bar));
    section.table(Table::of("", &columns, &signals, usize::MAX, |s| {
        let mut row = vec![Cell::text(&s.signal)];
        row.extend(quantiles(s));
        row.push(Cell { text: bar(s, scale), sort: None });
        row
    }));
    let (low, high) = (scale.decades().next(), scale.decades().last());
    if let (Some((_, low)), Some((_, high))) = (low, high) {
        section.line(format!("Bars: log scale from {low} to {high}; █ p50 to p90, ▓ to p99, ░ to max."));
    }
    section
}

/// Characters in a bar.
const BAR: usize = 24;

/// The range from the median to the maximum on the axis.
fn bar(data: &SignalData, scale: LogScale) -> String {
    let cell = |ns| ((scale.position(ns) * BAR as f64) as usize).min(BAR - 1);
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| cell(quantile_ns(data, q)));
    (0..=cell(data.max_ns).max(p99))
        .map(|i| match i {
            i if i < p50 => ' ',
            i if i <= p90 => '█',
            i if i <= p99 => '▓',
            _ => '░',
        })
        .collect()
}

/// The section on single interfaces, if there are scopes of their own or interfaces that were not measured.
pub(super) fn by_interface(snapshot: &Snapshot, top: usize) -> Option<Section> {
    let of_an_interface =
        |s: &&SignalData| s.scope != "all" && s.signal != Signal::NfHook.name() && !s.hist.is_empty();
    let mut scoped: Vec<&SignalData> = snapshot.signals.iter().filter(of_an_interface).collect();
    if scoped.is_empty() && snapshot.interfaces.is_empty() {
        return None;
    }
    let mut section = Section::new("interfaces", "Interfaces");
    // The busiest interface comes first, so that `top` keeps those that matter.
    let mut busiest: BTreeMap<&str, u64> = BTreeMap::new();
    for s in &scoped {
        let most = busiest.entry(&s.scope).or_default();
        *most = s.hist.count().max(*most);
    }
    scoped.sort_by_key(|s| (Reverse(busiest.get(s.scope.as_str())), &s.scope, place(s)));
    let mut columns = vec![("interface", Kind::Text), ("signal", Kind::Text)];
    columns.extend(QUANTILES);
    section.table(Table::of("Latency", &columns, &scoped, top, |s| {
        let mut row = vec![Cell::text(&s.scope), Cell::text(&s.signal)];
        row.extend(quantiles(s));
        row
    }));
    let columns = [
        ("interface", Kind::Text),
        ("index", Kind::Number),
        ("network namespace", Kind::Text),
        ("attached", Kind::Text),
        ("remark", Kind::Text),
    ];
    section.table(Table::of("What was attached", &columns, &snapshot.interfaces, top, |i| {
        vec![
            Cell::text(&i.name),
            Cell::count(u64::from(i.ifindex)),
            Cell::text(&i.netns),
            Cell::text(&if i.attached.is_empty() { "nothing".to_owned() } else { i.attached.join(", ") }),
            Cell { text: remark(i), sort: None },
        ]
    }));
    Some(section)
}

fn remark(interface: &Interface) -> String {
    let gone = interface.gone.then(|| "vanished before the end".to_owned());
    let remarks: Vec<_> = gone.into_iter().chain(interface.error.as_deref().map(clean)).collect();
    if remarks.is_empty() { "-".to_owned() } else { remarks.join("; ") }
}
