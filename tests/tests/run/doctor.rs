//! `nettrace doctor` against what a run really uses, and what it leaves.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use crate::ifaces::{attached_in, bpf_descriptors};
use nettrace::{
    doctor::{Basis, Check, Diagnosis, State, examine},
    lab::{Lab, LabConfig},
    load::ProgramOptions,
    preflight::{Host, Needs},
    probes::PROBES,
    snapshot::Snapshot,
};
use nettrace_tests::program::{nettrace, stderr, stdout};
use std::{
    fs,
    process::{Child, Command, Output, Stdio},
};

fn doctor(args: &[&str]) -> Output {
    nettrace().unwrap().arg("doctor").args(args).stdin(Stdio::null()).output().unwrap()
}

/// What a run of this machine's own namespace reports of its probes: name, source and reason.
fn used() -> Vec<(String, Option<String>, Option<String>)> {
    let args = ["run", "-d", "200ms", "--quiet", "--format", "json"];
    let output = nettrace().unwrap().args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let snapshot = Snapshot::from_json(&output.stdout).unwrap();
    snapshot.probes.into_iter().map(|p| (p.name, p.source, p.reason)).collect()
}

fn check(diagnosis: &Diagnosis, name: &str) -> Check {
    diagnosis.checks.iter().find(|check| check.name == name).cloned().unwrap()
}

/// Every probe, from the same source and for the same reason as in a run; in text as well.
#[test]
fn it_says_what_a_run_uses() {
    let output = doctor(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let diagnosis: Diagnosis = serde_json::from_slice(&output.stdout).unwrap();
    assert!(diagnosis.ready && diagnosis.basis == Basis::Verifier, "{diagnosis:?}");
    assert!(diagnosis.checks.iter().all(|check| check.state != State::Problem), "{diagnosis:?}");
    let said: Vec<_> = diagnosis.signals.into_iter().map(|row| (row.name, row.source, row.reason)).collect();
    assert_eq!(said.len(), PROBES.len());
    assert_eq!(said, used());
    let output = doctor(&[]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let text = stdout(&output);
    assert!(text.starts_with("✓ `nettrace run` would work"), "{text}");
    assert!(!text.contains('\u{1b}'), "a pipe has no colours: {text}");
    for probe in PROBES {
        assert!(text.contains(&format!(" {} ", probe.name)), "{}: {text}", probe.name);
    }
}

/// Without privileges it says what a run would say, and still names sources, by the kernel's types; what the kernel refuses
/// all the same only shows when it is asked.
#[test]
fn without_privileges_it_judges_by_types() {
    let program = nettrace().unwrap();
    let output = Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(program.get_program())
        .args(["doctor", "--json"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let diagnosis: Diagnosis = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!diagnosis.ready && diagnosis.basis == Basis::Btf, "{diagnosis:?}");
    let capabilities = check(&diagnosis, "capabilities");
    assert_eq!(capabilities.state, State::Problem);
    assert!(capabilities.reason.unwrap().contains("CAP_BPF") && capabilities.hint.unwrap().contains("sudo"));
    let said = diagnosis.signals.into_iter().map(|row| (row.name, row.source, row.reason));
    let refused = |reason: &Option<String>| reason.as_deref().is_some_and(|r| r.contains("refused"));
    let mut compared = 0;
    for (said, used) in said.zip(used()).filter(|(_, (_, _, reason))| !refused(reason)) {
        assert_eq!(said, used);
        compared += 1;
    }
    // A kernel may refuse fentry, which types do not tell.
    let sure = PROBES.iter().filter(|p| p.sources[0].rung() != "fentry").count();
    assert!(compared >= sure, "{compared} of {} probes", PROBES.len());
}

/// Each signal is measured from what docs/kernels.md says, on the kernels of its table.
#[test]
fn sources_are_those_of_the_published_table() {
    let table = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kernels.md")).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("| ---"))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    // `6.1` is not `6.12`, and `7.x` is any 7.
    let is_ours = |series: &&str| {
        let prefix = series.strip_suffix('x').map_or_else(|| format!("{series}."), str::to_owned);
        release.starts_with(&prefix)
    };
    let Some(column) = rows[0].iter().skip(1).position(is_ours) else {
        println!("skipped: docs/kernels.md has no column for {}", release.trim());
        return;
    };
    let diagnosis: Diagnosis = serde_json::from_slice(&doctor(&["--json"]).stdout).unwrap();
    let rung = |source: &str| {
        let sources = PROBES.iter().flat_map(|probe| probe.sources);
        sources.into_iter().find(|s| s.to_string() == source).map(|s| s.rung().to_owned())
    };
    let mut said = Vec::new();
    for row in &diagnosis.signals {
        println!(
            "{}: {} ({})",
            row.name,
            row.source.as_deref().unwrap_or("off"),
            row.reason.as_deref().unwrap_or("")
        );
        said.push((
            row.name.as_str(),
            row.source.as_deref().and_then(rung).unwrap_or_else(|| "off".to_owned()),
        ));
    }
    let published: Vec<_> = rows[1..].iter().map(|row| (row[0], row[column + 1].to_owned())).collect();
    assert_eq!(said, published);
}

/// Links that a process holds at any time until it ends; each is a program that is attached.
fn links_of(child: &mut Child) -> usize {
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        // The process may end at any moment, and its descriptors with it.
        let entries = fs::read_dir(format!("/proc/{}/fd", child.id())).into_iter().flatten().flatten();
        let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        most = most.max(targets.filter(|target| target.to_string_lossy().contains("bpf_link")).count());
    }
    most
}

/// It attaches nothing while it runs, and neither programs nor maps are there when it is over.
#[test]
fn nothing_is_attached_and_nothing_left() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let links = |args: &[&str]| {
        let mut inside = Command::new("ip");
        inside
            .args(["netns", "exec", lab.node().netns.name()])
            .arg(nettrace().unwrap().get_program())
            .args(args);
        links_of(&mut inside.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    };
    assert_eq!(links(&["doctor"]), 0);
    assert_eq!(attached_in(&lab), Vec::<String>::new());
    assert!(links(&["run", "-d", "500ms", "--quiet"]) > 0, "the same look at a run sees what is attached");
    assert_eq!(bpf_descriptors(), Vec::<String>::new());
    let diagnosis = examine(&Host, Needs::default(), &ProgramOptions::default());
    assert_eq!((diagnosis.ready, diagnosis.basis), (true, Basis::Verifier));
    assert_eq!(bpf_descriptors(), Vec::<String>::new());
}
