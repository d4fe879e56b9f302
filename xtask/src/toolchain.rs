//! The compiler for the BPF target: any rustc that has the sources of its own standard library beside it, because
//! nobody ships a compiled `core` for BPF. Both rustup's `rust-src` and a distribution's source package will do.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// The target of all kernel programs; every machine that nettrace runs on is little-endian.
const TARGET: &str = "bpfel-unknown-none";

/// A compiler that can build the kernel object.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The compiler.
    rustc: PathBuf,
    /// Its installation.
    sysroot: PathBuf,
    /// Its version and LLVM's.
    version: Version,
}

/// What `rustc -vV` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// Release of the compiler: major and minor.
    release: (u32, u32),
    /// Major version of its LLVM; bpf-linker has to be built with the same.
    pub(crate) llvm: u32,
}

impl Toolchain {
    /// The first suitable of: `$RUSTC`, the active toolchain, the distribution's, and rustup's others.
    pub(crate) fn find() -> Result<Self> {
        let mut tried = Vec::new();
        for rustc in candidates() {
            match Self::probe(&rustc) {
                Ok(found) => return Ok(found),
                Err(e) => tried.push(format!("{}: {e:#}", rustc.display())),
            }
        }
        bail!(
            "no compiler for the BPF target: one of them has to have its library sources; run `cargo xtask setup \
             --build-only` or `rustup component add rust-src`\n  {}",
            tried.join("\n  ")
        );
    }

    fn probe(rustc: &Path) -> Result<Self> {
        let version = Version::parse(&process::stdout(Command::new(rustc).arg("-vV"))?)?;
        let needed =
            parse_release(env!("CARGO_PKG_RUST_VERSION")).context("bad rust-version in Cargo.toml")?;
        if version.release < needed {
            bail!("is {}.{}, needs {}.{}", version.release.0, version.release.1, needed.0, needed.1);
        }
        let sysroot = process::stdout(Command::new(rustc).args(["--print", "sysroot"]))?;
        let sysroot = PathBuf::from(sysroot.trim());
        // Behind rustup's proxy is the real one, and the proxy would ignore a switch of toolchain.
        let rustc = sysroot.join("bin/rustc");
        let found = Self { rustc, sysroot, version };
        if !found.library().join("core/Cargo.toml").is_file() {
            bail!("no library sources in {}", found.library().display());
        }
        Ok(found)
    }

    /// The sources of the standard library.
    fn library(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust/library")
    }

    /// Its version.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// One line about it.
    pub(crate) fn describe(&self) -> String {
        let (major, minor) = self.version.release;
        format!("{} (Rust {major}.{minor}, LLVM {})", self.rustc.display(), self.version.llvm)
    }

    /// A cargo command on the kernel programs of one architecture.
    pub(crate) fn cargo(&self, arch: &str, subcommand: &str) -> Command {
        let mut cmd = process::cargo();
        cmd.arg(subcommand)
            .args(["--package=nettrace-ebpf", "--profile=bpf", "-Zbuild-std=core"])
            .arg(format!("--target={TARGET}"))
            .arg("--target-dir")
            .arg(target_dir(arch))
            .env("RUSTC", &self.rustc)
            // build-std is unstable by name only; this lets a stable compiler take it.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(arch).join("\x1f"))
            .env_remove("RUSTFLAGS")
            .env_remove("RUSTC_WRAPPER");
        cmd
    }

    /// Clippy on the kernel programs of one architecture; any warning is an error.
    pub(crate) fn clippy(&self, arch: &str) -> Result<Command> {
        let driver = self.sysroot.join("bin/clippy-driver");
        if !driver.is_file() {
            bail!(
                "{} has no clippy of the same version beside it; run `cargo xtask setup --build-only`",
                self.rustc.display()
            );
        }
        let mut cmd = self.cargo(arch, "check");
        // This is what `cargo clippy` does, but with the driver that belongs to this compiler.
        cmd.env("RUSTC_WORKSPACE_WRAPPER", driver).env("CLIPPY_ARGS", "-Dwarnings");
        Ok(cmd)
    }

    /// The tool that takes debug information out of an object; it comes with the LLVM that bpf-linker needs.
    pub(crate) fn objcopy(&self) -> Option<PathBuf> {
        let llvm = self.version.llvm;
        let own = PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin/llvm-objcopy"));
        let named =
            || process::find(&format!("llvm-objcopy-{llvm}")).or_else(|| process::find("llvm-objcopy"));
        Some(own).filter(|file| file.is_file()).or_else(named)
    }

