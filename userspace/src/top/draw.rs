//! Draws a state: one line of head, one of views, one of help at the bottom, and the view between.
//!
//! Needs a [`State`] and the time; yields cells of a buffer. Whatever the size, nothing is written outside.

use super::{
    graph,
    overview::{self, Line},
    sheet::{self, Sheet},
    state::{Mode, Source, State, Tab},
    theme::Theme,
};
use crate::{
    live::SignalFrame,
    report::{
        scale::LogScale,
        units,
        view::{Kind, Level, clean},
    },
};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Modifier, Style},
};
use unicode_width::UnicodeWidthStr as _;

/// Lines that are not the view's.
pub(super) const FRAME: u16 = 3;
/// Spaces between columns.
const GAP: usize = 2;
/// Words of a table share so much of the width at most, before other columns are left out for them.
const WORDS_SHARE: f64 = 0.4;
/// No column of words is narrower.
const MIN_WORDS: usize = 4;
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// A part of the screen, and how to write there.
struct Pen<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    theme: Theme,
}

impl Pen<'_> {
    fn width(&self) -> usize {
        usize::from(self.area.width)
    }

    fn height(&self) -> usize {
        usize::from(self.area.height)
    }

    /// Writes from a column on, in as many columns as there are.
    fn put(&mut self, row: usize, column: usize, width: usize, text: &str, style: Style) {
        let room = self.width().saturating_sub(column).min(width);
        if row >= self.height() || room == 0 {
            return;
        }
        let text = self.theme.fit(text, room);
        // Both are smaller than the area's sides, which are u16.
        let (x, y) = (self.area.x + column as u16, self.area.y + row as u16);
        self.buffer.set_stringn(x, y, text, room, style);
    }

    fn line(&mut self, row: usize, text: &str, style: Style) {
        self.put(row, 0, self.width(), text, style);
    }

    /// The whole of a row, also where nothing is written.
    fn paint(&mut self, row: usize, style: Style) {
        if row < self.height() {
            let area = Rect { y: self.area.y + row as u16, height: 1, ..self.area };
            self.buffer.set_style(area, style);
        }
    }

    /// The same without the first rows.
    fn below(&mut self, rows: usize) -> Pen<'_> {
        let rows = rows.min(self.height()) as u16;
        let area = Rect { y: self.area.y + rows, height: self.area.height - rows, ..self.area };
        Pen { buffer: self.buffer, area, theme: self.theme }
    }
}

/// Draws everything.
pub(super) fn draw(state: &State, now_ms: u64, buffer: &mut Buffer) {
    let area = buffer.area;
    let mut pen = Pen { buffer, area, theme: state.theme };
    head(&mut pen, state, now_ms);
    tabs(&mut pen, state);
    let last = pen.height().saturating_sub(1);
    if last > 0 {
        pen.line(last, &help_line(state, usize::from(area.width)), REVERSED);
        pen.paint(last, REVERSED);
    }
    let body = Rect { y: area.y + 2.min(area.height), height: area.height.saturating_sub(FRAME), ..area };
    let mut pen = Pen { area: body, ..pen };
    match state.mode {
        Mode::Help => help(&mut pen),
        Mode::Finding(from) => details(&mut pen, state, from),
        Mode::Look | Mode::Filter => view(&mut pen, state),
    }
}

/// Who, when, and whether what is shown is what is.
fn head(pen: &mut Pen<'_>, state: &State, now_ms: u64) {
    let (level, status) = status(state, now_ms);
    let time = state.frame().map_or_else(String::new, |f| format!("  {}", time(f.at_unix_ms)));
    let node = state.frame().map_or_else(String::new, |f| format!("  {}", clean(&f.hostname)));
    let source = match &state.source {
        Source::Own => String::new(),
        Source::Agent(url) => format!("  {}", clean(url)),
    };
    // A trouble is told at the cost of what is known anyway.
    let room = pen.width().saturating_sub("nettrace top ".len());
    let status = pen.theme.fit(&status, room).into_owned();
    let left = pen.width().saturating_sub(status.width() + 1);
    pen.put(0, 0, left, &format!("nettrace top{node}{time}{source}"), BOLD);
    pen.put(0, left + 1, status.width(), &status, BOLD);
    pen.paint(0, pen.theme.level_style(level).patch(REVERSED));
}

