//! `cargo xtask test`: all tests of the workspace, with the kept kernel object.
//!
//! The tests of `nettrace-tests` build lab networks and load programs, so they run as root, and one after the
//! other because they share the kernel's state. All others run as the user who asks.
//!
//! Cargo builds a package once more where packages chosen with it turn on other features of what they share. The packages
//! are chosen so that this does not happen.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{privilege::Privilege, process, setup, workspace};

const LAB: &str = "nettrace-tests";

/// Run the tests: unit tests as this user, lab tests as root
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the tests that need no root
    #[arg(long, conflicts_with = "lab_only")]
    unit_only: bool,
    /// Only the tests that need root
    #[arg(long)]
    lab_only: bool,
    /// Do not look for, and do not install, the tools that lab tests use
    #[arg(long)]
    no_setup: bool,
    /// Names of tests, and more arguments for the test programs
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs the tests; both kinds run even if the first has failures.
pub(crate) fn run(args: &Args) -> Result<()> {
    let privilege = Privilege::detect();
    if !args.unit_only && !args.no_setup {
        // What is missing lets single tests fail or skip, which they say themselves, so the others still run.
        if let Err(e) = setup::test_tools() {
            println!("warning: {e:#}");
        }
    }
    let unit = if args.lab_only { Ok(()) } else { run_unit(&args.rest) };
    let lab = if args.unit_only { Ok(()) } else { run_lab(privilege, &args.rest) };
    match (unit, lab) {
        (Err(unit), Err(lab)) => bail!("unit tests: {unit:#}; lab tests: {lab:#}"),
        (unit, lab) => unit.context("unit tests").and(lab.context("lab tests")),
    }
}

fn run_unit(rest: &[String]) -> Result<()> {
    let [product, tasks] = unit_tests(rest).map(|mut cmd| process::run(&mut cmd));
    product.and(tasks)
}

/// Those of the product, and those of this program.
fn unit_tests(rest: &[String]) -> [Command; 2] {
    let lab = format!("--exclude={LAB}");
    [&["--workspace", "--exclude=nettrace-ebpf", "--exclude=xtask", &lab][..], &["--package=xtask"]].map(
        |packages| {
            let mut cmd = process::cargo();
            cmd.arg("test").args(packages);
            // One failing crate must not hide another's.
            cmd.args(["--no-fail-fast", "--"]).args(rest);
            cmd
        },
    )
}

fn run_lab(privilege: Privilege, rest: &[String]) -> Result<()> {
    if let Privilege::None(why) = privilege {
        bail!("they need root ({why}); run `cargo xtask test --lab-only` as root or with sudo set up");
    }
    process::run(lab_programs("build").arg("--bins"))?;
    let host = process::stdout(Command::new("rustc").arg("-vV"))?;
    let host =
        host.lines().find_map(|line| line.strip_prefix("host: ")).context("`rustc -vV` has no host")?;
    process::run(&mut lab_tests(privilege, host, rest))
}

/// A command of cargo for the lab's tests and the programs that they start. The guest's program is not among them, and
/// is chosen because the unit tests' packages have it.
fn lab_programs(command: &str) -> Command {
    let mut cmd = process::cargo();
    cmd.args([command, "--package=nettrace", "--package=nettrace-guest"]).arg(format!("--package={LAB}"));
    cmd
}

fn lab_tests(privilege: Privilege, host: &str, rest: &[String]) -> Command {
    let mut cmd = lab_programs("test");
    // Only the lab's tests are programs of their own; the other packages' stand beside what they test.
    cmd.args(["--test=*", "--no-fail-fast", "--", "--test-threads=1"]).args(rest);
    cmd.env("NETTRACE_BIN", workspace::target_dir().join("debug/nettrace"));
    if privilege == Privilege::Sudo {
        // Cargo builds as the user and only the finished test programs run as root.
        cmd.env(runner_variable(host), "sudo -E");
    }
    cmd
}

/// The variable that tells cargo what to run a program of this target with.
fn runner_variable(host: &str) -> String {
    format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace(['-', '.'], "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_test_programs_run_under_sudo() {
        let rest = ["dns".to_owned()];
        let host = "x86_64-unknown-linux-gnu";
        let as_user = process::shown(&lab_tests(Privilege::Sudo, host, &rest));
        assert!(as_user.contains("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='sudo -E'"), "{as_user}");
        assert!(as_user.ends_with("-- --test-threads=1 dns"), "{as_user}");
        assert!(!process::shown(&lab_tests(Privilege::Root, host, &rest)).contains("RUNNER"));
    }

    #[test]
    fn lab_tests_without_root_fail_with_the_reason() {
        let e = run_lab(Privilege::None("not root"), &[]).expect_err("there is no root");
        assert!(format!("{e:#}").contains("not root"));
    }

    #[test]
    fn neither_kind_touches_the_kernel_programs_crate() {
        let [unit, tasks] = unit_tests(&[]).map(|cmd| process::shown(&cmd));
        assert!(unit.contains("--exclude=nettrace-ebpf"), "{unit}");
        assert_eq!(tasks, "cargo test --package=xtask --no-fail-fast --");
    }
}
