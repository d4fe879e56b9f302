//! The report for a terminal: aligned, at most as wide as asked, readable without colour.
//!
//! Needs a [`View`] and [`Options`]; yields lines that end without spaces.

use super::{
    Options,
    view::{Column, Kind, Level, Section, Table, View},
};
use unicode_width::UnicodeWidthStr;

/// Narrower than this, tables are unreadable.
const MIN_WIDTH: usize = 60;
/// No column is made narrower than this.
const MIN_COLUMN: usize = 8;
/// Longer words are cut before a table becomes wider than the page.
const WHOLE_WORD: usize = 16;
/// Spaces between columns.
pub(crate) const GAP: usize = 2;

/// Writes the report.
pub(crate) fn render(view: &View, options: &Options) -> String {
    let page = Page::new(options);
    let mut out = format!("{}\n\n", page.paint(Style::Title, &format!("{}: {}", view.kind, view.title)));
    if let Some(verdict) = &view.verdict {
        page.highlight(&mut out, verdict.level, &verdict.text);
        out.push('\n');
    }
    let widest = view.facts.iter().map(|f| f.name.width()).max().unwrap_or(0);
    for fact in &view.facts {
        page.hang(&mut out, &format!("{:widest$}  ", fact.name), &fact.value);
    }
    if !view.highlights.is_empty() {
        out.push('\n');
    }
    for highlight in &view.highlights {
        page.highlight(&mut out, highlight.level, &highlight.text);
    }
    for section in &view.sections {
        page.section(&mut out, section);
    }
    out
}

/// What a piece of text is, for those who want colours.
#[derive(Clone, Copy)]
pub(crate) enum Style {
    Title,
    Head,
    Level(Level),
}

pub(crate) struct Page {
    pub(crate) width: usize,
    color: bool,
}

impl Page {
    pub(crate) fn new(options: &Options) -> Self {
        Self { width: options.width.max(MIN_WIDTH), color: options.color }
    }

    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            _ if !self.color => return text.to_owned(),
            Style::Title => "1",
            Style::Head => "2",
            Style::Level(Level::Good) => "32",
            Style::Level(Level::Note) => "36",
            Style::Level(Level::Warn) => "33",
            Style::Level(Level::Bad) => "31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Writes a paragraph whose first line begins with `head` and the others with as many spaces.
    pub(crate) fn hang(&self, out: &mut String, head: &str, text: &str) {
        let indent = head.width();
        for (n, line) in wrap(text, self.width - indent).iter().enumerate() {
            out.push_str(if n == 0 { head } else { "" });
            out.push_str(&" ".repeat(if n == 0 { 0 } else { indent }));
            out.push_str(line);
            out.push('\n');
        }
    }

    fn highlight(&self, out: &mut String, level: Level, text: &str) {
        let mut paragraph = String::new();
        self.hang(&mut paragraph, "  ", text);
        let mark = self.paint(Style::Level(level), level.mark());
        out.push_str(&mark);
        out.push_str(paragraph.strip_prefix(' ').unwrap_or(&paragraph));
    }

    fn section(&self, out: &mut String, section: &Section) {
        let title = section.title.to_uppercase();
        out.push_str(&format!("\n{}\n", self.paint(Style::Title, &title)));
        for line in &section.lines {
            self.hang(out, "", line);
        }
        for (n, table) in section.tables.iter().enumerate() {
            if !table.caption.is_empty() {
                out.push_str(&format!("\n{}:\n", table.caption));
            } else if n > 0 || !section.lines.is_empty() {
                out.push('\n');
            }
            self.table(out, table);
        }
    }

    fn table(&self, out: &mut String, table: &Table) {
        let widths = self.widths(table);
        let heads: Vec<&str> = table.columns.iter().map(|c| c.title).collect();
        out.push_str(&self.paint(Style::Head, &row(&table.columns, &widths, &heads)));
        out.push('\n');
        for cells in &table.rows {
            let texts: Vec<&str> = cells.iter().map(|c| c.text.as_str()).collect();
            out.push_str(&row(&table.columns, &widths, &texts));
            out.push('\n');
        }
        if let Some(more) = &table.more {
            out.push_str(more);
            out.push('\n');
        }
    }

