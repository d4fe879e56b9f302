//! The program from outside: what it says and how it ends when it cannot work, and what it writes when it can.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use crate::ifaces::{attached_in, wait_for};
use nettrace::{
    lab::{Lab, LabConfig},
    snapshot::Snapshot,
};
use nettrace_tests::program::{nettrace, stderr, stdout};
use std::{
    ffi::OsStr,
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

const CAPABILITIES: [&str; 4] = ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"];

fn run(args: &[&str]) -> Output {
    nettrace().unwrap().args(args).stdin(Stdio::null()).output().unwrap()
}

/// By way of another program, which starts it in its own manner.
fn run_by(by: &str, by_args: &[&str], args: &[&str]) -> Output {
    let program = nettrace().unwrap();
    Command::new(by)
        .args(by_args)
        .arg(program.get_program())
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// One line on standard error, nothing on standard output, and this exit code. Yields the line.
fn refused(output: &Output, code: i32) -> String {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(stdout(output), "");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("nettrace: "), "{said}");
    said
}

/// A file or directory of this test program's own.
fn scratch(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    let _ = fs::remove_file(&path);
    path
}

/// Without privileges it names every capability that is missing, those alone, and the way out.
#[test]
fn missing_capabilities_are_named() {
    let by = ["--bounding-set=-all", "--inh-caps=-all"];
    let said = refused(&run_by("setpriv", &by, &["run", "--lab", "-d", "1s"]), 2);
    for capability in CAPABILITIES {
        assert!(said.contains(capability), "{capability}: {said}");
    }
    assert!(said.contains("sudo"), "{said}");
    // CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON as well, as it does to the kernel.
    for missing in ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"] {
        let set = format!("--bounding-set=-{}", missing.trim_start_matches("CAP_").to_lowercase());
        let output = run_by("setpriv", &[&set, "--inh-caps=-all"], &["run", "--lab", "-d", "1s"]);
        let said = refused(&output, 2);
        let problem = said.split(';').next().unwrap_or_default();
        for capability in CAPABILITIES {
            assert_eq!(problem.contains(capability), capability == missing, "{said}");
        }
    }
}

/// Without kernel type information it says so, and measures what is left.
#[test]
fn missing_type_information_is_named() {
    let empty = scratch("no-btf");
    fs::create_dir_all(&empty).unwrap();
    let script = format!("mount --bind '{}' /sys/kernel/btf && exec \"$0\" \"$@\"", empty.display());
    let args = ["run", "--lab", "-d", "1s", "--format", "json"];
    let output = run_by("unshare", &["--mount", "sh", "-c", &script], &args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF)"), "{said}");
    let snapshot = Snapshot::from_json(&output.stdout).unwrap();
    assert!(snapshot.dns.transactions > 0);
}

/// A recording that the disk has no room for is a failure, and what there is of it can be reported.
#[test]
fn a_full_disk_fails_a_recording() {
    let dir = scratch("full-disk");
    fs::create_dir_all(&dir).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=256k none '{0}' && \"$0\" \"$@\" '{0}/run.rec'; code=$?; \
         \"$0\" report '{0}/run.rec'; echo \"report $?\"; exit $code",
        dir.display()
    );
    let args = ["record", "--lab", "-d", "2s", "--quiet"];
    let output = run_by("unshare", &["--mount", "sh", "-c", &script], &args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("lacks a part of the measurement") && said.contains("No space left"), "{said}");
    assert!(!said.contains("recorded "), "{said}");
    assert!(stdout(&output).ends_with("report 3\n"), "{said}");
}

/// What is mistyped is refused in one line that names it, and nothing is attached.
#[test]
fn what_cannot_be_is_refused() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let node = lab.node().netns.name();
    let netns = ["run", "-d", "1s", "--netns", node];
    let with = |more: &[&str]| refused(&run(&[&netns, more].concat()), 2);
    assert!(with(&["-i", "nosuch*"]).contains("nosuch*"));
    // The expression follows, with a mark below the word in question.
    let output = run(&[&netns[..], &["--filter", "prot 53"]].concat());
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
    let said = stderr(&output);
    let lines: Vec<_> = said.lines().collect();
    assert!(matches!(lines[..], [first, "  prot 53", "  ^^^^"] if first.ends_with("found `prot`")), "{said}");
    assert!(with(&["--ring-size", "5000"]).contains("ring-size"));
    let said = with(&["-o", "/nonexistent/report.htlm"]);
    assert!(said.contains("`.htlm`") && said.contains(".html"), "{said}");
    assert!(with(&["-o", "/nonexistent/report.html"]).contains("/nonexistent/report.html"));
    let said = refused(&run(&["run", "-d", "1s", "--netns", "no-such-namespace"]), 2);
    assert!(said.contains("no-such-namespace"), "{said}");
    let said = refused(&run(&["record", "-d", "1s", "--netns", node, "/nonexistent/run.rec"]), 2);
    assert!(said.contains("/nonexistent/run.rec"), "{said}");
    assert!(refused(&run(&["report", "/nonexistent/run.rec"]), 2).contains("/nonexistent/run.rec"));
    assert_eq!(attached_in(&lab), Vec::<String>::new());
    let report = scratch("never-measured.txt");
    refused(&run(&["run", "-d", "1s", "--netns", "no-such-namespace", "-o", report.to_str().unwrap()]), 2);
    assert!(!report.exists(), "no empty report is left behind");
}

