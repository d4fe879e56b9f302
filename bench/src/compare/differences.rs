//! In what two results differ besides their numbers.

use crate::result::{End, Environment, Outcome, RunResult, Scenario};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What kind of thing differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// What was run.
    Scenario,
    /// Where it was run.
    Machine,
    /// On which CPUs.
    Placement,
    /// What the machine was set to.
    Setting,
    /// Which version ran it.
    Tool,
}

impl DifferenceKind {
    /// Whether what differs so is not comparable.
    #[must_use]
    pub const fn hinders(self) -> bool {
        matches!(self, Self::Scenario | Self::Machine | Self::Placement)
    }

    /// As reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scenario => "scenario",
            Self::Machine => "machine",
            Self::Placement => "placement",
            Self::Setting => "setting",
            Self::Tool => "tool",
        }
    }
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// What kind of thing.
    pub kind: DifferenceKind,
    /// What it is called.
    pub name: String,
    /// What it was; none where it was not there.
    pub before: Option<String>,
    /// What it is.
    pub after: Option<String>,
}

/// One line for each, to be put behind a colon.
pub(super) fn listed(differences: &[Difference]) -> String {
    let value = |v: &Option<String>| v.clone().unwrap_or_else(|| "nothing".to_owned());
    differences
        .iter()
        .map(|d| format!("\n  {} {}: {} and {}", d.kind.name(), d.name, value(&d.before), value(&d.after)))
        .collect()
}

/// All between two runs.
pub(super) fn between(before: &RunResult, after: &RunResult) -> Vec<Difference> {
    let mut all = of_maps(DifferenceKind::Scenario, &scenario(before), &scenario(after));
    all.extend(of_environments(&before.environment, &after.environment));
    all.extend(of_maps(DifferenceKind::Placement, &placement(before), &placement(after)));
    if before.tool != after.tool {
        all.push(Difference {
            kind: DifferenceKind::Tool,
            name: "version".to_owned(),
            before: Some(before.tool.clone()),
            after: Some(after.tool.clone()),
        });
    }
    all
}

/// All between two environments.
pub(super) fn of_environments(before: &Environment, after: &Environment) -> Vec<Difference> {
    let mut all = of_maps(DifferenceKind::Machine, &before.machine, &after.machine);
    all.extend(of_maps(DifferenceKind::Setting, &before.settings, &after.settings));
    all
}

fn of_maps(
    kind: DifferenceKind,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<Difference> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| Difference {
            kind,
            name: name.clone(),
            before: before.get(name).cloned(),
            after: after.get(name).cloned(),
        })
        .collect()
}

/// A scenario's parts by path, with the loads that ran.
fn scenario(result: &RunResult) -> BTreeMap<String, String> {
    let Scenario { name, spec } = &result.scenario;
    let mut parts = BTreeMap::from([("name".to_owned(), name.clone())]);
    for (key, value) in spec {
        flatten(key.clone(), value, &mut parts);
    }
    for load in result.loads() {
        let of = |outcome: &Outcome| format!("{}, {}", outcome.mode.name(), outcome.unit.per_second());
        let first = result.rounds.iter().find_map(|round| round.loads.get(load));
        parts.insert(format!("load {load}"), first.map(of).unwrap_or_default());
    }
    parts
}

fn flatten(path: String, value: &Value, parts: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, value)| flatten(format!("{path}.{key}"), value, parts));
        }
        Value::Array(list) if !list.is_empty() => {
            list.iter().enumerate().for_each(|(n, value)| flatten(format!("{path}[{n}]"), value, parts));
        }
        _ => {
            parts.insert(path, value.to_string());
        }
    }
}

/// Where each load's threads ran, in all rounds.
fn placement(result: &RunResult) -> BTreeMap<String, String> {
    let list = |end: &End| match end.pinned.cpus.as_slice() {
        [] => "any".to_owned(),
        cpus => cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
    };
    let told =
        |outcome: &Outcome| format!("client {}, server {}", list(&outcome.client), list(&outcome.server));
    let of = |load: &str| {
        let places: BTreeSet<String> =
            result.rounds.iter().filter_map(|r| r.loads.get(load)).map(told).collect();
        places.into_iter().collect::<Vec<_>>().join("; ")
    };
    result.loads().into_iter().map(|load| (load.to_owned(), of(load))).collect()
}
