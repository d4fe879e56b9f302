//! What changed, and what it brought.

use super::super::{Side, Subject, axis::Ratios, value};
use crate::report::view::{Cell, Depth, Kind, Section, Table, clean};
use nettrace_bench::{
    compare::{Comparison, Metric, Row},
    history,
    load::Mode,
    result::{Change, End, Latencies, Outcome},
    stats::Verdict,
};
use std::collections::BTreeMap;

/// Characters of a bar of effects.
const BAR: usize = 49;
/// Percentiles of all rounds together.
const PERCENTILES: [(&str, f64); 8] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
    ("max", 1.0),
];

/// What the arms differ in; of a run, what was in force, if anything.
pub(super) fn changes(subject: &Subject<'_>) -> Option<Section> {
    let changes: &[Change] = match subject.comparison {
        Some(comparison) => &comparison.changes,
        None => subject.newest().map(|result| result.changes.as_slice()).unwrap_or_default(),
    };
    let mut section = Section::new("changes", "Changes");
    if changes.is_empty() {
        let none = match subject.comparison? {
            _ if subject.is_interleaved() => {
                "None: a placebo. What differs between the arms is noise, or chance."
            }
            _ => "None that nettrace made; what else differs is listed below.",
        };
        section.line(none);
    }
    let columns = [("change", Kind::Text), ("does", Kind::Text)];
    section.table(Table::of("", &columns, changes, usize::MAX, |change| {
        vec![Cell::text(&change.id), Cell::text(&change.what)]
    }));
    Some(section)
}

