//! `nettrace recommend`: a measurement, made now or before, and what it calls for.

use super::{
    Exit,
    commands::{Failure, colorful, print},
    input::{self, Input},
    run,
};
use crate::{
    config::{Advice, Capture},
    recommend::{self, Finding, Format},
    report,
};
use anyhow::Context as _;

/// Measures or reads, judges and writes.
pub(super) fn advise(capture: &Capture, advice: &Advice) -> Result<Exit, Failure> {
    if let Some(id) = &advice.explain {
        check_id(id)?;
    }
    let input = match &advice.from {
        Some(path) => input::read(path),
        None => Ok(Input { snapshot: run::measure(capture, None)?.snapshot, damaged: false }),
    };
    let (node, findings, exit) = match input {
        Ok(input) => {
            let findings = recommend::advise(&input.snapshot, advice.profile);
            (input.snapshot.meta.hostname.clone(), findings, input.exit())
        }
        Err(failure) => match input::too_new(&failure) {
            Some(why) => ("unknown".to_owned(), recommend::unknown(&why), Exit::Ok),
            None => return Err(failure),
        },
    };
    let text = written(&node, &findings, advice)?;
    print(|out| out.write_all(text.as_bytes()))?;
    Ok(if is_grave(&findings, advice) { Exit::Advised } else { exit })
}

/// Whether `--fail-on` asks for a failure: of what is written, if that is one rule.
fn is_grave(findings: &[Finding], advice: &Advice) -> bool {
    let counts = |f: &&Finding| advice.explain.as_ref().is_none_or(|id| f.id == *id);
    let mut counted = findings.iter().filter(counts);
    advice.fail_on.is_some_and(|verdict| counted.any(|f| f.verdict.is_as_grave_as(verdict)))
}

fn written(node: &str, findings: &[Finding], advice: &Advice) -> Result<String, Failure> {
    let options = report::Options { color: colorful(), ..report::Options::default() };
    if let Some(id) = &advice.explain {
        return Ok(findings
            .iter()
            .filter(|f| f.id == *id)
            .map(|f| recommend::explain(f, &options))
            .collect());
    }
    Ok(match advice.format {
        Format::Text => recommend::text(node, findings, advice.all, &options),
        Format::Markdown => recommend::markdown(node, findings, advice.all),
        Format::Json => recommend::json(&recommend::Advice::new(node, findings.to_vec()))
            .context("cannot write the advice as JSON")?,
    })
}

fn check_id(id: &str) -> Result<(), Failure> {
    let ids: Vec<_> = recommend::ids().collect();
    if ids.contains(&id) {
        return Ok(());
    }
    Err(Failure::usage(anyhow::anyhow!(
        "--explain {id}: there is no such rule; the rules are {}",
        ids.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        recommend::{Profile, RULES, Verdict},
        snapshot::{SCHEMA_VERSION, sample},
    };
    use std::fs;

    fn advice() -> Advice {
        let format = Format::Text;
        Advice { from: None, all: false, explain: None, profile: Profile::Balanced, fail_on: None, format }
    }

    #[test]
    fn of_a_newer_snapshot_nothing_can_be_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("newer.json");
        let mut snapshot = sample::empty();
        snapshot.schema = SCHEMA_VERSION + 1;
        fs::write(&path, serde_json::to_vec(&snapshot).unwrap()).unwrap();
        let why = input::too_new(&input::read(&path).err().unwrap()).unwrap();
        assert!(why.contains("read it with a newer nettrace"), "{why}");
        let text = written("unknown", &recommend::unknown(&why), &advice()).ok().unwrap();
        assert!(
            text.contains(&format!("and {} cannot be told", RULES.iter().copied().flatten().count())),
            "{text}"
        );
        // What is no snapshot at all is an error.
        fs::write(&path, "{}").unwrap();
        assert!(input::read(&path).is_err_and(|failure| input::too_new(&failure).is_none()));
    }

    #[test]
    fn graver_findings_fail_where_they_are_asked_to() {
        let mut snapshot = sample::empty();
        snapshot.probes = sample::rich().probes;
        let mut findings = recommend::advise(&snapshot, Profile::Balanced);
        let on = |verdict| Advice { fail_on: verdict, ..advice() };
        assert!(!is_grave(&findings, &on(Some(Verdict::Consider))));
        findings[0].verdict = Verdict::Consider;
        let grave =
            [None, Some(Verdict::Apply), Some(Verdict::Consider)].map(|v| is_grave(&findings, &on(v)));
        assert_eq!(grave, [false, false, true]);
    }

    #[test]
    fn what_could_not_be_judged_fails_where_that_is_asked_for() {
        let mut findings = recommend::unknown("too new");
        let grave = |findings: &[Finding], verdict, explain: Option<&str>| {
            is_grave(
                findings,
                &Advice { fail_on: Some(verdict), explain: explain.map(str::to_owned), ..advice() },
            )
        };
        assert!(grave(&findings, Verdict::CannotTell, None));
        assert!(!grave(&findings, Verdict::Consider, None));
        // What is not needed comes last, although lists have it before what cannot be told.
        findings.iter_mut().for_each(|f| f.verdict = Verdict::NotNeeded);
        assert!(!grave(&findings, Verdict::CannotTell, None));
        findings[0].verdict = Verdict::Apply;
        assert!(grave(&findings, Verdict::CannotTell, None));
        // Of one rule that alone counts.
        let (first, second) = (findings[0].id.clone(), findings[1].id.clone());
        assert!(grave(&findings, Verdict::Apply, Some(&first)));
        assert!(!grave(&findings, Verdict::CannotTell, Some(&second)));
    }

    #[test]
    fn rules_are_explained_by_name() {
        assert!(check_id("conntrack.max").is_ok());
        assert!(check_id("conntrack").is_err());
        let one = Advice { explain: Some("conntrack.max".to_owned()), ..advice() };
        let text = written("node", &recommend::unknown("why"), &one).ok().unwrap();
        assert!(
            text.contains("conntrack.max") && text.contains("when not") && !text.contains("dns."),
            "{text}"
        );
    }
}
