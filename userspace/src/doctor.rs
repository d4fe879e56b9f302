//! `nettrace doctor`: whether this node offers what `nettrace run` needs, and what each signal is measured from.
//!
//! Needs a [`Machine`]; yields a [`Diagnosis`]. [`facts`] reads and [`judge`] says what it means; [`signals`] has the
//! kernel verify the programs; [`mod@text`] and [`mod@json`] only write. Nothing is attached, nothing on the node is changed
//! and nothing stays. Whether `run` would work is for [`crate::preflight`] and the loader to say, as it is in a run.

mod facts;
mod json;
mod judge;
mod signals;
mod text;

pub use json::{render as json, schema, schema_json};
pub use text::render as text;

use crate::{
    cni, files,
    load::ProgramOptions,
    preflight::{self, Machine, Needs, Problem},
};
use facts::Facts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use signals::Signals;

/// Version of [`Diagnosis`] as JSON; it grows when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// `nettrace run` works, and less well than it could, or something could not be read.
    Note,
    /// `nettrace run` does not work because of it.
    Problem,
}

/// How the sources of signals are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The kernel verified every program.
    Verifier,
    /// The kernel's BTF names the hooks; whether the programs load was not tried.
    Btf,
    /// They are not known.
    Nothing,
}

/// One signal or count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// Name, as in reports.
    pub name: String,
    /// `note` when it is off.
    pub state: State,
    /// Source that would be in use, as in a snapshot's `probes`; none when off, or when `basis` is `nothing`.
    pub source: Option<String>,
    /// Why it is off, or why not a better source, or what cannot be had from it.
    pub reason: Option<String>,
}

/// What part of the node a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// What the kernel offers.
    Kernel,
    /// What may be loaded, and how well it runs.
    Bpf,
    /// What is mounted.
    Mounts,
    /// What handles the node's packets.
    Network,
}

/// One line about the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// Part of the node.
    pub area: Area,
    /// What is looked at.
    pub name: String,
    /// What it means for `nettrace run`.
    pub state: State,
    /// What was found; `not known` where it could not be read.
    pub value: String,
    /// Why it is not `ok`, or a word on it.
    pub reason: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Files (or system calls) that it was read from.
    pub from: Vec<String>,
}

/// Everything there is to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnosis {
    /// Version of this layout, 1.
    pub schema: u32,
    /// Version of nettrace.
    pub version: String,
    /// Whether `nettrace run` would work: no check is a problem.
    pub ready: bool,
    /// How the sources of signals are known.
    pub basis: Basis,
    /// Why not better.
    pub basis_reason: Option<String>,
    /// By signal, in the order of reports.
    pub signals: Vec<Row>,
    /// By area.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    fn new(facts: &Facts, problems: &[Problem], failed: Option<String>, signals: Signals) -> Self {
        let mut checks = judge::node(facts, problems, &signals);
        let reason = failed.or_else(|| signals.none.clone());
        checks.extend(reason.map(judge::nothing_to_measure));
        Self {
            schema: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: checks.iter().all(|check| check.state != State::Problem),
            basis: signals.basis,
            basis_reason: signals.why,
            signals: signals.rows,
            checks,
        }
    }
}

/// Looks at a machine, which must be the one this runs on for the kernel to verify anything. `needs` and `options` are
/// those of the run that is asked about.
#[must_use]
pub fn examine(machine: &impl Machine, needs: Needs, options: &ProgramOptions) -> Diagnosis {
    let facts = facts::gather(machine);
    let by_btf = |why| signals::by_btf(machine.root(), why);
    match preflight::check(machine, needs) {
        Err(error) => {
            let signals = by_btf("the problems below forbid to load the programs".to_owned());
            Diagnosis::new(&facts, &error.problems, None, signals)
        }
        Ok(()) => match signals::by_loading(options) {
            Ok(signals) => Diagnosis::new(&facts, &[], None, signals),
            Err(error) => {
                let signals = by_btf("the kernel refused the object".to_owned());
                Diagnosis::new(&facts, &[], Some(error.to_string()), signals)
            }
        },
    }
}

#[cfg(test)]
mod tests;
