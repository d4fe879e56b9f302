//! What becomes of a machine that packages are installed on, upgraded, removed from and purged from: tried as root, in mount
//! and network namespaces of its own, so that nothing is left of it.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{notify, root::Root};
use crate::{privilege::Privilege, process, release, workspace};

const CONFIG: &str = "/etc/nettrace/agent.toml";
const UNIT: &str = "/usr/lib/systemd/system/nettrace-agent.service";
const STATE: &str = "/var/lib/nettrace";

/// What both packages have, with modes.
const FILES: &[(&str, u32)] = &[
    ("/usr/bin/nettrace", 0o755),
    (CONFIG, 0o644),
    (UNIT, 0o644),
    ("/usr/share/man/man1/nettrace.1.gz", 0o644),
    ("/usr/share/man/man1/nettrace-run.1.gz", 0o644),
    ("/usr/share/bash-completion/completions/nettrace", 0o644),
    ("/usr/share/fish/vendor_completions.d/nettrace.fish", 0o644),
    ("/usr/share/doc/nettrace/CHANGELOG.md.gz", 0o644),
];
const DEB_FILES: &[(&str, u32)] = &[
    ("/usr/share/zsh/vendor-completions/_nettrace", 0o644),
    ("/usr/share/doc/nettrace/copyright", 0o644),
    ("/usr/share/doc/nettrace/LICENSE-APACHE", 0o644),
];
const RPM_FILES: &[(&str, u32)] = &[
    ("/usr/share/zsh/site-functions/_nettrace", 0o644),
    ("/usr/share/licenses/nettrace/LICENSE-APACHE", 0o644),
    ("/usr/share/licenses/nettrace/LICENSE-MIT", 0o644),
];

/// Starts the checks in namespaces of their own.
pub(super) fn run(deb: &Path, rpm: &Path, agent: bool) -> Result<()> {
    let this = env::current_exe()?;
    let mut cmd = Privilege::detect()
        .command(&[("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"))], "unshare")
        .map_err(|why| anyhow!("packages are installed as root ({why})"))?;
    cmd.args(["--mount", "--net", "--propagation=private"]).arg(this).arg("dist").arg("--check");
    if agent {
        cmd.arg("--agent");
    }
    cmd.arg("--inside").arg(deb).arg(rpm);
    process::run(&mut cmd)
}

