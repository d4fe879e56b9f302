//! The fault suite: what is advised of known faults, and of networks in order.
//!
//! Each file of `tests/scenarios` is a fault, its load, and the findings that it is to have; every other one is forbidden.
//! They run over IPv4 and IPv6. At the end the suite prints its confusion matrix, precision and recall, by rule. With
//! NETTRACE_SCENARIO set, only the files whose name contains that are read.

mod load;

use anyhow::{Context as _, Result};
use load::Load;
use nettrace::{
    capture::Options,
    lab::{Family, Lab, LabConfig, NarrowLeg, Role, Topology},
    recommend::{Profile, Verdict, advise},
    snapshot::Snapshot,
};
use nettrace_tests::{
    captured_in, in_guest,
    matrix::{Case, Matrix},
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Part of the names of the files that are to be read.
const ONLY: &str = "NETTRACE_SCENARIO";

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Scenario {
    /// What is wrong, for people.
    about: String,
    #[serde(default)]
    topology: Way,
    narrow: Option<Narrow>,
    /// Whether it takes a kernel with netem or a machine of its own: it runs in virtual machines, and others do not.
    #[serde(default)]
    guest: bool,
    /// Over IPv4 alone, and why.
    only_v4: Option<String>,
    /// Verdicts by rule. Any other rule may say *not needed* or *cannot tell*, and nothing else.
    expect: BTreeMap<String, Verdict>,
    /// Verdicts that are true, and that do not come each time: they do not count.
    #[serde(default)]
    may: BTreeMap<String, Verdict>,
    load: Vec<Load>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    #[default]
    Bridge,
    Routed,
}

/// A leg of the server's with a smaller MTU.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Narrow {
    mtu: u32,
    pod_knows: bool,
}

impl Scenario {
    fn lab(&self) -> Result<Lab> {
        let topology = match self.topology {
            Way::Bridge => Topology::Bridge,
            Way::Routed => Topology::Routed,
        };
        let narrow_leg =
            self.narrow.map(|n| NarrowLeg { pod: Role::Server, mtu: n.mtu, pod_knows: n.pod_knows });
        Ok(Lab::start(LabConfig { topology, narrow_leg, ..LabConfig::default() })?)
    }

    fn snapshot(&self, family: Family) -> Result<Snapshot> {
        let lab = self.lab()?;
        let change = |options: &mut Options| {
            options.dns_timeout = Duration::from_secs(1);
            // Traffic in a machine is over before a share of the time has come.
            options.always = in_guest();
        };
        let settings: Vec<_> = self.load.iter().filter_map(Load::setting_of_machine).collect();
        let _before = Before::of(&settings)?;
        let (finished, _listeners) = captured_in(&lab, change, |lab| {
            let run = |load: &Load| load.run(lab, family).with_context(|| format!("{load:?}"));
            self.load.iter().map(run).collect::<Result<Vec<_>>>()
        })?;
        Ok(finished.snapshot)
    }
}

/// Settings of the machine as they were, which they are again when this is dropped.
struct Before(Vec<(PathBuf, String)>);

impl Before {
    fn of(files: &[PathBuf]) -> Result<Self> {
        let read = |file: &PathBuf| {
            fs::read_to_string(file).map(|value| (file.clone(), value)).context(file.display().to_string())
        };
        files.iter().map(read).collect::<Result<_>>().map(Self)
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        for (file, value) in &self.0 {
            if let Err(error) = fs::write(file, value) {
                eprintln!("{} stays changed: {error}", file.display());
            }
        }
    }
}

/// Every scenario has exactly the findings that it is to have, and networks in order have none.
#[test]
fn findings_are_those_of_the_fault_and_no_others() {
    let (mut matrix, mut not_as_expected) = (Matrix::default(), Vec::new());
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        scenarios().unwrap().into_iter().partition(|(_, scenario)| scenario.guest == in_guest());
    let names: Vec<_> = elsewhere.iter().map(|(name, _)| name.as_str()).collect();
    println!("{} run elsewhere (`cargo xtask vm --all`, or the host): {}", names.len(), names.join(", "));
    for (name, scenario) in here {
        assert!(
            !scenario.about.is_empty() && scenario.only_v4.as_deref() != Some(""),
            "{name} does not say why"
        );
        let families = if scenario.only_v4.is_some() { &[Family::V4][..] } else { &[Family::V4, Family::V6] };
        for &family in families {
            let snapshot = scenario.snapshot(family).with_context(|| format!("{name}, {family:?}")).unwrap();
            println!("{name} {family:?}: {} expected", scenario.expect.len());
            not_as_expected.extend(judge(&format!("{name} {family:?}"), &scenario, &snapshot, &mut matrix));
        }
    }
    println!("\n{matrix}\n");
    if env::var_os(ONLY).is_none() {
        println!("rules that none of these calls for: {}", matrix.never_called_for().join(", "));
    }
    assert!(not_as_expected.is_empty(), "{not_as_expected:#?}");
    assert!(matrix.total().found > 0 || env::var_os(ONLY).is_some(), "nothing was found");
}

/// Yields what is not as it is to be.
fn judge(name: &str, scenario: &Scenario, snapshot: &Snapshot, matrix: &mut Matrix) -> Vec<String> {
    let mut bad = Vec::new();
    let mut rules = BTreeSet::new();
    for finding in advise(snapshot, Profile::Balanced) {
        rules.insert(finding.id.clone());
        if scenario.may.get(&finding.id) == Some(&finding.verdict) {
            continue;
        }
        let expected = scenario.expect.get(&finding.id).copied();
        let case = Case::of(expected, finding.verdict);
        matrix.count(&finding.id, case, finding.verdict);
        if !matches!(case, Case::Found | Case::Silent) {
            let (said, evidence) = (finding.verdict.name(), &finding.evidence);
            bad.push(format!(
                "{name}: {case:?}: {said} {} ({}; {evidence:?}), and {} is expected",
                finding.id,
                finding.because,
                expected.map_or("nothing", Verdict::name),
            ));
        }
    }
    let mut named = scenario.expect.keys().chain(scenario.may.keys());
    assert!(named.all(|id| rules.contains(id)), "{name} expects a rule that there is not");
    bad
}

/// All files, by name.
fn scenarios() -> Result<Vec<(String, Scenario)>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let only = env::var(ONLY).unwrap_or_default();
        if !path.to_string_lossy().contains(&only) {
            continue;
        }
        let scenario = toml::from_str(&fs::read_to_string(&path)?);
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        all.push((name, scenario.with_context(|| path.display().to_string())?));
    }
    all.sort_by(|a: &(String, Scenario), b| a.0.cmp(&b.0));
    Ok(all)
}
