//! The table is whole: names, loads and metrics fit each other.

use super::*;
use crate::change::offered;
use nettrace_bench::load::LoadError;
use std::collections::BTreeSet;

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
