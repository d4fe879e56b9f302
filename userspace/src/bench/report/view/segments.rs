//! Where the time went: what nettrace's own probes saw, before and after.

use super::{super::Subject, results::ratio};
use crate::report::view::{Cell, Kind, PATH_ORDER, Section, Table};
use nettrace_bench::result::{Latencies, Segment};

/// Of each side, those that saw something: in the order of a packet's way, unknown ones behind.
pub(in super::super) fn in_path_order<'a>(
    subject: &Subject<'a>,
) -> Vec<(&'a str, Vec<Option<&'a Latencies>>)> {
    let find = |segments: &'a [Segment], name: &str, arm: usize| {
        let segment = segments.iter().find(|segment| segment.signal == name)?;
        Some(&segment.latency[arm]).filter(|latencies| latencies.count() > 0)
    };
    let mut names: Vec<&str> =
        subject.sides.iter().flat_map(|side| &side.result.segments).map(|s| s.signal.as_str()).collect();
    let place = |name: &str| PATH_ORDER.iter().position(|s| s.name() == name).unwrap_or(PATH_ORDER.len());
    names.sort_by_key(|name| (place(name), *name));
    names.dedup();
    names
        .into_iter()
        .map(|name| {
            let of_side = |side: &super::super::Side<'a>| find(&side.result.segments, name, side.index());
            (name, subject.sides.iter().map(of_side).collect::<Vec<_>>())
        })
        .filter(|(_, sides)| sides.iter().any(Option::is_some))
        .collect()
}

pub(super) fn section(subject: &Subject<'_>) -> Section {
    let mut section = Section::new("segments", "Where the time went");
    let segments = in_path_order(subject);
    if segments.is_empty() {
        section.line("nettrace's own probes did not look on, or saw nothing.");
        return section;
    }
    section.figures = vec!["waterfall.html"];
    section.line("What nettrace's own probes saw of all packets, those of the loads and others, in the order of a packet's way.");
    let is_pair = subject.sides.len() == 2;
    let columns: &[(&str, Kind)] = if is_pair {
        &[
            ("signal", Kind::Text),
            ("p50 before", Kind::Number),
            ("after", Kind::Number),
            ("ratio", Kind::Number),
            ("p99 before", Kind::Number),
            ("after", Kind::Number),
            ("ratio", Kind::Number),
            ("seen before", Kind::Number),
            ("after", Kind::Number),
        ]
    } else {
        &[("signal", Kind::Text), ("p50", Kind::Number), ("p99", Kind::Number), ("seen", Kind::Number)]
    };
    section.table(Table::of("", columns, &segments, usize::MAX, |(name, sides)| {
        let mut row = vec![Cell::text(name)];
        for q in [0.5, 0.99] {
            let at: Vec<_> = sides.iter().map(|side| side.and_then(|l| l.quantile_ns(q))).collect();
            row.extend(at.iter().map(|ns| ns.map_or_else(|| Cell::unknown("-"), Cell::duration)));
            if let [before, after] = at[..] {
                row.push(ratio(before, after));
            }
        }
        row.extend(sides.iter().map(|side| Cell::count(side.map_or(0, Latencies::count))));
        row
    }));
    section
}
