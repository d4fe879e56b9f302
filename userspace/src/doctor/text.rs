//! The diagnosis for a terminal: the answer first, then signals by source, then the node.

use super::{Area, Basis, Check, Diagnosis, Row, State};
use crate::report::{
    Options,
    text::{GAP, Page, Style, wrap},
    units::plural,
    view::{Level, clean},
};
use unicode_width::UnicodeWidthStr as _;

/// Columns for a source at most; longer ones are wrapped.
const SOURCE_COLUMNS: usize = 40;

/// Writes the diagnosis.
#[must_use]
pub fn render(diagnosis: &Diagnosis, options: &Options) -> String {
    let page = Page::new(options);
    let mut out = String::new();
    let (level, answer) = answer(diagnosis);
    marked(&page, &mut out, level, "", &answer);
    head(&page, &mut out, "signals");
    page.hang(&mut out, "", &basis(diagnosis));
    out.push('\n');
    signals(&page, &mut out, diagnosis);
    for area in [Area::Kernel, Area::Bpf, Area::Mounts, Area::Network] {
        head(&page, &mut out, title(area));
        let checks: Vec<_> = diagnosis.checks.iter().filter(|check| check.area == area).collect();
        let name_columns = checks.iter().map(|check| check.name.width()).max().unwrap_or(0);
        for check in checks {
            line(&page, &mut out, check, name_columns);
        }
    }
    out
}

const fn title(area: Area) -> &'static str {
    match area {
        Area::Kernel => "kernel",
        Area::Bpf => "loading and running programs",
        Area::Mounts => "mounts",
        Area::Network => "network",
    }
}

const fn level(state: State) -> Level {
    match state {
        State::Ok => Level::Good,
        State::Note => Level::Note,
        State::Problem => Level::Bad,
    }
}

fn answer(diagnosis: &Diagnosis) -> (Level, String) {
    let count = |state| diagnosis.checks.iter().filter(|check| check.state == state).count() as u64;
    let off = diagnosis.signals.iter().filter(|row| row.source.is_none()).count();
    let of = diagnosis.signals.len();
    if !diagnosis.ready {
        let problems = plural(count(State::Problem), "problem", "problems");
        return (Level::Bad, format!("`nettrace run` would not work: {problems}, marked ✗ below."));
    }
    let signals = match off {
        0 => format!("all {of} signals"),
        _ => format!("{} of {of} signals", of - off),
    };
    let notes = match count(State::Note) {
        0 => String::new(),
        n => format!("; {} on the node, marked • below", plural(n, "note", "notes")),
    };
    (Level::Good, format!("`nettrace run` would work, with {signals}{notes}."))
}

fn basis(diagnosis: &Diagnosis) -> String {
    let why = diagnosis.basis_reason.as_deref().map(clean).unwrap_or_default();
    match diagnosis.basis {
        Basis::Verifier => {
            "The kernel verified every program; none was attached, and none is left.".to_owned()
        }
        Basis::Btf => format!("Judged by the kernel's BTF alone, because {why}."),
        Basis::Nothing => format!("Not known, because {why}."),
    }
}

fn head(page: &Page, out: &mut String, title: &str) {
    out.push_str(&format!("\n{}\n", page.paint(Style::Title, &title.to_uppercase())));
}

fn signals(page: &Page, out: &mut String, diagnosis: &Diagnosis) {
    let rows: &[Row] = &diagnosis.signals;
    let off = if diagnosis.basis == Basis::Nothing { "not known" } else { "off" };
    let name_columns = rows.iter().map(|row| row.name.width()).max().unwrap_or(0);
    let gap = " ".repeat(GAP);
    let before = 2 + name_columns + GAP;
    let reason_columns = page.width.saturating_sub(before + SOURCE_COLUMNS + GAP);
    let heads = format!(
        "  {:name_columns$}{gap}{:SOURCE_COLUMNS$}{gap}{}",
        "signal", "source", "why off, or not better"
    );
    out.push_str(&page.paint(Style::Head, &heads));
    out.push('\n');
    for row in rows {
        let level = level(row.state);
        out.push_str(&page.paint(Style::Level(level), level.mark()));
        let source = wrap(&clean(row.source.as_deref().unwrap_or(off)), SOURCE_COLUMNS);
        let reason = row.reason.as_deref().map(|r| wrap(&clean(r), reason_columns)).unwrap_or_default();
        for n in 0..source.len().max(reason.len()) {
            let of = |lines: &[String]| lines.get(n).cloned().unwrap_or_default();
            let (name, indent) = if n == 0 { (row.name.as_str(), " ") } else { ("", "  ") };
            let text = format!(
                "{indent}{name:name_columns$}{gap}{:SOURCE_COLUMNS$}{gap}{}",
                of(&source),
                of(&reason)
            );
            out.push_str(text.trim_end());
            out.push('\n');
        }
    }
}

/// `✓ JIT  on (FILE)`, and below it why and what to do.
fn line(page: &Page, out: &mut String, check: &Check, name_columns: usize) {
    let from = paths(&check.from);
    let value = if from.is_empty() { check.value.clone() } else { format!("{} ({from})", check.value) };
    let name = format!("{:name_columns$}  ", check.name);
    marked(page, out, level(check.state), &name, &clean(&value));
    let indent = " ".repeat(2 + name.width());
    if let Some(reason) = &check.reason {
        page.hang(out, &indent, &clean(reason));
    }
    if let Some(hint) = &check.hint {
        page.hang(out, &format!("{indent}→ "), &clean(hint));
    }
}

/// Files, those of the directory that was named last by their name alone.
fn paths(from: &[String]) -> String {
    let mut shown: Vec<&str> = Vec::new();
    let mut last = "";
    for path in from {
        let (dir, name) = path.rsplit_once('/').unwrap_or_default();
        shown.push(if !dir.is_empty() && dir == last { name } else { path });
        last = dir;
    }
    shown.join(", ")
}

/// A paragraph that begins with a mark and a name.
fn marked(page: &Page, out: &mut String, level: Level, name: &str, text: &str) {
    let mut paragraph = String::new();
    page.hang(&mut paragraph, &format!("{} {name}", level.mark()), text);
    out.push_str(&page.paint(Style::Level(level), level.mark()));
    out.push_str(paragraph.strip_prefix(level.mark()).unwrap_or(&paragraph));
}