fn status(state: &State, now_ms: u64) -> (Level, String) {
    let seconds = |ms: u64| units::duration((ms / 1_000).saturating_mul(1_000_000_000));
    match (&state.lost, state.stale_ms(now_ms)) {
        (Some(why), _) => (Level::Bad, format!("LOST: {why}; trying again")),
        (None, Some(age_ms)) if state.frames.back().is_some() => {
            (Level::Bad, format!("STALE: no window for {}", seconds(age_ms)))
        }
        (None, Some(age_ms)) => (Level::Bad, format!("no window yet for {}", seconds(age_ms))),
        _ if state.held.is_some() => (Level::Warn, "PAUSED".to_owned()),
        _ => match (&state.note, state.frame()) {
            (Some(note), _) => (Level::Note, note.clone()),
            (None, Some(frame)) => (
                Level::Note,
                format!("window {}", units::duration(frame.window_ms.saturating_mul(1_000_000))),
            ),
            (None, None) => (Level::Note, "waiting".to_owned()),
        },
    }
}

/// `13:45:07 UTC`.
fn time(unix_ms: u64) -> String {
    let utc = units::utc(unix_ms.saturating_mul(1_000_000));
    utc.split_once(' ').map_or(utc.clone(), |(_, time)| time.to_owned())
}

fn tabs(pen: &mut Pen<'_>, state: &State) {
    let titles: Vec<String> =
        Tab::ALL.iter().zip(1..).map(|(tab, n)| format!("{n} {}", tab.title())).collect();
    let all: usize = titles.iter().map(String::len).sum();
    let gaps = titles.len() - 1;
    let gap = (pen.width().saturating_sub(all) / gaps).clamp(1, 2);
    // Where not all fit, those before the one that is looked at give way.
    let wide = |from: usize, to: usize| titles[from..=to].iter().map(|t| t.len() + gap).sum::<usize>();
    let mut from = 0;
    while from < state.tab as usize && wide(from, state.tab as usize) > pen.width() + gap {
        from += 1;
    }
    let mut column = 0;
    for (tab, title) in Tab::ALL.iter().zip(&titles).skip(from) {
        let style = if *tab == state.tab { BOLD.patch(REVERSED) } else { Style::new() };
        pen.put(1, column, title.len(), title, style);
        column += title.len() + gap;
    }
}

fn help_line(state: &State, width: usize) -> String {
    let items: &[&str] = match state.mode {
        Mode::Help => &["any key goes back", "q quit"],
        Mode::Finding(_) => &["Esc back", "Up Down scroll", "q quit"],
        Mode::Filter => &["Enter keep", "Esc all rows", "words, all of which a row must have"],
        Mode::Look if state.tab == Tab::Overview => {
            &["q quit", "? help", "1-7 Tab view", "space pause", "Up Down scroll"]
        }
        Mode::Look if state.tab == Tab::Findings => &[
            "q quit",
            "? help",
            "1-7 view",
            "Enter details",
            "/ filter",
            "< > sort",
            "r reverse",
            "space pause",
        ],
        Mode::Look => &[
            "q quit",
            "? help",
            "1-7 view",
            "< > sort",
            "r reverse",
            "/ filter",
            "space pause",
            "Left Right table",
        ],
    };
    let mut line = String::new();
    for item in items {
        let gap = if line.is_empty() { 0 } else { GAP };
        if line.width() + gap + item.width() > width {
            break;
        }
        line.push_str(&" ".repeat(gap));
        line.push_str(item);
    }
    line
}

/// Keys and what they do.
const KEYS: [(&str, &str); 11] = [
    ("1 - 7", "view; also Tab, Shift-Tab"),
    ("Up Down", "a row; also k j, PageUp PageDown, Home End"),
    ("Left Right", "the other table of a view; also h l"),
    ("< >", "sort by the column before, the next one"),
    ("r", "the other way round"),
    ("/", "only rows that have these words; Esc: all rows"),
    ("Enter", "everything on a finding; Esc: back"),
    ("space", "pause, and go on"),
    ("q  Ctrl-C", "end"),
    ("bars", "log scale: p50 to p90, then to p99, then to the maximum"),
    ("graphs", "99th percentile, log scale, latest at the right"),
];

fn help(pen: &mut Pen<'_>) {
    let widest = KEYS.iter().map(|(key, _)| key.width()).max().unwrap_or(0);
    for (row, (key, what)) in KEYS.iter().enumerate() {
        pen.put(row, 0, widest, key, BOLD);
        pen.put(row, widest + GAP, pen.width(), what, Style::new());
    }
}

