//! The fault suite: what is advised of known faults, and of networks in order.
//!
//! Each file of `tests/scenarios` is a fault, its load, and the findings that it is to have; every other one is forbidden.
//! They run over IPv4 and IPv6. At the end the suite prints its confusion matrix, precision and recall. With NETTRACE_SCENARIO
//! set, only the files whose name contains that are read.

mod load;

use anyhow::{Context as _, Result};
use load::Load;
use nettrace::{
    capture::Options,
    lab::{Family, Lab, LabConfig, NarrowLeg, Role, Topology},
    recommend::{Profile, Verdict, advise},
    snapshot::Snapshot,
};
use nettrace_tests::{captured_in, in_guest};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

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
    /// Over IPv4 alone: where what is wrong knows no other.
    #[serde(default)]
    only_v4: bool,
    /// Findings of *apply* or *consider*, by rule. Any other is forbidden.
    expect: BTreeMap<String, String>,
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

/// Findings that were to be had, and that were had.
#[derive(Debug, Default)]
struct Matrix {
    found: usize,
    wrong: Vec<String>,
    missed: Vec<String>,
    silent: usize,
}

impl Matrix {
    fn ratio(part: usize, rest: usize) -> f64 {
        if part + rest == 0 { 1.0 } else { part as f64 / (part + rest) as f64 }
    }

    fn precision(&self) -> f64 {
        Self::ratio(self.found, self.wrong.len())
    }

    fn recall(&self) -> f64 {
        Self::ratio(self.found, self.missed.len())
    }
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
    let mut matrix = Matrix::default();
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        scenarios().unwrap().into_iter().partition(|(_, scenario)| scenario.guest == in_guest());
    let names: Vec<_> = elsewhere.iter().map(|(name, _)| name.as_str()).collect();
    println!("{} run elsewhere (`cargo xtask vm --all`, or the host): {}", names.len(), names.join(", "));
    for (name, scenario) in here {
        let families = if scenario.only_v4 { &[Family::V4][..] } else { &[Family::V4, Family::V6] };
        for &family in families {
            let snapshot = scenario.snapshot(family).with_context(|| format!("{name}, {family:?}")).unwrap();
            println!("{name} {family:?}: {} expected", scenario.expect.len());
            judge(&format!("{name} {family:?}"), &scenario, &snapshot, &mut matrix);
        }
    }
    let Matrix { found, wrong, missed, silent } = &matrix;
    println!(
        "\nfound {found}, wrong {}, missed {}, rules rightly silent {silent}",
        wrong.len(),
        missed.len()
    );
    println!("precision {:.3}, recall {:.3}", matrix.precision(), matrix.recall());
    assert!(wrong.is_empty() && missed.is_empty(), "wrong: {wrong:#?}; missed: {missed:#?}");
    assert!(*found > 0, "nothing was found");
}

fn judge(name: &str, scenario: &Scenario, snapshot: &Snapshot, matrix: &mut Matrix) {
    let mut rules = BTreeSet::new();
    for finding in advise(snapshot, Profile::Balanced) {
        let urgent = finding.verdict <= Verdict::Consider;
        let expected = scenario.expect.get(&finding.id).map(String::as_str);
        let said = format!(
            "{name}: {} {} ({}; {:?})",
            finding.verdict.name(),
            finding.id,
            finding.because,
            finding.evidence
        );
        match expected {
            Some(verdict) if verdict == finding.verdict.name() => matrix.found += 1,
            Some(_) => matrix.missed.push(said),
            None if urgent => matrix.wrong.push(said),
            None => matrix.silent += 1,
        }
        rules.insert(finding.id);
    }
    assert!(scenario.expect.keys().all(|id| rules.contains(id)), "{name} expects a rule that there is not");
    assert!(!scenario.about.is_empty());
}

/// All files, by name.
fn scenarios() -> Result<Vec<(String, Scenario)>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let only = env::var("NETTRACE_SCENARIO").unwrap_or_default();
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