/// Columns of [`comparison_row`].
pub(in super::super) const fn comparison_columns() -> [(&'static str, Kind); 8] {
    [
        ("metric", Kind::Text),
        ("before", Kind::Number),
        ("after", Kind::Number),
        ("effect", Kind::Number),
        ("interval", Kind::Number),
        ("p", Kind::Number),
        ("shows", Kind::Number),
        ("verdict", Kind::Text),
    ]
}

/// A row as cells.
pub(in super::super) fn comparison_row(row: &Row) -> [Cell; 8] {
    let number = |text: String, sort: f64| Cell { text, sort: Some(value::finite(sort)) };
    let verdict = match (row.verdict, row.rounds_needed) {
        // What as many rounds as there were did not show, that number does not.
        (Verdict::TooNoisy, Some(rounds)) if rounds > row.rounds[0].min(row.rounds[1]) => {
            format!("too noisy: needs {rounds} rounds")
        }
        (verdict, _) => verdict.name().to_owned(),
    };
    [
        Cell::text(row.metric.name()),
        value::cell(row.metric, &row.unit, row.before),
        value::cell(row.metric, &row.unit, row.after),
        number(value::effect(row.metric, row.effect), row.effect),
        number(value::interval(row.metric, row.bounds), row.bounds.map_or(-1.0, |b| b.high - b.low)),
        number(value::probability(row.p_corrected), row.p_corrected),
        number(value::detectable(row), row.detectable.unwrap_or(f64::MAX)),
        Cell { text: verdict, sort: Some(f64::from(row.verdict as u8)) },
    ]
}

pub(super) fn compared(comparison: &Comparison) -> Section {
    let mut section = Section::new("results", "Before and after");
    let mut columns = vec![("load", Kind::Text)];
    columns.extend(comparison_columns());
    section.table(Table::of("", &columns, &comparison.rows, usize::MAX, |row| {
        [Cell::text(&row.load)].into_iter().chain(comparison_row(row)).collect()
    }));
    match section.tables.is_empty() {
        true => section.line("Nothing could be compared."),
        false => section.line(format!(
            "Effect: after by before; of errors, more or less a round. Intervals hold all together with {}, and p is corrected \
             for all rows. Shows: the least effect that such rounds show.",
            value::share(comparison.confidence)
        )),
    }
    section
}

/// Effects with their intervals, drawn.
pub(super) fn forest(comparison: &Comparison) -> Section {
    let mut section = Section::new("effects", "Effects");
    let rows: Vec<&Row> = comparison.rows.iter().filter(|row| row.metric.is_ratio()).collect();
    if rows.is_empty() {
        section.line("There is no ratio to draw.");
        return section;
    }
    (section.figures, section.depth) = (vec!["forest.html"], Depth::More);
    section.line(format!(
        "After by before, log scale: ● effect, ├┤ its interval, │ no effect, ┊ the least effect that matters ({}).",
        value::share(comparison.effect)
    ));
    let ends =
        rows.iter().flat_map(|row| [Some(row.effect), row.bounds.map(|b| b.low), row.bounds.map(|b| b.high)]);
    let axis = Ratios::over(ends.flatten(), comparison.effect);
    let columns =
        [("load", Kind::Text), ("metric", Kind::Text), ("effect", Kind::Number), ("less · more", Kind::Bar)];
    let mut table = Table::of("", &columns, &rows, usize::MAX, |row| {
        vec![
            Cell::text(&row.load),
            Cell::text(row.metric.name()),
            Cell { text: value::ratio(row.effect), sort: None },
            Cell { text: bar(row, axis, comparison.effect), sort: None },
        ]
    });
    table.drawn = true;
    section.table(table);
    section
}

fn bar(row: &Row, axis: Ratios, effect: f64) -> String {
    let cell = |ratio: f64| (axis.position(ratio) * (BAR - 1) as f64).round() as usize;
    let mut bar = vec![' '; BAR];
    for (at, mark) in [(1.0 + effect, '┊'), (1.0 / (1.0 + effect), '┊'), (1.0, '│')] {
        bar[cell(at)] = mark;
    }
    if let Some(bounds) = row.bounds {
        let (low, high) = (cell(bounds.low), cell(bounds.high).max(cell(bounds.low)));
        bar[low..=high].fill('─');
        (bar[low], bar[high]) = ('├', '┤');
    }
    bar[cell(row.effect)] = '●';
    bar.into_iter().collect::<String>().trim_end().to_owned()
}

/// Of runs that are not compared: the middle of their rounds.
pub(super) fn levels(subject: &Subject<'_>) -> Section {
    let mut section = Section::new("results", "Results");
    let all: Vec<(&Side<'_>, history::Levels)> =
        subject.sides.iter().map(|side| (side, history::levels(side.result, side.arm))).collect();
    let unit = |side: &Side<'_>, load: &str, metric: Metric| {
        side.rounds().find_map(|round| round.loads.get(load)).map_or("", |outcome| metric.unit(outcome))
    };
    let rows: Vec<_> = all
        .iter()
        .flat_map(|(side, levels)| levels.iter().map(move |(load, metrics)| (side, load, metrics)))
        .flat_map(|(side, load, metrics)| {
            metrics.iter().map(move |(metric, level)| (*side, load, *metric, *level))
        })
        .collect();
    if rows.is_empty() {
        section.line("No round told anything.");
    }
    let columns = [
        ("run", Kind::Text),
        ("load", Kind::Text),
        ("metric", Kind::Text),
        ("middle of rounds", Kind::Number),
        ("95 % interval", Kind::Number),
        ("rounds", Kind::Number),
    ];
    let one = usize::from(subject.sides.len() == 1);
    section.table(Table::of("", &columns[one..], &rows, usize::MAX, |(side, load, metric, level)| {
        let show = |v| value::of(*metric, unit(side, load, *metric), v);
        let interval = level.bounds.map(|b| format!("{} .. {}", show(b.low), show(b.high)));
        let cells = [
            Cell::text(side.name),
            Cell::text(load),
            Cell::text(metric.name()),
            Cell { text: show(level.middle), sort: Some(value::finite(level.middle)) },
            Cell::unknown(interval.as_deref().unwrap_or("too few rounds")),
            Cell::count(level.rounds as u64),
        ];
        cells.into_iter().skip(one).collect()
    }));
    section
}

/// Latencies of all rounds of a side together.
pub(in super::super) fn merged(side: &Side<'_>, load: &str) -> Latencies {
    merged_of(side, load, |outcome| outcome.latency.as_ref())
}

fn merged_of(side: &Side<'_>, load: &str, pick: fn(&Outcome) -> Option<&Latencies>) -> Latencies {
    let mut all = Latencies::default();
    side.rounds().filter_map(|round| pick(round.loads.get(load)?)).for_each(|l| all.merge(l));
    all
}

/// The whole distributions, which single rounds only have a part of.
pub(super) fn percentiles(subject: &Subject<'_>) -> Section {
    let mut section = Section::new("percentiles", "Percentiles");
    let loads: Vec<(&str, Vec<Latencies>)> = subject
        .loads()
        .into_iter()
        .map(|load| (load, subject.sides.iter().map(|side| merged(side, load)).collect::<Vec<_>>()))
        .filter(|(_, sides)| sides.iter().any(|latencies| latencies.count() > 0))
        .collect();
    if loads.is_empty() {
        section.line("No load has latencies.");
        return section;
    }
    (section.figures, section.depth) = (vec!["curves.html"], Depth::More);
    section.line("Of all rounds together; what they prove is in the table above, which goes by rounds.");
    let mut columns = vec![("load", Kind::Text), ("latency", Kind::Text)];
    columns.extend(subject.sides.iter().map(|side| (side.name, Kind::Number)));
    if subject.sides.len() == 2 {
        columns.push(("ratio", Kind::Number));
    }
    // A percentile beyond which there is no single latency is the maximum.
    let is_told =
        |sides: &[Latencies], q: f64| q >= 1.0 || sides.iter().any(|l| l.count() as f64 * (1.0 - q) >= 1.0);
    let rows: Vec<_> = loads
        .iter()
        .flat_map(|(load, sides)| PERCENTILES.map(|(name, q)| (*load, sides, name, q)))
        .filter(|(_, sides, _, q)| is_told(sides, *q))
        .collect();
    section.table(Table::of("", &columns, &rows, usize::MAX, |(load, sides, name, q)| {
        let at: Vec<Option<u64>> = sides.iter().map(|latencies| latencies.quantile_ns(*q)).collect();
        let cell = |ns: &Option<u64>| ns.map_or_else(|| Cell::unknown("-"), Cell::duration);
        let mut row = vec![Cell::text(load), Cell::text(name)];
        row.extend(at.iter().map(cell));
        if let [before, after] = at[..] {
            row.push(ratio(before, after));
        }
        row
    }));
    section
}

/// After by before.
pub(super) fn ratio(before: Option<u64>, after: Option<u64>) -> Cell {
    match (before, after) {
        (Some(before), Some(after)) if before > 0 => {
            let ratio = after as f64 / before as f64;
            Cell { text: value::ratio(ratio), sort: Some(ratio) }
        }
        _ => Cell::unknown("-"),
    }
}

/// What was counted, how it was paced, where it ran, and what came to nothing.
pub(super) fn counts(subject: &Subject<'_>, top: usize) -> Section {
    let mut section = Section::new("counts", "Counts and errors");
    section.depth = Depth::More;
    let loads = subject.loads();
    let mut columns =
        vec![("load", Kind::Text), ("pace", Kind::Text), ("CPUs", Kind::Text), ("counted", Kind::Text)];
    columns.extend(subject.sides.iter().map(|side| (side.name, Kind::Number)));
    columns.extend(subject.sides.iter().map(|side| (errors_head(side), Kind::Number)));
    section.table(Table::of("", &columns, &loads, usize::MAX, |load| {
        let all: Vec<Vec<&Outcome>> = subject
            .sides
            .iter()
            .map(|side| side.rounds().filter_map(|round| round.loads.get(*load)).collect())
            .collect();
        let newest = all.iter().flatten().last();
        let mut row = vec![
            Cell::text(load),
            Cell::maybe(newest.map(|outcome| pace(outcome)).as_deref()),
            Cell::maybe(newest.map(|outcome| placement(outcome)).as_deref()),
            Cell::maybe(newest.map(|outcome| outcome.unit.per_second().trim_end_matches("/s"))),
        ];
        let sum = |of: fn(&Outcome) -> u64, side: &[&Outcome]| {
            Cell::count(side.iter().fold(0, |sum, outcome| sum.saturating_add(of(outcome))))
        };
        row.extend(all.iter().map(|side| sum(|outcome| outcome.count, side)));
        row.extend(all.iter().map(|side| sum(Outcome::error_count, side)));
        row
    }));
    section.table(reasons(subject, top));
    section.table(punctuality(subject));
    if section.tables.is_empty() {
        section.line("No load ran.");
    }
    section
}

fn errors_head(side: &Side<'_>) -> &'static str {
    match side.name {
        "before" => "errors before",
        "after" => "errors after",
        _ => "errors",
    }
}

/// Errors by reason.
fn reasons(subject: &Subject<'_>, top: usize) -> Table {
    let mut all: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    for (n, side) in subject.sides.iter().enumerate() {
        for (load, outcome) in side.rounds().flat_map(|round| &round.loads) {
            for (reason, count) in outcome.errors.iter().filter(|(_, count)| **count > 0) {
                let counts = all.entry((load, reason)).or_insert_with(|| vec![0; subject.sides.len()]);
                counts[n] = counts[n].saturating_add(*count);
            }
        }
    }
    let all: Vec<_> = all.into_iter().collect();
    let mut columns = vec![("load", Kind::Text), ("error", Kind::Text)];
    columns.extend(subject.sides.iter().map(|side| (side.name, Kind::Number)));
    Table::of("Errors by reason", &columns, &all, top, |((load, reason), counts)| {
        [Cell::text(load), Cell::text(reason)]
            .into_iter()
            .chain(counts.iter().map(|n| Cell::count(*n)))
            .collect()
    })
}

/// Of open loops: how late the generator was, and how long an answer took from the time of sending.
fn punctuality(subject: &Subject<'_>) -> Table {
    const PARTS: [fn(&Outcome) -> Option<&Latencies>; 2] =
        [|outcome| outcome.lateness.as_ref(), |outcome| outcome.service.as_ref()];
    let p99 = |load: &str, pick: fn(&Outcome) -> Option<&Latencies>| -> Vec<Option<u64>> {
        subject.sides.iter().map(|side| merged_of(side, load, pick).quantile_ns(0.99)).collect()
    };
    let of_load = |load| (load, PARTS.map(|pick| p99(load, pick)).concat());
    let all = subject.loads().into_iter().map(of_load);
    let all: Vec<(&str, Vec<Option<u64>>)> =
        all.filter(|(_, parts)| parts.iter().any(Option::is_some)).collect();
    let heads: &[&'static str] = match subject.sides.len() {
        2 => &["late before", "late after", "from sending before", "from sending after"],
        _ => &["late", "from sending"],
    };
    let mut columns = vec![("load", Kind::Text)];
    columns.extend(heads.iter().map(|head| (*head, Kind::Number)));
    Table::of(
        "p99 of how late open loops sent, and of answers from then on",
        &columns,
        &all,
        usize::MAX,
        |(load, parts)| {
            let cell = |ns: &Option<u64>| ns.map_or_else(|| Cell::unknown("-"), Cell::duration);
            [Cell::text(load)].into_iter().chain(parts.iter().map(cell)).collect()
        },
    )
}

fn pace(outcome: &Outcome) -> String {
    match outcome.mode {
        Mode::Closed if outcome.latency.is_some() => "closed loop: stalls hide from it".to_owned(),
        Mode::Closed => "as fast as it goes".to_owned(),
        open => open.name().to_owned(),
    }
}

fn placement(outcome: &Outcome) -> String {
    let list = |end: &End| match &end.pinned.cpus[..] {
        [] => "any".to_owned(),
        cpus => cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
    };
    clean(&format!("client {}, server {}", list(&outcome.client), list(&outcome.server)))
}
