//! `cargo xtask setup`: what building the kernel object and running the tests need, installed once.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    packages::{COMPILER, PACKAGES, Package, Part, SERVICES},
    privilege::Privilege,
    process,
    toolchain::Toolchain,
    workspace,
};

const BPF_LINKER: &str = "0.13.0";
const CARGO_DENY: &str = "0.20.2";
/// What packages are made with.
const PACKAGERS: [(&str, &str); 2] = [("cargo-deb", "3.8.0"), ("cargo-generate-rpm", "0.21.1")];

/// Install what building the kernel object and running the tests need
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only what building the kernel object and linting need
    #[arg(long, conflicts_with = "test")]
    build_only: bool,
    /// Only what running the tests needs; no LLVM
    #[arg(long, alias = "test-only")]
    test: bool,
    /// Only what running the tests in virtual machines needs (`cargo xtask vm`)
    #[arg(long, conflicts_with_all = ["build_only", "test"])]
    vm: bool,
    /// Only what making and checking packages needs (`cargo xtask dist`)
    #[arg(long, conflicts_with_all = ["build_only", "test", "vm"])]
    dist: bool,
}

/// Installs what is missing and fails with the list of what still is.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut apt = Apt::new();
    let mut missing = Vec::new();
    if args.vm {
        missing.extend(install_packages(Part::Vm, &mut apt)?);
    }
    if args.dist {
        missing.extend(install_packages(Part::Dist, &mut apt)?);
        missing.extend(PACKAGERS.iter().filter_map(|(name, version)| {
            cargo_tool(name, version).err().map(|error| format!("{name}: {error:#}"))
        }));
    }
    if !args.build_only && !args.vm && !args.dist {
        missing.extend(install_packages(Part::Test, &mut apt)?);
    }
    if !args.test && !args.vm && !args.dist {
        missing.extend(install_packages(Part::Build, &mut apt)?);
        let steps: [fn(&mut Apt) -> Result<()>; 3] =
            [compiler, bpf_linker, |_| cargo_tool("cargo-deny", CARGO_DENY)];
        missing.extend(steps.iter().filter_map(|step| step(&mut apt).err()).map(|e| format!("{e:#}")));
    }
    if missing.is_empty() {
        println!("setup: everything is there");
        return Ok(());
    }
    bail!("setup could not provide:\n  {}", missing.join("\n  "));
}

/// Installs what the tests need; for `cargo xtask test`.
pub(crate) fn test_tools() -> Result<()> {
    run(&Args { build_only: false, test: true, vm: false, dist: false })
}

/// Installs what the virtual machines need; for `cargo xtask vm`.
pub(crate) fn vm_tools() -> Result<()> {
    run(&Args { build_only: false, test: false, vm: true, dist: false })
}

/// Installs the packages of one part, and gives back why some are still missing.
fn install_packages(part: Part, apt: &mut Apt) -> Result<Vec<String>> {
    let wanted: Vec<_> = PACKAGES
        .iter()
        .filter(|p| p.parts.contains(&part) && !is_met(p))
        .map(|package| package.name)
        .collect();
    let missing = apt.install(&wanted)?;
    let is_new = |service: &&&str| wanted.contains(*service) && !missing.iter().any(|m| m.name == **service);
    for service in SERVICES.iter().filter(is_new) {
        silence(service, apt.privilege);
    }
    let is_optional = |name: &str| PACKAGES.iter().any(|package| package.name == name && package.is_optional);
    let (without, missing): (Vec<_>, Vec<_>) = missing.into_iter().partition(|m| is_optional(&m.name));
    without.iter().for_each(|m| println!("setup: goes without {m}"));
    Ok(missing.into_iter().map(|m| m.to_string()).collect())
}

fn is_met(package: &Package) -> bool {
    package.programs.iter().any(|program| process::find(program).is_some()) || is_installed(package.name)
}

fn is_installed(name: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", name]).output();
    query.is_ok_and(|out| out.status.success() && out.stdout == b"installed")
}

/// Keeps a server that was installed only for its program from serving this machine.
fn silence(service: &str, privilege: Privilege) {
    if !Path::new("/run/systemd/system").is_dir() {
        return;
    }
    let done = privilege
        .command(&[], "systemctl")
        .is_ok_and(|mut cmd| process::run(cmd.args(["disable", "--now", "--quiet", service])).is_ok());
    if !done {
        println!("setup: {service} may be running as a service now; nettrace does not need it to");
    }
}