    /// Widths of the columns: as wide as their content; columns of words give way when the page is too narrow.
    fn widths(&self, table: &Table) -> Vec<usize> {
        let texts = |n: usize| table.rows.iter().filter_map(move |r| r.get(n)).map(|c| c.text.as_str());
        let content = |n: usize| texts(n).map(UnicodeWidthStr::width);
        let head = |n: usize| table.columns.iter().skip(n).take(1).map(|column| column.title);
        let words =
            |n: usize| texts(n).chain(head(n)).flat_map(|text| text.split(' ')).map(UnicodeWidthStr::width);
        let mut widths: Vec<usize> = table
            .columns
            .iter()
            .enumerate()
            .map(|(n, column)| content(n).max().unwrap_or(0).max(column.title.width()))
            .collect();
        // Words stay whole where that is enough.
        let whole: Vec<usize> =
            (0..widths.len()).map(|n| words(n).max().unwrap_or(0).clamp(MIN_COLUMN, WHOLE_WORD)).collect();
        self.narrow(&mut widths, table, &whole);
        self.narrow(&mut widths, table, &vec![MIN_COLUMN; whole.len()]);
        widths
    }

    /// Lets columns of words give way, until the table fits or all of them are as narrow as they may be.
    fn narrow(&self, widths: &mut [usize], table: &Table, least: &[usize]) {
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > self.width {
            let over = widths.iter().sum::<usize>() + gaps - self.width;
            let words =
                widths.iter_mut().zip(least).zip(&table.columns).filter(|(_, c)| c.kind == Kind::Text);
            match words.map(|(w, _)| w).filter(|(w, least)| **w > **least).max() {
                // The widest gives way first, by half of the surplus at most, so that two wide ones share it.
                Some((widest, least)) => *widest = widest.saturating_sub(over.div_ceil(2)).max(*least),
                None => break,
            }
        }
    }
}

/// One row, of as many lines as its highest cell, without a line end.
fn row(columns: &[Column], widths: &[usize], texts: &[&str]) -> String {
    let cells: Vec<Vec<String>> = columns
        .iter()
        .zip(widths.iter().zip(texts))
        .map(|(column, (width, text))| match column.kind {
            Kind::Text => wrap(text, *width),
            Kind::Number | Kind::Bar => vec![(*text).to_owned()],
        })
        .collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    let lines: Vec<String> = (0..height)
        .map(|n| {
            let mut line = String::new();
            for ((column, width), cell) in columns.iter().zip(widths).zip(&cells) {
                let text = cell.get(n).map_or("", String::as_str);
                let space = " ".repeat(width.saturating_sub(text.width()));
                let (before, after) =
                    if column.kind == Kind::Number { (space, String::new()) } else { (String::new(), space) };
                line.push_str(&format!("{before}{text}{after}{}", " ".repeat(GAP)));
            }
            line.trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

/// Breaks text into lines of at most `width` columns, at spaces where it can.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let fits = |line: &str, more: &str| line.is_empty() || line.width() + 1 + more.width() <= width;
        if !lines.last().is_some_and(|line| fits(line, word)) {
            lines.push(String::new());
        }
        let Some(line) = lines.last_mut() else { continue };
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        while let Some(rest) = lines.last_mut().and_then(|line| split_off(line, width)) {
            lines.push(rest);
        }
    }
    lines
}

/// Cuts a line at `width` columns, and yields what is beyond.
fn split_off(line: &mut String, width: usize) -> Option<String> {
    if line.width() <= width {
        return None;
    }
    let mut end = 0;
    for (at, c) in line.char_indices() {
        let next = at + c.len_utf8();
        // At least one character stays, or there would be no end.
        if end > 0 && line[..next].width() > width {
            break;
        }
        end = next;
    }
    (end < line.len()).then(|| line.split_off(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_wrap_at_spaces_and_long_ones_are_cut() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("", 4), [""]);
    }

    proptest! {
        #[test]
        fn wrapped_lines_fit_and_lose_nothing(text in "[a-zé世 ]{0,80}", width in 2..40_usize) {
            let lines = wrap(&text, width);
            for line in &lines {
                prop_assert!(line.width() <= width, "{:?}", line);
            }
            let letters = |s: &str| s.replace(' ', "");
            prop_assert_eq!(letters(&lines.concat()), letters(&text));
        }
    }
}
