//! `cargo xtask build-ebpf`: the kernel object of every architecture, from source into `userspace/bpf`.

use std::{fs, path::PathBuf, process::Command, time::Instant};

use anyhow::{Context, Result, bail};

use crate::{
    object, process,
    sources::{MANIFEST, Manifest},
    toolchain::{self, Toolchain},
    workspace,
};

/// Build the kernel objects and put them into userspace/bpf
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compile verbose logs into the programs, which `nettrace -vv` shows; for work on them, never to be kept
    #[arg(long)]
    kernel_log: bool,
}

/// Builds, checks and installs the objects and their hashes; nothing is installed unless all are good.
pub(crate) fn run(args: &Args) -> Result<()> {
    if process::find("bpf-linker").is_none() {
        bail!("there is no bpf-linker; run `cargo xtask setup --build-only`");
    }
    let toolchain = Toolchain::find()?;
    println!("compiler: {}", toolchain.describe());
    let machine_paths: Vec<_> = toolchain.remaps().into_iter().map(|(from, _)| from).collect();
    let mut built = Vec::new();
    for arch in workspace::ARCHES {
        let start = Instant::now();
        let mut build = toolchain.cargo(arch, "build");
        if args.kernel_log {
            build.arg("--features=kernel-log");
        }
        process::run(&mut build)?;
        let path = stripped(&toolchain, arch)?;
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let summary = object::check(&bytes, &machine_paths)
            .with_context(|| format!("the kernel object for {arch} may not be kept"))?;
        println!(
            "{arch}: {} KiB, {} program sections, {} KiB of BTF, {:.1} s",
            bytes.len() >> 10,
            summary.programs,
            summary.btf >> 10,
            start.elapsed().as_secs_f64()
        );
        built.push((workspace::object_name(arch), bytes));
    }
    let kept = workspace::kept_dir();
    fs::create_dir_all(&kept).with_context(|| format!("cannot make {}", kept.display()))?;
    for (name, bytes) in built {
        install(&name, &bytes)?;
    }
    if args.kernel_log {
        println!("installed with kernel logs: {}; `cargo xtask lint` refuses these objects", kept.display());
        return Ok(());
    }
    let manifest = Manifest::of_files(&workspace::root(), &kept)?;
    install(MANIFEST, manifest.to_string().as_bytes())?;
    println!("installed: {}", kept.display());
    Ok(())
}

/// The object without DWARF, which is three quarters of it and which nothing reads; BTF with its line numbers stays.
fn stripped(toolchain: &Toolchain, arch: &str) -> Result<PathBuf> {
    let built = toolchain::built_object(arch);
    let Some(objcopy) = toolchain.objcopy() else {
        println!("{arch}: no llvm-objcopy found, so the object keeps its debug information and is larger");
        return Ok(built);
    };
    let to = built.with_added_extension("stripped");
    process::run(Command::new(objcopy).arg("--strip-debug").args([&built, &to]))?;
    Ok(to)
}

/// Puts a file in place as a whole, so that a build running beside this one never reads half of it.
fn install(name: &str, bytes: &[u8]) -> Result<()> {
    let to = workspace::kept_dir().join(name);
    if fs::read(&to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let new = to.with_added_extension("new");
    fs::write(&new, bytes)
        .and_then(|()| fs::rename(&new, &to))
        .with_context(|| format!("cannot write {}", to.display()))
}
