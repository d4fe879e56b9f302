//! The report as GitHub-flavoured Markdown, to paste into an issue or a pull request.
//!
//! Needs a [`View`]; yields headings, lists and tables in which strings from outside have no meaning as markup.

use super::view::{Cell, Depth, Kind, Section, Table, View};

/// Writes the report.
pub(crate) fn render(view: &View) -> String {
    let mut out = format!("# {}: {}\n\n", view.kind, escape(&view.title));
    if let Some(verdict) = &view.verdict {
        out.push_str(&format!("{} **{}**\n\n", verdict.level.mark(), escape(&verdict.text)));
    }
    out.push_str("| | |\n| --- | --- |\n");
    for fact in &view.facts {
        out.push_str(&format!("| {} | {} |\n", fact.name, escape(&fact.value)));
    }
    if !view.highlights.is_empty() {
        out.push_str("\n## Highlights\n\n");
    }
    for highlight in &view.highlights {
        out.push_str(&format!("- {} {}\n", highlight.level.mark(), escape(&highlight.text)));
    }
    let (folded, open): (Vec<_>, Vec<_>) =
        view.sections.iter().partition(|section| section.depth != Depth::Main);
    open.into_iter().for_each(|section| write_section(&mut out, section));
    if !folded.is_empty() {
        let titles: Vec<&str> = folded.iter().map(|section| section.title).collect();
        out.push_str(&format!("\n<details><summary>{}</summary>\n", titles.join(" · ")));
        folded.into_iter().for_each(|section| write_section(&mut out, section));
        out.push_str("\n</details>\n");
    }
    out
}

fn write_section(out: &mut String, section: &Section) {
    out.push_str(&format!("\n## {}\n", section.title));
    for line in &section.lines {
        out.push_str(&format!("\n{}\n", escape(line)));
    }
    for table in &section.tables {
        write_table(out, table);
    }
}

fn write_table(out: &mut String, table: &Table) {
    if !table.caption.is_empty() {
        out.push_str(&format!("\n### {}\n", table.caption));
    }
    let heads: Vec<&str> = table.columns.iter().map(|c| c.title).collect();
    let rules: Vec<&str> =
        table.columns.iter().map(|c| if c.kind == Kind::Number { "---:" } else { "---" }).collect();
    out.push_str(&format!("\n| {} |\n| {} |\n", heads.join(" | "), rules.join(" | ")));
    for row in &table.rows {
        let cells: Vec<String> =
            row.iter().zip(&table.columns).map(|(c, column)| cell(c, column.kind)).collect();
        out.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    if let Some(more) = &table.more {
        out.push_str(&format!("\n{more}\n"));
    }
}

fn cell(cell: &Cell, kind: Kind) -> String {
    match kind {
        // Spaces at the beginning would be cut off.
        Kind::Bar => format!("`{}`", cell.text.replace(' ', "·")),
        Kind::Text | Kind::Number => escape(&cell.text),
    }
}

/// Takes away what characters mean to Markdown and to the HTML that may be inside it.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            // As an entity it cannot become a mention of somebody.
            '@' => safe.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '|' | '[' | ']' | '#' | '~' | '!' | '$' => {
                safe.push('\\');
                safe.push(c);
            }
            c => safe.push(c),
        }
    }
    safe
}
