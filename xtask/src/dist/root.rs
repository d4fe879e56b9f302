//! File systems to install packages into: this machine's own with everything that is written kept apart, and an empty one.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::process;

/// A root directory, in a mount namespace that goes with this process and takes all mounts with it.
pub(super) struct Root {
    pub(super) path: PathBuf,
}

impl Root {
    /// This machine's root file system, of which only what is written is new; nothing else that is mounted is in it, so no
    /// service manager is found there.
    pub(super) fn overlay(work: &Path) -> Result<Self> {
        for dir in ["upper", "work", "root"] {
            fs::create_dir_all(work.join(dir))?;
        }
        let at = |dir: &str| work.join(dir).display().to_string();
        let options = format!("lowerdir=/,upperdir={},workdir={}", at("upper"), at("work"));
        let path = work.join("root");
        process::run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&path))?;
        let root = Self { path };
        root.kernel()?;
        Ok(root)
    }

    /// A directory with a shell and what that needs.
    pub(super) fn with_shell(work: &Path) -> Result<Self> {
        let root = Self { path: work.join("rpm-root") };
        for dir in ["bin", "proc", "sys", "dev", "tmp", "run", "var/lib", "etc", "usr/bin"] {
            fs::create_dir_all(root.path.join(dir))?;
        }
        let shell = process::find("dash").or_else(|| process::find("sh")).context("there is no shell")?;
        let shell = fs::canonicalize(shell)?;
        fs::copy(&shell, root.path.join("bin/sh"))?;
        let libraries = process::stdout(Command::new("ldd").arg(&shell))?;
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let to = root.inside(library);
            fs::create_dir_all(to.parent().context(library.to_owned())?)?;
            fs::copy(library, to)?;
        }
        root.kernel()?;
        Ok(root)
    }

    /// The kernel's own file systems.
    fn kernel(&self) -> Result<()> {
        for dir in ["/proc", "/sys", "/dev"] {
            process::run(Command::new("mount").args(["--rbind", dir]).arg(self.inside(dir)))?;
        }
        Ok(())
    }

    /// Where a path of the root is.
    pub(super) fn inside(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    /// A command that runs in it.
    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut cmd = Command::new("chroot");
        cmd.arg(&self.path).args(words).env("DEBIAN_FRONTEND", "noninteractive");
        cmd
    }

    /// Checks a file's owner and mode.
    pub(super) fn check_file(&self, path: &str, mode: u32) -> Result<()> {
        let meta = fs::symlink_metadata(self.inside(path)).with_context(|| path.to_owned())?;
        let found = (meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777);
        ensure!(
            found == (0, 0, mode),
            "{path} is of {}:{} with mode {:o}, and not {mode:o}",
            found.0,
            found.1,
            found.2
        );
        Ok(())
    }

    /// Checks that something is not there.
    pub(super) fn check_gone(&self, path: &str) -> Result<()> {
        if fs::symlink_metadata(self.inside(path)).is_ok() {
            bail!("{path} is still there");
        }
        Ok(())
    }
}
