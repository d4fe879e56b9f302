//! What the virtual machines are given: the programs under test, the tools that these use, and a kernel's modules.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nettrace_guest::{Job, MODULES, NETTRACE, PLAN, SHELL};

use super::{archive::Archive, kernels::Kernel, modules};
use crate::{process, release, workspace};

/// The target of guest programs: linked statically against the C library, they need nothing else.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "vm";

/// Programs that tests start, and some for whoever looks around in a shell.
const TOOLS: &[&str] = &[
    "dash",
    "ip",
    "tc",
    "ss",
    "nstat",
    "bridge",
    "nft",
    "iptables-legacy",
    "ip6tables-legacy",
    "conntrack",
    "ethtool",
    "ping",
    "setpriv",
    "sysctl",
    "bpftool",
    "netperf",
    "netserver",
];
/// Files that tools read.
const TREES: &[&str] =
    &["/etc/iproute2", "/usr/share/iproute2", "/usr/lib/tc", "/usr/lib/x86_64-linux-gnu/xtables"];
const FILES: &[&str] = &["/etc/protocols", "/etc/services"];

/// The programs built for the guest.
pub(super) struct Programs {
    /// Where cargo puts them.
    dir: PathBuf,
    /// Test programs by the name of their target.
    pub(super) tests: Vec<(String, PathBuf)>,
}

impl Programs {
    /// Builds them.
    pub(super) fn build() -> Result<Self> {
        println!("vm: building for the guest");
        let mut cmd = cargo("build");
        // All at once, so that what they share is built once.
        cmd.args(["-p=nettrace", "-p=nettrace-guest", "-p=nettrace-tests", "--bins", "--test=*"]);
        cmd.args(["--quiet", "--message-format=json-render-diagnostics"]);
        // Warnings and errors are for the terminal; only the messages are wanted.
        let out = process::output(cmd.stderr(Stdio::inherit()))?;
        if !out.status.success() {
            bail!("`{}` failed: {}", process::shown(&cmd), out.status);
        }
        let tests = test_programs(&String::from_utf8_lossy(&out.stdout))?;
        Ok(Self { dir: build_dir().join(TARGET).join(PROFILE), tests })
    }

    /// The names of all tests, each after that of its program.
    pub(super) fn list(&self) -> Result<Vec<Test>> {
        let mut tests = Vec::new();
        for (target, program) in &self.tests {
            let list = process::stdout(Command::new(program).args(["--list", "--format=terse"]))?;
            let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
            tests.extend(names.map(|name| Test {
                name: format!("{target}::{name}"),
                program: program.clone(),
                test: name.to_owned(),
            }));
        }
        Ok(tests)
    }
}

/// One test, as a row of the matrix.
#[derive(Debug, Clone)]
pub(super) struct Test {
    /// Its program's name and its own.
    pub(super) name: String,
    program: PathBuf,
    test: String,
}

impl Test {
    /// What the guest has to do for it.
    pub(super) fn job(&self, timeout: std::time::Duration) -> Job {
        let args = ["--exact", &self.test, "--test-threads=1", "--nocapture"];
        Job { timeout, program: self.program.display().to_string(), args: args.map(str::to_owned).to_vec() }
    }
}

fn build_dir() -> PathBuf {
    workspace::target_dir().join("vm/build")
}

fn cargo(command: &str) -> Command {
    let mut cmd = process::cargo();
    cmd.args([command, "--profile", PROFILE, "--target", TARGET, "--target-dir"]).arg(build_dir());
    release::link_statically(&mut cmd);
    cmd
}

/// The test programs among cargo's messages.
fn test_programs(messages: &str) -> Result<Vec<(String, PathBuf)>> {
    let mut programs = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: serde_json::Value = serde_json::from_str(line).context("a message of cargo")?;
        let target = &message["target"];
        let is_test = target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"));
        if let (true, Some(name), Some(path)) =
            (is_test, target["name"].as_str(), message["executable"].as_str())
        {
            programs.push((name.to_owned(), path.into()));
        }
    }
    if programs.is_empty() {
        bail!("cargo built no test programs");
    }
    programs.sort();
    Ok(programs)
}