    fn flags(&self, arch: &str) -> Vec<String> {
        let linker = process::find("bpf-linker").unwrap_or_else(|| "bpf-linker".into());
        let mut flags = vec![
            format!("--cfg=bpf_target_arch=\"{arch}\""),
            "-Cdebuginfo=2".to_owned(),
            format!("-Clinker={}", linker.display()),
            "-Clink-arg=--btf".to_owned(),
        ];
        flags.extend(self.remaps().iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")));
        flags
    }

    /// This machine's directories, and what stands for them in the object. The compiler takes the last that fits,
    /// so the narrower ones come later.
    pub(crate) fn remaps(&self) -> Vec<(String, &'static str)> {
        let mut dirs = vec![(workspace::root(), "nettrace")];
        if let Some(home) = workspace::cargo_home() {
            dirs.push((home.clone(), "cargo"));
            // Below are directories named after the registry's host.
            let registries = fs::read_dir(home.join("registry/src")).into_iter().flatten().flatten();
            dirs.extend(registries.map(|entry| (entry.path(), "crates")));
        }
        let sources = self.sysroot.join("lib/rustlib/src/rust");
        // The distribution's is a link, and the compiler sees either name.
        if let Ok(real) = sources.canonicalize() {
            dirs.push((real, "rust"));
        }
        dirs.push((sources, "rust"));
        dirs.into_iter().map(|(dir, name)| (dir.to_string_lossy().into_owned(), name)).collect()
    }
}

/// Cargo's output directory for one architecture; its own, so that flags of one do not undo the other's build.
pub(crate) fn target_dir(arch: &str) -> PathBuf {
    workspace::target_dir().join("bpf").join(arch)
}

/// Where cargo leaves the linked object of one architecture.
pub(crate) fn built_object(arch: &str) -> PathBuf {
    target_dir(arch).join(TARGET).join("bpf/nettrace-ebpf")
}

fn candidates() -> Vec<PathBuf> {
    let mut all = Vec::new();
    all.extend(env::var_os("RUSTC").map(PathBuf::from));
    all.extend(process::find("rustc"));
    all.push("/usr/bin/rustc".into());
    let rustup = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".rustup")));
    let toolchains = rustup.and_then(|home| fs::read_dir(home.join("toolchains")).ok());
    let mut others: Vec<_> =
        toolchains.into_iter().flatten().flatten().map(|entry| entry.path().join("bin/rustc")).collect();
    others.sort();
    all.extend(others);
    all.retain(|rustc| rustc.is_file());
    all
}

impl Version {
    fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let release = field("release:").and_then(parse_release);
        let llvm = field("LLVM version:").and_then(|v| v.split('.').next()?.parse().ok());
        match (release, llvm) {
            (Some(release), Some(llvm)) => Ok(Self { release, llvm }),
            _ => bail!("cannot make out the versions in the output of `rustc -vV`"),
        }
    }
}

/// Major and minor of `1.95.0-nightly` and the like.
fn parse_release(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_rustc() {
        let text = "rustc 1.96.0 (ac68faa20)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(Version::parse(text).expect("well formed"), Version { release: (1, 96), llvm: 22 });
        assert!(Version::parse("rustc 1.96.0\n").is_err());
        assert_eq!(parse_release("1.99.0-nightly"), Some((1, 99)));
        assert_eq!(parse_release("one"), None);
    }

    #[test]
    fn every_machine_path_is_mapped_away_and_narrow_ones_win() {
        let toolchain = Toolchain {
            rustc: "/opt/rust/bin/rustc".into(),
            sysroot: "/opt/rust".into(),
            version: Version { release: (1, 96), llvm: 22 },
        };
        let remaps = toolchain.remaps();
        let place = |dir: &Path| remaps.iter().position(|(from, _)| Path::new(from) == dir);
        assert_eq!(place(&workspace::root()), Some(0));
        assert_eq!(place(Path::new("/opt/rust/lib/rustlib/src/rust")), Some(remaps.len() - 1));
        assert!(toolchain.flags("aarch64").contains(&"--cfg=bpf_target_arch=\"aarch64\"".to_owned()));
    }
}