/// In the namespaces.
pub(super) fn inside(deb: &Path, rpm: &Path, agent: bool) -> Result<()> {
    let work = workspace::target_dir().join("package-check");
    fs::create_dir_all(&work)?;
    process::run(Command::new("mount").args(["-t", "tmpfs", "nettrace-check"]).arg(&work))?;
    if process::find("dpkg").is_some() {
        check_deb(&work, deb, agent).context("deb")?;
        println!("dist: {} is installed, upgraded, removed and purged cleanly", name(deb));
    } else {
        println!("dist: not checked: {}: there is no dpkg here", name(deb));
    }
    if process::find("rpm").is_some() {
        check_rpm(&work, rpm).context("RPM")?;
        println!("dist: {} is installed, upgraded and removed cleanly", name(rpm));
    } else {
        println!("dist: not checked: {}: there is no rpm here (`cargo xtask setup --dist`)", name(rpm));
    }
    if !agent {
        println!("dist: not checked: whether the agent starts as systemd starts it (--agent)");
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn check_deb(work: &Path, deb: &Path, agent: bool) -> Result<()> {
    let root = Root::overlay(work)?;
    fs::copy(deb, root.inside("/root/nettrace.deb"))?;
    let depends = process::stdout(Command::new("dpkg-deb").arg("--field").arg(deb).arg("Depends"))?;
    ensure!(depends.trim().is_empty(), "a static program depends on {depends}");
    let install =
        || process::run(root.command(&["dpkg", "--install", "/root/nettrace.deb"]).stdout(Stdio::null()));
    install()?;
    let status = || {
        let query = ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}${Conffiles}", "nettrace"];
        process::stdout(&mut root.command(&query))
    };
    let told = status()?;
    ensure!(told.starts_with("ii") && told.contains(CONFIG), "dpkg says {told}");
    check_files(&root, DEB_FILES)?;
    check_program(&root)?;
    check_unit(&root)?;
    if agent {
        notify::check(&root, UNIT)?;
    }

    let changed = format!("{}\n# changed\n", fs::read_to_string(root.inside(CONFIG))?);
    fs::write(root.inside(CONFIG), &changed)?;
    install().context("upgrade")?;
    ensure!(fs::read_to_string(root.inside(CONFIG))? == changed, "an upgrade takes the configuration back");

    for dir in ["history", "flight"] {
        fs::create_dir_all(root.inside(STATE).join(dir))?;
    }
    process::run(root.command(&["dpkg", "--remove", "nettrace"]).stdout(Stdio::null()))?;
    root.check_gone("/usr/bin/nettrace")?;
    root.check_gone(UNIT)?;
    ensure!(fs::read_to_string(root.inside(CONFIG))? == changed, "removing takes the configuration");
    ensure!(root.inside(STATE).join("history").exists(), "removing takes what was recorded");

    let purge = || {
        process::run(
            root.command(&["dpkg", "--purge", "nettrace"]).stdout(Stdio::null()).stderr(Stdio::null()),
        )
    };
    fs::write(root.inside(STATE).join("journal"), "")?;
    purge()?;
    root.check_gone(CONFIG)?;
    root.check_gone(&format!("{STATE}/history"))?;
    ensure!(root.inside(STATE).join("journal").exists(), "purging takes the journal, which undoes changes");
    fs::remove_file(root.inside(STATE).join("journal"))?;
    install()?;
    purge()?;
    root.check_gone(STATE)?;
    root.check_gone("/etc/nettrace")
}

/// RPM has a list of what it needs itself; of other packages there is a shell for its scripts.
fn check_rpm(work: &Path, rpm: &Path) -> Result<()> {
    let ask = |what: &str| process::stdout(Command::new("rpm").args(["-qp", what]).arg(rpm));
    for need in ask("--requires")?.lines() {
        ensure!(
            ["rpmlib(", "config(nettrace)"].iter().any(|own| need.starts_with(own)) || need == "/bin/sh",
            "a static program needs {need}"
        );
    }
    ensure!(ask("-c")?.trim() == CONFIG, "configuration files: {}", ask("-c")?);
    let root = Root::with_shell(work)?;
    let rpm_in = |words: &[&str]| {
        let mut cmd = Command::new("rpm");
        cmd.arg("--root").arg(&root.path).args(words);
        cmd
    };
    process::run(&mut rpm_in(&["--initdb"]))?;
    // The shell is there, and no package that provides it.
    let install = |how: &str| process::run(rpm_in(&[how, "--nodeps"]).arg(rpm));
    install("--install")?;
    check_files(&root, RPM_FILES)?;
    check_program(&root)?;
    let verified = process::output(&mut rpm_in(&["--verify", "--nodeps", "nettrace"]))?;
    ensure!(verified.stdout.is_empty(), "{}", String::from_utf8_lossy(&verified.stdout));

    let changed = format!("{}\n# changed\n", fs::read_to_string(root.inside(CONFIG))?);
    fs::write(root.inside(CONFIG), &changed)?;
    process::run(rpm_in(&["--upgrade", "--force", "--nodeps"]).arg(rpm).stderr(Stdio::null()))
        .context("upgrade")?;
    ensure!(fs::read_to_string(root.inside(CONFIG))? == changed, "an upgrade takes the configuration back");
    process::run(rpm_in(&["--erase", "nettrace"]).stderr(Stdio::null()))?;
    for path in ["/usr/bin/nettrace", UNIT, "/usr/share/licenses/nettrace/LICENSE-MIT"] {
        root.check_gone(path)?;
    }
    let kept = fs::read_to_string(root.inside(&format!("{CONFIG}.rpmsave")));
    ensure!(
        kept.is_ok_and(|kept| kept == changed),
        "removing does not keep a configuration that was changed"
    );
    Ok(())
}

fn check_files(root: &Root, more: &[(&str, u32)]) -> Result<()> {
    FILES.iter().chain(more).try_for_each(|(path, mode)| root.check_file(path, *mode))
}

/// It starts with nothing beside it, and completes.
fn check_program(root: &Root) -> Result<()> {
    release::check_static(&root.inside("/usr/bin/nettrace"))?;
    let said = process::stdout(&mut root.command(&["/usr/bin/nettrace", "--version"]))?;
    ensure!(said.trim() == format!("nettrace {}", super::version()?), "it says {said}");
    let script = fs::read_to_string(root.inside("/usr/share/bash-completion/completions/nettrace"))?;
    ensure!(script.contains("_nettrace"), "no completion script");
    Ok(())
}

/// systemd's own check of the unit, with the program in its place.
fn check_unit(root: &Root) -> Result<()> {
    if !root.inside("/usr/bin/systemd-analyze").exists() {
        println!("dist: not checked: the unit: there is no systemd-analyze here");
        return Ok(());
    }
    let checked = process::output(&mut root.command(&["systemd-analyze", "verify", "--man=no", UNIT]))?;
    let said = String::from_utf8_lossy(&checked.stderr);
    // It looks at units that the unit refers to, too, which are the machine's.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("nettrace")).collect();
    if !checked.status.success() || !ours.is_empty() {
        bail!("systemd-analyze verify: {}: {said}", checked.status);
    }
    let offline = ["systemd-analyze", "security", "--offline=yes", "--no-pager", UNIT];
    if let Ok(told) = process::stdout(&mut root.command(&offline)) {
        let exposure = told.lines().last().unwrap_or_default();
        println!(
            "dist: systemd-analyze security: {}",
            exposure.trim_start_matches(|c: char| !c.is_ascii()).trim()
        );
    }
    Ok(())
}