fn details(pen: &mut Pen<'_>, state: &State, from: usize) {
    let Some(finding) = state.finding() else { return };
    let lines = sheet::details(finding, pen.area.width);
    for (row, line) in lines.iter().skip(from).take(pen.height()).enumerate() {
        pen.line(row, line, if from + row == 0 { BOLD } else { Style::new() });
    }
}

fn view(pen: &mut Pen<'_>, state: &State) {
    let Some(frame) = state.frame().filter(|_| state.tab != Tab::Findings) else {
        if state.tab == Tab::Findings {
            found(pen, state);
        } else {
            pen.line(0, "Waiting for the first window.", DIM);
        }
        return;
    };
    if state.tab == Tab::Overview {
        return overview(pen, state);
    }
    let lines = sheet::lines(state.tab, frame);
    for (row, line) in lines.iter().enumerate() {
        pen.line(row, line, Style::new());
    }
    tables(&mut pen.below(lines.len()), state);
}

/// The list, and below it, where there is room, the text of the one that is marked.
fn found(pen: &mut Pen<'_>, state: &State) {
    const LIST: usize = 9;
    const TEXT: usize = 8;
    let text = state.finding().map(|finding| sheet::details(finding, pen.area.width));
    let Some(text) = text.filter(|_| pen.height() >= LIST + TEXT) else { return tables(pen, state) };
    let below = text.len().min(pen.height() / 2);
    let list = pen.height() - below - 1;
    let area = Rect { height: list as u16, ..pen.area };
    tables(&mut Pen { buffer: pen.buffer, area, theme: pen.theme }, state);
    let mut rest = pen.below(list + 1);
    for (row, line) in text.iter().take(below).enumerate() {
        rest.line(row, line, if row == 0 { BOLD } else { Style::new() });
    }
}

/// All tables of a view one below the other where there is room, otherwise the one that keys are for.
fn tables(pen: &mut Pen<'_>, state: &State) {
    let sheets = state.sheets();
    let shown: Vec<Vec<usize>> = sheets.iter().enumerate().map(|(n, s)| s.rows(state.looks(n))).collect();
    // A caption, heads, and a line between.
    let high = |rows: &Vec<usize>| rows.len().max(1) + 3;
    if shown.iter().map(high).sum::<usize>() <= pen.height() + 1 {
        let mut top = 0;
        for (n, (sheet, rows)) in sheets.iter().zip(&shown).enumerate() {
            table(&mut pen.below(top), state, n, sheet, rows);
            top += high(rows);
        }
    } else if let (Some(sheet), Some(rows)) = (sheets.get(state.part()), shown.get(state.part())) {
        table(pen, state, state.part(), sheet, rows);
    }
}

fn table(pen: &mut Pen<'_>, state: &State, part: usize, sheet: &Sheet, rows: &[usize]) {
    caption(pen, state, part, sheet, rows.len());
    let (columns, widths) = columns(sheet, rows, state.looks(part).sort, pen.width());
    if rows.is_empty() {
        let said = if sheet.table.rows.is_empty() { sheet.empty } else { "No row has these words." };
        return pen.line(1, said, DIM);
    }
    heads(pen, state, part, sheet, (&columns, &widths));
    let focused = part == state.part();
    let cursor = state.looks(part).cursor.min(rows.len() - 1);
    let room = pen.height().saturating_sub(2);
    // The marked row is in the middle where it can be.
    let from = cursor.saturating_sub(room / 2).min(rows.len().saturating_sub(room));
    for (place, row) in rows.iter().enumerate().skip(from).take(room) {
        let Some(cells) = sheet.table.rows.get(*row) else { continue };
        let line = 2 + place - from;
        let style = sheet.levels.get(*row).map_or(Style::new(), |level| pen.theme.level_style(*level));
        let mut at = 0;
        for (column, width) in columns.iter().zip(&widths) {
            if let (Some(cell), Some(head)) = (cells.get(*column), sheet.table.columns.get(*column)) {
                aligned(pen, line, at, *width, &cell.text, head.kind, style);
            }
            at += width + GAP;
        }
        if focused && place == cursor {
            pen.paint(line, REVERSED);
        }
    }
}

