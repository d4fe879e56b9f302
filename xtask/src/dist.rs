//! `cargo xtask dist`: packages for Debian and Ubuntu, and for CentOS Stream, RHEL, Alma and Rocky.
//!
//! Both are made from one directory, `target/package`, and the tables of `userspace/Cargo.toml`. The program in them is
//! static, so that neither depends on a version of the C library.

mod check;
mod notify;
mod root;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};

use crate::{
    process,
    release::{self, Arch},
    workspace,
};

/// Build the packages: deb and RPM
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The architecture [default: this machine's]
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// Package this program, which is linked statically, instead of building one
    #[arg(long, value_name = "FILE", conflicts_with = "no_build")]
    binary: Option<PathBuf>,
    /// Then install, upgrade, remove and purge both in directories of their own, as root
    #[arg(long)]
    check: bool,
    /// With --check: also start the agent as systemd would, and wait until it says that it is ready and alive
    #[arg(long, requires = "check")]
    agent: bool,
    /// Check what was built before
    #[arg(long, requires = "check")]
    no_build: bool,
    /// Check these packages: what `--check` starts in namespaces of its own
    #[arg(long, hide = true, num_args = 2, value_names = ["DEB", "RPM"])]
    inside: Option<Vec<PathBuf>>,
}

/// Where both packages are made from. It is below the repository, whatever cargo's output directory is: the tables of
/// `userspace/Cargo.toml` name it.
fn staging() -> PathBuf {
    workspace::root().join("target/package")
}

/// Builds, and checks if asked to.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some([deb, rpm]) = args.inside.as_deref() {
        return check::inside(deb, rpm, args.agent);
    }
    let arch = args.arch.map_or_else(Arch::host, Ok)?;
    let packages = Packages::of(arch)?;
    if !args.no_build {
        packages.build(arch, args.binary.as_deref())?;
    }
    for package in [&packages.deb, &packages.rpm] {
        let bytes = fs::metadata(package).with_context(|| package.display().to_string())?.len();
        println!("dist: {} ({:.1} MiB)", package.display(), bytes as f64 / f64::from(1 << 20));
    }
    if args.check {
        if arch != Arch::host()? {
            bail!("packages for {} cannot be checked on this machine", arch.name());
        }
        check::run(&packages.deb, &packages.rpm, args.agent)?;
    }
    Ok(())
}

/// The files of both packages.
struct Packages {
    deb: PathBuf,
    rpm: PathBuf,
}

impl Packages {
    fn of(arch: Arch) -> Result<Self> {
        let version = version()?;
        Ok(Self {
            deb: staging().join(format!("nettrace_{version}-1_{}.deb", arch.debian())),
            rpm: staging().join(format!("nettrace-{version}-1.{}.rpm", arch.name())),
        })
    }

    fn build(&self, arch: Arch, binary: Option<&Path>) -> Result<()> {
        let missing: Vec<_> = ["cargo-deb", "cargo-generate-rpm"]
            .into_iter()
            .filter(|tool| process::find(tool).is_none())
            .collect();
        if !missing.is_empty() {
            bail!(
                "there is no {}; `cargo xtask setup --dist` installs what is missing",
                missing.join(" and no ")
            );
        }
        let program = match binary {
            Some(binary) => {
                release::check_static(binary)?;
                binary.to_owned()
            }
            None => release::build(arch)?,
        };
        // What it says of itself is the same on all architectures.
        let runs_here = if arch == Arch::host()? { program.clone() } else { release::build(Arch::host()?)? };
        stage(&program, &runs_here)?;
        let target = arch.target();
        let mut deb = process::cargo();
        deb.args([
            "deb",
            "--package=nettrace",
            "--no-build",
            "--no-strip",
            "--quiet",
            "--target",
            &target,
            "--output",
        ]);
        process::run(deb.arg(&self.deb))?;
        let mut rpm = process::cargo();
        rpm.args([
            "generate-rpm",
            "--package=userspace",
            "--auto-req=disabled",
            "--target",
            &target,
            "--output",
        ]);
        process::run(rpm.arg(&self.rpm))
    }
}

/// nettrace's version.
pub(crate) fn version() -> Result<String> {
    let text = fs::read_to_string(workspace::root().join("Cargo.toml"))?;
    let manifest: toml::Table = text.parse().context("Cargo.toml")?;
    let version =
        manifest["workspace"].get("package").and_then(|p| p.get("version")).and_then(toml::Value::as_str);
    version.map(str::to_owned).context("Cargo.toml has no version")
}

/// Puts together what the packages have beside files of the repository.
fn stage(program: &Path, runs_here: &Path) -> Result<()> {
    let dir = staging();
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    for name in ["man", "completions"] {
        fs::create_dir_all(dir.join(name))?;
    }
    fs::copy(program, dir.join("nettrace"))?;
    let pages = dir.join("pages");
    process::run(Command::new(runs_here).args(["man", "--dir"]).arg(&pages))?;
    for page in fs::read_dir(&pages)? {
        let page = page?;
        let name = format!("{}.gz", page.file_name().to_string_lossy());
        compress(&fs::read(page.path())?, &dir.join("man").join(name))?;
    }
    for (shell, name) in [("bash", "nettrace"), ("zsh", "_nettrace"), ("fish", "nettrace.fish")] {
        let script = process::stdout(Command::new(runs_here).args(["completions", shell]))?;
        fs::write(dir.join("completions").join(name), script)?;
    }
    let changes = fs::read(workspace::root().join("CHANGELOG.md"))?;
    compress(&changes, &dir.join("CHANGELOG.md.gz"))?;
    fs::write(dir.join("changelog"), debian_changelog(&version()?, &commit_date()))?;
    Ok(())
}

/// Debian wants one of its own form: a version and a date, and where the rest is.
fn debian_changelog(version: &str, date: &str) -> String {
    format!(
        "nettrace ({version}-1) unstable; urgency=medium\n\n  * See /usr/share/doc/nettrace/CHANGELOG.md.gz.\n\n \
         -- nettrace developers <nettrace@users.noreply.github.com>  {date}\n"
    )
}

/// When the sources were as they are, as mails have it; the beginning of time for sources without a history.
fn commit_date() -> String {
    let mut git = Command::new("git");
    let date = process::stdout(git.args(["log", "-1", "--format=%cD"]).current_dir(workspace::root()));
    date.map_or_else(|_| "Thu, 01 Jan 1970 00:00:00 +0000".to_owned(), |date| date.trim().to_owned())
}

/// The same bytes each time: no name and no date.
fn compress(bytes: &[u8], path: &Path) -> Result<()> {
    let mut writer = GzBuilder::new().mtime(0).write(fs::File::create(path)?, Compression::best());
    writer.write_all(bytes)?;
    writer.finish()?;
    Ok(())
}