/// A run of the lab yields JSON that the published schema describes; and the same snapshot as text, Markdown and a page.
#[test]
fn every_format_is_written() {
    let dir = scratch("formats");
    fs::create_dir_all(&dir).unwrap();
    let output = run(&["run", "--lab", "-d", "2s", "--format", "json", "--quiet"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let instance: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let schema =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/snapshot.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
    let problems: Vec<_> = validator.iter_errors(&instance).map(|e| e.to_string()).collect();
    assert_eq!(problems, Vec::<String>::new());
    let snapshot = Snapshot::from_json(&output.stdout).unwrap();
    assert!(snapshot.meta.lab && snapshot.dns.transactions > 0 && snapshot.tcp.connects > 0);
    // What needs kprobes or fentry is off where there are none.
    let unreachable = |reason: &str| reason.contains("this kernel has no kprobes");
    let off: Vec<_> = snapshot
        .probes
        .iter()
        .filter(|p| p.source.is_none() && !p.reason.as_deref().is_some_and(unreachable))
        .map(|p| (&p.name, &p.reason))
        .collect();
    assert_eq!(off, [], "probes that are off");

    let json = dir.join("run.json");
    fs::write(&json, &output.stdout).unwrap();
    let report = |format: &str| {
        let output =
            nettrace().unwrap().arg("report").arg(&json).args(["--format", format]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    for (format, mark) in [("text", "rx.total"), ("markdown", "| "), ("html", "<!doctype html>")] {
        let text = report(format);
        assert!(text.to_lowercase().contains(mark), "{format}: {text:.200}");
        assert!(text.contains("rx.total"), "{format}: {text:.200}");
    }
    let again = Snapshot::from_json(report("json").as_bytes()).unwrap();
    assert_eq!(again, snapshot, "a snapshot comes through a report unchanged");
}

/// Ctrl-C ends the run early, and the report is there.
#[test]
fn an_interrupt_ends_early_and_reports() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let mut child = nettrace()
        .unwrap()
        .args(["run", "-d", "10m", "--format", "json", "--quiet", "--netns", lab.node().netns.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let attached = wait_for(|| !attached_in(&lab).is_empty());
    // SAFETY: a call without pointers; the child has not been waited for, so the number is its own.
    let sent = unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    if !attached || sent != 0 {
        let _ = child.kill();
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.status.signal()), (Some(0), None), "{}", stderr(&output));
    let snapshot = Snapshot::from_json(&output.stdout).unwrap();
    assert!(snapshot.meta.duration_ns < 600_000_000_000);
    assert_eq!(attached_in(&lab), Vec::<String>::new());
}

/// The completion scripts are there, the shells that are there take them, and the manual page is one.
#[test]
fn completions_and_manual_are_written() {
    for (shell, check) in [("bash", Some(["bash", "-n"])), ("zsh", None), ("fish", None)] {
        let output = run(&["completions", shell]);
        assert!(output.status.success(), "{shell}: {}", stderr(&output));
        let script = stdout(&output);
        assert!(script.contains("nettrace") && script.contains("record"), "{shell}: {script:.100}");
        if let Some([program, option]) = check {
            let file = scratch("completions");
            fs::write(&file, &script).unwrap();
            let checked =
                Command::new(program).args([OsStr::new(option), file.as_os_str()]).output().unwrap();
            assert!(checked.status.success(), "{}", stderr(&checked));
        }
    }
    let page = stdout(&run(&["man"]));
    assert!(page.contains(".TH nettrace 1"), "{page:.200}");
    let dir = scratch("man");
    let output = run(&["man", "--dir", dir.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let pages: Vec<_> = fs::read_dir(&dir).unwrap().map(|f| f.unwrap().path()).collect();
    assert!(pages.len() >= 6, "{pages:?}");
    for page in pages {
        assert!(fs::read_to_string(&page).unwrap().contains(".TH "), "{page:?}");
        // Where there is groff, it finds nothing to complain of.
        if let Ok(checked) = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&page).output() {
            assert!(checked.status.success() && checked.stderr.is_empty(), "{page:?}: {}", stderr(&checked));
        }
    }
}
