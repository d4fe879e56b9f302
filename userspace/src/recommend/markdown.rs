//! Findings as GitHub-flavoured Markdown, to paste into an issue or a pull request.

use super::Finding;
use crate::report::{markdown::escape, view::clean};

/// A table of all findings, and the details of those that call for something.
#[must_use]
pub fn render(node: &str, findings: &[Finding], all: bool) -> String {
    let safe = |text: &str| escape(&clean(text));
    let urgent = |f: &&Finding| f.verdict.is_urgent();
    let mut out = format!("# nettrace advice: {}\n\n", safe(node));
    let shown: Vec<_> = findings.iter().filter(|f| all || urgent(f)).collect();
    if findings.iter().filter(urgent).count() == 0 {
        out.push_str("Nothing is to be changed, by what was measured.\n\n");
    }
    if !shown.is_empty() {
        out.push_str("| verdict | rule | the usual advice | because |\n| --- | --- | --- | --- |\n");
    }
    for f in &shown {
        let row = [f.verdict.name(), &f.id, &f.advice, &f.because].map(safe);
        out.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    for f in findings.iter().filter(urgent) {
        out.push_str(&format!("\n## {}: {}\n\n", safe(f.verdict.name()), safe(&f.id)));
        for evidence in &f.evidence {
            out.push_str(&format!("- Seen: {}\n", safe(&evidence.to_string())));
        }
        if let Some(effect) = &f.effect {
            out.push_str(&format!("- Brings: {}\n", safe(effect)));
        }
        out.push_str(&format!("- Sure: {}; risk of the change: {}\n", f.confidence.name(), f.risk.name()));
        for change in &f.changes {
            out.push_str(&format!("- Do, in {}: {}\n", safe(&change.scope), safe(&change.apply)));
            out.push_str(&format!("- Undo: {}\n", safe(&change.undo)));
        }
        out.push_str(&format!("- When not: {}\n- More: <{}>\n", safe(&f.when_not), f.source));
    }
    out
}
