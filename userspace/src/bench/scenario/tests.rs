//! The table is whole: names, loads and metrics fit each other.

use super::*;
use crate::change::offered;
use nettrace_bench::load::LoadError;
use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

/// As comparisons name them.
const METRICS: [&str; 6] = ["p50", "p90", "p99", "p99.9", "throughput", "errors"];

#[test]
fn names_are_told_apart_and_are_found() {
    let names: BTreeSet<_> = all().iter().map(|scenario| scenario.name).collect();
    assert_eq!(names.len(), all().len());
    for scenario in all() {
        assert_eq!(find(scenario.name).unwrap().name, scenario.name);
        assert!(
            scenario.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
        );
    }
    let error = find("accept-queues").unwrap_err().to_string();
    assert!(error.contains("(`accept-queue`?)") && error.contains("notrack"), "{error}");
}

#[test]
fn metrics_are_those_of_loads_that_there_are() {
    for scenario in all() {
        assert!(!scenario.answers.is_empty() && !scenario.settings.is_empty(), "{}", scenario.name);
        let profiles =
            scenario.workloads.iter().map(|workload| workload.profile(&LoadOptions::default()).unwrap());
        let parts: BTreeSet<_> = profiles.flat_map(|profile| profile.parts).map(|part| part.name).collect();
        for answer in scenario.answers {
            let metric = METRICS.iter().find(|metric| answer.ends_with(&format!(".{metric}"))).unwrap();
            let part = answer.strip_suffix(&format!(".{metric}")).unwrap();
            assert!(parts.contains(part), "{}: no part {part} among {parts:?}", scenario.name);
        }
    }
}

#[test]
fn times_are_those_that_are_asked_for() {
    let options = LoadOptions { measure: std::time::Duration::ZERO, ..LoadOptions::default() };
    let refused = find("accept-queue").unwrap().workloads[0].profile(&options);
    assert!(matches!(refused, Err(ScenarioError::Load(LoadError::Spec { .. }))), "{refused:?}");
}

#[test]
fn changes_are_of_kinds_that_the_engine_offers() {
    for (place, setting) in all().iter().flat_map(Scenario::changes) {
        let kind = setting.split(':').next().unwrap();
        assert!(offered().any(|offered| offered.name == kind), "{setting} at the {}", place.name());
    }
}

#[test]
fn what_is_not_built_says_so_and_does_not_run() {
    let of_fast_path = |s: &&Scenario| s.settings.iter().any(|s| matches!(s, Setting::FastPath(_)));
    let unbuilt: Vec<_> = all().iter().filter(of_fast_path).collect();
    assert_eq!(unbuilt.len(), 4);
    for scenario in unbuilt {
        assert!(scenario.unavailable().is_some_and(|why| why.contains("not built yet")), "{}", scenario.name);
        let refused = scenario.start().map(|running| running.id().to_owned());
        assert!(matches!(refused, Err(ScenarioError::Unavailable { .. })), "{refused:?}");
    }
}

/// What users read of the scenarios.
fn page() -> String {
    let mut page = String::from(
        "# Scenarios\n\nMade from the table of scenarios, `userspace/src/bench/scenario`. Each is a small network of namespaces, \
         over IPv4, that has a trouble, and the setting that is said to cure it: arm A is without it, arm B with it. The machine \
         itself is not changed. What a machine lacks is told when a scenario is to run.\n",
    );
    for scenario in all() {
        let [a, b] = scenario.arms;
        let network = match scenario.layout {
            Layout::Node => "two pods of a node that routes between them".to_owned(),
            Layout::Line { delay, mtu } if delay.is_zero() => {
                format!("two nodes side by side, MTU {mtu} bytes")
            }
            Layout::Line { delay, mtu } => {
                format!("two nodes, {} ms apart each way, MTU {mtu} bytes", delay.as_millis())
            }
        };
        let _ = write!(
            page,
            "\n## {}\n\nThe usual advice: {}.\n\n- A: {a}\n- B: {b}\n- Network: {network}\n",
            scenario.name, scenario.advice
        );
        for (place, setting) in scenario.changes() {
            let _ = writeln!(page, "- Change at the {}: `{setting}`", place.name());
        }
        let loads: Vec<_> =
            scenario.workloads.iter().map(|workload| format!("`{}`", workload.name)).collect();
        let answers: Vec<_> = scenario.answers.iter().map(|answer| format!("`{answer}`")).collect();
        let _ = writeln!(page, "- Load: {}\n- Answered by: {}", loads.join(", "), answers.join(", "));
        for need in scenario.layout.needs().iter().chain(scenario.needs) {
            let _ = writeln!(page, "- Needs: {need}");
        }
        if let Some(made) = scenario.made {
            let _ = writeln!(page, "- How it is made: {made}.");
        }
    }
    page
}

/// Regenerate with `NETTRACE_UPDATE_SCHEMA=1 cargo test -p nettrace scenario`.
#[test]
fn the_page_is_that_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scenarios.md");
    let text = page();
    if std::env::var_os("NETTRACE_UPDATE_SCHEMA").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "docs/scenarios.md is out of date: NETTRACE_UPDATE_SCHEMA=1 cargo test -p nettrace scenario"
    );
}
