//! The `nettrace` that is shipped: optimised, without symbols, and linked statically against the C library, so that it runs on
//! any distribution and in an empty image.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use object::read::elf::{ElfFile64, ProgramHeader as _};

use crate::{process, workspace};

/// An architecture, and what it is called where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "verbatim")]
pub(crate) enum Arch {
    /// AMD64.
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    /// 64-bit Arm.
    #[value(name = "aarch64", alias = "arm64")]
    Aarch64,
}

impl Arch {
    /// That of this machine.
    pub(crate) fn host() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => bail!("there is no nettrace for {other}"),
        }
    }

    /// As the kernel and RPM call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As Debian, Go and OCI images call it.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// As Rust calls it, with the GNU C library.
    pub(crate) fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.name())
    }

    /// The C compiler that links for it.
    fn linker(self) -> String {
        format!("{}-linux-gnu-gcc", self.name())
    }

    /// What this machine lacks to build for it; empty when it can.
    pub(crate) fn missing(self) -> Vec<String> {
        let mut missing = Vec::new();
        if Self::host().is_ok_and(|host| host == self) {
            return missing;
        }
        if process::find(&self.linker()).is_none() {
            let package = format!("gcc-{}-linux-gnu", self.name().replace('_', "-"));
            missing.push(format!("{} (package {package})", self.linker()));
        }
        if !has_library(&self.target()) {
            missing.push(format!("Rust's library for it (rustup target add {})", self.target()));
        }
        missing
    }
}

/// Whether the compiler has its library for a target.
fn has_library(target: &str) -> bool {
    let mut rustc = Command::new("rustc");
    let sysroot = process::stdout(rustc.args(["--print", "sysroot"]).current_dir(workspace::root()));
    sysroot.is_ok_and(|dir| Path::new(dir.trim()).join("lib/rustlib").join(target).join("lib").is_dir())
}

/// Has cargo link programs statically. With `--target` the flags are for the programs alone, and not for the compiler's
/// plugins, which cannot be static.
pub(crate) fn link_statically(cmd: &mut Command) -> &mut Command {
    cmd.env("CARGO_ENCODED_RUSTFLAGS", "-C\x1ftarget-feature=+crt-static").env_remove("RUSTFLAGS")
}

/// Builds it.
pub(crate) fn build(arch: Arch) -> Result<PathBuf> {
    let missing = arch.missing();
    if !missing.is_empty() {
        bail!("to build for {} this machine lacks {}", arch.name(), missing.join(", "));
    }
    let dir = workspace::target_dir().join("dist");
    let target = arch.target();
    let mut cmd = process::cargo();
    cmd.args(["build", "--release", "--locked", "--package=nettrace", "--bin=nettrace", "--target", &target]);
    cmd.arg("--target-dir").arg(&dir).env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    if Arch::host()? != arch {
        let name = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
        cmd.env(name, arch.linker());
    }
    process::run(link_statically(&mut cmd))?;
    let program = dir.join(target).join("release/nettrace");
    check_static(&program)?;
    Ok(program)
}

/// A program that names an interpreter needs that, and libraries.
pub(crate) fn check_static(program: &Path) -> Result<()> {
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    let file =
        ElfFile64::<object::Endianness>::parse(&*bytes).with_context(|| program.display().to_string())?;
    let endian = file.endian();
    if file.elf_program_headers().iter().any(|header| header.p_type(endian) == object::elf::PT_INTERP) {
        bail!("{} is not linked statically", program.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        let this = std::env::current_exe().expect("the test's own");
        let error = check_static(&this).expect_err("the test is linked dynamically");
        assert!(error.to_string().contains("not linked statically"), "{error}");
    }

    #[test]
    fn what_is_missing_for_another_architecture_is_named() {
        assert!(Arch::host().expect("one of two").missing().is_empty());
        for arch in [Arch::X86_64, Arch::Aarch64] {
            for missing in arch.missing() {
                assert!(missing.contains(arch.name()) || missing.contains("gcc"), "{missing}");
            }
        }
    }
}