/// Writes the file system that all machines share. It is unpacked into a machine's memory, so that of the programs of tests
/// only those are in it that `tests` are in; without any, who looks around may want all.
pub(super) fn base(path: &Path, programs: &Programs, tests: &[Test]) -> Result<()> {
    let mut archive = Archive::create(path)?;
    for dir in ["bin", "sbin", "lib", "lib64"] {
        archive.link(&format!("/{dir}"), &format!("usr/{dir}"))?;
    }
    for dir in
        ["/dev", "/proc", "/sys", "/tmp", "/run", "/root", "/var", "/usr/bin", "/usr/sbin", "/usr/lib64"]
    {
        archive.directory(dir)?;
    }
    archive.link("/var/run", "../run")?;
    // Until devtmpfs is there: the first process's standard streams.
    archive.device("/dev/console", 5, 1)?;
    archive.device("/dev/null", 1, 3)?;
    archive.file(
        "/etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    )?;
    archive.file("/etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    tools(&mut archive)?;
    archive.copy_to(&programs.dir.join("guest-init"), Path::new("/init"))?;
    archive.copy_to(&programs.dir.join("nettrace"), Path::new(NETTRACE))?;
    // Test programs know the paths that cargo told them: of themselves, of each other, of files of the repository.
    for (_, program) in &programs.tests {
        if tests.is_empty() || tests.iter().any(|test| test.program == *program) {
            archive.copy(program)?;
        }
    }
    archive.copy(&programs.dir.join("lab-holder"))?;
    archive.directory(&build_dir().join("tmp").to_string_lossy())?;
    archive.directory(&workspace::root().join("tests").to_string_lossy())?;
    archive.tree(&workspace::root().join("tests/scenarios"))?;
    for file in ["snapshot.schema.json", "kernels.md"] {
        archive.copy(&workspace::root().join("docs").join(file))?;
    }
    archive.finish()
}

fn tools(archive: &mut Archive) -> Result<()> {
    for tool in TOOLS {
        // What is missing lets the tests that use it fail, which they say themselves.
        match process::find(tool) {
            Some(path) => archive.program(&path)?,
            None => println!("vm: the guest will have no {tool}, because this machine has none"),
        }
    }
    for tree in TREES {
        archive.tree(Path::new(tree))?;
    }
    for plugin in fs::read_dir("/usr/lib/x86_64-linux-gnu/xtables").into_iter().flatten().flatten() {
        archive.program(&plugin.path())?;
    }
    for file in FILES.iter().map(Path::new).filter(|file| file.is_file()) {
        archive.copy(file)?;
    }
    archive.link("/usr/bin/sh", "dash")?;
    let busybox = process::find("busybox").context("no busybox; install the package of that name")?;
    archive.program(&busybox)?;
    archive.copy_to(&busybox, Path::new("/usr/bin/busybox"))?;
    let list = process::stdout(Command::new(&busybox).arg("--list"))?;
    let shadows = |applet: &str| TOOLS.contains(&applet) || ["sh", "busybox", "iptables"].contains(&applet);
    for applet in list.lines().filter(|applet| !shadows(applet)) {
        archive.link(&format!("/usr/bin/{applet}"), "busybox")?;
    }
    Ok(())
}

/// Writes the part of a file system that is one kernel's own: its modules.
pub(super) fn modules(path: &Path, kernel: &Kernel) -> Result<()> {
    let mut archive = Archive::create(path)?;
    let mut list = String::new();
    for module in modules::in_order(&kernel.modules)? {
        let place = format!("/usr/lib/modules/{}/{}.ko", kernel.release, module.name);
        archive.file(&place, 0o644, &module.content)?;
        list += &format!("{place}\n");
    }
    archive.file(MODULES, 0o644, list.as_bytes())?;
    archive.finish()
}

/// Writes the file system of one machine: the parts, and its plan.
pub(super) fn whole(path: &Path, parts: [&Path; 2], jobs: &[Job], shell: bool) -> Result<()> {
    let mut archive = Archive::create(path)?;
    let plan: String = jobs.iter().map(|job| format!("{job}\n")).collect();
    archive.file(PLAN, 0o644, plan.as_bytes())?;
    if shell {
        archive.file(SHELL, 0o644, b"")?;
    }
    archive.finish()?;
    let mut out = File::options().append(true).open(path)?;
    for part in parts {
        let context = || part.display().to_string();
        let mut part = File::open(part).with_context(context)?;
        io::copy(&mut part, &mut out).with_context(context)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_among_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"x"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"x"},"executable":"/t/x-1"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"run"},"executable":"/t/run-2"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(test_programs(messages).expect("one"), [("run".to_owned(), PathBuf::from("/t/run-2"))]);
        assert!(test_programs("").is_err());
    }
}
