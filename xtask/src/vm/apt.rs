//! A root of its own for apt, so that kernels of other suites can be fetched and checked without the machine's own
//! package state being read or changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::kernels::SERIES;
use crate::process;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Lists, cache and sources below one directory.
pub(super) struct PrivateApt {
    dir: PathBuf,
}

impl PrivateApt {
    /// Fetches the lists of all suites, from the mirror given or the one that this machine is set to. apt checks their
    /// signatures, and with them every package.
    pub(super) fn update(dir: &Path, mirror: Option<&str>) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing; install the package debian-archive-keyring");
        }
        let mirrors = match mirror {
            Some(main) => Mirrors::below(main),
            None => Mirrors::of_this_machine()?,
        };
        for sub in ["lists/partial", "cache/archives/partial"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).with_context(|| sub.display().to_string())?;
        }
        // An empty state: nothing is installed, as far as this root knows.
        fs::write(dir.join("status"), "")?;
        fs::write(dir.join("sources.list"), mirrors.sources())?;
        let apt = Self { dir: dir.to_owned() };
        println!("vm: looking for kernels");
        process::stdout(apt.command("apt-get").args(["-q", "update"]))?;
        Ok(apt)
    }

    /// The names of packages that begin so.
    pub(super) fn package_names(&self, prefix: &str) -> Result<String> {
        process::stdout(self.command("apt-cache").args(["pkgnames", prefix]))
    }

    /// Whether there is such a package.
    pub(super) fn has(&self, package: &str) -> bool {
        self.package_names(package).is_ok_and(|names| names.lines().any(|name| name == package))
    }

    /// Downloads packages and unpacks them into a tree; nothing is installed and none of their scripts runs.
    pub(super) fn unpack(&self, packages: &[String], download: &Path, tree: &Path) -> Result<()> {
        fs::create_dir_all(download)?;
        let mut cmd = self.command("apt-get");
        process::stdout(cmd.args(["-q", "download"]).args(packages).current_dir(download))?;
        for entry in fs::read_dir(download)? {
            process::stdout(Command::new("dpkg").arg("-x").arg(entry?.path()).arg(tree))?;
        }
        fs::remove_dir_all(download)?;
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let options = [
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
            ("Dir::Etc::preferences", "/dev/null".to_owned()),
            ("Dir::Etc::preferencesparts", "/dev/null".to_owned()),
            ("Dir::State", at("")),
            ("Dir::State::lists", at("lists")),
            ("Dir::State::status", at("status")),
            ("Dir::Cache", at("cache")),
            ("APT::Architecture", "amd64".to_owned()),
            ("APT::Architectures", "amd64".to_owned()),
            // The user whom apt switches to for downloads may not enter this directory.
            ("APT::Sandbox::User", String::new()),
            ("Acquire::Languages", "none".to_owned()),
        ];
        let mut cmd = Command::new(program);
        cmd.args(options.into_iter().flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")]));
        cmd
    }
}

/// Where Debian's archives are.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    /// Of an archive whose security updates are beside it, as mirrors have them.
    fn below(main: &str) -> Self {
        let main = main.trim_end_matches('/');
        Self { main: main.to_owned(), security: format!("{main}-security") }
    }

    /// Those that apt uses here.
    fn of_this_machine() -> Result<Self> {
        let format = "$(REPO_URI) $(LABEL)";
        let mut cmd = Command::new("apt-get");
        let targets = cmd.args(["indextargets", "--format", format, "Created-By: Packages"]);
        Self::among(&process::stdout(targets)?)
            .context("this machine is not set to a mirror of Debian; name one with `--mirror URL`")
    }

    fn among(targets: &str) -> Option<Self> {
        let of = |label: &str| {
            let mut lines = targets.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(_, found)| *found == label).map(|(uri, _)| uri.trim_end_matches('/').to_owned())
        };
        let main = of("Debian")?;
        let security = of("Debian-Security").unwrap_or_else(|| Self::below(&main).security);
        Some(Self { main, security })
    }

    /// The sources of all series.
    fn sources(&self) -> String {
        let line = |series: &super::kernels::Series| {
            let uri = if series.is_security { &self.security } else { &self.main };
            // A suite at the end of its life keeps its last lists, whose validity has run out.
            let options = format!("arch=amd64 target=Packages signed-by={KEYRING} check-valid-until=no");
            format!("deb [{options}] {uri} {} main\n", series.suite)
        };
        SERIES.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_found_by_what_they_say_they_are() {
        let targets = "https://packages.example.org/ Tools\nhttp://mirror.example.org/debian/ Debian\n\
                       http://mirror.example.org/debian/ Debian\nhttp://s.example.org/ds/ Debian-Security\n";
        let found = Mirrors::among(targets).expect("both are there");
        let expected = ("http://mirror.example.org/debian", "http://s.example.org/ds");
        assert_eq!((found.main.as_str(), found.security.as_str()), expected);
        assert_eq!(Mirrors::among("http://mirror.example.org/ubuntu/ Ubuntu\n"), None);
    }

    #[test]
    fn every_suite_has_its_archive() {
        let sources = Mirrors::below("http://mirror.example.org/debian/").sources();
        assert_eq!(sources.lines().count(), SERIES.len());
        assert!(
            sources.contains("] http://mirror.example.org/debian-security bullseye-security main\n"),
            "{sources}"
        );
        assert!(sources.contains("] http://mirror.example.org/debian trixie-backports main\n"), "{sources}");
    }
}