fn aligned(pen: &mut Pen<'_>, row: usize, at: usize, width: usize, text: &str, kind: Kind, style: Style) {
    let text = pen.theme.fit(text, width).into_owned();
    let before = if kind == Kind::Number { width - text.width().min(width) } else { 0 };
    pen.put(row, at + before, width - before, &text, style);
}

/// What it is, how many rows there are, and which of them are shown; of which other table.
fn caption(pen: &mut Pen<'_>, state: &State, part: usize, sheet: &Sheet, shown: usize) {
    let looks = state.looks(part);
    let all = sheet.table.rows.len() as u64;
    let mut text = format!("{}: ", sheet.table.caption);
    if looks.filter.is_empty() {
        text += &units::plural(all, "row", "rows");
    } else {
        text += &format!("{} of {}", units::count(shown as u64), units::plural(all, "row", "rows"));
    }
    let typing = state.mode == Mode::Filter && part == state.part();
    if typing || !looks.filter.is_empty() {
        text += &format!(", with `{}{}`", clean(&looks.filter), if typing { "_" } else { "" });
    }
    pen.line(0, &text, BOLD);
}

fn heads(
    pen: &mut Pen<'_>,
    state: &State,
    part: usize,
    sheet: &Sheet,
    (columns, widths): (&[usize], &[usize]),
) {
    let looks = state.looks(part);
    let mut at = 0;
    for (column, width) in columns.iter().zip(widths) {
        if let Some(head) = sheet.table.columns.get(*column) {
            let sorted = looks.sort == Some(*column);
            let style = if sorted { BOLD } else { DIM };
            let text = if sorted {
                let arrow = pen.theme.arrows()[usize::from(!sheet.descends(looks))];
                format!("{arrow}{}", head.title)
            } else {
                head.title.to_owned()
            };
            aligned(pen, 1, at, *width, &text, head.kind, style);
        }
        at += width + GAP;
    }
}

/// Which columns fit, and how wide they are. The one that rows are sorted by is always there.
fn columns(sheet: &Sheet, rows: &[usize], sort: Option<usize>, width: usize) -> (Vec<usize>, Vec<usize>) {
    let content = |column: usize| {
        let texts = rows.iter().filter_map(|row| sheet.table.rows.get(*row)?.get(column));
        texts.map(|cell| cell.text.width()).max().unwrap_or(0)
    };
    // With room for the mark of the sorted one.
    let head = |column: usize| {
        sheet.table.columns.get(column).map_or(0, |c| c.title.width()) + usize::from(sort == Some(column))
    };
    let is_text = |column: usize| sheet.table.columns.get(column).is_some_and(|c| c.kind == Kind::Text);
    let natural: Vec<usize> =
        (0..sheet.table.columns.len()).map(|column| content(column).max(head(column))).collect();
    let cap = ((width as f64 * WORDS_SHARE) as usize).max(MIN_WORDS);
    let wanted = |column: &usize| {
        let natural = natural.get(*column).copied().unwrap_or(0);
        if is_text(*column) { natural.min(cap) } else { natural }
    };
    let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    let mut columns: Vec<usize> = (0..natural.len()).collect();
    for spare in sheet.spare {
        if total(&columns.iter().map(wanted).collect::<Vec<_>>()) <= width {
            break;
        }
        columns.retain(|column| column != spare || sort == Some(*column));
    }
    let mut widths: Vec<usize> = columns.iter().map(wanted).collect();
    // The widest of the words give way first; what is left over then is theirs again.
    while total(&widths) > width {
        let words =
            columns.iter().zip(&mut widths).filter(|(column, w)| is_text(**column) && **w > MIN_WORDS);
        match words.map(|(_, w)| w).max() {
            Some(widest) => *widest -= 1,
            None => break,
        }
    }
    let mut left = width.saturating_sub(total(&widths));
    for (column, w) in columns.iter().zip(&mut widths) {
        let more = natural.get(*column).map_or(0, |natural| natural.saturating_sub(*w)).min(left);
        *w += more;
        left -= more;
    }
    (columns, widths)
}

