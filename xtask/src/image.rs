//! `cargo xtask image`: a container image of one static program, for each architecture that this machine can build for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    dist, process,
    release::{self, Arch},
    workspace,
};

/// The image's name on this machine.
pub(crate) const NAME: &str = "localhost/nettrace";

/// Build the container image, with buildah, docker or podman
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Architectures [default: this machine's, and the other one where there is a cross compiler]
    #[arg(long, value_enum)]
    arch: Vec<Arch>,
    /// Its tag [default: the version]
    #[arg(long)]
    tag: Option<String>,
    /// The program for it, linked statically, instead of one that is built now; for one architecture
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where the archives go, one for each architecture, as `nettrace-ARCH.tar`
    #[arg(long, value_name = "DIR", default_value = "target/image")]
    output: PathBuf,
}

/// What builds images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Builder {
    Buildah,
    Docker,
    Podman,
}

impl Builder {
    /// The first that is there and works.
    fn find() -> Result<Self> {
        let works = |program: &str, check: &[&str]| {
            process::find(program).is_some()
                && process::output(Command::new(program).args(check)).is_ok_and(|out| out.status.success())
        };
        if works("buildah", &["--version"]) {
            return Ok(Self::Buildah);
        }
        // Its client is there without its daemon.
        if works("docker", &["info"]) {
            return Ok(Self::Docker);
        }
        if works("podman", &["--version"]) {
            return Ok(Self::Podman);
        }
        bail!("nothing here builds images: install buildah or podman, or start docker's daemon")
    }

    /// Builds one, and writes it as an archive.
    fn build(self, context: &Path, arch: Arch, tag: &str, archive: &Path) -> Result<()> {
        let file = workspace::root().join("deploy/image/Containerfile");
        let platform = format!("linux/{}", arch.debian());
        let version = format!("VERSION={}", dist::version()?);
        if archive.exists() {
            // Some do not write over another archive.
            fs::remove_file(archive)?;
        }
        match self {
            Self::Buildah => {
                // Without a kernel's help: nothing runs while it is built, so nothing needs to be isolated.
                let store = ["--storage-driver", "vfs"];
                let mut bud = Command::new("buildah");
                bud.args(store).args(["bud", "--quiet", "--isolation", "chroot", "--platform", &platform]);
                bud.args(["--build-arg", &version, "--tag", tag, "--file"]).arg(file).arg(context);
                process::run(&mut bud)?;
                // Docker, podman, containerd and kind all take this format.
                let to = format!("docker-archive:{}:{tag}", archive.display());
                process::run(Command::new("buildah").args(store).args(["push", "--quiet", tag, &to]))
            }
            Self::Docker | Self::Podman => {
                let program = if self == Self::Docker { "docker" } else { "podman" };
                let mut build = Command::new(program);
                build.args([
                    "build",
                    "--quiet",
                    "--platform",
                    &platform,
                    "--build-arg",
                    &version,
                    "--tag",
                    tag,
                    "--file",
                ]);
                process::run(build.arg(file).arg(context))?;
                process::run(Command::new(program).args(["save", "--output"]).arg(archive).arg(tag))
            }
        }
    }
}

/// Builds the images.
pub(crate) fn run(args: &Args) -> Result<()> {
    let builder = Builder::find()?;
    if args.binary.is_some() && args.arch.len() != 1 {
        bail!("--binary is of one architecture: name it by --arch");
    }
    let arches = if args.arch.is_empty() { possible()? } else { args.arch.clone() };
    let tag = match &args.tag {
        Some(tag) => tag.clone(),
        None => dist::version()?,
    };
    let output = workspace::root().join(&args.output);
    fs::create_dir_all(&output)?;
    for arch in arches {
        let archive = build(builder, arch, args.binary.as_deref(), &tag, &output)?;
        println!("image: {} is {NAME}:{tag} for {}", archive.display(), arch.debian());
    }
    Ok(())
}

/// Builds the one of this machine; yields its archive.
pub(crate) fn of_this_machine(tag: &str) -> Result<PathBuf> {
    let output = workspace::root().join("target/image");
    fs::create_dir_all(&output)?;
    build(Builder::find()?, Arch::host()?, None, tag, &output)
}

fn build(builder: Builder, arch: Arch, binary: Option<&Path>, tag: &str, output: &Path) -> Result<PathBuf> {
    let program = match binary {
        Some(program) => program.to_owned(),
        None => release::build(arch)?,
    };
    // What is not static would not run in an empty image.
    release::check_static(&program)?;
    let context = output.join(format!("context-{}", arch.debian()));
    fs::create_dir_all(&context)?;
    let root = workspace::root();
    let files = [root.join("LICENSE-APACHE"), root.join("LICENSE-MIT"), root.join("deploy/agent.toml")];
    for file in &files {
        let name = file.file_name().context("a file without a name")?;
        fs::copy(file, context.join(name)).with_context(|| file.display().to_string())?;
    }
    fs::copy(program, context.join("nettrace"))?;
    let archive = output.join(format!("nettrace-{}.tar", arch.debian()));
    builder.build(&context, arch, &format!("{NAME}:{tag}"), &archive)?;
    fs::remove_dir_all(&context)?;
    Ok(archive)
}

/// This machine's architecture and those that it can build for; says why not for the others.
fn possible() -> Result<Vec<Arch>> {
    let host = Arch::host()?;
    let mut arches = vec![host];
    for arch in [Arch::X86_64, Arch::Aarch64].into_iter().filter(|arch| *arch != host) {
        let missing = arch.missing();
        if missing.is_empty() {
            arches.push(arch);
        } else {
            println!("image: not for {}: this machine lacks {}", arch.debian(), missing.join(", "));
        }
    }
    Ok(arches)
}
