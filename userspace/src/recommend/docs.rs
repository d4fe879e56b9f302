//! `docs/rules.md`, made from the table of rules.

use super::RULES;

/// The page.
#[must_use]
pub fn page() -> String {
    let mut out = "# Rules\n\nMade from the table of rules, `userspace/src/recommend`. What `nettrace recommend` says of each is \
                   explained in [recommend.md](recommend.md).\n"
        .to_owned();
    for rule in RULES.iter().copied().flatten() {
        let needs = match rule.needs {
            [] => "nothing that is measured".to_owned(),
            needs => needs.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "),
        };
        out += &format!(
            "\n## {}\n\nThe usual advice: {}.\n\n- Looks at: {}\n- Needs: {needs}\n- Risk: {}\n- When not: {}\n- Source: <{}>\n",
            rule.id,
            rule.advice,
            rule.looks_at,
            rule.risk.name(),
            rule.when_not,
            rule.source
        );
    }
    out
}