/// The segments, and below them a line for each matter.
fn overview(pen: &mut Pen<'_>, state: &State) {
    let Some(frame) = state.frame() else { return };
    let lines = overview::lines(frame, state.findings.as_deref());
    let signals = overview::signals(frame);
    // Lines have their place at the bottom; on a small screen the segments keep a few rows.
    const LEAST: usize = 4;
    let room = pen.height().saturating_sub(lines.len()).max(LEAST.min(pen.height()));
    let above = room.min(signals.len() + 2);
    let area = Rect { height: above as u16, ..pen.area };
    segments(&mut Pen { buffer: pen.buffer, area, theme: pen.theme }, state, &signals);
    let mut rest = pen.below(above);
    let widest = lines.iter().map(|line| line.name.width()).max().unwrap_or(0);
    for (row, Line { level, name, text }) in lines.iter().enumerate() {
        let style = rest.theme.level_style(*level);
        rest.put(row, 0, 1, rest.theme.mark(*level), style);
        rest.put(row, 2, widest, name, BOLD);
        rest.put(row, 2 + widest + GAP, rest.width(), text, style);
    }
}

/// A column of numbers: its title, and what it has of a signal.
type Number = (&'static str, fn(&SignalFrame) -> String);
/// Columns of numbers, as many as there is room for.
const NUMBERS: [Number; 5] = [
    ("p50", |s| units::duration(sheet::percentile_ns(s, |s| s.p50_ns))),
    ("p99", |s| units::duration(sheet::percentile_ns(s, |s| s.p99_ns))),
    ("max", |s| units::duration(s.max_ns)),
    ("p99.9", |s| units::duration(sheet::percentile_ns(s, |s| s.p999_ns))),
    ("rate", |s| units::per_second(s.per_s)),
];
/// A number with its unit: `1,000,000/s`.
const NUMBER: usize = 8;
/// Bars and graphs are at least so wide together where a further number is shown.
const WIDE: usize = 60;

fn segments(pen: &mut Pen<'_>, state: &State, signals: &[&SignalFrame]) {
    if signals.is_empty() {
        return pen.line(0, "No latency was measured.", DIM);
    }
    let names = signals.iter().map(|s| s.signal.width()).max().unwrap_or(0);
    let left = |numbers: usize| pen.width().saturating_sub(names + numbers * (NUMBER + GAP));
    let numbers = (2..=NUMBERS.len()).rev().find(|n| left(*n) >= WIDE).unwrap_or(2);
    let drawn = left(numbers).saturating_sub(2 * GAP);
    let (bars, sparks) = (drawn - drawn / 2, drawn / 2);
    let scale =
        LogScale::over(signals.iter().flat_map(|s| [sheet::percentile_ns(s, |s| s.p50_ns), s.max_ns]));
    let at = |n: usize| names + GAP + n * (NUMBER + GAP);
    for (n, (title, _)) in NUMBERS.iter().take(numbers).enumerate() {
        aligned(pen, 0, at(n), NUMBER, title, Kind::Number, DIM);
    }
    pen.put(0, 0, names, "signal", DIM);
    pen.put(0, at(numbers), bars, &axis(scale, bars), DIM);
    let from = state.looks(0).cursor.min(signals.len().saturating_sub(pen.height().saturating_sub(1)));
    let window_ms = state.frame().map_or(0, |frame| frame.window_ms);
    for (row, signal) in signals.iter().skip(from).take(pen.height().saturating_sub(1)).enumerate() {
        let series = overview::series(state, &signal.signal);
        if row == 0 {
            let span = units::duration(graph::span_ms(&series, window_ms, sparks).saturating_mul(1_000_000));
            pen.put(0, at(numbers) + bars + GAP, sparks, &format!("p99, {span}"), DIM);
        }
        pen.put(row + 1, 0, names, &clean(&signal.signal), Style::new());
        for (n, (_, number)) in NUMBERS.iter().take(numbers).enumerate() {
            aligned(pen, row + 1, at(n), NUMBER, &number(signal), Kind::Number, Style::new());
        }
        let style = pen.theme.graph_style();
        let (bar, spark) =
            (graph::bar(signal, scale, bars, pen.theme), graph::spark(&series, window_ms, sparks, pen.theme));
        pen.put(row + 1, at(numbers), bars, &bar, style);
        pen.put(row + 1, at(numbers) + bars + GAP, sparks, &spark, style);
    }
}

/// The ends of a bar's axis.
fn axis(scale: LogScale, width: usize) -> String {
    let (Some((_, low)), Some((_, high))) = (scale.decades().next(), scale.decades().last()) else {
        return String::new();
    };
    let between = width.saturating_sub(low.width() + high.width());
    if between == 0 { low } else { format!("{low}{}{high}", " ".repeat(between)) }
}
