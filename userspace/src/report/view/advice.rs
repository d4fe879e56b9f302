//! What is to be changed, by what was measured; `nettrace recommend` says more of each.

use super::{Cell, Kind, Section, Table};
use crate::{
    recommend::{Finding, Profile, Verdict, advise},
    snapshot::Snapshot,
};

pub(super) fn section(snapshot: &Snapshot) -> Section {
    let findings = advise(snapshot, Profile::default());
    let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
    let urgent: Vec<_> = findings.iter().filter(|f| f.verdict.is_urgent()).collect();
    let mut section = Section::new("advice", "Advice");
    if urgent.is_empty() {
        section.line("Nothing is to be changed, by what was measured.");
    }
    section.line(format!(
        "Settings of the usual advice that are not needed: {}; of which nothing can be told: {}. `nettrace recommend --from \
         SNAPSHOT --all` says why, of a report in JSON.",
        count(Verdict::NotNeeded),
        count(Verdict::CannotTell)
    ));
    let columns = [
        ("verdict", Kind::Text),
        ("rule", Kind::Text),
        ("because", Kind::Text),
        ("seen", Kind::Text),
        ("change", Kind::Text),
    ];
    section.table(Table::of("", &columns, &urgent, urgent.len(), |finding| row(finding)));
    section
}

fn row(finding: &Finding) -> Vec<Cell> {
    let seen = finding.evidence.first().map(|e| format!("{}: {}", e.what, e.value));
    let change = finding.changes.first().map(|c| format!("{}: {}", c.scope, c.apply));
    vec![
        Cell::text(finding.verdict.name()),
        Cell::text(&finding.id),
        Cell::text(&finding.because),
        Cell::maybe(seen.as_deref()),
        Cell::maybe(change.as_deref()),
    ]
}
