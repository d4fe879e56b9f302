//! What a report says, independent of its format: facts, highlights, and sections of lines and tables, with every
//! number already formatted.
//!
//! Needs a [`Snapshot`] and how many rows a table may have; yields a [`View`]. Strings that come from outside pass
//! [`clean`], so that no writer ever sees a control character.

mod advice;
mod conntrack;
mod dns;
mod drops;
mod flight;
mod highlights;
mod latency;
mod netfilter;
mod path;
mod status;
mod tcp;

pub(crate) use latency::PATH_ORDER;
pub(super) use latency::{in_path_order, quantile_ns};

use super::units;
use crate::snapshot::{Probe, Rotated, Snapshot};
use nettrace_common::Signal;
use serde::Serialize;

/// A whole report.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// What kind of report it is.
    pub kind: &'static str,
    /// Of what: the node's name, or a scenario's.
    pub title: String,
    /// The answer, where the report has a single one.
    pub verdict: Option<Verdict>,
    /// When, where, how; in the order to show them.
    pub facts: Vec<Fact>,
    /// What to know first.
    pub highlights: Vec<Highlight>,
    /// Everything else.
    pub sections: Vec<Section>,
    /// What is to be known of all numbers.
    pub foot: &'static str,
}

/// The answer in one sentence.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Whether it is good news.
    pub level: Level,
    /// The sentence.
    pub text: String,
}

/// One line of the head.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// What it is.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

/// How much a highlight asks for attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// Probably wrong.
    Warn,
    /// Somebody's traffic failed.
    Bad,
}

impl Level {
    /// One character that stands for it.
    #[must_use]
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Note => "•",
            Self::Warn => "!",
            Self::Bad => "✗",
        }
    }
}

/// One sentence computed from the data.
#[derive(Clone, Debug, Serialize)]
pub struct Highlight {
    /// How much it asks for attention.
    pub level: Level,
    /// The sentence.
    pub text: String,
    /// [`Section::id`] of the section that has the details.
    pub section: &'static str,
}

/// A titled part.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// Short name, for links.
    pub id: &'static str,
    /// Title.
    pub title: &'static str,
    /// Lines before the tables.
    pub lines: Vec<String>,
    /// Tables, none of them empty.
    pub tables: Vec<Table>,
    /// Templates of the plots that HTML has in place of the lines.
    pub figures: Vec<&'static str>,
    /// How much it matters.
    pub depth: Depth,
}

/// For whom a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// For everybody.
    Main,
    /// For those who want to know more: not in sight where a text is to be short.
    More,
    /// For those who look something up: closed, where the format can close it.
    Detail,
}

impl Section {
    pub(crate) const fn new(id: &'static str, title: &'static str) -> Self {
        Self { id, title, lines: Vec::new(), tables: Vec::new(), figures: Vec::new(), depth: Depth::Main }
    }

    pub(crate) fn line(&mut self, text: impl Into<String>) {
        self.lines.push(text.into());
    }

    /// Adds a table unless it has no rows.
    pub(crate) fn table(&mut self, table: Table) {
        if !table.rows.is_empty() {
            self.tables.push(table);
        }
    }
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Words: aligned left, may be wrapped.
    Text,
    /// Numbers with units: aligned right, never wrapped.
    Number,
    /// A bar of block characters; HTML has plots instead.
    Bar,
}

/// A column's head.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Column {
    /// Title.
    pub title: &'static str,
    /// What it holds.
    pub kind: Kind,
}

/// One cell.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// What it shows.
    pub text: String,
    /// What it sorts by, if not by its text.
    pub sort: Option<f64>,
}

/// A table.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// Title; empty when the section's own will do.
    pub caption: &'static str,
    /// Heads of the columns.
    pub columns: Vec<Column>,
    /// Rows, each as long as `columns`.
    pub rows: Vec<Vec<Cell>>,
    /// Rows that were left out.
    pub more: Option<String>,
    /// Whether a plot shows the same: HTML leaves the table out.
    pub drawn: bool,
}

