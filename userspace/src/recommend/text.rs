//! Findings for a terminal.

use super::{Finding, Verdict};
use crate::report::{
    Options,
    text::{Page, Style},
    view::{Level, clean},
};

const fn level(verdict: Verdict) -> Level {
    match verdict {
        Verdict::Apply => Level::Bad,
        Verdict::Consider => Level::Warn,
        Verdict::NotNeeded => Level::Good,
        Verdict::CannotTell => Level::Note,
    }
}

/// What is to be done, with figures; with `all` a line for each of the others, too, otherwise how many there are.
#[must_use]
pub fn render(node: &str, findings: &[Finding], all: bool, options: &Options) -> String {
    let page = Page::new(options);
    let mut out = format!("{}\n", page.paint(Style::Title, &format!("nettrace advice: {}", clean(node))));
    let urgent = |f: &&Finding| f.verdict.is_urgent();
    for finding in findings.iter().filter(urgent) {
        out.push('\n');
        details(&page, &mut out, finding);
    }
    let (told, rest): (Vec<_>, Vec<_>) = findings.iter().partition(urgent);
    if told.is_empty() {
        out.push_str("\nNothing is to be changed, by what was measured.\n");
    }
    if all {
        for verdict in [Verdict::NotNeeded, Verdict::CannotTell] {
            out.push_str(&format!("\n{}\n", page.paint(Style::Title, &verdict.name().to_uppercase())));
            for finding in rest.iter().filter(|f| f.verdict == verdict) {
                summary(&page, &mut out, finding);
            }
        }
    } else {
        let count = |verdict| rest.iter().filter(|f| f.verdict == verdict).count();
        out.push_str(&format!(
            "\nOf the usual advice, {} not needed, and {} cannot be told; --all shows why.\n",
            are(count(Verdict::NotNeeded)),
            count(Verdict::CannotTell)
        ));
    }
    out
}

fn are(n: usize) -> String {
    format!("{n} {}", if n == 1 { "is" } else { "are" })
}

/// One finding, with everything there is to say.
#[must_use]
pub fn explain(finding: &Finding, options: &Options) -> String {
    let page = Page::new(options);
    let mut out = String::new();
    details(&page, &mut out, finding);
    page.hang(&mut out, "    when not  ", &finding.when_not);
    page.hang(&mut out, "    more      ", &finding.source);
    out
}

fn head(page: &Page, finding: &Finding) -> String {
    let level = level(finding.verdict);
    let mark = page.paint(Style::Level(level), level.mark());
    format!("{mark} {}  {}", page.paint(Style::Level(level), finding.verdict.name()), finding.id)
}

fn summary(page: &Page, out: &mut String, finding: &Finding) {
    let level = level(finding.verdict);
    out.push_str(&format!(
        "{} {}: {}\n",
        page.paint(Style::Level(level), level.mark()),
        finding.id,
        finding.advice
    ));
    page.hang(out, "    ", &clean(&finding.because));
    if let Some(run) = &finding.to_tell {
        page.hang(out, "    to tell: ", &clean(run));
    }
}

fn details(page: &Page, out: &mut String, finding: &Finding) {
    out.push_str(&format!("{}\n", head(page, finding)));
    page.hang(out, "    ", &format!("{}.", clean(&finding.because)));
    page.hang(out, "    usual     ", &finding.advice);
    for (n, evidence) in finding.evidence.iter().enumerate() {
        let line = clean(&evidence.to_string());
        page.hang(out, if n == 0 { "    seen      " } else { "              " }, &line);
    }
    if let Some(effect) = &finding.effect {
        page.hang(out, "    brings    ", &clean(effect));
    }
    if finding.verdict.is_urgent() {
        let (sure, risk) = (finding.confidence.name(), finding.risk.name());
        page.hang(out, "    sure      ", &format!("{sure}; risk of the change: {risk}"));
    }
    for change in &finding.changes {
        page.hang(out, "    do        ", &format!("in {}: {}", clean(&change.scope), clean(&change.apply)));
        page.hang(out, "    undo      ", &clean(&change.undo));
        if let Some(owner) = &change.owner {
            page.hang(out, "    owner     ", owner);
        }
    }
    if finding.verdict.is_urgent() && finding.changes.iter().any(|change| change.setting.is_some()) {
        page.hang(out, "    or        ", &format!("nettrace apply {}, which can be taken back", finding.id));
    }
    if let Some(run) = &finding.to_tell {
        page.hang(out, "    to tell   ", &clean(run));
    }
}