/// A compiler for the BPF target: the distribution's where it has one, else rustup's library sources.
fn compiler(apt: &mut Apt) -> Result<()> {
    let suits = || Toolchain::find().and_then(|found| found.clippy(workspace::ARCHES[0]).map(|_| ()));
    if suits().is_ok() {
        return Ok(());
    }
    let wanted: Vec<_> = COMPILER.into_iter().filter(|name| !is_installed(name)).collect();
    let missing = apt.install(&wanted)?;
    if suits().is_ok() {
        return Ok(());
    }
    if process::find("rustup").is_some() {
        println!("setup: rustup component add rust-src clippy");
        process::run(Command::new("rustup").args(["component", "add", "rust-src", "clippy"]))
            .context("the BPF compiler, by way of rustup")?;
    }
    let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
    suits().with_context(|| missing.join(", "))
}

fn bpf_linker(apt: &mut Apt) -> Result<()> {
    if process::find("bpf-linker").is_some() {
        return Ok(());
    }
    let llvm = Toolchain::find().context("bpf-linker: which LLVM it needs depends on the compiler")?;
    let llvm = llvm.version().llvm;
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let package = format!("llvm-{llvm}-dev");
    let wanted = if is_installed(&package) { vec![] } else { vec![package.as_str()] };
    if let Some(missing) = apt.install(&wanted)?.first() {
        bail!("bpf-linker: {missing}; or install the ready-made one with `cargo binstall bpf-linker`");
    }
    let features = format!("--features=llvm-{llvm}");
    let mut cmd = process::cargo();
    cmd.args(["install", "bpf-linker", "--version", BPF_LINKER, "--no-default-features", &features])
        .env("LLVM_PREFIX", prefix);
    println!("setup: {}", process::shown(&cmd));
    process::run(&mut cmd)
}

/// A tool of cargo's.
fn cargo_tool(name: &str, version: &str) -> Result<()> {
    if process::find(name).is_some() {
        return Ok(());
    }
    let mut cmd = process::cargo();
    // Without optimisation it is built in a third of the time, and still takes a second.
    cmd.args(["install", name, "--version", version, "--locked", "--debug"]);
    println!("setup: {}", process::shown(&cmd));
    process::run(&mut cmd)
}

/// apt-get, with the package lists fetched once and only when something is to be installed.
struct Apt {
    privilege: Privilege,
    is_updated: bool,
}

/// A package that could not be installed.
struct Missing {
    name: String,
    why: &'static str,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "package {} ({})", self.name, self.why)
    }
}

impl Apt {
    fn new() -> Self {
        Self { privilege: Privilege::detect(), is_updated: false }
    }

    /// Installs what of these can be; the rest comes back. An error is a failure of apt-get itself.
    fn install(&mut self, names: &[&str]) -> Result<Vec<Missing>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let all_missing =
            |why| Ok(names.iter().map(|&name| Missing { name: name.to_owned(), why }).collect());
        if process::find("apt-get").is_none() {
            return all_missing("Debian's name; there is no apt-get here");
        }
        if !self.is_updated {
            match self.apt_get(&["update", "-q"]) {
                Ok(mut cmd) => process::run(&mut cmd)?,
                Err(why) => return all_missing(why),
            }
            self.is_updated = true;
        }
        let (known, unknown): (Vec<_>, Vec<_>) = names.iter().copied().partition(|name| is_available(name));
        if !known.is_empty() {
            println!("setup: apt-get install {}", known.join(" "));
            let mut cmd = self
                .apt_get(&["install", "-q", "-y", "--no-install-recommends"])
                .map_err(|why| anyhow!("cannot install packages: {why}"))?;
            process::run(cmd.args(known))?;
        }
        let why = "not known to this distribution";
        Ok(unknown.into_iter().map(|name| Missing { name: name.to_owned(), why }).collect())
    }

    fn apt_get(&self, args: &[&str]) -> Result<Command, &'static str> {
        let mut cmd = self.privilege.command(&[("DEBIAN_FRONTEND", "noninteractive")], "apt-get")?;
        cmd.args(args);
        Ok(cmd)
    }
}

/// Whether apt could install it; also true of a virtual package with one provider.
fn is_available(name: &str) -> bool {
    let simulated = Command::new("apt-get").args(["install", "--simulate", "-q", name]).output();
    simulated.is_ok_and(|out| out.status.success())
}