impl Table {
    /// A table of the first `top` items.
    pub(crate) fn of<T>(
        caption: &'static str,
        columns: &[(&'static str, Kind)],
        items: &[T],
        top: usize,
        row: impl FnMut(&T) -> Vec<Cell>,
    ) -> Self {
        let left_out = items.len().saturating_sub(top) as u64;
        Self {
            caption,
            columns: columns.iter().map(|&(title, kind)| Column { title, kind }).collect(),
            rows: items.iter().take(top).map(row).collect(),
            more: (left_out > 0)
                .then(|| format!("and {} (raise --top)", units::plural(left_out, "more row", "more rows"))),
            drawn: false,
        }
    }
}

impl Cell {
    /// A string from outside.
    pub(crate) fn text(text: &str) -> Self {
        Self { text: clean(text), sort: None }
    }

    /// A string from outside that may be missing.
    pub(crate) fn maybe(text: Option<&str>) -> Self {
        Self::text(text.unwrap_or("-"))
    }

    pub(crate) fn count(n: u64) -> Self {
        Self { text: units::count(n), sort: Some(n as f64) }
    }

    pub(crate) fn duration(ns: u64) -> Self {
        Self { text: units::duration(ns), sort: Some(ns as f64) }
    }

    pub(crate) fn bytes(n: u64) -> Self {
        Self { text: units::bytes(n), sort: Some(n as f64) }
    }

    /// A number that is not known; sorts below all others.
    pub(crate) fn unknown(text: &str) -> Self {
        Self { text: text.to_owned(), sort: Some(-1.0) }
    }
}

/// Characters that a string from outside may have; longer ones are cut.
const MAX_CHARS: usize = 300;

/// Makes a string from outside safe to print: control characters, line ends and those that turn the direction of
/// writing are spelled out, and it has an end.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut safe = String::with_capacity(text.len().min(MAX_CHARS));
    for (n, c) in text.chars().enumerate() {
        if n == MAX_CHARS {
            safe.push('…');
            break;
        }
        let invisible = matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
        match c {
            '\n' | '\r' | '\t' => safe.extend(c.escape_default()),
            c if c.is_control() || invisible => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

/// Builds the view; tables have at most `top` rows.
#[must_use]
pub fn build(snapshot: &Snapshot, top: usize) -> View {
    let mut sections: Vec<_> = flight::section(snapshot).into_iter().collect();
    sections.push(latency::overall(snapshot));
    sections.extend(latency::by_interface(snapshot, top));
    sections.extend([
        dns::section(snapshot, top),
        tcp::section(snapshot, top),
        path::fragments(snapshot, top),
        netfilter::section(snapshot),
        conntrack::section(snapshot, top),
        drops::section(snapshot, top),
        path::slowest(snapshot, top),
        status::losses(snapshot),
        status::probes(snapshot),
        status::cost(snapshot, top),
        advice::section(snapshot),
    ]);
    View {
        kind: "nettrace report",
        title: clean(&snapshot.meta.hostname),
        verdict: None,
        facts: facts(snapshot),
        highlights: highlights::all(snapshot),
        sections,
        foot: "Latencies are shown to three digits; histogram buckets are at most 0.8 % wide.",
    }
}

/// A line for a section without data: nothing happened, or nobody looked.
fn nothing(snapshot: &Snapshot, what: &str, probes: &[&str]) -> String {
    let of_it = |p: &&Probe| p.source.is_none() && probes.iter().any(|n| p.name.starts_with(n));
    let (left_out, off): (Vec<_>, Vec<_>) =
        snapshot.probes.iter().filter(of_it).partition(|p| status::is_left_out(p));
    let mut why = Vec::new();
    if !off.is_empty() {
        let off = off.iter().map(|p| {
            format!("{} ({})", clean(&p.name), clean(p.reason.as_deref().unwrap_or("no reason given")))
        });
        why.push(format!("off: {}", off.collect::<Vec<_>>().join(", ")));
    }
    if !left_out.is_empty() {
        let left_out: Vec<_> = left_out.iter().map(|p| clean(&p.name)).collect();
        why.push(format!("not selected: {}", left_out.join(", ")));
    }
    if why.is_empty() {
        format!("{what}.")
    } else {
        format!("{what}, but not everything was looked at; {}.", why.join("; "))
    }
}

fn facts(snapshot: &Snapshot) -> Vec<Fact> {
    let meta = &snapshot.meta;
    let cpus = units::plural(u64::from(meta.cpus), "CPU", "CPUs");
    let lost = snapshot.losses.iter().fold(0_u64, |sum, loss| sum.saturating_add(loss.count));
    let mut facts = vec![
        Fact { name: "Node", value: clean(&meta.hostname) },
        Fact { name: "Kernel", value: format!("{} {}, {cpus}", clean(&meta.kernel), clean(&meta.arch)) },
        Fact {
            name: "When",
            value: format!("{}, for {}", units::utc(meta.start_unix_ns), units::duration(meta.duration_ns)),
        },
        Fact { name: "Filter", value: meta.filter.as_deref().map_or("none".to_owned(), clean) },
        Fact { name: "Packets timed", value: packets(snapshot) },
        Fact {
            name: "Lost",
            value: match lost {
                0 => "nothing".to_owned(),
                n => units::plural(n, "measurement", "measurements"),
            },
        },
        Fact { name: "Written by", value: format!("nettrace {}", clean(&meta.version)) },
    ];
    if let Some(cause) = flight::fact(snapshot) {
        facts.insert(3, cause);
    }
    if let Some(rotated) = meta.rotated {
        facts.insert(
            3,
            Fact { name: "Recording", value: format!("without its start: {} rotated away", files(rotated)) },
        );
    }
    if meta.lab {
        facts.insert(1, Fact { name: "Traffic", value: "made by the built-in lab".to_owned() });
    }
    facts
}

/// Files of a recording and their size: `3 files (12.3 MiB)`.
fn files(rotated: Rotated) -> String {
    let files = units::plural(u64::from(rotated.files), "file", "files");
    format!("{files} ({})", units::bytes(rotated.size_bytes))
}

/// Packets that were timed, each counted at its most complete point.
fn packets(snapshot: &Snapshot) -> String {
    let most = |signals: &[Signal]| {
        signals.iter().filter_map(|s| snapshot.signal(*s)).map(|s| s.hist.count()).max().unwrap_or(0)
    };
    let share = match snapshot.packets.untimed {
        0 => String::new(),
        _ => format!("; {} of all, see below", units::percent(snapshot.packets.timed_share())),
    };
    format!(
        "{} received, {} sent, {} forwarded{share}",
        units::count(most(&[Signal::RxStack, Signal::RxSocket, Signal::RxTotal])),
        units::count(most(&[Signal::TxStack, Signal::TxQdisc, Signal::TxDriver])),
        units::count(most(&[Signal::FwdHost])),
    )
}
