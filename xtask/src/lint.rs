//! `cargo xtask lint`: every rule that a change has to keep, host and BPF alike.

use std::{process::Command, time::Instant};

use anyhow::{Result, bail};

use crate::{process, sources, toolchain::Toolchain, workspace};

/// Check formatting, lints, documentation, dependencies and that the kept kernel objects are current
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out what needs the BPF compiler (clippy on ebpf/)
    #[arg(long)]
    host_only: bool,
}

/// How a step went.
enum Verdict {
    Good,
    Skipped(String),
    Bad(String),
}

type Step = (&'static str, fn() -> Result<Verdict>);

const STEPS: [Step; 8] = [
    ("rustfmt", || check(process::cargo().args(["fmt", "--all", "--", "--check"]))),
    ("clippy, host", host_clippy),
    ("clippy, bpf x86_64", || bpf_clippy(workspace::ARCHES[0])),
    ("clippy, bpf aarch64", || bpf_clippy(workspace::ARCHES[1])),
    ("rustdoc", rustdoc),
    ("cargo-deny: licences, bans, sources", || {
        check(process::cargo().args(["deny", "check", "licenses", "bans", "sources"]))
    }),
    ("cargo-deny: advisories", advisories),
    ("kernel objects are current", kept_objects),
];

/// Runs every step, one line for each, and fails when any of them did.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut bad = Vec::new();
    for (name, step) in STEPS {
        if args.host_only && name.contains("bpf") {
            println!("skip  {name}: --host-only");
            continue;
        }
        let start = Instant::now();
        let verdict = step().unwrap_or_else(|e| Verdict::Bad(format!("{e:#}")));
        let took = start.elapsed().as_secs_f64();
        match verdict {
            Verdict::Good => println!("ok    {name} ({took:.1} s)"),
            Verdict::Skipped(why) => println!("skip  {name}: {why}"),
            Verdict::Bad(why) => {
                println!("FAIL  {name} ({took:.1} s)\n{why}");
                bad.push(name);
            }
        }
    }
    if !bad.is_empty() {
        bail!("lint failed: {}", bad.join("; "));
    }
    Ok(())
}

/// Runs a command silently; its output counts only when it fails.
fn check(cmd: &mut Command) -> Result<Verdict> {
    let out = process::output(cmd)?;
    if out.status.success() {
        return Ok(Verdict::Good);
    }
    let text = [out.stdout, out.stderr].concat();
    Ok(Verdict::Bad(format!("{}failed: {}", String::from_utf8_lossy(&text), process::shown(cmd))))
}

fn host_clippy() -> Result<Verdict> {
    let args = ["clippy", "--workspace", "--exclude=nettrace-ebpf", "--all-targets", "--", "-Dwarnings"];
    check(process::cargo().args(args))
}

fn bpf_clippy(arch: &str) -> Result<Verdict> {
    check(&mut Toolchain::find()?.clippy(arch)?)
}

fn rustdoc() -> Result<Verdict> {
    let args = ["doc", "--workspace", "--exclude=nettrace-ebpf", "--no-deps", "--document-private-items"];
    // The documentation is for those who work on the code: private items are in it, so links to them are good.
    check(process::cargo().args(args).env("RUSTDOCFLAGS", "-Dwarnings -Arustdoc::private_intra_doc_links"))
}

fn advisories() -> Result<Verdict> {
    let fetched = process::output(process::cargo().args(["deny", "fetch", "db"]))?;
    if !fetched.status.success() {
        return Ok(Verdict::Skipped("the advisory database cannot be fetched from here".to_owned()));
    }
    check(process::cargo().args(["deny", "check", "--disable-fetch", "advisories"]))
}

fn kept_objects() -> Result<Verdict> {
    sources::verify(&workspace::root(), &workspace::kept_dir())?;
    Ok(Verdict::Good)
}
